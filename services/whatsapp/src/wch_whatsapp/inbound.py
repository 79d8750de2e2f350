"""Handlers of Meta's reports: statuses settle messages, and what customers write opens windows and sets suppressions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from wch_common.events.recipient import MalformedRecipient
from wch_common.events.whatsapp import RecipientLinked
from wch_common.integrations.recipients import of_meta
from wch_common.outcome import Reject, Retry
from wch_common.store.erased_people import erased_since
from wch_whatsapp import queries
from wch_whatsapp.call_outcomes import change_for_error, limit_to_recipient, pause_for, unreported
from wch_whatsapp.changes import Change, StateReason
from wch_whatsapp.error_policy import ErrorAction, classify
from wch_whatsapp.facts import SOURCE
from wch_whatsapp.identity import Tag
from wch_whatsapp.ledger import apply
from wch_whatsapp.outcomes import end_batch
from wch_whatsapp.pauses import pause_numbers
from wch_whatsapp.suppressions import resume_marketing, suppress, suppressible, without_erased
from wch_whatsapp.windows import open_window

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from wch_common.contract.event import Event
    from wch_common.events.meta import MessageReceived, MetaUser, StatusReceived, UserChanged
    from wch_common.store.database import Row
    from wch_common.store.store import Transaction
    from wch_whatsapp.error_policy import ErrorPolicy
    from wch_whatsapp.metrics import WhatsAppMetrics
    from wch_whatsapp.opt_out import OptOutReader
    from wch_whatsapp.people import Name, People, Said

log = structlog.get_logger(__name__)

# A status proves that Meta had accepted the message, even if it is in doubt, unknown, or queued for a retry.
_UNSETTLED = ("sending", "in_doubt", "unknown", "queued")
_BEFORE: Final[dict[str, tuple[str, ...]]] = {
    "accepted": _UNSETTLED,
    "delivered": (*_UNSETTLED, "accepted"),
    "read": (*_UNSETTLED, "accepted", "delivered"),
    "failed": (*_UNSETTLED, "accepted"),
}
_STATES = {"sent": "accepted", "delivered": "delivered", "read": "read", "played": "read", "failed": "failed"}
_PATIENCE = 3
_WAITING = frozenset({ErrorAction.PAUSE_NUMBER, ErrorAction.PAUSE_UNTIL_PROBED, ErrorAction.PAUSE_RECIPIENT})


def _failed(row: Row, data: StatusReceived) -> tuple[Change, ErrorPolicy | None]:
    """Return the change for a failure that Meta reports after it accepted a message; a temporary one is retried."""
    error = data.errors[0] if data.errors else None
    if error is None:
        reason = StateReason("undeliverable")
        return Change(row["id"], "failed", attempt=row["attempt"], wamid=data.wamid, reason=reason), None
    policy = classify(error.code, message=error.title, details=error.details, own_values=row["own_values"])
    policy = limit_to_recipient(policy, row["content"], as_fallback=row["as_fallback"])
    # Always uses an attempt: Meta accepts the message each time, so that without a count it would be sent until it expires.
    counted = replace(policy, action=ErrorAction.RETRY) if policy.action in _WAITING else policy
    change = unreported(row, change_for_error(row, row["attempt"], counted))
    if change.state == "queued":
        return replace(change, new_attempt=True), policy
    return replace(change, wamid=data.wamid), policy


def _is_of_doubted_attempt(row: Row, text: str | None) -> bool:
    """Whether a status belongs to the attempt that was in doubt when the message was sent again."""
    tag = Tag.parsed(text)
    return tag is not None and tag.attempt == row["doubted_attempt"]


def _second_attempt(row: Row, wamid: str) -> Change | None:
    """Return the change for a message whose doubted attempt has failed, by what is known of its second attempt."""
    id_, attempt = row["id"], row["attempt"]
    if row["state"] == "accepted" and row["wamid"] == wamid:  # only the doubted attempt was reported as accepted
        return Change(id_, "unknown", attempt=attempt, reason=StateReason("no_status"))
    if row["state"] == "unknown" and row["reason"] != "no_status":
        return Change(id_, "failed", attempt=attempt, reason=StateReason(row["reason"], row["code"], row["detail"]))
    return None


def _publish_link(event: Event[Any], tx: Transaction, portfolio: str, said: Said) -> None:
    """Publish which number and id are one person's, if that is news, for services that know the person by either."""
    if said.linked is not None:
        phone, user_id = said.linked
        fact = RecipientLinked(phone=phone, user_id=user_id, portfolio=portfolio, timestamp=event.data.timestamp)
        tx.emit(event.derive(fact, SOURCE, requester=""))


