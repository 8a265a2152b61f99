import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  columnValues,
  describe,
  escapeHtml,
  formatInterval,
  formatNumber,
  fromDataFrame,
  fromResult,
  groupBy,
  meanInterval,
  table,
  textWidth,
  toCsv,
  toDataFrame,
  toHtml,
  toMarkdown,
  toText,
} from "../lib/core/table.ts";

/** Rounding of a handful of additions in double precision. */
const ROUNDING = 1e-12;

function close(actual: number, expected: number, tolerance = ROUNDING): void {
  assert.ok(
    Math.abs(actual - expected) <= tolerance,
    `${actual} is not within ${tolerance} of ${expected}`,
  );
}

test("describe: worked on paper, missing values left out and counted", () => {
  const d = describe([4, NaN, 1, null, 2, undefined, 3]);
  assert.is(d.n, 4);
  assert.is(d.missing, 3);
  assert.is(d.mean, 2.5);
  close(d.sd, Math.sqrt(5 / 3)); // squares 2.25 + 0.25 + 0.25 + 2.25 over n - 1 = 3
  assert.equal([d.min, d.q25, d.median, d.q75, d.max], [1, 1.75, 2.5, 3.25, 4]);
});

test("describe: golden vector of NumPy", () => {
  // python3 -c "import numpy as np; x=[2.5,-1,7,0.125,3,3,9.75];
  //   print(np.mean(x), np.std(x, ddof=1), np.percentile(x, [25, 50, 75]))"
  // 3.482142857142857 3.7516861288657677 [1.3125 3.     5.    ]
  const d = describe([2.5, -1, 7, 0.125, 3, 3, 9.75]);
  close(d.mean, 3.482142857142857);
  close(d.sd, 3.7516861288657677);
  assert.equal([d.q25, d.median, d.q75], [1.3125, 3, 5]);
});

test("describe: nothing and a single value", () => {
  const none = describe([NaN]);
  assert.is(none.n, 0);
  assert.ok(Number.isNaN(none.mean) && Number.isNaN(none.max));
  const one = describe([7]);
  assert.is(one.mean, 7);
  assert.ok(Number.isNaN(one.sd));
});

test("describe: a sum that loses everything without compensation", () => {
  assert.is(describe([1e16, 1, -1e16]).mean, 1 / 3);
});

test("groupBy: NaN-safe means, order of appearance, missing keys", () => {
  const rows = [
    { m: "LoRA", r: 8, y: 1 },
    { m: "RoRA", r: 8, y: 4 },
    { m: "LoRA", r: 8, y: NaN },
    { m: null, r: 8, y: 2 },
    { m: "LoRA", r: 8, y: 5 },
  ];
  const grouped = groupBy(rows, ["m", "r"], {
    mean: ["y", "mean"],
    n: ["y", "n"],
    missing: ["y", "missing"],
    total: ["y", "sum"],
  });
  assert.equal(grouped, [
    { m: "LoRA", r: 8, mean: 3, n: 2, missing: 1, total: 6 },
    { m: "RoRA", r: 8, mean: 4, n: 1, missing: 0, total: 4 },
    { m: null, r: 8, mean: 2, n: 1, missing: 0, total: 2 },
  ]);
});

test("unknown columns are errors that name the known ones", () => {
  const rows = [{ rank: 8, loss: 2 }];
  const message = /Cannot find the column "los": the rows have rank, loss/;
  assert.throws(() => table(rows, { columns: ["los"] }), message);
  assert.throws(() => columnValues(rows, "los"), message);
  assert.throws(() => groupBy(rows, ["los"], {}), message);
  assert.throws(() => groupBy(rows, ["rank"], { x: ["los", "mean"] }), message);
});

test("meanInterval: Student's t with two degrees of freedom", () => {
  // t(0.95, 2) = 4.30265 (any table); s = 1, n = 3
  const { mean, halfWidth, n } = meanInterval([1, 2, 3, NaN]);
  assert.is(mean, 2);
  assert.is(n, 3);
  close(halfWidth, 4.302652729749464 / Math.sqrt(3), 1e-9);
  assert.ok(Number.isNaN(meanInterval([5]).halfWidth));
});

test("formatNumber", () => {
  const cases: [number, string][] = [
    [0, "0"],
    [0.123456, "0.1235"],
    [-12, "−12"],
    [123456, "123456"],
    [1234.5678, "1235"],
    [0.1 + 0.2, "0.3"],
    [1e-5, "1e-5"],
    [-2.5e9, "−2.5e9"],
    [0.99999999, "1"],
    [-0.00001, "−1e-5"],
    [NaN, "–"],
    [Infinity, "∞"],
  ];
  for (const [x, text] of cases) assert.is(formatNumber(x), text);
});

test("formatInterval: two digits of the half-width, the mean to the same place", () => {
  const format = (mean: number, halfWidth: number) =>
    formatInterval({ mean, halfWidth, n: 3 });
  assert.is(format(0.51234, 0.0131), "0.512 ± 0.013");
  assert.is(format(-3.14159, 2), "−3.1 ± 2.0");
  assert.is(format(1234.5, 67.8), "1235 ± 68");
  assert.is(format(-0.001, 0.5), "0.00 ± 0.50");
  assert.is(format(2, NaN), "2");
  assert.is(format(NaN, 1), "–");
});

