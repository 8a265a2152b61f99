/**
 * Our ONNX files, run by ONNX Runtime.
 *
 * Exports a checkpoint with every kind of weights and compares the logits of two texts at once with ours,
 * computed in F32 on the numbers that the file stands for; the inputs of quantized layers are rounded on
 * our side by the rule of the operator. With a cache, the texts go in by parts. Then both continue a prompt
 * greedily, ours by the inference engine, in integers where the file has integers.
 *
 *   npm install --prefix FOLDER --ignore-scripts onnxruntime-node
 *   ONNX_RUNTIME=FOLDER node --import tsx scripts/referee/onnx_llama.ts data/models/small
 */
import { createRequire } from "node:module";
import * as path from "node:path";
import process from "node:process";
import { quantizeWeights } from "../../lib/agile-quant/weights.ts";
import { createEngine, type Engine } from "../../lib/core/engine.ts";
import { writeOnnx } from "../../lib/core/formats/onnx.ts";
import {
  type ActivationRange,
  calibrate,
  dequantize,
  exportOnnx,
  type ExportOnnxOptions,
  type QuantizedMatrix,
  roundToNearest,
} from "../../lib/core/formats/onnx-llama.ts";
import {
  type Checkpoint,
  loadHuggingFace,
} from "../../lib/core/formats/huggingface.ts";
import {
  forward,
  type LlamaConfig,
  type LlamaParams,
  nestParams,
  parameterShapes,
} from "../../lib/core/llama.ts";
import { fold, key, normal } from "../../lib/core/rng.ts";
import { flatten, ready, type Tensor, tf } from "../../lib/core/tensor.ts";

const TEXTS = [
  "In the beginning the court said that the jury had found no evidence of any irregularities in the " +
  "election, and that the governor would not answer.",
  "She had walked all the way from the village to the river before it was light, and now she sat down " +
  "on a stone, tired and cold, to wait.",
];

/** Largest difference of a logit, of size 10, from the order of sums in F32. */
const FLOAT_TOLERANCE = 1e-4;
/**
 * The same where inputs are rounded to 8 bits. A sum that differs in its last bit may fall on the other
 * side of a rounding, and that one step of 1/255 of the range moves roundings of later layers: with
 * fixed ranges one code in 25,600 differs first in the second layer of "base", six in the next matrix.
 * Or, at accuracy level 4, the runtime rounds by a rule of its own, per group of 32 inputs.
 */
const ROUNDED_TOLERANCE = 0.5;

/** How many tokens are continued greedily. */
const CONTINUED = 32;

// What is used of onnxruntime-node, which is not a dependency.
interface OrtTensor {
  data: Float32Array;
  dims: readonly number[];
}
interface Session {
  run(feeds: Record<string, unknown>): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}
interface Runtime {
  Tensor: new (
    type: string,
    data: unknown,
    dims: readonly number[],
  ) => OrtTensor;
  InferenceSession: {
    create(bytes: Uint8Array, options: object): Promise<Session>;
  };
}

function runtime(): Runtime {
  const folder = process.env.ONNX_RUNTIME;
  if (folder === undefined) {
    throw new Error(
      "Cannot ask ONNX Runtime as ONNX_RUNTIME must name the folder where onnxruntime-node is installed",
    );
  }
  return createRequire(path.join(path.resolve(folder), "package.json"))(
    "onnxruntime-node",
  );
}

type Past = Record<string, OrtTensor>;

/** A cache of no position. */
function emptyPast(ort: Runtime, B: number, config: LlamaConfig): Past {
  const headDim = config.headDim ?? config.hiddenSize / config.numHeads;
  const past: Past = {};
  for (let i = 0; i < config.numLayers; i++) {
    for (const part of ["key", "value"]) {
      past[`past_key_values.${i}.${part}`] = new ort.Tensor(
        "float32",
        new Float32Array(0),
        [B, config.numKvHeads, 0, headDim],
      );
    }
  }
  return past;
}

