/** Agile-Quant: 4-bit weights by GPTQ, 8- and 4-bit activations, tokens pruned by attention. */
export * from "./activation.ts";
export * from "./evaluate.ts";
export * from "./gptq.ts";
export * from "./model.ts";
export * from "./tokens.ts";
export * from "./transform.ts";
export * from "./trip.ts";
export * from "./weights.ts";
