/**
 * The inference engine against the forward pass of tfjs: in floats, and with fake quantisation.
 */
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  createEngine,
  type Engine,
  type EngineOptions,
} from "../lib/core/engine.ts";
import { loadHuggingFace } from "../lib/core/formats/huggingface.ts";
import {
  evaluate,
  forward,
  type ForwardOptions,
  generate,
  initLlama,
  type LlamaConfig,
  type LlamaParams,
  nestParams,
  parameterShapes,
} from "../lib/core/llama.ts";
import { attention, type Quantizer } from "../lib/core/nn.ts";
import { roundToNearest } from "../lib/core/quantizer.ts";
import { fold, key, normal, randomInts } from "../lib/core/rng.ts";
import { projectRoot } from "../lib/core/runs.ts";
import { ready, tf } from "../lib/core/tensor.ts";
import { importantTokens } from "../lib/edgeqat/importance.ts";

await ready();

/** Largest difference of a logit, of size 10, from the order of sums in float32. */
const FLOAT_TOLERANCE = 1e-4;

/**
 * Where inputs are rounded, a sum that differs in its last bit may fall on the other side of a rounding, and
 * that one step moves others behind it. Few do: the mean difference stays below this part of what
 * quantisation itself changes.
 */
const ROUNDED_PART = 0.05;

/** The same for the mean loss in nats: errors of single logits average out. */
const LOSS_TOLERANCE = 1e-3;

/** How far W8A8 may move the perplexity of floats. */
const W8A8_PERPLEXITY = 0.02;

const SHAPE: LlamaConfig = {
  vocabSize: 50,
  hiddenSize: 32,
  intermediateSize: 44,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  maxPositions: 96,
};

const VARIANTS: Record<string, Partial<LlamaConfig>> = {
  "grouped heads, untied head": {},
  "biases, tied head": {
    attentionBias: true,
    mlpBias: true,
    tieWordEmbeddings: true,
  },
  "odd sizes": {
    hiddenSize: 30,
    intermediateSize: 37,
    numHeads: 3,
    numKvHeads: 1,
  },
  "wide heads, scaled positions": {
    headDim: 20,
    ropeTheta: 5e5,
    ropeScaling: { type: "linear", factor: 4 },
  },
};

/** Weights so large that a wrong angle or a lost bias moves the logits. */
function randomModel(config: LlamaConfig): LlamaParams {
  return nestParams(Object.fromEntries(
    Object.entries(parameterShapes(config)).map(([name, shape]) => {
      const size = shape.reduce((a, b) => a * b, 1);
      return [
        name,
        tf.tensor(normal(fold(key(5), name), size, 0, 0.3), shape),
      ];
    }),
  ));
}

/** Logits [T, V] of the forward pass. */
function logitsOf(
  params: LlamaParams,
  config: LlamaConfig,
  ids: number[],
  options: ForwardOptions = {},
): Float32Array {
  return tf.tidy(() =>
    forward(params, config, tf.tensor2d(ids, [1, ids.length], "int32"), options)
      .dataSync().slice() as Float32Array
  );
}

/** Fake quantisation by the rules that the engine has by default. */
function fakeQuantizer(weightBits: number, activationBits: number): Quantizer {
  return {
    weight: roundToNearest({ bits: weightBits, granularity: { channel: 0 } }),
    activation: roundToNearest({ bits: activationBits, granularity: "token" }),
  };
}

const differences = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Float64Array.from(a, (x, i) => Math.abs(x - b[i]));
const greatest = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  differences(a, b).reduce((most, d) => Math.max(most, d), 0);
const mean = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  differences(a, b).reduce((sum, d) => sum + d, 0) / a.length;

/** Logits [T, V] of tokens read in parts of the given lengths. */
function inParts(
  engine: Engine,
  ids: number[],
  lengths: number[],
): Float32Array {
  engine.reset();
  const rows: number[] = [];
  let at = 0;
  for (const length of lengths) {
    const part = ids.slice(at, at + length);
    const logits = length === 1
      ? engine.decode(part[0])
      : engine.prefill(part, { positions: "all" });
    rows.push(...logits);
    at += length;
  }
  return Float32Array.from(rows);
}

