import { test } from "uvu";
import * as assert from "uvu/assert";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { PLOTLY_MIME } from "../lib/core/show.ts";
import { toSvg } from "../lib/core/svg.ts";
import { jupyterDataDir, kernelSpec, writeKernelSpec } from "../scripts/lab.ts";
import {
  explainFailure,
  normalise,
  normaliseText,
  type Notebook,
  type NotebookCell,
  type NotebookRun,
  type Output,
  readNotebook,
  runNotebook,
  serialise,
} from "../scripts/notebook.ts";

const folder = mkdtempSync(join(tmpdir(), "adiabat-notebook-"));
test.after(() => rmSync(folder, { recursive: true }));

function code(source: string, tags?: string[]): NotebookCell {
  return {
    cell_type: "code",
    metadata: tags === undefined ? {} : { tags },
    source,
    outputs: [],
    execution_count: null,
  };
}

function write(name: string, cells: NotebookCell[]): string {
  const path = join(folder, `${name}.ipynb`);
  const notebook = { cells, metadata: {}, nbformat: 4, nbformat_minor: 5 };
  writeFileSync(path, JSON.stringify(notebook));
  return path;
}

/** All text outputs of a cell. */
function streams({ outputs = [] }: NotebookCell): string {
  return outputs.map((output) =>
    output.output_type === "stream" ? [output.text].flat().join("") : ""
  ).join("");
}

// Starting a kernel takes two seconds: these run side by side, once.
let passing: NotebookRun;
let failing: NotebookRun;
let endless: NotebookRun;
let dying: NotebookRun;
let drawing: NotebookRun;
const passingPath = join(folder, "passing.ipynb");
const failingPath = write("failing", [
  { cell_type: "markdown", metadata: {}, source: "# Title" },
  code(
    'import { table } from "./lib/core/table.ts";\n' +
      "const rows: { rank: number }[] = [];",
  ),
  code("// the rows are given by hand\ntable(7);", ["raises-exception"]),
  code(
    "function rank(): number {\n" +
      '  const unused: string = "before";\n' +
      "  throw new RangeError(`Cannot use rank ${rows.length}`);\n" +
      "}\n" +
      "rank();",
  ),
  code('console.log("never");'),
]);
const drawingPath = write("drawing", [
  code(
    'import { display } from "./lib/core/show.ts";\n' +
      "const figure = (trace: Record<string, unknown>) => ({\n" +
      '  id: "f", title: "Loss", caption: "", layout: {}, data: [trace],\n' +
      "});\n" +
      'display(figure({ type: "scatter", x: [1, 2], y: [3, 4] }));',
  ),
  code("/** @browser */\nconst here = 1;"),
  code('display(figure({ type: "nonsense" }));', ["raises-exception"]),
  code('display(figure({ type: "nonsense" }));'),
  code("await new Promise((resolve) => setTimeout(resolve, 60_000));"),
]);
const failingBytes = readFileSync(failingPath);

test.before(async () => {
  cpSync(new URL("./fixtures/passing.ipynb", import.meta.url), passingPath);
  [passing, failing, endless, dying, drawing] = await Promise.all([
    runNotebook(passingPath, { profile: "smoke", write: true }),
    runNotebook(failingPath, { write: true }),
    runNotebook(write("endless", [code("const x = 1;"), code("for (;;) {}")]), {
      timeoutSeconds: 9,
    }),
    runNotebook(
      write("dying", [code('console.error("last words"); process.exit(3);')]),
    ),
    runNotebook(drawingPath, { timeoutSeconds: 50 }),
  ]);
});

test("a passing notebook: values, profile, displays, expected error", () => {
  assert.is(passing.failure, null);
  assert.ok(passing.ok);
  const [, first, second, third] = passing.notebook.cells;
  assert.is(streams(first), "took … s\nprofile smoke\n42\n");
  const [note, table] = second.outputs as (Output & { data: object })[];
  assert.equal(note.data, {
    "text/markdown": ["*six*"],
    "text/plain": ["*six*"],
  });
  assert.equal(Object.keys(table.data), ["text/html", "text/plain"]);
  const [error] = third.outputs as (Output & { ename: string })[];
  assert.is(error.ename, "RangeError");
});

