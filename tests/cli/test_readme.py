"""The README says of the command line what `--help` says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.commands import commands, options

README = Path(__file__).parents[2] / "README.md"
ROW = re.compile(r"^\|(?P<option>(?:[^|\\]|\\.)+)\|")


def section(title: str) -> list[str]:
    """The lines under a heading, up to the next."""
    text = README.read_text(encoding="utf-8")
    assert f"\n## {title}\n" in text, f"the README has no section '{title}'"
    return re.split(r"\n## ", text.split(f"\n## {title}\n", 1)[1])[0].splitlines()


def rows(title: str) -> list[str]:
    """The first cells of the section's first table, without its head."""
    found = [match["option"] for match in map(ROW.match, section(title)) if match]
    assert len(found) > 2
    return found[2:]


def test_the_audit_table_names_every_option_and_no_other() -> None:
    documented = re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(rows("`llmtrap audit`")))

    assert len(documented) == len(set(documented))
    assert set(documented) == options("audit").keys()


def test_the_choices_in_the_table_are_the_choices_there_are() -> None:
    documented = dict(re.findall(r"(--[a-z-]+) ([a-z-]+(?:\\\|[a-z-]+)+)", " ".join(rows("`llmtrap audit`"))))
    there_are = {name: list(option.choices) for name, option in options("audit").items() if option.choices}

    assert {name: words.split("\\|") for name, words in documented.items()} == there_are


def test_the_table_of_commands_names_every_command_and_no_other() -> None:
    documented = re.findall(r"`llmtrap ([a-z]+)", " ".join(rows("What you can do")))

    assert set(documented) == commands().keys()


@pytest.mark.parametrize("line", re.findall(r"^    llmtrap (.+?)(?: +#.*)?$", README.read_text("utf-8"), re.MULTILINE))
def test_every_example_is_a_command_with_options_that_exist(line: str) -> None:
    name, *arguments = line.split()

    known = options(name)
    for argument in arguments:
        if argument.startswith("--"):
            assert argument.partition("=")[0] in known
