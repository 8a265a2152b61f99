/**
 * Transcripts as text, and which of their bytes and tokens are reasoning, action, or neither.
 *
 * J. Liu et al., "Structured Agent Distillation for Large Language Model", arXiv 2505.13820, section on
 * segmentation: rule-based parsing by line markers gives every token a label, with masks
 * m_r(t) + m_a(t) <= 1. What the available parts of the paper do not say is `ASSUMED_RULES`.
 */
import type { Tokenizer } from "../core/tokenizer.ts";
import {
  checkLines,
  type Transcript,
  type Turn,
  type Words,
} from "./environment.ts";

export type Label = "reason" | "act" | "neither";

/** Bytes [start, end) of a text with one label. */
export interface Span {
  label: Label;
  start: number;
  end: number;
}

/** Line markers and the label of the lines that they open. */
export interface Rules {
  markers: Record<string, Label>;
  /** The last line with this marker is an action; earlier ones are neither. */
  answer: string | null;
}

/** Our own rules where the paper's available parts say nothing. Standing: assumed. */
export const ASSUMED_RULES = {
  standing: "assumed",
  source:
    "markers of reasoning, action and answer as in public reviews of arXiv 2505.13820; the rest is ours",
  rules: [
    "A marker counts only at the start of a line and belongs to the span that it opens, since the student must write it.",
    "The end of a line belongs to the line: the token that ends an action is supervised.",
    "A line without a marker goes on with the label of the line before; before any marker it is neither.",
    "Task and observation lines are neither.",
    'Of several "Answer:" lines only the last is an action; the others are neither.',
  ],
} as const;

export const RULES: Rules = {
  markers: {
    "Reasoning:": "reason",
    "Action:": "act",
    "Observation:": "neither",
    "Task:": "neither",
    "Places:": "neither",
  },
  answer: "Answer:",
};

const utf8 = new TextEncoder();

/**
 * Labels of all bytes of a text, as spans in order that leave nothing out; neighbours differ.
 *
 * @param text Lines that begin with markers; see `ASSUMED_RULES` for what the rules are.
 *
 * @example
 * ```ts
 * segment("Reasoning: so\nAction: go\n"); // [{ label: "reason", start: 0, end: 14 }, { label: "act", start: 14, end: 25 }]
 * ```
 */
export function segment(text: string, rules: Rules = RULES): Span[] {
  const lines = text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  const { answer } = rules;
  const lastAnswer = answer === null
    ? -1
    : lines.findLastIndex((line) => line.startsWith(answer));
  const spans: Span[] = [];
  let label: Label = "neither";
  let at = 0;
  lines.forEach((line, i) => {
    const marker = Object.keys(rules.markers)
      .find((name) => line.startsWith(name));
    if (marker !== undefined) label = rules.markers[marker];
    else if (answer !== null && line.startsWith(answer)) {
      label = i === lastAnswer ? "act" : "neither";
    }
    const end = at + utf8.encode(line).length;
    const last = spans.at(-1);
    if (last?.label === label) last.end = end;
    else spans.push({ label, start: at, end });
    at = end;
  });
  return spans;
}

/**
 * Label of each token of a text: that of the span in which its first byte lies.
 *
 * @param ids `tokenizer.encode(text)`.
 * @throws {RangeError} If the tokens do not stand for the text, byte by byte.
 */
export function labelTokens(
  text: string,
  ids: ArrayLike<number>,
  tokenizer: Tokenizer,
  rules: Rules = RULES,
): Label[] {
  const spans = segment(text, rules);
  const bytes = utf8.encode(text).length;
  let at = 0;
  let span = 0;
  const labels = Array.from(ids, (id): Label => {
    while (span + 1 < spans.length && at >= spans[span].end) span++;
    at += tokenizer.decodeBytes([id]).length;
    return spans[span]?.label ?? "neither";
  });
  if (at !== bytes) {
    throw new RangeError(
      `Cannot label tokens as they must stand for all bytes of the text: ${bytes} bytes, tokens of ${at} bytes`,
    );
  }
  return labels;
}

/** m_r and m_a of the labels (arXiv 2505.13820): 1 where a token is in a span of the kind, else 0. */
export function masks(labels: readonly Label[]): { r: number[]; a: number[] } {
  return {
    r: labels.map((label) => label === "reason" ? 1 : 0),
    a: labels.map((label) => label === "act" ? 1 : 0),
  };
}

// Writing and reading turns ---------------------------------------------------------------------------

/** What the agent writes in a turn. */
export function renderWords({ reasoning, action }: Words): string {
  return (reasoning === null ? "" : `Reasoning: ${reasoning}\n`) +
    (action === null ? "" : `Action: ${action}\n`);
}

export function renderObservation(observation: string): string {
  return `Observation: ${observation}\n`;
}

