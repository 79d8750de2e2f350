"""Recipients by Meta's ids of them: who is written to, and what holds for a person under all their names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import NUMBER, TEMPLATE, TEXT, WhatsAppStage, batch, message, phone, wrote
from wch_common.events.meta import MetaUser, UserChanged
from wch_common.events.recipient import Recipient
from wch_common.events.whatsapp import (
    BatchRecipient,
    RecipientEraseRequested,
    SuppressionAddRequested,
    SuppressionRemoveRequested,
)

ID, OTHER_ID = "US.15550100001771", "US.15550100002772"
PARENT = "US.ENT.15550100001773"


@pytest.fixture
def wa(stage: Stage, database_url: str) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(stage, database_url)
    yield made
    made.close()


def digits(number: int) -> str:
    return phone(number).removeprefix("+")


def wrote_hidden(text: str = "Hi", **changes: Any) -> Any:
    """Return a message from a customer who hides their number."""
    return wrote(1, text, **({"sender": None, "user_id": ID} | changes))


def link(wa: WhatsAppStage, number: int = 1, id_: str = ID) -> None:
    """Let Meta say that a number and an id are the same person's."""
    handle(wa, wrote(number, f"Hello {id_}", user_id=id_))
    assert wa.query("SELECT count(DISTINCT person) FROM person_ids")[0][0] >= 1


def handle(wa: WhatsAppStage, *facts: Any) -> None:
    """Publish facts and wait until they are handled."""
    before = int(wa.query("SELECT count(*) FROM inbox")[0][0]) if wa.query("SELECT count(*) FROM inbox") else 0
    wa.publish(*facts)
    eventually(lambda: wa.query("SELECT count(*) FROM inbox") == [(before + len(facts),)])


def sent_to(wa: WhatsAppStage) -> list[tuple[str | None, str | None]]:
    """Return number and id of each call that Meta accepted."""
    return [(body.get("to"), body.get("recipient")) for body in wa.sent]


def ended(wa: WhatsAppStage, key: str) -> tuple[str, str]:
    """Wait for the result of a message, and return its state and reason."""
    row = eventually(lambda: row if (row := wa.row(key)) and row["due_at"] is None else {})
    return row["state"], row["reason"]


@pytest.mark.parametrize(
    ("to", "body"),
    [
        (ID, (None, ID)),
        ("EG.1234567890", (None, "EG.1234567890")),
        (PARENT, (None, PARENT)),
        (Recipient(user_id=ID, parent_id=PARENT), (None, ID)),
        (Recipient(phone=phone(1), user_id=ID), (phone(1), None)),
        (Recipient(phone="555 010 0001", user_id=ID), (phone(1), None)),
    ],
)
def test_a_number_is_written_to_as_to_and_an_id_as_recipient(wa: WhatsAppStage, to: Any, body: Any) -> None:
    wa.start(whatsapp_region="US")
    wa.publish(message(1, to=to), batch("b", (), recipients=(BatchRecipient(to=to, send_key="b-1"),)))
    assert (ended(wa, "key-1")[0], ended(wa, "b-1")[0]) == ("accepted", "accepted")
    assert sent_to(wa) == [body, body]
    assert all(one["recipient_type"] == "individual" for one in wa.sent)


def test_a_text_that_is_nearly_an_id_is_refused_alone(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_region="US")
    recipients = (BatchRecipient(to="eg.1234567890", send_key="b-1"), BatchRecipient(to=ID, send_key="b-2"))
    wa.publish(batch("b", (), recipients=recipients), message(1, to="EG 1234567890"))
    assert ended(wa, "b-1") == ("failed", "malformed_number")
    assert ended(wa, "b-2")[0] == "accepted"
    (dead_letter,) = wa.stage.await_dead_letters("whatsapp.message.dlq")
    assert str(dead_letter.message.headers["wch-error-message"]).startswith("data.to: not a phone number")
    assert sent_to(wa) == [(None, ID)]


