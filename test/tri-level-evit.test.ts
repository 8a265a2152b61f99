/** Tri-Level E-ViT: hand cases, slow code, differences, and that what is dropped has no influence. */
import * as assert from "uvu/assert";
import { test } from "uvu";
import type { Images } from "../lib/core/images.ts";
import { attentionMap } from "../lib/core/attention-map.ts";
import { type ArmSummary, summariseMetric } from "../lib/core/runs.ts";
import { tables } from "../lib/experiments/tri-level-evit.report.ts";
import { attention } from "../lib/core/nn.ts";
import { fold, key, normal, uniform } from "../lib/core/rng.ts";
import { ready, type Tensor, tf, valueAndGrads } from "../lib/core/tensor.ts";
import {
  countVitMacs,
  deit,
  initVit,
  resolveVit,
  vitForward,
} from "../lib/core/vit.ts";
import {
  classAttention,
  classAttentionValues,
  connectionMask,
  dropBlocks,
  el2n,
  forgettingCounts,
  gatheredAttention,
  keepAt,
  keepTokens,
  keptCount,
  meanAttention,
  mostImportant,
  noStats,
  predictVit,
  prunedForward,
  rankExamples,
  recordPresentation,
  setAside,
  swapExamples,
  tokenCounts,
  trainVit,
} from "../lib/tri-level-evit/mod.ts";

await ready();

const random = (seed: number, shape: number[]): Tensor =>
  tf.tensor(normal(key(seed), shape.reduce((a, b) => a * b, 1)), shape);
const near = (
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  by: number,
  what = "",
) => {
  assert.is(a.length, b.length, what);
  for (let i = 0; i < a.length; i++) {
    assert.ok(Math.abs(a[i] - b[i]) <= by, `${what} ${i}: ${a[i]}, ${b[i]}`);
  }
};

test("tokens that stay, as the released code counts them", () => {
  const three = (keep: number) => {
    const { mlp } = tokenCounts(196, 12, { keep, blocks: [3, 6, 9] });
    return [3, 6, 9].map((i) => mlp[i] - 1);
  };
  assert.equal(three(0.9), [177, 160, 144]);
  assert.equal(three(0.8), [157, 126, 101]);
  assert.equal(three(0.7), [138, 97, 68]);
  assert.equal(three(0.6), [118, 71, 43]);
  assert.equal(three(0.5), [98, 49, 25]);
  assert.equal(dropBlocks(12), [3, 6, 9]);
  assert.equal(dropBlocks(8), [2, 4, 6]);
  assert.is(keptCount(10, 0.7), 7);
  assert.is(keptCount(11, 0.7), 8);
  assert.throws(() => keptCount(10, 0), /above 0 and at most 1: 0/);
  assert.throws(() => keptCount(10, 1.01), /above 0 and at most 1: 1.01/);
});

test("EViT's operations for DeiT-S, in G, as its README gives them for fused tokens", () => {
  const published: [number, string][] = [
    [0.9, "4.0"],
    [0.8, "3.5"],
    [0.7, "3.0"],
    [0.6, "2.6"],
    [0.5, "2.3"],
  ];
  for (const [keep, macs] of published) {
    const counts = tokenCounts(196, 12, {
      keep,
      blocks: [3, 6, 9],
      fuse: true,
    });
    assert.is(
      (countVitMacs(deit("small"), counts).total / 1e9).toFixed(1),
      macs,
      `${keep}`,
    );
  }
});

test("the share falls from 1 on half a cosine", () => {
  const ramp = { start: 10, end: 110 };
  assert.is(keepAt(9.99, 0.7, ramp), 1);
  assert.is(keepAt(110, 0.7, ramp), 0.7);
  assert.ok(Math.abs(keepAt(60, 0.7, ramp) - 0.85) < 1e-12);
  assert.ok(
    Math.abs(keepAt(35, 0.5, ramp) - (0.5 + 0.25 * (1 + Math.SQRT1_2))) < 1e-12,
  );
});

