/**
 * The plain path: one run of a system at a time, factorised anew with the pivots of the central values.
 *
 * It is what the fast path (batch.ts) is checked against, what it turns to for a run that needs pivots of
 * its own, and how systems are run whose elimination is too long to record.
 */
import { dependsOn, type Expression } from "./expression.ts";
import { factorise, type SparseFactors, sparseFactors } from "./linear.ts";
import { demandVector, productRows, solverOf, systemOf } from "./matrix.ts";
import { fixedValues, type Model, valuesWith } from "./model.ts";

/** Relative residual above which a run gets pivots of its own. */
export const RESIDUAL_LIMIT = 1e-10;

/** One run of the system with given values, without allocation. */
export interface Evaluator {
  /** Values in base units; calculated ones follow. The caller sets the inputs. */
  values: Float64Array;
  /** Follows the formulas and solves; results are in `scores` and `contributions`. */
  run(): void;
  /** `[demand * impacts + impact]`. */
  scores: Float64Array;
  /** `[(demand * impacts + impact) * phases + phase]`. */
  contributions: Float64Array;
  phases: string[];
  /** Largest relative residual so far. */
  residual: number;
  repivoted: number;
}

/**
 * An evaluator for some demands.
 *
 * @param inputs indices of the values that the caller sets; default the random ones of the model
 * @param set parameters held at a value, in their units
 */
