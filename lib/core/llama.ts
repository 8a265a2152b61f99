/**
 * LLaMA: a decoder-only transformer language model.
 *
 * Touvron et al., "LLaMA: Open and Efficient Foundation Language Models",
 * arXiv:2302.13971 (architecture: section 2.2); grouped-query attention after
 * Ainslie et al., arXiv:2305.13245; rotary positions after Su et al.,
 * arXiv:2104.09864, in the "rotate half" layout of Hugging Face checkpoints.
 *
 * Each of L blocks adds to a residual stream x:
 *
 *   x = x + Wo attention(rope(Wq n), rope(Wk n), Wv n),   n = rmsNorm(x)
 *   x = x + Wdown (silu(Wgate m) * Wup m),                m = rmsNorm(x)
 *
 * and the head reads off next-token logits, Whead rmsNorm(x). A tied head is the
 * embedding table itself.
 *
 * Parameters are plain nested objects. `flatten(params)` gives exactly the names
 * of a Hugging Face checkpoint, and matrices are [out, in] as there. What a method
 * changes about a linear layer, an adapter or a quantizer, is an argument, looked
 * up by the layer's module name, "model.layers.0.self_attn.q_proj".
 *
 *   B  sequences     T  positions       S  positions seen (cached and new)
 *   D  hiddenSize    F  intermediateSize   V  vocabSize
 *   H  query heads   Hkv  key and value heads   Dh  width of a head
 *
 * Scope: training and generation on one machine; all sequences of a batch start
 * at position 0 (right padding only).
 */
import {
  flatten,
  type ParamTree,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
} from "./tensor.ts";
import {
  type Adapter,
  add,
  attention,
  crossEntropy,
  embedding,
  linear,
  type Quantizer,
  rmsNorm,
  rope,
  swiglu,
} from "./nn.ts";
import { categorical, fold, type Key, normal } from "./rng.ts";
import type { Optimizer } from "./optim.ts";

/** Standard deviation of initial weights (Radford et al. 2019, GPT-2 code). */
const INIT_STD = 0.02;

/** How the rotary frequencies of a checkpoint with a longer context are changed. */
export type RopeScaling =
  | { type: "linear"; factor: number }
  | {
    type: "llama3";
    factor: number;
    lowFreqFactor: number;
    highFreqFactor: number;
    originalMaxPositions: number;
  };

/** The shape of a model. Weights are bare of biases unless said otherwise. */
export interface LlamaConfig {
  vocabSize: number;
  hiddenSize: number;
  /** Width of the feed-forward layer. */
  intermediateSize: number;
  numLayers: number;
  numHeads: number;
  /** Heads of keys and values; divides numHeads. */
  numKvHeads: number;
  /** Default hiddenSize / numHeads; other values after pruning. */
  headDim?: number;
  /** Base of the rotary frequencies; default 10000 (RoFormer, section 3.2.2). */
  ropeTheta?: number;
  ropeScaling?: RopeScaling;
  /** Default 1e-5 (LLaMA 2 and 3). */
  rmsNormEps?: number;
  /** Whether the head is the embedding table; default false. */
  tieWordEmbeddings?: boolean;
  /** Longest sequence; default 2048 (LLaMA 1). */
  maxPositions?: number;
  /** Whether q, k, v and o projections have a bias; default false. */
  attentionBias?: boolean;
  /** Whether the feed-forward layers have a bias; default false. */
  mlpBias?: boolean;
}

/** Weight [out, in] and, where the configuration says so, bias [out]. */
export type LinearParams = { weight: Tensor } | {
  weight: Tensor;
  bias: Tensor;
};

/** One block. */
export type LlamaLayer = {
  self_attn: {
    q_proj: LinearParams; // [H Dh, D]
    k_proj: LinearParams; // [Hkv Dh, D]
    v_proj: LinearParams; // [Hkv Dh, D]
    o_proj: LinearParams; // [D, H Dh]
  };
  mlp: {
    gate_proj: LinearParams; // [F, D]
    up_proj: LinearParams; // [F, D]
    down_proj: LinearParams; // [D, F]
  };
  input_layernorm: { weight: Tensor }; // [D]
  post_attention_layernorm: { weight: Tensor }; // [D]
};

/** The whole model, by the names of a Hugging Face checkpoint. */
export type LlamaParams =
  | { model: LlamaBody }
  | { model: LlamaBody; lm_head: { weight: Tensor } /* [V, D] */ };

/** Everything but the head. */
export type LlamaBody = {
  embed_tokens: { weight: Tensor }; // [V, D]
  layers: LlamaLayer[];
  norm: { weight: Tensor }; // [D]
};

