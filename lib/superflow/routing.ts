/**
 * Routing: the wires between placed rows, channel by channel.
 *
 * SuperFlow (Xie et al., DATE 2024, arXiv 2407.18209), its layer-wise routing with space expansion. The
 * paper's text was not available beyond the abstract; what is here is our reading: two wiring layers
 * with a preferred direction each, vias between them, and a channel that gets another track when a
 * connection cannot be completed.
 *
 * Every connection crosses one channel, from an output pin at the upper edge of a cell of row r to an
 * input pin at the lower edge of a cell of row r + 1. Cells of a row stand on one line; from a cell
 * lower than its row a stub leads straight up, over free space. So each channel is a problem of its own:
 *
 *   y = tracks + 1   input pins of row r + 1      columns are grid lines; a pin is reached on the
 *   y = tracks       |   horizontal wires on      vertical layer; a grid point of a layer belongs
 *   ...              |   tracks, vertical ones    to at most one connection, so that wires of one
 *   y = 1            |   on columns               grid step's pitch never come too close
 *   y = 0            output pins of row r
 *
 * An output pin and an input pin of other connections in one column are a vertical constraint: the
 * wire from below must turn off under the one that comes from above.
 *
 * Routers: `"negotiated"` is A* with negotiated congestion (McMurchie and Ebeling, "PathFinder", FPGA
 * 1995): connections share grid points at first, and points pay more the more and the longer they are
 * contested. `"left-edge"` is the baseline (Hashimoto and Stevens, DAC 1971) with doglegs where
 * vertical constraints form a loop (after Deutsch, DAC 1976); it always completes.
 *
 * | symbol | identifier | unit |
 * | --- | --- | --- |
 * | density | density() | tracks, no router can do with fewer |
 * | x, y | x, y | steps of the library's grid, from the lower left |
 */
import FlatQueue from "flatqueue";
import { type CellLibrary, libraryCellOf } from "../core/aqfp.ts";
import { type Edge, edges } from "./netlist.ts";
import type { PlacedNetlist } from "./placement.ts";

/** A straight wire between two grid points, ends included; `x0 <= x1`, `y0 <= y1`. */
export interface Segment {
  layer: "horizontal" | "vertical";
  x0: number;
  y0: number;
  x1: number;
  y1: number;
}

/** The wire of one connection. */
export interface Wire {
  /** The connection: driver and pin, sink and input. */
  edge: Edge;
  channel: number;
  segments: Segment[];
  /** Grid points where the layers are joined. */
  vias: { x: number; y: number }[];
}

/** What it took to route one channel: the one above row `row`. */
export interface ChannelReport {
  row: number;
  connections: number;
  tracks: number;
  /** Tracks that no router can do without. */
  lowerBound: number;
  /** Tracks added because some connection could not be completed. */
  expansions: number;
  /** Rounds of negotiation, over all expansions. */
  rounds: number;
  /** No negotiation ended with as few tracks as the left-edge router, whose routing it is. */
  fellBack: boolean;
  vias: number;
  wirelengthUm: number;
}

export interface RoutedDesign {
  placed: PlacedNetlist;
  library: CellLibrary;
  /** Grid steps: where each row begins. */
  rowY: Int32Array; // [rows]
  /** Grid steps: the tallest cell of each row. */
  rowHeight: Int32Array; // [rows]
  channels: ChannelReport[]; // [rows - 1]
  wires: Wire[];
}

export interface RoutingOptions extends NegotiationOptions {
  library: CellLibrary;
  /** Default: negotiated. */
  router?: Router;
  /** Of each connection in the order of `edges()`: those of higher values are routed first. */
  criticality?: ArrayLike<number>;
  /** Called after each channel. */
  onProgress?: (done: number, channels: number) => void;
}

export type Router = "negotiated" | "left-edge";

// Channels ----------------------------------------------------------------------------------------

/** One connection of a channel: columns of its lower and its upper pin. */
export interface ChannelPins {
  bottom: Int32Array; // [connections]
  top: Int32Array; // [connections]
  /** Those of higher priority come first. */
  priority?: ArrayLike<number>;
}

