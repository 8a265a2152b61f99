/**
 * Byte-pair encoding: train, encode, decode, and read or write Hugging Face's tokenizer.json.
 *
 * R. Sennrich, B. Haddow, A. Birch: "Neural Machine Translation of Rare Words with Subword Units",
 * ACL 2016, arXiv 1508.07909 (the merges). A. Radford et al.: "Language Models are Unsupervised
 * Multitask Learners", 2019 (bytes as base symbols, the pre-tokenisation pattern).
 *
 * Text is cut into pre-tokens (words with their leading space, numbers, punctuation, white space); each
 * starts as single symbols, and the pair with the lowest merge rank is joined until no rank applies.
 * Two families differ only in their symbols:
 *   byte-level (GPT-2, LLaMA 3): a symbol is a byte, written in the vocabulary as a visible character;
 *   SentencePiece style (LLaMA 2): a symbol is a character, a space is "▁", and a character that the
 *   vocabulary lacks falls back to its UTF-8 bytes, written "<0x0A>".
 *
 *   piece    bytes of a token        rank   position in the list of merges, 0 joins first
 *   special  a token such as "<|endoftext|>" that ordinary text never produces
 *
 * Scope: models of type BPE, with the normalisers, pre-tokenisers and decoders of those families. A lone
 * surrogate in a string has no UTF-8 form and is encoded as U+FFFD. Unigram, WordPiece and WordLevel are
 * not read. Added tokens are matched on the raw text, before any normaliser.
 */

/** What `trainBpe` may be told. */
export interface TrainBpeOptions {
  /** Tokens in all: special ones, 256 bytes and merges; our choice of default. */
  vocabSize?: number;
  /** Get the first ids, in this order. */
  specialTokens?: readonly string[];
  /** A pair seen less often than this is not joined. */
  minFrequency?: number;
}

/** What `encode` may be told. */
export interface EncodeOptions {
  /**
   * Which special tokens are recognised in the text: none, all, or those listed. Off by default, so that
   * text from outside cannot forge one.
   */
  allowSpecial?: boolean | readonly string[];
  /** Add what the tokenizer puts around a text, such as a beginning-of-sequence token. */
  addSpecial?: boolean;
}

/** What `decode` may be told. */
export interface DecodeOptions {
  /** Leave special tokens out of the text. */
  skipSpecial?: boolean;
}

/** The content of a tokenizer.json. */
export type TokenizerJson = Record<string, unknown>;

type Normalizer = (text: string) => string;
/** Cuts pieces of text further; `first` says that the text stands at the very beginning. */
type PreTokenizer = (pieces: string[], first: boolean) => string[];

interface AddedToken {
  id: number;
  content: string;
  special: boolean;
  lstrip: boolean;
  rstrip: boolean;
  singleWord: boolean;
}

/** The parts of a tokenizer, checked. */
interface Parts {
  source: TokenizerJson;
  /** Id of a piece as the file writes it. */
  vocab: Map<string, number>;
  added: AddedToken[];
  byteLevel: boolean;
  /** Pair (left id * stride + right id) -> rank * stride + id of the result. */
  merges: Map<number, number>;
  stride: number;
  ignoreMerges: boolean;
  byteFallback: boolean;
  unknownId: number | null;
  fuseUnknown: boolean;
  normalizers: Normalizer[];
  preTokenizers: PreTokenizer[];
  /** Undoes the "▁" of the pieces. */
  spaceMark: string | null;
  /** Leading spaces that decoding removes. */
  stripStart: number;
  prefix: number[];
  suffix: number[];
}

// More than any published vocabulary (about 260,000); keeps a hostile file from asking for memory.
const MAX_VOCAB = 1 << 22;
const MAX_NESTING = 16;
const MAX_PATTERN_LENGTH = 10_000;
// Pre-tokens are mostly short words that come again; longer ones are not worth remembering.
const CACHE_ENTRIES = 1 << 16;
const CACHE_WORD_LENGTH = 64;
// V8 keeps a backtracking position for every character of a run, so a run is matched in slices.
const SLICE_LENGTH = 1 << 20;

const GPT2_PATTERN =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const utf8 = new TextEncoder();
// ignoreBOM: a byte order mark is text like any other here.
const fromUtf8 = new TextDecoder("utf-8", { ignoreBOM: true });

// ---------------------------------------------------------------------------------------------------
// Bytes as visible characters

/**
 * The character that stands for each byte in a byte-level vocabulary (GPT-2, encoder.py): printable
 * Latin-1 characters stand for themselves, the other 68 bytes for U+0100 and up.
 */
function makeByteCharacters(): string[] {
  const printable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) ||
    byte >= 0xae;
  let next = 0x100;
  return Array.from(
    { length: 256 },
    (_, byte) => String.fromCharCode(printable(byte) ? byte : next++),
  );
}

const byteCharacters = makeByteCharacters();
const byteOfCharacter = new Map(byteCharacters.map((c, byte) => [c, byte]));

/** Bytes of a byte-level piece, or null if it has a character that stands for no byte. */
function bytesOfPiece(piece: string): Uint8Array | null {
  const bytes = new Uint8Array(piece.length);
  for (let i = 0; i < piece.length; i++) {
    const byte = byteOfCharacter.get(piece[i]);
    if (byte === undefined) return null;
    bytes[i] = byte;
  }
  return bytes;
}

/** "<0x0A>" for 10. */
function byteFallbackPiece(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

// ---------------------------------------------------------------------------------------------------
// A heap: the smallest item first

class MinHeap<T> {
  items: T[] = [];
  before: (a: T, b: T) => boolean;

  constructor(before: (a: T, b: T) => boolean) {
    this.before = before;
  }

  push(item: T): void {
    const { items, before } = this;
    let i = items.length;
    items.push(item);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(item, items[parent])) break;
      items[i] = items[parent];
      i = parent;
    }
    items[i] = item;
  }

  pop(): T | undefined {
    const { items, before } = this;
    const top = items[0];
    const last = items.pop();
    if (last === undefined || items.length === 0) return top;
    let i = 0;
    while (true) {
      let child = 2 * i + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && before(items[child + 1], items[child])) {
        child++;
      }
      if (!before(items[child], last)) break;
      items[i] = items[child];
      i = child;
    }
    items[i] = last;
    return top;
  }
}

// ---------------------------------------------------------------------------------------------------
// Pre-tokenisation

