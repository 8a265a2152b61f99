/**
 * Smallest trees of buffers and splitters when a connection may hop over clock phases.
 *
 * R. S. Aviles, P. A. Beerel, phase skipping for AQFP circuits (ICCD 2024; read: the repository
 * robertsaviles/AQFP-Phase-Skipping, which states "8 phases, 1 skip"): with a clock of more phases a
 * cell's output outlasts the next phase, so that a connection may lead one to s levels up. A chain over
 * a gap of g levels then needs ceil(g / s) - 1 buffers in place of g - 1. The algorithms are ours.
 *
 * | symbol | identifier | meaning |
 * | --- | --- | --- |
 * | s | reach | most levels of one hop, from 1 |
 * | c | capacity | outputs that a splitter can have |
 * | x | level | level whose cells are decided |
 * | e | edges | connections that wait for a driver at x or below |
 *
 * With s = 1 every edge must be driven from the level below and the count is the plain recursion of
 * `levels.ts`. With longer hops an edge at level l may wait until level l - s, and which cells to place
 * earlier so that fewer, fuller ones result is a choice: a sweep from the farthest sink to the source keeps
 * every choice that no other dominates. Whether a tree exists at all does not depend on s, as buffers
 * can fill any long hop.
 */

/** Count of a tree that cannot be built: a sink is too near, or too many are near. */
export const INFEASIBLE = -1;

/** One buffer or splitter of a tree. */
export interface TreeCell {
  level: number;
  /** What it drives: i is sink i, ~i is cell i of the tree. */
  loads: number[];
}

/** Choices kept at a level; exact while there are no more. */
const MAX_CHOICES = 64;

/** The same for trees with more than `MANY_SINKS` sinks, where the count is an upper bound. */
const MAX_CHOICES_MANY = 4;
const MANY_SINKS = 24;

/** Cells more than necessary that are tried at one level: all that make sense for `MANY_SINKS` sinks. */
const MAX_EARLY = 6;

/** A choice of cells for all levels above x. */
interface Choice {
  cells: number;
  /** Edges that wait, by level: those at x + 1 + j. */
  waiting: number[]; // [s]
  edges: number;
  /** Cells at the last level decided. */
  placed: number;
  before?: Choice;
}

/**
 * Buffers of a chain over a gap of g levels.
 *
 *   B = ceil(g / s) - 1
 */
export function chainCells(gap: number, reach: number): number {
  return gap < 1 ? INFEASIBLE : Math.ceil(gap / reach) - 1;
}

/**
 * Cells of the smallest tree for at most c sinks: one cell drives all that wait, as far down as the
 * farthest of them allows.
 *
 * No cell needs to share a level with another, since one can drive all edges; and the lower it stands,
 * the more sinks it catches and the farther its own driver may be.
 */
function fewSinksCells(
  source: number,
  sinks: ArrayLike<number>,
  k: number,
  reach: number,
): number {
  const nearest = sinks[k - 1];
  if (nearest < source + (k > 1 ? 2 : 1)) return INFEASIBLE;
  let cells = 0;
  let farthest = sinks[0];
  for (let i = 1; i < k;) {
    // The cell at farthest - s, but above the source and below some sink that it must share with.
    const level = farthest - reach;
    if (level <= source) return cells + 1; // one splitter just below the nearest sink
    while (i < k && sinks[i] > level) i++;
    farthest = level;
    cells++;
  }
  return cells + chainCells(farthest - source, reach);
}

/** Whether choice a can do what choice b can, with no more cells. */
function dominates(a: Choice, b: Choice): boolean {
  if (a.cells > b.cells) return false;
  // Edges can only be driven from x on down, so lower ones are never worse: compare from the top.
  let [sumA, sumB] = [0, 0];
  for (let j = a.waiting.length - 1; j >= 0; j--) {
    sumA += a.waiting[j];
    sumB += b.waiting[j];
    if (sumA > sumB) return false;
  }
  return true;
}

