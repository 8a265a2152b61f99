// Arithmetic and logic unit of RV32I: the ten operations of its register instructions, named by
// funct3 and by bit 30 of the instruction ("alternate"), and the three comparisons of its branches.
module rv32alu (
  input [31:0] a,
  input [31:0] b,
  input [2:0] funct3,
  input alternate,
  output reg [31:0] y,
  output equal,
  output less,
  output lessu
);
  // One adder: every operation but addition subtracts, so that the comparisons can use it.
  wire subtract = alternate | (funct3 != 3'd0);
  wire [32:0] sum = {1'b0, a} + {1'b0, subtract ? ~b : b} + {32'd0, subtract};
  wire [31:0] differ = a ^ b;
  assign lessu = subtract & ~sum[32];
  assign less = subtract & (differ[31] ? a[31] : sum[31]);
  assign equal = ~|differ;

  // One shifter, to the right; a left shift is one of the reversed word.
  wire left = funct3 == 3'd1;
  wire fill = alternate & a[31] & ~left;
  wire [31:0] reversed, straight;
  wire [31:0] in = left ? reversed : a;
  wire [31:0] s16 = b[4] ? {{16{fill}}, in[31:16]} : in;
  wire [31:0] s8 = b[3] ? {{8{fill}}, s16[31:8]} : s16;
  wire [31:0] s4 = b[2] ? {{4{fill}}, s8[31:4]} : s8;
  wire [31:0] s2 = b[1] ? {{2{fill}}, s4[31:2]} : s4;
  wire [31:0] s1 = b[0] ? {fill, s2[31:1]} : s2;
  genvar i;
  generate
    for (i = 0; i < 32; i = i + 1) begin : reverse
      assign reversed[i] = a[31 - i];
      assign straight[i] = left ? s1[31 - i] : s1[i];
    end
  endgenerate

  always @* begin
    case (funct3)
      3'd0: y = sum[31:0];
      3'd1: y = straight;
      3'd2: y = {31'd0, less};
      3'd3: y = {31'd0, lessu};
      3'd4: y = differ;
      3'd5: y = straight;
      3'd6: y = a | b;
      default: y = a & b;
    endcase
  end
endmodule
