/**
 * Latency and resources of a vision transformer on an FPGA with one shared engine.
 *
 * Li et al., "Quasar-ViT: Hardware-Oriented Quantization-Aware Architecture Search for Vision Transformers", ICS 2024,
 * arXiv 2407.18175. The paper's equations were not read. The form is recalled from the same group's VAQF (arXiv 2201.06618)
 * and Auto-ViT-Acc (arXiv 2208.05163): tiles of Tm outputs by Tn inputs, double buffering, one atom per 4-bit product.
 *
 *     L_in  = ceil(N a / p_in) F           L_w   = ceil(Tm Tn b / p_w)        L_out = ceil(Tm a / p_out) F
 *     L_cmp = ceil(F Tn (Tm + n8) / (eta U))   one atom per 4-bit weight, two per 8-bit weight, U atoms per cycle
 *     L_1   = max(L_w, L_cmp)              L_2   = max(ceil(N / Tn) L_1 + L_cmp, L_out)
 *     L     = ceil(M / Tm) L_2 + L_out + max(0, L_in - L_2)    FPS = 1 / (sum L / f + host time)
 *     U     = 3 D3 + 4 D4 + U_lut          LUT   = c3 D3 + c4 D4 + c_l U_lut
 *
 * Where we deviate: VAQF reads the inputs again for every tile of outputs; here they stay in block memory, which the shapes of
 * DeiT allow on this chip, so they are read once per product. L_cmp rounds up once per tile; the family's form rounds up for
 * every token, F ceil(Tn (Tm + n8) / U). So an array wider than a token's products takes up more than one token per cycle here,
 * although `resources` gives the buffers ports for one: small tiles are modelled too fast.
 *
 * | symbol | identifier | unit |
 * | --- | --- | --- |
 * | p | portBits | bits per cycle of the ports for inputs, weights, outputs |
 * | U | atomsPerCycle | 4-bit products per cycle |
 * | D3, D4 | dsp3, dsp4 | blocks with factor 3 and 4 |
 * | eta | sustainedRatio | share of the cycles in which the engine advances; calibrated |
 * | c3, c4, c_l | lutPerDsp3, lutPerDsp4, lutPerAtom | LUTs of a block with factor 3 and 4, and of a product outside blocks |
 *
 * Scope: modelled. No placement, no timing closure, no flip-flops, no power. Two constants are calibrated on two published rows
 * of DeiT-B (`calibrate`): the sustained ratio on 56.8 FPS, the blocks of a product of the unquantised baseline on 10.0 FPS.
 * They are therefore no test of the model; every other row is (`PUBLISHED`, `predictions`). The rows of the unquantised baseline
 * and of VAQF are bounds by the rate of products and the host (`baseMs`), without tiles.
 */
import { ACTIVATION_BITS, type PackingFactor } from "./packing.ts";
import {
  deit,
  type Gemm,
  gemms,
  hostElements,
  IMAGENET,
  macs,
  rows8,
  type Subnet,
  type Task,
} from "./workload.ts";

export type Standing =
  | "read"
  | "recalled"
  | "derived"
  | "assumed"
  | "calibrated";

/** A number with where it comes from. */
export interface Constant {
  value: number;
  unit: string;
  source: string;
  standing: Standing;
}

/** What a device offers. */
export interface Budget {
  name: string;
  dsp: number;
  lut: number;
  /** Blocks of 18 Kb. */
  bram18: number;
  freqHz: number;
  source: string;
  standing: Standing;
}

/** Totals of the chip; the clock is what designs of this group use. */
export const ZCU102: Budget = {
  name: "ZCU102",
  dsp: 2520,
  lut: 274080,
  bram18: 1824,
  freqHz: 150e6,
  source:
    "XCZU9EG totals (AMD/Xilinx DS891) and 150 MHz of VAQF and Auto-ViT-Acc",
  standing: "recalled",
};

/** All assumptions of the model; passed in and printed with results. */
export interface Constants {
  usableLutRatio: Constant;
  lutPerDsp3: Constant;
  lutPerDsp4: Constant;
  lutPerAtom: Constant;
  sustainedRatio: Constant;
  hostNsPerElement: Constant;
  inputPortBits: Constant;
  weightPortBits: Constant;
  outputPortBits: Constant;
  accumulatorBits: Constant;
  bram18Bits: Constant;
}

