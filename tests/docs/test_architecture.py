"""docs/architecture.md is true: its stations exist, and its drawing has the layers that `make check` holds."""

from __future__ import annotations

import ast
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SOURCE = ROOT / "src" / "llmtrap"
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]


def defined(file: Path) -> set[str]:
    """The names that a file defines, those of methods with their class."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name):
                found.add(name)
            case ast.ClassDef(name=name, body=body):
                found |= {name} | {f"{name}.{inner.name}" for inner in body if isinstance(inner, ast.FunctionDef)}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`([\w/]+\.(?:py|toml))`", PAGE)) - {"pyproject.toml", "document.py"})
)
def test_every_file_that_is_named_is_there(path: str) -> None:
    assert (SOURCE / path).is_file()


@pytest.mark.parametrize(("path", "name"), re.findall(r"`([\w/]+\.py)` `([\w.]+)`", PAGE))
def test_every_function_that_is_named_is_in_its_file(path: str, name: str) -> None:
    assert name in defined(SOURCE / path)


@pytest.mark.parametrize("title", ["One matrix", "One gated pair"])
def test_a_walk_has_at_most_eight_stations(title: str) -> None:
    (section,) = re.findall(rf"^## {title}.*?(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
    stations = re.findall(r"^\| (\d+) \|", section, re.MULTILINE)
    assert stations == [str(number) for number in range(1, len(stations) + 1)]
    assert 4 <= len(stations) <= 8


def test_the_drawing_has_the_packages_of_the_contract_in_its_order() -> None:
    (drawing,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    height = {name: number for number, line in enumerate(drawing.splitlines()) for name in re.findall(r"\w+", line)}
    for_sure = [re.findall(r"[a-z_]+", layer) for layer in LAYERS if not layer.startswith("(")]
    assert set(height) == {name for layer in for_sure for name in layer}
    for above, below in pairwise(for_sure):
        assert max(height[name] for name in above) < min(height[name] for name in below)
