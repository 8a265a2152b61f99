/** Quasar-ViT: architecture search for vision transformers with row-wise mixed precision on an FPGA. */
export * from "./cpu.ts";
export * from "./engine.ts";
export * from "./engine-check.ts";
export * from "./entangle.ts";
export * from "./fpga.ts";
export * from "./packing.ts";
export * from "./rows.ts";
export * from "./search.ts";
export * from "./space.ts";
export * from "./supernet.ts";
export * from "./workload.ts";
