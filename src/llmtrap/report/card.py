"""The model card's snippet: YAML metadata as the hub reads it, and a table of ten lines."""

from __future__ import annotations

from llmtrap.printable import quoted
from llmtrap.report.document import Report
from llmtrap.report.formatting import fixed, plural
from llmtrap.report.markdown import code
from llmtrap.report.verdict import judge
from llmtrap.report.worst_rows import notable_rows

LINES = 10
"""Rows of the table: facts first, then the worst matrices."""


def to_model_card(report: Report) -> str:
    """What to put into a model's README.md: the metadata at its top, the section in its text.

    The metadata are a `model-index` entry: the hub reads `llmtrap` there as the task of a result without a dataset.
    """
    return f"{_metadata(report)}\n{_section(report)}"


def _metadata(report: Report) -> str:
    summary = report.summary
    metrics = [
        ("matrices_with_traps", "Matrices with Correlation Traps", summary.with_traps),
        ("matrices", "Matrices measured", summary.matrices),
        ("alpha_median", "Median HTSR alpha", summary.alpha.median),
        ("alpha_below_2", "Matrices with alpha below 2", summary.alpha.over),
    ]
    lines = ["---", "tags:", "- llmtrap", "model-index:", f"- name: {quoted(report.target.name)}", "  results:",
             "  - task:", "      type: weight-audit", "      name: Weight audit (llmtrap)",
             "    dataset:", "      type: none", "      name: none, weights only", "    metrics:"]  # fmt: skip
    for key, name, value in metrics:
        if value is not None:
            lines += [f"    - type: {key}", f"      name: {name}", f"      value: {round(value, 4)}"]
    return "\n".join([*lines, "---", ""])


def _section(report: Report) -> str:
    summary, answers = report.summary, judge(report)
    facts = [
        ("Verdict", answers.word),
        ("Matrices with traps", f"{summary.with_traps:,} of {plural(summary.matrices, 'matrix')}"),
    ]
    if summary.alpha.median is not None:
        facts.append(("α, median", f"{fixed(summary.alpha.median)}; {summary.alpha.over:,} below 2"))
    share = report.coverage.share
    if share is not None:
        facts.append(("Measured", f"{share:.2%} of the parameters"))
    when = f", {report.run.finished[:10]}" if report.run is not None else ""
    facts.append(("By", f"llmtrap {code(report.tool.version)}{when}"))
    worst = notable_rows(report.matrices, LINES - len(facts))
    rows = [f"| {name} | {text} |" for name, text in facts]
    rows += [f"| {code(row.name, 80)} | α {_cell(row.alpha)}, traps {_cell(row.traps)}: {_cell(row.why)} |"
             for row in worst]  # fmt: skip
    return "\n".join(["## Weight audit", "", "| | |", "|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