export function evaluator(
  model: Model,
  demands: Record<string, number>[],
  { inputs = model.random.map(({ index }) => index), set = {} }: {
    inputs?: readonly number[];
    set?: Record<string, number>;
  } = {},
): Evaluator {
  const values = valuesWith(model, set);
  const held = fixedValues(model, set);
  const system = systemOf(model, values);
  // Refuses what is singular by name, before pivots are kept.
  solverOf(system);
  const { A, C, products, processes } = system;
  const n = A.n;
  const impacts = C.length;
  const phases = [...new Set(system.phases)];
  const phaseOf = Int32Array.from(system.phases, (p) => phases.indexOf(p));
  const F = demands.map((demand) => demandVector(products, demand));

  // What follows from what is held at a value stays, unless it depends on what is drawn as well.
  const calculated = model.calculated.filter(({ index }) =>
    !held.has(index) && !inputs.includes(index)
  );
  const varied = new Set(inputs.filter((index) => !held.has(index)));
  for (const { index, expression } of calculated) {
    if (dependsOn(expression, varied)) varied.add(index);
  }
  const varies = (entry: { expression: Expression }) =>
    dependsOn(entry.expression, varied);

  // Entries of A: constant ones stay in `fixed`, random ones are added.
  const rows = productRows(model);
  const positionOf = (row: number, column: number) => {
    for (let p = A.starts[column]; p < A.starts[column + 1]; p++) {
      if (A.rows[p] === row) return p;
    }
    return -1;
  };
  const fixed = new Float64Array(A.values.length);
  const moving: { at: number; evaluate: (v: Float64Array) => number }[] = [];
  for (const entry of model.technosphere) {
    const { evaluate } = entry;
    const at = positionOf(rows[entry.row], entry.column);
    if (varies(entry)) moving.push({ at, evaluate });
    else fixed[at] += evaluate(values);
  }
  // Scales of the central matrix bring all rows to one size; runs keep them.
  const rowScale = new Float64Array(n);
  for (let p = 0; p < A.rows.length; p++) {
    const size = Math.abs(A.values[p]);
    if (size > rowScale[A.rows[p]]) rowScale[A.rows[p]] = size;
  }
  const scale = Float64Array.from(A.rows, (row) => 1 / rowScale[row]);
  const matrix = { ...A, values: A.values.slice() };
  const scaledValues = A.values.map((v, p) => v * scale[p]);
  const scaledF = F.map((f) => f.map((v, i) => v / rowScale[i]));
  const factors: SparseFactors = sparseFactors(
    { ...A, values: scaledValues },
    1e-300,
  );
  const supplies = F.map(() => new Float64Array(n));
  const left = new Float64Array(n);
  const size = new Float64Array(n);

  const burden = C.map(() => new Float64Array(n)); // C B
  const interventions = model.biosphere;
  const bValues = new Float64Array(
    interventions.map((e) => e.evaluate(values)),
  );
  const bMoving = interventions.flatMap((e, i) => varies(e) ? [i] : []);
  const cMoving = model.characterisation.filter(varies);
  const flowRows = Int32Array.from(interventions, ({ row }) => row);
  const columns = Int32Array.from(interventions, ({ column }) => column);
  const factorsC = C.map((c) => c.slice());

  function characterise(): void {
    for (const i of bMoving) bValues[i] = interventions[i].evaluate(values);
    for (const { row, column, evaluate } of cMoving) {
      factorsC[row][column] = evaluate(values);
    }
    for (let i = 0; i < impacts; i++) {
      const [q, c] = [burden[i], factorsC[i]];
      q.fill(0);
      for (let e = 0; e < bValues.length; e++) {
        q[columns[e]] += c[flowRows[e]] * bValues[e];
      }
    }
  }
  characterise();

  /** Relative residual of a supply, as `relativeResidual`, without allocation. */
  function residualOf(s: Float64Array, f: Float64Array): number {
    for (let i = 0; i < n; i++) {
      left[i] = -f[i];
      size[i] = Math.abs(f[i]);
    }
    const { starts, rows: r, values: a } = matrix;
    for (let j = 0; j < n; j++) {
      const x = s[j];
      if (x === 0) continue;
      for (let p = starts[j]; p < starts[j + 1]; p++) {
        const term = a[p] * x;
        left[r[p]] += term;
        size[r[p]] += Math.abs(term);
      }
    }
    let most = 0;
    for (let i = 0; i < n; i++) {
      const share = size[i] === 0 ? 0 : Math.abs(left[i]) / size[i];
      if (!(share <= most)) most = share;
    }
    return most;
  }

  const result: Evaluator = {
    values,
    phases,
    scores: new Float64Array(demands.length * impacts),
    contributions: new Float64Array(demands.length * impacts * phases.length),
    residual: 0,
    repivoted: 0,
    run() {
      for (const [index, value] of held) values[index] = value;
      for (const { index, evaluate } of calculated) {
        values[index] = evaluate(values);
      }
      if (bMoving.length + cMoving.length > 0) characterise();
      let kept = true;
      if (moving.length > 0) {
        matrix.values.set(fixed);
        for (const { at, evaluate } of moving) {
          matrix.values[at] += evaluate(values);
        }
        for (let p = 0; p < scale.length; p++) {
          scaledValues[p] = matrix.values[p] * scale[p];
        }
        kept = factors.refactor(scaledValues);
      }
      let worst = 0;
      for (let d = 0; kept && d < F.length; d++) {
        factors.solveInto(scaledF[d], supplies[d]); // A s = f
        worst = Math.max(worst, residualOf(supplies[d], F[d]));
      }
      if (!kept || !(worst <= RESIDUAL_LIMIT)) {
        result.repivoted++;
        const fresh = factorise(matrix, { method: "dense" });
        F.forEach((f, d) => supplies[d].set(fresh.solve(f)));
        worst = Math.max(...F.map((f, d) => residualOf(supplies[d], f)));
      }
      if (!(worst <= result.residual)) result.residual = worst;
      result.contributions.fill(0);
      for (let d = 0; d < F.length; d++) {
        const s = supplies[d];
        for (let i = 0; i < impacts; i++) {
          const q = burden[i];
          const to = d * impacts + i;
          const base = to * phases.length;
          let sum = 0;
          for (let j = 0; j < processes.length; j++) { // (C B)_ij s_j
            const part = q[j] * s[j];
            result.contributions[base + phaseOf[j]] += part;
            sum += part;
          }
          result.scores[to] = sum;
        }
      }
    },
  };
  return result;
}
