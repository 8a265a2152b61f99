/**
 * Builds `site/`: an index of the papers, and a page per paper with verdicts, interactive figures and
 * the executed notebook. Works offline, straight from the disk.
 *
 *     node --import tsx scripts/site.ts [--out site]
 *
 * Pictures of figures are kept in the cache by what they are drawn from: drawing is nearly all of the time.
 *
 * Every text that comes from outside this file is escaped, HTML in cell outputs is sanitised, and a
 * Content-Security-Policy allows no script but the two files of the site: the figures' data lie in
 * `<script type="application/json">` blocks, which are not executed. Without JavaScript the
 * figures are pictures.
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import createDOMPurify from "dompurify";
import hljs from "highlight.js/lib/core";
import typescript from "highlight.js/lib/languages/typescript";
import { JSDOM } from "jsdom";
import MarkdownIt from "markdown-it";
import {
  experimentFile,
  experiments,
  loadExperiment,
  localSummary,
} from "../lib/experiments/index.ts";
import {
  type ClaimsFile,
  formatMeasurement,
  loadClaims,
  type VerdictRow,
  verdictRows,
} from "../lib/core/claims.ts";
import { textDatasets } from "../lib/core/datasets.ts";
import { codeInfo } from "../lib/core/provenance.ts";
import {
  FIDELITY_MEANING,
  measureLocal,
  paperValue,
  provenanceText,
  verdictFigure,
} from "../lib/core/report.ts";
import {
  cacheFolder,
  contentHash,
  type FigureSpec,
  loadSummary,
  type Measurement,
  projectRoot,
  type ResultSet,
  type ResultTable,
  writeAtomic,
} from "../lib/core/runs.ts";
import { PLOTLY_MIME } from "../lib/core/show.ts";
import {
  plotlyPath,
  plotlyStyles,
  plotlyVersion,
  toSvg,
} from "../lib/core/svg.ts";
import {
  escapeHtml,
  fromResult,
  type Table,
  toHtml,
} from "../lib/core/table.ts";
import {
  type Notebook,
  type NotebookCell,
  type Output,
  readNotebook,
} from "./notebook.ts";

/** All that the page of one paper shows. */
export interface SitePaper {
  /** Short name, in the address of the page: "rora". */
  name: string;
  title: string;
  claims: ClaimsFile;
  rows: VerdictRow[];
  /** The recorded full run. */
  recorded: ResultSet | null;
  /** This machine's run. */
  /** Whether the recorded run was made by earlier code. */
  earlier: boolean;
  local: ResultSet | null;
  figures: FigureSpec[];
  tables: (Table | ResultTable)[];
  notebook: Notebook | null;
  /** Stands in the index only, without pages; default false. */
  listed?: boolean;
}

export interface SiteOptions {
  /** Default: all papers of the registry with what is recorded of them. */
  papers?: SitePaper[];
  /** Default: `site` in the project. */
  outDir?: string;
  /** Names of papers whose pages are wanted; others get theirs if the site had them before. Default all. */
  wanted?: readonly string[];
}

const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

// Collecting

/** This machine's run; a damaged one is left out with a word about it. */
function localRun(name: string): ResultSet | null {
  try {
    return localSummary(name);
  } catch (error) {
    const { message } = error as Error;
    console.error(`${name}: this machine's run is left out: ${message}`);
    return null;
  }
}

/** What is known of one paper: its claims, recorded runs, figures and executed notebook. */
async function collect(
  name: string,
  listed: boolean,
): Promise<SitePaper | null> {
  const claims = loadClaims(name);
  if (claims === null) return null; // a helper such as the base model
  const experiment = await loadExperiment(name);
  const measure = (set: ResultSet) =>
    experiment.measure(set.arms, set.config as object);
  const recorded = loadSummary(name, "full");
  const local = localRun(name);
  const shown = listed ? null : recorded ?? local;
  const config = shown?.config as object;
  const executed = join(cacheFolder(), "notebooks", `${name}.ipynb`);
  const committed = join(projectRoot(), "notebooks", `${name}.ipynb`);
  const notebook = listed ? undefined : [executed, committed].find(existsSync);
  return {
    name,
    listed,
    title: experiment.title,
    claims,
    rows: verdictRows(
      claims,
      measureLocal(experiment, recorded),
      local && measure(local),
    ),
    recorded,
    earlier: recorded !== null &&
      recorded.provenance.codeHash !== codeInfo(experimentFile(name)).hash,
    local,
    figures: shown ? experiment.figures?.(shown.arms, config) ?? [] : [],
    tables: shown ? experiment.tables?.(shown.arms, config) ?? [] : [],
    notebook: notebook === undefined ? null : readNotebook(notebook),
  };
}

