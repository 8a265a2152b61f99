/**
 * Yosys as a library: runs a script in the WebAssembly build of the package @yowasp/yosys.
 *
 * Claire Wolf and others, Yosys Open SYnthesis Suite, github.com/YosysHQ/yosys (ISC licence), with
 * Berkeley's ABC inside. The package is loaded when the first script runs, which takes about a
 * second; further scripts start in a tenth of it.
 *
 * Scope: files in, files and messages out, errors with file, line and column. Yosys names no column
 * in a syntax error: the column is found by reading the text again, cut off after each place where
 * the unexpected word stands (see `syntaxErrorColumn`).
 */

/** Files of a run by name; text, or bytes for binary formats. */
export type YosysFiles = Record<string, string | Uint8Array>;

export interface YosysResult {
  /** What the script wrote, as text. */
  files: Record<string, string>;
  /** Warnings and errors, one each. Continuation lines stay with theirs. */
  messages: string[];
  /** Line of the error that stopped the script, if one did. */
  error?: string;
}

type Tree = { [name: string]: Tree | string | Uint8Array };

/** What is used of the package. */
interface YosysModule {
  runYosys(
    args: string[],
    files: Tree,
    options: {
      stdout: (bytes: Uint8Array | null) => void;
      stderr: (bytes: Uint8Array | null) => void;
    },
  ): Promise<Tree>;
  Exit: new (...args: never[]) => Error & { files: Tree };
}

/** Messages that a run printed; a line that starts with a blank continues the one before. */
function splitMessages(log: string): string[] {
  const messages: string[] = [];
  for (const line of log.split("\n")) {
    if (line.trim() === "") continue;
    if (/^\s/.test(line) && messages.length > 0) {
      messages[messages.length - 1] += `\n${line}`;
    } else messages.push(line);
  }
  return messages;
}

/**
 * Runs Yosys on files that exist only in memory.
 *
 * @param script Commands.
 * @param files Input files by name.
 * @param options.log Whether the messages hold all that Yosys says, warnings or not; false by default.
 * @returns Files that the script wrote, and its messages. A script that stops early gives what it
 *   had written, with `error`.
 *
 * @example
 * const { files: { "m.blif": blif } } = await runYosys(
 *   ["read_verilog m.v", "write_blif m.blif"],
 *   { "m.v": "module m(input a, output y); assign y = ~a; endmodule" },
 * );
 */
export async function runYosys(
  script: readonly string[],
  files: YosysFiles,
  { log: verbose = false }: { log?: boolean } = {},
): Promise<YosysResult> {
  // loaded here, as the package is 34 MB of WebAssembly
  const yosys = await import("@yowasp/yosys") as unknown as YosysModule;
  const decoder = new TextDecoder();
  let log = "";
  const write = (bytes: Uint8Array | null) => {
    if (bytes !== null) log += decoder.decode(bytes, { stream: true });
  };
  const printed: Uint8Array[] = [];
  const keep = (bytes: Uint8Array | null) => {
    if (bytes !== null) printed.push(bytes.slice());
  };
  let tree: Tree;
  let failed = false;
  try {
    tree = await yosys.runYosys(
      [
        "-Q",
        "-T",
        ...(verbose ? [] : ["-q"]),
        "-p",
        (verbose ? script : script.flatMap(printing)).join("\n"),
      ],
      { ...files },
      { stdout: verbose ? write : keep, stderr: write },
    );
  } catch (exit) {
    if (!(exit instanceof yosys.Exit)) throw exit;
    tree = exit.files;
    failed = true;
  }
  const written: Record<string, string> = {};
  for (const [name, content] of Object.entries(tree)) {
    if (name in files) continue;
    if (typeof content === "string") written[name] = content;
    else if (content instanceof Uint8Array) {
      written[name] = new TextDecoder().decode(content);
    }
  }
  Object.assign(written, printedFiles(printed));
  const messages = splitMessages(log);
  return failed
    ? {
      files: written,
      messages,
      error: messages.find((message) => message.includes("ERROR:")) ??
        "ERROR: Yosys stopped without a message",
    }
    : { files: written, messages };
}

/** Stands in the printed output before a file's name. */
const FILE_MARK = "==== adiabat file ";

/**
 * A command that writes a file as commands that print it: each of the many small writes to a file
 * copies all of it, which takes minutes for a file of some megabytes.
 */
function printing(command: string): string[] {
  const match = /^(write_(?:json|rtlil|blif)\b.*) (\S+)$/.exec(command);
  return match === null
    ? [command]
    : [`log -stdout ${FILE_MARK}${match[2]}`, `${match[1]} -`];
}

