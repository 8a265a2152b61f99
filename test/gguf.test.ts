import { Buffer } from "node:buffer";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  BLOCK_SIZE,
  decodeTensor,
  dequantizeQ40,
  dequantizeQ80,
  encodeTensor,
  type GgufFile,
  type GgufTensorType,
  type GgufValue,
  quantizeQ40,
  quantizeQ80,
  readGguf,
  saveGguf,
  writeGguf,
} from "../lib/core/formats/gguf.ts";
import {
  exportGguf,
  type ExportGgufOptions,
  ggufName,
  interleaveHeads,
  separateHeads,
} from "../lib/core/formats/gguf-llama.ts";
import { loadHuggingFace } from "../lib/core/formats/huggingface.ts";
import { parameterShapes } from "../lib/core/llama.ts";
import { fold, key, normal, randomInts } from "../lib/core/rng.ts";
import { flatten, ready, tf } from "../lib/core/tensor.ts";
import { loadTokenizer } from "../lib/core/tokenizer.ts";

const FIXTURES = fileURLToPath(new URL("fixtures/", import.meta.url));

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "adiabat-gguf-"));
test.before(async () => {
  await ready();
});
test.after(() => fs.rmSync(scratch, { recursive: true }));

// The format ---------------------------------------------------------------------

/** Little-endian bytes of whole numbers: [number, bytes] pairs, and texts. */
function bytesOf(
  ...items: (readonly [number | bigint, number] | string)[]
): Buffer {
  return Buffer.concat(items.map((item) => {
    if (typeof item === "string") return Buffer.from(item);
    const bytes = Buffer.alloc(item[1]);
    for (let i = 0; i < item[1]; i++) {
      bytes[i] = Number((BigInt(item[0]) >> BigInt(8 * i)) & 255n);
    }
    return bytes;
  }));
}

/** A file worked by hand after docs/gguf.md: one number, one text, two tensors. */
const GOLDEN = bytesOf(
  "GGUF",
  [3, 4],
  [2, 8], // tensors
  [2, 8], // metadata
  ...([[1, 8], "a", [4, 4], [7, 4]] as const), // "a": uint32 7
  ...([[3, 8], "b.c", [8, 4], [2, 8], "é"] as const), // "b.c": "é"; at 24 + 17 + 25 = 66
  // "w" [2, 3]: sizes from the fastest, F32, offset 0.
  ...([[1, 8], "w", [2, 4], [3, 8], [2, 8], [0, 4], [0, 8]] as const), // to 107
  // "h" [2]: F16, after 24 bytes padded to 32.
  ...([[1, 8], "h", [1, 4], [2, 8], [1, 4], [32, 8]] as const), // to 140
  [0, 20], // to 160
  [0x3f800000, 4],
  [0xc0200000, 4],
  [0, 4],
  [0x80000000, 4],
  [0x7f7fffff, 4],
  [1, 4],
  [0, 8],
  [0x3555, 2], // 1365 / 4096
  [0x7bff, 2],
  [0, 28],
);

const GOLDEN_FILE: GgufFile = {
  metadata: new Map<string, GgufValue>([
    ["a", { type: "uint32", value: 7 }],
    ["b.c", { type: "string", value: "é" }],
  ]),
  tensors: [
    encodeTensor(
      "w",
      "F32",
      [2, 3],
      Float32Array.of(1, -2.5, 0, -0, 3.4028234663852886e38, 2 ** -149),
    ),
    encodeTensor("h", "F16", [2], Float32Array.of(1 / 3, 65504)),
  ],
};

test("writes the file worked by hand, byte by byte", () => {
  assert.is(Buffer.compare(writeGguf(GOLDEN_FILE), GOLDEN), 0);
});

