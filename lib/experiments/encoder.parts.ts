/** Steps of the encoder experiment: mails in tokens, weights and activations in few bits, a probe. */
import {
  addErrors,
  type ChannelRange,
  quantizeSite,
  type Scheme,
  type SiteSteps,
  stepsOf,
  widen,
  withFactors,
} from "../agile-quant/activation.ts";
import { gptq, hessian } from "../agile-quant/gptq.ts";
import { groupOf } from "../agile-quant/weights.ts";
import { loadMails, type Mail } from "../core/mail.ts";
import {
  asymmetric,
  estimated,
  fakeQuantize,
  grid,
  log2,
  minMax,
} from "../core/quantizer.ts";
import { fold, type Key, permutation } from "../core/rng.ts";
import {
  encode,
  encoderLinears,
  type EncoderParams,
  type SentencePieces,
  type Site,
  withWeights,
} from "../core/sentence-encoder.ts";
import { type Tensor, tf } from "../core/tensor.ts";

/** Mails as token ids of one length, and which are spam. */
export interface TokenMails {
  ids: number[][];
  spam: boolean[];
}

/** Characters that are looked at for the tokens of a mail, per token. */
const CHARACTERS_PER_TOKEN = 12;

/**
 * Sets of mails without overlap, in each as much ham as spam; a mail is its first `tokens` tokens, and shorter
 * mails are left out, so that no text is padded.
 *
 * @param sizes mails of each set, even
 */
export function mailSets(
  tokenizer: SentencePieces,
  { sizes, tokens, key }: { sizes: number[]; tokens: number; key: Key },
): { sets: TokenMails[]; source: string } {
  const { mails, source } = loadMails();
  const total = sizes.reduce((a, b) => a + b, 0);
  const draw = (kind: string, all: Mail[]): number[][] => {
    const found: number[][] = [];
    for (const i of permutation(fold(key, kind), all.length)) {
      const text = all[i].text.slice(0, CHARACTERS_PER_TOKEN * tokens);
      const ids = tokenizer.encode(text).slice(0, tokens);
      if (ids.length === tokens) found.push(ids);
      if (found.length === total / 2) return found;
    }
    throw new RangeError(
      `Cannot draw mails as there must be ${
        total / 2
      } of ${kind} with ${tokens} tokens: ${found.length}`,
    );
  };
  const ham = draw("ham", mails.filter(({ spam }) => !spam));
  const spam = draw("spam", mails.filter(({ spam }) => spam));
  let at = 0;
  const sets = sizes.map((size): TokenMails => {
    const [from, to] = [at, at += size / 2];
    return {
      ids: [...ham.slice(from, to), ...spam.slice(from, to)],
      spam: Array.from({ length: size }, (_, i) => i >= size / 2),
    };
  });
  return { sets, source };
}

/** Texts of one product; more cost memory and save no time. */
const BATCH = 64;

function* batchesOf(ids: number[][]): Generator<Tensor> {
  for (let i = 0; i < ids.length; i += BATCH) {
    const part = ids.slice(i, i + BATCH);
    const batch = tf.tensor2d(part, [part.length, part[0].length], "int32");
    yield batch;
    batch.dispose();
  }
}

/** Embeddings of all mails, [mails, 512]. */
export function embed(
  params: EncoderParams,
  { ids }: TokenMails,
  site?: Site,
): Float32Array[] {
  const rows: Float32Array[] = [];
  for (const batch of batchesOf(ids)) {
    const y = encode(params, batch, site);
    const [n, D] = y.shape as number[];
    const values = y.dataSync() as Float32Array;
    for (let i = 0; i < n; i++) rows.push(values.slice(i * D, (i + 1) * D));
    y.dispose();
  }
  return rows;
}

// Weights -------------------------------------------------------------------------------------------

/** Bits of the embedding table in every quantised model, one step per row. Our choice; standing: assumed. */
export const TABLE_BITS = 8;

export interface WeightSetting {
  method: "rtn" | "gptq";
  bits: number;
  /** GPTQ: inputs whose errors make up for each other; more of them cost the square. */
  block: number;
}

