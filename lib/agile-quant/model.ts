/**
 * The whole method on a LLaMA: where activations are quantised, calibration, and one forward pass with its
 * quantizers and its pruned tokens.
 *
 * Sites are those of the released code: outputs of the norms, of q, k and v before their rotation, of softmax
 * (4-bit log2), of attention, and the product in the feed-forward layer. Embedding, head, norms, softmax and
 * SwiGLU compute in float, as in the paper. Attention's output, the second norm's and the product take few bits
 * for tokens of little importance.
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | X | value at a site | [B, T, C] |
 * | attn | probabilities | [B, H, T, T] |
 *
 * Scope: fake quantisation and prefill. With a cache there is one token per step, and nothing is pruned.
 */
import {
  type Attend,
  type ForwardOptions,
  hiddenStates,
  type LlamaConfig,
  type LlamaParams,
  resolveConfig,
  ropeFrequencies,
} from "../core/llama.ts";
import type { Adapter } from "../core/nn.ts";
import { grid, log2 } from "../core/quantizer.ts";
import { fold, type Key, key } from "../core/rng.ts";
import { type Tensor, tf } from "../core/tensor.ts";
import {
  addErrors,
  type ChannelRange,
  quantizeSite,
  type Scheme,
  SCHEMES,
  type SiteSteps,
  stepsOf,
  widen,
  withFactors,
} from "./activation.ts";
import { divideTokens, type Importance, tokenScores } from "./tokens.ts";
import { DEFAULT_MAX_FACTOR, isFactor, LARGEST_FACTOR } from "./trip.ts";

/** Kinds of sites, in the order of a block. */
export const SITES = [
  "norm",
  "q",
  "k",
  "v",
  "attention",
  "mlp",
  "product",
] as const;
export type Site = typeof SITES[number];

/** Sites whose tokens of little importance take few bits. */
const MIXED: readonly Site[] = ["attention", "mlp", "product"];

/** How activations are quantised. */
export interface ActivationOptions {
  /** Of every site, or by site; 16 and 32 quantise nothing. Default 8. */
  bits?: number | Partial<Record<Site, number>>;
  /** Of attention, second norm and product for tokens of little importance; default 4. */
  lowBits?: number;
  /** Default "trip". */
  scheme?: Scheme;
  /** K of TRIP; default 8. */
  maxFactor?: number;
  /** Default 4-bit log2. */
  softmax?: "log2" | "float";
}

/** Which tokens go, and which get few bits; by layer. */
export interface TokenOptions {
  /** See `pruneSchedule`; default none. */
  pruneRatios?: number[];
  /** Shares of tokens that get few bits; default none. */
  lowRatios?: number[];
  /** Default "first-token". */
  importance?: Importance;
  /** Of the tokens left: 0, 1, 2 ..., as released (default), or where they stood. */
  positions?: "renumbered" | "original";
  /** For random importance. */
  key?: Key;
}

/** Everything fixed before a pass. */
export interface Plan {
  config: LlamaConfig;
  activation: Required<ActivationOptions> & {
    bits: Record<Site, number>;
  };
  tokens: Required<TokenOptions>;
  /** By site, "model.layers.0.norm"; of low bits, "model.layers.0.mlp.low". */
  steps: Record<string, SiteSteps>;
}

/** One forward pass; a plan's pass is used once. */
export interface Pass {
  options: ForwardOptions;
  /** Places of the tokens that are left, for each sequence, once the pass is over. */
  kept(): number[][];
  /** Tokens left behind each layer. */
  counts(): number[];
}

// Plans -----------------------------------------------------------------------

/** "model.layers.0.self_attn.q_proj.input" -> "model.layers.0.norm"; null where nothing is quantised. */
export function siteOf(hook: string): { site: Site; name: string } | null {
  const found = /^(model\.layers\.\d+)\.(?:self_attn|mlp)\.(\w+)_proj\.input$/
    .exec(hook);
  if (found === null) return null;
  const kinds: Record<string, Site> = {
    q: "norm",
    k: "norm",
    v: "norm",
    o: "attention",
    gate: "mlp",
    up: "mlp",
    down: "product",
  };
  const site = kinds[found[2]];
  return { site, name: `${found[1]}.${site}` };
}

