/** Energy and co-optimisation: hand cases, netlists by simulation, mismatch by Monte Carlo, Pareto, refusals. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { carnotOverhead, ENERGY_SETS, JJ_COUNT } from "../lib/core/aqfp.ts";
import { fold, key, normal, randomInts, uniform } from "../lib/core/rng.ts";
import {
  approximateCount,
  comparatorFires,
  countDistribution,
  type Counter,
  countMoments,
  decodedValue,
  exactCount,
  firingChance,
} from "../lib/superbnn/accumulate.ts";
import { binomialProbabilities } from "../lib/superbnn/binomial.ts";
import {
  accumulator,
  balancedCount,
  evaluateCounter,
  parallelCounter,
  streamGenerator,
  streamGeneratorJj,
} from "../lib/superbnn/counter.ts";
import {
  checkCooling,
  crossbarJj,
  crossbarLatencyPs,
  crossbarTopsPerW,
  inferenceEnergy,
  MEMORY_JJ_PER_BIT,
  neuronLogic,
  ratioSweep,
  rivalFor,
} from "../lib/superbnn/energy.ts";
import {
  type BinaryNetwork,
  idealForward,
  streamGain,
} from "../lib/superbnn/network.ts";
import {
  averageMismatch,
  markPareto,
  type ProductSamples,
  sampleProducts,
  searchHardware,
  type SearchRow,
  tileSamples,
} from "../lib/superbnn/search.ts";
import { simulate } from "../lib/superbnn/simulate.ts";

function near(actual: number, expected: number, relative: number, what = "") {
  assert.ok(
    Math.abs(actual - expected) <= relative * Math.abs(expected),
    `${what} ${actual} against ${expected}`,
  );
}

function signs(seed: number, n: number): Int8Array {
  return Int8Array.from(randomInts(key(seed), n, 0, 2), (v) => 2 * v - 1);
}

/** 20 inputs, 6 neurons, 3 classes. */
function smallNetwork(): BinaryNetwork {
  return {
    input: {
      height: 4,
      width: 5,
      channels: 1,
      levels: 1,
      thresholds: new Float64Array(20),
    },
    layers: [
      {
        kind: "dense",
        inputs: 20,
        outputs: 6,
        weights: signs(1, 120),
        thresholds: Float64Array.of(0.5, -1.5, 2.5, 0.5, -0.5, 3.5),
      },
      {
        kind: "scores",
        inputs: 6,
        outputs: 3,
        weights: signs(2, 18),
        scale: Float64Array.of(1, 1, 1),
        offset: Float64Array.of(0.1, 0, -0.1),
      },
    ],
    note: "random",
  };
}

// Counters ----------------------------------------------------------------------------------------

test("counter netlists count: every word of few inputs, random words of many", () => {
  for (const kind of ["exact", "approximate"] as Counter[]) {
    const count = kind === "exact" ? exactCount : approximateCount;
    for (let inputs = 1; inputs <= 9; inputs++) {
      const netlist = parallelCounter(inputs, kind);
      for (let word = 0; word < 2 ** inputs; word++) {
        const bits = Array.from({ length: inputs }, (_, k) => word >> k & 1);
        assert.is(
          evaluateCounter(netlist, bits),
          count(bits),
          `${kind} ${bits}`,
        );
      }
    }
    for (const inputs of [22, 49, 98]) {
      const netlist = parallelCounter(inputs, kind);
      for (let run = 0; run < 50; run++) {
        const bits = randomInts(fold(key(inputs), run), inputs, 0, 2);
        assert.is(evaluateCounter(netlist, bits), count(bits));
      }
    }
  }
});

test("an accumulator adds to its state, and a reset empties it", () => {
  const netlist = accumulator(3, 6);
  for (let count = 0; count < 8; count++) {
    for (let state = 0; state < 64; state++) {
      for (const reset of [0, 1]) {
        const bits = [
          ...[0, 1, 2].map((i) => count >> i & 1),
          ...[0, 1, 2, 3, 4, 5].map((i) => state >> i & 1),
          reset,
        ];
        const expected = (count + (reset ? 0 : state)) % 64;
        assert.is(evaluateCounter(netlist, bits), expected);
      }
    }
  }
});

