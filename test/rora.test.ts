/** Low-rank adapters: hand cases, exact equivalences, gradients, the law of the gradient norm. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  flatten,
  type ParamTree,
  ready,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
} from "../lib/core/tensor.ts";
import { linear } from "../lib/core/nn.ts";
import { forward, initLlama, loss } from "../lib/core/llama.ts";
import { adamW, type Optimizer, sgd } from "../lib/core/optim.ts";
import { fold, key, normal, randomInts } from "../lib/core/rng.ts";
import { slope } from "../lib/core/stats.ts";
import {
  adaptedNorms,
  adapterBytes,
  adapterModules,
  type AdapterOptions,
  type AdapterSet,
  createAdapters,
  deltaNorm,
  deltaWeight,
  disposeAdapters,
  doraWeight,
  gradientNorms,
  initAdapters,
  linearModules,
  loraScale,
  merge,
  MERGE_TOLERANCE,
  mergeAdapters,
  roraScale,
  rowNorms,
  unmerge,
  unmergeAdapters,
} from "../lib/rora/adapter.ts";

/** Relative to the largest entry: a few float32 roundings in sums of up to 16 terms. */
const TOLERANCE = 3e-6;
/** Of central differences of float32 sums, with a step of 1e-2, relative to the largest entry. */
const DIFFERENCE_TOLERANCE = 2e-3;
/** Of trajectories of 30 optimiser steps whose float32 roundings differ. */
const TRAJECTORY_TOLERANCE = 1e-4;

const random = (name: string, ...shape: number[]) =>
  tf.tensor(
    normal(fold(key(77), name), shape.reduce((a, b) => a * b, 1)),
    shape,
  );

/** A model of one layer called "q_proj". */
function layer(out: number, width: number) {
  return { q_proj: { weight: tf.variable(random("W0", out, width)) } };
}

/** An adapter of that layer whose B (and m) are no longer at their initial values. */
function trained(
  params: ReturnType<typeof layer>,
  options: AdapterOptions = {},
): AdapterSet {
  const adapters = initAdapters(
    params,
    { targets: ["q_proj"], rank: 3, ...options },
    key(5),
  );
  const { loraB, magnitude } = adapters.modules.q_proj;
  loraB.assign(random("B", ...loraB.shape));
  if (magnitude !== null) {
    magnitude.assign(tf.add(tf.abs(random("m", magnitude.size)), 0.5));
  }
  return adapters;
}

const apply = (x: Tensor, params: ReturnType<typeof layer>, a: AdapterSet) =>
  linear(x, params.q_proj.weight, { adapter: adapterModules(a).q_proj });

function near(
  actual: Tensor,
  expected: Tensor | ArrayLike<number>,
  tolerance: number,
  what = "",
) {
  const a = actual.dataSync();
  const e = expected instanceof tf.Tensor ? expected.dataSync() : expected;
  assert.is(a.length, e.length);
  const size = Math.max(...Array.from(e, Math.abs));
  const error = Math.max(...a.map((v, i) => Math.abs(v - e[i])));
  assert.ok(error <= tolerance * size, `${what} ${error} of ${size}`);
}

const differs = (a: Tensor, b: Tensor) =>
  tf.max(tf.abs(tf.sub(a, b))).dataSync()[0];

const VARIANTS: AdapterOptions[] = [
  { scaling: "lora" },
  { scaling: "rora" },
  { scaling: "lora", decompose: "dora" },
  { scaling: "rora", decompose: "dora" },
];
const nameOf = ({ scaling, decompose = "none" }: AdapterOptions) =>
  `${scaling}, ${decompose}`;

test.before(async () => {
  await ready();
});

// Hand cases --------------------------------------------------------------------------------------

