/**
 * Token level: at a few depths, the patches that the class token attends to least are dropped.
 *
 * Kong et al., "Peeling the Onion", AAAI 2023, arXiv 2211.10801, and the authors' released code; the fused
 * token after Liang et al., "Not All Patches are What You Need" (EViT), arXiv:2202.07800, section 3.
 *
 *   B images   T tokens, the class token first   H heads   Dh width of a head   D width of a token
 */
import { attentionMap } from "../core/attention-map.ts";
import { embedding, matmul } from "../core/nn.ts";
import { type Tensor, tf } from "../core/tensor.ts";
import type { TokenCounts } from "../core/vit.ts";

/** Where tokens leave, and how many stay. */
export interface TokenPlan {
  /** Share of the patches that stay at each of these depths, in (0, 1]. */
  keep: number;
  /** Blocks, from 0, between whose halves tokens leave. */
  blocks: number[];
  /** Replace those that leave by one token, their sum weighted by attention (EViT); default false. */
  fuse?: boolean;
}

/** A quarter, half and three quarters of the depth: 3, 6, 9 of 12 blocks, as in EViT and here. */
export function dropBlocks(numLayers: number): number[] {
  return [...new Set([1, 2, 3].map((i) => Math.floor(i * numLayers / 4)))];
}

/** @throws {RangeError} unless the share that stays is above 0 and at most 1. */
export function checkShare(what: string, share: number): void {
  if (!(share > 0 && share <= 1)) {
    throw new RangeError(
      `Cannot prune ${what} as the share that stays must be above 0 and at most 1: ${share}`,
    );
  }
}

/** K = ceil(kappa N): patches that stay of N. */
export function keptCount(patches: number, keep: number): number {
  checkShare("tokens", keep);
  // 0.7 * 10 is 7.000000000000001: a product within rounding of a whole number is that number.
  return Math.ceil(patches * keep - 1e-9);
}

/**
 * Share that stays at a time of training: all at first, then down a half cosine to the base.
 *
 *     1 before start;  base + (1 - base) (1 + cos(pi (t - start) / (end - start))) / 2;  base from end on
 *
 * @param time Epochs since the start, with fractions
 * @param base The final share
 * @param start Default 10 of 300 epochs, end 110 of 300 (the released code)
 */
export function keepAt(
  time: number,
  base: number,
  { start, end }: { start: number; end: number },
): number {
  checkShare("tokens", base);
  if (time < start) return 1;
  if (time >= end) return base;
  return base +
    (1 - base) * (1 + Math.cos(Math.PI * (time - start) / (end - start))) / 2;
}

/**
 * a_j = (1 / H) sum_h A^h[class, j]: what the class token looks at.
 *
 * @param q [B, T, H, Dh]
 * @param k [B, T, H, Dh]
 * @returns [B, T - 1]; a row sums to 1 less the class token's attention to itself
 */
export function classAttention(q: Tensor, k: Tensor): Tensor {
  const [B, T, H, Dh] = q.shape;
  const query = q.slice([0, 0, 0, 0], [-1, 1, -1, -1])
    .reshape([B * H, 1, Dh]);
  const keys = k.transpose([0, 2, 1, 3]).reshape([B * H, T, Dh]);
  const scores = matmul(query, keys, { transposeB: true })
    .div(Math.sqrt(Dh)); // [B H, 1, T]
  return tf.softmax(scores.reshape([B, H, T])).mean(1)
    .slice([0, 1], [-1, -1]); // [B, T - 1]
}

/**
 * The same as plain numbers, without a gradient: all that dropping tokens needs.
 *
 * @param q [B, T, H, Dh]
 * @param k [B, T, H, Dh]
 * @returns [B, T - 1] one row after the other
 */
export function classAttentionValues(q: Tensor, k: Tensor): Float32Array {
  const [B, T] = q.shape as [number, number, number, number];
  const map = attentionMap(q, k, { queries: 1 }); // [B, 1, T]
  const out = new Float32Array(B * (T - 1));
  for (let b = 0; b < B; b++) {
    out.set(map.subarray(b * T + 1, (b + 1) * T), b * (T - 1));
  }
  return out;
}

/** Puts the `count`-th largest of a list at its place, larger ones before it (Hoare's selection). */
function select(values: Float64Array, count: number): number {
  let low = 0;
  let high = values.length - 1;
  const at = count - 1;
  while (low < high) {
    const pivot = values[(low + high) >> 1];
    let i = low;
    let j = high;
    while (i <= j) {
      while (values[i] > pivot) i++;
      while (values[j] < pivot) j--;
      if (i <= j) {
        const swap = values[i];
        values[i++] = values[j];
        values[j--] = swap;
      }
    }
    if (at <= j) high = j;
    else if (at >= i) low = i;
    else break;
  }
  return values[at];
}

