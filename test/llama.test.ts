import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  flatten,
  ready,
  type Tensor,
  tf,
  valueAndGrads,
  type Variable,
} from "../lib/core/tensor.ts";
import {
  countParameters,
  createCache,
  disposeCache,
  evaluate,
  forward,
  generate,
  hiddenStates,
  initLlama,
  type LlamaConfig,
  loss,
  nestParams,
  parameterShapes,
  resolveConfig,
  ropeFrequencies,
  sampleToken,
  scoreContinuations,
  tokenLogProbs,
  trainFlopsPerToken,
  trainLanguageModel,
} from "../lib/core/llama.ts";
import { attention } from "../lib/core/nn.ts";
import { adamW, sgd } from "../lib/core/optim.ts";
import { fold, key, normal, randomInts } from "../lib/core/rng.ts";

test.before(async () => {
  await ready();
});

/** A few float32 roundings of sums of some ten terms of size 1 to 5. */
const FLOAT_TOLERANCE = 2e-5;

/** Grouped heads, untied head, a base that is not the default. */
const CONFIG: LlamaConfig = {
  vocabSize: 23,
  hiddenSize: 12,
  intermediateSize: 10,
  numLayers: 2,
  numHeads: 6,
  numKvHeads: 2,
  headDim: 4,
  ropeTheta: 500,
  maxPositions: 32,
};

function idsOf(rows: number[][]): Tensor {
  return tf.tensor2d(rows, [rows.length, rows[0].length], "int32");
}

/** Parameters large enough for every part to matter; norms are not 1. */
function bigParams(config: LlamaConfig, seed = 0) {
  const params = initLlama(config, key(seed));
  for (const [name, p] of Object.entries(flatten(params))) {
    const noise = normal(fold(key(seed + 100), name), p.size, 0, 0.4);
    tf.tidy(() => (p as Variable).assign(p.add(tf.tensor(noise, p.shape))));
  }
  return params;
}

/** Largest absolute difference. */
function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assert.is(a.length, b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    largest = Math.max(largest, Math.abs(a[i] - b[i]));
    if (Number.isNaN(a[i]) !== Number.isNaN(b[i])) return NaN;
  }
  return largest;
}

function assertClose(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  tolerance = FLOAT_TOLERANCE,
): void {
  const d = distance(a, b);
  assert.ok(d <= tolerance, `differs by ${d}, tolerance ${tolerance}`);
}

// Hand cases ------------------------------------------------------------------

test("one layer of width 2, worked by hand", () => {
  // One token at position 0 attends to itself only, so attention hands on v; rotary
  // positions do nothing there. With eps 0, D 2, F 1:
  //   e = [3, 4], n = e / sqrt(12.5) = [0.848528, 1.131371]
  //   v = [n1, n0], o = identity: x = [3 + 1.131371, 4 + 0.848528]
  //   m = x / sqrt((x0^2 + x1^2) / 2), gate = m0, up = m1, down = [1, 0]
  const config: LlamaConfig = {
    vocabSize: 2,
    hiddenSize: 2,
    intermediateSize: 1,
    numLayers: 1,
    numHeads: 1,
    numKvHeads: 1,
    rmsNormEps: 0,
  };
  const params = nestParams({
    "model.embed_tokens.weight": tf.tensor2d([[9, 9], [3, 4]]),
    "model.layers.0.self_attn.q_proj.weight": tf.tensor2d([[1, 2], [3, 4]]),
    "model.layers.0.self_attn.k_proj.weight": tf.tensor2d([[5, 6], [7, 8]]),
    "model.layers.0.self_attn.v_proj.weight": tf.tensor2d([[0, 1], [1, 0]]),
    "model.layers.0.self_attn.o_proj.weight": tf.tensor2d([[1, 0], [0, 1]]),
    "model.layers.0.mlp.gate_proj.weight": tf.tensor2d([[1, 0]]),
    "model.layers.0.mlp.up_proj.weight": tf.tensor2d([[0, 1]]),
    "model.layers.0.mlp.down_proj.weight": tf.tensor2d([[1], [0]]),
    "model.layers.0.input_layernorm.weight": tf.ones([2]),
    "model.layers.0.post_attention_layernorm.weight": tf.ones([2]),
    "model.norm.weight": tf.tensor1d([1, 2]),
    "lm_head.weight": tf.tensor2d([[1, 0], [0, 1]]),
  });
  const x0 = 3 + 4 / Math.sqrt(12.5);
  const x1 = 4 + 3 / Math.sqrt(12.5);
  const rms1 = Math.sqrt((x0 * x0 + x1 * x1) / 2);
  const [m0, m1] = [x0 / rms1, x1 / rms1];
  const y0 = x0 + m0 / (1 + Math.exp(-m0)) * m1;
  const rms2 = Math.sqrt((y0 * y0 + x1 * x1) / 2);
  const logits = forward(params, config, idsOf([[1]]));
  assertClose(logits.dataSync(), [y0 / rms2, 2 * x1 / rms2], 1e-6);
  tf.dispose([params, logits]);
});