/** Assumptions before calibration: `calibrate` replaces the share of cycles in which the engine advances. */
export const UNCALIBRATED: Constants = {
  usableLutRatio: {
    value: 0.8,
    unit: "",
    source: "routing rarely closes above; our choice",
    standing: "assumed",
  },
  lutPerDsp3: {
    value: 48,
    unit: "LUT",
    source:
      "lower bound: three lanes, each 13 bits of an adder tree and an eighth of the accumulator; without lane repair, joining of 8-bit rows, packing and multiplexers; Yosys counts 83",
    standing: "assumed",
  },
  lutPerDsp4: {
    value: 64,
    unit: "LUT",
    source: "lower bound: as lutPerDsp3 with four lanes; Yosys counts 107",
    standing: "assumed",
  },
  lutPerAtom: {
    value: 40,
    unit: "LUT",
    source:
      "lower bound: three additions of 8 bits multiply 4 by 6 bits, and 16 as in a lane; without joining of 8-bit rows and multiplexers; Yosys counts 84",
    standing: "assumed",
  },
  sustainedRatio: {
    value: 1,
    unit: "",
    source: "start of the calibration",
    standing: "calibrated",
  },
  hostNsPerElement: {
    value: 0.2,
    unit: "ns",
    source:
      "four Cortex-A53 at 1.2 GHz, about one vector operation of four elements per core and 3 ns; its effect is shown by `sensitivity`",
    standing: "assumed",
  },
  inputPortBits: {
    value: 256,
    unit: "bit/cycle",
    source:
      "two of six AXI ports of 128 bits each way; all six are 14.4 GB/s at 150 MHz, below the peak of the board's DDR4",
    standing: "assumed",
  },
  weightPortBits: {
    value: 256,
    unit: "bit/cycle",
    source:
      "two of six AXI ports of 128 bits each way; all six are 14.4 GB/s at 150 MHz, below the peak of the board's DDR4",
    standing: "assumed",
  },
  outputPortBits: {
    value: 256,
    unit: "bit/cycle",
    source:
      "two of six AXI ports of 128 bits each way; all six are 14.4 GB/s at 150 MHz, below the peak of the board's DDR4",
    standing: "assumed",
  },
  accumulatorBits: {
    value: 24,
    unit: "bit",
    source:
      "8-bit weight times 6-bit activation is 14 bits, sums of 1,024 need 10 more",
    standing: "derived",
  },
  bram18Bits: {
    value: 18432,
    unit: "bit",
    source: "block of 18 Kb, AMD/Xilinx UG573",
    standing: "recalled",
  },
};

/**
 * LUTs of the same three by synthesis: `countCells` of one element of four columns (Yosys, synth_xilinx -family xcup), whose
 * registers and accumulators it counts as well.
 */
export const YOSYS_LUTS = { lutPerDsp3: 83, lutPerDsp4: 107, lutPerAtom: 84 };

/** The engine: how many products of each kind it holds, and its tile. */
export interface Engine {
  dsp3: number;
  dsp4: number;
  /** Products in LUTs. */
  lutAtoms: number;
  tileOutputs: number;
  tileInputs: number;
}

/** What an engine takes from the budget. */
export interface Resources {
  dsp: number;
  lut: number;
  bram18: number;
}

export interface Latency {
  /** Of the fabric. */
  cycles: number;
  fabricMs: number;
  hostMs: number;
  latencyMs: number;
  fps: number;
  /** By what bounds it: cycles of products, of weights and of inputs and outputs that they wait for. */
  bound: { compute: number; weights: number; inputs: number; outputs: number };
}

function checkBudget(budget: Budget): void {
  for (const name of ["dsp", "lut", "bram18", "freqHz"] as const) {
    const value = budget[name];
    if (!Number.isFinite(value) || value < 0 || (name === "freqHz" && !value)) {
      throw new RangeError(
        `Cannot fit an engine as ${name} of the budget must be a number from 0: ${value}`,
      );
    }
  }
}

/** U = 3 D3 + 4 D4 + U_lut: 4-bit products per cycle. */
export function atomsPerCycle({ dsp3, dsp4, lutAtoms }: Engine): number {
  return 3 * dsp3 + 4 * dsp4 + lutAtoms;
}

/** Blocks of 18 Kb of a buffer in two halves: enough for the bits of each, and for its port width. */
function bufferBlocks(bits: number, portBits: number, blockBits: number) {
  const widthOfBlock = 36;
  return 2 * Math.max(
    Math.ceil(bits / blockBits),
    Math.ceil(portBits / widthOfBlock),
  );
}

