/**
 * Claims and verdicts: what a paper says, transcribed once, and what a program concludes from what
 * was measured.
 *
 * `data/claims/<paper>.json` is written by hand from the paper, with the fidelity and the rule of
 * each claim chosen before any run, and is never edited to fit. A verdict is computed from the
 * recorded full run by the claim's rule:
 *
 *   equal      the whole interval within the margin of the paper's value: match, else differs
 *   direction  an effect relative to a reference (0 for a difference, 1 for a ratio):
 *                interval beyond the reference on the paper's side: trend holds,
 *                and a match if the interval also contains the paper's value and reaches no further
 *                from its middle than half the paper's effect (a vague number matches nothing);
 *                interval contains the reference: differs (no effect detected, or not decided where the
 *                reference is a limit rather than no effect);
 *                interval beyond it on the other side: differs (opposite effect, or not reached where the
 *                reference is a limit)
 *   trend      values in order (over ranks, say); no later one lies against the direction from an
 *              earlier one by more than the margin: trend holds, else differs
 *
 * A claim that is only quoted, or out of scope, is never measured: not run, with its reason.
 */
import { existsSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { type Measurement, projectRoot } from "./runs.ts";

/**
 * How the measurement relates to the paper's; chosen before the run.
 *
 * `exact`: analytic or deterministic, should be equal. `scaled`: same method, smaller model or
 * data. `modelled`: from our own model of the hardware. `quoted`: shown for context.
 * `out-of-scope`.
 */
export type Fidelity =
  | "exact"
  | "scaled"
  | "modelled"
  | "quoted"
  | "out-of-scope";

/** The paper's side: larger, smaller or the same; for a trend, which moves are allowed. */
export type Direction =
  | "higher"
  | "lower"
  | "equal"
  | "non-decreasing"
  | "non-increasing";

/** How a verdict follows from a measurement. `reason` says why this margin. */
export type Rule =
  | { kind: "equal"; margin: number; reason: string }
  | { kind: "direction"; reference?: number; reason: string }
  | { kind: "trend"; margin: number; reason: string };

export interface Claim {
  id: string;
  /** The claim in a sentence, as the paper means it. */
  statement: string;
  /** Abstract, section, table and row, page. */
  where: string;
  metric: string;
  /** Unit of value and measurement; "" for a pure number. */
  unit: string;
  /** The paper's number, or null if it gives none. */
  value: number | null;
  direction: Direction;
  /** The paper's set-up: model, data, hardware. */
  setup: string;
  fidelity: Fidelity;
  /** Why this fidelity. */
  why: string;
  /** Only values that were read in the source are claims. */
  label: "read";
  /** Null for what is not measured. */
  rule: Rule | null;
  /** What a measurement needs besides this project; on a machine without it there may be none. */
  needs?: string;
}

export interface ClaimsFile {
  paper: {
    title: string;
    citation: string;
    year?: number;
    arxiv?: string;
    doi?: string;
  };
  claims: Claim[];
}

export interface Verdict {
  verdict: "match" | "trend holds" | "differs" | "not run";
  /** The rule and the numbers in a sentence. */
  sentence: string;
}

const FIDELITIES = ["exact", "scaled", "modelled", "quoted", "out-of-scope"];
const DIRECTIONS = [
  "higher",
  "lower",
  "equal",
  "non-decreasing",
  "non-increasing",
];

/** Directions that make sense for each kind of rule. */
const DIRECTIONS_OF_RULE: Record<Rule["kind"], Direction[]> = {
  equal: ["higher", "lower", "equal"],
  direction: ["higher", "lower"],
  trend: ["non-decreasing", "non-increasing"],
};

/** Whether a claim has a measured column. */
export function isMeasured(claim: Claim): boolean {
  return claim.fidelity !== "quoted" && claim.fidelity !== "out-of-scope";
}

type Fields = Record<string, unknown>;

/** Checks a rule against its claim; returns what is wrong, or null. */
function ruleProblem(claim: Claim): string | null {
  const rule = claim.rule as Rule & Fields | null | undefined;
  if (!isMeasured(claim)) {
    return rule === null || rule === undefined
      ? null
      : `rule must be null as ${claim.fidelity} claims are not measured`;
  }
  if (rule === null || typeof rule !== "object") return "rule must be given";
  if (!Object.hasOwn(DIRECTIONS_OF_RULE, rule.kind)) {
    return `rule.kind must be equal, direction or trend: ${
      JSON.stringify(rule.kind)
    }`;
  }
  if (typeof rule.reason !== "string" || rule.reason === "") {
    return "rule.reason must say why";
  }
  if (rule.kind !== "direction" && !(rule.margin >= 0)) {
    return `rule.margin must be a number from 0: ${
      JSON.stringify(rule.margin)
    }`;
  }
  if (
    rule.kind === "direction" && rule.reference !== undefined &&
    !Number.isFinite(rule.reference)
  ) return "rule.reference must be a number";
  if (rule.kind === "equal" && claim.value === null) {
    return "value must be given for the rule equal";
  }
  if (!DIRECTIONS_OF_RULE[rule.kind].includes(claim.direction)) {
    return `direction must be ${
      DIRECTIONS_OF_RULE[rule.kind].join(" or ")
    } for the rule ${rule.kind}: ${JSON.stringify(claim.direction)}`;
  }
  if (rule.kind === "direction" && claim.value !== null) {
    const reference = rule.reference ?? 0;
    const side = claim.direction === "higher" ? 1 : -1;
    if (!((claim.value - reference) * side > 0)) {
      return `value must lie on the side of its direction: ${claim.value}, ${claim.direction} than ${reference}`;
    }
  }
  return null;
}

/** What is wrong with a claim, or null. */
function claimProblem(claim: Claim & Fields): string | null {
  if (claim === null || typeof claim !== "object") return "it is no object";
  const texts = ["id", "statement", "where", "metric", "setup", "why"];
  for (const name of texts) {
    if (typeof claim[name] !== "string" || claim[name] === "") {
      return `${name} must be a text: ${JSON.stringify(claim[name])}`;
    }
  }
  if (typeof claim.unit !== "string") {
    return `unit must be a text ("" for a pure number): ${
      JSON.stringify(claim.unit)
    }`;
  }
  if (claim.value !== null && !Number.isFinite(claim.value)) {
    return `value must be a number or null: ${JSON.stringify(claim.value)}`;
  }
  if (claim.label !== "read") {
    return `label must be "read", as a value that was only recalled is not the paper's: ${
      JSON.stringify(claim.label)
    }`;
  }
  if (!FIDELITIES.includes(claim.fidelity)) {
    return `fidelity must be ${FIDELITIES.join(", ")}: ${
      JSON.stringify(claim.fidelity)
    }`;
  }
  if (!DIRECTIONS.includes(claim.direction)) {
    return `direction must be ${DIRECTIONS.join(", ")}: ${
      JSON.stringify(claim.direction)
    }`;
  }
  return ruleProblem(claim);
}

/** Parses the text of a claims file; a SyntaxError names the claim, the field and the value. */
export function parseClaims(text: string, source = "claims"): ClaimsFile {
  const fail = (why: string): never => {
    throw new SyntaxError(`Cannot read ${source} as ${why}`);
  };
  let file: ClaimsFile;
  try {
    file = JSON.parse(text);
  } catch (error) {
    return fail(`it is not JSON: ${(error as Error).message}`);
  }
  const { paper, claims } = file ?? {};
  if (typeof paper?.title !== "string" || typeof paper.citation !== "string") {
    fail("paper.title and paper.citation must be texts");
  }
  if (!Array.isArray(claims)) return fail("claims must be a list");
  const ids = new Set<string>();
  for (const [i, claim] of claims.entries()) {
    const problem = claimProblem(claim as Claim & Fields) ??
      (ids.has(claim.id) ? "its id must be unique" : null);
    if (problem !== null) fail(`in claim "${claim?.id ?? i}" ${problem}`);
    ids.add(claim.id);
  }
  return file;
}

/** Path of a paper's claims file. */
export function claimsPath(paper: string): string {
  return join(projectRoot(), "data", "claims", `${paper}.json`);
}

/** The claims of a paper, or null if it has no claims file. */
export function loadClaims(
  paper: string,
  path = claimsPath(paper),
): ClaimsFile | null {
  if (!existsSync(path)) return null;
  return parseClaims(
    readFileSync(path, "utf8"),
    relative(projectRoot(), path),
  );
}

/** A number to three significant digits or better, without an exponent where it can be read. */
export function formatNumber(x: number): string {
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e6 || size < 1e-4) return x.toExponential(2);
  if (size >= 100) return String(Number(x.toFixed(size >= 1000 ? 0 : 1)));
  return String(Number(x.toPrecision(3)));
}

