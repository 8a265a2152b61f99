// C = alpha op(A) op(B) + beta C, single precision, row-major, any leading
// dimension: the scheme of K. Goto and R. van de Geijn, "Anatomy of
// High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008.
//
// op(B) is cut into blocks KC x NC and op(A) into blocks MC x KC. Each block is
// packed into strips (of NR columns, MR rows) that the micro-kernel reads in
// order, whatever the layout of the operand was; so transposition costs nothing
// but another way of packing. The micro-kernel keeps an MR x NR tile of C in
// registers. Strips at the edge are padded with zeros and their tile goes
// through a buffer, so that nothing outside C is written.
import { madd, sumLanes } from "./simd";

const MR: i32 = 6; // rows of the register tile
const NR: i32 = 8; // columns of the register tile: two vectors
const KC: i32 = 256; // depth of a packed block: a strip of B fits the L1 cache
const MC: i32 = 120; // rows of a packed block of A (multiple of MR): fits L2
const NC: i32 = 1024; // columns of a packed block of B (multiple of NR)

const TILE_BYTES: usize = <usize> (MR * NR * 4);
const A_BYTES: usize = <usize> (MC * KC * 4);

/** Bytes of scratch that `gemm` and `gemmBatch` need, whatever the sizes. */
export function gemmScratchBytes(): i32 {
  return <i32> (TILE_BYTES + A_BYTES) + KC * NC * 4 + 64;
}

/** Rows i0.. and columns p0.. of op(A) as strips of MR rows: [strip][p][MR]. */
function packA(
  transposed: bool,
  a: usize,
  lda: i32,
  rows: i32,
  depth: i32,
  to: usize,
): void {
  for (let i = 0; i < rows; i += MR) {
    const count = min(MR, rows - i);
    if (!transposed) {
      if (count < MR) memory.fill(to, 0, <usize> (MR * depth * 4));
      const stride = <usize> lda * 4;
      const from = a + <usize> i * stride;
      if (count == MR) {
        let r0 = from;
        let r1 = r0 + stride;
        let r2 = r1 + stride;
        let r3 = r2 + stride;
        let r4 = r3 + stride;
        let r5 = r4 + stride;
        let out = to;
        for (let p = 0; p < depth; p++) {
          store<f32>(out, load<f32>(r0));
          store<f32>(out, load<f32>(r1), 4);
          store<f32>(out, load<f32>(r2), 8);
          store<f32>(out, load<f32>(r3), 12);
          store<f32>(out, load<f32>(r4), 16);
          store<f32>(out, load<f32>(r5), 20);
          r0 += 4;
          r1 += 4;
          r2 += 4;
          r3 += 4;
          r4 += 4;
          r5 += 4;
          out += MR * 4;
        }
      } else {
        for (let r = 0; r < count; r++) {
          let row = from + <usize> r * stride;
          let out = to + <usize> (r * 4);
          for (let p = 0; p < depth; p++) {
            store<f32>(out, load<f32>(row));
            row += 4;
            out += MR * 4;
          }
        }
      }
    } else {
      const stride = <usize> lda * 4;
      let row = a + <usize> (i * 4);
      let out = to;
      if (count == MR) {
        for (let p = 0; p < depth; p++) {
          v128.store(out, v128.load(row));
          store<u64>(out, load<u64>(row, 16), 16);
          row += stride;
          out += MR * 4;
        }
      } else {
        for (let p = 0; p < depth; p++) {
          for (let r = 0; r < MR; r++) {
            const value: f32 = r < count ? load<f32>(row + (r << 2)) : 0;
            store<f32>(out + (r << 2), value);
          }
          row += stride;
          out += MR * 4;
        }
      }
    }
    to += <usize> (MR * depth * 4);
  }
}

