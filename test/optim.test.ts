/** Optimisers and schedules: trajectories of PyTorch, oracle, memory, saved state, errors. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { normal, split } from "../lib/core/rng.ts";
import {
  adamW,
  type AdamWOptions,
  constant,
  cosine,
  linear,
  type Optimizer,
  sgd,
  type SgdOptions,
  type StepReport,
  warmup,
} from "../lib/core/optim.ts";
import {
  ready,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
  type Variable,
} from "../lib/core/tensor.ts";

/** Float32 rounding over ten steps with values of size 1: about 80 units in the last place. */
const TRAJECTORY_TOLERANCE = 1e-5;

/** Float32 rounding of one update, relative to values of size 1. */
const UPDATE_TOLERANCE = 1e-6;

/** The composition adds 10,001 squares in float32, the kernel in float64. */
const NORM_TOLERANCE = 1e-5;

/** python3 test/golden/optim.py, PyTorch 1.13.0, float32. */
// deno-fmt-ignore
const GOLDEN = {
  sgd: {
    w: [0.410425097, -1.30791247, 2.14097095, 0.423343986, -0.570535958, 1.44411778],
    b: [0.203313768, -0.843952477, -0.296217203, 0.88773942, -1.95627308],
    norms: [7.77343369, 7.75673485, 7.73631573, 7.71254921, 7.68588591, 7.65683556, 7.62595129, 7.5938077, 7.56098223, 7.52803373],
  },
  momentum: {
    w: [0.105956338, -1.4248265, 2.53588367, -0.675098658, -1.75163543, 1.11361659],
    b: [-0.11156939, -1.22600389, -1.14952588, 0.0731809661, -1.34300935],
    norms: [7.77343369, 7.75522661, 7.70512819, 7.60298014, 7.43486547, 7.20796967, 6.96046782, 6.75349092, 6.63976765, 6.6308279],
  },
  nesterov: {
    w: [0.192207366, -1.36812592, 2.36785412, -0.357363373, -1.39544928, 1.1688422],
    b: [-0.0181005262, -1.09445405, -0.885963082, 0.296610981, -1.50374925],
    norms: [7.77343369, 7.74921751, 7.70287275, 7.62616158, 7.51455259, 7.37116241, 7.20922661, 7.05081749, 6.92037582, 6.83517885],
  },
  adamW: {
    w: [0.399386853, -1.34746349, 2.09852815, 0.649025381, -0.199810892, 1.39692628],
    b: [0.199658811, -0.798954189, -0.0999435037, 0.998409033, -2.09836793],
    norms: [7.77343369, 7.77800703, 7.78293753, 7.78824043, 7.79393196, 7.8000288, 7.80654716, 7.81350613, 7.82092381, 7.82881927],
  },
  adamWAll: {
    w: [0.315306306, -1.37062442, 2.10201263, 0.556284249, -0.263528228, 1.27453768],
    b: [0.257550091, -0.74232918, -0.0424182266, 1.05738771, -2.15772843],
    norms: [7.77343369, 7.77984476, 7.79302216, 7.81367493, 7.84284639, 7.87385559, 7.90670061, 7.94137526, 7.97785997, 8.01611996],
  },
};

type Params = { w: Variable; b: Variable };

function start(): Params {
  return tf.tidy(() => ({
    w: tf.variable(tf.tensor([[0.5, -1.25, 2.0], [0.75, -0.1, 1.5]])),
    b: tf.variable(tf.tensor([0.3, -0.7, 0.0, 1.1, -2.2])),
  }));
}

/** The sum of i sin(p_i), i from 1 in every parameter. */
function loss(params: Params): Scalar {
  const one = (p: Tensor) =>
    tf.sum(tf.mul(tf.reshape(tf.range(1, p.size + 1), p.shape), tf.sin(p)));
  return tf.add(one(params.w), one(params.b));
}

function steps(optimizer: Optimizer, params: Params, n: number): StepReport[] {
  return Array.from({ length: n }, () => {
    const { value, grads } = valueAndGrads(() => loss(params), params);
    const report = optimizer.step(params, grads);
    tf.dispose([value, grads]);
    return report;
  });
}

function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what: string,
): void {
  assert.is(actual.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    const off = Math.abs(actual[i] - expected[i]);
    assert.ok(
      off <= tolerance * Math.max(1, Math.abs(expected[i])),
      `${what} ${i}: ${actual[i]} against ${expected[i]}`,
    );
  }
}

