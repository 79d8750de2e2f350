"""What a request for a level may contain."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from wch_common.events.stock import LevelRequested


def test_a_negative_level_is_refused() -> None:
    with pytest.raises(ValidationError):
        LevelRequested(product_id=17, quantity=-1)
