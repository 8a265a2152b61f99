import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  alignPredictions,
  cacheAligned,
  cacheSource,
  editDistance,
  fusedDistribution,
  fuseInto,
  largest,
  mergeLinear,
  mergeSlerp,
  mergeSlerpAll,
  mergeTies,
  minCe,
  type Model,
  sourceDivergences,
  taskArithmetic,
  tiesDelta,
  uniformWeights,
  vocabularyMap,
  warp,
} from "../lib/fusion/mod.ts";
import { evaluate, initLlama, type LlamaConfig } from "../lib/core/llama.ts";
import { adamW } from "../lib/core/optim.ts";
import { key, randomInts } from "../lib/core/rng.ts";
import { flatten, ready } from "../lib/core/tensor.ts";
import { trainBpe } from "../lib/core/tokenizer.ts";

await ready();

const config: LlamaConfig = {
  vocabSize: 24,
  hiddenSize: 16,
  intermediateSize: 24,
  numLayers: 1,
  numHeads: 2,
  numKvHeads: 2,
  maxPositions: 8,
};
const modelOf = (seed: number): Model => ({
  config,
  params: initLlama(config, key(seed)),
});
const windows = Array.from(
  { length: 6 },
  (_, i) => Int32Array.from(randomInts(key(100 + i), 9, 0, 24)),
);
/** Sums of some dozens of float32 products. */
const FLOAT32 = 1e-4;
const near = (a: number, b: number, what: string) =>
  assert.ok(
    Math.abs(a - b) <= FLOAT32 * (1 + Math.abs(b)),
    `${what}: ${a} is not ${b}`,
  );

test("largest: against sorting everything", () => {
  for (let seed = 0; seed < 20; seed++) {
    const values = Array.from(randomInts(key(seed), 30, 0, 12));
    const sorted = values.map((_, i) => i)
      .sort((a, b) => values[b] - values[a] || a - b);
    assert.equal(largest(values, 7), sorted.slice(0, 7));
  }
});

test("cache: losses are those of evaluate, kept probabilities sum to 1", () => {
  const model = modelOf(1);
  const cache = cacheSource("a", model, windows);
  const { loss } = evaluate(model.params, config, windows);
  near(cache.loss.reduce((a, b) => a + b, 0) / 6, loss, "mean loss");
  for (let place = 0; place < 6 * 8; place++) {
    const own = cache.probs.subarray(place * 10, place * 10 + 10);
    near(own.reduce((a, b) => a + b, 0), 1, `place ${place}`);
  }
});

test("fusing distributions is weighting losses: CE is linear in the target", () => {
  const caches = [1, 2].map((s) => cacheSource(`${s}`, modelOf(s), windows));
  const V = 24;
  const logits = Float64Array.from({ length: 8 * V }, (_, i) => Math.sin(i));
  const normalizers = Float64Array.from(
    { length: 8 },
    (_, t) =>
      Math.log(
        logits.subarray(t * V, (t + 1) * V)
          .reduce((sum, z) => sum + Math.exp(z), 0),
      ),
  );
  const weights = [0.3, 0.7];
  const fused = fusedDistribution(caches, [4], [weights]).dataSync();
  let whole = 0;
  for (let t = 0; t < 8; t++) {
    const row = logits.subarray(t * V, (t + 1) * V);
    const norm = Math.log(row.reduce((a, x) => a + Math.exp(x), 0));
    row.forEach((x, v) => whole -= fused[t * V + v] * (x - norm) / 8);
  }
  const [each] = sourceDivergences(caches, [4], logits, normalizers);
  near(weights[0] * each[0] + weights[1] * each[1], whole, "cross-entropy");
});

