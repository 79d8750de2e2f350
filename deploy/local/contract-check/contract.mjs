// The contract as ajv reads it: strict JSON Schema 2020-12, in which an unknown keyword or format is an error.

import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

/** Return a `require` for the packages of `make develop`, which lie outside this folder. */
export const packagesIn = (folder) => createRequire(join(resolve(folder), "index.js"));

const read = (path) => JSON.parse(readFileSync(path, "utf8"));

/** Return the generated files of a contract: the AsyncAPI document, and the JSON Schemas by file name. */
export function readContract(folder) {
  const names = readdirSync(join(folder, "schemas")).filter((name) => name.endsWith(".json"));
  return {
    document: read(join(folder, "asyncapi.json")),
    schemas: Object.fromEntries(names.sort().map((name) => [name, read(join(folder, "schemas", name))])),
  };
}

/** Return a schema of the AsyncAPI document with references to its parts by path, for they are schemas of their own here. */
const standalone = (schema) =>
  JSON.parse(JSON.stringify(schema), (key, value) => (key === "$ref" ? value.replace(/^#/, "") : value));

/** Return an ajv that knows the schemas of the AsyncAPI document as `/components/…`; a schema is compiled by `getSchema`. */
export function ajvWith(packages, { components: { schemas = {}, messages = {} } }) {
  const Ajv = packages("ajv/dist/2020").default;
  const ajv = new Ajv({ strict: true, allErrors: true, validateSchema: false });
  packages("ajv-formats").default(ajv);
  for (const [name, schema] of Object.entries(schemas)) {
    ajv.addSchema(standalone(schema), `/components/schemas/${name}`);
  }
  for (const [name, { payload }] of Object.entries(messages)) {
    ajv.addSchema(standalone(payload), `/components/messages/${name}/payload`);
  }
  return ajv;
}
