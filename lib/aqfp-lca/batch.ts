/**
 * Many runs of a system at a time: what varies is reckoned in blocks, what does not, once.
 *
 * Formulas, elimination, substitution and residual are recorded on a tape in terms of the inputs, with
 * pivots chosen at the central values: on the diagonal where that is stable, and of those the one which leaves the fewest operations that
 * vary with the runs (the rule of H. M. Markowitz, "The elimination form of the inverse and its
 * application to linear programming", Management Science 3 (1957), counted for the varying entries).
 * Processes without inputs are thereby eliminated first, while recording.
 *
 * A run whose residual or scores are not good enough is done again on the plain path, with pivots of its
 * own, and so is every run of a system whose elimination would be too long to record.
 */
import { demandVector, productRows, solverOf, systemOf } from "./matrix.ts";
import {
  fixedValues,
  type Model,
  parameterIndex,
  valuesWith,
} from "./model.ts";
import { type Evaluator, evaluator, RESIDUAL_LIMIT } from "./plain.ts";
import { BLOCK, type Node, type Program, Tape } from "./tape.ts";

/** Share of its column's largest entry that a pivot has at least. */
const STABLE_SHARE = 0.05;

/** Operations that are recorded at most; a longer elimination is left to the plain path. */
const LONGEST = 200_000;

/** An elimination that is too long to record. */
class TooLong extends Error {}

interface TapeEntry {
  row: number;
  column: number;
  node: Node;
}

/** Largest magnitude of each row at the centre. */
function rowSizes(tape: Tape, n: number, entries: TapeEntry[]): Float64Array {
  const sizes = new Float64Array(n);
  for (const { row, node } of entries) {
    sizes[row] = Math.max(sizes[row], Math.abs(tape.central[node]));
  }
  return sizes;
}

/** Supplies s with A s = f for every right side, on the tape. */
function recordSolve(
  tape: Tape,
  n: number,
  entries: TapeEntry[],
  F: Float64Array[],
): Node[][] {
  const rows: Map<number, Node>[] = Array.from({ length: n }, () => new Map());
  const columns: Set<number>[] = Array.from({ length: n }, () => new Set());
  for (const { row, column, node } of entries) {
    rows[row].set(column, node);
    columns[column].add(row);
  }
  const sides = F.map((f) => Array.from(f, (v) => tape.constant(v)));
  const sizes = rowSizes(tape, n, entries);
  const moving = (node: Node) => !tape.isConstant[node];
  const open = new Set(rows.keys()); // columns

  /** The pivot that leaves the least to reckon in every run. */
  const choose = (): [row: number, column: number] => {
    let best: [number, number] | undefined;
    let lowest = Infinity;
    for (const column of open) {
      const sizeOf = (row: number) =>
        Math.abs(tape.central[rows[row].get(column)!]) / sizes[row];
      let largest = 0;
      let movingBelow = 0;
      for (const row of columns[column]) {
        largest = Math.max(largest, sizeOf(row));
        if (moving(rows[row].get(column)!)) movingBelow++;
      }
      if (largest === 0) continue;
      // The process that makes the product: elimination along the diagonal of a technosphere, outputs +,
      // inputs -, adds numbers of one sign only and loses no digits.
      const own = columns[column].has(column) &&
        sizeOf(column) >= STABLE_SHARE * largest;
      for (const row of own ? [column] : columns[column]) {
        if (!(sizeOf(row) >= STABLE_SHARE * largest)) continue;
        const pivot = rows[row].get(column)!;
        const all = (columns[column].size - 1) * (rows[row].size - 1);
        let movingBeside = 0;
        for (const node of rows[row].values()) {
          if (moving(node)) movingBeside++;
        }
        const varies = moving(pivot);
        const still = varies ? 0 : (columns[column].size - 1 - movingBelow) *
          (rows[row].size - 1 - movingBeside);
        const cost = all - still + all / 1024 + Number(varies) / 2048;
        if (cost < lowest) {
          lowest = cost;
          best = [row, column];
        }
      }
    }
    if (best === undefined) throw new TooLong("no pivot is stable");
    return best;
  };

  const steps: { column: number; row: number; pivot: Node }[] = [];
  for (let k = 0; k < n; k++) {
    const [row, column] = choose();
    const pivot = rows[row].get(column)!;
    rows[row].delete(column);
    columns[column].delete(row);
    open.delete(column);
    steps.push({ column, row, pivot });
    for (const below of columns[column]) {
      const factor = tape.binary("/", rows[below].get(column)!, pivot);
      rows[below].delete(column);
      for (const [j, node] of rows[row]) { // a_ij -= a_iq / a_pq a_pj
        const old = rows[below].get(j) ?? tape.constant(0);
        const entry = tape.binary("-", old, tape.binary("*", factor, node));
        if (tape.isZero(entry)) {
          rows[below].delete(j);
          columns[j].delete(below);
        } else {
          rows[below].set(j, entry);
          columns[j].add(below);
        }
      }
      for (const side of sides) {
        side[below] = tape.binary(
          "-",
          side[below],
          tape.binary("*", factor, side[row]),
        );
      }
    }
    for (const j of rows[row].keys()) columns[j].delete(row);
    if (tape.instructions.length > LONGEST) {
      throw new TooLong("its elimination is too long");
    }
  }
  return sides.map((side) => {
    const s = new Array<Node>(n);
    for (const { column, row, pivot } of steps.reverse()) {
      let value = side[row];
      for (const [j, node] of rows[row]) {
        value = tape.binary("-", value, tape.binary("*", node, s[j]));
      }
      s[column] = tape.binary("/", value, pivot);
    }
    steps.reverse();
    return s;
  });
}

