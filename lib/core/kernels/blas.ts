/**
 * The system's BLAS, called on the memory of the wasm backend without a copy.
 *
 * A WebAssembly memory is ordinary memory of the process, so a C library can work in it once it is
 * told where it begins. Node gets its foreign function interface from koffi, Deno has its own. A
 * call costs well under a microsecond in both.
 */
import { readFileSync } from "node:fs";
import process from "node:process";

/** A BLAS that was found: `cblas_sgemm` for row-major matrices, and how to point into a buffer. */
export interface Blas {
  /** What was loaded, and for OpenBLAS its kernel: "libopenblas.so.0 (SkylakeX)". */
  name: string;
  threads: number;
  /** Row-major sgemm; `a`, `b` and `c` are machine addresses. */
  sgemm(
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
  ): void;
  /** Machine address of the first byte of a buffer. */
  address(buffer: ArrayBuffer): number;
}

export interface BlasSearch {
  blas: Blas | null;
  /** Libraries that were found but are not usable, with the reason. */
  ignored: string[];
}

/** From cblas.h. */
const ROW_MAJOR = 101;
const NO_TRANSPOSE = 111;
const TRANSPOSE = 112;

/** Names to try, the best first. The reference BLAS is left out: it is slower than our kernels. */
const CANDIDATES: Record<string, string[]> = {
  linux: [
    "libopenblas.so.0",
    "libopenblas.so",
    "libmkl_rt.so.2",
    "libmkl_rt.so",
    "libblis.so.4",
    "libblis.so",
  ],
  darwin: [
    "/System/Library/Frameworks/Accelerate.framework/Accelerate",
    "libopenblas.dylib",
    "/opt/homebrew/opt/openblas/lib/libopenblas.dylib",
    "/usr/local/opt/openblas/lib/libopenblas.dylib",
  ],
  win32: ["libopenblas.dll", "openblas.dll", "mkl_rt.2.dll", "mkl_rt.dll"],
};

type CType = "i32" | "f32" | "address" | "string" | "void";

/** A C function; its absence is null. */
type CFunction = ((...values: (number | string)[]) => unknown) | null;

interface Library {
  find(name: string, result: CType, parameters: CType[]): CFunction;
  close(): void;
}

interface Ffi {
  open(path: string): Library;
  address(buffer: ArrayBuffer): number;
}

interface DenoFfi {
  dlopen(
    path: string,
    symbols: Record<string, { parameters: string[]; result: string }>,
  ): { symbols: Record<string, (...v: unknown[]) => unknown>; close(): void };
  UnsafePointer: { of(view: Uint8Array): unknown; value(p: unknown): bigint };
  UnsafePointerView: new (pointer: unknown) => { getCString(): string };
}

const SGEMM_PARAMETERS: CType[] = [
  "i32",
  "i32",
  "i32",
  "i32",
  "i32",
  "i32",
  "f32",
  "address",
  "i32",
  "address",
  "i32",
  "f32",
  "address",
  "i32",
];

function denoFfi(deno: DenoFfi): Ffi {
  const type = (t: CType) =>
    t === "address" ? "usize" : t === "string" ? "pointer" : t;
  return {
    open(path) {
      // An empty set of symbols tells "no such library" apart from "no such function".
      const opened = [deno.dlopen(path, {})];
      return {
        find(name, result, parameters) {
          try {
            const library = deno.dlopen(path, {
              [name]: {
                parameters: parameters.map(type),
                result: type(result),
              },
            });
            opened.push(library);
            const call = library.symbols[name];
            if (result !== "string") return call;
            return (...values) =>
              new deno.UnsafePointerView(call(...values)).getCString();
          } catch {
            return null;
          }
        },
        close: () => opened.forEach((library) => library.close()),
      };
    },
    address: (buffer) =>
      Number(
        deno.UnsafePointer.value(deno.UnsafePointer.of(new Uint8Array(buffer))),
      ),
  };
}

async function nodeFfi(): Promise<Ffi> {
  const { default: koffi } = await import("koffi");
  const types: Record<CType, string> = {
    i32: "int32_t",
    f32: "float",
    address: "uintptr_t",
    string: "const char *",
    void: "void",
  };
  return {
    open(path) {
      const library = koffi.load(path);
      return {
        find(name, result, parameters) {
          try {
            return library.func(
              name,
              types[result],
              parameters.map((t) => types[t]),
            );
          } catch {
            return null;
          }
        },
        close: () => library.unload(),
      };
    },
    address: (buffer) => Number(koffi.address(new Uint8Array(buffer))),
  };
}

/** OpenBLAS kernels without AVX2: what an OpenBLAS older than the processor falls back to. */
const OLD_CORES = /^(Prescott|Core2|Penryn|Dunnington|Nehalem|Atom|Generic)$/i;

/** The OpenBLAS kernel that suits this processor, if its flags can be read. */
function openblasCore(): string | null {
  if (process.platform !== "linux" || process.arch !== "x64") return null;
  let flags: Set<string>;
  try {
    const line = /^flags\s*:(.*)$/m.exec(
      readFileSync("/proc/cpuinfo", "latin1"),
    );
    flags = new Set(line?.[1].trim().split(/\s+/));
  } catch {
    return null;
  }
  const has = (...names: string[]) => names.every((name) => flags.has(name));
  if (has("avx512f", "avx512dq", "avx512bw", "avx512vl")) return "SkylakeX";
  return has("avx2", "fma") ? "Haswell" : null;
}

