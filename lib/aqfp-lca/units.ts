/**
 * Units: what can be added, compared and converted.
 *
 * A unit is a factor and powers of bases. Mass, energy, length, time and temperature have a table of
 * units; every other word (`wafer`, `die`, `CO2e`, `item`) is a base of its own, so that wafers are
 * never added to dies. A space or `*` multiplies, everything after the first `/` divides:
 * `g CO2e/kWh`, `kWh/cm2`, `zJ/JJ`. The empty text and `1` are the plain number.
 *
 * Energy is a base here, not kg m2/s2: nothing in an inventory needs the difference.
 * A year is 365 days, 8760 h, as in the service life of ECO-CHIP.
 */

/** One of this unit = `factor` times the product of the bases to their powers. */
export interface Unit {
  factor: number;
  /** Bases in alphabetic order, no power 0. */
  powers: [base: string, power: number][];
}

const HOUR_S = 3600;
const DAY_S = 24 * HOUR_S;

const SMALL = { z: 1e-21, a: 1e-18, f: 1e-15, p: 1e-12, n: 1e-9, u: 1e-6 };
const MILLI = { m: 1e-3 };
const LARGE = { "": 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12 };

/** Factor of each prefixed name. */
function prefixed(
  name: string,
  prefixes: Record<string, number>,
  scale = 1,
): [string, number][] {
  return Object.entries(prefixes).map(([p, f]) => [p + name, f * scale]);
}

const TABLE = new Map<string, Unit>();

function define(powers: Unit["powers"], units: [string, number][]): void {
  for (const [name, factor] of units) TABLE.set(name, { factor, powers });
}

const ALL = { ...SMALL, ...MILLI, ...LARGE };
define([], [["1", 1], ["%", 0.01]]);
define([["kg", 1]], [
  ["ng", 1e-12],
  ["ug", 1e-9],
  ["mg", 1e-6],
  ["g", 1e-3],
  ["kg", 1],
  ["t", 1e3],
  ["kt", 1e6],
]);
define([["J", 1]], [
  ...prefixed("J", ALL),
  ...prefixed("Wh", { ...MILLI, ...LARGE }, HOUR_S),
]);
define([["J", 1], ["s", -1]], prefixed("W", ALL));
define([["m", 1]], [
  ["nm", 1e-9],
  ["um", 1e-6],
  ["mm", 1e-3],
  ["cm", 1e-2],
  ["m", 1],
  ["km", 1e3],
]);
define([["m", 3]], [["mL", 1e-6], ["L", 1e-3]]);
define([["s", 1]], [
  ["ps", 1e-12],
  ["ns", 1e-9],
  ["us", 1e-6],
  ["ms", 1e-3],
  ["s", 1],
  ["min", 60],
  ["h", HOUR_S],
  ["day", DAY_S],
  ["year", 365 * DAY_S],
]);
define([["s", -1]], prefixed("Hz", LARGE));
define([["K", 1]], [["mK", 1e-3], ["K", 1]]);

/** The plain number. */
export const ONE: Unit = { factor: 1, powers: [] };

function sorted(powers: Map<string, number>): Unit["powers"] {
  return [...powers].filter(([, power]) => power !== 0)
    .sort(([a], [b]) => a < b ? -1 : 1);
}

/** Unit a b^power, or a / b with power -1. */
export function timesUnit(a: Unit, b: Unit, power = 1): Unit {
  const powers = new Map(a.powers);
  for (const [base, p] of b.powers) {
    powers.set(base, (powers.get(base) ?? 0) + p * power);
  }
  return { factor: a.factor * b.factor ** power, powers: sorted(powers) };
}

/** Whether one converts into the other. */
export function sameDimension(a: Unit, b: Unit): boolean {
  return a.powers.length === b.powers.length &&
    a.powers.every(([base, power], i) => {
      const [otherBase, otherPower] = b.powers[i];
      // Powers are sums of fractions such as 1/2, so exactness is one rounding away.
      return base === otherBase && Math.abs(power - otherPower) < 1e-12;
    });
}

/** Bases and powers as text, `1` for a plain number. */
export function dimensionText({ powers }: Unit): string {
  if (powers.length === 0) return "1";
  return powers.map(([base, power]) => power === 1 ? base : `${base}^${power}`)
    .join(" ");
}

function wordUnit(word: string, text: string): Unit {
  const known = TABLE.get(word);
  if (known !== undefined) return known;
  const raised = /^([A-Za-z]+)\^?(-?\d)$/.exec(word);
  const base = raised === null ? undefined : TABLE.get(raised[1]);
  if (raised !== null && base !== undefined) {
    return timesUnit(ONE, base, Number(raised[2]));
  }
  if (!/^[A-Za-z][A-Za-z0-9_.-]*$/.test(word)) {
    throw new SyntaxError(
      `Cannot read the unit "${text}" as "${word}" is neither a unit nor a word`,
    );
  }
  return { factor: 1, powers: [[word, 1]] };
}

const parsed = new Map<string, Unit>();

/**
 * The unit that a text names.
 *
 * @throws SyntaxError if the text is not products of words over products of words
 *
 * @example
 * parseUnit("kWh/cm2"); // { factor: 36000000000, powers: [["J", 1], ["m", -2]] }
 */
export function parseUnit(text: string): Unit {
  const known = parsed.get(text);
  if (known !== undefined) return known;
  let unit = ONE;
  if (text.trim() !== "") {
    for (const [i, part] of text.split("/").entries()) {
      const words = part.trim().replace(/^\((.*)\)$/, "$1").split(/[\s*]+/);
      for (const word of words) {
        unit = timesUnit(unit, wordUnit(word, text), i === 0 ? 1 : -1);
      }
    }
  }
  parsed.set(text, unit);
  return unit;
}

/**
 * What an amount in the unit `from` is multiplied by to be in the unit `to`.
 *
 * @throws RangeError if the units are of different dimension
 *
 * @example
 * conversion("kWh", "MJ"); // 3.6
 */
export function conversion(from: string, to: string): number {
  if (from === to) return 1;
  const [a, b] = [parseUnit(from), parseUnit(to)];
  if (!sameDimension(a, b)) {
    throw new RangeError(
      `Cannot convert "${from}" to "${to}" as they measure different things: ${
        dimensionText(a)
      } and ${dimensionText(b)}`,
    );
  }
  return a.factor / b.factor;
}
