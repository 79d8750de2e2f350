"""The carts service's stage, as every test here needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.carts_stage import CartsStage
from support.stage import Stage
from wch_carts import cleanup


@pytest.fixture
def ct(stage: Stage, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[CartsStage]:
    monkeypatch.setattr(cleanup, "CHUNK", 3)
    yield CartsStage(stage, database_url)
    stage.stop()
