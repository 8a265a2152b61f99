/** What the Agile-Quant experiment measures beside its settings: one site seen closely, and the engines to be timed. */
import { join } from "node:path";
import {
  addOutliers,
  calibratePlan,
  type ChannelRange,
  plan,
  type Scheme,
  siteRanges,
  type SiteSteps,
} from "../agile-quant/mod.ts";
import type { EngineOptions } from "../core/engine.ts";
import { loadHuggingFace } from "../core/formats/huggingface.ts";
import { hiddenStates } from "../core/llama.ts";
import { roundHalfEven } from "../core/quantizer.ts";
import { type Key, key as newKey } from "../core/rng.ts";
import { type Metrics, projectRoot } from "../core/runs.ts";
import { trainingBatches } from "./text.ts";

/** Where a base model lies. */
export function modelFolder(name: string): string {
  return join(projectRoot(), "data", "models", name);
}

// One site ------------------------------------------------------------------------------------------

/** What is seen closely: the input of the first feed-forward layer, with the outliers that the config asks for. */
export type Inspect = {
  site: string;
  bits: number;
  maxFactor: number;
  exponent: number;
  channels: number;
  length: number;
};

/** The inspected site of a config; outliers are those of its first arm that has some. */
export function inspected(
  { settings, length }: {
    length: number;
    settings: Record<
      string,
      { outlier?: { exponent: number; channels?: number } }
    >;
  },
): Inspect {
  const outlier = Object.values(settings).find(({ outlier }) =>
    outlier !== undefined
  )?.outlier;
  return {
    site: "model.layers.0.mlp",
    bits: 8,
    maxFactor: 8,
    exponent: outlier?.exponent ?? 0,
    channels: outlier?.channels ?? 1,
    length,
  };
}

/** Range of each channel in steps of its own: how many codes it makes use of. */
function codesInUse({ low, high }: ChannelRange, { scale }: SiteSteps) {
  return Array.from(
    low,
    (least, c) => (high[c] - least) / scale[scale.length === 1 ? 0 : c],
  );
}

/** Range of the widest channel over that of the median one: how much of an outlier it is. */
function maxOverMedian({ low, high }: ChannelRange): number {
  const widths = Array.from(low, (least, c) => high[c] - least)
    .sort((a, b) => a - b);
  return widths.at(-1)! / widths[Math.floor(widths.length / 2)];
}

/** Share of numbers at each code, 0 to 2^bits - 1; signed codes are moved up by 2^(bits - 1). */
function codeShares(
  x: Float32Array,
  { scale, zeroPoint, scheme, bits }: SiteSteps,
): number[] {
  const codes = 2 ** bits;
  const zero = scheme === "layer" ? codes / 2 : zeroPoint[0];
  const shares = new Array<number>(codes).fill(0);
  x.forEach((value, at) => {
    const code = roundHalfEven(value / scale[at % scale.length]) + zero;
    shares[Math.min(codes - 1, Math.max(0, code))] += 1 / x.length;
  });
  return shares;
}

/** Ranges and codes of one site under one step for the layer and under TRIP, natural and with outliers. */
export function inspectSite(
  { model, calibration, inspect }: {
    model: string;
    calibration: { batches: number; batch: number };
    inspect: Inspect;
  },
  ids: Int32Array,
  key: Key,
): Metrics {
  const { params: natural, config } = loadHuggingFace(modelFolder(model));
  const { site, bits, maxFactor, exponent, channels, length } = inspect;
  const batch = trainingBatches(ids, {
    batch: calibration.batch,
    length: length - 1,
    key,
  }).next().value;
  const metrics: Metrics = {};
  const models = {
    natural,
    outliers: addOutliers(natural, config, {
      exponent,
      channels,
      key: newKey(7),
    }),
  };
  for (const [name, params] of Object.entries(models)) {
    const ranges = siteRanges(params, plan(config), [batch]);
    const range = ranges[site];
    for (const [at, own] of Object.entries(ranges)) {
      metrics[`${name}.maxOverMedian.${at}`] = maxOverMedian(own);
    }
    let seen = new Float32Array();
    hiddenStates(params, config, batch, {
      onActivation(hook, x) {
        if (hook === `${site}.gate_proj.input`) {
          seen = (x.dataSync() as Float32Array).slice();
        }
      },
    }).dispose();
    for (const scheme of ["layer", "trip"] as Scheme[]) {
      const { steps } = calibratePlan(
        params,
        plan(config, { scheme, bits, maxFactor, softmax: "float" }),
        [batch],
      );
      const own = steps[site];
      metrics[`${name}.${scheme}.codesInUse`] = codesInUse(range, own);
      metrics[`${name}.${scheme}.shares`] = codeShares(seen, own);
      if (own.alpha !== undefined) {
        metrics[`${name}.${scheme}.alpha`] = [...own.alpha];
      }
    }
  }
  return metrics;
}

/** What each engine has in its matrices and their inputs; the head is float in all. */
export const ENGINES = {
  float: {},
  w8a8: { weights: { bits: 8 }, activations: { bits: 8 } },
  w4a8: { weights: { bits: 4 }, activations: { bits: 8 } },
  w4a4: { weights: { bits: 4 }, activations: { bits: 4 } },
} as const satisfies Record<string, EngineOptions>;