// Pieces of pages

/** JSON for a data block: no `<` can end the block. */
function jsonBlock(id: string, value: unknown): string {
  const text = JSON.stringify(value).replaceAll("<", "\\u003c");
  return `<script type="application/json" id="${
    escapeHtml(id)
  }">${text}</script>`;
}

/** A name that is safe in file names, ids and addresses. */
function slug(text: string): string {
  return text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") ||
    "x";
}

/** Writes files below one folder and remembers nothing else. */
class Folder {
  readonly path: string;
  constructor(path: string) {
    this.path = path;
  }
  write(name: string, content: string): void {
    const file = join(this.path, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
  }
}

/** What draws: another version draws again. */
const drawing = () =>
  drawn ??= contentHash([
    readFileSync(new URL("../lib/core/svg.ts", import.meta.url), "utf8"),
    plotlyVersion(),
  ]);
let drawn: string | undefined;

/** The figure as SVG, from the cache if it was drawn before. */
function picture(figure: FigureSpec): string {
  const { id, title, data, layout } = figure;
  const key = contentHash([drawing(), id, title, data, layout]);
  const file = join(cacheFolder(), "figures", `${key}.svg`);
  if (existsSync(file)) {
    const svg = readFileSync(file, "utf8");
    if (svg.endsWith("</svg>")) return svg;
  }
  const svg = toSvg(figure);
  writeAtomic(file, svg);
  return svg;
}

/** The figure as a picture, and the data that make it interactive. */
function figureHtml(
  figure: FigureSpec,
  folder: Folder,
  name: string,
  heading: "h3" | "p",
): string {
  const file = `figures/${name}.svg`;
  folder.write(file, picture(figure));
  const { width = 720, height = 440 } = figure.layout as Record<string, number>;
  const { title, caption, data, layout } = figure;
  const shown = heading === "h3"
    ? `<h3>${escapeHtml(title)}</h3>\n`
    : `<p><strong>${escapeHtml(title)}</strong></p>\n`;
  const headline = title === "" ? "" : shown;
  const alt = [title, caption].filter(Boolean).join(". ") || "figure";
  return `${headline}<figure data-spec="spec-${name}">
<div class="scroll" tabindex="0" role="group" aria-label="${escapeHtml(title)}">
<img src="${file}" alt="${
    escapeHtml(alt)
  }" width="${width}" height="${height}" loading="lazy">
</div>
${caption === "" ? "" : `<figcaption>${escapeHtml(caption)}</figcaption>\n`}${
    jsonBlock(`spec-${name}`, { data, layout })
  }
</figure>`;
}

function scrollable(html: string, label: string): string {
  return `<div class="scroll" tabindex="0" role="group" aria-label="${
    escapeHtml(label)
  }">\n${html}\n</div>`;
}

function tableHtml(result: Table | ResultTable): string {
  const named = result.columns.every((column) => typeof column === "object");
  const table = named ? result as Table : fromResult(result as ResultTable);
  return scrollable(toHtml(table), table.title);
}

/** A measurement; what was compared stands once, with the verdict. */
function measurementHtml(measurement: Measurement | null): string {
  return measurement === null
    ? "–"
    : escapeHtml(formatMeasurement(measurement));
}

function verdictHtml({ verdict }: VerdictRow): string {
  return `<span class="verdict ${slug(verdict)}">${escapeHtml(verdict)}</span>`;
}

/** The verdict table, claim by claim, with reasons. */
function verdictsHtml(rows: VerdictRow[], local: ResultSet | null): string {
  const here = local === null ? "" : `, ${local.profile} profile`;
  const lines = rows.map((row) => {
    const { claim, recorded, sentence } = row;
    const meaning = FIDELITY_MEANING[claim.fidelity] ?? "";
    return `<tr>
<th scope="row">${escapeHtml(claim.statement)}<br><small class="quiet">${
      escapeHtml(claim.where)
    }</small></th>
<td>${escapeHtml(paperValue(row))}</td>
<td class="measured">${measurementHtml(recorded)}</td>
<td class="measured">${measurementHtml(row.local)}</td>
<td><abbr title="${escapeHtml(meaning)}">${
      escapeHtml(claim.fidelity)
    }</abbr></td>
<td class="wide">${verdictHtml(row)}<br><small>${
      escapeHtml(sentence)
    }</small></td>
</tr>`;
  });
  return scrollable(
    `<table>
<caption>Every claim that was read in the paper. Measured values with their 95 % interval; the verdict is computed from the recorded full run by a rule that was fixed before it.</caption>
<thead><tr><th scope="col">claim</th><th scope="col">paper</th><th scope="col">recorded full run</th><th scope="col">this machine${here}</th><th scope="col">fidelity</th><th scope="col">verdict</th></tr></thead>
<tbody>
${lines.join("\n")}
</tbody>
</table>`,
    "Verdicts",
  );
}

/** Licences of the data sets that a result set read. */
function licencesOf({ provenance }: ResultSet): [string, string][] {
  return Object.keys(provenance.data).map((name) => {
    const known = Object.hasOwn(textDatasets, name)
      ? textDatasets[name].licence
      : "licence stated in the package";
    return [name, known];
  });
}

/** Where the numbers come from. */
function provenanceHtml(sets: ResultSet[]): string {
  if (sets.length === 0) return "<p>No run is recorded.</p>";
  return sets.map((set) => {
    const { provenance } = set;
    const { versions, seconds, peakMemoryMb, command } = provenance;
    const entry = (term: string, text: string) =>
      text === ""
        ? ""
        : `<dt>${escapeHtml(term)}</dt><dd>${escapeHtml(text)}</dd>\n`;
    return `<dl class="provenance">
${entry(`${set.profile} run`, provenanceText(set))}${
      entry("command", command)
    }${
      entry(
        "cost",
        `${Math.round(seconds)} s of process time, ${
          Math.round(peakMemoryMb)
        } MB at most`,
      )
    }${
      entry(
        "versions",
        Object.entries(versions).map((pair) => pair.join(" ")).join(", "),
      )
    }${
      entry(
        "data",
        licencesOf(set).map(([name, licence]) => `${name} (${licence})`)
          .join("; "),
      )
    }${entry("content hash", set.hash)}</dl>`;
  }).join("\n");
}

/** A whole page. `depth` is its distance from the root of the site. */
function page(
  { title, description, body, footer, depth, figures }: {
    title: string;
    description: string;
    body: string;
    footer: string;
    depth: number;
    figures: boolean;
  },
): string {
  const root = "../".repeat(depth) || "./";
  const scripts = figures
    ? `<script defer src="${root}assets/plotly.js"></script>
<script defer src="${root}assets/site.js"></script>
<link rel="stylesheet" id="plotly.js-style-global" class="no-inline-styles" href="${root}assets/plotly.css">
${
      plotlyStyles().ids.map((id) =>
        `<meta name="style-left-out" content="" id="${escapeHtml(id)}">\n`
      ).join("")
    }`
    : "";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="${escapeHtml(description)}">
<meta name="referrer" content="no-referrer">
<title>${escapeHtml(title)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${root}assets/site.css">
${scripts}</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="site"><a href="${root}index.html">Adiabat</a></header>
<main id="main">
${body}
</main>
<footer>
${footer}
</footer>
</body>
</html>
`;
}

// Notebooks

const markdown = new MarkdownIt({ html: false, linkify: false });
{
  // A CommonJS module whose default export some loaders wrap once more.
  const loaded = createRequire(import.meta.url)("@vscode/markdown-it-katex");
  // MathML needs no fonts and no styles of its own.
  markdown.use(loaded.default ?? loaded, {
    output: "mathml",
    throwOnError: false,
  });
}
hljs.registerLanguage("typescript", typescript);
const purify = createDOMPurify(new JSDOM("").window);

/** What HTML in an output may contain: text and tables. */
const SAFE_HTML = {
  ALLOWED_TAGS: [
    ..."a abbr b blockquote br caption code col colgroup dd div dl dt em h1 h2 h3 h4"
      .split(" "),
    ..."h5 h6 hr i kbd li mark ol p pre s small span strong sub sup table tbody td"
      .split(" "),
    ..."tfoot th thead tr u ul".split(" "),
  ],
  ALLOWED_ATTR: ["align", "colspan", "rowspan", "scope", "title", "href"],
  ALLOW_DATA_ATTR: false,
};

function joined(text: unknown): string {
  return Array.isArray(text) ? text.join("") : String(text ?? "");
}

/** One output in the best form that a page can show. */
function outputHtml(output: Output, folder: Folder, name: string): string {
  if (output.output_type === "stream") {
    return `<pre class="${output.name === "stderr" ? "stderr" : "stdout"}">${
      escapeHtml(joined(output.text))
    }</pre>`;
  }
  if (output.output_type === "error") {
    return `<pre class="error">${
      escapeHtml(output.traceback.join("\n") || output.evalue)
    }</pre>`;
  }
  const { data } = output;
  const text = joined(data["text/plain"]);
  if (PLOTLY_MIME in data) {
    const { data: traces, layout } = data[PLOTLY_MIME] as FigureSpec;
    const [, title = ""] = /^\[Figure: (.*?)\]/s.exec(text) ?? [];
    const figure = { id: name, title, caption: "", data: traces, layout };
    return figureHtml(figure, folder, name, "p");
  }
  if ("text/html" in data) {
    return scrollable(
      purify.sanitize(joined(data["text/html"]), SAFE_HTML),
      "Output",
    );
  }
  if ("image/svg+xml" in data) {
    const svg = purify.sanitize(joined(data["image/svg+xml"]), {
      USE_PROFILES: { svg: true, svgFilters: true },
    });
    folder.write(`figures/${name}.svg`, svg);
    return `<figure><img src="figures/${name}.svg" alt="${
      escapeHtml(text || "picture")
    }"></figure>`;
  }
  if ("image/png" in data) {
    const base64 = joined(data["image/png"]).replace(/[^A-Za-z0-9+/=]/g, "");
    return `<figure><img src="data:image/png;base64,${base64}" alt="${
      escapeHtml(text || "picture")
    }"></figure>`;
  }
  if ("text/markdown" in data) {
    return markdown.render(joined(data["text/markdown"]));
  }
  return `<pre>${escapeHtml(text)}</pre>`;
}

