import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type Batch,
  brownGenres,
  clozeQuestions,
  deduplicate,
  evaluationBatches,
  hashDocuments,
  joinWords,
  loadTagged,
  loadText,
  packTokens,
  parseTagged,
  sampleBatch,
  sentences,
  splitByDocument,
  textDatasets,
  type TextDocument,
  textFile,
  tokenBatches,
} from "../lib/core/datasets.ts";
import { fold, key, randomInts } from "../lib/core/rng.ts";
import { trainBpe } from "../lib/core/tokenizer.ts";
import { dataIsInstalled, installData } from "../scripts/install-data.ts";

await installData();
const folder = mkdtempSync(join(tmpdir(), "adiabat-"));
const brown = loadText("brown");
const humor = loadText("brown", { genres: ["humor", "romance"] });

const throws = (
  run: () => unknown,
  kind:
    | typeof Error
    | typeof TypeError
    | typeof RangeError
    | typeof SyntaxError,
  pattern: RegExp,
) =>
  assert.throws(
    run,
    (e: Error) =>
      e instanceof kind && /^Cannot /.test(e.message) &&
      pattern.test(e.message),
  );

test("every data set is as data/README.md says", () => {
  const readme = readFileSync(
    new URL("../data/README.md", import.meta.url),
    "utf8",
  );
  for (const name of Object.keys(textDatasets)) {
    const d = name === "brown" ? brown : loadText(name);
    const row =
      `| ${name} | \`${d.source}\` | ${d.documents.length} | ${d.sizeBytes} | \`${d.hash}\` |`;
    assert.ok(readme.includes(row), row);
    assert.is(
      new Set(d.documents.map(({ id }) => id)).size,
      d.documents.length,
    );
    for (const { id, text } of d.documents) {
      assert.ok(text !== "" && !text.includes("\r"), id);
    }
  }
});

test("the hash tells apart what differs", () => {
  const a = hashDocuments([{ id: "a", text: "bc" }]);
  assert.is.not(a, hashDocuments([{ id: "ab", text: "c" }]));
  assert.is.not(
    a,
    hashDocuments([{ id: "a", text: "b" }, { id: "c", text: "" }]),
  );
  // printf 'a\n2\nbc\n' | sha256sum
  assert.is(
    a,
    "c8da2bc58cfe4b03277a568e765c9dbca2a00acdede6529736e42a63a4656809",
  );
});

test("Brown: samples a genre, words in all, first sentence", () => {
  const tagged = loadTagged();
  // W. N. Francis and H. Kucera, Brown Corpus Manual, 1979, "The Corpus".
  const samples = {
    news: 44,
    editorial: 27,
    reviews: 17,
    religion: 17,
    hobbies: 36,
    lore: 48,
    "belles-lettres": 75,
    government: 30,
    learned: 80,
    fiction: 29,
    mystery: 24,
    "science-fiction": 6,
    adventure: 29,
    romance: 29,
    humor: 9,
  };
  for (const [genre, count] of Object.entries(samples)) {
    assert.is(tagged.filter((d) => d.genre === genre).length, count, genre);
  }
  assert.equal(Object.values(brownGenres), Object.keys(samples));
  // Tokens with a tag in the files: 1,161,192, as NLTK's reader counts; 5,927 of them repeat the mark
  // before them on the line (both counted by a few lines of Python).
  const words = tagged.flatMap((d) => d.paragraphs.flat(2));
  assert.is(words.length, 1161192 - 5927);
  assert.equal(tagged[0].paragraphs[0][0].slice(0, 3), [
    { word: "The", tag: "at" },
    { word: "Fulton", tag: "np-tl" },
    { word: "County", tag: "nn-tl" },
  ]);
  assert.ok(
    brown.documents[0].text.startsWith(
      'The Fulton County Grand Jury said Friday an investigation of Atlanta\'s recent primary election produced "no evidence" that any irregularities took place.\n',
    ),
  );
});