test("merging: the mean, TIES and the arc by hand; a model merged with itself is itself", () => {
  const [a, b] = [modelOf(1).params, modelOf(2).params];
  const name = "model.layers.0.mlp.up_proj.weight";
  const at = (params: typeof a, i: number) =>
    flatten(params)[name].dataSync()[i];
  for (let i = 0; i < 5; i++) {
    near(at(mergeLinear([a, b]), i), (at(a, i) + at(b, i)) / 2, "linear");
    near(
      at(taskArithmetic(a, [b], { alpha: 0.25 }), i),
      0.75 * at(a, i) + 0.25 * at(b, i),
      "task arithmetic",
    );
    near(at(mergeSlerp(a, a), i), at(a, i), "slerp of equals");
    near(at(mergeSlerp(a, b, { t: 1 }), i), at(b, i), "slerp's end");
    near(at(mergeTies(a, [b], { density: 1 }), i), at(b, i), "ties of one");
  }
  assert.equal(tiesDelta([[1, -4], [3, 1]], 1), [2, -4]);
  assert.equal(tiesDelta([[1, -4], [3, 1]], 0.5), [3, -4]);
});

test("training: the fused target lowers the loss; without sources it is plain training", () => {
  const caches = [1, 2].map((s) => cacheSource(`${s}`, modelOf(s), windows));
  const run = (selection: Parameters<typeof fuseInto>[3]["selection"]) =>
    fuseInto(modelOf(3), windows, caches, {
      selection,
      lambda: 0.5,
      optimizer: adamW({ learningRate: 1e-2 }),
      steps: 12,
      batch: 3,
      key: key(7),
      conflictEvery: 6,
    });
  for (
    const selection of [
      { kind: "none" },
      { kind: "rule", rule: minCe },
      { kind: "gate" },
      { kind: "gate", gate: { objective: "gold" } },
      { kind: "random" },
    ] as const
  ) {
    const { losses, weights, cosines } = run(selection);
    assert.ok(
      losses[10] + losses[11] < losses[0] + losses[1],
      `${selection.kind} learns`,
    );
    if (selection.kind === "none") continue;
    weights.forEach((w) => near(w[0] + w[1], 1, "weights"));
    assert.is(cosines.length, 2);
  }
});

test("bad input: vocabularies, texts and contexts are named with both sizes", () => {
  const cache = cacheSource("a", modelOf(1), windows);
  const options = {
    selection: { kind: "rule" as const, rule: uniformWeights },
    optimizer: adamW(),
    steps: 1,
    batch: 2,
    key: key(1),
  };
  const other = { ...cache, name: "b", vocabSize: 30 };
  assert.throws(
    () => fuseInto(modelOf(1), windows, [cache, other], options),
    /"b" has 30 tokens, the target 24/,
  );
  assert.throws(
    () => fuseInto(modelOf(1), windows.slice(1), [cache], options),
    /6 texts cached, 5 given/,
  );
  assert.throws(() => fuseInto(modelOf(1), windows, [], options), /0; pass/);
  const long = [Int32Array.from(randomInts(key(1), 13, 0, 24))];
  assert.throws(
    () => cacheSource("a", modelOf(1), long),
    /context 8, texts 12/,
  );
  assert.throws(
    () => cacheSource("a", modelOf(1), [Int32Array.of(1, 99)]),
    /id 99, its vocabulary 24/,
  );
  assert.throws(
    () => cacheSource("a", modelOf(1), windows, { kept: 0 }),
    /kept logits must be a positive integer: 0/,
  );
  assert.throws(
    () => cacheSource("a", modelOf(1), windows, { temperature: 0 }),
    /temperature must be positive and finite: 0/,
  );
  const shorter = windows.map((row) => row.subarray(0, row.length - 1));
  assert.throws(
    () => fuseInto(modelOf(1), shorter, [cache], options),
    /texts of \d+ positions cached, of \d+ given/,
  );
  for (const bad of [[NaN], [0.5, 0.5], [-1]]) {
    assert.throws(
      () =>
        fuseInto(modelOf(1), windows, [cache], {
          ...options,
          selection: { kind: "rule", rule: () => bad },
        }),
      /a rule must give a finite weight >= 0 for each of 1 sources/,
    );
  }
  assert.throws(
    () => mergeTies(modelOf(1).params, []),
    /must be a model beside the base: 0 given/,
  );
  const wide = initLlama({ ...config, intermediateSize: 32 }, key(1));
  assert.throws(
    () => mergeLinear([modelOf(1).params, wide]),
    /\[24,16\] in model 0 and \[32,16\] in model 1/,
  );
});

