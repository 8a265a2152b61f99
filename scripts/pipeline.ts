/**
 * What `reproduce` does: data packages, runs in the pool, result sets, claims and verdicts,
 * notebooks, site. `scripts/reproduce.ts` and `scripts/run.ts` are its two doors.
 */
import { existsSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join, relative, resolve } from "node:path";
import process from "node:process";
import { SingleBar } from "cli-progress";
import { Command, CommanderError } from "commander";
import {
  type ClaimsFile,
  formatMeasurement,
  formatValue,
  judge,
  loadClaims,
  type VerdictRow,
  verdictRows,
} from "../lib/core/claims.ts";
import { codeInfo, gitState, hashFiles } from "../lib/core/provenance.ts";
import { measureLocal } from "../lib/core/report.ts";
import {
  cacheFolder,
  contentHash,
  type Experiment,
  loadSummary,
  type Measurement,
  type Profile,
  profiles,
  projectRoot,
  readArtifact,
  type ResultSet,
  type RunRecord,
  summarise,
  summaryPath,
  writeAtomic,
  writeSummary,
} from "../lib/core/runs.ts";
import {
  experimentFile,
  experiments,
  loadExperiment,
  preparations,
} from "../lib/experiments/index.ts";
import {
  applyOverrides,
  didYouMean,
  duration,
  isExpected,
  positiveInteger,
  textTable,
  wrap,
} from "./cli.ts";
import { installData } from "./install-data.ts";
import {
  type Outcome,
  type Plan,
  planRuns,
  runPool,
  type Task,
} from "./pool.ts";

interface Options {
  profile: Profile;
  set: string[];
  seeds?: number;
  jobs: number;
  fresh: boolean;
  list: boolean;
  notebook: boolean;
  site: boolean;
  allowDirty: boolean;
  arm?: string;
  seed?: number;
}

/** A paper on its way through the pipeline. */
interface Paper {
  source: string;
  experiment: Experiment;
  overrides: string[];
  plan: Plan;
}

/** The command line of `reproduce`, and of `run` with its two options more. */
function commandLine(door: "reproduce" | "run"): Command {
  const command = new Command(door)
    .description(
      door === "reproduce"
        ? "Reproduces papers: runs, verdicts, notebooks, site. All papers if none is named."
        : "Runs one paper, or one arm of it. A file or - instead of a name is the spec of a single run.",
    )
    .argument("[papers...]", "names of papers; --list shows them")
    .option("--profile <name>", "smoke, quick or full", "quick")
    .option(
      "--set <key=value>",
      "change the config, e.g. --set rank=16 (repeatable)",
      (value: string, all: string[]) => [...all, value],
      [],
    )
    .option("--seeds <n>", "number of seeds", positiveInteger("--seeds"))
    .option(
      "--jobs <n>",
      "processes at once",
      positiveInteger("--jobs"),
      availableParallelism(),
    )
    .option("--fresh", "compute every run, whatever is cached", false)
    .option("--list", "list the papers", false)
    .option("--no-notebook", "leave the notebooks as they are")
    .option("--no-site", "leave the site as it is")
    .option(
      "--allow-dirty",
      "publish full runs although files differ from the commit",
      false,
    );
  if (door === "run") {
    command
      .option("--arm <id>", "only this arm and those that it needs")
      .option("--seed <n>", "only this seed of the arm", Number);
  }
  return command.exitOverride().configureOutput({ writeErr: () => {} });
}

