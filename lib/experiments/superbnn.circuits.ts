/**
 * Circuits for the clocking scheme of SupeRBNN: what its columns are made of, through SuperFlow's insertion.
 *
 *   <name>                       data/rtl/<name>.v, synthesised
 *   exact-<K>, approximate-<K>   counter of K bits
 *   accumulator-<K>x<L>          adds counts of K bits for L cycles
 *   generator-<bits>             comparator of a stream's number generator
 */
import { join } from "node:path";
import { DEFAULT_LIBRARY } from "../core/aqfp.ts";
import type { Key } from "../core/rng.ts";
import { type Metrics, projectRoot, type RunContext } from "../core/runs.ts";
import {
  accumulator,
  type CounterNetlist,
  parallelCounter,
  streamGenerator,
} from "../superbnn/counter.ts";
import { accumulatorBits } from "../superbnn/energy.ts";
import { checkEquivalence } from "../superflow/equivalence.ts";
import { insertBuffers } from "../superflow/insertion.ts";
import { assertLegal } from "../superflow/legality.ts";
import { type Cell, jjCount, type Netlist } from "../superflow/netlist.ts";
import { synthesiseStages } from "../superflow/synthesis.ts";

/** A netlist of ours as SuperFlow's, with an output port per output. */
export function toNetlist(
  name: string,
  { gates, outputs }: CounterNetlist,
): Netlist {
  const cells = gates.map(({ kind, inputs }, i): Cell => ({
    name: `${kind}${i}`,
    kind,
    inputs: inputs.map(({ from, inverted }) => ({
      cell: from,
      pin: 0,
      inverted,
    })),
  }));
  const ports = outputs.map(({ from }, i): Cell => ({
    name: `out${i}`,
    kind: "output",
    inputs: [{ cell: from, pin: 0, inverted: false }],
  }));
  return { name, cells: [...cells, ...ports] };
}

/** The circuit of a name, and what it must compute. */
export async function circuitOf(
  name: string,
): Promise<{ reference: Netlist; netlist: Netlist }> {
  const [kind, size = ""] = name.split("-");
  const own = (net: CounterNetlist) => {
    const netlist = toNetlist(name, net);
    return { reference: netlist, netlist };
  };
  if (kind === "exact" || kind === "approximate") {
    return own(parallelCounter(Number(size), kind));
  }
  if (kind === "generator") return own(streamGenerator(Number(size)));
  if (kind === "accumulator") {
    const [tiles, streamLength] = size.split("x").map(Number);
    const { countBits, stateBits } = accumulatorBits(tiles, streamLength);
    return own(accumulator(countBits, stateBits));
  }
  return await synthesiseStages({
    path: join(projectRoot(), "data/rtl", `${name}.v`),
  });
}

/** Junctions of a circuit of ours for each number of phases that a connection may pass. */
export async function runClocking(
  { circuit, skips }: { circuit: string; skips: number[] },
  key: Key,
  context: RunContext,
): Promise<Metrics> {
  const { reference, netlist } = await circuitOf(circuit);
  const metrics: Metrics = {};
  for (const [i, maxLevelsPerHop] of skips.entries()) {
    context.progress(i / skips.length);
    const levelled = await insertBuffers(netlist, { maxLevelsPerHop, key });
    assertLegal(levelled, { maxLevelsPerHop });
    if (checkEquivalence(reference, levelled).counterexample !== undefined) {
      throw new Error(`${circuit} differs from its source after legalisation`);
    }
    metrics[`jj${maxLevelsPerHop}`] = jjCount(levelled, DEFAULT_LIBRARY);
    metrics[`depth${maxLevelsPerHop}`] = levelled.depth;
  }
  return metrics;
}
