"""Phone numbers as people, spreadsheets, address books and Meta write them: the right person, or a refusal that says why."""

from __future__ import annotations

import re

import phonenumbers
import pytest
from pydantic import TypeAdapter, ValidationError

from wch_common.integrations.phone import (
    MalformedNumber,
    country,
    normalised,
    of_customer,
    of_person,
    one_form,
)
from wch_common.integrations.recipients import person_of
from wch_common.integrations.shops import PhoneRegion

MOBILE = phonenumbers.PhoneNumberType.MOBILE
Format = phonenumbers.PhoneNumberFormat
# Of shops whose customers live elsewhere: with and without a national prefix, long and short numbers.
SHOP_REGIONS = ("US", "DE", "BR", "IN", "ID", "MX", "AR", "GB", "ES", "CI", "SG", "NG")


def example(region: str) -> phonenumbers.PhoneNumber | None:
    return phonenumbers.example_number_for_type(region, MOBILE)


REGIONS = sorted(region for region in phonenumbers.SUPPORTED_REGIONS if example(region) is not None)


def written(number: phonenumbers.PhoneNumber, form: int) -> str:
    return str(phonenumbers.format_number(number, form))


def read(text: str, region: str | None) -> str | None:
    try:
        return normalised(text, region)
    except MalformedNumber:
        return None


def with_plus(number: phonenumbers.PhoneNumber) -> list[str]:
    """Return the spellings that say which country a number belongs to."""
    e164, international = written(number, Format.E164), written(number, Format.INTERNATIONAL)
    groups = re.split(r"[ -]+", international)
    return [
        e164, international, f" {e164}\t", f"'{e164}", f'="{e164}"', f"tel:{e164}", f"whatsapp:{e164}", f"p:{e164}",
        f"{e164}.0", f"{e164}.00", f"{e164},0", f"\u202a{e164}\u202c", f"\ufeff{e164}", international.replace(" ", "\u00a0"),
        international.replace(" ", "-"), international.replace(" ", "\u2011"), ".".join([*groups, ""]).rstrip("."),
        f"({groups[0]}) {' '.join(groups[1:])}", e164.replace("+", "00"), e164.replace("+", "\uff0b"),
        e164.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")),
    ]  # fmt: skip


def without_plus(number: phonenumbers.PhoneNumber, region: str) -> list[str]:
    """Return the spellings that leave the country to guess, as spreadsheets, people and Meta's webhooks write them."""
    digits, national = written(number, Format.E164)[1:], written(number, Format.NATIONAL)
    bare = re.sub(r"\D", "", national)
    short = bare.removeprefix(phonenumbers.ndd_prefix_for_region(region, strip_non_digits=True) or "")
    return [digits, f"{digits}.0", national, bare, f"{bare}.0", short, f"{short}.0"]


def in_groups_without_plus(number: phonenumbers.PhoneNumber) -> list[str]:
    """Return the groups that Meta, address books and spreadsheets make of a number, without its plus sign."""
    digits, groups = written(number, Format.E164)[1:], written(number, Format.INTERNATIONAL)[1:]
    thousands = f"{int(digits):,}"
    return [groups, groups.replace("-", " "), groups.replace(" ", "-"), f"-{digits}", f"({digits})",
            thousands.replace(",", "."), thousands.replace(",", " ")]  # fmt: skip


@pytest.mark.parametrize("region", REGIONS)
def test_a_stored_number_is_found_in_every_spelling_that_is_read_as_it(region: str) -> None:
    number = example(region)
    assert number is not None
    e164, groups = written(number, Format.E164), written(number, Format.INTERNATIONAL)
    code, rest = groups[1:].split(" ")[0], groups.partition(" ")[2]
    abroad = [
        f"{prefix}{text}" for prefix in ("00", "011", "0011", "010", "810", "001") for text in (e164[1:], groups[1:])
    ]
    texts = [*with_plus(number), *without_plus(number, region), *in_groups_without_plus(number), *abroad,
             f"+{code} (0) {rest}", f"00{code} (0) {rest}", f"{groups}.0", f"{code}{rest}.0"]  # fmt: skip
    found = person_of(e164).is_same
    for text in texts:
        if any(read(text, shop) == e164 for shop in (None, region, *SHOP_REGIONS, "AU", "JP", "RU")):
            assert found(text), text


@pytest.mark.parametrize("region", REGIONS)
def test_no_spelling_of_a_number_becomes_another_number(region: str) -> None:
    number = example(region)
    assert number is not None
    e164 = written(number, Format.E164)
    for text in with_plus(number):
        assert {read(text, shop) for shop in (None, region, "US")} == {e164}, text
        # Indonesia's prefixes for calls abroad are 001, 007, 008 and 009, so that 00 may be the beginning of one.
        assert read(text, "ID") in ({e164, None} if text.startswith("00") else {e164}), text
    for text in without_plus(number, region):
        assert read(text, None) is None, text
        assert read(text, region) in (e164, None), text
    # Shops of other countries cannot know numbers that are written for calls inside the country.
    digits = e164[1:]
    for text in (digits, f"{digits}.0", *in_groups_without_plus(number)):
        assert {read(text, shop) for shop in SHOP_REGIONS} <= {e164, None}, text
    # A spreadsheet keeps the first digits only.
    assert read(f"{digits[0]}.{digits[1:6]}E+{len(digits) - 1}", region) is None


