import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  accuracy,
  calibrateSites,
  cosine,
  embed,
  encoderBytes,
  fitProbe,
  mailSets,
  quantizeEncoder,
  type TokenMails,
} from "../lib/experiments/encoder.parts.ts";
import { key, normal } from "../lib/core/rng.ts";
import { loadSentenceEncoder } from "../lib/core/sentence-encoder.ts";
import { ready } from "../lib/core/tensor.ts";

let encoder: ReturnType<typeof loadSentenceEncoder>;
let sets: TokenMails[];
let reference: Float32Array[];

test.before(async () => {
  await ready();
  encoder = loadSentenceEncoder();
  sets = mailSets(encoder.tokenizer, {
    sizes: [40, 16, 8],
    tokens: 24,
    key: key(1),
  }).sets;
  reference = embed(encoder.params, sets[1]);
});

const meanCosine = (rows: Float32Array[]) =>
  rows.reduce((sum, row, i) => sum + cosine(row, reference[i]), 0) /
  rows.length;

test("sets of mails are half spam, as long as asked for, and share no mail", () => {
  const seen = sets.flatMap(({ ids }) => ids.map(String));
  assert.is(seen.length, 64);
  // The corpus repeats some beginnings; a mail in two sets would repeat its whole text.
  assert.ok(new Set(seen).size >= 60, `${new Set(seen).size}`);
  for (const { ids, spam } of sets) {
    assert.is(spam.filter(Boolean).length * 2, spam.length);
    assert.ok(ids.every((row) => row.length === 24));
  }
  assert.throws(
    () => mailSets(encoder.tokenizer, { sizes: [4], tokens: 1e5, key: key(1) }),
    /there must be 2 of ham with 100000 tokens: 0/,
  );
});

test("rounding: eight bits keep the embeddings, fewer bits lose more", () => {
  const at = (bits: number) =>
    meanCosine(embed(
      quantizeEncoder(
        encoder.params,
        { method: "rtn", bits, block: 64 },
        sets[2],
      ),
      sets[1],
    ));
  const [eight, four, two] = [8, 4, 2].map(at);
  assert.ok(eight > 0.999, `${eight}`);
  assert.ok(eight > four && four > two, `${eight} ${four} ${two}`);
});

test("GPTQ at three bits is nearer to the float model than rounding to nearest", () => {
  const near = (method: "rtn" | "gptq") => {
    const setting = { method, bits: 3, block: 64 };
    return meanCosine(
      embed(quantizeEncoder(encoder.params, setting, sets[2]), sets[1]),
    );
  };
  const [rtn, gptq] = [near("rtn"), near("gptq")];
  assert.ok(gptq > rtn, `${gptq} ${rtn}`);
});

test("activations: eight bits cost little, four bits with TRIP less than with one step", () => {
  const at = (bits: number, scheme: "trip" | "layer-asymmetric") =>
    meanCosine(embed(
      encoder.params,
      sets[1],
      calibrateSites(
        encoder.params,
        { bits, scheme, softmax: "uniform" },
        sets[2],
      ),
    ));
  assert.ok(at(8, "layer-asymmetric") > 0.99);
  assert.ok(at(4, "trip") > at(4, "layer-asymmetric"));
});

test("bytes by hand: codes, and a 16-bit step and a zero point per group", () => {
  const { params } = encoder;
  const all = encoderBytes(params, 32);
  // Weights of the package: 28 MB of float32, of which norms and timing are not matrices.
  assert.ok(all > 27e6 && all < 29e6, `${all}`);
  // 8002 x 256 codes of 8 bits, a row's step and zero point in 24 bits.
  const table = 8002 * (256 + 3);
  assert.ok(encoderBytes(params, 4) > table);
  const matrices = (bits: number) => encoderBytes(params, bits) - table;
  const difference = matrices(8) - matrices(4);
  // Four bits less per weight and per zero point: 0.5 bytes for each and for every 128th.
  const weights = (all - 4 * 8002 * 256) / 4;
  assert.ok(Math.abs(difference / (0.5 * weights * (1 + 1 / 128)) - 1) < 0.01);
});

test("the probe separates what can be separated, and chance stays chance", () => {
  const rows = Array.from({ length: 80 }, (_, i) => {
    const row = normal(key(i), 64);
    row[0] += i % 2 === 0 ? 6 : -6;
    const length = Math.hypot(...row);
    return row.map((x) => x / length);
  });
  const spam = rows.map((_, i) => i % 2 === 0);
  assert.is(accuracy(fitProbe(rows, spam), rows, spam), 1);
  const probe = fitProbe(rows.slice(0, 40), spam.slice(0, 40));
  assert.is(accuracy(probe, rows.slice(40), spam.slice(40)), 1);
  const other = rows.slice(40).map((row) => row.map((x, i) => i === 0 ? 0 : x));
  assert.ok(accuracy(probe, other, spam.slice(40)) < 0.8);
});

test.run();