/** Fills in defaults and checks what the model allows. */
export function plan(
  config: LlamaConfig,
  activation: ActivationOptions = {},
  tokens: TokenOptions = {},
): Plan {
  const { numLayers } = resolveConfig(config);
  const {
    bits = 8,
    lowBits = 4,
    scheme = "trip",
    maxFactor = DEFAULT_MAX_FACTOR,
  } = activation;
  if (!SCHEMES.includes(scheme)) {
    throw new RangeError(
      `Cannot plan as the scheme must be one of ${
        SCHEMES.join(", ")
      }: ${scheme}`,
    );
  }
  if (!isFactor(maxFactor)) {
    throw new RangeError(
      `Cannot plan as maxFactor must be a whole number from 0 to ${LARGEST_FACTOR}: ${maxFactor}`,
    );
  }
  const bySite = Object.fromEntries(
    SITES.map((site) => [
      site,
      typeof bits === "number" ? bits : bits[site] ?? 8,
    ]),
  ) as Record<Site, number>;
  for (const b of [...Object.values(bySite), lowBits]) grid({ bits: b });
  const shares = (ratios: number[] | undefined, what: string) => {
    const list = ratios ?? new Array<number>(numLayers).fill(0);
    if (list.length !== numLayers || list.some((r) => !(r >= 0 && r <= 1))) {
      throw new RangeError(
        `Cannot plan as there must be a ${what} from 0 to 1 for each of ${numLayers} layers: ${list}`,
      );
    }
    return list;
  };
  return {
    config,
    activation: {
      bits: bySite,
      lowBits,
      maxFactor,
      scheme,
      softmax: activation.softmax ?? "log2",
    },
    tokens: {
      pruneRatios: shares(tokens.pruneRatios, "share of pruned tokens"),
      lowRatios: shares(tokens.lowRatios, "share of few bits"),
      importance: tokens.importance ?? "first-token",
      positions: tokens.positions ?? "renumbered",
      key: tokens.key ?? key(0),
    },
    steps: {},
  };
}

// One pass --------------------------------------------------------------------

/** softmax(Q K^T / sqrt(Dh)) of causal attention, [B, H, T, S]. */
function probabilities(q: Tensor, k: Tensor): Tensor {
  const [, T, H, Dh] = q.shape;
  const [, S, G] = k.shape;
  const rows = q.transpose([0, 2, 1, 3]); // [B, H, T, Dh]
  const keys = perQueryHead(k.transpose([0, 2, 1, 3]), H! / G!);
  const scores = tf.matMul(rows, keys, false, true).div(Math.sqrt(Dh!));
  const hidden = new Float32Array(T! * S!);
  for (let t = 0; t < T!; t++) {
    hidden.fill(-Infinity, t * S! + t + S! - T! + 1, (t + 1) * S!);
  }
  return tf.softmax(scores.add(tf.tensor2d(hidden, [T!, S!])));
}

/** [B, G, S, Dh] with each key head as often as query heads share it. */
function perQueryHead(x: Tensor, times: number): Tensor {
  if (times === 1) return x;
  const G = x.shape[1]!;
  const heads = Int32Array.from(
    { length: G * times },
    (_, h) => Math.floor(h / times),
  );
  return x.gather(tf.tensor1d(heads, "int32"), 1);
}

/** Rows of x [B, T, D] at each sequence's places, [B, n, D]. */
function takeTokens(x: Tensor, places: number[][]): Tensor {
  const [B, T, D] = x.shape as number[];
  const flat = places.flatMap((row, b) => row.map((t) => b * T + t));
  return tf.tidy(() =>
    x.reshape([B * T, D]).gather(tf.tensor1d(flat, "int32"))
      .reshape([B, places[0].length, D])
  );
}

