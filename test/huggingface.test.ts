import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  flatten,
  ready,
  type Tensor,
  tf,
  valueAndGrads,
} from "../lib/core/tensor.ts";
import {
  type Checkpoint,
  loadHuggingFace,
  readLlamaConfig,
  saveHuggingFace,
} from "../lib/core/formats/huggingface.ts";
import {
  fromBF16,
  readSafetensors,
  saveSafetensors,
  type StoredTensor,
  toBF16,
} from "../lib/core/formats/safetensors.ts";
import { forward, generate, initLlama, loss } from "../lib/core/llama.ts";
import { key } from "../lib/core/rng.ts";
import { trainBpe } from "../lib/core/tokenizer.ts";

// Made by scripts/referee/llama_torch.py; the commands are in fixtures/README.md.
const FIXTURES = fileURLToPath(new URL("fixtures/", import.meta.url));
const FOLDERS = ["llama-gqa", "llama-tied"];

/** Logits of size 1 to 4 through some 30 float32 sums, against double precision. */
const LOGIT_TOLERANCE = 2e-5;
/** Relative error of each gradient's norm, for the same reason. */
const GRADIENT_TOLERANCE = 1e-5;

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "adiabat-huggingface-"));
test.before(async () => {
  await ready();
});
test.after(() => fs.rmSync(scratch, { recursive: true }));

/** What the referee computed. */
function expectedOf(folder: string) {
  const stored = readSafetensors(
    fs.readFileSync(path.join(FIXTURES, folder, "expected.safetensors")),
  );
  const { data, shape } = stored.ids;
  const ids = tf.tensor2d(
    data as Int32Array,
    shape as [number, number],
    "int32",
  );
  return { stored, ids };
}

function numbers(t: Tensor | StoredTensor): number[] {
  return Array.from(t instanceof tf.Tensor ? t.dataSync() : t.data, Number);
}

function largestDifference(a: number[], b: number[]): number {
  assert.is(a.length, b.length);
  return a.reduce((d, x, i) => Math.max(d, Math.abs(x - b[i])), 0);
}

function logitsOf({ params, config }: Checkpoint, ids: Tensor): number[] {
  return tf.tidy(() => numbers(forward(params, config, ids)));
}

/** A copy of a fixture, to be damaged. */
function copyOf(folder: string): string {
  const copy = fs.mkdtempSync(path.join(scratch, "copy-"));
  fs.cpSync(path.join(FIXTURES, folder), copy, { recursive: true });
  return copy;
}

/** Rewrites a JSON file of a folder. */
function edit(
  folder: string,
  name: string,
  change: (json: Record<string, unknown>) => void,
): void {
  const file = path.join(folder, name);
  const json = JSON.parse(fs.readFileSync(file, "utf8"));
  change(json);
  fs.writeFileSync(file, JSON.stringify(json));
}

/** Rewrites the tensors of a safetensors file. */
function editTensors(
  folder: string,
  name: string,
  change: (tensors: Record<string, StoredTensor>) => void,
): void {
  const file = path.join(folder, name);
  const tensors = { ...readSafetensors(fs.readFileSync(file)) };
  change(tensors);
  saveSafetensors(file, tensors);
}

for (const folder of FOLDERS) {
  test(`${folder}: logits, loss and gradients are PyTorch's`, () => {
    const { stored, ids } = expectedOf(folder);
    const { params, config } = loadHuggingFace(path.join(FIXTURES, folder));
    const logits = tf.tidy(() => numbers(forward(params, config, ids)));
    const difference = largestDifference(logits, numbers(stored.logits));
    assert.ok(difference < LOGIT_TOLERANCE, `logits differ by ${difference}`);

    const { value, grads } = valueAndGrads(
      () => loss(params, config, ids),
      params,
    );
    assert.ok(
      Math.abs(numbers(value)[0] - numbers(stored.loss)[0]) < LOGIT_TOLERANCE,
    );
    for (const [name, grad] of Object.entries(grads)) {
      const expected = numbers(stored[`gradient.${name}`]);
      const error = Math.hypot(...numbers(grad).map((g, i) => g - expected[i]));
      const norm = Math.hypot(...expected);
      assert.ok(norm > 1e-4, `${name}: gradient ${norm}`);
      assert.ok(error < GRADIENT_TOLERANCE * norm, `${name}: ${error / norm}`);
    }
    tf.dispose([params, grads, value, ids]);
  });
}