/** A value with its unit, and its sign where asked: "+6.5 points", "97.9 %". */
export function formatValue(
  x: number,
  unit: string,
  { signed = false } = {},
): string {
  const text = (signed && x > 0 ? "+" : "") + formatNumber(x);
  return unit === "" ? text : `${text} ${unit}`;
}

/** A measurement in words: "+1.2 [0.4, 2.0] points, n = 5". */
export function formatMeasurement(measurement: Measurement): string {
  const { value, low, high, n, unit } = measurement;
  const interval = low === high
    ? ""
    : ` [${formatNumber(low)}, ${formatNumber(high)}]`;
  const count = n > 1 ? `, n = ${n}` : "";
  return `${formatNumber(value)}${interval}${
    unit === "" ? "" : ` ${unit}`
  }${count}`;
}

/**
 * Throws if a measurement cannot be judged: missing, not finite, of another unit, or its interval
 * inside out.
 */
function checkMeasurement(
  claim: Claim,
  measurement: Measurement | undefined,
): Measurement {
  const fail = (why: string): never => {
    throw new RangeError(`Cannot judge claim "${claim.id}" as ${why}`);
  };
  if (measurement === undefined) {
    return fail("the experiment measured nothing for it");
  }
  const { value, low, high, unit, points = [] } = measurement;
  const numbers = [value, low, high, ...points.map((p) => p.value)];
  const bad = numbers.find((x) => !Number.isFinite(x));
  if (bad !== undefined) fail(`its measurement must be finite: ${bad}`);
  if (low > value || value > high) {
    fail(
      `its interval must contain its value: ${value} in [${low}, ${high}]`,
    );
  }
  if (unit !== claim.unit) {
    fail(`its unit must be "${claim.unit}": "${unit}"`);
  }
  return measurement;
}

