"""A copy of a module's weights in this machine's memory, taken while training waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmtrap.errors import UnsupportedError

if TYPE_CHECKING:
    import torch

_Storage = tuple[str, int, int, tuple[int, ...], tuple[int, ...]]

_SHARDED = "the weights of this model are spread over several processes, and no process has whole matrices"
_WATCH = "Save checkpoints and run `llmtrap watch DIR` beside the training"


class WeightCopy:
    """Holds one copy of a module's weights, in buffers that are used again.

    Only floating-point tensors are copied: no training changes codes. Tensors that share their storage (tied
    embeddings) share the copy. What does not require gradients, and was not written to since the last time, is not
    copied again.
    """

    def __init__(self) -> None:
        self._buffers: dict[_Storage, torch.Tensor] = {}
        self._versions: dict[_Storage, int] = {}

    def take(self, module: torch.nn.Module) -> dict[str, torch.Tensor]:
        """Copy the weights as they are now; the tensors are good until the next call.

        Raises:
            UnsupportedError: the weights are sharded (FSDP, DeepSpeed ZeRO-3, tensor parallelism).
        """
        import torch  # noqa: PLC0415

        taken: dict[str, torch.Tensor] = {}
        held: dict[_Storage, torch.Tensor] = {}
        with torch.no_grad():
            for name, tensor in module.state_dict(keep_vars=True).items():
                if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
                    continue
                refuse_sharded(name, tensor)
                key = _storage_of(tensor)
                if key not in held:
                    held[key] = self._copied(key, tensor)
                taken[name] = held[key]
        self._buffers = held
        return taken

    def _copied(self, key: _Storage, tensor: torch.Tensor) -> torch.Tensor:
        import torch  # noqa: PLC0415

        buffer, version = self._buffers.get(key), tensor._version
        if buffer is None or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype)
        elif not tensor.requires_grad and self._versions.get(key) == version:
            return buffer
        buffer.copy_(tensor.detach())
        self._versions[key] = version
        return buffer


def refuse_sharded(name: str, tensor: torch.Tensor) -> None:
    """Refuse what is only a part of a weight.

    Raises:
        UnsupportedError: the tensor is a shard.
    """
    kinds = {kind.__name__ for kind in type(tensor).__mro__}
    if kinds & {"DTensor", "ShardedTensor", "FlatParameter"} or hasattr(tensor, "ds_id"):
        raise UnsupportedError(_SHARDED, tensor=name, remedy=_WATCH)
    if tensor.device.type == "meta":
        raise UnsupportedError("this weight is on the meta device and has no values", tensor=name, remedy=_WATCH)


def _storage_of(tensor: torch.Tensor) -> _Storage:
    place = tensor.untyped_storage().data_ptr()
    return str(tensor.device), place, int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride())


def config_of(module: torch.nn.Module) -> dict[str, Any]:
    """The configuration of a model, or of the one model within a trainer's module; empty where there is none."""
    configured = [it for it in (module, *module.children()) if callable(_to_dict(it))]
    stated = _to_dict(configured[0])() if configured else {}
    return dict(stated) if isinstance(stated, Mapping) else {}


def _to_dict(module: torch.nn.Module) -> Any:
    return getattr(getattr(module, "config", None), "to_dict", None)
