/** What the Agile-Quant runs say: claims, tables and figures. Reads summaries, computes no runs. */
import {
  bitsPerWeight,
  GROUP_SIZE,
  linearNames,
} from "../agile-quant/weights.ts";
import { barFigure, lineFigure, scatterFigure } from "../core/figure.ts";
import { type LlamaConfig, parameterShapes } from "../core/llama.ts";
import { key } from "../core/rng.ts";
import type {
  ArmSummary,
  FigureSpec,
  Measurement,
  MetricSummary,
  ResultTable,
} from "../core/runs.ts";
import { bootstrapInterval, pairedDifference } from "../core/stats.ts";
import type { Row } from "../core/table.ts";
import type { Config, Setting } from "./agile-quant.ts";
import { speedTable, timeRatio } from "./speed.ts";

/** "1.23 ± 0.04", or one number if nothing varies. */
function spread({ mean, low, high, n }: MetricSummary): string | number {
  const half = (high - low) / 2;
  if (n < 2 || !(half > 0)) return Number(mean.toPrecision(5));
  const digits = Math.max(0, 1 - Math.floor(Math.log10(half)));
  return `${mean.toFixed(digits)} ± ${half.toFixed(digits)}`;
}

/** Value with its 95 % interval as a table cell. */
function cell({ mean, low, high, n }: MetricSummary) {
  return { mean, halfWidth: n > 1 ? (high - low) / 2 : 0, n };
}

const measuredArms = (arms: ArmSummary[]) =>
  arms.filter(({ config }) => "setting" in config);

const settingOf = ({ config }: ArmSummary) =>
  config.setting as unknown as Setting;

// Claims --------------------------------------------------------------------------------------------

/** Loss of an arm: by seed, and by window over all seeds. */
type Losses = { bySeed: number[]; byWindow: number[] };

function lossesOf(arm: ArmSummary, name = "loss"): Losses {
  return {
    bySeed: arm.metrics[name].values,
    byWindow: arm.series[`${name}ByWindow`].mean,
  };
}

/**
 * Perplexity of `theirs` over that of `ours`, exp of the difference of losses: above 1 if ours predicts better.
 *
 * Two things vary: calibration (paired by seed, Student t) and which text is predicted (paired by window,
 * bootstrap). The interval is the wider of the two on each side. What does not depend on a seed counts for all.
 */
function perplexityRatio(
  theirs: Losses,
  ours: Losses,
  note: string,
): Measurement {
  const n = Math.max(theirs.bySeed.length, ours.bySeed.length);
  const at = ({ bySeed }: Losses) =>
    Array.from({ length: n }, (_, s) => bySeed[s % bySeed.length]);
  const seeds = pairedDifference(at(theirs), at(ours));
  const windows = bootstrapInterval(
    theirs.byWindow.map((loss, w) => loss - ours.byWindow[w]),
    key(0),
  );
  const low = Math.min(n > 1 ? seeds.low : seeds.value, windows.low);
  const high = Math.max(n > 1 ? seeds.high : seeds.value, windows.high);
  return {
    value: Math.exp(seeds.value),
    low: Math.exp(low),
    high: Math.exp(high),
    n,
    unit: "x",
    note: `${note}; ${n} seeds, ${ours.byWindow.length} windows`,
  };
}

const perplexity = (arm: ArmSummary, name = "perplexity") =>
  arm.metrics[name].mean.toFixed(2);

/** Shape of LLaMA-7B. Source: H. Touvron et al., arXiv 2302.13971, Table 2, and its checkpoint; standing: recalled. */
const LLAMA_7B: LlamaConfig = {
  vocabSize: 32000,
  hiddenSize: 4096,
  intermediateSize: 11008,
  numLayers: 32,
  numHeads: 32,
  numKvHeads: 32,
  tieWordEmbeddings: false,
  maxPositions: 2048,
};

