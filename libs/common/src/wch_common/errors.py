"""Every error this library raises, as a tree, with who must act.

WchError
├── ContractError            the event is wrong: the publisher must act
│   ├── Undecodable          its bytes, content type or envelope cannot be read
│   ├── UnknownType          this type is not registered here
│   ├── UnknownVersion       a newer producer: deploy the consumer that knows it
│   ├── InvalidData          its data does not match the schema
│   └── IdReused             its source has used the id for other content
├── DuplicateRegistration    a program registers one name twice: its author must act
├── SettingsError            settings are missing or wrong: the deployer must act
├── TopologyMismatch         the broker differs from the topology: the deployer must act
├── PublishError             the event is not known to be safe with the broker: the publisher must act
│   ├── Unroutable           no queue is bound for its routing key
│   ├── Refused              the broker refused it (a full queue, a missing permission)
│   └── Unconfirmed          no confirm in time, or the connection broke: it may have arrived
├── RecoveryFailed           the broker or the database was unreachable for too long: the process exits
└── Interrupted              work was stopped from outside: it uses no attempt
    ├── ShuttingDown
    ├── DatabaseAway         consumption pauses until it answers
    ├── DatabaseSlow         it ended a statement that waited or ran for too long: repeated, or delayed
    ├── Contended            a deadlock or serialization failure: repeated at once
    └── LeaseLost            another process may have acquired the lease: the work is abandoned
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class WchError(Exception):
    """Root of every error of this library."""


@dataclass(frozen=True)
class FieldError:
    """One wrong field of an event or a setting, and what is wrong with it; never holds the value."""

    field: str
    problem: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


# By the types of pydantic's errors, whose own sentences speak of inputs and schemas.
_PROBLEMS = {
    "missing": "is missing",
    "extra_forbidden": "is not a field here; correct its name, or leave it out",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_type": "must be a text",
    "string_pattern_mismatch": "must have the form {pattern}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "union_tag_not_found": "must have the field {discriminator}",
    "union_tag_invalid": "its field {discriminator} must be one of {expected_tags}",
    "timezone_aware": "must have an offset from UTC",
}


def field_errors(error: ValidationError) -> list[FieldError]:
    """Return the wrong fields of a pydantic error, each with what is wrong in our words, without the values."""
    found = error.errors(include_url=False, include_input=False)
    # Entries that are refused themselves are not missing from their list.
    places = [item["loc"] for item in found]
    told = [
        item
        for item in found
        if item["type"] != "too_short" or not any(_is_below(place, item["loc"]) for place in places)
    ]
    return [FieldError(_place(item["loc"]), _problem(item)) for item in told]


def _is_below(place: Sequence[str | int], other: Sequence[str | int]) -> bool:
    return len(place) > len(other) and place[: len(other)] == other


def _place(path: Sequence[str | int]) -> str:
    """Return the path of a field, without the names of a union's alternatives in brackets, which are no fields."""
    return ".".join(str(part) for part in path if not str(part).startswith("("))


def _problem(item: ErrorDetails) -> str:
    words, context = _PROBLEMS.get(item["type"]), item.get("ctx", {})
    if words is None:
        return item["msg"].removeprefix("Value error, ")
    bounds = {name: int(one) for name, one in context.items() if isinstance(one, float) and one.is_integer()}
    return "must not be empty" if context.get("min_length") == 1 else words.format(**context | bounds)


class ContractError(WchError):
    """The event breaks the contract; `kind` is the `wch-error-kind` of its dead letter."""

    kind = "undecodable"

    def __init__(self, message: str, fields: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class Undecodable(ContractError):
    """The bytes, the content type or the envelope cannot be read."""


class UnknownType(ContractError):
    """No schema is registered for the type."""

    kind = "unknown_type"


class UnknownVersion(ContractError):
    """The type is known, but not this version of it."""

    kind = "unknown_version"


class InvalidData(ContractError):
    """The data does not match its schema; `fields` names every wrong field."""

    kind = "invalid_data"


class IdReused(ContractError):
    """The source has used this id for other content."""

    kind = "id_reused"


class DuplicateRegistration(WchError):
    """One name was registered twice."""


class SettingsError(WchError):
    """Settings are missing or wrong; the message names each of them."""


class TopologyMismatch(WchError):
    """Exchanges, queues or bindings are missing or differ; the message says which, and what to do."""


class PublishError(WchError):
    """The event is not known to be safe with the broker."""


class Unroutable(PublishError):
    """No queue takes the message, or its exchange does not exist."""


class Refused(PublishError):
    """The broker refused the message: a queue is full, or a permission is missing."""


class Unconfirmed(PublishError):
    """No confirm arrived: the message may be in the queue or not, so publish it again under the same id."""


class RecoveryFailed(WchError):
    """The broker or the database was unreachable for longer than WCH_RECOVERY_LIMIT_SECONDS."""


class Interrupted(WchError):
    """Work was stopped from outside; it is repeated and uses no attempt."""


class ShuttingDown(Interrupted):
    """The process is stopping; the delivery goes back to its queue."""


class DatabaseAway(Interrupted):
    """The database cannot be reached; consumption pauses until it answers."""


class DatabaseSlow(Interrupted):
    """The database ended a statement that waited for a lock, or ran, for too long; it is repeated, or delayed."""


class Contended(Interrupted):
    """The database refused the transaction in favour of another; it is repeated at once."""


class LeaseLost(Interrupted):
    """The lease expired while it was needed."""
