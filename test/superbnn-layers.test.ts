/** Operations of a binary layer in training: the fast path against the plain one, word for word. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  bits,
  fold,
  type Key,
  key,
  normal,
  randomInts,
} from "../lib/core/rng.ts";
import { ready, type Tensor, tf } from "../lib/core/tensor.ts";
import {
  expectationGradient,
  firingProbability,
} from "../lib/superbnn/device.ts";
import { gatherTiles, maxPool } from "../lib/superbnn/layers.ts";
import { patchIndices } from "../lib/superbnn/network.ts";
import {
  comparatorSlope,
  comparatorSpread,
  singleTileSlope,
  streamLayer,
} from "../lib/superbnn/stream-layer.ts";

await ready();

/** Value of f, and gradients of sum(weights * f(x)) to the inputs. */
function valueAndGradients(
  f: (...x: Tensor[]) => Tensor,
  inputs: Tensor[],
  weights: Tensor,
): ArrayLike<number>[] {
  return tf.tidy(() => [
    f(...inputs).dataSync(),
    ...tf.grads((...x: Tensor[]) =>
      tf.sum(tf.mul(f(...x), weights)) as tf.Scalar
    )(inputs).map((g) => g.dataSync()),
  ]);
}

/** Every number the same, to the last bit. */
function identical(
  found: ArrayLike<number>,
  wanted: ArrayLike<number>,
  what: string,
): void {
  assert.is(found.length, wanted.length, what);
  for (let i = 0; i < wanted.length; i++) {
    if (!Object.is(found[i] + 0, wanted[i] + 0)) {
      assert.unreachable(`${what}, ${i}: ${found[i]} and not ${wanted[i]}`);
    }
  }
}

const between = (k: Key, name: string, low: number, high: number) =>
  randomInts(fold(k, name), 1, low, high)[0];

const floats = (k: Key, name: string, n: number, sd = 1) =>
  Float32Array.from(normal(fold(k, name), n, 0, sd));

test("tiles: every input of every place, and its gradient, by index", () => {
  for (let c = 0; c < 40; c++) {
    const k = fold(key(77), c);
    const B = between(k, "B", 1, 5);
    const geometry = {
      height: between(k, "height", 3, 8),
      width: between(k, "width", 3, 8),
      inChannels: between(k, "channels", 1, 5),
      kernel: 3,
      stride: between(k, "stride", 1, 3),
      pad: between(k, "pad", 0, 2),
    };
    const { height, width, inChannels } = geometry;
    const inputs = height * width * inChannels;
    const indices = c % 2 === 0 ? patchIndices(geometry) : null;
    const fanIn = indices === null ? inputs : 9 * inChannels;
    const positions = indices === null ? 1 : indices.length / fanIn;
    const outside = c % 4 < 2 ? -1 : 0;
    const tile = c % 5 === 0 ? 1 : between(k, "tile", 1, fanIn + 3);
    const K = Math.ceil(fanIn / tile);
    const R = B * positions;
    const x = floats(k, "x", B * inputs);
    const w = floats(k, "w", K * R * tile);
    const [value, back] = valueAndGradients(
      (t) => gatherTiles(t, { indices, fanIn, positions, outside }, tile),
      [tf.tensor2d(x, [B, inputs])],
      tf.tensor3d(w, [K, R, tile]),
    );
    const wanted = new Float32Array(K * R * tile);
    const wantedBack = new Float32Array(B * inputs);
    for (let n = 0; n < K * tile; n++) {
      if (n >= fanIn) continue;
      for (let row = 0; row < R; row++) {
        const image = Math.floor(row / positions);
        const from = indices === null
          ? n
          : indices[row % positions * fanIn + n];
        const to = (Math.floor(n / tile) * R + row) * tile + n % tile;
        wanted[to] = from < 0 ? outside : x[image * inputs + from];
      }
    }
    // In the order of the result, as a sum of floats depends on it.
    for (let to = 0; to < w.length; to++) {
      const row = Math.floor(to / tile) % R;
      const n = Math.floor(to / (R * tile)) * tile + to % tile;
      if (n >= fanIn) continue;
      const from = indices === null ? n : indices[row % positions * fanIn + n];
      if (from >= 0) {
        wantedBack[Math.floor(row / positions) * inputs + from] += w[to];
      }
    }
    identical(value, wanted, `tile ${tile} of ${fanIn}`);
    identical(back, wantedBack, `gradient, tile ${tile} of ${fanIn}`);
  }
});

