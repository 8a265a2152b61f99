/**
 * Our language model as the GGUF file that llama.cpp opens.
 *
 * Source: ggml-org/llama.cpp convert_hf_to_gguf.py (`LlamaModel`), gguf-py/gguf/constants.py (keys and
 * names of tensors), src/llama-vocab.cpp (pre-tokenizers), and ggml-org/ggml docs/gguf.md.
 *
 *   model.embed_tokens                  token_embd
 *   model.layers.0.self_attn.q_proj     blk.0.attn_q       rows permuted, see `interleaveHeads`
 *   model.layers.0.self_attn.k_proj     blk.0.attn_k       rows permuted
 *   model.layers.0.self_attn.v_proj     blk.0.attn_v
 *   model.layers.0.self_attn.o_proj     blk.0.attn_output
 *   model.layers.0.mlp.gate_proj        blk.0.ffn_gate, and ffn_up, ffn_down
 *   model.layers.0.input_layernorm      blk.0.attn_norm
 *   model.layers.0.post_attention_...   blk.0.ffn_norm
 *   model.norm                          output_norm
 *   lm_head                             output             absent if tied to the embedding
 *
 * Matrices are stored in the wanted type, vectors (norms, biases) in F32, as llama.cpp does.
 *
 * Scope: byte-level tokenizers with the pre-tokenizer of GPT-2 or of LLaMA 3. A SentencePiece-style
 * vocabulary would need scores that a list of merges does not have.
 */
import {
  type LlamaConfig,
  type LlamaParams,
  parameterShapes,
  resolveConfig,
  type ResolvedConfig,
  ropeFrequencies,
} from "../llama.ts";
import { flatten } from "../tensor.ts";
import type { Tokenizer } from "../tokenizer.ts";
import {
  encodeTensor,
  type GgufFile,
  type GgufTensor,
  type GgufTensorType,
  type GgufValue,
} from "./gguf.ts";

/** Number of each type in general.file_type (enum llama_ftype of llama.cpp). */
const FILE_TYPES: Record<GgufTensorType, number> = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q8_0: 7,
};

/** Version of the block layouts (GGML_QNT_VERSION of ggml). */
const QUANTIZATION_VERSION = 2;

/** What a token is (enum llama_token_type of llama.cpp). */
const TOKEN_TYPES = { normal: 1, control: 3, userDefined: 4, unused: 5 };

/** LLaMA 3's pre-tokenizer, as its tokenizer.json writes it. */
const LLAMA3_PATTERN =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" +
  "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** Names inside a block: ours and llama.cpp's. */
const BLOCK_NAMES: Record<string, string> = {
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  input_layernorm: "attn_norm",
  post_attention_layernorm: "ffn_norm",
};

/** What `exportGguf` may be told. */
export interface ExportGgufOptions {
  /** How the matrices are stored; default "F32", which loses nothing. */
  type?: GgufTensorType;
  /**
   * How the embedding and the head are stored; default as the other matrices. llama.cpp's own
   * quantizer keeps them in more bits.
   */
  embeddingType?: GgufTensorType;
  /** Ends a text. llama.cpp takes id 11 for it where a file is silent, so it must be given. */
  eosTokenId: number;
  /** Begins a text; default the end-of-text token, as in GPT-2. */
  bosTokenId?: number | null;
  /** general.name. */
  name?: string;
}

function cannotExport(what: string): RangeError {
  return new RangeError(`Cannot export to GGUF as ${what}`);
}

// Tensors -----------------------------------------------------------------------

/** llama.cpp's name of one of our parameters. */
export function ggufName(name: string): string {
  const fixed: Record<string, string> = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
  };
  if (Object.hasOwn(fixed, name)) return fixed[name];
  const match = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name);
  const part = match === null ? undefined : BLOCK_NAMES[match[2]];
  if (match === null || part === undefined) {
    throw cannotExport(`llama.cpp has no name for the parameter ${name}`);
  }
  return `blk.${match[1]}.${part}.${match[3]}`;
}

