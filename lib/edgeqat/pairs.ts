/**
 * Scores of whole texts, for minimal pairs: batches hold texts of one length, so that nothing is padding, and a text
 * that stands in several pairs is computed once.
 */
import {
  type ForwardOptions,
  type LlamaConfig,
  type LlamaParams,
  tokenLogProbs,
} from "../core/llama.ts";
import { tf } from "../core/tensor.ts";

/**
 * log p of each text in nats: the sum over its tokens after the first.
 *
 * Padding would count in a min-max range and in a ranking of tokens, so texts of other lengths never share
 * a batch.
 *
 * @param texts ids, each beginning with the end-of-text token
 * @param options as for `forward`; `batch` texts at most are computed at once, default 32
 */
export function textLogProbs(
  params: LlamaParams,
  config: LlamaConfig,
  texts: ArrayLike<number>[],
  { batch = 32, ...options }: ForwardOptions & { batch?: number } = {},
): Float64Array {
  const short = texts.findIndex((ids) => ids.length < 2);
  if (short >= 0) {
    throw new RangeError(
      `Cannot score text ${short} as it must have at least 2 tokens: ${
        texts[short].length
      }`,
    );
  }
  const byLength = new Map<number, number[]>();
  const firsts = new Map<string, number>();
  const first = texts.map((ids, i) => {
    const name = Array.from(ids).join();
    const known = firsts.get(name);
    if (known !== undefined) return known;
    firsts.set(name, i);
    const same = byLength.get(ids.length) ?? [];
    byLength.set(ids.length, same);
    same.push(i);
    return i;
  });
  const sums = new Float64Array(texts.length);
  for (const [length, members] of byLength) {
    for (let start = 0; start < members.length; start += batch) {
      const chosen = members.slice(start, start + batch);
      const flat = Int32Array.from(chosen.flatMap((i) => Array.from(texts[i])));
      const logProbs = tf.tidy(() =>
        tokenLogProbs(
          params,
          config,
          tf.tensor2d(flat, [chosen.length, length], "int32"),
          options,
        ).dataSync()
      ); // [B, length - 1]
      chosen.forEach((i, row) => {
        for (let t = 0; t < length - 1; t++) {
          sums[i] += logProbs[row * (length - 1) + t];
        }
      });
    }
  }
  return Float64Array.from(first, (i) => sums[i]);
}
