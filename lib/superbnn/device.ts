/**
 * The device of SupeRBNN: an AQFP buffer as a stochastic sign, and what a crossbar does to its current.
 *
 * Li et al., "SupeRBNN: Randomized Binary Neural Network Using Adiabatic Superconductor Josephson
 * Devices", MICRO 2023, arXiv 2309.12212.
 *
 * An AQFP buffer puts out +1 or -1, the sign of its input current. Near the threshold noise decides:
 * the chance of +1 rises from 0 to 1 over a gray zone. A crossbar merges the currents of its cells; the
 * larger it is, the less current each contributes, and so the wider the gray zone becomes in units of
 * the sum that is to be computed. That couples the hardware to the network.
 *
 * | symbol | identifier | unit |
 * | --- | --- | --- |
 * | I, I_th, dI_in | currentUa, thresholdUa, grayZoneUa | uA |
 * | sigma | noiseSigmaUa() | uA |
 * | Cs | crossbarSize | cells merged on a column |
 * | I1(Cs) = A Cs^-B | attenuatedCurrentUa() | uA per unit of the sum |
 * | V, V_th, dV_in | sum, threshold, grayZone | units of the sum, no unit |
 *
 * Scope: only the paper's abstract was available, so the equations are a reconstruction: the gray zone
 * as an error function and the power law of the attenuation are recalled, the identities derived. A, B
 * and the width of the gray zone were not found: `DEFAULT_DEVICE` assumes them.
 */
import type { Standing } from "../core/aqfp.ts";
import { type Key, normal, uniform } from "../core/rng.ts";

/** I1(Cs) = A Cs^-B: current that stands for 1 at the output of a column of Cs cells. */
export interface Attenuation {
  /** A: of a single cell, in uA, above 0. */
  aUa: number;
  /** B: 0 no attenuation, 1 a lossless merge of equal branches; at least 0. */
  b: number;
  standing: Standing;
  source: string;
}

/** A buffer at the end of a crossbar's column. */
export interface Device {
  name: string;
  /** dI_in: distance between the points where the tangent at the threshold meets 0 and 1; above 0. */
  grayZoneUa: number;
  /** I_th: current at which both outputs are equally likely; a dc offset moves it. */
  thresholdUa: number;
  attenuation: Attenuation;
  standing: Standing;
  /** Where the gray zone comes from. */
  source: string;
}

/** Assumed: no value of the paper was available. Conclusions must hold for other devices, too. */
export const DEFAULT_DEVICE: Device = {
  name: "assumed-4uA",
  grayZoneUa: 4,
  thresholdUa: 0,
  attenuation: {
    aUa: 70,
    b: 1,
    standing: "assumed",
    source:
      "A of the order of a remembered logic current, B of a lossless inductive merge that divides the flux",
  },
  standing: "assumed",
  source: "of the order of a remembered random region of a few uA at 4.2 K",
};

/** What is drawn at the threshold itself where there is no noise. */
export type Ties = "coin" | "high" | "low";

/** An estimate with its standard error. */
export interface Fitted {
  value: number;
  standardError: number;
}

// Arguments ---------------------------------------------------------------------------------------

function checkPositive(name: string, value: number, what: string): void {
  if (!(value > 0 && value < Infinity)) {
    throw new RangeError(
      `Cannot ${what} as ${name} must be finite and above 0: ${name} ${value}`,
    );
  }
}

function checkFinite(name: string, value: number, what: string): void {
  if (!Number.isFinite(value)) {
    throw new RangeError(
      `Cannot ${what} as ${name} must be finite: ${name} ${value}`,
    );
  }
}

/** @throws RangeError unless the device could exist; an ideal sign is the simulator's gray zone 0. */
export function checkDevice(device: Device): void {
  const what = `use device ${device.name}`;
  checkPositive("grayZoneUa", device.grayZoneUa, what);
  checkFinite("thresholdUa", device.thresholdUa, what);
  checkPositive("attenuation.aUa", device.attenuation.aUa, what);
  if (!(device.attenuation.b >= 0 && device.attenuation.b < Infinity)) {
    throw new RangeError(
      `Cannot ${what} as attenuation.b must be finite and at least 0: ${device.attenuation.b}`,
    );
  }
}

/** @throws RangeError unless whole and at least 1. */
export function checkCrossbarSize(crossbarSize: number): void {
  if (!Number.isInteger(crossbarSize) || crossbarSize < 1) {
    throw new RangeError(
      `Cannot build a crossbar as its size must be a whole number >= 1: crossbarSize ${crossbarSize}`,
    );
  }
}

// The error function ------------------------------------------------------------------------------

/** Above this the continued fraction converges faster than the series. */
const SERIES_LIMIT = 2;

