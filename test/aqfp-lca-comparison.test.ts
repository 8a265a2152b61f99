/** AQFP against CMOS: the whole comparison against a spreadsheet, its invariants, its refusals. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { key } from "../lib/core/rng.ts";
import {
  amounts,
  amountsAt,
  applyScenario,
  aqfpInventory,
  compare,
  nodeAssumptions,
  parameterValue,
  type Scenario,
  scenarioModel,
} from "../lib/aqfp-lca/comparison.ts";
import {
  diesPerWafer,
  dieYield,
  waferAreaMm2,
} from "../lib/aqfp-lca/manufacturing.ts";
import {
  assess,
  checkSankey,
  sankey,
  systemOf,
} from "../lib/aqfp-lca/matrix.ts";
import { monteCarlo } from "../lib/aqfp-lca/uncertainty.ts";

const inventory = aqfpInventory();

/** Rounding of a solution of 40 equations. */
const EXACT = 1e-9;

function near(actual: number, expected: number, relative: number): void {
  assert.ok(
    Math.abs(actual - expected) <= relative * Math.abs(expected),
    `${actual} is not within ${relative} of ${expected}`,
  );
}

/** Numbers at which the system has no loop and no niobium, so that a sum is enough. */
const WITHOUT_LOOPS = {
  pv_share: 0,
  equipment_energy: 0,
  equipment_chips: 0,
  niobium_thickness: 0,
};

/** Life-cycle electricity of one AQFP chip and one CMOS chip, written out as a spreadsheet does. */
function spreadsheet(): { aqfp: number; cmos: number } {
  const hours = 3 * 8760;
  // AQFP: 18.9 kGE x 15490 JJ / (1374 gates x 1.2 GE)
  const junctions = 18900 * 15490 / (1374 * 1.2);
  const coldW = junctions * 1.4e-21 * 5e9;
  const aqfpUse = coldW * 401 / 1000 * hours * 1.2;
  const aqfpDie = junctions / 2 / 2500 * 1.2; // mm2
  const aqfpYield = (1 + 0.5 * aqfpDie / 100 / 10) ** -10 * 0.875;
  const aqfpDies = diesPerWafer(200, (Math.sqrt(aqfpDie) + 0.08) ** 2);
  const epa = 0.9 * 20 / 45; // kWh/cm2
  const aqfpFab = waferAreaMm2(200) / 100 * epa / (aqfpDies * aqfpYield);
  // CMOS
  const cmosUse = 18900 * 0.25e-15 * 1e9 * 1.1 / 1000 * hours * 1.2;
  const cmosDies = diesPerWafer(300, (0.5 + 0.08) ** 2); // limited by its pads
  const cmosYield = dieYield(0.25, 0.07) * 0.875;
  const cmosFab = waferAreaMm2(300) / 100 * 0.9 / (cmosDies * cmosYield);
  return {
    aqfp: aqfpFab + 0.3 * aqfpDie / 100 + aqfpUse,
    cmos: cmosFab + 0.3 * 0.25 / 100 + cmosUse,
  };
}

test("without loops the matrix gives what a spreadsheet gives", () => {
  const { totals } = compare({ parameters: WITHOUT_LOOPS }, inventory);
  const { aqfp, cmos } = spreadsheet();
  near(totals.electricity.AQFP, aqfp, EXACT);
  near(totals.electricity.CMOS, cmos, EXACT);
});

test("loops add what a spreadsheet leaves out, and little", () => {
  const { totals } = compare({}, inventory);
  const { aqfp, cmos } = spreadsheet();
  assert.ok(totals.electricity.AQFP > aqfp * 1.005);
  assert.ok(totals.electricity.AQFP < aqfp * 1.1);
  assert.ok(totals.electricity.CMOS > cmos);
});

test("phases add up to what one demand for the service gives", () => {
  for (const functionalUnit of ["core", "throughput", "operations"] as const) {
    const model = scenarioModel({ functionalUnit }, inventory);
    const system = systemOf(model);
    const { totals } = amounts(model);
    for (const technology of ["AQFP", "CMOS"] as const) {
      const whole = assess(system, { [`${technology} service`]: 1 });
      const at = system.impacts.indexOf("electricity");
      near(totals.electricity[technology], whole.scores[at], EXACT);
    }
  }
});

test("twice the service is twice everything", () => {
  const system = systemOf(scenarioModel({}, inventory));
  const [one, two] = [1, 2].map((n) => assess(system, { "AQFP service": n }));
  two.scores.forEach((score, i) => near(score, 2 * one.scores[i], EXACT));
});

