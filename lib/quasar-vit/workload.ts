/**
 * Products of a vision transformer as the FPGA engine and BitOps count them.
 *
 * Li et al., "Quasar-ViT", ICS 2024, arXiv 2407.18175; shapes of DeiT: Touvron et al., arXiv 2012.12877.
 *
 * | symbol | identifier | unit |
 * | --- | --- | --- |
 * | M | outputs | rows of a weight |
 * | N | inputs | columns of a weight |
 * | F | tokens | columns of the product |
 * | r | ratio8 | share of rows with 8-bit weights, the others have 4 bits |
 *
 * Scope: all matrix products of patch embedding, blocks and head, and the elements that LayerNorm, Softmax and GELU touch.
 * Patch embedding and head have 8-bit weights (assumed: usual for first and last layers). The two products of attention are
 * costed with 6 bits on both sides, although `supernet.ts` computes them in floats: accuracy is that of finer products.
 */
import { ACTIVATION_BITS } from "./packing.ts";

/** Widths of one block. */
export interface BlockShape {
  heads: number;
  /** Hidden units of the MLP over the width. */
  mlpRatio: number;
  /** Share of rows with 8-bit weights, 0 to 1. */
  ratio8: number;
}

/** A sub-network: what the search varies. */
export interface Subnet {
  /** Width D of the tokens. */
  dim: number;
  /** One entry per block; their number is the depth. */
  blocks: BlockShape[];
}

/** What every sub-network of a supernet shares. */
export interface Task {
  /** Tokens that come from the image, without CLS. */
  numPatches: number;
  /** Numbers in a patch: channels times the square of its side. */
  patchDim: number;
  classes: number;
  headDim: number;
}

/** A matrix product [M, N] x [N, F], `count` times. */
export interface Gemm {
  name: string;
  outputs: number;
  inputs: number;
  tokens: number;
  count: number;
  /** Both operands are activations, or one is a weight. */
  operand: "weights" | "activations";
  /** Share of rows with 8 bits; of no meaning for activations. */
  ratio8: number;
}

/** DeiT on ImageNet. Widths recalled; parameters and MACs of the card follow from them (see the test). */
export const IMAGENET: Task = {
  numPatches: 196,
  patchDim: 768,
  classes: 1000,
  headDim: 64,
};

/** A DeiT of a width, with one precision throughout. Twelve blocks, MLP ratio 4, heads of 64. */
export function deit(
  size: "tiny" | "small" | "base",
  ratio8 = 0,
): Subnet {
  const heads = { tiny: 3, small: 6, base: 12 }[size];
  return {
    dim: 64 * heads,
    blocks: Array.from({ length: 12 }, () => ({ heads, mlpRatio: 4, ratio8 })),
  };
}

/** Rows of 8 bits in a layer of `outputs` rows: n8 = round(r M). */
export function rows8(outputs: number, ratio8: number): number {
  return Math.round(ratio8 * outputs);
}

function checkSubnet({ dim, blocks }: Subnet): void {
  if (!Number.isInteger(dim) || dim < 1 || blocks.length === 0) {
    throw new RangeError(
      `Cannot cost a sub-network as it must have a whole width and at least one block: dim ${dim}, depth ${blocks.length}`,
    );
  }
  for (const { heads, mlpRatio, ratio8 } of blocks) {
    const ok = Number.isInteger(heads) && heads >= 1 && mlpRatio > 0 &&
      ratio8 >= 0 && ratio8 <= 1;
    if (!ok) {
      throw new RangeError(
        `Cannot cost a sub-network as each block must have heads, a positive mlpRatio and ratio8 in [0, 1]: ${
          JSON.stringify({ heads, mlpRatio, ratio8 })
        }`,
      );
    }
  }
}

/** All products of a sub-network, in order. */
export function gemms(subnet: Subnet, task: Task): Gemm[] {
  checkSubnet(subnet);
  const { dim } = subnet;
  const { numPatches, patchDim, classes, headDim } = task;
  const F = numPatches + 1;
  const weights = (
    name: string,
    outputs: number,
    inputs: number,
    tokens: number,
    ratio8: number,
  ): Gemm => ({
    name,
    outputs,
    inputs,
    tokens,
    count: 1,
    operand: "weights",
    ratio8,
  });
  return [
    weights("patch embedding", dim, patchDim, numPatches, 1),
    ...subnet.blocks.flatMap(({ heads, mlpRatio, ratio8 }, l): Gemm[] => {
      const inner = heads * headDim;
      const hidden = Math.round(mlpRatio * dim);
      const product = (
        name: string,
        outputs: number,
        inputs: number,
      ): Gemm => ({
        name: `${name} ${l}`,
        outputs,
        inputs,
        tokens: F,
        count: heads,
        operand: "activations",
        ratio8: 0,
      });
      return [
        weights(`qkv ${l}`, 3 * inner, dim, F, ratio8),
        product("scores", F, headDim),
        product("mix", headDim, F),
        weights(`projection ${l}`, dim, inner, F, ratio8),
        weights(`mlp in ${l}`, hidden, dim, F, ratio8),
        weights(`mlp out ${l}`, dim, hidden, F, ratio8),
      ];
    }),
    weights("head", classes, dim, 1, 1),
  ];
}

/** Multiply-accumulates of an image. */
export function macs(subnet: Subnet, task: Task): number {
  return gemms(subnet, task).reduce(
    (sum, { outputs, inputs, tokens, count }) =>
      sum + outputs * inputs * tokens * count,
    0,
  );
}

/**
 * Bit operations of an image: sum over products of MACs times bits of one operand times bits of the other.
 *
 *     BitOps = sum F N (8 n8 + 4 (M - n8)) 6
 */
export function bitOps(subnet: Subnet, task: Task): number {
  return gemms(subnet, task).reduce((sum, gemm) => {
    const { outputs, inputs, tokens, count, operand } = gemm;
    const n8 = rows8(outputs, gemm.ratio8);
    const rowBits = operand === "activations"
      ? ACTIVATION_BITS * outputs
      : 8 * n8 + 4 * (outputs - n8);
    return sum + count * tokens * inputs * rowBits * ACTIVATION_BITS;
  }, 0);
}

/** Weights of an image's products in bits: what has to reach the engine. */
export function weightBits(subnet: Subnet, task: Task): number {
  return gemms(subnet, task).reduce((sum, gemm) => {
    if (gemm.operand === "activations") return sum;
    const n8 = rows8(gemm.outputs, gemm.ratio8);
    return sum + gemm.inputs * (8 * n8 + 4 * (gemm.outputs - n8));
  }, 0);
}

/** Elements that LayerNorm, Softmax and GELU touch in an image. */
export function hostElements({ dim, blocks }: Subnet, task: Task): {
  layerNorm: number;
  softmax: number;
  gelu: number;
} {
  const F = task.numPatches + 1;
  let softmax = 0;
  let gelu = 0;
  for (const { heads, mlpRatio } of blocks) {
    softmax += heads * F * F;
    gelu += F * Math.round(mlpRatio * dim);
  }
  return { layerNorm: F * dim * (2 * blocks.length + 1), softmax, gelu };
}
