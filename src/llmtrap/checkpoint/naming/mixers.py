"""What mixes the tokens of one layer, where all kinds of it have one name: full attention, linear, a state space."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from llmtrap.checkpoint.naming.grammar import Grammar
from llmtrap.checkpoint.naming.kinds import Kind
from llmtrap.checkpoint.naming.terms import NUMBER, Words, where

Modules = dict[Words, dict[tuple[int, ...], set[str]]]


def tell_mixers(kinds: list[Kind], grammar: Grammar) -> None:
    """Give the matrices of a module `attention` the group of what it is in their layer; a kind may be divided.

    A model of both kinds of layers often names both modules alike. Words that stand beside one another in one layer
    tell: what has `f_a_proj` is linear attention, what has `x_proj` and `dt_proj` a state space.
    """
    modules = _modules(kinds, grammar)
    groups = {
        (begin, numbers): group
        for begin, by_number in modules.items()
        for numbers, words in by_number.items()
        if (group := _group(words, grammar.mixers)) is not None
    }
    for kind in list(kinds) if groups else ():
        at = _attention(kind, grammar)
        if at is None:
            continue
        begin, count = kind.words[: at + 1], kind.words[:at].count(NUMBER)
        found = [groups.get((begin, numbers[:count])) for numbers in kind.numbers]
        for group in {group for group in found if group is not None}:
            chosen = [one == group for one in found]
            target = kind
            if not all(chosen):
                kinds += kind.divide(where(chosen))
                target, found = kinds[-1], [one for one in found if one != group]
            target.role = _role(kind, at, group, grammar)


def _modules(kinds: Sequence[Kind], grammar: Grammar) -> Modules:
    """The words that follow each attention module's name, by its name and its numbers."""
    modules: Modules = defaultdict(lambda: defaultdict(set))
    for kind in kinds:
        at = _attention(kind, grammar)
        if at is not None:
            count = kind.words[:at].count(NUMBER)
            for numbers in kind.numbers:
                modules[kind.words[: at + 1]][numbers[:count]].add(kind.words[at + 1])
    return modules


def _attention(kind: Kind, grammar: Grammar) -> int | None:
    """Where the name of an attention module stands in a layer, with something below it."""
    if not kind.reading.layers:
        return None
    begin = kind.reading.layers[-1] + 1
    places = range(begin, len(kind.words) - 1)
    return next((at for at in places if grammar.groups.get(kind.words[at]) == "attention"), None)


def _group(words: Collection[str], mixers: Mapping[str, Sequence[Sequence[str]]]) -> str | None:
    """The group whose words these have, all of one set."""
    return next((group for group, sets in mixers.items() if any(set(one) <= set(words) for one in sets)), None)


def _role(kind: Kind, at: int, group: str, grammar: Grammar) -> str:
    """The role in another group than attention: by the group's own meaning of the word, else by what was read."""
    if kind.role.startswith(f"{group}."):
        return kind.role
    inside = grammar.inside[group]
    leaf = next((inside[word] for word in reversed(kind.words[at + 1 :]) if word in inside), None)
    if leaf is None:
        first, dot, rest = kind.role.partition(".")
        leaf = rest if dot and first in grammar.inside else kind.role
    return f"{group}.{leaf}"
