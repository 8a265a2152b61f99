/**
 * Our GGUF files, opened and run by llama.cpp.
 *
 * Exports a checkpoint in every type and lets llama.cpp tokenize, compute the logits of a text and
 * continue it greedily. Ours run in F32 on the numbers that the file holds, so that a difference is one
 * of arithmetic: llama.cpp rounds activations to 8 bits where weights are quantized, and to half
 * precision where they are F16; its cache is asked to be F32. Tokens and greedy continuations have to be the
 * same, or the exit code is 1. Small random models cover grouped heads,
 * biases, an untied head and the scalings of rotary positions. The block quantizers are compared with
 * ggml's byte by byte.
 *
 *   npm install --prefix FOLDER --ignore-scripts --omit=optional node-llama-cpp @node-llama-cpp/linux-x64
 *   LLAMA_CPP=FOLDER node --import tsx scripts/referee/gguf_llama.ts data/models/small
 */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import koffi from "koffi";
import {
  BLOCK_SIZE,
  decodeTensor,
  type GgufTensorType,
  quantizeQ40,
  quantizeQ80,
  readGguf,
  saveGguf,
} from "../../lib/core/formats/gguf.ts";
import {
  exportGguf,
  ggufName,
  separateHeads,
} from "../../lib/core/formats/gguf-llama.ts";
import {
  type Checkpoint,
  loadHuggingFace,
} from "../../lib/core/formats/huggingface.ts";
import {
  forward,
  generate,
  type LlamaConfig,
  nestParams,
  parameterShapes,
  resolveConfig,
} from "../../lib/core/llama.ts";
import { fold, key, normal } from "../../lib/core/rng.ts";
import { ready, type Tensor, tf } from "../../lib/core/tensor.ts";

const TEXT =
  "In the beginning the court said that the jury had found no evidence of any " +
  "irregularities in the election, and that the governor's office would not answer 1,250 letters.";

/**
 * Largest difference of a logit, of size 10. In F32 the order of sums; in F16 activations of 11 bits;
 * where weights are quantized, activations of 8 bits with a scale per 32 numbers.
 */
const TOLERANCE: Record<GgufTensorType, number> = {
  F32: 1e-4,
  F16: 2e-2,
  Q8_0: 0.5,
  Q4_0: 0.5,
};
/** Largest difference of the mean loss in nats; errors of single logits average out. */
const LOSS_TOLERANCE = 5e-3;
/** How many tokens are continued greedily. */
const CONTINUED = 24;

// What is used of node-llama-cpp, which is not a dependency.
interface Sequence {
  clearHistory(): Promise<void>;
  controlledEvaluate(
    input: [number, { generateNext: { logits: true } }][],
  ): Promise<({ next: { logits: Map<number, number> } } | undefined)[]>;
}
interface Binding {
  getLlama(options: object): Promise<{
    loadModel(options: object): Promise<{
      tokenize(text: string): number[];
      createContext(options: object): Promise<
        { getSequence(): Sequence; dispose(): Promise<void> }
      >;
      dispose(): Promise<void>;
    }>;
    dispose(): Promise<void>;
  }>;
}

async function binding(): Promise<Binding> {
  const folder = process.env.LLAMA_CPP;
  if (folder === undefined) {
    throw new Error(
      "Cannot ask llama.cpp as LLAMA_CPP must name the folder where node-llama-cpp is installed",
    );
  }
  const entry = path.join(
    path.resolve(folder),
    "node_modules/node-llama-cpp/dist/index.js",
  );
  return await import(pathToFileURL(entry).href);
}

/** Logits per position by llama.cpp. */
async function theirLogits(
  sequence: Sequence,
  ids: number[],
): Promise<Float64Array[]> {
  await sequence.clearHistory();
  const outputs = await sequence.controlledEvaluate(
    ids.map((id) => [id, { generateNext: { logits: true } }]),
  );
  return outputs.map((output) => {
    const logits = output!.next.logits;
    const row = new Float64Array(logits.size);
    for (const [id, value] of logits) row[id] = value;
    return row;
  });
}

const argmax = (row: ArrayLike<number>) =>
  Array.from(row).reduce((best, x, i, all) => x > all[best] ? i : best, 0);

