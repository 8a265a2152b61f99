/**
 * Manufacturing: from passes of a wafer through tools to the energy of one good die.
 *
 * Zabihi et al., life-cycle energy and inventory analysis of adiabatic quantum-flux-parametron circuits,
 * arXiv 2307.12216 (2023). Only its abstract was available: the equations are the usual ones of
 * process-based assessment, with their own sources, not read in the paper.
 *
 *   d    wafer diameter             diameterMm         mm
 *   S    area of a die with kerf    areaMm2            mm2
 *   D0   density of fatal defects   defectsPerCm2      1/cm2
 *   a    clustering of defects      clustering         -
 *   Y    share of good dies         yieldRatio         -
 *
 * Scope: dies per wafer, four yield models, area of silicon and energy per good die, scaling of a
 * wafer's energy by mask layers. What a pass needs stands in the inventory, not here.
 */

/** Throws unless the value is above 0. */
function requirePositive(what: string, name: string, value: number): void {
  if (!(value > 0 && value < Infinity)) {
    throw new RangeError(
      `Cannot compute ${what} as ${name} must be a number above 0: ${value}`,
    );
  }
}

/**
 * Area of a die with half of the saw street around it (mm2).
 *
 *     S = (sqrt(S_die) + kerf)^2
 */
export function areaWithKerf(dieAreaMm2: number, kerfMm: number): number {
  return (Math.sqrt(dieAreaMm2) + kerfMm) ** 2;
}

/**
 * Whole dies that fit on a round wafer, those cut by its edge left out.
 *
 *     DPW = floor(pi d (d / (4 S) - 1 / sqrt(2 S)))
 *
 * Source: ECO-CHIP, src/CO2_func.py; rounded down there too.
 *
 * @param diameterMm Wafer diameter (mm), above 0.
 * @param areaMm2 Area of a die with its kerf (mm2), above 0.
 * @throws RangeError if not one die fits
 *
 * @example
 * diesPerWafer(300, 100); // 640
 */
export function diesPerWafer(diameterMm: number, areaMm2: number): number {
  requirePositive("dies per wafer", "the wafer's diameter (mm)", diameterMm);
  requirePositive("dies per wafer", "the area of a die (mm2)", areaMm2);
  // DPW = floor(pi d (d / (4 S) - 1 / sqrt(2 S)))
  const dies = Math.floor(
    Math.PI * diameterMm *
      (diameterMm / (4 * areaMm2) - 1 / Math.sqrt(2 * areaMm2)),
  );
  if (dies < 1) {
    throw new RangeError(
      `Cannot compute dies per wafer as at least one die must fit: ${areaMm2} mm2 on ${diameterMm} mm; use a smaller die or a higher density`,
    );
  }
  return dies;
}

/** A yield model: share of good dies from D0 S, the expected number of fatal defects of a die. */
export type YieldModel = "negative-binomial" | "poisson" | "murphy" | "seeds";

/** Clustering of defects in ECO-CHIP. Source: ECO-CHIP, src/CO2_func.py. */
export const DEFECT_CLUSTERING = 10;

/** Y = (1 + D0 S / a)^-a. Source: ECO-CHIP, src/CO2_func.py, with a = 10. */
export function negativeBinomialYield(
  defects: number,
  clustering = DEFECT_CLUSTERING,
): number {
  return (1 + defects / clustering) ** -clustering;
}

/** Y = exp(-D0 S): defects fall independently (Poisson). Recalled. */
export function poissonYield(defects: number): number {
  return Math.exp(-defects);
}

/** Y = ((1 - exp(-D0 S)) / (D0 S))^2: D0 spread as a triangle (Murphy 1964). Recalled. */
export function murphyYield(defects: number): number {
  return defects === 0 ? 1 : (-Math.expm1(-defects) / defects) ** 2;
}

/** Y = 1 / (1 + D0 S): D0 spread exponentially (Seeds 1967). Recalled. */
export function seedsYield(defects: number): number {
  return 1 / (1 + defects);
}

/**
 * Share of good dies.
 *
 * @param areaMm2 Area of a die (mm2).
 * @param defectsPerCm2 Fatal defects per cm2, from 0.
 * @param options.clustering Only of the negative binomial, default that of ECO-CHIP.
 *
 * @example
 * dieYield(100, 1, { model: "poisson" }); // 0.36787944117144233
 */
export function dieYield(
  areaMm2: number,
  defectsPerCm2: number,
  { model = "negative-binomial", clustering = DEFECT_CLUSTERING }: {
    model?: YieldModel;
    clustering?: number;
  } = {},
): number {
  requirePositive("the yield", "the area of a die (mm2)", areaMm2);
  if (!(defectsPerCm2 >= 0 && defectsPerCm2 < Infinity)) {
    throw new RangeError(
      `Cannot compute the yield as the defect density (1/cm2) must be a number from 0: ${defectsPerCm2}`,
    );
  }
  const defects = defectsPerCm2 * areaMm2 / 100; // 100 mm2 in a cm2
  switch (model) {
    case "negative-binomial":
      requirePositive("the yield", "the clustering of defects", clustering);
      return negativeBinomialYield(defects, clustering);
    case "poisson":
      return poissonYield(defects);
    case "murphy":
      return murphyYield(defects);
    case "seeds":
      return seedsYield(defects);
    default:
      throw new RangeError(
        `Cannot compute the yield as the model must be negative-binomial, poisson, murphy or seeds: ${model}`,
      );
  }
}

