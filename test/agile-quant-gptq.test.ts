/**
 * GPTQ against the procedure it stands for, written out slowly.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { gptq, hessian, outputError } from "../lib/agile-quant/gptq.ts";
import { fold, type Key, key, normal } from "../lib/core/rng.ts";

/** Inverse of a small symmetric matrix by Gauss-Jordan elimination. */
function invert(a: number[][]): number[][] {
  const n = a.length;
  const m = a.map((row, i) => [...row, ...row.map((_, j) => i === j ? 1 : 0)]);
  for (let i = 0; i < n; i++) {
    const pivot = m[i][i];
    m[i] = m[i].map((v) => v / pivot);
    for (let r = 0; r < n; r++) {
      if (r !== i) {
        const f = m[r][i];
        m[r] = m[r].map((v, c) => v - f * m[i][c]);
      }
    }
  }
  return m.map((row) => row.slice(n));
}

function roundEven(x: number): number {
  const r = Math.round(x);
  return Math.abs(x % 1) === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

/** Scale and zero point of a range that contains 0. */
function step(values: number[], qmax: number): [number, number] {
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values);
  if (low === high) return [1, 0];
  const scale = Math.fround((high - low) / qmax);
  return [scale, Math.min(qmax, roundEven(-low / scale))];
}

/**
 * Optimal Brain Quantization of one row in a fixed order: after each weight, the others take
 * -(w_q - what_q) / [H_F^-1]_qq (H_F^-1)_:q, with the inverse of the Hessian of those left, from scratch.
 */
function brainQuantization(
  row: number[],
  h: number[][],
  order: number[],
  qmax: number,
  group: number,
  fresh: boolean,
): number[] {
  const w = [...row];
  const codes: number[] = [];
  const steps = row.map((_, j) => {
    const first = j - j % group;
    return step(row.slice(first, first + group), qmax);
  });
  order.forEach((q, i) => {
    if (fresh && q % group === 0) {
      steps.fill(step(w.slice(q, q + group), qmax), q, q + group);
    }
    const [scale, zero] = steps[q];
    codes[q] = Math.min(qmax, Math.max(0, roundEven(w[q] / scale) + zero));
    const left = order.slice(i);
    const inverse = invert(left.map((a) => left.map((b) => h[a][b])));
    const e = (w[q] - Math.fround(scale * (codes[q] - zero))) / inverse[0][0];
    left.forEach((j, at) => w[j] -= e * inverse[at][0]);
  });
  return codes;
}

/** Inputs of a few strong directions, as a network's are. */
function inputs(k: Key, tokens: number, n: number): Float32Array {
  const base = normal(fold(k, "base"), tokens * 3);
  const mix = normal(fold(k, "mix"), 3 * n);
  const noise = normal(fold(k, "noise"), tokens * n, 0, 0.2);
  return noise.map((e, at) => {
    const [t, i] = [Math.floor(at / n), at % n];
    return e + base[3 * t] * mix[i] + base[3 * t + 1] * mix[n + i] +
      base[3 * t + 2] * mix[2 * n + i];
  });
}

test("the Hessian by hand: 2 X^T X", () => {
  assert.equal([...hessian(Float32Array.of(1, 2, 3, -1), 2)], [20, -2, -2, 10]);
});

test("by hand: two inputs that are always equal share the error", () => {
  // Only w1 + w2 = 0.8 counts: 0 and 0 by rounding each, 0 and 1 if the second makes up for the first.
  const h = hessian(Float32Array.of(1, 0, 0, 0, 1, 1), 3);
  const w = Float32Array.of(3, 0.4, 0.4);
  const options = { bits: 2, dampening: 1e-6, order: "given" } as const;
  assert.equal([...gptq(w, h, options).codes], [3, 0, 1]);
  // Inputs that never meet share nothing.
  const apart = Float64Array.of(2, 0, 0, 0, 2, 0, 0, 0, 2);
  assert.equal([...gptq(w, apart, options).codes], [3, 0, 0]);
});

