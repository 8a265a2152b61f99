/**
 * A language model whose weights and activations are quantised while it trains.
 *
 * Sites, as in the released code (arXiv 2402.10787; modeling_llama_qat): the input of attention, q and k
 * after the rotation, the softmax (8 bits at least), v, the input of the feed-forward layer and its gated
 * product. The input of o_proj, embeddings, norms and head stay float. The cache holds the quantised k and v.
 *
 * The model itself is that of core/llama.ts: what is quantised goes in through its hooks.
 *
 * Scope: fake quantisation. Token-adaptive bits need the whole sequence in one pass, so no cache.
 */
import {
  type Attend,
  forward,
  type ForwardOptions,
  type LlamaConfig,
  type LlamaParams,
  nestParams,
} from "../core/llama.ts";
import { matmul } from "../core/nn.ts";
import { checkParameters } from "../core/parameters.ts";
import {
  type FakeQuantizer,
  grid,
  type Rounding,
  uniformNoise,
} from "../core/quantizer.ts";
import { fold, type Key } from "../core/rng.ts";
import { flatten, type ParamTree, type Tensor, tf } from "../core/tensor.ts";
import {
  importantTokens,
  resolveTokenBits,
  type TokenBits,
  tokenScores,
} from "./importance.ts";
import type { Learned, Method, SchemeOptions } from "./methods.ts";

/** Fewest bits of the softmax probabilities (released code). */
export const SOFTMAX_BITS = 8;

export interface StudentOptions {
  method: Method;
  weightBits: number;
  /** For all tokens, or by their importance. */
  activationBits: number | TokenBits;
}

/** Learned numbers of a weight, or of a site for each of its bit widths. */
type SiteSteps = Record<string, Learned>;

/** A quantised model: its weights, and what its quantizers have learned. */
export interface Student {
  params: LlamaParams;
  config: LlamaConfig;
  options: StudentOptions;
  /** By site, then by bit width ("b4", "b8"). */
  steps: Record<string, SiteSteps>;
}

/** What one pass saw; the tensors are kept until `dispose`. */
export interface Trace {
  /** For each layer [B, T, H, Dh], as attention saw them. */
  q: Tensor[];
  /** For each layer [B, T, G, Dh]. */
  k: Tensor[];
  /** For each layer [B, H, T, T]: q k^T / sqrt(Dh), before the mask and the softmax. */
  scores: Tensor[];
  /** For each layer and sequence (or one row for the batch) which tokens are important. */
  important: Uint8Array[][];
  dispose(): void;
}

/** A way through the model: options for `forward`, and what they see. */
export interface Pass {
  options: ForwardOptions;
  trace: Trace;
}

// Sites ---------------------------------------------------------------------------------------------

/** "b4": learned numbers of one width. */
const widthName = (bits: number) => `b${bits}`;

/** The site that a hook of `forward` belongs to; undefined if it stays float. */
export function siteOf(hook: string): string | undefined {
  const [, layer, part] = /^(model\.layers\.\d+)\.(.*)$/.exec(hook) ?? [];
  switch (part) {
    case "self_attn.q_proj.input":
    case "self_attn.k_proj.input":
    case "self_attn.v_proj.input":
      return `${layer}.self_attn.input`;
    case "self_attn.q":
    case "self_attn.k":
    case "self_attn.v":
      return `${layer}.${part}`;
    case "mlp.gate_proj.input":
    case "mlp.up_proj.input":
      return `${layer}.mlp.input`;
    case "mlp.down_proj.input":
      return `${layer}.mlp.product`;
  }
  return undefined;
}

const softmaxSite = (layer: number) =>
  `model.layers.${layer}.self_attn.softmax`;

/** Whether a module's weight is quantised: those of the blocks. */
const hasWeightSite = (module: string) => module.startsWith("model.layers.");

const layerOf = (site: string) => Number(site.split(".")[2]);

/** The widths at which a site may be quantised. */
function widthsOf(site: string, { activationBits }: StudentOptions): number[] {
  const bits = typeof activationBits === "number"
    ? [activationBits]
    : [resolveTokenBits(activationBits).low, activationBits.high ?? 8];
  return site.endsWith(".softmax")
    ? [Math.max(SOFTMAX_BITS, ...bits)]
    : [...new Set(bits)];
}