/** Pieces of `text` between the matches of `pattern`, and the matches. */
function splitByPattern(
  text: string,
  pattern: RegExp,
): { text: string; matched: boolean }[] {
  const pieces: { text: string; matched: boolean }[] = [];
  let end = 0;
  pattern.lastIndex = 0;
  while (true) {
    const match = pattern.exec(text);
    if (match === null) break;
    const start = match.index;
    const length = match[0].length;
    if (length === 0) {
      // Step over a whole character, so that the next match does not begin inside a pair.
      pattern.lastIndex = start +
        ((text.codePointAt(start) ?? 0) > 0xffff ? 2 : 1);
      continue;
    }
    if (start > end) {
      pieces.push({ text: text.slice(end, start), matched: false });
    }
    end = start + length;
    pieces.push({ text: text.slice(start, end), matched: true });
  }
  if (end < text.length) pieces.push({ text: text.slice(end), matched: false });
  return pieces;
}

type SplitBehavior =
  | "Isolated"
  | "Removed"
  | "MergedWithPrevious"
  | "MergedWithNext"
  | "Contiguous";

const SPLIT_BEHAVIORS: readonly string[] = [
  "Isolated",
  "Removed",
  "MergedWithPrevious",
  "MergedWithNext",
  "Contiguous",
];

/** Cuts every piece at the matches of a pattern; what becomes of a match is the behaviour's. */
function splitter(
  pattern: RegExp,
  behavior: SplitBehavior,
  invert: boolean,
): PreTokenizer {
  return (pieces) => {
    const out: string[] = [];
    for (const piece of pieces.flatMap((piece) => [...slices(piece)])) {
      let previous: boolean | null = null;
      for (const { text, matched } of splitByPattern(piece, pattern)) {
        const delimiter = matched !== invert;
        const join = behavior === "Contiguous"
          ? previous === delimiter
          : behavior === "MergedWithPrevious"
          ? delimiter && previous === false
          : behavior === "MergedWithNext"
          ? !delimiter && previous === true
          : false;
        if (behavior === "Removed" && delimiter) {
          previous = delimiter;
          continue;
        }
        if (join) out[out.length - 1] += text;
        else out.push(text);
        previous = delimiter;
      }
    }
    return out;
  };
}

/**
 * A JavaScript pattern that means what the file's (Oniguruma, as in Hugging Face's library) means:
 * white space by the Unicode property, `(?i:...)` spelt out, script names as `\p{Script=...}`.
 */
