/** What the Quasar-ViT runs say: claims, tables and figures. Reads summaries, computes no runs. */
import { barFigure, lineFigure, scatterFigure } from "../core/figure.ts";
import {
  type ArmSummary,
  type FigureSpec,
  findArm,
  type Measurement,
  type ResultTable,
} from "../core/runs.ts";
import { mean, pairedDifference } from "../core/stats.ts";
import {
  baseFps,
  calibrate,
  type Constants,
  deit,
  DESIGNS,
  PUBLISHED,
  QUASAR_POINTS,
  sensitivity,
  UNCALIBRATED,
  withValues,
  YOSYS_LUTS,
  ZCU102,
} from "../quasar-vit/mod.ts";
import type { Config, Setting } from "./quasar-vit.ts";

const RESOURCES: Record<string, string> = {
  dsp: "DSP",
  lut: "LUT",
  bram: "block memory",
};
const SIZES = ["large", "middle", "small"];
const POLICIES = ["row-wise", "layer-wise", "uniform"];
const FASHION = "fashion-mnist";
/** Supernets that differ in how they are trained. */
const SUPERNETS: Record<string, string> = {
  scaled: "layer scaling, one sub-network a step",
  unscaled: "no layer scaling",
  sandwich: "layer scaling, sandwich rule",
};
/** What an envelope allows, by the metric that holds it. */
const ENVELOPES: Record<string, string> = {
  peakGmacs: "four products a block and cycle",
  factor3Gmacs: "three products",
  sustainedGmacs: "the rate of Auto-ViT-Acc",
};

/** The constants of the model in words. */
const CONSTANTS: Record<keyof Constants, string> = {
  usableLutRatio: "share of the LUTs that can be used",
  lutPerDsp3: "LUTs of a block with three products",
  lutPerDsp4: "LUTs of a block with four products",
  lutPerAtom: "LUTs of a product outside blocks",
  sustainedRatio: "share of the cycles in which the engine advances (eta)",
  hostNsPerElement: "time of the host for an element",
  inputPortBits: "port of the inputs",
  weightPortBits: "port of the weights",
  outputPortBits: "port of the outputs",
  accumulatorBits: "accumulator",
  bram18Bits: "block of memory",
};
/** What is tuned, in words. */
const TUNED: Record<keyof Setting, string> = {
  learningRate: "learning rate",
  layerScale: "first factor",
};

/** Values per seed of a metric, or of the mean of several. */
function valuesOf(arm: ArmSummary, names: string[]): number[] {
  return arm.seeds.map((_, s) =>
    mean(names.map((name) => arm.metrics[name].values[s]))
  );
}

function difference(
  arm: ArmSummary,
  ours: string[],
  theirs: string[],
): Measurement {
  return {
    ...pairedDifference(valuesOf(arm, ours), valuesOf(arm, theirs)),
    unit: "points",
  };
}

const shares = (search: ArmSummary) => search.config.bitOps as number[];
const at = (arm: ArmSummary, name: string) => arm.metrics[name].mean;
const two = (x: number) => Number(x.toFixed(2));
const names = (search: ArmSummary, policy: string, what: string) =>
  shares(search).map((share) => `${policy} ${share} ${what}`);

/** Data sets with a supernet. */
function setsOf(arms: ArmSummary[]): string[] {
  return [
    ...new Set(
      arms.filter(({ id }) => id.includes("/")).map(({ id }) =>
        id.split("/")[0]
      ),
    ),
  ];
}

/** An arm of a data set, or none where it was not run. */
const maybe = (arms: ArmSummary[], set: string, part: string) =>
  arms.find(({ id }) => id === `${set}/${part}`);

/** What of the best settings is the smallest or the largest that tuning tried. */
function atEdge(
  { config, metrics }: ArmSummary,
  kind: "scaled" | "unscaled",
): string[] {
  const settings = (config.tuning as unknown as Config["tuning"])[kind];
  return (["learningRate", "layerScale"] as const).filter((name) => {
    const tried = settings.flatMap((setting) => setting[name] ?? []);
    const metric = `${kind}${name[0].toUpperCase()}${name.slice(1)}`;
    return new Set(tried).size > 1 &&
      [Math.min(...tried), Math.max(...tried)].includes(metrics[metric].mean);
  }).map((name) => TUNED[name]);
}

