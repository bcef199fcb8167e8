"""A report against its base: what counts as new, worse or gone, and what cannot be compared."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import documents

from llmtrap.report.against import Shift, changed_first, compare
from llmtrap.report.comparison_text import against_words, shift_words, trap_change_words
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
            {"causes": [("heavy_tail", 2.6)]},
            {"causes": [("heavy_tail", 2.0)]},
            "stronger",
            "strength 2 → 2.6 times the random edge",
        ),
        (
            {"causes": [("heavy_tail", 2.0)]},
            {"causes": [("heavy_tail", 2.6)]},
            "weaker",
            "strength 2.6 → 2 times the random edge",
        ),
        ({"causes": [("heavy_tail", 2.4)]}, {"causes": [("heavy_tail", 2.0)]}, "same", ""),
        ({"causes": [("heavy_tail", 2.1)]}, {"causes": [("heavy_tail", 2.0)]}, "same", ""),
        ({"causes": [("heavy_tail", 1.1)], "low": 0, "high": 1}, {}, "same", ""),
        ({"causes": [("heavy_tail", 1.1)]}, {"low": 0, "high": 1}, "same", ""),
        ({"causes": [("heavy_tail", 1.1)]}, {"low": 0, "high": 0}, "new", "traps 0 → 1 (heavy tail)"),
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


def words(*changes: str) -> str:
    """The sentence on traps of a report in which one matrix each changed so."""
    was: dict[str, list[tuple[str, float]]] = {"stronger": [("heavy_tail", 2.0)], "gone": [("heavy_tail", 2.0)]}
    now: dict[str, list[tuple[str, float]]] = {"stronger": [("heavy_tail", 3.0)], "new": [("heavy_tail", 3.0)]}
    names = [f"layers.{place}.q" for place in range(len(changes))]
    pairs = list(zip(names, changes, strict=True))
    sides = [
        documents.report(
            [documents.matrix(name, method="measured", causes=side.get(change, [])) for name, change in pairs]
        )
        for side in (now, was)
    ]
    return trap_change_words(compare(*sides))


def test_the_first_sentence_says_whether_the_traps_are_new() -> None:
    assert words("same", "same") == "No trap is new, stronger or gone: all as in the base (2 matrices compared)."
    assert words("new", "same") == "New traps in 1 matrix, of 2 compared."
    assert words("gone", "same") == "No new traps and traps gone in 1, of 2 compared."
    assert words("new", "stronger", "new", "gone") == (
        "New traps in 2 matrices, stronger ones in 1 and traps gone in 1, of 4 compared."
    )
    undecided = documents.report([documents.matrix("a", method="undecided")])
    assert trap_change_words(compare(undecided, undecided)) == "No matrix could be compared for traps."


def test_alpha_is_said_beside_the_traps_of_a_matrix() -> None:
    assert shift_words(pair({}, {})) == "as in the base"
    assert shift_words(pair({"alpha": 1.8}, {"alpha": 4.8})) == "traps as in the base, α fell below 2"
    assert shift_words(pair({"alpha": 3.0}, {"alpha": 8.0})) == "traps as in the base, α moved"
    assert shift_words(pair({"causes": ENTRY, "alpha": 1.8}, {"alpha": 4.8})) == "new trap, α fell below 2"
    assert shift_words(None) == "not in the base"


def test_new_stronger_and_gone_traps_come_before_the_worst_of_the_rest() -> None:
    report, base = documents.trapped(), documents.trapped_base()
    order = [report.matrices[index].id for index in changed_first(report.matrices, compare(report, base))]
    assert order[:5] == [
        "layers.0.mlp.down",
        "layers.5.mlp.gate",
        "layers.6.mlp.up",
        "layers.3.attention.k",
        "layers.11.attention.v",
    ]
    alone = [report.matrices[index].id for index in changed_first(report.matrices, None)]
    assert alone[:3] == ["layers.0.mlp.down", "layers.3.attention.k", "layers.11.attention.v"]
    assert sorted(order) == sorted(alone) == sorted(matrix.id for matrix in report.matrices)
