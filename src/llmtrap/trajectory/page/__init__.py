"""The trajectory as one HTML page that opens from disk and asks the network for nothing, in the audit page's style."""

from __future__ import annotations

import importlib.resources
from functools import cache
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup

from llmtrap.report.html import assets
from llmtrap.report.html.page import content_security_policy, environment
from llmtrap.report.html.payload import script_json
from llmtrap.report.write import write_whole
from llmtrap.trajectory.document import Trajectory, report_at
from llmtrap.trajectory.formatting import cause_words, headline, point_rows
from llmtrap.trajectory.page.payload import MOST_MATRICES, payload

# How many traps the table lists; the JSON has them all.
MOST_TRAPS = 500
_ASSETS = importlib.resources.files("llmtrap.trajectory.page") / "assets"


@cache
def _environment() -> Environment:
    """The audit page's templates and filters, and this page's."""
    base = environment()
    loaders = [PackageLoader("llmtrap.trajectory.page"), PackageLoader("llmtrap.report.html")]
    made = base.overlay(loader=ChoiceLoader(loaders))
    made.filters["cause"] = cause_words
    return made


def to_html(trajectory: Trajectory) -> str:
    """The whole page."""
    own = assets.inline_script(_ASSETS.joinpath("trajectory.js").read_text(encoding="utf-8"))
    scripts = {"theme": assets.theme_script(), "plotly": assets.plotly_script(), "page": own}
    last = report_at(trajectory, len(trajectory.points) - 1)
    return (
        _environment()
        .get_template("trajectory.html.j2")
        .render(
            run=trajectory,
            words=headline(trajectory),
            rows=list(zip(trajectory.points, point_rows(trajectory), strict=True)),
            traps=trajectory.traps[:MOST_TRAPS],
            matrices=len(last.matrices),
            most_matrices=MOST_MATRICES,
            measured=sum(point.measured for point in trajectory.points),
            unchanged=sum(point.unchanged for point in trajectory.points),
            failed=sum(len(point.coverage.failed) for point in trajectory.points),
            style=assets.style() + Markup(_ASSETS.joinpath("trajectory.css").read_text(encoding="utf-8")),  # noqa: S704
            tool=trajectory.tool,
            scripts=scripts,
            csp=content_security_policy(*(script.digest for script in scripts.values())),
            data=Markup(script_json(payload(trajectory))),  # noqa: S704 - script_json leaves no <, > or &
        )
    )


def write_page(trajectory: Trajectory, path: Path, *, within: Path | None = None) -> None:
    """Write the page, whole or not at all; `within` as for `write_whole`.

    Raises:
        OutputError: it could not be written.
    """
    write_whole(path, to_html(trajectory).encode("utf-8", "backslashreplace"), within=within)
