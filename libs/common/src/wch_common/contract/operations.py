"""Parts of events that the machinery shares among families."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wch_common.contract.event import Part
from wch_common.contract.personal import IMPERSONAL


class TableRows(Part):
    """How many rows of a table an operation affected."""

    table: Annotated[str, IMPERSONAL]
    rows: Annotated[int, Field(ge=0)]


ErasureId = Annotated[
    str, IMPERSONAL, Field(description="Id of the request to erase, `whatsapp.recipient.erase_requested`.")
]
"""Which erasure an answer belongs to."""
