/** Structured pruning: constructed models whose dead parts are known, hand cases, oracles. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  flatten,
  type ParamTree,
  ready,
  type Tensor,
  tf,
} from "../lib/core/tensor.ts";
import {
  forward,
  hiddenStates,
  initLlama,
  type LlamaConfig,
  type LlamaParams,
  loss,
} from "../lib/core/llama.ts";
import { fold, key, normal, randomInts } from "../lib/core/rng.ts";
import {
  type Importance,
  importanceScores,
  modelSize,
  prune,
  prunedFraction,
  type Scores,
  selectParts,
  targetShape,
} from "../lib/rora/prune.ts";

const CONFIG: LlamaConfig = {
  vocabSize: 29,
  hiddenSize: 16,
  intermediateSize: 24,
  numLayers: 4,
  numHeads: 6,
  numKvHeads: 3,
  headDim: 4,
  maxPositions: 32,
};
const TARGET = {
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  intermediateSize: 13,
  hiddenSize: 10,
};
/** What stays in the constructed models. */
const ALIVE = {
  layers: [0, 2],
  kvHeads: [0, 2],
  heads: [0, 1, 4, 5],
  channels: [0, 1, 2, 5, 6, 7, 8, 11, 14, 15, 20, 21, 23],
  hidden: [1, 2, 3, 5, 7, 8, 10, 11, 14, 15],
};
/** Relative to the largest logit: float32 sums in another order through two layers. */
const LOGIT_TOLERANCE = 5e-6;
const IMPORTANCES: Importance[] = [
  "taylor",
  "activation",
  "magnitude",
  "random",
];

/** A model with weights large enough that every part matters. */
function randomModel(config = CONFIG, seed = 1): LlamaParams {
  const params = initLlama(config, key(seed));
  for (const [name, tensor] of Object.entries(flatten(params as ParamTree))) {
    const values = normal(fold(key(seed), name), tensor.size, 0, 0.4);
    const norm = name.includes("norm");
    (tensor as tf.Variable).assign(
      tf.tensor(norm ? values.map((v) => 1 + v) : values, tensor.shape),
    );
  }
  return params;
}

const ids = (seed: number, B = 2, length = 9) =>
  tf.tensor2d(
    randomInts(key(seed), B * length, 0, CONFIG.vocabSize),
    [B, length],
    "int32",
  );
const BATCHES = () => [ids(11), ids(12)];

/** Sets the rows (axis 0) or columns of a weight whose index is not kept to zero. */
function clear(
  params: LlamaParams,
  name: string,
  axis: 0 | 1,
  kept: number[],
  each = 1,
) {
  const weight = flatten(params as ParamTree)[name] as tf.Variable;
  const [rows, columns] = weight.shape as [number, number];
  const values = weight.dataSync().slice();
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const part = Math.floor((axis === 0 ? i : j) / each);
      if (!kept.includes(part)) values[i * columns + j] = 0;
    }
  }
  weight.assign(tf.tensor(values, weight.shape));
}

/** A model in which only the ALIVE parts do anything. Dead parts have nonzero weights elsewhere. */
function modelWithDeadParts(): LlamaParams {
  const params = randomModel();
  clear(params, "model.embed_tokens.weight", 1, ALIVE.hidden);
  for (let i = 0; i < CONFIG.numLayers; i++) {
    const name = (end: string) => `model.layers.${i}.${end}.weight`;
    clear(params, name("self_attn.o_proj"), 0, ALIVE.hidden);
    clear(params, name("mlp.down_proj"), 0, ALIVE.hidden);
    clear(params, name("self_attn.v_proj"), 0, ALIVE.kvHeads, 4);
    clear(params, name("mlp.gate_proj"), 0, ALIVE.channels);
    if (!ALIVE.layers.includes(i)) {
      clear(params, name("self_attn.o_proj"), 0, []);
      clear(params, name("mlp.down_proj"), 0, []);
    }
  }
  return params;
}

function largestDifference(a: Tensor, b: Tensor): number {
  assert.equal(a.shape, b.shape);
  const difference = tf.max(tf.abs(tf.sub(a, b))).dataSync()[0];
  return difference / tf.max(tf.abs(a)).dataSync()[0];
}

test.before(async () => {
  await ready();
});

