/**
 * Kernels that replace, or add to, those of tfjs' wasm backend, so that plain `tf.matMul` and its
 * gradients are fast too.
 *
 * The stock BatchMatMul falls to a naive loop as soon as an operand is transposed or batched;
 * UnsortedSegmentSum (the gradient of `tf.gather`) is missing. Identity, with which tfjs also saves
 * tensors for the gradient, copies; here it shares the data, as Reshape does and as Identity does on
 * the other backends.
 */
import type {
  KernelConfig,
  KernelFunc,
  Tensor,
  TensorInfo,
} from "../tensor.ts";
import {
  address,
  heap,
  outputInfo,
  sgemm,
  sgemmBatch,
  type WasmBackend,
} from "./bindings.ts";

interface MatMulInputs {
  a: TensorInfo;
  b: TensorInfo;
  bias?: TensorInfo;
  preluActivationWeights?: TensorInfo;
}

interface MatMulAttrs {
  transposeA?: boolean;
  transposeB?: boolean;
  activation?: string;
  leakyreluAlpha?: number;
}

function product(sizes: number[]): number {
  let size = 1;
  for (const s of sizes) size *= s;
  return size;
}

/** Offset in matrices of batch `index` of `shape` (its batch dimensions) inside `operand`. */
function batchOffset(index: number, shape: number[], operand: number[]) {
  let offset = 0;
  let stride = 1;
  for (let i = 1; i <= shape.length; i++) {
    const size = shape[shape.length - i];
    const own = operand[operand.length - i] ?? 1;
    if (own !== 1) offset += (index % size) * stride;
    stride *= own;
    index = Math.floor(index / size);
  }
  return offset;
}

function batchMatMul(
  a: TensorInfo,
  b: TensorInfo,
  transposeA: boolean,
  transposeB: boolean,
): TensorInfo {
  if (a.dtype !== "float32" || b.dtype !== "float32") {
    throw new TypeError(
      `Cannot multiply as both matrices must be float32: ${a.dtype}, ${b.dtype}`,
    );
  }
  const rankA = a.shape.length;
  const rankB = b.shape.length;
  const [rowsA, columnsA] = [a.shape[rankA - 2], a.shape[rankA - 1]];
  const [rowsB, columnsB] = [b.shape[rankB - 2], b.shape[rankB - 1]];
  const [m, k] = transposeA ? [columnsA, rowsA] : [rowsA, columnsA];
  const [kB, n] = transposeB ? [columnsB, rowsB] : [rowsB, columnsB];
  const batchA = a.shape.slice(0, -2);
  const batchB = b.shape.slice(0, -2);
  const batch: number[] = [];
  for (let i = Math.max(rankA, rankB) - 2; i > 0; i--) {
    const [sA, sB] = [
      batchA[batchA.length - i] ?? 1,
      batchB[batchB.length - i] ?? 1,
    ];
    if (sA !== sB && sA !== 1 && sB !== 1) {
      throw new TypeError(
        `Cannot multiply as the batches do not broadcast: [${a.shape}] by [${b.shape}]`,
      );
    }
    batch.push(sA === 1 ? sB : sA);
  }
  if (k !== kB) {
    throw new TypeError(
      `Cannot multiply as the inner sizes must be equal: [${a.shape}]${
        transposeA ? " transposed" : ""
      } by [${b.shape}]${transposeB ? " transposed" : ""}`,
    );
  }
  const out = outputInfo([...batch, m, n]);
  const [pA, pB, pC] = [address(a), address(b), address(out)];
  const [countA, countB, count] = [
    product(batchA),
    product(batchB),
    product(batch),
  ];
  if (countB === 1 && !transposeA) { // the batch is just more rows
    sgemm(
      false,
      transposeB,
      count * m,
      n,
      k,
      1,
      pA,
      k,
      pB,
      columnsB,
      0,
      pC,
      n,
    );
  } else if (
    (countA === count || countA === 1) && (countB === count || countB === 1)
  ) {
    const strideA = countA === 1 ? 0 : m * k;
    const strideB = countB === 1 ? 0 : k * n;
    sgemmBatch(
      transposeA,
      transposeB,
      m,
      n,
      k,
      1,
      pA,
      columnsA,
      strideA,
      pB,
      columnsB,
      strideB,
      0,
      pC,
      n,
      m * n,
      count,
    );
  } else {
    for (let i = 0; i < count; i++) {
      sgemm(
        transposeA,
        transposeB,
        m,
        n,
        k,
        1,
        pA + 4 * m * k * batchOffset(i, batch, batchA),
        columnsA,
        pB + 4 * k * n * batchOffset(i, batch, batchB),
        columnsB,
        0,
        pC + 4 * m * n * i,
        n,
      );
    }
  }
  return out;
}

