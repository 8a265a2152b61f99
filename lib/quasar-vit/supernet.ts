/**
 * Supernet of vision transformers: training, inherited sub-networks, training them on.
 *
 * Li et al., "Quasar-ViT", ICS 2024, arXiv 2407.18175. That one supernet with entangled weights and precisions, layer scaling
 * and a teacher is trained, and sub-networks are taken from it, is the paper's; how long, how sampled and the form of the loss
 * were not read. Sampling is AutoFormer's (one sub-network a step) or the sandwich rule; the loss is `distillationLoss`.
 *
 * The masters are the parameters of the widest and deepest ViT. A sub-network runs `vitForward` on views of them, with the
 * quantizer of each block's share of 8-bit rows:
 *
 *     theta_s = theta[: sizes of s],   y = ViT(x; Q_r(theta_s), A6)
 *
 * so a network trained alone is the same with one sub-network that is as large as its masters.
 *
 * Scope: backbone of `core/vit.ts`; activations are rounded by the range of the batch, in training and after. The two products
 * of attention are computed in floats, although `workload.ts` costs them with 6 bits on both sides.
 */
import { augment, type Images, pickImages } from "../core/images.ts";
import { adamW, cosine, warmup } from "../core/optim.ts";
import { fold, type Key, permutation } from "../core/rng.ts";
import {
  flatten,
  type ParamTree,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
  type Variable,
} from "../core/tensor.ts";
import {
  checkImages,
  initVit,
  nestVit,
  patches,
  type PixelScale,
  pixelScale,
  type ResolvedVit,
  resolveVit,
  type VitConfig,
  vitForward,
  type VitOptions,
  type VitParams,
} from "../core/vit.ts";
import {
  type AxesOf,
  type Axis,
  distillationLoss,
  sampledSubnets,
  type SamplingRule,
  subnetParams,
} from "./entangle.ts";
import { rowQuantizer } from "./rows.ts";
import { largestSubnet, type Space } from "./space.ts";
import type { Subnet, Task } from "./workload.ts";

/** What all sub-networks of a supernet share. */
export interface Backbone {
  imageSize: number;
  patchSize: number;
  channels: number;
  numClasses: number;
  headDim: number;
  /** First value of the factors of layer scaling; without it there are none. */
  layerScale?: number;
  initStd?: number;
}

/** Masters with all that running a sub-network on images needs. */
export interface Supernet {
  backbone: Backbone;
  /** The largest sub-network: its sizes are the masters'. */
  largest: Subnet;
  masters: VitParams;
  scale: PixelScale;
  /** Mean loss of each epoch. */
  loss: number[];
}

export interface SupernetOptions {
  key: Key;
  epochs: number;
  /** Default 64. */
  batchSize?: number;
  /** Default 2e-3. */
  learningRate?: number;
  /** Default 0.05 (DeiT). */
  weightDecay?: number;
  /** Pixels that images move at most; default 2. */
  shift?: number;
  /** Default "one" (AutoFormer). */
  rule?: SamplingRule;
  /** Teacher's logits of each image, [N, K] one row after the other; without them labels alone. */
  teacher?: Float32Array;
  /** Share of the teacher in the loss, default 0.5 (ours). */
  teacherWeight?: number;
  /** Quantise; default true. A teacher is trained without. */
  quantized?: boolean;
  onEpoch?: (epoch: number, loss: number) => void;
}

const LEAVES: [RegExp, readonly Axis[]][] = [
  [/^(cls_token|pos_embed)$/, ["fixed", "fixed", "dim"]],
  [/^patch_embed\.proj\.weight$/, ["dim", "fixed"]],
  [/\.attn\.[qkv]\.weight$/, ["inner", "dim"]],
  [/\.attn\.[qkv]\.bias$/, ["inner"]],
  [/\.attn\.proj\.weight$/, ["dim", "inner"]],
  [/\.fc1\.weight$/, ["hidden", "dim"]],
  [/\.fc1\.bias$/, ["hidden"]],
  [/\.fc2\.weight$/, ["dim", "hidden"]],
  [/^head\.weight$/, ["fixed", "dim"]],
  [/^head\.bias$/, ["fixed"]],
  [/(\.bias|norm\d?\.weight|\.gamma)$/, ["dim"]],
];