def test_the_number_of_a_user_is_used_once_meta_has_said_it(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(message(1, to=ID))
    ended(wa, "key-1")
    status = wa.status("key-1", "delivered")
    handle(wa, status.model_copy(update={"recipient": digits(1), "user_id": ID}))
    wa.publish(message(2, to=ID))
    ended(wa, "key-2")
    assert sent_to(wa) == [(None, ID), (phone(1), None)]


@pytest.mark.parametrize("order", ["stop first", "link first"])
@pytest.mark.parametrize(("stopped", "asked"), [("id", "number"), ("number", "id"), ("preference", "number")])
def test_a_stop_holds_under_every_name(wa: WhatsAppStage, order: str, stopped: str, asked: str) -> None:
    wa.start()
    stops = {
        "id": wrote_hidden("STOP"),
        "number": wrote(1, "STOP"),
        "preference": wrote_hidden("", kind="preference", marketing="stop"),
    }
    if order == "link first":
        link(wa)
    handle(wa, stops[stopped])
    if order == "stop first":
        link(wa)
    wa.publish(message(1, to=ID if asked == "id" else phone(1)), message(2))
    assert ended(wa, "key-1") == ("suppressed", "asked_to_stop")
    assert ended(wa, "key-2")[0] == "accepted", "others are not concerned"
    shown = json.loads(wa.command("show", "key-1", "--json"))[0]
    assert (shown["suppression"], shown["suppressed_by"]) == ("marketing", "recipient")


def test_a_window_that_an_id_opened_is_open_for_the_number(wa: WhatsAppStage) -> None:
    wa.start()
    handle(wa, wrote_hidden())
    wa.publish(message(1, to=ID, message=TEXT, category="service"))
    assert ended(wa, "key-1")[0] == "accepted"
    wa.publish(message(2, to=phone(1), message=TEXT, category="service"))
    assert ended(wa, "key-2") == ("failed", "window_closed")
    handle(wa, wa.status("key-1", "read").model_copy(update={"recipient": digits(1), "user_id": ID}))
    wa.publish(message(3, to=phone(1), message=TEXT, category="service"))
    assert ended(wa, "key-3")[0] == "accepted"


def test_limits_of_a_pair_and_of_the_day_count_a_person_once(wa: WhatsAppStage) -> None:
    wa.start()
    link(wa)
    wa.query("UPDATE windows SET open_until = now() RETURNING 1")
    wa.stage.stop()
    wa.start(whatsapp_pair_seconds=3600, whatsapp_pair_burst=2, whatsapp_messaging_limit=1)
    wa.publish(message(1, to=ID))
    ended(wa, "key-1")
    wa.publish(message(2, to=phone(1)))
    ended(wa, "key-2")
    wa.publish(message(3, to=ID), message(4, to=phone(1)), message(5, to=phone(2)))
    waits = eventually(lambda: _reasons(wa, "key-3", "key-4", "key-5"))
    assert waits == ["pair_too_fast", "pair_too_fast", "messaging_limit"]
    assert wa.query("SELECT count(*) FROM reached") == [(1,)]


def _reasons(wa: WhatsAppStage, *keys: str) -> list[str]:
    found = [wa.row(key).get("reason", "") for key in keys]
    return found if all(found) else []


def changed(previous: MetaUser, current: MetaUser) -> UserChanged:
    return UserChanged(
        phone_number_id=NUMBER,
        message_id="wamid.changed",
        timestamp=datetime.now(UTC),
        previous=previous,
        current=current,
    )


def test_a_stop_and_a_window_come_along_to_a_new_number(wa: WhatsAppStage) -> None:
    wa.start()
    handle(wa, wrote(1, "STOP", user_id=ID))
    handle(wa, changed(MetaUser(wa_id=digits(1), user_id=ID), MetaUser(wa_id=digits(2), user_id=OTHER_ID)))
    wa.publish(message(1, to=phone(2)), message(2, to=OTHER_ID), message(3, to=ID), message(4, to=phone(1)))
    assert {ended(wa, f"key-{n}") for n in (1, 2, 3, 4)} == {("suppressed", "asked_to_stop")}
    wa.publish(*(message(n, to=to, message=TEXT, category="service") for n, to in ((5, phone(2)), (6, ID))))
    assert ended(wa, "key-5")[0] == ended(wa, "key-6")[0] == "accepted"
    assert sent_to(wa) == [(phone(2), None)] * 2


@pytest.mark.parametrize("hidden", [False, True])
def test_what_was_requested_before_a_number_changed_goes_to_the_new_one_and_later_requests_fail(
    wa: WhatsAppStage, hidden: bool
) -> None:
    """The old number may belong to a stranger soon, and to the one who is meant by a later request."""
    wa.start()
    link(wa)
    wa.publish(message(1, to=phone(1), not_before=datetime.now(UTC) + timedelta(hours=1)))
    eventually(lambda: wa.row("key-1"))
    now = MetaUser(wa_id=None if hidden else digits(2), user_id=OTHER_ID)
    handle(wa, changed(MetaUser(wa_id=None if hidden else digits(1), user_id=ID), now))
    wa.publish(message(2, to=phone(1)), message(3, to=Recipient(phone=phone(1), user_id=OTHER_ID)))
    assert ended(wa, "key-2") == ("failed", "number_changed")
    wa.query("UPDATE messages SET due_at = now() WHERE send_key = 'key-1' RETURNING 1")
    assert ended(wa, "key-1")[0] == ended(wa, "key-3")[0] == "accepted"
    assert sent_to(wa) == [(None, OTHER_ID) if hidden else (phone(2), None)] * 2


def test_after_some_months_an_old_number_may_be_somebody_elses_and_is_written_to(wa: WhatsAppStage) -> None:
    wa.start()
    link(wa)
    handle(wa, changed(MetaUser(wa_id=digits(1), user_id=ID), MetaUser(wa_id=digits(2), user_id=OTHER_ID)))
    wa.query("UPDATE person_ids SET replaced_at = now() - interval '91 days' WHERE replaced_at IS NOT NULL RETURNING 1")
    wa.publish(message(1, to=phone(1)))
    ended(wa, "key-1")
    assert sent_to(wa) == [(phone(1), None)]


def test_a_number_that_went_to_somebody_else_is_written_to_as_asked(wa: WhatsAppStage) -> None:
    wa.start()
    link(wa)
    handle(wa, changed(MetaUser(user_id=ID), MetaUser(user_id=OTHER_ID)))
    link(wa, 1, "US.15550100009779")
    wa.publish(message(1, to=phone(1)), message(2, to=OTHER_ID))
    ended(wa, "key-1")
    ended(wa, "key-2")
    assert set(sent_to(wa)) == {(phone(1), None), (None, OTHER_ID)}


def test_a_number_and_an_id_of_different_people_reach_neither(wa: WhatsAppStage) -> None:
    wa.start()
    link(wa)
    link(wa, 2, OTHER_ID)
    pairs = (Recipient(phone=phone(1), user_id=OTHER_ID), Recipient(phone=phone(9), user_id=OTHER_ID))
    recipients = (BatchRecipient(to=pairs[0], send_key="b-1"), BatchRecipient(to=phone(3), send_key="b-2"))
    wa.publish(message(1, to=pairs[0]), message(2, to=pairs[1]), batch("b", (), recipients=recipients))
    (fact,) = eventually(lambda: wa.facts("batch.completed"))
    results = {one["send_key"]: (one["outcome"], one["reason"]) for one in fact["recipients"]}
    assert results == {"b-1": ("skipped", "different_people"), "b-2": ("accepted", "")}
    assert ended(wa, "key-1") == ended(wa, "key-2") == ("failed", "different_people")
    assert sent_to(wa) == [(phone(3), None)]


def test_what_requests_say_links_nobody(wa: WhatsAppStage) -> None:
    """A request may be wrong: it must not decide where other messages go, nor whose STOP holds for whom."""
    wa.start()
    wa.publish(message(1, to=Recipient(phone=phone(1), user_id=ID)), message(2, to=ID))
    ended(wa, "key-1")
    ended(wa, "key-2")
    assert set(sent_to(wa)) == {(phone(1), None), (None, ID)}
    handle(wa, wrote_hidden("STOP"))
    wa.publish(message(3, to=phone(1)), message(4, to=Recipient(phone=phone(1), user_id=ID)))
    assert ended(wa, "key-3")[0] == "accepted"
    assert ended(wa, "key-4") == ("suppressed", "asked_to_stop"), "a request is held to every name that it gives"
    assert "3 rows in whatsapp.messages" in wa.recipients("erase", ID)


def test_a_suppression_under_any_name_that_a_request_gives_holds(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(SuppressionAddRequested(phone=PARENT, category="all", reason="asked by mail", by="tests"))
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(1,)])
    for number, names in enumerate(({"user_id": ID}, {"phone": phone(1)}, {"phone": phone(1), "user_id": ID})):
        wa.publish(message(number, to=Recipient(parent_id=PARENT, **names)))
        assert ended(wa, f"key-{number}") == ("suppressed", "asked by mail")
    assert "3 rows in whatsapp.messages" in wa.recipients("erase", PARENT)


