"""Parts of events that the machinery shares among families."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wch_common.contract.event import Part


class TableRows(Part):
    """How many rows of a table an operation affected."""

    table: str
    rows: Annotated[int, Field(ge=0)]
