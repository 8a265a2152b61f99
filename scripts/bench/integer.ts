/**
 * Integer linear layers beside the float ones of our own kernels and of the best float product here.
 *
 *     npx tsx scripts/bench/integer.ts            the table, about 20 seconds
 *     npx tsx scripts/bench/integer.ts --json     the same as JSON
 *
 * One thread. The engines take turns, several rounds of them, and the fastest repetition counts: it is the
 * one that others on the machine disturbed least. "gemm" is the integer product alone; "layer" is what
 * replaces the float product: float32 in, quantised by row, multiplied, scaled, float32 out. Packing the weights
 * is done once a model and has a column of its own. Each product is checked against plain sums before its time
 * is shown. ONNX Runtime takes part if ONNX_RUNTIME names the folder where onnxruntime-node is installed; its
 * times include its binding.
 */
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import {
  type OnnxNode,
  type OnnxTensor,
  packInt4,
  writeOnnx,
} from "../../lib/core/formats/onnx.ts";
import { backendInfo, ready, tf } from "../../lib/core/tensor.ts";
import {
  type Format,
  type IntegerEngine,
  intsAt,
  linear,
  multiply,
  openIntegerEngine,
  packWeights,
  putFloats,
  quantizeActivations,
} from "../../lib/core/integer/bindings.ts";
import { address, kernels, output } from "../../lib/core/kernels/bindings.ts";
import * as nn from "../../lib/core/nn.ts";
import { key, normal, randomInts } from "../../lib/core/rng.ts";
import { machineInfo } from "../../lib/core/provenance.ts";
import { main, textTable } from "../cli.ts";
import { now } from "./measure.ts";

/** y[m, n] = x[m, k] W[n, k]^T. */
export interface Shape {
  m: number;
  n: number;
  k: number;
}

/** One engine at one shape; times are the fastest of all repetitions. */
export interface IntegerRow extends Shape {
  engine: string;
  /** Bits that a stored weight takes, without scales. */
  storedBits: number;
  /** The product alone; NaN where it has no such part. */
  gemmMs: number;
  layerMs: number;
  /** Quantising the activations, a part of the layer. */
  quantizeMs: number;
  packMs: number;
  /** Times faster than our own float32 kernel; for ONNX Runtime, than its own. */
  speedup: number;
  /** Times faster than the fastest float32 product here. */
  speedupBest: number;
}

export const SHAPES: Shape[] = [
  { m: 64, n: 512, k: 512 },
  { m: 128, n: 1024, k: 256 },
  { m: 64, n: 2048, k: 2048 },
  { m: 1, n: 512, k: 512 },
  { m: 1, n: 2048, k: 2048 },
];

const FORMATS: Record<Format, { bits: number; codes: [number, number] }> = {
  int8: { bits: 8, codes: [-128, 128] },
  pairs: { bits: 8, codes: [-8, 8] },
  "nibble-pairs": { bits: 4, codes: [-8, 8] },
  agile: { bits: 8, codes: [-8, 8] },
  "nibble-groups": { bits: 4, codes: [0, 16] },
  bytes: { bits: 8, codes: [0, 16] },
};

/** k of a group of the grouped format, as in GPTQ's and Agile-Quant's settings. */
const GROUP = 128;

/** Sums that are checked of every product. */
const CHECKED = 64;

interface Contender {
  engine: string;
  storedBits: number;
  packMs: number;
  gemm: (() => void) | null;
  quantize: (() => void) | null;
  layer: () => void;
}

