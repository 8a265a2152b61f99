/** Fusion-X: several language models teach one (arXiv 2505.23844). */
export * from "./align.ts";
export * from "./gate.ts";
export * from "./merge.ts";
export * from "./rules.ts";
export * from "./sources.ts";
export * from "./texts.ts";
export * from "./train.ts";
