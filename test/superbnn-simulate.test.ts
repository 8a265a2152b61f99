/** Simulator: bit-level oracle against the fast path, the exact network as limit, ties, tiles, tables. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { fold, type Key, key, randomInts, uniform } from "../lib/core/rng.ts";
import {
  approximateCount,
  comparatorFires,
  countMoments,
  decodedMean,
  decodedValue,
  decodedVariance,
  exactCount,
  splitThreshold,
  tileProbabilities,
} from "../lib/superbnn/accumulate.ts";
import {
  binomialProbabilities,
  drawBinomial,
  drawFromTable,
  nextWord,
  seedGenerators,
  tableMaker,
} from "../lib/superbnn/binomial.ts";
import {
  agreements,
  agreementsArray,
  packTiles,
  tileSize,
  tileSum,
  tilingOf,
} from "../lib/superbnn/crossbar.ts";
import {
  type BinaryNetwork,
  idealForward,
  type Layer,
  layerSizes,
} from "../lib/superbnn/network.ts";
import {
  accuracy,
  firstLayerSums,
  simulate,
  simulateBits,
  type SimulateOptions,
  simulateSweep,
} from "../lib/superbnn/simulate.ts";
import { simulateStreams } from "../lib/superbnn/streams.ts";

const CROSSBARS = [1, 3, 7, 8, 9, 16, 17, 32, 33, 36, 64, 72, 300];

function signs(k: Key, n: number): Int8Array {
  return Int8Array.from(randomInts(k, n, 0, 2), (v) => 2 * v - 1);
}

/** Random layers of these widths, thresholds where no integer sum can be. */
function denseNetwork(widths: number[], k: Key): BinaryNetwork {
  const layers = widths.slice(1).map((outputs, i): Layer => {
    const inputs = widths[i];
    const weights = signs(fold(k, `weights ${i}`), inputs * outputs);
    if (i === widths.length - 2) {
      const scale = Float64Array.from(uniform(fold(k, "s"), outputs, 0.5, 2));
      const offset = Float64Array.from(uniform(fold(k, "o"), outputs, -2, 2));
      return { kind: "scores", inputs, outputs, weights, scale, offset };
    }
    const spread = Math.sqrt(inputs) / 2;
    const thresholds = Float64Array.from(
      uniform(fold(k, `thresholds ${i}`), outputs, -spread, spread),
      (v) => Math.floor(v) + 0.37,
    );
    return { kind: "dense", inputs, outputs, weights, thresholds };
  });
  return {
    input: {
      height: 1,
      width: widths[0],
      channels: 1,
      levels: 1,
      thresholds: new Float64Array(widths[0]),
    },
    layers,
    note: "random",
  };
}

/** Two convolutions with padding and a stride, a pool, a dense layer and scores. */
function convNetwork(k: Key): BinaryNetwork {
  const conv = (
    name: string,
    sizes: {
      height: number;
      width: number;
      inChannels: number;
      outChannels: number;
      stride: number;
    },
  ): Layer => {
    const { inChannels, outChannels } = sizes;
    return {
      kind: "conv",
      kernel: 3,
      pad: 1,
      ...sizes,
      weights: signs(fold(k, name), outChannels * 9 * inChannels),
      thresholds: Float64Array.from(
        randomInts(fold(k, `${name} t`), outChannels, -4, 4),
        (v) => v + 0.5,
      ),
    };
  };
  const dense = denseNetwork([2 * 2 * 6, 12, 4], fold(k, "dense"));
  const layers: Layer[] = [
    conv("a", {
      height: 8,
      width: 8,
      inChannels: 2,
      outChannels: 5,
      stride: 1,
    }),
    { kind: "pool", height: 8, width: 8, channels: 5, size: 2 },
    conv("b", {
      height: 4,
      width: 4,
      inChannels: 5,
      outChannels: 6,
      stride: 2,
    }),
    ...dense.layers,
  ];
  return {
    input: {
      height: 8,
      width: 8,
      channels: 2,
      levels: 1,
      thresholds: new Float64Array(128),
    },
    layers,
    note: "random",
  };
}

