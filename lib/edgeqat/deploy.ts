/**
 * A trained student on whole numbers: its learned steps as options of the inference engine (core/engine.ts).
 *
 * Weights become codes of their learned step, the inputs of q, k, v, gate, up and down are quantised with theirs,
 * and attention rounds queries, keys, values and probabilities to theirs, so that it computes what the student does.
 * What differs from it:
 *
 * - the input of o_proj, which the student leaves float, has 8 bits and a step for each token;
 * - a zero point of a layer's input beyond the codes is the nearest code;
 * - with `cache: { bits: 8 }` keys and values are rounded once more, to a scale of their token and head.
 *
 * Scope: methods that learn a step for weights and activations, "lsq", "edgeqat" and "edgeqat-calibrated"; tokens that
 * are ranked by softmax.
 */
import type {
  EngineOptions,
  EngineStep,
  EngineTokenBits,
} from "../core/engine.ts";
import { grid, roundHalfEven } from "../core/quantizer.ts";
import { importantTokens, resolveTokenBits } from "./importance.ts";
import { SOFTMAX_BITS, type Student } from "./student.ts";

/** The projection whose step holds for all that read a site. */
const READERS: [site: string, module: string][] = [
  ["self_attn.input", "self_attn.q_proj"],
  ["mlp.input", "mlp.gate_proj"],
  ["mlp.product", "mlp.down_proj"],
];

/** Sites of attention whose bits are those of the tokens. */
const ATTENDED = ["q", "k", "v"];

/** Bits of the input of o_proj, for which nothing was learned. */
const OUTPUT_BITS = 8;

/** A learned number of a site or a weight; without it the method has no fixed step to take along. */
function learnedOf(
  { steps }: Student,
  path: string,
  bits: number,
  name: string,
): number | undefined {
  return steps[path]?.[`b${bits}`]?.[name]?.dataSync()[0];
}

function stepAt(student: Student, path: string, bits: number): number {
  const alpha = learnedOf(student, path, bits, "alpha");
  if (alpha === undefined) {
    throw new RangeError(
      `Cannot run the student on integers as ${path} must have a learned step of ${bits} bits, as the methods lsq and edgeqat have: none`,
    );
  }
  return alpha;
}

/** A learned step of attention, whose zero point may be any whole number. */
function attentionStep(
  student: Student,
  path: string,
  bits: number,
): EngineStep {
  const zero = learnedOf(student, path, bits, "zeroPoint") ?? 0;
  return {
    scale: stepAt(student, path, bits),
    zeroPoint: roundHalfEven(zero),
    bits,
  };
}

/** Probabilities have one step for all tokens. */
function softmaxSteps(student: Student): Record<string, EngineStep> {
  const { numLayers } = student.config;
  return Object.fromEntries(
    Array.from({ length: numLayers }, (_, i) => {
      const path = `model.layers.${i}.self_attn.softmax`;
      return [path, attentionStep(student, path, SOFTMAX_BITS)];
    }),
  );
}

/** Steps of all sites but softmax at one width, by module. */
function stepsAt(student: Student, bits: number): Record<string, EngineStep> {
  const { numLayers } = student.config;
  return Object.fromEntries(
    Array.from({ length: numLayers }, (_, i) => {
      const layer = `model.layers.${i}`;
      const own = READERS.map(([site, module]): [string, EngineStep] => {
        const path = `${layer}.${site}`;
        const zero = learnedOf(student, path, bits, "zeroPoint") ?? 0;
        const { qmin, qmax } = grid({ bits });
        return [`${layer}.${module}`, {
          scale: stepAt(student, path, bits),
          zeroPoint: Math.min(qmax, Math.max(qmin, roundHalfEven(zero))),
        }];
      });
      const output: [string, EngineStep] = [
        `${layer}.self_attn.o_proj`,
        { bits: OUTPUT_BITS },
      ];
      const attended = ATTENDED.map((part): [string, EngineStep] => {
        const path = `${layer}.self_attn.${part}`;
        return [path, attentionStep(student, path, bits)];
      });
      return [...own, output, ...attended];
    }).flat(),
  );
}

/**
 * Options with which `createEngine(student.params, student.config, ...)` runs a trained student on integers.
 *
 * @throws {RangeError} if weights or activations have more than 8 bits, the method has no learned steps, or tokens are
 * ranked by another score than softmax
 */
export function engineOptions(student: Student): EngineOptions {
  const { weightBits, activationBits } = student.options;
  const mixed = typeof activationBits === "number"
    ? null
    : resolveTokenBits(activationBits);
  if (mixed !== null && mixed.score !== "softmax") {
    throw new RangeError(
      `Cannot run the student on integers as its tokens must be ranked by the score softmax, which the engine computes: ${mixed.score}`,
    );
  }
  const low = mixed?.low ?? activationBits as number;
  for (const bits of [weightBits, low]) {
    if (bits <= 8) continue;
    throw new RangeError(
      `Cannot run the student on integers as weights and activations must have 2 to 8 bits: ${weightBits} and ${low}`,
    );
  }
  const bits: number | EngineTokenBits = mixed === null ? low : {
    low,
    high: mixed.high,
    important: (scores) =>
      importantTokens(scores, mixed.importantRatio, mixed.ranking),
    steps: stepsAt(student, mixed.high),
  };
  const { qmin, qmax } = grid({ bits: weightBits });
  return {
    weights: {
      bits: weightBits,
      quantize(weight, module) {
        const alpha = stepAt(student, module, weightBits);
        const codes = Int8Array.from(
          weight.dataSync(),
          // As the quantizer: clamp(w / alpha), then round half to even, in float32.
          (w) =>
            roundHalfEven(
              Math.min(qmax, Math.max(qmin, Math.fround(w / alpha))),
            ),
        );
        return { codes, scale: [alpha] };
      },
    },
    activations: {
      bits,
      steps: { ...stepsAt(student, low), ...softmaxSteps(student) },
    },
  };
}
