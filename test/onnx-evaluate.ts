/**
 * The ONNX operators that our exports use, evaluated slowly in double precision: the oracle of what an
 * exported graph means (onnx/onnx docs/Operators.md, version 18; microsoft/onnxruntime
 * docs/ContribOperators.md for MatMulNBits). Shares no code with the exporter.
 */
import type { OnnxGraph, OnnxNode } from "../lib/core/formats/onnx.ts";

export interface Value {
  shape: number[];
  data: number[];
}

const product = (shape: number[]) => shape.reduce((a, b) => a * b, 1);

/** Position in each dimension of element i. */
function indexOf(i: number, shape: number[]): number[] {
  const index = new Array<number>(shape.length);
  for (let d = shape.length - 1; d >= 0; d--) {
    index[d] = i % shape[d];
    i = Math.floor(i / shape[d]);
  }
  return index;
}

/** The element at a position; dimensions of size 1 stretch, missing ones are 1. */
function at({ shape, data }: Value, index: number[]): number {
  const skip = index.length - shape.length;
  let i = 0;
  shape.forEach((n, d) => i = i * n + (n === 1 ? 0 : index[d + skip]));
  return data[i];
}

function broadcast(shapes: number[][]): number[] {
  const rank = Math.max(...shapes.map((s) => s.length));
  return Array.from({ length: rank }, (_, d) => {
    const sizes = shapes.map((s) => s[d - rank + s.length] ?? 1);
    const size = sizes.find((n) => n !== 1) ?? 1;
    if (sizes.some((n) => n !== 1 && n !== size)) {
      throw new Error(`cannot broadcast ${JSON.stringify(shapes)}`);
    }
    return size;
  });
}

function make(shape: number[], f: (index: number[]) => number): Value {
  const data = Array.from(
    { length: product(shape) },
    (_, i) => f(indexOf(i, shape)),
  );
  return { shape, data };
}

function elementwise(inputs: Value[], f: (...x: number[]) => number): Value {
  return make(
    broadcast(inputs.map((v) => v.shape)),
    (index) => f(...inputs.map((v) => at(v, index))),
  );
}

function matmul(a: Value, b: Value): Value {
  const K = a.shape[a.shape.length - 1];
  const rows = a.shape[a.shape.length - 2];
  const columns = b.shape[b.shape.length - 1];
  if (b.shape[b.shape.length - 2] !== K) throw new Error("inner sizes differ");
  const outer = broadcast([a.shape.slice(0, -2), b.shape.slice(0, -2)]);
  return make([...outer, rows, columns], (index) => {
    const [i, j] = index.slice(-2);
    const rest = index.slice(0, -2);
    let sum = 0;
    for (let k = 0; k < K; k++) {
      sum += at(a, [...rest, i, k]) * at(b, [...rest, k, j]);
    }
    return sum;
  });
}

