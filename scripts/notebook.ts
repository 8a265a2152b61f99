/**
 * Executes notebooks without Jupyter and without Python.
 *
 *     node --import tsx scripts/notebook.ts notebooks/rora.ipynb [--profile quick] [--write | --check]
 *
 * One child process per notebook runs the cells with tslab's own executor, on what tslab's own
 * converter makes of them in another child; this process draws their figures. Both serve all
 * notebooks, as they take long to start. The outputs are those that Jupyter would show; but an error in drawing a
 * figure fails its cell from outside, where the cell cannot catch it. What tslab hides is shown: the number of the cell
 * that failed, its line, the error's name, message and stack. A notebook is written back normalised (no counters, no
 * timings, no stray metadata), so that a second execution changes nothing.
 */
import { type ChildProcess, fork, type ForkOptions } from "node:child_process";
import {
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, relative, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { createRequire } from "node:module";
import { Command, InvalidArgumentError, Option } from "commander";
import { type FigureSpec, type Profile, profiles } from "../lib/core/runs.ts";
import { toSvg } from "../lib/core/svg.ts";
import { describeError } from "./cli.ts";
import type {
  Conversion,
  Converted,
  FromCompiler,
  ToCompiler,
} from "./notebook-compiler.ts";

const projectRoot = resolve(fileURLToPath(import.meta.url), "../..");

// nbformat 4.5, https://nbformat.readthedocs.io/en/latest/format_description.html

type Multiline = string | string[];

export type Output =
  | { output_type: "stream"; name: "stdout" | "stderr"; text: Multiline }
  | {
    output_type: "display_data";
    data: Record<string, unknown>;
    metadata: Record<string, unknown>;
  }
  | {
    output_type: "execute_result";
    data: Record<string, unknown>;
    metadata: Record<string, unknown>;
    execution_count: number | null;
  }
  | {
    output_type: "error";
    ename: string;
    evalue: string;
    traceback: string[];
  };

export interface NotebookCell {
  cell_type: "code" | "markdown" | "raw";
  id?: string;
  metadata: Record<string, unknown> & { tags?: string[] };
  source: Multiline;
  outputs?: Output[];
  execution_count?: number | null;
  attachments?: unknown;
}

export interface Notebook {
  cells: NotebookCell[];
  metadata: Record<string, unknown>;
  nbformat: number;
  nbformat_minor: number;
}

// Messages between parent and child

/** Why a cell failed. */
export interface CellFailure {
  /** Class of the error: "RangeError", "TypeScript 2339". */
  name: string;
  message: string;
  stack: string[];
  /** Line of the cell, from 1; 0 if unknown. */
  line: number;
}

export interface CodeCell {
  /** Place in the notebook, from 0. */
  index: number;
  source: string;
  mayFail: boolean;
}

export type ToWorker =
  | { type: "run"; cells: CodeCell[] }
  | { type: "converted"; converted: Converted };

export type ToParent =
  | { type: "start"; current: number }
  | { type: "convert" } & Conversion
  | { type: "output"; current: number; output: Output }
  | { type: "failure"; current: number; failure: CellFailure }
  | { type: "broken"; message: string }
  | { type: "end" };

/** Why a notebook failed, and where. */
export interface NotebookFailure extends CellFailure {
  /** Number of the cell in the notebook, from 1, all kinds counted. */
  cell: number;
  /** The source line that failed; empty if unknown. */
  source: string;
}

export interface NotebookRun {
  path: string;
  ok: boolean;
  /** The notebook with the new outputs, normalised. */
  notebook: Notebook;
  failure: NotebookFailure | null;
  seconds: number;
}

export interface NotebookOptions {
  /** Reaches the cells as `ADIABAT_PROFILE`; default "quick". */
  profile?: Profile;
  /** Limit for the whole notebook, default 600. */
  timeoutSeconds?: number;
  /** Writes the outputs back if every cell succeeded; default false. */
  write?: boolean;
  /** Called as cells start: cell from 1, cells in all. */
  onCell?: (cell: number, cells: number) => void;
}

function join(text: Multiline): string {
  return Array.isArray(text) ? text.join("") : text;
}

/** Lines with their ends, as Jupyter stores texts. */
function split(text: Multiline): string[] {
  return join(text).match(/[^\n]*\n|[^\n]+$/g) ?? [];
}

/**
 * The notebook of a file.
 *
 * @throws SyntaxError if the file is not JSON of nbformat 4.
 */
export function readNotebook(path: string): Notebook {
  const fail = (why: string) =>
    new SyntaxError(`Cannot read the notebook ${path}: ${why}`);
  let value: Notebook;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw fail((error as Error).message);
  }
  if (value?.nbformat !== 4 || !Array.isArray(value.cells)) {
    throw fail(`nbformat 4 is needed, not ${value?.nbformat}`);
  }
  value.cells.forEach((cell, i) => {
    const known = ["code", "markdown", "raw"].includes(cell?.cell_type);
    const text = typeof cell?.source === "string" ||
      Array.isArray(cell?.source);
    if (!known || !text) throw fail(`cell ${i + 1} has no type or no source`);
  });
  return value;
}

