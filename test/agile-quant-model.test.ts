/** The whole method on a small LLaMA: weights, equivalent transforms, pruned tokens, evaluation, bad input. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  addOutliers,
  bitsPerWeight,
  calibratePlan,
  divideTokens,
  groupOf,
  linearNames,
  moveFactors,
  plan,
  positionLosses,
  pruneRatioPerLayer,
  pruneSchedule,
  quantizedPass,
  quantizeWeights,
  siteRanges,
  smooth,
  tokenCounts,
  tokenScores,
  tokenSparsity,
  windowLosses,
} from "../lib/agile-quant/mod.ts";
import { createEngine } from "../lib/core/engine.ts";
import {
  forward,
  initLlama,
  type LlamaConfig,
  type LlamaParams,
  nestParams,
} from "../lib/core/llama.ts";
import { roundHalfEven } from "../lib/core/quantizer.ts";
import { fold, key, normal, randomInts } from "../lib/core/rng.ts";
import { flatten, ready, type Tensor, tf } from "../lib/core/tensor.ts";

await ready();

const config: LlamaConfig = {
  vocabSize: 13,
  hiddenSize: 16,
  intermediateSize: 24,
  numLayers: 3,
  numHeads: 4,
  numKvHeads: 2,
  maxPositions: 64,
};

/** Weights large enough that attention is not flat, gains that differ. */
function model(seed = 1): LlamaParams {
  const named = flatten(initLlama(config, key(seed)));
  return nestParams(Object.fromEntries(
    Object.entries(named).map(([name, t], i) => [
      name,
      t.rank === 1
        ? tf.tensor1d(
          normal(fold(key(seed), i), t.size).map((v) => 1 + 0.3 * v),
        ) as Tensor
        : t.mul(tf.scalar(12)),
    ]),
  ));
}

const idsOf = (seed: number, B: number, T: number) =>
  tf.tensor2d(randomInts(key(seed), B * T, 0, 13), [B, T], "int32");

const windowsOf = (seed: number, n: number, T: number) =>
  Array.from(
    { length: n },
    (_, w) => randomInts(fold(key(seed), w), T + 1, 0, 13),
  );

const logitsOf = (params: LlamaParams, ids: Tensor) =>
  forward(params, config, ids).dataSync() as Float32Array;

function largest(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < a.length; i++) {
    most = Math.max(most, Math.abs(a[i] - b[i]));
  }
  return most;
}

// Slow oracle -------------------------------------------------------------------------------------