for (const [name, change] of Object.entries(VARIANTS)) {
  test(`float32, ${name}: logits of forward, in one and in parts`, () => {
    const config = { ...SHAPE, ...change };
    const params = randomModel(config);
    const ids = [...randomInts(key(1), 70, 0, config.vocabSize)];
    const expected = logitsOf(params, config, ids);
    const engine = createEngine(params, config);
    const whole = engine.prefill(ids, { positions: "all" });
    assert.ok(greatest(whole, expected) < FLOAT_TOLERANCE);
    const parts = inParts(engine, ids, [37, 1, 1, 5, 1, 25]);
    assert.ok(greatest(parts, expected) < FLOAT_TOLERANCE);
    tf.dispose(params);
  });
}

const QUANTIZED: [string, EngineOptions][] = [
  ["W8A8", { weights: { bits: 8, headBits: 8 } }],
  ["W4A8", { weights: { bits: 4, headBits: 4 } }],
  ["W4A8 in groups", {
    weights: { bits: 4, headBits: 4 },
    format: "nibble-groups",
  }],
  ["W4A4", { weights: { bits: 4, headBits: 4 }, activations: { bits: 4 } }],
  ["W4A4 in nibbles", {
    weights: { bits: 4, headBits: 4 },
    activations: { bits: 4 },
    format: "nibble-pairs",
  }],
  ["W3A6", { weights: { bits: 3, headBits: 3 }, activations: { bits: 6 } }],
];

for (const [name, options] of QUANTIZED) {
  test(`${name}: logits of fake quantisation`, () => {
    for (const change of Object.values(VARIANTS)) {
      // Groups need a depth of whole quads; the odd sizes are for the other formats.
      if (options.format === "nibble-groups" && change.hiddenSize === 30) {
        continue;
      }
      const config = { ...SHAPE, ...change };
      const params = randomModel(config);
      const ids = [...randomInts(key(2), 40, 0, config.vocabSize)];
      const { weights, activations } = options;
      const fake = fakeQuantizer(
        weights!.bits!,
        activations?.bits as number ?? 8,
      );
      const expected = logitsOf(params, config, ids, { quantizer: () => fake });
      const engine = createEngine(params, config, options);
      const got = engine.prefill(ids, { positions: "all" });
      const effect = mean(expected, logitsOf(params, config, ids));
      const error = mean(got, expected);
      assert.ok(
        error < ROUNDED_PART * effect,
        `mean difference ${error}, effect of quantisation ${effect}`,
      );
      tf.dispose(params);
    }
  });
}

test("the comparison would see one bit fewer in the activations", () => {
  const params = randomModel(SHAPE);
  const ids = [...randomInts(key(2), 40, 0, SHAPE.vocabSize)];
  const fake = fakeQuantizer(8, 7);
  const expected = logitsOf(params, SHAPE, ids, { quantizer: () => fake });
  const engine = createEngine(params, SHAPE, {
    weights: { bits: 8, headBits: 8 },
  });
  const got = engine.prefill(ids, { positions: "all" });
  const effect = mean(expected, logitsOf(params, SHAPE, ids));
  assert.ok(mean(got, expected) > ROUNDED_PART * effect);
  tf.dispose(params);
});

/**
 * Logits of fake quantisation with 8 bits for important tokens, 4 for the others: the attention of one layer
 * chooses for its output, its feed-forward part and the attention of the next.
 */
