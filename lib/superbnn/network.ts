/**
 * The deployed binary network of SupeRBNN: plain data that training exports and the simulator runs.
 *
 * SupeRBNN: Z. Li et al., "SupeRBNN: Randomized Binary Neural Network Using Adiabatic Superconductor
 * Josephson Devices", MICRO 2023, arXiv 2309.12212.
 *
 * Weights and activations are +1 or -1. A neuron sums the products of its inputs and its weights, which
 * XNOR cells compute, and fires where the sum exceeds its threshold; batch normalisation is folded into
 * that threshold (batch-norm.ts). Nothing is left in floating point but the encoding of the image at the
 * front and one affine function per class at the back, both of which are stated here and counted nowhere
 * as work of the device.
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | a | bits | [N, inputs], +1 or -1 |
 * | w | weights | [outputs, inputs], +1 or -1 |
 * | V = sum_i w_i a_i | sums | [N, outputs], integer of the parity of `inputs` |
 * | V_th | thresholds | [outputs] |
 *
 * Layout: images and feature maps are [height, width, channels]; a filter is [kernel, kernel, channels], row by
 * row, and a crossbar takes consecutive inputs of that order.
 *
 * Scope: fully connected and convolutional layers, pooling by OR, one score layer. Places outside a
 * feature map hold -1 (the bit 0), as a cell of a crossbar has no third state. `idealForward` is the exact
 * network without a device: the oracle of everything faster and the limit of everything random.
 */
import { readFileSync } from "node:fs";
import {
  readSafetensors,
  readSafetensorsHeader,
  saveSafetensors,
  type StoredTensor,
  writeSafetensors,
} from "../core/formats/safetensors.ts";

/** How the numbers of an image become bits: bit t of a number is +1 where the number exceeds threshold t. */
export interface InputEncoding {
  height: number;
  width: number;
  channels: number;
  /** Thresholds, hence bits, per number; the bits of a number lie beside each other. */
  levels: number;
  /** [height, width, channels, levels], in the unit of the image, 0 to 255. */
  thresholds: Float64Array;
}

/** A fully connected layer. */
export interface DenseLayer {
  kind: "dense";
  inputs: number;
  outputs: number;
  /** [outputs, inputs], +1 or -1; columns of a negative gamma are already flipped. */
  weights: Int8Array;
  /** [outputs]; fires (+1) where the sum exceeds it, -Infinity always and Infinity never. */
  thresholds: Float64Array;
}

/** A convolution: a dense layer on every patch of the padded feature map. */
export interface ConvLayer {
  kind: "conv";
  height: number;
  width: number;
  inChannels: number;
  outChannels: number;
  kernel: number;
  stride: number;
  /** Places on each side, which hold -1. */
  pad: number;
  /** [outChannels, kernel, kernel, inChannels], +1 or -1. */
  weights: Int8Array;
  /** [outChannels]. */
  thresholds: Float64Array;
}

/** OR of windows of size x size that do not overlap: the maximum of bits. */
export interface PoolLayer {
  kind: "pool";
  height: number;
  width: number;
  channels: number;
  size: number;
}

/**
 * The last layer: score of class k = scale[k] V_k + offset[k]; the greatest wins, the first of equals.
 *
 * A stream is decoded into the unit of V before this (`streamGain`), so that one network serves the exact
 * sum and every crossbar size, gray zone and stream length.
 */
export interface ScoreLayer {
  kind: "scores";
  inputs: number;
  /** Classes. */
  outputs: number;
  /** [outputs, inputs], +1 or -1. */
  weights: Int8Array;
  /** [outputs]. */
  scale: Float64Array;
  /** [outputs]. */
  offset: Float64Array;
}

/** A layer with thresholds. */
export type BinaryLayer = DenseLayer | ConvLayer;

export type Layer = BinaryLayer | PoolLayer | ScoreLayer;

/** A network as it is deployed; the last layer is the only one with scores. */
export interface BinaryNetwork {
  input: InputEncoding;
  layers: Layer[];
  /** Where it comes from: data, method, options. */
  note: string;
}

