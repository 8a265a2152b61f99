/** EdgeQAT's students on whole numbers: the engine with learned steps against fake quantisation. */
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createEngine } from "../lib/core/engine.ts";
import { loadHuggingFace } from "../lib/core/formats/huggingface.ts";
import {
  evaluate,
  forward,
  type ForwardOptions,
  initLlama,
  type LlamaConfig,
} from "../lib/core/llama.ts";
import { adamW } from "../lib/core/optim.ts";
import { roundToNearest } from "../lib/core/quantizer.ts";
import { fold, key, randomInts } from "../lib/core/rng.ts";
import { projectRoot } from "../lib/core/runs.ts";
import { ready, type Tensor, tf } from "../lib/core/tensor.ts";
import {
  createStudent,
  engineOptions,
  inferenceOptions,
  type MethodName,
  methodOf,
  type Student,
  type StudentOptions,
  trainStudent,
} from "../lib/edgeqat/mod.ts";

await ready();

const config: LlamaConfig = {
  vocabSize: 32,
  hiddenSize: 16,
  intermediateSize: 24,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  maxPositions: 32,
};

/**
 * Sums in another order may fall on the other side of a rounding: the mean difference stays below this part of
 * what quantisation changes.
 */
const ROUNDED_PART = 0.05;

/** Largest difference of a window's mean loss in nats where no rounding differs. */
const LOSS_TOLERANCE = 1e-5;

/** The same where a few of 8 bits do. */
const ROUNDED_LOSS = 5e-3;

const idsOf = (seed: number, T: number, B = 2) =>
  tf.tensor2d(
    Int32Array.from(randomInts(key(seed), B * T, 0, 32)),
    [B, T],
    "int32",
  );

function trained(
  method: MethodName,
  weightBits: number,
  activationBits: StudentOptions["activationBits"],
): Student {
  const s = createStudent(
    initLlama(config, key(7)),
    config,
    { method: methodOf(method), weightBits, activationBits },
    [idsOf(1, 8)],
  );
  trainStudent({
    student: s,
    objective: {},
    optimizer: adamW({ learningRate: 1e-2 }),
    batches: [2, 3, 4].map((seed) => idsOf(seed, 9)),
    steps: 3,
    key: key(1),
  });
  return s;
}

const byToken = roundToNearest({ bits: 8, granularity: "token" });

/** The student as the engine computes it: attention in float32, the input of o_proj in 8 bits a token. */
function reference(student: Student): ForwardOptions {
  const { attend: _, onActivation, ...options } = inferenceOptions(student);
  return {
    ...options,
    onActivation(name, x) {
      if (/self_attn\.(q|k|v)$/.test(name)) return undefined;
      return name.endsWith("o_proj.input")
        ? byToken(x)
        : onActivation?.(name, x);
    },
  };
}

const logitsOf = (s: Student, ids: number[], options: ForwardOptions) =>
  tf.tidy(() =>
    forward(
      s.params,
      s.config,
      tf.tensor2d([ids], [1, ids.length], "int32"),
      options,
    ).dataSync()
  ) as Float32Array;

const mean = (a: Float32Array, b: Float32Array) =>
  a.reduce((sum, x, i) => sum + Math.abs(x - b[i]), 0) / a.length;

const engineOf = (s: Student) =>
  createEngine(s.params, s.config, engineOptions(s));

const ids = [...randomInts(key(9), 20, 0, 32)];

for (
  const [weightBits, activationBits] of [[8, 8], [4, 8], [4, 4], [3, 6]]
) {
  test(`W${weightBits}A${activationBits}: learned steps give the logits of fake quantisation`, () => {
    const s = trained("lsq", weightBits, activationBits);
    const expected = logitsOf(s, ids, reference(s));
    const got = engineOf(s).prefill(ids, { positions: "all" });
    const effect = mean(expected, logitsOf(s, ids, {}));
    const error = mean(got, expected);
    assert.ok(error < ROUNDED_PART * effect, `${error}, effect ${effect}`);
    // Without the learned steps, from the weights' ranges, it would not be the student.
    const other = createEngine(s.params, s.config, {
      weights: { bits: weightBits },
      activations: { bits: activationBits },
    }).prefill(ids, { positions: "all" });
    assert.ok(mean(other, expected) > ROUNDED_PART * effect);
  });
}