test("attention of the class token and of all equals loops", () => {
  const [B, T, H, Dh] = [2, 5, 3, 4];
  const q = random(1, [B, T, H, Dh]);
  const k = random(2, [B, T, H, Dh]);
  const [Q, K] = [q, k].map((x) => x.arraySync() as number[][][][]);
  const mean = Array.from(
    { length: B },
    (_, b) =>
      Array.from({ length: T }, (_, t) => {
        const row = new Array<number>(T).fill(0);
        for (let h = 0; h < H; h++) {
          const e = K[b].map((other) =>
            Math.exp(
              other[h].reduce((sum, x, d) => sum + x * Q[b][t][h][d], 0) / 2,
            )
          );
          const total = e.reduce((a, c) => a + c);
          e.forEach((x, s) => row[s] += x / total / H);
        }
        return row;
      }),
  );
  near(meanAttention(q, k), mean.flat(2), 1e-6, "all");
  const ofClass = mean.flatMap((rows) => rows[0].slice(1));
  near(classAttention(q, k).dataSync(), ofClass, 1e-6, "class");
  near(classAttentionValues(q, k), ofClass, 1e-6, "class, numbers");
  // Under a mask the others share what a hidden key had.
  const hidden = new Float32Array(B * T * T);
  hidden[T * T + 2 * T + 3] = -1e30;
  const masked = meanAttention(q, k, tf.tensor4d(hidden, [B, 1, T, T]));
  near(
    masked.subarray(0, T * T + 2 * T),
    mean.flat(2).slice(0, T * T + 2 * T),
    1e-6,
    "rows that see all",
  );
  const row = masked.subarray(T * T + 2 * T, T * T + 3 * T);
  assert.is(row[3], 0);
  assert.ok(Math.abs(row.reduce((a, c) => a + c) - 1) < 1e-6);
});

test("attention that is no number, and maps of shapes that do not fit, are refused", () => {
  const q = tf.tensor4d([NaN, 1, 1, 1, 1, 1], [1, 3, 1, 2]);
  const k = tf.ones([1, 3, 1, 2]);
  assert.throws(
    () => keepTokens(tf.ones([1, 3, 2]), classAttentionValues(q, k), 0.5),
    /NaN for token 0 of image 0; training has diverged/,
  );
  assert.throws(
    () => connectionMask(meanAttention(k, q), [1, 3], 0.5),
    /must be numbers: NaN/,
  );
  assert.throws(
    () => attentionMap(q, tf.ones([1, 3, 2, 2])),
    /Cannot map attention as q must be/,
  );
  assert.throws(
    () => attentionMap(q, k, { queries: 4 }),
    /queries asked for must be from 1 to 3: 4/,
  );
});

test("the most important, ties to the first; NaN is refused", () => {
  assert.equal([...mostImportant([1, 3, 3, 2, 0, 0, 5, 0], [2, 4], 2)], [
    1,
    2,
    0,
    2,
  ]);
  for (let n = 1; n < 40; n++) {
    // Few different values, so that there are ties.
    const values = Array.from(uniform(key(n), n), (x) => Math.floor(6 * x));
    for (let count = 1; count <= n; count++) {
      const sorted = values.map((_, i) => i)
        .sort((a, b) => values[b] - values[a] || a - b)
        .slice(0, count).sort((a, b) => a - b);
      assert.equal([...mostImportant(values, [1, n], count)], sorted);
    }
  }
  assert.throws(
    () => mostImportant([1, NaN], [1, 2], 1),
    /NaN for token 1 of image 0; training has diverged/,
  );
});

test("tokens are gathered by hand; the fused one is the weighted sum of the others", () => {
  const x = tf.tensor3d([[[0, 0], [1, 1], [2, 4], [3, 9], [4, 16]]]);
  const importance = tf.tensor2d([[0.1, 0.4, 0.2, 0.3]]);
  const { x: kept, places } = keepTokens(x, importance, 0.5, { fuse: true });
  assert.equal([...places], [1, 3]);
  near(kept.dataSync(), [
    0,
    0,
    2,
    4,
    4,
    16,
    0.1 * 1 + 0.2 * 3,
    0.1 * 1 + 0.2 * 9,
  ], 1e-6);
  assert.is(keepTokens(x, importance, 1).x, x);
});

