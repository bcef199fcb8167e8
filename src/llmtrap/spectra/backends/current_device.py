"""CuPy computes on the current device of a thread: make it the one that a backend's arrays are on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def on_its_device(
    method: Callable[Concatenate[Any, Parameters], Result],
) -> Callable[Concatenate[Any, Parameters], Result]:
    """Run a method of an object with `_device` while that device is the current one, where the library has such."""

    @wraps(method)
    def within(self: Any, /, *arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        device = self._device
        with device if isinstance(device, AbstractContextManager) else nullcontext():
            return method(self, *arguments, **options)

    return within
