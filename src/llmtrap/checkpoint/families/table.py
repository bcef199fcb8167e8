"""A family's file: what the names of a kind of model cannot tell, checked when it is read."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from llmtrap.documents import DocumentError, read_document
from llmtrap.errors import UsageError

Axis = Literal["rows", "columns"]
Layout = Literal["concat", "interleaved", "heads", "thirds"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.#-]{1,200}$")]
Role = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,3}$")]

MAX_FILE = 1_000_000
_REMEDY = "docs/families.md shows how to write one"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fused(_Table):
    """How a fused matrix divides along its output axis.

    `concat`: the parts one after the other: gate and up of equal size, q, k and v by the number of heads; `thirds`:
    three of equal size; `interleaved`: output k belongs to part k mod n; `heads`: per group of key and value heads the
    queries of the group, then one key and one value.

    Attributes:
        role: the role of such matrices, or its last word.
        parts: what the parts are, in their order.
        layout: how they lie.
        axis: the output axis as stored; None where the matrix beside it tells.
        part: the part of the model, or None for the text's own (a decoder's and an encoder's too).
        word: only modules whose name ends in this word.
        key_heads: config.json's key of the number of key and value heads, where it has a name of its own.
    """

    role: Role
    parts: tuple[Role, ...] = Field(min_length=2, max_length=4)
    layout: Layout
    axis: Axis | None = None
    part: Role | None = None
    word: Name | None = None
    key_heads: Name | None = None


class ExpertsInRows(_Table):
    """Matrices of experts in two dimensions, one below the other; `count` is the key of their number."""

    count: Name


class Family(_Table):
    """One file.

    Attributes:
        model_types: config.json's `model_type` of the models it is for; none: for all.
        marks: ends of module names that only these models have: they count where config.json names no type.
        parts: word → part of the model that begins with it.
        roles: end of a module's name, without numbers → role.
        fused: how fused matrices divide.
        experts_in_rows: where experts lie one below the other.
        tied: whether embedding and unembedding are one matrix where config.json does not say.
    """

    model_types: tuple[Name, ...] = ()
    marks: tuple[Name, ...] = ()
    parts: dict[Name, Role] = Field(default_factory=dict)
    roles: dict[Name, Role] = Field(default_factory=dict)
    fused: tuple[Fused, ...] = ()
    experts_in_rows: ExpertsInRows | None = None
    tied: bool = False


@cache
def load_families() -> tuple[Family, ...]:
    """The families of this folder, in order of their files' names."""
    folder = resources.files("llmtrap.checkpoint.families")
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".toml")), key=lambda item: item.name)
    return tuple(Family.model_validate(tomllib.loads(item.read_text("utf-8"))) for item in files)


def read_family(path: Path) -> Family:
    """Read a family of the user's own.

    Raises:
        UsageError: the file cannot be read, is no TOML, or has a key or value that no family has; the message names it.
    """
    try:
        content = read_document(path, MAX_FILE, "family")
    except DocumentError as error:
        raise UsageError(error.problem, file=str(path), remedy=error.remedy) from error
    try:
        table = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"this is not TOML: {error}", file=str(path), remedy=_REMEDY) from error
    try:
        return Family.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"'{place}': {first['msg']}", file=str(path), remedy=_REMEDY) from error
