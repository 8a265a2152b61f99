/**
 * Weight merging, the fusion that needs one architecture and no training.
 *
 *   linear           mean of the weights
 *   task arithmetic  base + alpha sum of (source - base)   (Ilharco et al., arXiv 2212.04089)
 *   TIES             trim, elect sign, mean of what agrees (Yadav et al., arXiv 2306.01708)
 *   SLERP            along the arc between two models      (Shoemake 1985)
 */
import { flatten, type Tensor, tf } from "../core/tensor.ts";
import { type LlamaParams, nestParams } from "../core/llama.ts";

type Lists = Record<string, { shape: number[]; values: ArrayLike<number> }>;

function listsOf(params: LlamaParams): Lists {
  return Object.fromEntries(
    Object.entries(flatten(params)).map(([name, t]) => [
      name,
      { shape: t.shape, values: t.dataSync() },
    ]),
  );
}

/** Combines tensors of the same name; refuses models of different shapes by name and both sizes. */
function combine(
  models: readonly LlamaParams[],
  rule: (values: ArrayLike<number>[]) => Float32Array,
): LlamaParams {
  if (models.length === 0) {
    throw new RangeError("Cannot merge as there must be a model: 0 given");
  }
  const lists = models.map(listsOf);
  const merged: Record<string, Tensor> = {};
  for (const [name, { shape }] of Object.entries(lists[0])) {
    lists.forEach((other, i) => {
      if (`${other[name]?.shape}` !== `${shape}`) {
        throw new RangeError(
          `Cannot merge as all models must have one shape: ${name} is [${shape}] in model 0 and [${
            other[name]?.shape ?? "absent"
          }] in model ${i}`,
        );
      }
    });
    const values = rule(lists.map((list) => list[name].values));
    merged[name] = tf.tidy(() => tf.variable(tf.tensor(values, shape)));
  }
  return nestParams(merged);
}

/** theta = 1/K sum of theta_k */
export function mergeLinear(models: readonly LlamaParams[]): LlamaParams {
  return combine(
    models,
    (all) =>
      Float32Array.from(
        all[0],
        (_, i) => all.reduce((sum, values) => sum + values[i], 0) / all.length,
      ),
  );
}

/** theta = base + alpha sum of (theta_k - base); alpha 1/K is the mean. */
export function taskArithmetic(
  base: LlamaParams,
  models: readonly LlamaParams[],
  { alpha = 0.4 } = {},
): LlamaParams {
  return combine(
    [base, ...models],
    ([b, ...all]) =>
      Float32Array.from(
        b,
        (start, i) =>
          start +
          alpha * all.reduce((sum, values) => sum + values[i] - start, 0),
      ),
  );
}

/**
 * TIES on the differences of one tensor: keeps the largest `density` of each, elects the sign with the
 * greater mass at each place, and takes the mean of what has that sign.
 *
 * @example
 * tiesDelta([[1, -4], [3, 1]], 1); // [2, -4]
 */
export function tiesDelta(
  deltas: ArrayLike<number>[],
  density: number,
): number[] {
  const trimmed = deltas.map((delta) => {
    const sizes = Float64Array.from(delta, Math.abs).sort();
    const count = Math.max(1, Math.round(density * delta.length));
    const least = sizes[sizes.length - count];
    return Array.from(delta, (d) => Math.abs(d) >= least ? d : 0);
  });
  return trimmed[0].map((_, i) => {
    const at = trimmed.map((delta) => delta[i]);
    const sign = Math.sign(at.reduce((a, b) => a + b, 0));
    const agree = at.filter((d) => d !== 0 && Math.sign(d) === sign);
    return agree.length === 0
      ? 0
      : agree.reduce((a, b) => a + b, 0) / agree.length;
  });
}

/** theta = base + lambda ties(theta_k - base) (arXiv 2306.01708, section 4; density 0.2, lambda 1). */
export function mergeTies(
  base: LlamaParams,
  models: readonly LlamaParams[],
  { density = 0.2, lambda = 1 } = {},
): LlamaParams {
  if (!(density > 0 && density <= 1)) {
    throw new RangeError(
      `Cannot merge as density must be in (0, 1]: ${density}`,
    );
  }
  if (models.length === 0) {
    throw new RangeError(
      "Cannot merge as there must be a model beside the base: 0 given",
    );
  }
  return combine([base, ...models], ([b, ...all]) => {
    const deltas = all.map((values) =>
      Float64Array.from(values, (v, i) => v - b[i])
    );
    const delta = tiesDelta(deltas, density);
    return Float32Array.from(b, (start, i) => start + lambda * delta[i]);
  });
}

/** sin((1-t) w)/sin(w) a + sin(t w)/sin(w) b for each tensor, w the angle; a straight line if w is tiny. */
export function mergeSlerp(
  first: LlamaParams,
  second: LlamaParams,
  { t = 0.5 } = {},
): LlamaParams {
  return combine([first, second], ([a, b]) => {
    let [ab, aa, bb] = [0, 0, 0];
    for (let i = 0; i < a.length; i++) {
      ab += a[i] * b[i];
      aa += a[i] * a[i];
      bb += b[i] * b[i];
    }
    const size = Math.sqrt(aa * bb);
    const cosine = size > 0 ? Math.min(1, Math.max(-1, ab / size)) : 1;
    const angle = Math.acos(cosine);
    const straight = Math.sin(angle) < 1e-6; // for numerical stability
    const left = straight ? 1 - t : Math.sin((1 - t) * angle) / Math.sin(angle);
    const right = straight ? t : Math.sin(t * angle) / Math.sin(angle);
    return Float32Array.from(a, (x, i) => left * x + right * b[i]);
  });
}

/**
 * SLERP of any number of models: each next one is joined at 1 / (models so far) of the arc, so that all
 * count alike. The result depends on the order where the models are not on one arc.
 */
export function mergeSlerpAll(models: readonly LlamaParams[]): LlamaParams {
  let merged = mergeLinear(models.slice(0, 1));
  for (let k = 1; k < models.length; k++) {
    const next = mergeSlerp(merged, models[k], { t: 1 / (k + 1) });
    tf.dispose(flatten(merged));
    merged = next;
  }
  return merged;
}
