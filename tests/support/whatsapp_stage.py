"""The whatsapp service with a Graph simulator behind it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from pydantic import HttpUrl, SecretStr

from support.collected import Collected
from support.command import wch
from support.ports import own_port
from support.stage import RunningService, Stage
from wch_common.broker.topology import Topology
from wch_common.events.meta import MessageReceived, StatusError, StatusReceived
from wch_common.events.whatsapp import (
    BatchRecipient,
    BatchRequested,
    MessageRequested,
    RecipientErased,
    SuppressionAddRequested,
)
from wch_common.events.whatsapp_content import Parameter, Template, Text
from wch_common.settings import QueueSettings, changed_policy
from wch_simulators.faults import Fault
from wch_simulators.graph import GraphSimulator
from wch_simulators.running import InThread
from wch_whatsapp.main import compose
from wch_whatsapp.settings import WhatsAppSettings
from wch_whatsapp.topology import TOPOLOGY

if TYPE_CHECKING:
    from collections.abc import Iterable

NUMBER = "2002"
HASH_KEY = "a key for the tests"
TEMPLATE = Template(name="hello", language="en_US", body=(Parameter(text="you"),))
NUMBERS = "+1555010"


# One delay queue for each work queue, because declaring thirty queues takes longer than most tests.
SHORT = {work.name.upper().replace(".", "_"): QueueSettings(retry_delays=(2,)) for work in TOPOLOGY.work_queues}
SHORT_TOPOLOGY = Topology(
    tuple(replace(work, policy=changed_policy(work.name, work.policy, SHORT)) for work in TOPOLOGY.work_queues)
)


def phone(number: int) -> str:
    """Return a number of an area code that belongs to nobody."""
    return f"{NUMBERS}{number:04d}" if number < 10_000 else f"+1555{2_000_000 + number}"


def message(number: int, **changes: Any) -> MessageRequested:
    """Return a request to send a template to recipient `number`."""
    values: dict[str, Any] = {
        "to": phone(number),
        "send_key": f"key-{number}",
        "category": "marketing",
        "message": TEMPLATE,
    }
    return MessageRequested(**(values | changes))


def batch(name: str, numbers: Iterable[int], **changes: Any) -> BatchRequested:
    """Return a request to send a template to the recipients `numbers`."""
    recipients = tuple(BatchRecipient(to=phone(n), send_key=f"{name}-{n}") for n in numbers)
    values: dict[str, Any] = {"batch_id": name, "category": "marketing", "message": TEMPLATE, "recipients": recipients}
    return BatchRequested(**(values | changes))


def suppression(number: int, category: Literal["marketing", "utility", "all"] = "all") -> SuppressionAddRequested:
    """Return a request to suppress recipient `number`."""
    return SuppressionAddRequested(phone=phone(number), category=category, reason="requested", by="tests")


def template(name: str, *components: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a template as Meta has it; by default its body has one placeholder."""
    values = {
        "id": f"10{name}",
        "name": name,
        "language": "en_US",
        "status": "APPROVED",
        "category": "MARKETING",
        "parameter_format": "POSITIONAL",
        "components": list(components) or [{"type": "BODY", "text": "Hello {{1}}"}],
    }
    return values | changes


TEXT = Text(kind="text", body="Hello")