test("gradients through dropped and fused tokens and gathered attention, by differences", () => {
  const check = (name: string, shape: number[], f: (x: Tensor) => Tensor) => {
    const start = normal(key(11), shape.reduce((a, b) => a * b, 1));
    const direction = normal(key(12), start.length);
    const variable = tf.variable(tf.tensor(start, shape));
    const loss = () => f(variable).square().sum() as tf.Scalar;
    const { grads } = valueAndGrads(loss, { x: variable });
    const at = (by: number) => {
      variable.assign(
        tf.tensor(start.map((v, i) => v + by * direction[i]), shape),
      );
      return loss().dataSync()[0];
    };
    const slope = (at(1e-2) - at(-1e-2)) / 2e-2;
    const exact = Array.from(grads["x"].dataSync()).reduce(
      (s, g, i) => s + g * direction[i],
      0,
    );
    assert.ok(
      Math.abs(slope - exact) < 0.01 * (1 + Math.abs(exact)),
      `${name}: ${exact}, ${slope}`,
    );
  };
  const importance = tf.tensor2d(uniform(key(3), 8), [2, 4]);
  check(
    "keepTokens",
    [2, 5, 3],
    (x) => keepTokens(x, importance, 0.5, { fuse: true }).x,
  );
  const x = random(5, [2, 5, 3]);
  check("importance", [2, 4], (a) => keepTokens(x, a, 0.5, { fuse: true }).x);
  const [k, v] = [random(6, [2, 5, 2, 3]), random(7, [2, 5, 2, 3])];
  const keys = Int32Array.from({ length: 2 * 5 * 2 }, (_, i) => (i * 3) % 5);
  check("gathered q", [2, 5, 2, 3], (q) => gatheredAttention(q, k, v, keys));
  const q = random(8, [2, 5, 2, 3]);
  check(
    "gathered k",
    [2, 5, 2, 3],
    (other) => gatheredAttention(q, other, v, keys),
  );
  check(
    "gathered v",
    [2, 5, 2, 3],
    (other) => gatheredAttention(q, k, other, keys),
  );
});

test("attention to lists equals attention under the mask, and the published mask to its epsilon", () => {
  const [B, T, H, Dh] = [2, 6, 2, 4];
  const [q, k, v] = [21, 22, 23].map((seed) => random(seed, [B, T, H, Dh]));
  const added = connectionMask(meanAttention(q, k), [B, T], 0.4);
  const seen = Uint8Array.from(added, (x) => x === 0 ? 1 : 0);
  const mask = tf.tensor(seen, [B, 1, T, T], "bool");
  const masked = attention(q, k, v, { causal: false, mask });
  // Every patch sees m = 2 of 5 patches and the class token; the class token sees all six.
  const rows = Array.from(
    { length: B * T },
    (_, r) => [...seen.subarray(r * T, r * T + T)],
  );
  rows.forEach((row, r) => {
    assert.is(row.reduce((a, c) => a + c, 0), r % T === 0 ? T : 3, `row ${r}`);
    assert.is(row[0], 1);
  });
  const patchesOnly = rows.flatMap((row, r) =>
    r % T === 0 ? [0, 1, 2] : row.flatMap((s, j) => s ? [j] : [])
  );
  const gathered = gatheredAttention(q, k, v, Int32Array.from(patchesOnly));
  const [a, b] = [masked, gathered].map((x) => x.arraySync() as number[][][][]);
  for (let i = 0; i < B; i++) {
    near(a[i].slice(1).flat(2), b[i].slice(1).flat(2), 1e-5, "lists");
  }
  // Published: (exp(z) M + eps / N) / (sum exp(z) M + eps), eps = 1e-6
  const published = tf.tidy(() => {
    const heads = (x: Tensor) => x.transpose([0, 2, 1, 3]);
    const z = tf.matMul(heads(q), heads(k), false, true).div(2) as Tensor;
    const e = z.sub(z.max(-1, true)).exp().mul(mask.toFloat());
    const A = e.add(1e-6 / T).div(e.sum(-1, true).add(1e-6));
    return heads(tf.matMul(A as tf.Tensor4D, heads(v) as tf.Tensor4D))
      .dataSync();
  });
  near(masked.dataSync(), published, 5e-5, "published");
  const plain = attention(q, k, v, { causal: false }).dataSync();
  assert.ok(
    plain.some((x, i) => Math.abs(x - published[i]) > 0.05),
    "the mask must matter",
  );
});

test("connections by hand, with patches that left and a token that was fused", () => {
  // Three patches; the second left. Each of the others keeps one connection of two.
  const map = [
    [0.4, 0.2, 0.2, 0.2],
    [0.1, 0.2, 0.6, 0.1],
    [0.1, 0.3, 0.3, 0.3],
    [0.1, 0.5, 0.3, 0.1],
  ].flat();
  const X = Math.fround(-1e30);
  const places = Int32Array.from([0, 2]);
  near(connectionMask(map, [1, 4], 0.5, { places }), [
    ...[0, 0, 0],
    ...[0, 0, X],
    ...[0, 0, X],
  ], 0);
  near(connectionMask(map, [1, 4], 0.5, { places, fused: true }), [
    ...[0, 0, 0, 0],
    ...[0, 0, X, 0],
    ...[0, 0, X, 0],
    ...[0, 0, 0, 0],
  ], 0);
  near(connectionMask(map, [1, 4], 1, { places }), new Float32Array(9), 0);
});

