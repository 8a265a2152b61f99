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
