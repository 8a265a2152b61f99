/** openLCA JSON-LD: round trip, numbers of another tool, broken packages. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  fromOpenLca,
  toOpenLca,
  unzipJsonLd,
  zipJsonLd,
} from "../lib/aqfp-lca/interchange.ts";
import { readInventory } from "../lib/aqfp-lca/inventory.ts";
import { assess, systemOf } from "../lib/aqfp-lca/matrix.ts";
import { compileInventory } from "../lib/aqfp-lca/model.ts";
import { fold, key, randomInts } from "../lib/core/rng.ts";
import { FACTORY } from "./fixtures/aqfp-lca-factory.ts";

const inventory = readInventory(FACTORY, { name: "factory" });
const model = compileInventory(inventory);

test("round trip: every field comes back through the zip", () => {
  const { files } = toOpenLca(model);
  const back = fromOpenLca(unzipJsonLd(zipJsonLd(files)));
  assert.equal(back, inventory);
});

test("round trip: the same inventory gives the same bytes", () => {
  const bytes = () => zipJsonLd(toOpenLca(model).files);
  assert.equal(bytes(), bytes());
});

test("without our descriptions: amounts, formulas and scores are the same", () => {
  const { files } = toOpenLca(model);
  // Formulas of plain numbers have no units, so only the amounts are left to compare.
  const dropped = ["description", "amountFormula"];
  const stripped = Object.fromEntries(
    Object.entries(files).map(([path, text]) => [
      path,
      JSON.stringify(
        JSON.parse(text),
        (name, value) => dropped.includes(name) ? undefined : value,
      ),
    ]),
  );
  const back = fromOpenLca(stripped);
  const expected = assess(systemOf(model), { wafer: 1 });
  const found = assess(systemOf(compileInventory(back)), { wafer: 1 });
  assert.ok(
    Math.abs(found.scores[0] / expected.scores[0] - 1) < 1e-12,
    `${found.scores[0]} against ${expected.scores[0]}`,
  );
  const steel = (list: typeof inventory.exchanges) =>
    list.find((e) => e.process === "mill" && e.item === "electricity")!;
  assert.equal(
    steel(back.exchanges).distribution,
    { kind: "triangular", low: 2, mode: 3, high: 5 },
  );
});

test("a value that another tool has changed wins over ours", () => {
  const { files } = toOpenLca(model);
  const changed = Object.fromEntries(
    Object.entries(files).map(([path, text]) => {
      const json = JSON.parse(text);
      if (json["@type"] === "Process" && json.name === "mill") {
        for (const e of json.exchanges) {
          if (e.flow.name === "electricity") e.amount = 4;
        }
      }
      return [path, JSON.stringify(json)];
    }),
  );
  const found = fromOpenLca(changed).exchanges.find((e) =>
    e.process === "mill" && e.item === "electricity"
  )!;
  assert.is(found.amount, 4);
  assert.is(found.source, 'table 3, "mills"');
});

test("what cannot be said in the format is named", () => {
  const { notes } = toOpenLca(model);
  assert.ok(notes.some((n) => n.includes("group grid")), notes.join("\n"));
});

test("broken packages are refused, never read as something else", () => {
  assert.throws(() => unzipJsonLd(new Uint8Array([1, 2, 3])), /must be a zip/);
  assert.throws(
    () => fromOpenLca({ "flows/x.json": "{" }),
    /Cannot read flows\/x.json/,
  );
  const { files } = toOpenLca(model);
  const paths = Object.keys(files);
  let refused = 0;
  for (let trial = 0; trial < 200; trial++) {
    const k = fold(key(4), trial);
    const [at, place, code] = randomInts(k, 3, 0, 2 ** 20);
    const path = paths[at % paths.length];
    const text = files[path];
    const cut = place % text.length;
    const broken = text.slice(0, cut) + String.fromCharCode(32 + code % 90) +
      text.slice(cut + 1 + code % 3);
    try {
      const read = fromOpenLca({ ...files, [path]: broken });
      for (const { amount } of read.exchanges) {
        assert.ok(typeof amount === "string" || Number.isFinite(amount));
      }
    } catch (error) {
      refused++;
      assert.ok(
        error instanceof SyntaxError || error instanceof RangeError,
        `${path}: ${(error as Error).stack}`,
      );
      assert.match((error as Error).message, /^Cannot/);
    }
  }
  assert.ok(refused > 50, `${refused} of 200 refused`);
});

test.run();
