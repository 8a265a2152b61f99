/**
 * The quantizers that EdgeQAT compares: what each learns, where it starts, and how it rounds.
 *
 * A method is a pair of schemes, one for weights and one for activations. Every scheme has one scale for
 * the whole matrix, since that is what plain SIMD products can run (arXiv 2402.10787 v2, section IV-A).
 * Where that of an activation comes from its own range, the matrix is one sequence, whatever the batch; the
 * range is that of the whole sequence, so that a token's numbers depend on later ones.
 *
 * Scope: W and A of the paper's Table I. Released starts and our own calibrated ones are both here,
 * under different names, because a released start can decide a short training.
 */
import { type Tensor, tf } from "../core/tensor.ts";
import {
  clipLearned,
  doReFaWeight,
  edgeQatActivation,
  fakeQuantize,
  type FakeQuantizer,
  type Granularity,
  grid,
  layout,
  leastSquares,
  llmQat,
  lsq,
  lsqInitialStep,
  nipq,
  pact,
  type Rounding,
  roundToNearest,
  symmetric,
} from "../core/quantizer.ts";

/** Learned numbers of one quantizer, by name; empty if it learns nothing. */
export type Learned = Record<string, Tensor>;

export interface SchemeOptions {
  /** 2 to 8; 16 and 32 pass everything. */
  bits: number;
  /** Codes on both sides of 0; without for softmax outputs. */
  signed: boolean;
}

/** How one tensor is quantised. */
export interface Scheme {
  /** First values of what is learned, from the numbers to be quantised. */
  start(x: Tensor, options: SchemeOptions): Learned;
  /** @param noise stands for rounding while NIPQ trains; other schemes round to even. */
  quantizer(
    learned: Learned,
    options: SchemeOptions,
    noise?: Rounding,
  ): FakeQuantizer;
}

/** A way to quantise a model. */
export interface Method {
  weight: Scheme;
  activation: Scheme;
}

/** A scheme in which nothing is learned. */
function fixed(make: (options: SchemeOptions) => FakeQuantizer): Scheme {
  return { start: () => ({}), quantizer: (_, options) => make(options) };
}

/** A step of 0, that of a matrix of zeros, becomes 1: all codes are then 0. */
function positive(step: Tensor): Tensor {
  return tf.tidy(() => step.add(tf.equal(step, 0).cast("float32")).asScalar());
}

/** max|x| as a scalar, 1 if that is 0. */
function largest(x: Tensor): Tensor {
  return tf.tidy(() => positive(x.abs().max()));
}

const firstStep = (x: Tensor, options: SchemeOptions) =>
  tf.tidy(() => positive(lsqInitialStep(x, options)));

/** One scale for each sequence of a batch [B, T, ...]: what a batch of one computes. */
const SEQUENCE: Granularity = { channel: 0 };

/** Round to nearest over the range of a weight, or of a sequence: nothing is learned. */
const rtn: Method = {
  weight: fixed(({ bits, signed }) => roundToNearest({ bits, signed })),
  activation: fixed(({ bits, signed }) =>
    roundToNearest({ bits, signed, granularity: SEQUENCE })
  ),
};

/** alpha = 2 mean|x| / sqrt(Qp), then learned (quant.py, LinearQ; LSQ). */
const lsqScheme: Scheme = {
  start: (x, options) => ({ alpha: firstStep(x, options) }),
  quantizer: ({ alpha }, options) => lsq(alpha, options),
};

/** The zero point's start in quant.py: this part of (min - alpha Qn), although that is a value, not a code. */
const ZERO_POINT_START = 0.1;

/** LSQ with a learned zero point (quant.py, ActQ). */
const actQ: Scheme = {
  start(x, options) {
    const { qmin } = grid(options);
    return tf.tidy(() => {
      const alpha = firstStep(x, options);
      const zeroPoint = x.min().sub(alpha.mul(qmin)).mul(ZERO_POINT_START);
      return { alpha, zeroPoint: zeroPoint.asScalar() };
    });
  },
  quantizer: ({ alpha, zeroPoint }, options) =>
    edgeQatActivation(alpha, zeroPoint, options),
};

/** Ranges tried for a calibrated first step. */
const RANGES = 25;

/** The step with the least squared error on x: ours. At 8 bits LSQ's own start is many times as wide. */
function calibratedStep(x: Tensor, options: SchemeOptions): Tensor {
  return tf.tidy(() => {
    const codes = grid(options);
    const { axes } = layout(x.shape);
    const range = leastSquares({ steps: RANGES })(x, axes, codes);
    return symmetric(range, codes).scale.asScalar();
  });
}

const lsqCalibrated: Scheme = {
  ...lsqScheme,
  start: (x, options) => ({ alpha: calibratedStep(x, options) }),
};

const actQCalibrated: Scheme = {
  ...actQ,
  start: (x, options) => ({
    alpha: calibratedStep(x, options),
    zeroPoint: tf.scalar(0),
  }),
};