def test_an_operator_suppresses_and_lifts_under_any_name(wa: WhatsAppStage) -> None:
    wa.start()
    link(wa)
    for name in (ID, Recipient(phone=phone(2), user_id=OTHER_ID)):
        wa.publish(SuppressionAddRequested(phone=name, category="all", reason="asked by mail", by="tests"))
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(3,)])
    wa.publish(message(1, to=phone(1)), message(2, to=phone(2)), message(3, to=OTHER_ID))
    assert {ended(wa, f"key-{n}")[0] for n in (1, 2, 3)} == {"suppressed"}
    wa.publish(SuppressionRemoveRequested(phone=phone(1), category="all", reason="asked", by="tests"))
    eventually(lambda: wa.query("SELECT count(*) FROM suppressions") == [(2,)])
    wa.publish(message(4, to=ID))
    assert ended(wa, "key-4")[0] == "accepted"


@pytest.mark.parametrize("name", [phone(1), ID])
def test_a_person_is_exported_and_erased_under_every_name(wa: WhatsAppStage, name: str) -> None:
    wa.start()
    link(wa)
    handle(wa, wrote_hidden("STOP"))
    wa.publish(message(1, to=phone(1), category="utility"), message(2, to=ID, category="utility"), message(3))
    for number in (1, 2, 3):
        ended(wa, f"key-{number}")
    exported = json.loads(wa.recipients("export", name))["whatsapp"]
    assert {row["send_key"] for row in exported["messages"]} == {"key-1", "key-2"}
    assert {row["value"] for row in exported["person_ids"]} == {phone(1), ID}
    assert "erased" in wa.recipients("erase", name, "--reason", "asked")
    everything = str(
        [wa.query(f"SELECT t::text FROM {table} AS t") for table in ("messages", "person_ids", "suppressions")]
    )
    assert digits(1) not in everything
    assert ID not in everything
    assert digits(3) in everything
    wa.publish(message(4, to=phone(1)), message(5, to=ID))
    assert {ended(wa, f"key-{n}") for n in (4, 5)} == {("suppressed", "asked_to_stop")}, "a STOP outlives its erasure"


