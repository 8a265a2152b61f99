import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync } from "node:fs";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadSummary, projectRoot } from "../lib/core/runs.ts";
import {
  applyOverrides,
  didYouMean,
  duration,
  textTable,
} from "../scripts/cli.ts";
import { reproduceMain } from "../scripts/pipeline.ts";

const MODULE = "test/fixtures/toy.ts";
const folder = mkdtempSync(join(tmpdir(), "adiabat-reproduce-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));

/** Folders of caches and results that nothing else uses. */
function freshFolders(): Record<string, string> {
  return {
    ADIABAT_CACHE: mkdtempSync(join(folder, "cache-")),
    ADIABAT_RESULTS: mkdtempSync(join(folder, "results-")),
  };
}

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Starts a script; `onLine` sees its output as it comes. */
function start(
  script: string,
  args: string[],
  env: Record<string, string>,
  onLine: (line: string, child: ChildProcess) => void = () => {},
  input = "",
): Promise<Ended> {
  const child = spawn(
    process.execPath,
    ["--import", "tsx", join("scripts", script), ...args],
    { cwd: projectRoot(), env: { ...process.env, ...env } },
  );
  child.stdin.end(input);
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk) => stdout += chunk);
  createInterface({ input: child.stdout })
    .on("line", (line) => onLine(line, child));
  child.stderr.on("data", (chunk) => stderr += chunk);
  return new Promise((resolve) => {
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}

const QUIET = ["--no-site", "--no-notebook"];

function reproduce(
  args: string[],
  env: Record<string, string> = freshFolders(),
): Promise<Ended> {
  return start("reproduce.ts", [...args, ...QUIET], env);
}

/** Number of run records in a cache. */
function recordCount(env: Record<string, string>): number {
  const runs = join(env.ADIABAT_CACHE, "runs", "toy");
  return existsSync(runs)
    ? readdirSync(runs).filter((f) => f.endsWith(".json")).length
    : 0;
}

test("runs, verdict table, then everything cached; a full run is published", async () => {
  const env = freshFolders();
  const first = await reproduce([MODULE, "--jobs", "1"], env);
  assert.is(first.code, 0, first.stderr);
  assert.match(first.stdout, "toy: 7 runs\n");
  assert.match(first.stdout, /recorded full run: none/);
  assert.match(first.stdout, /fast-is-closer .*n = 3 +scaled +not run/);

  const again = await reproduce([MODULE], env);
  assert.is(again.code, 0);
  assert.match(again.stdout, /toy: 7 runs, all cached \(.* old\)/);

  const full = await reproduce(
    [MODULE, "--profile", "full", "--allow-dirty", "--jobs", "1"],
    env,
  );
  assert.is(full.code, 0, full.stderr);
  assert.match(full.stdout, /toy: 11 runs, 7 cached/);
  assert.match(full.stdout, /fast-is-closer .* \+1\.5 .*n = 5.* match/);
  assert.match(full.stdout, /orbits: out of scope: no comets here/);
  const published = join(env.ADIABAT_RESULTS, "toy", "full.json");
  process.env.ADIABAT_RESULTS = env.ADIABAT_RESULTS;
  const set = loadSummary("toy", "full");
  assert.is(set?.arms.length, 3);
  assert.is(set?.arms[0].seeds.length, 5);

  writeFileSync(
    published,
    readFileSync(published, "utf8").replace('"n":5', '"n":6'),
  );
  const edited = await reproduce([MODULE], env);
  assert.is(edited.code, 1);
  assert.match(edited.stderr, /full\.json .*edited or damaged/);
});

test("a claim that differs is no failure; a claim without its measurement is", async () => {
  mkdirSync(join(projectRoot(), ".cache"), { recursive: true });
  const place = mkdtempSync(join(projectRoot(), ".cache", "test-"));
  try {
    const copy = (name: string, edit = (text: string) => text) => {
      const path = join(projectRoot(), "test/fixtures", name);
      writeFileSync(join(place, name), edit(readFileSync(path, "utf8")));
    };
    copy("toy.ts");
    copy("toy-loss.ts");
    copy(
      "toy.claims.json",
      (text) =>
        text.replace('"value": 1.5', '"value": -1.5').replace(
          '"higher"',
          '"lower"',
        ),
    );
    const env = freshFolders();
    const args = [join(place, "toy.ts"), "--profile", "full", "--allow-dirty"];
    const differs = await reproduce([...args, "--jobs", "1"], env);
    assert.is(differs.code, 0, differs.stderr);
    assert.match(differs.stdout, /fast-is-closer .* differs/);
    assert.match(differs.stdout, /opposite effect/);

    copy("toy.claims.json", (text) => text.replace("fast-is-c", "fast-is-f"));
    const missing = await reproduce(args, env);
    assert.is(missing.code, 1);
    assert.match(missing.stderr, /"fast-is-closer" as no measured claim/);
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
});

test("a failing arm: the others run, the exit code is 1, no result set", async () => {
  const env = freshFolders();
  const { code, stdout, stderr } = await reproduce([
    MODULE,
    "--jobs",
    "1",
    "--seeds",
    "1",
    "--set",
    "failure.arm=fast",
    "--set",
    'failure.how="nan"',
  ], env);
  assert.is(code, 1);
  assert.match(
    stdout,
    "toy fast seed 1: failed. Cannot continue training as the loss is NaN: step 3",
  );
  assert.match(stderr, /1 of 3 runs missing/);
  assert.is(recordCount(env), 2);
  assert.not(existsSync(join(env.ADIABAT_CACHE, "summaries")));
});

/** Whether a process still runs. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function waitUntil(what: () => boolean, seconds: number): Promise<void> {
  const end = performance.now() + seconds * 1000;
  while (!what()) {
    if (performance.now() > end) throw new Error(`not after ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

for (const signal of ["SIGKILL", "SIGINT"] as const) {
  test(`${signal} in the middle: children die, finished runs stay, the rest resumes`, async () => {
    const env = freshFolders();
    // The fast fits say their process's id and are held, one in each process.
    const args = [MODULE, "--seeds", "2", "--jobs", "2"];
    const processes = new Set<number>();
    let stopped = false;
    const { code } = await start(
      "reproduce.ts",
      [...args, ...QUIET],
      { ...env, TOY_HOLD_RATE: "0.1" },
      (line, child) => {
        const said = line.match(/: process (\d+)/);
        if (said !== null) processes.add(Number(said[1]));
        if (processes.size === 2 && !stopped) {
          stopped = true;
          child.kill(signal);
        }
      },
    );
    assert.is(code, signal === "SIGKILL" ? null : 130);
    assert.is(processes.size, 2);
    await waitUntil(() => ![...processes].some(isAlive), 10);
    assert.is(recordCount(env), 3); // the points and the slow fits

    const resumed = await reproduce(args, env);
    assert.is(resumed.code, 0, resumed.stderr);
    assert.match(resumed.stdout, "toy: 5 runs, 3 cached");
    assert.is(recordCount(env), 5);
  });
}

test("one run as a process: spec in, record out", async () => {
  const env = freshFolders();
  const spec = {
    experiment: MODULE,
    profile: "smoke",
    arm: "points",
    config: { kind: "points", points: 5 },
    seed: 4,
  };
  const text = JSON.stringify(spec);
  const { code, stdout } = await start("run.ts", ["-"], env, undefined, text);
  assert.is(code, 0);
  const record = JSON.parse(stdout);
  assert.equal(record.metrics, { points: 5 });
  assert.is(record.spec.seed, 4);
  const file = join(folder, "spec.json");
  writeFileSync(file, text);
  const again = await start("run.ts", [file], env);
  assert.is(JSON.parse(again.stdout).key, record.key);
});

test("run with --arm computes that arm and those it needs", async () => {
  const env = freshFolders();
  const { code, stdout } = await start(
    "run.ts",
    [MODULE, "--arm", "fast", "--seed", "2"],
    env,
  );
  assert.is(code, 0);
  assert.match(stdout, '"slope": 1.9');
  assert.is(recordCount(env), 2);
});

test("a wrong name or option: exit code 1, one line on the error stream", async () => {
  const mistakes: [string, string[], RegExp][] = [
    [
      "reproduce.ts",
      ["roar"],
      /^Cannot find paper "roar".*: known papers are \w+/,
    ],
    [
      "reproduce.ts",
      ["--sed", "1"],
      /^Cannot read the command line: .*'--sed'.*--help/,
    ],
    ["run.ts", ["-"], /^Cannot read the run's spec - as it is not JSON/],
  ];
  for (const [script, args, message] of mistakes) {
    const { code, stdout, stderr } = await start(script, args, freshFolders());
    assert.is(code, 1);
    assert.is(stdout, "");
    assert.is(stderr.trimEnd().split("\n").length, 1, stderr);
    assert.match(stderr.trimEnd(), message);
  }
});

/** Message with which a command line is refused before anything runs. */
async function refusal(args: string[], door: "reproduce" | "run") {
  try {
    await reproduceMain(args, door);
  } catch (error) {
    return (error as Error).message;
  }
  return "accepted";
}

test("wrong values: the message names the value and what there is", async () => {
  const cases: [string[], RegExp][] = [
    [
      ["--profile", "ful"],
      /"ful" \(did you mean "full"\?\): profiles are smoke/,
    ],
    [["--jobs", "0"], /^Cannot use --jobs 0 as a whole number/],
    [["--seeds", "two"], /^Cannot use --seeds two as a whole number/],
    [
      [MODULE, "--set", "stesp=3"],
      /^Cannot set unknown key "stesp" \(did you mean "steps"\?\): known keys/,
    ],
    [
      [MODULE, "--set", "steps=many"],
      /^Cannot set "steps" as a value like 30 is required: many$/,
    ],
    [["no/such/module.ts"], /"no\/such\/module.ts"/],
  ];
  for (const [args, message] of cases) {
    assert.match(await refusal(args, "reproduce"), message);
  }
  const runs: [string[], RegExp][] = [
    [[MODULE, "--arm", "fats"], /"fats" \(did you mean "fast"\?\)/],
    [[MODULE, "--arm", "fast", "--seed", "9"], /seed 9 .* are 1, 2, 3/],
    [[MODULE, "toy2.ts"], /^Cannot run 2 papers at once/],
  ];
  for (const [args, message] of runs) {
    assert.match(await refusal(args, "run"), message);
  }
});

test("overrides: dotted paths, JSON values, kinds kept, the defaults untouched", () => {
  const config = { steps: 3, rates: { slow: 0.1 }, names: ["a"], limit: null };
  const changed = applyOverrides(config, [
    "steps=5",
    "rates.slow=1e-3",
    'names=["b","c"]',
    "limit=7",
  ]);
  assert.equal(changed, {
    steps: 5,
    rates: { slow: 0.001 },
    names: ["b", "c"],
    limit: 7,
  } as unknown);
  assert.is(config.rates.slow, 0.1);
  const wrong: [string, RegExp][] = [
    ["steps", /key=value is required/],
    ["=5", /key=value is required/],
    ["rates.fast=1", /"rates.fast".*known keys are rates.slow/],
    ["steps.x=1", /"steps.x"/],
    ["names=b", /"names" as a value like \["a"\] is required: b/],
    ["rates=1", /"rates" as a value like \{/],
    ["__proto__.x=1", /unknown key "__proto__"/],
    ["constructor=1", /unknown key "constructor"/],
  ];
  for (const [override, why] of wrong) {
    assert.throws(() => applyOverrides(config, [override]), why);
  }
});

test("did you mean: near words only", () => {
  assert.is(didYouMean("rnak", ["rank", "alpha"]), ' (did you mean "rank"?)');
  assert.is(didYouMean("banana", ["rank", "alpha"]), "");
  assert.is(didYouMean("x", []), "");
});

test("durations and tables in text", () => {
  const cases: [number, string][] = [
    [0.44, "0.4 s"],
    [38.2, "38 s"],
    [179, "3 min"],
    [9000, "2.5 h"],
    [400000, "5 days"],
  ];
  for (const [seconds, text] of cases) assert.is(duration(seconds), text);
  assert.is(
    textTable([["a", "what"], ["long", "one two three four five six"]], {
      width: 24,
    }),
    "a     what\nlong  one two three four five\n      six",
  );
});

test.run();