def test_most_numbers_of_a_country_are_read_as_they_are_written_there() -> None:
    examples = {region: example(region) for region in REGIONS}
    nationals = {region: written(number, Format.NATIONAL) for region, number in examples.items() if number is not None}
    unread = {region for region, text in nationals.items() if read(text, region) is None}
    assert len(unread) < 8, unread


def test_numbers_of_every_area_are_read_as_their_country_writes_them() -> None:
    """Area codes are country codes elsewhere: 51 is Porto Alegre's and Peru's."""
    texts = [f"({area}) 9{digit}234-5678" for area in range(11, 100) for digit in range(1, 10)]
    numbers = {text: "+55" + re.sub(r"\D", "", text) for text in texts}
    valid = {text: number for text, number in numbers.items() if read(number, None)}
    assert len(valid) > 500
    assert {text: read(text, "BR") for text in valid} == valid


@pytest.mark.parametrize(
    ("text", "region", "right"),
    [
        ("+4915112345678.0", None, "+4915112345678"),
        ("+4915112345678.5", None, None),
        ("4915112345679", "DE", None),  # also a valid number of Bavaria
        ("4915112345679", "FR", None),
        ("6281234567890", "ID", "+6281234567890"),
        ("+49 (0) 151 12345678", None, "+4915112345678"),
        ("0151/12345678", "DE", "+4915112345678"),
        ("+39 (0)312 345 6789", None, None),  # a fixed line of Como with the 0, a mobile number without it
        ("+39 (0)6 698 12345", None, "+390669812345"),
        ("+44 (0)7911 123456", None, "+447911123456"),
        ("33 6 12 34 56 78", "DE", None),
        ("(51) 91234-5678", "BR", "+5551912345678"),  # also a number of Peru, but not in its groups
        ("51 912 345 678", "BR", None),
        ("687 75 12 34", "ES", None),  # as Spain and as New Caledonia write it
        ("1 512-234-5678", "DE", None),
        ("+49 4915112345678", None, None),
        ("04915112345678", "DE", None),
        ("00494915112345678", None, None),
        ("+62 62812345678", "ID", None),
        ("+49 491 5112345", None, "+494915112345"),  # a fixed line of Leer
        ("+91 91234 56789", None, "+919123456789"),
        ("0011 354 611 1234", "AU", None),  # Iceland by Australia's own prefix, New Jersey by 00
        ("33.612.345.678", "DE", None),
        ("65 8123 4567", "ID", None),
        ("203 555 0123", "US", "+12035550123"),
        ("612 345 678", "ES", "+34612345678"),
        ("+4915112345678/79", None, None),
        ("+4366012345678/9", None, None),
        ("+4915112345678 ext. 5", None, None),
        ("+4915112345678;5", None, None),
        ("+4915112345678,5", None, None),
        ("+49 151 12345678 +49 160 1234567", None, None),
        ("+1800FLOWERS", "US", None),
        ("4.91511234567E+12", "DE", None),
        ("(203) 555-0123", "US", "+12035550123"),  # also a fixed line of Alexandria
        ("2035550123", "US", "+12035550123"),
        ("6598765432", "US", None),  # also a mobile number of Singapore
        ("(659) 876-5432", "US", "+16598765432"),
        ("7911 1234567", "GB", None),  # a digit too many; a mobile number of Russia
        ("658 123 4567", "ES", None),  # a mobile number of Singapore
        ("010 1234567", "EG", None),  # a digit is missing
        ("+20101234567", None, None),
        ("EG.1234567890", "US", None),
        ("+5215512345678", None, "+525512345678"),
        ("521 55 1234 5678", "MX", "+525512345678"),
        ("+551187654321", None, "+5511987654321"),
        ("+54 11 15 2345-6789", None, "+5491123456789"),
        ("+15550100001", None, "+15550100001"),
        ("+447700900123", None, "+447700900123"),
        ("", "DE", None),
        ("+4915112345678" + " " * 100, "DE", None),
        ("+", "DE", None),
        ("0", "DE", None),
        ("Ada", "DE", None),
    ],
)
def test_a_number_is_right_or_refused(text: str, region: str | None, right: str | None) -> None:
    assert read(text, region) == right