/** Chi-square of observed counts against expected ones, cells below 5 merged; with its degrees of freedom. */
function chiSquare(
  observed: ArrayLike<number>,
  expected: ArrayLike<number>,
): { value: number; df: number } {
  let value = 0;
  let cells = 0;
  let o = 0;
  let e = 0;
  for (let i = 0; i < expected.length; i++) {
    o += observed[i];
    e += expected[i];
    if (e >= 5 || i === expected.length - 1) {
      if (e > 0) value += (o - e) ** 2 / e;
      cells++;
      o = e = 0;
    }
  }
  return { value, df: Math.max(1, cells - 1) };
}

/**
 * Above it a chi-square with df degrees of freedom is once in a million: Wilson and Hilferty's cube
 * approximation at z = 4.75. Keys are fixed, so a pass stays one.
 */
function chiSquareLimit(df: number): number {
  return df * (1 - 2 / (9 * df) + 4.75 * Math.sqrt(2 / (9 * df))) ** 3;
}

function histogram(values: ArrayLike<number>, length: number): Float64Array {
  const out = new Float64Array(length);
  for (let i = 0; i < values.length; i++) out[values[i]]++;
  return out;
}

/** Exact distribution of a sum of independent counts. */
function convolve(a: Float64Array, b: Float64Array): Float64Array {
  const out = new Float64Array(a.length + b.length - 1);
  a.forEach((x, i) => b.forEach((y, j) => out[i + j] += x * y));
  return out;
}

// Binomials ---------------------------------------------------------------------------------------

test("binomial probabilities are scipy's", () => {
  const near = (actual: number, expected: number) =>
    assert.ok(
      Math.abs(actual - expected) <= 1e-12 * expected,
      `${actual} against ${expected}`,
    );
  const small = binomialProbabilities(8, 0.3);
  // scipy 1.17.1, python3 -c "from scipy.stats import binom
  // print(binom.pmf([0, 3, 8], 8, .3).tolist(), binom.pmf([450, 600, 700], 1000, .6).tolist())"
  near(small[0], 0.05764800999999996);
  near(small[3], 0.25412184000000004);
  near(small[8], 6.560999999999998e-05);
  const large = binomialProbabilities(1000, 0.6);
  near(large[450], 3.630445408473898e-22);
  near(large[600], 0.025744818801482515);
  near(large[700], 1.1442805385149779e-11);
  assert.equal([...binomialProbabilities(4, 0)], [1, 0, 0, 0, 0]);
  assert.equal([...binomialProbabilities(4, 1)], [0, 0, 0, 0, 1]);
  assert.throws(() => binomialProbabilities(4, NaN), /p must be from 0 to 1/);
});

test("a table holds its distribution to 2^-32, every word counted", () => {
  for (const [length, p] of [[1, 0.25], [5, 0.01], [16, 0.5], [37, 0.93]]) {
    const { columnBits, write } = tableMaker(length);
    const columns = 2 ** columnBits;
    const table = new Int32Array(columns + 3);
    write(table, 3, p);
    // Words of a column in order: alike up to its threshold, so bisection counts all 2^32 of them.
    const mass = new Float64Array(length + 1);
    for (let column = 0; column < columns; column++) {
      const unit = 2 ** (32 - columnBits);
      const draw = (i: number) =>
        drawFromTable(table, 3, columnBits, (column * unit + i) | 0);
      let low = 0;
      let high = unit;
      while (low < high) {
        const middle = Math.floor((low + high) / 2);
        if (draw(middle) === column) low = middle + 1;
        else high = middle;
      }
      if (low > 0) mass[column] += low;
      if (low < unit) mass[draw(unit - 1)] += unit - low;
    }
    binomialProbabilities(length, p).forEach((chance, c) => {
      const error = Math.abs(mass[c] / 2 ** 32 - chance);
      assert.ok(
        error <= (length + 1) * 2 ** -32,
        `L ${length}, p ${p}, c ${c}: off by ${error}`,
      );
    });
  }
});

