/**
 * From texts to a fused model in one call: a base, an expert for each text, and a target that learns from
 * all of them and from any other models that the caller has.
 *
 * Scope: for a reader's own texts, some ten kilobytes each or more; small models, minutes at most. The
 * recorded experiment is in lib/experiments/fusion.ts.
 */
import { evaluationBatches, sampleBatch } from "../core/datasets.ts";
import {
  evaluate,
  initLlama,
  type LlamaConfig,
  type LlamaParams,
} from "../core/llama.ts";
import { adamW } from "../core/optim.ts";
import { fold, type Key } from "../core/rng.ts";
import { flatten } from "../core/tensor.ts";
import { type Tokenizer, trainBpe } from "../core/tokenizer.ts";
import { cacheAligned } from "./align.ts";
import { mergeLinear } from "./merge.ts";
import { cacheSource, type Model, type SourceCache } from "./sources.ts";
import { fuseInto, type FuseReport, type Selection } from "./train.ts";

/** A model of the caller's with its own tokenizer. */
export interface OtherSource {
  name: string;
  model: Model;
  tokenizer: Tokenizer;
}

export interface FuseTextsOptions {
  key: Key;
  /** Default: the trained gate. */
  selection?: Selection;
  /** Weight of the true tokens, default 0.5. */
  lambda?: number;
  others?: OtherSource[];
  vocabSize?: number;
  model?: Partial<Omit<LlamaConfig, "vocabSize">>;
  /** Steps of each of the three trainings. */
  steps?: { base: number; expert: number; fuse: number };
  /** Tokens of a text window, default 32. */
  length?: number;
  batch?: number;
  learningRate?: number;
  onStage?: (stage: string) => void;
}

/** The fused model, and how well everything predicts the end of each text. */
export interface FusedTexts {
  target: Model;
  tokenizer: Tokenizer;
  sources: string[];
  /** Bits per byte on the held-out end of each text: [model][text]. */
  bits: Record<string, number[]>;
  /** Mean weight of each source on the windows of each text at the end, [text][source]. */
  weights: number[][];
  /** Share of positions that other tokenizers could speak about, by source. */
  alignedRatio: Record<string, number>;
  report: FuseReport;
}

/** How often the last training sees each of its windows: more, and a small text is learnt by heart. */
const EPOCHS = 2;

/** Share at the end of each text that no training sees. */
const HELD_OUT = 0.15;

const SELECTIONS: Selection["kind"][] = ["none", "rule", "random", "gate"];

/**
 * Trains a base on all texts, continues it on each, and fuses these experts (and `others`) into one model. The last
 * 15 % of each text are held out; `bits` are those there.
 *
 * @param texts By name; each must have a few hundred tokens.
 * @throws {RangeError} If there is no text, or one is too short for a window at its end.
 */