/** Axes of the parameters of `core/vit.ts`. */
export const vitAxes: AxesOf = (path) => {
  const found = LEAVES.find(([pattern]) => pattern.test(path));
  if (found === undefined) {
    throw new RangeError(
      `Cannot slice parameters as each must be one of a vision transformer: ${path}`,
    );
  }
  return found[1];
};

/** The configuration of a vision transformer of a sub-network's shape. */
export function vitConfig(
  { imageSize, patchSize, channels, numClasses, headDim, layerScale, initStd }:
    Backbone,
  { dim, blocks }: Subnet,
): VitConfig {
  return {
    imageSize,
    patchSize,
    channels,
    numClasses,
    headDim,
    hiddenSize: dim,
    numLayers: blocks.length,
    numHeads: blocks.map(({ heads }) => heads),
    mlpRatio: blocks.map(({ mlpRatio }) => Math.round(mlpRatio * dim) / dim),
    ...(layerScale === undefined ? {} : { layerScale }),
    ...(initStd === undefined ? {} : { initStd }),
  };
}

/** What the FPGA model and the counts of operations need to know of a backbone. */
export function taskOf(
  { imageSize, patchSize, channels, numClasses, headDim }: Backbone,
): Task {
  return {
    numPatches: (imageSize / patchSize) ** 2,
    patchDim: patchSize ** 2 * channels,
    classes: numClasses,
    headDim,
  };
}

/** Rounding of each layer: patch embedding and head have 8-bit rows, a block its own share of them. */
export function subnetQuantizer({ blocks }: Subnet): VitOptions["quantizer"] {
  const outer = rowQuantizer(1);
  const inner = blocks.map(({ ratio8 }) => rowQuantizer(ratio8));
  return (module) => {
    const block = /^blocks\.(\d+)\./.exec(module);
    return block === null ? outer : inner[Number(block[1])];
  };
}

/** Views of the masters, with gradients to them. */
export function viewOf(
  { masters, backbone }: Pick<Supernet, "masters" | "backbone">,
  subnet: Subnet,
): VitParams {
  return subnetParams(masters as unknown as ParamTree, subnet, {
    axesOf: vitAxes,
    headDim: backbone.headDim,
  }) as unknown as VitParams;
}

/** Logits of a sub-network; call it inside `tf.tidy` or a loss. */
export function subnetForward(
  supernet: Pick<Supernet, "masters" | "backbone">,
  subnet: Subnet,
  x: Tensor,
  { quantized = true }: { quantized?: boolean } = {},
): Tensor {
  const { backbone: { headDim } } = supernet;
  return vitForward(
    viewOf(supernet, subnet),
    x,
    { headDim, layerNormEps: 1e-6 },
    quantized ? { quantizer: subnetQuantizer(subnet) } : {},
  );
}

/** Untrained masters for images; the pixels' mean and deviation are the images'. */
export function newSupernet(
  backbone: Backbone,
  largest: Subnet,
  data: Images,
  key: Key,
): Supernet {
  return {
    backbone,
    largest,
    masters: initVit(vitConfig(backbone, largest), key),
    scale: pixelScale(data),
    loss: [],
  };
}

/** A copy of a sub-network that stands alone: its own masters, of its own size. */
export function inherit(supernet: Supernet, subnet: Subnet): Supernet {
  const masters = tf.tidy(() => {
    const views = flatten(viewOf(supernet, subnet) as unknown as ParamTree);
    return nestVit(Object.fromEntries(
      Object.entries(views).map((
        [path, view],
      ) => [path, tf.keep(tf.variable(view.clone()))]),
    ));
  });
  return { ...supernet, largest: subnet, masters, loss: [] };
}

