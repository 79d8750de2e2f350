"""Events in the test's own queues, consumed on arrival and kept, because repeated reads raise delivery counts."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import orjson

from support.waiting import eventually

if TYPE_CHECKING:
    from support.stage import Stage


class Collected:
    """Events that a test follows, by queue, with their routing `key`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._taken: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def events(self, queue: str, type_: str = "") -> list[dict[str, Any]]:
        """Take new events, and return all events whose type starts with a text."""
        with self._stage.mailbox(queue) as mailbox:
            for dead_letter in mailbox.take():
                self._taken[queue].append({**orjson.loads(dead_letter.message.body), "key": dead_letter.routing_key})
                mailbox.remove(dead_letter)
        return [event for event in self._taken[queue] if event["type"].startswith(type_)]

    def data(self, queue: str, type_: str = "") -> list[dict[str, Any]]:
        """Return the data of those events."""
        return [event["data"] for event in self.events(queue, type_)]

    def await_data(self, queue: str, type_: str, number: int = 1) -> list[dict[str, Any]]:
        """Wait until there are this many, and return the data of all."""
        return eventually(
            lambda: found if len(found := self.data(queue, type_)) >= number else [], f"{number} {type_} in {queue}"
        )
