/** What the Agile-Quant runs say: claims, tables and figures. Reads summaries, computes no runs. */
import type {
  ArmSummary,
  FigureSpec,
  Measurement,
  ResultTable,
} from "../core/runs.ts";
import type { Config } from "./agile-quant.ts";

export function measure(
  _arms: ArmSummary[],
  _config: Config,
): Record<string, Measurement> {
  return {};
}

export function tables(arms: ArmSummary[], _config: Config): ResultTable[] {
  const settings = arms.filter(({ config }) => "setting" in config);
  return [{
    id: "agile-quant-settings",
    title: "All settings",
    columns: ["setting", "perplexity", "float on the same positions"],
    rows: settings.map(({ id, metrics }) => [
      id,
      metrics.perplexity.mean,
      metrics.floatPerplexity.mean,
    ]),
  }];
}

export function figures(_arms: ArmSummary[], _config: Config): FigureSpec[] {
  return [];
}
