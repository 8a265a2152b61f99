/** Inventory files, distributions, Monte Carlo, Sobol indices: golden values, invariants, broken input. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  normalCdf,
  normalQuantile,
  quantile,
} from "../lib/aqfp-lca/distributions.ts";
import { inventoryFiles, readInventory } from "../lib/aqfp-lca/inventory.ts";
import { assess, systemOf } from "../lib/aqfp-lca/matrix.ts";
import { compileInventory, valuesWith } from "../lib/aqfp-lca/model.ts";
import {
  sobolIndices,
  sobolOfModel,
  tornado,
} from "../lib/aqfp-lca/sensitivity.ts";
import { evaluator } from "../lib/aqfp-lca/plain.ts";
import {
  type Alternative,
  convergence,
  discernibility,
  monteCarlo,
  summary,
} from "../lib/aqfp-lca/uncertainty.ts";
import { conversion } from "../lib/aqfp-lca/units.ts";
import { fold, key, randomInts } from "../lib/core/rng.ts";
import { FACTORY } from "./fixtures/aqfp-lca-factory.ts";

const inventory = readInventory(FACTORY, { name: "factory" });
const model = compileInventory(inventory);
const close = (found: number, expected: number, tolerance: number) =>
  assert.ok(
    Math.abs(found - expected) <= tolerance,
    `${found} instead of ${expected}`,
  );

test("CSV: written and read again, the inventory is the same", () => {
  assert.equal(
    readInventory(inventoryFiles(inventory), { name: "factory" }),
    inventory,
  );
  assert.equal(
    readInventory({ "factory.json": JSON.stringify(inventory) }),
    inventory,
  );
});

/** The files with one text of one file replaced. */
function changed(file: string, from: string, to: string) {
  assert.ok(FACTORY[file].includes(from), from);
  return { ...FACTORY, [file]: FACTORY[file].replace(from, to) };
}

test("columns apart by semicolons are refused", () => {
  const semicolons = FACTORY["exchanges.csv"].replaceAll(",", ";");
  assert.throws(
    () => readInventory({ ...FACTORY, "exchanges.csv": semicolons }),
    /exchanges.csv, row 1.*given semicolons; save it again as CSV with commas/,
  );
});

test("broken rows are refused with file, row and column", () => {
  const cases: [string, string, string, RegExp][] = [
    [
      "parameters.csv",
      "lognormal,1.2",
      "lognormal,1",
      /row 3, column gsd.*above 1/,
    ],
    ["parameters.csv", "lognormal,1.2", "lognormal,-2", /row 3, column gsd/],
    ["parameters.csv", "normal,,0.1", "normal,,0", /row 4, column sd/],
    ["parameters.csv", "20,,40", "40,,20", /row 5, column low/],
    ["parameters.csv", "2;2;3;1;2", "2;2;3;1;6", /row 6, column pedigree/],
    ["parameters.csv", "area,300", "area,NaN", /row 2, column amount/],
    [
      "parameters.csv",
      "area,300",
      'area,"300,5"',
      /row 2, column amount.*a point before the decimals, given "300,5"/,
    ],
    [
      "parameters.csv",
      "fab_energy * area +",
      "fab_energy +",
      /row 7, column amount.*equal units/,
    ],
    [
      "parameters.csv",
      "fab_energy * area",
      "wafer_energy",
      /row 7, column amount.*depends on itself/,
    ],
    [
      "exchanges.csv",
      "triangular,,2,5",
      "triangular,,4,5",
      /row 6, column mode/,
    ],
    [
      "exchanges.csv",
      "input,electricity,3,kWh",
      "input,electricity,3,kg",
      /row 6, column unit.*mill: input electricity/,
    ],
    [
      "exchanges.csv",
      "mill,input,ore",
      "mill,input,oar",
      /row 7, column item.*"oar"/,
    ],
    [
      "exchanges.csv",
      "mill,input,ore,1.6,kg",
      "mill,output,steel,1,kg",
      /row 7, column item.*twice/,
    ],
    ["products.csv", "steel,kg", "wafer,kg", /row 4, column name.*twice/],
    [
      "factors.csv",
      "kg CO2e/kg CO2",
      "kg CO2e/kWh",
      /factors.csv, row 2, column unit/,
    ],
  ];
  for (const [file, from, to, message] of cases) {
    assert.throws(
      () => readInventory(changed(file, from, to)),
      (error: Error) => {
        assert.instance(error, RangeError);
        assert.match(error.message.replaceAll("\n", " "), message);
        return true;
      },
    );
  }
  assert.throws(
    () => readInventory({ ...FACTORY, "flow.csv": "name\n" }),
    /flow.csv/,
  );
});

