/**
 * Adiabat: literate experiments for frugal computing.
 *
 * One namespace per paper, then what they share:
 *
 * ```ts
 * import { rora, runs, show } from "adiabat";
 * ```
 */

// Papers
export * as agentDistillation from "./agent-distillation/mod.ts";
export * as aqfpLca from "./aqfp-lca/mod.ts";
export * as edgeqat from "./edgeqat/mod.ts";
export * as fusion from "./fusion/mod.ts";
export * as quasarVit from "./quasar-vit/mod.ts";
export * as rora from "./rora/mod.ts";
export * as superbnn from "./superbnn/mod.ts";
export * as superflow from "./superflow/mod.ts";
export * as triLevelEvit from "./tri-level-evit/mod.ts";

export * as agileQuant from "./agile-quant/mod.ts";

// Models and training
export * as datasets from "./core/datasets.ts";
export * as engine from "./core/engine.ts";
export * as imageFolder from "./core/image-folder.ts";
export * as images from "./core/images.ts";
export * as integer from "./core/integer/bindings.ts";
export * as llama from "./core/llama.ts";
export * as mail from "./core/mail.ts";
export * as minimalPairs from "./core/minimal-pairs.ts";
export * as nn from "./core/nn.ts";
export * as optim from "./core/optim.ts";
export * as quantizer from "./core/quantizer.ts";
export * as rng from "./core/rng.ts";
export * as sentenceEncoder from "./core/sentence-encoder.ts";
export * as tensor from "./core/tensor.ts";
export * as vit from "./core/vit.ts";
export * as tokenizer from "./core/tokenizer.ts";

// Circuits
export * as aqfp from "./core/aqfp.ts";
export * as yosys from "./superflow/yosys.ts";

// Formats
export * as checkpoint from "./core/formats/checkpoint.ts";
export * as gds from "./core/formats/gds.ts";
export * as gguf from "./core/formats/gguf.ts";
export * as ggufLlama from "./core/formats/gguf-llama.ts";
export * as huggingface from "./core/formats/huggingface.ts";
export * as onnx from "./core/formats/onnx.ts";
export * as onnxLlama from "./core/formats/onnx-llama.ts";
export * as peft from "./core/formats/peft.ts";
export * as safetensors from "./core/formats/safetensors.ts";
export * as verilog from "./core/formats/verilog.ts";

// Experiments and results
export * as claims from "./core/claims.ts";
export * as experiments from "./experiments/index.ts";
export * as figure from "./core/figure.ts";
export * as provenance from "./core/provenance.ts";
export * as report from "./core/report.ts";
export * as runs from "./core/runs.ts";
export * as show from "./core/show.ts";
export * as stats from "./core/stats.ts";
export * as table from "./core/table.ts";
