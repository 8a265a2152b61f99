/**
 * The matrix product against a float64 oracle: with the system's BLAS (where there is one) and
 * without, in Node (SIMD128 build) and Deno (relaxed build).
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { memory, ready, type Tensor, tf } from "../lib/core/tensor.ts";
import {
  address,
  gemm,
  heap,
  kernels,
  output,
  sgemm,
  sgemmBatch,
} from "../lib/core/kernels/bindings.ts";

/** Unit roundoff of float32. */
const UNIT = 2 ** -24;
/** Sizes around the register tile (6 x 8), the vector (4) and powers of two. */
const EDGE_SIZES = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 129];
/** Sizes around the packed blocks (120 rows, 1024 columns, depth 256), and long thin ones. */
const BLOCK_SIZES = [
  [119, 8, 255],
  [120, 9, 256],
  [121, 17, 257],
  [241, 33, 513],
  [7, 1023, 5],
  [5, 1024, 9],
  [9, 1025, 300],
  [513, 129, 33],
  [4096, 3, 2],
  [3, 4096, 17],
  [2, 3, 4096],
  [1, 4096, 65],
  [4096, 1, 65],
  [1, 1, 4096],
];
/** Set in the processes that this file starts. */
const CHILD = "ADIABAT_TEST_CHILD";
/** What surrounds the matrices: it must be neither read nor written. */
const GUARD = 7;

/** A small generator of our own, so that this test depends on nothing (Marsaglia's xorshift32). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
const random = generator(20260101);
const pick = <T>(from: T[]): T => from[Math.floor(random() * from.length)];

interface Case {
  transposeA: boolean;
  transposeB: boolean;
  m: number;
  n: number;
  k: number;
  alpha: number;
  beta: number;
  /** Extra elements in each row of A, B and C. */
  padding: [number, number, number];
}

interface Matrix {
  values: Float32Array;
  ld: number;
}

/** [rows, columns] of random values in rows of `columns + padding`; the padding is NaN. */
function matrix(rows: number, columns: number, padding: number): Matrix {
  const ld = columns + padding;
  const values = new Float32Array(rows * ld).fill(NaN);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) values[i * ld + j] = random() * 2 - 1;
  }
  return { values, ld };
}

/** Runs one case through `multiply` and compares every element of C, and all around it. */
function check(
  { transposeA, transposeB, m, n, k, alpha, beta, padding }: Case,
  multiply = sgemm,
): void {
  const a = transposeA ? matrix(k, m, padding[0]) : matrix(m, k, padding[0]);
  const b = transposeB ? matrix(n, k, padding[1]) : matrix(k, n, padding[1]);
  const c = matrix(m, n, padding[2]);
  // With beta 0, C holds anything, NaN included.
  const before = beta === 0 ? c.values.map(() => NaN) : c.values;
  const guarded = new Float32Array(before.length + 2 * GUARD).fill(NaN);
  guarded.set(before, GUARD);
  const [ta, tb, tc] = [a.values, b.values, guarded].map((v) => tf.tensor1d(v));
  multiply(
    transposeA,
    transposeB,
    m,
    n,
    k,
    alpha,
    address(ta),
    a.ld,
    address(tb),
    b.ld,
    beta,
    address(tc) + 4 * GUARD,
    c.ld,
  );
  const got = tc.dataSync();
  tf.dispose([ta, tb, tc]);
  const name = JSON.stringify({ transposeA, transposeB, m, n, k, alpha, beta });
  for (let at = 0; at < got.length; at++) {
    const i = Math.floor((at - GUARD) / c.ld);
    const j = at - GUARD - i * c.ld;
    const inside = i >= 0 && i < m && j < n;
    if (inside) continue;
    assert.ok(Number.isNaN(got[at]), `${name}: wrote outside C at ${i}, ${j}`);
  }
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      let magnitude = 0;
      for (let p = 0; p < k; p++) {
        const term = a.values[transposeA ? p * a.ld + i : i * a.ld + p] *
          b.values[transposeB ? j * b.ld + p : p * b.ld + j];
        sum += term;
        magnitude += Math.abs(term);
      }
      const old = beta === 0 ? 0 : beta * c.values[i * c.ld + j];
      const want = alpha * sum + old;
      // Higham, "Accuracy and Stability of Numerical Algorithms", eq. (3.13): any order of
      // summation errs by at most k u sum |a b|; three more roundings for alpha, beta and the sum.
      const bound = (k + 3) * UNIT *
        (Math.abs(alpha) * magnitude + Math.abs(old));
      const error = Math.abs(got[GUARD + i * c.ld + j] - want);
      if (!(error <= bound)) {
        throw new Error(
          `${name}: C[${i}, ${j}] is ${
            got[GUARD + i * c.ld + j]
          }, must be ${want} within ${bound}`,
        );
      }
    }
  }
}

