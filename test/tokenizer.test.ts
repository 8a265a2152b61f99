import { readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Key, key, randomInts, split } from "../lib/core/rng.ts";
import {
  loadTokenizer,
  Tokenizer,
  trainBpe,
  translatePattern,
} from "../lib/core/tokenizer.ts";

type Json = Record<string, unknown>;

/**
 * Ids by Hugging Face's tokenizers 0.23.2, of which llama2 and gpt2 are equal to those of
 * llama-tokenizer-js 1.2.2 and gpt-tokenizer 4.0.0. Produced by
 *   npm install llama-tokenizer-js@1.2.2 gpt-tokenizer@4.0.0
 *   pip install tokenizers==0.23.2
 *   python3 test/golden/tokenizer.py node_modules test/golden
 */
const golden: {
  texts: string[];
  cases: {
    name: string;
    file: Json;
    ids: number[][];
    idsSpecial: number[][];
    idsAdded: number[][];
    decoded: string[];
  }[];
  training: {
    corpus: string[];
    vocabSize: number;
    specialTokens: string[];
    vocab: Record<string, number>;
    merges: [string, string][];
  };
} = JSON.parse(
  readFileSync(new URL("./golden/tokenizer.json", import.meta.url), "utf8"),
);

const fileOf = (name: string): Json => {
  const found = golden.cases.find((c) => c.name === name);
  if (found === undefined) throw new Error(`no golden case ${name}`);
  return structuredClone(found.file);
};

const trained = trainBpe(golden.training.corpus, {
  vocabSize: 300,
  specialTokens: ["<|endoftext|>"],
});

for (const { name, file, ids, idsSpecial, idsAdded, decoded } of golden.cases) {
  test(`${name}: ids and texts of the reference library`, () => {
    const tokenizer = loadTokenizer(file);
    golden.texts.forEach((text, i) => {
      const shown = JSON.stringify(text);
      assert.equal([...tokenizer.encode(text)], ids[i], shown);
      assert.equal(
        [...tokenizer.encode(text, { allowSpecial: true })],
        idsSpecial[i],
        `special tokens recognised: ${shown}`,
      );
      assert.equal(
        [...tokenizer.encode(text, { addSpecial: true })],
        idsAdded[i],
        `special tokens added: ${shown}`,
      );
      assert.is(tokenizer.decode(ids[i]), decoded[i], `decoded: ${shown}`);
    });
  });

  test(`${name}: a saved file gives the same ids`, () => {
    const again = loadTokenizer(JSON.stringify(loadTokenizer(file).toJson()));
    golden.texts.forEach((text, i) =>
      assert.equal([...again.encode(text)], ids[i])
    );
  });
}

test("training gives the reference trainer's merges and ids", () => {
  const { corpus, vocabSize, specialTokens, vocab, merges } = golden.training;
  const model = trainBpe(corpus, { vocabSize, specialTokens }).toJson()
    .model as Json;
  assert.equal(model.merges, merges);
  assert.equal(model.vocab, vocab);
});

test("training by hand: the most frequent pair first, of equals the smaller ids", () => {
  // Pairs of "abab" (3 times) and " cd" (2 times): ab 6, ba 3, cd 2 and Gc 2 (G is the space).
  const { merges } = trainBpe(["abab", "abab", "abab cd", " cd"], {
    vocabSize: 260,
  }).toJson().model as { merges: [string, string][] };
  assert.equal(merges, [["a", "b"], ["ab", "ab"], ["c", "d"], ["Ġ", "cd"]]);
});

test("the docstring's example", () => {
  const tokenizer = trainBpe(["low lower lowest"], { vocabSize: 259 });
  assert.is(tokenizer.encode("lower").length, 3);
  assert.is(tokenizer.decode(tokenizer.encode("lower")), "lower");
});

test("training does not depend on how the text is cut into documents or on the run", () => {
  const { corpus } = golden.training;
  const once = trainBpe(corpus, { vocabSize: 290 }).toJson();
  assert.equal(trainBpe(corpus, { vocabSize: 290 }).toJson(), once);
  const reversed = trainBpe([...corpus].reverse(), { vocabSize: 290 });
  assert.equal(reversed.toJson(), once);
});

test("training stops when no pair comes twice", () => {
  assert.is(trainBpe(["ab"], { vocabSize: 1000 }).vocabSize, 256);
  assert.is(trainBpe([], { vocabSize: 1000 }).vocabSize, 256);
});

/** Slow oracle: looks for the best pair in the list of merges, again and again. */
function encodeWord(word: string, merges: [string, string][]): string[] {
  let parts = [...word];
  while (true) {
    const rank = merges.findIndex(([a, b]) =>
      parts.some((p, i) => p === a && parts[i + 1] === b)
    );
    if (rank < 0) return parts;
    const [a, b] = merges[rank];
    const next: string[] = [];
    for (let i = 0; i < parts.length; i++) {
      if (parts[i] === a && parts[i + 1] === b) {
        next.push(a + b);
        i++;
      } else next.push(parts[i]);
    }
    parts = next;
  }
}

