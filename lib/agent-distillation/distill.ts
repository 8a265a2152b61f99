/** Training an agent on windows of transcripts, with or without a teacher. */
import { forward, hiddenStates } from "../core/llama.ts";
import { linear } from "../core/nn.ts";
import { adamW, cosine, warmup } from "../core/optim.ts";
import { fold, type Key, randomInts } from "../core/rng.ts";
import { type Tensor, tf, valueAndGrads } from "../core/tensor.ts";
import type { Agent } from "./agent.ts";
import {
  checkVocabularies,
  forwardKl,
  type LossOptions,
  rowsOf,
  structuredLoss,
} from "./loss.ts";
import type { Label, Window } from "./transcript.ts";

/** Several windows as one tensor, and the tokens in them that are to be predicted. */
export interface Batch {
  /** int32 [B, T], filled up with 0 on the right. */
  ids: Tensor;
  /** Row in [B T] from which each token is predicted. */
  rows: number[];
  tokens: Int32Array;
  labels: Label[];
  /** How many of them are each window's. */
  counts: number[];
}

/** Windows as a batch; the tokens of it are the new ones whose label has a weight. */
export function batchOf(
  chosen: readonly Window[],
  { lambdaR = 1, lambdaA = 1, lambdaO = 0 }: LossOptions = {},
): Batch {
  const weight = { reason: lambdaR, act: lambdaA, neither: lambdaO };
  const T = Math.max(...chosen.map(({ ids }) => ids.length));
  const flat = new Int32Array(chosen.length * T);
  const rows: number[] = [];
  const tokens: number[] = [];
  const labels: Label[] = [];
  const counts = chosen.map(({ ids, labels: own, from }, b) => {
    const before = rows.length;
    flat.set(ids, b * T);
    for (let t = Math.max(1, from); t < ids.length; t++) {
      if (weight[own[t]] === 0) continue;
      rows.push(b * T + t - 1);
      tokens.push(ids[t]);
      labels.push(own[t]);
    }
    return rows.length - before;
  });
  return {
    ids: tf.tensor2d(flat, [chosen.length, T], "int32"),
    rows,
    tokens: Int32Array.from(tokens),
    labels,
    counts,
  };
}

/** Logits of some positions only: the head is not run where nothing is predicted. */
export function logitsAt(
  { params, config }: Agent,
  ids: Tensor, // [B, T]
  rows: readonly number[],
): Tensor {
  return tf.tidy(() => {
    const hidden = hiddenStates(params, config, ids)
      .reshape([-1, config.hiddenSize]); // [B T, D]
    return linear(rowsOf(hidden, rows), params.model.embed_tokens.weight);
  }); // [N, V]
}

/**
 * The teacher's logits [N, V] of the tokens that are to be predicted in some windows. Each window is read once and
 * remembered: it is drawn several times in a training, and the teacher does not change.
 */
export function rememberingTeacher(
  teacher: Agent,
  options: LossOptions = {},
): (chosen: readonly Window[]) => Tensor {
  const V = teacher.config.vocabSize;
  const known = new Map<Window, Float32Array>();
  const read = (windows: readonly Window[]) => {
    const { ids, rows, counts } = batchOf(windows, options);
    const logits = logitsAt(teacher, ids, rows);
    const values = logits.dataSync();
    let at = 0;
    windows.forEach((window, i) => {
      known.set(window, values.slice(at, at += counts[i] * V) as Float32Array);
    });
    tf.dispose([ids, logits]);
  };
  return (chosen) => {
    const missing = [...new Set(chosen)].filter((window) => !known.has(window));
    if (missing.length > 0) read(missing);
    const parts = chosen.map((window) => known.get(window)!);
    const size = parts.reduce((sum, { length }) => sum + length, 0);
    const all = new Float32Array(size);
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return tf.tensor2d(all, [size / V, V]);
  };
}

/** Throws unless student and teacher can be fed with the same ids, of these lengths. */
export function checkPair(
  student: Agent,
  teacher: Agent | null,
  windows: readonly Window[],
): void {
  if (windows.length === 0) {
    throw new RangeError("Cannot distil as there must be windows: none given");
  }
  if (teacher !== null) {
    checkVocabularies(student.config.vocabSize, teacher.config.vocabSize);
    const [own, others] = [student, teacher].map(({ tokenizer }) =>
      JSON.stringify(tokenizer.toJson())
    );
    if (student.tokenizer !== teacher.tokenizer && own !== others) {
      throw new RangeError(
        `Cannot distil as teacher and student must have the same tokenizer: both have ${student.config.vocabSize} tokens, but not the same ones`,
      );
    }
  }
  const largest = windows.reduce(
    (most, { ids }) => ids.reduce((a, b) => Math.max(a, b), most),
    0,
  );
  if (largest >= student.config.vocabSize) {
    throw new RangeError(
      `Cannot distil as the windows must be made with the student's tokenizer: ${student.config.vocabSize} tokens, id ${largest} in a window`,
    );
  }
  const longest = Math.max(...windows.map(({ ids }) => ids.length));
  for (const [who, agent] of Object.entries({ student, teacher })) {
    const positions = agent?.config.maxPositions ?? Infinity;
    if (longest > positions) {
      throw new RangeError(
        `Cannot distil as the ${who} must have a position for each token of a window: ${positions} positions, ${longest} tokens`,
      );
    }
  }
}

