/**
 * A satisfiability solver for circuits: conflict-driven clause learning.
 *
 * N. Een, N. Sorensson, "An Extensible SAT-solver", SAT 2003 (MiniSat): two watched literals, first
 * unique implication point, activities, restarts, assumptions. Written for many small questions about
 * one growing circuit: clauses stay between calls, and a call decides only the variables it is given
 * (the cone of the question). Gates outside follow from their inputs, so once the cone is assigned
 * without a conflict the whole can be.
 *
 *   variable v; literal 2 v for v, 2 v + 1 for not v
 *
 * Scope: no proofs are written, no preprocessing. Compared with logic-solver and with truth tables in
 * the tests.
 */

interface Clause {
  literals: number[];
  /** Number of decision levels among the literals when learnt; 0 for given clauses. */
  glue: number;
  deleted: boolean;
}

export type SatAnswer = "satisfiable" | "unsatisfiable" | "unknown";

export interface SolveOptions {
  /** Variables to decide; all by default. Must determine all others through the clauses. */
  decide?: readonly number[];
  /** Gives up with `"unknown"` after so many conflicts; no limit by default. */
  conflicts?: number;
}

/** Factor by which old conflicts count less in a variable's activity. Source: MiniSat's default. */
const DECAY = 0.95;
/** Conflicts between restarts, times the Luby sequence. Source: MiniSat's default. */
const RESTART = 100;
/** Learnt clauses kept before the worse half is dropped, our choice. */
const MAX_LEARNT = 8000;

/** Term i (from 0) of 1, 1, 2, 1, 1, 2, 4, 1 ... */
export function luby(i: number): number {
  let size = 1;
  while (size < i + 1) size = 2 * size + 1;
  while (size !== i + 1) {
    size = (size - 1) / 2;
    if (i >= size) i -= size;
  }
  return (size + 1) / 2;
}

export class SatSolver {
  /** By literal: 1 true, -1 false, 0 open. */
  private values: number[] = [];
  private levels: number[] = [];
  private reasons: (Clause | undefined)[] = [];
  private phases: number[] = [];
  private activity: number[] = [];
  /** Clauses by a literal they watch, visited when it becomes false. */
  private watches: Clause[][] = [];
  private learnt: Clause[] = [];
  private trail: number[] = [];
  private levelStarts: number[] = [];
  private head = 0;
  private bump = 1;
  private contradiction = false;
  /** Binary heap of open variables by activity, and the place of each, -1 for outside. */
  private heap: number[] = [];
  private place: number[] = [];
  private decidable: number[] = [];
  private question = 0;
  private seen: number[] = [];
  private model: number[] = [];
  /** Conflicts in all calls. */
  conflicts = 0;

  get variables(): number {
    return this.levels.length;
  }

  addVariable(): number {
    this.values.push(0, 0);
    this.watches.push([], []);
    this.reasons.push(undefined);
    this.phases.push(1);
    this.activity.push(0);
    this.place.push(-1);
    this.decidable.push(0);
    this.seen.push(0);
    return this.levels.push(0) - 1;
  }

  /** Adds a clause; allowed between calls of `solve`. */
  addClause(literals: readonly number[]): void {
    const kept: number[] = [];
    for (const literal of new Set(literals)) {
      if (this.values[literal] > 0 || kept.includes(literal ^ 1)) return;
      if (this.values[literal] === 0) kept.push(literal);
    }
    if (kept.length === 0) this.contradiction = true;
    else if (kept.length === 1) {
      this.assign(kept[0], undefined);
      if (this.propagate() !== undefined) this.contradiction = true;
    } else this.attach({ literals: kept, glue: 0, deleted: false });
  }

  private attach(clause: Clause): void {
    this.watches[clause.literals[0]].push(clause);
    this.watches[clause.literals[1]].push(clause);
  }

