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
import { writeAtomic } from "../lib/core/runs.ts";
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
  top?: string;
  format?: SourceFormat;
  library?: string;
  clock?: string;
  placer: PlacementMethod;
  router: Router;
  stopAfter: Stage;
  keepBalanced: boolean;
  maxLevelsPerHop: string;
  maxWire?: string;
  effort: string;
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

/** The report as a table for the terminal. */
function summary(report: FlowReport): string {
  const { synthesis, legalisation, placement, routing, seconds } = report;
  const took = (stage: Stage) => `${(seconds[stage] ?? 0).toFixed(1)} s`;
  const um = (x: number) => `${Math.round(x).toLocaleString("en")} um`;
  const rows = [[
    "synthesis",
    took("synthesis"),
    `${synthesis.gates} gates, ${synthesis.depth} deep`,
  ]];
  if (legalisation) {
    rows.push([
      "legalisation",
      took("legalisation"),
      `${legalisation.buffersAndSplitters} buffers and splitters, ${legalisation.jj} JJ, ${legalisation.depth} phases, ${legalisation.wavesInFlight} waves in flight`,
    ]);
  }
  if (placement) {
    rows.push([
      "placement",
      took("placement"),
      `${um(placement.hpwlUm)} along the rows, longest ${
        um(placement.longestNetUm)
      }, worst slack ${
        placement.worstSlackPs.toFixed(1)
      } ps before routing (clock ${report.clock.name}: ${report.clock.note}), ${placement.bufferRows} buffer rows added`,
    ]);
  }
  if (routing) {
    rows.push([
      "routing",
      took("routing"),
      `${routing.tracks} tracks (at least ${routing.tracksLowerBound}), ${routing.vias} vias, ${
        um(routing.wirelengthUm)
      } of wire, worst slack ${routing.worstSlackPs.toFixed(1)} ps, ${
        routing.areaMm2.toFixed(2)
      } mm2; no design rule violation, layout equal to netlist, equivalent to the source`,
    ]);
  }
  return textTable(rows);
}

async function run(path: string, options: Options): Promise<void> {
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
    throw error;
  } finally {
    bar.stop();
  }
  const files = filesOf(result, library);
  for (const [name, content] of Object.entries(files)) {
    writeAtomic(join(options.out, name), content);
  }
  console.log(summary(result.report));
  const warnings = result.report.checks.filter((text) =>
    text.startsWith("warning")
  );
  for (const warning of warnings) console.error(warning);
  console.log(`Written to ${options.out}: ${Object.keys(files).join(", ")}`);
}

const program = new Command("superflow")
  .description("synthesise, place and route an AQFP circuit, and verify it")
  .argument("<design>", "Verilog RTL or netlist (.v), BLIF or AIGER file")
  .requiredOption("-o, --out <folder>", "where to write")
  .option("--top <module>", "top module")
  .addOption(
    new Option("--format <name>", "format of the source").choices([
      "verilog",
      "blif",
      "aiger",
      "netlist",
    ]),
  )
  .option("--library <file>", "cell library as JSON")
  .option("--clock <file>", "numbers of the clock model to replace, as JSON")
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
    false,
  )
  .option("--effort <n>", "how many times as long to search a placement", "1")
  .option(
    "--max-levels-per-hop <n>",
    "phase skipping: levels that one connection may lead on, with a clock of 4 n phases; above 1 only with --stop-after legalisation",
    "1",
  )
  .option("--max-wire <um>", "longest net allowed (um)")
  .option("--seed <n>", "seed", "1")
  .action((path: string, options: Options) => main(() => run(path, options)));

await program.parseAsync();