const TRANSPOSITIONS = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
];

test.before(async () => {
  process.env.ADIABAT_BACKEND = "wasm";
  await ready();
});

test("3x4 by 4x2 gives NumPy's numbers", () => {
  // python3 -c "import numpy as np; f = np.float32; g = np.float64
  // a = np.sin(np.arange(12, dtype=f)).reshape(3, 4).astype(g)
  // b = np.cos(np.arange(8, dtype=f)).reshape(4, 2).astype(g)
  // print(0.5 * (a @ b) - 2 * np.arange(6).reshape(3, 2))"
  const golden = [
    -0.40451635,
    -2.23436302,
    -3.77214603,
    -5.52176509,
    -7.89335426,
    -10.39082738,
  ];
  const a = tf.tensor1d(Array.from({ length: 12 }, (_, i) => Math.sin(i)));
  const b = tf.tensor1d(Array.from({ length: 8 }, (_, i) => Math.cos(i)));
  const c = tf.tensor1d([0, 1, 2, 3, 4, 5]);
  gemm({
    m: 3,
    n: 2,
    k: 4,
    alpha: 0.5,
    beta: -2,
    a: address(a),
    lda: 4,
    b: address(b),
    ldb: 2,
    c: address(c),
    ldc: 2,
  });
  const got = c.dataSync();
  golden.forEach((value, i) => {
    assert.ok(Math.abs(got[i] - value) <= 16 * UNIT * Math.abs(value) + UNIT);
  });
  tf.dispose([a, b, c]);
});

test("all transpositions at the edge sizes", () => {
  for (const m of EDGE_SIZES) {
    for (let repeat = 0; repeat < 6; repeat++) {
      for (const [transposeA, transposeB] of TRANSPOSITIONS) {
        check({
          transposeA,
          transposeB,
          m,
          n: pick(EDGE_SIZES),
          k: pick(EDGE_SIZES),
          alpha: 1,
          beta: 0,
          padding: [0, 0, 0],
        });
      }
    }
  }
});

test("all transpositions at the borders of the packed blocks", () => {
  for (const [m, n, k] of BLOCK_SIZES) {
    for (const [transposeA, transposeB] of TRANSPOSITIONS) {
      check({
        transposeA,
        transposeB,
        m,
        n,
        k,
        alpha: 1,
        beta: 1,
        padding: [0, 0, 0],
      });
    }
  }
});

test("leading dimensions, alpha and beta at random", () => {
  for (let repeat = 0; repeat < 300; repeat++) {
    const [transposeA, transposeB] = pick(TRANSPOSITIONS);
    check({
      transposeA,
      transposeB,
      m: 1 + Math.floor(random() * 40),
      n: 1 + Math.floor(random() * 40),
      k: 1 + Math.floor(random() * 40),
      alpha: pick([1, -1, 0.5, 2.5]),
      beta: pick([0, 1, -0.5]),
      padding: [
        Math.floor(random() * 9),
        Math.floor(random() * 9),
        Math.floor(random() * 9),
      ],
    });
  }
});

