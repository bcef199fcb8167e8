"""Text out of files of unknown origin, made fit to be shown: on a terminal, in a CI log, in every output."""

from __future__ import annotations

import re

# Letters and symbols that `str.isprintable` passes and that show as nothing: fillers, a joiner, variation selectors.
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef"
_PLAIN = re.compile(rf"[^{_BLANK}]*")
# `##[…]` and `##vso[…]` are commands anywhere in a line (GitHub's runner, Azure's agent), `::` at its beginning.
_BRACKET = re.compile(r"(##\w*)\[")
_COLONS = re.compile(r":(?=:)")


def printable(text: str, limit: int | None = None) -> str:
    r"""A text from a file, fit to be shown: what is invisible, or steers a terminal or a CI runner, is broken.

    Control characters (ANSI escapes among them), direction marks, zero-width and blank characters, line separators
    and lone surrogates become `\x1b`-like escapes; `##[`, `##vso[` and `::` get a space between. A backslash stays as
    it is: this is for reading, not for parsing back.

    Args:
        text: the text as the file has it.
        limit: the most characters to return; the middle of a longer text is replaced by an ellipsis.
    """
    if limit is not None and len(text) > 2 * limit + 2:
        text = f"{text[: limit + 1]}{text[-limit - 1 :]}"  # escapes only lengthen: what lies between is never shown
    text = break_commands(escaped(text))
    if limit is None or len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return break_commands(text[:head] + "…" + text[len(text) - (limit - 1 - head) :])


def break_commands(text: str) -> str:
    """The text without anything that a CI runner takes for a command; what stands before a break is unchanged."""
    if "##" in text:
        text = _BRACKET.sub(r"\1 [", text)
    return _COLONS.sub(": ", text) if "::" in text else text


def break_commands_in_json(text: str) -> str:
    r"""The same document with `##` written as `#\u0023`, so that a runner that shows it finds no command in it."""
    return text.replace("##", "#\\u0023")


def escaped(text: str) -> str:
    """The text with every character spelled out that cannot be seen."""
    if text.isascii() and text.isprintable():
        return text
    if text.isprintable() and _PLAIN.fullmatch(text):
        return text
    return "".join(c if c.isprintable() and _PLAIN.fullmatch(c) else _escape(ord(c)) for c in text)


def _escape(code: int) -> str:
    if code in _SHORT:
        return _SHORT[code]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_SHORT = {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def quoted(text: str) -> str:
    """A text as a double-quoted string, which TOML and YAML read back alike; what cannot be seen is escaped."""
    return '"' + "".join(_quoted_character(character) for character in text) + '"'


def _quoted_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"