/** The choices that no other dominates, most promising first, at most `most`. */
function undominated(choices: Choice[], capacity: number, most: number) {
  // A full cell turns c edges into one; what counts is the room that is wasted.
  const score = ({ cells, edges }: Choice) => cells + edges / (capacity - 1);
  choices.sort((a, b) =>
    score(a) - score(b) || a.cells - b.cells || a.placed - b.placed
  );
  const kept: Choice[] = [];
  for (const choice of choices) {
    if (kept.length === most) break;
    if (kept.some((other) => dominates(other, choice))) continue;
    kept.push(choice);
  }
  // A later one may still dominate an earlier one that has a worse count but a better score.
  return kept.filter((a) => !kept.some((b) => b !== a && strictly(b, a)));
}

function strictly(a: Choice, b: Choice): boolean {
  return dominates(a, b) && !dominates(b, a);
}

/** The choice with `placed` cells at level x, and `sinksHere` sinks at x that join what waits. */
function placeCells(
  before: Choice,
  placed: number,
  sinksHere: number,
  capacity: number,
): Choice {
  const s = before.waiting.length;
  const waiting = new Array<number>(s);
  let room = placed * capacity;
  let edges = placed + sinksHere;
  for (let j = s - 1; j >= 0; j--) { // the most urgent first
    const taken = Math.min(room, before.waiting[j]);
    room -= taken;
    const left = before.waiting[j] - taken;
    if (j + 1 < s) waiting[j + 1] = left;
    edges += left;
  }
  waiting[0] = placed + sinksHere;
  return { cells: before.cells + placed, waiting, edges, placed, before };
}

/**
 * The best choice of cells for all levels between the source and its sinks; undefined if none exists.
 *
 * @param sinks Levels that fall or stay
 */
function bestChoice(
  source: number,
  sinks: ArrayLike<number>,
  k: number,
  capacity: number,
  reach: number,
): Choice | undefined {
  // One good choice per level first: what cannot become better than its result need not be kept.
  const quick = sweep(source, sinks, k, capacity, reach, { most: 1 });
  const fewest = Math.max(
    Math.ceil((k - 1) / (capacity - 1)),
    chainCells(sinks[0] - source, reach),
  );
  if (quick?.cells === fewest) return quick;
  const most = k > MANY_SINKS ? MAX_CHOICES_MANY : MAX_CHOICES;
  const limit = quick?.cells;
  return sweep(source, sinks, k, capacity, reach, { most, limit }) ?? quick;
}

/** Fewest cells that a choice needs below x: each turns c edges into one, and the farthest needs a chain. */
function cellsToCome(
  { waiting, edges }: Choice,
  x: number,
  sinksToCome: number,
  capacity: number,
): number {
  let j = waiting.length - 1;
  while (j > 0 && waiting[j] === 0) j--;
  return Math.max(
    Math.ceil((edges + sinksToCome - 1) / (capacity - 1)),
    chainCells(x + j, waiting.length),
  );
}