/**
 * Error function, to 2e-16 absolute and, near 0, relative.
 *
 * Series 2/sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!! for small |x|, whose terms have one sign;
 * continued fraction of the complement above (Abramowitz and Stegun 7.1.6 and 7.1.14).
 */
export function erf(x: number): number {
  const size = Math.abs(x);
  if (size > SERIES_LIMIT) return Math.sign(x) * (1 - erfc(size));
  let term = size;
  let sum = size;
  for (let n = 1; term > sum * 2 ** -54; n++) {
    term *= 2 * size * size / (2 * n + 1);
    sum += term;
  }
  return Math.sign(x) * 2 / Math.sqrt(Math.PI) * Math.exp(-size * size) * sum;
}

/** 1 - erf(x) without cancellation in the upper tail, where it is accurate to 1e-13 relative. */
export function erfc(x: number): number {
  if (x <= SERIES_LIMIT) return 1 - erf(x);
  if (x > 27) return 0; // below the smallest double
  let fraction = x;
  for (let n = 120; n >= 1; n--) fraction = x + n / 2 / fraction;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * fraction);
}

// Equations ---------------------------------------------------------------------------------------

/**
 * Chance of +1 at a distance from the threshold, in units of the gray zone.
 *
 * P = 1/2 + 1/2 erf(sqrt(pi) x)    (recalled; x = (I - I_th) / dI_in)
 *
 * The factor sqrt(pi) makes the slope at the threshold exactly 1 / dI_in.
 */
function grayZoneCurve(x: number): number {
  const z = Math.sqrt(Math.PI) * x;
  return z < 0 ? erfc(-z) / 2 : 1 - erfc(z) / 2;
}

/**
 * Chance that a buffer puts out +1.
 *
 * P(I) = 1/2 + 1/2 erf(sqrt(pi) (I - I_th) / dI_in)    (recalled)
 *
 * @example
 * ```ts
 * outputProbability(0, DEFAULT_DEVICE); // 0.5
 * ```
 */
export function outputProbability(currentUa: number, device: Device): number {
  checkDevice(device);
  return grayZoneCurve((currentUa - device.thresholdUa) / device.grayZoneUa);
}

/**
 * Standard deviation of the noise that explains the gray zone: the output is sign(I - I_th + sigma N).
 *
 * sigma = dI_in / sqrt(2 pi)    (derived: Phi(x / sigma) has slope 1 / (sigma sqrt(2 pi)) at 0)
 */
export function noiseSigmaUa(device: Device): number {
  checkDevice(device);
  return device.grayZoneUa / Math.sqrt(2 * Math.PI);
}

/**
 * Chance of +1 for a sum, in units of the sum; the ideal sign where the gray zone is 0.
 *
 * P(V) = 1/2 + 1/2 erf(sqrt(pi) (V - V_th) / dV_in)
 *
 * @param threshold V_th; +-Infinity is a constant output
 * @param grayZone dV_in, at least 0
 * @param ties What happens at V = V_th without noise; with noise it is a fair coin in any case
 */
export function firingProbability(
  sum: number,
  threshold: number,
  grayZone: number,
  ties: Ties = "coin",
): number {
  if (!(grayZone >= 0)) {
    throw new RangeError(
      `Cannot compute a probability as grayZone must be at least 0: grayZone ${grayZone}`,
    );
  }
  if (threshold === -Infinity) return 1;
  if (threshold === Infinity) return 0;
  if (grayZone > 0) return grayZoneCurve((sum - threshold) / grayZone);
  if (sum !== threshold) return sum > threshold ? 1 : 0;
  return ties === "coin" ? 0.5 : ties === "high" ? 1 : 0;
}

/**
 * Mean of the output.
 *
 * E[a] = erf(sqrt(pi) (V - V_th) / dV_in)    (derived: 2 P - 1)
 */
export function expectedOutput(
  sum: number,
  threshold: number,
  grayZone: number,
): number {
  checkPositive("grayZone", grayZone, "compute an expected output");
  return erf(Math.sqrt(Math.PI) * (sum - threshold) / grayZone);
}

/**
 * Slope of the mean output: the gradient of training, in place of a straight-through estimate.
 *
 * dE[a]/dV = 2 / dV_in exp(-pi (V - V_th)^2 / dV_in^2)    (derived; its integral over V is 2)
 */
export function expectationGradient(
  sum: number,
  threshold: number,
  grayZone: number,
): number {
  checkPositive("grayZone", grayZone, "compute a gradient");
  const x = (sum - threshold) / grayZone;
  return 2 / grayZone * Math.exp(-Math.PI * x * x);
}

/**
 * Current that stands for 1 at the output of a crossbar.
 *
 * I1(Cs) = A Cs^-B    (form recalled; A and B assumed)
 */
