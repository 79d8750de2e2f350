// Checks a generated contract with the tools of its readers: node check.mjs <folder of the packages> <contract>
//
// Each tool finds what the others pass over. The parser of AsyncAPI knows the rules of the document, but ignores misspelt
// fields inside the exchange of a binding and formats that do not exist; ajv knows schemas only.

import { ajvWith, packagesIn, readContract } from "./contract.mjs";

const [packagesFolder, folder] = process.argv.slice(2);
const packages = packagesIn(packagesFolder);
const { document, schemas } = readContract(folder);
const ajv = ajvWith(packages, document);
const messages = Object.entries(document.components.messages);
const problems = [];
const counts = { schemas: 0, examples: 0, bindings: 0 };

function report(place, errors) {
  for (const { instancePath = "", message, params = {} } of errors ?? []) {
    const details = params.additionalProperty ?? params.allowedValue ?? params.allowedValues ?? "";
    problems.push(`${place}${instancePath}: ${message}${details ? ` (${details})` : ""}`);
  }
}

/** Check one schema and its examples; `compile` returns the validating function. */
function checkSchema(place, schema, compile, examples) {
  counts.schemas += 1;
  if (!ajv.validateSchema(schema)) return report(place, ajv.errors);
  let validate;
  try {
    validate = compile();
  } catch (error) {
    return report(place, [error]);
  }
  for (const [place_, example] of examples) {
    counts.examples += 1;
    if (!validate(example)) report(place_, validate.errors);
  }
}

function checkSchemas() {
  for (const [name, schema] of Object.entries(schemas)) {
    const place = `schemas/${name}`;
    const examples = (schema.examples ?? []).map((example, index) => [`${place}: examples/${index}`, example]);
    if (!examples.length) problems.push(`${place}: has no examples`);
    checkSchema(place, schema, () => ajv.compile(schema), examples);
  }
  for (const [name, schema] of Object.entries(document.components.schemas)) {
    const path = `/components/schemas/${name}`;
    checkSchema(`asyncapi.json: ${path}`, schema, () => ajv.getSchema(path), []);
  }
  for (const [name, { payload, examples = [] }] of messages) {
    const path = `/components/messages/${name}`;
    const place = `asyncapi.json: ${path}`;
    const payloads = examples.map((example, index) => [`${place}: examples/${index}/payload`, example.payload]);
    if (!payloads.length) problems.push(`${place}: has no examples`);
    checkSchema(`${place}/payload`, payload, () => ajv.getSchema(`${path}/payload`), payloads);
  }
}

/** Return a published schema of a binding that also refuses unknown fields of its inner objects. */
function closed(schema) {
  if (Array.isArray(schema)) return schema.map(closed);
  if (schema === null || typeof schema !== "object") return schema;
  const copy = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closed(value)]));
  return copy.type === "object" && copy.properties ? { additionalProperties: false, ...copy } : copy;
}

function bindingValidator() {
  const Ajv = packages("ajv").default;
  // Draft 7, and not strict: the schemas are AsyncAPI's.
  const bindings = new Ajv({ strict: false, allErrors: true });
  bindings.addSchema({ $id: "http://asyncapi.com/definitions/3.0.0/specificationExtension.json" });
  const kinds = {};
  return (kind, version) => {
    const path = `@asyncapi/specs/bindings/amqp/${version}/${kind}.json`;
    return (kinds[path] ??= bindings.compile(closed(packages(path))));
  };
}

function checkBindings() {
  const validator = bindingValidator();
  const owners = {
    channel: Object.entries(document.channels).map(([name, one]) => [`/channels/${name}`, one]),
    operation: Object.entries(document.operations).map(([name, one]) => [`/operations/${name}`, one]),
    message: messages.map(([name, one]) => [`/components/messages/${name}`, one]),
  };
  for (const [kind, named] of Object.entries(owners)) {
    for (const [name, { bindings = {} }] of named) {
      for (const [protocol, binding] of Object.entries(bindings)) {
        const place = `asyncapi.json: ${name}/bindings/${protocol}`;
        counts.bindings += 1;
        if (protocol !== "amqp" || !/^[0-9.]+$/.test(binding.bindingVersion)) {
          report(place, [{ message: "must be a binding of amqp with a bindingVersion" }]);
          continue;
        }
        const validate = validator(kind, binding.bindingVersion);
        if (!validate(binding)) report(place, validate.errors);
      }
    }
  }
  if (Object.values(document.channels).some((channel) => !channel.bindings?.amqp)) {
    problems.push("asyncapi.json: a channel has no binding of amqp, which names its exchange");
  }
}

async function checkDocument() {
  const { Parser } = packages("@asyncapi/parser");
  const { diagnostics } = await new Parser().parse(JSON.stringify(document));
  const errors = diagnostics.filter(({ severity }) => severity === 0);
  report("asyncapi.json: ", errors.map(({ path, message }) => ({ instancePath: `/${path.join("/")}`, message })));
}

checkSchemas();
checkBindings();
await checkDocument();
if (problems.length) {
  const [found, shown] = [[...new Set(problems)], 20];
  const more = found.length > shown ? [`… and ${found.length - shown} more`] : [];
  console.error([`the contract in ${folder} has errors:`, ...found.slice(0, shown), ...more].join("\n  "));
  process.exitCode = 1;
} else {
  const { examples, bindings } = counts;
  console.log(
    `contract checked with Node: ${messages.length} events, ${counts.schemas} schemas, ${examples} examples, ${bindings} bindings`,
  );
}
