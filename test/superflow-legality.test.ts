/** Legality and clocked simulation: hand cases, and broken circuits that must be caught by name. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readVerilog } from "../lib/core/formats/verilog.ts";
import { key } from "../lib/core/rng.ts";
import { insertBuffers, type Insertion } from "../lib/superflow/insertion.ts";
import { assertLegal, checkLegality } from "../lib/superflow/legality.ts";
import {
  bufferAndSplitterCount,
  type Cell,
  type LevelledNetlist,
  type Netlist,
} from "../lib/superflow/netlist.ts";
import { checkSimulation, simulate } from "../lib/superflow/simulation.ts";

const SOURCE = `module small(input a, b, c, d, output y, z);
  wire e = a & b, f = e | c, g = f & ~d, h = (a & c) | (b & c) | (a & b);
  assign y = g | h;
  assign z = a & ~g;
endmodule`;

const build = async (): Promise<{ netlist: Netlist; good: Insertion }> => {
  const netlist = readVerilog(SOURCE);
  return { netlist, good: await insertBuffers(netlist, { moves: 2000 }) };
};

/** A copy that can be broken. */
function copy(netlist: LevelledNetlist): LevelledNetlist {
  return {
    name: netlist.name,
    cells: netlist.cells.map((cell) => ({
      ...cell,
      inputs: cell.inputs.map((c) => ({ ...c })),
    })),
    levels: netlist.levels.slice(),
  };
}

/** The same netlist without a buffer: what it drove is driven by what drove it. */
function withoutBuffer(
  netlist: LevelledNetlist,
  buffer: number,
): LevelledNetlist {
  const broken = copy(netlist);
  const { cell, pin } = broken.cells[buffer].inputs[0];
  for (const { inputs } of broken.cells) {
    for (const c of inputs) {
      if (c.cell === buffer) [c.cell, c.pin] = [cell, pin];
    }
  }
  const kept = broken.cells.flatMap((_, i) => i === buffer ? [] : [i]);
  const number = new Map(kept.map((i, n) => [i, n]));
  return {
    name: broken.name,
    cells: kept.map((i) => ({
      ...broken.cells[i],
      inputs: broken.cells[i].inputs.map((c) => ({
        ...c,
        cell: number.get(c.cell)!,
      })),
    })),
    levels: Int32Array.from(kept, (i) => broken.levels[i]),
  };
}

const of = ({ cells }: Netlist, kind: string) =>
  cells.findIndex((cell) => cell.kind === kind);

// Legality ----------------------------------------------------------------------------------------

test("a netlist after insertion is legal", async () => {
  const { good } = await build();
  assert.equal(checkLegality(good), []);
  assertLegal(good);
});

/** Breaks one thing; the rules that must complain, with the cell they must name. */
const CONTROLS: Record<
  string,
  (n: LevelledNetlist) => { rule: string; cell: string }