test("it is written back normalised, whole, and a second writing changes nothing", () => {
  const text = readFileSync(passingPath, "utf8");
  assert.is(text, serialise(passing.notebook));
  assert.is(text, serialise(normalise(readNotebook(passingPath))));
  assert.not.match(text, /"execution_count": \d|collapsed/);
  assert.equal(readdirSync(folder).filter((name) => /tmp/.test(name)), []);
});

test("a failing cell: its number, line, error and stack; nothing is written", () => {
  const { failure } = failing;
  assert.not.ok(failing.ok);
  assert.is(failure?.cell, 4);
  assert.is(failure?.line, 3);
  assert.is(failure?.name, "RangeError");
  assert.is(failure?.message, "Cannot use rank 0");
  assert.match(failure?.source ?? "", /throw new RangeError/);
  assert.equal(failure?.stack, ["    at cell, line 3", "    at cell, line 5"]);
  assert.is(
    explainFailure("x.ipynb", failure!),
    "x.ipynb failed in cell 4, line 3: RangeError: Cannot use rank 0\n" +
      "  > throw new RangeError(`Cannot use rank ${rows.length}`);\n" +
      "    at cell, line 3\n    at cell, line 5",
  );
  assert.equal(failing.notebook.cells[4].outputs, []);
  assert.equal(readFileSync(failingPath), failingBytes);
});

test("a type error is shown with its place, before anything of the cell runs", () => {
  const [error] = failing.notebook.cells[2].outputs as (Output & {
    ename: string;
    evalue: string;
  })[];
  assert.is(error.ename, "TypeScript 2345");
  assert.match(
    error.evalue,
    /^2:7 Argument of type 'number' is not assignable to parameter of type 'Row\[\]'/,
  );
});

test("figures are drawn, in the bytes of the library; one that cannot be drawn fails its cell", () => {
  const spec = {
    id: "f",
    title: "Loss",
    caption: "",
    layout: {},
    data: [{ type: "scatter", x: [1, 2], y: [3, 4] }],
  };
  const [first, , ...undrawn] = drawing.notebook.cells;
  const [figure] = first.outputs as (Output & { data: object })[];
  assert.equal(
    { ...figure.data, "image/svg+xml": [] },
    {
      [PLOTLY_MIME]: { data: spec.data, layout: spec.layout },
      "image/svg+xml": [],
      "text/plain": ["[Figure: Loss]"],
    },
  );
  const svg = (figure.data as Record<string, string[]>)["image/svg+xml"];
  assert.is(svg.join(""), toSvg(spec));
  for (const { outputs = [] } of undrawn.slice(0, 2)) {
    assert.equal(outputs.map((output) => output.output_type), ["error"]);
  }
  // The first of them may fail; a cell for a browser, which is not run, does not disturb those behind it.
  assert.is(drawing.failure?.cell, 4);
  assert.match(
    drawing.failure?.message ?? "",
    /^Cannot draw the figure "f": no trace was drawn/,
  );
});

test("an endless cell is ended at the limit", () => {
  assert.is(endless.failure?.name, "Timeout");
  assert.match(
    endless.failure?.message ?? "",
    /more than its limit of 9 seconds/,
  );
  assert.ok(endless.seconds < 14, `took ${endless.seconds} s`);
});

test("a process that ends is reported with its exit code", () => {
  assert.is(dying.failure?.name, "Exit");
  assert.is(dying.failure?.cell, 1);
  assert.match(dying.failure?.message ?? "", /code 3/);
});

