/**
 * Inference of one language model in float32 and in integers: our engine, ONNX Runtime and llama.cpp.
 *
 * LLaMA-58M of EdgeQAT (arXiv 2402.10787v2, section V: 16 layers, width 512, feed-forward 1024, 8 heads, vocabulary
 * 16,000; 128 tokens of input), with weights that are not trained: speed does not depend on them. One thread; the
 * contenders take turns, and the median of the rounds counts. Heads have the bits of the other layers. With mixed
 * bits a part of the tokens has 8, by how much they attend to the first one, and the others 4; a token that is decoded
 * is alone, with none to be ranked among, so mixes have no time for it. Our engine runs in Deno too, in a process of its own with contenders of its own, as its V8 has the dot product of bytes.
 *
 * ONNX Runtime and llama.cpp take part if ONNX_RUNTIME and LLAMA_CPP name the folders where onnxruntime-node and
 * node-llama-cpp are installed, as for scripts/referee; else the result says that they are absent.
 */
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { loadavg, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import {
  createEngine,
  type EngineOptions,
  type EngineTokenBits,
} from "../../lib/core/engine.ts";
import { saveGguf } from "../../lib/core/formats/gguf.ts";
import { exportGguf } from "../../lib/core/formats/gguf-llama.ts";
import { loadHuggingFace } from "../../lib/core/formats/huggingface.ts";
import { writeOnnx } from "../../lib/core/formats/onnx.ts";
import {
  exportOnnx,
  type ExportOnnxOptions,
  roundToNearest,
} from "../../lib/core/formats/onnx-llama.ts";
import { findBlas } from "../../lib/core/kernels/blas.ts";
import {
  type LlamaConfig,
  type LlamaParams,
  nestParams,
  parameterShapes,
} from "../../lib/core/llama.ts";
import { projectRoot } from "../../lib/core/runs.ts";
import { ready, tf } from "../../lib/core/tensor.ts";
import { importantTokens } from "../../lib/edgeqat/importance.ts";
import { median, now } from "./measure.ts";
import { ask, denoCommand, ONE_THREAD } from "./peers.ts";

const CONFIG: LlamaConfig = {
  vocabSize: 16000,
  hiddenSize: 512,
  intermediateSize: 1024,
  numLayers: 16,
  numHeads: 8,
  numKvHeads: 8,
  maxPositions: 256,
};
const PROMPT = 128;
const DECODED = 16;

/** Part of the prompt that has 8 bits, by the name of 4-bit to 8-bit tokens in EdgeQAT's Table IV. */
const MIXES = { "3:1": 0.25, "1:1": 0.5, "1:3": 0.75 };

/** Times faster than float32 of the same engine, end to end: the papers' greatest. */
const BARS: { name: string; bits: RegExp; least: number }[] = [
  { name: "W4A8", bits: /^W4A8$/, least: 2.55 },
  { name: "W4A4", bits: /^W4A4$/, least: 2.37 },
  { name: "W4A4 mixed with 8 bits", bits: /^W4A4\/8/, least: 2.37 },
];

/** One contender; times are medians. */
export interface QuantRow {
  engine: string;
  /** What is stored and multiplied. */
  kind: string;
  bits: string;
  prefillMs: number;
  /** Null for mixes. */
  decodeMs: number | null;
  modelBytes: number;
  cacheBytes: number | null;
  /** Times faster than the best float32 of the same engine, and than the best float32 overall. */
  prefillOwn: number;
  prefillBest: number;
  decodeOwn: number | null;
  decodeBest: number | null;
}

const isMix = (bits: string) => bits.startsWith("W4A4/8");

interface Contender
  extends
    Pick<QuantRow, "engine" | "kind" | "bits" | "modelBytes" | "cacheBytes"> {
  /** Reads the prompt from the start. */
  prefill(): void | Promise<void>;
  /** Reads `DECODED` tokens behind it, one at a time. */
  decode(): void | Promise<void>;
}

const ids = Array.from({ length: PROMPT }, (_, i) => i * 77 % 1000);

function model(): LlamaParams {
  return nestParams(Object.fromEntries(
    Object.entries(parameterShapes(CONFIG)).map(([name, shape], salt) => {
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
      for (let i = 0; i < values.length; i++) {
        values[i] = shape.length === 1 ? 1 : 0.05 * Math.sin(i * 1.7 + salt);
      }
      return [name, tf.tensor(values, shape)];
    }),
  ));
}

async function ownContenders(params: LlamaParams): Promise<Contender[]> {
  const integers = (
    bits: number,
    activationBits: number | EngineTokenBits,
  ): EngineOptions => ({
    weights: {
      bits,
      headBits: bits,
      quantize(weight) {
        const [rows, columns] = weight.shape;
        const matrix = roundToNearest(
          weight.dataSync() as Float32Array,
          [rows, columns],
          { bits: bits as 4 | 8 },
        );
        return { codes: matrix.codes, scale: matrix.scales };
      },
    },
    activations: { bits: activationBits },
  });
  const { blas } = await findBlas(process.env.ADIABAT_BLAS, 1);
  const list: [string, EngineOptions][] = [
    ["F32", {}],
    ["W8A8", integers(8, 8)],
    ["W4A8", integers(4, 8)],
    ["W4A8", { ...integers(4, 8), format: "nibble-groups" }],
    ["W4A4", integers(4, 4)],
    ["W4A4", { ...integers(4, 4), format: "nibble-pairs" }],
    ...Object.entries(MIXES).map(([name, ratio]): [string, EngineOptions] => [
      `W4A4/8 ${name}`,
      integers(4, { important: (scores) => importantTokens(scores, ratio) }),
    ]),
  ];
  if (blas !== null) list.push(["F32", { blas }]);
  return list.map(([bits, options]) => {
    const engine = createEngine(params, CONFIG, options);
    return {
      engine: options.blas ? "ours with BLAS" : "ours",
      kind: engine.name,
      bits,
      modelBytes: engine.modelBytes,
      cacheBytes: engine.cacheBytes,
      prefill() {
        engine.reset();
        engine.prefill(ids);
      },
      decode() {
        for (let i = 0; i < DECODED; i++) engine.decode(ids[i]);
      },
    };
  });
}

// What is used of onnxruntime-node, which is not a dependency.
interface OrtSession {
  run(feeds: Record<string, unknown>): Promise<Record<string, unknown>>;
}
interface OrtRuntime {
  Tensor: new (type: string, data: unknown, dims: number[]) => unknown;
  InferenceSession: {
    create(bytes: Uint8Array, options: object): Promise<OrtSession>;
  };
}

async function ortContenders(
  params: LlamaParams,
  folder: string,
): Promise<Contender[]> {
  const ort = createRequire(join(resolve(folder), "package.json"))(
    "onnxruntime-node",
  ) as OrtRuntime;
  const list: [string, string, ExportOnnxOptions][] = [
    ["F32", "MatMul", { weights: "float32" }],
    ["W8A8", "MatMulInteger", { weights: "matmulinteger" }],
    ["W4A8", "MatMulInteger, 4-bit codes in 8 bits", {
      weights: "matmulinteger",
      quantize: (weight, shape) => ({
        ...roundToNearest(weight, shape, { bits: 4 }),
        bits: 8,
      }),
    }],
    ["W4A8", "MatMulNBits, level 4", {
      weights: "matmulnbits",
      accuracyLevel: 4,
    }],
    ["W4A32", "MatMulNBits, level 1", {
      weights: "matmulnbits",
      accuracyLevel: 1,
    }],
  ];
  const contenders: Contender[] = [];
  for (const [bits, kind, options] of list) {
    const bytes = writeOnnx(exportOnnx(params, CONFIG, {
      ...options,
      cache: true,
      head: bits === "F32" ? "float32" : "quantized",
    }));
    const session = await ort.InferenceSession.create(bytes, {
      intraOpNumThreads: 1,
      interOpNumThreads: 1,
      logSeverityLevel: 3,
    });
    const { numLayers, numKvHeads, hiddenSize, numHeads } = CONFIG;
    const empty: Record<string, unknown> = {};
    for (let i = 0; i < numLayers; i++) {
      for (const part of ["key", "value"]) {
        empty[`past_key_values.${i}.${part}`] = new ort.Tensor(
          "float32",
          new Float32Array(0),
          [1, numKvHeads, 0, hiddenSize / numHeads],
        );
      }
    }
    let past = empty;
    const read = async (tokens: number[]) => {
      const outputs = await session.run({
        input_ids: new ort.Tensor(
          "int64",
          BigInt64Array.from(tokens, BigInt),
          [1, tokens.length],
        ),
        ...past,
      });
      past = Object.fromEntries(
        Object.entries(outputs)
          .filter(([name]) => name.startsWith("present."))
          .map(([name, value]) => [
            name.replace("present.", "past_key_values."),
            value,
          ]),
      );
    };
    contenders.push({
      engine: "ONNX Runtime",
      kind,
      bits,
      modelBytes: bytes.length,
      cacheBytes: null,
      async prefill() {
        past = empty;
        await read(ids);
      },
      async decode() {
        for (let i = 0; i < DECODED; i++) await read([ids[i]]);
      },
    });
  }
  return contenders;
}

// What is used of node-llama-cpp, which is not a dependency.
interface LlamaSequence {
  clearHistory(): Promise<void>;
  evaluate(tokens: number[], options: object): AsyncIterable<number>;
}
interface LlamaBinding {
  getLlama(options: object): Promise<{
    loadModel(options: object): Promise<{
      createContext(
        options: object,
      ): Promise<{ getSequence(): LlamaSequence }>;
    }>;
  }>;
}

/** Tokens are sampled, as the binding has no other way to have the head computed without copying logits. */
async function llamaContenders(
  params: LlamaParams,
  folder: string,
  scratch: string,
): Promise<Contender[]> {
  const entry = "node_modules/node-llama-cpp/dist/index.js";
  const { getLlama }: LlamaBinding = await import(
    pathToFileURL(join(resolve(folder), entry)).href
  );
  const llama = await getLlama({
    gpu: false,
    build: "never",
    skipDownload: true,
    logLevel: "error",
    maxThreads: 1,
  });
  const { tokenizer, eosTokenIds } = loadHuggingFace(
    join(projectRoot(), "data", "models", "small"),
  );
  const contenders: Contender[] = [];
  for (
    const [bits, type] of [
      ["F32", "F32"],
      ["W8A8", "Q8_0"],
      ["W4A8", "Q4_0"],
    ] as const
  ) {
    const file = join(scratch, `${type}.gguf`);
    saveGguf(
      file,
      exportGguf(params, CONFIG, tokenizer, {
        type,
        eosTokenId: eosTokenIds[0],
      }),
    );
    const loaded = await llama.loadModel({ modelPath: file, gpuLayers: 0 });
    const context = await loaded.createContext({
      contextSize: CONFIG.maxPositions,
      threads: 1,
    });
    const sequence = context.getSequence();
    let rest: AsyncIterator<number> | null = null;
    contenders.push({
      engine: "llama.cpp",
      kind: type,
      bits,
      modelBytes: statSync(file).size,
      cacheBytes: null,
      async prefill() {
        await rest?.return?.();
        await sequence.clearHistory();
        rest = sequence.evaluate(ids, {
          temperature: 0,
          yieldEogToken: true,
        })[Symbol.asyncIterator]();
        await rest.next();
      },
      async decode() {
        for (let i = 0; i < DECODED; i++) await rest!.next();
      },
    });
  }
  return contenders;
}

/** Prefill and decode of contenders in turns. */
async function timeContenders(
  contenders: Contender[],
  repeats: number,
  progress: (line: string) => void,
): Promise<QuantRow[]> {
  const times = contenders.map(() => ({
    prefill: [] as number[],
    decode: [] as number[],
  }));
  for (let round = -1; round < repeats; round++) { // the first is to warm up
    for (const [i, contender] of contenders.entries()) {
      const start = now();
      await contender.prefill();
      const middle = now();
      await contender.decode();
      if (round < 0) continue;
      times[i].prefill.push(middle - start);
      times[i].decode.push((now() - middle) / DECODED);
    }
    progress(`  round ${round + 1} of ${repeats}`);
  }
  return contenders.map((contender, i): QuantRow => {
    const { engine, kind, bits, modelBytes, cacheBytes } = contender;
    const [prefillMs, decodeMs] = [times[i].prefill, times[i].decode]
      .map(median);
    return {
      engine,
      kind,
      bits,
      prefillMs,
      decodeMs: isMix(bits) ? null : decodeMs,
      modelBytes,
      cacheBytes,
      prefillOwn: 0,
      prefillBest: 0,
      decodeOwn: 0,
      decodeBest: 0,
    };
  });
}

/** Our engine in this process, whatever runs it. */
export async function timeOwn(
  { repeats }: { repeats: number },
): Promise<QuantRow[]> {
  await ready();
  const params = model();
  const contenders = await ownContenders(params);
  tf.dispose(params);
  return timeContenders(contenders, repeats, () => {});
}

/** The same rows of a process of Deno. */
async function denoRows(repeats: number, command: string[]) {
  const rows = await ask<QuantRow[]>({
    id: "deno",
    name: "our engine in Deno",
    command,
    environment: ONE_THREAD,
    engine: "ours",
  }, { quant: { repeats } });
  return rows.map((row) => ({
    ...row,
    engine: row.engine.replace("ours", "ours in Deno"),
  }));
}

/** Fills in how many times faster each row is than float32. */
function compare(rows: QuantRow[]): void {
  const floats = rows.filter(({ bits }) => bits === "F32");
  const best = (some: QuantRow[], of: "prefillMs" | "decodeMs") =>
    Math.min(...some.map((row) => row[of] ?? Infinity));
  for (const row of rows) {
    const own = floats.filter(({ engine }) => engine === row.engine);
    row.prefillOwn = best(own, "prefillMs") / row.prefillMs;
    row.prefillBest = best(floats, "prefillMs") / row.prefillMs;
    if (row.decodeMs === null) {
      [row.decodeOwn, row.decodeBest] = [null, null];
      continue;
    }
    row.decodeOwn = best(own, "decodeMs") / row.decodeMs;
    row.decodeBest = best(floats, "decodeMs") / row.decodeMs;
  }
}

/** Every contender, and who is absent. */
export async function measureQuant(
  { repeats }: { repeats: number },
  progress: (line: string) => void,
): Promise<{
  config: LlamaConfig;
  prompt: number;
  load: { before: number; after: number };
  rows: QuantRow[];
  absent: string[];
  bars: { name: string; measured: string; verdict: string }[];
}> {
  await ready();
  const before = loadavg()[0];
  progress(`Inference of LLaMA-58M, load ${before.toFixed(2)}`);
  const params = model();
  const scratch = mkdtempSync(join(tmpdir(), "adiabat-quant-"));
  const absent: string[] = [];
  const { ONNX_RUNTIME: ort, LLAMA_CPP: llama } = process.env;
  try {
    const contenders = await ownContenders(params);
    if (ort === undefined) {
      absent.push("ONNX Runtime: ONNX_RUNTIME names no folder");
    } else contenders.push(...await ortContenders(params, ort));
    if (llama === undefined) {
      absent.push("llama.cpp: LLAMA_CPP names no folder");
    } else contenders.push(...await llamaContenders(params, llama, scratch));
    tf.dispose(params);
    const rows = await timeContenders(contenders, repeats, progress);
    const deno = denoCommand();
    if (deno === null) absent.push("Deno (npm install)");
    else {
      progress("  our engine in Deno");
      rows.push(...await denoRows(repeats, deno));
    }
    compare(rows);
    return {
      config: CONFIG,
      prompt: PROMPT,
      load: { before, after: loadavg()[0] },
      rows,
      absent,
      bars: barsOf(rows),
    };
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

/** The greatest ratio of each kind to float32 of the same engine, prefill and decode apart. */
function barsOf(rows: QuantRow[]) {
  return BARS.flatMap(({ name, bits, least }) =>
    (["prefillOwn", "decodeOwn"] as const).map((what) => {
      const [most] = rows.filter((row) => bits.test(row.bits))
        .sort((a, b) => (b[what] ?? 0) - (a[what] ?? 0));
      const phase = what === "prefillOwn" ? "prefill" : "decode";
      const bar = `${name}, ${phase}: at least ${least}x float32 of one engine`;
      const ratio = most[what];
      if (ratio === null) {
        return {
          name: bar,
          measured: "one token at a time is no mix",
          verdict: "not measured",
        };
      }
      return {
        name: bar,
        measured: `${
          ratio.toFixed(2)
        }x (${most.engine}, ${most.kind}, ${most.bits})`,
        verdict: ratio >= least ? "pass" : "miss",
      };
    })
  );
}

/** The rows as cells of a table. */
export function quantTable(rows: QuantRow[]): string[][] {
  return [
    [
      "engine",
      "kernel",
      "bits",
      "prefill tok/s",
      "ms",
      "own f32",
      "best f32",
      "decode tok/s",
      "ms/token",
      "own f32",
      "best f32",
      "model MB",
      "cache MB",
    ],
    ...rows.map((row) => [
      row.engine,
      row.kind,
      row.bits,
      (1000 * PROMPT / row.prefillMs).toFixed(0),
      row.prefillMs.toFixed(1),
      `${row.prefillOwn.toFixed(2)}x`,
      `${row.prefillBest.toFixed(2)}x`,
      ...(row.decodeMs === null ? ["-", "-", "-", "-"] : [
        (1000 / row.decodeMs).toFixed(0),
        row.decodeMs.toFixed(2),
        `${row.decodeOwn!.toFixed(2)}x`,
        `${row.decodeBest!.toFixed(2)}x`,
      ]),
      (row.modelBytes / 1e6).toFixed(1),
      row.cacheBytes === null ? "-" : (row.cacheBytes / 1e6).toFixed(1),
    ]),
  ];
}
