/**
 * The pool: runs of any number of experiments, in as many processes as there are cores.
 *
 * `planRuns` turns an experiment's config into tasks with known cache keys; `runPool` takes
 * finished runs from the cache and computes the others, each after those it needs. A finished run
 * is on disk at once, so that stopping the pool in any way loses only the runs in progress.
 */
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { environmentOf } from "../lib/core/provenance.ts";
import {
  type Arm,
  type Environment,
  type Experiment,
  projectRoot,
  readRecord,
  runKey,
  type RunRecord,
  type RunSpec,
} from "../lib/core/runs.ts";
import { experimentFile } from "../lib/experiments/index.ts";
import { isExpected } from "./cli.ts";
import type { RunEvent } from "./execute.ts";

/** A run to be made or taken from the cache. */
export interface Task {
  /** "rora lora-r8 seed 1" */
  name: string;
  spec: RunSpec;
  key: string;
  needs: Task[];
}

/** The arms of one experiment in one config, and their runs. */
export interface Plan {
  experiment: Experiment;
  config: object;
  arms: Arm[];
  /** Runs of each arm, in the order of its seeds. */
  tasks: Task[][];
}

/** Throws if the arms are not a set of unique ids with resolvable, acyclic needs. */
export function checkArms(name: string, arms: Arm[]): void {
  const byId = new Map(arms.map((arm) => [arm.id, arm]));
  if (byId.size !== arms.length) {
    const twice = arms.find((arm) => byId.get(arm.id) !== arm);
    throw new RangeError(
      `Cannot plan ${name} as arm ids must be unique: "${twice?.id}"`,
    );
  }
  const done = new Set<string>();
  const visit = (arm: Arm, path: string[]): void => {
    if (done.has(arm.id)) return;
    if (path.includes(arm.id)) {
      throw new RangeError(
        `Cannot plan ${name} as arms must not need each other in a circle: ${
          [...path, arm.id].join(" -> ")
        }`,
      );
    }
    for (const id of arm.needs ?? []) {
      const need = byId.get(id);
      if (need === undefined) {
        throw new RangeError(
          `Cannot plan ${name} as arm "${arm.id}" needs an unknown arm: "${id}"`,
        );
      }
      visit(need, [...path, arm.id]);
    }
    done.add(arm.id);
  };
  for (const arm of arms) {
    if (arm.seeds.length === 0) {
      throw new RangeError(
        `Cannot plan ${name} as arm "${arm.id}" has no seeds`,
      );
    }
    visit(arm, []);
  }
}

/** The seed whose run a dependent with `seed` reads: the same one, or the arm's only one. */
function seedOfNeed(need: Arm, seed: number, dependent: string): number {
  if (need.seeds.includes(seed)) return seed;
  if (need.seeds.length === 1) return need.seeds[0];
  throw new RangeError(
    `Cannot plan arm "${dependent}" as "${need.id}", which it needs, must have the same seeds or one: seed ${seed} of ${
      need.seeds.join(", ")
    }`,
  );
}

/** All runs of an experiment in one config, with their cache keys. */
export async function planRuns(
  source: string,
  experiment: Experiment,
  profile: RunSpec["profile"],
  config: object,
): Promise<Plan> {
  const arms = experiment.arms(config);
  checkArms(experiment.name, arms);
  const environment: Environment = await environmentOf(
    experiment,
    experimentFile(source),
  );
  const tasks = new Map<string, Task>();
  const taskOf = (arm: Arm, seed: number): Task => {
    const id = JSON.stringify([arm.id, seed]);
    const known = tasks.get(id);
    if (known !== undefined) return known;
    const needs = (arm.needs ?? []).map((needId) => {
      const need = arms.find((a) => a.id === needId)!;
      return taskOf(need, seedOfNeed(need, seed, arm.id));
    });
    const spec: RunSpec = {
      experiment: source,
      profile,
      arm: arm.id,
      config: arm.config,
      seed,
      needs: Object.fromEntries(needs.map((n) => [n.spec.arm, n.key])),
    };
    const task = {
      name: `${experiment.name} ${arm.id} seed ${seed}`,
      spec,
      key: runKey(spec, environment),
      needs,
    };
    tasks.set(id, task);
    return task;
  };
  return {
    experiment,
    config,
    arms,
    tasks: arms.map((arm) => arm.seeds.map((seed) => taskOf(arm, seed))),
  };
}