function cellHtml(cell: NotebookCell, folder: Folder, name: string): string {
  const source = joined(cell.source);
  if (cell.cell_type === "markdown") return markdown.render(source);
  if (cell.cell_type === "raw") return `<pre>${escapeHtml(source)}</pre>`;
  const code = hljs.highlight(source, { language: "typescript" }).value;
  const outputs = (cell.outputs ?? []).map((output, i) =>
    outputHtml(output, folder, `${name}-${i + 1}`)
  );
  const shown = source.trim() === ""
    ? ""
    : `<pre class="code"><code>${code}</code></pre>`;
  return [shown, ...outputs].join("\n");
}

/** The cells of a notebook as HTML; figures go to `figures/` in the folder. */
export function notebookHtml(notebook: Notebook, folder: Folder): string {
  return notebook.cells.map((cell, i) =>
    cellHtml(cell, folder, `cell-${i + 1}`)
  ).join("\n");
}

// Pages

function footerOf(paper: SitePaper): string {
  const sets = [paper.recorded, paper.local].filter((set) => set !== null);
  return `<h2>Where the numbers come from</h2>\n${provenanceHtml(sets)}`;
}

function citationHtml({ paper }: ClaimsFile): string {
  const { citation, arxiv, doi } = paper;
  const links = [
    arxiv &&
    `<a href="https://arxiv.org/abs/${encodeURI(arxiv)}">arXiv ${
      escapeHtml(arxiv)
    }</a>`,
    doi &&
    `<a href="https://doi.org/${encodeURI(doi)}">DOI ${escapeHtml(doi)}</a>`,
  ].filter(Boolean);
  return `<p class="quiet">${escapeHtml(citation)}${
    links.length === 0 ? "" : `. ${links.join(", ")}`
  }</p>`;
}

