/** Tapes and blocks of runs: the fast path against the plain one, what it folds, what it refuses. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { batchEvaluator, sweep } from "../lib/aqfp-lca/batch.ts";
import {
  aqfpInventory,
  scenarioModel,
  TECHNOLOGIES,
} from "../lib/aqfp-lca/comparison.ts";
import { readInventory } from "../lib/aqfp-lca/inventory.ts";
import { assess, systemOf } from "../lib/aqfp-lca/matrix.ts";
import {
  compileInventory,
  type Model,
  valuesWith,
} from "../lib/aqfp-lca/model.ts";
import { evaluator } from "../lib/aqfp-lca/plain.ts";
import { BLOCK, Tape } from "../lib/aqfp-lca/tape.ts";
import { drawer, monteCarlo } from "../lib/aqfp-lca/uncertainty.ts";
import { key, normal } from "../lib/core/rng.ts";
import { FACTORY } from "./fixtures/aqfp-lca-factory.ts";

const factory = compileInventory(readInventory(FACTORY, { name: "factory" }));
const inventory = aqfpInventory();

/** Rounding of two eliminations in different order. */
const ROUNDING = 1e-10;

function near(found: number, expected: number, what: string): void {
  assert.ok(
    Math.abs(found - expected) <= ROUNDING * Math.abs(expected),
    `${what}: ${found} instead of ${expected}`,
  );
}

/** Every score and contribution of a block against a solution of its own for each run. */
function compareWithPlain(
  model: Model,
  demands: Record<string, number>[],
  set: Record<string, number> = {},
): void {
  const fast = batchEvaluator(model, demands, { set });
  const plain = evaluator(model, demands, { set });
  const drawn = drawer(model, key(5), 4096)(0);
  const chunk = drawn.length / model.random.length;
  model.random.forEach((_, i) =>
    fast.inputs.set(drawn.subarray(i * chunk, i * chunk + BLOCK), i * BLOCK)
  );
  fast.run(BLOCK);
  assert.is(fast.repivoted, 0);
  for (let r = 0; r < BLOCK; r++) {
    const values: Record<string, number> = { ...set };
    model.random.forEach(({ index }, i) => {
      const value = drawn[i * chunk + r];
      plain.values[index] = value;
      values[model.names[index]] ??= value / model.scales[index];
    });
    plain.run();
    plain.scores.forEach((score, k) =>
      near(fast.scores[k * BLOCK + r], score, `score ${k} of run ${r}`)
    );
    plain.contributions.forEach((part, k) =>
      near(fast.contributions[k * BLOCK + r], part, `part ${k} of run ${r}`)
    );
    if (r % 16 > 0) continue;
    // And both against the matrices, factorised densely.
    const system = systemOf(model, valuesWith(model, values));
    demands.forEach((demand, d) => {
      const { scores } = assess(system, demand);
      scores.forEach((score, i) =>
        near(fast.scores[(d * scores.length + i) * BLOCK + r], score, "assess")
      );
    });
  }
}

test("oracle: a block of runs = run by run, in every functional unit", () => {
  const demands = TECHNOLOGIES.map((name) => ({ [`${name} service`]: 1 }));
  for (const functionalUnit of ["core", "throughput", "operations"] as const) {
    compareWithPlain(scenarioModel({ functionalUnit }, inventory), demands);
  }
  compareWithPlain(scenarioModel({}, inventory), demands, {
    years: 10,
    gate_energy: 1,
  });
});

test("oracle: correlated groups, every distribution, several demands", () => {
  compareWithPlain(factory, [{ wafer: 1 }, { steel: 2, electricity: 1 }]);
});

test("what stays the same is not reckoned again", () => {
  const held = Object.fromEntries(
    factory.random.map(({ index }) => [
      factory.names[index],
      factory.central[index] / factory.scales[index],
    ]).filter(([name]) =>
      factory.inventory.parameters.some((p) => p.name === name)
    ),
  );
  const demands = [{ wafer: 1 }];
  const all = batchEvaluator(factory, demands).operations;
  const less = batchEvaluator(factory, demands, { set: held }).operations;
  assert.ok(less < all, `${less} of ${all}`);
  assert.is(batchEvaluator(factory, demands, { inputs: [] }).operations, 0);
});

