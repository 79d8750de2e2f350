"""`wch`, run as a person would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.stage import Stage

WCH = Path(sys.executable).with_name("wch")


def wch(stage: Stage, *words: str, code: int = 0, given: str | None = None, **environment: str) -> str:
    """Run the command on a stage, see that it exits with a code, and return all that it prints."""
    names = {key: value for key, value in os.environ.items() if not key.startswith("WCH_")}
    settings = {"WCH_AMQP_URL": stage.url, "COLUMNS": "200", **environment}
    settings = {key: value for key, value in settings.items() if value}
    done = subprocess.run(
        [WCH, *words],
        env={**names, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        input=given,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def as_json(stage: Stage, *words: str) -> Any:
    """Run it with --json and read what it prints."""
    return json.loads(wch(stage, *words, "--json"))