test("normalise: counters, metadata, progress lines and paths go, tags stay", () => {
  const root = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");
  const notebook: Notebook = {
    cells: [{
      ...code("x", ["raises-exception"]),
      execution_count: 7,
      outputs: [
        { output_type: "stream", name: "stdout", text: "a\r\n" },
        { output_type: "stream", name: "stdout", text: ["50 %\r100 %\n", "b"] },
        { output_type: "stream", name: "stderr", text: `${root}/lib 3.5 ms` },
        {
          output_type: "execute_result",
          data: { "text/plain": "took 3 s", "application/json": { s: "3 s" } },
          metadata: { x: 1 },
          execution_count: 7,
        },
      ],
    }],
    metadata: { kernelspec: { name: "other" }, toc: true },
    nbformat: 4,
    nbformat_minor: 2,
  };
  notebook.cells[0].metadata.scrolled = true;
  const { cells: [cell], metadata, nbformat_minor } = normalise(notebook);
  assert.equal(cell, {
    cell_type: "code",
    execution_count: null,
    id: "cell-1",
    metadata: { tags: ["raises-exception"] },
    source: ["x"],
    outputs: [
      { output_type: "stream", name: "stdout", text: ["a\n", "100 %\n", "b"] },
      { output_type: "stream", name: "stderr", text: ["./lib … ms"] },
      {
        output_type: "display_data",
        data: {
          "text/plain": ["took 3 s"],
          "application/json": { s: "3 s" },
        },
        metadata: {},
      },
    ],
  });
  assert.equal(Object.keys(metadata), ["kernelspec", "language_info"]);
  assert.is(nbformat_minor, 5);
  const again = normalise(JSON.parse(serialise(normalise(notebook))));
  assert.is(serialise(again), serialise(normalise(notebook)));
});

test("normaliseText: timings only", () => {
  const cases: [string, string][] = [
    ["in 12.5 s, 3ms, 2 min", "in … s, … ms, … min"],
    ["rank 8, 3 samples, 5 seeds", "rank 8, 3 samples, 5 seeds"],
    ["\u001b[31mred\u001b[0m", "red"],
    ["loss 2.31 -> 2.25", "loss 2.31 -> 2.25"],
  ];
  for (const [text, expected] of cases) {
    assert.is(normaliseText(text), expected);
  }
});

test("a file that is no notebook is an error that names it", () => {
  const path = join(folder, "broken.ipynb");
  const cases: [string, RegExp][] = [
    ["{", /Cannot read the notebook .*broken\.ipynb: /],
    ["{}", /nbformat 4 is needed, not undefined/],
    ['{"nbformat": 4, "cells": [{}]}', /cell 1 has no type or no source/],
    ["null", /nbformat 4 is needed, not undefined/],
  ];
  for (const [text, message] of cases) {
    writeFileSync(path, text);
    assert.throws(() => readNotebook(path), message);
  }
});

test("the command line: a wrong option is one line and exit code 1", () => {
  const script = fileURLToPath(
    new URL("../scripts/notebook.ts", import.meta.url),
  );
  const { status, stderr } = spawnSync(process.execPath, [
    "--import",
    "tsx",
    script,
    passingPath,
    "--profile",
    "huge",
  ], { encoding: "utf8" });
  assert.is(status, 1);
  assert.match(stderr, /--profile.*'huge' is invalid.*smoke, quick, full/);
});

test("the kernel spec starts our kernel with Jupyter's connection file", () => {
  const spec = JSON.parse(
    readFileSync(join(writeKernelSpec(folder), "kernel.json"), "utf8"),
  );
  assert.equal(spec, kernelSpec());
  const [node, flag, loader, kernel, option, file] = spec.argv;
  assert.ok(existsSync(node) && existsSync(fileURLToPath(loader)));
  assert.ok(existsSync(kernel));
  assert.equal([flag, option, file], [
    "--import",
    "--config-path",
    "{connection_file}",
  ]);
  assert.is(spec.language, "typescript");
});

test("Jupyter's data folder per system", () => {
  assert.is(jupyterDataDir({ JUPYTER_DATA_DIR: "/x" }, "linux"), "/x");
  assert.is(jupyterDataDir({ XDG_DATA_HOME: "/d" }, "linux"), "/d/jupyter");
  assert.match(jupyterDataDir({}, "darwin"), /Library\/Jupyter$/);
  assert.match(jupyterDataDir({ APPDATA: "/a" }, "win32"), /^\/a.jupyter$/);
});

test.run();
