/**
 * Synthesis: from RTL to a netlist of adiabatic quantum-flux-parametron (AQFP) gates.
 *
 * Y. Xie et al., "SuperFlow: A Fully-Customized RTL-to-GDS Design Automation Flow for Adiabatic
 * Quantum-Flux-Parametron Superconducting Circuits", DATE 2024, arXiv 2407.18209: synthesis "based on
 * CMOS technology", then mapping to majority logic. Here: Yosys reads the source and ABC minimises the
 * logic as and, or and inverter; `mapToMajority` covers that with majority gates.
 *
 *   source --Yosys--> reference --ABC--> optimised --mapToMajority--> netlist
 *
 * `reference` is the source as Yosys' word operators expand, before any logic minimisation: what
 * everything later is proven equal to, by `checkEquivalence`, before this file returns it.
 *
 * Scope: combinational Verilog, BLIF and AIGER, and structural Verilog (ISCAS and AQFP cells), which
 * needs no Yosys. Registers, latches and tri-state buffers are refused by name: an AQFP gate is its own
 * pipeline stage, so a register has no counterpart, and feedback needs a design of its own.
 */
import { readFile, stat } from "node:fs/promises";
import { basename, extname } from "node:path";
import { readVerilog } from "../core/formats/verilog.ts";
import { checkEquivalence, describeCounterexample } from "./equivalence.ts";
import {
  estimateJunctions,
  type MappingOptions,
  mapToMajority,
} from "./majority.ts";
import { Mig, netlistOf } from "./mig.ts";
import { moduleNames, rootModules } from "./modules.ts";
import { checkNetlist, isGate, type Netlist } from "./netlist.ts";
import { runYosys, yosysError, type YosysFiles } from "./yosys.ts";

/** `"netlist"` is structural Verilog, read as it is; `"verilog"` is RTL. */
export type SourceFormat =
  | "verilog"
  | "systemverilog"
  | "blif"
  | "aiger"
  | "netlist";

/** A design: a file, or text. */
export interface SynthesisSource {
  path?: string;
  text?: string | Uint8Array;
  /** By the file's extension unless given; text alone is Verilog. */
  format?: SourceFormat;
  /** Module to synthesise; the one that no other uses, unless given. Must be if there are several. */
  top?: string;
  /** Further files by the names that `include` uses. */
  include?: Record<string, string>;
}

export interface SynthesisOptions extends MappingOptions {
  /** How `+`, `-` and comparisons are built; `"lookahead"` is Yosys' own, shallow and large. */
  carry?: "ripple" | "lookahead";
  /** Whether ABC minimises the logic first; true by default. */
  optimise?: boolean;
  /**
   * Most gates of the design before minimisation; more are refused as soon as they are counted.
   * Default 30,000, ours: 20,000 take some minutes to the legalised netlist, and the time grows faster
   * than they.
   */
  maxGates?: number;
}

/** Default of `maxGates`. */
const MAX_GATES = 30_000;

function refuseSize(file: string, gates: number, maxGates: number): void {
  if (gates <= maxGates) return;
  throw new RangeError(
    `Cannot synthesise ${file} as a design must have at most ${maxGates} gates, for mapping and proof to end within minutes: it has ${gates} or more; give its modules one by one, or raise maxGates`,
  );
}

/** All that synthesis knows of a design. */
export interface Synthesis {
  /** The source, expanded to gates and not minimised. */
  reference: Netlist;
  /** After ABC: and, or with inverted inputs. */
  optimised: Netlist;
  /** Majority gates, proven equal to the reference. */
  netlist: Netlist;
  /** Warnings of the reader, such as identifiers declared by use. */
  warnings: string[];
}

const EXTENSIONS: Record<string, SourceFormat> = {
  v: "verilog",
  sv: "systemverilog",
  blif: "blif",
  aag: "aiger",
  aig: "aiger",
};

const FILE_ENDING: Record<SourceFormat, string> = {
  verilog: "v",
  systemverilog: "sv",
  netlist: "v",
  blif: "blif",
  aiger: "aig",
};