/** Products of one shape, and how often they occur: blocks are mostly alike. */
type Work = { gemm: Gemm; times: number }[];

function workOf(subnet: Subnet, task: Task): Work {
  const distinct = new Map<string, Work[number]>();
  for (const gemm of gemms(subnet, task)) {
    const { outputs, inputs, tokens, count, operand, ratio8 } = gemm;
    const id = [outputs, inputs, tokens, count, operand, ratio8].join();
    const known = distinct.get(id);
    if (known === undefined) distinct.set(id, { gemm, times: 1 });
    else known.times++;
  }
  return [...distinct.values()];
}

/** Bits of the largest input of a product: it stays in block memory. */
function residentBits(work: Work): number {
  return Math.max(
    ...work.map(({ gemm: { inputs, tokens } }) =>
      inputs * tokens * ACTIVATION_BITS
    ),
  );
}

/** What an engine takes to run a sub-network. */
export function resources(
  engine: Engine,
  subnet: Subnet,
  task: Task,
  constants: Constants,
): Resources {
  return resourcesOf(engine, workOf(subnet, task), task, constants);
}

function resourcesOf(
  engine: Engine,
  work: Work,
  task: Task,
  constants: Constants,
): Resources {
  const tokens = task.numPatches + 1;
  const { dsp3, dsp4, lutAtoms, tileOutputs: Tm, tileInputs: Tn } = engine;
  const { bram18Bits, accumulatorBits } = constants;
  const size = bram18Bits.value;
  const a = ACTIVATION_BITS;
  return {
    dsp: dsp3 + dsp4,
    lut: Math.ceil(
      constants.lutPerDsp3.value * dsp3 + constants.lutPerDsp4.value * dsp4 +
        constants.lutPerAtom.value * lutAtoms,
    ),
    bram18: bufferBlocks(residentBits(work) / 2, Tn * a, size) +
      bufferBlocks(Tm * Tn * 8, constants.weightPortBits.value, size) +
      bufferBlocks(
        Tm * tokens * accumulatorBits.value,
        Tm * accumulatorBits.value,
        size,
      ),
  };
}

/** Whether an engine fits; the names of what it exceeds. */
export function exceeded(
  { dsp, lut, bram18 }: Resources,
  budget: Budget,
  constants: Constants,
): string[] {
  const over: string[] = [];
  if (dsp > budget.dsp) over.push("dsp");
  if (lut > constants.usableLutRatio.value * budget.lut) over.push("lut");
  if (bram18 > budget.bram18) over.push("bram18");
  return over;
}

/** Atoms of one column of a tile: a 4-bit weight is one, an 8-bit weight two, and so is a 6-bit activation (16 h + l). */
function atomsOfRows(rows: number, gemm: Gemm): number {
  return gemm.operand === "activations"
    ? 2 * rows
    : rows + rows8(rows, gemm.ratio8);
}

/** Cycles of one product on the engine; formulas in the file head. */
export function gemmCycles(
  gemm: Gemm,
  engine: Engine,
  constants: Constants,
): {
  cycles: number;
  compute: number;
  weights: number;
  inputs: number;
  outputs: number;
} {
  const { outputs: M, inputs: N, tokens: F, count } = gemm;
  const Tm = Math.min(engine.tileOutputs, M);
  const Tn = Math.min(engine.tileInputs, N);
  const U = atomsPerCycle(engine);
  const a = ACTIVATION_BITS;
  const atoms = atomsOfRows(Tm, gemm);
  // bits of a tile's stationary operand: 4 per atom of a weight, 6 per activation
  const stationary = gemm.operand === "activations"
    ? a * Tm * Tn
    : 4 * atoms * Tn;
  const inputs = Math.ceil(N * a / constants.inputPortBits.value) * F;
  const weights = Math.ceil(stationary / constants.weightPortBits.value);
  const outputs = Math.ceil(Tm * a / constants.outputPortBits.value) * F;
  const compute = Math.ceil(
    F * Tn * atoms / (constants.sustainedRatio.value * U),
  );
  const L1 = Math.max(weights, compute);
  const L2 = Math.max(Math.ceil(N / Tn) * L1 + compute, outputs);
  const tiles = count * Math.ceil(M / Tm);
  return {
    cycles: tiles * L2 + count * (outputs + Math.max(0, inputs - L2)),
    compute: tiles * Math.ceil(N / Tn) * compute,
    weights: tiles * Math.ceil(N / Tn) * weights,
    inputs: count * inputs,
    outputs: tiles * outputs,
  };
}