export function translatePattern(pattern: string): RegExp {
  const shown = pattern.length > 80 ? `${pattern.slice(0, 80)}...` : pattern;
  const refuse = (why: string): never => {
    throw new TypeError(
      `Cannot use the tokenizer's pattern as ${why}: ${shown}`,
    );
  };
  if (pattern.length > MAX_PATTERN_LENGTH) {
    refuse(`it may have at most ${MAX_PATTERN_LENGTH} characters`);
  }
  let out = "";
  let inClass = false;
  // One entry per open group: does it ignore case, does it hold a repetition?
  const groups: { ignoreCase: boolean; repeats: boolean }[] = [
    { ignoreCase: false, repeats: false },
  ];
  // What the last item was: a repetition may follow an item only, and only once.
  let last: "none" | "item" | "repeating group" | "repeat" = "none";
  let i = 0;
  while (i < pattern.length) {
    const top = groups[groups.length - 1];
    const c = pattern[i];
    if (c === "\\") {
      const e = pattern[i + 1] ?? refuse("it ends in a backslash");
      i += 2;
      last = "item";
      if (e === "p" || e === "P") {
        const close = pattern.indexOf("}", i);
        if (pattern[i] !== "{" || close < 0) refuse("\\p needs {...}");
        const name = pattern.slice(i + 1, close);
        i = close + 1;
        out += propertyPattern(e, name) ??
          refuse(`the property ${JSON.stringify(name)} is unknown`);
      } else if (e === "s") out += "\\p{White_Space}";
      else if (e === "S") out += "\\P{White_Space}";
      else if (e === "d") out += "\\p{Nd}";
      else if (e === "D") out += "\\P{Nd}";
      else if (e === "w") {
        out += inClass
          ? "\\p{L}\\p{M}\\p{Nd}\\p{Pc}"
          : "[\\p{L}\\p{M}\\p{Nd}\\p{Pc}]";
      } else if ("nrtfvux0bB".includes(e)) out += `\\${e}`;
      else if (/[A-Za-z0-9]/.test(e)) refuse(`\\${e} is not supported`);
      else out += /[\^$\\.*+?()[\]{}|/-]/.test(e) ? `\\${e}` : e;
      continue;
    }
    if (inClass) {
      if (c === "]") inClass = false;
      else if (c === "[") refuse("nested classes are not supported");
      if (c === "&" && pattern[i + 1] === "&") {
        refuse("class intersections are not supported");
      }
      out += c;
      i++;
      continue;
    }
    if (c === "[") {
      inClass = true;
      last = "item";
      out += c;
      i++;
      // A bracket right at the start of a class is a member of it.
      if (pattern[i] === "^") out += pattern[i++];
      if (pattern[i] === "]") {
        out += "\\]";
        i++;
      }
    } else if (c === "(") {
      const head = /^\((\?i:|\?:|\?=|\?!|\?<=|\?<!|(?!\?))/.exec(
        pattern.slice(i, i + 5),
      );
      if (head === null) return refuse("a group of this kind is not supported");
      groups.push({
        ignoreCase: top.ignoreCase || head[1] === "?i:",
        repeats: false,
      });
      out += `(${head[1] === "?i:" || head[1] === "" ? "?:" : head[1]}`;
      i += head[0].length;
      last = "none";
    } else if (c === ")") {
      if (groups.length === 1) refuse("its brackets do not match");
      const closed = groups.pop();
      groups[groups.length - 1].repeats ||= closed?.repeats ?? false;
      last = closed?.repeats ? "repeating group" : "item";
      out += c;
      i++;
    } else if ("*+?{".includes(c)) {
      const repeat = /^(?:[*+?]|\{\d*,?\d*\})/.exec(pattern.slice(i))?.[0] ??
        refuse("a brace is not escaped");
      const unbounded = repeat === "*" || repeat === "+" ||
        repeat.endsWith(",}");
      // `?` after a repetition makes it lazy, `+` possessive.
      if (last === "repeat") {
        if (c !== "?") refuse("possessive repetitions are not supported");
      } else if (last === "none") refuse("a repetition has nothing to repeat");
      else if (last === "repeating group" && repeat !== "?") {
        // (a+)+ can take exponential time.
        refuse("a repetition inside a repetition is not supported");
      }
      if (unbounded || repeat.startsWith("{")) top.repeats = true;
      last = last === "repeat" ? "none" : "repeat";
      out += repeat;
      i += repeat.length;
    } else {
      last = c === "|" || c === "^" || c === "$" ? "none" : "item";
      out += top.ignoreCase
        ? anyCase(c)
        : c === "]" || c === "}"
        ? `\\${c}`
        : c;
      i++;
    }
  }
  if (inClass || groups.length > 1) refuse("its brackets do not match");
  try {
    return new RegExp(out, "gu");
  } catch (error) {
    return refuse((error as Error).message);
  }
}

/** A Unicode property as JavaScript writes it, or null if there is none of this name. */
function propertyPattern(letter: string, name: string): string | null {
  if (!/^\^?[A-Za-z_=]{1,40}$/.test(name)) return null;
  const negated = (letter === "P") !== name.startsWith("^");
  const bare = name.replace("^", "");
  for (const property of [bare, `Script=${bare}`]) {
    const escape = `\\${negated ? "P" : "p"}{${property}}`;
    try {
      new RegExp(escape, "u");
      return escape;
    } catch {
      // Not a name of this kind.
    }
  }
  return null;
}

/** A letter in both cases; the long s and the Kelvin sign fold to s and k. */
function anyCase(c: string): string {
  if (!/[A-Za-z]/.test(c)) return c;
  const lower = c.toLowerCase();
  const extra = lower === "s" ? "\u017f" : lower === "k" ? "\u212a" : "";
  return `[${lower}${lower.toUpperCase()}${extra}]`;
}

// ---------------------------------------------------------------------------------------------------
// Training

/**
 * A byte-level tokenizer trained on texts.
 *
 * Counts distinct pre-tokens once and keeps, for every pair of symbols, its count and the words it
 * occurs in; a merge touches those words only. Of two pairs with the same count the one with the smaller
 * ids is joined, as in Hugging Face's trainer, so the result depends on nothing but the counts.
 *
 * @param texts documents; pre-tokens do not span two of them
 * @param options `vocabSize` (at least 256 + special tokens), `specialTokens`, `minFrequency`
 * @returns the tokenizer; smaller than `vocabSize` if the texts run out of pairs
 *
 * @example
 * const tokenizer = trainBpe(["low lower lowest"], { vocabSize: 259 });
 * tokenizer.encode("lower").length; // 3
 */
export function trainBpe(
  texts: Iterable<string>,
  { vocabSize = 1024, specialTokens = [], minFrequency = 2 }: TrainBpeOptions =
    {},
): Tokenizer {
  const least = 256 + specialTokens.length;
  if (
    !Number.isInteger(vocabSize) || vocabSize < least || vocabSize > MAX_VOCAB
  ) {
    throw new RangeError(
      `Cannot train a tokenizer as vocabSize must be an integer from ${least} (256 bytes and the special tokens) to ${MAX_VOCAB}: ${vocabSize}`,
    );
  }
  const vocab = new Map<string, number>();
  for (const token of specialTokens) {
    if (
      typeof token !== "string" || token === "" || vocab.has(token) ||
      byteOfCharacter.has(token)
    ) {
      throw new TypeError(
        `Cannot train a tokenizer as special tokens must be distinct texts of two or more characters: ${
          JSON.stringify(token)
        }`,
      );
    }
    vocab.set(token, vocab.size);
  }
  const specialPieces = new Set(specialTokens);
  // Bytes in the order of their characters, as GPT-2 and Hugging Face number them.
  const pieces = [...specialTokens];
  for (const character of [...byteCharacters].sort()) {
    vocab.set(character, pieces.length);
    pieces.push(character);
  }
  const idOfByte = byteCharacters.map((c) => vocab.get(c) as number);

  const wordCounts = countPreTokens(texts);
  const words: number[][] = [];
  const counts: number[] = [];
  for (const [word, count] of wordCounts) {
    words.push(Array.from(utf8.encode(word), (byte) => idOfByte[byte]));
    counts.push(count);
  }

  const pairCounts = new Map<number, number>();
  const wordsOfPair = new Map<number, number[]>();
  // A pair as one number; small integers are the fast keys of a Map.
  const stride = vocabSize;
  for (let w = 0; w < words.length; w++) {
    const word = words[w];
    for (let i = 0; i + 1 < word.length; i++) {
      const pair = word[i] * stride + word[i + 1];
      pairCounts.set(pair, (pairCounts.get(pair) ?? 0) + counts[w]);
      const where = wordsOfPair.get(pair);
      if (where === undefined) wordsOfPair.set(pair, [w]);
      else if (where[where.length - 1] !== w) where.push(w);
    }
  }

  const heap = new MinHeap<{ pair: number; count: number }>(
    (a, b) => a.count > b.count || (a.count === b.count && a.pair < b.pair),
  );
  for (const [pair, count] of pairCounts) heap.push({ pair, count });

  const merges: [string, string][] = [];
  while (pieces.length < vocabSize) {
    const best = heap.pop();
    if (best === undefined) break;
    const { pair } = best;
    const current = pairCounts.get(pair) ?? 0;
    if (current !== best.count) {
      // Out of date: its count has changed since it was put there.
      if (current > 0) heap.push({ pair, count: current });
      continue;
    }
    if (current < Math.max(minFrequency, 1)) break;
    const right = pair % stride;
    const left = (pair - right) / stride;
    const piece = pieces[left] + pieces[right];
    pairCounts.delete(pair);
    // Ordinary text must not be able to spell a special token.
    if (specialPieces.has(piece)) continue;
    merges.push([pieces[left], pieces[right]]);
    // Two ways to spell one piece ("a"+"bc", "ab"+"c") share its id.
    let joined = vocab.get(piece);
    if (joined === undefined) {
      joined = pieces.length;
      vocab.set(piece, joined);
      pieces.push(piece);
    }

    const changed = new Set<number>();
    for (const w of wordsOfPair.get(pair) ?? []) {
      const word = words[w];
      const count = counts[w];
      const merged: number[] = [];
      for (let i = 0; i < word.length; i++) {
        const joins = i + 1 < word.length && word[i] === left &&
          word[i + 1] === right;
        merged.push(joins ? joined : word[i]);
        if (joins) i++;
      }
      if (merged.length === word.length) continue; // the pair has gone from this word
      for (let i = 0; i + 1 < word.length; i++) {
        const old = word[i] * stride + word[i + 1];
        if (old !== pair) {
          pairCounts.set(old, (pairCounts.get(old) ?? 0) - count);
        }
      }
      for (let i = 0; i + 1 < merged.length; i++) {
        const fresh = merged[i] * stride + merged[i + 1];
        pairCounts.set(fresh, (pairCounts.get(fresh) ?? 0) + count);
        if (merged[i] !== joined && merged[i + 1] !== joined) continue;
        changed.add(fresh);
        const where = wordsOfPair.get(fresh);
        if (where === undefined) wordsOfPair.set(fresh, [w]);
        else if (where[where.length - 1] !== w) where.push(w);
      }
      words[w] = merged;
    }
    wordsOfPair.delete(pair);
    for (const fresh of changed) {
      heap.push({ pair: fresh, count: pairCounts.get(fresh) ?? 0 });
    }
  }

  return loadTokenizer(byteLevelJson(vocab, merges, specialTokens));
}

/** How often each pre-token occurs. */
function countPreTokens(texts: Iterable<string>): Map<string, number> {
  const pattern = translatePattern(GPT2_PATTERN);
  const wordCounts = new Map<string, number>();
  for (const text of texts) {
    if (typeof text !== "string") {
      throw new TypeError(
        `Cannot train a tokenizer as texts must be strings: ${typeof text}`,
      );
    }
    for (const slice of slices(wellFormed(text))) {
      for (const word of slice.match(pattern) ?? []) {
        wordCounts.set(word, (wordCounts.get(word) ?? 0) + 1);
      }
    }
  }
  return wordCounts;
}

/** The tokenizer.json of a byte-level vocabulary. */
function byteLevelJson(
  vocab: Map<string, number>,
  merges: [string, string][],
  specialTokens: readonly string[],
): TokenizerJson {
  const byteLevel = {
    type: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: true,
    use_regex: true,
  };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      // fromEntries, as assignment would lose a piece called "__proto__".
      vocab: Object.fromEntries(vocab),
      merges,
    },
  };
}

