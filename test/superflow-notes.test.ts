/** What the flow says beside its results: missed timing, lengths as drawn, unused inputs, what is left out. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DEFAULT_LIBRARY } from "../lib/core/aqfp.ts";
import { writeVerilog } from "../lib/core/formats/verilog.ts";
import {
  checkClock,
  DEFAULT_CLOCK,
  describeMissed,
  highestFreqHz,
  timing,
} from "../lib/superflow/clock.ts";
import { LAYOUT_NOTE, superflow } from "../lib/superflow/flow.ts";
import { edges, levelsWithin, type Netlist } from "../lib/superflow/netlist.ts";
import { wireSteps } from "../lib/superflow/routing.ts";

const ADDER =
  "module add(input [3:0] a, input [1:0] b, input spare, output [4:0] s); assign s = a + b; endmodule";

test("missed timing is said, with the frequency that fits: exact, by timing again", async () => {
  const clock = { ...DEFAULT_CLOCK, freqHz: 5e10 };
  const { placed, report } = await superflow({ text: ADDER }, {
    clock,
    stopAfter: "placement",
  });
  const { worstSlackPs, highestFreqHz: fits } = report.placement!;
  assert.ok(worstSlackPs < 0 && fits < 5e10);
  assert.match(
    report.notes.join("\n"),
    /TIMING MISSED by [\d.]+ ps at 50 GHz, in \d+ of \d+ connections; highest frequency that fits this result: \d+\.\d\d GHz/,
  );
  const at = (freqHz: number) =>
    timing(placed!, DEFAULT_LIBRARY, { ...clock, freqHz });
  assert.ok(Math.abs(at(fits).worstSlackPs) < 1e-9);
  assert.is(describeMissed(at(fits * 0.999)), undefined);
  assert.ok(describeMissed(at(fits * 1.001)) !== undefined);
  // the same from a slack that is met
  const slow = highestFreqHz(at(1e9));
  assert.ok(Math.abs(slow / fits - 1) < 1e-9);
});

test("a clock of another order of magnitude is refused", () => {
  for (
    const [field, value] of [
      ["freqHz", 10],
      ["freqHz", 1e13],
      [
        "signalVelocityUmPerPs",
        3000,
      ],
      ["holdPs", -1],
      ["rowPitchUm", NaN],
    ] as const
  ) {
    assert.throws(
      () => checkClock({ ...DEFAULT_CLOCK, [field]: value }),
      new RegExp(`${field} must be a finite number from .*: ${field} ${value}`),
    );
  }
  checkClock(DEFAULT_CLOCK);
});

test("longest net and row pitch as drawn; unused inputs; what the layout is not", async () => {
  const { report, routed } = await superflow({ text: ADDER });
  const lengths = routed!.wires.map((wire) => wireSteps(wire) * 10);
  assert.is(report.routing!.longestNetUm, Math.max(...lengths));
  // the mean pitch times the number of channels leads to the last row
  const { rowY } = routed!;
  assert.is(
    Math.round(report.routing!.rowPitchUm * (rowY.length - 1)),
    rowY[rowY.length - 1] * 10,
  );
  assert.ok(report.routing!.rowPitchUm < DEFAULT_CLOCK.rowPitchUm);
  assert.equal(report.notes, [
    "no output depends on input spare: a cell each, without a wire",
    LAYOUT_NOTE,
  ]);
});

test("a netlist that skips phases goes back in, balanced as it is", async () => {
  const insertion = { maxLevelsPerHop: 3 };
  const options = { insertion, stopAfter: "legalisation" } as const;
  const { levelled, report } = await superflow({
    text:
      "module p(input [7:0] a, output [2:0] y); assign y = a[0] ? {a[7], a[6:5] + a[4:3]} : a[2:0]; endmodule",
  }, options);
  assert.is(report.clock.phases, 12);
  assert.match(report.clock.note, /12 phases/);
  const hops = edges(levelled!).map(({ driver, sink }) =>
    levelled!.levels[sink] - levelled!.levels[driver]
  );
  assert.ok(Math.max(...hops) > 1, "skips");
  const text = writeVerilog(levelled!);
  const back = await superflow({ text }, { ...options, keepBalanced: true });
  assert.is(back.report.legalisation!.jj, report.legalisation!.jj);
  assert.is(back.report.legalisation!.depth, report.legalisation!.depth);
  assert.match(back.report.checks.join("\n"), /equal in 12-phase simulation/);
  // without skipping it is not balanced
  const strict = await superflow({ text }, { keepBalanced: true })
    .then(() => "no error", (error: Error) => error.message);
  assert.match(strict, /must stand one level above|level/);
});

test("levels within s: by hand, and refused by name where there are none", () => {
  // a -> b1 -> b2 -> b3 -> g, c -> g: c to g is 4 levels on
  const cell = (name: string, kind: string, ...from: number[]) => ({
    name,
    kind,
    inputs: from.map((cell) => ({ cell, pin: 0, inverted: false })),
  });
  const netlist = {
    name: "m",
    cells: [
      cell("a", "input"),
      cell("c", "input"),
      cell("b1", "buffer", 0),
      cell("b2", "buffer", 2),
      cell("b3", "buffer", 3),
      cell("late", "buffer", 1),
      cell("g", "and", 4, 5),
      cell("y", "output", 6),
    ],
  } as unknown as Netlist;
  assert.equal(
    [...levelsWithin(netlist, 3).levels],
    [0, 0, 1, 2, 3, 1, 4, 5],
  );
  assert.equal(
    [...levelsWithin(netlist, 2).levels],
    [0, 0, 1, 2, 3, 2, 4, 5],
  );
  assert.throws(
    () => levelsWithin(netlist, 1),
    /Cannot give levels to m as a connection must lead on at most 1: c would/,
  );
});

test.run();
