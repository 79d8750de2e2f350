"""`wch campaigns` as an operator uses it, on a real broker and database."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import pytest

from support.broadcast_stage import BroadcastStage, campaign
from support.command import wch
from support.waiting import eventually
from support.whatsapp_stage import phone
from wch_common.events.broadcast import (
    CampaignCancelRequested,
    CampaignRecipient,
)


def run(bc: BroadcastStage, *words: str, code: int = 0, given: str | None = None) -> str:
    """Run `wch campaigns` and return what it prints."""
    return wch(bc.stage, "campaigns", *words, code=code, given=given, WCH_DATABASE_URL=bc.database_url)


def test_a_campaign_from_a_file_to_its_report(bc: BroadcastStage, tmp_path: Path) -> None:
    bc.start()
    lines = ["to,body1", *(f"{phone(n)},Guest {n}" for n in range(3)), "nobody,Bob", phone(1) + ",again"]
    refused = tmp_path / "refused.csv"
    printed = run(bc, "import", "guests", "-", "--refused", str(refused), given="\n".join(lines))
    assert "line 5: to: not a phone number" in printed
    assert "uploaded 4 recipients as guests, refused 1 line" in printed
    assert refused.read_text().splitlines()[1].startswith("5,")
    bc.await_fact("recipients.added")
    assert "there is already a list guests" in run(bc, "import", "guests", "-", code=1, given="to")
    run(bc, "start", "party", "--list", "guests", "--template", "hello", "--value", "who=x", "--dry-run")
    run(bc, "start", "party", "--list", "guests", "--template", "hello", "--value", "who=x", "--value", "code=y")
    (batch,) = bc.await_batches(1)
    assert batch["message"]["body"] == [{"text": "x", "name": "who"}, {"text": "y", "name": "code"}]
    assert "running" in run(bc, "status", "party")
    bc.answer(batch, {0: "accepted", 1: "failed/undeliverable", 2: "unknown"})
    bc.await_fact("campaign.completed")
    status = run(bc, "status", "party", "--watch")
    assert "100.0 % of 4 recipients" in status
    assert "failed: undeliverable" in status
    found = json.loads(run(bc, "status", "party", "--json"))
    assert (found["state"], found["totals"]["skipped"]) == ("completed", 1)
    rows = list(csv.DictReader(io.StringIO(run(bc, "report", "party"))))
    assert [(row["to"], row["outcome"], row["reason"]) for row in rows] == [
        (phone(0), "accepted", ""),
        (phone(1), "failed", "undeliverable"),
        (phone(2), "unknown", ""),
        (phone(1), "skipped", "duplicate_number"),
    ]
    listed = [json.loads(line) for line in run(bc, "report", "party", "--json").splitlines()]
    assert [one["outcome"] for one in listed] == [row["outcome"] for row in rows]
    assert "there is already a campaign party" in run(
        bc, "start", "party", "--list", "guests", "--template", "x", code=1
    )
    assert "party" in run(bc, "list")
    assert "guests" in run(bc, "list", "--lists")
    assert len(bc.batches) == 1, "a dry run publishes nothing"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("status", "unknown"), "there is no campaign unknown"),
        (("start", "x", "--list", "y"), "give --template, --text, or both"),
        (("start", "x", "--list", "y", "--template", "Not A Name"), "message.template.name"),
        (("import", "x", "/no/such/file"), "/no/such/file: No such file"),
        (
            ("import", "x", "/no/such/file", "--region", "UK"),
            "--region, WCH_WHATSAPP_REGION: must be the two characters",
        ),
    ],
)
def test_a_wrong_command_prints_one_sentence(bc: BroadcastStage, words: tuple[str, ...], message: str) -> None:
    bc.start()
    printed = run(bc, *words, code=1)
    assert message in printed
    assert printed.startswith("wch: ")


def test_unknown_columns_are_reported_and_nothing_is_uploaded(bc: BroadcastStage) -> None:
    bc.start()
    assert "unknown columns: 'number'" in run(bc, "import", "x", "-", code=1, given="number\n+15550100001\n")
    assert bc.stage.depth("broadcast.recipients") == 0


def test_pause_resume_and_cancel_from_the_command_line(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("c", range(4), batch_size=2))
    bc.await_batches(1)
    run(bc, "pause", "c", "--reason", "wait", "--dry-run")
    run(bc, "pause", "c", "--reason", "wait")
    assert bc.await_fact("campaign.paused")["reason"] == "wait"
    assert "paused (wait)" in run(bc, "status", "c", "--watch")
    run(bc, "resume", "c")
    bc.await_fact("campaign.resumed")
    run(bc, "cancel", "c", "--reason", "over")
    assert "cancelling" in eventually(lambda: text if "cancelling" in (text := run(bc, "status", "c")) else "")
    assert len(bc.facts("campaign.paused")) == 1


def test_counting_the_report_by_outcome_gives_the_totals(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    everyone = (*(CampaignRecipient(to=phone(n)) for n in range(10)), CampaignRecipient(to="nobody"))
    bc.publish(campaign("words", None, recipients=everyone, batch_size=4))
    (first,) = bc.await_batches(1)
    printed = run(bc, "report", "words", "--output", "/dev/full", code=1)
    assert printed == "wch: the output could not be written: No space left on device\n"
    outcomes = {
        0: "suppressed/opted_out",
        1: "failed/window_closed",
        2: "failed/undeliverable",
        3: "deferred/pair_too_fast",
    }
    bc.answer(first, outcomes)
    bc.await_batches(2)
    bc.query("UPDATE recipients SET phone = NULL, person = NULL, skip_reason = 'erased' WHERE position = 1009")
    for _ in range(2):
        totals = json.loads(run(bc, "status", "words", "--json"))["totals"]
        rows = [json.loads(line) for line in run(bc, "report", "words", "--json").splitlines()]
        counts = Counter(row["outcome"] for row in rows)
        names = ("failed", "skipped", "deferred", "waiting", "cancelled")
        assert {name: counts[name] for name in names} == {name: totals[name] for name in names}
        bc.publish(CampaignCancelRequested(campaign_id="words", by="tests"))
        eventually(lambda: bc.state("words")[0] == "cancelling")
