/**
 * Low-rank adapters: LoRA, RoRA (= rsLoRA) and DoRA as one adapter.
 *
 * - RoRA: Liu et al., "RoRA: Efficient Fine-Tuning of LLM with Reliability Optimization for Rank
 *   Adaptation", ICASSP 2025, arXiv 2501.04315.
 * - LoRA: Hu et al., arXiv 2106.09685. rsLoRA: Kalajdzievski, arXiv 2312.03732.
 * - DoRA: Liu et al., arXiv 2402.09353.
 *
 * A frozen weight W0 gets a trainable low-rank update: h = W0 x + gamma B A x. LoRA takes
 * gamma = alpha / r, so the update shrinks as the rank grows; RoRA takes gamma = alpha / sqrt(r), which
 * keeps the gradient norm of the adapter independent of the rank. That factor is exactly the one of
 * rsLoRA, published a year earlier: `scaling: "rora"` is both. DoRA splits the adapted weight into a
 * direction and a trainable length per output row, and can be combined with either factor.
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | W0 | weight | [out, in], frozen |
 * | A, B | loraA, loraB | [R, in], [out, R] |
 * | r, alpha, gamma | rank, alpha, scale | numbers |
 * | dW = gamma B A | deltaWeight() | [out, in] |
 * | m | magnitude | [out] |
 * | norm(W0 + dW) | adaptedNorms() | [out], one per output row |
 *
 * Scope: every linear layer of a model, merging, dropout on the adapter's input. Of the RoRA paper
 * only the abstract was available: the factor is quoted from it, while the initialisation (LoRA's) and
 * the gradient argument (see `roraScale`) are reconstructions. Absent: adapters on embeddings,
 * convolutions and biases; several adapters on one weight.
 */
import {
  flatten,
  type ParamTree,
  type Tensor,
  tf,
  type Variable,
} from "../core/tensor.ts";
import { type Adapter, add, linear, matmul } from "../core/nn.ts";
import { fold, type Key, uniform } from "../core/rng.ts";

/** The factor before B A: `"lora"` is alpha / r, `"rora"` is alpha / sqrt(r), also known as rsLoRA. */
export type Scaling = "lora" | "rora";

/** `"dora"` trains a length per output row beside the low-rank direction. */
export type Decompose = "none" | "dora";

/** The modules that the DoRA authors adapt in LLaMA (NVlabs/DoRA, llama_7B_Dora.sh). */
export const DEFAULT_TARGETS: readonly string[] = [
  "q_proj",
  "k_proj",
  "v_proj",
  "up_proj",
  "down_proj",
];

/** The methods compared, as options; the published DoRA divides alpha by r, "dora-sqrt" is our ablation. */
export const METHODS = {
  lora: { scaling: "lora", decompose: "none" },
  rora: { scaling: "rora", decompose: "none" },
  dora: { scaling: "lora", decompose: "dora" },
  "dora-sqrt": { scaling: "rora", decompose: "dora" },
} as const satisfies Record<
  string,
  { scaling: Scaling; decompose: Decompose }
>;

export interface AdapterOptions {
  /** R, from 1 to min(in, out) of every adapted weight. */
  rank?: number;
  /** Numerator of the factor, above 0. */
  alpha?: number;
  scaling?: Scaling;
  decompose?: Decompose;
  /** Names or ends of names of modules, a pattern on the whole name, or every linear layer but the head. */
  targets?: readonly string[] | RegExp | "all-linear";
  /** Other ranks for modules whose name, or its end after a dot, matches the pattern; the first match counts. */
  rankPattern?: Record<string, number>;
  /** Other alphas, chosen in the same way. */
  alphaPattern?: Record<string, number>;
  /** Share of the adapter's input that is set to zero in training, from 0 to below 1. */
  dropout?: number;
}

/** Options with every default filled in and the targets as a list. */
export interface AdapterConfig {
  rank: number;
  alpha: number;
  scaling: Scaling;
  decompose: Decompose;
  targets: string[];
  rankPattern: Record<string, number>;
  alphaPattern: Record<string, number>;
  dropout: number;
}

