"""Figures of docs/validity.md, drawn from the results alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from llmtrap.spectra.tracy_widom import quantile_of_survival
from studies.validity.tracy_widom_exact import survival

Results = Sequence[dict[str, Any]]
FOLDER = Path(__file__).parents[2] / "docs" / "figures"
_STYLE = {"svg.hashsalt": "validity", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def draw_all(results: dict[str, Results]) -> None:
    """Write every figure as SVG, the same bytes from the same results."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        for name, figure in (
            ("null", _null(results["gaussian_edge"])),
            ("power", _power(results["power"])),
            ("soundness", _soundness([*results["soundness"], *results["families"]])),
            ("alpha", _alpha(results["exponent"])),
        ):
            figure.savefig(FOLDER / f"validity-{name}.svg", metadata={"Date": None}, bbox_inches="tight")


def _name(shape: Sequence[int]) -> str:
    return f"{shape[0]} × {shape[1]}"


def _null(cells: Results) -> Figure:
    figure = Figure(figsize=(6, 3.6))
    axes = figure.subplots()
    z = np.linspace(1.5, 7, 100)
    axes.semilogy(z, [survival(float(x)) for x in z], color="black", lw=1.5, label="Tracy–Widom, exact")
    for cell in cells:
        levels = [(float(x), count / cell["draws"]) for x, count in cell["beyond"].items() if count]
        axes.semilogy(*zip(*levels, strict=True), "o-", ms=3, lw=0.7, alpha=0.8, label=_name(cell["shape"]))
    axes.axvline(quantile_of_survival(1e-6), color="grey", ls=":")
    axes.set(xlabel="z of the largest shuffled eigenvalue", ylabel="share of matrices beyond z")
    axes.legend(fontsize=6, ncols=2, frameon=False)
    return figure


def _power(cells: Results) -> Figure:
    figure = Figure(figsize=(9, 3.2))
    titles = {"entry": "one entry", "mean_shift": "the mean", "heavy_tail": "many entries"}
    for axes, (kind, title) in zip(figure.subplots(1, 3, sharey=True), titles.items(), strict=True):
        mine = [c for c in cells if c["kind"] == kind]
        for shape in dict.fromkeys(tuple(c["shape"]) for c in mine):
            points = [(c["ratio"], c["found"] / c["draws"]) for c in mine if tuple(c["shape"]) == shape]
            axes.plot(*zip(*points, strict=True), "o-", ms=3, lw=1, label=_name(shape))
        axes.set(title=title, xlabel="ratio to the limit")
        axes.axvline(1, color="grey", ls=":")
    figure.axes[0].set(ylabel="share of matrices in which it is found")
    figure.axes[2].legend(fontsize=6, frameon=False)
    return figure


def _soundness(cells: Results) -> Figure:
    figure = Figure(figsize=(6, 3.4))
    axes = figure.subplots()
    shapes = list(dict.fromkeys(_name(c["shape"]) for c in sorted(cells, key=lambda c: c["shape"][0] * c["shape"][1])))
    for cell in cells:
        at = shapes.index(_name(cell["shape"]))
        searched = "winner" in cell
        largest = max(cell["largest_in_search"], cell["winner"]["largest_z"]) if searched else cell["largest_z"]
        mean = cell["winner"]["mean_z"] if searched else cell["worst_mean_z"]
        colour = "tab:red" if searched else "tab:blue"
        if largest is not None:
            axes.plot(at, largest, "v", color=colour, ms=5)
            axes.plot(at, mean, "_", color=colour, ms=9)
    axes.axhline(quantile_of_survival(1e-6), color="black", lw=1)
    axes.axhline(-1.21, color="grey", ls=":")
    axes.set_xticks(range(len(shapes)), shapes, rotation=40, ha="right", fontsize=7)
    axes.set(ylabel="z of certified matrices")
    axes.set_title(
        "red: evolved, blue: families; triangle: largest of all shuffles, dash: mean of the worst", fontsize=7
    )
    return figure


def _alpha(cells: Results) -> Figure:
    figure = Figure(figsize=(8, 3.2))
    left, right = figure.subplots(1, 2)
    mine = [c for c in cells if c["case"] == "body"]
    for size in dict.fromkeys(c["size"] for c in mine):
        part = [c for c in mine if c["size"] == size]
        exponents = [c["alpha"] for c in part]
        left.errorbar(
            exponents, [c["bias"] / c["alpha"] for c in part],
            yerr=[c["deviation"] / c["alpha"] for c in part], fmt="o-", ms=3, lw=1, capsize=2, label=f"n = {size}",
        )  # fmt: skip
        right.plot(exponents, [c["within_one_sigma"] for c in part], "o-", ms=3, lw=1, label=f"n = {size}")
    left.axhline(0, color="grey", ls=":")
    left.set(xlabel="planted α", ylabel="(found − planted) / planted", title="bias, and deviation of one matrix")
    right.axhline(0.683, color="grey", ls=":")
    right.set(xlabel="planted α", ylabel="share within one sigma", ylim=(0, 1), title="coverage of sigma")
    left.legend(fontsize=7, frameon=False)
    return figure
