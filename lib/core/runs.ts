/**
 * Runs and their records: what an experiment is, what one run leaves behind, and how runs become
 * a result set.
 *
 * An experiment has arms (method, rank, learning rate ...); an arm has seeds; arm x seed is a
 * run. A run is a pure function of its spec, a piece of plain JSON: same spec, same code, same
 * machine and backend, same numbers. Everything that reads results (tables, figures, claims,
 * notebooks, site) reads records and sets, which only programs write, and which carry a hash of
 * their own content, so that a truncated or edited file is noticed.
 *
 *   run record   .cache/runs/<experiment>/<key>.json             one run; `key` hashes all that the numbers depend on
 *   artefacts    .cache/runs/<experiment>/<key>/<name>           bytes that a run leaves for the arms that need it
 *   result set   .cache/summaries/<experiment>/<profile>.json    all arms over their seeds
 *                data/runs/<experiment>/full.json                the published set
 *
 * Scope: types, hashing, reading and writing. The clock is passed in; processes live in
 * `scripts/pool.ts`.
 */
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { Key } from "./rng.ts";
import { mean, sd, tInterval } from "./stats.ts";
import type { BackendInfo } from "./tensor.ts";

export type Json =
  | null
  | boolean
  | number
  | string
  | Json[]
  | { [name: string]: Json };

/**
 * How much to compute: `smoke` shows that it runs, `quick` is for this machine now, `full` is
 * what gets published.
 */
export type Profile = "smoke" | "quick" | "full";
export const profiles: readonly Profile[] = ["smoke", "quick", "full"];

/** One arm of an experiment: what one process computes for one seed. Plain JSON. */
export interface Arm {
  id: string;
  config: Record<string, Json>;
  seeds: number[];
  /** Arms whose artefacts it reads: their run of the same seed, or their only one. */
  needs?: string[];
}

/**
 * What a run returns: numbers, and series of numbers such as a loss curve. Timings go to
 * `context.timing`, as they differ from run to run.
 */
export type Metrics = Record<string, number | number[]>;

/** What a run may use besides its config and key. */
export interface RunContext {
  /** Share of the work done, 0 to 1; call it at least once a second. */
  progress(fraction: number, message?: string): void;
  log(message: string): void;
  /** Records a duration (s) or a rate apart from the metrics, since it is not reproducible. */
  timing(name: string, value: number): void;
  /** Seconds since the run began. */
  seconds(): number;
  /** Processor time of the run so far (s): unlike `seconds`, little moved by what else runs. */
  cpuSeconds(): number;
  /** Records the content hash of a data set that the run read. */
  data(name: string, hash: string): void;
  /** Leaves bytes for the arms that need this one. */
  writeArtifact(name: string, bytes: Uint8Array): void;
  /** Bytes left by an arm named in `needs`. */
  readArtifact(arm: string, name: string): Uint8Array;
}

/**
 * What `publish` may use: results of the whole experiment, and a place for files under
 * `data/models/`.
 */
export interface PublishContext {
  arms: ArmSummary[];
  provenance: Provenance;
  readArtifact(arm: string, name: string, seed?: number): Uint8Array;
  /** Writes `data/models/<path>`. */
  write(path: string, bytes: Uint8Array | string): void;
}

/** What a claim's measurement is: a value with its interval, from n seeds. */
export interface Measurement {
  value: number;
  low: number;
  high: number;
  n: number;
  unit: string;
  /** What was compared, in a few words: "RoRA - LoRA at rank 32, 5 seeds, paired". */
  note?: string;
  /** For a trend: the values along it, in order. */
  points?: { x: number; value: number; low?: number; high?: number }[];
  /** Why the experiment reports nothing after all; then the numbers mean nothing. */
  refused?: string;
}

/**
 * A table of results: cells are numbers or text; figures of merit carry their unit in the column
 * title.
 */
export interface ResultTable {
  id: string;
  title: string;
  caption?: string;
  columns: string[];
  rows: (string | number | null)[][];
}

/** A figure as a plain plotly specification. */
export interface FigureSpec {
  id: string;
  title: string;
  caption: string;
  data: Record<string, unknown>[];
  layout: Record<string, unknown>;
}