test("our own kernel, called directly", () => {
  const own: typeof sgemm = (tA, tB, ...rest) => {
    const k = kernels()!;
    const scratch = tf.zeros([Math.ceil(k.gemmScratchBytes() / 4)]);
    k.gemm(tA ? 1 : 0, tB ? 1 : 0, ...rest, address(scratch));
    scratch.dispose();
  };
  for (let repeat = 0; repeat < 60; repeat++) {
    const [transposeA, transposeB] = pick(TRANSPOSITIONS);
    check({
      transposeA,
      transposeB,
      m: pick(EDGE_SIZES),
      n: pick(EDGE_SIZES),
      k: pick(EDGE_SIZES),
      alpha: pick([1, 0.5]),
      beta: pick([0, 1, 0.5]),
      padding: [pick([0, 3]), pick([0, 3]), pick([0, 3])],
    }, own);
  }
});

test("the oracle notices a wrong element (negative control)", () => {
  const wrong: typeof sgemm = (...values) => {
    sgemm(...values);
    heap()[values[11] / 4] += 1e-3;
  };
  assert.throws(
    () =>
      check({
        transposeA: false,
        transposeB: false,
        m: 5,
        n: 6,
        k: 7,
        alpha: 1,
        beta: 0,
        padding: [0, 0, 0],
      }, wrong),
    /C\[0, 0\] is .* must be/,
  );
});

test("depth 0, alpha 0: C is only scaled; nothing of A and B is read", () => {
  for (const [k, alpha] of [[0, 1], [3, 0]]) {
    const a = tf.fill([6], NaN);
    const b = tf.fill([6], NaN);
    const c = tf.tensor1d([1, 2, 3, 4]);
    const run = (beta: number) =>
      sgemm(
        false,
        false,
        2,
        2,
        k,
        alpha,
        address(a),
        3,
        address(b),
        2,
        beta,
        address(c),
        2,
      );
    run(0.5);
    assert.equal([...c.dataSync()], [0.5, 1, 1.5, 2]);
    run(0);
    assert.equal([...c.dataSync()], [0, 0, 0, 0]);
    tf.dispose([a, b, c]);
  }
});

test("NaN and infinity go to their row and column, and nowhere else", () => {
  for (const size of [3, 9, 33]) {
    const values = new Float32Array(size * size).fill(1);
    values[size + 2] = NaN; // A[1, 2]
    const other = new Float32Array(size * size).fill(1);
    other[2 * size] = Infinity; // B[2, 0]
    other[0] = 0; // B[0, 0]
    const [a, b] = [values, other].map((v) => tf.tensor2d(v, [size, size]));
    const c = tf.matMul(a, b);
    const got = c.dataSync();
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) {
        const want = i === 1 ? NaN : j === 0 ? Infinity : size;
        assert.ok(Object.is(got[i * size + j], want), `${size}: ${i}, ${j}`);
      }
    }
    tf.dispose([a, b, c]);
  }
  const [zero, infinite] = [tf.zeros([2, 2]), tf.fill([2, 2], Infinity)];
  const product = tf.matMul(zero as tf.Tensor2D, infinite as tf.Tensor2D);
  assert.ok(product.dataSync().every(Number.isNaN), "0 times infinity");
  tf.dispose([zero, infinite, product]);
});

test("batches: heads of [B, T, H, Dh] are multiplied in place", () => {
  // scores[h] = q[:, h, :] k[:, h, :]^T for H heads side by side in a row.
  const [T, H, Dh] = [9, 3, 5];
  const q = matrix(T, H * Dh, 0).values;
  const k = matrix(T, H * Dh, 0).values;
  const [tq, tk] = [tf.tensor1d(q), tf.tensor1d(k)];
  const scores = output([H, T, T]);
  sgemmBatch(
    false,
    true,
    T,
    T,
    Dh,
    1,
    address(tq),
    H * Dh,
    Dh,
    address(tk),
    H * Dh,
    Dh,
    0,
    address(scores),
    T,
    T * T,
    H,
  );
  const got = scores.dataSync();
  for (let h = 0; h < H; h++) {
    for (let i = 0; i < T; i++) {
      for (let j = 0; j < T; j++) {
        let want = 0;
        for (let d = 0; d < Dh; d++) {
          want += q[(i * H + h) * Dh + d] * k[(j * H + h) * Dh + d];
        }
        // Values below 1: Dh + 3 roundings of sums below Dh.
        const bound = (Dh + 3) * Dh * UNIT;
        assert.ok(Math.abs(got[(h * T + i) * T + j] - want) <= bound);
      }
    }
  }
  tf.dispose([tq, tk, scores]);
});

