"""The policy that `llmtrap gate --init` writes: every key with its default and what it means, from the models."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llmtrap.errors import OutputError
from llmtrap.gate.policy import Gate
from llmtrap.gate.policy_file import OWN_FILE
from llmtrap.gate.rules import RULES
from llmtrap.report.write import write_whole

_HEAD = """\
# The policy of `llmtrap gate`. What stands here is the default; delete what you do not change.
# In a pyproject.toml write `tool.llmtrap.` before the name of every table, as in [tool.llmtrap.gate].
"""

_IGNORES = """
# Known findings that do not fail the gate. After the day it expires an ignore holds no more; one that matches nothing
# is reported.
# [[ignore]]
# rule = "LT001"
# match = "layers.*.mlp.down"  # glob on the matrix id, or "part=vision"; the checkpoint as a whole is "checkpoint"
# reason = "looked at on 2026-01-15: the entry is in the base of the base too"
# expires = 2026-12-31
"""


def template() -> str:
    """The text of the policy file."""
    parts = [_HEAD, "[gate]", *_keys(Gate, leave_out={"rules"}, examples={"baseline": '"org/base-model"'})]
    for rule in RULES.values():
        parts += ["", f"# {rule.name}: {rule.title}.", f"[gate.rules.{rule.id}]", *_keys(rule.settings)]
    return "\n".join(parts) + "\n" + _IGNORES


def write_template(folder: Path) -> Path:
    """Write `llmtrap.toml` into a folder, never over an existing one.

    Raises:
        OutputError: there is one already, or it cannot be written.
    """
    path = folder / OWN_FILE
    if os.path.lexists(path):
        raise OutputError("there is a policy already", file=str(path), remedy="Delete it first to start anew")
    write_whole(path, template().encode(), within=folder)
    return path


def _keys(
    model: type[BaseModel], leave_out: set[str] | None = None, examples: dict[str, str] | None = None
) -> list[str]:
    fields = {name: field for name, field in model.model_fields.items() if name not in (leave_out or set())}
    return [_line(name, field, (examples or {}).get(name, "1.0")) for name, field in fields.items()]


def _line(name: str, field: FieldInfo, example: str) -> str:
    value: Any = field.default
    set_ = f"{name} = {json.dumps(value)}" if value is not None else f"# {name} = {example}"
    return f"{set_}  # {field.description}" if field.description else set_