/** Logits of the tokens that are left, written out in loops; tokens go by rule between attention and feed-forward. */
function slowLogits(
  params: LlamaParams,
  ids: number[],
  ratios: number[],
  renumbered: boolean,
): { logits: number[][]; kept: number[] } {
  const named = Object.fromEntries(
    Object.entries(flatten(params)).map(([name, t]) => [name, t.arraySync()]),
  ) as Record<string, number[][]>;
  const vector = (name: string) => named[name] as unknown as number[];
  const apply = (w: number[][], x: number[]) =>
    w.map((row) => row.reduce((sum, v, i) => sum + v * x[i], 0));
  const norm = (x: number[], gain: number[]) => {
    const ms = x.reduce((sum, v) => sum + v * v, 0) / x.length;
    return x.map((v, i) => v / Math.sqrt(ms + 1e-5) * gain[i]);
  };
  const { hiddenSize: D, numHeads: H, numKvHeads: G } = config;
  const Dh = D / H;
  const turn = (x: number[], position: number) => {
    const y = [...x];
    for (let h = 0; h < x.length / Dh; h++) {
      for (let i = 0; i < Dh / 2; i++) {
        const angle = position * 10000 ** (-2 * i / Dh);
        const [a, b] = [x[h * Dh + i], x[h * Dh + i + Dh / 2]];
        y[h * Dh + i] = a * Math.cos(angle) - b * Math.sin(angle);
        y[h * Dh + i + Dh / 2] = b * Math.cos(angle) + a * Math.sin(angle);
      }
    }
    return y;
  };
  let x = ids.map((id) => named["model.embed_tokens.weight"][id]);
  let kept = ids.map((_, t) => t);
  for (let l = 0; l < config.numLayers; l++) {
    const at = `model.layers.${l}`;
    const w = (name: string) => named[`${at}.${name}.weight`];
    const input = x.map((row) =>
      norm(row, vector(`${at}.input_layernorm.weight`))
    );
    const place = (t: number) => renumbered ? t : kept[t];
    const q = input.map((row, t) =>
      turn(apply(w("self_attn.q_proj"), row), place(t))
    );
    const k = input.map((row, t) =>
      turn(apply(w("self_attn.k_proj"), row), place(t))
    );
    const v = input.map((row) => apply(w("self_attn.v_proj"), row));
    const toFirst = x.map(() => 0);
    const mixed = x.map((_, t) => {
      const out = new Array<number>(D).fill(0);
      for (let h = 0; h < H; h++) {
        const g = Math.floor(h / (H / G));
        const scores = Array.from({ length: t + 1 }, (_, s) => {
          let sum = 0;
          for (let i = 0; i < Dh; i++) {
            sum += q[t][h * Dh + i] * k[s][g * Dh + i];
          }
          return Math.exp(sum / Math.sqrt(Dh));
        });
        const total = scores.reduce((a, b) => a + b, 0);
        toFirst[t] += scores[0] / total;
        scores.forEach((e, s) => {
          for (let i = 0; i < Dh; i++) {
            out[h * Dh + i] += e / total * v[s][g * Dh + i];
          }
        });
      }
      return apply(w("self_attn.o_proj"), out);
    });
    x = x.map((row, t) => row.map((value, i) => value + mixed[t][i]));
    const gone = [...toFirst.keys()]
      .sort((a, b) => toFirst[a] - toFirst[b])
      .slice(0, Math.floor(x.length * ratios[l]));
    x = x.filter((_, t) => !gone.includes(t));
    kept = kept.filter((_, t) => !gone.includes(t));
    x = x.map((row) => {
      const z = norm(row, vector(`${at}.post_attention_layernorm.weight`));
      const up = apply(w("mlp.up_proj"), z);
      const hidden = apply(w("mlp.gate_proj"), z)
        .map((g, i) => g / (1 + Math.exp(-g)) * up[i]);
      const out = apply(w("mlp.down_proj"), hidden);
      return row.map((value, i) => value + out[i]);
    });
  }
  const logits = x.map((row) =>
    apply(named["lm_head.weight"], norm(row, vector("model.norm.weight")))
  );
  return { logits, kept };
}

for (const positions of ["renumbered", "original"] as const) {
  test(`pruned logits and kept places equal those of plain loops, positions ${positions}`, () => {
    const params = model(2);
    const rows = [11, 12].map((seed) => [...randomInts(key(seed), 12, 0, 13)]);
    const pruneRatios = [0.25, 0, 0.34];
    const pass = quantizedPass(
      plan(config, { bits: 32, softmax: "float" }, { pruneRatios, positions }),
    );
    const logits = forward(
      params,
      config,
      tf.tensor2d(rows, [2, 12], "int32"),
      pass.options,
    ).arraySync() as number[][][];
    assert.equal(pass.counts(), [9, 9, 6]);
    rows.forEach((ids, b) => {
      const slow = slowLogits(
        params,
        ids,
        pruneRatios,
        positions === "renumbered",
      );
      assert.equal(pass.kept()[b], slow.kept);
      slow.logits.forEach((row, t) => {
        // Float32 sums of some tens of terms of size 10 against doubles.
        assert.ok(largest(row, logits[b][t]) < 2e-3, `row ${b}, token ${t}`);
      });
      // The other rule of positions is told apart, wherever a token before the last left one is gone.
      const other = slowLogits(
        params,
        ids,
        pruneRatios,
        positions !== "renumbered",
      );
      assert.ok(
        largest(other.logits.flat(), logits[b].flat()) > 2e-2 ||
          `${slow.kept}` === "0,1,2,3,4,5",
        "positions matter",
      );
    });
  });
}

// Tokens ------------------------------------------------------------------------------------------