test("tagged text: doubled marks, symbols, slashes, headlines", () => {
  const paragraphs = parseTagged(
    "A/at-hl title/nn-hl\nWhy/wrb ?/. ?/.\n\n\tYes/uh ;/. ;/. 1/2/cd m**ym/nn !/. !/.\nEnd/nn ./.",
  );
  assert.equal(
    paragraphs.map((p) => joinWords(p.flat().map(({ word }) => word))),
    ["A title", "Why?", "Yes; 1/2 m*! End."],
  );
});

test("words joined as print has them", () => {
  const cases: [string, string][] = [
    ["`` Yes '' , he said ( twice ) .", '"Yes," he said (twice).'],
    ["He asked : `` Who ? ''", 'He asked: "Who?"'],
    ["`` Who '' ? she said .", '"Who?" she said.'],
    ["the ' old ' man 's", "the 'old' man 's"],
    ["`` He cried ' no ' '' .", "\"He cried 'no.'\""],
    ["wait -- stop [ now ]", "wait -- stop [now]"],
    ["$5 , 3.5 %", "$5, 3.5 %"],
    ["", ""],
  ];
  for (const [words, text] of cases) {
    assert.is(joinWords(words.split(" ").filter((w) => w !== "")), text);
  }
});

test("a limit takes whole documents from the start", () => {
  const some = loadText("moby-dick", { limitBytes: 100_000 });
  assert.ok(some.sizeBytes <= 100_000 && some.sizeBytes > 80_000);
  assert.is(some.documents[0].id, "chapter_1");
  assert.is(some.documents[1].id, "chapter_2");
  throws(
    () => loadText("moby-dick", { limitBytes: 10 }),
    RangeError,
    /: 10$/,
  );
});

test("unknown names are named", () => {
  throws(() => loadText("wikipedia"), RangeError, /: wikipedia$/);
  throws(() => loadText("__proto__"), RangeError, /: __proto__$/);
  throws(
    () => loadText("brown", { genres: ["poetry"] }),
    RangeError,
    /: poetry$/,
  );
  throws(() => loadText("brown", { genres: [] }), TypeError, /: \[\]$/);
  throws(() => loadText("sotu", { genres: ["news"] }), TypeError, /: sotu$/);
  throws(
    () => loadText("messages", { languages: ["xx"] }),
    RangeError,
    /: xx$/,
  );
});

test("a missing, wrong or half-installed package: one line with the command", () => {
  const data = join(folder, "missing");
  mkdirSync(data);
  const remedy = /run `node --import tsx scripts\/install-data\.ts`$/;
  const pins = new URL("../data/package.json", import.meta.url);
  writeFileSync(join(data, "package.json"), readFileSync(pins));
  throws(() => loadText("sotu", { folder: data }), Error, remedy);
  throws(
    () => loadText("sotu", { folder: data }),
    Error,
    /@stdlib\/datasets-sotu@0\.2\.3 must be installed: not found;/,
  );
  const found = join(data, "node_modules", "@stdlib", "datasets-sotu");
  mkdirSync(found, { recursive: true });
  writeFileSync(join(found, "package.json"), '{"version":"0.2.3"}');
  throws(() => loadText("sotu", { folder: data }), Error, /found a part/);
  writeFileSync(join(data, "node_modules", ".package-lock.json"), "{}");
  writeFileSync(join(found, "package.json"), '{"version":"0.0.1"}');
  throws(() => loadText("sotu", { folder: data }), Error, /found 0\.0\.1/);
});

test("a reader's file: cut at line ends, nothing lost, line ends and mark evened out", () => {
  const path = join(folder, "own.txt");
  const lines = Array.from({ length: 500 }, (_, i) => `line ${i} é 漢`);
  writeFileSync(path, `\ufeff${lines.join("\r\n")}\r\n`);
  const data = textFile(path, { documentBytes: 1000 });
  assert.ok(data.documents.length > 5);
  assert.is(data.documents.map((d) => d.text).join("\n"), lines.join("\n"));
  assert.is(data.source, "own.txt");
  assert.is(textFile(path, { documentBytes: Infinity }).documents.length, 1);
});

