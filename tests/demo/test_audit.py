"""An audit of the demo finds what was planted, where it was planted, and nothing else."""

from __future__ import annotations

import math

import pytest

import llmtrap
from llmtrap.demo import DEMO_SHAPE, DemoManifest, PlantedTrap, write_demo_checkpoint
from llmtrap.demo.checkpoint import ALPHAS, PLANTED, WELL_TRAINED
from llmtrap.demo.layout import matrix_id, tensor_specs


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoManifest, llmtrap.Report]:
    folder = tmp_path_factory.mktemp("demo") / "checkpoint"
    return write_demo_checkpoint(folder), llmtrap.audit(str(folder))


def test_every_planted_trap_is_found_and_no_other(audited: tuple[DemoManifest, llmtrap.Report]) -> None:
    manifest, report = audited
    expected: dict[str, PlantedTrap] = {trap.matrix: trap for trap in manifest.traps}

    found = {matrix.id: matrix for matrix in report.matrices if matrix.traps and matrix.traps.count}

    assert found.keys() == expected.keys()
    for name, matrix in found.items():
        trap, traps = expected[name], matrix.traps
        assert traps is not None
        assert (matrix.tensor, matrix.expert) == (trap.tensor, trap.expert)
        assert {t.cause.kind for t in traps.found} == {trap.cause}
        assert traps.low > 0
        if trap.cause == "heavy_tail":
            continue
        (only,) = traps.found
        assert (only.cause.row, only.cause.column) == (trap.row, trap.column)
        if trap.cause == "entry":
            assert only.cause.value == trap.value
            assert only.cause.sigmas is not None
            assert math.isclose(only.cause.sigmas, trap.sigmas, rel_tol=1e-3)
        else:
            assert traps.mean is not None
            assert math.isclose(traps.mean, trap.value, rel_tol=1e-4)


def test_matrices_without_a_trap_are_certified(audited: tuple[DemoManifest, llmtrap.Report]) -> None:
    _, report = audited

    methods = {matrix.id: matrix.traps.method for matrix in report.matrices if matrix.traps}

    measured = {name for name, method in methods.items() if method == "measured"}
    assert measured == PLANTED.keys() | {f"layers.{layer}.router" for layer in range(DEMO_SHAPE.layers)}
    assert set(methods.values()) == {"measured", "certified"}


def test_the_bands_are_as_made(audited: tuple[DemoManifest, llmtrap.Report]) -> None:
    _, report = audited

    fits = {m.id: m.alpha for m in report.matrices if m.alpha and m.id not in PLANTED and m.role != "router"}

    assert len(fits) == 6 * 12 + 2 - len(PLANTED)
    for name, fit in fits.items():
        assert fit.reliable, name
        assert fit.value is not None
        # Rounding to MXFP4 and a tail of about 75 eigenvalues leave the fit this close to what was made
        low, high = (ALPHAS[name],) * 2 if name in ALPHAS else WELL_TRAINED
        assert 0.93 * low < fit.value < 1.07 * high, name


def test_every_tensor_is_accounted_for(audited: tuple[DemoManifest, llmtrap.Report]) -> None:
    _, report = audited

    audited_tensors = {matrix.tensor for matrix in report.matrices}
    skipped = {skip.tensor for skip in report.coverage.skipped}
    parts = {name.replace("_blocks", "_scales") for name in audited_tensors if name.endswith("_blocks")}

    assert audited_tensors | skipped | parts == {spec.name for spec in tensor_specs(DEMO_SHAPE)}
    assert not audited_tensors & skipped
    assert {m.id for m in report.matrices} == {
        matrix_id(spec.name, expert)
        for spec in tensor_specs(DEMO_SHAPE)
        for expert in (range(DEMO_SHAPE.experts) if spec.name.endswith("_blocks") else (None,))
        if matrix_id(spec.name, expert)
    }
