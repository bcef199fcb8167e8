"""From a tensor of a pickle to an entry of the catalogue: where in the file its elements are, within its storage."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmtrap.checkpoint.containers.pytorch.values import Tensor
from llmtrap.checkpoint.containers.safetensors import BITS
from llmtrap.checkpoint.names import MAX_NAME, encodable, printable
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.checkpoint.tensors import Chunk, Skipped, TensorEntry
from llmtrap.errors import CheckpointError

_WRONG = "The file is damaged or was not written by PyTorch: save it again with torch.save"


@dataclass(frozen=True)
class StoragePlace:
    """Where the numbers of one storage lie."""

    span: ByteRange


def place(name: str, tensor: Tensor, places: dict[str, StoragePlace], file: str) -> TensorEntry | Skipped:
    """The entry of one tensor; what overlaps itself (an expanded view) is left out with the reason.

    Raises:
        CheckpointError: it reaches beyond its storage, or its storage is not in the file.
    """

    def wrong(problem: str) -> CheckpointError:
        return CheckpointError(problem, file=file, tensor=printable(name), remedy=_WRONG)

    if len(name) > MAX_NAME or not encodable(name):
        raise wrong(f"its name is no valid Unicode, or longer than {MAX_NAME} characters")
    storage, width = tensor.storage, BITS[tensor.dtype] // 8
    found = places.get(storage.key)
    if found is None:
        raise wrong("its storage is not in the file")
    unit = 1 if storage.dtype is None else BITS[storage.dtype] // 8
    if (storage.first + storage.count) * unit > found.span.size:
        raise wrong(f"its storage claims {storage.count} elements, and the file has {found.span.size} bytes of it")
    start = found.span.start + storage.first * unit + tensor.offset * width
    if 0 in tensor.shape:
        return TensorEntry(name, tensor.dtype, tensor.shape, ByteRange(file, found.span.start, found.span.start))
    lengths = [(size, stride) for size, stride in zip(tensor.shape, tensor.strides, strict=True) if size > 1]
    reach = 1 + sum((size - 1) * stride for size, stride in lengths)
    stop = start + reach * width
    if stop > found.span.start + (storage.first + storage.count) * unit:
        raise wrong(f"its shape {list(tensor.shape)} with strides {list(tensor.strides)} leads out of its storage")
    span = ByteRange(file, start, stop)
    if _follow_one_another(lengths):
        return TensorEntry(name, tensor.dtype, tensor.shape, span)
    if _overlap(lengths):
        problem = "a view whose elements share memory (expanded), so no tensor of its own"
        return Skipped(printable(name), problem, "buffer")
    nothing = (0,) * len(tensor.shape)
    chunk = Chunk(nothing, tensor.shape, tensor.strides, span)
    return TensorEntry(name, tensor.dtype, tensor.shape, span, (chunk,))


def _follow_one_another(lengths: list[tuple[int, int]]) -> bool:
    """Whether the elements lie one after the other, last dimension fastest."""
    return all(stride == math.prod(size for size, _ in lengths[k + 1 :]) for k, (_, stride) in enumerate(lengths))


def _overlap(lengths: list[tuple[int, int]]) -> bool:
    """Whether two elements may have one place: a dimension steps no further than the ones beneath it reach."""
    reach = 0
    for size, stride in sorted(lengths, key=lambda item: item[1]):
        if stride <= reach:
            return True
        reach += (size - 1) * stride
    return False