function roundEven(x: number): number {
  const r = Math.round(x);
  return r - x === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

const clip = (x: number) => Math.min(255, Math.max(0, x));

function rows(x: Value, f: (row: number[]) => number[]): Value {
  const width = x.shape[x.shape.length - 1];
  const data: number[] = [];
  for (let i = 0; i < x.data.length; i += width) {
    data.push(...f(x.data.slice(i, i + width)));
  }
  return {
    shape: [
      ...x.shape.slice(0, -1),
      data.length / product(x.shape.slice(0, -1)),
    ],
    data,
  };
}

function apply(node: OnnxNode, inputs: Value[]): Value[] {
  const attribute = (name: string, otherwise?: unknown) =>
    node.attributes?.[name]?.value ?? otherwise;
  const number = (name: string, otherwise?: number) =>
    Number(attribute(name, otherwise));
  const [a, b, c] = inputs;
  switch (node.opType) {
    case "Identity":
    case "Cast":
      return [a];
    case "Add":
      return [elementwise(inputs, (x, y) => x + y)];
    case "Sub":
      return [elementwise(inputs, (x, y) => x - y)];
    case "Mul":
      return [elementwise(inputs, (x, y) => x * y)];
    case "Div":
      return [elementwise(inputs, (x, y) => x / y)];
    case "LessOrEqual":
      return [elementwise(inputs, (x, y) => Number(x <= y))];
    case "Where":
      return [elementwise(inputs, (p, x, y) => p ? x : y)];
    case "Sqrt":
      return [elementwise(inputs, Math.sqrt)];
    case "Sigmoid":
      return [elementwise(inputs, (x) => 1 / (1 + Math.exp(-x)))];
    case "MatMul":
      return [matmul(a, b)];
    case "MatMulInteger": {
      const shifted = elementwise([a, c], (x, zero) => x - zero);
      return [matmul(shifted, elementwise([b, inputs[3]], (x, z) => x - z))];
    }
    case "ReduceMean":
      if (b.data.join() !== "-1" || number("keepdims") !== 1) break;
      return [rows(a, (row) => [row.reduce((s, x) => s + x, 0) / row.length])];
    case "Softmax":
      return [rows(a, (row) => {
        const max = Math.max(...row);
        const weights = row.map((x) => Math.exp(x - max));
        const total = weights.reduce((s, x) => s + x, 0);
        return weights.map((x) => x / total);
      })];
    case "Gather":
      return [make([...b.shape, ...a.shape.slice(1)], (index) => {
        const row = at(b, index.slice(0, b.shape.length));
        if (row < 0 || row >= a.shape[0]) {
          throw new Error(`row ${row} of ${a.shape[0]}`);
        }
        return at(a, [row, ...index.slice(b.shape.length)]);
      })];
    case "Reshape": {
      const shape = b.data.map((n, d) => n === 0 ? a.shape[d] : n);
      const known = product(shape.filter((n) => n !== -1));
      return [{
        shape: shape.map((n) => n === -1 ? a.data.length / known : n),
        data: a.data,
      }];
    }
    case "Transpose": {
      const perm = (attribute("perm") as number[]).map(Number);
      return [make(perm.map((d) => a.shape[d]), (index) => {
        const from = new Array<number>(perm.length);
        perm.forEach((d, i) => from[d] = index[i]);
        return at(a, from);
      })];
    }
    case "Split": {
      const half = a.shape[a.shape.length - 1] / 2;
      return [
        rows(a, (row) => row.slice(0, half)),
        rows(a, (row) => row.slice(half)),
      ];
    }
    case "Concat": {
      const axis = (number("axis") + a.shape.length) % a.shape.length;
      const sizes = inputs.map((v) => v.shape[axis]);
      const shape = [...a.shape];
      shape[axis] = sizes[0] + sizes[1];
      return [make(shape, (index) => {
        if (index[axis] < sizes[0]) return at(a, index);
        return at(b, index.map((n, d) => d === axis ? n - sizes[0] : n));
      })];
    }
    case "Squeeze":
      return [{ shape: a.shape.filter((n) => n !== 1), data: a.data }];
    case "Unsqueeze":
      return [{ shape: a.shape.toSpliced(b.data[0], 0, 1), data: a.data }];
    case "Shape": {
      const sizes = a.shape.slice(number("start"), number("end"));
      return [{ shape: [sizes.length], data: sizes }];
    }
    case "Range": {
      const [start, end, step] = inputs.map((v) => v.data[0]);
      return [
        make([Math.ceil((end - start) / step)], ([i]) => start + i * step),
      ];
    }
    case "QuantizeLinear":
      return [
        elementwise(
          inputs,
          (x, s, z) => clip(roundEven(Math.fround(x / s)) + z),
        ),
      ];
    case "DequantizeLinear":
      return [elementwise(inputs, (q, s, z) => (q - z) * s)];
    case "DynamicQuantizeLinear": {
      const min = Math.min(0, ...a.data);
      const scale = Math.fround((Math.max(0, ...a.data) - min) / 255);
      const zero = clip(roundEven(-min / scale));
      return [
        elementwise([a], (x) => clip(roundEven(x / scale) + zero)),
        { shape: [], data: [scale] },
        { shape: [], data: [zero] },
      ];
    }
    case "MatMulNBits": {
      const [K, N, block] = ["K", "N", "block_size"].map((name) =>
        number(name)
      );
      const groups = Math.ceil(K / block);
      const weight = make([K, N], ([k, n]) => {
        const i = n * groups * block + k;
        const nibble = (bytes: number[], i: number) =>
          (bytes[i >> 1] >> (i % 2 * 4)) & 15;
        const g = Math.floor(k / block);
        const zero = inputs[3] === undefined
          ? 8
          : nibble(inputs[3].data, n * 2 * Math.ceil(groups / 2) + g);
        return (nibble(b.data, i) - zero) * c.data[n * groups + g];
      });
      return [matmul(a, weight)];
    }
  }
  throw new Error(`cannot evaluate ${node.opType} as it is used here`);
}

/** The outputs of a graph for some inputs, by name. */
export function evaluateOnnx(
  graph: OnnxGraph,
  inputs: Record<string, Value>,
): Record<string, Value> {
  const values = new Map(Object.entries(inputs));
  for (const { name, shape, data } of graph.initializers) {
    values.set(name, {
      shape,
      data: Array.from(data as ArrayLike<number>, Number),
    });
  }
  for (const node of graph.nodes) {
    const outputs = apply(node, node.inputs.map((name) => values.get(name)!));
    node.outputs.forEach((name, i) => values.set(name, outputs[i]));
  }
  return Object.fromEntries(
    graph.outputs.map(({ name }) => [name, values.get(name)!]),
  );
}
