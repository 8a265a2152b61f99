/**
 * Referees of the emitted array: gates that Yosys makes of it, simulated; a bench for other simulators; counts of cells.
 *
 * Li et al., "Quasar-ViT", ICS 2024, arXiv 2407.18175.
 *
 * Yosys reads the Verilog, maps it to AND gates, inverters and flip-flops, and the gates are evaluated here cycle by cycle. So
 * what is compared with the library went through a Verilog front end that is not ours. `emitBench` gives the same stimulus as
 * text, for iverilog or another simulator: each checks the other.
 *
 * Scope: logic of rising edges, no delays.
 */
import {
  type ArrayOptions,
  emitArray,
  type MixedRows,
  type Schedule,
  schedule,
} from "./engine.ts";

/** Runs Yosys: script and files in, files out. Handed in, so that no tool is part of this file. */
export type RunYosys = (
  script: readonly string[],
  files: Record<string, string>,
) => Promise<
  { files: Record<string, string>; messages: string[]; error?: string }
>;

async function yosysFiles(
  run: ReturnType<RunYosys>,
): Promise<Record<string, string>> {
  const { files, error } = await run;
  if (error !== undefined) {
    throw new Error(`Cannot check the array as Yosys stopped: ${error}`);
  }
  return files;
}

type Bit = number | "0" | "1" | "x" | "z";

/** What is read of a netlist that Yosys writes. */
interface NetlistModule {
  ports: Record<string, { direction: string; bits: Bit[] }>;
  cells: Record<string, { type: string; connections: Record<string, Bit[]> }>;
}

/** Gates in the order of their evaluation, on numbered wires; wires 0 and 1 are constants. */
interface Gates {
  wires: number;
  ports: Record<string, number[]>;
  /** One after another: output, first input, second input (an inverter has the same twice). */
  ands: Int32Array;
  inverts: Uint8Array;
  /** One after another: output, input. */
  flipFlops: Int32Array;
}

/** Sorts gates so that each follows its inputs. */
function sortGates({ ports, cells }: NetlistModule): Gates {
  const numbers = new Map<Bit, number>([["0", 0], ["x", 0], ["z", 0], [
    "1",
    1,
  ]]);
  const wire = (bit: Bit) => {
    let number = numbers.get(bit);
    if (number === undefined) numbers.set(bit, number = numbers.size - 2);
    return number;
  };
  const own = Object.values(cells);
  const flipFlops: number[] = [];
  const driver = new Map<
    number,
    { y: number; a: number; b: number; not: 0 | 1 }
  >();
  for (const { type, connections: { A, B, C, D, Q, Y } } of own) {
    if (type === "$_DFF_P_") {
      if (C.length !== 1) throw new Error("Cannot sort gates without a clock");
      flipFlops.push(wire(Q[0]), wire(D[0]));
    } else if (type === "$_AND_" || type === "$_NOT_") {
      const a = wire(A[0]);
      const y = wire(Y[0]);
      const not = type === "$_NOT_" ? 1 : 0;
      driver.set(y, { y, a, b: not ? a : wire(B[0]), not });
    } else {
      throw new RangeError(
        `Cannot simulate the array as its gates must be ANDs, inverters and flip-flops: ${type}`,
      );
    }
  }
  const order: number[] = [];
  const inverts: number[] = [];
  const done = new Set<number>();
  for (const start of driver.keys()) {
    const stack = [start];
    while (stack.length > 0) {
      const at = stack[stack.length - 1];
      const gate = driver.get(at);
      if (gate === undefined || done.has(at)) {
        stack.pop();
        continue;
      }
      const open = [gate.a, gate.b].filter((w) =>
        driver.has(w) && !done.has(w)
      );
      if (open.length > 0) {
        stack.push(...open);
        continue;
      }
      done.add(at);
      order.push(gate.y, gate.a, gate.b);
      inverts.push(gate.not);
      stack.pop();
    }
  }
  return {
    wires: numbers.size,
    ports: Object.fromEntries(
      Object.entries(ports).map(([name, { bits }]) => [name, bits.map(wire)]),
    ),
    ands: Int32Array.from(order),
    inverts: Uint8Array.from(inverts),
    flipFlops: Int32Array.from(flipFlops),
  };
}

/** Bits of a number, in two's complement, onto wires. */
function drive(
  values: Uint8Array,
  wires: number[],
  at: number,
  bits: number,
  x: number,
) {
  for (let i = 0; i < bits; i++) values[wires[at + i]] = (x >> i) & 1;
}