/** Area of a wafer (mm2), pi d^2 / 4. */
export function waferAreaMm2(diameterMm: number): number {
  return Math.PI * diameterMm ** 2 / 4;
}

/**
 * Area of processed wafer behind one good die (mm2): its own, that of the bad ones, and the edge.
 *
 *     (pi d^2 / 4) / (DPW Y)
 *
 * Source of the wasted edge: ECO-CHIP, src/CO2_func.py. There it is counted apart; here with the die.
 */
export function waferAreaPerGoodDieMm2(
  diameterMm: number,
  areaMm2: number,
  yieldRatio: number,
): number {
  requirePositive("the wafer area of a die", "the yield", yieldRatio);
  return waferAreaMm2(diameterMm) /
    (diesPerWafer(diameterMm, areaMm2) * yieldRatio);
}

/**
 * Silicon of the wafer's edge for each die (mm2).
 *
 *     (pi d^2 / 4 - DPW S) / DPW
 *
 * Source: ECO-CHIP, src/CO2_func.py.
 */
export function wastedSiliconMm2(diameterMm: number, areaMm2: number): number {
  const dies = diesPerWafer(diameterMm, areaMm2);
  return (waferAreaMm2(diameterMm) - dies * areaMm2) / dies;
}

/**
 * Energy of the site for a wafer from that of its process tools (kWh).
 *
 *     E_wafer = sum_steps n e / share_tools
 *
 * @param passes Each step: how often, and energy of the tool for one wafer (kWh).
 * @param toolShareRatio Share of the tools in the energy of the site, in (0, 1]; 0.40 in the survey of
 * British sites.
 */
export function waferEnergyKwh(
  passes: { count: number; energyKwh: number }[],
  toolShareRatio: number,
): number {
  if (!(toolShareRatio > 0 && toolShareRatio <= 1)) {
    throw new RangeError(
      `Cannot compute the energy of a wafer as the tools' share must be above 0 and at most 1: ${toolShareRatio}`,
    );
  }
  let tools = 0;
  for (const { count, energyKwh } of passes) tools += count * energyKwh;
  return tools / toolShareRatio;
}

/**
 * Energy of a good die (kWh).
 *
 *     E_die = E_wafer / (DPW Y Y_line)
 */
export function dieEnergyKwh(
  waferEnergyKwh: number,
  dies: number,
  yieldRatio: number,
  lineYieldRatio: number,
): number {
  requirePositive("the energy of a die", "the yield", yieldRatio);
  requirePositive(
    "the energy of a die",
    "the yield of the line",
    lineYieldRatio,
  );
  return waferEnergyKwh / (dies * yieldRatio * lineYieldRatio);
}

/**
 * Energy of a niobium process per area, from a CMOS process by the number of mask layers (kWh/cm2).
 *
 *     EPA_Nb = EPA_CMOS m_Nb / m_CMOS
 *
 * Assumed: a mask layer of either stands for about the same deposition, lithography and etching.
 */
export function energyPerAreaByMasks(
  cmosKwhPerCm2: number,
  niobiumMasks: number,
  cmosMasks: number,
): number {
  requirePositive("energy by masks", "the number of CMOS masks", cmosMasks);
  return cmosKwhPerCm2 * niobiumMasks / cmosMasks;
}

/**
 * Carbon of a CMOS wafer per area of good die (g CO2e/cm2).
 *
 *     CPA = (CI EPA + GPA + MPA) / Y
 *
 * Source: ACT (Gupta et al., ISCA 2022), facebookresearch/ACT. `energyKwhPerCm2` is without carbon:
 * adding a footprint that holds it already would count it twice.
 */
export function carbonPerArea(
  { intensityGPerKwh, energyKwhPerCm2, gasesGPerCm2, materialsGPerCm2 }: {
    intensityGPerKwh: number;
    energyKwhPerCm2: number;
    gasesGPerCm2: number;
    materialsGPerCm2: number;
  },
  yieldRatio: number,
): number {
  requirePositive("carbon per area", "the yield", yieldRatio);
  return (intensityGPerKwh * energyKwhPerCm2 + gasesGPerCm2 +
    materialsGPerCm2) / yieldRatio;
}

/**
 * Area of an AQFP die (mm2).
 *
 *     S = N_JJ / n_cell / density r
 *
 * @param junctionsPerCell Of the cells that the density counts: 2, those of a buffer.
 * @param cellsPerMm2 Density of cells without wiring.
 * @param routing Area with wiring over area of the cells, from 1.
 */
export function aqfpDieAreaMm2(
  junctions: number,
  junctionsPerCell: number,
  cellsPerMm2: number,
  routing: number,
): number {
  requirePositive("the area of a die", "the density (1/mm2)", cellsPerMm2);
  return junctions / junctionsPerCell / cellsPerMm2 * routing;
}
