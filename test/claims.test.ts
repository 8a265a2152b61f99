import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type Claim,
  formatMeasurement,
  formatNumber,
  formatValue,
  judge,
  loadClaims,
  parseClaims,
  verdictRows,
} from "../lib/core/claims.ts";
import { measureLocal } from "../lib/core/report.ts";
import {
  type Experiment,
  loadSummary,
  type Measurement,
} from "../lib/core/runs.ts";

const gain: Claim = {
  id: "gain",
  statement: "RoRA is better than LoRA",
  where: "abstract",
  metric: "accuracy of RoRA minus that of LoRA",
  unit: "points",
  value: 6.5,
  direction: "higher",
  setup: "LLaMA-7B",
  fidelity: "scaled",
  why: "a small model",
  label: "read",
  rule: { kind: "direction", reason: "paired over seeds" },
};

const equal: Claim = {
  ...gain,
  id: "slope",
  unit: "",
  value: 0,
  direction: "equal",
  fidelity: "exact",
  rule: { kind: "equal", margin: 0.05, reason: "noise of one batch" },
};

const trend: Claim = {
  ...gain,
  id: "ranks",
  unit: "points",
  value: null,
  direction: "non-decreasing",
  rule: { kind: "trend", margin: 0.5, reason: "seed noise" },
};

function measured(
  value: number,
  low: number,
  high: number,
  rest: Partial<Measurement> = {},
): Measurement {
  return { value, low, high, n: 5, unit: "points", ...rest };
}

function verdictOf(claim: Claim, m: Measurement): string {
  return judge(claim, { [claim.id]: m }).verdict;
}

function sentenceOf(claim: Claim, m: Measurement): string {
  return judge(claim, { [claim.id]: m }).sentence;
}

test("direction: beyond the reference on the paper's side is a trend", () => {
  assert.is(verdictOf(gain, measured(1.2, 0.4, 2)), "trend holds");
  assert.match(
    sentenceOf(gain, measured(1.2, 0.4, 2)),
    /1\.2 \[0\.4, 2\] points, n = 5 lies above 0 .* 6\.5/,
  );
});

test("direction: an interval with the paper's value as well is a match", () => {
  assert.is(verdictOf(gain, measured(5, 3, 7)), "match");
  assert.is(verdictOf(gain, measured(5, 3, 6.5)), "match");
  assert.is(verdictOf(gain, measured(5, 3, 6.4999)), "trend holds");
  // Contains everything from 0.1 to 14: matches nothing in particular.
  assert.is(verdictOf(gain, measured(7, 0.1, 13.9)), "trend holds");
});

test("direction: an interval with the reference is no effect detected", () => {
  for (const m of [measured(1, -0.1, 2.1), measured(-1, -2, 0)]) {
    assert.is(verdictOf(gain, m), "differs");
    assert.match(sentenceOf(gain, m), /^no effect detected/);
  }
  // Even if it contains the paper's value: too wide to tell anything.
  assert.is(verdictOf(gain, measured(3, -2, 8)), "differs");
});

test("direction: beyond the reference on the other side is the opposite", () => {
  assert.is(verdictOf(gain, measured(-1, -1.5, -0.5)), "differs");
  assert.match(
    sentenceOf(gain, measured(-1, -1.5, -0.5)),
    /^opposite effect/,
  );
});

test("direction: short of a reference that is a size is not reached, not the opposite", () => {
  const large: Claim = {
    ...gain,
    rule: { ...gain.rule!, reference: 100 } as Claim["rule"],
    value: null,
  };
  assert.is(verdictOf(large, measured(5, 4, 6)), "differs");
  assert.match(sentenceOf(large, measured(5, 4, 6)), /^not reached: 5 .* 100/);
});

test("direction: an interval with a limit is not decided, whatever side of no effect it is on", () => {
  const kept: Claim = {
    ...gain,
    rule: { ...gain.rule!, reference: -2 } as Claim["rule"],
    value: null,
  };
  for (const m of [measured(-4.5, -8.3, -0.7), measured(-1, -3, 1)]) {
    assert.is(verdictOf(kept, m), "differs");
    assert.match(
      sentenceOf(kept, m),
      /^not decided: the interval of .* contains -2, the limit that the claim must pass$/,
    );
  }
  // With references that mean no effect nothing changes.
  const ratio: Claim = {
    ...kept,
    rule: { ...gain.rule!, reference: 1 } as Claim["rule"],
  };
  assert.match(sentenceOf(ratio, measured(1, 0.5, 2)), /^no effect detected/);
});

test("direction: lower mirrors higher", () => {
  const lower: Claim = { ...gain, direction: "lower", value: -2 };
  assert.is(verdictOf(lower, measured(-1, -1.5, -0.5)), "trend holds");
  assert.is(verdictOf(lower, measured(-1, -2.5, -0.5)), "match");
  assert.is(verdictOf(lower, measured(-1, -2.5, 0.5)), "differs");
  assert.match(sentenceOf(lower, measured(1, 0.5, 1.5)), /^opposite effect/);
});

