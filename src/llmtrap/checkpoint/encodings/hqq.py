"""HQQ: `X.W_q`, words of codes of planes, with `X.scale`, `X.zero` and the settings as tensors: (q - zero) · scale.

`X.shape` is the matrix', `X.group_size` and `X.axis` say how it was cut into groups: along its flattened rows (axis 1),
or so that a group is a column of the matrix reshaped to [group_size, -1] (axis 0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor
from llmtrap.checkpoint.encodings.grids import INTEGERS, broken
from llmtrap.checkpoint.encodings.planes import PlaneTensor, Shifts, Step, counted, fits

if TYPE_CHECKING:
    from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

_LAYOUTS = {
    8: Shifts(8, (0,)),
    4: Shifts(4, (4, 0)),
    3: Shifts(3, tuple(range(27, -1, -3))),  # in 32-bit words
    2: Shifts(2, (6, 4, 2, 0)),
    1: Shifts(1, (7, 6, 5, 4, 3, 2, 1, 0)),
}
_SETTINGS = (
    "nbits", "group_size", "shape", "axis", "packing", "unpack_view_dtype", "view_as_float", "quant_scale",
    "quant_zero", "compute_dtype", "offload_meta", "encoded_state_dict", "stores_quant_config", "channel_wise",
    "optimize", "round_zero",
)  # fmt: skip
_WORDS = {8: "U8", 4: "U8", 3: "I32", 2: "U8", 1: "U8"}


class Hqq(Encoding):
    """Finds `X.W_q` whose settings are stored beside it."""

    name = "HQQ"
    reads = "1, 2, 3, 4 and 8 bits, along either axis"

    def claim(self, catalogue: Catalogue, free: dict[str, TensorEntry]) -> list[StoredTensor]:
        """Take every weight with its scales, zeros and settings.

        Raises:
            CheckpointError: sizes that contradict one another.
        """
        found: list[StoredTensor] = []
        for words in [entry for entry in free.values() if entry.name.endswith(".W_q")]:
            module = words.name.removesuffix(".W_q")
            shape = _integers(catalogue, free, f"{module}.shape")
            bits, group, axis = (
                (_integers(catalogue, free, f"{module}.{name}") or [0])[0] for name in ("nbits", "group_size", "axis")
            )
            if len(shape) != 2 or not all(0 < size < 1 << 32 for size in shape):
                continue  # refused as incomplete: nothing else says what the shape is
            stored = _read(module, words, free, (shape[0], shape[1]), bits, group, axis)
            for part in stored.parts:
                del free[part.name]
            found.append(stored)
        return found


def _read(
    module: str,
    words: TensorEntry,
    free: dict[str, TensorEntry],
    shape: tuple[int, int],
    bits: int,
    group: int,
    axis: int,
) -> PlaneTensor:
    layout, size = _LAYOUTS.get(bits), shape[0] * shape[1]
    if layout is None or words.dtype != _WORDS[bits] or not fits(words, layout, size):
        raise broken(words, f"{words.dtype} {list(words.shape)} holds no {list(shape)} codes of {bits} bits")
    scale, zero = free.get(f"{module}.scale"), free.get(f"{module}.zero")
    if group < 1 or size % group or axis not in (0, 1) or not counted((scale, zero), size // group):
        raise broken(words, f"no scale and zero for every {group} of {size} codes (axis {axis})")
    assert scale is not None and zero is not None  # noqa: S101, PT018 - counted just above
    encoding = f"INT{bits} groups of {group} (HQQ)"
    steps = (Step(2, subtracts=True), Step(1, subtracts=False))
    settings = [free[name] for setting in _SETTINGS if (name := f"{module}.{setting}") in free]
    parts = (words, scale, zero, *settings)
    return PlaneTensor(words.name, module, encoding, shape, parts, layout, group, axis == 0, steps)


def _integers(catalogue: Catalogue, free: dict[str, TensorEntry], name: str) -> list[int]:
    """The integers of a small tensor; none where it is not one."""
    entry, value = free.get(name), catalogue.small_values.get(name)
    if entry is None or value is None or entry.dtype not in INTEGERS:
        return []
    return [int(number) for number in np.frombuffer(value, dtype=INTEGERS[entry.dtype])]
