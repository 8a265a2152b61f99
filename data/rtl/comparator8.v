// Order of two 8-bit numbers.
module comparator8 (
  input [7:0] a,
  input [7:0] b,
  output less,
  output equal
);
  assign less = a < b;
  assign equal = a == b;
endmodule
