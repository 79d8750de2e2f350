"""The status of a cart, which follows from the newest fact of each kind and not from the order in which they arrive."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from wch_carts.queries import LockedCart

NEVER = -1


@dataclass(frozen=True)
class Versions:
    """The version of the newest fact of each kind, or NEVER."""

    updated: int = NEVER
    filled: int = NEVER
    """The newest change that left items in the cart: the idle period begins with it."""
    ordered: int = NEVER
    deleted: int = NEVER

    @classmethod
    def of(cls, cart: LockedCart) -> Self:
        """Return the versions of a cart's row."""

        def known(version: int | None) -> int:
            return NEVER if version is None else version

        return cls(
            updated=known(cart.updated_version),
            filled=known(cart.filled_version),
            ordered=known(cart.ordered_version),
            deleted=known(cart.deleted_version),
        )

    @property
    def status(self) -> str:
        """The status: a shop empties and deletes an ordered cart, which stays completed."""
        if self.ordered > NEVER and self.ordered >= self.filled:
            return "completed"
        return "deleted" if self.deleted > NEVER and self.deleted >= self.updated else "active"

    @property
    def remindable_period(self) -> int:
        """The idle period whose reminder is still right, or NEVER."""
        return self.filled if self.status == "active" and self.filled == self.updated else NEVER

    @property
    def columns(self) -> dict[str, int | None]:
        """The values of the row."""
        return {name: None if version == NEVER else version for name, version in asdict(self).items()}
