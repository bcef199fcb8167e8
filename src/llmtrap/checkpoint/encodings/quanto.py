"""optimum-quanto: bytes with a scale a row (`X.weight._data`, `._scale`), or 4 and 2 bits in planes with a shift.

Of 4 and 2 bits `X.weight._data._data` holds the planes, the first in the lowest bits; groups are runs of the flattened
matrix, and a weight is q · scale - shift, or (q - shift) · scale where shifts are integers. The shape is not stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmtrap.checkpoint.config import integer
from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor
from llmtrap.checkpoint.encodings.fp8_block import Fp8Tensor
from llmtrap.checkpoint.encodings.grids import broken, fit_grid, misfit
from llmtrap.checkpoint.encodings.int8 import byte_integers
from llmtrap.checkpoint.encodings.planes import PlaneTensor, Shifts, Step, counted
from llmtrap.checkpoint.names import printable
from llmtrap.errors import UnsupportedError

if TYPE_CHECKING:
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_LAYOUTS = {4: Shifts(4, (0, 4)), 2: Shifts(2, (0, 2, 4, 6))}
_FROM_HIDDEN = (
    "q_proj", "k_proj", "v_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj", "fc1", "c_attn", "c_fc", "query",
    "key", "value", "q", "k", "v", "wi", "wi_0", "wi_1", "query_key_value", "dense_h_to_4h", "lm_head",
    "router", "gate",
)  # fmt: skip
_FROM_HEADS = ("o_proj", "out_proj", "o", "c_proj", "dense")
_FROM_INNER = ("down_proj", "fc2", "wo", "dense_4h_to_h")
_REMEDY = "Put the model's config.json beside it, or audit the checkpoint before it was quantised"


class Quanto(Encoding):
    """Finds `P._data` and `P._data._data` with `P._scale`."""

    name = "optimum-quanto"
    reads = "2, 4 and 8 bits, FP8"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every weight with its scales and shifts.

        Raises:
            CheckpointError: scales or shifts that are missing or do not fit.
            UnsupportedError: nothing says what the shape of a matrix is.
        """
        found: list[StoredTensor] = []
        for data in [entry for entry in free.values() if entry.name.endswith("._data")]:
            stored = _in_planes(data, catalogue, free) if data.name.endswith("._data._data") else _bytes(data, free)
            if stored is None:
                continue
            for part in stored.parts:
                del free[part.name]
            found.append(stored)
        return found


def _bytes(data: TensorEntry, free: dict[str, TensorEntry]) -> StoredTensor | None:
    name = data.name.removesuffix("._data")
    scale = free.get(f"{name}._scale")
    if scale is None or len(data.shape) != 2 or 0 in data.shape:
        return None
    module = name.removesuffix(".weight")
    if data.dtype == "I8":
        return byte_integers(data, scale, None, module, " (quanto)", [])
    if data.dtype not in ("F8_E4M3", "F8_E5M2"):
        return None
    grid = fit_grid(data.shape, scale)
    if grid is None:
        raise misfit(data, scale)
    encoding = f"{data.dtype} {grid.described(*data.shape)} (quanto)"
    return Fp8Tensor(data.name, module, encoding, data.shape, (data, scale), grid, data.dtype)


def _in_planes(data: TensorEntry, catalogue: Catalogue, free: dict[str, TensorEntry]) -> PlaneTensor:
    name = data.name.removesuffix("._data._data")
    scale, shift = free.get(f"{name}._scale"), free.get(f"{name}._shift")
    if scale is None or shift is None or len(data.shape) != 2 or data.dtype != "U8":
        raise broken(data, "codes of optimum-quanto without their _scale and _shift")
    group = data.shape[1]
    bits = next((bits for bits, layout in _LAYOUTS.items() if _groups(data, layout) == scale.size), None)
    if bits is None or scale.shape != (scale.size, 1) or not counted((scale, shift), scale.size):
        raise misfit(data, scale)
    size = scale.size * group
    module = name.removesuffix(".weight")
    columns = _inputs(module, size, group, catalogue.config, free.get(f"{module}.bias"), data.span.file)
    shape = (size // columns, columns)
    steps = (Step(1, subtracts=False), Step(2, subtracts=True))
    if shift.dtype not in ("F32", "F16", "BF16", "F64"):
        steps = steps[::-1]
    encoding = f"INT{bits} groups of {group} (quanto)"
    return PlaneTensor(data.name, module, encoding, shape, (data, scale, shift), _LAYOUTS[bits], group, False, steps)


def _groups(data: TensorEntry, layout: Shifts) -> int:
    return data.shape[0] * len(layout.shifts)


def _inputs(module: str, size: int, group: int, config: dict[str, Any], bias: TensorEntry | None, file: str) -> int:
    """Inputs of a module: from the size of its bias, or from the model's configuration and the module's name."""
    if bias is not None and len(bias.shape) == 1 and bias.size and size % bias.size == 0:
        return size // bias.size
    columns = _stated_inputs(module, config)
    if columns is None or size % columns or columns % group:
        problem = "optimum-quanto stores no shapes of 4-bit weights, and config.json does not say this one's"
        raise UnsupportedError(problem, file=file, tensor=printable(module), remedy=_REMEDY)
    return columns


def _stated_inputs(module: str, config: dict[str, Any]) -> int | None:
    last = module.rpartition(".")[2]
    hidden = integer(config, "hidden_size") or integer(config, "d_model") or integer(config, "n_embd")
    if last in _FROM_HIDDEN:
        return hidden
    if last in _FROM_INNER:
        inner = integer(config, "moe_intermediate_size") if ".experts." in module else None
        names = ("intermediate_size", "d_ff", "n_inner", "ffn_dim", "encoder_ffn_dim")
        return inner or next((size for name in names if (size := integer(config, name))), None)
    if last in _FROM_HEADS:
        heads, width = integer(config, "num_attention_heads"), integer(config, "head_dim")
        return heads * width if heads and width else hidden
    return None
