"""`wch`, run as a person would run it: a process of its own, forked from one that has loaded the libraries already."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.stage import Stage

# Loading them takes a second each time, and the tests start it often; one of them starts it as it is installed.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["httpx", "kombu", "phonenumbers", "psycopg", "pydantic", "rich.table", "typer", "wch_common.events"]
)


def _run(words: tuple[str, ...], environment: dict[str, str], files: list[Path]) -> None:
    """Be the command: with a terminal's three files, arguments and environment of its own."""
    for number, (path, mode) in enumerate(zip(files, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY), strict=True)):
        os.dup2(os.open(path, mode), number)
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["wch", *words]
    from wch_common.cli.app import main

    main()


def wch(stage: Stage, *words: str, code: int = 0, given: str | None = None, **environment: str) -> str:
    """Run the command on a stage, see that it exits with a code, and return all that it prints."""
    names = {key: value for key, value in os.environ.items() if not key.startswith("WCH_")}
    settings = {"WCH_AMQP_URL": stage.url, "COLUMNS": "200", **environment}
    settings = {key: value for key, value in settings.items() if value}
    with tempfile.TemporaryDirectory() as folder:
        given_file, printed_file, complained_file = files = [Path(folder, name) for name in ("in", "out", "err")]
        given_file.write_text(given or "")
        printed_file.touch()
        complained_file.touch()
        process = _FORKS.Process(target=_run, args=(words, {**names, **settings}, files))
        process.start()
        process.join(60)
        if process.exitcode is None:
            process.kill()
        printed, complained = printed_file.read_text(), complained_file.read_text()
    assert "Traceback" not in complained, complained
    assert process.exitcode == code, printed + complained
    return printed + complained


def as_json(stage: Stage, *words: str) -> Any:
    """Run it with --json and read what it prints."""
    return json.loads(wch(stage, *words, "--json"))
