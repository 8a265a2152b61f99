// deno-lint-ignore-file
// deno-fmt-ignore-file: the formatter drops the decorators of functions
// From floats to codes and back: ranges, quantisation, zero points, requantisation.

/** Row i of x [_, depth], or with `order` (i32) row order_i. */
// @ts-ignore: decorator
@inline
function rowOf(x: usize, i: i32, depth: i32, order: usize): usize {
  const row = order ? load<i32>(order + (<usize> i << 2)) : i;
  return x + (<usize> row * <usize> depth << 2);
}

/** Bits of infinity: those of numbers without their sign are below, those of NaN above. */
const INFINITE: i32 = 0x7F800000;

/** Least lane, greatest lane of a vector without NaN. */
// @ts-ignore: decorator
@inline
function leastLane(x: v128): f32 {
  const y = f32x4.pmin(x, v128.shuffle<f32>(x, x, 2, 3, 0, 1));
  return min(f32x4.extract_lane(y, 0), f32x4.extract_lane(y, 1));
}
// @ts-ignore: decorator
@inline
function greatestLane(x: v128): f32 {
  const y = f32x4.pmax(x, v128.shuffle<f32>(x, x, 2, 3, 0, 1));
  return max(f32x4.extract_lane(y, 0), f32x4.extract_lane(y, 1));
}

/**
 * Smallest and greatest number of every row of `from` [rows, depth], in a given order or 0, and 0; the last NaN or infinite number of the row
 * as both if there is one.
 *
 * The comparisons are those of one instruction, which lose NaN; the greatest bits of all numbers find it.
 */
export function rangeRows(from: usize, rows: i32, depth: i32, order: usize, low: usize, high: usize): void {
  const magnitude = i32x4.splat(0x7FFFFFFF);
  for (let i = 0; i < rows; i++) {
    const row = rowOf(from, i, depth, order);
    let x = row;
    let lows = f32x4.splat(0);
    let highs = f32x4.splat(0);
    let bits = i32x4.splat(0);
    let k = 0;
    for (; k + 4 <= depth; k += 4) {
      const v = v128.load(x);
      lows = f32x4.pmin(lows, v);
      highs = f32x4.pmax(highs, v);
      bits = i32x4.max_s(bits, v128.and(v, magnitude));
      x += 16;
    }
    for (; k < depth; k++) {
      const v = v128.load32_splat(x);
      lows = f32x4.pmin(lows, v);
      highs = f32x4.pmax(highs, v);
      bits = i32x4.max_s(bits, v128.and(v, magnitude));
      x += 4;
    }
    let least = leastLane(lows), greatest = greatestLane(highs);
    if (i32x4.all_true(i32x4.lt_s(bits, i32x4.splat(INFINITE))) == 0) {
      for (k = 0; k < depth; k++) {
        const v = load<f32>(row + (<usize> k << 2));
        if (!(abs(v) <= f32.MAX_VALUE)) least = greatest = v;
      }
    }
    store<f32>(low, least);
    store<f32>(high, greatest);
    low += 4;
    high += 4;
  }
}

/** The padded depth of strips. */
// @ts-ignore: decorator
@inline
export function padded(depth: i32): i32 {
  return (depth + 3) & ~3;
}

/** Address of the pair of row i that holds k. */
// @ts-ignore: decorator
@inline
function pairOf(strips: usize, i: i32, k: i32, width: i32): usize {
  return strips + (<usize> (i >> 2) * <usize> width * 8) + (<usize> (k >> 1) << 4) +
    (<usize> (i & 3) << 2);
}

/**
 * Codes clamp(round(x / scale) + zero, low, high) - less as strips, round half to even, and the sum of
 * every row's. `from` is [rows, depth], read in a given order or, with 0, as it lies; a stride of 0 gives all rows
 * one scale or zero point.
 */
