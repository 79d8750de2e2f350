"""Keeps a copy of each shop's message templates, which operators' commands check campaigns against."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson
import structlog

from wch_common.backoff import until_success
from wch_common.errors import Interrupted
from wch_common.observability.redact import error_text, redact
from wch_common.store.due_rows import DueRows
from wch_common.store.maintenance import periodic
from wch_whatsapp import queries_templates as queries
from wch_whatsapp.template_api import NotRead

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wch_common.integrations.templates import MetaTemplate
    from wch_common.store.database import Row
    from wch_common.store.maintenance import Loop
    from wch_common.store.store import Store
    from wch_whatsapp.metrics import WhatsAppMetrics
    from wch_whatsapp.template_api import TemplateApi

log = structlog.get_logger(__name__)

_MOST_SHOPS = 5
_MEASURE_SECONDS = 15.0
_RETRY_SECONDS = 60.0
# Reading many pages takes long; within it, no other replica reads the same shop.
_LEASE_SECONDS = 300.0


class Templates:
    """Reads the templates of the shops at start and then regularly; each shop is read by one replica at a time."""

    def __init__(
        self,
        store: Store,
        accounts: Mapping[str, str | None],
        apis: Mapping[str, TemplateApi],
        metrics: WhatsAppMetrics,
        *,
        seconds: float,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._apis = apis
        self._metrics = metrics
        self._seconds = seconds

    @property
    def background(self) -> list[Loop]:
        """The loops to run."""
        return [self._run, periodic("template_age", self._measure, _MEASURE_SECONDS)]

    async def _run(self) -> None:
        await until_success(self._begin, Interrupted, lambda _failures, error: _log_delay(error))
        database = self._store.database
        await DueRows(database, queries.CLAIM_READS, self._read_all, lease=_LEASE_SECONDS, limit=_MOST_SHOPS).run()

    async def _begin(self) -> None:
        """Make the templates of every shop due now, and forget those of other shops and of other accounts."""
        async with self._store.transaction() as tx:
            shops = sorted(self._accounts)
            await tx.rows(queries.FORGET_OTHER_SHOPS, {"shops": shops})
            for shop in shops:
                await tx.rows(queries.FORGET_OTHER_ACCOUNT, {"shop": shop, "account": self._accounts[shop]})
                await tx.rows(queries.ADD_READ, {"shop": shop, "account": self._accounts[shop]})

    async def _read_all(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if (api := self._apis.get(row["shop"])) is not None:
                await self._read(row["shop"], row["failure"], api)

    async def _read(self, shop: str, last_failure: str, api: TemplateApi) -> None:
        try:
            found = await api.read()
        except NotRead as error:
            failure = redact(str(error), 300)
            if failure != last_failure:
                log.warning("templates_not_read", shop=shop, reason=failure)
            wait = min(self._seconds, _RETRY_SECONDS)
            await self._store.database.rows(queries.NOTE_FAILURE, {"shop": shop, "failure": failure, "seconds": wait})
            return
        await self._write(shop, found)
        if last_failure:
            log.info("templates_read_again", shop=shop, templates=len(found))

    async def _write(self, shop: str, found: Sequence[MetaTemplate]) -> None:
        rows = orjson.dumps([asdict(one) for one in found]).decode()
        async with self._store.transaction() as tx:
            known = {"shop": shop, "account": self._accounts[shop], "seconds": self._seconds}
            if await tx.rows(queries.NOTE_READ, known):
                await tx.rows(queries.DELETE_TEMPLATES, {"shop": shop})
                await tx.rows(queries.ADD_TEMPLATES, {"shop": shop, "templates": rows})

    async def _measure(self) -> None:
        (row,) = await self._store.database.rows(queries.OLDEST_COPY)
        self._metrics.templates_are(row["seconds"] or 0.0)


def _log_delay(error: BaseException) -> None:
    log.warning("templates_delayed", reason=error_text(error))
