"""Every quantised layout packed here by its definition, code by code, and read back: on the host, and for a device.

The same against the libraries themselves, where they are installed: `test_real_libraries.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import array_api_compat.torch
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llmtrap.checkpoint import Checkpoint, open_checkpoint
from llmtrap.errors import CheckpointError, UnsupportedError
from llmtrap.spectra.backends.decoding import ArrayApiDecoder

NAME = "model.layers.0.mlp.down_proj"
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)
RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Case:
    """Tensors under the module's name, the float32 matrix that they stand for, and what else the files say."""

    tensors: dict[str, Any]
    matrix: np.ndarray
    encoding: str
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] | None = None


def words(codes: Sequence[int], bits: int, *, dense: bool = True) -> list[int]:
    """32-bit words of codes, the first in the lowest bits."""
    each = 32 // bits
    runs = [codes] if dense else [codes[first : first + each] for first in range(0, len(codes), each)]
    found = []
    for run in runs:
        stream = sum(int(code) << (k * bits) for k, code in enumerate(run))
        found += [stream >> (32 * k) & 0xFFFFFFFF for k in range(-(-len(run) * bits // 32))]
    return found


def packed(codes: np.ndarray, bits: int, *, dense: bool = True) -> np.ndarray:
    """Each row in words."""
    return np.array([words(row, bits, dense=dense) for row in codes], dtype=np.uint32).view(np.int32)


def random_codes(rows: int, columns: int, bits: int) -> np.ndarray:
    return RANDOM.integers(0, 1 << bits, (rows, columns))


def random_scales(*shape: int) -> np.ndarray:
    return (RANDOM.random(shape) + 0.5).astype(np.float16).astype(np.float32)


def over(numbers: np.ndarray, group: int, columns: int) -> np.ndarray:
    return np.repeat(numbers, group, axis=1)[:, :columns]


def stated(method: str, **settings: object) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **settings}}


def compressed_integers(
    rows: int, columns: int, bits: int, group: int, *, dense: bool = True, zeros: bool = True, order: bool = False
) -> Case:
    half, groups = 1 << (bits - 1), -(-columns // group)
    codes, points, scales = (
        random_codes(rows, columns, bits), random_codes(rows, groups, bits), random_scales(rows, groups),
    )  # fmt: skip
    of_column = np.arange(columns) // group
    if order:
        of_column = RANDOM.permutation(of_column)
    subtracted = points if zeros else np.full_like(points, half)
    matrix = (codes - subtracted[:, of_column]).astype(np.float32) * scales[:, of_column]
    tensors = {
        "weight_packed": packed(codes, bits, dense=dense),
        "weight_scale": scales,
        "weight_shape": np.array([rows, columns]),
    }
    if zeros:
        tensors["weight_zero_point"] = packed(points.T, bits, dense=dense).T
    if order:
        tensors["weight_g_idx"] = of_column.astype(np.int32)
    described = f"groups of {group}" if groups > 1 else "scaled per row"
    weights = {"num_bits": bits, "group_size": group}
    config = stated("compressed-tensors", config_groups={"group_0": {"weights": weights}})
    return Case(tensors, matrix, f"INT{bits} {described} (compressed-tensors)", config)


def gptq(rows: int, columns: int, bits: int, group: int, *, version: int, order: bool) -> Case:
    groups = -(-columns // group)
    codes, scales = random_codes(rows, columns, bits), random_scales(groups, rows)
    points = random_codes(groups, rows, bits)
    of_column = np.arange(columns) // group
    if order:
        of_column = RANDOM.permutation(of_column)
    stored = packed(points, bits).view(np.uint32)
    if version == 1 and bits == 3:
        stored = packed((points - 1) % 8, bits).view(np.uint32)
    elif version == 1:
        stored = stored - np.uint32(sum(1 << k for k in range(0, 32, bits)))
    tensors = {
        "qweight": packed(codes.T.T, bits).T,
        "qzeros": stored.view(np.int32),
        "scales": scales.astype(np.float16),
    }
    if order:
        tensors["g_idx"] = of_column.astype(np.int32)
    matrix = (codes - points[of_column].T).astype(np.float32) * scales[of_column].T
    settings = {"bits": bits, "group_size": group, "checkpoint_format": "gptq" if version == 1 else "gptq_v2"}
    return Case(tensors, matrix, f"GPTQ INT{bits} groups of {group} (v{version})", stated("gptq", **settings))


def awq(rows: int, columns: int, group: int) -> Case:
    groups = columns // group
    codes, points, scales = random_codes(columns, rows, 4), random_codes(groups, rows, 4), random_scales(groups, rows)
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def shuffled(numbers: np.ndarray) -> np.ndarray:
        return packed(numbers.reshape(len(numbers), -1, 8)[:, :, order].reshape(len(numbers), -1), 4)

    of_column = np.arange(columns) // group
    matrix = ((codes - points[of_column]).astype(np.float32) * scales[of_column]).T
    tensors = {"qweight": shuffled(codes), "qzeros": shuffled(points), "scales": scales.astype(np.float16)}
    config = stated("awq", bits=4, group_size=group, version="gemm", zero_point=True)
    return Case(tensors, matrix, f"AWQ INT4 groups of {group}", config)


def four_bits(rows: int, columns: int, block: int, *, nested: bool, kind: str = "nf4") -> Case:
    size = rows * columns
    codes, table = random_codes(1, size + size % 2, 4)[0], np.sort(RANDOM.random(16)).astype(np.float32)
    blocks = -(-size // block)
    state: dict[str, Any] = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": [rows, columns]}
    tensors: dict[str, Any] = {
        "weight": (codes[::2] << 4 | codes[1::2]).astype(np.uint8).reshape(-1, 1),
        "weight.quant_map": table,
    }
    absmax = random_scales(blocks)
    if nested:
        of_codes, of_blocks = RANDOM.random(256).astype(np.float32), random_scales(-(-blocks // 4))
        coded = RANDOM.integers(0, 256, blocks, dtype=np.uint8)
        state |= {"nested_blocksize": 4, "nested_offset": 0.1, "nested_dtype": "float32"}
        tensors |= {"weight.absmax": coded, "weight.nested_quant_map": of_codes, "weight.nested_absmax": of_blocks}
        absmax = of_codes[coded] * np.repeat(of_blocks, 4)[:blocks] + np.float32(0.1)
    else:
        tensors["weight.absmax"] = absmax
    tensors[f"weight.quant_state.bitsandbytes__{kind}"] = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
    matrix = (table[codes[:size]] * np.repeat(absmax, block)[:size]).reshape(rows, columns)
    encoding = f"{kind.upper()} blocks of {block}{', nested scales' if nested else ''}"
    return Case(tensors, matrix, encoding, stated("bitsandbytes", load_in_4bit=True))


def row_bytes() -> Case:
    codes, scales = RANDOM.integers(-127, 128, (20, 33), dtype=np.int8), random_scales(20)
    matrix = codes.astype(np.float32) * scales[:, None] * np.float32(1 / 127)
    tensors = {"weight": codes, "SCB": scales, "weight_format": np.array(0, dtype=np.uint8)}
    return Case(tensors, matrix, "INT8 scaled per row (bitsandbytes)", stated("bitsandbytes", load_in_8bit=True))


def mlx(rows: int, columns: int, bits: int, group: int) -> Case:
    codes, scales, biases = random_codes(rows, columns, bits), random_scales(rows, columns // group), None
    biases = -random_scales(rows, columns // group)
    matrix = codes.astype(np.float32) * over(scales, group, columns) + over(biases, group, columns)
    tensors = {"weight": packed(codes, bits).view(np.uint32), "scales": scales, "biases": biases}
    config = {"quantization": {"bits": 2, "group_size": 8, NAME: {"bits": bits, "group_size": group}}}
    return Case(tensors, matrix, f"INT{bits} groups of {group} (MLX)", config, {"format": "mlx"})


def small_floats(kind: str, rows: int = 12, columns: int = 96) -> Case:
    group = 16 if kind.endswith("nvfp4") else 32
    codes, groups = random_codes(rows, columns, 4), -(-columns // group)
    numbers = E2M1[codes]
    in_bytes = (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8)
    whole = np.array([3.7], dtype=np.float32)
    if group == 16:
        scales = torch.from_numpy(random_scales(rows, groups)).to(torch.float8_e4m3fn)
        factors = scales.float().numpy()
    else:
        powers = RANDOM.integers(100, 140, (rows, groups), dtype=np.uint8)
        scales, factors = torch.from_numpy(powers), np.ldexp(np.float32(1), powers.astype(int) - 127)
    if kind == "compressed nvfp4":
        matrix = numbers * over(factors / whole, group, columns)
        tensors = {"weight_packed": in_bytes, "weight_scale": scales, "weight_global_scale": whole}
        return Case(tensors, matrix, "NVFP4", stated("compressed-tensors", format="nvfp4-pack-quantized"))
    if kind == "modelopt nvfp4":
        matrix = numbers * over(factors * whole, group, columns)
        tensors = {"weight": in_bytes, "weight_scale": scales, "weight_scale_2": whole[0]}
        return Case(tensors, matrix, "NVFP4", stated("modelopt", quant_algo="NVFP4"))
    matrix = numbers * over(factors, group, columns)
    if kind == "compressed mxfp4":
        return Case({"weight_packed": in_bytes, "weight_scale": scales}, matrix, "MXFP4")
    if kind == "deepseek mxfp4":
        tensors = {"weight": in_bytes.view(np.int8), "scale": scales.view(torch.float8_e8m0fnu)}
        return Case(tensors, matrix, "MXFP4", stated("fp8", scale_fmt="ue8m0", weight_block_size=[128, 128]))
    return Case({"weight": in_bytes, "weight_scale": scales}, matrix, "MXFP4", stated("modelopt", quant_algo="MXFP4"))


def fp8(suffix: str, grid: tuple[int, ...], block: tuple[int, int], described: str) -> Case:
    weight = torch.from_numpy(RANDOM.standard_normal((40, 50)).astype(np.float32) * 20).to(torch.float8_e4m3fn)
    scales = random_scales(*grid)
    of_entry = np.repeat(np.repeat(scales.reshape(grid if len(grid) == 2 else (-1, 1)), block[0], 0), block[1], 1)
    matrix = weight.float().numpy() * of_entry[:40, :50]
    return Case({"weight": weight, suffix: scales}, matrix, f"F8_E4M3 {described}")


def plain_bytes(dtype: type, *, zeros: bool, grid: tuple[int, int]) -> Case:
    edge = np.iinfo(dtype)
    codes = RANDOM.integers(edge.min, edge.max, (20, 40), dtype=dtype, endpoint=True)
    scales, width = random_scales(*grid), 40 // grid[1]
    points = RANDOM.integers(-9, 9, grid).astype(np.int8)
    shifted = codes.astype(np.float32) - (over(points, width, 40) if zeros else np.float32(0))
    tensors = {"weight": codes, "weight_scale": scales}
    if zeros:
        tensors["weight_zero_point"] = points
    described = "scaled per tensor" if grid == (1, 1) else "scaled per row" if grid == (20, 1) else "groups of 8"
    name = "INT8" if dtype is np.int8 else "UINT8"
    return Case(tensors, shifted * over(scales, width, 40), f"{name} {described}", stated("compressed-tensors"))


def row_pairs(rows: int = 14, columns: int = 96, group: int = 32) -> Case:
    codes, scales = RANDOM.integers(-8, 8, (rows, columns)), random_scales(rows, columns // group)
    stored = (codes[::2] & 15 | (codes[1::2] & 15) << 4).astype(np.uint8)
    matrix = codes.astype(np.float32) * over(scales, group, columns)
    config = stated("modelopt", quant_algo="W4A16_AWQ", group_size=group)
    return Case({"weight": stored, "weight_scale": scales}, matrix, f"INT4 groups of {group} (ModelOpt)", config)


def torchao() -> Case:
    codes, scales = RANDOM.integers(-128, 128, (24, 64), dtype=np.int8), random_scales(24, 4)
    described = {"_type": "Int8Tensor", "_data": {"block_size": [1, 16]}, "_tensor_data_names": ["qdata", "scale"]}
    tensors = {"_weight_qdata": codes, "_weight_scale": scales}
    matrix = codes.astype(np.float32) * over(scales, 16, 64)
    metadata = {"format": "pt", f"{NAME}.weight": json.dumps(described)}
    return Case(tensors, matrix, "INT8 groups of 16 (torchao)", stated("torchao"), metadata)


def quanto(bits: int) -> Case:
    rows, columns, group, planes = 24, 64, 32, 8 // bits
    codes = random_codes(rows * columns // group, group, bits)
    scales, shifts = random_scales(len(codes), 1), random_scales(len(codes), 1)
    data = sum(codes[k * len(codes) // planes : (k + 1) * len(codes) // planes] << (bits * k) for k in range(planes))
    matrix = (codes.astype(np.float32) * scales - shifts).reshape(rows, columns)
    tensors = {"weight._data._data": data.astype(np.uint8), "weight._scale": scales, "weight._shift": shifts}
    return Case(tensors, matrix, f"INT{bits} groups of {group} (quanto)", {"intermediate_size": columns})


def hqq(axis: int) -> Case:
    rows, columns, group = 18, 40, 24
    codes = random_codes(rows * columns // group, group, 4) if axis else random_codes(group, rows * columns // group, 4)
    numbers = (len(codes), 1) if axis else (1, codes.shape[1])
    scales, zeros = random_scales(*numbers), random_scales(*numbers) * 7
    half = len(codes) // 2
    matrix = ((codes.astype(np.float32) - zeros) * scales).reshape(rows, columns)
    settings = {"nbits": 4, "group_size": group, "axis": axis}
    tensors: dict[str, Any] = {name: np.array(value, dtype=np.int32) for name, value in settings.items()}
    tensors |= {"W_q": (codes[:half] << 4 | codes[half:]).astype(np.uint8), "scale": scales, "zero": zeros}
    tensors["shape"] = np.array([rows, columns])
    return Case(tensors, matrix, f"INT4 groups of {group} (HQQ)", stated("hqq"))


CASES: dict[str, Callable[[], Case]] = {
    **{
        f"compressed-tensors INT{bits}, dense {dense}, zeros {zeros}": lambda bits=bits, dense=dense, zeros=zeros: (
            compressed_integers(22, 45, bits, 16, dense=dense, zeros=zeros)
        )
        for bits in (2, 3, 4, 5, 6, 8)
        for dense in (True, False)
        for zeros in (True, False)
    },
    "compressed-tensors, whole words of 4 bits": lambda: compressed_integers(22, 64, 4, 16, zeros=False),
    "compressed-tensors, by row": lambda: compressed_integers(22, 45, 4, 45),
    "compressed-tensors, act order": lambda: compressed_integers(22, 48, 4, 16, order=True),
    "compressed-tensors, act order, ragged": lambda: compressed_integers(22, 45, 4, 16, zeros=False, order=True),
    **{
        f"GPTQ v{version} INT{bits}, order {order}": lambda bits=bits, version=version, order=order: gptq(
            32, 64, bits, 16, version=version, order=order
        )
        for bits in (2, 3, 4, 8)
        for version in (1, 2)
        for order in (True, False)
    },
    "GPTQ, ragged groups": lambda: gptq(32, 64, 4, 24, version=1, order=False),
    "AWQ": lambda: awq(48, 64, 16),
    **{
        f"bitsandbytes {shape}, nested {nested}": lambda shape=shape, nested=nested: four_bits(
            *shape, 64, nested=nested
        )
        for shape in ((12, 128), (24, 32), (13, 96), (13, 33), (11, 7))
        for nested in (True, False)
    },
    "bitsandbytes FP4": lambda: four_bits(12, 128, 64, nested=False, kind="fp4"),
    "bitsandbytes INT8": row_bytes,
    **{f"MLX INT{bits}": lambda bits=bits: mlx(12, 96, bits, 32) for bits in (2, 3, 4, 5, 6, 8)},
    **{
        kind: lambda kind=kind: small_floats(kind)
        for kind in ("compressed nvfp4", "modelopt nvfp4", "compressed mxfp4", "deepseek mxfp4", "modelopt mxfp4")
    },
    "NVFP4, ragged": lambda: small_floats("modelopt nvfp4", 5, 90),
    "MXFP4, ragged": lambda: small_floats("compressed mxfp4", 5, 90),
    **{
        f"FP8 {suffix}": lambda suffix=suffix: fp8(suffix, (2, 2), (32, 32), "blocks 32x32")
        for suffix in ("weight_scale_inv", "weight_scale", "scale", "scale_weight", "qscale_weight", "weight.scale")
    },
    "FP8 by row": lambda: fp8("weight_scale", (40, 1), (1, 50), "scaled per row"),
    "FP8 by column": lambda: fp8("weight_scale", (1, 50), (40, 1), "scaled per column"),
    "MXFP8": lambda: fp8("weight_scale", (40, 2), (1, 32), "groups of 32"),
    **{
        f"{dtype.__name__}, zeros {zeros}, {grid}": lambda dtype=dtype, zeros=zeros, grid=grid: plain_bytes(
            dtype, zeros=zeros, grid=grid
        )
        for dtype in (np.int8, np.uint8)
        for zeros in (True, False)
        for grid in ((1, 1), (20, 1), (20, 5))
    },
    "ModelOpt INT4": row_pairs,
    "torchao": torchao,
    "quanto 4 bits": lambda: quanto(4),
    "quanto 2 bits": lambda: quanto(2),
    "HQQ along rows": lambda: hqq(1),
    "HQQ across rows": lambda: hqq(0),
}


def saved(folder: Any, case: Case) -> Checkpoint:
    tensors = {
        f"{NAME}.{name}": (
            torch.from_numpy(np.array(part)) if not isinstance(part, torch.Tensor) else part
        ).contiguous()
        for name, part in case.tensors.items()
    }
    save_file(tensors, folder / "model.safetensors", metadata=case.metadata)
    (folder / "config.json").write_text(json.dumps(case.config))
    return open_checkpoint(str(folder))


def read_all(folder: Any, case: Case) -> None:
    checkpoint = saved(folder, case)
    for matrix in checkpoint.matrices:
        matrix.read(checkpoint.source)


@pytest.mark.parametrize("name", CASES)
def test_it_is_read_as_it_was_packed(tmp_path: Any, name: str) -> None:
    case = CASES[name]()
    checkpoint = saved(tmp_path, case)
    (matrix,) = checkpoint.matrices
    assert (matrix.encoding, matrix.stored.module, matrix.shape) == (case.encoding, NAME, case.matrix.shape)
    assert checkpoint.skipped == ()
    decoder = ArrayApiDecoder(array_api_compat.torch, "cpu")
    for entries in (1 << 22, 5 * matrix.shape[1], 1):
        blocks = [block.copy() for block in matrix.blocks(checkpoint.source, entries)]
        assert np.vstack(blocks).tobytes() == case.matrix.astype(np.float32).tobytes()
        there = matrix.packed_blocks(checkpoint.source, entries)
        assert there is not None
        for mine, block in zip(blocks, there, strict=True):
            assert decoder.to_host(decoder.decode(decoder.send(block))).tobytes() == mine.tobytes()


@pytest.mark.parametrize("name", CASES)
def test_only_the_ranges_it_names_are_read_and_each_shared_one_once(tmp_path: Any, name: str) -> None:
    checkpoint = saved(tmp_path, CASES[name]())
    (matrix,) = checkpoint.matrices
    asked = []

    class Watched:
        def __getattr__(self, attribute: str) -> Any:
            method = getattr(checkpoint.source, attribute)

            def called(span: Any, *rest: Any) -> Any:
                asked.append(span)
                return method(span, *rest)

            return called if attribute in ("read", "open", "read_into") else method

    for _ in matrix.blocks(Watched(), 3 * matrix.shape[1]):  # type: ignore[arg-type]
        pass
    assert sorted(asked, key=repr) == sorted(matrix.spans(3 * matrix.shape[1]), key=repr)


def test_stacks_of_experts_are_read_slice_by_slice(tmp_path: Any) -> None:
    cases = [compressed_integers(22, 45, 4, 16) for _ in range(3)]
    stack = {name: np.stack([case.tensors[name] for case in cases]) for name in cases[0].tensors}
    stack["weight_shape"] = np.array([3, 22, 45])
    floats = [small_floats("modelopt nvfp4") for _ in range(3)]
    others = {name: [case.tensors[name] for case in floats] for name in floats[0].tensors}
    tensors = {f"model.layers.0.mlp.experts.up_proj.{name}": torch.from_numpy(part) for name, part in stack.items()}
    down = "model.layers.0.mlp.experts.down_proj"
    tensors[f"{down}"] = torch.from_numpy(np.stack(others["weight"]))
    tensors[f"{down}_weight_scale"] = torch.stack(others["weight_scale"])
    tensors[f"{down}_weight_scale_2"] = torch.from_numpy(np.stack(others["weight_scale_2"]))
    save_file({name: part.contiguous() for name, part in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(cases[0].config))
    checkpoint = open_checkpoint(str(tmp_path))
    assert len(checkpoint.matrices) == 6
    for matrix in checkpoint.matrices:
        case = (cases if "up" in matrix.id else floats)[matrix.expert or 0]
        np.testing.assert_array_equal(matrix.read(checkpoint.source), case.matrix)


def without(case: Case, *names: str, **changed: Any) -> Case:
    tensors = {name: part for name, part in case.tensors.items() if name not in names} | changed
    return Case(tensors, case.matrix, case.encoding, case.config, case.metadata)


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        (without(CASES["AWQ"](), scales=random_scales(3, 48)), "do not fit"),
        (without(CASES["AWQ"](), "qzeros"), "GPTQ or AWQ in a packing of another kind"),
        (without(CASES["GPTQ v1 INT4, order True"](), g_idx=np.arange(64, dtype=np.int32)), "columns in groups that"),
        (without(CASES["compressed nvfp4"](), "weight_scale"), "without their scales"),
        (without(CASES["modelopt nvfp4"](), "weight_scale_2"), "without its global scale"),
        (without(CASES["compressed-tensors, by row"](), weight_shape=np.array([22, 900])), r"says \[22, 900\]"),
        (without(CASES["compressed-tensors, by row"](), weight_scale=random_scales(9, 1)), "do not fit"),
        (without(CASES["compressed-tensors, by row"](), weight_zero_point=np.ones((3, 2), np.int32)), "do not fit"),
        (without(CASES["bitsandbytes (12, 128), nested True"](), "weight.nested_absmax"), "nested scales without"),
        (without(CASES["bitsandbytes (12, 128), nested False"](), "weight.absmax"), "without its codes, absmax"),
        (without(CASES["MLX INT4"](), scales=random_scales(12, 5)), "4 bits in groups of 32"),
        (without(CASES["quanto 4 bits"](), "weight._shift"), "without their _scale and _shift"),
        (without(CASES["HQQ along rows"](), "shape"), "HQQ, incomplete"),
        (without(CASES["HQQ along rows"](), nbits=np.array(3, dtype=np.int32)), "codes of 3 bits"),
        (without(CASES["torchao"](), "_weight_scale"), "without their scale"),
        (without(CASES["MXFP8"](), weight_zero_point=random_scales(40, 2)), "zero points"),
    ],
)
def test_parts_that_contradict_one_another_are_refused_with_the_tensor(tmp_path: Any, case: Case, problem: str) -> None:
    with pytest.raises((CheckpointError, UnsupportedError), match=problem) as caught:
        read_all(tmp_path, case)
    assert str(caught.value.tensor).startswith(NAME)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": "gemv"}, "AWQ packed as gemv"),
        ({"quant_method": "gptq"}, "config.json says GPTQ"),
    ],
)
def test_a_configuration_that_contradicts_the_packing_is_refused(tmp_path: Any, change: Any, problem: str) -> None:
    case = CASES["AWQ"]()
    settings = {**case.config["quantization_config"], **change}
    with pytest.raises(UnsupportedError, match=problem):
        saved(tmp_path, Case(case.tensors, case.matrix, case.encoding, {"quantization_config": settings}))


@pytest.mark.parametrize(
    "state", ["[]", "{", '{"shape": [12, -1], "blocksize": 64}', '{"shape": [12, 128]}', "9" * 5000]
)
def test_a_broken_state_of_bitsandbytes_is_an_error(tmp_path: Any, state: str) -> None:
    case = CASES["bitsandbytes (12, 128), nested False"]()
    name = next(name for name in case.tensors if "quant_state" in name)
    with pytest.raises(CheckpointError, match="the state of a 4-bit weight"):
        saved(tmp_path, without(case, **{name: np.frombuffer(state.encode(), dtype=np.uint8)}))
