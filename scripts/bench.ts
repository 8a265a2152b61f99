/**
 * Speed of the engine beside its peers, of the SuperFlow, of SupeRBNN's simulator and of the
 * life-cycle engine, in one go.
 *
 *     npm run bench                         everything, about 20 minutes
 *     npm run bench -- gpt --quick          one part, a few steps; --only gpt says the same
 *
 * Every engine runs in a process of its own with one thread; the engines take turns, several rounds
 * of them, and the median over the rounds counts. All start from the same weights and tokens and
 * must compute the same losses, or the run fails. A missed bar is printed, not an error.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { Argument, Command, Option } from "commander";
import { gitState, machineInfo } from "../lib/core/provenance.ts";
import { cacheFolder, projectRoot, writeAtomic } from "../lib/core/runs.ts";
import type { GemmResult, Product } from "./bench/gemm.ts";
import {
  ADAM,
  type GptResult,
  type GptSize,
  shapes,
  writeTask,
} from "./bench/gpt.ts";
import { median } from "./bench/measure.ts";
import { updateReadme } from "./bench/readme.ts";
import { exponents, flowTable, measureFlows } from "./bench/flow.ts";
import { lcaTable, measureLca } from "./bench/lca.ts";
import { measureSimulator, simulatorTable } from "./bench/superbnn.ts";
import { ask, findPeers, Interrupted, type Peer } from "./bench/peers.ts";
import { integerTable, measureIntegers } from "./bench/integer.ts";
import { measureQuant, quantTable } from "./bench/quant.ts";
import { main, positiveInteger, textTable } from "./cli.ts";

/** Float32 rounding of one forward pass, relative to the loss. */
const FIRST_LOSS_TOLERANCE = 1e-5;

/** Rounding grows with every update, as Adam divides small gradients by their own size. */
const LATER_LOSS_TOLERANCE = 1e-3;

/** Losses that are compared: the first and those after a few updates. */
const COMPARED_LOSSES = 4;

/** What the engine is to reach, at the small size in Node; times of one training step. */
const BARS = {
  /** With BLAS, at most so many times PyTorch's time. */
  slowerThanPyTorch: 1.3,
  /** Without BLAS, at least so many times faster than stock tfjs wasm. */
  fasterThanStock: 8,
  leakedTensorsPerStep: 0,
  /** Peak resident memory after the first step. */
  peakRssMb: 500,
};

interface GptCase {
  id: string;
  size: GptSize;
  /** Whether stock wasm takes part in a quick run. */
  quickStock: boolean;
  /** Whether stock wasm makes one step only, and that without warm-up. */
  singleStock: boolean;
}

const GPT_CASES: GptCase[] = [
  {
    id: "small",
    size: { layers: 4, dim: 128, heads: 4, tokens: 64, batch: 16, vocab: 256 },
    quickStock: true,
    singleStock: false,
  },
  {
    id: "large",
    size: { layers: 6, dim: 256, heads: 4, tokens: 128, batch: 16, vocab: 256 },
    quickStock: false,
    singleStock: true,
  },
];

const PARTS = ["gpt", "gemm", "flow", "superbnn", "lca", "quant"] as const;

interface Options {
  only?: typeof PARTS[number];
  quick: boolean;
  repeats: number;
  json?: string;
  save: boolean;
}

interface GptRow {
  case: string;
  peer: string;
  name: string;
  engine: string;
  medianMs: number;
  bestMs: number;
  /** Processor time of a step; far from the median if the machine was busy. */
  cpuMs: number;
  /** Median of each round. */
  roundsMs: number[];
  timesFasterThanStock: number | null;
  timesSlowerThanPyTorch: number | null;
  leakedTensorsPerStep: number | null;
  peakRssFirstStepMb: number;
  losses: number[];
}

interface Bar {
  name: string;
  measured: string;
  verdict: "pass" | "miss" | "not measured";
}

const progress = (line: string) => process.stderr.write(`${line}\n`);