/** max_i |A s - f|_i / (|A| |s| + |f|)_i. */
function recordResidual(
  tape: Tape,
  entries: TapeEntry[],
  s: Node[],
  f: Float64Array,
): Node {
  const left = Array.from(f, (v) => tape.constant(-v));
  const size = Array.from(f, (v) => tape.constant(Math.abs(v)));
  for (const { row, column, node } of entries) {
    const term = tape.binary("*", node, s[column]);
    left[row] = tape.binary("+", left[row], term);
    size[row] = tape.binary("+", size[row], tape.abs(term));
  }
  return left.reduce(
    (most, node, i) =>
      // Rows in which nothing varies were verified with the central system.
      tape.isConstant[node]
        ? most
        : tape.binary("max", most, tape.binary("/", tape.abs(node), size[i])),
    tape.constant(0),
  );
}

/** Sums of nodes by row and column. */
function gather(
  tape: Tape,
  entries: TapeEntry[],
): TapeEntry[] {
  const byPlace = new Map<string, TapeEntry>();
  for (const { row, column, node } of entries) {
    const place = `${row} ${column}`;
    const old = byPlace.get(place)?.node;
    byPlace.set(place, {
      row,
      column,
      node: old === undefined ? node : tape.binary("+", old, node),
    });
  }
  return [...byPlace.values()].filter(({ node }) => !tape.isZero(node));
}

/** Scores of every run of a block, for some demands. */
export interface BatchEvaluator {
  /** Values that come with each run, in base units: input `i` of run `r` at [i * BLOCK + r]. */
  inputs: Float64Array;
  /** Run `r` of a demand's impact at [(demand * impacts + impact) * BLOCK + r]. */
  scores: Float64Array;
  /** At [((demand * impacts + impact) * phases + phase) * BLOCK + r]. */
  contributions: Float64Array;
  phases: string[];
  /** Operations of a run; 0 where every run takes the plain path. */
  operations: number;
  /** Largest relative residual so far. */
  residual: number;
  /** Runs that took the plain path. */
  repivoted: number;
  /** Runs the first `count` runs. */
  run(count: number): void;
}

