/**
 * What the source models say about the training texts, computed once and shared by all methods.
 *
 * As in FuseLLM (Wan et al., arXiv 2401.10491, code fanqiwan/FuseLLM), which Fusion-X builds on: the ten
 * largest logits at each position, softmax over these alone, and the cross-entropy of each text.
 *
 *   N texts   T positions   V vocabulary   C kept logits   K sources
 */
import { forward, type LlamaConfig, type LlamaParams } from "../core/llama.ts";
import { type Tensor, tf } from "../core/tensor.ts";

/** Kept logits per position (FuseLLM and Fusion-X code). */
export const TOP_LOGITS = 10;

/** One source's predictions of N texts. */
export interface SourceCache {
  name: string;
  positions: number;
  vocabSize: number;
  /** Kept logits per position. */
  kept: number;
  /** [N, T, C]; the ids of the largest logits. */
  ids: Uint16Array;
  /** [N, T, C]; softmax over the kept logits. */
  probs: Float32Array;
  /** [N, T]; probability of the true next token in the full distribution. */
  gold: Float32Array;
  /** [N, T]; entropy of the full distribution in nats. */
  entropy: Float32Array;
  /** [N, T]; probability of the most likely token in the full distribution. */
  peak: Float32Array;
  /** [N]; mean cross-entropy of each text in nats, from the full distribution. */
  loss: Float64Array;
}

/** A model that can be asked. */
export interface Model {
  params: LlamaParams;
  config: LlamaConfig;
}

/** Bytes of a cache: what keeping it on disk would cost. */
export function cacheBytes(cache: SourceCache): number {
  const { ids, probs, gold, entropy, peak, loss } = cache;
  return [ids, probs, gold, entropy, peak, loss]
    .reduce((sum, { byteLength }) => sum + byteLength, 0);
}

/** Ids of the largest values, largest first; the lowest id among equals. */
export function largest(values: ArrayLike<number>, count: number): number[] {
  const kept: number[] = [];
  for (let v = 0; v < values.length; v++) {
    if (kept.length === count && values[v] <= values[kept[count - 1]]) continue;
    let at = kept.length;
    while (at > 0 && values[v] > values[kept[at - 1]]) at--;
    kept.splice(at, 0, v);
    if (kept.length > count) kept.pop();
  }
  return kept;
}

/** Positions of texts of one length. */
export function textLength(
  name: string,
  windows: readonly Int32Array[],
): number {
  const length = windows[0]?.length ?? 0;
  const odd = windows.find((row) => row.length !== length);
  if (length < 2 || odd !== undefined) {
    throw new RangeError(
      `Cannot ask source "${name}" as there must be texts of one length of at least 2 tokens: ${windows.length} texts, lengths ${length} and ${
        odd?.length ?? length
      }`,
    );
  }
  return length - 1;
}

/**
 * Runs a source over texts and keeps its ten largest logits at each position.
 *
 * @param windows N rows of T + 1 ids.
 * @throws {RangeError} If the vocabulary or the context of the source does not fit.
 */
export function cacheSource(
  name: string,
  { params, config }: Model,
  windows: readonly Int32Array[],
  { kept = TOP_LOGITS, batch = 16, temperature = 1 } = {},
): SourceCache {
  const N = windows.length;
  const T = textLength(name, windows);
  const V = config.vocabSize;
  const { maxPositions = 2048 } = config;
  if (T > maxPositions) {
    throw new RangeError(
      `Cannot ask source "${name}" as its context must hold the texts: context ${maxPositions}, texts ${T}; cut shorter texts`,
    );
  }
  if (!(Number.isInteger(kept) && kept >= 1)) {
    throw new RangeError(
      `Cannot ask source "${name}" as the number of kept logits must be a positive integer: ${kept}`,
    );
  }
  if (!(temperature > 0 && Number.isFinite(temperature))) {
    throw new RangeError(
      `Cannot ask source "${name}" as the temperature must be positive and finite: ${temperature}`,
    );
  }
  if (V > 65536) {
    throw new RangeError(
      `Cannot ask source "${name}" as ids are kept in 16 bits, so its vocabulary must have at most 65536 tokens: ${V}`,
    );
  }
  const C = Math.min(kept, V);
  const cache: SourceCache = {
    name,
    positions: T,
    vocabSize: V,
    kept: C,
    ids: new Uint16Array(N * T * C),
    probs: new Float32Array(N * T * C),
    gold: new Float32Array(N * T),
    entropy: new Float32Array(N * T),
    peak: new Float32Array(N * T),
    loss: new Float64Array(N),
  };
  for (let start = 0; start < N; start += batch) {
    const rows = windows.slice(start, start + batch);
    const inputs = rows.flatMap((row) => Array.from(row.subarray(0, T)));
    const wrong = rows.flatMap((row) => Array.from(row)).find((id) => id >= V);
    if (wrong !== undefined) {
      throw new RangeError(
        `Cannot ask source "${name}" as it must share the target's vocabulary: id ${wrong}, its vocabulary ${V}; align the tokens (align.ts)`,
      );
    }
    const predicted = tf.tidy(() =>
      forward(params, config, tf.tensor2d(inputs, [rows.length, T], "int32"))
    ); // [B, T, V]
    const logits = predicted.dataSync();
    predicted.dispose();
    rows.forEach((row, b) => {
      for (let t = 0; t < T; t++) {
        const at = (b * T + t) * V;
        const own = logits.subarray(at, at + V);
        const place = (start + b) * T + t;
        const ids = largest(own, C);
        const peak = own[ids[0]];
        let all = 0;
        let moment = 0; // sum of exp(z) z, z = logit - peak
        for (let v = 0; v < V; v++) {
          const weight = Math.exp(own[v] - peak);
          all += weight;
          moment += weight * (own[v] - peak);
        }
        const logGold = own[row[t + 1]] - peak - Math.log(all);
        cache.gold[place] = Math.exp(logGold);
        cache.entropy[place] = Math.log(all) - moment / all;
        cache.peak[place] = 1 / all;
        cache.loss[start + b] -= logGold / T;
        const weights = ids.map((id) =>
          Math.exp((own[id] - peak) / temperature)
        );
        const sum = weights.reduce((x, y) => x + y, 0);
        ids.forEach((id, c) => {
          cache.ids[place * C + c] = id;
          cache.probs[place * C + c] = weights[c] / sum;
        });
      }
    });
  }
  return cache;
}