test("alignment by hand: one to one is carried over, anything else falls back", () => {
  assert.is(editDistance("kitten", "sitting"), 3);
  assert.equal(vocabularyMap(["the", "cats"], ["a", "the", "cat"]), [1, 2]);
  assert.equal(warp(["a", "b"], ["a", "b"]), [[0, 0], [1, 1]]);
  const target = ["the", "cat", "sat"];
  const { predictions, alignedRatio } = alignPredictions(
    {
      tokens: ["the", "c", "at", "sat"],
      predictions: [
        { ids: [0, 1], probs: [0.75, 0.25] },
        { ids: [1], probs: [1] },
        { ids: [1], probs: [1] },
        { ids: [2, 3], probs: [0.5, 0.5] },
      ],
    },
    { tokens: target, own: [0, 1, 2] },
    [0, 1, 2, 2],
  );
  assert.equal(predictions[0], { ids: [0, 1], probs: [0.75, 0.25] });
  assert.equal(predictions[1], { ids: [1], probs: [1] }); // one to two
  assert.equal(predictions[2], { ids: [2], probs: [1] }); // the first of two wins
  near(alignedRatio, 2 / 3, "aligned");
});

test("alignment of two vocabularies: itself wholly, another in part", () => {
  const text = "the cat sat on the mat and the cat ate the rat ".repeat(8);
  const [small, large] = [262, 290].map((vocabSize) =>
    trainBpe([text], { vocabSize })
  );
  const piecesOf = (tokenizer: typeof small) =>
    Array.from(
      { length: tokenizer.vocabSize },
      (_, id) => tokenizer.decode([id]),
    );
  const sample = "the cat ate the mat";
  const ratio = (from: typeof small, to: typeof small) => {
    const [source, target] = [from, to].map((t) => t.encode(sample));
    const [a, b] = [piecesOf(from), piecesOf(to)];
    return alignPredictions(
      {
        tokens: Array.from(source, (id) => a[id]),
        predictions: Array.from(source, (id) => ({ ids: [id], probs: [1] })),
      },
      { tokens: Array.from(target, (id) => b[id]), own: target },
      vocabularyMap(a, b),
    ).alignedRatio;
  };
  assert.is(ratio(large, large), 1);
  const part = ratio(small, large);
  assert.ok(part < 1, `some tokens differ: ${part}`);
});

test("a source of the same tokens is aligned with itself; one of others in part", () => {
  const text = "the cat sat on the mat and the cat ate the rat ".repeat(8);
  const [small, large] = [262, 290].map((vocabSize) =>
    trainBpe([text], { vocabSize })
  );
  const of = (vocabSize: number): Model => {
    const own = { ...config, vocabSize, maxPositions: 64 };
    return { config: own, params: initLlama(own, key(5)) };
  };
  const rows = [
    large.encode("the cat sat on the mat and the rat").subarray(0, 7),
    large.encode(" the mat and the cat ate the rat").subarray(0, 7),
  ];
  const direct = cacheSource("own", of(large.vocabSize), rows);
  const same = cacheAligned(
    "own",
    of(large.vocabSize),
    { source: large, target: large },
    rows,
  );
  assert.is(same.alignedRatio, 1);
  assert.equal(same.cache.ids, direct.ids);
  same.cache.probs.forEach((p, i) => near(p, direct.probs[i], `p ${i}`));
  same.cache.loss.forEach((x, i) => near(x, direct.loss[i], `loss ${i}`));
  const other = cacheAligned(
    "other",
    of(small.vocabSize),
    { source: small, target: large },
    rows,
  );
  assert.ok(other.alignedRatio > 0 && other.alignedRatio < 1);
  assert.is(other.cache.vocabSize, large.vocabSize);
  // What is not aligned teaches the true token, so both can be fused.
  const fused = fusedDistribution(
    [same.cache, other.cache],
    [0, 1],
    [[0.5, 0.5], [0, 1]],
  );
  const sums = fused.sum(1).dataSync();
  sums.forEach((sum, i) => near(sum, 1, `row ${i}`));
  assert.throws(
    () => cacheAligned("tiny", of(200), { source: small, target: large }, rows),
    /model 200, tokenizer 26\d/,
  );
  const short = {
    ...of(small.vocabSize),
    config: { ...of(small.vocabSize).config, maxPositions: 4 },
  };
  assert.throws(
    () => cacheAligned("short", short, { source: small, target: large }, rows),
    /"short" as its context must hold the texts: context 4/,
  );
  const tokenizers = { source: small, target: large };
  const model = of(small.vocabSize);
  assert.throws(
    () => cacheAligned("none", model, tokenizers, []),
    /"none" as there must be texts of one length of at least 2 tokens: 0 texts/,
  );
  const uneven = [rows[0], rows[0].subarray(1)];
  assert.throws(
    () => cacheAligned("odd", model, tokenizers, uneven),
    new RegExp(`2 texts, lengths ${rows[0].length} and ${rows[0].length - 1}`),
  );
});