/** Carry of one bit after the other, in place of Yosys' lookahead: techmap rule for `$alu`. */
const RIPPLE_CARRY = `(* techmap_celltype = "$alu" *)
module ripple_alu (A, B, CI, BI, X, Y, CO);
  parameter A_SIGNED = 0;
  parameter B_SIGNED = 0;
  parameter A_WIDTH = 1;
  parameter B_WIDTH = 1;
  parameter Y_WIDTH = 1;
  (* force_downto *) input [A_WIDTH-1:0] A;
  (* force_downto *) input [B_WIDTH-1:0] B;
  input CI, BI;
  (* force_downto *) output [Y_WIDTH-1:0] X, Y, CO;
  (* force_downto *) wire [Y_WIDTH-1:0] a, plain;
  \\$pos #(.A_SIGNED(A_SIGNED), .A_WIDTH(A_WIDTH), .Y_WIDTH(Y_WIDTH)) extend_a (.A(A), .Y(a));
  \\$pos #(.A_SIGNED(B_SIGNED), .A_WIDTH(B_WIDTH), .Y_WIDTH(Y_WIDTH)) extend_b (.A(B), .Y(plain));
  (* force_downto *) wire [Y_WIDTH-1:0] b = BI ? ~plain : plain;
  (* force_downto *) wire [Y_WIDTH:0] c = {CO, CI};
  assign X = a ^ b;
  assign Y = X ^ c[Y_WIDTH-1:0];
  assign CO = (a & b) | (a & c[Y_WIDTH-1:0]) | (b & c[Y_WIDTH-1:0]);
endmodule
`;

/** Minimisation before the mapping to and and inverter: rewriting until little changes. */
const ABC_SCRIPT =
  "strash; ifraig; scorr; dc2; dc2; strash; ifraig; dch -f; map -a; strash; dc2; dch -f; map -a";

/** Cells of Yosys that hold state or drive with strength, and what they are called. */
const REFUSED: [RegExp, string][] = [
  [/^\$_?(?:d|ad|al|sr|dffsr)?latch/i, "latch"],
  [/^\$_?(?:DLATCH|SR_)/, "latch"],
  [/^\$_?(?:[as]?l?dff|dff|ff|sr$|anyinit)/i, "register"],
  [/^\$_?(?:AL?DFF|SDFF|DFF|FF_)/, "register"],
  [/^\$mem/, "memory"],
  [/^\$_?tribuf/i, "tri-state buffer"],
];

/** The part of Yosys' JSON that is read here. A bit is the number of a net or a constant. */
type Bit = number | "0" | "1" | "x" | "z";
interface JsonModule {
  attributes: Record<string, string>;
  ports: Record<
    string,
    {
      direction: "input" | "output" | "inout";
      bits: Bit[];
      offset?: number;
      upto?: number;
    }
  >;
  cells: Record<
    string,
    {
      type: string;
      attributes: Record<string, string>;
      connections: Record<string, Bit[]>;
    }
  >;
  netnames: Record<
    string,
    { bits: Bit[]; hide_name: number; attributes: Record<string, string> }
  >;
}

function topModule(text: string): [string, JsonModule] {
  const { modules } = JSON.parse(text) as {
    modules: Record<string, JsonModule>;
  };
  const entries = Object.entries(modules);
  const top =
    entries.find(([, { attributes }]) => Number(attributes?.top) === 1) ??
      entries[0];
  if (top === undefined) {
    throw new RangeError(
      "Cannot synthesise as the source must have a module: it has none",
    );
  }
  return top;
}

/** `file:line:column` of Yosys' `file:line.column-line.column`. */
function position(attributes?: Record<string, string>): string {
  const match = /^([^|]*?):(\d+)\.(\d+)/.exec(attributes?.src ?? "");
  return match === null ? "" : ` at ${match[1]}:${match[2]}:${match[3]}`;
}

