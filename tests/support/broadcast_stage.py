"""The broadcast service on a test's broker and database; the whatsapp service runs too, or the test gives its answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from support.collected import Collected
from support.stage import RunningService, Stage
from support.whatsapp_stage import HASH_KEY, TEMPLATE, phone
from wch_broadcast.main import compose
from wch_broadcast.settings import BroadcastSettings
from wch_broadcast.topology import REQUESTER, TOPOLOGY
from wch_common.broker.topology import Topology
from wch_common.contract.event import new_event
from wch_common.events.broadcast import CampaignRecipient, CampaignRequested, RecipientsRequested
from wch_common.events.whatsapp import BatchCompleted, BatchUpdated, RecipientOutcome
from wch_common.settings import QueueSettings, changed_policy
from wch_whatsapp.facts import recipient_outcome as whatsapp_outcome
from wch_whatsapp.topology import TOPOLOGY as WHATSAPP

if TYPE_CHECKING:
    from collections.abc import Iterable

SHORT = {
    work.name.upper().replace(".", "_"): QueueSettings(retry_delays=(1,))
    for work in (*TOPOLOGY.work_queues, *WHATSAPP.work_queues)
}


def shortened(topology: Topology) -> Topology:
    """Return a topology with one delay queue per work queue."""
    return Topology(
        tuple(replace(work, policy=changed_policy(work.name, work.policy, SHORT)) for work in topology.work_queues)
    )


def recipients(numbers: Iterable[int]) -> tuple[CampaignRecipient, ...]:
    """Return recipients with the phone numbers of `phone`."""
    return tuple(CampaignRecipient(to=phone(number)) for number in numbers)


def campaign(name: str, numbers: Iterable[int] | None = None, **changes: Any) -> CampaignRequested:
    """Return a request for a campaign to the recipients of `numbers`, or to the list given in `changes`."""
    values: dict[str, Any] = {
        "campaign_id": name,
        "message": TEMPLATE,
        "category": "marketing",
        "recipients": None if numbers is None else recipients(numbers),
        "pause_seconds": 0.0,
    }
    return CampaignRequested(**(values | changes))


def part(name: str, number: int, numbers: Iterable[int], parts: int | None = None) -> RecipientsRequested:
    """Return one part of a list."""
    return RecipientsRequested(list_id=name, part=number, parts=parts, recipients=recipients(numbers))


def recipient_outcome(recipient: dict[str, Any], text: str) -> RecipientOutcome:
    """Return what whatsapp reports about a recipient of a batch, for a text like `failed/undeliverable`."""
    outcome, _, reason = text.partition("/")
    reason, _, detail = reason.partition(": ")
    state = "queued" if outcome == "deferred" else outcome
    own_values = any(recipient.get(name) for name in ("header", "body", "buttons"))
    row = {"send_key": recipient["send_key"], "state": state, "reason": reason, "own_values": own_values}
    return whatsapp_outcome(row | {"code": None, "due_at": None}).model_copy(update={"detail": detail})


def totals_of(fact: dict[str, Any]) -> dict[str, Any]:
    """Return the totals of a fact that are not 0, with reasons as a mapping."""
    totals = {name: value for name, value in fact["totals"].items() if value and name != "percentage"}
    for name in ("failed_by", "skipped_by"):
        if name in totals:
            totals[name] = {one["reason"]: one["recipients"] for one in totals[name]}
    return totals


class BroadcastStage:
    """Everything the broadcast service needs, on loopback; requests to whatsapp arrive in queues of the test."""

    def __init__(self, stage: Stage, database_url: str) -> None:
        self.stage = stage
        self.database_url = database_url
        self._schema = stage.schema(database_url, "broadcast")
        self._collected = Collected(stage)
        stage.declare(shortened(TOPOLOGY))
        stage.follow("facts", "broadcast.#")
        stage.follow("batches", "whatsapp.batch.requested.v1", exchange="wch.requests")
        stage.follow(
            "control", "whatsapp.*.cancel_requested.v1", "whatsapp.retry.requested.v1", exchange="wch.requests"
        )

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a service on this stage."""
        own = {"database_url": SecretStr(self.database_url), "person_hash_key": SecretStr(HASH_KEY), "queues": SHORT}
        return own | changes

    def start(self, **changes: Any) -> RunningService:
        """Start the service in this process."""
        values = self.settings(**changes)
        service = RunningService(self.stage.url, compose, values, name="broadcast", settings_type=BroadcastSettings)
        self.stage.services.append(service)
        return service.start()

    def publish(self, *events: Any, **options: Any) -> list[str]:
        """Publish requests or facts."""
        with self.stage.client(**options) as client:
            return client.publish_many(events)

    @property
    def batches(self) -> list[dict[str, Any]]:
        """The batches requested from whatsapp so far, in order."""
        return self._collected.data("batches")

    def await_batches(self, number: int) -> list[dict[str, Any]]:
        """Wait until this many batches have been requested."""
        return self._collected.await_data("batches", "", number)

    def answer(
        self, batch: dict[str, Any], outcomes: str | dict[int, str] = "accepted", *, version: int | None = None
    ) -> None:
        """Answer a batch as whatsapp does: one `outcome/reason` for all, or one by place; a version makes it an update."""
        recipients = range(len(batch["recipients"]))
        by_place = outcomes if isinstance(outcomes, dict) else dict.fromkeys(recipients, outcomes)
        answered = tuple(recipient_outcome(batch["recipients"][place], text) for place, text in by_place.items())
        model = BatchCompleted if version is None else BatchUpdated
        data = model(batch_id=batch["batch_id"], recipients=answered, version=version or 0)
        self.publish(new_event(data, "/wch/whatsapp", requester=REQUESTER))

    def answer_batches(self, outcome: str = "accepted", *, batches: int = 1) -> None:
        """Wait until this many batches have been requested, and give every recipient of each the same outcome."""
        for batch in self.await_batches(batches):
            self.answer(batch, outcome)

    def facts(self, kind: str = "") -> list[dict[str, Any]]:
        """Return the data of the facts published so far whose type begins with `broadcast.<kind>`."""
        return self._collected.data("facts", f"broadcast.{kind}")

    @property
    def keys(self) -> set[str]:
        """The routing keys of the facts published so far."""
        return {event["key"] for event in self._collected.events("facts")}

    def await_fact(self, kind: str, number: int = 1) -> dict[str, Any]:
        """Wait for the fact with that number and return its data."""
        return self._collected.await_data("facts", f"broadcast.{kind}", number)[number - 1]

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement in the service's schema."""
        return self._schema.rows(statement, *values)

    def state(self, name: str) -> tuple[str, str]:
        """Return the state and the cause of a campaign."""
        rows = self.query("SELECT state, cause FROM campaigns WHERE campaign_id = %s", name)
        return (str(rows[0][0]), str(rows[0][1])) if rows else ("", "")
