/**
 * ViT: a transformer for images.
 *
 * Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv:2010.11929 (Eq. 1 to 4); sizes and training
 * of Touvron et al., "Training data-efficient image transformers & distillation through attention",
 * arXiv:2012.12877 (DeiT). Layer scaling after Touvron et al., "Going deeper with image transformers",
 * arXiv:2103.17239, Eq. 4.
 *
 * An image is cut into patches; each becomes a token, and a learned class token goes in front. Each
 * block adds to the residual stream x:
 *
 *     x = x + gamma1 * (Wo attention(Wq n, Wk n, Wv n)),   n = layerNorm(x)
 *     x = x + gamma2 * (W2 gelu(W1 m)),                    m = layerNorm(x)
 *
 * and the head reads the class token. gamma1 and gamma2 are there with layer scaling only.
 *
 * What a method changes is an argument of `forward`: a quantizer by the module's name, another
 * attention, tokens that leave. The widths of heads and feed-forward layers are read from the weights,
 * so a subnetwork is this model with smaller matrices.
 *
 *   B  images     N  patches     T  tokens: N + 1, or fewer after some left
 *   D  hiddenSize    F  width of a feed-forward layer    H  heads    Dh  width of a head
 *   P  patchSize     C  channels     K  classes
 */
import type { Images } from "./images.ts";
import {
  add,
  attention,
  gelu,
  layerNorm,
  linear,
  type Quantizer,
} from "./nn.ts";
import { fold, type Key, normal } from "./rng.ts";
import { type Tensor, tf } from "./tensor.ts";

/** The shape of a model. */
export interface VitConfig {
  /** Height and width of an image, a multiple of patchSize. */
  imageSize: number;
  patchSize: number;
  /** Default 3. */
  channels?: number;
  numClasses: number;
  hiddenSize: number;
  numLayers: number;
  /** For all blocks, or for each. */
  numHeads: number | number[];
  /** Default hiddenSize / numHeads, where all blocks have as many heads. */
  headDim?: number;
  /** Width of the feed-forward layers over hiddenSize, for all blocks or for each; default 4. */
  mlpRatio?: number | number[];
  /** First value of the factors of layer scaling; without it there are none. */
  layerScale?: number;
  /** Default 1e-6 (DeiT's code). */
  layerNormEps?: number;
  /**
   * Standard deviation of initial matrices and embeddings; default 0.02 (DeiT's code, 192 wide and more). A
   * narrow model learns far sooner from about 1 / sqrt(hiddenSize).
   */
  initStd?: number;
}

/** A configuration with its defaults, and each block's own sizes. */
export interface ResolvedVit {
  imageSize: number;
  patchSize: number;
  channels: number;
  numClasses: number;
  hiddenSize: number;
  numLayers: number;
  /** Of each block. */
  numHeads: number[];
  headDim: number;
  /** Width of the feed-forward layer, of each block. */
  mlpSizes: number[];
  layerScale?: number;
  layerNormEps: number;
  /** N, of a whole image. */
  numPatches: number;
}

/** DeiT's three sizes: arXiv:2012.12877, table 1. */
export const DEIT = {
  tiny: { hiddenSize: 192, numHeads: 3 },
  small: { hiddenSize: 384, numHeads: 6 },
  base: { hiddenSize: 768, numHeads: 12 },
} as const;

/** One of DeiT's models, for ImageNet: 224 x 224 pixels in patches of 16, 12 blocks, 1000 classes. */
export function deit(size: keyof typeof DEIT): VitConfig {
  return {
    imageSize: 224,
    patchSize: 16,
    numClasses: 1000,
    numLayers: 12,
    ...DEIT[size],
  };
}

/** Weight [out, in] and bias [out]. */
export type VitLinear = { weight: Tensor; bias: Tensor };

/** Gain and offset, [D] each. */
export type VitNorm = { weight: Tensor; bias: Tensor };

/** One block. */
export type VitBlock = {
  norm1: VitNorm;
  attn: {
    q: VitLinear; // [H Dh, D]
    k: VitLinear; // [H Dh, D]
    v: VitLinear; // [H Dh, D]
    proj: VitLinear; // [D, H Dh]
  };
  norm2: VitNorm;
  mlp: {
    fc1: VitLinear; // [F, D]
    fc2: VitLinear; // [D, F]
  };
  /** With layer scaling; [D] each. */
  ls1?: { gamma: Tensor };
  ls2?: { gamma: Tensor };
};

