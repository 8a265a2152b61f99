/**
 * Our kernels on the memory of the tfjs wasm backend: pointers, results, scratch and GEMM.
 *
 * A tensor of that backend is a block of one WebAssembly memory. Our module is instantiated on the
 * same memory, and a system BLAS is pointed into it, so nothing is ever copied. A fused operation
 * reads `kernels()`, allocates its result with `output`, and calls the kernel with the `address` of
 * every tensor:
 *
 *     const k = kernels();
 *     if (k === null) return reference.square(x);
 *     const y = output(x.shape);
 *     k.square(address(x), address(y), x.size);
 *     return y;
 *
 * That is not differentiable by itself: `fused.ts` puts a node with its gradient on the tape.
 */
import { Buffer } from "node:buffer";
import process from "node:process";
import type { DataId, DataType, Tensor, TensorInfo } from "../tensor.ts";
import type { Blas } from "./blas.ts";
import { RELAXED, SIMD128 } from "./generated.ts";
import type { NnKernels } from "./signatures.ts";

/** The functions that the AssemblyScript module exports; pointers are byte offsets. */
export interface Kernels extends NnKernels {
  gemmScratchBytes(): number;
  gemm(
    transposeA: number,
    transposeB: number,
    m: number,
    n: number,
    k: number,
    alpha: number,
    a: number,
    lda: number,
    b: number,
    ldb: number,
    beta: number,
    c: number,
    ldc: number,
    scratch: number,
  ): void;
  gemmBatch(
    transposeA: number,
    transposeB: number,
    m: number,
    n: number,
    k: number,
    alpha: number,
    a: number,
    lda: number,
    strideA: number,
    b: number,
    ldb: number,
    strideB: number,
    beta: number,
    c: number,
    ldc: number,
    strideC: number,
    batch: number,
    scratch: number,
  ): void;
}

/** What we use of tfjs' wasm backend (4.22). */
export interface WasmBackend {
  wasm: {
    _malloc(bytes: number): number;
    _free(pointer: number): void;
    asm: { memory: WebAssembly.Memory };
  };
  dataIdMap: { get(dataId: DataId): { memoryOffset: number } };
  makeOutput(shape: number[], dtype: DataType): TensorInfo;
  disposeData(dataId: DataId, force?: boolean): boolean;
  incRef(dataId: DataId): void;
}

/** What we use of tfjs' engine: a tensor made here is seen by `tidy` and `memory()`. */
interface Engine {
  makeTensorFromTensorInfo(info: TensorInfo): Tensor;
}

interface Installed {
  backend: WasmBackend;
  engine: Engine;
  memory: WebAssembly.Memory;
  kernels: Kernels;
  blas: Blas | null;
  /** Scratch of the GEMM, apart from `scratch()`. */
  gemmScratch: number;
  /** Buffer whose machine address is `base`; growth of the memory replaces it. */
  buffer: ArrayBuffer;
  base: number;
}

export type KernelBuild = "simd128" | "relaxed";

let installed: Installed | null = null;
let scratchPointer = 0;
let scratchBytes = 0;

/** V8 11.3 (Node 20) computes wrong results with relaxed SIMD, which it hides behind a flag. */
const FIRST_GOOD_V8 = 12;

function instantiate(base64: string, memory: WebAssembly.Memory): Kernels {
  const module = new WebAssembly.Module(Buffer.from(base64, "base64"));
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  return exports as unknown as Kernels;
}

