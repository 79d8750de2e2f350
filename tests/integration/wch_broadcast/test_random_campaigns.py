"""Many campaigns of random shape at once, through both services to Meta's simulator: each ends, and its totals add up."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from support.broadcast_stage import BroadcastStage
from support.random_campaigns import BROKEN, TEMPLATES, Shape, people, shape
from support.waiting import eventually
from support.whatsapp_stage import WhatsAppStage, phone, suppression, template, wrote
from wch_broadcast import admin
from wch_common.events.broadcast import CampaignCancelRequested, CampaignPauseRequested, CampaignResumeRequested
from wch_common.store.database import connection_parameters

FULL = os.environ.get("WCH_TEST_SCALE") == "full"
CAMPAIGNS = 1000 if FULL else 40
LOST_ANSWERS = 3  # five in a row would count as an outage of Meta, which pauses the number
ACCOUNT = "1001"
PARTS = ("sent", "failed", "unknown", "skipped", "cancelled", "deferred", "waiting")


@pytest.fixture
def wa(bc: BroadcastStage) -> Iterator[WhatsAppStage]:
    made = WhatsAppStage(bc.stage, bc.database_url)
    yield made
    made.close()


@pytest.mark.scale
def test_campaigns_of_any_shape_end_and_no_recipient_fails_for_anothers_reason(
    bc: BroadcastStage, wa: WhatsAppStage
) -> None:
    random = Random(20261130)
    everyone = people(random)
    shapes = {one.name: one for one in (shape(random, number, everyone) for number in range(CAMPAIGNS))}
    wa.graph.templates[ACCOUNT] = list(TEMPLATES)
    wa.graph.message_errors = {phone(one.number): (one.error, "") for one in everyone if one.error}
    bc.start(broadcast_failure_min_answers=10_000)
    # Few calls at a time, so that a batch is not sent as a whole before its first answer.
    wa.start(whatsapp_settle_seconds=0.5, whatsapp_calls_in_flight=4)
    wa.publish(*(suppression(one.number) for one in everyone if one.suppressed))
    wa.publish(*(wrote(one.number) for one in everyone if one.window))
    eventually(lambda: len(wa.query("SELECT 1 FROM suppressions")) == sum(one.suppressed for one in everyone))
    eventually(lambda: len(wa.query("SELECT 1 FROM windows")) == sum(one.window for one in everyone))
    wa.fail(reset="after", times=LOST_ANSWERS)

    bc.publish(*_requests(random, list(shapes.values())))
    _rest(bc, shapes)
    assert not bc.query("SELECT 1 FROM campaigns WHERE state = 'completed' AND campaign_id = ANY(%s)", _stuck(shapes))
    wa.graph.templates[ACCOUNT] += [template(one.message.name) for one in shapes.values() if one.broken]  # type: ignore[union-attr]
    paused = [name for name, state in _states(bc).items() if state == "paused"]
    bc.publish(*(CampaignResumeRequested(campaign_id=name, by="tests") for name in paused))
    eventually(lambda: len(bc.facts("campaign.resumed")) >= len(paused), "every paused campaign is resumed")
    _rest(bc, shapes)
    assert bc.query("SELECT campaign_id, cause FROM campaigns WHERE state = 'paused'") == [], "each could complete"

    _check_outcomes(bc, shapes)
    _check_what_meta_got(bc, wa)
    eventually(lambda: bc.query("SELECT 1 FROM outbox") == [], "every fact is published")
    completed = Counter(fact["campaign_id"] for fact in bc.facts("campaign.completed"))
    assert completed == Counter(name for name, state in _states(bc).items() if state == "completed"), "each once"


def _requests(random: Random, shapes: list[Shape]) -> Iterator[Any]:
    """Yield the requests of all campaigns, and what an operator does to some of them soon after."""
    controls: dict[str, Any] = {"pause": CampaignPauseRequested, "cancel": CampaignCancelRequested}
    late: list[Any] = []
    for one in shapes:
        yield from one.events(random)
        if one.control:
            late.append(controls[one.control](campaign_id=one.name, by="tests"))
        if random.random() < 0.3:
            yield from late
            late.clear()
    yield from late


def _states(bc: BroadcastStage) -> dict[str, str]:
    return dict(bc.query("SELECT campaign_id, state FROM campaigns"))


def _rest(bc: BroadcastStage, shapes: dict[str, Shape]) -> None:
    """Wait until every campaign has ended or is paused."""
    resting = {"completed", "cancelled", "paused"}

    def all_rest() -> bool:
        states = _states(bc)
        return len(states) == len(shapes) and set(states.values()) <= resting

    eventually(all_rest, "every campaign ends or pauses", seconds=1500)


def _stuck(shapes: dict[str, Shape]) -> list[str]:
    """Return the campaigns that cannot complete as long as Meta does not have their template."""
    return [
        one.name for one in shapes.values() if one.broken and not one.stopped and "accepted" in one.outcomes
    ]  # fmt: skip


def _check_outcomes(bc: BroadcastStage, shapes: dict[str, Shape]) -> None:
    """Check the outcome of each recipient, and that the totals of each campaign are their sums."""
    wrong = []
    address = connection_parameters(bc.database_url, options="-c search_path=broadcast")
    with psycopg.connect(address, row_factory=dict_row, autocommit=True) as connection:
        for one in shapes.values():
            (found,) = admin.campaigns_named(connection, one.name)
            rows = list(admin.report(connection, found.id))
            outcomes = [
                f"{row.outcome}/{row.reason}" if row.outcome in ("failed", "skipped") else row.outcome for row in rows
            ]
            # The reason of a suppression is its own.
            outcomes = ["skipped/suppressed" if text == "skipped/requested" else text for text in outcomes]
            allowed = [one.allowed(place) for place in range(len(one.recipients))]
            wrong += [
                (one.name, found.state, place, outcome, sorted(may))
                for place, (outcome, may) in enumerate(zip(outcomes, allowed, strict=True))
                if outcome not in may
            ]
            totals = asdict(found) | found.totals.model_dump()
            assert totals["recipients"] == len(one.recipients) == sum(totals[part] for part in PARTS), one.name
            assert totals["failed"] == sum(by["recipients"] for by in totals["failed_by"])
            assert totals["skipped"] == sum(by["recipients"] for by in totals["skipped_by"])
            counted = Counter(row.outcome for row in rows)
            assert counted["accepted"] == totals["sent"], one.name
            assert {part: counted[part] for part in PARTS[1:]} == {part: totals[part] for part in PARTS[1:]}, one.name
            assert totals["deferred"] == totals["waiting"] == 0, one.name
            assert one.control == "cancel" or found.state == "completed", one.name
    assert wrong == []


def _check_what_meta_got(bc: BroadcastStage, wa: WhatsAppStage) -> None:
    """Check that Meta got each message once, and that nobody was sent another one's values."""
    ids = [body["biz_opaque_callback_data"].split(":")[1] for body in wa.sent]
    assert len(ids) == len(set(ids)), "no message is sent twice"
    states = Counter(wa.states().values())
    assert states["accepted"] <= len(ids) <= states["accepted"] + states["unknown"]
    assert states["unknown"] <= LOST_ANSWERS
    assert BROKEN.partition("/")[2] not in {
        reason for (reason,) in wa.query("SELECT reason FROM messages WHERE state = 'accepted'")
    }
    for body in wa.sent:
        texts = [one["text"] for part in body.get("template", {}).get("components", ()) for one in part["parameters"]]
        for text in texts or [body.get("text", {}).get("body", "").removeprefix("Dear ")]:
            if text.startswith("campaign-"):
                assert body["to"] == phone(int(text.partition(" ")[2]))
