"""Arrays of several libraries as NumPy sees their bytes: without a copy where they are in the host's memory.

What lies on a device is fetched part by part, as it is read. Adding a library is adding a line to `_LIBRARIES`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.names import printable
from llmtrap.errors import UnsupportedError

Array = NDArray[np.generic]

_DTYPES: Final[dict[str, str]] = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ", "complex64": "C64", "bool": "BOOL",
    "int8": "I8", "uint8": "U8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32",
    "int64": "I64", "uint64": "U64",
}  # fmt: skip
"""How the libraries call a type of numbers, and how a catalogue does."""

_QUANTISED = "Audit the files that it was loaded from, or a copy in BF16 (many libraries: model.dequantize())"


@dataclass(frozen=True)
class MemoryTensor:
    """One tensor in memory. `leading(start, stop)` gives elements [start, stop) of its first axis in host memory.

    Tensors of one `storage` are the same weights; None says that nothing is known.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    itemsize: int
    leading: Callable[[int, int], Array]
    storage: object | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, one after the other."""
        return self.itemsize * int(np.prod(self.shape, dtype=np.int64))


def memory_tensor(name: str, value: Any) -> MemoryTensor:
    """A tensor of any library that is known, by name.

    Raises:
        UnsupportedError: no array, or one whose numbers are not in memory as they are computed with.
    """
    for library, kind, convert in _LIBRARIES:
        module = sys.modules.get(library)  # an array of a library that was never imported there cannot be
        if module is not None and isinstance(value, getattr(module, kind)):
            return convert(name, value)
    if hasattr(value, "__dlpack__"):
        return _of_numpy(name, np.from_dlpack(value))
    if hasattr(value, "__array__"):
        return _of_numpy(name, np.asarray(value))
    raise UnsupportedError(
        f"a {type(value).__name__} is no array", tensor=printable(name),
        remedy="Give names and NumPy, PyTorch, JAX or CuPy arrays, or any with __dlpack__",
    )  # fmt: skip


def _of_numpy(name: str, array: Array) -> MemoryTensor:
    if array.dtype.byteorder == ">":
        raise UnsupportedError(
            "its numbers have the most significant byte first", tensor=printable(name),
            remedy="Convert it: array.astype(array.dtype.newbyteorder('='))",
        )  # fmt: skip
    dtype = _dtype(name, array.dtype.name)
    whole = array if array.ndim else array.reshape(1)
    storage = (array.ctypes.data, array.strides, array.shape, dtype) if array.size else None
    return MemoryTensor(name, dtype, array.shape, array.dtype.itemsize, lambda i, j: whole[i:j], storage)


def _of_jax(name: str, array: Any) -> MemoryTensor:
    """On the CPU its numbers are seen where they lie; of a device each part is fetched."""
    if all(device.platform == "cpu" for device in array.devices()):
        return _of_numpy(name, np.asarray(array))
    return _on_device(name, array, np.asarray)


def _of_cupy(name: str, array: Any) -> MemoryTensor:
    return _on_device(name, array, lambda part: np.asarray(part.get()))


def _on_device(name: str, array: Any, fetch: Callable[[Any], Array]) -> MemoryTensor:
    dtype = np.dtype(array.dtype)
    whole = array if array.ndim else array.reshape(1)
    shape = tuple(int(side) for side in array.shape)
    return MemoryTensor(
        name, _dtype(name, dtype.name), shape, dtype.itemsize, lambda i, j: fetch(whole[i:j]), id(array)
    )


def _of_torch(name: str, tensor: Any) -> MemoryTensor:
    import torch  # noqa: PLC0415  (whoever has such a tensor has imported it)

    if type(tensor) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
        if type(tensor).__module__.startswith("torch.distributed"):
            problem = "this process has a share of the tensor alone"
            remedy = "Gather it first, such as by a full state dict"
        else:
            problem = f"a {type(tensor).__name__} ({type(tensor).__module__}) holds its numbers quantised or wrapped"
            remedy = _QUANTISED
        raise UnsupportedError(problem, tensor=printable(name), remedy=remedy)
    if tensor.is_meta:
        raise UnsupportedError(
            "the tensor is on the device 'meta': its numbers are not in memory", tensor=printable(name),
            remedy="Load the model without offloading, or audit its files",
        )  # fmt: skip
    if tensor.layout is not torch.strided or tensor.is_quantized:
        kind = "quantised" if tensor.is_quantized else f"sparse ({tensor.layout})"
        raise UnsupportedError(f"the tensor is {kind}", tensor=printable(name), remedy=_QUANTISED)
    dtype = _dtype(name, str(tensor.dtype).removeprefix("torch."))
    plain = tensor.detach().resolve_conj().resolve_neg()
    storage = (str(plain.device), plain.data_ptr(), plain.stride(), tuple(plain.shape), dtype)
    whole = plain if plain.ndim else plain.reshape(1)
    if dtype in ("BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"):
        # NumPy knows none of these by itself: their bits are what is read.
        whole = whole.view(torch.int16 if plain.element_size() == 2 else torch.uint8)
    return MemoryTensor(
        name, dtype, tuple(plain.shape), plain.element_size(), lambda i, j: whole[i:j].cpu().numpy(),
        storage if plain.numel() else None,
    )  # fmt: skip


_LIBRARIES: Final[tuple[tuple[str, str, Callable[[str, Any], MemoryTensor]], ...]] = (
    ("numpy", "ndarray", _of_numpy),
    ("torch", "Tensor", _of_torch),
    ("jax", "Array", _of_jax),
    ("cupy", "ndarray", _of_cupy),
)
"""The library, the class of its arrays, and how one becomes a `MemoryTensor`."""


def _dtype(name: str, word: str) -> str:
    if word not in _DTYPES:
        problem = f"numbers of type {word} are not read"
        raise UnsupportedError(problem, tensor=printable(name), remedy="Convert the tensor to float32 first")
    return _DTYPES[word]
