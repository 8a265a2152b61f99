/** AQFP life cycle: equations of manufacturing and use, and grid intensities. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ENERGY_SETS, energyPerJjJ } from "../lib/core/aqfp.ts";
import { waferAreaOfDieMm2 } from "../lib/aqfp-lca/foreground.ts";
import { gridIntensities, gridIntensity } from "../lib/aqfp-lca/grid.ts";
import {
  aqfpDieAreaMm2,
  areaWithKerf,
  carbonPerArea,
  dieEnergyKwh,
  diesPerWafer,
  dieYield,
  energyPerAreaByMasks,
  waferAreaMm2,
  waferAreaPerGoodDieMm2,
  waferEnergyKwh,
  wastedSiliconMm2,
} from "../lib/aqfp-lca/manufacturing.ts";
import {
  cmosPowerW,
  coldPowerW,
  coolingOverhead,
  coolingPowerW,
  useEnergyKwh,
  wallPowerW,
} from "../lib/aqfp-lca/use-phase.ts";

/** Relative distance allowed between numbers worked out by hand to four digits. */
const HAND = 5e-4;

function near(actual: number, expected: number, relative = HAND): void {
  assert.ok(
    Math.abs(actual - expected) <= relative * Math.abs(expected),
    `${actual} is not within ${relative} of ${expected}`,
  );
}

// Manufacturing -----------------------------------------------------------------------------------

test("dies per wafer: by hand, and no more than the area allows", () => {
  // pi 300 (300 / 400 - 1 / sqrt(200)) = 942.478 x 0.679289 = 640.2
  assert.is(diesPerWafer(300, 100), 640);
  // pi 200 (200 / 1040 - 1 / sqrt(520)) = 628.319 x 0.148454 = 93.28
  assert.is(diesPerWafer(200, 260), 93);
  for (const diameter of [150, 200, 300, 450]) {
    for (const area of [0.5, 4, 33, 160, 700]) {
      const dies = diesPerWafer(diameter, area);
      assert.ok(dies * area < waferAreaMm2(diameter), `${diameter} ${area}`);
    }
  }
  assert.throws(() => diesPerWafer(100, 9000), /at least one die must fit/);
  assert.throws(() => diesPerWafer(300, 0), /area of a die/);
  assert.throws(() => diesPerWafer(NaN, 1), /diameter/);
});

test("yield models at one defect a die, and at none", () => {
  const at = (model: Parameters<typeof dieYield>[2]) => dieYield(100, 1, model);
  near(at({ model: "poisson" }), 0.36788);
  near(at({ model: "murphy" }), 0.39958); // 0.63212^2
  near(at({ model: "seeds" }), 0.5, 1e-12);
  near(at({ model: "negative-binomial" }), 0.38554); // 1.1^-10
  for (
    const model of ["poisson", "murphy", "seeds", "negative-binomial"] as const
  ) assert.is(dieYield(100, 0, { model }), 1, model);
});

test("the negative binomial joins Seeds and Poisson", () => {
  for (const density of [0.05, 0.4, 3]) {
    const [one, many] = [1, 1e7].map((clustering) =>
      dieYield(80, density, { clustering })
    );
    near(one, dieYield(80, density, { model: "seeds" }), 1e-12);
    near(many, dieYield(80, density, { model: "poisson" }), 1e-5);
    assert.ok(many < dieYield(80, density) && dieYield(80, density) < one);
  }
  assert.throws(() => dieYield(80, -1), /defect density/);
  assert.throws(
    () => dieYield(80, 1, { clustering: 0 }),
    /clustering of defects/,
  );
  assert.throws(
    () => dieYield(80, 1, { model: "perfect" as "seeds" }),
    /model must be/,
  );
});

test("wafer behind a good die: the whole wafer is somebody's", () => {
  const dies = diesPerWafer(300, 100);
  near(waferAreaPerGoodDieMm2(300, 100, 1) * dies, waferAreaMm2(300), 1e-12);
  near(
    waferAreaPerGoodDieMm2(300, 100, 1),
    100 + wastedSiliconMm2(300, 100),
    1e-12,
  );
  near(
    waferAreaPerGoodDieMm2(300, 100, 0.5),
    2 * waferAreaPerGoodDieMm2(300, 100, 1),
    1e-12,
  );
});

test("a larger die costs more than its area: defects and the edge", () => {
  const of = (dieAreaMm2: number) =>
    waferAreaOfDieMm2({
      diameterMm: 200,
      dieAreaMm2,
      kerfMm: 0.08,
      defectsPerCm2: 0.5,
      lineYieldRatio: 0.875,
    });
  assert.ok(of(80) > 2 * of(40));
  near(areaWithKerf(4, 0.1), 4.41, 1e-12);
});