/** Refuses registers, latches, memories and tri-state buffers, by name and place. */
function refuseState([module, { cells, netnames }]: [string, JsonModule]) {
  const found: string[] = [];
  for (
    const [name, { type, attributes, connections }] of Object.entries(cells)
  ) {
    const kind = REFUSED.find(([pattern]) => pattern.test(type))?.[1];
    if (kind === undefined) continue;
    const [bit] = connections.Q ?? connections.Y ?? connections.RD_DATA ?? [];
    const net = Object.entries(netnames).find(([, { bits, hide_name }]) =>
      hide_name === 0 && bits.includes(bit)
    );
    const bits = (connections.Q ?? connections.Y ?? []).length;
    found.push(
      `${kind} ${net?.[0] ?? name}${bits > 1 ? ` (${bits} bits)` : ""}${
        position(attributes)
      }`,
    );
  }
  if (found.length === 0) return;
  const hints = [
    ["latch", "; a latch is often a case that leaves a variable unassigned"],
    [
      "register",
      "; cut it open: take its value as an input and give its next value as an output, `input q, output q_next` and `assign q_next = d;` instead of `always @(posedge clk) q <= d;`",
    ],
  ].flatMap(([kind, hint]) =>
    found.some((text) => text.startsWith(kind)) ? [hint] : []
  );
  throw new RangeError(
    `Cannot synthesise ${module} as the design must be combinational: it has ${
      found.slice(0, 5).join(", ")
    }${found.length > 5 ? ` and ${found.length - 5} more` : ""}${
      hints.join("")
    }`,
  );
}

/**
 * Turns what `check` found (loops, nets with several drivers or none) into an error.
 *
 * @param nets The module's nets, where they are known: tell where a net without driver stands.
 */
function refuseProblems(
  module: string,
  messages: string[],
  nets: JsonModule["netnames"] = {},
): void {
  const clean = (text: string) =>
    text.replaceAll(`${module}.\\`, "").replaceAll("\\", "");
  for (const message of messages) {
    if (message.includes("found logic loop")) {
      const wires = [...message.matchAll(/wire \\?(\S+) source: (\S+)/g)].map((
        [, wire, src],
      ) => `${wire} (${src.replace(/\.(\d+)-.*$/, ":$1")})`);
      // the same loop is reported from several cells, only once with all of its wires
      const cells = [...message.matchAll(/source: (\S+)/g)].map(([, src]) =>
        src.replace(/\.(\d+)-.*$/, ":$1")
      );
      const others = messages.filter((other) =>
        other.includes("found logic loop") && other.includes("wire ")
      );
      if (wires.length === 0 && others.length > 0) continue;
      throw new RangeError(
        `Cannot synthesise ${module} as combinational logic must have no loop: through ${
          (wires.length > 0 ? wires : cells).join(" -> ")
        }`,
      );
    }
    const multiple = /multiple conflicting drivers for (\S+):([^]*)/.exec(
      message,
    );
    if (multiple !== null && !/\.\$/.test(multiple[1])) {
      const places = [...multiple[2].matchAll(/\$([^$\s]+:\d+)\$/g)].map((
        [, place],
      ) => place);
      throw new RangeError(
        `Cannot synthesise ${module} as every net must have one driver: ${
          clean(multiple[1].replace(`${module}.`, ""))
        } has several${
          places.length > 0 ? `, at ${[...new Set(places)].join(" and ")}` : ""
        }`,
      );
    }
    const undriven = /Wire (\S+?)( \[\d+\])? is used but has no driver/.exec(
      message,
    );
    if (undriven !== null) {
      const net = clean(undriven[1].replace(`${module}.`, ""));
      const undeclared = messages.some((other) =>
        clean(other).includes(`Identifier \`${net}' is implicitly declared`)
      );
      throw new RangeError(
        `Cannot synthesise ${module} as every net must have a driver: ${net}${
          undriven[2]?.trim() ?? ""
        } has none${position(nets[net]?.attributes)}${
          undeclared ? "; it is not declared: is the name misspelt?" : ""
        }`,
      );
    }
    if (message.includes("tri-state")) {
      const place = /\(([^()]+:\d+)\)\s*$/.exec(message)?.[1];
      throw new RangeError(
        `Cannot synthesise ${module} as it must have no tri-state logic${
          place === undefined ? "" : `: ${place}`
        }`,
      );
    }
  }
}

/** The gates of Yosys after `techmap`, as functions of literals of a graph. */
const GATES: Record<
  string,
  (mig: Mig, pin: (name: string) => number) => number
