/** What is inside a quantised model, in a few numbers: attention maps, codes, ranges of channels, bytes. */
import {
  forward,
  type LlamaConfig,
  type LlamaParams,
  parameterShapes,
} from "../core/llama.ts";
import { flatten, type Tensor, tf } from "../core/tensor.ts";
import { floatPass, type Student, studentPass } from "../edgeqat/mod.ts";

/** Tokens of the attention map. */
export const MAP_TOKENS = 16;

/** Points of a curve of sorted channels. */
const CURVE_POINTS = 33;

/** Bytes of a float parameter that is stored, and of a scale. */
const FLOAT_BYTES = 2;

/** Whether the released code quantises a parameter: the matrices of the blocks, not embeddings, norms, head. */
const isBlockMatrix = (name: string) => /_proj\.weight$/.test(name);

const product = (shape: number[]) => shape.reduce((a, b) => a * b, 1);

/**
 * Bytes of a model whose matrices have some bits, the rest and one scale a matrix 16: counted, not a file.
 *
 * @param quantised "blocks": as the released code; "all": embeddings and head too
 */
export function sizeBytes(
  config: LlamaConfig,
  bits: number,
  quantised: "blocks" | "all" = "blocks",
): number {
  let bytes = 0;
  for (const [name, shape] of Object.entries(parameterShapes(config))) {
    const n = product(shape);
    const rounded = quantised === "all"
      ? shape.length === 2
      : isBlockMatrix(name);
    bytes += bits <= 8 && rounded
      ? n * bits / 8 + FLOAT_BYTES
      : n * FLOAT_BYTES;
  }
  return bytes;
}

/** Shape of the paper's LLaMA-58M (released configuration): 58,343,936 parameters. */
export const LLAMA_58M: LlamaConfig = {
  vocabSize: 16_000,
  hiddenSize: 512,
  intermediateSize: 1024,
  numLayers: 16,
  numHeads: 8,
  numKvHeads: 8,
  maxPositions: 256,
  tieWordEmbeddings: false,
};

/** Softmax over the tokens so far, mean over heads, of the last layer: [N N], row by row. */
export function attentionMap(scores: Tensor, N = MAP_TOKENS): number[] {
  const [, H, T] = scores.shape as [number, number, number, number];
  const n = Math.min(N, T);
  return Array.from(tf.tidy(() => {
    const hidden = tf.sub(1, tf.linalg.bandPart(tf.ones([n, n]), -1, 0));
    const own = scores.slice([0, 0, 0, 0], [1, H, n, n]).reshape([H, n, n]);
    return tf.softmax(own.sub(hidden.mul(1e9)) as Tensor).mean(0).dataSync();
  }));
}

/**
 * Shares of the codes -2^(b-1) to 2^(b-1) - 1 in a quantised matrix, from its values alone.
 *
 * The step is the smallest distance of two values that occur; a matrix of one value has code 0 only.
 */
export function codeShares(values: Float32Array, bits: number): number[] {
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  let step = Infinity;
  const largest = Math.max(...distinct.map(Math.abs));
  for (let i = 1; i < distinct.length; i++) {
    const gap = distinct[i] - distinct[i - 1];
    if (gap > 1e-5 * largest) step = Math.min(step, gap);
  }
  const shares: number[] = new Array(2 ** bits).fill(0);
  for (const value of values) {
    shares[Math.round(value / step) + 2 ** (bits - 1)] += 1 / values.length;
  }
  return shares;
}

/** Mean of `codeShares` over the matrices of the blocks. */
function weightCodes(
  { params, options: { method, weightBits }, steps }: Student,
): number[] {
  const total: number[] = new Array(2 ** weightBits).fill(0);
  const matrices = Object.entries(flatten(params)).filter(([name]) =>
    isBlockMatrix(name)
  );
  for (const [name, weight] of matrices) {
    const module = name.replace(/\.weight$/, "");
    const rounded = tf.tidy(() =>
      method.weight.quantizer(
        steps[module][`b${weightBits}`],
        { bits: weightBits, signed: true },
      )(weight).dataSync()
    ) as Float32Array;
    codeShares(rounded, weightBits).forEach((share, i) => {
      total[i] += share / matrices.length;
    });
  }
  return total;
}

/** Largest |x| of each channel (last axis), sorted downwards, at equal distances of the rank. */
export function channelCurve(x: Tensor): number[] {
  const D = x.shape.at(-1)!;
  const largest = tf.tidy(() => x.abs().reshape([-1, D]).max(0).dataSync())
    .slice().sort().reverse();
  return Array.from(
    { length: CURVE_POINTS },
    (_, i) => largest[Math.round(i * (D - 1) / (CURVE_POINTS - 1))],
  );
}

/**
 * Numbers for the figures: the attention map of the last layer on a text, the shares of weight codes (if
 * quantised), and the ranges of channels of float weights and activations (if not).
 *
 * @param ids int32 [1, T]
 */
export function details(
  student: Student,
  ids: Tensor,
): Record<string, number[]> {
  const { params, config, options: { weightBits } } = student;
  const float = weightBits > 8;
  const pass = float ? floatPass() : studentPass(student, { record: true });
  const inputs: Record<string, Tensor> = {};
  tf.tidy(() => {
    forward(params, config, ids, {
      ...pass.options,
      onActivation(name, x) {
        if (/(q_proj|down_proj)\.input$/.test(name)) {
          inputs[name] = tf.keep(x.clone());
        }
        return pass.options.onActivation?.(name, x);
      },
    });
  });
  const last = config.numLayers - 1;
  const found: Record<string, number[]> = {
    attentionMap: attentionMap(pass.trace.scores[last]),
  };
  if (float) {
    const layer = `model.layers.${last}`;
    const weights = flatten(params as LlamaParams);
    found["range.attention input"] = channelCurve(
      inputs[`${layer}.self_attn.q_proj.input`],
    );
    found["range.feed-forward product"] = channelCurve(
      inputs[`${layer}.mlp.down_proj.input`],
    );
    // A row of the matrix is an output: the last axis after transposing.
    found["range.weights of q_proj"] = tf.tidy(() =>
      channelCurve(weights[`${layer}.self_attn.q_proj.weight`].transpose())
    );
  } else found.weightCodes = weightCodes(student);
  pass.trace.dispose();
  tf.dispose(inputs);
  return found;
}
