/** The methods and pools of sources that the fusion experiment compares. */
import {
  ASSUMPTIONS,
  avgCe,
  type GateOptions,
  type Level,
  minCe,
  only,
  type Selection,
  uniformWeights,
} from "../fusion/mod.ts";

const gate = (options: GateOptions = {}, level?: Level): Selection => ({
  kind: "gate",
  gate: options,
  level,
});

/** Thresholds of the sweep, the paper's 0.15 among them. */
export const TAUS = [0, 0.05, 0.1, 0.15, 0.2, 0.3] as const;

/** Every way to weight the sources. */
export const METHODS: Record<string, { label: string; selection: Selection }> =
  {
    clm: { label: "CLM (no sources)", selection: { kind: "none" } },
    uniform: {
      label: "uniform",
      selection: { kind: "rule", rule: uniformWeights },
    },
    avgce: { label: "FuseLLM AvgCE", selection: { kind: "rule", rule: avgCe } },
    mince: { label: "FuseLLM MinCE", selection: { kind: "rule", rule: minCe } },
    "mince-token": {
      label: "MinCE at each token",
      selection: { kind: "rule", rule: minCe, level: "token" },
    },
    single: {
      label: "single teacher",
      selection: { kind: "rule", rule: only(0) },
    },
    gate: { label: "Fusion-X", selection: gate() },
    "gate-token": {
      label: "Fusion-X at each token",
      selection: gate({}, "token"),
    },
    "gate-raw": {
      label: "Fusion-X, raw features, masked",
      selection: gate({ features: "invppl", dropped: "masked" }),
    },
    "gate-dist": {
      label: "Fusion-X, features of distributions",
      selection: gate({ features: "distributions" }),
    },
    "gate-feedback0": {
      label: "Fusion-X, no feedback",
      selection: gate({ feedback: 0 }),
    },
    "gate-feedback0.05": {
      label: "Fusion-X, feedback 0.05",
      selection: gate({ feedback: 0.05 }),
    },
    "gate-top1": {
      label: "Fusion-X, best source alone",
      selection: gate({ tau: 1 }), // no score is above 1, so the best alone is kept
    },
    "gate-gold": {
      label: "gate trained on true tokens",
      selection: gate({ objective: "gold", feedback: 0.05 }),
    },
    "gate-gold-token": {
      label: "gate trained on true tokens, at each token",
      selection: gate({ objective: "gold", feedback: 0.05 }, "token"),
    },
    random: {
      label: "random gate, as released",
      selection: { kind: "random", tau: ASSUMPTIONS.tau.value },
    },
    ...Object.fromEntries(
      TAUS.map((tau) => [`gate-tau${tau}`, {
        label: `Fusion-X, tau ${tau}`,
        selection: gate({ tau }),
      }]),
    ),
  };

/** Sources that no pool should trust, and what they are. */
export const DOUBTFUL = {
  weak: "an eighth of the base's training",
  redundant: "another expert of the first domain",
  shuffled: "the base continued on tokens in random order",
  noise: "weights as they were drawn",
} as const;

/** An expert whose tokens are not the target's. */
export const FOREIGN = "other-tokenizer";

/**
 * Pools of sources by name: "all" (base and every expert), "grown-K" (base, then the first four experts,
 * then a weak, a redundant and a corrupted source; K = 2 to 8), "polluted" (all and every doubtful one),
 * "foreign" (grown-5 with its last expert replaced by one with a tokenizer of its own).
 *
 * @example
 * sourcesOf("grown-3", ["a", "b", "c", "d", "e"]); // ["base", "a", "b"]
 */
export function sourcesOf(pool: string, domains: readonly string[]): string[] {
  const all = ["base", ...domains];
  if (pool === "all") return all;
  if (pool === "polluted") return [...all, ...Object.keys(DOUBTFUL)];
  const experts = domains.slice(0, 4);
  if (pool === "foreign") return ["base", ...experts.slice(0, -1), FOREIGN];
  const order = ["base", ...experts, "weak", "redundant", "shuffled"];
  const size = Number(/^grown-(\d+)$/.exec(pool)?.[1]);
  if (!(size >= 2 && size <= order.length)) {
    throw new RangeError(
      `Cannot make a pool as it must be all, polluted, foreign or grown-2 to grown-${order.length}: ${pool}`,
    );
  }
  return order.slice(0, size);
}

/** Names of all sources of an experiment. */
export function allSources(domains: readonly string[]): string[] {
  return [...sourcesOf("polluted", domains), FOREIGN];
}
