"""Meta catalogs: sends items in batches and reports the result of each item."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx
import structlog

from wch_common import __version__
from wch_common.integrations.breaker import Breaker, SystemFailure
from wch_common.integrations.graph import GraphAction, GraphError, graph_error
from wch_common.outcome import Reject, Retry, Throttled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wch_common.store.leases import Lease
    from wch_sync.settings import SyncShop

log = structlog.get_logger(__name__)

# Meta accepts 5,000 in a call and recommends fewer than 3,000.
MOST_REQUESTS = 2900
_TIMEOUT_SECONDS = 60.0
_AUTH_PAUSE_SECONDS = 600.0
_LIMIT_PAUSE_SECONDS = 300.0
_SLOW_SECONDS = 60.0


@dataclass
class CatalogBatchResult:
    """Results of items: refused items with the catalog's reason, and items whose call failed with its outcome."""

    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    """Items of a call whose result is unknown: it may still take effect."""
    until: float = math.inf
    """When sending has to end, by the monotonic clock."""

    @property
    def left_seconds(self) -> float:
        """How much time is left."""
        return self.until - time.monotonic()


class Catalogs:
    """One writer for each catalog, whose connections and circuit breakers outlast a batch."""

    def __init__(self, *, poll_seconds: float, wait_seconds: float) -> None:
        self._poll_seconds = poll_seconds
        self._wait_seconds = wait_seconds
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, headers={"User-Agent": f"wch-sync/{__version__}"})
        self._writers: dict[tuple[str, str], CatalogWriter] = {}

    def of(self, shop: SyncShop) -> CatalogWriter:
        """Return the writer of the shop's catalog."""
        key = (shop.catalog.id, shop.graph.token.get_secret_value())
        if key not in self._writers:
            self._writers[key] = CatalogWriter(
                shop, self._client, poll_seconds=self._poll_seconds, wait_seconds=self._wait_seconds
            )
        return self._writers[key]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()


