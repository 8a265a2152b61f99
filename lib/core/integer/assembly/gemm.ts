// deno-lint-ignore-file
// deno-fmt-ignore-file: the formatter drops the decorators of functions
// C[m, n] = A B^T in integers: one tile of 4 rows by a panel of columns at a time, sums in registers over
// the whole depth. A strip holds 4 rows, so the tile of a product with a vector, or of the last rows,
// has its own function of one row. `tile` is scratch of 512 bytes; of gemmNibblePairs 512 + 8 width.

/** Copies `rows` rows of `columns` numbers from a tile of rows of `width` numbers. */
// @ts-ignore: decorator
@inline
function copyTile(tile: usize, width: i32, rows: i32, columns: i32, c: usize, ldc: i32): void {
  for (let r = 0; r < rows; r++) {
    memory.copy(c + (<usize> (r * ldc) << 2), tile + (<usize> (r * width) << 2), <usize> columns << 2);
  }
}

// @ts-ignore: decorator
@inline
function dot(sum: v128, a: v128, b: v128): v128 {
  return i32x4.add(sum, i32x4.dot_i16x8_s(a, b));
}

// The dot product of relaxed SIMD: four products of i8 by i7 a lane. Its second operand is exact for codes 0
// to 127 only, so weights are shifted there, and the zero points take the shift off again.

// @ts-ignore: decorator
@inline
function dotBytes(sum: v128, a: v128, b: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i32x4.relaxed_dot_i8x16_i7x16_add_s(a, b, sum);
  const low = i16x8.extmul_low_i8x16_s(a, b);
  const high = i16x8.extmul_high_i8x16_s(a, b);
  const even = v128.shuffle<i32>(
    i32x4.extadd_pairwise_i16x8_s(low), i32x4.extadd_pairwise_i16x8_s(high), 0, 2, 4, 6,
  );
  const odd = v128.shuffle<i32>(
    i32x4.extadd_pairwise_i16x8_s(low), i32x4.extadd_pairwise_i16x8_s(high), 1, 3, 5, 7,
  );
  return i32x4.add(sum, i32x4.add(even, odd));
}

// One body for two kinds of numbers, T of the activations: i16 with weights of 8 bits, two k a step; i8 with
// weights of 7 bits, four k a step. A step reads four bytes of each row and a vector of each half panel.

// @ts-ignore: decorator
@inline
function lowHalf<T>(b: usize): v128 {
  return sizeof<T>() == 2 ? v128.load_ext<i8>(b) : v128.load(b);
}

// @ts-ignore: decorator
@inline
function highHalf<T>(b: usize): v128 {
  return sizeof<T>() == 2 ? v128.load_ext<i8>(b, 8) : v128.load(b, 16);
}

/** Bytes of a panel for one step. */
// @ts-ignore: decorator
@inline
function panelStep<T>(): usize {
  return sizeof<T>() == 2 ? 16 : 32;
}

// @ts-ignore: decorator
@inline
function addProduct<T>(sum: v128, a: v128, b: v128): v128 {
  return sizeof<T>() == 1 ? dotBytes(sum, a, b) : dot(sum, a, b);
}

/** Four rows by eight columns, stored with `stride` bytes between rows. */
// @ts-ignore: decorator
@inline
function tile4<T>(steps: i32, a: usize, b: usize, to: usize, stride: usize): void {
  let l0 = i32x4.splat(0), l1 = l0, l2 = l0, l3 = l0;
  let h0 = l0, h1 = l0, h2 = l0, h3 = l0;
  for (let p = 0; p < steps; p++) {
    const low = lowHalf<T>(b);
    const high = highHalf<T>(b);
    let v = v128.load32_splat(a);
    l0 = addProduct<T>(l0, v, low);
    h0 = addProduct<T>(h0, v, high);
    v = v128.load32_splat(a, 4);
    l1 = addProduct<T>(l1, v, low);
    h1 = addProduct<T>(h1, v, high);
    v = v128.load32_splat(a, 8);
    l2 = addProduct<T>(l2, v, low);
    h2 = addProduct<T>(h2, v, high);
    v = v128.load32_splat(a, 12);
    l3 = addProduct<T>(l3, v, low);
    h3 = addProduct<T>(h3, v, high);
    a += 16;
    b += panelStep<T>();
  }
  v128.store(to, l0);
  v128.store(to, h0, 16);
  to += stride;
  v128.store(to, l1);
  v128.store(to, h1, 16);
  to += stride;
  v128.store(to, l2);
  v128.store(to, h2, 16);
  to += stride;
  v128.store(to, l3);
  v128.store(to, h3, 16);
}