test("fuzzed files are read as valid inventories or refused by name", () => {
  const names = Object.keys(FACTORY);
  const odd = [
    "NaN",
    "-1",
    "1e999",
    '"',
    ",",
    "\n",
    "kWh",
    "0",
    "",
    "(",
    "lognormal",
  ];
  let refused = 0;
  for (let trial = 0; trial < 300; trial++) {
    const [f, at, o, cut] = randomInts(fold(key(2), trial), 4, 0, 2 ** 20);
    const file = names[f % names.length];
    const text = FACTORY[file];
    const place = at % text.length;
    const broken = text.slice(0, place) + odd[o % odd.length] +
      text.slice(place + cut % 4);
    try {
      const values = compileInventory(
        readInventory({ ...FACTORY, [file]: broken }),
      );
      assert.ok(values.central.every(Number.isFinite));
    } catch (error) {
      refused++;
      assert.instance(error, RangeError);
      assert.match((error as Error).message, /^Cannot use the inventory/);
    }
  }
  assert.ok(refused > 100, `${refused} of 300 refused`);
});

test("units convert, or are refused", () => {
  close(conversion("kWh", "MJ"), 3.6, 1e-15);
  close(conversion("g CO2e/kWh", "kg CO2e/MJ"), 1e-3 / 3.6, 1e-18);
  assert.throws(() => conversion("kWh", "kg"), /different things/);
});

test("golden: quantiles of scipy", () => {
  // python3 -c "from scipy.stats import *; print(norm.ppf(1e-9), lognorm.ppf(.9, .5, scale=2),
  //   triang.ppf(.3, .25, 1, 4), norm.cdf(-1.5))"
  close(normalQuantile(1e-9), -5.9978070150076865, 1e-13);
  close(
    quantile({ kind: "lognormal", median: 2, sigma: 0.5 }, 0.9),
    3.795905414669421,
    1e-12,
  );
  close(
    quantile({ kind: "triangular", low: 1, mode: 2, high: 5 }, 0.3),
    2.1017246507621126,
    1e-12,
  );
  close(normalCdf(-1.5), 0.06680720126885807, 1e-15);
});

const ALTERNATIVES: Alternative[] = [
  { name: "wafer", demand: { wafer: 1 } },
  { name: "steel", demand: { steel: 200 } },
];

test("an evaluated run = the slow path, for drawn values", () => {
  const fast = evaluator(model, [{ wafer: 1 }, { steel: 200 }]);
  for (let trial = 0; trial < 20; trial++) {
    const set: Record<string, number> = {};
    model.random.forEach(({ index, sampler }, i) => {
      const value = quantile(
        sampler,
        0.05 + 0.9 * ((trial * 7 + i * 3) % 20) / 20,
      );
      set[model.names[index]] = value / model.scales[index];
      fast.values[index] = value;
    });
    fast.run();
    const slow = systemOf(model, valuesWith(model, set));
    ALTERNATIVES.forEach(({ demand }, a) => {
      const { scores } = assess(slow, demand);
      close(fast.scores[a] / scores[0], 1, 1e-12);
    });
  }
});

test("Monte Carlo: shared draws, contributions in every run, same key same runs", () => {
  const run = (sampling: "dependent" | "independent") =>
    monteCarlo(model, ALTERNATIVES, {
      runs: 5000,
      key: key(1),
      sampling,
    });
  const dependent = run("dependent");
  const independent = run("independent");
  assert.equal(dependent.scores, run("dependent").scores);
  assert.ok(dependent.residual < 1e-12);
  for (let r = 0; r < 5000; r += 97) {
    const sum = dependent.contributions[0][0].reduce((s, p) => s + p[r], 0);
    close(sum / dependent.scores[0][0][r], 1, 1e-12);
  }
  const spread = ({ scores: [[a], [b]] }: typeof dependent) =>
    summary(a.map((v, r) => Math.log(v / b[r]))).sd;
  const [together, apart] = [spread(dependent), spread(independent)];
  assert.ok(together < 0.95 * apart, `${together} against ${apart}`);
  const { probability, low, high } = discernibility(
    dependent.scores[0][0],
    dependent.scores[1][0],
  );
  assert.ok(low <= probability && probability <= high);
  const rows = convergence(dependent.scores[0][0]);
  assert.is(rows.at(-1)!.n, 5000);
  assert.ok(rows.at(-1)!.medianSe < rows[0].medianSe);
});