function mixedLogits(
  params: LlamaParams,
  config: LlamaConfig,
  ids: number[],
  ratio: number,
): { logits: Float32Array; chosen: Uint8Array[] } {
  const [low, high] = [4, 8].map((bits) => fakeQuantizer(4, bits));
  const chosen: Uint8Array[] = [];
  const logits = logitsOf(params, config, ids, {
    quantizer: (module) => {
      const important = chosen.at(-1);
      if (important === undefined || module === "lm_head") return high;
      return {
        weight: low.weight,
        activation: (x) => {
          const mask = tf.tensor(Float32Array.from(important), [
            1,
            important.length,
            1,
          ]);
          return low.activation!(x).mul(tf.sub(1, mask))
            .add(high.activation!(x).mul(mask));
        },
      };
    },
    attend(q, k, v) {
      const [H, G] = [q.shape[2]!, k.shape[2]!];
      const [T, Dh] = [q.shape[1]!, q.shape[3]!];
      const [Q, K] = [q, k].map((x) => x.dataSync());
      const scores = new Float64Array(T);
      for (let h = 0; h < H; h++) {
        const g = Math.floor(h * G / H);
        for (let t = 0; t < T; t++) {
          const e = Array.from({ length: t + 1 }, (_, s) => {
            let sum = 0;
            for (let d = 0; d < Dh; d++) {
              sum += Q[(t * H + h) * Dh + d] * K[(s * G + g) * Dh + d];
            }
            return Math.exp(sum / Math.sqrt(Dh));
          });
          scores[t] += e[0] / e.reduce((a, b) => a + b) / H;
        }
      }
      chosen.push(importantTokens(scores, ratio));
      return attention(q, k, v, { causal: true });
    },
  });
  return { logits, chosen };
}

test("tokens with bits by importance: logits and choice of fake quantisation, in every format", () => {
  for (const change of Object.values(VARIANTS)) {
    const config = { ...SHAPE, ...change };
    const params = randomModel(config);
    const ids = [...randomInts(key(6), 40, 0, config.vocabSize)];
    const floats = logitsOf(params, config, ids);
    for (const ratio of [0.25, 0.75]) {
      const { logits, chosen } = mixedLogits(params, config, ids, ratio);
      const effect = mean(logits, floats);
      for (const format of ["pairs", "nibble-pairs", "int8"] as const) {
        const own: Uint8Array[] = [];
        const engine = createEngine(params, config, {
          weights: { bits: 4, headBits: 4 },
          activations: {
            bits: {
              important: (scores) => {
                own.push(importantTokens(scores, ratio));
                return own.at(-1)!;
              },
            },
          },
          format,
        });
        const got = engine.prefill(ids, { positions: "all" });
        assert.equal(own, chosen);
        assert.is(own[0].reduce((a, b) => a + b), Math.floor(ratio * 40));
        const error = mean(got, logits);
        assert.ok(
          error < ROUNDED_PART * effect,
          `${format}, ratio ${ratio}: ${error}, effect ${effect}`,
        );
      }
    }
    tf.dispose(params);
  }
});

test("the comparison would see one token with other bits", () => {
  const params = randomModel(SHAPE);
  const ids = [...randomInts(key(6), 40, 0, SHAPE.vocabSize)];
  const { logits } = mixedLogits(params, SHAPE, ids, 0.25);
  const effect = mean(logits, logitsOf(params, SHAPE, ids));
  const engine = createEngine(params, SHAPE, {
    weights: { bits: 4, headBits: 4 },
    activations: {
      bits: {
        important(scores) {
          const chosen = importantTokens(scores, 0.25);
          chosen[7] ^= 1;
          return chosen;
        },
      },
    },
  });
  const got = engine.prefill(ids, { positions: "all" });
  assert.ok(mean(got, logits) > ROUNDED_PART * effect);
  tf.dispose(params);
});

