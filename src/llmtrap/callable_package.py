"""Packages that are called: `llmtrap.audit(model)` beside `import llmtrap.audit.plan`."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package whose call is that of the function in it that has its name: `llmtrap.audit.audit`."""

    def _called(self) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._called()(*arguments, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._called())

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        """That of the function: what `help` and a notebook's `?` show."""
        return inspect.getdoc(self._called())

    def __dir__(self) -> list[str]:
        return sorted({*getattr(self, "__all__", ()), *(name for name in vars(self) if not name.startswith("_"))})


def make_callable(package: str) -> None:
    """Let a package be called; the function is imported when it is."""
    sys.modules[package].__class__ = _CallablePackage