export interface Experiment<Config extends object = object> {
  name: string;
  title: string;
  citation: string;
  /**
   * Commented default configs; plain JSON. `seeds` (a count or a list) is what `--seeds` changes.
   */
  profiles: Record<Profile, Config>;
  /** "tensor" (default) makes the engine ready before the run; "none" leaves it out. */
  engine?: "tensor" | "none";
  /** Data packages (names in data/package.json) that the runs read; all of them if not given. */
  packages?: string[];
  /**
   * Files or folders, from the project root, whose content the runs depend on besides the data
   * packages.
   */
  inputs?: string[];
  arms(config: Config): Arm[];
  run(
    config: Arm["config"],
    key: Key,
    context: RunContext,
  ): Promise<Metrics> | Metrics;
  /** What each claim measures, by claim id. */
  measure(arms: ArmSummary[], config: Config): Record<string, Measurement>;
  tables?(arms: ArmSummary[], config: Config): ResultTable[];
  figures?(arms: ArmSummary[], config: Config): FigureSpec[];
  /** Writes what the full profile leaves for other experiments, such as a trained model. */
  publish?(context: PublishContext): void | Promise<void>;
}

/** All that a run depends on; plain JSON, so that it can be queued, mailed and run anywhere. */
export interface RunSpec {
  /** A name in the registry, or the path of a module whose default export is an experiment. */
  experiment: string;
  profile: Profile;
  arm: string;
  config: Record<string, Json>;
  seed: number;
  /** Keys of the runs whose artefacts it reads, by arm id. */
  needs: Record<string, string>;
}

/** What the numbers depend on besides the spec; part of the cache key. */
export interface Environment {
  /** Hash of the experiment's module and all it imports. */
  codeHash: string;
  /** Hash of the data packages' lockfile and of the experiment's `inputs`. */
  dataHash: string;
  /** Runtime and packages. */
  versions: Record<string, string>;
  /** Null for an experiment without the tensor engine. */
  backend: BackendInfo | null;
}

export interface Machine {
  cpu: string;
  cores: number;
  memoryGb: number;
  os: string;
}

/** State of the project's files. */
export interface GitState {
  /** "unknown" without git. */
  commit: string;
  /** True if tracked or new files differed from the commit; null without git. */
  dirty: boolean | null;
}

/** Where a result comes from. */
export interface Provenance extends Environment, GitState {
  machine: Machine;
  /** Content hashes of the data sets read, as the runs reported them. */
  data: Record<string, string>;
  /** ISO date and time of the first run's start. */
  startedAt: string;
  /** Process time of all runs together (s). */
  seconds: number;
  /** Largest resident set (MB) of the processes; one of several runs counts them all. */
  peakMemoryMb: number;
  command: string;
}

/** What one run leaves behind. Only finished runs are recorded. */
export interface RunRecord {
  schema: 1;
  status: "done";
  key: string;
  spec: RunSpec;
  metrics: Record<string, number>;
  series: Record<string, number[]>;
  timings: Record<string, number>;
  /** Size and content hash of each artefact. */
  artifacts: Record<string, { sizeBytes: number; hash: string }>;
  provenance: Provenance;
  /** Hash of everything above. */
  hash: string;
}

export interface MetricSummary {
  n: number;
  mean: number;
  sd: number;
  /** 95 % Student-t interval of the mean. */
  low: number;
  high: number;
  /** One value per seed, in the order of `seeds`. */
  values: number[];
}

export interface SeriesSummary {
  n: number;
  mean: number[];
  sd: number[];
}

/** One arm over its seeds. */
export interface ArmSummary {
  id: string;
  config: Record<string, Json>;
  seeds: number[];
  metrics: Record<string, MetricSummary>;
  series: Record<string, SeriesSummary>;
  timings: Record<string, MetricSummary>;
  /** Mean process time of a run (s). */
  seconds: number;
  /** Where this arm's provenance differs from the set's. */
  deviations?: Partial<Provenance>;
}

/** All arms of an experiment over their seeds, with where they come from. */
export interface ResultSet {
  schema: 1;
  experiment: string;
  title: string;
  profile: Profile;
  config: Json;
  /** What `--set` and `--seeds` changed; empty for the profile as it is. */
  overrides: string[];
  arms: ArmSummary[];
  provenance: Provenance;
  /** Hash of everything above. */
  hash: string;
}

