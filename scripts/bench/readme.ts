/**
 * The speed table of the README, made from `data/bench/gpt.json`.
 *
 *   node --import tsx scripts/bench/readme.ts    writes it anew between its two markers
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { projectRoot, writeAtomic } from "../../lib/core/runs.ts";
import { type Table, table, toMarkdown } from "../../lib/core/table.ts";

const START = "<!-- made by scripts/bench/readme.ts -->";
const END = "<!-- end -->";

interface GptReport {
  rows: {
    case: string;
    name: string;
    medianMs: number;
    timesFasterThanStock: number | null;
    timesSlowerThanPyTorch: number | null;
    leakedTensorsPerStep: number | null;
    peakRssFirstStepMb: number;
  }[];
  provenance: {
    date: string;
    commit: string;
    machine: { cpu: string; cores: number };
    repeats: number;
  };
}

/** The measured rows and where they come from, as Markdown. */
export function speedSection({ rows, provenance }: GptReport): string {
  const { date, commit, machine, repeats } = provenance;
  const shown: Table = table(
    rows.map((row) => ({
      model: row.case,
      engine: row.name,
      step: row.medianMs,
      stock: row.timesFasterThanStock,
      torch: row.timesSlowerThanPyTorch,
      leaked: row.leakedTensorsPerStep,
      memory: Math.round(row.peakRssFirstStepMb),
    })),
    {
      columns: [
        { name: "model" },
        { name: "engine" },
        { name: "step", label: "ms per step", digits: 3 },
        { name: "stock", label: "times faster than stock", digits: 3 },
        { name: "torch", label: "PyTorch's time times", digits: 3 },
        { name: "leaked", label: "tensors leaked per step" },
        { name: "memory", label: "peak MB of the first step" },
      ],
    },
  );
  return `${toMarkdown(shown).trim()}

Medians over ${repeats} rounds, one thread each, ${
    date.slice(0, 10)
  }, ${machine.cpu}, ${machine.cores} cores, commit ${commit.slice(0, 7)}.`;
}

/** The README with its speed section replaced. */
export function withSpeedSection(readme: string, section: string): string {
  const [from, to] = [readme.indexOf(START), readme.indexOf(END)];
  if (from < 0 || to < from) {
    throw new SyntaxError(
      `Cannot place the speed table as the README must have ${START} and ${END}`,
    );
  }
  return `${readme.slice(0, from + START.length)}\n\n${section}\n\n${
    readme.slice(to)
  }`;
}

/** Reads the saved measurements and writes the README. */
export function updateReadme(): void {
  const root = projectRoot();
  const report = JSON.parse(
    readFileSync(join(root, "data", "bench", "gpt.json"), "utf8"),
  );
  const file = join(root, "README.md");
  const readme = readFileSync(file, "utf8");
  writeAtomic(file, withSpeedSection(readme, speedSection(report)));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  updateReadme();
}
