"""The terminal output: whole expected screens, 80 columns, plain lines in a pipe, names that steer no terminal."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from tests.support import documents
from tests.support.expected import assert_expected

from llmtrap.report.against import compare
from llmtrap.report.text import plain, show, to_text

EXPECTED = Path(__file__).parent / "expected"


@pytest.mark.parametrize("name", ["clean", "trapped", "over_trained", "partial", "empty", "broken", "hostile"])
def test_the_whole_screen(name: str) -> None:
    assert_expected(EXPECTED / f"{name}.txt", to_text(getattr(documents, name)()))


def test_the_whole_screen_against_a_base() -> None:
    report, base = documents.trapped(), documents.trapped_base()
    assert_expected(EXPECTED / "trapped_against_base.txt", to_text(report, compare(report, base)))


@pytest.mark.parametrize("width", [60, 80, 132])
@pytest.mark.parametrize("name", ["trapped", "hostile", "partial"])
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    text = to_text(getattr(documents, name)(), width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width


def test_a_pipe_gets_plain_lines_and_a_terminal_gets_colour() -> None:
    report = documents.trapped()
    pipe, screen = io.StringIO(), io.StringIO()
    show(report, Console(file=pipe, width=40))
    show(report, Console(file=screen, force_terminal=True, color_system="standard", width=80, no_color=False))
    assert pipe.getvalue() == plain(report)
    assert "\x1b[" in screen.getvalue()
    keys = [line.split("\t")[0] for line in pipe.getvalue().splitlines()]
    assert keys[:3] == ["target", "verdict", "found"]
    assert keys.count("matrix") == 5


def test_every_change_against_a_base_is_a_line_in_a_pipe() -> None:
    report, base = documents.trapped(), documents.trapped_base()
    lines = plain(report, compare(report, base)).splitlines()
    changes = [line.split("\t")[:2] for line in lines if line.startswith(("new", "stronger", "gone", "fell", "moved"))]
    assert changes == [
        ["new", "layers.0.mlp.down"],
        ["new", "layers.5.mlp.gate"],
        ["gone", "layers.6.mlp.up"],
        ["fell", "layers.11.attention.v"],
        ["moved", "layers.4.mlp.up"],
    ]


@pytest.mark.parametrize("render", [to_text, plain])
def test_no_name_steers_the_terminal(render: object) -> None:
    text = render(documents.hostile())  # type: ignore[operator]
    hidden = {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} - {"\n", "\t"}
    assert hidden == set()