/** The first row of a strip; two sums for each column, so that one does not wait for the other. */
function tile1<T>(steps: i32, a: usize, b: usize, to: usize): void {
  let l0 = i32x4.splat(0), h0 = l0, l1 = l0, h1 = l0;
  let p = 0;
  for (; p + 2 <= steps; p += 2) {
    let v = v128.load32_splat(a);
    l0 = addProduct<T>(l0, v, lowHalf<T>(b));
    h0 = addProduct<T>(h0, v, highHalf<T>(b));
    b += panelStep<T>();
    v = v128.load32_splat(a, 16);
    l1 = addProduct<T>(l1, v, lowHalf<T>(b));
    h1 = addProduct<T>(h1, v, highHalf<T>(b));
    b += panelStep<T>();
    a += 32;
  }
  if (p < steps) {
    const v = v128.load32_splat(a);
    l0 = addProduct<T>(l0, v, lowHalf<T>(b));
    h0 = addProduct<T>(h0, v, highHalf<T>(b));
  }
  v128.store(to, i32x4.add(l0, l1));
  v128.store(to, i32x4.add(h0, h1), 16);
}

// Exported only so that they are not inlined: with more values alive around them the compiler keeps some sums of
// a tile in memory, which costs a third of the speed.
export function tileInt8(steps: i32, a: usize, b: usize, to: usize, stride: usize): void {
  tile4<i16>(steps, a, b, to, stride);
}
export function tileBytes(steps: i32, a: usize, b: usize, to: usize, stride: usize): void {
  tile4<i8>(steps, a, b, to, stride);
}
export function tilePairs(pairs: i32, a: usize, b: usize, tile: usize): void {
  pairsTile4<i16>(pairs, a, b, tile);
}
export function tileNibblePairs(pairs: i32, a: usize, b: usize, tile: usize): void {
  pairsTile4<u8>(pairs, a, b, tile);
}

/** The tiles of C behind one panel of B, columns j to j + 7; those with all their columns are stored in place. */
// @ts-ignore: decorator
@inline
function gemmPanel<T>(
  m: i32, n: i32, steps: i32, a: usize, b: usize, c: usize, tile: usize, j: i32,
): void {
  const stride = <usize> n << 2;
  const columns = min(8, n - j);
  for (let i = 0; i < m; i += 4) {
    const strip = a + <usize> (i >> 2) * (<usize> steps << 4);
    const rows = min(4, m - i);
    const to = c + (<usize> (i * n + j) << 2);
    const whole = columns == 8 && (rows == 4 || rows == 1);
    if (rows == 1) tile1<T>(steps, strip, b, whole ? to : tile);
    else {
      const at = whole ? to : tile, step = whole ? stride : 32;
      if (sizeof<T>() == 1) tileBytes(steps, strip, b, at, step);
      else tileInt8(steps, strip, b, at, step);
    }
    if (!whole) copyTile(tile, 8, rows, columns, to, n);
  }
}

function gemmTiles<T>(m: i32, n: i32, steps: i32, a: usize, b: usize, c: usize, tile: usize): void {
  for (let j = 0; j < n; j += 8) {
    gemmPanel<T>(m, n, steps, a, b, c, tile, j);
    b += <usize> steps * panelStep<T>();
  }
}