test("twice the operations are twice everything", () => {
  const of = (operations: number) =>
    compare(
      { functionalUnit: "operations", parameters: { operations } },
      inventory,
    ).totals["climate change"];
  near(of(2e18).AQFP, 2 * of(1e18).AQFP, EXACT);
  near(of(2e18).CMOS, 2 * of(1e18).CMOS, EXACT);
});

test("the chain of flows balances, and a lost flow is named", () => {
  const system = systemOf(scenarioModel({}, inventory));
  const diagram = sankey(
    assess(system, { "AQFP service": 1, "CMOS service": 1 }),
    "electricity",
  );
  assert.equal(checkSankey(diagram), []);
  const edges = diagram.edges.filter(({ from, to }) =>
    !(from === "lithography" && to === "niobium wafer")
  );
  const problems = checkSankey({ ...diagram, edges });
  assert.is(problems.length, 2);
  assert.match(problems.join(), /"lithography" does not balance/);
  assert.match(problems.join(), /"niobium wafer" does not balance/);
});

test("at the break-even points both totals are equal", () => {
  for (
    const scenario of [
      { functionalUnit: "core" },
      { functionalUnit: "throughput" },
    ] as Scenario[]
  ) {
    const { breakEvenYears } = compare(scenario, inventory);
    const point = breakEvenYears.electricity;
    if (point.kind !== "at") throw new Error("a break-even is expected");
    const { totals } = compare({ ...scenario, years: point.at }, inventory);
    near(totals.electricity.AQFP, totals.electricity.CMOS, EXACT);
  }
  const { breakEvenOverhead } = compare(
    { functionalUnit: "throughput" },
    inventory,
  );
  const point = breakEvenOverhead.electricity;
  if (point.kind !== "at") throw new Error("a break-even is expected");
  const { totals } = compare({
    functionalUnit: "throughput",
    cooling: { rule: "ideal", overhead: point.at },
  }, inventory);
  near(totals.electricity.AQFP, totals.electricity.CMOS, EXACT);
});

test("per core the making alone keeps AQFP above CMOS at any cooling", () => {
  const { breakEvenOverhead, phases } = compare({}, inventory);
  assert.is(breakEvenOverhead.electricity.kind, "never");
  const { AQFP, CMOS } = phases.electricity;
  assert.ok(AQFP.manufacturing > 10 * AQFP.use, "AQFP is mostly made");
  assert.ok(CMOS.use > 10 * CMOS.manufacturing, "CMOS is mostly used");
});

test("who pays for the cooler decides by orders of magnitude", () => {
  const of = (cooling: Scenario["cooling"]) =>
    compare({ cooling }, inventory).phases.electricity.AQFP.use;
  const ideal = of({ rule: "ideal", overhead: 400 });
  const share = of({
    rule: "share",
    capacityW: 1,
    wallPowerW: 7500,
    loadRatio: 1,
  });
  const whole = of({ rule: "whole", capacityW: 1, wallPowerW: 7500 });
  near(share / ideal, 7501 / 401, EXACT); // the chip's own heat is paid as well
  near(whole, 7.5 * 3 * 8760 * 1.2, 1e-6); // kW, hours, PUE
});

test("places change carbon, not electricity", () => {
  const of = (fabPlace: string, usePlace: string) =>
    compare({ fabPlace, usePlace }, inventory).phases;
  const [clean, dirty] = [of("FRA", "FRA"), of("FRA", "IND")];
  const carbon = (phases: typeof clean) => phases["climate change"].CMOS;
  assert.ok(carbon(dirty).use > 10 * carbon(clean).use);
  near(carbon(dirty).manufacturing, carbon(clean).manufacturing, EXACT);
  near(dirty.electricity.CMOS.use, clean.electricity.CMOS.use, EXACT);
});

test("a node replaces its numbers and keeps their spread in proportion", () => {
  const seven = applyScenario(inventory, { node: 7 });
  const of = (from: typeof inventory, name: string) =>
    from.parameters.find((p) => p.name === name)!;
  assert.is(of(seven, "cmos_fab_energy").amount, 2.15);
  assert.is(of(seven, "cmos_fab_gases").amount, 275);
  const [old, now] = [inventory, seven].map((i) =>
    of(i, "cmos_fab_gases").distribution as { low: number }
  );
  near(now.low / old.low, 275 / 137.5, EXACT);
  // the niobium process stays scaled from 28 nm
  assert.is(of(seven, "anchor_energy").amount, 0.9);
  assert.throws(() => nodeAssumptions(90), /must be one of 28, 20, 14/);
});