/** Keys and values of the positions seen so far; grows with each call. */
export interface KvCache {
  /** Number of positions seen. */
  length: number;
  /** Per layer; [B, length, Hkv, Dh]. */
  layers: { k: Tensor; v: Tensor }[];
}

/** What is done differently in one forward pass. */
export interface ForwardOptions {
  /** By module name, such as "model.layers.0.self_attn.q_proj" or "lm_head". */
  adapters?: Record<string, Adapter>;
  /**
   * For every linear layer of the blocks; a function of the module name decides
   * for each layer and is asked about "lm_head" too.
   */
  quantizer?: Quantizer | ((module: string) => Quantizer | undefined);
  /** Keys and values of earlier positions; the new ones are added to it. */
  cache?: KvCache;
  /** Which logits to compute; default "all". */
  positions?: "all" | "last";
  /**
   * Sees what flows: "<module>.input" for every linear layer; queries, keys and
   * values after their rotation and before the cache, "model.layers.0.self_attn.q",
   * ".k", ".v"; and the residual stream as "model.embed_tokens.output", in each
   * block between attention and feed-forward layer "model.layers.0.residual", after
   * it "model.layers.0.output", and "model.norm.output". A tensor that it returns
   * takes the place of the original. A residual stream with fewer tokens goes on
   * with those, renumbered from 0 in the blocks that follow.
   */
  onActivation?: (name: string, value: Tensor) => Tensor | void;
  /** In place of causal attention; default `attention` of nn.ts. */
  attend?: Attend;
}

/**
 * Mixes values by how well queries match keys, in one block.
 *
 * @param q [B, T, H, Dh]
 * @param k [B, S, Hkv, Dh]; query t sees the keys s <= t + S - T.
 * @param v [B, S, Hkv, Dh]
 * @param layer Number of the block.
 * @returns [B, T, H, Dh]
 */
export type Attend = (
  q: Tensor,
  k: Tensor,
  v: Tensor,
  layer: number,
) => Tensor;

const causalAttention: Attend = (q, k, v) =>
  attention(q, k, v, { causal: true });

// Configuration ---------------------------------------------------------------

/** The configuration with its defaults filled in. */
export type ResolvedConfig =
  & Required<Omit<LlamaConfig, "ropeScaling">>
  & Pick<LlamaConfig, "ropeScaling">;

/**
 * The configuration with defaults filled in, after checking it.
 *
 * @throws {RangeError} If sizes are not positive integers or do not fit together.
 */
export function resolveConfig(config: LlamaConfig): ResolvedConfig {
  const resolved = {
    ...config,
    headDim: config.headDim ?? config.hiddenSize / config.numHeads,
    ropeTheta: config.ropeTheta ?? 10000,
    rmsNormEps: config.rmsNormEps ?? 1e-5,
    tieWordEmbeddings: config.tieWordEmbeddings ?? false,
    maxPositions: config.maxPositions ?? 2048,
    attentionBias: config.attentionBias ?? false,
    mlpBias: config.mlpBias ?? false,
  };
  const sizes = [
    "vocabSize",
    "hiddenSize",
    "intermediateSize",
    "numLayers",
    "numHeads",
    "numKvHeads",
    "headDim",
    "maxPositions",
  ] as const;
  for (const size of sizes) {
    if (!Number.isSafeInteger(resolved[size]) || resolved[size] < 1) {
      throw new RangeError(
        `Cannot build LLaMA as ${size} must be a positive integer: ` +
          `${resolved[size]}`,
      );
    }
  }
  const { numHeads, numKvHeads, headDim, ropeTheta, rmsNormEps } = resolved;
  if (numHeads % numKvHeads !== 0) {
    throw new RangeError(
      `Cannot build LLaMA as numHeads must be divisible by numKvHeads: ` +
        `numHeads ${numHeads}, numKvHeads ${numKvHeads}`,
    );
  }
  if (headDim % 2 !== 0) {
    throw new RangeError(
      `Cannot build LLaMA as headDim must be even for rotary positions: ` +
        `${headDim}`,
    );
  }
  if (!(ropeTheta > 0) || !(rmsNormEps >= 0)) {
    throw new RangeError(
      `Cannot build LLaMA as ropeTheta must be positive and rmsNormEps not ` +
        `negative: ropeTheta ${ropeTheta}, rmsNormEps ${rmsNormEps}`,
    );
  }
  return resolved;
}

/**
 * The shape of every parameter, by its name in a Hugging Face checkpoint.
 *
 * The one place that says which tensors a model has: initialisation, loading and
 * checking all read it.
 */