/** The mean and half the width of its interval, where there is one. */
function spread(arm: ArmSummary, name: string): string {
  const { mean, low, high, n } = arm.metrics[name];
  return n < 2
    ? mean.toFixed(1)
    : `${mean.toFixed(1)} ± ${((high - low) / 2).toFixed(1)}`;
}

/** What each claim measures. */
export function measure(arms: ArmSummary[]): Record<string, Measurement> {
  const own = (part: string) => findArm(arms, `${FASHION}/${part}`);
  const [scaled, unscaled] = [own("scaled"), own("unscaled")];
  const [alone, search] = [own("alone"), own("search")];
  const tune = maybe(arms, FASHION, "tune");
  const edges = (["scaled", "unscaled"] as const).flatMap((kind) => {
    const names = tune === undefined ? [] : atEdge(tune, kind);
    return names.length === 0
      ? []
      : `${names.join(" and ")} ${
        kind === "scaled" ? "with" : "without"
      } layer scaling`;
  });
  const inherited = difference(
    alone,
    SIZES.map((size) => `${size}Inherited`),
    SIZES.map((size) => `${size}Alone`),
  );
  const policy = (better: string, worse: string): Measurement => ({
    ...difference(
      search,
      names(search, better, "test"),
      names(search, worse, "test"),
    ),
    note: `${
      shares(search).length
    } limits of bit operations, the same number of evaluations; ${better} ${
      mean(valuesOf(search, names(search, better, "test"))).toFixed(2)
    } %, ${worse} ${
      mean(valuesOf(search, names(search, worse, "test"))).toFixed(2)
    } %`,
  });
  return {
    "quasar-vit-scaling": {
      ...pairedDifference(
        scaled.metrics.accuracy.values,
        unscaled.metrics.accuracy.values,
      ),
      unit: "points",
      note: `${scaled.config.sampled} random sub-networks, inherited: ${
        at(scaled, "accuracy").toFixed(2)
      } % with, ${at(unscaled, "accuracy").toFixed(2)} % without${
        edges.length === 0
          ? ""
          : `; best at the edge of the grid: ${edges.join(", ")}`
      }`,
    },
    "quasar-vit-inherited": {
      ...inherited,
      note: `${
        inherited.high < 0
          ? "inherited weights lose: the whole interval lies below 0; "
          : ""
      }${
        SIZES.map((size) =>
          `${size}: inherited ${
            at(alone, `${size}Inherited`).toFixed(1)
          } %, alone ${at(alone, `${size}Alone`).toFixed(1)} %`
        ).join("; ")
      }`,
    },
    "quasar-vit-rows": policy("row-wise", "layer-wise"),
    "quasar-vit-layers": policy("layer-wise", "uniform"),
    "quasar-vit-search": {
      ...difference(search, ["evolutionScore"], ["randomScore"]),
      note:
        `${search.config.evaluations} evaluations each; on test images evolution ${
          at(search, "evolutionTest").toFixed(2)
        } %, random ${at(search, "randomTest").toFixed(2)} %`,
    },
  };
}

/** Spearman's rank correlation. */
export function rankCorrelation(a: number[], b: number[]): number {
  const ranks = (xs: number[]) => {
    const order = xs.map((_, i) => i).sort((i, j) => xs[i] - xs[j]);
    const out = new Array<number>(xs.length);
    order.forEach((i, rank) => out[i] = rank);
    return out;
  };
  const [x, y] = [ranks(a), ranks(b)];
  const n = a.length;
  const d = x.reduce((sum, r, i) => sum + (r - y[i]) ** 2, 0);
  return 1 - 6 * d / (n * (n * n - 1));
}

const cpuTimes = (pareto: ArmSummary) =>
  pareto.series.modelMs.mean.map((_, i) => pareto.timings[`cpuMs ${i}`].mean);