/** The best choice with fewer than `limit` cells, of at most `most` kept per level. */
function sweep(
  source: number,
  sinks: ArrayLike<number>,
  k: number,
  capacity: number,
  reach: number,
  { most, limit = Infinity }: { most: number; limit?: number },
): Choice | undefined {
  if (sinks[k - 1] <= source) return undefined;
  const top = sinks[0];
  const sinksAt = new Int32Array(top - source + 1); // by level above the source
  for (let i = 0; i < k; i++) sinksAt[sinks[i] - source]++;
  // Most edges that can come together at a level and still reach the source:
  // f(1) = 1, f(x) = c (f(x - 1) - sinks at x - 1)
  const mostEdges = new Float64Array(top - source + 1);
  mostEdges[1] = 1;
  for (let x = 2; x < mostEdges.length; x++) {
    mostEdges[x] = Math.min(
      capacity * (mostEdges[x - 1] - sinksAt[x - 1]),
      capacity * k,
    );
  }
  if (mostEdges.some((most, x) => x > 0 && most < sinksAt[x])) return undefined;

  const waiting = new Array<number>(reach).fill(0);
  waiting[0] = sinksAt[top - source];
  let choices: Choice[] = [{ cells: 0, waiting, edges: waiting[0], placed: 0 }];
  let sinksToCome = k - waiting[0];
  for (let x = top - source - 1; x >= 1; x--) {
    sinksToCome -= sinksAt[x];
    const next: Choice[] = [];
    for (const choice of choices) {
      const due = choice.waiting[reach - 1];
      let least = Math.ceil(due / capacity);
      // Each cell takes up to c edges and leaves one.
      const excess = choice.edges + sinksAt[x] - mostEdges[x];
      if (excess > 0) {
        least = Math.max(least, Math.ceil(excess / (capacity - 1)));
      }
      const last = Math.min(
        Math.ceil(choice.edges / capacity),
        least + MAX_EARLY,
      );
      for (let placed = least; placed <= last; placed++) {
        const made = placeCells(choice, placed, sinksAt[x], capacity);
        if (made.edges > mostEdges[x]) continue;
        const cells = made.cells + cellsToCome(made, x, sinksToCome, capacity);
        if (cells < limit) next.push(made);
      }
    }
    choices = next.length > 1 ? undominated(next, capacity, most) : next;
  }
  let best: Choice | undefined;
  for (const choice of choices) {
    if (choice.edges !== 1) continue;
    if (best === undefined || choice.cells < best.cells) best = choice;
  }
  return best;
}

/**
 * Buffers and splitters of the smallest tree from a source to its sinks when a connection may lead one
 * to s levels up.
 *
 * A cell at level x drives up to c of the edges at x + 1 ... x + s and becomes an edge at x itself; the
 * source drives one. Taking the most urgent edges, those of the highest levels, is never worse.
 * Exact for up to 24 sinks as far as tried against brute force; above, an upper bound.
 *
 * @param sinks Levels that fall or stay; the first k are the sinks
 * @returns The number of cells, or `INFEASIBLE`
 *
 * @example
 * // A buffer at 5 for 9, a splitter at 1 for it and 5, 5.
 * skippingTreeCells(0, [9, 5, 5], 3, 4, 4); // 2
 */
export function skippingTreeCells(
  source: number,
  sinks: ArrayLike<number>,
  k: number,
  capacity: number,
  reach: number,
): number {
  if (k === 0) return 0;
  if (k <= capacity) return fewSinksCells(source, sinks, k, reach);
  return bestChoice(source, sinks, k, capacity, reach)?.cells ?? INFEASIBLE;
}

/**
 * The cells of the tree that `skippingTreeCells` counts, from the farthest to the one that the source
 * drives; empty where the source drives its only sink.
 *
 * @param sinks Levels that fall or stay
 * @throws RangeError if there is no such tree
 */
export function skippingTree(
  source: number,
  sinks: ArrayLike<number>,
  capacity: number,
  reach: number,
): TreeCell[] {
  const best = bestChoice(source, sinks, sinks.length, capacity, reach);
  if (best === undefined) {
    throw new RangeError(
      `Cannot build a tree as its sinks must leave room for splitters: source at ${source}, sinks at ${
        Array.from(sinks).join(", ")
      }, capacity ${capacity}`,
    );
  }
  const placed: number[] = []; // from the level after the source on
  for (let at: Choice = best; at.before !== undefined; at = at.before) {
    placed.push(at.placed);
  }
  const tree: TreeCell[] = [];
  const waiting: number[] = []; // loads, farthest first
  let next = 0;
  for (let level = sinks[0]; level > source; level--) {
    const count = placed[level - source - 1] ?? 0;
    const all = Math.min(count * capacity, waiting.length);
    const taken = waiting.splice(0, all);
    for (let i = 0; i < count; i++) {
      waiting.push(~tree.length);
      tree.push({
        level,
        loads: taken.slice(
          Math.floor(i * all / count),
          Math.floor((i + 1) * all / count),
        ),
      });
    }
    while (next < sinks.length && sinks[next] === level) waiting.push(next++);
  }
  return tree;
}
