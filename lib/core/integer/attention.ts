/**
 * Causal attention of an inference engine, with its cache of keys and values in float32 or in 8 bits.
 *
 * In 8 bits each key and value of a token and head has a scale of its own,
 *
 *     scale = max|x| / 127,   code = round(x / scale),   x ~ scale code
 *
 * and is brought back to float32 where it is read, for one query in registers and for many in memory: the cache
 * takes a quarter of the memory.
 *
 * Notation: T new tokens, S tokens seen (cached and new), H query heads, G heads of keys and values, Dh width of
 * a head.
 */
import type { IntegerEngine } from "./bindings.ts";
import { floatsAt } from "./bindings.ts";
import type { FloatKernels } from "./floats.ts";

/** Queries whose scores are held at once: they stay in the L2 cache. */
const QUERY_BLOCK = 32;

export interface CacheSize {
  layers: number;
  /** Most tokens. */
  positions: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  bits: 8 | 32;
}

/** Keys and values of all layers. */
export interface AttentionCache {
  /** Bytes set aside. */
  sizeBytes: number;
  /**
   * Adds T tokens at position `from` of a layer, float32 [T, G, Dh] each; the pointers may be those that
   * `room` gave.
   */
  append(
    layer: number,
    from: number,
    rows: number,
    k: number,
    v: number,
  ): void;
  /** Where the keys and values of T tokens may be written before `append`. */
  room(
    layer: number,
    from: number,
    rows: number,
  ): { k: number; v: number };
  /**
   * y = softmax(q k^T / sqrt(Dh)) v, [T, H, Dh], of queries at positions from ... from + T - 1.
   *
   * @param importance if given, gets the sum over heads of the attention to token 0, float64 [T]
   */
  mix(
    layer: number,
    from: number,
    rows: number,
    q: number,
    y: number,
    importance?: Float64Array,
  ): void;
}

/** An empty cache in the engine's memory. */
export function openCache(
  engine: IntegerEngine,
  floats: FloatKernels,
  { layers, positions, heads: H, kvHeads: G, headDim: Dh, bits }: CacheSize,
): AttentionCache {
  const { kernels } = engine;
  const width = G * Dh;
  const scale = 1 / Math.sqrt(Dh);
  const short = bits === 8;
  const tokenBytes = short ? width + 4 * G : 4 * width;
  const block = () => ({
    codes: engine.allocate(positions * width * (short ? 1 : 4)),
    scales: engine.allocate(short ? positions * 4 * G : 0),
  });
  const store = Array.from({ length: layers }, () => ({
    k: block(),
    v: block(),
  }));

  /** float32 of one head of a block, and its leading dimension. */
  const head = (
    { codes, scales }: { codes: number; scales: number },
    g: number,
    seen: number,
    to: number,
  ): [pointer: number, stride: number] => {
    if (!short) return [codes + 4 * g * Dh, width];
    kernels.cacheToFloats(codes, scales, seen, G, Dh, g, to);
    return [to, Dh];
  };

  /** `mix` of one query on codes. */
  const mixOne = (
    layer: number,
    seen: number,
    q: number,
    y: number,
    importance?: Float64Array,
  ): void => {
    const { k, v } = store[layer];
    const mark = engine.mark();
    const scores = engine.allocate(4 * seen);
    importance?.fill(0);
    for (let h = 0; h < H; h++) {
      const g = Math.floor(h * G / H);
      const at = 4 * h * Dh;
      const size = [seen, G, Dh, g] as const;
      kernels.scoreCodes(q + at, k.codes, k.scales, ...size, scores);
      floats.kernels.softmaxRows(
        scores,
        seen,
        0,
        0,
        1,
        seen,
        scale,
        1,
        seen,
      );
      if (importance !== undefined) {
        importance[0] += floatsAt(engine, scores, 1)[0];
      }
      kernels.mixCodes(scores, v.codes, v.scales, ...size, y + at);
    }
    engine.release(mark);
  };

  return {
    sizeBytes: 2 * layers * positions * tokenBytes,
    room(layer, from, rows) {
      if (short) {
        const bytes = 4 * rows * width;
        return { k: engine.allocate(bytes), v: engine.allocate(bytes) };
      }
      const { k, v } = store[layer];
      const at = 4 * from * width;
      return { k: k.codes + at, v: v.codes + at };
    },
    append(layer, from, rows, k, v) {
      const { k: keys, v: values } = store[layer];
      for (const [{ codes, scales }, x] of [[keys, k], [values, v]] as const) {
        const at = codes + from * width * (short ? 1 : 4);
        if (short) {
          kernels.floatsToCache(x, rows * G, Dh, at, scales + 4 * from * G);
        } else if (x !== at) {
          new Uint8Array(engine.memory.buffer)
            .copyWithin(at, x, x + 4 * rows * width);
        }
      }
    },
    mix(layer, from, rows, q, y, importance) {
      if (short && rows === 1) return mixOne(layer, from + 1, q, y, importance);
      const { k, v } = store[layer];
      const seen = from + rows;
      const mark = engine.mark();
      const size = Math.min(rows, QUERY_BLOCK);
      const scores = engine.allocate(4 * size * seen);
      const [keys, values] = short
        ? [engine.allocate(4 * seen * Dh), engine.allocate(4 * seen * Dh)]
        : [0, 0];
      const first = importance === undefined
        ? null
        : floatsAt(engine, scores, size * seen);
      importance?.fill(0);
      const ldq = H * Dh;
      for (let g = 0; g < G; g++) {
        const [pk, ldk] = head(k, g, seen, keys);
        const [pv, ldv] = head(v, g, seen, values);
        for (let h = g * H / G; h < (g + 1) * H / G; h++) {
          for (let t = 0; t < rows; t += QUERY_BLOCK) {
            const count = Math.min(QUERY_BLOCK, rows - t);
            const visible = from + t + count; // keys that the last of these queries sees
            const at = 4 * (t * ldq + h * Dh);
            floats.sgemm(
              true,
              count,
              visible,
              Dh,
              q + at,
              ldq,
              pk,
              ldk,
              scores,
              visible,
            );
            floats.kernels.softmaxRows(
              scores,
              visible,
              0,
              0,
              count,
              visible,
              scale,
              1,
              from + t + 1,
            );
            if (first !== null) {
              for (let i = 0; i < count; i++) {
                importance![t + i] += first[i * visible];
              }
            }
            floats.sgemm(
              false,
              count,
              Dh,
              visible,
              scores,
              visible,
              pv,
              ldv,
              y + at,
              ldq,
            );
          }
        }
      }
      engine.release(mark);
    },
  };
}
