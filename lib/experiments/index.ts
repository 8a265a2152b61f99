/** The experiments by name; each module is loaded only when it is asked for. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { codeInfo } from "../core/provenance.ts";
import {
  type Experiment,
  loadSummary,
  projectRoot,
  type ResultSet,
} from "../core/runs.ts";

type Load = () => Promise<{ default: Experiment }>;

/** Modules whose default export is an `Experiment`. The name is the paper's everywhere. */
export const experiments: Record<string, Load> = {
  "agent-distillation": () => import("./agent-distillation.ts"),
  "agile-quant": () => import("./agile-quant.ts"),
  "aqfp-lca": () => import("./aqfp-lca.ts"),
  base: () => import("./base.ts"),
  edgeqat: () => import("./edgeqat.ts"),
  encoder: () => import("./encoder.ts"),
  fusion: () => import("./fusion.ts"),
  "quasar-vit": () => import("./quasar-vit.ts"),
  rora: () => import("./rora.ts"),
  superbnn: () => import("./superbnn.ts"),
  superflow: () => import("./superflow.ts"),
  "tri-level-evit": () => import("./tri-level-evit.ts"),
};

/** Experiments without a paper's claims: what others start from, or show beside; they run only when they are named. */
export const preparations: readonly string[] = ["base", "encoder"];

/**
 * Path of an experiment's module: lib/experiments/<name>.ts, or the given path of a module of the
 * reader's own.
 */
export function experimentFile(name: string): string {
  return name.endsWith(".ts")
    ? resolve(name)
    : join(projectRoot(), "lib", "experiments", `${name}.ts`);
}

/** Loads an experiment by its registry name, or by the path of a module of the reader's own. */
export async function loadExperiment(name: string): Promise<Experiment> {
  if (Object.hasOwn(experiments, name)) {
    return (await experiments[name]()).default;
  }
  const file = experimentFile(name);
  if (!name.endsWith(".ts") || !existsSync(file)) {
    throw new RangeError(
      `Cannot find paper "${name}": known papers are ${
        Object.keys(experiments).join(", ")
      }`,
    );
  }
  return (await import(pathToFileURL(file).href)).default;
}

/**
 * This machine's quick run, else its smoke run, or null. A run that an earlier version of the
 * experiment made counts for nothing: its arms may lack what tables and figures read now.
 */
export function localSummary(name: string): ResultSet | null {
  const current = codeInfo(experimentFile(name)).hash;
  for (const profile of ["quick", "smoke"] as const) {
    const set = loadSummary(name, profile);
    if (set?.provenance.codeHash === current) return set;
  }
  return null;
}