for (const importance of IMPORTANCES) {
  test(`keeping everything changes no bit (${importance})`, () => {
    const params = randomModel();
    const pruned = prune(params, CONFIG, CONFIG, {
      importance,
      batches: BATCHES(),
      key: key(3),
    });
    assert.is(pruned.prunedFraction, 0);
    assert.equal(pruned.config, { ...CONFIG, rmsNormEps: 1e-5 });
    assert.equal(
      forward(pruned.params, pruned.config, ids(5)).dataSync(),
      forward(params, CONFIG, ids(5)).dataSync(),
    );
  });
}

for (const importance of ["taylor", "activation"] as const) {
  test(`dead parts are found, and without them the logits are the same (${importance})`, () => {
    const params = modelWithDeadParts();
    const before = tf.memory().numTensors;
    const batches = BATCHES();
    const pruned = prune(params, CONFIG, TARGET, { importance, batches });
    const { kept } = pruned;
    assert.equal(kept.hidden, ALIVE.hidden);
    assert.equal(kept.layers, ALIVE.layers);
    for (const layer of ALIVE.layers) {
      assert.equal(kept.heads[layer], ALIVE.heads);
      assert.equal(kept.kvHeads[layer], ALIVE.kvHeads);
      assert.equal(kept.channels[layer], ALIVE.channels);
    }
    const leaves = Object.keys(flatten(pruned.params as ParamTree)).length;
    assert.is(tf.memory().numTensors, before + leaves + batches.length);
    assert.is(
      Object.values(flatten(pruned.params as ParamTree))
        .reduce((sum, t) => sum + t.size, 0),
      modelSize(pruned.config),
    );
    const difference = largestDifference(
      forward(params, CONFIG, ids(5)),
      forward(pruned.params, pruned.config, ids(5)),
    );
    assert.ok(difference < LOGIT_TOLERANCE, `${difference}`);
  });
}

test("without calibration text the norms are not corrected, and that shows", () => {
  const params = modelWithDeadParts();
  const kept = { importance: "magnitude" as const };
  const target = { ...CONFIG, hiddenSize: TARGET.hiddenSize };
  // Magnitude would keep other coordinates: make the dead ones small everywhere.
  for (let i = 0; i < CONFIG.numLayers; i++) {
    for (const end of ["self_attn.q_proj", "self_attn.k_proj"]) {
      clear(params, `model.layers.${i}.${end}.weight`, 1, ALIVE.hidden);
    }
    for (const end of ["self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"]) {
      clear(params, `model.layers.${i}.${end}.weight`, 1, ALIVE.hidden);
    }
  }
  clear(params, "lm_head.weight", 1, ALIVE.hidden);
  const logits = forward(params, CONFIG, ids(5));
  const compare = (batches: Tensor[]) => {
    const pruned = prune(params, CONFIG, target, { ...kept, batches });
    assert.equal(pruned.kept.hidden, ALIVE.hidden);
    return largestDifference(
      logits,
      forward(pruned.params, pruned.config, ids(5)),
    );
  };
  assert.ok(compare(BATCHES()) < LOGIT_TOLERANCE);
  assert.ok(compare([]) > 0.01);
});

test("tied heads and biases are cut along", () => {
  const config = { ...CONFIG, tieWordEmbeddings: true, attentionBias: true };
  const params = randomModel({ ...config, mlpBias: true });
  const pruned = prune(params, { ...config, mlpBias: true }, TARGET, {
    batches: BATCHES(),
  });
  const shapes = Object.fromEntries(
    Object.entries(flatten(pruned.params as ParamTree))
      .map(([name, { shape }]) => [name, shape]),
  );
  assert.is(shapes["lm_head.weight"], undefined);
  assert.equal(shapes["model.layers.1.self_attn.q_proj.bias"], [16]);
  assert.equal(shapes["model.layers.1.self_attn.v_proj.bias"], [8]);
  assert.equal(shapes["model.layers.1.self_attn.o_proj.bias"], [10]);
  assert.equal(shapes["model.layers.1.mlp.up_proj.bias"], [13]);
  const [value] = loss(pruned.params, pruned.config, ids(6)).dataSync();
  assert.ok(Number.isFinite(value));
});