function paperPage(paper: SitePaper, folder: Folder): string {
  const { title, claims, rows, figures, tables, notebook, recorded, local } =
    paper;
  const comparison = verdictFigure(rows);
  const shown = comparison === null ? figures : [comparison, ...figures];
  const source = recorded !== null
    ? `Recorded full run: ${provenanceText(recorded)}.${
      paper.earlier ? " The code has changed since." : ""
    }`
    : local !== null
    ? `No full run is recorded; figures show this machine's run: ${
      provenanceText(local)
    }.`
    : "Nothing has been run yet.";
  return page({
    title: `${title} · Adiabat`,
    description: `Paper against measured: ${claims.paper.title}`,
    depth: 1,
    figures: shown.length > 0,
    body: `<h1>${escapeHtml(title)}</h1>
${citationHtml(claims)}
<p>${escapeHtml(source)}</p>
${
      notebook === null
        ? ""
        : `<p><a href="notebook.html">The executed notebook</a>: the problem, the method, a small live run.</p>`
    }
<h2>Verdicts</h2>
${verdictsHtml(rows, local)}
${shown.length === 0 ? "" : "<h2>Figures</h2>"}
${
      shown.map((figure) => figureHtml(figure, folder, slug(figure.id), "h3"))
        .join("\n")
    }
${tables.length === 0 ? "" : "<h2>Tables</h2>"}
${tables.map(tableHtml).join("\n")}`,
    footer: footerOf(paper),
  });
}

