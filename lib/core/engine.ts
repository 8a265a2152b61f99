/**
 * Inference of a LLaMA model outside of tfjs: prefill and decode with a cache, in float32 or in integers.
 *
 * Weights, cache and everything between lie in one WebAssembly memory, and a token passes through kernels only:
 * no tensor is made on the way. With integers each linear layer quantises its input, multiplies codes exactly in
 * 32 bits and scales the sums,
 *
 *     y_ij = sA_i sB_j sum_k (qa_ik - za_i)(qb_jk - zb_j) + bias_j,
 *
 * which is what a forward pass with fake quantisation computes, up to the order of float32 sums; norms, rotations,
 * softmax, SwiGLU and, unless asked for, the head stay in float32, as in Agile-Quant (arXiv 2312.05693) and
 * EdgeQAT (arXiv 2402.10787). Queries, keys, values and probabilities of attention are rounded where they have
 * calibrated steps, as EdgeQAT's students learn them; their products are float32.
 *
 *   T  new tokens    D  hiddenSize    F  intermediateSize   V  vocabSize
 *   H  query heads   G  key and value heads                 Dh  width of a head
 *
 * Scope: one sequence, one thread; bits of weights and activations the same in all blocks, those of activations
 * also by token.
 */
import {
  type ActivationOptions,
  floatsAt,
  type Format,
  type IntegerBuild,
  intsAt,
  openIntegerEngine,
  putFloats,
} from "./integer/bindings.ts";
import {
  type Codes,
  openCache,
  openRounding,
  type RoundRows,
} from "./integer/attention.ts";
import { openFloats } from "./integer/floats.ts";
import {
  floatLayer,
  integerLayer,
  type Layer,
  type LayerInput,
  type Prepare,
  prepareFloats,
  prepareIntegers,
  prepareMixed,
  type WeightCodes,
} from "./integer/layers.ts";
import type { Blas } from "./kernels/blas.ts";
import {
  type Evaluation,
  type LlamaConfig,
  type LlamaParams,
  ropeFrequencies,
  type SampleOptions,
  sampleToken,
} from "./llama.ts";
import { parameterShapes, resolveConfig } from "./llama.ts";
import { checkParameters } from "./parameters.ts";
import {
  absMax,
  estimated,
  grid,
  quantizeCodes,
  symmetric,
} from "./quantizer.ts";
import { ropeTables } from "./reference.ts";
import { fold } from "./rng.ts";
import { flatten, type ParamTree, type Tensor } from "./tensor.ts";

/** How the matrices are stored. */
export interface EngineWeights {
  /** 2 to 8, or 32 (default). */
  bits?: number;
  /** Bits of the head; default 32, as in both papers. */
  headBits?: number;
  /** Codes of a matrix; default: to nearest, symmetric, one scale an output. */
  quantize?: (weight: Tensor, module: string) => WeightCodes;
}

/** How one input is quantised. */
export interface EngineStep {
  /** Calibrated step; default from the values themselves, at every call. */
  scale?: number;
  /** A code; default 0. */
  zeroPoint?: number;
  /** Default the bits of all inputs. */
  bits?: number;
}

/**
 * Bits of tokens by their importance (EdgeQAT, arXiv 2402.10787v2, section IV-C).
 *
 * As in its released code the choice at one layer's attention holds for that layer's output projection and
 * feed-forward part and for the next layer's attention; before the first attention all tokens are important.
 */
export interface EngineTokenBits {
  /** Bits of the others; default 4. */
  low?: number;
  /** Bits of important tokens; default 8. */
  high?: number;
  /**
   * 1 for important tokens, given how much each of the T tokens that are read together attends to the first token
   * of the sequence: the mean of softmax over heads. `importantTokens` of lib/edgeqat is one.
   */
  important: (scores: Float64Array) => Uint8Array;
  /**
   * Calibrated steps of important tokens by module; those of the others are `steps` beside. A layer's values go by
   * the choice at its own attention, its queries and keys by that of the layer before; softmax has one step.
   */
  steps?: Record<string, EngineStep>;
}

