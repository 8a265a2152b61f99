/** Placement: hand cases, brute force on tiny rows and circuits, gradients, negative controls, fuzzing. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DEFAULT_LIBRARY, libraryCellOf } from "../lib/core/aqfp.ts";
import { fold, type Key, key, randomInts, uniform } from "../lib/core/rng.ts";
import {
  clockPathUm,
  DEFAULT_CLOCK,
  holdSlackPs,
  setupSlackPs,
  timing,
} from "../lib/superflow/clock.ts";
import {
  type Cell,
  checkNetlist,
  type Connection,
  edges,
  evaluate,
  type LevelledNetlist,
} from "../lib/superflow/netlist.ts";
import {
  checkPlacement,
  hpwl,
  longestNetUm,
  modelOf,
  place,
  PLACEMENT_METHODS,
  type PlacementMethod,
  refine,
  wireUm,
} from "../lib/superflow/placement.ts";
import {
  addWireGradient,
  weightedAverageLength,
  weightedAverageSlope,
} from "../lib/superflow/place-analytic.ts";
import { anneal } from "../lib/superflow/place-annealing.ts";
import { placeDetailed, shiftRow } from "../lib/superflow/place-detailed.ts";
import { placeExact } from "../lib/superflow/place-exact.ts";
import { legalise, legaliseRow } from "../lib/superflow/place-legal.ts";
import {
  cellCost,
  type PlacementModel,
  rowOrders,
  totalCost,
  totalSteps,
} from "../lib/superflow/place-model.ts";
import { assignPins, netlistWithPins } from "../lib/superflow/place-pins.ts";
import {
  bestCut,
  insertBufferRows,
  insertBuffersAcross,
} from "../lib/superflow/buffer-rows.ts";
import { minCut } from "../lib/superflow/min-cut.ts";

const LIBRARY = DEFAULT_LIBRARY;
/** Of sums of doubles around 1000. */
const TOLERANCE = 1e-9;
/** Of central differences with a step of 1e-5 on costs around 1000. */
const DIFFERENCE_TOLERANCE = 1e-4;

/** Cells from short descriptions: name, kind, drivers as "name" or "name.pin", "!" for inverted. */
function netlist(
  levels: number[],
  ...described: [name: string, kind: string, ...drivers: string[]][]
): LevelledNetlist {
  const names = described.map(([name]) => name);
  const cells = described.map(([name, kind, ...drivers]): Cell => {
    const inputs = drivers.map((driver): Connection => {
      const inverted = driver.startsWith("!");
      const [from, pin] = driver.replace("!", "").split(".");
      return { cell: names.indexOf(from), pin: Number(pin ?? 0), inverted };
    });
    return kind.startsWith("splitter")
      ? { name, kind: "splitter", arity: Number(kind.slice(8)), inputs }
      : { name, kind: kind as Cell["kind"], inputs };
  });
  return { name: "test", cells, levels: Int32Array.from(levels) };
}

/**
 * A random balanced netlist: every pin of a level is used once in the next, by buffers, gates and
 * splitters.
 */
function randomNetlist(k: Key, inputs: number, depth: number): LevelledNetlist {
  const cells: Cell[] = [];
  const levels: number[] = [];
  const add = (cell: Cell, level: number) => {
    levels.push(level);
    return cells.push(cell) - 1;
  };
  let pins = Array.from({ length: inputs }, (_, i) => ({
    cell: add({ name: `in${i}`, kind: "input", inputs: [] }, 0),
    pin: 0,
  }));
  for (let level = 1; level <= depth; level++) {
    const draws = randomInts(fold(k, level), 2 * pins.length, 0, 1000);
    pins = pins.map((pin, i) => ({ pin, draw: draws[i] }))
      .sort((a, b) => a.draw - b.draw).map(({ pin }) => pin);
    const next: typeof pins = [];
    let draw = pins.length;
    while (pins.length > 0) {
      const kinds = ["buffer", "and", "maj", "or", "splitter"] as const;
      // Few gates where few pins are left.
      const wanted = kinds[draws[draw++ % draws.length] % kinds.length];
      const fanin = wanted === "maj"
        ? 3
        : wanted === "and" || wanted === "or"
        ? 2
        : 1;
      const kind = fanin > pins.length || next.length + pins.length < 4
        ? "splitter"
        : wanted;
      const taken = pins.splice(0, kind === wanted ? fanin : 1);
      const cell = add({
        name: `g${cells.length}`,
        kind,
        inputs: taken.map((pin, i) => ({
          ...pin,
          inverted: fanin > 1 && kind === wanted && i === 1,
        })),
        ...(kind === "splitter" ? { arity: 2 } : {}),
      }, level);
      for (let pin = 0; pin < (kind === "splitter" ? 2 : 1); pin++) {
        next.push({ cell, pin });
      }
    }
    pins = next;
  }
  pins.forEach((pin, i) =>
    add(
      {
        name: `out${i}`,
        kind: "output",
        inputs: [{ ...pin, inverted: false }],
      },
      depth + 1,
    )
  );
  return { name: "random", cells, levels: Int32Array.from(levels) };
}