test("hand case: groups and heads of grouped queries", () => {
  const scores: Scores = {
    layers: Float64Array.of(3, 1, 2),
    hidden: Float64Array.of(0.5, 0.1, 0.9, 0.5),
    heads: [
      Float64Array.of(1, 9, 5, 5, 0, 8),
      Float64Array.of(1, 1, 1, 1, 1, 1),
      Float64Array.of(0, 0, 0, 0, 2, 1),
    ],
    kvHeads: [
      Float64Array.of(0, 0, 0),
      Float64Array.of(0, 0, 1),
      Float64Array.of(4, 1, 0),
    ],
    channels: [0, 1, 2].map(() => Float64Array.of(1, 2, 3, 4)),
  };
  const config = {
    ...CONFIG,
    hiddenSize: 4,
    numLayers: 3,
    intermediateSize: 4,
  };
  const kept = selectParts(scores, config, {
    numLayers: 2,
    numHeads: 2,
    numKvHeads: 2,
    intermediateSize: 3,
    hiddenSize: 2,
  });
  // Best of the pairs (1, 9), (5, 5), (0, 8): 9, 5 and 8, so groups 0 and 2 with heads 1 and 5.
  assert.equal(kept.heads, [[1, 5], [0, 4], [0, 4]]);
  assert.equal(kept.kvHeads, [[0, 2], [0, 2], [0, 2]]);
  assert.equal(kept.layers, [0, 2]);
  assert.equal(kept.hidden, [0, 2]); // of equal scores the first
  assert.equal(kept.channels[0], [1, 2, 3]);
});

test("Taylor importance is |w dL/dw| by finite differences", () => {
  const params = randomModel();
  const batch = ids(21, 1, 6);
  const [layer, channel] = [1, 7];
  const weights = flatten(params as ParamTree);
  const step = 0.01;
  let expected = 0;
  for (const [end, axis] of [["gate", 0], ["up", 0], ["down", 1]] as const) {
    const weight =
      weights[`model.layers.${layer}.mlp.${end}_proj.weight`] as tf.Variable;
    const [, columns] = weight.shape as [number, number];
    const original = weight.dataSync().slice();
    for (let d = 0; d < CONFIG.hiddenSize; d++) {
      const at = axis === 0 ? channel * columns + d : d * columns + channel;
      const [up, down] = [step, -step].map((h) => {
        const values = original.slice();
        values[at] += h;
        weight.assign(tf.tensor(values, weight.shape));
        return loss(params, CONFIG, batch).dataSync()[0];
      });
      expected += Math.abs(original[at] * (up - down) / (2 * step));
    }
    weight.assign(tf.tensor(original, weight.shape));
  }
  const scores = importanceScores(params, CONFIG, { batches: [batch] });
  const actual = scores.channels[layer][channel];
  // Differences of float32 losses near 4 over 2 x 0.01: 48 errors of about 2e-5 each.
  assert.ok(Math.abs(actual - expected) < 2e-3, `${actual} ${expected}`);
});

test("activation importance is the energy that flows, by a plain loop", () => {
  const params = randomModel();
  const batch = ids(22, 2, 7);
  const seen: Record<string, { shape: number[]; data: Float32Array }> = {};
  hiddenStates(params, CONFIG, batch.slice([0, 0], [2, 6]), {
    onActivation(name, value) {
      const data = value.dataSync() as Float32Array;
      seen[name] = { shape: value.shape, data: data.slice() };
    },
  });
  const scores = importanceScores(params, CONFIG, {
    importance: "activation",
    batches: [batch],
  });
  const near = (actual: number, expected: number) =>
    assert.ok(
      Math.abs(actual - expected) < 1e-5 * Math.abs(expected),
      `${actual} ${expected}`,
    );
  const energy = (name: string, first: number, count: number) => {
    const { shape, data } = seen[name];
    const width = shape[2];
    return data.reduce((sum, v, i) => {
      const c = i % width;
      return c >= first && c < first + count ? sum + v * v : sum;
    }, 0);
  };
  near(
    scores.heads[2][3],
    energy("model.layers.2.self_attn.o_proj.input", 12, 4),
  );
  near(
    scores.channels[2][5],
    energy("model.layers.2.mlp.down_proj.input", 5, 1),
  );
  const norms = [0, 1, 2, 3].flatMap((i) => [
    `model.layers.${i}.self_attn.q_proj.input`,
    `model.layers.${i}.mlp.gate_proj.input`,
  ]);
  near(
    scores.hidden[9],
    [...norms, "model.norm.output"]
      .reduce((sum, name) => sum + energy(name, 9, 1), 0),
  );
  const [before, after] = [
    seen["model.layers.0.output"].data,
    seen[
      "model.layers.1.output"
    ].data,
  ];
  let influence = 0;
  for (let t = 0; t < 12; t++) {
    let [xy, xx, yy] = [0, 0, 0];
    for (let d = 16 * t; d < 16 * (t + 1); d++) {
      xy += before[d] * after[d];
      xx += before[d] ** 2;
      yy += after[d] ** 2;
    }
    influence += 1 - xy / Math.sqrt(xx * yy);
  }
  near(scores.layers[1], influence);
});