export function quantizeRows(
  from: usize, rows: i32, depth: i32, order: usize,
  scales: usize, scaleStride: i32, zeros: usize, zeroStride: i32,
  low: i32, high: i32, less: i32,
  strips: usize, sums: usize,
): void {
  const width = padded(depth);
  if (rows & 3) memory.fill(pairOf(strips, rows & ~3, 0, width), 0, <usize> width << 3);
  const lows = i32x4.splat(low), highs = i32x4.splat(high), shift = i32x4.splat(less);
  for (let i = 0; i < rows; i++) {
    const scale = v128.load32_splat(scales + (<usize> (i * scaleStride) << 2));
    const zero = v128.load32_splat(zeros + (<usize> (i * zeroStride) << 2));
    let x = rowOf(from, i, depth, order);
    let to = pairOf(strips, i, 0, width);
    let sum = i32x4.splat(0);
    let k = 0;
    for (; k + 4 <= depth; k += 4) {
      const code = i32x4.sub(codesOf(v128.load(x), scale, zero, lows, highs), shift);
      sum = i32x4.add(sum, code);
      const narrow = i16x8.narrow_i32x4_s(code, code);
      v128.store_lane<i32>(to, narrow, 0);
      v128.store_lane<i32>(to, narrow, 1, 16);
      x += 16;
      to += 32;
    }
    let total = sumLanes(sum);
    if (k < depth) {
      store<u32>(to, 0);
      store<u32>(to, 0, 16);
      for (; k < depth; k++) {
        const code = i32x4.extract_lane(
          i32x4.sub(codesOf(v128.load32_splat(x), scale, zero, lows, highs), shift), 0,
        );
        store<i16>(pairOf(strips, i, k, width) + (<usize> (k & 1) << 1), <i16> code);
        total += code;
        x += 4;
      }
    }
    store<i32>(sums + (<usize> i << 2), total);
  }
}

// @ts-ignore: decorator
@inline
function codesOf(x: v128, scale: v128, zero: v128, low: v128, high: v128): v128 {
  const rounded = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.div(x, scale)));
  // A saturated code plus a zero point could wrap: clamp to [low - zero, high - zero] first.
  return i32x4.add(
    i32x4.min_s(i32x4.max_s(rounded, i32x4.sub(low, zero)), i32x4.sub(high, zero)),
    zero,
  );
}

// @ts-ignore: decorator
@inline
function sumLanes(x: v128): i32 {
  const pair = i32x4.add(x, v128.shuffle<i32>(x, x, 2, 3, 0, 1));
  return i32x4.extract_lane(pair, 0) + i32x4.extract_lane(pair, 1);
}

/** Given codes [rows, depth] of bytes minus `less` as strips, and the sum of every row's. */
export function stripCodes(
  codes: usize, signed: bool, rows: i32, depth: i32, less: i32, strips: usize, sums: usize,
): void {
  const width = padded(depth);
  memory.fill(strips, 0, <usize> ((rows + 3) >> 2) * <usize> width * 8);
  for (let i = 0; i < rows; i++) {
    let total = 0;
    for (let k = 0; k < depth; k++) {
      const at = codes + <usize> i * <usize> depth + <usize> k;
      const code = (signed ? <i32> load<i8>(at) : <i32> load<u8>(at)) - less;
      store<i16>(pairOf(strips, i, k, width) + (<usize> (k & 1) << 1), <i16> code);
      total += code;
    }
    store<i32>(sums + (<usize> i << 2), total);
  }
}

/** Sums of the codes of each group of `group` along k: [rows, ceil(depth / group)], group a multiple of 4. */
export function groupSums(strips: usize, rows: i32, depth: i32, group: i32, sums: usize): void {
  const width = padded(depth);
  const ones = i16x8.splat(1);
  for (let i = 0; i < rows; i += 4) {
    const groups = (depth + group - 1) / group;
    for (let g = 0; g < groups; g++) {
      const end = min(width, (g + 1) * group);
      let from = pairOf(strips, i, g * group, width);
      let sum = i32x4.splat(0);
      for (let k = g * group; k < end; k += 2) {
        sum = i32x4.add(sum, i32x4.dot_i16x8_s(v128.load(from), ones));
        from += 16;
      }
      const to = sums + (<usize> (i * groups + g) << 2);
      const step = <usize> groups << 2;
      store<i32>(to, i32x4.extract_lane(sum, 0));
      if (i + 1 < rows) store<i32>(to + step, i32x4.extract_lane(sum, 1));
      if (i + 2 < rows) store<i32>(to + 2 * step, i32x4.extract_lane(sum, 2));
      if (i + 3 < rows) store<i32>(to + 3 * step, i32x4.extract_lane(sum, 3));
    }
  }
}

/** Strips of 16-bit codes that fit 8 bits as bytes. */
export function narrowStrips(strips: usize, rows: i32, depth: i32, bytes: usize): void {
  const blocks = ((rows + 3) >> 2) * (padded(depth) >> 2);
  for (let b = 0; b < blocks; b++) {
    const packed = i8x16.narrow_i16x8_s(v128.load(strips), v128.load(strips, 16));
    v128.store(bytes, v128.shuffle<i16>(packed, packed, 0, 4, 1, 5, 2, 6, 3, 7));
    strips += 32;
    bytes += 16;
  }
}

/**
 * C_ij += depth za_i zb_j - zb_j rowSum_i - za_i columnSum_j: the sum of (a - za)(b - zb) from that of a b.
 */
