/**
 * Shop: search for a product, look at what is found, choose its options and buy it.
 *
 * In the manner of WebShop (Yao et al., arXiv:2207.01206), which cannot run here: search, result pages, item pages,
 * options and a reward by the share of what was asked for are WebShop's as recalled. The products are synthetic:
 * no shop sells them. Actions are words without brackets, so that a word is a token.
 *
 * A result shows price and title. Features are checked and options chosen on the item's own page, which does not say what was
 * looked at or chosen before. One who goes from item to item has to remember.
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
const ITEM_ACTIONS = [
  "back",
  "buy",
  ...FEATURES.map((feature) => `check ${feature}`),
  ...[...COLOURS, ...SIZES].map((option) => `choose ${option}`),
];
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
        `${letterOf(i)} ${price} ${material} ${kind}`
      ),
    ].join(" , ");
  const admissible = (): string[] => {
    if (bought) return [];
    if (item !== null) return ITEM_ACTIONS;
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
        return `you look at ${words[0]}`;
      case "check":
        return `it is ${words[0] === item!.feature ? "" : "not "}${words[0]}`;
      case "back":
        item = null;
        return resultPage();
      case "choose": {
        const [option] = words;
        const { colours, sizes } = item!;
        if (colours.includes(option)) chosen.colour = option;
        else if (sizes.includes(option)) chosen.size = option;
        else return `${option} is sold out`;
        return `${option} is chosen`;
      }
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
  check: ["must be", "is it"],
  choose: ["now", "then"],
  buy: ["all set", "that is it"],
} as const;

/**
 * An expert that goes through the results in their order and writes down where it is and what it has chosen.
 *
 * It leaves its plan by a search that is too wide, by going back to the results before it has seen an item, and by
 * choosing what was not asked for.
 */
function expert(
  key: Key,
  { detours = 0 }: { detours?: number } = {},
): Policy {
  const next = stream(fold(key, "shop expert"));
  const say = (what: keyof typeof SAY) => pick(SAY[what], next);
  let order: Order | null = null;
  let wide = false;
  /** The last letter of this search that does not do. */
  let last = "none";
  let at = "";
  let have: string[] = [];
  /** What was chosen without being asked for. */
  let thought: string | null = null;

  const search = (before: string) => {
    const { material, kind } = order!;
    wide = next() < detours;
    last = "none";
    const query = wide ? pick([material, kind], next) : `${material} ${kind}`;
    return {
      reasoning: `${before}${say("search")} ${query}`,
      action: `search ${query}`,
    };
  };

  const judgeResults = (observation: string) => {
    if (wide) return search(`${say("wide")} , `);
    const said = [`last ${last}`];
    for (const result of observation.split(" , ").slice(1)) {
      const [letter, price] = result.split(" ");
      if (last !== "none" && letter <= last) continue;
      if (Number(price) <= order!.limit) {
        at = letter;
        said.push(`${letter} ${price} ${say("fits")}`);
        return { reasoning: said.join(" , "), action: `click ${letter}` };
      }
      said.push(`${letter} ${price} high`);
      last = letter;
    }
    said.push(say("more"));
    return { reasoning: said.join(" , "), action: "more" };
  };

  const reject = (why: string) => {
    last = at;
    return { reasoning: `at ${at} , ${why}`, action: "back" };
  };

  const choose = () => {
    const { colour, size } = order!;
    const memory = [
      `at ${at}`,
      ...(have.length > 0 ? [`have ${have.join(" ")}`] : []),
    ].join(" , ");
    const options = [colour, size].filter((option) => !have.includes(option));
    if (options.length === 0) {
      return { reasoning: `${memory} , ${say("buy")}`, action: "buy" };
    }
    const asked = pick(options, next);
    if (next() < detours) {
      // Of the same sort as what is still to be chosen, which then replaces it.
      const sort = asked === colour ? COLOURS : SIZES;
      thought = pick(sort.filter((option) => option !== asked), next);
      return {
        reasoning: `${memory} , maybe ${thought}`,
        action: `choose ${thought}`,
      };
    }
    return {
      reasoning: `${memory} , ${say("choose")} ${asked}`,
      action: `choose ${asked}`,
    };
  };

  return ({ header, observation }) => {
    order ??= readOrder(header);
    const { feature } = order;
    if (observation.startsWith("page ")) return judgeResults(observation);
    if (observation.startsWith("you look at ")) {
      if (next() < detours) {
        return { reasoning: `last ${last} , once more`, action: "back" };
      }
      have = [];
      return {
        reasoning: `at ${at} , ${say("check")} ${feature}`,
        action: `check ${feature}`,
      };
    }
    if (observation === `it is not ${feature}`) return reject(`not ${feature}`);
    if (observation === `it is ${feature}`) return choose();
    const answer = /^(\w+) is (chosen|sold out)$/.exec(observation);
    if (answer === null) return search("");
    const [, option, how] = answer;
    if (option === thought) thought = null;
    else if (how === "chosen") have.push(option);
    else return reject(`no ${option}`);
    return choose();
  };
}

/** The world of products; see the head of this file. */
export function shop(): Environment {
  return {
    name: "shop",
    maxSteps: 50,
    note: "The products are synthetic.",
    reset,
    expert,
    vocabulary: () => [
      "Task: Reasoning: Action: Observation:",
      "buy up to search click more back check choose you are in the shop page look at it is not sold out chosen nothing happens ,",
      [...KINDS, ...MATERIALS, ...FEATURES, ...COLOURS, ...SIZES].join(" "),
      [...PRICES, ...LETTERS, 1, 2, 3, 4].join(" "),
      "last none high once have maybe no",
      Object.values(SAY).flat().join(" "),
    ],
  };
}
