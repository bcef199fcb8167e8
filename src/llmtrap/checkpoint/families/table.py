"""A family's table as data: rules that turn a module's name into layer, role and expert, checked when it is loaded."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from typing import Any, Literal

from llmtrap.checkpoint.config import integer

Axis = Literal["rows", "columns"]
Layout = Literal["concat", "interleaved", "heads"]


@dataclass(frozen=True)
class Split:
    """How a fused matrix divides along its output axis.

    `concat`: the parts one after the other, of equal size, or of `sizes` in attention heads (`q`, `kv`) from the
    configuration; `interleaved`: output k belongs to part k mod n; `heads`: per group of key/value heads, the query
    heads of the group and then one key and one value head.
    """

    parts: tuple[str, ...]
    layout: Layout
    axis: Axis = "rows"
    attention: bool = False


@dataclass(frozen=True)
class Rule:
    """What modules whose whole name matches `pattern` are.

    `id` is a template over the pattern's groups and `expert`; `values` translates a group's text (w1 → gate); `stack`
    says that axis 0 of a three-dimensional tensor counts experts, or (`stack_rows`) names the configuration key of the
    number of experts whose rows lie one below the other; `encoding` restricts the rule to one storage format; `skip` is
    the reason why such a tensor is no weight matrix.
    """

    pattern: re.Pattern[str]
    id: str
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    stack: bool = False
    stack_rows: str | None = None
    split: Split | None = None
    encoding: str | None = None
    skip: str | None = None

    @cached_property
    def role(self) -> str:
        """The id's template without side, layer and expert: the name of what such matrices have in common."""
        tail = re.sub(r"^(?:(?:encoder|decoder|\{side\})\.)?(?:layers\.\{layer\}\.)?", "", self.id)
        return tail.replace("{expert}.", "")


@dataclass(frozen=True)
class Family:
    """An architecture family: its rules in order, the model types it serves, and where its head counts are."""

    name: str
    model_types: tuple[str, ...]
    rules: tuple[Rule, ...]
    tied: bool = False
    heads: tuple[str, ...] = ()
    kv_heads: tuple[str, ...] = ()
    head_dim: tuple[str, ...] = ()

    def number(self, config: dict[str, Any], *keys: str) -> int | None:
        """The first of these configuration keys that holds a positive integer."""
        return next((value for key in keys if (value := integer(config, key)) is not None), None)


_KEYS = {"model_types", "extends", "prefix", "tied", "heads", "kv_heads", "head_dim", "rules"}


@cache
def load_families() -> tuple[Family, ...]:
    """Every family's table, in order of name.

    The tables are the `.toml` files of this folder; one whose name starts with an underscore is only there to be
    extended by others.
    """
    folder = resources.files("llmtrap.checkpoint.families")
    tables = {
        item.name.removesuffix(".toml"): tomllib.loads(item.read_text("utf-8"))
        for item in folder.iterdir()
        if item.name.endswith(".toml")
    }
    return tuple(_family(name, tables) for name in sorted(tables) if not name.startswith("_"))


def _family(name: str, tables: dict[str, dict[str, Any]]) -> Family:
    """One table, with the rules and settings of the tables it extends after its own."""
    table = tables[name]
    if unknown := set(table) - _KEYS:
        raise ValueError(f"families/{name}.toml: unknown keys {sorted(unknown)}")
    bases = [_family(base, tables) for base in table.get("extends", ())]
    own = tuple(_rule(rule, table.get("prefix", "")) for rule in table.get("rules", ()))

    def inherited(key: str) -> tuple[str, ...]:
        return next((getattr(base, key) for base in bases if getattr(base, key)), ())

    return Family(
        name=name,
        model_types=tuple(table.get("model_types", ())),
        rules=own + tuple(rule for base in bases for rule in base.rules),
        tied=table.get("tied", any(base.tied for base in bases)),
        **{key: tuple(table.get(key, inherited(key))) for key in ("heads", "kv_heads", "head_dim")},
    )


def _rule(fields: dict[str, Any], prefix: str) -> Rule:
    split = fields.get("split")
    return Rule(
        pattern=re.compile(f"{prefix}(?:{fields['match']})"),
        id=fields.get("id", ""),
        values=fields.get("values", {}),
        stack=fields.get("stack", False),
        stack_rows=fields.get("stack_rows"),
        split=Split(**{**split, "parts": tuple(split["parts"])}) if split else None,
        encoding=fields.get("encoding"),
        skip=fields.get("skip"),
    )