/** Codes of activations lie on both sides of 0, those of probabilities do not. */
const siteOptions = (site: string, bits: number): SchemeOptions => ({
  bits,
  signed: !site.endsWith(".softmax"),
});

// Attention -----------------------------------------------------------------------------------------

/** Taken from scores that the mask hides. */
const HIDDEN = 1e9;

/** 1 where query t sees key s, else 0: [T, S]. */
function causalMask(T: number, S: number): Tensor {
  const seen = new Float32Array(T * S);
  for (let t = 0; t < T; t++) seen.fill(1, t * S, t * S + S - T + t + 1);
  return tf.tensor2d(seen, [T, S]);
}

/** [B, S, G, Dh] as [B, H, S, Dh]: each key head once for every query head that it serves. */
function headsFirst(x: Tensor, H: number): Tensor {
  const [B, S, G, Dh] = x.shape as [number, number, number, number];
  const rows = x.transpose([0, 2, 1, 3]); // [B, G, S, Dh]
  if (G === H) return rows;
  return rows.reshape([B, G, 1, S * Dh]).tile([1, 1, H / G, 1])
    .reshape([B, H, S, Dh]);
}

interface AttentionParts {
  /** Sees scores and probabilities of a layer, [B, H, T, S]; the scores may be kept. */
  see(scores: Tensor, probabilities: Tensor, layer: number): void;
  probabilities?: (p: Tensor, layer: number) => Tensor;
  values?: (v: Tensor, layer: number) => Tensor;
}

/**
 * Causal attention whose scores, probabilities and values can be seen and changed.
 *
 * Keys that the mask hides have no weight, whatever becomes of a probability of 0: noise, or a zero point beyond
 * the codes, would let the student see ahead.
 */
function openAttention({ see, probabilities, values }: AttentionParts): Attend {
  return (q, k, v, layer) =>
    tf.tidy(() => {
      const [, T, H, Dh] = q.shape as [number, number, number, number];
      const S = k.shape[1]!;
      const scores = matmul(
        headsFirst(q, H),
        headsFirst(k, H),
        { transposeB: true },
      ).mul(1 / Math.sqrt(Dh)); // [B, H, T, S]
      const seen = causalMask(T, S);
      const p = tf.softmax(scores.add(seen.sub(1).mul(HIDDEN)));
      see(scores, p, layer);
      const weights = probabilities?.(p, layer).mul(seen) ?? p;
      const mixed = matmul(
        weights,
        headsFirst(values?.(v, layer) ?? v, H),
      ); // [B, H, T, Dh]
      return mixed.transpose([0, 2, 1, 3]);
    });
}

function newTrace(): Trace {
  const trace: Trace = {
    q: [],
    k: [],
    scores: [],
    important: [],
    dispose() {
      tf.dispose([trace.q, trace.k, trace.scores]);
    },
  };
  return trace;
}

/** A pass through a float model that keeps q, k and scores: the teacher's. */
export function floatPass(): Pass {
  const trace = newTrace();
  return {
    trace,
    options: {
      onActivation(name, x) {
        const kind = /\.self_attn\.(q|k)$/.exec(name)?.[1];
        if (kind !== undefined) {
          trace[kind as "q" | "k"].push(tf.keep(x.clone()));
        }
      },
      attend: openAttention({
        see: (scores, _, layer) => {
          trace.scores[layer] = tf.keep(scores.clone());
        },
      }),
    },
  };
}

// The quantised model -------------------------------------------------------------------------------

/** The numbers at each site of the float model, over all batches. */
function observeSites(
  params: LlamaParams,
  config: LlamaConfig,
  batches: Tensor[],
): Record<string, Tensor> {
  const seen: Record<string, Tensor[]> = {};
  const see = (site: string, x: Tensor) => {
    (seen[site] ??= []).push(tf.keep(x.flatten()));
  };
  const attend = openAttention({
    see: (_, p, layer) => see(softmaxSite(layer), p),
  });
  for (const ids of batches) {
    const first = new Set<string>();
    tf.tidy(() => {
      forward(params, config, ids, {
        attend,
        positions: "last",
        onActivation(name, x) {
          const site = siteOf(name);
          if (site === undefined || first.has(site)) return; // one input of several projections
          first.add(site);
          see(site, x);
        },
      });
    });
  }
  return Object.fromEntries(
    Object.entries(seen).map(([site, parts]) => {
      const all = tf.concat(parts);
      tf.dispose(parts);
      return [site, all];
    }),
  );
}

