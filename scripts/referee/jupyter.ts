/**
 * Referee: does a notebook give the same outputs in real Jupyter as in our headless runner?
 *
 *     node --import tsx scripts/referee/jupyter.ts [notebooks/rora.ipynb ...] [--profile smoke]
 *
 * Jupyter's own client (Python's nbclient) starts our kernel through a kernel spec in a temporary
 * folder. Outputs are normalised and compared. Says so, and ends well, where Python or nbclient is
 * not installed.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Command, Option } from "commander";
import { type Profile, profiles } from "../../lib/core/runs.ts";
import { writeKernelSpec } from "../lab.ts";
import {
  normalise,
  type Notebook,
  type Output,
  readNotebook,
  runNotebook,
} from "../notebook.ts";

const CLIENT = `
import sys, nbformat, nbclient
source, target, folder = sys.argv[1:4]
notebook = nbformat.read(source, 4)
client = nbclient.NotebookClient(notebook, kernel_name="adiabat", timeout=600,
                                 resources={"metadata": {"path": folder}})
client.execute()
nbformat.write(notebook, target)
`;

/** The first Python with nbclient, or null. */
function findPython(): string | null {
  for (const python of ["python3", "/usr/bin/python3", "python"]) {
    const { status } = spawnSync(python, ["-c", "import nbclient, nbformat"], {
      stdio: "ignore",
    });
    if (status === 0) return python;
  }
  return null;
}

/** Executes the notebook with Jupyter's client and our kernel. */
function runInJupyter(
  python: string,
  path: string,
  profile: Profile,
): Notebook {
  const folder = mkdtempSync(join(tmpdir(), "adiabat-jupyter-"));
  try {
    writeKernelSpec(folder);
    const target = join(folder, "executed.ipynb");
    const { status, stderr } = spawnSync(
      python,
      ["-c", CLIENT, path, target, folder],
      {
        encoding: "utf8",
        env: {
          ...process.env,
          JUPYTER_DATA_DIR: folder,
          ADIABAT_PROFILE: profile,
        },
      },
    );
    if (status !== 0) {
      throw new Error(
        `Cannot execute ${path} in Jupyter: ${
          stderr.trim().split("\n").slice(-8).join("\n")
        }`,
      );
    }
    return readNotebook(target);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What a reader sees of an output. An error is shown by Jupyter as text on stderr: left out. */
function visible(outputs: Output[] = []): string[] {
  return outputs.flatMap((output) =>
    output.output_type === "error" ||
      (output.output_type === "stream" && output.name === "stderr")
      ? []
      : [JSON.stringify(
        output.output_type === "stream" ? output.text : output.data,
      )]
  );
}

/** The cells whose visible outputs differ, by number from 1. */
function differences(a: Notebook, b: Notebook): number[] {
  return a.cells.flatMap((cell, i) =>
    JSON.stringify(visible(cell.outputs)) ===
        JSON.stringify(visible(b.cells[i].outputs))
      ? []
      : [i + 1]
  );
}

async function main(): Promise<void> {
  const command = new Command("jupyter")
    .description("Compares Jupyter's outputs with those of the headless runner")
    .argument("[notebooks...]", "paths of .ipynb files")
    .addOption(
      new Option("--profile <profile>").choices([...profiles]).default("smoke"),
    )
    .parse();
  const { profile } = command.opts<{ profile: Profile }>();
  const root = resolve(fileURLToPath(import.meta.url), "../../..");
  const paths = command.args.length > 0
    ? command.args
    : [join(root, "test/fixtures/passing.ipynb")];
  const python = findPython();
  if (python === null) {
    console.log(
      "Jupyter's client is not installed (apt install python3-nbclient): nothing compared",
    );
    return;
  }
  for (const path of paths) {
    const own = await runNotebook(path, { profile });
    if (own.failure !== null) {
      throw new Error(
        `Cannot compare ${path} as it fails: ${own.failure.message}`,
      );
    }
    const theirs = normalise(runInJupyter(python, path, profile));
    const differing = differences(own.notebook, theirs);
    const outputs = own.notebook.cells.flatMap((cell) =>
      visible(cell.outputs)
    ).length;
    if (differing.length > 0) {
      console.error(
        `${path}: Jupyter shows something else in cell ${differing.join(", ")}`,
      );
      process.exitCode = 1;
    } else {
      console.log(`${path}: Jupyter shows the same ${outputs} outputs`);
    }
  }
}

await main().catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
