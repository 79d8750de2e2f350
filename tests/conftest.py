"""Brokers and databases for the tests: chosen when first needed, and isolated."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import psycopg
import pytest
from xdist.scheduler import LoadScopeScheduling

from support.nodes import start_node
from support.scratch import new_folder
from support.stage import Broker, Stage
from wch_local.postgres import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.remote import Producer

# Their fixtures are expensive (a node of their own, built packages), so they run on one worker, and first.
ON_ONE_WORKER = {
    "tests/faults/test_broker_faults.py": "a node of their own",
    "tests/faults/test_scheduler_outages.py": "a node of their own",
    "tests/e2e/test_packages.py": "packages",
    "tests/e2e/test_release.py": "releases",
}


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Give each test to the next free worker, but the modules in `ON_ONE_WORKER` to one worker each.

    `--dist loadgroup` would do this with marks, but pytest 9.2 ignores its groups (pytest-xdist issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return ON_ONE_WORKER.get(module, nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The broker of the session: the given address, Docker, or a private node."""
    if given := os.environ.get("WCH_TEST_AMQP_URL"):
        yield Broker(given.rstrip("/"))
        return
    node = start_node()
    yield Broker(node.amqp_url)
    node.kill()
    node.remove()


@pytest.fixture
def stage(broker: Broker) -> Iterator[Stage]:
    """A virtual host of the test's own."""
    url = broker.create_vhost()
    made = Stage(broker, url)
    yield made
    made.close()
    broker.delete_vhost(url)


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    """Address of a PostgreSQL server's maintenance database: the given one, or an embedded server."""
    if given := os.environ.get("WCH_TEST_DATABASE_URL"):
        yield given
        return
    server = EmbeddedServer(new_folder("postgres"))
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