test("parameter names and shapes are those of a Hugging Face checkpoint", () => {
  const params = initLlama(CONFIG, key(1));
  const named = flatten(params);
  assert.equal(Object.keys(named), Object.keys(parameterShapes(CONFIG)));
  assert.equal(Object.keys(named).slice(0, 11), [
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.self_attn.v_proj.weight",
    "model.layers.0.self_attn.o_proj.weight",
    "model.layers.0.mlp.gate_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.post_attention_layernorm.weight",
    "model.layers.1.self_attn.q_proj.weight",
  ]);
  assert.equal(named["model.layers.1.self_attn.k_proj.weight"].shape, [8, 12]);
  assert.equal(named["model.layers.1.self_attn.o_proj.weight"].shape, [12, 24]);
  // 2 * 23 * 12 head and embedding, per layer 12 * (24 + 8 + 8 + 24) + 3 * 120 + 24.
  assert.is(countParameters(params), 552 + 2 * (768 + 360 + 24) + 12);
  const tied = parameterShapes({ ...CONFIG, tieWordEmbeddings: true });
  assert.not("lm_head.weight" in tied);
  tf.dispose(params);
});

test("initial weights have the stated mean and spread, by key", () => {
  const config = { ...CONFIG, vocabSize: 400, hiddenSize: 64, headDim: 16 };
  const params = initLlama(config, key(5));
  const again = initLlama(config, key(5));
  const other = initLlama(config, key(6));
  const named = flatten(params);
  const spread = (name: string) => {
    const values = Array.from(named[name].dataSync());
    return Math.sqrt(values.reduce((s, x) => s + x * x, 0) / values.length);
  };
  // 25,600 and 6,144 draws: standard errors of the spread 0.5 % and 0.9 %.
  const embed = spread("model.embed_tokens.weight");
  assert.ok(Math.abs(embed / 0.02 - 1) < 0.02, String(embed));
  const out = spread("model.layers.1.self_attn.o_proj.weight");
  assert.ok(Math.abs(out / (0.02 / 2) - 1) < 0.04, String(out));
  assert.equal(
    [...new Set(named["model.layers.0.input_layernorm.weight"].dataSync())],
    [1],
  );
  const query = (p: unknown) =>
    flatten(p as never)["model.layers.0.self_attn.q_proj.weight"].dataSync();
  assert.equal(query(again), query(params));
  assert.ok(distance(query(other), query(params)) > 0.01);
  tf.dispose([params, again, other]);
});

test("an untrained model predicts nearly uniformly", () => {
  const params = initLlama(CONFIG, key(2));
  const value = loss(params, CONFIG, idsOf([[1, 2, 3, 4, 5, 6, 7, 8]]));
  assert.ok(Math.abs(value.dataSync()[0] - Math.log(23)) < 0.05);
  tf.dispose([params, value]);
});

test("scaled rotary frequencies, by hand", () => {
  const config = { ...CONFIG, headDim: 8, ropeTheta: 1000 };
  const plain = ropeFrequencies(config);
  assertClose(plain, [1, 1000 ** -0.25, 1000 ** -0.5, 1000 ** -0.75], 1e-12);
  assertClose(
    ropeFrequencies({ ...config, ropeScaling: { type: "linear", factor: 4 } }),
    plain.map((w) => w / 4),
    1e-12,
  );
  // 64 positions hold 10.2, 1.81, 0.32 and 0.06 waves: the first is kept (> 8), the
  // last two are slowed down (< 1), the second is (1.811 - 1) / 7 of the way.
  const keep = (64 * plain[1] / (2 * Math.PI) - 1) / 7;
  assert.ok(keep > 0.11 && keep < 0.12);
  assertClose(
    ropeFrequencies({
      ...config,
      ropeScaling: {
        type: "llama3",
        factor: 4,
        lowFreqFactor: 1,
        highFreqFactor: 8,
        originalMaxPositions: 64,
      },
    }),
    [
      1,
      plain[1] * (keep + (1 - keep) / 4),
      plain[2] / 4,
      plain[3] / 4,
    ],
    1e-12,
  );
});

test("training FLOPs per token, by hand", () => {
  // Weights that multiply: 23 * 12 and per layer 768 + 360; 2 layers, 24 wide heads.
  assert.is(trainFlopsPerToken(CONFIG, 7), 6 * (276 + 2256) + 12 * 2 * 24 * 7);
});

// Gradient --------------------------------------------------------------------

