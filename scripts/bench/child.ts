/**
 * One benchmarked process: runs the task of its argument, answers with one line of JSON on stdout.
 *
 *     node --import tsx scripts/bench/child.ts '{"gpt": {...}}'
 */
import process from "node:process";
import { ready } from "../../lib/core/tensor.ts";
import { type GemmTask, timeGemm } from "./gemm.ts";
import { type GptTask, timeGpt } from "./gpt.ts";
import { timeOwn } from "./quant.ts";

/** What bench.ts asks of a process: a measurement, or which backend it would use. */
export type Task =
  | { gpt: GptTask }
  | { gemm: GemmTask }
  | { quant: { repeats: number } }
  | { describe: true };

async function run(task: Task): Promise<unknown> {
  if ("gpt" in task) return await timeGpt(task.gpt);
  if ("gemm" in task) return await timeGemm(task.gemm);
  if ("quant" in task) return await timeOwn(task.quant);
  return await ready();
}

run(JSON.parse(process.argv[2]))
  .then((result) => console.log(JSON.stringify(result)))
  .catch((error: Error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
