/** Where the data are: npm packages that data/package.json pins, installed on first use. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const INSTALL_COMMAND = "node --import tsx scripts/install-data.ts";

/** The folder that pins the data packages. */
export function dataFolder(): string {
  return fileURLToPath(new URL("../../data/", import.meta.url));
}

/** An installed data package. */
export interface DataPackage {
  folder: string;
  /** "name@version" as installed. */
  source: string;
}

/**
 * Where a data package is.
 *
 * @param dataset The name that a message gives to what is in it.
 * @param name Of the package.
 * @throws {Error} Unless the pinned version is completely installed.
 */
export function findPackage(
  dataset: string,
  name: string,
  folder = dataFolder(),
): DataPackage {
  const modules = join(folder, "node_modules");
  const found = join(modules, ...name.split("/"));
  const readJson = (path: string) =>
    existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : {};
  const pinned = readJson(join(folder, "package.json")).dependencies?.[name];
  const installed = readJson(join(found, "package.json")).version;
  // npm writes this file last: without it an installation was interrupted.
  const complete = existsSync(join(modules, ".package-lock.json"));
  if (!complete || installed === undefined || installed !== pinned) {
    const state = installed === undefined
      ? "not found"
      : complete
      ? `found ${installed}`
      : "found a part";
    throw new Error(
      `Cannot read the data set "${dataset}" as package ${name}@${pinned} must be installed: ${state}; run \`${INSTALL_COMMAND}\``,
    );
  }
  return { folder: found, source: `${name}@${installed}` };
}
