/**
 * A tokenizer with one token for each word that a world uses, and one for each printable ASCII character
 * besides: so small that the vocabulary does not outweigh a student of ten thousand parameters.
 */
import { loadTokenizer, type Tokenizer } from "../core/tokenizer.ts";

/** Words with the space before them, a colon after them, numbers, line ends, other characters. */
const PIECES = "\\n| ?[A-Za-z]+:?| ?[0-9]+| ?[^A-Za-z0-9 \\n]| ";
const SPACE = "\u0120"; // the byte-level name of a space
const LINE_END = "\u010a"; // that of a line end

/**
 * A tokenizer for texts made of the words of `texts`; other words are spelt out.
 *
 * @param texts Any texts of printable ASCII; each of their words gets a token.
 * @throws {RangeError} If there is another character in them.
 *
 * @example
 * ```ts
 * const tokenizer = wordTokenizer(["Action: go to shelf 1"]);
 * tokenizer.encode("Action: go to shelf 1\n").length; // 6
 * tokenizer.decode(tokenizer.encode("Action: to go\n")); // "Action: to go\n"
 * ```
 */
export function wordTokenizer(texts: readonly string[]): Tokenizer {
  for (const text of texts) {
    const other = /[^\x20-\x7e\n]/u.exec(text)?.[0];
    if (other === undefined) continue;
    throw new RangeError(
      `Cannot make a tokenizer of words as the texts must be printable ASCII: ${
        JSON.stringify(other)
      } in ${JSON.stringify(text.slice(0, 60))}`,
    );
  }
  const words = new Set(
    texts.flatMap((text) =>
      text.match(/[A-Za-z]+:?|[0-9]+|[^A-Za-z0-9\s]/g) ?? []
    ),
  );
  const vocab: Record<string, number> = {};
  const add = (piece: string) => {
    vocab[piece] ??= Object.keys(vocab).length;
  };
  add(LINE_END);
  add(SPACE);
  for (let code = 33; code < 127; code++) add(String.fromCharCode(code));
  for (const word of [...words].sort()) {
    // Markers begin lines; all else follows a space.
    add(word.endsWith(":") ? word : `${SPACE}${word}`);
  }
  return loadTokenizer({
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        {
          type: "Split",
          pattern: { Regex: PIECES },
          behavior: "Isolated",
          invert: false,
        },
        { type: "ByteLevel", add_prefix_space: false, use_regex: false },
      ],
    },
    decoder: { type: "ByteLevel" },
    model: { type: "BPE", vocab, merges: [], ignore_merges: true },
  });
}