/** All cost terms on. */
const modelOfRandom = (k: Key, options = {}) =>
  modelOf(randomNetlist(k, 6, 5), {
    timingWeight: 0.3,
    lengthWeight: 0.2,
    maxWireUm: 300,
    ...options,
  });

const legalStart = (model: PlacementModel, k: Key) =>
  legalise(model, uniform(k, model.row.length, 0, model.widthSteps));

const legal = (model: PlacementModel, x: Int32Array) =>
  assert.equal(
    checkPlacement({ ...model.netlist, x }, LIBRARY, model),
    [],
  );

// Clock ------------------------------------------------------------------------------------------

test("clock: the four cases of the meander", () => {
  const W = 1000;
  const [xi, xj, pitch] = [130, 480, 70];
  const between = (row: number) =>
    clockPathUm(row + 1, xj, W, pitch) - clockPathUm(row, xi, W, pitch);
  assert.is(between(1), xj - xi + pitch);
  assert.is(between(2), W - xi + (W - xj) + pitch);
  assert.is(between(3), xi - xj + pitch);
  assert.is(between(4), xi + xj + pitch);
  for (let row = 0; row < 9; row++) assert.is(between(row), between(row + 4));
});

test("clock: slacks by hand", () => {
  // T/4 = 50 ps. Rows 2 and 3 of a chip 3000 um wide: c = 2 * 3000 - 100 - 200 + 0.
  const clock = {
    ...DEFAULT_CLOCK,
    clockVelocityUmPerPs: 100,
    setupPs: 5,
    holdPs: 4,
  };
  const skew = 57;
  const delay = 5 + 100 / 100;
  assert.is(setupSlackPs(skew, delay, clock), 50 + 57 - 6 - 5);
  assert.is(holdSlackPs(skew, delay, clock), 50 - 57 + 6 - 4);
});

test("clock: slack of a placed chain, its worst connection named", () => {
  const chain = netlist(
    [0, 1, 2, 3],
    ["a", "input"],
    ["b", "buffer", "a"],
    ["c", "buffer", "b"],
    ["z", "output", "c"],
  );
  const clock = { ...DEFAULT_CLOCK, rowPitchUm: 0 };
  // Left edges 0, 400, 100, 0 um, all 40 um wide: the chip is 440 um wide.
  const placed = { ...chain, x: Int32Array.from([0, 40, 10, 0]) };
  const { slackPs, worst, worstSlackPs, totalNegativeSlackPs } = timing(
    placed,
    LIBRARY,
    clock,
  );
  // Row 0 to 1: c = 20 + 420, wire 400 um. Hold 50 - 4.4 + (5 + 4) - 5, setup 50 + 4.4 - 9 - 5.
  assert.ok(Math.abs(slackPs[0] - 40.4) < TOLERANCE);
  // Row 1 to 2: c = 120 - 420 = -300, wire 300 um. Setup 50 - 3 - 8 - 5.
  assert.ok(Math.abs(slackPs[1] - 34) < TOLERANCE);
  // Row 2 to 3: c = (440 - 120) + (440 - 20) = 740, wire 100 um. Hold 50 - 7.4 + 6 - 5.
  assert.ok(Math.abs(slackPs[2] - 43.6) < TOLERANCE);
  assert.is(worstSlackPs, slackPs[1]);
  assert.is(worst?.sink, 2);
  assert.is(totalNegativeSlackPs, 0);
  const slow = timing(placed, LIBRARY, { ...clock, setupPs: 41 });
  assert.ok(Math.abs(slow.totalNegativeSlackPs - (-2)) < TOLERANCE);
});

