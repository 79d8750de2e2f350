"""Composes the carts service."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wch_carts.carts import Carts
from wch_carts.cleanup import Cleanup
from wch_carts.links import store_link
from wch_carts.maintenance import Maintenance
from wch_carts.metrics import CartMetrics
from wch_carts.reminders import Reminders, reminder_dead_lettered
from wch_carts.settings import CartsSettings
from wch_carts.tables import METADATA
from wch_carts.topology import ANSWERS, CARTS, CLEANUP, CONTROL, REMINDERS, RESULTS, SCAN, SOURCE
from wch_common.events import published_contract
from wch_common.events.carts import CleanupRequested, CustomerErased, ReminderRequested, ReminderScanRequested
from wch_common.events.shop import CartCompleted, CartDeleted, CartUpdated
from wch_common.events.whatsapp import RecipientErased, RecipientLinked
from wch_common.integrations.recipients import PersonHash
from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform, run_service
from wch_common.store.erased_people import ErasedPeople
from wch_common.store.erasure import Erasures
from wch_common.store.migrate import MigrationSet

if TYPE_CHECKING:
    from collections.abc import Sequence

MIGRATIONS = (MigrationSet("wch_carts:migrations", "carts_version", METADATA),)


async def compose(platform: Platform[CartsSettings]) -> Sequence[Job]:
    """Build the handlers and return the jobs."""
    settings = platform.settings
    shops, contract = settings.shops(), published_contract()
    person_hash = PersonHash(settings.person_hash_key.get_secret_value())
    erased_people = ErasedPeople(contract, person_hash.in_regions(shop.whatsapp.region for _, shop in shops))
    store = await platform.open_store(settings.database_url.get_secret_value(), MIGRATIONS, erased_people=erased_people)
    erasures = Erasures(store, METADATA, contract, SOURCE)
    carts = Carts(shops, expiry_hours=settings.carts_expiry_hours)
    metrics = CartMetrics(platform.metrics.registry)
    reminders, cleanup = Reminders(shops, metrics), Cleanup(store, shops)
    maintenance = Maintenance(store, metrics, settings)
    platform.background += [cleanup.runs.run, *maintenance.background]
    in_transaction = partial(Job.in_transaction, store=store)
    return [
        in_transaction(
            platform.queue(CARTS),
            {
                CartUpdated: carts.updated,
                CartCompleted: carts.completed,
                CartDeleted: carts.deleted,
                RecipientLinked: store_link,
            },
            share_limit=16,
        ),
        in_transaction(platform.queue(CLEANUP), {CleanupRequested: cleanup.requested}),
        in_transaction(platform.queue(SCAN), {ReminderScanRequested: reminders.scan}),
        in_transaction(
            platform.queue(REMINDERS), {ReminderRequested: reminders.remind}, on_dead_letter=reminder_dead_lettered
        ),
        in_transaction(
            platform.queue(CONTROL),
            {},
            beside={RecipientErased: erasures.following(person_hash.erased_in, CustomerErased)},
        ),
        in_transaction(platform.queue(ANSWERS), dict.fromkeys(RESULTS, reminders.result)),
    ]


def main() -> int:
    """Run the service; returns its exit code."""
    return run_service("carts", CartsSettings, compose)