// ---------------------------------------------------------------------------------------------------
// Encoding

/** Lone surrogates have no UTF-8 form: U+FFFD instead, as TextEncoder does. */
function wellFormed(text: string): string {
  return text.replace(/\p{Cs}/gu, "\ufffd");
}

/** Slices of a long text, cut before a space between letters, where the patterns in use cut too. */
function* slices(text: string): Generator<string> {
  let start = 0;
  while (text.length - start > SLICE_LENGTH) {
    let end = start + SLICE_LENGTH;
    const border = /[\p{L}.,] [\p{L}]/gu;
    border.lastIndex = end;
    const match = border.exec(text.slice(0, end + 65_536));
    if (match !== null) end = match.index + match[0].search(" ");
    else if ((text.codePointAt(end - 1) ?? 0) > 0xffff) end++;
    yield text.slice(start, end);
    start = end;
  }
  yield text.slice(start);
}

/** Joins symbols in order of rank; the leftmost of equal ranks first. */
function mergeSymbols(
  symbols: number[],
  merges: Map<number, number>,
  stride: number,
): number[] {
  return symbols.length <= 32
    ? mergeShort(symbols, merges, stride)
    : mergeLong(symbols, merges, stride);
}

/** Looks at all pairs before each merge: the fastest way for a word. */
function mergeShort(
  symbols: number[],
  merges: Map<number, number>,
  stride: number,
): number[] {
  while (symbols.length > 1) {
    let best = Infinity;
    let at = -1;
    for (let i = 0; i + 1 < symbols.length; i++) {
      const merge = merges.get(symbols[i] * stride + symbols[i + 1]);
      if (merge !== undefined && merge < best) {
        best = merge;
        at = i;
      }
    }
    if (at < 0) break;
    symbols[at] = best % stride;
    symbols.splice(at + 1, 1);
  }
  return symbols;
}

/** The same result in n log n steps: a heap of candidate pairs over a linked list. */
function mergeLong(
  symbols: number[],
  merges: Map<number, number>,
  stride: number,
): number[] {
  const n = symbols.length;
  const ids = Int32Array.from(symbols);
  const previous = Int32Array.from(symbols, (_, i) => i - 1);
  const next = Int32Array.from(symbols, (_, i) => i + 1);
  const heap = new MinHeap<{ merge: number; at: number }>(
    (a, b) => a.merge < b.merge || (a.merge === b.merge && a.at < b.at),
  );
  const candidate = (at: number): number | undefined =>
    at >= 0 && next[at] < n
      ? merges.get(ids[at] * stride + ids[next[at]])
      : undefined;
  const offer = (at: number) => {
    const merge = candidate(at);
    if (merge !== undefined) heap.push({ merge, at });
  };
  for (let i = 0; i < n; i++) offer(i);
  while (true) {
    const best = heap.pop();
    if (best === undefined) break;
    const { merge, at } = best;
    if (ids[at] < 0 || candidate(at) !== merge) continue; // out of date
    const gone = next[at];
    ids[at] = merge % stride;
    ids[gone] = -1;
    next[at] = next[gone];
    if (next[at] < n) previous[next[at]] = at;
    offer(previous[at]);
    offer(at);
  }
  const out: number[] = [];
  for (let i = 0; i < n; i = next[i]) out.push(ids[i]);
  return out;
}

/** Ids collected in an array that grows. */
class IdList {
  ids = new Int32Array(1024);
  length = 0;

  push(more: ArrayLike<number>): void {
    if (this.length + more.length > this.ids.length) {
      const grown = new Int32Array(
        Math.max(2 * this.ids.length, this.length + more.length),
      );
      grown.set(this.ids);
      this.ids = grown;
    }
    this.ids.set(more, this.length);
    this.length += more.length;
  }

  finish(): Int32Array {
    return this.ids.slice(0, this.length);
  }
}

/** Encodes text to token ids and back. Made by `trainBpe` or `loadTokenizer`. */
export class Tokenizer {
  /** Largest id + 1: the rows that an embedding needs. */
  readonly vocabSize: number;
  /** Ids of the special tokens by name. */
  readonly special: Record<string, number>;
  /** Ids put before and after a text by `addSpecial`. */
  readonly prefix: readonly number[];
  readonly suffix: readonly number[];

  readonly #parts: Parts;
  /** Pieces that text may produce: all but the special ones. */
  readonly #ordinary = new Map<string, number>();
  /** Bytes of each token, and whether it is special. */
  readonly #bytes: (Uint8Array | undefined)[] = [];
  readonly #specialIds = new Set<number>();
  readonly #idOfByte: Int32Array;
  readonly #cache = new Map<string, number[]>();

