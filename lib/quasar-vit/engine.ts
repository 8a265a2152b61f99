/**
 * The matrix engine as synthesizable Verilog: one parameterised array of packed multipliers, with its test bench.
 *
 * Li et al., "Quasar-ViT", ICS 2024, arXiv 2407.18175. The paper's hardware is high-level synthesis that was not read; this array
 * follows the packing of `packing.ts` and runs rows of 4 and 8 bits side by side on the same units.
 *
 *     TOKENS = 1, NIBBLES = 3: factor 3        TOKENS = 2, NIBBLES = 2: factor 4
 *
 * An element multiplies DEPTH columns in DEPTH blocks in a cycle, reads the lanes, adds them and accumulates. If `wide` is set,
 * nibbles 0 and 1 are low and high of one 8-bit row, whose sum is that of nibble 0 plus 16 times that of nibble 1.
 *
 * | symbol | identifier |
 * | --- | --- |
 * | F, N | tokens and inputs of the product |
 * | T | tokens of a block: 1 or 2 |
 * | PES | elements that share the tokens of a cycle |
 *
 * Scope: the array, registers after the products and the sums. Buffers, AXI and the controller are absent: `schedule` plays them.
 * Simulating and counting the emitted text: `engine-check.ts`.
 */
import {
  joinNibbles,
  LANE_BITS,
  nibbles,
  packed3,
  packed4,
  type PackingFactor,
} from "./packing.ts";

export interface ArrayOptions {
  /** Products per block and cycle. */
  factor?: PackingFactor;
  /** Elements side by side. */
  elements?: number;
  /** Columns per cycle: blocks of an element. */
  depth?: number;
  accumulatorBits?: number;
  /** Products in packed blocks, or each product on its own (for LUTs). */
  products?: "packed" | "separate";
}

/** Codes of a layer's weights, row by row, with the bits of each row. */
export interface MixedRows {
  /** [M, N]: -8 to 7 in rows of 4 bits, -128 to 127 in rows of 8 bits. */
  codes: Int8Array;
  /** [M]: 4 or 8. */
  bits: ArrayLike<number>;
  outputs: number;
  inputs: number;
}

type Resolved = Required<ArrayOptions>;

function resolve(
  {
    factor = 4,
    elements = 4,
    depth = 4,
    accumulatorBits = 24,
    products = "packed",
  }: ArrayOptions,
): Resolved {
  for (
    const [name, value] of Object.entries({ elements, depth, accumulatorBits })
  ) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(
        `Cannot emit an array as ${name} must be a positive whole number: ${value}`,
      );
    }
  }
  if (factor !== 3 && factor !== 4) {
    throw new RangeError(
      `Cannot emit an array as the packing factor must be 3 or 4: ${factor}`,
    );
  }
  return { factor, elements, depth, accumulatorBits, products };
}

/** Tokens and nibbles of a block. */
function shapeOf(factor: PackingFactor): { tokens: number; nibbles: number } {
  return factor === 4 ? { tokens: 2, nibbles: 2 } : { tokens: 1, nibbles: 3 };
}

/**
 * Verilog of the array: modules `packed_element` and `packed_array`.
 *
 * @param options.factor 3 or 4 products per block, default 4
 */
