/**
 * Layouts made here, checked by KLayout: design rules and connectivity of the GDSII file.
 *
 * KLayout shares no code with us. It measures widths, spaces, enclosures and overlaps, and extracts which
 * pins are connected; both must agree with our checks, for a clean layout and for copies with a via
 * removed or moved, a bar across two wires, a wire too near to another or too thin.
 *
 *   node --import tsx scripts/referee/superflow_klayout.ts [layout.gds [picture.png]]
 *
 * Without a file it checks random chips. The picture is KLayout's view of the file. Needs the program klayout (Debian: apt-get install klayout).
 */
import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { DEFAULT_LIBRARY } from "../../lib/core/aqfp.ts";
import {
  type GdsElement,
  type GdsPath,
  readGds,
  writeGds,
} from "../../lib/core/formats/gds.ts";
import { fold, key } from "../../lib/core/rng.ts";
import { checkDesignRules } from "../../lib/superflow/drc.ts";
import {
  inputPinName,
  layoutBytes,
  outputPinName,
} from "../../lib/superflow/layout.ts";
import { extractNetlist } from "../../lib/superflow/lvs.ts";
import { route } from "../../lib/superflow/routing.ts";
import { layerProperties } from "../../lib/superflow/view.ts";
import { randomChip } from "../../test/fixtures/superflow-chips.ts";

const MACRO = fileURLToPath(new URL("superflow_klayout.py", import.meta.url));
const library = DEFAULT_LIBRARY;

interface Verdict {
  violations: Record<string, number>;
  nets: string[][];
  cells: number;
}

/** What KLayout says of a file. */
function judge(
  bytes: Uint8Array,
  folder: string,
  picture?: string,
): Verdict {
  const file = (name: string) => path.join(folder, name);
  fs.writeFileSync(file("layout.gds"), bytes);
  fs.writeFileSync(file("rules.json"), JSON.stringify(library));
  fs.writeFileSync(file("layers.lyp"), layerProperties(library));
  const defines: Record<string, string> = {
    gds: file("layout.gds"),
    rules: file("rules.json"),
    out: file("out.json"),
    ...(picture === undefined ? {} : {
      png: path.resolve(picture),
      layers_file: file("layers.lyp"),
    }),
  };
  execFileSync("klayout", [
    "-b",
    "-r",
    MACRO,
    ...Object.entries(defines).flatMap(([k, v]) => ["-rd", `${k}=${v}`]),
  ], {
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, QT_QPA_PLATFORM: "offscreen" },
  });
  return JSON.parse(fs.readFileSync(file("out.json"), "utf8"));
}

/** The pins on each conductor by our extraction, as KLayout's are listed. */
function ownNets(bytes: Uint8Array): string[][] {
  const nets = new Map<number | string, string[]>();
  for (
    const { text, inputs, outputs } of extractNetlist(bytes, library).cells
  ) {
    const pins = [
      ...inputs.map((p, i) => [inputPinName(i), p.conductor] as const),
      ...outputs.map((p, i) =>
        [outputPinName(i, outputs.length), p.conductor] as const
      ),
    ];
    for (const [pin, conductor] of pins) {
      const name = `${text}.${pin}`;
      const net = conductor < 0 ? name : conductor;
      nets.set(net, [...nets.get(net) ?? [], name]);
    }
  }
  return [...nets.values()];
}

/** One line per net in one order. */
const canonical = (nets: string[][]) =>
  nets.map((net) => [...net].sort().join(" ")).sort().join("\n");

/** Prints both judgements of a file; true if they agree. */
function compare(
  name: string,
  bytes: Uint8Array,
  folder: string,
  picture?: string,
): boolean {
  const { violations, nets, cells } = judge(bytes, folder, picture);
  const found = Object.entries(violations).filter(([, n]) => n > 0);
  // KLayout is not asked for wires over cells and in rows, or pins without a wire.
  const own = checkDesignRules(bytes, library).filter(({ rule }) =>
    rule === "width" || rule === "spacing" || rule === "enclosure"
  );
  const sameNets = canonical(nets) === canonical(ownNets(bytes));
  const sameRules = (found.length > 0) === (own.length > 0);
  console.log(
    `${name}: ${cells} cells, ${nets.length} nets ${
      sameNets ? "equal" : "DIFFERENT"
    }; rules: KLayout ${
      found.map(([rule, n]) => `${rule} ${n}`).join(", ") || "clean"
    }, here ${
      own.length === 0
        ? "clean"
        : [...new Set(own.map(({ rule }) => rule))].join(", ")
    }${sameRules ? "" : " DIFFERENT"}`,
  );
  return sameNets && sameRules;
}

