"""Write docs/validity.md and its figures from the results."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scipy import optimize

from llmtrap.spectra.certificate import predicted_outlier
from llmtrap.spectra.tracy_widom import EdgeLaw, quantile_of_survival
from llmtrap.spectra.traps import edge_z
from studies.validity import figures
from studies.validity.tracy_widom_exact import survival
from studies.validity.work import RESULTS, interval, upper_limit

PAGE = Path(__file__).parents[2] / "docs" / "validity.md"
Results = list[dict[str, Any]]
SHAPES = (
    (64, 64), (256, 64), (256, 256), (512, 128), (512, 512), (2048, 512), (2048, 2048), (5760, 2880), (14336, 4096),
    (201_088, 2880),
)  # fmt: skip


def write() -> None:
    """Draw the figures and fill in the page."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    figures.draw_all(results)
    environment = Environment(  # noqa: S701 - Markdown of our own numbers
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "shape": _shape,
        "share": _share,
        "rate": _rate,
        "fixed": _fixed,
        "thousands": _thousands,
        "counts": _counts,
    }
    template = environment.get_template("validity.md.j2")
    edge = quantile_of_survival(1e-6)
    page = template.render(
        **results, edge=edge, exact=survival(edge), interval=interval, upper_limit=upper_limit,
        expected={str(z): survival(z) for z in (2.0, 3.0, 4.0, 5.0)},
        noise=_noise_summary(results["noise_bands"]),
        null=_null_summary(results["false_positives"]), gaussian=_gaussian_summary(results["gaussian_edge"]),
        sound=_sound_summary(results), told=_told_summary(results["prediction"], edge), onset=_onset(results["power"]),
        needed=_needed("tracy-widom"), needed_strict=_needed("weightwatcher"),
    )  # fmt: skip
    PAGE.write_text(page + "\n")


def _noise_summary(cells: Results) -> dict[str, Any]:
    """How many matrices of noise were called well or over trained, by the fit alone and in a report."""

    def called(cell: dict[str, Any], how: str) -> int:
        return int(cell[how].get("well", 0) + cell[how].get("over", 0))

    laws = list(dict.fromkeys(cell["law"] for cell in cells))
    rows = [
        {
            "law": law,
            "cells": [{**cell, "alone": called(cell, "fitted"), "told": called(cell, "reported")} for cell in of_law],
        }
        for law in laws
        for of_law in [[cell for cell in cells if cell["law"] == law]]
    ]
    return {
        "rows": rows,
        "shapes": [cell["shape"] for cell in rows[0]["cells"]],
        "draws": sum(cell["draws"] for cell in cells),
        "told": sum(called(cell, "reported") for cell in cells),
        "alone": sum(called(cell, "fitted") for cell in cells),
        "random": sum(cell["reported"].get("random", 0) for cell in cells),
    }


def _gaussian_summary(cells: Results) -> dict[str, Any]:
    draws, traps = sum(c["draws"] for c in cells), sum(c["traps"] for c in cells)
    return {"draws": draws, "traps": traps, "rate": traps / draws, "interval": interval(traps, draws)}


def _null_summary(cells: Results) -> dict[str, Any]:
    """By law, over all shapes: how many traps, and of them how many in certified matrices."""
    by_law: dict[str, dict[str, Any]] = {}
    for cell in cells:
        law = by_law.setdefault(
            cell["law"],
            {"draws": 0, "traps": 0, "certified": 0, "certified_traps": 0, "largest_certified": None, "beyond": {}},
        )
        for key in ("draws", "traps", "certified", "certified_traps"):
            law[key] += cell[key]
        for level, count in cell["beyond"].items():
            law["beyond"][level] = law["beyond"].get(level, 0) + count
        if cell["largest_certified"] is not None:
            law["largest_certified"] = max(law["largest_certified"] or -9.0, cell["largest_certified"])
    total = {
        key: sum(law[key] for law in by_law.values()) for key in ("draws", "traps", "certified", "certified_traps")
    }
    shapes = list(dict.fromkeys(tuple(c["shape"]) for c in cells))
    return {"laws": by_law, "shapes": shapes, **total}


def _sound_summary(results: dict[str, Results]) -> dict[str, Any]:
    searched, families = results["soundness"], results["families"]
    return {
        "matrices": sum(c["matrices"] for c in [*searched, *families]),
        "shuffles": sum(c["shuffles"] for c in [*searched, *families]),
        "traps": sum(c["traps_in_search"] + c["winner"]["traps"] for c in searched) + sum(c["traps"] for c in families),
        "largest": max(
            *(max(c["largest_in_search"], c["winner"]["largest_z"]) for c in searched),
            *(c["largest_z"] for c in families if c["largest_z"] is not None),
        ),
        "worst_mean": max(
            *(c["winner"]["mean_z"] for c in searched),
            *(c["worst_mean_z"] for c in families if c["worst_mean_z"] is not None),
        ),
    }


def _told_summary(cells: Results, edge: float) -> dict[str, Any]:
    made = [cell for cell in cells if cell["shuffles"]]
    # The z of several entries is that of the largest: it says nothing of the smallest.
    single = [cell for cell in made if cell["what"] != "entries"]
    if any(cell["fewer"] for cell in single):
        raise ValueError("a single predicted trap was missing in a shuffle: the page would say otherwise")
    return {
        **{key: sum(cell[key] for cell in made) for key in ("shuffles", "fewer", "fewer_together", "more")},
        "margin": min(cell["least_z"] for cell in single) - edge,
    }


def _needed(rule: str) -> dict[str, float]:
    """The ratio at which the predicted outlier of one entry, or of the mean, stands on the rule's edge."""
    return {_shape(list(shape)): _ratio_on_edge(shape, rule) for shape in SHAPES}


def _ratio_on_edge(shape: tuple[int, int], rule: str) -> float:
    n, m = shape
    edge = EdgeLaw.of(n, m).eigenvalue(edge_z(rule, shape))

    def excess(ratio: float) -> float:
        return n * predicted_outlier(ratio**2 * math.sqrt(m / n), m / n) - edge

    return float(optimize.brentq(excess, 1.0, 10.0))


def _onset(cells: Results) -> list[dict[str, Any]]:
    """For each cause and shape, detection by ratio."""
    table: dict[tuple[str, tuple[int, ...]], dict[float, dict[str, Any]]] = {}
    for cell in cells:
        table.setdefault((cell["kind"], tuple(cell["shape"])), {})[cell["ratio"]] = cell
    return [{"kind": kind, "shape": shape, "ratios": ratios} for (kind, shape), ratios in table.items()]


def _shape(shape: list[int]) -> str:
    return f"{shape[0]} × {shape[1]}"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _counts(law: dict[str, int]) -> str:
    return ", ".join(f"{value}: {number}" for value, number in law.items())


def _rate(value: float) -> str:
    if value == 0:
        return "0"
    digits, exponent = f"{value:.1e}".split("e")
    superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits}·10{superscript}"


def _fixed(value: float | None, places: int = 2) -> str:
    return "–" if value is None else f"{value:.{places}f}".replace("-", "−")


def _thousands(value: int) -> str:
    return f"{value:,}"
