/**
 * Adapters to and from the folders of PEFT (Hugging Face), so that one trained here opens there and back.
 *
 * RoRA's factor is PEFT's `use_rslora`: alpha / sqrt(r).
 */
import { flatten, type ParamTree, tf } from "../core/tensor.ts";
import { loadPeft, savePeft } from "../core/formats/peft.ts";
import { type AdapterSet, createAdapters, linearModules } from "./adapter.ts";

/**
 * Writes adapters as a PEFT folder.
 *
 * @param baseModel Name or path of the model that they belong to, as PEFT looks it up
 */
export function saveAdapters(
  folder: string,
  { config, modules }: AdapterSet,
  { baseModel = null }: { baseModel?: string | null } = {},
): void {
  const stored = (tensor: tf.Tensor) => ({
    shape: tensor.shape,
    data: tensor.dataSync() as Float32Array,
  });
  savePeft(folder, {
    config: {
      rank: config.rank,
      alpha: config.alpha,
      rslora: config.scaling === "rora",
      dora: config.decompose === "dora",
      targetModules: config.targets,
      rankPattern: config.rankPattern,
      alphaPattern: config.alphaPattern,
      dropout: config.dropout,
      baseModel,
    },
    modules: new Map(
      Object.entries(modules).map(([name, { loraA, loraB, magnitude }]) => [
        name,
        {
          loraA: stored(loraA),
          loraB: stored(loraB),
          magnitude: magnitude === null ? null : stored(magnitude),
        },
      ]),
    ),
  });
}

/**
 * Reads a PEFT folder as adapters of a model.
 *
 * @param params The model; every module of the adapter must be a linear layer of it, of fitting shape
 * @throws RangeError that lists all modules that do not fit
 */
export function loadAdapters(folder: string, params: ParamTree): AdapterSet {
  const { config, modules } = loadPeft(folder);
  const weights = flatten(params);
  const available = linearModules(params);
  const faults: string[] = [];
  for (const [name, { loraA, loraB }] of modules) {
    const weight = weights[`${name}.weight`];
    const [out, width] = [loraB.shape[0], loraA.shape[1]];
    if (!available.includes(name)) {
      faults.push(`${name} is missing`);
    } else if (weight.shape[0] !== out || weight.shape[1] !== width) {
      faults.push(
        `${name} is [${weight.shape.join(", ")}], not [${out}, ${width}]`,
      );
    }
  }
  if (faults.length > 0) {
    throw new RangeError(
      `Cannot load the adapter ${folder} as the model must have its modules: ${
        faults.join("; ")
      }`,
    );
  }
  return createAdapters(
    params,
    {
      rank: config.rank,
      alpha: config.alpha,
      scaling: config.rslora ? "rora" : "lora",
      decompose: config.dora ? "dora" : "none",
      targets: available.filter((name) => modules.has(name)),
      rankPattern: config.rankPattern,
      alphaPattern: config.alphaPattern,
      dropout: config.dropout,
    },
    (name, _weight, rank) => {
      const { loraA, loraB, magnitude } = modules.get(name)!;
      if (loraA.shape[0] !== rank) {
        throw new RangeError(
          `Cannot load the adapter ${folder} as r or rank_pattern must give the rank of ${name}: ` +
            `rank ${rank}, lora_A [${loraA.shape.join(", ")}]`,
        );
      }
      return {
        loraA: tf.tensor(loraA.data, loraA.shape),
        loraB: tf.tensor(loraB.data, loraB.shape),
        magnitude: magnitude && tf.tensor1d(magnitude.data),
      };
    },
  );
}