/** A in strips, B from packInt8. Exact while depth max|a| 128 < 2^31. */
export function gemmInt8(m: i32, n: i32, width: i32, a: usize, b: usize, c: usize, tile: usize): void {
  gemmTiles<i16>(m, n, width >> 1, a, b, c, tile);
}

/** A in bytes, codes from -128 to 127; B from packBytes. */
export function gemmBytes(m: i32, n: i32, width: i32, a: usize, b: usize, c: usize, tile: usize): void {
  gemmTiles<i8>(m, n, width >> 2, a, b, c, tile);
}

// Two 4-bit weights in one 16-bit lane: v = (w0 + 8) + 4096 w1, which fits for every pair of codes from -8 to 7.
// The dot products add up to S = sum of a v modulo 2^32; L, the sum of a (w0 + 8), agrees with S in its low 12
// bits. For a from -8 to 8 a product is -120 to 120, so after 8 pairs of k L has moved by at most 1920, and
// S - L, its low 12 bits read as signed, is by how much. The sum of a w1 is (S - L) / 4096, exact while it is
// below 2^19, that is for 8191 products.

/** Pairs of k between two moves of the low field. */
const FIELD_PAIRS: i32 = 8;

/** Pairs of k between two spills of both fields into the tile. */
const SPILL_PAIRS: i32 = 2048;

/** The low 12 bits, signed. */
// @ts-ignore: decorator
@inline
function lowField(s: v128): v128 {
  return i32x4.shr_s(i32x4.shl(s, 20), 20);
}

/** The sum of the low fields of s, which was l some products ago. */
// @ts-ignore: decorator
@inline
function follow(l: v128, s: v128): v128 {
  return i32x4.add(l, lowField(i32x4.sub(s, l)));
}

/** Adds the fields of t, the low one of which sums to l, to the tile's row r. */
// @ts-ignore: decorator
@inline
function spill(tile: usize, r: i32, t: v128, l: v128): void {
  const high = i32x4.shr_s(i32x4.sub(t, l), 12);
  const at = tile + (<usize> r << 5);
  v128.store(at, i32x4.add(v128.load(at), l));
  v128.store(at, i32x4.add(v128.load(at, 16), high), 16);
}

/** Eight lanes of weights: as they lie, or eight bytes w0 + 8 | w1 << 4 unpacked. */
// @ts-ignore: decorator
@inline
function lanes<T>(b: usize): v128 {
  if (sizeof<T>() == 2) return v128.load(b);
  const x = v128.load_ext<u8>(b);
  return v128.and(v128.or(x, i16x8.shl(x, 8)), i16x8.splat(<i16> 0xF00F));
}

// Written out with a way out after every step, though the depth ends at a multiple of two: V8 moves all loads of a
// basic block to its start, and with more than one step a block has more of them than registers. Of the
// same eight steps in one block a third of the speed goes to the stack.

