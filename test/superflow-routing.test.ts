/** Channel routing: hand cases, exact optimum by satisfiability, legality of random channels. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createRequire } from "node:module";
import { type CellLibrary, DEFAULT_LIBRARY } from "../lib/core/aqfp.ts";
import { fold, key, permutation, randomInts } from "../lib/core/rng.ts";
import type { PlacedNetlist } from "../lib/superflow/placement.ts";
import {
  type ChannelPins,
  type ChannelRoute,
  density,
  rerouteChannel,
  route,
  routeLeftEdge,
  routeNegotiated,
  wireSteps,
} from "../lib/superflow/routing.ts";
import { edges } from "../lib/superflow/netlist.ts";
import { randomChip } from "./fixtures/superflow-chips.ts";

const library = DEFAULT_LIBRARY;

/** What is used of logic-solver, which comes without types; formulas are names or made by it. */
type Formula = string | object;
interface LogicModule {
  Solver: new () => { require(f: Formula): void; solve(): object | null };
  equiv(a: Formula, b: Formula): Formula;
  or(...list: Formula[]): Formula;
  not(a: Formula): Formula;
  sum(...list: Formula[]): Formula;
  atMostOne(...list: Formula[]): Formula;
  equalBits(a: Formula, b: Formula): Formula;
  constantBits(n: number): Formula;
}
const Logic: LogicModule = createRequire(import.meta.url)("logic-solver");

const channel = (...pairs: [number, number][]): ChannelPins => ({
  bottom: Int32Array.from(pairs, ([b]) => b),
  top: Int32Array.from(pairs, ([, t]) => t),
});

/** What is wrong with a routed channel, from its corners alone; undefined if nothing is. */
function fault(
  { bottom, top }: ChannelPins,
  { paths, tracks }: ChannelRoute,
): string | undefined {
  const owners = new Map<string, number>();
  const problems: string[] = [];
  const take = (point: string, i: number) => {
    const other = owners.get(point);
    if (other !== undefined && other !== i) {
      problems.push(`${other} and ${i} share ${point}`);
    }
    owners.set(point, i);
  };
  paths.forEach((path, i) => {
    const n = path.length;
    if (path[0] !== bottom[i] || path[1] !== 0) {
      problems.push(`${i} starts off`);
    }
    if (path[n - 2] !== top[i] || path[n - 1] !== tracks + 1) {
      problems.push(`${i} ends off`);
    }
    for (let k = 2; k < n; k += 2) {
      const [xa, ya, xb, yb] = path.slice(k - 2, k + 2);
      if ((xa === xb) === (ya === yb)) problems.push(`${i} is not straight`);
      const layer = ya === yb ? "h" : "v";
      if (layer === "h" && !(ya >= 1 && ya <= tracks)) {
        problems.push(`${i} leaves the tracks`);
      }
      for (let x = Math.min(xa, xb); x <= Math.max(xa, xb); x++) {
        for (let y = Math.min(ya, yb); y <= Math.max(ya, yb); y++) {
          take(`${layer} ${x},${y}`, i);
        }
      }
    }
  });
  return problems[0];
}

function randomChannel(seed: number, pins: number, columns: number) {
  const draw = (side: string) =>
    Int32Array.from(permutation(fold(key(seed), side), columns).slice(0, pins));
  return { bottom: draw("bottom"), top: draw("top") };
}

const ROUTERS = { "left-edge": routeLeftEdge, negotiated: routeNegotiated };

// Hand cases --------------------------------------------------------------------------------------

test("density: largest number of connections over a column, 2 where pins face", () => {
  assert.is(density(channel()), 0);
  assert.is(density(channel([3, 3], [5, 5])), 0);
  assert.is(density(channel([0, 4])), 1);
  // Over column 2: both that pass and the one that ends there.
  assert.is(density(channel([0, 4], [1, 3], [2, 6])), 3);
  assert.is(density(channel([0, 1], [2, 3], [4, 5])), 1);
  // They meet in column 1 only, where the one from below must turn off first.
  assert.is(density(channel([0, 1], [1, 2])), 2);
});

test("straight connections need no track and no corner", () => {
  for (const router of Object.values(ROUTERS)) {
    const { tracks, paths } = router(channel([0, 0], [7, 7]));
    assert.is(tracks, 0);
    assert.equal(paths, [
      Int32Array.of(0, 0, 0, 1),
      Int32Array.of(7, 0, 7, 1),
    ]);
  }
});

