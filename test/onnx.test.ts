import { Buffer } from "node:buffer";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadHuggingFace } from "../lib/core/formats/huggingface.ts";
import {
  checkGraph,
  type OnnxModel,
  type OnnxTensor,
  packInt4,
  readOnnx,
  saveOnnx,
  unpackInt4,
  writeOnnx,
} from "../lib/core/formats/onnx.ts";
import {
  calibrate,
  dequantize,
  exportOnnx,
  type ExportOnnxOptions,
  type QuantizedMatrix,
  roundToNearest,
} from "../lib/core/formats/onnx-llama.ts";
import { forward, initLlama, nestParams } from "../lib/core/llama.ts";
import { fold, key, randomInts } from "../lib/core/rng.ts";
import { flatten, ready, type Tensor, tf } from "../lib/core/tensor.ts";
import { evaluateOnnx, type Value } from "./onnx-evaluate.ts";

const FIXTURES = fileURLToPath(new URL("fixtures/", import.meta.url));

/** Logits of size 1 to 4 in single precision against double. */
const LOGIT_TOLERANCE = 2e-5;

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "adiabat-onnx-"));
test.before(async () => {
  await ready();
});
test.after(() => fs.rmSync(scratch, { recursive: true }));

/**
 * A file written by the official library (onnx 1.12.0, protobuf 4.21.12), base64:
 *
 *   import base64, numpy as np, onnx
 *   from onnx import helper as h, numpy_helper as nh, TensorProto as T
 *   t = lambda name, a: nh.from_array(np.array(a), name)
 *   model = h.make_model(
 *     h.make_graph(
 *       [
 *         h.make_node("Gemm", ["x", "w", "b"], ["y"], name="gemm", alpha=0.5, transB=1),
 *         h.make_node("Loop2", ["y", ""], ["z"], domain="my.ops", axes=[-1, 2**62],
 *                     scales=[0.25, -3.0], mode="é", names=["a", ""], value=t("v", np.int64([-1, 2**40]))),
 *       ],
 *       "g",
 *       [h.make_tensor_value_info("x", T.FLOAT, ["rows", 3]), h.make_tensor_value_info("u", T.FLOAT16, None)],
 *       [h.make_tensor_value_info("z", T.INT64, [None, 2])],
 *       [
 *         t("w", np.float32([[1, -2.5, 0.1], [3e-45, np.inf, -0.0]])), t("b", np.float32([0.5, 7])),
 *         t("h", np.float16([1/3, 65504])), t("c", np.int8([-128, 127])), t("d", np.uint8([[0], [255]])),
 *         t("i", np.int32(-5)), t("e", np.float64([0.1])), t("o", np.array([True, False])),
 *       ],
 *     ),
 *     producer_name="reference", ir_version=8,
 *     opset_imports=[h.make_opsetid("", 18), h.make_opsetid("my.ops", 1)],
 *   )
 *   h.set_model_props(model, {"key": "value"})
 *   print(base64.b64encode(model.SerializeToString(deterministic=True)).decode())
 */
const GOLDEN = new Uint8Array(Buffer.from(
  "CAgSCXJlZmVyZW5jZTqcAwo4CgF4CgF3CgFiEgF5GgRnZW1tIgRHZW1tKg8KBWFscGhhFQAAAD+g" +
    "AQEqDQoGdHJhbnNCGAGgAQIKlQEKAXkKABIBeiIFTG9vcDIqHgoEYXhlc0D///////////8BQICA" +
    "gICAgICAQKABByoNCgRtb2RlIgLDqaABAyoPCgVuYW1lc0oBYUoAoAEIKhUKBnNjYWxlcz0AAIA+" +
    "PQAAQMCgAQYqJQoFdmFsdWUqGQgCEAdCAXZKEP//////////AAAAAAABAACgAQQ6Bm15Lm9wcxIB" +
    "ZyojCAIIAxABQgF3ShgAAIA/AAAgwM3MzD0CAAAAAACAfwAAAIAqEQgCEAFCAWJKCAAAAD8AAOBA" +
    "Kg0IAhAKQgFoSgRVNf97KgsIAhADQgFjSgKAfyoNCAIIARACQgFkSgIA/yoLEAZCAWlKBPv///8q" +
    "EQgBEAtCAWVKCJqZmZmZmbk/KgsIAhAJQgFvSgIBAFoXCgF4EhIKEAgBEgwKBhIEcm93cwoCCANa" +
    "CQoBdRIECgIICmIRCgF6EgwKCggHEgYKAAoCCAJCBAoAEBJCCgoGbXkub3BzEAFyDAoDa2V5EgV2" +
    "YWx1ZQ==",
  "base64",
));

