import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  createStudent,
  frozen,
  importantTokens,
  inferenceOptions,
  type MethodName,
  methodOf,
  METHODS,
  qatLoss,
  siteOf,
  type Student,
  studentPass,
  textLogProbs,
  tokenScores,
  trainableOf,
  trainStudent,
} from "../lib/edgeqat/mod.ts";
import {
  createCache,
  disposeCache,
  forward,
  initLlama,
  type LlamaConfig,
} from "../lib/core/llama.ts";
import { minimalPairs } from "../lib/core/minimal-pairs.ts";
import { parseTagged } from "../lib/core/datasets.ts";
import { adamW } from "../lib/core/optim.ts";
import { fold, key, randomInts } from "../lib/core/rng.ts";
import {
  flatten,
  ready,
  type Tensor,
  tf,
  valueAndGrads,
} from "../lib/core/tensor.ts";

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

const idsOf = (seed: number, T: number, B = 2) =>
  tf.tensor2d(
    Int32Array.from(randomInts(key(seed), B * T, 0, 32)),
    [B, T],
    "int32",
  );

function student(
  method: MethodName,
  weightBits: number,
  activationBits: Student["options"]["activationBits"],
): Student {
  const options = { method: methodOf(method), weightBits, activationBits };
  return createStudent(initLlama(config, key(7)), config, options, [
    idsOf(1, 8),
  ]);
}

const logitsOf = (s: Student, ids: Tensor) =>
  forward(s.params, config, ids, inferenceOptions(s))
    .dataSync() as Float32Array;

const difference = (a: Float32Array, b: Float32Array) =>
  a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);

/** Two orders of summation in float32. */
const FLOAT32 = 1e-5;

test("16 bits change nothing: open attention is the model's own", () => {
  const ids = idsOf(2, 9);
  const s = student("edgeqat", 16, 16);
  const float = forward(s.params, config, ids).dataSync() as Float32Array;
  assert.ok(difference(logitsOf(s, ids), float) < FLOAT32);
  assert.ok(difference(logitsOf(student("rtn", 4, 4), ids), float) > 1e-3);
});

test("a frozen student computes the same", () => {
  const ids = idsOf(2, 9);
  for (const method of ["edgeqat", "llm-qat", "pact", "nipq"] as const) {
    const s = student(method, 4, 4);
    const fixed = frozen(s);
    assert.equal([...logitsOf(fixed, ids)], [...logitsOf(s, ids)], method);
    // Its own weights: they are the rounded ones, and the student keeps the float ones.
    const name = "model.layers.0.mlp.up_proj.weight";
    const [own, kept] = [fixed, s].map(({ params }) =>
      new Set(flatten(params)[name].dataSync()).size
    );
    assert.ok(own <= 16 && kept > 16, `${method}: ${own} and ${kept} values`);
  }
});

test("more bits come nearer to the float model", () => {
  const ids = idsOf(2, 9);
  const float = forward(initLlama(config, key(7)), config, ids)
    .dataSync() as Float32Array;
  const error = (bits: number) =>
    difference(logitsOf(student("rtn", bits, bits), ids), float);
  assert.ok(error(8) < error(6) && error(6) < error(4), `${error(8)}`);
});

test("the sites are those of the released code", () => {
  const sites = new Set<string>();
  const float: string[] = [];
  forward(initLlama(config, key(7)), config, idsOf(2, 5), {
    onActivation(name) {
      const site = siteOf(name);
      if (site === undefined) float.push(name);
      else sites.add(site.replace("model.layers.0.", ""));
    },
  });
  const own = [...sites].filter((site) => !site.startsWith("model"));
  assert.equal(own.sort(), [
    "mlp.input",
    "mlp.product",
    "self_attn.input",
    "self_attn.k",
    "self_attn.q",
    "self_attn.v",
  ]);
  assert.ok(float.includes("model.layers.0.self_attn.o_proj.input"));
  const { steps } = student("lsq", 4, 4);
  assert.ok("b8" in steps["model.layers.1.self_attn.softmax"]);
  assert.ok("b4" in steps["model.layers.1.mlp.down_proj"]);
  assert.not("lm_head" in steps);
});