test("facing pins: the wire from below turns off under the one from above", () => {
  for (const router of Object.values(ROUTERS)) {
    const { tracks, paths } = router(channel([0, 4], [4, 8]));
    assert.is(tracks, 2);
    assert.equal(paths, [
      Int32Array.of(0, 0, 0, 2, 4, 2, 4, 3),
      Int32Array.of(4, 0, 4, 1, 8, 1, 8, 3),
    ]);
  }
});

test("loop of constraints: two connections that change places need a dogleg and a third track", () => {
  const pins = channel([0, 4], [4, 0]);
  assert.is(density(pins), 2);
  assert.is(optimum(pins), 3);
  const negotiated = routeNegotiated(pins);
  assert.is(negotiated.tracks, 3);
  assert.is(negotiated.expansions, 1);
  assert.is(fault(pins, negotiated), undefined);
  const leftEdge = routeLeftEdge(pins);
  assert.is(leftEdge.tracks, 3);
  assert.is(fault(pins, leftEdge), undefined);
});

test("loop of constraints without a free column between: the dogleg goes around", () => {
  const pins = channel([0, 1], [1, 2], [2, 0]);
  for (const [name, router] of Object.entries(ROUTERS)) {
    assert.is(fault(pins, router(pins)), undefined, name);
  }
});

test("where the negotiation is not allowed to end, the left-edge router completes", () => {
  const pins = channel([0, 4], [4, 0]);
  const { fellBack, tracks } = routeNegotiated(pins, { maxExpansions: 0 });
  assert.is(fellBack, true);
  assert.is(tracks, 3);
});

test("two pins of one side in a column are refused", () => {
  for (const router of Object.values(ROUTERS)) {
    assert.throws(
      () => router(channel([0, 1], [0, 2])),
      (e: unknown) =>
        e instanceof RangeError &&
        /connections 0 and 1 share column 0/.test(e.message),
    );
  }
});

// Exact optimum -----------------------------------------------------------------------------------

/**
 * True if the channel can be routed with so many tracks, by satisfiability: a connection takes points
 * of which the two ends have one taken neighbour and all others two, and no point is taken twice.
 * Shares no code with the routers.
 */
function routable({ bottom, top }: ChannelPins, tracks: number): boolean {
  const low = Math.min(...bottom, ...top) - 3;
  const high = Math.max(...bottom, ...top) + 3;
  const solver = new Logic.Solver();
  const name = (i: number, layer: string, x: number, y: number) =>
    `${i} ${layer} ${x} ${y}`;
  for (let i = 0; i < bottom.length; i++) {
    // Which steps between neighbouring points the connection takes.
    const steps = new Map<string, string[]>();
    const step = (a: string, b: string) => {
      const taken = `${a} - ${b}`;
      for (const point of [a, b]) {
        steps.set(point, [...steps.get(point) ?? [], taken]);
      }
    };
    for (let x = low; x <= high; x++) {
      for (let y = 1; y <= tracks; y++) {
        step(name(i, "v", x, y), name(i, "h", x, y));
        if (x < high) step(name(i, "h", x, y), name(i, "h", x + 1, y));
        if (y < tracks) step(name(i, "v", x, y), name(i, "v", x, y + 1));
      }
    }
    const start = name(i, "v", bottom[i], 1);
    const goal = name(i, "v", top[i], tracks);
    for (const [point, list] of steps) {
      const ends = Number(point === start) + Number(point === goal);
      if (ends === 0) {
        // A point is taken if one of its steps is, and then exactly two are.
        solver.require(Logic.equiv(point, Logic.or(...list)));
        solver.require(
          Logic.or(
            Logic.not(point),
            Logic.equalBits(Logic.sum(...list), Logic.constantBits(2)),
          ),
        );
      } else {
        solver.require(point);
        solver.require(
          Logic.equalBits(Logic.sum(...list), Logic.constantBits(2 - ends)),
        );
      }
    }
  }
  for (let x = low; x <= high; x++) {
    for (let y = 1; y <= tracks; y++) {
      for (const layer of ["h", "v"]) {
        solver.require(
          Logic.atMostOne(
            ...Array.from(bottom, (_, i) => name(i, layer, x, y)),
          ),
        );
      }
    }
  }
  return solver.solve() !== null;
}

function optimum(pins: ChannelPins): number {
  let tracks = Math.max(1, density(pins));
  while (!routable(pins, tracks)) tracks++;
  return tracks;
}