test("what was dropped has no influence on the logits, what stayed has", () => {
  const config = {
    imageSize: 12,
    patchSize: 3,
    channels: 1,
    numClasses: 3,
    hiddenSize: 8,
    numLayers: 4,
    numHeads: 2,
  };
  const params = initVit(config, key(4));
  for (const block of params.blocks) {
    for (const m of ["q", "k"] as const) {
      block.attn[m].weight = block.attn[m].weight.mul(60);
    }
  }
  const x = random(9, [1, 16, 9]);
  const places: Int32Array[] = [];
  const run = (disturb?: number) =>
    tf.tidy(() => {
      const options = prunedForward(
        { tokens: { keep: 0.5, blocks: [0] }, connections: 0.5 },
        {},
        (_, kept) => void places.push(kept),
      );
      const onActivation = options.onActivation!;
      return vitForward(params, x, resolveVit(config), {
        ...options,
        onActivation: (name, z) => {
          // One patch is disturbed between the halves of block 0, before tokens are dropped there.
          const changed = name === "blocks.0.residual" && disturb !== undefined
            ? z.add(
              tf.oneHot([disturb + 1], 17).toFloat().reshape([1, 17, 1]).mul(
                normal(key(1), 8),
              ),
            )
            : z;
          return onActivation(name, changed) ?? changed;
        },
      }).dataSync().slice();
    });
  const whole = run();
  const kept = new Set(places[0]);
  assert.is(kept.size, 8);
  for (let patch = 0; patch < 16; patch++) {
    const same = run(patch).every((y, i) => y === whole[i]);
    assert.is(same, !kept.has(patch), `patch ${patch}`);
  }
});

test("forgetting is counted by hand; what was never right counts most", () => {
  const stats = noStats(4);
  const history = [[1, 0, 1, 1], [0, 0, 1, 0], [1, 0, 1, 1], [0, 0, 1, 1]];
  history.forEach((right) => recordPresentation(stats, [0, 1, 2, 3], right));
  assert.equal([...forgettingCounts(stats)], [2, 4, 0, 1]);
  assert.equal(rankExamples([0, 1, 2, 3], forgettingCounts(stats)), [
    2,
    3,
    0,
    1,
  ]);
  assert.equal(rankExamples([3, 2, 1], [0, 5, 5, 5]), [1, 2, 3]);
});

test("rounds keep both sizes and all examples, and swap the least forgotten", () => {
  let division = setAside(100, 0.2, key(1));
  assert.is(division.active.length, 80);
  const score = Float64Array.from({ length: 100 }, (_, i) => i % 10);
  const before = new Set(division.active);
  const leaving = rankExamples(division.active, score).slice(0, 5);
  division = swapExamples(division, score, 5, key(2));
  assert.is(division.active.length, 80);
  assert.equal(
    [...division.active, ...division.pool].sort((a, b) => a - b),
    Array.from({ length: 100 }, (_, i) => i),
  );
  assert.ok(leaving.every((e) => !division.active.includes(e)));
  assert.is([...division.active].filter((e) => !before.has(e)).length, 5);
  assert.throws(
    () => swapExamples(division, score, 21, key(2)),
    /80 are trained on, 20 set aside/,
  );
  assert.throws(
    () => setAside(10, 1, key(1)),
    /at least 0 and below 1: 1 of 10/,
  );
});

test("EL2N by hand", () => {
  near(
    el2n([1, 0, 0.5, 0.5, 0, 1], [0, 1, 0]),
    [0, Math.SQRT1_2, Math.SQRT2],
    1e-12,
  );
});

/** An arm with values for each of its seeds. */
function arm(method: string, seeds: number[], seconds: number[]): ArmSummary {
  const metric = (values: number[]) => summariseMetric(values);
  return {
    id: `fashion-mnist/${method}`,
    config: { data: "fashion-mnist", method, model: { numLayers: 4 } },
    seeds,
    metrics: {
      accuracy: metric(seconds.map(() => 70)),
      gigaMacs: metric(seconds.map((s) => 2 * s)),
      neverForgotten: metric(seconds.map(() => 0.43)),
    },
    series: {},
    timings: {
      trainSeconds: metric(seconds),
      selectionSeconds: metric(seconds.map(() => 0)),
    },
    seconds: 1,
  };
}

