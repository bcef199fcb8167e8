"""The README and the page of the command line say what `--help` says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.commands import commands, options

ROOT = Path(__file__).parents[2]
README, OPTIONS = ROOT / "README.md", ROOT / "docs" / "command-line.md"
ROW = re.compile(r"^\|(?P<option>(?:[^|\\]|\\.)+)\|")


def section(page: Path, title: str) -> list[str]:
    """The lines under a heading, up to the next."""
    text = page.read_text(encoding="utf-8")
    assert f"\n## {title}\n" in text, f"{page.name} has no section '{title}'"
    return re.split(r"\n## ", text.split(f"\n## {title}\n", 1)[1])[0].splitlines()


def rows(page: Path, title: str) -> list[str]:
    """The first cells of the section's first table, without its head."""
    found = [match["option"] for match in map(ROW.match, section(page, title)) if match]
    assert len(found) > 2
    return found[2:]


def test_the_audit_table_names_every_option_and_no_other() -> None:
    documented = re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(rows(OPTIONS, "`llmtrap audit`")))

    assert len(documented) == len(set(documented))
    assert set(documented) == options("audit").keys()


def test_the_choices_in_the_table_are_the_choices_there_are() -> None:
    documented = dict(re.findall(r"(--[a-z-]+) ([a-z-]+(?:\\\|[a-z-]+)+)", " ".join(rows(OPTIONS, "`llmtrap audit`"))))
    there_are = {name: list(option.choices) for name, option in options("audit").items() if option.choices}

    assert {name: words.split("\\|") for name, words in documented.items()} == there_are


def test_the_table_of_commands_names_every_command_and_no_other() -> None:
    documented = re.findall(r"`llmtrap ([a-z]+)", " ".join(rows(README, "What you can do")))

    assert set(documented) == commands().keys()


PAGES = [README, *(ROOT / "docs" / name for name in ("command-line.md", "quickstart.md", "what-to-do.md", "faq.md"))]
EXAMPLES = [
    line
    for page in PAGES
    for line in re.findall(r"^    llmtrap (.+?)(?: +#.*)?$", page.read_text("utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_is_a_command_with_options_that_exist(line: str) -> None:
    name, *arguments = line.split()

    known = options(name)
    for argument in arguments:
        if argument.startswith("--"):
            assert argument.partition("=")[0] in known


def test_every_link_is_absolute_and_leads_to_a_file_of_this_repository() -> None:
    text = README.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    place = re.compile(
        r"https://(?:github\.com/[\w-]+/llmtrap/blob|raw\.githubusercontent\.com/[\w-]+/llmtrap)/main/(.+)"
    )
    addresses = [one or other for one, other in links]
    inside = [match[1] for match in map(place.fullmatch, addresses) if match]
    assert [address for address in addresses if not address.startswith("https://")] == []
    assert len(inside) > 15
    assert [path for path in inside if not (ROOT / path).exists()] == []
