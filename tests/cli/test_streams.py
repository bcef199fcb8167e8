"""Standard output and error that are full, closed, read no more, or shown by a CI runner."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support import documents, prepared
from tests.support.processes import LLMTRAP, environment, without_waiting

from llmtrap.report.json import to_json, write_json

VIOLATED = ("gate", "bad.json")
GOOD = ("report", "bad.json")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a report that the built-in policy refuses."""
    write_json(documents.trapped(), tmp_path / "bad.json")
    return tmp_path


def shell(place: Path, command: tuple[str, ...], redirected: str) -> tuple[int, str]:
    """The exit code of a command under bash, and what reached the terminal's place of standard error."""
    words = shlex.join([str(LLMTRAP), *command])
    done = subprocess.run(
        ["bash", "-c", f"{words} {redirected}; exit ${{PIPESTATUS[0]}}"], cwd=place, env=environment(),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, without_waiting(done.stderr)


@pytest.mark.parametrize(
    "redirected",
    [
        "2>&1 | true",
        ">&- 2>&- <&-",
        *(pytest.param(it, marks=pytest.mark.thorough) for it in ("> /dev/full 2> /dev/full", "2> >(:)")),
    ],
)
def test_no_reader_changes_a_verdict(place: Path, redirected: str) -> None:
    code, said = shell(place, VIOLATED, redirected)
    assert code == 1
    assert "fault in llmtrap" not in said


@pytest.mark.parametrize(
    ("redirected", "code", "words"),
    [
        ("| true", 0, ""),
        ("2> /dev/full", 0, ""),
        ("> /dev/full", 2, "llmtrap: standard output cannot be written (No space left on device). Send it"),
    ],
)
def test_what_could_not_be_shown_is_no_success_where_nobody_chose_so(
    place: Path, redirected: str, code: int, words: str
) -> None:
    got, said = shell(place, GOOD, redirected)
    assert got == code
    assert said.startswith(words) if words else said == ""


@pytest.mark.parametrize(("command", "code"), [(("--help",), 0), (("--version",), 0), (("gate", "--none"), 2)])
def test_what_the_parser_shows_ends_as_it_would_with_a_reader(place: Path, command: tuple[str, ...], code: int) -> None:
    assert shell(place, command, "2>&1 | true")[0] == code
    assert shell(place, command, "2>&1 | cat")[0] == code


@pytest.mark.parametrize("command", [("schema", "gate"), ("--version",), ("--help",)])
def test_a_full_disk_behind_the_output_is_called_that(place: Path, command: tuple[str, ...]) -> None:
    got, said = shell(place, command, ">/dev/full")
    assert got == 2
    assert "standard output cannot be written (No space left" in said


def test_an_audit_in_part_stays_one_when_its_reader_leaves(tmp_path: Path) -> None:
    good, bad = np.random.default_rng(0).standard_normal((2, 64, 64))
    bad[3, 4] = 1e200
    save_file({"good.weight": good, "bad.weight": bad}, tmp_path / "m.safetensors")
    code, said = shell(tmp_path, ("audit", "m.safetensors", "--json", "a.json", "--journal", "j"), "| true")
    assert code == 3
    assert "failed: bad: " in said


def test_no_stream_carries_a_runner_s_command_or_an_escape(tmp_path: Path) -> None:
    evil = "##[set-output name=outcome]passed ##vso[task.complete]\x1b[2J\r::error::x"
    target = tmp_path / "t"
    target.mkdir()
    (target / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0" + b'{"' + evil.encode()[:4] + b'":0}       ')
    commands = [
        ("report", evil), ("gate", evil), ("audit", evil), ("inspect", f"{target}/{evil}"), (evil,),
        ("audit", "--" + evil),
        ("report", evil, "--verbose"), ("merge", evil), ("report", "--index", evil), ("inspect", str(target)),
    ]  # fmt: skip
    surroundings = {"GITHUB_ACTIONS": "true", "HF_HUB_OFFLINE": "1"}
    ended = [prepared.run(*command, cwd=tmp_path, env=surroundings) for command in commands]
    shown = "".join(done.stdout for done in ended) + "".join(done.stderr for done in ended)
    assert not re.search(r"##\w*\[|^\s*::|[\x00-\x08\x0b-\x1f\x7f]", shown, re.MULTILINE), shown
    assert shown.count("## [set-output") >= len(commands) - 2
    assert "fault in llmtrap" not in shown


def test_json_holds_no_command_and_stays_the_same(tmp_path: Path) -> None:
    report = documents.trapped()
    evil = report.model_copy(update={"tool": report.tool.model_copy(update={"name": "a ##[stop-commands]x"})})
    text = to_json(evil)
    assert "##[" not in text
    assert json.loads(text)["tool"]["name"] == "a ##[stop-commands]x"