/** How the inputs of linear layers are quantised. */
export interface EngineActivations
  extends Pick<ActivationOptions, "symmetric" | "granularity" | "signed"> {
  /** 2 to 8 or, with weights of 32 bits, 32; default 8 where weights are quantised; or by token. */
  bits?: number | EngineTokenBits;
  /**
   * Calibrated steps by module; layers that read one input read it with the step of the first of them, q_proj and
   * gate_proj, and steps of the others are refused. Default: from the values themselves, at every call.
   *
   * Those of "self_attn.q" and "self_attn.k" (rotated), "self_attn.v" and "self_attn.softmax" (codes from 0) are for
   * attention, which is in float32 without them.
   */
  steps?: Record<string, EngineStep>;
}

export interface EngineOptions {
  weights?: EngineWeights;
  activations?: EngineActivations;
  /** Bits of keys and values in the cache: 32 (default) or 8, one scale a token and head. */
  cache?: { bits?: 8 | 32 };
  /** How the matrices of the blocks are multiplied; default the fastest exact format. */
  format?: Format;
  /** Multiplies float32 matrices; default our kernels. */
  blas?: Blas | null;
  build?: IntegerBuild;
}

export interface EngineGenerateOptions extends SampleOptions {
  /** At most so many new tokens; default 64. */
  maxTokens?: number;
  /** Ends after any of these ids; default none. */
  stop?: number[];
  /** Called with each new token; false ends the generation. */
  onToken?: (id: number) => boolean | void;
}

/** A model in place, with the tokens that it has read. */
export interface Engine {
  /** Bytes of all parameters as inference reads them. */
  modelBytes: number;
  /** Bytes of the cache at maxPositions tokens. */
  cacheBytes: number;
  /** What multiplies: "simd128 float32", "simd128 int8". */
  name: string;
  /** Tokens read since the start or `reset`. */
  readonly length: number;
  /** Forgets the tokens read, or those from `length` on. */
  reset(length?: number): void;
  /** Reads tokens; the logits [V] after the last, or [T, V] after each. */
  prefill(
    ids: ArrayLike<number>,
    options?: { positions?: "last" | "all" },
  ): Float32Array;
  /** Reads one token; the logits [V] after it. */
  decode(id: number): Float32Array;
  /** Forgets what was read and continues a prompt of 1 to maxPositions tokens: the new ids. */
  generate(
    prompt: ArrayLike<number>,
    options?: EngineGenerateOptions,
  ): Int32Array;
  /** Mean loss over windows of T + 1 ids, each read from the start. */
  evaluate(windows: ArrayLike<number>[]): Evaluation;
}

/** One block in place. */
interface Block {
  inputNorm: number;
  q: Layer;
  k: Layer;
  v: Layer;
  o: Layer;
  postNorm: number;
  gate: Layer;
  up: Layer;
  down: Layer;
  prepare: { attention: Prepare; o: Prepare; mlp: Prepare; down: Prepare };
  round: Record<"q" | "k" | "v" | "softmax", RoundRows | undefined>;
}

/** The fastest exact format for codes of some bits. */
function defaultFormat(
  weightBits: number,
  activationBits: number,
  build: IntegerBuild,
): Format {
  if (weightBits <= 7 && build === "relaxed") return "bytes";
  return weightBits <= 4 && activationBits <= 4 ? "pairs" : "int8";
}

interface EngineBits {
  weights: number;
  head: number;
  /** Of all tokens, or of those that are not important. */
  activations: number;
  /** Of important tokens. */
  important: number;
}

function checkBits(
  { weights = {}, activations = {} }: EngineOptions,
): EngineBits {
  const { bits: weightBits = 32, headBits = 32 } = weights;
  const integers = weightBits < 32 || headBits < 32;
  const { bits: given = integers ? 8 : 32 } = activations;
  const [low, high] = typeof given === "number"
    ? [given, given]
    : [given.low ?? 4, given.high ?? 8];
  for (const bits of [weightBits, headBits, low, high]) {
    if (bits !== 32 && !(Number.isInteger(bits) && bits >= 2 && bits <= 8)) {
      throw new RangeError(
        `Cannot build an engine as bits must be 2 to 8, or 32 for floats: weights ${weightBits}, head ${headBits}, activations ${
          low === high ? low : `${low} and ${high}`
        }`,
      );
    }
  }
  if (low > high) {
    throw new RangeError(
      `Cannot build an engine as important tokens must have no fewer bits than the others: ${high} and ${low}`,
    );
  }
  if (integers !== low < 32 || integers !== high < 32) {
    throw new RangeError(
      `Cannot build an engine as weights and activations must both have 2 to 8 bits or both 32: weights ${weightBits}, activations ${
        low === high ? low : `${low} and ${high}`
      }`,
    );
  }
  return {
    weights: weightBits,
    head: headBits,
    activations: low,
    important: high,
  };
}

