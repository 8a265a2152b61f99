/** Search: operators, limits, policies, empty sets; evolution against random search on a known landscape. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { fold, key } from "../lib/core/rng.ts";
import { calibrate, ZCU102 } from "../lib/quasar-vit/fpga.ts";
import {
  crossover,
  evolve,
  hardwareLimits,
  mutate,
  randomSearch,
} from "../lib/quasar-vit/search.ts";
import {
  largestSubnet,
  randomSubnet,
  smallestSubnet,
  type Space,
  stream,
  subnetId,
} from "../lib/quasar-vit/space.ts";
import {
  bitOps,
  IMAGENET,
  type Subnet,
  type Task,
} from "../lib/quasar-vit/workload.ts";

const SPACE: Space = {
  dims: [32, 48, 64],
  depths: [4, 5, 6],
  heads: [2, 3, 4],
  mlpRatios: [2, 3, 4],
  ratios: [0, 0.25, 0.5, 0.75, 1],
};
const TASK: Task = { numPatches: 16, patchDim: 49, classes: 10, headDim: 16 };
const { constants } = calibrate();
const none = () => null;

/** Rewards 8-bit rows and width with falling returns: a landscape whose best is known. */
const score = ({ dim, blocks }: Subnet) =>
  Math.sqrt(dim) +
  blocks.reduce((sum, b, l) => sum + Math.sqrt(b.ratio8) / (l + 1), 0);

test("extremes hold every sub-network between them", () => {
  const [small, large] = [smallestSubnet(SPACE), largestSubnet(SPACE)]
    .map((subnet) => bitOps(subnet, TASK));
  assert.is(subnetId(smallestSubnet(SPACE)), "32: 2x2@0 2x2@0 2x2@0 2x2@0");
  for (let i = 0; i < 50; i++) {
    const ops = bitOps(randomSubnet(SPACE, key(i)), TASK);
    assert.ok(ops >= small && ops <= large);
  }
});

test("crossover takes each block whole from one of its parents", () => {
  const random = stream(key(1));
  let mixed = 0;
  for (let i = 0; i < 50; i++) {
    const a = randomSubnet(SPACE, key(2 * i));
    const b = randomSubnet(SPACE, key(2 * i + 1));
    const child = crossover(a, b, random);
    const whole = (block: object) => JSON.stringify(block);
    let fromA = 0;
    child.blocks.forEach((block, l) => {
      const sources = [a.blocks[l], b.blocks[l]].filter(Boolean).map(whole);
      assert.ok(sources.includes(whole(block)), `block ${l}`);
      if (a.blocks[l] && whole(block) === whole(a.blocks[l])) fromA++;
    });
    if (fromA > 0 && fromA < child.blocks.length) mixed++;
  }
  assert.ok(mixed > 20, `${mixed}`);
});

test("mutation without chance changes nothing, with certainty the policy still holds", () => {
  const subnet = randomSubnet(SPACE, key(3));
  const still = { blockMutation: 0, shapeMutation: 0 };
  assert.equal(mutate(subnet, SPACE, stream(key(1)), still), subnet);
  const uniform: Space = { ...SPACE, policy: "uniform" };
  const all = { blockMutation: 1, shapeMutation: 1 };
  for (let i = 0; i < 20; i++) {
    const child = mutate(
      randomSubnet(uniform, key(i)),
      uniform,
      stream(key(i)),
      all,
    );
    assert.is(new Set(child.blocks.map(({ ratio8 }) => ratio8)).size, 1);
    assert.ok([0, 1].includes(child.blocks[0].ratio8));
  }
});

test("evolution finds more than random search with as many evaluations", () => {
  const limits = hardwareLimits(TASK, ZCU102, constants, {
    maxBitOps: bitOps(largestSubnet(SPACE), TASK) * 0.6,
  });
  const options = (seed: number) => ({
    key: fold(key(5), seed),
    evaluations: 200,
    population: 20,
    parents: 5,
  });
  let gain = 0;
  for (let seed = 0; seed < 5; seed++) {
    const ours = evolve(SPACE, score, limits, options(seed));
    const theirs = randomSearch(SPACE, score, limits, options(seed));
    assert.is(ours.evaluated.length, 200);
    assert.is(theirs.evaluated.length, 200);
    for (const { subnet } of ours.evaluated) assert.is(limits(subnet), null);
    gain += ours.best!.score - theirs.best!.score;
  }
  assert.ok(gain > 0, `${gain}`);
});

