import { Buffer } from "node:buffer";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  fromBF16,
  fromF16,
  openSafetensors,
  readSafetensors,
  readSafetensorsHeader,
  saveSafetensors,
  type StoredTensor,
  toBF16,
  toF16,
  writeSafetensors,
} from "../lib/core/formats/safetensors.ts";
import { fold, key, randomInts } from "../lib/core/rng.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "adiabat-safetensors-"));
test.after(() => fs.rmSync(folder, { recursive: true }));

/**
 * A file written by the reference implementation (safetensors 0.8.0, torch 1.13),
 * base64:
 *
 *   import base64, torch
 *   from safetensors.torch import save
 *   print(base64.b64encode(save({
 *     "b": torch.tensor([True, False]),
 *     "w": torch.tensor([[1.0, -2.5, 3e-45], [0.1, float("inf"), -0.0]]),
 *     "h": torch.tensor([1/3, 65504.0, 6e-8], dtype=torch.float16),
 *     "g": torch.tensor([1/3, 3e38], dtype=torch.bfloat16),
 *     "i": torch.tensor([-2**62, 7], dtype=torch.int64),
 *     "u": torch.tensor([0, 255], dtype=torch.uint8),
 *     "s": torch.tensor(-5, dtype=torch.int32),
 *     "e": torch.zeros(0, 4),
 *     "d": torch.tensor([0.1], dtype=torch.float64),
 *   }, {"format": "pt"})).decode())
 */
const GOLDEN = new Uint8Array(Buffer.from(
  "GAIAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJwdCJ9LCJpIjp7ImR0eXBlIjoiSTY0" +
    "Iiwic2hhcGUiOlsyXSwiZGF0YV9vZmZzZXRzIjpbMCwxNl19LCJkIjp7ImR0eXBlIjoiRjY0Iiwi" +
    "c2hhcGUiOlsxXSwiZGF0YV9vZmZzZXRzIjpbMTYsMjRdfSwiZSI6eyJkdHlwZSI6IkYzMiIsInNo" +
    "YXBlIjpbMCw0XSwiZGF0YV9vZmZzZXRzIjpbMjQsMjRdfSwidyI6eyJkdHlwZSI6IkYzMiIsInNo" +
    "YXBlIjpbMiwzXSwiZGF0YV9vZmZzZXRzIjpbMjQsNDhdfSwicyI6eyJkdHlwZSI6IkkzMiIsInNo" +
    "YXBlIjpbXSwiZGF0YV9vZmZzZXRzIjpbNDgsNTJdfSwiZyI6eyJkdHlwZSI6IkJGMTYiLCJzaGFw" +
    "ZSI6WzJdLCJkYXRhX29mZnNldHMiOls1Miw1Nl19LCJoIjp7ImR0eXBlIjoiRjE2Iiwic2hhcGUi" +
    "OlszXSwiZGF0YV9vZmZzZXRzIjpbNTYsNjJdfSwidSI6eyJkdHlwZSI6IlU4Iiwic2hhcGUiOlsy" +
    "XSwiZGF0YV9vZmZzZXRzIjpbNjIsNjRdfSwiYiI6eyJkdHlwZSI6IkJPT0wiLCJzaGFwZSI6WzJd" +
    "LCJkYXRhX29mZnNldHMiOls2NCw2Nl19fSAgICAgIAAAAAAAAADABwAAAAAAAACamZmZmZm5PwAA" +
    "gD8AACDAAgAAAM3MzD0AAIB/AAAAgPv///+rPmJ/VTX/ewEAAP8BAA==",
  "base64",
));

