// Parallel counter: how many of 128 inputs are 1. Halves are counted and added, each adder with one
// input for the bit that is left over, so that every full adder has three inputs in use.
module apc128 (
  input [127:0] in,
  output [7:0] count
);
  counter #(.N(128), .W(8)) whole (.in(in), .count(count));
endmodule

// Counts N inputs: two halves and, where N is odd, the last input as the carry of their sum.
module counter #(
  parameter N = 2,
  parameter W = 2
) (
  input [N - 1:0] in,
  output [W - 1:0] count
);
  localparam H = (N - 1) / 2;
  localparam V = N == 1 ? 1 : $clog2(H + 1);
  generate
    if (N == 1) begin : one
      assign count = in;
    end else if (N == 2) begin : two
      assign count = {in[0] & in[1], in[0] ^ in[1]};
    end else if (N % 2 == 0) begin : even
      // the odd part counted, the last input added
      localparam U = $clog2(N);
      wire [U - 1:0] part;
      wire [U:0] carry;
      counter #(.N(N - 1), .W(U)) odd (.in(in[N - 2:0]), .count(part));
      assign carry[0] = in[N - 1];
      genvar i;
      for (i = 0; i < U; i = i + 1) begin : stage
        assign count[i] = part[i] ^ carry[i];
        assign carry[i + 1] = part[i] & carry[i];
      end
      if (W > U) begin : top
        assign count[U] = carry[U];
      end
    end else begin : odd
      wire [V - 1:0] left, right;
      wire [V:0] carry;
      counter #(.N(H), .W(V)) low (.in(in[H - 1:0]), .count(left));
      counter #(.N(H), .W(V)) high (.in(in[2 * H - 1:H]), .count(right));
      assign carry[0] = in[N - 1];
      genvar i;
      for (i = 0; i < V; i = i + 1) begin : stage
        assign count[i] = left[i] ^ right[i] ^ carry[i];
        assign carry[i + 1] = (left[i] & right[i]) | (left[i] & carry[i]) |
          (right[i] & carry[i]);
      end
      assign count[V] = carry[V];
    end
  endgenerate
endmodule
