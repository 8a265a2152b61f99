/**
 * The committed base models are those of the published record: the held-out loss that the record
 * holds is computed again from the files.
 */
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadHuggingFace } from "../lib/core/formats/huggingface.ts";
import { evaluate } from "../lib/core/llama.ts";
import { findArm, loadSummary, projectRoot } from "../lib/core/runs.ts";
import type { RunContext } from "../lib/core/runs.ts";
import { ready, tf } from "../lib/core/tensor.ts";
import base from "../lib/experiments/base.ts";
import {
  domainSplit,
  evaluationWindows,
  tokensOf,
} from "../lib/experiments/text.ts";
import { installData } from "../scripts/install-data.ts";

await ready();
await installData();

/** Weights are stored in half precision: a relative error of 2^-11 each, which averages out. */
const HALF_PRECISION_LOSS = 5e-4;

const context = { data() {} } as unknown as RunContext;
const { domains, length, evaluationWindows: limit } = base.profiles.full as {
  domains: string[];
  length: number;
  evaluationWindows: number;
};

for (const name of ["small", "base"]) {
  test(`data/models/${name} has the recorded loss`, () => {
    const { metrics } = findArm(loadSummary("base")!.arms, name);
    const folder = join(projectRoot(), "data", "models", name);
    const { params, config, tokenizer } = loadHuggingFace(folder);
    for (const domain of domains.slice(-1)) { // one is enough to tell a model by
      const { validation } = domainSplit(domain, context);
      const windows = evaluationWindows(tokensOf(validation, tokenizer), {
        length,
        limit,
      });
      const { loss } = evaluate(params, config, windows);
      const recorded = metrics[`validationLoss.${domain}`].mean;
      assert.ok(
        Math.abs(loss - recorded) < HALF_PRECISION_LOSS,
        `${name} on ${domain}: ${loss}, recorded ${recorded}`,
      );
    }
    tf.disposeVariables();
  });
}

test.run();
