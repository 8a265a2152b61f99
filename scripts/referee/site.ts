/**
 * Referee: opens the pages of `site/` from the disk in headless Chromium, takes a picture of each and
 * lists what the browser complains about (errors, blocked scripts and styles).
 *
 *     node --import tsx scripts/referee/site.ts [--site site] [--out .cache/screenshots] [--width 1100]
 *
 * Says so, and ends well, where no Chromium is installed.
 */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { Command } from "commander";
import { cacheFolder, projectRoot } from "../../lib/core/runs.ts";

const BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/** The pages below a folder, relative to it. */
function pagesOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".html")).sort();
}

interface Visit {
  /** What the browser reported, line by line. */
  complaints: string[];
  /** Figures that became interactive. */
  figures: number;
}

function launch(browser: string, args: string[]) {
  const profile = mkdtempSync(join(tmpdir(), "adiabat-chromium-"));
  try {
    return spawnSync(browser, [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-background-networking",
      "--no-first-run",
      "--hide-scrollbars",
      "--enable-logging=stderr",
      "--virtual-time-budget=10000",
      `--user-data-dir=${profile}`,
      ...args,
    ], { encoding: "utf8", timeout: 180_000, maxBuffer: 1e9 });
  } finally {
    rmSync(profile, { recursive: true, force: true });
  }
}

/** Opens one page: a picture of it, and its document after its scripts have run. */
function visit(
  browser: string,
  url: string,
  picture: string,
  size: string,
): Visit {
  const shot = launch(browser, [
    `--window-size=${size}`,
    `--screenshot=${picture}`,
    url,
  ]);
  const dumped = launch(browser, [
    `--window-size=${size}`,
    "--dump-dom",
    url,
  ]);
  const complaints = `${shot.stderr ?? ""}`.split("\n")
    .filter((line) => /:CONSOLE/.test(line))
    .map((line) => line.replace(/^\[[^\]]*\]\s*/, "").slice(0, 300));
  const figures = (`${dumped.stdout}`.match(/class="js-plotly-plot/g) ?? [])
    .length;
  return { complaints, figures };
}

function main(): void {
  const command = new Command("site")
    .description("Opens the site in headless Chromium")
    .option("--site <folder>", "the site", join(projectRoot(), "site"))
    .option(
      "--out <folder>",
      "where pictures go",
      join(cacheFolder(), "screenshots"),
    )
    .option("--width <px>", "width of the window", "1100")
    .option("--height <px>", "height of the window", "3000")
    .parse();
  const { site, out, width, height } = command.opts<Record<string, string>>();
  if (!existsSync(join(site, "index.html"))) {
    console.error(`Cannot find a site in ${site}: npm run reproduce builds it`);
    process.exitCode = 1;
    return;
  }
  const browser = BROWSERS.find((name) =>
    spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0
  );
  if (browser === undefined) {
    console.log("Chromium is not installed: the site was not opened");
    return;
  }
  mkdirSync(out, { recursive: true });
  for (const page of pagesOf(site)) {
    const picture = resolve(out, page.replace(/[/\\]/g, "-") + `.${width}.png`);
    const url = pathToFileURL(resolve(site, page)).href;
    const { complaints, figures } = visit(
      browser,
      url,
      picture,
      `${width},${height}`,
    );
    console.log(
      `${page}: ${figures} interactive figures, ${complaints.length} complaints, ${
        relative(process.cwd(), picture)
      }`,
    );
    for (const complaint of complaints) console.log(`  ${complaint}`);
    if (complaints.length > 0) process.exitCode = 1;
  }
}

main();