/** A routed channel: corners of each wire from its lower pin (y 0) to its upper one (y tracks + 1). */
export interface ChannelRoute {
  tracks: number;
  paths: Int32Array[]; // x, y, x, y ... per connection
  expansions: number;
  rounds: number;
  fellBack: boolean;
}

/** Columns free on each side of a channel for detours, before it is widened. */
const MARGIN_COLUMNS = 3;

/**
 * Tracks that every routing of the channel needs.
 *
 * A connection whose pins are in different columns uses a point of some track in each column from one
 * to the other, both included; so the largest number of them over a column is a bound. Two are needed
 * where pins of two connections face each other.
 *
 * @example
 * ```ts
 * density({ bottom: Int32Array.of(0, 1, 2), top: Int32Array.of(4, 3, 6) }); // 3
 * ```
 */
export function density({ bottom, top }: ChannelPins): number {
  const begins = new Map<number, number>();
  const add = (column: number, n: number) =>
    begins.set(column, (begins.get(column) ?? 0) + n);
  const above = new Map<number, number>();
  top.forEach((column, i) => above.set(column, i));
  let bound = 0;
  for (let i = 0; i < bottom.length; i++) {
    if (bottom[i] === top[i]) continue;
    add(Math.min(bottom[i], top[i]), 1);
    add(Math.max(bottom[i], top[i]) + 1, -1);
    const facing = above.get(bottom[i]);
    if (facing !== undefined && facing !== i) bound = 2;
    bound = Math.max(bound, 1);
  }
  let open = 0;
  for (const column of [...begins.keys()].sort((a, b) => a - b)) {
    open += begins.get(column)!;
    bound = Math.max(bound, open);
  }
  return bound;
}

function requireDistinct({ bottom, top }: ChannelPins): void {
  for (const [pins, side] of [[bottom, "lower"], [top, "upper"]] as const) {
    const seen = new Map<number, number>();
    pins.forEach((column, i) => {
      const other = seen.get(column);
      if (other !== undefined) {
        throw new RangeError(
          `Cannot route a channel as every pin must have a column of its own: connections ${other} and ${i} share column ${column} of the ${side} side`,
        );
      }
      seen.set(column, i);
    });
  }
}

/** Corners only: points between two of the same direction are left out. */
function corners(points: number[]): Int32Array {
  const kept = points.slice(0, 2);
  for (let i = 2; i < points.length; i += 2) {
    const [x, y] = [points[i], points[i + 1]];
    const n = kept.length;
    if (x === kept[n - 2] && y === kept[n - 1]) continue;
    const straight = n >= 4 &&
      (x === kept[n - 2] && kept[n - 2] === kept[n - 4] ||
        y === kept[n - 1] && kept[n - 1] === kept[n - 3]);
    if (straight) kept.length = n - 2;
    kept.push(x, y);
  }
  return Int32Array.from(kept);
}

// Left edge ---------------------------------------------------------------------------------------

/** A horizontal wire to be given a track: from the column it enters below to the one it leaves above. */
interface Trunk {
  connection: number;
  from: number;
  to: number;
  track: number;
  /** Trunks that must lie lower. */
  below: number[];
}

/**
 * Routes a channel by the left-edge algorithm: tracks are filled from below, each from left to right
 * with trunks all of whose vertical constraints are met. Where constraints form a loop, one of its
 * trunks is split in two at a column without pins, which breaks the loop. It always completes.
 *
 * @example
 * ```ts
 * const { tracks, paths } = routeLeftEdge({ bottom: Int32Array.of(0), top: Int32Array.of(4) });
 * tracks; // 1
 * paths[0]; // [0, 0, 0, 1, 4, 1, 4, 2]
 * ```
 */
