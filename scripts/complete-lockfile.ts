/**
 * Adds to package-lock.json the platform packages (`@deno/darwin-arm64` ...)
 * that a partial registry mirror did not serve, without which `npm ci` refuses
 * the lockfile. Run it after `npm install` behind such a mirror.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

interface LockEntry {
  version?: string;
  dev?: boolean;
  optionalDependencies?: Record<string, string>;
  [field: string]: unknown;
}

const file = fileURLToPath(new URL("../package-lock.json", import.meta.url));
const lock = JSON.parse(readFileSync(file, "utf8"));
const packages: Record<string, LockEntry> = lock.packages;

/** The lock entry of a platform package, read off its name. */
function platformEntry(name: string, version: string, dev: boolean): LockEntry {
  const os = /darwin|linux|win32|android|freebsd|openbsd/.exec(name)?.[0];
  const cpu = /arm64|x64|riscv64|ia32|arm(?=-|$)/
    .exec(name.replace("win32", ""))?.[0];
  const libc = os !== "linux" ? [] : /musl/.test(name) ? ["musl"] : ["glibc"];
  return {
    version,
    cpu: [cpu],
    ...(dev ? { dev } : {}),
    ...(libc.length > 0 ? { libc } : {}),
    optional: true,
    os: [os],
  };
}

const missing: string[] = [];
for (const entry of Object.values(packages)) {
  const optional = Object.entries(entry.optionalDependencies ?? {});
  for (const [name, version] of optional) {
    const path = `node_modules/${name}`;
    const exact = /^\d/.test(version);
    if (path in packages || !exact) continue;
    packages[path] = platformEntry(name, version, entry.dev === true);
    missing.push(name);
  }
}
lock.packages = Object.fromEntries(
  Object.entries(packages).sort(([a], [b]) => (a < b ? -1 : 1)),
);
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
console.log(`added ${missing.length}: ${missing.join(", ") || "none"}`);
