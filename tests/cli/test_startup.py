"""What is imported before the work begins: no more than it computes with, which is what a start costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.processes import run
from tests.support.small_checkpoint import write_small

# What shows things, judges them, reads a hub or trains is no part of measuring a matrix.
NOT_A_WORKER_S = {
    "rich", "typer", "jinja2", "plotly", "huggingface_hub", "torch", "ray", "psutil", "pebble", "multiprocessing.pool",
    "llmtrap.cli", "llmtrap.gate", "llmtrap.calibrate", "llmtrap.verify", "llmtrap.report.html", "llmtrap.audit.run",
    "llmtrap.audit.journal",
}  # fmt: skip


def imported(code: str) -> set[str]:
    """The modules that are there after some code."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(json.loads(shown.stdout.splitlines()[-1]))


def test_a_worker_imports_what_it_computes_with() -> None:
    assert imported("import llmtrap.audit.executors.worker") & NOT_A_WORKER_S == set()


def test_the_version_needs_none_of_the_program() -> None:
    code = (
        "import sys; from llmtrap.cli import main; sys.argv = ['llmtrap', '--version']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    found = imported(code)
    assert "llmtrap.cli.commands" in found
    assert found & {"numpy", "scipy", "pydantic", "rich", "llmtrap.audit", "llmtrap.cli.audit"} == set()


def test_nothing_is_imported_from_the_folder_that_is_audited(tmp_path: Path) -> None:
    """A stranger's repository may hold files named as modules are; a worker must not take them for Python's own."""
    folder = write_small(tmp_path / "model", layers=1)
    owned = tmp_path / "owned"
    names = ("multiprocessing", "pickle", "signal", "numpy", "llmtrap", "child", "serving", "sitecustomize", "psutil")
    for name in names:
        (folder / f"{name}.py").write_text(f"open({str(owned)!r}, 'w').write({name!r})\n")
    done = run("audit", ".", "--workers", "2", "--json", tmp_path / "r.json", "--journal", tmp_path / "j", cwd=folder)

    assert done.returncode == 0, done.stderr
    assert not owned.exists(), owned.read_text()
