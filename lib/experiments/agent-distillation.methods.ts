/** The arms of the comparison of structured agent distillation, and what a run is configured by. */
import type {
  AgentShape,
  LossOptions,
  Memory,
} from "../agent-distillation/mod.ts";

export type World = string;

/** What sets a method apart from the others. */
export interface MethodSpec {
  label: string;
  loss: LossOptions;
  /** Without the lines of reasoning. */
  actionOnly?: true;
  /** What of its episode the agent sees; default its last turn. */
  memory?: Memory;
  curriculum?: "simple first" | "complex first";
  /** Labels that are wrong on purpose. */
  labels?: "random" | "shifted";
  /** In the second half every other step learns from episodes that the student played itself. */
  onPolicy?: true;
}

const TOKEN = { normalization: "token-mean" } as const;

/** The arms of the comparison. */
export const METHODS = {
  "action-only": {
    label: "imitation, action only",
    loss: { ...TOKEN, divergence: "hard" },
    actionOnly: true,
  },
  "action-only-episode": {
    label: "imitation, action only, whole episode in view",
    loss: { ...TOKEN, divergence: "hard" },
    actionOnly: true,
    memory: "episode",
  },
  imitation: {
    label: "imitation, reasoning and action",
    loss: { ...TOKEN, divergence: "hard" },
  },
  flat: {
    label: "token-level KD, all tokens",
    loss: { ...TOKEN, lambdaO: 1 },
  },
  masked: { label: "token-level KD, agent's tokens", loss: TOKEN },
  "masked-simple-first": {
    label: "token-level KD, agent's tokens, simple first",
    loss: TOKEN,
    curriculum: "simple first",
  },
  reverse: {
    label: "reverse KL, agent's tokens",
    loss: { ...TOKEN, divergence: "reverse" },
  },
  "on-policy": {
    label: "token-level KD, half on own episodes",
    loss: TOKEN,
    onPolicy: true,
  },
  sad: {
    label: "SAD",
    loss: { normalization: "span-mean" },
    curriculum: "simple first",
  },
  "sad-all-at-once": {
    label: "SAD, no curriculum",
    loss: { normalization: "span-mean" },
  },
  "sad-complex-first": {
    label: "SAD, complex first",
    loss: { normalization: "span-mean" },
    curriculum: "complex first",
  },
  "no-cot": {
    label: "SAD without L_CoT",
    loss: { lambdaR: 0 },
    curriculum: "simple first",
  },
  "no-act": {
    label: "SAD without L_Act",
    loss: { lambdaA: 0 },
    curriculum: "simple first",
  },
  "random-spans": {
    label: "SAD, random spans",
    loss: { normalization: "span-mean" },
    curriculum: "simple first",
    labels: "random",
  },
  "shifted-spans": {
    label: "SAD, spans shifted by 3",
    loss: { normalization: "span-mean" },
    curriculum: "simple first",
    labels: "shifted",
  },
} as const satisfies Record<string, MethodSpec>;
export type Method = keyof typeof METHODS;

export type Training = {
  steps: number;
  /** Examples of a step. */
  batch: number;
  learningRate: number;
};

export type StudentTraining = Training & {
  /** The teacher's episodes that a student may learn from. */
  transcripts: number;
};

export type TeacherConfig = Training & {
  shape: AgentShape;
  /** Weight of what the world says: a teacher that never learnt to expect it has nothing to teach there. */
  lambdaO: number;
  /** Of the expert, to learn from. */
  episodes: number;
  /** Played by the teacher; those without success are left out. */
  rollouts: number;
};

export interface Config {
  worlds: World[];
  /** Probability that the expert leaves its plan for a turn. */
  detours: number;
  teacher: TeacherConfig;
  student: StudentTraining & {
    /** Width of the main comparison. */
    hiddenSize: number;
    numLayers: number;
  };
  /** What differs from that in single worlds. */
  changes: Record<
    World,
    { teacher?: Partial<TeacherConfig>; student?: Partial<StudentTraining> }
  >;
  /** Methods by world, at the main width. */
  methods: Record<World, Method[]>;
  /** Other widths, in the first world, and the methods compared there. */
  scaling: { hiddenSizes: number[]; methods: Method[] };
  /** lambda_a / lambda_r of span means without curriculum, in the first world. */
  lambdas: number[];
  evaluation: {
    /** Unseen episodes that each agent plays; the same for all. */
    episodes: number;
    /** Turns of the teacher's unseen episodes at which reasoning is compared. */
    turns: number;
  };
  seeds: number;
  /** Further seeds of the methods that claims compare. */
  moreSeeds: number;
}

/** What the claims are about. */
export const NEEDED: readonly Method[] = [
  "action-only",
  "action-only-episode",
  "imitation",
  "flat",
  "masked-simple-first",
  "sad",
  "random-spans",
];

/** The teacher of a world. */
export const teacherIn = (
  { teacher, changes }: Config,
  world: World,
): TeacherConfig => ({ ...teacher, ...changes[world]?.teacher });

/** What students of a world are trained with. */
export function trainingIn(
  { student, changes }: Config,
  world: World,
): StudentTraining {
  const { hiddenSize: _width, numLayers: _layers, ...training } = student;
  return { ...training, ...changes[world]?.student };
}
