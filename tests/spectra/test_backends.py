"""The same numbers under NumPy, PyTorch and the strict Array API, and how a backend and a device are chosen."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_compat.torch
import array_api_strict
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.planting import noise, with_entries, with_heavy_tail, with_mean

from llmtrap.errors import DeviceError, MissingExtraError, UsageError
from llmtrap.spectra import AnalysisSettings, analyse
from llmtrap.spectra.backends import ArrayApiBackend, Backend, NumpyBackend, cuda_device_count, select_backend
from llmtrap.spectra.backends.decoding import to_host

Floats = NDArray[np.floating]

# What docs/definitions.md promises of two backends.
ALPHA_RELATIVE, TOP_Z = 1e-4, 0.05

STANDARD = {
    "torch": lambda: ArrayApiBackend(array_api_compat.torch, name="torch", device="cpu"),
    "strict": lambda: ArrayApiBackend(array_api_strict, name="strict"),
}


@pytest.fixture(params=STANDARD)
def standard(request: pytest.FixtureRequest) -> Backend:
    return STANDARD[request.param]()


def planted(rng: np.random.Generator, kind: str) -> Floats:
    shape = (300, 200)
    return {
        "noise": lambda: noise(rng, shape),
        "entries": lambda: with_entries(noise(rng, shape), [(7, 8), (100, 150)], [2.0, 3.5]),
        "mean": lambda: with_mean(noise(rng, shape), 2.0),
        "huge mean": lambda: noise(rng, shape) + np.float32(50),
        "huge entry": lambda: with_entries(noise(rng, shape), [(7, 8)], [1e6]),
        "tail": lambda: with_heavy_tail(rng, noise(rng, shape), 0.01, 0.75),
        "wide": lambda: with_entries(noise(rng, (60, 500)), [(50, 400)], [3.0]),
        "iterated": lambda: with_entries(noise(rng, (450, 420)), [(7, 8)], [2.0]),
        "double": lambda: rng.standard_normal(shape) * 1e-50,
        "deficient": lambda: noise(rng, (300, 40)) @ noise(rng, (40, 200)),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    ["noise", "entries", "mean", "huge mean", "huge entry", "tail", "wide", "iterated", "double", "deficient"],
)
def test_every_backend_gives_the_same_report(rng: np.random.Generator, standard: Backend, kind: str) -> None:
    matrix = planted(rng, kind)
    settings = AnalysisSettings(traps="measure")
    plain = analyse(matrix, settings, matrix_id=kind)
    other = analyse(matrix, settings, matrix_id=kind, backend=standard)
    assert plain.esd is not None and other.esd is not None  # noqa: PT018 - narrows both
    assert plain.traps is not None and other.traps is not None  # noqa: PT018
    assert other.moments == plain.moments
    assert other.esd.precision == plain.esd.precision
    if plain.esd.fit is None:
        assert other.esd.fit is None
    else:
        assert other.esd.fit is not None
        assert other.esd.fit.alpha == pytest.approx(plain.esd.fit.alpha, rel=ALPHA_RELATIVE)
    assert [c.count for c in other.traps.counts] == [c.count for c in plain.traps.counts]
    assert [c.centred for c in other.traps.counts] == [c.centred for c in plain.traps.counts]
    assert [c.top_z for c in other.traps.counts] == pytest.approx(
        [c.top_z for c in plain.traps.counts], abs=TOP_Z, rel=1e-5
    )
    assert [t.cause for t in other.traps.found] == [t.cause for t in plain.traps.found]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_operation_agrees(rng: np.random.Generator, standard: Backend, dtype: str) -> None:
    block = rng.standard_normal((70, 50)).astype(np.float32)
    x, y = rng.standard_normal(50), rng.standard_normal(50)
    start = rng.standard_normal(50)
    relative = 1e-4 if dtype == "float32" else 1e-10
    plain = NumpyBackend()

    def spectrum(backend: Backend, *, transposed: bool, moved: bool) -> NDArray[np.float64]:
        size = 70 if transposed else 50
        gram = backend.add_gram(backend.gram(size, dtype), backend.from_host(block), transposed=transposed)
        if moved:
            gram = backend.add_rank_two(gram, x, y)
        return backend.eigenvalues(gram)

    for options in ({"transposed": False, "moved": False}, {"transposed": True, "moved": False},
                    {"transposed": False, "moved": True}):  # fmt: skip
        expected = spectrum(plain, **options)
        np.testing.assert_allclose(spectrum(standard, **options), expected, rtol=0, atol=relative * expected[-1])

    gram = standard.add_gram(standard.gram(50, dtype), standard.from_host(block))
    values, vectors = standard.top_eigenpairs(gram, 4, start, vectors=True)
    reference = block.T.astype(np.float64) @ block
    assert vectors is not None
    np.testing.assert_allclose(reference @ vectors, vectors * values, atol=1e-3 * values[0])
    assert standard.top_eigenpairs(gram, 4, start, vectors=False)[1] is None
    np.testing.assert_allclose(standard.column_sums(standard.from_host(block)), block.sum(axis=0), atol=1e-4)

    change = np.diag(np.arange(50)).astype(np.float32)
    expected = np.linalg.eigvalsh(reference + change)
    for backend in (plain, standard):
        gram = backend.add_gram(backend.gram(50, dtype), backend.from_host(block))
        found = backend.eigenvalues(backend.add_symmetric(gram, change.copy()))
        np.testing.assert_allclose(found, expected, rtol=0, atol=relative * expected[-1])


def test_a_change_keeps_its_argument() -> None:
    for backend in (NumpyBackend(), *(make() for make in STANDARD.values())):
        gram = backend.add_gram(backend.gram(5, "float64"), backend.from_host(np.eye(5)))
        backend.add_rank_two(gram, np.ones(5), np.ones(5))
        backend.add_symmetric(gram, np.ones((5, 5)))
        assert backend.count_above(gram, 0.5) == 5
        assert backend.eigenvalues(gram) == pytest.approx(np.ones(5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [60, 450])
def test_eigenvalues_are_counted_without_being_computed(
    rng: np.random.Generator, standard: Backend, dtype: str, size: int
) -> None:
    """From 400 columns on by the signs of a factorisation: none above, some, half, all, with a gap and without."""
    block = rng.standard_normal((2 * size, size)).astype(np.float32)
    block[:20] *= 30
    reference = np.linalg.eigvalsh(block.T.astype(np.float64) @ block)
    for backend in (NumpyBackend(), standard):
        gram = backend.add_gram(backend.gram(size, dtype), backend.from_host(block))
        for above in (0, 1, 7, 20, 21, size // 2, size):
            # Halfway to the next eigenvalue, so that rounding cannot decide.
            low = reference[-above - 1] if above < size else 0.5 * reference[0]
            high = reference[-above] if above else 2 * reference[-1]
            assert backend.count_above(gram, float((low + high) / 2)) == above


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_device_solves_in_float64(rng: np.random.Generator, standard: Backend, dtype: str) -> None:
    """Whatever the width of the Gram matrix: what is left is the error of its own entries."""
    block = rng.standard_normal((700, 600)).astype(np.float32)
    gram = standard.add_gram(standard.gram(600, dtype), standard.from_host(block))
    exact = np.linalg.eigvalsh(np.asarray(to_host(gram), dtype=np.float64))
    values = standard.eigenvalues(gram)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, exact, rtol=0, atol=1e-12 * exact[-1])


# -- choosing -------------------------------------------------------------------------------------------------------


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make `find_spec` say that these are not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "llmtrap.spectra.backends.find_spec", lambda name: None if name in names else real(name)
    )  # fmt: skip


class NoDriverError(Exception):
    """What CuPy raises where there is no driver."""


def show_cupy(monkeypatch: pytest.MonkeyPatch, count: int | None) -> None:
    """Put a CuPy with this many devices (None: no driver) where it would be imported from."""

    def devices() -> int:
        if count is None:
            raise NoDriverError
        return count

    cupy: Any = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(
        runtime=SimpleNamespace(getDeviceCount=devices, CUDARuntimeError=NoDriverError),
        Device=lambda number: f"device {number}",
    )
    real = importlib.util.find_spec
    monkeypatch.setattr("llmtrap.spectra.backends.find_spec", lambda name: object() if name == "cupy" else real(name))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", ModuleType("array_api_compat.cupy"))


@pytest.mark.parametrize(
    ("backend", "device", "name"),
    [("auto", "auto", "numpy"), ("auto", "cpu", "numpy"), ("numpy", "auto", "numpy"), ("numpy", "cpu", "numpy"),
     ("torch", "cpu", "torch"), ("torch", "auto", "torch")],
)  # fmt: skip
def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch, backend: str, device: str, name: str) -> None:
    hide(monkeypatch, "cupy")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert select_backend(backend, device).name == name


@pytest.mark.parametrize(
    ("backend", "device"),
    [("auto", "auto"), ("auto", "cuda"), ("auto", "cuda:1"), ("cupy", "auto"), ("cupy", "cuda:0")],
)
def test_with_two_gpus_cupy_comes_first(monkeypatch: pytest.MonkeyPatch, backend: str, device: str) -> None:
    show_cupy(monkeypatch, 2)
    assert select_backend(backend, device).name == "cupy"


def test_torch_takes_the_gpu_where_cupy_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "cupy")
    monkeypatch.setattr("llmtrap.spectra.backends._driver_found", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert select_backend("auto", "cuda:2").name == "torch"
    assert cuda_device_count() == 3


@pytest.mark.parametrize(("count", "message"), [(None, "none is there"), (0, "none is there"), (2, "there are 2")])
def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, count: int | None, message: str) -> None:
    show_cupy(monkeypatch, count)
    with pytest.raises(DeviceError, match=message):
        select_backend("auto", "cuda:5")
    with pytest.raises(DeviceError, match=message):
        select_backend("cupy", "cuda:2")


def test_torch_is_not_imported_where_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "cupy")
    monkeypatch.setattr("llmtrap.spectra.backends._driver_found", lambda: False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cuda_device_count() == 0


def test_no_library_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "cupy", "torch")
    assert cuda_device_count() == 0
    assert select_backend().name == "numpy"
    with pytest.raises(MissingExtraError, match=r"pip install 'llmtrap\[cuda12\]'"):
        select_backend("auto", "cuda")
    with pytest.raises(MissingExtraError, match=r"pip install 'llmtrap\[cuda12\]'"):
        select_backend("cupy", "cuda")
    with pytest.raises(MissingExtraError, match=r"pip install 'llmtrap\[torch\]'"):
        select_backend("torch", "cpu")


@pytest.mark.parametrize(
    ("backend", "device"),
    [("jax", "auto"), ("auto", "tpu"), ("auto", "cuda:x"), ("auto", "cpu:0"), ("auto", "cuda:-1"), ("cupy", "cpu"),
     ("numpy", "cuda")],
)  # fmt: skip
def test_words_that_mean_nothing(backend: str, device: str) -> None:
    with pytest.raises(UsageError):
        select_backend(backend, device)


def test_cupy_that_was_asked_for_and_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "cupy")
    with pytest.raises(MissingExtraError):
        select_backend("cupy", "auto")
