import { existsSync, mkdirSync, mkdtempSync, readFileSync } from "node:fs";
import { rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  codeInfo,
  environmentOf,
  hashFiles,
  importsOf,
} from "../lib/core/provenance.ts";
import {
  artifactPath,
  canonicalJson,
  contentHash,
  findArm,
  loadSummary,
  projectRoot,
  readArtifact,
  readRecord,
  recordPath,
  round7,
  runKey,
  type RunRecord,
  type RunSpec,
  splitMetrics,
  summarise,
  summariseArm,
  writeAtomic,
  writeRecord,
  writeSummary,
} from "../lib/core/runs.ts";
import { experimentFile, localSummary } from "../lib/experiments/index.ts";
import { checkSpec, executeRun } from "../scripts/execute.ts";
import toy from "./fixtures/toy.ts";

const folder = mkdtempSync(join(tmpdir(), "adiabat-runs-"));
process.env.ADIABAT_CACHE = join(folder, "cache");
process.env.ADIABAT_RESULTS = join(folder, "results");
test.after(() => rmSync(folder, { recursive: true, force: true }));

const MODULE = "test/fixtures/toy.ts";
const git = { commit: "abc", dirty: false };
const silent = () => {};

/** Spec of the toy's arm that makes the points. */
function pointsSpec(change: Partial<RunSpec> = {}): RunSpec {
  return {
    experiment: MODULE,
    profile: "quick",
    arm: "points",
    config: { kind: "points", points: 20 },
    seed: 0,
    needs: {},
    ...change,
  };
}

/** Spec of a fit that reads the points of `key`. */
function fitSpec(key: string, seed: number): RunSpec {
  const config = { kind: "fit", steps: 30, rate: 0.1 };
  return pointsSpec({ arm: "fast", config, seed, needs: { points: key } });
}

/** A record's part that must not depend on when or how fast it was made. */
function lasting({ key, spec, metrics, series, artifacts }: RunRecord) {
  return { key, spec, metrics, series, artifacts };
}

test("canonical JSON: order of keys does not matter, undefined is left out", () => {
  assert.is(
    canonicalJson({ b: [1, { d: null, c: "x" }], a: undefined, A: true }),
    '{"A":true,"b":[1,{"c":"x","d":null}]}',
  );
  assert.throws(() => canonicalJson({ a: NaN }), /must be finite: NaN/);
});

test("content hash is SHA-256", () => {
  // printf 'abc' | sha256sum; printf '{"a":1}' | sha256sum
  assert.is(
    contentHash(new TextEncoder().encode("abc")),
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  );
  assert.is(
    contentHash({ a: 1 }),
    "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862",
  );
});

test("a run is recorded with all that it depends on", async () => {
  const record = await executeRun(pointsSpec(), silent);
  assert.equal(record.metrics, { points: 20 });
  assert.equal(readRecord(MODULE, record.key), record);
  const { provenance } = record;
  assert.match(provenance.codeHash, /^[0-9a-f]{64}$/);
  assert.match(provenance.commit, /^[0-9a-f]{40}$|^unknown$/);
  assert.match(provenance.versions.runtime, /^(node|deno) \d/);
  assert.equal(provenance.data, { points: "made here" });
  assert.ok(provenance.machine.cores >= 1);
  assert.ok(provenance.seconds > 0 && provenance.peakMemoryMb > 10);
  assert.is(Object.keys(record.artifacts).join(), "xy.f32");
  const bytes = readArtifact(record, "xy.f32");
  assert.is(bytes.length, 2 * 20 * 4);
  assert.throws(() => readArtifact(record, "other"), /"other".*left: xy\.f32/);
});

test("same spec, same record, timings aside", async () => {
  const points = await executeRun(pointsSpec(), silent);
  const first = await executeRun(fitSpec(points.key, 1), silent);
  const firstPath = recordPath(MODULE, first.key);
  rmSync(firstPath);
  const second = await executeRun(fitSpec(points.key, 1), silent);
  assert.equal(lasting(second), lasting(first));
  const other = await executeRun(fitSpec(points.key, 2), silent);
  assert.is.not(other.metrics.slope, first.metrics.slope);
  assert.is.not(other.key, first.key);
});

