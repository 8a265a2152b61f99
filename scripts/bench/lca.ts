/**
 * Speed of the life-cycle engine: dependent Monte Carlo comparisons, and a large sparse system.
 *
 * AQFP against CMOS is the whole comparison of the study, with the inventory's ranges. The other systems
 * are made up: 30 processes with 60 random numbers for two alternatives, every entry of which varies; and
 * 2,000 processes that use some others and a few hubs, as a background database does. NumPy and SciPy
 * solve the made-up ones in the same run, in one thread: all runs of a chunk in one batched dense call,
 * and a sparse direct solution (SuperLU).
 *
 *     node --import tsx scripts/bench/lca.ts        prints the rows
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { scenarioModel, TECHNOLOGIES } from "../../lib/aqfp-lca/comparison.ts";
import { type Inventory, readInventory } from "../../lib/aqfp-lca/inventory.ts";
import {
  factorise,
  multiply,
  type SparseMatrix,
  sparseMatrix,
} from "../../lib/aqfp-lca/linear.ts";
import { compileInventory, type Model } from "../../lib/aqfp-lca/model.ts";
import { assess, systemOf } from "../../lib/aqfp-lca/matrix.ts";
import {
  type Alternative,
  monteCarlo,
  summary,
} from "../../lib/aqfp-lca/uncertainty.ts";
import { key, uniform } from "../../lib/core/rng.ts";
import { projectRoot } from "../../lib/core/runs.ts";
import { textTable } from "../cli.ts";
import { median } from "./measure.ts";
import { ONE_THREAD } from "./peers.ts";

export interface LcaRow {
  name: string;
  /** CPU seconds: median, and every round. */
  seconds: number;
  roundsSeconds: number[];
  /** Null where none is set. */
  barSeconds: number | null;
  /** CPU seconds of the peer in the same run, of its median and of every round; null if there is none. */
  peer: { name: string; seconds: number; roundsSeconds: number[] } | null;
}

const RUNS = 100_000;
const QUICK_RUNS = 10_000;
const PROCESSES = 30;
/** Which others a process of the ring uses, how much, and with which spreads. */
const OFFSETS = [1, 2, 5, 7];
const [USE, USE_GSD, CARBON_GSD] = [0.1, 1.2, 1.3];
/** Products that are compared. */
const DEMANDS = [0, 7];
const LARGE = 2000;

/** A ring of processes, each of which uses four others in random amounts. */
function ring(): Inventory {
  const table = (head: string, rows: string[]) => [head, ...rows].join("\n");
  const range = Array.from({ length: PROCESSES }, (_, j) => j);
  const known = "made up,assumed";
  const quantity = "amount,unit,source,standing";
  return readInventory({
    "parameters.csv": table(
      `name,amount,unit,distribution,gsd,source,standing`,
      range.flatMap((j) => [
        `use${j},${USE},kg,lognormal,${USE_GSD},${known}`,
        `emission${j},${1 + j / 10},kg,lognormal,${CARBON_GSD},${known}`,
      ]),
    ),
    "products.csv": table("name,unit", range.map((j) => `product${j},kg`)),
    "flows.csv": table("name,unit,direction", ["CO2,kg,emission"]),
    "impacts.csv": table("name,unit", ["climate change,kg CO2e"]),
    "factors.csv": table(`impact,flow,${quantity}`, [
      `climate change,CO2,1,kg CO2e/kg,${known}`,
    ]),
    "processes.csv": table(
      "name,product,phase",
      range.map((j) => `process${j},product${j},phase${j % 4}`),
    ),
    "exchanges.csv": table(
      `process,direction,item,${quantity}`,
      range.flatMap((j) => [
        `process${j},output,product${j},1,kg,${known}`,
        `process${j},output,CO2,2 * emission${j},kg,${known}`,
        ...OFFSETS.map((d) =>
          `process${j},input,product${
            (j + d) % PROCESSES
          },use${j} / ${d},kg,${known}`
        ),
      ]),
    ),
  });
}

/** Every process uses eight others, the first ones more often, and ten hubs. */
function background(): SparseMatrix {
  const [inputs, hubs] = [8, 10];
  const u = uniform(key(1), 2 * LARGE * inputs);
  const entries = [];
  for (let j = 0, at = 0; j < LARGE; j++) {
    entries.push({ row: j, column: j, value: 1 });
    for (let k = 0; k < inputs; k++, at += 2) {
      const row = Math.floor(LARGE * u[at] ** 2);
      const value = -0.9 / inputs * u[at + 1];
      if (row !== j) entries.push({ row, column: j, value });
    }
    for (let row = 0; row < hubs; row++) {
      if (row !== j) entries.push({ row, column: j, value: -0.02 });
    }
  }
  return sparseMatrix(LARGE, entries);
}

function cpuSeconds(work: () => void): number {
  const start = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1e6;
}

/** A task of lca_peer.py; nothing if Python, NumPy or SciPy is not there. */
function askPython<Answer>(task: object): Answer | undefined {
  const { status, stdout, stderr } = spawnSync("python3", [
    join(projectRoot(), "scripts", "bench", "lca_peer.py"),
  ], {
    input: JSON.stringify([task]),
    env: { ...process.env, ...ONE_THREAD },
    encoding: "utf8",
    maxBuffer: 2 ** 26,
  });
  if (status === 0) return JSON.parse(stdout) as Answer;
  if (status === null || /ModuleNotFoundError/.test(stderr)) return undefined;
  throw new Error(`Cannot measure the peer: ${stderr.trim()}`);
}