test("a generator compares: every value and random number of four bits", () => {
  const netlist = streamGenerator(4);
  for (let value = 0; value < 16; value++) {
    for (let random = 0; random < 16; random++) {
      const bits = [value, random].flatMap((number) =>
        [0, 1, 2, 3].map((i) => number >> i & 1)
      );
      assert.is(evaluateCounter(netlist, bits), value > random ? 1 : 0);
    }
  }
  // One bit: an and gate and a random buffer; two: also maj, and a buffer each for its two inputs.
  assert.is(streamGeneratorJj(1), JJ_COUNT.and + 2);
  assert.is(streamGeneratorJj(2), JJ_COUNT.and + JJ_COUNT.maj + 2 * 2 + 2 * 2);
  assert.throws(() => streamGenerator(0), /bits: 0/);
});

test("balance by hand: a full adder, four and eight phases", () => {
  // Splitters of a, b, c (2, 2 and 3 outputs) in phase 1; carry and maj(a, b, not c) in 2; the splitter of
  // the carry in 3; sum in 4, ports in 5. Buffers: c waits 2 phases for the sum, maj 1, the carry 1.
  assert.equal(balancedCount(parallelCounter(3)), {
    gates: 3,
    splitters: 4,
    buffers: 4,
    jj: 3 * JJ_COUNT.maj + 4 * JJ_COUNT.splitter + 4 * JJ_COUNT.buffer,
    depth: 4,
  });
  // Data that stay for two phases need one buffer, that of c.
  const eight = balancedCount(parallelCounter(3), { phases: 8 });
  assert.is(eight.buffers, 1);
  assert.is(eight.jj, 18 + 8 + 2);
  assert.equal(balancedCount(parallelCounter(1)).jj, 0, "one tile, no counter");
  for (const phases of [0, 2, 6, 4.5, NaN]) {
    assert.throws(
      () => balancedCount(parallelCounter(3), { phases }),
      /multiple of 4/,
    );
  }
  assert.throws(() => parallelCounter(0), /inputs: 0/);
});

test("more phases never cost junctions, and the approximate counter is smaller", () => {
  for (const inputs of [6, 22, 49, 98]) {
    let before = Infinity;
    for (const phases of [4, 8, 16, 32]) {
      const { jj } = balancedCount(parallelCounter(inputs), { phases });
      assert.ok(jj <= before, `${inputs} inputs, ${phases} phases: ${jj}`);
      before = jj;
    }
    const exact = balancedCount(parallelCounter(inputs, "exact")).jj;
    const rough = balancedCount(parallelCounter(inputs, "approximate")).jj;
    assert.ok(rough < 0.75 * exact, `${inputs} inputs: ${rough} of ${exact}`);
  }
});

// Energy ------------------------------------------------------------------------------------------

test("crossbar: the closed forms, and their limits", () => {
  // By hand: 12 * 64 + 48 * 8, 12 * 1296 + 48 * 36, 12 * 20736 + 48 * 144.
  assert.equal([8, 36, 144].map((size) => crossbarJj(size)), [
    1152,
    17280,
    255744,
  ]);
  assert.equal([8, 144].map((size) => crossbarLatencyPs(size)), [80, 760]);
  // 2 * 64 / (1152 * 5e-21) / 1e12
  near(crossbarTopsPerW(8), 2.2222222222222222e7, 1e-12);
  near(crossbarTopsPerW(8, { streamLength: 16 }), 2.2222222222e7 / 16, 1e-9);
  // Large crossbars: 2 / (12 e_JJ).
  near(crossbarTopsPerW(1e6), 2 / 12 / 5e-21 / 1e12, 1e-5);
  assert.throws(() => crossbarJj(0), /crossbarSize 0/);
});

