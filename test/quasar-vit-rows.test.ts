/** Row-wise quantizer and entanglement: hand cases, nesting, gradients, codes on the engine. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import * as nn from "../lib/core/nn.ts";
import { key, normal } from "../lib/core/rng.ts";
import { type ParamTree, ready, type Tensor, tf } from "../lib/core/tensor.ts";
import {
  type AxesOf,
  distillationLoss,
  sampledSubnets,
  subnetParams,
} from "../lib/quasar-vit/entangle.ts";
import { integerProduct, packedProduct } from "../lib/quasar-vit/engine.ts";
import {
  activationCodes,
  quantizeRows,
  rowCodes,
  rowQuantizer,
} from "../lib/quasar-vit/rows.ts";
import type { Subnet } from "../lib/quasar-vit/workload.ts";

await ready();

const matrix = (seed: number, M: number, N: number) =>
  tf.tensor2d(normal(key(seed), M * N), [M, N]);

function near(a: ArrayLike<number>, b: ArrayLike<number>, tolerance: number) {
  assert.is(a.length, b.length);
  for (let i = 0; i < a.length; i++) {
    assert.ok(Math.abs(a[i] - b[i]) <= tolerance, `${i}: ${a[i]} ${b[i]}`);
  }
}

test("rows by hand: 8 bits first, then 4 bits", () => {
  const weight = tf.tensor2d([[127, 1.4, -126.6], [7, 1.4, -6.6]]);
  near(quantizeRows(weight, 0.5).dataSync(), [127, 1, -127, 7, 1, -7], 1e-4);
  near(
    quantizeRows(weight, 0).dataSync(),
    [127, 0, -127, 7, 1, -7],
    1e-4,
  );
});

test("more 8-bit rows keep those of fewer: precision nests, and the error falls", () => {
  const weight = matrix(1, 8, 16);
  const exact = weight.dataSync();
  const versions = [0, 0.25, 0.5, 0.75, 1].map((r) =>
    Array.from(quantizeRows(weight, r).dataSync())
  );
  const errors = versions.map((v) =>
    v.reduce((sum, x, i) => sum + (x - exact[i]) ** 2, 0)
  );
  errors.reduce((a, b) => (assert.ok(b < a), b));
  near(versions[1].slice(0, 32), versions[4].slice(0, 32), 0);
  near(versions[1].slice(32), versions[0].slice(32), 0);
});

test("the gradient passes straight through inside the range", () => {
  const weight = matrix(2, 4, 3);
  const dy = matrix(3, 4, 3);
  const gradient = tf.grad((w: Tensor) => quantizeRows(w, 0.5).mul(dy).sum())(
    weight,
  );
  near(gradient.dataSync(), dy.dataSync(), 0);
});

test("a layer on the engine's integers gives the layer in fake quantisation", () => {
  const [M, N, F] = [6, 10, 4];
  const weight = matrix(4, M, N);
  const x = matrix(5, F, N);
  const expected = nn.linear(x, weight, { quantizer: rowQuantizer(0.5) })
    .dataSync();
  const w = rowCodes(weight, 0.5);
  assert.equal([...w.bits as Uint8Array], [8, 8, 8, 4, 4, 4]);
  const a = activationCodes(x);
  const { y } = packedProduct(w, a.codes, 4);
  assert.equal(y, integerProduct(w, a.codes));
  const sums = Array.from(
    { length: M },
    (_, m) => w.codes.subarray(m * N, m * N + N).reduce((s, c) => s + c, 0),
  );
  const floats = Array.from(y, (value, i) => {
    const m = i % M;
    return w.scale[m] * a.scale * (value - a.zeroPoint * sums[m]);
  });
  near(floats, expected, 1e-4);
});

const AXES: AxesOf = (path) =>
  path === "head"
    ? ["fixed", "dim"]
    : path.endsWith("up")
    ? ["hidden", "dim"]
    : path.endsWith("down")
    ? ["dim", "hidden"]
    : ["inner", "dim"];

function masters() {
  return {
    head: tf.variable(matrix(6, 3, 8)),
    blocks: [0, 1].map((l) => ({
      query: tf.variable(matrix(7 + l, 4, 8)),
      up: tf.variable(matrix(9 + l, 16, 8)),
      down: tf.variable(matrix(11 + l, 8, 16)),
    })),
  };
}

const SUBNET: Subnet = {
  dim: 4,
  blocks: [{ heads: 1, mlpRatio: 2, ratio8: 0 }],
};

test("a sub-network is leading rows and columns of the masters, and trains them", () => {
  const all = masters();
  const options = { axesOf: AXES, headDim: 2 };
  const own = subnetParams(
    all as unknown as ParamTree,
    SUBNET,
    options,
  ) as unknown as typeof all;
  assert.is(own.blocks.length, 1);
  assert.equal(own.blocks[0].query.shape, [2, 4]);
  assert.equal(own.blocks[0].up.shape, [8, 4]);
  assert.equal(own.blocks[0].down.shape, [4, 8]);
  near(
    own.head.dataSync(),
    all.head.slice([0, 0], [3, 4]).dataSync(),
    0,
  );
  const { grads } = tf.variableGrads(() => {
    const view = subnetParams(
      all as unknown as ParamTree,
      SUBNET,
      options,
    ) as unknown as typeof all;
    return view.blocks[0].up.sum();
  }, [all.blocks[0].up]);
  const gradient = Object.values(grads)[0].dataSync();
  // 8 rows x 4 columns of 16 x 8
  gradient.forEach((g, i) =>
    assert.is(g, i % 8 < 4 && Math.floor(i / 8) < 8 ? 1 : 0)
  );
  tf.disposeVariables();
});

test("sub-networks that are larger than the masters are refused", () => {
  const all = masters() as unknown as ParamTree;
  const options = { axesOf: AXES, headDim: 2 };
  const take = (subnet: Subnet) => () => subnetParams(all, subnet, options);
  const block = { heads: 1, mlpRatio: 2, ratio8: 0 };
  assert.throws(
    take({ dim: 4, blocks: [block, block, block] }),
    /depth .*2: 3/,
  );
  assert.throws(take({ dim: 16, blocks: [block] }), /head .*dim .*8: 16/);
  assert.throws(
    take({ dim: 4, blocks: [{ ...block, heads: 3 }] }),
    /blocks.0.query .*inner .*4: 6/,
  );
  assert.throws(() => quantizeRows(matrix(1, 2, 2), 1.5), /\[0, 1\]: 1.5/);
  const nan = tf.tensor2d([[1, NaN]]);
  assert.throws(() => rowCodes(nan, 1, "query 0"), /query 0 .*NaN/);
  tf.disposeVariables();
});

test("the sandwich has both extremes, the usual step one sub-network", () => {
  const space = {
    dims: [4, 8],
    depths: [1, 2],
    heads: [1, 2],
    mlpRatios: [1, 2],
    ratios: [0, 1],
  };
  assert.is(sampledSubnets(space, key(1)).length, 1);
  const all = sampledSubnets(space, key(1), { rule: "sandwich" });
  assert.is(all.length, 4);
  assert.equal([all[0].dim, all[0].blocks.length], [8, 2]);
  assert.equal([all[3].dim, all[3].blocks.length], [4, 1]);
});

test("distillation by hand", () => {
  const logits = tf.tensor2d([[0, 0]]);
  const labels = tf.tensor1d([0], "int32");
  const hard = distillationLoss(logits, labels).dataSync()[0];
  near([hard], [Math.log(2)], 1e-6);
  // teacher (3/4, 1/4) against (1/2, 1/2): KL = log 2 + 3/4 log 3/4 + 1/4 log 1/4
  const teacher = tf.tensor2d([[Math.log(3), 0]]);
  const soft = distillationLoss(logits, labels, teacher, { weight: 1 });
  const kl = Math.log(2) + 0.75 * Math.log(0.75) + 0.25 * Math.log(0.25);
  near([soft.dataSync()[0]], [kl], 1e-6);
});

test.run();
