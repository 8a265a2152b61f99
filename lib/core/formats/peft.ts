/**
 * The adapter folder of PEFT: `adapter_config.json` beside `adapter_model.safetensors`.
 *
 * Source: huggingface/peft, src/peft/tuners/lora/config.py (options and their defaults),
 * src/peft/utils/save_and_load.py (names of the tensors), src/peft/utils/other.py (patterns).
 *
 *   base_model.model.<module>.lora_A.weight            A [R, in]
 *   base_model.model.<module>.lora_B.weight            B [out, R]
 *   base_model.model.<module>.lora_magnitude_vector    m [out], with use_dora; PEFT strips the
 *                                                      ".weight" that the parameter has in memory
 *
 * The scale is not stored but follows from the options: lora_alpha / r, or lora_alpha / sqrt(r) with
 * use_rslora, where r and lora_alpha of a module may come from rank_pattern and alpha_pattern.
 *
 * Scope: adapters of linear layers. An option that would change what the tensors mean is refused by
 * name, also one that this reader does not know, as long as it is switched on.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import process from "node:process";
import {
  openSafetensors,
  saveSafetensors,
  type StoredTensor,
} from "./safetensors.ts";

const CONFIG_FILE = "adapter_config.json";
const WEIGHTS_FILE = "adapter_model.safetensors";
const PREFIX = "base_model.model.";

/** The options of an adapter that matter here. */
export interface PeftConfig {
  rank: number;
  alpha: number;
  /** use_rslora: alpha / sqrt(rank) instead of alpha / rank. */
  rslora: boolean;
  /** use_dora. */
  dora: boolean;
  /** Names or ends of names; a pattern or null only in files from elsewhere. */
  targetModules: string[] | string | null;
  rankPattern: Record<string, number>;
  alphaPattern: Record<string, number>;
  dropout: number;
  /** base_model_name_or_path. */
  baseModel: string | null;
}

/** A matrix or vector in float32. */
export interface PeftTensor {
  shape: number[];
  data: Float32Array;
}

export interface PeftModule {
  loraA: PeftTensor; // [R, in]
  loraB: PeftTensor; // [out, R]
  magnitude: PeftTensor | null; // [out]
}

export interface PeftAdapter {
  config: PeftConfig;
  /** By module name, such as "model.layers.0.self_attn.q_proj". */
  modules: Map<string, PeftModule>;
}

/** Options that are read, or that do not change what the tensors mean. */
const HARMLESS_OPTIONS = new Set([
  "peft_type",
  "r",
  "lora_alpha",
  "use_rslora",
  "use_dora",
  "target_modules",
  "rank_pattern",
  "alpha_pattern",
  "lora_dropout",
  "base_model_name_or_path",
  "auto_mapping",
  "revision",
  "task_type",
  "inference_mode",
  "exclude_modules",
  "layers_to_transform",
  "layers_pattern",
  "megatron_core",
  "qalora_group_size",
  "eva_config",
  "peft_version",
  "runtime_config",
]);

/**
 * The values of other options with which an adapter is a plain one. Of the ways to initialise, those
 * are listed that leave the base weights alone; PiSSA, OLoRA, LoftQ and CorDA change them.
 */
const PLAIN_VALUES: Record<string, unknown[]> = {
  bias: ["none"],
  init_lora_weights: [true, false, "gaussian", "orthogonal", "eva"],
};

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether an option says nothing: null, false, or empty. */
function isOff(value: unknown): boolean {
  return value === null || value === undefined || value === false ||
    (Array.isArray(value) && value.length === 0) ||
    (isObject(value) && Object.keys(value).length === 0);
}

function unreadable(reason: string): SyntaxError {
  return new SyntaxError(`Cannot read the adapter as ${reason}`);
}

/** A value for a message: short, on one line. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "missing";
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function patternOf(name: string, value: unknown): Record<string, number> {
  if (value === null || value === undefined) return {};
  if (
    !isObject(value) ||
    !Object.values(value).every((v) => typeof v === "number")
  ) {
    throw unreadable(
      `${name} must map patterns to numbers: ${name} ${show(value)}`,
    );
  }
  return { ...value } as Record<string, number>;
}

/**
 * The options of an adapter from the parsed `adapter_config.json`.
 *
 * @throws {SyntaxError} If an option is missing, malformed or not supported; the message names it.
 */
