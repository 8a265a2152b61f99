import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type Agent,
  batchOf,
  createAgent,
  disposeAgent,
  distill,
  house,
  type Label,
  logitsAt,
  type LossOptions,
  playMany,
  rememberingTeacher,
  structuredLoss,
  termWeights,
  windows,
  withoutReasoning,
  wordTokenizer,
} from "../lib/agent-distillation/mod.ts";
import { klDivergence } from "../lib/core/nn.ts";
import { fold, key, normal } from "../lib/core/rng.ts";
import {
  flatten,
  memory,
  ready,
  type Scalar,
  type Tensor,
  tf,
} from "../lib/core/tensor.ts";

await ready();

const N = 7;
const V = 5;
const LABELS: Label[] = [
  "reason",
  "act",
  "neither",
  "reason",
  "act",
  "reason",
  "neither",
];
const TOKENS = Int32Array.from([0, 1, 2, 3, 4, 0, 1]);
const logits = (seed: number) => tf.tensor2d(normal(key(seed), N * V), [N, V]);

/** softmax in double precision. */
function softmax(row: ArrayLike<number>, temperature = 1): number[] {
  const values = Array.from(row, (x) => Math.exp(x / temperature));
  const total = values.reduce((a, b) => a + b, 0);
  return values.map((x) => x / total);
}

/** The losses written out token by token in double precision: the oracle. */
function slowLoss(
  s: Float32Array,
  t: Float32Array,
  {
    lambdaR = 1,
    lambdaA = 1,
    lambdaO = 0,
    normalization = "span-mean",
    divergence = "forward",
    temperature = 1,
  }: LossOptions,
): number {
  const lambda = { reason: lambdaR, act: lambdaA, neither: lambdaO };
  const sums = { reason: 0, act: 0, neither: 0 };
  const counts = { reason: 0, act: 0, neither: 0 };
  for (let n = 0; n < N; n++) {
    const p = softmax(t.slice(n * V, n * V + V), temperature);
    const q = softmax(s.slice(n * V, n * V + V), temperature);
    counts[LABELS[n]]++;
    if (divergence === "hard") {
      sums[LABELS[n]] -= Math.log(
        softmax(s.slice(n * V, n * V + V))[TOKENS[n]],
      );
      continue;
    }
    const [a, b] = divergence === "forward" ? [p, q] : [q, p];
    for (let v = 0; v < V; v++) {
      sums[LABELS[n]] += temperature ** 2 * a[v] * Math.log(a[v] / b[v]);
    }
  }
  const total = (Object.keys(lambda) as Label[])
    .reduce((sum, label) => sum + (lambda[label] > 0 ? counts[label] : 0), 0);
  return (Object.keys(lambda) as Label[]).reduce((sum, label) => {
    const by = normalization === "sum"
      ? 1
      : normalization === "token-mean"
      ? total
      : counts[label];
    return sum + lambda[label] * sums[label] / by;
  }, 0);
}

const OPTIONS: LossOptions[] = [
  {},
  { normalization: "sum" },
  { normalization: "token-mean", lambdaR: 0.5, lambdaA: 2 },
  { lambdaO: 0.3, temperature: 2 },
  { divergence: "reverse", temperature: 1.5, normalization: "sum" },
  { divergence: "hard", lambdaR: 0 },
];

test("losses: each option equals the sum written out, token by token", () => {
  const [s, t] = [logits(1), logits(2)];
  for (const options of OPTIONS) {
    const fast = structuredLoss(
      { student: s, teacher: t, tokens: TOKENS, labels: LABELS },
      options,
    ).dataSync()[0];
    const slow = slowLoss(
      s.dataSync() as Float32Array,
      t.dataSync() as Float32Array,
      options,
    );
    assert.ok(
      Math.abs(fast - slow) < 1e-5 * (1 + slow), // float32
      `${JSON.stringify(options)}: ${fast}, ${slow}`,
    );
  }
});