test("a lognormal score has the median and spread of its formula; hypercubes are closer", () => {
  const lines = (cells: string) => ({
    ...FACTORY,
    "parameters.csv": "name,amount,unit,distribution,gsd,source,standing\n" +
      cells,
    "processes.csv": "name,product,phase\nplant,electricity,energy\n",
    "products.csv": "name,unit\nelectricity,kWh\n",
    "exchanges.csv":
      "process,direction,item,amount,unit,source,standing\nplant,output,electricity,1,kWh,x,assumed\nplant,output,CO2,carbon,kg CO2,x,assumed\n",
  });
  const one = compileInventory(
    readInventory(lines("carbon,2,kg CO2/kWh,lognormal,1.5,x,assumed\n")),
  );
  const errors = (["random", "latin-hypercube"] as const).map((design) => {
    const { scores } = monteCarlo(one, [{
      name: "kWh",
      demand: { electricity: 1 },
    }], {
      runs: 4000,
      key: key(3),
      design,
    });
    const { median, medianSe, mean } = summary(scores[0][0]);
    assert.ok(Math.abs(median - 2) < 4 * medianSe, `${median}`);
    return Math.abs(mean - 2 * Math.exp(Math.log(1.5) ** 2 / 2)); // mean = median e^(sigma^2 / 2)
  });
  assert.ok(errors[1] < 0.002 && errors[1] < errors[0], `${errors}`);
});

test("Sobol indices of the Ishigami function, analytic", () => {
  const [a, b] = [7, 0.1];
  const x = (u: number) => Math.PI * (2 * u - 1);
  const found = sobolIndices(
    ([u, v, w]) =>
      Math.sin(x(u)) + a * Math.sin(x(v)) ** 2 + b * x(w) ** 4 * Math.sin(x(u)),
    ["x1", "x2", "x3"],
    { key: key(1), samples: 8192, resamples: 100 },
  );
  const v1 = 0.5 * (1 + b * Math.PI ** 4 / 5) ** 2;
  const v2 = a * a / 8;
  const v13 = b * b * Math.PI ** 8 * 8 / 225;
  const v = v1 + v2 + v13;
  const expected = [[v1, v1 + v13], [v2, v2], [0, v13]];
  found.forEach(({ first, total, firstLow, firstHigh }, i) => {
    close(first, expected[i][0] / v, 0.04);
    close(total, expected[i][1] / v, 0.04);
    assert.ok(firstLow <= first && first <= firstHigh);
  });
});

test("95 % intervals of Sobol indices hold the true ones about as often as they say", () => {
  const [a, b] = [7, 0.1];
  const x = (u: number) => Math.PI * (2 * u - 1);
  const [v1, v2, v13] = [
    0.5 * (1 + b * Math.PI ** 4 / 5) ** 2,
    a * a / 8,
    b * b * Math.PI ** 8 * 8 / 225,
  ];
  const v = v1 + v2 + v13;
  const first = [v1 / v, v2 / v, 0];
  const total = [(v1 + v13) / v, v2 / v, v13 / v];
  const held = new Int32Array(6);
  for (let run = 0; run < 60; run++) {
    sobolIndices(
      ([u, w, z]) =>
        Math.sin(x(u)) + a * Math.sin(x(w)) ** 2 +
        b * x(z) ** 4 * Math.sin(x(u)),
      ["x1", "x2", "x3"],
      { key: fold(key(3), run), samples: 256, resamples: 100 },
    ).forEach(({ firstLow, firstHigh, totalLow, totalHigh }, i) => {
      if (firstLow <= first[i] && first[i] <= firstHigh) held[i]++;
      if (totalLow <= total[i] && total[i] <= totalHigh) held[3 + i]++;
    });
  }
  // Of 60 runs at 95 % fewer than 50 hold with probability 0.001; all six could hold always.
  held.forEach((count) => assert.ok(count >= 50, `${held}`));
});

test("Sobol indices of the G function, analytic", () => {
  const a = [0, 1, 9];
  const parts = a.map((c) => 1 / (3 * (1 + c) ** 2));
  const v = parts.reduce((p, c) => p * (1 + c), 1) - 1;
  const found = sobolIndices(
    (u) => a.reduce((p, c, i) => p * (Math.abs(4 * u[i] - 2) + c) / (1 + c), 1),
    ["a", "b", "c"],
    { key: key(2), samples: 8192, resamples: 50 },
  );
  found.forEach(({ first, total }, i) => {
    close(first, parts[i] / v, 0.04);
    close(total, parts[i] * (v + 1) / (1 + parts[i]) / v, 0.04);
  });
  assert.throws(
    () => sobolIndices(() => 1, ["a"], { key: key(1) }),
    /does not vary/,
  );
});

test("Sobol indices of a model and the tornado name what matters", () => {
  const indices = sobolOfModel(model, [ALTERNATIVES[0]], (s) => s[0], {
    key: key(1),
    samples: 1024,
    resamples: 50,
  });
  assert.equal(indices.map(({ name }) => name), model.dimensions);
  const best = [...indices].sort((a, b) => b.total - a.total)[0];
  assert.is(best.name, "group grid");
  const rows = tornado(model, [ALTERNATIVES[0]], (scores) => scores[0]);
  assert.is(rows[0].name, "fab_energy");
  const area = rows.find(({ name }) => name === "area")!;
  assert.ok(area.plus > area.minus && area.p5 === area.p95);
});

test.run();
