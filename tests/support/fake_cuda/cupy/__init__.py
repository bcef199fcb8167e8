"""A CuPy of $FAKE_CUDA_DEVICES devices that is none: with its folder on PYTHONPATH, llmtrap takes it for the real one.

The arrays are array-api-strict's, which refuses to mix devices. As with CuPy, work on an array of another device than
the current one fails. Every copy from the host is a line in $FAKE_CUDA_LOG: process, device, dtype, bytes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_strict
import numpy as np

_current = [0]


class Device:
    """Device `id`, current within `with`."""

    def __init__(self, id: int):
        self.id = id

    def __enter__(self) -> Device:
        _current.append(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        _current.pop()

    @property
    def inside(self) -> Any:
        """Where the arrays really are."""
        return array_api_strict.Device(f"device{self.id + 1}")


class ndarray:  # noqa: N801 - CuPy's name
    """What no array here is: they are array-api-strict's own."""


class CUDARuntimeError(Exception):
    """What CuPy raises where there is no driver."""


def _arrays(arguments: Iterable[Any]) -> Iterable[Any]:
    for argument in arguments:
        if isinstance(argument, list | tuple):
            yield from _arrays(argument)
        elif hasattr(argument, "device") and not isinstance(argument, np.ndarray):
            yield argument


def _log(device: Device, array: np.ndarray) -> None:
    line = json.dumps([os.getpid(), device.id, str(array.dtype), array.nbytes]) + "\n"
    with Path(os.environ["FAKE_CUDA_LOG"]).open("a") as file:
        file.write(line)


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        here = Device(_current[-1]).inside
        elsewhere = [array for array in _arrays(arguments) if array.device != here]
        if elsewhere:
            raise ValueError(f"{function.__name__}: an array of {elsewhere[0].device}, and the current one is {here}")
        if "device" in options:
            device = options["device"]
            if function.__name__ == "asarray" and isinstance(arguments[0], np.ndarray):
                _log(device, arguments[0])
            options["device"] = device.inside
        return function(*arguments, **options)

    return call


def _namespace(of: ModuleType) -> ModuleType:
    made: Any = ModuleType(of.__name__)
    for name in dir(of):
        if not name.startswith("_"):
            thing = getattr(of, name)
            plain = isinstance(thing, ModuleType | type) or not callable(thing)
            setattr(made, name, thing if plain else _checked(thing))
    return made


cuda = SimpleNamespace(
    runtime=SimpleNamespace(
        getDeviceCount=lambda: int(os.environ["FAKE_CUDA_DEVICES"]), CUDARuntimeError=CUDARuntimeError
    ),
    Device=Device,
)
_standard: Any = _namespace(array_api_strict)
_standard.linalg = _namespace(array_api_strict.linalg)
sys.modules["array_api_compat.cupy"] = _standard
