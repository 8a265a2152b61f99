/**
 * The verdict tables from the recorded full runs, without running anything.
 *
 *   claims.ts            prints them
 *   claims.ts --check    says what does not fit: a claims file that breaks its schema, a damaged or
 *                        hand-edited result set, a measured claim without its measurement
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { loadClaims, verdictRows } from "../lib/core/claims.ts";
import { loadSummary, projectRoot } from "../lib/core/runs.ts";
import { experiments, loadExperiment } from "../lib/experiments/index.ts";
import { describeError, main } from "./cli.ts";
import { origin, verdictText } from "./pipeline.ts";

/** Names of the papers that have a claims file or an experiment. */
function paperNames(): string[] {
  const folder = join(projectRoot(), "data", "claims");
  const files = existsSync(folder) ? readdirSync(folder) : [];
  const named = files.filter((f) => f.endsWith(".json"))
    .map((f) => f.replace(/\.json$/, ""));
  return [...new Set([...named, ...Object.keys(experiments)])].sort();
}

/** The verdict table of one paper, or what there is instead of it. */
async function verdictsOf(name: string): Promise<string> {
  const claims = loadClaims(name);
  const full = loadSummary(name, "full");
  if (claims === null) {
    return `${name}: ${full === null ? "not run" : origin(full)}, no claims`;
  }
  const experiment = full === null ? null : await loadExperiment(name);
  const recorded = full === null
    ? null
    : experiment!.measure(full.arms, full.config as object);
  return verdictText(
    claims.paper,
    verdictRows(claims, recorded),
    full === null ? "none" : origin(full),
    "not run now",
  );
}

await main(async () => {
  const { values: { check } } = parseArgs({
    options: { check: { type: "boolean", default: false } },
  });
  let failures = 0;
  const names = paperNames();
  for (const name of names) {
    try {
      const text = await verdictsOf(name);
      if (!check) console.log(text);
    } catch (error) {
      console.error(`${name}: ${describeError(error)}`);
      failures++;
    }
  }
  if (check) {
    console.log(`claims of ${names.length} papers, ${failures} with errors`);
  }
  return failures === 0 ? 0 : 1;
});
