/** Trained parameters that go to a file and come back. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  loadCheckpoint,
  saveCheckpoint,
} from "../lib/core/formats/checkpoint.ts";
import { forward, initLlama, type LlamaConfig } from "../lib/core/llama.ts";
import { key } from "../lib/core/rng.ts";
import { flatten, memory, ready, tf } from "../lib/core/tensor.ts";
import {
  initVit,
  resolveVit,
  vitForward,
  type VitParams,
} from "../lib/core/vit.ts";
import {
  createStudent,
  inferenceOptions,
  methodOf,
  trainableOf,
} from "../lib/edgeqat/mod.ts";

await ready();

const folder = mkdtempSync(join(tmpdir(), "adiabat-checkpoint-"));
test.after(() => rmSync(folder, { recursive: true }));

const config: LlamaConfig = {
  vocabSize: 32,
  hiddenSize: 16,
  intermediateSize: 24,
  numLayers: 1,
  numHeads: 2,
  numKvHeads: 2,
  maxPositions: 16,
};
const ids = tf.tensor2d([[1, 5, 9, 2]], [1, 4], "int32");

const studentOf = (seed: number) =>
  createStudent(initLlama(config, key(seed)), config, {
    method: methodOf("edgeqat"),
    weightBits: 4,
    activationBits: 4,
  }, [ids]);

test("a quantised student comes back with its steps, bit by bit", () => {
  const path = join(folder, "student.safetensors");
  const [one, other] = [studentOf(1), studentOf(2)];
  const logits = (s: typeof one) =>
    forward(s.params, config, ids, inferenceOptions(s)).dataSync();
  assert.not.equal(logits(one), logits(other));
  saveCheckpoint(path, trainableOf(one), { bits: "W4A4" });
  const before = memory().tensors;
  const { bits } = loadCheckpoint(path, trainableOf(other));
  assert.is(bits, "W4A4");
  assert.is(memory().tensors, before);
  assert.equal(logits(one), logits(other));
});

test("a vision transformer comes back; another shape or a missing tensor changes nothing", () => {
  const path = join(folder, "vit.safetensors");
  const vit = {
    imageSize: 8,
    patchSize: 4,
    channels: 1,
    numClasses: 3,
    hiddenSize: 8,
    numLayers: 2,
    numHeads: 2,
    mlpRatio: 2,
  };
  const x = tf.range(0, 1, 1 / 64).reshape([1, 4, 16]);
  const logitsOf = (params: VitParams) =>
    vitForward(params, x, resolveVit(vit)).dataSync();
  const [one, other] = [initVit(vit, key(1)), initVit(vit, key(2))];
  saveCheckpoint(path, one);
  assert.not.equal(logitsOf(one), logitsOf(other));
  loadCheckpoint(path, other);
  assert.equal(
    logitsOf(one),
    logitsOf(other),
  );
  const wide = initVit({ ...vit, numClasses: 4 }, key(3));
  const kept = Object.values(flatten(wide)).map((t) => t.dataSync().slice());
  assert.throws(
    () => loadCheckpoint(path, wide),
    /head\S* is \[\S+\] in .*vit\.safetensors, \[\S+\] in the model/,
  );
  assert.throws(
    () => loadCheckpoint(path, initVit({ ...vit, numLayers: 1 }, key(1))),
    /in .*vit\.safetensors, \[absent\] in the model/,
  );
  assert.equal(
    Object.values(flatten(wide)).map((t) => t.dataSync().slice()),
    kept,
  );
  assert.equal(readdirSync(folder).filter((name) => /tmp/.test(name)), []);
});

test.run();
