"""The whatsapp service's tables by themselves, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg

from support.whatsapp_stage import NUMBER
from wch_common.message import Publication
from wch_common.store.migrate import migrate
from wch_common.store.store import Store
from wch_whatsapp.claims import Limits, add_number
from wch_whatsapp.decide import PairLimit
from wch_whatsapp.main import MIGRATIONS

LIMITS = Limits(
    sender=NUMBER,
    senders=(NUMBER, "3003"),
    portfolio="",
    rate=0,
    people_a_day=-1,
    pair=PairLimit(0, 1),
    call_deadline_seconds=60,
)


class Silent:
    """Publishes nowhere: what is told stays in the outbox."""

    async def publish(self, _publication: Publication) -> None:
        await asyncio.Event().wait()


def run(database_url: str, test: Callable[[Store], Awaitable[None]]) -> None:
    migrate(database_url, "whatsapp", MIGRATIONS)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        store = Store(database_url, "whatsapp", Silent())
        await store.open()
        await add_number(store, NUMBER)
        try:
            yield store
        finally:
            await store.database.close()

    async def main() -> None:
        async with opened() as store:
            await test(store)

    asyncio.run(main())


def fill(database_url: str, count: int, asker: str = "carts", state: str = "queued") -> None:
    """Put messages into the ledger."""
    statement = """
    INSERT INTO messages (id, shop, asker, send_key, sender, phone, person, category, content, state, due_at, expires_at)
    SELECT gen_random_uuid(), '', %(asker)s, %(asker)s || n, %(sender)s, '+1555', decode(lpad(to_hex(n), 32, '0'), 'hex'),
           'utility', '{"type": "template"}', %(state)s, now() - interval '1 minute', now() + interval '1 day'
    FROM generate_series(1, %(count)s) AS n
    """
    with psycopg.connect(database_url, autocommit=True, options="-c search_path=whatsapp") as connection:
        connection.execute(statement, {"asker": asker, "sender": NUMBER, "state": state, "count": count})
