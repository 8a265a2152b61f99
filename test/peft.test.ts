import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  flatten,
  ready,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
} from "../lib/core/tensor.ts";
import { linear } from "../lib/core/nn.ts";
import { key } from "../lib/core/rng.ts";
import {
  readSafetensors,
  saveSafetensors,
} from "../lib/core/formats/safetensors.ts";
import {
  loadPeft,
  parsePeftConfig,
  peftConfigJson,
  savePeft,
} from "../lib/core/formats/peft.ts";
import {
  adapterModules,
  type AdapterSet,
  disposeAdapters,
  initAdapters,
  loadAdapters,
  mergeAdapters,
  saveAdapters,
} from "../lib/rora/mod.ts";

// Golden files: `python3 scripts/referee/peft_torch.py golden test/golden/peft` (PyTorch 1.13.1,
// computed in float64, stored in float32).
const GOLDEN = fileURLToPath(new URL("golden/peft/", import.meta.url));
const KINDS = ["lora", "rslora", "dora", "dora-rslora"];
/** Relative to the largest entry: products of up to 12 float32 terms, twice. */
const TOLERANCE = 2e-6;

const Q_PROJ = "model.layers.0.self_attn.q_proj";
const DOWN_PROJ = "model.layers.0.mlp.down_proj";

const read = (...names: string[]) =>
  readSafetensors(
    new Uint8Array(fs.readFileSync(path.join(GOLDEN, ...names))),
  ) as Record<string, { shape: number[]; data: Float32Array }>;

function golden() {
  const stored = read("base.safetensors");
  const tensor = (name: string) =>
    tf.tensor(stored[name].data, stored[name].shape);
  const weight = (name: string) => ({
    weight: tf.variable(tensor(`${name}.weight`)),
  });
  return {
    params: {
      model: {
        layers: [{
          self_attn: { q_proj: weight(Q_PROJ) },
          mlp: { down_proj: weight(DOWN_PROJ) },
        }],
      },
    },
    x: tensor("x"),
    cotangent: tensor("cotangent"),
  };
}

function near(
  actual: Tensor,
  expected: ArrayLike<number>,
  tolerance: number,
  what: string,
) {
  const values = actual.dataSync();
  assert.is(values.length, expected.length, what);
  const size = Math.max(...Array.from(expected, Math.abs));
  const error = Math.max(...values.map((v, i) => Math.abs(v - expected[i])));
  assert.ok(error <= tolerance * size, `${what}: ${error} of ${size}`);
}

