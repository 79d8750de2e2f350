"""The tables of the whatsapp service without the service, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from support.waiting import eventually
from support.whatsapp_stage import NUMBER
from wch_common.contract.message import Publication
from wch_common.store.leases import Lease
from wch_common.store.migrate import migrate
from wch_common.store.store import Store
from wch_whatsapp.claims import Claim, add_number, claim
from wch_whatsapp.limits import Limits, PairLimit
from wch_whatsapp.main import MIGRATIONS

LIMITS = Limits(
    sender=NUMBER,
    senders=(NUMBER, "3003"),
    portfolio="",
    portfolio_senders=(NUMBER, "3003"),
    rate=0,
    recipients_a_day=-1,
    pair=PairLimit(0, 1),
    call_deadline_seconds=60,
)


async def publish_never(_publication: Publication) -> None:
    """Never confirm, so that facts stay in the outbox."""
    await asyncio.Event().wait()


def run(database_url: str, test: Callable[[Store], Awaitable[None]]) -> None:
    migrate(database_url, "whatsapp", MIGRATIONS)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        store = Store(database_url, "whatsapp", publish_never)
        await store.open()
        await add_number(store, LIMITS)
        try:
            yield store
        finally:
            await store.database.close()

    async def main() -> None:
        async with opened() as store:
            await test(store)

    asyncio.run(main())


_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def meeting(database_url: str, held: str, *claims: Coroutine[Any, Any, Claim]) -> list[Claim]:
    """Run claims while another transaction holds the locks of a statement; it commits once every claim waits or is done."""
    tasks = [asyncio.ensure_future(one) for one in claims]

    def met() -> bool:
        with psycopg.connect(database_url) as watching:
            (waiting,) = watching.execute(_WAITING).fetchone() or (0,)
        return bool(waiting + sum(one.done() for one in tasks) == len(tasks))

    with psycopg.connect(database_url, options="-c search_path=whatsapp") as connection:
        connection.execute(held.encode())
        await asyncio.to_thread(eventually, met, "every claim waits or is done")
    return await asyncio.gather(*tasks)


async def claimed(store: Store, limits: Limits, lease: Lease, wanted: int) -> Claim:
    """Claim messages in a transaction of its own."""
    async with store.transaction() as tx:
        return await claim(tx, limits, lease, wanted)


def fill(database_url: str, count: int, requester: str = "carts", state: str = "queued") -> None:
    """Add messages to the ledger."""
    statement = """
    INSERT INTO messages (id, shop, requester, send_key, sender, phone, person, category, content, state, due_at, expires_at)
    SELECT gen_random_uuid(), '', %(requester)s, %(requester)s || n, %(sender)s, '+1555', decode(lpad(to_hex(n), 32, '0'), 'hex'),
           'utility', '{"type": "template"}', %(state)s, now() - interval '1 minute', now() + interval '1 day'
    FROM generate_series(1, %(count)s) AS n
    """
    with psycopg.connect(database_url, autocommit=True, options="-c search_path=whatsapp") as connection:
        connection.execute(statement, {"requester": requester, "sender": NUMBER, "state": state, "count": count})