export function tables(arms: ArmSummary[]): ResultTable[] {
  const pareto = findArm(arms, `${FASHION}/pareto`);
  const alone = findArm(arms, `${FASHION}/alone`);
  const fpga = findArm(arms, "fpga");
  const s = pareto.series;
  const n = alone.seeds.length;
  const sets = setsOf(arms);
  const searches = sets.flatMap((set) => maybe(arms, set, "search") ?? []);
  const setOf = ({ config }: ArmSummary) => config.data as string;
  return [
    {
      id: "quasar-vit-supernets",
      title: "Ways to train a supernet",
      caption:
        `Test accuracy with inherited weights, intervals of 95 % over seeds: ${alone.config.sampled} sub-networks drawn at random, the same for all, and both extremes. As many passes of sub-networks for each; the sandwich rule has the largest, the smallest and two others in a step. Settings are chosen on validation images, as many tried with and without layer scaling; what is best at the edge of the grid might be better beyond it. CPU times are of the run until the training ends, reading the data included.`,
      columns: [
        "data",
        "supernet",
        "learning rate",
        "first factor",
        "best at the edge of the grid",
        "random ones (%)",
        "largest (%)",
        "smallest (%)",
        "CPU of the run (s)",
      ],
      rows: sets.flatMap((set) =>
        Object.entries(SUPERNETS).flatMap(([part, name]) => {
          const net = maybe(arms, set, part);
          if (net === undefined) return [];
          const tune = findArm(arms, `${set}/tune`);
          const { metrics } = tune;
          const kind = part === "unscaled" ? part : "scaled";
          return [[
            set,
            name,
            metrics[`${kind}LearningRate`].mean,
            part === "unscaled" ? null : metrics.scaledLayerScale.mean,
            atEdge(tune, kind).join(", ") || null,
            spread(net, "accuracy"),
            spread(net, "largest"),
            spread(net, "smallest"),
            Number(net.timings.trainSeconds.mean.toFixed(1)),
          ]];
        })
      ),
    },
    {
      id: "quasar-vit-searches",
      title: "Evolution and random search under a limit of speed",
      caption:
        "The best sub-network of each search with inherited weights; as many evaluations for both; intervals of 95 % over supernets.",
      columns: [
        "data",
        "search",
        "evaluations",
        "validation accuracy (%)",
        "test accuracy (%)",
      ],
      rows: searches.flatMap((search) =>
        ["evolution", "random"].map((name) => [
          setOf(search),
          name,
          search.config.evaluations as number,
          spread(search, `${name}Score`),
          spread(search, `${name}Test`),
        ])
      ),
    },
    {
      id: "quasar-vit-found",
      title: "Found for three speeds",
      caption:
        `Seed 1, on 1 / ${pareto.config.boardShare} of the board; speeds are the model's, accuracy is of test images.`,
      columns: [
        "speed asked (FPS)",
        "model's speed (FPS)",
        "width",
        "depth",
        "mean share of 8-bit rows",
        "MACs (M)",
        "bit operations (G)",
        "inherited (%)",
        "retrained (%)",
      ],
      rows: s.foundTarget.mean.map((target, i) => [
        target,
        Math.round(s.foundFps.mean[i]),
        s.foundDim.mean[i],
        s.foundDepth.mean[i],
        two(s.foundRatio8.mean[i]),
        two(s.foundMmacs.mean[i]),
        two(s.foundBitOps.mean[i]),
        two(s.foundInherited.mean[i]),
        two(s.foundRetrained.mean[i]),
      ]),
    },
    {
      id: "quasar-vit-precision",
      title: "Where precision may differ, at equal bit operations",
      caption:
        `Best of a search of ${alone.config.evaluations} evaluations under each limit, weights inherited; intervals of 95 % over ${n} supernets. The limit is a share of the largest sub-network's bit operations.`,
      columns: [
        "data",
        "limit (share)",
        "precision",
        "validation accuracy (%)",
        "test accuracy (%)",
        "bit operations used (share)",
      ],
      rows: searches.flatMap((search) =>
        shares(search).flatMap((share) =>
          POLICIES.map((policy) => [
            setOf(search),
            share,
            policy,
            spread(search, `${policy} ${share} score`),
            spread(search, `${policy} ${share} test`),
            two(at(search, `${policy} ${share} bits`)),
          ])
        )
      ),
    },
    {
      id: "quasar-vit-alone",
      title: "Inherited and trained alone",
      caption:
        `${FASHION}; as many steps for each network trained alone as for the whole supernet; intervals of 95 % over ${n} seeds.`,
      columns: ["sub-network", "inherited (%)", "alone (%)"],
      rows: SIZES.map((size) => [
        size,
        spread(alone, `${size}Inherited`),
        spread(alone, `${size}Alone`),
      ]),
    },
    {
      id: "quasar-vit-cpu",
      title: "Time on this processor beside the model of the FPGA",
      caption:
        `Products of random sub-networks with the integer kernels, one thread, one image; rank correlation ${
          rankCorrelation(cpuTimes(pareto), s.modelMs.mean).toFixed(2)
        }. Another machine than the modelled one: only the order can agree.`,
      columns: [
        "MACs (M)",
        "mean share of 8-bit rows",
        "this processor (ms)",
        "FPGA model (ms)",
      ],
      rows: cpuTimes(pareto).map((ms, i) => [
        two(s.cpuMmacs.mean[i]),
        two(s.cpuRatio8.mean[i]),
        Number(ms.toFixed(3)),
        Number(s.modelMs.mean[i].toFixed(3)),
      ]),
    },
    {
      id: "quasar-vit-deit",
      title: "DeiT on the ZCU102, by the model",
      caption:
        "Two constants are calibrated on published speeds of DeiT-B (10.0 and 56.8 FPS), so DeiT-B with 4-bit rows is no prediction. The LUTs of the model are a lower bound (see the table of LUTs), so speeds are upper bounds.",
      columns: [
        "model",
        "MACs (G)",
        "4-bit rows (FPS)",
        "half of the rows 8-bit (FPS)",
        "8-bit rows (FPS)",
      ],
      rows: ["tiny", "small", "base"].map((size) => [
        `DeiT-${size}`,
        two(at(fpga, `gmacs ${size}`)),
        ...[0, 0.5, 1].map((r) =>
          Number(at(fpga, `fps ${size} ${r}`).toFixed(1))
        ),
      ]),
    },
    {
      id: "quasar-vit-published",
      title: "Published designs and the model",
      caption:
        `Rows of calibration fit by construction; the others test the model, and only say that a target was met. The rows of the unquantised baseline and of VAQF are bounds by the rate of products and the host: the model of tiles is not used for them. A product of the baseline turns out to take ${
          at(fpga, "dspPerBaselineMac").toFixed(2)
        } blocks; the engine advances in ${
          (100 * at(fpga, "sustainedRatio")).toFixed(1)
        } % of the cycles.`,
      columns: ["design", "published (FPS)", "model (FPS)", "use", "source"],
      rows: PUBLISHED.map(({ id, system, fps, relation, use, source }) => [
        system,
        relation === "at least" ? `at least ${fps}` : fps.toFixed(1),
        Number(at(fpga, `published ${id}`).toFixed(1)),
        use,
        source,
      ]),
    },
    ...modelTables(fpga),
    {
      id: "quasar-vit-envelope",
      title: "What could run at the paper's three speeds",
      caption:
        "The shapes of the paper's sub-networks were not read: these are the largest models that the board can run so fast, not theirs.",
      columns: [
        "speed (FPS)",
        "paper's top-1 (%)",
        "four products a block, nothing lost (G MACs)",
        "three products (G MACs)",
        "Auto-ViT-Acc's rate (G MACs)",
        "largest DeiT of the model, 4-bit rows (G MACs)",
      ],
      rows: QUASAR_POINTS.map(({ fps, top1 }) => [
        fps,
        top1,
        ...["peakGmacs", "factor3Gmacs", "sustainedGmacs", "modelGmacs"].map((
          name,
        ) => two(at(fpga, `${name} ${fps}`))),
      ]),
    },
  ];
}