/**
 * The `count` most important of each row, in their old order; of equals the first.
 *
 * @param importance [B, N]
 * @returns int32 numbers, [B, count] one row after the other
 * @throws {RangeError} if an importance is not a number
 */
export function mostImportant(
  importance: ArrayLike<number>,
  [B, N]: [number, number],
  count: number,
): Int32Array {
  const out = new Int32Array(B * count);
  const values = new Float64Array(N);
  for (let b = 0, to = 0; b < B; b++) {
    const row = b * N;
    for (let j = 0; j < N; j++) {
      const value = importance[row + j];
      if (value !== value) {
        throw new RangeError(
          `Cannot choose tokens as their attention must be numbers: NaN for token ${j} of image ${b}; training has diverged, lower the learning rate or clip gradients`,
        );
      }
      values[j] = value;
    }
    if (count === N) {
      for (let j = 0; j < N; j++) out[to++] = j;
      continue;
    }
    const least = select(values, count);
    let equals = 0;
    for (let j = 0; j < count; j++) if (values[j] === least) equals++;
    for (let j = 0; j < N; j++) {
      const value = importance[row + j];
      if (value > least || (value === least && equals-- > 0)) out[to++] = j;
    }
  }
  return out;
}

/** Tokens that stay. */
export interface Kept {
  /** [B, 1 + K, D], or [B, 2 + K, D] with the fused token last. */
  x: Tensor;
  /** int32 [B, K]: which patches of x stayed. */
  places: Int32Array;
}

/**
 * The class token and the K most important others, gathered, so that what follows is really shorter.
 *
 * @param x [B, T, D]
 * @param importance [B, T - 1]; as a tensor where the fused token's gradient is to reach it
 * @param keep Share of the T - 1 that stays
 */
export function keepTokens(
  x: Tensor,
  importance: Tensor | Float32Array,
  keep: number,
  { fuse = false }: { fuse?: boolean } = {},
): Kept {
  const [B, T, D] = x.shape as [number, number, number];
  const N = T - 1;
  const K = keptCount(N, keep);
  if (K === N) {
    const places = Int32Array.from({ length: B * N }, (_, i) => i % N);
    return { x, places };
  }
  const numbers = importance instanceof Float32Array
    ? importance
    : importance.dataSync();
  const places = mostImportant(numbers, [B, N], K);
  const rows = new Int32Array(B * (K + 1));
  const left = new Float32Array(B * N).fill(1);
  for (let b = 0; b < B; b++) {
    rows[b * (K + 1)] = b * T;
    for (let i = 0; i < K; i++) {
      const j = places[b * K + i];
      rows[b * (K + 1) + 1 + i] = b * T + 1 + j;
      left[b * N + j] = 0;
    }
  }
  const kept = embedding(tf.tensor1d(rows, "int32"), x.reshape([B * T, D]))
    .reshape([B, K + 1, D]);
  if (!fuse) return { x: kept, places };
  // x_fused = sum over dropped j of a_j x_j                                       EViT, section 3.2
  const attention = importance instanceof Float32Array
    ? tf.tensor2d(importance, [B, N])
    : importance;
  const weights = attention.mul(tf.tensor2d(left, [B, N])); // [B, N]
  const patches = x.slice([0, 1, 0], [-1, -1, -1]); // [B, N, D]
  const fused = matmul(weights.reshape([B, 1, N]), patches); // [B, 1, D]
  return { x: tf.concat([kept, fused], 1), places };
}

/**
 * Tokens in each half of each block under a plan: what `countVitMacs` counts.
 *
 * @param numPatches N of a whole image
 */
export function tokenCounts(
  numPatches: number,
  numLayers: number,
  { keep, blocks, fuse = false }: TokenPlan,
): TokenCounts {
  const counts: TokenCounts = { attention: [], mlp: [] };
  let T = numPatches + 1;
  for (let i = 0; i < numLayers; i++) {
    counts.attention.push(T);
    if (blocks.includes(i)) {
      const K = keptCount(T - 1, keep);
      T = 1 + K + (fuse && K < T - 1 ? 1 : 0);
    }
    counts.mlp.push(T);
  }
  return counts;
}
