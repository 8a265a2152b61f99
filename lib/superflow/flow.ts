/**
 * The whole flow: from a design's source to a layout that has been proven to compute the same.
 *
 * Xie et al., "SuperFlow: A Fully-Customized RTL-to-GDS Design Automation Flow for Adiabatic
 * Quantum-Flux-Parametron Superconducting Circuits", DATE 2024, arXiv 2407.18209.
 *
 *   source --synthesise--> netlist --insertBuffers--> levelled --place--> placed --route--> GDSII
 *
 * Nothing is returned unchecked. Each stage ends with a verifier, and a verifier that finds a fault
 * ends the flow with a `VerificationError` that names it:
 *
 *   synthesis      the mapped netlist is equivalent to the expanded source
 *   legalisation   every connection one level long, fan-out 1, ports aligned; equivalent to the
 *                  source; right in a four-phase simulation with several waves in flight
 *   placement      on the grid, no overlaps, every connection between neighbouring rows
 *   layout         no design rule violation; the netlist extracted from the file's bytes equals the
 *                  placed one and is equivalent to the source
 *
 * Legalisation and placement are compared with the stage before, which has the same gates: equivalence
 * carries over. The layout, last, is compared with the source itself.
 *
 * Scope: the paper's stages as far as its abstract and public sources describe them; cell library,
 * design rules and clock model are ours and are objects that can be replaced.
 */
import { type CellLibrary, DEFAULT_LIBRARY } from "../core/aqfp.ts";
import { fold, type Key, key as keyOf } from "../core/rng.ts";
import {
  type ClockModel,
  DEFAULT_CLOCK,
  describeMissed,
  highestFreqHz,
  timing,
} from "./clock.ts";
import { repair } from "./drc.ts";
import { checkEquivalence, describeCounterexample } from "./equivalence.ts";
import { insertBuffers, type InsertionOptions } from "./insertion.ts";
import { assertLegal } from "./legality.ts";
import { compareLayout } from "./lvs.ts";
import {
  bufferAndSplitterCount,
  countCells,
  edges,
  fanouts,
  gateDepth,
  isGate,
  jjCount,
  type LevelledNetlist,
  levelsOf,
  levelsWithin,
  type Netlist,
} from "./netlist.ts";
import { checkPlacement, hpwl, longestNetUm, outlineUm } from "./placed.ts";
import type { PlacedNetlist } from "./placed.ts";
import { type BufferRowOptions, insertBufferRows } from "./buffer-rows.ts";
import { place } from "./placement.ts";
import {
  route,
  type RoutedDesign,
  type RoutingOptions,
  wireSteps,
} from "./routing.ts";
import { checkSimulation, clockPhasesFor } from "./simulation.ts";
import {
  elaborate,
  synthesiseStages,
  type SynthesisOptions,
  type SynthesisSource,
} from "./synthesis.ts";

export const STAGES = [
  "synthesis",
  "legalisation",
  "placement",
  "routing",
] as const;
export type Stage = typeof STAGES[number];

export interface FlowOptions {
  /** Cells, pins and wire rules; ours by default. */
  library?: CellLibrary;
  /** Velocities and cell times of the clock; assumed ones by default. */
  clock?: ClockModel;
  /** All randomness of the flow; same key, same bytes. Default `key(1)`. */
  key?: Key;
  /** The last stage to run; "routing" (default) includes the layout. */
  stopAfter?: Stage;
  synthesis?: SynthesisOptions;
  /** The default of `splitterCapacity` is the largest splitter of the library. */
  insertion?: Omit<InsertionOptions, "key">;
  /** Keeps the levels, buffers and splitters of a netlist that is already balanced. Default false. */
  keepBalanced?: boolean;
  placement?: Omit<BufferRowOptions, "library" | "clock" | "key">;
  routing?: Omit<RoutingOptions, "library" | "onProgress">;
  /** Called as the stages advance. */
  onProgress?: (stage: Stage, fraction: number, message?: string) => void;
  /** A clock (s), for the report; none by default, so that the report depends on nothing else. */
  seconds?: () => number;
}