/** Throws unless a sample of the sums is that of the codes. */
function check(
  engine: IntegerEngine,
  format: Format,
  { m, n, k }: Shape,
  codes: Int8Array | Uint8Array,
): void {
  const mark = engine.mark();
  const x = putFloats(
    engine,
    Float32Array.from(randomInts(key(3), m * k, -7, 8)),
  );
  const a = quantizeActivations(engine, x, m, k, { format, scale: 1 });
  const b = packWeights(engine, codes, n, k, { format });
  const c = engine.allocate(4 * m * n);
  multiply(engine, a, b, c);
  const sums = intsAt(engine, c, m * n);
  const values = new Float32Array(engine.memory.buffer, x, m * k);
  for (const at of randomInts(key(4), CHECKED, 0, m * n)) {
    const [i, j] = [Math.floor(at / n), at % n];
    let sum = 0;
    for (let p = 0; p < k; p++) sum += values[i * k + p] * codes[j * k + p];
    if (sums[at] !== sum) {
      throw new Error(
        `Cannot time ${format} as its sums must be exact: ${
          sums[at]
        } for ${sum}`,
      );
    }
  }
  engine.release(mark);
}

function integerContender(
  engine: IntegerEngine,
  format: Format,
  shape: Shape,
  x: Float32Array,
): Contender {
  const { m, n, k } = shape;
  const { bits, codes: [low, high] } = FORMATS[format];
  const values = randomInts(key(2), n * k, low, high);
  const codes = low < 0 ? Int8Array.from(values) : Uint8Array.from(values);
  const grouped = format === "nibble-groups";
  if (!grouped) check(engine, format, shape, codes);
  const scale = normal(key(5), grouped ? n * (k / GROUP) : n).map((s) =>
    0.01 + Math.abs(s) / 100
  );
  const start = now();
  const weights = packWeights(engine, codes, n, k, {
    format,
    scale,
    ...(grouped ? { groupSize: GROUP, zeroPoint: 8 } : {}),
  });
  const packMs = now() - start;
  const input = putFloats(engine, x);
  const y = engine.allocate(4 * m * n);
  const packed = quantizeActivations(engine, input, m, k, { format });
  const temporary = (work: () => void) => () => {
    const mark = engine.mark();
    work();
    engine.release(mark);
  };
  const quantize = () => quantizeActivations(engine, input, m, k, { format });
  return {
    engine: `${engine.build} ${format}`,
    storedBits: bits,
    packMs,
    gemm: grouped ? null : () => multiply(engine, packed, weights, y),
    quantize: temporary(quantize),
    layer: temporary(() => linear(engine, quantize(), weights, y)),
  };
}

/** Our own float32 kernel, and `nn.matmul`, which takes a system BLAS where there is one. */
function floatContenders({ m, n, k }: Shape, x: Float32Array): Contender[] {
  const a = tf.tensor2d(x, [m, k]);
  const b = tf.tensor2d(normal(key(6), n * k), [n, k]);
  const c = output([m, n]);
  const own = kernels();
  if (own === null) {
    throw new Error(
      "Cannot time our float32 kernels as they do not run on this backend",
    );
  }
  const wasm = (tf.backend() as unknown as {
    wasm: { _malloc(bytes: number): number };
  }).wasm;
  const scratch = wasm._malloc(own.gemmScratchBytes());
  const [pa, pb, pc] = [a, b, c].map(address);
  const common = {
    storedBits: 32,
    packMs: 0,
    gemm: null,
    quantize: null,
  };
  const { blas, kernels: build } = backendInfo();
  const contenders: Contender[] = [{
    ...common,
    engine: `${build} float32`,
    layer: () => own.gemm(0, 1, m, n, k, 1, pa, k, pb, k, 0, pc, n, scratch),
  }];
  if (blas !== null) {
    contenders.push({
      ...common,
      engine: `${blas} float32`,
      layer: () => nn.matmul(a, b, { transposeB: true }).dispose(),
    });
  }
  return contenders;
}

// What is used of onnxruntime-node, which is not a dependency.
interface Ort {
  Tensor: new (type: "float32", data: Float32Array, dims: number[]) => unknown;
  InferenceSession: {
    create(bytes: Uint8Array, options: object): Promise<{
      run(feeds: Record<string, unknown>): Promise<unknown>;
    }>;
  };
}

interface OrtContender {
  engine: string;
  storedBits: number;
  layer: () => Promise<unknown>;
}

/** Columns that share a scale in MatMulNBits. */
const BLOCK = 32;