/** Text of `value` with sorted keys: equal values have equal texts. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value)
      .filter(([, v]) => v !== undefined)
      .sort(([a], [b]) => a < b ? -1 : 1)
      .map(([k, v]) => `${JSON.stringify(k)}:${canonicalJson(v)}`);
    return `{${entries.join(",")}}`;
  }
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new RangeError(
      `Cannot write JSON as numbers must be finite: ${value}`,
    );
  }
  return JSON.stringify(value);
}

/** SHA-256 of bytes, or of a value's canonical JSON, as 64 hexadecimal digits. */
export function contentHash(value: unknown): string {
  const bytes = value instanceof Uint8Array ? value : canonicalJson(value);
  return createHash("sha256").update(bytes).digest("hex");
}

/** `x` to 7 significant digits: what a published value keeps. */
export function round7(x: number): number {
  return Number(x.toPrecision(7));
}

/** The project folder: where package.json is, two folders above this file. */
export function projectRoot(): string {
  return resolve(dirname(fileURLToPath(import.meta.url)), "../..");
}

/** Folder of caches, `.cache` in the project unless ADIABAT_CACHE names another. */
export function cacheFolder(): string {
  return process.env.ADIABAT_CACHE ?? join(projectRoot(), ".cache");
}

/** The experiment's short name: its registry name, or its module's file name. */
export function experimentName(experiment: string): string {
  return experiment.replace(/^.*[/\\]/, "").replace(/\.ts$/, "");
}

/**
 * Cache key of a run: a hash over all that its numbers depend on.
 *
 * The profile is not part of it: two profiles that ask for the same arm, config and seed share
 * the run.
 */
export function runKey(spec: RunSpec, environment: Environment): string {
  const { arm, config, seed, needs } = spec;
  const experiment = experimentName(spec.experiment);
  const hash = contentHash({
    schema: 1,
    experiment,
    arm,
    config,
    seed,
    needs,
    ...environment,
  });
  return hash.slice(0, 32);
}

/** Path of a run's record; its artefacts are in the folder of the same name without `.json`. */
export function recordPath(experiment: string, key: string): string {
  return join(cacheFolder(), "runs", experimentName(experiment), `${key}.json`);
}

/**
 * Writes a file so that it is either whole or absent: under a temporary name first, then renamed.
 */
export function writeAtomic(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  const temporary = `${path}.tmp-${process.pid}`;
  try {
    writeFileSync(temporary, content);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** The value with a `hash` over the rest of its content. */
export function seal<T extends object>(value: T): T & { hash: string } {
  return { ...value, hash: contentHash({ ...value, hash: undefined }) };
}

/** Parses a sealed file; throws a SyntaxError that says what is wrong with it. */
function readSealed<T extends { hash: string; schema: number }>(
  path: string,
): T {
  let value: T;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new SyntaxError(
      `Cannot read ${path} as it is not whole JSON: ${
        (error as Error).message
      }`,
    );
  }
  if (
    value === null || typeof value !== "object" ||
    typeof value.hash !== "string"
  ) {
    throw new SyntaxError(`Cannot read ${path} as it has no content hash`);
  }
  if (value.hash !== seal(value).hash) {
    throw new SyntaxError(
      `Cannot read ${path} as its content does not fit its hash: it was edited or damaged`,
    );
  }
  if (value.schema !== 1) {
    throw new SyntaxError(
      `Cannot read ${path} as its schema must be 1: schema ${value.schema}`,
    );
  }
  return value;
}

/**
 * Splits what a run returned into single numbers and series; a number that is not finite is an
 * error.
 */
export function splitMetrics(
  metrics: Metrics,
): { metrics: Record<string, number>; series: Record<string, number[]> } {
  const single: Record<string, number> = {};
  const series: Record<string, number[]> = {};
  for (const [name, value] of Object.entries(metrics)) {
    const values = typeof value === "number" ? [value] : value;
    const bad = values.findIndex((x) => !Number.isFinite(x));
    if (bad >= 0) {
      throw new RangeError(
        `Cannot record metric "${name}" as it must be finite: ${values[bad]}`,
      );
    }
    if (typeof value === "number") single[name] = value;
    else series[name] = Array.from(value);
  }
  return { metrics: single, series };
}

/** Writes a finished run's record. */
export function writeRecord(record: Omit<RunRecord, "hash">): RunRecord {
  const sealed = seal(record);
  const path = recordPath(record.spec.experiment, record.key);
  writeAtomic(path, JSON.stringify(sealed, null, 1) + "\n");
  return sealed;
}

/**
 * The record of a run, or null if there is none; throws a SyntaxError if it, or an artefact of
 * it, is damaged.
 */
export function readRecord(experiment: string, key: string): RunRecord | null {
  const path = recordPath(experiment, key);
  if (!existsSync(path)) return null;
  const record = readSealed<RunRecord>(path);
  if (record.key !== key) {
    throw new SyntaxError(
      `Cannot read ${path} as it is the record of another run: key ${record.key}`,
    );
  }
  for (const name of Object.keys(record.artifacts)) readArtifact(record, name);
  return record;
}

/** Bytes of an artefact, checked against the record. */
export function readArtifact(record: RunRecord, name: string): Uint8Array {
  const entry = record.artifacts[name];
  if (entry === undefined) {
    const names = Object.keys(record.artifacts).join(", ") || "none";
    throw new RangeError(
      `Cannot read artefact "${name}" as arm "${record.spec.arm}" left: ${names}`,
    );
  }
  const path = artifactPath(record.spec.experiment, record.key, name);
  if (!existsSync(path)) {
    throw new SyntaxError(`Cannot read artefact ${path} as it is missing`);
  }
  const bytes = new Uint8Array(readFileSync(path));
  if (contentHash(bytes) !== entry.hash) {
    throw new SyntaxError(
      `Cannot read artefact ${path} as its content does not fit the record's hash`,
    );
  }
  return bytes;
}

/** Path of an artefact; a name must be a plain file name. */
export function artifactPath(
  experiment: string,
  key: string,
  name: string,
): string {
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]*$/.test(name)) {
    throw new RangeError(
      `Cannot name an artefact as a plain file name is required: "${name}"`,
    );
  }
  return join(recordPath(experiment, key).replace(/\.json$/, ""), name);
}

