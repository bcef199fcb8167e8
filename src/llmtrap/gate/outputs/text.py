"""The text output: what the terminal and the log of a job show."""

from __future__ import annotations

from llmtrap.gate.document import Judgement
from llmtrap.gate.outputs.words import facts, sentence
from llmtrap.report.wording import number, plural, printable

LIMIT = 50


def to_text(judgement: Judgement, limit: int = LIMIT) -> str:
    """Verdict first, then findings worst first, then what it rests on. Every line starts with a word of our own.

    Args:
        judgement: the document.
        limit: the most findings to list.
    """
    lines = [printable(judgement.headline), ""]
    listed = [*judgement.errors, *judgement.warnings, *judgement.ignored]
    for finding in listed[:limit]:
        level = "ignored" if finding.ignored is not None else finding.level
        why = f" [ignored: {printable(finding.ignored, 200)}]" if finding.ignored is not None else ""
        lines.append(f"{level:<8}{finding.rule} {finding.name}: {sentence(finding)}{why}")
    if len(listed) > limit:
        lines.append(f"and {plural(len(listed) - limit, 'finding')} more: see --output json=FILE")
    if listed:
        lines.append("")
    lines += [f"{label:<13} {words}" for label, words in facts(judgement)]
    if judgement.updates:
        largest = judgement.updates[0]
        share = f", {number(100 * largest.relative, 2)} % of W" if largest.relative is not None else ""
        lines.append(
            f"{'largest ΔW':<13} {printable(largest.id, 120)}: ‖ΔW‖₂ {number(largest.spectral_norm)}, stable rank "
            f"{number(largest.stable_rank)}{share}"
        )
    lines += [f"{'note':<13} {printable(note)}" for note in judgement.notes]
    # The runner of GitHub Actions takes `##[…]` anywhere in a line for a command.
    return "\n".join(lines).replace("##[", "## [") + "\n"
