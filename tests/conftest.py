"""Brokers and databases for the tests: decided lazily, isolated, and said."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.nodes import start_node
from support.stage import Broker, Stage
from wch_local.postgres import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The broker of the session: the address given, Docker, or a private node."""
    if given := os.environ.get("WCH_TEST_AMQP_URL"):
        yield Broker(given.rstrip("/"))
        return
    node = start_node()
    yield Broker(node.amqp_url)
    node.stop()
    node.remove()


@pytest.fixture
def stage(broker: Broker) -> Iterator[Stage]:
    """A virtual host of the test's own."""
    url = broker.create_vhost()
    made = Stage(broker, url)
    yield made
    made.stop()
    broker.delete_vhost(url)


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    """Address of a PostgreSQL server's maintenance database: the one given, or an embedded server."""
    if given := os.environ.get("WCH_TEST_DATABASE_URL"):
        yield given
        return
    server = EmbeddedServer(Path(tempfile.mkdtemp(prefix="wch-postgres-", dir="/var/tmp")))
    yield server.start()
    server.stop()
    server.remove()


@pytest.fixture
def database_url(database_server: str) -> Iterator[str]:
    """A database of the test's own."""
    name = f"wch_test_{secrets.token_hex(4)}"
    with psycopg.connect(database_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield psycopg.conninfo.make_conninfo(database_server, dbname=name)
    with psycopg.connect(database_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