test("long words are merged as a slow oracle merges them", () => {
  const model = trained.toJson().model as {
    merges: [string, string][];
    vocab: Record<string, number>;
  };
  let k = key(5);
  for (let round = 0; round < 40; round++) {
    [k] = split(k);
    const length = 1 + randomInts(k, 1, 0, 200)[0];
    const letters = "lowernstaid";
    const word = Array.from(
      randomInts(k, length, 0, letters.length),
      (i) => letters[i],
    ).join("");
    const expected = encodeWord(word, model.merges).map((p) => model.vocab[p]);
    assert.equal([...trained.encode(word)], expected, word);
  }
});

/** Text of every kind: letters, marks, white space, emoji, control characters, lone surrogates. */
function randomText(k: Key): string {
  const ranges: [number, number][] = [
    [0x20, 0x7f],
    [0x20, 0x7f],
    [0, 0x20],
    [0x80, 0x300],
    [0x300, 0x370],
    [0x2000, 0x2070],
    [0x4e00, 0x9fff],
    [0xd800, 0xe000],
    [0x1f300, 0x1f650],
    [0x10000, 0x110000],
  ];
  const [a, b, c] = split(k, 3);
  const length = randomInts(a, 1, 0, 80)[0];
  const which = randomInts(b, length, 0, ranges.length);
  const where = randomInts(c, length, 0, 1 << 30);
  return Array.from(which, (w, i) => {
    const [low, high] = ranges[w];
    return String.fromCodePoint(low + where[i] % (high - low));
  }).join("");
}

test("any text comes back; a lone surrogate as U+FFFD", () => {
  const tokenizers = [trained, loadTokenizer(fileOf("gpt2"))];
  split(key(1), 2000).forEach((k) => {
    const text = randomText(k);
    const expected = new TextDecoder("utf-8", { ignoreBOM: true }).decode(
      new TextEncoder().encode(text),
    );
    for (const tokenizer of tokenizers) {
      assert.is(tokenizer.decode(tokenizer.encode(text)), expected);
    }
  });
  assert.is(trained.decode(trained.encode("a\ud800b")), "a\ufffdb");
  assert.is(trained.decode(trained.encode("\ufeffmark")), "\ufeffmark");
});

test("SentencePiece style: any text comes back through the bytes", () => {
  const tokenizer = loadTokenizer(fileOf("llama2"));
  split(key(2), 1000).forEach((k) => {
    // The mark for a space is itself text that cannot be told from one.
    const text = randomText(k).replace(/[\p{Cs}\u2581]/gu, "");
    assert.is(tokenizer.decode(tokenizer.encode(text)), text);
  });
});

test("any bytes come back, valid UTF-8 or not", () => {
  let k = key(3);
  for (let round = 0; round < 1000; round++) {
    [k] = split(k);
    const length = randomInts(k, 1, 0, 60)[0];
    const bytes = Uint8Array.from(randomInts(k, length, 0, 256));
    if (round % 3 === 0) {
      bytes.set(new TextEncoder().encode("né€😀").subarray(0, length));
    }
    assert.equal(trained.decodeBytes(trained.encodeBytes(bytes)), bytes);
  }
});

test("valid UTF-8 bytes have the ids of the text", () => {
  for (const text of golden.texts) {
    assert.equal(
      trained.encodeBytes(new TextEncoder().encode(text)),
      trained.encode(text),
    );
  }
});

test("special tokens in a text are text unless asked for", () => {
  const tokenizer = trainBpe(["<|endoftext|> <|endoftext|> <|endoftext|>"], {
    vocabSize: 400,
    specialTokens: ["<|endoftext|>", "<|pad|>"],
  });
  const text = "a<|endoftext|>b<|pad|>";
  const special = new Set(Object.values(tokenizer.special));
  assert.equal([...special], [0, 1]);
  const plain = [...tokenizer.encode(text)];
  assert.not.ok(plain.some((id) => special.has(id)));
  assert.is(tokenizer.decode(plain), text);
  const all = [...tokenizer.encode(text, { allowSpecial: true })];
  assert.equal(all.filter((id) => special.has(id)), [0, 1]);
  assert.is(tokenizer.decode(all), text);
  assert.is(tokenizer.decode(all, { skipSpecial: true }), "ab");
  const one = [...tokenizer.encode(text, { allowSpecial: ["<|pad|>"] })];
  assert.equal(one.filter((id) => special.has(id)), [1]);
});

