"""Kinds of columns that many tables have: times, counts, and texts that are never null."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Integer, Text, func, text


def timestamp(name: str, comment: str | None = None, *, needed: bool = False) -> Column[object]:
    """Return a column for a time; it may be null unless `needed`."""
    return Column(name, DateTime(timezone=True), nullable=not needed, comment=comment)


def now(name: str, comment: str | None = None) -> Column[object]:
    """Return a column for a time that defaults to the transaction's."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now(), comment=comment)


def count(name: str, comment: str | None = None) -> Column[object]:
    """Return a column for a number that starts at 0."""
    return Column(name, Integer, nullable=False, server_default=text("0"), comment=comment)


def text_column(name: str, comment: str | None = None) -> Column[object]:
    """Return a column for a text that defaults to the empty text."""
    return Column(name, Text, nullable=False, server_default="", comment=comment)
