"""What a stored tensor is by its shape: a matrix, a stack of matrices, a convolution kernel, or no weights at all.

Encodings give tensors as they are stored. Here each gets the shape in which it is measured: two dimensions for a
matrix, three for a stack that is measured slice by slice. docs/definitions.md says how kernels become matrices.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

from llmtrap.checkpoint.config import integer
from llmtrap.checkpoint.encodings import StoredTensor
from llmtrap.checkpoint.tensors import SkipKind, Skipped, TensorEntry

LARGEST_KERNEL: Final = 16
"""The longest side of a convolution's kernel: the last two dimensions of a stack of matrices are longer."""

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts")
"""Keys of config.json that say how many experts a layer has."""
_STACK = re.compile(r"(.*[._])?(\w*experts?|moe|switch_mlp|mlp[12]_weight)([._].*)?")
_KERNEL = re.compile(r".*(conv|patch_embed|patch_projection).*")
_BUFFER = re.compile(
    r"(.*\.)?((\w*_)?inv_freq|(cos|sin)_cached|freqs(_cis)?|rotary_emb\.\w+|(\w+_)?mask(ed_bias)?|mel_filters"
    r"|relative_position_index|position_ids|token_type_ids)"
)
_SCALES = ("_scale", "_scale_inv", "_zero_point")
_PACKED = ("I8", "U8", "I16", "U16", "I32", "U32")
_FEWEST_COLUMNS = 8  # of integers that hold weights; tables of pairs and triples are narrower


@dataclass(frozen=True)
class Arranged:
    """Weights in the shape in which they are measured, and tensors that hold none, each with the reason."""

    weights: tuple[StoredTensor, ...]
    left_out: tuple[Skipped, ...]


def arrange(taken: Sequence[StoredTensor], config: dict[str, Any]) -> Arranged:
    """Tell matrices, stacks, kernels, vectors and buffers apart.

    Args:
        taken: the tensors of all encodings.
        config: the parsed config.json; it may say how many experts there are.
    """
    shapes = _Shapes(taken, config)
    weights: list[StoredTensor] = []
    left_out: list[Skipped] = []
    for stored in taken:
        found = shapes.of(stored)
        if isinstance(found, StoredTensor):
            weights.append(found)
        else:
            left_out += [Skipped.of(part, *found) for part in stored.parts]
    return Arranged(tuple(weights), tuple(left_out))


def holds_weights(entry: TensorEntry, widest: int) -> bool:
    """Whether integers that no encoding took must be weights, by their type and shape.

    Tables of positions and the like are of 64 bits, masks are squares; a vector longer than any matrix is wide is no
    table of its rows or columns.

    Args:
        entry: the stored tensor.
        widest: the longest side of any matrix of the checkpoint.
    """
    if entry.dtype not in _PACKED or entry.size == 0 or _is_mask(entry.name, entry.shape):
        return False
    long = [side for side in entry.shape if side > 1]
    return entry.size > max(widest, 1) if len(long) < 2 else min(long[-2:]) >= _FEWEST_COLUMNS


def widest_side(tensors: Iterable[StoredTensor]) -> int:
    """The longest side of any tensor of two or more dimensions; 0 where there is none."""
    return max((side for stored in tensors if len(stored.shape) > 1 for side in stored.shape), default=0)