const float32 = (...values: number[]) => Float32Array.from(values);

const GOLDEN_MODEL: OnnxModel = {
  irVersion: 8,
  producerName: "reference",
  opsets: { "": 18, "my.ops": 1 },
  metadata: { key: "value" },
  graph: {
    name: "g",
    nodes: [
      {
        opType: "Gemm",
        name: "gemm",
        inputs: ["x", "w", "b"],
        outputs: ["y"],
        attributes: {
          alpha: { type: "float", value: 0.5 },
          transB: { type: "int", value: 1 },
        },
      },
      {
        opType: "Loop2",
        domain: "my.ops",
        inputs: ["y", ""],
        outputs: ["z"],
        attributes: {
          axes: { type: "ints", value: [-1, 2n ** 62n] },
          mode: { type: "string", value: "é" },
          names: { type: "strings", value: ["a", ""] },
          scales: { type: "floats", value: [0.25, -3] },
          value: {
            type: "tensor",
            value: {
              name: "v",
              dtype: "int64",
              shape: [2],
              data: BigInt64Array.of(-1n, 2n ** 40n),
            },
          },
        },
      },
    ],
    initializers: [
      {
        name: "w",
        dtype: "float32",
        shape: [2, 3],
        data: float32(1, -2.5, 0.1, 3e-45, Infinity, -0),
      },
      { name: "b", dtype: "float32", shape: [2], data: float32(0.5, 7) },
      // 1/3 rounds to 1365 / 4096 in half precision.
      {
        name: "h",
        dtype: "float16",
        shape: [2],
        data: float32(1365 / 4096, 65504),
      },
      { name: "c", dtype: "int8", shape: [2], data: Int8Array.of(-128, 127) },
      { name: "d", dtype: "uint8", shape: [2, 1], data: Uint8Array.of(0, 255) },
      { name: "i", dtype: "int32", shape: [], data: Int32Array.of(-5) },
      { name: "e", dtype: "float64", shape: [1], data: Float64Array.of(0.1) },
      { name: "o", dtype: "bool", shape: [2], data: Uint8Array.of(1, 0) },
    ],
    inputs: [
      { name: "x", dtype: "float32", shape: ["rows", 3] },
      { name: "u", dtype: "float16" },
    ],
    outputs: [{ name: "z", dtype: "int64", shape: [null, 2] }],
  },
};

/**
 * Numbers in the typed fields instead of raw data, by the same library:
 *
 *   tt = h.make_model(h.make_graph([], "t", [], [], [
 *     h.make_tensor("f", T.FLOAT, [2], [1.5, -2]), h.make_tensor("h", T.FLOAT16, [1], [1.5]),
 *     h.make_tensor("i8", T.INT8, [2], [-3, 4]), h.make_tensor("i64", T.INT64, [2], [-1, 2**53+1]),
 *     h.make_tensor("u64", T.UINT64, [1], [2**64-1]), h.make_tensor("d", T.DOUBLE, [1], [0.1]),
 *     h.make_tensor("bo", T.BOOL, [3], [True, False, True]), h.make_tensor("u32", T.UINT32, [1], [2**32-1]),
 *   ]), ir_version=8, opset_imports=[h.make_opsetid("", 18)])
 *   print(base64.b64encode(tt.SerializeToString(deterministic=True)).decode())
 */
const TYPED = new Uint8Array(Buffer.from(
  "CAg6pAESAXQqEQgCEAEiCAAAwD8AAADAQgFmKgsIARAKKgKAfEIBaCoVCAIQAyoL/f//////////" +
    "AQRCAmk4Kh0IAhAHOhL///////////8BgYCAgICAgBBCA2k2NCoVCAEQDUIDdTY0Wgr/////////" +
    "//8BKhEIARALQgFkUgiamZmZmZm5PyoNCAMQCSoDAQABQgJibyoQCAEQDEIDdTMyWgX/////D0IE" +
    "CgAQEg==",
  "base64",
));

test("reads the official library's file, value by value", () => {
  assert.equal(readOnnx(GOLDEN), GOLDEN_MODEL);
});

