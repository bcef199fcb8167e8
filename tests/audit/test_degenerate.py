"""What is no ordinary weight matrix, stored in every format and audited from the file: a defined result each time."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.raw_safetensors import header, write

import llmtrap
from llmtrap.audit import AuditSettings
from llmtrap.checkpoint.containers.safetensors import BITS
from llmtrap.checkpoint.encodings.plain import DTYPES
from llmtrap.errors import UnsupportedError
from llmtrap.report.document import Matrix, Report

SHAPE = (60, 56)
Stored = NDArray[np.generic]
FORMATS = sorted(DTYPES)


def report_of(folder: Path, dtype: str, matrix: Stored) -> Report:
    write(folder / "model.safetensors", header({"w.weight": (dtype, matrix.shape)}), matrix.tobytes())
    return llmtrap.audit(str(folder), AuditSettings(traps="measure", shuffles=2), workers=1)


def row_of(folder: Path, dtype: str, matrix: Stored) -> Matrix:
    report = report_of(folder, dtype, matrix)
    assert report.coverage.failed == ()
    (row,) = report.matrices
    assert (row.encoding, row.shape) == (dtype, matrix.shape)
    return row


def fit_of(row: Matrix) -> tuple[float | None, str | None]:
    assert row.alpha is not None
    return row.alpha.value, row.alpha.reason


def filled(dtype: str, value: object) -> Stored:
    return np.full(SHAPE, value, dtype=np.float64).astype(DTYPES[dtype])


def largest(dtype: str) -> float:
    """The greatest number of a format; of F64 the greatest whose square it has too."""
    return 1e140 if dtype == "F64" else float(ml_dtypes.finfo(DTYPES[dtype]).max)


def smallest(dtype: str) -> float:
    """The least denormal of a format; of F64 a number whose square it has too."""
    return 1e-138 if dtype == "F64" else float(ml_dtypes.finfo(DTYPES[dtype]).smallest_subnormal)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("what", ["zero", "minus zero", "one", "largest", "smallest"])
def test_a_constant_has_rank_one_or_none_and_nothing_to_shuffle(tmp_path: Path, dtype: str, what: str) -> None:
    values = {"zero": 0.0, "minus zero": -0.0, "one": 1.0, "largest": largest(dtype), "smallest": smallest(dtype)}
    row = row_of(tmp_path, dtype, filled(dtype, values[what]))
    assert row.spectrum is not None
    assert row.traps is not None
    rank = int(values[what] != 0)
    assert fit_of(row) == (None, "no tail to fit: fewer than two distinct eigenvalues")
    assert (row.non_finite, row.spectrum.hard_rank) == (None, rank)
    assert (row.traps.method, row.traps.count, row.traps.edge) == ("certified", 0, None)
    assert row.spectrum.stable_rank == pytest.approx(rank)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("scale", [smallest, largest])
def test_one_entry_of_any_size_is_one_trap_with_its_place(tmp_path: Path, dtype: str, scale: object) -> None:
    value = scale(dtype)  # type: ignore[operator]
    matrix = filled(dtype, 0)
    matrix[40, 17] = DTYPES[dtype].type(value)
    row = row_of(tmp_path, dtype, matrix)
    assert row.spectrum is not None
    assert row.traps is not None
    assert (fit_of(row)[0], row.spectrum.hard_rank) == (None, 1)
    causes = [(trap.cause.kind, trap.cause.row, trap.cause.column, trap.cause.value) for trap in row.traps.found]
    assert causes == [("entry", 40, 17, value)]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("scale", [smallest, largest])
def test_the_ends_of_a_format_are_measured_as_its_middle(tmp_path: Path, dtype: str, scale: object) -> None:
    """Denormals alone, or nothing but the greatest numbers: α and counts are those of the same pattern of ones."""
    signs = np.sign(np.random.default_rng(7).standard_normal(SHAPE))
    found = []
    for size in (1.0, scale(dtype)):  # type: ignore[operator]
        row = row_of(tmp_path, dtype, (signs * size).astype(DTYPES[dtype]))
        assert row.alpha is not None
        assert row.traps is not None
        found.append((row.alpha.tail, row.traps.method, row.traps.count, row.traps.kurtosis, row.alpha.value))
    assert found[1][:3] == found[0][:3]
    assert found[1][3:] == pytest.approx(found[0][3:], rel=1e-6)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_a_finding_with_its_place(tmp_path: Path, dtype: str, value: float) -> None:
    matrix = filled(dtype, 1)
    matrix[40, 17] = DTYPES[dtype].type(value)
    row = row_of(tmp_path, dtype, matrix)
    # F8_E4M3 has no infinity: what is cast to it is no number.
    infinite = np.isinf(value) and dtype != "F8_E4M3"
    assert row.non_finite is not None
    assert row.non_finite.model_dump() == {"nan": int(not infinite), "inf": int(infinite), "row": 40, "column": 17}
    assert (row.alpha, row.spectrum, row.traps) == (None, None, None)


@pytest.mark.parametrize("value", [1e-200, 5e-324, 1e200, 1.7e308])
def test_float64_whose_squares_leave_it_fails_and_says_so(tmp_path: Path, value: float) -> None:
    (failed,) = report_of(tmp_path, "F64", filled("F64", value)).coverage.failed
    assert "leave the range of float64" in failed.error


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (50_000, 8), (8, 50_000)])
@pytest.mark.parametrize("dtype", ["F32", "F8_E5M2"])
def test_narrow_matrices_have_norms_and_no_claim(tmp_path: Path, dtype: str, shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(1).standard_normal(shape).astype(DTYPES[dtype])
    row = row_of(tmp_path, dtype, matrix)
    assert row.spectrum is not None
    assert row.traps is not None
    norm = np.linalg.norm(matrix.astype(np.float64))
    assert row.spectrum.frobenius_norm == pytest.approx(norm, rel=1e-6)
    assert row.alpha is None or (not row.alpha.reliable and row.alpha.band is None)
    assert not row.traps.reliable


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (0, 3, 4), (3, 0, 4)])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_an_empty_tensor_is_skipped_with_the_reason(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    report = report_of(tmp_path, dtype, np.zeros(shape, DTYPES[dtype]))
    assert report.matrices == ()
    assert [(item.tensor, item.reason) for item in report.coverage.skipped] == [("w.weight", "empty tensor")]


SKIPPED = {"C64": "complex numbers (C64)", "F8_E8M0": "F8_E8M0 without a weight that it belongs to"}


@pytest.mark.parametrize("dtype", sorted(BITS.keys() - DTYPES.keys()))
def test_a_format_without_a_reading_is_refused_or_skipped_by_its_name(tmp_path: Path, dtype: str) -> None:
    matrix = np.zeros((8, BITS[dtype]), np.uint8)
    fields = {"w.weight": {"dtype": dtype, "shape": [8, 8], "data_offsets": [0, matrix.size]}}
    write(tmp_path / "model.safetensors", fields, matrix.tobytes())
    if dtype in SKIPPED:
        report = llmtrap.audit(str(tmp_path), workers=1)
        assert [(item.tensor, item.reason) for item in report.coverage.skipped] == [("w.weight", SKIPPED[dtype])]
    else:
        with pytest.raises(UnsupportedError, match=dtype):
            llmtrap.audit(str(tmp_path), workers=1)
