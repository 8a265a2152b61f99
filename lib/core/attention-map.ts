/**
 * Attention probabilities averaged over the heads, as plain numbers: what a choice of tokens or of connections reads.
 *
 * A choice needs no gradient, so nothing is written on the tape. The kernels of `fused.ts` keep their probabilities for the
 * gradient; here each head's are computed once more in working memory and added up at once.
 *
 *   B images   T queries   S keys   H heads   Dh width of a head   R queries asked for
 */
import {
  address,
  heap,
  kernels as installedKernels,
  scratch,
  sgemm,
} from "./kernels/bindings.ts";
import { matmul } from "./nn.ts";
import { type Tensor, tf } from "./tensor.ts";

export interface AttentionMapOptions {
  /** Only the first R queries; default all. */
  queries?: number;
  /** Added to the scores, float32 [B, 1, T, S]: 0 where a key is seen, -1e30 where it is not. */
  mask?: Tensor;
}

/**
 * (1 / H) sum_h softmax(q_h k_h^T / sqrt(Dh) + mask).
 *
 * @param q [B, T, H, Dh]
 * @param k [B, S, H, Dh]
 * @returns [B, R, S], one row after the other; rows of queries or keys that are not numbers are NaN
 * @throws {RangeError} if the shapes do not fit
 */
export function attentionMap(
  q: Tensor,
  k: Tensor,
  { queries = q.shape[1] ?? 0, mask }: AttentionMapOptions = {},
): Float32Array {
  const [B, T, H, Dh] = q.shape;
  const S = k.shape[1];
  if (
    q.rank !== 4 || k.rank !== 4 || k.shape[0] !== B || k.shape[2] !== H ||
    k.shape[3] !== Dh ||
    (mask !== undefined &&
      !tf.util.arraysEqual(mask.shape, [B, 1, T, S!]))
  ) {
    throw new RangeError(
      `Cannot map attention as q must be [B, T, H, Dh], k [B, S, H, Dh] and a mask [B, 1, T, S]: q [${q.shape}], k [${k.shape}]${
        mask === undefined ? "" : `, mask [${mask.shape}]`
      }`,
    );
  }
  if (!Number.isInteger(queries) || queries < 1 || queries > T!) {
    throw new RangeError(
      `Cannot map attention as the queries asked for must be from 1 to ${T}: ${queries}`,
    );
  }
  return (installedKernels() === null ? composed : fused)(q, k, queries, mask);
}

function fused(
  q: Tensor,
  k: Tensor,
  R: number,
  mask?: Tensor,
): Float32Array {
  const [B, T, H, Dh] = q.shape as number[];
  const S = k.shape[1]!;
  const { softmaxRows } = installedKernels()!;
  const out = new Float32Array(B * R * S);
  const width = H * Dh;
  const work = scratch(4 * R * S);
  const [pq, pk] = [q, k].map(address);
  const pm = mask === undefined ? 0 : address(mask);
  const share = 1 / H;
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      const [a, c] = [pq, pk].map((p, i) =>
        p + 4 * (b * (i === 0 ? T : S) * width + h * Dh)
      );
      sgemm(false, true, R, S, Dh, 1, a, width, c, width, 0, work, S);
      softmaxRows(
        work,
        S,
        pm === 0 ? 0 : pm + 4 * b * T * S,
        pm === 0 ? 0 : S,
        R,
        S,
        1 / Math.sqrt(Dh),
        0,
        S,
      );
      const probabilities = heap().subarray(work / 4, work / 4 + R * S);
      const to = b * R * S;
      for (let i = 0; i < R * S; i++) out[to + i] += share * probabilities[i];
    }
  }
  return out;
}

/** The same in operations of the tensor engine. */
function composed(
  q: Tensor,
  k: Tensor,
  R: number,
  mask?: Tensor,
): Float32Array {
  const [B, T, H, Dh] = q.shape as number[];
  const S = k.shape[1]!;
  return tf.tidy(() => {
    const heads = (x: Tensor, length: number) =>
      x.transpose([0, 2, 1, 3]).reshape([B * H, length, Dh]);
    const scores = matmul(heads(q, T), heads(k, S), { transposeB: true })
      .div(Math.sqrt(Dh)).reshape([B, H, T, S]);
    const hidden = mask === undefined ? scores : scores.add(mask);
    return tf.softmax(hidden).mean(1).slice([0, 0, 0], [-1, R, -1])
      .dataSync() as Float32Array;
  });
}