function settle({ ands, inverts }: Gates, values: Uint8Array): void {
  for (let i = 0; i < inverts.length; i++) {
    const both = values[ands[3 * i + 1]] & values[ands[3 * i + 2]];
    values[ands[3 * i]] = both ^ inverts[i];
  }
}

/** The gates that Yosys makes of the array. */
async function gatesOf(runYosys: RunYosys, verilog: string): Promise<Gates> {
  const files = await yosysFiles(runYosys([
    "read_verilog -sv array.v",
    "synth -flatten -top packed_array -noabc",
    "dfflegalize -cell $_DFF_P_ x",
    "aigmap",
    "opt_clean -purge",
    "write_json gates.json",
  ], { "array.v": verilog }));
  const { modules } = JSON.parse(files["gates.json"]) as {
    modules: Record<string, NetlistModule>;
  };
  return sortGates(modules.packed_array);
}

/** Sums of each pass as the gates give them. */
function runGates(
  gates: Gates,
  { cycles, array, tokens, nibbles }: Schedule,
): number[][] {
  const { ports, flipFlops } = gates;
  const values = new Uint8Array(gates.wires);
  values[1] = 1;
  const ACC = array.accumulatorBits;
  const words = array.elements * nibbles * tokens;
  const found: number[][] = [];
  // products and control are registered once, sums once: a pass is complete two edges after its last cycle
  const pending: boolean[] = [false];
  for (const cycle of [...cycles, null, null]) {
    const { activations = [], weights = [], wide = [], clear = false } =
      cycle ?? {};
    activations.forEach((x, i) =>
      drive(values, ports.activations, 7 * i, 7, x)
    );
    weights.forEach((x, i) => drive(values, ports.weights, 5 * i, 5, x));
    wide.forEach((on, p) => drive(values, ports.wide, p, 1, on ? 1 : 0));
    drive(values, ports.clear, 0, 1, clear ? 1 : 0);
    drive(values, ports.enable, 0, 1, cycle === null ? 0 : 1);
    settle(gates, values);
    const next = new Uint8Array(flipFlops.length / 2);
    for (let i = 0; i < next.length; i++) {
      next[i] = values[flipFlops[2 * i + 1]];
    }
    for (let i = 0; i < next.length; i++) values[flipFlops[2 * i]] = next[i];
    settle(gates, values);
    pending.push(cycle?.last ?? false);
    if (pending[pending.length - 2]) {
      found.push(Array.from({ length: words }, (_, w) => {
        let sum = 0;
        for (let i = 0; i < ACC; i++) {
          const weight = i === ACC - 1 ? -(2 ** i) : 2 ** i;
          sum += values[ports.sums[w * ACC + i]] * weight;
        }
        return sum;
      }));
    }
  }
  return found;
}

/**
 * The product as the gates of the emitted Verilog compute it: [F, M].
 *
 * @param verilog of the array; by default what `emitArray` gives
 */
export async function simulateArray(
  runYosys: RunYosys,
  weights: MixedRows,
  activations: ArrayLike<number>,
  options: ArrayOptions = {},
  verilog: string = emitArray(options),
): Promise<Int32Array> {
  const plan = schedule(weights, activations, options);
  return plan.read(runGates(await gatesOf(runYosys, verilog), plan));
}

/** Binary digits of x, two's complement. */
function digits(x: number, bits: number): string {
  return BigInt.asUintN(bits, BigInt(x)).toString(2).padStart(bits, "0");
}

/**
 * A test bench with the stimulus of a layer, that prints `PASS` or the first word that differs.
 *
 * @returns Verilog for any simulator: `iverilog -g2012 array.v bench.v && ./a.out`
 */