// @ts-ignore: decorator
@inline
function pairsTile4<T>(pairs: i32, a: usize, b: usize, tile: usize): void {
  const step = <usize> (sizeof<T>() * 8);
  const end = a + (<usize> pairs << 4);
  memory.fill(tile, 0, 128);
  while (a < end) {
    const last = min(end, a + (SPILL_PAIRS << 4));
    let s0 = i32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
    let l0 = s0, l1 = s0, l2 = s0, l3 = s0;
    let w: v128;
    while (a < last) {
      do {
        w = lanes<T>(b);
        s0 = dot(s0, v128.load32_splat(a), w);
        s1 = dot(s1, v128.load32_splat(a, 4), w);
        s2 = dot(s2, v128.load32_splat(a, 8), w);
        s3 = dot(s3, v128.load32_splat(a, 12), w);
        a += 16;
        b += step;
        if (a == last) break;
        w = lanes<T>(b);
        s0 = dot(s0, v128.load32_splat(a), w);
        s1 = dot(s1, v128.load32_splat(a, 4), w);
        s2 = dot(s2, v128.load32_splat(a, 8), w);
        s3 = dot(s3, v128.load32_splat(a, 12), w);
        a += 16;
        b += step;
        if (a == last) break;
        w = lanes<T>(b);
        s0 = dot(s0, v128.load32_splat(a), w);
        s1 = dot(s1, v128.load32_splat(a, 4), w);
        s2 = dot(s2, v128.load32_splat(a, 8), w);
        s3 = dot(s3, v128.load32_splat(a, 12), w);
        a += 16;
        b += step;
        if (a == last) break;
        w = lanes<T>(b);
        s0 = dot(s0, v128.load32_splat(a), w);
        s1 = dot(s1, v128.load32_splat(a, 4), w);
        s2 = dot(s2, v128.load32_splat(a, 8), w);
        s3 = dot(s3, v128.load32_splat(a, 12), w);
        a += 16;
        b += step;
        if (a == last) break;
        w = lanes<T>(b);
        s0 = dot(s0, v128.load32_splat(a), w);
        s1 = dot(s1, v128.load32_splat(a, 4), w);
        s2 = dot(s2, v128.load32_splat(a, 8), w);
        s3 = dot(s3, v128.load32_splat(a, 12), w);
        a += 16;
        b += step;
        if (a == last) break;
        w = lanes<T>(b);
        s0 = dot(s0, v128.load32_splat(a), w);
        s1 = dot(s1, v128.load32_splat(a, 4), w);
        s2 = dot(s2, v128.load32_splat(a, 8), w);
        s3 = dot(s3, v128.load32_splat(a, 12), w);
        a += 16;
        b += step;
        if (a == last) break;
        w = lanes<T>(b);
        s0 = dot(s0, v128.load32_splat(a), w);
        s1 = dot(s1, v128.load32_splat(a, 4), w);
        s2 = dot(s2, v128.load32_splat(a, 8), w);
        s3 = dot(s3, v128.load32_splat(a, 12), w);
        a += 16;
        b += step;
        if (a == last) break;
        w = lanes<T>(b);
        s0 = dot(s0, v128.load32_splat(a), w);
        s1 = dot(s1, v128.load32_splat(a, 4), w);
        s2 = dot(s2, v128.load32_splat(a, 8), w);
        s3 = dot(s3, v128.load32_splat(a, 12), w);
        a += 16;
        b += step;
      } while (false);
      l0 = follow(l0, s0);
      l1 = follow(l1, s1);
      l2 = follow(l2, s2);
      l3 = follow(l3, s3);
    }
    spill(tile, 0, s0, l0);
    spill(tile, 1, s1, l1);
    spill(tile, 2, s2, l2);
    spill(tile, 3, s3, l3);
  }
}

function pairsTile1<T>(pairs: i32, a: usize, b: usize, tile: usize): void {
  const step = <usize> (sizeof<T>() * 8);
  memory.fill(tile, 0, 32);
  for (let p = 0; p < pairs;) {
    const last = min(pairs, p + SPILL_PAIRS);
    let t = i32x4.splat(0), l = t;
    while (p < last) {
      const count = min(FIELD_PAIRS, last - p);
      let s0 = i32x4.splat(0), s1 = s0;
      for (let q = 0; q < count; q += 2) { // the padded depth is a multiple of 4
        s0 = dot(s0, v128.load32_splat(a), lanes<T>(b));
        s1 = dot(s1, v128.load32_splat(a, 16), lanes<T>(b + step));
        a += 32;
        b += step << 1;
      }
      t = i32x4.add(t, i32x4.add(s0, s1));
      l = follow(l, t);
      p += count;
    }
    spill(tile, 0, t, l);
  }
}

