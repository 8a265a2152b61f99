/** How fast a whole model reads and writes in our engine, by the bits of its matrices and their inputs. */
import { createEngine, type EngineOptions } from "../core/engine.ts";
import type { LlamaConfig, LlamaParams } from "../core/llama.ts";
import type {
  ArmSummary,
  Measurement,
  Metrics,
  ResultTable,
  RunContext,
} from "../core/runs.ts";
import { mean, pairedDifference } from "../core/stats.ts";

export interface SpeedOptions {
  /** Tokens that are read. */
  prompt: Int32Array;
  /** Rounds that count. */
  repeats: number;
}

/** Rounds before the first that counts: both compilers of the engine have finished by then. */
const WARM_UP = 3;

/** Tokens that are written behind the prompt. */
const DECODED = 16;

/**
 * Processor time of reading a prompt and of decoding, by engine; one after the other in turns, so that what else
 * the machine does meets all alike. Quantising inputs is in the time, packing weights is not.
 */
export function measureSpeed(
  { params, config }: { params: LlamaParams; config: LlamaConfig },
  options: Record<string, EngineOptions>,
  { prompt, repeats }: SpeedOptions,
  context: RunContext,
): Metrics {
  const metrics: Metrics = {};
  const engines = Object.entries(options).map(([name, own]) => {
    const engine = createEngine(params, config, own);
    metrics[`${name}.modelBytes`] = engine.modelBytes;
    return { name, engine, prefill: [] as number[], decode: [] as number[] };
  });
  for (let round = -WARM_UP; round < repeats; round++) {
    for (const { engine, prefill, decode } of engines) {
      engine.reset();
      const start = context.cpuSeconds();
      engine.prefill(prompt);
      const middle = context.cpuSeconds();
      for (let i = 0; i < DECODED; i++) {
        engine.decode(prompt[i % prompt.length]);
      }
      if (round < 0) continue;
      prefill.push(middle - start);
      decode.push(context.cpuSeconds() - middle);
    }
  }
  for (const { name, prefill, decode } of engines) {
    context.timing(`${name}.prefillSeconds`, median(prefill));
    context.timing(`${name}.decodeSeconds`, median(decode) / DECODED);
  }
  return metrics;
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const n = sorted.length;
  return mean([sorted[(n - 1) >> 1], sorted[n >> 1]]);
}

/** CPU time of one engine over that of another, paired by seed; "prefill" or "decode". */
export function timeRatio(
  { timings }: ArmSummary,
  slow: string,
  fast: string,
  phase: "prefill" | "decode",
): Measurement {
  const [a, b] = [slow, fast].map((name) => timings[`${name}.${phase}Seconds`]);
  const logs = pairedDifference(
    a.values.map(Math.log),
    b.values.map(Math.log),
  );
  const ms = (x: number) => (1000 * x).toPrecision(3);
  return {
    value: Math.exp(logs.value),
    low: Math.exp(a.n > 1 ? logs.low : logs.value),
    high: Math.exp(a.n > 1 ? logs.high : logs.value),
    n: a.n,
    unit: "x",
    note: `${phase}, whole model in WebAssembly on one core: ${slow} ${
      ms(a.mean)
    } ms, ${fast} ${ms(b.mean)} ms; ${a.n} processes`,
  };
}

/**
 * A row for each engine of an arm that `measureSpeed` made; the first is what the others are compared with.
 *
 * @param mixes engines whose tokens have bits by importance: one token at a time, as decoding reads them, is no mix,
 * so that they get no time for it
 */
export function speedTable(
  { timings, metrics }: ArmSummary,
  { id, caption, mixes = () => false }:
    & Pick<ResultTable, "id" | "caption">
    & { mixes?: (engine: string) => boolean },
): ResultTable {
  const suffix = ".prefillSeconds";
  const names = Object.keys(timings).filter((name) => name.endsWith(suffix))
    .map((name) => name.slice(0, -suffix.length));
  const base = "float";
  const ratio = (name: string, phase: "prefill" | "decode") =>
    timings[`${base}.${phase}Seconds`].mean /
    timings[`${name}.${phase}Seconds`].mean;
  return {
    id,
    title: "Time of the whole model in our engine",
    caption,
    columns: [
      "engine",
      "prefill (ms)",
      "decode (ms/token)",
      `prefill, ${base} / this`,
      `decode, ${base} / this`,
      "model (MB)",
    ],
    rows: names.map((name) => [
      name,
      1000 * timings[`${name}.prefillSeconds`].mean,
      mixes(name) ? null : 1000 * timings[`${name}.decodeSeconds`].mean,
      ratio(name, "prefill"),
      mixes(name) ? null : ratio(name, "decode"),
      metrics[`${name}.modelBytes`].mean / 1e6,
    ]),
  };
}
