// 4-bit arithmetic and logic unit: eight operations, carry and zero flags.
module alu4 (
  input [3:0] a,
  input [3:0] b,
  input [2:0] op,
  output reg [3:0] y,
  output carry,
  output zero
);
  wire subtract = op == 3'd1;
  wire [4:0] sum = {1'b0, a} + {1'b0, subtract ? ~b : b} + {4'b0000, subtract};
  always @* begin
    case (op)
      3'd0: y = sum[3:0];
      3'd1: y = sum[3:0];
      3'd2: y = a & b;
      3'd3: y = a | b;
      3'd4: y = a ^ b;
      3'd5: y = ~a;
      3'd6: y = {a[2:0], 1'b0};
      default: y = {1'b0, a[3:1]};
    endcase
  end
  assign carry = sum[4] & (op == 3'd0 || op == 3'd1);
  assign zero = y == 4'd0;
endmodule
