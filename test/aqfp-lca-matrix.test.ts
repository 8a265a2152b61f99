/** Matrix LCA: hand cases, golden vectors, dense against sparse, gradients, Sankey balance, refusals. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { breakEven } from "../lib/aqfp-lca/break-even.ts";
import { readInventory } from "../lib/aqfp-lca/inventory.ts";
import {
  factorise,
  multiply,
  sparseFactors,
  sparseMatrix,
} from "../lib/aqfp-lca/linear.ts";
import {
  assess,
  checkSankey,
  partition,
  sankey,
  sensitivities,
  structuralPaths,
  systemOf,
  waterfall,
} from "../lib/aqfp-lca/matrix.ts";
import { compileInventory, valuesWith } from "../lib/aqfp-lca/model.ts";
import { fold, key, uniform } from "../lib/core/rng.ts";
import { FACTORY } from "./fixtures/aqfp-lca-factory.ts";

const close = (found: number, expected: number, tolerance = 1e-12) =>
  assert.ok(
    Math.abs(found - expected) <= tolerance * Math.max(1, Math.abs(expected)),
    `${found} instead of ${expected}`,
  );

const factory = compileInventory(readInventory(FACTORY));

test("two processes in a loop, by hand", () => {
  // A = [[1, -3], [-0.002, 1]] over electricity and steel, so det A = 1 - 0.006 = 0.994. A demand of 1 kg
  // of steel needs s = (3, 1) / 0.994; the plant emits 0.4 kg/kWh, the mill 1.5 kg/kg.
  const found = assess(systemOf(factory), { steel: 1 });
  close(found.supply[0], 3 / 0.994);
  close(found.supply[1], 1 / 0.994);
  close(found.scores[0], (3 * 0.4 + 1.5) / 0.994);
  close(found.intensities[0][0], (0.4 + 0.002 * 1.5) / 0.994);
  close(found.contributions[0][0], 1.2 / 0.994);
  assert.is(found.supply[2], 0);
  assert.ok(found.residual < 1e-14);
});

test("formulas reckon with units: kWh/cm2 cm2 + kW min", () => {
  const found = assess(systemOf(factory), { wafer: 1 });
  // 0.9 * 300 + 2 * 0.5 = 271 kWh, and 0.05 kg of steel
  close(found.supply[0], (271 + 3 * 0.05) / 0.994);
});

test("scores scale with the demand", () => {
  const one = assess(systemOf(factory), { wafer: 1 });
  const many = assess(systemOf(factory), { wafer: 7 });
  close(many.scores[0], 7 * one.scores[0]);
});

test("golden: five processes of numpy", () => {
  // python3 -c "
  // import numpy as np
  // i = np.arange(5); A = np.eye(5) * 2 - 0.1 * np.cos(np.outer(i + 1, i + 2))
  // print(np.linalg.solve(A, i - 1.5), np.linalg.solve(A.T, i - 1.5))"
  const A = sparseMatrix(
    5,
    Array.from({ length: 25 }, (_, k) => {
      const [row, column] = [Math.floor(k / 5), k % 5];
      const value = (row === column ? 2 : 0) -
        0.1 * Math.cos((row + 1) * (column + 2));
      return { row, column, value };
    }),
  );
  const b = Float64Array.of(-1.5, -0.5, 0.5, 1.5, 2.5);
  const x = [
    -0.6584967219967365,
    -0.21682997383896252,
    0.2536621624220813,
    0.7777840977960142,
    1.339919512612252,
  ];
  const y = [
    -0.7705458621471052,
    -0.24888791548431977,
    0.2747284012388373,
    0.8171285632149756,
    1.2384585131782313,
  ];
  for (const method of ["dense", "sparse", "iterative"] as const) {
    const factors = factorise(A, { method });
    factors.solve(b).forEach((v, i) => close(v, x[i], 1e-12));
    factors.solveTransposed(b).forEach((v, i) => close(v, y[i], 1e-12));
  }
});

/** A random technosphere: close to its diagonal, with hubs that all use. */
function randomMatrix(n: number, seed: number) {
  const u = uniform(fold(key(3), seed), n * 12);
  const entries = [];
  for (let j = 0, at = 0; j < n; j++) {
    entries.push({ row: j, column: j, value: 1 + u[at++] });
    for (let k = 0; k < 5; k++, at += 2) {
      const row = Math.floor(n * u[at] ** 2);
      if (row !== j) {
        entries.push({ row, column: j, value: 0.3 * (u[at + 1] - 0.8) });
      }
    }
  }
  return sparseMatrix(n, entries);
}

