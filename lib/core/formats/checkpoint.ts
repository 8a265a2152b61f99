/**
 * Any trained parameters in a safetensors file: a tree of tensors goes out by dotted names and comes back into a
 * tree of the same names and shapes, such as a ViT's or a quantised student's.
 *
 * Scope: float32 and int32; what a tree means is its maker's.
 */
import { flatten, type ParamTree, type Tensor, tf } from "../tensor.ts";
import {
  openSafetensors,
  saveSafetensors,
  type StoredTensor,
} from "./safetensors.ts";

function stored(t: Tensor): StoredTensor {
  const { shape } = t;
  return t.dtype === "int32"
    ? { dtype: "I32", shape, data: t.dataSync() as Int32Array }
    : { dtype: "F32", shape, data: t.dataSync() as Float32Array };
}

/**
 * Writes a tree of tensors; the file appears complete or not at all.
 *
 * @example
 * ```ts
 * saveCheckpoint("vit.safetensors", model.params);
 * saveCheckpoint("student.safetensors", trainableOf(student));
 * ```
 */
export function saveCheckpoint(
  path: string,
  tree: ParamTree,
  metadata: Record<string, string> = {},
): void {
  const tensors = Object.entries(flatten(tree))
    .map(([name, t]) => [name, stored(t)]);
  saveSafetensors(path, Object.fromEntries(tensors), metadata);
}

/**
 * Reads a file of `saveCheckpoint` into a tree of variables, made anew as it was when it was written. Nothing is
 * changed unless all of it fits.
 *
 * @returns The metadata of the file.
 * @throws {RangeError} If names or shapes differ; the message has the first that does.
 */
export function loadCheckpoint(
  path: string,
  tree: ParamTree,
): Record<string, string> {
  const file = openSafetensors(path);
  try {
    const own = flatten(tree);
    for (
      const name of new Set([...Object.keys(own), ...Object.keys(file.entries)])
    ) {
      const [wanted, given] = [own[name]?.shape, file.entries[name]?.shape];
      if (wanted !== undefined && `${wanted}` === `${given}`) continue;
      throw new RangeError(
        `Cannot load the checkpoint as its tensors must be those of the model: ${name} is [${
          given ?? "absent"
        }] in ${path}, [${wanted ?? "absent"}] in the model`,
      );
    }
    for (const [name, t] of Object.entries(own)) {
      const { data, shape } = file.read(name);
      tf.tidy(() =>
        (t as tf.Variable).assign(
          tf.tensor(data as Float32Array, shape, t.dtype),
        )
      );
    }
    return file.metadata;
  } finally {
    file.close();
  }
}
