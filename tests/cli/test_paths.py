"""No command prints or stores a path of this machine beyond its last part, unless it is asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.small_checkpoint import write_small

QUICK = ("--no-alpha", "--traps", "certify", "--workers", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name is nobody's business, with a model and a run of two checkpoints."""
    place = tmp_path_factory.mktemp("nobodys-business")
    for name in ("model", "run/checkpoint-1", "run/checkpoint-2"):
        write_small(place / name, layers=1)
    return place


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        ("audit", "{}/model", *QUICK, "--json", "a.json", "--html", "a.html", "--markdown", "a.md", "--csv", "a.csv"),
        ("trajectory", "{}/run", *QUICK, "--json", "t.json", "--html", "t.html"),
        ("watch", "{}/run", *QUICK, "--once", "--settle", "0", "--json", "w.json", "--html", "w.html"),
    ],
    ids=lambda command: command[0],
)
def test_a_path_is_stored_only_where_it_is_asked_for(
    invoke: Any, place: Path, command: tuple[str, ...], full: bool
) -> None:
    done = invoke(*(word.format(place) for word in command), *(["--full-paths"] if full else []))
    assert done.exit_code == 0, done.output
    written = [path for path in Path().rglob("*") if path.is_file()]
    holding = {path.suffix for path in written if "nobodys-business" in path.read_text(encoding="utf-8")}
    assert len(written) >= 2
    assert (".json" in holding) == full
    if not full:
        assert holding == set()
        assert "nobodys-business" not in done.output


def test_a_gate_stores_and_prints_last_parts(invoke: Any, place: Path) -> None:
    forms = ("text", "json", "markdown", "sarif", "junit", "github", "html")
    outputs = [word for form in forms for word in ("--output", f"{form}=g.{form}")]
    done = invoke("gate", place / "model", "--baseline", place / "run/checkpoint-1", "--workers", "1", *outputs)
    assert done.exit_code == 0, done.output
    written = [path for path in Path().rglob("g.*") if path.is_file()]
    assert len(written) == len(forms)
    for path in written:
        assert "nobodys-business" not in path.read_text(encoding="utf-8"), path
    assert "nobodys-business" not in done.output