/** Rule `equal`: the whole interval within the margin of the paper's value. */
function judgeEqual(
  paper: number,
  margin: number,
  m: Measurement,
): Verdict {
  const gap = Math.max(Math.abs(m.low - paper), Math.abs(m.high - paper));
  const match = gap <= margin;
  return {
    verdict: match ? "match" : "differs",
    sentence: `${formatMeasurement(m)} ${
      match ? "lies" : "does not lie"
    } within ${formatNumber(margin)} of the paper's ${formatNumber(paper)}`,
  };
}

/** Rule `direction`: an effect on the paper's side of the reference, beyond the interval. */
function judgeDirection(
  claim: Claim,
  reference: number,
  m: Measurement,
): Verdict {
  const higher = claim.direction === "higher";
  const paperSide = higher ? m.low > reference : m.high < reference;
  const otherSide = higher ? m.high < reference : m.low > reference;
  const word = higher ? "above" : "below";
  const shown = formatMeasurement(m);
  const against = formatNumber(reference);
  const limit = reference !== 0 && reference !== 1;
  if (m.n < 2 && claim.fidelity !== "exact") {
    return {
      verdict: "differs",
      sentence:
        `${shown}: one value has no interval, so no effect can be told from chance`,
    };
  }
  if (otherSide) {
    return {
      verdict: "differs",
      sentence: `${
        limit ? "not reached" : "opposite effect"
      }: ${shown} lies on the other side of ${against}, the paper ${word} it`,
    };
  }
  if (!paperSide) {
    return {
      verdict: "differs",
      sentence: limit
        ? `not decided: the interval of ${shown} contains ${against}, the limit that the claim must pass`
        : `no effect detected: the interval of ${shown} contains ${against}`,
    };
  }
  const paper = claim.value;
  const sharp = paper !== null &&
    (m.high - m.low) / 2 <= Math.abs(paper - reference) / 2;
  if (sharp && m.low <= paper && paper <= m.high) {
    return {
      verdict: "match",
      sentence:
        `${shown} lies ${word} ${against}, and its interval contains the paper's ${
          formatNumber(paper)
        }`,
    };
  }
  return {
    verdict: "trend holds",
    sentence: `${shown} lies ${word} ${against} as in the paper${
      paper === null ? "" : `, whose value is ${formatNumber(paper)}`
    }`,
  };
}

/**
 * Rule `trend`: no value lies against the direction from any earlier one by more than the margin,
 * so a slide in small steps counts as well.
 */
