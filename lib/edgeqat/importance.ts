/**
 * Which tokens are important: those that attend to the first token get 8 bits, the others 4
 * (arXiv 2402.10787 v2, section IV-C and Eq. 14).
 *
 *   beta(x_i) = 8 if attn[i, 0] is among the Int(rho N) largest of attn[:, 0], else 4
 *
 * The ranking over all N tokens looks at tokens that come later, which a model that generates text cannot
 * do; "causal" ranks each token among itself and those before it.
 */
import { type Tensor, tf } from "../core/tensor.ts";

/** How tokens share bits; defaults as in the paper. */
export interface TokenBits {
  /** Bits of the others; default 4. */
  low?: number;
  /** Bits of important tokens; default 8. */
  high?: number;
  /** rho, the part that is important. */
  importantRatio: number;
  /**
   * "softmax" (paper): mean over heads of the attention paid to token 0. "logits" (released code): sum over
   * heads of the scores before softmax and mask. Softmax favours early rows: row 0 always has 1.
   */
  score?: "softmax" | "logits";
  /** "whole" (paper, released code) ranks all tokens of a sequence; default. */
  ranking?: "whole" | "causal";
  /** One choice for each sequence (default, paper), or the batch's mean for all (released code). */
  scope?: "sequence" | "batch";
}

/** Fills in defaults and checks ratio and bits. */
export function resolveTokenBits(
  {
    low = 4,
    high = 8,
    importantRatio,
    score = "softmax",
    ranking = "whole",
    scope = "sequence",
  }: TokenBits,
): Required<TokenBits> {
  if (!(importantRatio >= 0 && importantRatio <= 1)) {
    throw new RangeError(
      `Cannot give tokens bits as importantRatio must be in [0, 1]: ${importantRatio}`,
    );
  }
  if (!(low <= high)) {
    throw new RangeError(
      `Cannot give tokens bits by importance as the important ones must have no fewer: low ${low}, high ${high}`,
    );
  }
  return { low, high, importantRatio, score, ranking, scope };
}

/**
 * Scores of the tokens: how much each attends to the first.
 *
 * @param scores [B, H, T, T], before the softmax
 * @param probabilities [B, H, T, T]
 * @returns [B][T], or one row for all if the scope is the batch
 */
export function tokenScores(
  scores: Tensor,
  probabilities: Tensor,
  { score, scope }: Pick<Required<TokenBits>, "score" | "scope">,
): Float32Array[] {
  const [B, H, T] = scores.shape as [number, number, number, number];
  const column = tf.tidy(() => {
    const x = score === "softmax" ? probabilities : scores;
    const first = x.slice([0, 0, 0, 0], [B, H, T, 1]).reshape([B, H, T]);
    const ofToken = score === "softmax" ? first.mean(1) : first.sum(1); // [B, T]
    return (scope === "batch" ? ofToken.mean(0, true) : ofToken).dataSync();
  }) as Float32Array;
  return Array.from(
    { length: column.length / T },
    (_, b) => column.slice(b * T, (b + 1) * T),
  );
}

/**
 * 1 for important tokens, 0 for the others.
 *
 * whole: the Int(rho N) tokens with the largest scores, earlier ones first among equals.
 * causal: token i, if fewer than rho (i + 1) of the tokens before it score at least as much. The first token
 * is always important (unless rho is 0).
 *
 * @example
 * ```ts
 * const scores = [1, 0.2, 0.6, 0.4];
 * assert.equal([...importantTokens(scores, 0.5)], [1, 0, 1, 0]);
 * assert.equal([...importantTokens(scores, 0.5, "causal")], [1, 0, 1, 0]);
 * ```
 */
export function importantTokens(
  scores: ArrayLike<number>,
  ratio: number,
  ranking: "whole" | "causal" = "whole",
): Uint8Array {
  const N = scores.length;
  const important = new Uint8Array(N);
  if (ranking === "whole") {
    const order = Array.from({ length: N }, (_, i) => i)
      .sort((a, b) => scores[b] - scores[a] || a - b);
    for (const i of order.slice(0, Math.floor(ratio * N))) important[i] = 1;
    return important;
  }
  for (let i = 0; i < N; i++) {
    let above = 0;
    for (let j = 0; j < i; j++) if (scores[j] >= scores[i]) above++;
    if (above < ratio * (i + 1)) important[i] = 1;
  }
  return important;
}