test("an empty feasible set is reported, with the limit that it breaks", () => {
  const impossible = hardwareLimits(TASK, ZCU102, constants, { minFps: 1e9 });
  for (const search of [evolve, randomSearch]) {
    const { status, best, evaluated, message } = search(
      SPACE,
      score,
      impossible,
      { key: key(1), tries: 60 },
    );
    assert.is(status, "infeasible");
    assert.is(best, undefined);
    assert.is(evaluated.length, 0);
    assert.match(message, /No sub-network meets the limits.*latency \d+/);
  }
});

test("sub-networks that fit no tile are passed over; the search ends where none fits", () => {
  const space: Space = {
    dims: [192, 384],
    depths: [12],
    heads: [3],
    mlpRatios: [4],
    ratios: [0, 1],
  };
  const search = (change: object, evaluations = 6) => {
    const limits = hardwareLimits(
      IMAGENET,
      { ...ZCU102, ...change },
      constants,
      { minFps: 1 },
    );
    const options = { key: key(4), evaluations, tries: 40 };
    return [evolve, randomSearch].map((find) =>
      find(space, ({ dim }) => dim, limits, options)
    );
  };
  for (const { status, best, broken } of search({ bram18: 80 })) {
    assert.is(status, "found");
    assert.is(best!.subnet.dim, 192);
    assert.ok(broken.bram18 > 0, "some that are drawn must not fit");
  }
  for (const { status, message } of search({ bram18: 10 })) {
    assert.is(status, "infeasible");
    assert.match(message, /limits broken: bram18 \d+;/);
  }
  for (const { status, message } of search({ dsp: 0, lut: 10 })) {
    assert.is(status, "infeasible");
    assert.match(message, /limits broken: products \d+;/);
  }
  // A budget that is none is no limit but a mistake.
  assert.throws(() => search({ dsp: NaN }), /dsp of the budget .*NaN/);
});

test("a space smaller than the evaluations asked for ends the search", () => {
  const tiny: Space = {
    dims: [32],
    depths: [1],
    heads: [2, 3],
    mlpRatios: [2],
    ratios: [0, 1],
  };
  const result = evolve(tiny, score, none, { key: key(2), tries: 200 });
  assert.is(result.evaluated.length, 4);
  assert.is(result.best!.subnet.blocks[0].ratio8, 1);
});

test("bad spaces and scores are refused", () => {
  const search = (space: Partial<Space>, evaluate = score) =>
    randomSearch({ ...SPACE, ...space }, evaluate, none, { key: key(1) });
  assert.throws(() => search({ heads: [] }), /heads must be/);
  assert.throws(() => search({ ratios: [2] }), /ratios .*\[0, 1\]: \[2\]/);
  assert.throws(() => search({ dims: [1.5] }), /dims/);
  assert.throws(() => search({}, () => NaN), /finite number: NaN/);
  assert.throws(
    () => search({ policy: "per-row" as "uniform" }),
    /policy of precision must be row-wise, .*: per-row/,
  );
  for (const limit of [{ minFps: NaN }, { maxBitOps: NaN }, { minFps: -1 }]) {
    assert.throws(
      () => hardwareLimits(TASK, ZCU102, constants, limit),
      /Cannot limit a search as (minFps|maxBitOps) must be a number from 0/,
    );
  }
  for (const change of [{ dsp: -5 }, { lut: NaN }, { freqHz: -1 }]) {
    const [[name, value]] = Object.entries(change);
    assert.throws(
      () => hardwareLimits(TASK, { ...ZCU102, ...change }, constants),
      new RegExp(`${name} of the budget must be a number from 0: ${value}`),
    );
  }
  // No limit beside the budget: what the budget lacks is one.
  const nothing = hardwareLimits(IMAGENET, { ...ZCU102, bram18: 0 }, constants);
  const options = { key: key(4), evaluations: 4, tries: 20 };
  const { status } = randomSearch(SPACE, score, nothing, options);
  assert.is(status, "infeasible");
});

test.run();