/** One panel of nibbles as lanes of 16 bits. */
function unpackLanes(pairs: i32, b: usize, to: usize): void {
  for (let p = 0; p < pairs; p++) {
    v128.store(to, lanes<u8>(b));
    b += 8;
    to += 16;
  }
}

/** Strips that make it worth to unpack a panel of nibbles once rather than in every tile. */
const UNPACK_STRIPS: i32 = 3;

/**
 * T is i16 or u8, the type that holds a lane; the tile's low half is 8 times the row's sum too great. Behind the
 * tile lies room for a panel of lanes of 16 bits.
 */
function gemmLanes<T>(
  m: i32, n: i32, width: i32, a: usize, rowSums: usize, b: usize, c: usize, tile: usize,
): void {
  const strips = <usize> width << 3;
  const unpack = sizeof<T>() == 1 && m > 4 * (UNPACK_STRIPS - 1);
  for (let j = 0; j < n; j += 8) {
    if (unpack) unpackLanes(width >> 1, b, tile + 512);
    for (let i = 0; i < m; i += 4) {
      const strip = a + <usize> (i >> 2) * strips;
      const rows = min(4, m - i);
      if (rows == 1) pairsTile1<T>(width >> 1, strip, b, tile);
      else if (sizeof<T>() == 2) tilePairs(width >> 1, strip, b, tile);
      else if (unpack) tilePairs(width >> 1, strip, tile + 512, tile);
      else tileNibblePairs(width >> 1, strip, b, tile);
      for (let r = 0; r < rows; r++) {
        const at = tile + (<usize> r << 5);
        const excess = load<i32>(rowSums + (<usize> (i + r) << 2)) << 3;
        v128.store(at, i32x4.sub(v128.load(at), i32x4.splat(excess)));
      }
      copyTile(tile, 8, rows, min(8, n - j), c + (<usize> (i * n + j) << 2), n);
    }
    b += <usize> width * sizeof<T>() << 2;
  }
}

/** A in strips of codes from -8 to 7, B from packPairs. */
export function gemmPairs(
  m: i32, n: i32, width: i32, a: usize, rowSums: usize, b: usize, c: usize, tile: usize,
): void {
  gemmLanes<i16>(m, n, width, a, rowSums, b, c, tile);
}

/** A in strips of codes from -8 to 7, B from packNibblePairs. */
export function gemmNibblePairs(
  m: i32, n: i32, width: i32, a: usize, rowSums: usize, b: usize, c: usize, tile: usize,
): void {
  gemmLanes<u8>(m, n, width, a, rowSums, b, c, tile);
}

// Activations of 8 bits on the same weights, for tokens that get more bits than others: a panel goes back to codes of
// 8 bits once and is multiplied as such. Scratch as of gemmNibblePairs.

/** One panel of lanes as panels of packInt8. */
function unpackCodes<T>(pairs: i32, b: usize, to: usize): void {
  const eight = i16x8.splat(8);
  for (let p = 0; p < pairs; p++) {
    const v = lanes<T>(b);
    const low = i16x8.sub(v128.and(v, i16x8.splat(15)), eight);
    v128.store(to, i8x16.narrow_i16x8_s(low, i16x8.shr_s(v, 12)));
    b += sizeof<T>() * 8;
    to += 16;
  }
}

/** A in strips of 8-bit codes; B from packPairs, or with `nibbles` from packNibblePairs. */
export function gemmWide(
  m: i32, n: i32, width: i32, a: usize, b: usize, nibbles: bool, c: usize, tile: usize,
): void {
  const panel = tile + 512, pairs = width >> 1;
  for (let j = 0; j < n; j += 8) {
    if (nibbles) unpackCodes<u8>(pairs, b, panel);
    else unpackCodes<i16>(pairs, b, panel);
    gemmPanel<i16>(m, n, pairs, a, panel, c, tile, j);
    b += <usize> width << (nibbles ? 2 : 3);
  }
}

