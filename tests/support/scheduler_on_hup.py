"""The scheduler, which re-reads its file only on SIGHUP."""

from __future__ import annotations

import sys

from wch_scheduler import loops
from wch_scheduler.main import main

if __name__ == "__main__":
    loops._FILE_SECONDS = 3600
    sys.exit(main())