test("gradients of the whole model agree with finite differences", () => {
  for (const tieWordEmbeddings of [false, true]) {
    const config = { ...CONFIG, tieWordEmbeddings, attentionBias: true };
    const params = bigParams(config, 3);
    const ids = idsOf([[1, 2, 3, 1, 5], [6, 7, 22, 0, 1]]);
    const { grads, value } = valueAndGrads(
      () => loss(params, config, ids),
      params,
    );
    // Along a random direction for each tensor; step and tolerance balance the
    // float32 rounding of the loss (about 3e-7) against the third derivative.
    const STEP = 1e-2;
    const TOLERANCE = 1e-3;
    let moved = 0;
    for (const [name, p] of Object.entries(flatten(params))) {
      const direction = normal(fold(key(9), name), p.size);
      const length = Math.sqrt(direction.reduce((s, x) => s + x * x, 0));
      const u = tf.tensor(direction.map((x) => x / length), p.shape);
      const start = p.clone();
      const at = (t: number) =>
        tf.tidy(() => {
          (p as Variable).assign(start.add(u.mul(t)));
          return loss(params, config, ids).dataSync()[0];
        });
      const slope =
        (8 * (at(STEP) - at(-STEP)) - at(2 * STEP) + at(-2 * STEP)) /
        (12 * STEP);
      (p as Variable).assign(start);
      const exact = tf.tidy(() => grads[name].mul(u).sum().dataSync()[0]);
      assert.ok(
        Math.abs(slope - exact) < TOLERANCE,
        `${name}: ${slope} by differences, ${exact} by gradient`,
      );
      if (Math.abs(exact) > 10 * TOLERANCE) moved++;
      tf.dispose([u, start]);
    }
    // The check is not empty: most slopes are far above the tolerance.
    assert.ok(moved > 10, `${moved} slopes above the tolerance`);
    tf.dispose([params, grads, value, ids]);
  }
});

// Invariants ------------------------------------------------------------------

test("a token changes no logits before it, and some after it", () => {
  const params = bigParams(CONFIG);
  const rows = [1, 2, 3, 4, 5, 6];
  const V = CONFIG.vocabSize;
  const base = forward(params, CONFIG, idsOf([rows])).dataSync();
  for (let changed = 0; changed < rows.length; changed++) {
    const other = rows.map((id, t) => t === changed ? 20 : id);
    const logits = forward(params, CONFIG, idsOf([other])).dataSync();
    assert.is(
      distance(logits.slice(0, changed * V), base.slice(0, changed * V)),
      0,
    );
    for (let t = changed; t < rows.length; t++) {
      const at = (x: typeof base) => x.slice(t * V, (t + 1) * V);
      assert.ok(distance(at(logits), at(base)) > 1e-3, `${changed} on ${t}`);
    }
  }
  tf.dispose(params);
});

test("sequences of a batch do not see each other", () => {
  const params = bigParams(CONFIG);
  const rows = [[1, 2, 3], [4, 5, 6], [7, 8, 9]];
  const together = forward(params, CONFIG, idsOf(rows)).dataSync();
  const alone = rows.map((row) =>
    forward(params, CONFIG, idsOf([row])).dataSync()
  );
  assertClose(together, alone.flatMap((x) => Array.from(x)));
  tf.dispose(params);
});

test("the order of tokens matters only through positions", () => {
  // Same set of earlier tokens in another order: without rotary positions the last
  // logits of a one-layer model would be equal.
  const config = { ...CONFIG, numLayers: 1 };
  const params = bigParams(config);
  const last = (row: number[], c: LlamaConfig) =>
    forward(params, c, idsOf([row]), { positions: "last" }).dataSync();
  assert.ok(distance(last([1, 2, 3], config), last([2, 1, 3], config)) > 1e-3);
  const still: LlamaConfig = {
    ...config,
    ropeScaling: { type: "linear", factor: 1e9 },
  };
  assertClose(last([1, 2, 3], still), last([2, 1, 3], still), 1e-5);
  tf.dispose(params);
});

test("grouped heads equal a model whose key and value heads are repeated", () => {
  const params = bigParams(CONFIG);
  const full = { ...CONFIG, numKvHeads: CONFIG.numHeads };
  const repeated: Record<string, Tensor> = {};
  for (const [name, p] of Object.entries(flatten(params))) {
    repeated[name] = /\.(k|v)_proj\./.test(name)
      ? tf.tidy(() =>
        tf.tile(p.reshape([2, 1, 4, 12]), [1, 3, 1, 1]).reshape([24, 12])
      )
      : p;
  }
  const ids = idsOf([[1, 2, 3, 4, 5]]);
  assertClose(
    forward(nestParams(repeated), full, ids).dataSync(),
    forward(params, CONFIG, ids).dataSync(),
  );
  tf.dispose([params, repeated, ids]);
});

test("a tied head is the embedding table", () => {
  const tied = { ...CONFIG, tieWordEmbeddings: true };
  const params = bigParams(tied);
  const untied = { ...params, lm_head: params.model.embed_tokens };
  const ids = idsOf([[1, 2, 3]]);
  assert.is(
    distance(
      forward(params, tied, ids).dataSync(),
      forward(untied, CONFIG, ids).dataSync(),
    ),
    0,
  );
  tf.dispose([params, ids]);
});

