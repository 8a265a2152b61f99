import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { JSDOM } from "jsdom";
import { buildSite } from "../scripts/site.ts";
import { examplePaper } from "./fixtures/site-paper.ts";

const HOSTILE =
  `<img src=x onerror=alert(1)></script><script>alert(2)</script></title>"' onload='x`;

const folder = mkdtempSync(join(tmpdir(), "adiabat-site-"));
const plain = join(folder, "plain");
const hostile = join(folder, "hostile");
const PAGES = ["index.html", "rora/index.html", "rora/notebook.html"];

function pageOf(root: string, name: string): Document {
  return new JSDOM(readFileSync(join(root, name), "utf8")).window.document;
}

test.before(async () => {
  await buildSite({ papers: [examplePaper()], outDir: plain });
  await buildSite({ papers: [examplePaper(HOSTILE)], outDir: hostile });
});

test.after(() => rmSync(folder, { recursive: true }));

test("pages show titles, verdicts, figures, tables, provenance", () => {
  const page = pageOf(plain, "rora/index.html");
  const text = page.body.textContent;
  for (
    const part of [
      "RoRA: rank adaptation with a square root",
      "match",
      "differs",
      "not run",
      "+6.5 points",
      "commit 1a2b3c4",
      "The code has changed since.",
      "this machine, quick profile",
      "CPU (2 cores, 8 GB)",
      "tfjs 4.22.0 on wasm",
      "brown (package: MIT",
    ]
  ) assert.ok(text.includes(part), `no "${part}"`);
  const index = pageOf(plain, "index.html");
  const link = index.querySelector("tbody a");
  assert.is(link?.getAttribute("href"), "rora/index.html");
  assert.ok(existsSync(join(plain, "rora/index.html")));
});