/** Files by name from what `printing` commands printed. */
function printedFiles(printed: readonly Uint8Array[]): Record<string, string> {
  const decoder = new TextDecoder();
  const text = printed.map((bytes) => decoder.decode(bytes, { stream: true }))
    .join("");
  return Object.fromEntries(
    text.split(FILE_MARK).slice(1).map((part) => {
      const end = part.indexOf("\n");
      return [part.slice(0, end).trim(), part.slice(end + 1)];
    }),
  );
}

/** A token of Verilog, roughly: enough to find a word in a line. */
const WORD =
  /\/\/.*|\/\*[^]*?\*\/|"(?:[^"\\]|\\.)*"|\\\S+|[\w$]+(?:'[\w?]+)?|'[\w?]+|<<<|>>>|===|!==|[=!<>]=|<<|>>|&&|\|\||\*\*|~[&|^]|\^~|\S/g;

/** Offsets after which the unexpected word of a message may end, in the line. */
function candidates(line: string, unexpected: string): number[] {
  const literal = /^'(.+)'$/.exec(unexpected)?.[1];
  const keyword = /^TOK_([A-Z0-9_]+)$/.exec(unexpected)?.[1].toLowerCase();
  const ends: number[] = [];
  for (const { 0: word, index } of line.matchAll(WORD)) {
    if (word.startsWith("//")) continue;
    const fits = literal !== undefined
      ? word.includes(literal)
      : keyword === "id"
      ? /^[A-Za-z_\\]/.test(word)
      : keyword !== undefined && new RegExp(`\\b${keyword}\\b`).test(line)
      ? word === keyword
      : true;
    if (fits) ends.push(index);
  }
  return ends;
}

/**
 * Column, from 1, of a syntax error, or undefined where it cannot be told.
 *
 * The parser stops at the first word that fits nowhere. If the text is cut off after that word, it
 * stops at the same word; if it is cut off before, it stops at the end of the file. So the first place
 * in the line at which the cut text still gives the same message is that word's: found by bisection.
 */
async function syntaxErrorColumn(
  script: readonly string[],
  files: YosysFiles,
  file: string,
  lineNumber: number,
  message: string,
): Promise<number | undefined> {
  const text = files[file];
  const unexpected = /unexpected ('.+?'|\w+)/.exec(message)?.[1];
  if (typeof text !== "string" || unexpected === undefined) return undefined;
  const lines = text.split("\n");
  const line = lines[lineNumber - 1] ?? "";
  const starts = candidates(line, unexpected);
  if (starts.length === 0) return undefined;
  const before = lines.slice(0, lineNumber - 1).join("\n") +
    (lineNumber > 1 ? "\n" : "");
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    const cut = before + line.slice(0, starts[middle + 1]);
    const { error } = await runYosys(script, { ...files, [file]: cut });
    if (error?.split(", expecting")[0] === message.split(", expecting")[0]) {
      high = middle;
    } else low = middle + 1;
  }
  return starts[low] + 1;
}

/**
 * The error that Yosys' message stands for.
 *
 * @param reading The commands that read the files, to find the column of a syntax error.
 * @param source.file Of the source, for messages that name none.
 * @param source.modules What the source has, for a module that it has not.
 */
export async function yosysError(
  message: string,
  reading: readonly string[],
  files: YosysFiles,
  { file: source, modules }: { file: string; modules: string[] },
): Promise<Error> {
  const match = /^(.+?):(\d+): ERROR: ([^]*)$/.exec(message);
  if (match === null) {
    const text = message.replace(/^.*?ERROR: /, "").replaceAll("\\", "");
    const line = /^Syntax error in line (\d+)!/.exec(text)?.[1];
    if (line !== undefined) {
      return new SyntaxError(`Cannot read ${source}:${line}: syntax error`);
    }
    const missing = /^Module `(.*)' not found!/.exec(text)?.[1];
    return new RangeError(
      missing === undefined
        ? `Cannot synthesise ${source}: ${text.trim()}`
        : `Cannot synthesise ${source} as it has no module ${missing}: its modules are ${
          modules.join(", ") || "none"
        }`,
    );
  }
  const [, file, line, text] = match;
  const column = text.includes("syntax error")
    ? await syntaxErrorColumn(reading, files, file, Number(line), message)
    : undefined;
  return new SyntaxError(
    `Cannot read ${file}:${line}${column === undefined ? "" : `:${column}`}: ${
      text.trim().replaceAll("\\", "")
    }`,
  );
}