export function routeLeftEdge(pins: ChannelPins): ChannelRoute {
  requireDistinct(pins);
  const { bottom, top } = pins;
  const trunks: Trunk[] = [];
  const below = new Map<number, number>();
  const above = new Map<number, number>();
  bottom.forEach((from, connection) => {
    if (from === top[connection]) return;
    below.set(from, trunks.length);
    above.set(top[connection], trunks.length);
    trunks.push({ connection, from, to: top[connection], track: 0, below: [] });
  });
  for (const [column, upper] of above) {
    const lower = below.get(column);
    if (lower !== undefined) trunks[upper].below.push(lower);
  }
  const taken = new Set<number>([...bottom, ...top]);
  const waiting = new Set(trunks.keys());
  const ready = ({ below, track }: Trunk, now: number) =>
    track === 0 &&
    below.every((i) => trunks[i].track > 0 && trunks[i].track < now);
  let tracks = 0;
  while (waiting.size > 0) {
    const now = tracks + 1;
    const able = [...waiting].filter((i) => ready(trunks[i], now));
    if (able.length === 0) {
      splitTrunk(trunks, waiting, taken);
      continue;
    }
    const left = (i: number) => Math.min(trunks[i].from, trunks[i].to);
    able.sort((a, b) => left(a) - left(b) || a - b);
    let end = -Infinity;
    for (const i of able) {
      if (left(i) <= end) continue;
      end = Math.max(trunks[i].from, trunks[i].to);
      trunks[i].track = now;
      waiting.delete(i);
    }
    tracks = now;
  }
  const paths = Array.from(bottom, (column) => [column, 0]);
  for (const { connection, from, to, track } of trunks) {
    // The lower of two halves comes first in the list.
    paths[connection].push(from, track, to, track);
  }
  return {
    tracks,
    paths: paths.map((points, i) => corners([...points, top[i], tracks + 1])),
    expansions: 0,
    rounds: 0,
    fellBack: false,
  };
}

/**
 * Splits one trunk of a loop of vertical constraints at a free column. The lower half then waits for
 * nothing and nothing waits for the upper half, so that neither is in a loop again.
 */
function splitTrunk(
  trunks: Trunk[],
  waiting: Set<number>,
  taken: Set<number>,
): void {
  let at = waiting.values().next().value!;
  const path: number[] = [];
  while (!path.includes(at)) {
    path.push(at);
    at = trunks[at].below.find((i) => waiting.has(i))!;
  }
  const loop = path.slice(path.indexOf(at));
  // The free column that costs the least detour over the loop's trunks.
  let best = { trunk: -1, column: 0, cost: Infinity };
  for (const i of loop) {
    const low = Math.min(trunks[i].from, trunks[i].to);
    const high = Math.max(trunks[i].from, trunks[i].to);
    for (let out = 1; out < high - low || out < best.cost; out++) {
      for (const column of [low + out, high + out, low - out]) {
        const cost = Math.max(0, column - high, low - column);
        if (!taken.has(column) && cost < best.cost) {
          best = { trunk: i, column, cost };
        }
      }
      if (best.cost === 0) break;
    }
    if (best.cost === 0) break;
  }
  const { trunk: i, column } = best;
  const trunk = trunks[i];
  const upper: Trunk = {
    connection: trunk.connection,
    from: column,
    to: trunk.to,
    track: 0,
    below: [...trunk.below, i],
  };
  trunk.below = [];
  trunk.to = column;
  taken.add(column);
  waiting.add(trunks.length);
  trunks.push(upper);
}

// Negotiated congestion ---------------------------------------------------------------------------

/** What a contested point costs more per other user, in the first round. */
const PRESENT_COST = 0.6;
/** By how much that grows per round. */
const PRESENT_GROWTH = 1.05;
const PRESENT_MAX = 1e3;
/** What a point costs more for good after each round in which it was contested. */
const HISTORY_COST = 0.4;

