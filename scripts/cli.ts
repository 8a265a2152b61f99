/**
 * Helpers of the command-line scripts: one-line errors, overrides of a config, ages and durations
 * in words.
 */
import process from "node:process";
import type { Json } from "../lib/core/runs.ts";

/**
 * Runs a script's main function; an expected error is one line on stderr, an unexpected one keeps
 * its stack; exit code 1 either way.
 * A reader that leaves early, such as `| head`, ends the program quietly.
 */
export async function main(run: () => Promise<number | void>): Promise<void> {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit();
  });
  try {
    process.exitCode = await run() ?? 0;
  } catch (error) {
    console.error(describeError(error));
    process.exitCode = 1;
  }
}

/** Whether an error tells the reader what to do, rather than that the program is wrong. */
export function isExpected(message: string): boolean {
  return /^(Cannot|Unknown|error:)/.test(message);
}

/** One line for an expected error ("Cannot ...") and for a refusal of the file system, else the stack. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, path } = error as NodeJS.ErrnoException;
  if (path !== undefined && /^E[A-Z]+$/.test(code ?? "")) {
    return `Cannot use ${path} as the system refuses: ${error.message}; name another place or change its permissions`;
  }
  if (isExpected(error.message)) return error.message.split("\n")[0];
  return error.stack ?? error.message;
}

/**
 * Number of insertions, deletions, changes and swaps of neighbours that turn one word into the
 * other.
 */
function editDistance(a: string, b: string): number {
  const d = Array.from(
    { length: a.length + 1 },
    (_, i) => Array.from({ length: b.length + 1 }, (_, j) => i === 0 ? j : i),
  );
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const change = d[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      d[i][j] = Math.min(d[i - 1][j] + 1, d[i][j - 1] + 1, change);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        d[i][j] = Math.min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.length][b.length];
}

/** ` (did you mean "X"?)` if a known word is near, else nothing. */
export function didYouMean(word: string, known: string[]): string {
  const [best] = known
    .map((k) => ({ k, d: editDistance(word.toLowerCase(), k.toLowerCase()) }))
    .sort((a, b) => a.d - b.d);
  const near = best !== undefined &&
    best.d <= Math.max(1, Math.floor(word.length / 3));
  return near ? ` (did you mean "${best.k}"?)` : "";
}

type Node = Record<string, Json>;

/** Kind of a JSON value, for messages and for comparing an override with what it replaces. */
function kindOf(value: Json | undefined): string {
  if (Array.isArray(value)) return "list";
  return value === null ? "null" : typeof value;
}

/** Parses `text` as JSON; what is not JSON is a string. */
function parseValue(text: string): Json {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/**
 * A copy of `config` with `path=value` overrides: dotted paths, JSON values; only existing keys,
 * and of the same kind.
 */
export function applyOverrides<Config extends object>(
  config: Config,
  overrides: string[],
): Config {
  const copy = JSON.parse(JSON.stringify(config));
  for (const override of overrides) {
    const at = override.indexOf("=");
    if (at < 1) {
      throw new SyntaxError(
        `Cannot apply --set ${override} as key=value is required, such as --set seeds=3`,
      );
    }
    const path = override.slice(0, at).split(".");
    const value = parseValue(override.slice(at + 1));
    let node: Node = copy;
    for (const [depth, name] of path.entries()) {
      if (
        node === null || typeof node !== "object" || !Object.hasOwn(node, name)
      ) {
        const prefix = path.slice(0, depth).map((p) => `${p}.`).join("");
        const known = Object.keys(node ?? {}).map((k) => prefix + k);
        const asked = path.slice(0, depth + 1).join(".");
        throw new RangeError(
          `Cannot set unknown key "${asked}"${
            didYouMean(asked, known)
          }: known keys are ${known.join(", ")}`,
        );
      }
      if (depth < path.length - 1) node = node[name] as Node;
      else {
        const old = node[name];
        if (old !== null && kindOf(old) !== kindOf(value)) {
          throw new TypeError(
            `Cannot set "${path.join(".")}" as a value like ${
              JSON.stringify(old)
            } is required: ${override.slice(at + 1)}`,
          );
        }
        node[name] = value;
      }
    }
  }
  return copy;
}

/** Parses an option that must be a whole number from 1. */
export function positiveInteger(name: string): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(
        `Cannot use ${name} ${text} as a whole number from 1 is required`,
      );
    }
    return value;
  };
}

/** A duration in words: "0.4 s", "38 s", "3 min", "2.5 h", "4 days". */
export function duration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** Rows as text with aligned columns; long cells of the last column wrap. */
export function textTable(
  rows: string[][],
  { width = 100 }: { width?: number } = {},
): string {
  const widths = rows[0].map((_, j) =>
    Math.max(...rows.map((row) => row[j].length))
  );
  const last = widths.length - 1;
  const indent = widths.slice(0, last).reduce((sum, w) => sum + w + 2, 0);
  const room = Math.max(24, width - indent);
  return rows.map((row) => {
    const head = row.slice(0, last)
      .map((cell, j) => cell.padEnd(widths[j] + 2)).join("");
    return (head + wrap(row[last], room).join("\n" + " ".repeat(indent)))
      .trimEnd();
  }).join("\n");
}

/** Text broken at spaces into lines of at most `width` characters. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
