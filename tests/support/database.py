"""A service's schema, queried by the test."""

from __future__ import annotations

from typing import Any

import psycopg


class Schema:
    """Queries of one schema, on a connection that is opened when first needed and after it breaks."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self._name = name
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        cursor = self._execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    def dicts(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Return the rows of a statement as dicts."""
        cursor = self._execute(statement, values)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _execute(self, statement: str, values: tuple[Any, ...]) -> psycopg.Cursor[tuple[Any, ...]]:
        try:
            return self._connected().execute(statement.encode(), values or None)
        except psycopg.OperationalError:
            self.close()
            return self._connected().execute(statement.encode(), values or None)

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None:
            options = f"-c search_path={self._name}"
            # Not prepared, because tests change tables and run several statements in one call.
            self._connection = psycopg.connect(self.url, autocommit=True, options=options, prepare_threshold=None)
        return self._connection