/** A channel of a given number of tracks while its connections negotiate. */
class Negotiation {
  readonly width: number;
  readonly left: number;
  /** Points of a layer; those of the vertical layer follow those of the horizontal one. */
  readonly size: number;
  readonly users: Uint16Array;
  readonly history: Float64Array;
  /** Connection (from 1) whose pin needs the point, or 0. */
  readonly reserved: Int32Array;
  readonly cost: Float64Array;
  readonly stamp: Int32Array;
  readonly from: Int32Array;
  readonly paths: (Int32Array | undefined)[];
  readonly queue: FlatQueue<number>;
  search = 0;
  present = PRESENT_COST;

  readonly pins: ChannelPins;
  readonly tracks: number;
  readonly viaCost: number;

  constructor(
    pins: ChannelPins,
    tracks: number,
    viaCost: number,
    margin: number,
  ) {
    this.pins = pins;
    this.tracks = tracks;
    this.viaCost = viaCost;
    const { bottom, top } = pins;
    let [low, high] = [Infinity, -Infinity];
    for (let i = 0; i < bottom.length; i++) {
      low = Math.min(low, bottom[i], top[i]);
      high = Math.max(high, bottom[i], top[i]);
    }
    this.left = low - margin;
    this.width = high - low + 1 + 2 * margin;
    this.size = this.width * tracks;
    this.users = new Uint16Array(2 * this.size);
    this.history = new Float64Array(2 * this.size);
    this.reserved = new Int32Array(2 * this.size);
    this.cost = new Float64Array(2 * this.size);
    this.stamp = new Int32Array(2 * this.size);
    this.from = new Int32Array(2 * this.size);
    this.paths = new Array(bottom.length);
    this.queue = new FlatQueue<number>();
    for (let i = 0; i < bottom.length; i++) {
      this.reserved[this.start(i)] = i + 1;
      this.reserved[this.goal(i)] = i + 1;
    }
  }

  /** The vertical layer's point above the lower pin. */
  start(i: number): number {
    return this.size + this.pins.bottom[i] - this.left;
  }

  /** The vertical layer's point below the upper pin. */
  goal(i: number): number {
    return 2 * this.size - this.width + this.pins.top[i] - this.left;
  }

  remove(i: number): void {
    for (const point of this.paths[i] ?? []) this.users[point]--;
    this.paths[i] = undefined;
  }

  add(i: number, path: Int32Array): void {
    for (const point of path) this.users[point]++;
    this.paths[i] = path;
  }

  /** The cheapest path of a connection at present, points from start to goal; undefined if walled in. */
  find(i: number): Int32Array | undefined {
    const { width, size, users, history, reserved, cost, stamp, from, queue } =
      this;
    const { viaCost, present } = this;
    const start = this.start(i);
    const goal = this.goal(i);
    const goalColumn = goal % width;
    const search = ++this.search;
    const own = i + 1;
    queue.clear();
    // What is left at least: columns, tracks up, and the vias to and from the horizontal layer.
    const ahead = (point: number): number => {
      const vertical = point >= size;
      const at = vertical ? point - size : point;
      const row = (at / width) | 0;
      const columns = Math.abs(at - row * width - goalColumn);
      return columns + this.tracks - 1 - row +
        (vertical ? (columns === 0 ? 0 : 2 * viaCost) : viaCost);
    };
    const reach = (point: number, before: number, step: number) => {
      const holder = reserved[point];
      if (holder !== 0 && holder !== own) return;
      const sum = cost[before] + step * (1 + history[point]) +
        present * users[point];
      if (stamp[point] === search && sum >= cost[point]) return;
      stamp[point] = search;
      cost[point] = sum;
      from[point] = before;
      queue.push(point, sum + ahead(point));
    };
    stamp[start] = search;
    cost[start] = present * users[start];
    from[start] = -1;
    queue.push(start, cost[start] + ahead(start));
    while (queue.length > 0) {
      const bound = queue.peekValue()!;
      const point = queue.pop()!;
      if (bound > cost[point] + ahead(point) + 1e-9) continue;
      if (point === goal) break;
      if (point >= size) {
        if (point + width < 2 * size) reach(point + width, point, 1);
        if (point - width >= size) reach(point - width, point, 1);
        reach(point - size, point, viaCost);
      } else {
        const column = point % width;
        if (column + 1 < width) reach(point + 1, point, 1);
        if (column > 0) reach(point - 1, point, 1);
        reach(point + size, point, viaCost);
      }
    }
    queue.clear();
    if (stamp[goal] !== search) return undefined;
    const path: number[] = [];
    for (let point = goal; point >= 0; point = from[point]) path.push(point);
    return Int32Array.from(path.reverse());
  }

