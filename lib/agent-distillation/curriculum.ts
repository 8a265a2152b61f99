/**
 * Order of training: from simple transcripts to complex ones.
 *
 * That the paper (arXiv 2505.13820) has a curriculum by trajectory complexity was read in public reviews; its formula was not
 * available. What stands here is our stand-in, see `ASSUMED_CURRICULUM`.
 */
import { mean } from "../core/stats.ts";
import { type Tensor, tf } from "../core/tensor.ts";
import type { Agent } from "./agent.ts";
import { batchOf, logitsAt } from "./distill.ts";
import type { Window } from "./transcript.ts";

/** Our own complexity and pace. Standing: assumed. */
export const ASSUMED_CURRICULUM = {
  standing: "assumed",
  source:
    "arXiv 2505.13820 has a curriculum by complexity (read: public reviews); its formula was not available",
  /** Weights of the length of reasoning, the length of action, and the teacher's entropy. */
  weights: { reasoning: 1, action: 1, entropy: 1 },
  /** Share of the transcripts, the simplest first, that the first step draws from. */
  startShare: 0.3,
  /** Share of training after which all are drawn from. */
  fullAt: 0.5,
} as const;

/** What complexity is made of, per transcript. */
export interface Load {
  /** |tau^(r)| and |tau^(a)|: tokens of reasoning and of action. */
  reasoning: number;
  action: number;
  /** mean_t H(p_T(. | x_<t)) over the agent's tokens, in nats. */
  entropy: number;
}

/** Mean entropy of the rows' distributions, in nats. */
function entropies(logits: Tensor): Float32Array {
  return tf.tidy(() => {
    const logP = tf.logSoftmax(logits);
    return logP.exp().mul(logP).sum(1).neg().dataSync() as Float32Array;
  });
}

/** Load of each transcript whose windows these are, by its number. */
export function loads(
  teacher: Agent,
  windows: readonly Window[],
  batch = 32,
): Load[] {
  const sums: Load[] = [];
  for (let start = 0; start < windows.length; start += batch) {
    const chosen = windows.slice(start, start + batch);
    const { ids, rows } = batchOf(chosen);
    const H = tf.tidy(() => entropies(logitsAt(teacher, ids, rows)));
    ids.dispose();
    let at = 0;
    for (const { episode, labels, from } of chosen) {
      const load = sums[episode] ??= { reasoning: 0, action: 0, entropy: 0 };
      for (const label of labels.slice(Math.max(1, from))) {
        if (label === "neither") continue;
        load[label === "reason" ? "reasoning" : "action"]++;
        load.entropy += H[at++];
      }
    }
  }
  return sums.map(({ reasoning, action, entropy }) => ({
    reasoning,
    action,
    entropy: entropy / Math.max(1, reasoning + action),
  }));
}

/**
 * Complexity of each transcript (assumed form):
 *
 *   C = a |tau^(r)| / mean |tau^(r)| + b |tau^(a)| / mean |tau^(a)| + c mean_t H / log V
 */
export function complexity(
  of: readonly Load[],
  vocabSize: number,
  weights: typeof ASSUMED_CURRICULUM.weights = ASSUMED_CURRICULUM.weights,
): number[] {
  const mr = mean(of.map(({ reasoning }) => reasoning)) || 1;
  const ma = mean(of.map(({ action }) => action)) || 1;
  return of.map(({ reasoning, action, entropy }) =>
    weights.reasoning * reasoning / mr + weights.action * action / ma +
    weights.entropy * entropy / Math.log(vocabSize)
  );
}

/** Share of the transcripts that is open at progress u in [0, 1]: min(1, q0 + (1 - q0) u / u_full). */
export function openShare(
  u: number,
  { startShare, fullAt }: { startShare: number; fullAt: number } =
    ASSUMED_CURRICULUM,
): number {
  return Math.min(1, startShare + (1 - startShare) * u / fullAt);
}

/**
 * Windows that each step may draw from, from the simplest transcripts on, or from the hardest.
 *
 * @param complexities By number of the transcript.
 */
export function curriculum(
  windows: readonly Window[],
  complexities: readonly number[],
  { steps, order = "simple first" }: {
    steps: number;
    order?: "simple first" | "complex first";
  },
): (step: number) => readonly Window[] {
  const episodes = windows.reduce((n, w) => Math.max(n, w.episode + 1), 0);
  if (complexities.length < episodes) {
    throw new RangeError(
      `Cannot order the transcripts as there must be a complexity for each: ${complexities.length} complexities, windows of ${episodes} transcripts`,
    );
  }
  const sign = order === "simple first" ? 1 : -1;
  const ranks = complexities.map((_, i) => i)
    .sort((a, b) => sign * (complexities[a] - complexities[b]) || a - b);
  const place = new Map(ranks.map((episode, i) => [episode, i]));
  const sorted = windows
    .map((window) => ({ window, place: place.get(window.episode)! }))
    .sort((a, b) => a.place - b.place);
  const only = sorted.map(({ window }) => window);
  return (step) => {
    const open = Math.ceil(openShare(step / steps) * ranks.length);
    const end = sorted.findIndex(({ place }) => place >= open);
    return end < 0 ? only : only.slice(0, end);
  };
}