test("energy of wafer and die by hand", () => {
  // (3 x 2 + 4 x 0.5) / 0.4 = 20 kWh; 20 / (10 x 0.8 x 0.5) = 5 kWh
  const wafer = waferEnergyKwh([{ count: 3, energyKwh: 2 }, {
    count: 4,
    energyKwh: 0.5,
  }], 0.4);
  near(wafer, 20, 1e-12);
  near(dieEnergyKwh(wafer, 10, 0.8, 0.5), 5, 1e-12);
  near(energyPerAreaByMasks(0.9, 20, 45), 0.4, 1e-12);
  assert.throws(() => waferEnergyKwh([], 0), /tools' share/);
});

test("carbon per area is ACT's formula, energy counted once", () => {
  // (500 x 0.9 + 137.5 + 500) / 0.875 = 1242.86
  near(
    carbonPerArea({
      intensityGPerKwh: 500,
      energyKwhPerCm2: 0.9,
      gasesGPerCm2: 137.5,
      materialsGPerCm2: 500,
    }, 0.875),
    1242.86,
  );
});

// Use ---------------------------------------------------------------------------------------------

test("an estimate on the back of an envelope", () => {
  const cold = coldPowerW(1e6, energyPerJjJ(ENERGY_SETS.mana), 5e9);
  near(cold, 7.0e-6);
  const cooling = coolingPowerW(cold, { rule: "ideal", overhead: 400 });
  near(cooling, 2.8e-3);
  near(useEnergyKwh(cooling, 3), 0.0736);
  // 500 000 cells of 400 um2 with wiring: 2.6 cm2, at 0.9 kWh/cm2 and a yield of 0.875
  const area = aqfpDieAreaMm2(1e6, 2, 2500, 1.3);
  near(area, 260, 1e-12);
  near(area / 100 * 0.9 / 0.875, 2.674);
  // 34 uW/MHz at 1 GHz for three years
  near(useEnergyKwh(cmosPowerW(1, 34e-12, 1e9), 3), 0.8935);
});

test("half the frequency is a quarter of the power: adiabatic", () => {
  const at = (freqHz: number) =>
    coldPowerW(1000, energyPerJjJ(ENERGY_SETS.mana, freqHz), freqHz);
  near(at(5e9) / at(2.5e9), 4, 1e-12);
});

test("power at the wall holds the chip, its cooling and its clock", () => {
  near(
    wallPowerW(2, { rule: "ideal", overhead: 400 }, 10),
    2 + 800 + 10,
    1e-12,
  );
  // a cooler of 1 W and 7 kW, half loaded: 14 000 W/W
  const share = {
    rule: "share",
    capacityW: 1,
    wallPowerW: 7000,
    loadRatio: 0.5,
  } as const;
  near(coolingOverhead(share), 14000, 1e-12);
  near(coolingPowerW(1e-3, share), 14, 1e-12);
  // alone, it runs at full power for a microwatt
  const whole = { rule: "whole", capacityW: 1, wallPowerW: 7000 } as const;
  assert.is(coolingPowerW(1e-6, whole), 7000);
});

test("cooling below Carnot is refused, and a cooler that is too small", () => {
  const ideal = (overhead: number) =>
    coolingPowerW(1, { rule: "ideal", overhead });
  assert.throws(() => ideal(70), /already needs 70\.43 W\/W \(Carnot\)/);
  assert.throws(() => ideal(NaN), /Carnot/);
  assert.ok(ideal(70.5) > 70);
  assert.throws(
    () => coolingPowerW(0, { rule: "whole", capacityW: 1, wallPowerW: 50 }),
    /Carnot/,
  );
  assert.throws(
    () => coolingPowerW(2, { rule: "whole", capacityW: 1, wallPowerW: 7000 }),
    /capacity at 4 K is 1 W/,
  );
  assert.throws(
    () =>
      coolingOverhead({
        rule: "share",
        capacityW: 1,
        wallPowerW: 7000,
        loadRatio: 0,
      }),
    /load must be above 0/,
  );
});

test("idle CMOS leaks, working CMOS switches", () => {
  near(cmosPowerW(1e4, 1e-15, 1e9, { activityRatio: 0, leakRatio: 0.1 }), 1e-3);
  near(cmosPowerW(1e4, 1e-15, 1e9, { activityRatio: 0.5 }), 5e-3);
});

// Electricity -------------------------------------------------------------------------------------

test("grid intensities are those of the package", () => {
  assert.is(gridIntensity("FRA"), 44.18);
  assert.is(gridIntensity("WORLD"), 472.94);
  assert.ok(Object.keys(gridIntensities()).length > 200);
  assert.throws(() => gridIntensity("CAF"), /known intensity is needed: 0/);
  assert.throws(() => gridIntensity("Frankreich"), /there are .*FRA/);
  assert.throws(() => gridIntensity("toString"), /known intensity/);
  assert.throws(() => gridIntensity("FRA", "/nowhere"), /must be installed/);
});

test.run();
