"""The broadcast service, with the whatsapp service behind it or with answers that a test gives in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from support.collected import Collected
from support.stage import RunningService, Stage
from support.whatsapp_stage import TEMPLATE, phone
from wch_broadcast.main import compose
from wch_broadcast.settings import BroadcastSettings
from wch_broadcast.topology import REQUESTER, TOPOLOGY
from wch_common.broker.topology import Topology
from wch_common.contract.event import new_event
from wch_common.events.broadcast import CampaignRecipient, CampaignRequested, RecipientsRequested
from wch_common.events.whatsapp import BatchCompleted, BatchUpdated, RecipientOutcome
from wch_common.settings import QueueSettings, changed_policy
from wch_whatsapp.topology import TOPOLOGY as WHATSAPP

if TYPE_CHECKING:
    from collections.abc import Iterable

SHORT = {
    work.name.upper().replace(".", "_"): QueueSettings(retry_delays=(1,))
    for work in (*TOPOLOGY.work_queues, *WHATSAPP.work_queues)
}


def shortened(topology: Topology) -> Topology:
    """One delay queue for each queue."""
    return Topology(
        tuple(replace(work, policy=changed_policy(work.name, work.policy, SHORT)) for work in topology.work_queues)
    )


def people(numbers: Iterable[int]) -> tuple[CampaignRecipient, ...]:
    """Recipients by number."""
    return tuple(CampaignRecipient(to=phone(number)) for number in numbers)


def campaign(name: str, numbers: Iterable[int] | None = None, **changes: Any) -> CampaignRequested:
    """A campaign to people by number, or to the list given."""
    values: dict[str, Any] = {
        "campaign_id": name,
        "message": TEMPLATE,
        "category": "marketing",
        "recipients": None if numbers is None else people(numbers),
        "pause_seconds": 0.0,
    }
    return CampaignRequested(**(values | changes))


def part(name: str, number: int, numbers: Iterable[int], parts: int | None = None) -> RecipientsRequested:
    """A part of a list."""
    return RecipientsRequested(list_id=name, part=number, parts=parts, recipients=people(numbers))


class BroadcastStage:
    """Everything the broadcast service needs, on loopback; requests to whatsapp lie in queues of the test's own."""

    def __init__(self, stage: Stage, database_url: str) -> None:
        self.stage = stage
        self.database_url = database_url
        self._schema = stage.schema(database_url, "broadcast")
        self._collected = Collected(stage)
        stage.declare(shortened(TOPOLOGY))
        stage.follow("told", "broadcast.#")
        stage.follow("asked", "whatsapp.batch.requested.v1", exchange="wch.requests")
        stage.follow(
            "control", "whatsapp.*.cancel_requested.v1", "whatsapp.retry.requested.v1", exchange="wch.requests"
        )

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a service on this stage."""
        return {"database_url": SecretStr(self.database_url), "queues": SHORT} | changes

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
    def asked(self) -> list[dict[str, Any]]:
        """The batches whatsapp was asked for, in the order in which they were asked for."""
        return self._collected.data("asked")

    def await_asked(self, number: int) -> list[dict[str, Any]]:
        """Wait until so many batches were asked for."""
        return self._collected.await_data("asked", "", number)

    def answer(
        self, batch: dict[str, Any], outcomes: str | dict[int, str] = "accepted", *, version: int | None = None
    ) -> None:
        """Answer a batch as whatsapp would: with `outcome/reason` for all, or for some by place; later ones have a version."""
        keys = [one["send_key"] for one in batch["recipients"]]
        told = outcomes if isinstance(outcomes, dict) else dict.fromkeys(range(len(keys)), outcomes)
        recipients = tuple(
            RecipientOutcome.model_validate(
                {"send_key": keys[place], "outcome": text.partition("/")[0], "reason": text.partition("/")[2]}
            )
            for place, text in told.items()
        )
        model = BatchCompleted if version is None else BatchUpdated
        data = model(batch_id=batch["batch_id"], recipients=recipients, version=version or 0)
        self.publish(new_event(data, "/wch/whatsapp", requester=REQUESTER))

    def told(self, kind: str = "") -> list[dict[str, Any]]:
        """The data of the facts told so far, by the beginning of their type."""
        return self._collected.data("told", f"broadcast.{kind}")

    @property
    def keys(self) -> set[str]:
        """The routing keys of the facts told so far."""
        return {event["key"] for event in self._collected.events("told")}

    def await_told(self, kind: str, number: int = 1) -> dict[str, Any]:
        """Wait for a fact and return its data, the last of so many."""
        return self._collected.await_data("told", f"broadcast.{kind}", number)[number - 1]

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the service's schema."""
        return self._schema.rows(statement, *values)

    def state(self, name: str) -> tuple[str, str]:
        """State and cause of a campaign."""
        rows = self.query("SELECT state, cause FROM campaigns WHERE campaign_id = %s", name)
        return (str(rows[0][0]), str(rows[0][1])) if rows else ("", "")
