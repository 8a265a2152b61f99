/**
 * The choice of the backend (each in a process of its own), parameter trees and gradients.
 */
import { spawn } from "node:child_process";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type BackendInfo,
  backendInfo,
  flatten,
  memory,
  ready,
  type Scalar,
  tf,
  valueAndGrads,
} from "../lib/core/tensor.ts";
import { findBlas } from "../lib/core/kernels/blas.ts";

/** Prints what was chosen, whether our kernels are there, and a product, in one line of JSON. */
const PROBE = `
import { backendInfo, ready, tf } from "${new URL(
  "../lib/core/tensor.ts",
  import.meta.url,
)}";
import { kernels } from "${new URL(
  "../lib/core/kernels/bindings.ts",
  import.meta.url,
)}";
const info = await ready();
const y = tf.matMul([[1, 2], [3, 4]], [[5, 6], [7, 8]], false, true);
console.log(JSON.stringify({
  info,
  same: info === backendInfo() && info === await ready(),
  kernels: kernels() !== null,
  product: [...y.dataSync()],
}));
`;

interface Probe {
  info: BackendInfo;
  same: boolean;
  kernels: boolean;
  product: number[];
}

/** Runs the probe with some of the environment replaced; its result, or its error. */
function probe(
  env: Record<string, string>,
): Promise<{ result: Probe | null; stdout: string; stderr: string }> {
  const {
    ADIABAT_BACKEND: _b,
    ADIABAT_BLAS: _l,
    ADIABAT_THREADS: _t,
    ...rest
  } = process.env;
  const child = spawn(
    process.execPath,
    ["--import", "tsx", "--input-type=module", "-e", PROBE],
    { env: { ...rest, ...env } },
  );
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (text) => stdout += text);
  child.stderr.on("data", (text) => stderr += text);
  return new Promise((resolve) =>
    child.on("close", (status) =>
      resolve({
        result: status === 0 ? JSON.parse(stdout) : null,
        stdout,
        stderr,
      }))
  );
}

/** [[1, 2], [3, 4]] times the transpose of [[5, 6], [7, 8]]. */
const PRODUCT = [17, 23, 39, 53];

/** A library that every system of the kind has, and that is no BLAS. */
const NO_BLAS: Record<string, string> = {
  linux: "libc.so.6",
  darwin: "/usr/lib/libSystem.B.dylib",
  win32: "kernel32.dll",
};

test("backendInfo before ready() is an error", () => {
  assert.throws(() => backendInfo(), /call `await ready\(\)` first/);
});

test("each choice of ADIABAT_BACKEND is taken, and says nothing on the console", async () => {
  const runs = await Promise.all([
    probe({ ADIABAT_BACKEND: "cpu" }),
    probe({ ADIABAT_BACKEND: "stock-wasm" }),
    probe({ ADIABAT_BACKEND: "wasm", ADIABAT_BLAS: "off" }),
    probe({}),
  ]);
  for (const { result, stdout, stderr } of runs) {
    assert.is(stderr, "");
    assert.is(stdout.trim().split("\n").length, 1);
    assert.ok(result!.same, "one choice, one object");
    assert.equal(result!.product, PRODUCT);
    assert.is(result!.info.runtime, `node ${process.versions.node}`);
    assert.is(result!.kernels, result!.info.kernels !== "none");
  }
  const [cpu, stock, off, free] = runs.map(({ result }) => result!.info);
  assert.is(cpu.backend, "cpu");
  assert.is(cpu.engine, `tfjs ${tf.version.tfjs}`);
  assert.is(stock.backend, "wasm");
  assert.is(stock.kernels, "none");
  assert.is(off.backend, "wasm");
  assert.is.not(off.kernels, "none");
  assert.is(off.blas, null);
  assert.is(off.threads, 1);
  assert.ok(free.backend === "wasm" || free.backend === "node");
  if (parseInt(process.versions.v8) < 12) {
    assert.is(off.kernels, "simd128", "V8 11.3 gets relaxed SIMD wrong");
  }
});

