/** What the encoder runs say: tables and figures. */
import { lineFigure } from "../core/figure.ts";
import type {
  ArmSummary,
  FigureSpec,
  MetricSummary,
  ResultTable,
} from "../core/runs.ts";
import type { Config } from "./encoder.ts";

/** "0.912 ± 0.004", or one number if nothing varies. */
function spread({ mean, low, high, n }: MetricSummary): string | number {
  const half = (high - low) / 2;
  if (n < 2 || !(half > 0)) return Number(mean.toPrecision(4));
  const digits = Math.max(0, 1 - Math.floor(Math.log10(half)));
  return `${mean.toFixed(digits)} ± ${half.toFixed(digits)}`;
}

const cell = ({ mean, low, high, n }: MetricSummary) => ({
  mean,
  halfWidth: n > 1 ? (high - low) / 2 : 0,
  n,
});

/** Activations by the names of their metrics. */
const ACTIVATIONS: Readonly<Record<string, string>> = {
  layer: "one step per layer",
  trip: "TRIP",
  "trip-log2": "TRIP, 4-bit log2 softmax",
};

/** One row per model: an arm with one way of activations. */
function models(arms: ArmSummary[]) {
  return arms.flatMap(({ config, metrics }) =>
    Object.keys(metrics).filter((name) => name.endsWith(".accuracy")).map(
      (name) => {
        const prefix = name.slice(0, -".accuracy".length);
        const [width, scheme] = prefix.slice(1).split(".");
        return {
          method: config.method as string,
          bits: config.bits as number,
          width: Number(width),
          scheme,
          accuracy: metrics[name],
          cosine: metrics[`${prefix}.cosine`],
          least: metrics[`${prefix}.leastCosine`],
          sizeBytes: metrics.sizeBytes.mean,
        };
      },
    )
  );
}

const NAMES: Readonly<Record<string, string>> = {
  float: "float",
  rtn: "round to nearest",
  gptq: "GPTQ",
};

export function tables(arms: ArmSummary[], config: Config): ResultTable[] {
  return [{
    id: "encoder-models",
    title: "A pretrained sentence encoder in few bits",
    caption:
      `Universal Sentence Encoder Lite, 7 million weights. Cosine of embeddings with those of the float model, and spam found among ${config.testMails} mails (half of them spam, first ${config.tokens} tokens) by a linear probe that was fitted once, to float embeddings of ${config.trainMails} other mails. Weights in groups of at most 128 inputs with a zero point; GPTQ makes up for errors within blocks of ${config.block} inputs, on ${config.calibrationMails} further mails. 8- and 4-bit activations have one step and zero point per layer, with TRIP also a power of two per channel; the softmax has uniform steps of the same bits unless it says log2. The table of words has 8 bits in every quantised model. Mean ± half of the 95 % interval over ${config.seeds} draws of mails.`,
    columns: [
      "weights",
      "activations",
      "method",
      "size (MB)",
      "cosine to float",
      "least cosine",
      "accuracy",
    ],
    rows: models(arms).map((
      { method, bits, width, scheme, sizeBytes, cosine, least, accuracy },
    ) => [
      `${bits} bit`,
      scheme === undefined
        ? `${width} bit`
        : `${width} bit, ${ACTIVATIONS[scheme]}`,
      NAMES[method],
      Number((sizeBytes / 1e6).toFixed(2)),
      spread(cosine),
      spread(least),
      spread(accuracy),
    ]),
  }];
}

export function figures(arms: ArmSummary[]): FigureSpec[] {
  const rows = models(arms);
  const weights = rows.filter(({ method, width }) =>
    width === 32 && method !== "float"
  ).map(({ method, bits, cosine, accuracy }) => ({
    "weight bits": bits,
    method: NAMES[method],
    "1 - cosine": 1 - cosine.mean,
    accuracy: cell(accuracy),
  }));
  const float = rows.find(({ method }) => method === "float");
  if (weights.length === 0 || float === undefined) return [];
  return [
    lineFigure(weights, {
      id: "encoder-cosine",
      title: "What is lost of a pretrained encoder's embeddings",
      caption:
        "1 minus the mean cosine with the float model's embeddings of the test mails; float activations. Lower is better.",
      x: "weight bits",
      y: "1 - cosine",
      series: "method",
      xAxis: { title: "bits of a weight" },
      yAxis: { title: "1 - cosine to float", scale: "log" },
    }),
    lineFigure(weights, {
      id: "encoder-accuracy",
      title: "Spam found in a quantised encoder's embeddings",
      caption:
        `Accuracy of a linear probe fitted to the float model's embeddings, with 95 % intervals over draws of mails; float activations. With the float model ${
          (100 * float.accuracy.mean).toFixed(1)
        } %.`,
      x: "weight bits",
      y: "accuracy",
      series: "method",
      xAxis: { title: "bits of a weight" },
      yAxis: { title: "accuracy" },
    }),
  ];
}
