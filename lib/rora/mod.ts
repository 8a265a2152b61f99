/** RoRA: low-rank adapters with a rank-stable factor, and the structured pruning that goes with them. */
export * from "./adapter.ts";
export * from "./files.ts";
export * from "./prune.ts";
export * from "./finetune.ts";
