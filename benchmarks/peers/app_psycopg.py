"""Bare psycopg, the baseline of the database: the same three statements on as many connections, without a broker."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid

import psycopg
from marks import TEXT, mark

CONNECTIONS = 5


async def run_transactions(numbers: iter) -> None:
    async with await psycopg.AsyncConnection.connect(os.environ["BENCH_DATABASE_URL"], prepare_threshold=1) as link:
        for number in numbers:
            async with link.transaction():
                id_ = str(uuid.uuid4())
                await link.execute("INSERT INTO bare_inbox (id) VALUES (%s) ON CONFLICT DO NOTHING", (id_,))
                await link.execute("INSERT INTO bare_jobs (number, text) VALUES (%s, %s)", (number, TEXT))
                await link.execute("INSERT INTO bare_outbox (id, body) VALUES (%s, %s)", (id_, TEXT.encode() * 4))
            mark(number, time.time_ns())


async def main(count: int) -> None:
    async with await psycopg.AsyncConnection.connect(os.environ["BENCH_DATABASE_URL"], autocommit=True) as link:
        await link.execute("CREATE TABLE IF NOT EXISTS bare_inbox (id text PRIMARY KEY, at timestamptz DEFAULT now())")
        await link.execute("CREATE TABLE IF NOT EXISTS bare_jobs (number bigint, text text)")
        await link.execute("CREATE TABLE IF NOT EXISTS bare_outbox (id text PRIMARY KEY, body bytea)")
    numbers = iter(range(count))
    await asyncio.gather(*(run_transactions(numbers) for _ in range(CONNECTIONS)))


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