/** On what the model of the FPGA rests: its constants, its LUTs beside those of synthesis, other constants. */
function modelTables(fpga: ArmSummary): ResultTable[] {
  const { constants, dspPerBaselineMac } = calibrate();
  const wanted = PUBLISHED.find(({ id }) => id === "auto-vit-acc")!;
  const counted = withValues(UNCALIBRATED, YOSYS_LUTS, "Yosys");
  const { vaqf, autoVitAcc } = DESIGNS;
  const one = (x: number) => Number(x.toFixed(1));
  const sizes = ["tiny", "small", "base"] as const;
  const variants = sensitivity(
    Object.fromEntries(sizes.map((size) => [size, deit(size)])),
  );
  return [
    {
      id: "quasar-vit-constants",
      title: "Constants of the model",
      caption:
        "Calibrated values as recorded; the others as the model has them. Recalled: believed, not read again; derived: own counting; assumed: our choice.",
      columns: ["constant", "value", "unit", "standing", "source"],
      rows: [
        ...(Object.keys(CONSTANTS) as (keyof Constants)[]).map((name) => {
          const { value, unit, standing, source } = constants[name];
          const shown = name === "sustainedRatio"
            ? Number(at(fpga, name).toFixed(4))
            : value;
          return [CONSTANTS[name], shown, unit, standing, source];
        }),
        [
          "blocks of a product of the unquantised baseline",
          two(at(fpga, "dspPerBaselineMac")),
          dspPerBaselineMac.unit,
          dspPerBaselineMac.standing,
          dspPerBaselineMac.source,
        ],
        [
          "rows of Auto-ViT-Acc that take two products (share)",
          autoVitAcc.ratio8,
          "",
          autoVitAcc.standing,
          autoVitAcc.source,
        ],
        ...[8, 6].map((bits) => [
          `LUTs of a product of VAQF, activations of ${bits} bits`,
          vaqf.lutPerProduct(bits),
          "LUT",
          vaqf.standing,
          vaqf.source,
        ]),
        ...([["dsp", "DSP"], ["lut", "LUT"], ["bram18", "18 Kb"]] as const)
          .map(([name, unit]) => [
            `${RESOURCES[name === "bram18" ? "bram" : name]} of the board`,
            ZCU102[name],
            unit,
            ZCU102.standing,
            ZCU102.source,
          ]),
        [
          "clock",
          ZCU102.freqHz / 1e6,
          "MHz",
          ZCU102.standing,
          ZCU102.source,
        ],
      ],
    },
    {
      id: "quasar-vit-luts",
      title: "LUTs of the engine, by the model and by synthesis",
      caption:
        `The model's are a lower bound: it leaves out lane repair, the joining of 8-bit rows, packing and multiplexers. The largest speed is that of an engine that advances in every cycle, on ${
          100 * UNCALIBRATED.usableLutRatio.value
        } % of the LUTs; the model is calibrated on ${
          wanted.fps.toFixed(1)
        } FPS.${
          baseFps(ZCU102, counted) < wanted.fps
            ? " With Yosys's counts the board stays below that, so every modelled speed is an upper bound."
            : ""
        }`,
      columns: [
        "LUTs",
        "block of three products",
        "block of four products",
        "product in LUTs",
        "largest speed of DeiT-B with these LUTs (FPS)",
      ],
      rows: ([
        ["model", UNCALIBRATED],
        ["Yosys", counted],
      ] as const).map(([name, own]) => [
        name,
        own.lutPerDsp3.value,
        own.lutPerDsp4.value,
        own.lutPerAtom.value,
        one(baseFps(ZCU102, own)),
      ]),
    },
    {
      id: "quasar-vit-sensitivity",
      title: "What rests on assumed constants",
      caption: `Each variant is calibrated anew on ${
        wanted.fps.toFixed(1)
      } FPS of DeiT-B; where an engine that advances in every cycle is slower than that, it cannot reach the row and says nothing about others. Rows of 4 bits.`,
      columns: [
        "variant",
        "largest speed of DeiT-B (FPS)",
        "share of the cycles (eta)",
        "DeiT-tiny (FPS)",
        "DeiT-small (FPS)",
        "DeiT-base (FPS)",
      ],
      rows: variants.map(({ name, largestFps, calibrated }) => [
        name,
        one(largestFps),
        ...(calibrated === null ? Array(4).fill("cannot reach") : [
          two(calibrated.constants.sustainedRatio.value),
          ...sizes.map((size) => one(calibrated.fps[size])),
        ]),
      ]),
    },
  ];
}

