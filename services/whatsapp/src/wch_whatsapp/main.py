"""Composes the whatsapp service."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from wch_common.events import published_contract
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
from wch_common.integrations.recipients import PersonHash
from wch_common.runtime.job import Job
from wch_common.runtime.service import Platform, run_service
from wch_common.store.erased_people import ErasedPeople
from wch_common.store.erasure import Erasures
from wch_common.store.migrate import MigrationSet
from wch_whatsapp.acceptance import Acceptance, batch_dead_lettered, message_dead_lettered
from wch_whatsapp.cloud import CloudApi
from wch_whatsapp.contact_books import ContactBookApi, ContactBooks
from wch_whatsapp.control import Control
from wch_whatsapp.erasure import RecipientErasure
from wch_whatsapp.facts import SOURCE
from wch_whatsapp.inbound import Inbound
from wch_whatsapp.limits import Limits, PairLimit
from wch_whatsapp.maintenance import Maintenance
from wch_whatsapp.metrics import WhatsAppMetrics
from wch_whatsapp.opt_out import OptOutReader
from wch_whatsapp.people import People
from wch_whatsapp.sender import NumberSender, ShopState
from wch_whatsapp.settings import WhatsAppSettings
from wch_whatsapp.tables import METADATA
from wch_whatsapp.template_api import TemplateApi
from wch_whatsapp.templates import Templates
from wch_whatsapp.topology import BATCHES, CONTROL, INBOUND, MESSAGES, STATUSES
from wch_whatsapp.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wch_common.integrations.shops import Shops
    from wch_common.store.store import Store
    from wch_whatsapp.settings import WhatsAppShop

log = structlog.get_logger(__name__)

MIGRATIONS = (MigrationSet("wch_whatsapp:migrations", "whatsapp_version", METADATA),)
T = TypeVar("T")
# The time to write an outcome, in addition to the time limit of its call, before the call counts as in doubt.
_OUTCOME_SECONDS = 30.0


async def compose(platform: Platform[WhatsAppSettings]) -> Sequence[Job]:
    """Build the senders and the handlers, and return the jobs."""
    settings = platform.settings
    shops, contract = settings.shops(), published_contract()
    person_hash = PersonHash(settings.person_hash_key.get_secret_value())
    erased_people = ErasedPeople(contract, person_hash.in_regions(shop.whatsapp.region for _, shop in shops))
    store = await platform.open_store(settings.database_url.get_secret_value(), MIGRATIONS, erased_people=erased_people)
    await store.set_switches(_switches(settings))
    metrics = WhatsAppMetrics(platform.metrics.registry)
    senders = await _senders(platform, store, metrics)
    maintenance = Maintenance(
        store,
        metrics,
        settle_seconds=settings.whatsapp_settle_seconds,
        resend_utility=settings.whatsapp_unknown_utility == "resend",
        budgets=_by_number(shops, lambda _name, shop: shop.whatsapp.monthly_budget),
    )
    for sender in senders.values():
        platform.background.append(sender.run)
        platform.finishing.append(sender.finish)
    platform.background += maintenance.background
    platform.background += (await _templates(platform, store, metrics)).background

    def nudge(sender: str) -> None:
        if sender in senders:
            senders[sender].nudge()

    def full(shop: str) -> str | None:
        most = settings.whatsapp_most_waiting
        return (
            f"more than {most} messages wait to be sent (WCH_WHATSAPP_MOST_WAITING)"
            if maintenance.waiting.get(shop, 0) > most
            else None
        )

    def all_full() -> str | None:
        found = [full(name) for name, _ in shops]
        return found[0] if all(found) else None

    expiry, full_alone = settings.whatsapp_expiry_seconds, full if len(list(shops)) > 1 else lambda _shop: None
    people = People(person_hash, _by_number(shops, lambda name, shop: shop.whatsapp.portfolio or name))
    acceptance = Acceptance(shops, person_hash, expiry_seconds=expiry, nudge=nudge, full=full_alone)
    control = Control(shops, people, expiry_seconds=expiry, nudge=nudge)
    erasures = Erasures(store, METADATA, contract, SOURCE)
    erasure = RecipientErasure(shops, people, erasures, await _contact_books(platform))
    opt_outs = OptOutReader(settings.whatsapp_stop_words, settings.whatsapp_stop_words_in)
    inbound = Inbound(_by_number(shops, lambda name, _shop: name), people, opt_outs, metrics)
    return _jobs(platform, store, _Handlers(acceptance, control, erasure, inbound), all_full)


def _switches(settings: WhatsAppSettings) -> dict[str, str]:
    """Return what the settings leave undone, for `wch doctor`."""
    if (only := settings.whatsapp_only_to) is None:
        return {}
    return {"WCH_WHATSAPP_ONLY_TO": f"writes to listed recipients only ({len(only)})" if only else "writes to nobody"}


def _by_number(shops: Shops[WhatsAppShop], value: Callable[[str, WhatsAppShop], T]) -> dict[str, T]:
    """Return a value of the shop for each number to send from."""
    return {id_: value(name, shop) for name, shop in shops for id_ in shop.whatsapp.phone_number_ids}


@dataclass(frozen=True)
class _Handlers:
    acceptance: Acceptance
    control: Control
    erasure: RecipientErasure
    inbound: Inbound


def _jobs(
    platform: Platform[WhatsAppSettings], store: Store, handlers: _Handlers, all_full: Callable[[], str | None]
) -> list[Job]:
    """Return the jobs; the queues of requests to send are paused while every shop has too many waiting messages."""
    acceptance, control, inbound = handlers.acceptance, handlers.control, handlers.inbound
    in_transaction = partial(Job.in_transaction, store=store)
    return [
        in_transaction(
            platform.queue(MESSAGES),
            {MessageRequested: acceptance.message},
            on_dead_letter=message_dead_lettered,
            paused_by=all_full,
        ),
        in_transaction(
            platform.queue(BATCHES),
            {BatchRequested: acceptance.batch},
            on_dead_letter=batch_dead_lettered,
            paused_by=all_full,
        ),
        in_transaction(
            platform.queue(CONTROL),
            {
                MessageCancelRequested: control.cancel_message,
                BatchCancelRequested: control.cancel_batch,
                RetryRequested: control.retry,
                SuppressionAddRequested: control.suppress,
                SuppressionRemoveRequested: control.unsuppress,
            },
            beside={RecipientEraseRequested: handlers.erasure.erase},
        ),
        in_transaction(platform.queue(STATUSES), {StatusReceived: inbound.status}),
        in_transaction(platform.queue(INBOUND), {MessageReceived: inbound.message, UserChanged: inbound.user_changed}),
    ]


async def _senders(
    platform: Platform[WhatsAppSettings], store: Store, metrics: WhatsAppMetrics
) -> dict[str, NumberSender]:
    """Return a sender for every number of every shop, each with its own connections."""
    settings, senders = platform.settings, {}
    only_to = _only_to(settings)
    portfolios: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for name, shop in settings.shops():
        portfolios[shop.whatsapp.portfolio or name] += shop.whatsapp.phone_number_ids
    states: dict[str, ShopState] = defaultdict(ShopState)
    for name, shop in settings.shops():
        numbers = shop.whatsapp
        states[name].senders = list(numbers.phone_number_ids)
        for sender in numbers.phone_number_ids:
            transport = await platform.resources.enter_async_context(Transport(str(shop.graph.url)))
            limits = Limits(
                sender=sender,
                senders=numbers.phone_number_ids,
                portfolio=numbers.portfolio or name,
                portfolio_senders=portfolios[numbers.portfolio or name],
                rate=numbers.rate,
                recipients_a_day=numbers.messaging_limit,
                monthly_budget=numbers.monthly_budget,
                pair=PairLimit(settings.whatsapp_pair_seconds, settings.whatsapp_pair_burst),
                call_deadline_seconds=settings.whatsapp_call_seconds + _OUTCOME_SECONDS,
                only_to=only_to,
                shop=name,
            )
            senders[sender] = NumberSender(
                store,
                CloudApi(transport, shop.graph, sender, seconds=settings.whatsapp_call_seconds),
                limits,
                states[name],
                metrics,
                calls=settings.whatsapp_calls_in_flight,
                settle_seconds=settings.whatsapp_settle_seconds,
                lease_seconds=settings.whatsapp_lease_seconds,
            )
    return senders


async def _templates(platform: Platform[WhatsAppSettings], store: Store, metrics: WhatsAppMetrics) -> Templates:
    """Return what reads the message templates of every shop whose business account is known."""
    settings, apis = platform.settings, {}
    for name, shop in settings.shops():
        if (account := shop.whatsapp.business_account_id) is not None:
            transport = await platform.resources.enter_async_context(Transport(str(shop.graph.url)))
            apis[name] = TemplateApi(transport, shop.graph, account, seconds=settings.whatsapp_call_seconds)
    accounts = {name: shop.whatsapp.business_account_id for name, shop in settings.shops()}
    return Templates(store, accounts, apis, metrics, seconds=settings.whatsapp_templates_seconds)


async def _contact_books(platform: Platform[WhatsAppSettings]) -> ContactBooks:
    """Return the contact book of each portfolio, by the first number in it."""
    settings, policy = platform.settings, platform.queue(CONTROL).policy
    # All ids are asked for at once; the erasure has the rest of the handler's time.
    seconds = min(settings.whatsapp_call_seconds, policy.time_limit_seconds / 2)
    apis: dict[str, ContactBookApi] = {}
    for name, shop in settings.shops():
        if (portfolio := shop.whatsapp.portfolio or name) not in apis:
            transport = await platform.resources.enter_async_context(Transport(str(shop.graph.url)))
            sender = shop.whatsapp.phone_number_ids[0]
            apis[portfolio] = ContactBookApi(transport, shop.graph, sender, seconds=seconds)
    return ContactBooks(apis, tries=policy.tries)


def _only_to(settings: WhatsAppSettings) -> frozenset[bytes] | None:
    """Return the hashes of the only recipients who may be written to; None for everybody."""
    if settings.whatsapp_only_to is None:
        return None
    log.warning("only_listed_recipients", recipients=len(settings.whatsapp_only_to))
    person_hash = PersonHash(settings.person_hash_key.get_secret_value())
    return frozenset(person_hash.of(number.get_secret_value()) for number in settings.whatsapp_only_to)


def main() -> int:
    """Run the service and return its exit code."""
    return run_service("whatsapp", WhatsAppSettings, compose)
