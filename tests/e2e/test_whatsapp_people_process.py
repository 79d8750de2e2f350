"""Messages to numbers, ids and both, while Meta links them, people write STOP, and the process is killed at random."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.process import Program
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import HASH_KEY, WhatsAppStage, message, phone, wrote
from wch_common.events.recipient import Recipient
from wch_common.events.whatsapp import MessageRequested
from wch_common.integrations.recipients import PersonHash
from wch_whatsapp.queries_people import all_ids, holding

FULL = os.environ.get("WCH_TEST_SCALE") == "full"
PEOPLE, KILLS = (2_500, 20) if FULL else (90, 3)
"""Each person is sent four messages."""
FINAL = {"accepted", "unknown", "suppressed"}
HASH = PersonHash(HASH_KEY)
NAMES_OF_ID = all_ids("its.id", "''")
SUPPRESSED = f"""
SELECT count(*) FROM unnest(%(ids)s::bytea[]) AS its (id)
WHERE EXISTS (SELECT 1 {holding("''", "'marketing'", f"ARRAY({NAMES_OF_ID})")})
"""


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def user(number: int) -> str:
    return f"US.{1555010000000000 + number}"


def requests(number: int, when: str) -> list[MessageRequested]:
    """Return a message to a person by number or id, and one that gives both."""
    one: Any = user(number) if number % 2 else phone(number)
    both = Recipient(phone=phone(number), user_id=user(number))
    return [message(number, to=to, send_key=f"{when}-{place}-{number}") for place, to in enumerate((one, both))]


def said(number: int, chance: random.Random) -> list[Any]:
    """Return that a person wrote under both names, and a STOP of theirs under one of them, in any order."""
    digits = phone(number).removeprefix("+")
    stop: dict[str, Any] = chance.choice(({"user_id": user(number), "sender": None}, {"sender": digits}))
    facts = [wrote(number, "Hi", user_id=user(number)), wrote(number, "STOP", **stop)]
    chance.shuffle(facts)
    return facts


def all_suppressed(wa: WhatsAppStage, people: Sequence[int]) -> bool:
    ids = [HASH.of(name) for number in people for name in (phone(number), user(number))]
    with psycopg.connect(wa.database_url, options="-csearch_path=whatsapp") as connection:
        found = connection.execute(SUPPRESSED.encode(), {"ids": ids}).fetchone()
    return found == (len(ids),)


def unclaimed(wa: WhatsAppStage) -> list[str]:
    """Return the keys of messages that no claim has taken; the lock waits for one that is going on."""
    with psycopg.connect(wa.database_url, options="-csearch_path=whatsapp") as connection:
        connection.execute("SELECT 1 FROM numbers FOR UPDATE")
        return [key for (key,) in connection.execute("SELECT send_key FROM messages WHERE state = 'queued'")]


def number_of(key: str) -> int:
    return int(key.rpartition("-")[2])


@pytest.mark.scale
def test_nobody_is_written_to_twice_or_after_their_stop_whatever_happens(wa: WhatsAppStage, tmp_path: Path) -> None:
    chance = random.Random(11)
    wa.graph.latency_seconds = 0.02
    stoppers = [number for number in range(PEOPLE) if number % 3 == 0]
    waiting: set[str] = set()
    for kill in range(KILLS):
        group = stoppers[kill::KILLS]
        turn = [number for number in range(PEOPLE) if number % KILLS == kill]
        events: list[Any] = [one for number in turn for one in requests(number, "early")]
        events += [fact for number in group for fact in said(number, chance)]
        chance.shuffle(events)
        with start(wa, tmp_path / "log") as program:
            wa.publish(*events)
            wanted = len(wa.graph.sent) + chance.randrange(1, len(turn))
            eventually(lambda wanted=wanted: len(wa.graph.sent) >= wanted or nothing_waits(wa))  # type: ignore[misc]
            program.kill()
        with start(wa, tmp_path / "log") as program:
            eventually(lambda group=group: all_suppressed(wa, group), "every STOP is stored")  # type: ignore[misc]
            waiting |= {key for key in unclaimed(wa) if number_of(key) in group}
            late = [one for number in turn for one in requests(number, "late")]
            waiting |= {one.send_key for one in late if number_of(one.send_key) in group}
            wa.publish(*late)
            program.kill()
    with start(wa, tmp_path / "log") as program:
        eventually(lambda: len(wa.states()) == 4 * PEOPLE and nothing_waits(wa))
        wa.query("UPDATE messages SET due_at = now() WHERE state = 'sending' RETURNING 1")
        eventually(lambda: not {"sending", "queued"} & set(wa.states().values()))
        wa.query("UPDATE messages SET due_at = now() WHERE state = 'in_doubt' RETURNING 1")
        eventually(lambda: set(wa.states().values()) <= FINAL)
        assert program.terminate() == 0
    check(wa, waiting)
    print(f"{4 * PEOPLE} messages, {2 * KILLS} kills: {dict(Counter(wa.states().values()))}")


def check(wa: WhatsAppStage, waiting: set[str]) -> None:
    """Check what was sent, and that the messages `waiting`, to people who had written STOP, were not."""
    keys = dict(wa.query("SELECT id::text, send_key FROM messages"))
    sent = {keys[body["biz_opaque_callback_data"].split(":")[1]]: body for body in wa.sent}
    assert len(sent) == len(wa.sent), "no message is sent twice"
    assert waiting, "somebody was to be written to after their STOP"
    assert set(sent) & waiting == set(), "nobody is written to after their STOP is stored"
    for key, body in sent.items():
        names = (phone(number_of(key)), None), (None, user(number_of(key)))
        assert (body.get("to"), body.get("recipient")) in names
    states = wa.states()
    assert {states[key] for key in waiting} == {"suppressed"}
    assert {states[key] for key in sent} <= {"accepted", "unknown"}
    assert {key for key, state in states.items() if state == "accepted"} <= set(sent)
    assert [wa.stage.depth(f"whatsapp.{queue}.dlq") for queue in ("message", "inbound")] == [0, 0]


def start(wa: WhatsAppStage, log: Path) -> Program:
    own = {"WCH_WHATSAPP_LEASE_SECONDS": "1"}
    return Program("support.crashing_whatsapp", "never", log=log, **wa.environment(**own))


def nothing_waits(wa: WhatsAppStage) -> bool:
    return wa.query("SELECT 1 FROM messages WHERE state = 'queued' LIMIT 1") == []