  contested(path: Int32Array): boolean {
    for (const point of path) if (this.users[point] > 1) return true;
    return false;
  }

  /** Raises the prices after a round; the number of contested points. */
  charge(): number {
    let contested = 0;
    for (let point = 0; point < this.users.length; point++) {
      if (this.users[point] > 1) {
        this.history[point] += HISTORY_COST * (this.users[point] - 1);
        contested++;
      }
    }
    this.present = Math.min(this.present * PRESENT_GROWTH, PRESENT_MAX);
    return contested;
  }

  /** Corners of a path with its pins. */
  cornersOf(i: number): Int32Array {
    const { size, width, left, pins, tracks } = this;
    const points: number[] = [pins.bottom[i], 0];
    for (const point of this.paths[i]!) {
      const at = point % size;
      points.push(left + at % width, 1 + Math.floor(at / width));
    }
    return corners([...points, pins.top[i], tracks + 1]);
  }
}

export interface NegotiationOptions {
  /** Rounds of one negotiation at most; default 80, our choice. */
  maxRounds?: number;
  /** Tracks above the lower bound that negotiation may ask for; default as many as the baseline needs. */
  maxExpansions?: number;
  /** Cost of a via in grid steps; default 2, our choice. */
  viaCost?: number;
}

/** Rounds without fewer contested points after which a negotiation is given up. */
const PATIENCE = 25;

/** One negotiation with a given number of tracks; paths as corners, undefined if it does not end well. */
function negotiate(
  pins: ChannelPins,
  tracks: number,
  order: number[],
  margin: number,
  { maxRounds = 80, viaCost = 2 }: NegotiationOptions,
): { paths: Int32Array[] | undefined; rounds: number } {
  const channel = new Negotiation(pins, tracks, viaCost, margin);
  let fewest = Infinity;
  let since = 0;
  for (let round = 1; round <= maxRounds; round++) {
    for (const i of order) {
      const path = channel.paths[i];
      if (path !== undefined && !channel.contested(path)) continue;
      channel.remove(i);
      const found = channel.find(i);
      if (found === undefined) return { paths: undefined, rounds: round };
      channel.add(i, found);
    }
    const contested = channel.charge();
    if (contested === 0) {
      return {
        paths: order.map((_, i) => channel.cornersOf(i)),
        rounds: round,
      };
    }
    since = contested < fewest ? 0 : since + 1;
    fewest = Math.min(fewest, contested);
    if (since >= PATIENCE) return { paths: undefined, rounds: round };
  }
  return { paths: undefined, rounds: maxRounds };
}

/**
 * Routes a channel by negotiation: with as many tracks as the lower bound asks for, and while some
 * points stay contested, with 1, 2, 4 ... tracks more; from the last failure and the first success
 * the fewest tracks are then found by halving. A routing by the left-edge algorithm is the limit: if
 * negotiation does not reach its number of tracks, it is the result.
 *
 * @param extraTracks Tracks above the lower bound to begin with.
 */
