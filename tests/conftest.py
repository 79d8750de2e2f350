"""Brokers and databases for the tests: decided lazily, isolated, and said."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.stage import Broker, Stage
from wch_local.postgres import EmbeddedServer
from wch_local.rabbitmq import PrivateNode

if TYPE_CHECKING:
    from collections.abc import Iterator


def start_private_node() -> PrivateNode:
    """Start a node of the tests' own, of the installation that WCH_RABBITMQ_ROOT names."""
    root = Path(os.environ.get("WCH_RABBITMQ_ROOT") or "/")
    # Made by the node itself, below its root: a folder made here would stay behind on another root's run.
    folder = Path("/var/tmp") / f"wch-node-{secrets.token_hex(4)}"  # noqa: S108 - a name nobody can guess
    node = PrivateNode.new(folder, root)
    node.start()
    return node


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The broker of the session: the address given, or a private node."""
    if given := os.environ.get("WCH_TEST_AMQP_URL"):
        yield Broker(given.rstrip("/"))
        return
    node = start_private_node()
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
