/** The command of the flow: what it writes, and what it refuses in one line. */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readVerilog } from "../lib/core/formats/verilog.ts";
import { projectRoot } from "../lib/core/runs.ts";
import { ports } from "../lib/superflow/netlist.ts";

function run(...args: string[]) {
  return spawnSync(
    process.execPath,
    // with this process's own options: the loader, and how to compile Yosys
    [...process.execArgv, join(projectRoot(), "scripts/superflow.ts"), ...args],
    { encoding: "utf8", cwd: projectRoot() },
  );
}

test("the command writes all files, and the netlist reads back", () => {
  const folder = mkdtempSync(join(tmpdir(), "adiabat-superflow-"));
  try {
    const out = join(folder, "out");
    const { status, stdout, stderr } = run("data/rtl/c17.v", "-o", out);
    assert.is(status, 0, stderr);
    assert.ok(stdout.includes("equivalent to the source"));
    assert.equal(readdirSync(out).sort(), [
      "c17.aqfp.v",
      "c17.gds",
      "c17.json",
      "c17.lyp",
      "c17.placement.json",
      "c17.svg",
    ]);
    const netlist = readVerilog(readFileSync(join(out, "c17.aqfp.v"), "utf8"), {
      top: "c17",
    });
    assert.is(ports(netlist, "input").length, 5);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("a bad source or option is one line, exit code 1, and leaves nothing behind", () => {
  const folder = mkdtempSync(join(tmpdir(), "adiabat-superflow-"));
  try {
    const source = (name: string, text: string) => {
      const path = join(folder, name);
      writeFileSync(path, text);
      return path;
    };
    const out = join(folder, "out");
    const wrong = source(
      "wrong.v",
      "module m (input a, output y);\n  assign y = a &;\nendmodule\n",
    );
    const register = source(
      "register.v",
      "module m (input clk, d, output reg q); always @(posedge clk) q <= d; endmodule\n",
    );
    const library = source("library.json", `{"name": "x"}`);
    const clock = source("clock.json", `{"freqGHz": 5}`);
    const bare = source("bare", "");
    for (
      const [args, said] of [
        [[wrong], /wrong\.v.*2/],
        [[register], /register.*q/],
        [[join(folder, "none.v")], /none\.v/],
        [["data/rtl/c17.v", "--library", library], /cell library/],
        [["data/rtl/c17.v", "--clock", clock], /freqGHz/],
        [["data/rtl/c17.v", "--seed", "x"], /--seed x/],
        [[bare], /a name without extension is none of/],
      ] as [string[], RegExp][]
    ) {
      const { status, stderr } = run(...args, "-o", out);
      assert.is(status, 1, stderr);
      assert.is(stderr.trim().split("\n").length, 1, stderr);
      assert.match(stderr, said);
      assert.not(existsSync(out));
    }
    // Refused before any work: the source is not even read.
    const file = run(join(folder, "none.v"), "-o", join(wrong, "below"));
    assert.is(file.status, 1);
    assert.match(file.stderr, /wrong\.v as it must be a folder: it is a file/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
