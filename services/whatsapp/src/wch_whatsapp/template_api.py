"""Reads the message templates of a WhatsApp business account from Meta's Graph API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import httpx

from wch_common import __version__
from wch_common.integrations.graph import graph_error
from wch_common.integrations.templates import MetaTemplate

if TYPE_CHECKING:
    from wch_common.integrations.shops import GraphSection

_FIELDS = "name,language,status,category,parameter_format,components"
_PAGE: Final = 100
# An account has at most 6,000 templates, each in several languages.
_MOST_PAGES: Final = 1000


class NotRead(Exception):
    """Meta did not give the templates; the message says why."""


class TemplateApi:
    """The templates of one account."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport, graph: GraphSection, account: str, *, seconds: float
    ) -> None:
        self._transport = transport
        self._url = httpx.URL(f"{str(graph.url).rstrip('/')}/{graph.version}/{account}/message_templates")
        self._headers = {
            "Authorization": f"Bearer {graph.token.get_secret_value()}",
            "User-Agent": f"wch-whatsapp/{__version__}",
        }
        self._seconds = seconds

    async def read(self) -> list[MetaTemplate]:
        """Return all templates, page by page, without their examples; raises NotRead."""
        found: dict[tuple[str, str], MetaTemplate] = {}
        after = ""
        for _ in range(_MOST_PAGES):
            page = await self._page(after)
            try:
                # Pages shift while somebody adds templates, so that one may come twice.
                found |= {(one.name, one.language): one for one in map(_template, page["data"])}
                paging = page.get("paging") or {}
                following = paging["cursors"]["after"] if paging.get("next") else ""
            except (LookupError, TypeError, AttributeError):
                raise NotRead("Meta's answer is not a list of templates") from None
            if not following or following == after:
                return list(found.values())
            after = following
        raise NotRead(f"Meta's list has more than {_MOST_PAGES} pages")

    async def _page(self, after: str) -> dict[str, Any]:
        query = {"fields": _FIELDS, "limit": str(_PAGE), **({"after": after} if after else {})}
        request = httpx.Request("GET", self._url.copy_merge_params(query), headers=self._headers)
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._transport.handle_async_request(request)
        except (httpx.HTTPError, TimeoutError) as error:
            raise NotRead(f"Meta cannot be reached ({type(error).__name__})") from None
        if (refused := graph_error(response)) is not None:
            raise NotRead(str(refused))
        try:
            page = response.json() if response.is_success else None
        except ValueError:
            page = None
        if not isinstance(page, dict):
            raise NotRead(f"HTTP {response.status_code} without a Graph answer")
        return page


def _template(row: Any) -> MetaTemplate:  # noqa: ANN401 - as Meta sends it
    components = [{name: value for name, value in one.items() if name != "example"} for one in row["components"]]
    return MetaTemplate(
        name=str(row["name"]),
        language=str(row["language"]),
        status=str(row["status"]),
        category=str(row.get("category", "")),
        parameter_format=str(row.get("parameter_format", "")),
        components=components,
    )
