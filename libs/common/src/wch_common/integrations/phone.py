"""Phone numbers as people, spreadsheets and Meta write them, in one form: E.164 with a plus sign, without which Meta assumes a country."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

import phonenumbers

from wch_common.events.recipient import MalformedRecipient

if TYPE_CHECKING:
    from collections.abc import Callable

_LAST: Final = 4
_SHORTEST: Final = 7
"""A text with fewer digits is too short to identify a person."""
_LONGEST_PREFIX: Final = 4
"""Digits of the prefix of calls abroad, without zeros at its beginning."""
_LONGEST: Final = 100
_WRITE_IT = "write it as +<country><number>"
_MOBILE = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE)


class MalformedNumber(MalformedRecipient):
    """The text is not a phone number, or could be several; the message says why, without quoting it."""


def normalised(text: str, region: str | None = None) -> str:
    """Return a number in E.164 with `+`; `region` (like DE) is for numbers without a country code. Raises MalformedNumber.

    The number is valid in its country's numbering plan. Digits that may be a mobile number of another country are refused.
    """
    written = _plain(text)
    _refuse_several(written, region)
    found = _readings(written, region)
    found |= {number for one in found for number in _without_doubled_code(one)}
    if len(found) == 1:
        return found.pop()
    if found:
        raise MalformedNumber(f"not a phone number: it can be read as two numbers; {_WRITE_IT}")
    raise MalformedNumber(f"not a phone number: {_problem(written, region)}")


def known_region(text: str) -> str:
    """Return a country (like DE, in upper case) that has phone numbers; raises ValueError for any other text."""
    region = text.strip().upper()
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError("must be the two characters of a country in ISO 3166, like DE, and GB for the United Kingdom")
    return region


def of_person(text: str, region: str | None = None) -> str:
    """Return the number of a person as `normalised` does, or as it stands with `+` and 5 to 20 digits; raises MalformedNumber."""
    try:
        return normalised(text, region)
    except MalformedNumber:
        plain = _plain(text)
        if "+" in plain and _META_DIGITS.fullmatch(digits := re.sub(r"\D", "", plain)):
            return of_customer(digits)
        raise


def of_customer(wa_id: str) -> str:
    """Return the number (with `+`) of a customer as Meta writes it: digits. Raises MalformedNumber.

    The customer exists, so the number need not be valid: Meta keeps the old number of an account when a country changes its
    numbering plan. An old number with a known new form is returned in the new one.
    """
    digits = wa_id.removeprefix("+")
    if not _META_DIGITS.fullmatch(digits):
        raise MalformedNumber("not a phone number: Meta writes 5 to 20 digits")
    number = f"+{digits}"
    return number if _is_valid(number) else _in_current_plan(number, _EVERY_CHANGE) or number


# -- what a text may look like

_META_DIGITS = re.compile(r"[0-9]{5,20}")
_SCHEME = re.compile(r"(?:tel|whatsapp|p):", re.IGNORECASE)
_FORMULA = re.compile(r'="?([^"]*)"?')
_SHORTENED = re.compile(r"\+?\d(?:[.,]\d+)?E\+?\d+", re.IGNORECASE)
_FRACTION = re.compile(r"(\(?\+?[^.,]*\d)[.,](\d{1,2})")
_TRUNK_ZERO = re.compile(r"\( *0 *\)")
_GROUP = re.compile(r"[0-9]+")
_THOUSANDS: Final = 3
_NUMBER = re.compile(r"[( ]*\+?[0-9 ()./-]*")


def _plain(text: str) -> str:
    """Return a number with ASCII digits, spaces and hyphens only, and without what spreadsheets and links add to it."""
    if len(text) > _LONGEST:
        raise MalformedNumber("not a phone number: it is too long")
    seen = "".join(_plain_character(one) for one in text).strip()
    seen = _SCHEME.sub("", seen.removeprefix("'"), count=1) if _SCHEME.match(seen) else seen.removeprefix("'")
    if (formula := _FORMULA.fullmatch(seen)) is not None:
        seen = formula[1]
    seen = seen.strip()
    if _SHORTENED.fullmatch(seen):
        raise MalformedNumber(
            "not a phone number: a spreadsheet has shortened it; format the column as text and export it again"
        )
    if (fraction := _FRACTION.fullmatch(seen)) is not None:
        if fraction[2].strip("0"):
            raise MalformedNumber("not a phone number: it has a fraction; format the spreadsheet's column as text")
        seen = fraction[1]
    if not _NUMBER.fullmatch(seen):
        raise MalformedNumber("not a phone number: it has characters that no number has, such as those of an extension")
    return seen


def _plain_character(one: str) -> str:
    category = unicodedata.category(one)
    if category == "Nd":
        return str(unicodedata.digit(one))
    if category == "Cf":  # invisible, like the marks of text direction around numbers that were copied from contacts
        return ""
    if category == "Pd" or one == "\N{MINUS SIGN}":
        return "-"
    return " " if one.isspace() else "+" if one == "\N{FULLWIDTH PLUS SIGN}" else one


def _refuse_several(written: str, region: str | None) -> None:
    """Raise MalformedNumber for a number with the end of another one, like 12345/67; a slash may also divide one number."""
    first = written.rpartition("/")[0]
    if first and _readings(first, region):
        raise MalformedNumber("not a phone number: it has a slash after a complete number; write one number")


# -- what it may mean


def _readings(written: str, region: str | None) -> set[str]:
    """Return every valid number that can be meant; without a plus sign, the country code may be there or not."""
    digits = re.sub(r"\D", "", written)
    if "+" in written:
        # Where a 0 is dialled inside the country only, both are the same number; in Italy it is part of the number.
        return _valid(written, None) | _valid(_TRUNK_ZERO.sub("", written), None)
    if digits.startswith("00"):
        # The prefix of calls abroad in most countries; some have others, which begin with 00.
        return _valid(f"+{digits[2:]}", None) | (_valid(written, region) if region else set())
    if region is None:
        return set()
    national = _valid(written, region)
    if digits.startswith("0"):  # no country code begins with 0
        return national
    international = _valid(f"+{digits}", None)
    if digits.startswith(str(phonenumbers.country_code_for_region(region))):
        return national | international
    foreign = {one for one in international if _is_mobile(one) and _may_have_lost_its_plus(written, one, national)}
    return national | foreign if national else national


def _may_have_lost_its_plus(written: str, foreign: str, national: set[str]) -> bool:
    """Whether digits are grouped like a number of another country, or like no telephone number, as spreadsheets write them.

    Whoever writes other groups, like (203) 555-0123, or those in which their own country writes the number, means that.
    """
    groups = _GROUP.findall(written)
    if groups == _groups(foreign, phonenumbers.PhoneNumberFormat.INTERNATIONAL):
        return True
    if len(groups) > 1 and any(groups == _groups(one, phonenumbers.PhoneNumberFormat.NATIONAL) for one in national):
        return False
    code = str(phonenumbers.parse(foreign).country_code)
    return len(groups) == 1 or groups[0] == code or all(len(group) == _THOUSANDS for group in groups[1:])


def _without_doubled_code(number: str) -> set[str]:
    """Return the mobile number whose country code a fixed line has twice, as +49 49 151 12345678; mostly none."""
    if _is_mobile(number):
        return set()
    parsed = phonenumbers.parse(number)
    national = phonenumbers.national_significant_number(parsed)
    doubled = _valid(f"+{national}", None) if national.startswith(str(parsed.country_code)) else set()
    return set(filter(_is_mobile, doubled))


def _groups(number: str, form: int) -> list[str]:
    return _GROUP.findall(phonenumbers.format_number(phonenumbers.parse(number), form))


def _valid(text: str, region: str | None) -> set[str]:
    """Return the number in a text as a set, empty unless it is valid."""
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return set()
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    if phonenumbers.is_valid_number(number) or _RESERVED.fullmatch(written):
        return {written}
    current = _in_current_plan(written, _PLAN_CHANGES)
    return {current} if current else set()


def _problem(written: str, region: str | None) -> str:
    if "+" not in written and region is None and not written.startswith("00"):
        return f"it has no country code; {_WRITE_IT}, or set the shop's region"
    try:
        number = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException as error:
        unknown = error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE
        return f"no country has its country code; {_WRITE_IT}" if unknown else "it has too few or too many digits"
    if not phonenumbers.is_possible_number(number):
        return "no number of its country has this length"
    return "its country has no such number"


def _is_valid(number: str) -> bool:
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number)))
    except phonenumbers.NumberParseException:
        return False


def _is_mobile(number: str) -> bool:
    return phonenumbers.number_type(phonenumbers.parse(number)) in _MOBILE


# Numbers that nobody has although their plans have no place for them: for documentation, films and tests.
_RESERVED = re.compile(r"\+1555\d{7}|\+447700900\d{3}|\+61491570\d{3}")


def _changes(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(rf"\+{old}"), rf"+{new}") for old, new in pairs)


# How countries have renumbered since WhatsApp exists: old mobile numbers, and what they became.
_PLAN_CHANGES: Final = _changes(
    (r"521(\d{10})", r"52\1"),  # Mexico, 2019: the 1 before mobile numbers was dropped
    (r"55(\d{2})([6-9]\d{7})", r"55\g<1>9\2"),  # Brazil, 2012 to 2016
    (r"84120(\d{7})", r"8470\1"),  # Vietnam, 2018
    (r"84121(\d{7})", r"8479\1"),
    (r"84122(\d{7})", r"8477\1"),
    (r"84126(\d{7})", r"8476\1"),
    (r"84128(\d{7})", r"8478\1"),
    (r"84123(\d{7})", r"8483\1"),
    (r"84124(\d{7})", r"8484\1"),
    (r"84125(\d{7})", r"8485\1"),
    (r"84127(\d{7})", r"8481\1"),
    (r"84129(\d{7})", r"8482\1"),
    (r"8416([2-9]\d{7})", r"843\1"),
    (r"84186(\d{7})", r"8456\1"),
    (r"84188(\d{7})", r"8458\1"),
    (r"84199(\d{7})", r"8459\1"),
    (r"225([014-9][0-3]\d{6})", r"22501\1"),  # Côte d'Ivoire, 2021; 2 and 3 began fixed lines
    (r"225([014-9][4-6]\d{6})", r"22505\1"),
    (r"225([014-9][7-9]\d{6})", r"22507\1"),
    (r"229(\d{8})", r"22901\1"),  # Benin, 2024
)
# Only for numbers that Meta writes: in a list, a number with one digit less is a typing error, not a number of so long ago.
_EVERY_CHANGE: Final = _PLAN_CHANGES + _changes(
    (r"2010(\d{7})", r"20100\1"),  # Egypt, 2011
    (r"2011(\d{7})", r"20111\1"),
    (r"2012(\d{7})", r"20122\1"),
    (r"2014(\d{7})", r"20114\1"),
    (r"2016(\d{7})", r"20106\1"),
    (r"2017(\d{7})", r"20127\1"),
    (r"2018(\d{7})", r"20128\1"),
    (r"2019(\d{7})", r"20109\1"),
    (r"593([89]\d{7})", r"5939\1"),  # Ecuador, 2012
    (r"230([2479]\d{6})", r"2305\1"),  # Mauritius, 2013
    (r"237([5-9]\d{7})", r"2376\1"),  # Cameroon, 2014
)


def _in_current_plan(number: str, changes: tuple[tuple[re.Pattern[str], str], ...]) -> str | None:
    """Return the valid form of a number (E.164) from before its country renumbered, or None if it is not such a number."""
    for old, new in changes:
        if old.fullmatch(number) and _is_valid(current := old.sub(new, number)):
            return current
    return None


# Valid numbers that are written in two ways: with and without a digit that marks mobile numbers, and Gabon's of before 2019.
_TWO_FORMS = (
    (re.compile(r"\+2410([256]\d{6})"), r"+2416\1"),
    (re.compile(r"\+2410([47]\d{6})"), r"+2417\1"),
    (re.compile(r"\+549(\d{10})"), r"+54\1"),
    (re.compile(r"\+55(\d{2})9([6-9]\d{7})"), r"+55\1\2"),
)


def one_form(number: str) -> str:
    """Return one form of a number (E.164) that is written in several, to identify its owner; not for sending."""
    current = _in_current_plan(number, _EVERY_CHANGE)
    if current is None or _is_valid(number):  # another's number may have the form of an old one
        current = number
    for pattern, form in _TWO_FORMS:
        if pattern.fullmatch(current):
            return pattern.sub(form, current)
    return current


def last_digits(number: str) -> str:
    """Return the last digits of a number (E.164), which every form of it contains."""
    return _national(number)[-_SHORTEST:]


def is_form_of(number: str) -> Callable[[str], bool]:
    """Return a function that says whether a text is a number (E.164), also as dialled in its country or from another one."""
    own, region = one_form(number), country(number)
    digits_of_own = own.removeprefix("+")
    last = _national(number)[-_LAST:]

    def is_same(text: str) -> bool:
        if text in (number, own):
            return True
        plain = _without_fraction(text)
        if last not in _digits(plain):  # most numbers of a batch; reading each costs a tenth of a millisecond
            return False
        return any(map(is_read_as_own, {plain, _TRUNK_ZERO.sub("", plain)}))

    def is_read_as_own(text: str) -> bool:
        if own in (read := _one_form_or_none(text, None), _one_form_or_none(text, region)):
            return True
        if read is not None and _is_valid(read):  # somebody else's, whose digits contain these
            return False
        if len(digits := _digits(text).lstrip("0")) < _SHORTEST:
            return False
        # A local number, one without a plus sign, or one with the prefix of calls abroad.
        without_prefix = (digits[start:] for start in range(_LONGEST_PREFIX + 1))
        return (
            own.endswith(digits)
            or digits.endswith(digits_of_own)
            or any(_one_form_or_none(f"+{rest}", None) == own for rest in without_prefix)
        )

    return is_same


def _digits(text: str) -> str:
    return "".join(str(unicodedata.digit(one)) for one in text if one.isdigit())


def _without_fraction(text: str) -> str:
    """Return a text without the .0 that a spreadsheet adds to a number."""
    try:
        return _plain(text)
    except MalformedNumber:
        return text


def _national(number: str) -> str:
    try:
        return phonenumbers.national_significant_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:  # an old number of Meta's
        return number.removeprefix("+")


def _one_form_or_none(text: str, region: str | None) -> str | None:
    """Return the form of a number in a stored text, which an earlier version may have read more generously."""
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    return one_form(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def country(number: str) -> str | None:
    """Return the country (like DE) of a number in E.164, or None if it is not known."""
    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return None
