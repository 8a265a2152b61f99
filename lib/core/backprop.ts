/**
 * Gradients with respect to variables, with memory that falls while they are computed.
 *
 * `tf.variableGrads` keeps every tensor that the forward pass saved, and the gradient of every
 * intermediate result, until the last gradient is known; a training step then peaks at twice the
 * activations. Here the tape of tfjs (4.22) is walked by the same rules and in the same order, so
 * the numbers are the same, but what an operation saved, and the gradient of its output, are freed
 * as soon as its inputs have theirs.
 */
import type { Scalar, Tensor, tf as Tf, Variable } from "./tensor.ts";

type TapeNode = ReturnType<typeof Tf.engine>["state"]["activeTape"][number];

function free(nodes: TapeNode[]): void {
  for (const node of nodes) for (const x of node.saved ?? []) x.dispose();
}

/**
 * The nodes between `variables` and `y`, last first, each with only those inputs that depend on a
 * variable. What the other nodes saved is freed.
 */
function pathBack(
  tape: TapeNode[],
  variables: Variable[],
  y: Tensor,
): TapeNode[] {
  const dependent = new Set(variables.map((x) => x.id));
  const pruned = tape.map((node) => {
    const inputs = Object.fromEntries(
      Object.entries(node.inputs).filter(([, x]) => dependent.has(x.id)),
    );
    if (Object.keys(inputs).length > 0) {
      for (const out of node.outputs) dependent.add(out.id);
    }
    return { ...node, inputs };
  });
  const leading = new Set([y.id]);
  return pruned.reverse().filter((node) => {
    const inputs = Object.values(node.inputs);
    const on = inputs.length > 0 &&
      node.outputs.some((out) => leading.has(out.id));
    if (on) { for (const x of inputs) leading.add(x.id); }
    else free([node]);
    return on;
  });
}

/** Adds to `gradients`, by tensor id, those of the inputs of `node`, and takes those of its outputs out. */
function propagate(
  tf: typeof Tf,
  node: TapeNode,
  gradients: Map<number, Tensor>,
): void {
  const dys = node.outputs.map(({ id }) => gradients.get(id)!); // undefined means zero
  for (const { id } of node.outputs) gradients.delete(id);
  tf.tidy(() => {
    if (node.gradient === undefined) {
      throw new Error(
        `Cannot compute gradient: gradient function not found for ${node.kernelName}.`,
      );
    }
    const functions = node.gradient(dys);
    return Object.entries(node.inputs).map(([name, x]) => {
      const gradient = tf.tidy(() => {
        const dx = functions[name]?.();
        if (
          dx?.dtype !== "float32" || !tf.util.arraysEqual(dx.shape, x.shape)
        ) {
          throw new TypeError(
            `Cannot backprop through input ${name} of ${node.kernelName} as its gradient must be float32 [${x.shape}]: ${
              dx === undefined ? "none" : `${dx.dtype} [${dx.shape}]`
            }`,
          );
        }
        const sum = gradients.get(x.id);
        // A handle of our own, without a copy: the function may have returned dy itself, what the
        // node saved, or one tensor for two inputs, and those are disposed apart from each other.
        return sum === undefined ? tf.reshape(dx, dx.shape) : tf.add(sum, dx);
      });
      gradients.get(x.id)?.dispose();
      gradients.set(x.id, gradient);
      return gradient;
    });
  });
  for (const dy of dys) dy?.dispose();
  free([node]);
}

/** As `tf.variableGrads(loss, variables)`: the value of `loss` and its gradients by variable name. */
export function variableGrads(
  tf: typeof Tf,
  loss: () => Scalar,
  variables: Variable[],
): { value: Scalar; grads: Record<string, Tensor> } {
  const { state } = tf.engine();
  // Gradients of gradients need the whole tape; and no variables are an error of tfjs.
  if (state.gradientDepth > 0 || variables.length === 0) {
    return tf.variableGrads(loss, variables);
  }
  const tape: TapeNode[] = state.activeTape = [];
  const record = () => {
    state.gradientDepth++;
    try {
      return tf.tidy("forward", loss);
    } finally {
      state.gradientDepth--;
    }
  };
  try {
    return tf.tidy(() => {
      const value = record();
      if (!(value instanceof tf.Tensor)) {
        throw new Error("The result y returned by f() must be a tensor.");
      }
      const path = pathBack(tape, variables, value);
      const gradients = new Map<number, Tensor>([
        [value.id, tf.ones(value.shape)],
      ]);
      for (const node of path) propagate(tf, node, gradients);
      const grads: Record<string, Tensor> = {};
      for (const { id, name } of variables) {
        const gradient = gradients.get(id);
        if (gradient !== undefined) grads[name] = gradient;
      }
      if (Object.keys(grads).length === 0) {
        throw new Error(
          "Cannot find a connection between any variable and the result of the loss function y=f(x). Please make sure the operations that use variables are inside the function f passed to minimize().",
        );
      }
      if (value.rank !== 0) {
        throw new Error(
          `The f passed in variableGrads(f) must return a scalar, but it returned a rank-${value.rank} tensor`,
        );
      }
      return { value, grads };
    });
  } finally {
    free(tape);
    state.activeTape = [];
  }
}