test("hand case: 2 x 2, rank 1", () => {
  // B A = [3 1]^T [1 -1] = [3 -3; 1 -1], alpha 2 and rank 1, so dW = [6 -6; 2 -2] for both factors.
  const params = { q_proj: { weight: tf.tensor2d([[1, 0], [0, 2]]) } };
  for (const scaling of ["lora", "rora"] as const) {
    const adapters = createAdapters(
      params,
      { rank: 1, alpha: 2, scaling, targets: ["q_proj"] },
      () => ({
        loraA: tf.tensor2d([[1, -1]]),
        loraB: tf.tensor2d([[3], [1]]),
        magnitude: null,
      }),
    );
    const adapter = adapters.modules.q_proj;
    assert.equal([...deltaWeight(adapter).dataSync()], [6, -6, 2, -2]);
    const y = linear(tf.tensor2d([[1, 1], [2, 0]]), params.q_proj.weight, {
      adapter: adapterModules(adapters).q_proj,
    });
    // W = [7 -6; 2 0]: W (1, 1) = (1, 2), W (2, 0) = (14, 4).
    assert.equal([...y.dataSync()], [1, 2, 14, 4]);
    assert.equal(
      [...merge(params.q_proj.weight, adapter).weight.dataSync()],
      [7, -6, 2, 0],
    );
    assert.is(deltaNorm(params, adapters), Math.sqrt(80));
    assert.is(adapterBytes(adapters), 16);
  }
});

test("hand case: DoRA sets the length of each row", () => {
  // W0 + dW = [3 4; 0 2], rows of length 5 and 2; m = (10, 1) makes them [6 8; 0 1].
  const params = { q_proj: { weight: tf.tensor2d([[2, 4], [0, 2]]) } };
  const adapters = createAdapters(
    params,
    { rank: 1, alpha: 1, decompose: "dora", targets: ["q_proj"] },
    () => ({
      loraA: tf.tensor2d([[1, 0]]),
      loraB: tf.tensor2d([[1], [0]]),
      magnitude: tf.tensor1d([10, 1]),
    }),
  );
  const { weight, norms } = merge(
    params.q_proj.weight,
    adapters.modules.q_proj,
  );
  assert.equal([...norms!.dataSync()], [5, 2]);
  assert.equal([...weight.dataSync()], [6, 8, 0, 1]);
});

test("factors: alpha / r and alpha / sqrt(r)", () => {
  assert.is(loraScale(16, 64), 0.25);
  assert.is(roraScale(16, 64), 2);
  assert.is(loraScale(7, 1), roraScale(7, 1));
});

// Invariants --------------------------------------------------------------------------------------

for (const options of VARIANTS) {
  test(`new adapters change nothing (${nameOf(options)})`, () => {
    const params = layer(12, 8);
    const adapters = initAdapters(
      params,
      { ...options, targets: "all-linear", rank: 4 },
      key(1),
    );
    const x = random("x", 2, 5, 8);
    const base = linear(x, params.q_proj.weight);
    if (options.decompose === "dora") {
      near(apply(x, params, adapters), base, TOLERANCE);
    } else {
      assert.equal(apply(x, params, adapters).dataSync(), base.dataSync());
    }
    assert.ok(deltaNorm(params, adapters) < 1e-5);
  });

  test(
    `merged weights compute what the adapter does (${nameOf(options)})`,
    () => {
      const params = layer(12, 8);
      const adapters = trained(params, options);
      const x = random("x", 2, 5, 8);
      const merged = mergeAdapters(params, adapters);
      const y = apply(x, params, adapters);
      assert.equal(y.shape, [2, 5, 12]);
      near(linear(x, merged.params.q_proj.weight), y, TOLERANCE);
      assert.ok(differs(y, linear(x, params.q_proj.weight)) > 1);

      const back = unmergeAdapters(merged, adapters);
      near(back.q_proj.weight, params.q_proj.weight, MERGE_TOLERANCE * 10);
    },
  );

  test(
    `merge and unmerge stay within the named tolerance (${nameOf(options)})`,
    () => {
      for (let seed = 0; seed < 20; seed++) {
        const weight = tf.variable(
          tf.tensor2d(normal(fold(key(seed), "W"), 96), [12, 8]),
        );
        const params = { q_proj: { weight } };
        const adapters = trained(params, options);
        const adapter = adapters.modules.q_proj;
        adapter.loraB.assign(
          tf.tensor2d(normal(fold(key(seed), "B"), 36, 0, 0.3), [12, 3]),
        );
        const merged = merge(weight, adapter);
        const back = unmerge(merged.weight, adapter, merged.norms);
        const size = Math.max(
          ...[weight, deltaWeight(adapter)].map((t) =>
            tf.max(tf.abs(t)).dataSync()[0]
          ),
        );
        assert.ok(differs(back, weight) <= MERGE_TOLERANCE * size);
      }
    },
  );
}

