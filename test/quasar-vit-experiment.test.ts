/** What the Quasar-ViT experiment runs and says: arms and their needs, measurements of hand-made arms, figures and tables. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { judge, loadClaims } from "../lib/core/claims.ts";
import { type ArmSummary, summariseMetric } from "../lib/core/runs.ts";
import experiment from "../lib/experiments/quasar-vit.ts";
import {
  figures,
  measure,
  rankCorrelation,
  tables,
} from "../lib/experiments/quasar-vit.report.ts";
import {
  PUBLISHED,
  QUASAR_POINTS,
  UNCALIBRATED,
} from "../lib/quasar-vit/mod.ts";

const SEEDS = [1, 2, 3];

/** An arm with the same metrics for each seed but for what `values` says seed by seed. */
function arm(
  id: string,
  values: Record<string, number[]>,
  series: Record<string, number[]> = {},
  timings: Record<string, number> = {},
): ArmSummary {
  const [data, part] = id.split("/");
  const n = Object.values(values)[0]?.length ?? 1;
  return {
    id,
    config: {
      data,
      part: part ?? data,
      sampled: 12,
      evaluations: 30,
      bitOps: [0.15, 0.25],
      boardShare: 32,
    },
    seeds: SEEDS.slice(0, n),
    metrics: Object.fromEntries(
      Object.entries(values).map(([name, v]) => [name, summariseMetric(v)]),
    ),
    series: Object.fromEntries(
      Object.entries(series).map(([name, mean]) => [
        name,
        { n: 1, mean, sd: mean.map(() => 0) },
      ]),
    ),
    timings: Object.fromEntries(
      Object.entries(timings).map(([name, v]) => [name, summariseMetric([v])]),
    ),
    seconds: 1,
  };
}

const supernet = (id: string, accuracy: number[]) =>
  arm(id, { accuracy, largest: accuracy, smallest: accuracy }, {}, {
    trainSeconds: 10,
  });

/** The rate without layer scaling is the largest tried; with it, both are in the middle. */
const tune = (set: string): ArmSummary => {
  const tuned = arm(`${set}/tune`, {
    scaledLearningRate: [4e-3],
    scaledLayerScale: [0.1],
    unscaledLearningRate: [8e-3],
  });
  const rates = [2e-3, 4e-3, 8e-3].map((learningRate) => ({ learningRate }));
  const scaled = [0.03, 0.1, 0.3].map((layerScale, i) => ({
    ...rates[i],
    layerScale,
  }));
  const tuning = { epochs: 1, scaled, unscaled: rates };
  return { ...tuned, config: { ...tuned.config, tuning } };
};

/** Row-wise is a point above layer-wise, which is level with one precision. */
const search = (set: string) =>
  arm(`${set}/search`, {
    evolutionScore: [76, 77, 78],
    evolutionTest: [75, 75, 75],
    randomScore: [75, 76, 77],
    randomTest: [75, 75, 75],
    ...Object.fromEntries(
      Object.entries({
        "row-wise": 1,
        "layer-wise": 0,
        "uniform": 0,
      }).flatMap(([policy, gain]) =>
        [0.15, 0.25].flatMap((share) => [
          [`${policy} ${share} score`, [70 + gain, 71 + gain, 72 + gain]],
          [`${policy} ${share} test`, [70 + gain, 71 + gain, 72 + gain]],
          [`${policy} ${share} bits`, [share, share, share]],
        ])
      ),
    ),
  }, { evolutionBest: [75, 76, 77], randomBest: [75, 75, 76] });

const sizes = ["large", "middle", "small"];
const one = (value: number) => [value, value, value];

