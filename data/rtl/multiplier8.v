// Product of two 8-bit numbers: rows of partial products added one after the other.
module multiplier8 (
  input [7:0] a,
  input [7:0] b,
  output [15:0] p
);
  wire [7:0] row [0:7];
  wire [7:0] sum [0:7];
  wire [8:0] carry [1:7];
  wire [7:0] top;
  genvar i, j;
  generate
    for (i = 0; i < 8; i = i + 1) begin : partial
      assign row[i] = a & {8{b[i]}};
    end
    assign sum[0] = row[0];
    assign top[0] = 1'b0;
    assign p[0] = sum[0][0];
    for (i = 1; i < 8; i = i + 1) begin : add
      wire [7:0] upper = {top[i - 1], sum[i - 1][7:1]};
      assign carry[i][0] = 1'b0;
      for (j = 0; j < 8; j = j + 1) begin : stage
        assign sum[i][j] = upper[j] ^ row[i][j] ^ carry[i][j];
        assign carry[i][j + 1] = (upper[j] & row[i][j]) | (upper[j] & carry[i][j]) |
          (row[i][j] & carry[i][j]);
      end
      assign top[i] = carry[i][8];
      assign p[i] = sum[i][0];
    end
  endgenerate
  assign p[15:8] = {top[7], sum[7][7:1]};
endmodule