test("writes the official library's file, byte by byte", () => {
  assert.is(Buffer.compare(writeOnnx(GOLDEN_MODEL), GOLDEN), 0);
});

test("reads numbers that are stored in typed fields", () => {
  const { initializers } = readOnnx(TYPED).graph;
  assert.equal(initializers.map(({ name, data }) => [name, data]), [
    ["f", float32(1.5, -2)],
    ["h", float32(1.5)],
    ["i8", Int8Array.of(-3, 4)],
    ["i64", BigInt64Array.of(-1n, 2n ** 53n + 1n)],
    ["u64", BigUint64Array.of(2n ** 64n - 1n)],
    ["d", Float64Array.of(0.1)],
    ["bo", Uint8Array.of(1, 0, 1)],
    ["u32", Uint32Array.of(2 ** 32 - 1)],
  ]);
});

test("a minimal file, worked by hand", () => {
  // 08 08: field 1, varint 8. 3a 03 12 01 67: field 7, 3 bytes: field 2, "g".
  // 42 04 0a 00 10 12: field 8, 4 bytes: field 1, ""; field 2, varint 18.
  const bytes = Buffer.from("08083a0312016742040a001012", "hex");
  const model: OnnxModel = {
    irVersion: 8,
    opsets: { "": 18 },
    graph: { name: "g", nodes: [], initializers: [], inputs: [], outputs: [] },
  };
  assert.is(Buffer.compare(writeOnnx(model), bytes), 0);
  assert.equal(readOnnx(bytes), model);
});

test("four-bit numbers lie low half first", () => {
  assert.equal(packInt4([1, -8, 7], "int4"), Uint8Array.of(0x81, 0x07));
  assert.equal(packInt4([1, 15, 7], "uint4"), Uint8Array.of(0xf1, 0x07));
  assert.equal(
    unpackInt4(Uint8Array.of(0x81, 0x07), 3, "int4"),
    Int8Array.of(1, -8, 7),
  );
  assert.equal(
    unpackInt4(Uint8Array.of(0xf1, 0x07), 3, "uint4"),
    Int8Array.of(1, 15, 7),
  );
  assert.throws(() => packInt4([0, 8], "int4"), /from -8 to 7: 8 at 1/);
  assert.throws(() => packInt4([-1], "uint4"), /from 0 to 15: -1 at 0/);
});

/** A model that only holds constants. */
function holding(...initializers: OnnxTensor[]): OnnxModel {
  return {
    irVersion: 10,
    opsets: { "": 21 },
    graph: { name: "g", nodes: [], initializers, inputs: [], outputs: [] },
  };
}

test("every type survives writing and reading", () => {
  const tensors: OnnxTensor[] = [
    { name: "a", dtype: "int4", shape: [3], data: Uint8Array.of(0x81, 0x07) },
    { name: "b", dtype: "uint4", shape: [1, 2], data: Uint8Array.of(0xf0) },
    { name: "c", dtype: "bfloat16", shape: [1], data: float32(171 / 512) },
    { name: "d", dtype: "int16", shape: [2], data: Int16Array.of(-9, 9) },
    { name: "e", dtype: "uint16", shape: [1], data: Uint16Array.of(65535) },
    { name: "f", dtype: "uint32", shape: [1], data: Uint32Array.of(2 ** 31) },
    { name: "g", dtype: "uint64", shape: [1], data: BigUint64Array.of(1n) },
    { name: "", dtype: "float32", shape: [0, 4], data: new Float32Array(0) },
  ];
  const file = path.join(scratch, "types.onnx");
  saveOnnx(file, holding(...tensors.slice(0, 7)));
  const read = readOnnx(fs.readFileSync(file)).graph.initializers;
  assert.equal(read, tensors.slice(0, 7));
  const empty = readOnnx(writeOnnx(holding(tensors[7])));
  assert.equal(empty.graph.initializers, [tensors[7]]);
  assert.equal(fs.readdirSync(scratch), ["types.onnx"]);
});

test("refuses to write what does not fit", () => {
  const tensor = (dtype: "float32" | "int4", data: OnnxTensor["data"]) =>
    holding({ name: "t", dtype, shape: [3], data });
  assert.throws(
    () => writeOnnx(tensor("float32", new Float32Array(2))),
    /"t" of type float32 and shape \[3\] must have 3 items: 2/,
  );
  assert.throws(
    () => writeOnnx(tensor("float32", new Float64Array(3))),
    /written from a Float32Array: Float64Array/,
  );
  assert.throws(
    () => writeOnnx(tensor("int4", new Uint8Array(3))),
    /must have 2 items: 3/,
  );
});

