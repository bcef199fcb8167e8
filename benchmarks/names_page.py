"""The tables of docs/names.md, written from the grammar: `python -m benchmarks.names_page` puts them in their place."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "names.md"
BEGIN, END = "<!-- tables: written by python -m benchmarks.names_page -->", "<!-- end of the tables -->"


def tables() -> str:
    """The four tables as Markdown, and what goes with them."""
    text = resources.files("llmtrap.checkpoint.naming").joinpath("grammar.toml").read_text("utf-8")
    grammar = tomllib.loads(text)
    return "\n".join(
        [
            "",
            *_wrappers(grammar),
            *_parts(grammar),
            *_stacks(grammar),
            *_roles(grammar),
            *_names(grammar),
            *_mixers(grammar),
        ]
    )


def written(page: str) -> str:
    """The page with today's tables."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables()}\n{END}{rest.partition(END)[2]}"


def _wrappers(grammar: dict[str, Any]) -> list[str]:
    return ["## Wrappers", "", "Words around a model that change nothing: " + _words(grammar["wrappers"]["words"]), ""]


def _parts(grammar: dict[str, Any]) -> list[str]:
    stems = grammar["part_stems"]
    rows = [[f"`{part}`", _words(words), _words(stems.get(part, []))] for part, words in grammar["parts"].items()]
    return ["## Parts", "", *_table(["part", "begins with", "or with a word that has this in it"], rows), ""]


def _stacks(grammar: dict[str, Any]) -> list[str]:
    stacks = grammar["stacks"]
    return [
        "## Stacks", "",
        f"A number after one of these counts layers: {_words(stacks['words'])}; so does one after any other word that "
        f"ends in {_words(stacks['endings'])}, and one under which the same modules come again.", "",
    ]  # fmt: skip


def _roles(grammar: dict[str, Any]) -> list[str]:
    lines = ["## Roles", ""]
    for group, content in grammar["roles"].items():
        lines += [f"**{group}** begins with {_words(content['groups'])}", ""]
        rows = [
            [f"`{group}.{leaf}`", _words(said.get("words", [])), _words(said.get("inside", []))]
            for leaf, said in content.items()
            if isinstance(said, dict)
        ]
        lines += [*_table(["role", "anywhere", f"inside {group}"], rows), ""]
    beside = grammar["words_outside"]
    roles = dict.fromkeys((*grammar["words"], *beside, *grammar["words_inside"]))
    rows = [[f"`{role}`", _words(grammar["words"].get(role, [])), _words(beside.get(role, [])),
             _words(grammar["words_inside"].get(role, []))] for role in roles]  # fmt: skip
    lines += ["Roles without a group:", "", *_table(["role", "anywhere", "beside the layers", "in a layer"], rows), ""]
    sets = ["; ".join(f"`{word}` {role}" for word, role in said.items()) for said in grammar["sets"]]
    crossing = _words(grammar["roles"]["cross_attention"]["beside_self_attention"])
    lines += [f"Cross-attention where it stands beside `self_attn`: {crossing}", ""]
    return [*lines, "Words that tell each other's meaning, side by side:", "", *(f"- {one}" for one in sets), ""]


def _names(grammar: dict[str, Any]) -> list[str]:
    ends = [[f"`{end}`", f"`{role}`"] for end, role in grammar["ends"].items()]
    alone = [[" and ".join(f"`{kind}`" for kind in one), f"`{word}.`"]
             for word, sets in grammar["alone"].items() for one in sets]  # fmt: skip
    return [
        "## Whole names", "", *_table(["a name that ends so", "has the role"], ends), "",
        "A part saved by itself is known by modules that only it has (`#` is any number), and read as if the word of "
        "the whole model stood around it:", "", *_table(["has", "read as"], alone), "",
        f"With one row, beside the layers, a `value_head`'s `classifier`: what has that role, and "
        f"{_words(grammar['rewards']['names'])}. Any other name is not known, unless `architectures` in config.json "
        "names a reward or value model.", "",
    ]  # fmt: skip


def _mixers(grammar: dict[str, Any]) -> list[str]:
    rows = [[f"`{group}`", "; or ".join(_words(one) for one in sets)] for group, sets in grammar["mixers"].items()]
    return [
        "## Mixers", "",
        "A model of several kinds of layers often calls all that mix tokens `attention`. One that has all these words "
        "in one layer is another kind there:", "", *_table(["is", "where it has"], rows),
    ]  # fmt: skip


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def _words(words: list[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