test("clock: heights and lengths after routing", () => {
  const placed = place(randomNetlist(key(0), 6, 3), { method: "barycentre" });
  const before = timing(placed, LIBRARY);
  const list = edges(placed);
  const same = timing(placed, LIBRARY, DEFAULT_CLOCK, {
    rowPitchesUm: new Float64Array(4).fill(DEFAULT_CLOCK.rowPitchUm),
  });
  before.slackPs.forEach((slack, e) =>
    assert.ok(Math.abs(slack - same.slackPs[e]) < TOLERANCE)
  );
  // 100 um of detour on every wire: 1 ps less of setup, 1 ps more of hold.
  const detoured = timing(placed, LIBRARY, DEFAULT_CLOCK, {
    wireLengthsUm: list.map((edge) =>
      Math.abs(wireUm(placed, LIBRARY, edge)) + DEFAULT_CLOCK.rowPitchUm + 100
    ),
  });
  before.slackPs.forEach((slack, e) =>
    assert.ok(Math.abs(Math.abs(slack - detoured.slackPs[e]) - 1) < TOLERANCE)
  );
  // A taller channel: the clock comes later by as much as the data.
  const taller = timing(placed, LIBRARY, DEFAULT_CLOCK, {
    rowPitchesUm: [200, 200, 900, 200],
  });
  before.slackPs.forEach((slack, e) =>
    assert.ok(Math.abs(slack - taller.slackPs[e]) < TOLERANCE)
  );
  assert.throws(
    () => timing(placed, LIBRARY, DEFAULT_CLOCK, { rowPitchesUm: [1] }),
    /4 required, 1 given/,
  );
});

test("clock: what cannot be is refused", () => {
  const placed = place(randomNetlist(key(0), 4, 2), { method: "topological" });
  for (
    const [field, value] of [
      ["freqHz", 0],
      ["clockVelocityUmPerPs", -1],
      ["holdPs", NaN],
      ["phases", 8],
    ] as const
  ) {
    assert.throws(
      () => timing(placed, LIBRARY, { ...DEFAULT_CLOCK, [field]: value }),
      (e: Error) =>
        e instanceof RangeError && e.message.includes(`${field} ${value}`),
    );
  }
});

// Lengths and legality ---------------------------------------------------------------------------

test("hpwl: from pin to pin, not from centre to centre", () => {
  const pair = netlist(
    [0, 0, 1, 2],
    ["a", "input"],
    ["b", "input"],
    ["g", "and", "a", "!b"],
    ["z", "output", "g"],
  );
  // Pins: a at 20, b at 100 + 20, inputs of g at 50 + 20 and 50 + 40, output 50 + 30, z at 20.
  const placed = { ...pair, x: Int32Array.from([0, 10, 5, 0]) };
  assert.is(hpwl(placed, LIBRARY), 50 + 30 + 60);
  assert.is(hpwl(placed, LIBRARY, { dyUm: 7 }), 50 + 30 + 60 + 3 * 7);
  assert.is(longestNetUm(placed, LIBRARY, { dyUm: 7 }), 67);
});

