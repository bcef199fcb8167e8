"""The page's figures, built with Plotly in Python and drawn by its script in the browser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from llmtrap.calibrate.document import CalibrationReport, CaseStudy, SpectrumPicture
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.measurement import Measurement

# Okabe and Ito's colours, which the common kinds of colour blindness keep apart; marks differ in dash or symbol too.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#7a7f87"
PHASE_COLOURS = {"pre-grok": BLUE, "grok": GREEN, "anti-grok": RED}
_ARMS_A_ROW = 3
# Nothing happens in the first steps of a run.
_FIRST_SHOWN = 30
_PANELS = ("accuracy", "traps by cause", "α", "rivals / their largest")


@dataclass(frozen=True)
class Figure:
    """One figure: where it goes, what it shows in words, and Plotly's own description of it."""

    name: str
    caption: str
    height: int
    plot: dict[str, Any]


def _figure(name: str, caption: str, height: int, figure: go.Figure) -> Figure:
    figure.update_layout(
        height=height,
        margin={"l": 56, "r": 16, "t": 44, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 12},
        template="none",
    )
    plain = figure.to_plotly_json()
    return Figure(name, caption, height, _plain(plain))


def _plain(value: Any) -> Any:
    """Lists and numbers only: Plotly's own classes and NumPy's do not go into JSON by themselves."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return value


# -- curves over steps -----------------------------------------------------------------------------------------------


def curves(report: CalibrationReport) -> list[Figure]:
    """Accuracies, traps, α and the rivals over log steps, one column an arm, every seed; phases of seed 0 shaded."""
    arms = list(dict.fromkeys(run.recipe.arm for run in report.runs))
    figures = []
    for first in range(0, len(arms), _ARMS_A_ROW):
        shown = arms[first : first + _ARMS_A_ROW]
        figure = make_subplots(
            rows=len(_PANELS),
            cols=len(shown),
            shared_xaxes=True,
            vertical_spacing=0.05,
            horizontal_spacing=0.05,
            subplot_titles=[f"arm {arm}" for arm in shown] + [""] * (len(shown) * (len(_PANELS) - 1)),
        )
        for column, arm in enumerate(shown, start=1):
            runs = [run for run in report.runs if run.recipe.arm == arm]
            for run in runs:
                _draw_run(figure, run, column, faint=run is not runs[0], legend=column == 1 and run is runs[0])
            _shade(figure, runs[0], column)
        for row, title in enumerate(_PANELS, start=1):
            figure.update_yaxes(title_text=title, row=row, col=1)
        figure.update_yaxes(range=[0, 1.03], row=1)
        figure.update_xaxes(type="log", exponentformat="power", dtick=1)
        figure.update_xaxes(title_text="step", row=len(_PANELS))
        figure.update_layout(legend={"orientation": "h", "y": -0.08}, hovermode="x")
        caption = (
            f"Arms {', '.join(shown)}. Thick: seed {_first_seed(report, shown[0])}; thin: the other seeds. Shaded, "
            "from the accuracies of the thick run alone: blue pre-grokking, green grokking, red anti-grokking."
        )
        figures.append(_figure(f"curves-{first}", caption, 940, figure))
    return figures


def _first_seed(report: CalibrationReport, arm: str) -> int:
    return next(run.seed for run in report.runs if run.recipe.arm == arm)


def _draw_run(figure: go.Figure, run: Run, column: int, *, faint: bool, legend: bool) -> None:
    points = [point for point in run.checkpoints if point.step >= _FIRST_SHOWN]
    steps = [measured.step for measured in points]

    def line(row: int, name: str, values: Sequence[float | None], colour: str, dash: str = "solid") -> None:
        figure.add_trace(
            go.Scatter(
                x=steps,
                y=list(values),
                name=name,
                legendgroup=f"{row}{name}",
                showlegend=legend,
                mode="lines",
                opacity=0.35 if faint else 1.0,
                line={"color": colour, "width": 1 if faint else 2, "dash": dash},
                hovertemplate=f"{name}, seed {run.seed}: %{{y:.3g}}<extra></extra>",
            ),
            row=row,
            col=column,
        )

    line(1, "train accuracy", [m.train_accuracy for m in points], GREY, "dash")
    line(1, "test accuracy", [m.test_accuracy for m in points], BLUE)
    line(2, "centred traps", [sum(x.traps.centred for x in run.layers(m)) for m in points], RED)
    line(2, "mean-shift traps", [sum(x.traps.mean_shift for x in run.layers(m)) for m in points], ORANGE, "dot")
    if len(run.scored) <= 2:
        for index, (colour, dash) in enumerate(((BLUE, "solid"), (PURPLE, "dash"))):
            line(
                3,
                f"α of {run.scored[index].removesuffix('.weight')}",
                [_alpha(run, m, index) for m in points],
                colour,
                dash,
            )
    else:
        line(3, "mean α", [_mean_alpha(run, m) for m in points], BLUE)
    line(4, "l2 norm", _share([m.l2 for m in points]), BLUE)
    entropies = [sum(layer.weight_entropy for layer in m.layers) for m in points]
    line(4, "absolute weight entropy", _share(entropies), ORANGE, "dash")
    line(4, "activation sparsity", _share([sum(m.sparsity) for m in points]), GREEN, "dot")
    line(4, "local circuit complexity", _share([m.circuit_complexity for m in points]), PURPLE, "dashdot")


def _alpha(run: Run, measured: Measurement, index: int) -> float | None:
    alpha = run.layers(measured)[index].alpha.value
    return None if alpha is None else min(alpha, 10.0)


def _mean_alpha(run: Run, measured: Measurement) -> float | None:
    alphas = [layer.alpha.value for layer in run.layers(measured) if layer.alpha.value is not None]
    return min(sum(alphas) / len(alphas), 10.0) if alphas else None


def _share(values: Sequence[float]) -> list[float]:
    largest = max((abs(value) for value in values), default=0.0)
    return [value / largest if largest else 0.0 for value in values]


def _shade(figure: go.Figure, run: Run, column: int) -> None:
    """A band from each run of checkpoints in one phase, halfway (in log steps) to its neighbours."""
    points = zip(run.checkpoints, run.phases, strict=True)
    shown = [(point.step, phase) for point, phase in points if point.step >= _FIRST_SHOWN]
    steps = [step for step, _ in shown]
    for first, last, phase in _stretches([phase for _, phase in shown]):
        if phase not in PHASE_COLOURS:
            continue
        left = (steps[first] * steps[first - 1]) ** 0.5 if first else steps[first]
        right = (steps[last] * steps[last + 1]) ** 0.5 if last + 1 < len(steps) else steps[last]
        for row in range(1, len(_PANELS) + 1):
            figure.add_vrect(
                x0=left, x1=right, fillcolor=PHASE_COLOURS[phase], opacity=0.13, line_width=0, row=row, col=column
            )


def _stretches(phases: Sequence[str]) -> Iterable[tuple[int, int, str]]:
    start = 0
    for index in range(1, len(phases) + 1):
        if index == len(phases) or phases[index] != phases[start]:
            yield start, index - 1, phases[start]
            start = index


# -- separation ------------------------------------------------------------------------------------------------------


def separation(report: CalibrationReport) -> list[Figure]:
    """AUC of every measure, with its interval over runs, by group of arms."""
    rows = [row for row in report.separation if row.against_grok is not None]
    if not rows:
        return []
    figure = go.Figure()
    groups = list(dict.fromkeys(row.arms for row in rows))
    looks = {
        "without weight decay": (BLUE, "circle"),
        "with weight decay": (ORANGE, "diamond"),
        "all": (GREY, "square"),
    }
    for offset, arms in enumerate(groups):
        members = [row for row in rows if row.arms == arms and row.against_grok is not None]
        colour, symbol = looks.get(arms, (GREY, "circle"))
        values = [row.against_grok for row in members if row.against_grok is not None]
        figure.add_trace(
            go.Scatter(
                x=[value.value for value in values],
                y=[row.label for row in members],
                name=arms,
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 9},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [(value.high or value.value) - value.value for value in values],
                    "arrayminus": [
                        value.value - (value.low if value.low is not None else value.value) for value in values
                    ],
                    "thickness": 1.2,
                },
                offsetgroup=str(offset),
                hovertemplate="%{y}: AUC %{x:.3f}<extra>" + arms + "</extra>",
            )
        )
    figure.add_vline(x=0.5, line={"color": GREY, "dash": "dot", "width": 1})
    figure.update_xaxes(title_text="AUC, anti-grokking against grokked (0.5 is chance)", range=[-0.02, 1.02])
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.06})
    caption = (
        "How well each measure alone tells anti-grokking from grokked checkpoints. Bars: 95 %, from resampling runs."
    )
    return [_figure("separation", caption, 120 + 26 * len({row.label for row in rows}), figure)]


# -- one run closely -------------------------------------------------------------------------------------------------


def spectra(study: CaseStudy) -> list[Figure]:
    """Original and shuffled spectrum of each layer in each phase."""
    layers = list(dict.fromkeys(item.layer for item in study.spectra))
    phases = list(dict.fromkeys(item.phase for item in study.spectra))
    if not phases:
        return []
    figure = make_subplots(
        rows=len(layers),
        cols=len(phases),
        subplot_titles=[f"{layer}, {phase}" for layer in layers for phase in phases],
        vertical_spacing=min(0.09, 0.5 / len(layers)),
        horizontal_spacing=0.05,
    )
    for item in study.spectra:
        row, column = layers.index(item.layer) + 1, phases.index(item.phase) + 1
        _draw_spectrum(figure, item, row, column, legend=row == column == 1)
    figure.update_xaxes(type="log", exponentformat="power")
    figure.update_yaxes(type="log", exponentformat="power")
    figure.update_layout(legend={"orientation": "h", "y": -0.04})
    caption = (
        f"Arm {study.arm}, seed {study.seed}: eigenvalues of WᵀW (grey) and of the shuffled matrix (orange), in counts "
        "by logarithmic bin. Red: the edge beyond which a shuffled eigenvalue is a trap. Blue: x_min, where the power "
        "law starts."
    )
    return [_figure(f"spectra-{study.arm}", caption, 70 + 250 * len(layers), figure)]


def _draw_spectrum(figure: go.Figure, item: SpectrumPicture, row: int, column: int, *, legend: bool) -> None:
    for name, histogram, colour in (("original", item.original, GREY), ("shuffled", item.shuffled, ORANGE)):
        edges, counts = histogram.edges, histogram.counts
        x = [edge for pair in pairwise(edges) for edge in pair]
        y = [count or None for count in counts for _ in range(2)]
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                name=name,
                mode="lines+markers",
                marker={"size": 3, "color": colour, "symbol": "circle" if name == "original" else "diamond"},
                line={"color": colour, "width": 1.5},
                showlegend=legend,
                legendgroup=name,
                hovertemplate=name + ": %{y} near %{x:.3g}<extra></extra>",
            ),
            row=row,
            col=column,
        )
    figure.add_vline(x=item.edge, line={"color": RED, "width": 1.5}, row=row, col=column)
    if item.xmin:
        figure.add_vline(x=item.xmin, line={"color": BLUE, "width": 1.2, "dash": "dash"}, row=row, col=column)


def images(study: CaseStudy) -> list[Figure]:
    """Leading directions and rows as images, one row of images a phase."""
    phases = list(dict.fromkeys(item.phase for item in study.pictures))
    if not phases:
        return []
    columns = max(sum(item.phase == phase for item in study.pictures) for phase in phases)
    titles = []
    for phase in phases:
        members = [item for item in study.pictures if item.phase == phase]
        titles += [f"{item.title.replace(', back to pixels', '')}<br>r = {item.nearest:.2f}" for item in members]
        titles += [""] * (columns - len(members))
    figure = make_subplots(
        rows=len(phases), cols=columns, subplot_titles=titles, vertical_spacing=0.13, horizontal_spacing=0.012
    )
    for row, phase in enumerate(phases, start=1):
        for column, item in enumerate((p for p in study.pictures if p.phase == phase), start=1):
            side = item.side
            grid = [list(item.pixels[k * side : (k + 1) * side]) for k in range(side)]
            figure.add_trace(
                go.Heatmap(z=grid, zmin=-1, zmax=1, colorscale="RdBu", showscale=False, hoverinfo="skip"),
                row=row,
                col=column,
            )
        figure.update_yaxes(title_text=phase, row=row, col=1)
    figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False, constrain="domain")
    figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False, autorange="reversed", scaleanchor="x")
    figure.update_annotations(font_size=10)
    caption = (
        "Leading singular vector of each layer carried back to the pixels, and the rows of FC1 that weigh most in its "
        "leading direction. r: the largest correlation, in size, with any training image."
    )
    made = _figure(f"images-{study.arm}", caption, 60 + 190 * len(phases), figure)
    _square(made.plot["layout"])
    return [made]


def _square(layout: dict[str, Any]) -> None:
    """Tie each image's own axes together, so that its pixels are square."""
    for key, axis in layout.items():
        if key.startswith("yaxis"):
            axis["scaleanchor"] = "x" + key.removeprefix("yaxis")


