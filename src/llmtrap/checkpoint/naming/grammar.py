"""The grammar's tables as data: wrappers, parts, stacks and roles, read from `grammar.toml` and looked up by word."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

# What a group takes over from another: the matrices of an expert are those of an MLP.
_INHERITS = {
    "cross_attention": "attention",
    "linear_attention": "attention",
    "experts": "mlp",
    "shared_experts": "mlp",
}
_MLPS = ("mlp", "experts", "shared_experts")
_ATTENTION = ("attention", "cross_attention", "linear_attention")
_WITHIN = ("attn", "attention")  # begin a group in the middle of a word too
_STEM_LENGTH = 5
_MOST_PIECES, _MOST_LETTERS = 8, 80  # of a word that is looked into
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")


@dataclass(frozen=True)
class Grammar:
    """What words mean.

    Attributes:
        wrappers: words around a model that say nothing.
        parts: word → part of the model.
        first: words that begin a part at a name's beginning alone.
        stems: word within a word → part.
        stacks: words before a layer's number; `endings` are those of other such words.
        sublayers: (outer, inner) stack words of which the inner only numbers the parts of a layer.
        stack_groups: stack word → the group of what it holds.
        groups: word → group, such as attention.
        anywhere: word → (group, leaf), wherever it stands.
        inside: group → word → leaf.
        alone: group words that are a matrix themselves → leaf.
        words: word → role without a group; `outside` and `in_layer` hold beside the layers or in one.
        transparent: words that say only that here is a matrix.
        qualifiers: words that stay in the role.
        sets: sibling words and what each means, largest first.
        mixers: group → sets of words that tell that a module called attention is this instead.
        named: end of a module's name → role, from the tables or a family's file.
        whole: word that stands around a part → sets of kinds that only the part saved by itself has.
        rewards: names that are a reward's where they have one row.
        crossing: group words that are cross-attention beside a self-attention.
    """

    wrappers: frozenset[str]
    parts: Mapping[str, str]
    first: frozenset[str]
    stems: Mapping[str, str]
    stacks: frozenset[str]
    endings: tuple[str, ...]
    sublayers: frozenset[tuple[str, str]]
    stack_groups: Mapping[str, str]
    groups: Mapping[str, str]
    anywhere: Mapping[str, tuple[str, str]]
    inside: Mapping[str, Mapping[str, str]]
    alone: Mapping[str, str]
    words: Mapping[str, str]
    outside: Mapping[str, str]
    in_layer: Mapping[str, str]
    transparent: frozenset[str]
    qualifiers: frozenset[str]
    sets: tuple[Mapping[str, str], ...]
    mixers: Mapping[str, tuple[tuple[str, ...], ...]]
    named: Mapping[str, str]
    whole: Mapping[str, tuple[tuple[str, ...], ...]]
    rewards: frozenset[str]
    crossing: frozenset[str]

    @property
    def part_names(self) -> frozenset[str]:
        """Every part that there is."""
        return frozenset(self.parts.values())

    def extended(self, *, parts: Mapping[str, str], roles: Mapping[str, str]) -> Grammar:
        """The grammar with a family's own words: they win over the tables'."""
        if not parts and not roles:
            return self
        return replace(self, parts={**self.parts, **parts}, named={**self.named, **roles})

    def part_of(self, word: str, *, first: bool) -> str | None:
        """The part that begins with this word, or None; short words count at the name's beginning alone."""
        if word in self.parts:
            return self.parts[word] if first or (len(word) > 2 and word not in self.first) else None
        if word in self.wrappers or word in self.transparent:
            return None
        pieces = [piece.lower() for piece in _WORD.findall(word[:_MOST_LETTERS])]
        found = {self.stems[piece] for piece in pieces if piece in self.stems}
        if not found:
            long = [piece for piece in pieces if len(piece) >= _STEM_LENGTH]
            found = {self.stems[stem] for piece in long for stem in self.stems if _one_letter_off(piece, stem)}
        return next((part for part in dict.fromkeys(self.stems.values()) if part in found), None)

    def is_stack(self, word: str) -> bool:
        """Whether a number after this word counts layers."""
        return word in self.stacks or word in self.stack_groups or word.lower().endswith(self.endings)

    def near_group(self, word: str) -> str | None:
        """The group that begins with a word with something more around it: `img_attn`, `ff1`, `feed_forward_in`."""
        bare = word.rstrip("0123456789").rstrip("_")
        if bare in self.groups:
            return self.groups[bare]
        pieces = word.split("_", _MOST_PIECES)
        for count in range(len(pieces) - 1, 0, -1):
            for end in ("_".join(pieces[:count]), "_".join(pieces[-count:])):
                if end in self.groups:
                    return self.groups[end]
        return next((self.groups[piece] for piece in pieces[1:-1] if piece in _WITHIN), None)

    def without_wrappers(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """A name without the wrappers at its beginning; its last word stays."""
        start = next((at for at, word in enumerate(words[:-1]) if word not in self.wrappers), len(words) - 1)
        return words[start:]

    def leaf_of(self, word: str, group: str | None) -> tuple[str | None, str] | None:
        """(Group, leaf) of a word within a group, or None where it means nothing there."""
        if group is not None and (inside := self.inside.get(group, {}).get(word)):
            return group, inside
        if word not in self.anywhere:
            return None
        own, leaf = self.anywhere[word]
        if group in _MLPS and own in _ATTENTION:
            return None  # what is in an MLP attends to nothing
        akin = group is not None and own in (_INHERITS.get(group), group)
        return (group if akin else own), leaf

    def near_leaf(self, word: str, group: str | None) -> tuple[str | None, str] | None:
        """The same of a word with something more around it: `query_global`, `e2e_query`, `q_proj_moe_gen`."""
        pieces = word.split("_", _MOST_PIECES)
        for count in range(len(pieces) - 1, 0, -1):
            head, tail = "_".join(pieces[:count]), "_".join(pieces[count:])
            for known, extra, before in (
                (head, tail, False),
                ("_".join(pieces[-count:]), "_".join(pieces[:-count]), True),
            ):
                if len(known) > 2 and known not in self.transparent and (found := self.leaf_of(known, group)):
                    return found[0], f"{extra}_{found[1]}" if before else f"{found[1]}_{extra}"
        return None


@cache
def load_grammar() -> Grammar:
    """The tables of `grammar.toml`."""
    text = resources.files("llmtrap.checkpoint.naming").joinpath("grammar.toml").read_text("utf-8")
    table = tomllib.loads(text)
    groups: dict[str, str] = {}
    anywhere: dict[str, tuple[str, str]] = {}
    inside: dict[str, dict[str, str]] = {}
    alone: dict[str, str] = {}
    for group, content in table["roles"].items():
        groups |= dict.fromkeys(content["groups"], group)
        alone |= dict.fromkeys(content.get("alone", ()), "up")
        inside[group] = dict(inside.get(_INHERITS.get(group, ""), {}))
        for leaf, said in content.items():
            if isinstance(said, dict):
                anywhere |= {word: (group, leaf) for word in said.get("words", ()) if word not in anywhere}
                inside[group] |= dict.fromkeys((*said.get("words", ()), *said.get("inside", ())), leaf)
    return Grammar(
        wrappers=frozenset(table["wrappers"]["words"]),
        parts=_inverted(table["parts"]),
        first=frozenset(table["parts_first"]["words"]),
        stems=_inverted(table["part_stems"]),
        stacks=frozenset(table["stacks"]["words"]),
        endings=tuple(table["stacks"]["endings"]),
        sublayers=frozenset((outer, inner) for outer, inner in table["stacks"]["sublayers"]),
        stack_groups=table["stacks"]["groups"],
        groups=groups,
        anywhere=anywhere,
        inside=inside,
        alone=alone,
        words=_inverted(table["words"]),
        outside=_inverted(table["words_outside"]),
        in_layer=_inverted(table["words_inside"]),
        transparent=frozenset(table["transparent"]["words"]),
        qualifiers=frozenset(table["qualifiers"]["words"]),
        sets=tuple(sorted(table["sets"], key=len, reverse=True)),
        mixers={group: tuple(map(tuple, sets)) for group, sets in table["mixers"].items()},
        named=table["ends"],
        whole={word: tuple(map(tuple, sets)) for word, sets in table["alone"].items()},
        rewards=frozenset(table["rewards"]["names"]),
        crossing=frozenset(table["roles"]["cross_attention"]["beside_self_attention"]),
    )


def _inverted(table: Mapping[str, Any]) -> dict[str, str]:
    return {word: meaning for meaning, words in table.items() for word in words}


def _one_letter_off(word: str, stem: str) -> bool:
    """Whether one letter is left out, added, changed, or two neighbours are swapped; not in the first letter."""
    if len(stem) < _STEM_LENGTH or abs(len(word) - len(stem)) > 1 or word[0] != stem[0]:
        return False
    start = next((k for k, (a, b) in enumerate(zip(word, stem, strict=False)) if a != b), min(len(word), len(stem)))
    rest, other = word[start:], stem[start:]
    if len(word) != len(stem):
        longer, shorter = (rest, other) if len(rest) > len(other) else (other, rest)
        return longer[1:] == shorter
    return rest[1:] == other[1:] or (rest[:2] == other[1::-1] and rest[2:] == other[2:])
