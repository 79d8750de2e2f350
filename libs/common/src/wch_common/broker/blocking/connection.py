"""A synchronous connection to the broker, for declaring, reading and publishing with confirms."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import amqp.exceptions
import kombu
import kombu.exceptions

from wch_common.broker.address import amqp_problem
from wch_common.errors import SettingsError, WchError
from wch_common.observability.redact import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_SECONDS = 10


class BrokerUnreachable(WchError):
    """The broker cannot be reached; the message says why, without the password."""


# What kombu and py-amqp raise for a fault of the connection rather than of the request.
CONNECTION_ERRORS = (kombu.exceptions.OperationalError, amqp.exceptions.ConnectionError, OSError)


@contextmanager
def open_connection(url: str, name: str = "wch") -> Iterator[kombu.Connection]:
    """Open a connection and close it at the end; raises BrokerUnreachable."""
    connection = new_connection(url, name)
    try:
        try:
            connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
        except (*CONNECTION_ERRORS, amqp.exceptions.AMQPError) as error:
            raise BrokerUnreachable(connect_problem(error)) from None
        yield connection
    finally:
        connection.release()


def connect_problem(error: Exception) -> str:
    """Return why the connection failed, as a sentence without the password."""
    if isinstance(error, amqp.exceptions.AccessRefused):
        return "the broker refuses this user: wrong name or password, or no permission for this virtual host"
    if isinstance(error, amqp.exceptions.NotAllowed):
        return "the broker has no such virtual host, or this user may not use it"
    return f"the broker cannot be reached: {redact(str(error), 300)}"


def new_connection(url: str, name: str, *, confirm_timeout_seconds: float = 30.0) -> kombu.Connection:
    """Return an unopened connection that publishes with confirms, for which it waits a limited time.

    Raises SettingsError for an invalid address.
    """
    if problem := amqp_problem(url):
        raise SettingsError(f"the broker's address {problem}")
    return kombu.Connection(
        url,
        connect_timeout=CONNECT_SECONDS,
        failover_strategy="round-robin",
        transport_options={
            "confirm_publish": True,
            "confirm_timeout": confirm_timeout_seconds,
            "client_properties": {"connection_name": name, "product": "WCH Jobs"},
        },
    )
