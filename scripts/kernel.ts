/**
 * The TypeScript kernel of the notebooks: tslab, taught to read this library.
 *
 * As shipped, tslab 1.0.22 (TypeScript 5.0) refuses imports that end in `.ts`, ignores the `exports`
 * of package.json and re-emits every file that a cell imports. Nothing is forked: before tslab
 * loads, its compiler is replaced in the module cache by a copy in which one function, the one that
 * creates the compiler's host, is wrapped.
 *
 * Started by Jupyter: `node --import tsx scripts/kernel.ts --config-path <connection file>`
 * (`npm run lab` writes that command into a kernel spec).
 */
import { createRequire } from "node:module";
import { dirname, join, sep } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The folder that holds package.json: cells resolve their imports from here. */
export const projectRoot = dirname(dirname(fileURLToPath(import.meta.url)));

const require = createRequire(import.meta.url);

type CompilerOptions = Record<string, unknown> & { lib?: string[] };
interface SourceFile {
  fileName: string;
  text: string;
}
interface Builder {
  getAllDependencies(file: SourceFile): string[];
  getSourceFile(path: string): SourceFile | undefined;
  getProgram(): { getTypeChecker(): unknown };
}
interface Host {
  afterProgramCreate?: (builder: Builder) => void;
}
type CreateHost = (
  rootFiles: string[],
  options: CompilerOptions,
  system: unknown,
  createProgram: unknown,
  ...rest: unknown[]
) => Host;
interface Compiler {
  createWatchCompilerHost: CreateHost;
  createAbstractBuilder: unknown;
  preProcessFile(text: string): { importedFiles: { fileName: string }[] };
  ModuleResolutionKind: { Bundler: number };
}

/** What a cell may import, and which globals it sees, in addition to tslab's own settings. */
function cellOptions(ts: Compiler, options: CompilerOptions): CompilerOptions {
  return {
    ...options,
    allowImportingTsExtensions: true,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    lib: [
      ...(options.lib ?? []),
      "lib.es2023.d.ts",
      "lib.dom.d.ts",
      "lib.dom.iterable.d.ts",
    ],
    types: ["node"],
    // Messages about JavaScript inside dependencies help nobody in a cell.
    checkJs: false,
  };
}

/**
 * The cell and the modules that other cells define, without the files on disk they import: those
 * are run by the TypeScript loader and checked by `npm test`, so that a cell need not repeat both.
 */
function ownFiles(ts: Compiler, builder: Builder, cell: SourceFile): string[] {
  const found = new Map([[cell.fileName, cell]]);
  for (const { text } of found.values()) { // which grows meanwhile
    for (const { fileName } of ts.preProcessFile(text).importedFiles) {
      if (!/^\.\/\w+$/.test(fileName)) continue;
      for (const extension of [".ts", ".tsx"]) {
        const path = projectRoot.split(sep).join("/") + fileName.slice(1) +
          extension;
        const file = builder.getSourceFile(path);
        if (file !== undefined) found.set(path, file);
      }
    }
  }
  return [...found.keys()];
}

/** Replaces tslab's compiler in the module cache; must run before anything loads tslab. */
function patchCompiler(): void {
  const path = require.resolve("@tslab/typescript-for-tslab", {
    paths: [require.resolve("tslab/package.json")],
  });
  const ts = require(path) as Compiler;
  const cached = require.cache[path];
  if (cached === undefined) throw new Error(`Cannot find ${path} once loaded`);

  const createHost: CreateHost = (rootFiles, options, system, _, ...rest) => {
    const host = ts.createWatchCompilerHost(
      rootFiles,
      cellOptions(ts, options),
      system,
      // tslab's own choice finds for each cell again what every file of the library imports.
      ts.createAbstractBuilder,
      ...rest,
    );
    let callback: Host["afterProgramCreate"];
    Object.defineProperty(host, "afterProgramCreate", {
      get: () => callback,
      set(next: (builder: Builder) => void) {
        callback = (builder) => {
          builder.getAllDependencies = (file) => ownFiles(ts, builder, file);
          builder.getProgram().getTypeChecker(); // finds the names that a cell defines
          next(builder);
        };
      },
    });
    return host;
  };
  // The exports of the compiler are getters that cannot be assigned to: copy them all but one.
  const { createWatchCompilerHost: _, ...others } = Object
    .getOwnPropertyDescriptors(ts);
  cached.exports = Object.defineProperties({
    createWatchCompilerHost: createHost,
  }, others);
}

/** One of tslab's files, `converter`, `executor`, `jupyter` or `main`, on the patched compiler. */
export function tslab<Module>(file: string): Module {
  const main = require.resolve("tslab/package.json");
  const loaded = Object.keys(require.cache).some((path) =>
    path.startsWith(join(dirname(main), "dist", sep))
  );
  if (!loaded) patchCompiler();
  return require(`tslab/dist/${file}.js`) as Module;
}

interface Main {
  startKernel(options: { configPath: string; enableFindLocal: boolean }): void;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const configPath = process.argv[process.argv.indexOf("--config-path") + 1];
  process.chdir(projectRoot);
  tslab<Main>("main").startKernel({ configPath, enableFindLocal: false });
}
