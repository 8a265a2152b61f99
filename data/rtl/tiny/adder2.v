// Sum of two 2-bit numbers.
module adder2 (
  input [1:0] a,
  input [1:0] b,
  output [2:0] sum
);
  assign sum = a + b;
endmodule
