/**
 * From a design's source to a checked layout of an AQFP chip.
 *
 *   deno run -A scripts/superflow.ts design.v -o out/
 *   node --import tsx scripts/superflow.ts design.v -o out/ --placer annealing --seed 2
 *
 * Writes into the folder, all at once when everything has been verified: <name>.gds, the netlist as
 * Verilog with models of its cells (<name>.aqfp.v), the placement (<name>.placement.json), a picture
 * (<name>.svg), names and colours of the layers for KLayout (<name>.lyp) and the report (<name>.json).
 */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  rmdirSync,
  statSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { Command, Option } from "commander";
import { SingleBar } from "cli-progress";
import { DEFAULT_LIBRARY } from "../lib/core/aqfp.ts";
import { cellModels, writeVerilog } from "../lib/core/formats/verilog.ts";
import { key } from "../lib/core/rng.ts";
import { projectRoot, writeAtomic } from "../lib/core/runs.ts";
import { DEFAULT_CLOCK } from "../lib/superflow/clock.ts";
import {
  placementFile,
  readClock,
  readLibrary,
} from "../lib/superflow/files.ts";
import {
  type FlowReport,
  type FlowResult,
  type Stage,
  STAGES,
  superflow,
} from "../lib/superflow/flow.ts";
import {
  PLACEMENT_METHODS,
  type PlacementMethod,
} from "../lib/superflow/placement.ts";
import type { Router } from "../lib/superflow/routing.ts";
import type { SourceFormat } from "../lib/superflow/synthesis.ts";
import { chipSvg, layerProperties } from "../lib/superflow/view.ts";
import { main, positiveInteger, textTable } from "./cli.ts";

interface Options {
  out: string;
  printLibrary?: boolean;
  printClock?: boolean;
  top?: string;
  format?: SourceFormat;
  library?: string;
  clock?: string;
  placer: PlacementMethod;
  router: Router;
  stopAfter: Stage;
  keepBalanced?: boolean;
  maxLevelsPerHop: string;
  maxWire?: string;
  effort: string;
  maxGates: string;
  seed: string;
}

/** Parsed JSON of a file. */
function readJson(path: string): unknown {
  if (!existsSync(path)) {
    throw new RangeError(`Cannot read ${path} as there is no such file`);
  }
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new SyntaxError(
      `Cannot read ${path} as it is not JSON: ${(error as Error).message}`,
    );
  }
}

/**
 * Makes a folder and those above it, one by one: Node's own recursion never ends below /proc.
 *
 * @returns What was made, the innermost first.
 */
function makeFolder(path: string): string[] {
  if (existsSync(path)) {
    if (statSync(path).isDirectory()) return [];
    throw new RangeError(
      `Cannot write to ${path} as it must be a folder: it is a file`,
    );
  }
  const above = makeFolder(dirname(path));
  mkdirSync(path);
  return [path, ...above];
}

/** What the flow leaves on disk, by file name. */
function filesOf(
  { levelled, netlist, placed, routed, gds, report }: FlowResult,
  library: typeof DEFAULT_LIBRARY,
): Record<string, string | Uint8Array> {
  const name = report.design.replace(/[^\w.-]/g, "_");
  const last = placed ?? levelled ?? netlist;
  const json = (value: unknown) => JSON.stringify(value, null, 1) + "\n";
  return {
    [`${name}.aqfp.v`]: `${writeVerilog(last)}\n${cellModels(last)}`,
    ...(placed && {
      [`${name}.placement.json`]: json(placementFile(placed, library)),
    }),
    ...(gds && {
      [`${name}.gds`]: gds,
      [`${name}.lyp`]: layerProperties(library),
    }),
    ...(routed && { [`${name}.svg`]: chipSvg(routed) }),
    [`${name}.json`]: json(report),
  };
}

/** "1 wave", "2 waves". */
function count(n: number, one: string, several = `${one}s`): string {
  return `${n.toLocaleString("en")} ${n === 1 ? one : several}`;
}

