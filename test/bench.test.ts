/** The benchmark's model: both sets of operations, and what a timed process reports. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type GptSize,
  type GptTask,
  shapes,
  timeGpt,
  writeTask,
} from "../scripts/bench/gpt.ts";
import { timeGemm } from "../scripts/bench/gemm.ts";
import { median } from "../scripts/bench/measure.ts";
import { speedSection } from "../scripts/bench/readme.ts";
import { projectRoot } from "../lib/core/runs.ts";

const SIZE: GptSize = {
  layers: 2,
  dim: 16,
  heads: 2,
  tokens: 8,
  batch: 3,
  vocab: 32,
};

/** Float32 rounding over five updates by Adam, relative to the loss. */
const LOSS_TOLERANCE = 1e-4;

const folder = mkdtempSync(join(tmpdir(), "adiabat-bench-test-"));
test.after(() => rmSync(folder, { recursive: true }));

const task = (engine: GptTask["engine"]): GptTask => ({
  engine,
  size: SIZE,
  folder,
  warmup: 1,
  steps: 5,
  minSteps: 5,
  seconds: 60,
});

test("GPT: our operations and stock tfjs make the same losses, PyTorch's", async () => {
  writeTask(folder, SIZE);
  const results = [await timeGpt(task("ours")), await timeGpt(task("stock"))];
  // scripts/bench/gpt.py with this task, PyTorch 1.13.0:
  // python3 scripts/bench/gpt.py '{"size": SIZE, "shapes": shapes(SIZE), "adam": ADAM, ...}'
  // deno-fmt-ignore
  const golden = [3.47393322, 3.42506242, 3.3868475, 3.35902286, 3.33649135, 3.31526923];
  for (const { losses, stepMs, cpuMs, leakedTensorsPerStep } of results) {
    assert.is(losses.length, 6);
    losses.forEach((loss, i) =>
      assert.ok(
        Math.abs(loss - golden[i]) < LOSS_TOLERANCE * golden[i],
        `step ${i + 1}: ${loss} against ${golden[i]}`,
      )
    );
    assert.is(stepMs.length, 5);
    assert.is(cpuMs.length, 5);
    assert.is(leakedTensorsPerStep, 0);
  }
  assert.ok(results[0].peakRssFirstStepBytes > 20e6);
});

test("GPT: the parameters are those of the architecture", () => {
  const { layers, dim: D, tokens, vocab } = SIZE;
  const count = shapes(SIZE).reduce(
    (sum, [, shape]) => sum + shape.reduce((a, b) => a * b),
    0,
  );
  // Four D x D, two 4 D x D, their biases and two norms a layer.
  const block = 12 * D * D + 9 * D + 4 * D;
  assert.is(count, 2 * vocab * D + tokens * D + layers * block + 2 * D);
});

test("GEMM: exact results, a rate for every product", async () => {
  const plain = { transposeA: false, transposeB: false };
  const { gflops, checks } = await timeGemm({
    products: [
      { ...plain, name: "a", m: 3, n: 2, k: 4 },
      { ...plain, name: "b", m: 3, n: 2, k: 4, transposeB: true },
    ],
    milliseconds: 2,
  });
  // Elements of the pattern (7 i) mod 11 - 5: -5 2 -2 5 1 -3 4 0 -4 3 -1 -5, last row -4 3 -1 -5.
  assert.equal(checks, [
    -4 * 2 + 3 * 5 - 1 * -3 - 5 * 0,
    -4 * 1 + 3 * -3 - 1 * 4 - 5 * 0,
  ]);
  assert.ok(gflops.every((rate) => rate > 0));
});

test("median", () => {
  assert.is(median([3, 1, 2]), 2);
  assert.is(median([4, 1, 2, 3]), 2.5);
});

test("the README's speed table is that of the saved measurements", () => {
  const root = projectRoot();
  const read = (...path: string[]) => readFileSync(join(root, ...path), "utf8");
  const section = speedSection(JSON.parse(read("data", "bench", "gpt.json")));
  // The formatter pads tables and wraps lines.
  const bare = (text: string) =>
    text.replace(/-{3,}|:/g, "").replace(/\s+/g, "");
  const readme = bare(read("README.md"));
  assert.ok(readme.includes(bare(section)), section);
  assert.not.ok(readme.includes(bare(section.replace(/\d/, "9999"))));
});

test.run();
