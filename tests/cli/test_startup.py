"""What is imported before the work begins: no more than it computes with, which is what a start costs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.support.processes import LLMTRAP, environment, run, without_waiting
from tests.support.small_checkpoint import write_small

from llmtrap.cli import waiting
from llmtrap.cli.commands import NAMES

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


RUN = """
import os, sys
from llmtrap.cli import main
def call(*arguments, **asked):
    os.environ.update(asked)
    sys.argv = ["llmtrap", *arguments]
    try:
        main()
    except SystemExit:
        pass
"""
COMPUTING = {"numpy", "scipy", "safetensors", "plotly", "jinja2", "llmtrap.audit", "llmtrap.checkpoint"}


def test_the_version_needs_none_of_the_program() -> None:
    found = imported(f"{RUN}\ncall('--version')")
    assert found & {"pydantic", "rich", "llmtrap.report", "llmtrap.cli.audit", *COMPUTING} == set()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_s_completion_needs_none_of_the_program(shell: str) -> None:
    asked = f"_LLMTRAP_COMPLETE='complete_{shell}', _TYPER_COMPLETE_ARGS=line, COMP_WORDS=line, COMP_CWORD=position"
    of_names = f"{RUN}\ndef ask(line, position):\n    call({asked})\nask('llmtrap ', '1')"
    found = imported(of_names)
    assert found & {"pydantic", "rich", "llmtrap.report", "llmtrap.cli.audit", *COMPUTING} == set()

    of_options = f"for name in {NAMES}: ask(f'llmtrap {{name}} --', '2')\nask('llmtrap audit --traps ', '3')"
    found = imported(f"{of_names}\n{of_options}")
    assert {f"llmtrap.cli.{name}" for name in NAMES} <= found
    assert found & {"pydantic", "rich", "llmtrap.report", *COMPUTING} == set()


def test_help_needs_none_of_the_program() -> None:
    found = imported(f"{RUN}\nfor name in {NAMES}: call(name, '--help')")
    assert {f"llmtrap.cli.{name}" for name in NAMES} <= found
    assert found & {"rich", "llmtrap.report", *COMPUTING} == set()


@pytest.mark.parametrize(
    "command", ["gate", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("audit", "inspect", "report"))]
)
def test_a_command_that_only_begins_imports_no_distributions_and_nothing_that_draws(command: str) -> None:
    found = imported(f"{RUN}\ncall('{command}', 'none.json')")
    assert found & {"scipy.stats", "plotly", "torch", "transformers"} == set()
    assert command != "inspect" or found & {"jinja2", "llmtrap.report.html", "llmtrap.gate"} == set()


def test_inspect_imports_nothing_that_measures(tmp_path: Path) -> None:
    found = imported(f"{RUN}\ncall('inspect', {str(write_small(tmp_path / 'model', layers=1))!r})")
    assert "llmtrap.cli.inspect_tables" in found
    assert (
        found & {"scipy", "llmtrap.spectra.certificate", "llmtrap.spectra.measured", "llmtrap.report.document"} == set()
    )


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


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to this limit")
@pytest.mark.parametrize(
    "kilobytes", [389_000, *(pytest.param(k, marks=pytest.mark.thorough) for k in (300_000, 250_000, 150_000)), 100_000]
)
@pytest.mark.parametrize("command", [("gate", "none.json"), ("inspect", "none")])
def test_too_little_memory_to_start_is_the_machine_s_fault(kilobytes: int, command: tuple[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-c", f'ulimit -v {kilobytes}; exec "$@"', "x", str(LLMTRAP), *command],
        env=environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"llmtrap: {kilobytes:,} kB of address space are too few to load the libraries. "
        "Raise the limit (ulimit -v 390000 or more)\n"
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("ImportError('x.so: failed to map segment from shared object')", "no memory is left to load a library. Use"),
        ("MemoryError()", "no memory is left. Use"),
        ("OSError(24, 'Too many open files', 'x.so')", "x.so: too many files are open. Raise"),
        ("ImportError('no such module: x')", "ImportError: no such module: x. Install llmtrap anew"),
    ],
)
def test_a_library_that_does_not_load_is_no_verdict(error: str, words: str) -> None:
    code = (
        "import importlib.abc, sys\n"
        "class Failing(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == 'llmtrap.cli.gate': raise {error}\n"
        "sys.meta_path.insert(0, Failing())\n"
        "from llmtrap.cli import main; sys.argv = ['llmtrap', 'gate', 'x.json']\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    said = without_waiting(done.stderr)
    assert said.startswith(f"llmtrap: {words}")
    assert said.count("\n") == 1


def test_whoever_waits_is_told_what_for_until_the_command_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert waiting.FIRST_AFTER < 2
    monkeypatch.setattr(waiting, "_spoke", threading.Event())
    monkeypatch.setattr(waiting, "_stage", waiting.STARTING)
    waiting.tell_who_waits(["audit", "model", "-q"], 0.01)
    waiting.tell_who_waits(["audit", "model"], 0.05)
    told = ""
    while told.count("\n") < 2:
        told += capsys.readouterr().err
    waiting.spoke()
    assert set(told.splitlines()) == {f"llmtrap: {waiting.STARTING} …"}