test("reads it, value by value", () => {
  const { metadata, tensors } = readGguf(GOLDEN);
  assert.equal([...metadata], [...GOLDEN_FILE.metadata]);
  assert.equal(tensors.map(({ name, type, shape }) => [name, type, shape]), [
    ["w", "F32", [2, 3]],
    ["h", "F16", [2]],
  ]);
  assert.equal(
    decodeTensor(tensors[0]),
    Float32Array.of(1, -2.5, 0, -0, 3.4028234663852886e38, 2 ** -149),
  );
  assert.equal(decodeTensor(tensors[1]), Float32Array.of(1365 / 4096, 65504));
});

const ALL_TYPES = new Map<string, GgufValue>([
  ["u8", { type: "uint8", value: 255 }],
  ["i8", { type: "int8", value: -128 }],
  ["u16", { type: "uint16", value: 65535 }],
  ["i16", { type: "int16", value: -1 }],
  ["u32", { type: "uint32", value: 2 ** 32 - 1 }],
  ["i32", { type: "int32", value: -(2 ** 31) }],
  ["f32", { type: "float32", value: 0.5 }],
  ["yes", { type: "bool", value: true }],
  ["text", { type: "string", value: "\ufeffĠx\n" }],
  ["u64", { type: "uint64", value: 2n ** 64n - 1n }],
  ["i64", { type: "int64", value: -(2n ** 63n) }],
  ["f64", { type: "float64", value: 0.1 }],
  ["bools", { type: "array", of: "bool", value: [true, false] }],
  ["texts", { type: "array", of: "string", value: ["", "a b"] }],
  ["floats", { type: "array", of: "float32", value: Float32Array.of(-0, 3) }],
  ["wide", { type: "array", of: "int64", value: BigInt64Array.of(-1n) }],
  ["none", { type: "array", of: "int32", value: new Int32Array(0) }],
  ["lists", {
    type: "array",
    of: "array",
    value: [{ type: "array", of: "uint8", value: Uint8Array.of(1, 2) }],
  }],
  ["general.alignment", { type: "uint32", value: 64 }],
]);

test("metadata of all types, another alignment, and all tensor types survive", () => {
  const values = normal(key(1), 3 * 64, 0, 1);
  const types: GgufTensorType[] = ["F32", "F16", "Q8_0", "Q4_0"];
  const tensors = types.map((type) =>
    encodeTensor(type, type, [3, 64], values)
  );
  const file = path.join(scratch, "all.gguf");
  saveGguf(file, { metadata: ALL_TYPES, tensors });
  const bytes = fs.readFileSync(file);
  const read = readGguf(bytes);
  assert.equal([...read.metadata], [...ALL_TYPES]);
  read.tensors.forEach((tensor, i) => {
    assert.equal(
      { ...tensor, bytes: Array.from(tensor.bytes) },
      { ...tensors[i], bytes: Array.from(tensors[i].bytes) },
    );
  });
  assert.is(Buffer.compare(writeGguf(read), bytes), 0);
  assert.is(bytes.length % 64, 0);
  assert.equal(fs.readdirSync(scratch), ["all.gguf"]);
});

test("refuses to write what does not fit", () => {
  const write = (key: string, entry: GgufValue) => () =>
    writeGguf({ metadata: new Map([[key, entry]]), tensors: [] });
  assert.throws(
    write("a", { type: "uint8", value: 256 }),
    /metadata "a" must fit uint8: 256/,
  );
  assert.throws(
    write("a", { type: "int32", value: 0.5 }),
    /must fit int32: 0\.5/,
  );
  assert.throws(
    write("ä", { type: "bool", value: true }),
    /key must be visible ASCII: "ä"/,
  );
  assert.throws(
    write("general.alignment", { type: "uint32", value: 12 }),
    /multiple of 8: uint32 12/,
  );
  const [w] = GOLDEN_FILE.tensors;
  const tensors = (...list: typeof GOLDEN_FILE.tensors) => () =>
    writeGguf({ metadata: new Map(), tensors: list });
  assert.throws(tensors(w, w), /tensors must be unique: "w"/);
  assert.throws(
    tensors({ ...w, shape: [5] }),
    /must have 20 bytes.*: 24 bytes/,
  );
  assert.throws(tensors({ ...w, name: "n".repeat(64) }), /at most 63 bytes/);
});

