"""Values that `wch campaigns start` is given, for a template whose format is known or not."""

from __future__ import annotations

import pytest

from wch_broadcast.start_cli import message_of


@pytest.mark.parametrize(
    ("given", "is_named", "name", "text"),
    [
        ("code=AB", None, "code", "AB"),
        ("1=AB", None, None, "1=AB"),
        ("Price=5", None, None, "Price=5"),
        ("code=AB", False, None, "code=AB"),
        ("code=AB", True, "code", "AB"),
        ("Price=5", True, "Price", "5"),
        ("Ada", True, None, "Ada"),
        ("=5", None, None, "=5"),
        ("a=b=c", True, "a", "b=c"),
    ],
)
def test_a_value_has_a_name_if_the_template_has_names(
    given: str, is_named: bool | None, name: str | None, text: str
) -> None:
    message = message_of(None, "hello", "en_US", [given], is_named=is_named)["message"]
    assert message["body"] == [{"name": name, "text": text}]
