"""Names that are derived, so that whoever computes them again gets the same: of campaigns, lists, batches, keys and facts."""

from __future__ import annotations

import re
import uuid

_NAMES = uuid.UUID("6e1a4c52-3c5e-5b63-8c57-0b6c1d8a9f27")
# A key must not hold a telephone number, and eight of a random id's digits could happen to be one.
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_KEY = re.compile(r"^(?P<campaign>[a-p]{32})\.(?P<position>[0-9]{1,7})$")
_BATCH = re.compile(r"^(?P<campaign>.+)/(?P<number>[0-9]{1,9})$", re.DOTALL)


def campaign_uuid(shop: str, campaign_id: str) -> uuid.UUID:
    """Return the key of a campaign: one per shop and name."""
    return uuid.uuid5(_NAMES, f"campaign\n{shop}\n{campaign_id}")


def list_uuid(shop: str, list_id: str) -> uuid.UUID:
    """Return the key of a list: one per shop and name."""
    return uuid.uuid5(_NAMES, f"list\n{shop}\n{list_id}")


def send_key(campaign: uuid.UUID, position: int) -> str:
    """Return the key under which a recipient is sent a campaign's message at most once."""
    return f"{campaign.hex.translate(_LETTERS)}.{position}"


def position(campaign: uuid.UUID, key: str) -> int | None:
    """Return which recipient of a campaign a key means; None for a key that is not the campaign's."""
    match = _KEY.match(key)
    if match is None or match["campaign"] != campaign.hex.translate(_LETTERS):
        return None
    return int(match["position"])


def batch_name(campaign_id: str, number: int) -> str:
    """Return the name under which whatsapp knows a batch."""
    return f"{campaign_id}/{number}"


def parsed_batch(name: str) -> tuple[str, int] | None:
    """Return campaign and number of a batch's name; None for a name that is not ours."""
    match = _BATCH.match(name)
    return (match["campaign"], int(match["number"])) if match else None


def event_id(campaign: uuid.UUID, what: str) -> str:
    """Return the id of an event that a campaign causes."""
    return str(uuid.uuid5(campaign, what))
