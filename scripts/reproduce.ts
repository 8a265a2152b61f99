/** The main job: data, runs, result sets, verdicts, notebooks, site. See `--help`. */
import process from "node:process";
import { main } from "./cli.ts";
import { reproduceMain } from "./pipeline.ts";

await main(() => reproduceMain(process.argv.slice(2)));