// Normalisation

const MIME_JSON = /^application\/(.+\+)?json$/;

/** Text without the folder in which the project happens to lie. */
function relativePaths(text: string): string {
  return text.replaceAll(pathToFileURL(projectRoot).href, ".")
    .replaceAll(projectRoot, ".");
}

/** Text that two executions share: no colours, no overwritten progress lines, no paths, no timings. */
export function normaliseText(text: string): string {
  return relativePaths(text)
    // deno-lint-ignore no-control-regex
    .replace(/\u001b\[[0-9;?]*[A-Za-z]/g, "")
    .replace(/\r\n/g, "\n")
    .replace(/[^\n]*\r/g, "")
    .replace(
      /\b\d+(\.\d+)?(e[-+]?\d+)?\s?(ms|µs|us|s|sec|seconds?|min|minutes?)\b/g,
      "… $3",
    );
}

function normaliseOutputs(outputs: Output[]): Output[] {
  const out: Output[] = [];
  for (const output of outputs) {
    const last = out.at(-1);
    if (output.output_type === "stream") {
      // Adjacent pieces of one stream are one text: where they break is chance.
      if (last?.output_type === "stream" && last.name === output.name) {
        last.text = join(last.text) + join(output.text);
      } else {
        out.push({ ...output, text: join(output.text) });
      }
    } else if (output.output_type === "error") {
      out.push({
        ...output,
        evalue: normaliseText(output.evalue),
        traceback: output.traceback.map(normaliseText),
      });
    } else {
      const data: Record<string, unknown> = {};
      for (const [type, value] of Object.entries(output.data)) {
        const text = typeof value === "string" || Array.isArray(value);
        data[type] = text && !MIME_JSON.test(type)
          ? split(value as Multiline)
          : value;
      }
      out.push({ output_type: "display_data", data, metadata: {} });
    }
  }
  for (const output of out) {
    if (output.output_type === "stream") {
      output.text = split(normaliseText(join(output.text)));
    }
  }
  return out.filter((output) =>
    output.output_type !== "stream" || output.text.length > 0
  );
}

/**
 * The notebook as it is committed: sources and outputs, nothing that differs between executions.
 *
 * Kept of a cell's metadata: its tags. Cells without an id get one from their place.
 */
export function normalise(notebook: Notebook): Notebook {
  const used = new Set(notebook.cells.map((cell) => cell.id));
  let next = 1;
  const newId = () => {
    while (used.has(`cell-${next}`)) next++;
    used.add(`cell-${next}`);
    return `cell-${next}`;
  };
  const cells = notebook.cells.map((cell): NotebookCell => {
    const { cell_type, id = newId(), metadata, source, outputs } = cell;
    const tags = metadata?.tags;
    return {
      cell_type,
      ...(cell_type === "code" ? { execution_count: null } : {}),
      id,
      metadata: Array.isArray(tags) && tags.length > 0 ? { tags } : {},
      ...(cell_type === "code"
        ? { outputs: normaliseOutputs(outputs ?? []) }
        : {}),
      ...(cell.attachments === undefined
        ? {}
        : { attachments: cell.attachments }),
      source: split(source),
    };
  });
  return {
    cells,
    metadata: {
      kernelspec: {
        display_name: "TypeScript (Adiabat)",
        language: "typescript",
        name: "adiabat",
      },
      language_info: {
        file_extension: ".ts",
        mimetype: "text/typescript",
        name: "typescript",
      },
    },
    nbformat: 4,
    nbformat_minor: 5,
  };
}

/** JSON as Jupyter writes it: sorted keys, one space, a line feed at the end. */
export function serialise(notebook: Notebook): string {
  const sorted = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(sorted);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1)
        .map(([key, child]) => [key, sorted(child)]),
    );
  };
  return `${JSON.stringify(sorted(notebook), null, 1)}\n`;
}