/** A block of op(B) as strips of NR columns: [strip][p][NR]. */
function packB(
  transposed: bool,
  b: usize,
  ldb: i32,
  depth: i32,
  columns: i32,
  to: usize,
): void {
  const stride = <usize> ldb * 4;
  for (let j = 0; j < columns; j += NR) {
    const count = min(NR, columns - j);
    if (!transposed) {
      let row = b + <usize> (j * 4);
      let out = to;
      if (count == NR) {
        for (let p = 0; p < depth; p++) {
          v128.store(out, v128.load(row));
          v128.store(out, v128.load(row, 16), 16);
          row += stride;
          out += NR * 4;
        }
      } else {
        for (let p = 0; p < depth; p++) {
          for (let c = 0; c < NR; c++) {
            const value: f32 = c < count ? load<f32>(row + (c << 2)) : 0;
            store<f32>(out + (c << 2), value);
          }
          row += stride;
          out += NR * 4;
        }
      }
    } else {
      if (count < NR) memory.fill(to, 0, <usize> (NR * depth * 4));
      let c = 0;
      for (; c + 4 <= count; c += 4) {
        // Four rows of B at a time, transposed in registers.
        let r0 = b + <usize> (j + c) * stride;
        let r1 = r0 + stride;
        let r2 = r1 + stride;
        let r3 = r2 + stride;
        let out = to + <usize> (c * 4);
        let p = 0;
        for (; p + 4 <= depth; p += 4) {
          const x0 = v128.load(r0);
          const x1 = v128.load(r1);
          const x2 = v128.load(r2);
          const x3 = v128.load(r3);
          const lo01 = v128.shuffle<f32>(x0, x1, 0, 4, 1, 5);
          const hi01 = v128.shuffle<f32>(x0, x1, 2, 6, 3, 7);
          const lo23 = v128.shuffle<f32>(x2, x3, 0, 4, 1, 5);
          const hi23 = v128.shuffle<f32>(x2, x3, 2, 6, 3, 7);
          v128.store(out, v128.shuffle<f64>(lo01, lo23, 0, 2));
          v128.store(out, v128.shuffle<f64>(lo01, lo23, 1, 3), 32);
          v128.store(out, v128.shuffle<f64>(hi01, hi23, 0, 2), 64);
          v128.store(out, v128.shuffle<f64>(hi01, hi23, 1, 3), 96);
          r0 += 16;
          r1 += 16;
          r2 += 16;
          r3 += 16;
          out += 128;
        }
        for (; p < depth; p++) {
          store<f32>(out, load<f32>(r0));
          store<f32>(out, load<f32>(r1), 4);
          store<f32>(out, load<f32>(r2), 8);
          store<f32>(out, load<f32>(r3), 12);
          r0 += 4;
          r1 += 4;
          r2 += 4;
          r3 += 4;
          out += 32;
        }
      }
      for (; c < count; c++) {
        let row = b + <usize> (j + c) * stride;
        let out = to + <usize> (c * 4);
        for (let p = 0; p < depth; p++) {
          store<f32>(out, load<f32>(row));
          row += 4;
          out += NR * 4;
        }
      }
    }
    to += <usize> (NR * depth * 4);
  }
}

/**
 * tile[MR, NR] = A B for one strip of A and one of B.
 *
 * Scaling and adding to C is done elsewhere, and the function is exported only
 * so that it is not inlined: any further value that lives here makes the
 * compiler spill some of the tile, which costs a quarter of the speed.
 */
