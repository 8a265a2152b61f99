/**
 * Placement of AQFP circuits: one clock phase per row, cells of different widths, and the placers that
 * the comparison needs.
 *
 * Every method ends with the same legaliser (`place-legal.ts`) and, if wanted, the same detailed
 * placement (`place-detailed.ts`), on a chip of the same width: what differs is the global placement.
 *
 * | method | global placement |
 * | --- | --- |
 * | superflow | wire length, timing, maximum length, density with true widths (`place-analytic.ts`) |
 * | taas | the same from one start, without maximum length; all cells as wide as the widest, wires between their centres: our TAAS-like |
 * | gordian | squared wire length, ports fixed in the order of the sweeps, recursive bipartition: our GORDIAN-like |
 * | barycentre, median | sweeps over the rows (Sugiyama) |
 * | annealing | simulated annealing from a random placement |
 * | topological, random | the order of a topological walk; any order |
 *
 * Scope: SuperFlow (Xie et al., DATE 2024, arXiv 2407.18209) and TAAS (DAC 2022) were readable as
 * abstracts only, GORDIAN is from recollection: all three are our readings.
 */
import { type CellLibrary, DEFAULT_LIBRARY } from "../core/aqfp.ts";
import { fold, type Key, key as keyOf } from "../core/rng.ts";
import { checkClock, type ClockModel, DEFAULT_CLOCK } from "./clock.ts";
import type { LevelledNetlist } from "./netlist.ts";
import { type AnalyticOptions, placeAnalytic } from "./place-analytic.ts";
import {
  anneal,
  type AnnealingOptions,
  MOVES_PER_CELL,
} from "./place-annealing.ts";
import { type DetailedOptions, placeDetailed } from "./place-detailed.ts";
import { placeGordian } from "./place-gordian.ts";
import { legalise } from "./place-legal.ts";
import {
  type PlacementModel,
  placementModel,
  totalCost,
} from "./place-model.ts";
import { netlistWithPins } from "./place-pins.ts";
import {
  placeBarycentre,
  placeRandom,
  placeTopological,
} from "./place-orders.ts";
import type { PlacedNetlist } from "./placed.ts";

export {
  checkPlacement,
  hpwl,
  longestNetUm,
  outlineUm,
  type PlacedNetlist,
  wireUm,
} from "./placed.ts";

/** Longest net that is to be allowed. Assumed: of the order of 1 mm, set by the process. */
export const MAX_WIRE_UM = 1000;

export const PLACEMENT_METHODS = [
  "superflow",
  "taas",
  "gordian",
  "barycentre",
  "median",
  "annealing",
  "topological",
  "random",
] as const;

export type PlacementMethod = typeof PLACEMENT_METHODS[number];

export interface PlaceOptions {
  library?: CellLibrary;
  clock?: ClockModel;
  method?: PlacementMethod;
  key?: Key;
  /** Lmax: longest net, abs(dx) + dy. */
  maxWireUm?: number;
  /** Whether detailed placement follows the legaliser. */
  detailed?: boolean;
  /**
   * How many times as long the method may search: whole attempts with keys of their own, of which the
   * cheapest is taken; for annealing, moves at each temperature. Default 1.
   */
  effort?: number;
  /** Share of the widest row that its cells fill; the chip has that width. Our choice. */
  utilisation?: number;
  /** lambda_t, grid steps of wire per ps^2, lowered on chips too wide for their clock. Our choice. */
  timingWeight?: number;
  /** lambda_w, per grid step beyond Lmax. Our choice. */
  lengthWeight?: number;
  analytic?: AnalyticOptions;
  annealing?: AnnealingOptions;
  detail?: DetailedOptions;
  /** Called with each attempt, in turn, and its cost; the first is what effort 1 would return. */
  onAttempt?: (placed: PlacedNetlist, cost: number) => void;
}

/** Global placements, not yet legal: one, or several of which the best is to be taken. */
function placeGlobally(
  model: PlacementModel,
  method: PlacementMethod,
  key: Key,
  { analytic, annealing, effort = 1 }: PlaceOptions,
): Float64Array[] {
  const random = () => placeRandom(model, fold(key, "order"));
  switch (method) {
    case "superflow":
      return placeAnalytic(model, fold(key, "analytic"), analytic);
    case "taas":
      return placeUniform(model, fold(key, "analytic"), analytic);
    case "gordian":
      // Fixed ports in a good order: at random they would decide the result.
      return [placeGordian(model, placeBarycentre(model, random()))];
    case "barycentre":
      return [placeBarycentre(model, random(), { by: "mean" })];
    case "median":
      return [placeBarycentre(model, random(), { by: "median" })];
    case "annealing":
      return [
        Float64Array.from(
          anneal(
            model,
            legalise(model, random()),
            fold(key, "annealing"),
            { movesPerCell: effort * MOVES_PER_CELL, ...annealing },
          ),
        ),
      ];
    case "topological":
      return [placeTopological(model)];
    case "random":
      return [random()];
  }
}

/**
 * Analytic placement as if all cells were as wide as the widest, with pins at their centres, without
 * maximum length.
 *
 * Cells keep their centres: left edge = uniform left edge + (widest - width) / 2.
 */