  /** Takes parts that `loadTokenizer` has checked. */
  constructor(parts: Parts) {
    this.#parts = parts;
    this.prefix = parts.prefix;
    this.suffix = parts.suffix;
    const added = new Map(parts.added.map((token) => [token.content, token]));
    let size = 0;
    for (const [piece, id] of parts.vocab) {
      size = Math.max(size, id + 1);
      if (!added.get(piece)?.special) this.#ordinary.set(piece, id);
      this.#bytes[id] = this.#pieceBytes(piece);
    }
    for (const token of parts.added) {
      size = Math.max(size, token.id + 1);
      this.#bytes[token.id] = utf8.encode(token.content);
      if (token.special) this.#specialIds.add(token.id);
    }
    this.vocabSize = size;
    this.special = Object.fromEntries(
      parts.added.filter((t) => t.special).map((t) => [t.content, t.id]),
    );
    this.#idOfByte = Int32Array.from(
      { length: 256 },
      (_, byte) =>
        this.#ordinary.get(
          parts.byteLevel ? byteCharacters[byte] : byteFallbackPiece(byte),
        ) ?? -1,
    );
  }

  #pieceBytes(piece: string): Uint8Array {
    const { byteLevel, byteFallback, spaceMark } = this.#parts;
    if (byteLevel) return bytesOfPiece(piece) ?? utf8.encode(piece);
    const byte = byteFallback ? /^<0x([0-9A-F]{2})>$/.exec(piece) : null;
    if (byte !== null) return Uint8Array.of(parseInt(byte[1], 16));
    return utf8.encode(
      spaceMark === null ? piece : piece.replaceAll(spaceMark, " "),
    );
  }

  /** Id of a token as the vocabulary writes it, or null: `tokenId("<|endoftext|>")`. */
  tokenId(token: string): number | null {
    return this.#parts.added.find((t) => t.content === token)?.id ??
      this.#parts.vocab.get(token) ?? null;
  }

  /**
   * Token ids of a text, [tokens].
   *
   * A special token written in the text is ordinary text unless `allowSpecial` names it. A lone surrogate
   * is encoded as U+FFFD.
   */
  encode(
    text: string,
    { allowSpecial = false, addSpecial = false }: EncodeOptions = {},
  ): Int32Array {
    if (typeof text !== "string") {
      throw new TypeError(
        `Cannot encode as the text must be a string: ${typeof text}`,
      );
    }
    const out = new IdList();
    if (addSpecial) out.push(this.prefix);
    let first = true;
    for (const part of this.#splitAdded(wellFormed(text), allowSpecial)) {
      if (typeof part === "number") out.push([part]);
      else this.#encodePart(part, first, out);
      first = false;
    }
    if (addSpecial) out.push(this.suffix);
    return out.finish();
  }

  /**
   * Token ids of bytes that need not be valid UTF-8, [tokens].
   *
   * Valid stretches are encoded as text, the bytes between them one by one, so that
   * `decodeBytes(encodeBytes(bytes))` gives the bytes back (byte-level vocabularies only).
   */
  encodeBytes(bytes: Uint8Array): Int32Array {
    if (!(bytes instanceof Uint8Array)) {
      throw new TypeError(
        `Cannot encode bytes as they must be a Uint8Array: ${typeof bytes}`,
      );
    }
    if (!this.#parts.byteLevel) {
      throw new TypeError(
        "Cannot encode bytes as the vocabulary must be byte-level: this one is SentencePiece style",
      );
    }
    const out = new IdList();
    let first = true;
    for (const { start, end, valid } of utf8Stretches(bytes)) {
      const stretch = bytes.subarray(start, end);
      if (!valid) out.push(this.#merge(this.#byteSymbols(stretch)));
      else {
        for (const part of this.#splitAdded(fromUtf8.decode(stretch), false)) {
          if (typeof part === "number") out.push([part]);
          else this.#encodePart(part, first, out);
        }
      }
      first = false;
    }
    return out.finish();
  }

  /** The text of token ids; bytes that are not valid UTF-8 become U+FFFD. */
  decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
    return fromUtf8.decode(this.decodeBytes(ids, options));
  }

  /** The bytes of token ids. Throws a RangeError for an id that the vocabulary does not have. */
  decodeBytes(
    ids: ArrayLike<number>,
    { skipSpecial = false }: DecodeOptions = {},
  ): Uint8Array {
    const pieces: Uint8Array[] = [];
    let total = 0;
    for (let i = 0; i < ids.length; i++) {
      const piece = this.#bytes[ids[i]];
      if (piece === undefined) {
        throw new RangeError(
          `Cannot decode as token ids must be of this vocabulary (0 to ${
            this.vocabSize - 1
          }): id ${ids[i]} at position ${i}`,
        );
      }
      if (skipSpecial && this.#specialIds.has(ids[i])) continue;
      pieces.push(piece);
      total += piece.length;
    }
    const out = new Uint8Array(total);
    let at = 0;
    for (const piece of pieces) {
      out.set(piece, at);
      at += piece.length;
    }
    let strip = 0;
    while (strip < this.#parts.stripStart && out[strip] === 0x20) strip++;
    return out.subarray(strip);
  }

  /** The tokenizer.json of Hugging Face's library; what was loaded, or what training made. */
  toJson(): TokenizerJson {
    return structuredClone(this.#parts.source);
  }

  /** Text with added tokens taken out: their ids stand where they stood. */
  #splitAdded(
    text: string,
    allowSpecial: boolean | readonly string[],
  ): (string | number)[] {
    const wanted = this.#parts.added.filter((token) =>
      !token.special || allowSpecial === true ||
      (Array.isArray(allowSpecial) && allowSpecial.includes(token.content))
    );
    if (wanted.length === 0) return text === "" ? [] : [text];
    const byContent = new Map(wanted.map((token) => [token.content, token]));
    // The longest first, so that a token wins over its own beginning.
    const pattern = new RegExp(
      wanted.map((t) => t.content).sort((a, b) => b.length - a.length)
        .map((content) => content.replace(/[\^$\\.*+?()[\]{}|/-]/g, "\\$&"))
        .join("|"),
      "gu",
    );
    const parts: (string | number)[] = [];
    let end = 0;
    for (const match of text.matchAll(pattern)) {
      const token = byContent.get(match[0]) as AddedToken;
      let start = match.index;
      let stop = start + match[0].length;
      if (
        start < end || (token.singleWord &&
          (/[\p{L}\p{N}_]$/u.test(text.slice(Math.max(0, start - 2), start)) ||
            /^[\p{L}\p{N}_]/u.test(text.slice(stop, stop + 2))))
      ) continue;
      if (token.lstrip) {
        while (start > end && isSpace(text[start - 1])) start--;
      }
      if (token.rstrip) {
        while (stop < text.length && isSpace(text[stop])) stop++;
      }
      if (start > end) parts.push(text.slice(end, start));
      parts.push(token.id);
      end = stop;
    }
    if (end < text.length) parts.push(text.slice(end));
    return parts;
  }

  /** Ids of a stretch of ordinary text. */
  #encodePart(text: string, first: boolean, out: IdList): void {
    const { normalizers, preTokenizers } = this.#parts;
    let pieces = [normalizers.reduce((t, normalize) => normalize(t), text)];
    for (const cut of preTokenizers) pieces = cut(pieces, first);
    for (const piece of pieces) if (piece !== "") out.push(this.#word(piece));
  }

  /** Ids of one pre-token. */
  #word(word: string): number[] {
    const known = this.#cache.get(word);
    if (known !== undefined) return known;
    const { byteLevel, ignoreMerges } = this.#parts;
    let ids: number[] | undefined;
    if (ignoreMerges) {
      const piece = byteLevel
        ? Array.from(utf8.encode(word), (b) => byteCharacters[b]).join("")
        : word;
      const id = this.#ordinary.get(piece);
      if (id !== undefined) ids = [id];
    }
    ids ??= this.#merge(
      byteLevel
        ? this.#byteSymbols(utf8.encode(word))
        : this.#characterSymbols(word),
    );
    if (word.length <= CACHE_WORD_LENGTH) {
      if (this.#cache.size >= CACHE_ENTRIES) this.#cache.clear();
      this.#cache.set(word, ids);
    }
    return ids;
  }

  #merge(symbols: number[]): number[] {
    return mergeSymbols(symbols, this.#parts.merges, this.#parts.stride);
  }

  /** Byte-level symbols. */
  #byteSymbols(bytes: Uint8Array): number[] {
    const symbols: number[] = [];
    for (const byte of bytes) {
      const id = this.#idOfByte[byte];
      if (id >= 0) symbols.push(id);
      else this.#pushUnknown(symbols, `byte ${byte}`);
    }
    return symbols;
  }

  /** SentencePiece-style symbols: characters, else their bytes, else the unknown token. */
  #characterSymbols(word: string): number[] {
    const symbols: number[] = [];
    for (const character of word) {
      const id = this.#ordinary.get(character);
      if (id !== undefined) {
        symbols.push(id);
        continue;
      }
      const bytes = Array.from(
        utf8.encode(character),
        (byte) => this.#idOfByte[byte],
      );
      if (this.#parts.byteFallback && !bytes.includes(-1)) {
        symbols.push(...bytes);
      } else {
        this.#pushUnknown(
          symbols,
          `character U+${
            (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(
              4,
              "0",
            )
          }`,
        );
      }
    }
    return symbols;
  }

  #pushUnknown(symbols: number[], what: string): void {
    const { unknownId, fuseUnknown } = this.#parts;
    if (unknownId === null) {
      throw new RangeError(
        `Cannot encode as the vocabulary must have every symbol or an unknown token: ${what}`,
      );
    }
    if (fuseUnknown && symbols[symbols.length - 1] === unknownId) return;
    symbols.push(unknownId);
  }
}