test("an inference by hand: every junction in every cycle", () => {
  const report = inferenceEnergy(smallNetwork(), {
    crossbarSize: 4,
    streamLength: 8,
  });
  // 20 x 6 on 4 x 4: 5 tiles, 2 columns; 6 x 3: 2 tiles, 1 column. A crossbar has 12 * 16 + 48 * 4 = 384.
  const [first, second] = report.layers;
  assert.equal([first.tiles, first.columns, second.tiles, second.columns], [
    5,
    2,
    2,
    1,
  ]);
  assert.is(first.jj.crossbars, 3840);
  assert.is(second.jj.crossbars, 768);
  const logic = neuronLogic(5, 8);
  assert.is(first.jj.counters, 6 * logic.counter.jj);
  assert.is(first.jj.accumulators, 6 * logic.accumulator.jj);
  assert.is(logic.stateBits, 7, "0 ... 40 and a sign");
  // One splitter passes an input on to the second column.
  assert.is(first.jj.memory, 20 * (MEMORY_JJ_PER_BIT + 2));
  assert.is(second.jj.memory, 6 * MEMORY_JJ_PER_BIT);
  const jj = first.totalJj + second.totalJj;
  assert.is(report.totalJj, jj);
  assert.is(
    jj,
    report.jj.crossbars + report.jj.counters + report.jj.accumulators +
      report.jj.memory,
  );
  near(report.energyPerInferenceJ, jj * 8 * 5e-21, 1e-12);
  assert.is(report.opsPerInference, 2 * (120 + 18));
  near(report.inferencesPerS, 5e9 / 8, 1e-12);
  near(report.powerW, jj * 5e-21 * 5e9, 1e-12, "all junctions, always");
  near(report.areaMm2, jj / 2 * 400e-6 * 1.2, 1e-12);
  // 8 cycles of 200 ps, 40 + 5 * 4 ps, and 50 ps per level of the logic.
  const depth = logic.counter.depth + logic.accumulator.depth;
  near(first.latencyPs, 1600 + 60 + 50 * depth, 1e-12);
  for (const overhead of [1, 400, 1000]) {
    const found = Object.values(report.cooled).find((c) =>
      c.overhead === overhead
    )!;
    near(found.energyPerInferenceJ, report.energyPerInferenceJ * overhead, 0);
    near(
      found.topsPerW,
      276 / report.energyPerInferenceJ / overhead / 1e12,
      1e-12,
    );
  }
  assert.ok(
    report.assumptions.some(({ standing, text }) =>
      standing === "recalled" && /not re-read/.test(text)
    ),
  );
});

test("energy is linear in stream length and junction energy, adiabatic in frequency", () => {
  const network = smallNetwork();
  const of = (change: object) =>
    inferenceEnergy(network, { crossbarSize: 8, streamLength: 8, ...change })
      .energyPerInferenceJ;
  near(
    of({ energy: ENERGY_SETS.mana }) / of({ energy: ENERGY_SETS.superbnn }),
    1.4 / 5,
    1e-12,
  );
  near(of({ freqHz: 2.5e9 }), of({}) / 2, 1e-12);
  // Only the accumulator's width depends on L.
  const jj = (streamLength: number) =>
    inferenceEnergy(network, { crossbarSize: 8, streamLength }).totalJj;
  near(of({ streamLength: 16 }) / of({}), 2 * jj(16) / jj(8), 1e-12);
  assert.ok(of({ phases: 16 }) < of({}), "fewer buffers");
  assert.ok(of({ counter: "approximate" }) < of({}));
});

test("convolutions: crossbars are used once per position", () => {
  const network: BinaryNetwork = {
    input: {
      height: 4,
      width: 4,
      channels: 2,
      levels: 1,
      thresholds: new Float64Array(32),
    },
    layers: [
      {
        kind: "conv",
        height: 4,
        width: 4,
        inChannels: 2,
        outChannels: 3,
        kernel: 3,
        stride: 1,
        pad: 1,
        weights: signs(3, 54),
        thresholds: Float64Array.of(0.5, 0.5, 0.5),
      },
      { kind: "pool", height: 4, width: 4, channels: 3, size: 2 },
      {
        kind: "scores",
        inputs: 12,
        outputs: 2,
        weights: signs(4, 24),
        scale: Float64Array.of(1, 1),
        offset: new Float64Array(2),
      },
    ],
    note: "random",
  };
  const options = { crossbarSize: 9, streamLength: 4 };
  const gated = inferenceEnergy(network, options);
  const [conv, scores] = gated.layers;
  assert.is(gated.layers.length, 2, "pooling has no sums");
  assert.equal([conv.cycles, scores.cycles], [64, 4]);
  assert.is(gated.opsPerInference, 2 * (18 * 3 * 16 + 24));
  near(
    gated.energyPerInferenceJ,
    (conv.totalJj * 64 + scores.totalJj * 4) * 5e-21,
    1e-12,
  );
  const clocked = inferenceEnergy(network, { ...options, schedule: "clocked" });
  near(
    clocked.energyPerInferenceJ,
    (conv.totalJj + scores.totalJj) * 64 * 5e-21,
    1e-12,
  );
});

