"""Errors of Meta's Graph API."""

from __future__ import annotations

from typing import Any


class GraphError(Exception):
    """An error in Graph's form."""

    def __init__(self, status: int, code: int, message: str, *, subcode: int | None = None, details: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {
            "error": {
                "message": f"(#{code}) {message}",
                "type": "OAuthException",
                "code": code,
                "fbtrace_id": "Asimulated",
                **({"error_subcode": subcode} if subcode else {}),
                **({"error_data": {"messaging_product": "whatsapp", "details": details}} if details else {}),
            }
        }
