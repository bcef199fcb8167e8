"""The Markdown output: for a step summary, a pull request or an issue."""

from __future__ import annotations

from llmtrap.gate.document import Finding, Judgement
from llmtrap.gate.outputs.phrases import NAME_LENGTH, facts, gap_words
from llmtrap.gate.rules import CHECKPOINT
from llmtrap.report.formatting import number, plural
from llmtrap.report.markdown import code, plain_text

LIMIT = 30
_WORDS = {"passed": "Passed", "violated": "Violated", "incomplete": "Not judged"}


def to_markdown(judgement: Judgement, limit: int = LIMIT) -> str:
    """Verdict, findings, updates and what it rests on, as GitHub-flavoured Markdown.

    Args:
        judgement: the document.
        limit: the most rows of a table.
    """
    parts = [f"# llmtrap gate: {_WORDS[judgement.outcome]}", _words(judgement.headline)]
    listed = [*judgement.errors, *judgement.warnings, *judgement.ignored]
    if listed:
        parts.append(
            "\n".join(["| level | rule | matrix | why |", "|---|---|---|---|", *(_row(f) for f in listed[:limit])])
        )
        if len(listed) > limit:
            parts.append(f"And {plural(len(listed) - limit, 'finding')} more.")
    gaps = [item for item in judgement.not_judged if item.blocking]
    if gaps:
        rows = [f"| {item.rule} {item.name} | {item.level} | {_words(gap_words(item))} |" for item in gaps[:limit]]
        parts += ["## Not judged", "\n".join(["| rule | level | where and why |", "|---|---|---|", *rows])]
    if judgement.updates:
        parts += ["## Largest changes", _updates(judgement, min(limit, 10))]
    parts += ["## What it rests on", "\n".join(f"- **{label}**: {_words(words)}" for label, words in facts(judgement))]
    if judgement.notes:
        parts.append("\n".join(f"- {_words(note)}" for note in judgement.notes))
    return "\n\n".join(parts) + "\n"


def _row(finding: Finding) -> str:
    level = f"ignored: {_words(finding.ignored)}" if finding.ignored is not None else finding.level
    name = code(finding.id, NAME_LENGTH) if finding.id is not None else CHECKPOINT
    return f"| {level} | {finding.rule} {finding.name} | {name} | {_words(finding.message)} |"


def _updates(judgement: Judgement, limit: int) -> str:
    lines = ["| matrix | ‖ΔW‖ / ‖W‖ | ‖ΔW‖₂ | stable rank of ΔW |", "|---|---|---|---|"]
    for update in judgement.updates[:limit]:
        share = "–" if update.relative is None else f"{number(100 * update.relative)} %"
        lines.append(
            f"| {code(update.id, NAME_LENGTH)} | {share} | {number(update.spectral_norm)} "
            f"| {number(update.stable_rank)} |"
        )
    return "\n".join(lines)


def _words(text: str) -> str:
    """A sentence of ours with names from files in it: nothing in it may open a tag, end a cell or call for a person."""
    return plain_text(text, None)