/** tfjs' fused activation -> its kernel. */
const ACTIVATIONS: Record<string, string> = {
  relu: "Relu",
  relu6: "Relu6",
  sigmoid: "Sigmoid",
  elu: "Elu",
  prelu: "Prelu",
  leakyrelu: "LeakyRelu",
};

/** Sums the rows of `x` [rows, ...] that share a segment; an id outside the range is dropped. */
function unsortedSegmentSum(
  x: TensorInfo,
  segmentIds: TensorInfo,
  numSegments: number,
): TensorInfo {
  const [rows, ...rest] = x.shape;
  const width = product(rest);
  const out = outputInfo([numSegments, ...rest], x.dtype);
  const { buffer } = heap();
  const View = x.dtype === "int32" ? Int32Array : Float32Array;
  const ids = new Int32Array(buffer, address(segmentIds), rows);
  const from = new View(buffer, address(x), rows * width);
  const to = new View(buffer, address(out), numSegments * width).fill(0);
  for (let i = 0; i < rows; i++) {
    const id = ids[i];
    if (id < 0 || id >= numSegments) continue;
    for (let j = 0; j < width; j++) to[id * width + j] += from[i * width + j];
  }
  return out;
}

/** The kernels to register; `getKernel` finds the stock ones that the fused product is made of. */
export function overrides(
  getKernel: (
    name: string,
    backend: string,
  ) => { kernelFunc: KernelFunc } | undefined,
): KernelConfig[] {
  const config = (kernelName: string, kernelFunc: KernelFunc) => ({
    kernelName,
    backendName: "wasm",
    kernelFunc,
  });
  return [
    config("BatchMatMul", ({ inputs, attrs }) => {
      const { a, b } = inputs as unknown as MatMulInputs;
      const { transposeA, transposeB } = attrs as unknown as MatMulAttrs;
      return batchMatMul(a, b, transposeA === true, transposeB === true);
    }),
    config("_FusedMatMul", ({ inputs, attrs, backend }) => {
      const { a, b, bias, preluActivationWeights: alpha } =
        inputs as unknown as MatMulInputs;
      const { transposeA, transposeB, activation = "linear", leakyreluAlpha } =
        attrs as unknown as MatMulAttrs;
      const wasm = backend as unknown as WasmBackend;
      let y = batchMatMul(a, b, transposeA === true, transposeB === true);
      const then = (
        name: string,
        inputs: Record<string, TensorInfo>,
        attrs = {},
      ) => {
        const kernel = getKernel(name, "wasm");
        if (kernel === undefined) {
          throw new Error(
            `Cannot fuse a product with ${name} as the wasm backend lacks it`,
          );
        }
        const result = kernel.kernelFunc({ inputs, attrs, backend });
        wasm.disposeData(y.dataId);
        y = result as TensorInfo;
      };
      if (bias !== undefined && bias !== null) then("Add", { a: y, b: bias });
      if (activation !== "linear") {
        const name = ACTIVATIONS[activation];
        if (name === undefined) {
          throw new Error(
            `Cannot fuse a product with the activation: ${activation}; known are linear, ${
              Object.keys(ACTIVATIONS).join(", ")
            }`,
          );
        }
        then(
          name,
          name === "Prelu" ? { x: y, alpha: alpha as TensorInfo } : { x: y },
          { alpha: leakyreluAlpha },
        );
      }
      return y;
    }),
    config("Identity", ({ inputs, backend }) => {
      const { dataId, shape, dtype } = inputs.x!;
      (backend as unknown as WasmBackend).incRef(dataId);
      return { dataId, shape, dtype };
    }),
    config("UnsortedSegmentSum", ({ inputs, attrs }) => {
      const { x, segmentIds } = inputs as Record<string, TensorInfo>;
      return unsortedSegmentSum(
        x as Tensor,
        segmentIds,
        (attrs as unknown as { numSegments: number }).numSegments,
      );
    }),
  ];
}
