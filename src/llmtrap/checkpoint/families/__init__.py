"""What names cannot tell: which families a checkpoint is of, and what their files say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmtrap.checkpoint.config import texts
from llmtrap.checkpoint.families.table import Family, Fused, load_families, read_family
from llmtrap.checkpoint.names import printable

__all__ = ["GENERIC", "Facts", "Family", "Fused", "gather_facts", "load_families", "read_family"]

GENERIC = "generic"
"""The family of a checkpoint whose configuration names no model type."""

_SHOWN = 60


@dataclass(frozen=True)
class Facts:
    """What the files of all families that fit say of one checkpoint; `name` is the model's own type where it is known.

    `fused` are in the order of precedence.
    """

    name: str
    parts: Mapping[str, str]
    roles: Mapping[str, str]
    fused: tuple[Fused, ...]
    experts_in_rows: str | None
    tied: bool

    def fusion(self, role: str, part: str, module: str) -> Fused | None:
        """How a matrix of this role divides, or None where no family says."""
        for fused in self.fused:
            if role != fused.role and not role.endswith(f".{fused.role}"):
                continue
            if fused.word is not None:
                if module.rpartition(".")[2] == fused.word:
                    return fused
            elif part == fused.part or (fused.part is None and part in ("text", "encoder", "decoder", "draft")):
                return fused
        return None


def gather_facts(config: Mapping[str, Any], modules: Sequence[str], own: Family | None = None) -> Facts:
    """The facts that hold for a checkpoint.

    Args:
        config: the parsed config.json, possibly empty.
        modules: names of its modules, by whose ends a family is known where config.json names no type.
        own: a family of the user's, which wins over the others.
    """
    types = texts(dict(config), "model_type")
    families = load_families()
    fitting = [family for family in families if not family.model_types or set(types) & set(family.model_types)]
    name = printable(types[0], _SHOWN) if types else GENERIC
    if not types:
        marked = [family for family in families if any(_ends(module, family.marks) for module in modules)]
        types = tuple(kind for family in marked for kind in family.model_types)
        fitting += [family for family in families if set(types) & set(family.model_types)]
        name = types[0] if types else GENERIC
    if own is not None and (not own.model_types or not types or set(types) & set(own.model_types)):
        fitting.insert(0, own)
    return Facts(
        name=name,
        parts={word: part for family in reversed(fitting) for word, part in family.parts.items()},
        roles={word: role for family in reversed(fitting) for word, role in family.roles.items()},
        fused=tuple(fused for family in fitting for fused in family.fused),
        experts_in_rows=next((f.experts_in_rows.count for f in fitting if f.experts_in_rows is not None), None),
        tied=any(family.tied for family in fitting),
    )


def _ends(module: str, marks: Sequence[str]) -> bool:
    return any(module.endswith(mark) for mark in marks)
