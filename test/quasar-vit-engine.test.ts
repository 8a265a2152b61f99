/** Emitted array: packed blocks and gates of the Verilog against plain integers; a broken array is noticed. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { key, randomInts } from "../lib/core/rng.ts";
import {
  assignRows,
  emitArray,
  integerProduct,
  type MixedRows,
  packedProduct,
} from "../lib/quasar-vit/engine.ts";
import {
  countCells,
  emitBench,
  simulateArray,
} from "../lib/quasar-vit/engine-check.ts";
import { UNCALIBRATED, YOSYS_LUTS } from "../lib/quasar-vit/fpga.ts";
import { runYosys } from "../lib/superflow/yosys.ts";

const bits = [8, 4, 8, 4, 4];
const inputs = 5;
const codes = Int8Array.from(
  randomInts(key(1), bits.length * inputs, 0, 256),
  (x, i) => bits[Math.floor(i / inputs)] === 8 ? x - 128 : (x & 15) - 8,
);
const weights: MixedRows = { codes, bits, outputs: bits.length, inputs };
const activations = Array.from(
  randomInts(key(2), 3 * inputs, 0, 96),
  (x) => x - 32,
);
const expected = integerProduct(weights, activations);

test("plain integers by hand", () => {
  const one: MixedRows = {
    codes: Int8Array.from([100, -3, 7, -8]),
    bits: [8, 4],
    outputs: 2,
    inputs: 2,
  };
  assert.equal([...integerProduct(one, [2, -1])], [203, 22]);
});

test("rows fill elements: two nibbles for 8 bits, the third for a narrow row", () => {
  assert.equal(assignRows([8, 4, 4, 4, 4], 3).map(({ rows }) => rows), [
    [0, 0, 1],
    [2, 3, 4],
  ]);
  assert.equal(assignRows([4, 8, 4, 4], 4).map(({ rows }) => rows), [
    [1, 1],
    [0, 2],
    [3, -1],
  ]);
  assert.throws(() => assignRows([4, 6], 4), /4 or 8 bits: 6 in row 1/);
});

test("packed blocks give the integers", () => {
  assert.equal(packedProduct(weights, activations, 3).y, expected);
  assert.equal(packedProduct(weights, activations, 4).y, expected);
  const wrong = { ...weights, bits: [4, 4, 4, 4, 4] };
  assert.throws(() => packedProduct(wrong, activations, 4), /4-bit row/);
});

test("gates that Yosys makes of the Verilog give the integers, and not those of a broken array", async () => {
  const options = {
    factor: 4,
    elements: 1,
    depth: 1,
    accumulatorBits: 16,
  } as const;
  assert.equal(
    await simulateArray(runYosys, weights, activations, options),
    expected,
  );
  const verilog = emitArray(options);
  const broken = verilog.replace(/ \+ \(i == 0 \? 11'd0[^;]*;/, ";"); // without the repair of borrows
  assert.ok(broken !== verilog);
  const result = await simulateArray(
    runYosys,
    weights,
    activations,
    options,
    broken,
  );
  assert.ok(result.some((y, i) => y !== expected[i]));
});

test("LUTs of a block are those that Yosys counts, and more than the model takes", async () => {
  const { dsp, lut } = await countCells(runYosys, {
    factor: 4,
    elements: 1,
    depth: 4,
  });
  assert.is(dsp, 4);
  assert.is(lut / dsp, YOSYS_LUTS.lutPerDsp4);
  for (const name of ["lutPerDsp3", "lutPerDsp4", "lutPerAtom"] as const) {
    assert.ok(UNCALIBRATED[name].value < YOSYS_LUTS[name], name);
  }
});

test("the bench has each sum of the product once; iverilog agrees where there is one", () => {
  for (const factor of [3, 4] as const) {
    const options = { factor, elements: 2, depth: 4 };
    const bench = emitBench(weights, activations, expected, options);
    assert.is(bench.match(/^ {4}check\(/gm)?.length, expected.length);
    if (spawnSync("iverilog", ["-V"]).status !== 0) continue;
    const folder = mkdtempSync(join(tmpdir(), "adiabat-"));
    try {
      const [array, test, out] = ["array.v", "bench.v", "out"].map((name) =>
        join(folder, name)
      );
      writeFileSync(array, emitArray(options));
      writeFileSync(test, bench);
      execFileSync("iverilog", ["-g2012", "-o", out, array, test]);
      assert.match(execFileSync("vvp", [out]).toString(), /^PASS 15 sums/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
});

test("impossible arrays are refused", () => {
  assert.throws(() => emitArray({ elements: 0 }), /elements must be/);
  assert.throws(() => emitArray({ factor: 5 as 4 }), /factor must be 3 or 4/);
});

test.run();