// The multiplier of Agile-Quant (arXiv 2312.05693, appendix, Algorithm 1): p = a (w0 | w1 << 8) in 16 bits;
// as a w <= 225, no carry passes between the halves. The paper widens both halves of every product and adds
// them to two 16-bit fields. Here H = sum of p >> 8 and S = sum of p modulo 2^16: the sum of the low halves is
// S - 256 H, exact while it is below 2^16, that is for 291 products. One operation fewer, the same sums.

/** Products between two spills into 32 bits; the paper's guarantee. */
const AGILE_SPILL: i32 = 256;

/** Adds the sums behind s and h to the tile's row r of 16 columns. */
// @ts-ignore: decorator
@inline
function spillAgile(tile: usize, r: i32, s: v128, h: v128): void {
  const low = i16x8.sub(s, i16x8.shl(h, 8));
  const at = tile + (<usize> r << 6);
  v128.store(at, i32x4.add(v128.load(at), i32x4.extend_low_i16x8_u(low)));
  v128.store(at, i32x4.add(v128.load(at, 16), i32x4.extend_high_i16x8_u(low)), 16);
  v128.store(at, i32x4.add(v128.load(at, 32), i32x4.extend_low_i16x8_u(h)), 32);
  v128.store(at, i32x4.add(v128.load(at, 48), i32x4.extend_high_i16x8_u(h)), 48);
}

function agileTile4(width: i32, a: usize, b: usize, tile: usize): void {
  memory.fill(tile, 0, 256);
  for (let k = 0; k < width; k += AGILE_SPILL) {
    const end = b + (<usize> min(AGILE_SPILL, width - k) << 4);
    let s0 = i16x8.splat(0), s1 = s0, s2 = s0, s3 = s0;
    let h0 = s0, h1 = s0, h2 = s0, h3 = s0;
    for (; b < end; b += 32) {
      let w = v128.load(b);
      let p = i16x8.mul(v128.load16_splat(a), w);
      s0 = i16x8.add(s0, p);
      h0 = i16x8.add(h0, i16x8.shr_u(p, 8));
      p = i16x8.mul(v128.load16_splat(a, 4), w);
      s1 = i16x8.add(s1, p);
      h1 = i16x8.add(h1, i16x8.shr_u(p, 8));
      p = i16x8.mul(v128.load16_splat(a, 8), w);
      s2 = i16x8.add(s2, p);
      h2 = i16x8.add(h2, i16x8.shr_u(p, 8));
      p = i16x8.mul(v128.load16_splat(a, 12), w);
      s3 = i16x8.add(s3, p);
      h3 = i16x8.add(h3, i16x8.shr_u(p, 8));
      w = v128.load(b, 16);
      p = i16x8.mul(v128.load16_splat(a, 2), w);
      s0 = i16x8.add(s0, p);
      h0 = i16x8.add(h0, i16x8.shr_u(p, 8));
      p = i16x8.mul(v128.load16_splat(a, 6), w);
      s1 = i16x8.add(s1, p);
      h1 = i16x8.add(h1, i16x8.shr_u(p, 8));
      p = i16x8.mul(v128.load16_splat(a, 10), w);
      s2 = i16x8.add(s2, p);
      h2 = i16x8.add(h2, i16x8.shr_u(p, 8));
      p = i16x8.mul(v128.load16_splat(a, 14), w);
      s3 = i16x8.add(s3, p);
      h3 = i16x8.add(h3, i16x8.shr_u(p, 8));
      a += 16;
    }
    spillAgile(tile, 0, s0, h0);
    spillAgile(tile, 1, s1, h1);
    spillAgile(tile, 2, s2, h2);
    spillAgile(tile, 3, s3, h3);
  }
}