/** Variables with the values of a scheme's start; the given tensors are disposed. */
function asVariables(start: Learned): Learned {
  return Object.fromEntries(
    Object.entries(start).map(([name, tensor]) => {
      const variable = tf.variable(tensor);
      tensor.dispose();
      return [name, variable as Tensor];
    }),
  );
}

/**
 * A student that starts from a float model: its quantizers take their first values from the weights and
 * from what the float model computes on calibration text.
 *
 * @param params are the student's own from now on
 * @param calibration int32 [B, T] each; never text that is evaluated on
 * @throws {RangeError} if bits are none of 2 to 8, 16, 32, a weight is not finite, or there is no batch
 * @throws {TypeError} if the parameters are not those of the configuration
 */
export function createStudent(
  params: LlamaParams,
  config: LlamaConfig,
  options: StudentOptions,
  calibration: Tensor[],
): Student {
  const { method, weightBits } = options;
  for (const side of ["weight", "activation"] as const) {
    if (typeof method?.[side]?.start === "function") continue;
    throw new RangeError(
      `Cannot quantise as the method must have a scheme for ${side}s: ${
        JSON.stringify(method) ?? "none"
      }; take one of METHODS by methodOf(name)`,
    );
  }
  for (const bits of [weightBits, ...widthsOf("", options)]) grid({ bits });
  if (calibration.length === 0) {
    throw new RangeError(
      "Cannot calibrate the student as there must be at least one batch of text: 0 batches",
    );
  }
  checkParameters(params, config, "quantise");
  const steps: Student["steps"] = {};
  for (const [name, weight] of Object.entries(flatten(params))) {
    const module = name.replace(/\.weight$/, "");
    if (!/_proj$/.test(module)) continue;
    const start = weightBits > 8
      ? {}
      : method.weight.start(weight, { bits: weightBits, signed: true });
    steps[module] = { [widthName(weightBits)]: asVariables(start) };
  }
  const seen = observeSites(params, config, calibration);
  for (const [site, x] of Object.entries(seen)) {
    steps[site] = Object.fromEntries(
      widthsOf(site, options).map((bits) => [
        widthName(bits),
        bits > 8
          ? {}
          : asVariables(method.activation.start(x, siteOptions(site, bits))),
      ]),
    );
    x.dispose();
  }
  return { params, config, options, steps };
}

/** What training may change: weights and steps, as one tree. */
export function trainableOf({ params, steps }: Student): ParamTree {
  return { ...params, steps: steps as unknown as ParamTree };
}

/** 1 where a token is important: [B or 1, T, 1 ...] of as many axes as x. */
function maskOf(important: Uint8Array[], rank: number): Tensor {
  const T = important[0].length;
  const values = new Float32Array(important.length * T);
  important.forEach((row, b) => values.set(row, b * T));
  const ones = new Array(rank - 2).fill(1);
  return tf.tensor(values, [important.length, T, ...ones]);
}

/**
 * A pass through the student.
 *
 * @param noise in training: the source of NIPQ's noise, another one for each step
 * @param record keeps q, k and scores in the trace for the losses; the caller disposes it
 */