export function attenuatedCurrentUa(
  crossbarSize: number,
  device: Device,
): number {
  checkDevice(device);
  checkCrossbarSize(crossbarSize);
  const { aUa, b } = device.attenuation;
  return aUa * crossbarSize ** -b;
}

/**
 * Gray zone in units of the sum: a larger crossbar is noisier.
 *
 * dV_in(Cs) = dI_in / I1(Cs) = (dI_in / A) Cs^B    (derived)
 *
 * @example
 * ```ts
 * grayZoneValue(35, DEFAULT_DEVICE); // 2
 * ```
 */
export function grayZoneValue(crossbarSize: number, device: Device): number {
  return device.grayZoneUa / attenuatedCurrentUa(crossbarSize, device);
}

/** The threshold of a device in units of the sum: V_th = I_th / I1(Cs). */
export function thresholdValue(crossbarSize: number, device: Device): number {
  return device.thresholdUa / attenuatedCurrentUa(crossbarSize, device);
}

/** Current that shifts a column's threshold to V_th (batch-norm matching): I_th = I1(Cs) V_th. */
export function thresholdCurrentUa(
  threshold: number,
  crossbarSize: number,
  device: Device,
): number {
  return attenuatedCurrentUa(crossbarSize, device) * threshold;
}

/**
 * The device at another temperature: thermal noise has a power in proportion to T.
 *
 * dI_in(T) = dI_in(T0) sqrt(T / T0)    (classical limit, recalled; no floor of quantum noise)
 *
 * @throws RangeError unless both temperatures are above 0
 */
export function atTemperature(
  device: Device,
  tempK: number,
  { referenceTempK = 4.2 } = {},
): Device {
  checkDevice(device);
  checkPositive("tempK", tempK, "change the temperature of a device");
  checkPositive("referenceTempK", referenceTempK, "change the temperature");
  return {
    ...device,
    name: `${device.name} at ${tempK} K`,
    grayZoneUa: device.grayZoneUa * Math.sqrt(tempK / referenceTempK),
  };
}

// Samples -----------------------------------------------------------------------------------------

/**
 * Outputs drawn with their probability, one per current.
 *
 * a = +1 with probability P(I), else -1
 *
 * @returns [n], +1 or -1
 */
export function sampleOutputs(
  currentsUa: ArrayLike<number>,
  device: Device,
  key: Key,
): Int8Array {
  const draws = uniform(key, currentsUa.length);
  return Int8Array.from(
    draws,
    (u, i) => u < outputProbability(currentsUa[i], device) ? 1 : -1,
  );
}

/**
 * The same distribution from noise on the current; numbers differ from `sampleOutputs`'s.
 *
 * a = sign(I - I_th + sigma N(0, 1))
 *
 * @returns [n], +1 or -1
 */
export function sampleWithNoise(
  currentsUa: ArrayLike<number>,
  device: Device,
  key: Key,
): Int8Array {
  const noise = normal(key, currentsUa.length, 0, noiseSigmaUa(device));
  return Int8Array.from(
    noise,
    (n, i) => currentsUa[i] - device.thresholdUa + n >= 0 ? 1 : -1,
  );
}

// Fits --------------------------------------------------------------------------------------------

/** Rounds of Fisher scoring; four to eight are enough where an estimate exists. */
const SCORING_ROUNDS = 100;

/**
 * Gray zone and threshold from counts of +1 at several currents, by maximum likelihood.
 *
 * Probit regression P = Phi(alpha + beta I) by Fisher scoring; dI_in = sqrt(2 pi) / beta,
 * I_th = -alpha / beta, standard errors from the information matrix by the delta method.
 *
 * @param points at least two currents; `ones` of `trials` outputs were +1
 * @throws RangeError if no estimate exists: outputs that one threshold separates leave the width open
 */
