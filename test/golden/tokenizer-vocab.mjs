// Writes the vocabularies of two npm packages as JSON, for tokenizer.py.
//   npm install llama-tokenizer-js@1.2.2 gpt-tokenizer@4.0.0
//   node tokenizer-vocab.mjs texts.json vocab.json
// texts.json is a list of strings; their ids by these packages are written too.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";
import { pathToFileURL } from "node:url";

// The packages are installed where this is run, not where this file is.
const require = createRequire(`${process.cwd()}/x.js`);
const load = (path) => import(pathToFileURL(require.resolve(path)).href);
const { default: llama } = await load("llama-tokenizer-js");
const r50k = await load("gpt-tokenizer/encoding/r50k_base");

const texts = JSON.parse(readFileSync(process.argv[2], "utf8"));
const merges = [...llama.merges.entries()].sort((a, b) => a[1] - b[1])
  .map(([pair]) => pair.split(" "));
writeFileSync(
  process.argv[3],
  JSON.stringify({
    llama: {
      vocab: llama.vocabById,
      merges,
      ids: texts.map((text) => llama.encode(text)),
    },
    r50k: {
      ids: texts.map((text) =>
        r50k.encode(text, { disallowedSpecial: new Set() })
      ),
    },
  }),
);
