"""Which traps are new, stronger, weaker or gone: thresholds, and what the base's own values explain."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import documents

from llmtrap.report.document import Matrix
from llmtrap.report.trap_changes import Tolerances, TrapChanges, compare_traps
from llmtrap.spectra.measured import Cause, Trap

SHAPE = (512, 384)


def trapped(*traps: Trap, **changes: Any) -> Matrix:
    made = documents.matrix("layers.0.mlp.up", shape=SHAPE, method="measured", layer=0)
    assert made.traps is not None
    count = len(traps)
    update = {"found": traps, "count": count, "low": count, "high": count, "centred": count, **changes}
    return made.model_copy(
        update={"traps": made.traps.model_copy(update={"mean": 0.0, "bulk_variance": 1.0, **update})}
    )


def entry(row: int, sigmas: float = 40.0, z: float = 20.0, strength: float = 1.5) -> Trap:
    cause = Cause(kind="entry", row=row, column=4, value=sigmas, sigmas=sigmas)
    return Trap(eigenvalue=1.0, z=z, strength=strength, cause=cause)


def heavy(strength: float, z: float = 20.0) -> Trap:
    return Trap(eigenvalue=1.0, z=z, strength=strength, cause=Cause(kind="heavy_tail"))


def changes(now: Matrix, base: Matrix, **known: Any) -> TrapChanges:
    found = compare_traps(now, base, **known)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("there", "state"),
    [(40.0, "same"), (36.5, "same"), (36.0, "new"), (3.0, "new"), (-40.0, "new"), (None, "new")],
)
def test_an_entry_is_inherited_from_the_value_that_the_base_has_there(there: float | None, state: str) -> None:
    base_at = {} if there is None else {(3, 4): there}
    assert changes(trapped(entry(3)), trapped(), base_at=base_at).state == state


def test_a_base_s_larger_deviation_makes_its_value_count_for_less() -> None:
    wide = trapped(bulk_variance=4.0)
    assert changes(trapped(entry(3)), wide, base_at={(3, 4): 40.0}).state == "new"
    assert changes(trapped(entry(3)), wide, base_at={(3, 4): 80.0}).state == "same"


def test_more_traps_than_the_base_are_not_new_where_all_of_them_are_inherited() -> None:
    both = trapped(entry(3), entry(9))
    found = changes(both, trapped(entry(9)), base_at={(3, 4): 39.0, (9, 4): 40.0})
    assert (found.state, found.counted) == ("same", False)
    undescribed = trapped(entry(3), low=5, high=6, count=5)
    assert changes(undescribed, trapped(), base_at={(3, 4): 39.0}).counted


def test_a_new_cause_must_show_in_most_shuffles() -> None:
    spread = {"low": 0, "high": 2}
    assert changes(trapped(entry(3), count=0, **spread), trapped()).state == "same"
    assert changes(trapped(entry(3), count=1, **spread), trapped()).state == "new"
    # 1.0 of the limit: a shuffle that shows it at z = 20 has lifted it by another entry in its row.
    alone = trapped(entry(3, sigmas=(SHAPE[0] * SHAPE[1]) ** 0.25), count=1, **spread)
    assert changes(alone, trapped()).state == "same"


@pytest.mark.parametrize(("factor", "state"), [(1.2, "same"), (1.3, "new")])
def test_a_heavy_tail_is_the_base_s_where_it_is_about_as_strong(factor: float, state: str) -> None:
    now = trapped(heavy(2.0 * factor))
    assert changes(now, trapped(entry(5, strength=2.0))).state == state


@pytest.mark.parametrize(
    ("strength", "z", "state"),
    [(2.4, 30.0, "same"), (2.6, 30.0, "stronger"), (2.6, 22.0, "same"), (1.6, 10.0, "same"), (1.5, 10.0, "weaker")],
)
def test_growth_needs_a_quarter_in_strength_and_three_units(strength: float, z: float, state: str) -> None:
    assert changes(trapped(entry(3, z=z, strength=strength)), trapped(entry(3, strength=2.0))).state == state


def test_the_margin_and_chance_are_the_caller_s() -> None:
    near, base = trapped(entry(9, z=8.0)), trapped(entry(3, z=8.0))
    assert changes(near, base).state == "same"
    assert changes(near, base, tolerances=Tolerances(margin=1.0)).state == "new"
    assert changes(near, base, tolerances=Tolerances(margin=1.0, chance_z=9.0)).state == "same"


def test_traps_of_the_base_are_gone_as_they_are_new_the_other_way_round() -> None:
    found = changes(trapped(), trapped(entry(3)), now_at={(3, 4): 1.0})
    assert (found.state, found.gone) == ("gone", (entry(3),))
    assert changes(trapped(), trapped(entry(3)), now_at={(3, 4): 39.0}).state == "same"


def test_between_reports_an_entry_that_the_base_may_hold_unnamed_is_left_open() -> None:
    base = trapped(entry(5), count=2, low=1, high=2, max_sigmas=41.0)
    found = changes(trapped(entry(3), entry(5), low=1, high=2), base)
    assert (found.state, found.open) == ("same", (entry(3),))
    named = trapped(entry(5), max_sigmas=41.0)
    assert changes(trapped(entry(3), entry(5), low=1, high=2), named).state == "new"


def test_what_was_not_decided_cannot_be_compared() -> None:
    undecided = documents.matrix("layers.0.mlp.up", shape=SHAPE, method="undecided", layer=0)
    assert compare_traps(undecided, trapped()) is None
    small = documents.matrix("layers.0.mlp.up", shape=(32, 512), method="measured", layer=0)
    assert compare_traps(small, small) is None


def test_an_entry_as_far_as_it_was_has_not_grown_where_the_weights_are_at_hand() -> None:
    now, base = trapped(entry(3, z=30.0, strength=2.6)), trapped(entry(3, strength=2.0))
    assert changes(now, base).state == "stronger"
    assert changes(now, base, base_at={(3, 4): 40.0}).state == "same"
    farther = trapped(entry(3, sigmas=46.0, z=30.0, strength=2.6))
    assert changes(farther, base, base_at={(3, 4): 40.0}).state == "stronger"