/** The adapter of one weight. */
export interface LowRank {
  loraA: Variable; // [R, in]
  loraB: Variable; // [out, R]
  /** DoRA's m, or null without decomposition. */
  magnitude: Variable | null; // [out]
  rank: number;
  alpha: number;
  /** gamma. */
  scale: number;
}

/** The adapters of a model. */
export interface AdapterSet {
  config: AdapterConfig;
  /** By module name, such as "model.layers.0.self_attn.q_proj". */
  modules: Record<string, LowRank>;
  /**
   * The same variables as a tree for optimisers: `flatten(params)` gives PEFT's names, such as
   * "model.layers.0.self_attn.q_proj.lora_A.weight".
   */
  params: ParamTree;
}

/**
 * Largest error of merge followed by unmerge, relative to the largest entry of W0 and dW: each of the
 * two float32 additions (and, for DoRA, multiplications) may lose half a unit of 2^-23.
 */
export const MERGE_TOLERANCE = 2e-6;

/** Below this length a row of the adapted weight counts as zero, so that zero rows stay zero. */
const MIN_ROW_NORM = 1e-12;

// Equations ---------------------------------------------------------------------------------------

/**
 * gamma of LoRA.
 *
 * gamma = alpha / r    (LoRA, arXiv 2106.09685, section 4.1)
 *
 * @example
 * ```ts
 * loraScale(16, 64); // 0.25
 * ```
 */
export function loraScale(alpha: number, rank: number): number {
  return alpha / rank;
}

/**
 * gamma of RoRA, which is also that of rsLoRA.
 *
 * gamma = alpha / sqrt(r)    (RoRA, arXiv 2501.04315, abstract; rsLoRA, arXiv 2312.03732)
 *
 * Why the root (our derivation, as the paper's was not available): with G = dL/dW, dL/dB = gamma G A^T.
 * The R rows of A are independent with entries of variance s^2, so E|dL/dB|^2 = gamma^2 r s^2 |G|^2,
 * which does not depend on r for gamma ~ r^(-1/2) and falls as 1/r for LoRA's gamma ~ 1/r.
 *
 * @example
 * ```ts
 * roraScale(16, 64); // 2
 * ```
 */
export function roraScale(alpha: number, rank: number): number {
  return alpha / Math.sqrt(rank);
}

const SCALES: Record<Scaling, (alpha: number, rank: number) => number> = {
  lora: loraScale,
  rora: roraScale,
};

/** dW = gamma B A. */
export function deltaWeight({ loraA, loraB, scale }: LowRank): Tensor {
  return tf.tidy(() => tf.mul(matmul(loraB, loraA), scale)); // [out, in]
}

/** Euclidean length of every output row of a weight. */
export function rowNorms(weight: Tensor): Tensor {
  return tf.tidy(() => tf.sqrt(tf.sum(tf.square(weight), 1))); // [out]
}

/** Lengths of the rows of W0 + dW. */
export function adaptedNorms(weight: Tensor, adapter: LowRank): Tensor {
  return tf.tidy(() => {
    const norms = rowNorms(tf.add(weight, deltaWeight(adapter))); // [out]
    return tf.maximum(norms, MIN_ROW_NORM);
  });
}

/**
 * DoRA's adapted weight: direction of W0 + dW, length m, per output row of an [out, in] weight.
 *
 * W' = m (W0 + dW) / |W0 + dW|    (DoRA, arXiv 2402.09353, Eq. 5)
 */
export function doraWeight(
  adapted: Tensor,
  magnitude: Tensor,
  norms: Tensor,
): Tensor {
  return tf.tidy(() =>
    tf.mul(adapted, tf.expandDims(tf.div(magnitude, norms), 1)) // [out, in]
  );
}

/** The value of an expression as a constant: no gradient flows into what it is made of. */
function detach(expression: () => Tensor): Tensor {
  // A custom operation without inputs leaves nothing on the tape for a gradient to follow.
  return tf.customGrad(() => ({ value: expression(), gradFunc: () => [] }))();
}

/**
 * Output of an adapted linear layer.
 *
 * LoRA, RoRA:  h = W0 x + gamma B A x
 * DoRA:        h = (m / |W0 + gamma B A|) (W0 x + gamma B A x), the norm held constant in the gradient
 *              (arXiv 2402.09353, section 4.3)
 *
 * @param x [..., in]
 * @param weight W0 [out, in]
 * @param base Computes W0 x, for instance with quantised weights; DoRA's norm is that of W0 itself
 * @param dropped x after dropout; only the adapter sees it
 * @returns [..., out]
 */
