"""`wch events` without a broker: examples that it prints, and data that it checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from wch_common.cli.app import app
from wch_common.cli.output import CommandError
from wch_common.contract import examples
from wch_common.contract.event import EventData
from wch_common.contract.examples import load_examples
from wch_common.events.scheduler import TimerRequested
from wch_common.events.shop import CartUpdated
from wch_common.events.whatsapp import MessageRequested

TYPE = MessageRequested.TYPE


def events(*words: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, ["events", *words], input=given)


@pytest.mark.parametrize("model", [MessageRequested, CartUpdated, TimerRequested], ids=lambda model: model.TYPE)
def test_an_example_is_an_event_that_check_accepts(model: type[EventData]) -> None:
    for number, data in enumerate(load_examples(model), 1):
        printed = events("example", model.TYPE, "--number", str(number))
        assert json.loads(printed.output)["data"] == data
        assert events("check", "-", given=printed.output).output.startswith(f"ok: {model.TYPE} ")


def test_the_first_example_is_printed_unless_a_number_is_given() -> None:
    assert events("example", TYPE).output == events("example", TYPE, "--number", "1").output


def test_a_number_without_an_example_is_refused_with_the_numbers_there_are() -> None:
    error = events("example", TYPE, "--number", "99").exception
    assert isinstance(error, CommandError)
    assert str(error) == f"{TYPE} has no example 99: give a number from 1 to {len(load_examples(MessageRequested))}"


def test_a_schema_shows_its_examples() -> None:
    assert json.loads(events("schemas", TYPE).output)["examples"] == load_examples(MessageRequested)


def test_the_data_of_an_example_can_be_published() -> None:
    data = events("example", TYPE, "--data").output
    assert json.loads(data) == load_examples(MessageRequested)[0]
    published = events("publish", TYPE, "-", "--dry-run", "--amqp-url", "amqp://broker/wch", given=data)
    assert published.output.startswith(f"would publish {TYPE} ")


def test_an_example_that_does_not_match_is_named_with_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "wrong.json"
    file.write_text('[{"colour": "blue"}]')
    monkeypatch.setattr(examples, "_file", lambda _model: file)
    error = events("schemas", "--write", str(tmp_path)).exception
    assert isinstance(error, CommandError)
    assert str(error).startswith(f"example 1 in {file} does not match the model:\n")


def test_publish_refuses_unknown_fields_of_parts_too() -> None:
    data = load_examples(MessageRequested)[0]
    wrong = json.dumps(data | {"message": data["message"] | {"colour": "blue"}})
    error = events("publish", TYPE, wrong, "--dry-run", "--amqp-url", "amqp://broker/wch").exception
    assert isinstance(error, CommandError)
    assert "data.message.template.colour: is not a field here" in str(error)
    assert (
        "would publish"
        in events("publish", TYPE, json.dumps(data), "--dry-run", "--amqp-url", "amqp://broker/wch").output
    )