function isSpace(c: string): boolean {
  return /\p{White_Space}/u.test(c);
}

/** Maximal stretches of bytes that are valid UTF-8, and those that are not. */
function* utf8Stretches(
  bytes: Uint8Array,
): Generator<{ start: number; end: number; valid: boolean }> {
  let start = 0;
  let valid = true;
  let i = 0;
  while (i < bytes.length) {
    const length = utf8Length(bytes, i);
    const ok = length > 0;
    if (ok !== valid) {
      if (i > start) yield { start, end: i, valid };
      start = i;
      valid = ok;
    }
    i += ok ? length : 1;
  }
  if (bytes.length > start) yield { start, end: bytes.length, valid };
}

/** Bytes of the valid UTF-8 character at `i`, 0 if there is none (Unicode 15, table 3-7). */
export function utf8Length(bytes: Uint8Array, i: number): number {
  const lead = bytes[i];
  if (lead < 0x80) return 1;
  const length = lead >= 0xc2 && lead <= 0xdf
    ? 2
    : lead >= 0xe0 && lead <= 0xef
    ? 3
    : lead >= 0xf0 && lead <= 0xf4
    ? 4
    : 0;
  if (length === 0 || i + length > bytes.length) return 0;
  // Overlong forms, surrogates and values above U+10FFFF show in the second byte.
  const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  if (bytes[i + 1] < low || bytes[i + 1] > high) return 0;
  for (let k = 2; k < length; k++) {
    if ((bytes[i + k] & 0xc0) !== 0x80) return 0;
  }
  return length;
}

// ---------------------------------------------------------------------------------------------------
// Reading tokenizer.json

type Json = Record<string, unknown>;

function fail(what: string, value: unknown): never {
  let shown: string;
  try {
    shown = JSON.stringify(value) ?? String(value);
  } catch {
    shown = typeof value;
  }
  if (shown.length > 80) shown = `${shown.slice(0, 80)}...`;
  throw new TypeError(`Cannot load the tokenizer as ${what}: ${shown}`);
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function object(value: unknown, name: string): Json {
  return isObject(value) ? value : fail(`${name} must be an object`, value);
}

function array(value: unknown, name: string): unknown[] {
  return Array.isArray(value) ? value : fail(`${name} must be an array`, value);
}

function string(value: unknown, name: string): string {
  return typeof value === "string"
    ? value
    : fail(`${name} must be a string`, value);
}

/** A boolean that may be absent. */
function flag(value: unknown, name: string, otherwise = false): boolean {
  if (value === undefined || value === null) return otherwise;
  return typeof value === "boolean"
    ? value
    : fail(`${name} must be true or false`, value);
}

function tokenIdOf(value: unknown, name: string): number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 &&
      value < MAX_VOCAB
    ? value
    : fail(`${name} must be an id from 0 to ${MAX_VOCAB - 1}`, value);
}

/** The leaves of a possibly nested Sequence. */
function sequence(
  value: unknown,
  name: string,
  list: string,
  depth = 0,
): Json[] {
  if (value === null || value === undefined) return [];
  if (depth > MAX_NESTING) {
    fail(`${name} may nest at most ${MAX_NESTING} deep`, depth);
  }
  const node = object(value, name);
  if (node.type !== "Sequence") return [node];
  return array(node[list], `${name}.${list}`).flatMap((child) =>
    sequence(child, name, list, depth + 1)
  );
}

