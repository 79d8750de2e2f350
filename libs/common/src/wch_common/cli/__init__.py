"""The operator's command: `wch`, noun then verb."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `wch`; without the packages of its extra, say how to install them."""
    try:
        from wch_common.cli.app import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wch_"):
            raise
        sys.exit(f"wch: the package {error.name} is missing: run pip install 'wch-common[cli]'")
    run()