test("direction: a ratio is compared with 1", () => {
  const ratio: Claim = {
    ...gain,
    value: 2,
    rule: { kind: "direction", reference: 1, reason: "a ratio" },
  };
  assert.is(verdictOf(ratio, measured(1.2, 1.1, 1.3)), "trend holds");
  assert.is(verdictOf(ratio, measured(1.2, 0.9, 1.5)), "differs");
  assert.is(verdictOf(ratio, measured(0.8, 0.7, 0.9)), "differs");
});

test("direction: without a paper's value a trend is the best there is", () => {
  const open: Claim = { ...gain, value: null };
  assert.is(verdictOf(open, measured(1, 0.5, 1.5)), "trend holds");
});

test("direction: a single value cannot be told from chance", () => {
  const one = measured(3, 3, 3, { n: 1 });
  assert.is(verdictOf(gain, one), "differs");
  assert.match(sentenceOf(gain, one), /one value has no interval/);
  // What is computed exactly needs no interval.
  assert.is(verdictOf({ ...gain, fidelity: "exact" }, one), "trend holds");
});

test("equal: the whole interval within the margin, the end included", () => {
  const m = (value: number, half = 0.01) =>
    measured(value, value - half, value + half, { unit: "" });
  assert.is(verdictOf(equal, m(0.03)), "match");
  assert.is(verdictOf(equal, m(-0.04)), "match");
  assert.is(verdictOf(equal, m(-0.041)), "differs");
  assert.is(verdictOf(equal, m(0.051)), "differs");
  assert.is(verdictOf(equal, m(0, 0.06)), "differs"); // too vague to be equal
  assert.match(
    sentenceOf(equal, m(0.051)),
    /0\.051 \[0\.041, 0\.061\], n = \d+ does not lie within 0\.05 of the paper's 0/,
  );
});

test("the measurement's note stands behind the sentence", () => {
  assert.match(
    sentenceOf(gain, measured(5, 3, 7, { note: "ranks 8, 128" })),
    /\(ranks 8, 128\)$/,
  );
});

test("trend: no step against the direction beyond the margin", () => {
  const m = (...values: number[]) =>
    measured(0, 0, 0, {
      points: values.map((value, i) => ({ x: 2 ** (i + 1), value })),
    });
  assert.is(verdictOf(trend, m(1, 2, 3)), "trend holds");
  assert.match(sentenceOf(trend, m(1, 2, 3)), /non-decreasing throughout/);
  assert.is(verdictOf(trend, m(1, 3, 2.6)), "trend holds");
  assert.match(
    sentenceOf(trend, m(1, 3, 2.6)),
    /from 4 to 8 it moves by 0\.4 .* 0\.5 points is/,
  );
  assert.is(verdictOf(trend, m(1, 3, 2)), "differs");
  assert.match(sentenceOf(trend, m(1, 3, 2, 9)), /from 4 to 8 it moves by 1/);
  const falling: Claim = { ...trend, direction: "non-increasing" };
  assert.is(verdictOf(falling, m(3, 2, 1)), "trend holds");
  assert.is(verdictOf(falling, m(3, 2, 2.6)), "differs");
});

test("trend: a slow slide of small steps is seen from end to end", () => {
  const points = [0, -0.4, -0.8, -1.2].map((value, i) => ({ x: i, value }));
  assert.is(verdictOf(trend, measured(0, 0, 0, { points })), "differs");
});

test("a claim that is younger than a recorded run is not run; one that the present code forgets is an error", () => {
  const file = loadClaims("rora")!;
  const forgetful = {
    name: "rora",
    measure: () => ({}),
  } as never as Experiment;
  const recorded = loadSummary("rora", "full")!;
  const older = {
    ...recorded,
    provenance: { ...recorded.provenance, codeHash: "another" },
  };
  for (
    const { verdict, sentence, claim } of verdictRows(
      file,
      measureLocal(forgetful, older),
    )
  ) {
    assert.is(verdict, "not run", claim.id);
    if (claim.fidelity === "scaled" && claim.needs === undefined) {
      assert.match(sentence, /older than this claim/);
    }
  }
  assert.throws(
    () => verdictRows(file, {}),
    /the experiment measured nothing for it/,
  );
});

test("what is quoted or out of scope is never judged", () => {
  const quoted: Claim = { ...gain, fidelity: "quoted", rule: null };
  assert.is(judge(quoted, { gain: measured(9, 8, 10) }).verdict, "not run");
  assert.match(judge(quoted, null).sentence, /quoted for context: a small/);
  const out: Claim = { ...gain, fidelity: "out-of-scope", rule: null };
  assert.match(judge(out, null).sentence, /out of scope: a small model/);
});

