"""Names that differ in their numbers alone, taken together: what the names of a checkpoint tell of one another."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from llmtrap.checkpoint.config import architectures, flag
from llmtrap.checkpoint.naming.grammar import Grammar
from llmtrap.checkpoint.naming.reading import Reading
from llmtrap.checkpoint.naming.terms import NUMBER, TEXT, Context, Words

_INTEGER = re.compile(r"(?<![^.])([0-9]{1,9})(?![^.])")  # a whole word; a longer number is no layer's
_EXPERT = re.compile(r"(?<=\.)expert_(?=\d{1,9}(?:\.|$))")
_RESNET = re.compile(r"(?<![^.])layer(?=[1-4]\.\d{1,4}\.)")
_REWARDING = re.compile(r"Reward|ValueModel|ValueHead|Critic")
_GROUPED = re.compile(r"(?<=\.experts\.)(\w+)\.weight(\d{1,9})$")
_MOST_WORDS = 31  # no real name has more; what follows is taken for one
_EXPERTS = ("experts", "shared_experts")


@dataclass(frozen=True, slots=True)
class Module:
    """A module with a weight: its name without the storage suffix, and the shape of the weight."""

    name: str
    shape: tuple[int, ...]


@dataclass
class Kind:
    """The modules whose names differ in their numbers alone, and what is known of them so far.

    Attributes:
        words: the name at its dots, numbers as NUMBER.
        dimensions: of the tensors.
        shape: of the first of them.
        members: indices of the modules.
        numbers: the numbers of each module's name.
        reading: what the words say.
        part: of the model.
        role: of the kind.
        tower: the words that tell its tower from another of the part.
        layers: the layer of each module.
    """

    words: Words
    dimensions: int
    shape: tuple[int, ...]
    members: list[int] = field(default_factory=list)
    numbers: list[tuple[int, ...]] = field(default_factory=list)
    reading: Reading = field(init=False)
    part: str = TEXT
    role: str = ""
    tower: Words = ()
    layers: list[int | None] = field(default_factory=list)

    def slot(self, at: int | None) -> int | None:
        """Which of a name's numbers stands at this word."""
        return None if at is None else self.words[:at].count(NUMBER)

    def slots(self, places: Iterable[int]) -> list[int]:
        """The same of several words."""
        return [self.words[:at].count(NUMBER) for at in places]

    def divide(self, groups: Sequence[Sequence[int]]) -> list[Kind]:
        """Keep the first group of members (by their position here), and give each other as a kind of its own."""
        divided = []
        for group in groups:
            other = replace(self)
            other.reading = self.reading
            other.members = [self.members[k] for k in group]
            other.numbers = [self.numbers[k] for k in group]
            other.layers = [self.layers[k] for k in group] if self.layers else []
            divided.append(other)
        kept, *others = divided
        self.members, self.numbers, self.layers = kept.members, kept.numbers, kept.layers
        return others


def read_kinds(modules: Sequence[Module]) -> list[Kind]:
    """The kinds of names, in the order of their first modules."""
    kinds: dict[tuple[str, int], Kind] = {}
    for k, module in enumerate(modules):
        name = module.name.replace(NUMBER, "_")
        if "layer" in name and "layers" not in name:
            name = _RESNET.sub("layer.", name)  # stages numbered in their words: layer1.0.conv1
        if "expert_" in name:
            name = _EXPERT.sub("expert.", name)
        elif ".weight" in name:
            name = _GROUPED.sub(r"\2.\1", name)  # one module of all experts, with a weight of each
        pieces = _INTEGER.split(name)  # texts, and the numbers between them
        key = (NUMBER.join(pieces[::2]), len(module.shape))
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = Kind(tuple(key[0].split(".", _MOST_WORDS)), key[1], module.shape)
        kind.members.append(k)
        kind.numbers.append(tuple(map(int, pieces[1::2])))
    return list(kinds.values())


def place_alone(kinds: Sequence[Kind], grammar: Grammar) -> None:
    """Put the word around a part that was saved by itself: an EAGLE layer, Medusa's heads."""
    columns = zip(*(kind.words[:-1] for kind in kinds), strict=False)
    wrapped = sum(1 for _ in takewhile(lambda words: len(set(words)) == 1 and words[0] in grammar.wrappers, columns))
    names = {".".join(kind.words[wrapped:]) for kind in kinds}
    for word, sets in grammar.whole.items():
        if any(names.issuperset(one) for one in sets):
            for kind in kinds:
                kind.words = (*kind.words[:wrapped], word, *kind.words[wrapped:])
            return


def gather_context(kinds: Sequence[Kind], grammar: Grammar, config: Mapping[str, Any]) -> Context:
    """What the names tell of one another."""
    children: dict[Words, set[str]] = defaultdict(set)
    indices: dict[Words, set[int]] = defaultdict(set)
    below: dict[Words, dict[int, set[Words]]] = defaultdict(lambda: defaultdict(set))
    for kind in kinds:
        words = kind.words
        for at, word in enumerate(words):
            children[words[:at]].add(word)
            before = words[at - 1] if at else NUMBER
            if (
                word != NUMBER
                or (grammar.is_stack(before) and at < len(words) - 1)
                or grammar.groups.get(before) in _EXPERTS
            ):
                continue
            slot, begin = words[:at].count(NUMBER), words[: at + 1]
            values = {numbers[slot] for numbers in kind.numbers}
            indices[begin] |= values
            tower = grammar.part_of(before, first=False) in ("text", "vision", "audio")  # a list of whole ones
            if before != NUMBER and before not in grammar.groups and not tower and at < len(words) - 1:
                for value in values:
                    below[begin][value].add(words[at + 1 :])
    return Context(
        children=children,
        indices={begin: tuple(sorted(values)) for begin, values in indices.items()},
        repeated={begin for begin, by_number in below.items() if _repeats(by_number)},
        shapes={kind.words: kind.shape for kind in kinds},
        rewards=any(_REWARDING.search(name) for name in architectures(dict(config))),
        encoders=_encoders(children, grammar, both=flag(dict(config), "is_encoder_decoder") is True),
    )


def _repeats(below: Mapping[int, set[Words]]) -> bool:
    """Whether the same modules come again under consecutive numbers."""
    return any(number + 1 in below and below[number] & below[number + 1] for number in below)


def _encoders(children: Mapping[Words, set[str]], grammar: Grammar, *, both: bool) -> set[Words]:
    """Where an `encoder` stands beside a decoder or a language model."""
    return {
        begin
        for begin, words in children.items()
        if "encoder" in words and (both or "decoder" in words or any(grammar.parts.get(word) == TEXT for word in words))
    }
