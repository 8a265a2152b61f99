/** Looking at transcripts: tokens by span and by divergence, and two agents side by side. */
import type { FigureSpec } from "../core/runs.ts";
import { textEms } from "../core/svg.ts";
import { type Table, table } from "../core/table.ts";
import type { Agent } from "./agent.ts";
import { tokenDivergences } from "./distill.ts";
import type { Transcript } from "./environment.ts";
import { contextOf, type Label, type Window, windows } from "./transcript.ts";

/** Colour of a token's letters; dark enough for every ground. */
const INK: Record<Label, string> = {
  reason: "#1f4e9e",
  act: "#8c1515",
  neither: "#767676",
};

/** Ground of a token: from white at 0 to this at `KL_LIMIT` nats and more. */
const GROUND = [242, 184, 75] as const;
const KL_LIMIT = 2;

/** The text flows like print: sizes in px. */
const PAGE = { width: 900, text: 780, margin: 12, line: 22, font: 12, gap: 4 };

/** A token as it is shown: a line end is visible, characters of HTML are not taken for it. */
function shownToken(text: string): string {
  return text.replace("\n", "⏎").replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;").replaceAll(">", "&gt;").trim() || "·";
}

/** A token that is shown. */
interface Cell {
  text: string;
  label: Label;
  /** Null where nothing is learnt. */
  kl: number | null;
}

/** Text, label and divergence of the new tokens of a window; the first token of all has no prediction. */
function tokenCells(
  student: Agent,
  teacher: Agent,
  { ids, labels, from }: Window,
): Cell[] {
  const kl = tokenDivergences(student, teacher, ids);
  return Array.from(ids).map((id, t) => ({
    text: shownToken(teacher.tokenizer.decode([id])),
    label: labels[t],
    kl: labels[t] === "neither" ? null : kl[t - 1],
  })).slice(from);
}

/** Cells with their places, one line after the other; a line end ends a line, a full one goes on indented. */
function flow(cells: readonly Cell[]): (Cell & {
  left: number;
  width: number;
  line: number;
})[] {
  let [left, line] = [0, 0];
  return cells.map((cell) => {
    const plain = cell.text.replace(/&\w+;/g, "&");
    const width = textEms(plain) * PAGE.font + PAGE.gap;
    if (left + width > PAGE.text) [left, line] = [3 * PAGE.font, line + 1];
    const placed = { ...cell, left, width, line };
    left += width + 1;
    if (cell.text.endsWith("⏎")) [left, line] = [0, line + 1];
    return placed;
  });
}

/** Colour of the ground at a divergence. */
function groundOf(kl: number): string {
  const share = Math.min(1, kl / KL_LIMIT);
  const mix = GROUND.map((c) => Math.round(255 + share * (c - 255)));
  return `rgb(${mix.join(",")})`;
}

/**
 * The new tokens of some turns as running text: letters coloured by span, ground by KL(p_T || p_S).
 *
 * What the agent does not write, the task and observations, has no ground: nobody learns to predict it.
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
  const cells = flow(
    windows([transcript], teacher.tokenizer).slice(0, turns)
      .flatMap((window) => tokenCells(student, teacher, window)),
  );
  const lines = cells.at(-1)!.line + 1;
  return {
    id: "agent-distillation-tokens",
    title,
    caption:
      "Letters: blue reasoning, red action, grey neither. Ground: KL(p_T || p_S) of the token in nats, white where student and teacher agree. Both read the same text, one turn's window each: header, last turn, this turn; only its new tokens are shown.",
    data: [{
      // Nothing but the scale of the grounds.
      type: "scatter",
      mode: "markers",
      x: [0],
      y: [0],
      hoverinfo: "skip",
      showlegend: false,
      marker: {
        size: 0.01,
        color: [0],
        cmin: 0,
        cmax: KL_LIMIT,
        colorscale: [[0, "#ffffff"], [1, `rgb(${GROUND.join(",")})`]],
        showscale: true,
        colorbar: { title: { text: "KL (nats)" }, len: 1 },
      },
    }],
    layout: {
      width: PAGE.width,
      height: 60 + PAGE.line * Math.max(lines, 6),
      title: { text: title },
      margin: {
        l: PAGE.margin,
        r: PAGE.width - PAGE.text - PAGE.margin,
        t: 50,
        b: 10,
      },
      xaxis: { visible: false, range: [0, PAGE.text], fixedrange: true },
      yaxis: {
        visible: false,
        range: [Math.max(lines, 6) - 0.5, -0.5],
        fixedrange: true,
      },
      shapes: cells.filter(({ kl }) => kl !== null).map((cell) => ({
        type: "rect",
        layer: "below",
        x0: cell.left,
        x1: cell.left + cell.width,
        y0: cell.line - 0.44,
        y1: cell.line + 0.44,
        line: { width: 0 },
        fillcolor: groundOf(cell.kl!),
      })),
      annotations: cells.map(({ text, label, left, width, line }) => ({
        x: left + width / 2,
        y: line,
        text,
        showarrow: false,
        font: { size: PAGE.font, color: INK[label] },
      })),
    },
  };
}

/**
 * Two agents on the same episode, turn by turn, and how it ended for each.
 *
 * @param turns Rows at most; of what is longer the last row says how much is left out; default 12.
 */
export function sideBySide(
  names: readonly [string, string],
  transcripts: readonly [Transcript, Transcript],
  { turns = 12 }: { turns?: number } = {},
): Table {
  const tasks = transcripts.map((transcript) =>
    contextOf(transcript, []).split("\n")[0]
  );
  if (tasks[0] !== tasks[1]) {
    throw new RangeError(
      `Cannot show two transcripts side by side as they must be of one task: "${
        tasks[0]
      }", "${tasks[1]}"`,
    );
  }
  const shown = (transcript: Transcript, i: number) => {
    const turn = transcript.turns[i];
    return turn === undefined
      ? ""
      : `${turn.reasoning ?? "(no reasoning)"} → ${
        turn.action ?? "(no action)"
      }${turn.valid ? "" : " (invalid)"}`;
  };
  const ending = ({ turns: all, success, reward }: Transcript) =>
    `${success ? "solved" : `not solved, reward ${reward.toFixed(2)}`} in ${
      all.length > turns
        ? `${all.length} turns, ${all.length - turns} not shown`
        : `${all.length} turns`
    }`;
  const rows = Math.min(
    turns,
    Math.max(...transcripts.map((transcript) => transcript.turns.length)),
  );
  const row = (
    turn: string,
    of: (transcript: Transcript) => string,
  ) => ({
    turn,
    [names[0]]: of(transcripts[0]),
    [names[1]]: of(transcripts[1]),
  });
  return table(
    [
      ...Array.from(
        { length: rows },
        (_, i) => row(String(i + 1), (transcript) => shown(transcript, i)),
      ),
      row("end", ending),
    ],
    { title: `${tasks[0]}: ${names[0]} and ${names[1]}` },
  );
}