test("norms without dW are those with it; zero rows stay zero", () => {
  const params = layer(12, 8);
  const { modules } = trained(params, { rank: 5 });
  const { weight } = params.q_proj;
  near(
    adaptedNorms(weight, modules.q_proj),
    rowNorms(tf.add(weight, deltaWeight(modules.q_proj))),
    TOLERANCE,
  );
  // The case of cancellation: dW = -W0 in one row, and nothing but zeros in another.
  const square = { q_proj: { weight: tf.tensor2d([[1, 2], [0, 0], [3, 1]]) } };
  const adapters = createAdapters(
    square,
    { rank: 1, alpha: 1, decompose: "dora", targets: ["q_proj"] },
    (_, w) => ({
      loraA: tf.tensor2d([[1, 2]]),
      loraB: tf.tensor2d([[-1], [0], [0]]),
      magnitude: rowNorms(w),
    }),
  );
  const y = linear(tf.tensor2d([[1, 1]]), square.q_proj.weight, {
    adapter: adapterModules(adapters).q_proj,
  }).dataSync();
  assert.equal([...y], [0, 0, 4]);
});

test("DoRA's axis matters: lengths of columns give another weight", () => {
  const params = layer(8, 8);
  const { modules: { q_proj } } = trained(params, { decompose: "dora" });
  const adapted = tf.add(params.q_proj.weight, deltaWeight(q_proj));
  const right = merge(params.q_proj.weight, q_proj).weight;
  // Each row of W' is as long as m says ...
  near(rowNorms(right), q_proj.magnitude!, TOLERANCE);
  // ... which the lengths of columns do not achieve.
  const wrong = doraWeight(adapted, q_proj.magnitude!, tf.norm(adapted, 2, 0));
  assert.ok(differs(rowNorms(wrong), q_proj.magnitude!) > 0.1);
});

// Equivalences ------------------------------------------------------------------------------------

test("RoRA(alpha, r) is LoRA(alpha sqrt(r), r): bit for bit where sqrt(r) is exact", () => {
  for (const rank of [1, 2, 3, 4, 8]) {
    const params = layer(12, 8);
    const x = random("x", 7, 8);
    const rora = trained(params, { rank, alpha: 16, scaling: "rora" });
    const lora = trained(params, {
      rank,
      alpha: 16 * Math.sqrt(rank),
      scaling: "lora",
    });
    const [a, b] = [rora, lora].map((adapters) => apply(x, params, adapters));
    if (Number.isInteger(Math.sqrt(rank))) {
      assert.equal(a.dataSync(), b.dataSync());
    } else near(a, b, TOLERANCE);
    const plain = trained(params, { rank, alpha: 16, scaling: "lora" });
    assert.is(differs(apply(x, params, plain), a) > 0.1, rank > 1);
  }
});

