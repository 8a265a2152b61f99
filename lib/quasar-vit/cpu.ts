/**
 * The products of a sub-network on a processor's integer kernels, to measure beside the FPGA model.
 *
 * Li et al., "Quasar-ViT", ICS 2024, arXiv 2407.18175. The paper measures on the board; here the same mixed rows run on
 * `core/integer`: rows of 8 bits as bytes, rows of 4 bits as packed nibbles, each with 6-bit activations.
 *
 *     y = [A6 (W8)^T, A6 (W4)^T] + bias
 *
 * Scope: patch embedding, projections, MLP and head, with the rounding of their inputs, one image at a time. Norms, softmax,
 * GELU and the products of two activations are left out.
 */
import {
  floatsAt,
  type IntegerEngine,
  linear,
  openIntegerEngine,
  type PackedWeights,
  packWeights,
  putFloats,
  quantizeActivations,
} from "../core/integer/bindings.ts";
import { fold, type Key, normal } from "../core/rng.ts";
import type { Tensor } from "../core/tensor.ts";
import type { VitLinear, VitParams } from "../core/vit.ts";
import { ACTIVATION_BITS } from "./packing.ts";
import { rowCodes } from "./rows.ts";
import { rows8, type Subnet } from "./workload.ts";

/** A layer whose first rows have 8 bits and whose others have 4; either may be missing. */
export interface MixedLayer {
  outputs: number;
  inputs: number;
  parts: PackedWeights[];
}

/** Packs a layer's rows, each kind in its format. */
export function packMixed(
  engine: IntegerEngine,
  weight: Tensor,
  ratio8: number,
  bias?: ArrayLike<number>,
): MixedLayer {
  const { codes, scale, outputs, inputs } = rowCodes(weight, ratio8);
  const n8 = rows8(outputs, ratio8);
  const part = (from: number, to: number, format: "int8" | "nibble-pairs") =>
    from === to ? [] : [packWeights(
      engine,
      codes.subarray(from * inputs, to * inputs),
      to - from,
      inputs,
      {
        format,
        scale: scale.subarray(from, to),
        ...(bias === undefined
          ? {}
          : { bias: Array.from(bias).slice(from, to) }),
      },
    )];
  return {
    outputs,
    inputs,
    parts: [
      ...part(0, n8, "int8"),
      ...part(n8, outputs, "nibble-pairs"),
    ],
  };
}

/**
 * y of a layer: the results of its 8-bit rows, then those of its 4-bit rows.
 *
 * @param x pointer to float32 [tokens, inputs]
 * @param y pointer to float32, [tokens, n8] and [tokens, outputs - n8] one after the other
 */
export function runMixed(
  engine: IntegerEngine,
  { inputs, parts }: MixedLayer,
  x: number,
  tokens: number,
  y: number,
): void {
  let to = y;
  for (const part of parts) {
    const mark = engine.mark();
    const a = quantizeActivations(engine, x, tokens, inputs, {
      format: part.format,
      bits: ACTIVATION_BITS,
      symmetric: false,
      granularity: "tensor",
    });
    linear(engine, a, part, to);
    engine.release(mark);
    to += 4 * tokens * part.outputs;
  }
}

/**
 * Results of one mixed layer on the integer kernels.
 *
 * @param x [tokens, inputs]
 * @returns [tokens, outputs]
 */
export function mixedProduct(
  weight: Tensor,
  ratio8: number,
  x: Float32Array,
): Float32Array {
  const engine = openIntegerEngine();
  const layer = packMixed(engine, weight, ratio8);
  const tokens = x.length / layer.inputs;
  const y = engine.allocate(4 * tokens * layer.outputs);
  runMixed(engine, layer, putFloats(engine, x), tokens, y);
  const raw = floatsAt(engine, y, tokens * layer.outputs);
  const out = new Float32Array(raw.length);
  let from = 0;
  let column = 0;
  for (const { outputs } of layer.parts) {
    for (let t = 0; t < tokens; t++) {
      out.set(
        raw.subarray(from + t * outputs, from + (t + 1) * outputs),
        t * layer.outputs + column,
      );
    }
    from += tokens * outputs;
    column += outputs;
  }
  return out;
}

/**
 * Milliseconds of one image's products on the integer kernels: the least of several rounds.
 *
 * @param params the sub-network's own weights
 * @param clock seconds, rising
 */
export function cpuMs(
  params: VitParams,
  { blocks }: Subnet,
  clock: () => number,
  { key, rounds = 7, repeats = 40 }: {
    key: Key;
    rounds?: number;
    repeats?: number;
  },
): number {
  const engine = openIntegerEngine();
  const T = params.pos_embed.shape[1]!;
  const layers: { layer: MixedLayer; tokens: number; x: number; y: number }[] =
    [];
  const add = (
    { weight, bias }: VitLinear,
    ratio8: number,
    tokens: number,
  ) => {
    const layer = packMixed(engine, weight, ratio8, bias.dataSync());
    const values = normal(fold(key, layers.length), tokens * layer.inputs);
    layers.push({
      layer,
      tokens,
      x: putFloats(engine, values),
      y: engine.allocate(4 * tokens * layer.outputs),
    });
  };
  add(params.patch_embed.proj, 1, T - 1);
  params.blocks.forEach(({ attn, mlp }, l) => {
    const { ratio8 } = blocks[l];
    for (const each of [attn.q, attn.k, attn.v, attn.proj, mlp.fc1, mlp.fc2]) {
      add(each, ratio8, T);
    }
  });
  add(params.head, 1, 1);
  const times = Array.from({ length: rounds }, () => {
    const start = clock();
    for (let i = 0; i < repeats; i++) {
      for (const { layer, tokens, x, y } of layers) {
        runMixed(engine, layer, x, tokens, y);
      }
    }
    return 1e3 * (clock() - start) / repeats;
  });
  return Math.min(...times);
}
