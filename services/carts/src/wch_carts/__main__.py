"""`python -m wch_carts` runs the service."""

import sys

from wch_carts.main import main

sys.exit(main())
