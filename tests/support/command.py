"""Runs `wch` as an operator does: in its own process, with input and output."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.forks import fork
from support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from support.stage import Stage


def _main() -> None:
    """Run the command, which inspects its terminal when it is imported."""
    from wch_common.cli.app import main

    main()


def wch(stage: Stage, *words: str, code: int = 0, given: str | None = None, **environment: str) -> str:
    """Run the command on a stage, assert its exit code, and return everything it prints."""
    names = {key: value for key, value in os.environ.items() if not key.startswith(("WCH_", "COLUMNS"))}
    settings = {"WCH_AMQP_URL": stage.url, "COLUMNS": "200", **environment}
    settings = {key: value for key, value in settings.items() if value}
    with tempfile.TemporaryDirectory() as folder:
        given_file, printed_file, complained_file = files = [Path(folder, name) for name in ("in", "out", "err")]
        given_file.write_text(given or "")
        process = fork(_main, ["wch", *words], {**names, **settings}, files)
        process.join(PATIENCE_SECONDS)
        if process.exitcode is None:
            process.kill()
        printed, complained = printed_file.read_text(), complained_file.read_text()
    assert "Traceback" not in complained, complained
    assert process.exitcode == code, printed + complained
    return printed + complained


def as_json(stage: Stage, *words: str) -> Any:
    """Run the command with --json and return the parsed output."""
    return json.loads(wch(stage, *words, "--json"))