/** Time of LayerNorm, Softmax and GELU on the processor beside the fabric. */
export function hostMs(
  subnet: Subnet,
  task: Task,
  constants: Constants,
): number {
  const { layerNorm, softmax, gelu } = hostElements(subnet, task);
  return (layerNorm + softmax + gelu) * constants.hostNsPerElement.value * 1e-6;
}

function cyclesOf(work: Work, engine: Engine, constants: Constants) {
  const bound = { compute: 0, weights: 0, inputs: 0, outputs: 0 };
  let cycles = 0;
  for (const { gemm, times } of work) {
    const own = gemmCycles(gemm, engine, constants);
    cycles += times * own.cycles;
    bound.compute += times * own.compute;
    bound.weights += times * own.weights;
    bound.inputs += times * own.inputs;
    bound.outputs += times * own.outputs;
  }
  return { cycles, bound };
}

/** Latency of one image. */
export function latency(
  subnet: Subnet,
  task: Task,
  engine: Engine,
  budget: Budget,
  constants: Constants,
): Latency {
  const { cycles, bound } = cyclesOf(workOf(subnet, task), engine, constants);
  const fabricMs = 1e3 * cycles / budget.freqHz;
  const host = hostMs(subnet, task, constants);
  const latencyMs = fabricMs + host;
  return {
    cycles,
    fabricMs,
    hostMs: host,
    latencyMs,
    fps: 1e3 / latencyMs,
    bound,
  };
}

/** Products per cycle that fit: DSP blocks by factor first, what LUTs remain as products in LUTs. */
export function largestArray(
  budget: Budget,
  constants: Constants,
  factor: PackingFactor = 4,
): Pick<Engine, "dsp3" | "dsp4" | "lutAtoms"> {
  const lut = constants.usableLutRatio.value * budget.lut;
  const perDsp = factor === 4
    ? constants.lutPerDsp4.value
    : constants.lutPerDsp3.value;
  const blocks = Math.min(Math.floor(budget.dsp), Math.floor(lut / perDsp));
  const rest = Math.max(0, lut - blocks * perDsp);
  return {
    dsp3: factor === 3 ? blocks : 0,
    dsp4: factor === 4 ? blocks : 0,
    lutAtoms: Math.floor(rest / constants.lutPerAtom.value),
  };
}

const TILE_OUTPUTS = [8, 16, 32, 48, 64, 96, 128, 192, 256, 384];
const TILE_INPUTS = [8, 16, 32, 48, 64, 96, 128, 192, 256];

/** Engines that a budget holds: the largest array with each tile that fits its block memory. */
function candidateEngines(
  work: Work,
  task: Task,
  budget: Budget,
  constants: Constants,
  factor: PackingFactor,
): Engine[] {
  checkBudget(budget);
  const array = largestArray(budget, constants, factor);
  const tiles = TILE_OUTPUTS.flatMap((tileOutputs) =>
    TILE_INPUTS.map((tileInputs) => ({ tileOutputs, tileInputs }))
  );
  return tiles.map((tile) => ({ ...array, ...tile }))
    .filter((engine) =>
      atomsPerCycle(engine) > 0 &&
      exceeded(resourcesOf(engine, work, task, constants), budget, constants)
          .length === 0
    );
}

/** An engine, or what the budget lacks for its smallest tile: resources, or "products" if it holds none. */
export type Fit =
  | { engine: Engine }
  | { engine: null; lacks: string[]; why: string };

/**
 * The engine with the least latency for a sub-network within a budget, or what the budget lacks.
 *
 * @throws {RangeError} if the budget or the sub-network is none
 */