/** Refuses sources that do not speak of the same texts in the same vocabulary. */
export function checkCaches(
  caches: readonly SourceCache[],
  vocabSize: number,
): void {
  if (caches.length === 0) {
    throw new RangeError(
      "Cannot fuse as there must be at least one source: 0; pass the source models",
    );
  }
  for (const { name, vocabSize: own, loss, positions } of caches) {
    if (own !== vocabSize) {
      throw new RangeError(
        `Cannot fuse as source and target must have one vocabulary: "${name}" has ${own} tokens, the target ${vocabSize}; align the tokens (align.ts)`,
      );
    }
    if (
      loss.length !== caches[0].loss.length ||
      positions !== caches[0].positions
    ) {
      throw new RangeError(
        `Cannot fuse as all sources must have read the same texts: "${name}" has ${loss.length} of ${positions} tokens, "${
          caches[0].name
        }" ${caches[0].loss.length} of ${caches[0].positions}`,
      );
    }
  }
}

/**
 * The fused distribution of texts, [B T, V].
 *
 *   F[t] = sum over k of w_k P_k[t]
 *
 * @param rows Numbers of the texts.
 * @param weights [B][K], or [B T][K] for weights of each position; rows that sum to 1.
 */
export function fusedDistribution(
  caches: readonly SourceCache[],
  rows: readonly number[],
  weights: readonly (readonly number[])[],
): Tensor {
  const { positions: T, vocabSize: V } = caches[0];
  const out = new Float32Array(rows.length * T * V);
  const each = weights.length === rows.length ? 0 : 1;
  rows.forEach((row, b) => {
    caches.forEach(({ ids, probs, kept: C }, k) => {
      for (let t = 0; t < T; t++) {
        const w = weights[each ? b * T + t : b][k];
        if (w === 0) continue;
        const from = (row * T + t) * C;
        const to = (b * T + t) * V;
        for (let c = 0; c < C; c++) {
          out[to + ids[from + c]] += w * probs[from + c];
        }
      }
    });
  });
  return tf.tensor2d(out, [rows.length * T, V]);
}

/** Whether sources are weighted for a text as a whole or at each position (FuseLLM's metric_level). */
export type Level = "sequence" | "token";

/**
 * Mean cross-entropy of each source's distribution against the target's, [B][K]; the gradient of the
 * fusion loss with respect to w_k, because L_fuse is linear in w. At level "token" of each position, [B T][K].
 *
 *   CE(P_k, Q) = -1/T sum over t, v of P_k[t, v] log Q[t, v] = 1/T sum over t of (Z[t] - sum over v of P_k[t, v] z[t, v])
 *
 * @param logits z, [B T V] of the target.
 * @param normalizers Z, [B T]: log sum over v of exp z[t, v]; see `logNormalizers`.
 */
export function sourceDivergences(
  caches: readonly SourceCache[],
  rows: readonly number[],
  logits: ArrayLike<number>,
  normalizers: ArrayLike<number>,
  level: Level = "sequence",
): number[][] {
  const { positions: T, vocabSize: V } = caches[0];
  const size = level === "token" ? 1 : T;
  const units = Array.from(
    { length: rows.length * T / size },
    () => caches.map(() => 0),
  );
  caches.forEach(({ ids, probs, kept: C }, k) => {
    rows.forEach((row, b) => {
      for (let t = 0; t < T; t++) {
        const place = b * T + t;
        const from = (row * T + t) * C;
        let crossed = normalizers[place];
        for (let c = 0; c < C; c++) {
          crossed -= probs[from + c] * logits[place * V + ids[from + c]];
        }
        units[Math.floor(place / size)][k] += crossed / size;
      }
    });
  });
  return units;
}

/** log sum over v of exp z[n, v], from the loss of any one token: Z = CE + z[label]; [N]. */
export function logNormalizers(
  logits: ArrayLike<number>,
  losses: ArrayLike<number>,
  labels: ArrayLike<number>,
): Float64Array {
  const V = logits.length / losses.length;
  return Float64Array.from(
    losses,
    (loss, n) => loss + logits[n * V + labels[n]],
  );
}
