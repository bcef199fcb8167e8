"""torchao: tensors whose kind is JSON in the file's own metadata, under the name of the parameter.

A parameter `X.weight` of kind `Int8Tensor` is stored as `X._weight_qdata`, `X._weight_scale` and
`X._weight_zero_point`: (q - zero point) · scale, on blocks of a stated size. `Float8Tensor` has no zero point.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor
from llmtrap.checkpoint.encodings.fp8_block import Fp8Tensor
from llmtrap.checkpoint.encodings.grids import broken, fit_grid, misfit
from llmtrap.checkpoint.encodings.int8 import byte_integers
from llmtrap.checkpoint.names import printable
from llmtrap.errors import UnsupportedError

if TYPE_CHECKING:
    from llmtrap.checkpoint.encodings.grids import Block
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_INTEGERS = ("Int8Tensor", "IntxUnpackedToInt8Tensor")
_REMEDY = "Audit the checkpoint before it was quantised, or save a dequantised copy (BF16)"


class TorchAo(Encoding):
    """Finds parameters that the metadata describe as torchao's."""

    name = "torchao"
    reads = "INT8 and FP8"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every parameter of a kind that is read.

        Raises:
            CheckpointError: parts that are missing or do not fit.
            UnsupportedError: another kind, by its name.
        """
        found: list[StoredTensor] = []
        for file, metadata in catalogue.metadata.items():
            for name, text in metadata.items():
                described = _described(text)
                if described is None or described["_type"] == "Tensor":
                    continue
                module, _, parameter = name.rpartition(".")
                prefix = f"{module}._{parameter}_" if module else f"_{parameter}_"
                codes, scale = free.get(f"{prefix}qdata"), free.get(f"{prefix}scale")
                if codes is None:
                    continue  # another file's part, or a parameter that is not here
                stored = _read(name, described, codes, scale, free.get(f"{prefix}zero_point"), file)
                for part in stored.parts:
                    del free[part.name]
                found.append(stored)
        return found


def _read(
    name: str,
    described: dict[str, Any],
    codes: TensorEntry,
    scale: TensorEntry | None,
    zeros: TensorEntry | None,
    file: str,
) -> StoredTensor:
    kind = described["_type"]
    if kind not in (*_INTEGERS, "Float8Tensor") or len(codes.shape) not in (2, 3) or 0 in codes.shape:
        problem = f"torchao's {printable(str(kind))} is not read: its codes are laid out for one kernel"
        raise UnsupportedError(problem, file=file, tensor=printable(name), remedy=_REMEDY)
    if scale is None:
        raise broken(codes, f"codes of torchao's {kind} without their scale")
    module, blocks = name.removesuffix(".weight"), _blocks(described)
    if kind in _INTEGERS and codes.dtype == "I8":
        return byte_integers(codes, scale, zeros, module, " (torchao)", blocks)
    grid = fit_grid(codes.shape, scale, stated=blocks)
    if grid is None or codes.dtype not in ("F8_E4M3", "F8_E5M2"):
        raise misfit(codes, scale)
    encoding = f"{codes.dtype} {grid.described(*codes.shape[-2:])} (torchao)"
    return Fp8Tensor(codes.name, module, encoding, codes.shape, (codes, scale), grid, codes.dtype)


def _described(text: object) -> dict[str, Any] | None:
    """What the metadata say of one parameter, or None where they say something else."""
    if not isinstance(text, str) or not text.startswith("{") or '"_type"' not in text or len(text) > 1 << 16:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("_type"), str) else None


def _blocks(described: dict[str, Any]) -> list[Block]:
    data = described.get("_data")
    size = data.get("block_size") if isinstance(data, dict) else None
    whole = isinstance(size, list) and len(size) >= 2 and all(type(side) is int and side > 0 for side in size)
    return [(size[-2], size[-1])] if whole and isinstance(size, list) else []
