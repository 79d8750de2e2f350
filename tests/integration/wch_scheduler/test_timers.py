"""Timers of other programs between a real broker, which checks who asks, and a real database."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from support.command import wch
from support.demo_events import ThingRequested, thing_queue
from support.scheduler_stage import SchedulerStage
from support.stage import Stage
from support.waiting import eventually
from wch_common.client import Client
from wch_common.contract.envelope import STRUCTURED
from wch_common.contract.event import Event, new_event
from wch_common.contract.message import Message
from wch_common.errors import InvalidData
from wch_common.events.carts import ReminderRequested
from wch_common.events.scheduler import TimedEvent, TimerCancelRequested, TimerRequested, TimersCancelRequested
from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform
from wch_common.settings import ServiceSettings
from wch_common.store.store import Transaction
from wch_scheduler import control, queries
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


def run(sc: SchedulerStage, *words: str, code: int = 0, **environment: str) -> str:
    return wch(sc.stage, "timers", *words, code=code, WCH_DATABASE_URL=sc.database_url, **environment)


def test_a_timer_is_published_at_its_time_as_requested(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    due = datetime.now(UTC) + timedelta(seconds=1.5)
    request = client.schedule(cart(), key="k1", at=due, group="carts")
    assert datetime.fromisoformat(sc.await_fact("accepted")["due"]) == due
    assert sc.facts("accepted")[0]["key"] == f"scheduler.timer.accepted.v1.{sc.user}"
    eventually(lambda: len(sc.published()) == 1)
    (published,) = sc.published()
    assert (published["type"], published["data"]["cart_id"], published["requester"]) == (
        "carts.reminder.requested.v1",
        "c1",
        sc.user,
    )
    assert published["causationid"] == request
    ((late,),) = sc.query("SELECT ended_at >= due_at FROM timers")
    assert late
    assert state(sc, "k1") == "fired"


def test_a_timer_due_in_the_past_is_published_at_once_and_once(sc: SchedulerStage, client: Client) -> None:
    for _ in range(2):
        sc.start()
    for number in range(20):
        client.schedule(cart(number), key=f"k{number}", at=datetime.now(UTC) - timedelta(hours=number))
    eventually(lambda: len(sc.published()) >= 20)
    eventually(lambda: sc.query("SELECT 1 FROM outbox") == [])
    assert Counter(event["data"]["cart_id"] for event in sc.published()) == {f"c{number}": 1 for number in range(20)}


def test_a_repeated_request_replaces_the_timer_unless_it_was_published(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    client.schedule(cart(1), key="k", after=FAR)
    sc.await_fact("accepted")
    client.schedule(cart(2), key="k", after=timedelta(0))
    sc.await_fact("replaced")
    eventually(lambda: [event["data"]["cart_id"] for event in sc.published()] == ["c2"])
    client.schedule(cart(3), key="k", after=timedelta(0))
    sc.await_fact("too_late")
    client.cancel(key="k")
    sc.await_fact("too_late", 2)
    assert len(sc.published()) == 1


def test_a_timer_and_a_group_are_cancelled(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    for number in range(4):
        client.schedule(cart(number), key=f"k{number}", after=FAR, group="a" if number < 3 else "b")
    sc.await_fact("accepted", 4)
    client.cancel(key="k0")
    assert sc.await_fact("cancelled") == {"key": "k0", "group": None, "timers": 1}
    client.cancel(group="a")
    assert sc.await_fact("cancelled", 2) == {"key": None, "group": "a", "timers": 2}
    client.cancel(group="unknown")
    assert sc.await_fact("cancelled", 3) == {"key": None, "group": "unknown", "timers": 0}
    assert [state(sc, f"k{number}") for number in range(4)] == ["cancelled"] * 3 + ["waiting"]
    client.schedule(cart(0), key="k0", after=FAR)
    sc.await_fact("accepted", 5)
    assert state(sc, "k0") == "waiting", "it may be asked for anew"


def test_an_overtaken_request_changes_nothing(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    earlier, now = datetime.now(UTC) - timedelta(seconds=5), datetime.now(UTC)
    wanted = TimedEvent(type="carts.reminder.requested.v1", data={"cart_id": "c1"})
    request = TimerRequested(key="k", due=now + FAR, event=wanted)

    def at(timestamp: datetime, data: Any) -> Any:
        return replace(new_event(data, "/tests"), time=timestamp)

    client.publish(at(now, TimerCancelRequested(key="k")))
    sc.await_fact("cancelled")
    client.publish(at(earlier, request))
    sc.await_fact("cancelled", 2)
    assert state(sc, "k") == "cancelled", "its request came after it was taken back"
    client.publish(at(now + timedelta(seconds=1), request))
    sc.await_fact("accepted")
    client.publish(at(earlier, TimerCancelRequested(key="k")))
    sc.await_fact("accepted", 2)
    assert state(sc, "k") == "waiting"


def test_a_clock_that_is_a_little_ahead_keeps_the_order_and_one_far_ahead_locks_nothing(
    sc: SchedulerStage, client: Client
) -> None:
    sc.start()
    now = datetime.now(UTC)
    wanted = TimedEvent(type="carts.reminder.requested.v1", data={"cart_id": "c1"})

    def ask(key: str, days: int, ahead: timedelta) -> None:
        request = TimerRequested(key=key, due=now + timedelta(days=days), event=wanted)
        client.publish(replace(new_event(request, "/tests"), time=now + ahead))

    ask("k", 2, timedelta(seconds=11))
    sc.await_fact("accepted")
    ask("k", 1, timedelta(seconds=10))  # made before, and overtaken
    assert sc.await_fact("accepted", 2)["due"].startswith(f"{now + timedelta(days=2):%Y-%m-%d}")
    ask("far", 1, timedelta(days=400))
    sc.await_fact("accepted", 3)
    ((ahead,),) = sc.query("SELECT requested_at - now() < interval '1 minute' FROM timers WHERE key = 'far'")
    assert ahead


def test_a_timer_requested_before_its_group_was_cancelled_is_not_accepted(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    now = datetime.now(UTC)
    wanted = TimedEvent(type="carts.reminder.requested.v1", data={"cart_id": "c1"})
    request = TimerRequested(key="k", due=now, event=wanted, group="g")
    client.publish(replace(new_event(TimerCancelRequested(group="g"), "/tests"), time=now))
    assert sc.await_fact("cancelled") == {"key": None, "group": "g", "timers": 0}
    client.publish(replace(new_event(request, "/tests"), time=now - timedelta(seconds=5)))
    assert sc.await_fact("cancelled", 2) == {"key": "k", "group": None, "timers": 1}
    client.publish(request)
    sc.await_fact("accepted")
    eventually(lambda: len(sc.published()) == 1)


def test_a_group_belongs_to_its_requester_and_later_timers_stay(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    client.schedule(cart(1), key="mine", after=FAR, group="g")
    client.schedule(cart(2), key="anothers", after=FAR, group="g")
    client.schedule(cart(3), key="later", after=FAR, group="g")
    sc.await_fact("accepted", 3)
    sc.query("UPDATE timers SET requester = 'another' WHERE key = 'anothers'")
    sc.query("UPDATE timers SET requested_at = now() + interval '1 hour' WHERE key = 'later'")
    client.cancel(group="g")
    assert sc.await_fact("cancelled") == {"key": None, "group": "g", "timers": 1}
    assert [state(sc, key) for key in ("mine", "anothers", "later")] == ["cancelled", "waiting", "waiting"]


def test_a_large_group_is_cancelled_with_one_answer(sc: SchedulerStage, client: Client) -> None:
    sc.start().stop()
    sc.query(MANY, sc.user, "far", FAR, 20_000, timedelta(0))
    sc.query("UPDATE timers SET group_name = 'g'")
    sc.start()
    client.cancel(group="g")
    assert sc.await_fact("cancelled") == {"key": None, "group": "g", "timers": 20_000}
    assert len(sc.facts("cancelled")) == 1


def test_a_key_that_is_reused_after_its_deletion_makes_another_event(sc: SchedulerStage, client: Client) -> None:
    sc.start()

    def are_published(number: int) -> bool:
        return len(sc.published()) == number

    for number in (1, 2):
        client.schedule(cart(number), key="monthly", after=timedelta(0))
        eventually(partial(are_published, number))
        sc.query("DELETE FROM timers")
    assert len({event["id"] for event in sc.published()}) == 2


def test_an_ancient_due_time_is_due_at_once_and_delays_no_other(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    client.schedule(cart(1), key="zero", at=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))))
    client.schedule(cart(2), key="good", after=timedelta(0))
    eventually(lambda: len(sc.published()) == 2)


def test_a_timer_that_is_replaced_while_it_is_released_is_not_published_before_its_new_time(sc: SchedulerStage) -> None:
    sc.start().stop()
    sc.query(MANY, "busy", "c", timedelta(0), 1, timedelta(0))
    with psycopg.connect(sc.database_url, options="-c search_path=scheduler") as requester:
        # The release has seen it as due and waits for the row (it skips locked ones; so the row is locked by a look of its own).
        requester.execute("UPDATE timers SET due_at = now() + interval '30 days'")
        statement = queries.TIMERS_RELEASE.replace("FOR UPDATE SKIP LOCKED", "FOR UPDATE")
        with (
            psycopg.connect(sc.database_url, options="-c search_path=scheduler", autocommit=True) as releaser,
            ThreadPoolExecutor() as pool,
        ):
            names = {"limit": 10, "types": ["carts.reminder.requested.v1"]}
            released = pool.submit(lambda: releaser.execute(statement, names).fetchall())
            waiting = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
            eventually(lambda: sc.query(waiting, releaser.info.backend_pid))
            requester.commit()
            assert released.result(30) == []


# -- who asks


def test_no_program_can_request_in_the_name_of_another(sc: SchedulerStage, client: Client) -> None:
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
    (dead_letter,) = sc.stage.await_dead_letters("scheduler.timer.dlq")
    assert "the request is not signed" in str(dead_letter.message.headers["wch-error-message"])
    assert "wch-user" not in dead_letter.message.headers
    assert sc.await_fact("refused")["key"] == "k"
    assert sc.facts("refused")[0]["key"] == "scheduler.timer.refused.v1", (
        "nobody is answered in a name that nobody checked"
    )
    assert sc.published() == []


def test_a_refusal_is_reported_to_the_signer_and_not_to_the_requester_in_the_envelope(
    sc: SchedulerStage, client: Client
) -> None:
    sc.start(scheduler_requesters={"another": ["carts.*"]})
    client.publish(TimerCancelRequested(group="g"), requester="another")
    assert "has no permission to use timers" in sc.await_fact("refused")["reason"]
    (refusal,) = sc.facts("refused")
    assert (refusal["key"], refusal["data"]["group"]) == (f"scheduler.timer.refused.v1.{sc.user}", "g")


def test_the_signer_is_known_after_a_retry_and_after_a_replay(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    sc.query("ALTER TABLE timers RENAME TO hidden")
    client.schedule(cart(), key="k", after=timedelta(0))
    (dead_letter,) = sc.stage.await_dead_letters("scheduler.timer.dlq")
    assert dead_letter.message.headers["wch-user"] == sc.user
    assert dead_letter.message.headers["wch-attempt"] == 4, "it came by its delay queue three times"
    sc.query("ALTER TABLE hidden RENAME TO timers")
    wch(sc.stage, "dlq", "replay", "scheduler.timer.dlq", "--all")
    eventually(lambda: [event["requester"] for event in sc.published()] == [sc.user])


@pytest.mark.parametrize(
    ("event", "due", "refusal"),
    [
        ({"type": "sync.product.requested.v1", "data": {"product_id": 1}}, FAR, "has no permission to schedule sync.product.requested.v1"),
        ({"type": "carts.reminder.wanted.v1"}, FAR, "does not know the type"),
        ({"type": "carts.cleanup.completed.v1", "data": {}}, FAR, "is a fact"),
        ({"type": "carts.reminder.requested.v1", "data": {}}, FAR, "data.event.data.cart_id: is missing"),
        ({"type": "carts.cleanup.requested.v1"}, LONGEST + timedelta(days=1), "at most ten years ahead"),
        ({"type": "carts.cleanup.requested.v1", "shop": "nowhere"}, FAR, "the shop 'nowhere' is not configured here"),
    ],
)  # fmt: skip
def test_events_that_may_not_or_cannot_be_scheduled_are_refused_with_the_reason(
    sc: SchedulerStage, client: Client, event: dict[str, Any], due: timedelta, refusal: str
) -> None:
    sc.start()
    client.publish(TimerRequested(key="k", due=datetime.now(UTC) + due, event=TimedEvent(**event)))
    assert refusal in sc.await_fact("refused")["reason"]
    assert sc.facts("refused")[0]["key"] == f"scheduler.timer.refused.v1.{sc.user}"
    assert sc.query("SELECT 1 FROM timers") == []


@pytest.mark.parametrize("at_once", [True, False], ids=["after the commit", "by the sweep"])
def test_a_service_requests_timers_through_its_outbox(sc: SchedulerStage, at_once: bool) -> None:
    sc.start()
    request = TimerRequested(
        key="k",
        due=datetime.now(UTC),
        event=TimedEvent(type="carts.reminder.requested.v1", data={"cart_id": "c1"}),
    )

    async def handle(event: Event[ThingRequested], tx: Transaction) -> None:
        tx.emit(event.derive(request, "/wch/demo"), due=None if at_once else datetime.now(UTC))

    async def compose(platform: Platform[ServiceSettings]) -> Sequence[Job]:
        store = await platform.open_store(sc.database_url)
        return [Job.in_transaction(thing_queue(), {ThingRequested: handle}, store)]

    sc.stage.start(compose)
    with sc.stage.client() as client:
        client.publish(ThingRequested(number=1))
    sc.await_fact("accepted")
    assert sc.facts("accepted")[0]["key"] == f"scheduler.timer.accepted.v1.{sc.user}"
    eventually(lambda: len(sc.published()) == 1)


# -- release


def test_many_at_once_are_released_at_the_rate_in_order_and_fairly(sc: SchedulerStage) -> None:
    service = sc.start()
    service.stop()
    # Who has few has the later ones, so that in the order of time alone they would be the last.
    for requester, ago, many in (("busy", timedelta(hours=1), 600), ("quiet", timedelta(minutes=30), 20)):
        sc.query(MANY, requester, requester, -ago, many, timedelta(seconds=1))
    sc.query("ANALYZE timers")
    for _ in range(2):
        sc.start(scheduler_timers_per_second=200)
    eventually(lambda: len(sc.published()) == 620)
    assert len({event["id"] for event in sc.published()}) == 620
    ((seconds, most),) = sc.query("""
    SELECT extract(epoch FROM max(ended_at) - min(ended_at))::float8,
           (SELECT max(n) FROM (SELECT count(*) AS n FROM timers GROUP BY date_trunc('second', ended_at)) AS each) FROM timers""")
    assert seconds >= 620 / 200 - 0.5
    assert most <= 200 * 1.2 + 1, "no second sees more than the rate and its burst"
    ((quiet_last, busy_last),) = sc.query(
        "SELECT max(ended_at) FILTER (WHERE requester = 'quiet'), max(ended_at) FILTER (WHERE requester = 'busy') FROM timers"
    )
    assert quiet_last < busy_last - timedelta(seconds=1), "who has few waits for few"
    for requester in ("busy", "quiet"):
        rows = sc.query("SELECT ended_at FROM timers WHERE requester = %s ORDER BY due_at", requester)
        assert rows == sorted(rows), "in the order of their times"


def test_timers_released_together_are_published_in_the_order_of_time(sc: SchedulerStage) -> None:
    service = sc.start()
    service.stop()
    # The later they were asked for, the earlier they are due.
    sc.query(MANY, "busy", "c", -timedelta(hours=1), 50, -timedelta(seconds=1))
    sc.start()
    eventually(lambda: len(sc.published()) == 50)
    ((releases,),) = sc.query("SELECT count(DISTINCT ended_at) FROM timers")
    assert releases == 1
    assert [event["data"]["cart_id"] for event in sc.published()] == [f"c{n}" for n in range(50, 0, -1)]


MANY = """
WITH wanted AS (SELECT %s::text AS requester, %s::text AS name, %s::interval AS first, %s::int AS many, %s::interval AS step)
INSERT INTO timers (id, requester, key, due_at, event, state, requested_at)
SELECT gen_random_uuid(), requester, 'k' || n, now() + first + n * step,
       jsonb_build_object('type', 'carts.reminder.requested.v1', 'data', jsonb_build_object('cart_id', name || n), 'shop', null),
       'waiting', now() FROM wanted, generate_series(1, many) AS n