/** The whole model, by the names of the `timm` library; q, k and v are three matrices here. */
export type VitParams = {
  cls_token: Tensor; // [1, 1, D]
  pos_embed: Tensor; // [1, N + 1, D]
  patch_embed: { proj: VitLinear }; // [D, P P C]: rows of pixels, the channels of a pixel together
  blocks: VitBlock[];
  norm: VitNorm;
  head: VitLinear; // [K, D]
};

/**
 * Mixes values by how well queries match keys, in one block.
 *
 * @param q [B, T, H, Dh]
 * @param k [B, T, H, Dh]
 * @param v [B, T, H, Dh]
 * @param block Number of the block.
 * @returns [B, T, H, Dh]
 */
export type VitAttend = (
  q: Tensor,
  k: Tensor,
  v: Tensor,
  block: number,
) => Tensor;

/** What is done differently in one forward pass. */
export interface VitOptions {
  /** For each linear layer by module name: "patch_embed.proj", "blocks.0.attn.q", "head". */
  quantizer?: (module: string) => Quantizer | undefined;
  /** In place of attention from every token to every token. */
  attend?: VitAttend;
  /**
   * Sees what flows: "<module>.input" of each linear layer, and the residual stream [B, T, D] as
   * "embed", "blocks.0.residual" between the halves of a block, "blocks.0.output" after it. What it
   * returns takes the place of the original; a stream with fewer tokens goes on with those, the class
   * token first.
   */
  onActivation?: (name: string, value: Tensor) => Tensor | void;
}

// Configuration -------------------------------------------------------------------------------------

function perBlock(
  what: string,
  given: number | number[],
  numLayers: number,
): number[] {
  const all = typeof given === "number"
    ? new Array<number>(numLayers).fill(given)
    : given;
  if (all.length !== numLayers) {
    throw new RangeError(
      `Cannot build ViT as ${what} must be one number or one for each of the ${numLayers} blocks: ${all.length} given`,
    );
  }
  return all;
}

/**
 * The configuration with its defaults filled in, after checking it.
 *
 * @throws {RangeError} if sizes are not positive integers or do not fit together
 */
export function resolveVit(config: VitConfig): ResolvedVit {
  const { hiddenSize, numLayers, imageSize, patchSize, numClasses } = config;
  const { channels = 3, layerScale, layerNormEps = 1e-6 } = config;
  const check = (name: string, value: number) => {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new RangeError(
        `Cannot build ViT as ${name} must be a positive integer: ${value}`,
      );
    }
  };
  for (
    const [name, value] of Object.entries({
      imageSize,
      patchSize,
      channels,
      numClasses,
      hiddenSize,
      numLayers,
    })
  ) check(name, value);
  if (imageSize % patchSize !== 0) {
    throw new RangeError(
      `Cannot build ViT as imageSize must be a multiple of patchSize: ${imageSize} and ${patchSize}`,
    );
  }
  const numHeads = perBlock("numHeads", config.numHeads, numLayers);
  numHeads.forEach((heads, i) => check(`numHeads of block ${i}`, heads));
  const headDim = config.headDim ?? hiddenSize / numHeads[0];
  if (
    !Number.isSafeInteger(headDim) || headDim < 1 ||
    (config.headDim === undefined && numHeads.some((h) => h !== numHeads[0]))
  ) {
    throw new RangeError(
      `Cannot build ViT as the heads must divide hiddenSize, or headDim be given: hiddenSize ${hiddenSize}, numHeads ${
        [...new Set(numHeads)].join(", ")
      }, headDim ${config.headDim}`,
    );
  }
  const ratios = perBlock("mlpRatio", config.mlpRatio ?? 4, numLayers);
  // 60 / 26 * 26 is not 60: a product within rounding of a whole number is that number.
  const mlpSizes = ratios.map((ratio) => {
    const size = ratio * hiddenSize;
    const whole = Math.round(size);
    return Math.abs(size - whole) <= 1e-9 * whole ? whole : size;
  });
  mlpSizes.forEach((size, i) =>
    check(`mlpRatio hiddenSize of block ${i}`, size)
  );
  if (layerScale !== undefined && !Number.isFinite(layerScale)) {
    throw new RangeError(
      `Cannot build ViT as layerScale must be a finite number: ${layerScale}`,
    );
  }
  return {
    imageSize,
    patchSize,
    channels,
    numClasses,
    hiddenSize,
    numLayers,
    numHeads,
    headDim,
    mlpSizes,
    layerScale,
    layerNormEps,
    numPatches: (imageSize / patchSize) ** 2,
  };
}

