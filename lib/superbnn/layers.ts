/**
 * Operations of a binary layer: signs with straight-through gradients, inputs and weights of tiles, pooling.
 *
 * Straight-through gradient: I. Hubara et al., "Binarized Neural Networks", NeurIPS 2016, arXiv 1602.02830.
 *
 * B images, R = B times positions rows, K tiles of Cs inputs.
 */
import { type Tensor, tf } from "../core/tensor.ts";

/**
 * sign(x), sign(0) = +1, with a straight-through gradient: 1 where |x| <= limit, else 0.
 *
 * d sign(x) / dx := 1[|x| <= 1]    (arXiv 1602.02830, Eq. 4); for latent weights, which are clipped or
 * clamped, the limit is Infinity
 */
export function signSte(x: Tensor, limit = 1): Tensor {
  return tf.customGrad((input, save) => {
    const t = input as Tensor;
    (save as tf.GradSaveFunc)([t]);
    const value = t.dataSync();
    const out = new Float32Array(value.length);
    for (let i = 0; i < out.length; i++) out[i] = value[i] >= 0 ? 1 : -1;
    return {
      value: tf.tensor(out, t.shape),
      gradFunc: (dy, saved) => {
        if (limit === Infinity) return dy as Tensor;
        return tf.mul(
          dy as Tensor,
          tf.cast(
            tf.lessEqual(tf.abs((saved as Tensor[])[0]), limit),
            "float32",
          ),
        );
      },
    };
  })(x);
}

/** Where the inputs of a layer's neurons lie in a row of the layer before. */
export interface Gather {
  /** [positions, fanIn], -1 outside the map; null for all inputs in order. */
  indices: Int32Array | null;
  fanIn: number;
  positions: number;
  /** Value outside the map: -1, or 0 in the float network. */
  outside: number;
}

/**
 * The inputs of every tile: [K, R, Cs] from [B, inputs], R = B positions; 0 in the unused rest of the last tile.
 */
export function gatherTiles(x: Tensor, gather: Gather, tile: number): Tensor {
  const { indices, fanIn, positions, outside } = gather;
  const [B, inputs] = x.shape;
  const K = Math.ceil(fanIn / tile);
  const R = B * positions;
  return tf.customGrad((input) => {
    const value = (input as Tensor).dataSync() as Float32Array;
    const out = new Float32Array(K * R * tile); // [K, R, Cs]
    for (let k = 0; k < K; k++) {
      const first = k * tile;
      const size = Math.min(tile, fanIn - first);
      for (let b = 0, to = k * R * tile; b < B; b++) {
        const image = b * inputs;
        for (let p = 0; p < positions; p++, to += tile) {
          if (indices === null) {
            const from = image + first;
            for (let i = 0; i < size; i++) out[to + i] = value[from + i];
            continue;
          }
          const at = p * fanIn + first;
          for (let i = 0; i < size; i++) {
            const index = indices[at + i];
            out[to + i] = index < 0 ? outside : value[image + index];
          }
        }
      }
    }
    return {
      value: tf.tensor3d(out, [K, R, tile]),
      gradFunc: (dy) =>
        tf.tensor2d(
          scatterTiles(
            (dy as Tensor).dataSync() as Float32Array,
            gather,
            tile,
            [B, inputs],
          ),
          [B, inputs],
        ),
    };
  })(x);
}

/** Gradients of the inputs of every tile, [K, R, Cs], added up where they came from: [B, inputs]. */
function scatterTiles(
  d: Float32Array,
  { indices, fanIn, positions }: Gather,
  tile: number,
  [B, inputs]: [number, number],
): Float32Array {
  const back = new Float32Array(B * inputs);
  const K = Math.ceil(fanIn / tile);
  for (let k = 0, to = 0; k < K; k++) {
    const first = k * tile;
    const size = Math.min(tile, fanIn - first);
    for (let b = 0; b < B; b++) {
      const image = b * inputs;
      for (let p = 0; p < positions; p++, to += tile) {
        if (indices === null) {
          const from = image + first;
          for (let i = 0; i < size; i++) back[from + i] += d[to + i];
          continue;
        }
        const at = p * fanIn + first;
        for (let i = 0; i < size; i++) {
          const index = indices[at + i];
          if (index >= 0) back[image + index] += d[to + i];
        }
      }
    }
  }
  return back;
}

/** Weights of every tile: [K, out, Cs] from [out, fanIn], 0 in the unused rest. */
export function tileWeights(weight: Tensor, tile: number): Tensor {
  const [out, fanIn] = weight.shape;
  const K = Math.ceil(fanIn / tile);
  const padded = K * tile === fanIn
    ? weight
    : tf.pad(weight, [[0, 0], [0, K * tile - fanIn]]);
  return tf.transpose(tf.reshape(padded, [out, K, tile]), [1, 0, 2]);
}

/** Windows of size x size: the maximum; the gradient is shared by those that have it. */
export function maxPool(
  x: Tensor,
  { width, channels: C, size }: {
    width: number;
    channels: number;
    size: number;
  },
): Tensor {
  const [B, inputs] = x.shape;
  const outWidth = width / size;
  const outputs = inputs / (size * size);
  const rowStride = width * C;
  const outRows = outputs / (outWidth * C);
  return tf.customGrad((input) => {
    const value = (input as Tensor).dataSync() as Float32Array;
    const out = new Float32Array(B * outputs);
    const sharers = new Int32Array(B * outputs);
    for (let row = 0, to = 0; row < B * outRows; row++) {
      for (let column = 0; column < outWidth; column++) {
        const corner = row * size * rowStride + column * size * C;
        for (let c = 0; c < C; c++, to++) {
          let most = -Infinity;
          let n = 0;
          for (let y = 0; y < size; y++) {
            for (let x = 0; x < size; x++) {
              const v = value[corner + y * rowStride + x * C + c];
              if (v > most) {
                most = v;
                n = 1;
              } else if (v === most) n++;
            }
          }
          out[to] = most;
          sharers[to] = n;
        }
      }
    }
    return {
      value: tf.tensor2d(out, [B, outputs]),
      gradFunc: (dy) => {
        const d = (dy as Tensor).dataSync() as Float32Array;
        const back = new Float32Array(value.length);
        for (let row = 0, to = 0; row < B * outRows; row++) {
          for (let column = 0; column < outWidth; column++) {
            const corner = row * size * rowStride + column * size * C;
            for (let c = 0; c < C; c++, to++) {
              const share = d[to] / sharers[to];
              for (let y = 0; y < size; y++) {
                for (let x = 0; x < size; x++) {
                  const i = corner + y * rowStride + x * C + c;
                  if (value[i] === out[to]) back[i] = share;
                }
              }
            }
          }
        }
        return tf.tensor2d(back, [B, inputs]);
      },
    };
  })(x);
}
