"""Signed events of the outbox: whoever publishes them, and of whatever type, they are published signed."""

from __future__ import annotations

import asyncio

from support.demo_events import ThingRequested
from wch_common.contract.event import Request, new_event
from wch_common.contract.message import Publication
from wch_common.errors import Unconfirmed
from wch_common.events.scheduler import TimerCancelRequested
from wch_common.store.migrate import migrate
from wch_common.store.store import Store


class SignedRequested(Request):
    """A signed request of a type that the machinery does not know."""

    TYPE = "demo.signed.requested.v1"
    SIGNED = True


EVENTS = {"timer": TimerCancelRequested(key="k"), "own": SignedRequested(), "plain": ThingRequested(number=1)}


def test_the_sweep_publishes_as_signed_what_the_relay_could_not(database_url: str) -> None:
    migrate(database_url, "demo", [])
    published: list[Publication] = []

    async def play() -> None:
        fails = True

        async def publish(publication: Publication) -> None:
            if fails:
                raise Unconfirmed("no confirm arrived")
            published.append(publication)

        store = Store(database_url, "demo", publish)
        await store.open()
        # Together, and each alone: one row and several are written by different statements.
        async with store.transaction() as tx:
            for name, data in EVENTS.items():
                tx.emit(new_event(data, "/tests", id=f"together-{name}"))
        for name, data in EVENTS.items():
            async with store.transaction() as tx:
                tx.emit(new_event(data, "/tests", id=f"alone-{name}"))
        while store.outbox.unconfirmed:
            await asyncio.sleep(0)
        fails = False
        await store.database.rows("UPDATE outbox SET due_at = now()")
        assert await store.outbox.sweep.once() == 2 * len(EVENTS)
        await store.close()

    asyncio.run(play())
    assert {one.message.message_id: one.signed for one in published} == {
        f"{how}-{name}": data.SIGNED for how in ("together", "alone") for name, data in EVENTS.items()
    }