export function emitArray(options: ArrayOptions = {}): string {
  const { factor, elements, depth, accumulatorBits, products } = resolve(
    options,
  );
  const { tokens, nibbles } = shapeOf(factor);
  const lane = products === "packed"
    ? `      // a negative lane borrowed one from the lane above it
      assign lanes[(d * LANES + i) * 11 +: 11] =
        product[11 * i +: 11] + (i == 0 ? 11'd0 : {10'd0, product[(i == 0 ? 1 : 11 * i) - 1]});`
    : `      assign lanes[(d * LANES + i) * 11 +: 11] = product[11 * i +: 11];`;
  const block = products === "packed"
    ? `    wire signed [17:0] a = activation_word;
    wire signed [26:0] w = weight_word;
    always @(posedge clk) product <= a * w;`
    : `    for (i = 0; i < LANES; i = i + 1) begin : separate
      wire signed [6:0] a = activations[(d * TOKENS + i % TOKENS) * 7 +: 7];
      wire signed [4:0] w = weights[(d * NIBBLES + i / TOKENS) * 5 +: 5];
      wire signed [10:0] one = a * w;
      always @(posedge clk) product[11 * i +: 11] <= one;
    end`;
  return `// Array of packed multipliers for rows of 4 and 8 bits and activations of 6 bits.
// Words: activation 7 bits signed (-32 to 63), nibble 5 bits signed (-8 to 15), lane ${LANE_BITS} bits.
module packed_element #(
  parameter TOKENS = ${tokens}, NIBBLES = ${nibbles}, DEPTH = ${depth}, ACC = ${accumulatorBits}
) (
  input clk, input clear, input enable, input wide,
  input [TOKENS * DEPTH * 7 - 1:0] activations,
  input [NIBBLES * DEPTH * 5 - 1:0] weights,
  output reg [TOKENS * NIBBLES * ACC - 1:0] sums
);
  localparam LANES = TOKENS * NIBBLES;
  wire [DEPTH * LANES * 11 - 1:0] lanes;
  reg clear_1, enable_1, wide_1;
  always @(posedge clk) {clear_1, enable_1, wide_1} <= {clear, enable, wide};

  genvar d, i;
  generate for (d = 0; d < DEPTH; d = d + 1) begin : column
    reg signed [17:0] activation_word;
    reg signed [26:0] weight_word;
    integer n;
    always @* begin
      activation_word = 0;
      weight_word = 0;
      for (n = 0; n < TOKENS; n = n + 1)
        activation_word = activation_word +
          ($signed(activations[(d * TOKENS + n) * 7 +: 7]) <<< (11 * n));
      for (n = 0; n < NIBBLES; n = n + 1)
        weight_word = weight_word +
          ($signed(weights[(d * NIBBLES + n) * 5 +: 5]) <<< (11 * TOKENS * n));
    end
    reg signed [44:0] product;
${block}
    for (i = 0; i < LANES; i = i + 1) begin : lane
${lane}
    end
  end endgenerate

  // sums of a lane over the columns of a cycle
  reg signed [ACC - 1:0] added [0:LANES - 1];
  integer c, l, t;
  always @* for (l = 0; l < LANES; l = l + 1) begin
    added[l] = 0;
    for (c = 0; c < DEPTH; c = c + 1)
      added[l] = added[l] + $signed(lanes[(c * LANES + l) * 11 +: 11]);
  end

  reg signed [ACC - 1:0] addend, kept;
  always @(posedge clk) if (enable_1) for (l = 0; l < NIBBLES; l = l + 1)
    for (t = 0; t < TOKENS; t = t + 1) begin
      addend = added[l * TOKENS + t];
      if (wide_1 && l == 0) addend = addend + (added[TOKENS + t] <<< 4);
      if (wide_1 && l == 1) addend = 0;
      kept = clear_1 ? 0 : sums[(l * TOKENS + t) * ACC +: ACC];
      sums[(l * TOKENS + t) * ACC +: ACC] <= kept + addend;
    end
endmodule

module packed_array #(
  parameter PES = ${elements}, TOKENS = ${tokens}, NIBBLES = ${nibbles}, DEPTH = ${depth}, ACC = ${accumulatorBits}
) (
  input clk, input clear, input enable, input [PES - 1:0] wide,
  input [TOKENS * DEPTH * 7 - 1:0] activations,
  input [PES * NIBBLES * DEPTH * 5 - 1:0] weights,
  output [PES * TOKENS * NIBBLES * ACC - 1:0] sums
);
  genvar p;
  generate for (p = 0; p < PES; p = p + 1) begin : element
    packed_element #(.TOKENS(TOKENS), .NIBBLES(NIBBLES), .DEPTH(DEPTH), .ACC(ACC)) own (
      .clk(clk), .clear(clear), .enable(enable), .wide(wide[p]), .activations(activations),
      .weights(weights[p * NIBBLES * DEPTH * 5 +: NIBBLES * DEPTH * 5]),
      .sums(sums[p * TOKENS * NIBBLES * ACC +: TOKENS * NIBBLES * ACC]));
  end endgenerate
endmodule
`;
}

