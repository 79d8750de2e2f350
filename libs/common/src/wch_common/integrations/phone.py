"""Phone numbers as people type them, in one form: E.164 with a plus sign, without which Meta assumes a country."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import phonenumbers

from wch_common.contract.personal import Person
from wch_common.outcome import Reject

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORTEST: Final = 7
"""Fewer digits do not tell one person from another."""


class MalformedNumber(ValueError):
    """The text is not a phone number; the message says why, without quoting it."""


def normalised(text: str, region: str | None = None) -> str:
    """Return a number in E.164 with `+`; `region` (like DE) is for numbers without a country code. Raises MalformedNumber."""
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException as error:
        if error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE:
            hint = "it has no country code; write it as +<country><number>"
            hint += ", or set the shop's region" if region is None else ""
            raise MalformedNumber(f"not a phone number: {hint}") from None
        raise MalformedNumber("not a phone number") from None
    if not phonenumbers.is_possible_number(number):
        raise MalformedNumber("not a phone number: no number of its country has this length")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def requested(text: str, field: str, region: str | None = None) -> str:
    """Return the number in a field of a request in E.164, as `normalised` does; raises Reject, which names the field."""
    try:
        return normalised(text, region)
    except MalformedNumber as error:
        raise Reject(f"{field}: {error}") from None


# Meta writes numbers of these countries in two ways: with and without a digit that once marked mobile numbers.
_TWO_FORMS = (
    (re.compile(r"^\+521(\d{10})$"), r"+52\1"),
    (re.compile(r"^\+549(\d{10})$"), r"+54\1"),
    (re.compile(r"^\+55(\d{2})9(\d{8})$"), r"+55\1\2"),
)


def one_form(number: str) -> str:
    """Return one form of a number (E.164) that Meta writes in two ways, to identify its owner; not for sending."""
    for pattern, form in _TWO_FORMS:
        number = pattern.sub(form, number)
    return number


def same_number(phone: str) -> Callable[[str], bool]:
    """Return a function that tells whether a text is this number (E.164), also without its country code or a plus sign."""
    own = one_form(phone)

    def is_same(text: str) -> bool:
        try:
            return one_form(normalised(text)) == own
        except MalformedNumber:
            digits = re.sub(r"\D", "", text).lstrip("0")
            return len(digits) >= _SHORTEST and (own.endswith(digits) or one_form(f"+{digits}") == own)

    return is_same


def owner(phone: str) -> Person:
    """Return the owner of a number (E.164), whom tables know by the one form of the number."""
    return Person(phone, one_form(phone), same_number(phone))


def country(number: str) -> str | None:
    """Return the country (like DE) of a number in E.164, or None if it is not known."""
    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return None


def masked(number: str) -> str:
    """Return a number as lists may show it: its first three characters and its last two digits."""
    return f"{number[:3]}…{number[-2:]}"