const arms = [
  tune("fashion-mnist"),
  supernet("fashion-mnist/scaled", [75, 76, 77]),
  supernet("fashion-mnist/unscaled", [73, 74, 75]),
  supernet("fashion-mnist/sandwich", [70, 71, 72]),
  arm(
    "fashion-mnist/alone",
    Object.fromEntries(sizes.flatMap((size) => [
      [`${size}Inherited`, [74, 75, 76]],
      [`${size}Alone`, [78, 79, 80]],
    ])),
  ),
  search("fashion-mnist"),
  arm(
    "fashion-mnist/pareto",
    { peakMacsPerCycle: [100], portBytesPerCycle: [32] },
    {
      ...Object.fromEntries(
        [
          "foundTarget",
          "foundFps",
          "foundInherited",
          "foundRetrained",
          "foundDim",
          "foundDepth",
          "foundRatio8",
          "foundMmacs",
          "foundBitOps",
          "foundMacsPerCycle",
          "foundMacsPerWeightByte",
          "dspShare",
          "lutShare",
          "bramShare",
        ].map((name) => [name, one(1)]),
      ),
      fps: [10, 20],
      score: [70, 60],
      target: [1, 1],
      modelMs: [1, 2, 3],
      cpuMmacs: [1, 2, 3],
      cpuRatio8: [0, 0.5, 1],
    },
    { "cpuMs 0": 1, "cpuMs 1": 3, "cpuMs 2": 2 },
  ),
  tune("cifar-10"),
  supernet("cifar-10/scaled", [40, 41, 42]),
  supernet("cifar-10/unscaled", [40, 41, 42]),
  search("cifar-10"),
  arm(
    "fpga",
    Object.fromEntries([
      ["sustainedRatio", [0.5]],
      ["dspPerBaselineMac", [1.97]],
      ...PUBLISHED.map(({ id, fps }) => [`published ${id}`, [fps]]),
      ...QUASAR_POINTS.flatMap(({ fps }) =>
        ["peakGmacs", "factor3Gmacs", "sustainedGmacs", "modelGmacs"].map(
          (name) => [`${name} ${fps}`, [1000 / fps]],
        )
      ),
      ...["tiny", "small", "base"].flatMap((size) => [
        [`gmacs ${size}`, [1]],
        ...[0, 0.5, 1].flatMap((ratio8) =>
          ["fps", "dsp", "lut", "bram"].map((
            name,
          ) => [`${name} ${size} ${ratio8}`, [0.5]])
        ),
      ]),
    ]),
  ),
];

test("every arm needs arms that there are, and as many settings are tried of each kind", () => {
  for (const [profile, config] of Object.entries(experiment.profiles)) {
    const all = experiment.arms(config);
    const ids = all.map(({ id }) => id);
    assert.is(new Set(ids).size, ids.length);
    for (const { id, needs = [] } of all) {
      for (const need of needs) {
        assert.ok(
          ids.indexOf(need) >= 0 && ids.indexOf(need) < ids.indexOf(id),
          `${profile}: ${id} needs ${need}`,
        );
      }
    }
    const { tuning } = config;
    assert.is(tuning.scaled.length, tuning.unscaled.length, profile);
  }
  assert.ok(
    experiment.arms(experiment.profiles.full).some(({ id }) =>
      id === "cifar-10/search"
    ),
  );
});

test("differences are paired by seed, and verdicts follow", () => {
  const found = measure(arms);
  assert.is(found["quasar-vit-scaling"].value, 2);
  assert.is(found["quasar-vit-inherited"].value, -4);
  assert.is(found["quasar-vit-rows"].value, 1);
  assert.is(found["quasar-vit-layers"].value, 0);
  assert.is(found["quasar-vit-search"].value, 1);
  const { claims } = loadClaims("quasar-vit")!;
  const verdict = (id: string) =>
    judge(claims.find((claim) => claim.id === id)!, found).verdict;
  assert.is(verdict("quasar-vit-scaling"), "trend holds");
  assert.is(verdict("quasar-vit-inherited"), "differs");
  assert.is(verdict("quasar-vit-rows"), "trend holds");
  assert.match(
    found["quasar-vit-inherited"].note!,
    /^inherited weights lose: the whole interval lies below 0; large: /,
  );
  const level = arms.map((a) =>
    a.id !== "fashion-mnist/alone" ? a : arm(
      a.id,
      Object.fromEntries(sizes.flatMap((size) => [
        [`${size}Inherited`, [74, 78, 76]],
        [`${size}Alone`, [75, 75, 75]],
      ])),
    )
  );
  assert.match(measure(level)["quasar-vit-inherited"].note!, /^large: /);
  assert.throws(
    () => measure(arms.filter(({ id }) => id !== "fashion-mnist/alone")),
    /Cannot find arm "fashion-mnist\/alone"/,
  );
});

