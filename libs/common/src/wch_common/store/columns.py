"""Columns that every service's tables have: times, counts and texts that are never null."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Integer, Text, func, text


def moment(name: str, comment: str | None = None, *, needed: bool = False) -> Column[object]:
    """Return a time, which may be absent unless it is needed."""
    return Column(name, DateTime(timezone=True), nullable=not needed, comment=comment)


def now(name: str, comment: str | None = None) -> Column[object]:
    """Return a time that is the transaction's unless given."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now(), comment=comment)


def count(name: str, comment: str | None = None) -> Column[object]:
    """Return a number that begins at 0."""
    return Column(name, Integer, nullable=False, server_default=text("0"), comment=comment)


def words(name: str, comment: str | None = None) -> Column[object]:
    """Return a text that is empty unless given."""
    return Column(name, Text, nullable=False, server_default="", comment=comment)
