"""The carts service, with answers of the whatsapp service that a test gives in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
from pydantic import SecretStr

from support.collected import Collected
from support.stage import RunningService, Stage
from support.waiting import eventually
from support.whatsapp_stage import phone
from wch_carts.main import compose
from wch_carts.settings import CartsSettings
from wch_carts.topology import REQUESTER, TOPOLOGY
from wch_common.broker.topology import Topology
from wch_common.contract.event import new_event
from wch_common.events.shop import CartCompleted, CartItem, CartUpdated
from wch_common.settings import QueueSettings, changed_policy

if TYPE_CHECKING:
    from wch_common.contract.event import EventData

SHORT = {work.name.upper().replace(".", "_"): QueueSettings(retry_delays=(1,)) for work in TOPOLOGY.work_queues}
SHORT_TOPOLOGY = Topology(
    tuple(replace(work, policy=changed_policy(work.name, work.policy, SHORT)) for work in TOPOLOGY.work_queues)
)
TEE = CartItem(product_id=1, name="Tee", quantity=2, price="9.95")


def cart(number: int, version: int = 1, **changes: Any) -> CartUpdated:
    """The cart of person `number`."""
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
    """The order of the cart of person `number`."""
    return CartCompleted(cart_id=f"c{number}", version=version, order_id=100 + number, total=total, currency="EUR")


class CartsStage:
    """Everything the carts service needs, on loopback; requests to whatsapp lie in queues of the test's own."""

    def __init__(self, stage: Stage, database_url: str) -> None:
        self.stage = stage
        self.database_url = database_url
        self._schema = stage.schema(database_url, "carts")
        self._collected = Collected(stage)
        stage.declare(SHORT_TOPOLOGY)
        stage.follow("told", "carts.#")
        keys = ("whatsapp.message.requested.v1", "whatsapp.message.cancel_requested.v1", "whatsapp.retry.requested.v1")
        stage.follow("asked", *keys, exchange="wch.requests")

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a service on this stage: nobody's night, and no wait."""
        quiet = {"carts_quiet_from": "00:00", "carts_quiet_until": "00:00", "carts_delay_hours": 0.0}
        return {"database_url": SecretStr(self.database_url), "queues": SHORT} | quiet | changes

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
        """Let the shop fill carts, and wait until they are known."""
        self.publish(*carts)
        for one in carts:
            eventually(lambda one=one: self.cart(one.cart_id).get("version") == one.version)  # type: ignore[misc]

    def answer(self, model: type[EventData], key: str, **values: Any) -> None:
        """Say what became of a message, as whatsapp would."""
        names = {"send_key": key, "message_id": "m1", "attempt": 1} | values
        self.publish(new_event(model.model_validate(names), "/wch/whatsapp", requester=REQUESTER))

    def asked(self, kind: str = "message.requested") -> list[dict[str, Any]]:
        """The data of the requests to whatsapp, by the end of their type."""
        return self._collected.data("asked", f"whatsapp.{kind}.v1")

    def await_asked(self, number: int = 1, kind: str = "message.requested") -> list[dict[str, Any]]:
        """Wait until whatsapp was asked so often, and no more often."""
        found = self._collected.await_data("asked", f"whatsapp.{kind}.v1", number)
        assert len(found) == number, found
        return found

    def told(self, kind: str = "") -> list[dict[str, Any]]:
        """The data of the facts told so far, by the beginning of their type."""
        return self._collected.data("told", f"carts.{kind}")

    @property
    def keys(self) -> set[str]:
        """The routing keys of the facts told so far."""
        return {event["key"] for event in self._collected.events("told")}

    def await_told(self, kind: str, number: int = 1) -> dict[str, Any]:
        """Wait for a fact and return its data, the last of so many."""
        return self._collected.await_data("told", f"carts.{kind}", number)[number - 1]

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the service's schema; nothing is there before the service was."""
        try:
            return self._schema.rows(statement, *values)
        except psycopg.errors.UndefinedTable:
            return []

    def cart(self, cart_id: str = "c1") -> dict[str, Any]:
        """The row of a cart, or nothing."""
        return self._row("SELECT * FROM carts WHERE cart_id = %s", cart_id)

    def reminder(self, cart_id: str = "c1") -> dict[str, Any]:
        """The row of a cart's last reminder, or nothing."""
        last = (
            "SELECT r.* FROM reminders AS r JOIN carts AS c ON c.id = r.cart WHERE c.cart_id = %s ORDER BY period DESC"
        )
        return self._row(last, cart_id)

    def _row(self, statement: str, *values: Any) -> dict[str, Any]:
        try:
            return next(iter(self._schema.dicts(statement, *values)), {})
        except psycopg.errors.UndefinedTable:
            return {}