"""


def test_a_timer_of_a_removed_type_is_refused_and_delays_no_other(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    client.schedule(cart(1), key="wrong", after=FAR)
    sc.await_fact("accepted")
    sc.query("""UPDATE timers SET event = jsonb_set(event, '{type}', '"carts.gone.requested.v1"'), due_at = now()""")
    client.schedule(cart(2), key="good", after=timedelta(0))
    eventually(lambda: [event["data"]["cart_id"] for event in sc.published()] == ["c2"])
    assert (state(sc, "wrong"), state(sc, "good")) == ("waiting", "fired"), "a newer replica may know the type"
    sc.query("UPDATE timers SET due_at = now() - interval '61 minutes' WHERE key = 'wrong'")
    assert sc.await_fact("refused")["key"] == "wrong"
    assert sc.facts("refused")[0]["key"] == f"scheduler.timer.refused.v1.{sc.user}"
    assert state(sc, "wrong") == "refused"


def test_a_slow_rate_and_a_clock_that_was_set_back_stop_nothing(sc: SchedulerStage, client: Client) -> None:
    # A third of a second is no number of binary digits.
    sc.start(scheduler_timers_per_second=3)
    sc.query("UPDATE pace SET released_until = now() + interval '1 hour'")
    for number in range(3):
        client.schedule(cart(number), key=f"k{number}", after=timedelta(0))
    eventually(lambda: len(sc.published()) == 3)


def test_a_timer_that_is_cancelled_when_it_is_due_is_either_cancelled_or_fired(
    sc: SchedulerStage, client: Client
) -> None:
    sc.start()
    ended: Counter[str] = Counter()
    # From a tenth of a second to half a minute: some are due before the machine has cancelled all, and some are not.
    leads = [timedelta(seconds=0.1 * 1.35**number) for number in range(20)]

    def some_of_either() -> bool:
        first, now = ended.total(), datetime.now(UTC)
        keys = [f"k{first + number}" for number in range(len(leads))]
        for number, key in enumerate(keys):
            client.schedule(cart(first + number), key=key, at=now + leads[number])
        for key in keys:
            client.cancel(key=key)
        eventually(lambda: sc.query("SELECT count(*) FROM timers WHERE state = 'waiting'") == [(0,)])
        ended.update(state(sc, key) for key in keys)
        return ended["fired"] > 0 and ended["cancelled"] > 0

    eventually(some_of_either)
    fired = {f"c{number}" for number in range(ended.total()) if state(sc, f"k{number}") == "fired"}
    eventually(lambda: {event["data"]["cart_id"] for event in sc.published()} == fired)
    sc.await_fact("cancelled", ended["cancelled"])
    sc.await_fact("too_late", ended["fired"])


def test_an_operator_lists_shows_counts_and_cancels(sc: SchedulerStage, client: Client) -> None:
    sc.start()
    for number in range(3):
        client.schedule(cart(number), key=f"k{number}", after=FAR, group="a" if number else "")
    sc.await_fact("accepted", 3)
    assert run(sc, "list", "--group", "a").count("carts.reminder.requested.v1") == 2
    shown = run(sc, "show", "k1")
    assert sc.user in shown
    assert "cart_id" not in shown
    assert "there is no timer nothing" in run(sc, "show", "nothing", code=1)
    assert "select timers with" in run(sc, "cancel", code=1)
    assert "would cancel 2 timers" in run(sc, "cancel", "--group", "a", "--dry-run")
    assert "cancelled 2 timers" in run(sc, "cancel", "--group", "a", "--reason", "sold out")
    answer = sc.await_answer("timers.cancelled")
    assert (answer["timers"], answer["reason"]) == (2, "sold out")
    sc.await_fact("cancelled", 2)
    assert {(fact["key"], fact["data"]["key"]) for fact in sc.facts("cancelled")} == {
        (f"scheduler.timer.cancelled.v1.{sc.user}", key) for key in ("k1", "k2")
    }, "the requester is notified of each"
    assert "cancelled" in run(sc, "stats")
    assert "no waiting timer matches" in run(sc, "cancel", "--group", "a", code=1)
    client.cancel(key="never")
    assert sc.await_fact("cancelled", 3) == {"key": "never", "group": None, "timers": 0}
    client.schedule(cart(3), key="k3", after=FAR / 2)
    client.schedule(cart(4), key="k4", after=-FAR)
    sc.await_fact("accepted", 5)
    eventually(lambda: state(sc, "k4") == "fired")
    listed = [row["key"] for row in json.loads(run(sc, "list", "--json"))]
    assert listed[:3] == ["k3", "k0", "k4"], "those that wait, the next first, and then the latest"
    assert sorted(listed) == [f"k{number}" for number in range(5)]
    assert [state(sc, f"k{number}") for number in range(3)] == ["waiting", "cancelled", "cancelled"]


def test_a_long_key_is_shown_whole_in_one_line_in_a_pipe_and_folded_in_a_terminal(
    sc: SchedulerStage, client: Client
) -> None:
    sc.start()
    client.schedule(cart(), key="k" * 190, after=FAR)
    sc.await_fact("accepted")
    assert "k" * 190 in run(sc, "show", "k" * 190, COLUMNS="")
    assert run(sc, "show", "k" * 190, COLUMNS="80").count("k") == 190 + "requester key".count("k")


def test_the_command_ends_once_every_step_of_a_cancellation_is_done(
    sc: SchedulerStage, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    in_steps = control.cancel_timers

    async def cancel_timers(event: Event[TimersCancelRequested], tx: Transaction) -> None:
        while event.data.cancelled_before and not go_on.is_set():
            await asyncio.sleep(0.01)
        await in_steps(event, tx)

    monkeypatch.setattr(control, "CANCEL_LIMIT", 2)
    monkeypatch.setattr(control, "cancel_timers", cancel_timers)
    sc.start()
    for number in range(5):
        client.schedule(cart(number), key=f"k{number}", after=FAR, group="a")
    sc.await_fact("accepted", 5)
    with ThreadPoolExecutor(1) as pool:
        command = pool.submit(run, sc, "cancel", "--group", "a")

        def counts_the_waiting() -> bool:
            """Whether the command has counted the waiting timers again since its request was handled."""
            counting = sc.query(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%AS timers FROM timers%'"
                " AND query_start > (SELECT max(handled_at) FROM inbox WHERE source = '/wch/operator')"
            )
            return command.done() or bool(counting)

        eventually(counts_the_waiting)
        assert not command.done(), "three timers are waiting"
        go_on.set()
        assert "cancelled 5 timers" in command.result(60)
    assert sc.query("SELECT DISTINCT state FROM timers") == [("cancelled",)]


def test_a_key_belongs_to_its_requester() -> None:
    assert timer_id("a", "b") != timer_id("a\nb", "")
    assert timer_id("a", "k") != timer_id("b", "k")


def test_the_client_requires_a_time(client: Client) -> None:
    with pytest.raises(ValueError, match="exactly one of at and after"):
        client.schedule(cart(), key="k")
    with pytest.raises(InvalidData, match="exactly one of key and group"):
        client.cancel()
    with pytest.raises(InvalidData, match=r"data\.due"):
        client.schedule(cart(), key="k", at=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the mistake
    with pytest.raises(InvalidData, match=r"data\.key"):
        client.schedule(cart(), key="", after=FAR)


def test_an_operator_cancels_more_timers_than_one_step_takes(
    sc: SchedulerStage, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CANCEL_LIMIT", 20)
    sc.start()
    sc.query(MANY, "busy", "c", timedelta(days=1), 50, timedelta(0))
    sc.query(MANY, "other", "o", timedelta(days=1), 5, timedelta(0))
    client.publish(TimersCancelRequested(of_requester="busy", by="ada"))
    assert sc.await_answer("timers.cancelled") == {"timers": 50, "by": "ada", "reason": ""}
    sc.await_fact("cancelled", 50)
    assert {fact["key"] for fact in sc.facts("cancelled")} == {"scheduler.timer.cancelled.v1.busy"}
    assert sc.query("SELECT requester, state, count(*) FROM timers GROUP BY 1, 2 ORDER BY 1") == [
        ("busy", "cancelled", 50),
        ("other", "waiting", 5),
    ]
