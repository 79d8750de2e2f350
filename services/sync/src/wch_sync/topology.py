"""The queues of the sync family."""

from wch_common.broker.queue_policy import Batching, QueuePolicy
from wch_common.broker.topology import Topology, WorkQueue
from wch_common.events.sync import ProductRequested

# Meta allows about 200 calls an hour for each catalog: a batch every 20 s stays below, and 1,000 products fit in one call.
PRODUCTS = WorkQueue(
    "sync.product",
    requests=(ProductRequested,),
    policy=QueuePolicy(
        retry_delays=(60, 300, 900),
        tries=3,
        concurrency=5,
        time_limit_seconds=300,
        batching=Batching(size=1000, window_seconds=20),
    ),
)

TOPOLOGY = Topology((PRODUCTS,))
