/**
 * Quantisation-aware training: L_total = L_distill + r_E L_E + r_D L_D (arXiv 2402.10787 v2, Eq. 16).
 */
import {
  forward,
  type LlamaConfig,
  type LlamaParams,
  type TrainStep,
} from "../core/llama.ts";
import { crossEntropy } from "../core/nn.ts";
import type { Optimizer } from "../core/optim.ts";
import { fold, type Key } from "../core/rng.ts";
import {
  flatten,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
} from "../core/tensor.ts";
import {
  distillationLoss,
  type DistillationOptions,
  distributionLoss,
  type DistributionSign,
  type EntropyForm,
  entropyLoss,
} from "./losses.ts";
import {
  floatPass,
  type Pass,
  type Student,
  studentPass,
  trainableOf,
} from "./student.ts";

/** What the student is trained for; a part that is missing does not count. */
export interface Objective {
  /** Without it the student learns from the text alone. */
  distillation?: DistillationOptions;
  /** r_E and the form of L_E; 0.5 in paper and code. */
  entropy?: { weight: number; form: EntropyForm };
  /** r_D and the sign of L_D; 1 in paper and code. */
  distribution?: { weight: number; sign: DistributionSign };
}

/** The float model that is learned from. */
export interface Teacher {
  params: LlamaParams;
  config: LlamaConfig;
}

export interface QatOptions {
  student: Student;
  /** Needed for distillation and the distribution loss. */
  teacher?: Teacher;
  objective: Objective;
  optimizer: Optimizer;
  /** int32 [B, T + 1] for each step; disposed after use. */
  batches: Iterable<Tensor>;
  steps: number;
  /** Source of noise for the methods that train with it. */
  key: Key;
  onStep?: (report: TrainStep) => void;
}

/** Logits and trace of the teacher; none of it has a gradient. */
function askTeacher(
  { params, config }: Teacher,
  inputs: Tensor,
  withMaps: boolean,
): { logits: Tensor; pass: Pass } {
  const pass = floatPass();
  const logits = forward(params, config, inputs, withMaps ? pass.options : {});
  return { logits, pass };
}

/**
 * The loss of one batch.
 *
 * @param ids int32 [B, T + 1]
 */
export function qatLoss(
  student: Student,
  ids: Tensor,
  objective: Objective,
  { teacher, noise }: { teacher?: Teacher; noise?: Key } = {},
): Scalar {
  const { distillation, entropy, distribution } = objective;
  if (
    teacher === undefined &&
    (distillation !== undefined || distribution !== undefined)
  ) {
    throw new TypeError(
      "Cannot compute the loss as distillation and the distribution loss need a teacher: none given",
    );
  }
  if (teacher !== undefined) {
    for (const size of ["vocabSize", "numLayers", "numHeads"] as const) {
      if (size !== "vocabSize" && distribution === undefined) continue;
      const [ours, theirs] = [student.config[size], teacher.config[size]];
      if (ours === theirs) continue;
      throw new RangeError(
        `Cannot compute the loss as student and teacher must have the same ${size}: ${ours} and ${theirs}`,
      );
    }
  }
  const [B, length] = ids.shape as [number, number];
  return tf.tidy(() => {
    const inputs = ids.slice([0, 0], [B, length - 1]);
    const labels = ids.slice([0, 1], [B, length - 1]);
    const taught = teacher === undefined
      ? undefined
      : askTeacher(teacher, inputs, distribution !== undefined);
    const record = entropy !== undefined || distribution !== undefined;
    const { options, trace } = studentPass(student, { noise, record });
    const logits = forward(student.params, student.config, inputs, options);
    let loss: Tensor = distillation === undefined
      ? crossEntropy(
        logits.reshape([B * (length - 1), -1]),
        labels.reshape([B * (length - 1)]),
      )
      : distillationLoss(logits, labels, taught!.logits, distillation);
    // L_total = L_distill + r_E L_E + r_D L_D
    if (entropy !== undefined) {
      const { weight, form } = entropy;
      loss = loss.add(entropyLoss(trace.q, trace.k, form).mul(weight));
    }
    if (distribution !== undefined) {
      const { weight, sign } = distribution;
      const maps = taught!.pass.trace.scores;
      loss = loss.add(distributionLoss(trace.scores, maps, sign).mul(weight));
    }
    trace.dispose();
    taught?.pass.trace.dispose();
    return loss as Scalar;
  });
}

/** Below this a learned step no longer shrinks: a step of 0 has no codes. */
const LEAST_STEP = 1e-6;

/** Puts steps that an update made 0 or negative back to the least one. */
function keepPositive({ steps }: Student): void {
  for (const [path, step] of Object.entries(flatten(steps as never))) {
    if (!path.endsWith(".alpha")) continue;
    if (step.dataSync()[0] < LEAST_STEP) {
      tf.tidy(() => (step as tf.Variable).assign(tf.scalar(LEAST_STEP)));
    }
  }
}

/**
 * Trains weights and steps of the student, and returns what each training step measured.
 *
 * @throws {RangeError} if a loss is NaN or infinite; the student is as it was before that step
 */
export function trainStudent(
  { student, teacher, objective, optimizer, batches, steps, key, onStep }:
    QatOptions,
): TrainStep[] {
  const trainable = trainableOf(student);
  const iterator = batches[Symbol.iterator]();
  const history: TrainStep[] = [];
  for (let step = 0; step < steps; step++) {
    const { value: ids, done } = iterator.next();
    if (done) {
      throw new RangeError(
        `Cannot train as there must be a batch for each step: ${steps} steps, ${step} batches`,
      );
    }
    const { value, grads } = valueAndGrads(
      () =>
        qatLoss(student, ids, objective, { teacher, noise: fold(key, step) }),
      trainable,
    );
    try {
      const loss = value.dataSync()[0];
      if (!Number.isFinite(loss)) {
        throw new RangeError(
          `Cannot go on training as the loss must be finite: ${loss} at step ${step}, last finite loss ${
            history.at(-1)?.loss ?? "none"
          }; try a smaller learning rate`,
        );
      }
      const { gradNorm } = optimizer.step(trainable, grads);
      keepPositive(student);
      const report = { step, loss, gradNorm };
      history.push(report);
      onStep?.(report);
    } finally {
      tf.dispose([value, ids, grads]);
    }
  }
  return history;
}
