/**
 * The tensor engine: the only file that names tfjs.
 *
 * Everything else imports `tf`, `Tensor` and `Variable` from here. `ready()` chooses the backend
 * once; `backendInfo()` says which one was chosen.
 *
 * | environment       | values (default first)                                              |
 * | ----------------- | ------------------------------------------------------------------- |
 * | `ADIABAT_BACKEND` | node if tfjs-node loads, else `wasm`; `stock-wasm`, `cpu`            |
 * | `ADIABAT_BLAS`    | the first BLAS of the system; `off`; the path of one                 |
 * | `ADIABAT_THREADS` | threads of the BLAS: 1, because runs are parallel as processes       |
 */
import { createRequire } from "node:module";
import process from "node:process";
import * as tf from "@tensorflow/tfjs";
import { variableGrads } from "./backprop.ts";
import { type Blas, findBlas } from "./kernels/blas.ts";
import { install, type WasmBackend } from "./kernels/bindings.ts";
import { overrides } from "./kernels/overrides.ts";

export { tf };
export type Tensor = tf.Tensor;
export type Variable = tf.Variable;
export type Scalar = tf.Scalar;
export type TensorInfo = tf.TensorInfo;
export type DataType = tf.DataType;
export type DataId = tf.DataId;
export type KernelConfig = tf.KernelConfig;
export type KernelFunc = tf.KernelFunc;

/** What computes here; stored in every run record. */
export interface BackendInfo {
  backend: "node" | "wasm" | "cpu";
  /** Package and version of the engine. */
  engine: string;
  /** Which build of our kernels is active. */
  kernels: "none" | "simd128" | "relaxed";
  /** Name of the system BLAS with its variant, or null. */
  blas: string | null;
  /** Threads of the matrix products. */
  threads: number;
  /** "node 20.20.2", "deno 2.9.6". */
  runtime: string;
  /** What was found but not used, and why; absent if nothing. */
  notes?: string[];
}

/** A tree of parameters: plain nested objects and arrays whose leaves are tensors. */
export type ParamTree = Tensor | { [name: string]: ParamTree } | ParamTree[];

const BACKENDS = ["node", "wasm", "stock-wasm", "cpu"] as const;
type BackendChoice = typeof BACKENDS[number];

let info: BackendInfo | null = null;
let pending: Promise<BackendInfo> | null = null;

/** ADIABAT_BACKEND, checked; undefined if it is not set. */
function backendChoice(): BackendChoice | undefined {
  const value = process.env.ADIABAT_BACKEND;
  if (value === undefined || value === "") return undefined;
  if (!(BACKENDS as readonly string[]).includes(value)) {
    throw new RangeError(
      `Cannot choose a backend as ADIABAT_BACKEND must be one of ${
        BACKENDS.join(", ")
      }: ${value}`,
    );
  }
  return value as BackendChoice;
}

/** ADIABAT_THREADS, checked; 1 if it is not set. */
function threadChoice(): number {
  const value = process.env.ADIABAT_THREADS;
  if (value === undefined || value === "") return 1;
  const threads = Number(value);
  if (!Number.isInteger(threads) || threads < 1 || threads > 256) {
    throw new RangeError(
      `Cannot set the threads of the BLAS as ADIABAT_THREADS must be an integer from 1 to 256: ${value}`,
    );
  }
  return threads;
}

function runtime(): string {
  const { deno, node } = process.versions;
  return deno === undefined ? `node ${node}` : `deno ${deno}`;
}

/**
 * Loads the native tfjs-node if it is installed, and registers its backend "tensorflow".
 *
 * The package called @tensorflow/tfjs-node here may be an alias of plain tfjs (that is how danfojs
 * is made to share our engine), so its own name is read before it is loaded.
 */
async function loadNative(): Promise<string | null> {
  const require = createRequire(import.meta.url);
  for (const name of ["tfjs-node-native", "@tensorflow/tfjs-node"]) {
    try {
      const own = require(`${name}/package.json`);
      if (own.name !== "@tensorflow/tfjs-node") continue;
      await import(name);
      if (tf.findBackend("tensorflow") !== null) return `${own.version}`;
    } catch {
      // Not installed, or its native part does not load: the next one.
    }
  }
  return null;
}

/** Initialises a backend of tfjs, with its advice about tfjs-node kept off the console. */
async function start(name: string): Promise<void> {
  if (!await tf.setBackend(name)) {
    throw new Error(`Cannot start the backend of tfjs: ${name}`);
  }
  await tf.ready();
  (tf.backend() as unknown as { firstUse?: boolean }).firstUse = false;
}

/**
 * Runs `work` and removes the handlers of uncaught errors that it added: those of the wasm backend
 * throw again, which prints kilobytes of its source in front of any message.
 */
async function withoutNewHandlers(work: () => Promise<void>): Promise<void> {
  const events = ["uncaughtException", "unhandledRejection"] as const;
  const before = events.map((event) => new Set(process.rawListeners(event)));
  await work();
  events.forEach((event, i) => {
    for (const listener of process.rawListeners(event)) {
      if (before[i].has(listener)) continue;
      process.removeListener(event, listener as () => void);
    }
  });
}

