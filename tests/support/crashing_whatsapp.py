"""The whatsapp service, killed at a step: `python -m support.crashing_whatsapp STEP`, its settings in the environment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from support.crashing import die, dying_after
from wch_whatsapp import sender
from wch_whatsapp.accept import Acceptance
from wch_whatsapp.claims import claim
from wch_whatsapp.cloud import CloudApi
from wch_whatsapp.main import main
from wch_whatsapp.sender import NumberSender

if TYPE_CHECKING:
    from collections.abc import Callable


async def _claim_and_die(*args: Any, **kwargs: Any) -> object:
    taken = await claim(*args, **kwargs)
    return die() if taken.sends else taken


STEPS: dict[str, Callable[[], None]] = {
    "never": lambda: None,
    "before the row is written": lambda: setattr(Acceptance, "message", die),
    "after the row is written": lambda: dying_after(Acceptance, "message"),
    "before the claim": lambda: setattr(sender, "claim", die),
    "after the intent is committed": lambda: setattr(sender, "claim", _claim_and_die),
    "before the call": lambda: setattr(CloudApi, "send", die),
    "after the call": lambda: dying_after(CloudApi, "send"),
    "before the outcome is committed": lambda: setattr(NumberSender, "_write", die),
    "after the outcome is committed": lambda: dying_after(NumberSender, "_write"),
}

if __name__ == "__main__":
    STEPS[sys.argv[1]]()
    sys.exit(main())
