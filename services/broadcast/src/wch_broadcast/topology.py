"""The queues of the broadcast family."""

from wch_common.broker.queue_policy import QueuePolicy
from wch_common.broker.topology import Follow, Topology, WorkQueue
from wch_common.events.broadcast import (
    CampaignCancelRequested,
    CampaignPauseRequested,
    CampaignRequested,
    CampaignResumeRequested,
    RecipientsRequested,
)
from wch_common.events.whatsapp import BatchCompleted, BatchUpdated, RecipientErased

REQUESTER = "broadcast"
_POLICY = QueuePolicy(retry_delays=(5, 30, 120), tries=3, concurrency=5, time_limit_seconds=60)

CAMPAIGNS = WorkQueue("broadcast.campaign", requests=(CampaignRequested,), policy=_POLICY)
# A queue of its own, so that a pause does not wait behind a thousand campaigns or a list of a million.
CONTROL = WorkQueue(
    "broadcast.control",
    requests=(
        CampaignPauseRequested,
        CampaignResumeRequested,
        CampaignCancelRequested,
    ),
    follows=(Follow(RecipientErased),),
    policy=_POLICY,
)
RECIPIENTS = WorkQueue("broadcast.recipients", requests=(RecipientsRequested,), policy=_POLICY)
ANSWERS = WorkQueue(
    "broadcast.answer", follows=(Follow(BatchCompleted, REQUESTER), Follow(BatchUpdated, REQUESTER)), policy=_POLICY
)

TOPOLOGY = Topology((CAMPAIGNS, CONTROL, RECIPIENTS, ANSWERS))
