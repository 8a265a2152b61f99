// All kernels of one module: `npm run build:kernels` compiles this file twice
// (SIMD128 and relaxed SIMD) into ../generated.ts.
//
// The module lives on the memory of the tfjs wasm backend, which it does not
// own: no static data, no globals that hold memory, no allocation. Every
// pointer is a byte offset that the caller passes in.
export * from "./gemm";
export * from "./nn";
export * from "./optim";
