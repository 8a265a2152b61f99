/**
 * The ground that the kernels stand on: their module, pointers, results and scratch memory.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { Buffer } from "node:buffer";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { backendInfo, memory, ready, tf } from "../lib/core/tensor.ts";
import {
  address,
  heap,
  kernels,
  output,
  outputInfo,
  scratch,
} from "../lib/core/kernels/bindings.ts";
import { RELAXED, SIMD128 } from "../lib/core/kernels/generated.ts";
import { checkSections, compile } from "../scripts/build-kernels.ts";

test("before ready() there are no kernels, and asking for memory is an error", () => {
  assert.is(kernels(), null);
  assert.throws(() => output([2]), /check that kernels\(\) is not null/);
});

test("both builds own no memory and export the same functions", async () => {
  process.env.ADIABAT_BACKEND = "wasm";
  await ready();
  const exported = [SIMD128, RELAXED].map((base64, i) => {
    const binary = Buffer.from(base64, "base64");
    checkSections(binary);
    // An engine without relaxed SIMD cannot even describe the second.
    if (!WebAssembly.validate(binary)) {
      assert.is(i, 1);
      return null;
    }
    const module = new WebAssembly.Module(binary);
    assert.equal(WebAssembly.Module.imports(module), [
      { module: "env", name: "memory", kind: "memory" },
    ]);
    return WebAssembly.Module.exports(module)
      .filter(({ kind }) => kind === "function").map(({ name }) => name);
  });
  assert.ok(exported[0]!.includes("gemm"));
  if (exported[1] !== null) assert.equal(exported[1], exported[0]);
  assert.is.not(backendInfo().kernels, "none");
});

test("sources with static data or a syntax error do not build (negative control)", async () => {
  const folder = mkdtempSync(join(tmpdir(), "adiabat-test-"));
  const source = (name: string, text: string) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  try {
    const good = await compile(
      ["simd"],
      source("good.ts", "export function f(x: f32): f32 { return x * 2; }"),
    );
    assert.ok(WebAssembly.validate(new Uint8Array(good)));
    const data = source(
      "data.ts",
      "const table: StaticArray<f32> = [1, 2];\n" +
        "export function f(i: i32): f32 { return table[i]; }",
    );
    const broken = source("broken.ts", "export function f(: i32 { }");
    for (
      const [entry, message] of [[data, /static data/], [
        broken,
        /ERROR/,
      ]] as [
        string,
        RegExp,
      ][]
    ) {
      let caught = "";
      await compile(["simd"], entry).catch((error) => caught = error.message);
      assert.match(caught, message);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("address points to the data of a tensor, and a reshape shares it", () => {
  const x = tf.tensor2d([1, 2, 3, 4, 5, 6], [2, 3]);
  const y = tf.reshape(x, [3, 2]);
  assert.is(address(x), address(y));
  assert.is(address(x) % 4, 0);
  assert.equal([...heap().subarray(address(x) / 4, address(x) / 4 + 6)], [
    1,
    2,
    3,
    4,
    5,
    6,
  ]);
  heap()[address(x) / 4 + 1] = 20;
  assert.equal([...y.dataSync()], [1, 20, 3, 4, 5, 6]);
  const v = tf.variable(x);
  assert.equal([...heap().subarray(address(v) / 4, address(v) / 4 + 2)], [
    1,
    20,
  ]);
  tf.dispose([x, y, v]);
});

test("output is a tensor like any other: tidied, counted, differentiable inside customGrad", () => {
  const before = memory();
  const kept = tf.tidy(() => {
    output([100]);
    output([3, 4], "int32");
    return tf.keep(output([5]));
  });
  assert.is(memory().tensors, before.tensors + 1);
  assert.is(memory().bytes, before.bytes + 20);
  kept.dispose();
  assert.equal(memory(), before);

  // y = 3 x, computed straight in the memory.
  const triple = (x: tf.Tensor): tf.Tensor => {
    const y = output(x.shape);
    const [from, to] = [address(x) / 4, address(y) / 4];
    const values = heap();
    for (let i = 0; i < x.size; i++) values[to + i] = 3 * values[from + i];
    return y;
  };
  const op = tf.customGrad((x) => ({
    value: triple(x as tf.Tensor),
    gradFunc: (dy: tf.Tensor) => triple(dy),
  }));
  tf.tidy(() => {
    const x = tf.tensor1d([1, -2]);
    const slope = tf.grad((t: tf.Tensor) => tf.sum(tf.square(op(t))))(x);
    assert.equal([...slope.dataSync()], [18, -36]); // d(9 x^2) = 18 x
  });
  assert.equal(memory(), before);
});

test("outputInfo makes the record that a tfjs kernel returns", () => {
  const info = outputInfo([2, 2]);
  assert.equal(info.shape, [2, 2]);
  assert.is(info.dtype, "float32");
  assert.ok(address(info) > 0);
  (tf.backend() as unknown as { disposeData(id: object): void })
    .disposeData(info.dataId);
});

test("scratch is aligned, grows, and is apart from every tensor", () => {
  const before = memory();
  const small = scratch(100);
  assert.is(small % 64, 0);
  assert.is(scratch(50), small, "no larger: the same block");
  const large = scratch(1 << 20);
  assert.is(large % 64, 0);
  assert.is(scratch(1 << 20), large);
  const x = tf.ones([1000]);
  heap().fill(7, large / 4, (large + (1 << 20)) / 4);
  assert.ok(x.dataSync().every((value) => value === 1));
  x.dispose();
  assert.equal(memory(), before, "scratch is not counted as a tensor");
});

test("1,000 results, one after another, take no memory", () => {
  const step = () =>
    tf.tidy(() => {
      output([1000]);
      scratch(1 << 20);
    });
  step();
  const [before, bytes] = [memory(), heap().byteLength];
  for (let i = 0; i < 1000; i++) step();
  assert.equal(memory(), before);
  assert.is(heap().byteLength, bytes);
});

test.run();
