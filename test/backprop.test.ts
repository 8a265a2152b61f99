/**
 * Our gradients against those of tfjs, bit by bit, on every backend that is here; what they leave
 * behind after success and after errors; and that memory falls while they are computed.
 */
import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  flatten,
  memory,
  type ParamTree,
  ready,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
  type Variable,
} from "../lib/core/tensor.ts";
import { kernels } from "../lib/core/kernels/bindings.ts";
import { initLlama, type LlamaConfig, loss } from "../lib/core/llama.ts";
import { fold, key, normal } from "../lib/core/rng.ts";

test.before(async () => {
  await ready();
});

const gaussian = (name: string, shape: number[]) =>
  tf.tensor(
    normal(fold(key(3), name), shape.reduce((n, s) => n * s, 1)),
    shape,
  );

const numbers = (x: Tensor) => [...x.dataSync()];

/** What a gradient function of `op` may use; `kept` are the saved tensors. */
type Gradient = (dy: Tensor, kept: Tensor[]) => Tensor[];

/** An operation with a gradient function of our own. */
function custom(
  op: (...xs: Tensor[]) => Tensor,
  gradient: Gradient,
): (...xs: Tensor[]) => Tensor {
  return (...xs) =>
    tf.customGrad((...args) => {
      const save = args[xs.length] as unknown as (kept: Tensor[]) => void;
      save(xs);
      return {
        value: op(...args.slice(0, xs.length) as Tensor[]),
        gradFunc: gradient as (dy: Tensor, kept: Tensor[]) => Tensor[],
      };
    })(...xs);
}

/** Value and gradients of ours and of tfjs, as numbers; checks that ours leaves nothing behind. */
function both(f: () => Scalar, params: ParamTree) {
  const before = memory();
  const { value, grads } = valueAndGrads(f, params);
  const ours = {
    value: numbers(value),
    grads: Object.entries(grads).map(([path, g]) => [path, ...numbers(g)]),
  };
  tf.dispose([value, grads]);
  assert.equal(memory(), before);
  assert.equal(tf.engine().state.activeTape, []);

  const named = Object.entries(flatten(params)) as [string, Variable][];
  const stock = tf.variableGrads(f, named.map(([, v]) => v));
  const theirs = {
    value: numbers(stock.value),
    grads: named.map(([path, v]) => [
      path,
      ...stock.grads[v.name] === undefined
        ? Array(v.size).fill(0)
        : numbers(stock.grads[v.name]),
    ]),
  };
  tf.dispose([stock.value, stock.grads]);
  assert.equal(memory(), before);
  return { ours, theirs };
}

const CONFIG: LlamaConfig = {
  vocabSize: 13,
  hiddenSize: 8,
  intermediateSize: 10,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  maxPositions: 8,
};

test("a language model, head tied or not: equal to tfjs bit by bit", () => {
  for (const tieWordEmbeddings of [false, true]) {
    const config = { ...CONFIG, tieWordEmbeddings };
    const params = initLlama(config, key(1));
    const ids = tf.tensor2d(
      [[1, 5, 2, 2, 12], [0, 3, 3, 7, 1]],
      [2, 5],
      "int32",
    );
    const { ours, theirs } = both(
      () => loss(params, config, ids),
      params as unknown as ParamTree,
    );
    assert.equal(ours, theirs);
    assert.ok(ours.grads.every((g) => g.slice(1).some((x) => x !== 0)));
    tf.dispose([params as unknown as tf.TensorContainer, ids]);
  }
});

