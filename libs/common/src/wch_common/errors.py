"""Every error this library raises, as a tree.

WchError
├── ContractError            the event is at fault: whoever published it must act
│   ├── Undecodable          its bytes, content type or envelope cannot be read
│   ├── UnknownType          nobody registered this type here
│   ├── UnknownVersion       a newer producer: deploy the consumer that knows it
│   ├── InvalidData          its data breaks the schema
│   └── IdReused             its source used the id before, for other content
├── DuplicateRegistration    a program registers one name twice: its author must act
├── SettingsError            settings are missing or wrong: whoever deploys must act
├── TopologyMismatch         the broker's objects differ from the topology: whoever deploys must act
├── PublishError             the event is not known to be safe with the broker: the publisher must act
│   ├── Unroutable           no queue takes it
│   ├── Refused              the broker said no (a full queue, a missing permission)
│   └── Unconfirmed          no answer in time, or the connection broke: it may be there or not
├── RecoveryFailed           the broker or database stayed away too long: the process exits
└── Interrupted              work was stopped from outside: nobody's fault, no try is spent
    ├── ShuttingDown
    ├── DatabaseAway         consumption pauses until it answers
    ├── Contended            a deadlock or serialization failure: repeated at once
    └── LeaseLost            somebody else may hold the lease: what was begun is not finished by us
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class WchError(Exception):
    """Root of every error of this library."""


@dataclass(frozen=True)
class FieldError:
    """One field of an event or setting that is wrong, and how; never holds the value itself."""

    field: str
    problem: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class ContractError(WchError):
    """The event does not keep the contract; `kind` is the `wch-error-kind` its dead letter carries."""

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
    """The type is known, this version of it is not yet."""

    kind = "unknown_version"


class InvalidData(ContractError):
    """The data breaks its schema; `fields` names each broken field."""

    kind = "invalid_data"


class IdReused(ContractError):
    """The source used this id before, for other content."""

    kind = "id_reused"


class DuplicateRegistration(WchError):
    """One name was registered twice."""


class SettingsError(WchError):
    """Settings are missing or wrong; the message names every one."""


class TopologyMismatch(WchError):
    """Exchanges, queues or bindings are missing or differ; the message says which and what to do."""


class PublishError(WchError):
    """The event is not known to be safe with the broker."""


class Unroutable(PublishError):
    """No queue takes the message, or its exchange does not exist."""


class Refused(PublishError):
    """The broker refused the message: a queue is full, or a permission is missing."""


class Unconfirmed(PublishError):
    """No confirm arrived: the message may be in the queue or not, so repeat it under the same id."""


class RecoveryFailed(WchError):
    """The broker stayed away longer than the setting allows."""


class Interrupted(WchError):
    """Work was stopped from outside; it is repeated and spends no try."""


class ShuttingDown(Interrupted):
    """The process is stopping; the delivery goes back to its queue."""


class DatabaseAway(Interrupted):
    """The database cannot be reached; consumption pauses until it answers."""


class Contended(Interrupted):
    """The database refused the transaction for another's sake; it is repeated at once."""


class LeaseLost(Interrupted):
    """The lease ran out while it was needed."""