// Blocks --------------------------------------------------------------------------

test("a block of Q8_0 by hand", () => {
  // max |x| = 127, so d = 1 (0x3c00) and codes are rounded numbers, ties away from zero.
  const x = new Float32Array(32);
  x.set([127, -127, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49]);
  const bytes = quantizeQ80(x);
  assert.equal(
    Array.from(bytes.slice(0, 10)),
    [0, 0x3c, 127, 129, 1, 255, 2, 3, 253, 0],
  );
  assert.equal(
    Array.from(dequantizeQ80(bytes).slice(0, 8)),
    [127, -127, 1, -1, 2, 3, -3, 0],
  );
});

test("a block of Q4_0 by hand", () => {
  // The number of largest magnitude is -8, so d = -8 / -8 = 1 and q = floor(x + 8.5).
  const x = new Float32Array(32);
  x.set([-8, 0, 0.5, -0.5, 7, 7.9]);
  x.set([8, 1], 16);
  const bytes = quantizeQ40(x);
  // Low halves: 0, 8, 9, 8, 15, 15 (16 clipped); high halves: 15 (16.5 clipped), 9, then 8.
  assert.equal(
    Array.from(bytes.slice(0, 9)),
    [0, 0x3c, 0xf0, 0x98, 0x89, 0x88, 0x8f, 0x8f, 0x88],
  );
  const back = dequantizeQ40(bytes);
  assert.equal(Array.from(back.slice(0, 6)), [-8, 0, 1, 0, 7, 7]);
  assert.equal(Array.from(back.slice(16, 18)), [7, 1]);
  // A positive extreme makes the scale negative: d = 4 / -8 = -0.5, 0xb800.
  const positive = quantizeQ40(new Float32Array(32).fill(4));
  assert.equal(Array.from(positive.slice(0, 3)), [0, 0xb8, 0]);
  assert.equal(dequantizeQ40(positive)[31], 4);
});

test("a block of zeros: 0 / -8 is minus zero in Q4_0, as in ggml", () => {
  const zeros = new Float32Array(32);
  assert.equal(Array.from(quantizeQ80(zeros)), new Array(34).fill(0));
  assert.equal(
    Array.from(quantizeQ40(zeros)),
    [0, 0x80, ...new Array(16).fill(0x88)],
  );
  assert.ok(dequantizeQ40(quantizeQ40(zeros)).every((x) => x === 0));
});

test("numbers come back within half a step of their block", () => {
  const values = normal(key(2), 100 * BLOCK_SIZE, 0, 1);
  for (
    const [quantize, dequantize, steps, clipped] of [
      [quantizeQ80, dequantizeQ80, 127, 0.5],
      // The far end of the range is clipped by one whole step.
      [quantizeQ40, dequantizeQ40, 8, 1],
    ] as const
  ) {
    const back = dequantize(quantize(values));
    for (let b = 0; b < 100; b++) {
      const block = values.subarray(b * BLOCK_SIZE, (b + 1) * BLOCK_SIZE);
      const max = Math.max(...block.map(Math.abs));
      // The scale itself is rounded to 11 bits, which moves the largest codes.
      const limit = max / steps * clipped + max * 2 ** -11;
      block.forEach((x, i) =>
        assert.ok(Math.abs(x - back[b * BLOCK_SIZE + i]) <= limit)
      );
    }
  }
});

