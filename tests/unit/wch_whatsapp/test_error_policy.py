"""Meta's error codes: the action for every code, the class of the HTTP status for unlisted codes, and the outcome."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from wch_common.events.failure_reasons import FAILURE_REASONS
from wch_common.integrations.graph import GraphError
from wch_whatsapp.call_outcomes import decide_outcome
from wch_whatsapp.cloud import Accepted, InDoubt, RefusedByMeta, Unsent, Usage
from wch_whatsapp.decide import Send
from wch_whatsapp.error_policy import ErrorAction, classify

SERVICE = Path(__file__).parents[3] / "services/whatsapp"
BACK_OFF, THROTTLE, PAIR, PARK = (
    ErrorAction.RETRY,
    ErrorAction.PAUSE_NUMBER,
    ErrorAction.PAUSE_RECIPIENT,
    ErrorAction.PAUSE_UNTIL_PROBED,
)
CAMPAIGN, COUNTRY = ErrorAction.END_BATCH, ErrorAction.END_COUNTRY
RECIPIENT, REFUSE = ErrorAction.END_MESSAGE, ErrorAction.REFUSE
EXPECTED: dict[ErrorAction, tuple[int, ...]] = {
    BACK_OFF: (1, 2, 131000, 131016, 132069, 133004, 134101),
    THROTTLE: (4, 17, 32, 341, 613, 80007, 80008, 80009, 80014, 130429, 131048, 131057),
    PAIR: (131056,),
    PARK: (0, 3, 10, 33, 102, 104, 190, 200, 250, 299, 368, 131005, 131031, 131037, 131042, 131045, 131064, 133000, 133005,
           133006, 133008, 133009, 133010, 133015, 133016, 134011),
    CAMPAIGN: (131055, 131063, 132000, 132001, 132007, 132012, 132015, 132016, 132068, 134100, 134102),
    COUNTRY: (130497,),
    RECIPIENT: (130403, 130472, 131021, 131026, 131030, 131043, 131047, 131049, 131050, 131062, 132005, 132018,
                137000),
    REFUSE: (100, 131008, 131009, 131051, 131053, 135000),
}  # fmt: skip


@pytest.mark.parametrize(("action", "code"), [(action, code) for action, codes in EXPECTED.items() for code in codes])
def test_a_code_leads_to_its_action_whatever_the_http_status(action: ErrorAction, code: int) -> None:
    assert {classify(code, status=status).action for status in (400, 401, 429, 500)} == {action}


@pytest.mark.parametrize(
    ("arguments", "action", "reason"),
    [
        ({"code": 100, "subcode": 33}, PARK, "number_not_usable"),
        ({"code": 131009, "details": "Recipient phone number is not valid"}, RECIPIENT, "malformed_number"),
        ({"code": 131053, "details": "the media host answered 503"}, BACK_OFF, "media_host_failed"),
        (
            {"code": 131053, "details": "weblink failed with http code 429, status message Too Many Requests"},
            BACK_OFF,
            "media_host_failed",
        ),
        ({"code": 131053, "details": "weblink failed with http code 404"}, REFUSE, "media_not_fetched"),
        ({"code": 131053, "details": "the file of 500 KB is too large"}, REFUSE, "media_not_fetched"),
        ({"code": 131053, "details": "size 15000 is too large"}, REFUSE, "media_not_fetched"),
        ({"code": 132000, "own_values": True}, RECIPIENT, "template_values_wrong"),
        ({"code": 132012, "own_values": True}, RECIPIENT, "template_values_wrong"),
        ({"code": 132018, "own_values": True}, RECIPIENT, "value_refused"),
        ({"code": 132018}, RECIPIENT, "value_refused"),
        ({"code": 100, "own_values": True}, RECIPIENT, "request_refused"),
        ({"code": 132015, "own_values": True}, CAMPAIGN, "template_paused"),
        ({"code": 999999, "status": 401}, PARK, "permission_missing"),
        ({"code": 999999, "status": 403}, PARK, "permission_missing"),
        ({"code": 999999, "status": 429}, THROTTLE, "app_throttled"),
        ({"code": 999999, "status": 500}, BACK_OFF, "meta_failed"),
        ({"code": 999999, "status": 400}, REFUSE, "request_refused"),
    ],
)
def test_details_and_status_decide_where_the_code_does_not(
    arguments: dict[str, Any], action: ErrorAction, reason: str
) -> None:
    policy = classify(**arguments)
    assert (policy.action, policy.reason) == (action, reason)


def test_no_number_or_token_of_metas_text_is_stored() -> None:
    detail = classify(131026, details="to +15550100001 with access_token=hunter2").detail
    assert "5550100001" not in detail
    assert "hunter2" not in detail


def row(**changes: Any) -> dict[str, Any]:
    values = {"id": uuid.uuid4(), "failures": 0, "pair_failures": None, "fallback": None, "as_fallback": False}
    return values | {"own_values": False, "answered": False, "content": None} | changes


def outcome(reply: Any, **changes: Any) -> Any:
    send = Send({"type": "template"}, as_fallback=False, outside=True)
    return decide_outcome(row(**changes), 1, send, probe=False, reply=reply, settle_seconds=600)


def refused(code: int, status: int = 400, usage: Usage = Usage()) -> RefusedByMeta:  # noqa: B008 - frozen
    return RefusedByMeta(GraphError(status, code, None, "", "", None), usage)


def test_every_reason_that_the_service_gives_is_in_the_table() -> None:
    written = set()
    for module in (SERVICE / "src/wch_whatsapp").glob("*.py"):
        text = module.read_text()
        for pattern in (r'StateReason\("([a-z_]+)"', r'End\("failed", "([a-z_]+)"', r'Defer\([^\n]*"([a-z_]+)"\)', r'reason ?= ?"([a-z_]+)"',
                        r'Pause\("([a-z_]+)"', r'ErrorPolicy\(ErrorAction\.[A-Z_]+, "([a-z_]+)"', r'return "([a-z_]+)"'):  # fmt: skip
            written |= set(re.findall(pattern, text))
    not_of_failures = {"asked_to_stop", "cancelled", "other"}
    assert written - not_of_failures - set(FAILURE_REASONS) == set()
    assert len(written) > 15, "the patterns find the reasons"


def test_a_message_that_may_be_accepted_waits_for_a_status_and_is_not_retried() -> None:
    change = outcome(InDoubt("ReadTimeout after the request was written")).change
    assert (change.state, change.wait) == ("in_doubt", 600)


def test_waits_grow_until_the_message_ends_after_five_failures() -> None:
    waits = [outcome(Unsent("refused"), failures=made).change for made in range(6)]
    assert [one.wait for one in waits] == [2, 8, 30, 120, 600, None]
    assert [one.state for one in waits] == ["queued"] * 5 + ["failed"]


def test_an_error_without_a_known_cause_is_retried_three_times() -> None:
    states = [outcome(refused(131000), failures=made).change.state for made in range(4)]
    assert states == ["queued", "queued", "queued", "failed"]


def test_the_pause_of_a_recipient_grows_fourfold() -> None:
    waits = [outcome(refused(131056), pair_failures=made).change.wait for made in (None, 1, 2, 3, 20)]
    assert waits == [1, 4, 16, 64, 3600]


@pytest.mark.parametrize("code", [131056, 130429, 131057, 190, 4])
def test_an_error_that_concerns_more_than_the_message_uses_no_attempt(code: int) -> None:
    change = outcome(refused(code)).change
    assert (change.state, change.failed) == ("queued", False)


def test_a_refused_token_pauses_the_whole_shop_and_a_throttle_the_number() -> None:
    park, throttle = outcome(refused(190)).pause, outcome(refused(131048)).pause
    assert (park.shop, park.seconds) == (True, 30)
    assert (throttle.shop, throttle.seconds) == (False, 4 * 3600)
    app, maintenance = outcome(refused(80007)).pause, outcome(refused(131057)).pause
    assert (app.shop, app.seconds) == (True, 300), "the numbers of a shop share its app"
    assert (maintenance.shop, maintenance.seconds) == (False, 120)


def test_a_number_near_its_limit_is_paused_as_long_as_meta_says() -> None:
    pause = outcome(Accepted("wamid.1", Usage(95, 120))).pause
    assert (pause.seconds, pause.shop) == (120, True)
    assert outcome(Accepted("wamid.1", Usage(89, 120))).pause is None
