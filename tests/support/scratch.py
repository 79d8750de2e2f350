"""Where the tests' brokers and databases keep their data."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

_MEMORY, _DISK = Path("/dev/shm"), Path("/var/tmp")  # noqa: S108 - names nobody can guess are made there
_ROOM = 4 * 2**30


def new_folder(kind: str) -> Path:
    """Name a new folder: in memory where there is room, as a dozen servers that wait for one disk are half as fast.

    What a process that is killed had written stays there as on a disk.
    """
    place = _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM else _DISK
    return place / f"wch-{kind}-{secrets.token_hex(4)}"