/** What became of a task. */
export type Outcome =
  | { status: "cached" | "computed"; record: RunRecord }
  | { status: "failed" | "skipped"; message: string };

/** How the pool is going; given to `onChange` whenever something happens. */
export interface PoolState {
  total: number;
  finished: number;
  /** Tasks that had to be computed, and how many of them are finished. */
  toCompute: number;
  computed: number;
  /** Finished runs plus the fractions of those in progress, of those to compute. */
  fraction: number;
  running: string[];
}

export interface PoolOptions {
  jobs: number;
  /** Compute every run, whatever the cache holds. */
  fresh?: boolean;
  /** Runs that a process computes before it is replaced; 1 gives each run a process of its own. */
  runsPerProcess?: number;
  onChange?: (state: PoolState) => void;
  /** A task is finished; or a message: a log line of a run, a damaged record. */
  onFinish?: (task: Task, outcome: Outcome) => void;
  onMessage?: (message: string) => void;
}

/** One core per process: two BLAS pools on the same cores slow each other down. */
const ONE_THREAD = {
  OPENBLAS_NUM_THREADS: "1",
  OMP_NUM_THREADS: "1",
  MKL_NUM_THREADS: "1",
  BLIS_NUM_THREADS: "1",
  VECLIB_MAXIMUM_THREADS: "1",
};

const STDERR_TAIL_LINES = 8;

/** The command that starts `scripts/run.ts` in the runtime that is running. */
export function runCommand(): [string, string[]] {
  const script = fileURLToPath(new URL("run.ts", import.meta.url));
  return "deno" in process.versions
    ? [process.execPath, ["run", "-A", script]]
    : [process.execPath, ["--import", "tsx", script]];
}

/** A child process that computes runs, one at a time. */
class RunWorker {
  readonly child: ChildProcess;
  private readonly onEvent: (worker: RunWorker, event: RunEvent) => void;
  task: Task | null = null;
  fraction = 0;
  runs = 0;
  tail: string[] = [];

  constructor(
    onEvent: (worker: RunWorker, event: RunEvent) => void,
    onExit: (worker: RunWorker, how: string) => void,
  ) {
    this.onEvent = onEvent;
    const [command, args] = runCommand();
    this.child = spawn(command, [...args, "--worker"], {
      cwd: projectRoot(),
      env: { ...process.env, ...ONE_THREAD },
      stdio: ["pipe", "pipe", "pipe"],
    });
    for (const stream of [this.child.stdout!, this.child.stderr!]) {
      createInterface({ input: stream }).on("line", (line) => this.read(line));
    }
    this.child.stdin!.on("error", () => {}); // the exit tells
    this.child.on("error", (error) => onExit(this, error.message));
    this.child.on("close", (code, signal) => {
      onExit(this, signal === null ? `exit code ${code}` : `signal ${signal}`);
    });
  }

  private read(line: string): void {
    if (line.startsWith('{"event":')) {
      try {
        return this.onEvent(this, JSON.parse(line));
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
      }
    }
    this.tail = [...this.tail, line].slice(-STDERR_TAIL_LINES);
  }

  start(task: Task): void {
    this.task = task;
    this.fraction = 0;
    this.runs++;
    this.tail = [];
    this.child.stdin!.write(JSON.stringify(task.spec) + "\n");
  }

  /** Lets the process end after what it is doing. */
  release(): void {
    this.child.stdin!.end();
  }
}

/**
 * The message of a failed run: one line if it says what to do, else with the last lines that it
 * wrote.
 */
function failure(message: string, tail: string[]): string {
  return isExpected(message)
    ? message
    : [message, ...tail.map((line) => `  | ${line}`)].join("\n");
}

/**
 * Takes every task from the cache or computes it; resolves when all are finished, failed ones
 * included.
 */