/** The pattern object of Split and Replace. */
function readPattern(value: unknown, name: string): RegExp {
  const pattern = object(value, `${name}.pattern`);
  if (typeof pattern.Regex === "string") return translatePattern(pattern.Regex);
  const literal = string(pattern.String, `${name}.pattern.String`);
  if (literal === "") fail(`${name}.pattern must not be empty`, literal);
  return new RegExp(literal.replace(/[\^$\\.*+?()[\]{}|/-]/g, "\\$&"), "gu");
}

function readNormalizer(node: Json): Normalizer {
  switch (node.type) {
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD": {
      const form = node.type;
      return (text) => text.normalize(form);
    }
    case "Lowercase":
      return (text) => text.toLowerCase();
    case "Prepend": {
      const prefix = string(node.prepend, "normalizer.prepend");
      return (text) => text === "" ? text : prefix + text;
    }
    case "Replace": {
      const pattern = readPattern(node.pattern, "normalizer");
      const content = string(node.content, "normalizer.content");
      return (text) => text.replace(pattern, () => content);
    }
    default:
      return fail(
        "a normalizer must be NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace or a Sequence of them",
        node.type,
      );
  }
}

/** How "▁" is put before a text: always, only at its beginning, never. */
function prependScheme(node: Json): "always" | "first" | "never" {
  const scheme = node.prepend_scheme ??
    (flag(node.add_prefix_space, "add_prefix_space", true)
      ? "always"
      : "never");
  return scheme === "always" || scheme === "first" || scheme === "never"
    ? scheme
    : fail("prepend_scheme must be always, first or never", scheme);
}

function readPreTokenizer(node: Json): PreTokenizer[] {
  switch (node.type) {
    case "ByteLevel": {
      const cuts: PreTokenizer[] = [];
      if (flag(node.add_prefix_space, "pre_tokenizer.add_prefix_space", true)) {
        cuts.push((pieces) =>
          pieces.map((piece) => isSpace(piece[0] ?? " ") ? piece : ` ${piece}`)
        );
      }
      if (flag(node.use_regex, "pre_tokenizer.use_regex", true)) {
        cuts.push(splitter(translatePattern(GPT2_PATTERN), "Isolated", false));
      }
      return cuts;
    }
    case "Split": {
      const behavior = string(node.behavior, "pre_tokenizer.behavior");
      if (!SPLIT_BEHAVIORS.includes(behavior)) {
        fail(
          `pre_tokenizer.behavior must be one of ${SPLIT_BEHAVIORS.join(", ")}`,
          behavior,
        );
      }
      return [
        splitter(
          readPattern(node.pattern, "pre_tokenizer"),
          behavior as SplitBehavior,
          flag(node.invert, "pre_tokenizer.invert"),
        ),
      ];
    }
    case "Digits":
      return [splitter(
        flag(node.individual_digits, "pre_tokenizer.individual_digits")
          ? /\p{N}/gu
          : /\p{N}+/gu,
        "Isolated",
        false,
      )];
    case "Metaspace": {
      const mark = string(node.replacement, "pre_tokenizer.replacement");
      const scheme = prependScheme(node);
      const cuts: PreTokenizer[] = [(pieces, first) =>
        pieces.map((piece) => {
          const marked = piece.replaceAll(" ", mark);
          const prepend = scheme === "always" || (scheme === "first" && first);
          return prepend && !marked.startsWith(mark) ? mark + marked : marked;
        })];
      if (flag(node.split, "pre_tokenizer.split", true)) {
        const pattern = readPattern({ String: mark }, "pre_tokenizer");
        cuts.push(splitter(pattern, "MergedWithNext", false));
      }
      return cuts;
    }
    default:
      return fail(
        "a pre_tokenizer must be ByteLevel, Split, Digits, Metaspace or a Sequence of them",
        node.type,
      );
  }
}

/** What decoding does to the pieces: which mark is a space, how many leading spaces go. */
function readDecoder(
  nodes: Json[],
): { byteLevel: boolean; spaceMark: string | null; stripStart: number } {
  let byteLevel = false;
  let spaceMark: string | null = null;
  let stripStart = 0;
  for (const node of nodes) {
    switch (node.type) {
      case "ByteLevel":
        byteLevel = true;
        break;
      case "ByteFallback":
      case "Fuse":
        break;
      case "Replace": {
        const pattern = object(node.pattern, "decoder.pattern");
        if (node.content !== " ") {
          fail('a Replace decoder must put a " "', node.content);
        }
        spaceMark = string(pattern.String, "decoder.pattern.String");
        break;
      }
      case "Strip":
        if (
          node.content !== " " || node.stop !== 0 ||
          typeof node.start !== "number"
        ) {
          fail("a Strip decoder must remove leading spaces only", node);
        }
        stripStart = node.start;
        break;
      case "Metaspace":
        spaceMark = string(node.replacement, "decoder.replacement");
        stripStart = prependScheme(node) === "never" ? 0 : 1;
        break;
      default:
        fail(
          "a decoder must be ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace or a Sequence of them",
          node.type,
        );
    }
  }
  return { byteLevel, spaceMark, stripStart };
}

/** Ids that the post-processor puts before and after a text. */
function readPostProcessor(
  nodes: Json[],
): { prefix: number[]; suffix: number[] } {
  const prefix: number[] = [];
  const suffix: number[] = [];
  for (const node of nodes) {
    switch (node.type) {
      case "ByteLevel":
        break;
      case "TemplateProcessing": {
        const tokens = object(node.special_tokens, "special_tokens");
        let before = true;
        for (const entry of array(node.single, "post_processor.single")) {
          const item = object(entry, "post_processor.single[]");
          if ("Sequence" in item) {
            before = false;
            continue;
          }
          const token = object(item.SpecialToken, "SpecialToken");
          const name = string(token.id, "SpecialToken.id");
          const known = Object.hasOwn(tokens, name)
            ? object(tokens[name], `special_tokens.${name}`)
            : fail("a template may use declared special tokens only", name);
          for (const id of array(known.ids, `special_tokens.${name}.ids`)) {
            (before ? prefix : suffix).push(tokenIdOf(id, name));
          }
        }
        break;
      }
      case "BertProcessing":
      case "RobertaProcessing": {
        const [, cls] = array(node.cls, "post_processor.cls");
        const [, sep] = array(node.sep, "post_processor.sep");
        prefix.push(tokenIdOf(cls, "post_processor.cls"));
        suffix.push(tokenIdOf(sep, "post_processor.sep"));
        break;
      }
      default:
        fail(
          "a post_processor must be ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing or a Sequence of them",
          node.type,
        );
    }
  }
  return { prefix, suffix };
}