class _Shapes:
    """What must be known of the whole checkpoint to read one shape."""

    def __init__(self, taken: Sequence[StoredTensor], config: dict[str, Any]):
        self._taken = taken
        self._widest = widest_side(taken)
        self._experts = {count for key in EXPERT_COUNTS if (count := integer(config, key)) is not None}

    @cached_property
    def _routers(self) -> dict[str, set[tuple[int, ...]]]:
        """The shapes of the matrices in each module: a router [experts, hidden] lies beside the experts, or above."""
        routers: dict[str, set[tuple[int, ...]]] = {}
        for stored in self._taken:
            if len(stored.shape) == 2:
                routers.setdefault(_parent(stored.module), set()).add(stored.shape)
        return routers

    @cached_property
    def _dimensions(self) -> dict[str, int]:
        """The most dimensions of any tensor of each module."""
        dimensions: dict[str, int] = {}
        for stored in self._taken:
            dimensions[stored.module] = max(len(stored.shape), dimensions.get(stored.module, 0))
        return dimensions

    def of(self, stored: StoredTensor) -> StoredTensor | tuple[str, SkipKind]:
        """The tensor in the shape in which it is measured, or why it is not and what it counts as."""
        shape = stored.shape
        if len(shape) == 2 and stored.name.endswith(".weight") and 0 not in shape and "rotary" not in stored.name:
            return stored  # nearly all of a large checkpoint, whose names are looked at no further
        if 0 in shape:
            return "empty tensor", "unmeasured"
        if _is_buffer(_tail(stored.name)) or _is_mask(stored.name, shape):
            return "a buffer (positions, frequencies or a mask)", "buffer"
        if not shape:
            return "scalar", "one_dimensional"
        if len(shape) == 1 or (
            (len(shape) > 2 or stored.name.endswith("bias")) and sum(side > 1 for side in shape) < 2
        ):
            if math.prod(shape) > self._widest:
                return "one-dimensional, and longer than any matrix is wide: flattened parameters", "unmeasured"
            return "one-dimensional (a bias, a norm or another vector)", "one_dimensional"
        if stored.name.endswith("bias"):
            return "a stack of biases", "one_dimensional" if self._has_weights(stored) else "unmeasured"
        if stored.name.endswith(_SCALES):
            return "scales, and no quantised weight that they belong to", "unmeasured"
        if len(shape) == 2:
            return stored
        return self._reshaped(stored)

    def _reshaped(self, stored: StoredTensor) -> StoredTensor | tuple[str, SkipKind]:
        shape = stored.shape
        inner = shape[next(k for k, side in enumerate(shape) if side > 1) :]
        if len(shape) == 3 and _STACK.fullmatch(stored.module):
            return stored
        if inner != shape and inner[-1] > LARGEST_KERNEL:
            # A table, such as that of the positions of an image: one row each.
            wanted: tuple[int, ...] = (math.prod(inner[:-1]), inner[-1])
        elif len(inner) == 2 and not _KERNEL.fullmatch(stored.module.lower()):
            wanted = inner  # a short one
        elif self._is_stack(stored, inner):
            wanted = (math.prod(inner[:-2]), *inner[-2:])
        else:
            wanted = (shape[0], math.prod(shape[1:]))
        if wanted == shape:
            return stored
        view = stored.reshaped(wanted)
        dimensions = "three" if len(shape) == 3 else f"{len(shape)}"
        return view or (f"{dimensions}-dimensional, in a form of storage whose kernels are not read", "unmeasured")

    def _is_stack(self, stored: StoredTensor, shape: tuple[int, ...]) -> bool:
        """Whether the last two dimensions are those of matrices, and those before count them."""
        count, sides = shape[:-2], shape[-2:]
        if _KERNEL.fullmatch(stored.module.lower()):
            return False
        if len(count) == 1 and (count[0] in self._experts or self._has_router(stored.module, count[0], sides)):
            return True
        return min(sides) > LARGEST_KERNEL and max(count) <= min(sides)

    def _has_router(self, module: str, count: int, sides: tuple[int, ...]) -> bool:
        near = (_parent(module), _parent(_parent(module)))
        return any((count, side) in self._routers.get(place, ()) for place in near for side in sides)

    def _has_weights(self, stored: StoredTensor) -> bool:
        """Whether these biases, one vector an expert, lie beside the weights that they belong to."""
        module = stored.module.removesuffix("bias").rstrip("._")
        dimensions = max(self._dimensions.get(module + suffix, 0) for suffix in ("", "_weight"))
        return dimensions > len(stored.shape)


@lru_cache(maxsize=1024)
def _is_buffer(tail: str) -> bool:
    """Whether a name with these last words is that of a buffer; thousands of experts share their last words."""
    return _BUFFER.fullmatch(tail) is not None


def _tail(name: str) -> str:
    """The last two words of a name."""
    return ".".join(name.rsplit(".", 2)[-2:])


def _parent(module: str) -> str:
    return module.rpartition(".")[0]


def _is_mask(name: str, shape: tuple[int, ...]) -> bool:
    """Whether this is a causal mask [1, 1, n, n], as GPT-2 and its kin keep it under the name of a bias."""
    square = len(shape) >= 3 and shape[-1] == shape[-2] and all(side == 1 for side in shape[:-2])
    return square and name.endswith(("bias", "mask"))