test("a graph of everything: equal to tfjs bit by bit", () => {
  const before = memory();
  const [params, data] = tf.tidy(() => [
    {
      w: tf.variable(gaussian("w", [4, 6])),
      b: tf.variable(gaussian("b", [6])),
      s: tf.variable(gaussian("s", [1])),
      unused: tf.variable(gaussian("unused", [2])),
    },
    tf.keep(gaussian("data", [3, 4])),
  ]);
  const passes = custom((x) => x.add(1), (dy) => [dy]); // dy itself
  const clones = custom((x) => x.mul(1), (dy) => [dy.clone()]);
  const saved = custom((x) => x.square().mul(0.5), (_, [x]) => [x]);
  const twice = custom((x, y) => x.add(y), (dy) => {
    const dx = dy.mul(0.5);
    return [dx, dx];
  });
  const f = () => {
    const { w, b, s } = params;
    const y = data.matMul(w as tf.Tensor2D).add(b); // [3, 6]
    y.exp().mul(w.sum()); // leads nowhere
    data.square(); // comes from nowhere
    const [left, , right] = tf.split(y, 3, 1); // one part unused
    const joined = tf.concat([left, right, left.mul(left)], 1); // [3, 6]
    const rows = tf.concat([joined, joined.slice([1, 0], [1, 6])]).softmax(); // [4, 6]
    const residual = rows.add(passes(clones(rows)).tanh());
    const half = saved(residual.reshape([6, 4]).transpose());
    const slope = tf.grad((x: Tensor) => x.square().mul(s).sum() as Scalar)(y);
    return twice(half.mean(), slope.mean()).add(saved(b).sum())
      .mul(s.squeeze()) as Scalar;
  };
  const { ours, theirs } = both(f, params);
  assert.equal(ours, theirs);
  const [w, b, s, unused] = ours.grads.map((g) => g.slice(1));
  for (const g of [w, b, s]) assert.ok(g.every((x) => x !== 0));
  assert.equal(unused, [0, 0]);
  tf.dispose([params, data]);
  assert.equal(memory(), before);
});

test("a clone outlives its original, and is no copy with our kernels", () => {
  const x = tf.tensor1d([1, 2]);
  const { buffers } = memory();
  const y = x.clone();
  if (kernels() !== null) assert.is(memory().buffers, buffers);
  x.dispose();
  assert.equal(numbers(y), [1, 2]);
  assert.is(memory().buffers, buffers);
  y.dispose();
  assert.is(memory().buffers, buffers - 1);
});

test("one tensor as the gradient of two inputs that both get more", () => {
  const w = tf.tidy(() => tf.variable(tf.scalar(3)));
  const join = custom((x, y) => x.add(y), (dy) => [dy, dy]);
  const before = memory();
  const { value, grads } = valueAndGrads(() => {
    const [x, y] = [w.mul(2), w.mul(5)];
    const [x2, y2] = [x.square(), y.square()]; // further gradients of x and y
    return join(x, y).add(x2).add(y2) as Scalar; // 7 w + 29 w^2
  }, { w });
  assert.equal(numbers(value), [21 + 29 * 9]);
  assert.equal(numbers(grads.w), [7 + 58 * 3]);
  tf.dispose([value, grads]);
  assert.equal(memory(), before);
  w.dispose();
});

test("the loss is the variable, or its gradient a tensor of the caller", () => {
  const [w, three] = tf.tidy(() => [
    tf.variable(tf.scalar(4)),
    tf.keep(tf.scalar(3)),
  ]) as [Variable, Tensor];
  const same = valueAndGrads(() => w as unknown as Scalar, { w });
  assert.equal(numbers(same.grads.w), [1]);
  same.grads.w.dispose();
  const foreign = custom((x) => x.mul(3), () => [three]);
  const { value, grads } = valueAndGrads(() => foreign(w) as Scalar, { w });
  tf.dispose([value, grads]);
  assert.equal(numbers(three), [3]);
  assert.equal(numbers(w), [4]);
  tf.dispose([w, three]);
});

test("memory falls while gradients are computed; with tfjs it rises", () => {
  const [steps, bytes] = [8, 4 * 1000];
  const w = tf.tidy(() => tf.variable(tf.ones([1000])));
  let seen: number[] = [];
  const square = custom((x) => x.square(), (dy, [x]) => {
    seen.push(memory().bytes);
    return [dy.mul(x).mul(2)];
  });
  const f = (dead: boolean) => () =>
    tf.tidy(() => {
      let x: Tensor = w;
      for (let i = 0; i < steps; i++) {
        x = square(x);
        if (dead) x.exp();
      }
      if (dead) { for (let i = 0; i < steps; i++) x.exp(); }
      return x.sum() as Scalar;
    });
  const of = (run: () => { value: Tensor; grads: unknown }) => {
    seen = [];
    const { value, grads } = run();
    tf.dispose([value, grads as tf.TensorContainer]);
    return seen.slice(1).map((now, i) => now - seen[i]);
  };
  const ours = of(() => valueAndGrads(f(false), { w }));
  assert.equal(ours, Array(steps - 1).fill(-bytes));
  const first = seen[0];
  const theirs = of(() => tf.variableGrads(f(false), [w]));
  assert.ok(theirs.every((change) => change > 0), `${theirs}`);
  of(() => valueAndGrads(f(true), { w }));
  assert.is(seen[0], first, "what a dead branch saved is gone before");
  w.dispose();
});

