/** What the benchmarked processes share: clocks, the median, peak memory. */
import { readFileSync } from "node:fs";
import process from "node:process";

/** Milliseconds of a monotonic clock. */
export function now(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** Milliseconds of processor time that this process has used, all its threads together. */
export function cpuNow(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? sorted[half]
    : (sorted[half - 1] + sorted[half]) / 2;
}

/**
 * Peak resident memory of this process so far, in bytes.
 *
 * Linux tells it exactly (VmHWM); `maxRSS` there also counts what the parent held when it forked.
 */
export function peakRssBytes(): number {
  try {
    const status = readFileSync("/proc/self/status", "utf8");
    const match = status.match(/^VmHWM:\s+(\d+) kB/m);
    if (match !== null) return Number(match[1]) * 1024;
  } catch {
    // Not Linux.
  }
  return process.resourceUsage().maxRSS * 1024;
}