class WhatsAppStage:
    """Everything that the whatsapp service needs, on loopback."""

    def __init__(self, stage: Stage, database_url: str) -> None:
        self.stage = stage
        self.database_url = database_url
        self._schema = stage.schema(database_url, "whatsapp")
        self.graph = GraphSimulator()
        self._open = ExitStack()
        self.graph_url = self._open.enter_context(InThread(self.graph)).url
        stage.declare(SHORT_TOPOLOGY)
        stage.follow("facts", "whatsapp.#")
        self._collected = Collected(stage)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a service on this stage."""
        values: dict[str, Any] = {
            "database_url": SecretStr(self.database_url),
            "graph_url": HttpUrl(self.graph_url),
            "graph_token": SecretStr(self.graph.token),
            "whatsapp_phone_number_ids": (NUMBER,),
            "person_hash_key": SecretStr(HASH_KEY),
            "whatsapp_rate": 0,
            "whatsapp_messaging_limit": -1,
            "whatsapp_pair_seconds": 0,
            "whatsapp_call_seconds": 5,
            "whatsapp_lease_seconds": 2,
            "queues": SHORT,
        }
        if "shops_file" in changes:
            values["one_shop"] = None  # the stage sets no variables, which would be the one shop
        return values | changes

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of a service that runs as a process on this stage."""
        return {
            "WCH_AMQP_URL": self.stage.url,
            "WCH_DATABASE_URL": self.database_url,
            "WCH_GRAPH_URL": self.graph_url,
            "WCH_GRAPH_TOKEN": self.graph.token,
            "WCH_WHATSAPP_PHONE_NUMBER_IDS": NUMBER,
            "WCH_PERSON_HASH_KEY": HASH_KEY,
            "WCH_WHATSAPP_RATE": "0",
            "WCH_WHATSAPP_MESSAGING_LIMIT": "-1",
            "WCH_CONFIRM_TIMEOUT_SECONDS": "2",
            "WCH_HEALTH_HOST": "127.0.0.1",
            "WCH_HEALTH_PORT": str(own_port()),
            **changes,
        }

    def start(self, **changes: Any) -> RunningService:
        """Start the service in this process."""
        values = self.settings(**changes)
        service = RunningService(self.stage.url, compose, values, name="whatsapp", settings_type=WhatsAppSettings)
        self.stage.services.append(service)
        return service.start()

    def publish(self, *events: Any, **options: Any) -> list[str]:
        """Publish requests or facts."""
        with self.stage.client(**options) as client:
            return client.publish_many(events)

    @property
    def sent(self) -> list[dict[str, Any]]:
        """The bodies of the messages that Meta accepted."""
        return [one["body"] for one in self.graph.sent]

    def sent_to(self, number: int) -> list[dict[str, Any]]:
        """Return the bodies of the messages that Meta accepted for one recipient."""
        return [body for body in self.sent if body["to"] == phone(number)]

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls that Graph received."""
        return self.graph.journal.calls("/messages", "POST")

    def facts(self, kind: str = "") -> list[dict[str, Any]]:
        """Return the data of the facts published so far whose type contains `kind`."""
        return [event["data"] for event in self.published() if kind in event["type"]]

    def published(self) -> list[dict[str, Any]]:
        """Return the facts published so far, with their routing `key`."""
        return self._collected.events("facts")

    def fail(self, **fault: Any) -> None:
        """Inject a fault into Graph's messages endpoint."""
        self.fail_at("/messages", **fault)

    def fail_at(self, path: str, **fault: Any) -> None:
        """Inject a fault into an endpoint of Graph."""
        self.graph.journal.faults.append(Fault(path, **fault))

    def states(self) -> dict[str, str]:
        """Return the state of every message by its send key."""
        return dict(self.query("SELECT send_key, state FROM messages"))

    def row(self, send_key: str) -> dict[str, Any]:
        """Return one message of the ledger."""
        rows = self._schema.dicts("SELECT * FROM messages WHERE send_key = %s", send_key)
        return rows[0] if rows else {}

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Query the service's schema; returns no rows if the service has never run."""
        try:
            return self._schema.rows(statement)
        except psycopg.errors.UndefinedTable:
            return []

    def status(self, send_key: str, status: str, *, error: int | None = None, tagged: bool = True) -> StatusReceived:
        """Return a status of a message as the webhook receiver publishes it."""
        row = self.row(send_key)
        errors = (StatusError(code=error),) if error else ()
        return StatusReceived(
            phone_number_id=NUMBER,
            wamid=row["wamid"] or f"wamid.late-{send_key}",
            status=status,
            timestamp=datetime.now(UTC),
            tag=f"wch1:{row['id']}:{row['attempt']}" if tagged else None,
            errors=errors,
        )

    def command(self, *words: str, code: int = 0, **environment: str) -> str:
        """Run `wch whatsapp` with the service's settings, check its exit code, and return what it prints."""
        return wch(self.stage, "whatsapp", *words, code=code, WCH_DATABASE_URL=self.database_url, **environment)

    def recipients(self, *words: str, code: int = 0, **environment: str) -> str:
        """Run `wch recipients` for this service alone, check its exit code, and return what it prints."""
        own = {"WCH_PERSON_HASH_KEY": HASH_KEY, "WCH_DATABASE_URL": self.database_url, "WCH_SERVICES": "whatsapp"}
        return wch(self.stage, "recipients", *words, code=code, **(own | environment))

    def close(self) -> None:
        """Stop everything."""
        self.stage.stop()
        self._open.close()


def wrote(number: int, text: str = "Hi", **changes: Any) -> MessageReceived:
    """Return a message from customer `number` as the webhook receiver publishes it."""
    values: dict[str, Any] = {
        "phone_number_id": NUMBER,
        "message_id": f"wamid.in-{number}-{text}",
        "sender": phone(number).removeprefix("+"),
        "timestamp": datetime.now(UTC),
        "kind": "text",
        "text": text,
    }
    return MessageReceived(**(values | changes))


def erased(*names: str, **changes: Any) -> RecipientErased:
    """Return the fact that whatsapp has erased a person."""
    values: dict[str, Any] = {"rows": (), "erasure": "erasure", "at": datetime.now(UTC), "names": names}
    return RecipientErased(**(values | changes))
