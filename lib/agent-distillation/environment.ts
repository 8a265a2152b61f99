/**
 * Text worlds: what an agent acts in, and how an episode is played and written down.
 *
 * After ReAct (Yao et al., arXiv:2210.03629): at each turn the agent writes a line of reasoning and a line of
 * action, and the world answers with a line of observation. Worlds are seeded simulators; a policy sees text only.
 *
 * Scope: one agent, one line each; no learning here.
 */
import { fold, type Key, uniform } from "../core/rng.ts";

/** Episodes to learn from, and episodes whose situations never occur among those. */
export type Split = "train" | "unseen";

/** What an action led to. */
export interface Outcome {
  /** One line. */
  observation: string;
  /** 0 to 1; success is 1. */
  reward: number;
  done: boolean;
  /** False if the world does not know the action here; it then changes nothing but the number of steps. */
  valid: boolean;
}

/** One episode under way. */
export interface Episode {
  /** What is visible at every turn, one or more whole lines: the task and what never changes. */
  header: string;
  /** What is seen first, one line. */
  observation: string;
  /** All actions that are valid now. */
  admissible(): string[];
  /** Takes one action. */
  step(action: string): Outcome;
}

/** What a policy sees before a turn. */
export interface View {
  header: string;
  /** The last observation. */
  observation: string;
  admissible: () => string[];
}

/** What an agent writes in a turn. */
export interface Words {
  /** Null if it wrote no line of reasoning. */
  reasoning: string | null;
  /** Null if it wrote no line of action. */
  action: string | null;
}

/** Decides a turn; made anew for every episode, so that it may remember. */
export type Policy = (view: View) => Words;

/** A kind of world. */
export interface Environment {
  name: string;
  /** An episode ends after so many turns. */
  maxSteps: number;
  /** The same key gives the same episode. */
  reset(key: Key, split: Split): Episode;
  /**
   * A programmed policy that solves the task from text alone and says why.
   *
   * @param detours Probability of leaving its plan for a turn, so that what it does is no function of what it
   *   sees and one who learns from it has something uncertain to learn.
   */
  expert(key: Key, options?: { detours?: number }): Policy;
  /** Texts that hold every word that the world and its expert may write. */
  vocabulary(): string[];
  /** What of it is synthetic and what is real, to be said where results are shown. */
  note?: string;
  /** Names and content hashes of the data that it was made from, for the record of a run. */
  data?: Record<string, string>;
}

/** A turn as it happened. */
export interface Turn extends Words {
  observation: string;
  valid: boolean;
}

/** An episode as it happened. */
export interface Transcript {
  header: string;
  /** First observation. */
  start: string;
  turns: Turn[];
  /** Reward of the last turn, 0 to 1. */
  reward: number;
  success: boolean;
}

/** What a world answers to what it does not know. */
export const NOTHING = "nothing happens";

/** Numbers in [0, 1), one after the other. */
export function stream(key: Key): () => number {
  const size = 64;
  let block: Float32Array = new Float32Array(0);
  let at = 0;
  return () => {
    if (at % size === 0) block = uniform(fold(key, at / size), size);
    return block[at++ % size];
  };
}

/** One of several, each equally likely. */
export function pick<T>(items: readonly T[], next: () => number): T {
  if (items.length === 0) {
    throw new RangeError("Cannot pick one as there must be some: 0 items");
  }
  return items[Math.floor(next() * items.length)];
}

/** The items in random order. */
export function shuffled<T>(items: readonly T[], next: () => number): T[] {
  const out = [...items];
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
}

/** The floor: any action that is valid, each equally likely, without reasoning. */
export function randomPolicy(key: Key): Policy {
  const next = stream(key);
  return ({ admissible }) => ({
    reasoning: null,
    action: pick(admissible(), next),
  });
}

/** Throws unless a text is made of whole lines, or is part of one. */
export function checkLines(what: string, text: string, whole: boolean): void {
  const good = whole ? /\n$/.test(text) : !text.includes("\n");
  if (good) return;
  throw new RangeError(
    `Cannot read an episode as its ${what} must ${
      whole ? "end with a line end" : "be one line"
    }, or its markers are read as the agent's: ${JSON.stringify(text)}`,
  );
}

/**
 * Plays an episode to its end.
 *
 * A turn without a line of action is answered as an invalid action is; both count as a step.
 *
 * @param environment The world; gives the limit of steps.
 * @param episode From its `reset`.
 * @param policy Fresh, for this episode alone.
 * @throws {RangeError} If the header is not whole lines, or an observation is not one line.
 *
 * @example
 * ```ts
 * const world = house();
 * play(world, world.reset(key(1), "unseen"), world.expert(key(2))).success; // true
 * ```
 */
export function play(
  { maxSteps }: Pick<Environment, "maxSteps">,
  episode: Episode,
  policy: Policy,
): Transcript {
  const { header, observation: start } = episode;
  checkLines("header", header, true);
  checkLines("observation", start, false);
  const turns: Turn[] = [];
  let observation = start;
  let reward = 0;
  let done = false;
  while (!done && turns.length < maxSteps) {
    const words = policy({
      header,
      observation,
      admissible: () => episode.admissible(),
    });
    const outcome: Outcome = words.action === null
      ? { observation: NOTHING, reward, done: false, valid: false }
      : episode.step(words.action);
    ({ observation, reward, done } = outcome);
    checkLines("observation", observation, false);
    turns.push({ ...words, observation, valid: outcome.valid });
  }
  return { header, start, turns, reward, success: reward >= 1 };
}