test("a zero point is that of fake quantisation, whole or learned", () => {
  const s = trained("edgeqat", 4, 8);
  const zeros = Object.values(s.steps)
    .map((site) => site.b8?.zeroPoint as tf.Variable | undefined)
    .filter((zero) => zero !== undefined);
  const close = () => {
    const expected = logitsOf(s, ids, reference(s));
    const got = engineOf(s).prefill(ids, { positions: "all" });
    const effect = mean(expected, logitsOf(s, ids, {}));
    const error = mean(got, expected);
    assert.ok(error < ROUNDED_PART * effect, `${error}, effect ${effect}`);
  };
  zeros.forEach((zero, i) => zero.assign(tf.scalar(i % 5 - 2)));
  close();
  const { activations } = engineOptions(s);
  assert.is(
    activations!.steps!["model.layers.0.mlp.gate_proj"].zeroPoint,
    s.steps["model.layers.0.mlp.input"].b8.zeroPoint.dataSync()[0],
  );
  zeros.forEach((zero) => zero.assign(tf.scalar(0.4)));
  assert.is(
    engineOptions(s).activations!.steps!["model.layers.0.mlp.gate_proj"]
      .zeroPoint,
    0,
  );
  close();
});

test("bits by importance: each width has the steps that it learned", () => {
  const s = trained("lsq", 4, { importantRatio: 0.5 });
  const { activations } = engineOptions(s);
  const bits = activations!.bits as Exclude<
    typeof activations,
    undefined
  >["bits"];
  if (typeof bits !== "object") throw new Error("one width for all tokens");
  const module = "model.layers.1.mlp.down_proj";
  const site = s.steps["model.layers.1.mlp.product"];
  assert.is(
    activations!.steps![module].scale,
    site.b4.alpha.dataSync()[0],
  );
  assert.is(bits.steps![module].scale, site.b8.alpha.dataSync()[0]);
  assert.equal([...bits.important(Float64Array.of(0.1, 0.4, 0.3, 0.2))], [
    0,
    1,
    1,
    0,
  ]);
  assert.ok(engineOf(s).prefill(ids).every(Number.isFinite));
});

test("the committed model: loss on integers is that of fake quantisation", () => {
  const folder = join(projectRoot(), "data", "models", "small");
  for (const [weightBits, activationBits] of [[8, 8], [4, 8], [4, 4]]) {
    const { params, config, tokenizer } = loadHuggingFace(folder);
    const text = tokenizer.encode(
      "In the beginning the court said that the jury had found no evidence of any irregularities in the " +
        "election, and that the governor would not answer. She had walked all the way from the village " +
        "to the river before it was light, and now she sat down on a stone, tired and cold, to wait.",
    );
    const calibration: Tensor[] = [
      tf.tensor2d(text.slice(40, 72), [1, 32], "int32"),
    ];
    const s = createStudent(params, config, {
      method: methodOf("lsq"),
      weightBits,
      activationBits,
    }, calibration);
    const engine = engineOf(s);
    const differences = [0, 3, 11, 20].map((start) => {
      const window = [text.slice(start, start + 33)];
      const fake = evaluate(params, config, window, reference(s)).loss;
      return Math.abs(engine.evaluate(window).loss - fake);
    });
    // A number may lie so close to the middle of two codes that the last bit of a sum decides, and in 4 bits one
    // code changes all behind it. Windows without such a number show that all else is the same.
    const same = differences.filter((d) => d < LOSS_TOLERANCE);
    const name = `W${weightBits}A${activationBits}`;
    assert.ok(same.length >= 2, `${name}: ${differences.join(", ")}`);
    if (activationBits === 8) {
      assert.ok(Math.max(...differences) < ROUNDED_LOSS, `${differences}`);
    }
    tf.disposeVariables();
  }
});

test("students without learned steps or with floats are refused by site", () => {
  const of = (method: MethodName, weightBits: number, activationBits: number) =>
    createStudent(
      initLlama(config, fold(key(7), method)),
      config,
      { method: methodOf(method), weightBits, activationBits },
      [idsOf(1, 8)],
    );
  assert.throws(
    () => engineOptions(of("rtn", 4, 8)),
    /layers\.0\.self_attn\.input must have a learned step of 8 bits.*: none/,
  );
  assert.throws(() => engineOptions(of("lsq", 16, 8)), /2 to 8 bits: 16 and 8/);
  assert.throws(() => engineOptions(of("lsq", 8, 32)), /2 to 8 bits: 8 and 32/);
});

test.run();