test("tables of 0 and 1 never draw anything else", () => {
  const { columnBits, write } = tableMaker(9);
  const table = new Int32Array(2 ** columnBits);
  const generators = seedGenerators(key(3), 0, 1, 1);
  for (const p of [0, 1]) {
    write(table, 0, p);
    for (let i = 0; i < 1000; i++) {
      const word = nextWord(generators, 0);
      assert.is(drawFromTable(table, 0, columnBits, word), 9 * p);
    }
  }
});

test("draws by inversion and by table follow the distribution", () => {
  const draws = 40_000;
  for (const [length, p] of [[3, 0.5], [16, 0.07], [32, 0.8], [700, 0.4]]) {
    const { columnBits, write } = tableMaker(length);
    const table = new Int32Array(2 ** columnBits);
    write(table, 0, p);
    const generators = seedGenerators(fold(key(5), length), 0, 2, 1);
    const expected = binomialProbabilities(length, p).map((c) => c * draws);
    const byTable = Int32Array.from(
      { length: draws },
      () => drawFromTable(table, 0, columnBits, nextWord(generators, 0)),
    );
    const byWalk = Int32Array.from(
      { length: draws },
      () => drawBinomial(length, p, () => nextWord(generators, 1)),
    );
    for (
      const [name, drawn] of [["table", byTable], ["walk", byWalk]] as const
    ) {
      const { value, df } = chiSquare(histogram(drawn, length + 1), expected);
      assert.ok(
        value < chiSquareLimit(df),
        `${name} L ${length} p ${p}: chi-square ${value}, df ${df}`,
      );
    }
  }
});

test("generators of rows and images are uncorrelated", () => {
  const generators = seedGenerators(key(0), 0, 100, 4);
  const words = Array.from(
    { length: 400 },
    (_, row) =>
      Float64Array.from({ length: 256 }, () => nextWord(generators, row)),
  );
  const scale = 2 ** 62 / 3; // variance of a signed 32-bit word
  let greatest = 0;
  for (let a = 0; a < 400; a++) {
    for (let b = 0; b < a; b++) {
      let sum = 0;
      for (let i = 0; i < 256; i++) sum += words[a][i] * words[b][i];
      greatest = Math.max(greatest, Math.abs(sum) / scale / 256);
    }
  }
  // 79,800 correlations of standard deviation 1/16: the greatest is near 4.4 of them.
  assert.ok(greatest > 3 / 16 && greatest < 6 / 16, `${greatest}`);
});

// Tiles -------------------------------------------------------------------------------------------

test("tiles: K = ceil(n / Cs), the last smaller, a large crossbar is one", () => {
  const sizes = (fanIn: number, crossbar: number) => {
    const tiling = tilingOf(fanIn, crossbar);
    return Array.from({ length: tiling.tiles }, (_, k) => tileSize(tiling, k));
  };
  assert.equal(sizes(10, 4), [4, 4, 2]);
  assert.equal(sizes(8, 4), [4, 4]);
  assert.equal(sizes(5, 144), [5]);
  assert.equal(sizes(3, 1), [1, 1, 1]);
  for (const bad of [0, -8, 1.5, NaN]) {
    assert.throws(() => tilingOf(10, bad), /crossbarSize/);
  }
  assert.throws(() => tilingOf(0, 4), /fanIn 0/);
});