// Schedule ------------------------------------------------------------------------------------------

/** Which rows the nibbles of an element carry; -1 for none. */
export interface ElementRows {
  wide: boolean;
  /** Row of each nibble; both nibbles of a wide row name it. */
  rows: number[];
}

/** Rows to elements: an 8-bit row takes two nibbles of an element, 4-bit rows fill the rest. */
export function assignRows(
  bits: ArrayLike<number>,
  factor: PackingFactor,
): ElementRows[] {
  const { nibbles } = shapeOf(factor);
  const wide: number[] = [];
  const narrow: number[] = [];
  Array.from(bits, (b, row) => {
    if (b !== 4 && b !== 8) {
      throw new RangeError(
        `Cannot assign rows as each must have 4 or 8 bits: ${b} in row ${row}`,
      );
    }
    (b === 8 ? wide : narrow).push(row);
  });
  const elements = wide.map((row): ElementRows => ({
    wide: true,
    rows: [row, row, ...nibbles === 3 ? [narrow.shift() ?? -1] : []],
  }));
  while (narrow.length > 0) {
    const rows = narrow.splice(0, nibbles);
    while (rows.length < nibbles) rows.push(-1);
    elements.push({ wide: false, rows });
  }
  return elements;
}

function checkCodes({ codes, bits, outputs, inputs }: MixedRows): void {
  if (codes.length !== outputs * inputs || bits.length !== outputs) {
    throw new RangeError(
      `Cannot run an array as codes must be [${outputs}, ${inputs}] with bits of each row: ${codes.length} codes, ${bits.length} bits`,
    );
  }
  codes.forEach((code, i) => {
    const row = Math.floor(i / inputs);
    if (bits[row] === 4 && (code < -8 || code > 7)) {
      throw new RangeError(
        `Cannot run an array as codes of a 4-bit row must be -8 to 7: ${code} in row ${row}`,
      );
    }
  });
}

/** Nibble `n` of an element at column k. */
function nibbleAt(
  { codes, inputs }: MixedRows,
  { wide, rows }: ElementRows,
  n: number,
  k: number,
): number {
  if (rows[n] < 0 || k >= inputs) return 0;
  const code = codes[rows[n] * inputs + k];
  if (!wide || n > 1) return code;
  const { high, low } = nibbles(code);
  return n === 0 ? low : high;
}

/** y[f, m] = sum_n x[f, n] w[m, n] in plain integers: the referee of everything else here. */
export function integerProduct(
  weights: MixedRows,
  activations: ArrayLike<number>,
): Int32Array {
  const { codes, outputs: M, inputs: N } = weights;
  const F = activations.length / N;
  const y = new Int32Array(F * M); // [F, M]
  for (let f = 0; f < F; f++) {
    for (let m = 0; m < M; m++) {
      let sum = 0;
      for (let n = 0; n < N; n++) {
        sum += activations[f * N + n] * codes[m * N + n];
      }
      y[f * M + m] = sum;
    }
  }
  return y;
}

/**
 * The same product by packed multiplications, block by block, as the array does it.
 *
 * @param activations whole numbers [F, N], -32 to 31 or 0 to 63
 * @returns [F, M], equal to `integerProduct`
 */