/** The best score after each evaluation. */
function searchFigure(search: ArmSummary, set: string): FigureSpec {
  return lineFigure(
    ["evolution", "random"].flatMap((name) =>
      search.series[`${name}Best`].mean.map((best, i) => ({
        evaluations: i + 1,
        best,
        search: name,
      }))
    ),
    {
      id: `quasar-vit-search-${set}`,
      title: `The best so far under a limit of speed: ${set}`,
      caption:
        `Mean of ${search.seeds.length} supernets; validation images, inherited weights.`,
      x: "evaluations",
      y: "best",
      series: "search",
      marks: { evolution: "line", random: "line" },
      xAxis: { title: "evaluations" },
      yAxis: { title: "best accuracy so far", unit: "%" },
    },
  );
}

/** How large a model can be at each speed: envelopes, what the calibrated model says, the paper's three speeds. */
function envelopeFigure(fpga: ArmSummary): FigureSpec {
  const speeds = [40, ...QUASAR_POINTS.map(({ fps }) => fps), 400];
  const [{ fps: known }] = QUASAR_POINTS;
  const model = (rows: string, ratio8: number) =>
    ["tiny", "small", "base"].map((size) => ({
      fps: at(fpga, `fps ${size} ${ratio8}`),
      gmacs: at(fpga, `gmacs ${size}`),
      series: `DeiT-T, -S and -B by the model, ${rows}`,
    }));
  return lineFigure([
    // An envelope is a rate of products, so one speed gives all.
    ...Object.entries(ENVELOPES).flatMap(([metric, series]) =>
      speeds.map((fps) => ({
        fps,
        gmacs: at(fpga, `${metric} ${known}`) * known / fps,
        series,
      }))
    ),
    ...model("4-bit rows", 0),
    ...model("8-bit rows", 1),
    ...QUASAR_POINTS.map(({ fps }) => ({
      fps,
      gmacs: at(fpga, `modelGmacs ${fps}`),
      series: "largest at the paper's speeds by the model",
    })),
  ], {
    id: "quasar-vit-envelope",
    title: "How large a network can be at the paper's speeds",
    caption:
      `ZCU102; lines are limits of the rate of products. The paper's speeds are ${
        QUASAR_POINTS.map(({ fps }) => fps).join(", ")
      } FPS; the shapes behind them were not read.`,
    x: "fps",
    y: "gmacs",
    series: "series",
    marks: {
      ...Object.fromEntries(
        Object.values(ENVELOPES).map((name) => [name, "line" as const]),
      ),
      "DeiT-T, -S and -B by the model, 4-bit rows": "points",
      "DeiT-T, -S and -B by the model, 8-bit rows": "points",
      "largest at the paper's speeds by the model": "points",
    },
    height: 560,
    xAxis: {
      title: "speed",
      unit: "FPS",
      scale: "log",
      ticks: [50, ...QUASAR_POINTS.map(({ fps }) => fps), 400],
    },
    yAxis: { title: "products of one image", unit: "G", scale: "log" },
  });
}

