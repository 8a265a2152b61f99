/**
 * Netlists made here, compared with their RTL by programs that nobody here wrote.
 *
 * For every circuit of data/rtl: the mapped netlist and the one with buffers and splitters are written
 * as Verilog with models of their cells. Debian's yosys reads both the RTL and what was written,
 * berkeley-abc compares them (`cec`), and iverilog simulates them side by side on random patterns.
 * A netlist with one damaged gate must be found different.
 *
 *   node --import tsx scripts/referee/superflow_cec.ts [file.v ...]
 *
 * Programs that are not installed are named and left out:
 *   apt-get install yosys berkeley-abc iverilog
 */
import { execFileSync, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { writeVerilog } from "../../lib/core/formats/verilog.ts";
import { fold, key, randomInts } from "../../lib/core/rng.ts";
import { insertBuffers } from "../../lib/superflow/insertion.ts";
import { isGate, type Netlist, ports } from "../../lib/superflow/netlist.ts";
import { synthesise } from "../../lib/superflow/synthesis.ts";

const RTL = fileURLToPath(new URL("../../data/rtl/", import.meta.url));
const PATTERNS = 2000;

const installed = (program: string) =>
  spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;

const run = (program: string, args: string[], cwd: string) =>
  execFileSync(program, args, { cwd, encoding: "utf8", stdio: "pipe" });

/** True if yosys and berkeley-abc find the files to compute the same. */
function compare(
  folder: string,
  top: string,
  rtl: string,
  ours: string,
): boolean {
  for (const [file, blif] of [[rtl, "rtl.blif"], [ours, "ours.blif"]]) {
    run("yosys", [
      "-q",
      "-p",
      `read_verilog ${file}; hierarchy -top ${top}; proc; flatten; opt; techmap; splitnets -ports; opt; aigmap; write_blif ${blif}`,
    ], folder);
  }
  const answer = run("berkeley-abc", ["-c", "cec rtl.blif ours.blif"], folder);
  if (/are equivalent/.test(answer)) return true;
  if (/NOT EQUIVALENT/.test(answer)) return false;
  throw new Error(`berkeley-abc gave no verdict: ${answer}`);
}

/** Number of random patterns for which iverilog simulates different outputs. */
function simulate(
  folder: string,
  netlist: Netlist,
  rtl: string,
  ours: string,
): number {
  const top = netlist.name;
  const widths = (direction: "input" | "output") => {
    const result = new Map<string, number>();
    for (const i of ports(netlist, direction)) {
      const name = netlist.cells[i].name.replace(/\[\d+\]$/, "");
      result.set(name, (result.get(name) ?? 0) + 1);
    }
    return [...result];
  };
  const [inputs, outputs] = [widths("input"), widths("output")];
  const total = inputs.reduce((sum, [, width]) => sum + width, 0);
  const drawn = randomInts(fold(key(3), top), total * PATTERNS, 0, 2);
  const bits = Array.from(
    { length: PATTERNS },
    (_, p) => drawn.slice(p * total, (p + 1) * total).join(""),
  );
  fs.writeFileSync(path.join(folder, "patterns.txt"), bits.join("\n") + "\n");
  const list = (side: string) =>
    [
      ...inputs.map(([name]) => `.${name}(${name})`),
      ...outputs.map(([name]) => `.${name}(${name}_${side})`),
    ].join(", ");
  const sum = (side: string) =>
    outputs.map(([name]) => `${name}_${side}`).join(", ");
  fs.writeFileSync(
    path.join(folder, "bench.v"),
    `module bench;
  reg [${total - 1}:0] patterns [0:${PATTERNS - 1}];
  ${inputs.map(([name, width]) => `wire [${width - 1}:0] ${name};`).join(" ")}
  ${
      outputs.flatMap(([name, width]) =>
        ["rtl", "ours"].map((side) => `wire [${width - 1}:0] ${name}_${side};`)
      ).join(" ")
    }
  integer i, wrong = 0;
  reg [${total - 1}:0] pattern;
  assign {${inputs.map(([name]) => name).join(", ")}} = pattern;
  ${top} rtl (${list("rtl")});
  ${top}_ours ours (${list("ours")});
  initial begin
    $readmemb("patterns.txt", patterns);
    for (i = 0; i < ${PATTERNS}; i = i + 1) begin
      pattern = patterns[i];
      #1 if ({${sum("rtl")}} !== {${sum("ours")}}) wrong = wrong + 1;
    end
    $display("wrong %0d", wrong);
  end
endmodule
`,
  );
  const text = fs.readFileSync(path.join(folder, ours), "utf8");
  fs.writeFileSync(
    path.join(folder, "renamed.v"),
    text.replace(`module ${top} (`, `module ${top}_ours (`),
  );
  run(
    "iverilog",
    ["-g2005", "-o", "bench", "-s", "bench", "bench.v", rtl, "renamed.v"],
    folder,
  );
  return Number(/wrong (\d+)/.exec(run("vvp", ["bench"], folder))![1]);
}

/** The netlist with one input of its last gate inverted. */
function damaged(netlist: Netlist): Netlist {
  const copy = structuredClone({ name: netlist.name, cells: netlist.cells });
  const gate = copy.cells.findLast(isGate)!;
  gate.inputs[0].inverted = !gate.inputs[0].inverted;
  return copy;
}

async function main(): Promise<void> {
  const cec = installed("yosys") && installed("berkeley-abc");
  const simulation = installed("iverilog") && installed("vvp");
  for (const program of ["yosys", "berkeley-abc", "iverilog"]) {
    if (!installed(program)) console.log(`${program} is not installed`);
  }
  if (!cec && !simulation) {
    console.log("No referee is installed: nothing was compared.");
    return;
  }
  const given = process.argv.slice(2);
  const files = given.length > 0
    ? given
    : fs.readdirSync(RTL).filter((file) => file.endsWith(".v")).map((file) =>
      path.join(RTL, file)
    );
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "superflow-"));
  let failures = 0;
  try {
    for (const file of files) {
      const mapped = await synthesise({ path: file });
      const levelled = await insertBuffers(mapped, { levels: "alap" });
      fs.copyFileSync(file, path.join(folder, "rtl.v"));
      const verdicts: string[] = [];
      for (
        const [stage, netlist, same] of [
          ["mapped", mapped, true],
          ["balanced", levelled, true],
          ["damaged", damaged(mapped), false],
        ] as const
      ) {
        fs.writeFileSync(
          path.join(folder, "ours.v"),
          writeVerilog(netlist, { models: true }),
        );
        if (cec) {
          const equal = compare(folder, netlist.name, "rtl.v", "ours.v");
          if (equal !== same) failures++;
          verdicts.push(`${stage} ${equal ? "equivalent" : "different"}`);
        }
        if (simulation && same) {
          const wrong = simulate(folder, netlist, "rtl.v", "ours.v");
          if (wrong > 0) failures++;
          verdicts.push(`${wrong} of ${PATTERNS} patterns wrong`);
        }
      }
      console.log(`${mapped.name}: ${verdicts.join(", ")}`);
    }
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
  console.log(failures === 0 ? "The referees agree." : `${failures} failures`);
  if (failures > 0) process.exitCode = 1;
}

await main();