test("check: each fault is named", () => {
  const good = place(randomNetlist(key(1), 6, 4), { method: "barycentre" });
  const check = (
    x: ArrayLike<number>,
    levels: ArrayLike<number> = good.levels,
    widthSteps = Infinity,
  ) =>
    checkPlacement({ ...good, x, levels }, LIBRARY, { widthSteps }).join("; ");
  assert.is(check(good.x), "");
  const [a, b] = good.cells.flatMap((_, i) => good.levels[i] === 2 ? [i] : []);
  const { name: nameA } = good.cells[a];
  const { name: nameB } = good.cells[b];
  const overlapping = good.x.slice();
  overlapping[a] = overlapping[b] + 1;
  const overlap = check(overlapping);
  assert.match(overlap, /overlaps/);
  assert.ok(overlap.includes(nameA) && overlap.includes(nameB));
  const offGrid = Float64Array.from(good.x);
  offGrid[a] += 0.5;
  assert.match(check(offGrid), new RegExp(`${nameA} .*grid`));
  const outside = good.x.slice();
  outside[a] = -1;
  assert.match(check(outside), new RegExp(`${nameA} .*within the chip`));
  assert.match(check(good.x, good.levels, 5), /within the chip, steps 0 to 5/);
  const lifted = good.levels.slice();
  lifted[a] = 40;
  assert.match(check(good.x, lifted), new RegExp(`${nameA} .*row below`));
  assert.match(check(good.x.slice(1)), /every cell must have/);
  // A long cell that covers several others: all of them.
  const row = good.cells.flatMap((_, i) => good.levels[i] === 0 ? [i] : []);
  const wide = { ...LIBRARY.cells.input, widthUm: 10_000 };
  assert.is(
    checkPlacement(good, {
      ...LIBRARY,
      cells: { ...LIBRARY.cells, input: wide },
    }).length,
    row.length - 1,
  );
});

/** All legal places of a row with the given order of widths. */
function* legalRows(
  widths: number[],
  widthSteps: number,
  from = 0,
): Generator<number[]> {
  const [width, ...rest] = widths;
  if (width === undefined) {
    yield [];
    return;
  }
  for (let at = from; at + width <= widthSteps; at++) {
    for (const tail of legalRows(rest, widthSteps, at + width)) {
      yield [at, ...tail];
    }
  }
}

test("legaliser: nearest of all legal rows, on the grid", () => {
  for (let seed = 0; seed < 40; seed++) {
    const k = fold(key(2), seed);
    const widths = Array.from(randomInts(fold(k, "w"), 4, 1, 4));
    const used = widths.reduce((a, b) => a + b, 0);
    const widthSteps = used + seed % 5;
    const wanted = Float64Array.from(uniform(fold(k, "x"), 4, -4, 14)).sort();
    const distance = (x: ArrayLike<number>) =>
      wanted.reduce((sum, at, i) => sum + (x[i] - at) ** 2, 0);
    let best = Infinity;
    for (const x of legalRows(widths, widthSteps)) {
      best = Math.min(best, distance(x));
    }
    const found = legaliseRow(wanted, widths, widthSteps);
    assert.ok(Math.abs(distance(found) - best) < TOLERANCE, `seed ${seed}`);
  }
  assert.throws(() => legaliseRow(new Float64Array(2), [3, 3], 5), RangeError);
});

test("detailed: a shift is the best of all legal rows of that order", () => {
  for (let seed = 0; seed < 12; seed++) {
    const k = fold(key(3), seed);
    const model = modelOfRandom(k);
    const x = legalStart(model, k);
    const order = rowOrders(model, x).find(({ length }) =>
      length >= 3 && length <= 4
    );
    if (order === undefined) continue;
    const widths = Array.from(order, (c) => model.width[c]);
    let best = Infinity;
    for (const row of legalRows(widths, model.widthSteps)) {
      let cost = 0;
      row.forEach((at, i) => cost += cellCost(model, x, order[i], at));
      best = Math.min(best, cost);
    }
    shiftRow(model, x, order, model.widthSteps);
    legal(model, x);
    const found = order.reduce(
      (sum, c) => sum + cellCost(model, x, c, x[c]),
      0,
    );
    assert.ok(Math.abs(found - best) < TOLERANCE, `seed ${seed}`);
  }
});

test("detailed: legal and never worse, whatever the start", () => {
  for (let seed = 0; seed < 10; seed++) {
    const k = fold(key(4), seed);
    const model = modelOfRandom(k, { utilisation: seed % 2 === 0 ? 1 : 0.7 });
    const x = legalStart(model, k);
    const before = totalCost(model, x);
    const better = placeDetailed(model, x, { reachSteps: 1 + seed });
    legal(model, better);
    assert.ok(totalCost(model, better) <= before);
  }
});