/** The shape of every parameter, by its dotted name. */
export function vitShapes(config: VitConfig): Record<string, number[]> {
  const r = resolveVit(config);
  const { hiddenSize: D, headDim: Dh, patchSize: P } = r;
  const shapes: Record<string, number[]> = {
    "cls_token": [1, 1, D],
    "pos_embed": [1, r.numPatches + 1, D],
  };
  const addLinear = (name: string, out: number, width: number) => {
    shapes[`${name}.weight`] = [out, width];
    shapes[`${name}.bias`] = [out];
  };
  const addNorm = (name: string) => {
    shapes[`${name}.weight`] = [D];
    shapes[`${name}.bias`] = [D];
  };
  addLinear("patch_embed.proj", D, P * P * r.channels);
  for (let i = 0; i < r.numLayers; i++) {
    const block = `blocks.${i}`;
    const inner = r.numHeads[i] * Dh;
    addNorm(`${block}.norm1`);
    for (const name of ["q", "k", "v"]) {
      addLinear(`${block}.attn.${name}`, inner, D);
    }
    addLinear(`${block}.attn.proj`, D, inner);
    addNorm(`${block}.norm2`);
    addLinear(`${block}.mlp.fc1`, r.mlpSizes[i], D);
    addLinear(`${block}.mlp.fc2`, D, r.mlpSizes[i]);
    if (r.layerScale !== undefined) {
      shapes[`${block}.ls1.gamma`] = [D];
      shapes[`${block}.ls2.gamma`] = [D];
    }
  }
  addNorm("norm");
  addLinear("head", r.numClasses, D);
  return shapes;
}

/** The nested parameters from tensors by their dotted names; the inverse of `flatten`. */
export function nestVit(named: Record<string, Tensor>): VitParams {
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
  return root as unknown as VitParams;
}

/**
 * Fresh trainable parameters: matrices and embeddings from a normal distribution with deviation 0.02,
 * biases 0, norms 1, layer scaling and another deviation as the configuration says.
 *
 * @param key Source of randomness; each tensor draws from its own sub-key, so a block that two
 *   configurations share starts the same in both.
 */
export function initVit(config: VitConfig, key: Key): VitParams {
  const { initStd = 0.02 } = config;
  if (!(initStd > 0 && initStd < Infinity)) {
    throw new RangeError(
      `Cannot build ViT as initStd must be a positive number: ${initStd}`,
    );
  }
  const named: Record<string, Tensor> = {};
  for (const [name, shape] of Object.entries(vitShapes(config))) {
    const size = shape.reduce((a, b) => a * b, 1);
    const constant = name.endsWith(".bias")
      ? 0
      : name.endsWith(".gamma")
      ? config.layerScale!
      : shape.length === 1
      ? 1
      : null;
    const values = constant === null
      ? normal(fold(key, name), size, 0, initStd)
      : new Float32Array(size).fill(constant);
    named[name] = tf.tidy(() => tf.variable(tf.tensor(values, shape)));
  }
  return nestVit(named);
}

// Patches -------------------------------------------------------------------------------------------

/** Mean and deviation that pixels of [0, 1] are standardised by, of each channel. */
export interface PixelScale {
  mean: ArrayLike<number>; // [C]
  std: ArrayLike<number>; // [C]
}

/** Mean and deviation of the pixels, over [0, 1], of each channel. */
export function pixelScale({ images, channels: C }: Images): PixelScale {
  const sum = new Float64Array(C);
  const squares = new Float64Array(C);
  for (let i = 0; i < images.length; i++) {
    const x = images[i] / 255;
    sum[i % C] += x;
    squares[i % C] += x * x;
  }
  const n = images.length / C;
  const mean = sum.map((s) => s / n);
  const std = squares.map((s, c) =>
    Math.sqrt(Math.max(s / n - mean[c] ** 2, 0)) || 1
  );
  return { mean, std };
}

/**
 * Throws unless there are images of the model's size.
 *
 * @param what is to be done with them, as in "Cannot train"
 */
export function checkImages(
  { imageSize: S, channels }: Pick<ResolvedVit, "imageSize" | "channels">,
  { count, height, width, channels: C }: Images,
  what: string,
): void {
  if (count < 1) {
    throw new RangeError(
      `Cannot ${what} as there must be at least one image: ${count}`,
    );
  }
  if (height === S && width === S && C === channels) return;
  throw new RangeError(
    `Cannot ${what} as images must be ${S} x ${S} with ${channels} channels: ${height} x ${width} with ${C}; scale them or change the model`,
  );
}

