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
 * | there                 | subject-verb agreement          | there are books / there is books       |
 * | attractor             | subject-verb agreement          | the list of books is / are             |
 * | anaphor-number        | anaphor agreement               | he ... himself / themselves            |
 * | anaphor-gender        | anaphor agreement               | he ... himself / herself               |
 * | anaphor-person        | anaphor agreement               | we ... ourselves / themselves          |
 * | irregular             | irregular forms                 | he went / he gone                      |
 * | base-form             | (none)                          | she will go / she will goes            |
 * | case                  | (none)                          | with him / with he                     |
 *
 * The second column is the field of a phenomenon (`FIELDS`).
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
  "there",
  "attractor",
  "anaphor-number",
  "anaphor-gender",
  "anaphor-person",
  "irregular",
  "base-form",
  "case",
] as const;

export type Phenomenon = typeof PHENOMENA[number];

/** Phenomena that are one kind of knowledge, under BLiMP's names where it has them. */
export const FIELDS: Readonly<Record<string, readonly Phenomenon[]>> = {
  "determiner-noun agreement": ["determiner", "noun"],
  "subject-verb agreement": ["verb-be", "verb", "there", "attractor"],
  "anaphor agreement": ["anaphor-number", "anaphor-gender", "anaphor-person"],
  "irregular forms": ["irregular"],
  "base forms": ["base-form"],
  "case": ["case"],
};

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

/** "has", "have" or another verb that words[i] is in the present tense, as `bePair` without its subject. */
function haveOrVerb(
  words: TaggedWord[],
  i: number,
  { thirdPerson, base }: Forms,
): { number: "nn" | "nns"; other: string | undefined } | undefined {
  const { word, tag } = words[i];
  if (tag === "vbz") return { number: "nn", other: base.get(word) };
  if (tag === "hvz" && word === "has") return { number: "nn", other: "have" };
  // An infinitive or a question needs a verb before it: "saw them run", "do they run".
  const verbBefore = clause(words, i)
    .some((token) => /^(vb|md|do|be|hv|to)/.test(token.tag));
  if (verbBefore) return undefined;
  if (tag === "hv" && word === "have") return { number: "nns", other: "has" };
  return tag === "vb"
    ? { number: "nns", other: thirdPerson.get(word) }
    : undefined;
}

/** What an anaphor refers to, and the forms that cannot refer to it. */
interface Anaphor {
  /** Words that it may refer to; one must come before it. */
  antecedent: (token: TaggedWord) => boolean;
  number?: string;
  gender?: string;
  person?: string;
}

const word = (...forms: string[]) => (token: TaggedWord) =>
  forms.includes(lower(token)!);

const IS_HE = word("he", "him", "his");
const IS_SHE = word("she", "her");
const IS_THEY = word("they", "them", "their");
const IS_WE = word("we", "us", "our");
const IS_I = word("i", "me", "my");
const IS_MAN = (token: TaggedWord) => IS_HE(token) || token.tag === "np";
const ARE_MANY = (token: TaggedWord) => IS_THEY(token) || token.tag === "nns";

const ANAPHORS: Record<string, Anaphor> = {
  himself: {
    antecedent: IS_MAN,
    number: "themselves",
    gender: "herself",
    person: "myself",
  },
  herself: {
    antecedent: IS_SHE,
    number: "themselves",
    gender: "himself",
    person: "myself",
  },
  itself: {
    antecedent: (token) => word("it", "its")(token) || token.tag === "nn",
    number: "themselves",
    gender: "himself",
    person: "myself",
  },
  themselves: { antecedent: ARE_MANY, number: "himself", person: "ourselves" },
  ourselves: { antecedent: IS_WE, number: "myself", person: "themselves" },
  myself: { antecedent: IS_I, number: "ourselves", person: "himself" },
  yourself: { antecedent: word("you", "your"), person: "himself" },
};

/** Words to which the form could refer instead, so that the sentence would stay right. */
const OTHERS: Record<string, (token: TaggedWord) => boolean> = {
  himself: IS_MAN,
  herself: (token) => IS_SHE(token) || token.tag === "np",
  themselves: ARE_MANY,
  ourselves: IS_WE,
  myself: IS_I,
};

const FINITE = /^(vbd|vbz|bedz|bed|bez|ber|hvz|hvd|md|dod|doz)$/;

/** Words that begin a clause of their own, with a subject to which its anaphors refer. */
const SUBORDINATE = /^(cs|wps|wpo|wdt|wrb)$/;