test("gradient descent found the slope that least squares gives", async () => {
  const points = await executeRun(pointsSpec(), silent);
  const { metrics } = await executeRun({
    ...fitSpec(points.key, 1),
    config: { kind: "fit", steps: 400, rate: 0.1 },
  }, silent);
  const bytes = readArtifact(points, "xy.f32");
  const xy = new Float32Array(bytes.slice().buffer);
  let sxx = 0;
  let sxy = 0;
  for (let i = 0; i < 20; i++) {
    sxx += xy[i] ** 2;
    sxy += xy[i] * xy[20 + i];
  }
  assert.ok(Math.abs(metrics.slope - sxy / sxx) < 1e-6);
});

test("the key changes with config, seed, arm, needs and environment, not with the profile", async () => {
  const environment = await environmentOf(toy, MODULE);
  const spec = pointsSpec();
  const base = runKey(spec, environment);
  assert.is(runKey(pointsSpec({ profile: "full" }), environment), base);
  const keys = [
    runKey(pointsSpec({ seed: 1 }), environment),
    runKey(pointsSpec({ arm: "other" }), environment),
    runKey(pointsSpec({ config: { kind: "points" } }), environment),
    runKey(pointsSpec({ needs: { a: "b" } }), environment),
    runKey(spec, { ...environment, codeHash: "x" }),
    runKey(spec, { ...environment, dataHash: "x" }),
    runKey(spec, { ...environment, versions: { runtime: "node 1" } }),
  ];
  assert.is(new Set([base, ...keys]).size, keys.length + 1);
});

test("a truncated, edited, swapped or empty record is noticed", async () => {
  const { key } = await executeRun(pointsSpec(), silent);
  const path = recordPath(MODULE, key);
  const good = readFileSync(path, "utf8");
  const damage: [string, RegExp][] = [
    [good.slice(0, good.length / 2), /not whole JSON/],
    ["", /not whole JSON/],
    ["null", /no content hash/],
    ["[]", /no content hash/],
    [good.replace('"points": 20\n', '"points": 21\n'), /edited or damaged/],
    [good.replace('"seed": 0', '"seed": 1'), /edited or damaged/],
  ];
  for (const [text, why] of damage) {
    assert.is.not(text, good);
    writeFileSync(path, text);
    assert.throws(() => readRecord(MODULE, key), why);
    assert.throws(() => readRecord(MODULE, key), /^(?!.*\n)/);
  }
  const otherKey = "0".repeat(32);
  writeFileSync(recordPath(MODULE, otherKey), good);
  assert.throws(() => readRecord(MODULE, otherKey), /another run/);
  writeFileSync(path, good);
  assert.is(readRecord(MODULE, key)?.key, key);
});

test("a damaged or missing artefact spoils its record", async () => {
  const { key } = await executeRun(pointsSpec(), silent);
  const path = artifactPath(MODULE, key, "xy.f32");
  const bytes = readFileSync(path);
  bytes[0] ^= 1;
  writeFileSync(path, bytes);
  assert.throws(() => readRecord(MODULE, key), /xy\.f32.*does not fit/);
  rmSync(path);
  assert.throws(() => readRecord(MODULE, key), /xy\.f32.*missing/);
});

test("an artefact's name must be a plain file name", () => {
  for (const name of ["../x", "/x", "a/b", "", ".hidden", "a\0b", "a\\b"]) {
    assert.throws(() => artifactPath("toy", "k", name), /plain file name/);
  }
});

test("a metric that is not finite is not recorded", () => {
  assert.throws(() => splitMetrics({ loss: NaN }), /"loss".*finite: NaN/);
  assert.throws(() => splitMetrics({ l: [1, Infinity] }), /"l".*Infinity/);
  assert.equal(splitMetrics({ a: 1, b: [1, 2] }), {
    metrics: { a: 1 },
    series: { b: [1, 2] },
  });
});

test("a run that fails leaves nothing", async () => {
  const spec = pointsSpec({
    config: { kind: "points", points: 20, failure: "nan" },
  });
  const key = runKey(spec, await environmentOf(toy, MODULE));
  try {
    await executeRun(spec, silent);
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /step 3, last finite loss 1.5/);
  }
  assert.is(readRecord(MODULE, key), null);
  assert.not(existsSync(recordPath(MODULE, key).replace(".json", "")));
});

test("an artefact of an arm that is not needed, or not there, is an error", async () => {
  const cases: Record<string, string>[] = [{}, {
    points: "0".repeat(31) + "1",
  }];
  for (const needs of cases) {
    try {
      await executeRun({ ...fitSpec("", 1), needs }, silent);
      assert.unreachable();
    } catch (error) {
      assert.match(
        (error as Error).message,
        /Cannot read artefact "xy.f32" as arm "points"/,
      );
    }
  }
});

