"""WeightWatcher itself, run on given matrices as torch Linear layers: the reference for α and the norms."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOOR = 1e-5  # eigenvalues at or under it are no part of WeightWatcher's fit


@dataclass(frozen=True)
class Reference:
    """What WeightWatcher says of one matrix; it reports squared norms, these are not squared."""

    alpha: float
    xmin: float
    tail: int
    ks: float
    spectral_norm: float
    frobenius_norm: float


def run_weightwatcher(matrices: Mapping[str, NDArray[np.floating]]) -> dict[str, Reference]:
    """Analyse matrices by name. Those with a smaller side under 50 it leaves out."""
    return {
        name: Reference(
            alpha=float(row["alpha"]),
            xmin=float(row["xmin"]),
            tail=int(row["num_pl_spikes"]),
            ks=float(row["D"]),
            spectral_norm=math.sqrt(row["spectral_norm"]),
            frobenius_norm=math.sqrt(row["norm"]),
        )
        for name, row in _quietly(matrices).items()
    }


def run_columns(matrices: Mapping[str, NDArray[np.floating]]) -> dict[str, dict[str, Any]]:
    """All its columns, by matrix: with its shuffles, its fit of the bulk and its determinants."""
    return _quietly(matrices, randomize=True, mp_fit=True, detX=True)


def _quietly(matrices: Mapping[str, NDArray[np.floating]], **options: bool) -> dict[str, dict[str, Any]]:
    """It prints, warns, plots and draws from NumPy's global generator: nothing of that gets out of here."""
    state = np.random.get_state()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return _analyse(matrices, **options)
        finally:
            np.random.set_state(state)


def _analyse(matrices: Mapping[str, NDArray[np.floating]], **options: bool) -> dict[str, dict[str, Any]]:
    import matplotlib  # noqa: PLC0415 - an extra, as the two below

    matplotlib.use("Agg")
    import torch  # noqa: PLC0415
    import weightwatcher  # noqa: PLC0415

    model = torch.nn.Module()
    for name, matrix in matrices.items():
        layer = torch.nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
        layer.weight.data = torch.from_numpy(matrix.astype(np.float32))
        model.add_module(name.replace(".", "/"), layer)  # a module's name cannot hold dots
    details = weightwatcher.WeightWatcher(model=model).analyze(plot=False, **options)
    return {row["longname"].replace("/", "."): row for row in details.to_dict("records")}