export function correctZeroPoints(
  c: usize, m: i32, n: i32, depth: i32,
  rowSums: usize, zeroA: usize, strideA: i32,
  columnSums: usize, zeroB: usize, strideB: i32,
): void {
  for (let i = 0; i < m; i++) {
    const za = load<i32>(zeroA + (<usize> (i * strideA) << 2));
    const own = depth * za - load<i32>(rowSums + (<usize> i << 2)); // factor of zb_j
    const minusZa = i32x4.splat(-za), factor = i32x4.splat(own);
    let j = 0;
    for (; j + 4 <= n; j += 4) {
      const at = <usize> j << 2;
      const zb = strideB ? v128.load(zeroB + at) : v128.load32_splat(zeroB);
      v128.store(c, i32x4.add(
        v128.load(c),
        i32x4.add(i32x4.mul(factor, zb), i32x4.mul(minusZa, v128.load(columnSums + at))),
      ));
      c += 16;
    }
    for (; j < n; j++) {
      const zb = load<i32>(zeroB + (<usize> (j * strideB) << 2));
      store<i32>(c, load<i32>(c) + own * zb - za * load<i32>(columnSums + (<usize> j << 2)));
      c += 4;
    }
  }
}

/**
 * y_ij = C_ij (scaleA_i scaleB_j) + bias_j in float32; bias may be 0 for none. Row i goes to row order_i of y, which
 * then is not C; with order 0 they are in order, and y may be C.
 */
export function dequantize(
  c: usize, m: i32, n: i32,
  scaleA: usize, strideA: i32, scaleB: usize, strideB: i32, bias: usize, order: usize, to: usize,
): void {
  for (let i = 0; i < m; i++) {
    let y = rowOf(to, i, n, order);
    const own = load<f32>(scaleA + (<usize> (i * strideA) << 2));
    const owns = f32x4.splat(own);
    let j = 0;
    for (; j + 4 <= n; j += 4) {
      const at = <usize> j << 2;
      const scale = f32x4.mul(owns, strideB ? v128.load(scaleB + at) : v128.load32_splat(scaleB));
      let v = f32x4.mul(f32x4.convert_i32x4_s(v128.load(c)), scale);
      if (bias) v = f32x4.add(v, v128.load(bias + at));
      v128.store(y, v);
      c += 16;
      y += 16;
    }
    for (; j < n; j++) {
      const scale = own * load<f32>(scaleB + (<usize> (j * strideB) << 2));
      let v = <f32> load<i32>(c) * scale;
      if (bias) v += load<f32>(bias + (<usize> j << 2));
      store<f32>(y, v);
      c += 4;
      y += 4;
    }
  }
}

/**
 * Codes clamp(round(C_ij factor_j) + zero, low, high) - less as strips of the next product, round half to
 * even, and the sum of every row's.
 */
export function requantizeRows(
  c: usize, m: i32, n: i32, factors: usize, stride: i32,
  zero: i32, low: i32, high: i32, less: i32, strips: usize, sums: usize,
): void {
  const width = padded(n);
  memory.fill(strips, 0, <usize> ((m + 3) >> 2) * <usize> width * 8);
  const lows = i32x4.splat(low - zero), highs = i32x4.splat(high - zero);
  const shift = i32x4.splat(zero - less);
  for (let i = 0; i < m; i++) {
    let total = 0;
    for (let j = 0; j < n; j += 4) {
      const count = min(4, n - j);
      for (let r = 0; r < count; r += count == 4 ? 4 : 1) {
        const at = <usize> ((j + r) * stride) << 2;
        const factor = count == 4 && stride
          ? v128.load(factors + at)
          : v128.load32_splat(factors + at);
        const sum = count == 4 ? v128.load(c) : v128.load32_splat(c);
        const rounded = i32x4.trunc_sat_f32x4_s(
          f32x4.nearest(f32x4.mul(f32x4.convert_i32x4_s(sum), factor)),
        );
        const code = i32x4.add(i32x4.min_s(i32x4.max_s(rounded, lows), highs), shift);
        if (count == 4) {
          const narrow = i16x8.narrow_i32x4_s(code, code);
          const to = pairOf(strips, i, j, width);
          v128.store_lane<i32>(to, narrow, 0);
          v128.store_lane<i32>(to, narrow, 1, 16);
          total += sumLanes(code);
          c += 16;
        } else {
          const value = i32x4.extract_lane(code, 0);
          store<i16>(pairOf(strips, i, j + r, width) + (<usize> ((j + r) & 1) << 1), <i16> value);
          total += value;
          c += 4;
        }
      }
    }
    store<i32>(sums + (<usize> i << 2), total);
  }
}
