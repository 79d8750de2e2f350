"""`python -m wch_sync` runs the service."""

import sys

from wch_sync.main import main

sys.exit(main())