> = {
  $_BUF_: (_, p) => p("A"),
  $_NOT_: (_, p) => p("A") ^ 1,
  $_AND_: (mig, p) => mig.and(p("A"), p("B")),
  $_NAND_: (mig, p) => mig.and(p("A"), p("B")) ^ 1,
  $_OR_: (mig, p) => mig.or(p("A"), p("B")),
  $_NOR_: (mig, p) => mig.or(p("A"), p("B")) ^ 1,
  $_XOR_: (mig, p) => mig.xor(p("A"), p("B")),
  $_XNOR_: (mig, p) => mig.xor(p("A"), p("B")) ^ 1,
  $_ANDNOT_: (mig, p) => mig.and(p("A"), p("B") ^ 1),
  $_ORNOT_: (mig, p) => mig.or(p("A"), p("B") ^ 1),
  $_MUX_: (mig, p) =>
    mig.or(mig.and(p("S"), p("B")), mig.and(p("S") ^ 1, p("A"))),
};

/** Names of the bits of a port, right-hand bit first as in `bits`. */
function bitNames(
  jsonName: string,
  { bits, offset = 0, upto = 0 }: JsonModule["ports"][string],
): string[] {
  // Yosys leaves its own mark before names that start with $, a backslash or a digit
  const name = jsonName.replace(/^\\(?=[$\\\d])/, "");
  const scalar = bits.length === 1 && offset === 0;
  return bits.map((_, i) =>
    scalar ? name : `${name}[${offset + (upto ? bits.length - 1 - i : i)}]`
  );
}

/** The netlist of a module of gates in Yosys' JSON. */
function netlistOfJson([name, module]: [string, JsonModule]): Netlist {
  const mig = new Mig();
  const literals = new Map<Bit, number>([["0", 0], ["1", 1], ["x", 0]]);
  const inputs: string[] = [];
  const outputs: { name: string; bit: Bit }[] = [];
  for (const [portName, port] of Object.entries(module.ports)) {
    const names = bitNames(portName, port);
    if (port.direction === "inout") {
      throw new RangeError(
        `Cannot synthesise ${name} as ports must be input or output: ${portName} is inout`,
      );
    }
    port.bits.forEach((bit, i) => {
      if (port.direction === "input") {
        inputs.push(names[i]);
        literals.set(bit, mig.input());
      } else outputs.push({ name: names[i], bit });
    });
  }
  if (outputs.length === 0) {
    throw new RangeError(
      `Cannot synthesise ${name} as a design must have an output: it has ${inputs.length} inputs and no outputs`,
    );
  }
  const driver = new Map<Bit, [string, JsonModule["cells"][string]]>();
  for (const entry of Object.entries(module.cells)) {
    const bit = entry[1].connections.Y?.[0];
    if (bit !== undefined) driver.set(bit, entry);
  }
  const label = (bit: Bit) =>
    Object.entries(module.netnames).find(([, { bits }]) => bits.includes(bit))
      ?.[0] ?? String(bit);
  /** Depth first without recursion: chains of gates are as long as a multiplier is wide. */
  const build = (root: Bit) => {
    const stack = [root];
    while (stack.length > 0) {
      const bit = stack[stack.length - 1];
      if (literals.has(bit)) {
        stack.pop();
        continue;
      }
      const entry = driver.get(bit);
      if (entry === undefined) {
        throw new RangeError(
          `Cannot synthesise ${name} as every net must have a driver: ${
            label(bit)
          } has none`,
        );
      }
      const [cellName, { type, connections, attributes }] = entry;
      const gate = GATES[type];
      if (gate === undefined) {
        throw new RangeError(
          `Cannot synthesise ${name} as its logic must expand to gates: cell ${cellName} is ${type}${
            position(attributes)
          }`,
        );
      }
      const missing = Object.entries(connections).flatMap(([pin, [from]]) =>
        pin !== "Y" && !literals.has(from) ? [from] : []
      );
      if (missing.length > 0) {
        stack.push(...missing);
        continue;
      }
      literals.set(bit, gate(mig, (pin) => literals.get(connections[pin][0])!));
      stack.pop();
    }
  };
  for (const { bit } of outputs) build(bit);
  const netlist = netlistOf(mig, outputs.map(({ bit }) => literals.get(bit)!), {
    name,
    inputs,
    outputs: outputs.map(({ name }) => name),
  });
  checkNetlist(netlist);
  return netlist;
}

/** What `elaborate` gives: the design as gates, before and after minimisation. */
export interface Elaboration {
  reference: Netlist;
  optimised: Netlist;
  warnings: string[];
}

