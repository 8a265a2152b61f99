/** Packed products: every operand against plain multiplication; limits of ports and lanes. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  laneDepth,
  nibbles,
  packed3,
  packed4,
  productW8,
  readLanes,
} from "../lib/quasar-vit/packing.ts";

const ACTIVATIONS = Array.from({ length: 96 }, (_, i) => i - 32); // signed and from 0
const NIBBLES = Array.from({ length: 24 }, (_, i) => i - 8);

test("factor 3 gives every product of an activation with three nibbles", () => {
  let wrong = 0;
  for (const a of ACTIVATIONS) {
    for (const w0 of NIBBLES) {
      for (const w1 of NIBBLES) {
        for (const w2 of [-8, -1, 0, 1, 7, 15]) {
          const [p0, p1, p2] = packed3(a, [w0, w1, w2]);
          if (p0 !== a * w0 || p1 !== a * w1 || p2 !== a * w2) wrong++;
        }
      }
    }
  }
  assert.is(wrong, 0);
});

test("factor 4 gives every product of two activations with two nibbles", () => {
  let wrong = 0;
  for (const a0 of ACTIVATIONS) {
    for (const a1 of ACTIVATIONS) {
      for (const w0 of NIBBLES) {
        for (const w1 of [-8, -5, -1, 0, 1, 3, 7, 15]) {
          const [p0, p1, p2, p3] = packed4([a0, a1], [w0, w1]);
          if (
            p0 !== a0 * w0 || p1 !== a1 * w0 || p2 !== a0 * w1 || p3 !== a1 * w1
          ) wrong++;
        }
      }
    }
  }
  assert.is(wrong, 0);
});

test("8-bit weights are their nibbles, and every product comes out", () => {
  assert.equal(nibbles(-128), { high: -8, low: 0 });
  assert.equal(nibbles(127), { high: 7, low: 15 });
  for (let w = -128; w < 128; w++) {
    const { high, low } = nibbles(w);
    assert.is(16 * high + low, w);
    for (const a of ACTIVATIONS) {
      if (productW8(a, w) !== a * w) assert.unreachable(`${a} x ${w}`);
    }
  }
});

test("a negative lane borrows from the next one: without the repair products are wrong", () => {
  // -1 and 5 in lanes 0 and 1: the upper lane holds 4
  const result = -1 + 5 * 2048;
  assert.equal(readLanes(result, 2), [-1, 5]);
  assert.is(Math.floor(result / 2048), 4);
});

test("a lane holds as many products as their range allows", () => {
  assert.is(laneDepth([-32, 31], [-8, 7]), 3); // 4 x 256 = 1024 is one too many
  assert.is(laneDepth([-31, 31], [-8, 7]), 4); // 4 x 248 = 992
  assert.is(laneDepth([0, 63], [0, 15]), 1); // 945
});

test("numbers that fit no port are refused", () => {
  assert.throws(
    () => packed3(64, [0, 0, 0]),
    /an activation as it must be a whole number from -32 to 63: 64/,
  );
  assert.throws(() => packed3(1.5, [0, 0, 0]), /whole number/);
  assert.throws(() => packed4([0, 0], [16, 0]), /a nibble .*-8 to 15: 16/);
  assert.throws(() => nibbles(128), /-128 to 127: 128/);
  assert.throws(() => productW8(NaN, 1), /NaN/);
});

test.run();