/** What a layer takes and gives, in bits (or, at the end, scores). */
export interface LayerSizes {
  inputs: number;
  outputs: number;
  /** Inputs of one neuron; 0 for pooling. */
  fanIn: number;
  /** Neurons, or channels of a convolution. */
  neurons: number;
  /** Times that the same neurons are used for one image; 1 but for convolutions. */
  positions: number;
}

/** Greatest number of elements of one array: what a file may ask us to hold. */
const MAX_ELEMENTS = 2 ** 28;

const FORMAT = "adiabat-binary-network-1";

// Sizes -------------------------------------------------------------------------------------------

/** Places of an output row (or column) of a convolution. */
export function convOutput(
  { kernel, stride, pad }: Pick<ConvLayer, "kernel" | "stride" | "pad">,
  size: number,
): number {
  return Math.floor((size + 2 * pad - kernel) / stride) + 1;
}

/** Bits in and out of a layer, and what one neuron sees. */
export function layerSizes(layer: Layer): LayerSizes {
  switch (layer.kind) {
    case "dense":
    case "scores":
      return {
        inputs: layer.inputs,
        outputs: layer.outputs,
        fanIn: layer.inputs,
        neurons: layer.outputs,
        positions: 1,
      };
    case "conv": {
      const { height, width, inChannels, outChannels, kernel } = layer;
      const positions = convOutput(layer, height) * convOutput(layer, width);
      return {
        inputs: height * width * inChannels,
        outputs: positions * outChannels,
        fanIn: kernel * kernel * inChannels,
        neurons: outChannels,
        positions,
      };
    }
    case "pool": {
      const { height, width, channels, size } = layer;
      const positions = (height / size) * (width / size);
      return {
        inputs: height * width * channels,
        outputs: positions * channels,
        fanIn: 0,
        neurons: channels,
        positions,
      };
    }
  }
}

/** Bits of an encoded image. */
export function inputBits({ input }: BinaryNetwork): number {
  return input.height * input.width * input.channels * input.levels;
}

/**
 * For every place of the output and every tap of the filter, the index of the input bit; -1 outside.
 *
 * @returns [positions, kernel * kernel * inChannels]
 */
export function patchIndices(
  layer: Pick<
    ConvLayer,
    "height" | "width" | "inChannels" | "kernel" | "stride" | "pad"
  >,
): Int32Array {
  const { height, width, inChannels: C, kernel, stride, pad } = layer;
  const outHeight = convOutput(layer, height);
  const outWidth = convOutput(layer, width);
  const out = new Int32Array(outHeight * outWidth * kernel * kernel * C);
  let at = 0;
  for (let y = 0; y < outHeight; y++) {
    for (let x = 0; x < outWidth; x++) {
      for (let dy = 0; dy < kernel; dy++) {
        for (let dx = 0; dx < kernel; dx++) {
          const row = y * stride - pad + dy;
          const column = x * stride - pad + dx;
          const inside = row >= 0 && row < height && column >= 0 &&
            column < width;
          for (let c = 0; c < C; c++) {
            out[at++] = inside ? (row * width + column) * C + c : -1;
          }
        }
      }
    }
  }
  return out;
}

// Checks ------------------------------------------------------------------------------------------

/** Throws unless every given size is an integer from `min`. */
function checkSizes(
  where: string,
  sizes: Record<string, number>,
  min = 1,
): void {
  for (const [name, value] of Object.entries(sizes)) {
    if (
      !Number.isSafeInteger(value) || value < min || value > MAX_ELEMENTS
    ) {
      throw new RangeError(
        `Cannot use the network as ${name} of ${where} must be an integer from ${min}: ${value}`,
      );
    }
  }
}

function checkArray(
  where: string,
  name: string,
  array: ArrayLike<number>,
  length: number,
  type: Int8ArrayConstructor | Float64ArrayConstructor,
): void {
  if (!(array instanceof type)) {
    throw new TypeError(
      `Cannot use the network as ${name} of ${where} must be a ${type.name}: ${
        Object.prototype.toString.call(array)
      }`,
    );
  }
  if (array.length !== length) {
    throw new RangeError(
      `Cannot use the network as ${name} of ${where} must have ${length} values: ${array.length}`,
    );
  }
}