function notebookPage(
  paper: SitePaper,
  notebook: Notebook,
  folder: Folder,
): string {
  const body = notebookHtml(notebook, folder);
  const heading = /<h1/.test(body)
    ? ""
    : `<h1>${escapeHtml(paper.title)}</h1>\n`;
  return page({
    title: `${paper.title} · notebook · Adiabat`,
    description: `Executed notebook: ${paper.claims.paper.title}`,
    depth: 1,
    figures: body.includes("data-spec="),
    body:
      `<p><a href="index.html">Verdicts and figures</a></p>\n${heading}${body}`,
    footer: footerOf(paper),
  });
}

/** "2 match, 1 differs": verdicts and how often. */
function countVerdicts(rows: VerdictRow[]): string {
  const counts = new Map<string, number>();
  for (const { verdict } of rows) {
    counts.set(verdict, (counts.get(verdict) ?? 0) + 1);
  }
  return [...counts].map(([verdict, n]) =>
    `<span class="verdict ${slug(verdict)}">${n} ${escapeHtml(verdict)}</span>`
  ).join(", ");
}

function indexPage(papers: SitePaper[]): string {
  const rows = papers.map(({ name, title, claims, rows, listed }) => {
    const heading = listed
      ? `${escapeHtml(title)} <small class="quiet">(${
        escapeHtml(`npm run reproduce -- ${name}`)
      } makes its page, node --import tsx scripts/site.ts all pages)</small>`
      : `<a href="${encodeURIComponent(name)}/index.html">${
        escapeHtml(title)
      }</a>`;
    return `<tr><th scope="row">${heading}<br><small class="quiet">${
      escapeHtml(claims.paper.citation)
    }</small></th><td>${countVerdicts(rows)}</td></tr>`;
  });
  const meanings = Object.entries(FIDELITY_MEANING).map(([label, meaning]) =>
    `<dt>${escapeHtml(label)}</dt><dd>${escapeHtml(meaning)}</dd>`
  );
  return page({
    title: "Adiabat: paper against measured",
    description:
      "Published systems for frugal computing, reproduced at a scale that two CPU cores can carry",
    depth: 0,
    figures: false,
    body: `<h1>Paper against measured</h1>
<p>Adiabat is a library and a set of literate experiments in TypeScript. Each paper's claims are transcribed once, measured at a scale that two CPU cores can carry, and judged by a rule that was fixed before the run. What differs stays in the table.</p>
${
      papers.length === 0
        ? "<p>No paper has been run yet: <code>npm run reproduce</code> does it.</p>"
        : scrollable(
          `<table>
<caption>Papers and the verdicts on their claims</caption>
<thead><tr><th scope="col">paper</th><th scope="col">verdicts</th></tr></thead>
<tbody>
${rows.join("\n")}
</tbody>
</table>`,
          "Papers",
        )
    }
<h2>How to read a verdict</h2>
<p><span class="verdict match">match</span>: the measured value agrees with the paper's within the stated margin or interval. <span class="verdict trend-holds">trend holds</span>: direction or order agree, the size does not or cannot. <span class="verdict differs">differs</span>: neither. <span class="verdict not-run">not run</span>: quoted, out of scope, or not recorded yet.</p>
<p>Each claim carries a label for how far it can be checked at all:</p>
<dl class="provenance">
${meanings.join("\n")}
</dl>`,
    footer: papers.map((paper) => {
      const set = paper.recorded ?? paper.local;
      return set === null
        ? ""
        : `<p>${escapeHtml(`${paper.title}: ${provenanceText(set)}.`)}</p>`;
    }).join("\n"),
  });
}

