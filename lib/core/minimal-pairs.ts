/**
 * Minimal pairs: a real sentence, and the same sentence with one word made ungrammatical.
 *
 * After A. Warstadt et al., "BLiMP: The Benchmark of Linguistic Minimal Pairs for English", TACL 8 (2020),
 * arXiv 1912.00582: a language model is right if it finds the first more likely. BLiMP's sentences are made
 * from templates; here the first sentence of each pair is one of the tagged Brown corpus, and a rule over its
 * tags changes one word. So the pairs have BLiMP's form, not its content, and must not be called by its name.
 *
 * | phenomenon            | in BLiMP                        | example                                |
 * | --------------------- | ------------------------------- | -------------------------------------- |
 * | determiner            | determiner-noun agreement       | these books / this books               |
 * | noun                  | determiner-noun agreement       | these books / these book               |
 * | verb-be               | subject-verb agreement          | the book is / the book are             |
 * | verb                  | subject-verb agreement          | she knows / she know                   |
 * | attractor             | subject-verb agreement          | the list of books is / are             |
 * | anaphor-number        | anaphor agreement               | he ... himself / themselves            |
 * | anaphor-gender        | anaphor agreement               | he ... himself / herself               |
 * | irregular             | irregular forms                 | he went / he gone                      |
 * | case                  | (none)                          | with him / with he                     |
 *
 * Scope: rules are cautious, but words of a real text can surprise them: some second sentences are
 * grammatical (a collective with a plural verb), so that even a perfect judge does not reach 100 %.
 */
import { joinWords, type TaggedDocument, type TaggedWord } from "./datasets.ts";

export interface MinimalPair {
  phenomenon: Phenomenon;
  /** Id of the document that the sentence is from. */
  document: string;
  good: string;
  bad: string;
}

export const PHENOMENA = [
  "determiner",
  "noun",
  "verb-be",
  "verb",
  "attractor",
  "anaphor-number",
  "anaphor-gender",
  "irregular",
  "case",
] as const;

export type Phenomenon = typeof PHENOMENA[number];

export interface MinimalPairOptions {
  /** Where forms of words are looked up; default the documents themselves. */
  lexicon?: readonly TaggedDocument[];
  /** Longest sentence, in words and marks; default 30. */
  maxWords?: number;
  /** Shortest sentence; default 4. */
  minWords?: number;
}

// Forms ---------------------------------------------------------------------------------------------

/** Singular and plural, base and third person, as the corpus has them. */
interface Forms {
  plural: Map<string, string>;
  singular: Map<string, string>;
  thirdPerson: Map<string, string>;
  base: Map<string, string>;
}

const IRREGULAR_PLURALS: Record<string, string> = {
  man: "men",
  woman: "women",
  child: "children",
  foot: "feet",
  tooth: "teeth",
};

/** Past tense and participle where they differ from each other and from the base. */
const IRREGULAR_VERBS: Record<string, string> = {
  ate: "eaten",
  began: "begun",
  blew: "blown",
  broke: "broken",
  chose: "chosen",
  did: "done",
  drank: "drunk",
  drew: "drawn",
  drove: "driven",
  fell: "fallen",
  flew: "flown",
  forgot: "forgotten",
  froze: "frozen",
  gave: "given",
  grew: "grown",
  knew: "known",
  rode: "ridden",
  rose: "risen",
  sang: "sung",
  saw: "seen",
  shook: "shaken",
  spoke: "spoken",
  stole: "stolen",
  swam: "swum",
  threw: "thrown",
  took: "taken",
  went: "gone",
  wore: "worn",
  wrote: "written",
};

const PAST_OF = invert(IRREGULAR_VERBS);

function invert(table: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(table).map(([a, b]) => [b, a]));
}

/** The regular s-form of a noun or a verb. */
function withS(word: string): string {
  if (/[^aeiou]y$/.test(word)) return `${word.slice(0, -1)}ies`;
  return /(s|x|z|ch|sh)$/.test(word) ? `${word}es` : `${word}s`;
}

