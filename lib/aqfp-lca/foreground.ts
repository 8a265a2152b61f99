/**
 * The equations of manufacturing and use by the names under which the inventory's formulas call them.
 *
 * The numbers stand in data/inventory, the equations in manufacturing.ts and use-phase.ts; this file only
 * joins them, with the unit of each argument.
 */
import type { FormulaFunctions } from "./inventory.ts";
import {
  aqfpDieAreaMm2,
  areaWithKerf,
  dieYield,
  energyPerAreaByMasks,
  waferAreaPerGoodDieMm2,
  type YieldModel,
} from "./manufacturing.ts";
import { cmosPowerW, coldPowerW, coolingPowerW } from "./use-phase.ts";

/** Area of wafer behind a good die (mm2), with the saw street and both yields. */
export function waferAreaOfDieMm2(
  { diameterMm, dieAreaMm2, kerfMm, defectsPerCm2, lineYieldRatio, model }: {
    diameterMm: number;
    dieAreaMm2: number;
    kerfMm: number;
    defectsPerCm2: number;
    lineYieldRatio: number;
    model?: YieldModel;
  },
): number {
  const good = dieYield(dieAreaMm2, defectsPerCm2, { model });
  return waferAreaPerGoodDieMm2(
    diameterMm,
    areaWithKerf(dieAreaMm2, kerfMm),
    good * lineYieldRatio,
  );
}

/** Functions for the formulas of the inventory; the yield model is a choice of the whole study. */
export function formulaFunctions(
  { yieldModel = "negative-binomial" }: { yieldModel?: YieldModel } = {},
): FormulaFunctions {
  return {
    wafer_area_per_die: {
      arguments: ["mm", "mm2", "mm", "1/cm2", "1"],
      unit: "mm2",
      evaluate: (
        diameterMm,
        dieAreaMm2,
        kerfMm,
        defectsPerCm2,
        lineYieldRatio,
      ) =>
        waferAreaOfDieMm2({
          diameterMm,
          dieAreaMm2,
          kerfMm,
          defectsPerCm2,
          lineYieldRatio,
          model: yieldModel,
        }),
    },
    aqfp_die_area: {
      arguments: ["JJ", "JJ/cell", "cell/mm2", "1"],
      unit: "mm2",
      evaluate: aqfpDieAreaMm2,
    },
    energy_by_masks: {
      arguments: ["kWh/cm2", "layer", "layer"],
      unit: "kWh/cm2",
      evaluate: energyPerAreaByMasks,
    },
    cold_power_of: {
      arguments: ["JJ", "J/JJ", "Hz", "W"],
      unit: "W",
      evaluate: (junctions, energyJ, freqHz, leadsW) =>
        coldPowerW(junctions, energyJ, freqHz, { leadsW }),
    },
    cooling_power_of: {
      arguments: ["W", "1", "1", "W", "W"],
      unit: "W",
      evaluate: (coldW, overhead, whole, wallPowerW, capacityW) =>
        coolingPowerW(
          coldW,
          whole > 0.5
            ? { rule: "whole", wallPowerW, capacityW }
            : { rule: "ideal", overhead },
        ),
    },
    cmos_power_of: {
      arguments: ["GE", "J/GE", "Hz", "1", "1"],
      unit: "W",
      evaluate: (gates, energyJ, freqHz, activityRatio, leakRatio) =>
        cmosPowerW(gates, energyJ, freqHz, { activityRatio, leakRatio }),
    },
  };
}