> = {
  "a cell on the wrong level": (n) => {
    const i = of(n, "buffer");
    n.levels[i]++;
    return { rule: "level", cell: n.cells[i].name };
  },
  "an input above level 0": (n) => {
    n.levels[of(n, "input")] = 1;
    return { rule: "balance", cell: n.cells[of(n, "input")].name };
  },
  "an output on another level": (n) => {
    n.levels[of(n, "output")]--;
    return { rule: "balance", cell: n.cells[of(n, "output")].name };
  },
  "a level below 0": (n) => {
    n.levels[of(n, "input")] = -1;
    return { rule: "level", cell: n.cells[of(n, "input")].name };
  },
  "a shared output pin": (n) => {
    const i = n.cells.findIndex(({ kind }) => kind === "splitter");
    const sinks = n.cells.flatMap(({ inputs }) => inputs).filter((c) =>
      c.cell === i
    );
    sinks[1].pin = sinks[0].pin;
    return { rule: "fanout", cell: n.cells[i].name };
  },
  "an output pin without a sink": (n) => {
    const i = of(n, "splitter");
    n.cells[i].arity!++;
    return { rule: "fanout", cell: n.cells[i].name };
  },
  "a splitter with too many outputs": (n) => {
    const i = of(n, "splitter");
    n.cells[i].arity = 5;
    return { rule: "arity", cell: n.cells[i].name };
  },
  "an inverted pin on a buffer": (n) => {
    const i = of(n, "buffer");
    n.cells[i].inputs[0].inverted = true;
    return { rule: "inversion", cell: n.cells[i].name };
  },
  "an inverted pin on an output": (n) => {
    const i = of(n, "output");
    n.cells[i].inputs[0].inverted = true;
    return { rule: "inversion", cell: n.cells[i].name };
  },
  "a name that occurs twice": (n) => {
    const [i, j] = [of(n, "buffer"), of(n, "splitter")];
    n.cells[j].name = n.cells[i].name;
    return { rule: "structure", cell: n.cells[i].name };
  },
  "an input pin without a driver": (n) => {
    const i = of(n, "and");
    n.cells[i].inputs[0].cell = -1;
    return { rule: "structure", cell: n.cells[i].name };
  },
  "an inverter before a gate": (n) => {
    const i = n.cells.findIndex(({ kind, name }) =>
      kind === "buffer" &&
      n.cells.some((sink) =>
        sink.kind === "and" &&
        sink.inputs.some((c) => n.cells[c.cell].name === name)
      )
    );
    n.cells[i].kind = "inverter";
    return { rule: "absorbable", cell: n.cells[i].name };
  },
};

for (const [what, breakIt] of Object.entries(CONTROLS)) {
  test(`legality names ${what}`, async () => {
    const broken = copy((await build()).good);
    const { rule, cell } = breakIt(broken);
    const problems = checkLegality(broken);
    const found = problems.find((p) => p.rule === rule && p.cell === cell);
    assert.ok(found, JSON.stringify(problems));
    assert.is(found!.severity, rule === "absorbable" ? "warning" : "error");
    if (rule !== "absorbable") {
      assert.throws(() => assertLegal(broken), /must be legal/);
    }
  });
}

test("a deleted buffer and missing levels are named", async () => {
  const { good } = await build();
  const buffers = good.cells.flatMap(({ kind }, i) =>
    kind === "buffer" ? [i] : []
  );
  for (const i of buffers) {
    const sink = good.cells.find(({ inputs }) =>
      inputs[0]?.cell === i || inputs.some((c) => c.cell === i)
    )!;
    const problems = checkLegality(withoutBuffer(good, i));
    assert.ok(
      problems.some((p) => p.rule === "level" && p.cell === sink.name),
      good.cells[i].name,
    );
  }
  assert.is(
    checkLegality({ ...good, levels: new Int32Array(2) })[0].rule,
    "level",
  );
});

// Simulation --------------------------------------------------------------------------------------

test("hand case: an and of two inputs, three waves", () => {
  const netlist = readVerilog(
    "module m(input a, b, output y); assign y = a & ~b; endmodule",
  );
  const levelled = {
    ...netlist,
    levels: Int32Array.from(
      netlist.cells,
      ({ kind }) => kind === "input" ? 0 : kind === "output" ? 2 : 1,
    ),
  };
  const { outputs, known, latencyPhases, wavesInFlight, problems } = simulate(
    levelled,
    [
      Uint32Array.of(0b1100, 0b1010),
      Uint32Array.of(0b1111, 0b0001),
      Uint32Array.of(0, 0),
    ],
  );
  assert.equal(outputs.map(([y]) => y), [0b0100, 0b1110, 0]);
  assert.equal(known.map(([y]) => y), [-1 >>> 0, -1 >>> 0, -1 >>> 0]);
  assert.equal([latencyPhases, wavesInFlight, problems.length], [2, 1, 0]);
});

test("a deep circuit holds a wave per four levels", async () => {
  const { netlist, good } = await build();
  const check = checkSimulation(good, netlist, { key: key(1) });
  assert.ok(check.equal);
  assert.is(check.latencyPhases, good.depth + 1);
  assert.is(check.wavesInFlight, Math.ceil((good.depth + 1) / 4));
});

