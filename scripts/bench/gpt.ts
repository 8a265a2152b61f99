/**
 * One training step of a small GPT: the model, written once over the operations of nn.ts or of stock
 * tfjs, and what times it.
 *
 * A. Radford et al., "Language models are unsupervised multitask learners" (2019), section 2.3: learned
 * positions, layer norm before attention and MLP, GELU, final layer norm; here with an untied head.
 * Weights and tokens come from a folder that the parent wrote, so that every engine, PyTorch
 * included (gpt.py), starts from the same numbers.
 *
 * Notation: B batch, T tokens, D width, H heads, L layers, V vocabulary.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as nn from "../../lib/core/nn.ts";
import { adamW } from "../../lib/core/optim.ts";
import * as reference from "../../lib/core/reference.ts";
import { fold, key, normal, randomInts } from "../../lib/core/rng.ts";
import {
  backendInfo,
  flatten,
  type ParamTree,
  ready,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
  type Variable,
} from "../../lib/core/tensor.ts";
import { cpuNow, now, peakRssBytes } from "./measure.ts";

export interface GptSize {
  layers: number;
  dim: number;
  heads: number;
  tokens: number;
  batch: number;
  vocab: number;
}

export interface GptTask {
  engine: "ours" | "stock";
  size: GptSize;
  /** Holds weights.f32 and ids.i32. */
  folder: string;
  warmup: number;
  /** Steps to time: at most this many ... */
  steps: number;
  /** ... and no further one after so many seconds, but at least `minSteps`. */
  seconds: number;
  minSteps: number;
}

/** What a process answers; gpt.py answers the same. */
export interface GptResult {
  stepMs: number[];
  /** Processor time of the same steps: what is left of the noise of a busy machine. */
  cpuMs: number[];
  losses: number[];
  peakRssFirstStepBytes: number;
  leakedTensorsPerStep: number | null;
  engine: string;
}

/** Adam's settings, the same for every engine; without decay, so that tf.train.adam can join. */
export const ADAM = {
  learningRate: 1e-3,
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
};

const NORM_EPS = 1e-5;

/** The operations that distinguish an engine from another. */
interface Operations {
  add(a: Tensor, b: Tensor): Tensor;
  linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor;
  layerNorm(x: Tensor, gamma: Tensor, beta: Tensor): Tensor;
  gelu(x: Tensor): Tensor;
  /** Causal; q, k and v are [B, T, H, D / H]. */
  attention(q: Tensor, k: Tensor, v: Tensor): Tensor;
  crossEntropy(logits: Tensor, labels: Tensor): Scalar;
  embedding(ids: Tensor, table: Tensor): Tensor;
}

const ours: Operations = {
  add: (a, b) => nn.add(a, b),
  linear: (x, weight, bias) => nn.linear(x, weight, { bias }),
  layerNorm: (x, gamma, beta) =>
    nn.layerNorm(x, gamma, beta, { eps: NORM_EPS }),
  gelu: (x) => nn.gelu(x),
  attention: (q, k, v) => nn.attention(q, k, v),
  crossEntropy: (logits, labels) => nn.crossEntropy(logits, labels),
  embedding: (ids, table) => nn.embedding(ids, table),
};

/** As a user of plain tfjs would write it. */
const stock: Operations = {
  add: (a, b) => a.add(b),
  linear: (x, weight, bias) => reference.linear(x, weight, bias),
  layerNorm: (x, gamma, beta) => reference.layerNorm(x, gamma, beta, NORM_EPS),
  gelu: (x) => reference.gelu(x, "none"),
  attention(q, k, v) {
    const [, T, , D] = q.shape;
    const [queries, keys, values] = [q, k, v].map((x) =>
      x.transpose([0, 2, 1, 3])
    ); // [B, H, T, D]
    const hidden = tf.sub(tf.linalg.bandPart(tf.ones([T, T]), -1, 0), 1)
      .mul(1e9); // [T, T]
    const scores = tf.matMul(queries, keys, false, true)
      .mul(1 / Math.sqrt(D)).add(hidden); // [B, H, T, T]
    return tf.matMul(tf.softmax(scores), values).transpose([0, 2, 1, 3]);
  },
  crossEntropy: (logits, labels) =>
    reference.crossEntropy(logits, labels, {
      reduction: "mean",
      ignoreIndex: -1,
    }) as Scalar,
  embedding: (ids, table) => reference.embedding(ids, table),
};

