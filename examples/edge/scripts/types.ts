// Writes src/types.ts from the schemas. With --check it only says whether the file is up to date.

import { readFile, writeFile } from "node:fs/promises";
import { compileFromFile } from "json-schema-to-typescript";

const schemas = new URL("../../../schema/", import.meta.url);
const types = new URL("../src/types.ts", import.meta.url);

const options = {
  additionalProperties: false,
  bannerComment: "",
  cwd: schemas.pathname,
  style: { printWidth: 100 },
};
const names = ["settings", "query-config", "metadata"];
const compiled = await Promise.all(
  names.map((name) => compileFromFile(new URL(`${name}.json`, schemas).pathname, options)),
);
const text = ["// Written by `npm run types` from the files in schema/.\n", ...compiled].join("\n");

if (!process.argv.includes("--check")) {
  await writeFile(types, text);
} else if ((await readFile(types, "utf8")) !== text) {
  console.error("src/types.ts is not what the schemas say: run `npm run types` in examples/edge/");
  process.exit(1);
}
