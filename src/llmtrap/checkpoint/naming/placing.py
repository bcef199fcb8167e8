"""Part, tower and layer of each kind of name, once all of them are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from llmtrap.checkpoint.naming.grammar import Grammar
from llmtrap.checkpoint.naming.kinds import Kind
from llmtrap.checkpoint.naming.terms import INPUT_PROJECTION, NUMBER, PAIR, TEXT, Context, Words, where

_FINAL = ("projector", "draft", "value_head", "quantizer")
_SIDES = ("encoder", "decoder")
_SENSES = ("vision", "audio")
_VOCABULARY = frozenset({"embedding", "unembedding"})
_MIXING = ("attention", "cross_attention", "linear_attention", "ssm", "mlp", "experts")


def choose_parts(kinds: list[Kind], grammar: Grammar, context: Context) -> None:
    """The part of each kind, once it is known which layers draft and what the model reads; a kind may be divided."""
    roles = {kind.reading.role for kind in kinds if kind.reading.part == TEXT}
    layered = {kind.reading.part for kind in kinds if kind.reading.layers}
    said = {kind.reading.role for kind in kinds if kind.reading.part in (TEXT, "decoder")}
    alone = "decoder" in layered and layered.isdisjoint((TEXT, "encoder"))
    alone = alone and (layered.isdisjoint(_SENSES) or not _VOCABULARY.isdisjoint(said))
    other = None if "embedding" in roles else _part_of_the_rest(kinds, layered, roles, alone=alone)
    spoken = set() if TEXT in layered else {_around(kind) for kind in kinds if kind.reading.role == "embedding"}
    drafting: set[tuple[Words, int]] = set()
    for kind in kinds:
        reading = kind.reading
        kind.part, kind.role = reading.part, reading.role
        if reading.part == "decoder" and alone and "decoder" in kind.words:
            kind.part = TEXT  # no encoder and no other text is beside it
        if reading.part == "vision" and spoken and any(kind.words[: len(words)] == words for words in spoken if words):
            kind.part = TEXT  # it embeds words, and nothing else is the text
        if reading.part == TEXT and other is not None and not any(grammar.parts.get(it) == TEXT for it in kind.words):
            kind.part = other
            if kind.role in ("unembedding", "fc"):  # there are no words that it could lead back to
                kind.role = "projection" if other == "diffusion" else "classifier"
        if reading.part == TEXT and _is_reward(kind, grammar, context):
            kind.part, kind.role = "value_head", "classifier"
        joins = kind.role == INPUT_PROJECTION and not any(word.endswith("input_proj") for word in kind.words)
        if joins and kind.part == TEXT and not reading.layers:
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


def _part_of_the_rest(
    kinds: Sequence[Kind], layered: Collection[str], roles: Collection[str], *, alone: bool
) -> str | None:
    """The part of modules without a part's word, in a model that embeds no words; None where it is the text.

    Args:
        kinds: of the model.
        layered: the parts that have layers.
        roles: of those modules.
        alone: whether the decoder is the text.
    """
    if any(kind.reading.part == "diffusion" for kind in kinds):
        return "diffusion"  # what takes a time of the diffusion is its model, whatever it reads
    whole = set(layered).difference(_FINAL)
    if TEXT not in whole and _VOCABULARY.isdisjoint(roles) and not alone:
        if len(whole) == 1 and whole.isdisjoint(_SIDES):
            return next(iter(whole))
        if senses := whole.intersection(_SENSES):
            return "vision" if "vision" in senses else "audio"
    sides = bool(whole) and whole.issubset(_SIDES) and not alone
    kernels = [kind for kind in kinds if sides or kind.reading.part == TEXT]
    if not layered:
        kernels = []  # a small network of a user's own may convolve anything
    seeing, hearing = (sum(len(kind.members) for kind in kernels if of(kind)) for of in (_sees, _hears))
    if hearing > seeing:
        return "audio"  # a spectrogram may be convolved as an image first
    return "vision" if seeing or "patch_embedding" in roles else None


def _sees(kind: Kind) -> bool:
    """Whether it is a convolution of images, which have two sides at least."""
    return kind.reading.role.startswith("convolution") and len(kind.shape) > 3 and kind.shape[-1] > 1


def _hears(kind: Kind) -> bool:
    """Whether it is a convolution of sound, which has one side."""
    kernel = kind.shape[2:]
    return kind.reading.role.startswith("convolution") and bool(kernel) and kernel[0] > 1 and kernel[1:] in ((), (1,))


def _around(kind: Kind) -> Words:
    """The words around an embedding of a part other than the text; none of the text's own."""
    return kind.words[:-1] if kind.reading.part == "vision" else ()


