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
import { floatsAt, putFloats } from "./bindings.ts";
import type { FloatKernels } from "./floats.ts";

/** Queries whose scores are held at once: they stay in the L2 cache. */
const QUERY_BLOCK = 32;

/** Codes on which numbers are rounded: scale (code - zeroPoint), code from qmin to qmax. */
export interface Codes {
  scale: number;
  /** A whole number; beyond the codes, too, as a student may have learned it. */
  zeroPoint: number;
  qmin: number;
  qmax: number;
}

/**
 * Rounds float32 [rows, width] in place, to what codes stand for.
 *
 * @param important 1 for rows that get more bits; without it every row gets them
 */
export type RoundRows = (
  x: number,
  rows: number,
  width: number,
  important?: Uint8Array,
) => void;

/** Rounds as fake quantisation does, half to even; `high` are the codes of important rows, if theirs are others. */
export function openRounding(
  engine: IntegerEngine,
  { kernels }: FloatKernels,
  low: Codes,
  high: Codes = low,
): RoundRows {
  const place = ({ scale, zeroPoint, qmin, qmax }: Codes) => {
    const at = putFloats(engine, Float32Array.of(scale, zeroPoint));
    return (x: number, size: number) =>
      kernels.fakeQuantForward(
        x,
        at,
        0,
        at + 4,
        0,
        x,
        1,
        1,
        size,
        qmin,
        qmax,
      );
  };
  const few = place(low);
  if (high === low) return (x, rows, width) => few(x, rows * width);
  const many = place(high);
  return (x, rows, width, important) => {
    if (important === undefined) return many(x, rows * width);
    important.forEach((yes, i) => (yes ? many : few)(x + 4 * i * width, width));
  };
}

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
   * Adds the keys or values of T tokens at position `from` of a layer, float32 [T, G, Dh]; the pointer may be one
   * that `room` gave.
   */
  append(
    layer: number,
    part: "k" | "v",
    from: number,
    rows: number,
    x: number,
  ): void;
  /** Where the keys and values of T tokens may be written before `append`. */
  room(
    layer: number,
    from: number,
    rows: number,
  ): { k: number; v: number };
  /**
   * Sum over heads of the attention that queries [T, H, Dh] at positions from ... from + T - 1 pay to token 0:
   * float64 [T]. Needs their keys only.
   */
  attentionToFirst(
    layer: number,
    from: number,
    rows: number,
    q: number,
  ): Float64Array;
  /**
   * y = softmax(q k^T / sqrt(Dh)) v, [T, H, Dh], of queries at positions from ... from + T - 1.
   *
   * @param round of the probabilities, if they are
   */
  mix(
    layer: number,
    from: number,
    rows: number,
    q: number,
    y: number,
    round?: RoundRows,
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

  /**
   * Probabilities [count, visible] of all queries, a block of one head at a time.
   *
   * @param visit is given those of queries t ... t + count - 1 of head h; keys behind a query have 0
   */
  const probabilities = (
    layer: number,
    from: number,
    rows: number,
    q: number,
    visit: (
      p: number,
      block: { h: number; g: number; t: number; count: number },
      visible: number,
    ) => void,
  ): void => {
    const { k } = store[layer];
    const seen = from + rows;
    const mark = engine.mark();
    const size = Math.min(rows, QUERY_BLOCK);
    const scores = engine.allocate(4 * size * seen);
    const one = short && rows === 1; // reads the codes as they lie
    const keys = short && !one ? engine.allocate(4 * seen * Dh) : 0;
    for (let g = 0; g < G; g++) {
      const [pk, ldk] = one ? [0, 0] : head(k, g, seen, keys);
      for (let h = g * H / G; h < (g + 1) * H / G; h++) {
        for (let t = 0; t < rows; t += QUERY_BLOCK) {
          const count = Math.min(QUERY_BLOCK, rows - t);
          const visible = from + t + count; // keys that the last of these queries sees
          const at = q + 4 * (t * H + h) * Dh;
          if (one) {
            kernels.scoreCodes(at, k.codes, k.scales, seen, G, Dh, g, scores);
          } else {
            floats.sgemm(
              true,
              count,
              visible,
              Dh,
              at,
              H * Dh,
              pk,
              ldk,
              scores,
              visible,
            );
          }
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
          visit(scores, { h, g, t, count }, visible);
        }
      }
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
    append(layer, part, from, rows, x) {
      const { codes, scales } = store[layer][part];
      const at = codes + from * width * (short ? 1 : 4);
      if (short) {
        kernels.floatsToCache(x, rows * G, Dh, at, scales + 4 * from * G);
      } else if (x !== at) {
        new Uint8Array(engine.memory.buffer)
          .copyWithin(at, x, x + 4 * rows * width);
      }
    },
    attentionToFirst(layer, from, rows, q) {
      const sums = new Float64Array(rows);
      probabilities(layer, from, rows, q, (p, { t, count }, visible) => {
        const block = floatsAt(engine, p, count * visible);
        for (let i = 0; i < count; i++) sums[t + i] += block[i * visible];
      });
      return sums;
    },
    mix(layer, from, rows, q, y, round) {
      const { v } = store[layer];
      const seen = from + rows;
      const one = short && rows === 1;
      const mark = engine.mark();
      const values = short && !one ? engine.allocate(4 * seen * Dh) : 0;
      let loaded = -1;
      let [pv, ldv] = [0, 0];
      probabilities(layer, from, rows, q, (p, { h, g, t, count }, visible) => {
        if (round !== undefined) {
          for (let i = 0; i < count; i++) {
            round(p + 4 * i * visible, 1, from + t + i + 1); // hidden keys keep 0
          }
        }
        const to = y + 4 * (t * H + h) * Dh;
        if (one) {
          kernels.mixCodes(p, v.codes, v.scales, seen, G, Dh, g, to);
          return;
        }
        if (g !== loaded) [pv, ldv] = head(v, g, seen, values);
        loaded = g;
        floats.sgemm(
          false,
          count,
          Dh,
          visible,
          p,
          visible,
          pv,
          ldv,
          to,
          H * Dh,
        );
      });
      engine.release(mark);
    },
  };
}
