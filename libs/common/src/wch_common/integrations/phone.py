"""Phone numbers as people type them, in one form: E.164 with a plus sign, without which Meta assumes a country."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import phonenumbers

from wch_common.contract.personal import Person
from wch_common.outcome import Reject

_LAST: Final = 4
_SHORTEST: Final = 7
"""A text with fewer digits is too short to identify a person."""


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


def person_of(phone: str) -> Person:
    """Return the person with a number (E.164), also for numbers as dialled in their country or from another one."""
    national = phonenumbers.national_significant_number(phonenumbers.parse(phone))
    own, region = one_form(phone), country(phone)
    digits_of_own = own.removeprefix("+")

    def is_same(text: str) -> bool:
        digits = "".join(str(unicodedata.digit(one)) for one in text if one.isdigit()).lstrip("0")
        if national[-_LAST:] not in digits:  # most numbers of a batch; reading each costs a tenth of a millisecond
            return False
        if own in (_one_form_or_none(text, None), _one_form_or_none(text, region)):
            return True
        if len(digits) < _SHORTEST:
            return False
        # A local number, one without a plus sign, or one with the prefix of calls abroad.
        return own.endswith(digits) or one_form(f"+{digits}") == own or digits.endswith(digits_of_own)

    return Person(phone, own, national[-_SHORTEST:], is_same)


def _one_form_or_none(text: str, region: str | None) -> str | None:
    try:
        return one_form(normalised(text, region))
    except MalformedNumber:
        return None


def country(number: str) -> str | None:
    """Return the country (like DE) of a number in E.164, or None if it is not known."""
    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return None


def masked(number: str) -> str:
    """Return a number as lists may show it: its first three characters and its last two digits."""
    return f"{number[:3]}…{number[-2:]}"