export function routeNegotiated(
  pins: ChannelPins,
  options: NegotiationOptions = {},
  extraTracks = 0,
): ChannelRoute {
  const baseline = routeLeftEdge(pins);
  const { bottom, top, priority } = pins;
  const bound = density(pins);
  if (bound === 0) return baseline;
  // Long connections have the fewest ways: first, among those of equal priority.
  const order = Array.from(bottom.keys()).sort((a, b) =>
    (priority?.[b] ?? 0) - (priority?.[a] ?? 0) ||
    Math.abs(bottom[b] - top[b]) - Math.abs(bottom[a] - top[a]) || a - b
  );
  const first = bound + extraTracks;
  const most = Math.max(
    first,
    Math.min(baseline.tracks, first + (options.maxExpansions ?? Infinity)),
  );
  let rounds = 0;
  let best: ChannelRoute | undefined;
  const attempt = (tracks: number): boolean => {
    const margin = MARGIN_COLUMNS + ((tracks - bound) >> 1);
    const tried = negotiate(pins, tracks, order, margin, options);
    rounds += tried.rounds;
    const { paths } = tried;
    if (paths === undefined) return false;
    best = {
      tracks,
      paths,
      expansions: tracks - first,
      rounds,
      fellBack: false,
    };
    return true;
  };
  let failed = first - 1;
  let step = 1;
  for (let tracks = first; !attempt(tracks); step *= 2) {
    failed = tracks;
    if (tracks >= most) break;
    tracks = Math.min(most, tracks + step);
  }
  while (best !== undefined && best.tracks - failed > 1) {
    const middle = (failed + best.tracks) >> 1;
    if (!attempt(middle)) failed = middle;
  }
  if (best === undefined) {
    const expansions = Math.max(0, baseline.tracks - first);
    return { ...baseline, expansions, rounds, fellBack: true };
  }
  return { ...best, rounds };
}

// Designs -----------------------------------------------------------------------------------------

/** Grid steps of a length, which must be a multiple of the grid. */
function steps(library: CellLibrary, um: number, what: string): number {
  const n = um / library.gridUm;
  if (Math.abs(n - Math.round(n)) > 1e-9) {
    throw new RangeError(
      `Cannot route with library ${library.name} as lengths must be multiples of its grid of ${library.gridUm} um: ${what} ${um} um`,
    );
  }
  return Math.round(n);
}

/**
 * Checks that wires on neighbouring grid lines keep their distance.
 *
 * @throws RangeError if they do not.
 */
function requireWireRules({ name, gridUm, rules }: CellLibrary): void {
  const pad = Math.max(
    rules.wireWidthUm,
    rules.viaSizeUm + 2 * rules.viaEnclosureUm,
  );
  if (!(pad > 0 && pad + rules.wireSpacingUm <= gridUm)) {
    throw new RangeError(
      `Cannot route with library ${name} as wires or vias and the space between them must fit into a grid step of ${gridUm} um: width ${pad} um, spacing ${rules.wireSpacingUm} um`,
    );
  }
}

/** Column of an output pin, in grid steps. */
export function outputColumn(
  { cells, x }: PlacedNetlist,
  library: CellLibrary,
  cell: number,
  pin: number,
): number {
  const { outputsUm } = libraryCellOf(library, cells[cell]);
  return x[cell] + pinStep(library, outputsUm, pin, cells[cell].name, "output");
}

/** Column of an input pin, in grid steps. */
export function inputColumn(
  { cells, x }: PlacedNetlist,
  library: CellLibrary,
  cell: number,
  input: number,
): number {
  const { inputsUm } = libraryCellOf(library, cells[cell]);
  return x[cell] + pinStep(library, inputsUm, input, cells[cell].name, "input");
}

function pinStep(
  library: CellLibrary,
  pinsUm: number[],
  pin: number,
  name: string,
  what: string,
): number {
  if (pin >= pinsUm.length) {
    throw new RangeError(
      `Cannot route cell ${name} as the library's cell must have an ${what} pin ${pin}: it has ${pinsUm.length}`,
    );
  }
  return steps(library, pinsUm[pin], `${what} pin ${pin} of ${name}`);
}

/** Height of a cell in grid steps. */
export function heightSteps(
  { cells }: PlacedNetlist,
  library: CellLibrary,
  cell: number,
): number {
  const { heightUm } = libraryCellOf(library, cells[cell]);
  return steps(library, heightUm, `height of ${cells[cell].name}`);
}