function agileTile1(width: i32, a: usize, b: usize, tile: usize): void {
  memory.fill(tile, 0, 64);
  for (let k = 0; k < width; k += AGILE_SPILL) {
    const end = b + (<usize> min(AGILE_SPILL, width - k) << 4);
    let s = i16x8.splat(0), h = s;
    for (; b < end; b += 32) {
      let p = i16x8.mul(v128.load16_splat(a), v128.load(b));
      s = i16x8.add(s, p);
      h = i16x8.add(h, i16x8.shr_u(p, 8));
      p = i16x8.mul(v128.load16_splat(a, 2), v128.load(b, 16));
      s = i16x8.add(s, p);
      h = i16x8.add(h, i16x8.shr_u(p, 8));
      a += 16;
    }
    spillAgile(tile, 0, s, h);
  }
}

/** A in strips of codes from 0 to 15, B from packAgile. */
export function gemmAgile(m: i32, n: i32, width: i32, a: usize, b: usize, c: usize, tile: usize): void {
  for (let j = 0; j < n; j += 16) {
    for (let i = 0; i < m; i += 4) {
      const strip = a + <usize> (i >> 2) * (<usize> width << 3);
      const rows = min(4, m - i);
      if (rows == 1) agileTile1(width, strip, b, tile);
      else agileTile4(width, strip, b, tile);
      copyTile(tile, 16, rows, min(16, n - j), c + (<usize> (i * n + j) << 2), n);
    }
    b += <usize> width << 4;
  }
}

// 4-bit weights with a scale and a zero point for every group of k and column, 8-bit activations:
// y_ij = scaleA_i sum over groups g of s_gj (sum of a u - z_gj sum of a), the inner sums in integers, the
// outer one in float32 in the order of the groups.

/** Adds one group's part to row r of the tile of floats. */
// @ts-ignore: decorator
@inline
function addGroup(
  tile: usize, r: i32, low: v128, high: v128, sum: i32, scales: usize, zeros: usize,
): void {
  const own = i32x4.splat(sum);
  const at = tile + (<usize> r << 5);
  const x = f32x4.convert_i32x4_s(i32x4.sub(low, i32x4.mul(own, v128.load(zeros))));
  const y = f32x4.convert_i32x4_s(i32x4.sub(high, i32x4.mul(own, v128.load(zeros, 16))));
  v128.store(at, f32x4.add(v128.load(at), f32x4.mul(x, v128.load(scales))));
  v128.store(at, f32x4.add(v128.load(at, 16), f32x4.mul(y, v128.load(scales, 16))), 16);
}

function groupTile4(
  width: i32, group: i32, groups: i32, a: usize, b: usize,
  sums: usize, scales: usize, zeros: usize, tile: usize,
): void {
  memory.fill(tile, 0, 128);
  const mask = i8x16.splat(15);
  for (let g = 0; g < groups; g++) {
    const end = b + (<usize> min(group, width - g * group) << 2);
    let l0 = i32x4.splat(0), l1 = l0, l2 = l0, l3 = l0;
    let h0 = l0, h1 = l0, h2 = l0, h3 = l0;
    for (; b < end; b += 16) {
      const both = v128.load(b);
      let w = v128.and(both, mask);
      let low = i16x8.extend_low_i8x16_u(w);
      let high = i16x8.extend_high_i8x16_u(w);
      let v = v128.load32_splat(a);
      l0 = dot(l0, v, low);
      h0 = dot(h0, v, high);
      v = v128.load32_splat(a, 4);
      l1 = dot(l1, v, low);
      h1 = dot(h1, v, high);
      v = v128.load32_splat(a, 8);
      l2 = dot(l2, v, low);
      h2 = dot(h2, v, high);
      v = v128.load32_splat(a, 12);
      l3 = dot(l3, v, low);
      h3 = dot(h3, v, high);
      w = v128.and(i16x8.shr_u(both, 4), mask);
      low = i16x8.extend_low_i8x16_u(w);
      high = i16x8.extend_high_i8x16_u(w);
      v = v128.load32_splat(a, 16);
      l0 = dot(l0, v, low);
      h0 = dot(h0, v, high);
      v = v128.load32_splat(a, 20);
      l1 = dot(l1, v, low);
      h1 = dot(h1, v, high);
      v = v128.load32_splat(a, 24);
      l2 = dot(l2, v, low);
      h2 = dot(h2, v, high);
      v = v128.load32_splat(a, 28);
      l3 = dot(l3, v, low);
      h3 = dot(h3, v, high);
      a += 32;
    }
    const own = sums + (<usize> g << 2);
    const step = <usize> groups << 2;
    addGroup(tile, 0, l0, h0, load<i32>(own), scales, zeros);
    addGroup(tile, 1, l1, h1, load<i32>(own + step), scales, zeros);
    addGroup(tile, 2, l2, h2, load<i32>(own + 2 * step), scales, zeros);
    addGroup(tile, 3, l3, h3, load<i32>(own + 3 * step), scales, zeros);
    scales += 32;
    zeros += 32;
  }
}

