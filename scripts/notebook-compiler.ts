/**
 * Turns the cells of notebooks into JavaScript, with tslab's own converter: the one child of scripts/notebook.ts that
 * all notebooks of a process share.
 *
 * What takes long is to read the declarations that cells import, of this library and of its packages. They are the same
 * for every notebook, and a conversion depends on nothing else but the cell and the declarations of the cells before it.
 */
import process from "node:process";
import { projectRoot, tslab } from "./kernel.ts";

interface Diagnostic {
  start: { line: number; character: number };
  messageText: string;
  code: number;
  fileName?: string;
}

/** A cell as tslab's executor takes it: its JavaScript and its declarations, or what is wrong with it. */
export interface Converted {
  output?: string;
  declOutput?: string;
  diagnostics: Diagnostic[];
}

/** A cell, and the declarations of what the cells before it define. */
export interface Conversion {
  previous: string;
  source: string;
}

export type ToCompiler = Conversion & { id: number };
export type FromCompiler =
  | { id: number; converted: Converted }
  | { id: number; error: string };

interface ConverterModule {
  createConverter(options: object): {
    convert(previous: string, source: string): Converted;
  };
}

process.chdir(projectRoot);
const converter = tslab<ConverterModule>("converter").createConverter({});
process.on("message", ({ id, previous, source }: ToCompiler) => {
  const answer = (message: FromCompiler, then = () => {}) =>
    process.send?.(message, then);
  try {
    answer({ id, converted: converter.convert(previous, source) });
  } catch (error) {
    // What tslab keeps may be half done: the next cell gets a new compiler.
    const message = (error as Error).stack ?? String(error);
    answer({ id, error: message }, () => process.exit(1));
  }
});
// tslab watches the files it has read, which would keep the process alive.
process.on("disconnect", () => process.exit(0));
