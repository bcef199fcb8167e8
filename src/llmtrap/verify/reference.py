"""WeightWatcher itself, run in a process of its own: it prints, warns, plots and draws from global generators."""

from __future__ import annotations

import contextlib
import io
import math
import multiprocessing
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from llmtrap.errors import MissingExtraError

Floats = NDArray[np.floating]

# Eigenvalues at or under it are no part of WeightWatcher's fit, whatever the matrix's scale.
ABSOLUTE_FLOOR = 1e-5


@dataclass(frozen=True)
class Reference:
    """What WeightWatcher says of one matrix. Its norms are squared; these are not."""

    alpha: float
    tail: int
    spectral_norm: float
    frobenius_norm: float
    traps: int | None


def run_weightwatcher(matrices: Mapping[str, Floats]) -> dict[str, Reference]:
    """Analyse matrices by name, with its randomised spectrum; it leaves out those with a smaller side under 50.

    Raises:
        MissingExtraError: it is not installed.
    """
    if find_spec("weightwatcher") is None or find_spec("torch") is None:
        raise MissingExtraError.of("llmtrap verify", "weightwatcher")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_analyse, dict(matrices)).result()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _analyse(matrices: dict[str, Floats]) -> dict[str, Reference]:
    # Imported in the child alone: heavy, optional, and setting global state as they load.
    with warnings.catch_warnings(), _silence():
        warnings.simplefilter("ignore")
        import matplotlib  # noqa: PLC0415

        matplotlib.use("Agg")
        import torch  # noqa: PLC0415
        import weightwatcher  # noqa: PLC0415

        torch.set_num_threads(1)
        model = torch.nn.Module()
        names = list(matrices)
        for number, name in enumerate(names):
            rows, columns = matrices[name].shape
            layer = torch.nn.Linear(columns, rows, bias=False)
            layer.weight.data = torch.from_numpy(np.ascontiguousarray(matrices[name], dtype=np.float32))
            model.add_module(f"m{number}", layer)
        details = weightwatcher.WeightWatcher(model=model).analyze(randomize=True, mp_fit=True, plot=False)
    return {
        names[int(str(row.longname).removeprefix("m"))]: Reference(
            alpha=float(row.alpha),
            tail=int(row.num_pl_spikes),
            spectral_norm=math.sqrt(row.spectral_norm),
            frobenius_norm=math.sqrt(row.norm),
            traps=None if math.isnan(row.rand_num_spikes) else int(row.rand_num_spikes),
        )
        for row in details.itertuples()
    }
