"""The command line in this process, a small checkpoint, and a report to show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support import documents
from tests.support.small_checkpoint import write_small
from typer.testing import CliRunner

from llmtrap.cli import app
from llmtrap.report.json import write_json

Invoke = Callable[..., Any]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command here, in an empty folder, with its journals apart from the user's."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str | Path) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One layer, four matrices."""
    return write_small(tmp_path / "small", layers=1)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report with traps, as a file."""
    write_json(documents.trapped(), tmp_path / "report.json")
    return tmp_path / "report.json"
