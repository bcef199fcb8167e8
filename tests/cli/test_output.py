"""Where the output goes: pipes, narrow terminals, no colours, readers that leave, and the environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support import prepared
from tests.support.processes import LLMTRAP, Terminal, environment, run, without_waiting


@pytest.mark.parametrize("command", [("inspect",), ("inspect", "--all")])
def test_inspect_fits_eighty_columns_without_colours(invoke: Any, small: Path, command: tuple[str, ...]) -> None:
    shown = invoke(*command, small)

    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    # With --all in a pipe names are not wrapped, so that scripts find them whole.
    assert "--all" in command or all(len(line) <= 80 for line in shown.stdout.splitlines())
    for words in ("mlp.down", "64 × 128", "F32", "one-dimensional"):
        assert words in shown.stdout


def test_an_audit_in_a_pipe(small: Path, tmp_path: Path) -> None:
    done = run("audit", small, "--workers", "1", "--journal", tmp_path / "j", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    first, second, *_, last = done.stderr.splitlines()
    assert first == f"{small.name}: llama, F32, 1 file"
    assert second.startswith("4 matrices to measure, ")
    assert last.startswith("written: llmtrap-reports/small/report.json")
    assert {path.name for path in (tmp_path / "llmtrap-reports" / "small").iterdir()} == {
        "report.json", "report.html", "report.md",
    }  # fmt: skip
    assert json.loads((tmp_path / "llmtrap-reports/small/report.json").read_text())["coverage"]["audited"] == 4


def test_forced_colours_in_a_pipe_change_no_line(small: Path, report: Path, tmp_path: Path) -> None:
    """A CI service that sets FORCE_COLOR gets the same lines: none wrapped, no bar, no table in place of plain rows."""
    commands = (
        ("audit", small, "--workers", "1", "--journal", tmp_path / "j", "--json", "r.json", "--traps", "certify"),
        ("report", report),
        ("gate", "--report", report),
        ("inspect", small),
    )
    for command in commands:
        words = [*map(str, command), *(("--fresh",) if command[0] == "audit" else ())]
        plain, forced = (prepared.run(*words, cwd=tmp_path, env=env) for env in ({}, {"FORCE_COLOR": "1"}))
        assert forced.returncode == plain.returncode
        seen = [re.sub(r"\x1b\[[\d;]*m", "", shown) for shown in (forced.stdout, forced.stderr)]
        assert [timeless(text) for text in seen] == [timeless(text) for text in (plain.stdout, plain.stderr)]


def timeless(shown: str) -> str:
    """Without what differs from run to run."""
    return re.sub(r"[\d.]+ (ms|s|[kMG]?B(/s)?|GB of memory)\b", "#", shown)


def test_quiet_says_nothing(invoke: Any, small: Path) -> None:
    done = invoke("audit", small, "--quiet", "--workers", "1", "--json", "r.json")

    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert Path("r.json").is_file()
    assert not Path("llmtrap-reports").exists()


def test_no_color_is_obeyed_on_a_terminal(report: Path) -> None:
    colours = {}
    for no_color in ("", "1"):
        terminal = Terminal(["/usr/bin/env", f"NO_COLOR={no_color}", LLMTRAP, "report", report])
        assert terminal.wait() == 0
        colours[no_color] = bool(re.search(r"\x1b\[[\d;]*3[0-8]", terminal.output))
    assert colours == {"": True, "1": False}


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "REPORT"),
        ("schema",),
        *(pytest.param(it, marks=pytest.mark.thorough) for it in (("doctor",), ("--help",))),
    ],
)
def test_a_reader_that_leaves_hears_nothing(report: Path, arguments: tuple[str, ...]) -> None:
    words = [str(report) if word == "REPORT" else word for word in arguments]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [LLMTRAP, *words], stdout=writing, stderr=subprocess.PIPE, env=environment(), check=False, text=True
    )
    os.close(writing)

    assert without_waiting(done.stderr) == ""


def test_a_log_without_greek_letters_gets_marks_in_their_place(report: Path) -> None:
    done = run("report", report, env={"PYTHONIOENCODING": "ascii"})

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "verdict" in done.stdout


def test_the_environment_stands_for_the_options(invoke: Any, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "SEED": "7", "SHUFFLES": "3", "TRAPS": "certify", "TRAP_RULE": "weightwatcher", "NO_ALPHA": "1",
        "EXCLUDE": "*.mlp.*", "SPLIT_FUSED": "true", "WORKERS": "1", "JSON": "env.json", "QUIET": "1",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"LLMTRAP_{name}", value)
    done = invoke("audit", small, "--seed", "8")

    assert (done.exit_code, done.output) == (0, "")
    document = json.loads(Path("env.json").read_text())
    assert document["settings"] == {
        "traps": "certify", "trap_rule": "weightwatcher", "alpha": False, "include": [], "exclude": ["*.mlp.*"],
        "split_fused": True, "shuffles": 3, "seed": 8, "backend": "numpy",
    }  # fmt: skip
    assert len(document["matrices"]) == 2


def test_parts_say_how_to_join_them(invoke: Any, small: Path, tmp_path: Path) -> None:
    command = ("audit", small, "--traps", "certify", "--workers", "1", "--journal", tmp_path / "j")
    first = invoke(*command, "--part", "1/2")
    (journal,) = (tmp_path / "j").glob("*.jsonl")
    assert first.exit_code == 0
    assert f"part 1 of 2 is measured; when all are: llmtrap merge {journal}" in first.stderr

    early = invoke("merge", journal, "--json", "early.json")
    assert early.exit_code == 3
    assert invoke(*command, "--part", "2/2").exit_code == 0
    merged = invoke("merge", journal, "--json", "merged.json")
    assert merged.exit_code == 0
    assert json.loads(Path("merged.json").read_text())["coverage"]["audited"] == 4


def test_fresh_measures_again(invoke: Any, small: Path, tmp_path: Path) -> None:
    command = ("audit", small, "--traps", "certify", "--workers", "1", "--journal", tmp_path / "j", "--json", "r.json")
    assert "4 matrices to measure" in invoke(*command).stderr
    assert "0 matrices to measure" in invoke(*command).stderr
    assert "4 matrices to measure" in invoke(*command, "--fresh").stderr


def test_doctor_names_devices_libraries_threads_and_extras(invoke: Any) -> None:
    shown = invoke("doctor").stdout

    for words in ("numpy", "BLAS", "workers", "CUDA devices", "backend", "journals", "extra torch", "extra ray"):
        assert words in shown
