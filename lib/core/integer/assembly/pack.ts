// deno-lint-ignore-file
// deno-fmt-ignore-file: the formatter drops the decorators of functions
// Weights as panels of 8 columns (16 in packAgile). The source is codes [n, depth] of bytes; columns
// and k beyond the ends are packed as the code 0.
import { padded } from "./quantize";

// @ts-ignore: decorator
@inline
function codeAt(codes: usize, n: i32, depth: i32, j: i32, k: i32): i32 {
  if (j >= n || k >= depth) return 0;
  return <i32> load<i8>(codes + <usize> j * <usize> depth + <usize> k);
}

/** Sum of the codes of every column. */
export function columnSums(codes: usize, signed: bool, n: i32, depth: i32, sums: usize): void {
  for (let j = 0; j < n; j++) {
    let sum = 0;
    for (let k = 0; k < depth; k++) {
      sum += signed ? <i32> load<i8>(codes) : <i32> load<u8>(codes);
      codes++;
    }
    store<i32>(sums + (<usize> j << 2), sum);
  }
}

/** i8 panels [n / 8][K / 2][8 columns][2]: 8 bits a weight. */
export function packInt8(codes: usize, n: i32, depth: i32, to: usize): void {
  const width = padded(depth);
  for (let j = 0; j < n; j += 8) {
    for (let k = 0; k < width; k += 2) {
      for (let c = 0; c < 16; c++) {
        store<i8>(to++, <i8> codeAt(codes, n, depth, j + (c >> 1), k + (c & 1)));
      }
    }
  }
}

/**
 * i16 panels [n / 8][K / 2][4][2] of w(j) + 8 + 4096 w(j + 4), j the first half of the panel's columns:
 * two signed 4-bit weights a lane, 8 bits a weight.
 */
export function packPairs(codes: usize, n: i32, depth: i32, to: usize): void {
  const width = padded(depth);
  for (let j = 0; j < n; j += 8) {
    for (let k = 0; k < width; k += 2) {
      for (let c = 0; c < 8; c++) {
        const w0 = codeAt(codes, n, depth, j + (c >> 1), k + (c & 1));
        const w1 = codeAt(codes, n, depth, j + (c >> 1) + 4, k + (c & 1));
        store<i16>(to, <i16> (w0 + 8 + (w1 << 12)));
        to += 2;
      }
    }
  }
}

/** The same pairs as nibbles, [n / 8][K / 4][2 halves][4][2] bytes: 4 bits a weight. */
export function packNibblePairs(codes: usize, n: i32, depth: i32, to: usize): void {
  const width = padded(depth);
  for (let j = 0; j < n; j += 8) {
    for (let k = 0; k < width; k += 2) {
      for (let c = 0; c < 8; c++) {
        const w0 = codeAt(codes, n, depth, j + (c >> 1), k + (c & 1)) + 8;
        const w1 = codeAt(codes, n, depth, j + (c >> 1) + 4, k + (c & 1));
        store<u8>(to++, <u8> (w0 | ((w1 & 15) << 4)));
      }
    }
  }
}

/** u16 panels [n / 16][K][8] of w(j) | w(j + 8) << 8, codes 0 to 15: 8 bits a weight. */
export function packAgile(codes: usize, n: i32, depth: i32, to: usize): void {
  const width = padded(depth);
  for (let j = 0; j < n; j += 16) {
    for (let k = 0; k < width; k++) {
      for (let c = 0; c < 8; c++) {
        const w0 = codeAt(codes, n, depth, j + c, k);
        const w1 = codeAt(codes, n, depth, j + c + 8, k);
        store<u16>(to, <u16> (w0 | (w1 << 8)));
        to += 2;
      }
    }
  }
}

/**
 * Nibbles [n / 8][K / 4][8 columns][2], the first pair of four k in the low half of the bytes, the
 * second in the high half; codes 0 to 15: 4 bits a weight.
 */
export function packNibbles(codes: usize, n: i32, depth: i32, to: usize): void {
  const width = padded(depth);
  for (let j = 0; j < n; j += 8) {
    for (let k = 0; k < width; k += 4) {
      for (let c = 0; c < 16; c++) {
        const low = codeAt(codes, n, depth, j + (c >> 1), k + (c & 1));
        const high = codeAt(codes, n, depth, j + (c >> 1), k + 2 + (c & 1));
        store<u8>(to++, <u8> (low | (high << 4)));
      }
    }
  }
}

/** Bytes [n / 8][K / 4][8 columns][4], codes 0 to 127: 8 bits a weight. */
export function packBytes(codes: usize, n: i32, depth: i32, to: usize): void {
  const width = padded(depth);
  for (let j = 0; j < n; j += 8) {
    for (let k = 0; k < width; k += 4) {
      for (let c = 0; c < 32; c++) {
        store<u8>(to++, <u8> codeAt(codes, n, depth, j + (c >> 2), k + (c & 3)));
      }
    }
  }
}

/** Floats [n, depth] as panels [n / 8][K][8 columns]. */
export function packFloats(x: usize, n: i32, depth: i32, to: usize): void {
  const width = padded(depth);
  for (let j = 0; j < n; j += 8) {
    for (let k = 0; k < width; k++) {
      for (let c = j; c < j + 8; c++) {
        const inside = c < n && k < depth;
        store<f32>(to, inside ? load<f32>(x + ((<usize> c * <usize> depth + <usize> k) << 2)) : 0);
        to += 4;
      }
    }
  }
}

/** Floats [rows, depth] as strips [rows / 4][K][4 rows]; the rows beyond the last are 0. */
export function stripFloats(x: usize, rows: i32, depth: i32, to: usize): void {
  const width = padded(depth);
  if (depth < width || rows & 3) memory.fill(to, 0, <usize> ((rows + 3) >> 2) * <usize> width << 4);
  const stride = <usize> depth << 2;
  for (let i = 0; i < rows; i += 4) {
    const count = min(4, rows - i);
    const strip = to + <usize> (i >> 2) * (<usize> width << 4);
    let k = 0;
    if (count == 4) {
      for (; k + 4 <= depth; k += 4) {
        const at = x + (<usize> k << 2);
        const x0 = v128.load(at), x1 = v128.load(at + stride);
        const x2 = v128.load(at + 2 * stride), x3 = v128.load(at + 3 * stride);
        const l0 = v128.shuffle<f32>(x0, x1, 0, 4, 1, 5), h0 = v128.shuffle<f32>(x0, x1, 2, 6, 3, 7);
        const l2 = v128.shuffle<f32>(x2, x3, 0, 4, 1, 5), h2 = v128.shuffle<f32>(x2, x3, 2, 6, 3, 7);
        const block = strip + (<usize> k << 4);
        v128.store(block, v128.shuffle<f64>(l0, l2, 0, 2));
        v128.store(block, v128.shuffle<f64>(l0, l2, 1, 3), 16);
        v128.store(block, v128.shuffle<f64>(h0, h2, 0, 2), 32);
        v128.store(block, v128.shuffle<f64>(h0, h2, 1, 3), 48);
      }
    }
    for (; k < depth; k++) {
      for (let r = 0; r < count; r++) {
        const at = x + <usize> r * stride + (<usize> k << 2);
        store<f32>(strip + (<usize> ((k << 2) + r) << 2), load<f32>(at));
      }
    }
    x += stride << 2;
  }
}
