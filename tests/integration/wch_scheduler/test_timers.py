"""Timers of other programs between a real broker, which checks who asks, and a real database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from support.command import wch
from support.scheduler_stage import SchedulerStage
from support.stage import Stage
from support.waiting import eventually
from wch_common.client import Client
from wch_common.envelope import STRUCTURED
from wch_common.event import new_event
from wch_common.events.carts import ReminderRequested
from wch_common.events.scheduler import TimedEvent, TimerCancelRequested, TimerRequested
from wch_common.message import Message
from wch_scheduler.timers import LONGEST, timer_id

FAR = timedelta(days=30)


@pytest.fixture
def sc(stage: Stage, database_url: str, tmp_path: Path) -> Iterator[SchedulerStage]:
    made = SchedulerStage(stage, database_url, tmp_path)
    made.write()
    yield made
    stage.stop()


@pytest.fixture
def client(sc: SchedulerStage) -> Iterator[Client]:
    with Client(sc.stage.url, "/tests") as made:
        yield made


def cart(number: int = 1) -> ReminderRequested:
    return ReminderRequested(cart_id=f"c{number}")


def state(sc: SchedulerStage, key: str) -> str:
    rows = sc.query("SELECT state FROM timers WHERE key = %s", key)
    return str(rows[0][0]) if rows else ""


def run(sc: SchedulerStage, *words: str, code: int = 0) -> str:
    return wch(sc.stage, "timers", *words, code=code, WCH_DATABASE_URL=sc.database_url)


def test_a_timer_is_published_at_its_time_as_its_asker_wants_it(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    due = datetime.now(UTC) + timedelta(seconds=1.5)
    request = client.schedule(cart(), key="k1", at=due, group="carts")
    assert datetime.fromisoformat(sc.await_told("accepted")["due"]) == due
    assert sc.told("accepted")[0]["key"] == f"scheduler.timer.accepted.v1.{sc.user}"
    eventually(lambda: len(sc.asked()) == 1)
    (published,) = sc.asked()
    assert (published["type"], published["data"]["cart_id"], published["asker"]) == (
        "carts.reminder.requested.v1",
        "c1",
        sc.user,
    )
    assert published["causationid"] == request
    ((late,),) = sc.query("SELECT ended_at >= due_at FROM timers")
    assert late
    assert state(sc, "k1") == "fired"


def test_what_is_due_in_the_past_is_published_at_once_and_once(sc: SchedulerStage, client: Client) -> None:
    for _ in range(2):
        sc.start()
    for number in range(20):
        client.schedule(cart(number), key=f"k{number}", at=datetime.now(UTC) - timedelta(hours=number))
    eventually(lambda: len(sc.asked()) >= 20)
    eventually(lambda: sc.query("SELECT 1 FROM outbox") == [])
    assert Counter(event["data"]["cart_id"] for event in sc.asked()) == {f"c{number}": 1 for number in range(20)}


def test_asking_again_replaces_unless_it_was_published(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    client.schedule(cart(1), key="k", after=FAR)
    sc.await_told("accepted")
    client.schedule(cart(2), key="k", after=timedelta(0))
    sc.await_told("replaced")
    eventually(lambda: [event["data"]["cart_id"] for event in sc.asked()] == ["c2"])
    client.schedule(cart(3), key="k", after=timedelta(0))
    sc.await_told("too_late")
    client.cancel(key="k")
    sc.await_told("too_late", 2)
    assert len(sc.asked()) == 1


def test_a_timer_and_a_group_are_taken_back(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    for number in range(4):
        client.schedule(cart(number), key=f"k{number}", after=FAR, group="a" if number < 3 else "b")
    sc.await_told("accepted", 4)
    client.cancel(key="k0")
    assert sc.await_told("cancelled") == {"key": "k0"}
    client.cancel(group="a")
    sc.await_told("cancelled", 3)
    assert {fact["data"]["key"] for fact in sc.told("cancelled")} == {"k0", "k1", "k2"}
    assert [state(sc, f"k{number}") for number in range(4)] == ["cancelled"] * 3 + ["waiting"]
    client.schedule(cart(0), key="k0", after=FAR)
    sc.await_told("accepted", 5)
    assert state(sc, "k0") == "waiting", "it may be asked for anew"


def test_what_was_overtaken_changes_nothing(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    earlier, now = datetime.now(UTC) - timedelta(seconds=5), datetime.now(UTC)
    wanted = TimedEvent(type="carts.reminder.requested.v1", data={"cart_id": "c1"})
    request = TimerRequested(key="k", due=now + FAR, event=wanted)

    def at(moment: datetime, data: Any) -> Any:
        return replace(new_event(data, "/tests"), time=moment)

    client.publish(at(now, TimerCancelRequested(key="k")))
    sc.await_told("cancelled")
    client.publish(at(earlier, request))
    sc.await_told("cancelled", 2)
    assert state(sc, "k") == "cancelled", "its request came after it was taken back"
    client.publish(at(now + timedelta(seconds=1), request))
    sc.await_told("accepted")
    client.publish(at(earlier, TimerCancelRequested(key="k")))
    sc.await_told("accepted", 2)
    assert state(sc, "k") == "waiting"


# -- who asks


def test_nobody_can_ask_in_anothers_name(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    event = new_event(
        TimerRequested(key="k", due=datetime.now(UTC), event=TimedEvent(type="carts.cleanup.requested.v1")), "/tests"
    )
    body = orjson.dumps({
        "specversion": "1.0", "id": event.id, "source": "/tests", "type": event.type,
        "data": event.data.model_dump(mode="json"),
    })  # fmt: skip
    forged = Message(body, STRUCTURED, None, event.id, {"wch-user": sc.user})
    sc.stage.send("wch.requests", event.type, forged)
    (letter,) = sc.stage.await_letters("scheduler.timer.dlq")
    assert "nobody signed the request" in str(letter.message.headers["wch-error-message"])
    assert "wch-user" not in letter.message.headers
    assert sc.await_told("refused")["key"] == "k"
    assert sc.asked() == []


def test_who_asks_is_known_after_a_retry_and_after_a_replay(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    sc.query("ALTER TABLE timers RENAME TO hidden")
    client.schedule(cart(), key="k", after=timedelta(0))
    (letter,) = sc.stage.await_letters("scheduler.timer.dlq")
    assert letter.message.headers["wch-user"] == sc.user
    assert letter.message.headers["wch-attempt"] == 4, "it came by its rung three times"
    sc.query("ALTER TABLE hidden RENAME TO timers")
    wch(sc.stage, "dlq", "replay", "scheduler.timer.dlq", "--all")
    eventually(lambda: [event["asker"] for event in sc.asked()] == [sc.user])


@pytest.mark.parametrize(
    ("event", "due", "told"),
    [
        ({"type": "sync.product.requested.v1", "data": {"product_id": 1}}, FAR, "may not schedule sync.product.requested.v1"),
        ({"type": "carts.reminder.wanted.v1"}, FAR, "is not a type this program knows"),
        ({"type": "carts.cleanup.completed.v1", "data": {}}, FAR, "is a fact"),
        ({"type": "carts.reminder.requested.v1", "data": {}}, FAR, "data.event.data.cart_id: Field required"),
        ({"type": "carts.cleanup.requested.v1"}, LONGEST + timedelta(days=1), "more than ten years ahead"),
        ({"type": "carts.cleanup.requested.v1", "shop": "nowhere"}, FAR, "the shop 'nowhere' is not configured here"),
    ],
)  # fmt: skip
def test_what_an_asker_may_not_have_or_nobody_can_is_refused_with_the_reason(
    sc: SchedulerStage, client: Client, event: dict[str, Any], due: timedelta, told: str
) -> None:
    sc.start()
    client.publish(TimerRequested(key="k", due=datetime.now(UTC) + due, event=TimedEvent(**event)))
    assert told in sc.await_told("refused")["reason"]
    assert sc.query("SELECT 1 FROM timers") == []


# -- release


def test_many_at_once_are_released_at_the_rate_in_order_and_fairly(sc: SchedulerStage) -> None:
    service = sc.start()
    service.stop()
    statement = """INSERT INTO timers (id, asker, key, due_at, event, state, asked_at)
    SELECT gen_random_uuid(), %s, 'k' || n, now() - interval '1 hour' + n * interval '1 second',
           jsonb_build_object('type', 'carts.reminder.requested.v1', 'data', jsonb_build_object('cart_id', %s || n), 'shop', null),
           'waiting', now() FROM generate_series(1, %s) AS n"""
    with psycopg.connect(sc.database_url, options="-c search_path=scheduler", autocommit=True) as connection:
        for asker, many in (("busy", 600), ("quiet", 20)):
            connection.execute(statement, (asker, asker, many))
        connection.execute("ANALYZE timers")
    for _ in range(2):
        sc.start(scheduler_timers_per_second=200)
    eventually(lambda: len(sc.asked()) == 620, seconds=60)
    assert len({event["id"] for event in sc.asked()}) == 620
    ((seconds, most),) = sc.query("""
    SELECT extract(epoch FROM max(ended_at) - min(ended_at))::float8,
           (SELECT max(n) FROM (SELECT count(*) AS n FROM timers GROUP BY date_trunc('second', ended_at)) AS each) FROM timers""")
    assert seconds >= 620 / 200 - 0.5
    assert most <= 200 * 1.2 + 1, "no second sees more than the rate and its burst"
    ((quiet_last, busy_last),) = sc.query(
        "SELECT max(ended_at) FILTER (WHERE asker = 'quiet'), max(ended_at) FILTER (WHERE asker = 'busy') FROM timers"
    )
    assert quiet_last < busy_last - timedelta(seconds=1), "who has few waits for few"
    for asker in ("busy", "quiet"):
        rows = sc.query("SELECT ended_at FROM timers WHERE asker = %s ORDER BY due_at", asker)
        assert rows == sorted(rows), "in the order of their times"


def test_one_that_is_no_event_any_more_is_told_and_holds_up_no_other(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    client.schedule(cart(1), key="wrong", after=FAR)
    sc.await_told("accepted")
    sc.query("""UPDATE timers SET event = jsonb_set(event, '{type}', '"carts.gone.requested.v1"'), due_at = now()""")
    client.schedule(cart(2), key="good", after=timedelta(0))
    assert sc.await_told("refused")["key"] == "wrong"
    eventually(lambda: [event["data"]["cart_id"] for event in sc.asked()] == ["c2"])
    assert (state(sc, "wrong"), state(sc, "good")) == ("refused", "fired")


def test_a_slow_rate_and_a_clock_that_was_set_back_stop_nothing(sc: SchedulerStage, client: Client) -> None:
    sc.start(scheduler_timers_per_second=2)
    sc.query("UPDATE pace SET released_until = now() + interval '1 hour'")
    for number in range(3):
        client.schedule(cart(number), key=f"k{number}", after=timedelta(0))
    eventually(lambda: len(sc.asked()) == 3)


def test_a_timer_that_is_taken_back_at_the_moment_it_is_due_is_one_or_the_other(
    sc: SchedulerStage, client: Client
) -> None:
    sc.start()
    for number in range(30):
        client.schedule(cart(number), key=f"k{number}", after=timedelta(milliseconds=300))
        client.cancel(key=f"k{number}")
    eventually(lambda: "waiting" not in {state(sc, f"k{number}") for number in range(30)})
    eventually(lambda: sc.query("SELECT 1 FROM outbox") == [])
    fired = {f"c{number}" for number in range(30) if state(sc, f"k{number}") == "fired"}
    eventually(lambda: {event["data"]["cart_id"] for event in sc.asked()} == fired)


def test_an_operator_lists_shows_counts_and_cancels(sc: SchedulerStage, client: Client) -> None:
    assert "no timers" in run(sc, "list", code=1)
    sc.start()
    for number in range(3):
        client.schedule(cart(number), key=f"k{number}", after=FAR, group="a" if number else "")
    sc.await_told("accepted", 3)
    assert run(sc, "list", "--group", "a").count("carts.reminder.requested.v1") == 2
    shown = run(sc, "show", "k1")
    assert sc.user in shown
    assert "cart_id" not in shown
    assert "there is no timer nothing" in run(sc, "show", "nothing", code=1)
    assert "say which timers" in run(sc, "cancel", code=1)
    assert "would cancel 2 timers" in run(sc, "cancel", "--group", "a", "--dry-run")
    assert "cancelled 2 timers" in run(sc, "cancel", "--group", "a")
    assert "cancelled" in run(sc, "stats")
    assert [state(sc, f"k{number}") for number in range(3)] == ["waiting", "cancelled", "cancelled"]


def test_a_key_is_one_askers_own() -> None:
    assert timer_id("a", "b") != timer_id("a\nb", "")
    assert timer_id("a", "k") != timer_id("b", "k")


def test_the_client_wants_a_time(client: Client) -> None:
    with pytest.raises(ValueError, match="either at or after"):
        client.schedule(cart(), key="k")
    with pytest.raises(ValueError, match="key or group"):
        client.cancel()