test("a special token cannot be spelt by merges that a file smuggles in", () => {
  const file = fileOf("gpt2");
  const model = file.model as Json;
  const vocab = model.vocab as Record<string, number>;
  (file.added_tokens as Json[])[0].content = "ab";
  vocab.ab = 50256;
  delete vocab["<|endoftext|>"];
  (model.merges as unknown[]).unshift(["a", "b"]);
  const tokenizer = loadTokenizer(file);
  assert.not.ok([...tokenizer.encode("ab abab")].includes(50256));
});

test("added tokens: longest first, stripping, whole words", () => {
  const file = trained.toJson();
  const token = (id: number, content: string, more: Json = {}) => ({
    id,
    content,
    special: false,
    normalized: false,
    ...more,
  });
  file.added_tokens = [
    token(300, "<x>"),
    token(301, "<x>y"),
    token(302, "[m]", { lstrip: true, rstrip: true }),
    token(303, "cat", { single_word: true }),
  ];
  const tokenizer = loadTokenizer(file);
  const added = (text: string) =>
    [...tokenizer.encode(text)].filter((id) => id >= 300);
  assert.equal(added("<x>y<x>"), [301, 300]);
  assert.is(tokenizer.encode("a [m] b").length, 3);
  assert.equal(added("cat concat cats (cat)"), [303, 303]);
});

test("a piece called __proto__ survives saving", () => {
  const tokenizer = trainBpe(["__proto__ __proto__ x__proto__"], {
    vocabSize: 300,
  });
  const again = loadTokenizer(JSON.stringify(tokenizer.toJson()));
  assert.equal(again.encode("__proto__"), tokenizer.encode("__proto__"));
  assert.is(again.decode(again.encode("__proto__")), "__proto__");
});

test("texts without a break are encoded in bounded time", () => {
  for (const c of ["a", " ", "\n", "é", "😀", "1", "!"]) {
    const text = c.repeat(300_000);
    assert.is(trained.decode(trained.encode(text)), text);
  }
});

test("patterns: white space by Unicode, case spelt out, what is not supported refused", () => {
  assert.equal("a\u0085b\ufeffc".split(translatePattern("\\s")), [
    "a",
    "b\ufeffc",
  ]);
  const suffix = translatePattern("(?i:'s|'ll)");
  assert.equal("x's X'S y'LL z'ſ".match(suffix), ["'s", "'S", "'LL", "'ſ"]);
  assert.equal("漢a字".match(translatePattern("\\p{Han}+")), ["漢", "字"]);
  for (
    const bad of [
      "(a+)+b",
      "(a*)*",
      "((a+)b?)+",
      "(a{1,9}){2,}",
      "a++",
      "(?<n>a)",
      "(?>a)",
      "a\\1",
      "[[:alpha:]]",
      "[a&&b]",
      "(a",
      "a)",
      "*a",
      "\\p{Nonsense}",
      "\\",
      "x".repeat(20_000),
    ]
  ) {
    assert.throws(
      () => translatePattern(bad),
      (e: Error) =>
        e instanceof TypeError && /^Cannot use the tokenizer's/.test(e.message),
      bad,
    );
  }
});

test("wrong options and input: errors that name the value", () => {
  const throws = (
    run: () => unknown,
    kind: typeof TypeError | typeof RangeError | typeof SyntaxError,
    pattern: RegExp,
  ) =>
    assert.throws(
      run,
      (e: Error) => e instanceof kind && pattern.test(e.message),
    );
  throws(() => trainBpe([], { vocabSize: 255 }), RangeError, /: 255$/);
  throws(() => trainBpe([], { vocabSize: 256.5 }), RangeError, /: 256.5$/);
  throws(() => trainBpe([], { specialTokens: ["a"] }), TypeError, /: "a"$/);
  throws(
    () => trainBpe([], { specialTokens: ["xx", "xx"] }),
    TypeError,
    /: "xx"$/,
  );
  throws(
    () => trainBpe([1 as unknown as string]),
    TypeError,
    /strings: number$/,
  );
  throws(
    () => trained.encode(7 as unknown as string),
    TypeError,
    /string: number$/,
  );
  throws(() => trained.decode([5, 100000]), RangeError, /id 100000 .*1$/);
  throws(() => trained.decode([-1]), RangeError, /id -1/);
  throws(() => trained.decode([NaN]), RangeError, /id NaN/);
  throws(() => loadTokenizer("{"), SyntaxError, /^Cannot load the tokenizer/);
  throws(() => loadTokenizer("[]"), TypeError, /must be an object: \[\]$/);
  for (const type of ["Unigram", "WordPiece", "WordLevel"]) {
    throws(
      () => loadTokenizer({ ...fileOf("gpt2"), model: { type, vocab: {} } }),
      TypeError,
      new RegExp(`model.type must be "BPE": "${type}"$`),
    );
  }
  throws(
    () =>
      loadTokenizer({ ...fileOf("gpt2"), normalizer: { type: "Precompiled" } }),
    TypeError,
    /normalizer must be .*: "Precompiled"$/,
  );
});