async function startWasm(ours: boolean): Promise<BackendInfo> {
  await withoutNewHandlers(async () => {
    await import("@tensorflow/tfjs-backend-wasm");
    await start("wasm");
  });
  const chosen: BackendInfo = {
    backend: "wasm",
    engine: `tfjs ${tf.version.tfjs}`,
    kernels: "none",
    blas: null,
    threads: 1,
    runtime: runtime(),
  };
  if (!ours) return chosen;
  const threads = threadChoice();
  const { blas, ignored } = await findBlas(process.env.ADIABAT_BLAS, threads);
  const build = install(
    tf.backend() as unknown as WasmBackend,
    tf.engine() as unknown as Parameters<typeof install>[1],
    blas,
  );
  if (build === null) {
    chosen.notes = ["kernels ignored: no build of them computes right here"];
    return chosen;
  }
  for (const kernel of overrides(tf.getKernel)) {
    if (tf.getKernel(kernel.kernelName, "wasm") !== undefined) {
      tf.unregisterKernel(kernel.kernelName, "wasm");
    }
    tf.registerKernel(kernel);
  }
  chosen.kernels = build;
  return withBlas(chosen, blas, ignored);
}

function withBlas(
  chosen: BackendInfo,
  blas: Blas | null,
  ignored: string[],
): BackendInfo {
  if (ignored.length > 0) {
    chosen.notes = ignored.map((reason) => `BLAS ignored: ${reason}`);
  }
  if (blas !== null) {
    chosen.blas = blas.name;
    chosen.threads = blas.threads;
  }
  return chosen;
}

async function choose(): Promise<BackendInfo> {
  const choice = backendChoice();
  if (choice === "wasm" || choice === "stock-wasm") {
    return startWasm(choice === "wasm");
  }
  if (choice === "cpu") {
    await start("cpu");
    return {
      backend: "cpu",
      engine: `tfjs ${tf.version.tfjs}`,
      kernels: "none",
      blas: null,
      threads: 1,
      runtime: runtime(),
    };
  }
  const version = await loadNative();
  if (version === null) {
    if (choice === undefined) return startWasm(true);
    throw new Error(
      "Cannot use the backend that ADIABAT_BACKEND names, node, as @tensorflow/tfjs-node is not installed or does not load; choose one of wasm, stock-wasm, cpu",
    );
  }
  await start("tensorflow");
  return {
    backend: "node",
    engine: `tfjs-node ${version}`,
    kernels: "none",
    blas: null,
    threads: 1,
    runtime: runtime(),
  };
}

/** Chooses and initialises the backend once; later calls return the same choice. */
export function ready(): Promise<BackendInfo> {
  pending ??= choose().then((chosen) => {
    info = chosen;
    return chosen;
  }).catch((error) => {
    pending = null; // the next call may find a better environment
    throw error;
  });
  return pending;
}

/** What `ready()` chose. */
export function backendInfo(): BackendInfo {
  if (info === null) {
    throw new Error(
      "Cannot describe the backend as it is not initialised: call `await ready()` first",
    );
  }
  return info;
}

/** What is alive in the engine: tensors, the blocks behind them, and their bytes. */
export function memory(): { tensors: number; buffers: number; bytes: number } {
  const { numTensors, numDataBuffers, numBytes } = tf.memory();
  return { tensors: numTensors, buffers: numDataBuffers, bytes: numBytes };
}

/** The leaves of a parameter tree by dotted path, in the order of the tree: `{ "layers.0.weight": tensor }`. */
export function flatten(
  tree: ParamTree,
  prefix = "",
): Record<string, Tensor> {
  const out: Record<string, Tensor> = {};
  collect(tree, prefix, out);
  return out;
}

function collect(
  tree: ParamTree,
  path: string,
  out: Record<string, Tensor>,
): void {
  if (tree instanceof tf.Tensor) {
    out[path] = tree;
    return;
  }
  if (typeof tree !== "object" || tree === null) {
    throw new TypeError(
      `Cannot flatten parameters as a leaf must be a tensor: ${path} is ${tree}`,
    );
  }
  for (const [name, child] of Object.entries(tree)) {
    collect(child as ParamTree, path === "" ? name : `${path}.${name}`, out);
  }
}

/**
 * Value of `loss` and its gradients with respect to every variable of `params`, by dotted path.
 *
 * A variable that the loss does not depend on has the gradient zero. The caller disposes both.
 */
export function valueAndGrads(
  loss: () => Scalar,
  params: ParamTree,
): { value: Scalar; grads: Record<string, Tensor> } {
  const named = Object.entries(flatten(params)).filter(([, leaf]) =>
    leaf instanceof tf.Variable && leaf.trainable
  ) as [string, Variable][];
  const { value, grads } = variableGrads(tf, loss, named.map(([, v]) => v));
  const byPath: Record<string, Tensor> = {};
  for (const [path, variable] of named) {
    byPath[path] = grads[variable.name] ?? tf.zerosLike(variable);
  }
  return { value, grads: byPath };
}
