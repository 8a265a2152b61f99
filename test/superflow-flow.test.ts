import { test } from "uvu";
import * as assert from "uvu/assert";
import { DEFAULT_LIBRARY } from "../lib/core/aqfp.ts";
import { writeVerilog } from "../lib/core/formats/verilog.ts";
import { fold, key, randomInts } from "../lib/core/rng.ts";
import { DEFAULT_CLOCK, timing } from "../lib/superflow/clock.ts";
import {
  placementFile,
  readClock,
  readLibrary,
  readPlacement,
} from "../lib/superflow/files.ts";
import { superflow } from "../lib/superflow/flow.ts";
import {
  evaluate,
  gateDepth,
  jjCount,
  ports,
} from "../lib/superflow/netlist.ts";
import { hpwl } from "../lib/superflow/placed.ts";
import { compareLayout } from "../lib/superflow/lvs.ts";

/** Full adder of two 2-bit numbers: small, with carries, sharing and different depths. */
const ADDER = `module adder2 (input [1:0] a, input [1:0] b, output [2:0] sum);
  assign sum = a + b;
endmodule`;

const adder = await superflow({ text: ADDER }, { key: key(1) });

test("the netlist on the layout adds", () => {
  const { netlist } = compareLayout(adder.gds!, adder.placed!, DEFAULT_LIBRARY);
  const inputs = ports(netlist!, "input").map((i) => netlist!.cells[i].name);
  const outputs = ports(netlist!, "output");
  const bit = (value: number, name: string, letter: string) =>
    name.startsWith(letter) ? value >> Number(name.match(/\d+/)![0]) & 1 : 0;
  for (let a = 0; a < 4; a++) {
    for (let b = 0; b < 4; b++) {
      const words = Uint32Array.from(
        inputs,
        (name) => bit(a, name, "a") | bit(b, name, "b"),
      );
      const values = evaluate(netlist!, words);
      const sum = outputs.reduce((total, i) => {
        const weight = Number(netlist!.cells[i].name.match(/\d+/)![0]);
        return total + ((values[i] & 1) << weight);
      }, 0);
      assert.is(sum, a + b, `${a} + ${b}`);
    }
  }
});

test("the report is that of the stages' results", () => {
  const { levelled, placed, netlist, report } = adder;
  assert.is(report.synthesis.depth, gateDepth(netlist));
  assert.is(report.legalisation!.jj, jjCount(levelled!, DEFAULT_LIBRARY));
  // JJ by hand: 6 per gate, 2 per buffer, inverter and splitter.
  const { gates } = report.synthesis;
  const { buffersAndSplitters } = report.legalisation!;
  assert.is(report.legalisation!.jj, 6 * gates + 2 * buffersAndSplitters);
  assert.is(report.placement!.hpwlUm, hpwl(placed!, DEFAULT_LIBRARY));
  assert.is(
    report.placement!.worstSlackPs,
    timing(placed!, DEFAULT_LIBRARY, DEFAULT_CLOCK).worstSlackPs,
  );
  assert.is(report.routing!.gdsBytes, adder.gds!.length);
  assert.ok(report.routing!.tracks >= report.routing!.tracksLowerBound);
  assert.equal(report.seconds, {}); // no clock was given
});

test("same key, same bytes; another key, another chip that computes the same", async () => {
  const again = await superflow({ text: ADDER }, { key: key(1) });
  assert.equal(again.gds, adder.gds);
  assert.equal(again.report, adder.report);
  const parity =
    `module p (input [5:0] a, output y, z); assign y = ^a; assign z = &a[3:1] | a[5]; endmodule`;
  const one = await superflow({ text: parity }, { key: key(1) });
  const two = await superflow({ text: parity }, { key: key(2) });
  assert.is(one.report.legalisation!.depth, two.report.legalisation!.depth);
});

test("stops after a stage, with nothing of the later ones", async () => {
  const { levelled, placed, gds, report } = await superflow({ text: ADDER }, {
    stopAfter: "legalisation",
  });
  assert.ok(levelled !== undefined);
  assert.is(placed, undefined);
  assert.is(gds, undefined);
  assert.is(report.placement, undefined);
});