test("removing a zeroed group of heads changes nothing", () => {
  // The shape of a pruned layer is read from its weights; the others keep theirs.
  const params = bigParams(CONFIG);
  const { self_attn } = params.model.layers[1];
  const D = CONFIG.hiddenSize;
  // Query heads 3 to 5 use key and value head 1; their part of the output is zero.
  const zeroed = tf.concat([
    self_attn.o_proj.weight.slice([0, 0], [D, 12]),
    tf.zeros([D, 12]),
  ], 1);
  const rest = {
    q_proj: { weight: self_attn.q_proj.weight.slice([0, 0], [12, D]) },
    k_proj: { weight: self_attn.k_proj.weight.slice([0, 0], [4, D]) },
    v_proj: { weight: self_attn.v_proj.weight.slice([0, 0], [4, D]) },
    o_proj: { weight: self_attn.o_proj.weight.slice([0, 0], [D, 12]) },
  };
  const ids = idsOf([[1, 2, 3, 4]]);
  const withAttention = (attention: typeof self_attn) => {
    const [first, second] = params.model.layers;
    const layers = [first, { ...second, self_attn: attention }];
    const changed = { ...params, model: { ...params.model, layers } };
    return forward(changed, CONFIG, ids).dataSync();
  };
  assertClose(
    withAttention(rest),
    withAttention({ ...self_attn, o_proj: { weight: zeroed } }),
  );
  tf.dispose([params, rest, zeroed, ids]);
});

// Cache and generation --------------------------------------------------------

test("prefill and steps with the cache equal the full forward pass", () => {
  const params = bigParams(CONFIG);
  const rows = [[1, 2, 3, 4, 5, 6, 7, 8], [9, 8, 7, 6, 5, 4, 3, 2]];
  const V = CONFIG.vocabSize;
  const full = forward(params, CONFIG, idsOf(rows)).arraySync() as number[][][];
  for (const pieces of [[8], [3, 5], [1, 1, 1, 1, 1, 1, 1, 1], [4, 1, 1, 2]]) {
    const before = tf.memory().numTensors;
    const cache = createCache();
    let start = 0;
    for (const length of pieces) {
      const part = rows.map((row) => row.slice(start, start + length));
      const ids = idsOf(part);
      const logits = forward(params, CONFIG, ids, { cache });
      assertClose(
        logits.dataSync(),
        full.flatMap((row) => row.slice(start, start + length).flat()),
      );
      assert.equal(logits.shape, [2, length, V]);
      tf.dispose([ids, logits]);
      start += length;
      assert.is(cache.length, start);
    }
    disposeCache(cache);
    assert.is(tf.memory().numTensors, before);
  }
  tf.dispose(params);
});

test("greedy generation equals repeated full forward passes", () => {
  const params = bigParams(CONFIG);
  const prompt = [3, 1, 4];
  const slow = [...prompt];
  const V = CONFIG.vocabSize;
  for (let i = 0; i < 8; i++) {
    const logits = tf.tidy(() =>
      forward(params, CONFIG, idsOf([slow])).dataSync()
    );
    const last = Array.from(logits.slice(-V));
    slow.push(last.indexOf(Math.max(...last)));
  }
  const before = tf.memory().numTensors;
  const fast = generate(params, CONFIG, prompt, { maxTokens: 8 });
  assert.equal(Array.from(fast), slow.slice(3));
  assert.is(tf.memory().numTensors, before);
  tf.dispose(params);
});

test("generation ends by stop token, by callback and where positions end", () => {
  const params = bigParams(CONFIG);
  const all = generate(params, CONFIG, [3, 1, 4], { maxTokens: 8 });
  const stop = all[2];
  const first = Array.from(all).indexOf(stop);
  assert.equal(
    generate(params, CONFIG, [3, 1, 4], { maxTokens: 8, stop: [stop] }),
    all.slice(0, first + 1),
  );
  const seen: number[] = [];
  generate(params, CONFIG, [3, 1, 4], {
    onToken: (id) => seen.push(id) < 2,
  });
  assert.equal(seen, Array.from(all.slice(0, 2)));
  // 3 + 29 positions are read; the token after the last one is still predicted.
  assert.is(generate(params, CONFIG, [3, 1, 4], { maxTokens: 99 }).length, 30);
  assert.is(generate(params, CONFIG, [3], { maxTokens: 0 }).length, 0);
  tf.dispose(params);
});

test("sampled text depends on the key and on nothing else", () => {
  const params = bigParams(CONFIG);
  const options = { temperature: 1, maxTokens: 12 };
  const write = (seed: number) =>
    generate(params, CONFIG, [1], { ...options, key: key(seed) });
  assert.equal(write(1), write(1));
  assert.not.equal(write(1), write(2));
  tf.dispose(params);
});

/** Frequencies of sampled tokens. */
function frequencies(
  logits: number[],
  options: Parameters<typeof sampleToken>[1],
  draws = 20000,
): number[] {
  const counts = logits.map(() => 0);
  for (let i = 0; i < draws; i++) {
    counts[sampleToken(logits, { ...options, key: fold(key(11), i) })]++;
  }
  return counts.map((count) => count / draws);
}

