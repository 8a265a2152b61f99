/**
 * Adapts a language model to a text file and shows what it writes before and after.
 *
 *   deno run -A scripts/rora.ts my.txt --out my-adapter
 *   node --import tsx scripts/rora.ts my.txt --model path/to/huggingface-folder --rank 16
 *
 * The adapter is written as a PEFT folder.
 */
import { existsSync, mkdirSync, rmdirSync } from "node:fs";
import { relative } from "node:path";
import process from "node:process";
import { Command, Option } from "commander";
import { SingleBar } from "cli-progress";
import { textFile } from "../lib/core/datasets.ts";
import { loadHuggingFace } from "../lib/core/formats/huggingface.ts";
import { fold, key } from "../lib/core/rng.ts";
import { projectRoot } from "../lib/core/runs.ts";
import { ready } from "../lib/core/tensor.ts";
import {
  continueText,
  finetune,
  METHODS,
  saveAdapters,
} from "../lib/rora/mod.ts";
import { describeError } from "./cli.ts";

interface Options {
  model: string;
  method: "rora" | "lora" | "dora" | "dora-sqrt";
  rank: string;
  alpha: string;
  steps: string;
  learningRate: string;
  prompt: string;
  temperature: string;
  seed: string;
  out?: string;
}

/** The number of an option. */
function numberOf(name: string, text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) {
    throw new RangeError(`Cannot read --${name} as a number: ${text}`);
  }
  return value;
}

async function main(path: string, options: Options): Promise<void> {
  if (options.out !== undefined && existsSync(options.out)) {
    throw new RangeError(
      `Cannot write the adapter as the folder must be new: ${options.out}`,
    );
  }
  const seed = key(numberOf("seed", options.seed));
  const steps = numberOf("steps", options.steps);
  const temperature = numberOf("temperature", options.temperature);
  const adapterOptions = {
    ...METHODS[options.method],
    rank: numberOf("rank", options.rank),
    alpha: numberOf("alpha", options.alpha),
    learningRate: numberOf("learning-rate", options.learningRate),
    steps,
  };
  if (options.prompt === "") {
    throw new RangeError(`Cannot write samples as --prompt must not be empty`);
  }
  if (!(Number.isInteger(steps) && steps > 0)) {
    throw new RangeError(
      `Cannot adapt as --steps must be a whole number above 0: ${options.steps}`,
    );
  }
  const { documents } = textFile(path, { documentBytes: 1024 });
  // Before the training: a folder that cannot be made must not cost the adapter.
  if (options.out !== undefined) {
    mkdirSync(options.out, { recursive: true });
    rmdirSync(options.out);
  }
  await ready();
  const model = loadHuggingFace(options.model);
  const sample = (adapters = {}) =>
    continueText(model, options.prompt, {
      adapters,
      temperature,
      maxTokens: 80,
      key: fold(seed, "sample"),
    });
  const bar = new SingleBar({
    format: "{bar} {percentage} %, {eta_formatted} left, loss {loss}",
    noTTYOutput: false,
  });
  if (process.stderr.isTTY) bar.start(steps, 0, { loss: "" });
  const train = () => {
    try {
      return finetune(model, documents, {
        ...adapterOptions,
        onStep: ({ step, loss }) =>
          bar.update(step + 1, { loss: loss.toFixed(3) }),
      }, seed);
    } finally {
      bar.stop();
    }
  };
  const { adapters, modules, before, after } = train();
  if (options.out !== undefined) {
    const baseModel = relative(process.cwd(), options.model);
    saveAdapters(options.out, adapters, { baseModel });
    console.log(`Adapter written to ${options.out}`);
  }
  console.log(
    `Held-out perplexity ${before.perplexity.toFixed(1)} before, ${
      after.perplexity.toFixed(1)
    } after (${after.tokens} tokens)`,
  );
  console.log(`\nBefore:\n${sample()}\n\nAfter:\n${sample(modules)}`);
}

const program = new Command("rora")
  .description("adapt a language model to a text file")
  .argument("<text>", "a UTF-8 text file")
  .option(
    "--model <folder>",
    "Hugging Face folder of a LLaMA-architecture model",
    relative(process.cwd(), `${projectRoot()}/data/models/base`),
  )
  .addOption(
    new Option("--method <name>", "method").choices(Object.keys(METHODS))
      .default("rora"),
  )
  .option("--rank <r>", "rank", "8")
  .option("--alpha <a>", "numerator of the factor", "16")
  .option("--steps <n>", "training steps", "100")
  .option("--learning-rate <rate>", "peak learning rate", "2e-3")
  .option("--prompt <text>", "beginning of the samples", "The")
  .option("--temperature <t>", "0 is greedy", "0.7")
  .option("--seed <n>", "seed", "1")
  .option("--out <folder>", "write the adapter here, as a PEFT folder")
  .action(async (path: string, options: Options) => {
    try {
      await main(path, options);
    } catch (error) {
      console.error(describeError(error));
      process.exitCode = 1;
    }
  });

await program.parseAsync();