const groups = [{
  match: (path: string) => path === "b",
  learningRateScale: 0.25,
  weightDecay: 0,
}];
const decay = { momentum: 0.9, weightDecay: 0.1 };
const ADAMW_ALL: AdamWOptions = {
  learningRate: warmup(4, constant(0.02)),
  beta1: 0.8,
  beta2: 0.95,
  eps: 1e-6,
  weightDecay: 0.2,
  clipNorm: 2,
  groups,
};
const CASES: Record<
  keyof typeof GOLDEN,
  (options: { fused?: boolean }) => Optimizer
> = {
  sgd: (o) => sgd({ learningRate: 0.01, ...o }),
  momentum: (o) => sgd({ learningRate: 0.01, ...decay, ...o }),
  nesterov: (o) =>
    sgd({ learningRate: 0.01, ...decay, nesterov: true, clipNorm: 5, ...o }),
  adamW: (o) => adamW({ learningRate: 0.01, ...o }),
  adamWAll: (o) => adamW({ ...ADAMW_ALL, ...o }),
};

test.before(async () => {
  await ready();
});

for (const [name, make] of Object.entries(CASES)) {
  for (const fused of [true, false]) {
    test(`golden: ${name} follows PyTorch${fused ? "" : ", composed"}`, () => {
      const golden = GOLDEN[name as keyof typeof GOLDEN];
      const params = start();
      const optimizer = make({ fused });
      const reports = steps(optimizer, params, 10);
      const norms = reports.map(({ gradNorm }) => gradNorm);
      assertClose(norms, golden.norms, TRAJECTORY_TOLERANCE, "norm");
      for (const path of ["w", "b"] as const) {
        const values = params[path].dataSync();
        assertClose(values, golden[path], TRAJECTORY_TOLERANCE, path);
      }
      assert.is(reports[9].step, 10);
      optimizer.dispose();
      tf.dispose(params);
    });
  }
}

test("hand case: one step of each", () => {
  const [p, g] = [2, 3];
  const once = (optimizer: Optimizer, repeat = 1) => {
    const w = tf.tidy(() => tf.variable(tf.tensor([p])));
    const grad = tf.tensor([g]);
    let gradNorm = 0;
    for (let i = 0; i < repeat; i++) {
      gradNorm = optimizer.step({ w }, { w: grad }).gradNorm;
    }
    const value = w.dataSync()[0];
    tf.dispose([w, grad]);
    optimizer.dispose();
    return { value, gradNorm };
  };
  const near = (actual: number, expected: number) =>
    assertClose([actual], [expected], UPDATE_TOLERANCE, "value");
  near(once(sgd({ learningRate: 0.5 })).value, 2 - 0.5 * 3);
  near(once(sgd({ learningRate: 0.5, weightDecay: 1 })).value, 2 - 0.5 * 5);
  // u = 3, then 0.5 * 3 + 3
  const heavy = sgd({ learningRate: 0.1, momentum: 0.5 });
  near(once(heavy, 2).value, 2 - 0.1 * (3 + 4.5));
  // The first step of Adam is lr * sign(g), whatever the size of g.
  near(once(adamW({ learningRate: 0.1, weightDecay: 0 })).value, 1.9);
  near(once(adamW({ learningRate: 0.1, weightDecay: 0.5 })).value, 1.8);
  // Clipped to norm 1; the norm told is that before.
  const clipped = once(sgd({ learningRate: 0.5, clipNorm: 1 }));
  near(clipped.value, 1.5);
  assert.is(clipped.gradNorm, 3);
});

