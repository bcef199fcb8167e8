"""Arrays of JAX, as they are: no copy is made of those on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.support.audits import without_times

import llmtrap
from llmtrap.checkpoint.memory.opening import open_memory

jax = pytest.importorskip("jax", reason="JAX is not installed")


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    values = 0.03 * np.random.default_rng(0).standard_normal((2, 96, 64), dtype=np.float32)
    return {f"model.layers.{k}.mlp.up_proj.weight": jax.numpy.asarray(values[k]) for k in range(2)}


def test_an_audit_is_what_it_is_of_numpy(weights: dict[str, Any]) -> None:
    same = {name: np.asarray(value) for name, value in weights.items()}
    found, expected = (llmtrap.audit(it, name="m", progress=False, workers=1) for it in (weights, same))
    assert without_times(found) == without_times(expected)
    assert found.summary.matrices == 2


def test_nothing_is_copied(weights: dict[str, Any]) -> None:
    checkpoint = open_memory(weights)
    places = {value.unsafe_buffer_pointer() for value in weights.values()}
    for name, span in checkpoint.source.spans.items():  # type: ignore[attr-defined]
        with checkpoint.source.open(span) as data:
            assert data.ctypes.data in places, name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(weights: dict[str, Any], dtype: str) -> None:
    half = {name: value.astype(dtype) for name, value in weights.items()}
    first = llmtrap.audit(half, progress=False, workers=1)
    wide = {name: np.asarray(value.astype("float32")) for name, value in half.items()}
    second = llmtrap.audit(wide, progress=False, workers=1)
    norms = [[m.spectrum.frobenius_norm for m in it.matrices if m.spectrum is not None] for it in (first, second)]
    assert norms[0] == norms[1]
    assert len(norms[0]) == 2
