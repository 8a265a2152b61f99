/** The vision transformer against slow code, differences and published counts. */
import * as assert from "uvu/assert";
import { test } from "uvu";
import type { Images } from "../lib/core/images.ts";
import { crossEntropy } from "../lib/core/nn.ts";
import { key, normal, randomInts } from "../lib/core/rng.ts";
import {
  flatten,
  ready,
  type Scalar,
  tf,
  valueAndGrads,
} from "../lib/core/tensor.ts";
import {
  countVitMacs,
  countVitParams,
  deit,
  initVit,
  patches,
  pixelScale,
  resolveVit,
  type VitConfig,
  vitForward,
  type VitParams,
} from "../lib/core/vit.ts";

await ready();

const small: VitConfig = {
  imageSize: 6,
  patchSize: 3,
  channels: 2,
  numClasses: 4,
  hiddenSize: 6,
  numLayers: 2,
  numHeads: [2, 1],
  headDim: 3,
  mlpRatio: [2, 1],
  layerScale: 0.5,
};

function someImages(
  count: number,
  { imageSize: S, channels: C = 3 }: VitConfig,
): Images {
  const images = Uint8Array.from(randomInts(key(5), count * S * S * C, 0, 256));
  return {
    count,
    height: S,
    width: S,
    channels: C,
    images,
    labels: Uint8Array.from({ length: count }, (_, i) => i % 4),
  };
}

/** Parameters that are all different from 0 and 1, so that none can be forgotten unnoticed. */
function disturbed(config: VitConfig): VitParams {
  const params = initVit(config, key(1));
  for (const [name, x] of Object.entries(flatten(params))) {
    const noise = normal(key(name.length * 31 + x.size), x.size, 0, 0.4);
    (x as tf.Variable).assign(tf.tidy(() => x.add(tf.tensor(noise, x.shape))));
  }
  return params;
}

/** The model in loops over numbers, with nothing of the library in it. */
function slowForward(
  params: VitParams,
  all: Images,
  scale: ReturnType<typeof pixelScale>,
): number[][] {
  const w = Object.fromEntries(
    Object.entries(flatten(params)).map(([name, x]) => [name, x.arraySync()]),
    // deno-lint-ignore no-explicit-any
  ) as Record<string, any>;
  const linear = (x: number[], name: string) =>
    (w[`${name}.weight`] as number[][]).map((row, o) =>
      row.reduce((sum, weight, i) => sum + weight * x[i], w[`${name}.bias`][o])
    );
  const norm = (x: number[], name: string) => {
    const mean = x.reduce((a, b) => a + b) / x.length;
    const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length;
    return x.map((v, i) =>
      (v - mean) / Math.sqrt(variance + 1e-6) * w[`${name}.weight`][i] +
      w[`${name}.bias`][i]
    );
  };
  // erf by its series, which converges everywhere
  const erf = (x: number) => {
    let term = x, sum = x;
    for (let n = 1; n < 80; n++) {
      term *= -x * x / n;
      sum += term / (2 * n + 1);
    }
    return 2 / Math.sqrt(Math.PI) * sum;
  };
  const { height: S, channels: C } = all;
  const P = 3, side = S / P;
  return Array.from({ length: all.count }, (_, b) => {
    const pixel = (y: number, x: number, c: number) =>
      (all.images[((b * S + y) * S + x) * C + c] / 255 - scale.mean[c]) /
      scale.std[c];
    let z = [w["cls_token"][0][0] as number[]];
    for (let n = 0; n < side * side; n++) {
      const flat: number[] = [];
      for (let y = 0; y < P; y++) {
        for (let x = 0; x < P; x++) {
          for (let c = 0; c < C; c++) {
            flat.push(pixel(Math.floor(n / side) * P + y, n % side * P + x, c));
          }
        }
      }
      z.push(linear(flat, "patch_embed.proj"));
    }
    z = z.map((token, t) => token.map((v, i) => v + w["pos_embed"][0][t][i]));
    for (let i = 0; i < 2; i++) {
      const name = `blocks.${i}`;
      const n = z.map((token) => norm(token, `${name}.norm1`));
      const [q, k, v] = ["q", "k", "v"].map((m) =>
        n.map((token) => linear(token, `${name}.attn.${m}`))
      );
      const mixed = q.map((query) => {
        const out: number[] = [];
        for (let h = 0; h < query.length; h += 3) {
          const scores = k.map((other) =>
            [0, 1, 2].reduce((sum, d) => sum + query[h + d] * other[h + d], 0) /
            Math.sqrt(3)
          );
          const weights = scores.map(Math.exp);
          const total = weights.reduce((a, c) => a + c);
          for (let d = 0; d < 3; d++) {
            out.push(
              v.reduce(
                (sum, value, s) => sum + weights[s] / total * value[h + d],
                0,
              ),
            );
          }
        }
        return linear(out, `${name}.attn.proj`);
      });
      z = z.map((token, t) =>
        token.map((x, d) => x + w[`${name}.ls1.gamma`][d] * mixed[t][d])
      );
      z = z.map((token) => {
        const hidden = linear(norm(token, `${name}.norm2`), `${name}.mlp.fc1`)
          .map((x) => x * (1 + erf(x / Math.SQRT2)) / 2);
        const out = linear(hidden, `${name}.mlp.fc2`);
        return token.map((x, d) => x + w[`${name}.ls2.gamma`][d] * out[d]);
      });
    }
    return linear(norm(z[0], "norm"), "head");
  });
}