test("oracle: the kernels equal the composition on every tail length", () => {
  // 1-9: every remainder of the vector length, with and without a full vector; then one long one.
  const makers: ((o: SgdOptions) => Optimizer)[] = [
    (o) => sgd({ learningRate: 0.1, ...o }),
    (o) => sgd({ learningRate: 0.1, momentum: 0.9, weightDecay: 0.1, ...o }),
    (o) => sgd({ learningRate: 0.1, momentum: 0.5, nesterov: true, ...o }),
    (o) => adamW({ learningRate: 0.1, ...o }),
    (o) => adamW({ learningRate: 0.1, weightDecay: 0.3, clipNorm: 0.5, ...o }),
  ];
  for (const size of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10_001]) {
    for (const make of makers) {
      const values = [true, false].map((fused) => {
        const [initial, ...grads] = split([1, size], 4).map((k) =>
          tf.tensor(normal(k, size))
        );
        const w = tf.variable(initial);
        const guard = tf.tensor(new Float32Array(8).fill(7)); // next in memory
        const optimizer = make({ fused });
        const norms = grads.map((grad) =>
          optimizer.step({ w }, { w: grad }).gradNorm
        );
        const result = w.dataSync();
        assert.equal([...guard.dataSync()], Array(8).fill(7));
        tf.dispose([initial, w, guard, ...grads]);
        optimizer.dispose();
        return { result, norms };
      });
      const [fused, composed] = values;
      const what = `size ${size}`;
      assertClose(fused.result, composed.result, UPDATE_TOLERANCE, what);
      assertClose(fused.norms, composed.norms, NORM_TOLERANCE, what);
    }
  }
});

test("memory: no tensor and no byte more after 1,000 steps", () => {
  for (const make of Object.values(CASES)) {
    for (const fused of [true, false]) {
      const params = start();
      const optimizer = make({ fused });
      const grads = { w: tf.ones([2, 3]), b: tf.ones([5]) };
      optimizer.step(params, grads);
      const before = tf.memory();
      for (let i = 0; i < 1000; i++) optimizer.step(params, grads);
      assert.is(tf.memory().numTensors, before.numTensors);
      assert.is(tf.memory().numBytes, before.numBytes);
      tf.dispose([params, grads]);
      optimizer.dispose();
    }
  }
});

test("memory: dispose frees what the optimiser holds, tidy does not", () => {
  const before = tf.memory().numTensors;
  const params = start();
  const optimizer = adamW();
  tf.tidy(() => {
    steps(optimizer, params, 1);
  });
  assert.is(steps(optimizer, params, 1)[0].step, 2);
  assert.is(tf.memory().numTensors, before + 2 + 4);
  optimizer.dispose();
  tf.dispose(params);
  assert.is(tf.memory().numTensors, before);
});

test("a clone or reshape of a parameter keeps its value", () => {
  const initial = tf.tensor([1, 2, 3]);
  const w = tf.variable(initial);
  const clone = w.clone();
  const optimizer = adamW({ learningRate: 0.5 });
  const grad = tf.tensor([1, 1, 1]);
  optimizer.step({ w }, { w: grad });
  const later = tf.reshape(w, [3, 1]);
  const laterValues = later.dataSync().slice();
  const state = optimizer.state();
  const moment = state["firstMoment.w"].dataSync().slice();
  optimizer.step({ w }, { w: grad });
  assert.equal([...initial.dataSync()], [1, 2, 3]);
  assert.equal([...clone.dataSync()], [1, 2, 3]);
  assert.equal(later.dataSync(), laterValues);
  assert.equal(state["firstMoment.w"].dataSync(), moment);
  assert.ok(w.dataSync()[0] < laterValues[0]);
  tf.dispose([initial, w, clone, grad, later, state]);
  optimizer.dispose();
});

test("state: training resumed from saved numbers is bitwise the same", () => {
  for (const make of Object.values(CASES)) {
    const whole = start();
    const first = make({});
    steps(first, whole, 7);
    const half = start();
    const second = make({});
    steps(second, half, 3);
    // Through plain numbers, as a file would.
    const state = second.state();
    const saved = Object.entries(state).map(([name, t]) =>
      [name, t.shape, [...t.dataSync()]] as const
    );
    second.dispose();
    tf.dispose(state);
    const loaded = Object.fromEntries(
      saved.map(([name, shape, values]) => [name, tf.tensor(values, shape)]),
    );
    const third = make({});
    third.restore(loaded);
    tf.dispose(loaded);
    const reports = steps(third, half, 4);
    assert.is(reports[3].step, 7);
    assert.equal(half.w.dataSync(), whole.w.dataSync());
    assert.equal(half.b.dataSync(), whole.b.dataSync());
    first.dispose();
    third.dispose();
    tf.dispose([whole, half]);
  }
});

