"""The same numbers on a CUDA device as on the CPU: run where there is one."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from llmtrap.spectra import AnalysisSettings, analyse
from llmtrap.spectra.backends import Backend, NumpyBackend, cuda_device_count, select_backend

pytestmark = pytest.mark.skipif(cuda_device_count() == 0, reason="no CUDA device here")


@pytest.fixture(params=[name for name in ("cupy", "torch") if find_spec(name) is not None])
def device(request: pytest.FixtureRequest) -> Backend:
    return select_backend(request.param, "cuda")


def heavy(rows: int, columns: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    low_rank = (rng.standard_normal((rows, 60)) * np.arange(1, 61) ** -0.7) @ rng.standard_normal((60, columns))
    return (0.02 * (rng.standard_normal((rows, columns)) + low_rank)).astype(np.float32)


@pytest.mark.parametrize("shape", [(1536, 576), (576, 1536), (1024, 1024), (5760, 2880)])
def test_alpha_and_norms_agree_with_the_cpu(shape: tuple[int, int], device: Backend) -> None:
    matrix = heavy(*shape)
    here = analyse(matrix, backend=NumpyBackend()).esd
    there = analyse(matrix, backend=device).esd
    assert here is not None
    assert there is not None
    assert here.fit is not None
    assert there.fit is not None
    assert there.fit.alpha == pytest.approx(here.fit.alpha, rel=1e-4)
    assert there.largest == pytest.approx(here.largest, rel=1e-5)
    assert there.total == pytest.approx(here.total, rel=1e-5)


def test_traps_and_their_causes_agree_with_the_cpu(device: Backend) -> None:
    matrix = heavy(1536, 576)
    matrix[11, 308] += 2.0 * matrix.std() * matrix.size**0.25
    settings = AnalysisSettings(traps="measure")
    here = analyse(matrix, settings, matrix_id="m", backend=NumpyBackend()).traps
    there = analyse(matrix, settings, matrix_id="m", backend=device).traps
    assert here is not None
    assert there is not None
    assert [c.count for c in there.counts] == [c.count for c in here.counts]
    assert [c.top_z for c in there.counts] == pytest.approx([c.top_z for c in here.counts], abs=0.05)
    assert [trap.cause for trap in there.found] == [trap.cause for trap in here.found]
    assert (there.found[0].cause.row, there.found[0].cause.column) == (11, 308)