/** Counts and measures of each stage that ran, plain JSON. Lengths in um, times in ps. */
export interface FlowReport {
  design: string;
  library: string;
  libraryNote: string;
  clock: ClockModel;
  synthesis: { gates: number; cells: Record<string, number>; depth: number };
  legalisation?: {
    cells: Record<string, number>;
    buffersAndSplitters: number;
    jj: number;
    depth: number;
    connections: number;
    wavesInFlight: number;
    notes: string[];
  };
  placement?: {
    method: string;
    hpwlUm: number;
    /** Along the row and the clock model's row pitch, which is assumed. */
    longestNetUm: number;
    worstSlackPs: number;
    totalNegativeSlackPs: number;
    /** That this placement would meet, with the clock model's row pitch. */
    highestFreqHz: number;
    widthUm: number;
    bufferRows: number;
    /** Nets that are still longer than the limit. */
    overlongNets: number;
  };
  routing?: {
    tracks: number;
    tracksLowerBound: number;
    expansions: number;
    vias: number;
    wirelengthUm: number;
    /** As drawn. */
    longestNetUm: number;
    /** From one row to the next as drawn, on average. */
    rowPitchUm: number;
    repairs: number;
    /** With the true heights of channels and lengths of wires. */
    worstSlackPs: number;
    totalNegativeSlackPs: number;
    /** That this layout would meet. */
    highestFreqHz: number;
    heightUm: number;
    areaMm2: number;
    gdsBytes: number;
  };
  /** What a reader must know: timing that is missed, inputs of no use, what the layout leaves out. */
  notes: string[];
  /** What was proven, in words; a flow that returns has passed them all. */
  checks: string[];
  /** Seconds of each stage with its checks; empty without a clock. */
  seconds: Partial<Record<Stage, number>>;
}

/** What a layout of this flow leaves out. */
export const LAYOUT_NOTE =
  "the layout holds cells as boxes with pins, and the wires between them: no excitation (clock) lines, DC bias, ground planes or pads, no junctions or inductors within the cells; it is not for fabrication";

export interface FlowResult {
  /** The source, expanded to gates and not minimised. */
  reference: Netlist;
  /** Majority gates. */
  netlist: Netlist;
  levelled?: LevelledNetlist;
  placed?: PlacedNetlist;
  routed?: RoutedDesign;
  gds?: Uint8Array;
  report: FlowReport;
}

/** A circuit that failed one of the flow's own checks. */
export class VerificationError extends Error {
  override name = "VerificationError";
}

/** Most outputs of a splitter: the library has a splitter of that many and of all smaller numbers. */
function largestSplitter({ cells }: CellLibrary): number {
  let outputs = 2;
  while (cells[`splitter${outputs + 1}`] !== undefined) outputs++;
  return outputs;
}

function require(condition: boolean, stage: Stage, problem: string): void {
  if (!condition) {
    throw new VerificationError(`Cannot vouch for the ${stage} as ${problem}`);
  }
}

/** Throws unless both netlists compute the same. */
function requireEquivalent(
  reference: Netlist,
  netlist: Netlist,
  stage: Stage,
): void {
  const { counterexample } = checkEquivalence(reference, netlist);
  require(
    counterexample === undefined,
    stage,
    `the circuit differs from its source: ${
      counterexample && describeCounterexample(counterexample)
    }`,
  );
}

/** Gates of a source. A netlist whose balance is to be kept is read as it is. */
async function gatesOf(
  source: SynthesisSource,
  { synthesis, keepBalanced = false }: FlowOptions,
): Promise<{ reference: Netlist; netlist: Netlist; warnings: string[] }> {
  if (!keepBalanced) return await synthesiseStages(source, synthesis);
  const { reference, warnings } = await elaborate(
    { ...source, format: "netlist" },
    synthesis,
  );
  return { reference, netlist: reference, warnings };
}

/** Levels, buffers and splitters; checked. */
async function legalise(
  reference: Netlist,
  netlist: Netlist,
  options: FlowOptions,
  key: Key,
): Promise<{ levelled: LevelledNetlist; notes: string[]; waves: number }> {
  const { insertion = {}, keepBalanced = false } = options;
  const { notes, ...levelled }: LevelledNetlist & { notes: string[] } =
    keepBalanced
      ? {
        ...(insertion.maxLevelsPerHop ?? 1) > 1
          ? levelsWithin(netlist, insertion.maxLevelsPerHop!)
          : levelsOf(netlist),
        notes: [],
      }
      : await insertBuffers(netlist, { ...insertion, key });
  assertLegal(levelled, insertion);
  requireEquivalent(netlist, levelled, "legalisation");
  const simulated = checkSimulation(levelled, reference, {
    key,
    clockPhases: clockPhasesFor(insertion.maxLevelsPerHop ?? 1),
  });
  require(
    simulated.equal,
    "legalisation",
    simulated.mismatch?.message ?? simulated.problems[0]?.message ??
      "the simulation failed",
  );
  return {
    levelled,
    notes,
    waves: simulated.wavesInFlight,
  };
}