export function microKernel(depth: i32, a: usize, b: usize, tile: usize): void {
  let c00 = f32x4.splat(0), c01 = f32x4.splat(0);
  let c10 = f32x4.splat(0), c11 = f32x4.splat(0);
  let c20 = f32x4.splat(0), c21 = f32x4.splat(0);
  let c30 = f32x4.splat(0), c31 = f32x4.splat(0);
  let c40 = f32x4.splat(0), c41 = f32x4.splat(0);
  let c50 = f32x4.splat(0), c51 = f32x4.splat(0);
  for (let p = 0; p < depth; p++) {
    const b0 = v128.load(b);
    const b1 = v128.load(b, 16);
    let x = v128.load32_splat(a);
    c00 = madd(x, b0, c00);
    c01 = madd(x, b1, c01);
    x = v128.load32_splat(a, 4);
    c10 = madd(x, b0, c10);
    c11 = madd(x, b1, c11);
    x = v128.load32_splat(a, 8);
    c20 = madd(x, b0, c20);
    c21 = madd(x, b1, c21);
    x = v128.load32_splat(a, 12);
    c30 = madd(x, b0, c30);
    c31 = madd(x, b1, c31);
    x = v128.load32_splat(a, 16);
    c40 = madd(x, b0, c40);
    c41 = madd(x, b1, c41);
    x = v128.load32_splat(a, 20);
    c50 = madd(x, b0, c50);
    c51 = madd(x, b1, c51);
    a += MR * 4;
    b += NR * 4;
  }
  v128.store(tile, c00);
  v128.store(tile, c01, 16);
  v128.store(tile, c10, 32);
  v128.store(tile, c11, 48);
  v128.store(tile, c20, 64);
  v128.store(tile, c21, 80);
  v128.store(tile, c30, 96);
  v128.store(tile, c31, 112);
  v128.store(tile, c40, 128);
  v128.store(tile, c41, 144);
  v128.store(tile, c50, 160);
  v128.store(tile, c51, 176);
}

/** C = beta C + alpha tile. With beta 0, C is not read: it may hold anything. */
function addTile(
  tile: usize,
  rows: i32,
  columns: i32,
  c: usize,
  ldc: i32,
  alpha: f32,
  beta: f32,
): void {
  const stride = <usize> ldc * 4;
  const scale = f32x4.splat(alpha);
  const keep = f32x4.splat(beta);
  for (let i = 0; i < rows; i++) {
    let j = 0;
    for (; j + 4 <= columns; j += 4) {
      const at = <usize> (j * 4);
      let sum = f32x4.mul(v128.load(tile + at), scale);
      if (beta != 0) {
        sum = f32x4.add(sum, f32x4.mul(v128.load(c + at), keep));
      }
      v128.store(c + at, sum);
    }
    for (; j < columns; j++) {
      const at = <usize> (j * 4);
      let sum = load<f32>(tile + at) * alpha;
      if (beta != 0) sum += load<f32>(c + at) * beta;
      store<f32>(c + at, sum);
    }
    tile += NR * 4;
    c += stride;
  }
}

/** y = beta y + alpha sum, one element. */
// @ts-ignore: decorator

function addTo(y: usize, sum: f32, alpha: f32, beta: f32): void {
  sum *= alpha;
  if (beta != 0) sum += beta * load<f32>(y);
  store<f32>(y, sum);
}

/** Depth of a product with a vector that is done at once: the vector fits L1. */
const VECTOR_DEPTH: i32 = 4096;

/**
 * y[n] = alpha x[k] op(B)[k, n] + beta y; B is read once, and not packed.
 *
 * `strideX` and `strideY` count elements: a column of a matrix is a vector too.
 */
