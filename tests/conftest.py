"""Brokers and databases for the tests: chosen when first needed, and isolated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from psycopg.conninfo import conninfo_to_dict
from xdist.scheduler import LoadScopeScheduling

from support.servers import Servers, create_database, drop_database, remote, serve
from support.stage import Broker, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.remote import Producer

# The same examples in each run, and no limit of time, so that neither chance nor the machine decides whether a test passes.
settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

# Their fixtures are expensive (a node of their own, a copy of the repository), so they run on one worker, and first.
ON_ONE_WORKER = {
    "tests/faults/test_broker_faults.py": "a node of their own",
    "tests/faults/test_scheduler_outages.py": "a node of their own",
    "tests/e2e/test_release.py": "releases",
}


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Give each test to the next free worker, but the modules in `ON_ONE_WORKER` to one worker each.

    `--dist loadgroup` would do this with marks, but pytest 9.2 ignores its groups (pytest-xdist issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return ON_ONE_WORKER.get(module, nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


_SERVERS = pytest.StashKey[Servers]()
_SERVED = pytest.StashKey[dict[str, Any]]()


def pytest_configure(config: pytest.Config) -> None:
    """Share one broker and one database server among the processes of the run; the first one stops them."""
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    config.stash[_SERVERS] = remote(given["servers"]) if given else Servers()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    stash = node.config.stash
    if _SERVED not in stash:
        stash[_SERVED] = serve(stash[_SERVERS])
    node.workerinput["servers"] = stash[_SERVED]


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[_SERVERS].stop()


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config) -> Broker:
    """The broker of the run: the given address, Docker, or a private node."""
    return Broker(pytestconfig.stash[_SERVERS].broker())


@pytest.fixture
def stage(broker: Broker) -> Iterator[Stage]:
    """A virtual host of the test's own."""
    url = broker.create_vhost()
    made = Stage(broker, url)
    yield made
    made.close()
    broker.delete_vhost(url)


@pytest.fixture(scope="session")
def database_server(pytestconfig: pytest.Config) -> str:
    """Address of a PostgreSQL server's maintenance database: the given one, or an embedded server."""
    return pytestconfig.stash[_SERVERS].database()[0]


@pytest.fixture
def database_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """A database of the test's own, with the tables of every service."""
    yield from _database(*pytestconfig.stash[_SERVERS].database())


@pytest.fixture
def empty_database_url(database_server: str) -> Iterator[str]:
    """A database of the test's own, without tables."""
    yield from _database(database_server)


def _database(address: str, template: str | None = None) -> Iterator[str]:
    url = create_database(address, template)
    yield url
    drop_database(address, str(conninfo_to_dict(url)["dbname"]))
