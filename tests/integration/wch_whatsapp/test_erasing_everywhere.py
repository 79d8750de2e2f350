"""Erasing a person from every service at once, while what is older waits in queues, timers, lists and dead letters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.broadcast_stage import BroadcastStage, campaign, part
from support.carts_stage import CartsStage, cart, ordered
from support.command import wch
from support.scheduler_stage import SchedulerStage
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import HASH_KEY, WhatsAppStage, message, phone, suppression, wrote
from wch_common.contract.event import Event, new_event
from wch_common.events.broadcast import CampaignRecipient
from wch_common.events.recipient import Recipient
from wch_common.events.scheduler import TimedEvent, TimerRequested

ID = "DE.15550100001771"
ADA = (phone(1), ID)
LATER = datetime.now(UTC) + timedelta(days=30)
SERVICES = ("broadcast", "carts", "scheduler", "whatsapp")


class Everybody:
    """All services that store something about people, on one broker and database."""

    def __init__(self, stage: Stage, database_url: str, folder: Path) -> None:
        self.stage, self.database_url = stage, database_url
        self.wa, self.bc = WhatsAppStage(stage, database_url), BroadcastStage(stage, database_url)
        self.ct, self.sc = CartsStage(stage, database_url), SchedulerStage(stage, database_url, folder)
        self.sc.write()

    def start(self) -> None:
        """Start them."""
        self.wa.start()
        self.bc.start()
        self.ct.start()
        self.sc.start(scheduler_requesters={self.sc.user: ["whatsapp.message.*"]})

    def publish(self, *events: Any) -> None:
        """Publish events."""
        with self.stage.client() as client:
            client.publish_many(events)

    def command(self, *words: str, code: int = 0, **environment: str) -> str:
        """Run `wch recipients` for all services and return what it prints."""
        own = {"WCH_DATABASE_URL": self.database_url, "WCH_PERSON_HASH_KEY": HASH_KEY} | environment
        return wch(self.stage, "recipients", *words, code=code, **own)

    def stored(self) -> dict[str, str]:
        """Return every row of every table of every service as text, by table."""
        found = {}
        with closing(psycopg.connect(self.database_url, autocommit=True)) as connection:
            tables = connection.execute(
                "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema = ANY(%s)",
                [list(SERVICES)],
            ).fetchall()
            for schema, table in tables:
                rows = connection.execute(f'SELECT t::text FROM "{schema}"."{table}" AS t').fetchall()
                found[f"{schema}.{table}"] = "\n".join(row[0] for row in rows)
        return found

    def tables_with(self, *names: str) -> set[str]:
        """Return the tables that hold a name of somebody; bytes are shown as hex digits."""
        texts = [form for name in names for form in (name.lstrip("+"), name.lstrip("+").encode().hex())]
        return {table for table, rows in self.stored().items() if any(text in rows for text in texts)}


@pytest.fixture
def everybody(stage: Stage, database_url: str, tmp_path: Path) -> Iterator[Everybody]:
    made = Everybody(stage, database_url, tmp_path)
    yield made
    made.wa.close()


def timer(number: int, **changes: Any) -> TimerRequested:
    """Return the request for a timer that sends a message to a person."""
    wanted = TimedEvent(type="whatsapp.message.requested.v1", data=message(number).model_dump(mode="json"))
    values: dict[str, Any] = {"key": f"timer-{number}", "due": LATER, "event": wanted}
    return TimerRequested(**(values | changes))


def plant(all_: Everybody) -> list[Event[Any]]:
    """Let every service know Ada, and return what names her and is older than her erasure."""
    wa, later = all_.wa, datetime.now(UTC) + timedelta(days=1)
    old: list[Event[Any]] = [
        new_event(message(1, send_key="old"), "/tests"),
        new_event(message(1, to=ID, send_key="old-id"), "/tests"),
        new_event(
            campaign(
                "old",
                None,
                recipients=(CampaignRecipient(to=phone(1)), CampaignRecipient(to=phone(2))),
                start_at=later,
                exclusive=False,
            ),
            "/tests",
        ),
        new_event(part("old-list", 1, (1, 2), parts=1), "/tests"),
        new_event(cart(1, version=9, cart_id="old"), "/tests"),
        new_event(wrote(1, "Hello?", user_id=ID), "/tests"),
        new_event(timer(1, key="old"), "/tests"),
    ]
    all_.publish(wrote(1, user_id=ID), suppression(1, "marketing"))
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(1,)])
    all_.publish(message(1, category="utility"), timer(1), cart(1), cart(2))
    all_.publish(
        campaign(
            "c",
            None,
            recipients=(CampaignRecipient(to=Recipient(phone=phone(1), user_id=ID)), CampaignRecipient(to=phone(2))),
            start_at=later,
            exclusive=False,
        )
    )
    all_.publish(part("list", 1, (1, 2), parts=1))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    eventually(lambda: all_.sc.query("SELECT count(*) FROM timers") == [(1,)])
    eventually(lambda: all_.ct.query("SELECT count(*) FROM carts") == [(2,)])
    eventually(lambda: all_.ct.query("SELECT count(*) FROM person_links") == [(1,)])
    eventually(lambda: all_.bc.query("SELECT count(*) FROM recipients") == [(4,)])
    return old


def test_an_erased_person_is_nowhere_and_nothing_old_brings_them_back(everybody: Everybody) -> None:
    everybody.start()
    old = plant(everybody)
    late = everybody.wa.status("key-1", "delivered")
    planted = {
        "whatsapp.messages",
        "whatsapp.person_ids",
        "whatsapp.suppressions",
        "scheduler.timers",
        "carts.carts",
        "carts.person_links",
        "broadcast.recipients",
    }
    assert everybody.tables_with(*ADA) >= planted
    exported = json.loads(everybody.command("export", ID))
    assert {f"{one}.{table}" for one, tables in exported.items() for table, rows in tables.items() if rows} >= planted
    printed = everybody.command("erase", ID, "--dry-run")
    assert "1 row in carts.carts" in printed
    assert "2 rows in broadcast.recipients" in printed
    assert everybody.tables_with(*ADA) >= planted, "a dry run changes nothing"

    printed = everybody.command("erase", ID)
    assert "erased DE." in printed
    for part_ in (
        "1 row in carts.carts",
        "2 rows in broadcast.recipients",
        "1 row in scheduler.timers",
        "stay in force",
    ):
        assert part_ in printed
    eventually(lambda: everybody.tables_with(*ADA) == set(), "the answers leave the outbox")

    everybody.publish(*old, late, ordered(1, version=10))
    everybody.publish(*old)
    facts = everybody.wa
    eventually(lambda: {"old", "old-id"} <= {one["send_key"] for one in facts.facts("message.failed")})
    eventually(lambda: everybody.sc.query("SELECT count(*) FROM timers") == [(2,)])
    eventually(lambda: everybody.ct.query("SELECT count(*) FROM carts") == [(3,)])
    eventually(lambda: everybody.bc.query("SELECT count(*) FROM recipients") == [(8,)])
    eventually(lambda: everybody.wa.states().get("key-1") == "delivered")
    eventually(lambda: everybody.ct.cart("c1").get("ordered_version") == 10)
    eventually(lambda: everybody.wa.query("SELECT count(*) FROM inbox WHERE queue = 'whatsapp.inbound'") == [(2,)])
    assert everybody.tables_with(*ADA) == set()
    assert everybody.wa.row("key-1")["wamid"] is None, "Meta's id of a message contains the number"
    assert everybody.ct.cart("c1")["order_id"] is None
    skipped = everybody.bc.query("SELECT skip_reason, count(*) FROM recipients GROUP BY 1 ORDER BY 1")
    assert skipped == [("erased", 4), (None, 4)]
    assert everybody.ct.cart("old")["no_phone_reason"] == "erased"
    assert len(everybody.wa.sent) == 1, "the one before the erasure"
    assert everybody.tables_with(phone(2)) >= {"carts.carts", "broadcast.recipients"}, "others are as they were"


def test_what_is_newer_than_the_erasure_is_handled_as_that_of_anybody(everybody: Everybody) -> None:
    everybody.start()
    plant(everybody)
    everybody.command("erase", phone(1))
    everybody.publish(message(1, category="utility", send_key="new"), cart(1, version=20))
    eventually(lambda: everybody.wa.states().get("new") == "accepted")
    eventually(lambda: everybody.ct.cart("c1").get("phone") == phone(1))
    everybody.publish(message(1, send_key="marketing"))
    eventually(lambda: everybody.wa.states().get("marketing") == "suppressed", "the wish holds")


def test_an_old_stop_of_an_erased_person_counts_and_does_not_make_them_known(everybody: Everybody) -> None:
    everybody.wa.start()
    stop = new_event(wrote(1, "STOP", user_id=ID), "/tests")
    everybody.publish(message(1, category="utility"))
    eventually(lambda: everybody.wa.states() == {"key-1": "accepted"})
    everybody.command("erase", phone(1), WCH_SERVICES="whatsapp")
    everybody.publish(stop)
    eventually(lambda: everybody.wa.query("SELECT count(*) > 0 FROM suppressions") == [(True,)])
    eventually(lambda: everybody.tables_with(*ADA) == set(), "the fact about it leaves the outbox")
    assert everybody.wa.query("SELECT count(*) FROM windows") == [(0,)]
    everybody.publish(message(1, send_key="new"))
    eventually(lambda: everybody.wa.states().get("new") == "suppressed")


def test_a_service_that_has_not_answered_is_named_and_the_request_stays_open(everybody: Everybody) -> None:
    everybody.wa.start()
    carts = everybody.ct.start()
    everybody.publish(cart(1))
    eventually(lambda: everybody.ct.query("SELECT count(*) FROM carts") == [(1,)])
    carts.stop()
    printed = everybody.command("erase", phone(1), "--wait", "1", code=1, WCH_SERVICES="whatsapp,carts")
    assert "not yet answered by carts" in printed
    (open_,) = json.loads(everybody.command("erasures", "--open", "--json", WCH_SERVICES="whatsapp,carts"))
    assert (open_["answered"], open_["missing"]) == (["whatsapp"], ["carts"])
    everybody.ct.start()
    eventually(lambda: everybody.tables_with(phone(1)) == set())
    eventually(
        lambda: json.loads(everybody.command("erasures", "--open", "--json", WCH_SERVICES="whatsapp,carts")) == []
    )
    assert "carts, whatsapp" in everybody.command("erasures", WCH_SERVICES="whatsapp,carts")
    assert "WCH_SERVICES names shop" in everybody.command("erasures", code=1, WCH_SERVICES="shop")


def test_a_service_that_has_never_run_is_named_and_nobody_is_erased(everybody: Everybody) -> None:
    everybody.wa.start()
    everybody.publish(message(1, category="utility"))
    eventually(lambda: everybody.wa.states() == {"key-1": "accepted"})
    everybody.ct.query("DROP SCHEMA carts CASCADE")
    printed = " ".join(everybody.command("erase", phone(1), code=1, WCH_SERVICES="whatsapp,carts").split())
    assert "the carts service has never run on it; name the services that this shop runs, without carts" in printed
    assert everybody.wa.query("SELECT count(*) FROM erasures") == [(0,)]


def test_dead_letters_that_name_a_person_are_found_and_discarded(everybody: Everybody) -> None:
    everybody.wa.start()
    queue = "whatsapp.message.dlq"
    everybody.publish(message(1, sender="9"), message(2, sender="9"), message(1, to=ID, sender="9", send_key="id"))
    everybody.stage.await_dead_letters(queue, 3)
    printed = everybody.command("erase", phone(1), WCH_SERVICES="whatsapp")
    assert f"{queue} has 1 dead letter that names the person: --discard-dead-letters" in printed

    def dlq(*words: str) -> str:
        return wch(everybody.stage, "dlq", *words)

    assert "1 × rejected" in dlq("list", queue, "--about", phone(1))
    assert json.loads(dlq("list", "--about", phone(1), "--json"))[0].keys() == {"queue", "dead_letters"}
    assert "discarded 1 dead letter" in dlq("discard", queue, "--about", phone(1), "--reason", "erased")
    assert "no dead letter in" in dlq("show", queue, "--about", phone(1))
    assert "discarded 1 dead letter" in dlq("discard", queue, "--about", ID, "--reason", "erased")
    assert everybody.stage.depth(queue) == 1


def test_a_service_that_was_down_does_not_write_to_somebody_who_was_erased_meanwhile(everybody: Everybody) -> None:
    everybody.wa.start()
    everybody.ct.start()
    broadcast, due = everybody.bc.start(), datetime.now(UTC) + timedelta(seconds=1)
    scheduler = everybody.sc.start(scheduler_requesters={everybody.sc.user: ["whatsapp.message.*"]})
    everybody.publish(timer(1), timer(2), part("list", 1, (1, 2), parts=1))
    eventually(lambda: everybody.sc.query("SELECT count(*) FROM timers") == [(2,)])
    eventually(lambda: everybody.bc.query("SELECT count(*) FROM recipients") == [(2,)])
    assert [broadcast.stop(), scheduler.stop()] == [0, 0]
    everybody.sc.query("UPDATE timers SET due_at = %s", due)
    everybody.command("erase", phone(1), WCH_SERVICES="whatsapp,carts")
    with everybody.stage.broker.api as api:  # what they follow arrives last
        for queue in ("broadcast.control", "scheduler.control"):
            api.delete(f"/queues/{everybody.stage.vhost}/{queue}/contents").raise_for_status()
    everybody.bc.start()
    everybody.sc.start(scheduler_requesters={everybody.sc.user: ["whatsapp.message.*"]})
    everybody.publish(campaign("c", None, list_id="list", exclusive=False))
    eventually(lambda: len(everybody.wa.sent) == 2, "the timer and the campaign reach the other")
    eventually(
        lambda: (
            everybody.wa.query("SELECT reason, count(*) FROM messages GROUP BY 1 ORDER BY 1")
            == [("", 2), ("erased", 2)]
        )
    )
    assert {body["to"] for body in everybody.wa.sent} == {phone(2)}
    assert not [table for table in everybody.tables_with(phone(1)) if table.startswith("whatsapp.")]


def test_what_meta_calls_an_erased_person_later_is_erased_too(everybody: Everybody) -> None:
    wa = everybody.wa
    wa.start()
    old = new_event(message(1, to=ID, send_key="old-id"), "/tests")
    everybody.publish(message(1, category="utility"))
    eventually(lambda: wa.states() == {"key-1": "accepted"})
    status = wa.status("key-1", "delivered").model_copy(update={"recipient": phone(1).lstrip("+"), "user_id": ID})
    everybody.command("erase", phone(1), WCH_SERVICES="whatsapp")
    everybody.publish(status.model_copy(update={"timestamp": datetime.now(UTC)}))
    eventually(lambda: wa.states().get("key-1") == "delivered")
    everybody.publish(old)
    eventually(lambda: wa.states().get("old-id") == "failed")
    assert wa.row("old-id")["reason"] == "erased"
    assert everybody.tables_with(*ADA) == set()


def test_an_order_that_came_before_its_old_cart_names_nobody(everybody: Everybody) -> None:
    everybody.wa.start()
    everybody.ct.start()
    old = new_event(cart(1), "/tests")
    everybody.publish(ordered(1))
    eventually(lambda: everybody.ct.cart("c1").get("order_id") == 101)
    everybody.command("erase", phone(1), WCH_SERVICES="whatsapp,carts")
    everybody.publish(old)
    eventually(lambda: everybody.ct.cart("c1").get("no_phone_reason") == "erased")
    assert everybody.ct.cart("c1")["order_id"] is None


def test_a_repeated_part_of_a_list_is_recognised_after_an_erasure(everybody: Everybody) -> None:
    everybody.wa.start()
    everybody.bc.start()
    old = part("list", 1, (1, 2))
    first, again, third = (new_event(old, "/tests") for _ in range(3))
    everybody.publish(first)
    eventually(lambda: everybody.bc.query("SELECT count(*) FROM recipients") == [(2,)])
    everybody.command("erase", phone(1), WCH_SERVICES="whatsapp,broadcast")
    everybody.publish(again, third)
    eventually(lambda: everybody.bc.query("SELECT count(*) FROM inbox WHERE queue = 'broadcast.recipients'") == [(3,)])
    assert everybody.stage.depth("broadcast.recipients.dlq") == 0
    assert everybody.bc.query("SELECT skip_reason FROM recipients ORDER BY position") == [("erased",), (None,)]


def test_dead_letters_are_discarded_under_every_name_and_wishes_stay(everybody: Everybody) -> None:
    wa = everybody.wa
    wa.start()
    everybody.publish(wrote(1, user_id=ID))
    eventually(lambda: wa.query("SELECT count(*) FROM person_ids") == [(2,)])
    wrong = [message(1, sender="9"), message(2, sender="9"), message(1, to=ID, sender="9", send_key="id")]
    everybody.publish(*wrong, new_event(suppression(1, "all"), "/tests", shop="nowhere"))
    everybody.stage.await_dead_letters("whatsapp.message.dlq", 3)
    everybody.stage.await_dead_letters("whatsapp.control.dlq", 1)
    printed = everybody.command("erase", phone(1), "--discard-dead-letters", WCH_SERVICES="whatsapp")
    assert "discarded 2 dead letters that name the person from whatsapp.message.dlq" in printed
    assert "control" not in printed
    assert everybody.stage.depth("whatsapp.message.dlq") == 1
    assert everybody.stage.depth("whatsapp.control.dlq") == 1, "a wish of theirs"


def test_an_open_erasure_is_listed_however_many_are_newer(everybody: Everybody) -> None:
    everybody.wa.start()
    everybody.ct.start().stop()
    printed = everybody.command("erase", phone(1), "--wait", "1", code=1, WCH_SERVICES="whatsapp,carts")
    assert "wch recipients erasures --open" in printed
    for schema in ("whatsapp", "carts"):
        with closing(psycopg.connect(everybody.database_url, autocommit=True)) as connection:
            connection.execute(
                f"INSERT INTO {schema}.erasures (id, at, ended_at) SELECT 'e' || n, now(), now() FROM generate_series(1, 60) AS n"
            )
    listed = json.loads(everybody.command("erasures", "--open", "--json", WCH_SERVICES="whatsapp,carts"))
    assert [one["missing"] for one in listed] == [["carts"]]
    assert len(json.loads(everybody.command("erasures", "--json", WCH_SERVICES="whatsapp,carts"))) == 50


def test_an_exported_file_is_the_owner_s_only(everybody: Everybody, tmp_path: Path) -> None:
    everybody.wa.start()
    everybody.publish(message(1))
    eventually(lambda: everybody.wa.states() == {"key-1": "accepted"})
    file = tmp_path / "person.json"
    file.write_text("x" * 100_000)
    file.chmod(0o644)
    everybody.command("export", phone(1), "--output", str(file), WCH_SERVICES="whatsapp")
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["whatsapp"]["messages"][0]["phone"] == phone(1)