test("a spec that is no spec: the error names the field", () => {
  const cases: [unknown, RegExp][] = [
    [null, /object is required/],
    [[], /object is required/],
    [{}, /"experiment" must be/],
    [pointsSpec({ seed: 1.5 }), /"seed".*1\.5/],
    [{ ...pointsSpec(), config: [] }, /"config".*\[\]/],
  ];
  for (const [value, why] of cases) assert.throws(() => checkSpec(value), why);
  assert.equal(checkSpec(pointsSpec()), pointsSpec());
});

test("imports: what runs counts; types, comments and texts do not", () => {
  const source = `
    import a from "./a.ts";
    import { b, type B } from "./b.ts";
    import {
      c,
    } from "./c.ts";
    import type { T } from "./types.ts";
    export * from "./d.ts";
    export * as e from "./e.ts";
    export { f } from "./f.ts";
    export type { U } from "./types.ts";
    import "./g.ts";
    // import "./comment.ts";
    /* import "./comment.ts"; */
    const h = await import("./h.ts");
    const i = new URL("./i.wasm", import.meta.url);
    import typeface from "./typeface.ts";
    import * as fs from "node:fs";
    import koffi from "koffi";
  `;
  assert.equal(importsOf(source).sort(), [
    "./a.ts",
    "./b.ts",
    "./c.ts",
    "./d.ts",
    "./e.ts",
    "./f.ts",
    "./g.ts",
    "./h.ts",
    "./i.wasm",
    "./typeface.ts",
    "koffi",
    "node:fs",
  ]);
});

test("code hash: follows imports, changes with any file reached, not with others", () => {
  const place = mkdtempSync(join(folder, "code-"));
  const write = (name: string, text: string) =>
    writeFileSync(join(place, name), text);
  write("main.ts", 'import "./a.ts"; import "@scope/pack/sub";');
  write("a.ts", 'import "./b.ts"; import "./main.ts"; import "pack/sub";');
  write("b.ts", 'import "./tables.report.ts"; export const x = 1;');
  write("tables.report.ts", "export const y = 1;");
  write("other.ts", "export const z = 1;");
  const main = join(place, "main.ts");
  const first = codeInfo(main);
  assert.equal(first.packages, ["@scope/pack", "pack"]);
  assert.is(first.files.length, 3);
  write("other.ts", "export const z = 2;");
  write("tables.report.ts", "export const y = 2;");
  assert.is(codeInfo(main).hash, first.hash);
  write("b.ts", "export const x = 2;");
  assert.is.not(codeInfo(main).hash, first.hash);
});

test("the toy's code: itself, its helper, and the core that it uses", () => {
  const { files } = codeInfo(join(projectRoot(), MODULE));
  for (
    const name of [
      "test/fixtures/toy.ts",
      "test/fixtures/toy-loss.ts",
      "lib/core/rng.ts",
    ]
  ) assert.ok(files.includes(name), name);
  assert.not(files.includes("lib/core/nn.ts"));
});

test("hash of files: content and absence count", () => {
  const place = mkdtempSync(join(folder, "data-"));
  const absent = hashFiles([place]);
  mkdirSync(join(place, "sub"));
  writeFileSync(join(place, "sub", "a"), "1");
  const one = hashFiles([place]);
  writeFileSync(join(place, "sub", "a"), "2");
  const two = hashFiles([place]);
  assert.is(new Set([absent, one, two, hashFiles([place + "x"])]).size, 4);
});

/** A record made up for the summaries' tests. */
function made(seed: number, change: Partial<RunRecord> = {}): RunRecord {
  return writeRecord({
    schema: 1,
    status: "done",
    key: `made-${seed}`,
    spec: pointsSpec({ seed }),
    metrics: { loss: seed * 1.5 },
    series: { losses: [seed, 2 * seed] },
    timings: { s: 1 },
    artifacts: {},
    provenance: {
      commit: "old",
      dirty: true,
      codeHash: "c",
      dataHash: "d",
      versions: {},
      backend: null,
      machine: { cpu: "x", cores: 2, memoryGb: 4, os: "y" },
      data: { [`set${seed}`]: "h" },
      startedAt: `2026-01-0${seed}T00:00:00Z`,
      seconds: seed,
      peakMemoryMb: 100 + seed,
      command: "",
    },
    ...change,
  });
}