def confusions(study: CaseStudy) -> list[Figure]:
    """Predicted against true class on the test set, in each phase."""
    if not study.confusions:
        return []
    figure = make_subplots(
        rows=1,
        cols=len(study.confusions),
        subplot_titles=[f"{item.phase}, step {item.step:,}" for item in study.confusions],
        horizontal_spacing=0.06,
    )
    for column, item in enumerate(study.confusions, start=1):
        figure.add_trace(
            go.Heatmap(
                z=[list(row) for row in item.counts],
                colorscale="Cividis",
                showscale=False,
                hovertemplate="true %{y}, called %{x}: %{z}<extra></extra>",
            ),
            row=1,
            col=column,
        )
        figure.update_xaxes(title_text="called", dtick=1, row=1, col=column)
        figure.update_yaxes(autorange="reversed", dtick=1, row=1, col=column)
    figure.update_yaxes(title_text="true", row=1, col=1)
    caption = "Test images by true class and by the class that the network calls them."
    return [_figure(f"confusions-{study.arm}", caption, 380, figure)]


def all_figures(report: CalibrationReport) -> list[Figure]:
    """Every figure of the page."""
    made = [*curves(report), *separation(report)]
    for study in report.studies:
        made += [*spectra(study), *images(study), *confusions(study)]
    return made
