"""The text of a reminder: values of a template, from short texts with placeholders that cannot execute anything."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import regex
from babel import Locale, UnknownLocaleError
from babel.numbers import format_currency
from pydantic import AfterValidator

from wch_carts.reminder_values import coupon_code, customer_name, own_link, own_path
from wch_common.events.whatsapp_content import Parameter, Template, TemplateButton

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

PLACEHOLDERS: Final = ("name", "items", "total", "coupon", "link")
_PLACEHOLDER = re.compile(r"\{(?P<name>[^{}|]*)(?:\|(?P<otherwise>[^{}]*))?\}")
_NOTHING = "–"
# Limits of the Cloud API for a value of the body and of a button.
_BODY_LENGTH, _BUTTON_LENGTH = 1024, 256
_NAME_LENGTH = 100
_GRAPHEME = regex.compile(r"\X")


def _checked(text: str) -> str:
    """Return a text that can be filled; raises ValueError that names the place of the error."""
    rest = _PLACEHOLDER.sub(lambda found: " " * len(found[0]), text)
    for brace in "{}":
        if brace in rest:
            raise ValueError(f"character {rest.index(brace) + 1} of {text!r}: a brace outside of a placeholder")
    for found in _PLACEHOLDER.finditer(text):
        if found["name"] not in PLACEHOLDERS:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"character {found.start() + 1} of {text!r}: unknown placeholder {found[0]}; use {known}")
    return text


ShortText = Annotated[str, AfterValidator(_checked)]
"""Like `Hello {name|there}`: the text after the bar replaces an empty value."""


@dataclass(frozen=True)
class ReminderText:
    """A shop's reminder: an approved template, and the short texts of its values."""

    template: str
    language: str
    body: tuple[str, ...]
    button: str | None
    most_items: int
    link_hosts: tuple[str, ...] = ()

    def filled(self, cart: Mapping[str, Any]) -> Template:
        """Return the template with the values of a cart's row."""
        values = {
            "name": customer_name(cart["customer_name"]),
            "items": _listed(cart["items"], self.most_items),
            "total": money(cart["total"], cart["currency"], self.language),
            "coupon": coupon_code(cart["coupon"]),
            "link": own_link(cart["link"], self.link_hosts),
        }
        body = tuple(Parameter(text=_cut(_filled(text, values), _BODY_LENGTH)) for text in self.body)
        buttons: tuple[TemplateButton, ...] = ()
        if self.button is not None:
            values["link"] = own_path(cart["link"], self.link_hosts)
            value = _filled(self.button, values)[:_BUTTON_LENGTH]
            buttons = (TemplateButton(index=0, kind="url", value=value),)
        return Template(name=self.template, language=self.language, body=body, buttons=buttons)


def money(amount: Decimal, currency: str, language: str) -> str:
    """Return an amount in the format of a language; an unknown currency is written as its code."""
    text = format_currency(amount, currency, locale=_locale(language))
    return re.sub(rf"^{re.escape(currency)}(?=\d)", f"{currency} ", text)


def _locale(language: str) -> Locale:
    try:
        return Locale.parse(language)
    except (UnknownLocaleError, ValueError):
        return Locale("en")


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Fill a text; Meta refuses an empty value, line breaks, tabs and repeated spaces."""

    def value(found: re.Match[str]) -> str:
        return values[found["name"]] or found["otherwise"] or ""

    return " ".join(_PLACEHOLDER.sub(value, text).split()) or _NOTHING


def _listed(items: Sequence[Mapping[str, Any]], most: int) -> str:
    """Return the names of the first items, and the number of further lines."""
    named = [
        _cut(" ".join(item["name"].split()), _NAME_LENGTH) + (f" ×{item['quantity']}" if item["quantity"] > 1 else "")
        for item in items[:most]
    ]
    more = [f"+{len(items) - most}"] if len(items) > most else []
    return ", ".join([*named, *more])


def _cut(text: str, most: int) -> str:
    """Shorten a text between two graphemes, so that no character loses its marks and no emoji its parts."""
    if len(text) <= most:
        return text
    ends = [grapheme.end() for grapheme in _GRAPHEME.finditer(text, endpos=most)]
    # The last grapheme may continue after `most`.
    end = max((end for end in ends[:-1] if end < most), default=0)
    return text[:end].rstrip() + "…"