def test_an_erased_person_who_writes_again_is_known_again(wa: WhatsAppStage) -> None:
    wa.start()
    link(wa)
    wa.publish(RecipientEraseRequested(phone=ID, reason="asked", by="tests"))
    eventually(lambda: wa.facts("recipient.erased"))
    assert wa.query("SELECT count(value) FROM person_ids") == [(0,)]
    handle(wa, wrote(1, "Hello again", user_id=ID))
    wa.publish(message(1, to=ID))
    ended(wa, "key-1")
    assert sent_to(wa) == [(phone(1), None)]


def test_only_listed_recipients_are_written_to_under_any_name_of_metas(wa: WhatsAppStage) -> None:
    wa.start(whatsapp_only_to=(SecretStr(ID),))
    link(wa)
    others = (OTHER_ID, Recipient(phone=phone(3), user_id=ID))
    wa.publish(message(1, to=phone(1)), message(2, to=ID), *(message(3 + n, to=to) for n, to in enumerate(others)))
    assert {ended(wa, "key-1"), ended(wa, "key-2")} == {("accepted", "")}
    assert {ended(wa, "key-3"), ended(wa, "key-4")} == {("failed", "not_in_allow_list")}


def test_a_refused_country_is_that_of_ids_too(wa: WhatsAppStage) -> None:
    for name in ("+491713920001", "DE.15550100001", "DE.15550100002"):
        wa.graph.message_errors[name] = (130497, "Business account is restricted from messaging users in this country.")
    to = ["+491713920001", "DE.15550100001", "DE.15550100002", ID]
    recipients = tuple(BatchRecipient(to=one, send_key=f"b-{place}") for place, one in enumerate(to))
    wa.publish(batch("b", (), recipients=recipients))
    eventually(lambda: wa.stage.depth("whatsapp.batch") == 1)
    wa.start(whatsapp_calls_in_flight=1)
    assert [ended(wa, f"b-{place}")[0] for place in range(4)] == ["failed", "failed", "failed", "accepted"]
    assert len(wa.calls) == 2, "the first refusal holds for all of them"


def test_what_a_person_without_a_known_name_writes_is_kept(wa: WhatsAppStage) -> None:
    """It may be a STOP, under a form of id that is newer than this version."""
    wa.start()
    names: tuple[dict[str, Any], ...] = ({}, {"user_id": "an unknown form"}, {"user_id": "de.12"}, {"sender": "1234"})
    wa.publish(*(wrote(1, "STOP", **{"sender": None, **one}) for one in names))
    dead_letters = wa.stage.await_dead_letters("whatsapp.inbound.dlq", len(names))
    assert {one.message.headers["wch-error-kind"] for one in dead_letters} == {"rejected"}
    told = " ".join(str(value) for one in dead_letters for value in one.message.headers.values())
    assert "Meta's webhooks may have changed" in told
    assert not {"an unknown form", "de.12", "1234"} & set(told.replace("'", " ").split())


def test_numbers_and_ids_are_masked_in_what_operators_see(wa: WhatsAppStage) -> None:
    wa.start()
    wa.publish(message(1, to=ID))
    ended(wa, "key-1")
    printed = wa.command("list") + wa.command("show", "key-1") + wa.command("list", "--json")
    assert ID not in printed
    assert "US.…71" in printed


def test_an_old_status_names_a_number_and_a_new_one_an_id(wa: WhatsAppStage) -> None:
    """Statuses have both, one of them or none; none is lost."""
    wa.start()
    for number, named in enumerate(
        ({}, {"recipient": digits(1)}, {"user_id": ID}, {"user_id": "a form of the future"})
    ):
        wa.publish(message(number, to=ID, send_key=f"k-{number}", message=TEMPLATE))
        ended(wa, f"k-{number}")
        handle(wa, wa.status(f"k-{number}", "failed", error=131062).model_copy(update=named))
        assert ended(wa, f"k-{number}") == ("failed", "needs_number")