/**
 * Bytes of a model in FP16 over those with 4-bit matrices: groups of 128, a 16-bit scale and a 4-bit zero point
 * each; embedding, head and norms in FP16.
 */
export function sizeRatio(config: LlamaConfig): number {
  const matrices = new Set(
    linearNames(config.numLayers).map((name) => `${name}.weight`),
  );
  let float = 0;
  let quantised = 0;
  for (const [name, shape] of Object.entries(parameterShapes(config))) {
    const size = shape.reduce((a, b) => a * b, 1);
    float += 16 * size;
    quantised += size *
      (matrices.has(name) ? bitsPerWeight(4, GROUP_SIZE) : 16);
  }
  return float / quantised;
}

/** Arms of pruning alone, by length. */
function lengthArms(arms: ArmSummary[]): ArmSummary[] {
  return measuredArms(arms).filter(({ id }) => id.startsWith("pruned/T"))
    .sort((a, b) => settingOf(a).length - settingOf(b).length);
}

export function measure(
  arms: ArmSummary[],
  _config: Config,
): Record<string, Measurement> {
  const find = (id: string) => arms.find((arm) => arm.id === id);
  const measured: Record<string, Measurement> = {};
  const put = (
    claim: string,
    ids: string[],
    how: (...found: ArmSummary[]) => Measurement,
  ) => {
    const found = ids.map(find);
    if (found.every((arm) => arm !== undefined)) {
      measured[claim] = how(...found);
    }
  };
  put(
    "agile-quant-gptq-rtn",
    ["w4a16/rtn", "w4a16/gptq"],
    (rtn, gptq) =>
      perplexityRatio(
        lossesOf(rtn),
        lossesOf(gptq),
        `RTN ${perplexity(rtn)}, GPTQ ${perplexity(gptq)}`,
      ),
  );
  put(
    "agile-quant-w4a8-gptq",
    ["w4a8/trip", "w4a16/gptq"],
    (ours, gptq) =>
      perplexityRatio(
        lossesOf(ours),
        lossesOf(gptq),
        `W4A8 ${perplexity(ours)}, GPTQ W4A16 ${perplexity(gptq)}`,
      ),
  );
  put("agile-quant-pruning", ["w4a8/trip-pruned"], (pruned) =>
    perplexityRatio(
      lossesOf(pruned, "denseLoss"),
      lossesOf(pruned),
      `same positions: all tokens ${
        perplexity(pruned, "densePerplexity")
      }, pruned ${perplexity(pruned)}`,
    ));
  put(
    "agile-quant-pruned-float",
    ["w4a8/trip-pruned"],
    (pruned) =>
      perplexityRatio(
        lossesOf(pruned, "floatLoss"),
        lossesOf(pruned),
        `same positions: float ${
          perplexity(pruned, "floatPerplexity")
        }, pruned ${perplexity(pruned)}; float on all positions ${
          perplexity(pruned, "floatPerplexityAll")
        }`,
      ),
  );
  put(
    "agile-quant-a4-a8",
    ["w4a4-sites/trip-pruned", "w4a8/trip-pruned"],
    (four, eight) =>
      perplexityRatio(
        lossesOf(four),
        lossesOf(eight),
        `-4 ${perplexity(four)}, -8 ${perplexity(eight)}, each on what it kept`,
      ),
  );
  const lengths = lengthArms(arms);
  if (lengths.length > 1) {
    const points = lengths.map((arm) => {
      const { value, low, high } = perplexityRatio(
        lossesOf(arm, "floatLoss"),
        lossesOf(arm),
        "",
      );
      return { x: settingOf(arm).length, value, low, high };
    });
    const last = points.at(-1)!;
    measured["agile-quant-length"] = {
      ...last,
      n: 1,
      unit: "x",
      note: `pruning alone at ${points.map(({ x }) => x).join(", ")} tokens`,
      points,
    };
  }
  put(
    "agile-quant-speed",
    ["speed"],
    (speed) => timeRatio(speed, "float", "w4a4", "prefill"),
  );
  put(
    "agile-quant-int8",
    ["speed"],
    (speed) => timeRatio(speed, "float", "w8a8", "prefill"),
  );
  put(
    "agile-quant-int4-int8",
    ["speed"],
    (speed) => timeRatio(speed, "w8a8", "w4a4", "prefill"),
  );
  const value = sizeRatio(LLAMA_7B);
  measured["agile-quant-size"] = {
    value,
    low: value,
    high: value,
    n: 1,
    unit: "x",
    note:
      "counted from the shapes: 4-bit codes, a 16-bit scale and a 4-bit zero point per group of 128; embedding, head and norms in FP16",
  };
  return measured;
}