test("small channels: no router beats the exact optimum, negotiation reaches it", () => {
  let excess = 0;
  let above = 0;
  for (let seed = 0; seed < 8; seed++) {
    const pins = randomChannel(seed, 4, 5);
    if (density(pins) === 0) continue;
    const best = optimum(pins);
    const negotiated = routeNegotiated(pins).tracks;
    const leftEdge = routeLeftEdge(pins).tracks;
    assert.ok(negotiated >= best, `seed ${seed}: ${negotiated} below ${best}`);
    assert.ok(leftEdge >= best, `seed ${seed}: ${leftEdge} below ${best}`);
    excess += negotiated - best;
    above += best - density(pins);
  }
  assert.is(excess, 0);
  // Channels where the bound is not the optimum are among them.
  assert.ok(above > 0);
});

// Random channels ---------------------------------------------------------------------------------

test("random channels: legal, between the bound and the baseline", () => {
  let [negotiated, leftEdge, bound] = [0, 0, 0];
  for (let seed = 0; seed < 40; seed++) {
    const [size] = randomInts(fold(key(seed), "pins"), 1, 2, 30);
    const pins = randomChannel(seed, size, size + (seed % 3) * 10);
    const routes = [routeNegotiated(pins), routeLeftEdge(pins)];
    for (const found of routes) {
      assert.is(fault(pins, found), undefined, `seed ${seed}`);
      assert.ok(found.tracks >= density(pins));
    }
    assert.ok(routes[0].tracks <= routes[1].tracks, `seed ${seed}`);
    negotiated += routes[0].tracks;
    leftEdge += routes[1].tracks;
    bound += density(pins);
  }
  assert.ok(negotiated < leftEdge, `${negotiated} ${leftEdge}`);
  // Random permutations are far denser in constraints than placed rows.
  assert.ok(negotiated < 1.25 * bound, `${negotiated} of ${bound}`);
});

test("every column with both pins: still legal, never worse than the baseline", () => {
  for (const size of [6, 14, 24]) {
    const pins = randomChannel(size, size, size);
    const found = routeNegotiated(pins);
    assert.is(fault(pins, found), undefined, `size ${size}`);
    assert.ok(found.tracks <= routeLeftEdge(pins).tracks);
    assert.is(found.expansions, found.tracks - density(pins));
  }
});

test("the checker of these tests finds a wire moved by one track", () => {
  const pins = channel([0, 4], [2, 8], [5, 3]);
  const found = routeNegotiated(pins);
  const moved = found.paths.map((path) => path.slice());
  const turns = moved.findIndex((path) => path.length > 4);
  for (let other = 0; other < moved.length; other++) {
    if (other === turns) continue;
    moved[turns] = Int32Array.from(moved[other]);
  }
  assert.is.not(fault(pins, { ...found, paths: moved }), undefined);
});

// Designs -----------------------------------------------------------------------------------------

/** Two inputs cross into an `and`: rows of 30, 70 and 30 um. */
const crossing: PlacedNetlist = {
  name: "crossing",
  cells: [
    { name: "p", kind: "input", inputs: [] },
    { name: "q", kind: "input", inputs: [] },
    {
      name: "g",
      kind: "and",
      inputs: [
        { cell: 1, pin: 0, inverted: false },
        { cell: 0, pin: 0, inverted: true },
      ],
    },
    {
      name: "y",
      kind: "output",
      inputs: [{ cell: 2, pin: 0, inverted: false }],
    },
  ],
  levels: Int32Array.of(0, 0, 1, 2),
  x: Int32Array.of(0, 4, 1, 2),
};

test("hand case: two crossing wires and a straight one", () => {
  // Pins of the inputs at columns 2 and 6; those of the gate at 3 and 5; g's output at 4 as y's input.
  const { rowY, rowHeight, channels, wires } = route(crossing, { library });
  assert.equal(
    channels.map(({ connections, tracks, lowerBound, vias }) => ({
      connections,
      tracks,
      lowerBound,
      vias,
    })),
    [
      { connections: 2, tracks: 2, lowerBound: 2, vias: 4 },
      { connections: 1, tracks: 0, lowerBound: 0, vias: 0 },
    ],
  );
  assert.equal(rowY, Int32Array.of(0, 6, 14));
  assert.equal(rowHeight, Int32Array.of(3, 7, 3));
  // Each crosses 3 steps of channel and 3 columns; the straight one a single step.
  assert.equal(wires.map(wireSteps), [6, 6, 1]);
  assert.is(channels[0].wirelengthUm, 120);
});