test("every deleted buffer is caught, and named by the cell that reads too late", async () => {
  const { netlist, good } = await build();
  const buffers = good.cells.flatMap(({ kind }, i) =>
    kind === "buffer" ? [i] : []
  );
  assert.ok(buffers.length >= 5);
  for (const i of buffers) {
    const sink = good.cells.find(({ inputs }) =>
      inputs.some((c) => c.cell === i)
    )!;
    const { equal, problems } = checkSimulation(
      withoutBuffer(good, i),
      netlist,
    );
    assert.not.ok(equal);
    assert.is(problems[0].cell, sink.name);
    assert.is(
      problems[0].driver,
      good.cells[good.cells[i].inputs[0].cell].name,
    );
  }
});

test("four deleted buffers keep the phases right and mix waves", async () => {
  const netlist = readVerilog(
    "module m(input a, b, c, d, e, f, g, output y); assign y = a & (b | (c & (d | (e & (f | g))))); endmodule",
  );
  const good = await insertBuffers(netlist, { levels: "alap" });
  assert.ok(checkSimulation(good, netlist).equal);
  let broken: LevelledNetlist = good;
  for (let n = 0; n < 4; n++) {
    broken = withoutBuffer(
      broken,
      broken.cells.findIndex(({ kind, name }) =>
        kind === "buffer" && name.startsWith("a_")
      ),
    );
  }
  const { equal, problems, mismatch } = checkSimulation(broken, netlist);
  assert.not.ok(equal);
  assert.equal(problems, [], "each cell reads the phase before its own");
  assert.is(mismatch!.output, "y");
  assert.match(mismatch!.message, /wrong/);
});

test("a wrong gate, a flipped pin and swapped pins of an asymmetric majority are caught", async () => {
  const { netlist, good } = await build();
  const cases: [string, (cells: Cell[]) => void][] = [
    ["gate", (cells) => cells[of(good, "and")].kind = "or"],
    ["pin", (cells) => {
      const pin = cells[of(good, "and")].inputs[0];
      pin.inverted = !pin.inverted;
    }],
  ];
  for (const [what, breakIt] of cases) {
    const broken = copy(good);
    breakIt(broken.cells);
    assert.ok(checkSimulation(broken, netlist).mismatch, what);
  }
  const asymmetric: Netlist = {
    name: "m",
    cells: [
      ...["a", "b", "c"].map((name): Cell => ({
        name,
        kind: "input",
        inputs: [],
      })),
      {
        name: "g",
        kind: "maj",
        inputs: [0, 1, 2].map((cell) => ({
          cell,
          pin: 0,
          inverted: cell === 0,
        })),
      },
      {
        name: "y",
        kind: "output",
        inputs: [{ cell: 3, pin: 0, inverted: false }],
      },
    ],
  };
  const swapped = copy(await insertBuffers(asymmetric));
  const [a, b] = swapped.cells[3].inputs;
  [a.cell, b.cell] = [b.cell, a.cell];
  assert.equal(checkLegality(swapped), [], "legal all the same");
  assert.is(checkSimulation(swapped, asymmetric).mismatch!.output, "y");
});

test("free ports: inputs come and outputs leave in their own phases", async () => {
  const { netlist } = await build();
  const options = { balanceInputs: false, balanceOutputs: false, moves: 2000 };
  const free = await insertBuffers(netlist, options);
  assert.equal(checkLegality(free, options), []);
  assert.ok(checkLegality(free).length > 0, "not balanced");
  assert.ok(checkSimulation(free, netlist).equal);
  assert.ok(
    bufferAndSplitterCount(free) < bufferAndSplitterCount((await build()).good),
  );
});

test("wrong numbers of words and other ports are refused", async () => {
  const { netlist, good } = await build();
  assert.throws(
    () => simulate(good, [new Uint32Array(3)]),
    /one word per input port: ports 4, words 3/,
  );
  const sunk = copy(good);
  sunk.levels[2] = -1;
  assert.throws(
    () => simulate(sunk, [new Uint32Array(4)]),
    /level from 0: c has -1/,
  );
  const other = readVerilog(
    "module o(input a, b, c, x, output y, z); assign y = a; assign z = b; endmodule",
  );
  assert.throws(
    () => checkSimulation(good, other),
    /same inputs: x is missing/,
  );
  assert.is(netlist.cells.length > 0, true);
});

test.run();