test("packed tile sums are the plain sums for every crossbar size", () => {
  for (const crossbarSize of CROSSBARS) {
    for (const fanIn of [1, 8, 31, 32, 45, 96, 290]) {
      const k = fold(fold(key(7), crossbarSize), fanIn);
      const rows = 5;
      const x = signs(fold(k, "x"), rows * fanIn);
      const w = signs(fold(k, "w"), 2 * fanIn);
      const tiling = tilingOf(fanIn, crossbarSize);
      const out = agreementsArray(tiling, rows * tiling.tiles + 2).fill(99);
      agreements(
        packTiles(x, tiling, 0),
        1,
        rows - 1,
        packTiles(w, tiling, 1),
        1,
        out,
        1,
      );
      for (let row = 1; row < rows; row++) {
        for (let k = 0; k < tiling.tiles; k++) {
          let sum = 0;
          for (let i = 0; i < tileSize(tiling, k); i++) {
            const j = k * crossbarSize + i;
            sum += x[row * fanIn + j] * w[fanIn + j];
          }
          const d = out[1 + (row - 1) * tiling.tiles + k];
          assert.is(tileSum(d, tileSize(tiling, k)), sum);
        }
      }
      const after = 1 + (rows - 1) * tiling.tiles;
      assert.equal([out[0], out[after]], [99, 99], "nothing else is written");
    }
  }
});

test("shares of a threshold add up to it", () => {
  const tiling = tilingOf(10, 4);
  assert.equal(splitThreshold(6, tiling), { full: 2, last: 2 });
  const { full, last } = splitThreshold(5, tiling, "proportional");
  assert.equal([full, last], [2, 1]);
  assert.equal(splitThreshold(-Infinity, tiling).full, -Infinity);
  assert.throws(() => splitThreshold(NaN, tiling), /NaN/);
});

// Counters ----------------------------------------------------------------------------------------

test("counters: hand case, and error of the approximate one by enumeration", () => {
  assert.is(exactCount([1, 0, 1, 1, 1]), 4);
  // Pairs (1,0) and -> 0, (1,1) or -> 2, the last alone -> 1.
  assert.is(approximateCount([1, 0, 1, 1, 1]), 3);
  for (
    const chances of [[0.3], [0.2, 0.9], [0.5, 0.1, 0.7], [
      0.4,
      0.4,
      0.9,
      0.2,
      0.6,
    ]]
  ) {
    const n = chances.length;
    for (
      const [counter, count] of [["exact", exactCount], [
        "approximate",
        approximateCount,
      ]] as const
    ) {
      let mean = 0;
      let square = 0;
      let exact = 0;
      for (let word = 0; word < 2 ** n; word++) {
        const bits = chances.map((_, k) => word >> k & 1);
        const weight = chances.reduce(
          (product, p, k) => product * (bits[k] ? p : 1 - p),
          1,
        );
        mean += weight * count(bits);
        square += weight * count(bits) ** 2;
        exact += weight * exactCount(bits);
      }
      const moments = countMoments(chances, counter);
      const near = (a: number, b: number) =>
        assert.ok(Math.abs(a - b) < 1e-12, `${counter} ${chances}: ${a}, ${b}`);
      near(moments.mean, mean);
      near(moments.variance, square - mean * mean);
      near(moments.bias, mean - exact);
    }
  }
});

test("comparator: more than half fires, half by rule", () => {
  const never = () => {
    throw new Error("no toss expected");
  };
  assert.is(comparatorFires(7, 3, 4, "coin", never), true);
  assert.is(comparatorFires(5, 3, 4, "coin", never), false);
  assert.is(comparatorFires(6, 3, 4, "high", never), true);
  assert.is(comparatorFires(6, 3, 4, "low", never), false);
  assert.is(comparatorFires(6, 3, 4, "coin", () => true), true);
});

// The exact limit ---------------------------------------------------------------------------------

test("no gray zone and one tile is the exact network, scores included", () => {
  const k = key(11);
  for (
    const [name, network] of [["dense", denseNetwork([45, 30, 19, 5], k)], [
      "conv",
      convNetwork(k),
    ]] as const
  ) {
    const { height, width, channels } = network.input;
    const bits = signs(fold(k, "bits"), 37 * height * width * channels);
    const ideal = idealForward(network, bits);
    for (const counter of ["exact", "approximate"] as const) {
      const { labels, scores } = simulate(network, bits, {
        crossbarSize: 1000,
        grayZone: 0,
        streamLength: 3,
        counter,
        scores: "exact",
        key: k,
      });
      assert.equal(labels, ideal.labels, name);
      assert.equal(scores, ideal.scores, name);
    }
  }
});

