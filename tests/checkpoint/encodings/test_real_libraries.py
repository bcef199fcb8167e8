"""Quantised by the libraries themselves, read here, and equal to what they dequantise in float32, to the last bit.

Each library is asked for alone and its tests are skipped where it is not installed: none is needed to run llmtrap, and
together they are 3 GB. `pip install --no-deps compressed-tensors torchao optimum-quanto hqq bitsandbytes mlx mlx-cpu
nvidia-modelopt gptqmodel` installs what these tests ask for beside the development environment: `nox -s formats` does,
and lets none be skipped.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llmtrap.checkpoint import Checkpoint, open_checkpoint

# These libraries warn of one another, of this machine's processor and of torch's own names.
pytestmark = pytest.mark.filterwarnings("ignore")

MODULE = "model.layers.0.self_attn.q_proj"


def library(name: str) -> ModuleType:
    """The library's module; where all must be there, it is no reason to skip that one is not."""
    if os.environ.get("LLMTRAP_EVERY_LIBRARY"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed", exc_type=ImportError)


def weights(rows: int, columns: int) -> torch.Tensor:
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * columns)) * 0.05
    values[rows // 2, columns // 3] = 1.5
    return values


def saved(
    folder: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any], metadata: dict[str, str] | None = None
) -> Checkpoint:
    contiguous = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / "model.safetensors", metadata=metadata)
    (folder / "config.json").write_text(json.dumps(config))
    return open_checkpoint(str(folder))


def assert_reads(checkpoint: Checkpoint, expected: torch.Tensor) -> None:
    """The one matrix, read whole and in blocks that end anywhere, and what a device would be sent."""
    (matrix,) = checkpoint.matrices
    values = expected.detach().float().numpy()
    assert matrix.shape == values.shape
    for entries in (1 << 22, 3 * values.shape[1], 1):
        blocks = [block.copy() for block in matrix.blocks(checkpoint.source, entries)]
        np.testing.assert_array_equal(np.vstack(blocks), values)
    assert matrix.packed_blocks(checkpoint.source) is not None
    assert {item.tensor for item in checkpoint.skipped} <= {
        f"{MODULE}.{name}" for name in ("input_scale", "output_scale", "bias")
    }