test("parameter counts are those of the released models", () => {
  const llama2: LlamaConfig = {
    vocabSize: 32000,
    hiddenSize: 4096,
    intermediateSize: 11008,
    numLayers: 32,
    numHeads: 32,
    numKvHeads: 32,
  };
  const sheared: LlamaConfig = {
    ...llama2,
    hiddenSize: 2048,
    intermediateSize: 5504,
    numLayers: 24,
    numHeads: 16,
    numKvHeads: 16,
  };
  assert.is(modelSize(llama2), 6_738_415_616);
  assert.is(modelSize(sheared), 1_345_423_360);
  // The paper's 81.4 % is 1 - 1.3 / 7 of the rounded sizes.
  assert.is(prunedFraction(llama2, sheared).toFixed(3), "0.800");
});

test("the chosen shape removes the wanted share", () => {
  const toy: LlamaConfig = {
    vocabSize: 2048,
    hiddenSize: 256,
    intermediateSize: 704,
    numLayers: 8,
    numHeads: 8,
    numKvHeads: 4,
    tieWordEmbeddings: true,
  };
  for (const fraction of [0.25, 0.5, 0.814, 0.9]) {
    const shape = targetShape(toy, { fraction });
    const removed = prunedFraction(toy, { ...toy, ...shape, headDim: 32 });
    assert.ok(Math.abs(removed - fraction) <= 0.002, `${fraction} ${removed}`);
  }
  const { numLayers, hiddenSize, numHeads, numKvHeads, intermediateSize } =
    targetShape(toy);
  // Near 3/4 of the layers and half of the rest; the brackets are our choice.
  assert.ok(numLayers >= 5 && numLayers <= 7, `${numLayers} layers`);
  assert.ok(hiddenSize >= 104 && hiddenSize <= 152, `width ${hiddenSize}`);
  assert.ok(numHeads >= 3 && numHeads <= 5, `${numHeads} heads`);
  assert.is(numHeads, 2 * numKvHeads);
  assert.ok(intermediateSize >= 288 && intermediateSize <= 416);
  assert.throws(
    () => targetShape(toy, { fraction: 1 }),
    /fraction must be from 0 to below 1: fraction 1$/,
  );
});

test("random scores depend on the key alone", () => {
  const params = randomModel();
  const scores = (seed: number) =>
    importanceScores(params, CONFIG, { importance: "random", key: key(seed) });
  assert.equal(scores(1), scores(1));
  assert.not.equal(scores(1), scores(2));
});

test("errors name the value", () => {
  const params = randomModel();
  const attempt = (change: Record<string, number>, options = {}) => () =>
    prune(params, CONFIG, { ...TARGET, ...change }, options);
  assert.throws(
    attempt({ hiddenSize: 17 }),
    /^Cannot prune as hiddenSize must be an integer from 1 to 16: hiddenSize 17$/,
  );
  assert.throws(attempt({ numLayers: 0 }), /from 1 to 4: numLayers 0$/);
  assert.throws(
    attempt({ numHeads: 6, numKvHeads: 2 }),
    /at most 2 times it: numHeads 6, numKvHeads 2$/,
  );
  assert.throws(attempt({ numHeads: 3 }), /numHeads 3, numKvHeads 2$/);
  assert.throws(attempt({}), /calibration batches are required: batches none$/);
  assert.throws(attempt({}, { importance: "random" }), /a key is required/);
  assert.throws(
    () => {
      const scores = importanceScores(params, CONFIG, {
        importance: "magnitude",
      });
      scores.hidden[3] = NaN;
      selectParts(scores, CONFIG, TARGET);
    },
    /every score must be finite: score NaN of part 3$/,
  );
  assert.throws(
    attempt({}, { importance: "luck", batches: BATCHES() }),
    /must be one of .*: importance "luck"$/,
  );
});

test.run();