export function tryEngine(
  subnet: Subnet,
  task: Task,
  budget: Budget,
  constants: Constants,
  factor: PackingFactor = 4,
): Fit {
  const work = workOf(subnet, task);
  let best: Engine | undefined;
  let least = Infinity;
  for (
    const engine of candidateEngines(work, task, budget, constants, factor)
  ) {
    const { cycles } = cyclesOf(work, engine, constants);
    if (cycles < least) [best, least] = [engine, cycles];
  }
  if (best !== undefined) return { engine: best };
  const smallest: Engine = {
    ...largestArray(budget, constants, factor),
    tileOutputs: TILE_OUTPUTS[0],
    tileInputs: TILE_INPUTS[0],
  };
  const needed = resourcesOf(smallest, work, task, constants);
  const lacks = exceeded(needed, budget, constants);
  return {
    engine: null,
    lacks: lacks.length === 0 ? ["products"] : lacks,
    why:
      `the budget must hold its smallest tile (${smallest.tileOutputs} x ${smallest.tileInputs}) and one product: ${
        lacks.length === 0
          ? `${budget.dsp} DSP, ${budget.lut} LUT hold no product`
          : lacks.map((name) =>
            `${name} ${needed[name as keyof Resources]} of ${
              budget[name as keyof Resources]
            }`
          ).join(", ")
      }`,
  };
}

/**
 * The engine with the least latency for a sub-network within a budget.
 *
 * @throws {RangeError} if no tile fits the budget; the message names what it lacks
 */
export function fitEngine(
  subnet: Subnet,
  task: Task,
  budget: Budget,
  constants: Constants,
  factor: PackingFactor = 4,
): Engine {
  const fit = tryEngine(subnet, task, budget, constants, factor);
  if (fit.engine !== null) return fit.engine;
  throw new RangeError(
    `Cannot fit an engine as ${fit.why}; give a larger budget`,
  );
}

// Published rows ------------------------------------------------------------------------------------

/** A published speed on the board. */
export interface PublishedRow {
  id: string;
  system: string;
  model: "tiny" | "small" | "base";
  /** Frames per second, or the least of them. */
  fps: number;
  relation: "equal" | "at least";
  use: "calibration" | "test";
  source: string;
}

/** Rows of the same board, as the papers' abstracts and pages state them. */
export const PUBLISHED: readonly PublishedRow[] = [
  {
    id: "baseline",
    system: "unquantised baseline, DeiT-B",
    model: "base",
    fps: 10.0,
    relation: "equal",
    use: "calibration",
    source: "Auto-ViT-Acc abstract (arXiv 2208.05163)",
  },
  {
    id: "auto-vit-acc",
    system: "Auto-ViT-Acc, DeiT-B",
    model: "base",
    fps: 56.8,
    relation: "equal",
    use: "calibration",
    source: "Auto-ViT-Acc abstract (arXiv 2208.05163)",
  },
  {
    id: "vaqf-a8",
    system: "VAQF, DeiT-B, W1A8",
    model: "base",
    fps: 24,
    relation: "at least",
    use: "test",
    source: "VAQF (arXiv 2201.06618): target met",
  },
  {
    id: "vaqf-a6",
    system: "VAQF, DeiT-B, W1A6",
    model: "base",
    fps: 30,
    relation: "at least",
    use: "test",
    source: "VAQF (arXiv 2201.06618): target met",
  },
];

/** What the published designs are taken to be, where their papers were not read. */
export const DESIGNS = {
  autoVitAcc: {
    /** Share of rows that take two atoms. */
    ratio8: 0,
    source: "4-bit rows in DSP blocks and LUTs",
    standing: "assumed",
  },
  vaqf: {
    /** A binary weight adds or subtracts: a LUT per bit of the sum. */
    lutPerProduct: (activationBits: number) => activationBits + 10,
    source:
      "sums of 1,024 need ten more bits than the activation; one LUT a bit (carry chain)",
    standing: "derived",
  },
} as const;

const AUTO_VIT_ACC = deit("base", DESIGNS.autoVitAcc.ratio8);

const published = (id: string) => PUBLISHED.find((row) => row.id === id)!.fps;

/** Milliseconds of DeiT-B when U products advance per cycle, and nothing else waits: a bound without tiles and ports. */
function baseMs(U: number, budget: Budget, constants: Constants): number {
  const cycles = macs(deit("base"), IMAGENET) /
    (constants.sustainedRatio.value * U);
  return 1e3 * cycles / budget.freqHz +
    hostMs(deit("base"), IMAGENET, constants);
}

/** The model's constants, and what the unquantised baseline turns out to be. */
export interface Calibrated {
  constants: Constants;
  /** Blocks of a product of the unquantised design: 1 is 16-bit fixed point, about 5 a product of floats. */
  dspPerBaselineMac: Constant;
}