/**
 * Rows of a query or key projection in the order of interleaved rotary positions.
 *
 * Our heads, as Hugging Face's, turn number i with number i + Dh / 2 ("rotate half"); llama.cpp's turn
 * number 2 i with number 2 i + 1 (Su et al., arXiv:2104.09864, Eq. 34). Within each head
 *
 *   row 2 i + j of the result = row j Dh / 2 + i,   j = 0, 1
 *
 * for query and key alike, so that every product q k stays the same.
 *
 * @param values Row-major [heads headDim, columns]; a bias has one column.
 */
export function interleaveHeads(
  values: Float32Array,
  headDim: number,
  columns: number,
): Float32Array {
  const out = new Float32Array(values.length);
  headRows(headDim, values.length / columns).forEach((from, row) =>
    out.set(
      values.subarray(from * columns, (from + 1) * columns),
      row * columns,
    )
  );
  return out;
}

/** The inverse of `interleaveHeads`. */
export function separateHeads(
  values: Float32Array,
  headDim: number,
  columns: number,
): Float32Array {
  const out = new Float32Array(values.length);
  headRows(headDim, values.length / columns).forEach((to, row) =>
    out.set(values.subarray(row * columns, (row + 1) * columns), to * columns)
  );
  return out;
}

/** Which of our rows each of llama.cpp's is. */
function headRows(headDim: number, rows: number): number[] {
  return Array.from({ length: rows }, (_, row) => {
    const within = row % headDim;
    const [i, j] = [Math.floor(within / 2), within % 2];
    return row - within + j * headDim / 2 + i;
  });
}

/** What each rotary frequency is divided by, for scalings that differ between them. */
function ropeFactors(config: ResolvedConfig): GgufTensor[] {
  if (config.ropeScaling?.type !== "llama3") return [];
  const scaled = ropeFrequencies(config);
  const plain = ropeFrequencies({ ...config, ropeScaling: undefined });
  const factors = Float32Array.from(plain, (w, i) => w / scaled[i]);
  return [encodeTensor("rope_freqs.weight", "F32", [factors.length], factors)];
}

function modelTensors(
  params: LlamaParams,
  config: ResolvedConfig,
  type: GgufTensorType,
  embeddingType: GgufTensorType,
): GgufTensor[] {
  const shapes = parameterShapes(config);
  const named = flatten(params);
  for (const name of new Set([...Object.keys(named), ...Object.keys(shapes)])) {
    const [given, wanted] = [named[name]?.shape, shapes[name]];
    if (given?.join() === wanted?.join()) continue;
    throw cannotExport(
      `its parameters must be those of its configuration: ${name} ` +
        `[${given ?? "missing"}] instead of [${wanted ?? "none"}]`,
    );
  }
  const tensors = Object.entries(shapes).map(([name, shape]) => {
    // A copy, as the engine goes on using its own.
    let values: Float32Array = (named[name].dataSync() as Float32Array).slice();
    if (/\.(q|k)_proj\./.test(name)) {
      values = interleaveHeads(values, config.headDim, shape[1] ?? 1);
    }
    const wanted = shape.length === 1
      ? "F32"
      : /^(model\.embed_tokens|lm_head)\./.test(name)
      ? embeddingType
      : type;
    return encodeTensor(ggufName(name), wanted, shape, values);
  });
  return [...tensors, ...ropeFactors(config)];
}

// Metadata ----------------------------------------------------------------------

const text = (value: string): GgufValue => ({ type: "string", value });
const uint32 = (value: number): GgufValue => ({ type: "uint32", value });
const float32 = (value: number): GgufValue => ({ type: "float32", value });
const bool = (value: boolean): GgufValue => ({ type: "bool", value });

