/**
 * Speed of SupeRBNN's simulator: test images of the MLP 784-256-256-10 at three stream lengths.
 *
 * Run as a process of its own it is one measurement: `superbnn.ts <crossbar size> <images>` prints a
 * `SimulatorTiming` as JSON. Weights and images are random signs: the work does not depend on them.
 */
import { execFile } from "node:child_process";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { peakMemoryMb } from "../../lib/core/provenance.ts";
import {
  fold,
  type Key,
  key,
  randomInts,
  uniform,
} from "../../lib/core/rng.ts";
import { projectRoot } from "../../lib/core/runs.ts";
import {
  agreements,
  agreementsArray,
  packTiles,
  tilingOf,
} from "../../lib/superbnn/crossbar.ts";
import { DEFAULT_DEVICE, grayZoneValue } from "../../lib/superbnn/device.ts";
import type { BinaryNetwork, Layer } from "../../lib/superbnn/network.ts";
import { simulateSweep } from "../../lib/superbnn/simulate.ts";
import { cpuNow, median } from "./measure.ts";

const WIDTHS = [784, 256, 256, 10];
const CROSSBAR_SIZES = [8, 16, 36, 72, 144];
const STREAM_LENGTHS = [1, 8, 32];
const IMAGES = 10_000;

/** What one core is to reach: all images at all stream lengths, and tile sums. */
export const SIMULATOR_BARS = { seconds: 20, gigaXnorPerS: 1 };

export interface SimulatorTiming {
  crossbarSize: number;
  images: number;
  /** CPU seconds for all stream lengths, packing and tables included. */
  seconds: number;
  /** 10^9 XNOR operations per second of a core, tile sums of the first layer alone. */
  gigaXnorPerS: number;
  /** The same for everything: sums, draws, comparators. */
  wholeGigaXnorPerS: number;
  peakMemoryMb: number;
}

export interface SimulatorRow extends SimulatorTiming {
  roundsSeconds: number[];
  /** Null where not all images were run. */
  pass: boolean | null;
}

function signs(k: Key, n: number): Int8Array {
  return Int8Array.from(randomInts(k, n, 0, 2), (v) => 2 * v - 1);
}

function network(k: Key): BinaryNetwork {
  const layers = WIDTHS.slice(1).map((outputs, i): Layer => {
    const inputs = WIDTHS[i];
    const weights = signs(fold(k, `weights ${i}`), inputs * outputs);
    return i < WIDTHS.length - 2
      ? {
        kind: "dense",
        inputs,
        outputs,
        weights,
        thresholds: Float64Array.from(
          uniform(fold(k, `thresholds ${i}`), outputs, -10, 10),
        ),
      }
      : {
        kind: "scores",
        inputs,
        outputs,
        weights,
        scale: new Float64Array(outputs).fill(1),
        offset: new Float64Array(outputs),
      };
  });
  const thresholds = new Float64Array(784);
  return {
    input: { height: 28, width: 28, channels: 1, levels: 1, thresholds },
    layers,
    note: "random, for timing",
  };
}

function measureOnce(crossbarSize: number, images: number): SimulatorTiming {
  const k = key(1);
  const net = network(k);
  const bits = signs(fold(k, "images"), images * WIDTHS[0]);
  const sweep = STREAM_LENGTHS.map((streamLength) => ({
    crossbarSize,
    grayZone: grayZoneValue(crossbarSize, DEFAULT_DEVICE),
    streamLength,
    key: fold(k, streamLength),
  }));
  const start = cpuNow();
  let labels = 0;
  for (const simulation of simulateSweep(net, bits, sweep)) {
    labels += simulation.labels.length;
  }
  const seconds = (cpuNow() - start) / 1000;
  const perImage = WIDTHS.slice(1).reduce((s, w, i) => s + w * WIDTHS[i], 0);

  const first = net.layers[0];
  if (first.kind !== "dense") throw new Error("The first layer is dense");
  const tiling = tilingOf(WIDTHS[0], crossbarSize);
  const weights = packTiles(first.weights, tiling, 1);
  const inputs = packTiles(bits, tiling, 0);
  const block = Math.min(256, images);
  const out = agreementsArray(tiling, block * tiling.tiles);
  const before = cpuNow();
  let rows = 0;
  for (let neuron = 0; neuron < WIDTHS[1]; neuron++) {
    for (let at = 0; at + block <= images; at += block, rows += block) {
      agreements(inputs, at, block, weights, neuron, out);
    }
  }
  const sumSeconds = (cpuNow() - before) / 1000;
  return {
    crossbarSize,
    images,
    seconds,
    gigaXnorPerS: rows * WIDTHS[0] / sumSeconds / 1e9,
    wholeGigaXnorPerS: labels * perImage / seconds / 1e9,
    peakMemoryMb: peakMemoryMb(),
  };
}

/** Every crossbar size in turn, several rounds, each in a fresh process. */
export async function measureSimulator(
  { quick, repeats }: { quick: boolean; repeats: number },
  progress: (line: string) => void,
): Promise<SimulatorRow[]> {
  const images = quick ? IMAGES / 10 : IMAGES;
  const rows: SimulatorRow[] = [];
  for (const crossbarSize of CROSSBAR_SIZES) {
    const rounds: SimulatorTiming[] = [];
    for (let round = 0; round < repeats; round++) {
      const { stdout } = await promisify(execFile)(process.execPath, [
        "--import",
        "tsx",
        fileURLToPath(import.meta.url),
        String(crossbarSize),
        String(images),
      ], { cwd: projectRoot() });
      rounds.push(JSON.parse(stdout));
      progress(`crossbar ${crossbarSize}: ${rounds.at(-1)!.seconds} s`);
    }
    const middle = (of: (timing: SimulatorTiming) => number) =>
      median(rounds.map(of));
    const seconds = middle((t) => t.seconds);
    const gigaXnorPerS = middle((t) => t.gigaXnorPerS);
    rows.push({
      crossbarSize,
      images,
      seconds,
      gigaXnorPerS,
      wholeGigaXnorPerS: middle((t) => t.wholeGigaXnorPerS),
      peakMemoryMb: middle((t) => t.peakMemoryMb),
      roundsSeconds: rounds.map((t) => t.seconds),
      pass: quick ? null : seconds <= SIMULATOR_BARS.seconds &&
        gigaXnorPerS >= SIMULATOR_BARS.gigaXnorPerS,
    });
  }
  return rows;
}

/** Rows for the terminal. */
export function simulatorTable(rows: SimulatorRow[]): string[][] {
  return [
    [
      "crossbar",
      "images",
      `CPU time, L ${STREAM_LENGTHS.join(", ")}`,
      "tile sums",
      "whole",
      "peak memory",
      `bar ${SIMULATOR_BARS.seconds} s, ${SIMULATOR_BARS.gigaXnorPerS} G XNOR/s`,
    ],
    ...rows.map((row) => [
      String(row.crossbarSize),
      String(row.images),
      `${row.seconds.toFixed(1)} s`,
      `${row.gigaXnorPerS.toFixed(1)} G XNOR/s`,
      `${row.wholeGigaXnorPerS.toFixed(1)} G XNOR/s`,
      `${row.peakMemoryMb} MB`,
      row.pass === null ? "-" : row.pass ? "pass" : "miss",
    ]),
  ];
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [crossbarSize, images] = process.argv.slice(2).map(Number);
  console.log(JSON.stringify(measureOnce(crossbarSize, images)));
}
