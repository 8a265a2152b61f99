/**
 * Crossbars: a layer's fan-in cut into tiles, and the sums of the tiles by XNOR and popcount.
 *
 * A column of a crossbar of size Cs adds Cs products of +1 and -1. A fan-in of n needs
 * K = ceil(n / Cs) tiles; the last may hold fewer inputs, and a crossbar larger than the fan-in is one
 * tile. With a bit for +1 and none for -1, the product is XNOR, and a tile with d agreements among its
 * n_k inputs has the sum V_k = 2 d - n_k. Its parity is that of n_k: an even tile can be 0, and with
 * hard decisions (gray zone towards 0) all those zeros fall to one side of the threshold.
 *
 * | symbol | identifier | |
 * | --- | --- | --- |
 * | Cs, K | crossbarSize, tiles | cells of a column, tiles of a fan-in |
 * | n_k | size of tile k | Cs, or what is left in the last |
 * | d, V_k | agreements, tileSum() | 0 ... n_k, and -n_k ... n_k |
 *
 * Scope: rows of a convolution are patches of the image (im2row on bits). Positions that the padding
 * adds carry the value that the layer names; a patch is packed once and used by every output channel.
 */
import { checkCrossbarSize } from "./device.ts";

/** Signs as bits, row after row; 1 for +1. Bit j of a row is bit j % 32 of its word floor(j / 32). */
export interface BitMatrix {
  rows: number;
  columns: number;
  /** ceil(columns / 32) */
  wordsPerRow: number;
  /** [rows, wordsPerRow]; bits beyond `columns` are 0. */
  words: Uint32Array;
}

/** Where the inputs of a neuron go. */
export interface Tiling {
  fanIn: number;
  crossbarSize: number;
  /** K */
  tiles: number;
  /** Inputs of the last tile; the others have min(crossbarSize, fanIn). */
  lastSize: number;
  /** Bits from one tile to the next in packed rows: 8, 16, or a multiple of 32. */
  strideBits: number;
  wordsPerRow: number;
}

/** Rows packed for a tiling. */
export interface TiledRows {
  tiling: Tiling;
  rows: number;
  /** [rows, tiling.wordsPerRow] */
  words: Uint32Array;
}

/** Agreements of tiles; the small type where they fit. */
export type Agreements = Uint8Array | Uint16Array;

/** Signs (+1 or -1, or any numbers: bit 1 where above 0) as bits. */
export function packSigns(
  signs: ArrayLike<number>,
  rows: number,
  columns: number,
): BitMatrix {
  if (signs.length !== rows * columns) {
    throw new RangeError(
      `Cannot pack signs as there must be rows x columns of them: ${signs.length} signs, ${rows} x ${columns}`,
    );
  }
  const wordsPerRow = Math.ceil(columns / 32);
  const words = new Uint32Array(rows * wordsPerRow);
  for (let row = 0; row < rows; row++) {
    for (let j = 0; j < columns; j++) {
      if (signs[row * columns + j] > 0) {
        words[row * wordsPerRow + (j >>> 5)] |= 1 << (j & 31);
      }
    }
  }
  return { rows, columns, wordsPerRow, words };
}

/** Bits as bytes, 1 for +1 and 0 for -1, of `count` rows from `first`. */
export function unpackBits(
  { rows, columns, wordsPerRow, words }: BitMatrix,
  first = 0,
  count = rows - first,
): Uint8Array {
  const bytes = new Uint8Array(count * columns);
  for (let row = 0; row < count; row++) {
    const at = (first + row) * wordsPerRow;
    for (let j = 0; j < columns; j++) {
      bytes[row * columns + j] = words[at + (j >>> 5)] >>> (j & 31) & 1;
    }
  }
  return bytes; // [count, columns]
}

/**
 * How a fan-in is cut into tiles: K = ceil(n / Cs).
 *
 * @example
 * ```ts
 * tilingOf(784, 72).tiles; // 11: ten of 72 inputs and one of 64
 * ```
 */