test("pooling: the maximum of each window, its gradient shared by ties", () => {
  for (let c = 0; c < 40; c++) {
    const k = fold(key(78), c);
    const size = between(k, "size", 1, 4);
    const [outWidth, outHeight] = [
      between(k, "w", 1, 4),
      between(k, "h", 1, 4),
    ];
    const [C, B] = [between(k, "C", 1, 5), between(k, "B", 1, 4)];
    const width = size * outWidth;
    const inputs = size * outHeight * width * C;
    const outputs = outWidth * outHeight * C;
    // -1, 0, 1: ties in most windows.
    const x = Float32Array.from(randomInts(fold(k, "x"), B * inputs, -1, 2));
    const d = floats(k, "d", B * outputs);
    const [value, back] = valueAndGradients(
      (t) => maxPool(t, { width, channels: C, size }),
      [tf.tensor2d(x, [B, inputs])],
      tf.tensor2d(d, [B, outputs]),
    );
    const windows: number[][] = Array.from({ length: B * outputs }, () => []);
    for (let i = 0; i < x.length; i++) {
      const [image, at] = [Math.floor(i / inputs), i % inputs];
      const row = Math.floor(Math.floor(at / (width * C)) / size);
      const column = Math.floor(Math.floor(at / C) % width / size);
      windows[image * outputs + (row * outWidth + column) * C + at % C].push(i);
    }
    const wantedBack = new Float32Array(x.length);
    const wanted = windows.map((window, j) => {
      const most = Math.max(...window.map((i) => x[i]));
      const sharers = window.filter((i) => x[i] === most);
      for (const i of sharers) wantedBack[i] = d[j] / sharers.length;
      return most;
    });
    identical(value, wanted, `window ${size}`);
    identical(back, wantedBack, `gradient, window ${size}`);
  }
});

// Streams -------------------------------------------------------------------------------------------

/** Chances of 0 ... L successes, the smaller of p and 1 - p expanded. */
function binomialMass(L: number, p: number): number[] {
  const q = Math.min(p, 1 - p);
  const mass: number[] = [];
  for (let c = 0, term = (1 - q) ** L; c <= L; c++) {
    mass.push(term);
    term *= q / (1 - q) * (L - c) / (c + 1);
  }
  return p === q ? mass : mass.reverse();
}

/** Walker's table as the lists of small and large columns of the text book: of each column, cut and other number. */
function aliasTable(mass: number[], columns: number): [number, number][] {
  const whole = 2 ** 32 / columns;
  const share = Array.from(
    { length: columns },
    (_, c) => (mass[c] ?? 0) * columns,
  );
  const small: number[] = [];
  const large: number[] = [];
  share.forEach((s, c) => (s < 1 ? small : large).push(c));
  const table: [number, number][] = share.map((_, c) => [whole - 1, c]);
  while (small.length > 0 && large.length > 0) {
    const c = small.pop()!;
    const other = large.at(-1)!;
    table[c] = [Math.min(whole - 1, Math.round(share[c] * whole)), other];
    share[other] -= 1 - share[c];
    if (share[other] < 1) small.push(large.pop()!);
  }
  return table;
}

/** Word of 32 random bits of a counter: MurmurHash3's finaliser of a Weyl sequence, twice keyed. */
function wordOf(counter: number, [k0, k1]: Uint32Array): number {
  let h = (Math.imul(counter, 0x9e3779b9) + k0) | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13) ^ k1, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

interface Case {
  Cs: number;
  fanIn: number;
  L: number;
  grayZone: number;
  R: number;
  out: number;
}

type Output = { kind: "decoded" } | { kind: "compared"; window: number | null };

/** Draw after draw, without tables kept: value, gradient to the sums, gradient to the thresholds. */
function plainStream(
  V: Float32Array,
  threshold: Float32Array,
  d: Float32Array,
  { Cs, fanIn, L, grayZone, R, out }: Case,
  output: Output,
  k: Key,
): ArrayLike<number>[] {
  const K = Math.ceil(fanIn / Cs);
  const columns = 2 ** Math.ceil(Math.log2(L + 1));
  const [draws, ties] = [bits(fold(k, 0), 2), bits(fold(k, 1), 2)];
  const value = new Float32Array(R * out);
  const dV = new Float32Array(V.length);
  const dThreshold = new Float64Array(out);
  const factors = new Float32Array(R * out);
  for (let at = 0; at < R * out; at++) {
    const share = threshold[at % out] / K;
    let count = 0;
    let mean = 0;
    let variance = 0;
    for (let i = at; i < V.length; i += R * out) {
      const exact = firingProbability(V[i], share, grayZone);
      const p = Math.fround(exact);
      mean = Math.fround(mean + p);
      variance = Math.fround(variance + p * (1 - p));
      const word = wordOf(i, draws);
      const own = word % columns;
      const [cut, other] = aliasTable(binomialMass(L, exact), columns)[own];
      count += Math.floor(word / columns) < cut ? own : other;
    }
    const m = Math.fround(2 * count / L - K);
    const expected = Math.fround(2 * mean - K);
    const spread = comparatorSpread(Math.fround(variance * (4 / L)), L);
    let factor = 1;
    value[at] = m;
    if (output.kind === "compared") {
      value[at] = m > 0 || (m === 0 && wordOf(at, ties) >= 2 ** 31) ? 1 : -1;
      if (output.window !== null) {
        factor = Math.abs(expected) <= output.window ? 1 / output.window : 0;
      } else {
        factor = K === 1
          ? singleTileSlope(L, (expected + 1) / 2) / 2
          : comparatorSlope(expected, spread);
      }
    }
    factors[at] = Math.fround(factor) * d[at];
  }
  for (let i = 0; i < V.length; i++) {
    const at = i % (R * out);
    const slope = expectationGradient(
      V[i],
      threshold[at % out] / K,
      grayZone,
    );
    const g = Math.fround(slope) * factors[at];
    dV[i] = g;
    dThreshold[at % out] -= g;
  }
  return [value, dV, Float32Array.from(dThreshold, (g) => g / K)];
}

