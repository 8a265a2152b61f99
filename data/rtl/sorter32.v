// Sorts 32 one-bit keys, ones first, by a bitonic network of 240 comparators: on single bits a
// comparator is an or gate and an and gate. Output k is 1 if more than k inputs are.
module sorter32 (
  input [31:0] a,
  output [31:0] b
);
  // stage s of phase p (distances 2^(p-1) ... 1): 15 stages
  wire [31:0] x [0:15];
  assign x[0] = a;
  genvar p, q, i;
  generate
    for (p = 1; p <= 5; p = p + 1) begin : phase
      for (q = 0; q < p; q = q + 1) begin : step
        for (i = 0; i < 32; i = i + 1) begin : wires
          // the partner at this distance; blocks of 2^p alternate in direction
          localparam PARTNER = i ^ (1 << (p - 1 - q));
          localparam LARGER = ((i >> p) & 1) ^ (i < PARTNER ? 1 : 0);
          if (LARGER) begin : up
            assign x[p * (p - 1) / 2 + q + 1][i] =
              x[p * (p - 1) / 2 + q][i] | x[p * (p - 1) / 2 + q][PARTNER];
          end else begin : down
            assign x[p * (p - 1) / 2 + q + 1][i] =
              x[p * (p - 1) / 2 + q][i] & x[p * (p - 1) / 2 + q][PARTNER];
          end
        end
      end
    end
  endgenerate
  assign b = x[15];
endmodule