test("a reader's file: what is wrong with it is said", () => {
  const path = join(folder, "bad.txt");
  const write = (bytes: number[]) =>
    writeFileSync(path, Uint8Array.from(bytes));
  throws(() => textFile(join(folder, "none.txt")), Error, /ENOENT/);
  throws(() => textFile(folder), TypeError, /not a folder/);
  write([]);
  throws(() => textFile(path), RangeError, /is empty$/);
  write([0xef, 0xbb, 0xbf, 0x20, 0x0a]);
  throws(() => textFile(path), RangeError, /is empty$/);
  write([0x61, 0xc3, 0xa9, 0x62, 0xff, 0x63]);
  throws(() => textFile(path), SyntaxError, /byte 0xFF at offset 4 of bad/);
  write([0xef, 0xbb, 0xbf, 0x61, 0xe2, 0x82]);
  throws(() => textFile(path), SyntaxError, /byte 0xE2 at offset 4/);
  write([0xed, 0xa0, 0x80]); // a surrogate
  throws(() => textFile(path), SyntaxError, /byte 0xED at offset 0/);
  write([0xc0, 0x80]); // an overlong form
  throws(() => textFile(path), SyntaxError, /byte 0xC0 at offset 0/);
  write([0xff, 0xfe, 0x61, 0x00]);
  throws(() => textFile(path), SyntaxError, /UTF-16/);
  write([0x61, 0x62, 0x63]);
  throws(() => textFile(path, { maxBytes: 2 }), RangeError, /at most 2 bytes/);
});

/** The runs of 5 words of a text. */
function runsOf(text: string): Set<string> {
  const words = text.toLowerCase().split(/\s+/);
  return new Set(
    Array.from(
      { length: Math.max(words.length - 5, 0) + 1 },
      (_, i) => words.slice(i, i + 5).join(" "),
    ),
  );
}

/** Slow oracle: does b have at least half of the runs of the shorter a? */
function contained(a: Set<string>, b: Set<string>): boolean {
  let shared = 0;
  for (const run of a) if (b.has(run)) shared++;
  return a.size <= b.size && shared >= 0.5 * a.size;
}

test("duplicates by hand", () => {
  const words = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) => `w${from + i}`).join(" ");
  const documents = [
    { id: "first", text: words(0, 40) },
    {
      id: "same but for case and space",
      text: ` ${words(0, 40)}\n`.toUpperCase(),
    },
    { id: "part of first", text: words(5, 25) },
    { id: "first and more", text: words(0, 60) },
    { id: "half new", text: `${words(0, 20)} ${words(100, 140)}` },
    { id: "new", text: words(200, 240) },
    { id: "short", text: "one two" },
    { id: "short again", text: "One  two" },
  ];
  const { documents: kept, report } = deduplicate(documents);
  assert.equal(kept.map(({ id }) => id), [
    "first and more",
    "half new",
    "new",
    "short",
  ]);
  assert.equal(report, {
    documents: 8,
    kept: 4,
    exactDuplicates: 2,
    nearDuplicates: 2,
  });
  throws(() => deduplicate(documents, { threshold: 0 }), RangeError, /: 0$/);
  throws(
    () => deduplicate(documents, { shingleWords: 1.5 }),
    RangeError,
    /: 1\.5$/,
  );
});

