"""What WhatsApp sends: texts, templates, and what people answer with a touch (limits: facts of the Cloud API)."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from wch_common.contract.event import Part

Name = Annotated[str, Field(min_length=1, max_length=200)]

PLACEHOLDER = re.compile(r"\{\{\s*([a-z0-9_]{1,64})\s*\}\}")
"""Of a text: a value of a recipient's own, by place or name."""
_MEANT = re.compile(r"\{\{\s*[\w.-]{1,64}\s*\}\}")


def _names_values(text: str) -> str:
    for found in _MEANT.findall(text):
        if not PLACEHOLDER.fullmatch(found):
            raise ValueError(f"{found} is no placeholder: write {{{{1}}}}, or a name of small letters, digits and _")
    return text


Readable = AfterValidator(_names_values)


class Parameter(Part):
    """A value for a placeholder: positional, or by the placeholder's name."""

    text: Annotated[str, Field(max_length=1024)]
    name: Annotated[str, Field(pattern="^[a-z0-9_]{1,64}$")] | None = None


class Media(Part):
    """A picture, film or file, by its address or its id at Meta."""

    kind: Literal["image", "video", "document"]
    link: str | None = None
    id: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.link is None) == (self.id is None):
            raise ValueError("give either link or id")
        return self


class TemplateButton(Part):
    """A value for one of the template's buttons: a reply's payload, an address's end, or a catalog's product."""

    index: Annotated[int, Field(ge=0, le=9)]
    kind: Literal["quick_reply", "url", "catalog"]
    value: Annotated[str, Field(min_length=1, max_length=256)]


class Template(Part):
    """A template approved by Meta, with the values of its placeholders."""

    kind: Literal["template"] = "template"
    name: Annotated[str, Field(pattern="^[a-z0-9_]{1,512}$")]
    language: Annotated[str, Field(pattern="^[a-z]{2,3}(_[A-Z]{2})?$", description="Like en_US.")]
    header: Parameter | Media | None = None
    body: tuple[Parameter, ...] = ()
    buttons: tuple[TemplateButton, ...] = ()


class Text(Part):
    """Free text, inside the 24-hour window; {{1}} and {{name}} are filled from a batch recipient's values, {{1}} from the first of them."""

    kind: Literal["text"]
    body: Annotated[str, Field(min_length=1, max_length=4096), Readable]
    preview_url: bool = False


class _Interactive(Part):
    """What people may answer with a touch, inside the 24-hour window; the body is filled as a text is."""

    body: Annotated[str, Field(min_length=1, max_length=1024), Readable]
    footer: Annotated[str, Field(max_length=60)] | None = None


class ReplyButton(Part):
    """One button of a message."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    title: Annotated[str, Field(min_length=1, max_length=20)]


class Buttons(_Interactive):
    """Text with up to three buttons."""

    kind: Literal["buttons"]
    header: Annotated[str, Field(max_length=60)] | None = None
    buttons: Annotated[tuple[ReplyButton, ...], Field(min_length=1, max_length=3)]


class Row(Part):
    """One line of a list."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    title: Annotated[str, Field(min_length=1, max_length=24)]
    description: Annotated[str, Field(max_length=72)] | None = None


class Section(Part):
    """Lines of a list under a title."""

    title: Annotated[str, Field(min_length=1, max_length=24)]
    rows: Annotated[tuple[Row, ...], Field(min_length=1, max_length=10)]


class Choices(_Interactive):
    """Text with a list to choose from."""

    kind: Literal["list"]
    header: Annotated[str, Field(max_length=60)] | None = None
    button: Annotated[str, Field(min_length=1, max_length=20)]
    sections: Annotated[tuple[Section, ...], Field(min_length=1, max_length=10)]


class Product(Part):
    """One product of the catalog."""

    kind: Literal["product"]
    catalog_id: Name
    item_id: Annotated[str, Field(min_length=1, max_length=100, description="The item's id in the catalog.")]
    body: Annotated[str, Field(max_length=1024), Readable] | None = None
    footer: Annotated[str, Field(max_length=60)] | None = None


class ProductSection(Part):
    """Products under a title."""

    title: Annotated[str, Field(min_length=1, max_length=24)]
    item_ids: Annotated[tuple[str, ...], Field(min_length=1, max_length=30)]


class ProductList(_Interactive):
    """Several products of the catalog."""

    kind: Literal["product_list"]
    header: Annotated[str, Field(min_length=1, max_length=60)]
    catalog_id: Name
    sections: Annotated[tuple[ProductSection, ...], Field(min_length=1, max_length=10)]


Content: TypeAlias = Annotated[
    Text | Template | Buttons | Choices | Product | ProductList,
    Field(discriminator="kind", description="What is sent."),
]
Fallback: TypeAlias = Annotated[
    Template | None,
    Field(
        description="Sent instead where the 24-hour window is closed, with a recipient's own values in the place of its own, "
        "by name or place."
    ),
]
