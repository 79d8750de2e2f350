"""Parts of events that the machinery shares among families."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wch_common.contract.event import Part, Time
from wch_common.contract.personal import IMPERSONAL


class TableRows(Part):
    """How many rows of a table an operation affected."""

    table: Annotated[str, IMPERSONAL]
    rows: Annotated[int, Field(ge=0)]


ErasureId = Annotated[
    str, IMPERSONAL, Field(description="Id of the request to erase, `whatsapp.recipient.erase_requested`.")
]
"""Which erasure an answer belongs to."""

AsOf = Annotated[
    Time | None,
    Field(
        description="When the requester came to know the people whom the request names, if that was before the request: who was erased since "
        "is left out."
    ),
]
"""How old what a request says of people is."""
