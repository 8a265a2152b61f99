/**
 * SuperFlow: circuits from RTL to a checked layout, and every stage against its baselines.
 *
 * Xie et al., "SuperFlow: A Fully-Customized RTL-to-GDS Design Automation Flow for Adiabatic
 * Quantum-Flux-Parametron Superconducting Circuits", DATE 2024, arXiv 2407.18209.
 *
 *   flow/<circuit>             the whole flow, with all its verifiers
 *   insert/<circuit>           buffers and splitters by every method, each netlist checked
 *   balance/<circuit>          the netlist that all placers of a circuit get
 *   place/<circuit>/<method>   one placement by one method, legal, and what it measures
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
import { DEFAULT_CLOCK, timing } from "../superflow/clock.ts";
import {
  checkEquivalence,
  describeCounterexample,
} from "../superflow/equivalence.ts";
import { superflow } from "../superflow/flow.ts";
import { insertBuffers, type LevelMethod } from "../superflow/insertion.ts";
import { assertLegal } from "../superflow/legality.ts";
import {
  bufferAndSplitterCount,
  gateDepth,
  isGate,
  jjCount,
  type LevelledNetlist,
  levelsOf,
  type Netlist,
} from "../superflow/netlist.ts";
import {
  checkPlacement,
  hpwl,
  longestNetUm,
  place,
  type PlacementMethod,
} from "../superflow/placement.ts";
import { elaborate, synthesiseStages } from "../superflow/synthesis.ts";
import { figures, measure, tables } from "./superflow.report.ts";

export interface Config {
  /** Sources that go through the whole flow. */
  flow: string[];
  /** Structural netlists whose buffers and splitters are counted by every method. */
  insertion: { circuits: string[]; methods: LevelMethod[] };
  /** Sources that every placer places. */
  placement: { circuits: string[]; methods: PlacementMethod[] };
  seeds: number;
}

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
  },
  seeds: 5,
};

/** Circuits of the project only. */
const quick: Config = {
  flow: rtl("c17", "adder8", "alu4", "decoder", "apc32"),
  insertion: { circuits: rtl("c17"), methods: full.insertion.methods },
  placement: {
    circuits: rtl("adder8", "alu4", "apc32"),
    methods: full.placement.methods,
  },
  seeds: 3,
};

const smoke: Config = {
  flow: rtl("c17"),
  insertion: { circuits: rtl("c17"), methods: ["naive", "improved"] },
  placement: {
    circuits: rtl("c17", "decoder"),
    methods: ["superflow", "taas", "gordian", "barycentre"],
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
  const { flow, insertion, placement } = config;
  const seeds = Array.from({ length: config.seeds }, (_, i) => i + 1);
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
  each(placement.circuits, (name, source) => {
    const balance = `balance/${name}`;
    list.push({
      id: balance,
      config: { ...source, balance: true },
      seeds: [1],
    });
    for (const method of placement.methods) {
      list.push({
        id: `place/${name}/${method}`,
        config: { ...source, method },
        seeds,
        needs: [balance],
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

async function balance(
  { circuit }: { circuit: string },
  key: Key,
  context: RunContext,
): Promise<Metrics> {
  const levelled = circuit.startsWith("placer/")
    ? levelsOf(await gatesOf(circuit))
    : await synthesised(circuit, key);
  assertLegal(levelled);
  const { name, cells, levels } = levelled;
  context.writeArtifact(
    "netlist.json",
    new TextEncoder().encode(
      JSON.stringify({ name, cells, levels: [...levels] }),
    ),
  );
  return { cells: cells.length };
}

function placeOnce(
  { circuit, method }: { circuit: string; method: PlacementMethod },
  key: Key,
  context: RunContext,
): Metrics {
  const { name, cells, levels } = JSON.parse(
    new TextDecoder().decode(
      context.readArtifact(`balance/${circuitName(circuit)}`, "netlist.json"),
    ),
  );
  const levelled = { name, cells, levels: Int32Array.from(levels) };
  const start = context.cpuSeconds();
  const placed = place(levelled, { method, key });
  context.timing("placeSeconds", context.cpuSeconds() - start);
  const [problem] = checkPlacement(placed, DEFAULT_LIBRARY);
  if (problem !== undefined) {
    throw new Error(`${method} placed ${name} badly: ${problem}`);
  }
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
    if ("levels" in arm) {
      return countInsertions(
        arm as { circuit: string; levels: LevelMethod[] },
        key,
        context,
      );
    }
    if ("balance" in arm) {
      return balance(arm as { circuit: string }, key, context);
    }
    if ("method" in arm) {
      return placeOnce(
        arm as { circuit: string; method: PlacementMethod },
        key,
        context,
      );
    }
    return runFlow(arm as { circuit: string }, key, context);
  },
  measure,
  tables,
  figures,
};

export default experiment;
