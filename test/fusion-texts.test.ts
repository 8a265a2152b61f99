import { test } from "uvu";
import * as assert from "uvu/assert";
import { fuseTexts } from "../lib/fusion/mod.ts";
import { initLlama } from "../lib/core/llama.ts";
import { key } from "../lib/core/rng.ts";
import { ready } from "../lib/core/tensor.ts";
import { trainBpe } from "../lib/core/tokenizer.ts";

await ready();

const texts = {
  sheep: "the black sheep says baa and eats the green grass. ".repeat(30),
  sums: "1 + 1 = 2; 2 + 3 = 5; 4 + 4 = 8; 9 - 2 = 7; 6 - 5 = 1; ".repeat(30),
};
const small = {
  key: key(1),
  vocabSize: 280,
  length: 16,
  batch: 4,
  steps: { base: 20, expert: 30, fuse: 20 },
};

test("texts in, a fused model out: experts know their own text best, the target learns", () => {
  const fused = fuseTexts(texts, small);
  assert.equal(fused.sources, ["base", "sheep", "sums"]);
  const { bits } = fused;
  assert.ok(bits["expert of sheep"][0] < bits["expert of sums"][0], "sheep");
  assert.ok(bits["expert of sums"][1] < bits["expert of sheep"][1], "sums");
  for (const t of [0, 1]) assert.ok(bits.fused[t] < bits.base[t], `text ${t}`);
  assert.is(fused.weights.length, 2);
  for (const row of fused.weights) {
    const sum = row.reduce((a, b) => a + b, 0);
    assert.ok(Math.abs(sum - 1) < 1e-6, `weights sum to ${sum}`);
  }
  const again = fuseTexts(texts, small);
  assert.equal(again.bits, bits, "the same key, the same numbers");
});

test("a model with its own tokenizer joins the sources", () => {
  const tokenizer = trainBpe([texts.sheep], { vocabSize: 300 });
  const config = {
    vocabSize: tokenizer.vocabSize,
    hiddenSize: 16,
    intermediateSize: 32,
    numLayers: 1,
    numHeads: 2,
    numKvHeads: 2,
    maxPositions: 128,
  };
  const model = { params: initLlama(config, key(3)), config };
  const fused = fuseTexts(texts, {
    ...small,
    steps: { base: 2, expert: 2, fuse: 2 },
    others: [{ name: "mine", model, tokenizer }],
  });
  assert.equal(fused.sources, ["base", "sheep", "sums", "mine"]);
  assert.ok(fused.alignedRatio.mine > 0 && fused.alignedRatio.mine < 1);
});

test("bad input: no text, a short one", () => {
  assert.throws(() => fuseTexts({}, small), /must be a text: 0 given/);
  assert.throws(
    () => fuseTexts({ ...texts, note: "hello" }, small),
    /"note" has \d+/,
  );
  for (
    const [options, message] of [
      [{ selection: { kind: "gat" } }, /selection\.kind must be .*: gat/],
      [{ steps: { base: 2.5, expert: 1, fuse: 1 } }, /steps\.base .*: 2\.5/],
      [{ steps: { base: 1, expert: 1, fuse: 0 } }, /steps\.fuse .*: 0/],
      [{ others: [{ name: "sheep" }] }, /"sheep" twice/],
    ] as const
  ) {
    assert.throws(
      () => fuseTexts(texts, { ...small, ...options } as never),
      message,
    );
  }
  assert.throws(() => fuseTexts({ base: texts.sheep }, small), /"base" twice/);
});

test.run();
