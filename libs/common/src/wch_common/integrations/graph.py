"""Errors of Meta's catalog API, classified by their code; the HTTP status decides only for unlisted codes.

The errors of sending messages have a table of their own, `events/failure_reasons.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from wch_common.observability.redact import redact

if TYPE_CHECKING:
    import httpx


class GraphAction(Enum):
    """How to react to a Graph error."""

    AUTH = "auth"
    """Pause the scope and alert; keep the events."""
    THROTTLE = "throttle"
    """Send fewer calls for the scope."""
    BACKOFF = "backoff"
    """Try again later."""
    REJECT = "reject"
    """Permanent: no retry can succeed."""


_AUTH = frozenset({0, 3, 10, 33, 102, 104, 190, 368, *range(200, 300)})
_THROTTLE = frozenset({4, 17, 32, 341, 613, 80007, 80008, 80009, 80014})
_BACKOFF = frozenset({1, 2})
_INVALID_PARAMETER = 100
_OBJECT_NOT_VISIBLE = 33
_HTTP_AUTH = frozenset({401, 403})
_TOO_MANY, _SERVER_ERROR = 429, 500


@dataclass(eq=False)
class GraphError(Exception):
    """An error body that Graph sent, which proves that it accepted nothing of the call."""

    status: int
    code: int
    subcode: int | None
    message: str
    details: str
    regain_seconds: float | None

    def __str__(self) -> str:
        text = f"Graph error {self.code}: {self.message}"
        return redact(f"{text} ({self.details})" if self.details else text, 500)

    @property
    def action(self) -> GraphAction:
        """How to react, by the code; for unlisted codes by the class of the HTTP status."""
        if self.code in _AUTH or (self.code == _INVALID_PARAMETER and self.subcode == _OBJECT_NOT_VISIBLE):
            return GraphAction.AUTH
        if self.code in _THROTTLE:
            return GraphAction.THROTTLE
        if self.code in _BACKOFF:
            return GraphAction.BACKOFF
        if self.code == _INVALID_PARAMETER:
            return GraphAction.REJECT
        if self.status in _HTTP_AUTH:
            return GraphAction.AUTH
        if self.status == _TOO_MANY:
            return GraphAction.THROTTLE
        return GraphAction.BACKOFF if self.status >= _SERVER_ERROR else GraphAction.REJECT


def graph_error(response: httpx.Response) -> GraphError | None:
    """Return the Graph error of a response, or None if it has none (like the error page of a gateway)."""
    try:
        error = response.json()["error"]
        code = int(error["code"])
    except (ValueError, KeyError, TypeError):
        return None
    data = error.get("error_data")
    details = data.get("details", "") if isinstance(data, dict) else str(data or "")
    subcode = error.get("error_subcode")
    return GraphError(
        status=response.status_code,
        code=code,
        subcode=int(subcode) if subcode is not None else None,
        message=str(error.get("message", "")),
        details=details or str(error.get("error_user_msg") or ""),
        regain_seconds=_regain_seconds(response),
    )


def _regain_seconds(response: httpx.Response) -> float | None:
    """Return the seconds that Meta asks to wait, from its usage header (in minutes) or Retry-After."""
    try:
        usage: dict[str, list[dict[str, Any]]] = json.loads(response.headers["X-Business-Use-Case-Usage"])
        minutes = max(float(row.get("estimated_time_to_regain_access", 0)) for rows in usage.values() for row in rows)
    except (KeyError, ValueError, TypeError, AttributeError):
        retry_after = response.headers.get("Retry-After", "")
        return float(retry_after) if retry_after.isdigit() else None
    return minutes * 60 if minutes > 0 else None