function gemv(
  transposeB: bool,
  n: i32,
  k: i32,
  alpha: f32,
  x: usize,
  strideX: i32,
  b: usize,
  ldb: i32,
  beta: f32,
  y: usize,
  strideY: i32,
  packed: usize,
): void {
  const rowB = <usize> ldb * 4;
  const stepX = <usize> strideX * 4;
  const stepY = <usize> strideY * 4;
  for (let first = 0; first < k; first += VECTOR_DEPTH) {
    const depth = min(VECTOR_DEPTH, k - first);
    const keep: f32 = first == 0 ? beta : 1;
    for (let p = 0; p < depth; p++) {
      store<f32>(packed + (<usize> p << 2), load<f32>(x));
      x += stepX;
    }
    let j = 0;
    if (transposeB) { // dot products with the rows of B, four at a time
      for (; j + 4 <= n; j += 4) {
        const r0 = b + <usize> j * rowB + <usize> first * 4;
        const r1 = r0 + rowB;
        const r2 = r1 + rowB;
        const r3 = r2 + rowB;
        let s0 = f32x4.splat(0), s1 = f32x4.splat(0);
        let s2 = f32x4.splat(0), s3 = f32x4.splat(0);
        let p = 0;
        for (; p + 4 <= depth; p += 4) {
          const at = <usize> p << 2;
          const v = v128.load(packed + at);
          s0 = madd(v, v128.load(r0 + at), s0);
          s1 = madd(v, v128.load(r1 + at), s1);
          s2 = madd(v, v128.load(r2 + at), s2);
          s3 = madd(v, v128.load(r3 + at), s3);
        }
        let t0 = sumLanes(s0), t1 = sumLanes(s1);
        let t2 = sumLanes(s2), t3 = sumLanes(s3);
        for (; p < depth; p++) {
          const at = <usize> p << 2;
          const v = load<f32>(packed + at);
          t0 += v * load<f32>(r0 + at);
          t1 += v * load<f32>(r1 + at);
          t2 += v * load<f32>(r2 + at);
          t3 += v * load<f32>(r3 + at);
        }
        const to = y + <usize> j * stepY;
        addTo(to, t0, alpha, keep);
        addTo(to + stepY, t1, alpha, keep);
        addTo(to + 2 * stepY, t2, alpha, keep);
        addTo(to + 3 * stepY, t3, alpha, keep);
      }
      for (; j < n; j++) {
        const row = b + <usize> j * rowB + <usize> first * 4;
        let sum: f32 = 0;
        for (let p = 0; p < depth; p++) {
          const at = <usize> p << 2;
          sum += load<f32>(packed + at) * load<f32>(row + at);
        }
        addTo(y + <usize> j * stepY, sum, alpha, keep);
      }
      continue;
    }
    const rows = b + <usize> first * rowB;
    for (; j + 16 <= n; j += 16) { // sums of the rows of B, sixteen columns at a time
      let s0 = f32x4.splat(0), s1 = f32x4.splat(0);
      let s2 = f32x4.splat(0), s3 = f32x4.splat(0);
      let row = rows + (<usize> j << 2);
      for (let p = 0; p < depth; p++) {
        const v = v128.load32_splat(packed + (<usize> p << 2));
        s0 = madd(v, v128.load(row), s0);
        s1 = madd(v, v128.load(row, 16), s1);
        s2 = madd(v, v128.load(row, 32), s2);
        s3 = madd(v, v128.load(row, 48), s3);
        row += rowB;
      }
      const sums = packed + VECTOR_DEPTH * 4;
      v128.store(sums, s0);
      v128.store(sums, s1, 16);
      v128.store(sums, s2, 32);
      v128.store(sums, s3, 48);
      for (let c = 0; c < 16; c++) {
        const sum = load<f32>(sums + (<usize> c << 2));
        addTo(y + <usize> (j + c) * stepY, sum, alpha, keep);
      }
    }
    for (; j < n; j++) {
      let row = rows + (<usize> j << 2);
      let sum: f32 = 0;
      for (let p = 0; p < depth; p++) {
        sum += load<f32>(packed + (<usize> p << 2)) * load<f32>(row);
        row += rowB;
      }
      addTo(y + <usize> j * stepY, sum, alpha, keep);
    }
  }
}

/** C = beta C. */
function scaleC(m: i32, n: i32, beta: f32, c: usize, ldc: i32): void {
  if (beta == 1) return;
  for (let i = 0; i < m; i++) {
    const row = c + <usize> i * <usize> ldc * 4;
    if (beta == 0) memory.fill(row, 0, <usize> n * 4);
    else {
      for (let j = 0; j < n; j++) {
        const at = row + (<usize> j << 2);
        store<f32>(at, beta * load<f32>(at));
      }
    }
  }
}

