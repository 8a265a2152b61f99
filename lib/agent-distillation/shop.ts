/**
 * Shop: search for a product, look at what is found, choose its options and buy it.
 *
 * In the manner of WebShop (Yao et al., arXiv:2207.01206), which cannot run here: search, result pages, item pages,
 * options and a reward by the share of what was asked for are WebShop's as recalled. The products are synthetic:
 * no shop sells them. Actions are words without brackets, so that a word is a token.
 *
 * A result shows title and price; features and options are on the item's own page, which does not say what was
 * looked at before. One who compares has to remember.
 *
 * Unseen episodes ask for products whose pair of material and kind no training shop sells.
 */
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

const KINDS =
  "shirt jacket dress skirt socks hat shoes gloves scarf bag blanket pillow curtain rug towel belt"
    .split(" ");
const MATERIALS = "cotton wool linen silk leather denim nylon fleece"
  .split(" ");
const FEATURES = "warm light soft strong washable waterproof".split(" ");
const COLOURS = "red blue green black white brown pink grey".split(" ");
const SIZES = "small medium large".split(" ");
const PRICES = [10, 20, 30, 40, 50];

/** Products of each material and kind. */
const EACH = 5;
/** Share of the products that an episode's shop has. */
const IN_STOCK = 0.75;
const PAGE_SIZE = 3;
/** Results are called by letters that go on from page to page; there are no more results than letters. */
const LETTERS = "abcdefghijkl".split("");

/** A synthetic product. */
export interface Product {
  kind: string;
  material: string;
  feature: string;
  colours: string[];
  sizes: string[];
  /** In dollars. */
  price: number;
}

/** What an episode asks for. */
export interface Order {
  kind: string;
  material: string;
  feature: string;
  colour: string;
  size: string;
  /** In dollars; the product may cost as much. */
  limit: number;
}

/** Whether the products of a material and kind are kept for unseen episodes: one pair in five. */
function heldOut({ kind, material }: Pick<Product, "kind" | "material">) {
  return (KINDS.indexOf(kind) + 2 * MATERIALS.indexOf(material)) % 5 === 0;
}

/** Draws all products; the same at every call. */
function drawProducts(): Product[] {
  const next = stream(fold(newKey(2207), "catalogue"));
  const products: Product[] = [];
  for (const kind of KINDS) {
    for (const material of MATERIALS) {
      for (let i = 0; i < EACH; i++) {
        products.push({
          kind,
          material,
          feature: pick(FEATURES, next),
          colours: shuffled(COLOURS, next).slice(0, 3),
          sizes: shuffled(SIZES, next).slice(0, 2),
          price: pick(PRICES, next),
        });
      }
    }
  }
  return products;
}

let drawn: Product[] | null = null;

/**
 * All products that the shops of a split may have, synthetic: 640 in unseen episodes, without those held out in training.
 */
export function catalogue(split: Split): Product[] {
  drawn ??= drawProducts();
  return drawn.filter((product) => split === "unseen" || !heldOut(product));
}

/**
 * Products by how well their titles match the words of a query, best first; those without any of its words are left out.
 *
 * Okapi BM25 (Robertson and Zaragoza 2009, section 3.4): sum over words of idf tf (k1 + 1) / (tf + k1). All titles
 * have two different words, so that tf is 0 or 1, its factor is 1 and lengths do not count.
 */
export function rank(
  products: readonly Product[],
  query: readonly string[],
): Product[] {
  const has = ({ material, kind }: Product, word: string) =>
    material === word || kind === word;
  const weights = [...new Set(query)].map((word): [string, number] => {
    const n = products.filter((product) => has(product, word)).length;
    return [word, Math.log(1 + (products.length - n + 0.5) / (n + 0.5))];
  });
  return products
    .map((product) => ({
      product,
      score: weights.reduce(
        (sum, [word, idf]) => sum + (has(product, word) ? idf : 0),
        0,
      ),
    }))
    .filter(({ score }) => score > 0)
    .sort((a, b) => b.score - a.score)
    .map(({ product }) => product);
}

/**
 * The reward of a purchase: 0 for another kind, else the share of material, feature, colour, size and price that are as asked.
 *
 * WebShop's as recalled: r_type (|attributes met| + |options met| + [price met]) / (|attributes| + |options| + 1).
 */
export function reward(
  order: Order,
  product: Product,
  chosen: { colour: string | null; size: string | null },
): number {
  if (product.kind !== order.kind) return 0;
  const met = [
    product.material === order.material,
    product.feature === order.feature,
    chosen.colour === order.colour,
    chosen.size === order.size,
    product.price <= order.limit,
  ];
  return met.filter(Boolean).length / met.length;
}

const taskText = ({ kind, material, feature, colour, size, limit }: Order) =>
  `buy ${feature} ${material} ${kind} , ${colour} , ${size} , up to ${limit}`;

