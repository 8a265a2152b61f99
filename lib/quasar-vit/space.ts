/**
 * Search space: width, depth, and per block heads, MLP ratio and share of 8-bit rows.
 *
 * Li et al., "Quasar-ViT", ICS 2024, arXiv 2407.18175. That these vary is read second-hand; the sets were not read, so they are
 * arguments. Genes: one width, then one entry per block.
 */
import { fold, type Key, uniform } from "../core/rng.ts";
import type { BlockShape, Subnet } from "./workload.ts";

const POLICIES = ["row-wise", "layer-wise", "uniform"] as const;

/** How precision may differ: by row within blocks, by block, or not at all. */
export type PrecisionPolicy = typeof POLICIES[number];

export interface Space {
  dims: readonly number[];
  depths: readonly number[];
  heads: readonly number[];
  mlpRatios: readonly number[];
  /** Shares of 8-bit rows of the row-wise policy. */
  ratios: readonly number[];
  /** Default "row-wise". */
  policy?: PrecisionPolicy;
}

/** Numbers in [0, 1), one after another, from a key. */
export function stream(key: Key): () => number {
  let block = 0;
  let values: Float32Array = new Float32Array(0);
  let at = 0;
  return () => {
    if (at === values.length) {
      values = uniform(fold(key, block++), 64);
      at = 0;
    }
    return values[at++];
  };
}

export function pick<T>(random: () => number, choices: readonly T[]): T {
  return choices[
    Math.min(choices.length - 1, Math.floor(random() * choices.length))
  ];
}

/** Shares that a policy allows: whole blocks have 4 or 8 bits unless rows differ. */
export function allowedRatios(
  { ratios, policy = "row-wise" }: Space,
): readonly number[] {
  return policy === "row-wise" ? ratios : [0, 1];
}

/** Throws unless every set has a choice and every choice can be. */
export function checkSpace(space: Space): void {
  const { policy = "row-wise" } = space;
  if (!POLICIES.includes(policy)) {
    throw new RangeError(
      `Cannot search as the policy of precision must be ${
        POLICIES.join(", ")
      }: ${policy}`,
    );
  }
  for (
    const name of ["dims", "depths", "heads", "mlpRatios", "ratios"] as const
  ) {
    const choices = space[name];
    const whole = name !== "mlpRatios" && name !== "ratios";
    const bad = choices.find((x) =>
      !Number.isFinite(x) || (name === "ratios" ? x < 0 || x > 1 : x <= 0) ||
      (whole && !Number.isInteger(x))
    );
    if (choices.length === 0 || bad !== undefined) {
      throw new RangeError(
        `Cannot search as ${name} must be a list of ${
          name === "ratios"
            ? "numbers in [0, 1]"
            : whole
            ? "positive whole numbers"
            : "positive numbers"
        }: [${choices.join(", ")}]`,
      );
    }
  }
}

/** One block at random. */
export function randomBlock(
  space: Space,
  random: () => number,
  ratio8 = pick(random, allowedRatios(space)),
): BlockShape {
  return {
    heads: pick(random, space.heads),
    mlpRatio: pick(random, space.mlpRatios),
    ratio8,
  };
}

/** A sub-network with every gene drawn uniformly. */
export function randomSubnet(space: Space, key: Key): Subnet {
  checkSpace(space);
  const random = stream(key);
  const dim = pick(random, space.dims);
  const depth = pick(random, space.depths);
  const shared = space.policy === "uniform"
    ? pick(random, allowedRatios(space))
    : undefined;
  return {
    dim,
    blocks: Array.from(
      { length: depth },
      () => randomBlock(space, random, shared),
    ),
  };
}

function extreme(space: Space, of: (...xs: number[]) => number): Subnet {
  checkSpace(space);
  return {
    dim: of(...space.dims),
    blocks: Array.from({ length: of(...space.depths) }, () => ({
      heads: of(...space.heads),
      mlpRatio: of(...space.mlpRatios),
      ratio8: of(...allowedRatios(space)),
    })),
  };
}

/** The sub-network with the largest choice of every gene. */
export function largestSubnet(space: Space): Subnet {
  return extreme(space, Math.max);
}

/** The sub-network with the smallest choice of every gene. */
export function smallestSubnet(space: Space): Subnet {
  return extreme(space, Math.min);
}

/** A text that is equal for equal sub-networks: "48: 3x2.0@0.25 4x3.0@1". */
export function subnetId({ dim, blocks }: Subnet): string {
  return `${dim}: ${
    blocks.map(({ heads, mlpRatio, ratio8 }) =>
      `${heads}x${mlpRatio}@${ratio8}`
    ).join(" ")
  }`;
}