test("a graph that does not hold together is refused by name", () => {
  const graph = GOLDEN_MODEL.graph;
  const node = (inputs: string[], outputs: string[]) => ({
    ...graph,
    nodes: [{ opType: "Op", inputs, outputs }],
  });
  checkGraph(graph);
  assert.throws(
    () => checkGraph(node(["q"], ["z"])),
    /node "Op" takes .*: "q"/,
  );
  assert.throws(() => checkGraph(node(["x"], ["w"])), /there already: "w"/);
  assert.throws(() => checkGraph(node(["x"], ["y"])), /its output "z"/);
  assert.throws(
    () => checkGraph({ ...graph, nodes: graph.nodes.toReversed() }),
    /node "Loop2" takes .*: "y"/,
  );
});

/** A message field of bytes by hand. */
const part = (number: number, ...content: (number | Uint8Array)[]) => {
  const bytes = Buffer.concat(
    content.map((c) => typeof c === "number" ? Uint8Array.of(c) : c),
  );
  return Buffer.concat([Uint8Array.of(number * 8 + 2, bytes.length), bytes]);
};
const graphWith = (...parts: Uint8Array[]) =>
  Buffer.concat([Buffer.from([8, 8]), part(7, Buffer.concat(parts))]);

const HOSTILE: [string, Uint8Array, RegExp][] = [
  ["nothing", new Uint8Array(0), /must have a version: 0 bytes/],
  ["no graph", Uint8Array.of(8, 8), /must have a graph/],
  ["two graphs", Buffer.concat([GOLDEN, GOLDEN]), /graph must be given once/],
  ["field 0", Uint8Array.of(0, 1), /number of a field of the model.*: 0/],
  ["kind 3", Uint8Array.of(0x0b), /kind of field 1 .*: 3/],
  ["version is text", part(1, 65), /field 1 of the model must be a number/],
  [
    "endless number",
    Buffer.concat([Uint8Array.of(8), new Uint8Array(20).fill(255)]),
    /at most 10 bytes/,
  ],
  [
    "length of 2^63",
    Uint8Array.of(0x3a, 255, 255, 255, 255, 255, 255, 255, 255, 127),
    /ends before its field 7: 9223372036854775807 bytes needed, 0 left/,
  ],
  [
    "external data",
    graphWith(part(5, 0x10, 1, part(8, 119), 0x70, 1)),
    /"w" must lie inside the file: its data is external/,
  ],
  [
    "8-bit floats",
    graphWith(part(5, 0x10, 17, part(8, 119))),
    /type of tensor "w" must be one of .*: float8e4m3fn/,
  ],
  [
    "texts",
    graphWith(part(5, 0x10, 8, part(6, 119))),
    /must not hold texts/,
  ],
  [
    "shape of 2^56 numbers",
    graphWith(
      part(
        5,
        8,
        128,
        128,
        128,
        128,
        128,
        128,
        128,
        128,
        1,
        0x10,
        1,
        part(8, 119),
      ),
    ),
    /tensor "w" must have .*safe integer: \[72057594037927940\]/,
  ],
  [
    "a gigabyte that is not there",
    graphWith(part(5, 8, 128, 128, 128, 128, 1, 0x10, 1, part(8, 119))),
    /"w" of type float32 and shape \[268435456\] needs 1073741824 bytes: 0/,
  ],
  ["sparse tensor", graphWith(part(15)), /one is sparse/],
  [
    "a sequence",
    graphWith(part(11, part(1, 120), part(2, part(4)))),
    /value "x" must be a dense tensor: kind 4/,
  ],
  [
    "attribute without a type",
    graphWith(part(1, part(4, 79), part(5, part(1, 97)))),
    /type of attribute "a" of node "O" .*: number 0/,
  ],
  [
    "functions",
    Buffer.concat([GOLDEN, Uint8Array.of(0xca, 1, 0)]),
    /no functions of its own/,
  ],
  [
    "name is not UTF-8",
    graphWith(part(2, 255)),
    /field 2 of the graph must be UTF-8/,
  ],
];

for (const [name, bytes, message] of HOSTILE) {
  test(`refuses: ${name}`, () => {
    assert.throws(
      () => readOnnx(bytes),
      (error: Error) =>
        error instanceof SyntaxError && message.test(error.message) &&
        error.message.length < 400,
    );
  });
}