  private assign(literal: number, reason: Clause | undefined): void {
    this.values[literal] = 1;
    this.values[literal ^ 1] = -1;
    const v = literal >> 1;
    this.levels[v] = this.levelStarts.length;
    this.reasons[v] = reason;
    this.trail.push(literal);
  }

  /** Assigns what follows; a clause without a true or open literal, if one is met. */
  private propagate(): Clause | undefined {
    const { values, trail } = this;
    while (this.head < trail.length) {
      const falsified = trail[this.head++] ^ 1;
      const list = this.watches[falsified];
      let kept = 0;
      for (let i = 0; i < list.length; i++) {
        const clause = list[i];
        if (clause.deleted) continue;
        const { literals } = clause;
        if (literals[0] === falsified) {
          literals[0] = literals[1];
          literals[1] = falsified;
        }
        if (values[literals[0]] > 0) {
          list[kept++] = clause;
          continue;
        }
        let k = 2;
        while (k < literals.length && values[literals[k]] < 0) k++;
        if (k < literals.length) {
          literals[1] = literals[k];
          literals[k] = falsified;
          this.watches[literals[1]].push(clause);
          continue;
        }
        list[kept++] = clause;
        if (values[literals[0]] < 0) {
          for (i++; i < list.length; i++) list[kept++] = list[i];
          list.length = kept;
          this.head = trail.length;
          return clause;
        }
        this.assign(literals[0], clause);
      }
      list.length = kept;
    }
    return undefined;
  }

  private backtrack(level: number): void {
    if (this.levelStarts.length <= level) return;
    const start = this.levelStarts[level];
    for (let i = this.trail.length - 1; i >= start; i--) {
      const literal = this.trail[i];
      const v = literal >> 1;
      this.values[literal] = this.values[literal ^ 1] = 0;
      this.phases[v] = literal & 1;
      if (this.decidable[v] === this.question && this.place[v] < 0) {
        this.insert(v);
      }
    }
    this.trail.length = start;
    this.head = start;
    this.levelStarts.length = level;
  }

  // -- heap

  private swap(i: number, j: number): void {
    const { heap, place } = this;
    [heap[i], heap[j]] = [heap[j], heap[i]];
    place[heap[i]] = i;
    place[heap[j]] = j;
  }

