/**
 * Where a result comes from: the code, data, packages, commit and machine behind a run.
 *
 * The code hash covers the experiment's module and every file it imports, followed through relative
 * imports without running anything. Type-only imports are left out, as they vanish. So is what a
 * run's numbers do not depend on, lest a new caption make every run stale: the core's records,
 * claims, tables and figures, and modules named `*.report.ts`, where an experiment keeps its own.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { cpus, release, totalmem, type as osType } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import process from "node:process";
import {
  contentHash,
  type Environment,
  type Experiment,
  type GitState,
  type Machine,
  projectRoot,
} from "./runs.ts";

/** Modules and packages that a source text imports at run time; comments do not count. */
export function importsOf(source: string): string[] {
  const code = source
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/^\s*\/\/.*$/gm, "");
  const found: string[] = [];
  const clause =
    /(?:^|;)\s*(?:import|export)\s+(?!type\s)(?:[\w*$\s{},]+?\s+from\s+)?["']([^"']+)["']/gm;
  const call = /\bimport\(\s*["']([^"']+)["']\s*\)/g;
  const url = /\bnew URL\(\s*["'](\.[^"']+)["']\s*,\s*import\.meta\.url\s*\)/g;
  for (const pattern of [clause, call, url]) {
    for (const match of code.matchAll(pattern)) found.push(match[1]);
  }
  return found;
}

/** Modules that keep, judge or show results; no run computes with them. */
const REPORTING =
  /(\.report|lib\/core\/(runs|claims|table|figure|show|svg))\.ts$/;

/** What an entry module is made of: its own files and the packages they import. */
export interface CodeInfo {
  hash: string;
  /** Paths of the files from the project root, sorted. */
  files: string[];
  /** Names of the packages that the files import. */
  packages: string[];
}

/**
 * Follows the relative imports of `entry` and hashes every file reached.
 *
 * @param options `reports`: with the modules that only keep, judge or show results
 */
export function codeInfo(
  entry: string,
  { reports: withReports = false }: { reports?: boolean } = {},
): CodeInfo {
  const root = projectRoot();
  const content = new Map<string, string>();
  const packages = new Set<string>();
  const visit = (path: string): void => {
    if (content.has(path)) return;
    const source = readFileSync(path, "utf8");
    content.set(path, contentHash(source));
    if (!/\.[cm]?[jt]s$/.test(path)) return;
    for (const name of importsOf(source)) {
      if (name.startsWith(".")) {
        const target = resolve(dirname(path), name);
        const isFile = existsSync(target) && statSync(target).isFile();
        const reports = REPORTING.test(target.replaceAll("\\", "/"));
        if (isFile && (withReports || !reports)) visit(target);
      } else if (!name.startsWith("node:")) {
        const parts = name.split("/");
        packages.add(parts.slice(0, name.startsWith("@") ? 2 : 1).join("/"));
      }
    }
  };
  visit(resolve(entry));
  const files = [...content]
    .map(([path, hash]) => [relative(root, path), hash])
    .sort(([a], [b]) => a < b ? -1 : 1);
  return {
    hash: contentHash(files),
    files: files.map(([path]) => path),
    packages: [...packages].sort(),
  };
}

/** "node 20.20.2" or "deno 2.9.6". */
export function runtimeVersion(): string {
  const deno = (process.versions as Record<string, string>).deno;
  return deno === undefined ? `node ${process.versions.node}` : `deno ${deno}`;
}

/** Version of the runtime, of this project, and of each package as it is installed. */
export function packageVersions(packages: string[]): Record<string, string> {
  const root = projectRoot();
  const version = (file: string): string =>
    existsSync(file)
      ? JSON.parse(readFileSync(file, "utf8")).version
      : "not installed";
  const versions: Record<string, string> = {
    runtime: runtimeVersion(),
    adiabat: version(join(root, "package.json")),
  };
  for (const name of packages) {
    versions[name] = version(join(root, "node_modules", name, "package.json"));
  }
  return versions;
}

/**
 * Hash over files and folders (all files below them), by path and content; a path that does not
 * exist counts as absent.
 */
export function hashFiles(paths: string[]): string {
  const root = projectRoot();
  const entries: [string, string][] = [];
  const visit = (path: string): void => {
    const full = resolve(root, path);
    if (!existsSync(full)) entries.push([path, "absent"]);
    else if (statSync(full).isDirectory()) {
      for (const name of readdirSync(full).sort()) visit(join(path, name));
    } else {entries.push([
        path,
        contentHash(new Uint8Array(readFileSync(full))),
      ]);}
  };
  for (const path of paths) visit(path);
  return contentHash(entries);
}

/**
 * Commit of the project and whether files differ from it; "unknown" where git or the repository
 * is absent. Results and notebooks, which programs write, do not count.
 */
export function gitState(): GitState {
  const git = (...args: string[]) =>
    execFileSync("git", args, {
      cwd: projectRoot(),
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  try {
    const commit = git("rev-parse", "HEAD");
    const changes = git(
      "status",
      "--porcelain",
      "--",
      ".",
      ":!data/runs",
      ":!notebooks",
    );
    return { commit, dirty: changes !== "" };
  } catch {
    return { commit: "unknown", dirty: null };
  }
}

/** The machine's processor, cores and memory. */
export function machineInfo(): Machine {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? "unknown",
    cores: processors.length,
    memoryGb: Number((totalmem() / 2 ** 30).toFixed(1)),
    os: `${osType()} ${release()}`,
  };
}

/** Largest resident set of this process so far (MB). */
export function peakMemoryMb(): number {
  try {
    const status = readFileSync("/proc/self/status", "utf8");
    const peak = status.match(/^VmHWM:\s+(\d+) kB/m);
    if (peak !== null) return Math.round(Number(peak[1]) / 1024);
  } catch {
    // no /proc outside Linux
  }
  return Math.round(process.resourceUsage().maxRSS / 1024);
}

/**
 * Versions and integrity hashes of data packages, as data/package-lock.json pins them; of all of
 * them if `names` is not given.
 */
function dataPins(names?: string[]): unknown {
  const path = join(projectRoot(), "data", "package-lock.json");
  if (!existsSync(path)) return "absent";
  const packages: Record<string, { version?: string; integrity?: string }> =
    JSON.parse(readFileSync(path, "utf8")).packages ?? {};
  return Object.entries(packages)
    .map(([path, p]) => [path.replace(/^.*node_modules\//, ""), p] as const)
    .filter(([name]) => name !== "" && (names?.includes(name) ?? true))
    .map(([name, p]) => [name, p.version ?? "", p.integrity ?? ""]);
}

/**
 * What the numbers of an experiment's runs depend on here and now besides their specs. Makes the
 * tensor engine ready if the experiment uses it.
 */
export async function environmentOf(
  experiment: Experiment,
  entry: string,
): Promise<Environment> {
  const code = codeInfo(entry);
  const backend = experiment.engine === "none"
    ? null
    : await (await import("./tensor.ts")).ready();
  return {
    codeHash: code.hash,
    dataHash: contentHash([
      dataPins(experiment.packages),
      hashFiles(experiment.inputs ?? []),
    ]),
    versions: packageVersions(code.packages),
    backend,
  };
}