test("calibrated steps that are none are refused by module before anything is read", () => {
  const params = randomModel(SHAPE);
  const build = (
    module: string,
    step: { scale?: number; zeroPoint?: number; bits?: number },
    high = false,
  ) =>
  () =>
    createEngine(params, SHAPE, {
      weights: { bits: 4 },
      activations: {
        bits: high
          ? {
            important: (s) => new Uint8Array(s.length),
            steps: { [module]: step },
          }
          : 4,
        steps: high ? {} : { [module]: step },
      },
    });
  const q = "model.layers.0.self_attn.q_proj";
  for (const scale of [0, -1, NaN, Infinity]) {
    const message = new RegExp(`layers\\.0\\.self_attn\\.q_proj .*: ${scale}$`);
    assert.throws(build(q, { scale }), message);
    assert.throws(build(q, { scale }, true), message);
  }
  for (const zeroPoint of [0.5, 8, -9, NaN]) {
    assert.throws(
      build(q, { scale: 1, zeroPoint }),
      new RegExp(`q_proj .* from -8 to 7: ${zeroPoint}$`),
    );
  }
  build(q, { scale: 1, zeroPoint: 7 })();
  build(q, { scale: 1, zeroPoint: 8, bits: 8 })();
  build(q, { scale: 1, zeroPoint: 8 }, true)(); // important tokens have 8 bits
  for (
    const module of [
      "model.layers.0.self_attn.k_proj",
      "model.layers.9.mlp.down_proj",
      "mlp.down_proj",
    ]
  ) {
    assert.throws(build(module, { scale: 1 }), new RegExp(`: ${module}$`));
  }
  tf.dispose(params);
});

test("a cache of 8 bits changes what its rule says", () => {
  const params = randomModel(SHAPE);
  const ids = [...randomInts(key(3), 40, 0, SHAPE.vocabSize)];
  const round = roundToNearest({ bits: 8, granularity: "token" });
  const expected = logitsOf(params, SHAPE, ids, {
    onActivation: (name, x) => /\.(k|v)$/.test(name) ? round(x) : undefined,
  });
  const engine = createEngine(params, SHAPE, { cache: { bits: 8 } });
  const effect = mean(expected, logitsOf(params, SHAPE, ids));
  for (const lengths of [[40], [20, 1, 1, 18]]) {
    const error = mean(inParts(engine, ids, lengths), expected);
    assert.ok(error < ROUNDED_PART * effect, `${error} of ${effect}`);
  }
  tf.dispose(params);
});

test("committed model: perplexity and greedy continuation", () => {
  const { params, config, tokenizer } = loadHuggingFace(
    join(projectRoot(), "data", "models", "small"),
  );
  const text = tokenizer.encode(
    "In the beginning the court said that the jury had found no evidence of any irregularities in the " +
      "election, and that the governor would not answer. She had walked all the way from the village to " +
      "the river before it was light, and now she sat down on a stone, tired and cold, to wait.",
  );
  const windows = [text.slice(0, 33), text.slice(20, 53), text.slice(40, 73)];
  const prompt = text.slice(0, 12);
  const floats = createEngine(params, config);
  assert.ok(
    Math.abs(
      floats.evaluate(windows).loss - evaluate(params, config, windows).loss,
    ) < 1e-5,
  );
  assert.equal(
    [...floats.generate(prompt, { maxTokens: 24 })],
    [...generate(params, config, prompt, { maxTokens: 24 })],
  );
  for (const [bits, activationBits] of [[8, 8], [4, 8], [4, 4]]) {
    const fake = fakeQuantizer(bits, activationBits);
    const { loss } = evaluate(params, config, windows, {
      quantizer: () => fake,
    });
    const engine = createEngine(params, config, {
      weights: { bits, headBits: bits },
      activations: { bits: activationBits },
    });
    const own = engine.evaluate(windows).loss;
    assert.ok(
      Math.abs(own - loss) < LOSS_TOLERANCE,
      `W${bits}A${activationBits}: ${own}, fake ${loss}`,
    );
    assert.ok(engine.modelBytes < floats.modelBytes);
    if (bits === 8) {
      const ratio = Math.exp(own - floats.evaluate(windows).loss);
      assert.ok(Math.abs(ratio - 1) < W8A8_PERPLEXITY, `W8A8: ${ratio}`);
    }
  }
  tf.disposeVariables();
});