/** dW after some steps of fitting a target, with learning rates of A and B of their own. */
function trainedDelta(
  scaling: "lora" | "rora",
  rank: number,
  makeOptimizer: (match: (path: string) => boolean) => Optimizer,
): Tensor {
  return tf.tidy(() => {
    const params = layer(16, 16);
    const adapters = initAdapters(
      params,
      { rank, scaling, alpha: 16, targets: ["q_proj"] },
      key(9),
    );
    const x = random("data", 32, 16);
    const target = tf.matMul(x, random("target", 16, 16));
    const optimizer = makeOptimizer((path) => path.endsWith(".lora_B.weight"));
    for (let step = 0; step < 30; step++) {
      const { grads } = valueAndGrads(
        () =>
          tf.losses.meanSquaredError(
            target,
            apply(x, params, adapters),
          ) as Scalar,
        adapters.params,
      );
      optimizer.step(adapters.params, grads);
    }
    optimizer.dispose();
    const delta = deltaWeight(adapters.modules.q_proj);
    disposeAdapters(adapters);
    return delta;
  });
}

/** Small enough that adding it to any root of a second moment here changes nothing. */
const NO_EPS = 1e-30;

test("Adam: RoRA at a rate is LoRA with the rate of B times sqrt(r)", () => {
  const rank = 8;
  const adam = (factor: number, clipNorm?: number) =>
  (
    match: (path: string) => boolean,
  ) =>
    adamW({
      learningRate: 1e-2,
      eps: NO_EPS,
      weightDecay: 0,
      clipNorm,
      groups: [{ match, learningRateScale: factor }],
    });
  const rora = trainedDelta("rora", rank, adam(1));
  const equivalent = trainedDelta("lora", rank, adam(Math.sqrt(rank)));
  near(equivalent, rora, TRAJECTORY_TOLERANCE);
  // Controls: the same rates, and clipping by the global norm, which mixes A and B, break it.
  const size = tf.max(tf.abs(rora)).dataSync()[0];
  assert.ok(
    differs(trainedDelta("lora", rank, adam(1)), rora) > 0.05 * size,
  );
  // Adam divides every gradient by its own size, so clipping does nothing to it while the factor
  // stays the same; it changes from step to step, and differently for the two.
  const clip = 1e-3;
  const clipped = trainedDelta("rora", rank, adam(1, clip));
  const other = trainedDelta("lora", rank, adam(Math.sqrt(rank), clip));
  assert.ok(differs(clipped, other) > 10 * TRAJECTORY_TOLERANCE * size);
});

test("SGD: RoRA at a rate is LoRA with the rate of B times r; clipping breaks it", () => {
  const rank = 8;
  const plain = (factor: number, clipNorm?: number) =>
  (
    match: (path: string) => boolean,
  ) =>
    sgd({
      learningRate: 2e-3,
      clipNorm,
      groups: [{ match, learningRateScale: factor }],
    });
  const rora = trainedDelta("rora", rank, plain(1));
  near(trainedDelta("lora", rank, plain(rank)), rora, TRAJECTORY_TOLERANCE);
  const size = tf.max(tf.abs(rora)).dataSync()[0];
  assert.ok(
    differs(trainedDelta("lora", rank, plain(1)), rora) > 0.05 * size,
  );
  const clipped = trainedDelta("rora", rank, plain(1, 1));
  const clippedLora = trainedDelta("lora", rank, plain(rank, 1));
  assert.ok(
    differs(clippedLora, clipped) >
      0.05 * tf.max(tf.abs(clipped)).dataSync()[0],
  );
});

// Gradients ---------------------------------------------------------------------------------------

test("at B = 0: dL/dA is zero and dL/dB is gamma G A^T", () => {
  for (const scaling of ["lora", "rora"] as const) {
    const params = layer(12, 8);
    const adapters = initAdapters(
      params,
      { rank: 4, scaling, targets: ["q_proj"] },
      key(2),
    );
    const x = random("x", 5, 8);
    const cotangent = random("dy", 5, 12);
    const { grads } = valueAndGrads(
      () => tf.sum(tf.mul(apply(x, params, adapters), cotangent)) as Scalar,
      adapters.params,
    );
    assert.is(gradientNorms(grads).a, 0);
    const { loraA, scale } = adapters.modules.q_proj;
    const G = tf.matMul(cotangent, x, true); // dL/dW [out, in]
    const expected = tf.mul(tf.matMul(G, loraA, false, true), scale);
    near(grads["q_proj.lora_B.weight"], expected, TOLERANCE);
    const norm = tf.norm(expected).dataSync()[0];
    assert.ok(Math.abs(gradientNorms(grads).b - norm) < 1e-5 * norm);
  }
});

