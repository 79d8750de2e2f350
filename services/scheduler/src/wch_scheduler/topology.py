"""The queues of the scheduler; what the file of schedules requests comes from no queue."""

from wch_common.broker.queue_policy import QueuePolicy
from wch_common.broker.topology import Follow, Topology, WorkQueue
from wch_common.events.scheduler import (
    SchedulePauseRequested,
    ScheduleResumeRequested,
    ScheduleRunRequested,
    TimerCancelRequested,
    TimerRequested,
    TimersCancelRequested,
)
from wch_common.events.whatsapp import RecipientErased

_POLICY = QueuePolicy(retry_delays=(1, 5, 30), tries=3, concurrency=5, time_limit_seconds=30)

TIMERS = WorkQueue("scheduler.timer", requests=(TimerRequested, TimerCancelRequested), policy=_POLICY)
# A queue of its own: what an operator requests must not wait behind a hundred thousand timers.
CONTROL = WorkQueue(
    "scheduler.control",
    requests=(
        ScheduleRunRequested,
        SchedulePauseRequested,
        ScheduleResumeRequested,
        TimersCancelRequested,
    ),
    follows=(Follow(RecipientErased),),
    policy=_POLICY,
)

TOPOLOGY = Topology((TIMERS, CONTROL))