test("annealing: legal, and below its start", () => {
  for (let seed = 0; seed < 5; seed++) {
    const k = fold(key(5), seed);
    const model = modelOfRandom(k);
    const x = legalStart(model, k);
    const annealed = anneal(model, x, k);
    legal(model, annealed);
    assert.ok(totalCost(model, annealed) < totalCost(model, x));
  }
});

// Gradients --------------------------------------------------------------------------------------

test("wire length: closed form of WA, and its slope", () => {
  for (const [d, gamma] of [[3, 0.5], [-7, 4], [0.2, 2]]) {
    const place = [1, 1 + d];
    const side = (g: number) => {
      const weights = place.map((x) => Math.exp(x / g));
      return place.reduce((sum, x, i) => sum + x * weights[i], 0) /
        weights.reduce((a, b) => a + b, 0);
    };
    const byDefinition = side(gamma) - side(-gamma);
    assert.ok(Math.abs(weightedAverageLength(d, gamma) - byDefinition) < 1e-12);
    const h = 1e-5;
    const slope = (weightedAverageLength(d + h, gamma) -
      weightedAverageLength(d - h, gamma)) / (2 * h);
    assert.ok(Math.abs(weightedAverageSlope(d, gamma) - slope) < 1e-8);
  }
});

test("analytic: gradient of wire, timing and maximum length", () => {
  const gamma = 1e-3; // WA is then abs(dx) but near 0, as in the cost
  const clock = { ...DEFAULT_CLOCK, setupPs: 46, holdPs: 45 };
  const model = modelOfRandom(key(6), { clock });
  const n = model.row.length;
  const x = Float64Array.from(uniform(key(7), n, 0, model.widthSteps));
  const gradient = new Float64Array(n);
  const stiffness = new Float64Array(n);
  addWireGradient(model, x, gamma, gradient, stiffness);
  const h = 1e-5;
  let timed = 0;
  for (let c = 0; c < n; c++) {
    const [low, high] = [-h, h].map((by) => {
      const moved = x.slice();
      moved[c] += by;
      return totalCost(model, moved);
    });
    const slope = (high - low) / (2 * h);
    assert.ok(
      Math.abs(gradient[c] - slope) <
        DIFFERENCE_TOLERANCE * Math.max(1, Math.abs(slope)),
      `cell ${c}: ${gradient[c]} and ${slope}`,
    );
    if (Math.abs(gradient[c] - Math.round(gradient[c])) > 1e-3) timed++;
  }
  assert.ok(timed > 0); // the case does exercise timing or length
});

// Pins -------------------------------------------------------------------------------------------

test("pins: shorter, and the logic as before", () => {
  for (let seed = 0; seed < 10; seed++) {
    const k = fold(key(8), seed);
    const model = modelOfRandom(k);
    const x = legalStart(model, k);
    const before = totalCost(model, x);
    assignPins(model, x);
    const after = totalCost(model, x);
    assert.ok(after < before);
    const assigned = netlistWithPins(model);
    checkNetlist(assigned);
    // The written netlist has the very pins that were counted.
    const again = modelOf(assigned, {
      timingWeight: 0.3,
      lengthWeight: 0.2,
      maxWireUm: 300,
    });
    assert.ok(Math.abs(totalCost(again, x) - after) < 1e-6);
    const words = Uint32Array.from(randomInts(k, 6, 0, 2 ** 31));
    assert.equal(evaluate(assigned, words), evaluate(model.netlist, words));
  }
});

test("pins: a crossing at a splitter and a gate is undone", () => {
  const crossed = netlist(
    [0, 1, 2, 2, 3, 4],
    ["a", "input"],
    ["s", "splitter2", "a"],
    ["l", "buffer", "s.1"],
    ["r", "buffer", "s.0"],
    ["g", "and", "r", "!l"],
    ["z", "output", "g"],
  );
  const placed = refine(
    { ...crossed, x: Int32Array.from([3, 3, 1, 5, 2, 3]) },
    { detail: { passes: 1 } },
  );
  const [l, r, g] = [2, 3, 4].map((c) => placed.cells[c]);
  const leftFirst = placed.x[2] < placed.x[3];
  assert.is(l.inputs[0].pin, leftFirst ? 0 : 1);
  assert.is(r.inputs[0].pin, leftFirst ? 1 : 0);
  assert.equal(g.inputs[leftFirst ? 0 : 1], {
    cell: 2,
    pin: 0,
    inverted: true, // it moved with its connection
  });
});