test("graphs that nest too deep are refused", () => {
  let inner = Buffer.alloc(0);
  const varint = (n: number) => Uint8Array.of(n & 127 | 128, n >> 7);
  const long = (number: number, ...content: Uint8Array[]) => {
    const bytes = Buffer.concat(content);
    return Buffer.concat([
      Uint8Array.of(number * 8 + 2),
      varint(bytes.length),
      bytes,
    ]);
  };
  for (let depth = 0; depth < 40; depth++) {
    const graphType = Uint8Array.of(0xa0, 1, 5);
    inner = long(1, long(5, long(6, inner), graphType));
  }
  const bytes = Buffer.concat([Uint8Array.of(8, 8), long(7, inner)]);
  assert.throws(() => readOnnx(bytes), /not nest deeper than 16/);
});

/** Reads, and lets only a clear refusal pass; returns whether it was read. */
function survives(bytes: Uint8Array): boolean {
  try {
    readOnnx(bytes);
    return true;
  } catch (error) {
    if (error instanceof SyntaxError && /^Cannot read/.test(error.message)) {
      return false;
    }
    throw error;
  }
}

test("truncated at every byte: read or refused clearly", () => {
  const read = Array.from(
    { length: GOLDEN.length },
    (_, length) => survives(GOLDEN.slice(0, length)),
  );
  // A cut between two fields of the model after the graph is a shorter valid file.
  assert.is(read.filter(Boolean).length, 3);
});

test("10,000 damaged files: read or refused, never anything else", () => {
  let refused = 0;
  for (let round = 0; round < 10000; round++) {
    const draws = randomInts(fold(key(7), round), 13, 0, 2 ** 20);
    const bytes = (round % 4 === 0 ? TYPED : GOLDEN).slice();
    for (let flip = 0; flip <= draws[0] % 6; flip++) {
      const at = draws[1 + 2 * flip] % bytes.length;
      const value = draws[2 + 2 * flip];
      if (round % 2 === 0) bytes[at] = value % 256;
      else bytes[at] ^= 1 << value % 8;
    }
    if (!survives(bytes)) refused++;
  }
  // Some changes only alter a number or a name.
  assert.ok(refused > 4000 && refused < 10000, `${refused} refused`);
});

// Exports -----------------------------------------------------------------------

test("to the nearest whole number: a row by hand", () => {
  // The largest is 127, so the scale is 1: 2.5 goes to 2, -3.5 to -4, both even.
  const row = Float32Array.of(127, 2.5, -3.5, 0, 0, 0);
  const { codes, scales } = roundToNearest(row, [2, 3], { bits: 8 });
  assert.equal(codes, Int8Array.of(127, 2, -4, 0, 0, 0));
  assert.equal(scales, Float32Array.of(1, 1));
  const four = roundToNearest(Float32Array.of(7, -3, 14, 4), [1, 4], {
    bits: 4,
    groupSize: 2,
  });
  assert.equal(four.codes, Int8Array.of(7, -3, 7, 2));
  assert.equal(four.scales, Float32Array.of(1, 2));
  assert.throws(
    () => roundToNearest(Float32Array.of(1, NaN), [2, 1], { bits: 8 }),
    /finite: NaN at row 1, column 0/,
  );
});

const IDS = [[0, 71, 104, 33, 9, 200], [5, 6, 250, 7, 7, 1]];

/** The graph after a round trip through bytes, evaluated. */
function evaluated(
  folder: string,
  options: ExportOnnxOptions,
  rows: number[][],
  past: Record<string, Value> = {},
): Record<string, Value> {
  const { params, config } = loadHuggingFace(path.join(FIXTURES, folder));
  const model = readOnnx(writeOnnx(exportOnnx(params, config, options)));
  checkGraph(model.graph);
  tf.dispose(params);
  return evaluateOnnx(model.graph, {
    input_ids: { shape: [rows.length, rows[0].length], data: rows.flat() },
    ...past,
  });
}

/** Our logits with the linear layers' matrices changed. */
function ours(
  folder: string,
  change?: (
    weight: Float32Array,
    shape: [number, number],
    name: string,
  ) => Float32Array,
  onInput?: (module: string, x: Tensor) => Tensor | void,
): number[] {
  const { params, config } = loadHuggingFace(path.join(FIXTURES, folder));
  const named = Object.fromEntries(
    Object.entries(flatten(params)).map(([name, tensor]) => {
      const shape = tensor.shape as [number, number];
      if (change === undefined || !/_proj\.weight$/.test(name)) {
        return [name, tensor];
      }
      const values = tensor.dataSync() as Float32Array;
      return [name, tf.tensor(change(values, shape, name), shape)];
    }),
  );
  return tf.tidy(() =>
    Array.from(
      forward(nestParams(named), config, tf.tensor2d(IDS, [2, 6], "int32"), {
        onActivation: (name, x) =>
          /_proj\.input$/.test(name)
            ? onInput?.(name.slice(0, -6), x)
            : undefined,
      }).dataSync(),
    )
  );
}

function largestDifference(actual: number[], expected: number[]): number {
  assert.is(actual.length, expected.length);
  return actual.reduce((d, x, i) => Math.max(d, Math.abs(x - expected[i])), 0);
}

function closeTo(actual: number[], expected: number[], tolerance: number) {
  const worst = largestDifference(actual, expected);
  assert.ok(worst < tolerance, `largest difference ${worst}`);
}

for (const folder of ["llama-gqa", "llama-tied"]) {
  test(`${folder}: the graph computes our logits`, () => {
    const { logits } = evaluated(folder, {}, IDS);
    assert.equal(logits.shape, [2, 6, 260]);
    closeTo(logits.data, ours(folder), LOGIT_TOLERANCE);
  });

  test(`${folder}: so it does by parts, with a cache`, () => {
    const { config } = loadHuggingFace(path.join(FIXTURES, folder));
    const { numLayers, numKvHeads, hiddenSize, numHeads } = config;
    const headDim = config.headDim ?? hiddenSize / numHeads;
    let past: Record<string, Value> = {};
    for (let i = 0; i < 2 * numLayers; i++) {
      const name = `past_key_values.${i >> 1}.${i % 2 ? "value" : "key"}`;
      past[name] = { shape: [2, numKvHeads, 0, headDim], data: [] };
    }
    const expected = ours(folder);
    for (const [from, to] of [[0, 4], [4, 5], [5, 6]]) {
      const rows = IDS.map((row) => row.slice(from, to));
      const outputs = evaluated(folder, { cache: true }, rows, past);
      const wanted = [0, 1].flatMap((b) =>
        expected.slice((b * 6 + from) * 260, (b * 6 + to) * 260)
      );
      closeTo(outputs.logits.data, wanted, LOGIT_TOLERANCE);
      past = Object.fromEntries(
        Object.keys(past).map((name) => [
          name,
          outputs[name.replace("past_key_values", "present")],
        ]),
      );
      assert.equal(past["past_key_values.0.key"].shape[2], to);
    }
  });
}

test("qdq-int8 with float inputs is our model with rounded matrices", () => {
  const { logits } = evaluated("llama-gqa", { weights: "qdq-int8" }, IDS);
  const expected = ours(
    "llama-gqa",
    (w, shape) => dequantize(roundToNearest(w, shape, { bits: 8 }), shape),
  );
  closeTo(logits.data, expected, LOGIT_TOLERANCE);
  // Rounding does change the logits, so the two do not agree by chance.
  assert.ok(largestDifference(logits.data, ours("llama-gqa")) > 1e-3);
});

test("qdq-int8 rounds inputs to their calibrated ranges", () => {
  const { params, config } = loadHuggingFace(path.join(FIXTURES, "llama-gqa"));
  const batch = tf.tensor2d(IDS, [2, 6], "int32");
  const activations = calibrate(params, config, [batch]);
  const options = { weights: "qdq-int8", activations } as const;
  const { logits } = evaluated("llama-gqa", options, IDS);
  const expected = ours(
    "llama-gqa",
    (w, shape) => dequantize(roundToNearest(w, shape, { bits: 8 }), shape),
    (module, x) => {
      const { scale, zeroPoint } = activations[module];
      return x.div(scale).round().add(zeroPoint).clipByValue(0, 255)
        .sub(zeroPoint).mul(scale);
    },
  );
  closeTo(logits.data, expected, LOGIT_TOLERANCE);
});

/** The input of a layer rounded as DynamicQuantizeLinear does. */
function toRangeOfTheMoment(_: string, x: Tensor): Tensor {
  const values = Array.from(x.dataSync());
  const [min, max] = [Math.min(0, ...values), Math.max(0, ...values)];
  const scale = Math.fround((max - min) / 255);
  const zero = Math.round(-min / scale);
  return x.div(scale).round().add(zero).clipByValue(0, 255).sub(zero)
    .mul(scale);
}

