/**
 * Speed of the SuperFlow: whole flows, each in a fresh process, with their peak of memory.
 *
 * Run as a process of its own it is one measurement: `flow.ts <source>`, where a source is a path or
 * `adder<bits>`, prints a `FlowTiming` as JSON. Verifiers are part of the flow and of the time.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { key } from "../../lib/core/rng.ts";
import { peakMemoryMb } from "../../lib/core/provenance.ts";
import { projectRoot } from "../../lib/core/runs.ts";
import { slope } from "../../lib/core/stats.ts";
import { STAGES, superflow } from "../../lib/superflow/flow.ts";
import { median } from "./measure.ts";

/** Where a circuit comes from, and within how many seconds it is to be done on one core. */
interface FlowCase {
  name: string;
  source: string;
  barSeconds: number | null;
}

export interface FlowTiming {
  cells: number;
  /** CPU seconds of each stage with its verifiers. */
  stages: Record<string, number>;
  peakMemoryMb: number;
}

export interface FlowRow extends FlowTiming {
  name: string;
  /** From the start of the process to its end: median, and every round. */
  seconds: number;
  roundsSeconds: number[];
  barSeconds: number | null;
}

/** Adders of growing width: cells grow with its square, over two orders of magnitude. */
const SCALING_BITS = [4, 8, 16, 32, 48, 96];

function cases(quick: boolean): { cases: FlowCase[]; absent: string[] } {
  const folder = process.env.ADIABAT_CIRCUITS;
  const list: FlowCase[] = [{
    name: "adder8",
    source: join(projectRoot(), "data/rtl/adder8.v"),
    barSeconds: 5,
  }];
  const absent: string[] = [];
  if (folder === undefined) {
    absent.push("c1908: set ADIABAT_CIRCUITS to the folder of the circuits");
  } else {
    list.push({
      name: "c1908",
      source: join(folder, "iscas85/c1908.v"),
      barSeconds: 30,
    });
  }
  for (const bits of quick ? SCALING_BITS.slice(0, 3) : SCALING_BITS) {
    list.push({
      name: `adder, ${bits} bits`,
      source: `adder${bits}`,
      barSeconds: null,
    });
  }
  return { cases: list, absent };
}

/** The design that a source names. */
function design(source: string) {
  const bits = Number(/^adder(\d+)$/.exec(source)?.[1]);
  if (!(bits > 0)) return { path: source };
  return {
    text: `module adder${bits} (input [${
      bits - 1
    }:0] a, b, output [${bits}:0] sum);
  assign sum = a + b;
endmodule`,
  };
}

async function measureOnce(source: string): Promise<FlowTiming> {
  const start = process.cpuUsage();
  const { placed, report } = await superflow(design(source), {
    key: key(1),
    synthesis: { carry: "ripple" },
    seconds: () => {
      const { user, system } = process.cpuUsage(start);
      return (user + system) / 1e6;
    },
  });
  return {
    cells: placed!.cells.length,
    stages: report.seconds as Record<string, number>,
    peakMemoryMb: peakMemoryMb(),
  };
}

/** Every flow in turn, several rounds. */
export async function measureFlows(
  { quick, repeats }: { quick: boolean; repeats: number },
  progress: (line: string) => void,
): Promise<{ rows: FlowRow[]; absent: string[] }> {
  const { cases: list, absent } = cases(quick);
  const rows: FlowRow[] = [];
  for (const { name, source, barSeconds } of list) {
    const rounds: { seconds: number; timing: FlowTiming }[] = [];
    for (let round = 0; round < repeats; round++) {
      const start = performance.now();
      const { stdout } = await promisify(execFile)(process.execPath, [
        "--import",
        "tsx",
        fileURLToPath(import.meta.url),
        source,
      ], { cwd: projectRoot() });
      const seconds = (performance.now() - start) / 1000;
      rounds.push({ seconds, timing: JSON.parse(stdout) });
      progress(`${name}: ${seconds.toFixed(1)} s`);
    }
    rows.push({
      name,
      ...rounds[0].timing,
      peakMemoryMb: median(rounds.map(({ timing }) => timing.peakMemoryMb)),
      seconds: median(rounds.map(({ seconds }) => seconds)),
      roundsSeconds: rounds.map(({ seconds }) => seconds),
      barSeconds,
    });
  }
  return { rows, absent };
}

/** Exponent p of quantity ~ cells^p over the adders, by stage, and for memory. */
export function exponents(rows: FlowRow[]): Record<string, number> {
  const adders = rows.filter(({ name }) => name.startsWith("adder,"));
  const fit = (of: (row: FlowRow) => number) =>
    slope(
      adders.map(({ cells }) => Math.log(cells)),
      adders.map((row) => Math.log(Math.max(of(row), 1e-3))),
    ).value;
  return {
    ...Object.fromEntries(
      STAGES.map((stage) => [stage, fit(({ stages }) => stages[stage])]),
    ),
    memory: fit(({ peakMemoryMb }) => peakMemoryMb),
  };
}

/** Rows for the terminal. */
export function flowTable(rows: FlowRow[]): string[][] {
  return [
    ["circuit", "cells", ...STAGES, "whole process", "peak memory", "bar"],
    ...rows.map((
      { name, cells, stages, seconds, peakMemoryMb, barSeconds },
    ) => [
      name,
      String(cells),
      ...STAGES.map((stage) => `${stages[stage].toFixed(1)} s`),
      `${seconds.toFixed(1)} s`,
      `${peakMemoryMb} MB`,
      barSeconds === null
        ? "-"
        : `${barSeconds} s: ${seconds <= barSeconds ? "pass" : "miss"}`,
    ]),
  ];
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  console.log(JSON.stringify(await measureOnce(process.argv[2])));
}
