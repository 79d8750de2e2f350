"""The broadcast service's stage, as every test here needs it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from support.broadcast_stage import BroadcastStage
from support.stage import Stage
from wch_broadcast import steps


@pytest.fixture
def bc(stage: Stage, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BroadcastStage]:
    # What a campaign waits for wakes it; checking again after 30 s would hide that it did not.
    monkeypatch.setattr(steps, "_CHECK_AGAIN", timedelta(hours=1))
    yield BroadcastStage(stage, database_url)
    stage.stop()