/**
 * Standardised patches of images, row by row from the upper left.
 *
 * @param images [B, H, W, C], H and W multiples of patchSize
 * @returns [B, N, P P C]: rows of pixels, the channels of a pixel together
 * @throws {RangeError} if the images do not fall into patches or have another number of channels
 */
export function patches(
  { count: B, height, width, channels: C, images }: Images,
  patchSize: number,
  { mean, std }: PixelScale,
): { data: Float32Array; shape: [number, number, number] } {
  if (height % patchSize !== 0 || width % patchSize !== 0) {
    throw new RangeError(
      `Cannot cut images into patches as their sides must be multiples of ${patchSize}: ${height} x ${width}; crop or scale them`,
    );
  }
  if (mean.length !== C || std.length !== C) {
    throw new RangeError(
      `Cannot standardise images as the scale must be of their ${C} channels: ${mean.length}`,
    );
  }
  const columns = width / patchSize;
  const row = patchSize * C;
  const size = patchSize * row;
  const N = columns * (height / patchSize);
  // One look-up for each of the 256 values of each channel.
  const table = new Float32Array(256 * C);
  for (let c = 0; c < C; c++) {
    for (let v = 0; v < 256; v++) {
      table[v * C + c] = (v / 255 - mean[c]) / std[c];
    }
  }
  const data = new Float32Array(B * N * size);
  let from = 0;
  for (let b = 0; b < B; b++) {
    for (let y = 0; y < height; y++) {
      const patchRow = Math.floor(y / patchSize) * columns;
      for (let column = 0; column < columns; column++) {
        let to = (b * N + patchRow + column) * size + (y % patchSize) * row;
        for (let i = 0; i < row; i++) {
          data[to++] = table[images[from++] * C + i % C];
        }
      }
    }
  }
  return { data, shape: [B, N, size] };
}

// Forward pass --------------------------------------------------------------------------------------

const fullAttention: VitAttend = (q, k, v) =>
  attention(q, k, v, { causal: false });

function observe(x: Tensor, name: string, options: VitOptions): Tensor {
  return options.onActivation?.(name, x) ?? x;
}

function project(
  x: Tensor,
  { weight, bias }: VitLinear,
  module: string,
  options: VitOptions,
): Tensor {
  return linear(observe(x, `${module}.input`, options), weight, {
    bias,
    quantizer: options.quantizer?.(module),
  });
}

/** The attention half of a block, before it is added to the residual stream. */
function selfAttention(
  x: Tensor,
  params: VitBlock["attn"],
  block: number,
  headDim: number,
  options: VitOptions,
): Tensor {
  const [B, T] = x.shape;
  const module = `blocks.${block}.attn`;
  const heads = (name: "q" | "k" | "v") =>
    project(x, params[name], `${module}.${name}`, options)
      .reshape([B, T, -1, headDim]); // [B, T, H, Dh]
  const { attend = fullAttention } = options;
  const mixed = attend(heads("q"), heads("k"), heads("v"), block)
    .reshape([B, T, -1]); // [B, T, H Dh]
  return project(mixed, params.proj, `${module}.proj`, options); // [B, T, D]
}

/** The feed-forward half of a block, before it is added to the residual stream. */
function feedForward(
  x: Tensor,
  params: VitBlock["mlp"],
  block: number,
  options: VitOptions,
): Tensor {
  const module = `blocks.${block}.mlp`;
  const hidden = gelu(project(x, params.fc1, `${module}.fc1`, options)); // [B, T, F]
  return project(hidden, params.fc2, `${module}.fc2`, options);
}

/** gamma * x where there is layer scaling. */
function scaled(x: Tensor, scale?: { gamma: Tensor }): Tensor {
  return scale === undefined ? x : x.mul(scale.gamma);
}

/**
 * Logits of images.
 *
 * The caller disposes them; call it inside `tf.tidy` or a loss of `valueAndGrads`.
 *
 * @param x Patches as of `patches`, [B, N, P P C]
 * @returns [B, K]
 * @throws {RangeError} if the patches are not those of the configuration
 */