@pytest.mark.parametrize("shape", [(48, 256), (40, 208), (33, 77)])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(("strategy", "group"), [("channel", None), ("group", 64), ("group", 16)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_packed_integers_of_compressed_tensors(
    tmp_path: Path, shape: tuple[int, int], bits: int, strategy: str, group: int | None, symmetric: bool
) -> None:
    quantization = library("compressed_tensors.quantization")
    compressor = library("compressed_tensors.compressors.pack_quantized.base").PackedQuantizationCompressor
    if group is not None and shape[1] % group:
        pytest.skip("the library quantises no ragged groups")
    args = quantization.QuantizationArgs(
        num_bits=bits, type="int", strategy=strategy, group_size=group, symmetric=symmetric
    )
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    groups = shape[1] // group if group else 1
    scale = torch.rand(shape[0], groups) * 0.02 + 0.01
    half = 1 << (bits - 1)
    zero = torch.randint(-half, half, (shape[0], groups), dtype=torch.int8)
    state = {"weight": weights(*shape), "weight_scale": scale}
    if not symmetric:
        state["weight_zero_point"] = zero
    packed = compressor.compress(state, scheme)
    expected = compressor.decompress(packed, scheme)["weight"]
    config = {"quantization_config": {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": bits, "group_size": group}}},
    }}  # fmt: skip
    checkpoint = saved(tmp_path, {f"{MODULE}.{name}": tensor for name, tensor in packed.items()}, config)
    assert_reads(checkpoint, expected)
    assert checkpoint.matrices[0].encoding.startswith(f"INT{bits} ")


@pytest.mark.parametrize("shape", [(48, 256), (33, 80)])
@pytest.mark.parametrize("kind", ["nvfp4", "mxfp4", "mxfp8"])
def test_small_floats_of_compressed_tensors(tmp_path: Path, shape: tuple[int, int], kind: str) -> None:
    quantization = library("compressed_tensors.quantization")
    base = library(f"compressed_tensors.compressors.{kind}.base")
    group = 16 if kind == "nvfp4" else 32
    if shape[1] % group:
        pytest.skip("the library quantises no ragged groups")
    compressor = {
        "nvfp4": "NVFP4PackedCompressor", "mxfp4": "MXFP4PackedCompressor", "mxfp8": "MXFP8QuantizationCompressor",
    }[kind]  # fmt: skip
    args = quantization.QuantizationArgs(
        num_bits=8 if kind == "mxfp8" else 4,
        type="float",
        strategy="tensor_group" if kind == "nvfp4" else "group",
        group_size=group,
        symmetric=True,
        scale_dtype=torch.float8_e4m3fn if kind == "nvfp4" else torch.uint8,
    )
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    blocks = weights(*shape).reshape(shape[0], -1, group).abs().amax(2)
    whole = torch.tensor([448 * 6 / 1.5])
    scale = (blocks / 6 * whole) if kind == "nvfp4" else 2.0 ** torch.floor(torch.log2(blocks)) / 4
    state = {"weight": weights(*shape), "weight_scale": scale}
    if kind == "nvfp4":
        state["weight_global_scale"] = whole
    packed = getattr(base, compressor).compress(state, scheme)
    expected = getattr(base, compressor).decompress(packed, scheme)["weight"]
    checkpoint = saved(tmp_path, {f"{MODULE}.{name}": tensor for name, tensor in packed.items()}, {})
    (matrix,) = checkpoint.matrices
    found = torch.from_numpy(matrix.read(checkpoint.source).copy())
    # The library answers in bfloat16 (and computes in it, with the global scale), whatever it is asked for.
    if kind == "nvfp4":
        torch.testing.assert_close(found, expected.float(), rtol=2**-7, atol=0)
    else:
        assert torch.equal(found.to(expected.dtype), expected)


@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("group", [32, 128, -1])
def test_gptq_of_gptqmodel(tmp_path: Path, version: str, bits: int, act_order: bool, group: int) -> None:
    library("gptqmodel")
    linear_type = library("gptqmodel.nn_modules.qlinear.torch").TorchLinear
    rows, columns = 96, 256
    size = columns if group == -1 else group
    groups = columns // size
    linear = torch.nn.Linear(columns, rows, bias=False)
    generator = torch.Generator().manual_seed(bits)
    scales = torch.rand(rows, groups, generator=generator) * 0.02 + 0.01
    zeros = torch.randint(0, 1 << bits, (rows, groups), generator=generator)
    order = torch.arange(columns) // size
    if act_order:
        order = order[torch.randperm(columns, generator=generator)]
    codes = torch.randint(0, 1 << bits, (rows, columns), generator=generator)
    half_scales = scales.half().float()
    linear.weight.data = (codes - zeros[:, order]) * half_scales[:, order]
    packed = linear_type(
        bits=bits, group_size=group, sym=False, desc_act=act_order, in_features=columns, out_features=rows,
        bias=False, pack_dtype=torch.int32,
    )  # fmt: skip
    packed.pack_original(linear, half_scales, zeros, order.int())
    expected = packed.dequantize_weight().T
    tensors = {name: getattr(packed, name) for name in ("qweight", "qzeros", "scales", "g_idx")}
    if version == "gptq":
        convert = library("gptqmodel.utils.model").convert_gptq_v2_to_v1_format_module
        convert(packed, SimpleNamespace(bits=bits, pack_dtype=torch.int32))
        tensors["qzeros"] = packed.qzeros
    settings = {"quant_method": "gptq", "bits": bits, "group_size": group, "checkpoint_format": version}
    checkpoint = saved(
        tmp_path, {f"{MODULE}.{name}": tensor for name, tensor in tensors.items()}, {"quantization_config": settings}
    )
    (matrix,) = checkpoint.matrices
    found = matrix.read(checkpoint.source)
    np.testing.assert_array_equal(found, linear.weight.detach().numpy())
    np.testing.assert_allclose(found, expected.detach().float().numpy(), rtol=2**-9)
    assert_reads(checkpoint, linear.weight)


@pytest.mark.parametrize("shape", [(48, 256), (33, 80), (20, 77), (7, 130)])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("block", [64, 128])
def test_four_bits_of_bitsandbytes(tmp_path: Path, shape: tuple[int, int], kind: str, nested: bool, block: int) -> None:
    functional = library("bitsandbytes.functional")
    values = weights(*shape)
    codes, state = functional.quantize_4bit(values, blocksize=block, compress_statistics=nested, quant_type=kind)
    absmax = state.absmax
    if nested:
        absmax = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    # Its own CPU kernel is wrong for rows that are no multiple of the block (0.50.2): so from its parts, in float32.
    flat = torch.stack([codes.flatten() >> 4, codes.flatten() & 15], dim=1).flatten()[: values.numel()]
    each = absmax.repeat_interleave(block)[: values.numel()]
    expected = (state.code[flat.long()] * each).reshape(shape)
    tensors = {f"{MODULE}.weight": codes}
    tensors |= {f"{MODULE}.weight.{name}": part for name, part in state.as_dict(packed=True).items()}
    checkpoint = saved(tmp_path, tensors, {"quantization_config": {"quant_method": "bitsandbytes"}})
    assert_reads(checkpoint, expected)


def test_int8_of_bitsandbytes(tmp_path: Path) -> None:
    functional = library("bitsandbytes.functional")
    codes, scales, _ = functional.int8_vectorwise_quant(weights(40, 100))
    expected = functional.int8_vectorwise_dequant(codes, scales)
    tensors = {f"{MODULE}.weight": codes, f"{MODULE}.SCB": scales, f"{MODULE}.weight_format": torch.tensor(0).byte()}
    assert_reads(saved(tmp_path, tensors, {"quantization_config": {"quant_method": "bitsandbytes"}}), expected)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_affine_of_mlx(tmp_path: Path, bits: int, group: int) -> None:
    mlx = library("mlx.core")
    stored = mlx.quantize(mlx.array(weights(48, 384).numpy()), group_size=group, bits=bits)
    expected = torch.from_numpy(np.array(mlx.dequantize(*stored, group_size=group, bits=bits)))
    names = ("weight", "scales", "biases")
    tensors = {f"{MODULE}.{name}": torch.from_numpy(np.array(part)) for name, part in zip(names, stored, strict=True)}
    config = {"quantization": {"bits": 16, "group_size": 1, MODULE: {"bits": bits, "group_size": group}}}
    assert_reads(saved(tmp_path, tensors, config, {"format": "mlx"}), expected)


@pytest.mark.parametrize("mode", ["mxfp4", "nvfp4", "mxfp8"])
def test_floats_of_mlx(tmp_path: Path, mode: str) -> None:
    mlx = library("mlx.core")
    stored = mlx.quantize(mlx.array(weights(48, 384).numpy()), mode=mode)
    expected = torch.from_numpy(np.array(mlx.dequantize(*stored, mode=mode).astype(mlx.float32)))
    tensors = {
        f"{MODULE}.{name}": torch.from_numpy(np.array(part))
        for name, part in zip(("weight", "scales"), stored, strict=True)
    }
    assert_reads(saved(tmp_path, tensors, {"quantization": {"mode": mode}}, {"format": "mlx"}), expected)


def test_int4_of_modelopt(tmp_path: Path) -> None:
    pack = library("modelopt.torch.export.quant_utils").pack_int4_in_uint8
    scales = torch.rand(48, 2) * 0.02 + 0.01
    each = scales.repeat_interleave(128, 1)
    expected = (weights(48, 256) / each).round().clamp(-8, 7) * each
    tensors = {f"{MODULE}.weight": pack(weights(48, 256), scales, 128), f"{MODULE}.weight_scale": scales}
    config = {"quantization_config": {"quant_method": "modelopt", "quant_algo": "W4A16_AWQ", "group_size": 128}}
    assert_reads(saved(tmp_path, tensors, config), expected)


@pytest.mark.parametrize("kind", ["Int8WeightOnlyConfig", "Float8WeightOnlyConfig", "IntxWeightOnlyConfig"])
def test_tensors_of_torchao(tmp_path: Path, kind: str) -> None:
    quantization = library("torchao.quantization")
    flatten = library("torchao.prototype.safetensors.safetensors_support").flatten_tensor_state_dict
    model = torch.nn.Module()
    model.q_proj = torch.nn.Linear(192, 96, bias=False)
    model.q_proj.weight.data = weights(96, 192)
    quantization.quantize_(model, getattr(quantization, kind)())
    expected = model.q_proj.weight.dequantize()
    tensors, metadata = flatten({f"{MODULE}.weight": model.q_proj.weight})
    config = {"quantization_config": {"quant_method": "torchao"}}
    assert_reads(saved(tmp_path, tensors, config, metadata), expected)


@pytest.mark.parametrize("kind", ["qint2", "qint4", "qint8", "qfloat8_e4m3fn", "qfloat8_e5m2"])
@pytest.mark.parametrize("bias", [True, False])
def test_tensors_of_quanto(tmp_path: Path, kind: str, bias: bool) -> None:
    quanto = library("optimum.quanto")
    model = torch.nn.Sequential(torch.nn.Linear(192, 80, bias=bias))
    model[0].weight.data = weights(80, 192)
    quanto.quantize(model, weights=getattr(quanto, kind))
    quanto.freeze(model)
    expected = model[0].weight.dequantize()
    tensors = {name.replace("0.", f"{MODULE}.", 1): tensor for name, tensor in model.state_dict().items()}
    assert_reads(saved(tmp_path, tensors, {} if bias else {"hidden_size": 192}), expected)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("shape", "group", "axis"), [
    ((96, 200), 40, 1), ((96, 200), 64, 0), ((64, 88), 16, 1), ((64, 88), 176, 1), ((64, 88), 32, 0),
])  # fmt: skip
def test_tensors_of_hqq(tmp_path: Path, bits: int, shape: tuple[int, int], group: int, axis: int) -> None:
    quantize = library("hqq.core.quantize")
    linear = torch.nn.Linear(shape[1], shape[0], bias=False)
    linear.weight.data = weights(*shape)
    settings = quantize.BaseQuantizeConfig(nbits=bits, group_size=group, axis=axis)
    quantised = quantize.HQQLinear(linear, settings, compute_dtype=torch.float32, device="cpu")
    tensors = {f"{MODULE}.{name}": tensor for name, tensor in quantised.state_dict().items()}
    assert_reads(saved(tmp_path, tensors, {}), quantised.dequantize())