export function fitGrayZone(
  points: readonly { currentUa: number; ones: number; trials: number }[],
): { grayZoneUa: Fitted; thresholdUa: Fitted } {
  for (const { currentUa, ones, trials } of points) {
    const whole = Number.isInteger(ones) && Number.isInteger(trials);
    if (
      !Number.isFinite(currentUa) || !whole || ones < 0 || trials < 1 ||
      ones > trials
    ) {
      throw new RangeError(
        `Cannot fit a gray zone as each point needs a finite current and whole 0 <= ones <= trials: currentUa ${currentUa}, ones ${ones}, trials ${trials}`,
      );
    }
  }
  const none = () =>
    new RangeError(
      `Cannot fit a gray zone as outputs must rise with the current and both must occur, in at least two currents, one of them with a mix: ${
        points.map(({ currentUa, ones, trials }) =>
          `${currentUa} uA ${ones}/${trials}`
        ).join(", ")
      }`,
    );
  const currents = points.map(({ currentUa }) => currentUa);
  const low = Math.min(...currents);
  const scale = (Math.max(...currents) - low) / 2;
  if (!(scale > 0)) throw none();
  // A common centre and scale for the currents keep the two equations well conditioned.
  const x = currents.map((current) => (current - low) / scale - 1);
  let alpha = 0;
  let beta = 1;
  let information = [0, 0, 0];
  for (let round = 0; round < SCORING_ROUNDS; round++) {
    information = [0, 0, 0];
    let gradientAlpha = 0;
    let gradientBeta = 0;
    points.forEach(({ ones, trials }, i) => {
      const z = alpha + beta * x[i];
      const p = grayZoneCurve(z / Math.sqrt(2 * Math.PI));
      const q = grayZoneCurve(-z / Math.sqrt(2 * Math.PI));
      const density = Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI);
      if (p * q === 0) return; // So far out that the point holds no information.
      const weight = trials * density * density / (p * q);
      const score = (ones - trials * p) * density / (p * q);
      information[0] += weight;
      information[1] += weight * x[i];
      information[2] += weight * x[i] * x[i];
      gradientAlpha += score;
      gradientBeta += score * x[i];
    });
    const [aa, ab, bb] = information;
    const determinant = aa * bb - ab * ab;
    if (!(determinant > 1e-12 * aa * bb)) throw none();
    const stepAlpha = (bb * gradientAlpha - ab * gradientBeta) / determinant;
    const stepBeta = (aa * gradientBeta - ab * gradientAlpha) / determinant;
    // A long step from a poor start may leave the region where the curve is not flat.
    const damping = Math.min(1, 2 / Math.hypot(stepAlpha, stepBeta));
    alpha += damping * stepAlpha;
    beta += damping * stepBeta;
    if (Math.hypot(stepAlpha, stepBeta) < 1e-12 * (1 + Math.abs(beta))) break;
    if (!(Math.abs(beta) < 1e6)) throw none();
    if (round === SCORING_ROUNDS - 1) throw none();
  }
  if (!(beta > 0)) throw none();
  const [aa, ab, bb] = information;
  const determinant = aa * bb - ab * ab;
  const varAlpha = bb / determinant;
  const varBeta = aa / determinant;
  const covariance = -ab / determinant;
  const ratio = alpha / beta;
  const thresholdVariance =
    (varAlpha + ratio * ratio * varBeta - 2 * ratio * covariance) /
    (beta * beta);
  const grayZone = Math.sqrt(2 * Math.PI) / beta * scale;
  return {
    grayZoneUa: {
      value: grayZone,
      standardError: grayZone * Math.sqrt(varBeta) / beta,
    },
    thresholdUa: {
      value: low + scale * (1 - ratio),
      standardError: scale * Math.sqrt(Math.max(thresholdVariance, 0)),
    },
  };
}

/**
 * A and B of the attenuation from currents at several sizes, by least squares of the logarithms.
 *
 * ln I1 = ln A - B ln Cs    (form recalled)
 *
 * @param points at least three, with two different sizes or more
 * @returns A in uA, B, and `rmsLogError`, what the power law leaves unexplained
 */
export function fitAttenuation(
  points: readonly { crossbarSize: number; currentUa: number }[],
): { aUa: Fitted; b: Fitted; rmsLogError: number } {
  const n = points.length;
  for (const { crossbarSize, currentUa } of points) {
    checkPositive("crossbarSize", crossbarSize, "fit an attenuation");
    checkPositive("currentUa", currentUa, "fit an attenuation");
  }
  const x = points.map(({ crossbarSize }) => Math.log(crossbarSize));
  const y = points.map(({ currentUa }) => Math.log(currentUa));
  const meanX = x.reduce((sum, v) => sum + v, 0) / n;
  const meanY = y.reduce((sum, v) => sum + v, 0) / n;
  const sxx = x.reduce((sum, v) => sum + (v - meanX) ** 2, 0);
  if (n < 3 || !(sxx > 1e-20)) {
    throw new RangeError(
      `Cannot fit an attenuation as at least 3 points of at least 2 sizes are needed: sizes ${
        points.map(({ crossbarSize }) => crossbarSize).join(", ") || "none"
      }`,
    );
  }
  const slope = x.reduce((sum, v, i) => sum + (v - meanX) * (y[i] - meanY), 0) /
    sxx;
  const intercept = meanY - slope * meanX;
  const residual = y.reduce(
    (sum, v, i) => sum + (v - intercept - slope * x[i]) ** 2,
    0,
  );
  const variance = residual / (n - 2);
  const aUa = Math.exp(intercept);
  return {
    aUa: {
      value: aUa,
      standardError: aUa * Math.sqrt(variance * (1 / n + meanX ** 2 / sxx)),
    },
    b: { value: -slope, standardError: Math.sqrt(variance / sxx) },
    rmsLogError: Math.sqrt(residual / n),
  };
}
