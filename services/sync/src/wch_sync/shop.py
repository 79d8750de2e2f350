"""WooCommerce shops: reads products, their variations and the currency."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx
import structlog
from pydantic import ValidationError

from wch_common import __version__
from wch_common.integrations.breaker import Breaker, SystemFailure
from wch_common.outcome import Reject, Retry, Throttled
from wch_sync.mapping import ShopProduct

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from wch_sync.settings import SyncShop

log = structlog.get_logger(__name__)

_PER_PAGE = 100
_TIMEOUT_SECONDS = 30.0
_AUTH_PAUSE_SECONDS = 300.0
_LIMIT_PAUSE_SECONDS = 60.0
_SLOW_SECONDS = 10.0
_CURRENCY_SECONDS = 3600.0
_MISSING = "woocommerce_rest_product_invalid_id"


@dataclass
class Reading:
    """The result of reading products: each is found, certainly gone, or failed with the outcome for its events."""

    found: dict[int, tuple[ShopProduct, list[ShopProduct]]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    failed: dict[int, Exception] = field(default_factory=dict)
    until: float = float("inf")
    """When reading has to end, by the monotonic clock."""
    parents: dict[int, int] = field(default_factory=dict)
    """The product of each id that turned out to be a variation."""


class ShopReaders:
    """One reader for each shop, whose connections and circuit breakers outlast a batch."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, headers={"User-Agent": f"wch-sync/{__version__}"})
        self._readers: dict[tuple[str, str], ShopReader] = {}

    def of(self, shop: SyncShop) -> ShopReader:
        """Return the shop's reader."""
        key = (str(shop.woocommerce.url), shop.woocommerce.consumer_key.get_secret_value())
        if key not in self._readers:
            self._readers[key] = ShopReader(shop, self._client, self._concurrency)
        return self._readers[key]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()


