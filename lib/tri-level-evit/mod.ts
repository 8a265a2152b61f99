/** Tri-Level E-ViT: training a vision transformer on fewer examples, tokens and connections. */
export * from "./connections.ts";
export * from "./examples.ts";
export * from "./tokens.ts";
export * from "./train.ts";
export * from "./pictures.ts";
