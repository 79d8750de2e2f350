"""What Meta reports: statuses, which settle what was in doubt, and what people write, which opens their window."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from wch_common.integrations.phone import MalformedNumber, normalised, one_form
from wch_common.outcome import Retry
from wch_whatsapp import people
from wch_whatsapp.error_policy import Action, classify
from wch_whatsapp.identity import Tag
from wch_whatsapp.ledger import Change, Why, apply
from wch_whatsapp.outcomes import end_batch, for_whom_it_is, pause_for, refused, rest, untold

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from wch_common.contract.event import Event
    from wch_common.events.meta import MessageReceived, StatusReceived
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction
    from wch_whatsapp.error_policy import ErrorPolicy
    from wch_whatsapp.identity import People
    from wch_whatsapp.metrics import WhatsAppMetrics

log = structlog.get_logger(__name__)

# In doubt, told as unknown, or put back for another try: a status proves that Meta had taken it.
_UNSETTLED = ("sending", "in_doubt", "unknown", "queued")
_BEFORE: Final[dict[str, tuple[str, ...]]] = {
    "accepted": _UNSETTLED,
    "delivered": (*_UNSETTLED, "accepted"),
    "read": (*_UNSETTLED, "accepted", "delivered"),
    "failed": (*_UNSETTLED, "accepted"),
}
_STATES = {"sent": "accepted", "delivered": "delivered", "read": "read", "played": "read", "failed": "failed"}
_COLUMNS = "id, shop, person, phone, sender, attempt, state, fallback, as_fallback, own_values, batch, content, failures, answered, doubted, wamid, reason, code, detail"
_BY_TAG = f"""
SELECT {_COLUMNS} FROM messages WHERE id = %(id)s AND (attempt = %(attempt)s OR doubted = %(attempt)s) FOR UPDATE
"""  # noqa: S608 - names of this module
_NO_DOUBT = "UPDATE messages SET doubted = NULL WHERE id = %(id)s"
_BY_WAMID = f"SELECT {_COLUMNS} FROM messages WHERE wamid = %(wamid)s FOR UPDATE"  # noqa: S608 - names of this module
_MAYBE = "SELECT 1 FROM messages WHERE sender = %(sender)s AND state IN ('sending', 'in_doubt') LIMIT 1"
_PATIENCE = 3
_WAITING = frozenset({Action.THROTTLE, Action.PARK, Action.PAIR})
_PUNCTUATION = " \t\n.!?\"'"


def _failed(row: Row, data: StatusReceived) -> tuple[Change, ErrorPolicy | None]:
    """Return what a failure that Meta reports after it took a message makes of it: what passes is sent again, as it was not."""
    error = data.errors[0] if data.errors else None
    if error is None:
        return Change(row["id"], "failed", attempt=row["attempt"], wamid=data.wamid, why=Why("undeliverable")), None
    policy = classify(error.code, message=error.title, details=error.details, own_values=row["own_values"])
    policy = for_whom_it_is(policy, row["content"], as_fallback=row["as_fallback"])
    # Counted, whatever it is: Meta takes the message each time, and without a count it would go there until it expires.
    counted = replace(policy, action=Action.BACK_OFF) if policy.action in _WAITING else policy
    change = untold(row, refused(row, row["attempt"], counted))
    if change.state == "queued":
        return replace(change, anew=True), policy
    return replace(change, wamid=data.wamid), policy


def _is_of_the_doubted(row: Row, text: str | None) -> bool:
    """Tell whether a status is of the attempt that was sent again in doubt."""
    tag = Tag.parsed(text)
    return tag is not None and tag.attempt == row["doubted"]


def _second(row: Row, wamid: str) -> Change | None:
    """Return what becomes of a message whose first attempt is known to have failed, by what is known of its second."""
    id_, attempt = row["id"], row["attempt"]
    if row["state"] == "accepted" and row["wamid"] == wamid:  # nothing was told but that the first was taken
        return Change(id_, "unknown", attempt=attempt, why=Why("no_status"))
    if row["state"] == "unknown" and row["reason"] != "no_status":
        return Change(id_, "failed", attempt=attempt, why=Why(row["reason"], row["code"], row["detail"]))
    return None


class Inbound:
    """The handlers of `meta.status.received` and `meta.message.received`."""

    def __init__(
        self, shops_by_sender: Mapping[str, str], known: People, stop_words: tuple[str, ...], metrics: WhatsAppMetrics
    ) -> None:
        self._shop_of = shops_by_sender
        self._metrics = metrics
        self._people = known
        self._stop_words = frozenset(word.casefold() for word in stop_words)

    async def status(self, event: Event[StatusReceived], tx: Transaction) -> None:
        """Apply a status; one that comes again, too late or for another program's message changes nothing."""
        data = event.data
        state = _STATES.get(data.status)
        if state is None:
            return
        row = await self._row(event, tx)
        if row is None:
            return
        change: Change | None = Change(row["id"], state, attempt=row["attempt"], wamid=data.wamid)
        if state == "failed":
            change, policy = _failed(row, data)
            if row["state"] in _BEFORE[state] and policy is not None:
                await self._concern_others(tx, row, policy, data.timestamp)
            if _is_of_the_doubted(row, data.tag):
                await tx.rows(_NO_DOUBT, {"id": row["id"]})
                change = change if row["doubted"] == row["attempt"] else _second(row, data.wamid)
        if change is not None:
            await apply(tx, [change], before=_BEFORE[state])

    async def _row(self, event: Event[StatusReceived], tx: Transaction) -> Row | None:
        data = event.data
        if (tag := Tag.parsed(data.tag)) is not None:
            rows = await tx.rows(_BY_TAG, {"id": tag.message, "attempt": tag.attempt})
            return rows[0] if rows else None  # what became of other attempts is known
        if rows := await tx.rows(_BY_WAMID, {"wamid": data.wamid}):
            return rows[0]
        if event.attempt <= _PATIENCE and await tx.rows(_MAYBE, {"sender": data.phone_number_id}):
            raise Retry("the message may be one whose answer is not written yet")
        return None

    async def _concern_others(self, tx: Transaction, row: Row, policy: ErrorPolicy, since: datetime) -> None:
        """Do what an error asks for beside its message, as if the call had been answered with it."""
        self._metrics.refused(policy.reason)
        if policy.reason == "opted_out":
            await people.suppress(tx, row, "marketing", reason="opted_out", by="meta", since=since)
        if (pause := pause_for(policy)) is not None:
            shop = self._shop_of.get(row["sender"])
            senders = [sender for sender, of in self._shop_of.items() if of == shop] if pause.shop else [row["sender"]]
            log.error("number_rests", number=row["sender"], cause=pause.cause, seconds=pause.seconds)
            await rest(tx, pause, senders)
        await end_batch(tx, row, policy)

    async def message(self, event: Event[MessageReceived], tx: Transaction) -> None:
        """Open the person's window; a stop word or a changed wish changes whom marketing goes to."""
        data = event.data
        shop = self._shop_of.get(data.phone_number_id)
        if shop is None:
            return
        try:
            phone = normalised(one_form(f"+{data.sender.removeprefix('+')}"))
        except MalformedNumber:
            log.warning("sender_is_no_number", kind=data.kind)
            return
        person = self._people.person(phone)
        who = {"shop": shop, "phone": phone, "person": person}
        if data.kind == "preference":
            if data.marketing == "resume":
                await people.resume(tx, who, data.timestamp)
        else:
            await people.open_window(tx, data.phone_number_id, person, data.timestamp)
        if data.marketing == "stop" or self._says_stop(data.text):
            since = data.timestamp
            await people.suppress(tx, who, "marketing", reason="asked_to_stop", by="recipient", since=since)

    def _says_stop(self, text: str | None) -> bool:
        return text is not None and text.strip(_PUNCTUATION).casefold() in self._stop_words