test("schedule by hand: Eq. 9, Eq. 10, whole tokens", () => {
  assert.ok(Math.abs(pruneRatioPerLayer(0.75, 2) - 0.5) < 1e-12);
  assert.equal(pruneSchedule(4, { layers: [1, 3], finalRatio: 0.75 }), [
    0,
    0.5,
    0,
    0.5,
  ]);
  assert.equal(tokenCounts(9, [0, 0.5, 0, 0.5]), [9, 5, 5, 3]);
  // (0 + 4 + 4 + 6) / (4 * 9)
  assert.ok(Math.abs(tokenSparsity(9, [0, 0.5, 0, 0.5]) - 14 / 36) < 1e-12);
  assert.equal(tokenCounts(1, [0.9, 0.9]), [1, 1]);
  assert.throws(() => pruneSchedule(4, { layers: [4], finalRatio: 0.5 }), /4/);
  assert.throws(() => pruneRatioPerLayer(1, 2), /1/);
  assert.throws(() => pruneRatioPerLayer(0.5, 0), /0/);
});

test("scores and divisions by hand; ties take the later token", () => {
  // One head, three tokens.
  const attn = Float32Array.of(1, 0, 0, 0.25, 0.75, 0, 0.5, 0.125, 0.375);
  assert.equal([...tokenScores(attn, 3, "first-token", key(0))], [
    1,
    0.25,
    0.5,
  ]);
  assert.equal([...tokenScores(attn, 3, "received", key(0))], [
    1.75 / 3,
    0.875 / 2,
    0.375,
  ]);
  const scores = Float64Array.of(1, 0.25, 0.5, 0.25);
  assert.equal(divideTokens(scores, { remove: 0.25, low: 0.25 }), {
    kept: [0, 1, 2],
    low: [1],
  });
  assert.equal(
    divideTokens(scores, { remove: 0.5, low: 0, inherited: [1, 2] }),
    { kept: [0, 2], low: [2] },
  );
  assert.throws(() => divideTokens(scores, { remove: 0.5, low: 0.6 }), /0\.6/);
});

test("one token is never pruned, and share 0 is the dense model", () => {
  const params = model();
  const ids = idsOf(3, 2, 10);
  const dense = logitsOf(params, ids);
  const none = quantizedPass(plan(config, { bits: 32, softmax: "float" }));
  const same = forward(params, config, ids, none.options).dataSync();
  assert.ok(largest(dense, same) < 1e-3); // another order of float32 sums
  const pass = quantizedPass(
    plan(config, { bits: 32 }, { pruneRatios: [0.9, 0.9, 0.9] }),
  );
  forward(params, config, idsOf(4, 1, 1), pass.options);
  assert.equal(pass.kept(), [[0]]);
});

test("losses stand at the positions they belong to, for both models", () => {
  const params = model();
  const windows = windowsOf(5, 3, 12);
  const pruneRatios = [0, 0.25, 0.25];
  const own = positionLosses(params, config, windows, {
    plan: plan(config, { bits: 32, softmax: "float" }, { pruneRatios }),
    batch: 2,
  });
  const float = positionLosses(params, config, windows);
  assert.equal(own.counts, [12, 9, 7]);
  windows.forEach((window, w) => {
    const slow = slowLogits(
      params,
      [...window.slice(0, 12)],
      pruneRatios,
      true,
    );
    own.losses[w].forEach((loss, t) => {
      const i = slow.kept.indexOf(t);
      if (i < 0) return assert.ok(Number.isNaN(loss), `${w}, ${t}`);
      const row = slow.logits[i];
      const top = Math.max(...row);
      const total = row.reduce((sum, v) => sum + Math.exp(v - top), 0);
      const expected = top + Math.log(total) - row[window[t + 1]];
      assert.ok(Math.abs(loss - expected) < 2e-3, `${w}, ${t}`);
    });
    const kept = slow.kept.reduce((sum, t) => sum + float.losses[w][t], 0) /
      slow.kept.length;
    assert.ok(Math.abs(windowLosses(float, own)[w] - kept) < 1e-9);
    const all = float.losses[w].reduce((a, b) => a + b, 0) / 12;
    assert.ok(Math.abs(windowLosses(float)[w] - all) < 1e-9);
    assert.ok(Math.abs(all - kept) > 1e-6, "the sets differ");
  });
});

// Weights -----------------------------------------------------------------------------------------