/** Connections of each channel: each must cross exactly one. */
function byChannel(placed: PlacedNetlist, rows: number): Edge[][] {
  const { cells, levels } = placed;
  const channels: Edge[][] = Array.from({ length: rows - 1 }, () => []);
  const used = new Map<string, Edge>();
  for (const edge of edges(placed)) {
    const { driver, pin, sink } = edge;
    if (levels[sink] !== levels[driver] + 1) {
      throw new RangeError(
        `Cannot route the connection from ${cells[driver].name} to ${
          cells[sink].name
        } as it must lead from a row to the next: rows ${levels[driver]} and ${
          levels[sink]
        }`,
      );
    }
    const other = used.get(`${driver}.${pin}`);
    if (other !== undefined) {
      throw new RangeError(
        `Cannot route output pin ${pin} of ${
          cells[driver].name
        } as it must drive one input only: ${cells[other.sink].name} and ${
          cells[sink].name
        }`,
      );
    }
    used.set(`${driver}.${pin}`, edge);
    channels[levels[driver]].push(edge);
  }
  return channels;
}

interface Rows {
  rows: number;
  heights: Int32Array;
}

function rowHeights(placed: PlacedNetlist, library: CellLibrary): Rows {
  const { cells, levels, x } = placed;
  if (levels.length !== cells.length || x.length !== cells.length) {
    throw new RangeError(
      `Cannot route ${placed.name} as every cell must have a level and a place: cells ${cells.length}, levels ${levels.length}, places ${x.length}`,
    );
  }
  const rows = levels.reduce((most, level) => Math.max(most, level), -1) + 1;
  const heights = new Int32Array(rows);
  for (let i = 0; i < cells.length; i++) {
    if (levels[i] < 0) {
      throw new RangeError(
        `Cannot route ${placed.name} as levels must be 0 or more: ${
          cells[i].name
        } has ${levels[i]}`,
      );
    }
    heights[levels[i]] = Math.max(
      heights[levels[i]],
      heightSteps(placed, library, i),
    );
  }
  return { rows, heights };
}

function channelPins(
  placed: PlacedNetlist,
  library: CellLibrary,
  connections: Edge[],
  priority?: number[],
): ChannelPins {
  return {
    bottom: Int32Array.from(
      connections,
      ({ driver, pin }) => outputColumn(placed, library, driver, pin),
    ),
    top: Int32Array.from(
      connections,
      ({ sink, input }) => inputColumn(placed, library, sink, input),
    ),
    priority,
  };
}

/** Segments and vias of a wire from its corners, which lie `y0` above the rows' ground line. */
function wireOf(
  edge: Edge,
  channel: number,
  path: Int32Array,
  y0: number,
  pinY: number,
): Wire {
  const segments: Segment[] = [];
  const vias: { x: number; y: number }[] = [];
  for (let i = 2; i < path.length; i += 2) {
    const [xa, xb] = [path[i - 2], path[i]];
    const [ya, yb] = [path[i - 1] + y0, path[i + 1] + y0];
    segments.push({
      layer: ya === yb ? "horizontal" : "vertical",
      x0: Math.min(xa, xb),
      x1: Math.max(xa, xb),
      // The first segment begins at the pin, which lies lower in cells lower than their row.
      y0: i === 2 ? pinY : Math.min(ya, yb),
      y1: Math.max(ya, yb),
    });
    if (i + 2 < path.length) vias.push({ x: xb, y: yb });
  }
  return { edge, channel, segments, vias };
}

/** Length of a wire with its stub, in grid steps. */
export function wireSteps({ segments }: Wire): number {
  return segments.reduce((sum, s) => sum + s.x1 - s.x0 + s.y1 - s.y0, 0);
}