export interface DistillOptions extends LossOptions {
  student: Agent;
  /** Null to learn from the tokens alone. */
  teacher: Agent | null;
  steps: number;
  /** Windows of a step. */
  batch: number;
  learningRate: number;
  /** Decides order and choice of windows. */
  key: Key;
  /**
   * Windows that step may draw from, such as a curriculum or one's own episodes; default all given.
   */
  available?: (step: number) => readonly Window[];
  onStep?: (step: number, loss: number) => void;
}

/**
 * Trains the student on the windows, in place.
 *
 * AdamW under a cosine with a warm-up of a twentieth, gradients clipped at norm 1 (ours; the paper's
 * optimiser was not available). The same key draws the same windows whatever the loss.
 *
 * @returns The loss of each step, in nats.
 */
export function distill(
  windows: readonly Window[],
  {
    student,
    teacher,
    steps,
    batch,
    learningRate,
    key,
    available = () => windows,
    onStep,
    ...options
  }: DistillOptions,
): number[] {
  const { divergence = "forward" } = options;
  checkPair(student, divergence === "hard" ? null : teacher, windows);
  for (const [name, value] of Object.entries({ steps, batch })) {
    if (Number.isInteger(value) && value > 0) continue;
    throw new RangeError(
      `Cannot distil as ${name} must be a positive integer: ${value}`,
    );
  }
  if (divergence !== "hard" && teacher === null) {
    throw new TypeError(
      `Cannot distil by ${divergence} divergence as there must be a teacher: none given`,
    );
  }
  const targets = divergence === "hard"
    ? null
    : rememberingTeacher(teacher!, options);
  const up = Math.ceil(steps / 20);
  const optimizer = adamW({
    learningRate: warmup(
      up,
      cosine({ learningRate, steps: Math.max(1, steps - up) }),
    ),
    weightDecay: 0.01,
    clipNorm: 1,
  });
  const losses: number[] = [];
  try {
    for (let step = 0; step < steps; step++) {
      const from = available(step);
      const drawn = randomInts(fold(key, step), batch, 0, from.length);
      const chosen = Array.from(drawn, (i) => from[i]);
      const { ids, ...part } = batchOf(chosen, options);
      const target = targets?.(chosen) ?? null;
      const { value, grads } = valueAndGrads(
        () =>
          structuredLoss({
            ...part,
            student: logitsAt(student, ids, part.rows),
            teacher: target,
          }, options),
        student.params,
      );
      optimizer.step(student.params, grads);
      losses.push(value.dataSync()[0]);
      tf.dispose([value, grads, ids]);
      target?.dispose();
      onStep?.(step, losses[step]);
    }
  } finally {
    optimizer.dispose();
  }
  return losses;
}

/** Mean KL(p_T || p_S) over the new tokens of each kind, in nats per token. */
export function divergences(
  student: Agent,
  teacher: Agent,
  windows: readonly Window[],
  batch = 32,
): { reason: number; act: number } {
  checkPair(student, teacher, windows);
  const sums = { reason: 0, act: 0 };
  const counts = { reason: 0, act: 0 };
  for (let start = 0; start < windows.length; start += batch) {
    const { ids, rows, labels } = batchOf(windows.slice(start, start + batch));
    tf.tidy(() => {
      const [own, target] = [student, teacher]
        .map((agent) => logitsAt(agent, ids, rows));
      for (const label of ["reason", "act"] as const) {
        const chosen = labels.flatMap((l, i) => l === label ? [i] : []);
        if (chosen.length === 0) continue;
        sums[label] += forwardKl(rowsOf(own, chosen), rowsOf(target, chosen))
          .dataSync()[0];
        counts[label] += chosen.length;
      }
    });
    ids.dispose();
  }
  return {
    reason: counts.reason === 0 ? 0 : sums.reason / counts.reason,
    act: counts.act === 0 ? 0 : sums.act / counts.act,
  };
}

/** KL(p_T || p_S) at each token of one text but the first, in nats; for looking at it. */
export function tokenDivergences(
  student: Agent,
  teacher: Agent,
  ids: ArrayLike<number>,
): number[] {
  checkVocabularies(student.config.vocabSize, teacher.config.vocabSize);
  return tf.tidy(() => {
    const input = tf.tensor2d([Array.from(ids)], [1, ids.length], "int32");
    const [logS, logT] = [student, teacher].map(({ params, config }) =>
      tf.logSoftmax(forward(params, config, input).squeeze([0]))
    ); // [T, V]
    const kl = logT.exp().mul(logT.sub(logS)).sum(1).dataSync();
    return Array.from(kl.subarray(0, ids.length - 1));
  });
}
