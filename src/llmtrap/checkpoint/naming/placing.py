"""Part, tower and layer of each kind of name, once all of them are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from llmtrap.checkpoint.naming.kinds import Kind
from llmtrap.checkpoint.naming.terms import INPUT_PROJECTION, NUMBER, PAIR, TEXT, Context, Words, where

_BETWEEN = frozenset({"downsample", "upsample", "downsamplers", "upsamplers", "patch_merging", "downsample_layer"})


def choose_parts(kinds: list[Kind]) -> None:
    """The part of each kind, once it is known which layers draft and what the model reads; a kind may be divided."""
    roles = {kind.reading.role for kind in kinds if kind.reading.part == TEXT}
    other = "vision" if "patch_embedding" in roles else None
    layered = {kind.reading.part for kind in kinds if kind.reading.layers}
    spoken = set() if TEXT in layered else {_around(kind) for kind in kinds if kind.reading.role == "embedding"}
    if "diffusion" in layered and TEXT not in layered:
        other = "diffusion"
    if "embedding" in roles:
        other = None
    alone = "decoder" in layered and layered.isdisjoint((TEXT, "encoder"))
    drafting: set[tuple[Words, int]] = set()
    for kind in kinds:
        reading = kind.reading
        kind.part, kind.role = reading.part, reading.role
        if reading.part == "decoder" and alone and "decoder" in kind.words:
            kind.part = TEXT  # no encoder and no other text is beside it
        if reading.part == "vision" and spoken and any(kind.words[: len(words)] == words for words in spoken if words):
            kind.part = TEXT  # it embeds words, and nothing else is the text
        if reading.part == TEXT and other is not None:
            kind.part = other
            if kind.role == "unembedding":  # there are no words that it could lead back to
                kind.role = "projection" if other == "diffusion" else "classifier"
        if reading.part == TEXT and _is_reward(kind, in_a_model=bool(layered)):
            kind.part, kind.role = "value_head", "classifier"
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
                kinds += kind.divide(where(draft))
                kinds[-1].part = "draft"


def _around(kind: Kind) -> Words:
    """The words around an embedding of a part other than the text; none of the text's own."""
    return kind.words[:-1] if kind.reading.part == "vision" else ()


def _is_reward(kind: Kind, *, in_a_model: bool) -> bool:
    """Whether it gives one number for a text: of one row, beside a model's layers, nothing else by its name."""
    reading = kind.reading
    plain = kind.dimensions == 2 and kind.rows == 1 and not reading.layers
    return plain and (reading.role == "classifier" or (in_a_model and not reading.known))


def tell_towers(kinds: list[Kind]) -> None:
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


def count_layers(kinds: Sequence[Kind]) -> None:
    """The layer of each module; stages and their blocks are counted through."""
    nested: dict[tuple[str, Words, Words], set[tuple[int, ...]]] = defaultdict(set)
    for kind in kinds:
        slots = kind.slots(kind.reading.layers)
        if len(slots) > 1:
            nested[_stack(kind)] |= {tuple(numbers[slot] for slot in slots) for numbers in kind.numbers}
    stages = {(part, tower, words[:-1]) for part, tower, words in nested}
    for kind in kinds:
        if len(kind.reading.layers) == 1 and _stack(kind) in stages and _BETWEEN & set(kind.words):
            reading = kind.reading  # it stands between two stages, and in none of the layers that are counted
            kind.reading = replace(reading, layers=(), others=(*reading.layers, *reading.others))
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


def pair_roles(kinds: list[Kind], context: Context) -> None:
    """The first of two modules of a list leads in, the second out."""
    for kind in list(kinds):
        if kind.role.endswith(PAIR):
            at = kind.reading.others[-1]
            first, slot = context.indices[kind.words[: at + 1]][0], kind.words[:at].count(NUMBER)
            kind.role = kind.role.removesuffix(PAIR)
            second = [numbers[slot] != first for numbers in kind.numbers]
            if any(second) and not all(second):
                kinds += kind.divide(where(second))
                kinds[-1].role += "down"
            kind.role += "down" if all(second) else "up"


def _tower(kind: Kind, numbers: Sequence[int]) -> Words:
    """The words before the layers that may tell a tower from another, with the numbers of towers in a list."""
    return tuple(
        str(numbers[kind.words[:at].count(NUMBER)]) if kind.words[at] == NUMBER else kind.words[at]
        for at in kind.reading.tower
    )


def _stack(kind: Kind) -> tuple[str, Words, Words]:
    return kind.part, kind.tower, tuple(kind.words[at - 1] for at in kind.reading.layers)
