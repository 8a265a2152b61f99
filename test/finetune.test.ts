import { test } from "uvu";
import * as assert from "uvu/assert";
import { initLlama, type LlamaConfig } from "../lib/core/llama.ts";
import { key } from "../lib/core/rng.ts";
import { flatten, memory, ready, tf } from "../lib/core/tensor.ts";
import { trainBpe } from "../lib/core/tokenizer.ts";
import {
  continueText,
  disposeAdapters,
  finetune,
  type LanguageModel,
} from "../lib/rora/mod.ts";

await ready();

/** Documents with an order of words that can be learned, all different. */
const documents = Array.from({ length: 40 }, (_, i) => ({
  id: `d${i}`,
  text: Array.from(
    { length: 30 },
    (_, j) => `the ${["red", "green", "blue"][(i + j) % 3]} fox ${i * j}.`,
  ).join(" "),
}));

function tinyModel(): LanguageModel {
  const tokenizer = trainBpe(documents.map(({ text }) => text), {
    vocabSize: 300,
  });
  const config: LlamaConfig = {
    vocabSize: tokenizer.vocabSize,
    hiddenSize: 16,
    intermediateSize: 32,
    numLayers: 2,
    numHeads: 2,
    numKvHeads: 2,
    tieWordEmbeddings: true,
  };
  const params = initLlama(config, key(3));
  // Larger weights than an untrained model has, so that there is something to steer.
  for (const leaf of Object.values(flatten(params))) {
    if (leaf.rank === 2) {
      tf.tidy(() => (leaf as tf.Variable).assign(tf.mul(leaf, 8)));
    }
  }
  return { params, config, tokenizer };
}

const options = {
  rank: 8,
  scaling: "rora",
  targets: "all-linear",
  steps: 30,
  length: 16,
  learningRate: 0.02,
} as const;

test("adapters lower the loss on held-out documents, the base stays as it was", () => {
  const model = tinyModel();
  const before = model.params.model.layers[0].mlp.up_proj.weight.dataSync();
  const tuned = finetune(model, documents, options, key(1));
  assert.is(tuned.losses.length, 30);
  assert.ok(
    tuned.after.loss < tuned.before.loss - 0.3,
    `${tuned.before.loss} to ${tuned.after.loss}`,
  );
  assert.equal(
    model.params.model.layers[0].mlp.up_proj.weight.dataSync(),
    before,
  );
  const plain = continueText(model, "the red", { maxTokens: 8 });
  const adapted = continueText(model, "the red", {
    maxTokens: 8,
    adapters: tuned.modules,
  });
  assert.ok(plain.startsWith("the red") && adapted.startsWith("the red"));
  assert.is.not(plain, adapted);
});

test("the same key gives the same losses, another key others", () => {
  const model = tinyModel();
  const few = { ...options, steps: 3 };
  const run = (seed: number) =>
    finetune(model, documents, few, key(seed)).losses;
  assert.equal(run(1), run(1));
  assert.not.equal(run(1), run(2));
});

test("nothing is left in memory but the adapters, and nothing after an error", () => {
  const model = tinyModel();
  const few = { ...options, steps: 2 };
  finetune(model, documents, few, key(1)); // constants of the engine
  const start = memory().tensors;
  const { adapters } = finetune(model, documents, few, key(1));
  disposeAdapters(adapters);
  assert.is(memory().tensors, start);
  assert.throws(
    () => finetune(model, documents, { ...few, learningRate: 1e30 }, key(1)),
    /^Cannot .*(finite|NaN|infinite)/,
  );
  assert.is(memory().tensors, start);
});

test("too little text is an error that says what is missing", () => {
  const model = tinyModel();
  assert.throws(
    () => finetune(model, documents.slice(0, 4), { length: 1000 }, key(1)),
    /Cannot adapt to the text as its train part must have more than 1000 tokens: \d+ in \d documents/,
  );
});

test.run();
