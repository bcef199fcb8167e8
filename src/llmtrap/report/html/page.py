"""The HTML output: one file that opens from disk, asks the network for nothing, and reads without scripts."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from llmtrap.report import formatting as wording
from llmtrap.report import verdict, worst_rows
from llmtrap.report.actions import actions, where_to_run
from llmtrap.report.against import CHANGED, Comparison, changed_first
from llmtrap.report.calibrated import calibrated
from llmtrap.report.command import audit_command
from llmtrap.report.comparison_text import (
    against_words,
    alpha_shift_words,
    judge_against,
    shift_words,
    trap_change_words,
)
from llmtrap.report.coverage import share_words
from llmtrap.report.document import Coverage, Matrix, Report
from llmtrap.report.documentation import page_address
from llmtrap.report.explanations import EXPLANATIONS, OF_FINDING, page_of
from llmtrap.report.facts import is_notable, tally, worst
from llmtrap.report.html import assets
from llmtrap.report.html.leading_section import LeadingSection
from llmtrap.report.html.payload import LONGEST_NAME, alpha_bands, payload, script_json
from llmtrap.report.write import write_whole

# How many matrices are listed where they cannot be scrolled: under the verdict, and without scripts.
FIRST_LOOK = 8
WITHOUT_SCRIPTS = 2000


@cache
def environment() -> Environment:
    """Templates that escape everything, and fail on a name they were not given."""
    made = Environment(
        loader=PackageLoader("llmtrap.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "name": lambda text, limit=LONGEST_NAME: wording.printable(text, limit),
        "number": wording.number,
        "fixed": wording.fixed,
        "size": wording.size,
        "some": wording.name_some,
        "share": share_words,
        "duration": wording.duration,
        "plural": wording.plural,
        "shift": alpha_shift_words,
    }
    return made


def to_html(report: Report, comparison: Comparison | None = None, ahead: LeadingSection | None = None) -> str:
    """The whole page.

    Args:
        report: the document.
        comparison: the same report against its base, if there is one.
        ahead: a section to stand first.
    """
    todo = actions(report, comparison)
    order = changed_first(report.matrices, comparison)
    scripts = {"theme": assets.theme_script(), "plotly": assets.basic_plotly_script(), "page": assets.page_script()}
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            tool=report.tool,
            ahead=ahead,
            answers=judge_against(report, comparison),
            lead=_lead(report, comparison),
            words=verdict,
            bands=alpha_bands(report),
            todo=todo,
            where=where_to_run(report, todo),
            explanations=EXPLANATIONS,
            of_finding=OF_FINDING,
            page_of=page_of,
            page_address=page_address,
            calibrated=calibrated(),
            counts=tally(report.matrices),
            against=_against(comparison),
            places={report.matrices[index].id: place for place, index in enumerate(order)},
            command=audit_command(report),
            first_look=_rows([m for m in worst(report.matrices, FIRST_LOOK) if is_notable(m)], comparison),
            notable=sum(is_notable(m) for m in report.matrices),
            static_rows=_rows([report.matrices[index] for index in order[:WITHOUT_SCRIPTS]], comparison),
            skipped=_by_reason(report.coverage),
            held=sum(file.bytes for file in report.target.files),
            csp=content_security_policy(*(script.digest for script in scripts.values())),
            style=assets.style(),
            scripts=scripts,
            data=Markup(script_json(payload(report, comparison))),  # noqa: S704 - script_json leaves no <, > or &
        )
    )


def content_security_policy(*digests: str) -> str:
    """Nothing from the network, and no script but those with these hashes.

    Styles may be inline, since Plotly writes its own; with no network there is nothing that a style could fetch.
    """
    sources = " ".join(f"'{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {sources or chr(39) + 'none' + chr(39)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def write_html(report: Report, path: Path, comparison: Comparison | None = None, *, within: Path | None = None) -> None:
    """Write the HTML output, whole or not at all; `within` as for `write_whole`.

    Raises:
        OutputError: it could not be written.
    """
    write_whole(path, to_html(report, comparison).encode("utf-8", "backslashreplace"), within=within)


def _lead(report: Report, comparison: Comparison | None) -> str:
    """The first sentence of the page: short, since what was found stands below it."""
    answers, used = judge_against(report, comparison), report.summary.reference
    grave = [finding for finding in report.findings if finding.weight == "unusual"]
    if comparison is not None or report.summary.level != "unusual" or not grave or used is None:
        return answers.lead
    ids = dict.fromkeys(name for finding in grave for name in finding.matrices)
    more = max(len(ids), *(finding.count for finding in grave)) - 1
    first = wording.printable(next(iter(ids)), 120)
    others = f" and {wording.plural(more, 'matrix')} more" if more else ""
    return f"{first}{others}: unlike any of {wording.plural(used.lineages, 'published model')}."


def _rows(matrices: list[Matrix], comparison: Comparison | None) -> list[dict[str, Any]]:
    rows = []
    for matrix in matrices:
        shift = comparison.shifts.get(matrix.id) if comparison is not None else None
        cells, sentence = worst_rows.row(matrix), verdict.finding(matrix)
        rows.append({"cells": cells, "sentence": sentence, "matrix": matrix, "change": shift_words(shift)})
    return rows


def _against(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    changes = {change: comparison.of(change) for change in CHANGED}
    words = {"lead": trap_change_words(comparison), "words": against_words(comparison)}
    return {"it": comparison, **words, "changes": changes, "fell": comparison.fell}


def _by_reason(coverage: Coverage) -> list[tuple[str, list[str]]]:
    """The tensors that were not audited, by reason, the commonest first."""
    common = Counter(item.reason for item in coverage.skipped)
    items = sorted(coverage.skipped, key=lambda item: (-common[item.reason], item.reason))
    return [(reason, [item.tensor for item in group]) for reason, group in groupby(items, key=lambda item: item.reason)]
