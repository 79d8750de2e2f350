"""Removes personal data and secrets from text before it is logged or written into a header; the only such place."""

from __future__ import annotations

import re

from pydantic import ValidationError

from wch_common.errors import field_errors

_RULES = (
    # the row that a database refused
    (re.compile(r"(?m)^(DETAIL|CONTEXT):.*$"), r"\1: <hidden>"),
    # user:password@ in addresses
    (re.compile(r"(?<=://)[^\s@]*:[^\s]*@"), "<hidden>@"),
    # keys in queries, forms and headers: access_token=…, "consumer_secret": "…", Authorization: Bearer …
    (
        re.compile(
            r"(?i)\b([\w-]*(?:token|secret|password|passwd|api[_-]?key|consumer_key|appsecret_proof|authorization))"
            r"(\"?'?\s*[=:]\s*\"?'?)(?:bearer\s+|basic\s+)?[^\s&\"',;}]+"
        ),
        r"\1\2<hidden>",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}"), r"\1 <hidden>"),
    # WooCommerce keys and Graph tokens, by their form
    (re.compile(r"\bc[ks]_[0-9a-f]{8,}\b"), "<hidden>"),
    (re.compile(r"\bEAA[A-Za-z0-9]{16,}\b"), "<hidden>"),
    # Meta's ids of users
    (re.compile(r"(?<![A-Za-z0-9.])[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{5,128}(?![A-Za-z0-9])"), "<user id>"),
    # phone numbers, with or without punctuation; a digit run of 9 to 15 may be one
    (re.compile(r"(?:\+|%2[bB])\d[\d\s().-]{5,18}\d"), "<number>"),
    (re.compile(r"(?<![\dA-Za-z.-])0?\d{9,15}(?![\w-])"), "<number>"),
    (re.compile(r"(?<![\w.:-])\d{2,4}[ -]\d{3,4}[ -]\d{3,4}(?:[ -]\d{3,4})?(?![\w:-])"), "<number>"),
)


def redact(text: str, limit: int | None = None) -> str:
    """Return the text without secrets, phone numbers and ids of users, printable as UTF-8, cut to `limit` characters.

    It is also cut before it is searched, so that a message of megabytes costs no more than a short one.
    """
    if limit is not None and len(text) > 4 * limit:
        text = text[: 4 * limit]
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    if limit is not None and len(text) > limit:
        return text[: limit - 1] + "…"
    return text


def redact_trace(trace: str, limit: int) -> str:
    """Return a traceback without secrets, phone numbers and ids of users; a long one is cut at its start, as its end names the error."""
    text = redact(trace[-4 * limit :])
    return text if len(text) <= limit else "…" + text[1 - limit :]


def error_text(error: BaseException, limit: int = 1000) -> str:
    """Return an error's text, redacted, whatever its `__str__` does."""
    try:
        # The text of a validation error would contain the values it refused.
        text = "; ".join(map(str, field_errors(error))) if isinstance(error, ValidationError) else str(error)
    except Exception:  # noqa: BLE001 - any error may hide in a foreign __str__
        text = "(its text cannot be read)"
    return redact(text, limit)