function checkSigns(where: string, weights: Int8Array): void {
  const bad = weights.findIndex((w) => w !== 1 && w !== -1);
  if (bad >= 0) {
    throw new RangeError(
      `Cannot use the network as the weights of ${where} must be +1 or -1: weight ${bad} is ${
        weights[bad]
      }`,
    );
  }
}

/** Throws unless every value is a number, finite where infinity has no meaning. */
function checkNumbers(
  where: string,
  name: string,
  values: Float64Array,
  finite: boolean,
): void {
  const bad = values.findIndex((v) => finite ? !Number.isFinite(v) : v !== v);
  if (bad >= 0) {
    throw new RangeError(
      `Cannot use the network as ${name} of ${where} must be ${
        finite ? "finite" : "a number"
      }: ${name} ${bad} is ${values[bad]}`,
    );
  }
}

/** Throws unless one layer is consistent in itself. */
function checkLayer(layer: Layer, where: string): void {
  switch (layer.kind) {
    case "dense":
    case "scores":
      checkSizes(where, { inputs: layer.inputs, outputs: layer.outputs });
      break;
    case "conv": {
      const { height, width, inChannels, outChannels, kernel, stride, pad } =
        layer;
      checkSizes(where, {
        height,
        width,
        inChannels,
        outChannels,
        kernel,
        stride,
      });
      checkSizes(where, { pad }, 0);
      if (pad >= kernel || kernel > Math.min(height, width) + 2 * pad) {
        throw new RangeError(
          `Cannot use the network as the filter of ${where} must fit into the padded map, with less padding than filter: kernel ${kernel}, pad ${pad}, map ${height} x ${width}`,
        );
      }
      break;
    }
    case "pool": {
      const { height, width, channels, size } = layer;
      checkSizes(where, { height, width, channels, size });
      if (height % size !== 0 || width % size !== 0) {
        throw new RangeError(
          `Cannot use the network as the windows of ${where} must tile the map: size ${size}, map ${height} x ${width}`,
        );
      }
      return;
    }
    default:
      throw new TypeError(
        `Cannot use the network as the kind of ${where} must be dense, conv, pool or scores: ${
          JSON.stringify((layer as { kind?: unknown }).kind)
        }`,
      );
  }
  const { fanIn, neurons } = layerSizes(layer);
  checkArray(where, "weights", layer.weights, neurons * fanIn, Int8Array);
  checkSigns(where, layer.weights);
  if (layer.kind === "scores") {
    for (const name of ["scale", "offset"] as const) {
      checkArray(where, name, layer[name], neurons, Float64Array);
      checkNumbers(where, name, layer[name], true);
    }
  } else {
    checkArray(where, "thresholds", layer.thresholds, neurons, Float64Array);
    checkNumbers(where, "thresholds", layer.thresholds, false);
  }
}

/**
 * Throws unless the layers fit each other, weights are +1 or -1, and only the last layer gives scores.
 *
 * @throws {RangeError | TypeError} naming the layer and what it has
 */
export function checkNetwork(network: BinaryNetwork): void {
  const { input, layers } = network;
  const { height, width, channels, levels, thresholds } = input;
  checkSizes("the input", { height, width, channels, levels });
  checkArray(
    "the input",
    "thresholds",
    thresholds,
    inputBits(network),
    Float64Array,
  );
  checkNumbers("the input", "thresholds", thresholds, false);
  if (layers.length === 0 || layers[layers.length - 1].kind !== "scores") {
    throw new RangeError(
      `Cannot use the network as its last layer must be the scores: ${
        layers.map(({ kind }) => kind).join(", ") || "no layers"
      }`,
    );
  }
  let bits = inputBits(network);
  layers.forEach((layer, i) => {
    const where = `layer ${i} (${layer.kind})`;
    checkLayer(layer, where);
    if (layer.kind === "scores" && i < layers.length - 1) {
      throw new RangeError(
        `Cannot use the network as only the last layer gives scores: layer ${i} of ${layers.length}`,
      );
    }
    const { inputs, outputs } = layerSizes(layer);
    if (inputs !== bits) {
      throw new RangeError(
        `Cannot use the network as ${where} must take the ${bits} bits before it: ${inputs}`,
      );
    }
    bits = outputs;
  });
}

