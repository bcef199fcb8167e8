"""Roles without a group: tables, routers, heads and what else one word names by itself."""

from __future__ import annotations

from collections.abc import Collection

from llmtrap.checkpoint.naming.grammar import Grammar

WORDY = ("text", "encoder", "decoder", "draft", "talker")
"""Parts with a vocabulary."""

_MAPS = frozenset({"mixer", "mlp", "expert", "experts", "attention", "attn"})


def standing_role(
    grammar: Grammar, word: str, beside: Collection[str], part: str, group: str | None, *, in_layer: bool
) -> str | None:
    """The role that a word means by itself, or None.

    Args:
        grammar: the tables.
        word: of the name.
        beside: the words that other names have in its place.
        part: of the model.
        group: that the reading is in, such as attention.
        in_layer: whether it stands in a layer or beside the layers.
    """
    if in_layer and word.endswith("_gate") and any(grammar.groups.get(it) == "experts" for it in beside):
        return f"router.{word}"
    if part == "draft" and word == "head" and group is None:
        return "unembedding"
    if in_layer and word in grammar.in_layer and group in (None, "mlp", "experts", "ssm"):
        return grammar.in_layer[word]
    if not in_layer and word in grammar.outside and group is None:
        role = grammar.outside[word]
        if role != "unembedding" or part in WORDY:
            return role
        if word == "head" and part == "vision":
            return "classifier"
    role_ = grammar.words.get(word)
    if role_ is None and in_layer and "norm" in word and word not in grammar.groups:
        return "modulation"
    if (
        role_ is None
        and ("pos" in word.split("_") or "position" in word or "positional" in word)
        and "proj" not in word
        and "conv" not in word
        and _MAPS.isdisjoint(word.split("_"))
        and grammar.near_group(word) != "mlp"  # a position-wise feed-forward network
    ):
        return "position"
    if role_ is not None or in_layer:
        return role_
    if word.endswith(("lm_head", "lm_heads")):
        return "unembedding"
    if word.startswith("token_type"):
        return "embedding.token_type"
    learned = word.startswith("query_") or word.endswith(("_query", "_queries", "_token", "_tokens"))
    return "query_tokens" if learned and "embed" not in word and "proj" not in word else None