  private up(i: number): void {
    const { heap, activity } = this;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (activity[heap[parent]] >= activity[heap[i]]) return;
      this.swap(i, parent);
      i = parent;
    }
  }

  private insert(v: number): void {
    this.place[v] = this.heap.push(v) - 1;
    this.up(this.place[v]);
  }

  private pop(): number {
    const { heap, activity } = this;
    const top = heap[0];
    this.swap(0, heap.length - 1);
    heap.pop();
    this.place[top] = -1;
    for (let i = 0;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) return top;
      if (
        child + 1 < heap.length &&
        activity[heap[child + 1]] > activity[heap[child]]
      ) child++;
      if (activity[heap[i]] >= activity[heap[child]]) return top;
      this.swap(i, child);
      i = child;
    }
  }

  private touch(v: number): void {
    this.activity[v] += this.bump;
    if (this.activity[v] > 1e100) {
      this.activity = this.activity.map((a) => a * 1e-100);
      this.bump *= 1e-100;
    }
    if (this.place[v] >= 0) this.up(this.place[v]);
  }

  // -- conflicts

  /** The clause learnt from a conflict, its asserting literal first, and the level to return to. */
  private analyse(conflict: Clause): { literals: number[]; level: number } {
    const { seen, trail, levels } = this;
    const current = this.levelStarts.length;
    const literals = [0];
    const marked: number[] = [];
    let open = 0;
    let at = trail.length;
    let literal = -1;
    for (let clause: Clause | undefined = conflict;;) {
      for (const other of clause!.literals) {
        const v = other >> 1;
        if (other === literal || seen[v] || levels[v] === 0) continue;
        seen[v] = 1;
        marked.push(v);
        this.touch(v);
        if (levels[v] === current) open++;
        else literals.push(other);
      }
      do at--; while (!seen[trail[at] >> 1]);
      literal = trail[at];
      clause = this.reasons[literal >> 1];
      if (--open === 0) break;
    }
    literals[0] = literal ^ 1;
    // a literal that the others imply at once adds nothing
    const needed = literals.filter((l, i) => {
      const reason = this.reasons[l >> 1];
      return i === 0 || reason === undefined ||
        reason.literals.some((other) =>
          other !== (l ^ 1) && !seen[other >> 1] && levels[other >> 1] > 0
        );
    });
    for (const v of marked) seen[v] = 0;
    let level = 0;
    for (let i = 1; i < needed.length; i++) {
      if (levels[needed[i] >> 1] > level) {
        level = levels[needed[i] >> 1];
        [needed[1], needed[i]] = [needed[i], needed[1]];
      }
    }
    return { literals: needed, level };
  }

  private learn(conflict: Clause): void {
    const { literals, level } = this.analyse(conflict);
    const glue = new Set(literals.map((l) => this.levels[l >> 1])).size;
    this.backtrack(level);
    if (literals.length === 1) this.assign(literals[0], undefined);
    else {
      const clause = { literals, glue, deleted: false };
      this.attach(clause);
      this.learnt.push(clause);
      this.assign(literals[0], clause);
    }
    this.bump /= DECAY;
  }

  /** Drops the half of the learnt clauses with most levels; only when nothing is decided. */
  private forget(): void {
    if (this.learnt.length < MAX_LEARNT) return;
    this.learnt.sort((a, b) => a.glue - b.glue);
    for (const clause of this.learnt.splice(MAX_LEARNT / 2)) {
      clause.deleted = true;
    }
  }

  /**
   * Whether the clauses can all be true together with the assumptions.
   *
   * @param assumptions Literals that must be true in this call.
   */
  solve(
    assumptions: readonly number[] = [],
    { decide, conflicts = Infinity }: SolveOptions = {},
  ): SatAnswer {
    if (this.contradiction) return "unsatisfiable";
    this.question++;
    for (const v of this.heap) this.place[v] = -1;
    this.heap.length = 0;
    const count = decide?.length ?? this.variables;
    for (let i = 0; i < count; i++) {
      const v = decide?.[i] ?? i;
      this.decidable[v] = this.question;
      if (this.values[2 * v] === 0) this.insert(v);
    }
    const limit = this.conflicts + conflicts;
    let restart = 0;
    let until = this.conflicts + RESTART;
    this.forget();
    for (;;) {
      const conflict = this.propagate();
      if (conflict !== undefined) {
        this.conflicts++;
        if (this.levelStarts.length === 0) {
          this.contradiction = true;
          return "unsatisfiable";
        }
        this.learn(conflict);
        continue;
      }
      if (this.conflicts >= limit) {
        this.backtrack(0);
        return "unknown";
      }
      if (this.conflicts >= until) {
        until = this.conflicts + RESTART * luby(++restart);
        this.backtrack(0);
        this.forget();
      }
      let next = -1;
      while (this.levelStarts.length < assumptions.length) {
        const literal = assumptions[this.levelStarts.length];
        if (this.values[literal] < 0) {
          this.backtrack(0);
          return "unsatisfiable";
        }
        if (this.values[literal] === 0) {
          next = literal;
          break;
        }
        this.levelStarts.push(this.trail.length);
      }
      while (next < 0 && this.heap.length > 0) {
        const v = this.pop();
        if (this.values[2 * v] === 0) next = 2 * v + this.phases[v];
      }
      if (next < 0) {
        this.model = this.values.slice();
        this.backtrack(0);
        return "satisfiable";
      }
      this.levelStarts.push(this.trail.length);
      this.assign(next, undefined);
    }
  }

  /** Value of a variable in the last solution; variables that were not assigned are false. */
  modelValue(variable: number): boolean {
    return this.model[2 * variable] > 0;
  }
}