test("what no block can hold is refused with its place", () => {
  const bad = new Float32Array(64);
  bad[40] = NaN;
  assert.throws(() => quantizeQ40(bad), /finite: NaN at 40/);
  assert.throws(() => quantizeQ80(new Float32Array(33)), /blocks of 32: 33/);
  bad[40] = 1e8;
  assert.throws(() => quantizeQ80(bad), /scale of a block .*block at 32/);
  assert.throws(
    () => encodeTensor("w", "Q8_0", [2, 16], new Float32Array(32)),
    /"w" as Q8_0 as its last dimension must be a multiple of 32: shape \[2,16\]/,
  );
  assert.throws(
    () => encodeTensor("w", "Q8_0", [2, 32], bad),
    /scale of a block .*block at 32, in tensor "w"/,
  );
  assert.throws(
    () => encodeTensor("w", "F16", [1], Float32Array.of(1e5)),
    /"w" as F16 .*at most 65504: 100000 at 0/,
  );
  assert.throws(
    () => encodeTensor("w", "F32", [2], Float32Array.of(1, Infinity)),
    /finite: Infinity at 1/,
  );
});

// Hostile files ---------------------------------------------------------------------

/** The golden file with other bytes at a place. */
function changed(at: number, ...bytes: number[]): Uint8Array {
  const copy = new Uint8Array(GOLDEN);
  copy.set(bytes, at);
  return copy;
}

const HOSTILE: [string, Uint8Array, RegExp][] = [
  ["nothing", new Uint8Array(0), /4 bytes needed at byte 0, 0 left/],
  ["another format", changed(0, 0x50), /begin with "GGUF": bytes 80 71 85 70/],
  ["version 1", changed(4, 1), /version must be 2 or 3: 1/],
  ["big-endian", changed(4, 0, 0, 0, 3), /must be little-endian/],
  [
    "2^63 tensors",
    changed(15, 0x80),
    /ends before the tensors: 9223372036854775810/,
  ],
  [
    "2^56 metadata",
    changed(23, 1),
    /ends before the metadata: 72057594037927938/,
  ],
  [
    "a key of a gigabyte",
    changed(27, 64),
    /ends before a key .*: 1073741825 of/,
  ],
  [
    "value type 13",
    changed(33, 13),
    /type of metadata "a" must be 0 to 12: 13/,
  ],
  [
    "the same key twice",
    bytesOf(
      "GGUF",
      [3, 4],
      [0, 8],
      [2, 8],
      ...([[1, 8], "a", [0, 4], [7, 1], [1, 8], "a", [0, 4], [7, 1]] as const),
    ),
    /must be unique: "a"/,
  ],
  [
    "a boolean of 2",
    bytesOf(
      "GGUF",
      [3, 4],
      [0, 8],
      [1, 8],
      ...([[1, 8], "a", [7, 4], [2, 1]] as const),
    ),
    /"a" must be 0 or 1: 2/,
  ],
  [
    "lists in lists in lists",
    bytesOf(
      "GGUF",
      [3, 4],
      [0, 8],
      [1, 8],
      ...([[1, 8], "a", [9, 4]] as const),
      ...Array.from({ length: 9 }).flatMap(() =>
        [[9, 4], [1, 8]] as [number, number][]
      ),
    ),
    /nest deeper than 4/,
  ],
  [
    "a text that is not UTF-8",
    changed(64, 0xff),
    /"b\.c" must be UTF-8: byte 64/,
  ],
  ["no dimensions", changed(75, 0), /"w" must have 1 to 4 dimensions: 0/],
  ["a size of 0", changed(79, 0), /sizes of tensor "w" must be positive/],
  ["2^64 numbers", changed(86, 0x80), /product a safe integer/],
  ["a type of ggml", changed(95, 14), /type of tensor "w" must be .*: Q6_K/],
  ["a type of nobody", changed(95, 99), /: number 99/],
  [
    "half a block",
    changed(95, 2),
    /whole blocks of 32 for Q4_0: shape \[2,3\]/,
  ],
  ["tensors that overlap", changed(132, 0), /"h" must begin .*byte 32.*: 0/],
  [
    "a short end",
    GOLDEN.subarray(0, 194),
    /before tensor "h": 4 .*at byte 192, 2 left/,
  ],
];

