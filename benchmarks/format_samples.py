"""One matrix in every storage format that is read, of random codes: what the speed of decoding is measured on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from llmtrap.checkpoint.containers.gguf.types import TYPES

SIDE = 2048
MODULE = "model.layers.0.mlp.down_proj"

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Sample:
    """A checkpoint of one matrix [SIDE, SIDE] and the encoding that reads it, by name."""

    encoding: str
    label: str
    tensors: Tensors
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] | None = None

    def write(self, folder: Path) -> None:
        """Save it as a folder."""
        save_file(self.tensors, folder / "model.safetensors", metadata=self.metadata)
        (folder / "config.json").write_text(json.dumps(self.config), encoding="utf-8")


@dataclass(frozen=True)
class GgufSample:
    """The same as a GGUF file of one block type."""

    encoding: str
    label: str
    number: int

    def write(self, folder: Path) -> None:
        """Save it as a folder."""
        kind = TYPES[self.number]
        blocks = _codes("U8", SIDE, SIDE // kind.entries * kind.size).numpy()
        name = b"blk.0.ffn_down.weight"
        counts = np.array([1, 0], "<u8").tobytes()
        sizes = np.array([SIDE, SIDE], "<u8").tobytes()
        head = b"GGUF" + (3).to_bytes(4, "little") + counts + len(name).to_bytes(8, "little") + name
        head += (2).to_bytes(4, "little") + sizes + self.number.to_bytes(4, "little") + bytes(8)
        (folder / "model.gguf").write_bytes(head + bytes(-len(head) % 32) + blocks.tobytes())


_INTEGERS = {"U8": torch.uint8, "I8": torch.int8, "I32": torch.int32, "U32": torch.uint32}


def samples() -> Iterator[Sample | GgufSample]:
    """Every format, in the order of the table in docs/targets.md."""
    n, group = SIDE, 128
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        label = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}.get(str(dtype)[6:], "F8_E4M3")
        yield Sample("plain", label, {f"{MODULE}.weight": _floats(n, n, dtype=dtype)})
    blocks = {"down_proj_blocks": _codes("U8", 1, n, n // 32, 16), "down_proj_scales": _scale_bytes(1, n, n // 32)}
    yield Sample("MXFP4", "GPT-OSS", {f"model.layers.0.mlp.experts.{key}": part for key, part in blocks.items()})
    fp8 = _floats(n, n, dtype=torch.float8_e4m3fn)
    for label, grid in (("blocks 128x128", (n // 128, n // 128)), ("scaled per row", (n, 1))):
        yield _sample("FP8", label, weight=fp8, weight_scale=_floats(*grid))
    scales = _floats(n, n // 16, dtype=torch.float8_e4m3fn)
    yield _sample(
        "FP4", "NVFP4", _stated("modelopt", quant_algo="NVFP4"),
        weight=_codes("U8", n, n // 2), weight_scale=scales, weight_scale_2=torch.tensor(0.5),
    )  # fmt: skip
    yield _sample(
        "INT8", "scaled per row", _stated("compressed-tensors"), weight=_codes("I8", n, n), weight_scale=_floats(n, 1)
    )
    yield _sample(
        "INT4 in pairs of rows", "INT4 groups of 128", _stated("modelopt", quant_algo="W4A16_AWQ", group_size=group),
        weight=_codes("U8", n // 2, n), weight_scale=_floats(n, n // group),
    )  # fmt: skip
    weights = {"num_bits": 4, "group_size": group}
    yield _sample(
        "compressed-tensors INT", "INT4 groups of 128",
        _stated("compressed-tensors", config_groups={"group_0": {"weights": weights}}),
        weight_packed=_codes("I32", n, n // 8), weight_scale=_floats(n, n // group), weight_shape=torch.tensor([n, n]),
    )  # fmt: skip
    of_groups = {"qzeros": _codes("I32", n // group, n // 8), "scales": _floats(n // group, n, dtype=torch.float16)}
    stated = _stated("gptq", bits=4, group_size=group, checkpoint_format="gptq")
    yield _sample("GPTQ", "INT4 groups of 128", stated, qweight=_codes("I32", n // 8, n), **of_groups)
    stated = _stated("awq", bits=4, group_size=group, version="gemm", zero_point=True)
    yield _sample("AWQ", "INT4 groups of 128", stated, qweight=_codes("I32", n, n // 8), **of_groups)
    yield _four_bits(n)
    yield _sample(
        "bitsandbytes", "INT8", _stated("bitsandbytes", load_in_8bit=True),
        weight=_codes("I8", n, n), SCB=_floats(n), weight_format=torch.tensor(0, dtype=torch.uint8),
    )  # fmt: skip
    biased = {"scales": _floats(n, n // 64, dtype=torch.bfloat16), "biases": _floats(n, n // 64, dtype=torch.bfloat16)}
    mlx = {f"{MODULE}.{key}": part for key, part in {"weight": _codes("U32", n, n // 8), **biased}.items()}
    yield Sample("MLX", "INT4 groups of 64", mlx, {"quantization": {"bits": 4, "group_size": 64}}, {"format": "mlx"})
    described = {"_type": "Int8Tensor", "_data": {"block_size": [1, n]}, "_tensor_data_names": ["qdata", "scale"]}
    ao = {f"{MODULE}._weight_qdata": _codes("I8", n, n), f"{MODULE}._weight_scale": _floats(n, 1)}
    metadata = {"format": "pt", f"{MODULE}.weight": json.dumps(described)}
    yield Sample("torchao", "INT8", ao, _stated("torchao"), metadata)
    groups = n * n // group
    quanto = {
        "_data._data": _codes("U8", groups // 2, group),
        "_scale": _floats(groups, 1),
        "_shift": _floats(groups, 1),
    }
    yield _sample(
        "optimum-quanto", "INT4 groups of 128", {"intermediate_size": n},
        **{f"weight.{key}": part for key, part in quanto.items()},
    )  # fmt: skip
    settings = {"nbits": 4, "group_size": group, "axis": 1}
    yield _sample(
        "HQQ", "INT4 groups of 128", _stated("hqq"), W_q=_codes("U8", groups // 2, group), scale=_floats(groups, 1),
        zero=_floats(groups, 1), shape=torch.tensor([n, n]),
        **{key: torch.tensor(value, dtype=torch.int32) for key, value in settings.items()},
    )  # fmt: skip
    yield _sample("weight norm", "F32", weight_g=_floats(n, 1), weight_v=_floats(n, n))
    for number, kind in TYPES.items():
        if kind.entries > 1:
            yield GgufSample("GGUF", kind.name, number)


def _four_bits(n: int) -> Sample:
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [n, n]}
    parts = {
        "weight": _codes("U8", n * n // 2, 1),
        "weight.absmax": _floats(n * n // 64),
        "weight.quant_map": torch.linspace(-1, 1, 16),
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
    }
    return _sample("bitsandbytes", "NF4 blocks of 64", _stated("bitsandbytes", load_in_4bit=True), **parts)


def _sample(encoding: str, label: str, config: dict[str, Any] | None = None, **parts: torch.Tensor) -> Sample:
    return Sample(encoding, label, {f"{MODULE}.{key}": part for key, part in parts.items()}, config or {})


def _stated(method: str, **settings: object) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **settings}}


def _codes(dtype: str, *shape: int) -> torch.Tensor:
    """Any bits."""
    numbers = np.random.default_rng(0).integers(0, 1 << 32, shape, dtype=np.uint32)
    if dtype in ("U8", "I8"):
        return torch.from_numpy(numbers.astype(np.uint8)).view(_INTEGERS[dtype])
    return torch.from_numpy(numbers.view(np.int32)).view(_INTEGERS[dtype])


def _scale_bytes(*shape: int) -> torch.Tensor:
    return torch.randint(100, 140, shape, dtype=torch.uint8)


def _floats(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.rand(shape) + 0.5).to(dtype)
