/** Text as the language-model experiments use it: one fixed split per domain, windows of tokens as tensors. */
import {
  type Batch,
  evaluationBatches,
  loadText,
  packTokens,
  splitByDocument,
  type TextSplit,
  tokenBatches,
} from "../core/datasets.ts";
import { type Key, key } from "../core/rng.ts";
import type { RunContext } from "../core/runs.ts";
import { type Tensor, tf } from "../core/tensor.ts";
import type { Tokenizer } from "../core/tokenizer.ts";

/** The token between documents; the first id of every vocabulary trained here. */
export const END_OF_TEXT = "<|endoftext|>";

/** Every experiment splits a domain in the same way, so that nothing held out was ever trained on. */
const SPLIT_KEY = key(2025);

/** A domain's documents in training, validation and test parts; its hash goes into the record. */
export function domainSplit(name: string, context: RunContext): TextSplit {
  const data = loadText(name);
  context.data(name, data.hash);
  return splitByDocument(data.documents, {
    key: SPLIT_KEY,
    validation: 0.05,
    test: 0.1,
  });
}

/** Ids of the documents, each followed by the end-of-text token. */
export function tokensOf(
  documents: TextSplit["train"],
  tokenizer: Tokenizer,
): Int32Array {
  const separator = tokenizer.special[END_OF_TEXT] ?? null;
  return packTokens(documents, tokenizer, { separator }); // [N]
}

function toTensor({ ids, shape }: Batch): Tensor {
  return tf.tensor2d(ids, shape, "int32"); // [B, T + 1]
}

/** Training batches without end, int32 [B, T + 1]. */
export function* trainingBatches(
  ids: Int32Array,
  options: { batch: number; length: number; key: Key },
): Generator<Tensor, never, void> {
  const { batch, length, key } = options;
  for (
    const next of tokenBatches(ids, { batch, length: length + 1, key })
  ) yield toTensor(next);
  throw new Error("unreachable"); // tokenBatches has no end
}

/** At most `limit` windows of T + 1 tokens, spread evenly over the text. */
export function evaluationWindows(
  ids: Int32Array,
  { length, limit }: { length: number; limit: number },
): Int32Array[] {
  const rows: Int32Array[] = [];
  const options = { batch: 64, length: length + 1, limit };
  for (const { ids: flat, shape: [B, L] } of evaluationBatches(ids, options)) {
    for (let b = 0; b < B; b++) rows.push(flat.slice(b * L, (b + 1) * L));
  }
  return rows;
}

/** UTF-8 bytes of the text that the windows' targets stand for. */
export function targetBytes(
  windows: Int32Array[],
  tokenizer: Tokenizer,
): number {
  return windows.reduce(
    (sum, ids) => sum + tokenizer.decodeBytes(ids.subarray(1)).length,
    0,
  );
}