/** Five standard errors of a frequency over 20,000 draws. */
const FREQUENCY_TOLERANCE = 5 * Math.sqrt(0.25 / 20000);

test("sampling has the stated probabilities", () => {
  const p = [0.5, 0.25, 0.15, 0.1];
  const logits = p.map(Math.log);
  const check = (
    options: Parameters<typeof sampleToken>[1],
    expected: number[],
  ) => assertClose(frequencies(logits, options), expected, FREQUENCY_TOLERANCE);
  check({ temperature: 1 }, p);
  // p^2 / sum p^2 at temperature 1/2: sum = 0.345.
  check({ temperature: 0.5 }, p.map((x) => x * x / 0.345));
  check({ temperature: 1, topK: 2 }, [2 / 3, 1 / 3, 0, 0]);
  check({ temperature: 1, topP: 0.7 }, [2 / 3, 1 / 3, 0, 0]);
  check({ temperature: 1, topP: 0.8 }, [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0]);
  check({ temperature: 1, topP: 1e-9 }, [1, 0, 0, 0]);
  // Of the two that top-k leaves, 2/3 is enough for top-p.
  check({ temperature: 1, topK: 2, topP: 0.6 }, [1, 0, 0, 0]);
});

test("sampling: greedy, ties, hidden tokens and bad arguments", () => {
  assert.is(sampleToken([1, 3, 3, 2]), 1);
  assert.is(sampleToken([-Infinity, -5, -Infinity]), 1);
  const hidden = [0, -Infinity, 0];
  assertClose(
    frequencies(hidden, { temperature: 1, topP: 0.999 }),
    [0.5, 0, 0.5],
    FREQUENCY_TOLERANCE,
  );
  assert.throws(() => sampleToken([1, NaN]), /NaN at token 1/);
  assert.throws(() => sampleToken([1], { temperature: 1 }), /needs a key/);
  assert.throws(() => sampleToken([1], { temperature: -1 }), /temperature -1/);
  assert.throws(() => sampleToken([1], { topK: 0 }), /topK 0/);
  assert.throws(() => sampleToken([1], { topP: 1.5 }), /topP 1.5/);
});

// Scores ----------------------------------------------------------------------

test("log-probabilities, loss and evaluation are one measure", () => {
  const params = bigParams(CONFIG);
  const rows = Array.from(
    { length: 5 },
    (_, i) => Array.from(randomInts(fold(key(4), i), 7, 0, 23)),
  );
  const V = CONFIG.vocabSize;
  // By definition, in double precision, from the logits.
  const logits = forward(params, CONFIG, idsOf(rows)).dataSync();
  const expected: number[] = [];
  rows.forEach((row, i) => {
    for (let t = 0; t + 1 < row.length; t++) {
      const at = Array.from(logits.slice((i * 7 + t) * V, (i * 7 + t + 1) * V));
      const sum = at.reduce((s, x) => s + Math.exp(x), 0);
      expected.push(at[row[t + 1]] - Math.log(sum));
    }
  });
  const logProbs = tokenLogProbs(params, CONFIG, idsOf(rows));
  assert.equal(logProbs.shape, [5, 6]);
  assertClose(logProbs.dataSync(), expected);
  const mean = -expected.reduce((a, b) => a + b) / 30;
  assertClose(loss(params, CONFIG, idsOf(rows)).dataSync(), [mean]);
  for (const batch of [1, 2, 5, 8]) {
    const result = evaluate(params, CONFIG, rows, { batch });
    assertClose([result.loss], [mean]);
    assertClose([result.perplexity / Math.exp(mean)], [1]);
    assert.is(result.tokens, 30);
  }
  tf.dispose(params);
});

test("ignored labels count nowhere", () => {
  const params = bigParams(CONFIG);
  const short = evaluate(params, CONFIG, [[1, 2, 3, 4]]);
  const padded = evaluate(params, CONFIG, [[1, 2, 3, 4, 0, 0]], {
    ignoreIndex: 0,
  });
  assert.is(padded.tokens, 3);
  assertClose([padded.loss], [short.loss]);
  const value = loss(params, CONFIG, idsOf([[1, 2, 3, 4, 0, 0]]), {
    ignoreIndex: 0,
  });
  assertClose(value.dataSync(), [short.loss]);
  tf.dispose([params, value]);
});

