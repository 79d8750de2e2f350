"""Placeholders in texts of WhatsApp messages, which a recipient's values replace."""

from __future__ import annotations

import re

from pydantic import AfterValidator

PLACEHOLDER = re.compile(r"\{\{\s*([a-z0-9_]{1,64})\s*\}\}")
"""A placeholder in a text, for a recipient's value by position or name."""
_BRACED = re.compile(r"\{\{\s*[\w.-]{1,64}\s*\}\}")


def _has_valid_placeholders(text: str) -> str:
    for found in _BRACED.findall(text):
        if not PLACEHOLDER.fullmatch(found):
            raise ValueError(
                f"{found} is not a valid placeholder: use a number like {{{{1}}}} or a name of a-z, 0-9 and _"
            )
    return text


ValidPlaceholders = AfterValidator(_has_valid_placeholders)
