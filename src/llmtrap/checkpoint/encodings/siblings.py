"""Which tensors belong to one weight: scales under all the names they go by, and floats that must be scales."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from llmtrap.checkpoint.encodings.grids import SCALES, fit_grid
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.tensors import TensorEntry
from llmtrap.errors import UnsupportedError

_OF_TENSOR = (
    "_scale_inv", "_scale", "_scales", ".scale", ".scales", "._scale", "_scaling_factor", "s_scaling_factor",
    "_weight_scale", "_weight_scale_inv",
)  # fmt: skip
"""Endings of a scale's name after the weight's whole name: transformers, compressed-tensors, ModelOpt, TensorRT-LLM."""

_OF_MODULE = ("scale", "scale_inv", "scale_weight", "qscale_weight", "scales")
"""Names of a scale beside `X.weight` as `X.NAME`: DeepSeek's own layout, ComfyUI, Mistral's own layout."""

_MEMBERS = 64  # tensors of a module; no layer has 20
_ASIDE = ("bias", "input_scale", "output_scale", "act_scale", "in_scale", "out_scale", "k_scale", "v_scale", "q_scale")
_ASIDE_WORDS = ("input_", "activation", "act_", "_act", "smooth", "pre_quant", "output_", "global_scale", "kv_")


def scale_of(weight: TensorEntry, free: Mapping[str, TensorEntry]) -> TensorEntry | None:
    """The tensor of scales of a weight, under one of the names that are in use."""
    module = weight.name.removesuffix(".weight")
    names = [weight.name + ending for ending in _OF_TENSOR]
    if module != weight.name:
        names += [f"{module}.{name}" for name in _OF_MODULE]
    return next((free[name] for name in names if name in free), None)


class Modules:
    """The tensors of a checkpoint by the module that they lie in: `a.b.weight` lies in `a.b`."""

    def __init__(self, tensors: Iterable[TensorEntry]):
        self._by_name = {entry.name: entry for entry in tensors}
        self._sorted = sorted(self._by_name)

    def like_scales(self, weight: TensorEntry, shape: tuple[int, ...], *, any_name: bool = False) -> TensorEntry | None:
        """A float tensor beside a weight that by its shape could hold the weight's scales, and is none we know of.

        Args:
            weight: codes that stand for little without their scale.
            shape: of the weight once decoded.
            any_name: take it for its module's weight whatever its name; else only one named `weight`.
        """
        module, _, last = weight.name.rpartition(".")
        prefixes = [f"{weight.name}.", f"{weight.name}_"]
        if module and (any_name or last == "weight"):
            prefixes.append(f"{module}.")
        for prefix in prefixes:
            for name in self._starting(prefix):
                if name != weight.name and _could_scale(self._by_name[name], shape):
                    return self._by_name[name]
        return None

    def _starting(self, prefix: str) -> list[str]:
        """Names with this prefix: a module's few tensors, and not all of a file's where everything lies in one."""
        first = bisect_left(self._sorted, prefix)
        return [name for name in self._sorted[first : first + _MEMBERS] if name.startswith(prefix)]


def _could_scale(entry: TensorEntry, shape: tuple[int, ...]) -> bool:
    name = entry.name.rpartition(".")[2]
    if entry.dtype not in SCALES or name.endswith(_ASIDE) or any(word in name for word in _ASIDE_WORDS):
        return False
    if entry.dtype in ("U8", "F8_E4M3") and "scale" not in name:
        return False
    grid = fit_grid(shape, entry)
    whole = shape[-1] * shape[-2]
    return grid is not None and (entry.size == 1 or grid.counts[0] * grid.counts[1] < whole)


def unknown_scale(weight: TensorEntry, scale: TensorEntry) -> UnsupportedError:
    """The refusal of codes beside which a tensor lies that must be their scale, under a name nobody told us of."""
    problem = (
        f"{printable(scale.name)} ({scale.dtype} {list(scale.shape)}) fits the scales of this weight of "
        f"{weight.dtype}, and is under no name that llmtrap knows: without its scale the weight would be misread"
    )
    remedy = "Audit a copy in BF16, or rename the scale to WEIGHT_scale (it multiplies) if that is what it is"
    return UnsupportedError(problem, file=weight.span.file, tensor=printable(weight.name), remedy=remedy)
