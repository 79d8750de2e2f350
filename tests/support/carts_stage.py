"""The carts service on a test's broker and database; the test gives the answers of the whatsapp service."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
from pydantic import SecretStr

from support.collected import Collected
from support.stage import RunningService, Stage
from support.waiting import eventually
from support.whatsapp_stage import HASH_KEY, phone
from wch_carts.identity import cart_uuid
from wch_carts.main import compose
from wch_carts.settings import CartsSettings
from wch_carts.topology import REQUESTER, TOPOLOGY
from wch_common.broker.topology import Topology
from wch_common.contract.event import new_event
from wch_common.events.carts import ReminderScanRequested
from wch_common.events.failure_reasons import failure_reason
from wch_common.events.shop import CartCompleted, CartItem, CartUpdated
from wch_common.events.whatsapp import MessageFailed
from wch_common.settings import QueueSettings, changed_policy

if TYPE_CHECKING:
    from wch_common.contract.event import EventData

SHORT = {work.name.upper().replace(".", "_"): QueueSettings(retry_delays=(1,)) for work in TOPOLOGY.work_queues}
SHORT_TOPOLOGY = Topology(
    tuple(replace(work, policy=changed_policy(work.name, work.policy, SHORT)) for work in TOPOLOGY.work_queues)
)
TEE = CartItem(product_id=1, name="Tee", quantity=2, price="9.95")


def cart(number: int, version: int = 1, **changes: Any) -> CartUpdated:
    """Return the cart of customer `number`."""
    values: dict[str, Any] = {
        "cart_id": f"c{number}",
        "version": version,
        "phone": phone(number),
        "customer_name": "Ada",
        "items": (TEE,),
        "total": "19.90",
        "currency": "EUR",
    }
    return CartUpdated(**(values | changes))


def ordered(number: int, version: int = 2, total: str = "19.90") -> CartCompleted:
    """Return the order of the cart of customer `number`."""
    return CartCompleted(cart_id=f"c{number}", version=version, order_id=100 + number, total=total, currency="EUR")


class CartsStage:
    """Everything the carts service needs, on loopback; requests to whatsapp arrive in queues of the test."""

    def __init__(self, stage: Stage, database_url: str) -> None:
        self.stage = stage
        self.database_url = database_url
        self._schema = stage.schema(database_url, "carts")
        self._collected = Collected(stage)
        stage.declare(SHORT_TOPOLOGY)
        stage.follow("facts", "carts.#")
        keys = ("whatsapp.message.requested.v1", "whatsapp.message.cancel_requested.v1", "whatsapp.retry.requested.v1")
        stage.follow("requests", *keys, exchange="wch.requests")

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a service on this stage, without quiet hours and without a delay."""
        quiet = {"carts_quiet_from": "00:00", "carts_quiet_until": "00:00", "carts_delay_hours": 0.0}
        own = {"database_url": SecretStr(self.database_url), "person_hash_key": SecretStr(HASH_KEY), "queues": SHORT}
        return own | quiet | changes

    def start(self, **changes: Any) -> RunningService:
        """Start the service in this process."""
        values = self.settings(**changes)
        service = RunningService(self.stage.url, compose, values, name="carts", settings_type=CartsSettings)
        self.stage.services.append(service)
        return service.start()

    def publish(self, *events: Any, **options: Any) -> list[str]:
        """Publish requests or facts."""
        with self.stage.client(**options) as client:
            return client.publish_many(events)

    def fill(self, *carts: CartUpdated) -> None:
        """Publish carts as the shop does, and wait until they are stored."""
        self.publish(*carts)
        for one in carts:
            eventually(lambda one=one: self.cart(one.cart_id).get("version") == one.version)  # type: ignore[misc]

    def remind(self, number: int = 1) -> str:
        """Fill a cart, wait for its reminder to be requested, and return the send key."""
        self.fill(cart(number))
        self.publish(ReminderScanRequested())
        found = eventually(lambda: [one for one in self.requests() if one["to"] == phone(number)])
        return str(found[0]["send_key"])

    def claim(self, number: int, age: str = "0 minutes") -> None:
        """Claim a cart, like a scan whose request has not arrived yet."""
        statement = "INSERT INTO reminders (cart, period, shop, state, changed_at) VALUES (%s, 1, '', 'claimed', now() - %s::interval)"
        self.query(statement, cart_uuid("", f"c{number}"), age)
        self.query("UPDATE carts SET remindable = false WHERE cart_id = %s", f"c{number}")

    def await_handled(self, queue: str, events: int) -> None:
        """Wait until this many events of a queue have been handled."""
        eventually(lambda: self.query("SELECT count(*) FROM inbox WHERE queue = %s", queue) == [(events,)])

    def await_published(self) -> None:
        """Wait until every committed event is published, so that a missing one does not arrive later."""
        eventually(lambda: self.query("SELECT 1 FROM outbox") == [])

    def answer(self, model: type[EventData], key: str, **values: Any) -> None:
        """Publish a fact about a message, as whatsapp does."""
        names = {"send_key": key, "message_id": "m1", "attempt": 1} | values
        if model is MessageFailed:
            reason = failure_reason(values["reason"])
            names = {"concerns": reason.concerns, "retryable": reason.retryable} | names
        self.publish(new_event(model.model_validate(names), "/wch/whatsapp", requester=REQUESTER))

    def requests(self, kind: str = "message.requested") -> list[dict[str, Any]]:
        """Return the data of the requests to whatsapp of type `whatsapp.<kind>.v1`."""
        return self._collected.data("requests", f"whatsapp.{kind}.v1")

    def await_requests(self, number: int = 1, kind: str = "message.requested") -> list[dict[str, Any]]:
        """Wait for exactly this many requests to whatsapp of one type."""
        found = self._collected.await_data("requests", f"whatsapp.{kind}.v1", number)
        assert len(found) == number, found
        return found

    def facts(self, kind: str = "") -> list[dict[str, Any]]:
        """Return the data of the facts published so far whose type begins with `carts.<kind>`."""
        return self._collected.data("facts", f"carts.{kind}")

    @property
    def keys(self) -> set[str]:
        """The routing keys of the facts published so far."""
        return {event["key"] for event in self._collected.events("facts")}

    def await_fact(self, kind: str, number: int = 1) -> dict[str, Any]:
        """Wait for the fact with that number and return its data."""
        return self._collected.await_data("facts", f"carts.{kind}", number)[number - 1]

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement in the service's schema; returns no rows before the service has created its tables."""
        try:
            return self._schema.rows(statement, *values)
        except psycopg.errors.UndefinedTable:
            return []

    def cart(self, cart_id: str = "c1") -> dict[str, Any]:
        """Return the row of a cart, or an empty dict."""
        return self._row("SELECT * FROM carts WHERE cart_id = %s", cart_id)

    def reminder(self, cart_id: str = "c1") -> dict[str, Any]:
        """Return the row of a cart's last reminder, or an empty dict."""
        last = (
            "SELECT r.* FROM reminders AS r JOIN carts AS c ON c.id = r.cart WHERE c.cart_id = %s ORDER BY period DESC"
        )
        return self._row(last, cart_id)

    def _row(self, statement: str, *values: Any) -> dict[str, Any]:
        try:
            return next(iter(self._schema.dicts(statement, *values)), {})
        except psycopg.errors.UndefinedTable:
            return {}
