/**
 * From a text to adapters: the short way to use RoRA on text of one's own.
 *
 * Part of the documents is held out, the rest trains the adapters, and the loss on the held-out part
 * before and after says whether it helped.
 */
import {
  evaluationBatches,
  packTokens,
  splitByDocument,
  type TextDocument,
  tokenBatches,
} from "../core/datasets.ts";
import {
  evaluate,
  type Evaluation,
  generate,
  type GenerateOptions,
  type LlamaConfig,
  type LlamaParams,
  trainLanguageModel,
} from "../core/llama.ts";
import type { Adapter } from "../core/nn.ts";
import { adamW, linear, warmup } from "../core/optim.ts";
import { fold, type Key } from "../core/rng.ts";
import { tf } from "../core/tensor.ts";
import type { Tokenizer } from "../core/tokenizer.ts";
import {
  adapterModules,
  type AdapterOptions,
  type AdapterSet,
  disposeAdapters,
  initAdapters,
} from "./adapter.ts";

/** A language model with its tokenizer, as `huggingface.loadHuggingFace` returns it. */
export interface LanguageModel {
  params: LlamaParams;
  config: LlamaConfig;
  tokenizer: Tokenizer;
}

export interface FinetuneOptions extends AdapterOptions {
  /** Default 100. */
  steps?: number;
  /** Peak of a linear schedule with 10 % warm-up; default 2e-3, our choice for small models. */
  learningRate?: number;
  /** Windows of a step; default 8. */
  batch?: number;
  /** Tokens of a window; default 64. */
  length?: number;
  /** Share of the text that is held out; default 0.1. */
  heldOut?: number;
  onStep?: (progress: { step: number; loss: number }) => void;
}

export interface Finetuned {
  adapters: AdapterSet;
  /** What `forward` and `generate` take as `adapters`. */
  modules: Record<string, Adapter>;
  /** Loss of each step in nats per token. */
  losses: number[];
  /** On the held-out part. */
  before: Evaluation;
  after: Evaluation;
}

/**
 * Adapters trained on documents, with the loss on held-out ones before and after.
 *
 * @param documents For instance `datasets.textFile("my.txt").documents`
 * @throws RangeError if training or held-out text is shorter than one window
 */
export function finetune(
  { params, config, tokenizer }: LanguageModel,
  documents: readonly TextDocument[],
  {
    steps = 100,
    learningRate = 2e-3,
    batch = 8,
    length = 64,
    heldOut = 0.1,
    onStep,
    ...adapterOptions
  }: FinetuneOptions,
  key: Key,
): Finetuned {
  const split = splitByDocument(documents, {
    key: fold(key, "split"),
    validation: heldOut,
  });
  const ids = (part: "train" | "validation") => {
    const packed = packTokens(split[part], tokenizer); // [N]
    if (packed.length <= length) {
      throw new RangeError(
        `Cannot adapt to the text as its ${part} part must have more than ${length} tokens: ` +
          `${packed.length} in ${
            split[part].length
          } documents; give more text or a smaller length`,
      );
    }
    return packed;
  };
  const [training, validation] = [ids("train"), ids("validation")];
  const windows = [
    ...evaluationBatches(validation, { batch: 1, length: length + 1 }),
  ].map((window) => window.ids);

  const adapters = initAdapters(params, adapterOptions, fold(key, "adapters"));
  const modules = adapterModules(adapters);
  const warmupSteps = Math.max(1, Math.round(0.1 * steps));
  const optimizer = adamW({
    learningRate: warmup(
      warmupSteps,
      linear({ learningRate, steps: Math.max(1, steps - warmupSteps) }),
    ),
    weightDecay: 0,
  });
  function* batches() {
    const options = { batch, length: length + 1, key: fold(key, "batches") };
    for (const { ids, shape } of tokenBatches(training, options)) {
      yield tf.tensor2d(ids, shape, "int32"); // [B, T + 1]
    }
  }
  try {
    const before = evaluate(params, config, windows);
    const history = trainLanguageModel({
      params,
      config,
      trainable: adapters.params,
      adapters: modules,
      optimizer,
      batches: batches(),
      steps,
      onStep,
    });
    const after = evaluate(params, config, windows, { adapters: modules });
    const losses = history.map(({ loss }) => loss);
    return { adapters, modules, losses, before, after };
  } catch (error) {
    disposeAdapters(adapters);
    throw error;
  } finally {
    optimizer.dispose();
  }
}

/** The prompt and what the model writes after it. */
export function continueText(
  { params, config, tokenizer }: LanguageModel,
  prompt: string,
  options: GenerateOptions = {},
): string {
  const ids = tokenizer.encode(prompt);
  const written = generate(params, config, ids, options);
  return tokenizer.decode([...ids, ...written]);
}
