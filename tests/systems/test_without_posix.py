"""Without what Windows lacks llmtrap is imported whole, and audits, carries on and gates in one process."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support import without_posix
from tests.support.processes import environment
from tests.support.small_checkpoint import write_small

SOURCE = Path(__file__).parents[2] / "src" / "llmtrap"
NOT_EVERYWHERE = without_posix.MODULES | {
    f"{module.__name__}.{name}" for module, names in without_posix.NAMES.items() for name in names
}  # fmt: skip


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder, and what the program said."""
    folder = tmp_path_factory.mktemp("without-posix")
    write_small(folder / "model")
    done = subprocess.run(
        [sys.executable, without_posix.__file__, str(folder)], env=environment(PYTHONWARNINGS="ignore"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_nothing_else_names_what_only_some_systems_have() -> None:
    """The program of a worker alone may: it is started where there are such."""
    named = {}
    for path in SOURCE.rglob("*.py"):
        inner = path.relative_to(SOURCE).as_posix()
        if inner.startswith("systems/") or inner == "processes/child.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {item.name for item in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = {f"{node.value.id}.{node.attr}"}
            if found := names & NOT_EVERYWHERE:
                named[f"{inner}:{node.lineno}"] = found
    assert named == {}


def test_every_module_is_imported(there: tuple[Path, dict[str, Any]]) -> None:
    assert there[1]["wrong"] == {}


def test_more_than_one_worker_is_refused_in_words(there: tuple[Path, dict[str, Any]]) -> None:
    code, words = there[1]["used"]["workers"]
    assert code == 2
    assert "--workers is at most 1 on this system" in words


def test_an_audit_is_carried_on_and_is_what_it_is_elsewhere(there: tuple[Path, dict[str, Any]]) -> None:
    folder, said = there
    assert said["used"]["part"][0] == 0, said["used"]["part"][1]
    code, words = said["used"]["audit"]
    assert code == 0, words
    report = json.loads((folder / "r.json").read_text())
    assert report["summary"]["remembered"]["matrices"] == 4
    assert len(report["matrices"]) == 8
    assert (folder / "r.html").stat().st_size > 10_000
    assert not list(folder.glob("**/*.part"))


@pytest.mark.parametrize("command", ["gate", "inspect"])
def test_other_commands(there: tuple[Path, dict[str, Any]], command: str) -> None:
    code, words = there[1]["used"][command]
    assert code == 0, words


def test_the_gate_believes_no_journal_whose_owner_cannot_be_told(there: tuple[Path, dict[str, Any]]) -> None:
    assert "whose it is cannot be told on this system" in " ".join(there[1]["used"]["gate"][1].split())


@pytest.mark.parametrize("command", ["verify", "calibrate"])
def test_what_needs_worker_processes_is_refused_in_one_line(there: tuple[Path, dict[str, Any]], command: str) -> None:
    """And not for an extra, which would be installed for nothing."""
    code, words = there[1]["used"][command]
    assert code == 2
    assert [line for line in words.splitlines() if line.startswith("llmtrap: ")] == [
        "llmtrap: this needs worker processes, which only POSIX systems have. Run it under Linux, macOS or WSL"
    ]