test("no recorded run is not run; a missing or bad measurement is an error", () => {
  assert.is(judge(gain, null).verdict, "not run");
  assert.throws(() => judge(gain, {}), /"gain".*measured nothing/);
  assert.throws(() => judge(gain, { gain: measured(NaN, 0, 1) }), /NaN/);
  assert.throws(() => judge(gain, { gain: measured(1, -Infinity, 2) }), /-Inf/);
  assert.throws(
    () => judge(gain, { gain: measured(3, 0, 1) }),
    /3 in \[0, 1\]/,
  );
  assert.throws(
    () => judge(gain, { gain: measured(1, 0, 2, { unit: "%" }) }),
    /unit must be "points": "%"/,
  );
  assert.throws(() => judge(trend, { ranks: measured(0, 0, 0) }), /points: 0/);
  // A name that every object has is not a measurement.
  assert.throws(() => judge({ ...gain, id: "toString" }, {}), /nothing for it/);
});

const file = { paper: { title: "T", citation: "C" }, claims: [gain, equal] };

function parse(change: Record<string, unknown>): () => void {
  return () =>
    parseClaims(JSON.stringify({ ...file, claims: [{ ...gain, ...change }] }));
}

test("what the experiment refuses is not run, with its reason and without a number", () => {
  const refused = measured(0, 0, 0, { refused: "the expert of laws failed" });
  assert.equal(judge(gain, { gain: refused }), {
    verdict: "not run",
    sentence: "the expert of laws failed",
  });
  const file = { paper: { title: "t", citation: "c" }, claims: [gain] };
  const [row] = verdictRows(file, { gain: refused }, { gain: refused });
  assert.is(row.recorded, null);
  assert.is(row.local, null);
});

test("a good claims file is read as it is", () => {
  assert.equal(parseClaims(JSON.stringify(file)), file);
});

test("a bad claims file: the error names claim, field and value", () => {
  assert.throws(() => parseClaims("{"), /Cannot read claims as it is not JSON/);
  assert.throws(() => parseClaims("null"), /paper.title/);
  assert.throws(() => parseClaims('{"paper": {}}'), /paper.title/);
  assert.throws(
    () => parseClaims(JSON.stringify({ ...file, claims: {} })),
    /must be a list/,
  );
  assert.throws(
    () => parseClaims(JSON.stringify({ ...file, claims: [gain, gain] })),
    /"gain" its id must be unique/,
  );
  assert.throws(
    () => parseClaims(JSON.stringify({ ...file, claims: [null] })),
    /claim "0"/,
  );
  assert.throws(parse({ statement: "" }), /"gain" statement/);
  assert.throws(parse({ value: "6.5" }), /value must be a number or null: "6/);
  assert.throws(parse({ value: undefined }), /value must be/);
  assert.throws(parse({ label: "recalled" }), /only recalled.*: "recalled"/);
  assert.throws(parse({ fidelity: "exactly" }), /fidelity.*: "exactly"/);
  assert.throws(parse({ direction: "up" }), /direction.*: "up"/);
  assert.throws(parse({ direction: "equal" }), /higher or lower/);
  assert.throws(parse({ value: -1 }), /side of its direction: -1/);
  assert.throws(parse({ rule: null }), /rule must be given/);
  assert.throws(parse({ fidelity: "quoted" }), /rule must be null/);
  assert.throws(parse({ rule: { kind: "toString" } }), /kind must be/);
  assert.throws(parse({ rule: { kind: "direction" } }), /reason must say/);
  assert.throws(
    parse({ rule: { kind: "equal", reason: "r" } }),
    /rule.margin must be a number from 0/,
  );
  assert.throws(
    parse({ value: null, rule: { kind: "equal", margin: 1, reason: "r" } }),
    /value must be given/,
  );
});

test("a paper without a claims file has null", () => {
  assert.is(loadClaims("no-such-paper"), null);
});

test("verdict rows: the verdict is the full run's, the local one stands beside", () => {
  const recorded = {
    gain: measured(1, 0.5, 1.5),
    slope: measured(0, 0, 0, { unit: "" }),
  };
  const local = { ...recorded, gain: measured(-1, -2, 0.5) };
  const [row] = verdictRows(file, recorded, local);
  assert.is(row.verdict, "trend holds");
  assert.is(row.local, local.gain);
  assert.is(verdictRows(file, null, local)[0].verdict, "not run");
  assert.throws(
    () => verdictRows(file, { ...recorded, gian: recorded.gain }),
    /"gian"/,
  );
  const { gain: _, ...rest } = recorded;
  assert.throws(() => verdictRows(file, recorded, rest), /measured nothing/);
});

test("numbers read well", () => {
  const cases: [number, string][] = [
    [0, "0"],
    [6.5, "6.5"],
    [0.123456, "0.123"],
    [-12.345, "-12.3"],
    [123.456, "123.5"],
    [4567.8, "4568"],
    [12345678, "1.23e+7"],
    [0.00001234, "1.23e-5"],
  ];
  for (const [x, text] of cases) assert.is(formatNumber(x), text);
  assert.is(formatValue(6.5, "points", { signed: true }), "+6.5 points");
  assert.is(formatValue(-2, "", { signed: true }), "-2");
  assert.is(
    formatMeasurement(measured(1.25, 0.5, 2)),
    "1.25 [0.5, 2] points, n = 5",
  );
  assert.is(formatMeasurement(measured(1, 1, 1, { n: 1 })), "1 points");
});

test.run();
