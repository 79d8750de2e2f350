#!/bin/sh
# pywa builds the components of a template's values from keyword arguments. A text keeps its name; an amount and a time lose
# theirs, without which Meta cannot tell which placeholder of a named template they fill. A flow button without token and data
# is sent with nulls, and the enum of languages lacks Meta's `es_419`.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check pywa==4.5.0
cat > check.py <<'PY'
import json
import sys

import pywa
from pywa.types import templates

amount = templates.Currency(fallback_value="1 EUR", code="EUR", amount_1000=1000)
time = templates.DateTime(fallback_value="1 May")
values = templates.BodyText.params(customer="Ann", total=amount, due=time).to_dict()["parameters"]
flow = templates.FlowButton.params(index=0).to_dict()["parameters"][0]["action"]
languages = {str(getattr(one, "value", one)) for one in templates.TemplateLanguage}
print(f"pywa {pywa.__version__}")
print("named text, amount and time:", json.dumps(values))
print("flow button without token and data:", json.dumps(flow))
print("languages:", len(languages), "es_ES" in languages, "es_419" in languages)
named = [value.get("parameter_name") for value in values]
as_seen = named == ["customer", None, None] and flow == {"flow_token": None, "flow_action_data": None}
sys.exit(0 if as_seen and "es_419" not in languages else "the behaviour has changed")
PY
python/bin/python check.py
