/**
 * A trained student on whole numbers: its learned steps as options of the inference engine (core/engine.ts).
 *
 * Weights become codes of their learned step, and the inputs of q, k, v, gate, up and down are quantised with
 * theirs, so that these products are those of the student. What differs from it:
 *
 * - queries, keys, values and softmax stay float32, as the engine's attention does; `cache: { bits: 8 }` keeps
 *   keys and values in 8 bits;
 * - the input of o_proj, which the student leaves float, has 8 bits and a step for each token;
 * - a zero point beyond the codes is the nearest code.
 *
 * Scope: methods that learn a step for weights and activations, "lsq" and "edgeqat".
 */
import type {
  EngineOptions,
  EngineStep,
  EngineTokenBits,
} from "../core/engine.ts";
import { grid, roundHalfEven } from "../core/quantizer.ts";
import { importantTokens, resolveTokenBits } from "./importance.ts";
import type { Student } from "./student.ts";

/** The projection whose step holds for all that read a site. */
const READERS: [site: string, module: string][] = [
  ["self_attn.input", "self_attn.q_proj"],
  ["mlp.input", "mlp.gate_proj"],
  ["mlp.product", "mlp.down_proj"],
];

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

/** Steps of all sites at one width, by module. */
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
      return [...own, output];
    }).flat(),
  );
}

/**
 * Options with which `createEngine(student.params, student.config, ...)` runs a trained student on integers.
 *
 * @throws {RangeError} if weights or activations have more than 8 bits, or the method has no learned steps
 */
export function engineOptions(student: Student): EngineOptions {
  const { weightBits, activationBits } = student.options;
  const mixed = typeof activationBits === "number"
    ? null
    : resolveTokenBits(activationBits);
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
    activations: { bits, steps: stepsAt(student, low) },
  };
}
