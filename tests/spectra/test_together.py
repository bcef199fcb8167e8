"""Matrices side by side: any grouping gives each the results it has alone, and equal sizes share the solver's calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import array_api_compat.torch
import array_api_strict
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.planting import noise, with_entries, with_mean
from tests.support.stored import Stored, assert_agrees

from llmtrap.errors import MatrixError
from llmtrap.spectra import AnalysisSettings, ArrayReader, MatrixAnalysis, MatrixReader, NonFiniteEntries, analyse, esd
from llmtrap.spectra.analysis import analyse_in_steps
from llmtrap.spectra.backends import Array, ArrayApiBackend, Backend, NumpyBackend
from llmtrap.spectra.together import Steps, together

Floats = NDArray[np.floating]
SHAPE = (150, 120)
SETTINGS = AnalysisSettings(shuffles=2)

BACKENDS: dict[str, Callable[[], Backend]] = {
    "numpy": NumpyBackend,
    "torch": lambda: ArrayApiBackend(array_api_compat.torch, name="torch", device="cpu"),
    "strict": lambda: ArrayApiBackend(array_api_strict, name="strict", device=array_api_strict.Device("device1")),
    "one by one": lambda: ArrayApiBackend(array_api_compat.torch, name="torch", device="cpu", stacks=False),
}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]()


@pytest.fixture(autouse=True)
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let single precision begin at a side that a test can afford."""
    monkeypatch.setattr(esd, "DOUBLE_UP_TO", 100)


class Calls:
    """A solver that notes how many Gram matrices it is given at once, and in which float width."""

    def __init__(self, backend: Backend):
        self._backend = backend
        self.seen: list[tuple[int, str]] = []

    def __call__(self, grams: Sequence[Array]) -> list[NDArray[np.float64]]:
        assert len({tuple(gram.shape) for gram in grams}) == 1
        (width,) = {str(gram.dtype).rpartition(".")[2] for gram in grams}
        self.seen.append((len(grams), width))
        return self._backend.eigenvalues_of(grams)


def deficient(rng: np.random.Generator) -> Floats:
    """So many eigenvalues are zero that single precision cannot tell them apart."""
    return noise(rng, (SHAPE[0], 30)) @ noise(rng, (30, SHAPE[1]))


def not_a_number(rng: np.random.Generator) -> Floats:
    matrix = noise(rng, SHAPE)
    matrix[77, 5] = np.nan
    return matrix


MATRICES: dict[str, Callable[[np.random.Generator], Floats]] = {
    "noise": lambda rng: noise(rng, SHAPE),
    "entries": lambda rng: with_entries(noise(rng, SHAPE), [(7, 8), (100, 110)], [2.0, 3.5]),
    "mean": lambda rng: with_mean(noise(rng, SHAPE), 2.0),
    "wide": lambda rng: noise(rng, (SHAPE[1], 200)),
    "deficient": deficient,
    "no number": not_a_number,
    "double": lambda rng: rng.standard_normal(SHAPE),
    "another size": lambda rng: noise(rng, (150, 90)),
    "out of scale": lambda rng: with_entries(noise(rng, SHAPE, 1e-25), [(7, 8)], [2.0]),
}


def steps(reader: MatrixReader, name: str, backend: Backend) -> Steps[MatrixAnalysis]:
    return analyse_in_steps(reader, SETTINGS, name, backend)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.sampled_from(sorted(MATRICES)), min_size=1, max_size=7))
def test_any_grouping_gives_what_each_has_alone(backend: Backend, names: list[str]) -> None:
    rng = np.random.default_rng(1)
    matrices = [MATRICES[name](rng) for name in names]
    found = together(
        [steps(ArrayReader(w), name, backend) for w, name in zip(matrices, names, strict=True)], backend.eigenvalues_of
    )
    for matrix, name, beside in zip(matrices, names, found, strict=True):
        alone = analyse(matrix, SETTINGS, matrix_id=name, backend=backend)
        if name == "no number":
            assert beside == alone
            assert beside.non_finite == NonFiniteEntries(nan=1, inf=0, row=77, column=5)
            continue
        assert_agrees(beside, alone)
        assert beside.esd is not None and alone.esd is not None  # noqa: PT018 - narrows both
        np.testing.assert_allclose(
            beside.esd.eigenvalues, alone.esd.eigenvalues, rtol=0, atol=1e-6 * alone.esd.eigenvalues[-1]
        )


