"""Find and read a policy: `llmtrap.toml`, or `[tool.llmtrap]` of a pyproject.toml, with the same keys in both."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmtrap.documents import DocumentError, read_document
from llmtrap.errors import UsageError
from llmtrap.gate.policy import Gate, Ignore, Policy
from llmtrap.gate.rules import RULES
from llmtrap.printable import printable

OWN_FILE = "llmtrap.toml"
PYPROJECT = "pyproject.toml"
LIMIT_BYTES = 1_000_000

_REMEDY = "`llmtrap gate --init` writes a policy with every key explained"


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy and where it came from: no path for the built-in one. `lines` has the line of each rule's table.

    `notes` are sentences for the output: that a policy belongs to the target, and whether it was read.
    """

    policy: Policy
    path: Path | None = None
    lines: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def line(self, rule: str) -> int:
        """Where the file sets a rule, from 1; the gate's own table, or the first line, where it does not."""
        return self.lines.get(rule, self.lines.get("", 1))


def load_policy(path: Path | None = None, folder: Path | None = None, target: str | None = None) -> LoadedPolicy:
    """Read the policy named, or the one of a folder, or the built-in one.

    A policy that lies in the target is the target's own word on how it should be judged: it is not read unless it is
    named, and the output says that it belongs to the target.

    Args:
        path: a TOML file. One named pyproject.toml must have `[tool.llmtrap]`.
        folder: where to look without a path: `llmtrap.toml` wins over `pyproject.toml`. The current one by default.
        target: what will be judged; None where that is not known.

    Raises:
        UsageError: the file cannot be read, is no TOML, or does not keep to the policy's keys; the message names the
            key, and for an unknown one the nearest known one.
    """
    if path is not None:
        loaded = _read(path, required=True)
        if belongs_to(path, target):
            return replace(loaded, notes=(f"the policy {printable(str(path), 160)} belongs to the target",))
        return loaded
    here = Path() if folder is None else folder
    notes: list[str] = []
    for name in (OWN_FILE, PYPROJECT):
        if not os.path.lexists(here / name):
            continue
        if belongs_to(here / name, target):
            if name == OWN_FILE:
                notes.append(f"{name} lies in the target and was not read: name it with --policy to judge by it")
            continue
        found = _read(here / name, required=name == OWN_FILE)
        if found.path is not None:
            return replace(found, notes=tuple(notes))
    return LoadedPolicy(Policy(), notes=tuple(notes))


def belongs_to(path: Path, target: str | None) -> bool:
    """Whether a file, or the link to it, lies in the folder that is judged or beside the file of weights that is."""
    if target is None or not os.path.lexists(target):
        return False
    place = Path(target)
    if place.suffix == ".json" and not place.is_dir():
        return False  # a report: its folder is the user's own
    judged = (place if place.is_dir() else place.parent).resolve()
    return path.resolve().is_relative_to(judged) or (path.parent.resolve() / path.name).is_relative_to(judged)


def _read(path: Path, *, required: bool) -> LoadedPolicy:
    return parse_policy(read_policy_bytes(path), path, required=required)


def parse_policy(content: bytes, path: Path, *, required: bool = True) -> LoadedPolicy:
    """The policy that a file holds, or would hold.

    Args:
        content: all bytes of the file.
        path: its path; a pyproject.toml has its tables under `[tool.llmtrap]`.
        required: whether a pyproject.toml without such tables is an error, and not the built-in policy.

    Raises:
        UsageError: as `load_policy`.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("this is not UTF-8 text", file=str(path), remedy="Name a TOML file") from error
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise UsageError(
            f"this is not TOML: {printable(str(error), 300)}", file=str(path), remedy="Correct the file"
        ) from error
    prefix = ""
    if path.name == PYPROJECT:
        prefix = "tool.llmtrap."
        tool = tables.get("tool", {})
        tables = tool.get("llmtrap") if isinstance(tool, dict) else None  # type: ignore[assignment]
        if tables is None and not required:
            return LoadedPolicy(Policy())
        if not isinstance(tables, dict):
            raise UsageError("there is no [tool.llmtrap.gate] table", file=str(path), remedy=_REMEDY)
    return LoadedPolicy(_validated(tables, path, prefix), path, _lines(text, prefix))


def read_policy_bytes(path: Path) -> bytes:
    """All bytes of a policy file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return read_document(path, LIMIT_BYTES, "policy")
    except DocumentError as error:
        problem = f"the policy cannot be read: {error.problem}"
        raise UsageError(problem, file=str(path), remedy="Check the path given with --policy") from error


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
            f"unknown key '{prefix}{printable(key, 80)}'", file=str(path),
            remedy=f"Did you mean '{prefix}{near[0]}'? Known here: {', '.join(known)}",
        )  # fmt: skip


def _check(model: type[Any], content: Any, where: str, path: Path) -> None:
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in (where, *first["loc"]) if part != "")
        raise UsageError(
            f"'{printable(place, 200)}': {printable(first['msg'], 300)}", file=str(path), remedy=_REMEDY
        ) from error


def _lines(text: str, prefix: str) -> dict[str, int]:
    """The line of each rule's table, and of the gate's own (under the empty name)."""
    header = re.compile(rf"\s*\[\s*{re.escape(prefix)}gate(?:\.rules\.(?P<rule>\w+))?\s*\]")
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if match := header.match(line):
            found.setdefault(match["rule"] or "", number)
    return found
