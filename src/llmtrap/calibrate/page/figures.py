"""The page's figures, built with Plotly in Python and drawn by its script in the browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from llmtrap.calibrate.document import CalibrationReport, CaseStudy
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.measurement import Measurement
from llmtrap.calibrate.scores import score
from llmtrap.report.plot import staircase

# Okabe and Ito's colours, which the common kinds of colour blindness keep apart; marks differ in dash or symbol too.
_BLUE, _SKY, _ORANGE, _GREEN, _RED, _PURPLE = "#0072B2", "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
_GREY, _BROWN, _OLIVE = "#7a7f87", "#8C564B", "#8F8F00"
_PHASE_COLOURS = {"pre-grok": _BLUE, "grok": _GREEN, "anti-grok": _RED}
_GROUP_LOOKS = {
    "without weight decay": (_BLUE, "circle"), "with weight decay": (_ORANGE, "diamond"), "all": (_GREY, "square"),
}  # fmt: skip
_FAINT = "rgba(128,128,128,0.28)"
_ARMS_A_ROW = 3
# Nothing happens in the first steps of a run, and an α beyond this is as good as none.
_FIRST_SHOWN = 30
_LARGEST_ALPHA = 10.0
_PANELS = ("accuracy", "traps by cause", "α", "rivals / their largest")


@dataclass(frozen=True)
class Figure:
    """One figure: where it goes, what it shows in words, and Plotly's own description of it."""

    name: str
    caption: str
    height: int
    plot: dict[str, Any]


@dataclass(frozen=True)
class _Curve:
    """One quantity over the steps: in which panel, how it is drawn, and whether as a share of its largest value."""

    panel: int
    name: str
    colour: str
    dash: str
    value: Callable[[Run, Measurement], float | None]
    share: bool = False


def _alpha(index: int) -> Callable[[Run, Measurement], float | None]:
    return lambda run, measured: run.layers(measured)[index].alpha.value


_CURVES = (
    _Curve(1, "train accuracy", _GREY, "dash", lambda _, m: m.train_accuracy),
    _Curve(1, "test accuracy", _BLUE, "solid", lambda _, m: m.test_accuracy),
    _Curve(2, "centred traps", _RED, "solid", lambda run, m: run.centred(m)),
    _Curve(2, "mean-shift traps", _ORANGE, "dot", score("mean_shift").value),
    _Curve(4, "l2 norm", _SKY, "solid", lambda _, m: m.l2, share=True),
    _Curve(4, "absolute weight entropy", _BROWN, "dash", lambda _, m: sum(it.weight_entropy for it in m.layers), True),
    _Curve(4, "activation sparsity", _GREEN, "dot", lambda _, m: sum(m.sparsity), share=True),
    _Curve(4, "local circuit complexity", _OLIVE, "dashdot", lambda _, m: m.circuit_complexity, share=True),
)


def _figure(name: str, caption: str, height: int, figure: go.Figure, legend: float | None = None) -> Figure:
    figure.update_layout(
        height=height, margin={"l": 56, "r": 16, "t": 44, "b": 44}, paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)", font={"size": 12}, template="none",
    )  # fmt: skip
    figure.update_xaxes(gridcolor=_FAINT, linecolor=_FAINT, zeroline=False)
    figure.update_yaxes(gridcolor=_FAINT, linecolor=_FAINT, zeroline=False)
    if legend is not None:
        figure.update_layout(legend={"orientation": "h", "y": legend})
    return Figure(name, caption, height, json.loads(figure.to_json()))


def all_figures(report: CalibrationReport) -> list[Figure]:
    """Every figure of the page."""
    of_studies = (make(study) for study in report.studies for make in (spectra, images, confusions))
    return [*curves(report.runs), *separation(report), *(figure for made in of_studies for figure in made)]


# -- curves over steps -----------------------------------------------------------------------------------------------


def curves(runs: Sequence[Run]) -> Iterable[Figure]:
    """Accuracies, traps, α and the rivals over log steps, one column an arm, every seed; phases of one seed shaded."""
    arms = list(dict.fromkeys(run.recipe.arm for run in runs))
    for first in range(0, len(arms), _ARMS_A_ROW):
        shown = arms[first : first + _ARMS_A_ROW]
        figure = make_subplots(
            rows=len(_PANELS), cols=len(shown), shared_xaxes=True, vertical_spacing=0.05, horizontal_spacing=0.05,
            subplot_titles=[f"arm {arm}" for arm in shown],
        )  # fmt: skip
        for column, arm in enumerate(shown, start=1):
            members = [run for run in runs if run.recipe.arm == arm]
            for run in members:
                _draw_run(figure, run, column, faint=run is not members[0], legend=column == 1 and run is members[0])
            _shade(figure, members[0], column)
        for row, title in enumerate(_PANELS, start=1):
            figure.update_yaxes(title_text=title, row=row, col=1)
        figure.update_yaxes(range=[0, 1.03], row=1)
        figure.update_xaxes(type="log", exponentformat="power", dtick=1)
        figure.update_xaxes(title_text="step", row=len(_PANELS))
        figure.update_layout(hovermode="x")
        thick = next(run.seed for run in runs if run.recipe.arm == shown[0])
        caption = (
            f"Arms {', '.join(shown)}. Thick: seed {thick}; thin: the other seeds. Shaded, from the accuracies of the "
            "thick run alone: blue pre-grokking, green grokking, red anti-grokking."
        )
        yield _figure(f"curves-{first}", caption, 800, figure, legend=-0.08)