/** A copy with one value replaced and its source said. */
function withValue(
  constants: Constants,
  name: keyof Constants,
  value: number,
  source: string,
): Constants {
  return { ...constants, [name]: { ...constants[name], value, source } };
}

/** A copy with other values of the same standing, and where they come from. */
export function withValues(
  constants: Constants,
  values: Partial<Record<keyof Constants, number>>,
  source: string,
): Constants {
  return Object.entries(values).reduce(
    (own, [name, value]) =>
      withValue(own, name as keyof Constants, value, source),
    constants,
  );
}

/** Frames per second of Auto-ViT-Acc's DeiT-B on an engine that advances in a share `eta` of the cycles; 1 is the largest speed. */
export function baseFps(
  budget: Budget = ZCU102,
  constants: Constants = UNCALIBRATED,
  eta = 1,
): number {
  const own = withValue(constants, "sustainedRatio", eta, "given");
  const engine = fitEngine(AUTO_VIT_ACC, IMAGENET, budget, own);
  return latency(AUTO_VIT_ACC, IMAGENET, engine, budget, own).fps;
}

/**
 * The constants with eta solved for by bisection on the whole model from Auto-ViT-Acc's DeiT-B (56.8 FPS), then the blocks of an
 * unquantised product from the baseline (10.0 FPS).
 *
 * @throws {RangeError} if no share of cycles up to 1 reaches the row
 */
export function calibrate(
  budget: Budget = ZCU102,
  constants: Constants = UNCALIBRATED,
): Calibrated {
  const source =
    "calibrated on 56.8 FPS of Auto-ViT-Acc's DeiT-B, taken as 4-bit rows";
  const fps = (eta: number) => baseFps(budget, constants, eta);
  const wanted = published("auto-vit-acc");
  if (fps(1) < wanted) {
    throw new RangeError(
      `Cannot calibrate as an engine that never waits must reach ${wanted} FPS: ${
        fps(1).toFixed(1)
      }; give faster host or more LUTs`,
    );
  }
  let [low, high] = [0.01, 1];
  for (let i = 0; i < 30; i++) {
    const middle = (low + high) / 2;
    if (fps(middle) < wanted) low = middle;
    else high = middle;
  }
  const calibrated = withValue(constants, "sustainedRatio", high, source);
  const host = hostMs(deit("base"), IMAGENET, calibrated);
  const perBlock = baseMs(budget.dsp, budget, calibrated) - host;
  return {
    constants: calibrated,
    dspPerBaselineMac: {
      value: (1e3 / published("baseline") - host) / perBlock,
      unit: "DSP",
      source: "calibrated on 10.0 FPS of the unquantised DeiT-B",
      standing: "calibrated",
    },
  };
}

/** A published row beside the model's number. */
export interface Prediction extends PublishedRow {
  modelFps: number;
  /** Whether the relation holds; of a calibration row by construction. */
  holds: boolean;
}

/** Speed of VAQF's binary weights: products are sums in LUTs. */
function vaqfFps(
  activationBits: number,
  budget: Budget,
  constants: Constants,
): number {
  const U = constants.usableLutRatio.value * budget.lut /
    DESIGNS.vaqf.lutPerProduct(activationBits);
  return 1e3 / baseMs(U, budget, constants);
}

/** Every published row beside the model's speed. Rows of `use` "calibration" fit by construction. */
export function predictions(
  budget: Budget,
  { constants, dspPerBaselineMac }: Calibrated,
): Prediction[] {
  const engine = fitEngine(AUTO_VIT_ACC, IMAGENET, budget, constants);
  const baseline = baseMs(
    budget.dsp / dspPerBaselineMac.value,
    budget,
    constants,
  );
  const model: Record<string, number> = {
    baseline: 1e3 / baseline,
    "auto-vit-acc":
      latency(AUTO_VIT_ACC, IMAGENET, engine, budget, constants).fps,
    "vaqf-a8": vaqfFps(8, budget, constants),
    "vaqf-a6": vaqfFps(6, budget, constants),
  };
  return PUBLISHED.map((row) => ({
    ...row,
    modelFps: model[row.id],
    holds: row.relation === "at least"
      ? model[row.id] >= row.fps
      : Math.abs(model[row.id] / row.fps - 1) < 0.02,
  }));
}

/** Speeds on the published board of the paper's three sub-networks (abstract); their shapes were not read. */
export const QUASAR_POINTS: readonly { fps: number; top1: number }[] = [
  { fps: 101.5, top1: 80.4 },
  { fps: 159.6, top1: 78.6 },
  { fps: 251.6, top1: 74.9 },
];