for (const [name, bytes, message] of HOSTILE) {
  test(`refuses: ${name}`, () => {
    assert.throws(
      () => readGguf(bytes),
      (error: Error) => {
        const ok = error instanceof SyntaxError &&
          message.test(error.message) &&
          error.message.length < 400;
        if (!ok) console.log(error.message);
        return ok;
      },
    );
  });
}

/** Reads, and lets only a clear refusal pass; returns whether it was read. */
function survives(bytes: Uint8Array): boolean {
  try {
    readGguf(bytes).tensors.forEach(decodeTensor);
    return true;
  } catch (error) {
    if (error instanceof SyntaxError && /^Cannot read/.test(error.message)) {
      return false;
    }
    throw error;
  }
}

test("truncated at every byte: refused until the last tensor is whole", () => {
  for (let length = 0; length <= GOLDEN.length; length++) {
    // The padding after the last tensor may be missing.
    assert.is(survives(GOLDEN.subarray(0, length)), length >= 196, `${length}`);
  }
});

test("10,000 damaged files: read or refused, never anything else", () => {
  const rich = writeGguf({
    metadata: ALL_TYPES,
    tensors: [encodeTensor("q", "Q4_0", [1, 32], new Float32Array(32))],
  });
  let refused = 0;
  for (let round = 0; round < 10000; round++) {
    const draws = randomInts(fold(key(7), round), 13, 0, 2 ** 20);
    const bytes = new Uint8Array(round % 2 === 0 ? GOLDEN : rich);
    const header = round % 2 === 0 ? 140 : bytes.length - 64;
    for (let flip = 0; flip <= draws[0] % 6; flip++) {
      const at = draws[1 + 2 * flip] % header;
      const value = draws[2 + 2 * flip];
      if (round % 4 < 2) bytes[at] = value % 256;
      else bytes[at] ^= 1 << value % 8;
    }
    if (!survives(bytes)) refused++;
  }
  // Some changes only alter a number or a name.
  assert.ok(refused > 5000 && refused < 10000, `${refused} refused`);
});

// Exports -----------------------------------------------------------------------------

test("rows of heads are interleaved, and back", () => {
  // Two heads of four rows and one column: 0 1 | 2 3 becomes 0 2 1 3.
  const rows = Float32Array.of(0, 1, 2, 3, 4, 5, 6, 7);
  const mixed = interleaveHeads(rows, 4, 1);
  assert.equal(mixed, Float32Array.of(0, 2, 1, 3, 4, 6, 5, 7));
  assert.equal(separateHeads(mixed, 4, 1), rows);
  const pairs = interleaveHeads(rows, 4, 2);
  assert.equal(pairs, Float32Array.of(0, 1, 4, 5, 2, 3, 6, 7));
});

const load = (folder: string) => loadHuggingFace(path.join(FIXTURES, folder));

for (const folder of ["llama-gqa", "llama-tied"]) {
  test(`${folder}: the file holds every parameter, and the shape of the model`, () => {
    const { params, config, tokenizer } = load(folder);
    const exported = exportGguf(params, config, tokenizer, {
      eosTokenId: 1,
      bosTokenId: 0,
    });
    const { metadata, tensors } = readGguf(writeGguf(exported));
    const named = flatten(params);
    const shapes = parameterShapes(config);
    const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
    const headDim = config.headDim ?? config.hiddenSize / config.numHeads;
    // Factors of the frequencies are no parameter of ours.
    const factors = config.ropeScaling?.type === "llama3" ? 1 : 0;
    assert.is(byName.size, Object.keys(shapes).length + factors);
    for (const [name, shape] of Object.entries(shapes)) {
      const tensor = byName.get(ggufName(name))!;
      assert.equal(tensor.shape, shape);
      const values = decodeTensor(tensor);
      const back = /\.(q|k)_proj\./.test(name)
        ? separateHeads(values, headDim, shape[1] ?? 1)
        : values;
      assert.equal(Array.from(back), Array.from(named[name].dataSync()));
    }
    const value = (key: string) => metadata.get(key)?.value;
    assert.is(value("general.architecture"), "llama");
    assert.is(value("llama.block_count"), config.numLayers);
    assert.is(value("llama.attention.head_count_kv"), config.numKvHeads);
    assert.is(value("llama.rope.dimension_count"), headDim);
    assert.is(value("tokenizer.ggml.model"), "gpt2");
    assert.is(value("tokenizer.ggml.pre"), "gpt-2");
    assert.is(value("tokenizer.ggml.eos_token_id"), 1);
    const tokens = value("tokenizer.ggml.tokens") as string[];
    assert.is(tokens.length, config.vocabSize);
    tokens.forEach((token, id) => assert.is(tokenizer.tokenId(token), id));
    const kinds = value("tokenizer.ggml.token_type") as Int32Array;
    assert.equal(Array.from(kinds.slice(0, 3)), [3, 3, 1]);
  });
}

