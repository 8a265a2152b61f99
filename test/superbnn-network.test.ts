import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { bits, fold, key, normal, randomInts } from "../lib/core/rng.ts";
import {
  type BinaryNetwork,
  checkNetwork,
  encodeImages,
  idealForward,
  inputBits,
  loadNetwork,
  patchIndices,
  readNetwork,
  saveNetwork,
  streamGain,
  writeNetwork,
} from "../lib/superbnn/network.ts";

const signs = (k: ReturnType<typeof key>, n: number) =>
  Int8Array.from(bits(k, n), (w) => w >>> 31 === 1 ? 1 : -1);

/** conv 3x3 - pool 2 - dense - scores on a 6 x 4 map with 2 bits a place. */
function smallNetwork(seed = 1): BinaryNetwork {
  const k = key(seed);
  return {
    input: {
      height: 6,
      width: 4,
      channels: 1,
      levels: 2,
      thresholds: Float64Array.from(
        { length: 48 },
        (_, i) => i % 2 === 0 ? 80 : 160,
      ),
    },
    layers: [
      {
        kind: "conv",
        height: 6,
        width: 4,
        inChannels: 2,
        outChannels: 3,
        kernel: 3,
        stride: 1,
        pad: 1,
        weights: signs(fold(k, 0), 54),
        thresholds: Float64Array.from([0.5, -1.25, 3]),
      },
      { kind: "pool", height: 6, width: 4, channels: 3, size: 2 },
      {
        kind: "dense",
        inputs: 18,
        outputs: 5,
        weights: signs(fold(k, 1), 90),
        thresholds: Float64Array.from([0, -Infinity, Infinity, 2, -3.5]),
      },
      {
        kind: "scores",
        inputs: 5,
        outputs: 3,
        weights: signs(fold(k, 2), 15),
        scale: Float64Array.from([1, 0.5, -2]),
        offset: Float64Array.from([0, 0.25, 1]),
      },
    ],
    note: "small",
  };
}

test("hand case: two inputs, one neuron, two classes", () => {
  const network: BinaryNetwork = {
    input: {
      height: 1,
      width: 2,
      channels: 1,
      levels: 1,
      thresholds: Float64Array.from([10, 20]),
    },
    layers: [
      {
        kind: "dense",
        inputs: 2,
        outputs: 1,
        weights: Int8Array.from([1, -1]),
        thresholds: Float64Array.from([0]),
      },
      {
        kind: "scores",
        inputs: 1,
        outputs: 2,
        weights: Int8Array.from([1, -1]),
        scale: Float64Array.from([1, 3]),
        offset: Float64Array.from([0.5, 0]),
      },
    ],
    note: "",
  };
  // 10 does not exceed 10; 11 does.
  const images = Uint8Array.from([11, 20, 10, 20, 11, 21, 10, 21]);
  const a = encodeImages(network.input, images);
  assert.equal([...a], [1, -1, -1, -1, 1, 1, -1, 1]);
  const { sums, scores, labels } = idealForward(network, a, { trace: true });
  assert.equal([...sums![0]!], [2, 0, 0, -2], "0 does not exceed 0");
  assert.equal([...scores], [1.5, -3, -0.5, 3, -0.5, 3, -0.5, 3]);
  assert.equal([...labels], [0, 1, 1, 1]);
});

test("convolution and pooling agree with loops over the map", () => {
  const network = smallNetwork();
  const a = signs(key(3), 48);
  const { sums } = idealForward(network, a, { trace: true });
  const conv = network.layers[0];
  assert.ok(conv.kind === "conv");
  const at = (y: number, x: number, c: number) =>
    y < 0 || y >= 6 || x < 0 || x >= 4 ? -1 : a[(y * 4 + x) * 2 + c];
  const fired: number[] = [];
  for (let y = 0; y < 6; y++) {
    for (let x = 0; x < 4; x++) {
      for (let o = 0; o < 3; o++) {
        let V = 0;
        for (let dy = 0; dy < 3; dy++) {
          for (let dx = 0; dx < 3; dx++) {
            for (let c = 0; c < 2; c++) {
              V += at(y + dy - 1, x + dx - 1, c) *
                conv.weights[((o * 3 + dy) * 3 + dx) * 2 + c];
            }
          }
        }
        assert.is(sums![0]![(y * 4 + x) * 3 + o], V, `${y} ${x} ${o}`);
        fired.push(V > conv.thresholds[o] ? 1 : -1);
      }
    }
  }
  const dense = network.layers[2];
  assert.ok(dense.kind === "dense");
  const pooled: number[] = [];
  for (let y = 0; y < 3; y++) {
    for (let x = 0; x < 2; x++) {
      for (let o = 0; o < 3; o++) {
        const window = [0, 1].flatMap((dy) =>
          [0, 1].map((dx) => fired[((2 * y + dy) * 4 + 2 * x + dx) * 3 + o])
        );
        pooled.push(Math.max(...window));
      }
    }
  }
  assert.ok(pooled.includes(1) && pooled.includes(-1));
  for (let j = 0; j < 5; j++) {
    const V = pooled.reduce((s, v, i) => s + v * dense.weights[j * 18 + i], 0);
    assert.is(sums![2]![j], V);
  }
});

