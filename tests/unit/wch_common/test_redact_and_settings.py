"""Logs and headers contain no personal data or secrets, and every wrong setting is reported at once."""

from __future__ import annotations

from pathlib import Path
from typing import SupportsIndex

import pytest
from pydantic import SecretStr

from wch_common.broker.queue_policy import Batching, QueuePolicy
from wch_common.errors import SettingsError
from wch_common.observability.redact import redact, redact_trace
from wch_common.settings import ServiceSettings, load_settings, masked, unknown_settings
from wch_sync.settings import SyncSettings


@pytest.mark.parametrize(
    "secret",
    [
        "+49 170 1234567",
        "4917012345678",
        "+1 (555) 010-9999",
        "EAAGm0PX4ZCpsBAKZCabcdef0123456789",
        "ck_0123456789abcdef0123456789abcdef01234567",
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "call {} now",
        "https://shop.example/x?access_token={}&a=1",
        "amqp://user:{}@host/vhost",
        '{{"consumer_secret": "{}"}}',
        "Authorization: Bearer {}",
        "password={}",
    ],
)
def test_recognisable_secrets_and_numbers_are_hidden(secret: str, text: str) -> None:
    assert secret not in redact(text.format(secret))


@pytest.mark.parametrize(
    "text", ["?access_token=hunter2", "amqp://user:hunter2@host", '{"password": "hunter2"}', "secret: hunter2"]
)
def test_a_secret_is_recognised_by_its_name(text: str) -> None:
    assert "hunter2" not in redact(text)


@pytest.mark.parametrize(
    "text",
    ["product/123 costs 19.90 EUR", "2026-11-22T10:00:00Z", "5f0c86e1-8f0c-5e55-9d5c-123456789012", "error 80014"],
)
def test_other_text_stays_readable(text: str) -> None:
    assert redact(text) == text


class CountedText(str):
    """A text that counts how much of it was read."""

    longest_slice = 0
    __slots__ = ("__dict__",)

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        part = super().__getitem__(key)
        self.longest_slice = max(self.longest_slice, len(part))
        return part

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        self.longest_slice = max(self.longest_slice, len(self))
        return super().encode(encoding, errors)


def test_a_number_without_a_country_code_is_recognised() -> None:
    assert "123" not in redact("call 0170 123 4567 now")


def test_a_bearer_token_is_recognised_without_a_name() -> None:
    assert "abcdef123456" not in redact("it sent Bearer abcdef123456")


def test_the_row_in_a_database_error_is_hidden() -> None:
    told = 'duplicate key value\nDETAIL:  Key (customer_name)=(Ada Lovelace) exists.\nCONTEXT:  JSON data, line 1: {"name": "Ada'
    assert redact(told) == "duplicate key value\nDETAIL: <hidden>\nCONTEXT: <hidden>"


def test_a_long_text_is_cut_before_it_is_searched() -> None:
    text = CountedText("x" * 50_000)
    assert len(redact(text, 100)) == 100
    assert text.longest_slice == 400


def test_a_long_traceback_keeps_its_end_which_names_the_error() -> None:
    trace = "Traceback\n" + "  File x\n" * 10_000 + "ValueError: token=hunter2 is wrong"
    told = redact_trace(trace, 500)
    assert told.endswith("is wrong")
    assert "hunter2" not in told
    assert len(told) == 500


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    import os

    for name in list(os.environ):
        if name.startswith("WCH_"):
            monkeypatch.delenv(name)
    return monkeypatch


