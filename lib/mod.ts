/** Adiabat: literate experiments for frugal computing. One namespace per paper plus the core ones. */
export * as tensor from "./core/tensor.ts";
