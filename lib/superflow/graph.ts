/** Pictures of netlists before there is a layout: cells at their levels, connections as lines. */
import { scatterFigure } from "../core/figure.ts";
import type { FigureSpec } from "../core/runs.ts";
import {
  edges,
  type LevelledNetlist,
  levelsOf,
  type Netlist,
} from "./netlist.ts";
import type { PlacedNetlist } from "./placed.ts";

/** What is drawn as one series, in the order of the legend. */
const GROUPS: [name: string, kinds: string[]][] = [
  ["majority", ["maj"]],
  ["and, or", ["and", "or"]],
  ["splitter", ["splitter"]],
  ["buffer", ["buffer", "inverter", "constant"]],
  ["port", ["input", "output"]],
];

/** Places along the rows where there is no placement yet: every cell near its drivers, one step apart. */
function spreadOut({ cells }: Netlist, levels: Int32Array): number[] {
  const rows = new Map<number, number[]>();
  levels.forEach((level, i) =>
    rows.set(level, [...(rows.get(level) ?? []), i])
  );
  const widest = Math.max(...[...rows.values()].map(({ length }) => length));
  const x: number[] = new Array(cells.length).fill(0);
  for (const level of [...rows.keys()].sort((a, b) => a - b)) {
    const row = rows.get(level)!;
    const wish = (i: number) => {
      const drivers = cells[i].inputs;
      return drivers.length === 0
        ? i
        : drivers.reduce((sum, { cell }) => sum + x[cell], 0) / drivers.length;
    };
    const order = row.map((i) => ({ i, wish: wish(i) }))
      .sort((a, b) => a.wish - b.wish);
    order.forEach(({ i }, k) => {
      x[i] = (k + 0.5) * widest / row.length;
    });
  }
  return x;
}

/**
 * A netlist as a picture: level against place, inverted connections dashed.
 *
 * Cells of a placed netlist stand where they are placed, in grid steps; those of any other near their
 * drivers.
 */
export function netlistFigure(
  netlist: Netlist | LevelledNetlist | PlacedNetlist,
  { id, title, caption }: { id: string; title: string; caption?: string },
): FigureSpec {
  const { cells } = netlist;
  const { levels } = "levels" in netlist ? netlist : levelsOf(netlist);
  const isPlaced = "x" in netlist;
  const x = isPlaced ? [...netlist.x] : spreadOut(netlist, levels);
  const rows = GROUPS.flatMap(([group, kinds]) =>
    cells.flatMap(({ kind }, i) =>
      kinds.includes(kind) ? [{ group, x: x[i], level: levels[i] }] : []
    )
  );
  const figure = scatterFigure(rows, {
    id,
    title,
    caption,
    x: "x",
    y: "level",
    series: "group",
    order: GROUPS.map(([name]) => name),
    xAxis: { title: isPlaced ? "left edge (grid steps)" : "" },
    yAxis: { title: "level (clock phases from the inputs)" },
    height: 520,
  });
  const lines = ([false, true] as const).map((inverted) => {
    const chosen = edges(netlist).filter(({ sink, input }) =>
      cells[sink].inputs[input].inverted === inverted
    );
    return {
      type: "scatter",
      mode: "lines",
      name: inverted ? "inverted" : "connection",
      showlegend: inverted,
      x: chosen.flatMap(({ driver, sink }) => [x[driver], x[sink], null]),
      y: chosen.flatMap((
        { driver, sink },
      ) => [levels[driver], levels[sink], null]),
      line: { width: 1, color: "#999999", dash: inverted ? "dot" : "solid" },
      hoverinfo: "skip",
    };
  }).filter((trace) => trace.x.length > 0);
  const layout = isPlaced ? figure.layout : {
    ...figure.layout,
    xaxis: { ...figure.layout.xaxis as object, visible: false },
  };
  return { ...figure, layout, data: [...lines, ...figure.data] };
}