test("a bad value is a clear error, and can be put right", async () => {
  const failure = async (env: Record<string, string>): Promise<string> => {
    Object.assign(process.env, env);
    try {
      await ready();
    } catch (error) {
      return (error as Error).message;
    } finally {
      for (const name of Object.keys(env)) delete process.env[name];
    }
    throw new Error(`${JSON.stringify(env)} was accepted`);
  };
  assert.match(
    await failure({ ADIABAT_BACKEND: "gpu" }),
    "ADIABAT_BACKEND must be one of node, wasm, stock-wasm, cpu: gpu",
  );
  assert.match(
    await failure({ ADIABAT_BACKEND: "wasm", ADIABAT_THREADS: "0" }),
    "ADIABAT_THREADS must be an integer from 1 to 256: 0",
  );
  assert.match(
    await failure({ ADIABAT_BACKEND: "wasm", ADIABAT_BLAS: "/no/blas.so" }),
    "the BLAS that ADIABAT_BLAS names, /no/blas.so:",
  );
  assert.match(
    await failure({
      ADIABAT_BACKEND: "wasm",
      ADIABAT_BLAS: NO_BLAS[process.platform] ?? "libc.so",
    }),
    /the BLAS that ADIABAT_BLAS names, .*: .*cblas_sgemm/,
  );
  assert.throws(() => backendInfo(), /call `await ready\(\)` first/);
  process.env.ADIABAT_BACKEND = "wasm";
  assert.is((await ready()).backend, "wasm");
});

test("ADIABAT_BACKEND=node takes tfjs-node or says that it is missing", async () => {
  const { result, stderr } = await probe({ ADIABAT_BACKEND: "node" });
  if (result === null) {
    assert.match(stderr, "choose one of wasm, stock-wasm, cpu");
  } else {
    assert.is(result.info.backend, "node");
    assert.equal(result.product, PRODUCT);
  }
});

test("a library without cblas_sgemm is passed over, and said so", async () => {
  const other = NO_BLAS[process.platform] ?? "libc.so";
  const { blas, ignored } = await findBlas(undefined, 1, ["libnone.so", other]);
  assert.is(blas, null);
  assert.equal(ignored, [`${other}: it has no function cblas_sgemm`]);
  assert.equal(await findBlas("off", 1, [other]), { blas: null, ignored: [] });
});

test("flatten names the leaves in order, and objects to what is no tensor", () => {
  const [a, b, c] = [1, 2, 3].map((x) => tf.scalar(x));
  const flat = flatten({ layers: [{ weight: a }, { weight: b }], norm: c });
  assert.equal(Object.keys(flat), [
    "layers.0.weight",
    "layers.1.weight",
    "norm",
  ]);
  assert.is(flat["layers.1.weight"], b);
  assert.equal(Object.keys(flatten(a, "x")), ["x"]);
  assert.throws(
    () => flatten({ layers: [{ rank: 4 as unknown as tf.Tensor }] }),
    /layers\.0\.rank is 4/,
  );
  tf.dispose([a, b, c]);
});

test("valueAndGrads: a quadratic by hand, zero for what does not matter, frozen ones left out", () => {
  const before = memory();
  const params = tf.tidy(() => ({
    w: tf.variable(tf.tensor1d([1, -2])),
    list: [tf.variable(tf.tensor1d([3, 5])), tf.variable(tf.scalar(7))],
    frozen: tf.variable(tf.scalar(2), false),
    constant: tf.scalar(1),
  }));
  // loss = frozen sum(w^2 v): d/dw = 2 frozen w v, d/dv = frozen w^2
  const { value, grads } = valueAndGrads(
    () =>
      tf.mul(
        params.frozen,
        tf.sum(tf.mul(tf.square(params.w), params.list[0])),
      ) as Scalar,
    params,
  );
  assert.is(value.dataSync()[0], 46);
  assert.equal(Object.keys(grads), ["w", "list.0", "list.1"]);
  assert.equal([...grads.w.dataSync()], [12, -40]);
  assert.equal([...grads["list.0"].dataSync()], [2, 8]);
  assert.equal([...grads["list.1"].dataSync()], [0]);
  tf.dispose([value, ...Object.values(grads)]);
  tf.dispose(Object.values(flatten(params)));
  assert.equal(memory(), before);
});

test("the leak check sees a leak (negative control)", () => {
  const before = memory();
  const leaked = tf.zeros([3]);
  assert.is(memory().tensors, before.tensors + 1);
  assert.is(memory().bytes, before.bytes + 12);
  leaked.dispose();
  assert.equal(memory(), before);
});

test.run();
