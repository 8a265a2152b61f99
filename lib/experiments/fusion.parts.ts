/** What the fusion experiment keeps on disk, and the ensembles that it compares with. */
import {
  readSafetensors,
  readSafetensorsHeader,
  writeSafetensors,
} from "../core/formats/safetensors.ts";
import { forward, type LlamaParams, nestParams } from "../core/llama.ts";
import { flatten, type Tensor, tf } from "../core/tensor.ts";
import type { Model, SourceCache } from "../fusion/mod.ts";

/** Weights as a safetensors file. */
export function packParams(params: LlamaParams): Uint8Array {
  return writeSafetensors(Object.fromEntries(
    Object.entries(flatten(params)).map(([name, t]) => [
      name,
      {
        dtype: "F32" as const,
        shape: t.shape,
        data: t.dataSync() as Float32Array,
      },
    ]),
  ));
}

/** Variables from such a file. */
export function unpackParams(bytes: Uint8Array): LlamaParams {
  return nestParams(Object.fromEntries(
    Object.entries(readSafetensors(bytes)).map(([name, { shape, data }]) => [
      name,
      tf.tidy(() =>
        tf.variable(tf.tensor(data as Float32Array, shape))
      ) as Tensor,
    ]),
  ));
}

/** A source's predictions as a safetensors file; losses as 32-bit numbers. */
export function packCache(cache: SourceCache): Uint8Array {
  const { name, positions: T, vocabSize, kept: C, loss, entropy, peak } = cache;
  const N = loss.length;
  return writeSafetensors({
    ids: { dtype: "U16", shape: [N, T, C], data: cache.ids },
    probs: { dtype: "F32", shape: [N, T, C], data: cache.probs },
    gold: { dtype: "F32", shape: [N, T], data: cache.gold },
    entropy: { dtype: "F32", shape: [N, T], data: entropy },
    peak: { dtype: "F32", shape: [N, T], data: peak },
    loss: { dtype: "F32", shape: [N], data: Float32Array.from(loss) },
  }, { name, vocabSize: `${vocabSize}` });
}

/** The inverse of `packCache`. */
export function unpackCache(bytes: Uint8Array): SourceCache {
  const { metadata } = readSafetensorsHeader(bytes);
  const { ids, probs, gold, entropy, peak, loss } = readSafetensors(bytes);
  const [, positions, kept] = ids.shape;
  return {
    name: metadata.name,
    vocabSize: Number(metadata.vocabSize),
    positions,
    kept,
    ids: ids.data as Uint16Array,
    probs: probs.data as Float32Array,
    gold: gold.data as Float32Array,
    entropy: entropy.data as Float32Array,
    peak: peak.data as Float32Array,
    loss: Float64Array.from(loss.data as Float32Array),
  };
}

/**
 * Mean next-token loss of several models together: the mean of their probabilities, or of their logits.
 * K forward passes for each text.
 */
export function ensembleLoss(
  models: Model[],
  windows: Int32Array[],
  kind: "probabilities" | "logits",
): { loss: number; tokens: number } {
  let sum = 0;
  let tokens = 0;
  const T = windows[0].length - 1;
  for (let start = 0; start < windows.length; start += 32) {
    const rows = windows.slice(start, start + 32);
    const result = tf.tidy(() => {
      const inputs = tf.tensor2d(
        rows.flatMap((row) => Array.from(row.subarray(0, T))),
        [rows.length, T],
        "int32",
      );
      const each = models.map(({ params, config }) => {
        const logits = forward(params, config, inputs);
        return kind === "logits" ? logits : tf.softmax(logits);
      });
      const mean = tf.div(
        each.reduce((a: Tensor, b) => tf.add(a, b)),
        models.length,
      );
      return kind === "logits" ? tf.softmax(mean) : mean;
    }); // [B, T, V]
    const probs = result.dataSync();
    result.dispose();
    const V = probs.length / T / rows.length;
    rows.forEach((row, b) => {
      for (let t = 0; t < T; t++) {
        sum -= Math.log(probs[(b * T + t) * V + row[t + 1]]);
        tokens++;
      }
    });
  }
  return { loss: sum / tokens, tokens };
}