def test_on_numpy_not_a_bit_differs(rng: np.random.Generator) -> None:
    backend = NumpyBackend()
    matrices = {name: make(rng) for name, make in MATRICES.items()}
    found = together([steps(ArrayReader(w), name, backend) for name, w in matrices.items()], backend.eigenvalues_of)
    for (name, matrix), beside in zip(matrices.items(), found, strict=True):
        alone = analyse(matrix, SETTINGS, matrix_id=name)
        assert (beside.moments, beside.non_finite) == (alone.moments, alone.non_finite)
        if alone.esd is not None:
            assert beside.esd is not None
            assert beside.esd.eigenvalues.tobytes() == alone.esd.eigenvalues.tobytes()


@pytest.mark.parametrize("kind", ["torch", "strict"])
def test_what_is_stored_in_codes_too(rng: np.random.Generator, kind: str) -> None:
    backend = BACKENDS[kind]()
    names = ("noise", "entries", "deficient", "mean", "wide")
    stored = [Stored.of(np.asarray(MATRICES[name](rng), dtype=np.float32)) for name in names]
    calls = Calls(backend)
    found = together([steps(w, name, backend) for w, name in zip(stored, names, strict=True)], calls)
    for matrix, name, beside in zip(stored, names, found, strict=True):
        assert_agrees(beside, analyse(matrix.decoded(), SETTINGS, matrix_id=name))
        assert (matrix.reads, matrix.host_reads) == (1, 0)
    assert calls.seen[0] == (5, "float32")


def test_equal_sizes_share_a_call_and_so_do_those_that_need_double_precision(
    rng: np.random.Generator, backend: Backend
) -> None:
    names = ["noise", "deficient", "another size", "no number", "wide", "deficient", "entries"]
    calls = Calls(backend)
    found = together([steps(ArrayReader(MATRICES[name](rng)), name, backend) for name in names], calls)
    # 90 is small enough for double precision at once
    assert calls.seen == [(5, "float32"), (1, "float64"), (2, "float64")]
    assert [a.esd.precision for a in found if a.esd is not None] == [
        "float32", "float64", "float64", "float32", "float64", "float32",
    ]  # fmt: skip


def test_a_matrix_is_not_read_before_its_turn(rng: np.random.Generator) -> None:
    backend = NumpyBackend()
    stored = [Stored.of(noise(rng, SHAPE)) for _ in range(2)]
    runs = [steps(matrix, "m", backend) for matrix in stored]
    assert [matrix.host_reads for matrix in stored] == [0, 0]
    next(runs[0])
    assert [matrix.host_reads for matrix in stored] == [1, 0]


def waiting(gram: Floats, log: list[str], name: str) -> Steps[str]:
    """Asks for eigenvalues once, and lives through what happens to the call."""
    try:
        values = yield gram
    except ArithmeticError as error:
        return f"{name}: {error}"
    log.append(name)
    return f"{name}: {values.size}"


def test_a_call_that_fails_is_raised_where_it_is_waited_for_and_nowhere_else() -> None:
    def solve(grams: Sequence[Array]) -> list[NDArray[np.float64]]:
        if grams[0].shape[0] == 2:
            raise ArithmeticError("no convergence")
        return [np.diagonal(gram) for gram in grams]

    log: list[str] = []
    runs = [waiting(np.eye(side), log, f"{k}") for k, side in enumerate((2, 3, 2, 3))]
    assert together(runs, solve) == ["0: no convergence", "1: 3", "2: no convergence", "3: 3"]
    assert log == ["1", "3"]


def test_what_a_computation_raises_ends_all(rng: np.random.Generator) -> None:
    backend, log = NumpyBackend(), list[str]()
    huge = ArrayReader(noise(rng, SHAPE).astype(np.float64) * 1e160)
    with pytest.raises(MatrixError, match="leave the range of float64"):
        together([waiting(np.eye(4), log, "first"), steps(huge, "huge", backend)], backend.eigenvalues_of)  # type: ignore[list-item]
    assert log == []


def test_nothing_to_do() -> None:
    assert together([], NumpyBackend().eigenvalues_of) == []
