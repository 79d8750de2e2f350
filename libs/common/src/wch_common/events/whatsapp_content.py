"""Contents of WhatsApp messages: text, templates, files and interactive messages, with the limits of the Cloud API."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from wch_common.contract.event import Part
from wch_common.contract.personal import IMPERSONAL, PERSONAL
from wch_common.events.whatsapp_media import Audio, Document, Image, Media, Video
from wch_common.events.whatsapp_template import (
    Currency,
    DateTime,
    Header,
    Location,
    Parameter,
    Template,
    TemplateButton,
    Value,
)
from wch_common.events.whatsapp_text import ValidPlaceholders

# Publishers import every part of a message from here.
__all__ = [
    "Audio",
    "Buttons",
    "Choices",
    "Content",
    "Currency",
    "DateTime",
    "Document",
    "Fallback",
    "Header",
    "Image",
    "ListRow",
    "ListSection",
    "Location",
    "Media",
    "Name",
    "Parameter",
    "Product",
    "ProductList",
    "ProductSection",
    "ReplyButton",
    "Template",
    "TemplateButton",
    "Text",
    "Value",
    "Video",
]

Name = Annotated[str, IMPERSONAL, Field(min_length=1, max_length=200)]


class Text(Part):
    """Free text, inside the 24-hour window; a recipient's values replace {{1}} (the first value) and {{name}}."""

    kind: Literal["text"]
    body: Annotated[str, PERSONAL, Field(min_length=1, max_length=4096), ValidPlaceholders]
    preview_url: bool = False


class _Interactive(Part):
    """A message with buttons or a list, inside the 24-hour window; placeholders in the body work as in a text."""

    body: Annotated[str, PERSONAL, Field(min_length=1, max_length=1024), ValidPlaceholders]
    footer: Annotated[str, PERSONAL, Field(max_length=60)] | None = None


class ReplyButton(Part):
    """A reply button."""

    id: Annotated[str, IMPERSONAL, Field(min_length=1, max_length=256)]
    title: Annotated[str, IMPERSONAL, Field(min_length=1, max_length=20)]


class Buttons(_Interactive):
    """Text with up to three reply buttons."""

    kind: Literal["buttons"]
    header: Annotated[str, PERSONAL, Field(max_length=60)] | None = None
    buttons: Annotated[tuple[ReplyButton, ...], Field(min_length=1, max_length=3)]


class ListRow(Part):
    """A row of a list."""

    id: Annotated[str, IMPERSONAL, Field(min_length=1, max_length=200)]
    title: Annotated[str, IMPERSONAL, Field(min_length=1, max_length=24)]
    description: Annotated[str, IMPERSONAL, Field(max_length=72)] | None = None


class ListSection(Part):
    """Rows of a list under a title."""

    title: Annotated[str, IMPERSONAL, Field(min_length=1, max_length=24)]
    rows: Annotated[tuple[ListRow, ...], Field(min_length=1, max_length=10)]


class Choices(_Interactive):
    """Text with a list of choices."""

    kind: Literal["list"]
    header: Annotated[str, PERSONAL, Field(max_length=60)] | None = None
    button: Annotated[str, IMPERSONAL, Field(min_length=1, max_length=20)]
    sections: Annotated[tuple[ListSection, ...], Field(min_length=1, max_length=10)]


class Product(Part):
    """One product of the catalog."""

    kind: Literal["product"]
    catalog_id: Name
    item_id: Annotated[
        str, IMPERSONAL, Field(min_length=1, max_length=100, description="The item's id in the catalog.")
    ]
    body: Annotated[str, PERSONAL, Field(max_length=1024), ValidPlaceholders] | None = None
    footer: Annotated[str, PERSONAL, Field(max_length=60)] | None = None


class ProductSection(Part):
    """Products under a title."""

    title: Annotated[str, IMPERSONAL, Field(min_length=1, max_length=24)]
    item_ids: Annotated[tuple[str, ...], IMPERSONAL, Field(min_length=1, max_length=30)]


class ProductList(_Interactive):
    """A list of products of the catalog."""

    kind: Literal["product_list"]
    header: Annotated[str, PERSONAL, Field(min_length=1, max_length=60)]
    catalog_id: Name
    sections: Annotated[tuple[ProductSection, ...], Field(min_length=1, max_length=10)]


Content: TypeAlias = Annotated[
    Text | Template | Image | Video | Document | Audio | Buttons | Choices | Product | ProductList,
    Field(discriminator="kind", description="The message to send."),
]
Fallback: TypeAlias = Annotated[
    Template | None,
    Field(
        description="Template to send instead if the 24-hour window is closed. "
        "A recipient's own values replace its values, by name or position."
    ),
]
