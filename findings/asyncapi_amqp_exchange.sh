#!/bin/sh
# A misspelt field of an AMQP binding is reported only where it is directly in the binding. Inside `exchange` the parser
# accepts it, and so does the JSON Schema that AsyncAPI publishes for the binding.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund @asyncapi/parser@3.6.6 @asyncapi/specs@6.11.1 ajv@8.20.0 >/dev/null
cat > check.mjs <<'JS'
import { readFileSync } from "node:fs";
import Ajv from "ajv";
import { Parser } from "@asyncapi/parser";

const read = (path) => JSON.parse(readFileSync(`node_modules/${path}`, "utf8"));
const bindings = {
  "correct": { is: "routingKey", exchange: { name: "shop", durable: true }, bindingVersion: "0.3.0" },
  "misspelt in the binding": { iz: "routingKey", exchange: { name: "shop", durable: true }, bindingVersion: "0.3.0" },
  "misspelt in the exchange": { is: "routingKey", exchange: { name: "shop", durabel: true }, bindingVersion: "0.3.0" },
};
const ajv = new Ajv({ strict: false, allErrors: true });
ajv.addSchema({ $id: "http://asyncapi.com/definitions/3.0.0/specificationExtension.json" });
const validate = ajv.compile(read("@asyncapi/specs/bindings/amqp/0.3.0/channel.json"));
for (const name of ["@asyncapi/parser", "@asyncapi/specs", "ajv"]) {
  console.log(`${name} ${read(`${name}/package.json`).version}`);
}
const seen = [];
for (const [name, amqp] of Object.entries(bindings)) {
  const document = {
    asyncapi: "3.0.0",
    info: { title: "Shop", version: "1" },
    channels: { order: { address: "shop.order.placed", bindings: { amqp } } },
  };
  const { diagnostics } = await new Parser().parse(JSON.stringify(document));
  const byParser = diagnostics.some((one) => one.severity === 0) ? "refuses" : "accepts";
  const bySchema = validate(amqp) ? "accepts" : "refuses";
  console.log(`${name}: the parser ${byParser} it, the published schema ${bySchema} it`);
  seen.push(byParser, bySchema);
}
if (seen.join() !== "accepts,accepts,refuses,refuses,accepts,accepts") {
  console.error("the behaviour has changed");
  process.exit(1);
}
JS
node check.mjs
