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
 * Scope: rows of a convolution are patches of the feature map; a patch is packed once and used by every
 * output channel. Unused rows of a crossbar carry no current, but the column is attenuated as any other.
 */
import { checkCrossbarSize } from "./device.ts";
import type { PoolLayer } from "./network.ts";

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

/**
 * How a fan-in is cut into tiles: K = ceil(n / Cs).
 *
 * @example
 * ```ts
 * tilingOf(784, 72).tiles; // 11
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
 * Rows of signs as bits, with every tile at a boundary.
 *
 * @param signs [images, width], +1 and -1, or 1 and 0
 * @param filler What fills the gaps: 1 for weights and 0 for inputs, so that gaps never agree
 * @param patches [positions, fanIn], where each input of a row comes from in its image; -1 is a place
 *   outside and holds -1 (the bit 0). Without it a row is an image. This is im2row on bits.
 * @returns [images x positions] rows
 */
export function packTiles(
  signs: Int8Array | Uint8Array,
  tiling: Tiling,
  filler: 0 | 1,
  { patches, width = tiling.fanIn }: { patches?: Int32Array; width?: number } =
    {},
): TiledRows {
  const { fanIn, crossbarSize, strideBits, wordsPerRow } = tiling;
  const images = signs.length / width;
  const positions = patches === undefined ? 1 : patches.length / fanIn;
  if (!Number.isInteger(images) || !Number.isInteger(positions)) {
    throw new RangeError(
      `Cannot pack rows as signs must come in rows of ${width} and patches in rows of ${fanIn}: ${signs.length} signs, ${
        patches?.length ?? 0
      } places`,
    );
  }
  const rows = images * positions;
  const words = new Uint32Array(rows * wordsPerRow);
  if (filler === 1) words.fill(0xffffffff);
  const place = tilePlaces(fanIn, crossbarSize, strideBits);
  for (let row = 0; row < rows; row++) {
    const base = row * wordsPerRow;
    const image = Math.floor(row / positions) * width;
    const patch = (row % positions) * fanIn;
    for (let j = 0; j < fanIn; j++) {
      const from = patches === undefined ? j : patches[patch + j];
      const sign = from < 0 ? 0 : signs[image + from];
      // 1 for +1, 0 for 0 and -1, without a branch that nothing could predict.
      const bit = (sign & ~(sign >> 31)) ^ filler;
      words[base + (place[j] >>> 5)] ^= bit << (place[j] & 31);
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

/**
 * Largest of each window of +1 and -1 that do not overlap, which is OR of the bits.
 *
 * @param bytes [images, height, width, channels], 1 for +1 and 0 for -1
 * @returns [images, height / size, width / size, channels]
 */
export function poolBits(
  bytes: Uint8Array,
  { height, width, channels, size }: PoolLayer,
): Uint8Array {
  const high = height / size;
  const wide = width / size;
  const images = bytes.length / (height * width * channels);
  const out = new Uint8Array(images * high * wide * channels);
  for (let image = 0, from = 0; image < images; image++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const to = ((image * high + Math.floor(y / size)) * wide +
          Math.floor(x / size)) * channels;
        for (let c = 0; c < channels; c++) out[to + c] |= bytes[from++];
      }
    }
  }
  return out;
}
