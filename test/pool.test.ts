import { mkdirSync, mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type Arm,
  artifactPath,
  type Json,
  projectRoot,
  readRecord,
  recordPath,
} from "../lib/core/runs.ts";
import { loadExperiment } from "../lib/experiments/index.ts";
import { applyOverrides } from "../scripts/cli.ts";
import {
  checkArms,
  type Outcome,
  type Plan,
  planRuns,
  type PoolOptions,
  runPool,
  type Task,
} from "../scripts/pool.ts";
import toy from "./fixtures/toy.ts";

const MODULE = "test/fixtures/toy.ts";
const folder = mkdtempSync(join(tmpdir(), "adiabat-pool-"));
test.before.each(() => {
  process.env.ADIABAT_CACHE = mkdtempSync(join(folder, "cache-"));
});
test.after(() => rmSync(folder, { recursive: true, force: true }));

function planToy(...overrides: string[]): Promise<Plan> {
  const config = applyOverrides(toy.profiles.quick, overrides);
  return planRuns(MODULE, toy, "quick", config);
}

/** Runs a plan; returns the outcomes' status by task, in the order in which they finished. */
async function pool(
  plan: Plan,
  options: Partial<PoolOptions> = {},
): Promise<{
  order: string[];
  status: Record<string, string>;
  outcomes: Map<string, Outcome>;
  messages: string[];
}> {
  const order: string[] = [];
  const status: Record<string, string> = {};
  const messages: string[] = [];
  const outcomes = await runPool(plan.tasks.flat(), {
    jobs: 1,
    runsPerProcess: Infinity,
    onFinish(task, outcome) {
      order.push(`${task.spec.arm} ${task.spec.seed}`);
      status[`${task.spec.arm} ${task.spec.seed}`] = outcome.status;
    },
    onMessage: (message) => messages.push(message),
    ...options,
  });
  return { order, status, outcomes, messages };
}

function taskOf(plan: Plan, arm: string, seed: number): Task {
  return plan.tasks.flat()
    .find((t) => t.spec.arm === arm && t.spec.seed === seed)!;
}

function counts(status: Record<string, string>): Record<string, number> {
  const total: Record<string, number> = {};
  for (const s of Object.values(status)) total[s] = (total[s] ?? 0) + 1;
  return total;
}

test("arms run after those they need, whatever their order", async () => {
  const plan = await planToy();
  assert.is(plan.arms[0].id, "slow"); // listed first, needs "points"
  const { order, status } = await pool(plan, { jobs: 2 });
  assert.is(order[0], "points 0");
  assert.equal(counts(status), { computed: 7 });

  const runs = join(process.env.ADIABAT_CACHE!, "runs", "toy");
  const names = readdirSync(runs, { recursive: true }).map(String);
  assert.is(names.filter((n) => n.includes(".tmp-")).length, 0);
  assert.is(names.filter((n) => n.endsWith(".json")).length, 7);
});

test("a second time everything is cached, unless fresh", async () => {
  const plan = await planToy("seeds=1");
  await pool(plan);
  assert.equal(counts((await pool(plan)).status), { cached: 3 });
  const again = await planToy("seeds=1");
  assert.equal(counts((await pool(again, { fresh: true })).status), {
    computed: 3,
  });
});

test("a changed config computes what depends on it, and no more", async () => {
  await pool(await planToy("seeds=1"));
  const rate = await pool(await planToy("seeds=1", "rates.fast=0.2"));
  assert.equal(rate.status, {
    "slow 1": "cached",
    "points 0": "cached",
    "fast 1": "computed",
  });
  // The fits read the points, so other points make other fits.
  const points = await pool(await planToy("seeds=2", "points=21"));
  assert.equal(counts(points.status), { computed: 5 });
  const fewer = await pool(await planToy("seeds=1", "points=21"));
  assert.equal(counts(fewer.status), { cached: 3 });
});

