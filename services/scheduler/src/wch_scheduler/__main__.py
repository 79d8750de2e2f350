"""`python -m wch_scheduler` runs the service."""

import sys

from wch_scheduler.main import main

sys.exit(main())