test("the memory may grow between two products", () => {
  const a = tf.tensor2d(matrix(33, 40, 0).values, [33, 40]);
  const b = tf.tensor2d(matrix(40, 35, 0).values, [40, 35]);
  const first = tf.matMul(a, b);
  const want = first.dataSync();
  const bytesBefore = heap().byteLength;
  const large = tf.zeros([bytesBefore / 2]); // twice the memory
  assert.ok(heap().byteLength > bytesBefore, "the memory grew");
  const second = tf.matMul(a, b);
  assert.equal(second.dataSync(), want);
  tf.dispose([a, b, first, large, second]);
});

/** Naive product of [..., m, k] and [..., k, n] with broadcast batches, by plain tfjs operations. */
function slowMatMul(a: Tensor, b: Tensor, tA: boolean, tB: boolean): Tensor {
  const swap = (x: Tensor) =>
    tf.transpose(x, [
      ...x.shape.slice(0, -2).keys(),
      x.rank - 1,
      x.rank - 2,
    ]);
  return tf.tidy(() => {
    const left = tA ? swap(a) : a;
    const right = tB ? swap(b) : b;
    return tf.sum(
      tf.mul(tf.expandDims(left, -1), tf.expandDims(right, -3)),
      -2,
    );
  });
}

/** Largest difference of two tensors relative to the largest value. */
function difference(x: Tensor, y: Tensor): number {
  assert.equal(x.shape, y.shape);
  const [a, b] = [x.dataSync(), y.dataSync()];
  let [largest, scale] = [0, 1e-30];
  for (let i = 0; i < a.length; i++) {
    largest = Math.max(largest, Math.abs(a[i] - b[i]));
    scale = Math.max(scale, Math.abs(b[i]));
  }
  assert.ok(!Number.isNaN(largest) && a.every(Number.isFinite));
  return largest / scale;
}
/** Two float32 sums of fewer than 100 terms each, in another order. */
const MATMUL_TOLERANCE = 100 * UNIT;

test("tf.matMul: shapes, broadcasting and transposition", () => {
  const cases: [number[], number[]][] = [
    [[4, 5], [5, 6]],
    [[2, 3, 4, 5], [2, 3, 5, 6]],
    [[3, 4, 5], [1, 5, 6]],
    [[1, 4, 5], [3, 5, 6]],
    [[2, 1, 4, 5], [1, 3, 5, 6]],
    [[2, 3, 4, 5], [5, 6]],
    [[4, 5], [2, 3, 5, 6]],
    [[7, 1, 90], [7, 90, 1]],
  ];
  const swap = (s: number[]) => [...s.slice(0, -2), s.at(-1)!, s.at(-2)!];
  for (const [sA, sB] of cases) {
    for (const [tA, tB] of TRANSPOSITIONS) {
      tf.tidy(() => {
        const a = tf.randomUniform(tA ? swap(sA) : sA, -1, 1, "float32", 1);
        const b = tf.randomUniform(tB ? swap(sB) : sB, -1, 1, "float32", 2);
        const got = tf.matMul(a, b, tA, tB);
        const error = difference(got, slowMatMul(a, b, tA, tB));
        assert.ok(
          error <= MATMUL_TOLERANCE,
          `[${sA}] [${sB}] ${tA} ${tB}: ${error}`,
        );
      });
    }
  }
  assert.throws(
    () => tf.matMul(tf.zeros([2, 3]), tf.zeros([4, 2])),
    /inner/i,
  );
});