/** True if the module multiplies a 7x5 by a 5x9 matrix of small integers exactly. */
function multiplies(kernels: Kernels, backend: WasmBackend): boolean {
  const [M, N, K] = [7, 9, 5];
  const count = M * K + K * N + M * N;
  const pointer = backend.wasm._malloc(
    count * 4 + kernels.gemmScratchBytes(),
  );
  const x = new Float32Array(backend.wasm.asm.memory.buffer, pointer, count);
  for (let i = 0; i < count; i++) x[i] = (i * 7) % 11 - 5;
  const b = M * K;
  const c = b + K * N;
  kernels.gemm(
    0,
    0,
    M,
    N,
    K,
    1,
    pointer,
    K,
    pointer + 4 * b,
    N,
    0,
    pointer + 4 * c,
    N,
    pointer + 4 * count,
  );
  let right = true;
  for (let i = 0; i < M; i++) {
    for (let j = 0; j < N; j++) {
      let sum = 0;
      for (let p = 0; p < K; p++) sum += x[i * K + p] * x[b + p * N + j];
      right &&= sum === x[c + i * N + j];
    }
  }
  backend.wasm._free(pointer);
  return right;
}

/** The fastest build that runs here and proves right, or null. */
function chooseBuild(
  backend: WasmBackend,
): { kernels: Kernels; build: KernelBuild } | null {
  const v8 = process.versions.v8;
  const relaxed = v8 === undefined || parseInt(v8) >= FIRST_GOOD_V8;
  for (
    const [build, base64] of [
      ["relaxed", RELAXED],
      ["simd128", SIMD128],
    ] as const
  ) {
    if (build === "relaxed" && !relaxed) continue;
    if (!WebAssembly.validate(Buffer.from(base64, "base64"))) continue;
    const kernels = instantiate(base64, backend.wasm.asm.memory);
    if (multiplies(kernels, backend)) return { kernels, build };
  }
  return null;
}

/** Puts our kernels on the memory of `backend`; null if no build runs here. Used by `ready()`. */
export function install(
  backend: WasmBackend,
  engine: Engine,
  blas: Blas | null,
): KernelBuild | null {
  const chosen = chooseBuild(backend);
  if (chosen === null) return null;
  const { kernels, build } = chosen;
  const memory = backend.wasm.asm.memory;
  const gemmScratch = backend.wasm._malloc(kernels.gemmScratchBytes()) >>> 0;
  installed = {
    backend,
    engine,
    memory,
    kernels,
    blas,
    gemmScratch,
    buffer: memory.buffer as ArrayBuffer,
    base: blas === null ? 0 : blas.address(memory.buffer as ArrayBuffer),
  };
  return build;
}

function active(): Installed {
  if (installed === null) {
    throw new Error(
      "Cannot use a kernel as the backend has none: check that kernels() is not null",
    );
  }
  return installed;
}

/** The functions of our wasm module, or null on any other backend. */
export function kernels(): Kernels | null {
  return installed === null ? null : installed.kernels;
}

/** Byte offset of a tensor's data in the backend's memory; tensors that share data share it. */
export function address(tensor: Tensor | TensorInfo): number {
  return active().backend.dataIdMap.get(tensor.dataId).memoryOffset;
}

/** A new tensor whose content is undefined until a kernel fills it. */
export function output(shape: number[], dtype: DataType = "float32"): Tensor {
  const { backend, engine } = active();
  return engine.makeTensorFromTensorInfo(backend.makeOutput(shape, dtype));
}

/** As `output`, for the function of a registered tfjs kernel, which returns a plain record. */
export function outputInfo(
  shape: number[],
  dtype: DataType = "float32",
): TensorInfo {
  return active().backend.makeOutput(shape, dtype);
}

/** The backend's memory as floats; do not keep it, the next allocation may replace the buffer. */
export function heap(): Float32Array<ArrayBuffer> {
  return new Float32Array(active().memory.buffer as ArrayBuffer);
}

/**
 * Pointer to at least `bytes` of working memory, aligned to 64 bytes.
 *
 * There is one such block, it only grows, and its content is undefined: whoever asks owns it until
 * anyone asks again, so ask once per operation and keep nothing in it across calls of other
 * operations. `gemm` does not use it.
 */
export function scratch(bytes: number): number {
  if (bytes > scratchBytes) {
    const { wasm } = active().backend;
    if (scratchPointer !== 0) wasm._free(scratchPointer);
    scratchBytes = Math.max(bytes, 1 << 16);
    scratchPointer = wasm._malloc(scratchBytes + 64) >>> 0;
    if (scratchPointer === 0) {
      scratchBytes = 0;
      throw new RangeError(
        `Cannot get scratch memory as the backend has none left: ${bytes} bytes`,
      );
    }
  }
  return (scratchPointer + 63) - ((scratchPointer + 63) % 64);
}

