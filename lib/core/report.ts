/**
 * Reports: claims, verdicts and provenance as tables and sentences, the same in notebooks and on the
 * site.
 *
 * Scope: wording and layout of what claims.ts and runs.ts compute; no numbers of its own.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  type ClaimsFile,
  formatMeasurement,
  formatValue,
  isMeasured,
  loadClaims,
  type VerdictRow,
} from "./claims.ts";
import { codeInfo } from "./provenance.ts";
import {
  type Experiment,
  type FigureSpec,
  type Measurement,
  projectRoot,
  type ResultSet,
} from "./runs.ts";
import { paperFigure } from "./figure.ts";
import { type Row, type Table, table } from "./table.ts";

/** What each fidelity label means, in a reader's words. */
export const FIDELITY_MEANING: Readonly<Record<string, string>> = {
  exact: "analytic or deterministic: should be equal",
  scaled: "same method, smaller model or data: compare direction and order",
  modelled: "a hardware number from our own model, not from silicon",
  quoted: "shown for context, not measured here",
  "out-of-scope": "not measured here, with the reason",
};

/** The paper's number with its unit and sign, or the direction it claims in words. */
export function paperValue({ claim }: Pick<VerdictRow, "claim">): string {
  const { value, unit, direction, rule } = claim;
  if (value === null) return direction;
  return formatValue(value, unit, { signed: rule?.kind === "direction" });
}

function measured(measurement: Measurement | null): string | null {
  return measurement === null ? null : formatMeasurement(measurement);
}

/** What the paper claims, where, and how it can be checked here. */
export function claimsTable({ paper, claims }: ClaimsFile): Table {
  const rows = claims.map((claim): Row => ({
    claim: claim.statement,
    where: claim.where,
    paper: paperValue({ claim }),
    fidelity: claim.fidelity,
    why: claim.why,
  }));
  return table(rows, {
    id: "claims",
    title: "What the paper claims",
    caption: `${paper.citation}.`,
    columns: [
      "claim",
      "where",
      { name: "paper", label: "paper's value" },
      "fidelity",
      { name: "why", label: "why this fidelity" },
    ],
  });
}

/** What the verdicts say of a claim that a run of earlier code could not know. */
const OLDER = {
  value: NaN,
  low: NaN,
  high: NaN,
  n: 0,
  unit: "",
  refused: "the recorded run is older than this claim",
};

/** Claims that a set of earlier code has nothing for. */
function olderThan(
  { experiment, provenance }: ResultSet,
  measured: Record<string, Measurement>,
): Record<string, Measurement> {
  const file = join(projectRoot(), "lib", "experiments", `${experiment}.ts`);
  if (!existsSync(file) || codeInfo(file).hash === provenance.codeHash) {
    return {};
  }
  const missing = (loadClaims(experiment)?.claims ?? []).filter((claim) =>
    isMeasured(claim) && claim.needs === undefined && !(claim.id in measured)
  );
  return Object.fromEntries(missing.map(({ id }) => [id, OLDER]));
}

/**
 * What an experiment measures on a recorded set, or one of this machine; null if there is no set, or if one of this
 * machine was made by an older version of the experiment and lacks something. Claims that are younger than the
 * code of the set are refused, and say so.
 */
export function measureLocal(
  { measure }: Experiment,
  set: ResultSet | null,
): Record<string, Measurement> | null {
  if (set === null) return null;
  try {
    const measured = measure(set.arms, set.config as object);
    return { ...measured, ...olderThan(set, measured) };
  } catch (error) {
    if (set.profile === "full") throw error;
    return null;
  }
}

