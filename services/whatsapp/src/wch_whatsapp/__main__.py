"""`python -m wch_whatsapp` runs the service."""

import sys

from wch_whatsapp.main import main

sys.exit(main())