test("the cache holds quantised keys and values, and decoding equals one pass", () => {
  const s = student("edgeqat", 4, 4);
  const ids = idsOf(3, 6, 1);
  const whole = forward(s.params, config, ids, inferenceOptions(s));
  const cache = createCache();
  for (let t = 0; t < 6; t++) {
    const one = forward(s.params, config, ids.slice([0, t], [1, 1]), {
      ...inferenceOptions(s),
      cache,
    });
    const expected = whole.slice([0, t, 0], [1, 1, 32]).dataSync();
    assert.ok(
      difference(one.dataSync() as Float32Array, expected as Float32Array) <
        FLOAT32,
    );
  }
  // At most 16 codes of one scale.
  const codes = new Set(cache.layers[0].k.dataSync());
  assert.ok(codes.size <= 16, `${codes.size}`);
  disposeCache(cache);
});

test("every part of a student that is trained gets a gradient, and the loss falls", () => {
  const teacher = { params: initLlama(config, key(7)), config };
  const ids = idsOf(4, 9);
  const objective = {
    distillation: {},
    entropy: { weight: 0.5, form: "paper" as const },
    distribution: { weight: 1, sign: "intended" as const },
  };
  for (const name of Object.keys(METHODS) as MethodName[]) {
    const s = student(name, 4, 4);
    const noise = name.startsWith("nipq") ? key(5) : undefined;
    const { grads, value } = valueAndGrads(
      () => qatLoss(s, ids, objective, { teacher, noise }),
      trainableOf(s),
    );
    assert.ok(Number.isFinite(value.dataSync()[0]), name);
    const learned = Object.keys(flatten(s.steps as never));
    assert.is(learned.length > 0, !["rtn", "llm-qat"].includes(name), name);
    if (name !== "edgeqat") continue;
    const dead = Object.entries(grads)
      .filter(([, g]) => g.abs().max().dataSync()[0] === 0)
      .map(([path]) => path);
    // Softmax: no probability is above the range, and the zero point passes inside it.
    assert.equal(dead.filter((path) => !/softmax|zeroPoint/.test(path)), []);
  }
  const s = student("edgeqat", 4, 4);
  const before = qatLoss(s, ids, objective, { teacher }).dataSync()[0];
  trainStudent({
    student: s,
    teacher,
    objective,
    optimizer: adamW({ learningRate: 3e-3 }),
    batches: Array.from({ length: 12 }, () => idsOf(4, 9)),
    steps: 12,
    key: key(1),
  });
  const after = qatLoss(s, ids, objective, { teacher }).dataSync()[0];
  assert.ok(after < before, `${before} to ${after}`);
});

test("a calibrated start has a smaller squared error than LSQ's, eight times at 8 bits, and is that of a search by hand", () => {
  const x = Float32Array.from(
    { length: 2000 },
    (_, i) => Math.sin(i * 1.7) + 0.3 * Math.sin(i * 0.31),
  );
  const errorAt = (step: number, qmax: number) =>
    x.reduce((sum, v) => {
      const code = Math.min(qmax, Math.max(-qmax - 1, Math.round(v / step)));
      return sum + (v - step * code) ** 2;
    }, 0);
  const stepOf = (name: MethodName, bits: number) =>
    methodOf(name).weight.start(tf.tensor1d(x), { bits, signed: true })
      .alpha.dataSync()[0];
  for (const [bits, factor] of [[8, 8], [4, 1]]) {
    const qmax = 2 ** (bits - 1) - 1;
    const [lsq, calibrated] = (["edgeqat", "edgeqat-calibrated"] as const)
      .map((name) => errorAt(stepOf(name, bits), qmax));
    assert.ok(factor * calibrated < lsq, `${bits}: ${calibrated}, ${lsq}`);
    const largest = x.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    const tried = Array.from(
      { length: 25 },
      (_, i) => errorAt((i + 1) / 25 * largest / qmax, qmax),
    );
    const best = Math.min(...tried);
    assert.ok(Math.abs(calibrated - best) < 1e-3 * best, `${bits}`);
  }
});