/** Mean, spread and interval of one metric over the seeds. */
export function summariseMetric(values: number[]): MetricSummary {
  const { low, high } = tInterval(values);
  return {
    n: values.length,
    mean: round7(mean(values)),
    sd: round7(sd(values)),
    low: round7(low),
    high: round7(high),
    values: values.map(round7),
  };
}

/** Each name's values over the records; a name that some seeds lack is an error. */
function columns<T>(
  records: RunRecord[],
  part: (record: RunRecord) => Record<string, T>,
): [string, T[]][] {
  const names = Object.keys(part(records[0]));
  for (const record of records) {
    const own = Object.keys(part(record));
    if (own.length !== names.length || own.some((n) => !names.includes(n))) {
      throw new RangeError(
        `Cannot summarise arm "${record.spec.arm}" as its seeds report different metrics: ${
          names.join(", ")
        } and ${own.join(", ")}`,
      );
    }
  }
  return names.map((name) => [name, records.map((r) => part(r)[name])]);
}

/** Mean and spread of a series at each of its points. */
function summariseSeries(name: string, rows: number[][]): SeriesSummary {
  const length = rows[0].length;
  if (rows.some((row) => row.length !== length)) {
    throw new RangeError(
      `Cannot summarise series "${name}" as its length differs between seeds: ${
        rows.map((row) => row.length).join(", ")
      }`,
    );
  }
  const at = (i: number) => rows.map((row) => row[i]);
  return {
    n: rows.length,
    mean: Array.from({ length }, (_, i) => round7(mean(at(i)))),
    sd: Array.from({ length }, (_, i) => round7(sd(at(i)))),
  };
}

/** One arm's records as a summary over seeds. */
export function summariseArm(arm: Arm, records: RunRecord[]): ArmSummary {
  const all = (part: (record: RunRecord) => Record<string, number>) =>
    Object.fromEntries(
      columns(records, part).map(([n, v]) => [n, summariseMetric(v)]),
    );
  return {
    id: arm.id,
    config: arm.config,
    seeds: records.map((r) => r.spec.seed),
    metrics: all((r) => r.metrics),
    series: Object.fromEntries(
      columns(records, (r) => r.series)
        .map(([n, rows]) => [n, summariseSeries(n, rows)]),
    ),
    timings: all((r) => r.timings),
    seconds: round7(mean(records.map((r) => r.provenance.seconds))),
  };
}

