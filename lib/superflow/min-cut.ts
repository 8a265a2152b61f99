/**
 * Minimum s-t cut by Dinic's algorithm (Soviet Math. Doklady 11, 1970): shortest augmenting paths, a
 * level at a time.
 */

/** Stands for an infinite capacity in sums. */
const UNLIMITED = 2 ** 50;

/**
 * The source's side of a minimum cut: 1 for each node on it, of all such cuts the smallest side.
 *
 * @param arcs From, to, capacity; Infinity for an arc that must not be cut.
 * @throws RangeError if every cut has an arc that must not be cut.
 */
export function minCut(
  nodes: number,
  arcs: readonly (readonly [from: number, to: number, capacity: number])[],
  source: number,
  target: number,
): Uint8Array {
  // Arc 2 a and its reverse 2 a + 1.
  const first = new Int32Array(nodes + 1);
  for (const [from, to] of arcs) {
    first[from + 1]++;
    first[to + 1]++;
  }
  for (let v = 0; v < nodes; v++) first[v + 1] += first[v];
  const fill = first.slice();
  const leaving = new Int32Array(2 * arcs.length);
  const head = new Int32Array(2 * arcs.length);
  const room = new Float64Array(2 * arcs.length);
  arcs.forEach(([from, to, capacity], a) => {
    leaving[fill[from]++] = 2 * a;
    leaving[fill[to]++] = 2 * a + 1;
    head[2 * a] = to;
    head[2 * a + 1] = from;
    room[2 * a] = Math.min(capacity, UNLIMITED);
  });

  const depth = new Int32Array(nodes);
  const queue = new Int32Array(nodes);
  /** Distances from the source in the residual graph; whether the target can be reached. */
  const search = (): boolean => {
    depth.fill(-1);
    depth[source] = 0;
    queue[0] = source;
    let tail = 1;
    for (let at = 0; at < tail; at++) {
      const v = queue[at];
      for (let k = first[v]; k < first[v + 1]; k++) {
        const to = head[leaving[k]];
        if (room[leaving[k]] > 0 && depth[to] < 0) {
          depth[to] = depth[v] + 1;
          queue[tail++] = to;
        }
      }
    }
    return depth[target] >= 0;
  };

  let flow = 0;
  const next = new Int32Array(nodes);
  const path: number[] = [];
  while (search()) {
    next.set(first.subarray(0, nodes));
    // Walk from the source along arcs that lead one level on; step back from dead ends.
    let v = source;
    path.length = 0;
    for (;;) {
      if (v === target) {
        const by = path.reduce(
          (least, arc) => Math.min(least, room[arc]),
          UNLIMITED,
        );
        flow += by;
        if (flow >= UNLIMITED / 2) {
          throw new RangeError(
            "Cannot find a cut as every cut has an arc that must not be cut",
          );
        }
        for (const arc of path) {
          room[arc] -= by;
          room[arc ^ 1] += by;
        }
        v = source;
        path.length = 0;
        continue;
      }
      let arc = -1;
      for (; next[v] < first[v + 1]; next[v]++) {
        const a = leaving[next[v]];
        if (room[a] > 0 && depth[head[a]] === depth[v] + 1) {
          arc = a;
          break;
        }
      }
      if (arc >= 0) {
        path.push(arc);
        v = head[arc];
      } else {
        const back = path.pop();
        if (back === undefined) break;
        v = head[back ^ 1];
        next[v]++;
      }
    }
  }
  return Uint8Array.from(depth, (d) => d >= 0 ? 1 : 0);
}
