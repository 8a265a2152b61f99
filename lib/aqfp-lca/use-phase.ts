/**
 * Use: what a processor takes from the wall over its life, with the cooling of its cold part.
 *
 * The AQFP draws power whether it works or not, as its clock is its supply; its energy per cycle falls
 * with the frequency. A watt of heat at 4.2 K costs hundreds at the wall, and a cooler has a size: who
 * pays for the rest of it is a rule of allocation, chosen by name.
 *
 *   N_JJ   junctions                          junctions
 *   e_JJ   energy per junction and cycle (J)  energyPerJjJ, at the frequency of the clock
 *   eta    watts at the wall per watt at 4 K  overhead
 *
 * Scope: power and energy; no cool-down, helium or making of the cooler.
 */
import { carnotOverhead, HELIUM_TEMP_K, ROOM_TEMP_K } from "../core/aqfp.ts";

/** Hours of a year of 365 days, as ECO-CHIP counts its life. */
export const HOURS_PER_YEAR = 8760;

/**
 * Power that the chip dissipates in the cold (W).
 *
 *     P_cold = N_JJ e_JJ(f) f + P_IO + P_leads
 *
 * @param energyPerJjJ At this very frequency: `energyPerJjJ(set, freqHz)` of core/aqfp.ts.
 */
export function coldPowerW(
  junctions: number,
  energyPerJjJ: number,
  freqHz: number,
  { ioW = 0, leadsW = 0 }: { ioW?: number; leadsW?: number } = {},
): number {
  return junctions * energyPerJjJ * freqHz + ioW + leadsW;
}

/** How much of a cooler a chip pays for. */
export type Cooling =
  /** Per watt removed, whatever the size of the cooler: the usual reckoning. */
  | { rule: "ideal"; overhead: number }
  /** Its share of the heat of a real cooler that is used to `loadRatio` of its capacity. */
  | { rule: "share"; capacityW: number; wallPowerW: number; loadRatio: number }
  /** The whole cooler, which runs for this chip alone. */
  | { rule: "whole"; capacityW: number; wallPowerW: number };

/**
 * Throws if a cooler promises more than physics allows.
 *
 * An ideal cooler needs (T_hot - T_cold) / T_cold watts per watt (Carnot), 70.43 from 300 K to 4.2 K.
 */
export function requirePossibleCooling(
  overhead: number,
  { coldTempK = HELIUM_TEMP_K, hotTempK = ROOM_TEMP_K } = {},
): void {
  const carnot = carnotOverhead(coldTempK, hotTempK);
  if (!(overhead >= carnot && overhead < Infinity)) {
    throw new RangeError(
      `Cannot cool with ${overhead} W/W as an ideal cooler from ${hotTempK} K to ${coldTempK} K already needs ${
        carnot.toFixed(2)
      } W/W (Carnot); give an overhead of at least that`,
    );
  }
}

/**
 * Watts at the wall for each watt removed, where the rule shares a cooler out.
 *
 *     ideal: eta        share: (W / Q) / load
 *
 * @throws RangeError below Carnot, for another rule, or if the load is not above 0 and at most 1
 */
export function coolingOverhead(
  cooling: Extract<Cooling, { rule: "ideal" | "share" }>,
): number {
  if (cooling.rule === "ideal") {
    requirePossibleCooling(cooling.overhead);
    return cooling.overhead;
  }
  if (cooling.rule !== "share") {
    throw new RangeError(
      `Cannot cool as the rule must be ideal, share or whole: ${
        (cooling as { rule: unknown }).rule
      }`,
    );
  }
  const { capacityW, wallPowerW, loadRatio } = cooling;
  requirePossibleCooling(wallPowerW / capacityW);
  if (!(loadRatio > 0 && loadRatio <= 1)) {
    throw new RangeError(
      `Cannot share a cooler as its load must be above 0 and at most 1: ${loadRatio}`,
    );
  }
  return wallPowerW / capacityW / loadRatio;
}

/**
 * Power at the wall for cooling a chip (W).
 *
 *     ideal, share: P = eta P_cold        whole: P = W, at any load up to Q
 *
 * The chip's own P_cold is removed as heat and its supply comes from room temperature, so the wall pays
 * for both: P_wall = P_cold + P. `wallPowerW` adds it.
 *
 * @throws RangeError below Carnot, or if a cooler is too small for the chip
 */
export function coolingPowerW(coldW: number, cooling: Cooling): number {
  if (cooling.rule !== "whole") return coolingOverhead(cooling) * coldW;
  const { capacityW, wallPowerW } = cooling;
  requirePossibleCooling(wallPowerW / capacityW);
  if (coldW > capacityW) {
    throw new RangeError(
      `Cannot cool ${coldW} W with this cooler as its capacity at 4 K is ${capacityW} W; give a larger one`,
    );
  }
  return wallPowerW;
}

/**
 * Power at the wall of a cooled chip (W).
 *
 *     P_wall = P_cold + P_cooling + P_clock
 *
 * @param clockW Of the clock's generator at room temperature.
 */
export function wallPowerW(
  coldW: number,
  cooling: Cooling,
  clockW = 0,
): number {
  return coldW + coolingPowerW(coldW, cooling) + clockW;
}

/**
 * Power of a CMOS core (W).
 *
 *     P = G e_G f (activity + leak)
 *
 * @param gates Size in gate equivalents.
 * @param energyPerGateJ Per gate equivalent and clock cycle, averaged over what the core does.
 * @param activityRatio Share of the time in which it works; its clock is gated otherwise.
 * @param leakRatio Leakage over dynamic power at full activity.
 */
export function cmosPowerW(
  gates: number,
  energyPerGateJ: number,
  freqHz: number,
  { activityRatio = 1, leakRatio = 0 } = {},
): number {
  return gates * energyPerGateJ * freqHz * (activityRatio + leakRatio);
}

/**
 * Energy over the life (kWh).
 *
 *     E_use = P t PUE
 *
 * @param pue Power of the site over that of its computers, from 1.
 */
export function useEnergyKwh(powerW: number, years: number, pue = 1): number {
  return powerW / 1000 * years * HOURS_PER_YEAR * pue;
}
