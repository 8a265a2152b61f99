/** Supernet: shared storage, inherited forward, distillation, integer kernels against rounding in floats. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Images } from "../lib/core/images.ts";
import * as nn from "../lib/core/nn.ts";
import { fold, key, normal, randomInts } from "../lib/core/rng.ts";
import { flatten, type ParamTree, ready, tf } from "../lib/core/tensor.ts";
import { mixedProduct } from "../lib/quasar-vit/cpu.ts";
import { rowQuantizer } from "../lib/quasar-vit/rows.ts";
import { largestSubnet } from "../lib/quasar-vit/space.ts";
import {
  inherit,
  mastersBytes,
  newSupernet,
  readMasters,
  subnetAccuracy,
  subnetLogits,
  trainAlone,
  trainMasters,
  trainSupernet,
} from "../lib/quasar-vit/supernet.ts";

await ready();

const SPACE = {
  dims: [8, 16],
  depths: [1, 2],
  heads: [1, 2],
  mlpRatios: [1, 2],
  ratios: [0, 0.5, 1],
};
const BACKBONE = {
  imageSize: 8,
  patchSize: 4,
  channels: 1,
  numClasses: 2,
  headDim: 8,
  layerScale: 0.5,
  initStd: 0.2,
};
const SMALL = { dim: 8, blocks: [{ heads: 1, mlpRatio: 2, ratio8: 0.5 }] };

/** Dark and bright images with noise: two classes. */
function twoClasses(count: number, seed: number): Images {
  const noise = randomInts(key(seed), count * 64, 0, 100);
  return {
    count,
    height: 8,
    width: 8,
    channels: 1,
    images: Uint8Array.from(noise, (v, i) => v + 100 * (((i / 64) | 0) % 2)),
    labels: Uint8Array.from({ length: count }, (_, i) => i % 2),
  };
}

const data = twoClasses(64, 1);
const leaves = (tree: unknown) => flatten(tree as ParamTree);

test("a step of a sub-network changes its part of the masters and nothing else", () => {
  const net = newSupernet(BACKBONE, largestSubnet(SPACE), data, key(2));
  const before = Object.fromEntries(
    Object.entries(leaves(net.masters)).map(([n, v]) => [n, v.arraySync()]),
  );
  trainMasters(net, data, () => [SMALL], {
    key: key(3),
    epochs: 1,
    batchSize: 64,
    weightDecay: 0,
  });
  const after = leaves(net.masters);
  const moved = (name: string) => {
    const old = tf.tensor(before[name] as number[][]);
    return after[name].sub(old).arraySync() as number[][];
  };
  const fc1 = moved("blocks.0.mlp.fc1.weight"); // [32, 16], the sub-network's [16, 8]
  fc1.forEach((row, m) =>
    row.forEach((change, n) => {
      if (m >= 16 || n >= 8) assert.is(change, 0, `fc1 ${m}, ${n}`);
    })
  );
  assert.ok(fc1[0][0] !== 0 && fc1[15][7] !== 0);
  const second = moved("blocks.1.mlp.fc1.weight").flat();
  assert.ok(second.every((change) => change === 0), "a block that did not run");
});

test("inherited logits are those of a copy that stands alone, and the copy is apart", () => {
  const net = newSupernet(BACKBONE, largestSubnet(SPACE), data, key(4));
  const inherited = subnetLogits(net, SMALL, data);
  const copy = inherit(net, SMALL);
  assert.equal(subnetLogits(copy, SMALL, data), inherited);
  trainMasters(copy, data, () => [SMALL], { key: key(5), epochs: 1 });
  assert.not.equal(subnetLogits(copy, SMALL, data), inherited);
  assert.equal(subnetLogits(net, SMALL, data), inherited);
  // Precision is part of the sub-network: other rows, other logits.
  const coarse = { ...SMALL, blocks: [{ ...SMALL.blocks[0], ratio8: 0 }] };
  assert.not.equal(subnetLogits(net, coarse, data), inherited);
});

test("a supernet learns, and so does a sub-network from what it inherits", () => {
  const options = {
    key: key(6),
    epochs: 20,
    batchSize: 16,
    learningRate: 0.01,
  };
  const net = trainSupernet(BACKBONE, SPACE, data, {
    ...options,
    rule: "sandwich",
  });
  const test = twoClasses(100, 7);
  assert.ok(subnetAccuracy(net, SMALL, test) > 0.9);
  const further = trainAlone(net, SMALL, data, { ...options, epochs: 1 });
  assert.ok(further.loss[0] < net.loss[0]);
});

