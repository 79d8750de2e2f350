"""The broker's management API: what AMQP does not offer, for checks and operators' tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, unquote, urlsplit

import httpx

from wch_common.broker.address import amqp_problem
from wch_common.errors import SettingsError, WchError
from wch_common.observability.redact import error_text

if TYPE_CHECKING:
    from collections.abc import Iterable

_OFFSET = 10_000
_DEFAULT_AMQP_PORT = 5672


class ManagementUnreachable(WchError):
    """The management API cannot be reached, or refuses this user."""


def management_addresses(amqp_url: str) -> list[str]:
    """Return the default address of each node's management API: 10,000 ports above AMQP."""
    nodes = [urlsplit(one) for one in amqp_url.split(";")]
    return [f"http://{node.hostname}:{(node.port or _DEFAULT_AMQP_PORT) + _OFFSET}" for node in nodes]


class Management:
    """The management API of one virtual host, as the user of the AMQP address; of several nodes, any that answers.

    Raises SettingsError for an invalid address.
    """

    def __init__(self, amqp_url: str, management_url: str | None = None) -> None:
        if problem := amqp_problem(amqp_url):
            raise SettingsError(f"the broker's address {problem}")
        parts = urlsplit(amqp_url.split(";", maxsplit=1)[0])
        self.vhost = unquote(parts.path[1:]) or "/"
        user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        self._addresses = [management_url.rstrip("/")] if management_url else management_addresses(amqp_url)
        self._client = httpx.Client(auth=(user, password), timeout=15)
        self._at = quote(self.vhost, safe="")

    @property
    def address(self) -> str:
        """The node in use."""
        return self._addresses[0]

    def overview(self) -> dict[str, Any]:
        """Return the broker's version and totals."""
        return dict(self._get("/overview"))

    def alarms(self) -> str | None:
        """Return which alarm is active, or None."""
        response = self._request("/health/checks/alarms")
        return None if response.is_success else str(response.json().get("reason", "an alarm is active"))

    def queues(self) -> dict[str, dict[str, Any]]:
        """Return every queue of the virtual host by name."""
        return {queue["name"]: queue for queue in self._get(f"/queues/{self._at}")}

    def exchanges(self) -> dict[str, dict[str, Any]]:
        """Return every exchange by name."""
        return {exchange["name"]: exchange for exchange in self._get(f"/exchanges/{self._at}")}

    def bindings(self) -> set[tuple[str, str, str]]:
        """Return every binding as exchange, queue and key."""
        rows: Iterable[dict[str, Any]] = self._get(f"/bindings/{self._at}")
        return {(row["source"], row["destination"], row["routing_key"]) for row in rows if row["source"]}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        response = self._request(path)
        if response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise ManagementUnreachable(
                f"the management API at {self.address} refuses this user: give the user the tag `monitoring`"
            )
        if not response.is_success:
            raise ManagementUnreachable(f"the management API returned HTTP {response.status_code} for {path}")
        return response.json()

    def _request(self, path: str) -> httpx.Response:
        """Send a request to the first node that answers, and keep using it."""
        failures = []
        for address in tuple(self._addresses):
            try:
                return self._client.get(f"{self.address}/api{path}")
            except httpx.TransportError as error:
                failures.append(f"{address} ({error_text(error)})")
                self._addresses.append(self._addresses.pop(0))
        raise ManagementUnreachable(
            f"the management API cannot be reached at {', '.join(failures)}; set WCH_MANAGEMENT_URL"
        ) from None