/**
 * C[m, n] = alpha op(A)[m, k] op(B)[k, n] + beta C, row-major.
 *
 * op(A) is A [m, lda] or, if transposeA, the transpose of A [k, lda]; the same
 * for B ([k, ldb] or [n, ldb]). Leading dimensions count elements. `scratch`
 * points to `gemmScratchBytes()` bytes. C may not overlap A or B.
 */
export function gemm(
  transposeA: bool,
  transposeB: bool,
  m: i32,
  n: i32,
  k: i32,
  alpha: f32,
  a: usize,
  lda: i32,
  b: usize,
  ldb: i32,
  beta: f32,
  c: usize,
  ldc: i32,
  scratch: usize,
): void {
  if (m <= 0 || n <= 0) return;
  if (k <= 0 || alpha == 0) {
    scaleC(m, n, beta, c, ldc);
    return;
  }
  const tile = (scratch + 63) & ~(<usize> 63);
  if (m == 1) {
    const stepA = transposeA ? lda : 1;
    gemv(transposeB, n, k, alpha, a, stepA, b, ldb, beta, c, 1, tile);
    return;
  }
  if (n == 1) { // c' = b' op(A)'
    const stepB = transposeB ? 1 : ldb;
    gemv(!transposeA, m, k, alpha, b, stepB, a, lda, beta, c, ldc, tile);
    return;
  }
  const packedA = tile + TILE_BYTES;
  const packedB = packedA + A_BYTES;
  for (let p = 0; p < k; p += KC) {
    const depth = min(KC, k - p);
    const blockBeta: f32 = p == 0 ? beta : 1;
    for (let j = 0; j < n; j += NC) {
      const columns = min(NC, n - j);
      const fromB = transposeB
        ? b + (<usize> j * <usize> ldb + <usize> p) * 4
        : b + (<usize> p * <usize> ldb + <usize> j) * 4;
      packB(transposeB, fromB, ldb, depth, columns, packedB);
      for (let i = 0; i < m; i += MC) {
        const rows = min(MC, m - i);
        const fromA = transposeA
          ? a + (<usize> p * <usize> lda + <usize> i) * 4
          : a + (<usize> i * <usize> lda + <usize> p) * 4;
        packA(transposeA, fromA, lda, rows, depth, packedA);
        for (let jr = 0; jr < columns; jr += NR) {
          const stripB = packedB + <usize> (jr * depth * 4);
          const tileColumns = min(NR, columns - jr);
          for (let ir = 0; ir < rows; ir += MR) {
            const stripA = packedA + <usize> (ir * depth * 4);
            const tileRows = min(MR, rows - ir);
            const to = c +
              (<usize> (i + ir) * <usize> ldc + <usize> (j + jr)) * 4;
            microKernel(depth, stripA, stripB, tile);
            addTile(tile, tileRows, tileColumns, to, ldc, alpha, blockBeta);
          }
        }
      }
    }
  }
}

/** `gemm` over `batch` triples; strides count elements, 0 shares an operand. */
export function gemmBatch(
  transposeA: bool,
  transposeB: bool,
  m: i32,
  n: i32,
  k: i32,
  alpha: f32,
  a: usize,
  lda: i32,
  strideA: i32,
  b: usize,
  ldb: i32,
  strideB: i32,
  beta: f32,
  c: usize,
  ldc: i32,
  strideC: i32,
  batch: i32,
  scratch: usize,
): void {
  for (let i = 0; i < batch; i++) {
    gemm(
      transposeA,
      transposeB,
      m,
      n,
      k,
      alpha,
      a + <usize> i * <usize> strideA * 4,
      lda,
      b + <usize> i * <usize> strideB * 4,
      ldb,
      beta,
      c + <usize> i * <usize> strideC * 4,
      ldc,
      scratch,
    );
  }
}