test("no gray zone: fast path and oracle agree bit for bit with every tile size", () => {
  const k = key(12);
  for (const network of [denseNetwork([45, 30, 19, 5], k), convNetwork(k)]) {
    const { height, width, channels } = network.input;
    const bits = signs(fold(k, "bits"), 6 * height * width * channels);
    for (const crossbarSize of [4, 9, 16, 36]) {
      for (const ties of ["high", "low"] as const) {
        for (const counter of ["exact", "approximate"] as const) {
          for (const thresholdSplit of ["even", "proportional"] as const) {
            const options: SimulateOptions = {
              crossbarSize,
              grayZone: 0,
              streamLength: 2,
              ties,
              counter,
              thresholdSplit,
              trace: true,
              key: k,
            };
            const fast = simulate(network, bits, options);
            const slow = simulateBits(network, bits, options);
            assert.equal(fast.counts, slow.counts);
            assert.equal(fast.scores, slow.scores);
            assert.equal(fast.labels, slow.labels);
          }
        }
      }
    }
  }
});

// Distributions -----------------------------------------------------------------------------------

test("counts of the first layer follow the exact distribution, oracle and fast path", () => {
  const k = key(13);
  const network = denseNetwork([20, 3, 2], k);
  const layer = network.layers[0];
  const image = signs(fold(k, "image"), 20);
  const copies = 3000;
  const bits = new Int8Array(20 * copies);
  for (let i = 0; i < copies; i++) bits.set(image, 20 * i);
  const streamLength = 4;
  const tiling = tilingOf(20, 8);
  for (const counter of ["exact", "approximate"] as const) {
    const options: SimulateOptions = {
      crossbarSize: 8,
      grayZone: 5,
      streamLength,
      counter,
      trace: true,
      key: fold(k, counter),
    };
    for (const run of [simulate, simulateBits]) {
      const n = run === simulate ? copies : 1000;
      const { counts } = run(network, bits.subarray(0, 20 * n), options);
      for (let neuron = 0; neuron < 3; neuron++) {
        const sums = [0, 1, 2].map((t) => {
          let sum = 0;
          for (let i = 8 * t; i < Math.min(20, 8 * t + 8); i++) {
            if (layer.kind === "dense") {
              sum += image[i] * layer.weights[20 * neuron + i];
            }
          }
          return sum;
        });
        const [p, q, r] = tileProbabilities(
          sums,
          layer.kind === "dense" ? layer.thresholds[neuron] : 0,
          tiling,
          { grayZone: 5 },
        );
        // Pair 0 of the approximate counter is an and gate that counts double.
        const parts = counter === "exact"
          ? [p, q, r].map((c) => binomialProbabilities(streamLength, c))
          : [
            Float64Array.from(
              { length: 2 * streamLength + 1 },
              (_, c) =>
                c % 2 === 0
                  ? binomialProbabilities(streamLength, p * q)[c / 2]
                  : 0,
            ),
            binomialProbabilities(streamLength, r),
          ];
        const expected = parts.reduce(convolve).map((chance) => chance * n);
        const seen = Int32Array.from(
          { length: n },
          (_, i) => counts![0]![3 * i + neuron],
        );
        const { value, df } = chiSquare(
          histogram(seen, expected.length),
          expected,
        );
        assert.ok(
          value < chiSquareLimit(df),
          `${run.name} ${counter} neuron ${neuron}: chi-square ${value}, df ${df}`,
        );
        if (counter === "approximate") continue;
        // Mean and variance of the decoded value by its formulas, within five standard errors.
        const decoded = Array.from(
          seen,
          (c) => decodedValue(c, 3, streamLength),
        );
        const mean = decoded.reduce((a, b) => a + b) / n;
        const variance = decodedVariance([p, q, r], streamLength);
        assert.ok(
          Math.abs(mean - decodedMean([p, q, r])) < 5 * Math.sqrt(variance / n),
        );
        const spread = decoded.reduce((a, b) => a + (b - mean) ** 2, 0) / n;
        assert.ok(Math.abs(spread / variance - 1) < 5 * Math.sqrt(2 / n));
      }
    }
  }
});

