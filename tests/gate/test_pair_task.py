"""Pairs of matrices too large to keep: both sides are read once, and everything comes out as where they are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from llmtrap.audit.timing import Stages
from llmtrap.checkpoint import LocalSource, open_checkpoint
from llmtrap.checkpoint.sources import ByteRange, Bytes
from llmtrap.errors import CheckpointError
from llmtrap.gate import kept
from llmtrap.gate.pair_task import Compared, PairSource, PairTask, measure_pair
from llmtrap.report.document import Matrix
from llmtrap.spectra import AnalysisSettings
from llmtrap.spectra.backends import NumpyBackend

ROWS, COLUMNS = 40_000, 32  # more than one block
SETTINGS = AnalysisSettings(paired=True)


class Tape(LocalSource):
    """A local source that counts what it gives out, and fails from one place on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.given = 0
        self.broken_from: int | None = None

    def _fill(self, span: ByteRange, out: Bytes) -> None:
        if self.broken_from is not None and span.stop > self.broken_from:
            raise CheckpointError("cut short", file=span.file)
        self.given += span.size
        super()._fill(span, out)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    was = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    was[12, 3] = 90
    now = was + np.float32(0.01) * rng.standard_normal(was.shape).astype(np.float32)
    now[39_001, 5] = 80
    paths = []
    for name, values in (("now", now), ("was", was)):
        paths.append(tmp_path_factory.mktemp("pairs") / name)
        paths[-1].mkdir()
        save_file({"w.weight": values.astype(ml_dtypes.bfloat16)}, paths[-1] / "model.safetensors")
    return paths[0], paths[1]


def measured(
    sides: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    *,
    large: bool,
    broken_from: int | None = None,
    **known: Any,
) -> tuple[Matrix, Compared, list[float]]:
    if large:
        monkeypatch.setattr("llmtrap.spectra.matrix_data.HELD_ENTRIES", 100)
        monkeypatch.setattr(kept, "KEPT_BYTES", 100)
    tapes = [Tape(path) for path in sides]
    now, was = (open_checkpoint(str(path)).matrices[0] for path in sides)
    tapes[1].broken_from = broken_from
    task = PairTask(now, "key", 1.0, 1, was, **known)
    found, more = measure_pair(task, PairSource(*tapes), SETTINGS, NumpyBackend(), Stages())
    assert isinstance(more, Compared)
    return found, more, [tape.given / (2 * ROWS * COLUMNS) for tape in tapes]


@pytest.fixture(scope="module")
def whole(sides: tuple[Path, Path]) -> tuple[Matrix, Compared, list[float]]:
    with pytest.MonkeyPatch.context() as patch:
        return measured(sides, patch, large=True)


def alike(one: Matrix, other: Matrix) -> bool:
    """But for how long it took, and the shuffles, which are drawn from the values of what is not held."""
    keep = ("id", "shape", "non_finite", "all_zero")
    assert one.spectrum is not None
    assert other.spectrum is not None
    assert one.spectrum.frobenius_norm == pytest.approx(other.spectrum.frobenius_norm, rel=1e-6)
    assert one.spectrum.spectral_norm == pytest.approx(other.spectrum.spectral_norm, rel=1e-6)
    assert one.traps is not None
    assert other.traps is not None
    causes = [{(t.cause.kind, t.cause.row, t.cause.column) for t in m.traps.found} for m in (one, other) if m.traps]
    return causes[0] == causes[1] and all(getattr(one, name) == getattr(other, name) for name in keep)


def test_both_sides_of_a_large_pair_are_read_once(
    sides: tuple[Path, Path], whole: tuple[Matrix, Compared, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = measured(sides, monkeypatch, large=False), whole
    assert small[2] == [1, 1]
    assert max(large[2]) <= 1.01
    assert alike(small[0], large[0])
    assert small[1].base is not None
    assert large[1].base is not None
    assert alike(small[1].base, large[1].base)
    assert large[1].update == small[1].update
    assert large[1].base_at == small[1].base_at != {}
    assert large[1].now_at == small[1].now_at != {}
    assert (39_001, 5) in large[1].base_at


@pytest.mark.parametrize("side", ["now_known", "base_known", "both"])
def test_a_side_that_the_journal_knows_is_read_for_the_change_alone(
    sides: tuple[Path, Path], whole: tuple[Matrix, Compared, list[float]], monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    known = {"now_known": whole[0], "base_known": whole[1].base}
    _, more, given = measured(sides, monkeypatch, large=True, **(known if side == "both" else {side: known[side]}))
    assert max(given) <= 1.01
    assert replace(more, base=None) == replace(whole[1], base=None)


def test_a_base_that_breaks_off_leaves_the_target_measured(
    sides: tuple[Path, Path], whole: tuple[Matrix, Compared, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, more, _ = measured(sides, monkeypatch, large=True, broken_from=2_300_000)
    assert alike(found, whole[0])
    assert (more.base, more.update) == (None, None)
    assert more.base_error is not None
    assert "cut short" in more.base_error


@pytest.mark.parametrize("side", [0, 1])
def test_a_large_matrix_with_nan_is_counted_to_its_end(
    sides: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, side: int
) -> None:
    bad = np.ones((ROWS, COLUMNS), dtype=ml_dtypes.bfloat16)
    bad[7, 2], bad[39_000, 1], bad[39_001, 1] = np.nan, np.nan, np.inf
    save_file({"w.weight": bad}, tmp_path / "model.safetensors")
    paths = [*sides]
    paths[side] = tmp_path
    found, more, given = measured((paths[0], paths[1]), monkeypatch, large=True)
    matrix = (found, more.base)[side]
    assert matrix is not None
    assert matrix.non_finite is not None
    assert (matrix.non_finite.nan, matrix.non_finite.inf, matrix.non_finite.row) == (2, 1, 7)
    assert max(given) <= 1.01
    assert more.update is None
