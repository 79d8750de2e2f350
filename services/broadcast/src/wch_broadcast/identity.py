"""Derived names of campaigns, lists, batches, send keys and events: computed again, they are the same."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Any

import orjson

from wch_common.contract.identity import HEX_PATTERN, derived_id, without_digits

_NAMESPACE = uuid.UUID("6e1a4c52-3c5e-5b63-8c57-0b6c1d8a9f27")
_KEY = re.compile(rf"^(?P<campaign>{HEX_PATTERN})\.(?P<position>[0-9]{{1,7}})$")
_BATCH = re.compile(r"^(?P<campaign>.+)/(?P<number>[0-9]{1,9})$", re.DOTALL)


def campaign_uuid(shop: str, campaign_id: str) -> uuid.UUID:
    """Return the primary key of a campaign, one per shop and name."""
    return derived_id(_NAMESPACE, "campaign", shop, campaign_id)


def list_uuid(shop: str, list_id: str) -> uuid.UUID:
    """Return the primary key of a list, one per shop and name."""
    return derived_id(_NAMESPACE, "list", shop, list_id)


def send_key(campaign: uuid.UUID, position: int) -> str:
    """Return the key under which one recipient is sent a campaign's message at most once."""
    return f"{without_digits(campaign)}.{position}"


def position(campaign: uuid.UUID, key: str) -> int | None:
    """Return the position of the recipient with a send key; None if the key belongs to another campaign."""
    match = _KEY.match(key)
    if match is None or match["campaign"] != without_digits(campaign):
        return None
    return int(match["position"])


def batch_name(campaign_id: str, number: int) -> str:
    """Return the id under which whatsapp knows a batch."""
    return f"{campaign_id}/{number}"


def parsed_batch(name: str) -> tuple[str, int] | None:
    """Return the campaign and the number of a batch's id; None for an id of another form."""
    match = _BATCH.match(name)
    return (match["campaign"], int(match["number"])) if match else None


def event_id(campaign: uuid.UUID, type_: str, key: object) -> str:
    """Return the id of an event that a campaign publishes; `key` distinguishes events of one type."""
    return str(derived_id(campaign, type_, key))


# Fields since 0.1.0: an absent one must not change the hash of what an earlier version has stored.
_ADDED = frozenset({"filename", "flow_token", "flow_action_data", "as_of"})


def content_hash(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return the hash by which a repeated request is recognised, the same in every version."""
    canonical = orjson.dumps(_without_absent(value), option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=16).digest()


def _without_absent(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, list):
        return [_without_absent(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_absent(one) for key, one in value.items() if one is not None or key not in _ADDED}