const GOLDEN_TENSORS: Record<string, StoredTensor> = {
  b: { dtype: "BOOL", shape: [2], data: new Uint8Array([1, 0]) },
  w: {
    dtype: "F32",
    shape: [2, 3],
    data: new Float32Array([1, -2.5, 3e-45, 0.1, Infinity, -0]),
  },
  h: {
    dtype: "F16",
    shape: [3],
    // 1/3 rounds to 1365 / 4096; 65504 is the largest, 2^-24 the smallest number.
    data: new Float32Array([1365 / 4096, 65504, 2 ** -24]),
  },
  g: {
    dtype: "BF16",
    shape: [2],
    // Eight bits of significand: 171 / 512 and 226 * 2^120.
    data: new Float32Array([171 / 512, 226 * 2 ** 120]),
  },
  i: { dtype: "I64", shape: [2], data: new BigInt64Array([-(2n ** 62n), 7n]) },
  u: { dtype: "U8", shape: [2], data: new Uint8Array([0, 255]) },
  s: { dtype: "I32", shape: [], data: new Int32Array([-5]) },
  e: { dtype: "F32", shape: [0, 4], data: new Float32Array(0) },
  d: { dtype: "F64", shape: [1], data: new Float64Array([0.1]) },
};

/** A file from a header as it comes, however wrong. */
function file(header: unknown, dataBytes: number, size?: number): Uint8Array {
  const text = Buffer.from(
    typeof header === "string" ? header : JSON.stringify(header),
  );
  const bytes = Buffer.alloc(8 + text.length + dataBytes);
  bytes.writeBigUInt64LE(BigInt(size ?? text.length), 0);
  text.copy(bytes, 8);
  return bytes;
}

/** A header entry of a tensor of `end - begin` bytes. */
function bytesEntry(begin: number, end: number) {
  return { dtype: "U8", shape: [end - begin], data_offsets: [begin, end] };
}

test("reads the reference implementation's file, value by value", () => {
  const tensors = readSafetensors(GOLDEN);
  assert.equal({ ...tensors }, GOLDEN_TENSORS);
  assert.equal({ ...readSafetensorsHeader(GOLDEN).metadata }, { format: "pt" });
});

test("writes the reference implementation's file, byte by byte", () => {
  const written = writeSafetensors(GOLDEN_TENSORS, { format: "pt" });
  assert.equal(Buffer.compare(written, GOLDEN), 0);
});

test("reads tensors one by one from disk, and saves what it read", () => {
  const from = path.join(folder, "golden.safetensors");
  fs.writeFileSync(from, GOLDEN);
  const opened = openSafetensors(from);
  assert.equal(opened.read("h"), GOLDEN_TENSORS.h);
  assert.equal(opened.read("e"), GOLDEN_TENSORS.e);
  assert.equal(opened.read("w"), GOLDEN_TENSORS.w);
  assert.throws(() => opened.read("x"), /does not have it: "x"/);
  const all = Object.fromEntries(
    Object.keys(opened.entries).map((name) => [name, opened.read(name)]),
  );
  opened.close();
  const to = path.join(folder, "copy.safetensors");
  saveSafetensors(to, all, { format: "pt" });
  assert.equal(Buffer.compare(fs.readFileSync(to), GOLDEN), 0);
});

test("reads a file that lies unaligned in memory", () => {
  const shifted = new Uint8Array(GOLDEN.length + 3);
  shifted.set(GOLDEN, 3);
  assert.equal({ ...readSafetensors(shifted.subarray(3)) }, GOLDEN_TENSORS);
});

test("aligned floats are a view of the file, not a second copy", () => {
  const { w } = readSafetensors(GOLDEN);
  assert.is(w.data.buffer, GOLDEN.buffer);
});

test("a failed save leaves neither a file nor a temporary one", () => {
  const to = path.join(folder, "sub");
  fs.mkdirSync(to);
  const bad = { x: { ...GOLDEN_TENSORS.w, shape: [7] } };
  assert.throws(() => saveSafetensors(path.join(to, "x"), bad), /shape \[7\]/);
  // A folder cannot be replaced by a file: fails at the very end.
  fs.mkdirSync(path.join(to, "y"));
  assert.throws(() => saveSafetensors(path.join(to, "y"), GOLDEN_TENSORS));
  assert.equal(fs.readdirSync(to), ["y"]);
});