class Inbound:
    """The handlers of `meta.status.received`, `meta.message.received` and `meta.user.changed`."""

    def __init__(
        self,
        shops_by_sender: Mapping[str, str],
        people: People,
        opt_outs: OptOutReader,
        metrics: WhatsAppMetrics,
    ) -> None:
        self._shop_of = shops_by_sender
        self._metrics = metrics
        self._people = people
        self._opt_outs = opt_outs

    async def status(self, event: Event[StatusReceived], tx: Transaction) -> None:
        """Apply a status; a repeated or late one, or one of another program's message, changes nothing. May raise Retry."""
        data = event.data
        state = _STATES.get(data.status)
        if state is None:
            return
        row = await self._row(event, tx)
        if row is None:
            return
        await self._link(event, tx, row)
        change: Change | None = Change(row["id"], state, attempt=row["attempt"], wamid=data.wamid)
        if state == "failed":
            change, policy = _failed(row, data)
            if row["state"] in _BEFORE[state] and policy is not None:
                await self._apply_policy(tx, row, policy, data.timestamp)
            if _is_of_doubted_attempt(row, data.tag):
                await tx.rows(queries.CLEAR_DOUBT, {"id": row["id"]})
                is_last = row["doubted_attempt"] == row["attempt"]
                change = change if is_last else _second_attempt(row, data.wamid)
        if change is not None:
            await apply(tx, [change], before=_BEFORE[state])
        if state == "accepted":
            await tx.rows(queries.SET_HAS_STATUS, {"id": row["id"]})

    async def _link(self, event: Event[StatusReceived], tx: Transaction, row: Row) -> None:
        """Link the names in a status of one of our messages; most statuses say nothing new."""
        data, portfolio = event.data, self._people.portfolio(row["sender"])
        if portfolio is not None and data.recipient and (data.user_id or data.parent_id):
            names = self._names(data.recipient, data.user_id, data.parent_id)
            _publish_link(event, tx, portfolio, await self._people.said_by_meta(tx, portfolio, names, data.timestamp))

    async def _row(self, event: Event[StatusReceived], tx: Transaction) -> Row | None:
        data = event.data
        if (tag := Tag.parsed(data.tag)) is not None:
            rows = await tx.rows(queries.FIND_BY_TAG, {"id": tag.message, "attempt": tag.attempt})
            return rows[0] if rows else None  # the results of other attempts are known
        if rows := await tx.rows(queries.FIND_BY_WAMID, {"wamid": data.wamid}):
            return rows[0]
        if event.attempt <= _PATIENCE and await tx.rows(queries.ANY_OPEN_CALL, {"sender": data.phone_number_id}):
            raise Retry("no message has this wamid yet; a call of the number has no outcome yet and may be the one")
        return None

    async def _apply_policy(self, tx: Transaction, row: Row, policy: ErrorPolicy, since: datetime) -> None:
        """Apply what an error means beyond its message, as if it were the answer to the call."""
        self._metrics.refused(policy.reason)
        if policy.reason == "opted_out":
            await suppress(tx, row, "marketing", reason="opted_out", by="meta", since=since)
        if (pause := pause_for(policy)) is not None:
            shop = self._shop_of.get(row["sender"])
            senders = [sender for sender, of in self._shop_of.items() if of == shop] if pause.shop else [row["sender"]]
            log.error(
                "number_paused", number=row["sender"], cause=pause.cause, seconds=pause.seconds, whole_shop=pause.shop
            )
            await pause_numbers(tx, pause, senders)
        await end_batch(tx, row, policy)

    async def message(self, event: Event[MessageReceived], tx: Transaction) -> None:
        """Open the customer's window; a stop word or a changed preference changes their marketing suppression."""
        data = event.data
        shop, portfolio = self._shop_of.get(data.phone_number_id), self._people.portfolio(data.phone_number_id)
        if shop is None or portfolio is None:
            return
        names = self._names(data.sender, data.user_id, data.parent_id)
        if not names:
            # It may be a STOP: kept until a version that knows the form is deployed and it is replayed.
            raise Reject("the sender has no number and no id of a known form; Meta's webhooks may have changed")
        is_erased = await erased_since(tx, [one.id for one in names], data.timestamp)
        said = await self._people.said_by_meta(tx, portfolio, names, data.timestamp, restores=not is_erased)
        _publish_link(event, tx, portfolio, said)
        names = list(said.names)
        if is_erased:
            pass  # of what they wrote before, only a wish for less counts
        elif data.kind == "preference":
            if data.marketing == "resume":
                await resume_marketing(tx, suppressible(shop, names[:1])[0], portfolio, data.timestamp)
        else:
            await open_window(tx, data.phone_number_id, names[0].id, data.timestamp)
        evidence = "the marketing preference" if data.marketing == "stop" else self._opt_outs.read(data.text)
        if evidence is None:
            return
        for name in await without_erased(tx, suppressible(shop, names), data.timestamp):
            stop = {"reason": "asked_to_stop", "by": "recipient", "evidence": str(evidence)}
            await suppress(tx, name, "marketing", since=data.timestamp, **stop)

    async def user_changed(self, event: Event[UserChanged], tx: Transaction) -> None:
        """Carry what is known of a customer over to their new number or id."""
        data = event.data
        portfolio = self._people.portfolio(data.phone_number_id)
        if portfolio is None:
            return
        previous, current = (self._of_user(one) for one in (data.previous, data.current))
        if previous and current:
            said = await self._people.said_by_meta(tx, portfolio, current, data.timestamp, previous=previous)
            _publish_link(event, tx, portfolio, said)
        else:
            what = "the previous" if current else "the new"
            raise Reject(f"{what} number or id of the customer has no known form; Meta's webhooks may have changed")

    def _of_user(self, user: MetaUser) -> list[Name]:
        return self._names(user.wa_id, user.user_id, user.parent_id)

    def _names(self, wa_id: str | None, user_id: str | None, parent_id: str | None) -> list[Name]:
        """Return what Meta calls a customer; empty if none of it has a known form."""
        try:
            return self._people.names(of_meta(wa_id, user_id, parent_id))
        except MalformedRecipient:
            return []