/** Parses the arguments; null if only help was asked for. */
function parseArguments(
  args: string[],
  door: "reproduce" | "run",
): { names: string[]; options: Options } | null {
  const command = commandLine(door);
  try {
    command.parse(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return null;
    const text = error.message.replace(/^error: /, "").replace(
      /\s*\n\s*/g,
      " ",
    );
    throw new RangeError(
      `Cannot read the command line: ${text} (--help lists the options)`,
    );
  }
  const options = command.opts<Options>();
  if (!profiles.includes(options.profile)) {
    throw new RangeError(
      `Cannot use profile "${options.profile}"${
        didYouMean(options.profile, [...profiles])
      }: profiles are ${profiles.join(", ")}`,
    );
  }
  return { names: command.args, options };
}

/** Checks the names against the registry; all papers if none is given. */
function selectPapers(names: string[]): string[] {
  const known = Object.keys(experiments);
  for (const name of names) {
    if (!Object.hasOwn(experiments, name) && !name.endsWith(".ts")) {
      throw new RangeError(
        `Cannot find paper "${name}"${
          didYouMean(name, known)
        }: known papers are ${known.join(", ")}`,
      );
    }
  }
  return names.length === 0
    ? known.filter((name) => !preparations.includes(name))
    : [...new Set(names)];
}

/** `--seeds n` as an override of the config's `seeds`, be it a count or a list. */
function seedsOverride(config: object, seeds: number | undefined): string[] {
  if (seeds === undefined) return [];
  const old = (config as { seeds?: unknown }).seeds;
  if (typeof old === "number") return [`seeds=${seeds}`];
  const list = Array.from({ length: seeds }, (_, i) => i + 1);
  return [`seeds=${Array.isArray(old) ? JSON.stringify(list) : seeds}`];
}

/** Loads an experiment and plans its runs under the options. */
async function planPaper(source: string, options: Options): Promise<Paper> {
  const experiment = await loadExperiment(source);
  const defaults = experiment.profiles[options.profile];
  const overrides = [
    ...options.set,
    ...seedsOverride(defaults, options.seeds),
  ];
  const config = applyOverrides(defaults, overrides);
  const plan = await planRuns(source, experiment, options.profile, config);
  return { source, experiment, overrides, plan };
}

/** The tasks of one arm (one seed of it, if given) and of all it needs. */
function tasksOfArm(paper: Paper, arm: string, seed?: number): Task[] {
  const { arms, tasks } = paper.plan;
  const index = arms.findIndex((a) => a.id === arm);
  if (index < 0) {
    const ids = arms.map((a) => a.id);
    throw new RangeError(
      `Cannot find arm "${arm}"${didYouMean(arm, ids)}: known arms are ${
        ids.join(", ")
      }`,
    );
  }
  const wanted = tasks[index].filter((t) =>
    seed === undefined || t.spec.seed === seed
  );
  if (wanted.length === 0) {
    throw new RangeError(
      `Cannot find seed ${seed} of arm "${arm}": its seeds are ${
        arms[index].seeds.join(", ")
      }`,
    );
  }
  const closure = (task: Task): Task[] => [
    ...task.needs.flatMap(closure),
    task,
  ];
  return [...new Set(wanted.flatMap(closure))];
}

/** A bar on a terminal, a line per finished run elsewhere. */
function reporter(): {
  onChange: (
    state: { fraction: number; toCompute: number; computed: number },
  ) => void;
  say: (message: string) => void;
  finishRun: (task: Task, outcome: Outcome) => void;
  stop: () => void;
} {
  const start = performance.now();
  const terminal = process.stderr.isTTY === true;
  const bar = terminal
    ? new SingleBar({
      format: "{bar} {done}/{runs} runs | {left}",
      stream: process.stderr,
      hideCursor: false,
      clearOnComplete: true,
      fps: 4,
    })
    : null;
  let started = false;
  const say = (message: string) => {
    if (started) process.stderr.write("\r\x1b[K");
    console.log(message);
  };
  return {
    say,
    onChange({ fraction, toCompute, computed }) {
      if (bar === null || toCompute === 0) return;
      const elapsed = (performance.now() - start) / 1000;
      const left = fraction < 0.02
        ? "estimating the time left"
        : `${duration(elapsed * (1 - fraction) / fraction)} left`;
      const payload = { done: computed, runs: toCompute, left };
      if (!started) bar.start(1, 0, payload);
      started = true;
      bar.update(Math.min(fraction, 0.999), payload);
    },
    finishRun(task, outcome) {
      if ("record" in outcome) {
        if (bar === null && outcome.status === "computed") {
          const { seconds } = outcome.record.provenance;
          say(`  ${task.name}: ${duration(seconds)}`);
        }
      } else {
        say(`  ${task.name}: ${outcome.status}. ${outcome.message}`);
      }
    },
    stop() {
      if (started) bar?.stop();
    },
  };
}

/** How many runs came from the cache, and how old they are: "84 runs, all cached, 3 min old". */
function cacheLine(name: string, outcomes: Outcome[]): string {
  const cached = outcomes.flatMap((o) =>
    o.status === "cached" ? [o.record] : []
  );
  if (cached.length === 0) return `${name}: ${outcomes.length} runs`;
  const ages = cached
    .map((r) => (Date.now() - Date.parse(r.provenance.startedAt)) / 1000)
    .sort((a, b) => a - b);
  const youngest = duration(ages[0]);
  const oldest = duration(ages[ages.length - 1]);
  const age = youngest === oldest ? youngest : `${youngest} to ${oldest}`;
  const share = cached.length === outcomes.length ? "all" : cached.length;
  return `${name}: ${outcomes.length} runs, ${share} cached (${age} old)`;
}

/** Writes the result set of a paper whose runs are all there. */
function publishSet(
  paper: Paper,
  outcomes: Map<string, Outcome>,
  profile: Profile,
  command: string,
): { set: ResultSet; records: RunRecord[][] } {
  const { plan, experiment, overrides } = paper;
  const records = plan.tasks.map((tasks) =>
    tasks.map((task) => {
      const outcome = outcomes.get(task.key)!;
      return (outcome as { record: RunRecord }).record;
    })
  );
  const set = summarise(experiment, plan.arms, records, {
    profile,
    config: plan.config,
    git: gitState(),
    command,
    overrides,
  });
  writeSummary(set);
  return { set, records };
}

/** Lets an experiment write what its full profile leaves under data/models/. */
async function publishModels(
  paper: Paper,
  set: ResultSet,
  records: RunRecord[][],
): Promise<void> {
  const folder = join(projectRoot(), "data", "models");
  await paper.experiment.publish?.({
    arms: set.arms,
    provenance: set.provenance,
    readArtifact(arm, name, seed) {
      const record = records.flat().find((r) =>
        r.spec.arm === arm && (seed === undefined || r.spec.seed === seed)
      );
      if (record === undefined) {
        throw new RangeError(
          `Cannot read artefact "${name}" as there is no run of arm "${arm}"${
            seed === undefined ? "" : ` with seed ${seed}`
          }`,
        );
      }
      return readArtifact(record, name);
    },
    write(path, bytes) {
      const target = resolve(folder, path);
      if (relative(folder, target).startsWith("..")) {
        throw new RangeError(
          `Cannot publish as the file must lie in data/models: ${path}`,
        );
      }
      writeAtomic(target, bytes);
      console.log(`  wrote data/models/${path}`);
    },
  });
}

/** Where and when a set was made: "2026-11-23, Intel Xeon, 2 cores, commit 1a2b3c4". */
export function origin(set: ResultSet): string {
  const { startedAt, machine, commit, dirty } = set.provenance;
  const state = dirty === true ? " with uncommitted changes" : "";
  return `${
    startedAt.slice(0, 10)
  }, ${machine.cpu}, ${machine.cores} cores, commit ${
    commit.slice(0, 7)
  }${state}`;
}

/** The verdict table of one paper as text. */
export function verdictText(
  paper: ClaimsFile["paper"],
  rows: VerdictRow[],
  recorded: string,
  local: string,
): string {
  const cell = (m: Measurement | null) =>
    m === null ? "-" : formatMeasurement(m);
  const table = textTable([
    [
      "claim",
      "paper",
      "recorded full run",
      "this machine",
      "fidelity",
      "verdict (recorded run)",
      "verdict (this machine)",
    ],
    ...rows.map(({ claim, recorded, local, verdict }) => [
      claim.id,
      claim.value === null
        ? claim.direction
        : formatValue(claim.value, claim.unit, {
          signed: claim.rule?.kind === "direction",
        }),
      cell(recorded),
      cell(local),
      claim.fidelity,
      verdict,
      local === null ? "-" : judge(claim, { [claim.id]: local }).verdict,
    ]),
  ], { width: 230 });
  const why = rows.map(({ claim, sentence, recorded, local }) => {
    const here = recorded === null && local !== null
      ? `. This machine's run alone: ${
        judge(claim, { [claim.id]: local }).sentence
      }`
      : "";
    return wrap(`${claim.id}: ${sentence}${here}`, 94).join("\n    ");
  });
  return [
    "",
    `${paper.title} (${paper.citation})`,
    `  recorded full run: ${recorded}`,
    `  this machine: ${local}`,
    "",
    ...table.split("\n").map((line) => `  ${line}`),
    "",
    ...why.map((line) => `  ${line}`),
  ].join("\n");
}

/**
 * Claims of a registered paper; those of a module of the reader's own lie beside it as
 * <module>.claims.json.
 */
function claimsOf(experiment: Experiment, source: string): ClaimsFile | null {
  return source.endsWith(".ts")
    ? loadClaims(experiment.name, resolve(source.replace(/ts$/, "claims.json")))
    : loadClaims(experiment.name);
}

/** Judges a paper's claims on its recorded full run and prints the table. */
function printVerdicts(paper: Paper, set: ResultSet): void {
  const { experiment, source } = paper;
  const claims = claimsOf(experiment, source);
  if (claims === null) {
    console.log(`${experiment.name}: no claims file, so no verdicts`);
    return;
  }
  const full = loadSummary(experiment.name, "full");
  const measure = (s: ResultSet) =>
    experiment.measure(s.arms, s.config as object);
  const rows = verdictRows(
    claims,
    measureLocal(experiment, full),
    measure(set),
  );
  const current = codeInfo(experimentFile(source)).hash;
  const earlier = full !== null && full.provenance.codeHash !== current
    ? " (the code has changed since)"
    : "";
  const changes = set.overrides.length === 0
    ? ""
    : ` with ${set.overrides.join(", ")}`;
  console.log(verdictText(
    claims.paper,
    rows,
    full === null ? "none" : origin(full) + earlier,
    `${set.profile} profile${changes}, ${origin(set)}`,
  ));
}

/** Lists the papers with their titles. */
async function listPapers(): Promise<void> {
  const rows = await Promise.all(
    Object.keys(experiments).map(async (name) => {
      const { title, citation } = await loadExperiment(name);
      return [name, `${title} (${citation})`];
    }),
  );
  console.log(textTable([["paper", "title"], ...rows]));
}

/**
 * Executes a paper's notebook, unless it, the library and the results that it reads are the same as
 * last time. The copy with outputs goes to .cache/notebooks; the full profile updates notebooks/.
 */
async function executeNotebook(paper: Paper, options: Options): Promise<void> {
  const root = projectRoot();
  const { name } = paper.experiment;
  const path = join(root, "notebooks", `${name}.ipynb`);
  if (!existsSync(path)) return;
  const { explainFailure, readNotebook, runNotebook, serialise } = await import(
    "./notebook.ts"
  );
  const { profile } = options;
  const stamp = contentHash([
    profile,
    readNotebook(path).cells.map((cell) => cell.source),
    codeInfo(join(root, "lib", "mod.ts"), { reports: true }).hash,
    codeInfo(experimentFile(paper.source), { reports: true }).hash,
    loadClaims(name),
    hashFiles(["data/models"]),
    ...[profile, "full" as const].map((p) =>
      loadSummary(name, p)?.arms ?? null
    ),
  ]);
  const copy = join(cacheFolder(), "notebooks", `${name}.ipynb`);
  const stampFile = `${copy}.${profile}.stamp`;
  const known = existsSync(stampFile) && existsSync(copy)
    ? readFileSync(stampFile, "utf8")
    : "";
  if (known === stamp && !options.fresh) {
    console.log(`${name}: notebook cached`);
    return;
  }
  const run = await runNotebook(path, { profile, write: profile === "full" });
  if (run.failure !== null) {
    throw new Error(
      `Cannot execute the notebook: ${
        explainFailure(relative(root, path), run.failure)
      }`,
    );
  }
  writeAtomic(copy, serialise(run.notebook));
  writeAtomic(stampFile, stamp);
  console.log(
    `${name}: notebook executed in ${duration(run.seconds)}: ${
      relative(root, profile === "full" ? path : copy)
    }`,
  );
}

/**
 * Runs `work` and reports its error as a line, so that the next paper goes on; true if it failed.
 */
async function failed(
  what: string,
  work: () => void | Promise<unknown>,
): Promise<boolean> {
  try {
    await work();
    return false;
  } catch (error) {
    const { message, stack } = error as Error;
    console.error(
      `${what}: ${isExpected(message) ? message : stack ?? message}`,
    );
    return true;
  }
}

/**
 * `reproduce` (all papers, or those named) and `run` (one paper, or one arm); resolves to the
 * exit code.
 */
export async function reproduceMain(
  args: string[],
  door: "reproduce" | "run" = "reproduce",
): Promise<number> {
  const start = performance.now();
  const parsed = parseArguments(args, door);
  if (parsed === null) return 0;
  const { names, options } = parsed;
  if (options.list) {
    await listPapers();
    return 0;
  }
  const selected = selectPapers(names);
  if (door === "run" && selected.length !== 1) {
    throw new RangeError(
      `Cannot run ${selected.length} papers at once as run takes one: ${
        selected.join(", ")
      }; reproduce takes several`,
    );
  }
  const publishing = options.profile === "full" && options.set.length === 0 &&
    options.seeds === undefined && options.arm === undefined;
  if (publishing && !options.allowDirty && gitState().dirty !== false) {
    throw new RangeError(
      "Cannot publish full runs as files differ from the commit (or git is absent): commit first, or give --allow-dirty",
    );
  }

  const papers: Paper[] = [];
  for (const source of selected) papers.push(await planPaper(source, options));
  await installData();

  const report = reporter();
  const stopped = () => {
    report.stop();
    console.error(
      "\nStopped. Finished runs are kept: the same command goes on from here.",
    );
    process.exit(130);
  };
  process.once("SIGINT", stopped);
  const tasks = options.arm === undefined
    ? papers.flatMap((paper) => paper.plan.tasks.flat())
    : tasksOfArm(papers[0], options.arm, options.seed);
  const outcomes = await runPool(tasks, {
    jobs: options.jobs,
    fresh: options.fresh,
    // A full run has a process of its own, so that its peak memory is its own.
    runsPerProcess: options.profile === "full" ? 1 : Infinity,
    onChange: report.onChange,
    onFinish: report.finishRun,
    onMessage: (message) => report.say(`  ${message}`),
  });
  report.stop();
  process.off("SIGINT", stopped);

  if (options.arm !== undefined) {
    const last = outcomes.get(tasks[tasks.length - 1].key)!;
    if ("record" in last) {
      console.log(JSON.stringify(last.record.metrics, null, 1));
    }
    return "record" in last ? 0 : 1;
  }

  const command = `npm run reproduce -- ${args.join(" ")}`.replace(/ -- $/, "");
  let failures = 0;
  const finished: Paper[] = [];
  for (const paper of papers) {
    const own = paper.plan.tasks.flat().map((t) => outcomes.get(t.key)!);
    const { name } = paper.experiment;
    const bad = own.filter((o) => !("record" in o)).length;
    console.log(cacheLine(name, own));
    if (bad > 0) {
      failures++;
      console.error(
        `${name}: ${bad} of ${own.length} runs missing, no verdicts`,
      );
      continue;
    }
    const broken = await failed(name, async () => {
      const { set, records } = publishSet(
        paper,
        outcomes,
        options.profile,
        command,
      );
      if (publishing) await publishModels(paper, set, records);
      const path = summaryPath(name, options.profile, set.overrides.length > 0);
      console.log(`${name}: ${relative(projectRoot(), path)}`);
      printVerdicts(paper, set);
    });
    if (broken) failures++;
    else finished.push(paper);
  }

  const changed = papers.some((paper) => paper.overrides.length > 0);
  if (changed && (options.notebook || options.site)) {
    console.log(
      "Notebooks and site show the profiles as they are: left alone, as --set or --seeds is given",
    );
  }
  for (const paper of options.notebook && !changed ? finished : []) {
    const { name } = paper.experiment;
    const broken = await failed(
      `notebook ${name}`,
      () => executeNotebook(paper, options),
    );
    if (broken) failures++;
  }
  if (options.site && !changed) {
    const build = async () => {
      const { buildSite } = await import("./site.ts"); // loads plotly
      await buildSite(names.length === 0 ? {} : { wanted: names });
    };
    if (await failed("site", build)) failures++;
    else console.log(`Site: ${join("site", "index.html")}`);
  }
  console.log(
    `${failures === 0 ? "Done" : `Done with ${failures} failure(s)`} in ${
      duration((performance.now() - start) / 1000)
    }`,
  );
  return failures === 0 ? 0 : 1;
}