test("losses: gradients by finite differences of the oracle, zero exactly where the masks are", () => {
  const t = logits(2);
  for (const options of OPTIONS) {
    const s = logits(1);
    const gradient = tf.grad((x: Tensor) =>
      structuredLoss(
        { student: x, teacher: t, tokens: TOKENS, labels: LABELS },
        options,
      )
    )(s).dataSync();
    const values = s.dataSync().slice() as Float32Array;
    const target = t.dataSync() as Float32Array;
    const h = 1e-2; // a power of float32's step away from rounding; the oracle is smooth
    for (let i = 0; i < N * V; i++) {
      const at = (step: number) => {
        const moved = values.slice();
        moved[i] = values[i] + step;
        return slowLoss(moved, target, options);
      };
      const slope = (at(h) - at(-h)) / (2 * h);
      assert.ok(
        Math.abs(gradient[i] - slope) < 2e-4,
        `${JSON.stringify(options)} at ${i}: ${gradient[i]}, ${slope}`,
      );
      const masked = LABELS[Math.floor(i / V)] === "neither" &&
        (options.lambdaO ?? 0) === 0;
      if (masked) assert.is(gradient[i], 0);
    }
  }
});

test("losses: d L / d z = (w_r m_r + w_a m_a) (p_S - p_T), and 0 where they agree", () => {
  const [s, t] = [logits(1), logits(2)];
  const gradientAt = (x: Tensor) =>
    tf.grad((y: Tensor) =>
      structuredLoss(
        { student: y, teacher: t, tokens: TOKENS, labels: LABELS },
        { lambdaR: 0.7, lambdaA: 1.9, normalization: "sum" },
      )
    )(x).dataSync();
  const got = gradientAt(s);
  const weights = { reason: 0.7, act: 1.9, neither: 0 };
  for (let n = 0; n < N; n++) {
    const p = softmax(t.dataSync().slice(n * V, n * V + V));
    const q = softmax(s.dataSync().slice(n * V, n * V + V));
    for (let v = 0; v < V; v++) {
      const expected = weights[LABELS[n]] * (q[v] - p[v]);
      assert.ok(Math.abs(got[n * V + v] - expected) < 1e-6);
    }
  }
  assert.ok(gradientAt(t).every((x) => Math.abs(x) < 1e-6));
});

test("identity: span-mean equals a token-mean whose weights are as |r| to |a|", () => {
  const counts = { reason: 3, act: 2, neither: 2 };
  const spans = termWeights(counts, {});
  const tokens = termWeights(counts, {
    normalization: "token-mean",
    lambdaR: 5 / 3,
    lambdaA: 5 / 2,
  });
  assert.ok(Math.abs(spans.reason - tokens.reason) < 1e-12);
  assert.ok(Math.abs(spans.act - tokens.act) < 1e-12);
});

test("empty spans: 0, not 0 / 0; none at all is an error that says how many", () => {
  const counts = { reason: 0, act: 2, neither: 9 };
  assert.equal(termWeights(counts), { reason: 0, act: 0.5, neither: 0 });
  assert.throws(
    () => termWeights({ reason: 0, act: 0, neither: 9 }),
    /0 tokens of reasoning at weight 1, 0 of action at 1, 9 others at 0/,
  );
  assert.throws(() => termWeights(counts, { lambdaR: -1 }), /lambdaR .* -1/);
});

test("losses: unknown names and rows that do not belong together are refused", () => {
  const given = {
    student: logits(1),
    teacher: logits(2),
    tokens: TOKENS,
    labels: LABELS,
  };
  assert.throws(
    () => structuredLoss(given, { normalization: "mean" as never }),
    /normalization must be one of sum, token-mean, span-mean: mean/,
  );
  assert.throws(
    () => structuredLoss(given, { divergence: "jsd" as never }),
    /divergence must be one of forward, reverse, hard: jsd/,
  );
  assert.throws(
    () => structuredLoss({ ...given, labels: LABELS.slice(1) }),
    new RegExp(`student ${N}, teacher ${N}, tokens ${N}, labels ${N - 1}`),
  );
});

test("losses: another vocabulary is refused with both sizes", () => {
  const wide = tf.zeros([N, V + 3]);
  assert.throws(
    () =>
      structuredLoss({
        student: logits(1),
        teacher: wide,
        tokens: TOKENS,
        labels: LABELS,
      }),
    /teacher 8 tokens, student 5/,
  );
});

