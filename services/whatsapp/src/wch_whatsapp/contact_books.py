"""Deletes people from the contact books in which Meta keeps the numbers beside user ids, one for each business portfolio."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import httpx
import structlog

from wch_common import __version__
from wch_common.events.failure_reasons import failure_reason
from wch_common.events.whatsapp import ContactBook
from wch_common.integrations.graph import GraphError, graph_error
from wch_common.outcome import Retry, Throttled
from wch_whatsapp import queries_people as queries
from wch_whatsapp.error_policy import classify

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wch_common.contract.event import Event
    from wch_common.integrations.shops import GraphSection
    from wch_common.store.store import Transaction
    from wch_whatsapp.people import UserId

log = structlog.get_logger(__name__)

Answer: TypeAlias = Literal["deleted", "refused", "failed"]
# Whatever Meta asks for, an erasure ends on the same day.
_LONGEST_WAIT_SECONDS: Final = 3600.0
_AGAIN_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Reply:
    """What became of one id; `retryable` if asking again may help, after some seconds if Meta has named them."""

    answer: Answer
    reason: str = ""
    retryable: bool = False
    wait_seconds: float | None = None


class ContactBookApi:
    """The contact book of one business portfolio, by a number in it."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport, graph: GraphSection, sender: str, *, seconds: float
    ) -> None:
        self._transport = transport
        self._url = httpx.URL(f"{str(graph.url).rstrip('/')}/{graph.version}/{sender}/contact_book")
        self._headers = {
            "Authorization": f"Bearer {graph.token.get_secret_value()}",
            "User-Agent": f"wch-whatsapp/{__version__}",
        }
        self._seconds = seconds

    async def delete(self, user_id: str) -> Reply:
        """Delete the entry of a user, if there is one, within the time limit; may be repeated. The reply does not contain the id."""
        query = {"messaging_product": "whatsapp", "bsuid": user_id}
        request = httpx.Request("DELETE", self._url.copy_merge_params(query), headers=self._headers)
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._transport.handle_async_request(request)
        except (httpx.HTTPError, TimeoutError) as error:
            return Reply("failed", type(error).__name__, retryable=True)
        if (refusal := graph_error(response)) is not None:
            return _refused(refusal)
        if not _is_success(response):
            return Reply("failed", f"HTTP {response.status_code} without a Graph answer", retryable=True)
        return Reply("deleted")


def _is_success(response: httpx.Response) -> bool:
    try:
        return response.is_success and response.json()["success"] is True
    except (ValueError, LookupError, TypeError):
        return False


def _refused(error: GraphError) -> Reply:
    policy = classify(error.code, status=error.status, subcode=error.subcode)
    found = failure_reason(policy.reason)
    # Without Meta's own text, which may quote the id.
    reason = f"Graph error {error.code} ({policy.reason})"
    if not (found.retryable or found.parks):
        return Reply("refused", reason)
    return Reply("failed", reason, retryable=True, wait_seconds=error.regain_seconds or policy.wait_seconds)


class ContactBooks:
    """The contact books of all portfolios; a request is tried as often as its queue's policy says."""

    def __init__(self, apis: Mapping[str, ContactBookApi], *, tries: int) -> None:
        self._apis = apis
        self._tries = tries

    def deletion(self, event: Event[Any]) -> Deletion:
        """Return the deletion of one person, for one attempt at a request."""
        return Deletion(self, event.id, is_last=event.attempt > self._tries)

    async def delete(self, id_: UserId) -> Reply:
        """Delete the entry of a user from the book of the id's portfolio."""
        if (api := self._apis.get(id_.portfolio)) is None:
            return Reply("failed", "no shop has a number of this portfolio")
        return await api.delete(id_.value)


class Deletion:
    """Deletes one person under all ids; whoever asks Meta holds no transaction meanwhile."""

    def __init__(self, books: ContactBooks, erasure: str, *, is_last: bool) -> None:
        self._books = books
        self._erasure = erasure
        self._is_last = is_last
        self._ids: set[UserId] = set()
        self._is_done = False
        self.answers: tuple[ContactBook, ...] = ()

    def add(self, ids: Iterable[UserId]) -> None:
        """Add ids of the person; raises Throttled for one that became known after Meta was asked."""
        new = set(ids) - self._ids
        if new and self._is_done:
            raise Throttled("Meta has named the person by another id meanwhile", scope="", after=_AGAIN_SECONDS)
        self._ids |= new

    async def run(self) -> None:
        """Ask Meta for all ids; raises Retry if one was not settled and the request has attempts left."""
        ids = sorted(self._ids)
        replies = list(zip(ids, await asyncio.gather(*map(self._books.delete, ids)), strict=True))
        again = [(id_, reply) for id_, reply in replies if reply.retryable]
        if again and not self._is_last:
            waits = [reply.wait_seconds for _, reply in again if reply.wait_seconds is not None]
            (id_, reply), after = again[0], min(max(waits), _LONGEST_WAIT_SECONDS) if waits else None
            raise Retry(f"Meta's contact book of portfolio '{id_.portfolio}': {reply.reason}", after=after)
        counts: dict[str, Counter[Answer]] = defaultdict(Counter)
        for id_, reply in replies:
            counts[id_.portfolio][reply.answer] += 1
            if reply.answer != "deleted":
                details = {"portfolio": id_.portfolio, "answer": reply.answer, "reason": reply.reason}
                log.warning("contact_book_entry_not_deleted", erasure=self._erasure, **details)
        self.answers = tuple(
            ContactBook(portfolio=portfolio, deleted=found["deleted"], refused=found["refused"], failed=found["failed"])
            for portfolio, found in counts.items()
        )
        self._is_done = True

    async def keep_answers(self, tx: Transaction) -> None:
        """Keep what Meta answered, for the operator's command."""
        for one in self.answers:
            await tx.rows(queries.ADD_CONTACT_BOOK, {"erasure": self._erasure, **one.model_dump()})