export async function runPool(
  tasks: Task[],
  options: PoolOptions,
): Promise<Map<string, Outcome>> {
  const { jobs, fresh = false, runsPerProcess = 1 } = options;
  const unique = [...new Map(tasks.map((t) => [t.key, t])).values()];
  const outcomes = new Map<string, Outcome>();
  const finish = (task: Task, outcome: Outcome) => {
    outcomes.set(task.key, outcome);
    options.onFinish?.(task, outcome);
  };

  const readCached = (task: Task): RunRecord | null => {
    try {
      return readRecord(task.spec.experiment, task.key);
    } catch (error) {
      options.onMessage?.(
        `${task.name}: record damaged, running again. ${
          (error as Error).message
        }`,
      );
      return null;
    }
  };
  for (const task of fresh ? [] : unique) {
    const record = readCached(task);
    if (record !== null) finish(task, { status: "cached", record });
  }
  const waiting = new Set(unique.filter((t) => !outcomes.has(t.key)));
  const toCompute = waiting.size;
  const workers = new Set<RunWorker>();

  const change = () => {
    const busy = [...workers].filter((w) => w.task !== null);
    const computed = toCompute - waiting.size - busy.length;
    options.onChange?.({
      total: unique.length,
      finished: outcomes.size,
      toCompute,
      computed,
      fraction: toCompute === 0
        ? 1
        : (computed + busy.reduce((sum, w) => sum + w.fraction, 0)) / toCompute,
      running: busy.map((w) => w.task!.name),
    });
  };

  return await new Promise((resolve) => {
    /** Next task whose needs are all there; those whose needs failed are skipped on the way. */
    const next = (): Task | null => {
      for (let again = true; again;) {
        again = false;
        for (const task of waiting) {
          const states = task.needs.map((n) => outcomes.get(n.key)?.status);
          const broken = states.findIndex((s) =>
            s === "failed" || s === "skipped"
          );
          if (broken >= 0) {
            waiting.delete(task);
            finish(task, {
              status: "skipped",
              message: `not run, as it needs ${task.needs[broken].name}`,
            });
            again = true;
          } else if (
            states.every((s) => s === "cached" || s === "computed")
          ) {
            waiting.delete(task);
            return task;
          }
        }
      }
      return null;
    };

    const end = (worker: RunWorker, outcome: Outcome) => {
      const task = worker.task!;
      worker.task = null;
      finish(task, outcome);
    };

    const onEvent = (worker: RunWorker, event: RunEvent) => {
      const task = worker.task;
      if (task === null) return;
      if (event.event === "progress") worker.fraction = event.fraction;
      else if (event.event === "log") {
        options.onMessage?.(`${task.name}: ${event.message}`);
      } else if (event.event === "error") {
        worker.runs = Infinity; // it ends after an error
        const trace = isExpected(event.message)
          ? []
          : event.stack.split("\n").slice(1, 5).map((line) => line.trim());
        const first = event.message.split("\n")[0];
        end(worker, {
          status: "failed",
          message: failure(first, [...worker.tail, ...trace]),
        });
      } else if (event.key !== task.key) {
        end(worker, {
          status: "failed",
          message:
            "Cannot use the run as its code, data or engine changed meanwhile: reproduce again",
        });
      } else {
        const record = readCached(task);
        end(
          worker,
          record === null
            ? { status: "failed", message: "the run left no record" }
            : { status: "computed", record },
        );
      }
      change();
      if (worker.task === null) advance(worker);
    };

    const onExit = (worker: RunWorker, how: string) => {
      if (!workers.delete(worker)) return;
      if (worker.task !== null) {
        end(worker, {
          status: "failed",
          message: failure(`the process ended with ${how}`, worker.tail),
        });
        change();
      }
      fill();
    };

    const release = (worker: RunWorker) => {
      worker.release();
      workers.delete(worker);
    };

    /** A worker is free: it goes if it has done its share, and otherwise waits for what becomes ready. */
    const advance = (worker: RunWorker) => {
      if (worker.runs >= runsPerProcess) release(worker);
      fill();
    };

    /** Gives work to free workers and to new ones while there is room; finishes when nothing is left. */
    const fill = () => {
      const free = [...workers].filter(({ task }) => task === null);
      while (free.length > 0 || workers.size < jobs) {
        const task = next();
        if (task === null) break;
        const worker = free.pop() ?? new RunWorker(onEvent, onExit);
        workers.add(worker);
        worker.start(task);
      }
      if (waiting.size === 0) free.forEach(release);
      change();
      if (workers.size === 0 && waiting.size === 0) resolve(outcomes);
    };
    fill();
  });
}
