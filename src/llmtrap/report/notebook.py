"""A report in a few words or lines: its `repr`, and what a notebook shows of it."""

from __future__ import annotations

from html import escape

from llmtrap.printable import printable
from llmtrap.report.document import Matrix, Report
from llmtrap.report.facts import worst
from llmtrap.report.formatting import plural
from llmtrap.report.worst_rows import row

_NAME = 80
_WORST = 10
_STYLE = "text-align:left;padding:2px 10px 2px 0;white-space:nowrap"
_HEADS = ("Matrix", "Shape", "α", "Traps", "× edge", "Why")


def report_words(report: Report) -> str:
    """`<Report org/model: 211 matrices. VERDICT>`."""
    target = printable(report.target.name, _NAME)
    return f"<Report {target}: {plural(report.summary.matrices, 'matrix')}. {printable(report.summary.verdict)}>"


def matrix_words(matrix: Matrix) -> str:
    """`<Matrix layers.3.mlp.up 1536 × 576 BF16, α 3.20, traps 0>`, and why it stands out if it does."""
    cells = row(matrix)
    rows, columns = matrix.shape
    head = f"{printable(matrix.id, _NAME)} {rows} × {columns} {printable(matrix.encoding, _NAME)}"
    return f"<Matrix {head}, α {cells.alpha}, traps {cells.traps}{', ' + cells.why if cells.why else ''}>"


def report_html(report: Report) -> str:
    """The verdict and the ten worst matrices, in the notebook's own style."""
    shown = worst(report.matrices, _WORST)
    head = "".join(f'<th style="{_STYLE}">{name}</th>' for name in _HEADS)
    body = "".join(f"<tr>{''.join(_cells(matrix))}</tr>" for matrix in shown)
    more = len(report.matrices) - len(shown)
    left = f"<p>and {more:,} more: <code>report.to_dataframe()</code> has all, <code>report.save('r.html')</code> the "
    left += "whole page.</p>"
    name, verdict = printable(report.target.name, _NAME), printable(report.summary.verdict)
    return (
        f"<div><p><b>{escape(name)}</b>: {escape(verdict)}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{left if more else ''}</div>"
    )


def _cells(matrix: Matrix) -> list[str]:
    cells = row(matrix)
    rows, columns = matrix.shape
    texts = (printable(cells.name, _NAME), f"{rows} × {columns}", cells.alpha, cells.traps, cells.strength, cells.why)
    return [f'<td style="{_STYLE}">{escape(text)}</td>' for text in texts]