/** Layers whose input is quantised with a step of its own. */
const READERS =
  /^(model\.layers\.(\d+)\.(self_attn\.[qo]|mlp\.(gate|down))_proj|lm_head)$/;

/** What attention may round. */
const ATTENDED = /^model\.layers\.(\d+)\.self_attn\.([qkv]|softmax)$/;

/** Codes of a step in attention; those of probabilities begin at 0. */
function codesOf(
  module: string,
  { scale, zeroPoint = 0, bits = 8 }: EngineStep,
  signed: boolean,
): Codes {
  const { qmin, qmax } = grid({
    bits,
    signed: signed && !module.endsWith(".softmax"),
  });
  return { scale: scale!, zeroPoint, qmin, qmax };
}

/** Calibrated steps that no kernel would refuse before the first token, or at all. */
function checkSteps(
  steps: Record<string, EngineStep>,
  ofAll: number,
  signed: boolean,
  numLayers: number,
): void {
  for (const [module, step] of Object.entries(steps)) {
    const attended = ATTENDED.test(module);
    const layer = READERS.exec(module)?.[2] ?? ATTENDED.exec(module)?.[1] ?? 0;
    if (!READERS.test(module) && !attended || Number(layer) >= numLayers) {
      throw new RangeError(
        `Cannot build an engine as steps must be those of lm_head, or of q_proj, o_proj, gate_proj and down_proj, or q, k, v and softmax of self_attn, in one of ${numLayers} layers: ${module}`,
      );
    }
    const { scale, zeroPoint = 0, bits = ofAll } = step;
    const missing = attended && scale === undefined;
    if (missing || scale !== undefined && !(scale > 0 && scale < Infinity)) {
      throw new RangeError(
        `Cannot build an engine as the step of ${module} must be positive and finite: ${scale}`,
      );
    }
    if (attended) {
      if (!Number.isInteger(bits) || bits < 2 || bits > 8) {
        throw new RangeError(
          `Cannot build an engine as the step of ${module} must be one of 2 to 8 bits: ${bits}`,
        );
      }
      if (Number.isInteger(zeroPoint)) continue; // float32 codes hold any
      throw new RangeError(
        `Cannot build an engine as the zero point of ${module} must be a whole number: ${zeroPoint}`,
      );
    }
    if (bits > 8) continue;
    const { qmin, qmax } = grid({ bits, signed });
    if (
      !(Number.isInteger(zeroPoint) && zeroPoint >= qmin && zeroPoint <= qmax)
    ) {
      throw new RangeError(
        `Cannot build an engine as the zero point of ${module} must be a whole number from ${qmin} to ${qmax}: ${zeroPoint}`,
      );
    }
  }
}

/** The caller's choice of important tokens, checked. */
function choose(
  { important }: EngineTokenBits,
  scores: Float64Array,
): Uint8Array {
  const chosen = important(scores);
  if (chosen.length !== scores.length) {
    throw new RangeError(
      `Cannot give tokens bits as there must be a choice for each of ${scores.length} tokens: ${chosen.length}`,
    );
  }
  return chosen;
}

/** The same function, whose RangeErrors say in which module. */
function within<Args extends unknown[], Result>(
  module: string,
  work: (...args: Args) => Result,
): (...args: Args) => Result {
  return (...args) => {
    try {
      return work(...args);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new RangeError(`${error.message}, in ${module}`);
    }
  };
}

/** Symmetric codes to nearest, one scale an output. */
function nearestCodes(
  weight: Tensor,
  bits: number,
  module: string,
): WeightCodes {
  return quantizeCodes(weight, {
    grid: grid({ bits }),
    granularity: { channel: 0 },
    calibration: estimated(absMax, symmetric),
  }, `${module}.weight`);
}