@pytest.mark.parametrize(
    ("text", "region", "reason"),
    [
        ("01511234567", None, "has no country code"),
        ("+9991234567", None, "no country has its country code"),
        ("+1203555", None, "no number of its country has this length"),
        ("+491", None, "it has too few or too many digits"),
        ("+12000000001", None, "its country has no such number"),
        ("4915112345679", "DE", "can be read as two numbers"),
        ("4.9E+12", "DE", "a spreadsheet has shortened it"),
        ("+4915112345678.5", None, "it has a fraction"),
        ("+4915112345678/79", None, "a slash after a complete number"),
        ("+4915112345678 x5", None, "such as those of an extension"),
        ("+49151;12345678", None, "characters that no number has"),
    ],
)
def test_a_refusal_says_why_and_does_not_quote_the_number(text: str, region: str | None, reason: str) -> None:
    with pytest.raises(MalformedNumber, match=reason) as raised:
        normalised(text, region)
    assert not re.search(r"\d{3}", str(raised.value))


OLD_AND_NEW = [
    ("+5215512345678", "+525512345678"), ("+551187654321", "+5511987654321"), ("+555587654321", "+5555987654321"),
    ("+20101234567", "+201001234567"), ("+20121234567", "+201221234567"), ("+20181234567", "+201281234567"),
    ("+59399123456", "+593999123456"), ("+2307123456", "+23057123456"), ("+23777123456", "+237677123456"),
    ("+23799123456", "+237699123456"), ("+841201234567", "+84701234567"), ("+841261234567", "+84761234567"),
    ("+841691234567", "+84391234567"), ("+841291234567", "+84821234567"), ("+841881234567", "+84581234567"),
    ("+22507123456", "+2250707123456"), ("+22545123456", "+2250545123456"), ("+22501123456", "+2250101123456"),
    ("+22997123456", "+2290197123456"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW)
def test_a_number_from_before_its_country_renumbered_is_the_person_with_the_new_one(old: str, new: str) -> None:
    assert of_customer(old[1:]) == new
    # In a list, a number of over ten years ago is a typing error.
    assert read(old, None) == (None if old[:4] in ("+201", "+593", "+230", "+237") else new)
    assert one_form(old) == one_form(new)
    assert person_of(new).is_same(old)
    assert person_of(old).is_same(new)


@pytest.mark.parametrize(
    ("one", "other"),
    [("+5491112345678", "+541112345678"), ("+24106123456", "+24166123456"), ("+24107123456", "+24177123456")],
)
def test_two_valid_forms_of_a_number_are_one_person(one: str, other: str) -> None:
    assert (normalised(one), normalised(other)) == (one, other)
    assert one_form(one) == one_form(other)


@pytest.mark.parametrize(("mobile", "fixed"), [("+5511923456789", "+551123456789"), ("+23054909124", "+2304909124")])
def test_a_fixed_line_is_not_the_mobile_number_with_one_digit_more(mobile: str, fixed: str) -> None:
    assert normalised(mobile) == mobile
    assert normalised(fixed) == fixed
    assert one_form(mobile) != one_form(fixed)


@pytest.mark.parametrize("wa_id", ["22412345678", "99912345678", "49151", "12000000001"])
def test_a_customer_who_writes_exists_whatever_numbering_plans_say(wa_id: str) -> None:
    assert of_customer(wa_id) == of_customer(f"+{wa_id}") == f"+{wa_id}"
    assert person_of(f"+{wa_id}").is_same(f"+{wa_id}")
    country(f"+{wa_id}")


@pytest.mark.parametrize("text", ["+22412345678", "+224 12 34 56 78", "+4915112345678"])
def test_a_request_about_a_person_takes_a_number_that_meta_has_written(text: str) -> None:
    assert of_person(text) == "+" + re.sub(r"\D", "", text)


@pytest.mark.parametrize("text", ["22412345678", "+224", "+22412345678 x5", "Ada"])
def test_a_request_about_a_person_needs_a_whole_number(text: str) -> None:
    with pytest.raises(MalformedNumber):
        of_person(text)


@pytest.mark.parametrize("region", REGIONS)
def test_another_number_with_the_same_last_digits_is_not_the_persons(region: str) -> None:
    number = example(region)
    assert number is not None
    e164 = written(number, Format.E164)
    for cut in range(2, 5):
        other = f"+{e164[cut:]}"
        if read(other, None) == other and one_form(other) != one_form(e164):
            assert not person_of(other).is_same(e164)
            assert not person_of(e164).is_same(other)


def test_a_stored_number_is_found_in_every_form_it_was_accepted_in() -> None:
    assert person_of("+4915112345678").is_same("+4915112345678 ext. 5")


@pytest.mark.parametrize("wa_id", ["", "EG.123", "1234", "1" * 21, "49 151", "٤٩١٥١١٢"])
def test_what_is_no_id_of_meta_is_refused(wa_id: str) -> None:
    with pytest.raises(MalformedNumber):
        of_customer(wa_id)


@pytest.mark.parametrize(
    ("text", "region"), [("DE", "DE"), ("gb", "GB"), ("UK", None), ("Germany", None), ("", None), ("ZZ", None)]
)
def test_a_region_is_a_country_with_phone_numbers(text: str, region: str | None) -> None:
    field = TypeAdapter(PhoneRegion)
    if region is None:
        with pytest.raises(ValidationError, match="GB for the United Kingdom"):
            field.validate_python(text)
    else:
        assert field.validate_python(text) == region
