"""Ports that belong to this test process, even while the server on them restarts."""

from __future__ import annotations

import os
import secrets
from itertools import cycle

from wch_local.rabbitmq import is_free

_FIRST, _ALL = 12_000, 5_000
_EACH = _ALL // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_MINE = _FIRST + _EACH * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# From a random start, as another run of the tests may use the same range.
_START = secrets.randbelow(_EACH)
_ROUND = cycle(_MINE + (_START + step) % _EACH for step in range(_EACH))


def own_port() -> int:
    """Return a free port that no other test process gets, and that is not returned again soon."""
    return next(port for port in _ROUND if is_free(port))