/** Logits of some positions, and the cache behind them. */
async function advance(
  ort: Runtime,
  session: Session,
  ids: number[][],
  past: Past,
): Promise<{ logits: Float32Array; past: Past }> {
  const outputs = await session.run({
    input_ids: new ort.Tensor(
      "int64",
      BigInt64Array.from(ids.flat(), BigInt),
      [ids.length, ids[0].length],
    ),
    ...past,
  });
  return {
    logits: outputs.logits.data,
    past: Object.fromEntries(
      Object.entries(outputs)
        .filter(([name]) => name.startsWith("present."))
        .map(([name, value]) => [
          name.replace("present.", "past_key_values."),
          value,
        ]),
    ),
  };
}

/** Logits by ONNX Runtime; with a cache, `parts` positions at a time. */
async function theirLogits(
  ort: Runtime,
  session: Session,
  ids: number[][],
  config: LlamaConfig,
  cache: boolean,
): Promise<Float32Array> {
  const [B, T, V] = [ids.length, ids[0].length, config.vocabSize];
  if (!cache) return (await advance(ort, session, ids, {})).logits;
  let past = emptyPast(ort, B, config);
  const out = new Float32Array(B * T * V);
  // Half of the text at once, then one token at a time.
  for (let from = 0; from < T;) {
    const to = from === 0 ? T >> 1 : from + 1;
    const part = ids.map((row) => row.slice(from, to));
    const { logits, past: next } = await advance(ort, session, part, past);
    for (let b = 0; b < B; b++) {
      const size = (to - from) * V;
      out.set(logits.subarray(b * size, (b + 1) * size), (b * T + from) * V);
    }
    past = next;
    from = to;
  }
  return out;
}

const isLinear = (name: string) => /_proj\.weight$/.test(name);

/** The parameters that the file stands for: linear layers of the blocks through their codes. */
function stored(
  params: LlamaParams,
  bits: 4 | 8,
  quantize?: ExportOnnxOptions["quantize"],
): LlamaParams {
  const named: Record<string, Tensor> = {};
  for (const [name, tensor] of Object.entries(flatten(params))) {
    if (!isLinear(name)) {
      named[name] = tensor.clone();
      continue;
    }
    const shape = tensor.shape as [number, number];
    const groupSize = bits === 4 ? 32 : shape[1];
    const values = tensor.dataSync() as Float32Array;
    const matrix = quantize?.(values, shape, name.replace(".weight", "")) ??
      roundToNearest(values, shape, { bits, groupSize });
    named[name] = tf.tensor(dequantize(matrix, shape), shape);
  }
  return nestParams(named);
}

/** x rounded to 256 steps: codes round(x / scale) + zeroPoint, clipped. */
function rounded(x: Tensor, { scale, zeroPoint }: ActivationRange): Tensor {
  return tf.tidy(() =>
    x.div(scale).round().add(zeroPoint).clipByValue(0, 255)
      .sub(zeroPoint).mul(scale)
  );
}

/** The rule of DynamicQuantizeLinear over a whole tensor. */
function dynamicRange(x: Tensor): ActivationRange {
  let [min, max] = [0, 0];
  for (const value of x.dataSync()) {
    min = Math.min(min, value);
    max = Math.max(max, value);
  }
  const scale = Math.fround((max - min) / 255);
  const zero = -min / scale;
  const even = 2 * Math.round(zero / 2);
  return { scale, zeroPoint: zero % 1 === 0.5 ? even : Math.round(zero) };
}

type Rounding = "none" | "dynamic" | Record<string, ActivationRange>;

/** Our logits, inputs of the blocks' linear layers rounded. */
function ourLogits(
  params: LlamaParams,
  config: LlamaConfig,
  ids: number[][],
  rounding: Rounding,
): Float32Array {
  return tf.tidy(() =>
    forward(
      params,
      config,
      tf.tensor2d(ids, [ids.length, ids[0].length], "int32"),
      {
        onActivation: (name, value) => {
          if (rounding === "none" || !/_proj\.input$/.test(name)) return;
          const module = name.slice(0, -".input".length);
          return rounded(
            value,
            rounding === "dynamic" ? dynamicRange(value) : rounding[module],
          );
        },
      },
    ).dataSync() as Float32Array
  ).slice();
}