/** The program of a model for some demands; its outputs are scores, contributions, residuals. */
function record(
  model: Model,
  demands: Record<string, number>[],
  inputs: readonly number[],
  set: Record<string, number>,
): Program | undefined {
  const { inventory, technosphere, biosphere, characterisation } = model;
  const central = valuesWith(model, set);
  const held = fixedValues(model, set);
  const tape = new Tape();
  const values = new Array<Node>(central.length);
  for (const index of inputs) values[index] = tape.input(central[index]);
  const follows = new Map(model.calculated.map((c) => [c.index, c]));
  central.forEach((value, index) => {
    if (held.has(index)) values[index] = tape.constant(value);
    else if (values[index] === undefined && !follows.has(index)) {
      values[index] = tape.constant(value);
    }
  });
  for (const { index, expression } of model.calculated) {
    values[index] ??= tape.record(expression, values);
  }
  const rowOf = productRows(model);
  const n = inventory.processes.length;
  const A = gather(
    tape,
    technosphere.map(({ row, column, expression }) => ({
      row: rowOf[row],
      column,
      node: tape.record(expression, values),
    })),
  );
  const nodes = (entries: typeof biosphere) =>
    gather(
      tape,
      entries.map(({ row, column, expression }) => ({
        row,
        column,
        node: tape.record(expression, values),
      })),
    );
  const [B, C] = [nodes(biosphere), nodes(characterisation)];
  const products = inventory.processes.map(({ product }) => product);
  const F = demands.map((demand) => demandVector(products, demand));
  const phases = phasesOf(model);
  const burdens = inventory.impacts.map((_, i) => { // (C B)_ij
    const q = new Array<Node>(n).fill(tape.constant(0));
    for (const { column: flow, node: factor } of C.filter((c) => c.row === i)) {
      for (const { row, column, node } of B) {
        if (row !== flow) continue;
        q[column] = tape.binary(
          "+",
          q[column],
          tape.binary("*", factor, node),
        );
      }
    }
    return q;
  });
  let supplies: Node[][];
  try {
    supplies = recordSolve(tape, n, A, F);
  } catch (error) {
    if (error instanceof TooLong) return undefined;
    throw error;
  }
  const parts = supplies.flatMap((s) =>
    burdens.map((q) =>
      phases.map((phase) =>
        tape.sum( // (C B)_ij s_j
          inventory.processes.flatMap((process, j) =>
            process.phase === phase ? [tape.binary("*", q[j], s[j])] : []
          ),
        )
      )
    )
  );
  return tape.compile([
    ...parts.map((byPhase) => tape.sum(byPhase)),
    ...parts.flat(),
    ...supplies.map((s, d) => recordResidual(tape, A, s, F[d])),
  ]);
}

function phasesOf(model: Model): string[] {
  return [...new Set(model.inventory.processes.map(({ phase }) => phase))];
}

/**
 * An evaluator of blocks of runs.
 *
 * @param inputs indices of the values that come with each run; default the random ones of the model
 * @param set parameters held at a value, in their units
 */
export function batchEvaluator(
  model: Model,
  demands: Record<string, number>[],
  { inputs = model.random.map(({ index }) => index), set = {} }: {
    inputs?: readonly number[];
    set?: Record<string, number>;
  } = {},
): BatchEvaluator {
  // Refuses what is singular by name.
  solverOf(systemOf(model, valuesWith(model, set)));
  const impacts = model.inventory.impacts.length;
  const phases = phasesOf(model);
  const scores = new Float64Array(demands.length * impacts * BLOCK);
  const contributions = new Float64Array(scores.length * phases.length);
  const program = record(model, demands, inputs, set);
  let plain: Evaluator | undefined;
  const own = program?.inputs ?? new Float64Array(inputs.length * BLOCK);
  const count = demands.length * impacts;
  const outputs = program?.outputs ?? [];
  const residuals = outputs.slice(count * (1 + phases.length));

  /** Run `r` with pivots of its own. */
  function runPlain(r: number): void {
    plain ??= evaluator(model, demands, { inputs, set });
    inputs.forEach((index, i) => plain!.values[index] = own[i * BLOCK + r]);
    plain.run();
    for (let k = 0; k < count; k++) scores[k * BLOCK + r] = plain.scores[k];
    for (let k = 0; k < count * phases.length; k++) {
      contributions[k * BLOCK + r] = plain.contributions[k];
    }
    result.repivoted++;
    result.residual = Math.max(result.residual, plain.residual);
  }

  const result: BatchEvaluator = {
    inputs: own,
    scores,
    contributions,
    phases,
    operations: program?.length ?? 0,
    residual: 0,
    repivoted: 0,
    run(runs) {
      let done = false;
      if (program !== undefined) {
        try {
          program.run(runs);
          done = true;
        } catch (error) {
          // A function refused a value: the plain path says in which run.
          if (!(error instanceof RangeError)) throw error;
        }
      }
      if (!done) {
        for (let r = 0; r < runs; r++) {
          try {
            runPlain(r);
          } catch (error) {
            throw new RunError(r, (error as Error).message);
          }
        }
        return;
      }
      for (let k = 0; k < count; k++) scores.set(outputs[k], k * BLOCK);
      for (let k = 0; k < count * phases.length; k++) {
        contributions.set(outputs[count + k], k * BLOCK);
      }
      for (let r = 0; r < runs; r++) {
        let worst = 0;
        for (const residual of residuals) {
          worst = Math.max(worst, residual[r]);
        }
        if (worst <= RESIDUAL_LIMIT) {
          if (worst > result.residual) result.residual = worst;
          continue;
        }
        try {
          runPlain(r);
        } catch (error) {
          throw new RunError(r, (error as Error).message);
        }
      }
    },
  };
  return result;
}

