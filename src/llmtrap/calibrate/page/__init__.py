"""The calibration report as one self-contained HTML page, in the audit page's style."""

from __future__ import annotations

import importlib.resources
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup

from llmtrap.calibrate.document import CalibrationReport
from llmtrap.calibrate.page import tables
from llmtrap.calibrate.page.figures import all_figures
from llmtrap.calibrate.phases import DROP, FITTED, GAP, NEAR_PEAK, STILL_FITTED
from llmtrap.report.html import assets
from llmtrap.report.html.page import content_security_policy, environment
from llmtrap.report.html.payload import script_json

_ASSETS = importlib.resources.files("llmtrap.calibrate.page") / "assets"


@cache
def _environment() -> Environment:
    """The audit page's templates and filters, and this page's."""
    loaders = [PackageLoader("llmtrap.calibrate.page"), PackageLoader("llmtrap.report.html")]
    return environment().overlay(loader=ChoiceLoader(loaders))


def to_html(report: CalibrationReport) -> str:
    """The whole page: opens from disk, asks the network for nothing."""
    figures = all_figures(report)
    own = assets.inline_script(_ASSETS.joinpath("figures.js").read_text(encoding="utf-8"))
    scripts = {"theme": assets.theme_script(), "plotly": assets.plotly_script(), "page": own}
    return (
        _environment()
        .get_template("calibration.html.j2")
        .render(
            report=report,
            tool=report.tool,
            figures={figure.name: figure for figure in figures},
            rules={"fitted": FITTED, "gap": GAP, "near": NEAR_PEAK, "drop": DROP, "still": STILL_FITTED},
            arms={run.recipe.arm: run.recipe.purpose for run in report.runs},
            tables=tables,
            style=assets.style() + Markup(_ASSETS.joinpath("calibration.css").read_text(encoding="utf-8")),  # noqa: S704
            scripts=scripts,
            csp=content_security_policy(*(script.digest for script in scripts.values())),
            data=Markup(script_json({figure.name: figure.plot for figure in figures})),  # noqa: S704 - no <, > or &
        )
    )