test("a written netlist goes back in, balanced as it is", async () => {
  const text = writeVerilog(adder.levelled!);
  const back = await superflow({ text }, { keepBalanced: true, key: key(1) });
  assert.is(back.levelled!.cells.length, adder.levelled!.cells.length);
  assert.is(
    back.report.legalisation!.jj,
    adder.report.legalisation!.jj,
  );
});

test("a netlist that is not balanced is refused when its balance is to be kept", async () => {
  const text = `module m (a, b, c, y); input a, b, c; output y;
  wire t; assign t = a & b; assign y = t | c; endmodule`;
  const message = await superflow({ text }, { keepBalanced: true })
    .then(() => "no error", (error: Error) => error.message);
  assert.match(message, /must stand one level above .* driver c at 0/);
});

// Files ---------------------------------------------------------------------------------------------

test("a placement file gives the placement back", () => {
  const file = JSON.parse(
    JSON.stringify(placementFile(adder.placed!, DEFAULT_LIBRARY)),
  );
  const netlist = { name: adder.placed!.name, cells: adder.placed!.cells };
  const back = readPlacement(file, netlist, DEFAULT_LIBRARY);
  assert.equal(back.x, adder.placed!.x);
  assert.equal(back.levels, adder.placed!.levels);
});

test("a wrong placement file is refused, by the cell's name", () => {
  const { placed } = adder;
  const netlist = { name: placed!.name, cells: placed!.cells };
  const broken = (change: (file: ReturnType<typeof placementFile>) => void) => {
    const file = structuredClone(placementFile(placed!, DEFAULT_LIBRARY));
    change(file);
    return () => readPlacement(file, netlist, DEFAULT_LIBRARY);
  };
  const name = placementFile(placed!, DEFAULT_LIBRARY).rows[1].cells[0].name;
  const says = (text: string) => (error: Error) =>
    error instanceof SyntaxError && error.message.includes(text);
  assert.throws(
    broken((file) => file.rows[1].cells.shift()),
    says(`cell ${name} is missing`),
  );
  assert.throws(
    broken((file) => file.rows[1].cells[0].xUm += 3),
    says(`cell ${name} must lie on the grid`),
  );
  assert.throws(
    broken((file) => file.rows[2].cells.push(file.rows[1].cells[0])),
    says(`cell ${name} stands in it twice`),
  );
  assert.throws(
    broken((file) => file.rows[1].cells[1].xUm = file.rows[1].cells[0].xUm),
    says("overlap"),
  );
  assert.throws(
    () => readPlacement({}, netlist, DEFAULT_LIBRARY),
    says("format"),
  );
});

test("the default library passes its own reader", () => {
  const json = JSON.parse(JSON.stringify(DEFAULT_LIBRARY));
  assert.equal(readLibrary(json), DEFAULT_LIBRARY);
});

test("a wrong library is refused, by the field's name", () => {
  const broken = (path: string, value: unknown) => () => {
    const json = JSON.parse(JSON.stringify(DEFAULT_LIBRARY));
    const names = path.split(".");
    const last = names.pop()!;
    names.reduce((node, name) => node[name], json)[last] = value;
    return readLibrary(json);
  };
  for (
    const [path, value, said] of [
      ["gridUm", 0, "gridUm must be a finite number above 0"],
      ["cells.maj.widthUm", 55, "cells.maj.widthUm must be a multiple"],
      ["cells.and.inputsUm", [20], "cells.and.inputsUm must have 2 places"],
      ["cells.and.inputsUm", [20, 20], "must have different places"],
      ["cells.and.inputsUm", [20, 60], "must lie inside the cell"],
      ["cells.buffer", undefined, "cells.buffer must be given"],
      ["cells.maj.jj", -1, "cells.maj.jj must be a whole number"],
      ["cells.xor", {}, "a cell of this kind is not known"],
      [
        "rules.gdsLayers.via",
        10,
        "rules.gdsLayers.via must differ from horizontal",
      ],
      ["rules.wireWidthUm", "4", "rules.wireWidthUm must be a finite number"],
      ["rules.wireWidthUm", 4.001, "rules.wireWidthUm must be a multiple of"],
      ["rules.wireSpacingUm", 4e-5, "must be a multiple of 0.001 um"],
      ["cells.and.delayPs", Infinity, "cells.and.delayPs must be a finite"],
    ] as [string, unknown, string][]
  ) {
    assert.throws(
      broken(path, value),
      (error: Error) =>
        error instanceof SyntaxError && error.message.includes(said),
      `${path}: ${said}`,
    );
  }
});