test("continuations score the same alone, batched and padded", () => {
  const params = bigParams(CONFIG);
  const items = [
    { context: [1, 2, 3, 4, 5], continuation: [6] },
    { context: [7], continuation: [8, 9, 10, 11] },
    { context: [1, 2], continuation: [3, 4] },
  ];
  const expected = items.map(({ context, continuation }) => {
    const row = [...context, ...continuation];
    const all = Array.from(
      tokenLogProbs(params, CONFIG, idsOf([row])).dataSync(),
    );
    return all.slice(context.length - 1).reduce((a, b) => a + b, 0);
  });
  for (const batch of [1, 2, 3]) {
    const scores = scoreContinuations(params, CONFIG, items, { batch });
    assertClose(scores.map((s) => s.logProb), expected);
    assert.equal(scores.map((s) => s.tokens), [1, 4, 2]);
  }
  assert.throws(
    () =>
      scoreContinuations(params, CONFIG, [{ context: [], continuation: [1] }]),
    /context 0, continuation 1/,
  );
  tf.dispose(params);
});

// Arguments of the linear layers ----------------------------------------------

const MODULES = [0, 1].flatMap((i) => [
  ...["q", "k", "v", "o"].map((p) => `model.layers.${i}.self_attn.${p}_proj`),
  ...["gate", "up", "down"].map((p) => `model.layers.${i}.mlp.${p}_proj`),
]);

test("each linear layer gets its own adapter and weight", () => {
  const params = bigParams(CONFIG);
  const ids = idsOf([[1, 2, 3]]);
  const named = flatten(params);
  const seen: string[] = [];
  const adapters = Object.fromEntries(
    [...MODULES, "lm_head"].map((module) => [module, {
      apply(
        x: Tensor,
        weight: Tensor,
        base: (x: Tensor, weight: Tensor) => Tensor,
      ) {
        assert.is(weight, named[`${module}.weight`]);
        seen.push(module);
        return base(x, weight);
      },
    }]),
  );
  const base = forward(params, CONFIG, ids).dataSync();
  assert.is(
    distance(forward(params, CONFIG, ids, { adapters }).dataSync(), base),
    0,
  );
  assert.equal(seen, [...MODULES, "lm_head"]);

  // What an adapter returns is what flows on: twice the product of one layer equals
  // twice its weight.
  const module = "model.layers.1.mlp.up_proj";
  const doubled = forward(params, CONFIG, ids, {
    adapters: { [module]: { apply: (x, w, f) => f(x, w).mul(2) } },
  }).dataSync();
  const weight = named[`${module}.weight`] as Variable;
  tf.tidy(() => weight.assign(weight.mul(2)));
  assertClose(doubled, forward(params, CONFIG, ids).dataSync());
  assert.ok(distance(doubled, base) > 0.01);
  tf.dispose([params, ids]);
});

test("a quantizer acts on the blocks, a function of the name decides for each", () => {
  const params = bigParams(CONFIG);
  const ids = idsOf([[1, 2, 3]]);
  const run = (quantizer?: Parameters<typeof forward>[3]) =>
    tf.tidy(() => forward(params, CONFIG, ids, quantizer).dataSync());
  const zero = { weight: (w: Tensor) => w.zerosLike() };
  // Without its blocks the model is embedding, norm and head.
  const bare = { ...params, model: { ...params.model, layers: [] } };
  assertClose(
    run({ quantizer: zero }),
    forward(bare, { ...CONFIG, numLayers: 1 }, ids).dataSync(),
  );
  const asked: string[] = [];
  const result = run({
    quantizer: (module) => {
      asked.push(module);
      return module === "lm_head" ? zero : undefined;
    },
  });
  assert.equal(asked, [...MODULES, "lm_head"]);
  assert.ok(result.every((x) => x === 0));
  const half = { activation: (x: Tensor) => x.mul(0.5) };
  assert.ok(distance(run({ quantizer: half }), run()) > 0.01);
  tf.dispose([params, ids]);
});

test("adapters and quantizers also act in generation", () => {
  const params = bigParams(CONFIG);
  const adapters = {
    lm_head: {
      apply: (x: Tensor, w: Tensor) =>
        tf.zeros([1, 1, w.shape[0]]).add(x.sum().mul(0)),
    },
  };
  const written = generate(params, CONFIG, [5], { adapters, maxTokens: 3 });
  assert.equal(Array.from(written), [0, 0, 0]);
  tf.dispose(params);
});

test("the hook sees each input and output, and may replace it", () => {
  const params = bigParams(CONFIG);
  const ids = idsOf([[1, 2, 3]]);
  const shapes: Record<string, number[]> = {};
  const base = forward(params, CONFIG, ids, {
    onActivation: (name, x) => {
      shapes[name] = x.shape;
    },
  }).dataSync();
  assert.equal(Object.keys(shapes), [
    "model.embed_tokens.output",
    ...[0, 1].flatMap((layer) => {
      const inputs = MODULES.slice(7 * layer, 7 * layer + 7)
        .map((module) => `${module}.input`);
      const block = `model.layers.${layer}`;
      return [
        ...["q", "k", "v"].flatMap((name, i) => [
          inputs[i],
          `${block}.self_attn.${name}`,
        ]),
        inputs[3],
        `${block}.residual`,
        ...inputs.slice(4),
        `${block}.output`,
      ];
    }),
    "model.norm.output",
    "lm_head.input",
  ]);
  assert.equal(shapes["model.layers.0.self_attn.o_proj.input"], [1, 3, 24]);
  assert.equal(shapes["model.layers.1.mlp.down_proj.input"], [1, 3, 10]);
  // A layer whose output is replaced by its input is as good as absent.
  let entering: Tensor | undefined;
  const skipped = forward(params, CONFIG, ids, {
    onActivation: (name, x) => {
      if (name === "model.layers.0.output") entering = tf.keep(x.clone());
      if (name === "model.layers.1.output") return entering;
    },
  }).dataSync();
  entering?.dispose();
  const first = { ...params.model, layers: params.model.layers.slice(0, 1) };
  assertClose(
    skipped,
    forward({ ...params, model: first }, CONFIG, ids).dataSync(),
  );
  assert.ok(distance(skipped, base) > 0.01);
  tf.dispose([params, ids]);
});