/** Central differences of a scalar function with respect to each entry of a variable. */
function differences(f: () => Tensor, variable: tf.Variable): Float32Array {
  const step = 1e-2;
  const original = variable.dataSync().slice();
  const slopes = original.map((_, i) => {
    const [up, down] = [step, -step].map((h) => {
      const values = original.slice();
      values[i] += h;
      variable.assign(tf.tensor(values, variable.shape));
      return f().dataSync()[0];
    });
    return (up - down) / (2 * step);
  }) as Float32Array;
  variable.assign(tf.tensor(original, variable.shape));
  return slopes;
}

for (const options of VARIANTS) {
  test(`gradients by finite differences (${nameOf(options)})`, () => {
    const params = layer(6, 5);
    const adapters = trained(params, { ...options, rank: 2, alpha: 2 });
    const adapter = adapters.modules.q_proj;
    const x = random("x", 2, 2, 5);
    const cotangent = random("dy", 2, 2, 6);
    const value = (y: Tensor) => tf.sum(tf.mul(tf.tanh(y), cotangent));
    const { grads } = valueAndGrads(
      () => value(apply(x, params, adapters)) as Scalar,
      adapters.params,
    );
    // The stated rule of DoRA: the norm is a constant, here the one at the point itself.
    const norms = adaptedNorms(params.q_proj.weight, adapter);
    const held = () => {
      const adapted = tf.add(params.q_proj.weight, deltaWeight(adapter));
      const weight = adapter.magnitude === null
        ? adapted
        : doraWeight(adapted, adapter.magnitude, norms);
      return value(linear(x, weight));
    };
    for (const [path, variable] of Object.entries(flatten(adapters.params))) {
      near(
        grads[path],
        differences(held, variable as tf.Variable),
        DIFFERENCE_TOLERANCE,
        path,
      );
    }
    if (adapter.magnitude !== null) {
      // Control: differentiating the norm too gives something else.
      const full = differences(
        () => value(apply(x, params, adapters)),
        adapter.loraB,
      );
      const rule = grads["q_proj.lora_B.weight"];
      assert.ok(differs(tf.tensor(full, rule.shape), rule) > 0.1);
    }
  });
}

test("law of the gradient norm: |dL/dB| ~ r^(-1/2) for LoRA, r^0 for RoRA", () => {
  const ranks = [2, 4, 8, 16, 32];
  for (const [scaling, exponent] of [["lora", -0.5], ["rora", 0]] as const) {
    const [logRanks, logNorms]: number[][] = [[], []];
    for (let seed = 0; seed < 6; seed++) {
      for (const rank of ranks) {
        tf.tidy(() => {
          const draw = (name: string, out: number, width: number) =>
            tf.tensor2d(
              normal(fold(key(seed), name), out * width),
              [out, width],
            );
          const params = { q_proj: { weight: draw("W0", 64, 64) } };
          // A new A for each rank: the law is one of expectations.
          const adapters = initAdapters(
            params,
            { rank, scaling, targets: ["q_proj"] },
            fold(key(seed), rank),
          );
          const [x, y] = [draw("x", 32, 64), draw("y", 32, 64)];
          const { grads } = valueAndGrads(
            () =>
              tf.losses.meanSquaredError(
                y,
                linear(x, params.q_proj.weight, {
                  adapter: adapterModules(adapters).q_proj,
                }),
              ) as Scalar,
            adapters.params,
          );
          logRanks.push(Math.log(rank));
          logNorms.push(Math.log(gradientNorms(grads).b));
          disposeAdapters(adapters);
        });
      }
    }
    const fit = slope(logRanks, logNorms);
    assert.ok(
      fit.low <= exponent && exponent <= fit.high,
      `${scaling}: slope ${fit.value} [${fit.low}, ${fit.high}]`,
    );
    assert.ok(fit.high - fit.low < 0.15, "the interval excludes the other law");
  }
});