test("RTN equals the formula group by group", () => {
  const params = model();
  const made = quantizeWeights(params, config, {
    method: "rtn",
    bits: 3,
    groupSize: 8,
  });
  const before = flatten(params);
  const after = flatten(made.params);
  for (const name of linearNames(config.numLayers)) {
    const w = before[`${name}.weight`].dataSync();
    const got = after[`${name}.weight`].dataSync();
    for (let g = 0; g < w.length; g += 8) {
      const group = [...w.slice(g, g + 8)];
      const [low, high] = [Math.min(0, ...group), Math.max(0, ...group)];
      const scale = (high - low) / 7;
      const zero = roundHalfEven(-low / scale);
      group.forEach((v, i) => {
        const code = Math.min(7, Math.max(0, roundHalfEven(v / scale) + zero));
        const expected = scale * (code - zero);
        assert.ok(
          Math.abs(got[g + i] - expected) < 1e-5 ||
            // The division falls on a half in one precision only.
            Math.abs(Math.abs(v / scale % 1) - 0.5) < 1e-4,
          `${name} ${g + i}`,
        );
      });
    }
  }
  assert.is(
    after["model.embed_tokens.weight"],
    before["model.embed_tokens.weight"],
  );
  assert.is(made.bitsPerWeight, 3 + 19 / 8);
  assert.is(bitsPerWeight(4, 128), 4.15625);
  assert.is(groupOf(608), 76);
});

test("GPTQ layer by layer: smaller output error than RTN on the calibration text, at every bit width", () => {
  const params = model();
  const batches = [idsOf(8, 8, 24), idsOf(9, 8, 24)];
  const error = (quantized: LlamaParams) => {
    let sum = 0;
    for (const ids of batches) {
      const [a, b] = [logitsOf(params, ids), logitsOf(quantized, ids)];
      a.forEach((v, i) => sum += (v - b[i]) ** 2);
    }
    return sum;
  };
  for (const bits of [2, 3, 4]) {
    const [rtn, gptq] = (["rtn", "gptq"] as const).map((method) =>
      quantizeWeights(
        params,
        config,
        { method, bits, groupSize: "row" },
        batches,
      )
    );
    const names = Object.keys(gptq.errors);
    assert.equal(names.sort(), linearNames(config.numLayers).sort());
    // Later layers see inputs of layers that are quantised too; the first sees the same in both.
    assert.ok(error(gptq.params) < error(rtn.params), `${bits} bits`);
  }
});

test("16 and 32 bits change nothing; a row of zeros stays one", () => {
  const params = model();
  for (const bits of [16, 32]) {
    const { params: same } = quantizeWeights(params, config, { bits });
    assert.is(
      largest(logitsOf(params, idsOf(1, 1, 9)), logitsOf(same, idsOf(1, 1, 9))),
      0,
    );
  }
  const named = { ...flatten(params) };
  const name = "model.layers.1.mlp.up_proj.weight";
  const mask = tf.tensor2d(
    Array.from({ length: 24 }, (_, i) => i === 5 ? 0 : 1),
    [24, 1],
  );
  named[name] = named[name].mul(mask);
  for (const method of ["rtn", "gptq"] as const) {
    const made = quantizeWeights(nestParams(named), config, { method }, [
      idsOf(8, 4, 16),
    ]);
    const row = flatten(made.params)[name].slice([5, 0], [1, 16]).dataSync();
    assert.ok(row.every((v) => v === 0), method);
  }
});

