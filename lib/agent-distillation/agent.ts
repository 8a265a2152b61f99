/** Language models as agents: how they decide, and how episodes of theirs are measured. */
import { createEngine, type Engine } from "../core/engine.ts";
import {
  readSafetensors,
  readSafetensorsHeader,
  writeSafetensors,
} from "../core/formats/safetensors.ts";
import {
  initLlama,
  type LlamaConfig,
  type LlamaParams,
  nestParams,
} from "../core/llama.ts";
import { fold, type Key } from "../core/rng.ts";
import { flatten, type Tensor, tf, type Variable } from "../core/tensor.ts";
import { loadTokenizer, type Tokenizer } from "../core/tokenizer.ts";
import {
  type Environment,
  play,
  type Policy,
  type Split,
  type Transcript,
  type Turn,
} from "./environment.ts";
import {
  contextOf,
  parseWords,
  renderWords,
  type SeenOptions,
  withinTokens,
} from "./transcript.ts";

/** A language model that writes turns. */
export interface Agent {
  params: LlamaParams;
  config: LlamaConfig;
  tokenizer: Tokenizer;
}

/** Sizes of an agent's model. */
export type AgentShape = {
  hiddenSize: number;
  numLayers: number;
  numHeads: number;
  /** Default 256: a turn of each world and the one before it fit. */
  maxPositions?: number;
};

/**
 * Initial matrices are so many times those of `initLlama`: at widths below 100 the 0.02 of GPT-2 learns to copy a word
 * from the list several times slower (loss after 100 steps at width 64: 0.74 against 0.30).
 */
const INIT_SCALE = 4;

/** A new agent; feed-forward layers are 8/3 as wide as the model, as in LLaMA, in multiples of 8. */
export function createAgent(
  tokenizer: Tokenizer,
  { hiddenSize, numLayers, numHeads, maxPositions = 256 }: AgentShape,
  key: Key,
): Agent {
  const config: LlamaConfig = {
    vocabSize: tokenizer.vocabSize,
    hiddenSize,
    intermediateSize: 8 * Math.ceil(hiddenSize / 3),
    numLayers,
    numHeads,
    numKvHeads: numHeads,
    tieWordEmbeddings: true,
    maxPositions,
  };
  const params = initLlama(config, key);
  for (const weight of Object.values(flatten(params)) as Variable[]) {
    if (weight.rank === 2) tf.tidy(() => weight.assign(weight.mul(INIT_SCALE)));
  }
  return { params, config, tokenizer };
}

/** Frees an agent's parameters. */
export function disposeAgent({ params }: Agent): void {
  tf.dispose(flatten(params));
}

/** An agent as the bytes of a safetensors file, with its configuration and tokenizer. */
export function packAgent({ params, config, tokenizer }: Agent): Uint8Array {
  const tensors = Object.fromEntries(
    Object.entries(flatten(params)).map(([name, t]) => [name, {
      dtype: "F32" as const,
      shape: t.shape,
      data: t.dataSync() as Float32Array,
    }]),
  );
  return writeSafetensors(tensors, {
    config: JSON.stringify(config),
    tokenizer: JSON.stringify(tokenizer.toJson()),
  });
}

/** The inverse of `packAgent`. */
export function unpackAgent(bytes: Uint8Array): Agent {
  const { metadata } = readSafetensorsHeader(bytes);
  const named = Object.fromEntries(
    Object.entries(readSafetensors(bytes)).map(([name, { shape, data }]) => [
      name,
      tf.variable(tf.tensor(data as Float32Array, shape)) as Tensor,
    ]),
  );
  return {
    params: nestParams(named),
    config: JSON.parse(metadata.config),
    tokenizer: loadTokenizer(JSON.parse(metadata.tokenizer)),
  };
}

export interface ActOptions {
  /** 0, the default, is greedy. */
  temperature?: number;
  /** Needed above temperature 0. */
  key?: Key;
  /** A turn that is longer ends without an action; default 48. */
  maxTokens?: number;
}

