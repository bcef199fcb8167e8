"""LT009 and LT010: how large a matrix has become, and how large the change ΔW = W − W_base is."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from llmtrap.gate.document import Chance
from llmtrap.gate.matching import MatchedSides, Pair
from llmtrap.gate.rules.base import NotJudged, Rule, RuleSettings, Violation, missing_update, of_pairs
from llmtrap.gate.storage import allowance_of
from llmtrap.report.formatting import number


class NormChanged(RuleSettings):
    """How far the two norms of W may move, as factors: 1.5 allows from 1/1.5 to 1.5 times the base's."""

    max_norm_ratio: float = Field(default=1.5, gt=1, description="for the spectral norm")
    max_rank_ratio: float = Field(default=2.0, gt=1, description="for the stable rank")


class LargeUpdate(RuleSettings):
    """How large ΔW may be. It needs the weights of both sides: between two reports it is not judged."""

    max_relative: float = Field(default=0.5, gt=0, description="of ‖ΔW‖_F / ‖W_base‖_F")
    max_spectral_norm: float | None = Field(default=None, gt=0, description="of ‖ΔW‖₂, where set")
    min_stable_rank: float | None = Field(default=None, ge=1, description="of ΔW, where set: ‖ΔW‖_F² / ‖ΔW‖₂²")


def check_norms(pair: Pair, settings: NormChanged, chance: Chance) -> Iterator[Violation | NotJudged]:
    """Spectral norm and stable rank (‖W‖_F² / ‖W‖₂², so that it moves by the square), each against the base's."""
    del chance
    if pair.now is None or pair.base is None or pair.now.non_finite is not None or pair.base.non_finite is not None:
        return
    if pair.now.spectrum is None or pair.base.spectrum is None:
        yield NotJudged(pair.it.id, "the spectrum was not computed on both sides: audit them without --no-alpha")
        return
    if sorted(pair.now.shape) != sorted(pair.base.shape):
        return
    now, was = pair.now.spectrum, pair.base.spectrum
    allowance = allowance_of(pair)
    rounded, why = (1.0, "") if allowance is None else (allowance.factor, f"; {allowance.words}")
    for name, after, before, allowed in (
        ("spectral norm", now.spectral_norm, was.spectral_norm, max(settings.max_norm_ratio, rounded)),
        ("stable rank", now.stable_rank, was.stable_rank, max(settings.max_rank_ratio, rounded**2)),
    ):
        factor = max(after, before) / min(after, before) if min(after, before) > 0 else (1e9 if after != before else 1)
        if factor > allowed:
            yield Violation(
                id=pair.now.id,
                tensor=pair.now.tensor,
                message=f"{name} {number(after)}, in the base {number(before)}: a factor of {number(factor)}{why}",
                cause=name,
                now=after,
                base=before,
                severity=factor,
            )


def check_update(matched: MatchedSides, settings: LargeUpdate, chance: Chance) -> Iterator[Violation | NotJudged]:
    """Norms of ΔW of every changed matrix, or of every update of an adapter."""
    del chance
    yield from (gap for pair in matched.changed if (gap := missing_update(pair)) is not None)
    for name, update in matched.updates.items():
        tensor = matched.target.described[name].tensor if name in matched.target.described else None
        share = update.relative
        if share is not None and share > settings.max_relative:
            message = f"changed by {number(100 * share)} % of the base's Frobenius norm"
            yield Violation(name, tensor, message, "relative", now=share, severity=share)
        if settings.max_spectral_norm is not None and update.spectral_norm > settings.max_spectral_norm:
            message = f"‖ΔW‖₂ = {number(update.spectral_norm)}, over {number(settings.max_spectral_norm)}"
            yield Violation(name, tensor, message, "norm", now=update.spectral_norm, severity=update.spectral_norm)
        least = settings.min_stable_rank
        if least is not None and 0 < update.stable_rank < least:
            message = f"ΔW has a stable rank of {number(update.stable_rank)}, under {number(least)}"
            yield Violation(name, tensor, message, "rank", now=update.stable_rank, severity=least / update.stable_rank)


LT009 = Rule(
    id="LT009",
    name="norm-changed",
    title="Spectral norm or stable rank of a matrix moved far from its base's",
    settings=NormChanged,
    check=of_pairs(check_norms),
)
LT010 = Rule(
    id="LT010",
    name="large-update",
    title="The change ΔW of a matrix is larger than a fine-tune's",
    settings=LargeUpdate,
    check=check_update,
)
