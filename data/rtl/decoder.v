// 4-bit code to one of 16 lines, with an enable.
module decoder (
  input [3:0] code,
  input enable,
  output [15:0] line
);
  assign line = enable ? 16'd1 << code : 16'd0;
endmodule