/** Compares one export; returns whether it agrees. */
async function check(
  ort: Runtime,
  label: string,
  { params, config }: Pick<Checkpoint, "params" | "config">,
  ids: number[][],
  options: ExportOnnxOptions,
): Promise<boolean> {
  const { weights = "float32", cache = false, activations } = options;
  const bytes = writeOnnx(exportOnnx(params, config, options));
  const session = await ort.InferenceSession.create(bytes, {
    intraOpNumThreads: 1,
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
    // Without this the runtime turns DequantizeLinear and MatMul into MatMulNBits of accuracy level 4,
    // which rounds float inputs to 8 bits.
    extra: { session: { qdq_matmulnbits_accuracy_level: "0" } },
  });
  const theirs = await theirLogits(ort, session, ids, config, cache);
  await session.release();
  const own = weights === "float32"
    ? params
    : stored(params, weights === "matmulnbits" ? 4 : 8, options.quantize);
  const rounding: Rounding = weights === "matmulinteger"
    ? "dynamic"
    : activations ?? "none";
  const ours = ourLogits(own, config, ids, rounding);
  const exact = ourLogits(params, config, ids, "none");
  let [difference, change, sameBest] = [0, 0, 0];
  const V = config.vocabSize;
  for (let i = 0; i < ours.length; i++) {
    difference = Math.max(difference, Math.abs(ours[i] - theirs[i]));
    change = Math.max(change, Math.abs(exact[i] - theirs[i]));
  }
  const best = (row: Float32Array) => row.indexOf(Math.max(...row));
  for (let i = 0; i < ours.length; i += V) {
    if (best(ours.subarray(i, i + V)) === best(theirs.subarray(i, i + V))) {
      sameBest++;
    }
  }
  const limit = rounding === "none" && options.accuracyLevel !== 4
    ? FLOAT_TOLERANCE
    : ROUNDED_TOLERANCE;
  const ok = difference < limit;
  console.log(
    [
      `${label}, ${weights}`,
      `${bytes.length} bytes`,
      `largest logit difference ${
        difference.toExponential(2)
      } (limit ${limit})`,
      `best token same at ${sameBest} of ${ours.length / V}`,
      `from unquantized ${change.toExponential(2)}`,
      ok ? "ok" : "FAILED",
    ].join("; "),
  );
  return ok;
}

/** Our engine on what a file stands for, inputs rounded by the rule of DynamicQuantizeLinear. */
function engineOf(
  { params, config }: Pick<Checkpoint, "params" | "config">,
  weights: ExportOnnxOptions["weights"],
): Engine {
  if (weights === "matmulinteger") {
    return createEngine(params, config, {
      weights: {
        bits: 8,
        quantize(weight) {
          const [rows, columns] = weight.shape;
          const { codes, scales } = roundToNearest(
            weight.dataSync() as Float32Array,
            [rows, columns],
            { bits: 8 },
          );
          return { codes, scale: scales };
        },
      },
      activations: { symmetric: false, signed: false, granularity: "tensor" },
    });
  }
  return createEngine(
    weights === "float32" ? params : stored(params, 4),
    config,
  );
}

/** Both continue a prompt greedily; returns whether every token is the same. */
async function checkGreedy(
  ort: Runtime,
  label: string,
  model: Pick<Checkpoint, "params" | "config">,
  prompt: number[],
  weights: NonNullable<ExportOnnxOptions["weights"]>,
): Promise<boolean> {
  const { params, config } = model;
  const session = await ort.InferenceSession.create(
    writeOnnx(exportOnnx(params, config, { weights, cache: true })),
    { intraOpNumThreads: 1, logSeverityLevel: 3 },
  );
  const engine = engineOf(model, weights);
  const ours = Array.from(engine.generate(prompt, { maxTokens: CONTINUED }));
  const theirs: number[] = [];
  let past = emptyPast(ort, 1, config);
  for (let next = prompt; theirs.length < CONTINUED;) {
    const step = await advance(ort, session, [next], past);
    const last = step.logits.slice(-config.vocabSize);
    theirs.push(last.indexOf(Math.max(...last)));
    past = step.past;
    next = [theirs.at(-1)!];
  }
  await session.release();
  const differs = ours.findIndex((id, i) => id !== theirs[i]);
  const ok = differs < 0;
  console.log(
    `${label}, ${weights}; greedy by our engine (${engine.name}): ${
      ok ? CONTINUED : differs
    } of ${CONTINUED} tokens same; ${ok ? "ok" : "FAILED"}`,
  );
  return ok;
}

