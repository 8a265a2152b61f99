import { test } from "uvu";
import * as assert from "uvu/assert";
import { createRequire } from "node:module";
import process from "node:process";
import { lineFigure } from "../lib/core/figure.ts";
import {
  display,
  type Displayable,
  markdown,
  type MimeBundle,
  mimeBundle,
  PLOTLY_MIME,
} from "../lib/core/show.ts";
import { table } from "../lib/core/table.ts";

const rows = [{ rank: 2, loss: 2.5 }, { rank: 4, loss: 2.25 }];
const figure = lineFigure(rows, {
  id: "loss",
  title: "Loss",
  caption: "One *seed*.",
  x: "rank",
  y: "loss",
});

/** What `work` writes to the standard output. */
function captured(work: () => void): string {
  const { write } = process.stdout;
  let text = "";
  process.stdout.write = (chunk: string | Uint8Array) => {
    text += chunk;
    return true;
  };
  try {
    work();
  } finally {
    process.stdout.write = write;
  }
  return text;
}

test("a figure is plotly JSON, SVG and text", () => {
  const bundle = mimeBundle(figure);
  assert.equal(Object.keys(bundle), [
    PLOTLY_MIME,
    "image/svg+xml",
    "text/plain",
  ]);
  assert.equal(bundle[PLOTLY_MIME], {
    data: figure.data,
    layout: figure.layout,
  });
  assert.match(bundle["image/svg+xml"] as string, /^<svg .*Loss.*<\/svg>$/s);
  assert.is(bundle["text/plain"], "[Figure: Loss] One *seed*.");
});

test("a table is HTML and text, whichever way its rows are given", () => {
  const bundle = mimeBundle(table(rows));
  assert.equal(Object.keys(bundle), ["text/html", "text/plain"]);
  const lists = {
    id: "table",
    title: "",
    columns: ["rank", "loss"],
    rows: [[2, 2.5], [4, 2.25]],
  };
  assert.equal(mimeBundle(lists), bundle);
});

test("markdown is Markdown and text", () => {
  assert.equal(mimeBundle(markdown("*x*")), {
    "text/markdown": "*x*",
    "text/plain": "*x*",
  });
});

test("anything else is an error that says what it got", () => {
  assert.throws(
    () => mimeBundle({ rank: 8 } as unknown as Displayable),
    /a figure, table, picture\(\) or markdown\(\) is needed, not an object with rank/,
  );
  assert.throws(
    () => display(undefined as unknown as Displayable),
    /is needed, not undefined/,
  );
});

test("a script prints the text forms", () => {
  const text = captured(() => display(table(rows), figure, markdown("*x*")));
  assert.is(
    text,
    "rank  loss\n────  ────\n   2   2.5\n   4  2.25\n\n" +
      "[Figure: Loss] One *seed*.\n\n*x*\n\n",
  );
});

test("tslab gets all forms in one display, the caption after the figure", () => {
  const { cache } = createRequire(import.meta.url);
  const path = "/elsewhere/node_modules/tslab/dist/jupyter.js";
  const sent: MimeBundle[] = [];
  const exports = {
    lastWriteDisplayData(content: { data: MimeBundle }, update: boolean) {
      assert.is(update, false);
      sent.push(content.data);
    },
  };
  cache[path] = { exports } as unknown as NodeJS.Module;
  try {
    assert.is(captured(() => display(figure, table(rows))), "");
  } finally {
    delete cache[path];
  }
  assert.equal(sent.map((data) => Object.keys(data)), [
    [PLOTLY_MIME, "image/svg+xml", "text/plain"],
    ["text/markdown", "text/plain"],
    ["text/html", "text/plain"],
  ]);
  assert.is(sent[1]["text/markdown"], "*One \\*seed\\*.*");
});

test("the Deno kernel gets a broadcast per display, in order", async () => {
  const world = globalThis as { Deno?: unknown };
  const had = world.Deno;
  const sent: [string, { data: MimeBundle }][] = [];
  world.Deno = {
    jupyter: {
      async broadcast(type: string, content: { data: MimeBundle }) {
        await Promise.resolve();
        sent.push([type, content]);
      },
    },
  };
  try {
    display(markdown("first"), markdown("second"));
    await new Promise((resolve) => setTimeout(resolve, 10));
  } finally {
    world.Deno = had;
  }
  assert.equal(
    sent.map(([type, { data }]) => [type, data["text/plain"]]),
    [["display_data", "first"], ["display_data", "second"]],
  );
});

test.run();