/** Content, name and format of a source. */
async function openSource(
  source: SynthesisSource,
): Promise<
  { file: string; content: string | Uint8Array; format: SourceFormat }
> {
  const { path, text } = source;
  if ((path === undefined) === (text === undefined)) {
    throw new TypeError(
      `Cannot synthesise as a source must have either a path or a text: ${
        path === undefined ? "neither is given" : "both are given"
      }`,
    );
  }
  const found = path === undefined
    ? undefined
    : await stat(path).catch(() => undefined); // a file that is not there is told below
  if (found?.isDirectory()) {
    throw new RangeError(
      `Cannot synthesise ${path} as it must be a file: it is a folder`,
    );
  }
  const extension = path === undefined ? ".v" : extname(path).toLowerCase();
  const format = source.format ?? EXTENSIONS[extension.slice(1)];
  if (format === undefined) {
    throw new RangeError(
      `Cannot synthesise ${path} as its format must be known: ${
        extension || "a name without extension"
      } is none of ${
        Object.keys(EXTENSIONS).map((e) => `.${e}`).join(", ")
      }; name the format`,
    );
  }
  // blanks and quotes in a name would end a word of Yosys' script
  const file = (path === undefined ? "" : basename(path)).replace(
    /[^\w.+-]/g,
    "_",
  ) ||
    `design.${FILE_ENDING[format]}`;
  if (text !== undefined) return { file, content: text, format };
  const bytes = await readFile(path!).catch((error: Error) => {
    throw new RangeError(
      `Cannot synthesise as the file must be readable: ${error.message}`,
    );
  });
  return {
    file,
    content: format === "aiger"
      ? new Uint8Array(bytes)
      : new TextDecoder().decode(bytes),
    format,
  };
}

/** Yosys' command that reads a source. */
function readCommand(
  file: string,
  format: SourceFormat,
  top: string | undefined,
): string {
  switch (format) {
    case "blif":
      return `read_blif ${file}`;
    case "aiger":
      return `read_aiger -module_name ${
        top ?? file.replace(/\.[^.]*$/, "").replace(/^(?=\d)|[^\w]/g, "_")
      } ${file}`;
    case "systemverilog":
      return `read_verilog -sv ${file}`;
    default:
      return `read_verilog ${file}`;
  }
}

/**
 * The design as gates: `reference` before and `optimised` after logic minimisation.
 *
 * @param source See `SynthesisSource`.
 * @param options.carry `"lookahead"` (default) or `"ripple"`.
 * @param options.optimise Runs ABC; true by default.
 * @throws SyntaxError with file, line and column for text that cannot be read.
 * @throws RangeError for registers, latches, loops, nets with no driver or several, missing modules,
 *   several modules that no other uses, designs without outputs; each names what it is about.
 */
