#!/bin/sh
# The AsyncAPI parser checks the examples of messages against their payload in 2.x documents, and not at all in 3.0 documents.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund @asyncapi/parser@3.6.6 >/dev/null
cat > check.mjs <<'JS'
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { version } = JSON.parse(readFileSync("node_modules/@asyncapi/parser/package.json", "utf8"));
const info = { title: "Shop", version: "1" };
// The example gives a number where the payload has a text.
const message = {
  contentType: "application/json",
  payload: { type: "object", properties: { total: { type: "string" } } },
  examples: [{ payload: { total: 19.9 } }],
};
const documents = {
  "2.6.0": { asyncapi: "2.6.0", info, channels: { "shop.order.placed": { publish: { message } } } },
  "3.0.0": {
    asyncapi: "3.0.0",
    info,
    channels: { order: { address: "shop.order.placed", messages: { placed: message } } },
    operations: { place: { action: "send", channel: { $ref: "#/channels/order" } } },
  },
};
console.log(`@asyncapi/parser ${version}`);
const found = {};
for (const [name, document] of Object.entries(documents)) {
  const { diagnostics } = await new Parser().parse(JSON.stringify(document));
  found[name] = diagnostics.filter((one) => /examples/.test(one.code));
  console.log(`${name}: ${found[name].map((one) => `${one.code}: ${one.message}`).join("; ") || "nothing about the example"}`);
}
if (found["2.6.0"].length !== 1 || found["3.0.0"].length !== 0) {
  console.error("the behaviour has changed");
  process.exit(1);
}
JS
node check.mjs
