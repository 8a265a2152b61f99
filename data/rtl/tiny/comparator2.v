// Order of two 2-bit numbers.
module comparator2 (
  input [1:0] a,
  input [1:0] b,
  output less,
  output equal
);
  assign less = a < b;
  assign equal = a == b;
endmodule
