/**
 * Carbon intensity of electricity by place, read from the data package @tgwf/co2 0.19.0.
 *
 * Average intensities of a year's generation by Ember (CC BY-SA 4.0), by ISO 3166 code of three letters
 * or name of a region, as WORLD. The package's code is not run: its file holds one JSON object.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { dataFolder } from "../core/datasets.ts";

/** Where the numbers come from, with what the licence asks for. */
export const GRID_SOURCE =
  "Ember yearly averages in @tgwf/co2 0.19.0, CC BY-SA 4.0";

const FILE = "@tgwf/co2/dist/esm/data/average-intensities.min.js";

/** A file as it was read last. */
const cache = new Map<string, Record<string, number>>();

/**
 * Carbon intensity of each place (g CO2e/kWh).
 *
 * @param folder Where node_modules of the data packages are, default data/ of the project.
 * @throws RangeError if the package is not installed
 */
export function gridIntensities(
  folder = dataFolder(),
): Record<string, number> {
  const path = join(folder, "node_modules", FILE);
  const known = cache.get(path);
  if (known !== undefined) return known;
  if (!existsSync(path)) {
    throw new RangeError(
      `Cannot read grid intensities as the data package @tgwf/co2 must be installed: no ${FILE}; run node --import tsx scripts/install-data.ts`,
    );
  }
  const text = readFileSync(path, "utf8");
  const object = /^\s*const data\s*=\s*(\{[^}]*\})/.exec(text)?.[1];
  if (object === undefined) {
    throw new SyntaxError(
      `Cannot read grid intensities as ${FILE} must start with an object "data"`,
    );
  }
  const data: Record<string, number> = JSON.parse(object);
  cache.set(path, data);
  return data;
}

/**
 * Carbon intensity of a place (g CO2e/kWh).
 *
 * @param place As "FRA" or "WORLD".
 * @throws RangeError for a place that is not there, or whose number cannot be (0, where nothing is known)
 *
 * @example
 * gridIntensity("FRA"); // 44.18
 */
export function gridIntensity(place: string, folder = dataFolder()): number {
  const data = gridIntensities(folder);
  const value = Object.hasOwn(data, place) ? data[place] : undefined;
  if (value === undefined || !(value > 0)) {
    const like = Object.keys(data).filter((name) =>
      name.startsWith(place.slice(0, 1).toUpperCase())
    );
    throw new RangeError(
      `Cannot use the grid of "${place}" as a code with a known intensity is needed: ${
        value ?? `there are ${like.join(", ")}`
      }`,
    );
  }
  return value;
}