test("summary of three seeds, by hand", () => {
  const arm = { id: "a", config: {}, seeds: [1, 2, 3] };
  const summary = summariseArm(arm, [made(1), made(2), made(3)]);
  const { mean, sd, n, low, high, values } = summary.metrics.loss;
  assert.equal([mean, sd, n, values], [3, 1.5, 3, [1.5, 3, 4.5]]);
  // 4.302652729749462 * 1.5 / sqrt(3) = 3.726207
  assert.is(high, round7(3 + 3.7262066));
  assert.is(low, round7(3 - 3.7262066));
  assert.equal(summary.series.losses, { n: 3, mean: [2, 4], sd: [1, 2] });
  assert.is(summary.seconds, 2);
});

test("seeds that report different metrics cannot be summarised", () => {
  const arm = { id: "a", config: {}, seeds: [1, 2] };
  const odd = made(2, { metrics: { accuracy: 1 } });
  assert.throws(() => summariseArm(arm, [made(1), odd]), /loss and accuracy/);
  const short = made(2, { series: { losses: [1] } });
  assert.throws(() => summariseArm(arm, [made(1), short]), /length.*2, 1/);
});

test("a result set is written, read back, and protected by its hash", () => {
  const arms = [
    { id: "a", config: {}, seeds: [1, 2] },
    { id: "b", config: {}, seeds: [3] },
  ];
  const third = made(3);
  third.provenance.machine = { ...third.provenance.machine, cpu: "z" };
  const set = summarise(toy, arms, [[made(1), made(2)], [third]], {
    profile: "full",
    config: { seeds: 2 },
    git,
  });
  const { provenance } = set;
  assert.is(provenance.commit, "abc");
  assert.is(provenance.startedAt, "2026-01-01T00:00:00Z");
  assert.is(provenance.seconds, 6);
  assert.is(provenance.peakMemoryMb, 103);
  assert.equal(provenance.data, { set1: "h", set2: "h", set3: "h" });
  assert.equal(set.arms[0].deviations?.machine?.cpu, "x");
  assert.is(set.arms[1].deviations, undefined);

  const path = writeSummary(set);
  assert.ok(path.startsWith(join(folder, "results")));
  assert.equal(loadSummary("toy", "full"), set);
  assert.is(loadSummary("toy", "quick"), null);
  assert.throws(() => findArm(set.arms, "c"), /"c": known arms are a, b/);
  const text = readFileSync(path, "utf8");
  writeFileSync(path, text.replace('"mean":2.25', '"mean":2.35'));
  assert.throws(() => loadSummary("toy", "full"), /edited or damaged/);
});

test("an overridden full run does not replace the published one", () => {
  const set = summarise(
    toy,
    [{ id: "a", config: {}, seeds: [1] }],
    [[made(1)]],
    { profile: "full", config: {}, git, overrides: ["seeds=1"] },
  );
  const path = writeSummary(set);
  assert.match(path, /full-changed\.json$/);
  assert.ok(path.startsWith(join(folder, "cache")));
});

test("only what the experiment as it is now has made counts as this machine's run", () => {
  const current = codeInfo(experimentFile("rora")).hash;
  const write = (profile: "quick" | "smoke", codeHash: string) => {
    const record = made(1);
    record.provenance.codeHash = codeHash;
    const arms = [{ id: "a", config: {}, seeds: [1] }];
    const named = { ...toy, name: "rora" };
    writeSummary(
      summarise(named, arms, [[record]], { profile, config: {}, git }),
    );
  };
  assert.is(localSummary("rora"), null);
  write("quick", "of an earlier version");
  assert.is(localSummary("rora"), null);
  write("smoke", current);
  assert.is(localSummary("rora")?.profile, "smoke");
  write("quick", current);
  assert.is(localSummary("rora")?.profile, "quick");
});

test("an atomic write leaves no temporary file, even when it fails", () => {
  const place = mkdtempSync(join(folder, "atomic-"));
  const path = join(place, "sub", "x.json");
  writeAtomic(path, "one");
  writeAtomic(path, "two");
  assert.is(readFileSync(path, "utf8"), "two");
  mkdirSync(join(place, "taken"));
  assert.throws(() => writeAtomic(join(place, "taken"), "x"));
  assert.not(existsSync(join(place, `taken.tmp-${process.pid}`)));
});

test.run();
