/**
 * Connection level: each patch that is left attends only to the patches that matter most to it.
 *
 * Kong et al., arXiv 2211.10801, and the authors' released code. Published is a mask: as many operations
 * as before. `gatheredAttention` does the same work on lists of keys and really does less; it pays where
 * the lists are short enough; the experiment measures where.
 *
 *   B images   T tokens, the class token first   H heads   Dh width of a head   m keys of a query
 */
import { attentionMap } from "../core/attention-map.ts";
import { embedding, matmul } from "../core/nn.ts";
import { type Tensor, tf } from "../core/tensor.ts";
import { keptCount, mostImportant } from "./tokens.ts";

/**
 * Abar = (1 / H) sum_h softmax(q k^T / sqrt(Dh)): attention of every token to every token it sees.
 *
 * @param q [B, T, H, Dh]
 * @param k [B, T, H, Dh]
 * @param mask [B, 1, T, T], 0 where seen and -1e30 elsewhere; default all seen
 * @returns [B, T, T] one row after the other
 */
export function meanAttention(
  q: Tensor,
  k: Tensor,
  mask?: Tensor,
): Float32Array {
  return attentionMap(q, k, { mask });
}

/** What a masked connection adds to its score. */
const HIDDEN = -1e30;

/**
 * What is added to the scores of each query and key: 0 where it is seen, -1e30 where not.
 *
 * A patch sees its m = ceil(rho K) strongest patches and the class token; the class token sees all. Of equals the first stays,
 * where the released code keeps all of them.
 *
 * @param attention Mean over the heads, [B, T, T] one row after the other
 * @param shape B and T
 * @param keep rho
 * @param places Patches that stayed, [B, K], in the tokens of `attention`; default all
 * @param fused Whether a fused token follows, which sees and is seen by all; default false
 * @returns [B, S, S] one row after the other, S = 1 + K and one more if a fused token follows
 */
export function connectionMask(
  attention: ArrayLike<number>,
  [B, T]: [number, number],
  keep: number,
  { places, fused = false }: { places?: Int32Array; fused?: boolean } = {},
): Float32Array {
  const K = places === undefined ? T - 1 : places.length / B;
  const m = keptCount(K, keep);
  const S = K + (fused ? 2 : 1);
  const mask = new Float32Array(B * S * S);
  if (m === K) return mask;
  const block = new Float32Array(K * K);
  const place = new Int32Array(K);
  for (let b = 0; b < B; b++) {
    for (let i = 0; i < K; i++) {
      place[i] = 1 + (places === undefined ? i : places[b * K + i]);
    }
    for (let i = 0, to = 0; i < K; i++) {
      const row = (b * T + place[i]) * T;
      for (let j = 0; j < K; j++) block[to++] = attention[row + place[j]];
    }
    const best = mostImportant(block, [K, K], m);
    for (let i = 0; i < K; i++) {
      const row = (b * S + 1 + i) * S + 1;
      mask.fill(HIDDEN, row, row + K);
      for (let n = i * m; n < (i + 1) * m; n++) mask[row + best[n]] = 0;
    }
  }
  return mask;
}

/**
 * Attention of every query to a list of keys, the same for all heads.
 *
 * @param q [B, T, H, Dh]
 * @param k [B, S, H, Dh]
 * @param v [B, S, H, Dh]
 * @param keys int32, [B, T, m] one row after the other
 * @returns [B, T, H, Dh]
 */
export function gatheredAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  keys: Int32Array,
): Tensor {
  const [B, T, H, Dh] = q.shape;
  const S = k.shape[1]!;
  const m = keys.length / (B * T);
  const rows = keys.map((key, i) => Math.floor(i / (T * m)) * S + key);
  const ids = tf.tensor1d(rows, "int32");
  const gather = (x: Tensor) =>
    embedding(ids, x.reshape([B * S, H * Dh]))
      .reshape([B * T, m, H, Dh]).transpose([0, 2, 1, 3])
      .reshape([B * T * H, m, Dh]);
  const scores = matmul(q.reshape([B * T * H, 1, Dh]), gather(k), {
    transposeB: true,
  }).div(Math.sqrt(Dh)); // [B T H, 1, m]
  return matmul(tf.softmax(scores), gather(v)).reshape([B, T, H, Dh]);
}
