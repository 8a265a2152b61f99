/**
 * A Hugging Face folder with a LLaMA-architecture language model.
 *
 * Source: huggingface/transformers, src/transformers/models/llama/configuration_llama.py
 * (options and their defaults), src/transformers/modeling_rope_utils.py (rope_scaling,
 * rope_parameters), src/transformers/utils/hub.py (sharded checkpoints).
 *
 *   config.json                    the shape of the model
 *   model.safetensors              the parameters; or, in several files,
 *   model.safetensors.index.json   which of the files has which parameter
 *   tokenizer.json                 the vocabulary
 *   generation_config.json         ids that end a text; optional
 *
 * Scope: model_type "llama" in F32, F16, BF16 or F64, computed in F32. Options that
 * would change what the model computes and are not implemented are refused by name,
 * never ignored.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import process from "node:process";
import { flatten, type Tensor, tf } from "../tensor.ts";
import {
  type LlamaConfig,
  type LlamaParams,
  nestParams,
  parameterShapes,
  resolveConfig,
  type RopeScaling,
} from "../llama.ts";
import { loadTokenizer, type Tokenizer } from "../tokenizer.ts";
import {
  openSafetensors,
  type SafetensorsFile,
  saveSafetensors,
  type StoredTensor,
} from "./safetensors.ts";

const CONFIG = "config.json";
const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const TOKENIZER = "tokenizer.json";
const GENERATION = "generation_config.json";

/** The largest JSON file that is read; LLaMA 3's tokenizer.json has 17 MB. */
const MAX_JSON_BYTES = 100_000_000;
/** How many names an error message lists. */
const MAX_LISTED = 5;
/** The largest finite half-precision number. */
const F16_MAX = 65504;

/** A language model with its tokenizer. */
export interface Checkpoint {
  params: LlamaParams;
  config: LlamaConfig;
  tokenizer: Tokenizer;
  /** Begins a text, or null. */
  bosTokenId: number | null;
  /** Each ends a text; what `generate` takes as `stop`. */
  eosTokenIds: number[];
}

/** What `saveHuggingFace` writes. */
export interface SaveOptions {
  params: LlamaParams;
  config: LlamaConfig;
  tokenizer: Tokenizer;
  /** Type of the stored numbers; default "F32", which loses nothing. */
  dtype?: "F32" | "F16" | "BF16";
  bosTokenId?: number | null;
  eosTokenIds?: number[];
}

type Json = Record<string, unknown>;

// Reading ---------------------------------------------------------------------

function cannotLoad(what: string): string {
  return `Cannot load the checkpoint as ${what}`;
}

