"""The one place that makes text from files fit to be shown."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmtrap.printable import break_commands, printable, quoted

# What a runner takes for a command: GitHub's and Azure's anywhere in a line, GitHub's newer ones at its beginning.
COMMAND = re.compile(r"##\w*\[|::")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model.layers.0.q_proj", "model.layers.0.q_proj"),
        ("größe.层", "größe.层"),
        ("a\x1b[31mb\r\n\t", "a\\x1b[31mb\\r\\n\\t"),
        ("left\u202eright", "left\\u202eright"),
        ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
        ("file\udcff", "file\\udcff"),
        ("line\u2028separator", "line\\u2028separator"),
        ("no\u00a0break", "no\\xa0break"),
        ("\u3164filler\u2800", "\\u3164filler\\u2800"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("##[set-output name=a]b", "## [set-output name=a]b"),
        ("x ##vso[task.complete]", "x ##vso [task.complete]"),
        ("####[[", "#### [["),
        ("::error::x", ": :error: :x"),
        (":::", ": : :"),
        ("", ""),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(max_size=400) | st.text(alphabet="#[:vso\x1b\u202e.", max_size=60), st.integers(8, 100) | st.none())
def test_nothing_shown_steers_anything(text: str, limit: int | None) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert not COMMAND.search(shown)
    assert limit is None or len(shown) <= limit + shown.count(" ")


def test_a_long_text_is_cut_in_the_middle_and_at_no_cost() -> None:
    assert printable("a" * 50 + "b" * 50, 11) == "aaaaa…bbbbb"
    assert printable("\x1b" * 100_000_000, 9) == "\\x1b…\\x1b"


@given(st.text(alphabet="#[:v] ", max_size=12), st.text(alphabet="#[:v] ", max_size=12))
def test_what_was_broken_stays_a_beginning(first: str, second: str) -> None:
    begun = break_commands(first)
    assert break_commands(begun) == begun
    assert break_commands(begun + second).startswith(begun)


@pytest.mark.parametrize(
    "text", ["plain", 'a "b" \\ c', "line\nand\ttab", "\x00\x1b[31m\x7f\x85", "a\u202eb\u2028", "é模\N{ROCKET}"]
)
def test_a_quoted_text_is_read_back_by_toml_and_by_yaml(text: str) -> None:
    written = quoted(text)
    assert all(character.isprintable() for character in written)
    assert tomllib.loads(f"key = {written}") == {"key": text}
    assert yaml.safe_load(f"key: {written}") == {"key": text}
