"""The places of all modules of a checkpoint: each kind is read once, then layers and ids are made unique."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from llmtrap.checkpoint.config import flag
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.naming.grammar import Grammar
from llmtrap.checkpoint.naming.reading import INPUT_PROJECTION, NUMBER, PAIR, TEXT, Context, Reading, Words, read_kind

_INTEGER = re.compile(r"(?<![^.])[0-9]{1,9}(?![^.])")  # a whole word; a longer number is no layer's
_EXPERT = re.compile(r"(?<=\.)expert_(?=\d{1,9}(?:\.|$))")
_MOST_WORDS = 31  # no real name has more; what follows is taken for one
_TABLES = ("position", "query_tokens", "ssm.A_log", "decay")
_EXPERTS = ("experts", "shared_experts")


@dataclass(frozen=True)
class Module:
    """A module with a weight: its name without the storage suffix, and the shape of the weight."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
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

    @property
    def is_table(self) -> bool:
        """Whether it is a table of positions, tokens or decays: no map from one space to another."""
        return is_table(self.role)

    def for_expert(self, expert: int) -> Place:
        """The place of one slice of a stack."""
        words = self.role.split(".")
        of_experts = "experts" in words or "shared_experts" in words
        return replace(self, id=_with_expert(self.id, expert), expert=expert if of_experts else None)


def is_table(role: str) -> bool:
    """Whether these are tables, of positions, query tokens or decays, and no maps from one space to another."""
    return role in _TABLES or (role.partition(".")[0] in _TABLES and not role.endswith(".projection"))


def name_places(modules: Sequence[Module], grammar: Grammar, config: Mapping[str, Any]) -> list[Place]:
    """The place of each module, in the order given.

    What one module is depends on the others where its name alone does not tell: `encoder` is a part beside a decoder,
    w1 a gate beside w3, two stacks of one part are told apart.

    Args:
        modules: every weight of the checkpoint.
        grammar: the tables, with the family's words.
        config: the parsed config.json, possibly empty.
    """
    kinds = _kinds(modules)
    context = _context(kinds, grammar, config)
    for kind in kinds:
        kind.reading = read_kind(kind.words, kind.dimensions, grammar, context)
    _choose_parts(kinds)
    _tell_towers(kinds)
    _count_layers(kinds)
    _pair_roles(kinds, context)
    ids = _unique_ids(kinds, grammar, modules)
    places: dict[int, Place] = {}
    for kind in kinds:
        role, expert = printable(kind.role), kind.slot(kind.reading.expert)
        for k, numbers, layer in zip(kind.members, kind.numbers, kind.layers, strict=True):
            number = None if expert is None else numbers[expert]
            places[k] = Place(kind.part, layer, role, number, ids[k], kind.reading.known)
    return [places[k] for k in range(len(modules))]


