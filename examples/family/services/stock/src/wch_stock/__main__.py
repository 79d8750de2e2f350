"""`python -m wch_stock` runs the service."""

import sys

from wch_stock.main import main

sys.exit(main())