test("no cooler beats Carnot; impossible options are refused by name", () => {
  checkCooling("none", 1);
  checkCooling("best", carnotOverhead());
  for (const overhead of [70, 2, 0, -1, NaN, Infinity]) {
    assert.throws(
      () => checkCooling("mine", overhead),
      /"mine".*Carnot's 70.43/,
    );
  }
  const refused = (change: object, message: RegExp) =>
    assert.throws(
      () => inferenceEnergy(smallNetwork(), { crossbarSize: 8, ...change }),
      message,
    );
  refused({ cooling: { miracle: 10 } }, /"miracle"/);
  refused({ streamLength: 0 }, /streamLength 0/);
  refused({ crossbarSize: -8 }, /crossbarSize -8/);
  refused({ freqHz: 0 }, /freqHz must be finite and above 0: 0/);
  refused({ phases: 5 }, /phases 5/);
  refused({ schedule: "never" }, /never/);
  refused({ energy: { ...ENERGY_SETS.mana, energyPerJjJ: NaN } }, /NaN/);
  assert.throws(() => ratioSweep(0, [1]), /above 0: 0/);
  assert.throws(() => ratioSweep(1, [NaN]), /NaN/);
  assert.equal(ratioSweep(100, [1, 4]).map(({ ratio }) => ratio), [100, 25]);
  assert.is(rivalFor(100, 50), 2);
});

// Mismatch ----------------------------------------------------------------------------------------

test("distribution of a count: enumeration of every word", () => {
  const chances = [0.3, 0.85, 0.3, 0.5, 0.02];
  for (const counter of ["exact", "approximate"] as Counter[]) {
    const count = counter === "exact" ? exactCount : approximateCount;
    const one = new Float64Array(6);
    for (let word = 0; word < 32; word++) {
      const bits = chances.map((_, k) => word >> k & 1);
      one[count(bits)] += chances.reduce(
        (product, p, k) => product * (bits[k] ? p : 1 - p),
        1,
      );
    }
    let expected = Float64Array.of(1);
    for (let cycle = 0; cycle < 3; cycle++) {
      const next = new Float64Array(expected.length + 5);
      expected.forEach((p, i) => one.forEach((q, j) => next[i + j] += p * q));
      expected = next;
    }
    const found = countDistribution(chances, 3, counter);
    expected.forEach((p, c) => {
      const q = found.chances[c - found.first] ?? 0;
      assert.ok(Math.abs(p - q) < 1e-15, `${counter} c ${c}: ${q}, not ${p}`);
    });
    // Its moments are those of the formulas.
    const { mean, variance } = countMoments(chances, counter);
    let m = 0;
    let square = 0;
    found.chances.forEach((p, i) => {
      m += p * (found.first + i);
      square += p * (found.first + i) ** 2;
    });
    near(m, 3 * mean, 1e-12);
    near(square - m * m, 3 * variance, 1e-12);
    near(
      firingChance(found, 5, 3),
      expected.reduce((sum, p, c) => c > 7.5 ? sum + p : sum, 0),
      1e-12,
    );
  }
  const coin = countDistribution([0.5], 2);
  assert.equal(
    (["coin", "high", "low"] as const).map((t) => firingChance(coin, 1, 2, t)),
    [0.5, 0.75, 0.25],
  );
});

test("average mismatch is what cycles of noisy tiles give: Monte Carlo", () => {
  const n = 30;
  const fanIn = 20;
  const samples: ProductSamples = {
    layer: 0,
    fanIn,
    products: signs(8, n * fanIn),
    thresholds: uniform(key(9), n, -3, 3) as unknown as Float64Array,
  };
  samples.thresholds = Float64Array.from(samples.thresholds);
  const tiled = tileSamples(samples, 8);
  const { tiles } = tiled.tiling;
  assert.is(tiles, 3);
  const trials = 400;
  for (const counter of ["exact", "approximate"] as Counter[]) {
    for (const [grayZone, streamLength] of [[0, 1], [2, 1], [6, 3]]) {
      const count = counter === "exact" ? exactCount : approximateCount;
      const sigma = grayZone / Math.sqrt(2 * Math.PI);
      const gain = streamGain(grayZone, fanIn / tiles);
      const k = fold(fold(fold(key(10), counter), grayZone), streamLength);
      const noise = normal(k, n * trials * streamLength * tiles);
      const tosses = uniform(fold(k, "toss"), n * trials);
      let wrong = 0;
      let square = 0;
      let at = 0;
      for (let i = 0; i < n; i++) {
        const sums = tiled.sums.subarray(i * tiles, (i + 1) * tiles);
        const excess = sums.reduce((a, b) => a + b) - samples.thresholds[i];
        for (let trial = 0; trial < trials; trial++) {
          let c = 0;
          for (let t = 0; t < streamLength; t++) {
            c += count(
              Array.from(
                sums,
                (sum) =>
                  sum - samples.thresholds[i] / tiles + sigma * noise[at++] > 0
                    ? 1
                    : 0,
              ),
            );
          }
          const fires = comparatorFires(
            c,
            tiles,
            streamLength,
            "coin",
            () => tosses[i * trials + trial] < 0.5,
          );
          if (fires !== excess > 0) wrong++;
          square += (gain * decodedValue(c, tiles, streamLength) - excess) ** 2;
        }
      }
      const total = n * trials;
      const found = averageMismatch(tiled, { grayZone, streamLength, counter });
      const sd = Math.sqrt(found.decision * (1 - found.decision) / total);
      assert.ok(
        Math.abs(wrong / total - found.decision) <= 4.5 * sd + 1e-12,
        `${counter} dV ${grayZone} L ${streamLength}: ${
          wrong / total
        } against ${found.decision}`,
      );
      near(Math.sqrt(square / total), found.rmsError, 0.03, "rms error");
      near(
        Math.hypot(found.rmsBias, found.rmsNoise),
        found.rmsError,
        1e-12,
        "parts",
      );
    }
  }
});

