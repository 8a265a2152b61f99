/**
 * The gate: format, lint, types, kernels, unit tests, Deno, claims, notebooks.
 *
 * `npm test` runs everything; `npm test -- gemm rora` only the unit-test files
 * whose names contain one of the words. The last line is `N passed, N failed`.
 */
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const node = [process.env.ADIABAT_NODE ?? "node", "--import", "tsx"];
const deno = join(root, "node_modules", ".bin", "deno");
const tsc = join(root, "node_modules", "typescript", "bin", "tsc");

interface Step {
  name: string;
  command: string[];
  env?: Record<string, string>;
  /** A uvu file reports its own counts; any other step counts as one test. */
  counted?: boolean;
  /** A step before it in the list that has to end first. */
  needs?: Step;
}

interface Outcome {
  passed: number;
  failed: number;
}

/** Exit code, output and seconds of one command. */
function execute(step: Step): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(step.command[0], step.command.slice(1), {
      cwd: root,
      env: {
        ...process.env,
        NO_COLOR: "1",
        FORCE_COLOR: "0",
        NO_UPDATE_CHECK: "1",
        OPENBLAS_NUM_THREADS: "1",
        ...step.env,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    child.stdout.on("data", (chunk) => output += chunk);
    child.stderr.on("data", (chunk) => output += chunk);
    child.on("error", (error) => resolve({ code: 1, output: `${error}` }));
    child.on("close", (code) => resolve({ code: code ?? 1, output }));
  });
}

/** What uvu counted; a file that died, counted nothing or skipped has failed. */
function uvuCounts(code: number, output: string): Outcome {
  const count = (label: string) =>
    Number(new RegExp(`${label}:\\s+(\\d+)`).exec(output)?.[1] ?? 0);
  const [total, passed, skipped] = ["Total", "Passed", "Skipped"].map(count);
  const failed = total - passed + skipped;
  const silent = total === 0 || (code !== 0 && failed === 0);
  return { passed, failed: failed + (silent ? 1 : 0) };
}

async function runStep(step: Step): Promise<Outcome> {
  const start = performance.now();
  const { code, output } = await execute(step);
  const outcome = step.counted
    ? uvuCounts(code, output)
    : { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1 };
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const state = outcome.failed === 0 ? "ok  " : "FAIL";
  console.log(
    `${state} ${step.name.padEnd(34)} ${`${outcome.passed}`.padStart(4)} ` +
      `${seconds.padStart(6)} s`,
  );
  if (outcome.failed > 0) console.log(output.replace(/^/gm, "     | "));
  return outcome;
}

/** Runs the steps, `workers` at a time, in order, each after those it needs. */
async function runAll(steps: Step[], workers: number): Promise<Outcome> {
  const total = { passed: 0, failed: 0 };
  const started = new Map<Step, Promise<Outcome>>();
  const queue = [...steps];
  const work = async () => {
    for (let step = queue.shift(); step; step = queue.shift()) {
      if (step.needs !== undefined) await started.get(step.needs);
      const running = runStep(step);
      started.set(step, running);
      const outcome = await running;
      total.passed += outcome.passed;
      total.failed += outcome.failed;
    }
  };
  await Promise.all(Array.from({ length: workers }, work));
  return total;
}

/** V8 needs longer to optimise Yosys, 34 MB of WebAssembly, than the tests need to run it unoptimised. */
const usesYosys = (file: string) =>
  /^(superflow-|quasar-vit-engine)/.test(file);

const words = process.argv.slice(2);
const unitTests = readdirSync(join(root, "test"))
  .filter((file) => file.endsWith(".test.ts"))
  .filter((file) =>
    words.length === 0 || words.some((word) => file.includes(word))
  )
  .map((file): Step => ({
    name: `test/${file}`,
    command: [
      ...node,
      ...(usesYosys(file) ? ["--liftoff-only"] : []),
      join("test", file),
    ],
    counted: true,
  }));

const data: Step = {
  name: "data packages",
  command: [...node, "scripts/install-data.ts"],
};
/** What needs no data: it runs while they are installed. */
const checks: Step[] = [
  { name: "format (deno fmt)", command: [deno, "fmt", "--check"] },
  { name: "lint (deno lint)", command: [deno, "lint"] },
  { name: "types (tsc, strict)", command: ["node", tsc, "-p", "."] },
  {
    name: "kernels match their source",
    command: [...node, "scripts/build-kernels.ts", "--check"],
  },
  {
    name: "integer kernels match their source",
    command: [...node, "scripts/build-integer-kernels.ts", "--check"],
  },
  {
    name: "types in Deno (deno check)",
    command: [deno, "check", "lib/mod.ts", "scripts/run.ts", "scripts/rora.ts"],
  },
];
/** The notebooks first: they take as long as dozens of other steps, and no core waits at the end. */
const withData: Step[] = [
  {
    name: "notebooks, smoke profile",
    command: [...node, "scripts/notebook.ts", "--check", "--profile", "smoke"],
  },
  {
    name: "smoke test in Deno",
    command: [deno, "run", "-A", "test/smoke.deno.ts"],
  },
  { name: "claims", command: [...node, "scripts/claims.ts", "--check"] },
  ...unitTests,
].map((step) => ({ ...step, needs: data }));

if (unitTests.length === 0) {
  console.error(
    `Cannot run the tests as no file in test/ has a name with: ${
      words.join(", ")
    }`,
  );
  process.exit(1);
}
const start = performance.now();
const workers = Math.min(2, availableParallelism());
const whole = words.length === 0;
const { passed, failed } = await runAll(
  whole ? [data, ...checks, ...withData] : unitTests,
  workers,
);
console.log(`in ${((performance.now() - start) / 1000).toFixed(0)} s`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