/** True heights of the channels and lengths of the wires. */
function routedLengths(
  { placed, library: { gridUm }, rowY, wires }: RoutedDesign,
): { rowPitchesUm: number[]; wireLengthsUm: Float64Array } {
  const place = new Map(
    edges(placed).map(({ sink, input }, e) => [`${sink}.${input}`, e]),
  );
  const wireLengthsUm = new Float64Array(wires.length);
  for (const wire of wires) {
    const { sink, input } = wire.edge;
    wireLengthsUm[place.get(`${sink}.${input}`)!] = wireSteps(wire) * gridUm;
  }
  const rowPitchesUm = Array.from(
    rowY.subarray(1),
    (y, row) => (y - rowY[row]) * gridUm,
  );
  return { rowPitchesUm, wireLengthsUm };
}

/** Layout from a placement; checked against design rules, placement and source. */
function layOut(
  reference: Netlist,
  placed: PlacedNetlist,
  library: CellLibrary,
  slackPs: Float64Array,
  { routing, onProgress }: FlowOptions,
): { routed: RoutedDesign; gds: Uint8Array; repairs: number } {
  const first = route(placed, {
    criticality: slackPs.map((slack) => -slack), // those with least slack first
    ...routing,
    library,
    onProgress: (done, all) => onProgress?.("routing", 0.7 * done / all),
  });
  const { design, bytes, violations, rerouted } = repair(first, routing);
  require(
    violations.length === 0,
    "routing",
    `${violations.length} design rules are broken: ${violations[0]?.message}`,
  );
  const compared = compareLayout(bytes, placed, library);
  require(
    compared.equal && compared.netlist !== undefined,
    "routing",
    `the layout is not the netlist: ${compared.problems[0]?.message}`,
  );
  requireEquivalent(reference, compared.netlist!, "routing");
  return { routed: design, gds: bytes, repairs: rerouted.length };
}

/**
 * The flow from source to GDSII.
 *
 * @param source A file or text: Verilog RTL, BLIF, AIGER or a structural netlist.
 * @param options See `FlowOptions`; every stage's own options are passed on to it.
 * @returns What each stage made, the bytes of the GDSII file, and a report in plain JSON
 * @throws SyntaxError or RangeError for a source that cannot be used
 * @throws VerificationError if a check of a stage fails: nothing of that stage is returned
 */