test("the optimum of the gray zone is inside, and moves to wider ones with the stream", () => {
  const samples: ProductSamples = {
    layer: 0,
    fanIn: 784,
    products: signs(11, 200 * 784),
    // Half a standard deviation, 0.3 of a tile: without noise, ties of even tiles all count against.
    thresholds: new Float64Array(200).fill(14.5),
  };
  const tiled = tileSamples(samples, 16);
  const grayZones = [0.5, 1, 2, 4, 8, 16, 32, 64, 128];
  const best = [1, 8, 32].map((streamLength) => {
    const errors = grayZones.map((grayZone) =>
      averageMismatch(tiled, { grayZone, streamLength }).decision
    );
    return errors.indexOf(Math.min(...errors));
  });
  assert.ok(best[0] > 0, "some noise helps even one cycle");
  assert.ok(best[2] < grayZones.length - 1, "too much does not");
  assert.ok(best[0] < best[1] && best[1] < best[2], `optima at ${best}`);
});

test("sampled products are those of the exact network", () => {
  const network = smallNetwork();
  const bits = signs(12, 20 * 9);
  const [only] = sampleProducts(network, bits, { key: key(1), perLayer: 40 });
  const { sums } = idealForward(network, bits, { trace: true });
  const layer = network.layers[0];
  if (layer.kind !== "dense") throw new Error("a dense layer expected");
  const pairs = new Map<string, number>();
  for (let i = 0; i < sums![0]!.length; i++) {
    const name = `${sums![0]![i]} ${layer.thresholds[i % 6]}`;
    pairs.set(name, (pairs.get(name) ?? 0) + 1);
  }
  const whole = tileSamples(only, 100);
  whole.sums.forEach((sum, i) =>
    assert.ok(pairs.has(`${sum} ${only.thresholds[i]}`))
  );
  const parts = tileSamples(only, 3);
  whole.sums.forEach((sum, i) =>
    assert.is(
      parts.sums.subarray(7 * i, 7 * i + 7).reduce((a, b) => a + b),
      sum,
    )
  );
});

// Search ------------------------------------------------------------------------------------------

test("search: every configuration once, accuracies simulated, the front by brute force", () => {
  const network = smallNetwork();
  const bits = signs(13, 20 * 200);
  const { labels: truth } = idealForward(network, bits);
  const rows = searchHardware(network, bits, {
    crossbarSizes: [4, 20],
    grayZonesUa: [2, 20],
    streamLengths: [1, 16],
    truth,
    maxMismatch: 0.3,
    perLayer: 60,
    key: key(2),
  });
  assert.is(rows.length, 8);
  assert.is(new Set(rows.map((r) => JSON.stringify(r))).size, 8);
  for (const row of rows) {
    near(row.grayZone, row.grayZoneUa! * row.crossbarSize / 70, 1e-12);
    assert.is(row.withinBudget, row.mismatch <= 0.3);
    assert.is(row.accuracy === null, !row.withinBudget);
    assert.ok(Object.values(row).every((v) => !Number.isNaN(v)));
    if (row.accuracy === null) continue;
    const { labels } = simulate(network, bits, {
      crossbarSize: row.crossbarSize,
      grayZone: row.grayZone,
      streamLength: row.streamLength,
      key: fold(
        key(2),
        `images ${row.crossbarSize} ${row.grayZone} ${row.streamLength}`,
      ),
    });
    const right = labels.filter((label, i) => label === truth[i]).length;
    assert.is(row.accuracy, right / 200);
  }
  const able = rows.filter(({ withinBudget }) => withinBudget);
  assert.ok(able.length >= 3 && able.length <= 8, `${able.length} within`);
  for (const row of able) {
    const beaten = able.some((other) =>
      other.energyPerInferenceJ <= row.energyPerInferenceJ &&
      other.accuracy! >= row.accuracy! &&
      (other.energyPerInferenceJ !== row.energyPerInferenceJ ||
        other.accuracy !== row.accuracy)
    );
    assert.is(row.pareto, !beaten);
  }
});

