/**
 * Showing things: figures, tables and Markdown in a notebook, or as text in a terminal. The only
 * file that names the notebook front ends.
 *
 * A display carries several forms of the same thing, and the reader's program takes the best it
 * knows: a figure is interactive plotly JSON, a static SVG (GitHub shows no plotly) and a line of
 * text; a table is HTML and aligned text. tslab's own `display` sends one form at a time, so its
 * lower function is used; the Deno kernel has a broadcast of its own.
 *
 * Scope: output only; no widgets.
 */
import { Buffer } from "node:buffer";
import process from "node:process";
import { createRequire } from "node:module";
import type { FigureSpec, ResultTable } from "./runs.ts";
import { toSvg } from "./svg.ts";
import { fromResult, type Table, toHtml, toText } from "./table.ts";

/** Markdown to be displayed. */
export interface Markdown {
  markdown: string;
}

/** A picture to be displayed. */
export interface Picture {
  /** The bytes of a PNG file. */
  png: Uint8Array;
  /** What is seen, for readers who do not see it. */
  text: string;
}

export type Displayable =
  | FigureSpec
  | Table
  | ResultTable
  | Markdown
  | Picture;

/** The forms of one thing by MIME type. */
export type MimeBundle = Record<string, unknown>;

/** MIME type of plotly's JSON in JupyterLab, VS Code and nteract. */
export const PLOTLY_MIME = "application/vnd.plotly.v1+json";

/**
 * Set on the global object by a front end that draws figures itself: a display then carries the figure
 * where its SVG would be. What executes many notebooks has one window draw for all of them.
 */
export const DRAWS_FIGURES: unique symbol = Symbol.for("adiabat.draws-figures");

/** Markdown as something `display` shows. */
export function markdown(text: string): Markdown {
  return { markdown: text };
}

/** A PNG file's bytes as something `display` shows, with what is seen in words. */
export function picture(png: Uint8Array, text: string): Picture {
  return { png, text };
}

function isFigure(thing: Displayable): thing is FigureSpec {
  return typeof thing === "object" && thing !== null && "data" in thing &&
    "layout" in thing;
}

/** Tables of objects, whichever way their rows are given. */
function asTable(thing: Table | ResultTable): Table {
  const byName = thing.columns.every((column) => typeof column === "object");
  return byName ? thing as Table : fromResult(thing as ResultTable);
}

/**
 * All forms of a thing, by MIME type.
 *
 * @throws TypeError if it is neither a figure nor a table nor Markdown.
 *
 * @example
 * ```ts
 * mimeBundle(markdown("*x*")); // { "text/markdown": "*x*", "text/plain": "*x*" }
 * ```
 */
export function mimeBundle(thing: Displayable): MimeBundle {
  if (typeof thing !== "object" || thing === null) {
    throw new TypeError(
      `Cannot display this: a figure, table, picture() or markdown() is needed, not ${thing}`,
    );
  }
  if ("markdown" in thing) {
    return { "text/markdown": thing.markdown, "text/plain": thing.markdown };
  }
  if ("png" in thing) {
    return {
      "image/png": Buffer.from(thing.png).toString("base64"),
      "text/plain": `[Picture: ${thing.text}]`,
    };
  }
  if (isFigure(thing)) {
    const { title, caption, data, layout } = thing;
    const text = `[Figure: ${title}]${caption === "" ? "" : ` ${caption}`}`;
    const drawnLater = DRAWS_FIGURES in globalThis;
    return {
      [PLOTLY_MIME]: { data, layout },
      "image/svg+xml": drawnLater ? thing : toSvg(thing),
      "text/plain": text,
    };
  }
  if ("rows" in thing && "columns" in thing) {
    const rows = asTable(thing);
    return { "text/html": toHtml(rows), "text/plain": toText(rows) };
  }
  throw new TypeError(
    `Cannot display this: a figure, table, picture() or markdown() is needed, not an object with ${
      Object.keys(thing).join(", ") || "no properties"
    }`,
  );
}

type Write = (content: {
  data: MimeBundle;
  metadata: Record<string, unknown>;
  transient: Record<string, unknown>;
}, update: boolean) => void;

/** tslab's function that sends a display, if this code runs inside tslab. */
function tslabWrite(): Write | null {
  const cache = createRequire(import.meta.url).cache ?? {};
  for (const [path, loaded] of Object.entries(cache)) {
    if (/[\\/]tslab[\\/]dist[\\/]jupyter\.js$/.test(path)) {
      return (loaded?.exports as { lastWriteDisplayData: Write | null })
        .lastWriteDisplayData;
    }
  }
  return null;
}

interface DenoJupyter {
  broadcast(type: string, content: unknown): Promise<void>;
}

/** The Deno kernel's interface, if this code runs inside it. */
function denoJupyter(): DenoJupyter | null {
  const deno = (globalThis as { Deno?: { jupyter?: DenoJupyter } }).Deno;
  try {
    return deno?.jupyter ?? null;
  } catch {
    return null; // Deno throws here outside a notebook
  }
}

/** Displays of the Deno kernel are sent one after the other. */
let sending: Promise<void> = Promise.resolve();

/**
 * Shows things where this runs: in a notebook in all their forms, elsewhere as text on the standard
 * output. A figure's caption follows it.
 *
 * @example
 * ```ts
 * display(markdown("## Result"), table([{ rank: 8, loss: 2.25 }]));
 * ```
 */
export function display(...things: Displayable[]): void {
  const write = tslabWrite();
  const deno = denoJupyter();
  for (const thing of things) {
    const shown: Displayable[] = [thing];
    if (isFigure(thing) && thing.caption !== "" && (write ?? deno) !== null) {
      shown.push(markdown(`*${thing.caption.replaceAll("*", "\\*")}*`));
    }
    for (const part of shown) {
      if (write !== null) {
        const data = mimeBundle(part);
        write({ data, metadata: {}, transient: {} }, false);
      } else if (deno !== null) {
        const content = { data: mimeBundle(part), metadata: {}, transient: {} };
        sending = sending.then(() => deno.broadcast("display_data", content));
      } else {
        process.stdout.write(`${textOf(part)}\n\n`);
      }
    }
  }
}

/** The text form, as wide as the terminal; an SVG would be drawn for nothing. */
function textOf(thing: Displayable): string {
  if (typeof thing === "object" && thing !== null && "rows" in thing) {
    return toText(asTable(thing), { width: process.stdout.columns ?? 100 });
  }
  if (isFigure(thing)) {
    return `[Figure: ${thing.title}] ${thing.caption}`.trim();
  }
  return String(mimeBundle(thing)["text/plain"]);
}