test("no near duplicate is left between the parts of a split (slow oracle)", () => {
  const licences = loadText("licences").documents.slice(0, 150);
  const { train, validation, test: held, report } = splitByDocument(licences, {
    key: key(7),
    validation: 0.2,
    test: 0.2,
  });
  assert.ok(report.nearDuplicates > 20, "the licences have near duplicates");
  const parts = [train, validation, held];
  assert.is(
    parts.flat().length,
    report.kept,
  );
  assert.is(new Set(parts.flat().map(({ id }) => id)).size, report.kept);
  const runs = new Map(licences.map(({ id, text }) => [id, runsOf(text)]));
  const near = (x: TextDocument, y: TextDocument) =>
    contained(runs.get(x.id) as Set<string>, runs.get(y.id) as Set<string>);
  for (const a of parts) {
    for (const b of parts) {
      if (a === b) continue;
      for (const x of a) {
        for (const y of b) assert.not.ok(near(x, y), `${x.id} is in ${y.id}`);
      }
    }
  }
  // Negative control: the oracle sees what is there before duplicates are removed.
  assert.ok(licences.some((x) => licences.some((y) => x !== y && near(x, y))));
});

test("a split is the same for the same key and has the shares asked for", () => {
  const options = { validation: 0.1, test: 0.05 };
  const learned = loadText("brown", { genres: ["learned", "lore"] });
  const one = splitByDocument(learned.documents, { key: key(1), ...options });
  assert.equal(
    splitByDocument(learned.documents, { key: key(1), ...options }),
    one,
  );
  const other = splitByDocument(learned.documents, { key: key(2), ...options });
  assert.not.equal(
    other.validation.map(({ id }) => id),
    one.validation.map(({ id }) => id),
  );
  const { trainBytes, validationBytes, testBytes } = one.report;
  assert.is(trainBytes + validationBytes + testBytes, learned.sizeBytes);
  // A part is filled until it has its share: too much by less than one document (13 kB).
  assert.ok(Math.abs(validationBytes / learned.sizeBytes - 0.1) < 0.01);
  assert.ok(Math.abs(testBytes / learned.sizeBytes - 0.05) < 0.01);
  throws(
    () => splitByDocument([{ id: "a", text: "x" }], { key: key(1) }),
    RangeError,
    /1 left of 1/,
  );
  throws(
    () => splitByDocument([], { key: key(1), validation: 1 }),
    RangeError,
    /: 1$/,
  );
  throws(
    () => splitByDocument([], { key: key(1), validation: 0.5, test: 0.6 }),
    RangeError,
    /0\.5 \+ 0\.6/,
  );
});

test("packing: documents in order, a separator after each", () => {
  const tokenizer = trainBpe(["ab ab"], {
    vocabSize: 300,
    specialTokens: ["<|endoftext|>"],
  });
  const documents: TextDocument[] = [
    { id: "1", text: "ab" },
    { id: "2", text: "x<|endoftext|>" },
  ];
  const separator = tokenizer.special["<|endoftext|>"];
  const ids = packTokens(documents, tokenizer, { separator });
  assert.is(
    tokenizer.decode(ids),
    "ab<|endoftext|>x<|endoftext|><|endoftext|>",
  );
  assert.equal([...ids].filter((id) => id === separator).length, 2);
  assert.is(
    tokenizer.decode(packTokens(documents, tokenizer)),
    "abx<|endoftext|>",
  );
});

const rows = ({ ids, shape: [batch, length] }: Batch) =>
  Array.from(
    { length: batch },
    (_, i) => [...ids.subarray(i * length, (i + 1) * length)],
  );
const numbers = Int32Array.from({ length: 1003 }, (_, i) => i);

test("random windows: consecutive tokens, the same for the same key, all places reached", () => {
  const options = { batch: 4, length: 9 };
  const one = sampleBatch(numbers, { ...options, key: key(1) });
  assert.equal(sampleBatch(numbers, { ...options, key: key(1) }), one);
  assert.not.equal(sampleBatch(numbers, { ...options, key: key(2) }), one);
  for (const row of rows(one)) {
    assert.equal(row, Array.from({ length: 9 }, (_, i) => row[0] + i));
  }
  const starts = new Set<number>();
  for (let i = 0; i < 40; i++) {
    const batch = sampleBatch(numbers.subarray(0, 10), {
      ...options,
      key: fold(key(3), i),
    });
    for (const row of rows(batch)) starts.add(row[0]);
  }
  assert.equal([...starts].sort(), [0, 1]);
});

