/**
 * The tensor engine: the only file that names tfjs.
 *
 * Everything else imports `tf`, `Tensor` and `Variable` from here. `ready()` chooses the backend once; `backendInfo()` says which one was chosen.
 */
import process from "node:process";
import * as tf from "@tensorflow/tfjs";

export { tf };
export type Tensor = tf.Tensor;
export type Variable = tf.Variable;
export type Scalar = tf.Scalar;

/** What computes here; stored in every run record. */
export interface BackendInfo {
  backend: "node" | "wasm" | "cpu";
  /** Package and version of the engine. */
  engine: string;
  /** Which build of our kernels is active. */
  kernels: "none" | "simd128" | "relaxed";
  /** Path or name of the system BLAS, or null. */
  blas: string | null;
  threads: number;
  /** "node 20.20.2", "deno 2.9.6". */
  runtime: string;
}

/** A tree of parameters: plain nested objects and arrays whose leaves are tensors. */
export type ParamTree = Tensor | { [name: string]: ParamTree } | ParamTree[];

let info: BackendInfo | null = null;

/** Chooses and initialises the backend once; later calls return the same choice. */
export async function ready(): Promise<BackendInfo> {
  if (info !== null) return info;
  await import("@tensorflow/tfjs-backend-wasm");
  await tf.setBackend("wasm");
  await tf.ready();
  info = {
    backend: "wasm",
    engine: `tfjs ${tf.version.tfjs}`,
    kernels: "none",
    blas: null,
    threads: 1,
    runtime: `node ${process.versions.node}`,
  };
  return info;
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

/** The leaves of a parameter tree by dotted path, in a fixed order: `{ "layers.0.weight": tensor }`. */
export function flatten(
  tree: ParamTree,
  prefix = "",
): Record<string, Tensor> {
  if (tree instanceof tf.Tensor) return { [prefix]: tree };
  const out: Record<string, Tensor> = {};
  for (const [name, child] of Object.entries(tree)) {
    Object.assign(
      out,
      flatten(child as ParamTree, prefix === "" ? name : `${prefix}.${name}`),
    );
  }
  return out;
}

/** Value of `loss` and its gradients with respect to every variable of `params`, by dotted path. */
export function valueAndGrads(
  loss: () => Scalar,
  params: ParamTree,
): { value: Scalar; grads: Record<string, Tensor> } {
  const named = Object.entries(flatten(params)) as [string, Variable][];
  const { value, grads } = tf.variableGrads(loss, named.map(([, v]) => v));
  const byPath: Record<string, Tensor> = {};
  for (const [path, variable] of named) byPath[path] = grads[variable.name];
  return { value, grads: byPath };
}
