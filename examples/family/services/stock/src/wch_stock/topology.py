"""The queues of the stock family, and the name under which the service publishes."""

from typing import Final

from wch_common.broker.queue_policy import QueuePolicy
from wch_common.broker.topology import Topology, WorkQueue
from wch_common.events.stock import LevelRequested

SOURCE: Final = "/wch/stock"

LEVELS = WorkQueue("stock.level", requests=(LevelRequested,), policy=QueuePolicy(retry_delays=(5, 60, 300), tries=3))

TOPOLOGY = Topology((LEVELS,))