test("rows of the embedding without a token are filled with unused ones", () => {
  const { params, config, tokenizer } = load("llama-tied");
  const table = params.model.embed_tokens.weight;
  params.model.embed_tokens.weight = tf.pad(table, [[0, 2], [0, 0]]);
  const { metadata } = exportGguf(
    params,
    { ...config, vocabSize: 262 },
    tokenizer,
    { eosTokenId: 1 },
  );
  const tokens = metadata.get("tokenizer.ggml.tokens")!.value as string[];
  const kinds = metadata.get("tokenizer.ggml.token_type")!.value as Int32Array;
  assert.equal(tokens.slice(260), ["[PAD260]", "[PAD261]"]);
  assert.equal(Array.from(kinds.slice(259)), [1, 5, 5]);
});

test("llama3 scaling becomes factors of the frequencies", () => {
  const { params, config, tokenizer } = load("llama-gqa");
  const { tensors } = exportGguf(
    params,
    {
      ...config,
      ropeTheta: 10000,
      ropeScaling: {
        type: "llama3",
        factor: 8,
        lowFreqFactor: 1,
        highFreqFactor: 4,
        originalMaxPositions: 64,
      },
    },
    tokenizer,
    { eosTokenId: 1 },
  );
  const factors = decodeTensor(tensors.at(-1)!);
  assert.is(tensors.at(-1)!.name, "rope_freqs.weight");
  // Frequencies 1 and 0.01: 64 / (2 pi) = 10.2 waves are kept, 0.1 waves divided by 8.
  assert.equal(factors, Float32Array.of(1, 8));
});

test("models and tokenizers that llama.cpp would run wrongly are refused", () => {
  const { params, config, tokenizer } = load("llama-gqa");
  const run = (options: Partial<ExportGgufOptions>, other = tokenizer) =>
    exportGguf(params, config, other, { eosTokenId: 1, ...options });
  assert.throws(() => run({ eosTokenId: 260 }), /vocabSize 260, id 260/);
  assert.throws(
    () => run({ type: "Q4_K" as never }),
    /type must be one of F32, .*: Q4_K/,
  );
  assert.throws(
    () => run({ type: "Q4_0" }),
    /"token_embd\.weight" as Q4_0 .*multiple of 32: shape \[260,16\]/,
  );
  assert.throws(
    () =>
      exportGguf(params, { ...config, numLayers: 1 }, tokenizer, {
        eosTokenId: 1,
      }),
    /model\.layers\.1\.\S+ \[\d.*instead of \[none\]/,
  );
  const json = tokenizer.toJson() as Record<string, Record<string, unknown>>;
  json.pre_tokenizer = {
    type: "Sequence",
    pretokenizers: [
      { type: "Digits", individual_digits: true },
      json.pre_tokenizer,
    ],
  };
  assert.throws(
    () => run({}, loadTokenizer(json)),
    /pre-tokenizer must be GPT-2's or LLaMA 3's.*Digits/,
  );
});

test.run();
