/**
 * Modules of a source as Yosys read them: which there are, and which ones no other uses.
 *
 * Scope: names and instances from RTLIL, Yosys' own text format, written before the hierarchy is
 * resolved; so a module that only an untaken branch of `generate` uses counts as unused.
 */

/** A module and the types of the cells in it, modules and operators alike. */
interface ModuleUse {
  name: string;
  uses: string[];
}

/** Modules in the order of the text. */
function modulesOf(rtlil: string): ModuleUse[] {
  const modules: ModuleUse[] = [];
  for (const line of rtlil.split("\n")) {
    const name = /^module \\(\S+)$/.exec(line)?.[1];
    if (name !== undefined) modules.push({ name, uses: [] });
    // an array of instances is `cell $array:0:3:\part \name`
    const type = /^\s+cell (?:\$array:\d+:\d+:)?\\(\S+) \S+$/.exec(line)?.[1];
    if (type !== undefined) modules.at(-1)?.uses.push(type);
  }
  return modules;
}

/** Names of the modules in RTLIL. */
export function moduleNames(rtlil: string): string[] {
  return modulesOf(rtlil).map(({ name }) => name);
}

/**
 * Names of the modules that no other module uses.
 *
 * @param rtlil Before the hierarchy is resolved.
 * @param kept What Yosys' `ls` prints after that, the top and all below it: a module with parameters
 *   as `$paramod\name\N=...`.
 * @param top The chosen one.
 * @returns The roots; more than one means that something would be left out.
 */
export function rootModules(
  rtlil: string,
  kept: string,
  top: string,
): string[] {
  const modules = modulesOf(rtlil);
  const used = new Set(
    modules.flatMap(({ name, uses }) => uses.filter((type) => type !== name)),
  );
  for (
    const [, name] of kept.matchAll(
      /^ {2}(?:\$paramod(?:\$[0-9a-f]+)?\\)?([^\\\n]+)/gm,
    )
  ) used.add(name);
  return modules.map(({ name }) => name)
    .filter((name) => name === top || !used.has(name));
}