/** One linear layer as ONNX Runtime computes it: in float32, in 8-bit and in 4-bit weights. */
async function ortContenders(
  folder: string,
  { m, n, k }: Shape,
  x: Float32Array,
): Promise<OrtContender[]> {
  const ort = createRequire(join(resolve(folder), "package.json"))(
    "onnxruntime-node",
  ) as Ort;
  const scales = (name: string, count: number): OnnxTensor => ({
    name,
    dtype: "float32",
    shape: [count],
    data: new Float32Array(count).fill(0.01),
  });
  const codes = randomInts(key(2), n * k, 0, 16);
  const node = (
    opType: string,
    inputs: string[],
    outputs: string[],
    attributes: Record<string, number> = {},
    domain?: string,
  ): OnnxNode => ({
    opType,
    inputs,
    outputs,
    name: outputs[0],
    ...(domain && { domain }),
    attributes: Object.fromEntries(
      Object.entries(attributes).map((
        [name, value],
      ) => [name, { type: "int", value }]),
    ),
  });
  const kinds: [string, number, OnnxNode[], OnnxTensor[]][] = [
    ["MatMul float32", 32, [node("MatMul", ["x", "w"], ["y"])], [{
      name: "w",
      dtype: "float32",
      shape: [k, n],
      data: normal(key(6), k * n),
    }]],
    ["MatMulInteger", 8, [
      node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
      node("MatMulInteger", ["q", "w", "z", "zero"], ["sums"]),
      node("Cast", ["sums"], ["float"], { to: 1 }),
      node("Mul", ["s", "scales"], ["both"]),
      node("Mul", ["float", "both"], ["y"]),
    ], [
      {
        name: "w",
        dtype: "uint8",
        shape: [k, n],
        data: Uint8Array.from(codes),
      },
      { name: "zero", dtype: "uint8", shape: [], data: Uint8Array.of(8) },
      scales("scales", n),
    ]],
    ["MatMulNBits, level 4", 4, [
      node("MatMulNBits", ["x", "w", "scales"], ["y"], {
        K: k,
        N: n,
        bits: 4,
        block_size: BLOCK,
        accuracy_level: 4,
      }, "com.microsoft"),
    ], [
      {
        name: "w",
        dtype: "uint8",
        shape: [n, k / BLOCK, BLOCK / 2],
        data: packInt4(codes, "uint4"),
      },
      scales("scales", n * k / BLOCK),
    ]],
  ];
  const input = new ort.Tensor("float32", x, [m, k]);
  return await Promise.all(
    kinds.map(async ([name, storedBits, nodes, initializers]) => {
      const session = await ort.InferenceSession.create(
        writeOnnx({
          irVersion: 8,
          opsets: { "": 18, "com.microsoft": 1 },
          graph: {
            name: "layer",
            nodes,
            initializers,
            inputs: [{ name: "x", dtype: "float32", shape: [m, k] }],
            outputs: [{ name: "y", dtype: "float32", shape: [m, n] }],
          },
        }),
        { intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 3 },
      );
      return {
        engine: `ONNX Runtime ${name}`,
        storedBits,
        layer: () => session.run({ x: input }),
      };
    }),
  );
}

/** As `fastest`, of work that is not done when it returns. */
async function fastestOf(
  work: () => Promise<unknown>,
  milliseconds: number,
): Promise<number> {
  let best = Infinity;
  const end = now() + milliseconds;
  for (let i = 0; i < 2 || now() < end; i++) {
    const start = now();
    await work();
    best = Math.min(best, now() - start);
  }
  return best;
}

/** Milliseconds of the fastest of as many runs as fit into `milliseconds`, at least two. */
function fastest(work: () => void, milliseconds: number): number {
  let best = Infinity;
  const end = now() + milliseconds;
  for (let i = 0; i < 2 || now() < end; i++) {
    const start = now();
    work();
    best = Math.min(best, now() - start);
  }
  return best;
}

