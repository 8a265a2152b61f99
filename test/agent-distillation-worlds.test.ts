import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type Environment,
  house,
  NOTHING,
  play,
  randomPolicy,
  wordTokenizer,
} from "../lib/agent-distillation/mod.ts";
import { render } from "../lib/agent-distillation/transcript.ts";
import { fold, key } from "../lib/core/rng.ts";

const worlds: Environment[] = [house()];
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

test.run();
