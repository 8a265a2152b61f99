/** What the Agile-Quant runs say: the figure of quality against speed has the engines' own losses. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type ArmSummary, summariseMetric } from "../lib/core/runs.ts";
import experiment, { type Config } from "../lib/experiments/agile-quant.ts";
import { figures } from "../lib/experiments/agile-quant.report.ts";

const config = experiment.profiles.full as Config;

/** Seconds of reading by engine, and losses if they were measured. */
function speedArm(losses?: Record<string, number>): ArmSummary {
  const seconds = { float: 0.4, w8a8: 0.2, w4a8: 0.2, w4a4: 0.1 };
  return {
    id: "speed",
    config: {},
    seeds: [1],
    metrics: Object.fromEntries(
      Object.entries(losses ?? {}).map(([name, loss]) => [
        `${name}.loss`,
        summariseMetric([loss]),
      ]),
    ),
    series: {},
    timings: Object.fromEntries(
      Object.entries(seconds).flatMap(([name, value]) =>
        ["prefill", "decode"].map((phase) => [
          `${name}.${phase}Seconds`,
          summariseMetric([value]),
        ])
      ),
    ),
    seconds: 1,
  };
}

test("quality against speed: perplexity of the engine that is timed over that of its float self", () => {
  const find = (arm: ArmSummary) =>
    figures([arm], config).find(({ id }) => id === "agile-quant-pareto");
  const figure = find(speedArm({ float: 3, w8a8: 3, w4a8: 3.1, w4a4: 3.5 }));
  assert.ok(figure);
  const points = figure.data.flatMap(({ name, x, y }) =>
    (x as number[]).map((speed, i) => [name, speed, (y as number[])[i]])
  );
  const [, speed, ratio] = points.find(([name]) => name === "W4A4, prefill")!;
  assert.ok(Math.abs(speed as number - 4) < 1e-9);
  assert.ok(Math.abs(ratio as number - Math.exp(0.5)) < 1e-9);
  assert.is(find(speedArm()), undefined); // no losses, no figure
});

test.run();