export function fuseTexts(
  texts: Record<string, string>,
  {
    key,
    selection = { kind: "gate" },
    lambda = 0.5,
    others = [],
    vocabSize = 384,
    model = {},
    steps = { base: 150, expert: 80, fuse: 80 },
    length = 32,
    batch = 8,
    learningRate = 3e-3,
    onStage,
  }: FuseTextsOptions,
): FusedTexts {
  const names = Object.keys(texts);
  if (names.length === 0) {
    throw new RangeError("Cannot fuse as there must be a text: 0 given");
  }
  if (!SELECTIONS.includes(selection.kind)) {
    throw new RangeError(
      `Cannot fuse as selection.kind must be one of ${
        SELECTIONS.join(", ")
      }: ${selection.kind}`,
    );
  }
  for (const [stage, count] of Object.entries(steps)) {
    if (Number.isInteger(count) && count > 0) continue;
    throw new RangeError(
      `Cannot fuse as steps.${stage} must be a positive integer: ${count}`,
    );
  }
  const taken = ["base", ...names, ...others.map(({ name }) => name)];
  const twice = taken.find((name, i) => taken.indexOf(name) < i);
  if (twice !== undefined) {
    throw new RangeError(
      `Cannot fuse as texts and other sources must have names of their own, other than "base": "${twice}" twice`,
    );
  }
  // The tokenizer learns from what the models learn from: the held-out ends are new to it too.
  const beginnings = Object.values(texts).map((text) =>
    text.slice(0, Math.floor((1 - HELD_OUT) * text.length))
  );
  const tokenizer = trainBpe(beginnings, { vocabSize });
  const config: LlamaConfig = {
    hiddenSize: 48,
    intermediateSize: 128,
    numLayers: 2,
    numHeads: 4,
    numKvHeads: 4,
    maxPositions: length,
    tieWordEmbeddings: true,
    ...model,
    vocabSize: tokenizer.vocabSize,
  };
  const parts = names.map((name) => {
    const ids = tokenizer.encode(texts[name]);
    const cut = Math.floor((1 - HELD_OUT) * ids.length);
    const least = Math.ceil((length + 1) / HELD_OUT);
    if (ids.length < least) {
      throw new RangeError(
        `Cannot fuse as a text must have at least ${least} tokens for windows of ${length}: "${name}" has ${ids.length}`,
      );
    }
    return { train: ids.subarray(0, cut), test: windowsOf(ids.subarray(cut)) };
  });

  function windowsOf(ids: Int32Array): Int32Array[] {
    const rows: Int32Array[] = [];
    const options = { batch: 64, length: length + 1 };
    for (const { ids: flat, shape } of evaluationBatches(ids, options)) {
      for (let b = 0; b < shape[0]; b++) {
        rows.push(flat.slice(b * shape[1], (b + 1) * shape[1]));
      }
    }
    return rows;
  }

  /** Windows that teach: of one text, or of all in turn. */
  const draw = (which: number[], count: number, own: Key) =>
    Array.from(
      { length: count },
      (_, i) =>
        sampleBatch(parts[which[i % which.length]].train, {
          batch: 1,
          length: length + 1,
          key: fold(own, i),
        }).ids,
    );
  const all = names.map((_, t) => t);
  const train = (
    params: LlamaParams,
    windows: Int32Array[],
    caches: SourceCache[],
    count: number,
    chosen: Selection,
  ) => {
    const optimizer = adamW({ learningRate, clipNorm: 1 });
    const report = fuseInto({ params, config }, windows, caches, {
      selection: chosen,
      lambda,
      optimizer,
      steps: count,
      batch,
      key: fold(key, "order"),
    });
    optimizer.dispose();
    return report;
  };
  const alone = { kind: "none" } as const;
  const copy = (params: LlamaParams) => mergeLinear([params]);
  const bytes = parts.map(({ test }) =>
    test.reduce(
      (sum, row) => sum + tokenizer.decodeBytes(row.subarray(1)).length,
      0,
    )
  );
  const bits: Record<string, number[]> = {};
  const measure = (name: string, params: LlamaParams) => {
    bits[name] = parts.map(({ test }, t) => {
      const { loss, tokens } = evaluate(params, config, test, { batch: 32 });
      return loss * tokens / Math.LN2 / bytes[t];
    });
  };

  onStage?.("base");
  const base = initLlama(config, fold(key, "base"));
  train(
    base,
    draw(all, batch * steps.base, fold(key, "mix")),
    [],
    steps.base,
    alone,
  );
  measure("base", base);
  const perText = Math.max(
    2 * batch,
    Math.ceil(steps.fuse * batch / (EPOCHS * names.length)),
  );
  const windows = draw(all, perText * names.length, fold(key, "teach"));
  const caches = [cacheSource("base", { params: base, config }, windows)];
  names.forEach((name, t) => {
    onStage?.(name);
    const params = copy(base);
    train(
      params,
      draw([t], batch * steps.expert, fold(key, name)),
      [],
      steps.expert,
      alone,
    );
    measure(`expert of ${name}`, params);
    caches.push(cacheSource(name, { params, config }, windows));
    disposeAll(params);
  });
  const alignedRatio: Record<string, number> = {};
  for (const { name, model, tokenizer: source } of others) {
    onStage?.(name);
    const aligned = cacheAligned(
      name,
      model,
      { source, target: tokenizer },
      windows,
    );
    alignedRatio[name] = aligned.alignedRatio;
    caches.push(aligned.cache);
  }
  onStage?.("fusing");
  const control = copy(base);
  train(control, windows, [], steps.fuse, alone);
  measure("without sources", control);
  disposeAll(control);
  const report = train(base, windows, caches, steps.fuse, selection);
  measure("fused", base);
  return {
    target: { params: base, config },
    tokenizer,
    sources: caches.map(({ name }) => name),
    bits,
    weights: all.map((t) => meanWeights(report.lastWeights, t, names.length)),
    alignedRatio,
    report,
  };
}

function disposeAll(params: LlamaParams): void {
  for (const tensor of Object.values(flatten(params))) tensor.dispose();
}

/** Mean of the rows t, t + every, t + 2 every ... that have weights. */
function meanWeights(
  weights: readonly number[][],
  t: number,
  every: number,
): number[] {
  const own = weights.filter((row, i) => i % every === t && row.length > 0);
  return (own[0] ?? []).map((_, k) =>
    own.reduce((sum, row) => sum + row[k], 0) / own.length
  );
}