function judgeTrend(claim: Claim, margin: number, m: Measurement): Verdict {
  const points = m.points ?? [];
  if (points.length < 2) {
    throw new RangeError(
      `Cannot judge claim "${claim.id}" as a trend needs at least 2 points: ${points.length}`,
    );
  }
  const side = claim.direction === "non-decreasing" ? 1 : -1;
  const moves = points.flatMap((to, j) =>
    points.slice(0, j).map((from) => ({
      from,
      to,
      against: side * (from.value - to.value),
    }))
  );
  const worst = moves.reduce((a, b) => b.against > a.against ? b : a);
  const shown = points
    .map((p) => `${formatNumber(p.x)}: ${formatNumber(p.value)}`).join(", ");
  const where = `from ${formatNumber(worst.from.x)} to ${
    formatNumber(worst.to.x)
  }`;
  const holds = worst.against <= margin;
  const move = `${where} it moves by ${
    formatNumber(worst.against)
  } against the direction, ${formatNumber(margin)} ${
    m.unit === "" ? "" : `${m.unit} `
  }is allowed`;
  return {
    verdict: holds ? "trend holds" : "differs",
    sentence: worst.against <= 0
      ? `${claim.direction} throughout (${shown})`
      : `${holds ? "" : "not "}${claim.direction} (${shown}): ${move}`,
  };
}

/**
 * The verdict on a claim, from the measurements of a result set; `null` means there is no set.
 *
 * A measured claim without its measurement is an error, never a pass; unless it needs what this
 * machine may lack, or the experiment refuses with a reason, which makes it "not run".
 */
export function judge(
  claim: Claim,
  measurements: Record<string, Measurement> | null,
): Verdict {
  if (!isMeasured(claim)) {
    return {
      verdict: "not run",
      sentence: claim.fidelity === "quoted"
        ? `quoted for context: ${claim.why}`
        : `out of scope: ${claim.why}`,
    };
  }
  if (measurements === null) {
    return { verdict: "not run", sentence: "no recorded full run" };
  }
  const given = Object.hasOwn(measurements, claim.id)
    ? measurements[claim.id]
    : undefined;
  if (given === undefined && claim.needs !== undefined) {
    return { verdict: "not run", sentence: `needs ${claim.needs}` };
  }
  if (given?.refused !== undefined) {
    return { verdict: "not run", sentence: given.refused };
  }
  const measurement = checkMeasurement(claim, given);
  const { verdict, sentence } = judgeByRule(claim, claim.rule!, measurement);
  const { note } = measurement;
  return {
    verdict,
    sentence: note === undefined ? sentence : `${sentence} (${note})`,
  };
}

function judgeByRule(
  claim: Claim,
  rule: Rule,
  measurement: Measurement,
): Verdict {
  switch (rule.kind) {
    case "equal":
      return judgeEqual(claim.value!, rule.margin, measurement);
    case "direction":
      return judgeDirection(claim, rule.reference ?? 0, measurement);
    case "trend":
      return judgeTrend(claim, rule.margin, measurement);
  }
}

/** Throws if an experiment measures something that no claim of the file is about. */
export function checkMeasured(
  file: ClaimsFile,
  measurements: Record<string, Measurement>,
): void {
  const known = file.claims.filter(isMeasured).map((c) => c.id);
  for (const id of Object.keys(measurements)) {
    if (!known.includes(id)) {
      throw new RangeError(
        `Cannot judge measurement "${id}" as no measured claim has this id: ${
          known.join(", ")
        }`,
      );
    }
  }
}

/**
 * One claim with the paper's value, what was measured, and the verdict: a row of the verdict
 * table.
 */
export interface VerdictRow extends Verdict {
  claim: Claim;
  /** From the recorded full run; null if there is none, or the claim is not measured. */
  recorded: Measurement | null;
  /** From this machine's own run. */
  local: Measurement | null;
}

/**
 * The verdict table of a paper: verdicts are those of the recorded full run, `local` stands
 * beside them.
 */
export function verdictRows(
  file: ClaimsFile,
  recorded: Record<string, Measurement> | null,
  local: Record<string, Measurement> | null = null,
): VerdictRow[] {
  for (const measurements of [recorded, local]) {
    if (measurements === null) continue;
    checkMeasured(file, measurements);
    for (const claim of file.claims) judge(claim, measurements);
  }
  const of = (
    claim: Claim,
    measurements: Record<string, Measurement> | null,
  ) => {
    const given = isMeasured(claim) ? measurements?.[claim.id] : undefined;
    return given === undefined || given.refused !== undefined ? null : given;
  };
  return file.claims.map((claim) => ({
    claim,
    ...judge(claim, recorded),
    recorded: of(claim, recorded),
    local: of(claim, local),
  }));
}