test("a cell lower than its row gets a stub straight up", () => {
  const placed: PlacedNetlist = {
    ...crossing,
    cells: [...crossing.cells, { name: "r", kind: "input", inputs: [] }, {
      name: "b",
      kind: "buffer",
      inputs: [{ cell: 4, pin: 0, inverted: false }],
    }, {
      name: "z",
      kind: "output",
      inputs: [{ cell: 5, pin: 0, inverted: false }],
    }],
    levels: Int32Array.of(0, 0, 1, 2, 0, 1, 2),
    x: Int32Array.of(0, 4, 1, 2, 10, 10, 10),
  };
  const { wires, rowY } = route(placed, { library });
  const stub = wires.find(({ edge }) => edge.driver === 5)!;
  // The buffer is 3 steps high, its row 7; the channel above has no track.
  assert.equal(stub.segments, [
    { layer: "vertical", x0: 12, x1: 12, y0: rowY[1] + 3, y1: rowY[1] + 8 },
  ]);
});

test("random chips: every connection is wired once, from pin to pin", () => {
  for (let seed = 0; seed < 6; seed++) {
    const placed = randomChip(key(seed), library);
    for (const router of ["negotiated", "left-edge"] as const) {
      const { wires, channels } = route(placed, { library, router });
      assert.equal(
        new Set(wires.map(({ edge }) => `${edge.sink}.${edge.input}`)).size,
        edges(placed).length,
      );
      assert.is(
        channels.reduce((sum, c) => sum + c.vias, 0),
        wires.reduce((sum, { vias }) => sum + vias.length, 0),
      );
    }
  }
});

test("same placement, same wires; priorities change the order only", () => {
  const placed = randomChip(key(3), library, { inputs: 12, jitter: 8 });
  const once = route(placed, { library });
  assert.equal(route(placed, { library }), once);
  const criticality = edges(placed).map((_, i) => i % 5);
  const ordered = route(placed, { library, criticality });
  assert.is(ordered.wires.length, once.wires.length);
});

test("a channel routed anew is wider; all others keep their wires", () => {
  const placed = randomChip(key(5), library, { rows: 4 });
  const design = route(placed, { library });
  const wider = rerouteChannel(design, 2, 2);
  assert.is(
    wider.channels[2].tracks,
    design.channels[2].lowerBound + 2 + wider.channels[2].expansions,
  );
  const grown = wider.channels[2].tracks - design.channels[2].tracks;
  for (const [i, wire] of design.wires.entries()) {
    if (wire.channel === 2) continue;
    const up = wire.channel > 2 ? grown : 0;
    assert.equal(
      wider.wires[i].segments,
      wire.segments.map((s) => ({
        ...s,
        y0: s.y0 + up,
        y1: s.y1 + up,
      })),
    );
  }
});

// Errors ------------------------------------------------------------------------------------------

const refused = (what: RegExp) => (e: unknown) =>
  e instanceof RangeError && what.test(e.message);

test("unbalanced netlists are refused by name", () => {
  assert.throws(
    () =>
      route({ ...crossing, levels: Int32Array.of(0, 0, 1, 3) }, { library }),
    refused(/from g to y .* rows 1 and 3/),
  );
  const shared = structuredClone(crossing);
  shared.cells[2].inputs[0].cell = 0;
  assert.throws(
    () => route(shared, { library }),
    refused(/output pin 0 of p as it must drive one input only: g and g/),
  );
});

test("a library off its grid or with wires too wide for it is refused", () => {
  const changed = (edit: (library: CellLibrary) => void) => {
    const copy = structuredClone(library);
    edit(copy);
    return copy;
  };
  assert.throws(
    () =>
      route(crossing, {
        library: changed((l) => l.cells.and.outputsUm[0] = 33),
      }),
    refused(/multiples of its grid of 10 um: output pin 0 of g 33 um/),
  );
  assert.throws(
    () => route(crossing, { library: changed((l) => l.rules.wireWidthUm = 7) }),
    refused(/must fit into a grid step of 10 um: width 7 um, spacing 4 um/),
  );
  assert.throws(
    () =>
      route(crossing, { library: changed((l) => l.cells.and.inputsUm.pop()) }),
    refused(/cell g as the library's cell must have an input pin 1: it has 1/),
  );
});

test.run();
