"""One kind of module name, read word by word: which numbers count what, which part it is in, and its role."""

from __future__ import annotations

from dataclasses import dataclass

from llmtrap.checkpoint.naming.content import Content
from llmtrap.checkpoint.naming.grammar import Grammar
from llmtrap.checkpoint.naming.terms import NUMBER, TEXT, Context, Words

_SIDES = ("encoder", "decoder")
_WEAK_PARTS = (TEXT, *_SIDES, "quantizer")
_FINAL_PARTS = ("projector", "draft", "value_head")


@dataclass(frozen=True)
class Reading:
    """What a kind's words say.

    Attributes:
        kind: the name's words, numbers as NUMBER.
        part: of the model.
        tower: where the words and numbers before the layers are that tell two towers of one part apart.
        role: group, qualifiers and leaf, joined with dots.
        layers: where the kind's numbers count layers (several: stages and their blocks).
        expert: where a number counts experts.
        others: where the other numbers are, which keep two matrices of one role apart.
        extras: words within the layer that are in no table.
        known: whether the tables knew the role.
    """

    kind: Words
    part: str
    tower: tuple[int, ...]
    role: str
    layers: tuple[int, ...]
    expert: int | None
    others: tuple[int, ...]
    extras: Words
    known: bool


def read_kind(kind: Words, dimensions: int, grammar: Grammar, context: Context) -> Reading:
    """Read one kind of name.

    Args:
        kind: the module's name at its dots, numbers as NUMBER.
        dimensions: of the tensor: three under an MLP are a stack of experts.
        grammar: the tables.
        context: what the other names tell.
    """
    layers, dropped = _layer_numbers(kind, grammar, context)
    begin = layers[-1] + 1 if layers else 0
    part, tower = _part(kind, layers, grammar, context)
    content = Content(grammar, context, part, in_layer=bool(layers), dimensions=dimensions)
    if layers:
        stack = kind[layers[-1] - 1]
        content.group = grammar.stack_groups.get(stack) or next(
            ("cross_attention" for word in ("cross_attn", "cross_attention") if word in stack), None
        )
    for at in range(begin, len(kind)):
        if kind[at] == NUMBER:
            content.number(kind, at, dropped)
        else:
            content.word(kind, at, consumed=not layers and _is_scope(kind, at, grammar))
    role, known = content.role()
    named = next((grammar.named[end] for end in _ends(kind) if end in grammar.named), None)
    if named is not None:
        role, known = named, True
    expert = content.expert if "experts" in role.split(".") or "shared_experts" in role.split(".") else None
    listed = dropped if role.startswith("convolution") else ()  # the kernels of one layer have no other names
    others = tuple(at for at in (*listed, *content.others, content.expert) if at is not None and at != expert)
    return Reading(kind, part, tower, role, layers, expert, others, tuple(content.extras), known)