const example = table([
  { method: "LoRA", rank: 8, loss: { mean: 2.25, halfWidth: 0.013, n: 3 } },
  { method: "RoRA | <b>", rank: 128, loss: NaN },
], {
  id: "loss",
  title: "Loss & rank",
  caption: "Three seeds.",
  columns: [
    "method",
    "rank",
    { name: "loss", label: "validation loss", unit: "nats" },
  ],
  notes: ["A <note>."],
});

test("toText: aligned columns", () => {
  assert.is(
    toText(example),
    `Loss & rank
Three seeds.

method      rank  validation loss (nats)
──────────  ────  ──────────────────────
LoRA           8           2.250 ± 0.013
RoRA | <b>   128                       –

A <note>.`,
  );
});

test("toText: narrows and wraps within the width, keeps every word", () => {
  const words = "one two three four five six seven eight nine ten";
  const text = toText(
    table([{ claim: words, verdict: "differs" }, {
      claim: "x".repeat(50),
      verdict: "match",
    }]),
    { width: 40 },
  );
  for (const line of text.split("\n")) {
    assert.ok(textWidth(line) <= 40, `"${line}" is wider than 40`);
  }
  for (const word of words.split(" ")) assert.ok(text.includes(word));
});

test("toText: words are broken only where nothing else helps", () => {
  const text = toText(
    table([{ method: "a long name of a method", perplexity: 65.25 }], {
      columns: ["method", {
        name: "perplexity",
        label: "validation perplexity",
      }],
    }),
    { width: 32 },
  );
  for (const word of ["perplexity", "validation", "method", "65.25"]) {
    assert.ok(text.includes(word), `${word} is broken in\n${text}`);
  }
});

test("toText: wide characters, marks and control characters keep the columns", () => {
  assert.is(textWidth("日本"), 4);
  assert.is(textWidth("e\u0301"), 1);
  assert.is(textWidth("−±–"), 3);
  const text = toText(table([{ a: "日本", b: 1 }, { a: "x\ty\nz", b: 2 }]));
  const [, , first, second] = text.split("\n");
  assert.is(textWidth(first), textWidth(second));
});

test("toHtml: escapes every text", () => {
  const hostile = `<img src=x onerror="alert('1')">&`;
  const html = toHtml(
    table([{ [hostile]: hostile }], {
      title: hostile,
      caption: hostile,
      notes: [hostile],
    }),
  );
  assert.not.ok(html.includes("<img"));
  assert.is(html.split(escapeHtml(hostile)).length - 1, 5);
  assert.is(
    escapeHtml(hostile),
    "&lt;img src=x onerror=&quot;alert(&#39;1&#39;)&quot;&gt;&amp;",
  );
});

test("toHtml: numbers to the right, headings have a scope", () => {
  const html = toHtml(example);
  assert.ok(html.includes(`<th scope="col" align="left">method</th>`));
  assert.ok(html.includes(`<td align="right">2.250 ± 0.013</td>`));
});

test("toMarkdown: bars and brackets cannot break the table", () => {
  assert.is(
    toMarkdown(example),
    `**Loss & rank**

Three seeds.

| method | rank | validation loss (nats) |
| --- | ---: | ---: |
| LoRA | 8 | 2.250 ± 0.013 |
| RoRA \\| &lt;b&gt; | 128 | – |

A &lt;note&gt;.`,
  );
});

test("toCsv: full precision, quotes, empty for missing, two columns for an interval", () => {
  const csv = toCsv(table([
    { a: 'say "x", y', b: 1 / 3, c: { mean: 2, halfWidth: 0.5, n: 3 } },
    { a: null, b: NaN, c: NaN },
  ], { columns: ["a", { name: "b", unit: "s" }, "c"] }));
  assert.is(
    csv,
    'a,b (s),c,c_half_width\n"say ""x"", y",0.3333333333333333,2,0.5\n,,,\n',
  );
});

test("fromResult: rows as lists", () => {
  const { columns, rows } = fromResult({
    id: "x",
    title: "t",
    columns: ["rank", "loss (nats)"],
    rows: [[8, 2.5], [16, null]],
  });
  assert.equal(columns, [{ name: "rank" }, { name: "loss (nats)" }]);
  assert.equal(rows, [{ rank: 8, "loss (nats)": 2.5 }, {
    rank: 16,
    "loss (nats)": null,
  }]);
});

test("danfo: there and back", () => {
  const frame = toDataFrame(table([
    { m: "LoRA", y: 1.5 },
    { m: "RoRA", y: { mean: 2.5, halfWidth: 0.1, n: 3 } },
  ]));
  assert.equal(frame.columns, ["m", "y"]);
  assert.equal(fromDataFrame(frame), [{ m: "LoRA", y: 1.5 }, {
    m: "RoRA",
    y: 2.5,
  }]);
});

test.run();
