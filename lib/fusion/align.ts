/**
 * Predictions of a source with another tokenizer, in the target's tokens.
 *
 * As in FuseLLM (Wan et al., arXiv 2401.10491, code): a map from source to target vocabulary by equal
 * text, else smallest edit distance; dynamic time warping between the two token sequences of one text
 * with edit distance as cost. A target token that is matched by one source token of the same (mapped) text
 * gets its distribution, mapped; any other gets all weight on the target's own token.
 *
 * Scope: tokens are aligned as inputs, so a distribution is carried where the tokens that it predicts
 * match; readers of FuseLLM asked about this (18907305772/FuseAI issues 27 and 28).
 */

import type { Tokenizer } from "../core/tokenizer.ts";
import {
  cacheSource,
  type Model,
  type SourceCache,
  textLength,
} from "./sources.ts";

/** Levenshtein distance of two strings, in characters. */
export function editDistance(a: string, b: string): number {
  let before = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row[j] = Math.min(
        before[j] + 1,
        row[j - 1] + 1,
        before[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1),
      );
    }
    before = row;
  }
  return before[b.length];
}

/** `editDistance` that computes each pair of strings once. */
export function rememberedDistance(): (a: string, b: string) => number {
  const known = new Map<string, Map<string, number>>();
  return (a, b) => {
    let row = known.get(a);
    if (row === undefined) known.set(a, row = new Map());
    let distance = row.get(b);
    if (distance === undefined) {
      row.set(b, distance = editDistance(a, b));
    }
    return distance;
  };
}

/**
 * The target's token for each source token: the same text, else the smallest edit distance, the lowest id
 * among equals.
 *
 * @param source Texts of the source's tokens by id.
 * @example
 * vocabularyMap(["the", "cats"], ["a", "the", "cat"]); // [1, 2]
 */
export function vocabularyMap(
  source: readonly string[],
  target: readonly string[],
): number[] {
  if (target.length === 0) {
    throw new RangeError(
      `Cannot map vocabularies as the target must have tokens: source ${source.length}, target 0`,
    );
  }
  const idOf = new Map<string, number>();
  target.forEach((text, id) => {
    if (!idOf.has(text)) idOf.set(text, id);
  });
  return source.map((text) => {
    const same = idOf.get(text);
    if (same !== undefined) return same;
    let best = 0;
    let least = Infinity;
    target.forEach((other, id) => {
      if (Math.abs(other.length - text.length) >= least) return; // a bound on the distance
      const distance = editDistance(text, other);
      if (distance < least) [best, least] = [id, distance];
    });
    return best;
  });
}

/**
 * The cheapest monotone path through two token sequences, as pairs [source, target].
 *
 *   D[i, j] = cost(i, j) + min(D[i-1, j-1], D[i-1, j], D[i, j-1])
 *
 * @param cost Default `editDistance`; `rememberedDistance()` where many texts share their tokens.
 */
export function warp(
  source: readonly string[],
  target: readonly string[],
  cost: (a: string, b: string) => number = editDistance,
): [number, number][] {
  const [S, T] = [source.length, target.length];
  if (S === 0 || T === 0) {
    throw new RangeError(
      `Cannot align as both texts must have tokens: source ${S}, target ${T}`,
    );
  }
  const total = Array.from({ length: S }, () => new Float64Array(T));
  const at = (i: number, j: number) => i < 0 || j < 0 ? Infinity : total[i][j];
  for (let i = 0; i < S; i++) {
    for (let j = 0; j < T; j++) {
      const best = i === 0 && j === 0
        ? 0
        : Math.min(at(i - 1, j - 1), at(i - 1, j), at(i, j - 1));
      total[i][j] = cost(source[i], target[j]) + best;
    }
  }
  const path: [number, number][] = [];
  let [i, j] = [S - 1, T - 1];
  for (;;) {
    path.push([i, j]);
    if (i === 0 && j === 0) return path.reverse();
    const [both, up, left] = [at(i - 1, j - 1), at(i - 1, j), at(i, j - 1)];
    if (both <= up && both <= left) [i, j] = [i - 1, j - 1];
    else if (up <= left) i--;
    else j--;
  }
}

/** A distribution over the few tokens that were kept. */
export interface Kept {
  ids: number[];
  probs: number[];
}

/**
 * The source's distributions at the target's positions.
 *
 * @param predictions The source's distribution for each of its tokens, in its own ids.
 * @param own The target's ids, what a position falls back on.
 * @param map See `vocabularyMap`.
 * @param cost See `warp`.
 */
export function alignPredictions(
  source: { tokens: readonly string[]; predictions: readonly Kept[] },
  target: { tokens: readonly string[]; own: ArrayLike<number> },
  map: readonly number[],
  cost = editDistance,
): { predictions: Kept[]; alignedRatio: number } {
  if (
    source.tokens.length !== source.predictions.length ||
    target.tokens.length !== target.own.length
  ) {
    throw new RangeError(
      `Cannot align as each token must have its prediction and id: source ${source.tokens.length} tokens, ${source.predictions.length} predictions; target ${target.tokens.length} tokens, ${target.own.length} ids`,
    );
  }
  const matches: number[][] = target.tokens.map(() => []);
  const uses = source.tokens.map(() => 0);
  for (const [i, j] of warp(source.tokens, target.tokens, cost)) {
    matches[j].push(i);
    uses[i]++;
  }
  for (const { ids } of source.predictions) {
    const wrong = ids.find((id) => !(id >= 0 && id < map.length));
    if (wrong !== undefined) {
      throw new RangeError(
        `Cannot align as predicted ids must be in the source's vocabulary of ${map.length}: ${wrong}`,
      );
    }
  }
  let aligned = 0;
  const predictions = target.tokens.map((token, j): Kept => {
    const [i] = matches[j];
    const single = matches[j].length === 1 && uses[i] === 1 &&
      source.tokens[i] === token;
    if (!single) return { ids: [target.own[j]], probs: [1] };
    aligned++;
    const { ids, probs } = source.predictions[i];
    const kept = new Map<number, number>();
    ids.forEach((id, c) => {
      if (!kept.has(map[id])) kept.set(map[id], probs[c]); // the first occurrence wins
    });
    const sum = [...kept.values()].reduce((a, b) => a + b, 0);
    return {
      ids: [...kept.keys()],
      probs: [...kept.values()].map((p) => p / sum),
    };
  });
  return { predictions, alignedRatio: aligned / target.tokens.length };
}

