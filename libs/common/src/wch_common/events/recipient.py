"""A person on WhatsApp in events: by phone number, by Meta's ids of them, or by several of these.

Since 2026 WhatsApp users may hide their number. Meta then names them by an id that holds in one business portfolio.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Final, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from wch_common.contract.event import Part
from wch_common.contract.personal import IDENTIFIES, IDENTIFIES_AND_STAYS

# Meta, "Business-scoped user IDs", June 2026: the country (ISO 3166) and up to 128 alphanumeric characters.
_USER_ID: Final = r"[A-Z]{2}\.[A-Za-z0-9]{1,128}"
_PARENT_ID: Final = r"[A-Z]{2}\.ENT\.[A-Za-z0-9]{1,128}"
_EITHER: Final = re.compile(rf"{_USER_ID}|{_PARENT_ID}")
_LONGEST: Final = 100
_LINK: Final = re.compile(r"(?:https?://|wa\.me/|api\.whatsapp\.)", re.IGNORECASE)
_ALMOST: Final = re.compile(r"[A-Za-z]{2}\s*[.,].*", re.DOTALL)


class MalformedRecipient(ValueError):
    """The text is neither a phone number nor an id of Meta's; the message says why, without quoting it."""


class Recipient(Part):
    """A person on WhatsApp; at least one of the fields is given, and all that are given mean the same person."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    phone: Annotated[
        str | None,
        IDENTIFIES,
        Field(max_length=_LONGEST, description="A phone number, preferably as +<country><number>."),
    ] = None
    user_id: Annotated[
        str | None,
        IDENTIFIES,
        Field(
            pattern=f"^{_USER_ID}$",
            description="Meta's business-scoped user id, like DE.1234567890, exactly as Meta wrote it.",
        ),
    ] = None
    parent_id: Annotated[
        str | None,
        IDENTIFIES,
        Field(
            pattern=f"^{_PARENT_ID}$",
            description="Meta's parent id of the person, like DE.ENT.1234567890, which holds in all enrolled portfolios.",
        ),
    ] = None

    @model_validator(mode="after")
    def _is_somebody(self) -> Self:
        if not self.names:
            raise ValueError("names nobody: give phone, user_id or parent_id")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that names the person: the number first, by which Meta prefers to be asked."""
        return tuple(filter(None, (self.phone, self.user_id, self.parent_id)))


def is_id(text: str) -> bool:
    """Whether a text is an id of Meta's, of a user or a parent id."""
    return _EITHER.fullmatch(text) is not None


# The pattern of an id comes before any reading as a number: the digits of DE.1234567890 are another person's number.
def recipient_in(text: str) -> Recipient:
    """Return the person that a text names: by an id of Meta's, or by a number, which is not read yet. Raises MalformedRecipient."""
    plain = "".join(one for one in text if unicodedata.category(one) != "Cf").strip()
    if is_id(plain):
        is_parent = plain[3:].startswith("ENT.")
        return Recipient(parent_id=plain) if is_parent else Recipient(user_id=plain)
    if not plain or len(plain) > _LONGEST:
        raise MalformedRecipient(f"not a phone number: it is {'too long' if plain else 'empty'}")
    if _LINK.match(plain):
        raise MalformedRecipient("not a phone number: it is a link; write the number as +<country><number>")
    if _ALMOST.fullmatch(plain):
        raise MalformedRecipient(
            "not a WhatsApp user id: it has two capitals, a full stop and alphanumeric characters only, like DE.1234567890"
        )
    return Recipient(phone=plain)


def _form(value: object) -> str:
    return "text" if isinstance(value, str) else "object"


_TextOrObject = Annotated[
    Annotated[str, Field(max_length=200), Tag("text")] | Annotated[Recipient, Tag("object")],
    Discriminator(_form),
    Field(
        description="A phone number, preferably as +<country><number>, or Meta's id of a user, like DE.1234567890; or an "
        "object, if more than one of them is known."
    ),
]
To = Annotated[_TextOrObject, IDENTIFIES]
"""Who a message is for."""
# Erasing a person must not lose what is requested for them.
About = Annotated[_TextOrObject, IDENTIFIES_AND_STAYS]
"""Whom a request is about."""


def to_field(phone: str | None, id_: str | None) -> str | Recipient:
    """Return the value of a field for a person with a number, one of Meta's ids, or both; raises MalformedRecipient for neither."""
    if phone is None or id_ is None:
        return (recipient_in(phone or id_ or "")).names[0]
    return recipient_in(id_).model_copy(update={"phone": phone})


def names_in(to: str | Recipient) -> tuple[str, ...]:
    """Return every text that names the person in a field."""
    return (to,) if isinstance(to, str) else to.names