@dataclass
class _Kind:
    """The modules whose names differ in their numbers alone, and what is known of them so far.

    Attributes:
        words: the name at its dots, numbers as NUMBER.
        dimensions: of the tensors.
        rows: of the first of them.
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
    rows: int
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

    def divide(self, groups: Sequence[Sequence[int]]) -> list[_Kind]:
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


def _kinds(modules: Sequence[Module]) -> list[_Kind]:
    """The kinds of names, in the order of their first modules."""
    kinds: dict[tuple[str, int], _Kind] = {}
    for k, module in enumerate(modules):
        name = module.name.replace(NUMBER, "_")
        if "expert_" in name:
            name = _EXPERT.sub("expert.", name)
        key = (_INTEGER.sub(NUMBER, name), len(module.shape))
        if key not in kinds:
            kinds[key] = _Kind(tuple(key[0].split(".", _MOST_WORDS)), key[1], module.shape[0])
        kinds[key].members.append(k)
        kinds[key].numbers.append(tuple(map(int, _INTEGER.findall(name))))
    return list(kinds.values())


def _context(kinds: Sequence[_Kind], grammar: Grammar, config: Mapping[str, Any]) -> Context:
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


def _choose_parts(kinds: list[_Kind]) -> None:
    """The part of each kind, once it is known which layers draft and what the model reads; a kind may be divided."""
    roles = {kind.reading.role for kind in kinds if kind.reading.part == TEXT}
    other = "vision" if "patch_embedding" in roles else None
    layered = {kind.reading.part for kind in kinds if kind.reading.layers}
    if "diffusion" in layered and TEXT not in layered:
        other = "diffusion"
    if "embedding" in roles:
        other = None
    drafting: set[tuple[Words, int]] = set()
    for kind in kinds:
        reading = kind.reading
        kind.part, kind.role = reading.part, reading.role
        if reading.part == TEXT and other is not None:
            kind.part = other
        if reading.part == TEXT and kind.words[-1] == "score" and kind.rows == 1:
            kind.part = "value_head"  # one number for a text: a reward
        if reading.role == INPUT_PROJECTION and reading.part == TEXT and not reading.layers:
            kind.part = "draft"
        if "eh_proj" in kind.words and reading.part == TEXT and len(reading.layers) == 1:
            (slot,) = kind.slots(reading.layers)
            drafting |= {(_tower(kind, numbers), numbers[slot]) for numbers in kind.numbers}
    if not drafting:
        return
    for kind in list(kinds):
        if kind.part == TEXT and len(kind.reading.layers) == 1:
            (slot,) = kind.slots(kind.reading.layers)
            draft = [(_tower(kind, numbers), numbers[slot]) in drafting for numbers in kind.numbers]
            if all(draft):
                kind.part = "draft"
            elif any(draft):
                kinds += kind.divide(_where(draft))
                kinds[-1].part = "draft"


def _tell_towers(kinds: list[_Kind]) -> None:
    """The words that keep two towers of one part apart: those that not all of them have; a kind may be divided."""
    by_part: dict[str, dict[Words, None]] = defaultdict(dict)
    for kind in list(kinds):
        if kind.reading.layers:
            towers: dict[Words, list[int]] = defaultdict(list)
            if any(kind.words[at] == NUMBER for at in kind.reading.tower):
                for k, numbers in enumerate(kind.numbers):
                    towers[_tower(kind, numbers)].append(k)
                kinds += (others := kind.divide(list(towers.values())))
            else:
                towers[_tower(kind, ())] = []
                others = []
            for one, tower in zip((kind, *others), towers, strict=True):
                one.tower = tower
            by_part[kind.part] |= dict.fromkeys(towers)
    for part, towers_ in by_part.items():
        shared = set.intersection(*map(set, towers_))
        short = {tower: tuple(word for word in tower if word not in shared) for tower in towers_}
        bare = () not in short.values()
        for kind in kinds:
            if kind.part == part and kind.reading.layers:
                words = short[kind.tower]
                kind.tower = () if words == ("encoder",) and bare else words


def _count_layers(kinds: Sequence[_Kind]) -> None:
    """The layer of each module; stages and their blocks are counted through."""
    nested: dict[tuple[str, Words, Words], set[tuple[int, ...]]] = defaultdict(set)
    for kind in kinds:
        slots = kind.slots(kind.reading.layers)
        if len(slots) > 1:
            nested[_stack(kind)] |= {tuple(numbers[slot] for slot in slots) for numbers in kind.numbers}
    ranks = {stack: {value: rank for rank, value in enumerate(sorted(values))} for stack, values in nested.items()}
    for kind in kinds:
        slots = kind.slots(kind.reading.layers)
        if len(slots) > 1:
            ranked = ranks[_stack(kind)]
            kind.layers = [ranked[tuple(numbers[slot] for slot in slots)] for numbers in kind.numbers]
        elif slots:
            (slot,) = slots
            kind.layers = [numbers[slot] for numbers in kind.numbers]
        else:
            kind.layers = [None] * len(kind.members)


def _pair_roles(kinds: list[_Kind], context: Context) -> None:
    """The first of two modules of a list leads in, the second out."""
    for kind in list(kinds):
        if kind.role.endswith(PAIR):
            at = kind.reading.others[-1]
            first, slot = context.indices[kind.words[: at + 1]][0], kind.words[:at].count(NUMBER)
            kind.role = kind.role.removesuffix(PAIR)
            second = [numbers[slot] != first for numbers in kind.numbers]
            if any(second) and not all(second):
                kinds += kind.divide(_where(second))
                kinds[-1].role += "down"
            kind.role += "down" if all(second) else "up"


def _where(chosen: Sequence[bool]) -> tuple[list[int], list[int]]:
    """Where it is false, and where it is true."""
    return [k for k, one in enumerate(chosen) if not one], [k for k, one in enumerate(chosen) if one]


def _unique_ids(kinds: Sequence[_Kind], grammar: Grammar, modules: Sequence[Module]) -> dict[int, str]:
    """The id of each module; kinds that would share one get the words that tell them apart into their roles."""
    owner: dict[str, int] = {}
    clashes: list[tuple[int, int]] = []
    ids = {}
    for number, kind in enumerate(kinds):
        for k, id_ in _ids(kind):
            ids[k] = id_
            if (other := owner.setdefault(id_, number)) != number:
                clashes.append((other, number))
    for number, word in _telling(kinds, dict.fromkeys(clashes), grammar).items():
        kinds[number].role = _qualified(kinds[number].role, word)
        ids.update(_ids(kinds[number]))
    taken: set[str] = set()
    for k in sorted(ids, key=lambda k: len(modules[k].name)):
        if ids[k] in taken:
            ids[k] = printable(modules[k].name)
        taken.add(ids[k])
    return ids


def _ids(kind: _Kind) -> Iterable[tuple[int, str]]:
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
        first, last = printable(_with_expert(kind.role, 0)).split(".0", 1)
        first += "."
    others = [] if reading.role.endswith(PAIR) else kind.slots(reading.others)
    for k, numbers, layer in zip(kind.members, kind.numbers, kind.layers, strict=True):
        id_ = f"{begin}layers.{layer}.{first}" if layered else begin + first
        if expert is not None:
            id_ += f"{numbers[expert]}{last}"
        if others:
            id_ = ".".join(chain([id_], (str(numbers[slot]) for slot in others)))
        yield k, id_


def _telling(kinds: Sequence[_Kind], clashes: Iterable[tuple[int, int]], grammar: Grammar) -> dict[int, str]:
    """Of kinds with one id, the word of each that the others do not have; none for the plainest of them."""
    plain_words = grammar.wrappers | grammar.transparent | {NUMBER}
    telling: dict[int, str] = {}
    for group in _joined(clashes):
        shared = set.intersection(*(set(kinds[number].words) for number in group)) | plain_words
        own = {number: [word for word in kinds[number].words if word not in shared] for number in group}

        def plainness(number: int, own: Mapping[int, list[str]] = own) -> tuple[int, int, Words]:
            said = sum(grammar.parts.get(word) != TEXT for word in own[number])
            return said, len(kinds[number].words), kinds[number].words

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


def _tower(kind: _Kind, numbers: Sequence[int]) -> Words:
    """The words before the layers that may tell a tower from another, with the numbers of towers in a list."""
    return tuple(
        str(numbers[kind.words[:at].count(NUMBER)]) if kind.words[at] == NUMBER else kind.words[at]
        for at in kind.reading.tower
    )


def _stack(kind: _Kind) -> tuple[str, Words, Words]:
    return kind.part, kind.tower, tuple(kind.words[at - 1] for at in kind.reading.layers)


def _with_expert(role: str, expert: int) -> str:
    words = role.split(".")
    name = "shared_experts" if "shared_experts" in words else "experts"
    at = words.index(name) + 1 if name in words else len(words)
    return ".".join((*words[:at], str(expert), *words[at:]))


def _qualified(role: str, word: str) -> str:
    group, dot, leaf = role.partition(".")
    return f"{group}.{word}.{leaf}" if dot else f"{role}.{word}"