def _is_reward(kind: Kind, grammar: Grammar, context: Context) -> bool:
    """Whether it gives one number for a text: of one row, outside the layers, a classifier or known for a reward's.

    Any other name is a reward's only where config.json says that the model gives one.
    """
    reading = kind.reading
    if kind.dimensions != 2 or kind.shape[0] != 1 or reading.layers:
        return False
    named = ".".join(grammar.without_wrappers(kind.words)) in grammar.rewards
    return reading.role == "classifier" or named or (context.rewards and not reading.known)


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
    """The layer of each module; stages and their blocks are counted through.

    The inner numbers are blocks of stages where every outer number has some, and what has the outer number alone mixes
    no tokens: it stands between two stages, in none of the layers that are counted. Else the outer number is the
    layer's, and the inner ones count its parts.
    """
    by_outer: dict[tuple[str, Words, str], list[Kind]] = defaultdict(list)
    for kind in kinds:
        if kind.reading.layers:
            by_outer[kind.part, kind.tower, kind.words[kind.reading.layers[0] - 1]].append(kind)
    for outer in by_outer.values():
        nested = [kind for kind in outer if len(kind.reading.layers) > 1]
        single = [kind for kind in outer if len(kind.reading.layers) == 1]
        if _are_parts(nested):
            _number_apart(nested, kept=1, listed=False)
            continue
        if nested and single:
            stages = _outer_numbers(single) <= _outer_numbers(nested)
            if stages and not any(kind.role.startswith(_MIXING) for kind in single):
                _number_apart(single, kept=0)
            else:
                _number_apart(nested, kept=1)
    ranks = _ranks(kinds)
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


def _are_parts(nested: Collection[Kind]) -> bool:
    """Whether the inner numbers tell the parts of one layer apart, as in a list of two: no module comes twice in it."""
    inner: dict[int, set[int]] = defaultdict(set)
    for kind in nested:
        first, second, *_ = kind.slots(kind.reading.layers)
        within: dict[int, set[int]] = defaultdict(set)
        for numbers in kind.numbers:
            within[numbers[first]].add(numbers[second])
        if any(len(one) > 1 for one in within.values()):
            return False
        for number, one in within.items():
            inner[number] |= one
    return any(len(one) > 1 for one in inner.values())


def _outer_numbers(kinds: Iterable[Kind]) -> set[int]:
    """The numbers of the outermost stack."""
    return {numbers[kind.slots(kind.reading.layers)[0]] for kind in kinds for numbers in kind.numbers}


def _number_apart(kinds: Iterable[Kind], *, kept: int, listed: bool = True) -> None:
    """Take all but so many of the first layers' numbers for those of modules in a list; not `listed`: for no number."""
    for kind in kinds:
        reading = kind.reading
        others = tuple(sorted((*(reading.layers[kept:] if listed else ()), *reading.others)))
        kind.reading = replace(reading, layers=reading.layers[:kept], others=others)


def _ranks(kinds: Iterable[Kind]) -> dict[tuple[str, Words, Words], dict[tuple[int, ...], int]]:
    """By stack of stages: the numbers of a stage and a block → the layer."""
    nested: dict[tuple[str, Words, Words], set[tuple[int, ...]]] = defaultdict(set)
    for kind in kinds:
        slots = kind.slots(kind.reading.layers)
        if len(slots) > 1:
            nested[_stack(kind)] |= {tuple(numbers[slot] for slot in slots) for numbers in kind.numbers}
    return {stack: {value: rank for rank, value in enumerate(sorted(values))} for stack, values in nested.items()}


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
