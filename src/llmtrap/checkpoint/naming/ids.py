"""The ids of all modules: of kinds that would share one, the words that tell them apart go into the roles."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.naming.grammar import Grammar
from llmtrap.checkpoint.naming.kinds import Kind, Module
from llmtrap.checkpoint.naming.terms import NUMBER, PAIR, TEXT, Words


def unique_ids(kinds: Sequence[Kind], grammar: Grammar, modules: Sequence[Module]) -> dict[int, str]:
    """The id of each module; kinds that would share one get the words that tell them apart into their roles."""
    owner: dict[str, int] = {}
    clashes: list[tuple[int, int]] = []
    ids = {}
    for number, kind in enumerate(kinds):
        for k, id_ in _ids(kind):
            ids[k] = id_
            if (other := owner.setdefault(id_, number)) != number:
                clashes.append((other, number))
    if any(kind.reading.layers for kind in kinds):
        for number, word in _telling(kinds, dict.fromkeys(clashes), grammar).items():
            kinds[number].role = _qualified(kinds[number].role, word)
            ids.update(_ids(kinds[number]))
    else:
        # Without layers it is no model of many, but small networks side by side: each keeps its own names.
        for number in set(chain.from_iterable(clashes)):
            ids.update((k, _without_wrappers(modules[k].name, grammar)) for k in kinds[number].members)
    taken: set[str] = set()
    for k in sorted(ids, key=lambda k: len(modules[k].name)):
        if ids[k] in taken:
            own = _without_wrappers(modules[k].name, grammar)
            ids[k] = printable(modules[k].name) if own in taken else own
        taken.add(ids[k])
    return ids


def _ids(kind: Kind) -> Iterable[tuple[int, str]]:
    """The canonical id of each member."""
    reading, part = kind.reading, kind.part
    layered, expert = bool(reading.layers), kind.slot(reading.expert)
    words = [] if part == TEXT else [part]
    words += kind.tower
    if words == [part] and not layered and kind.role.split(".")[0] == part:
        words = []
    begin = printable(".".join(words)) + "." if words else ""
    first, last = printable(kind.role), ""
    if expert is not None:
        first, last = printable(with_expert(kind.role, 0)).split(".0", 1)
        first += "."
    others = [] if reading.role.endswith(PAIR) else kind.slots(reading.others)
    for k, numbers, layer in zip(kind.members, kind.numbers, kind.layers, strict=True):
        id_ = f"{begin}layers.{layer}.{first}" if layered else begin + first
        if expert is not None:
            id_ += f"{numbers[expert]}{last}"
        if others:
            id_ = ".".join(chain([id_], (str(numbers[slot]) for slot in others)))
        yield k, id_


def _telling(kinds: Sequence[Kind], clashes: Iterable[tuple[int, int]], grammar: Grammar) -> dict[int, str]:
    """Of kinds with one id, the word of each that the others do not have; none for the plainest of them."""
    plain_words = grammar.wrappers | grammar.transparent | {NUMBER}
    telling: dict[int, str] = {}
    for group in _joined(clashes):
        shared = set.intersection(*(set(kinds[number].words) for number in group)) | plain_words
        own = {number: [word for word in kinds[number].words if word not in shared] for number in group}

        def plainness(number: int, own: Mapping[int, list[str]] = own) -> tuple[int, bool, int, Words]:
            said = sum(grammar.parts.get(word) != TEXT for word in own[number])
            is_group = bool(own[number]) and own[number][0] in grammar.groups
            return said, not is_group, len(kinds[number].words), kinds[number].words

        plain = min(group, key=plainness)
        counts = Counter(word for words in own.values() for word in set(words))
        for number, words in own.items():
            if number != plain and words:
                alone = [word for word in words if counts[word] == 1] or words
                # Of a role with a group the first tells best, which is around it; of another the last.
                telling[number] = alone[0] if "." in kinds[number].role else alone[-1]
    return telling


def _joined(clashes: Iterable[tuple[int, int]]) -> list[set[int]]:
    """Pairs with a member in common, put together."""
    leader: dict[int, int] = {}

    def leading(member: int) -> int:
        while (above := leader.setdefault(member, member)) != member:
            leader[member] = leader[above]
            member = above
        return member

    for one, other in clashes:
        leader[leading(other)] = leading(one)
    joined: dict[int, set[int]] = defaultdict(set)
    for member in list(leader):
        joined[leading(member)].add(member)
    return list(joined.values())


def _without_wrappers(name: str, grammar: Grammar) -> str:
    """A module's own name, printable."""
    return printable(".".join(grammar.without_wrappers(tuple(name.split(".")))))


def with_expert(role: str, expert: int) -> str:
    """A role or an id with the number of the expert in it: `experts.3.up`."""
    words = role.split(".")
    name = "shared_experts" if "shared_experts" in words else "experts"
    at = words.index(name) + 1 if name in words else len(words)
    return ".".join((*words[:at], str(expert), *words[at:]))


def _qualified(role: str, word: str) -> str:
    group, dot, leaf = role.partition(".")
    return f"{group}.{word}.{leaf}" if dot else f"{role}.{word}"
