/**
 * `npm run lab`: opens the notebooks in Jupyter with our TypeScript kernel.
 *
 * Writes the kernel spec (a folder with kernel.json) where Jupyter looks for those of the user, then
 * starts JupyterLab or the classic notebook if one is installed, and otherwise says how to get one.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Command } from "commander";
import { projectRoot } from "./kernel.ts";

/** Where Jupyter looks for the user's data: JUPYTER_DATA_DIR, else its default per system. */
export function jupyterDataDir(
  env: Record<string, string | undefined> = process.env,
  platform: string = process.platform,
): string {
  if (env.JUPYTER_DATA_DIR) return env.JUPYTER_DATA_DIR;
  if (platform === "darwin") return join(homedir(), "Library/Jupyter");
  if (platform === "win32") {
    return join(env.APPDATA ?? join(homedir(), "AppData/Roaming"), "jupyter");
  }
  return join(
    env.XDG_DATA_HOME || join(homedir(), ".local/share"),
    "jupyter",
  );
}

/** What Jupyter needs to know to start the kernel. */
export function kernelSpec(): Record<string, unknown> {
  // The loader's own path: Jupyter starts the kernel in the folder of the notebook.
  const loader = createRequire(import.meta.url).resolve("tsx");
  return {
    argv: [
      process.execPath,
      "--import",
      pathToFileURL(loader).href,
      join(projectRoot, "scripts/kernel.ts"),
      "--config-path",
      "{connection_file}",
    ],
    display_name: "TypeScript (Adiabat)",
    language: "typescript",
  };
}

/** Writes the kernel spec below `dataDir` and returns its folder. */
export function writeKernelSpec(dataDir: string = jupyterDataDir()): string {
  const folder = join(dataDir, "kernels/adiabat");
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    join(folder, "kernel.json"),
    `${JSON.stringify(kernelSpec(), null, 2)}\n`,
  );
  return folder;
}

/** The arguments after `jupyter` that open a notebook server here, or null without Jupyter. */
function findJupyter(): string[] | null {
  for (const command of ["lab", "notebook"]) {
    const { status } = spawnSync("jupyter", [command, "--version"], {
      stdio: "ignore",
    });
    if (status === 0) return [command];
  }
  return null;
}

function main(): void {
  const command = new Command("lab")
    .description("Opens the notebooks in Jupyter with our TypeScript kernel")
    .option("--kernel-only", "write the kernel spec and stop")
    .option("--dir <folder>", "Jupyter's data folder to write to")
    .argument("[jupyter arguments...]", "passed on, after --")
    .parse();
  const { kernelOnly = false, dir } = command.opts<{
    kernelOnly?: boolean;
    dir?: string;
  }>();
  const dataDir = dir === undefined ? jupyterDataDir() : resolve(dir);
  let folder: string;
  try {
    folder = writeKernelSpec(dataDir);
  } catch (error) {
    console.error(
      `Cannot write the kernel spec to ${dataDir}: ${
        (error as Error).message
      }; choose another folder with --dir`,
    );
    process.exit(1);
  }
  console.log(`Kernel "TypeScript (Adiabat)" written to ${folder}`);
  if (kernelOnly) return;
  const jupyter = findJupyter();
  if (jupyter === null) {
    console.log(
      "Jupyter is not installed. Any of these gets it:\n" +
        "  apt install jupyter-notebook      (Debian, Ubuntu)\n" +
        "  pip install jupyterlab            (Python 3)\n" +
        "  brew install jupyterlab           (macOS)\n" +
        "Then run `npm run lab` again. VS Code's Jupyter extension finds the kernel as well.\n" +
        "Without Jupyter: node --import tsx scripts/notebook.ts notebooks/rora.ipynb",
    );
    return;
  }
  const child = spawn("jupyter", [...jupyter, ...command.args], {
    cwd: join(projectRoot, "notebooks"),
    env: {
      ...process.env,
      ...(dir === undefined ? {} : { JUPYTER_DATA_DIR: dataDir }),
    },
    stdio: "inherit",
  });
  child.on("exit", (code) => process.exit(code ?? 1));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
