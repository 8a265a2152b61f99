/** What the claims, tables and figures of SupeRBNN share: arms by kind, settings with their energy, rivals. */
import type { ArmSummary, MetricSummary } from "../core/runs.ts";
import { ASSUMPTION_SETS } from "../superbnn/energy.ts";
import type { Hardware } from "./superbnn.ts";

/** Projected efficiency and accuracy on MNIST: Sun et al., XNOR-RRAM, DATE 2018, abstract. */
export const RERAM = { topsPerW: 141.18, accuracy: 98.43 };

/** Energy per inference and accuracy on MNIST: SuperSNN, arXiv 2509.05532, abstract; dynamic energy only. */
export const SUPERSNN = { energyJ: 6.55e-15, accuracy: 96.47 };

/** "Similar accuracy": at most this far below, in points. */
export const SIMILAR_POINTS = 1;

/** Set of the paper's own constants, as far as they are remembered. */
export const MAIN_SET = "superbnn";

/** What is trained, in the order of the ablation. */
export const METHODS: Record<string, string> = {
  float: "float (ReLU)",
  bnn: "deterministic BNN, deployed unchanged",
  aware: "randomised-aware",
  matched: "+ thresholds of the tiles in training",
  clamped: "+ weight rectified clamp",
};

/** "1 cycle", "8 cycles". */
export function cyclesName(streamLength: number): string {
  return `${streamLength} ${streamLength === 1 ? "cycle" : "cycles"}`;
}

/** "16 cells, gray zone 4, 8 cycles". */
export function hardwareName(
  { crossbarSize, grayZone, streamLength }: Hardware,
): string {
  return `${crossbarSize} cells, gray zone ${
    Number(grayZone.toPrecision(3))
  }, ${cyclesName(streamLength)}`;
}

/** Arms of one kind with the parts of their ids. */
export function armsOf(
  arms: ArmSummary[],
  kind: string,
): [string[], ArmSummary][] {
  return arms.flatMap((arm) => {
    const [first, ...rest] = arm.id.split("/");
    return first === kind ? [[rest, arm] as [string[], ArmSummary]] : [];
  });
}

export function armOf(arms: ArmSummary[], id: string): ArmSummary | undefined {
  return arms.find((arm) => arm.id === id);
}

/** One way to run a network: what it was trained for, crossbar size, best gray zone and stream length. */
export interface Point {
  data: string;
  model: string;
  method: string;
  crossbarSize: number;
  streamLength: number;
  /** Mean of those that were best on the choosing half of the images; one per seed. */
  grayZone: number;
  /** %, on the judging half, as all that follows. */
  accuracy: MetricSummary;
  /** Of the deterministic network of the same shape with exact sums. */
  ideal: MetricSummary;
  /** accuracy - ideal, paired by seed, in points. */
  gap: MetricSummary;
  /** The same on the choosing half. */
  choosingGap: MetricSummary;
  /** Junctions of the whole network. */
  jj: number;
  /** Of an image at 4.2 K, by set of assumptions. */
  energyJ: Record<string, number>;
  operations: number;
}

/** Every swept network at the best gray zone of each stream length. */
export function points(arms: ArmSummary[]): Point[] {
  return armsOf(arms, "sweep").flatMap((
    [[data, model, method], { metrics, series, config }],
  ) =>
    config.sets === undefined ? [] : (config.streamLengths as number[]).map((
      L,
    ): Point => ({
      data,
      model,
      method,
      crossbarSize: config.crossbarSize as number,
      streamLength: L,
      grayZone: metrics[`bestGrayZoneL${L}`].mean,
      accuracy: metrics[`bestAccuracyL${L}`],
      ideal: metrics.idealAccuracy,
      gap: metrics[`gapL${L}`],
      choosingGap: metrics[`choosingGapL${L}`],
      jj: metrics.jj.mean,
      energyJ: Object.fromEntries(
        setsOf(arms).map((set, i) => [set, series[`energyJL${L}`].mean[i]]),
      ),
      operations: metrics.operations.mean,
    }))
  );
}

/** Within a point of the deterministic network of the same shape, on both halves of the images. */
export function isSimilar({ gap, choosingGap }: Point): boolean {
  return Math.min(gap.mean, choosingGap.mean) >= -SIMILAR_POINTS;
}

/** Operations per joule at 4.2 K, in 10^12. */
export function topsPerW(point: Point, set: string): number {
  return point.operations / point.energyJ[set] * 1e-12;
}

/** Points that no other beats in both accuracy and energy. */
export function frontOf(all: Point[]): Point[] {
  return all.filter((p) =>
    !all.some((q) =>
      q !== p && q.accuracy.mean >= p.accuracy.mean &&
      q.energyJ[MAIN_SET] <= p.energyJ[MAIN_SET]
    )
  ).sort((a, b) => a.energyJ[MAIN_SET] - b.energyJ[MAIN_SET]);
}

/** Whether a network was trained for the hardware. */
export function trainingName({ method }: Pick<Point, "method">): string {
  return method === "bnn" ? "deployed unchanged" : "trained for the hardware";
}

export function describePoint(point: Point): string {
  const { model, accuracy, gap, jj } = point;
  return `${model}, ${trainingName(point)}, ${hardwareName(point)}: ${
    accuracy.mean.toFixed(2)
  } %, ${gap.mean.toFixed(2)} points${
    gap.n > 1 ? ` [${gap.low.toFixed(2)}, ${gap.high.toFixed(2)}]` : ""
  } from the deterministic network, ${Math.round(jj)} JJ`;
}

/** The named sets that a run used. */
export function setsOf(arms: ArmSummary[]): string[] {
  const sets = armsOf(arms, "sweep")[0]?.[1].config.sets;
  return sets as string[] | undefined ?? Object.keys(ASSUMPTION_SETS);
}