test("shares of the dense model are paired over the seeds that both have", () => {
  const arms = [
    arm("dense", [1, 2, 3], [10, 20, 300]),
    arm("forgetting", [2, 1], [10, 5]),
    arm("tokens-0.7", [2], [15]),
  ];
  const [{ rows, columns, caption }] = tables(arms);
  const column = (name: string) => {
    const place = columns.findIndex((title) => title.startsWith(name));
    return rows.map((row) => row[place]);
  };
  // 5 of 10 and 10 of 20 are a half each; the means, 7.5 of 110, are not.
  assert.equal(column("operations"), [100, 50, 75]);
  assert.equal(column("with the first"), [100, 150, 75]);
  assert.match(caption!, /paired by seed, over the seeds that both have/);
  assert.match(caption!, /43 % of the images have a forgetting count of 0/);
  assert.match(caption!, /With 4 blocks the last depth is the last block/);
  const deep = arms.map((a) => ({
    ...a,
    config: { ...a.config, model: { numLayers: 12 } },
  }));
  assert.not.match(tables(deep)[0].caption!, /last depth/);
});

/** Images whose class is the bright corner, with noise. */
function corners(count: number, seed: number): Images {
  const noise = uniform(key(seed), count * 144, 0, 80);
  const images = Uint8Array.from(noise);
  const labels = Uint8Array.from({ length: count }, (_, i) => i % 4);
  labels.forEach((label, n) => {
    for (let y = 0; y < 4; y++) {
      for (let x = 0; x < 4; x++) {
        images[n * 144 + (y + 8 * (label >> 1)) * 12 + x + 8 * (label & 1)] +=
          150;
      }
    }
  });
  return { count, height: 12, width: 12, channels: 1, images, labels };
}

const tiny = {
  imageSize: 12,
  patchSize: 3,
  channels: 1,
  numClasses: 4,
  hiddenSize: 16,
  numLayers: 4,
  numHeads: 2,
  mlpRatio: 2,
};

test("training learns with every level, the same twice, and costs what the counts say", () => {
  const train = corners(128, 1);
  const held = corners(64, 2);
  const options = {
    key: key(7),
    epochs: 16,
    batchSize: 16,
    learningRate: 3e-3,
  };
  const tokens = { keep: 0.5, blocks: dropBlocks(4) };
  const three = {
    tokens,
    connections: 0.5,
    examples: { kind: "rounds" as const, rounds: 2 },
  };
  const dense = trainVit(tiny, train, options);
  const ours = trainVit(tiny, train, { ...options, levels: three });
  const again = trainVit(tiny, train, { ...options, levels: three });
  assert.ok(
    predictVit(dense, held).accuracy > 0.95,
    `dense ${predictVit(dense, held).accuracy}`,
  );
  assert.ok(
    predictVit(ours, held).accuracy > 0.95,
    `three ${predictVit(ours, held).accuracy}`,
  );
  assert.equal([...predictVit(ours, held).probabilities], [
    ...predictVit(again, held).probabilities,
  ]);
  const macs = (m: typeof dense) => m.epochs.map((e) => e.macs);
  assert.is(macs(dense)[0], 3 * 128 * countVitMacs(tiny).total);
  assert.is(ours.epochs[0].examples, 102);
  const last = 3 * 102 * countVitMacs(tiny, tokenCounts(16, 4, tokens)).total;
  assert.is(macs(ours)[15], last);
  let ticks = 0;
  const { epochs: [first] } = trainVit(tiny, train, {
    ...options,
    epochs: 2,
    levels: three,
  }, () => ticks++);
  // A clock that moves by one each time it is read: 7 batches, each between two readings.
  assert.is(first.batchSeconds, 7);
  assert.ok(first.batchSeconds + first.selectionSeconds < first.seconds);
  // Each presentation is counted: 102 an epoch.
  assert.is(ours.seen.reduce((a, b) => a + b, 0), 16 * 102);
});

