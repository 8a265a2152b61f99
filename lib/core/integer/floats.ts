/**
 * The float32 kernels on the memory of the integer kernels, for what an integer model leaves in floats.
 *
 * The module of `core/kernels` owns no memory, so that it runs on this one as it does on that of tfjs; the
 * products go to a system BLAS where the caller hands one in.
 */
import { Buffer } from "node:buffer";
import type { Blas } from "../kernels/blas.ts";
import type { Kernels } from "../kernels/bindings.ts";
import { RELAXED, SIMD128 } from "../kernels/generated.ts";
import type { IntegerEngine } from "./bindings.ts";

/** Float32 kernels; pointers are byte offsets in the engine's memory. */
export interface FloatKernels {
  kernels: Kernels;
  /** What multiplies: the name of a BLAS, or the build of our kernels. */
  name: string;
  /** C[m, n] = A[m, lda] op(B), row-major; op(B) is B [k, ldb] or, transposed, B [n, ldb]. */
  sgemm(
    transposeB: boolean,
    m: number,
    n: number,
    k: number,
    a: number,
    lda: number,
    b: number,
    ldb: number,
    c: number,
    ldc: number,
  ): void;
}

/** Our float kernels beside the integer ones, on one memory. */
export function openFloats(
  engine: IntegerEngine,
  { blas = null }: { blas?: Blas | null } = {},
): FloatKernels {
  const { memory, build } = engine;
  const bytes = Buffer.from(build === "relaxed" ? RELAXED : SIMD128, "base64");
  const { exports } = new WebAssembly.Instance(
    new WebAssembly.Module(bytes),
    { env: { memory } },
  );
  const kernels = exports as unknown as Kernels;
  const scratch = engine.allocate(kernels.gemmScratchBytes());
  if (blas === null) {
    return {
      kernels,
      name: build,
      sgemm: (transposeB, m, n, k, a, lda, b, ldb, c, ldc) =>
        kernels.gemm(
          0,
          transposeB ? 1 : 0,
          m,
          n,
          k,
          1,
          a,
          lda,
          b,
          ldb,
          0,
          c,
          ldc,
          scratch,
        ),
    };
  }
  let buffer: ArrayBuffer | null = null;
  let base = 0;
  return {
    kernels,
    name: blas.name,
    sgemm(transposeB, m, n, k, a, lda, b, ldb, c, ldc) {
      if (memory.buffer !== buffer) { // growth moves the memory
        buffer = memory.buffer as ArrayBuffer;
        base = blas.address(buffer);
      }
      const [pa, pb, pc] = [base + a, base + b, base + c];
      blas.sgemm(false, transposeB, m, n, k, 1, pa, lda, pb, ldb, 0, pc, ldc);
    },
  };
}