test("all names are possible, __proto__ too, except __metadata__", () => {
  const x = GOLDEN_TENSORS.u;
  const names = ["__proto__", "constructor", "", 'a"\\\n', "é.😀"];
  const tensors = Object.create(null);
  for (const name of names) tensors[name] = x;
  const read = readSafetensors(writeSafetensors(tensors));
  assert.equal(Object.keys(read).sort(), names.sort());
  for (const name of names) assert.equal(read[name], x);
  assert.throws(() => writeSafetensors({ __metadata__: x }), /reserved/);
});

test("an empty file of tensors is valid", () => {
  assert.equal(Object.keys(readSafetensors(writeSafetensors({}))), []);
});

test("writing wants the array type of the dtype", () => {
  const data = new Float32Array(2);
  assert.throws(
    () => writeSafetensors({ x: { dtype: "I32", shape: [2], data } }),
    /"x" as I32 is written from a Int32Array: Float32Array/,
  );
  assert.throws(
    () =>
      writeSafetensors({
        x: { dtype: "F16", shape: [2], data: new Uint16Array(2) },
      }),
    /written from a Float32Array: Uint16Array/,
  );
  assert.throws(
    () => writeSafetensors({ x: { dtype: "F8" as "F16", shape: [2], data } }),
    /one of BOOL, .*: "F8"/,
  );
});

test("half precision: all 65,536 numbers are exact, there and back", () => {
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const values = fromF16(all);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31 && fraction > 0) {
      assert.ok(Number.isNaN(values[bits]));
      continue;
    }
    const expected = exponent === 31
      ? sign * Infinity
      : exponent === 0
      ? sign * fraction * 2 ** -24
      : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
    assert.ok(Object.is(values[bits], expected), `pattern ${bits}`);
  }
  assert.equal(toF16(values), all); // NaN payloads too
});

test("bfloat16: all 65,536 numbers are the upper halves, there and back", () => {
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const values = fromBF16(all);
  const patterns = new Uint32Array(values.buffer);
  for (let bits = 0; bits < 65536; bits++) {
    if (patterns[bits] !== bits * 65536) assert.unreachable(`pattern ${bits}`);
  }
  assert.equal(toBF16(values), all);
});

for (
  const [name, from, to, infinity] of [
    ["half precision", fromF16, toF16, 0x7c00],
    ["bfloat16", fromBF16, toBF16, 0x7f80],
  ] as const
) {
  test(`${name} rounds to nearest, ties to even, between all neighbours`, () => {
    const below = Uint16Array.from({ length: infinity - 1 }, (_, i) => i);
    const above = below.map((bits) => bits + 1);
    const low = from(below);
    const high = from(above);
    const middle = low.map((x, i) => x + (high[i] - x) / 2);
    const even = below.map((bits) => bits % 2 === 0 ? bits : bits + 1);
    assert.equal(to(middle), even);
    // The 32-bit neighbours of the middle belong to one side.
    const bits = new Uint32Array(middle.buffer.slice(0));
    const down = new Float32Array(bits.map((b) => b - 1).buffer);
    const up = new Float32Array(bits.map((b) => b + 1).buffer);
    assert.equal(to(down), below);
    assert.equal(to(up), above);
    assert.equal(to(down.map((x) => -x)), below.map((b) => b | 0x8000));
  });
}

test("what is too large becomes infinity, NaN stays NaN", () => {
  assert.equal(
    toF16(new Float32Array([65519.99, 65520, 1e30, -Infinity, 2 ** -25])),
    new Uint16Array([0x7bff, 0x7c00, 0x7c00, 0xfc00, 0]),
  );
  assert.equal(
    toBF16(new Float32Array([3.4e38, -Infinity])),
    new Uint16Array([0x7f80, 0xff80]),
  );
  // NaN whose payload lies only in bits that are dropped.
  const quiet = new Float32Array(new Uint32Array([0x7f800001]).buffer);
  assert.ok(Number.isNaN(fromF16(toF16(quiet))[0]));
  assert.ok(Number.isNaN(fromBF16(toBF16(quiet))[0]));
});

