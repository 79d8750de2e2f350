"""The queues of the carts family, and the names under which the service publishes."""

from typing import Final

from wch_common.broker.queue_policy import QueuePolicy
from wch_common.broker.topology import Follow, Topology, WorkQueue
from wch_common.events.carts import CleanupRequested, ReminderRequested, ReminderScanRequested
from wch_common.events.shop import CartCompleted, CartDeleted, CartUpdated
from wch_common.events.whatsapp import (
    MessageAccepted,
    MessageCancelled,
    MessageDelivered,
    MessageFailed,
    MessageRead,
    MessageSuppressed,
    MessageUnknown,
    RecipientErased,
    RecipientLinked,
)

SOURCE: Final = "/wch/carts"
REQUESTER: Final = "carts"
_POLICY = QueuePolicy(retry_delays=(5, 60, 300), tries=3, concurrency=5, time_limit_seconds=120)

CARTS = WorkQueue(
    "carts.cart",
    follows=(Follow(CartUpdated), Follow(CartCompleted), Follow(CartDeleted), Follow(RecipientLinked)),
    policy=_POLICY,
)
CLEANUP = WorkQueue("carts.cleanup", requests=(CleanupRequested,), policy=_POLICY)
# A queue of its own, so that a scan does not wait behind ten thousand reminders.
SCAN = WorkQueue("carts.reminder_scan", requests=(ReminderScanRequested,), policy=_POLICY)
REMINDERS = WorkQueue("carts.reminder", requests=(ReminderRequested,), policy=_POLICY)
# A queue of its own, so that erasing a customer does not wait behind carts and reminders.
CONTROL = WorkQueue("carts.control", follows=(Follow(RecipientErased),), policy=_POLICY)
RESULTS = (
    MessageAccepted,
    MessageDelivered,
    MessageRead,
    MessageFailed,
    MessageSuppressed,
    MessageCancelled,
    MessageUnknown,
)
ANSWERS = WorkQueue("carts.answer", follows=tuple(Follow(model, REQUESTER) for model in RESULTS), policy=_POLICY)

TOPOLOGY = Topology((CARTS, CLEANUP, SCAN, REMINDERS, CONTROL, ANSWERS))
