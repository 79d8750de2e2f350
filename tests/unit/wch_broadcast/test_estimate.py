"""The estimated duration of a campaign, and whom `stop_at` cuts off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from wch_broadcast.estimate import Pacing, estimate
from wch_broadcast.start_check import span

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("recipients", "size", "pause", "rate", "seconds"),
    [
        (1, 50, 1, 0, 0),
        (50, 50, 1, 50, 1),
        (51, 50, 5, 50, 5 + 1 / 50),
        (100, 50, 5, 0, 5),
        (500, 50, 1, 50, 10),
        (500, 50, 2, 50, 9 * 2 + 1),
        (500, 50, 0.5, 50, 10),
        (1000, 50, 0, 50, 20),
        (1000, 50, 0, 0, 0),
    ],
)
def test_the_slower_of_pause_and_rate_decides(
    recipients: int, size: int, pause: float, rate: float, seconds: float
) -> None:
    found = estimate(recipients, Pacing(size, pause, rate), NOW, None)
    assert found.seconds == pytest.approx(seconds)
    assert found.ends_at == NOW + timedelta(seconds=found.seconds)
    assert (found.batches, found.cut_off) == (-(-recipients // size), 0)


@pytest.mark.parametrize(
    ("stop_seconds", "size", "pause", "rate", "cut_off"),
    [
        (-5, 10, 1, 0, 100),
        (0, 10, 1, 0, 100),
        (0.5, 10, 1, 0, 90),
        (3, 10, 1, 0, 70),
        (3.5, 10, 1, 0, 60),
        (3.5, 10, 1, 10, 65),
        (9, 10, 1, 0, 0),
        (5, 10, 0, 10, 50),
        (100, 10, 1, 10, 0),
    ],
)
def test_the_recipients_after_stop_at_are_cut_off(
    stop_seconds: float, size: int, pause: float, rate: float, cut_off: int
) -> None:
    assert estimate(100, Pacing(size, pause, rate), NOW, NOW + timedelta(seconds=stop_seconds)).cut_off == cut_off


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "under 1 s"), (0.4, "under 1 s"), (59.6, "1 min"), (125, "2 min 5 s"), (3600, "1 h"), (90_061, "1 d 1 h")],
)
def test_a_span_has_two_units(seconds: float, text: str) -> None:
    assert span(seconds) == text