export async function elaborate(
  source: SynthesisSource,
  { carry = "lookahead", optimise = true, maxGates = MAX_GATES }:
    SynthesisOptions = {},
): Promise<Elaboration> {
  const { file, content, format } = await openSource(source);
  if (format === "netlist") {
    const text = typeof content === "string"
      ? content
      : new TextDecoder().decode(content);
    const netlist = readVerilog(text, { file, top: source.top });
    refuseSize(file, netlist.cells.filter(isGate).length, maxGates);
    return { reference: netlist, optimised: netlist, warnings: [] };
  }
  const { top } = source;
  if (top !== undefined && !/^[\w$.]+$/.test(top)) {
    throw new RangeError(
      `Cannot synthesise as the top module must be a plain name: ${
        JSON.stringify(top)
      }`,
    );
  }
  const files: YosysFiles = { ...source.include, [file]: content };
  const reading = [readCommand(file, format, top)];
  const stateful =
    "t:$*dff* t:$*latch* t:$*ff t:$sr t:$mem* t:$_*FF* t:$_*LATCH* t:$_SR* t:$*tribuf* %%";
  const script = [
    ...reading,
    "write_rtlil read.il",
    `hierarchy -check ${top === undefined ? "-auto-top" : `-top ${top}`}`,
    "tee -q -o kept.txt ls",
    "tee -q -o top.txt select -list-mod A:top=1",
    "proc",
    "flatten",
    `select -assert-max ${maxGates} t:*`,
    // gives nets the names of the source, which `check` then prints
    "opt_clean",
    "check",
    "tribuf",
    "setundef -zero",
    "opt",
    "memory",
    "opt",
    "write_json word.json",
    `select -assert-none ${stateful.replace(" %%", "")}`,
    ...(carry === "ripple"
      ? ["alumacc", "techmap -map ripple.v", "techmap"]
      : ["techmap"]),
    "opt_clean",
    "simplemap",
    "opt_clean",
    "write_json reference.json",
    ...(optimise
      ? [
        "opt",
        `select -assert-max ${maxGates} t:*`,
        `abc -g AND -script +${
          ABC_SCRIPT.replaceAll("; ", ";").replaceAll(" ", ",")
        }`,
        "opt_clean",
        "write_json optimised.json",
      ]
      : []),
  ];
  const run = await runYosys(script, { ...files, "ripple.v": RIPPLE_CARRY });
  const tooLarge = /selection contains (\d+) elements, more than the maximum/
    .exec(run.error ?? "");
  if (tooLarge !== null) refuseSize(file, Number(tooLarge[1]), maxGates);
  const { "word.json": word, "read.il": read } = run.files;
  const { "kept.txt": kept, "top.txt": chosen } = run.files;
  const roots = top === undefined && chosen !== undefined
    ? rootModules(read, kept, chosen.trim())
    : [];
  if (roots.length > 1) {
    throw new RangeError(
      `Cannot synthesise ${file} as one module must be the top: no other module uses ${
        roots.join(", ")
      }; name one of them as top`,
    );
  }
  const stopped = (error: string) =>
    yosysError(error, reading, files, {
      file,
      modules: read === undefined ? [] : moduleNames(read),
    });
  if (word === undefined && run.error !== undefined) {
    const before = run.messages.filter((message) => message !== run.error);
    refuseProblems(top ?? "the design", before);
    throw await stopped(run.error);
  }
  const module = topModule(word);
  refuseState(module);
  refuseProblems(module[0], run.messages, module[1].netnames);
  if (run.error !== undefined) {
    throw await stopped(run.error);
  }
  const reference = netlistOfJson(topModule(run.files["reference.json"]));
  const warnings = run.messages.map((message) => message.replaceAll("\\", ""));
  if (!optimise) return { reference, optimised: reference, warnings };
  const optimised = netlistOfJson(topModule(run.files["optimised.json"]));
  return { reference, optimised, warnings };
}

/**
 * All stages of synthesis: the design before and after minimisation, and as majority gates.
 *
 * @param source A file or text: Verilog, BLIF, AIGER, or structural Verilog (`format: "netlist"`).
 * @param options See `MappingOptions` and `SynthesisOptions`.
 * @throws What `elaborate` throws, and an error with a counterexample should the result not compute what
 *   the source says.
 */
export async function synthesiseStages(
  source: SynthesisSource,
  options: SynthesisOptions = {},
): Promise<Synthesis> {
  const { reference, optimised, warnings } = await elaborate(source, options);
  // minimising and and inverter can lose what majority is good at, such as carries
  const candidates = [await mapToMajority(optimised, options)];
  if (optimised !== reference) {
    candidates.push(await mapToMajority(reference, options));
  }
  const [netlist] = candidates.map((candidate) => ({
    candidate,
    junctions: estimateJunctions(candidate),
  })).sort((a, b) => a.junctions - b.junctions).map((c) => c.candidate);
  const { counterexample } = checkEquivalence(reference, netlist);
  if (counterexample !== undefined) {
    throw new Error(
      `Cannot give a netlist of ${reference.name} as it must compute what the source says: ${
        describeCounterexample(counterexample)
      }`,
    );
  }
  return { reference, optimised, netlist, warnings };
}

/**
 * The netlist of a design as majority gates: and, or and maj with inverted inputs, any fan-out, no
 * buffers; proven equal to the source.
 *
 * @example
 * const netlist = await synthesise({
 *   text: "module add(input a, b, c, output [1:0] s); assign s = a + b + c; endmodule",
 * });
 */
export async function synthesise(
  source: SynthesisSource,
  options: SynthesisOptions = {},
): Promise<Netlist> {
  return (await synthesiseStages(source, options)).netlist;
}