/** A whole episode as text. */
export function render({ header, start, turns }: Transcript): string {
  return header + renderObservation(start) + turns
    .map((turn) => renderWords(turn) + renderObservation(turn.observation))
    .join("");
}

/** The episode as one who acts without reasoning would have it. */
export function withoutReasoning(transcript: Transcript): Transcript {
  return {
    ...transcript,
    turns: transcript.turns.map((turn) => ({ ...turn, reasoning: null })),
  };
}

/**
 * What a text says to do: its first line of action, and its reasoning before that.
 *
 * Strict: a line must begin with its marker and one space, and must have been ended; otherwise the
 * action is null, which the world answers as it does an invalid one.
 */
export function parseWords(text: string): Words {
  const action = /^Action: ([^\n]+)\n/m.exec(text);
  const before = action === null ? text : text.slice(0, action.index);
  const reasoning = /^Reasoning: ([^\n]+)\n/m.exec(before);
  return { reasoning: reasoning?.[1] ?? null, action: action?.[1] ?? null };
}

// Windows ---------------------------------------------------------------------------------------------

/** One decision with all that may be seen when it is made: an example to learn from. */
export interface Window {
  /** Which transcript and turn. */
  episode: number;
  turn: number;
  ids: Int32Array;
  labels: Label[];
  /** First token that no earlier example of the episode has; those before it are context. */
  from: number;
}

/**
 * How much of its episode an agent sees beside the header. With its last turn alone, what is to be known later has
 * to be written into the reasoning; with all of them an agent that does not reason can look back.
 */
export type Memory = "last turn" | "episode";

export interface ContextOptions {
  memory?: Memory;
  /** Of an episode the oldest turns are left out where the text does not fit; default all fits. */
  fits?: (text: string) => boolean;
}

/** What an agent sees when it decides: the header, and its turns so far, or the last one, with the answers to them. */
export function contextOf(
  { header, start }: Pick<Transcript, "header" | "start">,
  turns: readonly Turn[],
  { memory = "last turn", fits = () => true }: ContextOptions = {},
): string {
  const lines = [
    renderObservation(start),
    ...turns.map((turn) =>
      renderWords(turn) + renderObservation(turn.observation)
    ),
  ];
  const last = header + lines.at(-1);
  if (memory === "last turn") return last;
  for (let first = 0; first < lines.length; first++) {
    const text = header + lines.slice(first).join("");
    if (fits(text)) return text;
  }
  return last;
}

/** Whether a text has at most so many tokens. */
export const withinTokens =
  (tokenizer: Tokenizer, limit: number) => (text: string): boolean =>
    limit === Infinity || tokenizer.encode(text).length <= limit;

/** What of an episode its agent sees. */
export interface SeenOptions {
  /** Default "last turn". */
  memory?: Memory;
  /** Most tokens of what it sees of an episode; the oldest turns are left out; default all. */
  contextTokens?: number;
}

/** Throws where a line end would make part of what one side said read as a line of another kind. */
function checkTranscript(
  { header, start, turns }: Transcript,
  episode: number,
): void {
  const whole = `of transcript ${episode}`;
  checkLines(`header ${whole}`, header, true);
  checkLines(`start ${whole}`, start, false);
  turns.forEach((turn, i) => {
    for (const part of ["reasoning", "action", "observation"] as const) {
      const text = turn[part];
      if (text !== null) checkLines(`${part} ${i} ${whole}`, text, false);
    }
  });
}

/**
 * Examples of all turns of some transcripts. A token is new in exactly one example.
 *
 * @throws {RangeError} If a transcript has no action at all: a parser or a marker is wrong then.
 */
export function windows(
  transcripts: readonly Transcript[],
  tokenizer: Tokenizer,
  { rules = RULES, memory, contextTokens = Infinity }:
    & { rules?: Rules }
    & SeenOptions = {},
): Window[] {
  const fits = withinTokens(tokenizer, contextTokens);
  return transcripts.flatMap((transcript, episode) => {
    const { turns } = transcript;
    checkTranscript(transcript, episode);
    const made = turns.map((turn, i): Window => {
      const context = contextOf(transcript, turns.slice(0, i), {
        memory,
        fits,
      });
      const text = context + renderWords(turn) +
        renderObservation(turn.observation);
      const ids = Int32Array.from(tokenizer.encode(text));
      const from = i === 0 ? 0 : tokenizer.encode(context).length;
      const labels = labelTokens(text, ids, tokenizer, rules);
      return { episode, turn: i, ids, labels, from };
    });
    if (!made.some(({ labels, from }) => labels.indexOf("act", from) >= 0)) {
      throw new RangeError(
        `Cannot learn from a transcript as it must have at least one line that begins with "Action:": transcript ${episode} of ${turns.length} turns has none`,
      );
    }
    return made;
  });
}
