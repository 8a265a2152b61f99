/** The engines that the benchmark compares, and how each is started as a process of its own. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { projectRoot } from "../../lib/core/runs.ts";
import type { BackendInfo } from "../../lib/core/tensor.ts";

export interface Peer {
  id: string;
  name: string;
  /** Command and first arguments; the task follows as JSON. */
  command: string[];
  environment: Record<string, string>;
  /** Which operations the model uses; PyTorch has its own program. */
  engine: "ours" | "stock" | "pytorch";
}

/** One thread each, whatever the library. */
export const ONE_THREAD = {
  OPENBLAS_NUM_THREADS: "1",
  OMP_NUM_THREADS: "1",
  MKL_NUM_THREADS: "1",
  ADIABAT_THREADS: "1",
};

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** The user stopped the benchmark. */
export class Interrupted extends Error {
  constructor() {
    super("Cannot finish the benchmark as it was interrupted");
  }
}

const folder = join(projectRoot(), "scripts", "bench");
const inDeno = "deno" in process.versions;

/** Node's command and how it runs TypeScript. */
function nodeCommand(): string[] {
  const node = inDeno ? "node" : process.execPath;
  return [node, "--import", "tsx", join(folder, "child.ts")];
}

/** Deno's command, or null where the package is not installed. */
export function denoCommand(): string[] | null {
  const installed = join(projectRoot(), "node_modules", "deno", "bin.cjs");
  if (inDeno) return [process.execPath, "run", "-A", join(folder, "child.ts")];
  if (!existsSync(installed)) return null;
  return [process.execPath, installed, "run", "-A", join(folder, "child.ts")];
}

/** Runs a command and gives its standard output; an error carries what it wrote on stderr. */
export function output(
  command: string[],
  environment: Record<string, string> = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command[0], command.slice(1), {
      cwd: projectRoot(),
      env: { ...process.env, ...ONE_THREAD, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stopped = false;
    const stop = () => {
      stopped = true;
      child.kill();
    };
    for (const signal of SIGNALS) process.once(signal, stop);
    let [out, err] = ["", ""];
    child.stdout.on("data", (chunk) => out += chunk);
    child.stderr.on("data", (chunk) => err += chunk);
    child.once("error", reject);
    child.once("close", (code) => {
      for (const signal of SIGNALS) process.removeListener(signal, stop);
      if (code === 0) resolve(out);
      else if (stopped) reject(new Interrupted());
      else reject(new Error(err.trim() || `it ended with code ${code}`));
    });
  });
}

/** Gives a task to a peer's process and reads its answer, the last line of its output. */
export async function ask<Answer>(
  { command, environment, name }: Peer,
  task: unknown,
): Promise<Answer> {
  try {
    const text = await output([...command, JSON.stringify(task)], environment);
    return JSON.parse(text.trim().split("\n").at(-1)!) as Answer;
  } catch (error) {
    if (error instanceof Interrupted) throw error;
    throw new Error(
      `Cannot measure ${name}: ${(error as Error).message.split("\n").at(-1)}`,
    );
  }
}

/** The Python that has PyTorch, or null. */
async function findPyTorch(): Promise<string | null> {
  for (const python of ["python3", "/usr/bin/python3", "python"]) {
    try {
      await output([python, "-c", "import torch, numpy"]);
      return python;
    } catch (error) {
      if (error instanceof Interrupted) throw error;
      // The next one may.
    }
  }
  return null;
}

/** The peers that are installed here, and a line for each one that is not. */
export async function findPeers(
  kind: "gpt" | "gemm",
): Promise<{ peers: Peer[]; absent: string[] }> {
  const peers: Peer[] = [];
  const absent: string[] = [];
  const deno = denoCommand();
  if (deno === null) absent.push("Deno (npm install)");
  const runtimes = [["node", nodeCommand()], ["deno", deno]] as const;

  const [probe] = variants(nodeCommand(), "node");
  const info = await ask<BackendInfo>(
    { ...probe, environment: { ADIABAT_BACKEND: "wasm" } },
    { describe: true },
  );
  if (info.blas === null) {
    absent.push(
      "a system BLAS (for example: apt-get install libopenblas0-pthread)",
    );
  }
  for (const [runtime, command] of runtimes) {
    if (command === null) continue;
    peers.push(
      ...variants(command, runtime)
        .filter(({ id }) => info.blas !== null || !id.startsWith("blas")),
    );
  }

  const python = await findPyTorch();
  if (python === null) {
    absent.push("PyTorch (for example: apt-get install python3-torch)");
  } else {
    // An OpenBLAS older than the processor takes a slow kernel unless told; ours is told, so this too.
    const core = /\((\w+)\)$/.exec(info.blas ?? "")?.[1];
    peers.push({
      id: "pytorch",
      name: core === undefined ? "PyTorch" : `PyTorch (OpenBLAS ${core})`,
      command: [python, join(folder, `${kind}.py`)],
      environment: core === undefined ? {} : { OPENBLAS_CORETYPE: core },
      engine: "pytorch",
    });
  }
  return { peers, absent };
}

/** The three engines of ours in one runtime. */
function variants(command: string[], runtime: string): Peer[] {
  const ours = { command, engine: "ours" } as const;
  return [
    {
      ...ours,
      id: `blas-${runtime}`,
      name: `ours with BLAS, ${runtime}`,
      environment: { ADIABAT_BACKEND: "wasm" },
    },
    {
      ...ours,
      id: `own-${runtime}`,
      name: `ours without BLAS, ${runtime}`,
      environment: { ADIABAT_BACKEND: "wasm", ADIABAT_BLAS: "off" },
    },
    {
      command,
      engine: "stock",
      id: `stock-${runtime}`,
      name: `stock tfjs wasm, ${runtime}`,
      environment: { ADIABAT_BACKEND: "stock-wasm" },
    },
  ];
}
