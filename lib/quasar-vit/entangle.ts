/**
 * Weight entanglement: every sub-network's weights are views of one set of masters.
 *
 * Li et al., "Quasar-ViT", ICS 2024, arXiv 2407.18175, on AutoFormer (Chen et al., arXiv 2107.00651): the weight of a narrower
 * layer is the leading rows and columns of the widest one's. Both precisions of a row come from the same master row, so that
 * sub-networks share bits as well. Layer scaling (Touvron et al., "Going deeper with Image Transformers", arXiv 2103.17239,
 * Eq. 4; that the paper's has this form is recalled) multiplies each branch by a learned vector, which is sliced too.
 *
 * A backbone's parameters are a tree; `AxesOf` says which axes of a leaf vary with the sub-network:
 *
 * | axis | size in a sub-network |
 * | --- | --- |
 * | dim | D |
 * | inner | heads times headDim |
 * | hidden | round(mlpRatio D) |
 * | fixed | all |
 *
 * Scope: slicing with gradients, sampling rules and losses of the supernet. The backbone is an argument.
 */
import * as nn from "../core/nn.ts";
import { fold, type Key } from "../core/rng.ts";
import {
  type ParamTree,
  type Scalar,
  type Tensor,
  tf,
} from "../core/tensor.ts";
import {
  largestSubnet,
  randomSubnet,
  smallestSubnet,
  type Space,
} from "./space.ts";
import type { Subnet } from "./workload.ts";

export type Axis = "dim" | "inner" | "hidden" | "fixed";

/** Axes of the leaf at a path such as "blocks.3.mlp.weight". */
export type AxesOf = (path: string) => readonly Axis[];

/** Initial value of layer scaling by depth (CaiT, recalled): 0.1 to 18 blocks, 1e-5 to 24, 1e-6 beyond. */
export function initialLayerScale(depth: number): number {
  return depth <= 18 ? 0.1 : depth <= 24 ? 1e-5 : 1e-6;
}

/** Leading part of a master along the axes that vary. */
function view(
  master: Tensor,
  axes: readonly Axis[],
  sizes: Partial<Record<Axis, number>>,
  path: string,
): Tensor {
  if (axes.length !== master.rank) {
    throw new RangeError(
      `Cannot take a view of ${path} as it must have an axis name for each of ${master.rank} axes: ${axes.length}`,
    );
  }
  const shape = master.shape.map((size, i) => {
    const wanted = axes[i] === "fixed" ? size : sizes[axes[i]];
    if (wanted === undefined || wanted > size) {
      throw new RangeError(
        `Cannot take a view of ${path} as its ${
          axes[i]
        } must be at most the master's ${size}: ${wanted}`,
      );
    }
    return wanted;
  });
  return tf.util.arraysEqual(shape, master.shape)
    ? master
    : master.slice(shape.map(() => 0), shape);
}

/**
 * Parameters of a sub-network: views of the masters, with gradients to them.
 *
 * Call it inside the function whose gradient is taken.
 *
 * @param masters tree of the widest network; a list named `blocksName` holds its blocks
 * @returns a tree of the same form, narrower and less deep
 */
export function subnetParams(
  masters: ParamTree,
  { dim, blocks }: Subnet,
  { axesOf, headDim, blocksName = "blocks" }: {
    axesOf: AxesOf;
    headDim: number;
    blocksName?: string;
  },
): ParamTree {
  const walk = (tree: ParamTree, path: string, block?: number): ParamTree => {
    const join = (name: string | number) =>
      path === "" ? `${name}` : `${path}.${name}`;
    if (tree instanceof tf.Tensor) {
      const own = block === undefined ? undefined : blocks[block];
      return view(tree, axesOf(path), {
        dim,
        ...own === undefined ? {} : {
          inner: own.heads * headDim,
          hidden: Math.round(own.mlpRatio * dim),
        },
      }, path);
    }
    if (Array.isArray(tree)) {
      const isBlocks = path === blocksName;
      if (isBlocks && blocks.length > tree.length) {
        throw new RangeError(
          `Cannot take a sub-network as its depth must be at most the supernet's ${tree.length}: ${blocks.length}`,
        );
      }
      const kept = isBlocks ? tree.slice(0, blocks.length) : tree;
      return kept.map((child, i) => walk(child, join(i), isBlocks ? i : block));
    }
    return Object.fromEntries(
      Object.entries(tree).map((
        [name, child],
      ) => [name, walk(child as ParamTree, join(name), block)]),
    );
  };
  return walk(masters, "");
}

/** Which sub-networks a training step runs. */
export type SamplingRule = "one" | "sandwich";

/**
 * Sub-networks of one training step: one at random (AutoFormer, default), or the largest, the smallest and `random` others
 * (sandwich rule of BigNAS, arXiv 2003.11142; not confirmed for this paper).
 */
export function sampledSubnets(
  space: Space,
  key: Key,
  { rule = "one", random = 2 }: { rule?: SamplingRule; random?: number } = {},
): Subnet[] {
  if (rule === "one") return [randomSubnet(space, key)];
  return [
    largestSubnet(space),
    ...Array.from(
      { length: random },
      (_, i) => randomSubnet(space, fold(key, i)),
    ),
    smallestSubnet(space),
  ];
}

/**
 * Loss of a sub-network: labels and a teacher's soft labels (that a teacher is used is the paper's; the form is Hinton's,
 * arXiv 1503.02531).
 *
 *     L = (1 - w) CE(logits, labels) + w T^2 KL(softmax(teacher / T) || softmax(logits / T))
 *
 * @param logits [B, K]
 * @param labels int32 [B]
 * @param teacher logits of the float teacher, [B, K]; without it, labels alone
 */
export function distillationLoss(
  logits: Tensor,
  labels: Tensor,
  teacher?: Tensor,
  { weight = 0.5, temperature = 1 }: {
    weight?: number;
    temperature?: number;
  } = {},
): Scalar {
  const hard = nn.crossEntropy(logits, labels) as Scalar;
  if (teacher === undefined || weight === 0) return hard;
  const target = tf.softmax(teacher.div(temperature));
  const soft = nn.klDivergence(logits, target, { temperature });
  return hard.mul(1 - weight).add(
    soft.mul(weight * temperature ** 2),
  ) as Scalar;
}
