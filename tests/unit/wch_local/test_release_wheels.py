"""The wheels of a release replace those of earlier versions, and only once they are complete."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from wch_local.release_wheels import replace_wheels


def wheels(folder: Path, version: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"wch_{name}-{version}-py3-none-any.whl" for name in ("carts", "common", "sync")]
    for path in paths:
        path.write_text(version)
    return paths


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_wheels_of_other_versions_are_replaced_and_other_files_kept(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    replace_wheels(dist, wheels(tmp_path / "first", "0.1.0"))
    assert contents(dist) == contents(tmp_path / "first")
    (dist / "other-1.0-py3-none-any.whl").write_text("other")
    replace_wheels(dist, wheels(tmp_path / "second", "0.2.0"))
    assert contents(dist) == {**contents(tmp_path / "second"), "other-1.0-py3-none-any.whl": "other"}
    wheels(tmp_path / "second", "0.2.0")[0].write_text("built again")
    replace_wheels(dist, sorted((tmp_path / "second").iterdir()))
    assert contents(dist)["wch_carts-0.2.0-py3-none-any.whl"] == "built again"


def test_a_full_disk_leaves_the_earlier_wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheels(tmp_path / "dist", "0.1.0")
    copied: list[Path] = []

    def copy(source: Path, target: str) -> str:
        if len(copied) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        copied.append(source)
        return shutil.copy(source, target)

    monkeypatch.setattr("wch_local.release_wheels.shutil.copy2", copy)
    before = contents(tmp_path / "dist")
    with pytest.raises(OSError, match="No space left"):
        replace_wheels(tmp_path / "dist", wheels(tmp_path / "built", "0.2.0"))
    assert len(copied) == 2
    assert contents(tmp_path / "dist") == before