test("matmulinteger rounds inputs to the range of the moment", () => {
  const options = { weights: "matmulinteger" } as const;
  const { logits } = evaluated("llama-gqa", options, IDS);
  const expected = ours(
    "llama-gqa",
    (w, shape) => dequantize(roundToNearest(w, shape, { bits: 8 }), shape),
    toRangeOfTheMoment,
  );
  closeTo(logits.data, expected, LOGIT_TOLERANCE);
});

test("8-bit weights are stored from 0 to 255, whose products no runtime saturates", () => {
  const { params, config } = loadHuggingFace(path.join(FIXTURES, "llama-gqa"));
  const name = "model.layers.0.self_attn.q_proj.weight";
  const values = flatten(params)[name].dataSync() as Float32Array;
  const [rows, columns] = flatten(params)[name].shape;
  const { codes } = roundToNearest(values, [rows, columns], { bits: 8 });
  for (const weights of ["qdq-int8", "matmulinteger"] as const) {
    const { graph } = exportOnnx(params, config, { weights });
    const types = new Set(graph.initializers.map(({ dtype }) => dtype));
    assert.not.ok(types.has("int8"), weights);
    const stored = graph.initializers.find((tensor) =>
      tensor.name === `${name}.codes`
    )!;
    // Turned round: row 1, column 0 is the second number.
    assert.equal(Array.from(stored.data.slice(0, 2), Number), [
      codes[0] + 128,
      codes[columns] + 128,
    ]);
  }
});

test("matmulnbits is our model with 4-bit groups, a short last group too", () => {
  // 24 columns make a group of 16 and one of 8.
  const options = { weights: "matmulnbits", groupSize: 16 } as const;
  const { logits } = evaluated("llama-gqa", options, IDS);
  const expected = ours(
    "llama-gqa",
    (w, shape) =>
      dequantize(roundToNearest(w, shape, { bits: 4, groupSize: 16 }), shape),
  );
  closeTo(logits.data, expected, LOGIT_TOLERANCE);
});

/** Min-max codes without sign, whose zero points differ by row and group. */
function fromZero(bits: 4 | 8, groupSize?: number) {
  return (
    weight: Float32Array,
    [rows, columns]: [number, number],
  ): QuantizedMatrix => {
    const size = groupSize ?? columns;
    const groups = Math.ceil(columns / size);
    const codes = new Uint8Array(weight.length);
    const scales = new Float32Array(rows * groups);
    const zeroPoints = new Int32Array(rows * groups);
    for (let g = 0; g < scales.length; g++) {
      const start = Math.floor(g / groups) * columns + g % groups * size;
      const end = start + Math.min(size, columns - g % groups * size);
      const [low, high] = [Math.min, Math.max].map((f) =>
        f(0, ...weight.subarray(start, end))
      );
      const most = 2 ** bits - 1;
      scales[g] = (high - low) / most || 1;
      zeroPoints[g] = Math.round(-low / scales[g]);
      for (let i = start; i < end; i++) {
        const code = Math.round(weight[i] / scales[g]) + zeroPoints[g];
        codes[i] = Math.min(most, Math.max(0, code));
      }
    }
    return { bits, codes, scales, zeroPoints, groupSize: size };
  };
}

test("zero points of rows and groups are those of the matrix", () => {
  for (
    const [weights, quantize] of [
      ["qdq-int8", fromZero(8)],
      ["matmulnbits", fromZero(4, 16)],
      ["matmulinteger", fromZero(8)],
    ] as const
  ) {
    const options = { weights, quantize, groupSize: 16 };
    const logits = evaluated("llama-gqa", options, IDS).logits.data;
    const inputs = weights === "matmulinteger" ? toRangeOfTheMoment : undefined;
    const expected = ours(
      "llama-gqa",
      (w, s) => dequantize(quantize(w, s), s),
      inputs,
    );
    closeTo(logits, expected, LOGIT_TOLERANCE);
    const symmetric = ours(
      "llama-gqa",
      (w, s) => dequantize({ ...quantize(w, s), zeroPoints: undefined }, s),
      inputs,
    );
    assert.ok(largestDifference(logits, symmetric) > 0.1, weights);
  }
});