/** Paper against measured, claim by claim, with the verdict and its reason. */
export function verdictTable(rows: VerdictRow[]): Table {
  const hasLocal = rows.some((row) => row.local !== null);
  return table(
    rows.map((row): Row => ({
      claim: row.claim.statement,
      paper: paperValue(row),
      recorded: measured(row.recorded),
      ...(hasLocal ? { local: measured(row.local) } : {}),
      fidelity: row.claim.fidelity,
      verdict: row.verdict,
      why: row.sentence,
    })),
    {
      id: "verdicts",
      title: "Paper against measured",
      caption: "Measured values with their 95 % interval; the verdict is " +
        "computed from the recorded full run.",
      columns: [
        "claim",
        { name: "paper", label: "paper's value" },
        { name: "recorded", label: "recorded full run" },
        ...(hasLocal ? [{ name: "local", label: "this machine" }] : []),
        "fidelity",
        "verdict",
        "why",
      ],
    },
  );
}

/** Values that are further apart than this stand on a log axis. */
const LOG_SPAN = 1000;

/**
 * The claims with a number of the paper and a measurement, as a figure; null if there are none.
 * Claims of the most frequent unit only: one axis has one unit.
 */
export function verdictFigure(
  rows: VerdictRow[],
  { id = "paper-vs-measured" }: { id?: string } = {},
): FigureSpec | null {
  const shown = rows.flatMap(({ claim, recorded, local }) => {
    const measurement = recorded ?? local;
    return measurement === null || claim.value === null
      ? []
      : [{ claim, measurement, run: recorded === null ? "quick" : "full" }];
  });
  const count = (unit: string) =>
    shown.filter(({ claim }) => claim.unit === unit).length;
  const unit = shown.map(({ claim }) => claim.unit)
    .sort((a, b) => count(b) - count(a))[0];
  const same = shown.filter(({ claim }) => claim.unit === unit);
  if (same.length === 0) return null;
  const ends = ({ claim, measurement }: typeof same[number]) => [
    claim.value!,
    measurement.low,
    measurement.high,
  ];
  const positive = same.filter((row) => ends(row).every((x) => x > 0));
  const values = positive.flatMap(ends);
  const log = Math.max(...values) / Math.min(...values) > LOG_SPAN;
  // A log axis has no place for 0.
  const drawn = log ? positive : same;
  const left = same.filter((row) => !drawn.includes(row))
    .map(({ claim, measurement }) =>
      ` Not on this axis: ${claim.id}, ${formatMeasurement(measurement)}.`
    ).join("");
  const points = drawn.map(({ claim, measurement }): Row => ({
    claim: claim.id,
    paper: claim.value,
    measured: measurement.value,
    low: measurement.low,
    high: measurement.high,
  }));
  const full = drawn.every(({ run }) => run === "full");
  const ratios = drawn.every(({ claim: { rule } }) =>
    rule?.kind === "direction" && rule.reference === 1
  );
  return paperFigure(points, {
    id,
    title: "Paper against measured",
    caption: `Hollow: the paper's value. Filled: measured here in the ${
      full ? "recorded full run" : "quick run of this machine"
    }, with the interval of the verdict table. Scales differ: compare signs and order.${left}`,
    claim: "claim",
    paper: "paper",
    measured: "measured",
    low: "low",
    high: "high",
    xAxis: {
      title: ratios ? "ratio" : "difference",
      ...(log ? { scale: "log" as const } : {}),
      ...(unit === "" ? {} : { unit }),
    },
  });
}

/** When, where and with what a result set was made, in one sentence. */
export function provenanceText({ profile, provenance }: ResultSet): string {
  const { startedAt, machine, backend, commit, dirty, versions } = provenance;
  const engine = backend === null
    ? ""
    : `, ${backend.engine} on ${backend.backend}${
      backend.blas === null ? "" : ` with ${backend.blas}`
    }`;
  const state = dirty === true ? " with uncommitted changes" : "";
  const runtime = backend?.runtime ?? versions.node ?? "";
  return `${profile} profile, ${startedAt.slice(0, 10)}, commit ${
    commit.slice(0, 7)
  }${state}, ${machine.cpu} (${machine.cores} cores, ${machine.memoryGb} GB)${engine}${
    runtime === "" ? "" : `, ${runtime}`
  }`;
}
