"""The queue of timers; what the schedules' file asks for comes from nobody's queue."""

from wch_common.events.scheduler import TimerCancelRequested, TimerRequested
from wch_common.policy import QueuePolicy
from wch_common.topology import Topology, WorkQueue

TIMERS = WorkQueue(
    "scheduler.timer",
    requests=(TimerRequested, TimerCancelRequested),
    policy=QueuePolicy(rungs=(1, 5, 30), tries=3, concurrency=5, time_limit_seconds=30),
)

TOPOLOGY = Topology((TIMERS,))