/** The order in the header of an episode. */
export function readOrder(header: string): Order {
  const task = /^Task: (.*)$/m.exec(header)?.[1] ?? "";
  const found = /^buy (\w+) (\w+) (\w+) , (\w+) , (\w+) , up to (\d+)$/.exec(
    task,
  );
  if (found === null) {
    throw new SyntaxError(
      `Cannot read the task of a shop as it must be "buy feature material kind , colour , size , up to price": ${task}`,
    );
  }
  const [, feature, material, kind, colour, size, limit] = found;
  return { kind, material, feature, colour, size, limit: Number(limit) };
}

/** Single words and pairs of material and kind: what is worth searching for. */
const QUERIES = [
  ...KINDS,
  ...MATERIALS,
  ...MATERIALS.flatMap((material) =>
    KINDS.map((kind) => `${material} ${kind}`)
  ),
].map((query) => `search ${query}`);
const SEARCHABLE = new Set([...KINDS, ...MATERIALS]);

function reset(key: Key, split: Split): Episode {
  const next = stream(fold(key, "shop"));
  const all = catalogue(split);
  const target = pick(
    all.filter((product) => heldOut(product) === (split === "unseen")),
    next,
  );
  const above = PRICES.filter((price) => price >= target.price);
  const order: Order = {
    kind: target.kind,
    material: target.material,
    feature: target.feature,
    colour: pick(target.colours, next),
    size: pick(target.sizes, next),
    limit: pick(above.slice(0, 3), next),
  };
  const stock = shuffled(
    all.filter((product) => product === target || next() < IN_STOCK),
    next,
  );

  let results: Product[] = [];
  let page = 0;
  let item: Product | null = null;
  let chosen: { colour: string | null; size: string | null } = {
    colour: null,
    size: null,
  };
  let bought = false;

  const letterOf = (i: number) => LETTERS[page * PAGE_SIZE + i];
  const shownResults = () =>
    results.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  const resultPage = () =>
    [
      `page ${page + 1}`,
      ...shownResults().map(({ material, kind, price }, i) =>
        `${letterOf(i)} ${material} ${kind} ${price}`
      ),
    ].join(" , ");
  const itemPage = (letter: string, { feature, colours, sizes }: Product) =>
    `${letter} is ${feature} , ${colours.join(" ")} , ${sizes.join(" ")}`;

  const admissible = (): string[] => {
    if (bought) return [];
    if (item !== null) {
      const options = [...item.colours, ...item.sizes];
      return ["back", "buy", ...options.map((option) => `choose ${option}`)];
    }
    const more = (page + 1) * PAGE_SIZE < results.length;
    return [
      ...shownResults().map((_, i) => `click ${letterOf(i)}`),
      ...(more ? ["more"] : []),
      ...QUERIES,
    ];
  };
  /** Any words of the titles may be searched for, not only those that are listed as admissible. */
  const isSearch = (action: string) =>
    item === null && !bought && action.startsWith("search ") &&
    action.split(" ").slice(1).every((word) => SEARCHABLE.has(word));

  const act = (action: string): string => {
    const [verb, ...words] = action.split(" ");
    switch (verb) {
      case "search":
        results = rank(stock, words).slice(0, LETTERS.length);
        page = 0;
        return resultPage();
      case "more":
        page++;
        return resultPage();
      case "click":
        item = results[LETTERS.indexOf(words[0])];
        chosen = { colour: null, size: null };
        return itemPage(words[0], item);
      case "back":
        item = null;
        return resultPage();
      case "choose":
        if (COLOURS.includes(words[0])) chosen.colour = words[0];
        else chosen.size = words[0];
        return `${words[0]} is chosen`;
      default:
        bought = true;
        return "you buy it";
    }
  };

  return {
    header: `Task: ${taskText(order)}\n`,
    observation: "you are in the shop",
    admissible,
    step(action): Outcome {
      const valid = admissible().includes(action) || isSearch(action);
      const observation = valid ? act(action) : NOTHING;
      return {
        observation,
        reward: bought ? reward(order, item!, chosen) : 0,
        done: bought,
        valid,
      };
    },
  };
}

/** Ways to say the same; which one is drawn anew at each turn. */
const SAY = {
  search: ["look for", "I need", "find"],
  wide: ["too wide", "too many"],
  fits: ["fits", "may do"],
  more: ["more", "turn the page"],
  choose: ["take it in", "good , now"],
  next: ["now", "then"],
  buy: ["all set", "that is it"],
} as const;

/**
 * An expert that goes through the results in their order, judges each in words and keeps a list of those it has looked at.
 *
 * It leaves its plan by a search that is too wide, a look at a later result that fits as well, and a choice that was not asked for.
 */
