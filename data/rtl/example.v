// Six gates in the manner of the smallest benchmark circuits: two outputs that share a product.
module example (
  input a,
  input b,
  input c,
  input d,
  input e,
  output y,
  output z
);
  wire shared = ~(c & d);
  wire left = ~(a & c);
  wire middle = ~(b & shared);
  wire right = ~(shared & e);
  assign y = ~(left & middle);
  assign z = ~(middle & right);
endmodule