test("a clock file says what it replaces, and may replace only what there is", () => {
  const clock = readClock({ freqHz: 1e10 });
  assert.is(clock.freqHz, 1e10);
  assert.is(clock.setupPs, DEFAULT_CLOCK.setupPs);
  assert.match(clock.note, /replaced by the reader: freqHz 10000000000$/);
  assert.is.not(clock.name, DEFAULT_CLOCK.name);
  const own = readClock({ name: "mine", note: "measured", holdPs: 7 });
  assert.equal(own, {
    ...DEFAULT_CLOCK,
    name: "mine",
    note: "measured",
    holdPs: 7,
  });
  assert.equal(readClock({}), DEFAULT_CLOCK);
  assert.throws(() => readClock({ velocity: 9 }), /clockVelocity.*"velocity"/);
  assert.throws(() => readClock({ note: 5 }), /note must be a text: 5/);
  assert.throws(() => readClock([]), /an object is required/);
  assert.throws(() => readClock({ freqHz: "5" }), /freqHz must be a finite/);
});

test("splitters are those of the library", async () => {
  const fanout4 =
    "module f(input a, b, c, d, e, output [3:0] y); assign y = {4{a}} & {b, c, d, e}; endmodule";
  const { splitter3, splitter4, ...cells } = DEFAULT_LIBRARY.cells;
  assert.ok(splitter3 && splitter4);
  const arities = async (cells: typeof DEFAULT_LIBRARY.cells) => {
    const library = { ...DEFAULT_LIBRARY, cells };
    const { report } = await superflow({ text: fanout4 }, { library });
    return Object.entries(report.legalisation!.cells)
      .filter(([kind]) => kind.startsWith("splitter"));
  };
  assert.equal(await arities({ ...cells, splitter3, splitter4 }), [
    ["splitter4", 1],
  ]);
  assert.equal(await arities(cells), [["splitter2", 3]]);
  // one of four is of no use without one of three
  assert.equal(await arities({ ...cells, splitter4 }), [["splitter2", 3]]);
  const message = await superflow({ text: fanout4 }, {
    library: { ...DEFAULT_LIBRARY, cells },
    insertion: { splitterCapacity: 3 },
  }).then(() => "no error", (error: Error) => error.message);
  assert.match(message, /has them up to 2, splitterCapacity 3/);
});

test("a chip too large for the file's coordinates is refused", async () => {
  const { maj, and, ...cells } = DEFAULT_LIBRARY.cells;
  const library = {
    ...DEFAULT_LIBRARY,
    cells: { ...cells, maj, and: { ...and, heightUm: 2e6 } },
  };
  const message = await superflow({
    text: "module m(input a, b, output y); assign y = a & b; endmodule",
  }, { library }).then(() => "no error", (error: Error) => error.message);
  assert.match(message, /Cannot lay out m as width and height must be at most/);
});

test("any damage to a library file is a SyntaxError or no damage", () => {
  const text = JSON.stringify(DEFAULT_LIBRARY);
  const values = [null, -1, 1e300, "x", [], {}, true, 0.5];
  for (let round = 0; round < 300; round++) {
    const json = JSON.parse(text);
    const [pick, value] = randomInts(fold(key(5), round), 2, 0, 1 << 20);
    const places: [Record<string, unknown>, string][] = [];
    const visit = (node: Record<string, unknown>) => {
      for (const name of Object.keys(node)) {
        places.push([node, name]);
        if (node[name] !== null && typeof node[name] === "object") {
          visit(node[name] as Record<string, unknown>);
        }
      }
    };
    visit(json);
    const [node, name] = places[pick % places.length];
    node[name] = values[value % values.length];
    try {
      readLibrary(json);
    } catch (error) {
      assert.instance(error, SyntaxError, `${name} = ${node[name]}`);
    }
  }
});

test.run();