def test_one_message_names_every_missing_and_wrong_setting(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("WCH_HEALTH_PORT", "http")
    clean.setenv("WCH_LOG_LEVEL", "LOUD")
    clean.setenv("WCH_GRAPH_VERSION", "23")
    clean.setenv("WCH_CATALOG_ITEM_ID", "item")
    clean.setenv("WCH_SYNC_PRODUCT_TRIES", "-1")
    clean.setenv("WCH_SYNC_PRODUCT_RETRY_DELAYS", "0,-1")
    with pytest.raises(SettingsError) as caught:
        load_settings(SyncSettings)
    text = str(caught.value)
    wanted = "AMQP_URL DATABASE_URL WOOCOMMERCE_URL WOOCOMMERCE_CONSUMER_KEY WOOCOMMERCE_CONSUMER_SECRET GRAPH_TOKEN CATALOG_ID HEALTH_PORT"
    wanted += " LOG_LEVEL GRAPH_VERSION CATALOG_ITEM_ID SYNC_PRODUCT_TRIES SYNC_PRODUCT_RETRY_DELAYS"
    assert [name for name in wanted.split() if f"WCH_{name}:" not in text] == []


def test_secrets_come_from_files_and_are_not_logged(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("amqp://u:pass@h/wch\n")
    clean.setenv("WCH_AMQP_URL_FILE", str(file))
    settings = load_settings(ServiceSettings)
    assert settings.amqp_url == SecretStr("amqp://u:pass@h/wch")
    assert "pass" not in str(masked(settings))
    clean.setenv("WCH_AMQP_URL_FILE", str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match="WCH_AMQP_URL_FILE"):
        load_settings(ServiceSettings)


def test_the_settings_of_the_shop_are_logged_without_their_secrets(clean: pytest.MonkeyPatch) -> None:
    for name, value in {
        "WCH_AMQP_URL": "amqp://u:p@h/wch",
        "WCH_DATABASE_URL": "postgresql://u:p@h/wch",
        "WCH_WOOCOMMERCE_URL": "https://shop.example",
        "WCH_WOOCOMMERCE_CONSUMER_KEY": "ck_hidden",
        "WCH_WOOCOMMERCE_CONSUMER_SECRET": "cs_hidden",
        "WCH_GRAPH_TOKEN": "hidden",
        "WCH_CATALOG_ID": "17",
    }.items():
        clean.setenv(name, value)
    logged = masked(load_settings(SyncSettings))
    assert logged["one_shop"]["woocommerce"]["url"] == "https://shop.example/"
    assert logged["one_shop"]["catalog"]["id"] == "17"
    assert "hidden" not in str(logged)


def test_a_queue_is_tuned_by_its_settings(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("WCH_AMQP_URL", "amqp://h")
    clean.setenv("WCH_SYNC_PRODUCT_RETRY_DELAYS", "1, 2.5,30")
    clean.setenv("WCH_SYNC_PRODUCT_BATCH_WINDOW", "0.5")
    clean.setenv("WCH_SYNC_PRODUCT_BATCH_SIZE", "50")
    clean.setenv("WCH_SYNC_PRODUCT_TRIES", "7")
    clean.setenv("WCH_SYNC_PRODUCT_CONCURRENCY", "9")
    clean.setenv("WCH_SYNC_PRODUCT_TIME_LIMIT", "11")
    clean.setenv("WCH_SYNC_PRODUCT_PREFETCH", "60")
    settings = load_settings(ServiceSettings)
    policy = settings.policy("sync.product", QueuePolicy(batching=Batching(1000, 20)))
    assert policy == QueuePolicy((1, 2.5, 30), 7, 9, 11, Batching(50, 0.5), prefetch_limit=60)
    assert policy.prefetch == 60
    assert settings.policy("sync.order", QueuePolicy()) == QueuePolicy()
    clean.setenv("WCH_SYNC_PRODUCT_PREFETCH", "40")
    with pytest.raises(
        SettingsError,
        match=r"WCH_SYNC_PRODUCT_… .*the prefetch must be at least 50, the number of slots or the batch size",
    ):
        load_settings(ServiceSettings).policy("sync.product", QueuePolicy(batching=Batching(1000, 20)))
    clean.setenv("WCH_SYNC_PRODUCT_RETRY_DELAYS", "5,1")
    with pytest.raises(SettingsError, match=r"WCH_SYNC_PRODUCT_RETRY_DELAYS: .*above 0 and rising"):
        load_settings(ServiceSettings)


def test_a_misspelt_setting_is_reported_with_the_nearest_name(clean: pytest.MonkeyPatch) -> None:
    for name in (
        "WCH_LOG_LEVLE",
        "WCH_SYNC_PRODUCT_RETRY_DELAYS",
        "WCH_SYNC_PRODUKT_RETRY_DELAYS",
        "WCH_DEMO_X",
        "WCH_AMQP_URL_FILE",
    ):
        clean.setenv(name, "1")
    for link in ("WCH_SYNC_SERVICE_HOST", "WCH_SYNC_PORT_8080_TCP_ADDR", "WCH_SYNC_PORT"):
        clean.setenv(link, "10.0.0.1")
    assert unknown_settings(SyncSettings, ["sync.product"]) == [
        "WCH_LOG_LEVLE is not a setting of this service; did you mean WCH_LOG_LEVEL?",
        "WCH_SYNC_PRODUKT_RETRY_DELAYS is not a setting of this service; did you mean WCH_SYNC_PRODUCT_RETRY_DELAYS?",
    ]


def test_a_misspelling_of_a_required_setting_is_reported_with_it(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("WCH_AMQP_ULR", "amqp://h")
    with pytest.raises(SettingsError, match=r"(?s)WCH_AMQP_URL: is missing.*WCH_AMQP_ULR .*did you mean WCH_AMQP_URL"):
        load_settings(ServiceSettings)


def test_wrong_addresses_and_unreadable_files_are_reported_with_the_other_errors(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("WCH_AMQP_URL", "amqp://h;http://user:hunter2@h")
    clean.setenv("WCH_DATABASE_URL", "mysql://user:hunter2@h")
    clean.setenv("WCH_GRAPH_TOKEN_FILE", "/nonexistent/token")
    clean.setenv("WCH_HEALTH_PORT", "http")
    clean.setenv("WCH_SYNC_PRODUCT_RETRY_DELAYS", "a,b")
    with pytest.raises(SettingsError) as caught:
        load_settings(SyncSettings)
    said = str(caught.value)
    assert "WCH_AMQP_URL: must have the form amqp://" in said
    assert "WCH_DATABASE_URL: must have the form postgresql://" in said
    assert "WCH_GRAPH_TOKEN_FILE: names a file that cannot be read: No such file" in said
    assert "WCH_GRAPH_TOKEN:" not in said
    assert "WCH_HEALTH_PORT" in said
    assert said.count("WCH_SYNC_PRODUCT_RETRY_DELAYS") == 1
    assert "hunter2" not in said


def test_a_misspelt_setting_of_a_queue_is_reported_with_the_nearest_name(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("WCH_SYNC_PRODUCT_RETRY_DELAYZ", "1")
    (told,) = unknown_settings(SyncSettings, ["sync.product"])
    assert told.endswith("did you mean WCH_SYNC_PRODUCT_RETRY_DELAYS?")


def test_the_message_about_an_unknown_setting_survives_redaction(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("WCH_GRAPH_TOKEN", "hunter2")
    (told,) = unknown_settings(ServiceSettings)
    assert redact(told) == "WCH_GRAPH_TOKEN is not a setting of this service"


@pytest.mark.parametrize("password", ["p#x", "p@s/s", "p/x", "p?x", "1/x", "1?x"])
def test_a_password_that_breaks_its_address_is_reported_without_the_password(
    clean: pytest.MonkeyPatch, password: str
) -> None:
    clean.setenv("WCH_AMQP_URL", f"amqp://user:{password}@host:5672/wch")
    with pytest.raises(SettingsError, match=r"WCH_AMQP_URL: must have the form .*; in a name or password") as caught:
        load_settings(ServiceSettings)
    assert password not in str(caught.value)