// Tables --------------------------------------------------------------------------------------------

export function tables(arms: ArmSummary[], config: Config): ResultTable[] {
  const settings = measuredArms(arms);
  const pruned = settings.filter((arm) => settingOf(arm).pruning !== null);
  const speed = arms.find(({ id }) => id === "speed");
  const inspect = arms.find(({ id }) => id === "inspect");
  const result: ResultTable[] = [{
    id: "agile-quant-settings",
    title: "All settings",
    caption:
      `Perplexity on held-out text (model "${config.model}", ${config.length} tokens unless the name says otherwise); of pruned runs on the positions that are left, with the float model on the same positions beside it. Mean ± half of the 95 % interval over ${config.seeds} calibration texts. "channel" has a step per channel, which one integer product cannot run: an upper bound.`,
    columns: [
      "setting",
      "perplexity",
      "float, same positions",
      "loss (nats/token)",
      "predicted tokens",
    ],
    rows: settings.map(({ id, metrics }) => [
      id,
      spread(metrics.perplexity),
      spread(metrics.floatPerplexity),
      spread(metrics.loss),
      metrics.keptTokens.mean,
    ]),
  }, {
    id: "agile-quant-pruned",
    title: "What pruning does, and what counting does",
    caption:
      "The released code averages the pruned model over the positions that it kept and the full model over all. A difference between the last two columns is one of text, not of models: the same float model on both sets.",
    columns: [
      "setting",
      "share of tokens removed (Eq. 10)",
      "pruned",
      "same bits, not pruned, same positions",
      "float, same positions",
      "float, all positions",
    ],
    rows: pruned.map(({ id, metrics }) => [
      id,
      metrics.sparsity.mean,
      spread(metrics.perplexity),
      spread(metrics.densePerplexity),
      spread(metrics.floatPerplexity),
      spread(metrics.floatPerplexityAll),
    ]),
  }];
  if (inspect !== undefined) {
    const factors = (name: string) => {
      const counts = new Map<number, number>();
      for (const k of inspect.series[`${name}.trip.alpha`].mean) {
        counts.set(k, (counts.get(k) ?? 0) + 1);
      }
      return [...counts].sort(([a], [b]) => a - b)
        .map(([k, n]) => `${n} of 2^${k}`).join(", ");
    };
    const prefix = "natural.maxOverMedian.";
    const sites = Object.keys(inspect.metrics)
      .filter((name) => name.startsWith(prefix))
      .map((name) => name.slice(prefix.length));
    result.push({
      id: "agile-quant-outliers",
      title: "Outliers of a model, and those put in",
      caption:
        `Range of a site's widest channel over that of its median one. The outlier model is the same function, with some channels of each norm made larger by a power of two and the weights behind as much smaller. TRIP's factors at the input of the first feed-forward layer, 8 bits: ${
          factors("natural")
        } channels in the natural model, ${
          factors("outliers")
        } in the one with outliers.`,
      columns: ["site", "natural", "with outliers"],
      rows: sites.map((site) => [
        site.replace("model.layers.", ""),
        inspect.metrics[`${prefix}${site}`].mean,
        inspect.metrics[`outliers.maxOverMedian.${site}`].mean,
      ]),
    });
  }
  if (speed !== undefined) {
    result.push(speedTable(speed, {
      id: "agile-quant-speed",
      caption:
        `CPU time on the machine of this run, one core, WebAssembly: reading ${config.speed.tokens} tokens, and writing one. Quantising the inputs is counted; 4-bit codes lie in bytes, which is faster here and saves nothing. Steps are per token here, so TRIP's factors are not in these times. The float engine has the same tiling; a native float library is faster than all of them (see the benchmark).`,
    }));
  }
  return result;
}