/** Every engine at every shape. */
export async function measureIntegers(
  {
    shapes = SHAPES,
    rounds = 3,
    milliseconds = 30,
    ort = process.env.ONNX_RUNTIME,
  }: {
    shapes?: Shape[];
    rounds?: number;
    milliseconds?: number;
    /** Folder of onnxruntime-node. */
    ort?: string;
  } = {},
): Promise<IntegerRow[]> {
  await ready();
  const rows: IntegerRow[] = [];
  for (const shape of shapes) {
    const engine = openIntegerEngine();
    const x = normal(key(1), shape.m * shape.k);
    // Without the i8 dot product of relaxed SIMD, `bytes` only stands in for it.
    const formats = (Object.keys(FORMATS) as Format[]).filter((format) =>
      format !== "bytes" || engine.build === "relaxed"
    );
    const floats = floatContenders(shape, x);
    const contenders = [
      ...floats,
      ...formats.map((f) => integerContender(engine, f, shape, x)),
    ];
    const times = contenders.map(() => ({
      gemmMs: Infinity,
      quantizeMs: Infinity,
      layerMs: Infinity,
    }));
    const others = ort === undefined ? [] : await ortContenders(ort, shape, x);
    const otherMs = others.map(() => Infinity);
    for (let round = 0; round < rounds; round++) {
      for (const [i, { layer }] of others.entries()) {
        const ms = await fastestOf(layer, milliseconds);
        otherMs[i] = Math.min(otherMs[i], ms);
      }
      contenders.forEach(({ gemm, quantize, layer }, i) => {
        const t = times[i];
        t.layerMs = Math.min(t.layerMs, fastest(layer, milliseconds));
        if (gemm !== null) {
          t.gemmMs = Math.min(t.gemmMs, fastest(gemm, milliseconds));
        }
        if (quantize !== null) {
          t.quantizeMs = Math.min(
            t.quantizeMs,
            fastest(quantize, milliseconds / 4),
          );
        }
      });
    }
    const own = times[0].layerMs;
    const ortOwn = Math.min(
      ...otherMs.filter((_, i) => others[i].storedBits === 32),
    );
    const best = Math.min(
      ...times.slice(0, floats.length).map((t) => t.layerMs),
      ortOwn,
    );
    contenders.forEach(({ engine, storedBits, packMs }, i) => {
      const { gemmMs, quantizeMs, layerMs } = times[i];
      rows.push({
        ...shape,
        engine,
        storedBits,
        packMs,
        gemmMs: gemmMs === Infinity ? NaN : gemmMs,
        quantizeMs: quantizeMs === Infinity ? 0 : quantizeMs,
        layerMs,
        speedup: own / layerMs,
        speedupBest: best / layerMs,
      });
    });
    others.forEach(({ engine, storedBits }, i) =>
      rows.push({
        ...shape,
        engine,
        storedBits,
        packMs: 0,
        gemmMs: NaN,
        quantizeMs: 0,
        layerMs: otherMs[i],
        speedup: ortOwn / otherMs[i],
        speedupBest: best / otherMs[i],
      })
    );
  }
  return rows;
}

/** The rows as text. */
export function integerTable(rows: IntegerRow[]): string {
  const rate = ({ m, n, k }: Shape, ms: number) =>
    Number.isNaN(ms) ? "-" : (2 * m * n * k / ms / 1e6).toFixed(1);
  return textTable([
    [
      "m n k",
      "engine",
      "stored bits",
      "gemm Gop/s",
      "layer Gop/s",
      "layer ms",
      "quantise ms",
      "pack ms",
      "to own f32",
      "to best f32",
    ],
    ...rows.map((row) => [
      `${row.m} ${row.n} ${row.k}`,
      row.engine,
      `${row.storedBits}`,
      rate(row, row.gemmMs),
      rate(row, row.layerMs),
      row.layerMs.toFixed(4),
      row.quantizeMs.toFixed(4),
      row.packMs.toFixed(2),
      `${row.speedup.toFixed(2)}x`,
      `${row.speedupBest.toFixed(2)}x`,
    ]),
  ], { width: 160 });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main(async () => {
    const rows = await measureIntegers();
    if (process.argv.includes("--json")) {
      console.log(JSON.stringify({ machine: machineInfo(), rows }, null, 1));
    } else console.log(integerTable(rows));
  });
}
