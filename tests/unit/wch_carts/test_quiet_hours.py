"""Quiet hours in a shop's time zone."""

from __future__ import annotations

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from wch_carts.quiet_hours import QuietHours

BERLIN = ZoneInfo("Europe/Berlin")


def berlin(day: int, hour: int, minute: int = 0, month: int = 1) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("timestamp", "quiet"), [((1, 20, 59), False), ((1, 21), True), ((2, 3), True), ((2, 8, 59), True), ((2, 9), False)]
)
def test_quiet_hours_are_in_the_shops_time_zone_and_may_pass_midnight(timestamp: tuple[int, ...], quiet: bool) -> None:
    hours = QuietHours(time(21), time(9), BERLIN)
    assert hours.are_on(berlin(*timestamp).astimezone(UTC)) is quiet
    assert QuietHours(time(9), time(21), BERLIN).are_on(berlin(*timestamp)) is not quiet


def test_the_next_quiet_hours_begin_today_or_tomorrow_also_when_the_clocks_change() -> None:
    hours = QuietHours(time(21), time(9), BERLIN)
    assert hours.next_begin(berlin(1, 12)) == berlin(1, 21)
    assert hours.next_begin(berlin(1, 21)) == berlin(2, 21)
    # On 29 March 2026 the clocks change from 2 to 3 o'clock.
    night = QuietHours(time(2, 30), time(6), BERLIN)
    assert night.next_begin(berlin(28, 12, month=3)) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def test_equal_times_mean_no_quiet_hours() -> None:
    none = QuietHours(time(0), time(0), BERLIN)
    assert not none.are_on(berlin(1, 0))
    assert none.next_begin(berlin(1, 12)) is None