export interface EnvelopePoint {
  fps: number;
  top1: number;
  /** Largest model, 10^9 MACs, at four products per block and cycle and nothing lost. */
  peakGmacs: number;
  /** At three products (factor 3). */
  factor3Gmacs: number;
  /** At the rate that Auto-ViT-Acc sustains on DeiT-B. */
  sustainedGmacs: number;
  /** Largest with 4-bit rows throughout, by the calibrated model: a DeiT of the same aspect. */
  modelGmacs: number;
}

/** A DeiT whose width is `heads` heads. */
function deitOfHeads(heads: number): Subnet {
  return {
    dim: 64 * heads,
    blocks: Array.from(
      { length: 12 },
      () => ({ heads, mlpRatio: 4, ratio8: 0 }),
    ),
  };
}

/**
 * How large a model can be at each of the paper's three speeds: what can be said without the shapes of its sub-networks.
 */
export function feasibility(
  budget: Budget,
  constants: Constants,
): EnvelopePoint[] {
  const sustained = published("auto-vit-acc") * macs(deit("base"), IMAGENET); // MAC/s
  const sizes = Array.from({ length: 12 }, (_, i) => {
    const subnet = deitOfHeads(i + 1);
    const engine = fitEngine(subnet, IMAGENET, budget, constants);
    const { fps } = latency(subnet, IMAGENET, engine, budget, constants);
    return { fps, gmacs: macs(subnet, IMAGENET) / 1e9 };
  });
  return QUASAR_POINTS.map(({ fps, top1 }) => {
    const peak = (products: number) =>
      products * budget.dsp * budget.freqHz / fps / 1e9;
    return {
      fps,
      top1,
      peakGmacs: peak(4),
      factor3Gmacs: peak(3),
      sustainedGmacs: sustained / fps / 1e9,
      modelGmacs: Math.max(
        0,
        ...sizes.filter((size) => size.fps >= fps).map(({ gmacs }) => gmacs),
      ),
    };
  });
}

/** Speeds under other constants. */
export interface Variant {
  name: string;
  /** Largest speed of the calibrated row, by an engine that never waits. */
  largestFps: number;
  /** Calibrated anew; null where no share of cycles reaches the calibrated row. */
  calibrated: { constants: Constants; fps: Record<string, number> } | null;
}

/** Speeds under other host times, LUT shares and LUTs, each calibrated anew where it can be: what rests on the assumed constants. */
export function sensitivity(
  subnets: Record<string, Subnet>,
  budget: Budget = ZCU102,
): Variant[] {
  const variants: [string, Partial<Record<keyof Constants, number>>][] = [
    ["as assumed", {}],
    ["host twice as fast", {
      hostNsPerElement: UNCALIBRATED.hostNsPerElement.value / 2,
    }],
    ["90 % of the LUTs usable", { usableLutRatio: 0.9 }],
    ["90 % of the LUTs, host a fifth slower", {
      usableLutRatio: 0.9,
      hostNsPerElement: UNCALIBRATED.hostNsPerElement.value * 1.2,
    }],
    ["a product in LUTs at half the cost", {
      lutPerAtom: UNCALIBRATED.lutPerAtom.value / 2,
    }],
    ["host half as fast", {
      hostNsPerElement: UNCALIBRATED.hostNsPerElement.value * 2,
    }],
    ["70 % of the LUTs usable", { usableLutRatio: 0.7 }],
    ["LUTs as Yosys counts them", YOSYS_LUTS],
    ["LUTs as Yosys counts them, all usable", {
      ...YOSYS_LUTS,
      usableLutRatio: 1,
    }],
  ];
  return variants.map(([name, values]) => {
    const own = withValues(UNCALIBRATED, values, name);
    const largestFps = baseFps(budget, own);
    if (largestFps < published("auto-vit-acc")) {
      return { name, largestFps, calibrated: null };
    }
    const { constants } = calibrate(budget, own);
    const fps = Object.fromEntries(
      Object.entries(subnets).map(([id, subnet]) => {
        const engine = fitEngine(subnet, IMAGENET, budget, constants);
        return [id, latency(subnet, IMAGENET, engine, budget, constants).fps];
      }),
    );
    return { name, largestFps, calibrated: { constants, fps } };
  });
}
