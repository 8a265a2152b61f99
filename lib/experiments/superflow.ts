/**
 * SuperFlow: circuits from RTL to a checked layout, and every stage against its baselines.
 *
 * Xie et al., "SuperFlow: A Fully-Customized RTL-to-GDS Design Automation Flow for Adiabatic
 * Quantum-Flux-Parametron Superconducting Circuits", DATE 2024, arXiv 2407.18209.
 *
 *   flow/<circuit>             the whole flow, with all its verifiers
 *   insert/<circuit>           buffers and splitters by every method, each netlist checked
 *   balance/<circuit>          the netlist that all placers of a circuit get
 *   place/<circuit>/<method>   one placement by one method, legal, and what it measures; all methods
 *                              search for at least as long as ours
 *   weight/<circuit>/<weight>  our placement with another weight of timing
 *   route/<circuit>/<router>   our placement routed by one router, checked down to the layout
 *   rows/<circuit>/<limit>/<selection>
 *                              our placement with buffers on nets longer than a limit (um)
 *   optimum/<circuit>          length of the shortest placement of a tiny circuit
 *   gap/<circuit>/<method>     by how much a method misses it
 *
 * Circuits are files of data/rtl, and files below the folder that ADIABAT_CIRCUITS names; the latter
 * are left out where the variable is not set, and what rests on them is then measured on fewer.
 */
import { existsSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import { DEFAULT_LIBRARY } from "../core/aqfp.ts";
import { fold, type Key } from "../core/rng.ts";
import {
  type Arm,
  contentHash,
  type Experiment,
  type Json,
  type Metrics,
  projectRoot,
  type RunContext,
} from "../core/runs.ts";
import {
  type BufferRowOptions,
  insertBufferRows,
} from "../superflow/buffer-rows.ts";
import { DEFAULT_CLOCK, timing } from "../superflow/clock.ts";
import { repair } from "../superflow/drc.ts";
import {
  checkEquivalence,
  describeCounterexample,
} from "../superflow/equivalence.ts";
import { superflow } from "../superflow/flow.ts";
import { insertBuffers, type LevelMethod } from "../superflow/insertion.ts";
import { assertLegal } from "../superflow/legality.ts";
import { compareLayout } from "../superflow/lvs.ts";
import {
  bufferAndSplitterCount,
  gateDepth,
  isGate,
  jjCount,
  type LevelledNetlist,
  levelsOf,
  type Netlist,
} from "../superflow/netlist.ts";
import { placeExact } from "../superflow/place-exact.ts";
import {
  checkPlacement,
  hpwl,
  longestNetUm,
  place,
  type PlacedNetlist,
  type PlacementMethod,
  type PlaceOptions,
} from "../superflow/placement.ts";
import { route, type Router } from "../superflow/routing.ts";
import { elaborate, synthesiseStages } from "../superflow/synthesis.ts";
import { figures, measure, tables } from "./superflow.report.ts";

export interface Config {
  /** Sources that go through the whole flow. */
  flow: string[];
  /** Structural netlists whose buffers and splitters are counted by every method. */
  insertion: { circuits: string[]; methods: LevelMethod[] };
  /** Sources that every placer places. */
  placement: {
    circuits: string[];
    methods: PlacementMethod[];
    /** How many times as long each method searches (`PlaceOptions.effort`). */
    effort: Record<PlacementMethod, number>;
  };
  /** Weights of timing for our placer, on circuits of `placement`. */
  weights: { circuits: string[]; weights: number[]; seeds: number };
  /** Routers for our placements, on circuits of `placement`. */
  routing: { circuits: string[]; routers: Router[]; seeds: number };
  /** Limits of length (um) below the usual one, on circuits of `placement`. */
  rows: {
    circuits: string[];
    limitsUm: number[];
    selections: Selection[];
    seeds: number;
  };
  /** Sources whose shortest placement is computed. */
  exact: { circuits: string[]; methods: PlacementMethod[] };
  seeds: number;
}

type Selection = NonNullable<BufferRowOptions["selection"]>;

/**
 * Measured, derived: one search of ours, which starts four times and places two of the results in detail,
 * takes as long as two to four of the others. With these numbers none of them has, on average over the
 * circuits, less processor time than ours; what each took stands in the table.
 */
const EQUAL_TIME: Record<PlacementMethod, number> = {
  superflow: 1,
  taas: 3,
  gordian: 4,
  barycentre: 5,
  median: 5,
  annealing: 3,
  topological: 5,
  random: 4,
};

const rtl = (...names: string[]) => names.map((name) => `data/rtl/${name}.v`);
/** Structurally hashed circuits of github.com/lsils/SCE-benchmarks. */
const iscas = (...names: string[]) => names.map((name) => `iscas85/${name}.v`);
/** Balanced majority netlists of github.com/Super-EDA/AQFP-Benchmark. */
const balanced = (...names: string[]) =>
  names.map((name) => `placer/${name}.v`);

const full: Config = {
  flow: [
    ...rtl(
      "c17",
      "adder8",
      "alu4",
      "comparator8",
      "decoder",
      "apc32",
      "apc128",
      "sorter32",
      "multiplier8",
    ),
    ...iscas("c432", "c499", "c880", "c1355", "c1908"),
  ],
  insertion: {
    circuits: iscas(
      "c17",
      "adder1",
      "adder8",
      "counter16",
      "counter32",
      "counter128",
      "c432",
      "c499",
      "c880",
      "c1355",
      "c1908",
      "sorter32",
    ),
    methods: ["naive", "asap", "alap", "lp", "improved"],
  },
  placement: {
    circuits: [
      ...rtl(
        "adder8",
        "alu4",
        "comparator8",
        "decoder",
        "apc128",
        "sorter32",
        "multiplier8",
      ),
      ...iscas("c432", "c499"),
      ...balanced("c880_pb", "c1355_pb", "c1908_pb", "counter_128_pb"),
    ],
    methods: [
      "superflow",
      "taas",
      "gordian",
      "annealing",
      "barycentre",
      "median",
      "topological",
      "random",
    ],
    effort: EQUAL_TIME,
  },
  weights: {
    circuits: [
      ...iscas("c499"),
      ...balanced("c880_pb", "c1908_pb", "counter_128_pb"),
    ],
    weights: [0, 0.1, 1, 10, 100],
    seeds: 3,
  },
  routing: {
    circuits: [
      ...rtl("adder8", "alu4", "apc128", "sorter32", "multiplier8"),
      ...iscas("c432", "c499"),
      ...balanced("c880_pb", "c1908_pb"),
    ],
    routers: ["left-edge", "negotiated"],
    seeds: 3,
  },
  rows: {
    circuits: [
      ...rtl("alu4", "sorter32", "multiplier8"),
      ...iscas("c432"),
      ...balanced("c880_pb", "c1908_pb"),
    ],
    limitsUm: [600, 400],
    selections: ["rows", "cut"],
    seeds: 3,
  },
  exact: {
    circuits: rtl(
      "c17",
      "tiny/fulladder",
      "tiny/mux4",
      "tiny/adder2",
      "tiny/comparator2",
      "tiny/multiplier2",
      "tiny/gray5",
      "tiny/popcount4",
      "tiny/majority5",
    ),
    methods: [
      "superflow",
      "taas",
      "gordian",
      "annealing",
      "barycentre",
      "median",
      "topological",
      "random",
    ],
  },
  seeds: 3,
};

/** Circuits of the project only. */
const quick: Config = {
  flow: rtl("c17", "adder8", "alu4", "decoder", "apc32"),
  insertion: { circuits: rtl("c17"), methods: full.insertion.methods },
  placement: {
    ...full.placement,
    circuits: rtl("adder8", "alu4", "apc32"),
  },
  weights: { circuits: [], weights: [], seeds: 1 }, // these have no negative slack
  routing: { ...full.routing, circuits: rtl("adder8", "alu4", "apc32") },
  rows: { ...full.rows, circuits: rtl("alu4"), limitsUm: [400] },
  exact: {
    ...full.exact,
    circuits: rtl("tiny/fulladder", "tiny/multiplier2", "tiny/comparator2"),
  },
  seeds: 3,
};

const smoke: Config = {
  flow: rtl("c17"),
  insertion: { circuits: rtl("c17"), methods: ["naive", "improved"] },
  placement: {
    ...full.placement,
    circuits: rtl("c17", "decoder"),
    methods: ["superflow", "taas", "gordian", "barycentre"],
  },
  weights: { circuits: rtl("decoder"), weights: [0, 1], seeds: 1 },
  routing: { ...full.routing, circuits: rtl("decoder"), seeds: 1 },
  rows: {
    ...full.rows,
    circuits: rtl("decoder"),
    limitsUm: [400],
    seeds: 1,
  },
  exact: {
    circuits: rtl("tiny/fulladder"),
    methods: ["superflow", "barycentre"],
  },
  seeds: 2,
};

// Arms ----------------------------------------------------------------------------------------------

/** Path of a circuit, or null if it lies in a folder of the reader's that is not there. */
function circuitPath(circuit: string): string | null {
  if (circuit.startsWith("data/")) return join(projectRoot(), circuit);
  const folder = process.env.ADIABAT_CIRCUITS;
  return folder === undefined ? null : join(folder, circuit);
}

/** A circuit with a hash of its content, so that a changed file is a new run; null if left out. */
function sourceOf(circuit: string): Record<string, Json> | null {
  const path = circuitPath(circuit);
  if (path === null) return null;
  if (!existsSync(path)) {
    throw new RangeError(
      `Cannot run superflow as the circuit must be a file below the project or below ADIABAT_CIRCUITS: ${circuit}`,
    );
  }
  return {
    circuit,
    hash: contentHash(new Uint8Array(readFileSync(path))),
  };
}

/** "c1908" for "iscas85/c1908.v". */
function circuitName(circuit: string): string {
  return basename(circuit, ".v");
}

function arms(config: Config): Arm[] {
  const { flow, insertion, placement, weights, routing, rows, exact } = config;
  const seeds = (count: number) =>
    Array.from({ length: count }, (_, i) => i + 1);
  const list: Arm[] = [];
  const each = (
    circuits: string[],
    add: (name: string, source: Record<string, Json>) => void,
  ) => {
    for (const circuit of circuits) {
      const source = sourceOf(circuit);
      if (source !== null) add(circuitName(circuit), source);
    }
  };
  each(flow, (name, source) => {
    list.push({ id: `flow/${name}`, config: { ...source }, seeds: [1] });
  });
  each(insertion.circuits, (name, source) => {
    list.push({
      id: `insert/${name}`,
      config: { ...source, levels: insertion.methods },
      seeds: [1],
    });
  });
  const balanced = new Set([...placement.circuits, ...exact.circuits]);
  each([...balanced], (name, source) => {
    list.push({
      id: `balance/${name}`,
      config: { ...source, balance: true },
      seeds: [1],
    });
  });
  each(placement.circuits, (name, source) => {
    for (const method of placement.methods) {
      const effort = placement.effort[method];
      list.push({
        id: `place/${name}/${method}`,
        config: { ...source, method, effort },
        seeds: seeds(config.seeds),
        needs: [`balance/${name}`],
      });
    }
  });
  each(weights.circuits, (name, source) => {
    for (const timingWeight of weights.weights) {
      list.push({
        id: `weight/${name}/${timingWeight}`,
        config: { ...source, timingWeight },
        seeds: seeds(weights.seeds),
        needs: [`balance/${name}`],
      });
    }
  });
  each(routing.circuits, (name, source) => {
    for (const router of routing.routers) {
      list.push({
        id: `route/${name}/${router}`,
        config: { ...source, router },
        seeds: seeds(routing.seeds),
        needs: [`place/${name}/superflow`],
      });
    }
  });
  each(rows.circuits, (name, source) => {
    for (const maxWireUm of rows.limitsUm) {
      for (const selection of rows.selections) {
        list.push({
          id: `rows/${name}/${maxWireUm}/${selection}`,
          config: { ...source, maxWireUm, selection },
          seeds: seeds(rows.seeds),
          needs: [`balance/${name}`, `place/${name}/superflow`],
        });
      }
    }
  });
  each(exact.circuits, (name, source) => {
    list.push({
      id: `optimum/${name}`,
      config: { ...source, optimum: true },
      seeds: [1],
      needs: [`balance/${name}`],
    });
    for (const method of exact.methods) {
      list.push({
        id: `gap/${name}/${method}`,
        config: { ...source, gapOf: method, effort: placement.effort[method] },
        seeds: seeds(config.seeds),
        needs: [`balance/${name}`, `optimum/${name}`],
      });
    }
  });
  return list;
}

// Runs ----------------------------------------------------------------------------------------------

/** A structural netlist as it is: published counts are for unchanged logic. */
async function gatesOf(circuit: string): Promise<Netlist> {
  const path = circuitPath(circuit)!;
  return (await elaborate({ path, format: "netlist" })).reference;
}

async function runFlow(
  { circuit }: { circuit: string },
  key: Key,
  context: RunContext,
): Promise<Metrics> {
  const { report, placed } = await superflow({ path: circuitPath(circuit)! }, {
    key,
    seconds: context.cpuSeconds,
    onProgress: (stage, fraction) => {
      const at = ["synthesis", "legalisation", "placement", "routing"];
      context.progress((at.indexOf(stage) + fraction) / at.length, stage);
    },
  });
  for (const [stage, seconds] of Object.entries(report.seconds)) {
    context.timing(`${stage}Seconds`, seconds);
  }
  context.timing("totalSeconds", context.cpuSeconds());
  const { synthesis, legalisation, placement, routing } = report;
  return {
    gates: synthesis.gates,
    majorityGates: synthesis.cells.maj ?? 0,
    cells: placed!.cells.length,
    buffersAndSplitters: legalisation!.buffersAndSplitters,
    jj: legalisation!.jj,
    depth: legalisation!.depth,
    hpwlUm: placement!.hpwlUm,
    longestNetUm: placement!.longestNetUm,
    worstSlackPs: routing!.worstSlackPs,
    bufferRows: placement!.bufferRows,
    tracks: routing!.tracks,
    tracksLowerBound: routing!.tracksLowerBound,
    expansions: routing!.expansions,
    vias: routing!.vias,
    wirelengthUm: routing!.wirelengthUm,
    repairs: routing!.repairs,
    areaMm2: routing!.areaMm2,
    gdsBytes: routing!.gdsBytes,
    verified: 1, // superflow() throws otherwise
  };
}

/** Throws unless a balanced netlist is legal and computes what it should. */
function verify(reference: Netlist, levelled: LevelledNetlist): void {
  assertLegal(levelled);
  const { counterexample } = checkEquivalence(reference, levelled);
  if (counterexample !== undefined) {
    throw new Error(
      `${levelled.name} differs from its source: ${
        describeCounterexample(counterexample)
      }`,
    );
  }
}

async function countInsertions(
  { circuit, levels }: { circuit: string; levels: LevelMethod[] },
  key: Key,
  context: RunContext,
): Promise<Metrics> {
  const netlist = await gatesOf(circuit);
  const metrics: Metrics = {
    gates: netlist.cells.filter(isGate).length,
    gateDepth: gateDepth(netlist),
  };
  for (const [i, method] of levels.entries()) {
    context.progress(i / levels.length, method);
    const start = context.cpuSeconds();
    const levelled = await insertBuffers(netlist, { levels: method, key });
    context.timing(`${method}Seconds`, context.cpuSeconds() - start);
    verify(netlist, levelled);
    metrics[`${method}Count`] = bufferAndSplitterCount(levelled);
    metrics[`${method}Jj`] = jjCount(levelled, DEFAULT_LIBRARY);
    metrics[`${method}Depth`] = levelled.depth;
  }
  return metrics;
}

/** RTL of ours as a balanced netlist, proven equivalent to its source. */
async function synthesised(
  circuit: string,
  key: Key,
): Promise<LevelledNetlist> {
  const path = circuitPath(circuit)!;
  const { reference, netlist } = await synthesiseStages({ path });
  const levelled = await insertBuffers(netlist, {
    key: fold(key, "insertion"),
  });
  verify(reference, levelled);
  return levelled;
}

const toBytes = (value: unknown) =>
  new TextEncoder().encode(JSON.stringify(value));

const fromBytes = (bytes: Uint8Array) =>
  JSON.parse(new TextDecoder().decode(bytes));

/** Bytes of a netlist with levels, and places where it has them. */
function netlistBytes(
  { name, cells, levels, x }: LevelledNetlist & { x?: Int32Array },
): Uint8Array {
  return toBytes({ name, cells, levels: [...levels], x: x && [...x] });
}

/** The netlist that the arm `balance/<circuit>` left. */
function balancedNetlist(
  circuit: string,
  context: RunContext,
): LevelledNetlist {
  const id = `balance/${circuitName(circuit)}`;
  const { levels, ...rest } = fromBytes(
    context.readArtifact(id, "netlist.json"),
  );
  return { ...rest, levels: Int32Array.from(levels) };
}

/** Our placement, as the arm `place/<circuit>/superflow` of the same seed left it. */
function ourPlacement(circuit: string, context: RunContext): PlacedNetlist {
  const id = `place/${circuitName(circuit)}/superflow`;
  const { levels, x, ...rest } = fromBytes(
    context.readArtifact(id, "placed.json"),
  );
  return { ...rest, levels: Int32Array.from(levels), x: Int32Array.from(x) };
}

async function balance(
  { circuit }: { circuit: string },
  key: Key,
  context: RunContext,
): Promise<Metrics> {
  const levelled = circuit.startsWith("placer/")
    ? levelsOf(await gatesOf(circuit))
    : await synthesised(circuit, key);
  assertLegal(levelled);
  context.writeArtifact("netlist.json", netlistBytes(levelled));
  return { cells: levelled.cells.length };
}

/** Throws unless a placement is legal. */
function requireLegal(placed: PlacedNetlist, what: string): void {
  const [problem] = checkPlacement(placed, DEFAULT_LIBRARY);
  if (problem !== undefined) {
    throw new Error(`${what} placed ${placed.name} badly: ${problem}`);
  }
}

/** What a placement measures. */
function placementMetrics(placed: PlacedNetlist): Metrics {
  const { worstSlackPs, totalNegativeSlackPs } = timing(
    placed,
    DEFAULT_LIBRARY,
    DEFAULT_CLOCK,
  );
  const { freqHz, phases } = DEFAULT_CLOCK;
  return {
    hpwlUm: hpwl(placed, DEFAULT_LIBRARY),
    longestNetUm: longestNetUm(placed, DEFAULT_LIBRARY, {
      dyUm: DEFAULT_CLOCK.rowPitchUm,
    }),
    worstSlackPs,
    totalNegativeSlackPs,
    // Slacks grow by one phase's share of what the period grows.
    shortestPeriodPs: 1e12 / freqHz - phases * worstSlackPs,
  };
}

/** One placement, timed and legal, and its first attempt. */
function placeTimed(
  circuit: string,
  options: PlaceOptions,
  context: RunContext,
): { placed: PlacedNetlist; first: PlacedNetlist } {
  const levelled = balancedNetlist(circuit, context);
  let first: PlacedNetlist | null = null;
  const start = context.cpuSeconds();
  const placed = place(levelled, {
    ...options,
    onAttempt: (attempt) => {
      first ??= attempt;
    },
  });
  context.timing("placeSeconds", context.cpuSeconds() - start);
  requireLegal(placed, options.method ?? "superflow");
  return { placed, first: first! };
}

function runPlacement(
  { circuit, method, effort }: {
    circuit: string;
    method: PlacementMethod;
    effort: number;
  },
  key: Key,
  context: RunContext,
): Metrics {
  const { placed, first } = placeTimed(
    circuit,
    { method, effort, key },
    context,
  );
  if (method === "superflow") {
    context.writeArtifact("placed.json", netlistBytes(placed));
  }
  return {
    ...placementMetrics(placed),
    firstHpwlUm: hpwl(first, DEFAULT_LIBRARY),
  };
}

function runWeight(
  { circuit, timingWeight }: { circuit: string; timingWeight: number },
  key: Key,
  context: RunContext,
): Metrics {
  return placementMetrics(
    placeTimed(circuit, { timingWeight, key }, context).placed,
  );
}

/** One router on our placement: counts of a layout without violations that equals its netlist. */
function runRouter(
  { circuit, router }: { circuit: string; router: Router },
  context: RunContext,
): Metrics {
  const placed = ourPlacement(circuit, context);
  const start = context.cpuSeconds();
  const routed = route(placed, { library: DEFAULT_LIBRARY, router });
  context.timing("routeSeconds", context.cpuSeconds() - start);
  const { bytes, violations } = repair(routed, { maxRepairs: 0 });
  if (violations.length > 0) {
    throw new Error(
      `${router} broke a design rule on ${placed.name}: ${
        violations[0].message
      }`,
    );
  }
  const { equal, problems } = compareLayout(bytes, placed, DEFAULT_LIBRARY);
  if (!equal) {
    throw new Error(
      `${router} misconnected ${placed.name}: ${problems[0].message}`,
    );
  }
  const { channels } = routed;
  const sum = (of: (channel: typeof channels[number]) => number) =>
    channels.reduce((total, channel) => total + of(channel), 0);
  return {
    tracks: sum(({ tracks }) => tracks),
    tracksLowerBound: sum(({ lowerBound }) => lowerBound),
    expansions: sum(({ expansions }) => expansions),
    vias: sum(({ vias }) => vias),
    wirelengthUm: sum(({ wirelengthUm }) => wirelengthUm),
  };
}

/** Our placement with buffers on nets beyond a limit, equivalent to what it was. */
function runRows(
  { circuit, maxWireUm, selection }: {
    circuit: string;
    maxWireUm: number;
    selection: Selection;
  },
  key: Key,
  context: RunContext,
): Metrics {
  const start = context.cpuSeconds();
  const { placed, overlongAtStart, rowsAdded, buffersAdded, overlong } =
    insertBufferRows(ourPlacement(circuit, context), {
      maxWireUm,
      selection,
      key,
    });
  context.timing("rowsSeconds", context.cpuSeconds() - start);
  requireLegal(placed, selection);
  verify(balancedNetlist(circuit, context), placed);
  return {
    ...placementMetrics(placed),
    overlongAtStart,
    overlong,
    rowsAdded,
    buffersAdded,
  };
}

/** Wire length only, pins as they are: what the exact method minimises. */
const LENGTH_ONLY = {
  timingWeight: 0,
  lengthWeight: 0,
  detail: { pins: "given" },
} as const satisfies PlaceOptions;

async function runExact(
  { circuit }: { circuit: string },
  context: RunContext,
): Promise<Metrics> {
  const levelled = balancedNetlist(circuit, context);
  const start = context.cpuSeconds();
  const { placed } = await placeExact(levelled, LENGTH_ONLY);
  context.timing("exactSeconds", context.cpuSeconds() - start);
  requireLegal(placed, "the exact method");
  const optimumUm = hpwl(placed, DEFAULT_LIBRARY);
  context.writeArtifact("optimum.json", toBytes({ optimumUm }));
  return { optimumUm, cells: levelled.cells.length };
}

function runGap(
  { circuit, gapOf, effort }: {
    circuit: string;
    gapOf: PlacementMethod;
    effort: number;
  },
  key: Key,
  context: RunContext,
): Metrics {
  const { optimumUm } = fromBytes(
    context.readArtifact(`optimum/${circuitName(circuit)}`, "optimum.json"),
  );
  const { placed } = placeTimed(
    circuit,
    { ...LENGTH_ONLY, method: gapOf, effort, key },
    context,
  );
  const hpwlUm = hpwl(placed, DEFAULT_LIBRARY);
  if (hpwlUm < optimumUm) {
    throw new Error(
      `${gapOf} placed ${placed.name} below the optimum: ${hpwlUm} um against ${optimumUm} um`,
    );
  }
  return { hpwlUm, gapPercent: 100 * (hpwlUm / optimumUm - 1) };
}

const experiment: Experiment<Config> = {
  name: "superflow",
  title: "SuperFlow: from RTL to a checked AQFP layout",
  citation:
    "Xie et al., SuperFlow: A Fully-Customized RTL-to-GDS Design Automation Flow for Adiabatic Quantum-Flux-Parametron Superconducting Circuits, DATE 2024, arXiv 2407.18209",
  engine: "none",
  profiles: { smoke, quick, full },
  packages: [],
  inputs: ["data/rtl"],
  arms,
  run(arm, key, context) {
    /** The arm's config, told apart by the field that only its kind has. */
    const as = <T>() => arm as T;
    if ("levels" in arm) return countInsertions(as(), key, context);
    if ("balance" in arm) return balance(as(), key, context);
    if ("method" in arm) return runPlacement(as(), key, context);
    if ("timingWeight" in arm) return runWeight(as(), key, context);
    if ("router" in arm) return runRouter(as(), context);
    if ("selection" in arm) return runRows(as(), key, context);
    if ("optimum" in arm) return runExact(as(), context);
    if ("gapOf" in arm) return runGap(as(), key, context);
    return runFlow(as(), key, context);
  },
  measure,
  tables,
  figures,
};

export default experiment;