test("attention is an argument, and sees rotated queries and keys", () => {
  const params = bigParams(CONFIG);
  const ids = idsOf([[1, 2, 3, 4], [5, 6, 7, 8]]);
  const seen: number[] = [];
  const uniform = forward(params, CONFIG, ids, {
    attend: (q, k, v, layer) => {
      seen.push(layer);
      assert.equal([q.shape[2], k.shape[2]], [CONFIG.numHeads, v.shape[2]]);
      return attention(q.zerosLike(), k, v);
    },
  }).dataSync();
  assert.equal(seen, [0, 1]);
  // Queries of zero give each earlier position the same weight.
  const silent = forward(params, CONFIG, ids, {
    onActivation: (name, x) => /\.self_attn\.q$/.test(name) ? x.zerosLike() : x,
  }).dataSync();
  assertClose(uniform, silent);
  assert.ok(
    distance(uniform, forward(params, CONFIG, ids).dataSync()) > 0.01,
  );
  tf.dispose([params, ids]);
});

test("tokens that leave the residual stream are gone, the others renumbered", () => {
  const params = bigParams(CONFIG);
  const ids = idsOf([[1, 2, 3, 4]]);
  // The last tokens go: what is left is the forward pass of the first ones.
  const kept = forward(params, CONFIG, ids, {
    onActivation: (name, x) =>
      name === "model.layers.0.residual"
        ? x.slice([0, 0, 0], [1, 2, x.shape[2]!])
        : undefined,
  });
  assert.equal(kept.shape, [1, 2, CONFIG.vocabSize]);
  assertClose(
    kept.dataSync(),
    forward(params, CONFIG, ids.slice([0, 0], [1, 2])).dataSync(),
  );
  tf.dispose([params, ids, kept]);
});

test("a frozen model gives gradients to what is trainable only", () => {
  const params = bigParams(CONFIG);
  const ids = idsOf([[1, 2, 3, 4]]);
  const scale = tf.variable(tf.scalar(1));
  const adapters = {
    "model.layers.0.mlp.up_proj": {
      apply: (
        x: Tensor,
        w: Tensor,
        base: (x: Tensor, w: Tensor) => Tensor,
      ) => base(x, w).mul(scale),
    },
  };
  const { grads, value } = valueAndGrads(
    () => loss(params, CONFIG, ids, { adapters }),
    { scale },
  );
  assert.equal(Object.keys(grads), ["scale"]);
  const at = (s: number) => {
    scale.assign(tf.scalar(s));
    return loss(params, CONFIG, ids, { adapters }).dataSync()[0];
  };
  const slope = (at(1.05) - at(0.95)) / 0.1;
  assertClose(grads.scale.dataSync(), [slope], 1e-3);
  assert.ok(Math.abs(slope) > 1e-2);
  tf.dispose([params, ids, grads, value, scale]);
});

// Training --------------------------------------------------------------------

/** The same sentence in every batch. */
function* sentence(): Generator<Tensor> {
  while (true) {
    yield idsOf([[1, 2, 3, 4, 5, 6, 7, 8], [2, 3, 4, 5, 6, 7, 8, 9]]);
  }
}

test("training learns a sentence by heart, which generation recites", () => {
  const params = initLlama(CONFIG, key(8));
  const optimizer = adamW({ learningRate: 1e-2 });
  const seen: number[] = [];
  const history = trainLanguageModel({
    params,
    config: CONFIG,
    trainable: params,
    optimizer,
    batches: sentence(),
    steps: 80,
    onStep: ({ step }) => seen.push(step),
  });
  assert.equal(seen, Array.from({ length: 80 }, (_, i) => i));
  assert.ok(Math.abs(history[0].loss - Math.log(23)) < 0.1);
  assert.ok(history[79].loss < 0.1, `loss ${history[79].loss}`);
  assert.ok(history.every(({ gradNorm }) => gradNorm > 0));
  assert.equal(
    Array.from(generate(params, CONFIG, [1, 2], { maxTokens: 5 })),
    [3, 4, 5, 6, 7],
  );
  optimizer.dispose();
  tf.dispose(params);
});

