"""Findings and levels: what is rare, what healthy models have too, and what nothing says."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import documents

from llmtrap.report.document import Finding, Matrix, Report
from llmtrap.report.judging import judged, judged_as_usual
from llmtrap.report.rarity.channels import FEWEST_LAYERS, channels, large_entries
from llmtrap.report.rarity.reference import shipped_reference
from llmtrap.report.verdict import judge


def with_entry(matrix: Matrix, row: int, column: int, sigmas: float) -> Matrix:
    """The matrix with one trap made by such an entry."""
    made = documents.matrix(matrix.id, layer=matrix.layer, role=matrix.role, shape=matrix.shape, method="measured",
                            causes=[("entry", 3.0)])  # fmt: skip
    assert made.traps is not None
    trap = made.traps.found[0]
    cause = trap.cause.model_copy(update={"row": row, "column": column, "value": 0.02 * sigmas, "sigmas": sigmas})
    found = (trap.model_copy(update={"cause": cause}),)
    return made.model_copy(update={"traps": made.traps.model_copy(update={"found": found, "max_sigmas": sigmas})})


def replaced(**entries: Any) -> Report:
    """A healthy model of twelve layers in which some matrices have a large entry at (row, column), so far out."""
    wanted = {name.replace("__", "."): place for name, place in entries.items()}
    made = documents.dense()
    return documents.report([with_entry(m, *wanted[m.id]) if m.id in wanted else m for m in made])


def kinds(report: Report) -> dict[str, Finding]:
    return {finding.kind: finding for finding in report.findings}


def test_a_healthy_model_is_usual_and_green() -> None:
    report = documents.clean()
    answers = judge(report)
    assert (report.summary.level, answers.tone) == ("usual", "green")
    assert answers.lead == "Nothing here goes far beyond what 10 published models have."


def test_a_corrupted_entry_in_a_deep_matrix_is_unusual() -> None:
    report = replaced(layers__8__attention__q=(5, 7, 400.0))
    finding = kinds(report)["rare_entry"]
    assert (report.summary.level, judge(report).tone) == ("unusual", "red")
    assert finding.matrices == ("layers.8.attention.q",)
    assert finding.rarity is not None
    assert (finding.rarity.alike, finding.rarity.models) == (0, 7)
    assert "layers.8.attention.q has an entry 400 standard deviations from the mean" in judge(report).lead


def test_the_same_entry_where_published_models_have_such_is_not() -> None:
    report = replaced(layers__8__mlp__down=(5, 7, 20.0))
    assert report.summary.level == "usual"
    assert kinds(report)["large_entries"].rarity is not None


def test_without_a_reference_nothing_is_red_and_traps_are_unusual() -> None:
    report = judged(replaced(layers__8__mlp__down=(5, 7, 20.0)), None)
    answers = judge(report)
    assert (report.summary.level, answers.tone, report.summary.reference) == ("unusual", "amber", None)
    assert all(finding.rarity is None for finding in report.findings)
    assert judged(documents.clean(), None).summary.level == "usual"


def test_a_layer_of_random_numbers_is_found() -> None:
    def as_random(matrix: Matrix) -> Matrix:
        assert matrix.spectrum is not None
        rows, columns = matrix.shape
        rank = 0.95 * rows * columns / (rows**0.5 + columns**0.5) ** 2
        return matrix.model_copy(update={"spectrum": matrix.spectrum.model_copy(update={"stable_rank": rank})})

    report = documents.report([as_random(m) if m.layer == 5 else m for m in documents.dense()])
    assert report.summary.level == "unusual"
    assert kinds(report)["like_noise"].text.startswith("Layer 5 looks like random numbers")
    assert kinds(report)["like_noise"].count == 7


def test_entries_of_one_row_over_layers_are_one_finding_with_their_effect() -> None:
    report = replaced(
        layers__1__mlp__down=(99, 10, 30.0),
        layers__2__mlp__down=(99, 400, 25.0),
        layers__3__mlp__down=(99, 10, 28.0),
        layers__4__mlp__down=(99, 3000, 22.0),
        layers__9__attention__o=(99, 12, 21.0),
        layers__6__attention__v=(5, 5, 20.0),
    )
    finding = kinds(report)["outlier_channel"]
    assert finding.channel is not None
    assert (finding.channel.axis, finding.channel.index) == ("row", 99)
    assert finding.channel.layers == (1, 2, 3, 4, 9)
    assert finding.count == 5
    assert finding.share is not None
    assert 0 < finding.share < 1
    assert "Row 99 is an outlier channel: it holds large entries in 5 layers" in finding.text
    assert kinds(report)["large_entries"].matrices == ("layers.6.attention.v",)


def test_two_layers_are_no_channel() -> None:
    assert FEWEST_LAYERS == 3
    report = replaced(layers__1__mlp__down=(99, 10, 30.0), layers__2__mlp__down=(99, 40, 30.0))
    groups, left = channels(large_entries(report.matrices))
    assert (groups, len(left)) == ([], 2)


@pytest.mark.parametrize(
    ("layer", "role", "said"), [(1, "mlp.down", True), (9, "mlp.down", False), (1, "mlp.up", False)]
)
def test_only_an_early_down_projection_holds_a_candidate(layer: int, role: str, said: bool) -> None:
    report = replaced(**{f"layers.{layer}.{role}": (3, 4, 20.0)})
    assert ("candidate" in kinds(report)["large_entries"].text) is said


def test_the_level_of_a_model_without_layers_rests_on_the_roles_that_are_known() -> None:
    fc = documents.matrix("fc1", role="fc", shape=(200, 784), method="measured", causes=[("heavy_tail", 3.0)])
    assert fc.traps is not None
    heavy = fc.model_copy(update={"traps": fc.traps.model_copy(update={"kurtosis": 50_000.0})})
    assert documents.report([heavy]).summary.level == "unusual"


def test_judging_again_changes_nothing() -> None:
    for report in (documents.trapped(), documents.broken(), documents.partial(), documents.empty()):
        assert judged_as_usual(report) == report
    assert judged(documents.trapped(), shipped_reference()) == documents.trapped()
