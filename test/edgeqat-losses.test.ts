import { test } from "uvu";
import * as assert from "uvu/assert";
import { readFileSync } from "node:fs";
import {
  distillationLoss,
  distributionLoss,
  entropyLoss,
  logContinued,
  mapLikeness,
} from "../lib/edgeqat/mod.ts";
import { key, normal } from "../lib/core/rng.ts";
import {
  ready,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
} from "../lib/core/tensor.ts";

await ready();

/** The numbers are PyTorch's: /usr/bin/python3 test/golden/edgeqat.py (torch 1.13.0). */
const golden = JSON.parse(
  readFileSync(new URL("./golden/edgeqat.json", import.meta.url), "utf8"),
);
const [B, T, H, D, V] = golden.shape as number[];

/** Sums of some dozens of float32 products. */
const FLOAT32 = 1e-4;
/** Central differences in float32: rounding of the loss over the step. */
const DIFFERENCES = 2e-2;

const near = (a: number, b: number, tolerance: number, what: string) =>
  assert.ok(
    Math.abs(a - b) <= tolerance * (1 + Math.abs(b)),
    `${what}: ${a} is not ${b}`,
  );

const variables = (lists: number[][], shape: number[]) =>
  lists.map((list) => tf.variable(tf.tensor(list, shape)) as Tensor);

function checkGolden(name: string, f: () => Scalar, inputs: Tensor[]) {
  const { value, grads } = valueAndGrads(f, inputs);
  near(value.dataSync()[0], golden[name].value, FLOAT32, name);
  inputs.forEach((_, i) => {
    const ours = grads[`${i}`].dataSync();
    golden[name].grads[i].forEach((g: number, j: number) =>
      near(ours[j], g, FLOAT32, `${name}: gradient ${i}, ${j}`)
    );
  });
}

const q = variables(golden.q, [B, T, H, D]);
const k = variables(golden.k, [B, T, H, D]);
const maps = variables(golden.student, [B, H, T, T]);
const teacher = variables(golden.teacher, [B, H, T, T]);
const logits = tf.variable(tf.tensor(golden.logits, [B, T, V]));
const goal = tf.tensor(golden.goal as number[], [B, T, V]);
const labels = tf.tensor(golden.labels as number[], [B, T], "int32");

test("both forms of the entropy loss and their gradients are PyTorch's", () => {
  checkGolden("entropy_released", () => entropyLoss(q, k, "released"), [
    ...q,
    ...k,
  ]);
  checkGolden("entropy_paper", () => entropyLoss(q, k, "paper"), [...q, ...k]);
});

test("the literal distribution loss is PyTorch's, the intended one its opposite", () => {
  checkGolden(
    "distribution_literal",
    () => distributionLoss(maps, teacher, "literal"),
    maps,
  );
  const literal = distributionLoss(maps, teacher, "literal").dataSync()[0];
  assert.is(distributionLoss(maps, teacher).dataSync()[0], -literal);
});

test("batchmean counts the teacher T times as much as the mean over tokens", () => {
  const loss = (normalisation: "tokens" | "sequences", gamma = 0.5) =>
    distillationLoss(logits, labels, goal, { normalisation, gamma });
  checkGolden("distillation_sequences", () => loss("sequences"), [logits]);
  const hard = loss("tokens", 0).dataSync()[0];
  const soft = (normalisation: "tokens" | "sequences") =>
    loss(normalisation).dataSync()[0] - hard / 2;
  near(soft("sequences"), T * soft("tokens"), FLOAT32, "ratio");
});

test("hand case: variances of 1 and 4 in one head", () => {
  // q = +-1, k = +-2: L_E = -log(log(1 + 1 * 4))
  const one = tf.tensor([1, -1, 1, -1], [1, 2, 1, 2]);
  near(
    entropyLoss([one], [one.mul(2)]).dataSync()[0],
    -Math.log(Math.log(5)),
    FLOAT32,
    "paper",
  );
  // The unbiased variance of each pair is 2 and 8: L_E = -log(2 log 3 + 2 log 9)
  near(
    entropyLoss([one], [one.mul(2)], "released").dataSync()[0],
    -Math.log(2 * Math.log(3) + 2 * Math.log(9)),
    FLOAT32,
    "released",
  );
});

test("each loss falls along its own gradient, as central differences say", () => {
  const x = tf.variable(tf.tensor(normal(key(1), 48), [1, 4, 2, 6]));
  const other = tf.tensor(normal(key(2), 48), [1, 4, 2, 6]);
  const losses: Record<string, () => Scalar> = {
    paper: () => entropyLoss([x], [other], "paper"),
    released: () => entropyLoss([x], [other], "released"),
    intended: () => distributionLoss([x], [other], "intended"),
    literal: () => distributionLoss([x], [other], "literal"),
    distillation: () =>
      distillationLoss(
        x.reshape([2, 4, 6]),
        tf.zeros([2, 4], "int32"),
        other.reshape([2, 4, 6]),
      ),
  };
  const start = x.dataSync().slice() as Float32Array;
  const step = 1e-2;
  for (const [name, loss] of Object.entries(losses)) {
    const { grads } = valueAndGrads(loss, { x });
    const gradient = grads.x.dataSync();
    for (const i of [0, 7, 23, 40]) {
      const at = (move: number) => {
        const moved = start.slice();
        moved[i] += move;
        x.assign(tf.tensor(moved, x.shape));
        return loss().dataSync()[0];
      };
      const slope = (at(step) - at(-step)) / (2 * step);
      at(0);
      near(gradient[i], slope, DIFFERENCES, `${name} at ${i}`);
    }
  }
});

test("maps that point the other way give a finite loss with the right sign", () => {
  const map = tf.variable(tf.tensor(normal(key(3), 16), [1, 1, 4, 4]));
  const opposite = map.neg();
  near(mapLikeness(map, opposite).dataSync()[0], -1, FLOAT32, "likeness");
  const near0 = map.mul(-1).add(tf.tensor(normal(key(4), 16), [1, 1, 4, 4]));
  for (const sign of ["intended", "literal"] as const) {
    const { value, grads } = valueAndGrads(
      () => distributionLoss([map], [near0], sign),
      { map },
    );
    assert.ok(Number.isFinite(value.dataSync()[0]));
    // One small step against the gradient: the intended loss makes the maps more alike.
    const moved = map.sub(grads.map.mul(1e-4));
    const gain = mapLikeness(moved, near0).dataSync()[0] -
      mapLikeness(map, near0).dataSync()[0];
    assert.ok(sign === "intended" ? gain > 0 : gain < 0, `${sign}: ${gain}`);
  }
});

test("the continued logarithm is smooth at its floor", () => {
  const x = tf.variable(tf.tensor1d([0.01, 0.0099999, -1, 2]));
  const { grads } = valueAndGrads(
    () => logContinued(x, 0.01).sum() as Scalar,
    { x },
  );
  const values = logContinued(x, 0.01).dataSync();
  near(values[2], Math.log(0.01) - 101, FLOAT32, "tangent");
  near(values[3], Math.log(2), FLOAT32, "logarithm");
  near(grads.x.dataSync()[1], 100, FLOAT32, "slope below");
  near(grads.x.dataSync()[2], 100, FLOAT32, "slope far below");
});

test("losses without layers, or with unequal numbers of them, are refused", () => {
  assert.throws(
    () => entropyLoss([], []),
    /one tensor for each layer: 0 and 0/,
  );
  assert.throws(
    () => distributionLoss(maps, teacher.slice(1)),
    /one tensor for each layer: 2 and 1/,
  );
});

test.run();