export function figures(arms: ArmSummary[]): FigureSpec[] {
  const pareto = findArm(arms, `${FASHION}/pareto`);
  const fpga = findArm(arms, "fpga");
  const s = pareto.series;
  const label = (fps: number) => `searched at ${fps} FPS and more`;
  const peak = at(pareto, "peakMacsPerCycle");
  const port = at(pareto, "portBytesPerCycle");
  const intensities = [0.25, 0.5, 1, peak / port, 8, 16, 32, 64]
    .sort((a, b) => a - b);
  return [
    scatterFigure([
      ...s.fps.mean.map((fps, i) => ({
        fps,
        accuracy: s.score.mean[i],
        series: label(s.target.mean[i]),
      })),
      ...s.foundFps.mean.map((fps, i) => ({
        fps,
        accuracy: s.foundRetrained.mean[i],
        series: "found and retrained, test images",
      })),
    ], {
      id: "quasar-vit-pareto",
      title: "Accuracy against speed: every sub-network evaluated",
      caption:
        `Inherited weights on validation images, seed 1; speeds of the FPGA model on 1 / ${pareto.config.boardShare} of a ZCU102.`,
      x: "fps",
      y: "accuracy",
      series: "series",
      order: s.foundTarget.mean.map(label),
      xAxis: {
        title: "modelled speed",
        unit: "FPS",
        scale: "log",
        ticks: [10000, 20000, 30000, 50000],
      },
      yAxis: { title: "accuracy", unit: "%" },
    }),
    ...setsOf(arms).flatMap((set) => {
      const search = maybe(arms, set, "search");
      return search === undefined ? [] : [searchFigure(search, set)];
    }),
    barFigure(
      setsOf(arms).flatMap((set) =>
        Object.entries(SUPERNETS).flatMap(([part, name]) => {
          const net = maybe(arms, set, part);
          if (net === undefined) return [];
          const { mean, low, high, n } = net.metrics.accuracy;
          return [{
            data: set,
            supernet: name,
            accuracy: { mean, halfWidth: n > 1 ? (high - low) / 2 : 0, n },
          }];
        })
      ),
      {
        id: "quasar-vit-supernets",
        title: "Random sub-networks of each supernet",
        caption:
          "Mean test accuracy of the same sub-networks with inherited weights; as many passes of sub-networks for each supernet; intervals of 95 % over seeds.",
        x: "data",
        y: "accuracy",
        series: "supernet",
        xAxis: { title: "data" },
        yAxis: { title: "accuracy", unit: "%" },
      },
    ),
    envelopeFigure(fpga),
    barFigure(
      ["tiny", "small", "base"].flatMap((size) =>
        Object.keys(RESOURCES).map((kind) => ({
          model: `DeiT-${size}`,
          resource: RESOURCES[kind],
          share: 100 * at(fpga, `${kind} ${size} 0.5`),
        }))
      ),
      {
        id: "quasar-vit-resources",
        title: "What the engine takes of the ZCU102",
        caption:
          "The fastest engine for each DeiT with half of its rows in 8 bits, by the model; 80 % of the LUTs count as usable.",
        x: "model",
        y: "share",
        series: "resource",
        xAxis: { title: "model" },
        yAxis: { title: "share of the board", unit: "%" },
      },
    ),
    lineFigure([
      ...intensities.map((x) => ({
        intensity: x,
        rate: Math.min(peak, x * port),
        series: "roof",
      })),
      ...s.foundMacsPerCycle.mean.map((rate, i) => ({
        intensity: s.foundMacsPerWeightByte.mean[i],
        rate,
        series: "found sub-networks",
      })),
    ], {
      id: "quasar-vit-roofline",
      title: "Roofline of the engine",
      caption:
        "Slope: bytes of weights that the port brings per cycle. Flat: products of 4-bit rows per cycle. Rows of 8 bits and products of two activations take two each, so sub-networks stay below.",
      x: "intensity",
      y: "rate",
      series: "series",
      marks: { roof: "line", "found sub-networks": "points" },
      xAxis: {
        title: "products per byte of weights",
        unit: "MAC/B",
        scale: "log",
        ticks: [0.25, 1, 4, 16, 64],
      },
      yAxis: { title: "rate", unit: "MAC/cycle", scale: "log" },
    }),
    scatterFigure(
      cpuTimes(pareto).map((ms, i) => ({ cpu: ms, model: s.modelMs.mean[i] })),
      {
        id: "quasar-vit-cpu",
        title: "Measured here and modelled there",
        caption:
          "Random sub-networks: products on this processor's integer kernels against the whole latency of the FPGA model.",
        x: "model",
        y: "cpu",
        xAxis: { title: "FPGA model", unit: "ms" },
        yAxis: { title: "this processor", unit: "ms" },
      },
    ),
  ];
}