/** Mean of -log p(next) and its perplexity; sums in double precision. */
function lossOf(
  rows: { logits: Float32Array; labels: ArrayLike<number> }[],
  V: number,
): Evaluation {
  let sum = 0;
  let tokens = 0;
  for (const { logits, labels } of rows) {
    for (let t = 0; t < labels.length; t++) {
      const row = logits.subarray(t * V, (t + 1) * V);
      let most = -Infinity;
      for (const x of row) if (x > most) most = x;
      let total = 0;
      for (const x of row) total += Math.exp(x - most);
      sum += most + Math.log(total) - row[labels[t]];
      tokens++;
    }
  }
  return { loss: sum / tokens, perplexity: Math.exp(sum / tokens), tokens };
}

/**
 * A model ready for inference; its parameters are copied, and may be disposed of.
 *
 * @param params From `initLlama` or a checkpoint.
 * @param config The shape of the model.
 * @throws {RangeError} If bits do not fit each other, a calibrated step is none, or a weight is NaN or infinite.
 * @throws {TypeError} If a parameter is missing or has another shape.
 *
 * @example
 * ```ts
 * const engine = createEngine(params, config, { weights: { bits: 4 }, activations: { bits: 8 } });
 * const logits = engine.prefill([1, 2, 3]);
 * logits.length; // config.vocabSize
 * engine.decode(4).length; // config.vocabSize
 * ```
 */