/** Refuses to replace a folder that this program did not write. */
function requireOwnFolder(outDir: string): void {
  if (!existsSync(outDir) || readdirSync(outDir).length === 0) return;
  if (!existsSync(join(outDir, "assets/site.css"))) {
    throw new RangeError(
      `Cannot build the site in ${outDir} as it holds other files: name an empty folder`,
    );
  }
}

/**
 * Builds the site and returns its folder. The old one is replaced only when the new one is whole.
 *
 * @throws RangeError if the folder holds something other than a site.
 */
export async function buildSite(
  { papers, outDir = join(projectRoot(), "site"), wanted }: SiteOptions = {},
): Promise<string> {
  requireOwnFolder(outDir);
  let shown = papers;
  if (shown === undefined) {
    const hasPage = (name: string) =>
      wanted === undefined || wanted.includes(name) ||
      existsSync(join(outDir, slug(name), "index.html"));
    const found = await Promise.all(
      Object.keys(experiments).map((name) => collect(name, !hasPage(name))),
    );
    shown = found.filter((paper) => paper !== null);
  }
  const temporary = new Folder(`${resolve(outDir)}.${process.pid}.tmp`);
  try {
    const source = fileURLToPath(new URL("./site-assets", import.meta.url));
    mkdirSync(join(temporary.path, "assets"), { recursive: true });
    for (const file of ["site.css", "site.js"]) {
      copyFileSync(join(source, file), join(temporary.path, "assets", file));
    }
    copyFileSync(plotlyPath(), join(temporary.path, "assets/plotly.js"));
    temporary.write("assets/plotly.css", plotlyStyles().css);
    temporary.write("index.html", indexPage(shown));
    for (const paper of shown) {
      if (paper.listed) continue;
      const folder = new Folder(join(temporary.path, slug(paper.name)));
      folder.write("index.html", paperPage(paper, folder));
      if (paper.notebook !== null) {
        folder.write(
          "notebook.html",
          notebookPage(paper, paper.notebook, folder),
        );
      }
    }
    rmSync(outDir, { recursive: true, force: true });
    renameSync(temporary.path, outDir);
  } finally {
    rmSync(temporary.path, { recursive: true, force: true });
  }
  return outDir;
}

async function main(): Promise<void> {
  const command = new Command("site")
    .description("Builds the site from what is recorded")
    .option("--out <folder>", "where to", join(projectRoot(), "site"))
    .parse();
  const { out } = command.opts<{ out: string }>();
  try {
    const folder = await buildSite({ outDir: resolve(out) });
    console.log(`${relative(process.cwd(), folder)}/index.html`);
  } catch (error) {
    console.error((error as Error).message);
    process.exitCode = 1;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