function modelMetadata(config: ResolvedConfig): [string, GgufValue][] {
  const { ropeScaling } = config;
  const entries: [string, GgufValue][] = [
    ["block_count", uint32(config.numLayers)],
    ["context_length", uint32(config.maxPositions)],
    ["embedding_length", uint32(config.hiddenSize)],
    ["feed_forward_length", uint32(config.intermediateSize)],
    ["attention.head_count", uint32(config.numHeads)],
    ["attention.head_count_kv", uint32(config.numKvHeads)],
    ["attention.key_length", uint32(config.headDim)],
    ["attention.value_length", uint32(config.headDim)],
    ["attention.layer_norm_rms_epsilon", float32(config.rmsNormEps)],
    ["rope.dimension_count", uint32(config.headDim)],
    ["rope.freq_base", float32(config.ropeTheta)],
    ["vocab_size", uint32(config.vocabSize)],
  ];
  if (ropeScaling?.type === "linear") {
    entries.push(
      ["rope.scaling.type", text("linear")],
      ["rope.scaling.factor", float32(ropeScaling.factor)],
    );
  }
  return entries.map(([key, value]) => [`llama.${key}`, value]);
}

type Json = Record<string, unknown>;

/** llama.cpp's name of the pre-tokenizer of a tokenizer.json. */
function preTokenizer(json: Json): string {
  const refuse = () =>
    cannotExport(
      `its pre-tokenizer must be GPT-2's or LLaMA 3's, without a normalizer: ` +
        JSON.stringify({
          normalizer: json.normalizer,
          pre_tokenizer: json.pre_tokenizer,
        }).slice(0, 200),
    );
  const model = json.model as Json;
  const pre = json.pre_tokenizer as Json | null;
  if (json.normalizer || pre === null || typeof pre !== "object") {
    throw refuse();
  }
  const plain = (node: Json) =>
    node?.type === "ByteLevel" && node.add_prefix_space === false;
  if (plain(pre) && pre.use_regex !== false && !model.ignore_merges) {
    return "gpt-2";
  }
  const [split, bytes] = pre.type === "Sequence"
    ? pre.pretokenizers as Json[]
    : [];
  if (
    split?.type === "Split" && plain(bytes) && bytes.use_regex === false &&
    (split.pattern as Json)?.Regex === LLAMA3_PATTERN &&
    split.behavior === "Isolated" && split.invert === false &&
    model.ignore_merges === true
  ) {
    return "llama-bpe";
  }
  throw refuse();
}

/** Tokens by id with their kinds; ids that no token has are filled up. */
function vocabulary(json: Json, size: number) {
  const tokens: (string | undefined)[] = new Array(size).fill(undefined);
  const kinds = new Int32Array(size).fill(TOKEN_TYPES.unused);
  const { vocab } = json.model as { vocab: Record<string, number> };
  for (const [token, id] of Object.entries(vocab)) {
    tokens[id] = token;
    kinds[id] = TOKEN_TYPES.normal;
  }
  const added = (json.added_tokens ?? []) as {
    id: number;
    content: string;
    special: boolean;
  }[];
  for (const { id, content, special } of added) {
    tokens[id] = content;
    kinds[id] = special ? TOKEN_TYPES.control : TOKEN_TYPES.userDefined;
  }
  return { tokens: tokens.map((token, id) => token ?? `[PAD${id}]`), kinds };
}

