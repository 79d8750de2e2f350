"""Runs the whatsapp service and kills it at a step: `python -m support.crashing_whatsapp STEP`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from support.crashing import die, dying_after
from wch_whatsapp import claims, sender
from wch_whatsapp.acceptance import Acceptance
from wch_whatsapp.cloud import CloudApi
from wch_whatsapp.main import main
from wch_whatsapp.sender import NumberSender

if TYPE_CHECKING:
    from collections.abc import Callable


def _die_where(name: str, condition: Callable[[Any], bool]) -> None:
    """Die before a step of the sender if its first argument meets a condition."""
    step = getattr(NumberSender, name)

    def perhaps(self: NumberSender, given: Any, *rest: Any) -> object:
        return die() if condition(given) else step(self, given, *rest)

    setattr(NumberSender, name, perhaps)


STEPS: dict[str, Callable[[], None]] = {
    "never": lambda: None,
    "before the row is written": lambda: setattr(Acceptance, "message", die),
    "after the row is written": lambda: dying_after(Acceptance, "message"),
    "before the claim": lambda: setattr(sender, "claim", die),
    "before the intent is committed": lambda: dying_after(claims, "_begin"),
    "after the intent is committed": lambda: _die_where("_begin", lambda claimed: bool(claimed.sends)),
    "before the call": lambda: setattr(CloudApi, "send", die),
    "after the call": lambda: dying_after(CloudApi, "send"),
    "before the outcome is committed": lambda: setattr(sender, "write", die),
    "after the outcome is committed": lambda: _die_where("_end", bool),
}

if __name__ == "__main__":
    STEPS[sys.argv[1]]()
    sys.exit(main())
