"""`python -m wch_broadcast` runs the service."""

import sys

from wch_broadcast.main import main

sys.exit(main())
