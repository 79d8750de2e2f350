"""The check of the contract with Node finds what each of its tools is for, and says so where Node is missing.

`make check` runs it on the contract itself.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.contract_check import FOLDER, require_node, run_check
from wch_common.contract.schemas import write_contract
from wch_common.events import published_contract

ROOT = Path(__file__).parents[2]
REGISTRY = published_contract()


def test_the_check_with_node_refuses_a_dangling_reference(tmp_path: Path) -> None:
    require_node()
    reference = "#/$defs/CampaignTotals"
    write_contract(REGISTRY, tmp_path)
    document = json.loads((tmp_path / "asyncapi.json").read_bytes())
    document["components"]["schemas"]["broadcast.campaign.completed.v1"]["properties"]["totals"]["$ref"] = reference
    (tmp_path / "asyncapi.json").write_bytes(orjson.dumps(document))
    done = run_check(tmp_path)
    assert done.returncode == 1
    assert "/components/schemas/broadcast.campaign.completed.v1: can't resolve reference" in done.stderr
    assert f"'{reference}' does not exist" in done.stderr


def test_the_parser_reads_the_schemas(tmp_path: Path) -> None:
    """It passes over payloads that are declared as JSON Schema 2020-12, so ours are in the dialect of AsyncAPI."""
    require_node()
    write_contract(REGISTRY, tmp_path)
    document = json.loads((tmp_path / "asyncapi.json").read_bytes())
    document["components"]["schemas"]["sync.product.failed.v1"]["properties"]["reason"]["type"] = "strng"
    (tmp_path / "asyncapi.json").write_bytes(orjson.dumps(document))
    place = "/components/messages/sync.product.failed.v1/payload/allOf/1/properties/data/properties/reason/type: "
    assert f'{place}"type" property must be equal to one of the allowed values' in run_check(tmp_path).stderr


def broken(document: dict[str, Any], schema: dict[str, Any]) -> None:
    """Break one thing for each tool of the check, and what one of them passes over."""
    messages, channels = document["components"]["messages"], document["channels"]
    document["operations"]["sync.product.failed.v1"]["action"] = "sned"
    channels["sync.product.failed.v1"]["bindings"]["amqp"]["exchange"]["durabel"] = True
    messages["sync.product.requested.v1"]["examples"][0]["payload"]["data"]["product_id"] = "17"
    messages["sync.product.failed.v1"]["payload"]["allOf"][1]["properties"]["type"]["format"] = "sentense"
    schema["properties"]["product_id"]["minimun"] = schema["properties"]["product_id"].pop("minimum")


def test_the_check_with_node_names_what_each_tool_finds(tmp_path: Path) -> None:
    require_node()
    write_contract(REGISTRY, tmp_path)
    paths = [tmp_path / "asyncapi.json", tmp_path / "schemas/sync.product.requested.v1.json"]
    document, schema = (json.loads(path.read_bytes()) for path in paths)
    broken(document, schema)
    for path, content in zip(paths, (document, schema), strict=True):
        path.write_bytes(orjson.dumps(content))
    done = run_check(tmp_path)
    assert done.returncode == 1
    for line in (
        "/operations/sync.product.failed.v1/action: ",
        "/channels/sync.product.failed.v1/bindings/amqp/exchange: must NOT have additional properties (durabel)",
        '/components/messages/sync.product.failed.v1/payload: unknown format "sentense"',
        "/components/messages/sync.product.requested.v1: examples/0/payload/data/product_id: must be integer",
        'schemas/sync.product.requested.v1.json: strict mode: unknown keyword: "minimun"',
    ):
        assert line in done.stderr


@pytest.mark.parametrize(
    ("has_node", "reason"), [(False, "node is not installed"), (True, "its packages are not installed")]
)
def test_without_node_the_check_says_what_is_skipped_and_why(tmp_path: Path, has_node: bool, reason: str) -> None:
    folder, programs = tmp_path / "deploy/local/contract-check", tmp_path / "bin"
    shutil.copytree(FOLDER, folder)
    programs.mkdir()
    (programs / "dirname").symlink_to(shutil.which("dirname") or "")
    if has_node:
        (programs / "node").write_text("#!/bin/sh\necho v22\n")
        (programs / "node").chmod(0o755)
    command = ["/bin/sh", str(folder / "run")]
    done = subprocess.run(command, env={"PATH": str(programs)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert f"skipped: the check of the contract with Node, because {reason}" in done.stderr


def test_make_check_includes_the_check_with_node() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    assert "@./deploy/local/contract-check/run\n" in recipe
