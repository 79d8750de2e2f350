"""The family that examples/new-family creates works, as its own tests show on a real broker and database."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import wch_common.events
from support.families import new_family
from support.stage import Stage
from wch_common.store.migrate import differences
from wch_common.store.personal_data import unmarked_columns

NAME = "anexample"


def loaded(path: Path) -> ModuleType:
    """Load a file of tests."""
    spec = importlib.util.spec_from_file_location(f"new_family_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout with a new family, which can be imported during the test."""
    new_family(tmp_path, NAME)
    monkeypatch.syspath_prepend(tmp_path / f"services/{NAME}/src")
    events = tmp_path / "libs/common/src/wch_common/events"
    monkeypatch.setattr(wch_common.events, "__path__", [*wch_common.events.__path__, str(events)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith((f"wch_{NAME}", f"wch_common.events.{NAME}")):
            del sys.modules[name]
    vars(wch_common.events).pop(NAME, None)


def test_the_tests_of_a_new_family_pass(family: Path, stage: Stage, empty_database_url: str) -> None:
    loaded(family / f"tests/unit/wch_{NAME}/test_events.py").test_a_negative_level_is_refused()
    levels = loaded(family / f"tests/integration/wch_{NAME}/test_levels.py")
    levels.test_a_level_is_stored_and_reported(stage, empty_database_url)
    migrations = importlib.import_module(f"wch_{NAME}.main").MIGRATIONS
    assert differences(empty_database_url, NAME, migrations) == []
    assert unmarked_columns(migrations[0].metadata) == []