test("the comparison notices each part: a changed option changes the logits", () => {
  const { stored, ids } = expectedOf("llama-tied");
  const { params, config } = loadHuggingFace(path.join(FIXTURES, "llama-tied"));
  const scaling = config.ropeScaling!;
  assert.is(scaling.type, "llama3");
  for (
    const change of [
      { ropeTheta: 999 },
      { ropeScaling: undefined },
      { ropeScaling: { type: "linear" as const, factor: 4 } },
      { ropeScaling: { ...scaling, lowFreqFactor: 1.1 } as typeof scaling },
      { ropeScaling: { ...scaling, highFreqFactor: 7 } as typeof scaling },
      { rmsNormEps: 1e-3 },
    ]
  ) {
    const logits = tf.tidy(() =>
      numbers(forward(params, { ...config, ...change }, ids))
    );
    const difference = largestDifference(logits, numbers(stored.logits));
    assert.ok(
      difference > 5 * LOGIT_TOLERANCE,
      `${JSON.stringify(change)}: ${difference}`,
    );
  }
  tf.dispose([params, ids]);
});

test("reads configuration, tokenizer and the ids that end a text", () => {
  const gqa = loadHuggingFace(path.join(FIXTURES, "llama-gqa"));
  assert.equal(gqa.config, {
    vocabSize: 260,
    hiddenSize: 16,
    intermediateSize: 24,
    numLayers: 2,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 4,
    ropeTheta: 500000,
    rmsNormEps: 1e-5,
    tieWordEmbeddings: false,
    maxPositions: 64,
    attentionBias: false,
    mlpBias: false,
  });
  assert.is(gqa.bosTokenId, 0);
  assert.equal(gqa.eosTokenIds, [1]);
  // Two special tokens, then bytes in GPT-2's order, then the merges "he" and " he".
  assert.equal(Array.from(gqa.tokenizer.encode("the hen")), [85, 258, 259, 79]);
  const text = gqa.tokenizer.decode(
    generate(gqa.params, gqa.config, gqa.tokenizer.encode("the"), {
      stop: gqa.eosTokenIds,
      maxTokens: 5,
    }),
  );
  assert.type(text, "string");
  const tied = loadHuggingFace(path.join(FIXTURES, "llama-tied"));
  assert.equal(tied.eosTokenIds, [1, 2]);
  assert.is(tied.config.headDim, 8);
  assert.not("lm_head" in tied.params);
  tf.dispose([gqa.params, tied.params]);
});

test("generation_config.json says which ids end a text", () => {
  const folder = copyOf("llama-gqa");
  fs.writeFileSync(
    path.join(folder, "generation_config.json"),
    '{"eos_token_id": [1, 7]}',
  );
  const { params, eosTokenIds, bosTokenId } = loadHuggingFace(folder);
  assert.equal(eosTokenIds, [1, 7]);
  assert.is(bosTokenId, 0);
  tf.dispose(params);
});

test("loading is flat in tensors, also when it fails", () => {
  const before = tf.memory().numTensors;
  const { params } = loadHuggingFace(path.join(FIXTURES, "llama-gqa"));
  assert.is(
    tf.memory().numTensors - before,
    Object.keys(flatten(params)).length,
  );
  tf.dispose(params);
  const folder = copyOf("llama-gqa");
  editTensors(folder, "model-00002-of-00002.safetensors", (tensors) => {
    delete tensors["model.norm.weight"];
  });
  assert.throws(() => loadHuggingFace(folder));
  assert.is(tf.memory().numTensors, before);
});

// Saving ----------------------------------------------------------------------