test("sparse and iterative solvers agree with the dense one, both ways", () => {
  for (const [seed, n] of [1, 2, 7, 40, 150].entries()) {
    const A = randomMatrix(n, seed);
    const b = Float64Array.from(uniform(fold(key(5), seed), n));
    const dense = factorise(A, { method: "dense" });
    for (const method of ["sparse", "iterative"] as const) {
      const other = factorise(A, { method });
      const [x, y] = [dense.solve(b), dense.solveTransposed(b)];
      other.solve(b).forEach((v, i) => close(v, x[i], 1e-10));
      other.solveTransposed(b).forEach((v, i) => close(v, y[i], 1e-10));
    }
    multiply(A, dense.solve(b)).forEach((v, i) => close(v, b[i], 1e-12));
  }
});

test("the diagonal is the pivot unless it is below a tenth of its column: no fill where none is needed", () => {
  // An arrow: each product needs electricity, and making electricity needs each of them.
  const n = 40;
  const arrow = (diagonal: number) =>
    sparseMatrix(
      n,
      Array.from({ length: n - 1 }, (_, i) => [
        { row: i, column: i, value: diagonal },
        { row: n - 1, column: i, value: -1 },
        { row: i, column: n - 1, value: -0.01 },
      ]).flat().concat({ row: n - 1, column: n - 1, value: 5 }),
    );
  const b = Float64Array.from(uniform(key(3), n));
  const filled = [0.11, 0.09].map((diagonal) => {
    const A = arrow(diagonal);
    const factors = sparseFactors(A);
    multiply(A, factors.solve(b)).forEach((v, i) => close(v, b[i], 1e-10));
    return factors.entries - A.values.length;
  });
  assert.is(filled[0], 0);
  assert.ok(filled[1] > 0, `${filled}`); // the negative control: another row was taken
});

test("refactored with old pivots = factorised anew", () => {
  const A = randomMatrix(60, 9);
  const factors = sparseFactors(A);
  const values = A.values.map((v, i) => v * (1 + 0.3 * Math.sin(i)));
  assert.ok(factors.refactor(values));
  const b = Float64Array.from(uniform(key(8), 60));
  const expected = factorise({ ...A, values }, { method: "dense" });
  const [x, y] = [expected.solve(b), expected.solveTransposed(b)];
  factors.solve(b).forEach((v, i) => close(v, x[i], 1e-11));
  factors.solveTransposed(b).forEach((v, i) => close(v, y[i], 1e-11));
});

test("sensitivities agree with finite differences of every entry", () => {
  const base = systemOf(factory);
  const found = assess(base, { wafer: 1 });
  const list = sensitivities(found, "climate change");
  assert.is(list.length, base.A.values.length + base.B.length);
  for (const { matrix, item, process, derivative, value } of list) {
    const score = (step: number) => {
      const system = systemOf(factory);
      const column = system.processes.indexOf(process);
      if (matrix === "A") {
        const row = system.products.indexOf(item);
        for (
          let p = system.A.starts[column];
          p < system.A.starts[column + 1];
          p++
        ) if (system.A.rows[p] === row) system.A.values[p] += step;
      } else {
        const row = system.flows.indexOf(item);
        system.B.find((e) => e.row === row && e.column === column)!.value +=
          step;
      }
      return assess(system, { wafer: 1 }).scores[0];
    };
    const step = 1e-5 * Math.abs(value);
    const numeric = (score(step) - score(-step)) / (2 * step);
    close(
      numeric / Math.max(1, Math.abs(derivative)),
      derivative / Math.max(1, Math.abs(derivative)),
      1e-6,
    );
  }
});

test("Sankey balances; a changed edge is found by the names of its ends", () => {
  const flow = sankey(
    assess(systemOf(factory), { wafer: 1 }),
    "climate change",
  );
  assert.equal(checkSankey(flow), []);
  const edges = flow.edges.map((e) =>
    e.from === "mill" && e.to === "fab" ? { ...e, value: e.value * 1.01 } : e
  );
  const complaints = checkSankey({ ...flow, edges }, 1e-9).join();
  assert.match(complaints, /"mill"/);
  assert.match(complaints, /"fab"/);
});

test("structural paths add up to the score; phases do as well", () => {
  const found = assess(systemOf(factory), { steel: 1 });
  const paths = structuralPaths(found, "climate change", {
    cutOff: 1e-12,
    maxDepth: 60,
  });
  close(paths.reduce((s, p) => s + p.direct, 0), found.scores[0], 1e-10);
  assert.equal(paths[0].processes, ["mill"]);
  close(paths[0].total, found.scores[0]);
  close(waterfall(found, "climate change").at(-1)!.to, found.scores[0]);
});