test("the base stays as it is, bit for bit, and nothing leaks in 200 steps", () => {
  const params = layer(12, 8);
  const before = params.q_proj.weight.dataSync().slice();
  for (const options of VARIANTS) {
    const adapters = initAdapters(
      params,
      { ...options, targets: ["q_proj"] },
      key(3),
    );
    const optimizer = adamW({ learningRate: 1e-2 });
    const x = random("x", 16, 8);
    const target = random("y", 16, 12);
    const losses: number[] = [];
    let tensors = 0;
    for (let step = 0; step < 50; step++) {
      const { value, grads } = valueAndGrads(
        () =>
          tf.tidy(() =>
            tf.losses.meanSquaredError(target, apply(x, params, adapters))
          ) as Scalar,
        adapters.params,
      );
      assert.equal(Object.keys(grads), Object.keys(flatten(adapters.params)));
      optimizer.step(adapters.params, grads);
      losses.push(value.dataSync()[0]);
      tf.dispose([value, grads]);
      if (step === 1) tensors = tf.memory().numTensors;
    }
    assert.is(tf.memory().numTensors, tensors);
    assert.ok(losses[49] < 0.7 * losses[0], `${losses[0]} to ${losses[49]}`);
    optimizer.dispose();
    disposeAdapters(adapters);
    tf.dispose([x, target]);
  }
  assert.equal(params.q_proj.weight.dataSync(), before);
});

test("merging, measuring and disposing leak nothing", () => {
  const params = layer(12, 8);
  const before = tf.memory().numTensors;
  const adapters = trained(params, { decompose: "dora" });
  const during = tf.memory().numTensors;
  deltaNorm(params, adapters);
  const merged = mergeAdapters(params, adapters);
  const back = unmergeAdapters(merged, adapters);
  tf.dispose([
    merged.params.q_proj.weight,
    back.q_proj.weight,
    ...Object.values(merged.norms),
  ]);
  assert.is(tf.memory().numTensors, during);
  disposeAdapters(adapters);
  // `trained` itself makes a few tensors for B and m.
  assert.ok(tf.memory().numTensors - before <= 4);
});

// Dropout -----------------------------------------------------------------------------------------

test("dropout acts on the adapter's input alone, by key", () => {
  const params = layer(12, 8);
  const adapters = trained(params, { dropout: 0.5, scaling: "lora" });
  const x = random("x", 3, 8);
  const modules = (seed?: number) =>
    adapterModules(adapters, seed === undefined ? {} : { key: key(seed) });
  const y = (seed?: number) =>
    linear(x, params.q_proj.weight, { adapter: modules(seed).q_proj });
  assert.equal(y(1).dataSync(), y(1).dataSync());
  assert.ok(differs(y(1), y(2)) > 0.1);
  // In evaluation, and in the mean over keys, there is no dropout.
  near(
    y(),
    linear(x, merge(params.q_proj.weight, adapters.modules.q_proj).weight),
    TOLERANCE,
  );
  const n = 2000;
  const mean = tf.tidy(() => {
    let sum: Tensor = tf.zerosLike(y());
    for (let seed = 0; seed < n; seed++) {
      sum = tf.tidy(() => tf.add(sum, y(seed)));
    }
    return tf.div(sum, n);
  });
  // Five standard errors: the spread of one draw is about that of the adapter's output itself.
  const spread = tf.max(tf.abs(tf.sub(y(), linear(x, params.q_proj.weight))))
    .dataSync()[0];
  assert.ok(differs(mean, y()) < 5 * spread / Math.sqrt(n));
});