/** Words whose other form occurs too, with the tag that it must have; a word of one form only has none. */
function formsOf(documents: readonly TaggedDocument[]): Forms {
  const seen: Record<string, Set<string>> = {};
  for (const tag of ["nn", "nns", "vb", "vbz"]) seen[tag] = new Set();
  for (const { paragraphs } of documents) {
    for (const { word, tag } of paragraphs.flat(2)) {
      if (/^[a-z]{2,}$/.test(word)) seen[tag]?.add(word);
    }
  }
  const forms: Forms = {
    plural: new Map(),
    singular: new Map(),
    thirdPerson: new Map(),
    base: new Map(),
  };
  for (const noun of seen.nn) {
    const plural = IRREGULAR_PLURALS[noun] ?? withS(noun);
    if (!seen.nns.has(plural) || seen.nn.has(plural)) continue;
    forms.plural.set(noun, plural);
    forms.singular.set(plural, noun);
  }
  for (const verb of seen.vb) {
    const third = withS(verb);
    if (!seen.vbz.has(third)) continue;
    forms.thirdPerson.set(verb, third);
    forms.base.set(third, verb);
  }
  return forms;
}

// Rules ---------------------------------------------------------------------------------------------

/** The word in place of words[i] that makes the sentence wrong; undefined if the rule does not apply. */
type Rule = (
  words: TaggedWord[],
  i: number,
  forms: Forms,
) => string | undefined;

const lower = (token: TaggedWord | undefined) => token?.word.toLowerCase();
const tagOf = (token: TaggedWord | undefined) => token?.tag ?? "";
const isNoun = (tag: string) => /^(nn|np|nr)/.test(tag);

/** The common noun that words[i] determines: the next word, or the one after an adjective. */
function determined(words: TaggedWord[], i: number): TaggedWord | undefined {
  const at = tagOf(words[i + 1]) === "jj" ? i + 2 : i + 1;
  const tag = tagOf(words[at]);
  const alone = (tag === "nn" || tag === "nns") &&
    !isNoun(tagOf(words[at + 1])) &&
    tagOf(words[at + 1]) !== "cc"; // not "this book club", not "this book and pen"
  return alone ? words[at] : undefined;
}

/** The word before words[i], adverbs left out. */
function before(words: TaggedWord[], i: number): TaggedWord | undefined {
  let at = i - 1;
  while (tagOf(words[at]) === "rb") at--;
  return words[at];
}

/** Words from the last mark on up to words[i]: about its clause. */
function clause(words: TaggedWord[], i: number): TaggedWord[] {
  let at = i;
  while (at > 0 && /\w/.test(words[at - 1].tag)) at--;
  return words.slice(at, i);
}

const anyOf = (words: TaggedWord[], forms: string[]) =>
  words.some((token) => forms.includes(lower(token)!));

const DETERMINERS: Record<string, [number: "nn" | "nns", other: string]> = {
  this: ["nn", "these"],
  that: ["nn", "those"],
  these: ["nns", "this"],
  those: ["nns", "that"],
};

const BE: Record<string, [number: "nn" | "nns", other: string]> = {
  is: ["nn", "are"],
  was: ["nn", "were"],
  are: ["nns", "is"],
  were: ["nns", "was"],
};

/** Conjunctions after which "were" may stand with any subject. */
const SUBJUNCTIVE = [
  "if",
  "though",
  "although",
  "wish",
  "wished",
  "lest",
  "as",
];

/** Words that make a noun before "of" a quantity, whose number is a matter of taste. */
const QUANTITIES =
  "number majority couple lot variety handful rest half percent series pair group kind sort type part"
    .split(" ");

function bePair(words: TaggedWord[], i: number) {
  if (!/^(bez|ber|bedz|bed)$/.test(tagOf(words[i]))) return undefined;
  const pair = BE[lower(words[i])!];
  const subject = tagOf(before(words, i));
  const own = clause(words, i);
  if (pair === undefined || anyOf(own, SUBJUNCTIVE)) return undefined;
  const [number, other] = pair;
  return { number, other, subject, own };
}

/** What an anaphor refers to, and the forms that cannot refer to it. */
interface Anaphor {
  /** Words that it may refer to; one must come before it. */
  antecedent: (token: TaggedWord) => boolean;
  number: string;
  gender?: string;
}

