"""`wch campaigns`, as an operator uses it, and what time does to campaigns that have ended."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from support.broadcast_stage import BroadcastStage, campaign, part
from support.command import wch
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import phone
from wch_broadcast import maintenance
from wch_common.events.broadcast import CampaignCancelRequested, CampaignPauseRequested, CampaignRecipient
from wch_common.events.whatsapp_content import Parameter


@pytest.fixture
def bc(stage: Stage, database_url: str) -> Iterator[BroadcastStage]:
    yield BroadcastStage(stage, database_url)
    stage.stop()


def run(bc: BroadcastStage, *words: str, code: int = 0, given: str | None = None) -> str:
    return wch(bc.stage, "campaigns", *words, code=code, given=given, WCH_DATABASE_URL=bc.database_url)


def test_a_campaign_from_a_file_to_its_report(bc: BroadcastStage, tmp_path: Path) -> None:
    assert "no campaigns" in run(bc, "list", code=1)
    bc.start()
    eventually(lambda: run_quietly(bc))
    lines = ["to,body1", *(f"{phone(n)},Guest {n}" for n in range(3)), "nobody,Bob", phone(1) + ",again"]
    refused = tmp_path / "refused.csv"
    told = run(bc, "import", "guests", "-", "--refused", str(refused), given="\n".join(lines))
    assert "line 5: to: not a telephone number" in told
    assert "uploaded 4 recipients as guests, refused 1 lines" in told
    assert refused.read_text().splitlines()[1].startswith("5,")
    bc.await_told("recipients.added")
    assert "there is a list guests already" in run(bc, "import", "guests", "-", code=1, given="to")
    run(bc, "start", "party", "--list", "guests", "--template", "hello", "--value", "x", "--dry-run")
    run(bc, "start", "party", "--list", "guests", "--template", "hello", "--value", "x", "--value", "code=y")
    (batch,) = bc.await_asked(1)
    assert batch["message"]["body"] == [{"text": "x", "name": None}, {"text": "y", "name": "code"}]
    assert "running" in run(bc, "status", "party")
    bc.answer(batch, {0: "accepted", 1: "failed/undeliverable", 2: "unknown"})
    bc.await_told("campaign.completed")
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
    assert "there is a campaign party already" in run(
        bc, "start", "party", "--list", "guests", "--template", "x", code=1
    )
    assert "party" in run(bc, "list")
    assert "guests" in run(bc, "list", "--lists")
    assert len(bc.asked) == 1, "a dry run asks for nothing"


def run_quietly(bc: BroadcastStage) -> bool:
    try:
        return bc.query("SELECT count(*) FROM campaigns") == [(0,)]
    except psycopg.errors.UndefinedTable:
        return False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status", "nothing"), "there is no campaign nothing"),
        (("start", "x", "--list", "y"), "give a --template, a --text, or both"),
        (("start", "x", "--list", "y", "--template", "Not A Name"), "message.template.name"),
        (("import", "x", "/no/such/file"), "/no/such/file: No such file"),
        (("forget", "12"), "country code"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(bc: BroadcastStage, words: tuple[str, ...], said: str) -> None:
    bc.start()
    eventually(lambda: run_quietly(bc))
    told = run(bc, *words, code=1)
    assert said in told
    assert told.startswith("wch: ")


def test_headings_nobody_knows_are_told_and_nothing_is_uploaded(bc: BroadcastStage) -> None:
    bc.start()
    eventually(lambda: run_quietly(bc))
    assert "does not know 'number'" in run(bc, "import", "x", "-", code=1, given="number\n+15550100001\n")
    assert bc.stage.depth("broadcast.recipients") == 0


def test_a_campaign_is_steered_from_the_command_line(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    bc.publish(campaign("c", range(4), batch_size=2))
    bc.await_asked(1)
    run(bc, "pause", "c", "--reason", "wait", "--dry-run")
    run(bc, "pause", "c", "--reason", "wait")
    assert bc.await_told("campaign.paused")["reason"] == "wait"
    assert "paused (wait)" in run(bc, "status", "c", "--watch")
    run(bc, "resume", "c")
    bc.await_told("campaign.resumed")
    run(bc, "cancel", "c", "--reason", "over")
    assert "cancelling" in eventually(lambda: text if "cancelling" in (text := run(bc, "status", "c")) else "")
    assert len(bc.told("campaign.paused")) == 1


def test_a_person_is_shown_forgotten_and_passed_over(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    guests = (CampaignRecipient(to=phone(n), body=(Parameter(text=f"Guest {n}"),)) for n in range(3))
    bc.publish(campaign("f", None, recipients=tuple(guests), batch_size=1))
    (first,) = bc.await_asked(1)
    bc.publish(CampaignPauseRequested(campaign_id="f", by="tests"))
    bc.await_told("campaign.paused")
    shown = json.loads(run(bc, "export", phone(1)))
    assert [(one["campaign_id"], one["phone"], one["outcome"]) for one in shown] == [("f", phone(1), None)]
    assert "would be erased" in run(bc, "forget", phone(1), "--dry-run")
    for number in (0, 1):
        assert "erased" in run(bc, "forget", phone(number))
    assert json.loads(run(bc, "export", phone(1))) == []
    assert bc.query("SELECT count(*) FROM recipients WHERE phone = ANY(%s)", [phone(0), phone(1)]) == [(0,)]
    assert bc.query("SELECT own->'body'->0->>'text' FROM recipients WHERE own IS NOT NULL") == [("Guest 2",)]
    run(bc, "resume", "f")
    bc.answer(first)
    last = bc.await_asked(2)[1]
    assert [one["to"] for one in last["recipients"]] == [phone(2)]
    bc.answer(last)
    totals = bc.await_told("campaign.completed")["totals"]
    assert (totals["sent"], totals["skipped_by"]) == (2, [{"reason": "forgotten", "recipients": 1}])


def test_recipients_are_deleted_in_time_and_the_summary_is_kept(
    bc: BroadcastStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_RETENTION_SECONDS", 0.1)
    bc.start()
    for name in ("old", "new", "open"):
        bc.publish(campaign(name, range(2), exclusive=False))
    for batch in bc.await_asked(3):
        if batch["batch_id"] != "open/1":
            bc.answer(batch)
    bc.await_told("campaign.completed", 2)
    bc.publish(part("unused", 1, (7,), parts=1))
    bc.await_told("recipients.added")
    bc.query("UPDATE lists SET created_at = now() - interval '91 days' WHERE list_id <> 'unused'")
    bc.query("UPDATE campaigns SET ended_at = now() - interval '91 days' WHERE campaign_id = 'old'")
    left = "SELECT c.campaign_id FROM campaigns AS c JOIN recipients AS r ON r.list = c.list GROUP BY 1 ORDER BY 1"
    eventually(lambda: bc.query(left) == [("new",), ("open",)])
    unused = "SELECT count(*) FROM lists AS l JOIN recipients AS r ON r.list = l.id WHERE l.list_id = 'unused'"
    assert bc.query(unused) == [(1,)], "a campaign may come for it yet"
    eventually(lambda: bc.query("SELECT count(*) FROM outcomes") == [(4,)])
    assert json.loads(run(bc, "status", "old", "--json"))["totals"]["sent"] == 2
    assert "what became of each recipient of old was deleted" in run(bc, "report", "old", code=1)
    bc.query("UPDATE lists SET deleted_at = NULL")  # as where a later campaign went to the same list
    assert "what became of each recipient of old was deleted" in run(bc, "report", "old", code=1)


def test_a_count_of_the_report_is_the_summary(bc: BroadcastStage) -> None:
    bc.start(broadcast_in_flight=1)
    everybody = (*(CampaignRecipient(to=phone(n)) for n in range(10)), CampaignRecipient(to="nobody"))
    bc.publish(campaign("words", None, recipients=everybody, batch_size=4))
    (first,) = bc.await_asked(1)
    said = {
        0: "suppressed/opted_out",
        1: "failed/window_closed",
        2: "failed/undeliverable",
        3: "deferred/pair_too_fast",
    }
    bc.answer(first, said)
    bc.await_asked(2)
    bc.query("UPDATE recipients SET phone = NULL, person = NULL, flaw = 'forgotten' WHERE position = 1009")
    for _ in range(2):
        totals = json.loads(run(bc, "status", "words", "--json"))["totals"]
        rows = [json.loads(line) for line in run(bc, "report", "words", "--json").splitlines()]
        counts = Counter(row["outcome"] for row in rows)
        names = ("failed", "skipped", "deferred", "waiting", "cancelled")
        assert {name: counts[name] for name in names} == {name: totals[name] for name in names}
        bc.publish(CampaignCancelRequested(campaign_id="words", by="tests"))
        eventually(lambda: bc.state("words")[0] == "cancelling")


def test_campaigns_are_counted_by_state_and_cause(bc: BroadcastStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "_COUNT_SECONDS", 0.1)
    service = bc.start(broadcast_failure_least=1)
    bc.publish(campaign("a", range(2)))
    bc.await_asked(1)
    bc.publish(campaign("b", range(2)))
    registry = service.service._metrics.registry
    waiting = {"state": "waiting", "cause": "another_campaign"}
    eventually(lambda: registry.get_sample_value("wch_broadcast_campaigns", waiting) == 1)
    bc.answer(bc.asked[0], "failed/template_paused")
    eventually(lambda: registry.get_sample_value("wch_broadcast_campaigns_stopped") == 1)
    # A reason is no label: a person may give any.
    eventually(lambda: registry.get_sample_value("wch_broadcast_campaigns", {"state": "paused", "cause": ""}) == 1)
    bc.publish(CampaignPauseRequested(campaign_id="b", reason="look again", by="me"))
    eventually(lambda: registry.get_sample_value("wch_broadcast_campaigns", {"state": "paused", "cause": ""}) == 2)
    assert registry.get_sample_value("wch_broadcast_campaigns_stopped") == 1, "that a person paused is no news"
    assert registry.get_sample_value("wch_broadcast_campaigns_stuck") == 0
    bc.query("UPDATE campaigns SET state = 'cancelling', taken_up_at = now(), due_at = NULL WHERE campaign_id = 'b'")
    eventually(lambda: registry.get_sample_value("wch_broadcast_campaigns_stuck") == 1)


def test_one_campaign_that_cannot_go_on_holds_up_no_other(bc: BroadcastStage) -> None:
    service = bc.start()
    for name in ("broken", "whole"):
        bc.publish(campaign(name, range(2), batch_size=1, pause_seconds=0.2, exclusive=False))
    for batch in bc.await_asked(2):
        bc.query("UPDATE campaigns SET request = '{}' WHERE campaign_id = 'broken'")
        bc.answer(batch)
    eventually(lambda: [one for one in bc.asked if one["batch_id"] == "whole/2"])
    bc.query("UPDATE campaigns SET due_at = now() - interval '1 second' WHERE campaign_id = 'broken'")
    eventually(lambda: bc.query("SELECT 1 FROM campaigns WHERE campaign_id = 'broken' AND due_at > now()") == [(1,)])
    bc.publish(campaign("later", range(2), exclusive=False))
    eventually(lambda: [one for one in bc.asked if one["batch_id"] == "later/1"])
    assert service.is_ready