export function parameterShapes(config: LlamaConfig): Record<string, number[]> {
  const {
    vocabSize: V,
    hiddenSize: D,
    intermediateSize: F,
    numLayers,
    numHeads: H,
    numKvHeads: Hkv,
    headDim: Dh,
    tieWordEmbeddings,
    attentionBias,
    mlpBias,
  } = resolveConfig(config);
  const shapes: Record<string, number[]> = {
    "model.embed_tokens.weight": [V, D],
  };
  const addLinear = (name: string, shape: number[], bias: boolean) => {
    shapes[`${name}.weight`] = shape;
    if (bias) shapes[`${name}.bias`] = [shape[0]];
  };
  for (let i = 0; i < numLayers; i++) {
    const layer = `model.layers.${i}`;
    addLinear(`${layer}.self_attn.q_proj`, [H * Dh, D], attentionBias);
    addLinear(`${layer}.self_attn.k_proj`, [Hkv * Dh, D], attentionBias);
    addLinear(`${layer}.self_attn.v_proj`, [Hkv * Dh, D], attentionBias);
    addLinear(`${layer}.self_attn.o_proj`, [D, H * Dh], attentionBias);
    addLinear(`${layer}.mlp.gate_proj`, [F, D], mlpBias);
    addLinear(`${layer}.mlp.up_proj`, [F, D], mlpBias);
    addLinear(`${layer}.mlp.down_proj`, [D, F], mlpBias);
    shapes[`${layer}.input_layernorm.weight`] = [D];
    shapes[`${layer}.post_attention_layernorm.weight`] = [D];
  }
  shapes["model.norm.weight"] = [D];
  if (!tieWordEmbeddings) shapes["lm_head.weight"] = [V, D];
  return shapes;
}

/**
 * The nested parameters from tensors by their dotted names; numbers become array
 * indices. The inverse of `flatten`.
 */
export function nestParams(named: Record<string, Tensor>): LlamaParams {
  const root: Record<string, unknown> = {};
  for (const [path, tensor] of Object.entries(named)) {
    const parts = path.split(".");
    let node = root;
    parts.slice(0, -1).forEach((part, depth) => {
      node[part] ??= /^\d+$/.test(parts[depth + 1]) ? [] : {};
      node = node[part] as Record<string, unknown>;
    });
    node[parts[parts.length - 1]] = tensor;
  }
  return root as unknown as LlamaParams;
}

/**
 * Fresh trainable parameters: matrices from a normal distribution, norms 1,
 * biases 0.
 *
 * The standard deviation is 0.02, and 0.02 / sqrt(2 numLayers) for the two
 * projections that write into the residual stream of each block, so that its
 * variance does not grow with depth (Radford et al. 2019, GPT-2, section 2.3).
 *
 * @param config The shape of the model.
 * @param key Source of randomness; each tensor draws from its own sub-key.
 */
export function initLlama(config: LlamaConfig, key: Key): LlamaParams {
  const named: Record<string, Tensor> = {};
  const residualStd = INIT_STD / Math.sqrt(2 * config.numLayers);
  for (const [name, shape] of Object.entries(parameterShapes(config))) {
    const size = shape.reduce((a, b) => a * b, 1);
    let values: Float32Array;
    if (name.endsWith(".bias")) values = new Float32Array(size);
    else if (shape.length === 1) values = new Float32Array(size).fill(1);
    else {
      const intoResidual = /\.(o_proj|down_proj)\.weight$/.test(name);
      const std = intoResidual ? residualStd : INIT_STD;
      values = normal(fold(key, name), size, 0, std);
    }
    named[name] = tf.tidy(() => tf.variable(tf.tensor(values, shape)));
  }
  return nestParams(named);
}

// Forward pass ----------------------------------------------------------------

/**
 * Rotary angles per position, with the scaling of long-context checkpoints.
 *
 *   w_i = theta^(-2i / Dh),  i = 0 .. Dh/2 - 1
 *   linear: w_i / factor
 *   llama3: w_i / factor where the wave is longer than original / lowFreqFactor,
 *     w_i where shorter than original / highFreqFactor, a blend between
 *     (Hugging Face transformers, modeling_rope_utils.py)
 *
 * @returns The Dh / 2 angles in radians per position.
 */