class ShopReader:
    """Reads pages of products, their variations, and the currency of one shop."""

    def __init__(self, shop: SyncShop, client: httpx.AsyncClient, concurrency: int) -> None:
        self._client = client
        self._base = f"{str(shop.woocommerce.url).rstrip('/')}/wp-json/wc/v3"
        self._auth = (
            shop.woocommerce.consumer_key.get_secret_value(),
            shop.woocommerce.consumer_secret.get_secret_value(),
        )
        # Two shops may share a host.
        self._scope = f"shop/{shop.woocommerce.url.host}{(shop.woocommerce.url.path or '').rstrip('/')}"
        self._breaker = Breaker(self._scope)
        self._slots = asyncio.Semaphore(concurrency)
        self._currency = ""
        self._currency_until = 0.0

    async def currency(self) -> str:
        """Return the shop's currency, which products do not contain; read once an hour."""
        if time.monotonic() > self._currency_until:
            self._currency = str((await self._get("data/currencies/current"))["code"])
            self._currency_until = time.monotonic() + _CURRENCY_SECONDS
        return self._currency

    async def read(self, ids: Iterable[int], *, within_seconds: float) -> Reading:
        """Read products with their variations; an error fails only the products it concerns.

        Products that a slow shop does not return in time are Throttled, so that the others are kept.
        """
        reading = Reading(until=time.monotonic() + within_seconds)
        await self._read_pages(sorted(set(ids)), reading)
        # The products of variations may be read already.
        more = set(reading.parents.values()) - set(reading.found) - reading.gone - set(reading.failed)
        if more:
            await self._read_pages(sorted(more), reading)
        known = set(reading.found) | reading.gone | set(reading.failed) | set(reading.parents)
        missing = Retry("the shop returned neither the product nor an error that it does not exist")
        reading.failed.update(dict.fromkeys(set(ids) - known, missing))
        return reading

    async def _read_pages(self, ids: Sequence[int], reading: Reading) -> None:
        pages = [ids[start : start + _PER_PAGE] for start in range(0, len(ids), _PER_PAGE)]
        await asyncio.gather(*(self._recorded(reading, page, self._read_page(page, reading)) for page in pages))

    async def _read_page(self, ids: Sequence[int], reading: Reading) -> None:
        parameters = {"include": ",".join(map(str, ids)), "per_page": _PER_PAGE, "status": "any"}
        try:
            rows = await self._get("products", parameters)
        except Reject:
            rows = []  # the shop refuses something in the page, so each product is read alone
        products: list[ShopProduct] = []
        for row in rows:
            try:
                products.append(_parsed(row))
            except Reject as outcome:
                # A product that a plugin has made unreadable must not fail the other 99 of its page.
                reading.failed[_id_of(row)] = outcome
        missing = set(ids) - {product.id for product in products} - set(reading.failed)
        await asyncio.gather(
            *(self._recorded(reading, [one.id], self._add(one, reading)) for one in products),
            *(self._recorded(reading, [id_], self._read_single(id_, reading)) for id_ in missing),
        )

    async def _read_single(self, id_: int, reading: Reading) -> None:
        """Read a product that a page left out, because filters, caches and the trash do that, too, not only deletion."""
        row = await self._get(f"products/{id_}", missing_is_none=True)
        if row is None:
            reading.gone.add(id_)
            return
        product = _parsed(row)
        if product.type == "variation" and product.parent_id:
            reading.parents[id_] = product.parent_id
        else:
            await self._add(product, reading)

    async def _add(self, product: ShopProduct, reading: Reading) -> None:
        variations: list[ShopProduct] = []
        if product.type == "variable" and product.is_listed:
            page = 1
            while True:
                parameters = {"per_page": _PER_PAGE, "page": page, "status": "any"}
                rows = await self._get(f"products/{product.id}/variations", parameters)
                variations += map(_parsed, rows)
                # The shop's page count is unreliable: the last page is the one that is not full.
                if len(rows) < _PER_PAGE:
                    break
                page += 1
        reading.found[product.id] = (product, variations)

    async def _recorded(self, reading: Reading, ids: Iterable[int], work: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(max(0.0, reading.until - time.monotonic())):
                await work
        except TimeoutError:
            late = Throttled(
                "the shop is slow: no time is left for this part of the batch, which is read later",
                scope="",
                after=_SLOW_SECONDS,
            )
            reading.failed.update(dict.fromkeys(ids, late))
        except (Retry, Throttled, Reject) as outcome:
            reading.failed.update(dict.fromkeys(ids, outcome))

    async def _get(self, path: str, parameters: dict[str, Any] | None = None, *, missing_is_none: bool = False) -> Any:  # noqa: ANN401 - JSON
        """Call the shop; raises Retry, Throttled or Reject, depending on its error code."""
        async with self._slots:
            try:
                with self._breaker.watch():
                    return await self._request(path, parameters, missing_is_none=missing_is_none)
            except SystemFailure as failure:
                raise Retry(f"the shop: {failure}") from failure

    async def _request(self, path: str, parameters: dict[str, Any] | None, *, missing_is_none: bool) -> Any:  # noqa: ANN401 - JSON
        try:
            response = await self._client.get(f"{self._base}/{path}", params=parameters, auth=self._auth)
        except httpx.TransportError as error:
            raise SystemFailure(f"{type(error).__name__} at {path}") from error
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.is_success and body is not None:
            return body
        code = body.get("code", "") if isinstance(body, dict) else ""
        if missing_is_none and response.status_code == httpx.codes.NOT_FOUND and code == _MISSING:
            return None
        raise self._outcome(response, path, str(code))

    def _outcome(self, response: httpx.Response, path: str, code: str) -> Exception:
        status = response.status_code
        error = f"HTTP {status} {code or 'without an error code'} at {path}"
        if status == httpx.codes.UNAUTHORIZED or (status == httpx.codes.FORBIDDEN and code):
            log.error("shop_refuses_keys", scope=self._scope, error=error)
            return Throttled(f"the shop refuses our API keys: {error}", scope=self._scope, after=_AUTH_PAUSE_SECONDS)
        if status in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.FORBIDDEN}:
            # A 403 without WooCommerce's error code is the page of a host that limits requests.
            after = response.headers.get("Retry-After", "")
            seconds = float(after) if after.isdigit() else _LIMIT_PAUSE_SECONDS
            return Throttled(f"the shop is rate-limiting us: {error}", scope=self._scope, after=seconds)
        if response.is_success or response.is_server_error or not code:
            return SystemFailure(error)
        if code == "rest_no_route":
            return Throttled(
                f"the shop's URL is not a WooCommerce REST API: {error}", scope=self._scope, after=_AUTH_PAUSE_SECONDS
            )
        return Reject(f"the shop refuses the request: {error}")


def _id_of(row: Any) -> int:  # noqa: ANN401 - JSON
    try:
        return int(row["id"])
    except (KeyError, TypeError, ValueError):
        return 0


def _parsed(row: Any) -> ShopProduct:  # noqa: ANN401 - JSON
    try:
        return ShopProduct.model_validate(row)
    except ValidationError as error:
        places = ", ".join(sorted({".".join(map(str, item["loc"])) for item in error.errors()}))
        raise Reject(f"the shop's product has invalid fields: {places}") from None
