"""The public Python API: what is exported is documented, and what the documentation uses is exported."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

import llmtrap

ROOT = Path(__file__).parents[2]
# What `make docs` documents whole, beside the names of the package.
(_MODULES,) = re.findall(r"^MODULES = .*", (ROOT / ".ci" / "site_pages.py").read_text(), re.MULTILINE)
DOCUMENTED = ["llmtrap", *re.findall(r"\bllmtrap[\w.]*", _MODULES)]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def public(module: ModuleType) -> dict[str, object]:
    """What a module offers: what `__all__` names, else what it defines itself."""
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]  # fmt: skip
    return {name: getattr(module, name) for name in names}


def undocumented(name: str, value: object) -> list[str]:
    """The name itself and its public methods and properties, where they have no docstring of their own."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return []
    missing = [] if own_docstring(value) else [name]
    if inspect.isclass(value):
        for member, held in vars(value).items():
            called = inspect.isroutine(held) or isinstance(held, property | classmethod | staticmethod)
            if called and not member.startswith("_") and not inspect.getdoc(getattr(value, member)):
                missing.append(f"{name}.{member}")
    return missing


def own_docstring(value: object) -> str:
    text = value.__doc__ or ""
    # A dataclass without a docstring gets its signature as one; a Pydantic model inherits its base's.
    generated = inspect.isclass(value) and text.startswith(f"{value.__name__}(")
    inherited = inspect.isclass(value) and issubclass(value, BaseModel) and text == (BaseModel.__doc__ or "")
    return "" if generated or inherited else text.strip()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_public_name_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    members = public(module)
    assert module.__doc__
    assert members
    assert [missing for name, value in members.items() for missing in undocumented(name, value)] == []


def test_the_package_exports_what_it_says_and_nothing_by_accident() -> None:
    found = {
        name for name in dir(llmtrap)
        if not name.startswith("_")
        and name not in ("annotations", "import_module", "ModuleType", "Any", "TYPE_CHECKING")
        and (callable(getattr(llmtrap, name)) or not inspect.ismodule(getattr(llmtrap, name)))
    }  # fmt: skip
    assert found == {name for name in llmtrap.__all__ if not name.startswith("_")}


def test_what_the_pages_use_is_exported() -> None:
    used: set[str] = set()
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            used |= set(re.findall(r"(?<!from )\bllmtrap\.(\w+)", block))
            for names in re.findall(r"^from llmtrap import ([\w, ]+)", block, re.MULTILINE):
                used |= {name.strip() for name in names.split(",")}
    assert "audit" in used
    assert used <= set(llmtrap.__all__)