test("a pass leaves no tensors behind", () => {
  const s = student("edgeqat", 4, { importantRatio: 0.5 });
  const ids = idsOf(4, 9);
  const once = () =>
    tf.tidy(() => {
      const pass = studentPass(s, { record: true });
      forward(s.params, config, ids, pass.options).dataSync();
      pass.trace.dispose();
    });
  once();
  const count = tf.memory().numTensors;
  once();
  assert.is(tf.memory().numTensors, count);
});

// Bits of tokens --------------------------------------------------------------------------------

test("hand case: half of four tokens are important", () => {
  const scores = [1, 0.2, 0.6, 0.4];
  assert.equal([...importantTokens(scores, 0.5)], [1, 0, 1, 0]);
  assert.equal([...importantTokens(scores, 0.25)], [1, 0, 0, 0]);
  assert.equal([...importantTokens(scores, 0)], [0, 0, 0, 0]);
  assert.equal([...importantTokens(scores, 1, "causal")], [1, 1, 1, 1]);
  // Int(rho N), and the earlier of equals.
  assert.equal([...importantTokens([1, 1, 1], 0.5)], [1, 0, 0]);
});

test("a causal choice does not change when tokens are added, one over the whole does", () => {
  const scores = Array.from(randomInts(key(9), 40, 0, 1000));
  const prefix = scores.slice(0, 20);
  const causal = importantTokens(scores, 0.5, "causal");
  assert.equal(
    [...importantTokens(prefix, 0.5, "causal")],
    [...causal.slice(0, 20)],
  );
  const rising = Array.from({ length: 8 }, (_, i) => i);
  assert.equal([...importantTokens(rising.slice(0, 4), 0.5)], [0, 0, 1, 1]);
  assert.equal([...importantTokens(rising, 0.5).slice(0, 4)], [0, 0, 0, 0]);
});

test("scores of tokens are means over heads, or sums before the softmax", () => {
  const logits = tf.tensor([1, 9, 2, 9, 3, 9, 5, 9], [1, 2, 2, 2]);
  const softmax = logits.div(10);
  const at = (score: "softmax" | "logits") =>
    Array.from(tokenScores(logits, softmax, { score, scope: "sequence" })[0]);
  assert.equal(at("logits"), [4, 7]);
  assert.ok(Math.abs(at("softmax")[1] - 0.35) < 1e-6);
});

/** Zero points of every site but the softmax, and that of the softmax. */
function setZeroPoints(s: Student, others: number, softmax: number): void {
  for (const [site, widths] of Object.entries(s.steps)) {
    for (const { zeroPoint } of Object.values(widths)) {
      (zeroPoint as tf.Variable | undefined)?.assign(
        tf.scalar(site.endsWith("softmax") ? softmax : others),
      );
    }
  }
}

test("whatever its zero points are, a student with learned steps does not see ahead", () => {
  const T = 64;
  const long = { ...config, maxPositions: T };
  const s = createStudent(
    initLlama(long, key(7)),
    long,
    { method: methodOf("edgeqat"), weightBits: 4, activationBits: 4 },
    [idsOf(1, 32)],
  );
  const ids = idsOf(6, T, 1);
  const changed = ids.dataSync().slice() as Int32Array;
  changed.forEach((id, t) => changed[t] = t < 20 ? id : (id + 7) % 32);
  const others = tf.tensor2d(changed, [1, T], "int32");
  const logits = (of: Student, ids: Tensor) =>
    forward(of.params, long, ids, inferenceOptions(of))
      .dataSync() as Float32Array;
  for (const [zero, softmax] of [[0, 0], [1.6, 0.4], [-2.3, 3], [1, -1.2]]) {
    setZeroPoints(s, zero, softmax);
    const [a, b] = [ids, others].map((x) => logits(s, x));
    assert.is(difference(a.slice(0, 20 * 32), b.slice(0, 20 * 32)), 0);
    assert.ok(difference(a.slice(20 * 32), b.slice(20 * 32)) > 1e-3);
  }
  // The range of the whole sequence looks ahead: the comparison would tell.
  const dynamic = createStudent(
    initLlama(long, key(7)),
    long,
    { method: methodOf("rtn"), weightBits: 4, activationBits: 4 },
    [idsOf(1, 32)],
  );
  const [a, b] = [ids, others].map((x) => logits(dynamic, x));
  assert.ok(difference(a.slice(0, 20 * 32), b.slice(0, 20 * 32)) > 0);
});

test("a student with causal bits cannot see ahead, one that ranks the whole can", () => {
  const ids = idsOf(6, 12, 1);
  const values = ids.dataSync().slice() as Int32Array;
  values[11] = (values[11] + 5) % 32;
  const changed = tf.tensor2d(values, [1, 12], "int32");
  const early = (s: Student, ids: Tensor) => logitsOf(s, ids).slice(0, 8 * 32);
  const causal = student("lsq", 4, { importantRatio: 0.5, ranking: "causal" });
  assert.is(difference(early(causal, ids), early(causal, changed)), 0);
  const s = student("lsq", 4, { importantRatio: 0.5 });
  const passes = [ids, changed].map((x) => {
    const pass = studentPass(s);
    forward(s.params, config, x, pass.options);
    return pass.trace.important.map(([row]) => row.join(""));
  });
  assert.is(passes[0][0].match(/1/g)!.length, 6);
  const all = student("lsq", 4, { importantRatio: 1 });
  const eight = student("lsq", 4, 8);
  assert.ok(difference(logitsOf(all, ids), logitsOf(eight, ids)) < FLOAT32);
});

// Bad input -------------------------------------------------------------------------------------

test("what cannot be quantised is told by name", () => {
  assert.throws(() => student("lsq", 9, 4), /bits must be 2 to 8.*bits 9/);
  assert.throws(() => student("lsq", 4, 1), /bits must be 2 to 8.*bits 1/);
  assert.throws(() => student("lsq", 4, { importantRatio: 2 }), /\[0, 1\]: 2/);
  assert.throws(
    () => student("lsq", 4, { importantRatio: 0.5, low: 6, high: 5 }),
    /no fewer: low 6, high 5/,
  );
  assert.throws(() => methodOf("awq"), /must be one of rtn, lsq.*: awq/);
  const options = { method: methodOf("lsq"), weightBits: 4, activationBits: 4 };
  const params = initLlama(config, key(7));
  assert.throws(
    () =>
      createStudent(params, config, { ...options, method: "lsq" as never }, []),
    /must have a scheme for weights: "lsq"; take one of METHODS/,
  );
  assert.throws(
    () => createStudent(params, config, options, []),
    /at least one batch of text: 0 batches/,
  );
  const { weight } = params.model.layers[1].mlp.up_proj;
  const values = weight.dataSync().slice() as Float32Array;
  values[5] = NaN;
  (weight as tf.Variable).assign(tf.tensor(values, weight.shape));
  assert.throws(
    () => createStudent(params, config, options, [idsOf(1, 8)]),
    /model\.layers\.1\.mlp\.up_proj\.weight must be finite: NaN at 5/,
  );
  // A checkpoint of another shape than its configuration says.
  const fresh = initLlama(config, key(7));
  const of = (other: Partial<LlamaConfig>) => () =>
    createStudent(fresh, { ...config, ...other }, options, [idsOf(1, 8)]);
  assert.throws(of({ numLayers: 3 }), /layers\.2\.\S+ must be .*: missing/);
  assert.throws(of({ numLayers: 1 }), /no parameters but those .*layers\.1\./);
  assert.throws(
    of({ intermediateSize: 23 }),
    /gate_proj\.weight must be \[23,16\]: \[24,16\]/,
  );
  const mixed = student("lsq", 4, { importantRatio: 0.5 });
  const cache = createCache();
  const step = () =>
    forward(mixed.params, config, idsOf(1, 1, 1), {
      ...inferenceOptions(mixed),
      cache,
    });
  step();
  assert.throws(step, /without a cache: 1 of 2 tokens/);
  assert.throws(
    () => qatLoss(mixed, idsOf(1, 4), { distillation: {} }),
    /need a teacher: none given/,
  );
  const taughtBy = (other: Partial<LlamaConfig>) => {
    const shape = { ...config, ...other };
    const teacher = { params: initLlama(shape, key(8)), config: shape };
    const s = student("lsq", 4, 4);
    const objective = {
      distillation: {},
      distribution: { weight: 1, sign: "intended" },
    } as const;
    return () => qatLoss(s, idsOf(1, 4), objective, { teacher });
  };
  assert.throws(taughtBy({ vocabSize: 40 }), /same vocabSize: 32 and 40/);
  assert.throws(taughtBy({ numLayers: 1 }), /same numLayers: 2 and 1/);
  assert.throws(taughtBy({ numHeads: 2 }), /same numHeads: 4 and 2/);
});

test("a calibrated range of NIPQ holds for numbers of any size", () => {
  const { activation } = methodOf("nipq-calibrated");
  for (const most of [1e-3, 0.5, 20, 500]) {
    const x = tf.tensor1d([-most, 0.5 * most]);
    const a = activation.start(x, { bits: 8, signed: true }).a;
    const range = a.softplus().dataSync()[0];
    assert.ok(Math.abs(range / most - 1) < 1e-3, `${most}: ${range}`);
  }
});

test("probabilities have all codes of their bits in LLM-QAT", () => {
  const options = { bits: 4, signed: false };
  const p = tf.tensor2d(Array.from({ length: 16 }, (_, i) => i / 15), [1, 16]);
  const seen = methodOf("llm-qat").activation.quantizer({}, options)(p);
  assert.is(new Set(seen.dataSync()).size, 16);
});

test("a matrix of zeros stays zero instead of becoming NaN", () => {
  for (const name of Object.keys(METHODS) as MethodName[]) {
    const params = initLlama(config, key(7));
    const { weight } = params.model.layers[0].self_attn.v_proj;
    (weight as tf.Variable).assign(tf.zerosLike(weight));
    const s = createStudent(
      params,
      config,
      { method: methodOf(name), weightBits: 4, activationBits: 4 },
      [idsOf(1, 8)],
    );
    assert.ok(logitsOf(s, idsOf(2, 5)).every(Number.isFinite), name);
  }
});

// Scores and pairs ------------------------------------------------------------------------------

test("scores do not depend on what else is scored", () => {
  // Two texts of one length beside each other, one of them with large numbers, and some of other lengths.
  // The last is the second again.
  const texts = [
    [1, 2, 3],
    [4, 5, 6, 7],
    [1, 9, 3],
    [2, 2],
    [30, 31, 8],
    [4, 5, 6, 7],
  ];
  for (const method of Object.keys(METHODS) as MethodName[]) {
    const s = student(method, 4, 4);
    const options = inferenceOptions(s);
    const all = textLogProbs(s.params, config, texts, options);
    texts.forEach((text, i) => {
      const [alone] = textLogProbs(s.params, config, [text], options);
      assert.ok(Math.abs(alone - all[i]) < 1e-4, `${method}, text ${i}`);
    });
    assert.is(all[5], all[1]);
  }
  const s = student("lsq", 4, 4);
  assert.throws(() => textLogProbs(s.params, config, [[1]]), /2 tokens: 1/);
});

test("rules change one word of a tagged sentence, and leave unclear ones alone", () => {
  const pairsOf = (...sentences: string[]) =>
    minimalPairs([{
      id: "x",
      genre: "news",
      paragraphs: sentences.flatMap((text) => parseTagged(`${text}\n\n`)),
    }]);
  const found = pairsOf(
    "These/dts books/nns are/ber old/jj ./.",
    "She/pps saw/vbd herself/ppl there/rb ./.",
    "The/at book/nn of/in maps/nns is/bez here/rb ./.",
    "He/pps went/vbd with/in him/ppo ./.",
    "A/at number/nn of/in books/nns are/ber old/jj ./.",
    "If/cs the/at book/nn were/bed old/jj ./.",
    "This/dt book/nn club/nn grows/vbz ./.",
    "There/ex are/ber no/at old/jj books/nns here/rb ./.",
    "There/ex is/bez a/at man/nn and/cc a/at dog/nn ./.",
    "The/at list/nn of/in books/nns grows/vbz ./.",
    "Underlying/vbg the/at list/nn of/in books/nns are/ber maps/nns ./.",
    "In/in the/at list/nn of/in books/nns are/ber maps/nns ./.",
    "Books/nns grow/vb old/jj ./.",
    "The/at men/nns knew/vbd that/cs she/pps had/hvd hurt/vbn herself/ppl ./.",
    "The/at teachers/nns saw/vbd the/at trial/nn itself/ppl ./.",
    "Teachers/nns say/vb the/at trial/nn itself/ppl was/bedz long/jj ./.",
    "I/ppss told/vbd the/at man/nn about/in myself/ppl ./.",
    "We/ppss may/md not/* see/vb ourselves/ppls ./.",
    "He/pps saw/vbd the/at boys/nns and/cc himself/ppl ./.",
    "They/ppss may/md not/* grow/vb ./.",
  );
  const bad = (name: keyof typeof found) => found[name].map(({ bad }) => bad);
  assert.equal(bad("determiner"), ["This books are old."]);
  assert.equal(bad("noun"), ["These book are old."]);
  // Not "a man and a dog", of which "are" would be right too.
  assert.equal(bad("there"), ["There is no old books here."]);
  assert.equal(bad("attractor"), [
    "The book of maps are here.",
    "The list of books grow.",
  ]);
  assert.equal(bad("verb"), ["This book club grow.", "Books grows old."]);
  assert.equal(bad("base-form"), ["They may not grows."]);
  // "Men" stand in another clause, "the trial itself" is a subject; "they saw the trial themselves" is right.
  assert.equal(bad("anaphor-number"), [
    "She saw themselves there.",
    "The men knew that she had hurt themselves.",
    "Teachers say the trial themselves was long.",
    "I told the man about ourselves.",
    "We may not see myself.",
  ]);
  assert.equal(bad("anaphor-gender"), [
    "She saw himself there.",
    "The men knew that she had hurt himself.",
    "The teachers saw the trial himself.",
    "Teachers say the trial himself was long.",
    "He saw the boys and herself.",
  ]);
  // "I told the man about himself" is right.
  assert.equal(bad("anaphor-person"), [
    "She saw myself there.",
    "The men knew that she had hurt myself.",
    "The teachers saw the trial myself.",
    "Teachers say the trial myself was long.",
    "We may not see themselves.",
    "He saw the boys and myself.",
  ]);
  assert.equal(bad("irregular"), [
    "She seen herself there.",
    "He gone with him.",
    "He seen the boys and himself.",
  ]);
  assert.equal(bad("case"), [
    "Him went with him.",
    "Me told the man about myself.",
    "Us may not see ourselves.",
    "Him saw the boys and himself.",
    "Them may not grow.",
  ]);
  assert.ok(bad("verb-be").every((text) => !text.startsWith("If")));
  assert.throws(() => minimalPairs([]), /at least one tagged document/);
});

test("the same key gives the same training, NIPQ's noise included", () => {
  const run = (seed: number) => {
    const s = student("nipq-calibrated", 4, 4);
    const history = trainStudent({
      student: s,
      objective: {},
      optimizer: adamW({ learningRate: 1e-3 }),
      batches: [idsOf(4, 9), idsOf(5, 9)],
      steps: 2,
      key: fold(key(1), seed),
    });
    return history.map(({ loss }) => loss);
  };
  assert.equal(run(1), run(1));
  assert.not.equal(run(1), run(2));
});

test.run();