test("tables and figures name every data set, and each search and published row once", () => {
  const all = tables(arms);
  const rows = (id: string) => all.find((table) => table.id === id)!.rows;
  assert.is(rows("quasar-vit-supernets").length, 5);
  assert.is(rows("quasar-vit-searches").length, 4);
  assert.is(rows("quasar-vit-precision").length, 2 * 2 * 3);
  assert.is(rows("quasar-vit-published").length, PUBLISHED.length);
  for (const { columns, rows, id } of all) {
    assert.ok(rows.every((row) => row.length === columns.length), id);
  }
  const ids = figures(arms).map(({ id }) => id);
  assert.is(new Set(ids).size, ids.length);
  for (
    const id of [
      "pareto",
      "search-fashion-mnist",
      "search-cifar-10",
      "supernets",
      "envelope",
      "resources",
      "roofline",
      "cpu",
    ]
  ) assert.ok(ids.includes(`quasar-vit-${id}`), id);
  // One data set, as in the short profiles.
  const fewer = arms.filter(({ id }) => !id.startsWith("cifar"));
  assert.is(figures(fewer).length, ids.length - 1);
});

test("the best settings at the edge of what was tried are told, and none where one was tried", () => {
  const note = (all: ArmSummary[]) => measure(all)["quasar-vit-scaling"].note!;
  assert.match(
    note(arms),
    /; best at the edge of the grid: learning rate without layer scaling$/,
  );
  const supernets = (all: ArmSummary[]) =>
    tables(all).find(({ id }) => id === "quasar-vit-supernets")!;
  const edges = ({ columns, rows }: ReturnType<typeof supernets>) =>
    rows.map((row) => row[columns.indexOf("best at the edge of the grid")]);
  assert.equal(edges(supernets(arms)).slice(0, 3), [
    null,
    "learning rate",
    null,
  ]);
  const single = arms.map((a): ArmSummary =>
    !a.id.endsWith("tune") ? a : {
      ...a,
      config: {
        ...a.config,
        tuning: {
          epochs: 1,
          scaled: [{ learningRate: 4e-3, layerScale: 0.1 }],
          unscaled: [{ learningRate: 8e-3 }],
        },
      },
    }
  );
  assert.not.match(note(single), /edge/);
  assert.ok(edges(supernets(single)).every((edge) => edge === null));
});

test("the model's constants are its own, with recorded calibrations; variants that cannot reach say so", () => {
  const all = tables(arms);
  const rows = (id: string) => all.find((table) => table.id === id)!.rows;
  const constants = rows("quasar-vit-constants");
  for (const { value, source } of Object.values(UNCALIBRATED)) {
    assert.ok(
      constants.some((row) => row[1] === value && row[4] === source) ||
        source === UNCALIBRATED.sustainedRatio.source,
      source,
    );
  }
  assert.ok(
    constants.some(([name, value]) => /eta/.test(`${name}`) && value === 0.5),
  );
  assert.ok(constants.some((row) => row[1] === 1.97 && row[2] === "DSP"));
  const [[, , , , model], [, , , , yosys]] = rows("quasar-vit-luts");
  assert.equal([model, yosys], [58.6, 47.2]);
  const variants = rows("quasar-vit-sensitivity");
  const reached = (name: string) => variants.find((row) => row[0] === name)![5];
  assert.is(reached("as assumed"), 57);
  assert.is(reached("LUTs as Yosys counts them"), "cannot reach");
});

test("rank correlation by hand", () => {
  assert.is(rankCorrelation([1, 2, 3], [10, 20, 30]), 1);
  assert.is(rankCorrelation([1, 2, 3], [30, 20, 10]), -1);
  // d = 0, 1, 1: 1 - 6 * 2 / 24
  assert.is(rankCorrelation([1, 3, 2], [1, 2, 3]), 0.5);
});

test.run();
