/**
 * Break-even of two totals that are linear in one quantity: time, cooling overhead, number of operations.
 *
 *   T(t) = fixed + rate t        t* = (fixed_A - fixed_B) / (rate_B - rate_A)        t >= 0
 */

/** A total: what is there from the start, and what comes with every unit of t. */
export interface Line {
  fixed: number;
  rate: number;
}

/**
 * Where the first total is the lower one. `at`: on one side of a t* > 0 only. `always`, `never`: for all
 * t > 0. `tie`: both are equal everywhere.
 */
export type BreakEven =
  | { kind: "at"; at: number; lower: "after" | "before" }
  | { kind: "always" | "never" | "tie" };

/**
 * Where the total `a` is below the total `b`, for t >= 0.
 *
 * Totals that are equal at t = 0 alone are `always` or `never`, as their rates decide; a t* beyond the
 * largest number is no break-even.
 *
 * @throws RangeError unless all numbers are finite
 *
 * @example
 * breakEven({ fixed: 3, rate: 1 }, { fixed: 1, rate: 2 }); // { kind: "at", at: 2, lower: "after" }
 */
export function breakEven(a: Line, b: Line): BreakEven {
  for (const value of [a.fixed, a.rate, b.fixed, b.rate]) {
    if (!Number.isFinite(value)) {
      throw new RangeError(
        `Cannot find a break-even as all numbers must be finite: ${a.fixed} + ${a.rate} t and ${b.fixed} + ${b.rate} t`,
      );
    }
  }
  // Compared, not subtracted: a difference can overflow or vanish.
  const start = Math.sign(
    Number(a.fixed > b.fixed) - Number(a.fixed < b.fixed),
  );
  const slope = Math.sign(Number(a.rate > b.rate) - Number(a.rate < b.rate));
  if (start === 0 && slope === 0) return { kind: "tie" };
  if (start <= 0 && slope <= 0) return { kind: "always" };
  if (start >= 0 && slope >= 0) return { kind: "never" };
  // t* = (M_A - M_B) / (r_B - r_A); halves keep the differences finite
  const at = (a.fixed / 2 - b.fixed / 2) / (b.rate / 2 - a.rate / 2);
  if (!(at < Infinity)) return { kind: start > 0 ? "never" : "always" };
  if (at === 0) return { kind: slope < 0 ? "always" : "never" };
  return { kind: "at", at, lower: slope < 0 ? "after" : "before" };
}
