"""Runs the sync service and kills it at a step: `python -m support.crashing_sync STEP`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from support.crashing import die, dying_after
from wch_common.runtime.batch_worker import BatchWorker
from wch_sync.catalog import CatalogWriter
from wch_sync.catalog_state import CatalogState
from wch_sync.main import main
from wch_sync.shop import ShopReader

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS: dict[str, Callable[[], None]] = {
    "before the shop is read": lambda: setattr(ShopReader, "read", die),
    "after the shop is read": lambda: dying_after(ShopReader, "read"),
    "before the intent is committed": lambda: setattr(CatalogState, "begin", die),
    "after the intent is committed": lambda: dying_after(CatalogState, "begin"),
    "after the catalog accepted the call": lambda: dying_after(CatalogWriter, "_post"),
    "after the catalog has processed it": lambda: dying_after(CatalogWriter, "send"),
    "before the outcome is committed": lambda: setattr(CatalogState, "finish", die),
    "after the outcome is committed": lambda: dying_after(CatalogState, "finish"),
    "before the acknowledgements": lambda: setattr(BatchWorker, "_acknowledge", die),
}

if __name__ == "__main__":
    STEPS[sys.argv[1]]()
    sys.exit(main())
