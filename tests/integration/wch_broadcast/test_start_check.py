"""`wch campaigns start` checks a campaign before it starts: with both services, Meta's simulator, and a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.broadcast_stage import BroadcastStage, campaign
from support.command import wch
from support.stage import Stage
from support.waiting import eventually
from support.whatsapp_stage import NUMBER, WhatsAppStage, message, phone, template
from wch_common.events.broadcast import CampaignRecipient, RecipientsRequested
from wch_common.events.whatsapp_content import Media, Parameter

ACCOUNT = "1001"
HI = {"type": "BODY", "text": "Hi {{1}}, your code is {{2}}."}
IMAGE = {"type": "HEADER", "format": "IMAGE"}
FOOTER = {"type": "FOOTER", "text": "Reply STOP to end"}
BUTTONS = {"type": "BUTTONS", "buttons": [{"type": "URL", "text": "Shop", "url": "https://shop.example/{{1}}"}]}
TEMPLATES = [
    template("hello"),
    template("hello", language="de"),
    template("codes", HI, FOOTER),
    template("photo", IMAGE, {"type": "BODY", "text": "Look"}, BUTTONS),
    template("resting", status="PAUSED"),
    template("named", {"type": "BODY", "text": "Hi {{first_name}}"}, parameter_format="NAMED"),
    template("order_update", category="UTILITY"),
]


class Shop:
    """Both services on one stage, with templates at Meta, and `wch campaigns`."""

    def __init__(self, stage: Stage, database_url: str) -> None:
        self.whatsapp = WhatsAppStage(stage, database_url)
        self.broadcast = BroadcastStage(stage, database_url)
        self.whatsapp.graph.templates[ACCOUNT] = TEMPLATES
        self.stage, self.database_url = stage, database_url

    def start_services(self, **changes: Any) -> None:
        """Start both, and wait until the templates have been read."""
        self.broadcast.start()
        self.whatsapp.start(**({"whatsapp_business_account_id": ACCOUNT} | changes))
        if "whatsapp_business_account_id" not in changes:
            eventually(lambda: self.whatsapp.query("SELECT 1 FROM templates"))
        eventually(lambda: self.whatsapp.query("SELECT 1 FROM numbers WHERE shop IS NOT NULL"))

    def add_list(self, name: str, *recipients: CampaignRecipient, shop: str | None = None) -> None:
        """Add a complete list, as another program may, and wait for it."""
        everyone = recipients or tuple(CampaignRecipient(to=phone(number)) for number in range(5))
        self.broadcast.publish(RecipientsRequested(list_id=name, part=1, parts=1, recipients=everyone), shop=shop)
        eventually(
            lambda: self.broadcast.query("SELECT 1 FROM lists WHERE list_id = %s AND complete_at IS NOT NULL", name)
        )

    def start(self, *words: str, code: int = 0, database: bool = True) -> str:
        """Run `wch campaigns start party`."""
        url = {"WCH_DATABASE_URL": self.database_url} if database else {}
        printed = wch(self.stage, "campaigns", "start", "party", *words, code=code, **url)
        if code:
            assert self.requested == 0, "a refused campaign is not published"
            assert len(printed.splitlines()) == 1
        return printed

    def record(self, *words: str) -> Any:
        """Run it with --json as a dry run, and return what it prints."""
        return json.loads(self.start(*words, "--json", "--dry-run"))

    @property
    def requested(self) -> int:
        """How many campaigns have been requested."""
        return len(self.broadcast.query("SELECT 1 FROM campaigns")) + self.stage.depth("broadcast.campaign")


@pytest.fixture
def shop(stage: Stage, database_url: str) -> Iterator[Shop]:
    made = Shop(stage, database_url)
    yield made
    made.whatsapp.close()


def guest(number: int, *texts: str, **changes: Any) -> CampaignRecipient:
    """Return a recipient with values for the body."""
    body = tuple(Parameter(text=one) for one in texts) or None
    return CampaignRecipient(**({"to": phone(number), "body": body} | changes))


def test_what_does_not_exist_or_does_not_fit_is_refused(shop: Shop) -> None:
    shop.start_services()
    shop.add_list("guests")
    shop.add_list("with-values", *(guest(number, "Ada", f"C{number}") for number in range(4)))
    hello = ("--template", "hello", "--value", "Ada")
    on = ("--list", "guests")
    cases = {
        ("--list", "gests", *hello): "there is no list gests (did you mean guests?)",
        ("--list", "guests", "--shop", "other", *hello): "there is no list guests of the shop other",
        (*on, "--template", "helo", "--value", "x"): "Meta has no template helo (did you mean hello?); the templates were last read from Meta",
        (*on, *hello, "--language", "en"): "Meta does not have the template hello in en, but in de, en_US",
        (*on, "--template", "resting", "--value", "x"): "the template resting (en_US) is PAUSED at Meta",
        (*on, "--template", "hello"): "the template has 1 placeholder in its body, for which no values are given",
        (*on, "--template", "named", "--value", "Ada"): "the template needs a value for first_name in its body",
        (*on, "--template", "photo"): "the template needs an image in its header; it needs a value for its button 0 (Shop)",
        (*on, "--text", "Hi", "--template", "hello"): "the template has 1 placeholder in its body",
        (*on, *hello, "--sender", "99"): f"the shop does not send from 99; it has {NUMBER}",
        (*on, *hello, "--value", ""): "for which 2 values are given; it is given an empty value for body 2",
        (*on, "--template", "hello", "--value", ""): "the template is given an empty value for body 1",
        (*on, *hello, "--stop-at", "2026-01-01T00:00:00Z"): "stop_at has passed",
        ("--list", "with-values", "--template", "hello"): "(the values of 4 of 4 recipients do not fit)",
    }  # fmt: skip
    for words, sentence in cases.items():
        for more in ((), ("--dry-run",)):
            assert sentence in shop.start(*words, *more, code=1)


def test_the_plan_shows_count_samples_duration_and_limit(shop: Shop) -> None:
    shop.start_services(whatsapp_messaging_limit=6, whatsapp_rate=10)
    shop.whatsapp.publish(message(100), message(101))
    eventually(lambda: len(shop.whatsapp.sent) == 2)
    everyone = [guest(number, f"Ada {number}\n", "X1") for number in range(9)]
    shop.add_list("guests", *everyone, CampaignRecipient(to="nobody"), guest(1, "again", "X"))
    words = ("--list", "guests", "--template", "codes", "--batch-size", "5", "--pause", "2")
    printed = shop.start(*words, "--dry-run")
    for line in (
        "9 recipients in the list guests (1 malformed, 1 duplicate left out)",
        "9 recipients with line breaks, tabs or runs of spaces in a value: in a template each is sent as one space",
        "template codes (en_US), MARKETING at Meta; the templates were last read from Meta",
        "sample to +15…00:\n  │ Hi Ada 0, your code is X1.\n  │ Reply STOP to end\n",
        "sample to +15…02:\n  │ Hi Ada 2",
        f"estimated duration: 2 s (2 batches, 2 s from one to the next, at most 10 messages a second from {NUMBER})",
        "messaging limit: 4 of 6 recipients in 24 hours are left",
        "up to 5 recipients wait until earlier ones no longer count",
        "would request: start party",
    ):
        assert line in printed
    assert "sample to +15…03" not in printed
    assert phone(0) not in printed
    assert "warning" not in printed
    assert shop.requested == 0
    found = shop.record(*words)
    assert (found["recipients"], found["failing"]["count"], found["changed_values"]) == (9, 0, 9)
    assert found["template"] == {"name": "codes", "language": "en_US", "status": "APPROVED", "category": "MARKETING"}
    assert [one["message"]["body"] for one in found["samples"]] == [f"Hi Ada {n}, your code is X1." for n in range(3)]
    assert (found["limit"]["left"], found["limit"]["waiting"]) == (4, 5)
    assert found["duration"]["batches"] == 2
    assert (found["dry_run"], found["warnings"]) == (True, [])
    shop.start(*words)
    eventually(lambda: shop.broadcast.state("party")[0] == "running")


def test_recipients_who_will_fail_are_named_and_do_not_prevent_the_start(shop: Shop) -> None:
    shop.start_services()
    good = [guest(number, "Ada", f"C{number}") for number in range(40)]
    bad = [
        guest(100, "Ada", " \t"),
        guest(101),
        guest(102, "only one"),
        guest(103, "Eve", "X", header=Parameter(text="News")),
    ]
    shop.add_list("guests", *good, *bad)
    printed = shop.start("--list", "guests", "--template", "codes")
    for line in (
        "44 recipients in the list guests",
        "4 recipients will fail:",
        "recipient 41 (+15…00): the value for body 2 is empty",
        "recipient 42 (+15…01): has no values for the body",
        "recipient 43 (+15…02): the template has 2 placeholders in its body, for which 1 value is given",
        "recipient 44 (+15…03): the template has no header",
    ):
        assert line in printed
    totals = shop.broadcast.await_fact("campaign.completed")["totals"]
    assert (totals["sent"], totals["failed"], totals["waiting"]) == (40, 4, 0), (
        "each fails as it was foretold, and nobody else"
    )


def test_only_the_first_of_many_are_named(shop: Shop) -> None:
    shop.start_services()
    shop.add_list(
        "guests", *(guest(number, "A", "B") for number in range(40)), *(guest(100 + n, "A", "") for n in range(15))
    )
    printed = shop.start("--list", "guests", "--template", "codes", "--dry-run")
    assert "15 recipients will fail:" in printed
    assert printed.count("is empty") == 10
    assert "… and 5 more" in printed


def test_recipients_without_values_get_those_of_the_campaign(shop: Shop) -> None:
    shop.start_services()
    shop.add_list("guests", guest(0), guest(1), guest(2, "Eve"))
    found = shop.record("--list", "guests", "--template", "hello", "--value", "you")
    assert [one["message"]["body"] for one in found["samples"]] == ["Hello you", "Hello you", "Hello Eve"]
    assert "(2 recipients have no values of their own)" in shop.start("--list", "guests", "--template", "hello", code=1)


def test_media_and_buttons_of_a_list_are_shown(shop: Shop) -> None:
    shop.start_services()
    from wch_common.events.whatsapp_content import TemplateButton

    own = {
        "header": Media(kind="image", link="https://shop.example/a.png"),
        "buttons": (TemplateButton(index=0, kind="url", value="7"),),
    }
    shop.add_list("guests", guest(0, **own), guest(1, **own))
    printed = shop.start("--list", "guests", "--template", "photo", "--dry-run")
    assert "  │ [image https://shop.example/a.png]\n  │ Look\n  │ [Shop → https://shop.example/7]\n" in printed


def test_the_templates_format_decides_whether_a_value_has_a_name(shop: Shop) -> None:
    shop.start_services()
    shop.add_list("guests")
    for given in ("code=AB", "Price=5"):
        words = ("--list", "guests", "--template", "hello", "--value", given)
        assert shop.record(*words)["samples"][0]["message"]["body"] == f"Hello {given}"
        fallback = shop.record("--text", "Hi", *words)["samples"][0]["outside_window"]
        assert fallback["body"] == f"Hello {given}"
    codes = shop.record("--list", "guests", "--template", "codes", "--value", "a=b", "--value", "c")
    assert codes["samples"][0]["message"]["body"] == "Hi a=b, your code is c."
    named = ("--list", "guests", "--template", "named")
    found = shop.record(*named, "--value", "first_name=Ada=Eve")
    assert found["samples"][0]["message"]["body"] == "Hi Ada=Eve"
    assert "must be the name of a placeholder" in shop.start(*named, "--value", "Price=5", code=1)
    shop.start("--list", "guests", "--template", "hello", "--value", "code=AB")
    eventually(lambda: len(shop.whatsapp.sent) == 5)
    sent = shop.whatsapp.sent[0]["template"]["components"]
    assert sent[0]["parameters"] == [{"type": "text", "text": "code=AB"}]


def test_a_text_is_shown_with_its_fallback(shop: Shop) -> None:
    shop.start_services()
    shop.add_list("guests", guest(0, "Ada"), guest(1, "Eve"), guest(2))
    words = ("--list", "guests", "--text", "Dear {{1}},\nhi")
    printed = shop.start(*words, "--template", "hello", "--value", "you", "--dry-run")
    assert "  │ Dear Ada,\n  │ hi\n  or, if the recipient did not write within 24 hours:\n  │ Hello Ada\n" in printed
    assert "recipient 3 (+15…02): has no value for 1" in printed
    assert shop.record(*words)["template"] is None


def test_without_a_database_a_campaign_starts_only_unchecked_and_the_command_says_so(shop: Shop) -> None:
    shop.broadcast.start()
    words = ("--list", "nowhere", "--template", "nothing")
    for more in ((), ("--dry-run",), ("--json",)):
        refused = shop.start(*words, *more, code=1, database=False)
        assert "not started: the list, the template and the limits cannot be checked" in refused
        assert "WCH_DATABASE_URL" in refused
        assert "--unchecked" in refused
    assert "there is no list nowhere" in shop.start(*words, "--unchecked", code=1), "what can be checked is checked"
    printed = shop.start(*words, "--unchecked", database=False)
    assert "were not checked" in printed
    assert "WCH_DATABASE_URL" in printed
    eventually(lambda: shop.broadcast.state("party") == ("waiting", "list_incomplete"))


def test_unknown_templates_are_a_warning_that_says_what_to_set(shop: Shop) -> None:
    shop.broadcast.start()
    shop.add_list("guests")
    words = ("--list", "guests", "--template", "anything", "--value", "x", "--dry-run")
    assert "the template was not checked: the whatsapp service does not know this shop" in shop.start(*words)
    shop.broadcast.query("DROP SCHEMA whatsapp CASCADE")
    printed = shop.start(*words)
    assert (
        "the template was not checked: this database has no templates: the whatsapp service has never run on it"
        in printed
    )
    assert "sample to +15…00:\n  │ [template anything in en_US; body 1: x]" in printed
    assert "the template is given an empty value for body 1" in shop.start(*words[:-2], "", code=1)
    shop.start_services(whatsapp_business_account_id=None)
    eventually(lambda: shop.whatsapp.query("SELECT 1 FROM template_reads"))
    assert "set WCH_WHATSAPP_BUSINESS_ACCOUNT_ID" in shop.start(*words)


def test_a_list_whose_every_recipient_would_fail_is_refused(shop: Shop) -> None:
    shop.start_services()
    shop.add_list("guests", guest(0, ""), guest(1, " "))
    printed = shop.start("--list", "guests", "--template", "hello", code=1)
    assert "every recipient would fail; recipient 1 (+15…00): the value for body 1 is empty; recipient 2" in printed


def test_an_unreadable_meta_is_a_warning_with_the_cause_and_the_copy_is_used(shop: Shop) -> None:
    shop.whatsapp.fail_at("message_templates", times=1, status=500, body="<html>")
    shop.broadcast.start()
    shop.add_list("guests")
    shop.whatsapp.start(whatsapp_business_account_id=ACCOUNT)
    words = ("--list", "guests", "--template", "hello", "--value", "x", "--dry-run")
    eventually(lambda: shop.whatsapp.query("SELECT 1 FROM template_reads WHERE failure <> ''"))
    assert "has not read Meta's templates yet: HTTP 500 without a Graph answer" in shop.start(*words)
    shop.whatsapp.query("UPDATE template_reads SET due_at = now() RETURNING 1")
    eventually(lambda: shop.whatsapp.query("SELECT 1 FROM templates"))
    assert "warning" not in shop.start(*words)
    shop.whatsapp.graph.templates.clear()  # the token sees the account no more
    shop.whatsapp.query(
        "UPDATE template_reads SET due_at = now(), read_at = now() - interval '3 hours 4 minutes' RETURNING 1"
    )
    eventually(lambda: shop.whatsapp.query("SELECT 1 FROM template_reads WHERE failure <> ''"))
    printed = shop.start(*words)
    assert (
        "checked against an old copy: the templates were last read from Meta 3 h 4 min ago, and not since: Graph error 100"
        in printed
    )
    refused = shop.start("--list", "guests", "--template", "other", code=1)
    assert "Meta has no template other" in refused
    assert "not since: Graph error 100" in refused
    shop.stage.stop()
    shop.whatsapp.query(
        "UPDATE template_reads SET failure = '', failed_at = NULL, due_at = now() - interval '1 hour' RETURNING 1"
    )
    assert "the whatsapp service has not tried (is it running?)" in shop.start(*words)


def test_a_list_that_cannot_be_used_is_refused_and_an_incomplete_one_is_a_warning(shop: Shop) -> None:
    shop.start_services()
    hello = ("--template", "hello", "--value", "x")
    shop.add_list("empty", CampaignRecipient(to="nobody"))
    assert "the list empty has no usable recipient" in shop.start("--list", "empty", *hello, code=1)
    shop.broadcast.publish(RecipientsRequested(list_id="half", part=1, recipients=(guest(0), guest(1))))
    eventually(lambda: shop.broadcast.query("SELECT 1 FROM lists WHERE list_id = 'half' AND submitted = 2"))
    printed = shop.start("--list", "half", *hello, "--dry-run")
    assert "the list half is not complete yet: only the 2 recipients that it has now were checked" in printed
    shop.broadcast.query("UPDATE lists SET deleted_at = now() WHERE list_id = 'half' RETURNING 1")
    assert "have been deleted" in shop.start("--list", "half", *hello, code=1)


def test_what_delays_or_cuts_the_campaign_is_a_warning(shop: Shop) -> None:
    shop.start_services()
    shop.add_list("guests")
    later = datetime.now(UTC) + timedelta(hours=5)
    shop.broadcast.publish(campaign("first", range(3), start_at=later))
    eventually(lambda: shop.broadcast.state("first") == ("waiting", "start_at"))
    shop.whatsapp.query(f"UPDATE numbers SET cause = 'billing', paused_until = '{later.isoformat()}' RETURNING 1")
    begin, stop = (f"{later + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}" for minutes in (0, 1))
    words = ("--list", "guests", "--template", "order_update", "--value", "x", "--batch-size", "1", "--pause", "30")
    found = shop.record(*words, "--start-at", begin, "--stop-at", stop)
    assert found["duration"]["cut_off"] == 3
    (cut, ahead) = found["warnings"][-2:]
    assert cut == "stop_at would cut it off: about 3 of 5 recipients are not reached"
    assert "waits for the shop's other campaigns first: first" in ahead
    assert f"the number {NUMBER} is paused (billing)" in " ".join(found["warnings"])
    assert len(shop.record(*words, "--beside-others")["warnings"]) == 1
    marketing = shop.record("--list", "guests", "--template", "hello", "--value", "x", "--category", "utility")
    assert "Meta's category of the template is marketing, and the campaign's is utility" in " ".join(
        marketing["warnings"]
    )


def test_each_shop_has_its_own_lists_and_templates(shop: Shop, tmp_path: Any) -> None:
    graph = {"token": shop.whatsapp.graph.token, "url": shop.whatsapp.graph_url}
    sections = {
        name: {"graph": graph, "whatsapp": {"phone_number_ids": [number], "business_account_id": account}}
        for name, number, account in (("north", "2002", "1001"), ("south", "3003", "1002"))
    }
    shop.whatsapp.graph.templates["1002"] = [template("sun")]
    file = tmp_path / "shops.json"
    file.write_text(json.dumps(sections))
    shop.broadcast.start(shops_file=file)
    shop.whatsapp.start(shops_file=file)
    eventually(lambda: len(shop.whatsapp.query("SELECT DISTINCT shop FROM templates")) == 2)
    shop.add_list("guests", shop="north")
    shop.add_list("others", shop="south")
    shop.broadcast.publish(RecipientsRequested(list_id="others", part=1, parts=1, recipients=(guest(1),)), shop="north")
    eventually(
        lambda: (
            len(shop.broadcast.query("SELECT 1 FROM lists WHERE list_id = 'others' AND complete_at IS NOT NULL")) == 2
        )
    )
    sun = ("--template", "sun", "--value", "x")
    assert "Meta has no template sun" in shop.start("--list", "guests", *sun, code=1)
    assert "several shops have a list others: give --shop north or south" in shop.start(
        "--list", "others", *sun, code=1
    )
    shop.start("--list", "others", "--shop", "south", *sun)
    eventually(lambda: shop.broadcast.query("SELECT shop FROM campaigns WHERE campaign_id = 'party'") == [("south",)])
    wch(shop.stage, "campaigns", "start", "second", "--list", "guests", "--template", "hello", "--value", "x",
        WCH_DATABASE_URL=shop.database_url)  # fmt: skip
    eventually(lambda: shop.broadcast.query("SELECT shop FROM campaigns WHERE campaign_id = 'second'") == [("north",)])
