"""Find and read a policy: `llmtrap.toml`, or `[tool.llmtrap]` of a pyproject.toml, with the same keys in both."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmtrap.errors import UsageError
from llmtrap.gate.policy import Gate, Ignore, Policy
from llmtrap.gate.rules import RULES

OWN_FILE = "llmtrap.toml"
PYPROJECT = "pyproject.toml"
LIMIT_BYTES = 10_000_000

_REMEDY = "`llmtrap gate --init` writes a policy with every key explained"


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy and where it came from: no path for the built-in one. `lines` has the line of each rule's table."""

    policy: Policy
    path: Path | None = None
    lines: dict[str, int] = field(default_factory=dict)

    def line(self, rule: str) -> int:
        """Where the file sets a rule, from 1; the gate's own table, or the first line, where it does not."""
        return self.lines.get(rule, self.lines.get("", 1))


def load_policy(path: Path | None = None, folder: Path | None = None) -> LoadedPolicy:
    """Read the policy named, or the one of a folder, or the built-in one.

    Args:
        path: a TOML file. One named pyproject.toml must have `[tool.llmtrap]`.
        folder: where to look without a path: `llmtrap.toml` wins over `pyproject.toml`. The current one by default.

    Raises:
        UsageError: the file cannot be read, is no TOML, or does not keep to the policy's keys; the message names the
            key, and for an unknown one the nearest known one.
    """
    if path is not None:
        return _read(path, required=True)
    here = Path() if folder is None else folder
    for name in (OWN_FILE, PYPROJECT):
        if (here / name).is_file():
            found = _read(here / name, required=name == OWN_FILE)
            if found.path is not None:
                return found
    return LoadedPolicy(Policy())


def _read(path: Path, *, required: bool) -> LoadedPolicy:
    text = _text(path)
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"this is not TOML: {error}", file=str(path), remedy="Correct the file") from error
    prefix = ""
    if path.name == PYPROJECT:
        prefix = "tool.llmtrap."
        tool = content.get("tool", {})
        content = tool.get("llmtrap") if isinstance(tool, dict) else None  # type: ignore[assignment]
        if content is None and not required:
            return LoadedPolicy(Policy())
        if not isinstance(content, dict):
            raise UsageError("there is no [tool.llmtrap.gate] table", file=str(path), remedy=_REMEDY)
    return LoadedPolicy(_validated(content, path, prefix), path, _lines(text, prefix))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        problem = f"the policy cannot be read ({error.strerror})"
        raise UsageError(problem, file=str(path), remedy="Check the path given with --policy") from error
    if len(content) > LIMIT_BYTES:
        raise UsageError(f"over {LIMIT_BYTES:,} bytes, more than any policy", file=str(path))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("this is not UTF-8 text", file=str(path), remedy="Name a TOML file") from error


def _validated(content: dict[str, Any], path: Path, prefix: str) -> Policy:
    _refuse_unknown(content, list(Policy.model_fields), prefix, path)
    gate = content.get("gate", {})
    if isinstance(gate, dict):
        _refuse_unknown(gate, list(Gate.model_fields), f"{prefix}gate.", path)
        rules = gate.get("rules", {})
        if isinstance(rules, dict):
            _refuse_unknown(rules, list(RULES), f"{prefix}gate.rules.", path)
            for name, settings in rules.items():
                if isinstance(settings, dict):
                    known = list(RULES[name].settings.model_fields)
                    _refuse_unknown(settings, known, f"{prefix}gate.rules.{name}.", path)
                    _check(RULES[name].settings, settings, f"{prefix}gate.rules.{name}", path)
    ignores = content.get("ignore", [])
    for item in ignores if isinstance(ignores, list) else []:
        if isinstance(item, dict):
            _refuse_unknown(item, list(Ignore.model_fields), f"{prefix}ignore.", path)
    _check(Policy, content, prefix.rstrip("."), path)
    return Policy.model_validate(content)


def _refuse_unknown(table: dict[str, Any], known: list[str], prefix: str, path: Path) -> None:
    for key in table:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
        raise UsageError(
            f"unknown key '{prefix}{key}'", file=str(path),
            remedy=f"Did you mean '{prefix}{near[0]}'? Known here: {', '.join(known)}",
        )  # fmt: skip


def _check(model: type[Any], content: Any, where: str, path: Path) -> None:
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in (where, *first["loc"]) if part != "")
        raise UsageError(f"'{place}': {first['msg']}", file=str(path), remedy=_REMEDY) from error


def _lines(text: str, prefix: str) -> dict[str, int]:
    """The line of each rule's table, and of the gate's own (under the empty name)."""
    header = re.compile(rf"\s*\[\s*{re.escape(prefix)}gate(?:\.rules\.(?P<rule>\w+))?\s*\]")
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if match := header.match(line):
            found.setdefault(match["rule"] or "", number)
    return found