test("patches: corner, stride, no padding", () => {
  const indices = patchIndices({
    height: 3,
    width: 3,
    inChannels: 1,
    kernel: 3,
    stride: 2,
    pad: 1,
  });
  assert.equal([...indices.subarray(0, 9)], [-1, -1, -1, -1, 0, 1, -1, 3, 4]);
  assert.equal([...indices.subarray(27)], [4, 5, -1, 7, 8, -1, -1, -1, -1]);
});

test("a stream's gain: half the gray zone where it is wide, of a hard sign where it is 0", () => {
  assert.ok(Math.abs(streamGain(1e6, 16) / 5e5 - 1) < 1e-9);
  // E|V| of a normal V with variance n is sqrt(2 n / pi): slope of sign, inverted.
  assert.ok(Math.abs(streamGain(0, 16) - Math.sqrt(Math.PI * 16 / 2)) < 1e-12);
  assert.throws(() => streamGain(-1, 16), /gray zone -1/);
});

test("files: what is read is what was written, infinities included", () => {
  const network = smallNetwork();
  const bytes = writeNetwork(network);
  assert.equal(readNetwork(bytes), network);
  const folder = mkdtempSync(join(tmpdir(), "network-"));
  try {
    const path = join(folder, "small.safetensors");
    saveNetwork(path, network);
    assert.equal(loadNetwork(path), network);
  } finally {
    rmSync(folder, { recursive: true });
  }
  const a = signs(key(8), 10 * inputBits(network));
  assert.equal(
    idealForward(readNetwork(bytes), a).scores,
    idealForward(network, a).scores,
  );
});

test("fuzz: a damaged file is refused or holds a network that runs", () => {
  const bytes = writeNetwork(smallNetwork());
  const a = signs(key(8), 48);
  let refused = 0;
  for (let n = 0; n < 3000; n++) {
    const [kind, place, value] = randomInts(fold(key(5), n), 3, 0, 1 << 20);
    const damaged = bytes.slice(
      0,
      kind % 5 === 0 ? place % bytes.length : undefined,
    );
    // Most of the damage goes to the header, where structure is.
    const at = kind % 2 === 0 ? place % bytes.length : place % 700;
    if (at < damaged.length) damaged[at] = value;
    try {
      const network = readNetwork(damaged);
      assert.is(
        idealForward(network, a.slice(0, inputBits(network))).labels.length,
        1,
      );
    } catch (error) {
      refused++;
      assert.ok(
        error instanceof SyntaxError || error instanceof RangeError ||
          error instanceof TypeError,
        `${(error as Error).stack}`,
      );
      assert.match((error as Error).message, /^Cannot /);
    }
  }
  assert.ok(refused > 1000, `${refused}`);
});

test("bad networks are refused with the layer and what it has", () => {
  const broken = (change: (n: BinaryNetwork) => void, pattern: RegExp) => {
    const network = smallNetwork();
    change(network);
    assert.throws(() => checkNetwork(network), pattern);
  };
  checkNetwork(smallNetwork());
  const layer = (n: BinaryNetwork, i: number) =>
    n.layers[i] as unknown as Record<string, unknown>;
  broken(
    (n) => (layer(n, 2).weights as Int8Array)[7] = 0,
    /layer 2 \(dense\) must be \+1 or -1: weight 7 is 0/,
  );
  broken(
    (n) => (layer(n, 0).thresholds as Float64Array)[1] = NaN,
    /thresholds of layer 0 \(conv\) must be a number/,
  );
  broken((n) => layer(n, 1).size = 4, /windows of layer 1 \(pool\) must tile/);
  broken(
    (n) => layer(n, 0).pad = 3,
    /less padding than filter: kernel 3, pad 3/,
  );
  broken((n) => n.layers.pop(), /last layer must be the scores/);
  broken(
    (n) => n.layers.splice(1, 1),
    /layer 1 \(dense\) must take the 72 bits/,
  );
  broken(
    (n) => layer(n, 3).scale = Float64Array.from([1, Infinity, 1]),
    /scale 1 is Infinity/,
  );
  broken(
    (n) => layer(n, 2).weights = new Int8Array(3),
    /must have 90 values: 3/,
  );
  broken(
    (n) => layer(n, 2).kind = "gru",
    /kind of layer 2 must be .*"gru"|kind of layer 2 \(gru\)/,
  );
  assert.throws(
    () => idealForward(smallNetwork(), new Int8Array(7)),
    /48 bits: 7/,
  );
  assert.throws(
    () => encodeImages(smallNetwork().input, new Uint8Array(5)),
    /6 x 4 x 1/,
  );
});

test("thresholds between the same integers are one network", () => {
  const network = smallNetwork();
  const a = signs(key(9), 20 * 48);
  const before = idealForward(network, a).scores;
  const conv = network.layers[0];
  assert.ok(conv.kind === "conv");
  // 18 inputs: sums are even, so 0.5 and 1.9 decide alike, and 2.1 does not.
  const noise = normal(key(1), 1)[0];
  conv.thresholds[0] = 1 + Math.abs(noise) / 10;
  assert.equal(idealForward(network, a).scores, before);
  conv.thresholds[0] = 2.1;
  assert.not.equal(idealForward(network, a).scores, before);
});

test.run();
