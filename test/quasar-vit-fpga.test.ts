/** FPGA model: counts of DeiT, hand cases of the cycle formula, calibration, budgets that fit nothing. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  baseFps,
  calibrate,
  type Engine,
  feasibility,
  fitEngine,
  gemmCycles,
  latency,
  predictions,
  resources,
  sensitivity,
  tryEngine,
  UNCALIBRATED,
  withValues,
  YOSYS_LUTS,
  ZCU102,
} from "../lib/quasar-vit/fpga.ts";
import {
  bitOps,
  deit,
  type Gemm,
  gemms,
  IMAGENET,
  macs,
  type Task,
} from "../lib/quasar-vit/workload.ts";

const calibrated = calibrate();
const { constants } = calibrated;

test("MACs are those of DeiT", () => {
  // recalled values of timm's counters: 1.2537, 4.5989, 17.5638 G with both products of attention
  assert.is(macs(deit("tiny"), IMAGENET), 1_253_683_200);
  assert.is(macs(deit("small"), IMAGENET), 4_598_882_304);
  assert.is(macs(deit("base"), IMAGENET), 17_563_828_224);
});

test("BitOps of a model by hand", () => {
  const task: Task = { numPatches: 1, patchDim: 2, classes: 3, headDim: 4 };
  const blocks = [{ heads: 1, mlpRatio: 2, ratio8: 0.5 }];
  const subnet = { dim: 2, blocks };
  // MACs with 8 x 6: patches 1*2*2, head 3*2; with 6 bits a row on average: qkv 2*2*12, projection 2*4*2,
  // mlp 2 * 2*2*4; attention with 6 x 6: 2*2*4 twice
  assert.is(
    bitOps(subnet, task),
    48 * (4 + 6) + 36 * (48 + 16 + 32) + 36 * 32,
  );
});

test("cycles of one product by hand", () => {
  const engine: Engine = {
    dsp3: 0,
    dsp4: 16,
    lutAtoms: 0,
    tileOutputs: 16,
    tileInputs: 8,
  };
  const gemm: Gemm = {
    name: "one",
    outputs: 32,
    inputs: 16,
    tokens: 10,
    count: 1,
    operand: "weights",
    ratio8: 0.5,
  };
  // U = 64. Tile: 16 rows, 8 of them with two atoms: 24 atoms x 8 inputs x 10 tokens / 64 = 30 cycles.
  // Weights 4 x 24 x 8 / 256 = 3. Outputs ceil(16 x 6 / 256) x 10 = 10. Inputs ceil(96 / 256) x 10 = 10.
  // L2 = 2 x 30 + 30 = 90, two tiles of outputs, and the last outputs.
  assert.is(gemmCycles(gemm, engine, UNCALIBRATED).cycles, 2 * 90 + 10);
  const attention: Gemm = { ...gemm, operand: "activations", ratio8: 0 };
  // two atoms each: 32 x 8 x 10 / 64 = 40
  assert.is(gemmCycles(attention, engine, UNCALIBRATED).cycles, 2 * 120 + 10);
});

test("cycles of products round up once per tile, not once per token", () => {
  const engine: Engine = {
    dsp3: 0,
    dsp4: 16,
    lutAtoms: 0,
    tileOutputs: 20,
    tileInputs: 8,
  };
  const gemm: Gemm = {
    name: "one",
    outputs: 20,
    inputs: 8,
    tokens: 10,
    count: 1,
    operand: "weights",
    ratio8: 0,
  };
  // 20 x 8 = 160 atoms a token on 64: 2.5 cycles, 25 for ten tokens (30 if each token rounded up).
  assert.is(gemmCycles(gemm, engine, UNCALIBRATED).compute, 25);
  // 2 x 8 = 16 atoms a token: four tokens in a cycle, ceil(2.5) = 3 for ten (10 if each took a cycle).
  const narrow = { ...gemm, outputs: 2 };
  assert.is(gemmCycles(narrow, engine, UNCALIBRATED).compute, 3);
  // A share of the cycles: 1600 / (0.7 x 64) = 35.7
  const slow = withValues(UNCALIBRATED, { sustainedRatio: 0.7 }, "test");
  assert.is(gemmCycles(gemm, engine, slow).compute, 36);
});

test("more 8-bit rows, fewer blocks or a slower host are never faster", () => {
  const fps = (ratio8: number, dsp: number) => {
    const budget = { ...ZCU102, dsp };
    const subnet = deit("small", ratio8);
    const engine = fitEngine(subnet, IMAGENET, budget, constants);
    const used = resources(engine, subnet, IMAGENET, constants);
    assert.ok(used.dsp <= dsp && used.bram18 <= ZCU102.bram18);
    assert.ok(used.lut <= constants.usableLutRatio.value * ZCU102.lut + 1);
    return latency(subnet, IMAGENET, engine, budget, constants).fps;
  };
  const ratios = [0, 0.25, 0.5, 0.75, 1].map((r) => fps(r, 2520));
  ratios.reduce((a, b) => (assert.ok(b <= a, `${a} ${b}`), b));
  assert.ok(fps(0.5, 1000) < fps(0.5, 2520));
});

test("calibration rows fit by construction, the others are predicted", () => {
  const rows = predictions(ZCU102, calibrated);
  assert.equal(
    rows.filter(({ use }) => use === "calibration").map(({ id }) => id),
    ["baseline", "auto-vit-acc"],
  );
  for (const { use, holds, modelFps, fps } of rows) {
    if (use !== "calibration") continue;
    assert.ok(holds, `${fps} ${modelFps}`);
  }
  const { sustainedRatio } = constants;
  assert.ok(sustainedRatio.value > 0.5 && sustainedRatio.value <= 1);
  // an unquantised product is more than one 16-bit one and less than one of floats
  const { value } = calibrated.dspPerBaselineMac;
  assert.ok(value > 1 && value < 5, `${value}`);
  const slow = {
    ...UNCALIBRATED,
    hostNsPerElement: { ...UNCALIBRATED.hostNsPerElement, value: 2 },
  };
  assert.throws(() => calibrate(ZCU102, slow), /must reach 56.8 FPS/);
});

test("the envelope of the paper's three speeds", () => {
  // 4 x 2520 x 150 MHz = 1.512e12 products a second
  const points = feasibility(ZCU102, constants);
  const rounded = points.map(({ peakGmacs, sustainedGmacs }) => [
    Number(peakGmacs.toFixed(2)),
    Number(sustainedGmacs.toFixed(2)),
  ]);
  assert.equal(rounded, [[14.9, 9.83], [9.47, 6.25], [6.01, 3.97]]);
  for (const { modelGmacs, peakGmacs } of points) {
    assert.ok(modelGmacs > 0 && modelGmacs < peakGmacs);
  }
});

test("each variant of the assumptions meets the calibrated row, or says that it cannot", () => {
  const variants = sensitivity({ base: deit("base") });
  for (const { name, largestFps, calibrated } of variants) {
    assert.is(calibrated === null, largestFps < 56.8, name);
    if (calibrated === null) continue;
    const { base } = calibrated.fps;
    assert.ok(Math.abs(base / 56.8 - 1) < 0.03, `${name} ${base}`);
    assert.ok(base <= largestFps, name);
  }
  assert.ok(variants.some(({ calibrated }) => calibrated === null));
});

test("with LUTs as Yosys counts them the board stays below the row that the model is calibrated on", () => {
  const counted = withValues(UNCALIBRATED, YOSYS_LUTS, "Yosys");
  assert.is(counted.lutPerDsp4.value, 107);
  assert.is(UNCALIBRATED.lutPerDsp4.value, 64);
  assert.ok(baseFps() > 56.8 && baseFps(ZCU102, counted) < 56.8);
  assert.throws(() => calibrate(ZCU102, counted), /must reach 56.8 FPS: 47.2/);
});

test("budgets and sub-networks that cannot be: errors that say what lacks", () => {
  const subnet = deit("base");
  const fit = (change: object) =>
    fitEngine(subnet, IMAGENET, { ...ZCU102, ...change }, constants);
  assert.throws(() => fit({ bram18: 10 }), /smallest tile .*bram18 \d+ of 10/);
  assert.throws(() => fit({ dsp: 0, lut: 10 }), /hold no product/);
  const tried = tryEngine(
    subnet,
    IMAGENET,
    { ...ZCU102, bram18: 10 },
    constants,
  );
  assert.ok(tried.engine === null);
  assert.equal(tried.lacks, ["bram18"]);
  assert.throws(() => fit({ dsp: NaN }), /dsp of the budget .*NaN/);
  assert.throws(() => fit({ freqHz: 0 }), /freqHz/);
  const blocks = [{ heads: 0, mlpRatio: 4, ratio8: 0 }];
  assert.throws(() => gemms({ dim: 64, blocks }, IMAGENET), /heads/);
  assert.throws(() => gemms({ dim: 64, blocks: [] }, IMAGENET), /depth 0/);
});

test.run();