export function packedProduct(
  weights: MixedRows,
  activations: ArrayLike<number>,
  factor: PackingFactor,
): { y: Int32Array; blocks: number } {
  checkCodes(weights);
  const { outputs: M, inputs: N } = weights;
  const F = activations.length / N;
  const { tokens: T } = shapeOf(factor);
  const y = new Int32Array(F * M);
  let blocks = 0;
  for (const element of assignRows(weights.bits, factor)) {
    const { wide, rows } = element;
    for (let f = 0; f < F; f += T) {
      for (let k = 0; k < N; k++) {
        const at = (t: number) => f + t < F ? activations[(f + t) * N + k] : 0;
        const w = rows.map((_, n) => nibbleAt(weights, element, n, k));
        const lanes = factor === 4
          ? packed4([at(0), at(1)], [w[0], w[1]])
          : packed3(at(0), [w[0], w[1], w[2]]);
        blocks++;
        for (let t = 0; t < T && f + t < F; t++) {
          const own = rows.map((_, n) => lanes[n * T + t]);
          if (wide) {
            y[(f + t) * M + rows[0]] += joinNibbles(own[1], own[0]);
          }
          rows.forEach((row, n) => {
            if (row >= 0 && !(wide && n < 2)) y[(f + t) * M + row] += own[n];
          });
        }
      }
    }
  }
  return { y, blocks };
}

/** Numbers on the wires of a cycle. */
export interface Cycle {
  /** [DEPTH, TOKENS] */
  activations: number[];
  /** [PES, DEPTH, NIBBLES] */
  weights: number[];
  /** [PES] */
  wide: boolean[];
  /** First cycle of a pass: the sums begin anew. */
  clear: boolean;
  /** Last cycle of a pass: the sums are complete after it. */
  last: boolean;
}

/** What the array is fed with, and how its sums become the product. */
export interface Schedule {
  array: Required<ArrayOptions>;
  tokens: number;
  nibbles: number;
  cycles: Cycle[];
  /** Number of passes: each gives one word of sums. */
  passes: number;
  /** The product from the sums of each pass, [PES, NIBBLES, TOKENS]: [F, M]. */
  read(sums: ArrayLike<number>[]): Int32Array;
}

/** Cycle by cycle, what buffers and controller feed into the array for a layer. */
export function schedule(
  weights: MixedRows,
  activations: ArrayLike<number>,
  options: ArrayOptions = {},
): Schedule {
  checkCodes(weights);
  const array = resolve(options);
  const { elements: P, depth: D } = array;
  const { tokens: T, nibbles: J } = shapeOf(array.factor);
  const { outputs: M, inputs: N } = weights;
  const F = activations.length / N;
  const all = assignRows(weights.bits, array.factor);
  const passes: { firstToken: number; elements: ElementRows[] }[] = [];
  for (let e = 0; e < all.length; e += P) {
    for (let f = 0; f < F; f += T) {
      passes.push({ firstToken: f, elements: all.slice(e, e + P) });
    }
  }
  const none: ElementRows = { wide: false, rows: Array(J).fill(-1) };
  const steps = Math.ceil(N / D);
  const cycles = passes.flatMap(({ firstToken, elements }) => {
    const own = Array.from({ length: P }, (_, p) => elements[p] ?? none);
    return Array.from({ length: steps }, (_, s): Cycle => {
      const columns = Array.from({ length: D }, (_, d) => s * D + d);
      return {
        activations: columns.flatMap((k) =>
          Array.from({ length: T }, (_, t) => {
            const f = firstToken + t;
            return f < F && k < N ? activations[f * N + k] : 0;
          })
        ),
        weights: own.flatMap((element) =>
          columns.flatMap((k) =>
            Array.from(
              { length: J },
              (_, j) => nibbleAt(weights, element, j, k),
            )
          )
        ),
        wide: own.map(({ wide }) => wide),
        clear: s === 0,
        last: s === steps - 1,
      };
    });
  });
  return {
    array,
    tokens: T,
    nibbles: J,
    cycles,
    passes: passes.length,
    read(sums) {
      if (sums.length !== passes.length) {
        throw new RangeError(
          `Cannot read the sums as there must be one word for each of ${passes.length} passes: ${sums.length}`,
        );
      }
      const y = new Int32Array(F * M);
      passes.forEach(({ firstToken, elements }, i) => {
        elements.forEach(({ wide, rows }, p) => {
          rows.forEach((row, j) => {
            if (row < 0 || (wide && j === 1)) return;
            for (let t = 0; t < T && firstToken + t < F; t++) {
              y[(firstToken + t) * M + row] = sums[i][(p * J + j) * T + t];
            }
          });
        });
      });
      return y;
    },
  };
}