export function createEngine(
  params: LlamaParams,
  config: LlamaConfig,
  options: EngineOptions = {},
): Engine {
  const {
    vocabSize: V,
    hiddenSize: D,
    intermediateSize: F,
    numLayers,
    numHeads: H,
    numKvHeads: G,
    headDim: Dh,
    rmsNormEps,
    maxPositions,
    tieWordEmbeddings,
  } = resolveConfig(config);
  const {
    weights: weightBits,
    head: headBits,
    activations: activationBits,
    important: importantBits,
  } = checkBits(options);
  const { weights = {}, activations = {}, blas } = options;
  const tokenBits = typeof activations.bits === "object"
    ? activations.bits
    : null;
  const { symmetric, granularity, signed = true, steps = {} } = activations;
  checkSteps(steps, activationBits, signed, numLayers);
  checkSteps(tokenBits?.steps ?? {}, importantBits, signed, numLayers);
  const memory = openIntegerEngine({ build: options.build });
  const floats = openFloats(memory, { blas });
  const { kernels } = floats;
  checkParameters(params, config, "build an engine");
  const named = flatten(params as unknown as ParamTree);
  const shapes = parameterShapes(config);
  let modelBytes = 0;

  const tensor = (name: string): Tensor => named[name];
  const place = (name: string): number => {
    const values = tensor(name).dataSync() as Float32Array;
    modelBytes += values.byteLength;
    return putFloats(memory, values);
  };
  const format = options.format ??
    defaultFormat(weightBits, activationBits, memory.build);
  const headFormat = headBits === weightBits
    ? format
    : defaultFormat(headBits, importantBits, memory.build);

  const layer = (
    module: string,
    bits: number,
    own: Format,
    placed?: number,
    from = `${module}.weight`,
  ): Layer => {
    const weight = tensor(from);
    const [N, K] = weight.shape;
    const bias = `${module}.bias` in shapes
      ? tensor(`${module}.bias`).dataSync() as Float32Array
      : undefined;
    let made: Layer;
    if (bits === 32) {
      const values = weight.dataSync() as Float32Array;
      made = floatLayer(memory, floats, placed ?? values, N, K, bias);
    } else {
      const codes = weights.quantize?.(weight, module) ??
        nearestCodes(weight, bits, module);
      made = within(module, integerLayer)(memory, own, codes, N, K, bias);
    }
    if (placed === undefined) modelBytes += made.sizeBytes;
    return { ...made, run: within(module, made.run) };
  };
  const site = (module: string, bits: number, own: Format): Prepare => {
    if (bits === 32) return prepareFloats;
    const rule = { format: own, symmetric, granularity, signed };
    const low = { ...rule, bits: activationBits, ...steps[module] };
    if (tokenBits === null) return prepareIntegers(memory, low);
    return prepareMixed(memory, low, {
      ...rule,
      bits: importantBits,
      ...tokenBits.steps?.[module],
    });
  };

  /** How attention rounds one of its parts, if it has a step. */
  const rounding = (module: string): RoundRows | undefined => {
    const own = (from: Record<string, EngineStep> = {}, bits: number) =>
      module in from
        ? codesOf(module, { bits, ...from[module] }, signed)
        : undefined;
    const low = own(steps, activationBits);
    const high = own(tokenBits?.steps, importantBits);
    const byToken = tokenBits !== null && !module.endsWith(".softmax");
    if (byToken ? !low !== !high : high) {
      throw new RangeError(
        `Cannot build an engine as ${module} must have ${
          byToken
            ? "a step for important tokens and one for the others, or none"
            : "one step for all tokens, among those of the others"
        }: only that of ${low ? "the others" : "important tokens"}`,
      );
    }
    return low && openRounding(memory, floats, low, high);
  };

  const embedding = place("model.embed_tokens.weight");
  const blocks = Array.from({ length: numLayers }, (_, i): Block => {
    const name = `model.layers.${i}`;
    const own = (part: string) => layer(`${name}.${part}`, weightBits, format);
    const at = (part: string) => site(`${name}.${part}`, weightBits, format);
    return {
      inputNorm: place(`${name}.input_layernorm.weight`),
      q: own("self_attn.q_proj"),
      k: own("self_attn.k_proj"),
      v: own("self_attn.v_proj"),
      o: own("self_attn.o_proj"),
      postNorm: place(`${name}.post_attention_layernorm.weight`),
      gate: own("mlp.gate_proj"),
      up: own("mlp.up_proj"),
      down: own("mlp.down_proj"),
      prepare: {
        attention: at("self_attn.q_proj"),
        o: at("self_attn.o_proj"),
        mlp: at("mlp.gate_proj"),
        down: at("mlp.down_proj"),
      },
      round: {
        q: rounding(`${name}.self_attn.q`),
        k: rounding(`${name}.self_attn.k`),
        v: rounding(`${name}.self_attn.v`),
        softmax: rounding(`${name}.self_attn.softmax`),
      },
    };
  });
  const lastNorm = place("model.norm.weight");
  const tied = tieWordEmbeddings || !("lm_head" in params);
  const head = layer(
    "lm_head",
    headBits,
    headFormat,
    tied && headBits === 32 ? embedding : undefined,
    tied ? "model.embed_tokens.weight" : "lm_head.weight",
  );
  const prepareHead = site("lm_head", headBits, headFormat);
  const cache = openCache(memory, floats, {
    layers: numLayers,
    positions: maxPositions,
    heads: H,
    kvHeads: G,
    headDim: Dh,
    bits: options.cache?.bits ?? 32,
  });
  const { cos, sin } = ropeTables(maxPositions, ropeFrequencies(config), 0);
  const angles = { cos: putFloats(memory, cos), sin: putFloats(memory, sin) };
  let length = 0;

  const norm = (x: number, weight: number, y: number, rows: number) => {
    const inverses = memory.allocate(4 * rows);
    kernels.rmsNormForward(x, weight, y, inverses, rows, D, rmsNormEps);
  };
  const rotate = (x: number, rows: number, heads: number) => {
    const at = 4 * length * (Dh / 2);
    const { cos, sin } = angles;
    kernels.ropeForward(x, cos + at, sin + at, x, 1, rows, heads, Dh, 1);
  };
  /** Adds the layer's output to the residual stream. */
  const addOutput = (x: number, layer: Layer, input: LayerInput) => {
    const y = memory.allocate(4 * input.rows * D);
    layer.run(input, y);
    kernels.accumulate(y, x, input.rows * D);
  };
  /** Important tokens of those that are read, as the last attention chose them. */
  let important: Uint8Array | undefined;
  const selfAttention = (x: number, index: number, T: number) => {
    const block = blocks[index];
    const { round } = block;
    const n = memory.allocate(4 * T * D);
    norm(x, block.inputNorm, n, T);
    const input = block.prepare.attention(n, T, D, important);
    const q = memory.allocate(4 * T * H * Dh);
    const { k, v } = cache.room(index, length, T);
    block.q.run(input, q);
    block.k.run(input, k);
    block.v.run(input, v);
    rotate(q, T, H);
    rotate(k, T, G);
    round.q?.(q, T, H * Dh, important);
    round.k?.(k, T, G * Dh, important);
    cache.append(index, "k", length, T, k);
    if (tokenBits !== null) {
      const scores = cache.attentionToFirst(index, length, T, q);
      important = choose(tokenBits, scores.map((sum) => sum / H));
    }
    round.v?.(v, T, G * Dh, important);
    cache.append(index, "v", length, T, v);
    const mixed = memory.allocate(4 * T * H * Dh);
    cache.mix(index, length, T, q, mixed, round.softmax);
    addOutput(x, block.o, block.prepare.o(mixed, T, H * Dh, important));
  };
  const feedForward = (x: number, index: number, T: number) => {
    const { postNorm, gate, up, down, prepare } = blocks[index];
    const n = memory.allocate(4 * T * D);
    norm(x, postNorm, n, T);
    const input = prepare.mlp(n, T, D, important);
    const [g, u, s] = [0, 0, 0].map(() => memory.allocate(4 * T * F));
    gate.run(input, g);
    up.run(input, u);
    kernels.swigluForward(g, u, g, s, T * F);
    addOutput(x, down, prepare.down(g, T, F, important));
  };
  /** Reads ids; the logits of the last, or all, of them. */
  const read = (ids: ArrayLike<number>, all: boolean): Float32Array => {
    const T = ids.length;
    if (T === 0 || length + T > maxPositions) {
      throw new RangeError(
        `Cannot read tokens as there must be 1 to ${
          maxPositions - length
        } of them beside the ${length} read: ${T}`,
      );
    }
    const start = memory.mark();
    important = undefined;
    try {
      const x = memory.allocate(4 * T * D);
      const tokens = memory.allocate(4 * T);
      intsAt(memory, tokens, T).set(ids);
      const bad = kernels.gatherRows(tokens, embedding, x, T, V, D);
      if (bad >= 0) {
        throw new RangeError(
          `Cannot read tokens as ids must be in 0 to vocabSize - 1: vocabSize ${V}, id ${
            ids[bad]
          }`,
        );
      }
      for (let index = 0; index < numLayers; index++) {
        for (const half of [selfAttention, feedForward]) {
          const mark = memory.mark();
          half(x, index, T);
          memory.release(mark);
        }
      }
      const rows = all ? T : 1;
      const n = memory.allocate(4 * rows * D);
      norm(x + 4 * (T - rows) * D, lastNorm, n, rows);
      const logits = memory.allocate(4 * rows * V);
      head.run(prepareHead(n, rows, D), logits);
      length += T;
      return floatsAt(memory, logits, rows * V).slice();
    } finally {
      memory.release(start);
    }
  };

  const reset = (to = 0) => {
    if (!(Number.isInteger(to) && to >= 0 && to <= length)) {
      throw new RangeError(
        `Cannot forget tokens as the length must be 0 to ${length}: ${to}`,
      );
    }
    length = to;
  };
  return {
    modelBytes,
    cacheBytes: cache.sizeBytes,
    name: weightBits === 32
      ? `${floats.name} float32`
      : `${memory.build} ${format}`,
    get length() {
      return length;
    },
    reset,
    prefill: (ids, { positions = "last" } = {}) =>
      read(ids, positions === "all"),
    decode: (id) => read([id], false),
    generate(prompt, { maxTokens = 64, stop = [], onToken, ...sample } = {}) {
      const { key } = sample;
      if (prompt.length === 0 || prompt.length > maxPositions) {
        throw new RangeError(
          `Cannot generate as the prompt must have 1 to ${maxPositions} tokens: ${prompt.length}`,
        );
      }
      reset();
      const written: number[] = [];
      let next: ArrayLike<number> = prompt;
      while (
        written.length < maxTokens && length + next.length <= maxPositions
      ) {
        const id = sampleToken(read(next, false), {
          ...sample,
          key: key === undefined ? undefined : fold(key, written.length),
        });
        written.push(id);
        if (onToken?.(id) === false || stop.includes(id)) break;
        next = [id];
      }
      return Int32Array.from(written);
    },
    evaluate(windows) {
      if (windows.length === 0) {
        throw new RangeError(
          "Cannot evaluate as there must be at least one window of tokens: 0 windows",
        );
      }
      return lossOf(
        windows.map((window) => {
          reset();
          const ids = Array.from(window);
          return {
            logits: read(ids.slice(0, -1), true),
            labels: ids.slice(1),
          };
        }),
        V,
      );
    },
  };
}