test("scenarios that cannot be are refused", () => {
  assert.throws(
    () => compare({ cooling: { rule: "ideal", overhead: 60 } }, inventory),
    /Cannot cool with 60 W\/W/,
  );
  assert.throws(
    () => compare({ parameters: { junction_engery: 1 } }, inventory),
    /no parameter "junction_engery"/,
  );
  assert.throws(
    () => compare({ parameters: { junctions: 5 } }, inventory),
    /Cannot set "junctions" as it is calculated/,
  );
  assert.throws(
    () => compare({ fabPlace: "XYZ" }, inventory),
    /Cannot use the grid of "XYZ"/,
  );
  assert.throws(
    () => compare({ functionalUnit: "chip" as "core" }, inventory),
    /core, throughput or operations/,
  );
  assert.throws(
    () => compare({ cooling: { rule: "idael" as "ideal", overhead: 400 } }),
    /rule must be ideal, share or whole: idael/,
  );
  assert.throws(
    () => compare({ utilisation: 0.5 }, inventory),
    /utilisation 0.5 counts for the functional unit operations only: core/,
  );
});

test("scenarios from a file: nothing is ignored, no text counts as a number", () => {
  const read = (text: string) => compare(JSON.parse(text), inventory);
  assert.throws(
    () => read('{"year": 5}'),
    /"year" is none of its choices: name, functionalUnit, years,/,
  );
  assert.throws(
    () => read('{"parameters": {"aqfp_density": "20"}}'),
    /aqfp_density must be a finite number: "20"/,
  );
  assert.throws(
    () => read('{"parameters": {"years": null}}'),
    /years must be a finite number: null/,
  );
  assert.throws(
    () => compare({ years: NaN }, inventory),
    /years must be a finite number: NaN/,
  );
  near(
    read('{"years": 5}').totals.electricity.CMOS,
    compare({ years: 5 }, inventory).totals.electricity.CMOS,
    EXACT,
  );
});

test("parameters that cannot be are refused by name", () => {
  for (
    const [name, value, wanted] of [
      ["pv_share", 2, "from 0 up to 1"],
      ["line_yield", 0, "above 0 up to 1"],
      ["pue", 0.9, "from 1"],
      ["years", 0, "above 0"],
    ] as [string, number, string][]
  ) {
    const said = new RegExp(`${name} must be ${wanted}: ${value}`);
    assert.throws(
      () => compare({ parameters: { [name]: value } }, inventory),
      said,
    );
    assert.throws(() => amountsAt(scenarioModel(), { [name]: [value] }), said);
  }
});

test("parameters set later are those of a scenario", () => {
  const model = scenarioModel({}, inventory);
  const { totals } = amounts(model, { years: 7 });
  near(
    totals.electricity.AQFP,
    compare({ years: 7 }, inventory).totals.electricity.AQFP,
    EXACT,
  );
  near(parameterValue(model, "cold_power"), 1.2429e-6, 1e-4);
});

test("shared draws tell more of the ratio than separate ones", () => {
  const model = scenarioModel({ functionalUnit: "throughput" }, inventory);
  const spread = (sampling: "dependent" | "independent") => {
    const { scores, impacts } = monteCarlo(
      model,
      ["AQFP", "CMOS"].map((name) => ({
        name,
        demand: { [`${name} service`]: 1 },
      })),
      { runs: 2000, key: key(3), sampling },
    );
    const at = impacts.indexOf("electricity");
    const logs = scores[0][at].map((a, i) => Math.log(scores[1][at][i] / a))
      .sort();
    return logs[1949] - logs[49]; // 95 %
  };
  assert.ok(spread("dependent") < 0.97 * spread("independent"));
});

test("every number of the inventory says where it comes from", () => {
  const { parameters, exchanges, factors } = inventory;
  for (const quantity of [...parameters, ...exchanges, ...factors]) {
    assert.ok(quantity.source.length > 5, JSON.stringify(quantity));
    assert.not.match(quantity.source, /2307\.12216/);
  }
  const ranged = parameters.filter(({ distribution, standing }) =>
    standing === "assumed" && distribution.kind !== "fixed"
  );
  assert.ok(ranged.length > 25);
});

test.run();
