/** Whether the parameters at hand are those of a model's shape: what every way to quantise or export one needs first. */
import {
  type LlamaConfig,
  type LlamaParams,
  parameterShapes,
} from "./llama.ts";
import { flatten, type ParamTree } from "./tensor.ts";

/**
 * Throws unless every parameter of the shape is there as the shape says, and every number is finite.
 *
 * @param what "quantise": what cannot be done, for the message
 * @throws {TypeError} If a parameter is missing, has another shape, or is none of the model's.
 * @throws {RangeError} If a number is NaN or infinite.
 */
export function checkParameters(
  params: LlamaParams,
  config: LlamaConfig,
  what: string,
): void {
  const named = flatten(params as unknown as ParamTree);
  const shapes = parameterShapes(config);
  for (const [name, shape] of Object.entries(shapes)) {
    const found = named[name];
    if (found === undefined || `${found.shape}` !== `${shape}`) {
      throw new TypeError(
        `Cannot ${what} as ${name} must be [${shape}]: ${
          found === undefined ? "missing" : `[${found.shape}]`
        }`,
      );
    }
    const values = found.dataSync();
    for (let i = 0; i < values.length; i++) {
      if (!Number.isFinite(values[i])) {
        throw new RangeError(
          `Cannot ${what} as every number of ${name} must be finite: ${
            values[i]
          } at ${i}`,
        );
      }
    }
  }
  const other = Object.keys(named).find((name) => !(name in shapes));
  if (other !== undefined) {
    throw new TypeError(
      `Cannot ${what} as the model must have no parameters but those of its shape: ${other}`,
    );
  }
}