/** Calls `use` with the path of a new folder and removes it afterwards. */
function inFolder(use: (folder: string) => void) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "peft-"));
  try {
    use(folder);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

function output(
  { params, x }: ReturnType<typeof golden>,
  adapters?: AdapterSet,
): Tensor {
  const modules = adapters === undefined ? {} : adapterModules(adapters);
  const layer = params.model.layers[0];
  const h = linear(x, layer.self_attn.q_proj.weight, {
    adapter: modules[Q_PROJ],
  });
  return linear(h, layer.mlp.down_proj.weight, { adapter: modules[DOWN_PROJ] });
}

test.before(async () => {
  await ready();
});

for (const kind of KINDS) {
  test(`${kind}: output, gradients and merged weights are PyTorch's`, () => {
    const base = golden();
    const adapters = loadAdapters(path.join(GOLDEN, kind), base.params);
    const expected = read(kind, "expected.safetensors");
    near(output(base, adapters), expected.y.data, TOLERANCE, "y");

    const { value, grads } = valueAndGrads(
      () => tf.sum(tf.mul(output(base, adapters), base.cotangent)) as Scalar,
      adapters.params,
    );
    near(value, expected.loss.data, TOLERANCE * 10, "loss");
    const names = Object.keys(expected).filter((n) => n.startsWith("grad."));
    assert.equal(
      names.map((n) => n.slice(5)).sort(),
      Object.keys(grads).sort(),
    );
    for (const name of names) {
      near(grads[name.slice(5)], expected[name].data, TOLERANCE * 2, name);
    }

    const merged = flatten(mergeAdapters(base.params, adapters).params);
    for (const name of [Q_PROJ, DOWN_PROJ]) {
      near(
        merged[`${name}.weight`],
        expected[`merged.${name}.weight`].data,
        TOLERANCE,
        name,
      );
    }
  });

  test(`${kind}: saved again, the adapter and its options are the same`, () => {
    inFolder((folder) => {
      const { params } = golden();
      const loaded = loadPeft(path.join(GOLDEN, kind));
      savePeft(folder, loaded);
      assert.equal(loadPeft(folder), loaded);
      // Also the file itself, option by option, against the one that the referee wrote.
      const json = (where: string) =>
        JSON.parse(
          fs.readFileSync(path.join(where, "adapter_config.json"), "utf8"),
        );
      assert.equal(json(folder), json(path.join(GOLDEN, kind)));
      const names = (where: string) =>
        Object.keys(
          readSafetensors(
            new Uint8Array(
              fs.readFileSync(path.join(where, "adapter_model.safetensors")),
            ),
          ),
        ).sort();
      assert.equal(names(folder), names(path.join(GOLDEN, kind)));

      const adapters = loadAdapters(path.join(GOLDEN, kind), params);
      saveAdapters(folder, adapters, { baseModel: "base" });
      const again = loadAdapters(folder, params);
      assert.equal(again.config, adapters.config);
      for (const [name, tensor] of Object.entries(flatten(adapters.params))) {
        assert.equal(flatten(again.params)[name].dataSync(), tensor.dataSync());
      }
    });
  });
}

test("the wrong factor is noticed: rsLoRA's file read as LoRA's differs", () => {
  inFolder((folder) => {
    const base = golden();
    const loaded = loadPeft(path.join(GOLDEN, "rslora"));
    loaded.config.rslora = false;
    savePeft(folder, loaded);
    const y = output(base, loadAdapters(folder, base.params)).dataSync();
    const expected = read("rslora", "expected.safetensors").y.data;
    const error = Math.max(...y.map((v, i) => Math.abs(v - expected[i])));
    assert.ok(error > 1, `largest difference ${error}`);
  });
});

test("lora_magnitude_vector.weight, the name in memory, is read too", () => {
  inFolder((folder) => {
    const { params } = golden();
    const stored = read("dora", "adapter_model.safetensors");
    saveSafetensors(
      path.join(folder, "adapter_model.safetensors"),
      Object.fromEntries(
        Object.entries(stored).map(([name, { shape, data }]) => [
          name.replace(/_vector$/, "_vector.weight"),
          { shape, data, dtype: "F32" },
        ]),
      ),
    );
    fs.copyFileSync(
      path.join(GOLDEN, "dora", "adapter_config.json"),
      path.join(folder, "adapter_config.json"),
    );
    const [ours, theirs] = [folder, path.join(GOLDEN, "dora")].map((where) =>
      flatten(loadAdapters(where, params).params)
    );
    for (const name of Object.keys(theirs)) {
      assert.equal(ours[name].dataSync(), theirs[name].dataSync());
    }
  });
});

const PLAIN = peftConfigJson({
  rank: 4,
  alpha: 8,
  rslora: true,
  dora: false,
  targetModules: ["q_proj"],
  rankPattern: {},
  alphaPattern: {},
  dropout: 0,
  baseModel: null,
});

test("options that change the meaning of the tensors are refused by name", () => {
  const refused: [Record<string, unknown>, RegExp][] = [
    [{ peft_type: "IA3" }, /peft_type must be LORA: peft_type "IA3"$/],
    [{ bias: "all" }, /the option bias .* bias "all"$/],
    [{ fan_in_fan_out: true }, /the option fan_in_fan_out .* true$/],
    [{ modules_to_save: ["lm_head"] }, /modules_to_save \["lm_head"\]$/],
    [{ init_lora_weights: "pissa" }, /init_lora_weights "pissa"$/],
    [{ layer_replication: [[0, 2], [1, 3]] }, /layer_replication/],
    [{ some_later_option: 3 }, /the option some_later_option .* 3$/],
    [{ r: 0 }, /r must be a positive integer: r 0$/],
    [{ r: "8" }, /r must be a positive integer: r "8"$/],
    [{ lora_alpha: -1 }, /lora_alpha must be a number above 0: lora_alpha -1$/],
    [{ use_rslora: "yes" }, /use_rslora must be true or false/],
    [{ rank_pattern: { q_proj: "4" } }, /rank_pattern must map/],
    [{ target_modules: 7 }, /target_modules must be/],
  ];
  for (const [change, message] of refused) {
    assert.throws(() => parsePeftConfig({ ...PLAIN, ...change }), message);
  }
  assert.throws(() => parsePeftConfig([1]), /must hold an object: \[1\]$/);
  // Off, or without influence on the tensors.
  const accepted = {
    some_later_option: null,
    lora_bias: false,
    trainable_token_indices: null,
    init_lora_weights: "gaussian",
    peft_version: "0.17.0",
  };
  assert.is(parsePeftConfig({ ...PLAIN, ...accepted }).rank, 4);
});

test("a folder that is no adapter says what is missing", () => {
  inFolder((folder) => {
    assert.throws(
      () => loadPeft(folder),
      /^Cannot read the adapter as the folder must hold adapter_config\.json: /,
    );
    fs.writeFileSync(path.join(folder, "adapter_config.json"), "{");
    assert.throws(() => loadPeft(folder), /adapter_config\.json must be JSON/);
    fs.writeFileSync(
      path.join(folder, "adapter_config.json"),
      JSON.stringify(PLAIN),
    );
    assert.throws(
      () => loadPeft(folder),
      /the folder must hold adapter_model\.safetensors: /,
    );
    const vector = {
      dtype: "F32" as const,
      shape: [2],
      data: new Float32Array(2),
    };
    const matrix = {
      dtype: "F32" as const,
      shape: [2, 2],
      data: new Float32Array(4),
    };
    const weights = path.join(folder, "adapter_model.safetensors");
    saveSafetensors(weights, { "model.q_proj.lora_A.weight": vector });
    assert.throws(() => loadPeft(folder), /: model\.q_proj\.lora_A\.weight$/);
    saveSafetensors(weights, {
      "base_model.model.a.lora_A.weight": matrix,
      "base_model.model.b.lora_A.weight": matrix,
      "base_model.model.b.lora_B.weight": vector,
    });
    assert.throws(
      () => loadPeft(folder),
      /a lacks lora_B; b has lora_A \[2, 2\], lora_B \[2\]$/,
    );
  });
});

test("all modules that do not fit the model are listed", () => {
  inFolder((folder) => {
    const { params } = golden();
    const adapters = initAdapters(
      params,
      { rank: 2, targets: "all-linear" },
      key(1),
    );
    saveAdapters(folder, adapters);
    disposeAdapters(adapters);
    const other = {
      model: {
        layers: [{ self_attn: { q_proj: { weight: tf.zeros([6, 8]) } } }],
      },
    };
    assert.throws(
      () => loadAdapters(folder, other),
      (error: Error) =>
        error.message.startsWith("Cannot load the adapter") &&
        error.message.includes(`${Q_PROJ} is [6, 8], not [12, 8]`) &&
        error.message.includes(`${DOWN_PROJ} is missing`),
    );
  });
});

test("a rank that the options do not announce is noticed, and nothing leaks", () => {
  inFolder((folder) => {
    const { params } = golden();
    const loaded = loadPeft(path.join(GOLDEN, "lora"));
    loaded.config.rankPattern = {};
    savePeft(folder, loaded);
    const before = tf.memory().numTensors;
    assert.throws(
      () => loadAdapters(folder, params),
      /rank of model\.layers\.0\.mlp\.down_proj: rank 3, lora_A \[2, 12\]$/,
    );
    assert.is(tf.memory().numTensors, before);
  });
});

test.run();
