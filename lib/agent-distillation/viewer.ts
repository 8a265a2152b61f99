/** Looking at transcripts: tokens by span and by divergence, and two agents side by side. */
import type { FigureSpec } from "../core/runs.ts";
import { type Table, table } from "../core/table.ts";
import type { Agent } from "./agent.ts";
import { tokenDivergences } from "./distill.ts";
import type { Transcript } from "./environment.ts";
import { contextOf, type Label, type Window, windows } from "./transcript.ts";

/** Colour of a token's letters. */
const INK: Record<Label, string> = {
  reason: "#1f4e9e",
  act: "#b3410e",
  neither: "#8a8a8a",
};

const TOKENS_PER_LINE = 12;

/** A token as it is shown: a line end is visible, characters of HTML are not taken for it. */
function shownToken(text: string): string {
  return text.replace("\n", "⏎").replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;").replaceAll(">", "&gt;").trim() || "·";
}

/**
 * The new tokens of some turns, in lines: letters coloured by span, ground by KL(p_T || p_S).
 *
 * @param transcript Read by both models, turn after turn with what is visible then.
 * @param turns How many of its turns; default 6.
 */
export function tokenFigure(
  student: Agent,
  teacher: Agent,
  transcript: Transcript,
  { turns = 6, title = "Tokens of an episode" }: {
    turns?: number;
    title?: string;
  } = {},
): FigureSpec {
  const cells = windows([transcript], teacher.tokenizer).slice(0, turns)
    .flatMap((window) => tokenCells(student, teacher, window));
  const lines: typeof cells[] = [[]];
  for (const cell of cells) {
    if (lines.at(-1)!.length === TOKENS_PER_LINE) lines.push([]);
    lines.at(-1)!.push(cell);
    if (cell.text.endsWith("⏎")) lines.push([]);
  }
  const shown = lines.filter((line) => line.length > 0);
  const columns = Array.from({ length: TOKENS_PER_LINE }, (_, i) => i);
  return {
    id: "agent-distillation-tokens",
    title,
    caption:
      "Letters: blue reasoning, orange action, grey neither. Ground: KL(p_T || p_S) of the token in nats, white where student and teacher agree. One turn's window each: header, last turn, this turn; only its new tokens are shown.",
    data: [{
      type: "heatmap",
      z: shown.map((line) => columns.map((i) => line[i]?.kl ?? null)),
      x: columns,
      y: shown.map((_, i) => i),
      colorscale: [[0, "#ffffff"], [1, "#f2b84b"]],
      zmin: 0,
      zmax: 2,
      xgap: 1,
      ygap: 1,
      colorbar: { title: { text: "KL (nats)" } },
    }],
    layout: {
      width: 900,
      height: 90 + 24 * shown.length,
      title: { text: title },
      margin: { l: 10, r: 10, t: 50, b: 10 },
      xaxis: { visible: false },
      yaxis: { visible: false, autorange: "reversed" },
      annotations: shown.flatMap((line, y) =>
        line.map(({ text, label }, x) => ({
          x,
          y,
          text,
          showarrow: false,
          font: { size: 11, color: INK[label] },
        }))
      ),
    },
  };
}

/** Text, label and divergence of the new tokens of a window; the first token of all has no prediction. */
function tokenCells(
  student: Agent,
  teacher: Agent,
  { ids, labels, from }: Window,
): { text: string; label: Label; kl: number }[] {
  const kl = tokenDivergences(student, teacher, ids);
  return Array.from(ids).map((id, t) => ({
    text: shownToken(teacher.tokenizer.decode([id])),
    label: labels[t],
    kl: t === 0 ? 0 : kl[t - 1],
  })).slice(from);
}

/** Two agents on the same episode, turn by turn. */
export function sideBySide(
  names: readonly [string, string],
  transcripts: readonly [Transcript, Transcript],
): Table {
  const [a, b] = transcripts;
  const shown = (transcript: Transcript, i: number) => {
    const turn = transcript.turns[i];
    return turn === undefined
      ? ""
      : `${turn.reasoning ?? "(no reasoning)"} → ${
        turn.action ?? "(no action)"
      }${turn.valid ? "" : " (invalid)"}`;
  };
  const task = contextOf(a, undefined).split("\n")[0];
  return table(
    Array.from(
      { length: Math.max(a.turns.length, b.turns.length) },
      (_, i) => ({
        turn: i + 1,
        [names[0]]: shown(a, i),
        [names[1]]: shown(b, i),
      }),
    ),
    { title: `${task}: ${names[0]} and ${names[1]}` },
  );
}
