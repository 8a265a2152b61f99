/**
 * Several small products in one DSP block, bit for bit.
 *
 * Li et al., "Quasar-ViT: Hardware-Oriented Quantization-Aware Architecture Search for Vision Transformers", ICS 2024,
 * arXiv 2407.18175. The paper packs 4-bit weights and 6-bit activations by a factor of 3 or 4 and runs 8-bit weights on the
 * 4-bit units; its packing layout was not read, so the one here is derived from the widths of the block:
 *
 *     factor 3, one activation and three weights:   a (w0 + w1 2^11 + w2 2^22)
 *     factor 4, two activations and two weights:    (a0 + a1 2^11) (w0 + w1 2^22)
 *
 * Each product lies in a lane of 11 bits of the block's 48-bit result. A negative product borrows one from the lane above, so
 * a lane is read as its 11 bits, signed, plus the sign bit of the lane below: that is the logic which packing costs beside
 * the block. Eleven bits are the fewest that hold a 6-bit activation times an unsigned nibble: 63 x 15 = 945 <= 1023.
 *
 * An 8-bit weight takes two lanes (of two activations: both weights of factor 4), w = 16 h + l with h signed and l from 0:
 *
 *     x w = 16 (x h) + x l
 *
 * | symbol | identifier | range |
 * | --- | --- | --- |
 * | a | activation | -32 to 31, or 0 to 63 |
 * | w, h | signed nibble | -8 to 7 |
 * | l | unsigned nibble | 0 to 15 |
 *
 * Scope: exact integers of the multiplier, the packing and the reading of lanes. Pipeline registers and the pre-adder are absent.
 */

/** Ports of the multiplier. Source: AMD/Xilinx UG579, DSP48E2 slice (recalled): 27 x 18 signed, 48-bit result. */
export const DSP48E2 = {
  weightPortBits: 27,
  activationPortBits: 18,
  resultBits: 48,
  source: "AMD/Xilinx UG579, UltraScale architecture DSP slice",
  standing: "recalled",
} as const;

/** Bits of a lane: derived in the file head. */
export const LANE_BITS = 11;

/** Bits of weights on a unit and of activations. Read second-hand (notes of people who had the paper in hand). */
export const NIBBLE_BITS = 4;
export const ACTIVATION_BITS = 6;

const LANE = 2 ** LANE_BITS;

/** Products that one block makes in a cycle. */
export type PackingFactor = 3 | 4;

export interface Nibbles {
  /** -8 to 7 */
  high: number;
  /** 0 to 15 */
  low: number;
}

/** x as a signed number of `bits` bits, as wires hold it. */
function wrap(x: number, bits: number): number {
  const size = 2 ** bits;
  const low = x - size * Math.floor(x / size);
  return low >= size / 2 ? low - size : low;
}

/** Throws unless x is a whole number in [low, high]. */
function checkWhole(what: string, x: number, low: number, high: number): void {
  if (Number.isInteger(x) && x >= low && x <= high) return;
  throw new RangeError(
    `Cannot pack ${what} as it must be a whole number from ${low} to ${high}: ${x}`,
  );
}

function checkNibble(w: number): void {
  checkWhole("a nibble", w, -8, 15);
}

function checkActivation(a: number): void {
  checkWhole("an activation", a, -32, 63);
}

/**
 * The nibbles of an 8-bit weight: w = 16 high + low, high = floor(w / 16).
 *
 * @param w whole, -128 to 127
 * @throws {RangeError} if w is no 8-bit number
 * @example
 * ```ts
 * assert.equal(nibbles(-1), { high: -1, low: 15 });
 * ```
 */
export function nibbles(w: number): Nibbles {
  checkWhole("a weight", w, -128, 127);
  const high = Math.floor(w / 16);
  return { high, low: w - 16 * high };
}

/** a w from the products of the nibbles: 16 (a h) + a l. */
export function joinNibbles(highProduct: number, lowProduct: number): number {
  return 16 * highProduct + lowProduct;
}

/** What the multiplier gives: both ports must hold their word, the result is 48 bits. */
function multiplier(weightWord: number, activationWord: number): number {
  const ports: [string, number, number][] = [
    ["weights", weightWord, DSP48E2.weightPortBits],
    ["activations", activationWord, DSP48E2.activationPortBits],
  ];
  for (const [what, word, bits] of ports) {
    if (wrap(word, bits) !== word) {
      throw new RangeError(
        `Cannot multiply as the port for ${what} must hold its word in ${bits} bits: ${word}`,
      );
    }
  }
  return wrap(weightWord * activationWord, DSP48E2.resultBits);
}

/** The lanes of a result, lowest first: 11 bits, signed, plus the sign of the lane below. */
export function readLanes(result: number, lanes: number): number[] {
  const read: number[] = [];
  let rest = result;
  let borrow = 0;
  for (let i = 0; i < lanes; i++) {
    const bits = wrap(rest, LANE_BITS);
    read.push(wrap(bits + borrow, LANE_BITS));
    borrow = bits < 0 ? 1 : 0;
    rest = Math.floor(rest / LANE);
  }
  return read;
}

/**
 * The products of one activation with three nibbles in one multiplication.
 *
 * @param a -32 to 31, or 0 to 63
 * @param weights three nibbles, each signed or from 0
 * @returns a w0, a w1, a w2
 * @example
 * ```ts
 * assert.equal(packed3(-32, [7, -8, 15]), [-224, 256, -480]);
 * ```
 */
export function packed3(
  a: number,
  weights: readonly [number, number, number],
): number[] {
  checkActivation(a);
  weights.forEach(checkNibble);
  const [w0, w1, w2] = weights;
  const word = w0 + w1 * LANE + w2 * LANE ** 2;
  return readLanes(multiplier(word, a), 3);
}

/**
 * The products of two activations with two nibbles in one multiplication.
 *
 * @returns a0 w0, a1 w0, a0 w1, a1 w1
 * @example
 * ```ts
 * assert.equal(packed4([31, -32], [-8, 15]), [-248, 256, 465, -480]);
 * ```
 */
export function packed4(
  activations: readonly [number, number],
  weights: readonly [number, number],
): number[] {
  activations.forEach(checkActivation);
  weights.forEach(checkNibble);
  const [a0, a1] = activations;
  const [w0, w1] = weights;
  return readLanes(multiplier(w0 + w1 * LANE ** 2, a0 + a1 * LANE), 4);
}

/**
 * The product of an activation with an 8-bit weight on the 4-bit units, by two lanes of a packed multiplication.
 *
 * @example
 * ```ts
 * assert.is(productW8(63, -77), -4851);
 * ```
 */
export function productW8(a: number, w: number): number {
  const { high, low } = nibbles(w);
  const [lowProduct, highProduct] = packed3(a, [low, high, 0]);
  return joinNibbles(highProduct, lowProduct);
}

/**
 * How many products a lane may sum inside the block before it must be read: its largest sum over its largest product.
 *
 * Sums save reading logic: with signed activations and signed nibbles, products reach 256 and a lane holds three of them.
 *
 * @param activationRange, weightRange [lowest, highest]
 */
export function laneDepth(
  activationRange: readonly [number, number],
  weightRange: readonly [number, number],
): number {
  const products = activationRange.flatMap((a) =>
    weightRange.map((w) => a * w)
  );
  const most = Math.max(...products, 0);
  const least = Math.min(...products, 0);
  return Math.min(
    most > 0 ? Math.floor((LANE / 2 - 1) / most) : Infinity,
    least < 0 ? Math.floor(LANE / 2 / -least) : Infinity,
  );
}
