"""Files of WhatsApp messages: in the header of a template, or as a message of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from wch_common.contract.event import Part
from wch_common.contract.personal import ERASED, PERSONAL
from wch_common.events.whatsapp_text import ValidPlaceholders

# Meta fetches files by HTTP too.
_ADDRESS = re.compile(r"https?://[^\s/?#]+\S*", re.IGNORECASE)


class _File(Part):
    link: Annotated[
        str | None,
        PERSONAL,
        Field(description="The http or https address of the file, from which Meta fetches it."),
    ] = None
    id: Annotated[str | None, PERSONAL, Field(description="The id of a file that was uploaded to Meta.")] = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if bool(self.link) == bool(self.id):
            raise ValueError("give either link or id, not both or neither")
        return self


def refuse_unreachable(file: _File, field: str) -> None:
    """Raise ValueError, which names the field, if Meta cannot fetch a file by its link."""
    if file.link and file.link != ERASED and not _ADDRESS.fullmatch(file.link):
        raise ValueError(f"{field} must be an http or https address, like https://shop.example/invoice.pdf")


Filename = Annotated[
    str,
    PERSONAL,
    Field(
        min_length=1,
        max_length=255,
        description="The name under which the recipient sees the document; its extension decides the icon.",
    ),
]
Caption = Annotated[
    str,
    PERSONAL,
    Field(
        min_length=1,
        max_length=1024,
        description="Text below the file; a recipient's values replace {{1}} (the first value) and {{name}}.",
    ),
    ValidPlaceholders,
]


class Media(_File):
    """An image, video or document in the header of a template, by its address or its id at Meta."""

    kind: Literal["image", "video", "document"]
    filename: Filename | None = None

    @model_validator(mode="before")
    @classmethod
    def _loses_no_caption(cls, data: Any) -> Any:  # noqa: ANN401 - as it was read
        if isinstance(data, Mapping) and data.get("caption") is not None:
            raise ValueError("caption: WhatsApp shows none in the header of a template; write it into the body")
        return data

    @model_validator(mode="after")
    def _has_a_name_if_it_shows_one(self) -> Self:
        if self.filename is not None and self.kind != "document":
            raise ValueError(f"filename: WhatsApp shows none with {_A[self.kind]}; leave it out")
        return self


class _FileMessage(_File):
    @model_validator(mode="before")
    @classmethod
    def _loses_nothing(cls, data: Any) -> Any:  # noqa: ANN401 - as it was read
        """Refuse a caption or a file name where WhatsApp has none, because it would be lost silently."""
        for name in ("caption", "filename"):
            if isinstance(data, Mapping) and data.get(name) is not None and name not in cls.model_fields:
                raise ValueError(f"{name}: WhatsApp shows none with {_A[cls.__name__.lower()]}; leave it out")
        return data

    @model_validator(mode="after")
    def _is_reachable(self) -> Self:
        refuse_unreachable(self, "link")
        return self


class Image(_FileMessage):
    """A picture, inside the 24-hour window."""

    kind: Literal["image"]
    caption: Caption | None = None


class Video(_FileMessage):
    """A video, inside the 24-hour window."""

    kind: Literal["video"]
    caption: Caption | None = None


class Document(_FileMessage):
    """A document, inside the 24-hour window."""

    kind: Literal["document"]
    caption: Caption | None = None
    filename: Filename | None = None


class Audio(_FileMessage):
    """A sound, inside the 24-hour window."""

    kind: Literal["audio"]


_A = {"image": "an image", "video": "a video", "audio": "an audio file"}
