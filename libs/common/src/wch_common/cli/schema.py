"""A service's own tables, for its subcommands."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from wch_common.cli.output import Wrong
from wch_common.redact import error_text
from wch_common.store.database import in_utf8

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def service_schema(database_url: str | None, service: str, holds: str) -> Iterator[Any]:
    """Open the schema of a service, whose rows (`holds`, in the plural) come as dicts; raises Wrong."""
    if database_url is None:
        raise Wrong(f"{holds} are in the service's database: give --database-url, or set WCH_DATABASE_URL")
    try:
        address = in_utf8(database_url, options=f"-c search_path={service} -c timezone=UTC")
        with psycopg.connect(address, connect_timeout=5, row_factory=dict_row, autocommit=True) as connection:
            yield connection
    except psycopg.errors.UndefinedTable:
        raise Wrong(f"this database has no {holds}: the {service} service has not run on it") from None
    except psycopg.Error as error:
        raise Wrong(f"the database does not answer: {error_text(error, 300)}") from None