function tokenizerMetadata(
  tokenizer: Tokenizer,
  config: ResolvedConfig,
  eosTokenId: number,
  bosTokenId: number,
): [string, GgufValue][] {
  const json = tokenizer.toJson() as Json;
  const model = json.model as { merges: (string | [string, string])[] };
  if ((json.decoder as Json | null)?.type !== "ByteLevel") {
    throw cannotExport(
      `its vocabulary must be byte-level: decoder ${
        JSON.stringify(json.decoder).slice(0, 100)
      }`,
    );
  }
  for (
    const [what, ids, id] of [
      ["before", tokenizer.prefix, bosTokenId],
      ["after", tokenizer.suffix, eosTokenId],
    ] as const
  ) {
    if (ids.length > 1 || (ids.length === 1 && ids[0] !== id)) {
      throw cannotExport(
        `the tokenizer may put only the token ${id} ${what} a text: ids ${ids}`,
      );
    }
  }
  const { tokens, kinds } = vocabulary(json, config.vocabSize);
  const merges = model.merges.map((pair) =>
    typeof pair === "string" ? pair : pair.join(" ")
  );
  const entries: [string, GgufValue][] = [
    ["model", text("gpt2")],
    ["pre", text(preTokenizer(json))],
    ["tokens", { type: "array", of: "string", value: tokens }],
    ["token_type", { type: "array", of: "int32", value: kinds }],
    ["merges", { type: "array", of: "string", value: merges }],
    ["bos_token_id", uint32(bosTokenId)],
    ["eos_token_id", uint32(eosTokenId)],
    ["add_bos_token", bool(tokenizer.prefix.length > 0)],
    ["add_eos_token", bool(tokenizer.suffix.length > 0)],
  ];
  return entries.map(([key, value]) => [`tokenizer.ggml.${key}`, value]);
}

// The whole ---------------------------------------------------------------------

/**
 * A language model with its tokenizer as a GGUF file that llama.cpp opens.
 *
 * @param params Parameters whose shapes are those of the configuration.
 * @param config The shape of the model.
 * @param tokenizer Byte-level.
 * @param options How numbers are stored, and which token ends a text.
 * @returns What `writeGguf` and `saveGguf` take.
 * @throws {RangeError} If parameters and configuration differ, a matrix has rows that do not fill
 *   blocks of 32, a number cannot be stored, or the tokenizer is of another kind.
 *
 * @example
 * ```ts
 * const { params, config, tokenizer, eosTokenIds } = loadHuggingFace("data/models/small");
 * const file = exportGguf(params, config, tokenizer, {
 *   type: "Q8_0",
 *   eosTokenId: eosTokenIds[0],
 * });
 * saveGguf("small-Q8_0.gguf", file);
 * ```
 */
export function exportGguf(
  params: LlamaParams,
  config: LlamaConfig,
  tokenizer: Tokenizer,
  {
    type = "F32",
    embeddingType = type,
    eosTokenId,
    bosTokenId,
    name = "Adiabat LLaMA",
  }: ExportGgufOptions,
): GgufFile {
  const resolved = resolveConfig(config);
  const { vocabSize } = resolved;
  for (const [option, value] of Object.entries({ type, embeddingType })) {
    if (Object.hasOwn(FILE_TYPES, value)) continue;
    throw cannotExport(
      `${option} must be one of ${
        Object.keys(FILE_TYPES).join(", ")
      }: ${value}`,
    );
  }
  if (tokenizer.vocabSize > vocabSize) {
    throw cannotExport(
      `the embedding must have a row for each token: vocabSize ${vocabSize}, ` +
        `${tokenizer.vocabSize} tokens`,
    );
  }
  const bos = bosTokenId ?? eosTokenId;
  for (const id of [eosTokenId, bos]) {
    if (!Number.isSafeInteger(id) || id < 0 || id >= vocabSize) {
      throw cannotExport(
        `the ids that begin and end a text must be tokens: vocabSize ${vocabSize}, id ${id}`,
      );
    }
  }
  const general: [string, GgufValue][] = [
    ["general.architecture", text("llama")],
    ["general.name", text(name)],
    ["general.file_type", uint32(FILE_TYPES[type])],
    ["general.quantization_version", uint32(QUANTIZATION_VERSION)],
  ];
  return {
    metadata: new Map([
      ...general,
      ...modelMetadata(resolved),
      ...tokenizerMetadata(tokenizer, resolved, eosTokenId, bos),
    ]),
    tensors: modelTensors(params, resolved, type, embeddingType),
  };
}