test("mixup, crops and smoothing change training, and a random part is drawn once or anew", () => {
  const train = corners(64, 3);
  const options = { key: key(8), epochs: 2, batchSize: 16 };
  const losses = [
    {},
    { mixup: 0.8 },
    { augment: { shift: 1 } },
    { labelSmoothing: 0 },
  ].map((more) =>
    trainVit(tiny, train, { ...options, ...more }).epochs[1].loss
  );
  assert.is(new Set(losses).size, 4);
  const seen = (anew: boolean) =>
    trainVit(tiny, train, {
      ...options,
      levels: { examples: { kind: "random", aside: 0.5, anew } },
    }).seen;
  assert.equal([...new Set(seen(false))].sort(), [0, 2]);
  assert.ok(seen(true).includes(1));
});

test("what cannot be trained is refused before any step", () => {
  const train = corners(16, 4);
  const refused = (change: object, what: RegExp, data = train) =>
    assert.throws(
      () =>
        trainVit(tiny, data, { key: fold(key(1), "x"), epochs: 1, ...change }),
      what,
    );
  refused({ epochs: 0 }, /epochs must be a positive integer: 0/);
  refused(
    { levels: { tokens: { keep: 0, blocks: [1] } } },
    /above 0 and at most 1: 0/,
  );
  refused(
    { levels: { tokens: { keep: 0.5, blocks: [4] } } },
    /from 0 to 3: 4/,
  );
  refused(
    { levels: { tokens: { keep: 0.5, blocks: [1.5] } } },
    /whole numbers from 0 to 3: 1\.5/,
  );
  refused({ levels: { connections: 0.5 } }, /give tokens, with keep 1 for all/);
  refused({ mixup: 2 }, /mixup must be from 0 to 1: 2/);
  refused({ mixup: NaN }, /mixup must be from 0 to 1: NaN/);
  for (const labelSmoothing of [-0.1, 1.1, NaN]) {
    refused({ labelSmoothing }, /labelSmoothing must be from 0 to 1: /);
  }
  const level = (examples: object) => ({ levels: { examples } });
  for (const bad of [16, -1, 0.5, NaN]) {
    refused(
      level({ kind: "fixed", examples: [0, bad] }),
      new RegExp(`whole numbers from 0 to 15: ${bad} at place 1`),
    );
  }
  refused(level({ kind: "fixed", examples: [] }), /at least one: 0/);
  refused(level({ kind: "random", aside: 1, anew: true }), /below 1: 1 of 16/);
  refused(
    level({ kind: "rounds" }),
    /0 to the epochs: 5 rounds, 1 epochs; give fewer rounds or more epochs/,
  );
  for (const rounds of [-1, 0.5, NaN]) {
    refused(level({ kind: "rounds", rounds }), /rounds must be a whole number/);
  }
  for (const swap of [0.5, -0.1, NaN]) {
    refused(
      level({ kind: "rounds", rounds: 1, swap }),
      /13 are trained on, 3 set aside/,
    );
  }
  refused({}, /Cannot train as there must be at least one image: 0/, {
    ...train,
    count: 0,
  });
  refused({}, /12 x 12 with 1 channels: 12 x 12 with 3/, {
    ...train,
    channels: 3,
  });
  refused({}, /labels must be below 4: 9 of image 2/, {
    ...train,
    labels: train.labels.map((l, i) => i === 2 ? 9 : l),
  });
});

test("one step trains; what cannot be predicted is refused by name", () => {
  const data = corners(16, 5);
  const model = trainVit(tiny, data, {
    key: key(9),
    epochs: 1,
    batchSize: 16,
    levels: { tokens: { keep: 0.5, blocks: [1] } },
  });
  assert.is(model.epochs.length, 1);
  assert.ok(Number.isFinite(model.epochs[0].loss));
  assert.is(predictVit(model, data).probabilities.length, 64);
  const refused = (change: object, what: RegExp, options = {}) =>
    assert.throws(
      () => predictVit(model, { ...data, ...change }, options),
      what,
    );
  refused(
    { height: 6, width: 24 },
    /Cannot predict as images must be 12 x 12 with 1 channels: 6 x 24 with 1/,
  );
  refused({ channels: 3 }, /with 1 channels: 12 x 12 with 3/);
  refused({ count: 0 }, /at least one image: 0/);
  refused({}, /batch must be a positive integer: 0/, { batch: 0 });
  const { bias } = model.params.head;
  for (const value of [NaN, Infinity, -Infinity]) {
    (bias as ReturnType<typeof tf.variable>)
      .assign(tf.tensor1d([0, 0, value, 0]));
    refused(
      {},
      new RegExp(`finite: ${value} for class 2 of image 0; training`),
    );
  }
});

test.run();
