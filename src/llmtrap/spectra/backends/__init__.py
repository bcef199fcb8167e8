"""Choose the array library and device: adding a backend is adding a line to the table."""

from __future__ import annotations

import ctypes
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from llmtrap.errors import DeviceError, MissingExtraError, UsageError
from llmtrap.spectra.backends.array_api import ArrayApiBackend
from llmtrap.spectra.backends.base import Array, Backend, Decoder
from llmtrap.spectra.backends.numpy import NumpyBackend

__all__ = ["Array", "ArrayApiBackend", "Backend", "Decoder", "NumpyBackend", "cuda_device_count", "select_backend"]

_NUMBER = re.compile(r"[0-9]{1,4}")
BACKENDS = ("numpy", "cupy", "torch")


def cuda_device_count() -> int:
    """How many CUDA devices CuPy, or else PyTorch, can use here; 0 where neither is installed or none is there."""
    if find_spec("cupy") is not None:
        cupy = import_module("cupy")
        try:
            return int(cupy.cuda.runtime.getDeviceCount())
        except cupy.cuda.runtime.CUDARuntimeError:
            return 0
    # Importing PyTorch takes seconds and 200 MB: not where there is no driver, and so no device.
    if find_spec("torch") is not None and _driver_found():
        return int(import_module("torch").cuda.device_count())
    return 0


def _driver_found() -> bool:
    """Whether NVIDIA's driver is installed: without it no library finds a device."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def select_backend(backend: str = "auto", device: str = "auto") -> Backend:
    """Return the backend for `--backend` and `--device`.

    Args:
        backend: auto, numpy, cupy or torch.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        DeviceError: a CUDA device was asked for and there is none, or not that one.
        MissingExtraError: the library asked for is not installed.
        UsageError: unknown words, or numpy asked to work on a GPU.
    """
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"unknown backend '{backend}'", remedy=f"Choose one of: auto, {', '.join(BACKENDS)}")
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not (kind == "cuda" and _NUMBER.fullmatch(number))):
        raise UsageError(f"unknown device '{device}'", remedy="Choose one of: auto, cpu, cuda, cuda:N")
    if kind == "auto":
        usable = backend != "numpy" and (backend != "auto" or _gpu_library() is not None)
        # CuPy has no other device: where it or its device is missing, that is what must be said.
        kind = "cuda" if backend == "cupy" or (usable and cuda_device_count() > 0) else "cpu"
    if kind == "cpu":
        return _cpu_backend(backend)
    return _cuda_backend(backend, int(number or 0))


def _gpu_library() -> str | None:
    return next((name for name in ("cupy", "torch") if find_spec(name) is not None), None)


def _cpu_backend(backend: str) -> Backend:
    if backend in ("auto", "numpy"):
        return NumpyBackend()
    if backend == "cupy":
        raise UsageError("CuPy computes on CUDA devices only", remedy="Use --device cuda, or --backend numpy")
    return ArrayApiBackend(_torch(), name="torch", device="cpu")


def _cuda_backend(backend: str, number: int) -> Backend:
    if backend == "numpy":
        raise UsageError("NumPy computes on the CPU only", remedy="Use --backend cupy or torch, or --device cpu")
    library = _gpu_library() if backend == "auto" else backend
    if library is None:
        raise MissingExtraError.of("A CUDA device", "cuda12")
    if library == "cupy" and find_spec("cupy") is None:
        raise MissingExtraError.of("The CuPy backend", "cuda12")
    namespace = _torch() if library == "torch" else None
    count = cuda_device_count()
    if number >= count:
        found = "none is there" if count == 0 else f"there are {count}, numbered from 0"
        raise DeviceError(
            f"CUDA device {number} was asked for, but {found}", remedy="See 'llmtrap doctor', or use --device cpu"
        )
    if library == "torch":
        return ArrayApiBackend(namespace, name="torch", device=f"cuda:{number}")
    cupy = import_module("cupy")
    namespace = import_module("array_api_compat.cupy")
    return ArrayApiBackend(namespace, name="cupy", device=cupy.cuda.Device(number))


def _torch() -> Any:
    if find_spec("torch") is None:
        raise MissingExtraError.of("The PyTorch backend", "torch")
    return import_module("array_api_compat.torch")
