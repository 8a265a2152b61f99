// Sum of three bits.
module fulladder (
  input a,
  input b,
  input cin,
  output sum,
  output cout
);
  assign {cout, sum} = a + b + cin;
endmodule