function expert(
  key: Key,
  { detours = 0 }: { detours?: number } = {},
): Policy {
  const next = stream(fold(key, "shop expert"));
  const say = (what: keyof typeof SAY) => pick(SAY[what], next);
  let order: Order | null = null;
  let wide = false;
  /** Letters of this search that were looked at and do not do. */
  let out: string[] = [];
  let clicked = "";
  let have: { colour: string | null; size: string | null };
  const listOut = () => `out ${out.join(" ") || "none"}`;

  const search = (reasoning: string) => {
    const { material, kind } = order!;
    wide = next() < detours;
    out = [];
    const query = wide ? pick([material, kind], next) : `${material} ${kind}`;
    return { reasoning: `${reasoning} ${query}`, action: `search ${query}` };
  };

  const judgeResults = (observation: string) => {
    if (wide) return search(`${say("wide")} , ${say("search")}`);
    const { material, kind, limit } = order!;
    const verdicts: string[] = [];
    const fitting: string[] = [];
    for (const result of observation.split(" , ").slice(1)) {
      const [letter, ...title] = result.split(" ");
      const verdict = out.includes(letter)
        ? "out"
        : title[0] !== material || title[1] !== kind
        ? "other"
        : Number(title[2]) > limit
        ? "high"
        : say("fits");
      verdicts.push(`${letter} ${verdict}`);
      if (!["out", "other", "high"].includes(verdict)) fitting.push(letter);
    }
    const reasoning = [listOut(), ...verdicts].join(" , ");
    if (fitting.length === 0) {
      return { reasoning: `${reasoning} , ${say("more")}`, action: "more" };
    }
    clicked = next() < detours ? pick(fitting, next) : fitting[0];
    return {
      reasoning: `${reasoning} , see ${clicked}`,
      action: `click ${clicked}`,
    };
  };

  const choose = (reasoning: string, offered: string[] | null) => {
    const { colour, size } = order!;
    const options = [
      ...(have.colour === colour ? [] : [colour]),
      ...(have.size === size ? [] : [size]),
    ];
    if (options.length === 0) {
      return { reasoning: `${reasoning} , ${say("buy")}`, action: "buy" };
    }
    // The item's page lists what could be chosen by mistake.
    const option = offered !== null && next() < detours
      ? pick(offered, next)
      : pick(options, next);
    const how = offered === null ? "next" : "choose";
    return {
      reasoning: `${reasoning} , ${say(how)} ${option}`,
      action: `choose ${option}`,
    };
  };

  const judgeItem = (observation: string) => {
    const { feature, colour, size } = order!;
    const [own, colours, sizes] = observation.split(" , ");
    const checks: [string, boolean][] = [
      ["feature", own.split(" ").at(-1) === feature],
      ["colour", colours.split(" ").includes(colour)],
      ["size", sizes.split(" ").includes(size)],
    ];
    const failed = checks.findIndex(([, good]) => !good);
    const seen = (failed < 0 ? checks : checks.slice(0, failed + 1))
      .map(([what, good]) => `${what} ${good ? "yes" : "no"}`).join(" ");
    if (failed < 0) {
      have = { colour: null, size: null };
      return choose(seen, [...colours.split(" "), ...sizes.split(" ")]);
    }
    out.push(clicked);
    return { reasoning: `${seen} , ${listOut()}`, action: "back" };
  };

  return ({ header, observation }) => {
    order ??= readOrder(header);
    const option = /^(\w+) is chosen$/.exec(observation)?.[1];
    if (option !== undefined) {
      const { colour, size } = order;
      if (COLOURS.includes(option)) have.colour = option;
      else have.size = option;
      const wrong = option !== colour && option !== size
        ? `${option} is wrong , `
        : "";
      const right = [
        ...(have.colour === colour ? [colour] : []),
        ...(have.size === size ? [size] : []),
      ].join(" ");
      return choose(`${wrong}have ${right || "none"}`, null);
    }
    if (observation.startsWith("page ")) {
      return judgeResults(observation);
    }
    if (observation.includes(" , ")) return judgeItem(observation);
    return search(say("search"));
  };
}

/** The world of products; see the head of this file. */
export function shop(): Environment {
  return {
    name: "shop",
    maxSteps: 40,
    note: "The products are synthetic.",
    reset,
    expert,
    vocabulary: () => [
      "Task: Reasoning: Action: Observation:",
      "buy up to search click more back choose you are in the shop page is chosen it nothing happens ,",
      [...KINDS, ...MATERIALS, ...FEATURES, ...COLOURS, ...SIZES].join(" "),
      [...PRICES, ...LETTERS, 1, 2, 3, 4].join(" "),
      "out none other high see feature colour size yes no have wrong",
      Object.values(SAY).flat().join(" "),
    ],
  };
}
