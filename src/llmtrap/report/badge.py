"""The badge: a small SVG with the verdict, for a README or a model card. It needs no server and no script."""

from __future__ import annotations

from xml.sax.saxutils import escape

from llmtrap.printable import printable
from llmtrap.report.document import Report, ReportLevel
from llmtrap.report.formatting import plural
from llmtrap.report.verdict import judge

# White text on each has a contrast of 4.5 or more.
_COLOURS: dict[ReportLevel, str] = {
    "usual": "#2e7d32", "unusual": "#a84300", "broken": "#b3261e", "partly_measured": "#5f6368",
    "nothing_measured": "#5f6368",
}  # fmt: skip
_LABEL = "llmtrap"
_WIDTH, _PAD = 6.6, 7  # of a character of 11 px, and beside a text, in px


def to_badge(report: Report) -> str:
    """`llmtrap | no traps found`, as a picture 20 px high with its words as its title."""
    summary = report.summary
    words = printable(judge(report).word, 40).lower()
    if summary.level == "unusual" and summary.with_traps:
        words = f"traps in {summary.with_traps:,} of {plural(summary.matrices, 'matrix')}"
    left, right = (round(len(text) * _WIDTH + 2 * _PAD) for text in (_LABEL, words))
    title = escape(f"{_LABEL}: {words}")
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{title}">
<title>{title}</title>
<rect width="{left + right}" height="20" rx="3" fill="{_COLOURS[summary.level]}"/>
<path d="M3 0h{left - 3}v20H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" fill="#3c4043"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{left / 2:g}" y="14">{_LABEL}</text>
<text x="{left + right / 2:g}" y="14">{escape(words)}</text>
</g>
</svg>
"""