/** PACT's first clipping value in the released code. */
const PACT_START = 10;

/** PACT as released: negative numbers become 0. */
const pactScheme: Scheme = {
  start: () => ({ alpha: tf.scalar(PACT_START) }),
  quantizer: ({ alpha }, { bits }) => pact(alpha, { bits }),
};

/** PACT on both sides: clamp(x, -alpha, alpha) on signed codes, alpha from max|x|. */
const pactSigned: Scheme = {
  start: (x) => ({ alpha: largest(x) }),
  quantizer({ alpha }, options) {
    const codes = grid(options);
    return (x) => {
      // clamp(x, -alpha, alpha) = clamp(x, 0, alpha) - clamp(-x, 0, alpha)
      const clipped = options.signed
        ? clipLearned(x, alpha).sub(clipLearned(x.neg(), alpha))
        : clipLearned(x, alpha);
      // alpha learns from the clipping, as in PACT; the step alpha / qmax passes no gradient to it.
      return fakeQuantize(clipped, {
        grid: codes,
        calibration: {
          kind: "estimated",
          estimate: () => ({ scale: alpha.div(codes.qmax) }),
        },
      });
    };
  },
};

/** The released starts of NIPQ's a; the range is softplus(a). */
const NIPQ_START = { weight: 1, activation: 6 };

/** NIPQ; `start` is the first a. */
function nipqScheme(
  start: (x: Tensor) => Tensor,
  signs: "released" | "both",
): Scheme {
  return {
    start: (x) => ({ a: start(x) }),
    quantizer: ({ a }, { bits, signed }, noise) =>
      nipq(a, { bits, signed: signed && signs === "both", noise }),
  };
}

/** a whose softplus is m = max|x|: log(exp(m) - 1) = m + log(-expm1(-m)), which no m overflows. */
const softplusInverse = (x: Tensor) =>
  tf.tidy(() => {
    const m = largest(x);
    return m.add(m.neg().expm1().neg().log()).asScalar();
  });

/** DoReFa's weights, in [-1, 1] whatever their size was; zeros, which have no size, stay zeros. */
const doReFa = fixed(({ bits }) => {
  const quantize = doReFaWeight({ bits });
  return (w) =>
    tf.tidy(() => w.abs().max().dataSync()[0]) === 0 ? w.mul(1) : quantize(w);
});

/** LLM-QAT with one scale per matrix, as EdgeQAT compares it, and all codes for probabilities. */
const llmQatMethod: Method = {
  weight: fixed(({ bits }) => llmQat({ bits, granularity: "tensor" })),
  activation: fixed(({ bits, signed }) =>
    llmQat({ bits, signed, granularity: SEQUENCE })
  ),
};

/**
 * The methods by name.
 *
 * | name | weights | activations |
 * | --- | --- | --- |
 * | rtn | min-max, round to nearest | the same, range of the whole sequence |
 * | lsq | LSQ | LSQ |
 * | edgeqat | LSQ | LSQ with a learned zero point: the released code |
 * | edgeqat-calibrated | LSQ from the step of least squared error | the same, zero point from 0: ours |
 * | pact | DoReFa | PACT, as released: negative numbers become 0 |
 * | pact-signed | min-max | PACT on both sides, calibrated: ours |
 * | nipq | NIPQ, released start | NIPQ, released start, negative numbers become 0 |
 * | nipq-calibrated | NIPQ from max of the weights | NIPQ from max|x|, signed: ours |
 * | llm-qat | min-max | min-max, range of the whole sequence |
 */
export const METHODS = {
  rtn,
  lsq: { weight: lsqScheme, activation: lsqScheme },
  edgeqat: { weight: lsqScheme, activation: actQ },
  "edgeqat-calibrated": { weight: lsqCalibrated, activation: actQCalibrated },
  pact: { weight: doReFa, activation: pactScheme },
  "pact-signed": { weight: llmQatMethod.weight, activation: pactSigned },
  nipq: {
    weight: nipqScheme(() => tf.scalar(NIPQ_START.weight), "both"),
    activation: nipqScheme(() => tf.scalar(NIPQ_START.activation), "released"),
  },
  "nipq-calibrated": {
    weight: nipqScheme(softplusInverse, "both"),
    activation: nipqScheme(softplusInverse, "both"),
  },
  "llm-qat": llmQatMethod,
} as const satisfies Record<string, Method>;

export type MethodName = keyof typeof METHODS;

/** The method of a name; throws a RangeError that lists the known ones. */
export function methodOf(name: string): Method {
  if (!Object.hasOwn(METHODS, name)) {
    throw new RangeError(
      `Cannot quantise as the method must be one of ${
        Object.keys(METHODS).join(", ")
      }: ${name}`,
    );
  }
  return METHODS[name as MethodName];
}