// The whole --------------------------------------------------------------------------------------

test("place: every method is legal, repeatable, and within the same chip", () => {
  const circuit = randomNetlist(key(9), 10, 6);
  for (const method of PLACEMENT_METHODS) {
    for (const detailed of [false, true]) {
      const options = {
        method,
        detailed,
        key: key(3),
        analytic: { iterations: 200, starts: 2 },
        detail: { movesPerCell: method === "superflow" ? 30 : 0 },
      };
      const placed = place(circuit, options);
      assert.equal(
        checkPlacement(placed, LIBRARY, modelOf(circuit, options)),
        [],
        method,
      );
      assert.equal(place(circuit, options), placed, method);
    }
  }
});

test("place: superflow is shorter than sweeps, and both than chance", () => {
  const circuit = randomNetlist(key(10), 24, 12);
  const length = (method: PlacementMethod) =>
    hpwl(place(circuit, { method, detailed: false, timingWeight: 0 }), LIBRARY);
  const [ours, sweeps, chance] = [
    length("superflow"),
    length("barycentre"),
    length("random"),
  ];
  assert.ok(ours < sweeps && sweeps < chance, `${ours} ${sweeps} ${chance}`);
});

test("place: within a few percent of the exact optimum of small circuits", async () => {
  for (let seed = 1; seed < 4; seed++) {
    const circuit = randomNetlist(fold(key(11), seed), 3, 3);
    const options = {
      timingWeight: 0,
      lengthWeight: 0,
      detail: { pins: "given" },
    } as const;
    const { placed, steps } = await placeExact(circuit, options);
    const model = modelOf(circuit, options);
    legal(model, placed.x);
    for (const method of PLACEMENT_METHODS) {
      const found = totalSteps(model, place(circuit, { ...options, method }).x);
      assert.ok(found >= steps, `${method} is below the optimum`);
      if (method === "superflow") {
        assert.ok(found <= 1.25 * steps + 4, `${found} against ${steps}`);
      }
    }
  }
});

test("exact: equals brute force over all placements", async () => {
  const circuit = netlist(
    [0, 0, 0, 1, 1, 2, 2],
    ["a", "input"],
    ["b", "input"],
    ["c", "input"],
    ["g", "and", "a", "c"],
    ["h", "buffer", "b"],
    ["y", "output", "h"],
    ["z", "output", "g"],
  );
  const options = { timingWeight: 0, lengthWeight: 0, utilisation: 0.9 };
  const model = modelOf(circuit, options);
  const permuted = (row: number[]): number[][] =>
    row.length < 2
      ? [row]
      : row.flatMap((c, i) =>
        permuted(row.toSpliced(i, 1)).map((rest) => [c, ...rest])
      );
  const choices = model.rows.map((row) =>
    permuted(Array.from(row)).flatMap((order) =>
      [...legalRows(order.map((c) => model.width[c]), model.widthSteps)]
        .map((at) => new Map(order.map((c, i) => [c, at[i]])))
    )
  );
  let best = Infinity;
  const x = new Float64Array(circuit.cells.length);
  const search = (row: number) => {
    if (row === choices.length) {
      best = Math.min(best, totalSteps(model, x));
      return;
    }
    for (const choice of choices[row]) {
      for (const [c, at] of choice) x[c] = at;
      search(row + 1);
    }
  };
  search(0);
  assert.is((await placeExact(circuit, options)).steps, best);
});

