// How many of four inputs are 1.
module popcount4 (
  input [3:0] a,
  output [2:0] count
);
  assign count = a[0] + a[1] + a[2] + a[3];
endmodule