def _alpha_curves(run: Run) -> list[_Curve]:
    """One for each of two matrices, or the mean of more."""
    if len(run.scored) > 2:
        return [_Curve(3, "mean α", _PURPLE, "solid", score("alpha_mean").value)]
    looks = zip(run.scored, ("solid", "dash"), strict=False)
    names = [(name.removesuffix(".weight"), dash) for name, dash in looks]
    return [_Curve(3, f"α of {name}", _PURPLE, dash, _alpha(index)) for index, (name, dash) in enumerate(names)]


def _draw_run(figure: go.Figure, run: Run, column: int, *, faint: bool, legend: bool) -> None:
    points = [point for point in run.checkpoints if point.step >= _FIRST_SHOWN]
    for curve in (*_CURVES, *_alpha_curves(run)):
        values = [curve.value(run, point) for point in points]
        if curve.panel == 3:
            values = [None if value is None else min(value, _LARGEST_ALPHA) for value in values]
        largest = max((abs(value) for value in values if value is not None), default=0.0) or 1.0
        figure.add_scatter(
            x=[point.step for point in points],
            y=[value / largest for value in values if value is not None] if curve.share else values,
            name=curve.name, legendgroup=curve.name, showlegend=legend, mode="lines", opacity=0.35 if faint else 1.0,
            line={"color": curve.colour, "width": 1 if faint else 2, "dash": curve.dash}, row=curve.panel, col=column,
            hovertemplate=f"{curve.name}, seed {run.seed}: %{{y:.3g}}<extra></extra>",
        )  # fmt: skip


def _shade(figure: go.Figure, run: Run, column: int) -> None:
    """A band from each stretch of checkpoints in one phase, halfway (in log steps) to its neighbours."""
    points = zip((point.step for point in run.checkpoints), run.phases, strict=True)
    shown = [(step, phase) for step, phase in points if step >= _FIRST_SHOWN]
    for phase, group in groupby(enumerate(shown), key=lambda item: item[1][1]):
        places = [place for place, _ in group]
        ends = [(places[0], max(places[0] - 1, 0)), (places[-1], min(places[-1] + 1, len(shown) - 1))]
        if phase in _PHASE_COLOURS:
            left, right = ((shown[here][0] * shown[beside][0]) ** 0.5 for here, beside in ends)
            band = {"fillcolor": _PHASE_COLOURS[phase], "opacity": 0.13, "line_width": 0}
            for row in range(1, len(_PANELS) + 1):
                figure.add_vrect(x0=left, x1=right, row=row, col=column, **band)


# -- separation ------------------------------------------------------------------------------------------------------


def separation(report: CalibrationReport) -> Iterable[Figure]:
    """AUC of every measure, with its interval over runs, by group of arms."""
    known = [(row, row.against_grok) for row in report.separation if row.against_grok is not None]
    if not known:
        return
    figure = go.Figure()
    for arms in dict.fromkeys(row.arms for row, _ in known):
        members = [(row.label, area) for row, area in known if row.arms == arms]
        colour, symbol = _GROUP_LOOKS[arms]
        figure.add_scatter(
            x=[area.value for _, area in members], y=[label for label, _ in members], name=arms, mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 9},
            error_x={
                "type": "data", "symmetric": False, "thickness": 1.2,
                "array": [0.0 if area.high is None else area.high - area.value for _, area in members],
                "arrayminus": [0.0 if area.low is None else area.value - area.low for _, area in members],
            },
            hovertemplate="%{y}: AUC %{x:.3f}<extra>" + arms + "</extra>",
        )  # fmt: skip
    figure.add_vline(x=0.5, line={"color": _GREY, "dash": "dot", "width": 1})
    figure.update_xaxes(title_text="AUC, anti-grokking against grokked (0.5 is chance)", range=[-0.02, 1.02])
    figure.update_yaxes(autorange="reversed", automargin=True)
    caption = (
        "How well each measure alone tells anti-grokking from grokked checkpoints. Bars: 95 %, from resampling runs."
    )
    yield _figure("separation", caption, 120 + 26 * len({row.label for row, _ in known}), figure, legend=1.06)


