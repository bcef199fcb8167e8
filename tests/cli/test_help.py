"""Every command's options, as they are documented and as `--help` shows them."""

from __future__ import annotations

import shlex

import pytest
import typer
from tests.support.commands import commands, options

from llmtrap.cli import help as help_
from llmtrap.cli.commands import app
from llmtrap.cli.examples import EXAMPLES
from llmtrap.cli.help import COMMAND_GROUPS
from llmtrap.version import __version__

COMMON_MEASURE = {
    "--traps", "--trap-rule", "--no-alpha", "--include", "--exclude", "--split-fused", "--shuffles", "--seed",
    "--device", "--backend", "--workers", "--revision",
}  # fmt: skip
SHARED = {"--csv", "--model-card", "--badge"}
REPORT_OUTPUTS = {"--json", "--html", "--markdown"} | SHARED
TALK = {"--quiet", "--verbose"}
OPTIONS = {
    "audit": COMMON_MEASURE | REPORT_OUTPUTS | TALK
    | {"--reference", "--demo", "--engine", "--stall-timeout", "--part", "--family", "--journal", "--fresh",
       "--download", "--subfolder", "--name", "--full-paths", "--no-digest"},
    "inspect": {"--include", "--exclude", "--split-fused", "--part", "--family", "--revision", "--subfolder", "--all",
                "--json", "--verbose"},
    "merge": REPORT_OUTPUTS | TALK | {"--name"},
    "report": SHARED | {"--html", "--markdown", "--against", "--ablation", "--reference", "--index",
                        "--verbose"},
    "reference": {"--out", "--name", "--verbose"},
    "verify": {"--matrices", "--part", "--family", "--seed", "--revision", "--subfolder", "--verbose"},
    "trajectory": COMMON_MEASURE - {"--split-fused", "--revision"} | TALK | {"--json", "--html", "--journal"}
    | {"--revisions", "--points", "--full-paths"},
    "watch": COMMON_MEASURE - {"--split-fused", "--revision"} | TALK | {"--json", "--html", "--journal", "--fresh"}
    | {"--full-paths", "--policy", "--keep-going", "--every", "--settle", "--idle", "--once"},
    "explain": set(),
    "schema": set(),
    "doctor": set(),
}  # fmt: skip
COMMANDS = {
    "audit", "inspect", "gate", "calibrate", "report", "reference", "explain", "merge", "verify", "schema", "doctor",
    "ablate", "repair", "trajectory", "watch",
}  # fmt: skip
CHOICES = {
    "--traps": ["auto", "measure", "certify"],
    "--trap-rule": ["tracy-widom", "weightwatcher"],
    "--backend": ["auto", "numpy", "cupy", "torch"],
    "--engine": ["local", "ray"],
}
DEFAULTS = {
    "--traps": "auto", "--trap-rule": "tracy-widom", "--no-alpha": False, "--split-fused": False, "--shuffles": 5,
    "--seed": 0, "--device": "auto", "--backend": "auto", "--engine": "local", "--fresh": False, "--download": False,
    "--workers": None, "--part": None, "--journal": None, "--revision": None,
}  # fmt: skip


def test_the_commands_are_these() -> None:
    assert commands().keys() == COMMANDS


@pytest.mark.parametrize("command", OPTIONS)
def test_the_options_are_these(command: str) -> None:
    assert options(command).keys() == OPTIONS[command]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_shows_every_option_with_a_word_on_each(command: str, invoke) -> None:  # type: ignore[no-untyped-def]
    shown = invoke(command, "--help")

    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "\x1b" not in shown.stdout
    for name, option in options(command).items():
        assert name in shown.stdout, name
        assert option.help, name
    assert commands()[command].__doc__
    assert invoke(command, "-h").stdout == shown.stdout


@pytest.mark.parametrize("columns", [80, 100])
def test_no_description_is_cut(columns: int, invoke, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in (*sorted(COMMANDS), ""):
        shown = invoke(*command.split(), "--help").stdout
        wanted = [option.help for option in options(command).values()] if command else map(first_sentences, COMMANDS)
        together = "".join(shown.split())
        for text in wanted:
            assert "".join(text.split()) in together, (command, text)
        assert max(map(len, shown.splitlines())) <= columns


def first_sentences(command: str) -> str:
    return (commands()[command].__doc__ or "").split("\n\n")[0].strip()


def test_a_terminal_has_the_same_drawn_by_rich(invoke, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COLUMNS", "100")
    plain = invoke("gate", "--help").stdout
    monkeypatch.setattr(help_, "is_drawn", lambda: True)
    drawn = invoke("gate", "--help").stdout
    assert "╭─ Where and how it runs ─" in drawn
    assert set(plain.replace(":\n", " ").split()) - set(drawn.split()) == set()


def test_options_are_shown_in_groups(invoke) -> None:  # type: ignore[no-untyped-def]
    shown = invoke("audit", "--help").stdout
    heads = ["Arguments", "Which weights", "What is measured", "What is written", "Where and how it runs", "General"]
    places = [shown.index(f"\n{head}:\n") for head in (*heads, "Examples")]
    assert places == sorted(places)
    assert "\nOptions:\n" not in shown
    assert sorted(name for names in COMMAND_GROUPS.values() for name in names) == sorted(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_two_examples_of_every_command_that_it_takes(command: str, invoke) -> None:  # type: ignore[no-untyped-def]
    shown = invoke(command, "--help").stdout
    assert len(EXAMPLES[command]) == 2
    for line, what in EXAMPLES[command]:
        assert f"llmtrap {line}\n" in shown
        assert what in " ".join(shown.split())
        name, *words = shlex.split(line.partition(" | ")[0])
        assert name == command
        typer.main.get_command(app).get_command(None, name).make_context(name, words)  # type: ignore[attr-defined,arg-type]


def test_the_choices_and_defaults_of_an_audit() -> None:
    found = options("audit")

    assert {name: list(option.choices) for name, option in found.items() if option.choices} == CHOICES
    assert {name: found[name].default for name in DEFAULTS} == DEFAULTS


def test_every_long_option_of_an_audit_has_its_variable() -> None:
    for name, option in options("audit").items():
        assert option.envvar == "LLMTRAP_" + name[2:].replace("-", "_").upper(), name


def test_the_version(invoke) -> None:  # type: ignore[no-untyped-def]
    shown = invoke("--version")
    assert (shown.exit_code, shown.stdout) == (0, f"llmtrap {__version__}\n")


def test_no_command_shows_the_help(invoke) -> None:  # type: ignore[no-untyped-def]
    shown = invoke()
    assert shown.exit_code == 2
    for command in COMMANDS:
        assert command in shown.output
