"""On a terminal the table of a run is one table, drawn anew as it grows."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.runs import GROWING, write_run
from typer.testing import CliRunner

from llmtrap.cli import app

ERASED = "\x1b[2K"


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.chdir(tmp_path)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=7, markup=False, emoji=False, highlight=False)
    for module in ("points", "live_points"):
        monkeypatch.setattr(f"llmtrap.cli.{module}.output", lambda: console)
    return screen


@pytest.mark.parametrize(
    ("command", "code"),
    [(("watch", "run", "--once", "--settle", "0", "--keep-going"), 1), (("trajectory", "run"), 0)],
    ids=["watch", "trajectory"],
)
def test_it_grows_in_place_and_stays_whole_at_the_end(
    tmp_path: Path, terminal: io.StringIO, command: tuple[str, ...], code: int
) -> None:
    write_run(tmp_path / "run", 5)
    done = CliRunner().invoke(app, [*command, "--no-alpha", "--workers", "1", "--journal", "j"])
    assert done.exit_code == code, done.output
    drawn = terminal.getvalue()
    assert drawn.count(ERASED) > 10
    assert "checkpoint-300: 1/2 matrices" in drawn
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn[: drawn.rindex(ERASED)])
    assert f"300: new trap in {GROWING}: entry [7, 11]" in said
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn[drawn.rindex(ERASED) :])
    rows = [line.split()[:5] for line in last.replace("\r", "").splitlines() if line.strip()[:1].isdecimal()]
    # One of more lines than the screen has shows its last ones while it goes on, and all at the end.
    assert [row[0] for row in rows[:5]] == ["100", "200", "300", "400", "500"]
    assert rows[2][1:] == ["2", "30", "1", "1"]
