"""The same seed draws the same shuffles, with α and without, however a matrix is stored and whatever its size."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.raw_safetensors import header, write

import llmtrap
from llmtrap.audit import AuditSettings
from llmtrap.spectra import shuffle
from llmtrap.spectra.shuffle import drawn_from_histogram

SMALL, LARGE = (256, 640), (640, 640)


def heavy(shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    return (0.02 * np.random.default_rng(seed).standard_t(4.3, shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("kind", ["BF16", "F16", "F32", "F32 of few values"])
def test_counts_are_those_of_the_seed_with_and_without_alpha(tmp_path: Path, shape: tuple[int, int], kind: str) -> None:
    dtype, data = kind.partition(" ")[0], {}
    for k in range(3):
        matrix = heavy(shape, k).astype(ml_dtypes.bfloat16) if kind == "F32 of few values" else heavy(shape, k)
        data[f"layers.{k}.k_proj.weight"] = matrix.astype({"BF16": ml_dtypes.bfloat16, "F16": "f2"}.get(dtype, "f4"))
    fields = header({name: (dtype, value.shape) for name, value in data.items()})
    write(tmp_path / "model.safetensors", fields, b"".join(value.tobytes() for value in data.values()))
    both = [llmtrap.audit(str(tmp_path), AuditSettings(alpha=alpha)).matrices for alpha in (True, False)]
    assert any(m.traps is not None and m.traps.method == "measured" for m in both[0])
    for with_alpha, without in zip(*both, strict=True):
        assert with_alpha.traps is not None
        assert without.traps is not None
        if without.traps.method == with_alpha.traps.method:
            assert without.traps.top_z == pytest.approx(with_alpha.traps.top_z, abs=1e-3)
        assert (without.traps.count, without.traps.centred) == (with_alpha.traps.count, with_alpha.traps.centred)


VALUES = np.array([-2.0, -1.0, 0.0, 0.5, 3.0])
COUNTS = np.array([40, 300, 500, 159, 1])


def test_more_entries_than_numpy_draws_from_are_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a lowered limit: every entry comes once, and the first block holds as many of each value as it should."""
    monkeypatch.setattr(shuffle, "MOST_DRAWN", 300)
    rng, total, block, runs = np.random.default_rng(1), int(COUNTS.sum()), 100, 600
    first = np.zeros((runs, VALUES.size))
    for run in range(runs):
        blocks = [piece.copy() for piece in drawn_from_histogram(VALUES, COUNTS, block, rng)]
        assert [piece.size for piece in blocks] == [block] * (total // block)
        whole = np.sort(np.concatenate(blocks))
        np.testing.assert_array_equal(whole, np.repeat(VALUES, COUNTS).astype(np.float32))
        first[run] = [(blocks[0] == value).sum() for value in VALUES]
    # Mean and variance of the multivariate hypergeometric law, within five standard errors.
    share = COUNTS / total
    mean, variance = block * share, block * share * (1 - share) * (total - block) / (total - 1)
    assert np.all(np.abs(first.mean(0) - mean) < 5 * np.sqrt(variance / runs))
    assert first.var(0) == pytest.approx(variance, rel=0.25)


def test_streams_under_the_limit_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [piece.copy() for piece in drawn_from_histogram(VALUES, COUNTS, 100, np.random.default_rng(2))]
    monkeypatch.setattr(shuffle, "MOST_DRAWN", int(COUNTS.sum()) + 1)
    again = [piece.copy() for piece in drawn_from_histogram(VALUES, COUNTS, 100, np.random.default_rng(2))]
    for before, after in zip(drawn, again, strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_limit_is_numpys() -> None:
    rng = np.random.default_rng(0)
    rng.multivariate_hypergeometric([shuffle.MOST_DRAWN - 2, 1], 1, method="marginals")
    with pytest.raises(ValueError, match="less than"):
        rng.multivariate_hypergeometric([shuffle.MOST_DRAWN - 1, 1], 1, method="marginals")


def test_a_block_of_a_billion_entries_is_drawn() -> None:
    counts = np.full(1 << 10, (1 << 20) + 1)
    (values, size) = np.linspace(-1, 1, counts.size), 1 << 18
    block = next(drawn_from_histogram(values, counts, size, np.random.default_rng(0)))
    assert block.size == size
    assert abs(float(block.mean())) < 5 / np.sqrt(3 * size)