test("tf.matMul: gradients for every transposition", () => {
  const swap = (s: number[]) => [...s.slice(0, -2), s.at(-1)!, s.at(-2)!];
  for (const [tA, tB] of TRANSPOSITIONS) {
    const before = memory().tensors;
    tf.tidy(() => {
      const [sA, sB] = [[3, 9, 17], [3, 17, 10]];
      const a = tf.randomUniform(tA ? swap(sA) : sA, -1, 1, "float32", 3);
      const b = tf.randomUniform(tB ? swap(sB) : sB, -1, 1, "float32", 4);
      const weight = tf.randomUniform([3, 9, 10], -1, 1, "float32", 5);
      const gradients = (product: typeof slowMatMul) =>
        tf.grads((x: Tensor, y: Tensor) =>
          tf.sum(tf.mul(product(x, y, tA, tB), weight))
        )([a, b]);
      const fast = gradients((x, y) => tf.matMul(x, y, tA, tB));
      const slow = gradients(slowMatMul);
      fast.forEach((g, i) =>
        assert.ok(difference(g, slow[i]) <= MATMUL_TOLERANCE, `${tA} ${tB}`)
      );
    });
    assert.is(memory().tensors, before);
  }
});

test("tf.fused.matMul: bias and activation", () => {
  tf.tidy(() => {
    const a = tf.randomUniform([5, 7], -1, 1, "float32", 6) as tf.Tensor2D;
    const b = tf.randomUniform([9, 7], -1, 1, "float32", 7) as tf.Tensor2D;
    const bias = tf.randomUniform([9], -1, 1, "float32", 8);
    const want = tf.relu(tf.add(slowMatMul(a, b, false, true), bias));
    const got = tf.fused.matMul({
      a,
      b,
      transposeB: true,
      bias,
      activation: "relu",
    });
    assert.ok(difference(got, want) <= MATMUL_TOLERANCE);
  });
});

test("nothing leaks over 1,000 products", () => {
  const a = tf.ones([8, 8]) as tf.Tensor2D;
  const bias = tf.ones([8]);
  const step = () =>
    tf.tidy(() => {
      tf.matMul(a, a, true, false);
      tf.fused.matMul({ a, b: a, bias, activation: "relu" });
    });
  step();
  const before = memory();
  const bytes = heap().byteLength;
  for (let i = 0; i < 1000; i++) step();
  assert.equal(memory(), before);
  assert.is(heap().byteLength, bytes);
  tf.dispose([a, bias]);
});

test("tf.unsortedSegmentSum and the gradient of tf.gather", () => {
  tf.tidy(() => {
    const x = tf.tensor2d([1, 2, 3, 4, 5, 6, 7, 8], [4, 2]);
    const ids = tf.tensor1d([2, 0, 2, -1], "int32");
    const sums = tf.unsortedSegmentSum(x, ids, 3);
    assert.equal([...sums.dataSync()], [3, 4, 0, 0, 6, 8]);
    const table = tf.zeros([3, 2]);
    const gradient = tf.grad((t: Tensor) =>
      tf.sum(tf.mul(tf.gather(t, tf.tensor1d([1, 1, 0, 2], "int32")), x))
    )(table);
    assert.equal([...gradient.dataSync()], [5, 6, 4, 6, 7, 8]);
  });
});

/** Runs this file again in another runtime or without the BLAS; these runs start no others. */
function runAgain(command: string[], env: Record<string, string>): void {
  const [program, ...rest] = command;
  const { status, stdout, stderr } = spawnSync(
    program,
    [...rest, fileURLToPath(import.meta.url)],
    { env: { ...process.env, ...env, [CHILD]: "1" }, encoding: "utf8" },
  );
  assert.is(status, 0, stdout + stderr);
}

if (process.env[CHILD] === undefined) {
  const deno = fileURLToPath(
    new URL("../node_modules/deno/bin.cjs", import.meta.url),
  );

  test("the same tests pass in Node without the BLAS", () => {
    runAgain([process.execPath, "--import", "tsx"], { ADIABAT_BLAS: "off" });
  });

  test("the same tests pass in Deno", () => {
    runAgain([process.execPath, deno, "run", "-A"], {});
  });

  test("the same tests pass in Deno without the BLAS", () => {
    runAgain([process.execPath, deno, "run", "-A"], { ADIABAT_BLAS: "off" });
  });
}

test.run();