class CatalogWriter:
    """Sends batches to one catalog, one call at a time, and waits until Meta has processed each."""

    # The longest time after which a call can still take effect; a lease must be longer.
    CALL_SECONDS = _TIMEOUT_SECONDS

    def __init__(self, shop: SyncShop, client: httpx.AsyncClient, *, poll_seconds: float, wait_seconds: float) -> None:
        self._client = client
        self._base = f"{str(shop.graph.url).rstrip('/')}/{shop.graph.version}/{shop.catalog.id}"
        self._headers = {"Authorization": f"Bearer {shop.graph.token.get_secret_value()}"}
        self._scope = f"catalog/{shop.catalog.id}"
        self._breaker = Breaker(self._scope)
        self._poll_seconds = poll_seconds
        self._wait_seconds = wait_seconds

    async def send(
        self, requests: Sequence[dict[str, Any]], lease: Lease, *, within_seconds: float
    ) -> CatalogBatchResult:
        """Send item requests in as few calls as possible and return their results; raises LeaseLost.

        Items for which a slow catalog leaves no time are Throttled, so that the results of the others are kept.
        """
        result = CatalogBatchResult(until=time.monotonic() + within_seconds)
        for start in range(0, len(requests), MOST_REQUESTS):
            await self._send_part(requests[start : start + MOST_REQUESTS], lease, result)
        return result

    async def _send_part(self, requests: Sequence[dict[str, Any]], lease: Lease, result: CatalogBatchResult) -> None:
        """Send one call; if the catalog refuses all of it, send its halves, so that one item cannot block the others."""
        ids = [request["data"]["id"] for request in requests]
        if result.left_seconds < self.CALL_SECONDS:
            late = "the catalog is slow: no time is left for this part of the batch, which is sent later"
            result.failed.update(dict.fromkeys(ids, Throttled(late, scope="", after=_SLOW_SECONDS)))
            return
        lease.check(needs_seconds=self.CALL_SECONDS)
        try:
            handles = await self._post(requests, result)
        except GraphError as error:
            # The error proves that Meta accepted nothing of the call.
            if (_is_too_large(error) or error.action is GraphAction.REJECT) and len(requests) > 1:
                middle = len(requests) // 2
                await self._send_part(requests[:middle], lease, result)
                await self._send_part(requests[middle:], lease, result)
            else:
                result.failed.update(dict.fromkeys(ids, self._outcome(error)))
        except (Retry, Throttled) as outcome:
            result.failed.update(dict.fromkeys(ids, outcome))
            if isinstance(outcome, Retry):
                result.unknown.update(ids)
        else:
            await self._follow_up(requests, handles, lease, result)

    async def _follow_up(
        self, requests: Sequence[dict[str, Any]], handles: Sequence[str], lease: Lease, result: CatalogBatchResult
    ) -> None:
        """Wait until Meta has processed the call; without a handle it accepted nothing, so send the valid items alone."""
        accepted = [request for request in requests if request["data"]["id"] not in result.refused]
        ids = [request["data"]["id"] for request in accepted]
        if not handles and accepted:
            if len(accepted) < len(requests):
                await self._send_part(accepted, lease, result)
            else:
                result.failed.update(
                    dict.fromkeys(ids, Retry("the catalog accepted nothing of the batch and gave no reason"))
                )
            return
        try:
            for handle in handles:
                async with asyncio.timeout(min(self._wait_seconds, max(0.0, result.left_seconds))):
                    await self._until_finished(handle, result)
        except TimeoutError:
            slow = Retry(
                f"the catalog has not processed the batch within {self._wait_seconds:g} s, or the batch ran out of time"
            )
            result.failed.update(dict.fromkeys(ids, slow))
            result.unknown.update(ids)
        except (Retry, Throttled, GraphError) as error:
            # Meta has accepted the batch, which may still take effect although its status cannot be read.
            outcome = self._outcome(error) if isinstance(error, GraphError) else error
            known = Retry(str(outcome)) if isinstance(outcome, Reject) else outcome
            result.failed.update(dict.fromkeys(ids, known))
            result.unknown.update(ids)

    async def _post(self, requests: Sequence[dict[str, Any]], result: CatalogBatchResult) -> list[str]:
        body = {"item_type": "PRODUCT_ITEM", "allow_upsert": True, "requests": requests}
        answer = await self._call("POST", "items_batch", json=body)
        for status in answer.get("validation_status", []):
            if status.get("errors"):
                reasons = "; ".join(str(error.get("message")) for error in status["errors"])
                result.refused[str(status.get("retailer_id"))] = reasons
        return [str(handle) for handle in answer.get("handles", [])]

    async def _until_finished(self, handle: str, result: CatalogBatchResult) -> None:
        parameters = {"handle": handle, "load_ids_of_invalid_requests": "true"}
        while True:
            answer = await self._call("GET", "check_batch_request_status", params=parameters)
            (row, *_) = answer.get("data") or [{}]
            if row.get("status") == "finished":
                break
            await asyncio.sleep(self._poll_seconds)
        refused = {str(error["id"]): str(error.get("message")) for error in row.get("errors", []) if error.get("id")}
        refused = dict.fromkeys(map(str, row.get("ids_of_invalid_requests", [])), "no reason given") | refused
        result.refused.update(refused)
        if int(row.get("errors_total_count") or 0) > max(len(refused), len(row.get("errors", []))) or any(
            not error.get("id") for error in row.get("errors", [])
        ):
            raise Retry(
                f"the catalog reports {row.get('errors_total_count')} errors but names only {len(refused)} items"
            )

    async def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's own
        """Call Graph; raises GraphError for Graph's errors, and Retry or Throttled for all others."""
        try:
            with self._breaker.watch():
                return await self._request(method, path, **arguments)
        except SystemFailure as failure:
            raise Retry(f"the catalog: {failure}") from failure

    async def _request(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's own
        try:
            # httpx limits each phase of a call, but the lease has to cover all of them.
            async with asyncio.timeout(self.CALL_SECONDS):
                response = await self._client.request(
                    method, f"{self._base}/{path}", headers=self._headers, **arguments
                )
        except (httpx.TransportError, TimeoutError) as error:
            raise SystemFailure(f"{type(error).__name__} at {path}") from error
        if response.is_success:
            try:
                return dict(response.json())
            except (ValueError, TypeError):
                raise SystemFailure(f"the response to {path} is not JSON") from None
        refusal = graph_error(response)
        if refusal is not None and refusal.action is GraphAction.BACKOFF and not _is_too_large(refusal):
            raise SystemFailure(str(refusal)) from refusal
        raise refusal or SystemFailure(f"HTTP {response.status_code} without a Graph error at {path}")

    def _outcome(self, error: GraphError) -> Exception:
        if error.action is GraphAction.AUTH:
            log.error("catalog_refuses_token", scope=self._scope, error=str(error))
            return Throttled(str(error), scope=self._scope, after=error.regain_seconds or _AUTH_PAUSE_SECONDS)
        if error.action is GraphAction.THROTTLE:
            return Throttled(str(error), scope=self._scope, after=error.regain_seconds or _LIMIT_PAUSE_SECONDS)
        return Retry(str(error)) if error.action is GraphAction.BACKOFF else Reject(str(error))


def _is_too_large(error: GraphError) -> bool:
    return error.code == 1 and "reduce" in error.message.lower()