test("DoRA with dropout: base x + (m / norm - 1) base x' + (m / norm) gamma B A x'", () => {
  const params = layer(12, 8);
  const adapters = trained(params, { dropout: 0.5, decompose: "dora" });
  const adapter = adapters.modules.q_proj;
  // The dropped input is found by an adapter that is the identity on it.
  const x = random("x", 8, 8);
  const probe = createAdapters(
    { q_proj: { weight: tf.zeros([8, 8]) } },
    {
      rank: 8,
      alpha: 8,
      dropout: 0.5,
      scaling: "lora",
      targets: ["q_proj"],
    },
    () => ({ loraA: tf.eye(8), loraB: tf.eye(8), magnitude: null }),
  );
  const dropped = linear(x, tf.zeros([8, 8]), {
    adapter: adapterModules(probe, { key: key(4) }).q_proj,
  });
  const zeros = dropped.dataSync().filter((v) => v === 0).length;
  assert.ok(zeros > 16 && zeros < 48, `${zeros} of 64`);
  const { weight } = params.q_proj;
  const ratio = tf.div(adapter.magnitude!, adaptedNorms(weight, adapter));
  const low = linear(dropped, deltaWeight(adapter));
  const expected = tf.add(
    tf.add(
      linear(x, weight),
      tf.mul(tf.sub(ratio, 1), linear(dropped, weight)),
    ),
    tf.mul(ratio, low),
  );
  const y = linear(x, weight, {
    adapter: adapterModules(adapters, { key: key(4) }).q_proj,
  });
  near(y, expected, TOLERANCE);
});

// A whole model -----------------------------------------------------------------------------------

const CONFIG = {
  vocabSize: 23,
  hiddenSize: 16,
  intermediateSize: 24,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
};

test("LLaMA: names, sizes, merged logits, gradients of every adapter", () => {
  const params = initLlama(CONFIG, key(0));
  const tree = params as ParamTree;
  for (const options of VARIANTS) {
    const adapters = initAdapters(
      tree,
      {
        ...options,
        targets: "all-linear",
        rank: 4,
        rankPattern: { "layers\\.1\\..*_proj": 2, "k_proj": 1 },
        alphaPattern: { down_proj: 3 },
      },
      key(1),
    );
    assert.is(Object.keys(adapters.modules).length, 14);
    assert.not.ok("lm_head" in adapters.modules);
    const name = "model.layers.0.self_attn.k_proj";
    assert.is(adapters.modules[name].rank, 1);
    assert.is(
      adapters.modules["model.layers.1.self_attn.k_proj"].rank,
      2,
    );
    assert.is(adapters.modules["model.layers.1.mlp.down_proj"].alpha, 3);
    const paths = Object.keys(flatten(adapters.params));
    assert.ok(paths.includes(`${name}.lora_A.weight`));
    const dora = options.decompose === "dora";
    assert.is(paths.includes(`${name}.lora_magnitude_vector`), dora);
    // r (in + out), and out more with DoRA, of every module.
    const weights = flatten(tree);
    const size = Object.entries(adapters.modules).reduce((sum, [n, m]) => {
      const [out, width] = weights[`${n}.weight`].shape;
      return sum + m.rank * (out + width) + (dora ? out : 0);
    }, 0);
    assert.is(adapterBytes(adapters), 4 * size);

    for (const [path, tensor] of Object.entries(flatten(adapters.params))) {
      if (!path.endsWith("lora_B.weight")) continue;
      (tensor as tf.Variable).assign(
        tf.mul(random(path, ...tensor.shape), 0.05),
      );
    }
    const ids = tf.tensor2d(randomInts(key(6), 20, 0, 23), [2, 10], "int32");
    const modules = adapterModules(adapters);
    const logits = forward(params, CONFIG, ids, { adapters: modules });
    const merged = mergeAdapters(tree, adapters).params as typeof params;
    near(forward(merged, CONFIG, ids), logits, 1e-5);
    assert.ok(differs(logits, forward(params, CONFIG, ids)) > 1e-2);

    const { grads } = valueAndGrads(
      () => loss(params, CONFIG, ids, { adapters: modules }),
      adapters.params,
    );
    for (const [path, grad] of Object.entries(grads)) {
      assert.ok(tf.norm(grad).dataSync()[0] > 0, path);
    }
  }
});

