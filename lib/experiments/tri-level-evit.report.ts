/** What the Tri-Level E-ViT runs say: claims, tables and figures. Reads summaries, computes no runs. */
import { barFigure, scatterFigure } from "../core/figure.ts";
import type {
  ArmSummary,
  FigureSpec,
  Measurement,
  MetricSummary,
  ResultTable,
} from "../core/runs.ts";
import { type Estimate, mean, pairedDifference } from "../core/stats.ts";
import { countVitMacs, deit } from "../core/vit.ts";
import { dropBlocks, tokenCounts } from "../tri-level-evit/tokens.ts";

const FASHION = "fashion-mnist";

function armOf(arms: ArmSummary[], id: string): ArmSummary {
  const arm = arms.find((a) => a.id === id);
  if (arm === undefined) {
    throw new RangeError(
      `Cannot measure as there is no run of "${id}": runs are of ${
        arms.map((a) => a.id).join(", ")
      }`,
    );
  }
  return arm;
}

type Values = (arm: ArmSummary) => number[];

/** Values of two arms for the seeds that both have. */
function paired(
  a: ArmSummary,
  b: ArmSummary,
  values: Values,
): [number[], number[]] {
  const both = a.seeds.filter((seed) => b.seeds.includes(seed));
  const of = (arm: ArmSummary) =>
    both.map((seed) => values(arm)[arm.seeds.indexOf(seed)]);
  return [of(a), of(b)];
}

/** 100 ours / dense, mean over the seeds that both have. */
function shareOfDense(
  dense: ArmSummary,
  ours: ArmSummary,
  values: Values,
): number {
  const [all, own] = paired(dense, ours, values);
  return mean(own.map((x, i) => 100 * x / all[i]));
}

const seconds: Values = ({ timings }) => timings.trainSeconds.values;
const operations: Values = ({ metrics }) => metrics.gigaMacs.values;

/** 100 (1 - ours / dense) of processor times, paired by seed. */
function timeSaved(dense: ArmSummary, ours: ArmSummary): Estimate {
  const [all, less] = paired(dense, ours, seconds);
  return pairedDifference(
    all.map(() => 100),
    less.map((s, i) => 100 * s / all[i]),
  );
}

function accuracyGain(theirs: ArmSummary, ours: ArmSummary): Estimate {
  const [old, own] = paired(
    theirs,
    ours,
    ({ metrics }) => metrics.accuracy.values,
  );
  return pairedDifference(own, old);
}

const percent = ({ metrics }: ArmSummary) => metrics.accuracy.mean.toFixed(2);

/** What each claim measures. */
export function measure(arms: ArmSummary[]): Record<string, Measurement> {
  const at = (method: string) => armOf(arms, `${FASHION}/${method}`);
  const [dense, ours] = [at("dense"), at("tri-0.9")];
  const images = dense.config.images;
  const note = `${FASHION}, ${images} images: dense ${
    percent(dense)
  } %, three levels ${percent(ours)} %`;
  const gain = { ...accuracyGain(dense, ours), unit: "points", note };
  const macs = countVitMacs(
    deit("small"),
    tokenCounts(196, 12, { keep: 0.7, blocks: dropBlocks(12), fuse: true }),
  ).total / 1e9;
  return {
    "tri-level-evit-time": {
      ...timeSaved(dense, ours),
      unit: "%",
      note: `${FASHION}, ${images} images: dense ${
        dense.timings.trainSeconds.mean.toFixed(1)
      } s of processor time, three levels ${
        ours.timings.trainSeconds.mean.toFixed(1)
      } s; operations ${
        (100 - shareOfDense(dense, ours, operations)).toFixed(1)
      } % fewer`,
    },
    "tri-level-evit-gain": gain,
    "tri-level-evit-maintained": gain,
    "tri-level-evit-examples": {
      ...accuracyGain(at("forgetting"), at("examples")),
      unit: "points",
      note: `swapped in rounds ${
        percent(at("examples"))
      } %, dropped after a first training ${percent(at("forgetting"))} %`,
    },
    "tri-level-evit-macs": {
      value: macs,
      low: macs,
      high: macs,
      n: 1,
      unit: "G",
    },
  };
}

/** "81.2 ± 0.4", or one number if there is no interval. */
function spread({ mean, low, high, n }: MetricSummary, digits = 1): string {
  return n < 2
    ? mean.toFixed(digits)
    : `${mean.toFixed(digits)} ± ${((high - low) / 2).toFixed(digits)}`;
}

/** Arms that are shown as methods: not the one that times attention, nor a first training that EL2N reads. */
const shownMethods = (arms: ArmSummary[]) =>
  arms.filter((arm) => arm.id !== "paths" && methodOf(arm) !== "early");

const setOf = ({ config }: ArmSummary) => config.data as string;
const methodOf = ({ config }: ArmSummary) => config.method as string;

/** Processor time (% of dense) of all that a method needs: the first training of forgetting and EL2N as well. */
function wholeTime(
  arms: ArmSummary[],
  dense: ArmSummary,
  arm: ArmSummary,
): number {
  const first = { forgetting: "dense", el2n: "early" }[methodOf(arm)];
  const own = shareOfDense(dense, arm, seconds);
  return first === undefined ? own : own +
    shareOfDense(dense, armOf(arms, `${setOf(arm)}/${first}`), seconds);
}

/** Says where dropping tokens comes too late to change the class token. */
function lastDepth({ config }: ArmSummary): string {
  const { numLayers } = config.model as { numLayers: number };
  return dropBlocks(numLayers).at(-1) === numLayers - 1
    ? `With ${numLayers} blocks the last depth is the last block, from which tokens no longer reach the class token: dropping them there saves operations only. `
    : "";
}