const HOSTILE: [string, Uint8Array, RegExp][] = [
  ["empty file", new Uint8Array(0), /at least 8 bytes: 0 bytes/],
  ["seven bytes", new Uint8Array(7), /at least 8 bytes: 7 bytes/],
  ["no header", new Uint8Array(8), /begin with "{": it is empty/],
  [
    "header past the end",
    file({}, 0, 3),
    /ends before its header.*3.*: 2 left/,
  ],
  ["header of 2^53 bytes", file({}, 0, 2 ** 53), /at most 100000000 bytes/],
  [
    "header of 2^64 - 1 bytes",
    new Uint8Array(16).fill(255),
    /at most 100000000 bytes: 18446744073709551615/,
  ],
  ["not an object", file("[]", 0), /begin with "{": byte 91/],
  ["leading space", file(" {}", 0), /begin with "{": byte 32/],
  ["not JSON", file("{]", 0), /must be JSON/],
  ["text after JSON", file("{} x", 0), /must be JSON/],
  ["unfinished string", file('{"a', 0), /must be JSON/],
  ["escape at the end", file('{"a\\', 0), /must be JSON/],
  ["bad escape in a name", file('{"\\x": 1}', 0), /must be JSON/],
  [
    "not UTF-8",
    (() => {
      const bytes = file('{"a": 1}', 0);
      bytes[10] = 0xff;
      return bytes;
    })(),
    /must be UTF-8/,
  ],
  ["deep nesting", file("{" + '"a":{'.repeat(1e5), 0), /deeper than 3/],
  [
    "long list",
    file(`{"a":{"shape":[${"1,".repeat(1e5)}1]}}`, 0),
    /at most 64 items/,
  ],
  [
    "more names than any model has",
    file(
      `{${Array.from({ length: 100_001 }, (_, i) => `"${i}":0`).join()}}`,
      0,
    ),
    /at most 100000 names/,
  ],
  [
    "name given twice",
    file(`{"a":${JSON.stringify(bytesEntry(0, 1))},"\\u0061":{}}`, 1),
    /unique in the header: "a"/,
  ],
  [
    "name given twice, far from its colon",
    file(
      `{"a":${JSON.stringify(bytesEntry(0, 1))},"a"${" ".repeat(99)}:{}}`,
      1,
    ),
    /unique in the header: "a"/,
  ],
  [
    "field given twice",
    file(
      '{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
      1,
    ),
    /unique in the header: "dtype"/,
  ],
  ["tensor is a number", file({ a: 1 }, 0), /tensor "a" must be an object: 1/],
  ["tensor is null", file({ a: null }, 0), /tensor "a" must be an object/],
  ["nothing in tensor", file({ a: {} }, 0), /dtype of tensor "a"/],
  [
    "field unknown",
    file({ a: { ...bytesEntry(0, 1), x: 1 } }, 1),
    /only dtype, shape and data_offsets: \["x"\]/,
  ],
  [
    "dtype unknown",
    file({ a: { ...bytesEntry(0, 1), dtype: "F8_E4M3" } }, 1),
    /one of BOOL, .*: "F8_E4M3"/,
  ],
  [
    "dtype of Object.prototype",
    file({ a: { ...bytesEntry(0, 1), dtype: "toString" } }, 1),
    /dtype of tensor "a"/,
  ],
  ...[[-1], [0.5], ["1"], [2 ** 53], [null], 3].map((shape) =>
    [
      `shape ${JSON.stringify(shape)}`,
      file({ a: { ...bytesEntry(0, 1), shape } }, 1),
      /shape of tensor "a" must be/,
    ] as [string, Uint8Array, RegExp]
  ),
  [
    "shape with an enormous product",
    file({ a: { ...bytesEntry(0, 1), shape: [2 ** 40, 2 ** 40] } }, 1),
    /size of tensor "a" must be a safe integer/,
  ],
  ...[[1, 0], [0], [0, 1, 2], [-1, 0], [0, 0.5], [0, 1e300], 1, "01"].map(
    (data_offsets) =>
      [
        `offsets ${JSON.stringify(data_offsets)}`,
        file({ a: { dtype: "U8", shape: [1], data_offsets } }, 1),
        /data_offsets of tensor "a" must be/,
      ] as [string, Uint8Array, RegExp],
  ),
  [
    "more than the shape needs",
    file({ a: { ...bytesEntry(0, 4), shape: [3] } }, 4),
    /\[3\] needs 3 bytes: data_offsets \[0,4\] hold 4/,
  ],
  [
    "a terabyte that is not there",
    file({ a: bytesEntry(0, 2 ** 40) }, 4),
    /ends at byte 1099511627776 of the data, after the end of the file: 4/,
  ],
  [
    "hole",
    file({ a: bytesEntry(0, 1), b: bytesEntry(2, 3) }, 3),
    /byte 1.*: 2/,
  ],
  [
    "overlap",
    file({ a: bytesEntry(0, 2), b: bytesEntry(1, 3) }, 3),
    /byte 2.*: 1/,
  ],
  [
    "same bytes",
    file({ a: bytesEntry(0, 1), b: bytesEntry(0, 1) }, 1),
    /"b" must/,
  ],
  ["hole at the start", file({ a: bytesEntry(1, 2) }, 2), /at byte 0.*: 1/],
  ["bytes left over", file({ a: bytesEntry(0, 1) }, 2), /all data: 1 of 2/],
  [
    "metadata is text",
    file({ __metadata__: "x" }, 0),
    /must be an object: "x"/,
  ],
  ["metadata number", file({ __metadata__: { a: 1 } }, 0), /"a" to 1/],
];