# -- one run closely -------------------------------------------------------------------------------------------------


def spectra(study: CaseStudy) -> Iterable[Figure]:
    """Original and shuffled spectrum of each layer in each phase."""
    layers = list(dict.fromkeys(item.layer for item in study.spectra))
    phases = list(dict.fromkeys(item.phase for item in study.spectra))
    if not phases:
        return
    figure = make_subplots(
        rows=len(layers), cols=len(phases), vertical_spacing=min(0.09, 0.5 / len(layers)), horizontal_spacing=0.05,
        subplot_titles=[f"{layer}, {phase}" for layer in layers for phase in phases],
    )  # fmt: skip
    for item in study.spectra:
        place = {"row": layers.index(item.layer) + 1, "col": phases.index(item.phase) + 1}
        for name, histogram, colour in (("original", item.original, _GREY), ("shuffled", item.shuffled, _ORANGE)):
            trace = staircase(histogram, name, colour)
            figure.add_trace(trace.update(showlegend=place == {"row": 1, "col": 1}, legendgroup=name), **place)
        figure.add_vline(x=item.edge, line={"color": _RED, "width": 1.5}, **place)
        if item.xmin:
            figure.add_vline(x=item.xmin, line={"color": _BLUE, "width": 1.2, "dash": "dash"}, **place)
    figure.update_xaxes(type="log", exponentformat="power")
    figure.update_yaxes(type="log", exponentformat="power")
    caption = (
        f"Arm {study.arm}, seed {study.seed}: eigenvalues of WᵀW (grey) and of the shuffled matrix (orange), as shares "
        "per unit of ln λ. Red: the edge beyond which a shuffled eigenvalue is a trap. Blue: x_min, where the power "
        "law starts."
    )
    yield _figure(f"spectra-{study.arm}", caption, 70 + 250 * len(layers), figure, legend=-0.04)


def images(study: CaseStudy) -> Iterable[Figure]:
    """Leading directions and rows as images, one row of images a phase."""
    rows = {phase: list(group) for phase, group in groupby(study.pictures, key=lambda item: item.phase)}
    if not rows:
        return
    columns = max(map(len, rows.values()))
    titles = []
    for members in rows.values():
        words = [f"{item.title.replace(', back to pixels', '')}<br>r = {item.nearest:.2f}" for item in members]
        titles += words + [""] * (columns - len(members))
    figure = make_subplots(
        rows=len(rows), cols=columns, subplot_titles=titles, vertical_spacing=0.13, horizontal_spacing=0.012
    )
    for row, (phase, members) in enumerate(rows.items(), start=1):
        for column, item in enumerate(members, start=1):
            lines = [list(item.pixels[k : k + item.side]) for k in range(0, item.side**2, item.side)]
            look = {"zmin": -1, "zmax": 1, "colorscale": "RdBu", "showscale": False, "hoverinfo": "skip"}
            figure.add_heatmap(z=lines, row=row, col=column, **look)
        figure.update_yaxes(title_text=phase, row=row, col=1)
    figure.update_xaxes(showticklabels=False, showgrid=False, constrain="domain")
    figure.update_yaxes(showticklabels=False, showgrid=False, autorange="reversed")
    # Each image's own axes are tied together, so that its pixels are square.
    figure.for_each_yaxis(lambda axis: axis.update(scaleanchor="x" + axis.plotly_name.removeprefix("yaxis")))
    figure.update_annotations(font_size=10)
    caption = (
        "Leading singular vector of each layer carried back to the pixels, and the rows of FC1 that weigh most in its "
        "leading direction. r: the largest correlation, in size, with any training image."
    )
    yield _figure(f"images-{study.arm}", caption, 60 + 190 * len(rows), figure)


def confusions(study: CaseStudy) -> Iterable[Figure]:
    """Predicted against true class on the test set, in each phase."""
    if not study.confusions:
        return
    titles = [f"{item.phase}, step {item.step:,}" for item in study.confusions]
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=titles, horizontal_spacing=0.06)
    for column, item in enumerate(study.confusions, start=1):
        figure.add_heatmap(
            z=[list(row) for row in item.counts], colorscale="Cividis", showscale=False, row=1, col=column,
            hovertemplate="true %{y}, called %{x}: %{z}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="called", dtick=1)
    figure.update_yaxes(autorange="reversed", dtick=1)
    figure.update_yaxes(title_text="true", col=1)
    caption = "Test images by true class and by the class that the network calls them."
    yield _figure(f"confusions-{study.arm}", caption, 380, figure)
