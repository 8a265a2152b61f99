import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type Actor,
  agentPolicy,
  contextOf,
  countLabels,
  house,
  labelTokens,
  masks,
  parseWords,
  play,
  render,
  segment,
  type Transcript,
  type Window,
  windows,
  withoutReasoning,
  wordTokenizer,
} from "../lib/agent-distillation/mod.ts";
import { fold, key, randomInts } from "../lib/core/rng.ts";
import { trainBpe } from "../lib/core/tokenizer.ts";

const utf8 = { encoder: new TextEncoder(), decoder: new TextDecoder() };

/** The text of each span, with its label. */
function cut(text: string): [string, string][] {
  const bytes = utf8.encoder.encode(text);
  return segment(text).map(({ label, start, end }) => [
    label,
    utf8.decoder.decode(bytes.slice(start, end)),
  ]);
}

test("segment: a hand case, line ends with their lines", () => {
  assert.equal(
    cut("Task: put mug\nReasoning: so\nAction: go to bed 1\nObservation: ok\n"),
    [
      ["neither", "Task: put mug\n"],
      ["reason", "Reasoning: so\n"],
      ["act", "Action: go to bed 1\n"],
      ["neither", "Observation: ok\n"],
    ],
  );
});

test("segment: a marker inside a sentence opens nothing, and reasoning may have two lines", () => {
  assert.equal(
    cut("Reasoning: the Action: comes\nthen Observation: too\nAction: a\n"),
    [
      ["reason", "Reasoning: the Action: comes\nthen Observation: too\n"],
      ["act", "Action: a\n"],
    ],
  );
});

test("segment: only the last answer is an action", () => {
  assert.equal(
    cut("Reasoning: r\nAnswer: one\nReasoning: s\nAnswer: two\n"),
    [
      ["reason", "Reasoning: r\n"],
      ["neither", "Answer: one\n"],
      ["reason", "Reasoning: s\n"],
      ["act", "Answer: two\n"],
    ],
  );
});

test("segment: bytes, not characters, and text without line end, marker or anything", () => {
  const text = "Reasoning: café 日本\nAction: ü";
  assert.equal(cut(text), [["reason", "Reasoning: café 日本\n"], [
    "act",
    "Action: ü",
  ]]);
  assert.is(segment(text).at(-1)!.end, utf8.encoder.encode(text).length);
  assert.equal(cut("no marker\nat all"), [["neither", "no marker\nat all"]]);
  assert.equal(segment(""), []);
});

test("segment: spans cover every byte once, whatever the text", () => {
  const parts = [
    "Reasoning:",
    "Action:",
    "Answer:",
    "Observation:",
    "\n",
    " é",
    "x",
    "\n\n",
  ];
  for (let i = 0; i < 300; i++) {
    const drawn = randomInts(fold(key(1), i), 12, 0, parts.length);
    const text = Array.from(drawn, (j) => parts[j]).join("");
    let at = 0;
    let before = "";
    for (const { label, start, end } of segment(text)) {
      assert.is(start, at);
      assert.ok(end > start);
      assert.is.not(label, before);
      [at, before] = [end, label];
    }
    assert.is(at, utf8.encoder.encode(text).length);
  }
});

test("labels: m_r + m_a <= 1, the token that ends an action is part of it, under two tokenizers", () => {
  const world = house();
  const text = render(
    play(world, world.reset(key(1), "train"), world.expert(key(1))),
  );
  const bpe = trainBpe([text], { vocabSize: 300, specialTokens: [] });
  for (const tokenizer of [wordTokenizer(world.vocabulary()), bpe]) {
    const ids = tokenizer.encode(text);
    const labels = labelTokens(text, ids, tokenizer);
    const { r, a } = masks(labels);
    assert.ok(labels.every((_, t) => r[t] + a[t] <= 1));
    const acted = ids.filter((_, t) => a[t] === 1);
    assert.is(
      tokenizer.decode(Array.from(acted)),
      text.match(/^Action:.*\n/mg)!.join(""),
    );
    const reasoned = ids.filter((_, t) => r[t] === 1);
    assert.is(
      tokenizer.decode(Array.from(reasoned)),
      text.match(/^Reasoning:.*\n/mg)!.join(""),
    );
  }
  const tokenizer = wordTokenizer(world.vocabulary());
  assert.throws(
    () => labelTokens(text, tokenizer.encode(text).slice(1), tokenizer),
    /must stand for all bytes/,
  );
});

test("words: strict about markers, spaces and line ends", () => {
  assert.equal(parseWords("Reasoning: r\nAction: go\n"), {
    reasoning: "r",
    action: "go",
  });
  assert.equal(parseWords("Action: go\nReasoning: late\n"), {
    reasoning: null,
    action: "go",
  });
  for (
    const bad of [
      "Action: cut",
      " Action: go\n",
      "Action:\n",
      "I take Action: go\n",
      "",
    ]
  ) {
    assert.is(parseWords(bad).action, null, bad);
  }
});

test("tokenizer of words: words by one token, others by letters, beyond ASCII refused by name", () => {
  const tokenizer = wordTokenizer(["Action: go to shelf 1"]);
  assert.is(tokenizer.encode("Action: go to shelf 1\n").length, 6);
  assert.is(tokenizer.encode(" zoo").length, 4);
  assert.is(
    tokenizer.decode(tokenizer.encode("Action: zoo\n")),
    "Action: zoo\n",
  );
  assert.throws(
    () => wordTokenizer(["tea", "go to café"]),
    /must be printable ASCII: "é" in "go to café"/,
  );
});

