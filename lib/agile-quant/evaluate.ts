/**
 * How well a quantised and pruned model predicts, on the positions that it kept.
 *
 * A pruned token has no output, so its prediction cannot be scored. The released code drops it from the mean and
 * compares the rest with the dense model on all tokens: another, and possibly easier, set. Here every comparison
 * names its set: losses stand by position, and both models are averaged over the same ones.
 */
import { forward, type LlamaConfig, type LlamaParams } from "../core/llama.ts";
import { crossEntropy } from "../core/nn.ts";
import { fold } from "../core/rng.ts";
import { tf } from "../core/tensor.ts";
import { type Plan, quantizedPass } from "./model.ts";

/** Losses of a model by window and position; NaN where a token was pruned. */
export interface PositionLosses {
  /** [windows][T], nats. */
  losses: Float64Array[];
  /** Tokens left behind each layer, for one window; all of them without a plan. */
  counts: number[];
}

/**
 * -log p of the next token at each position that is left.
 *
 * @param windows T + 1 ids each, all of the same length
 * @param plan none for the model in float
 */
export function positionLosses(
  params: LlamaParams,
  config: LlamaConfig,
  windows: ArrayLike<number>[],
  { plan, batch = 8 }: { plan?: Plan; batch?: number } = {},
): PositionLosses {
  const T = (windows[0]?.length ?? 0) - 1;
  if (T < 1 || windows.some((row) => row.length !== T + 1)) {
    throw new RangeError(
      `Cannot evaluate as there must be windows of one length of 2 or more tokens: ${windows.length} windows`,
    );
  }
  const losses: Float64Array[] = [];
  let counts = new Array<number>(config.numLayers).fill(T);
  for (let start = 0; start < windows.length; start += batch) {
    const rows = windows.slice(start, start + batch).map((row) =>
      Array.from(row)
    );
    const pass = plan === undefined ? null : quantizedPass({
      ...plan,
      tokens: { ...plan.tokens, key: fold(plan.tokens.key, start) },
    });
    const values = tf.tidy(() => {
      const ids = tf.tensor2d(
        rows.map((row) => row.slice(0, T)),
        [rows.length, T],
        "int32",
      );
      const logits = forward(params, config, ids, pass?.options);
      const V = logits.shape[2]!;
      const kept = pass?.kept();
      const labels = rows.flatMap((row, b) =>
        kept === undefined ? row.slice(1) : kept[b].map((t) => row[t + 1])
      );
      return crossEntropy(
        logits.reshape([-1, V]),
        tf.tensor1d(labels, "int32"),
        { reduction: "none" },
      ).dataSync();
    });
    const kept = pass?.kept();
    const left = values.length / rows.length;
    rows.forEach((_, b) => {
      const own = new Float64Array(T).fill(NaN);
      for (let i = 0; i < left; i++) {
        own[kept === undefined ? i : kept[b][i]] = values[b * left + i];
      }
      losses.push(own);
    });
    if (pass !== null) counts = pass.counts();
  }
  return { losses, counts };
}

/** Mean loss of each window over the positions that `like` kept; default all of its own. */
export function windowLosses(
  { losses }: PositionLosses,
  like: PositionLosses = { losses, counts: [] },
): number[] {
  return losses.map((own, w) => {
    let sum = 0;
    let count = 0;
    like.losses[w].forEach((other, t) => {
      if (Number.isNaN(other)) return;
      sum += own[t];
      count++;
    });
    return sum / count;
  });
}