test("GPTQ's codes are its weights, and what the integer engine computes with", () => {
  const params = model();
  const batches = [idsOf(8, 8, 16)];
  const setups = [
    { groupSize: "row", format: undefined },
    { groupSize: 8, format: "nibble-groups" },
  ] as const;
  for (const { groupSize, format } of setups) {
    const made = quantizeWeights(params, config, { groupSize }, batches);
    for (
      const [module, { codes, scale, zeroPoint }] of Object.entries(made.codes)
    ) {
      const weight = flatten(made.params)[`${module}.weight`].dataSync();
      const group = weight.length / scale.length;
      weight.forEach((v, at) => {
        const own = Math.floor(at / group);
        const exact = scale[own] * (codes[at] - zeroPoint![own]);
        assert.is(v, Math.fround(exact), `${module} ${at}`);
      });
    }
    const ids = [...randomInts(key(21), 24, 0, 13)];
    const float = logitsOf(made.params, tf.tensor2d([ids], [1, 24], "int32"));
    const size = Math.hypot(...float);
    const errorWith = (codes: typeof made.codes) => {
      const logits = createEngine(params, config, {
        weights: { bits: 4, quantize: (_, module) => codes[module] },
        activations: { bits: 8 },
        format,
      }).prefill(ids, { positions: "all" });
      return Math.hypot(...logits.map((v, i) => v - float[i])) / size;
    };
    // Inputs in 8 bits, a scale per token: rounding errors of some tenths of a per cent, through three blocks.
    const error = errorWith(made.codes);
    assert.ok(error < 0.03, `${groupSize}: ${error}`);
    const name = "model.layers.0.mlp.down_proj";
    const wrong = {
      ...made.codes[name],
      codes: made.codes[name].codes.map((c) => 15 - c),
    };
    assert.ok(errorWith({ ...made.codes, [name]: wrong }) > 5 * error, name);
  }
});

// Equivalent transforms -----------------------------------------------------------------------------

test("SmoothQuant leaves the float model's output as it is, and evens out ranges", () => {
  const params = model();
  const ids = idsOf(6, 4, 16);
  const ranges = siteRanges(params, plan(config), [ids]);
  const logits = logitsOf(params, ids);
  const size = largest(logits, new Float32Array(logits.length));
  for (const alpha of [0, 0.5, 1]) {
    const smoothed = smooth(params, config, ranges, { alpha });
    // Some ten float32 roundings of relative size 6e-8 more on the way.
    assert.ok(
      largest(logits, logitsOf(smoothed, ids)) < 1e-4 * size,
      `${alpha}`,
    );
  }
  // alpha 1: every channel of the activation reaches 1.
  const even = siteRanges(
    smooth(params, config, ranges, { alpha: 1 }),
    plan(config),
    [ids],
  )["model.layers.0.norm"];
  even.high.forEach((h, c) =>
    assert.ok(Math.abs(Math.max(h, -even.low[c]) - 1) < 1e-4, `channel ${c}`)
  );
  assert.throws(() => smooth(params, config, ranges, { alpha: 2 }), /alpha 2/);
  const site = Object.keys(ranges)[0];
  const without = { ...ranges };
  delete without[site];
  assert.throws(
    () => smooth(params, config, without),
    new RegExp(`${site} .* each of 16 channels: none`),
  );
});

test("the outlier transform is exact in float, bit for bit; plain int8 breaks on it, TRIP does not", () => {
  const params = model();
  const ids = idsOf(7, 4, 16);
  const outliers = addOutliers(params, config, {
    exponent: 6,
    channels: 2,
    key: key(3),
  });
  const logits = logitsOf(params, ids);
  assert.is(largest(logits, logitsOf(outliers, ids)), 0);
  const at = "model.layers.0.norm";
  const [before, after] = [params, outliers].map((p) =>
    siteRanges(p, plan(config), [ids])[at]
  );
  const grown = [...after.high].filter((h, c) =>
    Math.abs(h - 64 * before.high[c]) < 1e-3 * h && h > before.high[c]
  );
  assert.is(grown.length, 2);
  const error = (p: LlamaParams, scheme: "layer" | "trip") => {
    const fixed = calibratePlan(p, plan(config, { scheme, softmax: "float" }), [
      ids,
    ]);
    const got = forward(p, config, ids, quantizedPass(fixed).options)
      .dataSync();
    return Math.sqrt(logits.reduce((sum, v, i) => sum + (v - got[i]) ** 2, 0));
  };
  const natural = error(params, "layer");
  assert.ok(error(outliers, "layer") > 5 * natural, "plain int8 breaks");
  assert.ok(error(outliers, "trip") < 2 * natural, "TRIP does not");
  // Broken on purpose: gains without the weights behind them are another function.
  const broken = moveFactors(
    params,
    config,
    ({ norm }, named) =>
      new Float32Array(named[norm].size).fill(
        norm.includes("layers.1") ? 0.5 : 1,
      ),
  );
  const name = "model.layers.1.self_attn.q_proj.weight";
  const half = nestParams({
    ...flatten(broken),
    [name]: flatten(params)[name],
  });
  assert.ok(largest(logits, logitsOf(half, ids)) > 0.01, name);
  assert.throws(
    () => addOutliers(params, config, { exponent: 0.5, key: key(0) }),
    /0\.5/,
  );
});

