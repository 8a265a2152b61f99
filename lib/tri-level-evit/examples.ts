/**
 * Example level: train on a part, and now and then swap what is never forgotten for what was set aside.
 *
 * Kong et al., arXiv 2211.10801, and the authors' released code. Forgetting after Toneva et al., "An
 * Empirical Study of Example Forgetting", arXiv:1812.05159; EL2N after Paul et al., "Deep Learning on a
 * Data Diet", arXiv:2107.07075, section 3.
 *
 * Where the released code leaves the order of equals to the sort, here the lower number goes first; where
 * every process drew a part of its own, here all share one.
 */
import { fold, type Key, permutation } from "../core/rng.ts";

/** What training on a data set remembers of each example. */
export interface ForgettingStats {
  /** Times that an example went from right to wrong. */
  forgotten: Uint16Array;
  /** Presentations. */
  seen: Uint16Array;
  /** 1 if it was right at least once. */
  learned: Uint8Array;
  /** 1 if it was right the last time. */
  right: Uint8Array;
}

/** Nothing seen yet, of `count` examples. */
export function noStats(count: number): ForgettingStats {
  return {
    forgotten: new Uint16Array(count),
    seen: new Uint16Array(count),
    learned: new Uint8Array(count),
    right: new Uint8Array(count),
  };
}

/** Notes whether examples were classified right when they were presented. */
export function recordPresentation(
  stats: ForgettingStats,
  examples: ArrayLike<number>,
  right: ArrayLike<boolean | number>,
): void {
  for (let i = 0; i < examples.length; i++) {
    const e = examples[i];
    const now = right[i] ? 1 : 0;
    // f_i = #{t : acc_{t+1} - acc_t = -1}
    if (stats.right[e] === 1 && now === 0) stats.forgotten[e]++;
    stats.right[e] = now;
    if (now === 1) stats.learned[e] = 1;
    stats.seen[e]++;
  }
}

/** Forgetting counts; an example that was never right has as many as its presentations, the most. */
export function forgettingCounts(stats: ForgettingStats): Uint16Array {
  return stats.forgotten.map((f, i) =>
    stats.learned[i] === 1 ? f : Math.max(f, stats.seen[i])
  );
}

/** `examples` by rising score, of equals the lower number first. */
export function rankExamples(
  examples: ArrayLike<number>,
  score: ArrayLike<number>,
): number[] {
  return Array.from(examples).sort((a, b) => score[a] - score[b] || a - b);
}

/** What is trained on, and what is set aside. */
export interface Division {
  active: Uint32Array;
  pool: Uint32Array;
}

/**
 * A random part set aside.
 *
 * @throws {RangeError} unless the share is at least 0 and leaves an example to train on
 */
export function setAside(count: number, share: number, key: Key): Division {
  const aside = Math.round(count * share);
  if (!(share >= 0) || aside >= count) {
    throw new RangeError(
      `Cannot set examples aside as the share must be at least 0 and below 1: ${share} of ${count}`,
    );
  }
  const order = permutation(key, count);
  return {
    active: order.slice(0, count - aside),
    pool: order.slice(count - aside),
  };
}

/**
 * One round: the `swap` examples that are forgotten least leave, as many random ones of the pool return.
 *
 * Both parts keep their sizes, and an example that left may return in a later round.
 *
 * @throws {RangeError} if the pool or the part that is trained on has fewer than `swap`
 */
export function swapExamples(
  { active, pool }: Division,
  score: ArrayLike<number>,
  swap: number,
  key: Key,
): Division {
  if (
    !Number.isInteger(swap) || swap < 0 || swap > pool.length ||
    swap > active.length
  ) {
    throw new RangeError(
      `Cannot swap ${swap} examples as both parts must have as many: ${active.length} are trained on, ${pool.length} set aside`,
    );
  }
  const ranked = rankExamples(active, score);
  const leaving = ranked.slice(0, swap);
  const order = permutation(fold(key, "pool"), pool.length);
  const shuffled = Array.from(order, (i) => pool[i]);
  const gone = new Set(leaving);
  return {
    active: Uint32Array.from([
      ...Array.from(active).filter((e) => !gone.has(e)),
      ...shuffled.slice(0, swap),
    ]),
    pool: Uint32Array.from([...shuffled.slice(swap), ...leaving]),
  };
}

/**
 * EL2N = || p(x) - onehot(y) ||_2: how far the predicted probabilities are from the label.
 *
 * @param probabilities [N, K] one row after the other
 * @param labels [N]
 */
export function el2n(
  probabilities: ArrayLike<number>,
  labels: ArrayLike<number>,
): Float64Array {
  const K = probabilities.length / labels.length;
  return Float64Array.from({ length: labels.length }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < K; k++) {
      const gap = probabilities[i * K + k] - (labels[i] === k ? 1 : 0);
      sum += gap * gap;
    }
    return Math.sqrt(sum);
  });
}