test("a loss that is not a number stops training and changes nothing", () => {
  const params = initLlama(CONFIG, key(8));
  const optimizer = sgd({ learningRate: 0.1 });
  const norm = params.model.norm.weight as Variable;
  let lastLoss = NaN;
  const run = () =>
    trainLanguageModel({
      params,
      config: CONFIG,
      trainable: params,
      optimizer,
      batches: sentence(),
      steps: 10,
      onStep: ({ step, loss }) => {
        lastLoss = loss;
        if (step === 3) norm.assign(tf.fill([12], NaN));
      },
    });
  const before = tf.memory().numTensors;
  let message = "";
  try {
    run();
  } catch (error) {
    message = (error as Error).message;
  }
  assert.is(
    message,
    "Cannot go on training as the loss must be finite: NaN at step 4, last " +
      `finite loss ${lastLoss}; try a smaller learning rate`,
  );
  assert.ok(Number.isFinite(lastLoss));
  const head = flatten(params)["lm_head.weight"].dataSync();
  assert.ok(head.every(Number.isFinite));
  // One tensor is the test's own fill; nothing else is left behind.
  assert.ok(tf.memory().numTensors - before <= 1);
  optimizer.dispose();
  tf.dispose(params);
});

test("too few batches are an error", () => {
  const params = initLlama(CONFIG, key(8));
  const optimizer = sgd({ learningRate: 0.1 });
  assert.throws(
    () =>
      trainLanguageModel({
        params,
        config: CONFIG,
        trainable: params,
        optimizer,
        batches: [idsOf([[1, 2, 3]])],
        steps: 2,
      }),
    /2 steps, 1 batches/,
  );
  optimizer.dispose();
  tf.dispose(params);
});

test("nothing leaks over training steps, evaluation and generation", () => {
  const params = initLlama(CONFIG, key(8));
  const optimizer = adamW({ learningRate: 1e-3 });
  const round = () => {
    trainLanguageModel({
      params,
      config: CONFIG,
      trainable: params,
      optimizer,
      batches: sentence(),
      steps: 5,
    });
    evaluate(params, CONFIG, [[1, 2, 3], [4, 5, 6]]);
    scoreContinuations(params, CONFIG, [{
      context: [1],
      continuation: [2, 3],
    }]);
    generate(params, CONFIG, [1, 2], { maxTokens: 4 });
    tf.dispose(hiddenStates(params, CONFIG, tf.tidy(() => idsOf([[1]]))));
  };
  round();
  const { numTensors, numBytes } = tf.memory();
  for (let i = 0; i < 10; i++) round();
  // The ids that hiddenStates was given are this test's own: one tensor a round.
  assert.is(tf.memory().numTensors - numTensors, 10);
  assert.is(tf.memory().numBytes - numBytes, 10 * 4);
  optimizer.dispose();
  tf.dispose(params);
});

// Errors ----------------------------------------------------------------------

test("configurations that do not fit are refused with the values", () => {
  const cases: [Partial<LlamaConfig>, RegExp][] = [
    [{ numKvHeads: 4 }, /numHeads 6, numKvHeads 4/],
    [{ headDim: 3 }, /headDim must be even .*: 3/],
    [{ headDim: undefined, numHeads: 5, numKvHeads: 5 }, /headDim .*: 2.4/],
    [{ vocabSize: 0 }, /vocabSize must be a positive integer: 0/],
    [{ numLayers: 1.5 }, /numLayers must be a positive integer: 1.5/],
    [{ ropeTheta: 0 }, /ropeTheta 0/],
    [{ rmsNormEps: NaN }, /rmsNormEps NaN/],
  ];
  for (const [change, message] of cases) {
    assert.throws(() => resolveConfig({ ...CONFIG, ...change }), message);
  }
});

test("bad ids and sequences that are too long are refused", () => {
  const params = initLlama(CONFIG, key(0));
  const f = (ids: Tensor) => () => forward(params, CONFIG, ids);
  assert.throws(
    f(tf.tensor2d([[1, 2]])),
    /int32 tensor \[B, T\]: float32 \[1,2\]/,
  );
  assert.throws(f(tf.tensor1d([1], "int32")), /int32 \[1\]/);
  assert.throws(f(idsOf([Array(33).fill(1)])), /maxPositions 32, tokens 33/);
  assert.throws(
    () => loss(params, CONFIG, idsOf([[1]])),
    /\[B, T \+ 1\].*\[1,1\]/,
  );
  assert.throws(() => generate(params, CONFIG, []), /1 to 32 tokens: 0/);
  assert.throws(
    () => generate(params, CONFIG, Array(33).fill(1)),
    /tokens: 33/,
  );
  assert.throws(() => evaluate(params, CONFIG, []), /0 windows/);
  assert.throws(
    () => evaluate(params, CONFIG, [[1, 2, 3], [1, 2]]),
    /lengths 3 and 2/,
  );
  tf.dispose(params);
});

test.run();