/** What an agent can do in place, without tensors. */
export interface Actor {
  engine: Engine;
  tokenizer: Tokenizer;
  maxPositions: number;
}

/** The agent ready to write; its parameters are copied. */
export function createActor({ params, config, tokenizer }: Agent): Actor {
  const { maxPositions = Infinity } = config;
  return { engine: createEngine(params, config), tokenizer, maxPositions };
}

/**
 * The text of one turn after a context, up to the end of its line of action.
 *
 * @throws {RangeError} If the context leaves no position to write at.
 */
export function writeTurn(
  { engine, tokenizer, maxPositions }: Actor,
  context: string,
  { temperature = 0, key, maxTokens = 48 }: ActOptions = {},
): string {
  const lineEnd = tokenizer.encode("\n")[0];
  const action = tokenizer.encode("Action:")[0];
  const prompt = tokenizer.encode(context);
  if (prompt.length >= maxPositions) {
    throw new RangeError(
      `Cannot write a turn as what the agent sees must leave it a position: ${maxPositions} positions, ${prompt.length} tokens`,
    );
  }
  let acting = false;
  let fresh = true;
  const ids = engine.generate(prompt, {
    temperature,
    key,
    maxTokens,
    onToken(id) {
      if (fresh) acting = id === action;
      fresh = id === lineEnd;
      return !(fresh && acting);
    },
  });
  return tokenizer.decode(Array.from(ids));
}

/** A policy that writes each turn with a language model. */
export function agentPolicy(
  actor: Actor,
  { memory, contextTokens = Infinity, ...options }: ActOptions & SeenOptions =
    {},
): Policy {
  const fits = withinTokens(actor.tokenizer, contextTokens);
  const turns: Turn[] = [];
  let start: string | null = null;
  return ({ header, observation }) => {
    start ??= observation;
    const last = turns.at(-1);
    if (last !== undefined) last.observation = observation;
    const context = contextOf({ header, start }, turns, { memory, fits });
    const { key } = options;
    const words = parseWords(
      writeTurn(actor, context, {
        ...options,
        key: key === undefined ? undefined : fold(key, turns.length),
      }),
    );
    turns.push({ ...words, observation: "", valid: true });
    return words;
  };
}

/** Plays the first `count` episodes of a split; the same key gives every policy the same episodes. */
export function playMany(
  environment: Environment,
  split: Split,
  count: number,
  key: Key,
  policy: (episode: number) => Policy,
  onEpisode?: (done: number) => void,
): Transcript[] {
  return Array.from({ length: count }, (_, i) => {
    const episode = environment.reset(fold(fold(key, split), i), split);
    const transcript = play(environment, episode, policy(i));
    onEpisode?.(i + 1);
    return transcript;
  });
}

/** What a policy's episodes come to. */
export interface EpisodeMetrics {
  successPercent: number;
  /** Mean reward, 0 to 1. */
  reward: number;
  /** Tokens of reasoning per episode, and per turn. */
  reasoningTokens: number;
  reasoningPerTurn: number;
  steps: number;
  /** Share of turns without an action that the world knows. */
  invalidPercent: number;
  /** 1 or 0 by episode. */
  success: number[];
}

export function measureEpisodes(
  transcripts: readonly Transcript[],
  tokenizer: Tokenizer,
): EpisodeMetrics {
  const n = transcripts.length;
  const turns = transcripts.flatMap(({ turns }) => turns);
  const tokens = turns.reduce(
    (sum, { reasoning }) =>
      sum + tokenizer.encode(renderWords({ reasoning, action: null })).length,
    0,
  );
  const success = transcripts.map(({ success }) => success ? 1 : 0);
  return {
    successPercent: 100 * success.reduce<number>((a, b) => a + b, 0) / n,
    reward: transcripts.reduce((sum, { reward }) => sum + reward, 0) / n,
    reasoningTokens: tokens / n,
    reasoningPerTurn: tokens / turns.length,
    steps: turns.length / n,
    invalidPercent: 100 * turns.filter(({ valid }) => !valid).length /
      turns.length,
    success,
  };
}
