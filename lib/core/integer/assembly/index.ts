// deno-lint-ignore-file
// deno-fmt-ignore-file: the formatter drops the decorators of functions
// Integer kernels of inference: `npx tsx scripts/build-integer-kernels.ts` compiles
// this file twice (SIMD128 and relaxed SIMD) into ../generated.ts.
//
// The module owns no memory: no static data, no globals, no allocation. Every
// pointer is a byte offset that the caller passes in. Layouts (K is the depth,
// padded with zeros to a multiple of 4, so there are K / 2 pairs of k):
//
//   strips   activations, i16: [M / 4][K / 2][4 rows][2]
//   bytes    activations, i8:  [M / 4][K / 4][4 rows][4]
//   panels   weights, by blocks of 8 columns (outputs), see pack.ts
//
// C is row-major [M, N] and nothing outside it is written.
export * from "./pack";
export * from "./quantize";
export * from "./gemm";
export * from "./cache";