// Training ------------------------------------------------------------------------------------------

const world = house();
const tokenizer = wordTokenizer(world.vocabulary());
const shape = { hiddenSize: 16, numLayers: 1, numHeads: 2 };
const transcripts = playMany(
  world,
  "train",
  6,
  key(1),
  (i) => world.expert(fold(key(2), i)),
);
const examples = windows(transcripts, tokenizer);
const common = {
  steps: 6,
  batch: 4,
  learningRate: 3e-3,
  key: key(3),
};

function weightsOf(agent: Agent): number[] {
  return Object.values(flatten(agent.params)).flatMap((t) =>
    Array.from(t.dataSync())
  );
}

test("identity: with equal weights and the same mask, structured distillation is token-level distillation", () => {
  const teacher = createAgent(tokenizer, shape, key(10));
  const structured = createAgent(tokenizer, shape, key(11));
  const token = createAgent(tokenizer, shape, key(11));
  distill(examples, {
    ...common,
    student: structured,
    teacher,
    normalization: "token-mean",
  });
  // Token-level distillation, written without any span: mean KL over all of the agent's tokens.
  distillTokens(token, teacher);
  const [a, b] = [weightsOf(structured), weightsOf(token)];
  const start = createAgent(tokenizer, shape, key(11));
  const moved = Math.max(
    ...weightsOf(start).map((x, i) => Math.abs(x - b[i])),
  );
  const apart = Math.max(...a.map((x, i) => Math.abs(x - b[i])));
  assert.ok(moved > 5e-3, `${moved}`);
  // Sums of float32 in another order, through six steps of Adam.
  assert.ok(apart < 2e-4, `weights differ by ${apart}, moved by ${moved}`);
  // The control: span means are another training.
  const spans = createAgent(tokenizer, shape, key(11));
  distill(examples, { ...common, student: spans, teacher });
  const other = Math.max(
    ...weightsOf(spans).map((x, i) => Math.abs(x - b[i])),
  );
  assert.ok(other > 10 * apart, `${other}, ${apart}`);
  for (const agent of [teacher, structured, token, start, spans]) {
    disposeAgent(agent);
  }
});

/** One label for all of the agent's tokens, so that there is one sum and one mean. */
function distillTokens(student: Agent, teacher: Agent) {
  const flat = examples.map((example) => ({
    ...example,
    labels: example.labels.map((label): Label =>
      label === "neither" ? "neither" : "act"
    ),
  }));
  const [first] = flat;
  const { ids, rows, tokens, labels } = batchOf([first]);
  const target = logitsAt(teacher, ids, rows);
  const own = logitsAt(student, ids, rows);
  const mean = klDivergence(own, tf.softmax(target)) as Scalar;
  const ours = structuredLoss({
    student: own,
    teacher: target,
    tokens,
    labels,
  });
  assert.ok(Math.abs(mean.dataSync()[0] - ours.dataSync()[0]) < 1e-6);
  distill(flat, { ...common, student, teacher });
}

test("training: a teacher that remembers says what it says when asked anew", () => {
  const teacher = createAgent(tokenizer, shape, key(10));
  for (const options of [{}, { lambdaO: 1 }, { lambdaR: 0 }]) {
    const recall = rememberingTeacher(teacher, options);
    // Windows of several lengths, one twice in a batch and one in both batches.
    const [a, b, c, d] = examples;
    for (const chosen of [[a, b, a, c], [d, b]]) {
      const { ids, rows, counts } = batchOf(chosen, options);
      assert.is(counts.reduce((sum, n) => sum + n, 0), rows.length);
      const anew = logitsAt(teacher, ids, rows).dataSync();
      const kept = recall(chosen);
      assert.equal(kept.shape, [rows.length, tokenizer.vocabSize]);
      const apart = Math.max(
        ...kept.dataSync().map((x, i) => Math.abs(x - anew[i])),
      );
      // The same sums in batches of other sizes.
      assert.ok(apart < 1e-5, `${apart}`);
    }
  }
  disposeAgent(teacher);
});