export function tilingOf(fanIn: number, crossbarSize: number): Tiling {
  checkCrossbarSize(crossbarSize);
  if (!Number.isInteger(fanIn) || fanIn < 1) {
    throw new RangeError(
      `Cannot cut a fan-in into tiles as it must be a whole number >= 1: fanIn ${fanIn}`,
    );
  }
  const tiles = Math.ceil(fanIn / crossbarSize);
  const size = Math.min(crossbarSize, fanIn);
  const strideBits = size <= 8
    ? 8
    : size <= 16
    ? 16
    : Math.ceil(size / 32) * 32;
  return {
    fanIn,
    crossbarSize,
    tiles,
    lastSize: fanIn - (tiles - 1) * crossbarSize,
    strideBits,
    wordsPerRow: Math.ceil(tiles * strideBits / 32),
  };
}

/** n_k: inputs of tile k. */
export function tileSize(tiling: Tiling, k: number): number {
  return k === tiling.tiles - 1 ? tiling.lastSize : tiling.crossbarSize;
}

/** V_k = 2 d - n_k. */
export function tileSum(agreements: number, size: number): number {
  return 2 * agreements - size;
}

/**
 * Rows of bits with every tile at a boundary.
 *
 * @param bytes [rows, fanIn], 1 for +1 and 0 for -1
 * @param filler What fills the gaps: 1 for weights and 0 for inputs, so that gaps never agree
 */
export function packTiles(
  bytes: Uint8Array,
  rows: number,
  tiling: Tiling,
  filler: 0 | 1,
): TiledRows {
  const { fanIn, crossbarSize, strideBits, wordsPerRow } = tiling;
  const words = new Uint32Array(rows * wordsPerRow);
  if (filler === 1) words.fill(0xffffffff);
  const place = tilePlaces(fanIn, crossbarSize, strideBits);
  for (let row = 0; row < rows; row++) {
    const base = row * wordsPerRow;
    const from = row * fanIn;
    for (let j = 0; j < fanIn; j++) {
      const at = base + (place[j] >>> 5);
      const bit = 1 << (place[j] & 31);
      words[at] = bytes[from + j] !== 0 ? words[at] | bit : words[at] & ~bit;
    }
  }
  return { tiling, rows, words };
}

/** Bit of each input in a packed row. */
function tilePlaces(
  fanIn: number,
  crossbarSize: number,
  strideBits: number,
): Int32Array {
  return Int32Array.from(
    { length: fanIn },
    (_, j) => Math.floor(j / crossbarSize) * strideBits + j % crossbarSize,
  );
}

/** An array for agreements of tiles of this tiling. */
export function agreementsArray(tiling: Tiling, length: number): Agreements {
  return Math.min(tiling.crossbarSize, tiling.fanIn) < 256
    ? new Uint8Array(length)
    : new Uint16Array(length);
}

/**
 * Agreements of every tile between one neuron's weights and several rows of inputs.
 *
 * d = popcount(XNOR(input, weight)) per tile; several small tiles are counted in one word.
 *
 * @param neuron Row of `weights`
 * @param first, count Rows of `inputs`
 * @param out Receives [count, tiles] from `outAt`
 */
export function agreements(
  inputs: TiledRows,
  first: number,
  count: number,
  weights: TiledRows,
  neuron: number,
  out: Agreements,
  outAt = 0,
): void {
  const { tiles, strideBits, wordsPerRow } = inputs.tiling;
  const x = inputs.words;
  const w = weights.words;
  const weightAt = neuron * wordsPerRow;
  const tileWords = strideBits >>> 5;
  let o = outAt;
  for (let row = first; row < first + count; row++) {
    const at = row * wordsPerRow;
    if (tileWords > 0) {
      let i = 0;
      for (let k = 0; k < tiles; k++) {
        let sum = 0;
        for (const end = i + tileWords; i < end; i++) {
          let v = ~(x[at + i] ^ w[weightAt + i]);
          v = v - (v >>> 1 & 0x55555555);
          v = (v & 0x33333333) + (v >>> 2 & 0x33333333);
          sum += Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
        }
        out[o++] = sum;
      }
      continue;
    }
    const end = o + tiles;
    for (let i = 0; i < wordsPerRow; i++) {
      let v = ~(x[at + i] ^ w[weightAt + i]);
      v = v - (v >>> 1 & 0x55555555);
      v = (v & 0x33333333) + (v >>> 2 & 0x33333333);
      v = (v + (v >>> 4)) & 0x0f0f0f0f;
      if (strideBits === 8) {
        out[o] = v & 0xff;
        if (o + 1 < end) out[o + 1] = v >>> 8 & 0xff;
        if (o + 2 < end) out[o + 2] = v >>> 16 & 0xff;
        if (o + 3 < end) out[o + 3] = v >>> 24;
        o += 4;
      } else {
        v = v + (v >>> 8);
        out[o] = v & 0x1f;
        if (o + 1 < end) out[o + 1] = v >>> 16 & 0x1f;
        o += 2;
      }
    }
    o = end;
  }
}