const word = (...forms: string[]) => (token: TaggedWord) =>
  forms.includes(lower(token)!);

const IS_HE = word("he", "him", "his");
const IS_SHE = word("she", "her");
const IS_THEY = word("they", "them", "their");

const ANAPHORS: Record<string, Anaphor> = {
  himself: {
    antecedent: (token) => IS_HE(token) || token.tag === "np",
    number: "themselves",
    gender: "herself",
  },
  herself: { antecedent: IS_SHE, number: "themselves", gender: "himself" },
  itself: {
    antecedent: (token) => word("it", "its")(token) || token.tag === "nn",
    number: "themselves",
    gender: "himself",
  },
  themselves: {
    antecedent: (token) => IS_THEY(token) || token.tag === "nns",
    number: "himself",
  },
};

/** Words to which the form could refer instead, so that the sentence would stay right. */
const OTHERS: Record<string, (token: TaggedWord) => boolean> = {
  himself: (token) => IS_HE(token) || token.tag === "np",
  herself: (token) => IS_SHE(token) || token.tag === "np",
  themselves: (token) => IS_THEY(token) || token.tag === "nns",
};

/** The form in place of the anaphor at words[i] that nothing before it agrees with. */
function anaphor(
  words: TaggedWord[],
  i: number,
  feature: "number" | "gender",
): string | undefined {
  if (!/^ppls?$/.test(tagOf(words[i]))) return undefined;
  const entry = ANAPHORS[lower(words[i])!];
  const other = entry?.[feature];
  if (other === undefined) return undefined;
  const earlier = words.slice(0, i);
  // A name may be a man's or a woman's: it counts only where its own pronoun stands beside it.
  const named = earlier.some(IS_HE) || earlier.some(IS_SHE);
  const blocks = (token: TaggedWord) =>
    OTHERS[other](token) && !(named && token.tag === "np");
  return earlier.some(entry.antecedent) && !earlier.some(blocks)
    ? other
    : undefined;
}

const NOMINATIVE: Record<string, string> = {
  he: "him",
  they: "them",
  we: "us",
  i: "me",
};

const OBJECTIVE = invert(NOMINATIVE);

const FINITE = /^(vbd|vbz|bedz|bed|bez|ber|hvz|hvd|md|dod|doz)$/;