/** Turns x [B, T, H, Dh], rotated for positions 0, 1, 2 ..., to the positions given: another rotation by the rest. */
function moveTo(
  x: Tensor,
  positions: number[][],
  frequencies: Float64Array,
): Tensor {
  const [B, T, , Dh] = x.shape as number[];
  const half = Dh / 2;
  const cos = new Float32Array(B * T * half);
  const sin = new Float32Array(B * T * half);
  positions.forEach((row, b) =>
    row.forEach((position, t) => {
      for (let i = 0; i < half; i++) {
        const angle = (position - t) * frequencies[i];
        cos[(b * T + t) * half + i] = Math.cos(angle);
        sin[(b * T + t) * half + i] = Math.sin(angle);
      }
    })
  );
  return tf.tidy(() => {
    const [c, s] = [cos, sin].map((a) => tf.tensor(a, [B, T, 1, half]));
    const [x1, x2] = tf.split(x, 2, 3);
    return tf.concat([x1.mul(c).sub(x2.mul(s)), x2.mul(c).add(x1.mul(s))], 3);
  });
}

/** Sees a site's value and may replace it. */
type Visit = (name: string, x: Tensor) => Tensor | undefined;

/** One forward pass whose sites are seen by `visit`. */
function startPass(plan: Plan, visit: Visit): Pass {
  const { config, activation, tokens } = plan;
  const { numLayers } = resolveConfig(config);
  const frequencies = ropeFrequencies(config);
  const quantizeSoftmax = log2({ bits: 4 });
  let kept: number[][] = []; // [B][tokens left], places in the input
  let low: number[][] = []; // [B], places among the tokens left
  let division: { kept: number[][]; low: number[][] } | null = null;
  let counts: number[] = [];
  /** What the last linear layers were given: q, k and v share theirs. */
  let last: { x: Tensor; y: Tensor | undefined } | null = null;

  const active = (i: number) =>
    tokens.pruneRatios[i] > 0 || tokens.lowRatios[i] > 0;

  const divide = (p: Tensor, layer: number) => {
    const [B, H, T] = p.shape as number[];
    if (T === 1 || !active(layer)) {
      division = { kept: kept.map((row) => row.map((_, i) => i)), low };
      return;
    }
    const values = p.dataSync() as Float32Array;
    const size = H * T * T;
    const parts = Array.from({ length: B }, (_, b) =>
      divideTokens(
        tokenScores(
          values.subarray(b * size, (b + 1) * size),
          T,
          tokens.importance,
          fold(fold(tokens.key, layer), b),
        ),
        {
          remove: tokens.pruneRatios[layer],
          low: tokens.lowRatios[layer],
          inherited: low[b],
        },
      ));
    division = {
      kept: parts.map((part) => part.kept),
      low: parts.map((part) => part.low),
    };
  };

  const attend: Attend = (q, k, v, layer) =>
    tf.tidy(() => {
      const heads = perQueryHead(
        v.transpose([0, 2, 1, 3]),
        q.shape[2]! / v.shape[2]!,
      );
      const p = probabilities(q, k);
      const codes = activation.softmax === "log2" ? quantizeSoftmax(p) : p;
      divide(codes, layer);
      return tf.matMul(codes, heads).transpose([0, 2, 1, 3]);
    });

  const begin = ([B, T]: number[]) => {
    kept = Array.from(
      { length: B },
      () => Array.from({ length: T }, (_, t) => t),
    );
    low = kept.map(() => []);
    counts = [];
  };

  /** Few bits for the tokens that were chosen. */
  const mixed = (name: string, site: Site, x: Tensor): Tensor | undefined => {
    const y = visit(name, x);
    const chosen = site === "attention" ? division?.low ?? low : low;
    if (!MIXED.includes(site) || chosen.every((row) => row.length === 0)) {
      return y;
    }
    const few = visit(`${name}.low`, x);
    if (few === undefined) return y;
    const [B, T] = x.shape as number[];
    const mask = new Uint8Array(B * T);
    chosen.forEach((row, b) => row.forEach((t) => mask[b * T + t] = 1));
    return tf.where(tf.tensor(mask, [B, T, 1], "bool"), few, y ?? x);
  };

  const adapters: Record<string, Adapter> = {};
  for (let i = 0; i < numLayers; i++) {
    for (const site of ["q", "k", "v"]) {
      adapters[`model.layers.${i}.self_attn.${site}_proj`] = {
        apply: (x, weight, base) => {
          const y = base(x, weight);
          return visit(`model.layers.${i}.${site}`, y) ?? y;
        },
      };
    }
  }

  const onActivation = (hook: string, x: Tensor): Tensor | void => {
    if (hook === "model.embed_tokens.output") return begin(x.shape);
    const found = siteOf(hook);
    if (found !== null) {
      if (last?.x !== x) last = { x, y: mixed(found.name, found.site, x) };
      return last.y;
    }
    if (hook.endsWith(".residual")) {
      const { kept: places, low: few } = division!;
      const before = kept[0].length;
      low = few.map((row, b) => {
        const place = new Map(places[b].map((t, i) => [t, i]));
        return row.map((t) => place.get(t)!);
      });
      kept = kept.map((row, b) => places[b].map((t) => row[t]));
      counts.push(kept[0].length);
      return kept[0].length === before ? undefined : takeTokens(x, places);
    }
    if (/\.self_attn\.[qk]$/.test(hook) && tokens.positions === "original") {
      return moveTo(x, kept, frequencies);
    }
  };
  return {
    options: { attend, onActivation, adapters },
    kept: () => kept,
    counts: () => counts,
  };
}