function changed(
  bytes: Uint8Array,
  edit: (top: GdsElement[]) => void,
): Uint8Array {
  const gds = readGds(bytes);
  edit(gds.structures[gds.structures.length - 1].elements);
  return writeGds(gds);
}

/** A layout and broken copies of it. */
function* broken(bytes: Uint8Array): Generator<[string, Uint8Array]> {
  yield ["as made", bytes];
  yield [
    "a via removed",
    changed(bytes, (top) => {
      const i = top.findIndex((e) =>
        e.type === "sref" && e.structure === "via"
      );
      if (i >= 0) top.splice(i, 1);
    }),
  ];
  const { horizontal, vertical } = library.rules.gdsLayers;
  const wires = (top: GdsElement[], layer: number) =>
    top.filter((e): e is GdsPath => e.type === "path" && e.layer === layer);
  yield [
    "a bar across wires",
    changed(bytes, (top) => {
      const [a] = wires(top, vertical);
      const y = a.xy[1];
      const other = wires(top, vertical).find(({ xy }) =>
        xy[1] === y && xy[0] !== a.xy[0]
      );
      const xy = Int32Array.of(a.xy[0], y, other?.xy[0] ?? a.xy[0] + 10_000, y);
      top.push({ ...a, xy });
    }),
  ];
  yield [
    "a wire too near",
    changed(bytes, (top) => {
      const [a] = wires(top, horizontal);
      if (a === undefined) return;
      const xy = a.xy.map((v, i) => i % 2 === 0 ? v : v + 7000);
      top.push({ ...a, xy });
    }),
  ];
  yield [
    "a thin wire",
    changed(bytes, (top) => {
      const [, a] = wires(top, horizontal);
      if (a !== undefined) a.width = 3000;
    }),
  ];
  yield [
    "a via moved by 2 um",
    changed(bytes, (top) => {
      const i = top.findIndex((e) =>
        e.type === "sref" && e.structure === "via"
      );
      if (i < 0) return;
      const [x, y] = top[i].xy;
      top.splice(i, 1);
      const { via } = library.rules.gdsLayers;
      const corners = [[1, -1], [3, -1], [3, 1], [1, 1], [1, -1]];
      const xy = Int32Array.from(
        corners.flatMap(([dx, dy]) => [x + 1000 * dx, y + 1000 * dy]),
      );
      top.push({ type: "boundary", layer: via, datatype: 0, xy });
    }),
  ];
}

function main(): void {
  try {
    execFileSync("klayout", ["-v"], { stdio: "pipe" });
  } catch {
    console.log(
      "klayout is not installed: nothing was checked (Debian: apt-get install klayout)",
    );
    process.exitCode = 1;
    return;
  }
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "adiabat-klayout-"));
  const [given, picture] = process.argv.slice(2);
  const layouts: [string, Uint8Array][] = given !== undefined
    ? [[path.basename(given), new Uint8Array(fs.readFileSync(given))]]
    : [0, 1, 2].map((seed) => {
      const placed = randomChip(fold(key(40), seed), library, {
        rows: 4 + 4 * seed,
        inputs: 6 + 6 * seed,
        jitter: 3 + 3 * seed,
      });
      return [`chip ${seed}`, layoutBytes(route(placed, { library }))];
    });
  try {
    for (const [name, bytes] of layouts) {
      for (const [what, copy] of broken(bytes)) {
        const png = copy === bytes ? picture : undefined;
        if (!compare(`${name}, ${what}`, copy, folder, png)) {
          process.exitCode = 1;
        }
      }
    }
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
  console.log(process.exitCode === 1 ? "DIFFERENCES" : "KLayout agrees");
}

main();