test("a changed imported file makes every run stale; changing it back finds them", async () => {
  // A copy of the toy two levels below the project root, so that its imports hold.
  mkdirSync(join(projectRoot(), ".cache"), { recursive: true });
  const place = mkdtempSync(join(projectRoot(), ".cache", "test-"));
  try {
    for (const name of ["toy.ts", "toy-loss.ts"]) {
      const text = readFileSync(join(projectRoot(), "test/fixtures", name));
      writeFileSync(join(place, name), text);
    }
    const module = join(place, "toy.ts");
    const helper = join(place, "toy-loss.ts");
    const run = async () => {
      const experiment = await loadExperiment(module);
      const config = { ...toy.profiles.smoke };
      return counts(
        (await pool(await planRuns(module, experiment, "smoke", config)))
          .status,
      );
    };
    assert.equal(await run(), { computed: 3 });
    assert.equal(await run(), { cached: 3 });
    const original = readFileSync(helper, "utf8");
    writeFileSync(helper, original.replace("2 * error", "2.5 * error"));
    assert.equal(await run(), { computed: 3 });
    writeFileSync(helper, original);
    assert.equal(await run(), { cached: 3 });
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
});

test("a truncated or edited record, or a damaged artefact, is reported and computed again", async () => {
  const plan = await planToy("seeds=1");
  await pool(plan);
  const damage: [string, (path: string) => void][] = [
    ["fast", (path) => writeFileSync(path, readFileSync(path).subarray(0, 99))],
    ["slow", (path) => {
      const text = readFileSync(path, "utf8");
      writeFileSync(path, text.replace(/"error": \d/, '"error": 9'));
    }],
  ];
  for (const [arm, spoil] of damage) {
    const task = taskOf(plan, arm, 1);
    const good = readRecord(MODULE, task.key);
    spoil(recordPath(MODULE, task.key));
    const { status, messages } = await pool(plan);
    assert.is(status[`${arm} 1`], "computed");
    assert.equal(counts(status), { cached: 2, computed: 1 });
    assert.is(messages.length, 1);
    assert.match(messages[0], `toy ${arm} seed 1: record damaged, running`);
    assert.equal(readRecord(MODULE, task.key)?.metrics, good?.metrics);
  }
  const { key } = taskOf(plan, "points", 0);
  writeFileSync(artifactPath(MODULE, key, "xy.f32"), "x");
  assert.is((await pool(plan)).status["points 0"], "computed");
});

test("same numbers in one process as in a process for each", async () => {
  const plan = await planToy("seeds=1");
  const numbers = async (options: Partial<PoolOptions>) => {
    const { outcomes } = await pool(plan, { fresh: true, ...options });
    return plan.tasks.flat().map((task) => {
      const outcome = outcomes.get(task.key)!;
      if (!("record" in outcome)) throw new Error(outcome.message);
      const { metrics, series, artifacts } = outcome.record;
      return { metrics, series, artifacts };
    });
  };
  const one = await numbers({ jobs: 1 });
  assert.equal(await numbers({ jobs: 2, runsPerProcess: 1 }), one);
});

test("a failing arm leaves the others alone; what is said fits the cause", async () => {
  const plan = await planToy("seeds=4", "failure.arm=fast");
  const ways = ["nan", "throw", "exit", "crash"];
  const fast = plan.tasks[2];
  const messages: string[] = [];
  fast.forEach((task, i) => {
    task.spec = {
      ...task.spec,
      config: { ...task.spec.config, failure: ways[i] },
    };
  });
  const { outcomes, status } = await pool(plan);
  assert.equal(counts(status), { computed: 5, failed: 4 });
  for (const task of fast) {
    assert.is(readRecord(MODULE, task.key), null);
    const outcome = outcomes.get(task.key)!;
    messages.push("message" in outcome ? outcome.message : "");
  }
  assert.is(
    messages[0],
    "Cannot continue training as the loss is NaN: step 3, last finite loss 1.5",
  );
  assert.match(messages[1], /^TypeError: unforeseen\n {2}\| at fail .*toy/);
  assert.match(messages[2], /exit code 3\n {2}\| last words$/);
  assert.match(messages[3], /signal SIGKILL/);
});

test("arms that need a failed one are skipped, and say so", async () => {
  const plan = await planToy(
    "seeds=1",
    "failure.arm=points",
    "failure.how=nan",
  );
  const { outcomes, status } = await pool(plan);
  assert.equal(counts(status), { failed: 1, skipped: 2 });
  const outcome = outcomes.get(taskOf(plan, "slow", 1).key)!;
  assert.match(
    "message" in outcome ? outcome.message : "",
    /needs toy points seed 0/,
  );
});

test("runs of the same key are made once; what the pool tells adds up", async () => {
  const plan = await planToy("seeds=1");
  const fractions: number[] = [];
  const tasks = [...plan.tasks, ...plan.tasks];
  const { order } = await pool({ ...plan, tasks }, {
    onChange: ({ fraction, running }) => {
      fractions.push(fraction);
      assert.ok(running.length <= 1);
    },
  });
  assert.is(order.length, 3);
  assert.is(fractions[fractions.length - 1], 1);
  assert.ok(fractions.every((f) => f >= 0 && f <= 1));
});

test("arms that cannot be planned: the error names them", async () => {
  const arm = (id: string, needs: string[] = [], seeds = [1]): Arm => ({
    id,
    config: {} as Record<string, Json>,
    seeds,
    needs,
  });
  assert.throws(() => checkArms("x", [arm("a"), arm("a")]), /unique: "a"/);
  assert.throws(() => checkArms("x", [arm("a", ["b"])]), /unknown arm: "b"/);
  assert.throws(() => checkArms("x", [arm("a", [], [])]), /"a" has no seeds/);
  assert.throws(
    () => checkArms("x", [arm("a", ["b"]), arm("b", ["a"])]),
    /a -> b -> a/,
  );
  const odd = {
    ...toy,
    arms: () => [arm("a", [], [1, 2]), arm("b", ["a"], [3])],
  };
  try {
    await planRuns(MODULE, odd, "quick", {});
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /"b".*"a".*seed 3 of 1, 2/);
  }
});

test.run();
