"""Acknowledgements: every finished delivery once, no unfinished one, in as few frames as possible."""

from __future__ import annotations

import random

import pytest

from wch_common.broker.aio.acks import AckWindow


class Broker:
    """RabbitMQ's handling of acknowledgements, including its refusals."""

    def __init__(self, tags: int) -> None:
        self.open = set(range(1, tags + 1))
        self.acked: set[int] = set()
        self.frames = 0

    def ack(self, tag: int, *, multiple: bool) -> None:
        assert tag in self.open, "406 PRECONDITION_FAILED - unknown delivery tag"
        covered = {one for one in self.open if one <= tag} if multiple else {tag}
        self.open -= covered
        self.acked |= covered
        self.frames += 1


@pytest.mark.parametrize("seed", range(200))
def test_any_order_of_finishing_acknowledges_exactly_what_is_done(seed: int) -> None:
    draw, tags = random.Random(seed), 40
    broker = Broker(tags)
    window = AckWindow(broker.ack)
    order = list(range(1, tags + 1))
    draw.shuffle(order)
    done: set[int] = set()
    for tag in order:
        if draw.random() < 0.1:
            broker.open.discard(tag)  # requeued with a nack
            window.settled(tag)
        else:
            window.done(tag)
            done.add(tag)
        if draw.random() < 0.3:
            window.flush()
            assert broker.acked == done
    window.flush()
    assert broker.acked == done
    assert not broker.open


def test_finishing_in_order_takes_one_frame() -> None:
    broker = Broker(100)
    window = AckWindow(broker.ack)
    for tag in range(1, 101):
        window.done(tag)
    window.flush()
    assert (broker.frames, broker.open) == (1, set())


def test_deliveries_finished_above_a_gap_are_acknowledged_once() -> None:
    broker = Broker(10)
    window = AckWindow(broker.ack)
    window.done(2)
    window.flush()
    for tag in (1, *range(3, 11)):
        window.done(tag)
    window.flush()
    assert (broker.frames, broker.open) == (2, set())
