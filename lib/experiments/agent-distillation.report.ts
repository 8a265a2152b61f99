/** What the runs of structured agent distillation say: claims, tables and figures. Computes no runs. */
import { key } from "../core/rng.ts";
import {
  type ArmSummary,
  type FigureSpec,
  findArm,
  type Measurement,
  type ResultTable,
} from "../core/runs.ts";
import { bootstrapInterval, mean, pairedDifference } from "../core/stats.ts";
import type { Config, Method, World } from "./agent-distillation.ts";

const student = (
  arms: ArmSummary[],
  world: World,
  method: Method,
  width: number,
) => findArm(arms, `${world}/${method}/d${width}`);

/** Pairs of arms that differ in the method alone. */
type Pair = [ArmSummary, ArmSummary];

/**
 * Mean difference in success over pairs of arms.
 *
 * Training varies (paired by seed, Student t) and so does which episodes are played (paired by
 * episode, bootstrap); the interval is the wider of the two on each side.
 */
function successGain(pairs: Pair[]): Omit<Measurement, "note"> {
  const perSeed = (side: 0 | 1) => {
    const values = pairs.map((pair) =>
      pair[side].metrics.successPercent.values
    );
    return values[0].map((_, s) => mean(values.map((own) => own[s])));
  };
  const overSeeds = pairedDifference(perSeed(0), perSeed(1));
  const perEpisode = pairs[0][0].series.success.mean.map((_, e) =>
    100 *
    mean(pairs.map(([a, b]) =>
      a.series.success.mean[e] - b.series.success.mean[e]
    ))
  );
  const overEpisodes = bootstrapInterval(perEpisode, key(0));
  return {
    value: overSeeds.value,
    low: Math.min(overSeeds.low, overEpisodes.low, overSeeds.value),
    high: Math.max(overSeeds.high, overEpisodes.high, overSeeds.value),
    n: overSeeds.n,
    unit: "points",
  };
}

function pairsOf(
  arms: ArmSummary[],
  { worlds, student: { hiddenSize } }: Config,
  a: Method,
  b: Method,
): Pair[] {
  return worlds.map((world) => [
    student(arms, world, a, hiddenSize),
    student(arms, world, b, hiddenSize),
  ]);
}

export function measure(
  arms: ArmSummary[],
  config: Config,
): Record<string, Measurement> {
  const pairs = pairsOf(arms, config, "sad", "flat");
  return {
    "sad-token-level": {
      ...successGain(pairs),
      note: `width ${config.student.hiddenSize}, mean over ${
        config.worlds.join(", ")
      }, ${config.evaluation.episodes} unseen episodes each; interval over seeds and over episodes, the wider of the two`,
    },
  };
}

export function tables(_arms: ArmSummary[], _config: Config): ResultTable[] {
  return [];
}

export function figures(_arms: ArmSummary[], _config: Config): FigureSpec[] {
  return [];
}