export function emitBench(
  weights: MixedRows,
  activations: ArrayLike<number>,
  expected: Int32Array,
  options: ArrayOptions = {},
): string {
  const plan = schedule(weights, activations, options);
  const { cycles, tokens: T, nibbles: J } = plan;
  const { elements: P, depth: D, accumulatorBits: ACC } = plan.array;
  const [A, W, S] = [T * D * 7, P * J * D * 5, P * T * J * ACC];
  const word = (values: number[], bits: number) =>
    values.map((x) => digits(x, bits)).reverse().join("");
  // sums that the product stands for: place in the word and value, pass by pass
  const places: string[] = [];
  const mark = Array.from(
    { length: plan.passes },
    (_, i) =>
      Array.from({ length: P * T * J }, (_, w) => i * P * T * J + w + 1),
  );
  plan.read(mark).forEach((at, i) => {
    const pass = Math.floor((at - 1) / (P * T * J));
    const place = (at - 1) % (P * T * J);
    places.push(
      `    check(${pass}, ${place}, ${ACC}'b${digits(expected[i], ACC)});`,
    );
  });
  return `\`timescale 1ns / 1ns
module bench;
  reg clk = 0, clear = 0, enable = 0;
  reg [${P - 1}:0] wide = 0;
  reg [${A - 1}:0] activations = 0;
  reg [${W - 1}:0] weights = 0;
  wire [${S - 1}:0] sums;
  reg [${S - 1}:0] found [0:${plan.passes - 1}];
  integer passes = 0, failures = 0;
  reg last_1 = 0, last_2 = 0;
  packed_array #(.PES(${P}), .TOKENS(${T}), .NIBBLES(${J}), .DEPTH(${D}), .ACC(${ACC})) array (
    .clk(clk), .clear(clear), .enable(enable), .wide(wide),
    .activations(activations), .weights(weights), .sums(sums));

  task step(input on, input first, input last, input [${P - 1}:0] w,
      input [${A - 1}:0] a, input [${W - 1}:0] b);
    begin
      enable = on; clear = first; wide = w; activations = a; weights = b;
      #5 clk = 1;
      #1 last_2 = last_1; last_1 = last;
      if (last_2) begin found[passes] = sums; passes = passes + 1; end
      #4 clk = 0;
    end
  endtask
  task check(input integer pass, input integer place, input [${
    ACC - 1
  }:0] expected);
    if (found[pass][place * ${ACC} +: ${ACC}] !== expected) begin
      if (failures == 0) $display("FAIL pass %0d place %0d: %0d, expected %0d", pass, place,
        $signed(found[pass][place * ${ACC} +: ${ACC}]), $signed(expected));
      failures = failures + 1;
    end
  endtask
  initial begin
${
    cycles.map(({ activations, weights, wide, clear, last }) =>
      `    step(1, ${clear ? 1 : 0}, ${last ? 1 : 0}, ${P}'b${
        word(wide.map((on) => on ? 1 : 0), 1)
      }, ${A}'b${word(activations, 7)}, ${W}'b${word(weights, 5)});`
    ).join("\n")
  }
    step(0, 0, 0, 0, 0, 0);
    step(0, 0, 0, 0, 0, 0);
${places.join("\n")}
    if (failures == 0) $display("PASS %0d sums", ${places.length});
    else $display("FAIL %0d of %0d sums", failures, ${places.length});
    $finish;
  end
endmodule
`;
}

/** Cells of the array on the device's family, as Yosys maps it. */
export interface CellCounts {
  dsp: number;
  lut: number;
  carry: number;
  flipFlops: number;
  /** 4-bit products per cycle. */
  atoms: number;
}

/** Synthesises the array for UltraScale+ and counts its cells. */
export async function countCells(
  runYosys: RunYosys,
  options: ArrayOptions = {},
): Promise<CellCounts> {
  const { factor, elements, depth, products } = schedule(
    {
      codes: new Int8Array(1),
      bits: [4],
      outputs: 1,
      inputs: 1,
    },
    [0],
    options,
  ).array;
  const files = await yosysFiles(runYosys([
    "read_verilog -sv array.v",
    `synth_xilinx -family xcup -noiopad -flatten -top packed_array${
      products === "packed" ? "" : " -nodsp"
    }`,
    "tee -q -o stat.json stat -json",
  ], { "array.v": emitArray(options) }));
  const text = files["stat.json"];
  const { design } = JSON.parse(text.slice(text.indexOf("{"))) as {
    design: { num_cells_by_type: Record<string, number> };
  };
  const total = (pattern: RegExp) =>
    Object.entries(design.num_cells_by_type).reduce(
      (sum, [name, n]) => pattern.test(name) ? sum + n : sum,
      0,
    );
  return {
    dsp: total(/^DSP48/),
    lut: total(/^(LUT\d|INV)$/),
    carry: total(/^CARRY/),
    flipFlops: total(/^FD/),
    atoms: elements * depth * factor,
  };
}