/** Runs every peer once per round, the peers in turn; one that fails is left out from then on. */
async function inTurns<Result>(
  peers: Peer[],
  repeats: number,
  failures: string[],
  run: (peer: Peer, round: number) => Promise<Result | null>,
  describe: (result: Result) => string,
): Promise<{ peer: Peer; rounds: Result[] }[]> {
  const turns = peers.map((peer) => ({
    peer,
    rounds: [] as Result[],
    failed: false,
  }));
  for (let round = 0; round < repeats; round++) {
    const place = `  round ${round + 1} of ${repeats}`;
    for (const turn of turns) {
      if (turn.failed) continue;
      try {
        const result = await run(turn.peer, round);
        if (result === null) continue;
        turn.rounds.push(result);
        progress(`${place}: ${turn.peer.name}: ${describe(result)}`);
      } catch (error) {
        if (error instanceof Interrupted) throw error;
        turn.failed = true;
        failures.push((error as Error).message);
        progress(`${place}: ${failures.at(-1)}`);
      }
    }
  }
  return turns.filter(({ failed }) => !failed);
}

/** Time of one training step of `gpt` for every peer. */
async function measureGpt(
  { id, size, quickStock, singleStock }: GptCase,
  all: Peer[],
  { quick, repeats }: Options,
  failures: string[],
): Promise<GptRow[]> {
  const peers = all.filter(({ engine }) =>
    engine !== "stock" || !quick || quickStock
  );
  const { layers, dim, tokens, batch } = size;
  progress(
    `GPT training step, ${id}: ${layers} layers, width ${dim}, ${batch} x ${tokens} tokens`,
  );
  const folder = mkdtempSync(join(tmpdir(), "adiabat-bench-"));
  try {
    writeTask(folder, size);
    const common = { size, folder, shapes: shapes(size), adam: ADAM };
    const schedule = quick
      ? { warmup: 1, steps: 3, minSteps: 1, seconds: 5 }
      : { warmup: 3, steps: 20, minSteps: 2, seconds: 12 };
    const single = { warmup: 0, steps: 1, minSteps: 1, seconds: 0 };
    const turns = await inTurns(
      peers,
      repeats,
      failures,
      (peer, round) => {
        const once = peer.engine === "stock" && singleStock;
        if (once && round > 0) return Promise.resolve(null);
        const task = {
          ...common,
          ...(once ? single : schedule),
          engine: peer.engine,
        };
        const wrapped = peer.engine === "pytorch" ? task : { gpt: task };
        return ask<GptResult>(peer, wrapped);
      },
      ({ stepMs }) => `${median(stepMs).toFixed(1)} ms`,
    );
    return gptRows(id, turns);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function gptRows(
  id: string,
  turns: { peer: Peer; rounds: GptResult[] }[],
): GptRow[] {
  const rows = turns.map(({ peer, rounds }): GptRow => {
    const leaks = rounds.flatMap(({ leakedTensorsPerStep: leaked }) =>
      leaked === null ? [] : [leaked]
    );
    const roundsMs = rounds.map(({ stepMs }) => median(stepMs));
    return {
      case: id,
      peer: peer.id,
      name: peer.name,
      engine: rounds[0].engine,
      medianMs: median(roundsMs),
      bestMs: Math.min(...rounds.flatMap(({ stepMs }) => stepMs)),
      cpuMs: median(rounds.map((r) => median(r.cpuMs))),
      roundsMs,
      timesFasterThanStock: null,
      timesSlowerThanPyTorch: null,
      leakedTensorsPerStep: leaks.length > 0 ? Math.max(...leaks) : null,
      peakRssFirstStepMb: Math.max(
        ...rounds.map((r) => r.peakRssFirstStepBytes),
      ) / 1e6,
      losses: rounds[0].losses.slice(0, COMPARED_LOSSES),
    };
  });
  const time = (peer: string) => rows.find((r) => r.peer === peer)?.medianMs;
  const [stock, pytorch] = [time("stock-node"), time("pytorch")];
  for (const row of rows) {
    if (stock !== undefined) row.timesFasterThanStock = stock / row.medianMs;
    if (pytorch !== undefined) {
      row.timesSlowerThanPyTorch = row.medianMs / pytorch;
    }
  }
  return rows;
}

/** A line for every engine whose losses differ from the first one's. */
function lossDifferences(rows: GptRow[]): string[] {
  return rows.slice(1).flatMap((row) =>
    row.losses.flatMap((loss, step) => {
      const expected = rows[0].losses[step];
      if (expected === undefined) return [];
      const tolerance = step === 0
        ? FIRST_LOSS_TOLERANCE
        : LATER_LOSS_TOLERANCE;
      if (Math.abs(loss - expected) <= tolerance * Math.abs(expected)) {
        return [];
      }
      return [
        `${row.case}, step ${step + 1}: ${row.name} has the loss ${loss}, ${
          rows[0].name
        } ${expected}`,
      ];
    })
  );
}

const orDash = (value: number | null, digits: number, unit = "") =>
  value === null ? "-" : value.toFixed(digits) + unit;

function gptTable(rows: GptRow[]): string {
  const head = [
    "engine",
    "ms/step",
    "best",
    "CPU ms",
    "vs stock",
    "vs PyTorch",
    "leaked",
    "peak MB",
  ];
  return textTable([
    head,
    ...rows.map((row) => [
      row.name,
      row.medianMs.toFixed(1),
      row.bestMs.toFixed(1),
      row.cpuMs.toFixed(1),
      orDash(row.timesFasterThanStock, 2, "x faster"),
      orDash(row.timesSlowerThanPyTorch, 2, "x its time"),
      orDash(row.leakedTensorsPerStep, 1),
      row.peakRssFirstStepMb.toFixed(0),
    ]),
  ]);
}

function barsOf(rows: GptRow[]): Bar[] {
  const find = (id: string) => rows.find(({ peer }) => peer === id);
  const [blas, own] = [find("blas-node"), find("own-node")];
  const bar = (
    name: string,
    value: number | null | undefined,
    passes: (value: number) => boolean,
    unit: string,
  ): Bar => ({
    name,
    measured: value === null || value === undefined
      ? "-"
      : `${value.toFixed(2)}${unit}`,
    verdict: value === null || value === undefined
      ? "not measured"
      : passes(value)
      ? "pass"
      : "miss",
  });
  const engines = [blas, own].filter((row) => row !== undefined);
  const worst = (f: (row: GptRow) => number | null) => {
    const values = engines.map(f).filter((v) => v !== null);
    return values.length === 0 ? null : Math.max(...values);
  };
  return [
    bar(
      `with BLAS: at most ${BARS.slowerThanPyTorch}x PyTorch's time`,
      blas?.timesSlowerThanPyTorch,
      (v) => v <= BARS.slowerThanPyTorch,
      "x",
    ),
    bar(
      `without BLAS: at least ${BARS.fasterThanStock}x faster than stock tfjs wasm`,
      own?.timesFasterThanStock,
      (v) => v >= BARS.fasterThanStock,
      "x",
    ),
    bar(
      "leaked tensors per step: 0",
      worst((row) => row.leakedTensorsPerStep),
      (v) => v === BARS.leakedTensorsPerStep,
      "",
    ),
    bar(
      `peak resident memory of the first step: at most ${BARS.peakRssMb} MB`,
      worst((row) => row.peakRssFirstStepMb),
      (v) => v <= BARS.peakRssMb,
      " MB",
    ),
  ];
}

const barTable = (bars: Bar[]) =>
  textTable([
    ["verdict", "measured", "bar"],
    ...bars.map(({ name, measured, verdict }) => [verdict, measured, name]),
  ]);

/** Squares, and the products of the small GPT's MLP: forward, and both gradients. */
function products(quick: boolean): Product[] {
  const plain = { transposeA: false, transposeB: false };
  const sizes = quick ? [64, 256] : [64, 128, 256, 512, 1024];
  const squares = sizes.map((n) => ({
    ...plain,
    name: `${n} square`,
    m: n,
    n,
    k: n,
  }));
  const { dim: D, tokens, batch } = GPT_CASES[0].size;
  const N = tokens * batch;
  return [
    ...squares,
    { ...plain, name: "x W^T", m: N, n: 4 * D, k: D, transposeB: true },
    { ...plain, name: "dy W", m: N, n: D, k: 4 * D },
    { ...plain, name: "dy^T x", m: 4 * D, n: D, k: N, transposeA: true },
  ];
}

interface GemmRow extends Product {
  /** By peer, 1e9 floating-point operations per second. */
  gflops: Record<string, number>;
}

async function measureGemm(
  all: Peer[],
  { quick, repeats }: Options,
  failures: string[],
): Promise<{ peers: Peer[]; rows: GemmRow[] }> {
  progress("Matrix products");
  const list = products(quick);
  const task = { products: list, milliseconds: quick ? 50 : 300 };
  const turns = await inTurns(
    all,
    repeats,
    failures,
    (peer) =>
      ask<GemmResult>(peer, peer.engine === "pytorch" ? task : { gemm: task }),
    ({ gflops }) => `${Math.max(...gflops).toFixed(1)} GFLOP/s at best`,
  );
  const rows = list.map((product, i): GemmRow => {
    const [first, ...others] = turns.map(({ peer, rounds }) => ({
      name: peer.name,
      check: rounds[0].checks[i],
    }));
    for (const { name, check } of others) {
      if (check === first.check) continue;
      failures.push(
        `Cannot trust the product "${product.name}" as the engines disagree: ${first.name} ${first.check}, ${name} ${check}`,
      );
    }
    const gflops = Object.fromEntries(
      turns.map(({ peer, rounds }) => [
        peer.id,
        median(rounds.map((result) => result.gflops[i])),
      ]),
    );
    return { ...product, gflops };
  });
  return { peers: turns.map(({ peer }) => peer), rows };
}

function gemmTable(peers: Peer[], rows: GemmRow[]): string {
  const ratio = (gflops: Record<string, number>, a: string, b: string) =>
    orDash(gflops[a] / gflops[b] || null, 2, "x");
  return textTable([
    [
      "product",
      "m x n x k",
      ...peers.map(({ name }) => name.replace(/, node$/, "")),
      "BLAS / PyTorch",
      "own / stock",
    ],
    ...rows.map(({ name, m, n, k, gflops }) => [
      name,
      `${m} x ${n} x ${k}`,
      ...peers.map(({ id }) => gflops[id].toFixed(1)),
      ratio(gflops, "blas-node", "pytorch"),
      ratio(gflops, "own-node", "stock-node"),
    ]),
  ], { width: 160 });
}

/** Where the result stands: the published place with --save, else the cache. */
function resultPath(name: string, { save }: Options): string {
  return save
    ? join(projectRoot(), "data", "bench", `${name}.json`)
    : join(cacheFolder(), "bench", `${name}.json`);
}

async function bench(options: Options): Promise<number> {
  const provenance = {
    date: new Date().toISOString(),
    ...gitState(),
    machine: machineInfo(),
    quick: options.quick,
    repeats: options.repeats,
  };
  const report: Record<string, unknown> = { provenance };
  const failures: string[] = [];
  const write = (name: string, part: object) => {
    report[name] = part;
    const path = resultPath(name, options);
    writeAtomic(path, JSON.stringify({ ...part, provenance }, null, 2) + "\n");
  };

  const runs = (part: Options["only"]) =>
    options.only === undefined || options.only === part;
  if (runs("gpt")) {
    const { peers, absent } = await findPeers("gpt");
    const rows: GptRow[] = [];
    for (const gpt of GPT_CASES) {
      const some = await measureGpt(gpt, peers, options, failures);
      rows.push(...some);
      console.log(`\nGPT training step, ${gpt.id} ${JSON.stringify(gpt.size)}`);
      console.log(gptTable(some) + "\n");
      failures.push(...lossDifferences(some));
    }
    for (const line of absent) console.log(`absent: ${line}`);
    const bars = barsOf(rows.filter((row) => row.case === GPT_CASES[0].id));
    console.log(`Bars (${GPT_CASES[0].id}, Node)\n${barTable(bars)}\n`);
    write("gpt", { cases: GPT_CASES, rows, bars, absent });
    if (options.save) updateReadme();
  }
  if (runs("gemm")) {
    const { peers: all, absent } = await findPeers("gemm");
    const { peers, rows } = await measureGemm(all, options, failures);
    console.log(`\nMatrix products, GFLOP/s\n${gemmTable(peers, rows)}\n`);
    write("gemm", { rows, absent });
  }
  if (runs("flow")) {
    const { rows, absent } = await measureFlows(options, progress);
    const growth = exponents(rows);
    console.log(`\nSuperFlow, RTL to checked GDSII, one process each`);
    console.log(textTable(flowTable(rows)));
    for (const line of absent) console.log(`absent: ${line}`);
    const shown = Object.entries(growth).map(([name, p]) =>
      `${name} ${p.toFixed(2)}`
    );
    console.log(`Exponents over cells: ${shown.join(", ")}\n`);
    write("flow", { rows, exponents: growth, absent });
  }
  if (runs("superbnn")) {
    const rows = await measureSimulator(options, progress);
    console.log(`\nSupeRBNN simulator, MLP 784-256-256-10, one core`);
    console.log(textTable(simulatorTable(rows)) + "\n");
    write("superbnn", { rows });
  }
  if (runs("lca")) {
    const rows = measureLca(options, progress);
    console.log(`\nLife-cycle engine, one core`);
    console.log(textTable(lcaTable(rows)) + "\n");
    write("lca", { rows });
  }
  if (runs("quant")) {
    const shapes = await measureIntegers();
    console.log(`\nLinear layers in integers\n${integerTable(shapes)}\n`);
    const quant = await measureQuant(options, progress);
    console.log(`Inference of LLaMA-58M, ${quant.prompt} tokens, one thread`);
    console.log(textTable(quantTable(quant.rows), { width: 200 }));
    for (const line of quant.absent) console.log(`absent: ${line}`);
    for (const { name, measured, verdict } of quant.bars) {
      console.log(`${verdict}: ${name}: ${measured}`);
    }
    write("quant", { shapes, ...quant });
  }
  if (options.json !== undefined) {
    writeAtomic(options.json, JSON.stringify(report, null, 2) + "\n");
  }
  if (failures.length > 0) {
    for (const failure of failures) console.error(failure);
    return 1;
  }
  return 0;
}

main(() => {
  const program = new Command("bench")
    .description(
      "Speed of the engine beside stock tfjs and PyTorch, of the SuperFlow, of SupeRBNN's simulator, of the life-cycle engine and of integer inference",
    )
    .addArgument(new Argument("[part]", "one part only").choices(PARTS))
    .addOption(new Option("--only <part>", "one part").choices(PARTS))
    .option("--quick", "few steps, one round, small sizes", false)
    .option(
      "--repeats <n>",
      "rounds (default 5, quick 1)",
      positiveInteger("--repeats"),
    )
    .option("--json <file>", "also write everything to this file")
    .option("--save", "write to data/bench/ instead of .cache/bench/", false)
    .parse();
  const given = program.opts<Omit<Options, "repeats"> & { repeats?: number }>();
  const repeats = given.repeats ?? (given.quick ? 1 : 5);
  const only = (program.processedArgs[0] as Options["only"]) ?? given.only;
  return bench({ ...given, only, repeats });
});
