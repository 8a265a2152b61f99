/** Structured agent distillation: text worlds, transcripts cut into reasoning and action, and losses on both. */
export * from "./environment.ts";
export * from "./house.ts";
export { shop } from "./shop.ts";
export { facts } from "./facts.ts";
export * from "./transcript.ts";
export * from "./vocabulary.ts";
export * from "./loss.ts";
export * from "./agent.ts";
export * from "./distill.ts";
export * from "./curriculum.ts";
export * from "./viewer.ts";