/** Lays routed channels on top of each other: places of rows and wires follow from the tracks. */
function assemble(
  placed: PlacedNetlist,
  library: CellLibrary,
  connections: Edge[][],
  routes: ChannelRoute[],
): RoutedDesign {
  const { rows, heights } = rowHeights(placed, library);
  const rowY = new Int32Array(rows);
  for (let row = 1; row < rows; row++) {
    rowY[row] = rowY[row - 1] + heights[row - 1] + routes[row - 1].tracks + 1;
  }
  const wires: Wire[] = [];
  const channels = routes.map((route, row): ChannelReport => {
    const ground = rowY[row] + heights[row];
    let vias = 0;
    let length = 0;
    connections[row].forEach((edge, i) => {
      const pinY = rowY[row] + heightSteps(placed, library, edge.driver);
      const wire = wireOf(edge, row, route.paths[i], ground, pinY);
      vias += wire.vias.length;
      length += wireSteps(wire);
      wires.push(wire);
    });
    return {
      row,
      connections: connections[row].length,
      tracks: route.tracks,
      lowerBound: density(channelPins(placed, library, connections[row])),
      expansions: route.expansions,
      rounds: route.rounds,
      fellBack: route.fellBack,
      vias,
      wirelengthUm: length * library.gridUm,
    };
  });
  return { placed, library, rowY, rowHeight: heights, channels, wires };
}

/**
 * Routes every connection of a placed netlist.
 *
 * @throws RangeError if the netlist is not balanced (a connection does not lead from a row to the next,
 * an output pin drives two inputs) or the library's lengths do not lie on its grid.
 */
export function route(
  placed: PlacedNetlist,
  options: RoutingOptions,
): RoutedDesign {
  const { library, router = "negotiated", criticality, onProgress } = options;
  requireWireRules(library);
  const { rows } = rowHeights(placed, library);
  const connections = byChannel(placed, rows);
  const numbers = new Map(
    edges(placed).map(({ sink, input }, i) => [`${sink}.${input}`, i]),
  );
  const routes = connections.map((list, row) => {
    const priority = criticality === undefined ? undefined : list.map(
      ({ sink, input }) => criticality[numbers.get(`${sink}.${input}`)!],
    );
    const pins = channelPins(placed, library, list, priority);
    const found = router === "left-edge"
      ? routeLeftEdge(pins)
      : routeNegotiated(pins, options);
    onProgress?.(row + 1, connections.length);
    return found;
  });
  return assemble(placed, library, connections, routes);
}

/**
 * The design with one channel routed anew, wider by `extraTracks` than its lower bound requires at
 * least; all other wires keep their shape.
 */
export function rerouteChannel(
  design: RoutedDesign,
  channel: number,
  extraTracks: number,
  options: Omit<RoutingOptions, "library"> = {},
): RoutedDesign {
  const { placed, library } = design;
  const connections = byChannel(placed, design.rowY.length);
  if (connections[channel] === undefined) {
    throw new RangeError(
      `Cannot route channel ${channel} anew as it must be from 0 to ${
        connections.length - 1
      }`,
    );
  }
  const routes = connections.map((list, row): ChannelRoute => {
    const pins = channelPins(placed, library, list);
    if (row === channel) return routeNegotiated(pins, options, extraTracks);
    const ground = design.rowY[row] + design.rowHeight[row];
    const { tracks, expansions, rounds, fellBack } = design.channels[row];
    const byInput = new Map(
      design.wires.filter((wire) => wire.channel === row).map((
        wire,
      ) => [`${wire.edge.sink}.${wire.edge.input}`, wire]),
    );
    const paths = list.map(({ sink, input }, i) =>
      pathOf(byInput.get(`${sink}.${input}`), pins.bottom[i], ground)
    );
    return { tracks, paths, expansions, rounds, fellBack };
  });
  return assemble(placed, library, connections, routes);
}

/** Corners of a wire, the inverse of `wireOf`. */
function pathOf(
  wire: Wire | undefined,
  column: number,
  ground: number,
): Int32Array {
  const points = [column, 0];
  for (const { layer, x0, x1, y0, y1 } of wire?.segments ?? []) {
    const [x, y] = points.slice(-2);
    if (layer === "horizontal") points.push(x === x0 ? x1 : x0, y);
    else {points.push(
        x,
        Math.max(y0 - ground, 0) === y ? y1 - ground : y0 - ground,
      );}
  }
  return Int32Array.from(points);
}