test("search: a network of its own for every crossbar size", () => {
  const plain = smallNetwork();
  // The other one: thresholds that no sum passes, so that the scores of all images are alike.
  const dead: BinaryNetwork = {
    ...plain,
    layers: plain.layers.map((layer) =>
      layer.kind === "dense"
        ? { ...layer, thresholds: new Float64Array(6).fill(1e6) }
        : layer
    ),
  };
  const bits = signs(13, 20 * 100);
  const options = {
    grayZones: [0],
    streamLengths: [1],
    truth: idealForward(plain, bits).labels,
    key: key(4),
  };
  const search = (
    network: Parameters<typeof searchHardware>[0],
    ...crossbarSizes: number[]
  ) =>
    searchHardware(network, bits, { ...options, crossbarSizes }).map((
      { accuracy },
    ) => accuracy);
  const [alive] = search(plain, 20);
  const [none] = search(dead, 64);
  assert.ok(alive! > none! + 0.2, `${alive} against ${none}`);
  assert.equal(search((size) => size === 20 ? plain : dead, 20, 64), [
    alive,
    none,
  ]);
});

test("front by hand; a floor of accuracy takes the cheap and bad off", () => {
  const row = (energyPerInferenceJ: number, accuracy: number) => ({
    crossbarSize: 8,
    grayZoneUa: 1,
    grayZone: 1,
    streamLength: 1,
    mismatch: 0,
    rmsError: 0,
    latencyPs: 1,
    areaMm2: 1,
    withinBudget: true,
    energyPerInferenceJ,
    accuracy,
  });
  const rows = [row(1, 0.2), row(2, 0.9), row(3, 0.8), row(4, 0.95)];
  const front = (list: SearchRow[]) => list.map(({ pareto }) => pareto);
  assert.equal(front(markPareto(rows)), [true, true, false, true]);
  assert.equal(front(markPareto(rows, 0.5)), [false, true, false, true]);
});

test("a search that cannot be is refused", () => {
  const bits = signs(14, 40);
  const good = {
    crossbarSizes: [8],
    grayZones: [1],
    streamLengths: [1],
    perLayer: 5,
    key: key(0),
  };
  const refused = (change: object, message: RegExp) =>
    assert.throws(
      () => searchHardware(smallNetwork(), bits, { ...good, ...change }),
      message,
    );
  assert.is(searchHardware(smallNetwork(), bits, good).length, 1);
  refused({ grayZonesUa: [1] }, /not both/);
  refused({ grayZones: undefined }, /must be given/);
  refused({ grayZones: [] }, /must have entries/);
  refused({ grayZones: [-1] }, /gray zones -1/);
  refused({ streamLengths: [0] }, /streamLength 0/);
  refused({ maxMismatch: 2 }, /maxMismatch must be from 0 to 1: 2/);
});

test("golden: counts of a neuron against scipy's convolution", () => {
  // scipy 1.17.1: a, b = binom(2 * 16, .3).pmf(range(33)), binom(16, .9).pmf(range(17))
  // d = np.convolve(a, b); d[20], d[24], d[25:].sum()
  const found = countDistribution([0.3, 0.9, 0.3], 16);
  const at = (c: number) => found.chances[c - found.first];
  near(at(20), 0.053497323135999024, 1e-12);
  near(at(24), 0.13923251335248857, 1e-12);
  near(firingChance(found, 3, 16, "low"), 0.42598539618780434, 1e-12);
  near(
    firingChance(found, 3, 16, "high"),
    0.42598539618780434 + 0.13923251335248857,
    1e-12,
  );
  near(binomialProbabilities(32, 0.3)[10], 0.1489400685112932, 1e-12);
});

test.run();
