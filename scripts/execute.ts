/** One run, in this process: from its spec to its record. */
import process from "node:process";
import { key as rngKey } from "../lib/core/rng.ts";
import {
  artifactPath,
  contentHash,
  type Environment,
  type Experiment,
  readArtifact,
  readRecord,
  type RunContext,
  runKey,
  type RunRecord,
  type RunSpec,
  splitMetrics,
  writeAtomic,
  writeRecord,
} from "../lib/core/runs.ts";
import {
  environmentOf,
  gitState,
  machineInfo,
  peakMemoryMb,
} from "../lib/core/provenance.ts";
import { experimentFile, loadExperiment } from "../lib/experiments/index.ts";

/** What a run tells while it works; one JSON line each when it is a process of its own. */
export type RunEvent =
  | { event: "progress"; fraction: number; message?: string }
  | { event: "log"; message: string }
  | { event: "done"; key: string; seconds: number }
  | { event: "error"; message: string; stack: string };

const MIN_PROGRESS_INTERVAL_MS = 100;

/** Environments by experiment: what this process has loaded does not change when files do. */
const environments = new Map<string, Promise<Environment>>();

/** The environment of an experiment as this process first saw it. */
function environmentHere(
  source: string,
  experiment: Experiment,
): Promise<Environment> {
  const known = environments.get(source);
  if (known !== undefined) return known;
  const environment = environmentOf(experiment, experimentFile(source));
  environments.set(source, environment);
  return environment;
}

/** Checks that a parsed JSON value is a run's spec. */
export function checkSpec(value: unknown): RunSpec {
  const spec = value as RunSpec;
  const isObject = (x: unknown) =>
    x !== null && typeof x === "object" && !Array.isArray(x);
  const problem = !isObject(spec)
    ? "an object is required"
    : typeof spec.experiment !== "string"
    ? `"experiment" must be a name: ${JSON.stringify(spec.experiment)}`
    : typeof spec.arm !== "string"
    ? `"arm" must be an id: ${JSON.stringify(spec.arm)}`
    : !isObject(spec.config)
    ? `"config" must be an object: ${JSON.stringify(spec.config)}`
    : !Number.isInteger(spec.seed)
    ? `"seed" must be a whole number: ${JSON.stringify(spec.seed)}`
    : null;
  if (problem !== null) {
    throw new SyntaxError(`Cannot read the run's spec as ${problem}`);
  }
  return { ...spec, profile: spec.profile ?? "quick", needs: spec.needs ?? {} };
}

/** Runs a spec and writes its record; nothing is recorded unless the run finishes. */
export async function executeRun(
  spec: RunSpec,
  emit: (event: RunEvent) => void,
): Promise<RunRecord> {
  const startedAt = new Date().toISOString();
  const start = performance.now();
  const seconds = () => (performance.now() - start) / 1000;
  const cpuStart = process.cpuUsage();
  const cpuSeconds = () => {
    const { user, system } = process.cpuUsage(cpuStart); // µs
    return (user + system) / 1e6;
  };
  const experiment = await loadExperiment(spec.experiment);
  const environment = await environmentHere(spec.experiment, experiment);
  const key = runKey(spec, environment);
  const artifacts: Record<string, Uint8Array> = {};
  const timings: Record<string, number> = {};
  const data: Record<string, string> = {};
  let lastProgress = -Infinity;
  const context: RunContext = {
    progress(fraction, message) {
      const now = performance.now();
      if (now - lastProgress < MIN_PROGRESS_INTERVAL_MS) return;
      lastProgress = now;
      emit({ event: "progress", fraction, message });
    },
    log: (message) => emit({ event: "log", message }),
    timing(name, value) {
      timings[name] = value;
    },
    seconds,
    cpuSeconds,
    data(name, hash) {
      data[name] = hash;
    },
    writeArtifact(name, bytes) {
      artifactPath(spec.experiment, key, name); // refuses a bad name
      artifacts[name] = bytes.slice();
    },
    readArtifact(arm, name) {
      const need = spec.needs[arm];
      const record = need === undefined
        ? null
        : readRecord(spec.experiment, need);
      if (record === null) {
        throw new RangeError(
          `Cannot read artefact "${name}" as arm "${arm}" has ${
            need === undefined ? "to be named in needs" : "not been run"
          }`,
        );
      }
      return readArtifact(record, name);
    },
  };
  const metrics = await experiment.run(
    spec.config,
    rngKey(spec.seed),
    context,
  );
  const results = splitMetrics(metrics); // refuses NaN before anything is written
  for (const [name, bytes] of Object.entries(artifacts)) {
    writeAtomic(artifactPath(spec.experiment, key, name), bytes);
  }
  return writeRecord({
    schema: 1,
    status: "done",
    key,
    spec,
    ...results,
    timings: splitMetrics(timings).metrics,
    artifacts: Object.fromEntries(
      Object.entries(artifacts).map(([name, bytes]) => [
        name,
        { sizeBytes: bytes.length, hash: contentHash(bytes) },
      ]),
    ),
    provenance: {
      ...gitState(),
      ...environment,
      machine: machineInfo(),
      data,
      startedAt,
      seconds: Number(seconds().toFixed(3)),
      peakMemoryMb: peakMemoryMb(),
      command:
        `run.ts ${experiment.name} --arm ${spec.arm} --seed ${spec.seed} --profile ${spec.profile}`,
    },
  });
}