test("gradients of gradients fall back to tfjs", () => {
  const [w, x] = tf.tidy(() => [
    tf.variable(tf.scalar(3)),
    tf.keep(tf.scalar(5)),
  ]) as [Variable, Tensor];
  const before = memory();
  const inner = (x: Tensor) =>
    // d(w^2 x)/dw = 2 w x
    valueAndGrads(() => w.square().mul(x) as Scalar, { w }).grads.w;
  const slope = tf.tidy(() => tf.grad(inner)(x));
  assert.equal(numbers(slope), [6]);
  slope.dispose();
  assert.equal(memory(), before);
  tf.dispose([w, x]);
});

test("errors are those of tfjs, and leave nothing behind", () => {
  const [w, frozen] = tf.tidy(() => [
    tf.variable(gaussian("we", [3])),
    tf.variable(tf.scalar(1), false),
  ]);
  const message = (run: () => unknown) => {
    try {
      run();
    } catch (error) {
      return (error as Error).message;
    }
    return "none";
  };
  const failing = (gradient: Gradient) => () =>
    custom((x) => x.mul(2), gradient)(w.square()).square().sum() as Scalar;
  const losses: [string | RegExp | null, () => Scalar, ParamTree?][] = [
    [null, () => w.square().square() as Scalar],
    [null, () => tf.scalar(1).square()],
    [null, () => tf.ones([2]).square() as unknown as Scalar],
    [null, () => tf.topk(w.square(), 1).values.sum() as Scalar],
    [null, () => w.sum() as Scalar, { frozen }],
    [null, () => (w.square(), 1 as unknown as Scalar)],
    ["stop", () => {
      w.square().exp();
      throw new Error("stop");
    }],
    [
      "no slope",
      failing(() => {
        throw new Error("no slope");
      }),
    ],
    [/float32 \[3\]: int32 \[3\]/, failing((dy) => [dy.cast("int32")])],
    [/float32 \[3\]: float32 \[\]/, failing((dy) => [dy.sum()])],
  ];
  for (const [expected, f, params = { w }] of losses) {
    const before = memory();
    const actual = message(() => valueAndGrads(f, params));
    assert.equal(memory(), before, actual);
    const { gradientDepth, kernelDepth, activeScope } = tf.engine().state;
    assert.equal([gradientDepth, kernelDepth], [0, 0]);
    assert.is(activeScope, null);
    if (expected === null) {
      const variables = Object.values(flatten(params)) as Variable[];
      const theirs = message(() =>
        tf.tidy(() => tf.variableGrads(f, variables.filter((v) => v.trainable)))
      );
      assert.is(actual, theirs);
      assert.is.not(actual, "none");
    } else assert.match(actual, expected);
  }
  tf.dispose([w, frozen]);
});

if (process.env.ADIABAT_BACKPROP_CHILD === undefined) {
  test("all of it on the other backends", () => {
    for (const backend of ["cpu", "stock-wasm", "node"]) {
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        [...process.execArgv, fileURLToPath(import.meta.url)],
        {
          env: {
            ...process.env,
            ADIABAT_BACKEND: backend,
            ADIABAT_BACKPROP_CHILD: "1",
          },
          encoding: "utf8",
        },
      );
      if (backend === "node" && /is not installed/.test(stdout + stderr)) {
        continue;
      }
      assert.is(status, 0, `${backend}: ${stdout}${stderr}`);
    }
  });
}

test.run();