// Figures -------------------------------------------------------------------------------------------

/** Mean bits of an activation over the sites of a setting; 16 where nothing is quantised. */
function activationBits({ activations }: Setting): number {
  if (activations === null) return 16;
  const { bits } = activations;
  if (typeof bits === "number") return bits;
  const sites = ["norm", "q", "k", "v", "attention", "mlp", "product"] as const;
  return sites.reduce((sum, site) => sum + (bits[site] ?? 8), 0) /
    sites.length;
}

/** Speed over the float engine and what the same engine's whole numbers cost, for prefill and decode. */
function pareto(arms: ArmSummary[]): FigureSpec | null {
  const speed = arms.find(({ id }) => id === "speed");
  const lossOf = (engine: string) => speed?.metrics[`${engine}.loss`]?.mean;
  const float = lossOf("float");
  // Records from before the engines were evaluated have no figure: no setting is what an engine computes.
  if (speed === undefined || float === undefined) return null;
  const phases = ["prefill", "decode"] as const;
  const rows = phases.flatMap((phase) =>
    ["w8a8", "w4a8", "w4a4"].map((width): Row => ({
      speed: timeRatio(speed, "float", width, phase).value,
      ratio: Math.exp(lossOf(width)! - float),
      engine: `${width.toUpperCase()}, ${phase}`,
    }))
  );
  return scatterFigure([{ speed: 1, ratio: 1, engine: "float32" }, ...rows], {
    id: "agile-quant-pareto",
    title: "Quality against measured speed",
    caption:
      "Right and down is better. Speed of the whole model in our engine over its float32 self, CPU time on one core; perplexity of held-out text over the float model's, both of the engine that is timed: weights rounded to nearest with one step an output, inputs with a step a token, softmax in float32, so without GPTQ, TRIP and log2. Phases of a width share a perplexity.",
    x: "speed",
    y: "ratio",
    series: "engine",
    xAxis: { title: "speed / float32 of the same engine" },
    yAxis: { title: "perplexity / float" },
  });
}