interface Block {
  norm1: Tensor;
  norm1Bias: Tensor;
  query: Tensor;
  queryBias: Tensor;
  key: Tensor;
  keyBias: Tensor;
  value: Tensor;
  valueBias: Tensor;
  out: Tensor;
  outBias: Tensor;
  norm2: Tensor;
  norm2Bias: Tensor;
  up: Tensor;
  upBias: Tensor;
  down: Tensor;
  downBias: Tensor;
}

interface Gpt {
  token: Tensor;
  position: Tensor;
  blocks: Block[];
  norm: Tensor;
  normBias: Tensor;
  head: Tensor;
}

/** Logits [B, T, V] of ids int32 [B, T]. */
function forward(params: Gpt, ops: Operations, ids: Tensor, H: number): Tensor {
  const [B, T] = ids.shape;
  const D = params.token.shape[1]!;
  const heads = (x: Tensor) => x.reshape([B, T, H, D / H]);
  let x = ops.embedding(ids, params.token).add(params.position); // [B, T, D]
  for (const p of params.blocks) {
    x = tf.tidy(() => {
      const a = ops.layerNorm(x, p.norm1, p.norm1Bias);
      const mixed = ops.attention(
        heads(ops.linear(a, p.query, p.queryBias)),
        heads(ops.linear(a, p.key, p.keyBias)),
        heads(ops.linear(a, p.value, p.valueBias)),
      ).reshape([B, T, D]);
      const y = ops.add(x, ops.linear(mixed, p.out, p.outBias)); // [B, T, D]
      const b = ops.layerNorm(y, p.norm2, p.norm2Bias);
      const hidden = ops.gelu(ops.linear(b, p.up, p.upBias)); // [B, T, 4 D]
      return ops.add(y, ops.linear(hidden, p.down, p.downBias)); // [B, T, D]
    });
  }
  return ops.linear(
    ops.layerNorm(x, params.norm, params.normBias),
    params.head,
  );
}

/** Names and shapes of the parameters, in the order of weights.f32. */
export function shapes(
  { layers, dim: D, tokens, vocab }: GptSize,
): [string, number[]][] {
  const block = (i: number): [string, number[]][] =>
    ([
      ["norm1", [D]],
      ["norm1Bias", [D]],
      ["query", [D, D]],
      ["queryBias", [D]],
      ["key", [D, D]],
      ["keyBias", [D]],
      ["value", [D, D]],
      ["valueBias", [D]],
      ["out", [D, D]],
      ["outBias", [D]],
      ["norm2", [D]],
      ["norm2Bias", [D]],
      ["up", [4 * D, D]],
      ["upBias", [4 * D]],
      ["down", [D, 4 * D]],
      ["downBias", [D]],
    ] as [string, number[]][]).map(([name, shape]) => [
      `blocks.${i}.${name}`,
      shape,
    ]);
  return [
    ["token", [vocab, D]],
    ["position", [tokens, D]],
    ...Array.from({ length: layers }, (_, i) => block(i)).flat(),
    ["norm", [D]],
    ["normBias", [D]],
    ["head", [vocab, D]],
  ];
}

const count = (shape: number[]) => shape.reduce((a, b) => a * b, 1);

/** Writes weights.f32 and ids.i32, [B, T + 1], into `folder`. */
export function writeTask(folder: string, size: GptSize): void {
  const k = key(0);
  const parts = shapes(size).map(([name, shape]) => {
    if (/norm\d?$/.test(name)) return new Float32Array(count(shape)).fill(1);
    // GPT-2's initial standard deviation; biases get it too, so that an error in one shows.
    return normal(fold(k, name), count(shape), 0, 0.02);
  });
  const weights = new Float32Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const part of parts) {
    weights.set(part, at);
    at += part.length;
  }
  const n = size.batch * (size.tokens + 1);
  const ids = randomInts(fold(k, "ids"), n, 0, size.vocab);
  writeFileSync(join(folder, "weights.f32"), new Uint8Array(weights.buffer));
  writeFileSync(join(folder, "ids.i32"), new Uint8Array(ids.buffer));
}