test("a tape: folds constants, shares what is equal, and runs as it was recorded", () => {
  const tape = new Tape();
  const [x, y] = [tape.input(2), tape.input(3)];
  assert.is(
    tape.binary("+", tape.constant(1), tape.constant(2)),
    tape.constant(3),
  );
  assert.is(tape.binary("*", x, tape.constant(1)), x);
  assert.ok(tape.isZero(tape.binary("*", x, tape.constant(0))));
  assert.is(tape.binary("-", x, y), tape.binary("-", x, y));
  // A long chain, so that places are used again.
  const chain = [x];
  for (let i = 1; i < 40; i++) {
    const last = chain[i - 1];
    const next = i % 4 === 0
      ? tape.call((a, b, c, d) => a + b * c - d, [last, y, x, chain[i >> 1]])
      : i % 4 === 1
      ? tape.binary("/", last, y)
      : i % 4 === 2
      ? tape.binary("max", tape.abs(last), chain[i >> 1])
      : tape.binary("+", last, chain[i - 2]);
    chain.push(next);
  }
  const outputs = [chain[39], x, tape.constant(7), chain[20]];
  const program = tape.compile(outputs);
  const of = (a: number, b: number) => {
    const values = [a];
    for (let i = 1; i < 40; i++) {
      const last = values[i - 1];
      values.push(
        i % 4 === 0
          ? last + b * a - values[i >> 1]
          : i % 4 === 1
          ? last / b
          : i % 4 === 2
          ? Math.max(Math.abs(last), values[i >> 1])
          : last + values[i - 2],
      );
    }
    return [values[39], a, 7, values[20]];
  };
  const draws = normal(key(3), 2 * BLOCK);
  program.inputs.set(draws);
  program.run(BLOCK);
  for (let r = 0; r < BLOCK; r++) {
    assert.equal(
      program.outputs.map((output) => output[r]),
      of(draws[r], draws[BLOCK + r]),
    );
  }
});

test("runs do not depend on where blocks end", () => {
  const demands = [{ name: "wafer", demand: { wafer: 1 } }];
  const [many, few] = [1000, BLOCK + 1].map((runs) =>
    monteCarlo(factory, demands, { runs, key: key(9) }).scores[0][0]
  );
  assert.equal(many.subarray(0, few.length), few);
});

test("a run in which a function refuses is named; so is one without a finite score", () => {
  const model = scenarioModel({}, inventory);
  const demands = [{ "AQFP service": 1 }];
  const overheads = Array.from({ length: 200 }, (_, i) => i === 140 ? 60 : 400);
  assert.throws(
    () => sweep(model, demands, { cooling_overhead: overheads }),
    /setting 141 of 200: .*60 W\/W.*Carnot/,
  );
  assert.throws(
    () => sweep(model, demands, { years: [1, 2], pue: [1] }),
    /"pue".*1 values instead of 2/,
  );
  assert.throws(() => sweep(model, demands, { yeers: [1] }), /"yeers"/);
});

test("a system whose pivots vanish away from the centre is solved with pivots of its own", () => {
  // b buys `swap` of a and a buys 1 of b; at the centre the diagonal is a fine pivot, at 0 there is none.
  const known = "made up,assumed";
  const files = {
    "parameters.csv":
      `name,amount,unit,source,standing\nown,1,kg,${known}\nswap,0.5,kg,${known}\n`,
    "products.csv": "name,unit\na,kg\nb,kg\n",
    "flows.csv": "name,unit,direction\nCO2,kg,emission\n",
    "impacts.csv": "name,unit\nclimate,kg CO2e\n",
    "factors.csv":
      `impact,flow,amount,unit,source,standing\nclimate,CO2,1,kg CO2e/kg,${known}\n`,
    "processes.csv": "name,product,phase\nmakes a,a,x\nmakes b,b,x\n",
    "exchanges.csv": `process,direction,item,amount,unit,source,standing
makes a,output,a,own,kg,${known}
makes a,input,b,1,kg,${known}
makes a,output,CO2,1,kg,${known}
makes b,output,b,own,kg,${known}
makes b,input,a,swap,kg,${known}
makes b,output,CO2,3,kg,${known}
`,
  };
  const model = compileInventory(readInventory(files));
  const [[scores]] = sweep(model, [{ a: 1 }], { own: [1, 0, 1e-30, 2] }, {
    swap: 0.25,
  });
  // A = [[o, -w], [-1, o]], s = A^-1 e = (o, 1) / (o^2 - w)
  [1, 0, 1e-30, 2].forEach((o, i) =>
    near(scores[i], (o + 3) / (o * o - 0.25), `own ${o}`)
  );
  assert.throws(
    () => sweep(model, [{ a: 1 }], { own: [1, 0.5] }, { swap: 0.25 }),
    /setting 2 of 2/,
  );
});

test.run();