/** A random model of another shape. */
function variant(
  change: Partial<LlamaConfig>,
): Pick<Checkpoint, "params" | "config"> {
  const config: LlamaConfig = {
    vocabSize: 300,
    hiddenSize: 48,
    intermediateSize: 80,
    numLayers: 2,
    numHeads: 4,
    numKvHeads: 2,
    maxPositions: 128,
    ...change,
  };
  const named = Object.fromEntries(
    Object.entries(parameterShapes(config)).map(([name, shape]) => {
      const size = shape.reduce((a, b) => a * b, 1);
      return [
        name,
        tf.tensor(normal(fold(key(5), name), size, 0, 0.3), shape),
      ];
    }),
  );
  return { params: nestParams(named), config };
}

async function main(): Promise<void> {
  const folder = process.argv[2] ?? "data/models/small";
  const ort = runtime();
  await ready();
  const { params, config, tokenizer } = loadHuggingFace(folder);
  const rows = TEXTS.map((text) => Array.from(tokenizer.encode(text)));
  const length = Math.min(
    config.maxPositions ?? 2048,
    ...rows.map((row) => row.length),
  );
  const ids = rows.map((row) => row.slice(0, length));
  const batch = tf.tensor2d(ids, [ids.length, length], "int32");
  const activations = calibrate(params, config, [batch]);
  /** GPTQ's codes, whose zero points differ by row and group. */
  const gptq = (bits: 4 | 8, groupSize?: number) => {
    const { codes } = quantizeWeights(params, config, {
      bits,
      groupSize: groupSize ?? "row",
    }, [batch]);
    return (
      _: Float32Array,
      [, columns]: [number, number],
      module: string,
    ): QuantizedMatrix => {
      const own = codes[module];
      return {
        bits,
        codes: own.codes,
        scales: Float32Array.from(own.scale),
        zeroPoints: own.zeroPoint,
        groupSize: groupSize ?? columns,
      };
    };
  };
  const name = path.basename(folder);
  const model = { params, config };
  let ok = true;
  for (
    const [label, options] of [
      [name, {}],
      [`${name} with cache`, { cache: true }],
      [`${name}, float inputs`, { weights: "qdq-int8" }],
      [`${name}, ranges of inputs`, { weights: "qdq-int8", activations }],
      [name, { weights: "matmulinteger" }],
      [name, { weights: "matmulnbits" }],
      [`${name} with cache`, { weights: "matmulnbits", cache: true }],
      [`${name}, 8-bit inputs`, { weights: "matmulnbits", accuracyLevel: 4 }],
      [`${name}, GPTQ`, { weights: "matmulnbits", quantize: gptq(4, 32) }],
      [`${name}, GPTQ`, { weights: "qdq-int8", quantize: gptq(8) }],
      [`${name}, GPTQ`, { weights: "matmulinteger", quantize: gptq(8) }],
    ] as [string, ExportOnnxOptions][]
  ) ok = await check(ort, label, model, ids, options) && ok;

  for (const weights of ["float32", "matmulinteger", "matmulnbits"] as const) {
    for (const row of ids) {
      const prompt = row.slice(0, 12);
      ok = await checkGreedy(ort, name, model, prompt, weights) && ok;
    }
  }

  const random = Array.from(
    { length: 3 },
    (_, row) =>
      Array.from({ length: 20 }, (_, i) => (37 * i + 101 * row) % 300),
  );
  const scaling = {
    type: "llama3",
    factor: 8,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxPositions: 64,
  } as const;
  for (
    const [label, change] of [
      ["grouped heads, untied", {}],
      ["biases, tied", {
        attentionBias: true,
        mlpBias: true,
        tieWordEmbeddings: true,
      }],
      ["llama3 scaling, other width of heads", {
        ropeScaling: scaling,
        headDim: 16,
      }],
    ] as [string, Partial<LlamaConfig>][]
  ) {
    for (const cache of [false, true]) {
      const other = variant(change);
      const text = cache ? `${label}, cache` : label;
      ok = await check(ort, text, other, random, { cache }) && ok;
    }
  }
  if (!ok) process.exitCode = 1;
}

await main();