/** Opens `path`; an OpenBLAS that does not know this processor is told which kernel to take. */
function openTuned(ffi: Ffi, path: string): { library: Library; core: string } {
  // OpenBLAS reads both when it is loaded. With one thread it starts no pool.
  const { OPENBLAS_NUM_THREADS, OPENBLAS_CORETYPE } = process.env;
  process.env.OPENBLAS_NUM_THREADS ??= "1";
  try {
    let library = ffi.open(path);
    const coreName = () =>
      String(library.find("openblas_get_corename", "string", [])?.() ?? "");
    let core = coreName();
    const better = openblasCore();
    if (
      OPENBLAS_CORETYPE === undefined && better !== null && OLD_CORES.test(core)
    ) {
      library.close();
      process.env.OPENBLAS_CORETYPE = better;
      library = ffi.open(path);
      core = coreName();
    }
    return { library, core };
  } finally {
    if (OPENBLAS_NUM_THREADS === undefined) {
      delete process.env.OPENBLAS_NUM_THREADS;
    }
    if (OPENBLAS_CORETYPE === undefined) delete process.env.OPENBLAS_CORETYPE;
  }
}

/** Sets the number of threads in whichever way the library knows; true if it knows one. */
function setThreads(library: Library, threads: number): boolean {
  for (
    const name of [
      "openblas_set_num_threads",
      "MKL_Set_Num_Threads",
      "bli_thread_set_num_threads",
    ]
  ) {
    const set = library.find(name, "void", ["i32"]);
    if (set === null) continue;
    set(threads);
    return true;
  }
  return false;
}

/** True if `sgemm` multiplies a known pair right: a 64-bit-integer BLAS of the same name does not. */
function multiplies(blas: Blas): boolean {
  const x = new Float32Array([1, 2, 3, 4, 5, 6, 0, 0, 0, 0, -1]);
  const at = blas.address(x.buffer);
  // [1 2 3] times the transpose of [4 5 6]; [1 2 3; 4 5 6] transposed times itself, row by row.
  blas.sgemm(false, true, 1, 1, 3, 1, at, 3, at + 12, 3, 0, at + 24, 1);
  blas.sgemm(true, false, 1, 3, 2, 2, at, 3, at, 3, 1, at + 28, 3);
  return [32, 34, 44, 54, -1].every((value, i) => x[6 + i] === value);
}

function load(ffi: Ffi, path: string, threads: number): Blas {
  const { library, core } = openTuned(ffi, path);
  const sgemm = library.find("cblas_sgemm", "void", SGEMM_PARAMETERS);
  if (sgemm === null) {
    library.close();
    throw new Error("it has no function cblas_sgemm");
  }
  const threaded = setThreads(library, threads);
  const order = (transpose: boolean) => transpose ? TRANSPOSE : NO_TRANSPOSE;
  const blas: Blas = {
    name: core === "" ? path : `${path} (${core})`,
    threads: threaded ? threads : 1,
    sgemm: (tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) => {
      sgemm(
        ROW_MAJOR,
        order(tA),
        order(tB),
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
      );
    },
    address: ffi.address,
  };
  if (!multiplies(blas)) {
    throw new Error("its cblas_sgemm gives a wrong product");
  }
  return blas;
}

/** Message of an error in one line. */
function reason(error: unknown): string {
  return String((error as Error)?.message ?? error).split("\n")[0];
}

/**
 * The first usable BLAS of this system, and what was found but ignored.
 *
 * `choice` is ADIABAT_BLAS: "off" for none, a path or name for that one only (an error if it cannot
 * be used), undefined to look for `candidates` (default: the usual ones). `threads` is handed to the library (default 1:
 * runs are parallel as processes).
 */
export async function findBlas(
  choice: string | undefined,
  threads: number,
  candidates: string[] = CANDIDATES[process.platform] ?? [],
): Promise<BlasSearch> {
  const ignored: string[] = [];
  if (choice === "off") return { blas: null, ignored };
  const wanted = choice !== undefined && choice !== "";
  const refuse = (error: unknown) =>
    new Error(
      `Cannot use the BLAS that ADIABAT_BLAS names, ${choice}: ${
        reason(error)
      }; give the path of a library with cblas_sgemm, or off`,
    );
  const deno = (globalThis as { Deno?: DenoFfi }).Deno;
  let ffi: Ffi;
  try {
    ffi = deno === undefined ? await nodeFfi() : denoFfi(deno);
  } catch (error) {
    if (wanted) throw refuse(error);
    return {
      blas: null,
      ignored: [`no foreign function interface: ${reason(error)}`],
    };
  }
  for (const path of wanted ? [choice] : candidates) {
    try {
      return { blas: load(ffi, path, threads), ignored };
    } catch (error) {
      if (wanted) throw refuse(error);
      // A name that is not there is no news; a library that is there but does not serve is.
      if (/cblas_sgemm/.test(reason(error))) {
        ignored.push(`${path}: ${reason(error)}`);
      }
    }
  }
  return { blas: null, ignored };
}