/** Mean of -log p(next token), in nats. */
function meanLoss(rows: ArrayLike<number>[], ids: number[]): number {
  let sum = 0;
  for (let t = 0; t + 1 < ids.length; t++) {
    const row = Array.from(rows[t]);
    const max = Math.max(...row);
    const total = row.reduce((s, x) => s + Math.exp(x - max), 0);
    sum += max + Math.log(total) - row[ids[t + 1]];
  }
  return sum / (ids.length - 1);
}

/** The model with the numbers that the file holds. */
function stored(checkpoint: Checkpoint, file: string): Checkpoint {
  const config = resolveConfig(checkpoint.config);
  const tensors = new Map(
    readGguf(fs.readFileSync(file)).tensors.map((t) => [t.name, t]),
  );
  const named: Record<string, Tensor> = {};
  for (const [name, shape] of Object.entries(parameterShapes(config))) {
    let values = decodeTensor(tensors.get(ggufName(name))!);
    if (/\.(q|k)_proj\./.test(name)) {
      values = separateHeads(values, config.headDim, shape[1] ?? 1);
    }
    named[name] = tf.tensor(values, shape);
  }
  return { ...checkpoint, params: nestParams(named) };
}

/** A random model of another shape with the tokenizer of a checkpoint. */
function variant(
  { tokenizer, eosTokenIds }: Checkpoint,
  change: Partial<LlamaConfig>,
): Checkpoint {
  const config: LlamaConfig = {
    vocabSize: tokenizer.vocabSize + 3,
    hiddenSize: 64,
    intermediateSize: 96,
    numLayers: 2,
    numHeads: 4,
    numKvHeads: 2,
    maxPositions: 256,
    ...change,
  };
  // Weights so large that a wrong angle or a lost bias moves the logits.
  const named = Object.fromEntries(
    Object.entries(parameterShapes(config)).map(([name, shape]) => {
      const size = shape.reduce((a, b) => a * b, 1);
      return [
        name,
        tf.tensor(normal(fold(key(5), name), size, 0, 0.3), shape),
      ];
    }),
  );
  return {
    params: nestParams(named),
    config,
    tokenizer,
    bosTokenId: null,
    eosTokenIds,
  };
}

const VARIANTS: Record<string, Partial<LlamaConfig>> = {
  "grouped heads, untied": {},
  "biases, tied": {
    attentionBias: true,
    mlpBias: true,
    tieWordEmbeddings: true,
  },
  "other width of heads": { headDim: 32, ropeTheta: 5e5 },
  "linear scaling": { ropeScaling: { type: "linear", factor: 4 } },
  "llama3 scaling": {
    ropeScaling: {
      type: "llama3",
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositions: 64,
    },
  },
};

/** Blocks of random numbers of all sizes, quantized by ggml's own functions. */
function checkBlocks(folder: string): boolean {
  const library = koffi.load(
    path.join(
      path.resolve(folder),
      "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/libggml-base.so",
    ),
  );
  let ok = true;
  for (
    const [name, ours, size] of [
      ["quantize_row_q8_0_ref", quantizeQ80, 34],
      ["quantize_row_q4_0_ref", quantizeQ40, 18],
    ] as const
  ) {
    const theirs = library.func(
      `void ${name}(float* x, _Out_ uint8_t* y, int64_t k)`,
    );
    const rows = 4096;
    const scales = normal(fold(key(9), name), rows, 0, 4);
    const values = normal(key(8), rows * BLOCK_SIZE, 0, 1)
      .map((x, i) => x * 10 ** Math.min(4, scales[Math.floor(i / BLOCK_SIZE)]));
    // Ties and blocks of zeros.
    for (let i = 0; i < 4 * BLOCK_SIZE; i++) values[i] = (i % 17 - 8) / 2;
    values.fill(0, 4 * BLOCK_SIZE, 5 * BLOCK_SIZE);
    const bytes = new Uint8Array(rows * size);
    theirs(values, bytes, values.length);
    const own = ours(values);
    const different = own.filter((byte, i) => byte !== bytes[i]).length;
    ok &&= different === 0;
    console.log(
      `${name}: ${rows} blocks, ${different} of ${bytes.length} bytes differ`,
    );
  }
  return ok;
}

