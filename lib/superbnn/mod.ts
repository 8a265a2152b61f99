/** SupeRBNN: binary neural networks on stochastic superconductor devices, from training to energy. */
export * from "./accumulate.ts";
export * from "./batch-norm.ts";
export * from "./binomial.ts";
export * from "./clamp.ts";
export * from "./counter.ts";
export * from "./crossbar.ts";
export * from "./deploy.ts";
export * from "./device.ts";
export * from "./energy.ts";
export * from "./network.ts";
export * from "./search.ts";
export * from "./simulate.ts";
export * from "./streams.ts";
export * from "./train.ts";