/** The object in a JSON file. */
function readJson(folder: string, name: string): Json {
  const file = path.join(folder, name);
  const { size } = fs.statSync(file);
  if (size > MAX_JSON_BYTES) {
    throw new RangeError(
      cannotLoad(
        `${name} must have at most ${MAX_JSON_BYTES} bytes: ${size}`,
      ),
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(fs.readFileSync(file, "utf8"));
  } catch (error) {
    throw new SyntaxError(
      cannotLoad(`${name} must be JSON: ${(error as Error).message}`),
    );
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError(
      cannotLoad(`${name} must be an object: ${JSON.stringify(value)}`),
    );
  }
  return value as Json;
}

/** The first names of a list, and how many more there are. */
function list(names: string[]): string {
  const shown = names.slice(0, MAX_LISTED).join(", ");
  const more = names.length - MAX_LISTED;
  return more > 0 ? `${shown} and ${more} more` : shown;
}

/** A typed option of config.json; `fallback` stands for absent or null. */
function option<T extends number | boolean | string>(
  json: Json,
  name: string,
  fallback?: T,
): T {
  const value = json[name] ?? fallback;
  const [found, wanted] = [typeof value, typeof (fallback ?? 0)];
  if (found !== wanted) {
    throw new TypeError(
      cannotLoad(
        `${name} in ${CONFIG} must be a ${wanted}: ${JSON.stringify(value)}`,
      ),
    );
  }
  return value as T;
}

/** Refuses an option whose value means a computation that we do not have. */
function require(json: Json, name: string, allowed: unknown[]): void {
  const value = json[name];
  if (value === undefined || value === null || allowed.includes(value)) return;
  throw new RangeError(
    cannotLoad(
      `${name} in ${CONFIG} must be ${allowed.join(" or ")}: ` +
        JSON.stringify(value),
    ),
  );
}

/** rope_theta and the scaling, in the older form and in that of transformers 5. */
function readRope(
  json: Json,
): { ropeTheta: number; ropeScaling?: RopeScaling } {
  const newer = json.rope_parameters as Json | null | undefined;
  const settings = newer ?? (json.rope_scaling as Json | null | undefined) ??
    {};
  if (typeof settings !== "object" || Array.isArray(settings)) {
    throw new TypeError(
      cannotLoad(
        `rope_scaling in ${CONFIG} must be an object: ` +
          JSON.stringify(settings),
      ),
    );
  }
  const ropeTheta = option(
    { rope_theta: settings.rope_theta ?? json.rope_theta },
    "rope_theta",
    10000,
  );
  const type = settings.rope_type ?? settings.type ?? "default";
  require(settings, "partial_rotary_factor", [1]);
  if (type === "default") return { ropeTheta };
  if (type === "linear") {
    const factor = option<number>(settings, "factor");
    return { ropeTheta, ropeScaling: { type, factor } };
  }
  if (type === "llama3") {
    return {
      ropeTheta,
      ropeScaling: {
        type,
        factor: option<number>(settings, "factor"),
        lowFreqFactor: option<number>(settings, "low_freq_factor"),
        highFreqFactor: option<number>(settings, "high_freq_factor"),
        originalMaxPositions: option<number>(
          settings,
          "original_max_position_embeddings",
        ),
      },
    };
  }
  throw new RangeError(
    cannotLoad(
      `the rope_type in ${CONFIG} must be default, linear or llama3: ` +
        JSON.stringify(type),
    ),
  );
}

/** Our configuration from config.json, refusing what we would compute wrongly. */
export function readLlamaConfig(json: Json): LlamaConfig {
  if (json.model_type !== "llama") {
    throw new RangeError(
      cannotLoad(
        `model_type in ${CONFIG} must be "llama": ` +
          JSON.stringify(json.model_type),
      ),
    );
  }
  const architectures = json.architectures ?? ["LlamaForCausalLM"];
  if (
    !Array.isArray(architectures) || !architectures.includes("LlamaForCausalLM")
  ) {
    throw new RangeError(
      cannotLoad(
        `architectures in ${CONFIG} must have "LlamaForCausalLM": ` +
          JSON.stringify(architectures),
      ),
    );
  }
  require(json, "hidden_act", ["silu"]);
  require(json, "partial_rotary_factor", [1]);
  if (json.quantization_config) {
    throw new RangeError(
      cannotLoad(
        "its weights must not be quantised (quantization_config in " +
          `${CONFIG}): take the F32, F16 or BF16 version of the model`,
      ),
    );
  }
  const numHeads = option<number>(json, "num_attention_heads");
  const hiddenSize = option<number>(json, "hidden_size");
  const config = {
    vocabSize: option<number>(json, "vocab_size"),
    hiddenSize,
    intermediateSize: option<number>(json, "intermediate_size"),
    numLayers: option<number>(json, "num_hidden_layers"),
    numHeads,
    numKvHeads: option(json, "num_key_value_heads", numHeads),
    headDim: option(json, "head_dim", hiddenSize / numHeads),
    ...readRope(json),
    rmsNormEps: option(json, "rms_norm_eps", 1e-6),
    tieWordEmbeddings: option(json, "tie_word_embeddings", false),
    maxPositions: option(json, "max_position_embeddings", 2048),
    attentionBias: option(json, "attention_bias", false),
    mlpBias: option(json, "mlp_bias", false),
  };
  resolveConfig(config);
  return config;
}

/** The safetensors files of a folder, one or several. */
function weightFiles(folder: string): string[] {
  if (fs.existsSync(path.join(folder, WEIGHTS))) return [WEIGHTS];
  if (!fs.existsSync(path.join(folder, INDEX))) {
    const old = fs.readdirSync(folder)
      .filter((name) => /\.(bin|pt|pth)$/.test(name));
    throw new Error(
      cannotLoad(
        `the folder must have ${WEIGHTS} or ${INDEX}` +
          (old.length === 0 ? `: ${folder}` : `, and pickled weights are not ` +
            `read: ${list(old)}; save the model with ` +
            "safe_serialization=True in transformers"),
      ),
    );
  }
  const map = readJson(folder, INDEX).weight_map;
  const files = [
    ...new Set(Object.values(map as Record<string, unknown> ?? {})),
  ];
  for (const file of files) {
    // A name from a file must not lead out of the folder.
    if (
      typeof file !== "string" || path.basename(file) !== file ||
      file.includes("\\") || !file.endsWith(".safetensors")
    ) {
      throw new RangeError(
        cannotLoad(
          `weight_map in ${INDEX} must name safetensors files of the folder: ` +
            JSON.stringify(file),
        ),
      );
    }
    if (!fs.existsSync(path.join(folder, file))) {
      throw new Error(
        cannotLoad(`a file that ${INDEX} names is missing: ${file}`),
      );
    }
  }
  return files as string[];
}

/** Stored tensors that are no parameters: transformers ignores them too. */
function isIgnored(name: string, config: LlamaConfig): boolean {
  return name.endsWith(".rotary_emb.inv_freq") ||
    (name === "lm_head.weight" && config.tieWordEmbeddings === true);
}

/** Which file has each tensor, checked against what the model needs. */
function locate(
  files: SafetensorsFile[],
  config: LlamaConfig,
): Map<string, SafetensorsFile> {
  const where = new Map<string, SafetensorsFile>();
  const twice: string[] = [];
  for (const file of files) {
    for (const name of Object.keys(file.entries)) {
      if (where.has(name)) twice.push(name);
      where.set(name, file);
    }
  }
  if (config.numLayers > where.size) {
    throw new RangeError(
      cannotLoad(
        `it must have parameters for each of its ${config.numLayers} layers: ` +
          `${where.size} tensors`,
      ),
    );
  }
  const shapes = parameterShapes(config);
  const missing: string[] = [];
  const wrong: string[] = [];
  for (const [name, shape] of Object.entries(shapes)) {
    const entry = where.get(name)?.entries[name];
    if (entry === undefined) missing.push(name);
    else if (entry.shape.join() !== shape.join()) {
      wrong.push(`${name} [${entry.shape}] instead of [${shape}]`);
    } else if (!["F32", "F16", "BF16", "F64"].includes(entry.dtype)) {
      wrong.push(`${name} ${entry.dtype} instead of F32, F16, BF16 or F64`);
    }
  }
  const extra = [...where.keys()]
    .filter((name) => !Object.hasOwn(shapes, name) && !isIgnored(name, config));
  const problems = Object.entries({ missing, extra, wrong, twice })
    .filter(([, names]) => names.length > 0)
    .map(([problem, names]) => `${problem}: ${list(names)}`);
  if (problems.length > 0) {
    throw new RangeError(
      cannotLoad(
        `its tensors must be those of its ${CONFIG}; ${problems.join("; ")}`,
      ),
    );
  }
  return where;
}

/** A stored tensor as a trainable parameter. */
function toVariable({ data, shape }: StoredTensor): Tensor {
  const values = data instanceof Float32Array
    ? data
    : Float32Array.from(data as Float64Array);
  return tf.tidy(() => tf.variable(tf.tensor(values, shape, "float32")));
}

/** An id, a list of them, or nothing, as a list. */
function idList(value: unknown): number[] {
  return (Array.isArray(value) ? value : [value])
    .filter((id): id is number => Number.isSafeInteger(id) && id >= 0);
}

/**
 * The language model of a Hugging Face folder, ready to run, train or save again.
 *
 * Everything is checked before the first tensor is read; tensors are read one by
 * one, so that memory holds the model once.
 *
 * @param folder A local folder: `git clone` of a model, or its downloaded files.
 * @returns Parameters (tf.Variable, dispose with `tf.dispose(params)`),
 *   configuration, tokenizer and the ids that begin and end a text.
 * @throws If a file is missing or damaged, an option is not supported, tensors are
 *   missing, superfluous or of another shape, or the tokenizer has more tokens than
 *   the embedding: the message says which.
 *
 * @example
 * ```ts
 * const { params, config, tokenizer, eosTokenIds } = loadHuggingFace("TinyLlama");
 * const ids = generate(params, config, tokenizer.encode("Once upon a time"), {
 *   stop: eosTokenIds,
 * });
 * tokenizer.decode(ids);
 * ```
 */
export function loadHuggingFace(folder: string): Checkpoint {
  for (const name of [CONFIG, TOKENIZER]) {
    if (fs.existsSync(path.join(folder, name))) continue;
    throw new Error(
      cannotLoad(`the folder must have ${name}: ${folder}`) +
        (name === TOKENIZER
          ? "; AutoTokenizer.from_pretrained(...).save_pretrained(...) in " +
            "transformers writes it"
          : ""),
    );
  }
  const json = readJson(folder, CONFIG);
  const config = readLlamaConfig(json);
  const tokenizer = loadTokenizer(readJson(folder, TOKENIZER));
  if (tokenizer.vocabSize > config.vocabSize) {
    throw new RangeError(
      cannotLoad(
        `the embedding must have a row for each token: vocab_size ` +
          `${config.vocabSize} in ${CONFIG}, ${tokenizer.vocabSize} tokens in ` +
          TOKENIZER,
      ),
    );
  }
  const generation = fs.existsSync(path.join(folder, GENERATION))
    ? readJson(folder, GENERATION)
    : {};
  const files: SafetensorsFile[] = [];
  const named: Record<string, Tensor> = {};
  try {
    for (const name of weightFiles(folder)) {
      files.push(openSafetensors(path.join(folder, name)));
    }
    const where = locate(files, config);
    for (const name of Object.keys(parameterShapes(config))) {
      named[name] = toVariable(where.get(name)!.read(name));
    }
  } catch (error) {
    tf.dispose(named);
    throw error;
  } finally {
    for (const file of files) file.close();
  }
  return {
    params: nestParams(named),
    config,
    tokenizer,
    bosTokenId: idList(generation.bos_token_id ?? json.bos_token_id)[0] ?? null,
    eosTokenIds: idList(generation.eos_token_id ?? json.eos_token_id),
  };
}

// Writing ---------------------------------------------------------------------

/** rope_scaling of config.json. */
function ropeScalingJson(scaling: RopeScaling | undefined): Json | null {
  if (scaling === undefined) return null;
  if (scaling.type === "linear") {
    return { rope_type: "linear", type: "linear", factor: scaling.factor };
  }
  return {
    rope_type: "llama3",
    factor: scaling.factor,
    low_freq_factor: scaling.lowFreqFactor,
    high_freq_factor: scaling.highFreqFactor,
    original_max_position_embeddings: scaling.originalMaxPositions,
  };
}

/** Writes JSON; the file appears complete or not at all. */
function saveJson(folder: string, name: string, value: Json): void {
  const file = path.join(folder, name);
  const temporary = `${file}.${process.pid}.tmp`;
  fs.writeFileSync(temporary, `${JSON.stringify(value, null, 2)}\n`);
  fs.renameSync(temporary, file);
}

/** The values of the parameters by name, checked against the configuration. */
function storedTensors(
  params: LlamaParams,
  config: LlamaConfig,
  dtype: "F32" | "F16" | "BF16",
): Record<string, StoredTensor> {
  const shapes = parameterShapes(config);
  const named = flatten(params);
  const wrong = [
    ...Object.keys(named).filter((name) => !Object.hasOwn(shapes, name)),
    ...Object.keys(shapes).filter((name) =>
      named[name]?.shape.join() !== shapes[name].join()
    ),
  ];
  if (wrong.length > 0) {
    throw new RangeError(
      `Cannot save the checkpoint as its parameters must be those of its ` +
        `configuration: ${list(wrong)}`,
    );
  }
  const stored: Record<string, StoredTensor> = {};
  for (const [name, tensor] of Object.entries(named)) {
    const data = tensor.dataSync() as Float32Array;
    if (dtype === "F16" && data.some((x) => Math.abs(x) > F16_MAX)) {
      throw new RangeError(
        `Cannot save the checkpoint in F16 as its values must be at most ` +
          `${F16_MAX}: ${name}; use BF16 or F32`,
      );
    }
    stored[name] = { dtype, shape: tensor.shape, data };
  }
  return stored;
}

/**
 * Writes a language model as a folder that Hugging Face transformers opens.
 *
 * The weights come first and config.json last, each file complete or not at all, so
 * that an interrupted save is not taken for a checkpoint.
 *
 * @param folder Created if it does not exist.
 */
export function saveHuggingFace(
  folder: string,
  {
    params,
    config,
    tokenizer,
    dtype = "F32",
    bosTokenId = null,
    eosTokenIds = [],
  }: SaveOptions,
): void {
  const resolved = resolveConfig(config);
  if (tokenizer.vocabSize > resolved.vocabSize) {
    throw new RangeError(
      `Cannot save the checkpoint as the embedding must have a row for each ` +
        `token: vocabSize ${resolved.vocabSize}, ${tokenizer.vocabSize} tokens`,
    );
  }
  const tensors = storedTensors(params, config, dtype);
  const ids = {
    bos_token_id: bosTokenId,
    eos_token_id: eosTokenIds.length > 1 ? eosTokenIds : eosTokenIds[0] ?? null,
  };
  const tokenOf = (id: number | null) =>
    Object.entries(tokenizer.special).find(([, other]) => other === id)?.[0] ??
      null;
  fs.mkdirSync(folder, { recursive: true });
  saveSafetensors(path.join(folder, WEIGHTS), tensors, { format: "pt" });
  saveJson(folder, TOKENIZER, tokenizer.toJson());
  saveJson(folder, "tokenizer_config.json", {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: tokenOf(bosTokenId),
    eos_token: tokenOf(eosTokenIds[0] ?? null),
    model_max_length: resolved.maxPositions,
    clean_up_tokenization_spaces: false,
  });
  saveJson(folder, GENERATION, ids);
  saveJson(folder, CONFIG, {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: resolved.vocabSize,
    hidden_size: resolved.hiddenSize,
    intermediate_size: resolved.intermediateSize,
    num_hidden_layers: resolved.numLayers,
    num_attention_heads: resolved.numHeads,
    num_key_value_heads: resolved.numKvHeads,
    head_dim: resolved.headDim,
    hidden_act: "silu",
    rms_norm_eps: resolved.rmsNormEps,
    rope_theta: resolved.ropeTheta,
    rope_scaling: ropeScalingJson(resolved.ropeScaling),
    max_position_embeddings: resolved.maxPositions,
    tie_word_embeddings: resolved.tieWordEmbeddings,
    attention_bias: resolved.attentionBias,
    mlp_bias: resolved.mlpBias,
    torch_dtype: { F32: "float32", F16: "float16", BF16: "bfloat16" }[dtype],
    ...ids,
  });
}