export function figures(arms: ArmSummary[], config: Config): FigureSpec[] {
  const settings = measuredArms(arms);
  const result: FigureSpec[] = [];
  const four = settings.filter((arm) => {
    const { weights, outlier, smooth } = settingOf(arm);
    return weights.bits === 4 && outlier === null && !smooth;
  });
  if (four.length > 0) {
    result.push(scatterFigure(
      four.map((arm): Row => {
        const { activations, pruning, weights } = settingOf(arm);
        return {
          bits: activationBits(settingOf(arm)),
          ratio: Math.exp(
            arm.metrics.loss.mean - arm.metrics.floatLoss.mean,
          ),
          method: `${weights.method.toUpperCase()}, ${
            activations?.scheme ?? "float"
          }${pruning === null ? "" : ", pruned"}`,
        };
      }),
      {
        id: "agile-quant-bits",
        title: "Bits of activations against quality, 4-bit weights",
        caption:
          "Perplexity over that of the float model on the same positions; 1 is no loss. Bits are the mean over the sites of a block; 16 stands for activations as they are.",
        x: "bits",
        y: "ratio",
        series: "method",
        xAxis: { title: "bits per activation" },
        yAxis: { title: "perplexity / float", scale: "log" },
      },
    ));
  }
  const front = pareto(arms);
  if (front !== null) result.push(front);
  const outliers = settings.filter((arm) =>
    /^(outliers\/)?w8a8\/(plain|smooth|layer|trip)$/.test(arm.id)
  );
  if (outliers.some((arm) => settingOf(arm).outlier !== null)) {
    result.push(barFigure(
      outliers.map((arm): Row => ({
        setting: arm.id.replace("outliers/", "").replace("w8a8/", ""),
        perplexity: cell(arm.metrics.perplexity),
        model: settingOf(arm).outlier === null ? "natural" : "with outliers",
      })),
      {
        id: "agile-quant-outliers",
        title: "W8A8 on the same function, without and with outliers",
        caption:
          `Held-out perplexity; the float model has the same in both. 95 % intervals over ${config.seeds} calibration texts.`,
        x: "setting",
        y: "perplexity",
        series: "model",
        yAxis: { title: "perplexity", scale: "log" },
      },
    ));
  }
  const inspect = arms.find(({ id }) => id === "inspect");
  if (inspect !== undefined) {
    const schemes = [["layer", "one step"], ["trip", "TRIP"]] as const;
    const ordered = schemes.flatMap(([scheme, label]) =>
      [...inspect.series[`outliers.${scheme}.codesInUse`].mean]
        .sort((a, b) => b - a)
        .map((codes, channel): Row => ({ channel, codes, scheme: label }))
    );
    result.push(
      lineFigure(ordered, {
        id: "agile-quant-channels",
        title: "How many steps a channel's range spans, before and after TRIP",
        caption:
          "Input of the first feed-forward layer of the outlier model, 8 bits; channels from the widest to the narrowest. Under one step the outliers take all codes, and what is left for the others is what the model forgets.",
        x: "channel",
        y: "codes",
        series: "scheme",
        xAxis: { title: "channel, by width" },
        yAxis: { title: "range / step", scale: "log" },
        marks: { "one step": "line", TRIP: "line" },
      }),
      lineFigure(
        schemes.flatMap(([scheme, label]) =>
          inspect.series[`outliers.${scheme}.shares`].mean.flatMap(
            (share, code): Row[] =>
              share === 0 ? [] : [{ code, share: 100 * share, scheme: label }],
          )
        ),
        {
          id: "agile-quant-codes",
          title: "Histogram of codes, before and after TRIP",
          caption:
            "The same site: share of all numbers at each 8-bit code (signed ones moved up by 128). Codes that nothing uses are left out.",
          x: "code",
          y: "share",
          series: "scheme",
          xAxis: { title: "code" },
          yAxis: { title: "share of numbers", unit: "%", scale: "log" },
          marks: { "one step": "line", TRIP: "line" },
        },
      ),
    );
  }
  const lengths = lengthArms(arms);
  if (lengths.length > 0) {
    result.push(lineFigure(
      lengths.flatMap(({ series, ...arm }) => {
        const { length } = arm.config.setting as unknown as Setting;
        const kept = series.keptByPosition.mean;
        const bins = 16;
        const width = kept.length / bins;
        return Array.from({ length: bins }, (_, i): Row => {
          const own = kept.slice(i * width, (i + 1) * width);
          return {
            place: (i + 0.5) / bins,
            kept: 100 * own.reduce((a, b) => a + b, 0) / own.length,
            tokens: `${length} tokens`,
          };
        });
      }),
      {
        id: "agile-quant-kept",
        title: "Which tokens are left at the end",
        caption:
          "Share of tokens that survive all pruned layers, by their place in the window; float model. Scores fall with the place, as a later token divides its attention among more.",
        x: "place",
        y: "kept",
        series: "tokens",
        xAxis: { title: "place in the window (0 to 1)" },
        yAxis: { title: "tokens kept", unit: "%" },
      },
    ));
  }
  return result;
}