test("what is saved in F32 loads as the same numbers", () => {
  for (const name of FOLDERS) {
    const { stored, ids } = expectedOf(name);
    const loaded = loadHuggingFace(path.join(FIXTURES, name));
    const folder = path.join(scratch, `saved-${name}`);
    saveHuggingFace(folder, loaded);
    const again = loadHuggingFace(folder);
    assert.equal(again.config, loaded.config);
    assert.equal(again.eosTokenIds, loaded.eosTokenIds);
    assert.is(again.bosTokenId, loaded.bosTokenId);
    assert.equal(again.tokenizer.toJson(), loaded.tokenizer.toJson());
    assert.is(
      largestDifference(logitsOf(again, ids), logitsOf(loaded, ids)),
      0,
    );
    assert.ok(
      largestDifference(logitsOf(again, ids), numbers(stored.logits)) <
        LOGIT_TOLERANCE,
    );
    assert.equal(fs.readdirSync(folder).sort(), [
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    tf.dispose([loaded.params, again.params, ids]);
  }
});

test("half the bytes: F16 and BF16 store the nearest numbers", () => {
  const loaded = loadHuggingFace(path.join(FIXTURES, "llama-gqa"));
  const name = "model.layers.1.mlp.up_proj.weight";
  const exact = flatten(loaded.params)[name].dataSync() as Float32Array;
  for (const [dtype, digits] of [["F16", 11], ["BF16", 8]] as const) {
    const folder = path.join(scratch, `saved-${dtype}`);
    saveHuggingFace(folder, { ...loaded, dtype });
    const file = path.join(folder, "model.safetensors");
    assert.is(readSafetensors(fs.readFileSync(file))[name].dtype, dtype);
    const again = loadHuggingFace(folder);
    const rounded = flatten(again.params)[name].dataSync();
    for (let i = 0; i < exact.length; i++) {
      const error = Math.abs(rounded[i] - exact[i]);
      // Half a unit in the last of so many binary digits, or half the smallest F16.
      assert.ok(
        error <= Math.max(Math.abs(exact[i]) * 2 ** -digits, 2 ** -25),
      );
    }
    if (dtype === "BF16") {
      assert.is(
        largestDifference(
          Array.from(rounded),
          Array.from(fromBF16(toBF16(exact))),
        ),
        0,
      );
    }
    tf.dispose(again.params);
  }
  tf.dispose(loaded.params);
});

test("a model of our own survives the round trip, all options", () => {
  const tokenizer = trainBpe(["some text, some more text"], {
    vocabSize: 264,
    specialTokens: ["<|end|>"],
  });
  const config = {
    vocabSize: 272,
    hiddenSize: 8,
    intermediateSize: 12,
    numLayers: 1,
    numHeads: 2,
    numKvHeads: 1,
    ropeScaling: { type: "linear" as const, factor: 2 },
    mlpBias: true,
  };
  const params = initLlama(config, key(3));
  const folder = path.join(scratch, "own");
  saveHuggingFace(folder, { params, config, tokenizer, eosTokenIds: [0] });
  const again = loadHuggingFace(folder);
  assert.equal(again.config.ropeScaling, config.ropeScaling);
  assert.is(again.config.mlpBias, true);
  assert.is(again.bosTokenId, null);
  const ids = tf.tensor2d([[1, 2, 3]], [1, 3], "int32");
  assert.is(
    largestDifference(
      logitsOf(again, ids),
      tf.tidy(() => numbers(forward(params, config, ids))),
    ),
    0,
  );
  const saved = JSON.parse(
    fs.readFileSync(path.join(folder, "tokenizer_config.json"), "utf8"),
  );
  assert.is(saved.eos_token, "<|end|>");
  tf.dispose([params, again.params, ids]);
});

test("saving refuses what it could not store, and writes nothing", () => {
  const loaded = loadHuggingFace(path.join(FIXTURES, "llama-gqa"));
  const folder = path.join(scratch, "refused");
  assert.throws(
    () =>
      saveHuggingFace(folder, {
        ...loaded,
        config: { ...loaded.config, numLayers: 1 },
      }),
    /those of its configuration: model\.layers\.1\..* and 4 more/,
  );
  assert.throws(
    () =>
      saveHuggingFace(folder, {
        ...loaded,
        config: { ...loaded.config, vocabSize: 100 },
      }),
    /vocabSize 100, 260 tokens/,
  );
  const norm = loaded.params.model.norm.weight as ReturnType<
    typeof tf.variable
  >;
  norm.assign(tf.fill([16], 1e5));
  assert.throws(
    () => saveHuggingFace(folder, { ...loaded, dtype: "F16" }),
    /at most 65504: model\.norm\.weight; use BF16 or F32/,
  );
  assert.not(fs.existsSync(folder));
  tf.dispose(loaded.params);
});

// Refusals --------------------------------------------------------------------

/** Loads a damaged copy; returns the message of its refusal. */
function refusal(fixture: string, damage: (folder: string) => void): string {
  const folder = copyOf(fixture);
  damage(folder);
  const before = tf.memory().numTensors;
  try {
    loadHuggingFace(folder);
  } catch (error) {
    assert.is(tf.memory().numTensors, before);
    const { message } = error as Error;
    assert.ok(message.startsWith("Cannot "), message);
    assert.not(message.includes("\n"), message);
    assert.ok(message.length < 600, message);
    return message;
  }
  return assert.unreachable("loaded") as never;
}

const SHARD = "model-00002-of-00002.safetensors";

const DAMAGE: [string, string, (folder: string) => void, RegExp][] = [
  [
    "no config.json",
    "llama-gqa",
    (f) => fs.rmSync(path.join(f, "config.json")),
    /must have config\.json/,
  ],
  [
    "no tokenizer.json",
    "llama-gqa",
    (f) => fs.rmSync(path.join(f, "tokenizer.json")),
    /must have tokenizer\.json.*save_pretrained/,
  ],
  [
    "config.json cut short",
    "llama-gqa",
    (f) => fs.writeFileSync(path.join(f, "config.json"), '{"model_type": "lla'),
    /config\.json must be JSON/,
  ],
  [
    "config.json is a list",
    "llama-gqa",
    (f) => fs.writeFileSync(path.join(f, "config.json"), "[]"),
    /config\.json must be an object: \[\]/,
  ],
  [
    "pickled weights only",
    "llama-tied",
    (f) =>
      fs.renameSync(
        path.join(f, "model.safetensors"),
        path.join(f, "pytorch_model.bin"),
      ),
    /pickled weights are not read: pytorch_model\.bin; .*safe_serialization/,
  ],
  [
    "no weights",
    "llama-tied",
    (f) => fs.rmSync(path.join(f, "model.safetensors")),
    /must have model\.safetensors or model\.safetensors\.index\.json/,
  ],
  [
    "a shard is missing",
    "llama-gqa",
    (f) => fs.rmSync(path.join(f, SHARD)),
    /names is missing: model-00002/,
  ],
  [
    "a shard is cut short",
    "llama-gqa",
    (f) => fs.truncateSync(path.join(f, SHARD), 9000),
    /Cannot read safetensors as .*end of the file/,
  ],
  [
    "the index leads out of the folder",
    "llama-gqa",
    (f) =>
      edit(f, "model.safetensors.index.json", (json) => {
        json.weight_map = { x: "../secret.safetensors" };
      }),
    /must name safetensors files of the folder: "\.\.\/secret/,
  ],
  [
    "the index is empty",
    "llama-gqa",
    (f) =>
      edit(f, "model.safetensors.index.json", (json) => {
        delete json.weight_map;
      }),
    /each of its 2 layers: 0 tensors/,
  ],
  [
    "tensors are missing",
    "llama-gqa",
    (f) =>
      editTensors(f, SHARD, (t) => {
        delete t["model.norm.weight"];
        delete t["lm_head.weight"];
      }),
    /missing: model\.norm\.weight, lm_head\.weight$/,
  ],
  [
    "all sorts of problems at once",
    "llama-gqa",
    (f) =>
      editTensors(f, SHARD, (t) => {
        const norm = t["model.norm.weight"];
        t["lm_head.weight"] = { ...norm, shape: [4, 4] };
        t["model.layers.0.extra"] = norm;
        t["model.embed_tokens.weight"] = norm;
        t["model.norm.weight"] = {
          dtype: "I32",
          shape: [16],
          data: new Int32Array(16),
        };
      }),
    /extra: model\.layers\.0\.extra; wrong: .*twice: model\.embed_tokens\.weight/,
  ],
  [
    "a layer more than stored",
    "llama-gqa",
    (f) => edit(f, "config.json", (json) => json.num_hidden_layers = 3),
    /missing: model\.layers\.2\..* and 4 more/,
  ],
  [
    "a billion layers",
    "llama-gqa",
    (f) => edit(f, "config.json", (json) => json.num_hidden_layers = 1e9),
    /each of its 1000000000 layers: 21 tensors/,
  ],
  [
    "another width",
    "llama-gqa",
    (f) => edit(f, "config.json", (json) => json.intermediate_size = 25),
    /gate_proj\.weight \[24,16\] instead of \[25,16\]/,
  ],
  [
    "an embedding smaller than the vocabulary",
    "llama-gqa",
    (f) => edit(f, "config.json", (json) => json.vocab_size = 259),
    /vocab_size 259 in config\.json, 260 tokens in tokenizer\.json/,
  ],
];

for (const [name, fixture, damage, message] of DAMAGE) {
  test(`refuses: ${name}`, () => {
    assert.match(refusal(fixture, damage), message);
  });
}

test("wrong tensors are listed with what is stored and what is needed", () => {
  const message = refusal("llama-gqa", (f) =>
    editTensors(f, SHARD, (t) => {
      t["model.norm.weight"] = {
        dtype: "I32",
        shape: [16],
        data: new Int32Array(16),
      };
      t["lm_head.weight"] = {
        dtype: "F32",
        shape: [16],
        data: new Float32Array(16),
      };
    }));
  assert.match(
    message,
    /model\.norm\.weight I32 instead of F32, F16, BF16 or F64/,
  );
  assert.match(message, /lm_head\.weight \[16\] instead of \[260,16\]/);
});

test("what transformers ignores is ignored: inv_freq, the copy of a tied head", () => {
  const folder = copyOf("llama-tied");
  editTensors(folder, "model.safetensors", (t) => {
    t["lm_head.weight"] = t["model.embed_tokens.weight"];
    t["model.layers.0.self_attn.rotary_emb.inv_freq"] = {
      dtype: "F32",
      shape: [4],
      data: new Float32Array(4),
    };
  });
  const { stored, ids } = expectedOf("llama-tied");
  const loaded = loadHuggingFace(folder);
  assert.ok(
    largestDifference(logitsOf(loaded, ids), numbers(stored.logits)) <
      LOGIT_TOLERANCE,
  );
  tf.dispose([loaded.params, ids]);
});

/** The smallest config.json that is read. */
const CONFIG = {
  model_type: "llama",
  vocab_size: 32,
  hidden_size: 8,
  intermediate_size: 16,
  num_hidden_layers: 1,
  num_attention_heads: 2,
};

test("absent options have the defaults of transformers", () => {
  assert.equal(readLlamaConfig(CONFIG), {
    vocabSize: 32,
    hiddenSize: 8,
    intermediateSize: 16,
    numLayers: 1,
    numHeads: 2,
    numKvHeads: 2,
    headDim: 4,
    ropeTheta: 10000,
    rmsNormEps: 1e-6,
    tieWordEmbeddings: false,
    maxPositions: 2048,
    attentionBias: false,
    mlpBias: false,
  });
});

test("rope: old and new spelling, type and rope_type, default", () => {
  const linear = { type: "linear", factor: 2 };
  for (
    const options of [
      { rope_theta: 7, rope_scaling: { type: "linear", factor: 2 } },
      { rope_theta: 7, rope_scaling: { rope_type: "linear", factor: 2 } },
      { rope_parameters: { rope_type: "linear", factor: 2, rope_theta: 7 } },
    ]
  ) {
    const config = readLlamaConfig({ ...CONFIG, ...options });
    assert.is(config.ropeTheta, 7);
    assert.equal(config.ropeScaling, linear);
  }
  for (
    const options of [
      { rope_theta: 7, rope_scaling: null },
      { rope_parameters: { rope_type: "default", rope_theta: 7 } },
    ]
  ) {
    const config = readLlamaConfig({ ...CONFIG, ...options });
    assert.is(config.ropeTheta, 7);
    assert.is(config.ropeScaling, undefined);
  }
});

const UNSUPPORTED: [Record<string, unknown>, RegExp][] = [
  [{ model_type: "mistral" }, /model_type .* must be "llama": "mistral"/],
  [{ model_type: undefined }, /model_type .* must be "llama": undefined/],
  [
    { architectures: ["LlamaForSequenceClassification"] },
    /"LlamaForCausalLM": \[/,
  ],
  [{ hidden_act: "gelu" }, /hidden_act .* must be silu: "gelu"/],
  [{ quantization_config: { bits: 4 } }, /must not be quantised/],
  [
    { rope_scaling: { type: "dynamic", factor: 2 } },
    /linear or llama3: "dynamic"/,
  ],
  [
    { rope_scaling: { rope_type: "yarn", factor: 2 } },
    /linear or llama3: "yarn"/,
  ],
  [
    { rope_scaling: { type: "linear" } },
    /factor .* must be a number: undefined/,
  ],
  [{ rope_scaling: 2 }, /rope_scaling .* must be an object: 2/],
  [{ rope_parameters: { partial_rotary_factor: 0.5 } }, /must be 1: 0\.5/],
  [{ vocab_size: "32" }, /vocab_size .* must be a number: "32"/],
  [{ hidden_size: undefined }, /hidden_size .* must be a number: undefined/],
  [{ tie_word_embeddings: 1 }, /tie_word_embeddings .* must be a boolean: 1/],
  [{ num_key_value_heads: 3 }, /numHeads 2, numKvHeads 3/],
  [{ hidden_size: -8 }, /hiddenSize must be a positive integer: -8/],
];

for (const [change, message] of UNSUPPORTED) {
  test(`refuses ${JSON.stringify(change)}`, () => {
    assert.throws(() => readLlamaConfig({ ...CONFIG, ...change }), message);
  });
}

test.run();