test("hostile files: ids, merges, nesting and sizes are checked", () => {
  const broken = (change: (file: Json, model: Json) => void): Json => {
    const file = trained.toJson();
    change(file, file.model as Json);
    return file;
  };
  let nested: unknown = { type: "NFC" };
  for (let i = 0; i < 5000; i++) {
    nested = { type: "Sequence", normalizers: [nested] };
  }
  const files: Json[] = [
    broken((_, m) => m.vocab = { a: 1e15 }),
    broken((_, m) => m.vocab = { a: -1 }),
    broken((_, m) => m.vocab = { a: 0, b: 0 }),
    broken((_, m) => m.vocab = { a: "0" }),
    broken((_, m) => m.vocab = []),
    broken((_, m) => m.merges = ["a"]),
    broken((_, m) => m.merges = [["a", "nowhere"]]),
    broken((_, m) => m.merges = [[1, 2]]),
    broken((_, m) => m.merges = [null]),
    broken((_, m) => m.unk_token = "nowhere"),
    broken((_, m) => m.dropout = 0.1),
    broken((_, m) => m.end_of_word_suffix = "</w>"),
    broken((f) => f.added_tokens = [{ id: 2 ** 40, content: "x" }]),
    broken((f) => f.added_tokens = [{ id: 1, content: "" }]),
    broken((f) => f.normalizer = nested),
    broken((f) => f.pre_tokenizer = { type: "Split", pattern: {} }),
    broken((f) => f.pre_tokenizer = null),
    broken((f) => f.decoder = { type: "WordPiece" }),
    broken((f) =>
      f.post_processor = {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "__proto__" } }],
        special_tokens: {},
      }
    ),
  ];
  for (const file of files) {
    assert.throws(
      () => loadTokenizer(file),
      (e: Error) =>
        e instanceof TypeError &&
        /^Cannot load the tokenizer/.test(e.message) &&
        e.message.length < 400,
    );
  }
});

test("fuzz: a damaged file is refused with a clear error or works", () => {
  const sources = ["llama2-metaspace", "llama3"].map((name) => {
    // A small vocabulary, so that the damage hits the structure too.
    const file = fileOf(name);
    const model = file.model as Json;
    model.merges = (model.merges as unknown[]).slice(0, 8);
    return JSON.stringify(file).replace(
      /("vocab":\{(?:[^,]*,){300}).*?\}/,
      '$1"zz":131071}',
    );
  });
  const junk = ["null", "-1", "[]", "{}", '"x"', "1e99", "true", '"__proto__"'];
  let refused = 0;
  split(key(4), 600).forEach((k, round) => {
    const source = sources[round % sources.length];
    const [a, b, c] = randomInts(k, 3, 0, 1 << 30);
    let text: string;
    if (round % 3 === 0) text = source.slice(0, a % source.length);
    else if (round % 3 === 1) {
      const at = a % source.length;
      text = source.slice(0, at) + String.fromCharCode(32 + b % 95) +
        source.slice(at + 1);
    } else {
      // Replaces the value of some property.
      const places = [
        ...source.matchAll(/":("[^"]*"|\d+|true|false|null|\[|\{)/g),
      ];
      const place = places[a % places.length];
      const value = junk[b % junk.length];
      const end = (place.index ?? 0) + place[0].length;
      text = source.slice(0, (place.index ?? 0) + 2) + value +
        source.slice(c % 2 ? end : end + 1);
      if (/[[{]/.test(place[1])) {
        text = source.replace(place[0], `":${value},"was":${place[1]}`);
      }
    }
    try {
      const tokenizer = loadTokenizer(text);
      tokenizer.decode(tokenizer.encode("some text, 漢字 123\n"));
    } catch (error) {
      const { message } = error as Error;
      assert.ok(
        /^Cannot (?:load|use|encode)/.test(message),
        `${(error as Error).stack}`,
      );
      refused++;
    }
  });
  assert.ok(refused > 200, `${refused} refused`);
});

test("a tokenizer is an instance of Tokenizer with the ids that an embedding needs", () => {
  assert.instance(trained, Tokenizer);
  assert.is(
    trained.vocabSize,
    Math.max(...Object.values(
      (trained.toJson().model as { vocab: Record<string, number> }).vocab,
    )) + 1,
  );
  assert.is(trained.tokenId("<|endoftext|>"), 0);
  assert.is(trained.tokenId("nowhere"), null);
  assert.equal([...loadTokenizer(fileOf("llama3")).prefix], [128000]);
});

test.run();
