"""A campaign that begins to wait while what it waits for happens, in a transaction that has not ended yet, is woken all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from support.broadcast_stage import BroadcastStage, campaign, part
from support.waiting import eventually
from wch_common.events.broadcast import CampaignResumeRequested

_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE %s
"""


@contextmanager
def held_facts(bc: BroadcastStage) -> Iterator[None]:
    """Let no transaction end that publishes something."""
    with psycopg.connect(bc.database_url, options="-c search_path=broadcast") as connection:
        connection.execute("LOCK TABLE outbox IN SHARE MODE")
        yield


def waits(bc: BroadcastStage, statement: str) -> bool:
    return bc.query(_WAITING, f"%{statement}%") == [(1,)]


def begins_to_wait(bc: BroadcastStage, name: str) -> None:
    """Wait until a campaign is stored, or waits to see what happens."""
    eventually(lambda: bc.state(name)[0] == "waiting" or waits(bc, "pg_advisory_xact_lock"))


def test_its_turn_comes_meanwhile(bc: BroadcastStage) -> None:
    bc.start()
    bc.publish(campaign("first", range(1)))
    (batch,) = bc.await_batches(1)
    with held_facts(bc):
        bc.answer(batch)
        eventually(lambda: waits(bc, "INSERT INTO outbox"), "the first ends")
        bc.publish(campaign("second", range(10, 12)))
        begins_to_wait(bc, "second")
    assert bc.await_batches(2)[1]["batch_id"] == "second/1"


@pytest.mark.parametrize("parts", [1, 2])
def test_its_list_is_completed_meanwhile(bc: BroadcastStage, parts: int) -> None:
    bc.start()
    if parts == 2:
        bc.publish(part("list", 1, range(2)))
        eventually(lambda: bc.query("SELECT submitted FROM lists") == [(2,)])
    with held_facts(bc):
        bc.publish(part("list", parts, range(10, 12), parts=parts))
        eventually(lambda: waits(bc, "INSERT INTO outbox"), "the list is completed")
        bc.publish(campaign("c", None, list_id="list"))
        begins_to_wait(bc, "c")
    assert bc.await_batches(1)[0]["batch_id"] == "c/1"


@pytest.mark.parametrize("again", [True, False], ids=["requested again", "resumed"])
def test_its_turn_comes_while_a_request_that_changes_nothing_has_locked_it(bc: BroadcastStage, *, again: bool) -> None:
    bc.start()
    second = campaign("second", range(10, 12))
    bc.publish(campaign("first", range(1)))
    (batch,) = bc.await_batches(1)
    bc.publish(second)
    eventually(lambda: bc.state("second") == ("waiting", "another_campaign"))
    with psycopg.connect(bc.database_url, options="-c search_path=broadcast") as connection:
        connection.execute("SELECT 1 FROM campaigns WHERE campaign_id = 'second' FOR UPDATE")
        bc.publish(second if again else CampaignResumeRequested(campaign_id="second", by="tests"))
        eventually(lambda: waits(bc, "FOR UPDATE OF c"), "the request waits for the lock")
        bc.answer(batch)
        eventually(lambda: bc.state("first")[0] == "completed")
    assert bc.await_batches(2)[1]["batch_id"] == "second/1"
