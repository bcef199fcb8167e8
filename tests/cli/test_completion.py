"""Shell completion: installed by one command, and it knows the commands, the options and their words."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support.processes import LLMTRAP, environment
from typer.testing import CliRunner

from llmtrap.cli import app
from llmtrap.cli.commands import NAMES, function_of, words_of
from llmtrap.gate.outputs import OUTPUTS


def completed(line: str) -> list[str]:
    """What bash offers for the last word of a line."""
    position = len(line.split(" ")) - 1
    asked = {"_LLMTRAP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": f"{position}"}
    return CliRunner().invoke(app, [], prog_name="llmtrap", env=asked).stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("llmtrap ins", ["inspect"]),
        ("llmtrap audit --trap", ["--traps", "--trap-rule"]),
        ("llmtrap audit --traps ", ["auto", "measure", "certify"]),
        ("llmtrap audit model --engine ", ["local", "ray"]),
    ],
)
def test_it_knows_commands_options_and_words(line: str, offered: list[str]) -> None:
    assert completed(line) == offered


def test_the_names_come_with_the_words_of_the_help() -> None:
    asked = {"_LLMTRAP_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "llmtrap "}
    shown = CliRunner().invoke(app, [], prog_name="llmtrap", env=asked).stdout
    for name in NAMES:
        assert words_of(name) == inspect.getdoc(function_of(name))
        assert f'"{name}":"' in shown


def test_brackets_in_the_help_of_an_option_are_shown() -> None:
    asked = {"_LLMTRAP_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "llmtrap gate --acc"}
    assert "Write an [[ignore]] for each" in CliRunner().invoke(app, [], prog_name="llmtrap", env=asked).stdout


def test_the_gate_s_help_names_every_output() -> None:
    shown = " ".join(CliRunner().invoke(app, ["gate", "--help"]).stdout.split())
    assert f"FMT: {', '.join(OUTPUTS)}." in shown


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_it_is_installed_for_the_shell_in_use(tmp_path: Path) -> None:
    # A second command, so that the shell stays the parent and can be found out
    script = f'"{LLMTRAP}" --install-completion; echo "exit $?"'
    done = subprocess.run(
        ["bash", "-c", script], env=environment(HOME=f"{tmp_path}"), capture_output=True, text=True, check=True,
        timeout=120,
    )  # fmt: skip
    assert "bash completion installed" in done.stdout
    assert done.stdout.endswith("exit 0\n")
    (installed,) = [path for path in tmp_path.rglob("*.sh") if "llmtrap" in path.name]
    assert "_LLMTRAP_COMPLETE=complete_bash" in installed.read_text()
    assert os.fspath(installed) in (tmp_path / ".bashrc").read_text()
