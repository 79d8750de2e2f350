"""Collects the finished deliveries of one channel and acknowledges them with as few frames as possible."""

from __future__ import annotations

from typing import Protocol


class Ack(Protocol):
    """Sends one acknowledgement."""

    def __call__(self, tag: int, *, multiple: bool) -> None:
        """Acknowledge the tag and, with `multiple`, every open tag before it."""


class AckWindow:
    """Collects finished delivery tags of one channel and acknowledges them together.

    Tags start at 1 and increase by one. Every tag up to the watermark is settled; above it, finished tags are
    acknowledged one by one.
    """

    def __init__(self, ack: Ack) -> None:
        self._ack = ack
        self._watermark = 0
        self._done: set[int] = set()
        self._settled_above: set[int] = set()

    def done(self, tag: int) -> None:
        """Note that the delivery may be acknowledged with the next flush."""
        self._done.add(tag)

    def settled(self, tag: int) -> None:
        """Note that the delivery was settled in another way (requeued), so that the watermark can pass it."""
        self._settled_above.add(tag)

    @property
    def waiting(self) -> int:
        """How many finished deliveries are not acknowledged yet."""
        return len(self._done)

    def flush(self) -> None:
        """Acknowledge everything finished: once for all up to the watermark, then one by one above it."""
        done, settled, last, covered = self._done, self._settled_above, 0, 0
        while True:
            following = self._watermark + 1
            if following in done:
                done.discard(following)
                last, covered = following, covered + 1
            elif following in settled:
                settled.discard(following)
            else:
                break
            self._watermark = following
        if last:
            # The broker refuses a multiple ack for a tag that is already settled, so name the last open one.
            self._ack(last, multiple=covered > 1)
        for tag in sorted(done):
            self._ack(tag, multiple=False)
            settled.add(tag)
        done.clear()
