"""Put the page together: template, figures, style, and the scripts that draw and nothing else."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from functools import cache
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from llmtrap.calibrate.document import Ablation, CalibrationReport, Check
from llmtrap.calibrate.formatting import percent, signed
from llmtrap.calibrate.page.figures import Figure, all_figures
from llmtrap.calibrate.phases import DROP, FITTED, GAP, NEAR_PEAK, PHASES, STILL_FITTED
from llmtrap.calibrate.separation import Interval
from llmtrap.report.html.assets import plotly_script, theme_script
from llmtrap.report.html.page import content_security_policy
from llmtrap.report.html.payload import script_json

_ASSETS = importlib.resources.files("llmtrap.calibrate.page") / "assets"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("llmtrap.calibrate.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": percent, "auc": _auc, "cell": _cell, "seconds": _seconds, "signed": signed}
    return made


def to_html(report: CalibrationReport) -> str:
    """The whole page: opens from disk, asks the network for nothing."""
    figures = all_figures(report)
    page_script = _ASSETS.joinpath("figures.js").read_text(encoding="utf-8")
    digest = "sha256-" + base64.b64encode(hashlib.sha256(page_script.encode()).digest()).decode()
    theme, plotly = theme_script(), plotly_script()
    return (
        _environment()
        .get_template("calibration.html.j2")
        .render(
            report=report,
            figures={figure.name: figure for figure in figures},
            curve_names=[figure.name for figure in figures if figure.name.startswith("curves-")],
            phases=PHASES,
            rules={"fitted": FITTED, "gap": GAP, "near": NEAR_PEAK, "drop": DROP, "still": STILL_FITTED},
            checks=_by_rule(report.checks),
            purposes={run.recipe.arm: run.recipe.purpose for run in report.runs},
            rates=[(arms, list(rows)) for arms, rows in groupby(report.rates, key=lambda row: row.arms)],
            arms=list(dict.fromkeys(run.recipe.arm for run in report.runs)),
            ablations={study.arm: _ablation_groups(study.ablations) for study in report.studies},
            style=Markup(_ASSETS.joinpath("calibration.css").read_text(encoding="utf-8")),  # noqa: S704 - own file
            theme=theme.text,
            plotly=plotly.text,
            page_script=Markup(page_script),  # noqa: S704 - a file of this package
            csp=content_security_policy(theme.digest, plotly.digest, digest),
            data=Markup(script_json(_payload(figures))),  # noqa: S704 - script_json leaves no <, > or &
        )
    )


def _payload(figures: list[Figure]) -> dict[str, Any]:
    return {figure.name: figure.plot for figure in figures}


def _by_rule(checks: tuple[Check, ...]) -> list[dict[str, Any]]:
    """One row a rule: how many runs meet it, and what was found in each."""
    rows = []
    for arm, rule in dict.fromkeys((check.arm, check.rule) for check in checks):
        members = [check for check in checks if (check.arm, check.rule) == (arm, rule)]
        rows.append(
            {
                "arm": arm,
                "rule": rule,
                "met": sum(check.passed for check in members),
                "of": len(members),
                "runs": members,
            }
        )
    return rows


def _ablation_groups(rows: tuple[Ablation, ...]) -> list[dict[str, Any]]:
    """The interventions on one trap side by side, in their order."""
    found = []
    for key, members in groupby(rows, key=lambda row: (row.phase, row.step, row.layer, row.cause, row.trap)):
        found.append(dict(zip(("phase", "step", "layer", "cause", "trap"), key, strict=True)) | {"rows": list(members)})
    return found


def _auc(interval: Interval | None) -> str:
    return "-" if interval is None else interval.words()


def _cell(cell: tuple[float, float, int] | None) -> str:
    if cell is None:
        return "-"
    mean, spread, runs = cell
    shown = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.3g}"
    return shown if runs < 2 else f"{shown} ± " + (f"{spread:,.0f}" if spread >= 100 else f"{spread:.2g}")


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