const tensorOf = ({ data, shape }: ReturnType<typeof patches>) =>
  tf.tensor3d(data, shape);

test("parameters and operations of DeiT-T, -S and -B", () => {
  // Parameters as the timm library counts them; operations by hand from the sizes.
  assert.is(countVitParams(deit("tiny")), 5_717_416);
  assert.is(countVitParams(deit("small")), 22_050_664);
  assert.is(countVitParams(deit("base")), 86_567_656);
  const giga = (size: "tiny" | "small" | "base") =>
    countVitMacs(deit(size)).total / 1e9;
  assert.is(giga("tiny").toFixed(4), "1.2537");
  assert.is(giga("small").toFixed(4), "4.5989");
  assert.is(giga("base").toFixed(4), "17.5638");
});

test("operations of EViT's DeiT-S as its authors publish them", () => {
  // https://github.com/youweiliang/evit, README: keep rates 0.9 to 0.5 with a fused token, in G
  const published = { 0.9: 4.0, 0.8: 3.5, 0.7: 3.0, 0.6: 2.6, 0.5: 2.3 };
  for (const [rate, macs] of Object.entries(published)) {
    const counts = { attention: [] as number[], mlp: [] as number[] };
    let T = 197;
    for (let i = 0; i < 12; i++) {
      counts.attention.push(T);
      if ([3, 6, 9].includes(i)) T = Math.ceil(Number(rate) * (T - 1)) + 2;
      counts.mlp.push(T);
    }
    const found = countVitMacs(deit("small"), counts).total / 1e9;
    assert.is(found.toFixed(1), macs.toFixed(1), `keep rate ${rate}: ${found}`);
  }
});

test("initial matrices have the deviation that is asked for, biases and norms none", () => {
  for (const initStd of [undefined, 0.1]) {
    const wide = { ...small, hiddenSize: 64, headDim: 32, initStd };
    const { patch_embed, blocks, norm } = initVit(wide, key(4));
    const values = [...blocks[0].mlp.fc1.weight.dataSync()];
    const std = Math.sqrt(
      values.reduce((sum, x) => sum + x * x, 0) / values.length,
    );
    const wanted = initStd ?? 0.02; // DeiT's
    // Of n normal values the deviation's own is sigma / sqrt(2 n): four of them.
    assert.ok(
      Math.abs(std - wanted) < 4 * wanted / Math.sqrt(2 * values.length),
      `${std}`,
    );
    assert.ok(patch_embed.proj.bias.dataSync().every((x) => x === 0));
    assert.ok(norm.weight.dataSync().every((x) => x === 1));
  }
});

test("forward equals slow code, with heads and widths of their own in each block", () => {
  const images = someImages(3, small);
  const scale = pixelScale(images);
  const params = disturbed(small);
  const slow = slowForward(params, images, scale);
  const fast = tf.tidy(() =>
    vitForward(params, tensorOf(patches(images, 3, scale)), resolveVit(small))
      .arraySync()
  ) as number[][];
  slow.forEach((row, b) =>
    row.forEach((x, k) =>
      assert.ok(
        Math.abs(x - fast[b][k]) < 2e-5 * (1 + Math.abs(x)),
        `${b} ${k}: ${x}, ${fast[b][k]}`,
      )
    )
  );
});