test("whole networks: labels of oracle and fast path have one distribution", () => {
  const k = key(14);
  for (const network of [denseNetwork([24, 10, 8, 4], k), convNetwork(k)]) {
    const { height, width, channels } = network.input;
    const size = height * width * channels;
    const image = signs(fold(k, "image"), size);
    const n = size === 24 ? 500 : 60;
    const bits = new Int8Array(size * n);
    for (let i = 0; i < n; i++) bits.set(image, size * i);
    const options = {
      crossbarSize: 8,
      grayZone: 6,
      streamLength: 3,
      trace: true,
    };
    const fast = simulate(network, bits, { ...options, key: fold(k, "fast") });
    const slow = simulateBits(network, bits, {
      ...options,
      key: fold(k, "slow"),
    });
    const a = histogram(fast.labels, 4);
    const b = histogram(slow.labels, 4);
    const pooled = a.map((x, i) => (x + b[i]) / 2);
    const { value, df } = chiSquare(a, pooled);
    assert.ok(
      2 * value < chiSquareLimit(df),
      `labels ${a} and ${b}: chi-square ${2 * value}`,
    );
    // The sums of counts of every layer, too: means within five standard errors.
    network.layers.forEach((layer, i) => {
      if (layer.kind === "pool") return;
      const { outputs } = layerSizes(layer);
      const totals = [fast, slow].map(({ counts }) =>
        Array.from(
          { length: n },
          (_, image) =>
            counts![i]!.subarray(image * outputs, (image + 1) * outputs)
              .reduce((x, y) => x + y),
        )
      );
      const means = totals.map((t) => t.reduce((x, y) => x + y) / n);
      const errors = totals.map((t, j) =>
        t.reduce((x, y) => x + (y - means[j]) ** 2, 0) / (n - 1) / n
      );
      const limit = 5 * Math.sqrt(errors[0] + errors[1]);
      assert.ok(
        Math.abs(means[0] - means[1]) <= limit,
        `layer ${i}: ${means}, limit ${limit}`,
      );
    });
  }
});

test("an image gets the same numbers in any company; cached sums change nothing", () => {
  const k = key(15);
  for (const network of [denseNetwork([24, 10, 8, 4], k), convNetwork(k)]) {
    const { height, width, channels } = network.input;
    const size = height * width * channels;
    const bits = signs(fold(k, "bits"), size * 300);
    for (const counter of ["exact", "approximate"] as const) {
      const options: SimulateOptions = {
        crossbarSize: 9,
        grayZone: 4,
        streamLength: 5,
        counter,
        key: k,
      };
      const all = simulate(network, bits, options);
      const part = simulate(network, bits.subarray(290 * size), {
        ...options,
        firstImage: 290,
      });
      assert.equal(part.scores, all.scores.slice(290 * 4));
      const [swept] = simulateSweep(network, bits, [options]);
      assert.equal(swept.scores, all.scores);
      const other = simulate(network, bits, { ...options, key: key(16) });
      assert.not.equal(other.scores, all.scores);
    }
  }
});

