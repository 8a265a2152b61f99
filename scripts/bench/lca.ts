/**
 * Speed of the life-cycle engine: a dependent Monte Carlo comparison, and a large sparse system.
 *
 * Both systems are made up: 30 processes with 60 random numbers for two alternatives, every entry of which
 * varies; and 2,000 processes that use some others and a few hubs, as a background database does.
 *
 *     node --import tsx scripts/bench/lca.ts        prints the rows
 */
import process from "node:process";
import { pathToFileURL } from "node:url";
import { type Inventory, readInventory } from "../../lib/aqfp-lca/inventory.ts";
import {
  factorise,
  multiply,
  type SparseMatrix,
  sparseMatrix,
} from "../../lib/aqfp-lca/linear.ts";
import { compileInventory } from "../../lib/aqfp-lca/model.ts";
import { monteCarlo } from "../../lib/aqfp-lca/uncertainty.ts";
import { key, uniform } from "../../lib/core/rng.ts";
import { textTable } from "../cli.ts";
import { median } from "./measure.ts";

export interface LcaRow {
  name: string;
  /** CPU seconds: median, and every round. */
  seconds: number;
  roundsSeconds: number[];
  barSeconds: number;
}

const RUNS = 100_000;
const PROCESSES = 30;
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
        `use${j},0.1,kg,lognormal,1.2,${known}`,
        `emission${j},${1 + j / 10},kg,lognormal,1.3,${known}`,
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
        ...[1, 2, 5, 7].map((d) =>
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

/** Both measurements, several rounds; a result that is not verified is an error. */
export function measureLca(
  { repeats }: { repeats: number },
  progress: (line: string) => void,
): LcaRow[] {
  const model = compileInventory(ring());
  const alternatives = [0, 7].map((j) => ({
    name: `product${j}`,
    demand: { [`product${j}`]: 1 },
  }));
  const A = background();
  const demand = new Float64Array(LARGE);
  demand[LARGE - 1] = 1;
  const verify = (residual: number, limit: number) => {
    if (residual <= limit) return;
    throw new Error(
      `Cannot trust the time of a solution whose residual is above ${limit}: ${residual}`,
    );
  };
  const cases = [
    {
      name: `${RUNS} dependent runs, ${PROCESSES} processes, 2 alternatives`,
      barSeconds: 3,
      work: () =>
        verify(
          monteCarlo(model, alternatives, { runs: RUNS, key: key(1) }).residual,
          1e-10,
        ),
    },
    {
      name: `sparse system of ${LARGE} processes, solved with its condition`,
      barSeconds: 1,
      work: () => {
        const supply = factorise(A).solve(demand);
        verify(
          multiply(A, supply).reduce(
            (most, v, i) => Math.max(most, Math.abs(v - demand[i])),
            0,
          ),
          1e-12,
        );
      },
    },
  ];
  return cases.map(({ name, barSeconds, work }) => {
    const roundsSeconds = Array.from({ length: repeats }, () => {
      const seconds = cpuSeconds(work);
      progress(`${name}: ${seconds.toFixed(2)} s`);
      return seconds;
    });
    return { name, seconds: median(roundsSeconds), roundsSeconds, barSeconds };
  });
}

/** Rows for the terminal. */
export function lcaTable(rows: LcaRow[]): string[][] {
  return [
    ["system", "CPU time", "bar"],
    ...rows.map(({ name, seconds, barSeconds }) => [
      name,
      `${seconds.toFixed(2)} s`,
      `${barSeconds} s: ${seconds <= barSeconds ? "pass" : "miss"}`,
    ]),
  ];
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const rows = measureLca({ repeats: 5 }, (line) => console.error(line));
  console.log(textTable(lcaTable(rows)));
}