test("a loop that uses up what it makes is refused by name", () => {
  const exchanges = FACTORY["exchanges.csv"].replace(
    "input,steel,2,g,lognormal,1.5",
    `input,steel,${1000 / 3},g,,`,
  );
  const model = compileInventory(
    readInventory({ ...FACTORY, "exchanges.csv": exchanges }),
  );
  assert.throws(
    () => assess(systemOf(model), { wafer: 1 }),
    /singular at process "(mill|power plant|fab)"/,
  );
});

test("what uses more than it makes is refused by name, alone or in a loop", () => {
  const own = (kg: number) =>
    compileInventory(readInventory({
      ...FACTORY,
      "exchanges.csv": FACTORY["exchanges.csv"] +
        `mill,input,steel,${kg},kg,,,,,made up,assumed\n`,
    }));
  // A mill makes 1 kg a run: half of it for itself doubles the runs for the same demand.
  const plain = assess(systemOf(compileInventory(readInventory(FACTORY))), {
    steel: 1,
  });
  const half = assess(systemOf(own(0.5)), { steel: 1 });
  assert.ok(half.scores[0] > 1.9 * plain.scores[0]);
  for (const kg of [1, 1.5]) {
    assert.throws(
      () => systemOf(own(kg)),
      new RegExp(`"mill" must make more "steel" .* makes 1 and uses ${kg}`),
    );
  }
  const loop = FACTORY["exchanges.csv"].replace(
    "input,steel,2,g,lognormal,1.5",
    "input,steel,1000,g,,",
  );
  assert.throws(
    () =>
      assess(
        systemOf(
          compileInventory(
            readInventory({ ...FACTORY, "exchanges.csv": loop }),
          ),
        ),
        { wafer: 1 },
      ),
    /run backwards: a loop through ".*" uses more than it makes/,
  );
});

test("two outputs: refused, partitioned, or substituted", () => {
  const files = {
    ...FACTORY,
    "products.csv": FACTORY["products.csv"] + "slag,kg,1,0.5\n",
    "exchanges.csv": FACTORY["exchanges.csv"] +
      "mill,output,slag,0.25,kg,,,,,made up,assumed\n",
  };
  const inventory = readInventory(files);
  assert.throws(
    () => systemOf(compileInventory(inventory)),
    /"mill" makes "slag" besides/,
  );
  const split = compileInventory(partition(inventory, "mass"));
  // 80 % of the mass is steel, so a kg of either product has 0.8 of the old inputs per kg of steel.
  const found = assess(systemOf(split), { slag: 1 });
  close(found.burdens[0][2] / 0.25, 1.5 * 0.2 / 0.25);
  assert.throws(
    () => partition(inventory, "energy"),
    /"steel" needs a positive energy/,
  );
  const substituted = compileInventory(readInventory({
    ...files,
    "processes.csv": FACTORY["processes.csv"] + "quarry,slag,material\n",
    "exchanges.csv": files["exchanges.csv"] +
      "quarry,output,slag,1,kg,,,,,made up,assumed\n" +
      "quarry,output,CO2,2,kg CO2,,,,,made up,assumed\n",
  }));
  // Every kg of steel avoids 0.25 kg of quarried slag.
  close(
    assess(systemOf(substituted), { steel: 1 }).scores[0],
    (3 * 0.4 + 1.5 - 0.25 * 2) / 0.994,
  );
});

test("a parameter that is set moves the score, an unknown one is refused", () => {
  const values = valuesWith(factory, { area: 600 });
  const found = assess(systemOf(factory, values), { wafer: 1 });
  close(found.supply[0], (541 + 0.15) / 0.994);
  assert.throws(() => valuesWith(factory, { areas: 1 }), /"areas"/);
  assert.throws(() => assess(systemOf(factory), { wafers: 1 }), /"wafers"/);
});

test("break-even: crossings, never, always, ties, overflow", () => {
  const line = (fixed: number, rate: number) => ({ fixed, rate });
  assert.equal(breakEven(line(3, 1), line(1, 2)), {
    kind: "at",
    at: 2,
    lower: "after",
  });
  assert.equal(breakEven(line(1, 2), line(3, 1)), {
    kind: "at",
    at: 2,
    lower: "before",
  });
  assert.equal(breakEven(line(1, 1), line(1, 1)), { kind: "tie" });
  assert.equal(breakEven(line(1, 1), line(2, 1)), { kind: "always" });
  assert.equal(breakEven(line(2, 1), line(1, 1)), { kind: "never" });
  assert.equal(breakEven(line(1, 1), line(1, 2)), { kind: "always" });
  assert.equal(breakEven(line(1, 2), line(1, 1)), { kind: "never" });
  assert.equal(breakEven(line(1e308, 0), line(-1e308, 1e-300)), {
    kind: "never",
  });
  assert.throws(() => breakEven(line(NaN, 1), line(1, 1)), /finite/);
});

test.run();
