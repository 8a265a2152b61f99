/**
 * Executes the cells of one notebook with tslab and sends what they show to the parent process: the
 * child of scripts/notebook.ts.
 */
import process from "node:process";
import { format } from "node:util";
import { DRAWS_FIGURES } from "../lib/core/show.ts";
import { projectRoot, tslab } from "./kernel.ts";
import type { Conversion, Converted } from "./notebook-compiler.ts";
import type {
  CellFailure,
  CodeCell,
  Output,
  ToParent,
  ToWorker,
} from "./notebook.ts";

interface Converter {
  convert(previous: string, source: string): Converted;
  close(): void;
}
interface Console {
  log(...values: unknown[]): void;
  error(...values: unknown[]): void;
}
interface ExecutorModule {
  createExecutor(
    root: string,
    converters: { node: Converter; browser: Converter; close(): void },
    console: Console,
  ): { execute(source: string): Promise<boolean> };
}
interface JupyterModule {
  lastWriteDisplayData: (
    content: { data: Record<string, unknown> },
    update: boolean,
  ) => void;
}

function send(message: ToParent): void {
  process.send?.(message);
}

/** The cell as JavaScript, from the parent's compiler. */
function convert(conversion: Conversion): Promise<Converted> {
  send({ type: "convert", ...conversion });
  return new Promise((resolve) => {
    process.once("message", (message: ToWorker) => {
      if (message.type === "converted") resolve(message.converted);
    });
  });
}

/** Letters and digits of a line: what TypeScript and the JavaScript made of it share. */
function skeleton(line: string): string {
  return line.replace(/(exports\.)?tsLastExpr\d* = /, "")
    .replaceAll("exports.", "").replace(/[\s;,()]/g, "");
}

/** The line of the cell, from 1, that became the given line of JavaScript; 0 if none is like it. */
function sourceLine(source: string, output: string, line: number): number {
  const wanted = skeleton(output.split("\n")[line - 1] ?? "");
  if (wanted === "") return 0;
  const lines = source.split("\n").map(skeleton);
  const exact = lines.indexOf(wanted);
  if (exact >= 0) return exact + 1;
  const start = wanted.slice(0, 24);
  return lines.findIndex((text) => text.startsWith(start)) + 1;
}

function describeError(
  error: unknown,
  source: string,
  output: string,
): CellFailure {
  if (!(error instanceof Error) && !(error as Error)?.stack) {
    return {
      name: "Thrown",
      message: typeof error === "string" ? error : format("%o", error),
      stack: [],
      line: 0,
    };
  }
  const { name, message, stack = "" } = error as Error;
  const frames = stack.split("\n").filter((text) => /^\s+at /.test(text));
  // What called the cell is tslab's and ours: of no use to who wrote the cell.
  const ownFrames: string[] = [];
  let line = 0;
  for (const frame of frames) {
    if (/node_modules[\\/]tslab[\\/]|notebook-worker/.test(frame)) break;
    const inCell = /evalmachine\.<anonymous>:(\d+):\d+/.exec(frame);
    if (inCell !== null) {
      const found = sourceLine(source, output, Number(inCell[1]));
      if (line === 0) line = found;
      if (found === 0) continue; // the wrapper around the cell
      ownFrames.push(`    at cell, line ${found}`);
    } else if (!/node:vm|node:internal/.test(frame)) {
      ownFrames.push(frame);
    }
  }
  return { name, message, stack: ownFrames, line };
}

async function run(cells: CodeCell[]): Promise<void> {
  process.chdir(projectRoot);
  let current = -1;
  let source = "";
  let previous = "";
  let wasRead = false; // a cell for the browser is not
  let converted: Converted = { diagnostics: [] };
  let failure: CellFailure | null = null;
  const emit = (output: Output) => send({ type: "output", current, output });

  const ready: Converter = {
    convert(declarations) {
      if (declarations !== previous) {
        throw new Error(`Cell ${current + 1} was converted after other cells`);
      }
      wasRead = true;
      return converted;
    },
    close() {},
  };
  const reporting: Console = {
    log: (...values) => console.log(...values),
    error(...values) {
      const [diagnostic] = converted.diagnostics;
      if (diagnostic !== undefined) {
        failure ??= {
          name: `TypeScript ${diagnostic.code}`,
          message: converted.diagnostics.map((d) =>
            `${d.start.line + 1}:${d.start.character + 1} ${d.messageText}`
          ).join("\n"),
          stack: [],
          line: diagnostic.start.line + 1,
        };
      } else {
        failure = describeError(values[0], source, converted.output ?? "");
      }
    },
  };
  Object.assign(globalThis, { [DRAWS_FIGURES]: true });
  const executor = tslab<ExecutorModule>("executor").createExecutor(
    projectRoot,
    { node: ready, browser: ready, close() {} },
    reporting,
  );
  tslab<JupyterModule>("jupyter").lastWriteDisplayData = ({ data }) =>
    emit({ output_type: "display_data", data, metadata: {} });
  for (const name of ["stdout", "stderr"] as const) {
    process[name].write = (chunk: string | Uint8Array) => {
      const text = typeof chunk === "string"
        ? chunk
        : new TextDecoder().decode(chunk);
      emit({ output_type: "stream", name, text });
      return true;
    };
  }
  process.on("unhandledRejection", (reason) => {
    failure ??= describeError(reason, source, converted.output ?? "");
  });

  for (const cell of cells) {
    current = cell.index;
    source = cell.source;
    failure = null;
    send({ type: "start", current });
    wasRead = false;
    converted = await convert({ previous, source });
    const ok = await executor.execute(source);
    if (ok && wasRead) previous = converted.declOutput ?? ""; // as the executor does
    // Let what the cell started but did not wait for show its output or its error.
    await new Promise((resolve) => setTimeout(resolve, 5));
    const failed = failure as CellFailure | null;
    if (!ok || failed !== null) {
      send({
        type: "failure",
        current,
        failure: failed ?? {
          name: "Error",
          message: "The cell failed without a message",
          stack: [],
          line: 0,
        },
      });
      if (!cell.mayFail) break;
    }
  }
  process.send?.({ type: "end" } satisfies ToParent, () => process.exit(0));
}

process.once("message", (message: ToWorker) => {
  if (message.type !== "run") return;
  run(message.cells).catch((error: Error) => {
    process.send?.(
      {
        type: "broken",
        message: error.stack ?? String(error),
      } satisfies ToParent,
      () => process.exit(1),
    );
  });
});
