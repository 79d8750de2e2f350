"""Folders for the data of the tests' brokers and databases."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

_MEMORY, _DISK = Path("/dev/shm"), Path("/var/tmp")  # noqa: S108 - names nobody can guess are made there
_ROOM = 4 * 2**30


def new_folder(kind: str) -> Path:
    """Return the name of a new folder, in memory if there is room: a dozen servers on one disk are half as fast.

    Data written by a killed process remains there as on a disk.
    """
    place = _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM else _DISK
    return place / f"wch-{kind}-{secrets.token_hex(4)}"
