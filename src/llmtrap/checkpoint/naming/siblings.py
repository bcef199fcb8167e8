"""Words under one module that tell each other's meaning: w1 is a gate beside w2 and w3."""

from __future__ import annotations

from collections.abc import Mapping

from llmtrap.checkpoint.naming.grammar import Grammar
from llmtrap.checkpoint.naming.terms import Context, Words


def leaf_among_siblings(kind: Words, at: int, grammar: Grammar, context: Context, *, own: bool) -> str | None:
    """What the words beside this one make of it, or None.

    Args:
        kind: the module's name at its dots, numbers as NUMBER.
        at: where the word stands.
        grammar: the tables, of which the first set that fits counts.
        context: the words beside it, and the shapes of the matrices.
        own: whether they are a network of their own, outside the layers and in no MLP: its layers may be three.
    """
    word, beside = kind[at], context.children.get(kind[:at], ())
    for known in grammar.sets:
        if word in known and known.keys() <= set(beside) and _fits(kind, at, known, context, own=own):
            return known[word]
    return None


def _fits(kind: Words, at: int, known: Mapping[str, str], context: Context, *, own: bool) -> bool:
    """Whether the gate and the up of a set have one shape, as factors of one product have.

    Three numbered `fc` of one network of its own are its layers, unless they are wide where a gated MLP is.
    """
    shapes = {
        said: context.shapes.get((*kind[:at], word, *kind[at + 1 :]))
        for word, said in known.items()
        if said != "residual"
    }
    gate, up, down = (shapes.get(leaf) for leaf in ("gate", "up", "down"))
    if gate is None or up is None:
        return True
    return gate == up and not (own and "fc3" in known and gate == down)