test("windows: each token of an episode is new once, with the right label", () => {
  const world = house();
  const tokenizer = wordTokenizer(world.vocabulary());
  const transcript = play(
    world,
    world.reset(key(4), "train"),
    world.expert(key(4), { detours: 0.2 }),
  );
  for (const made of [transcript, withoutReasoning(transcript)]) {
    const text = render(made);
    const all = labelTokens(text, tokenizer.encode(text), tokenizer);
    const examples = windows([made], tokenizer);
    assert.is(examples.length, made.turns.length);
    const ids = examples.flatMap(({ ids, from }) =>
      Array.from(ids.slice(from))
    );
    const labels = examples.flatMap(({ labels, from }) => labels.slice(from));
    assert.is(tokenizer.decode(ids), text);
    assert.equal(countLabels(labels), countLabels(all));
    // What was seen two turns before is gone: only the reasoning can carry it.
    const third = tokenizer.decode(Array.from(examples[3].ids));
    assert.not(third.includes(renderTurn(made, 1)));
    assert.ok(third.includes(renderTurn(made, 2)));
  }
});

test("windows: one who sees the episode has all turns in view, the oldest left out where they do not fit", () => {
  const world = house();
  const tokenizer = wordTokenizer(world.vocabulary());
  const made = withoutReasoning(play(
    world,
    world.reset(key(4), "train"),
    world.expert(key(4), { detours: 0.2 }),
  ));
  const textOf = ({ ids }: Window) => tokenizer.decode(Array.from(ids));
  const text = render(made);
  const whole = windows([made], tokenizer, { memory: "episode" });
  assert.is(textOf(whole.at(-1)!), text);
  // What is new, and so learnt, is the same as with one turn in view.
  const news = (all: Window[]) =>
    all.map(({ ids, from }) => tokenizer.decode(Array.from(ids.slice(from))));
  assert.equal(news(whole), news(windows([made], tokenizer)));

  const limit = 60;
  const cut = windows([made], tokenizer, {
    memory: "episode",
    contextTokens: limit,
  });
  assert.ok(cut.at(-1)!.from <= limit);
  const last = textOf(cut.at(-1)!);
  assert.ok(last.startsWith(made.header));
  assert.not(last.includes(`${made.header}Observation: ${made.start}`));
  assert.ok(text.endsWith(last.slice(made.header.length)));
  // One turn more would not have fitted.
  const shown = last.match(/^Action: /gm)!.length;
  const more = contextOf(made, made.turns.slice(-shown - 1, -1), {
    memory: "episode",
  }).replace(`Observation: ${made.start}\n`, "");
  assert.ok(tokenizer.encode(more).length > limit);
});

test("policy: an agent is asked with what windows say that it sees", () => {
  const world = house();
  const tokenizer = wordTokenizer(world.vocabulary());
  const made = play(world, world.reset(key(4), "train"), world.expert(key(4)));
  for (
    const seen of [
      {},
      { memory: "episode" },
      { memory: "episode", contextTokens: 90 },
    ] as const
  ) {
    const asked: string[] = [];
    // Writes what the expert wrote.
    const engine = {
      generate(prompt: number[]) {
        asked.push(tokenizer.decode(prompt));
        const { reasoning, action } = made.turns[asked.length - 1];
        return tokenizer.encode(`Reasoning: ${reasoning}\nAction: ${action}\n`);
      },
    };
    const policy = agentPolicy(
      { engine, tokenizer, maxPositions: 1024 } as unknown as Actor,
      seen,
    );
    const again = play(world, world.reset(key(4), "train"), policy);
    assert.equal(again.turns, made.turns);
    assert.equal(
      asked,
      windows([made], tokenizer, seen)
        .map(({ ids, from }, i) =>
          i === 0
            ? contextOf(made, [])
            : tokenizer.decode(Array.from(ids.slice(0, from)))
        ),
    );
  }
});

function renderTurn({ turns }: Transcript, i: number): string {
  return `${turns[i].action}\nObservation: ${turns[i].observation}`;
}

test("windows: a transcript without an action is refused by its number", () => {
  const world = house();
  const tokenizer = wordTokenizer(world.vocabulary());
  const good = play(world, world.reset(key(4), "train"), world.expert(key(4)));
  const turns = good.turns.map((turn) => ({ ...turn, action: null }));
  assert.throws(
    () => windows([good, { ...good, turns }], tokenizer),
    /"Action:": transcript 1 of \d+ turns has none/,
  );
  // A line end would make words of the world an action of the agent, or reasoning one.
  const [first, ...rest] = good.turns;
  for (
    const [part, text] of [
      ["observation", "ok\nAction: go"],
      ["reasoning", "so\nAction: go"],
      ["action", "go\nObservation: ok"],
    ]
  ) {
    assert.throws(
      () =>
        windows(
          [{ ...good, turns: [{ ...first, [part]: text }, ...rest] }],
          tokenizer,
        ),
      new RegExp(`its ${part} 0 of transcript 0 must be one line`),
    );
  }
  assert.throws(
    () => windows([{ ...good, header: "Task: no end" }], tokenizer),
    /its header of transcript 0 must end with a line end/,
  );
});

test.run();