const RULES: Record<Phenomenon, Rule> = {
  determiner(words, i) {
    if (!/^dts?$/.test(tagOf(words[i]))) return undefined;
    const [number, other] = DETERMINERS[lower(words[i])!] ?? [];
    return determined(words, i)?.tag === number ? other : undefined;
  },

  noun(words, i, { plural, singular }) {
    const noun = words[i];
    const near = [i - 1, i - 2].find((at) =>
      determined(words, at) === noun && at >= 0
    );
    if (near === undefined) return undefined;
    const determiner = lower(words[near])!;
    const [number] = DETERMINERS[determiner] ??
      (determiner === "a" || determiner === "an" ? ["nn"] : []);
    if (number !== noun.tag) return undefined;
    return (number === "nn" ? plural : singular).get(noun.word);
  },

  "verb-be"(words, i) {
    const { number, other, subject } = bePair(words, i) ?? {};
    return number !== undefined && subject === number ? other : undefined;
  },

  attractor(words, i) {
    const { number, other, subject, own } = bePair(words, i) ?? {};
    if (number === undefined || (subject !== "nn" && subject !== "nns")) {
      return undefined;
    }
    const attracted = subject !== number &&
      own!.some(({ tag }) => tag === "in") &&
      own!.some(({ tag }) => tag === number);
    const unclear = own!.some(({ tag }) => /^(cc|dtx|cs|wps|wdt)/.test(tag)) ||
      anyOf(own!, QUANTITIES);
    return attracted && !unclear ? other : undefined;
  },

  verb(words, i, { thirdPerson, base }) {
    const { word, tag } = words[i];
    const subject = before(words, i);
    const subjectTag = tagOf(subject);
    if (tag === "vbz" || tag === "hvz") {
      if (!/^(nn|np|pps)$/.test(subjectTag)) return undefined;
      return tag === "hvz" && word === "has" ? "have" : base.get(word);
    }
    const plural = subjectTag === "nns" ||
      ["they", "we"].includes(lower(subject) ?? "");
    // An infinitive or a question needs a verb before it: "saw them run", "do they run".
    const verbBefore = clause(words, i)
      .some((token) => /^(vb|md|do|be|hv|to|in)/.test(token.tag));
    if (!plural || verbBefore) return undefined;
    if (tag === "hv" && word === "have") return "has";
    return tag === "vb" ? thirdPerson.get(word) : undefined;
  },

  "anaphor-number": (words, i) => anaphor(words, i, "number"),

  "anaphor-gender": (words, i) => anaphor(words, i, "gender"),

  irregular(words, i) {
    const { word, tag } = words[i];
    const previous = tagOf(before(words, i));
    if (tag === "vbn" && /^(hv|hvz|hvd)$/.test(previous)) return PAST_OF[word];
    if ((tag === "vbd" || tag === "dod") && /^ppss?$/.test(previous)) {
      const after = tagOf(words[i + 1]); // "he did know" has no participle to offer
      return tag === "dod" && /^(vb|\*|rb|be)/.test(after)
        ? undefined
        : IRREGULAR_VERBS[word];
    }
    return undefined;
  },

  case(words, i) {
    const { tag } = words[i];
    const word = lower(words[i])!;
    if ((tag === "pps" || tag === "ppss") && FINITE.test(tagOf(words[i + 1]))) {
      return NOMINATIVE[word];
    }
    const governed = tag === "ppo" && tagOf(words[i - 1]) === "in" &&
      !/^(vb|be|hv|md|do)/.test(tagOf(words[i + 1])); // not "for him to go"
    return governed ? OBJECTIVE[word] : undefined;
  },
};

// Pairs ---------------------------------------------------------------------------------------------

/** `word` with the capital of `like`; "I" keeps its own. */
function withCase(word: string, like: string): string {
  if (word === "i") return "I";
  return /^[A-Z]/.test(like) && like !== "I"
    ? word[0].toUpperCase() + word.slice(1)
    : word;
}

/**
 * All pairs that the rules find, by phenomenon: at most one for each phenomenon and sentence.
 *
 * @param documents from `loadTagged`; leave out what the model was trained on
 * @throws {RangeError} if there is no document
 */
export function minimalPairs(
  documents: readonly TaggedDocument[],
  { lexicon = documents, maxWords = 30, minWords = 4 }: MinimalPairOptions = {},
): Record<Phenomenon, MinimalPair[]> {
  if (documents.length === 0) {
    throw new RangeError(
      "Cannot build minimal pairs as there must be at least one tagged document: 0 documents",
    );
  }
  const forms = formsOf(lexicon);
  const pairs = Object.fromEntries(
    PHENOMENA.map((name) => [name, [] as MinimalPair[]]),
  ) as Record<Phenomenon, MinimalPair[]>;
  const seen = new Set<string>();
  for (const { id, paragraphs } of documents) {
    for (const words of paragraphs.flat()) {
      const headline = words.some(({ tag }) => tag.endsWith("-hl"));
      if (headline || words.length < minWords || words.length > maxWords) {
        continue;
      }
      const good = joinWords(words.map(({ word }) => word));
      for (const phenomenon of PHENOMENA) {
        const bad = wrong(words, RULES[phenomenon], forms);
        const name = `${phenomenon}:${good}`;
        if (bad === undefined || bad === good || seen.has(name)) continue;
        seen.add(name);
        pairs[phenomenon].push({ phenomenon, document: id, good, bad });
      }
    }
  }
  return pairs;
}

/** The sentence after the first change that the rule makes. */
function wrong(
  words: TaggedWord[],
  rule: Rule,
  forms: Forms,
): string | undefined {
  for (let i = 0; i < words.length; i++) {
    const other = rule(words, i, forms);
    if (other === undefined) continue;
    const changed = words.map(({ word }) => word);
    changed[i] = withCase(other, words[i].word);
    return joinWords(changed);
  }
  return undefined;
}
