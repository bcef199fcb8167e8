"""The wheel: the same bytes from wherever and whenever it is built, typed, and with every table and template."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def built(folder: Path) -> Path:
    """A wheel of a copy of the project in this folder; nothing is fetched."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)  # with new times: they must not show
    shutil.copytree(
        ROOT / "src", folder / "src", copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("__pycache__")
    )
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("one") / "project")


def test_two_builds_are_equal_byte_for_byte(wheel: Path, tmp_path: Path) -> None:
    again = built(tmp_path / "another place, with another name")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_the_wheel_holds_all_of_the_package_and_nothing_else(wheel: Path) -> None:
    files = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "llmtrap").rglob("*")
             if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == files
    assert "llmtrap/py.typed" in held