// The exact network -------------------------------------------------------------------------------

/**
 * Bits of images: +1 where a number exceeds its threshold, else -1.
 *
 * @param images [N, height, width, channels], 0 to 255
 * @returns [N, height * width * channels * levels]
 */
export function encodeImages(
  encoding: InputEncoding,
  images: Uint8Array,
): Int8Array {
  const { height, width, channels, levels, thresholds } = encoding;
  const size = height * width * channels;
  if (images.length % size !== 0) {
    throw new RangeError(
      `Cannot encode images as each must have ${height} x ${width} x ${channels} numbers: ${images.length} in all`,
    );
  }
  const out = new Int8Array(images.length * levels);
  for (let i = 0, at = 0; i < images.length; i++) {
    const first = (i % size) * levels;
    for (let t = 0; t < levels; t++) {
      out[at++] = images[i] > thresholds[first + t] ? 1 : -1;
    }
  }
  return out;
}

/** V = sum_i w_i a_i of one neuron. */
function neuronSum(
  weights: Int8Array,
  row: number,
  fanIn: number,
  bit: (i: number) => number,
): number {
  let sum = 0;
  for (let i = 0; i < fanIn; i++) sum += weights[row * fanIn + i] * bit(i);
  return sum;
}

/** Sums of one layer for one image, [positions, neurons]. */
function layerSums(
  layer: BinaryLayer | ScoreLayer,
  bits: Int8Array,
): Int32Array {
  const { fanIn, neurons, positions } = layerSizes(layer);
  const sums = new Int32Array(positions * neurons);
  const patches = layer.kind === "conv" ? patchIndices(layer) : null;
  for (let p = 0; p < positions; p++) {
    const bit = patches === null ? (i: number) => bits[i] : (i: number) => {
      const source = patches[p * fanIn + i];
      return source < 0 ? -1 : bits[source];
    };
    for (let n = 0; n < neurons; n++) {
      sums[p * neurons + n] = neuronSum(layer.weights, n, fanIn, bit);
    }
  }
  return sums;
}

function pool(layer: PoolLayer, bits: Int8Array): Int8Array {
  const { width, channels: C, size } = layer;
  const out = new Int8Array(layerSizes(layer).outputs).fill(-1);
  const outWidth = width / size;
  for (let i = 0; i < bits.length; i++) {
    if (bits[i] !== 1) continue;
    const y = Math.floor(i / (width * C));
    const x = Math.floor(i / C) % width;
    const at = Math.floor(y / size) * outWidth + Math.floor(x / size);
    out[at * C + i % C] = 1;
  }
  return out;
}

/** Index of the greatest value, the first of equals. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let k = 1; k < values.length; k++) {
    if (values[k] > values[best]) best = k;
  }
  return best;
}

/** What the exact network says of images. */
export interface IdealResult {
  /** [N, classes] */
  scores: Float64Array;
  /** [N] */
  labels: Uint8Array;
  /** With `trace`: for every layer the sums V [N, positions, neurons], null for pooling. */
  sums?: (Int32Array | null)[];
}

/**
 * The network without a device: exact integer sums, one neuron after the other, slow and plain.
 *
 * @param bits [N, inputs] of +1 and -1, from `encodeImages`
 * @param options `trace` keeps all sums
 * @example
 * ```ts
 * const { labels } = idealForward(network, encodeImages(network.input, images));
 * ```
 */
