/**
 * Weights of a LLaMA in few bits: round to nearest, or GPTQ layer by layer on what the quantised layers before
 * leave (Agile-Quant's set-up: 4 bits, groups of 128, act-order, true-sequential; run-gptq-llama.sh).
 *
 * Embedding and head keep their precision, as in the paper.
 *
 * Scope: dequantised matrices, to be used in float, and GPTQ's codes for the integer engine.
 */
import {
  hiddenStates,
  type LlamaConfig,
  type LlamaParams,
  nestParams,
} from "../core/llama.ts";
import {
  absMax,
  asymmetric,
  estimated,
  fakeQuantize,
  grid,
  minMax,
  symmetric,
} from "../core/quantizer.ts";
import type { WeightCodes } from "../core/integer/layers.ts";
import { checkParameters } from "../core/parameters.ts";
import { flatten, type Tensor, tf } from "../core/tensor.ts";
import { gptq, hessian } from "./gptq.ts";

export interface WeightOptions {
  /** Default "gptq". */
  method?: "rtn" | "gptq";
  /** 2 to 8; 16 and 32 quantise nothing. Default 4. */
  bits?: number;
  /**
   * Neighbouring inputs of a row that share a step: "row" is all of them, a number must divide the inputs of
   * every layer. Default the largest divisor of a layer's inputs that is not above 128.
   */
  groupSize?: number | "row";
  /** Codes around 0 without a zero point; round to nearest only. Default false, as released. */
  symmetricCodes?: boolean;
  /** Columns by the size of their input first. Default "activation". */
  order?: "given" | "activation";
  /** Default 0.01. */
  dampening?: number;
}

/** The paper's group size. */
export const GROUP_SIZE = 128;

/** The largest divisor of `inputs` that is not above `limit`. */
export function groupOf(inputs: number, limit: number = GROUP_SIZE): number {
  let group = Math.min(inputs, limit);
  while (inputs % group !== 0) group--;
  return group;
}

/** Bits that one weight costs with a 16-bit scale and a zero point of `bits` per group. */
export function bitsPerWeight(
  bits: number,
  group: number,
  zeroPoint = true,
): number {
  return bits > 8 ? bits : bits + (16 + (zeroPoint ? bits : 0)) / group;
}

/** Linear layers of a block that see the same input, in the order of the forward pass ("true-sequential"). */
const STAGES = [
  ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
  ["self_attn.o_proj"],
  ["mlp.gate_proj", "mlp.up_proj"],
  ["mlp.down_proj"],
];

/** Names of all matrices that are quantised, "model.layers.0.self_attn.q_proj". */
export function linearNames(numLayers: number): string[] {
  return Array.from(
    { length: numLayers },
    (_, i) => STAGES.flat().map((name) => `model.layers.${i}.${name}`),
  ).flat();
}

function groupSizeOf(
  weight: Tensor,
  name: string,
  groupSize: WeightOptions["groupSize"],
): number {
  const inputs = weight.shape[1]!;
  if (groupSize === "row") return inputs;
  const group = groupSize ?? groupOf(inputs);
  if (!Number.isInteger(group) || group < 1 || inputs % group !== 0) {
    throw new RangeError(
      `Cannot quantise ${name} as the group size must divide the inputs: group size ${group}, inputs ${inputs}`,
    );
  }
  return group;
}

/** Round to nearest: (max - min) / (2^bits - 1) per group, or max|w| / (2^(bits - 1) - 1) around 0. */
function roundWeight(
  weight: Tensor,
  group: number,
  { bits = 4, symmetricCodes = false }: WeightOptions,
): Tensor {
  return fakeQuantize(weight, {
    grid: grid({ bits, signed: symmetricCodes }),
    granularity: { group },
    calibration: symmetricCodes
      ? estimated(absMax, symmetric)
      : estimated(minMax, asymmetric),
  });
}

/** H = 2 X X^T of a layer's inputs over all batches. */
function inputHessian(
  params: LlamaParams,
  config: LlamaConfig,
  batches: Tensor[],
  module: string,
): Float64Array {
  let total: Float64Array | null = null;
  for (const ids of batches) {
    hiddenStates(params, config, ids, {
      onActivation(name, x) {
        if (name !== `${module}.input`) return;
        const own = hessian(
          x.dataSync() as Float32Array,
          x.shape[x.rank - 1],
        );
        if (total === null) total = own;
        else for (let i = 0; i < own.length; i++) total[i] += own[i];
      },
    }).dispose();
  }
  return total!;
}

