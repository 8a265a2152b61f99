/** EdgeQAT's students on whole numbers: the engine with learned steps against fake quantisation. */
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createEngine, type EngineStep } from "../lib/core/engine.ts";
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

/** The student as the engine computes it: the input of o_proj in 8 bits a token. */
function reference(student: Student): ForwardOptions {
  const { onActivation, ...options } = inferenceOptions(student);
  return {
    ...options,
    onActivation(name, x) {
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

const TEXT =
  "In the beginning the court said that the jury had found no evidence of any irregularities in the election, and " +
  "that the governor would not answer. She had walked all the way from the village to the river before it was " +
  "light, and now she sat down on a stone, tired and cold, to wait.";

/** Starts of windows of 12 tokens and the one behind them. */
const STARTS = [0, 5, 11, 17, 23, 28];

/** A student of the committed model that has not been trained, and windows that it was not calibrated on. */
function committed(
  weightBits: number,
  activationBits: StudentOptions["activationBits"],
): { student: Student; windows: Int32Array[] } {
  const folder = join(projectRoot(), "data", "models", "small");
  const { params, config, tokenizer } = loadHuggingFace(folder);
  const text = tokenizer.encode(TEXT);
  const calibration: Tensor[] = [
    tf.tensor2d(text.slice(40, 72), [1, 32], "int32"),
  ];
  const student = createStudent(params, config, {
    method: methodOf("edgeqat"),
    weightBits,
    activationBits,
  }, calibration);
  // Zero points, too: of few codes, and of probabilities one below and one beyond all codes.
  Object.entries(student.steps).forEach(([site, widths], i) => {
    for (const { zeroPoint } of Object.values(widths)) {
      const whole = site.endsWith("softmax") ? 256 * (i % 2) - 1 : i % 3 - 1;
      (zeroPoint as tf.Variable | undefined)?.assign(tf.scalar(whole));
    }
  });
  return {
    student,
    windows: STARTS.map((start) => text.slice(start, start + 13)),
  };
}

for (
  const bits of [8, 4, { importantRatio: 0.5 }] as const
) {
  const name = typeof bits === "number" ? `A${bits}` : "mixed bits";
  test(`the committed model, W4 and ${name}: loss on integers is that of fake quantisation`, () => {
    const { student, windows } = committed(4, bits);
    const options = engineOptions(student);
    const { params, config } = student;
    const differences = (own: typeof options) => {
      const engine = createEngine(params, config, own);
      return windows.map((window) =>
        Math.abs(
          engine.evaluate([window]).loss -
            evaluate(params, config, [window], reference(student)).loss,
        )
      );
    };
    // A number may lie so close to the middle of two codes that the last bit of a sum decides, and in 4 bits one
    // code changes all behind it. Windows without such a number show that all else is the same.
    const same = (own: typeof options) =>
      differences(own).filter((d) => d < LOSS_TOLERANCE).length;
    assert.ok(same(options) >= 3, `${differences(options)}`);
    if (bits === 8) {
      assert.ok(Math.max(...differences(options)) < ROUNDED_LOSS);
    }
    // Without any one of the steps of attention it is another model.
    for (const part of ["q", "k", "v", "softmax"]) {
      const without = (steps: Record<string, EngineStep> = {}) =>
        Object.fromEntries(
          Object.entries(steps).filter(([module]) =>
            !module.endsWith(`.${part}`)
          ),
        );
      const { bits: own, steps } = options.activations!;
      const changed = {
        ...options,
        activations: {
          steps: without(steps),
          bits: typeof own === "object"
            ? { ...own, steps: without(own.steps) }
            : own,
        },
      };
      assert.is(same(changed), 0, part);
    }
    tf.disposeVariables();
  });
}

test("steps of attention: more tokens than a block of queries, in parts, with mixed bits and an 8-bit cache", () => {
  const T = 50;
  const shape = { ...config, maxPositions: 64 };
  const ids = [...randomInts(key(11), T, 0, 32)];
  for (const bits of [8, { importantRatio: 0.5 }]) {
    const student = createStudent(
      initLlama(shape, key(7)),
      shape,
      { method: methodOf("edgeqat"), weightBits: 8, activationBits: bits },
      [idsOf(1, 8)],
    );
    const { params } = student;
    const options = engineOptions(student);
    const expected = logitsOf(student, ids, reference(student));
    const whole = createEngine(params, shape, options);
    const got = whole.prefill(ids, { positions: "all" });
    const far = got.map((x, i) => Math.abs(x - expected[i]))
      .reduce((count, d) => count + Number(d > 1e-4), 0);
    // Behind a rounding that the last bit of a sum decides, a position differs.
    assert.ok(far < 0.1 * got.length, `${far} of ${got.length}`);
    if (typeof bits === "object") continue; // ranked among what is read together
    const parts = createEngine(params, shape, options);
    parts.prefill(ids.slice(0, 20));
    for (const id of ids.slice(20, 24)) parts.decode(id);
    const last = parts.prefill(ids.slice(24));
    assert.ok(mean(last, got.slice(-32)) < 1e-4);
    // The 8-bit cache rounds once more: near, and not the same.
    const short = createEngine(params, shape, {
      ...options,
      cache: { bits: 8 },
    });
    const near = mean(short.prefill(ids, { positions: "all" }), got);
    const effect = mean(got, logitsOf(student, ids, {}));
    assert.ok(near > 0 && near < effect, `${near}, effect ${effect}`);
  }
});

test("steps of attention: what is refused, and how many tokens are read at once does not matter", () => {
  const { student, windows: [window] } = committed(4, 4);
  const { params, config } = student;
  const options = engineOptions(student);
  const engine = createEngine(params, config, options);
  const together = engine.prefill(window);
  engine.reset();
  const apart = Array.from(window, (id) => engine.decode(id)).at(-1)!;
  assert.equal(apart, together);
  const open = (module: string, step: EngineStep, mixed = false) => () =>
    createEngine(params, config, {
      weights: { bits: 4 },
      activations: {
        bits: mixed ? { important: (s) => new Uint8Array(s.length) } : 4,
        steps: { [`model.layers.${module}`]: step },
      },
    });
  assert.throws(
    open("0.self_attn.k", {}),
    /step of model\.layers\.0\.self_attn\.k must be positive and finite: undefined/,
  );
  assert.throws(
    open("0.self_attn.q", { scale: 1, zeroPoint: 0.5 }),
    /zero point of .*q must be a whole number: 0\.5/,
  );
  assert.throws(
    open("0.self_attn.v", { scale: 1, bits: 16 }),
    /v must be one of 2 to 8 bits: 16/,
  );
  assert.throws(open("9.self_attn.v", { scale: 1 }), /in one of 3 layers/);
  assert.throws(
    open("0.self_attn.v", { scale: 1 }, true),
    /v must have a step for important tokens and one for the others, or none: only that of the others/,
  );
  tf.disposeVariables();
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
  const byLogits = trained("lsq", 4, { importantRatio: 0.5, score: "logits" });
  assert.throws(
    () => engineOptions(byLogits),
    /ranked by the score softmax.*: logits/,
  );
  assert.throws(() => engineOptions(of("lsq", 16, 8)), /2 to 8 bits: 16 and 8/);
  assert.throws(() => engineOptions(of("lsq", 8, 32)), /2 to 8 bits: 8 and 32/);
});

test.run();