/** The report as a table for the terminal. */
function summary(report: FlowReport): string {
  const { synthesis, legalisation, placement, routing, seconds } = report;
  const took = (stage: Stage) => `${(seconds[stage] ?? 0).toFixed(1)} s`;
  const um = (x: number) => `${Math.round(x).toLocaleString("en")} um`;
  const rows = [[
    "synthesis",
    took("synthesis"),
    `${count(synthesis.gates, "gate")}, ${synthesis.depth} deep`,
  ]];
  if (legalisation) {
    rows.push([
      "legalisation",
      took("legalisation"),
      `${
        count(
          legalisation.buffersAndSplitters,
          "buffer or splitter",
          "buffers and splitters",
        )
      }, ${count(legalisation.jj, "JJ", "JJ")}, ${
        count(legalisation.depth, "level")
      } between the ports, ${
        count(legalisation.wavesInFlight, "wave")
      } in flight`,
    ]);
  }
  if (placement) {
    rows.push([
      "placement",
      took("placement"),
      `${um(placement.hpwlUm)} along the rows, longest net ${
        um(placement.longestNetUm)
      } with a row pitch of ${report.clock.rowPitchUm} um, worst slack ${
        placement.worstSlackPs.toFixed(1)
      } ps before routing, ${count(placement.bufferRows, "buffer row")} added${
        placement.overlongNets > 0
          ? `, ${count(placement.overlongNets, "net")} above the limit`
          : ""
      }`,
    ]);
  }
  if (routing) {
    rows.push([
      "routing",
      took("routing"),
      `${
        count(routing.tracks, "track")
      } (at least ${routing.tracksLowerBound}), ${
        count(routing.vias, "via")
      }, ${um(routing.wirelengthUm)} of wire, longest ${
        um(routing.longestNetUm)
      } as drawn, worst slack ${routing.worstSlackPs.toFixed(1)} ps, ${
        routing.areaMm2.toPrecision(3)
      } mm2; no design rule violation, layout equal to netlist, equivalent to the source`,
    ]);
  }
  return textTable(rows);
}

/** What this program calls the options that a message of the library names. */
const COMMAND_NAMES: Record<string, string> = {
  keepBalanced: "--keep-balanced",
  maxLevelsPerHop: "--max-levels-per-hop",
  maxGates: "--max-gates",
  maxWireUm: "--max-wire",
  stopAfter: "--stop-after",
};

/** The same error in the words of the command line. */
function inCommandWords(error: unknown): unknown {
  if (error instanceof Error) {
    for (const [name, option] of Object.entries(COMMAND_NAMES)) {
      error.message = error.message.replaceAll(
        new RegExp(`\\b${name}\\b`, "g"),
        option,
      );
    }
  }
  return error;
}

/** Names in the folder that an earlier run of the same design wrote and this one did not. */
function olderFiles(folder: string, written: string[]): string[] {
  const name = written[0].replace(/\.aqfp\.v$/, "");
  return [".gds", ".lyp", ".placement.json", ".svg"]
    .map((ending) => name + ending)
    .filter((file) =>
      !written.includes(file) && existsSync(join(folder, file))
    );
}

async function run(
  path: string | undefined,
  options: Options,
): Promise<void> {
  if (options.printLibrary || options.printClock) {
    const printed = options.printLibrary ? DEFAULT_LIBRARY : DEFAULT_CLOCK;
    console.log(JSON.stringify(printed, null, 1));
    return;
  }
  if (path === undefined) {
    throw new RangeError(
      "Cannot run the flow as a design is required, such as data/rtl/adder8.v: none given; --help tells all",
    );
  }
  const library = options.library === undefined
    ? DEFAULT_LIBRARY
    : readLibrary(readJson(options.library));
  const clock = options.clock === undefined
    ? DEFAULT_CLOCK
    : readClock(readJson(options.clock));
  const maxWireUm = options.maxWire === undefined
    ? undefined
    : positiveInteger("--max-wire")(options.maxWire);
  // Before the work, so that an hour of it is not lost to a wrong name.
  const made = makeFolder(resolve(options.out));
  const bar = new SingleBar({
    format: "{bar} {stage}",
    noTTYOutput: false,
    hideCursor: true,
  });
  if (process.stderr.isTTY) bar.start(STAGES.length, 0, { stage: "" });
  let result: FlowResult;
  try {
    result = await superflow({
      path,
      top: options.top,
      format: options.format,
    }, {
      library,
      clock,
      key: key(positiveInteger("--seed")(options.seed)),
      stopAfter: options.stopAfter,
      keepBalanced: options.keepBalanced,
      synthesis: {
        maxGates: positiveInteger("--max-gates")(options.maxGates),
      },
      insertion: {
        maxLevelsPerHop: positiveInteger("--max-levels-per-hop")(
          options.maxLevelsPerHop,
        ),
      },
      placement: {
        method: options.placer,
        effort: positiveInteger("--effort")(options.effort),
        ...(maxWireUm !== undefined && { maxWireUm }),
      },
      routing: { router: options.router },
      seconds: () => performance.now() / 1000,
      onProgress: (stage, fraction) =>
        bar.update(STAGES.indexOf(stage) + fraction, { stage }),
    });
  } catch (error) {
    for (const folder of made) rmdirSync(folder);
    throw inCommandWords(error);
  } finally {
    bar.stop();
  }
  const files = filesOf(result, library);
  for (const [name, content] of Object.entries(files)) {
    writeAtomic(join(options.out, name), content);
  }
  const { report } = result;
  console.log(summary(report));
  if (report.placement !== undefined) {
    console.log(
      `Every slack assumes the clock ${report.clock.name}: ${report.clock.note}.`,
    );
  }
  for (const note of report.notes) console.log(`Note: ${note}.`);
  for (const warning of report.checks) {
    if (warning.startsWith("warning")) console.error(warning);
  }
  console.log(`Written to ${options.out}: ${Object.keys(files).join(", ")}`);
  const older = olderFiles(options.out, Object.keys(files));
  if (older.length > 0) {
    console.error(
      `Left in ${options.out} by an earlier run, not of this one: ${
        older.join(", ")
      }`,
    );
  }
}