const roundGroups = (x: Tensor, bits: number, group: number): Tensor =>
  fakeQuantize(x, {
    grid: grid({ bits, signed: false }),
    granularity: { group },
    calibration: estimated(minMax, asymmetric),
  });

/** Columns [from, to) of rows of `width`. */
function columns(
  x: Float32Array,
  width: number,
  from: number,
  to: number,
): Float32Array {
  const out = new Float32Array(x.length / width * (to - from));
  for (let row = 0, at = 0; row < x.length; row += width, at += to - from) {
    out.set(x.subarray(row + from, row + to), at);
  }
  return out;
}

/** GPTQ of a weight by blocks of its inputs, each on its part of the calibration inputs. */
function gptqBlocks(
  weight: Tensor,
  inputs: Float32Array,
  { bits, block, name }: { bits: number; block: number; name: string },
): Tensor {
  const [rows, width] = weight.shape as [number, number];
  const size = Math.min(block, width);
  const values = weight.dataSync() as Float32Array;
  const parts: Tensor[] = [];
  for (let from = 0; from < width; from += size) {
    const to = Math.min(width, from + size);
    const h = hessian(columns(inputs, width, from, to), to - from);
    const { dequantized } = gptq(columns(values, width, from, to), h, {
      bits,
      groupSize: groupOf(to - from),
      name,
    });
    parts.push(tf.tensor2d(dequantized, [rows, to - from]));
  }
  const joined = tf.concat(parts, 1);
  tf.dispose(parts);
  return joined;
}

/**
 * The encoder with its matrices in few bits, a step and a zero point for every 128 inputs of a row.
 *
 * GPTQ goes layer by layer, on what the quantised layers before leave of the calibration mails.
 */
export function quantizeEncoder(
  params: EncoderParams,
  { method, bits, block }: WeightSetting,
  calibration: TokenMails,
  progress: (fraction: number) => void = () => {},
): EncoderParams {
  const made: Record<string, Tensor> = {};
  const table = {
    ...params,
    embedding: tf.tidy(() =>
      roundGroups(params.embedding, TABLE_BITS, params.embedding.shape[1]!)
    ),
  };
  const linears = encoderLinears(params);
  linears.forEach(([name, { weight }], i) => {
    if (method === "rtn") {
      made[name] = tf.tidy(() =>
        roundGroups(weight, bits, groupOf(weight.shape[1]!))
      );
    } else {
      const seen: Float32Array[] = [];
      embed(withWeights(table, made), calibration, (site, x) => {
        if (site === `${name}.input`) {
          seen.push((x.dataSync() as Float32Array).slice());
        }
        return x;
      });
      const inputs = new Float32Array(seen.reduce((n, x) => n + x.length, 0));
      let at = 0;
      for (const x of seen) inputs.set(x, (at += x.length) - x.length);
      made[name] = gptqBlocks(weight, inputs, { bits, block, name });
    }
    progress((i + 1) / linears.length);
  });
  return withWeights(table, made);
}

/** Bytes of the encoder's matrices and table: codes, a 16-bit step and a zero point per group; the rest as float32. */
export function encoderBytes(params: EncoderParams, bits: number): number {
  const coded = (x: Tensor, b: number, group: number) =>
    b > 8 ? 4 * x.size : (x.size * b + x.size / group * (16 + b)) / 8;
  const { embedding } = params;
  return encoderLinears(params).reduce(
    (sum, [, { weight, bias }]) =>
      sum + coded(weight, bits, groupOf(weight.shape[1]!)) + 4 * bias.size,
    coded(embedding, bits > 8 ? 32 : TABLE_BITS, embedding.shape[1]!),
  );
}

// Activations ---------------------------------------------------------------------------------------

export interface ActivationSetting {
  bits: number;
  /** Inputs of linear layers; the outputs of q, k and v have one step per layer in every scheme but "token". */
  scheme: Scheme;
  /** Softmax in powers of two of 4 bits, else uniform steps of the setting's bits. */
  softmax: "log2" | "uniform";
}

/** Largest exponent of TRIP's factors, that of the Agile-Quant experiment. */
const MAX_FACTOR = 8;