function requireSmall(what: string, error: number, limit: number): void {
  if (error <= limit) return;
  throw new Error(
    `Cannot trust a time as ${what} must be at most ${limit}: ${error}`,
  );
}

interface Case {
  name: string;
  barSeconds: number | null;
  /** Throws unless its result is right. */
  work: () => void;
  /** CPU seconds; undefined if the peer is not there. */
  peer?: { name: string; work: () => number | undefined };
}

function comparisonCase(name: string, model: Model, runs: number): Case {
  const alternatives = TECHNOLOGIES.map((technology) => ({
    name: technology,
    demand: { [`${technology} service`]: 1 },
  }));
  return {
    name: `${name}, ${runs} dependent runs`,
    barSeconds: 3,
    work: () => {
      const { residual } = monteCarlo(model, alternatives, {
        runs,
        key: key(1),
      });
      requireSmall("the residual", residual, 1e-10);
    },
  };
}

/** Medians of both may differ by sampling alone; 1 % is far beyond it. */
const MEDIAN_TOLERANCE = 0.01;

function ringCase(runs: number): Case {
  const model = compileInventory(ring());
  const alternatives: Alternative[] = DEMANDS.map((j) => ({
    name: `product${j}`,
    demand: { [`product${j}`]: 1 },
  }));
  const system = systemOf(model);
  const central = alternatives.map(({ demand }) =>
    assess(system, demand).scores[0]
  );
  const medians: number[] = [];
  return {
    name:
      `${PROCESSES} processes, 2 alternatives, every entry varies, ${runs} dependent runs`,
    barSeconds: null,
    work: () => {
      const result = monteCarlo(model, alternatives, { runs, key: key(1) });
      requireSmall("the residual", result.residual, 1e-10);
      result.scores.forEach(([score], a) => medians[a] = summary(score).median);
    },
    peer: {
      name: "NumPy, batched",
      work: () => {
        const answer = askPython<
          { seconds: number; central: number[]; median: number[] }
        >({
          task: "monte_carlo",
          runs,
          processes: PROCESSES,
          offsets: OFFSETS,
          amount: USE,
          gsd: USE_GSD,
          carbon_gsd: CARBON_GSD,
          demands: DEMANDS,
        });
        const apart = (a: number, b: number) => Math.abs(a / b - 1);
        answer?.central.forEach((value, a) =>
          requireSmall(
            "the peer's distance at the centre",
            apart(value, central[a]),
            1e-9,
          )
        );
        answer?.median.forEach((value, a) =>
          requireSmall(
            "the peer's distance of the median",
            apart(value, medians[a]),
            MEDIAN_TOLERANCE,
          )
        );
        return answer?.seconds;
      },
    },
  };
}

function sparseCase(): Case {
  const A = background();
  const demand = new Float64Array(LARGE);
  demand[LARGE - 1] = 1;
  return {
    name: `sparse system of ${LARGE} processes, solved with its condition`,
    barSeconds: 1,
    work: () => {
      const supply = factorise(A).solve(demand);
      const error = multiply(A, supply).reduce(
        (most, v, i) => Math.max(most, Math.abs(v - demand[i])),
        0,
      );
      requireSmall("the error", error, 1e-12);
    },
    peer: {
      name: "SciPy, SuperLU",
      work: () => {
        const { n, starts, rows, values } = A;
        const answer = askPython<{ seconds: number; error: number }>({
          task: "sparse_system",
          n,
          starts: [...starts],
          rows: [...rows],
          values: [...values],
          demand: LARGE - 1,
        });
        if (answer === undefined) return undefined;
        requireSmall("the peer's error", answer.error, 1e-10);
        return answer.seconds;
      },
    },
  };
}

/** All measurements, ours and the peer's in turn; a result that is not verified is an error. */
export function measureLca(
  { repeats, quick = false }: { repeats: number; quick?: boolean },
  progress: (line: string) => void,
): LcaRow[] {
  const runs = quick ? QUICK_RUNS : RUNS;
  const cases = [
    comparisonCase(
      "AQFP against CMOS",
      scenarioModel({ functionalUnit: "throughput" }),
      runs,
    ),
    ringCase(runs),
    sparseCase(),
  ];
  return cases.map(({ name, barSeconds, work, peer }) => {
    const [own, theirs]: number[][] = [[], []];
    for (let round = 0; round < repeats; round++) {
      own.push(cpuSeconds(work));
      const seconds = peer?.work();
      if (seconds !== undefined) theirs.push(seconds);
      progress(
        `${name}: ${own[round].toFixed(2)} s` +
          (seconds === undefined
            ? ""
            : `, ${peer!.name} ${seconds.toFixed(2)} s`),
      );
    }
    return {
      name,
      seconds: median(own),
      roundsSeconds: own,
      barSeconds,
      peer: theirs.length === 0
        ? null
        : { name: peer!.name, seconds: median(theirs), roundsSeconds: theirs },
    };
  });
}

/** Rows for the terminal. */
export function lcaTable(rows: LcaRow[]): string[][] {
  return [
    ["system", "CPU time", "bar", "peer"],
    ...rows.map(({ name, seconds, barSeconds, peer }) => [
      name,
      `${seconds.toFixed(2)} s`,
      barSeconds === null
        ? "–"
        : `${barSeconds} s: ${seconds <= barSeconds ? "pass" : "miss"}`,
      peer === null ? "–" : `${peer.name}: ${peer.seconds.toFixed(2)} s`,
    ]),
  ];
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const rows = measureLca({ repeats: 5 }, (line) => console.error(line));
  console.log(textTable(lcaTable(rows)));
}