test("with the teacher's weight 1 labels do not count: a wrong teacher teaches wrong", () => {
  const teacher = Float32Array.from(
    { length: 128 },
    (_, i) => ((i >> 1) + i) % 2 === 0 ? -3 : 3,
  );
  const net = trainAlone(BACKBONE, SMALL, data, {
    key: key(8),
    epochs: 8,
    batchSize: 16,
    learningRate: 0.01,
    teacher,
    teacherWeight: 1,
  });
  assert.ok(subnetAccuracy(net, SMALL, data) < 0.1);
  assert.throws(
    () =>
      trainAlone(BACKBONE, SMALL, data, {
        key: key(8),
        epochs: 1,
        teacher: teacher.subarray(1),
      }),
    /2 logits for each of 64 images: 127/,
  );
});

test("masters are written and read", () => {
  const net = newSupernet(BACKBONE, largestSubnet(SPACE), data, key(9));
  const other = newSupernet(BACKBONE, largestSubnet(SPACE), data, key(10));
  readMasters(other, mastersBytes(net));
  assert.equal(
    subnetLogits(other, SMALL, data),
    subnetLogits(net, SMALL, data),
  );
  assert.throws(() => readMasters(other, new Uint8Array(8)), /bytes: 8/);
});

test("images, teachers and losses that cannot be trained on are refused", () => {
  const train = (change: object, images = data) =>
    trainSupernet(BACKBONE, SPACE, images, {
      key: key(12),
      epochs: 1,
      ...change,
    });
  const refused = (what: RegExp, change: object, images = data) =>
    assert.throws(() => train(change, images), what);
  refused(/must be 8 x 8 with 1 channels: 4 x 16 with 1/, {}, {
    ...data,
    height: 4,
    width: 16,
  });
  refused(/must be 8 x 8 with 1 channels: 8 x 8 with 3/, {}, {
    ...data,
    channels: 3,
  });
  refused(/epochs must be a positive whole number: 0/, { epochs: 0 });
  refused(/2 logits for each of 64 images: 5 numbers/, {
    teacher: new Float32Array(5),
  });
  refused(/gradient of "cls_token" must be finite: its norm is NaN/, {
    teacher: new Float32Array(128).fill(NaN),
  });
});

test("logits that are no numbers, other images or none are refused by name", () => {
  const net = newSupernet(BACKBONE, largestSubnet(SPACE), data, key(13));
  const accuracy = (change: object, options = {}) =>
    subnetAccuracy(net, SMALL, { ...data, ...change }, options);
  assert.ok(accuracy({}) >= 0);
  assert.throws(
    () => accuracy({ height: 4, width: 16 }),
    /must be 8 x 8 with 1 channels: 4 x 16 with 1/,
  );
  assert.throws(() => accuracy({ count: 0 }), /at least one image: 0/);
  assert.throws(() => accuracy({}, { batch: 0 }), /batch must be .*: 0/);
  assert.throws(
    () =>
      trainSupernet(BACKBONE, SPACE, { ...data, count: 0 }, {
        key: key(13),
        epochs: 1,
      }),
    /Cannot train a supernet as there must be at least one image: 0/,
  );
  for (const value of [NaN, Infinity]) {
    // Only the second class has a bad logit, of every image.
    (leaves(net.masters)["head.bias"] as ReturnType<typeof tf.variable>)
      .assign(tf.tensor1d([0, value]));
    assert.throws(
      () => accuracy({}),
      new RegExp(`finite: ${value} for class 1 of image 0; training has`),
    );
  }
});

test("widths that are whole but for rounding can be built", () => {
  // 2.3 x 26 = 59.8: 60 hidden units, and 60 / 26 x 26 is 59.99999999999999
  const shape = { dim: 26, blocks: [{ heads: 1, mlpRatio: 2.3, ratio8: 0 }] };
  const net = newSupernet(BACKBONE, shape, data, key(14));
  assert.equal(leaves(net.masters)["blocks.0.mlp.fc1.weight"].shape, [60, 26]);
  assert.is(subnetLogits(net, shape, data).length, 128);
});

test("integer kernels give what rounding in floats gives, for every share of 8-bit rows", () => {
  const [M, N, F] = [12, 20, 5];
  const weight = tf.tensor2d(normal(key(11), M * N), [M, N]);
  const values = normal(fold(key(11), "x"), F * N);
  for (const ratio8 of [0, 0.25, 1]) {
    const expected = nn.linear(tf.tensor2d(values, [F, N]), weight, {
      quantizer: rowQuantizer(ratio8),
    }).dataSync();
    const got = mixedProduct(weight, ratio8, values);
    for (let i = 0; i < got.length; i++) {
      assert.ok(Math.abs(got[i] - expected[i]) < 1e-3, `${ratio8}, ${i}`);
    }
  }
});

test.run();