test("training batches: an epoch sees every token once, the next in another order", () => {
  const batches = tokenBatches(numbers, { batch: 3, length: 11, key: key(4) });
  const seen = new Map<number, number>();
  const orders: number[][] = [];
  // About 100 windows of 10 new tokens an epoch: three epochs.
  for (let i = 0; i < 99; i++) {
    const starts = rows(batches.next().value).map((row) => {
      assert.equal(row, Array.from({ length: 11 }, (_, k) => row[0] + k));
      for (const target of row.slice(1)) {
        seen.set(target, (seen.get(target) ?? 0) + 1);
      }
      return row[0];
    });
    orders.push(starts);
  }
  const middle = [...numbers].slice(30, -30).map((n) => seen.get(n) ?? 0);
  assert.ok(Math.min(...middle) >= 2 && Math.max(...middle) <= 3);
  const again = tokenBatches(numbers, { batch: 3, length: 11, key: key(4) });
  assert.equal(rows(again.next().value).map((row) => row[0]), orders[0]);
  assert.not.equal(orders[33], orders[0]);
});

test("evaluation batches: every target once and in order", () => {
  const batches = [...evaluationBatches(numbers, { batch: 7, length: 33 })];
  const targets = batches.flatMap(rows).flatMap((row) => row.slice(1));
  assert.equal(targets, [...numbers].slice(1, 1 + targets.length));
  assert.ok(numbers.length - 1 - targets.length < 32);
  assert.equal(batches.map(({ shape }) => shape[0]), [7, 7, 7, 7, 3]);
  const few = [
    ...evaluationBatches(numbers, { batch: 7, length: 33, limit: 4 }),
  ];
  assert.equal(rows(few[0]).map((row) => row[0] / 32), [0, 7, 15, 23]);
});

test("windows: errors", () => {
  const options = { batch: 1, length: 4, key: key(0) };
  const three = numbers.subarray(0, 3);
  throws(() => sampleBatch(three, options), RangeError, /4 tokens .*: 3$/);
  throws(() => tokenBatches(three, options).next(), RangeError, /: 3$/);
  throws(() => [...evaluationBatches(three, options)], RangeError, /: 3$/);
  throws(
    () => sampleBatch(numbers, { ...options, batch: 0 }),
    RangeError,
    /batch .*: 0$/,
  );
});

test("sentences", () => {
  assert.equal(
    sentences('He left. "Why?" she asked. It was 3.5 m. (Really.)\nNew line'),
    ["He left.", '"Why?" she asked.', "It was 3.5 m.", "(Really.)", "New line"],
  );
});

for (const cut of ["sentence", "middle"] as const) {
  const make = (seed: number, count = 400) =>
    clozeQuestions(humor.documents, { key: key(seed), count, cut });
  const questions = make(1);

  test(`questions (${cut}): the answer continues the text, the others come from elsewhere`, () => {
    const textOf = new Map(
      humor.documents.map(({ id, text }) => [id, text.replace(/\s+/g, " ")]),
    );
    for (const { id, context, choices, answer, sources } of questions) {
      assert.is(choices.length, 4);
      assert.is(new Set(choices).size, 4);
      assert.ok(textOf.get(id)?.includes(context + choices[answer]));
      choices.forEach((choice, i) => {
        assert.is(sources[i] === id, i === answer);
        assert.ok(textOf.get(sources[i])?.includes(choice.trim()));
        const longer = Math.abs(choice.length - choices[answer].length);
        assert.ok(longer <= 0.1 * choices[answer].length);
      });
    }
    const asked = questions.map((q) => q.context + q.choices[q.answer]);
    assert.is(new Set(asked).size, questions.length);
  });

  test(`questions (${cut}): position and length say nothing`, () => {
    const counts = [0, 0, 0, 0];
    let longest = 0;
    let shortest = 0;
    for (const { choices, answer } of questions) {
      counts[answer]++;
      const lengths = choices.map((c) => c.length);
      if (lengths[answer] === Math.max(...lengths)) longest++;
      if (lengths[answer] === Math.min(...lengths)) shortest++;
    }
    // Four standard deviations of a binomial with n = 400: 35. Ties of length count for both.
    for (const n of [...counts, longest, shortest]) {
      assert.ok(
        n > 65 && n < 160,
        JSON.stringify({ counts, longest, shortest }),
      );
    }
  });

  test(`questions (${cut}): the same for the same key`, () => {
    assert.equal(make(1), questions);
    assert.not.equal(make(2), questions);
    assert.equal(make(1, 50), questions.slice(0, 50));
  });
}