/** The bytes of each id, one character a byte: text that is cut inside a character stays what it is. */
const pieces = (tokenizer: Tokenizer, ids: ArrayLike<number>) =>
  Array.from(ids, (id) => String.fromCharCode(...tokenizer.decodeBytes([id])));

/**
 * Asks a source with another tokenizer about the target's texts.
 *
 * The source reads each text in its own tokens; its predictions are carried to the target's positions.
 * A position that is not matched predicts the true next token, as in FuseLLM. The loss of a text is that of
 * the source in its own tokens, over the number of the target's, so that sources compare.
 *
 * @param windows N rows of T + 1 ids of the target.
 * @returns Also the share of positions whose prediction is the source's.
 * @throws {RangeError} If a text has more tokens than the source's context, or the source's vocabulary is
 *   smaller than its tokenizer's.
 */
export function cacheAligned(
  name: string,
  model: Model,
  tokenizers: { source: Tokenizer; target: Tokenizer },
  windows: readonly Int32Array[],
): { cache: SourceCache; alignedRatio: number } {
  const { source, target } = tokenizers;
  const { vocabSize } = model.config;
  textLength(name, windows);
  if (vocabSize < source.vocabSize) {
    throw new RangeError(
      `Cannot ask source "${name}" as its model must know all tokens of its tokenizer: model ${vocabSize}, tokenizer ${source.vocabSize}`,
    );
  }
  const all = (tokenizer: Tokenizer) =>
    pieces(tokenizer, Array.from({ length: tokenizer.vocabSize }, (_, i) => i));
  // A model's vocabulary may be padded; such ids stand for no text.
  const padding = new Array(vocabSize - source.vocabSize).fill("");
  const map = vocabularyMap([...all(source), ...padding], all(target));
  const cost = rememberedDistance();
  const caches: SourceCache[] = [];
  let aligned = 0;
  for (const window of windows) {
    const own = source.encode(target.decode(window));
    const read = cacheSource(name, model, [own]);
    const C = read.kept;
    const [labels, T] = [window.subarray(1), window.length - 1];
    const { predictions, alignedRatio } = alignPredictions(
      {
        tokens: pieces(source, own.subarray(0, -1)),
        predictions: Array.from({ length: read.positions }, (_, t) => ({
          ids: Array.from(read.ids.subarray(t * C, (t + 1) * C)),
          probs: Array.from(read.probs.subarray(t * C, (t + 1) * C)),
        })),
      },
      { tokens: pieces(target, window.subarray(0, T)), own: labels },
      map,
      cost,
    );
    aligned += alignedRatio;
    caches.push(
      fromPredictions(
        predictions,
        labels,
        read.loss[0] * read.positions / T,
        C,
      ),
    );
  }
  return {
    cache: {
      ...joinCaches(caches),
      name,
      vocabSize: target.vocabSize,
    },
    alignedRatio: aligned / windows.length,
  };
}

/** A cache of one text from distributions over few tokens; entropies are those of what was kept. */
function fromPredictions(
  predictions: Kept[],
  labels: Int32Array,
  loss: number,
  C: number,
): SourceCache {
  const T = predictions.length;
  const cache: SourceCache = {
    name: "",
    positions: T,
    vocabSize: 0,
    kept: C,
    ids: new Uint16Array(T * C),
    probs: new Float32Array(T * C),
    gold: new Float32Array(T),
    entropy: new Float32Array(T),
    peak: new Float32Array(T),
    loss: Float64Array.of(loss),
  };
  predictions.forEach(({ ids, probs }, t) => {
    cache.ids.set(ids, t * C);
    cache.probs.set(probs, t * C);
    cache.gold[t] = probs[ids.indexOf(labels[t])] ?? 0;
    cache.entropy[t] = probs.reduce(
      (sum, p) => p > 0 ? sum - p * Math.log(p) : sum,
      0,
    );
    cache.peak[t] = Math.max(...probs);
  });
  return cache;
}

function joinCaches(caches: SourceCache[]): SourceCache {
  const joined = <A extends Uint16Array | Float32Array | Float64Array>(
    parts: A[],
  ): A => {
    const size = parts.reduce((sum, { length }) => sum + length, 0);
    const out = new (parts[0].constructor as new (size: number) => A)(size);
    let at = 0;
    for (const part of parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  };
  return {
    ...caches[0],
    ids: joined(caches.map(({ ids }) => ids)),
    probs: joined(caches.map(({ probs }) => probs)),
    gold: joined(caches.map(({ gold }) => gold)),
    entropy: joined(caches.map(({ entropy }) => entropy)),
    peak: joined(caches.map(({ peak }) => peak)),
    loss: joined(caches.map(({ loss }) => loss)),
  };
}