/** The shape of a convolution, square kernels on [channels, height, width]. */
export interface PatchShape {
  inChannels: number;
  height: number;
  width: number;
  kernel: number;
  stride: number;
  pad: number;
}

/** Height and width after a convolution. */
export function patchGrid(
  { height, width, kernel, stride, pad }: PatchShape,
): { height: number; width: number } {
  const along = (length: number) =>
    Math.floor((length + 2 * pad - kernel) / stride) + 1;
  return { height: along(height), width: along(width) };
}

/**
 * Patches of images of bits, packed for a tiling: im2row.
 *
 * Order within a patch: channel, row, column, as weights [out, in, kernel, kernel] have it.
 *
 * @param bytes [images, channels, height, width], 1 for +1 and 0 for -1
 * @param padBit What a position outside the image carries
 * @returns [images x height x width of the result] rows
 */
export function packPatches(
  bytes: Uint8Array,
  images: number,
  shape: PatchShape,
  tiling: Tiling,
  padBit: 0 | 1,
): TiledRows {
  const { inChannels, height, width, kernel, stride, pad } = shape;
  const { wordsPerRow } = tiling;
  const grid = patchGrid(shape);
  const rows = images * grid.height * grid.width;
  const words = new Uint32Array(rows * wordsPerRow);
  const place = tilePlaces(
    tiling.fanIn,
    tiling.crossbarSize,
    tiling.strideBits,
  );
  let row = 0;
  for (let image = 0; image < images; image++) {
    const base = image * inChannels * height * width;
    for (let y = 0; y < grid.height; y++) {
      for (let x = 0; x < grid.width; x++, row++) {
        const at = row * wordsPerRow;
        let j = 0;
        for (let channel = 0; channel < inChannels; channel++) {
          for (let ky = 0; ky < kernel; ky++) {
            const sourceY = y * stride + ky - pad;
            const line = base + (channel * height + sourceY) * width;
            const inside = sourceY >= 0 && sourceY < height;
            for (let kx = 0; kx < kernel; kx++, j++) {
              const sourceX = x * stride + kx - pad;
              const bit = inside && sourceX >= 0 && sourceX < width
                ? bytes[line + sourceX]
                : padBit;
              if (bit !== 0) {
                words[at + (place[j] >>> 5)] |= 1 << (place[j] & 31);
              }
            }
          }
        }
      }
    }
  }
  return { tiling, rows, words };
}

/**
 * Largest of each square of +1 and -1, which is OR of the bits.
 *
 * @param bytes [images, channels, height, width]
 * @returns [images, channels, floor(height / size), floor(width / size)]
 */
export function maxPoolBits(
  bytes: Uint8Array,
  images: number,
  { channels, height, width, size }: {
    channels: number;
    height: number;
    width: number;
    size: number;
  },
): Uint8Array {
  const high = Math.floor(height / size);
  const wide = Math.floor(width / size);
  const out = new Uint8Array(images * channels * high * wide);
  for (let plane = 0; plane < images * channels; plane++) {
    for (let y = 0; y < high * size; y++) {
      for (let x = 0; x < wide * size; x++) {
        const to = (plane * high + Math.floor(y / size)) * wide +
          Math.floor(x / size);
        out[to] |= bytes[(plane * height + y) * width + x];
      }
    }
  }
  return out;
}
