/**
 * How sources are weighted: the rules of FuseLLM and the plain ones that a learned selection must beat.
 *
 * A rule sees the cross-entropies of one text under the K sources and gives weights that sum to 1.
 */

/** @param losses Mean cross-entropy of a text under each source, nats. */
export type Rule = (losses: readonly number[]) => number[];

/** All sources alike. */
export const uniformWeights: Rule = (losses) =>
  losses.map(() => 1 / losses.length);

/**
 * FuseLLM's MinCE: the source with the smallest cross-entropy alone, the first among equals.
 *
 * @example
 * minCe([2, 1, 3]); // [0, 1, 0]
 */
export const minCe: Rule = (losses) => {
  const best = losses.indexOf(Math.min(...losses));
  return losses.map((_, k) => k === best ? 1 : 0);
};

/** FuseLLM's AvgCE: w = softmax(r), r = exp(-CE) (code of FuseLLM). */
export const avgCe: Rule = (losses) => {
  const weights = losses.map((loss) => Math.exp(Math.exp(-loss)));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / sum);
};

/** Always the same source: distillation from a single teacher. */
export const only = (source: number): Rule => (losses) => {
  if (!(Number.isInteger(source) && source >= 0 && source < losses.length)) {
    throw new RangeError(
      `Cannot distil from one source as its number must be in [0, ${losses.length}): ${source}`,
    );
  }
  return losses.map((_, k) => k === source ? 1 : 0);
};
