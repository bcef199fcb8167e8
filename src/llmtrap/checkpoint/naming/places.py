"""The places of all modules of a checkpoint: each kind is read once, then layers and ids are made unique."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.naming.grammar import Grammar
from llmtrap.checkpoint.naming.ids import unique_ids, with_expert
from llmtrap.checkpoint.naming.kinds import Module, gather_context, place_alone, read_kinds
from llmtrap.checkpoint.naming.mixers import tell_mixers
from llmtrap.checkpoint.naming.placing import choose_parts, count_layers, pair_roles, tell_towers
from llmtrap.checkpoint.naming.reading import read_kind
from llmtrap.checkpoint.naming.terms import TEXT

MOST_KINDS = 4_000
"""Names that differ in more than numbers: no model has a tenth of that, and to read more of them would take long."""
_TABLES: Final = {
    "position": "a table of positions",
    "query_tokens": "a table of learned tokens",
    "ssm.A_log": "a table of decay rates",
    "linear_attention.A_log": "a table of decay rates",
    "decay": "a table of decay rates",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight stands in its model.

    Attributes:
        part: of the model: text, vision, audio, projector, draft, …
        layer: its number within the part (or the tower of a part that has two), or None outside the layers.
        role: what it does, the same in every layer and model: attention.q, mlp.up, experts.down, router, embedding, …
        expert: its number among the experts, where it is one of many modules. Those in one stack have None here.
        id: canonical; unique but for what one module's name gives twice. An expert of a stack has its number put in
            by `for_expert`.
        known: whether the tables knew the role.
    """

    part: str
    layer: int | None
    role: str
    expert: int | None
    id: str
    known: bool

    def for_expert(self, expert: int) -> Place:
        """The place of one slice of a stack."""
        words = self.role.split(".")
        of_experts = "experts" in words or "shared_experts" in words
        return replace(self, id=with_expert(self.id, expert), expert=expert if of_experts else None)


@lru_cache(maxsize=4096)
def table_of(role: str) -> str | None:
    """What the tables of a role hold, in words: no maps from one space to another. None where these are maps."""
    if role in _TABLES:
        return _TABLES[role]
    return None if role.endswith(".projection") else _TABLES.get(role.partition(".")[0])


def name_places(modules: Sequence[Module], grammar: Grammar, config: Mapping[str, Any]) -> list[Place]:
    """The place of each module, in the order given.

    What one module is depends on the others where its name alone does not tell: `encoder` is a part beside a decoder,
    w1 a gate beside w3, two stacks of one part are told apart.

    Args:
        modules: every weight of the checkpoint.
        grammar: the tables, with the family's words.
        config: the parsed config.json, possibly empty.
    """
    kinds = read_kinds(modules)
    if len(kinds) > MOST_KINDS:
        return [_unread(module.name) for module in modules]
    place_alone(kinds, grammar)
    context = gather_context(kinds, grammar, config)
    for kind in kinds:
        kind.reading = read_kind(kind.words, kind.dimensions, grammar, context)
    choose_parts(kinds, grammar, context)
    tell_mixers(kinds, grammar)
    tell_towers(kinds)
    count_layers(kinds)
    pair_roles(kinds, context)
    ids = unique_ids(kinds, grammar, modules)
    places: dict[int, Place] = {}
    for kind in kinds:
        role, expert = printable(kind.role), kind.slot(kind.reading.expert)
        for k, numbers, layer in zip(kind.members, kind.numbers, kind.layers, strict=True):
            number = None if expert is None else numbers[expert]
            places[k] = Place(kind.part, layer, role, number, ids[k], kind.reading.known)
    return [places[k] for k in range(len(modules))]


def _unread(name: str) -> Place:
    """The place of a module whose name is not read: its own name."""
    shown = printable(name)
    return Place(TEXT, None, shown.rpartition(".")[2] or shown, None, shown, known=False)