export async function superflow(
  source: SynthesisSource,
  options: FlowOptions = {},
): Promise<FlowResult> {
  const {
    library = DEFAULT_LIBRARY,
    clock = DEFAULT_CLOCK,
    key = keyOf(1),
    stopAfter = "routing",
    onProgress,
    seconds,
  } = options;
  if (!STAGES.includes(stopAfter)) {
    throw new RangeError(
      `Cannot run the flow as stopAfter must be ${
        STAGES.join(", ")
      }: ${stopAfter}`,
    );
  }
  const largest = largestSplitter(library);
  const { splitterCapacity = largest } = options.insertion ?? {};
  if (splitterCapacity > largest) {
    throw new RangeError(
      `Cannot run the flow as library ${library.name} must have splitters of 2 to splitterCapacity outputs: it has them up to ${largest}, splitterCapacity ${splitterCapacity}`,
    );
  }
  const insertion = { ...options.insertion, splitterCapacity };
  const hop = insertion.maxLevelsPerHop ?? 1;
  if (hop > 1 && STAGES.indexOf(stopAfter) > 1) {
    throw new RangeError(
      `Cannot run the flow as placement and routing must have connections between neighbouring rows; the legalised netlist, its counts and its Verilog are available with stopAfter legalisation: maxLevelsPerHop ${hop}`,
    );
  }
  const spent: FlowReport["seconds"] = {};
  let since = seconds?.() ?? 0;
  const done = (stage: Stage): boolean => {
    onProgress?.(stage, 1);
    if (seconds !== undefined) {
      const now = seconds();
      spent[stage] = Number((now - since).toFixed(3));
      since = now;
    }
    return stage === stopAfter;
  };

  onProgress?.("synthesis", 0);
  const { reference, netlist, warnings } = await gatesOf(source, options);
  const counts = countCells(netlist);
  const report: FlowReport = {
    design: netlist.name,
    library: library.name,
    libraryNote: library.note,
    clock: hop > 1
      ? {
        ...clock,
        phases: clockPhasesFor(hop),
        note: `${clock.note}; ${
          clockPhasesFor(hop)
        } phases, as a connection may lead on ${hop} levels`,
      }
      : clock,
    synthesis: {
      gates: netlist.cells.filter(isGate).length,
      cells: counts,
      depth: gateDepth(netlist),
    },
    notes: [],
    checks: [
      ...warnings.map((warning) => `warning: ${warning}`),
      "synthesis: netlist equivalent to its source",
    ],
    seconds: spent,
  };
  const result: FlowResult = { reference, netlist, report };
  const leaving = fanouts(netlist);
  const unused = netlist.cells.filter(({ kind }, i) =>
    kind === "input" && leaving[i].length === 0
  );
  if (unused.length > 0) {
    report.notes.push(
      `no output depends on ${unused.length === 1 ? "input" : "inputs"} ${
        unused.map(({ name }) => name).join(", ")
      }: a cell each, without a wire`,
    );
  }
  if (done("synthesis")) return result;

  onProgress?.("legalisation", 0);
  const { levelled, notes, waves } = await legalise(
    reference,
    netlist,
    { ...options, insertion },
    fold(key, "insertion"),
  );
  result.levelled = levelled;
  report.legalisation = {
    cells: countCells(levelled),
    buffersAndSplitters: bufferAndSplitterCount(levelled),
    jj: jjCount(levelled, library),
    depth: levelled.levels.reduce((a, b) => Math.max(a, b), 0) - 1,
    connections: edges(levelled).length,
    wavesInFlight: waves,
    notes,
  };
  report.checks.push(
    `legalisation: levels, fan-out and arity legal; equivalent to the source; equal in ${
      hop > 1 ? clockPhasesFor(hop) : "four"
    }-phase simulation`,
  );
  if (done("legalisation")) return result;

  onProgress?.("placement", 0);
  const placementKey = fold(key, "placement");
  const first = place(levelled, {
    ...options.placement,
    library,
    clock,
    key: placementKey,
  });
  const { placed, overlong } = insertBufferRows(first, {
    ...options.placement,
    library,
    clock,
    key: placementKey,
  });
  const [problem] = checkPlacement(placed, library);
  require(problem === undefined, "placement", problem);
  const rowsOf = ({ levels }: LevelledNetlist) =>
    levels.reduce((a, b) => Math.max(a, b), 0);
  const added = rowsOf(placed) - rowsOf(levelled);
  // Detailed placement exchanges equal pins, and buffer rows add cells.
  assertLegal(placed, insertion);
  requireEquivalent(levelled, placed, "placement");
  const before = timing(placed, library, clock);
  const { slackPs, worstSlackPs, totalNegativeSlackPs } = before;
  const { leftUm, rightUm } = outlineUm(placed, library);
  result.placed = placed;
  report.placement = {
    method: options.placement?.method ?? "superflow",
    hpwlUm: hpwl(placed, library),
    longestNetUm: longestNetUm(placed, library, { dyUm: clock.rowPitchUm }),
    worstSlackPs,
    totalNegativeSlackPs,
    highestFreqHz: highestFreqHz(before),
    widthUm: rightUm - leftUm,
    bufferRows: added,
    overlongNets: overlong,
  };
  report.checks.push(
    "placement: on the grid, no overlaps, connections between neighbouring rows; equivalent to the source",
  );
  const missedBefore = describeMissed(before);
  if (done("placement")) {
    if (missedBefore !== undefined) report.notes.push(missedBefore);
    return result;
  }

  onProgress?.("routing", 0);
  const { routed, gds, repairs } = layOut(
    reference,
    placed,
    library,
    slackPs,
    options,
  );
  const { channels, rowY, rowHeight } = routed;
  const sum = (of: (channel: typeof channels[number]) => number) =>
    channels.reduce((total, channel) => total + of(channel), 0);
  const last = rowY.length - 1;
  const heightUm = (rowY[last] + rowHeight[last]) * library.gridUm;
  const lengths = routedLengths(routed);
  const after = timing(placed, library, clock, lengths);
  result.routed = routed;
  result.gds = gds;
  report.routing = {
    tracks: sum(({ tracks }) => tracks),
    tracksLowerBound: sum(({ lowerBound }) => lowerBound),
    expansions: sum(({ expansions }) => expansions),
    vias: sum(({ vias }) => vias),
    wirelengthUm: sum(({ wirelengthUm }) => wirelengthUm),
    longestNetUm: lengths.wireLengthsUm.reduce((a, b) => Math.max(a, b), 0),
    rowPitchUm: rowY[last] * library.gridUm / Math.max(1, last),
    repairs,
    worstSlackPs: after.worstSlackPs,
    totalNegativeSlackPs: after.totalNegativeSlackPs,
    highestFreqHz: highestFreqHz(after),
    heightUm,
    areaMm2: heightUm * report.placement.widthUm / 1e6,
    gdsBytes: gds.length,
  };
  report.checks.push(
    "layout: no design rule violation; netlist extracted from the file equal to the placed one and equivalent to the source",
  );
  const missed = describeMissed(after);
  if (missed !== undefined) report.notes.push(missed);
  report.notes.push(LAYOUT_NOTE);
  done("routing");
  return result;
}
