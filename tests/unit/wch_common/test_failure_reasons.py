"""The table of failure reasons: complete, without contradictions, and the only place that a reason needs."""

from __future__ import annotations

from collections import Counter

import pytest

from wch_common.events import failure_reasons
from wch_common.events.failure_reasons import FAILURE_REASONS, FailureReason, failure_reason, reason_of_code
from wch_local import reasons_table
from wch_whatsapp.error_policy import ErrorAction, policy_for


def test_each_code_has_one_reason() -> None:
    codes = Counter(code for reason in FAILURE_REASONS.values() for code in reason.codes)
    assert [code for code, reasons in codes.items() if reasons > 1] == []
    assert reason_of_code(131026) == "undeliverable"
    assert reason_of_code(250) == "permission_missing"
    assert reason_of_code(999_999) is None


def test_somebody_acts_on_what_does_not_pass_unless_it_is_the_recipient_or_unknown() -> None:
    idle = {name for name, reason in FAILURE_REASONS.items() if not reason.retryable and reason.acts == "nobody"}
    assert {failure_reason(name).concerns for name in idle - {"unknown", "no_status"}} == {"recipient"}
    assert all(failure_reason(name).acts == "operator" for name in failure_reasons.parking_reasons())


def test_the_lists_of_reasons_are_those_that_services_kept_before() -> None:
    assert failure_reasons.parking_reasons() == [
        "account_restricted", "billing", "number_not_usable", "permission_missing", "token_refused"
    ]  # fmt: skip
    assert [name for name in FAILURE_REASONS if failure_reasons.pauses_shop(name)] == [
        "token_refused", "permission_missing", "account_restricted", "billing", "app_throttled", "usage_near_limit"
    ]  # fmt: skip
    alerting = set(failure_reasons.alerting_reasons()) - set(failure_reasons.parking_reasons())
    assert alerting == {
        "spam_restriction", "not_on_test_list", "marketing_switched_off", "country_not_allowed", "template_not_eligible",
        "dead_lettered", "budget_used"
    }  # fmt: skip
    assert {name for name, reason in FAILURE_REASONS.items() if reason.skipped} == {
        "window_closed", "malformed_number", "different_people", "number_changed", "erased", "not_in_allow_list"
    }  # fmt: skip


def test_values_of_the_recipients_own_are_the_recipients_concern() -> None:
    wrong, missing = failure_reason("template_values_wrong"), failure_reason("template_missing")
    assert (wrong.concern(own_values=False), wrong.concern(own_values=True)) == ("template", "recipient")
    assert missing.concern(own_values=True) == "template"


def test_an_unlisted_reason_concerns_its_recipient_only() -> None:
    found = failure_reason("a_reason_of_a_later_version")
    assert (found.concerns, found.retryable, found.parks) == ("recipient", False, False)
    assert policy_for("a_reason_of_a_later_version").action is ErrorAction.END_MESSAGE


def test_a_new_reason_is_in_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = FailureReason("number", False, "operator", "quarantined", "ask Meta", (131998, 131999))
    monkeypatch.setitem(FAILURE_REASONS, "number_quarantined", reason)
    row = "| `number_quarantined` | quarantined | number | no | operator | ask Meta | 131998–131999 |\n"
    assert row in reasons_table.with_table(reasons_table.README.read_text())


def test_a_page_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="must contain the lines"):
        reasons_table.with_table("# whatsapp\n")