/** A run of a block that could not be done. */
export class RunError extends RangeError {
  readonly run: number;
  constructor(run: number, message: string) {
    super(message);
    this.run = run;
  }
}

/**
 * Scores of many settings of some parameters: `scores[demand][impact]`, setting by setting.
 *
 * @param settings values of each parameter that varies, in its unit; all of one length
 * @param set parameters held at a value, in their units
 * @throws RangeError for a setting that cannot be solved or has no finite score, with its number
 *
 * @example
 * const demands = [{ "AQFP service": 1 }];
 * const [[kwh]] = sweep(aqfpLca.scenarioModel(), demands, { years: [1, 2, 3] });
 * Math.abs(kwh[2] - kwh[1] - (kwh[1] - kwh[0])) < 1e-12; // true
 */
export function sweep(
  model: Model,
  demands: Record<string, number>[],
  settings: Record<string, ArrayLike<number>>,
  set: Record<string, number> = {},
): Float64Array[][] {
  const columns = Object.values(settings);
  const runs = columns.length === 0 ? 1 : columns[0].length;
  for (const [name, { length }] of Object.entries(settings)) {
    if (length !== runs || Object.hasOwn(set, name)) {
      throw new RangeError(
        `Cannot vary the parameter "${name}" as all must have as many values and none be held: ${length} values instead of ${runs}${
          Object.hasOwn(set, name) ? ", held as well" : ""
        }`,
      );
    }
  }
  const inputs = Object.keys(settings).map((name) =>
    parameterIndex(model, name)
  );
  const system = batchEvaluator(model, demands, { inputs, set });
  const impacts = model.inventory.impacts;
  const result = demands.map(() => impacts.map(() => new Float64Array(runs)));
  for (let start = 0; start < runs; start += BLOCK) {
    const count = Math.min(BLOCK, runs - start);
    columns.forEach((values, i) => {
      const scale = model.scales[inputs[i]];
      for (let r = 0; r < count; r++) {
        system.inputs[i * BLOCK + r] = values[start + r] * scale;
      }
    });
    const name = (r: number) => `setting ${start + r + 1} of ${runs}`;
    try {
      system.run(count);
    } catch (error) {
      if (!(error instanceof RunError)) throw error;
      throw new RangeError(`Cannot solve ${name(error.run)}: ${error.message}`);
    }
    result.flat().forEach((scores, k) => {
      for (let r = 0; r < count; r++) {
        const score = system.scores[k * BLOCK + r];
        if (!Number.isFinite(score)) {
          throw new RangeError(
            `Cannot use ${name(r)} as its score of "${
              impacts[k % impacts.length].name
            }" must be finite: ${score}`,
          );
        }
        scores[start + r] = score;
      }
    });
  }
  return result;
}