export function adaptedLinear(
  x: Tensor,
  weight: Tensor,
  base: (x: Tensor, weight: Tensor) => Tensor,
  adapter: LowRank,
  dropped: Tensor = x,
): Tensor {
  const { loraA, loraB, magnitude, scale } = adapter;
  const full = base(x, weight); // [..., out]
  const low = linear(tf.mul(linear(dropped, loraA), scale), loraB); // [..., out]
  if (magnitude === null) return add(full, low);
  const norms = detach(() => adaptedNorms(weight, adapter)); // [out]
  const ratio = tf.div(magnitude, norms); // [out]
  if (dropped === x) return tf.mul(add(full, low), ratio);
  // As in PEFT: dropout also acts on the share of W0 x that DoRA adds or takes away.
  const change = tf.mul(base(dropped, weight), tf.sub(ratio, 1));
  return tf.add(tf.add(full, change), tf.mul(low, ratio));
}

/**
 * The weight with its adapter folded in: W0 + dW, or DoRA's W'. `norms` is what `unmerge` needs for
 * DoRA (the length that m replaces is otherwise lost), null without decomposition.
 */
export function merge(
  weight: Tensor,
  adapter: LowRank,
): { weight: Tensor; norms: Tensor | null } {
  const { magnitude } = adapter;
  const norms = magnitude === null ? null : adaptedNorms(weight, adapter); // [out]
  const merged = tf.tidy(() => {
    const adapted = tf.add(weight, deltaWeight(adapter)); // [out, in]
    return magnitude === null || norms === null
      ? adapted
      : doraWeight(adapted, magnitude, norms);
  });
  return { weight: merged, norms };
}

/** W0 back from what `merge` returned, to `MERGE_TOLERANCE`. */
export function unmerge(
  merged: Tensor,
  adapter: LowRank,
  norms: Tensor | null = null,
): Tensor {
  const { magnitude } = adapter;
  if (magnitude !== null && norms === null) {
    throw new TypeError(
      "Cannot unmerge a DoRA adapter as the norms that merge() returned are required: norms null",
    );
  }
  return tf.tidy(() => {
    const adapted = magnitude === null || norms === null
      ? merged
      : doraWeight(merged, norms, magnitude);
    return tf.sub(adapted, deltaWeight(adapter)); // [out, in]
  });
}

// Options -----------------------------------------------------------------------------------------

/** Whether a module's name, or its end after a dot, matches a pattern (PEFT's rule for patterns). */
function matchesPattern(name: string, pattern: string): boolean {
  let expression: RegExp;
  try {
    expression = new RegExp(`^(?:.*\\.)?(?:${pattern})$`);
  } catch {
    throw new SyntaxError(
      `Cannot adapt ${name} as a pattern must be a regular expression: pattern ${
        JSON.stringify(pattern)
      }`,
    );
  }
  return expression.test(name);
}

/** The value for a module: of the first pattern that matches, else the default. */
function byPattern(
  name: string,
  patterns: Record<string, number>,
  fallback: number,
): number {
  const hit = Object.keys(patterns).find((p) => matchesPattern(name, p));
  return hit === undefined ? fallback : patterns[hit];
}

function checkRank(rank: number, where: string): void {
  if (!Number.isInteger(rank) || rank < 1) {
    throw new RangeError(
      `Cannot adapt ${where} as rank must be a positive integer: rank ${rank}`,
    );
  }
}

function checkAlpha(alpha: number, where: string): void {
  if (!(alpha > 0) || !Number.isFinite(alpha)) {
    throw new RangeError(
      `Cannot adapt ${where} as alpha must be a finite number above 0: alpha ${alpha}`,
    );
  }
}

function checkUnion(name: string, value: string, allowed: string[]): void {
  if (!allowed.includes(value)) {
    throw new TypeError(
      `Cannot adapt the model as ${name} must be one of ${
        allowed.join(", ")
      }: ${name} ${JSON.stringify(value)}`,
    );
  }
}

