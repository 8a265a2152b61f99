/** What the EdgeQAT runs say: claims, tables and figures. Reads summaries, computes no runs. */
import type {
  ArmSummary,
  FigureSpec,
  Measurement,
  MetricSummary,
  ResultTable,
} from "../core/runs.ts";
import { type Config, type VariantName, VARIANTS } from "./edgeqat.ts";

/** "1.23 ± 0.04", or one number if nothing varies. */
function spread({ mean, low, high, n }: MetricSummary): string | number {
  const half = (high - low) / 2;
  if (n < 2 || !(half > 0)) return Number(mean.toPrecision(5));
  const digits = Math.max(0, 1 - Math.floor(Math.log10(half)));
  return `${mean.toFixed(digits)} ± ${half.toFixed(digits)}`;
}

const labelOf = ({ config }: ArmSummary) =>
  VARIANTS[config.variant as VariantName].label;

export function measure(
  _arms: ArmSummary[],
  _config: Config,
): Record<string, Measurement> {
  return {};
}

export function tables(arms: ArmSummary[], { seeds }: Config): ResultTable[] {
  const runs = arms.filter(({ config }) => "variant" in config);
  return [{
    id: "edgeqat-arms",
    title: "All arms",
    caption:
      `Mean ± half of the 95 % interval over seeds (${seeds} at the headline width).`,
    columns: [
      "arm",
      "variant",
      "minimal pairs (%)",
      "test perplexity",
      "likeness of maps",
      "bits per activation",
      "training (CPU s)",
    ],
    rows: runs.map((arm) => [
      arm.id,
      labelOf(arm),
      spread(arm.metrics.accuracyPercent),
      spread(arm.metrics.testPerplexity),
      spread(arm.metrics.mapLikeness),
      spread(arm.metrics.averageBits),
      arm.timings.trainSeconds === undefined
        ? null
        : Number(arm.timings.trainSeconds.mean.toPrecision(3)),
    ]),
  }];
}

export function figures(_arms: ArmSummary[], _config: Config): FigureSpec[] {
  return [];
}