for (const [name, bytes, message] of HOSTILE) {
  test(`refuses: ${name}`, () => {
    const check = (error: Error) =>
      error instanceof SyntaxError && message.test(error.message) &&
      error.message.length < 400;
    assert.throws(() => readSafetensors(bytes), check);
    const to = path.join(folder, "hostile.safetensors");
    fs.writeFileSync(to, bytes);
    assert.throws(() => openSafetensors(to), check);
  });
}

/** Reads, and lets only a clear refusal pass; returns whether it was read. */
function survives(bytes: Uint8Array): boolean {
  try {
    const tensors = readSafetensors(bytes);
    const held = Object.values(tensors)
      .reduce((n, { data }) => n + data.byteLength, 0);
    assert.ok(held <= 2 * bytes.length, "holds more than twice the file");
    return true;
  } catch (error) {
    if (error instanceof SyntaxError && /^Cannot read/.test(error.message)) {
      return false;
    }
    throw error;
  }
}

test("truncated at every byte: never read, always a clear error", () => {
  for (let length = 0; length < GOLDEN.length; length++) {
    assert.is(survives(GOLDEN.slice(0, length)), false, `${length} bytes`);
  }
  assert.is(survives(GOLDEN), true);
});

test("20,000 damaged files: read or refused, never anything else", () => {
  const dataStart = readSafetensorsHeader(GOLDEN).dataStart;
  let refused = 0;
  for (let round = 0; round < 20000; round++) {
    const draws = randomInts(fold(key(7), round), 13, 0, 2 ** 20);
    const bytes = GOLDEN.slice();
    for (let flip = 0; flip <= draws[0] % 6; flip++) {
      bytes[draws[1 + 2 * flip] % dataStart] = round % 2 === 0
        ? draws[2 + 2 * flip] % 256
        // Digits, brackets and quotes keep the header nearly valid.
        : '0123456789{}[],:"'.charCodeAt(draws[2 + 2 * flip] % 17);
    }
    if (!survives(bytes)) refused++;
  }
  // Some changes only rename a tensor.
  assert.ok(refused > 15000 && refused < 20000, `${refused} refused`);
});

test("a damaged value changes that value only", () => {
  const { entries, dataStart } = readSafetensorsHeader(GOLDEN);
  const bytes = GOLDEN.slice();
  bytes[dataStart + entries.u.begin] ^= 1;
  const read = readSafetensors(bytes);
  assert.equal(read.u.data, new Uint8Array([1, 255]));
  assert.equal(read.w, GOLDEN_TENSORS.w);
});

test.run();
