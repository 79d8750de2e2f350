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
    # A campaign whose turn comes is woken; checking again after 30 s would hide that it was not.
    for pause in ("_CHECK_SOON", "_CHECK_AGAIN"):
        monkeypatch.setattr(steps, pause, timedelta(hours=1))
    yield BroadcastStage(stage, database_url)
    stage.stop()