test("questions: too few places are reported", () => {
  const documents = [{ id: "a", text: "One. Two. Three." }];
  throws(
    () => clozeQuestions(documents, { key: key(0), count: 5 }),
    RangeError,
    /5 places .*: 0 found in 1 documents$/,
  );
  throws(
    () => clozeQuestions(documents, { key: key(0), count: 5, choices: 1 }),
    RangeError,
    /: 1$/,
  );
});

/** A data folder whose lockfile needs no package: npm installs it offline. */
function emptyDataFolder(name: string): string {
  const data = join(folder, name, "data");
  mkdirSync(data, { recursive: true });
  const root = { name: "empty", version: "1.0.0" };
  writeFileSync(join(data, "package.json"), JSON.stringify(root));
  writeFileSync(
    join(data, "package-lock.json"),
    JSON.stringify({ ...root, lockfileVersion: 3, packages: { "": root } }),
  );
  return data;
}

test("installer: once, again when the lockfile changes or an installation broke off", async () => {
  const data = emptyDataFolder("install");
  mkdirSync(join(data, "node_modules"));
  const options = { folder: data, report: () => {} };
  assert.not.ok(dataIsInstalled(data), "node_modules alone is not enough");
  assert.ok((await installData(options)).installed);
  assert.ok(dataIsInstalled(data));
  assert.not.ok((await installData(options)).installed);
  const lockfile = join(data, "package-lock.json");
  writeFileSync(lockfile, `${readFileSync(lockfile, "utf8")}\n`);
  assert.not.ok(dataIsInstalled(data));
  const both = await Promise.all([installData(options), installData(options)]);
  assert.equal(both.map((r) => r.installed).sort(), [false, true]);
  assert.not.ok(existsSync(join(data, "..", ".cache", "install-data.lock")));
});

test("installer: a lock left by a killed process does not block", async () => {
  const data = emptyDataFolder("killed");
  const lock = join(data, "..", ".cache", "install-data.lock");
  mkdirSync(join(data, "..", ".cache"));
  writeFileSync(lock, "1");
  const longAgo = new Date("2020-01-01");
  utimesSync(lock, longAgo, longAgo);
  const { installed } = await installData({ folder: data, report: () => {} });
  assert.ok(installed);
});

test("installer: failures are one line and leave no stamp", async () => {
  const data = emptyDataFolder("broken");
  writeFileSync(join(data, "package-lock.json"), "{");
  let message = "";
  await installData({ folder: data, report: () => {} }).catch((e) =>
    message = e.message
  );
  assert.match(message, /^Cannot install the data packages as npm ci/);
  assert.not.ok(message.includes("\n"));
  assert.not.ok(dataIsInstalled(data));
  rmSync(join(data, "package-lock.json"));
  await installData({ folder: data, report: () => {} }).catch((e) =>
    message = e.message
  );
  assert.match(message, /package-lock\.json must be readable/);
});

test("random choice of windows uses the whole range (control of the generator)", () => {
  const starts = randomInts(key(9), 4000, 0, 4);
  for (let v = 0; v < 4; v++) {
    const n = starts.filter((s) => s === v).length;
    assert.ok(n > 880 && n < 1120);
  }
});

test.after(() => rmSync(folder, { recursive: true, force: true }));
test.run();
