"""From tensors in memory to a checkpoint, by the same rules as from files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from llmtrap.checkpoint.checkpoint import Checkpoint
from llmtrap.checkpoint.families import Family
from llmtrap.checkpoint.find import find_matrices
from llmtrap.checkpoint.matrices import WeightMatrix
from llmtrap.checkpoint.memory.arrays import MemoryTensor, memory_tensor
from llmtrap.checkpoint.missing_layers import missing_experts, missing_layers
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.not_weights import refuse_ungathered, refuse_updates
from llmtrap.checkpoint.quantisation import KEY
from llmtrap.checkpoint.shared import take_out_shared
from llmtrap.checkpoint.sources.memory import FILE, MemorySource
from llmtrap.checkpoint.tensors import Catalogue, Skipped, TensorEntry
from llmtrap.errors import TargetError, UnsupportedError

_INTEGERS = ("U8", "I8", "I16", "U16", "I32", "U32")
_WRAPPERS = ("module", "_orig_mod")
"""Where DataParallel and its like, and torch.compile, keep the module that they wrap."""


def is_in_memory(target: object) -> bool:
    """Whether a target is a module or a mapping rather than a name."""
    return isinstance(target, Mapping) or _is_module(target)


def named(target: object) -> str:
    """A target that is no module or mapping, as text.

    Raises:
        TargetError: it is no path either.
    """
    if isinstance(target, (str, os.PathLike)):
        return os.fsdecode(os.fspath(target))
    problem = f"an object of type {type(target).__name__} cannot be audited"
    if hasattr(target, "shape"):
        raise TargetError(problem, remedy="One matrix is measured by llmtrap.analyze(W)")
    raise TargetError(problem, remedy="Give a path, a hub name, a torch module, or a mapping of names to arrays")


def open_memory(
    target: Any,
    *,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    split_fused: bool = False,
    family: Family | None = None,
) -> Checkpoint:
    """Open a module, a state dict, or a mapping of names to arrays, and find its matrices. Nothing is copied.

        checkpoint = open_memory(model)

    Args:
        target: a `torch.nn.Module`, or a mapping of names to NumPy, PyTorch, JAX or CuPy arrays.
        name: what it is called in reports; the class of a module by default.
        config: what a checkpoint's config.json says; a module's own by default.
        split_fused: give gate and up, or q, k and v, of fused tensors apart.
        family: what the names of this kind of model cannot tell.

    Raises:
        UnsupportedError: a tensor is quantised, elsewhere, or of a type that is not read; its name is given.
        TargetError: there are no tensors.
    """
    module = _unwrapped(target) if _is_module(target) else None
    given: Mapping[Any, Any] = _named_tensors(module) if module is not None else target
    tensors = [memory_tensor(_text(key), value) for key, value in given.items() if value is not None]
    if not tensors:
        raise TargetError("there are no tensors in it", file=name or type(target).__name__, remedy="Give a model")
    source = MemorySource(tensors, name or (type(target).__name__ if module is None else type(module).__name__))
    stated = dict(config) if config is not None else _config_of(module)
    # In memory a quantised layer may lie in any form that its kernels like: what files say of it does not hold.
    stated.pop(KEY, None)
    catalogue = _catalogue(source, tensors, stated)
    found = find_matrices(catalogue, split_fused=split_fused, family=family)
    for matrix in found.matrices:
        _refuse_quantised(matrix)
    for item in found.skipped:
        if item.kind == "unmeasured" and item.tensor in source.spans:
            raise _quantised(item.tensor)
    skipped = (
        *found.skipped,
        *missing_layers(stated, found.matrices),
        *missing_experts(stated, found.matrices),
    )
    return Checkpoint(source, catalogue, found.matrices, skipped, found.family, (), found.unknown, found.notes)


def _catalogue(source: MemorySource, tensors: list[MemoryTensor], config: dict[str, Any]) -> Catalogue:
    entries = {it.name: TensorEntry(it.name, it.dtype, it.shape, source.spans[it.name]) for it in tensors}
    refuse_updates(list(entries.values()))
    refuse_ungathered(entries.values())
    skipped: list[Skipped] = []
    shared = take_out_shared(source, entries, skipped, config)
    return Catalogue(source.identity, entries, source.files(), config, tuple(skipped), shared=shared)


def _is_module(target: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(target, torch.nn.Module)


def _unwrapped(module: Any) -> Any:
    for wrapper in _WRAPPERS:
        inner = module.__dict__.get("_modules", {}).get(wrapper)
        if inner is not None and len(module._modules) == 1:
            return _unwrapped(inner)
    return module


def _named_tensors(module: Any) -> dict[str, Any]:
    """The tensors as a checkpoint would name them; a quantised layer is refused by its class."""
    for name, layer in module.named_modules():
        if _holds_codes(layer):
            problem = f"a {type(layer).__name__} ({type(layer).__module__}), quantised in memory"
            raise UnsupportedError(problem, tensor=printable(name), remedy=_quantised(name).remedy)
    state = module.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if not name.endswith("_extra_state")}


def _holds_codes(layer: Any) -> bool:
    """Whether a linear layer's weights are integers: of PyTorch, bitsandbytes, GPTQ, AWQ, HQQ and their like."""
    if hasattr(layer, "_packed_params"):  # PyTorch's own
        return True
    own = [*layer._parameters.values(), *layer._buffers.values()]
    kinds = {str(it.dtype).removeprefix("torch.") for it in own if it is not None and it.ndim > 1}
    is_linear = any(word in type(layer).__name__.lower() for word in ("linear", "experts"))
    return is_linear and bool(kinds & {"int8", "uint8", "int16", "int32"})


def _config_of(module: Any) -> dict[str, Any]:
    to_dict = getattr(getattr(module, "config", None), "to_dict", None)
    stated = to_dict() if callable(to_dict) else {}
    return dict(stated) if isinstance(stated, dict) else {}


def _refuse_quantised(matrix: WeightMatrix) -> None:
    if any(part.dtype in _INTEGERS for part in matrix.stored.parts):
        raise _quantised(matrix.tensor)


def _quantised(tensor: str) -> UnsupportedError:
    return UnsupportedError(
        "weights quantised in memory", file=FILE, tensor=printable(tensor),
        remedy="Audit the files that it was loaded from, or a copy in BF16 (many libraries: model.dequantize())",
    )  # fmt: skip


def _text(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, tuple):  # flax: ("params", "Dense_0", "kernel")
        return ".".join(map(str, key))
    raise TargetError(f"{key!r} is no tensor's name", remedy="Give a mapping of texts to arrays")