def _layer_numbers(kind: Words, grammar: Grammar, context: Context) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where numbers count layers, and where they only count the parts of one."""
    layers: list[int] = []
    dropped: list[int] = []
    for at, word in enumerate(kind):
        if word != NUMBER:
            if layers and kind[at + 1 : at + 2] != (NUMBER,) and (word in grammar.groups or grammar.near_group(word)):
                break
            if grammar.groups.get(word) in ("experts", "shared_experts"):
                break
            continue
        before = kind[at - 1] if at else ""
        last = at == len(kind) - 1
        if layers and (kind[layers[-1] - 1], before) in grammar.sublayers:
            dropped.append(at)
        elif before == NUMBER:
            if at - 1 in layers and not last and not _is_final(kind[at - 2], grammar):
                layers.append(at)
        elif before and (before not in grammar.groups or before in grammar.stack_groups):
            listed = before in ("layers", "blocks") and _is_model(kind[: at - 1], grammar)
            stack = grammar.is_stack(before) and (not last or listed)
            module = before in grammar.words or grammar.outside.get(before) == "projector"
            again = kind[: at + 1] in context.repeated and not module
            if stack or (again and grammar.near_group(before) != "mlp"):
                layers.append(at)
    return tuple(layers), tuple(dropped)


def _is_model(words: Words, grammar: Grammar) -> bool:
    """Whether these words name a model or a tower, so that a list of single modules in it are its layers."""
    sides = (*grammar.wrappers, "encoder", "decoder")
    named = (word in sides or grammar.part_of(word, first=False) is not None for word in words)
    return all(named) and not any(_is_final(word, grammar) for word in words)


def _is_final(word: str, grammar: Grammar) -> bool:
    """Whether a part begins here whose lists are of single modules."""
    return grammar.part_of(word, first=False) in _FINAL_PARTS


def _part(kind: Words, layers: tuple[int, ...], grammar: Grammar, context: Context) -> tuple[str, tuple[int, ...]]:
    """The part, and where the words before the layers are that say more than that there is a model."""
    begin = layers[-1] + 1 if layers else 0
    part = TEXT
    tower: list[int] = []
    scope = range(begin if begin else len(kind))
    for at in scope:
        word = kind[at]
        if word == NUMBER:
            if at not in layers and not grammar.is_stack(kind[at - 1]):
                tower.append(at)
            continue
        if word in ("encoder", "decoder") and word not in grammar.parts:
            if part == TEXT and _is_side(kind, at, begin, context, grammar):
                part = word
            else:
                tower.append(at)
            continue
        found = grammar.part_of(word, first=at == 0) if begin or _is_scope(kind, at, grammar) else None
        if found is not None and _begins(found, part, stack=grammar.is_stack(word)):
            part = found
        if (found != TEXT or part != TEXT) and word not in (*grammar.wrappers, *grammar.stacks, *grammar.stack_groups):
            tower.append(at)
    return part, tuple(tower) if begin else ()


def _begins(found: str, part: str, *, stack: bool) -> bool:
    """Whether a word of the part `found` begins it within `part`."""
    if part == TEXT:
        return True
    if part in _FINAL_PARTS or found in _WEAK_PARTS:
        return False
    if part in _SIDES:  # the blocks of an autoencoder are its sides', though a U-Net's have the same words
        return not (stack and found == "diffusion")
    return found != "value_head" and part != "quantizer"


def _is_side(kind: Words, at: int, begin: int, context: Context, grammar: Grammar) -> bool:
    """Whether `encoder` or `decoder` here is one side of a model, and not a module of another or a stack's name."""
    if at == len(kind) - 1:
        return False
    if kind[at] == "decoder":
        has_layers = begin > 0 or any(map(grammar.is_stack, context.children.get(kind[: at + 1], ())))
        if has_layers or kind[:at] in context.encoders:
            return True
        return any(word in grammar.words or word in grammar.outside for word in kind[at + 1 :])
    of_t5 = kind[at + 1 : at + 3] == ("block", NUMBER) and kind[at + 3 : at + 4] != (NUMBER,)
    return of_t5 or kind[:at] in context.encoders


def _is_scope(kind: Words, at: int, grammar: Grammar) -> bool:
    """Whether a word of a name without layers says where the module is, and not what it is."""
    word = kind[at]
    if word in grammar.words or word in grammar.outside or word in grammar.transparent:
        is_alone = at == len(kind) - 1 and word in grammar.transparent
        return word in grammar.parts and word not in grammar.words and not is_alone
    if any(before in grammar.groups for before in kind[:at]):
        return False
    if word in grammar.parts and (at == 0 or word not in grammar.first):
        return True
    if word in grammar.anywhere or word in grammar.groups:
        return False
    return grammar.part_of(word, first=at == 0) is not None and grammar.near_group(word) is None


def _ends(kind: Words) -> list[str]:
    """The ends of a name without its numbers, longest first."""
    words = [word for word in kind if word != NUMBER]
    return [".".join(words[start:]) for start in range(len(words))]