test("place: what cannot be placed is refused by name", () => {
  const fine = randomNetlist(key(12), 4, 2);
  const refused = (
    circuit: LevelledNetlist,
    options: Parameters<typeof place>[1],
    ...words: string[]
  ) =>
    assert.throws(
      () => place(circuit, options),
      (e: Error) => words.every((word) => e.message.includes(word)),
      words.join(" "),
    );
  const skipping = netlist(
    [0, 2],
    ["start", "input"],
    ["end", "output", "start"],
  );
  refused(skipping, {}, "start", "end", "insert buffers");
  refused({ ...fine, levels: fine.levels.slice(1) }, {}, "level");
  const { splitter2: _, ...fewer } = LIBRARY.cells;
  refused(fine, { library: { ...LIBRARY, cells: fewer } }, "splitter2");
  const offGrid = {
    ...LIBRARY,
    cells: { ...LIBRARY.cells, input: { ...LIBRARY.cells.input, widthUm: 45 } },
  };
  refused(fine, { library: offGrid }, "in0", "45 um");
  const pinless = {
    ...LIBRARY,
    cells: {
      ...LIBRARY.cells,
      input: { ...LIBRARY.cells.input, outputsUm: [] },
    },
  };
  refused(fine, { library: pinless }, "in0", "pins");
  refused(fine, { utilisation: 1.2 }, "utilisation 1.2");
  refused(fine, { timingWeight: -1 }, "timingWeight -1");
  refused(fine, { maxWireUm: 10 }, "maxWireUm 10");
  refused(fine, { analytic: { starts: 0 } }, "starts 0");
  refused(fine, { method: "magic" as PlacementMethod }, "magic");
});

test("place: no cells, one cell, constants, ports only", () => {
  for (
    const circuit of [
      netlist([]),
      netlist([0], ["a", "input"]),
      netlist([0, 1], ["a", "input"], ["z", "output", "a"]),
      {
        name: "constant",
        cells: [
          { name: "k", kind: "constant", value: 1, inputs: [] },
          {
            name: "z",
            kind: "output",
            inputs: [{ cell: 0, pin: 0, inverted: false }],
          },
        ],
        levels: Int32Array.from([0, 1]),
      } satisfies LevelledNetlist,
    ]
  ) {
    for (const method of PLACEMENT_METHODS) {
      const placed = place(circuit, { method });
      assert.equal(checkPlacement(placed, LIBRARY), []);
      assert.is(placed.x.length, circuit.cells.length);
      timing(placed, LIBRARY);
    }
  }
});

// Buffer rows ------------------------------------------------------------------------------------

test("buffer rows: a row adds exactly the nets that cross, and one level", () => {
  const circuit = randomNetlist(key(14), 6, 4);
  const above = Uint8Array.from(circuit.levels, (level) => level > 2 ? 1 : 0);
  const crossing = edges(circuit)
    .filter(({ driver }) => circuit.levels[driver] === 2).length;
  const longer = insertBuffersAcross(circuit, above);
  assert.is(longer.cells.length, circuit.cells.length + crossing);
  assert.is(Math.max(...longer.levels), Math.max(...circuit.levels) + 1);
  checkNetlist(longer);
  for (const { driver, sink } of edges(longer)) {
    assert.is(longer.levels[sink], longer.levels[driver] + 1);
  }
  const words = Uint32Array.from(randomInts(key(1), 6, 0, 2 ** 31));
  assert.equal(
    evaluate(longer, words).slice(0, circuit.cells.length),
    evaluate(circuit, words),
  );
  // Negative control: a cell above the cut that drives one below it.
  const wrong = above.slice();
  const low = circuit.levels.indexOf(1);
  wrong[low] = 1;
  assert.throws(
    () => insertBuffersAcross(circuit, wrong),
    new RegExp(circuit.cells[low].name),
  );
});