function placeUniform(
  model: PlacementModel,
  key: Key,
  options: AnalyticOptions | undefined,
): Float64Array[] {
  const { width, offset, rows } = model;
  const widest = width.reduce((a, b) => Math.max(a, b), 0);
  const most = rows.reduce((a, { length }) => Math.max(a, length), 0);
  const widthSteps = Math.max(model.widthSteps, most * widest);
  const placements = placeAnalytic(
    {
      ...model,
      weights: { ...model.weights, length: 0 },
      width: new Int32Array(width.length).fill(widest),
      widthSteps,
      offset: new Float64Array(offset.length),
    },
    key,
    { starts: 1, ...options },
  );
  // Back to the chip: centres shrink with its width.
  return placements.map((x) =>
    x.map((at, c) =>
      (at + widest / 2) * model.widthSteps / widthSteps - width[c] / 2
    )
  );
}

/**
 * Places a levelled netlist: row = level, no overlaps, on the grid.
 *
 * @param netlist Every connection one level long (see `insertBuffers`).
 * @returns The netlist with the left edge of every cell; same key, same result.
 * @throws RangeError if a connection skips a level, the library lacks a cell, or an option is out of range
 */
export function place(
  netlist: LevelledNetlist,
  options: PlaceOptions = {},
): PlacedNetlist {
  const { method = "superflow", effort = 1, onAttempt } = options;
  if (!PLACEMENT_METHODS.includes(method)) {
    throw new TypeError(
      `Cannot place ${netlist.name} as the method must be one of ${
        PLACEMENT_METHODS.join(", ")
      }: method ${JSON.stringify(method)}`,
    );
  }
  if (!(Number.isInteger(effort) && effort >= 1)) {
    throw new RangeError(
      `Cannot place ${netlist.name} as effort must be a positive integer: effort ${effort}`,
    );
  }
  const { key = keyOf(0) } = options;
  let best: { placed: PlacedNetlist; cost: number } | null = null;
  // One long schedule of annealing is worth more than several short ones.
  const attempts = method === "annealing" ? 1 : effort;
  for (let attempt = 0; attempt < attempts; attempt++) {
    const own = attempt === 0 ? key : fold(key, `attempt ${attempt}`);
    const found = placeOnce(netlist, method, own, options);
    onAttempt?.(found.placed, found.cost);
    if (best === null || found.cost < best.cost) best = found;
  }
  return best!.placed;
}

/** One attempt: of its global placements, the one that is cheapest in the end. */
function placeOnce(
  netlist: LevelledNetlist,
  method: PlacementMethod,
  key: Key,
  options: PlaceOptions,
): { placed: PlacedNetlist; cost: number } {
  const { detailed = true } = options;
  let best: PlacedNetlist | null = null;
  let bestCost = Infinity;
  const model = modelOf(netlist, options);
  const detail = { key: fold(key, "detail"), ...options.detail };
  for (const x of placeGlobally(model, method, key, options)) {
    // Pins are assigned in the model, so every candidate has one of its own.
    const own = modelOf(netlist, options);
    const legal = legalise(own, x);
    const placed = detailed
      ? finish(own, legal, detail)
      : { ...netlist, x: legal };
    const cost = totalCost(own, placed.x);
    if (best === null || cost < bestCost) [best, bestCost] = [placed, cost];
  }
  return { placed: best!, cost: bestCost };
}

/** Detailed placement, with the pins it assigned. */
function finish(
  model: PlacementModel,
  legal: Int32Array,
  detail: DetailedOptions | undefined,
): PlacedNetlist {
  const x = placeDetailed(model, legal, detail);
  return { ...netlistWithPins(model), x };
}

/**
 * Makes a placement legal and improves it in detail, without a new global placement.
 *
 * @param placed Left edges in grid steps, anywhere.
 */
export function refine(
  placed: PlacedNetlist,
  options: PlaceOptions = {},
): PlacedNetlist {
  const { x, ...netlist } = placed;
  const model = modelOf(netlist, options);
  return finish(model, legalise(model, x), options.detail);
}

/** The arrays that the placers work on, for the options of `place`. */
export function modelOf(
  netlist: LevelledNetlist,
  {
    library = DEFAULT_LIBRARY,
    clock = DEFAULT_CLOCK,
    maxWireUm = MAX_WIRE_UM,
    utilisation = 1,
    timingWeight = 1,
    lengthWeight = 0.05,
  }: PlaceOptions = {},
): PlacementModel {
  checkClock(clock);
  for (
    const [name, value] of Object.entries({ timingWeight, lengthWeight })
  ) {
    if (!(value >= 0 && Number.isFinite(value))) {
      throw new RangeError(
        `Cannot place ${netlist.name} as ${name} must be a finite number of 0 or more: ${name} ${value}`,
      );
    }
  }
  if (!(maxWireUm > clock.rowPitchUm)) {
    throw new RangeError(
      `Cannot place ${netlist.name} as maxWireUm must be above the row pitch of ${clock.rowPitchUm} um: maxWireUm ${maxWireUm}`,
    );
  }
  return placementModel(
    netlist,
    library,
    { timing: timingWeight, length: lengthWeight, maxWireUm, clock },
    utilisation,
  );
}
