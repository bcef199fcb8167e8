"""The reference: what published models have, role by role, as quantiles small enough to ship."""

from __future__ import annotations

import importlib.resources
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import Field, ValidationError

from llmtrap.documents import DocumentError, read_document
from llmtrap.errors import TargetError, UsageError
from llmtrap.models import Count, Items, Model
from llmtrap.report.document import Matrix, Report, Tool
from llmtrap.report.facts import tally
from llmtrap.report.rarity.measures import MEASURES, Measure
from llmtrap.report.rarity.noise import noise_layers
from llmtrap.report.rarity.peers import departures

SCHEMA: Final = "llmtrap.reference/1"
QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
FEWEST_LINEAGES: Final = 5
"""Lineages that must have a role for it to be held against that role alone; else all roles of the layers count."""
LIMIT_BYTES: Final = 16 << 20


class Spread(Model):
    """One measure over the matrices of a role: as compared, so logarithms where `measures` says so."""

    matrices: Count
    quantiles: Items[float] = Field(description="at 0, 5, 25, 50, 75, 95 and 100 %")
    below: float | None = Field(description="how far the farthest lies under its peers; null with too few peers")
    apart: float | None = Field(description="how far the farthest lies over its peers")


class Role(Model):
    """The matrices of one role in one model."""

    role: str
    in_layers: bool
    matrices: Count
    smaller_side: tuple[Count, Count] = Field(description="least and greatest")
    measures: dict[Measure, Spread]


class PublishedModel(Model):
    """One model, and where its weights are from."""

    name: str
    lineage: str = Field(description="models of one lineage share weights and count as one")
    family: str
    parameters: Count
    licence: str | None = None
    source: str | None = None
    digests: Items[str] = Field(default=(), description="of the files or packages that held the weights")
    matrices: Count
    with_traps: Count
    over: Count = Field(description="matrices with a reliable α below 2")
    alphas: Count = Field(description="matrices with a reliable α")
    noise_layers: Count = Field(description="layers whose matrices all look like random numbers")
    roles: Items[Role]


class Reference(Model):
    """What published models have."""

    schema_: Literal["llmtrap.reference/1"] = Field(default=SCHEMA, alias="schema")
    name: str
    tool: Tool
    models: Items[PublishedModel]

    def without(self, lineage: str) -> Reference:
        """The same without the models of a lineage."""
        kept = tuple(model for model in self.models if model.lineage != lineage)
        return self.model_copy(update={"models": kept})


def describe(
    report: Report,
    *,
    name: str | None = None,
    lineage: str | None = None,
    licence: str | None = None,
    source: str | None = None,
    digests: Iterable[str] = (),
) -> PublishedModel:
    """The quantiles of one audit.

    Args:
        report: the audit, with α.
        name: how the table calls the model; the report's target without this.
        lineage: which models share weights with it; its name without this.
        licence: of the weights.
        source: where they were published.
        digests: of what held them; those of the report's files without any.
    """
    counts = tally(report.matrices)
    title = name or report.target.name
    known = report.coverage.counts
    files = tuple(f"{file.path} {file.digest}" for file in report.target.files if file.digest)
    return PublishedModel(
        name=title,
        lineage=lineage or title,
        family=report.target.family,
        parameters=known.measured.parameters if known else sum(math.prod(m.shape) for m in report.matrices),
        licence=licence,
        source=source or report.target.revision,
        digests=tuple(digests) or files,
        matrices=counts.matrices,
        with_traps=counts.trapped,
        over=counts.over,
        alphas=counts.over + counts.well + counts.under,
        noise_layers=len(noise_layers(report.matrices)),
        roles=tuple(_roles(report.matrices)),
    )


def _roles(matrices: Sequence[Matrix]) -> list[Role]:
    groups: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for index, matrix in enumerate(matrices):
        if matrix.non_finite is None and not matrix.all_zero:
            groups[matrix.role, matrix.layer is not None].append(index)
    apart = departures(matrices)
    found = []
    for (role, in_layers), members in sorted(groups.items()):
        spreads: dict[Measure, Spread] = {}
        for name, measure in MEASURES.items():
            values = [value for i in members if (value := measure.of(matrices[i])) is not None]
            if not values:
                continue
            by = [apart[i][name].by for i in members if name in apart.get(i, {})]
            spreads[name] = Spread(
                matrices=len(values),
                quantiles=tuple(round(float(value), 4) for value in np.quantile(values, QUANTILES)),
                below=round(-min(by), 4) if by else None,
                apart=round(max(by), 4) if by else None,
            )
        sides = [min(matrices[i].shape) for i in members]
        found.append(
            Role(
                role=role,
                in_layers=in_layers,
                matrices=len(members),
                smaller_side=(min(sides), max(sides)),
                measures=spreads,
            )
        )
    return found


def build(models: Iterable[PublishedModel], name: str, tool: Tool) -> Reference:
    """A reference of some models.

    Raises:
        UsageError: there is none, or two have one name.
    """
    held = tuple(models)
    if not held:
        raise UsageError("a reference of no model", remedy="Name the reports of the models to build it from")
    names = [model.name for model in held]
    twice = next((title for title in names if names.count(title) > 1), None)
    if twice is not None:
        raise UsageError(f"two reports of {twice}", remedy="Give each model once")
    return Reference(name=name, tool=tool, models=held)


def read_reference(path: Path) -> Reference:
    """Read and check a reference that `llmtrap reference build` wrote.

    Raises:
        TargetError: there is no such file, or it is no reference. The message says which.
    """
    remedy = "Name a file that `llmtrap reference build` wrote."
    try:
        text = read_document(path, LIMIT_BYTES, "reference")
    except DocumentError as error:
        raise TargetError(error.problem, file=str(path), remedy=remedy) from error
    try:
        return Reference.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise TargetError(
            f"this is no reference of llmtrap: {place}: {first['msg']}", file=str(path), remedy=remedy
        ) from None


def chosen_reference(named: str | None) -> Reference | None:
    """The reference that `--reference` names: the shipped one without a name, none for the word `none`, else a file.

    Raises:
        TargetError: the file is not there, or is no reference.
    """
    if named is None:
        return shipped_reference()
    return None if named == "none" else read_reference(Path(named))


@cache
def shipped_reference() -> Reference:
    """The table that ships with the package."""
    file = importlib.resources.files("llmtrap.report.rarity").joinpath("published.json")
    return Reference.model_validate_json(file.read_text(encoding="utf-8"))