export function idealForward(
  network: BinaryNetwork,
  bits: Int8Array,
  { trace = false }: { trace?: boolean } = {},
): IdealResult {
  checkNetwork(network);
  const width = inputBits(network);
  if (bits.length % width !== 0) {
    throw new RangeError(
      `Cannot run the network as each image must have ${width} bits: ${bits.length} in all`,
    );
  }
  const { layers } = network;
  const N = bits.length / width;
  const classes = layerSizes(layers[layers.length - 1]).outputs;
  const scores = new Float64Array(N * classes);
  const labels = new Uint8Array(N);
  const sums = layers.map((layer) =>
    trace && layer.kind !== "pool"
      ? new Int32Array(N * layerSizes(layer).outputs)
      : null
  );
  for (let n = 0; n < N; n++) {
    let a = bits.subarray(n * width, (n + 1) * width);
    layers.forEach((layer, i) => {
      if (layer.kind === "pool") {
        a = pool(layer, a);
        return;
      }
      const V = layerSums(layer, a); // [positions, neurons]
      sums[i]?.set(V, n * V.length);
      if (layer.kind === "scores") {
        const row = Float64Array.from(
          V,
          (v, k) => layer.scale[k] * v + layer.offset[k],
        );
        scores.set(row, n * classes);
        labels[n] = argmax(row);
      } else {
        const { thresholds } = layer;
        a = Int8Array.from(
          V,
          (v, j) => v > thresholds[j % thresholds.length] ? 1 : -1,
        );
      }
    });
  }
  return trace ? { scores, labels, sums } : { scores, labels };
}

/**
 * Value of V that one unit of a decoded stream stands for.
 *
 * The decoded sum of K tiles is m = sum_k m_k with E[m_k] = erf(sqrt(pi) V_k / DV). For V_k normal with
 * variance s^2 (a tile of n random +1 and -1 has s^2 = n) the slope of the best line through E[m_k] is
 * E[dE[m_k]/dV_k] = 2 / sqrt(DV^2 + 2 pi s^2), so
 *
 * gain = sqrt(DV^2 + 2 pi s^2) / 2    (derived; DV / 2 for a wide gray zone, where erf is a line)
 *
 * A constant factor of the whole layer: it takes the stream to the unit of V, in which the offsets of the
 * score layer are stored, and changes no comparison of sums.
 *
 * @param grayZone DV, in units of V, from 0
 * @param tileInputs n, mean number of inputs of a tile
 */
export function streamGain(grayZone: number, tileInputs: number): number {
  if (!(grayZone >= 0 && tileInputs > 0)) {
    throw new RangeError(
      `Cannot decode a stream as its gray zone must be from 0 and its tiles have inputs: gray zone ${grayZone}, inputs ${tileInputs}`,
    );
  }
  return Math.sqrt(grayZone ** 2 + 2 * Math.PI * tileInputs) / 2;
}

// Files -------------------------------------------------------------------------------------------

/** One bit a weight, +1 as 1, the first in the lowest bit. */
function packSigns(weights: Int8Array): Uint8Array {
  const out = new Uint8Array(Math.ceil(weights.length / 8));
  weights.forEach((w, i) => {
    if (w === 1) out[i >> 3] |= 1 << (i & 7);
  });
  return out;
}

function unpackSigns(packed: Uint8Array, length: number): Int8Array {
  return Int8Array.from(
    { length },
    (_, i) => (packed[i >> 3] >> (i & 7)) & 1 ? 1 : -1,
  );
}

/** Names of the arrays of a layer that are stored as they are. */
function numberArrays(layer: { kind: string }): string[] {
  if (layer.kind === "scores") return ["scale", "offset"];
  return layer.kind === "pool" ? [] : ["thresholds"];
}

/** Tensors and metadata of a network: the sizes as JSON, the arrays beside them. */
function toTensors(network: BinaryNetwork): {
  tensors: Record<string, StoredTensor>;
  metadata: Record<string, string>;
} {
  checkNetwork(network);
  const tensors: Record<string, StoredTensor> = {};
  const plain = (prefix: string, part: InputEncoding | Layer) =>
    Object.fromEntries(
      Object.entries(part).filter(([name, value]) => {
        if (!ArrayBuffer.isView(value)) return true;
        const path = `${prefix}.${name}`;
        if (value instanceof Int8Array) {
          const data = packSigns(value);
          tensors[path] = { dtype: "U8", shape: [data.length], data };
        } else {
          const data = value as Float64Array;
          tensors[path] = { dtype: "F64", shape: [data.length], data };
        }
        return false;
      }),
    );
  const structure = {
    input: plain("input", network.input),
    layers: network.layers.map((layer, i) => plain(`layers.${i}`, layer)),
    note: network.note,
  };
  return {
    tensors,
    metadata: { format: FORMAT, network: JSON.stringify(structure) },
  };
}

