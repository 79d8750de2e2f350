"""Recipients of requests and commands, by phone number or by Meta's ids of them: reading, naming and masking them."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from typing import TYPE_CHECKING

from wch_common.contract.personal import HashedPerson, Person
from wch_common.events.recipient import MalformedRecipient, Recipient, is_id, recipient_in
from wch_common.integrations import phone as phones
from wch_common.outcome import Reject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wch_common.events.whatsapp import RecipientErased

_COUNTRY = 2


def resolved(to: str | Recipient, region: str | None = None) -> Recipient:
    """Return a recipient whose number is in E.164, as `phone.normalised` reads it; raises MalformedRecipient."""
    return _with_number(to, lambda number: phones.normalised(number, region))


def requested(to: str | Recipient, field: str, region: str | None = None) -> Recipient:
    """Return the recipient in a field of a request, as `resolved` does; raises Reject, which names the field."""
    try:
        return resolved(to, region)
    except MalformedRecipient as error:
        raise Reject(f"{field}: {error}") from None


def person(about: str | Recipient, region: str | None = None) -> Recipient:
    """Return a person about whom something is done, also with a number that is valid nowhere but that Meta has written.

    Raises MalformedRecipient. Nothing is sent to such a number.
    """
    return _with_number(about, lambda number: phones.of_person(number, region))


def requested_person(about: str | Recipient, field: str, region: str | None = None) -> Recipient:
    """Return the person in a field of a request, as `person` does; raises Reject, which names the field."""
    try:
        return person(about, region)
    except MalformedRecipient as error:
        raise Reject(f"{field}: {error}") from None


def of_meta(wa_id: str | None, user_id: str | None = None, parent_id: str | None = None) -> Recipient:
    """Return a person as Meta's webhooks name them; an id of a form that is not known yet is left out.

    Raises MalformedRecipient if nothing is left.
    """
    names: dict[str, str] = {}
    for id_ in filter(None, (user_id, parent_id)):
        try:
            names |= recipient_in(id_).model_dump(exclude={"phone"}, exclude_none=True)
        except MalformedRecipient:
            continue
    if wa_id:
        try:
            names["phone"] = phones.of_customer(wa_id)
        except MalformedRecipient:
            if not names:
                raise
    if not names:
        raise MalformedRecipient("Meta gave neither a number nor an id of a known form")
    return Recipient(**names)


def _with_number(to: str | Recipient, read: Callable[[str], str]) -> Recipient:
    recipient = recipient_in(to) if isinstance(to, str) else to
    if recipient.phone is None:
        return recipient
    number = read(recipient.phone)
    return recipient if number == recipient.phone else recipient.model_copy(update={"phone": number})


def is_number(name: str) -> bool:
    """Whether the name of a person is a number (E.164), and not an id of Meta's."""
    return name.startswith("+")


def one_form(name: str) -> str:
    """Return the one form of a number (E.164) or of an id, to identify its owner."""
    return phones.one_form(name) if is_number(name) else name


def person_of(*names: str) -> Person:
    """Return the person with these numbers (E.164) and ids."""
    numbers, ids = [one for one in names if is_number(one)], [one for one in names if not is_number(one)]
    tests = [phones.is_form_of(number) for number in numbers]

    def is_same(text: str) -> bool:
        return text.strip() in ids if is_id(text.strip()) else any(test(text) for test in tests)

    keys = tuple(dict.fromkeys(map(one_form, names)))
    return Person(keys, tuple(map(phones.last_digits, numbers)), tuple(ids), is_same, names)


def country(name: str) -> str | None:
    """Return the country (like DE) of a number (E.164) or of an id, or None if it is not known."""
    return phones.country(name) if is_number(name) else name[:_COUNTRY]


def masked(name: str) -> str:
    """Return a number or an id as lists may show it: its first three characters and its last two."""
    return f"{name[:3]}…{name[-2:]}"


class PersonHash:
    """Hashes numbers and ids of people under the key of this deployment, so that a table can name a person without them."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def of(self, name: str) -> bytes:
        """Return the hash that stands for the owner of a number (E.164) or of an id of Meta's."""
        return hmac.digest(self._key, one_form(name).encode(), hashlib.sha256)[:16]

    def in_regions(self, regions: Iterable[str | None]) -> Callable[[str], set[bytes]]:
        """Return the function that hashes whom a text may name: as Meta writes it, and with or without a country of `regions`."""
        readings = {None, *regions}

        def of_text(text: str) -> set[bytes]:
            found = set()
            for region in readings:
                with contextlib.suppress(MalformedRecipient):
                    found.add(self.of(person(text, region).names[0]))
            if text.isdecimal():
                with contextlib.suppress(MalformedRecipient):
                    found.add(self.of(of_meta(text).names[0]))
            return found

        return of_text

    def erased_in(self, data: RecipientErased) -> HashedPerson:
        """Return the person whom a fact names as erased."""
        hashes = frozenset((*map(self.of, data.names), *map(bytes.fromhex, data.hashes)))
        return HashedPerson(person_of(*data.names), hashes)