const HELP = `
Placers: superflow (default) is the analytic placer with timing, longest nets and detailed placement;
taas, gordian, barycentre, median, annealing, topological (order of the netlist) and random are what it
is compared with. Routers: negotiated (default) searches and gives way; left-edge is the
textbook's. On a small design another one may win: try them, all results are checked alike.

Files written, <name> being the top module: <name>.aqfp.v (netlist of AQFP cells and their models, for
simulation and for --keep-balanced), <name>.placement.json, <name>.gds, <name>.lyp (colours: klayout -l
<name>.lyp <name>.gds), <name>.svg, <name>.json (report). Nothing is written unless all is proven.

The design must be combinational: a register is cut open, its value an input, its next value an output.
A library or clock of your own: print ours to a file, change it, give it back.

Examples:
  superflow.ts data/rtl/adder8.v -o out
  superflow.ts --print-clock > clock.json
  superflow.ts data/rtl/alu4.v --clock clock.json --placer annealing --effort 2 -o out

Exit code 0 when all is proven and written, 1 otherwise.`;

const { version } = readJson(
  join(projectRoot(), "package.json"),
) as { version: string };

const program = new Command("superflow")
  .description("synthesise, place and route an AQFP circuit, and verify it")
  .version(version)
  .argument(
    "[design]",
    "Verilog RTL or netlist (.v, .sv), BLIF (.blif) or AIGER (.aag, .aig) file",
  )
  .option("-o, --out <folder>", "where to write", "out")
  .option(
    "--top <module>",
    "top module; needed if several modules are used by no other",
  )
  .addOption(
    new Option(
      "--format <name>",
      "format of the source, by its ending unless given; netlist is Verilog of AQFP cells as this program writes it",
    ).choices(["verilog", "blif", "aiger", "netlist"]),
  )
  .option("--library <file>", "cell library as JSON (see --print-library)")
  .option(
    "--clock <file>",
    "numbers of the clock model to replace, as JSON (see --print-clock)",
  )
  .addOption(
    new Option("--placer <method>", "placement method")
      .choices([...PLACEMENT_METHODS]).default("superflow"),
  )
  .addOption(
    new Option("--router <name>", "router").choices([
      "negotiated",
      "left-edge",
    ]).default("negotiated"),
  )
  .addOption(
    new Option("--stop-after <stage>", "last stage").choices([...STAGES])
      .default("routing"),
  )
  .option(
    "--keep-balanced",
    "keep the buffers and splitters of a balanced netlist",
  )
  .option(
    "--effort <n>",
    "search a placement n times as long, in moves",
    "1",
  )
  .option(
    "--max-levels-per-hop <n>",
    "phase skipping: levels that one connection may lead on, with a clock of 4 n phases; above 1 only with --stop-after legalisation",
    "1",
  )
  .option(
    "--max-wire <um>",
    "longest net allowed (um), along the row and one row pitch of the clock model; buffer rows are added where it is exceeded (default 1000)",
  )
  .option(
    "--max-gates <n>",
    "most gates before minimisation; larger designs are refused as soon as they are counted",
    "30000",
  )
  .option("--seed <n>", "of all that is random: same seed, same bytes", "1")
  .option("--print-library", "print the cell library as JSON and end")
  .option("--print-clock", "print the clock model as JSON and end")
  .addHelpText("after", HELP)
  .action((path: string | undefined, options: Options) =>
    main(() => run(path, options))
  );

await program.parseAsync();