test("parity trap: even tiles without noise tie, and one side takes all", () => {
  // Tile sums of fair signs are binomial, so the share of neurons that fire is known.
  const k = key(17);
  const fanIn = 144;
  const network = denseNetwork([fanIn, 400, 2], k);
  const layer = network.layers[0];
  if (layer.kind !== "dense") throw new Error("a dense layer expected");
  const bits = signs(fold(k, "bits"), fanIn * 100);
  const above = (n: number, p: number, limit: number, tie: number) =>
    binomialProbabilities(n, p).reduce(
      (sum, chance, c) =>
        sum + (c > limit ? chance : c === limit ? tie * chance : 0),
      0,
    );
  for (const threshold of [0, 8.5]) {
    layer.thresholds.fill(threshold);
    for (const crossbarSize of [8, 9, 16, 18, 144]) {
      for (
        const [ties, tie] of [["coin", 0.5], ["high", 1], ["low", 0]] as const
      ) {
        const tiles = fanIn / crossbarSize;
        // A tile fires where 2 d - Cs > V_th / K; without noise its stream repeats one bit ...
        const limit = (threshold / tiles + crossbarSize) / 2;
        const tile = above(crossbarSize, 0.5, limit, tie);
        // ... so the neuron is a majority of majorities.
        const expected = above(tiles, tile, tiles / 2, tie);
        const { counts } = simulate(network, bits, {
          crossbarSize,
          grayZone: 0,
          streamLength: 1,
          ties,
          trace: true,
          key: k,
        });
        let fired = 0;
        for (const c of counts![0]!) {
          fired += c > tiles / 2 ? 1 : c === tiles / 2 ? tie : 0;
        }
        const share = fired / counts![0]!.length;
        assert.ok(
          Math.abs(share - expected) < 0.02,
          `Cs ${crossbarSize}, threshold ${threshold}, ${ties}: ${share}, not ${expected}`,
        );
      }
    }
  }
  // The trap in numbers: what should fire at a threshold of 8.5, and what does with even and odd tiles.
  const should = above(144, 0.5, (8.5 + 144) / 2, 0);
  const even = above(18, above(8, 0.5, 4, 0), 9, 0.5);
  const odd = above(16, above(9, 0.5, 4.5, 0), 8, 0.5);
  assert.ok(
    even < 0.6 * should && odd > 1.8 * should,
    `${even} ${should} ${odd}`,
  );
});

// Streams -----------------------------------------------------------------------------------------

test("pure streams: signs are exact in any number of cycles", () => {
  const k = key(20);
  const network = denseNetwork([24, 10, 8, 4], k);
  const bits = signs(fold(k, "bits"), 24 * 30);
  const ideal = idealForward(network, bits);
  for (const generators of ["independent", "shared"] as const) {
    const { labels, scores } = simulateStreams(
      network,
      Float64Array.from(bits),
      {
        streamLength: 4,
        generators,
        key: k,
      },
    );
    assert.equal(labels, ideal.labels);
    assert.ok(scores.every((s, i) => Math.abs(s - ideal.scores[i]) < 1e-12));
  }
});

test("pure streams: mean and variance of a sum of products, generators apart and shared", () => {
  const k = key(21);
  const n = 12;
  const copies = 4000;
  const streamLength = 4;
  const network = denseNetwork([n, 2], k);
  const layer = network.layers[0];
  if (layer.kind !== "scores") throw new Error("a score layer expected");
  layer.scale.fill(1);
  layer.offset.fill(0);
  const x = uniform(fold(k, "x"), n, -1, 1);
  const values = new Float32Array(n * copies);
  for (let i = 0; i < copies; i++) values.set(x, n * i);
  for (const generators of ["independent", "shared"] as const) {
    const { scores } = simulateStreams(network, values, {
      streamLength,
      generators,
      key: fold(k, generators),
    });
    for (const neuron of [0, 1]) {
      const w = layer.weights.subarray(n * neuron, n * (neuron + 1));
      let mean = 0;
      let variance = 0;
      for (let i = 0; i < n; i++) {
        mean += w[i] * x[i];
        for (let j = 0; j < n; j++) {
          // One random number u for both: E[b_i b_j] = 1 - |x_i - x_j|.
          const together = generators === "shared"
            ? 1 - Math.abs(x[i] - x[j])
            : i === j
            ? 1
            : x[i] * x[j];
          variance += w[i] * w[j] * (together - x[i] * x[j]) / streamLength;
        }
      }
      const drawn = Array.from(
        { length: copies },
        (_, i) => scores[2 * i + neuron],
      );
      const found = drawn.reduce((a, b) => a + b) / copies;
      const spread = drawn.reduce((a, b) => a + (b - found) ** 2, 0) / copies;
      assert.ok(
        Math.abs(found - mean) < 5 * Math.sqrt(variance / copies),
        `${generators}: mean ${found}, not ${mean}`,
      );
      assert.ok(
        Math.abs(spread / variance - 1) < 5 * Math.sqrt(2 / copies),
        `${generators}: variance ${spread}, not ${variance}`,
      );
    }
  }
  const bad = new Float32Array(n).fill(1.5);
  assert.throws(
    () => simulateStreams(network, bad, { key: k }),
    /from -1 to 1: value 0 is 1.5/,
  );
  assert.throws(
    () => simulateStreams(network, values, { key: k, streamLength: 0 }),
    /streamLength 0/,
  );
});