function readVocab(model: Json): Map<string, number> {
  const entries = Object.entries(object(model.vocab, "model.vocab"));
  if (entries.length > MAX_VOCAB) {
    fail(`model.vocab may have at most ${MAX_VOCAB} tokens`, entries.length);
  }
  const vocab = new Map<string, number>();
  const taken = new Set<number>();
  for (const [piece, value] of entries) {
    const id = tokenIdOf(value, `model.vocab[${JSON.stringify(piece)}]`);
    if (taken.has(id)) fail("the ids of model.vocab must be distinct", id);
    taken.add(id);
    vocab.set(piece, id);
  }
  return vocab;
}

function readAddedTokens(value: unknown): AddedToken[] {
  const added: AddedToken[] = [];
  const seen = new Set<string>();
  for (const entry of array(value ?? [], "added_tokens")) {
    const token = object(entry, "added_tokens[]");
    const content = string(token.content, "added_tokens[].content");
    if (content === "") fail("an added token must not be empty", token);
    if (seen.has(content)) fail("added tokens must be distinct", content);
    seen.add(content);
    added.push({
      id: tokenIdOf(token.id, "added_tokens[].id"),
      content,
      special: flag(token.special, "added_tokens[].special"),
      lstrip: flag(token.lstrip, "added_tokens[].lstrip"),
      rstrip: flag(token.rstrip, "added_tokens[].rstrip"),
      singleWord: flag(token.single_word, "added_tokens[].single_word"),
    });
  }
  if (added.length > MAX_VOCAB) {
    fail(`there may be at most ${MAX_VOCAB} added tokens`, added.length);
  }
  return added;
}

/** Merges by pair of ids; those that would spell a special token are left out. */
function readMerges(
  model: Json,
  vocab: Map<string, number>,
  stride: number,
  special: Set<string>,
): Map<number, number> {
  const merges = new Map<number, number>();
  const list = array(model.merges, "model.merges");
  if (list.length > MAX_VOCAB) {
    fail(`model.merges may have at most ${MAX_VOCAB} entries`, list.length);
  }
  const idOf = (piece: string, rank: number): number =>
    vocab.get(piece) ??
      fail(`merge ${rank} must use tokens of model.vocab`, piece);
  list.forEach((entry, rank) => {
    // Older files write "a b", newer ones ["a", "b"].
    const pair = typeof entry === "string" ? entry.split(" ") : entry;
    if (
      !Array.isArray(pair) || pair.length !== 2 ||
      typeof pair[0] !== "string" || typeof pair[1] !== "string"
    ) fail(`merge ${rank} must be two tokens`, entry);
    const [left, right] = pair as [string, string];
    const joined = left + right;
    if (special.has(joined)) return;
    const key = idOf(left, rank) * stride + idOf(right, rank);
    const id = idOf(joined, rank);
    // A pair listed twice: Hugging Face's library keeps the later rank.
    merges.set(key, rank * stride + id);
  });
  return merges;
}

/**
 * The tokenizer that a tokenizer.json describes.
 *
 * Reads models of type BPE, byte-level (GPT-2, LLaMA 3) or SentencePiece style with byte fallback
 * (LLaMA 2). Anything else is refused by name; nothing is ignored that would change the ids.
 *
 * @param json the file's text, or what `JSON.parse` made of it
 * @throws SyntaxError if the text is not JSON, TypeError if it is not such a tokenizer
 */
export function loadTokenizer(json: unknown): Tokenizer {
  let source = json;
  if (typeof json === "string") {
    try {
      source = JSON.parse(json);
    } catch (error) {
      throw new SyntaxError(
        `Cannot load the tokenizer as its text must be JSON: ${
          (error as Error).message
        }`,
      );
    }
  }
  const root = object(source, "tokenizer.json");
  const model = object(root.model, "model");
  // Old files leave the type out; only BPE has merges.
  if (model.type !== "BPE" && !(model.type === undefined && model.merges)) {
    fail('model.type must be "BPE"', model.type);
  }
  for (
    const name of ["continuing_subword_prefix", "end_of_word_suffix"] as const
  ) {
    if (
      model[name] !== null && model[name] !== undefined && model[name] !== ""
    ) {
      fail(`model.${name} is not supported`, model[name]);
    }
  }
  if (model.dropout) fail("model.dropout must be null", model.dropout);

  const vocab = readVocab(model);
  const added = readAddedTokens(root.added_tokens);
  const preNodes = sequence(
    root.pre_tokenizer,
    "pre_tokenizer",
    "pretokenizers",
  );
  const decoder = readDecoder(sequence(root.decoder, "decoder", "decoders"));
  const byteLevel = preNodes.some((node) => node.type === "ByteLevel");
  if (byteLevel !== decoder.byteLevel) {
    fail(
      "pre_tokenizer and decoder must both be byte-level, or neither",
      (root.decoder as Json | null)?.type ?? null,
    );
  }
  const normalizers = sequence(root.normalizer, "normalizer", "normalizers")
    .map(readNormalizer);
  const preTokenizers = preNodes.flatMap(readPreTokenizer);
  let stride = 1;
  for (const id of vocab.values()) stride = Math.max(stride, id + 1);
  const special = new Set(
    added.filter((token) => token.special).map((token) => token.content),
  );
  let unknownId: number | null = null;
  if (model.unk_token !== null && model.unk_token !== undefined) {
    const token = string(model.unk_token, "model.unk_token");
    unknownId = vocab.get(token) ??
      fail("model.unk_token must be a token of model.vocab", token);
  }
  return new Tokenizer({
    source: root,
    vocab,
    added,
    byteLevel,
    merges: readMerges(model, vocab, stride, special),
    stride,
    ignoreMerges: flag(model.ignore_merges, "model.ignore_merges"),
    byteFallback: flag(model.byte_fallback, "model.byte_fallback"),
    unknownId,
    fuseUnknown: flag(model.fuse_unk, "model.fuse_unk"),
    normalizers,
    preTokenizers,
    spaceMark: decoder.spaceMark,
    stripStart: decoder.stripStart,
    ...readPostProcessor(
      sequence(root.post_processor, "post_processor", "processors"),
    ),
  });
}