export function parsePeftConfig(json: unknown): PeftConfig {
  if (!isObject(json)) {
    throw unreadable(`${CONFIG_FILE} must hold an object: ${show(json)}`);
  }
  if (json.peft_type !== "LORA") {
    throw unreadable(
      `peft_type must be LORA: peft_type ${show(json.peft_type)}`,
    );
  }
  for (const [name, value] of Object.entries(json)) {
    if (HARMLESS_OPTIONS.has(name) || isOff(value)) continue;
    const plain = PLAIN_VALUES[name] ?? [];
    if (!plain.includes(value)) {
      throw unreadable(
        `the option ${name} is supported only as ${
          plain.length > 0 ? plain.map(show).join(", ") : "null or false"
        }: ${name} ${show(value)}`,
      );
    }
  }
  const {
    r,
    lora_alpha: alpha,
    lora_dropout: dropout = 0,
    target_modules: targetModules = null,
    base_model_name_or_path: baseModel = null,
  } = json;
  if (typeof r !== "number" || !Number.isInteger(r) || r < 1) {
    throw unreadable(`r must be a positive integer: r ${show(r)}`);
  }
  if (typeof alpha !== "number" || !(alpha > 0)) {
    throw unreadable(
      `lora_alpha must be a number above 0: lora_alpha ${show(alpha)}`,
    );
  }
  if (typeof dropout !== "number") {
    throw unreadable(
      `lora_dropout must be a number: lora_dropout ${show(dropout)}`,
    );
  }
  const flag = (name: string): boolean => {
    const value = json[name] ?? false;
    if (typeof value !== "boolean") {
      throw unreadable(`${name} must be true or false: ${name} ${show(value)}`);
    }
    return value;
  };
  if (
    targetModules !== null && typeof targetModules !== "string" &&
    !(Array.isArray(targetModules) &&
      targetModules.every((t) => typeof t === "string"))
  ) {
    throw unreadable(
      `target_modules must be a pattern or a list of names: target_modules ${
        show(targetModules)
      }`,
    );
  }
  return {
    rank: r,
    alpha,
    rslora: flag("use_rslora"),
    dora: flag("use_dora"),
    targetModules,
    rankPattern: patternOf("rank_pattern", json.rank_pattern),
    alphaPattern: patternOf("alpha_pattern", json.alpha_pattern),
    dropout,
    baseModel: typeof baseModel === "string" ? baseModel : null,
  };
}

/** The content of `adapter_config.json`, with every option that PEFT 0.10 and later write for LoRA. */
export function peftConfigJson(config: PeftConfig): Record<string, unknown> {
  return {
    alpha_pattern: config.alphaPattern,
    auto_mapping: null,
    base_model_name_or_path: config.baseModel,
    bias: "none",
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    layer_replication: null,
    layers_pattern: null,
    layers_to_transform: null,
    loftq_config: {},
    lora_alpha: config.alpha,
    lora_dropout: config.dropout,
    megatron_config: null,
    megatron_core: "megatron.core",
    modules_to_save: null,
    peft_type: "LORA",
    r: config.rank,
    rank_pattern: config.rankPattern,
    revision: null,
    target_modules: config.targetModules,
    task_type: "CAUSAL_LM",
    use_dora: config.dora,
    use_rslora: config.rslora,
  };
}

/** Module and part of a tensor's name, or null if it is none of an adapter's. */
function parseName(
  name: string,
): { module: string; part: keyof PeftModule } | null {
  const match =
    /^base_model\.model\.(.+)\.(?:(lora_A)\.weight|(lora_B)\.weight|lora_magnitude_vector(?:\.weight)?)$/
      .exec(name);
  if (match === null) return null;
  const part = match[2] ? "loraA" : match[3] ? "loraB" : "magnitude";
  return { module: match[1], part };
}

function toFloat32(name: string, { data, shape, dtype }: StoredTensor) {
  if (!(data instanceof Float32Array)) {
    throw unreadable(
      `tensors must be F32, F16 or BF16: ${name} has dtype ${dtype}`,
    );
  }
  return { shape, data };
}

