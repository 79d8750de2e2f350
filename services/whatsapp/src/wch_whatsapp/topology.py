"""The queues of the whatsapp family."""

from wch_common.broker.queue_policy import QueuePolicy
from wch_common.broker.topology import Follow, Topology, WorkQueue
from wch_common.events.meta import MessageReceived, StatusReceived, UserChanged
from wch_common.events.whatsapp import (
    BatchCancelRequested,
    BatchRequested,
    MessageCancelRequested,
    MessageRequested,
    RecipientEraseRequested,
    RetryRequested,
    SuppressionAddRequested,
    SuppressionRemoveRequested,
)

_POLICY = QueuePolicy(retry_delays=(2, 8, 30, 120, 600), tries=5, concurrency=10, time_limit_seconds=120)

MESSAGES = WorkQueue("whatsapp.message", requests=(MessageRequested,), policy=_POLICY)
BATCHES = WorkQueue("whatsapp.batch", requests=(BatchRequested,), policy=_POLICY)
# A queue of its own, so that a cancellation does not wait behind ten thousand messages.
CONTROL = WorkQueue(
    "whatsapp.control",
    requests=(
        MessageCancelRequested,
        BatchCancelRequested,
        RetryRequested,
        SuppressionAddRequested,
        SuppressionRemoveRequested,
        RecipientEraseRequested,
    ),
    policy=_POLICY,
    # This service answers for erasures, so it also removes what may name a person and that no service handles.
    expires_unroutable=True,
)
STATUSES = WorkQueue("whatsapp.status", follows=(Follow(StatusReceived),), policy=_POLICY)
INBOUND = WorkQueue("whatsapp.inbound", follows=(Follow(MessageReceived), Follow(UserChanged)), policy=_POLICY)

TOPOLOGY = Topology((MESSAGES, BATCHES, CONTROL, STATUSES, INBOUND))