const isOutput = (site: string) => /\.[qkv]$/.test(site);

/**
 * What puts every activation on its grid, with steps from calibration mails: ranges first, then TRIP's factors.
 *
 * Sites are the inputs of all linear layers, q, k, v and the softmax.
 */
export function calibrateSites(
  params: EncoderParams,
  { bits, scheme, softmax }: ActivationSetting,
  calibration: TokenMails,
): Site {
  const ranges: Record<string, ChannelRange> = {};
  const keep = (see: (site: string, x: Tensor) => void): Site => (site, x) => {
    if (!site.endsWith(".probabilities")) see(site, x);
    return x;
  };
  embed(
    params,
    calibration,
    keep((site, x) => ranges[site] = widen(ranges[site], x, site)),
  );
  const own = (site: string): Scheme =>
    scheme === "trip" && isOutput(site) ? "layer-asymmetric" : scheme;
  const steps: Record<string, SiteSteps> = {};
  for (const [site, range] of Object.entries(ranges)) {
    steps[site] = stepsOf(range, bits, own(site), MAX_FACTOR);
  }
  if (scheme === "trip") {
    const errors: Record<string, Float64Array> = {};
    embed(
      params,
      calibration,
      keep((site, x) => {
        if (own(site) !== "trip") return;
        errors[site] = addErrors(errors[site], x, steps[site], MAX_FACTOR);
      }),
    );
    for (const [site, e] of Object.entries(errors)) {
      steps[site] = withFactors(steps[site], e, MAX_FACTOR);
    }
  }
  const powers = log2({ bits: 4 });
  const unit = { grid: grid({ bits, signed: false }) };
  const uniform = (p: Tensor) =>
    fakeQuantize(p, {
      ...unit,
      calibration: {
        kind: "estimated",
        estimate: () => ({ scale: tf.scalar(1 / unit.grid.qmax) }),
      },
    });
  return (site, x) =>
    site.endsWith(".probabilities")
      ? (softmax === "log2" ? powers(x) : uniform(x))
      : quantizeSite(x, steps[site]);
}

// Probe ---------------------------------------------------------------------------------------------

/** A linear classifier: spam if weight . x + bias > 0. */
export interface Probe {
  weight: Float64Array;
  bias: number;
}

export const score = ({ weight, bias }: Probe, x: Float32Array): number => {
  let sum = bias;
  for (let i = 0; i < x.length; i++) sum += weight[i] * x[i];
  return sum;
};

/** Descent of the probe; embeddings have length 1, so a rate of 20 is below 2 over the curvature. */
const PROBE = { steps: 400, learningRate: 20, decay: 1e-4 };

/** Logistic regression by gradient descent: mean of log(1 + exp(-y f(x))) + decay |w|^2 / 2. */
export function fitProbe(rows: Float32Array[], spam: boolean[]): Probe {
  const weight = new Float64Array(rows[0].length);
  const probe: Probe = { weight, bias: 0 };
  const { steps, learningRate, decay } = PROBE;
  for (let step = 0; step < steps; step++) {
    const gradient = Float64Array.from(weight, (w) => decay * w);
    let biasGradient = 0;
    rows.forEach((x, n) => {
      const p = 1 / (1 + Math.exp(-score(probe, x)));
      const error = (p - (spam[n] ? 1 : 0)) / rows.length;
      for (let i = 0; i < x.length; i++) gradient[i] += error * x[i];
      biasGradient += error;
    });
    for (let i = 0; i < weight.length; i++) {
      weight[i] -= learningRate * gradient[i];
    }
    // The bias sees an input of 1 beside embeddings of length 1.
    probe.bias -= learningRate / 10 * biasGradient;
  }
  return probe;
}

/** Share of mails that the probe classifies rightly. */
export function accuracy(
  probe: Probe,
  rows: Float32Array[],
  spam: boolean[],
): number {
  const right = rows.filter((x, n) => (score(probe, x) > 0) === spam[n]);
  return right.length / rows.length;
}

/** Cosine of two vectors. */
export function cosine(a: Float32Array, b: Float32Array): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return ab / Math.sqrt(aa * bb);
}
