/**
 * EdgeQAT: quantisation-aware training of small language models, guided by entropy and attention maps.
 *
 * X. Shen et al., "EdgeQAT: Entropy and Distribution Guided Quantization-Aware Training for the Acceleration
 * of Lightweight LLMs on the Edge", arXiv 2402.10787; v2 is "Squat: Quant Small Language Models on the Edge"
 * (ICCAD 2025).
 *
 * A float model becomes a student whose weights, activations, queries, keys and values are rounded to a few
 * bits, one scale per matrix. The student learns from the float model's predictions; one loss keeps its
 * queries and keys spread out, another its attention maps like the teacher's. Tokens that attend to the first
 * one get 8 bits, the others 4.
 *
 * | paper | identifier |
 * | --- | --- |
 * | Eq. 1 to 7, quantizers | `METHODS` |
 * | Eq. 12, L_E | `entropyLoss` |
 * | Eq. 13, L_D | `distributionLoss` |
 * | Eq. 14, bits of tokens, rho | `importantTokens`, `TokenBits` |
 * | section IV-D, L_distill | `distillationLoss` |
 * | Eq. 16, L_total | `qatLoss` |
 *
 * Scope: fake quantisation on models of core/llama.ts. The multiplier of section IV-E is in core/integer.
 * One teacher, the float model itself; the released code averages three.
 */
export * from "./importance.ts";
export * from "./losses.ts";
export * from "./methods.ts";
export * from "./student.ts";
export * from "./train.ts";
export * from "./pairs.ts";
export * from "./deploy.ts";
