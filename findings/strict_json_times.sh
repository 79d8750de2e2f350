#!/bin/sh
# pydantic publishes a datetime as `format: date-time`. In strict JSON mode it still reads texts of digits as seconds since
# 1970, and separators that the format does not allow; ajv accepts a leap second and the year 0, which Python does not have.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund ajv@8.20.0 ajv-formats@3.0.1 >/dev/null
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check pydantic==2.14.3
cat > times.json <<'JSON'
["2026-01-31T12:00:00Z", "1769860800", "0", "2026-01-31_12:00:00Z", "2026-01-31T12:00:00,5Z", "2026-01-31T12:00Z",
 "2026-01-31T23:59:60Z", "0000-01-01T00:00:00Z"]
JSON
cat > ajv.mjs <<'JS'
import { readFileSync } from "node:fs";
import Ajv from "ajv/dist/2020.js";
import formats from "ajv-formats";

const ajv = new Ajv.default({ strict: true });
formats.default(ajv);
const validate = ajv.compile({ type: "string", format: "date-time" });
console.log(JSON.stringify(JSON.parse(readFileSync("times.json", "utf8")).map((time) => validate(time))));
JS
node ajv.mjs > ajv.json
cat > check.py <<'PY'
import json
import sys
from datetime import datetime

import pydantic

reader = pydantic.TypeAdapter(pydantic.AwareDatetime)
times, by_ajv = json.load(open("times.json")), json.load(open("ajv.json"))


def read(time: str) -> str:
    try:
        return reader.validate_json(json.dumps(time), strict=True).isoformat()
    except pydantic.ValidationError:
        return "refused"


version = json.load(open("node_modules/ajv-formats/package.json"))["version"]
print(f"pydantic {pydantic.VERSION}, ajv-formats {version}; published as {reader.json_schema()}")
seen = []
for time, accepted in zip(times, by_ajv):
    result = read(time)
    seen.append((accepted, result != "refused"))
    print(f"{time!r}: ajv {'accepts' if accepted else 'refuses'} it; pydantic in strict mode: {result}")
expected = [(True, True), *[(False, True)] * 5, *[(True, False)] * 2]
sys.exit(0 if seen == expected and read("0").startswith("1970-01-01") else "the behaviour has changed")
PY
python/bin/python check.py
