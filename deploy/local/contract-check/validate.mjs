// Validates events with ajv: node validate.mjs <folder of the packages> <contract> < [[type, event as JSON text], …]
//
// Prints a JSON list: for each event null, or the first problem. Tests compare it with what consumers accept.

import { readFileSync } from "node:fs";

import { ajvWith, packagesIn, readContract } from "./contract.mjs";

const [packagesFolder, folder] = process.argv.slice(2);
const ajv = ajvWith(packagesIn(packagesFolder), readContract(folder).document);

function problem([type, text]) {
  let event;
  try {
    event = JSON.parse(text);
  } catch (error) {
    return String(error);
  }
  const validate = ajv.getSchema(`/components/messages/${type}/payload`);
  return validate(event) ? null : ajv.errorsText(validate.errors.slice(0, 1));
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(problem)));
