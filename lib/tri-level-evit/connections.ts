/**
 * Connection level: each patch that is left attends only to the patches that matter most to it.
 *
 * Kong et al., arXiv 2211.10801, and the authors' released code. Published is a mask: as many operations
 * as before. `gatheredAttention` does the same work on lists of keys and really does less; it pays where
 * the lists are short enough; the experiment measures where.
 *
 *   B images   T tokens, the class token first   H heads   Dh width of a head   m keys of a query
 */
import { embedding, matmul } from "../core/nn.ts";
import { type Tensor, tf } from "../core/tensor.ts";
import { keptCount, mostImportant } from "./tokens.ts";

/**
 * Abar = (1 / H) sum_h softmax(q k^T / sqrt(Dh)): attention of every token to every token it sees.
 *
 * @param q [B, T, H, Dh]
 * @param k [B, T, H, Dh]
 * @param mask [B, 1, T, T], 0 where seen and -1e30 elsewhere; default all seen
 * @returns [B, T, T]
 */
export function meanAttention(q: Tensor, k: Tensor, mask?: Tensor): Tensor {
  const [B, T, H, Dh] = q.shape;
  const heads = (x: Tensor) =>
    x.transpose([0, 2, 1, 3]).reshape([B * H, T, Dh]);
  const scores = matmul(heads(q), heads(k), { transposeB: true })
    .div(Math.sqrt(Dh)).reshape([B, H, T, T]);
  const hidden = mask === undefined ? scores : scores.add(mask);
  return tf.softmax(hidden).mean(1);
}

/**
 * Which keys each query sees: for a patch its m = ceil(rho K) strongest patches and the class token; for the
 * class token all. Of equals the first stays, where the released code keeps all of them.
 *
 * @param attention [B, T, T]
 * @param places Patches that stayed, [B, K], in the tokens of `attention`; default all
 * @returns bool, [B, 1 + K, 1 + K] one row after the other, 1 where seen
 */
export function connectionMask(
  attention: Tensor,
  keep: number,
  places?: Int32Array,
): Uint8Array {
  const [B, T] = attention.shape as [number, number, number];
  const values = attention.dataSync();
  const K = places === undefined ? T - 1 : places.length / B;
  const m = keptCount(K, keep);
  const S = K + 1;
  const place = (b: number, i: number) =>
    1 + (places === undefined ? i : places[b * K + i]);
  const block = new Float32Array(B * K * K);
  let to = 0;
  for (let b = 0; b < B; b++) {
    for (let i = 0; i < K; i++) {
      const row = (b * T + place(b, i)) * T;
      for (let j = 0; j < K; j++) block[to++] = values[row + place(b, j)];
    }
  }
  const best = mostImportant(block, [B * K, K], m);
  const mask = new Uint8Array(B * S * S);
  for (let b = 0; b < B; b++) {
    mask.fill(1, b * S * S, b * S * S + S);
    for (let i = 0; i < K; i++) {
      const row = (b * S + 1 + i) * S;
      mask[row] = 1;
      for (let n = 0; n < m; n++) mask[row + 1 + best[(b * K + i) * m + n]] = 1;
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