/** Names of the linear layers of a model that an adapter can take: matrices, the embedding left out. */
export function linearModules(params: ParamTree): string[] {
  return Object.entries(flatten(params))
    .filter(([path, weight]) =>
      path.endsWith(".weight") && weight.rank === 2 &&
      !/(^|\.)embed_tokens\.weight$/.test(path)
    )
    .map(([path]) => path.slice(0, -".weight".length));
}

/** Names of the modules that the targets select; a target that selects none is an error. */
function selectModules(
  available: string[],
  targets: readonly string[] | RegExp | "all-linear",
): string[] {
  const none = (target: string) =>
    new RangeError(
      `Cannot adapt the model as no linear layer matches ${target}: available ${
        available.join(", ") || "none"
      }`,
    );
  if (targets === "all-linear") {
    const all = available.filter((name) => !/(^|\.)lm_head$/.test(name));
    if (all.length === 0) throw none("all-linear");
    return all;
  }
  if (targets instanceof RegExp) {
    // A fresh object, as a pattern with the flag g remembers where it stopped.
    const pattern = new RegExp(targets.source, targets.flags.replace("g", ""));
    const all = available.filter((name) => pattern.test(name));
    if (all.length === 0) throw none(String(targets));
    return all;
  }
  if (targets.length === 0) throw none("an empty list of targets");
  const matches = (name: string, target: string) =>
    name === target || name.endsWith(`.${target}`);
  for (const target of targets) {
    if (!available.some((name) => matches(name, target))) {
      throw none(JSON.stringify(target));
    }
  }
  return available.filter((name) => targets.some((t) => matches(name, t)));
}

/** A tree from dotted paths: the inverse of `flatten`. */
function nest(leaves: Record<string, Tensor>): ParamTree {
  const root: { [name: string]: ParamTree } = {};
  for (const [path, leaf] of Object.entries(leaves)) {
    const names = path.split(".");
    let node = root;
    for (const name of names.slice(0, -1)) {
      node = (node[name] ??= {}) as { [name: string]: ParamTree };
    }
    node[names[names.length - 1]] = leaf;
  }
  return root;
}

/** The same tree with the leaves at some dotted paths replaced. */
function replaceLeaves<Tree extends ParamTree>(
  tree: Tree,
  leaves: Record<string, Tensor>,
  prefix = "",
): Tree {
  if (tree instanceof tf.Tensor) return (leaves[prefix] ?? tree) as Tree;
  const below = (name: string | number, child: ParamTree) =>
    replaceLeaves(
      child,
      leaves,
      prefix === "" ? `${name}` : `${prefix}.${name}`,
    );
  if (Array.isArray(tree)) {
    return tree.map((child, i) => below(i, child)) as ParamTree as Tree;
  }
  return Object.fromEntries(
    Object.entries(tree).map(([name, child]) => [name, below(name, child)]),
  ) as ParamTree as Tree;
}

// Sets of adapters --------------------------------------------------------------------------------

/** Options with every default filled in, checked. */
function resolve(
  {
    rank = 8,
    alpha = 16,
    scaling = "rora",
    decompose = "none",
    targets = DEFAULT_TARGETS,
    rankPattern = {},
    alphaPattern = {},
    dropout = 0,
  }: AdapterOptions,
  available: string[],
): { config: AdapterConfig; names: string[] } {
  checkRank(rank, "the model");
  checkAlpha(alpha, "the model");
  checkUnion("scaling", scaling, Object.keys(SCALES));
  checkUnion("decompose", decompose, ["none", "dora"]);
  if (!(dropout >= 0 && dropout < 1)) {
    throw new RangeError(
      `Cannot adapt the model as dropout must be from 0 to below 1: dropout ${dropout}`,
    );
  }
  const names = selectModules(available, targets);
  const config = {
    rank,
    alpha,
    scaling,
    decompose,
    targets: typeof targets === "string" || targets instanceof RegExp
      ? names
      : [...targets],
    rankPattern: { ...rankPattern },
    alphaPattern: { ...alphaPattern },
    dropout,
  };
  return { config, names };
}

/**
 * A set of adapters from given values, one per module; what initialisation and loading share.
 *
 * @param values For module `name` and shape of its weight, the values of A [R, in], B [out, R] and,
 *   with decomposition, m [out]
 */
