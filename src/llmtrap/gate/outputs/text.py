"""The text output: what the terminal and the log of a job show."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from llmtrap.gate.document import Judgement
from llmtrap.gate.outputs.phrases import facts, gap_words, sentence
from llmtrap.printable import break_commands
from llmtrap.report.formatting import number, plural, printable

LIMIT = 50
_LEVEL, _LABEL = 8, 14
"""Columns before a finding's words, and before a fact's."""


def to_text(judgement: Judgement, limit: int = LIMIT, width: int | None = None) -> str:
    """Verdict first, then findings worst first, then what it rests on. Every line starts with a word of our own.

    Args:
        judgement: the document.
        limit: the most findings to list.
        width: columns of the terminal that shows it; None leaves each finding and fact on one line, for `grep`.
    """
    text = "\n".join(wrapped for line in _lines(judgement, limit) for wrapped in _wrapped(*line, width))
    return break_commands(text) + "\n"


def _lines(judgement: Judgement, limit: int) -> Iterator[tuple[str, int]]:
    """Each line and where its words begin."""
    yield printable(judgement.headline), 0
    yield "", 0
    listed = [*judgement.errors, *judgement.warnings, *judgement.ignored]
    for finding in listed[:limit]:
        level = "ignored" if finding.ignored is not None else finding.level
        why = f" [ignored: {printable(finding.ignored, 200)}]" if finding.ignored is not None else ""
        yield f"{level:<{_LEVEL}}{finding.rule} {finding.name}: {sentence(finding)}{why}", _LEVEL
    if len(listed) > limit:
        yield f"and {plural(len(listed) - limit, 'finding')} more: see --output json=FILE", 0
    gaps = [item for item in judgement.not_judged if item.blocking]
    for item in gaps[:limit]:
        why = f" [ignored: {printable(item.ignored, 200)}]" if item.ignored is not None else ""
        yield f"{'open':<{_LEVEL}}{item.rule} {item.name}: not judged in {gap_words(item)}{why}", _LEVEL
    if listed or gaps:
        yield "", 0
    for label, words in _facts(judgement):
        yield f"{label:<{_LABEL}}{words}", _LABEL


def _facts(judgement: Judgement) -> Iterator[tuple[str, str]]:
    yield from facts(judgement)
    if judgement.updates:
        largest = judgement.updates[0]
        share = f", {number(100 * largest.relative, 2)} % of W" if largest.relative is not None else ""
        yield (
            "largest ΔW",
            f"{printable(largest.id, 120)}: ‖ΔW‖₂ {number(largest.spectral_norm)}, stable rank "
            f"{number(largest.stable_rank)}{share}",
        )
    for note in judgement.notes:
        yield "note", printable(note)


def _wrapped(line: str, indent: int, width: int | None) -> list[str]:
    """A line cut between words, its rest under where its words begin."""
    if width is None or len(line) <= width:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent=" " * indent, break_on_hyphens=False, drop_whitespace=True)
