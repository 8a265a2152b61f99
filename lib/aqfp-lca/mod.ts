/**
 * AQFP life-cycle energy and inventory: a matrix LCA engine, and the comparison of AQFP with CMOS built
 * on it.
 */

// Engine
export * from "./batch.ts";
export * from "./break-even.ts";
export * from "./distributions.ts";
export type { Closure, Expression, Operator } from "./expression.ts";
export * from "./formula.ts";
export * from "./interchange.ts";
export * from "./inventory.ts";
export * from "./linear.ts";
export * from "./matrix.ts";
export * from "./model.ts";
export * from "./plain.ts";
export * from "./sensitivity.ts";
export { BLOCK } from "./tape.ts";
export * from "./uncertainty.ts";
export * from "./units.ts";

// AQFP and CMOS
export * from "./comparison.ts";
export * from "./foreground.ts";
export * from "./grid.ts";
export * from "./manufacturing.ts";
export * from "./use-phase.ts";
