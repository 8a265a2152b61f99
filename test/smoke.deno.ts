/** Smoke test in Deno: the library loads under its name, the engine computes, a model learns. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { llama, nn, optim, rng, rora, tensor } from "adiabat";

const { tf } = tensor;
const info = await tensor.ready();
ok(info.runtime.startsWith("deno"), info.runtime);

// A product worked out by hand, through the kernels.
const a = tf.tensor2d([[1, 2], [3, 4]]);
const b = tf.tensor2d([[5, 6], [7, 8]]);
deepEqual(
  Array.from(nn.matmul(a, b, { transposeB: true }).dataSync()),
  [17, 23, 39, 53],
);

// A tiny model learns to repeat a sequence.
const key = rng.key(7);
const config = {
  vocabSize: 16,
  hiddenSize: 16,
  intermediateSize: 24,
  numLayers: 1,
  numHeads: 2,
  numKvHeads: 1,
};
const params = llama.initLlama(config, rng.fold(key, "model"));
const row = Array.from({ length: 9 }, (_, i) => i % 4);
function* batches() {
  for (;;) yield tf.tensor2d([row, row], [2, 9], "int32");
}
const history = llama.trainLanguageModel({
  params,
  config,
  trainable: params,
  optimizer: optim.adamW({ learningRate: 0.02 }),
  batches: batches(),
  steps: 30,
});
const [first, last] = [history[0].loss, history[29].loss];
ok(last < 0.2 * first, `loss ${first} to ${last}`);
const written = llama.generate(params, config, [0, 1], { maxTokens: 4 });
deepEqual(Array.from(written), [2, 3, 0, 1]);

// New adapters change nothing.
const adapters = rora.initAdapters(params, { rank: 4 }, key);
const ids = tf.tensor2d([row], [1, 9], "int32");
const plain = llama.forward(params, config, ids).dataSync();
const adapted = llama.forward(params, config, ids, {
  adapters: rora.adapterModules(adapters),
}).dataSync();
equal(Math.max(...plain.map((x, i) => Math.abs(x - adapted[i]))), 0);
console.log(`${info.runtime}, ${info.kernels}: loss ${first} to ${last}`);