export function createAdapters(
  params: ParamTree,
  options: AdapterOptions,
  values: (
    name: string,
    weight: Tensor,
    rank: number,
  ) => { loraA: Tensor; loraB: Tensor; magnitude: Tensor | null },
): AdapterSet {
  const { config, names } = resolve(options, linearModules(params));
  const weights = flatten(params);
  const shapes = names.map((name) => {
    const weight = weights[`${name}.weight`];
    const [out, width] = weight.shape;
    const rank = byPattern(name, config.rankPattern, config.rank);
    const alpha = byPattern(name, config.alphaPattern, config.alpha);
    checkRank(rank, name);
    checkAlpha(alpha, name);
    if (rank > Math.min(out, width)) {
      throw new RangeError(
        `Cannot adapt ${name} as rank must be at most min(in, out): rank ${rank}, in ${width}, out ${out}`,
      );
    }
    return { name, weight, rank, alpha };
  });
  const modules: Record<string, LowRank> = {};
  const leaves: Record<string, Tensor> = {};
  try {
    for (const { name, weight, rank, alpha } of shapes) {
      tf.tidy(() => {
        const { loraA, loraB, magnitude } = values(name, weight, rank);
        const adapter: LowRank = {
          loraA: tf.variable(loraA),
          loraB: tf.variable(loraB),
          magnitude: magnitude === null ? null : tf.variable(magnitude),
          rank,
          alpha,
          scale: SCALES[config.scaling](alpha, rank),
        };
        modules[name] = adapter;
        leaves[`${name}.lora_A.weight`] = adapter.loraA;
        leaves[`${name}.lora_B.weight`] = adapter.loraB;
        if (adapter.magnitude !== null) {
          leaves[`${name}.lora_magnitude_vector`] = adapter.magnitude;
        }
      });
    }
  } catch (error) {
    for (const leaf of Object.values(leaves)) leaf.dispose();
    throw error;
  }
  return { config, modules, params: nest(leaves) };
}

/**
 * New adapters that change nothing yet.
 *
 * A ~ U(-1/sqrt(in), 1/sqrt(in)), B = 0, m = |W0| per row: LoRA's and DoRA's initialisation as PEFT has
 * it (RoRA's own text was not available). Each module draws from a key folded with its name, so the
 * numbers do not depend on which other modules are adapted.
 *
 * @param params The base model; it is read, never changed
 * @param options rank 8, alpha 16 and the targets q, k, v, up and down are our defaults
 * @returns Variables that the caller disposes, see `disposeAdapters`
 * @throws RangeError for a rank above the matrix, alpha <= 0 or a target that matches no layer
 *
 * @example
 * ```ts
 * const adapters = initAdapters(params, { rank: 8, scaling: "rora" }, key(0));
 * const { grads } = valueAndGrads(
 *   () => loss(params, config, ids, { adapters: adapterModules(adapters) }),
 *   adapters.params,
 * );
 * Object.keys(grads)[0]; // "model.layers.0.self_attn.q_proj.lora_A.weight"
 * ```
 */
export function initAdapters(
  params: ParamTree,
  options: AdapterOptions,
  key: Key,
): AdapterSet {
  return createAdapters(params, options, (name, weight, rank) => {
    const [out, width] = weight.shape;
    const bound = 1 / Math.sqrt(width);
    return {
      loraA: tf.tensor2d(
        uniform(fold(key, name), rank * width, -bound, bound),
        [rank, width],
      ),
      loraB: tf.zeros([out, rank]),
      magnitude: options.decompose === "dora" ? rowNorms(weight) : null,
    };
  });
}

/** Frees the variables of a set. */
export function disposeAdapters(adapters: AdapterSet): void {
  for (const variable of Object.values(flatten(adapters.params))) {
    variable.dispose();
  }
}

/** Zeroes a share of the entries and scales the others so that the expectation stays. */
function dropoutMask(shape: number[], share: number, key: Key): Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  const mask = uniform(key, size).map((u) => u < share ? 0 : 1 / (1 - share));
  return tf.tensor(mask, shape, "float32");
}