export function tables(arms: ArmSummary[]): ResultTable[] {
  const shown = shownMethods(arms);
  const sets = [...new Set(shown.map(setOf))];
  const trained = sets.map((set): ResultTable => {
    const dense = armOf(arms, `${set}/dense`);
    return {
      id: `tri-level-evit-${set}`,
      title: `What is left out, what it saves and costs: ${set}`,
      caption:
        `Intervals of 95 % over seeds; gains, operations and times of the processor against dense are paired by seed, over the seeds that both have. A first training that a method needs is in the column beside. Operations count forward and backward; masked connections save none. ${
          lastDepth(dense)
        }Examples are ranked by coarse scores: ${
          (100 * dense.metrics.neverForgotten.mean).toFixed(0)
        } % of the images have a forgetting count of 0 after the dense training, of equals the lower number goes first; an image that was never right counts as often as it was seen; EL2N comes from one short training.`,
      columns: [
        "method",
        "accuracy (%)",
        "gain over dense (points)",
        "operations (% of dense)",
        "training time (% of dense)",
        "with the first training (%)",
        "choosing examples (% of its time)",
        "making batches (% of its time)",
      ],
      rows: shown.filter((arm) => setOf(arm) === set).map((arm) => {
        const gain = accuracyGain(dense, arm);
        const saved = timeSaved(dense, arm);
        const own = arm.timings.trainSeconds.mean;
        return [
          methodOf(arm),
          spread(arm.metrics.accuracy),
          arm === dense
            ? null
            : spread({ ...gain, mean: gain.value, sd: 0, values: [] }),
          Number(shareOfDense(dense, arm, operations).toFixed(1)),
          spread({
            mean: 100 - saved.value,
            low: 100 - saved.high,
            high: 100 - saved.low,
            n: saved.n,
            sd: 0,
            values: [],
          }),
          Number(wholeTime(arms, dense, arm).toFixed(1)),
          Number((100 * arm.timings.selectionSeconds.mean / own).toFixed(2)),
          // Records before 2026-11-30 did not time the batches.
          arm.timings.batchSeconds === undefined
            ? null
            : Number((100 * arm.timings.batchSeconds.mean / own).toFixed(2)),
        ];
      }),
    };
  });
  const paths = arms.find(({ id }) => id === "paths");
  return paths === undefined ? trained : [...trained, pathTable(paths)];
}

/** Times of attention under a mask and on lists. */
function pathTable({ config, series, timings }: ArmSummary): ResultTable {
  const ms = (name: string) =>
    Number((1e3 * timings[name].mean).toPrecision(3));
  return {
    id: "tri-level-evit-paths",
    title: "When gathered connections pay",
    caption:
      `Attention of ${config.rows} queries, ${config.heads} heads of ${config.headDim}, time of the processor in ms; forward, then forward with backward. A mask saves nothing; lists pay where they take less than all keys. Choosing the connections is not counted.`,
    columns: [
      "tokens",
      "keys of a query",
      "all keys (ms)",
      "masked (ms)",
      "gathered (ms)",
      "all keys, with backward (ms)",
      "masked, with backward (ms)",
      "gathered, with backward (ms)",
    ],
    rows: series.pathTokens.mean.map((T, i) => {
      const m = series.pathKeys.mean[i];
      return [
        T,
        m,
        ...["forward", "both"].flatMap((part) => [
          ms(`all ${T} ${part}`),
          ms(`mask ${T} ${m} ${part}`),
          ms(`list ${T} ${m} ${part}`),
        ]),
      ];
    }),
  };
}

/** Groups of methods, for colours. */
function familyOf(method: string): string {
  if (method.startsWith("tri")) return "all three levels";
  if (/\+/.test(method)) return "two levels";
  if (/^(tokens|fused)/.test(method)) return "tokens";
  if (method === "connections") return "connections";
  if (method === "dense") return "dense";
  if (method === "examples") return "examples in rounds";
  return "examples, other ways";
}

const FAMILIES = [
  "dense",
  "all three levels",
  "tokens",
  "examples in rounds",
  "examples, other ways",
  "two levels",
  "connections",
];

export function figures(arms: ArmSummary[]): FigureSpec[] {
  const shown = shownMethods(arms);
  const sets = [...new Set(shown.map(setOf))];
  return sets.flatMap((set) => {
    const dense = armOf(arms, `${set}/dense`);
    const rows = shown.filter((arm) => setOf(arm) === set).map((arm) => {
      const { mean, low, high, n } = arm.metrics.accuracy;
      return {
        method: methodOf(arm),
        family: familyOf(methodOf(arm)),
        accuracy: { mean, halfWidth: n > 1 ? (high - low) / 2 : 0, n },
        time: wholeTime(arms, dense, arm),
        saved: 100 - shareOfDense(dense, arm, seconds),
      };
    });
    return [
      scatterFigure(rows, {
        id: `tri-level-evit-accuracy-${set}`,
        title: `Accuracy against the time of training: ${set}`,
        caption:
          "Every method once, mean over seeds with 95 % intervals. Time of the processor against the dense model, paired by seed; first trainings that a method needs are counted.",
        x: "time",
        y: "accuracy",
        series: "family",
        order: FAMILIES,
        xAxis: { title: "training time", unit: "% of dense" },
        yAxis: { title: "test accuracy", unit: "%" },
      }),
      barFigure(rows.filter(({ method }) => method !== "dense"), {
        id: `tri-level-evit-saved-${set}`,
        title: `Time that each method saves: ${set}`,
        caption:
          "Processor time of training that is saved against the dense model, paired by seed; below 0 it takes longer. First trainings are not counted here. Masked connections save no operations: their bars show what choosing them costs.",
        x: "method",
        y: "saved",
        yAxis: { title: "time saved", unit: "%" },
      }),
    ];
  });
}
