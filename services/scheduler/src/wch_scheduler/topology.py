"""The queue of timers; what the schedules' file asks for comes from nobody's queue."""

from wch_common.broker.queue_policy import QueuePolicy
from wch_common.broker.topology import Topology, WorkQueue
from wch_common.events.scheduler import TimerCancelRequested, TimerRequested

TIMERS = WorkQueue(
    "scheduler.timer",
    requests=(TimerRequested, TimerCancelRequested),
    policy=QueuePolicy(retry_delays=(1, 5, 30), tries=3, concurrency=5, time_limit_seconds=30),
)

TOPOLOGY = Topology((TIMERS,))
