"""One matrix's spectra as a figure: as stored with the fit of the tail, and with its entries shuffled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from plotly.graph_objects import Figure, Scatter

from llmtrap.errors import UsageError
from llmtrap.printable import printable
from llmtrap.report.document import Matrix
from llmtrap.spectra.measured import Alpha, Histogram

Floats = NDArray[np.float64]

_STORED, _FIT, _SHUFFLED, _TRAP = "#2f6fb0", "#c2571a", "#7a7a7a", "#b3261e"


def plot_matrix(matrix: Matrix) -> Figure:
    """Density over ln λ, so that equal areas are equal shares of the eigenvalues; both axes logarithmic.

    Raises:
        UsageError: the report holds neither spectrum.
    """
    stored = matrix.spectrum.histogram if matrix.spectrum is not None else None
    traps = matrix.traps
    shuffled = traps.shuffled.histogram if traps is not None and traps.shuffled is not None else None
    if stored is None and shuffled is None:
        raise UsageError(
            "there is no spectrum of this matrix in the report", tensor=printable(matrix.id),
            remedy="Audit with alpha=True; a matrix of zeros, NaN or infinities has none",
        )  # fmt: skip
    figure = Figure()
    if stored is not None:
        figure.add_trace(staircase(stored, "spectrum", _STORED))
        if matrix.alpha is not None and matrix.alpha.value is not None:
            figure.add_trace(_fit(matrix.alpha, stored))
    if shuffled is not None:
        figure.add_trace(staircase(shuffled, "entries shuffled", _SHUFFLED))
    if traps is not None and traps.edge is not None:
        figure.add_vline(x=traps.edge, line={"color": _SHUFFLED, "dash": "dash"}, annotation_text="edge")
    if traps is not None and traps.found:
        at = [trap.eigenvalue for trap in traps.found]
        floor = _floor(shuffled or stored)
        words = [trap.cause.kind.replace("_", " ") for trap in traps.found]
        figure.add_trace(
            Scatter(x=at, y=[floor] * len(at), mode="markers", name="traps", text=words,
                    marker={"color": _TRAP, "symbol": "triangle-up", "size": 11})
        )  # fmt: skip
    figure.update_layout(
        title=printable(matrix.id, 80), template="plotly_white", legend={"orientation": "h", "y": -0.2}
    )
    figure.update_xaxes(type="log", title="eigenvalue λ of WᵀW")
    figure.update_yaxes(type="log", title="share of eigenvalues per unit of ln λ")
    return figure


def _heights(histogram: Histogram) -> tuple[Floats, Floats]:
    """Edges of the bins, and the density in each; NaN where a bin is empty."""
    edges, counts = np.array(histogram.edges), np.array(histogram.counts, dtype=np.float64)
    density = counts / counts.sum() / np.diff(np.log(edges))
    density[counts == 0] = np.nan
    return edges, density


def _floor(histogram: Histogram | None) -> float:
    return 1.0 if histogram is None else float(np.nanmin(_heights(histogram)[1]))


def staircase(histogram: Histogram, name: str, colour: str) -> Scatter:
    """The density over ln λ by bins."""
    edges, density = _heights(histogram)
    line = {"color": colour, "shape": "hv"}
    return Scatter(x=edges, y=np.append(density, density[-1]), mode="lines", name=name, line=line)


def _fit(alpha: Alpha, histogram: Histogram) -> Scatter:
    """p(λ) ∝ λ^−α from xmin on, which has `tail` of all eigenvalues: over ln λ, share · (α − 1)(λ/xmin)^(1 − α)."""
    assert alpha.value is not None  # noqa: S101 - the caller's condition
    start = alpha.xmin if alpha.xmin is not None else histogram.edges[0]
    x = np.geomspace(start, histogram.edges[-1], 64)
    share = alpha.tail / sum(histogram.counts)
    y = share * (alpha.value - 1) * (x / start) ** (1 - alpha.value)
    return Scatter(x=x, y=y, mode="lines", name=f"fit: α = {alpha.value:.2f}", line={"color": _FIT, "dash": "dot"})