export function ropeFrequencies(config: LlamaConfig): Float64Array {
  const { headDim, ropeTheta, ropeScaling } = resolveConfig(config);
  return Float64Array.from({ length: headDim / 2 }, (_, i) => {
    const frequency = ropeTheta ** (-2 * i / headDim);
    if (ropeScaling === undefined) return frequency;
    const { factor } = ropeScaling;
    if (ropeScaling.type === "linear") return frequency / factor;
    const { lowFreqFactor, highFreqFactor, originalMaxPositions } = ropeScaling;
    const waves = originalMaxPositions * frequency / (2 * Math.PI);
    const blend = (waves - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    const keep = Math.min(1, Math.max(0, blend));
    return keep * frequency + (1 - keep) * frequency / factor;
  });
}

/** An empty cache for `forward`. */
export function createCache(): KvCache {
  return { length: 0, layers: [] };
}

/** Frees the tensors of a cache and empties it. */
export function disposeCache(cache: KvCache): void {
  for (const layer of cache.layers) tf.dispose([layer.k, layer.v]);
  cache.layers = [];
  cache.length = 0;
}

/** All keys and values up to now; the cache keeps them. */
function extendCache(
  cache: KvCache,
  layer: number,
  k: Tensor,
  v: Tensor,
): { k: Tensor; v: Tensor } {
  const past = cache.layers[layer];
  const kept = past === undefined
    ? { k: k.clone(), v: v.clone() }
    : { k: tf.concat([past.k, k], 1), v: tf.concat([past.v, v], 1) };
  if (past !== undefined) tf.dispose([past.k, past.v]);
  tf.keep(kept.k);
  tf.keep(kept.v);
  cache.layers[layer] = kept;
  return kept; // [B, S, Hkv, Dh]
}

/** What one linear layer does, found by its module name. */
function project(
  x: Tensor,
  params: LinearParams,
  module: string,
  options: ForwardOptions,
): Tensor {
  const { adapters, quantizer } = options;
  return linear(observe(x, `${module}.input`, options), params.weight, {
    bias: "bias" in params ? params.bias : undefined,
    adapter: adapters?.[module],
    quantizer: typeof quantizer === "function"
      ? quantizer(module)
      : module === "lm_head"
      ? undefined
      : quantizer,
  });
}

/** The value, or what the caller's hook puts in its place. */
function observe(x: Tensor, name: string, options: ForwardOptions): Tensor {
  return options.onActivation?.(name, x) ?? x;
}

/** The attention half of a block, before it is added to the residual stream. */
function selfAttention(
  x: Tensor,
  params: LlamaLayer["self_attn"],
  index: number,
  config: ResolvedConfig,
  frequencies: Float64Array,
  options: ForwardOptions,
): Tensor {
  const [B, T] = x.shape;
  const { headDim: Dh } = config;
  const { cache } = options;
  const offset = cache?.length ?? 0;
  const module = `model.layers.${index}.self_attn`;
  // Heads are counted from the width, so that a pruned layer may have fewer.
  const heads = (name: "q_proj" | "k_proj" | "v_proj") =>
    project(x, params[name], `${module}.${name}`, options)
      .reshape([B, T, -1, Dh]);
  const rotate = (y: Tensor) => rope(y, { frequencies, offset });

  const site = (name: string, y: Tensor) =>
    observe(y, `${module}.${name}`, options);

  const q = site("q", rotate(heads("q_proj"))); // [B, T, H, Dh]
  let k = site("k", rotate(heads("k_proj"))); // [B, T, Hkv, Dh]
  let v = site("v", heads("v_proj")); // [B, T, Hkv, Dh]
  if (cache) ({ k, v } = extendCache(cache, index, k, v)); // [B, S, Hkv, Dh]
  const { attend = causalAttention } = options;
  const mixed = attend(q, k, v, index).reshape([B, T, -1]);
  return project(mixed, params.o_proj, `${module}.o_proj`, options); // [B, T, D]
}

/** The feed-forward half of a block, before it is added to the residual stream. */
function feedForward(
  x: Tensor,
  params: LlamaLayer["mlp"],
  index: number,
  options: ForwardOptions,
): Tensor {
  const module = `model.layers.${index}.mlp`;
  const gate = project(x, params.gate_proj, `${module}.gate_proj`, options);
  const up = project(x, params.up_proj, `${module}.up_proj`, options);
  const hidden = swiglu(gate, up); // [B, T, F]
  return project(hidden, params.down_proj, `${module}.down_proj`, options);
}

/** Checks ids and returns the resolved configuration. */
function checkInput(
  config: LlamaConfig,
  ids: Tensor,
  cache?: KvCache,
): ResolvedConfig {
  const resolved = resolveConfig(config);
  if (ids.rank !== 2 || ids.dtype !== "int32" || ids.size === 0) {
    throw new TypeError(
      `Cannot run LLaMA as ids must be a non-empty int32 tensor [B, T]: ` +
        `${ids.dtype} [${ids.shape}]`,
    );
  }
  const positions = (cache?.length ?? 0) + ids.shape[1]!;
  if (positions > resolved.maxPositions) {
    throw new RangeError(
      `Cannot run LLaMA as a sequence must have at most maxPositions tokens: ` +
        `maxPositions ${resolved.maxPositions}, tokens ${positions}`,
    );
  }
  const { vocabSize } = resolved;
  const unknown = ids.dataSync().find((id) => id < 0 || id >= vocabSize);
  if (unknown !== undefined) {
    throw new RangeError(
      `Cannot run LLaMA as ids must be in 0 to vocabSize - 1: ` +
        `vocabSize ${vocabSize}, id ${unknown}`,
    );
  }
  return resolved;
}

/**
 * The residual stream after the last norm: what the head reads.
 *
 * @param ids int32 [B, T], each in 0 .. V - 1.
 * @returns [B, T, D]
 */
export function hiddenStates(
  params: LlamaParams,
  config: LlamaConfig,
  ids: Tensor,
  options: ForwardOptions = {},
): Tensor {
  const resolved = checkInput(config, ids, options.cache);
  const { rmsNormEps: eps } = resolved;
  const frequencies = ropeFrequencies(resolved);
  return tf.tidy(() => {
    const { embed_tokens, layers, norm } = params.model;
    let x = embedding(ids, embed_tokens.weight); // [B, T, D]
    x = observe(x, "model.embed_tokens.output", options);
    layers.forEach((layer, i) => {
      x = tf.tidy(() => {
        const n = rmsNorm(x, layer.input_layernorm.weight, { eps });
        const residual = add(
          x,
          selfAttention(n, layer.self_attn, i, resolved, frequencies, options),
        ); // [B, T, D]
        const mixed = observe(residual, `model.layers.${i}.residual`, options);
        const m = rmsNorm(mixed, layer.post_attention_layernorm.weight, {
          eps,
        });
        const out = add(mixed, feedForward(m, layer.mlp, i, options));
        return observe(out, `model.layers.${i}.output`, options);
      });
    });
    if (options.cache) options.cache.length += ids.shape[1]!;
    const out = rmsNorm(x, norm.weight, { eps });
    return observe(out, "model.norm.output", options); // [B, T, D]
  });
}

/**
 * The logits of the next token at each position.
 *
 * @param params From `initLlama` or a checkpoint.
 * @param config The shape of the model.
 * @param ids int32 [B, T], each in 0 .. V - 1.
 * @param options Adapters, quantizer, cache, hooks.
 * @returns [B, T, V]; with `positions: "last"` [B, 1, V].
 *
 * @example
 * ```ts
 * const params = initLlama(config, key(0));
 * const logits = forward(params, config, tf.tensor2d([[1, 2, 3]], [1, 3], "int32"));
 * logits.shape; // [1, 3, config.vocabSize]
 * ```
 */
export function forward(
  params: LlamaParams,
  config: LlamaConfig,
  ids: Tensor,
  options: ForwardOptions = {},
): Tensor {
  return tf.tidy(() => {
    let x = hiddenStates(params, config, ids, options); // [B, T, D]
    if (options.positions === "last") {
      const [B, T, D] = x.shape;
      x = x.slice([0, T! - 1, 0], [B, 1, D]); // [B, 1, D]
    }
    const head = config.tieWordEmbeddings || !("lm_head" in params)
      ? params.model.embed_tokens
      : params.lm_head;
    return project(x, head, "lm_head", options); // [B, T, V]
  });
}

// Loss and scores -------------------------------------------------------------

/** Options of the losses: those of the forward pass, and which labels to skip. */
export interface LossOptions
  extends Omit<ForwardOptions, "cache" | "positions"> {
  /** Labels with this id do not count (padding); default -1, none. */
  ignoreIndex?: number;
}

/** The logits of all positions but the last, and the ids that follow them. */
function predictions(
  params: LlamaParams,
  config: LlamaConfig,
  ids: Tensor,
  options: ForwardOptions,
): { logits: Tensor; labels: Tensor } {
  const [B, length] = ids.shape as [number, number];
  if (ids.rank !== 2 || length < 2) {
    throw new TypeError(
      `Cannot compute the loss as ids must be [B, T + 1] with T >= 1: ` +
        `[${ids.shape}]`,
    );
  }
  const T = length - 1;
  const inputs = ids.slice([0, 0], [B, T]);
  const logits = forward(params, config, inputs, options); // [B, T, V]
  return {
    logits: logits.reshape([B * T, -1]),
    labels: ids.slice([0, 1], [B, T]).reshape([B * T]),
  };
}

/**
 * Mean cross-entropy of predicting each token from those before it, in nats.
 *
 *   -1 / (B T) sum_b sum_t log p(ids[b, t + 1] | ids[b, 0 .. t])
 *
 * @param ids int32 [B, T + 1].
 * @returns A scalar.
 */
export function loss(
  params: LlamaParams,
  config: LlamaConfig,
  ids: Tensor,
  { ignoreIndex = -1, ...options }: LossOptions = {},
): Scalar {
  return tf.tidy(() => {
    const { logits, labels } = predictions(params, config, ids, options);
    return crossEntropy(logits, labels, { ignoreIndex });
  });
}

/**
 * log p(ids[b, t + 1] | ids[b, 0 .. t]) in nats.
 *
 * @param ids int32 [B, T + 1].
 * @returns [B, T]; 0 where the label is ignored.
 */
export function tokenLogProbs(
  params: LlamaParams,
  config: LlamaConfig,
  ids: Tensor,
  { ignoreIndex = -1, ...options }: LossOptions = {},
): Tensor {
  const [B, length] = ids.shape as [number, number];
  return tf.tidy(() => {
    const { logits, labels } = predictions(params, config, ids, options);
    return crossEntropy(logits, labels, { reduction: "none", ignoreIndex })
      .neg().reshape([B, length - 1]);
  });
}

/** Rows of ids as one tensor; shorter rows are filled with 0 on the right. */
function stackIds(rows: ArrayLike<number>[]): Tensor {
  const length = Math.max(...rows.map((row) => row.length));
  const ids = new Int32Array(rows.length * length);
  rows.forEach((row, i) => ids.set(Array.from(row), i * length));
  return tf.tensor2d(ids, [rows.length, length], "int32");
}

/** How well a model predicts a text. */
export interface Evaluation {
  /** Mean cross-entropy in nats per token. */
  loss: number;
  /** exp(loss). */
  perplexity: number;
  /** Number of predicted tokens. */
  tokens: number;
}

/**
 * Mean next-token loss and perplexity over windows of text.
 *
 * The sum runs in double precision, each token counts once, whatever the batch.
 *
 * @param windows Ids of T + 1 tokens each, all of the same length.
 * @param options `batch` windows are computed at once; default 8.
 */
export function evaluate(
  params: LlamaParams,
  config: LlamaConfig,
  windows: ArrayLike<number>[],
  { batch = 8, ...options }: LossOptions & { batch?: number } = {},
): Evaluation {
  const length = windows[0]?.length ?? 0;
  const odd = windows.find((window) => window.length !== length);
  if (length < 2 || odd !== undefined) {
    throw new RangeError(
      `Cannot evaluate as there must be windows of one length >= 2: ` +
        `${windows.length} windows, lengths ${length}` +
        (odd === undefined ? "" : ` and ${odd.length}`),
    );
  }
  const { ignoreIndex = -1 } = options;
  let sum = 0;
  let tokens = 0;
  for (let start = 0; start < windows.length; start += batch) {
    const rows = windows.slice(start, start + batch);
    const logProbs = tf.tidy(() =>
      tokenLogProbs(params, config, stackIds(rows), options).dataSync()
    );
    rows.forEach((row, i) => {
      for (let t = 1; t < length; t++) {
        if (row[t] === ignoreIndex) continue;
        sum -= logProbs[i * (length - 1) + t - 1];
        tokens++;
      }
    });
  }
  return { loss: sum / tokens, perplexity: Math.exp(sum / tokens), tokens };
}

/** How likely a continuation is after its context. */
export interface ContinuationScore {
  /** Sum of log p over the continuation's tokens, in nats. */
  logProb: number;
  /** Number of the continuation's tokens. */
  tokens: number;
}

/**
 * Log-probabilities of continuations after their contexts, for choosing among
 * several answers.
 *
 * @param items Each a non-empty context and a non-empty continuation.
 * @param options `batch` items are computed at once; default 8.
 */
export function scoreContinuations(
  params: LlamaParams,
  config: LlamaConfig,
  items: { context: ArrayLike<number>; continuation: ArrayLike<number> }[],
  { batch = 8, ...options }: LossOptions & { batch?: number } = {},
): ContinuationScore[] {
  for (const { context, continuation } of items) {
    if (context.length === 0 || continuation.length === 0) {
      throw new RangeError(
        `Cannot score as context and continuation must have tokens: ` +
          `context ${context.length}, continuation ${continuation.length}`,
      );
    }
  }
  const scores: ContinuationScore[] = new Array(items.length);
  // Neighbours in length share a batch, so that little is spent on padding.
  const width = (i: number) =>
    items[i].context.length + items[i].continuation.length;
  const order = items.map((_, i) => i).sort((a, b) => width(a) - width(b));
  for (let start = 0; start < order.length; start += batch) {
    const chosen = order.slice(start, start + batch);
    const rows = chosen.map((i) => [
      ...Array.from(items[i].context),
      ...Array.from(items[i].continuation),
    ]);
    const T = Math.max(...rows.map((row) => row.length)) - 1;
    const logProbs = tf.tidy(() =>
      tokenLogProbs(params, config, stackIds(rows), options).dataSync()
    );
    chosen.forEach((item, row) => {
      const first = items[item].context.length - 1;
      const tokens = items[item].continuation.length;
      let logProb = 0;
      for (let t = first; t < first + tokens; t++) {
        logProb += logProbs[row * T + t];
      }
      scores[item] = { logProb, tokens };
    });
  }
  return scores;
}

// Generation ------------------------------------------------------------------

/** How the next token is chosen. */
export interface SampleOptions {
  /** Logits are divided by it; 0, the default, takes the most likely token. */
  temperature?: number;
  /** Only the k most likely tokens; default all. */
  topK?: number;
  /** Only the fewest tokens whose probabilities reach this sum; default 1, all. */
  topP?: number;
  /** Source of randomness; required unless temperature is 0. */
  key?: Key;
}

/**
 * The id of the next token.
 *
 * Temperature 0 is the largest logit, the lowest id among equals. Otherwise the
 * temperature acts first, then top-k, then top-p on what is left (Holtzman et al.,
 * arXiv:1904.09751, section 3.1), as in Hugging Face transformers.
 *
 * @param logits V values.
 */
export function sampleToken(
  logits: ArrayLike<number>,
  { temperature = 0, topK = logits.length, topP = 1, key }: SampleOptions = {},
): number {
  if (!(temperature >= 0) || !(topK >= 1) || !(topP > 0 && topP <= 1)) {
    throw new RangeError(
      `Cannot sample as temperature must be >= 0, topK >= 1 and topP in ` +
        `(0, 1]: temperature ${temperature}, topK ${topK}, topP ${topP}`,
    );
  }
  let best = 0;
  for (let i = 0; i < logits.length; i++) {
    if (Number.isNaN(logits[i])) {
      throw new RangeError(
        `Cannot sample as logits must be numbers: NaN at token ${i}`,
      );
    }
    if (logits[i] > logits[best]) best = i;
  }
  if (temperature === 0) return best;
  if (key === undefined) {
    throw new TypeError(
      `Cannot sample as a temperature above 0 needs a key: ` +
        `temperature ${temperature}`,
    );
  }
  if (topK >= logits.length && topP === 1) {
    return categorical(key, logits, { temperature });
  }
  const order = Array.from(logits, (_, i) => i)
    .sort((a, b) => logits[b] - logits[a] || a - b)
    .slice(0, topK);
  const weights = order.map((i) =>
    Math.exp((logits[i] - logits[best]) / temperature)
  );
  const total = weights.reduce((a, b) => a + b, 0);
  let sum = 0;
  let count = 0;
  while (count < order.length && sum < topP * total) sum += weights[count++];
  const kept = order.slice(0, Math.max(1, count));
  const chosen = categorical(key, kept.map((i) => logits[i]), { temperature });
  return kept[chosen];
}

/** Options of `generate`. */
export interface GenerateOptions
  extends SampleOptions, Omit<ForwardOptions, "cache" | "positions"> {
  /** At most so many new tokens; default 64. */
  maxTokens?: number;
  /** Ends after any of these ids, such as the end-of-text token; default none. */
  stop?: number[];
  /** Called with each new token; false ends the generation. */
  onToken?: (id: number) => boolean | void;
}

/**
 * The tokens that the model writes after a prompt.
 *
 * The prompt is read in one pass, then each new token costs one step against the
 * cached keys and values. Ends at `maxTokens`, after a token of `stop` (which is
 * included), or when the model's positions are used up.
 *
 * @param prompt At least one id.
 * @returns The new ids, without the prompt.
 *
 * @example
 * ```ts
 * const story = generate(params, config, tokenizer.encode("Once upon"), {
 *   temperature: 0.8, topP: 0.95, key: key(1), maxTokens: 100,
 * });
 * tokenizer.decode(story);
 * ```
 */
export function generate(
  params: LlamaParams,
  config: LlamaConfig,
  prompt: ArrayLike<number>,
  options: GenerateOptions = {},
): Int32Array {
  const {
    temperature,
    topK,
    topP,
    key,
    maxTokens = 64,
    stop = [],
    onToken,
    ...forwardOptions
  } = options;
  const { maxPositions } = resolveConfig(config);
  if (prompt.length === 0 || prompt.length > maxPositions) {
    throw new RangeError(
      `Cannot generate as the prompt must have 1 to ${maxPositions} tokens: ` +
        `${prompt.length}`,
    );
  }
  const written: number[] = [];
  const cache = createCache();
  try {
    let next: ArrayLike<number> = prompt;
    while (
      written.length < maxTokens && cache.length + next.length <= maxPositions
    ) {
      const logits = tf.tidy(() =>
        forward(params, config, stackIds([next]), {
          ...forwardOptions,
          cache,
          positions: "last",
        }).dataSync()
      ); // [V]
      const id = sampleToken(logits, {
        temperature,
        topK,
        topP,
        key: key === undefined ? undefined : fold(key, written.length),
      });
      written.push(id);
      if (onToken?.(id) === false || stop.includes(id)) break;
      next = [id];
    }
  } finally {
    disposeCache(cache);
  }
  return Int32Array.from(written);
}

// Training --------------------------------------------------------------------

/** Options of `trainLanguageModel`. */
export interface TrainOptions extends LossOptions {
  params: LlamaParams;
  config: LlamaConfig;
  /** What is updated: the model itself, adapters, or parts of either. */
  trainable: ParamTree;
  optimizer: Optimizer;
  /** int32 [B, T + 1] for each step; disposed after use. */
  batches: Iterable<Tensor>;
  steps: number;
  /** Called after each step; the gradients are freed when it returns. */
  onStep?: (report: TrainStep, grads: Record<string, Tensor>) => void;
}

/** One step of training. */
export interface TrainStep {
  /** Counted from 0. */
  step: number;
  /** Mean loss in nats per token, before the update. */
  loss: number;
  /** Global 2-norm of the gradients, before clipping. */
  gradNorm: number;
}

/**
 * Trains on next-token prediction and returns what each step measured.
 *
 * @throws If a loss or a gradient is NaN or infinite; the message has the step and
 *   the last finite loss, and `trainable` is as it was before that step.
 */
export function trainLanguageModel({
  params,
  config,
  trainable,
  optimizer,
  batches,
  steps,
  onStep,
  ...options
}: TrainOptions): TrainStep[] {
  const iterator = batches[Symbol.iterator]();
  const history: TrainStep[] = [];
  for (let step = 0; step < steps; step++) {
    const { value: ids, done } = iterator.next();
    if (done) {
      throw new RangeError(
        `Cannot train as there must be a batch for each step: ${steps} steps, ` +
          `${step} batches`,
      );
    }
    const { value, grads } = valueAndGrads(
      () => loss(params, config, ids, options),
      trainable,
    );
    try {
      const current = value.dataSync()[0];
      if (!Number.isFinite(current)) {
        throw new RangeError(
          `Cannot go on training as the loss must be finite: ${current} at ` +
            `step ${step}, last finite loss ` +
            `${history.at(-1)?.loss ?? "none"}; try a smaller learning rate`,
        );
      }
      const { gradNorm } = (() => {
        try {
          return optimizer.step(trainable, grads);
        } catch (error) {
          (error as Error).message += `; loss ${current} at step ${step}`;
          throw error;
        }
      })();
      const report = { step, loss: current, gradNorm };
      history.push(report);
      onStep?.(report, grads);
    } finally {
      tf.dispose([value, ids, grads]);
    }
  }
  return history;
}

// Size and cost ---------------------------------------------------------------

/** Number of values in a parameter tree. */
export function countParameters(params: ParamTree): number {
  return Object.values(flatten(params)).reduce((n, { size }) => n + size, 0);
}

/**
 * Floating-point operations of one training step, per token.
 *
 *   6 N + 12 L H Dh T
 *
 * N counts the weights that multiply: those of the blocks and of the head. Two
 * operations for each weight forward and four backward, and the same for the
 * T x T scores of attention (Chowdhery et al., PaLM, arXiv:2204.02311, appendix B).
 *
 * @param T Tokens per sequence.
 */
export function trainFlopsPerToken(config: LlamaConfig, T: number): number {
  const { numLayers, numHeads, headDim, vocabSize, hiddenSize } = resolveConfig(
    config,
  );
  let N = vocabSize * hiddenSize;
  for (const [name, shape] of Object.entries(parameterShapes(config))) {
    if (/^model\.layers\..*_proj\.weight$/.test(name)) N += shape[0] * shape[1];
  }
  return 6 * N + 12 * numLayers * numHeads * headDim * T;
}
