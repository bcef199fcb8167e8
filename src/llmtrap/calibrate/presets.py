"""The recipes of `quick`, `full` and `paper`, for each task (`presets.toml`): arms, steps, seeds."""

from __future__ import annotations

import importlib.resources
import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from llmtrap.calibrate.recipe import Recipe, Task

PresetName = Literal["quick", "full", "paper"]
PRESETS: tuple[PresetName, ...] = ("quick", "full", "paper")


@dataclass(frozen=True)
class Preset:
    """Arms to run, each with `seeds` seeds."""

    name: PresetName
    task: Task
    seeds: int
    arms: tuple[Recipe, ...]


@cache
def _table() -> dict[str, Any]:
    text = importlib.resources.files("llmtrap.calibrate").joinpath("presets.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def preset(task: Task, name: PresetName) -> Preset:
    """The arms of a preset."""
    of_task = _resolved(_table(), task)
    chosen = _resolved(of_task, name)
    arms = []
    for arm, own in chosen["arms"].items():
        fields = {"task": task, "arm": arm, "purpose": _table()["purposes"].get(arm)}
        for part in (of_task, chosen):
            fields |= part.get("sizes", {}) | part.get("training", {})
        fields |= own
        if fields.get("weight_decay_until") == "never":
            del fields["weight_decay_until"]
        arms.append(TypeAdapter(Recipe).validate_python(fields))
    return Preset(name, task, chosen["seeds"], tuple(arms))


def _resolved(tables: dict[str, Any], name: str) -> dict[str, Any]:
    """A table, laid over the one that it starts from."""
    own: dict[str, Any] = tables[name]
    return _laid_over(_resolved(tables, own["as"]), own) if "as" in own else own


def _laid_over(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _laid_over(under[key], value) if isinstance(value, dict) and key in under else value
        for key, value in over.items()
    }
    return under | both