test("wrong input is refused with what was given", () => {
  const params = initLlama(SHAPE, key(0));
  const engine = createEngine(params, SHAPE);
  assert.throws(() => engine.prefill([]), /1 to 96.*: 0/);
  assert.throws(() => engine.prefill(new Array(97).fill(1)), /97/);
  assert.throws(() => engine.prefill([3, 50]), /vocabSize 50, id 50/);
  assert.throws(() => engine.decode(-1), /id -1/);
  assert.is(engine.length, 0);
  assert.throws(() => engine.reset(1), /0 to 0: 1/);
  assert.throws(
    () => engine.generate([]),
    /prompt must have 1 to 96 tokens: 0/,
  );
  assert.throws(
    () => engine.generate(new Array(97).fill(1)),
    /prompt must have 1 to 96 tokens: 97/,
  );
  assert.throws(() => engine.evaluate([]), /at least one window.*: 0/);
  const bad = (options: EngineOptions, pattern: RegExp) =>
    assert.throws(() => createEngine(params, SHAPE, options), pattern);
  bad({ weights: { bits: 9 } }, /weights 9/);
  bad({ activations: { bits: 8 } }, /activations 8/);
  bad({ weights: { bits: 4 }, activations: { bits: 32 } }, /activations 32/);
  const important = (scores: Float64Array) =>
    importantTokens(scores, 0.5).slice(1);
  bad(
    { weights: { bits: 4 }, activations: { bits: { high: 12, important } } },
    /activations 4 and 12/,
  );
  bad({ activations: { bits: { important } } }, /activations 4 and 8/);
  bad(
    {
      weights: { bits: 4 },
      activations: { bits: { low: 8, high: 4, important } },
    },
    /no fewer bits than the others: 4 and 8/,
  );
  const short = createEngine(params, SHAPE, {
    weights: { bits: 4 },
    activations: { bits: { important } },
  });
  assert.throws(() => short.prefill([1, 2, 3]), /each of 3 tokens: 2/);
  assert.is(short.length, 0);
  for (const value of [NaN, Infinity]) {
    const broken = initLlama(SHAPE, key(0));
    const { up_proj } = broken.model.layers[1].mlp;
    const values = up_proj.weight.dataSync().slice();
    values[7] = value;
    up_proj.weight = tf.tensor(values, up_proj.weight.shape);
    for (const bits of [4, 32]) {
      assert.throws(
        () => createEngine(broken, SHAPE, { weights: { bits } }),
        new RegExp(`layers\\.1\\.mlp\\.up_proj\\.weight .*${value} at 7`),
      );
    }
  }
  assert.throws(
    () => createEngine(params, { ...SHAPE, intermediateSize: 45 }),
    /gate_proj\.weight must be \[45,32\]: \[44,32\]/,
  );
  tf.dispose(params);
});

test("a depth whose sums could overflow is refused with the layer's name", () => {
  // Codes of 8 bits reach 128 times 128: at most 2^31 / 2^14 = 131072 products.
  const wide: LlamaConfig = {
    ...SHAPE,
    hiddenSize: 4,
    numHeads: 1,
    numKvHeads: 1,
    numLayers: 1,
    intermediateSize: 140_000,
  };
  const params = initLlama(wide, key(0));
  const eight = createEngine(params, wide, { weights: { bits: 8 } });
  assert.throws(
    () => eight.prefill([1, 2]),
    /below 2\^31, .*depth 140000; .*, in model\.layers\.0\.mlp\.down_proj/,
  );
  // Codes of 4 bits do not reach so far.
  const four = createEngine(params, wide, {
    weights: { bits: 4 },
    activations: { bits: 4 },
  });
  assert.ok(four.prefill([1, 2]).every(Number.isFinite));
  // Codes from elsewhere that do not fit are told with the layer too.
  const none = { codes: new Int8Array(16), scale: [0] };
  assert.throws(
    () =>
      createEngine(params, wide, {
        weights: { bits: 8, quantize: () => none },
      }),
    /scale must be positive .*, in model\.layers\.0\.self_attn\.q_proj/,
  );
  tf.dispose(params);
});

test.run();