/** Bits of a site by name; those of ".low" for tokens of little importance. */
function bitsOf(name: string, { bits, lowBits }: Plan["activation"]): number {
  return name.endsWith(".low") ? lowBits : bits[name.split(".").at(-1) as Site];
}

/**
 * A pass that quantises by the plan's steps.
 *
 * @throws {RangeError} in the pass, if a site that has bits has no step: the plan is not calibrated
 */
export function quantizedPass(plan: Plan): Pass {
  return startPass(plan, (name, x) => {
    const bits = bitsOf(name, plan.activation);
    if (bits > 8) return undefined;
    const steps = plan.steps[name];
    if (steps === undefined) {
      throw new RangeError(
        `Cannot quantise ${name} to ${bits} bits as the plan must have steps for it: none; call calibratePlan first`,
      );
    }
    return quantizeSite(x, steps);
  });
}

// Calibration -----------------------------------------------------------------

/** Ranges of all sites' channels over a calibration set, in float but with the plan's tokens and softmax. */
export function siteRanges(
  params: LlamaParams,
  plan: Plan,
  batches: Tensor[],
): Record<string, ChannelRange> {
  const ranges: Record<string, ChannelRange> = {};
  observe(params, plan, batches, (name, x) => {
    ranges[name] = widen(ranges[name], x, name);
  });
  return ranges;
}

/** Runs the model on all batches with an eye on its sites. */
function observe(
  params: LlamaParams,
  plan: Plan,
  batches: Tensor[],
  see: (name: string, x: Tensor) => void,
): void {
  if (batches.length === 0) {
    throw new RangeError(
      "Cannot calibrate as there must be at least one batch: 0 batches",
    );
  }
  for (const ids of batches) {
    const { options } = startPass(plan, (name, x) => {
      see(name, x);
      return undefined;
    });
    hiddenStates(params, plan.config, ids, options).dispose();
  }
}

/**
 * The plan with steps for every site, from what flows through the model on a calibration set.
 *
 * Ranges are those of all batches (min-max, as released); TRIP's factors take a second pass. Tokens that the plan
 * prunes are not seen by later sites: TRIP's X is the pruned activation.
 *
 * @param batches int32 [B, T] each
 * @throws {RangeError} if there is no batch, or a number is NaN or infinite; the message has the site
 */
export function calibratePlan(
  params: LlamaParams,
  plan: Plan,
  batches: Tensor[],
): Plan {
  const { scheme, maxFactor } = plan.activation;
  const ranges = siteRanges(params, plan, batches);
  const steps: Record<string, SiteSteps> = {};
  for (const [name, range] of Object.entries(ranges)) {
    const bits = bitsOf(name, plan.activation);
    if (bits > 8) continue;
    const own = scheme === "trip" && /\.[qkv]$/.test(name) ? "layer" : scheme;
    steps[name] = stepsOf(range, bits, own, maxFactor);
  }
  const fitted = Object.keys(steps)
    .filter((name) => steps[name].scheme === "trip");
  if (fitted.length > 0) {
    const errors: Record<string, Float64Array> = {};
    observe(params, plan, batches, (name, x) => {
      if (!fitted.includes(name)) return;
      errors[name] = addErrors(errors[name], x, steps[name], maxFactor);
    });
    for (const name of fitted) {
      steps[name] = withFactors(steps[name], errors[name], maxFactor);
    }
  }
  return { ...plan, steps };
}