/** Writes all or nothing: a reader never sees half a notebook. */
function writeAtomically(path: string, text: string): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(temporary, text);
    renameSync(temporary, path);
  } finally {
    rmSync(temporary, { force: true });
  }
}

// Execution

/** Starts a script of this folder with a channel for messages. */
function start(script: string, options: ForkOptions = {}): ChildProcess {
  const loader = createRequire(import.meta.url).resolve("tsx");
  return fork(resolve(projectRoot, "scripts", script), {
    cwd: projectRoot,
    execArgv: ["--import", pathToFileURL(loader).href],
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    ...options,
  });
}

/** The process that converts cells, if one runs, and who waits for it. */
let compiler: ChildProcess | null = null;
const waiting = new Map<number, (message: FromCompiler) => void>();
let conversions = 0;

/** Starts the compiler; it does not keep this process alive, and ends with it. */
function startCompiler(): ChildProcess {
  const child = start("notebook-compiler.ts", {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  child.unref();
  child.channel?.unref();
  child.on("message", (message: FromCompiler) => {
    waiting.get(message.id)?.(message);
    waiting.delete(message.id);
  });
  const end = (error: string) => {
    if (compiler !== child) return;
    compiler = null;
    for (const [id, answer] of waiting) answer({ id, error });
    waiting.clear();
  };
  child.once("close", (code, signal) => {
    end(`The compiler ended with ${signal ?? `code ${code}`}`);
  });
  child.on("error", ({ message }) => {
    end(`Cannot run the compiler: ${message}`);
  });
  return child;
}

/** The cell as JavaScript. */
function convert(conversion: Conversion): Promise<Converted> {
  compiler ??= startCompiler();
  const id = conversions++;
  compiler.send({ id, ...conversion } satisfies ToCompiler, () => {}); // "close" tells if it is gone
  return new Promise((resolve, reject) => {
    waiting.set(id, (message) => {
      if ("error" in message) reject(new Error(message.error));
      else resolve(message.converted);
    });
  });
}

/** Ends a child and the processes it started. */
function kill(child: ChildProcess): void {
  try {
    if (process.platform === "win32" || child.pid === undefined) child.kill();
    else process.kill(-child.pid, "SIGKILL"); // its group: the child leads one
  } catch {
    child.kill("SIGKILL"); // already gone
  }
}

function asOutput({ name, message, stack }: CellFailure): Output {
  return {
    output_type: "error",
    ename: name,
    evalue: message,
    traceback: [`${name}: ${message}`, ...stack],
  };
}

/** Draws the figure that a cell displayed, if it did: see DRAWS_FIGURES. */
function draw(output: Output): void {
  if (output.output_type !== "display_data") return;
  const figure = output.data["image/svg+xml"];
  if (typeof figure !== "object" || figure === null || Array.isArray(figure)) {
    return; // no figure, or a picture that the cell drew
  }
  output.data["image/svg+xml"] = toSvg(figure as FigureSpec);
}

/**
 * Executes a notebook in a process of its own and returns it with its new outputs.
 *
 * A cell with the tag `raises-exception` may fail; any other failure ends the execution. The file is
 * written only if asked to and if nothing failed.
 *
 * @throws SyntaxError if the file is no notebook. A failing cell is no exception: see `failure`.
 */
export async function runNotebook(
  path: string,
  {
    profile = "quick",
    timeoutSeconds = 600,
    write = false,
    onCell = () => {},
  }: NotebookOptions = {},
): Promise<NotebookRun> {
  const startMs = performance.now();
  const notebook = readNotebook(path);
  const { cells } = notebook;
  for (const cell of cells) if (cell.cell_type === "code") cell.outputs = [];
  const code = cells.map((cell, index) => ({ cell, index }))
    .filter(({ cell }) =>
      cell.cell_type === "code" && join(cell.source).trim() !== ""
    )
    .map(({ cell, index }) => ({
      index,
      source: join(cell.source),
      mayFail: cell.metadata?.tags?.includes("raises-exception") ?? false,
    }));

  const child = start("notebook-worker.ts", {
    detached: process.platform !== "win32", // leads a group that can be ended as a whole
    env: { ...process.env, ADIABAT_PROFILE: profile, NO_COLOR: "1" },
  });
  const endChild = () => kill(child);
  const interrupted = () => {
    endChild();
    process.exit(130);
  };
  process.once("exit", endChild);
  process.once("SIGINT", interrupted);
  process.once("SIGTERM", interrupted);

  let current = -1;
  let failure: NotebookFailure | null = null;
  let finished = false;
  const locate = (index: number, why: CellFailure): NotebookFailure => ({
    ...why,
    message: relativePaths(why.message),
    stack: why.stack.map(relativePaths),
    cell: index + 1,
    source: index < 0 || why.line === 0
      ? ""
      : join(cells[index].source).split("\n")[why.line - 1] ?? "",
  });
  /** A cell failed: its output says so, and the notebook has failed unless the cell may. */
  const fail = (index: number, why: CellFailure) => {
    const cell = cells[index];
    cell.outputs?.push(asOutput(why));
    if (!cell.metadata?.tags?.includes("raises-exception")) {
      failure ??= locate(index, why);
    }
  };
  const breakDown = (message: string) => {
    failure ??= locate(current, {
      name: "Kernel",
      message,
      stack: [],
      line: 0,
    });
  };
  const tell = (message: ToWorker) => child.send(message, () => {}); // it may be gone
  // What is written past tslab: warnings of Node, a crash report.
  let rest = "";
  const keep = (chunk: { toString(): string }) => {
    rest = (rest + chunk.toString()).slice(-4000);
  };
  child.stdout?.on("data", keep);
  child.stderr?.on("data", keep);

  await new Promise<void>((done) => {
    const timer = setTimeout(() => {
      failure = locate(current, {
        name: "Timeout",
        message:
          `The notebook took more than its limit of ${timeoutSeconds} seconds`,
        stack: [],
        line: 0,
      });
      endChild();
    }, timeoutSeconds * 1000);
    child.on("message", (message: ToParent) => {
      if (message.type === "start") {
        current = message.current;
        onCell(current + 1, cells.length);
      } else if (message.type === "output") {
        try {
          draw(message.output);
          cells[message.current]?.outputs?.push(message.output);
        } catch (error) {
          const { name, message: text, stack = "" } = error as Error;
          const frames = stack.split("\n").filter((line) =>
            /^\s+at /.test(line)
          );
          fail(message.current, {
            name,
            message: text,
            stack: frames,
            line: 0,
          });
          if (failure !== null) endChild();
        }
      } else if (message.type === "failure") {
        fail(message.current, message.failure);
      } else if (message.type === "convert") {
        convert(message).then(
          (converted) => tell({ type: "converted", converted }),
          (error: Error) => {
            breakDown(error.message);
            endChild();
          },
        );
      } else if (message.type === "broken") {
        breakDown(message.message);
      } else {
        finished = true;
      }
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      if (!finished && failure === null) {
        failure = locate(current, {
          name: "Exit",
          message: `The process ended with ${signal ?? `code ${code}`} ` +
            "before the cell did",
          stack: rest.trim().split("\n").slice(-12),
          line: 0,
        });
      }
      done();
    });
    child.on("error", (error) => {
      failure ??= locate(current, {
        name: error.name,
        message: `Cannot start the process: ${error.message}`,
        stack: [],
        line: 0,
      });
      clearTimeout(timer);
      done();
    });
    tell({ type: "run", cells: code });
  });
  process.off("exit", endChild);
  process.off("SIGINT", interrupted);
  process.off("SIGTERM", interrupted);
  endChild(); // processes that cells left behind

  const result = normalise(notebook);
  const ok = failure === null;
  if (ok && write) writeAtomically(path, serialise(result));
  return {
    path,
    ok,
    notebook: result,
    failure,
    seconds: (performance.now() - startMs) / 1000,
  };
}

/** The failure as a person wants to read it: where, what, the line, the stack. */
export function explainFailure(
  path: string,
  { cell, line, source, name, message, stack }: NotebookFailure,
): string {
  const place = cell === 0
    ? "before its first cell"
    : `in cell ${cell}${line > 0 ? `, line ${line}` : ""}`;
  return [
    `${path} failed ${place}: ${name}: ${message}`,
    ...(source === "" ? [] : [`  > ${source.trim()}`]),
    ...stack,
  ].join("\n");
}

function seconds(text: string): number {
  const value = Number(text);
  if (!(value > 0)) {
    throw new InvalidArgumentError(
      `A number above 0 is needed, not "${text}".`,
    );
  }
  return value;
}

/** The project's notebooks. */
function allNotebooks(): string[] {
  const folder = resolve(projectRoot, "notebooks");
  return readdirSync(folder).filter((name) => name.endsWith(".ipynb")).sort()
    .map((name) => resolve(folder, name));
}

async function main(): Promise<void> {
  const command = new Command("notebook")
    .description("Executes notebooks without Jupyter and without Python")
    .argument("[notebooks...]", "paths of .ipynb files; default: all")
    .addOption(
      new Option("--profile <profile>", "size of the live parts").choices([
        ...profiles,
      ]).default("quick"),
    )
    .option("--timeout <seconds>", "limit per notebook", seconds, 600)
    .option("--write", "write the outputs back, normalised")
    .option("--check", "fail also if a file is not stored normalised")
    .parse();
  const { profile, timeout, write = false, check = false } = command.opts<{
    profile: Profile;
    timeout: number;
    write?: boolean;
    check?: boolean;
  }>();
  const paths = command.args.length > 0 ? command.args : allNotebooks();
  for (const path of paths) {
    const name = relative(process.cwd(), path) || basename(path);
    try {
      const stored = readFileSync(path, "utf8");
      const run = await runNotebook(path, {
        profile,
        timeoutSeconds: timeout,
        write,
        onCell(cell, cells) {
          if (!process.stderr.isTTY) return;
          process.stderr.write(`\r${name}: cell ${cell} of ${cells} `);
        },
      });
      if (process.stderr.isTTY) process.stderr.write("\r\u001b[K");
      if (run.failure !== null) {
        console.error(explainFailure(name, run.failure));
        process.exitCode = 1;
      } else {
        console.log(`${name}: ok, ${run.seconds.toFixed(1)} s`);
      }
      if (check && serialise(normalise(JSON.parse(stored))) !== stored) {
        console.error(
          `${name} is not stored normalised: run this with --write and commit it`,
        );
        process.exitCode = 1;
      }
    } catch (error) {
      console.error(describeError(error));
      process.exitCode = 1;
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
