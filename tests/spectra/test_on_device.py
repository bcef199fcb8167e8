"""A matrix that is sent to a device as it is stored: the same report as from the host, and little that travels."""

from __future__ import annotations

from typing import Any

import array_api_compat.torch
import array_api_strict
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.planting import noise, with_entries, with_heavy_tail, with_mean
from tests.support.stored import Stored, assert_agrees

from llmtrap.spectra import AnalysisSettings, MatrixAnalysis, analyse, on_device
from llmtrap.spectra.backends import ArrayApiBackend, Backend
from llmtrap.spectra.measured import NonFinite

Floats = NDArray[np.floating]
SHAPE = (300, 200)

DEVICES = {
    "torch": lambda: ArrayApiBackend(array_api_compat.torch, name="torch", device="cpu"),
    "strict": lambda: ArrayApiBackend(array_api_strict, name="strict", device=array_api_strict.Device("device1")),
}


@pytest.fixture(params=DEVICES)
def backend(request: pytest.FixtureRequest) -> Backend:
    return DEVICES[request.param]()


def planted(rng: np.random.Generator, kind: str) -> Floats:
    matrices: dict[str, Any] = {
        "noise": lambda: noise(rng, SHAPE),
        "entries": lambda: with_entries(noise(rng, SHAPE), [(7, 8), (100, 150)], [2.0, 3.5]),
        "mean": lambda: with_mean(noise(rng, SHAPE), 2.0),
        "huge mean": lambda: noise(rng, SHAPE) + np.float32(5),
        "tail": lambda: with_heavy_tail(rng, noise(rng, SHAPE), 0.01, 0.75),
        "wide": lambda: with_entries(noise(rng, (60, 500)), [(50, 400)], [3.0]),
        "single precision": lambda: with_entries(noise(rng, (700, 600)), [(7, 8)], [2.0]),
        "out of scale": lambda: with_entries(noise(rng, SHAPE, 1e-25), [(7, 8)], [2.0]),
    }
    return np.asarray(matrices[kind](), dtype=np.float32)


@pytest.mark.parametrize(
    "kind", ["noise", "entries", "mean", "huge mean", "tail", "wide", "single precision", "out of scale"]
)
@pytest.mark.parametrize("settings", [AnalysisSettings(), AnalysisSettings(traps="measure", shuffles=2)])
def test_the_report_is_the_hosts(
    rng: np.random.Generator, backend: Backend, kind: str, settings: AnalysisSettings
) -> None:
    stored = Stored.of(planted(rng, kind))
    plain = analyse(stored.decoded(), settings, matrix_id=kind)
    assert_agrees(analyse(stored, settings, matrix_id=kind, backend=backend), plain)
    assert stored.host_reads == 0


def test_without_alpha_too(rng: np.random.Generator, backend: Backend) -> None:
    stored = Stored.of(planted(rng, "noise"))
    settings = AnalysisSettings(alpha=False)
    assert_agrees(analyse(stored, settings, backend=backend), analyse(stored.decoded(), settings))


def test_a_matrix_travels_once_and_is_decoded_there(rng: np.random.Generator, backend: Backend) -> None:
    stored = Stored.of(planted(rng, "entries"))
    analyse(stored, AnalysisSettings(traps="measure"), backend=backend)
    assert (stored.reads, stored.host_reads) == (1, 0)


@pytest.mark.parametrize("limit", [0, 50_000])
def test_a_matrix_too_large_to_stay_there_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, backend: Backend, limit: int
) -> None:
    monkeypatch.setattr(on_device, "KEPT_BYTES", limit)
    stored = Stored.of(planted(rng, "entries"))
    plain = analyse(stored.decoded(), matrix_id="m")
    assert_agrees(analyse(stored, matrix_id="m", backend=backend), plain)
    assert stored.reads == 3  # sums, Gram matrix, and back to the host for the shuffles
    assert stored.host_reads == 0


def test_a_matrix_too_large_for_the_host_comes_back_by_blocks(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, backend: Backend
) -> None:
    monkeypatch.setattr("llmtrap.spectra.matrix_data.HELD_ENTRIES", 100)
    stored = Stored.of(planted(rng, "entries"))
    plain = analyse(stored.decoded(), matrix_id="m")
    assert_agrees(analyse(stored, matrix_id="m", backend=backend), plain)


@pytest.mark.parametrize("alpha", [True, False])
def test_what_is_no_number_is_counted_and_placed(rng: np.random.Generator, backend: Backend, alpha: bool) -> None:
    stored = Stored.of(noise(rng, (150, 30)))
    stored.table[-3:, 0] = np.nan, np.inf, -np.inf
    stored.codes[100, 7], stored.codes[100, 29], stored.codes[149, 0] = 65533, 65535, 65534
    found = analyse(stored, AnalysisSettings(alpha=alpha), backend=backend)
    assert found == MatrixAnalysis((150, 30), None, None, None, NonFinite(nan=1, inf=2, row=100, column=7))
    assert stored.host_reads == 0


@pytest.mark.parametrize("value", [0.0, -0.5])
def test_a_constant(backend: Backend, value: float) -> None:
    stored = Stored(np.zeros((60, 40), dtype=np.uint16), np.full((65536, 1), value, dtype=np.float32))
    found = analyse(stored, AnalysisSettings(traps="measure"), backend=backend)
    assert found.esd is not None and found.traps is not None  # noqa: PT018
    assert found.esd.hard_rank == (value != 0)
    assert (found.traps.method, found.traps.count) == ("certified", 0)
