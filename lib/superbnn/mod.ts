/** SupeRBNN: binary neural networks on stochastic superconductor devices, from training to energy. */
export * from "./accumulate.ts";
export * from "./binomial.ts";
export * from "./crossbar.ts";
export * from "./device.ts";
export * from "./network.ts";
export * from "./simulate.ts";
