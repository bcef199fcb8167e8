"""A report against its base: what counts as new, worse or gone, and what cannot be compared."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import documents

from llmtrap.report.against import Shift, against_words, compare
from llmtrap.report.document import Matrix


def pair(now: dict[str, Any], was: dict[str, Any]) -> Shift:
    """One matrix, as it is now and as it was in the base."""
    common: dict[str, Any] = {"method": "measured", "layer": 0}
    after = documents.matrix("layers.0.attention.q", **{**common, **now})
    before = documents.matrix("layers.0.attention.q", **{**common, **was})
    return compare(documents.report([after]), documents.report([before])).shifts["layers.0.attention.q"]


ENTRY = [("entry", 2.0)]


@pytest.mark.parametrize(
    ("now", "was", "change", "why"),
    [
        ({}, {}, "same", ""),
        ({"method": "certified"}, {}, "same", ""),
        ({"causes": ENTRY}, {"causes": ENTRY}, "same", ""),
        ({"causes": [("heavy_tail", 2.0)]}, {}, "new", "traps 0 → 1 (heavy tail)"),
        ({"causes": [("mean_shift", 2.0)]}, {}, "new", "traps 0 → 1 (mean shift)"),
        ({"causes": [("mean_shift", 2.0)]}, {"causes": [("heavy_tail", 2.0)]}, "new", "traps 1 → 1 (mean shift)"),
        ({}, {"causes": [("heavy_tail", 2.0)]}, "gone", "traps 1 → 0 (heavy tail)"),
        (
            {"causes": [("heavy_tail", 2.5)]},
            {"causes": [("heavy_tail", 2.0)]},
            "worse",
            "strength 2 → 2.5 times the random edge",
        ),
        ({"causes": [("heavy_tail", 2.1)]}, {"causes": [("heavy_tail", 2.0)]}, "same", ""),
        ({"causes": [("heavy_tail", 1.1)], "low": 0, "high": 1}, {}, "same", ""),
        ({"causes": [("heavy_tail", 1.1)]}, {"low": 0, "high": 1}, "new", "traps 0 → 1 (heavy tail)"),
        ({"method": "undecided"}, {"causes": ENTRY}, "unknown", ""),
        ({"causes": ENTRY, "shape": (32, 512)}, {"shape": (32, 512)}, "unknown", ""),
    ],
)
def test_changes_of_traps(now: dict[str, Any], was: dict[str, Any], change: str, why: str) -> None:
    shift = pair(now, was)
    assert (shift.traps, shift.why) == (change, why)


def test_another_entry_is_a_new_trap() -> None:
    shift = pair({"causes": ENTRY, "seed": 1}, {"causes": ENTRY, "seed": 2})
    assert shift.traps == "new"
    assert shift.why.startswith("traps 1 → 1 (entry at row ")


def test_alpha_is_compared_with_its_error_and_only_between_equal_shapes() -> None:
    near, far = pair({"alpha": 3.0}, {"alpha": 3.1}), pair({"alpha": 1.8}, {"alpha": 4.8})
    assert (near.alpha, near.moved) == (pytest.approx(-0.1), False)
    assert (far.alpha, far.moved) == (pytest.approx(-3.0), True)
    assert pair({"alpha": 1.8, "shape": (512, 384)}, {"alpha": 4.8, "shape": (384, 512)}).moved
    assert pair({"alpha": 1.8, "shape": (512, 384)}, {"alpha": 4.8, "shape": (512, 256)}).alpha is None
    assert pair({"alpha": 1.8, "shape": (32, 512)}, {"alpha": 4.8, "shape": (32, 512)}).alpha is None


def test_what_only_one_side_has_is_named_and_tied_weights_meet() -> None:
    embedding = documents.matrix("embedding", alpha=2.0)
    tied: Matrix = documents.matrix("unembedding", alpha=2.0).model_copy(update={"aliases": ("embedding",)})
    alone = documents.matrix("layers.0.new", layer=0)
    comparison = compare(documents.report([embedding, alone]), documents.report([tied]))
    assert list(comparison.shifts) == ["embedding"]
    assert (comparison.added, comparison.missing) == (("layers.0.new",), ())
    back = compare(documents.report([tied]), documents.report([embedding, alone]))
    assert (list(back.shifts), back.added, back.missing) == (["unembedding"], (), ("layers.0.new",))


def test_reports_that_do_not_compare_say_why() -> None:
    report = documents.trapped()
    settings = documents.SETTINGS.model_copy(update={"trap_rule": "weightwatcher", "split_fused": True})
    base = report.model_copy(
        update={"settings": settings, "target": report.target.model_copy(update={"family": "gpt2"})}
    )
    assert compare(report, base).notes == (
        "the rules differ: tracy-widom here, weightwatcher in the base",
        "fused matrices are split in one of the reports only",
        "the reports are of different architecture families",
    )
    assert against_words(compare(report, documents.empty())) == (
        "No matrix of this report is in the base, so nothing can be compared."
    )