function checkTraining(
  { backbone, largest }: Supernet,
  data: Images,
  { epochs, batchSize = 64, teacher }: SupernetOptions,
): ResolvedVit {
  const config = resolveVit(vitConfig(backbone, largest));
  for (const [name, value] of Object.entries({ epochs, batchSize })) {
    if (Number.isSafeInteger(value) && value >= 1) continue;
    throw new RangeError(
      `Cannot train a supernet as ${name} must be a positive whole number: ${value}`,
    );
  }
  const { numClasses } = config;
  checkImages(backbone, data, "train a supernet");
  if (teacher !== undefined && teacher.length !== data.count * numClasses) {
    throw new RangeError(
      `Cannot train a supernet as the teacher must give ${numClasses} logits for each of ${data.count} images: ${teacher.length} numbers`,
    );
  }
  return config;
}

/**
 * Trains masters by the sub-networks that `sample` draws for each step; their gradients add up.
 *
 * AdamW with 10 % of warm-up and a cosine to a hundredth.
 *
 * @param sample sub-networks of a step, from its key
 * @throws {RangeError} if images, teacher or sizes do not fit
 */
export function trainMasters(
  supernet: Supernet,
  data: Images,
  sample: (key: Key) => Subnet[],
  options: SupernetOptions,
): Supernet {
  const { numClasses: K, patchSize } = checkTraining(supernet, data, options);
  const { key, epochs, batchSize = 64, learningRate = 2e-3 } = options;
  const { weightDecay = 0.05, shift = 2, teacher, quantized = true } = options;
  const { masters, scale, loss } = supernet;
  const steps = epochs * Math.ceil(data.count / batchSize);
  const climb = Math.max(1, Math.round(steps / 10));
  const floor = learningRate / 100;
  const optimizer = adamW({
    learningRate: warmup(
      climb,
      cosine({ learningRate, steps: Math.max(1, steps - climb), floor }),
    ),
    weightDecay,
    clipNorm: 1,
    groups: [{
      match: (path) => /norm|bias|cls_token|pos_embed|gamma/.test(path),
      weightDecay: 0,
    }],
  });
  const tree = masters as unknown as ParamTree;
  for (let epoch = 0; epoch < epochs; epoch++) {
    const epochKey = fold(key, `epoch ${epoch}`);
    const order = permutation(fold(epochKey, "order"), data.count);
    let sum = 0;
    for (let from = 0; from < order.length; from += batchSize) {
      const ids = order.subarray(from, from + batchSize);
      const stepKey = fold(epochKey, `step ${from}`);
      const chosen = pickImages(data, ids);
      const batch = shift > 0
        ? augment(chosen, { key: stepKey, shift })
        : chosen;
      const cut = patches(batch, patchSize, scale);
      const x = tf.tensor3d(cut.data, cut.shape);
      const labels = tf.tensor1d(Int32Array.from(batch.labels), "int32");
      const soft = teacher === undefined
        ? undefined
        : tf.tensor2d(rowsOf(teacher, ids, K), [ids.length, K]);
      const subnets = sample(fold(stepKey, "subnets"));
      const { value, grads } = valueAndGrads(
        () =>
          subnets.map((subnet) =>
            distillationLoss(
              subnetForward(supernet, subnet, x, { quantized }),
              labels,
              soft,
              { weight: options.teacherWeight },
            )
          ).reduce((a, b) => a.add(b) as Scalar)
            .div(subnets.length) as Scalar,
        tree,
      );
      optimizer.step(tree, grads);
      sum += value.dataSync()[0] * ids.length;
      tf.dispose([x, labels, value, ...Object.values(grads)]);
      soft?.dispose();
    }
    loss.push(sum / data.count);
    options.onEpoch?.(epoch, sum / data.count);
  }
  optimizer.dispose();
  return supernet;
}

function rowsOf(
  all: Float32Array,
  ids: ArrayLike<number>,
  K: number,
): Float32Array {
  const rows = new Float32Array(ids.length * K);
  for (let i = 0; i < ids.length; i++) {
    rows.set(all.subarray(ids[i] * K, (ids[i] + 1) * K), i * K);
  }
  return rows;
}

/** A supernet trained on images; `rule` says which sub-networks a step runs. */
export function trainSupernet(
  backbone: Backbone,
  space: Space,
  data: Images,
  options: SupernetOptions,
): Supernet {
  const { key, rule } = options;
  return trainMasters(
    newSupernet(backbone, largestSubnet(space), data, fold(key, "init")),
    data,
    (stepKey) => sampledSubnets(space, stepKey, { rule }),
    options,
  );
}

