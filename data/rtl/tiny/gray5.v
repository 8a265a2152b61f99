// 5-bit number in Gray code.
module gray5 (
  input [4:0] a,
  output [4:0] y
);
  assign y = a ^ (a >> 1);
endmodule
