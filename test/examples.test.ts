/**
 * The examples in docstrings: every one that states a result is run and its result compared.
 *
 * A result is a comment behind an expression, `f(x); // 0.5`, or on the line below it. Names that an
 * example does not define are the module's own exports, those of the library, or the fixtures here.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import * as adiabat from "../lib/mod.ts";

const library = fileURLToPath(new URL("../lib/", import.meta.url));
/** Examples print rounded numbers. */
const RELATIVE_TOLERANCE = 1e-6;

type Scope = Record<string, unknown>;

/** Lines of each example of a file. */
function examplesOf(file: string): string[][] {
  const text = readFileSync(join(library, file), "utf8");
  return [...text.matchAll(/@example\s*\n([\s\S]*?)\*\//g)].map(([, body]) =>
    body.split("\n")
      .map((line) => line.replace(/^\s*\* ?/, ""))
      .filter((line) => line.trim() !== "" && !line.startsWith("```"))
  );
}

/** The example as code that hands every stated result to `check(actual, expected)`. */
function checkedCode(lines: string[]): { code: string; results: number } {
  let results = 0;
  const joined = lines.join("\n").replace(/;\n\/\/ /g, "; // ");
  const code = joined.split("\n").map((line) => {
    const match = /^(?!const |let |import )(.+);\s*\/\/ (.+)$/.exec(line);
    if (match === null) return line;
    results++;
    return `check((${match[1]}), (${match[2]}));`;
  }).join("\n");
  return { code, results: results + (code.match(/assert\./g)?.length ?? 0) };
}

/** Numbers within the tolerance, arrays and typed arrays by their entries, the rest exactly. */
function same(actual: unknown, expected: unknown): boolean {
  if (typeof actual === "number" && typeof expected === "number") {
    return Math.abs(actual - expected) <=
      RELATIVE_TOLERANCE * Math.max(1, Math.abs(expected));
  }
  if (ArrayBuffer.isView(actual)) {
    return same(Array.from(actual as Float32Array), expected);
  }
  if (Array.isArray(actual) && Array.isArray(expected)) {
    return actual.length === expected.length &&
      actual.every((value, i) => same(value, expected[i]));
  }
  return JSON.stringify(actual) === JSON.stringify(expected);
}

const { tensor, llama, rng } = adiabat;
await tensor.ready();
const config = {
  vocabSize: 32,
  hiddenSize: 32,
  intermediateSize: 64,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 4,
};
const fixtures: Scope = {
  assert: { equal: assert.equal, is: assert.is, ok: assert.ok },
  tf: tensor.tf,
  config,
  params: llama.initLlama(config, rng.key(5)),
  ids: tensor.tf.tensor2d([[1, 2, 3, 4]], [1, 4], "int32"),
  batches: [tensor.tf.tensor2d([[1, 2, 3, 4]], [1, 4], "int32")],
  rows: [{ rank: 8, loss: 2.25 }, { rank: 16, loss: 2 }],
};
const exported: Scope = Object.assign({}, ...Object.values(adiabat));

let run = 0;
const files = (readdirSync(library, { recursive: true }) as string[])
  .filter((file) => file.endsWith(".ts") && !file.includes("assembly"))
  .sort();
for (const file of files) {
  examplesOf(file).forEach((lines, i) => {
    const { code, results } = checkedCode(lines);
    if (results === 0) return;
    run++;
    test(`${file}, example ${i + 1}`, async () => {
      const own = await import(pathToFileURL(join(library, file)).href);
      const scope: Scope = {
        ...exported,
        ...adiabat,
        ...own,
        ...fixtures,
        check: (actual: unknown, expected: unknown) =>
          assert.ok(
            same(actual, expected),
            `${JSON.stringify(actual)} is not ${JSON.stringify(expected)}`,
          ),
      };
      const names = Object.keys(scope);
      new Function(...names, `"use strict"; {\n${code}\n}`)(
        ...names.map((name) => scope[name]),
      );
    });
  });
}

test("the README's example runs as it stands", async () => {
  const readme = readFileSync(join(library, "..", "README.md"), "utf8");
  const [, block] = /```ts\n([\s\S]*?)```/.exec(readme)!;
  const folder = mkdtempSync(join(tmpdir(), "adiabat-"));
  try {
    const code = block
      .replace(/import \{(.*)\} from "adiabat";/, "const {$1} = adiabat;")
      .replace(`"my-adapter"`, JSON.stringify(join(folder, "my-adapter")))
      .replace(" as const", "")
      .replaceAll("console.log(", "printed.push(");
    const printed: unknown[] = [];
    const AsyncFunction = (async () => {}).constructor as typeof Function;
    await new AsyncFunction("adiabat", "printed", code)(adiabat, printed);
    const [before, after, counts, bytes] = printed;
    assert.ok(Number(after) < Number(before), `${before}, ${after}`);
    assert.ok(Number((counts as { jj: number }).jj) > 500, String(counts));
    assert.ok(Number(bytes) > 10_000, String(bytes));
    const written = readdirSync(join(folder, "my-adapter")).sort();
    assert.equal(written, ["adapter_config.json", "adapter_model.safetensors"]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("there are examples, and a wrong one is noticed", () => {
  assert.ok(run >= 20, `${run} examples with a result`);
  assert.not.ok(same([0.5, 1], [0.5, 1.1]));
  assert.not.ok(same("a", "b"));
});

test.run();