export function studentPass(
  { options: { method, weightBits, activationBits }, options, steps }: Student,
  { noise, record = false }: { noise?: Key; record?: boolean } = {},
): Pass {
  const trace = newTrace();
  const mixed = typeof activationBits === "number"
    ? null
    : resolveTokenBits(activationBits);
  const rounding = (site: string): Rounding | undefined =>
    noise === undefined ? undefined : uniformNoise(fold(noise, site));

  const atWidth = (site: string, bits: number): FakeQuantizer =>
    bits > 8 ? (x) => x : method.activation.quantizer(
      steps[site][widthName(bits)],
      siteOptions(site, bits),
      rounding(site),
    );

  /** x at the site, with `important` tokens at the higher width. */
  const quantize = (site: string, x: Tensor, important?: Uint8Array[]) => {
    const widths = widthsOf(site, options);
    if (mixed === null || widths.length === 1) {
      return atWidth(site, widths[0])(x);
    }
    if (important === undefined) return atWidth(site, mixed.high)(x);
    return tf.tidy(() => {
      const high = maskOf(important, x.rank);
      const low = tf.sub(1, high);
      // Two groups, each with its own scale: a min-max range sees zeros in place of the other group.
      const part = (bits: number, mask: Tensor) =>
        atWidth(site, bits)(x.mul(mask)).mul(mask);
      return part(mixed.high, high).add(part(mixed.low, low));
    });
  };

  /** Tokens as attention of this layer and of the one before ranks them. */
  const before = (layer: number) => trace.important[layer - 1];

  const last = new Map<string, { input: Tensor; output: Tensor }>();
  const onActivation: ForwardOptions["onActivation"] = (name, x) => {
    const site = siteOf(name);
    if (site === undefined) return;
    const previous = last.get(site);
    if (previous?.input === x) return previous.output; // one input of several projections
    const layer = layerOf(site);
    const kind = /\.self_attn\.(q|k|v)$/.exec(site)?.[1];
    if (kind === "v" && mixed !== null) return; // quantised by attention, which ranks first
    const ofAttention = site.includes(".self_attn.");
    const output = quantize(
      site,
      x,
      mixed === null
        ? undefined
        : ofAttention
        ? before(layer)
        : trace.important[layer],
    );
    last.set(site, { input: x, output });
    if (record && (kind === "q" || kind === "k")) {
      trace[kind].push(tf.keep(output.clone()));
    }
    return output;
  };

  const attend = openAttention({
    see(scores, p, layer) {
      if (record) trace.scores[layer] = tf.keep(scores.clone());
      if (mixed === null) return;
      const [, , T, S] = scores.shape;
      if (T !== S) {
        throw new RangeError(
          `Cannot give tokens bits by importance as all must be in one pass, without a cache: ${T} of ${S} tokens`,
        );
      }
      trace.important[layer] = tokenScores(scores, p, mixed)
        .map((row) =>
          importantTokens(row, mixed.importantRatio, mixed.ranking)
        );
    },
    probabilities: (p, layer) => quantize(softmaxSite(layer), p),
    values: mixed === null ? undefined : (v, layer) =>
      quantize(
        `model.layers.${layer}.self_attn.v`,
        v,
        trace.important[layer],
      ),
  });

  return {
    trace,
    options: {
      onActivation,
      attend,
      quantizer: (module) => {
        if (!hasWeightSite(module) || weightBits > 8) return undefined;
        const weight = method.weight.quantizer(
          steps[module][widthName(weightBits)],
          { bits: weightBits, signed: true },
          rounding(module),
        );
        return { weight };
      },
    },
  };
}

/** Options of `forward` and the evaluations of core/llama.ts that compute as the student does. */
export function inferenceOptions(student: Student): ForwardOptions {
  return studentPass(student).options;
}

/**
 * The student with its weights rounded once: it computes the same numbers, without rounding them at every pass.
 *
 * @param student as it is after training; what is rounded here no longer follows it
 * @returns weights of its own, which the caller disposes, and the student's steps
 */
export function frozen(student: Student): Student {
  const { params, options, steps } = student;
  const { method, weightBits: bits } = options;
  const rounded = Object.entries(flatten(params)).map(([name, weight]) => {
    const learned = steps[name.replace(/\.weight$/, "")]?.[widthName(bits)];
    const round = bits > 8 || learned === undefined
      ? (x: Tensor) => x.clone()
      : method.weight.quantizer(learned, { bits, signed: true });
    return [name, tf.tidy(() => round(weight))] as const;
  });
  return {
    ...student,
    params: nestParams(Object.fromEntries(rounded)),
    options: { ...options, weightBits: 16 },
  };
}
