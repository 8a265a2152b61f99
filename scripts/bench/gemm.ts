/** Matrix products alone, as `tf.matMul` gives them on the chosen backend. */
import { backendInfo, ready, tf } from "../../lib/core/tensor.ts";
import { median, now } from "./measure.ts";

/** op(A) [m, k] times op(B) [k, n]. */
export interface Product {
  name: string;
  m: number;
  n: number;
  k: number;
  transposeA: boolean;
  transposeB: boolean;
}

export interface GemmTask {
  products: Product[];
  /** Each product is repeated for at least so long, three times. */
  milliseconds: number;
}

/** What a process answers; gemm.py answers the same. */
export interface GemmResult {
  /** Median of the repetitions, 1e9 floating-point operations per second. */
  gflops: number[];
  /** One number of each result, to see that all computed the same. */
  checks: number[];
  engine: string;
}

const REPETITIONS = 3;

/** Times every product of the task. */
export async function timeGemm(task: GemmTask): Promise<GemmResult> {
  await ready();
  const results = task.products.map((product) => time(product, task));
  const { engine, kernels, blas, runtime } = backendInfo();
  return {
    gflops: results.map(({ gflops }) => gflops),
    checks: results.map(({ check }) => check),
    engine: [engine, `kernels ${kernels}`, blas, runtime].filter(Boolean).join(
      ", ",
    ),
  };
}

function time(
  { m, n, k, transposeA, transposeB }: Product,
  { milliseconds }: GemmTask,
) {
  const a = tf.tensor2d(pattern(m * k), transposeA ? [k, m] : [m, k]);
  const b = tf.tensor2d(pattern(k * n), transposeB ? [n, k] : [k, n]);
  const multiply = () => tf.matMul(a, b, transposeA, transposeB).dispose();
  const c = tf.matMul(a, b, transposeA, transposeB);
  const check = c.dataSync()[m * n - 1];
  c.dispose();
  const rates = Array.from({ length: REPETITIONS }, () => {
    const start = now();
    let spent = 0;
    let runs = 0;
    while (spent < milliseconds) {
      multiply();
      runs++;
      spent = now() - start;
    }
    return 2 * m * n * k * runs / spent / 1e6;
  });
  tf.dispose([a, b]);
  return { gflops: median(rates), check };
}

/** Small numbers that gemm.py makes too: their products are exact in float32. */
function pattern(n: number): Float32Array {
  return Float32Array.from({ length: n }, (_, i) => (i * 7) % 11 - 5);
}