test("buffer rows: no net is too long, logic and balance as before", () => {
  const circuit = randomNetlist(key(13), 40, 5);
  const placed = place(circuit, { method: "random" });
  const words = Uint32Array.from(randomInts(key(1), 40, 0, 2 ** 31));
  const outputs = (values: Uint32Array) =>
    values.slice(0, circuit.cells.length);
  for (const selection of ["rows", "cut"] as const) {
    const options = { selection, maxWireUm: 500 };
    const found = insertBufferRows(placed, options);
    assert.ok(longestNetUm(placed, LIBRARY, { dyUm: 200 }) > 500);
    assert.is(found.overlong, 0, selection);
    assert.ok(longestNetUm(found.placed, LIBRARY, { dyUm: 200 }) <= 500);
    assert.is(
      found.placed.cells.length,
      circuit.cells.length + found.buffersAdded,
    );
    assert.is(
      Math.max(...found.placed.levels),
      Math.max(...circuit.levels) + found.rowsAdded,
    );
    assert.equal(
      checkPlacement(found.placed, LIBRARY, modelOf(found.placed, options)),
      [],
    );
    checkNetlist(found.placed);
    assert.equal(
      outputs(evaluate(found.placed, words)),
      evaluate(circuit, words),
    );
  }
});

test("buffer rows: nothing is inserted where nothing is too long", () => {
  const placed = place(randomNetlist(key(15), 6, 4));
  for (const selection of ["rows", "cut"] as const) {
    const { rounds, placed: same } = insertBufferRows(placed, { selection });
    assert.equal(rounds, []);
    assert.is(same, placed);
  }
});

test("cut: as few buffers as any cut that takes the long net", () => {
  for (let seed = 0; seed < 12; seed++) {
    const circuit = randomNetlist(fold(key(16), seed), 4, 3);
    const list = edges(circuit);
    const long = list[randomInts(fold(key(17), seed), 1, 0, list.length)[0]];
    const isLong = (e: typeof long) =>
      e.sink === long.sink && e.input === long.input;
    const crossing = (above: ArrayLike<number>) =>
      list.filter(({ driver, sink }) => above[driver] < above[sink]);
    // All closed sets of cells, by brute force over the cells that are free.
    const free = circuit.cells.flatMap(({ kind }, i) =>
      kind === "input" || kind === "output" ? [] : [i]
    );
    if (free.length > 16) continue;
    let fewest = Infinity;
    const above = new Uint8Array(circuit.cells.length);
    circuit.cells.forEach(({ kind }, i) =>
      above[i] = kind === "output" ? 1 : 0
    );
    for (let subset = 0; subset < 2 ** free.length; subset++) {
      free.forEach((c, i) => above[c] = (subset >> i) & 1);
      if (list.some(({ driver, sink }) => above[driver] > above[sink])) {
        continue;
      }
      const cut = crossing(above);
      if (cut.some(isLong)) fewest = Math.min(fewest, cut.length);
    }
    const found = crossing(bestCut(circuit, isLong));
    assert.ok(found.some(isLong), `seed ${seed}`);
    assert.is(found.length, fewest, `seed ${seed}`);
  }
});

test("cut: minimum cut equals brute force", () => {
  for (let seed = 0; seed < 30; seed++) {
    const k = fold(key(18), seed);
    const ends = randomInts(fold(k, "ends"), 40, 0, 7);
    const sizes = randomInts(fold(k, "sizes"), 20, 0, 9);
    const arcs = Array.from(
      sizes,
      (
        size,
        i,
      ): [number, number, number] => [ends[2 * i], ends[2 * i + 1], size],
    );
    const cost = (side: ArrayLike<number>) =>
      arcs.reduce(
        (sum, [from, to, size]) =>
          side[from] === 1 && side[to] === 0 ? sum + size : sum,
        0,
      );
    let least = Infinity;
    for (let subset = 0; subset < 32; subset++) {
      const side = [
        1,
        ...Array.from({ length: 5 }, (_, i) => subset >> i & 1),
        0,
      ];
      least = Math.min(least, cost(side));
    }
    const found = minCut(7, arcs, 0, 6);
    assert.is(found[0], 1);
    assert.is(found[6], 0);
    assert.is(cost(found), least, `seed ${seed}`);
  }
  assert.throws(() => minCut(2, [[0, 1, Infinity]], 0, 1), RangeError);
});

test("library: widths of the tests' cells are those assumed above", () => {
  const { widthUm, inputsUm } = libraryCellOf(LIBRARY, { kind: "and" });
  assert.is(widthUm, 60);
  assert.equal(inputsUm, [20, 40]);
});

test.run();