/** One sub-network trained alone, from fresh weights or, as retraining, from what it inherits. */
export function trainAlone(
  from: Backbone | Supernet,
  subnet: Subnet,
  data: Images,
  options: SupernetOptions,
): Supernet {
  const start = "masters" in from
    ? inherit(from, subnet)
    : newSupernet(from, subnet, data, fold(options.key, "init"));
  return trainMasters(start, data, () => [subnet], options);
}

/**
 * Logits of a sub-network on images, [N, K] one row after the other.
 *
 * @throws {RangeError} if images are not the backbone's, or a logit is not finite; the message names the image
 */
export function subnetLogits(
  supernet: Supernet,
  subnet: Subnet,
  data: Images,
  { batch = 250, quantized = true }: { batch?: number; quantized?: boolean } =
    {},
): Float32Array {
  const { numClasses: K, patchSize } = supernet.backbone;
  checkImages(supernet.backbone, data, "run a sub-network");
  if (!Number.isSafeInteger(batch) || batch < 1) {
    throw new RangeError(
      `Cannot run a sub-network as batch must be a positive whole number: ${batch}`,
    );
  }
  const logits = new Float32Array(data.count * K);
  for (let from = 0; from < data.count; from += batch) {
    const count = Math.min(batch, data.count - from);
    const part = pickImages(
      data,
      Uint32Array.from({ length: count }, (_, i) => from + i),
    );
    logits.set(
      tf.tidy(() => {
        const cut = patches(part, patchSize, supernet.scale);
        const x = tf.tensor3d(cut.data, cut.shape);
        return subnetForward(supernet, subnet, x, { quantized }).dataSync();
      }),
      from * K,
    );
  }
  const bad = logits.findIndex((x) => !Number.isFinite(x));
  if (bad >= 0) {
    throw new RangeError(
      `Cannot use logits as they must be finite: ${logits[bad]} for class ${
        bad % K
      } of image ${Math.floor(bad / K)}; training has diverged`,
    );
  }
  return logits;
}

/** Share of images that a sub-network has right, with the weights it inherits. */
export function subnetAccuracy(
  supernet: Supernet,
  subnet: Subnet,
  data: Images,
  options: { batch?: number; quantized?: boolean } = {},
): number {
  const logits = subnetLogits(supernet, subnet, data, options);
  const K = supernet.backbone.numClasses;
  let right = 0;
  for (let i = 0; i < data.count; i++) {
    let best = 0;
    for (let k = 1; k < K; k++) {
      if (logits[i * K + k] > logits[i * K + best]) best = k;
    }
    if (best === data.labels[i]) right++;
  }
  return right / data.count;
}

/** All masters as float32 numbers, in the order of their names. */
export function mastersBytes({ masters }: Supernet): Uint8Array {
  const leaves = Object.values(flatten(masters as unknown as ParamTree));
  const all = new Float32Array(leaves.reduce((n, { size }) => n + size, 0));
  let at = 0;
  for (const leaf of leaves) {
    all.set(leaf.dataSync(), at);
    at += leaf.size;
  }
  return new Uint8Array(all.buffer);
}

/**
 * Fills masters with what `mastersBytes` gave of a supernet of the same shape.
 *
 * @throws {RangeError} if there are more or fewer numbers
 */
export function readMasters(supernet: Supernet, bytes: Uint8Array): Supernet {
  const leaves = Object.values(
    flatten(supernet.masters as unknown as ParamTree),
  );
  const size = leaves.reduce((n, leaf) => n + leaf.size, 0);
  if (bytes.length !== 4 * size) {
    throw new RangeError(
      `Cannot read masters as there must be ${4 * size} bytes: ${bytes.length}`,
    );
  }
  const all = new Float32Array(bytes.slice().buffer);
  let at = 0;
  for (const leaf of leaves) {
    const part = tf.tensor(all.slice(at, at + leaf.size), leaf.shape);
    (leaf as Variable).assign(part);
    part.dispose();
    at += leaf.size;
  }
  return supernet;
}
