"""What is found in a list before a campaign starts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from wch_broadcast.list_check import check
from wch_broadcast.queries_admin import ListFound, ListRow
from wch_common.events.broadcast import CampaignRequested
from wch_common.events.whatsapp_content import Parameter, Template, Text

NAMED = Template(name="t", language="en_US", header=Parameter(text="7", name="order"))
TITLED = Template(name="t", language="en_US", header=Parameter(text="7"))
TEXT = Text(kind="text", body="Hi")


@pytest.mark.parametrize(
    ("message", "fallback", "values", "problem"),
    [
        (NAMED, None, {"body": [{"text": "Ada"}]}, "the values must all have a name or all have none"),
        (NAMED, None, {"header": {"kind": "image", "link": "a.jpg"}}, "header.link must be an http or https address"),
        (TITLED, None, {"body": [{"text": "a", "name": "x"}, {"text": "b", "name": "x"}]}, "all have a name or all"),
        (TITLED, None, {"buttons": [{"index": 0, "kind": "catalog"}] * 2}, "two have the index 0"),
        (TITLED, None, {"buttons": [{"index": 0, "kind": "url", "value": "a b"}]}, "has white space in it"),
        (
            TEXT,
            Template(name="t", language="en_US", header={"kind": "image", "link": "https://shop.example/a.jpg"}),  # type: ignore[arg-type]
            {"header": {"kind": "image", "link": "a.jpg"}},
            "header.link must be an http or https address",
        ),
    ],
)
def test_a_recipient_whose_values_would_be_refused_is_named(
    message: Any, fallback: Template | None, values: dict[str, Any], problem: str
) -> None:
    request = CampaignRequested(campaign_id="c", list_id="l", category="marketing", message=message, fallback=fallback)
    found = ListFound(UUID(int=1), "l", "", 2, 0, 0, 0, datetime.now(UTC), None)
    rows = [ListRow(1000, "+15550100001", None), ListRow(1001, "+15550100002", values)]
    result = check(request, found, rows, None)
    assert (result.recipients, result.bad) == (2, 1)
    assert result.first[0].number == 2
    assert problem in result.first[0].problem
