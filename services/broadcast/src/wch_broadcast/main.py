"""Composes the broadcast service."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wch_broadcast.answers import Answers
from wch_broadcast.campaign import SOURCE
from wch_broadcast.lists import Lists, part_dead_lettered
from wch_broadcast.maintenance import Maintenance
from wch_broadcast.metrics import CampaignMetrics
from wch_broadcast.requests import Requests, request_dead_lettered
from wch_broadcast.settings import BroadcastSettings
from wch_broadcast.steps import Pace
from wch_broadcast.tables import METADATA
from wch_broadcast.topology import ANSWERS, CAMPAIGNS, CONTROL, RECIPIENTS
from wch_common.events import published_contract
from wch_common.events.broadcast import (
    CampaignCancelRequested,
    CampaignPauseRequested,
    CampaignRecipientErased,
    CampaignRequested,
    CampaignResumeRequested,
    RecipientsRequested,
)
from wch_common.events.whatsapp import BatchCompleted, BatchUpdated, RecipientErased
from wch_common.integrations.recipients import PersonHash
from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform, run_service
from wch_common.store.erased_people import ErasedPeople
from wch_common.store.erasure import Erasures
from wch_common.store.migrate import MigrationSet

if TYPE_CHECKING:
    from collections.abc import Sequence

MIGRATIONS = (MigrationSet("wch_broadcast:migrations", "broadcast_version", METADATA),)


async def compose(platform: Platform[BroadcastSettings]) -> Sequence[Job]:
    """Build the handlers and return the jobs."""
    settings = platform.settings
    shops, pace, contract = settings.shops(), Pace.of(settings), published_contract()
    person_hash = PersonHash(settings.person_hash_key.get_secret_value())
    erased_people = ErasedPeople(contract, person_hash.in_regions(shop.whatsapp.region for _, shop in shops))
    store = await platform.open_store(settings.database_url.get_secret_value(), MIGRATIONS, erased_people=erased_people)
    erasures = Erasures(store, METADATA, contract, SOURCE)
    maintenance = Maintenance(
        store, pace, CampaignMetrics(platform.metrics.registry), keep_days=settings.broadcast_keep_days
    )
    platform.background += maintenance.background
    lists = Lists(shops, maintenance.nudge)
    requests = Requests(shops, lists, pace, maintenance.nudge)
    answers = Answers(shops, pace, settings, maintenance.nudge)
    in_transaction = partial(Job.in_transaction, store=store)
    return [
        in_transaction(
            platform.queue(CAMPAIGNS), {CampaignRequested: requests.campaign}, on_dead_letter=request_dead_lettered
        ),
        in_transaction(
            platform.queue(CONTROL),
            {
                CampaignPauseRequested: requests.pause,
                CampaignResumeRequested: requests.resume,
                CampaignCancelRequested: requests.cancel,
            },
            beside={RecipientErased: erasures.following(person_hash.erased_in, CampaignRecipientErased)},
            on_dead_letter=request_dead_lettered,
        ),
        in_transaction(
            platform.queue(RECIPIENTS), {RecipientsRequested: lists.part}, on_dead_letter=part_dead_lettered
        ),
        in_transaction(platform.queue(ANSWERS), {BatchCompleted: answers.answer, BatchUpdated: answers.answer}),
    ]


def main() -> int:
    """Run the service; returns its exit code."""
    return run_service("broadcast", BroadcastSettings, compose)