/** Checks that each module has its tensors and that their shapes agree; all faults in one error. */
function checkModules(
  modules: Map<string, Partial<PeftModule>>,
  dora: boolean,
): void {
  const faults: string[] = [];
  for (const [name, { loraA, loraB, magnitude }] of modules) {
    if (loraA === undefined || loraB === undefined) {
      faults.push(`${name} lacks lora_${loraA === undefined ? "A" : "B"}`);
    } else if (
      loraA.shape.length !== 2 || loraB.shape.length !== 2 ||
      loraA.shape[0] !== loraB.shape[1]
    ) {
      faults.push(
        `${name} has lora_A [${loraA.shape.join(", ")}], lora_B [${
          loraB.shape.join(", ")
        }]`,
      );
    } else if (dora && !magnitude) {
      faults.push(`${name} lacks lora_magnitude_vector`);
    } else if (!dora && magnitude) {
      faults.push(`${name} has lora_magnitude_vector without use_dora`);
    } else if (magnitude && magnitude.data.length !== loraB.shape[0]) {
      faults.push(
        `${name} has lora_magnitude_vector of ${magnitude.data.length} for lora_B [${
          loraB.shape.join(", ")
        }]`,
      );
    }
  }
  if (faults.length > 0) {
    throw unreadable(
      `each module must have lora_A [R, in], lora_B [out, R] and, only with use_dora, ` +
        `lora_magnitude_vector [out]: ${faults.join("; ")}`,
    );
  }
}

/**
 * The adapter in a folder that PEFT or `savePeft` wrote.
 *
 * @throws {SyntaxError} If an option is not supported, or tensors are missing, unknown or malformed.
 */
export function loadPeft(folder: string): PeftAdapter {
  let text: string;
  try {
    text = fs.readFileSync(path.join(folder, CONFIG_FILE), "utf8");
  } catch {
    throw new Error(
      `Cannot read the adapter as the folder must hold ${CONFIG_FILE}: ${folder}`,
    );
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw unreadable(
      `${CONFIG_FILE} must be JSON: ${(error as Error).message}`,
    );
  }
  const config = parsePeftConfig(json);
  if (!fs.existsSync(path.join(folder, WEIGHTS_FILE))) {
    throw new Error(
      `Cannot read the adapter as the folder must hold ${WEIGHTS_FILE}: ${folder}`,
    );
  }
  const file = openSafetensors(path.join(folder, WEIGHTS_FILE));
  try {
    const names = Object.keys(file.entries);
    const unknown = names.filter((name) => parseName(name) === null);
    if (unknown.length > 0 || names.length === 0) {
      throw unreadable(
        `tensors must be called ${PREFIX}<module>.lora_A.weight, lora_B.weight or ` +
          `lora_magnitude_vector: ${unknown.join(", ") || "there are none"}`,
      );
    }
    const modules = new Map<string, Partial<PeftModule>>();
    for (const name of names) {
      const { module, part } = parseName(name)!;
      const entry = modules.get(module) ?? { magnitude: null };
      entry[part] = toFloat32(name, file.read(name));
      modules.set(module, entry);
    }
    checkModules(modules, config.dora);
    return { config, modules: modules as Map<string, PeftModule> };
  } finally {
    file.close();
  }
}

/**
 * Writes an adapter as a folder that PEFT opens; each file appears complete or not at all.
 *
 * @param folder Made if it is not there; files of the same names are replaced
 */
export function savePeft(
  folder: string,
  { config, modules }: PeftAdapter,
): void {
  checkModules(modules, config.dora);
  const tensors: Record<string, StoredTensor> = {};
  const store = (name: string, { shape, data }: PeftTensor) => {
    tensors[`${PREFIX}${name}`] = { dtype: "F32", shape, data };
  };
  for (const [name, { loraA, loraB, magnitude }] of modules) {
    store(`${name}.lora_A.weight`, loraA);
    store(`${name}.lora_B.weight`, loraB);
    if (magnitude !== null) store(`${name}.lora_magnitude_vector`, magnitude);
  }
  fs.mkdirSync(folder, { recursive: true });
  saveSafetensors(path.join(folder, WEIGHTS_FILE), tensors, { format: "pt" });
  const temporary = path.join(folder, `${CONFIG_FILE}.${process.pid}.tmp`);
  fs.writeFileSync(
    temporary,
    `${JSON.stringify(peftConfigJson(config), null, 2)}\n`,
  );
  fs.renameSync(temporary, path.join(folder, CONFIG_FILE));
}