async function check(
  checkpoint: Checkpoint,
  label: string,
  type: GgufTensorType,
  llama: Awaited<ReturnType<Binding["getLlama"]>>,
  scratch: string,
): Promise<boolean> {
  const { config, tokenizer, eosTokenIds } = checkpoint;
  const file = path.join(scratch, `${type}.gguf`);
  saveGguf(
    file,
    exportGguf(checkpoint.params, config, tokenizer, {
      type,
      eosTokenId: eosTokenIds[0],
    }),
  );
  const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 });
  const context = await model.createContext({
    contextSize: Math.min(256, resolveConfig(config).maxPositions),
    threads: 1,
    flashAttention: false,
    experimentalKvCacheKeyType: "F32",
    experimentalKvCacheValueType: "F32",
  });
  const sequence = context.getSequence();

  const all = Array.from(tokenizer.encode(TEXT));
  const sameIds = model.tokenize(TEXT).join() === all.join();
  const ids = all.slice(0, resolveConfig(config).maxPositions);
  const theirs = await theirLogits(sequence, ids);

  const ours = stored(checkpoint, file);
  const flat = tf.tidy(() =>
    forward(
      ours.params,
      config,
      tf.tensor2d(ids, [1, ids.length], "int32"),
    ).dataSync()
  );
  const V = config.vocabSize;
  const rows = ids.map((_, t) => flat.subarray(t * V, (t + 1) * V));
  let difference = 0;
  rows.forEach((row, t) =>
    row.forEach((x, i) =>
      difference = Math.max(difference, Math.abs(x - theirs[t][i]))
    )
  );
  const sameBest = rows.filter((row, t) => argmax(row) === argmax(theirs[t]));

  const prompt = ids.slice(0, 12);
  const greedy = Array.from(
    generate(ours.params, config, prompt, { maxTokens: CONTINUED }),
  );
  const continued = [...prompt];
  for (let step = 0; step < CONTINUED; step++) {
    const last = (await theirLogits(sequence, continued)).at(-1)!;
    continued.push(argmax(last));
  }
  const theirGreedy = continued.slice(prompt.length);
  const common = greedy.findIndex((id, i) => id !== theirGreedy[i]);
  await context.dispose();
  await model.dispose();
  tf.dispose(ours.params);

  const losses = [meanLoss(rows, ids), meanLoss(theirs, ids)];
  const ok = sameIds && common < 0 && difference < TOLERANCE[type] &&
    Math.abs(losses[0] - losses[1]) < LOSS_TOLERANCE;
  console.log(
    [
      `${label}, ${type}`,
      `${fs.statSync(file).size} bytes`,
      `tokens ${sameIds ? "same" : "DIFFER"}`,
      `largest logit difference ${difference.toExponential(2)} (limit ${
        TOLERANCE[type]
      })`,
      `best token same at ${sameBest.length} of ${ids.length}`,
      `loss ${losses[0].toFixed(5)} ours, ${losses[1].toFixed(5)} theirs`,
      `greedy: ${common < 0 ? CONTINUED : common} of ${CONTINUED} same`,
      ok ? "ok" : "FAILED",
    ].join("; "),
  );
  return ok;
}

async function main(): Promise<void> {
  const folder = process.argv[2] ?? "data/models/small";
  const { getLlama } = await binding();
  await ready();
  const llama = await getLlama({
    gpu: false,
    build: "never",
    skipDownload: true,
    logLevel: "error",
    maxThreads: 1,
  });
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "gguf-referee-"));
  const checkpoint = loadHuggingFace(folder);
  let ok = checkBlocks(process.env.LLAMA_CPP!);
  try {
    for (const type of ["F32", "F16", "Q8_0", "Q4_0"] as const) {
      const name = path.basename(folder);
      ok = await check(checkpoint, name, type, llama, scratch) && ok;
    }
    for (const [label, change] of Object.entries(VARIANTS)) {
      const model = variant(checkpoint, change);
      ok = await check(model, label, "F32", llama, scratch) && ok;
      tf.dispose(model.params);
    }
  } finally {
    fs.rmSync(scratch, { recursive: true });
    await llama.dispose();
  }
  if (!ok) process.exitCode = 1;
}

await main();
