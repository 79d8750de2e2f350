"""A service's schema, looked at from outside."""

from __future__ import annotations

from typing import Any

import psycopg


class Schema:
    """Questions to one schema, on one connection that is made when it is first needed, and again when it broke."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self._name = name
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        cursor = self._execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    def dicts(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Return its rows by their columns' names."""
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
            # Not prepared: a test changes tables, and asks several things in one statement.
            self._connection = psycopg.connect(self.url, autocommit=True, options=options, prepare_threshold=None)
        return self._connection
