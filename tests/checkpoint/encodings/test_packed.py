"""What travels as it is stored is decoded on a device to the same bits as on the host, whatever the bytes are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import array_api_compat.numpy
import array_api_compat.torch
import array_api_strict
import numpy as np
import pytest
import torch

from llmtrap.checkpoint import Checkpoint, Stripes, WeightMatrix
from llmtrap.spectra.backends.decoding import ArrayApiDecoder

Save = Callable[..., Checkpoint]
Tensors = dict[str, torch.Tensor]

DECODERS = {
    "numpy": lambda: ArrayApiDecoder(array_api_compat.numpy),
    "torch": lambda: ArrayApiDecoder(array_api_compat.torch, "cpu"),
    "strict": lambda: ArrayApiDecoder(array_api_strict),
    "another device": lambda: ArrayApiDecoder(array_api_strict, array_api_strict.Device("device1")),
}
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> ArrayApiDecoder:
    return DECODERS[request.param]()


def random_bytes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def mxfp4() -> Tensors:
    scales = random_bytes(2, 37, 3, seed=1)
    scales[:, :3, :] = torch.tensor([0, 254, 255], dtype=torch.uint8)
    return {"experts.up_blocks": random_bytes(2, 37, 3, 16), "experts.up_scales": scales}


def fp8(shape: tuple[int, ...], grid: tuple[int, ...], dtype: torch.dtype, scales: torch.dtype) -> Tensors:
    name = "w.weight" if len(shape) == 2 else "experts.up"
    weight = random_bytes(*shape).view(dtype)
    if scales == torch.float8_e8m0fnu:
        factors = random_bytes(*grid, seed=1).view(scales)
    else:
        factors = torch.rand(grid, generator=torch.Generator().manual_seed(1)).to(scales)
    return {name: weight, f"{name}_scale_inv": factors}


TENSORS: dict[str, Callable[[], Tensors]] = {
    "MXFP4": mxfp4,
    "MXFP4 matrix": lambda: {name: tensor[0] for name, tensor in mxfp4().items()},
    "BF16": lambda: {"w.weight": random_bytes(60, 140).view(torch.bfloat16)},
    "F16": lambda: {"w.weight": random_bytes(60, 140).view(torch.float16)},
    **{f"plain {dtype}": lambda dtype=dtype: {"w.weight": random_bytes(60, 70).view(dtype)} for dtype in FP8},
    **{
        f"{dtype}, scales {scales}, grid {grid}": lambda grid=grid, dtype=dtype, scales=scales: fp8(
            (60, 70), grid, dtype, scales
        )
        for grid in ((), (60,), (60, 1), (2, 3), (4, 5), (1, 70))
        for dtype in FP8
        for scales in (torch.float32, torch.bfloat16, torch.float8_e8m0fnu)
    },
    "FP8 experts": lambda: fp8((3, 60, 70), (3, 2, 3), FP8[0], torch.float32),
    "FP8 experts, a scale each": lambda: fp8((3, 60, 70), (3,), FP8[0], torch.float32),
}


def assert_equal_bits(decoder: ArrayApiDecoder, matrix: WeightMatrix, checkpoint: Checkpoint, entries: int) -> None:
    """Equal to the last bit, the sign of zero included; NaN stays NaN, whatever its bits."""
    blocks = [block.copy() for block in matrix.blocks(checkpoint.source, entries)]
    packed = matrix.packed_blocks(checkpoint.source, entries)
    assert packed is not None
    found = [decoder.to_host(decoder.decode(decoder.send(block))) for block in packed]
    assert [block.shape for block in found] == [block.shape for block in blocks]
    for mine, theirs in zip(found, blocks, strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
        known = ~np.isnan(theirs)
        assert mine[known].tobytes() == theirs[known].tobytes()


@pytest.mark.parametrize("name", TENSORS)
def test_a_device_decodes_to_the_bits_of_the_host(save: Save, decoder: ArrayApiDecoder, name: str) -> None:
    checkpoint = save(TENSORS[name]())
    assert checkpoint.matrices
    for matrix in checkpoint.matrices:
        for entries in (1 << 22, 1000, 70):
            assert_equal_bits(decoder, matrix, checkpoint, entries)


@pytest.mark.parametrize("name", ["MXFP4", "BF16", "FP8 experts"])
@pytest.mark.parametrize("rows", [None, Stripes(0, 12, 12, 12), Stripes(1, 2, 1, 18), Stripes(3, 17, 16, 32)])
@pytest.mark.parametrize("columns", [None, Stripes(1, 2, 1, 30)])
def test_parts_of_fused_matrices_too(
    save: Save, decoder: ArrayApiDecoder, name: str, rows: Stripes | None, columns: Stripes | None
) -> None:
    checkpoint = save(TENSORS[name]())
    whole = checkpoint.matrices[-1]
    shape = (
        whole.shape[0] if rows is None else rows.count,
        whole.shape[1] if columns is None else columns.count,
    )
    part = replace(whole, rows=rows, columns=columns, shape=shape)
    for entries in (1 << 22, 1000):
        assert_equal_bits(decoder, part, checkpoint, entries)


def test_codes_travel_and_no_floats_but_few_scales(save: Save) -> None:
    for name, bytes_an_entry in (("MXFP4", 17 / 32), ("BF16", 2), ("FP8 experts", 1)):
        checkpoint = save(TENSORS[name]())
        matrix = checkpoint.matrices[0]
        packed = matrix.packed_blocks(checkpoint.source)
        assert packed is not None
        factors = 4 * 2 * 3 if name == "FP8 experts" else 0
        assert sum(block.size for block in packed) == matrix.size * bytes_an_entry + factors


def test_a_table_is_sent_once(save: Save) -> None:
    sent: list[np.ndarray] = []

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(array_api_compat.numpy, name)

        def asarray(self, array: np.ndarray, **options: object) -> np.ndarray:
            sent.append(array)
            return array_api_compat.numpy.asarray(array, **options)

    checkpoint = save(TENSORS["BF16"]())
    decoder = ArrayApiDecoder(Counting())
    for _ in range(2):
        for block in checkpoint.matrices[0].packed_blocks(checkpoint.source, 1000) or ():
            decoder.send(block)
    assert sum(array.nbytes for array in sent) == 2 * 60 * 70 * 2 + 65536 * 4
