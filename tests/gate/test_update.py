"""ΔW of changed matrices, against a plain singular value decomposition."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.adapters import singular_values
from llmtrap.gate.document import Update
from llmtrap.gate.update import measure_update
from llmtrap.spectra.backends import NumpyBackend


def updates(tmp_path: Path, now: np.ndarray, was: np.ndarray) -> dict[str, Update]:
    opened = []
    for name, values in (("now", now), ("was", was)):
        (tmp_path / name).mkdir(exist_ok=True)
        save_file({"w.weight": values}, tmp_path / name / "model.safetensors")
        opened.append(open_checkpoint(str(tmp_path / name)))
    one, other = opened
    found = {}
    for mine, theirs in zip(one.matrices, other.matrices, strict=True):
        update = measure_update(mine, theirs, one.source, other.source, NumpyBackend())
        if update is not None:
            found[mine.id] = update
    return found


@pytest.mark.parametrize("shape", [(300, 80), (80, 300), (64, 64), (5, 1), (1, 7), (20_000, 60)])
def test_norms_of_the_update_are_those_of_its_singular_values(tmp_path: Path, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    was = rng.standard_normal(shape).astype(np.float32)
    change = 0.01 * rng.standard_normal(shape).astype(np.float32)
    change[shape[0] // 2, shape[1] // 2] = 0.9
    now = was + change
    update = updates(tmp_path, now, was)["w"]
    values = np.linalg.svd((now - was).astype(np.float64), compute_uv=False)
    assert update.spectral_norm == pytest.approx(values[0], rel=1e-5)
    assert update.frobenius_norm == pytest.approx(np.sqrt((values**2).sum()), rel=1e-5)
    assert update.stable_rank == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-4)
    assert update.relative == pytest.approx(np.linalg.norm(now - was) / np.linalg.norm(was), rel=1e-5)
    assert (update.row, update.column) == (shape[0] // 2, shape[1] // 2)
    assert update.now - update.was == pytest.approx(0.9, rel=1e-4)


def test_formats_may_differ(tmp_path: Path) -> None:
    was = np.random.default_rng(1).standard_normal((90, 40)).astype(np.float32)
    update = updates(tmp_path, was.astype(ml_dtypes.bfloat16), was)["w"]
    rounding = was.astype(ml_dtypes.bfloat16).astype(np.float32) - was
    assert update.frobenius_norm == pytest.approx(np.linalg.norm(rounding), rel=1e-5)


def test_no_change_of_values_has_norm_zero_and_broken_values_have_no_update(tmp_path: Path) -> None:
    was = np.ones((10, 12), dtype=np.float32)
    assert updates(tmp_path, was, was)["w"].spectral_norm == 0
    broken = was.copy()
    broken[3, 4] = np.nan
    assert updates(tmp_path, broken, was) == {}


@settings(deadline=None, max_examples=40)
@given(out=st.integers(1, 40), into=st.integers(1, 40), rank=st.integers(1, 12), seed=st.integers(0, 2**16))
def test_singular_values_of_a_product_without_the_product(out: int, into: int, rank: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((out, rank)), rng.standard_normal((rank, into))
    values = singular_values(left, right)
    expected = np.linalg.svd(left @ right, compute_uv=False)
    assert values.size == min(out, into, rank)
    np.testing.assert_allclose(values, expected[: values.size], atol=1e-9 * expected[0])
    np.testing.assert_allclose(expected[values.size :], 0, atol=1e-9 * expected[0])