/**
 * What a model's forward pass takes as its `adapters`: an `Adapter` by module name.
 *
 * @param key For dropout; pass a new one every training step, none in evaluation
 */
export function adapterModules(
  { modules, config: { dropout } }: AdapterSet,
  { key }: { key?: Key } = {},
): Record<string, Adapter> {
  return Object.fromEntries(
    Object.entries(modules).map(([name, adapter]) => [
      name,
      {
        apply: (x, weight, base) =>
          adaptedLinear(
            x,
            weight,
            base,
            adapter,
            key === undefined || dropout === 0
              ? x
              : tf.mul(x, dropoutMask(x.shape, dropout, fold(key, name))),
          ),
      } satisfies Adapter,
    ]),
  );
}

/**
 * The model with every adapter folded into its weight: as fast as the base model.
 *
 * Weights that have no adapter are shared with `params`; the merged ones are new variables.
 *
 * @returns The model, and DoRA's norms by module name, which `unmergeAdapters` needs
 */
export function mergeAdapters<Tree extends ParamTree>(
  params: Tree,
  { modules }: AdapterSet,
): { params: Tree; norms: Record<string, Tensor> } {
  const weights = flatten(params);
  const merged: Record<string, Tensor> = {};
  const norms: Record<string, Tensor> = {};
  for (const [name, adapter] of Object.entries(modules)) {
    const result = merge(weights[`${name}.weight`], adapter);
    merged[`${name}.weight`] = tf.variable(result.weight);
    result.weight.dispose();
    if (result.norms !== null) norms[name] = result.norms;
  }
  return { params: replaceLeaves(params, merged), norms };
}

/** The base model back from what `mergeAdapters` returned, to `MERGE_TOLERANCE`. */
export function unmergeAdapters<Tree extends ParamTree>(
  { params, norms }: { params: Tree; norms: Record<string, Tensor> },
  { modules }: AdapterSet,
): Tree {
  const weights = flatten(params);
  const restored: Record<string, Tensor> = {};
  for (const [name, adapter] of Object.entries(modules)) {
    const weight = unmerge(
      weights[`${name}.weight`],
      adapter,
      norms[name] ?? null,
    );
    restored[`${name}.weight`] = tf.variable(weight);
    weight.dispose();
  }
  return replaceLeaves(params, restored);
}

// Measurements ------------------------------------------------------------------------------------

/** Sum of squares as a number. */
function squaredNorm(tensor: Tensor): number {
  const value = tf.tidy(() => tf.sum(tf.square(tensor)));
  const [square] = value.dataSync();
  value.dispose();
  return square;
}

/** |W' - W0| over all adapted weights together (Frobenius): how far the adapters have moved the model. */
export function deltaNorm(params: ParamTree, { modules }: AdapterSet): number {
  const weights = flatten(params);
  let total = 0;
  for (const [name, adapter] of Object.entries(modules)) {
    const change = tf.tidy(() =>
      adapter.magnitude === null ? deltaWeight(adapter) : tf.sub(
        merge(weights[`${name}.weight`], adapter).weight,
        weights[`${name}.weight`],
      )
    );
    total += squaredNorm(change);
    change.dispose();
  }
  return Math.sqrt(total);
}

/**
 * Norms of the gradients of all A, all B and all m together (Frobenius).
 *
 * @param grads Gradients by the paths of `flatten(adapters.params)`
 */
export function gradientNorms(
  grads: Record<string, Tensor>,
): { a: number; b: number; magnitude: number } {
  const total = (end: string) =>
    Math.sqrt(
      Object.entries(grads)
        .filter(([path]) => path.endsWith(end))
        .reduce((sum, [, grad]) => sum + squaredNorm(grad), 0),
    );
  return {
    a: total(".lora_A.weight"),
    b: total(".lora_B.weight"),
    magnitude: total(".lora_magnitude_vector"),
  };
}

/** Number of trainable numbers: r (in + out) for each adapted weight, and out more with DoRA. */
export function adapterSize({ params }: AdapterSet): number {
  return Object.values(flatten(params)).reduce((sum, t) => sum + t.size, 0);
}

/** Size of the adapters in float32, in bytes. */
export function adapterBytes(adapters: AdapterSet): number {
  return 4 * adapterSize(adapters);
}
