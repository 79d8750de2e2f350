"""Keys that hold no number, totals that add up, and files whose wrong lines are told."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from wch_broadcast.identity import batch_name, campaign_uuid, parsed_batch, position, send_key
from wch_broadcast.totals import CampaignCounts, concerns_everybody, totalled
from wch_broadcast.uploads import Refused, WrongHeadings, lines_of, read, uploaded
from wch_common.events.broadcast import CampaignRecipient, RecipientsRequested


def test_a_key_never_holds_eight_digits_and_is_read_back() -> None:
    for number in range(200):
        campaign = campaign_uuid("shop", f"c{number}")
        key = send_key(campaign, 9_999_999)
        assert len(re.sub(r"\D", "", key)) < 8
        assert position(campaign, key) == 9_999_999
        assert position(uuid.uuid4(), key) is None


@pytest.mark.parametrize("name", ["spring", "a/b", "2026/1"])
def test_a_batch_is_known_by_its_name(name: str) -> None:
    assert parsed_batch(batch_name(name, 12)) == (name, 12)
    assert parsed_batch(name.replace("/", "-")) is None


@pytest.mark.parametrize("state", ["running", "cancelled", "completed", "failed"])
@pytest.mark.parametrize("stopped", [False, True])
def test_totals_are_always_as_many_as_the_recipients(state: str, stopped: bool) -> None:
    campaign_counts = CampaignCounts(
        state, given=100, malformed=3, duplicates=7, released=state == "completed", stopped=stopped
    )
    counts = {"accepted/": 10, "delivered/": 5, "read/": 4, "failed/undeliverable": 6, "failed/window_closed": 2,
              "unknown/no_status": 1, "suppressed/opted_out": 3, "cancelled/x": 2, "deferred/y": 8, "asked/": 9}  # fmt: skip
    told = totalled(campaign_counts, counts)
    assert (told.sent, told.delivered, told.read) == (19, 9, 4)
    parts = (told.sent, told.failed, told.unknown, told.skipped, told.cancelled, told.deferred, told.waiting)
    assert sum(parts) == told.recipients == 100
    assert told.percentage == 100 - told.waiting - told.deferred
    assert told.skipped == sum(one.recipients for one in told.skipped_by)
    assert told.failed == sum(one.recipients for one in told.failed_by) == 6


def test_nothing_is_whole_before_the_last_recipient_is() -> None:
    campaign_counts = CampaignCounts("running", given=10_000, malformed=0, duplicates=0, released=True, stopped=False)
    assert totalled(campaign_counts, {"accepted/": 9_999, "asked/": 1}).percentage == 99.9
    assert totalled(campaign_counts, {"accepted/": 10_000}).percentage == 100


@pytest.mark.parametrize(("released", "percentage"), [(False, 0.0), (True, 100.0)])
def test_nothing_is_done_while_the_list_has_not_come(released: bool, percentage: float) -> None:
    campaign_counts = CampaignCounts("waiting", given=0, malformed=0, duplicates=0, released=released, stopped=False)
    assert totalled(campaign_counts, {}).percentage == percentage


def test_only_some_reasons_concern_everybody() -> None:
    for reason in ("template_missing", "account_restricted", "refused: data.sender: the shop does not send from 1"):
        assert concerns_everybody("failed", reason, own_values=True)
        assert concerns_everybody("deferred", reason, own_values=False)
    for reason in ("undeliverable", "messaging_limit"):
        assert not concerns_everybody("failed", reason, own_values=False)
    assert concerns_everybody("failed", "template_values_wrong", own_values=False)
    assert not concerns_everybody("failed", "template_values_wrong", own_values=True)
    assert not concerns_everybody("suppressed", "template_missing", own_values=False)


FILE = """to,body1,body:code,button0:url
+15550100001,Ada,X1,u/1
(555) 010-0002,,,
nobody,Bob,,
+15550100003,Eve,,,
+15550100004,"two
lines",,
"""


def test_lines_are_read_and_wrong_ones_are_told_with_number_and_reason() -> None:
    found = list(read(iter(FILE.splitlines(keepends=True)), "US"))
    good = [one for one in found if isinstance(one, CampaignRecipient)]
    assert [one.to for one in good] == ["+15550100001", "+15550100002", "+15550100004"]
    first = good[0]
    assert [(one.name, one.text) for one in first.body or ()] == [(None, "Ada"), ("code", "X1")]
    assert [(one.index, one.kind, one.value) for one in first.buttons or ()] == [(0, "url", "u/1")]
    assert good[2].body is not None
    assert good[2].body[0].text == "two\nlines"
    wrong = [one for one in found if isinstance(one, Refused)]
    assert [one.line for one in wrong] == [4, 5]
    assert "to: not a telephone number" in wrong[0].reason
    assert "more values" in wrong[1].reason
    assert "nobody" not in wrong[0].reason


def test_values_come_in_the_order_of_their_numbers() -> None:
    numbers = [10, 2, 1, *range(3, 10)]
    headings, values = (",".join(f"{word}{number}" for number in numbers) for word in ("body", "v"))
    (one,) = read(iter([f"to,{headings}\n", f"+15550100001,{values}\n"]))
    assert isinstance(one, CampaignRecipient)
    assert [value.text for value in one.body or ()] == [f"v{number}" for number in range(1, 11)]


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    file = tmp_path / "guests.csv"
    file.write_text("to,body1\n+15550100001,Zoë\n", encoding="utf-8-sig")
    with lines_of(file) as lines:
        (one,) = read(lines)
    assert isinstance(one, CampaignRecipient)
    assert [value.text for value in one.body or ()] == ["Zoë"]


@pytest.mark.parametrize("headings", ["phone,body1", "body1", "to,to", "to,body", "to,button1:what", ""])
def test_headings_that_nobody_knows_are_refused(headings: str) -> None:
    with pytest.raises(WrongHeadings, match="Columns are to"):
        list(read(iter([f"{headings}\n", "+15550100001,x\n"])))


@pytest.mark.parametrize(("recipients", "parts"), [(0, 1), (1, 1), (1000, 1), (1001, 2), (2000, 2), (2001, 3)])
def test_the_last_part_says_how_many_there_are(recipients: int, parts: int) -> None:
    published: list[RecipientsRequested] = []

    def people() -> Iterator[CampaignRecipient]:
        yield from (CampaignRecipient(to=f"+1555{n:07d}") for n in range(recipients))

    assert uploaded(people(), "l", published.append) == parts
    assert [one.part for one in published] == list(range(1, parts + 1))
    assert [one.parts for one in published] == [None] * (parts - 1) + [parts]
    assert sum(len(one.recipients) for one in published) == recipients


def test_a_value_that_is_left_out_before_another_and_a_quotation_mark_that_is_not_closed_are_told() -> None:
    (one,) = read(iter(["to,body1,body2\n", "+15550100001,,X\n"]))
    assert one == Refused(2, "body2 has a value, and one before it has none")
    endless = ["to,body1\n", "+15550100001,Ada\n", '+15550100002,"Eve\n', *(["x" * 1000 + "\n"] * 200)]
    first, second = read(iter(endless))
    assert isinstance(first, CampaignRecipient)
    assert isinstance(second, Refused)
    assert "is a quotation mark not closed?" in second.reason