test("the numbers of a module do not depend on which others are adapted", () => {
  const params = initLlama(CONFIG, key(0)) as ParamTree;
  const name = "model.layers.1.self_attn.v_proj";
  const sets = [["v_proj"], ["q_proj", "v_proj"], /layers\.1.*v_proj$/].map(
    (targets) => initAdapters(params, { targets, rank: 2 }, key(8)),
  );
  const [a, b, c] = sets.map((s) => s.modules[name].loraA.dataSync());
  assert.equal(a, b);
  assert.equal(a, c);
  assert.equal(sets.map((s) => Object.keys(s.modules).length), [2, 4, 1]);
  const bound = 1 / Math.sqrt(16);
  assert.ok(a.every((v) => Math.abs(v) <= bound));
  assert.ok(Math.max(...a) > 0.8 * bound);
  assert.equal(linearModules(params).slice(-1), ["lm_head"]);
});

// Errors ------------------------------------------------------------------------------------------

test("errors name the value and what is allowed", () => {
  const params = initLlama(CONFIG, key(0)) as ParamTree;
  const attempt = (options: AdapterOptions) => () =>
    initAdapters(params, options, key(0));
  assert.throws(
    attempt({ rank: 9 }),
    /^Cannot adapt model\.layers\.0\.self_attn\.k_proj as rank must be at most min\(in, out\): rank 9, in 16, out 8$/,
  );
  for (const rank of [0, -1, 1.5, NaN]) {
    assert.throws(
      attempt({ rank }),
      new RegExp(
        `^Cannot adapt the model as rank must be a positive integer: rank ${rank}$`,
      ),
    );
  }
  for (const alpha of [0, -2, NaN, Infinity]) {
    assert.throws(
      attempt({ alpha }),
      new RegExp(
        `alpha must be a finite number above 0: alpha ${alpha}$`,
      ),
    );
  }
  assert.throws(
    attempt({ scaling: "sqrt" as "rora" }),
    /scaling must be one of lora, rora: scaling "sqrt"$/,
  );
  assert.throws(
    attempt({ decompose: "svd" as "dora" }),
    /decompose must be one of none, dora: decompose "svd"$/,
  );
  assert.throws(
    attempt({ dropout: 1 }),
    /dropout must be from 0 to below 1: dropout 1$/,
  );
  assert.throws(
    attempt({ targets: ["q_proj", "c_attn"] }),
    /no linear layer matches "c_attn": available model\.layers\.0\.self_attn\.q_proj, /,
  );
  assert.throws(attempt({ targets: /^nothing$/ }), /matches \/\^nothing\$\/: /);
  assert.throws(attempt({ targets: [] }), /matches an empty list of targets: /);
  assert.throws(
    attempt({ rankPattern: { v_proj: 0.5 } }),
    /^Cannot adapt model\.layers\.0\.self_attn\.v_proj as rank must be a positive integer: rank 0\.5$/,
  );
  assert.throws(
    attempt({ rankPattern: { "(": 2 } }),
    /pattern must be a regular expression: pattern "\("$/,
  );
  const adapters = trained(layer(4, 4), { decompose: "dora" });
  assert.throws(
    () => unmerge(tf.zeros([4, 4]), adapters.modules.q_proj),
    /norms that merge\(\) returned are required: norms null$/,
  );
});

test.run();
