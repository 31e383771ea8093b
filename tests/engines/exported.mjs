// Embed the texts of a file with transformers.js: node exported.mjs MODULES FOLDER TEXTS.json OUT.json
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, folder, texts, out] = process.argv.slice(2);
const found = createRequire(`${modules}/`).resolve("@huggingface/transformers");
const { env, pipeline } = await import(pathToFileURL(found));
env.allowRemoteModels = false;
env.localModelPath = `${dirname(folder)}/`;
const embed = await pipeline("feature-extraction", basename(folder), { dtype: "fp32" });
const embeddings = await embed(JSON.parse(readFileSync(texts)), { pooling: "mean", normalize: true });
writeFileSync(out, JSON.stringify(embeddings.tolist()));
