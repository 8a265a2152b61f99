/**
 * Activation quantizers of one site: the numbers that flow through it are seen once, its steps are then fixed.
 *
 * | scheme | one step per | zero point | here |
 * | --- | --- | --- | --- |
 * | layer | site | 0 | the released formula, max|x| / 127.5 and / 7.5 |
 * | layer-asymmetric | site | one | (max - min) / (2^b - 1) |
 * | trip | site, times 2^alpha per channel | one | Eqs. 4 to 8, see trip.ts |
 * | channel | channel | 0 | as released; an integer product cannot run it: an upper bound |
 * | channel-asymmetric | channel | one per channel | as above |
 * | token | token, from itself | 0 | no calibration; what most integer engines do |
 *
 * Scope: fake quantisation, whose results the integer product gives as well (trip.ts, and the integer kernels of
 * the core). Outputs of q, k and v meet no weight to fold a factor into: with trip they are quantised by layer.
 */
import { fakeQuant } from "../core/nn.ts";
import {
  absMax,
  asymmetric,
  estimated,
  fakeQuantize,
  type Grid,
  grid,
  type StepRule,
  symmetric,
  symmetricHalf,
} from "../core/quantizer.ts";
import { type Tensor, tf } from "../core/tensor.ts";
import {
  DEFAULT_MAX_FACTOR,
  tripErrors,
  tripFactors,
  tripScale,
  tripZeroPoint,
} from "./trip.ts";

export const SCHEMES = [
  "layer",
  "layer-asymmetric",
  "trip",
  "channel",
  "channel-asymmetric",
  "token",
] as const;
export type Scheme = typeof SCHEMES[number];

/** Least and greatest number of each channel over a calibration set; both include 0. */
export interface ChannelRange {
  low: Float32Array; // [C]
  high: Float32Array; // [C]
}

/** Fixed steps of a site. */
export interface SiteSteps {
  bits: number;
  scheme: Scheme;
  /** [1] or [C]; with trip 2^alpha s of each channel. Empty with "token". */
  scale: Float32Array;
  /** [1] or [C] */
  zeroPoint: Float32Array;
  /** With trip, alpha. */
  alpha?: Uint8Array;
}

/** Widens a range by a batch [..., C]. */
export function widen(
  range: ChannelRange | undefined,
  x: Tensor,
  site: string,
): ChannelRange {
  const C = x.shape[x.rank - 1];
  const [min, max] = tf.tidy(() => {
    const rows = x.reshape([-1, C]);
    return [rows.min(0), rows.max(0)].map((t) => t.dataSync() as Float32Array);
  });
  const low = range?.low ?? new Float32Array(C);
  const high = range?.high ?? new Float32Array(C);
  for (let c = 0; c < C; c++) {
    if (!Number.isFinite(min[c]) || !Number.isFinite(max[c])) {
      throw new RangeError(
        `Cannot calibrate ${site} as every number must be finite: channel ${c} goes from ${
          min[c]
        } to ${max[c]}`,
      );
    }
    low[c] = Math.min(low[c], min[c]);
    high[c] = Math.max(high[c], max[c]);
  }
  return { low, high };
}

const least = (values: Float32Array) =>
  values.reduce((a, b) => Math.min(a, b), 0);
const greatest = (values: Float32Array) =>
  values.reduce((a, b) => Math.max(a, b), 0);

/** Steps by a rule of the core, on the host. */
function byRule(
  low: Float32Array,
  high: Float32Array,
  codes: Grid,
  rule: StepRule,
): Pick<SiteSteps, "scale" | "zeroPoint"> {
  return tf.tidy(() => {
    const range = { low: tf.tensor1d(low), high: tf.tensor1d(high) };
    const { scale, zeroPoint } = rule(range, codes);
    return {
      scale: (scale.dataSync() as Float32Array).slice(),
      zeroPoint: zeroPoint === undefined
        ? new Float32Array(1)
        : (zeroPoint.dataSync() as Float32Array).slice(),
    };
  });
}

/** Unsigned codes where there is a zero point. */
function gridOf(bits: number, scheme: Scheme): Grid {
  const signed = ["layer", "channel", "token"].includes(scheme);
  return grid({ bits, signed });
}

/** Steps of a site from its range; with trip every factor is K until `fitFactors` has seen the numbers. */
export function stepsOf(
  { low, high }: ChannelRange,
  bits: number,
  scheme: Scheme,
  maxFactor: number = DEFAULT_MAX_FACTOR,
): SiteSteps {
  const codes = gridOf(bits, scheme);
  const whole = [
    Float32Array.of(least(low)),
    Float32Array.of(greatest(high)),
  ] as const;
  switch (scheme) {
    case "token":
      return {
        bits,
        scheme,
        scale: new Float32Array(0),
        zeroPoint: new Float32Array(1),
      };
    case "layer":
      return { bits, scheme, ...byRule(...whole, codes, symmetricHalf) };
    case "channel":
      return { bits, scheme, ...byRule(low, high, codes, symmetricHalf) };
    case "layer-asymmetric":
      return { bits, scheme, ...byRule(...whole, codes, asymmetric) };
    case "channel-asymmetric":
      return { bits, scheme, ...byRule(low, high, codes, asymmetric) };
    case "trip": {
      const s = tripScale(whole[0][0], whole[1][0], bits, maxFactor);
      return {
        bits,
        scheme,
        scale: new Float32Array(low.length).fill(2 ** maxFactor * s),
        zeroPoint: Float32Array.of(
          tripZeroPoint(whole[0][0], s, bits, maxFactor),
        ),
        alpha: new Uint8Array(low.length).fill(maxFactor),
      };
    }
  }
}

/** Errors of every factor for a batch [..., C] at a site whose steps are those of `stepsOf`, added to `errors`. */
export function addErrors(
  errors: Float64Array | undefined,
  x: Tensor,
  { bits, scale, zeroPoint, alpha }: SiteSteps,
  maxFactor: number,
): Float64Array {
  const own = tripErrors(x.dataSync() as Float32Array, scale.length, {
    bits,
    scale: scale[0] / 2 ** alpha![0],
    zeroPoint: zeroPoint[0],
    maxFactor,
  });
  if (errors !== undefined) own.forEach((e, i) => own[i] = e + errors[i]);
  return own;
}

/** Steps with alpha_c = argmin_k of the errors. */
export function withFactors(
  steps: SiteSteps,
  errors: Float64Array,
  maxFactor: number,
): SiteSteps {
  const alpha = tripFactors(errors, maxFactor);
  const s = steps.scale[0] / 2 ** steps.alpha![0];
  return {
    ...steps,
    alpha,
    scale: Float32Array.from(alpha, (k) => 2 ** k * s),
  };
}

/**
 * x on the grid of its site.
 *
 * @param x [..., C]
 */
export function quantizeSite(x: Tensor, steps: SiteSteps): Tensor {
  const { bits, scheme, scale, zeroPoint } = steps;
  const codes = gridOf(bits, scheme);
  if (scheme === "token") {
    return fakeQuantize(x, {
      grid: codes,
      granularity: "token",
      calibration: estimated(absMax, symmetric),
    });
  }
  const C = x.shape[x.rank - 1];
  if (scale.length !== 1 && scale.length !== C) {
    throw new RangeError(
      `Cannot quantise as x must end in the ${scale.length} channels it was calibrated for: [${x.shape}]`,
    );
  }
  return tf.tidy(() =>
    fakeQuant(x, {
      scale: tf.tensor1d(scale),
      zeroPoint: tf.tensor1d(zeroPoint),
      qmin: codes.qmin,
      qmax: codes.qmax,
    })
  );
}
