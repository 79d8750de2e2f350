"""A copy of this repository, in which the tests make releases."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.families import services

ROOT = Path(__file__).parents[2]
SERVICES = services()
NOTES = "- Something new.\n"
PRODUCT = "libs/common/src/wch_common/events/sync.py"
# What `make contracts` does.
WRITE_CONTRACT = """
from pathlib import Path
from wch_common.contract.schemas import write_contract
from wch_common.events import published_contract
from wch_local.reasons_table import with_table
from wch_local.settings_page import page
write_contract(published_contract(), Path("contracts"))
Path("docs/settings.md").write_text(page())
readme = Path("services/whatsapp/README.md")
readme.write_text(with_table(readme.read_text()))
"""


class Checkout:
    """A repository with the files of this one, in which nothing was released."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path) -> Checkout:
        """Copy this repository as it is, uncommitted changes included."""
        made = cls(folder)
        for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").split("\n"):
            if name and (ROOT / name).is_file() and not name.startswith("contracts/released/"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        head = [line for line in made.read("contracts/breaking.toml").splitlines(True) if line[0] == "#"]
        made.write("contracts/breaking.toml", "".join(head))
        made.write("CHANGELOG.md", f"# Changelog\n\n## Unreleased\n\n{NOTES}")
        git(folder, "init", "-q")
        made.generate_contract()
        made.commit()
        return made

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def generate_contract(self) -> None:
        self._run("-c", WRITE_CONTRACT).check_returncode()

    def commit(self) -> None:
        git(self.folder, "add", "-A")
        git(self.folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "Change")

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("-m", "wch_local.release", *arguments)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        paths = f"{self.folder}/libs/common/src{os.pathsep}{self.folder}/deploy/local/src"
        environment = {**os.environ, "PYTHONPATH": paths}
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def shrink(self) -> None:
        """Keep one service, because building a wheel takes a second or more."""
        for name in SERVICES:
            if name != "whatsapp":
                shutil.rmtree(self.folder / "services" / name)

    def break_event(self) -> None:
        """Break `sync.product.failed.v1` in its model."""
        text = self.read(PRODUCT)
        assert text.count("max_length=1000") == 1
        self.write(PRODUCT, text.replace("max_length=1000", "max_length=999"))
        self.generate_contract()


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout
