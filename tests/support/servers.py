"""The broker and the database server of a test run, shared by all its processes."""

from __future__ import annotations

import importlib
import os
import secrets
import threading
from contextlib import ExitStack
from multiprocessing.managers import BaseManager
from typing import Any

import psycopg

from support.families import services
from support.nodes import start_node
from support.scratch import new_folder
from wch_common.store.migrate import migrate
from wch_local.postgres import EmbeddedServer

# A dozen tests at a time, each with the pools of several services. Nothing has to survive a crash of the machine.
_POSTGRES = {"max_connections": 500, "fsync": "off", "full_page_writes": "off"}


class Servers:
    """Starts each server when it is first needed, or uses the given address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._broker = os.environ.get("WCH_TEST_AMQP_URL", "").rstrip("/")
        self._database: tuple[str, str] | None = None

    def broker(self) -> str:
        """Return the broker's AMQP address: the given one, that of a container, or that of a private node."""
        with self._lock:
            if not self._broker:
                node = start_node()
                self._open.callback(node.remove)
                self._open.callback(node.kill)
                self._broker = node.amqp_url
            return self._broker

    def database(self) -> tuple[str, str]:
        """Return the address of the server's maintenance database, and the name of a database with every service's tables."""
        with self._lock:
            if self._database is None:
                address = os.environ.get("WCH_TEST_DATABASE_URL") or self._start_postgres()
                self._database = address, self._create_template(address)
            return self._database

    def stop(self) -> None:
        """Stop what was started."""
        with self._lock:
            self._open.close()

    def _start_postgres(self) -> str:
        server = EmbeddedServer(new_folder("postgres"), settings=_POSTGRES)
        self._open.callback(server.remove)
        self._open.callback(server.stop)
        return server.start()

    def _create_template(self, address: str) -> str:
        """Create the database that tests copy, because a copy is made ten times faster than the tables."""
        name = f"wch_test_template_{secrets.token_hex(4)}"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        self._open.callback(drop_database, address, name)
        for service in services():
            migrations = getattr(importlib.import_module(f"wch_{service}.main"), "MIGRATIONS", ())
            migrate(psycopg.conninfo.make_conninfo(address, dbname=name), service, migrations)
        return name


def create_database(address: str, template: str | None = None) -> str:
    """Create a database, empty or as a copy of another, and return its address."""
    name = f"wch_test_{secrets.token_hex(4)}"
    with psycopg.connect(address, autocommit=True) as connection:
        copied = f" TEMPLATE {template}" if template else ""
        # Copying files takes half the time of writing each page to the log as well. PostgreSQL 14 always copies files.
        how = " STRATEGY file_copy" if connection.info.server_version >= 150_000 else ""
        connection.execute(f"CREATE DATABASE {name}{copied}{how}".encode())
    return psycopg.conninfo.make_conninfo(address, dbname=name)


def drop_database(address: str, name: str) -> None:
    """Drop a database, whoever is connected to it."""
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


class _Manager(BaseManager):
    pass


_Manager.register("servers")


def serve(servers: Servers) -> dict[str, Any]:
    """Answer the run's other processes from a thread, and return what `remote` needs."""

    class Manager(BaseManager):
        pass

    Manager.register("servers", callable=lambda: servers)
    key = secrets.token_bytes(16)
    server = Manager(("127.0.0.1", 0), key).get_server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return {"address": server.address, "key": key.hex()}


def remote(where: dict[str, Any]) -> Servers:
    """Return the servers of the process that called `serve`."""
    host, port = where["address"]
    manager = _Manager((host, port), bytes.fromhex(where["key"]))
    manager.connect()
    return manager.servers()  # type: ignore[attr-defined,no-any-return]
