"""What is wrong with the scheduler's settings is told by the setting's name."""

from __future__ import annotations

import pytest

from wch_common.errors import SettingsError
from wch_common.settings import load_settings
from wch_scheduler.settings import SchedulerSettings


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("shop", "WCH_SCHEDULER_REQUESTERS: is not JSON. JSON of the types that each AMQP user"),
        ('{"shop": "carts.*"}', "WCH_SCHEDULER_REQUESTERS: shop: Input should be a valid tuple"),
        ('{"Shop_2": ["carts.*"]}', "WCH_SCHEDULER_REQUESTERS: Shop_2: the name of the AMQP user must match"),
        ('{"shop": ["carts.cleen.*"]}', "WCH_SCHEDULER_REQUESTERS: carts.cleen.* matches no request type"),
    ],
)
def test_an_invalid_list_of_requesters_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, value: str, told: str
) -> None:
    monkeypatch.setenv("WCH_AMQP_URL", "amqp://wch:secret@broker/wch")
    monkeypatch.setenv("WCH_DATABASE_URL", "postgresql://wch:secret@database/wch")
    monkeypatch.setenv("WCH_PERSON_HASH_KEY", "sixteen characters")
    monkeypatch.setenv("WCH_SCHEDULER_REQUESTERS", value)
    with pytest.raises(SettingsError) as refused:
        load_settings(SchedulerSettings)
    assert told in str(refused.value)
