"""Plain encodings: every code decodes as torch decodes it, and histograms count what decoding gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from llmtrap.checkpoint import Checkpoint

Save = Callable[..., Checkpoint]

NARROW = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@pytest.mark.parametrize("dtype", NARROW)
def test_every_code_of_a_narrow_format_decodes_as_in_torch(save: Save, dtype: str) -> None:
    width = NARROW[dtype].itemsize
    codes = torch.arange(1 << (8 * width), dtype=torch.int32).to(torch.uint16 if width == 2 else torch.uint8)
    stored = codes.view(NARROW[dtype]).reshape(16, -1)
    checkpoint = save({"w.weight": stored})
    (matrix,) = checkpoint.matrices
    assert matrix.encoding == dtype
    values = matrix.read(checkpoint.source)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, stored.float().numpy())
    packed = matrix.stored.packed(checkpoint.source, None, 2, 5)
    assert packed is not None
    assert packed.codes.tobytes() == codes.reshape(16, -1)[2:5].numpy().tobytes()


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("F64", torch.float64), ("F32", torch.float32)])
def test_wide_formats_keep_every_bit(save: Save, dtype: str, torch_dtype: torch.dtype) -> None:
    stored = torch.randn(7, 5, dtype=torch_dtype, generator=torch.Generator().manual_seed(0)) * 1e-30
    checkpoint = save({"w.weight": stored})
    (matrix,) = checkpoint.matrices
    values = matrix.read(checkpoint.source)
    assert (matrix.encoding, values.dtype) == (dtype, stored.numpy().dtype)
    assert values.tobytes() == stored.numpy().tobytes()
    assert matrix.histogram(checkpoint.source) is None
    assert matrix.packed_blocks(checkpoint.source) is None


@pytest.mark.parametrize("dtype", NARROW)
def test_a_histogram_counts_the_decoded_values(save: Save, dtype: str) -> None:
    stored = torch.randn(3, 40, 50, generator=torch.Generator().manual_seed(1)).to(NARROW[dtype])
    stored[1, 0, :3] = torch.tensor([0.0, -0.0, float("nan")]).to(NARROW[dtype])
    checkpoint = save({"experts.w": stored})
    for matrix in checkpoint.matrices:
        counted = matrix.histogram(checkpoint.source)
        assert counted is not None
        values, counts = np.unique(matrix.read(checkpoint.source).astype(np.float64), return_counts=True)
        np.testing.assert_array_equal(counted[0], values)
        np.testing.assert_array_equal(counted[1], counts)
        assert counted[1].sum() == matrix.size
    assert len(checkpoint.matrices) == 3