export function vitForward(
  params: VitParams,
  x: Tensor,
  config: Pick<ResolvedVit, "headDim" | "layerNormEps">,
  options: VitOptions = {},
): Tensor {
  const { headDim, layerNormEps: eps } = config;
  const [B, N, size] = x.shape;
  const tokens = params.pos_embed.shape[1]!;
  const width = params.patch_embed.proj.weight.shape[1];
  if (x.rank !== 3 || N !== tokens - 1 || size !== width) {
    throw new RangeError(
      `Cannot run ViT as patches must be [B, ${
        tokens - 1
      }, ${width}]: [${x.shape}]; images of another size need another model`,
    );
  }
  const norm = (y: Tensor, { weight, bias }: VitNorm) =>
    layerNorm(y, weight, bias, { eps });

  const embedded = project(
    x,
    params.patch_embed.proj,
    "patch_embed.proj",
    options,
  );
  const cls = params.cls_token.tile([B, 1, 1]); // [B, 1, D]
  // z_0 = [x_class; x_p^1 E; ...; x_p^N E] + E_pos                                            Eq. 1
  let z = observe(
    tf.concat([cls, embedded], 1).add(params.pos_embed),
    "embed",
    options,
  ); // [B, T, D]
  params.blocks.forEach((block, i) => {
    // z' = MSA(LN(z)) + z                                                                     Eq. 2
    const mixed = selfAttention(
      norm(z, block.norm1),
      block.attn,
      i,
      headDim,
      options,
    );
    z = observe(
      add(z, scaled(mixed, block.ls1)),
      `blocks.${i}.residual`,
      options,
    );
    // z = MLP(LN(z')) + z'                                                                    Eq. 3
    const changed = feedForward(norm(z, block.norm2), block.mlp, i, options);
    z = observe(
      add(z, scaled(changed, block.ls2)),
      `blocks.${i}.output`,
      options,
    );
  });
  // y = LN(z_L^0): the norm works on each token alone, so only the class token needs it       Eq. 4
  const first = z.slice([0, 0, 0], [-1, 1, -1]).reshape([B, -1]); // [B, D]
  return project(norm(first, params.norm), params.head, "head", options); // [B, K]
}

// Counts --------------------------------------------------------------------------------------------

/** Number of parameters. */
export function countVitParams(config: VitConfig): number {
  return Object.values(vitShapes(config))
    .reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

/** Tokens that go through each half of each block, the class token among them. */
export interface TokenCounts {
  /** Of each block. */
  attention: number[];
  mlp: number[];
}

/** Multiplications of one kind, for one image. */
export interface VitMacs {
  patchEmbed: number;
  /** Of each block: q, k, v and proj. */
  projections: number[];
  /** Of each block: Q K^T and A V. */
  attention: number[];
  mlp: number[];
  head: number;
  total: number;
}

/**
 * Multiplications with an addition (MACs) of one image; norms, softmax and GELU are not counted.
 *
 *     patches: N D P P C    projections: 4 T D H Dh    attention: 2 T^2 H Dh    MLP: 2 T D F    head: D K
 *
 * @param tokens Default all N + 1 everywhere.
 * @example
 * countVitMacs(deit("tiny")).total; // 1253683200
 */
export function countVitMacs(config: VitConfig, tokens?: TokenCounts): VitMacs {
  const r = resolveVit(config);
  const { hiddenSize: D, headDim: Dh, numPatches: N } = r;
  const all = new Array<number>(r.numLayers).fill(N + 1);
  const inAttention = tokens?.attention ?? all;
  const inMlp = tokens?.mlp ?? all;
  if (inAttention.length !== r.numLayers || inMlp.length !== r.numLayers) {
    throw new RangeError(
      `Cannot count operations as tokens must be given for each of the ${r.numLayers} blocks: ${inAttention.length} and ${inMlp.length}`,
    );
  }
  const inner = (i: number) => r.numHeads[i] * Dh;
  const counts = {
    patchEmbed: N * D * r.patchSize ** 2 * r.channels,
    projections: inAttention.map((T, i) => 4 * T * D * inner(i)),
    attention: inAttention.map((T, i) => 2 * T * T * inner(i)),
    mlp: inMlp.map((T, i) => 2 * T * D * r.mlpSizes[i]),
    head: D * r.numClasses,
  };
  const sum = (xs: number[]) => xs.reduce((a, b) => a + b, 0);
  return {
    ...counts,
    total: counts.patchEmbed + sum(counts.projections) +
      sum(counts.attention) + sum(counts.mlp) + counts.head,
  };
}
