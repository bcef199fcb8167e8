"""WeightWatcher's columns: against WeightWatcher itself where it is right, and in small cases by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.support.weightwatcher import run_columns

from llmtrap.spectra import AnalysisSettings, analyse
from llmtrap.spectra.measured import WeightWatcherColumns
from llmtrap.spectra.weightwatcher_columns import spectral_distance, unit_determinant


def columns_of(matrix: np.ndarray) -> WeightWatcherColumns:
    found = analyse(matrix.astype(np.float32), AnalysisSettings(traps="measure")).columns
    assert found is not None
    return found


def test_they_are_weightwatchers() -> None:
    pytest.importorskip("weightwatcher", reason="an extra of the tests")
    rng = np.random.default_rng(4)
    pareto = np.linalg.qr(rng.standard_normal((200, 120)))[0] * np.sqrt((1 - rng.random(120)) ** (-1 / 1.5))
    matrices = {
        "gaussian": rng.standard_normal((300, 120)),
        "tail": pareto @ np.linalg.qr(rng.standard_normal((120, 120)))[0],
    }
    for name, theirs in run_columns(matrices).items():
        ours = columns_of(matrices[name])
        assert ours.log_norm == pytest.approx(theirs["log_norm"], abs=1e-5), name
        assert ours.log_alpha_norm == pytest.approx(theirs["log_alpha_norm"], rel=2e-3), name
        assert ours.num_pl_spikes == pytest.approx(theirs["num_pl_spikes"], abs=1), name
        assert ours.detX_num == theirs["detX_num"], name
        # Another shuffle of the same entries.
        assert ours.rand_distance == pytest.approx(theirs["rand_distance"], abs=0.01), name
        if name == "gaussian":  # of a heavy tail WeightWatcher fits σ to the tail as well
            assert ours.mp_softrank == pytest.approx(theirs["mp_softrank"], rel=0.1)


def test_the_tail_of_unit_determinant() -> None:
    # Scaled to mean 1: 2, 1.6, 0.3, 0.1; products 2, 3.2, 0.96.
    assert unit_determinant(np.array([0.1, 0.3, 1.6, 2.0])) == 3
    assert unit_determinant(1e-9 * np.array([0.1, 0.3, 1.6, 2.0])) == 3
    assert unit_determinant(np.array([0.0, 4.0])) == 2
    assert unit_determinant(np.ones(5)) is None
    # WeightWatcher multiplies in float64, which this overflows: it counts them all.
    many = np.concatenate([np.full(1000, 0.01), np.full(1000, 1.99)])
    assert unit_determinant(many) == 1000 + math.ceil(1000 * math.log(1.99) / math.log(100) + 1e-9)


def test_the_distance_of_spectra() -> None:
    same = np.array([1.0, 2.0, 3.0])
    assert spectral_distance(same, 7 * same[::-1]) == pytest.approx(0, abs=1e-8)
    # Shares (0, 1) and (1/2, 1/2): middle (1/4, 3/4).
    divergence = (math.log(4 / 3) + 0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2
    assert spectral_distance(np.array([0.0, 1.0]), np.array([1.0, 1.0])) == pytest.approx(math.sqrt(divergence))
    assert spectral_distance(same, np.zeros(3)) is None


def test_without_a_shuffled_spectrum_there_is_no_distance_and_nothing_of_zeros() -> None:
    rng = np.random.default_rng(1)
    certified = analyse(rng.uniform(-1, 1, (80, 60)).astype(np.float32)).columns
    assert certified is not None
    assert certified.rand_distance is None
    assert certified.detX_num is not None
    assert certified.num_pl_spikes is not None
    assert certified.ERG_gap == certified.detX_num - certified.num_pl_spikes
    zeros = analyse(np.zeros((60, 50), dtype=np.float32)).columns
    assert zeros == WeightWatcherColumns()


def test_great_exponents_do_not_overflow() -> None:
    narrow = 1e12 * np.random.default_rng(2).standard_normal((4000, 64))
    norm = columns_of(narrow).log_alpha_norm
    assert norm is not None
    assert norm > 300
