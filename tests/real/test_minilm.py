"""MiniLM-L6 and a fine-tune of it: known traps in known places, α as WeightWatcher has it, no tensor lost."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.support.audits import audit, matrices_of, traps_of, unaccounted_tensors, without_times
from tests.support.weightwatcher import FLOOR, run_weightwatcher

import llmtrap
from llmtrap.demo.planting import bulk_moments
from llmtrap.spectra import compute_esd, fit_power_law
from llmtrap.spectra.backends import NumpyBackend

LEAST_SIDE = 50  # under it a count of traps claims nothing
EDGE_Z = 6.2  # where the Tracy–Widom p-value is 1e-6

STRONG = {
    "encoder.layer.0.output.dense.weight": 1,
    "encoder.layer.1.output.dense.weight": 1,
    "encoder.layer.2.output.dense.weight": 2,
    "encoder.layer.3.output.dense.weight": 1,
    "encoder.layer.4.output.dense.weight": 1,
}
"""Tensors with strong traps (z > 15) and how many."""

AT_THE_EDGE = ("encoder.layer.5.output.dense.weight", "encoder.layer.0.attention.output.dense.weight")


def strong_traps(report: llmtrap.Report) -> dict[str, int]:
    return {
        matrix.tensor: matrix.traps.count
        for matrix in report.matrices
        if min(matrix.shape) >= LEAST_SIDE and matrix.traps and matrix.traps.top_z and matrix.traps.top_z > 15
    }


def test_strong_traps_are_in_exactly_five_matrices(minilm: Path) -> None:
    assert strong_traps(audit(minilm)) == STRONG


def test_a_fine_tune_inherits_them(minilm_sre: Path) -> None:
    assert strong_traps(audit(minilm_sre)) == STRONG


def test_every_strong_trap_is_an_entry_named_in_its_place(minilm: Path) -> None:
    tensors = load_file(minilm / "model.safetensors")
    for matrix in audit(minilm).matrices:
        if matrix.tensor not in STRONG:
            continue
        assert matrix.traps is not None
        stored = tensors[matrix.tensor]
        largest = np.argsort(np.abs(stored), axis=None)[::-1][: STRONG[matrix.tensor]]
        places = [tuple(int(k) for k in np.unravel_index(flat, stored.shape)) for flat in largest]
        causes = [trap.cause for trap in matrix.traps.found]
        assert [cause.kind for cause in causes] == ["entry"] * len(places)
        assert {(cause.row, cause.column) for cause in causes} == set(places)
        assert all(cause.value == stored[cause.row, cause.column] for cause in causes)


def test_the_entry_of_175_deviations(minilm: Path) -> None:
    tensor = "encoder.layer.0.output.dense.weight"
    (matrix,) = [m for m in audit(minilm).matrices if m.tensor == tensor]
    assert matrix.traps is not None
    (trap,) = matrix.traps.found

    stored = load_file(minilm / "model.safetensors")[tensor]
    mean, deviation = bulk_moments(stored)

    assert trap.cause.value is not None
    assert trap.cause.sigmas == pytest.approx((trap.cause.value - mean) / deviation, rel=1e-4)
    # In deviations of all entries, this one included, it stands at 175, and its strength is 9.4
    share = deviation / float(stored.std(dtype=np.float64))
    assert abs(trap.cause.sigmas) * share == pytest.approx(175, abs=1)
    assert trap.strength * share**2 == pytest.approx(9.4, abs=0.1)


def test_two_more_matrices_lie_at_the_edge(minilm: Path) -> None:
    # One shuffle in ten puts either over the edge; the first fifteen have both
    report = audit(minilm, include=AT_THE_EDGE, shuffles=15, seed=1)

    assert {matrix.tensor for matrix in report.matrices} == set(AT_THE_EDGE)
    for traps in traps_of(report).values():
        assert (traps.method, traps.shuffles) == ("measured", 25)  # some showed one: ten more were drawn
        # Some shuffles have a trap and most have none, and the report says so
        assert (traps.low, traps.count, traps.high) == (0, 0, 1)
        assert traps.top_z_low is not None
        assert traps.top_z_high is not None
        assert traps.top_z_low < EDGE_Z < traps.top_z_high < 15


def test_by_default_the_edge_is_looked_at_five_times_and_in_doubt_25(minilm: Path) -> None:
    found = {matrix.tensor: matrix.traps for matrix in audit(minilm).matrices}
    for tensor in AT_THE_EDGE:
        traps = found[tensor]
        assert traps is not None
        assert (traps.method, traps.shuffles, traps.count) == ("measured", 25 if traps.high else 5, 0)
        assert traps.top_z is not None
        assert EDGE_Z - 4 < traps.top_z < EDGE_Z


@pytest.mark.parametrize("name", ["minilm", pytest.param("minilm_sre", marks=pytest.mark.thorough)])
def test_certified_matrices_hold_no_trap(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    automatic = traps_of(audit(folder))
    measured = traps_of(audit(folder, traps="measure", alpha=False))

    certified = [key for key, traps in automatic.items() if traps.method == "certified"]
    assert len(certified) > 25
    assert {key: (measured[key].method, measured[key].high) for key in certified} == dict.fromkeys(
        certified, ("measured", 0)
    )
    # What is not certified is shuffled the same way in both
    for key in automatic.keys() - set(certified):
        assert automatic[key].found == measured[key].found
        assert (automatic[key].low, automatic[key].count, automatic[key].high) == (
            measured[key].low,
            measured[key].count,
            measured[key].high,
        )


@pytest.mark.parametrize("name", ["minilm", "minilm_sre"])
def test_every_tensor_is_accounted_for(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    report = audit(folder)

    assert unaccounted_tensors(folder, report) == (set(), set())
    assert report.coverage.planned == report.coverage.audited == len(report.matrices)


def test_workers_and_repetition_change_nothing(minilm: Path) -> None:
    one = audit(minilm)
    two = llmtrap.audit(str(minilm), llmtrap.AuditSettings(), workers=2)

    assert without_times(two) == without_times(one)


@pytest.mark.skipif(find_spec("weightwatcher") is None, reason="needs the extra 'weightwatcher'")
def test_alpha_and_norms_are_weightwatchers(minilm: Path) -> None:
    tensors = {
        name: t for name, t in load_file(minilm / "model.safetensors").items() if t.ndim == 2 and t.dtype == "f4"
    }
    reference = run_weightwatcher(tensors)
    ours = {matrix.tensor: matrix for matrix in matrices_of(audit(minilm)).values()}

    # The table of positions, which it fits too, is no weight to us.
    del reference["embeddings.position_embeddings.weight"]
    # It leaves out the 2 × 384 token types: too few eigenvalues to fit, which the report marks
    assert ours.keys() - reference.keys() == {"embeddings.token_type_embeddings.weight"}
    assert reference.keys() <= ours.keys()
    for name, theirs in reference.items():
        spectrum = ours[name].spectrum
        assert spectrum is not None
        assert spectrum.spectral_norm == pytest.approx(theirs.spectral_norm, rel=1e-5)
        assert spectrum.frobenius_norm == pytest.approx(theirs.frobenius_norm, rel=1e-5)
        matrix = tensors[name]
        esd = compute_esd(lambda matrix=matrix: [matrix], matrix.shape, NumpyBackend())
        fit = fit_power_law(esd.eigenvalues, floor=FLOOR)
        assert fit is not None
        assert fit.tail == theirs.tail, name
        assert fit.alpha == pytest.approx(theirs.alpha, rel=1e-3), name
        assert fit.xmin == pytest.approx(theirs.xmin, rel=1e-3), name
        assert fit.ks == pytest.approx(theirs.ks, rel=1e-3), name