// Bad input ---------------------------------------------------------------------------------------

test("what does not fit is refused with tensor and value", () => {
  const params = model();
  for (const bits of [0, 1, 9, 15, 4.5, NaN, -4]) {
    assert.throws(
      () => quantizeWeights(params, config, { bits }),
      (e: Error) => e instanceof RangeError && e.message.includes(`${bits}`),
    );
    assert.throws(
      () => plan(config, { bits }),
      (e: Error) => e instanceof RangeError && e.message.includes(`${bits}`),
    );
  }
  assert.throws(
    () => quantizeWeights(params, config, { method: "rtn", groupSize: 7 }),
    /model\.layers\.0\.self_attn\.q_proj .*group size 7, inputs 16/,
  );
  assert.throws(() => quantizeWeights(params, config, {}), /0 batches/);
  for (
    const [options, message] of [
      [{ method: "gtpq" }, /method must be one of rtn, gptq: gtpq/],
      [{ order: "x" }, /order must be one of given, activation: x/],
      [{ symmetricCodes: true }, /symmetricCodes are those of method "rtn"/],
    ] as const
  ) {
    assert.throws(
      () => quantizeWeights(params, config, options as never),
      message,
    );
  }
  // A checkpoint of another shape than its configuration says.
  assert.throws(
    () => quantizeWeights(params, { ...config, numLayers: 9 }, {}),
    /Cannot quantise as model\.layers\.\d\.\S+ must be \[[\d,]+\]: missing/,
  );
  assert.throws(() => calibratePlan(params, plan(config), []), /0 batches/);
  // A plan without steps would be the float model.
  const predict = (own: ReturnType<typeof plan>) => () =>
    positionLosses(params, config, windowsOf(1, 1, 8), { plan: own });
  assert.throws(
    predict(plan(config)),
    /model\.layers\.0\.norm to 8 bits .* none; call calibratePlan/,
  );
  const { steps } = calibratePlan(params, plan(config), [idsOf(1, 2, 8)]);
  predict({ ...plan(config), steps })();
  const name = "model.layers.2.product";
  const { [name]: _, ...rest } = steps;
  assert.throws(
    predict({ ...plan(config), steps: rest }),
    /model\.layers\.2\.product to 8 bits/,
  );
  for (const maxFactor of [NaN, -1, 1.5, 21]) {
    assert.throws(
      () => plan(config, { maxFactor }),
      new RegExp(`0 to 20: ${maxFactor}`),
    );
  }
  assert.throws(
    () => plan(config, { scheme: "tensor" as "layer" }),
    /one of layer, .*: tensor/,
  );
  for (const value of [NaN, Infinity, -Infinity]) {
    const named = { ...flatten(params) };
    const name = "model.layers.2.mlp.down_proj.weight";
    const values = named[name].dataSync().slice() as Float32Array;
    values[30] = value;
    named[name] = tf.tensor(values, named[name].shape);
    for (const method of ["rtn", "gptq"] as const) {
      assert.throws(
        () =>
          quantizeWeights(nestParams(named), config, { method }, [
            idsOf(1, 1, 4),
          ]),
        new RegExp(
          `model\\.layers\\.2\\.mlp\\.down_proj\\.weight .*${value} at 30`,
        ),
      );
    }
  }
  assert.throws(
    () => plan(config, {}, { pruneRatios: [0.5] }),
    /3 layers: 0\.5/,
  );
  assert.throws(() => plan(config, {}, { lowRatios: [0, 0, 2] }), /0,0,2/);
  assert.throws(() => positionLosses(params, config, []), /0 windows/);
  assert.throws(
    () => positionLosses(params, config, [[1, 2, 3], [1, 2]]),
    /2 windows/,
  );
});

test.run();