function readParams(folder: string, size: GptSize): Gpt {
  const bytes = readFileSync(join(folder, "weights.f32"));
  const weights = new Float32Array(new Uint8Array(bytes).buffer);
  const params: Record<string, Variable> & {
    blocks: Record<string, Variable>[];
  } = { blocks: Array.from({ length: size.layers }, () => ({})) } as never;
  let at = 0;
  for (const [path, shape] of shapes(size)) {
    const n = count(shape);
    const variable = tf.tidy(() =>
      tf.variable(tf.tensor(weights.slice(at, at + n), shape))
    );
    const [name, layer, inner] = path.split(".");
    if (layer === undefined) params[name] = variable;
    else params.blocks[Number(layer)][inner] = variable;
    at += n;
  }
  return params as unknown as Gpt;
}

/** Inputs [B, T] and labels [B T] of ids [B, T + 1]. */
function readIds(folder: string, { batch: B, tokens: T }: GptSize) {
  const bytes = readFileSync(join(folder, "ids.i32"));
  const ids = new Int32Array(new Uint8Array(bytes).buffer);
  return tf.tidy(() => {
    const all = tf.tensor2d(ids, [B, T + 1], "int32");
    return {
      inputs: tf.keep(all.slice([0, 0], [B, T])),
      labels: tf.keep(all.slice([0, 1], [B, T]).flatten()),
    };
  });
}

/** Makes training steps and times them. */
export async function timeGpt(task: GptTask): Promise<GptResult> {
  await ready();
  const { size, folder } = task;
  const params = readParams(folder, size);
  const { inputs, labels } = readIds(folder, size);
  const ops = task.engine === "ours" ? ours : stock;
  const loss = () =>
    tf.tidy(() =>
      ops.crossEntropy(
        forward(params, ops, inputs, size.heads).reshape([-1, size.vocab]),
        labels,
      )
    );
  const update = updater(task.engine, params as unknown as ParamTree, loss);

  const losses: number[] = [];
  const stepMs: number[] = [];
  const cpuMs: number[] = [];
  let peakRssFirstStepBytes = 0;
  let tensors = 0;
  let spent = 0;
  for (let i = 0; stepMs.length < task.steps; i++) {
    if (spent > task.seconds * 1000 && stepMs.length >= task.minSteps) break;
    const [start, cpuStart] = [now(), cpuNow()];
    losses.push(update());
    const ms = now() - start;
    spent += ms;
    if (i >= task.warmup) {
      stepMs.push(ms);
      cpuMs.push(cpuNow() - cpuStart);
    }
    if (i > 0) continue;
    peakRssFirstStepBytes = peakRssBytes();
    tensors = tf.memory().numTensors;
  }
  const further = losses.length - 1;
  const { backend, engine, kernels, blas, runtime } = backendInfo();
  const parts = [engine, backend];
  if (kernels !== "none") parts.push(`kernels ${kernels}`);
  if (blas !== null) parts.push(blas);
  return {
    stepMs,
    cpuMs,
    losses,
    peakRssFirstStepBytes,
    leakedTensorsPerStep: further > 0
      ? (tf.memory().numTensors - tensors) / further
      : null,
    engine: [...parts, runtime].join(", "),
  };
}

/** A function that makes one step and returns the loss before it. */
function updater(
  engine: GptTask["engine"],
  params: ParamTree,
  loss: () => Scalar,
): () => number {
  const { learningRate, beta1, beta2, eps } = ADAM;
  if (engine === "stock") {
    const optimizer = tf.train.adam(learningRate, beta1, beta2, eps);
    const variables = Object.values(flatten(params)) as Variable[];
    return () => {
      const value = optimizer.minimize(loss, true, variables)!;
      const [number] = value.dataSync();
      value.dispose();
      return number;
    };
  }
  const optimizer = adamW({ ...ADAM, weightDecay: 0 });
  return () => {
    const { value, grads } = valueAndGrads(loss, params);
    optimizer.step(params, grads);
    const [number] = value.dataSync();
    tf.dispose([value, grads]);
    return number;
  };
}