test("rows of three groups: zero points begin at whole bytes", () => {
  const config = {
    vocabSize: 260,
    hiddenSize: 48,
    intermediateSize: 40,
    numLayers: 1,
    numHeads: 2,
    numKvHeads: 2,
    maxPositions: 8,
  };
  const params = initLlama(config, key(3));
  const quantize = fromZero(4, 16);
  const { graph } = readOnnx(writeOnnx(exportOnnx(params, config, {
    weights: "matmulnbits",
    groupSize: 16,
    quantize,
  })));
  const { logits } = evaluateOnnx(graph, {
    input_ids: { shape: [2, 6], data: IDS.flat() },
  });
  const named = Object.fromEntries(
    Object.entries(flatten(params)).map(([name, tensor]) => {
      if (!/_proj\.weight$/.test(name)) return [name, tensor];
      const shape = tensor.shape as [number, number];
      const values = tensor.dataSync() as Float32Array;
      return [
        name,
        tf.tensor(dequantize(quantize(values, shape), shape), shape),
      ];
    }),
  );
  const expected = forward(
    nestParams(named),
    config,
    tf.tensor2d(IDS, [2, 6], "int32"),
  );
  closeTo(logits.data, Array.from(expected.dataSync()), LOGIT_TOLERANCE);
});

test("codes may come from elsewhere, and are checked", () => {
  const { params, config } = loadHuggingFace(path.join(FIXTURES, "llama-gqa"));
  const flat = (value: number, bits: 4 | 8) =>
  (
    weight: Float32Array,
    [rows, columns]: [number, number],
  ): QuantizedMatrix => ({
    bits,
    codes: new Int8Array(weight.length).fill(value),
    scales: new Float32Array(rows * Math.ceil(columns / 32)).fill(0.25),
    groupSize: 32,
  });
  const of = (quantize: ExportOnnxOptions["quantize"]) =>
    exportOnnx(params, config, { weights: "matmulnbits", quantize });
  const { initializers } = of(flat(-3, 4)).graph;
  const codes = initializers.find(({ name }) =>
    name === "model.layers.0.self_attn.q_proj.weight.codes"
  )!;
  // Code -3 is stored as 5; columns 16 to 31 are padding, stored as 8.
  assert.equal(Array.from(codes.data.slice(0, 9), Number), [
    ...new Array(8).fill(0x55),
    0x88,
  ]);
  assert.throws(() => of(flat(8, 4)), /q_proj .*code 8 at 0/);
  assert.throws(() => of(flat(1, 8)), /256 of 4 bits .*: 256 of 8 bits/);
  const zeros = (zeroPoints: number[]) => () =>
    of((w, shape) => ({ ...flat(1, 4)(w, shape), zeroPoints }));
  assert.throws(zeros([0]), /one a scale: 1 for 16 scales/);
  assert.throws(
    zeros([...new Array(15).fill(-8), 8]),
    /must be codes of 4 bits.*16 for 16 scales, 8 at 15/,
  );
  assert.throws(zeros(new Array(16).fill(0.5)), /codes of 4 bits.*0\.5 at 0/);
});

test("options and parameters that do not fit are refused", () => {
  const { params, config } = loadHuggingFace(path.join(FIXTURES, "llama-gqa"));
  const run = (options: ExportOnnxOptions) =>
    exportOnnx(params, config, options);
  assert.throws(() => run({ groupSize: 24 }), /power of two from 16: 24/);
  assert.throws(
    () => run({ weights: "int4" as never }),
    /weights must be one of float32, .*: int4/,
  );
  assert.throws(
    () => run({ activations: { "model.x": { scale: 1, zeroPoint: 0 } } }),
    /module of the model.*: model\.x/,
  );
  assert.throws(
    () => run({ activations: { lm_head: { scale: 0, zeroPoint: 0 } } }),
    /lm_head, scale 0/,
  );
  assert.throws(
    () => exportOnnx(params, { ...config, numLayers: 1 }, {}),
    /model\.layers\.1\.\S+ \[\d.*instead of \[none\]/,
  );
  const q = params.model.layers[0].self_attn.q_proj.weight;
  (q as ReturnType<typeof tf.variable>).assign(tf.fill(q.shape, NaN));
  assert.throws(
    () => run({ weights: "matmulnbits" }),
    /model\.layers\.0\.self_attn\.q_proj\.weight must be finite: NaN at 0/,
  );
  assert.throws(() => run({}), /must be finite: NaN at 0/);
});

test.run();
