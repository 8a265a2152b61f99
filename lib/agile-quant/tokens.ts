/**
 * Which tokens matter (Agile-Quant, "activation-aware token pruning"): scores from attention, how many go at
 * which layer, and how sparse that makes the model.
 *
 *     score_i = sum_h attn[h, i, 0]            attention to the start token, after log2 quantisation
 *     gamma   = 1 - (1 - beta)^(1 / m)         Eq. 9: share that each of m layers removes, beta in the end
 *     s       = sum_i (N - r_i) / (n N)        Eq. 10: r_i tokens left at layer i of n
 *
 * Tokens go for good, between attention and feed-forward layer; those left are renumbered from 0. A second list
 * of shares names the tokens whose later activations get fewer bits; a token once chosen stays chosen.
 *
 * Scores of all tokens are compared, so what becomes of a token depends on those behind it: the ranking is not
 * causal, in the paper as here.
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | attn | probabilities | [H, T, T] |
 * | beta | finalRatio | number |
 * | r_i | counts | [layers] |
 *
 * Scope: prefill; with a single token nothing is removed. Eqs. 9 and 10 as reconstructed from prose and code.
 */
import { type Key, uniform } from "../core/rng.ts";

/**
 * How tokens are scored: attention they pay to the first token; attention they receive, per query that sees
 * them (the code's "conventional" flag); at random, which is our control.
 */
export type Importance = "first-token" | "received" | "random";

function checkRatio(what: string, ratio: number): void {
  if (!(ratio >= 0 && ratio < 1)) {
    throw new RangeError(
      `Cannot prune as ${what} must be from 0 and below 1: ${ratio}`,
    );
  }
}

/** gamma = 1 - (1 - beta)^(1 / m) (Eq. 9). */
export function pruneRatioPerLayer(finalRatio: number, layers: number): number {
  checkRatio("the final ratio", finalRatio);
  if (!Number.isInteger(layers) || layers < 1) {
    throw new RangeError(
      `Cannot prune as there must be one or more pruned layers: ${layers}`,
    );
  }
  return 1 - (1 - finalRatio) ** (1 / layers);
}

/**
 * Share of its tokens that each layer removes.
 *
 * @param pruned Numbers of the layers, from 0.
 * @example
 * ```ts
 * // The comment of the released configuration: 0.9 over the last 3 of 12 layers.
 * const ratios = pruneSchedule(12, { layers: [9, 10, 11], finalRatio: 0.9 });
 * assert.equal(ratios.map((r) => Number(r.toFixed(4))).slice(8), [0, 0.5358, 0.5358, 0.5358]);
 * ```
 */
export function pruneSchedule(
  numLayers: number,
  { layers: pruned, finalRatio }: { layers: number[]; finalRatio: number },
): number[] {
  for (const layer of pruned) {
    if (!Number.isInteger(layer) || layer < 0 || layer >= numLayers) {
      throw new RangeError(
        `Cannot prune as layers must be from 0 to ${numLayers - 1}: ${layer}`,
      );
    }
  }
  const gamma = finalRatio === 0 && pruned.length === 0
    ? 0
    : pruneRatioPerLayer(finalRatio, pruned.length);
  return Array.from(
    { length: numLayers },
    (_, i) => pruned.includes(i) ? gamma : 0,
  );
}

/** r_i, tokens behind each layer: int(r gamma) of them go (released code). */
export function tokenCounts(tokens: number, ratios: number[]): number[] {
  let left = tokens;
  return ratios.map((ratio) => {
    checkRatio("the ratio of a layer", ratio);
    if (left > 1) left -= Math.floor(left * ratio);
    return left;
  });
}

/** s = sum_i (N - r_i) / (n N) (Eq. 10). */
export function tokenSparsity(tokens: number, ratios: number[]): number {
  const removed = tokenCounts(tokens, ratios).map((left) => tokens - left);
  return removed.reduce((a, b) => a + b, 0) / (ratios.length * tokens);
}

/**
 * Scores of one sequence's tokens; high is important.
 *
 * first-token: sum_h attn[h, i, 0]
 * received:    sum_h sum_t attn[h, t, i] / (T - i)
 *
 * @param probabilities [H, T, T], query by key, 0 where a query does not see
 * @param key for "random"
 */
export function tokenScores(
  probabilities: Float32Array,
  T: number,
  importance: Importance,
  key: Key,
): Float64Array {
  if (importance === "random") return Float64Array.from(uniform(key, T));
  const H = probabilities.length / (T * T);
  const scores = new Float64Array(T);
  for (let h = 0; h < H; h++) {
    for (let t = 0; t < T; t++) {
      const row = (h * T + t) * T;
      if (importance === "first-token") scores[t] += probabilities[row];
      else for (let i = 0; i <= t; i++) scores[i] += probabilities[row + i];
    }
  }
  if (importance === "received") {
    for (let i = 0; i < T; i++) scores[i] /= T - i;
  }
  return scores;
}

/** Tokens of one sequence, as its layer divides them. */
export interface Division {
  /** Places of the tokens that stay, in their order. */
  kept: number[];
  /** Places of those among them that get few bits from here on, counted before any token is removed. */
  low: number[];
}

/**
 * The lowest scores go, the next lowest get few bits.
 *
 * Of equal scores, which are common after log2, the later token is taken first (the released code leaves the
 * choice to its sort). Tokens of `inherited` keep their few bits.
 *
 * @param remove share to remove
 * @param low share to give few bits; together at most 1
 */
export function divideTokens(
  scores: Float64Array,
  { remove, low, inherited = [] }: {
    remove: number;
    low: number;
    inherited?: number[];
  },
): Division {
  checkRatio("the ratio of a layer", remove);
  if (!(low >= 0 && remove + low <= 1)) {
    throw new RangeError(
      `Cannot divide tokens as both shares together must be from 0 to 1: ${remove} removed, ${low} in few bits`,
    );
  }
  const T = scores.length;
  const all = Array.from(scores, (_, i) => i);
  if (T === 1) return { kept: all, low: [] };
  const order = [...all].sort((a, b) => scores[a] - scores[b] || b - a);
  const removeCount = Math.floor(T * remove);
  const lowCount = Math.floor(T * low);
  const removed = new Set(order.slice(0, removeCount));
  const few = new Set(order.slice(removeCount, removeCount + lowCount));
  for (const i of inherited) few.add(i);
  return {
    kept: all.filter((i) => !removed.has(i)),
    low: all.filter((i) => few.has(i) && !removed.has(i)),
  };
}
