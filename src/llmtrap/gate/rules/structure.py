"""LT007 and LT008: matrices missing, added or of another shape; another storage format."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from llmtrap.gate.document import Chance, Level
from llmtrap.gate.matching import MatchedSides, MatrixRef, Pair
from llmtrap.gate.rules.base import Rule, RuleSettings, Violation, of_pairs
from llmtrap.gate.storage import plain_format
from llmtrap.report.formatting import plural, printable


class Structure(RuleSettings):
    """What may change."""

    allow_added: bool = False
    allow_missing: bool = False
    allow_new_tokens: bool = Field(
        default=True, description="only warn of rows that were added to a vocabulary; the other rows are judged"
    )


class Storage(RuleSettings):
    """Nothing but the level: many a fine-tune is stored otherwise than its base, on purpose."""

    level: Level = "warn"


def check_structure(matched: MatchedSides, settings: Structure, chance: Chance) -> Iterator[Violation]:
    """Matrices that one side lacks, and matched ones of another shape."""
    del chance
    if matched.base is None or not matched.same_architecture:
        return
    if not settings.allow_missing and matched.target.part is None:
        for was in matched.missing:
            yield Violation(was.id, was.tensor, f"missing: the base has it ({_shape(was)})", cause="missing")
    if not settings.allow_added and matched.base.part is None:
        for it in matched.alone:
            yield Violation(it.id, it.tensor, f"added: the base does not have it ({_shape(it)})", cause="added")
    for pair in matched.pairs:
        if pair.grown:
            message = (
                f"{plural(pair.grown, 'row')} more than in the base: the {pair.was.shape[0]:,} that both have were "
                "judged, the new ones for their numbers and size alone"
            )
            yield Violation(
                pair.it.id, pair.it.tensor, message, cause="grown", only_warn=settings.allow_new_tokens
            )  # fmt: skip
        elif pair.reshaped:
            message = f"of another shape: {_shape(pair.it)} here, {_shape(pair.was)} in the base"
            yield Violation(pair.it.id, pair.it.tensor, message, cause="shape")


def check_storage(pair: Pair, settings: Storage, chance: Chance) -> Iterator[Violation]:
    """A storage format other than the base's: rounding alone changes every number a little."""
    del settings, chance
    now, was = pair.it.encoding, pair.was.encoding
    if now and was and plain_format(now) != plain_format(was):
        message = f"stored as {printable(now, 60)}, in the base as {printable(was, 60)}"
        yield Violation(pair.it.id, pair.it.tensor, message, cause="encoding")


def _shape(it: MatrixRef) -> str:
    return f"{it.shape[0]:,} × {it.shape[1]:,}" if 0 not in it.shape else "not measured"


LT007 = Rule(
    id="LT007",
    name="structure-changed",
    title="A matrix is missing, added or of another shape than in the base",
    settings=Structure,
    check=check_structure,
)
LT008 = Rule(
    id="LT008",
    name="storage-changed",
    title="A matrix is stored in another format than in the base",
    settings=Storage,
    check=of_pairs(check_storage),
)