function groupTile1(
  width: i32, group: i32, groups: i32, a: usize, b: usize,
  sums: usize, scales: usize, zeros: usize, tile: usize,
): void {
  memory.fill(tile, 0, 32);
  const mask = i8x16.splat(15);
  for (let g = 0; g < groups; g++) {
    const end = b + (<usize> min(group, width - g * group) << 2);
    let l0 = i32x4.splat(0), h0 = l0, l1 = l0, h1 = l0;
    for (; b < end; b += 16) {
      const both = v128.load(b);
      let w = v128.and(both, mask);
      let v = v128.load32_splat(a);
      l0 = dot(l0, v, i16x8.extend_low_i8x16_u(w));
      h0 = dot(h0, v, i16x8.extend_high_i8x16_u(w));
      w = v128.and(i16x8.shr_u(both, 4), mask);
      v = v128.load32_splat(a, 16);
      l1 = dot(l1, v, i16x8.extend_low_i8x16_u(w));
      h1 = dot(h1, v, i16x8.extend_high_i8x16_u(w));
      a += 32;
    }
    addGroup(
      tile, 0, i32x4.add(l0, l1), i32x4.add(h0, h1), load<i32>(sums + (<usize> g << 2)), scales, zeros,
    );
    scales += 32;
    zeros += 32;
  }
}

/**
 * A in strips, B from packNibbles; group is a multiple of 4. `sums` are the group sums of A, with room for
 * whole strips; scales (f32) and zeros (i32) are [n / 8][groups][8]; scaleA has one number a row or, with
 * stride 0, one for all; bias may be 0 for none. y is float32.
 */
export function gemmGroups(
  m: i32, n: i32, width: i32, group: i32, a: usize, sums: usize, scaleA: usize, strideA: i32,
  b: usize, scales: usize, zeros: usize, bias: usize, y: usize, tile: usize,
): void {
  const groups = (width + group - 1) / group;
  for (let j = 0; j < n; j += 8) {
    const columns = min(8, n - j);
    for (let i = 0; i < m; i += 4) {
      const strip = a + <usize> (i >> 2) * (<usize> width << 3);
      const own = sums + (<usize> (i * groups) << 2);
      const rows = min(4, m - i);
      if (rows == 1) groupTile1(width, group, groups, strip, b, own, scales, zeros, tile);
      else groupTile4(width, group, groups, strip, b, own, scales, zeros, tile);
      for (let r = 0; r < rows; r++) {
        const scale = load<f32>(scaleA + (<usize> ((i + r) * strideA) << 2));
        const from = tile + (<usize> r << 5);
        for (let c = 0; c < columns; c++) {
          let v = load<f32>(from + (<usize> c << 2)) * scale;
          if (bias) v += load<f32>(bias + (<usize> (j + c) << 2));
          store<f32>(y + (<usize> ((i + r) * n + j + c) << 2), v);
        }
      }
    }
    b += <usize> width << 2;
    scales += <usize> groups << 5;
    zeros += <usize> groups << 5;
  }
}