// Bad input ---------------------------------------------------------------------------------------

test("constant neurons, huge and tiny gray zones give numbers, never NaN", () => {
  const k = key(18);
  const network = denseNetwork([24, 10, 8, 4], k);
  const layer = network.layers[0];
  if (layer.kind !== "dense") throw new Error("a dense layer expected");
  layer.thresholds[0] = Infinity;
  layer.thresholds[1] = -Infinity;
  const bits = signs(fold(k, "bits"), 24 * 20);
  for (const grayZone of [0, 1e-300, 1e-6, 1e6, 1e100]) {
    for (const counter of ["exact", "approximate"] as const) {
      const options: SimulateOptions = {
        crossbarSize: 8,
        grayZone,
        streamLength: 1,
        counter,
        trace: true,
        key: k,
      };
      for (const run of [simulate, simulateBits]) {
        const { scores, counts } = run(network, bits, options);
        assert.ok(scores.every(Number.isFinite));
        for (let i = 0; i < 20; i++) {
          assert.is(counts![0]![10 * i], 0);
          assert.is(counts![0]![10 * i + 1], 3);
        }
      }
    }
  }
});

test("bad options are refused by name", () => {
  const network = denseNetwork([8, 4, 2], key(0));
  const bits = signs(key(1), 16);
  const good: SimulateOptions = { crossbarSize: 4, grayZone: 1, key: key(0) };
  const refused = (change: Partial<SimulateOptions>, message: RegExp) =>
    assert.throws(
      () => simulate(network, bits, { ...good, ...change }),
      message,
    );
  refused({ grayZone: -1 }, /gray zone must be from 0 to 1e\+100: grayZone -1/);
  refused({ grayZone: NaN }, /grayZone NaN/);
  refused({ grayZone: Infinity }, /grayZone Infinity/);
  refused({ streamLength: 0 }, /streamLength 0/);
  refused({ streamLength: 2.5 }, /streamLength 2.5/);
  refused({ crossbarSize: 0 }, /crossbarSize 0/);
  refused({ ties: "maybe" as "coin" }, /ties maybe/);
  refused({ counter: "both" as "exact" }, /counter both/);
  refused({ firstImage: -1 }, /firstImage/);
  assert.throws(() => simulate(network, bits.subarray(3), good), /8 bits: 13/);
  assert.throws(() => simulate(network, bits.subarray(16), good), /0 in all/);
  const sums = firstLayerSums(network, bits, 2)!;
  refused({ firstSums: sums }, /crossbar size 4.*of size 2/);
  assert.is(firstLayerSums(network, bits, 2, { maxBytes: 10 }), null);
  assert.throws(() => accuracy([], []), /at least one/);
  assert.is(accuracy([1, 2, 3, 4], [1, 2, 0, 4]), 0.75);
});

test.run();