/** A model whose matrices are on their grids; the other tensors are those of the original. */
export interface QuantizedWeights {
  params: LlamaParams;
  /** Mean over the quantised weights, scales and zero points counted. */
  bitsPerWeight: number;
  /** By layer: |W X - What X|^2 on the calibration set, GPTQ only. */
  errors: Record<string, number>;
  /** By layer: what the integer engine takes as a layer's codes, GPTQ only. */
  codes: Record<string, WeightCodes>;
}

/** Refuses what would otherwise be another quantisation than the one that was asked for. */
function checkOptions(
  { method = "gptq", order = "activation", symmetricCodes }: WeightOptions,
): void {
  const known = { method: ["rtn", "gptq"], order: ["given", "activation"] };
  for (const [name, value] of Object.entries({ method, order })) {
    const names = known[name as keyof typeof known];
    if (names.includes(value)) continue;
    throw new RangeError(
      `Cannot quantise weights as ${name} must be one of ${
        names.join(", ")
      }: ${value}`,
    );
  }
  if (method === "gptq" && symmetricCodes) {
    throw new RangeError(
      'Cannot quantise weights as symmetricCodes are those of method "rtn": method "gptq" has zero points',
    );
  }
}

/**
 * The model with its matrices in few bits.
 *
 * @param batches int32 [B, T] each, the calibration set of GPTQ; not read by round to nearest
 * @throws {RangeError} if bits or groups do not fit, a weight is NaN or infinite (the message has its name), or
 * GPTQ has no batch
 * @throws {TypeError} if the parameters are not those of the configuration
 */
export function quantizeWeights(
  params: LlamaParams,
  config: LlamaConfig,
  options: WeightOptions = {},
  batches: Tensor[] = [],
): QuantizedWeights {
  const { method = "gptq", bits = 4, groupSize, order, dampening } = options;
  checkOptions(options);
  grid({ bits });
  checkParameters(params, config, "quantise");
  const named: Record<string, Tensor> = { ...flatten(params) };
  const names = linearNames(config.numLayers);
  const groups = Object.fromEntries(
    names.map((
      name,
    ) => [name, groupSizeOf(named[`${name}.weight`], name, groupSize)]),
  );
  const errors: Record<string, number> = {};
  const codes: Record<string, WeightCodes> = {};
  let cost = 0;
  let count = 0;
  for (const name of names) {
    const { size } = named[`${name}.weight`];
    cost += size * bitsPerWeight(bits, groups[name], !options.symmetricCodes);
    count += size;
  }
  const done = (): QuantizedWeights => ({
    params: nestParams(named),
    bitsPerWeight: cost / count,
    errors,
    codes,
  });
  if (bits > 8) return done();
  if (method === "rtn") {
    for (const name of names) {
      named[`${name}.weight`] = tf.tidy(() =>
        roundWeight(named[`${name}.weight`], groups[name], options)
      );
    }
    return done();
  }
  if (batches.length === 0) {
    throw new RangeError(
      "Cannot quantise by GPTQ as there must be at least one calibration batch: 0 batches",
    );
  }
  for (let i = 0; i < config.numLayers; i++) {
    for (const stage of STAGES) {
      const modules = stage.map((name) => `model.layers.${i}.${name}`);
      const h = inputHessian(nestParams(named), config, batches, modules[0]);
      for (const module of modules) {
        const weight = named[`${module}.weight`];
        const made = gptq(
          weight.dataSync() as Float32Array,
          h,
          { bits, groupSize: groups[module], order, dampening, name: module },
        );
        named[`${module}.weight`] = tf.tensor(made.dequantized, weight.shape);
        errors[module] = made.error;
        const { scale, zeroPoint } = made;
        codes[module] = {
          codes: made.codes,
          scale,
          zeroPoint,
          ...(groups[module] < weight.shape[1]!
            ? { groupSize: groups[module] }
            : {}),
        };
      }
    }
  }
  return done();
}