const OUTPUTS: Output[] = [
  { kind: "decoded" },
  { kind: "compared", window: null },
  { kind: "compared", window: 3 },
];

/** Fast and plain path on random sums that a tile of each size can have. */
function compareStreams(one: Case, k: Key): void {
  const { Cs, fanIn, L, grayZone, R, out } = one;
  const K = Math.ceil(fanIn / Cs);
  const u = bits(fold(k, "V"), K * R * out);
  const V = Float32Array.from(u, (word, i) => {
    const size = Math.min(Cs, fanIn - Math.floor(i / (R * out)) * Cs);
    return 2 * (word % (size + 1)) - size;
  });
  const threshold = floats(k, "threshold", out, Math.sqrt(fanIn));
  const d = floats(k, "d", R * out);
  for (const output of OUTPUTS) {
    const found = valueAndGradients(
      (sums, t) =>
        streamLayer(
          sums,
          t,
          { crossbarSize: Cs, grayZone, streamLength: L, fanIn },
          output,
          fold(k, "draw"),
        ),
      [tf.tensor3d(V, [K, R, out]), tf.tensor1d(threshold)],
      tf.tensor2d(d, [R, out]),
    );
    const wanted = plainStream(V, threshold, d, one, output, fold(k, "draw"));
    ["value", "gradient to the sums", "gradient to the thresholds"].forEach(
      (part, i) =>
        identical(
          found[i],
          wanted[i],
          `${part}, ${JSON.stringify({ ...one, ...output })}`,
        ),
    );
  }
}

test("streams: all crossbar sizes by all lengths, last tiles smaller and odd", () => {
  const sizes = [1, 2, 31, 32, 33, 72];
  const lengths = [1, 2, 31, 32, 33];
  sizes.forEach((Cs, s) =>
    lengths.forEach((L, l) => {
      const k = fold(key(79), s * lengths.length + l);
      // One tile, whole tiles, a smaller last one.
      for (const fanIn of [Cs, 2 * Cs, 2 * Cs + Math.ceil(Cs / 2)]) {
        const grayZone = [0.5, 4, 16][(s + l) % 3];
        compareStreams({ Cs, fanIn, L, grayZone, R: 3, out: 5 }, k);
      }
    })
  );
});

test("streams: random shapes, more neurons than a block holds, gray zones from none to all", () => {
  const grayZones = [0.05, 0.5, 2, 8, 32, 200];
  for (let c = 0; c < 40; c++) {
    const k = fold(key(80), c);
    compareStreams({
      Cs: between(k, "Cs", 1, 80),
      fanIn: between(k, "fanIn", 1, 200),
      L: between(k, "L", 1, 40),
      grayZone: grayZones[c % grayZones.length],
      R: between(k, "R", 1, 6),
      out: c % 4 === 0 ? between(k, "out", 33, 70) : between(k, "few", 1, 10),
    }, k);
  }
});

test("streams: an impossible gray zone, stream or crossbar is refused by name, before any number", () => {
  const run = (wrong: object) => () =>
    tf.tidy(() =>
      streamLayer(
        tf.tensor3d([0, 2], [1, 2, 1]),
        tf.tensor1d([0]),
        {
          crossbarSize: 4,
          grayZone: 1,
          streamLength: 4,
          fanIn: 4,
          ...wrong,
        },
        { kind: "decoded" },
        key(0),
      ).dataSync()
    );
  assert.ok(run({})().every((m) => Math.abs(m) <= 1));
  for (const grayZone of [-1, 0, NaN]) {
    assert.throws(run({ grayZone }), /grayZone must be/);
  }
  for (const streamLength of [0, -1, 1.5, NaN]) {
    assert.throws(run({ streamLength }), /length must be a whole number/);
  }
  for (const crossbarSize of [0, 2.5, NaN]) {
    assert.throws(run({ crossbarSize }), /size must be a whole number/);
  }
  for (const grayZone of [-1, NaN]) {
    assert.throws(() => firingProbability(2, 0, grayZone), /at least 0/);
  }
});

test.run();
