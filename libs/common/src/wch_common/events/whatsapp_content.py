"""Contents of WhatsApp messages: text, templates and interactive messages, with the limits of the Cloud API."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from wch_common.contract.event import Part
from wch_common.contract.personal import IMPERSONAL, PERSONAL

Name = Annotated[str, IMPERSONAL, Field(min_length=1, max_length=200)]

PLACEHOLDER = re.compile(r"\{\{\s*([a-z0-9_]{1,64})\s*\}\}")
"""A placeholder in a text, for a recipient's value by position or name."""
_BRACED = re.compile(r"\{\{\s*[\w.-]{1,64}\s*\}\}")


def _has_valid_placeholders(text: str) -> str:
    for found in _BRACED.findall(text):
        if not PLACEHOLDER.fullmatch(found):
            raise ValueError(
                f"{found} is not a valid placeholder: use a number like {{{{1}}}} or a name of a-z, 0-9 and _"
            )
    return text


ValidPlaceholders = AfterValidator(_has_valid_placeholders)


class Parameter(Part):
    """A value for a placeholder, by position or by name."""

    text: Annotated[str, PERSONAL, Field(max_length=1024)]
    name: Annotated[str, IMPERSONAL, Field(pattern="^[a-z0-9_]{1,64}$")] | None = None


class Media(Part):
    """An image, video or document, by its URL or its id at Meta."""

    kind: Literal["image", "video", "document"]
    link: Annotated[str | None, PERSONAL] = None
    id: Annotated[str | None, PERSONAL] = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.link is None) == (self.id is None):
            raise ValueError("give either link or id, not both or neither")
        return self


class TemplateButton(Part):
    """A value for a button of the template: the payload of a reply, the end of a URL, or a product of the catalog."""

    index: Annotated[int, Field(ge=0, le=9)]
    kind: Literal["quick_reply", "url", "catalog"]
    value: Annotated[str, PERSONAL, Field(min_length=1, max_length=256)]


class Template(Part):
    """A template approved by Meta, with values for its placeholders."""

    kind: Literal["template"] = "template"
    name: Annotated[str, IMPERSONAL, Field(pattern="^[a-z0-9_]{1,512}$")]
    language: Annotated[str, IMPERSONAL, Field(pattern="^[a-z]{2,3}(_[A-Z]{2})?$", description="Like en_US.")]
    header: Parameter | Media | None = None
    body: tuple[Parameter, ...] = ()
    buttons: tuple[TemplateButton, ...] = ()


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
    Text | Template | Buttons | Choices | Product | ProductList,
    Field(discriminator="kind", description="The message to send."),
]
Fallback: TypeAlias = Annotated[
    Template | None,
    Field(
        description="Template to send instead if the 24-hour window is closed. "
        "A recipient's own values replace its values, by name or position."
    ),
]