test("groups: the first match counts, others keep the defaults", () => {
  const params = start();
  const before = { w: params.w.dataSync().slice(), b: params.b.dataSync() };
  const grads = { w: tf.zeros([2, 3]), b: tf.zeros([5]) };
  const optimizer = adamW({
    learningRate: 0.1,
    weightDecay: 0.5,
    groups: [...groups, { match: () => true, weightDecay: 1 }],
  });
  optimizer.step(params, grads);
  // No gradient: only the decay moves a parameter.
  assert.equal(params.b.dataSync(), before.b);
  const decayed = before.w.map((x) => x * 0.9);
  assertClose(params.w.dataSync(), decayed, UPDATE_TOLERANCE, "w");
  optimizer.dispose();
  tf.dispose([params, grads]);
});

test("schedules: values worked by hand", () => {
  const at = (s: (step: number) => number, at: number[]) => at.map(s);
  const close = (a: number[], b: number[]) => assertClose(a, b, 1e-12, "rate");
  const options = { learningRate: 1, steps: 8, floor: 0.2 };
  close(at(linear(options), [0, 4, 8, 100]), [1, 0.6, 0.2, 0.2]);
  close(at(cosine(options), [0, 4, 8, 100]), [1, 0.6, 0.2, 0.2]);
  close(at(cosine({ learningRate: 1, steps: 3 }), [1, 2]), [0.75, 0.25]);
  close(at(constant(0.3), [0, 9]), [0.3, 0.3]);
  const warm = warmup(4, linear({ learningRate: 2, steps: 2 }));
  close(at(warm, [0, 1, 2, 3, 4, 5, 6]), [0.5, 1, 1.5, 2, 2, 1, 0]);
});

test("errors: a gradient that is not finite changes nothing", () => {
  for (const fused of [true, false]) {
    for (const bad of [NaN, Infinity, -Infinity]) {
      const params = start();
      const optimizer = adamW({ fused, clipNorm: 1 });
      steps(optimizer, params, 2);
      const before = [...params.w.dataSync(), ...params.b.dataSync()];
      const grads = {
        w: tf.ones([2, 3]),
        b: tf.tensor([0, 0, 0, 0, bad]),
      };
      assert.throws(
        () => optimizer.step(params, grads),
        /Cannot take step 3 as the gradient of "b" must be finite/,
      );
      assert.equal(
        [...params.w.dataSync(), ...params.b.dataSync()],
        before,
      );
      assert.is(steps(optimizer, params, 1)[0].step, 3);
      optimizer.dispose();
      tf.dispose([params, grads]);
    }
  }
});

test("errors name the option, the path, the shape", () => {
  assert.throws(() => adamW({ learningRate: -1 }), /learningRate .*: -1/);
  assert.throws(() => adamW({ beta2: 1 }), /beta2 must be in \[0, 1\): 1/);
  assert.throws(() => adamW({ eps: 0 }), /eps/);
  assert.throws(() => adamW({ weightDecay: NaN }), /weightDecay .*: NaN/);
  assert.throws(() => adamW({ clipNorm: 0 }), /clipNorm must be above 0: 0/);
  assert.throws(() => sgd({ momentum: 1 }), /momentum must be in \[0, 1\): 1/);
  assert.throws(() => sgd({ nesterov: true }), /nesterov needs a momentum/);
  assert.throws(() => cosine({ learningRate: 1, steps: 0 }), /steps .*: 0/);
  assert.throws(() => warmup(1.5, constant(1)), /steps .*: 1\.5/);

  const params = start();
  const [six, five] = [tf.ones([6]), tf.ones([5])];
  const optimizer = adamW();
  assert.throws(
    () => optimizer.step(params, { c: five }),
    /"c" is not a param/,
  );
  assert.throws(() => optimizer.step(params, { w: six }), /\[2,3\] and \[6\]/);
  assert.throws(
    () => optimizer.step(params, { w: null, b: undefined }),
    /no parameter has a gradient/,
  );
  assert.throws(
    () => optimizer.step({ b: five }, { b: five }),
    /"b" is a constant tensor/,
  );
  assert.throws(
    () => adamW({ learningRate: () => NaN }).step(params, { b: five }),
    /learning rate must be finite and >= 0: NaN/,
  );
  const step = tf.scalar(3);
  assert.throws(() => optimizer.restore({}), /step count: undefined/);
  assert.throws(
    () => optimizer.restore({ step, "velocity.b": five }),
    /"veloc/,
  );
  assert.throws(
    () => optimizer.restore({ step, "firstMoment.b": five }),
    /lacks "secondMoment\.b"/,
  );
  tf.dispose([params, six, five, step]);
});

test.run();