test("one source, none that passes, every feature and level: weights stay a distribution", () => {
  const caches = [1, 2, 3].map((s) => cacheSource(`${s}`, modelOf(s), windows));
  const run = (
    selection: Parameters<typeof fuseInto>[3]["selection"],
    own = caches,
    lambda = 0.5,
  ) =>
    fuseInto(modelOf(4), windows, own, {
      selection,
      lambda,
      optimizer: adamW(),
      steps: 4,
      batch: 3,
      key: key(8),
    });
  const single = run({ kind: "gate" }, caches.slice(0, 1));
  single.weights.forEach(([w]) => near(w, 1, "one source"));
  assert.equal(single.cv2, [0, 0, 0, 0]);
  const best = run({ kind: "gate", gate: { tau: 1 } });
  assert.equal(best.selected, [1, 1, 1, 1]);
  const features = ["invppl", "standardised", "distributions"] as const;
  for (const level of ["sequence", "token"] as const) {
    for (const feature of features) {
      for (const objective of ["total", "gold"] as const) {
        const { weights } = run(
          { kind: "gate", level, gate: { features: feature, objective } },
          caches,
          0, // the gate must learn without true tokens too
        );
        weights.forEach((w) => near(w[0] + w[1] + w[2], 1, feature));
      }
    }
  }
  assert.throws(
    () => run({ kind: "gate" }, caches, 1.5),
    /lambda must be in \[0, 1\]: 1\.5/,
  );
});

test("a trained gate finds the source that is right, and leaves the wrong one", () => {
  // Source 0 is right on the first texts, source 1 on the others; source 2 never.
  const caches = [0, 1, 2].map((s) => cacheSource(`${s}`, modelOf(1), windows));
  caches.forEach((cache, k) => {
    const { positions: T, kept: C } = cache;
    windows.forEach((row, n) => {
      const right = (n < 3 ? 0 : 1) === k;
      cache.loss[n] = right ? 0.1 : 3;
      for (let t = 0; t < T; t++) {
        const at = n * T + t;
        cache.ids[at * C] = right ? row[t + 1] : (row[t + 1] + 1) % 24;
        cache.probs.fill(0, at * C, (at + 1) * C);
        cache.probs[at * C] = 1;
        cache.gold[at] = right ? 0.9 : 0.05;
      }
    });
  });
  const { lastWeights } = fuseInto(modelOf(4), windows, caches, {
    selection: { kind: "gate", gate: { objective: "gold", feedback: 0 } },
    lambda: 0.5,
    optimizer: adamW(),
    steps: 120,
    batch: 6,
    key: key(9),
  });
  lastWeights.forEach((w, n) => {
    assert.ok(w[n < 3 ? 0 : 1] > 0.9, `text ${n}: ${w}`);
    assert.ok(w[2] < 0.05, `text ${n}: ${w}`);
  });
});

test("SLERP of many: each counts alike on one arc", () => {
  const [a, b] = [modelOf(1).params, modelOf(2).params];
  const middle = mergeSlerp(a, b);
  const name = "model.layers.0.mlp.up_proj.weight";
  const values = (params: typeof a) => flatten(params)[name].dataSync();
  const [two, three, m] = [
    mergeSlerpAll([a, b]),
    mergeSlerpAll([a, b, middle]),
    middle,
  ].map(values);
  for (let i = 0; i < 5; i++) {
    near(two[i], m[i], "of two");
    near(three[i], m[i], "with their middle");
  }
});

test.run();