/** Machine address of byte 0 of the backend's memory. */
function machineBase(state: Installed, blas: Blas): number {
  const buffer = state.memory.buffer as ArrayBuffer;
  if (buffer !== state.buffer) {
    state.buffer = buffer;
    state.base = blas.address(buffer);
  }
  return state.base;
}

/** Multiplications below which our kernel beats the BLAS call (measured). */
const SMALL_PRODUCT = 512;

/**
 * C[m, n] = alpha op(A)[m, k] op(B)[k, n] + beta C, row-major, on pointers.
 *
 * op(A) is A [m, lda] or, transposed, A [k, lda]; op(B) is B [k, ldb] or B [n, ldb]. Leading
 * dimensions count elements and may exceed the row, so a head of [B, T, H, Dh] is a matrix with
 * leading dimension H * Dh. With beta 0, C is not read. C may not overlap A or B.
 */
export function sgemm(
  transposeA: boolean,
  transposeB: boolean,
  m: number,
  n: number,
  k: number,
  alpha: number,
  a: number,
  lda: number,
  b: number,
  ldb: number,
  beta: number,
  c: number,
  ldc: number,
): void {
  const state = active();
  const { blas } = state;
  if (blas === null || m * n * k <= SMALL_PRODUCT) {
    state.kernels.gemm(
      transposeA ? 1 : 0,
      transposeB ? 1 : 0,
      m,
      n,
      k,
      alpha,
      a,
      lda,
      b,
      ldb,
      beta,
      c,
      ldc,
      state.gemmScratch,
    );
    return;
  }
  const base = machineBase(state, blas);
  blas.sgemm(
    transposeA,
    transposeB,
    m,
    n,
    k,
    alpha,
    base + a,
    lda,
    base + b,
    ldb,
    beta,
    base + c,
    ldc,
  );
}

/** `sgemm` over a batch; strides count elements, and stride 0 shares an operand. */
export function sgemmBatch(
  transposeA: boolean,
  transposeB: boolean,
  m: number,
  n: number,
  k: number,
  alpha: number,
  a: number,
  lda: number,
  strideA: number,
  b: number,
  ldb: number,
  strideB: number,
  beta: number,
  c: number,
  ldc: number,
  strideC: number,
  batch: number,
): void {
  const state = active();
  const { blas } = state;
  if (blas === null || m * n * k <= SMALL_PRODUCT) {
    state.kernels.gemmBatch(
      transposeA ? 1 : 0,
      transposeB ? 1 : 0,
      m,
      n,
      k,
      alpha,
      a,
      lda,
      strideA,
      b,
      ldb,
      strideB,
      beta,
      c,
      ldc,
      strideC,
      batch,
      state.gemmScratch,
    );
    return;
  }
  const base = machineBase(state, blas);
  for (let i = 0; i < batch; i++) {
    blas.sgemm(
      transposeA,
      transposeB,
      m,
      n,
      k,
      alpha,
      base + a + 4 * i * strideA,
      lda,
      base + b + 4 * i * strideB,
      ldb,
      beta,
      base + c + 4 * i * strideC,
      ldc,
    );
  }
}

export interface Gemm {
  transposeA?: boolean;
  transposeB?: boolean;
  m: number;
  n: number;
  k: number;
  alpha?: number;
  /** Byte offset of A. */
  a: number;
  lda: number;
  b: number;
  ldb: number;
  beta?: number;
  c: number;
  ldc: number;
}

/** `sgemm` with named arguments. */
export function gemm(
  {
    transposeA = false,
    transposeB = false,
    m,
    n,
    k,
    alpha = 1,
    a,
    lda,
    b,
    ldb,
    beta = 0,
    c,
    ldc,
  }: Gemm,
): void {
  sgemm(transposeA, transposeB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