/**
 * Provenance of several runs as one block: sums and extremes where that is what is meant.
 *
 * `git` is the state at the time of the summary: a cached run may stem from an earlier commit, but
 * its key proves that code and data are the same as now.
 */
function joinProvenance(
  records: RunRecord[],
  git: GitState,
  command: string,
): Provenance {
  const all = records.map((r) => r.provenance);
  return {
    ...all[all.length - 1],
    ...git,
    command,
    data: Object.assign({}, ...all.map((p) => p.data)),
    startedAt: all.map((p) => p.startedAt).sort()[0],
    seconds: round7(all.reduce((sum, p) => sum + p.seconds, 0)),
    peakMemoryMb: Math.max(...all.map((p) => p.peakMemoryMb)),
  };
}

/** What of an arm's provenance differs from the set's. */
function deviations(
  records: RunRecord[],
  common: Provenance,
): Partial<Provenance> {
  const names = ["machine", "backend", "versions"];
  const differing = names.flatMap((name) => {
    const field = name as keyof Provenance;
    const other = records.map((r) => r.provenance[field])
      .find((v) => canonicalJson(v) !== canonicalJson(common[field]));
    return other === undefined ? [] : [[field, other]];
  });
  return Object.fromEntries(differing);
}

/** What `summarise` needs besides the runs. */
export interface SummariseOptions {
  profile: Profile;
  config: object;
  git: GitState;
  command?: string;
  overrides?: string[];
}

/**
 * All arms of an experiment over their seeds, sealed. `records` holds the runs of each arm, in
 * the order of its seeds.
 */
export function summarise(
  experiment: Experiment,
  arms: Arm[],
  records: RunRecord[][],
  { profile, config, git, command = "", overrides = [] }: SummariseOptions,
): ResultSet {
  const provenance = joinProvenance(records.flat(), git, command);
  const summaries = arms.map((arm, i) => {
    const summary = summariseArm(arm, records[i]);
    const differing = deviations(records[i], provenance);
    return Object.keys(differing).length === 0
      ? summary
      : { ...summary, deviations: differing };
  });
  return seal({
    schema: 1,
    experiment: experiment.name,
    title: experiment.title,
    profile,
    config: JSON.parse(JSON.stringify(config)),
    overrides,
    arms: summaries,
    provenance,
  });
}

/** Folder of published result sets, `data/runs` unless ADIABAT_RESULTS names another. */
export function resultsFolder(): string {
  return process.env.ADIABAT_RESULTS ?? join(projectRoot(), "data", "runs");
}

/** Where a result set is: the published full one in `data/runs`, the others in the cache. */
export function summaryPath(
  name: string,
  profile: Profile,
  overridden = false,
): string {
  if (profile === "full" && !overridden) {
    return join(resultsFolder(), name, "full.json");
  }
  const file = `${profile}${overridden ? "-changed" : ""}.json`;
  return join(cacheFolder(), "summaries", name, file);
}

/** Writes a result set: one line per arm, so that a change reads well in a diff. */
export function writeSummary(set: ResultSet): string {
  const path = summaryPath(
    set.experiment,
    set.profile,
    set.overrides.length > 0,
  );
  const { arms, hash, ...rest } = set;
  const head = JSON.stringify(rest, null, 1).slice(0, -2);
  const lines = arms.map((arm) => JSON.stringify(arm)).join(",\n");
  writeAtomic(
    path,
    `${head},\n "arms": [\n${lines}\n],\n "hash": "${hash}"\n}\n`,
  );
  return path;
}

/**
 * The result set of an experiment, or null if it was never run in this profile; throws if the
 * file is damaged.
 */
export function loadSummary(
  name: string,
  profile: Profile = "full",
): ResultSet | null {
  const path = summaryPath(name, profile);
  return existsSync(path) ? readSealed<ResultSet>(path) : null;
}

/** The arm called `id`; throws with the known ids. */
export function findArm(arms: ArmSummary[], id: string): ArmSummary {
  const arm = arms.find((a) => a.id === id);
  if (arm === undefined) {
    throw new RangeError(
      `Cannot find arm "${id}": known arms are ${
        arms.map((a) => a.id).join(", ")
      }`,
    );
  }
  return arm;
}