/** The bytes of a safetensors file with a network: weights as bits, thresholds as float64. */
export function writeNetwork(network: BinaryNetwork): Uint8Array {
  const { tensors, metadata } = toTensors(network);
  return writeSafetensors(tensors, metadata);
}

/** Writes `writeNetwork`'s bytes to a file; it appears complete or not at all. */
export function saveNetwork(path: string, network: BinaryNetwork): void {
  const { tensors, metadata } = toTensors(network);
  saveSafetensors(path, tensors, metadata);
}

function invalid(what: string): SyntaxError {
  return new SyntaxError(`Cannot read the network as ${what}`);
}

/** A JSON object's entry as an object. */
function asObject(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalid(`${what} must be an object: ${JSON.stringify(value)}`);
  }
  return value as Record<string, unknown>;
}

/**
 * A network from the bytes of `writeNetwork`, checked by `checkNetwork`.
 *
 * @throws {SyntaxError} if the file is no network, RangeError or TypeError if the network is inconsistent
 */
export function readNetwork(bytes: Uint8Array): BinaryNetwork {
  const { metadata } = readSafetensorsHeader(bytes);
  const tensors = readSafetensors(bytes);
  if (metadata.format !== FORMAT) {
    throw invalid(
      `the metadata must name the format ${FORMAT}: ${metadata.format}`,
    );
  }
  let structure: Record<string, unknown>;
  try {
    structure = asObject(JSON.parse(metadata.network ?? ""), "the structure");
  } catch (error) {
    throw invalid(
      `its structure must be a JSON object: ${(error as Error).message}`,
    );
  }
  const used = new Set<string>();
  const numbers = (path: string): Float64Array => {
    const tensor = tensors[path];
    used.add(path);
    if (tensor === undefined || !(tensor.data instanceof Float64Array)) {
      throw invalid(
        `${path} must be stored as F64: ${tensor?.dtype ?? "missing"}`,
      );
    }
    return tensor.data.slice();
  };
  const signs = (path: string, length: number): Int8Array => {
    const tensor = tensors[path];
    used.add(path);
    if (
      tensor === undefined || !(tensor.data instanceof Uint8Array) ||
      tensor.data.length !== Math.ceil(length / 8)
    ) {
      throw invalid(
        `${path} must be stored as U8, a bit for each of ${length} weights: ${
          tensor === undefined
            ? "missing"
            : `${tensor.dtype} ${tensor.data.length}`
        }`,
      );
    }
    return unpackSigns(tensor.data, length);
  };
  const { layers: rows, note } = structure;
  if (!Array.isArray(rows) || typeof note !== "string") {
    throw invalid(
      "its structure must have a list of layers and a note",
    );
  }
  const layers = rows.map((row, i) => {
    const where = `layer ${i}`;
    const sizes = asObject(row, where);
    for (const [name, value] of Object.entries(sizes)) {
      if (name !== "kind") checkSizes(where, { [name]: value as number }, 0);
    }
    const layer = { ...sizes } as unknown as Layer;
    if (!["dense", "conv", "pool", "scores"].includes(layer.kind)) {
      throw invalid(
        `the kind of ${where} must be dense, conv, pool or scores: ${
          JSON.stringify(layer.kind)
        }`,
      );
    }
    if (layer.kind !== "pool") {
      const { neurons, fanIn } = layerSizes(layer);
      checkSizes(where, { "number of weights": neurons * fanIn });
      layer.weights = signs(`layers.${i}.weights`, neurons * fanIn);
    }
    for (const name of numberArrays(layer)) {
      Object.assign(layer, { [name]: numbers(`layers.${i}.${name}`) });
    }
    return layer;
  });
  const input = {
    ...asObject(structure.input, "the input"),
    thresholds: numbers("input.thresholds"),
  } as unknown as InputEncoding;
  const extra = Object.keys(tensors).filter((path) => !used.has(path));
  if (extra.length > 0) {
    throw invalid(`every tensor must belong to a layer: ${extra.join(", ")}`);
  }
  const network: BinaryNetwork = { input, layers, note };
  checkNetwork(network);
  return network;
}

/** A network from a file of `saveNetwork`. */
export function loadNetwork(path: string): BinaryNetwork {
  return readNetwork(readFileSync(path));
}
