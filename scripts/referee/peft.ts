/**
 * Adapters made here, read and computed by PyTorch.
 *
 * Trains a few steps with each kind of adapter, saves it in the PEFT format beside what it computes, and
 * lets peft_torch.py, which shares no code with us, read and compute the same.
 *
 *   node --import tsx scripts/referee/peft.ts
 */
import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { saveSafetensors } from "../../lib/core/formats/safetensors.ts";
import { linear } from "../../lib/core/nn.ts";
import { adamW } from "../../lib/core/optim.ts";
import { fold, key, normal } from "../../lib/core/rng.ts";
import {
  flatten,
  ready,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
} from "../../lib/core/tensor.ts";
import {
  adapterModules,
  initAdapters,
  mergeAdapters,
  saveAdapters,
} from "../../lib/rora/mod.ts";

const REFEREE = fileURLToPath(new URL("peft_torch.py", import.meta.url));
const Q_PROJ = "model.layers.0.self_attn.q_proj";
const DOWN_PROJ = "model.layers.0.mlp.down_proj";
const KINDS = [
  { scaling: "lora", decompose: "none" },
  { scaling: "rora", decompose: "none" },
  { scaling: "lora", decompose: "dora" },
  { scaling: "rora", decompose: "dora" },
] as const;

const draw = (name: string, rows: number, columns: number) =>
  tf.tensor2d(
    normal(fold(key(31), name), rows * columns, 0, 0.3),
    [rows, columns],
  );

const stored = (tensors: Record<string, Tensor>) =>
  Object.fromEntries(
    Object.entries(tensors).map(([name, tensor]) => [name, {
      dtype: "F32" as const,
      shape: tensor.shape,
      data: tensor.dataSync() as Float32Array,
    }]),
  );

/** Trains one kind of adapter and writes what the referee needs into a folder. */
function write(folder: string, kind: typeof KINDS[number]): void {
  const [q, down] = [draw("q", 24, 16), draw("down", 16, 24)];
  const [x, cotangent] = [draw("x", 6, 16), draw("cotangent", 6, 16)];
  const params = {
    model: {
      layers: [{
        self_attn: { q_proj: { weight: q } },
        mlp: { down_proj: { weight: down } },
      }],
    },
  };
  const adapters = initAdapters(params, {
    ...kind,
    rank: 6,
    alpha: 9,
    targets: ["q_proj", "down_proj"],
    rankPattern: { q_proj: 3 },
    alphaPattern: { down_proj: 2 },
  }, key(1));
  const modules = adapterModules(adapters);
  const output = () => {
    const h = linear(x, q, { adapter: modules[Q_PROJ] });
    return linear(h, down, { adapter: modules[DOWN_PROJ] });
  };
  const loss = () => tf.sum(tf.mul(output(), cotangent)) as Scalar;
  const optimizer = adamW({ learningRate: 0.03 });
  for (let step = 0; step < 20; step++) {
    optimizer.step(
      adapters.params,
      valueAndGrads(loss, adapters.params).grads,
    );
  }
  const { value, grads } = valueAndGrads(loss, adapters.params);
  const merged = flatten(mergeAdapters(params, adapters).params);
  const expected: Record<string, Tensor> = {
    y: output(),
    loss: tf.reshape(value, [1]),
  };
  for (const [name, grad] of Object.entries(grads)) {
    expected[`grad.${name}`] = grad;
  }
  for (const name of [Q_PROJ, DOWN_PROJ]) {
    expected[`merged.${name}.weight`] = merged[`${name}.weight`];
  }
  saveAdapters(path.join(folder, "adapter"), adapters);
  saveSafetensors(
    path.join(folder, "base.safetensors"),
    stored({
      [`${Q_PROJ}.weight`]: q,
      [`${DOWN_PROJ}.weight`]: down,
      x,
      cotangent,
    }),
  );
  saveSafetensors(path.join(folder, "expected.safetensors"), stored(expected));
}

async function main(): Promise<void> {
  await ready();
  const python = process.env.PYTHON ?? "python3";
  for (const kind of KINDS) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "peft-referee-"));
    try {
      tf.tidy(() => write(folder, kind));
      console.log(`${kind.scaling}, ${kind.decompose}`);
      execFileSync(python, [REFEREE, "check", folder], { stdio: "inherit" });
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  }
}

await main();