/**
 * The form in place of the anaphor at words[i] that nothing agrees with: neither a subject right before it ("the
 * man himself is"), nor a word of its own clause, nor, if what it refers to is outside, any word before it.
 */
function anaphor(
  words: TaggedWord[],
  i: number,
  feature: "number" | "gender" | "person",
): string | undefined {
  if (!/^ppls?$/.test(tagOf(words[i]))) return undefined;
  const entry = ANAPHORS[lower(words[i])!];
  const other = entry?.[feature];
  if (other === undefined) return undefined;
  const own = clause(words, i);
  const begin = own.findLastIndex(({ tag }) => SUBORDINATE.test(tag));
  const near = own.slice(begin + 1);
  const scope = near.some(entry.antecedent) ? near : words.slice(0, i);
  const isSubject = words.slice(i - 1, i).some(entry.antecedent) &&
    FINITE.test(tagOf(words[i + 1]));
  if (feature === "number" && isSubject) return other;
  // A name may be a man's or a woman's: it counts only where its own pronoun stands beside it.
  const named = scope.some(IS_HE) || scope.some(IS_SHE);
  const blocks = (token: TaggedWord) =>
    OTHERS[other](token) && !(named && token.tag === "np") ||
    feature === "person" && other === "himself" && token.tag === "nn"; // "I told the man about himself"
  return scope.some(entry.antecedent) && !scope.some(blocks)
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

  there(words, i) {
    if (tagOf(words[i - 1]) !== "ex") return undefined;
    const { number, other } = bePair(words, i) ?? {};
    let at = i + 1;
    while (
      /^(at|ap|cd|jj|jjr|jjt|dti|ql|rb|\*|pp\$|od)$/.test(tagOf(words[at]))
    ) {
      at++;
    }
    const noun = words[at];
    // "There is a man and a dog" may be "are"; "there are a number of books" may not be "is".
    const clear = noun?.tag === number && !QUANTITIES.includes(noun!.word) &&
      !isNoun(tagOf(words[at + 1])) && tagOf(words[at + 1]) !== "cc";
    return clear ? other : undefined;
  },

  attractor(words, i, forms) {
    const subject = tagOf(before(words, i));
    if (subject !== "nn" && subject !== "nns") return undefined;
    const own = clause(words, i);
    const { number, other } = bePair(words, i) ?? haveOrVerb(words, i, forms) ??
      {};
    if (number === undefined || subject === number) return undefined;
    // "Underlying these views of life are ..." has its subject behind the verb.
    if (/^(in|vbg|vbn)/.test(tagOf(own[0]))) return undefined;
    // Its subject has a noun behind "of" or "in": "the list of books".
    const head = own.findIndex(({ tag }, j) =>
      tag === number && tagOf(own[j + 1]) === "in"
    );
    const unclear = own.some(({ tag }) => /^(cc|dtx|cs|wps|wdt)/.test(tag)) ||
      anyOf(own, QUANTITIES);
    return head >= 0 && !unclear ? other : undefined;
  },

  verb(words, i, forms) {
    const { number, other } = haveOrVerb(words, i, forms) ?? {};
    const subject = before(words, i);
    const tag = tagOf(subject);
    if (number === "nn") return /^(nn|np|pps)$/.test(tag) ? other : undefined;
    const plural = tag === "nns" ||
      ["they", "we"].includes(lower(subject) ?? "");
    const preposition = clause(words, i).some((token) =>
      token.tag.startsWith("in")
    );
    return plural && !preposition ? other : undefined;
  },

  "anaphor-number": (words, i) => anaphor(words, i, "number"),

  "anaphor-gender": (words, i) => anaphor(words, i, "gender"),

  "anaphor-person": (words, i) => anaphor(words, i, "person"),

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

  "base-form"(words, i, { thirdPerson }) {
    let at = i - 1;
    while (/^(rb|\*)$/.test(tagOf(words[at]))) at--;
    return words[i].tag === "vb" &&
        /^(md|to|do|doz|dod)$/.test(tagOf(words[at]))
      ? thirdPerson.get(words[i].word)
      : undefined;
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

/** `word` with the capital of words[i], in whose place it stands; that of "I" says nothing. */
function withCase(word: string, words: TaggedWord[], i: number): string {
  if (word === "i") return "I";
  const like = words[i].word;
  const begins = words.slice(0, i).every(({ tag }) => !/\w/.test(tag));
  return /^[A-Z]/.test(like) && (like !== "I" || begins)
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
    changed[i] = withCase(other, words, i);
    return joinWords(changed);
  }
  return undefined;
}