test("every address on a page is a file of the site or a source on the web", () => {
  for (const name of PAGES) {
    const page = pageOf(plain, name);
    for (const element of page.querySelectorAll("[src], [href]")) {
      const address = element.getAttribute("src") ??
        element.getAttribute("href") ?? "";
      if (/^(#|data:)/.test(address)) continue;
      if (element.tagName === "A" && /^https:/.test(address)) continue;
      const file = join(plain, name, "..", address);
      assert.ok(existsSync(file), `${name}: ${address} is missing`);
    }
  }
});

test("a figure is a picture with words, and its data in a block", () => {
  const page = pageOf(plain, "rora/index.html");
  const figures = [...page.querySelectorAll("figure")];
  assert.is(figures.length, 2);
  for (const figure of figures) {
    const picture = figure.querySelector("img");
    assert.ok((picture?.getAttribute("alt") ?? "").length > 20);
    const svg = readFileSync(
      join(plain, "rora", picture?.getAttribute("src") ?? ""),
      "utf8",
    );
    assert.match(svg, /^<svg /);
    const block = page.getElementById(figure.dataset.spec ?? "");
    const { data, layout } = JSON.parse(block?.textContent ?? "");
    assert.ok(data.length > 0 && layout.xaxis);
  }
});

test("the policy allows no inline script or style, and pages have none", () => {
  for (const root of [plain, hostile]) {
    for (const name of PAGES) {
      const page = pageOf(root, name);
      const policy = page.querySelector(
        "meta[http-equiv=Content-Security-Policy]",
      )?.getAttribute("content") ?? "";
      assert.match(
        policy,
        /^default-src 'none'; script-src 'self'; style-src /,
      );
      assert.not.match(policy, /unsafe|\*|https?:/);
      const scripts = [...page.querySelectorAll("script")];
      for (const script of scripts) {
        const local = /^\.\.\/assets\/(plotly|site)\.js$/.test(
          script.getAttribute("src") ?? "",
        );
        assert.ok(local || script.type === "application/json", name);
      }
      assert.is(page.querySelectorAll("style, [style]").length, 0, name);
    }
  }
});

test("hostile texts stay texts, in every page and every picture", () => {
  for (const name of PAGES) {
    const page = pageOf(hostile, name);
    const ordinary = pageOf(plain, name);
    assert.ok(page.body.textContent.includes("<img src=x"), name);
    assert.is(page.querySelectorAll("img[src=x]").length, 0, name);
    for (const element of page.querySelectorAll("*")) {
      for (const { name: attribute } of element.attributes) {
        assert.not.ok(attribute.startsWith("on"), `${name}: ${attribute}`);
      }
    }
    // The same elements as with harmless texts: nothing was ended or begun.
    const tags = (document: Document) =>
      [...document.querySelectorAll("*")].map((e) => e.tagName)
        .filter((tag) => tag !== "SPAN" && tag !== "BR").join(" ");
    assert.is(tags(page), tags(ordinary), name);
  }
  for (const file of readdirSync(join(hostile, "rora/figures"))) {
    const svg = readFileSync(join(hostile, "rora/figures", file), "utf8");
    const { document } =
      new JSDOM(svg, { contentType: "image/svg+xml" }).window;
    assert.is(document.querySelectorAll("script, img").length, 0, file);
  }
});

test("notebook: formulas, code and outputs", () => {
  const page = pageOf(plain, "rora/notebook.html");
  assert.is(page.querySelectorAll("math").length, 2);
  assert.is(page.querySelectorAll("math[display=block]").length, 1);
  assert.is(page.querySelector("pre.code .hljs-keyword")?.textContent, "const");
  assert.is(page.querySelector("pre.stdout")?.textContent, "printed\n");
  assert.is(page.querySelector("pre.error")?.textContent, "RangeError: boo");
  assert.ok(page.querySelector(".scroll table td[align=right]"));
});

test("headings descend by one, tables have captions and scopes", () => {
  for (const name of PAGES) {
    const page = pageOf(plain, name);
    const levels = [...page.querySelectorAll("h1, h2, h3, h4")].map((h) =>
      Number(h.tagName[1])
    );
    assert.is(levels[0], 1, name);
    assert.is(levels.filter((level) => level === 1).length, 1, name);
    levels.slice(1).forEach((level, i) => assert.ok(level <= levels[i] + 1));
    assert.is(page.documentElement.lang, "en");
    for (const heading of page.querySelectorAll("thead th")) {
      assert.is(heading.getAttribute("scope"), "col");
    }
  }
  const page = pageOf(plain, "rora/index.html");
  assert.is(
    page.querySelectorAll("table").length,
    page.querySelectorAll("table > caption").length,
  );
});

test("a paper that is only listed has a row and no page", async () => {
  const out = join(folder, "listed");
  const listed = { ...examplePaper(), name: "other", listed: true };
  await buildSite({ papers: [examplePaper(), listed], outDir: out });
  const rows = [...pageOf(out, "index.html").querySelectorAll("tbody tr")];
  assert.is(rows.length, 2);
  assert.is(rows[0].querySelectorAll("a").length, 1);
  assert.is(rows[1].querySelectorAll("a").length, 0);
  assert.match(
    rows[1].textContent!,
    /npm run reproduce -- other makes its page/,
  );
  assert.not(existsSync(join(out, "other")));
});

test("pictures come from the cache, and are drawn again where it is damaged", async () => {
  const [old, cache] = [process.env.ADIABAT_CACHE, join(folder, "cache")];
  process.env.ADIABAT_CACHE = cache;
  const build = async () => {
    const out = join(folder, "cached");
    await buildSite({ papers: [examplePaper()], outDir: out });
    const place = join(out, "rora/figures");
    return readdirSync(place).sort().map((name) =>
      readFileSync(join(place, name), "utf8")
    );
  };
  try {
    const drawn = await build();
    const files = readdirSync(join(cache, "figures"));
    assert.is(files.length, new Set(drawn).size);
    const file = join(cache, "figures", files[0]);
    const svg = readFileSync(file, "utf8");
    const marked = svg.replace("</svg>", "<!-- kept --></svg>");
    writeFileSync(file, marked);
    const again = await build();
    assert.ok(again.includes(marked));
    assert.equal(again.map((x) => x.replace("<!-- kept -->", "")), drawn);
    writeFileSync(file, svg.slice(0, 1000)); // a disk that was full
    assert.equal(await build(), drawn);
  } finally {
    if (old === undefined) delete process.env.ADIABAT_CACHE;
    else process.env.ADIABAT_CACHE = old;
  }
});

test("building again replaces the site; a folder of something else is refused", async () => {
  const other = mkdtempSync(join(folder, "other-"));
  writeFileSync(join(other, "thesis.txt"), "the only copy");
  let message = "";
  try {
    await buildSite({ papers: [], outDir: other });
  } catch (error) {
    message = (error as Error).message;
  }
  assert.match(message, /Cannot build the site in .* as it holds other files/);
  assert.is(readFileSync(join(other, "thesis.txt"), "utf8"), "the only copy");
  await buildSite({ papers: [], outDir: hostile });
  assert.not.ok(existsSync(join(hostile, "rora")));
  assert.match(
    pageOf(hostile, "index.html").body.textContent,
    /No paper has been run yet/,
  );
});

test.run();