test("training: only weighted tokens are predicted, memory stays, losses fall", () => {
  const student = createAgent(tokenizer, shape, key(11));
  const options = {
    student,
    teacher: null,
    divergence: "hard" as const,
    normalization: "token-mean" as const,
  };
  distill(examples, { ...common, ...options, steps: 2 });
  const before = memory().tensors;
  const losses = distill(examples, {
    ...common,
    ...options,
    steps: 40,
    learningRate: 1e-2,
  });
  assert.is(memory().tensors, before);
  assert.ok(losses.at(-1)! < 0.7 * losses[0], `${losses[0]}, ${losses.at(-1)}`);
  const { labels, ids } = batchOf(examples.slice(0, 3), { lambdaR: 0 });
  assert.ok(labels.length > 0 && labels.every((label) => label === "act"));
  ids.dispose();
  disposeAgent(student);
});

test("training: windows without a line of reasoning have a finite loss, those without any token to predict none", () => {
  const student = createAgent(tokenizer, shape, key(11));
  const teacher = createAgent(tokenizer, shape, key(10));
  const bare = windows(transcripts.map(withoutReasoning), tokenizer);
  const losses = distill(bare, { ...common, student, teacher });
  assert.ok(losses.every((loss) => Number.isFinite(loss) && loss > 0));
  assert.ok(weightsOf(student).every(Number.isFinite));
  assert.throws(
    () => distill(bare, { ...common, student, teacher, lambdaA: 0 }),
    /0 tokens of reasoning at weight 1/,
  );
  disposeAgent(student);
  disposeAgent(teacher);
});

test("training: who learns from tokens alone may see more than its teacher has positions for", () => {
  const student = createAgent(
    tokenizer,
    { ...shape, maxPositions: 512 },
    key(11),
  );
  const teacher = createAgent(
    tokenizer,
    { ...shape, maxPositions: 64 },
    key(10),
  );
  const whole = windows(transcripts.map(withoutReasoning), tokenizer, {
    memory: "episode",
  });
  assert.ok(Math.max(...whole.map(({ ids }) => ids.length)) > 64);
  distill(whole, {
    ...common,
    steps: 2,
    student,
    teacher,
    divergence: "hard",
  });
  assert.throws(
    () => distill(whole, { ...common, student, teacher }),
    /the teacher must have a position for each token of a window: 64 positions/,
  );
  disposeAgent(student);
  disposeAgent(teacher);
});

test("training: the same key gives the same student, bit by bit", () => {
  const run = () => {
    const teacher = createAgent(tokenizer, shape, key(10));
    const student = createAgent(tokenizer, shape, key(11));
    distill(examples, { ...common, student, teacher });
    return weightsOf(student);
  };
  assert.equal(run(), run());
});

test("training: what does not fit together is refused by name", () => {
  const student = createAgent(tokenizer, shape, key(11));
  const words = wordTokenizer([...world.vocabulary(), "zebra"]);
  const more = createAgent(words, shape, key(1));
  const V = tokenizer.vocabSize;
  assert.throws(
    () => distill(examples, { ...common, student, teacher: more }),
    new RegExp(`teacher ${V + 1} tokens, student ${V}`),
  );
  const same = wordTokenizer(
    world.vocabulary().map((text) => text.replace("apple", "zebra")),
  );
  assert.is(same.vocabSize, V);
  assert.throws(
    () =>
      distill(examples, {
        ...common,
        student,
        teacher: createAgent(same, shape, key(1)),
      }),
    /must have the same tokenizer/,
  );
  const short: Agent = {
    ...student,
    config: { ...student.config, maxPositions: 32 },
  };
  assert.throws(
    () => distill(examples, { ...common, student, teacher: short }),
    /the teacher must have a position for each token of a window: 32 positions/,
  );
  assert.throws(
    () => distill(examples, { ...common, student, teacher: null }),
    /there must be a teacher/,
  );
  assert.throws(
    () => distill([], { ...common, student, teacher: student }),
    /there must be windows/,
  );
});

test.run();