test("codes equal those of Optimal Brain Quantization step by step, on random small layers", () => {
  for (let round = 0; round < 120; round++) {
    const k = fold(key(1), round);
    const n = [4, 6, 8, 12][round % 4];
    const rows = 3;
    const group = [n, n / 2][(round >> 2) % 2];
    const order = (round >> 3) % 2 === 0 ? "given" : "activation";
    const bits = [2, 3, 4][round % 3];
    const weight = normal(fold(k, "w"), rows * n);
    const flat = hessian(inputs(k, 20, n), n);
    const result = gptq(weight, flat, { bits, groupSize: group, order });
    const h = Array.from(
      { length: n },
      (_, i) => [...flat.subarray(i * n, i * n + n)],
    );
    const damp = 0.01 * h.reduce((sum, row, i) => sum + row[i], 0) / n;
    h.forEach((row, i) => row[i] += damp);
    const columns = h.map((_, i) => i);
    if (order === "activation") columns.sort((a, b) => h[b][b] - h[a][a]);
    for (let r = 0; r < rows; r++) {
      const expected = brainQuantization(
        [...weight.subarray(r * n, r * n + n)],
        h,
        columns,
        2 ** bits - 1,
        group,
        order === "given",
      );
      assert.equal(
        [...result.codes.subarray(r * n, r * n + n)],
        expected,
        `round ${round}, row ${r}`,
      );
    }
    result.dequantized.forEach((v, at) => {
      const own = Math.floor(at / n) * (n / group) +
        Math.floor(at % n / group);
      const code = result.codes[at] - result.zeroPoint[own];
      assert.is(v, Math.fround(result.scale[own] * code));
    });
  }
});

test("the output error is |W X - What X|^2, and far below that of plain rounding", () => {
  const [n, rows, tokens] = [32, 16, 200];
  const x = inputs(key(9), tokens, n);
  const weight = normal(key(10), rows * n);
  const h = hessian(x, n);
  const { dequantized, error } = gptq(weight, h, { bits: 3 });
  let direct = 0;
  for (let t = 0; t < tokens; t++) {
    for (let r = 0; r < rows; r++) {
      let d = 0;
      for (let i = 0; i < n; i++) {
        d += (weight[r * n + i] - dequantized[r * n + i]) * x[t * n + i];
      }
      direct += d * d;
    }
  }
  assert.ok(Math.abs(error - direct) < 1e-6 * direct, `${error} ${direct}`);
  // A Hessian without correlations makes GPTQ plain rounding.
  const plain = new Float64Array(n * n);
  for (let i = 0; i < n; i++) plain[i * n + i] = 1;
  const rounded = gptq(weight, plain, { bits: 3 }).dequantized;
  assert.ok(error < 0.25 * outputError(weight, rounded, h), `${error}`);
});

test("an input that is always 0 costs nothing, a row of zeros stays one", () => {
  const x = inputs(key(3), 30, 4).map((v, at) => at % 4 === 2 ? 0 : v);
  const weight = Float32Array.of(1, -1, 50, 0.5, 0, 0, 0, 0);
  const { dequantized, codes } = gptq(weight, hessian(x, 4));
  assert.is(dequantized[2], 0);
  assert.equal([...dequantized.subarray(4)], [0, 0, 0, 0]);
  assert.ok(Math.abs(dequantized[0] - 1) < 0.2, "50 does not set the scale");
  assert.ok(codes.every((code) => code <= 15));
});

test("what does not fit is refused, with name and value", () => {
  const h = hessian(inputs(key(4), 9, 4), 4);
  const w = new Float32Array(8).fill(1);
  const name = "layers.0.q_proj";
  assert.throws(() => gptq(w, h, { bits: 9, name }), /q_proj .* bits 9/);
  assert.throws(() => gptq(w, h, { groupSize: 3 }), /group size 3, inputs 4/);
  assert.throws(() => gptq(w.subarray(1), h), /16 and 7 numbers/);
  assert.throws(() => gptq(w, h, { dampening: -1 }), /-1/);
  w[5] = NaN;
  assert.throws(() => gptq(w, h, { name }), /q_proj .* NaN at 5/);
  w[5] = 0;
  assert.throws(() => hessian(new Float32Array(0), 4), /0 numbers/);
  const broken = h.map((v, at) => at === 0 ? -v : v);
  assert.throws(
    () => gptq(w, broken, { name, dampening: 0 }),
    /q_proj .* positive definite/,
  );
});

test.run();
