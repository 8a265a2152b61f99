/**
 * One run as a process, and the short way to one paper.
 *
 *   run.ts spec.json | -         runs a spec (file or standard input), prints its record
 *   run.ts rora                  what `reproduce` does for one paper
 *   run.ts rora --arm <id>       only that arm and those it needs; `--seed` for one seed
 *
 * `node --import tsx scripts/run.ts ...` or `deno run -A scripts/run.ts ...`.
 *
 * The pool starts it with `--worker`: specs come as lines on standard input, events go out as lines
 * on standard error, and the process ends when its parent does.
 */
import { existsSync, readFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { Worker } from "node:worker_threads";
import { describeError, main } from "./cli.ts";
import { checkSpec, executeRun, type RunEvent } from "./execute.ts";

/** Writes an event as one line; synchronous enough to survive an exit. */
function emit(event: RunEvent): void {
  process.stderr.write(JSON.stringify(event) + "\n");
}

/**
 * Ends this process when its parent is gone, even in the middle of a long computation: a thread of
 * its own watches, since the main one may not look at its events for minutes.
 */
function dieWithParent(parent: number): void {
  const code = `setInterval(() => {
    if (process.ppid !== ${parent}) process.kill(process.pid, "SIGKILL");
  }, 500)`;
  new Worker(code, { eval: true, execArgv: [] }).unref();
}

/** Runs specs from standard input, one a line, until it closes. */
async function work(): Promise<number> {
  dieWithParent(process.ppid);
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() === "") continue;
    try {
      const record = await executeRun(checkSpec(JSON.parse(line)), emit);
      const { seconds } = record.provenance;
      emit({ event: "done", key: record.key, seconds });
    } catch (error) {
      const stack = error instanceof Error ? error.stack ?? "" : "";
      emit({ event: "error", message: describeError(error), stack });
      return 1;
    }
  }
  return 0;
}

/** Runs one spec and prints its record. */
async function runSpec(source: string): Promise<void> {
  let spec: unknown;
  if (source !== "-" && !existsSync(source)) {
    throw new RangeError(
      `Cannot read the run's spec as the file must exist: ${source}`,
    );
  }
  const text = readFileSync(source === "-" ? 0 : source, "utf8");
  try {
    spec = JSON.parse(text);
  } catch (error) {
    throw new SyntaxError(
      `Cannot read the run's spec ${source} as it is not JSON: ${
        (error as Error).message
      }`,
    );
  }
  const record = await executeRun(checkSpec(spec), emit);
  process.stdout.write(JSON.stringify(record) + "\n");
}

await main(async () => {
  const args = process.argv.slice(2);
  if (args[0] === "--worker") process.exit(await work());
  if (args.length === 1 && (args[0] === "-" || args[0].endsWith(".json"))) {
    return await runSpec(args[0]);
  }
  const { reproduceMain } = await import("./pipeline.ts");
  return await reproduceMain(args, "run");
});
