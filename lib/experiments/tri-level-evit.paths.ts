/** Times of attention to all keys, under a mask, and on gathered lists: where the third level could pay. */
import { attention } from "../core/nn.ts";
import { fold, key as newKey, normal, permutation } from "../core/rng.ts";
import type { Metrics, RunContext } from "../core/runs.ts";
import { type Scalar, type Tensor, tf, valueAndGrads } from "../core/tensor.ts";
import {
  connectionMask,
  gatheredAttention,
  meanAttention,
} from "../tri-level-evit/mod.ts";

export interface PathConfig {
  /** Tokens of an image, the class token included; 197 are those of 224 x 224. */
  tokens: number[];
  /** Shares of the keys that each query keeps. */
  shares: number[];
  /** Images of a batch times tokens, so that sizes take alike. */
  rows: number;
  heads: number;
  headDim: number;
  repeats: number;
}

/** The least of several rounds (s of the processor): what the machine's other work adds is left out. */
function leastSeconds(
  f: () => void,
  repeats: number,
  clock: () => number,
): number {
  f();
  let least = Infinity;
  for (let i = 0; i < repeats; i++) {
    const start = clock();
    f();
    least = Math.min(least, clock() - start);
  }
  return least;
}

/** Times forward, and forward with backward, per number of tokens and share of keys. */
export function runPaths(
  { tokens, shares, rows, heads: H, headDim: Dh, repeats }: PathConfig,
  context: RunContext,
): Metrics {
  const clock = () => context.cpuSeconds();
  const columns: Record<string, number[]> = { pathTokens: [], pathKeys: [] };
  for (const T of tokens) {
    const B = Math.max(1, Math.round(rows / T));
    const shape = [B, T, H, Dh];
    const [q, k, v] = ["q", "k", "v"].map((name) =>
      tf.variable(tf.tensor(
        normal(fold(newKey(6), `${name} ${T}`), B * T * H * Dh),
        shape,
      ))
    );
    const measure = (name: string, f: () => Tensor) => {
      const forward = leastSeconds(
        () => tf.tidy(() => void f().dataSync()),
        repeats,
        clock,
      );
      const both = leastSeconds(
        () => {
          const { value, grads } = valueAndGrads(
            () => f().sum() as Scalar,
            { q, k, v },
          );
          tf.dispose([value, ...Object.values(grads)]);
        },
        repeats,
        clock,
      );
      context.timing(`${name} forward`, forward);
      context.timing(`${name} both`, both);
    };
    measure(`all ${T}`, () => attention(q, k, v, { causal: false }));
    for (const share of shares) {
      const m = Math.max(1, Math.round(share * T));
      columns.pathTokens.push(T);
      columns.pathKeys.push(m);
      const mask = tf.tensor4d(
        connectionMask(meanAttention(q, k), [B, T], share),
        [B, 1, T, T],
      );
      measure(
        `mask ${T} ${m}`,
        () => attention(q, k, v, { causal: false, mask }),
      );
      mask.dispose();
      const lists = new Int32Array(B * T * m);
      for (let row = 0; row < B * T; row++) {
        const order = permutation(fold(newKey(8), row), T);
        for (let i = 0; i < m; i++) lists[row * m + i] = order[i];
      }
      measure(`list ${T} ${m}`, () => gatheredAttention(q, k, v, lists));
    }
    tf.dispose([q, k, v]);
    context.progress(T / (1 + Math.max(...tokens)));
  }
  return columns;
}
