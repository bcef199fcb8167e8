"""The limits of a level, set without a family and then asked of it: how often would its models have been unusual?

The limits of `rarity.measures` were set on the models of the table, so that each of those is usual is no finding. Here
each family is left out of both: of the reference, and of the models that say how far beyond others a healthy one goes.
All of it comes out of the table that ships, so that it can be done again without a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from llmtrap.report.rarity.findings import BY_TOKEN, TIMES_THE_SHARE, trapped_share
from llmtrap.report.rarity.measures import MEASURES, Measure
from llmtrap.report.rarity.noise import LEAST_SIDE
from llmtrap.report.rarity.reference import PublishedModel, Reference
from llmtrap.report.rarity.standing import Standing, Which, farthest


@dataclass(frozen=True)
class Rule:
    """One way in which a value sets the level, and the factor beyond published models at which it does."""

    measure: Measure
    which: Which
    name: str

    @property
    def in_use(self) -> float | None:
        """The limit in use, as a decimal logarithm."""
        measure = MEASURES[self.measure]
        return {"value": measure.beyond, "apart": measure.apart, "below": measure.below}[self.which]


RULES: Final = (
    Rule("max_sigmas", "value", "largest entry"),
    Rule("max_sigmas", "apart", "largest entry, over its peers"),
    Rule("kurtosis", "value", "kurtosis"),
    Rule("kurtosis", "apart", "kurtosis, over its peers"),
    Rule("spectral_norm", "apart", "σ₁, over its peers"),
    Rule("spectral_norm", "below", "σ₁, under its peers"),
)
FEWEST: Final = 3
"""Lineages that must have a role here: without a family five are left for too few."""
TRAPPED: Final = "share of matrices with traps"
IN_USE: Final = {TRAPPED: TIMES_THE_SHARE} | {rule.name: 10.0**rule.in_use for rule in RULES if rule.in_use is not None}
Row = dict[str, str | float | None]


def excesses(model: PublishedModel, others: Reference) -> tuple[str, dict[str, float]]:
    """The model's name, and for each rule by how many times its farthest matrix goes beyond the farthest of others.

    Five robust deviations, which a departure needs as well, are not in the table: a model may seem to go beyond where
    its audit would not say so.
    """
    standing = Standing(others, FEWEST)
    found = {}
    for rule in RULES:
        beyond = []
        for role in model.roles:
            spread = role.measures.get(rule.measure)
            by_token = rule.measure == "kurtosis" and not role.in_layers and role.role in BY_TOKEN
            if spread is None or by_token or role.smaller_side[1] < LEAST_SIDE:
                continue
            value = farthest(spread, rule.which)
            known = standing.of(role.role, rule.measure, rule.which, in_layers=role.in_layers)
            if value is not None and known is not None:
                beyond.append(value - known.greatest)
        if beyond:
            found[rule.name] = 10.0 ** max(beyond)
    greatest = standing.shares(trapped_share).greatest
    if greatest > 0:
        found[TRAPPED] = trapped_share(model) / greatest
    return model.name, found


def held_out(reference: Reference) -> list[Row]:
    """A row for each family and rule under which its models go beyond every model of the other families.

    `reached`: by what factor, with the whole family left out of the reference; `limit`: the greatest factor by which a
    model of another family goes beyond the rest, its own lineage left out, None where too few have the measure;
    `in_use`: the limit that judges reports.
    """
    rows: list[Row] = []
    for family in dict.fromkeys(model.family for model in reference.models):
        mine = [model for model in reference.models if model.family == family]
        rest = reference.model_copy(update={"models": tuple(m for m in reference.models if m.family != family)})
        limits = _greatest(excesses(model, rest.without(model.lineage)) for model in rest.models)
        for name, (factor, model) in _greatest(excesses(model, rest) for model in mine).items():
            limit = limits[name][0] if name in limits else None
            rows.append(
                {
                    "family": family,
                    "model": model,
                    "rule": name,
                    "reached": round(factor, 2),
                    "limit": None if limit is None else round(max(1.0, limit), 2),
                    "in_use": round(IN_USE[name], 2),
                }
            )
    return rows


def _greatest(found: Iterable[tuple[str, dict[str, float]]]) -> dict[str, tuple[float, str]]:
    most: dict[str, tuple[float, str]] = {}
    for model, factors in found:
        for name, factor in factors.items():
            most[name] = max((factor, model), most.get(name, (factor, model)))
    return most


def beyond_in_alpha(reference: Reference) -> set[str]:
    """The lineages with a matrix whose α is lower, or higher, than that of every other in its role.

    Of roles inside the layers that three other lineages have.
    """
    found = set()
    for model in reference.models:
        for role in model.roles:
            spread = role.measures.get("alpha")
            known = {
                other.lineage: held.measures["alpha"].quantiles
                for other in reference.without(model.lineage).models
                for held in other.roles
                if held.role == role.role and held.in_layers and "alpha" in held.measures
            }
            if spread is None or not role.in_layers or len(known) < FEWEST:
                continue
            lowest, highest = (min(q[0] for q in known.values()), max(q[-1] for q in known.values()))
            if spread.quantiles[0] < lowest or spread.quantiles[-1] > highest:
                found.add(model.lineage)
    return found
