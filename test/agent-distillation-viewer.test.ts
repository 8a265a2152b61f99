import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  createAgent,
  play,
  shop,
  sideBySide,
  tokenDivergences,
  tokenFigure,
  windows,
  wordTokenizer,
} from "../lib/agent-distillation/mod.ts";
import { toSvg } from "../lib/core/figure.ts";
import { key } from "../lib/core/rng.ts";
import { ready } from "../lib/core/tensor.ts";

await ready();

const world = shop();
const tokenizer = wordTokenizer(world.vocabulary());
const shape = { hiddenSize: 16, numLayers: 1, numHeads: 2 };
const teacher = createAgent(tokenizer, shape, key(1));
const student = createAgent(tokenizer, shape, key(2));
const transcript = play(
  world,
  world.reset(key(3), "unseen"),
  world.expert(key(4)),
);

interface Shape {
  fillcolor: string;
}
interface Annotation {
  text: string;
  font: { color: string };
}

test("tokens: each new token once, in its span's colour, with a ground where it is learnt", () => {
  const turns = 3;
  const figure = tokenFigure(student, teacher, transcript, { turns });
  const shapes = figure.layout.shapes as Shape[];
  const texts = figure.layout.annotations as Annotation[];
  const used = windows([transcript], tokenizer).slice(0, turns);
  const ids = used.flatMap(({ ids, from }) => Array.from(ids.slice(from)));
  const labels = used.flatMap(({ labels, from }) => labels.slice(from));
  assert.equal(
    texts.map(({ text }) => text),
    ids.map((id) => tokenizer.decode([id]).replace("\n", "⏎").trim()),
  );
  const colours = new Map(labels.map((l, i) => [l, texts[i].font.color]));
  assert.is(new Set(colours.values()).size, 3);
  texts.forEach(({ font }, i) => assert.is(font.color, colours.get(labels[i])));
  assert.is(shapes.length, labels.filter((l) => l !== "neither").length);

  // The ground of the first token of reasoning, by hand: white at 0, the full colour at 2 nats.
  const [{ ids: first, labels: own }] = used;
  const t = own.indexOf("reason");
  const kl = tokenDivergences(student, teacher, first)[t - 1];
  assert.ok(kl > 0);
  const blue = Math.round(255 + Math.min(1, kl / 2) * (75 - 255));
  assert.match(shapes[0].fillcolor, new RegExp(`,${blue}\\)$`));
  const [svg, scale] = [toSvg(figure), "KL (nats)"];
  assert.ok(svg.includes(scale) && svg.includes("Reasoning:"));
});

test("tokens: a student that is its teacher has white grounds", () => {
  const { layout } = tokenFigure(teacher, teacher, transcript);
  for (const { fillcolor } of layout.shapes as Shape[]) {
    assert.is(fillcolor, "rgb(255,255,255)");
  }
});

test("side by side: both agents' turns, how each ended, and one task only", () => {
  const other = play(
    { maxSteps: 4 },
    world.reset(key(3), "unseen"),
    () => ({ reasoning: "so", action: "fly" }),
  );
  const rows = sideBySide(["expert", "bird"], [transcript, other], {
    turns: world.maxSteps,
  }).rows;
  assert.is(rows.length, transcript.turns.length + 1);
  const [{ reasoning, action }] = transcript.turns;
  assert.equal(rows[0], {
    turn: "1",
    expert: `${reasoning} → ${action}`,
    bird: "so → fly (invalid)",
  });
  assert.is(rows[4].bird, "");
  assert.equal(rows.at(-1), {
    turn: "end",
    expert: `solved in ${transcript.turns.length} turns`,
    bird: "not solved, reward 0.00 in 4 turns",
  });
  const short = sideBySide(["a", "b"], [transcript, other], { turns: 2 }).rows;
  assert.is(short.length, 3);
  assert.is(short[2].b, "not solved, reward 0.00 in 4 turns, 2 not shown");
  const elsewhere = play(
    world,
    world.reset(key(5), "unseen"),
    world.expert(key(4)),
  );
  assert.throws(
    () => sideBySide(["a", "b"], [transcript, elsewhere]),
    /they must be of one task: "Task: buy /,
  );
});

test.run();