test("gradients of all parameters by central differences", () => {
  const images = someImages(4, small);
  const params = disturbed(small);
  const x = tensorOf(patches(images, 3, pixelScale(images)));
  const labels = tf.tensor1d(Array.from(images.labels), "int32");
  const loss = () =>
    crossEntropy(vitForward(params, x, resolveVit(small)), labels) as Scalar;
  const { grads } = valueAndGrads(loss, params);
  const at = () => tf.tidy(() => loss().dataSync()[0]);
  for (const [name, variable] of Object.entries(flatten(params))) {
    // Along one random direction for each tensor: float32 allows about three digits.
    const direction = normal(key(variable.size), variable.size);
    const step = 1e-2 / Math.sqrt(variable.size);
    const start = variable.dataSync().slice() as Float32Array;
    const moved = (by: number) => {
      (variable as tf.Variable).assign(
        tf.tensor(start.map((v, i) => v + by * direction[i]), variable.shape),
      );
      return at();
    };
    const slope = (moved(step) - moved(-step)) / (2 * step);
    moved(0);
    const exact = Array.from(grads[name].dataSync()).reduce(
      (sum, g, i) => sum + g * direction[i],
      0,
    );
    assert.ok(
      Math.abs(slope - exact) < 4e-3 + 0.02 * Math.abs(exact),
      `${name}: ${exact} by backpropagation, ${slope} by differences`,
    );
  }
});

test("tokens that leave between the halves of a block change nothing but what they took part in", () => {
  const images = someImages(2, small);
  const params = disturbed(small);
  const x = tensorOf(patches(images, 3, pixelScale(images)));
  const config = resolveVit(small);
  const seen: number[] = [];
  const without = (name: string) =>
    vitForward(params, x, config, {
      onActivation: (at, z) => {
        if (/output$/.test(at)) seen.push(z.shape[1]!);
        return at === name ? z.slice([0, 0, 0], [-1, 3, -1]) : undefined;
      },
    }).dataSync();
  const whole = vitForward(params, x, config).dataSync();
  // After the attention of the last block only the class token counts.
  assert.equal([...without("blocks.1.residual")], [...whole]);
  assert.equal(seen, [5, 3]);
  assert.not.equal([...without("blocks.0.residual")], [...whole]);
});

test("quantizer and attention are arguments, asked by name", () => {
  const images = someImages(2, small);
  const params = disturbed(small);
  const x = tensorOf(patches(images, 3, pixelScale(images)));
  const asked: string[] = [];
  const zeroed = vitForward(params, x, resolveVit(small), {
    quantizer: (module) => {
      asked.push(module);
      return module === "head" ? { weight: (w) => w.mul(0) } : undefined;
    },
    attend: (_q, _k, v) => v,
  }).arraySync() as number[][];
  const bias = params.head.bias.arraySync();
  assert.equal(zeroed, [bias, bias]);
  assert.is(new Set(asked).size, 2 + 2 * 6);
});

test("pixels are standardised and patches read row by row", () => {
  const images: Images = {
    count: 1,
    height: 2,
    width: 4,
    channels: 1,
    images: Uint8Array.from([0, 51, 102, 153, 204, 255, 0, 51]),
    labels: Uint8Array.from([0]),
  };
  const { data, shape } = patches(images, 2, { mean: [0], std: [0.2] });
  assert.equal(shape, [1, 2, 4]);
  assert.equal([...data].map((x) => Math.round(x)), [0, 1, 4, 5, 2, 3, 0, 1]);
  const { mean, std } = pixelScale(images);
  assert.ok(Math.abs(mean[0] - 0.4) < 1e-12);
  assert.ok(Math.abs(std[0] - Math.sqrt(0.12)) < 1e-12);
});

test("what cannot be built or run is refused with what was given", () => {
  const refused = (change: Partial<VitConfig>, what: RegExp) =>
    assert.throws(() => resolveVit({ ...small, ...change }), what);
  refused({ patchSize: 4 }, /multiple of patchSize: 6 and 4/);
  refused(
    { headDim: undefined, numHeads: 4 },
    /heads must divide hiddenSize.*numHeads 4/,
  );
  refused({ numHeads: [2] }, /one for each of the 2 blocks: 1 given/);
  refused({ mlpRatio: 0.3 }, /positive integer: 1\.7/);
  const { mlpSizes } = resolveVit({
    ...small,
    hiddenSize: 26,
    mlpRatio: 60 / 26,
  });
  assert.equal(mlpSizes, [60, 60]);
  refused({ numClasses: 0 }, /numClasses must be a positive integer: 0/);
  refused({ layerScale: NaN }, /layerScale must be a finite number/);
  assert.throws(
    () => initVit({ ...small, initStd: 0 }, key(0)),
    /initStd must be a positive number: 0/,
  );
  const images = someImages(1, { ...small, imageSize: 9 });
  const wrong = tensorOf(patches(images, 3, pixelScale(images)));
  assert.throws(
    () => vitForward(initVit(small, key(0)), wrong, resolveVit(small)),
    /must be \[B, 4, 18\]: \[1,9,18\]/,
  );
  assert.throws(
    () => patches(images, 4, pixelScale(images)),
    /multiples of 4: 9 x 9/,
  );
  assert.throws(
    () => patches(images, 3, { mean: [0], std: [1] }),
    /of their 2 channels: 1/,
  );
});

test.run();
