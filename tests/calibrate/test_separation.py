"""AUC and rates against known answers and scikit-learn, and intervals that resample runs, not checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrap.calibrate.separation import (
    Interval,
    clustered_area,
    clustered_rate,
    threshold_at,
)

roc_auc_score = pytest.importorskip("sklearn.metrics").roc_auc_score


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """The pooled area of one run."""
    found = clustered_area([positive], [negative])
    assert found is not None
    return found.value


scores = st.lists(st.integers(-5, 5), min_size=1, max_size=12)


def vector(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


@given(positive=scores, negative=scores)
@settings(max_examples=60, deadline=None)
def test_the_area_is_scikit_learns_and_turns_with_the_sign(positive: list[int], negative: list[int]) -> None:
    up, down = vector(*positive), vector(*negative)
    expected = roc_auc_score([1] * len(up) + [0] * len(down), np.concatenate((up, down)))
    assert area_under_curve(up, down) == pytest.approx(expected)
    assert area_under_curve(-up, -down) == pytest.approx(1 - expected)


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [((3, 4), (1, 2), 1.0), ((1, 2), (3, 4), 0.0), ((1, 1), (1, 1), 0.5), ((2, 5), (1, 3), 0.75)],
)
def test_known_areas(positive: tuple[float, ...], negative: tuple[float, ...], expected: float) -> None:
    assert area_under_curve(vector(*positive), vector(*negative)) == expected


def test_an_empty_group_has_no_area() -> None:
    assert clustered_area([vector(), vector()], [vector(1), vector(2)]) is None
    assert clustered_area([vector(1)], [vector()]) is None
    assert clustered_rate([np.zeros(0, dtype=bool)]) is None


def test_the_pooled_area_counts_pairs_across_runs() -> None:
    positive, negative = [vector(3), vector(1), vector()], [vector(0), vector(2), vector(1, 1)]
    pooled = area_under_curve(vector(3, 1), vector(0, 2, 1, 1))
    estimate = clustered_area(positive, negative)
    assert estimate is not None
    assert estimate.value == pytest.approx(pooled)


def test_copies_of_a_checkpoint_do_not_narrow_the_interval_but_more_runs_do() -> None:
    random = np.random.default_rng(1)
    centres = random.normal(0.7, 1.0, size=24)

    def estimate(runs: int, copies: int) -> Interval:
        found = clustered_area([np.full(copies, c) for c in centres[:runs]], [vector(-0.5, 0.0, 0.5)] * runs)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        return found

    def width(found: Interval) -> float:
        return float(found.high or 0) - float(found.low or 0)

    assert width(estimate(6, 1)) == pytest.approx(width(estimate(6, 50)))
    assert width(estimate(24, 1)) < width(estimate(6, 1))
    assert estimate(6, 1).low <= estimate(6, 1).value <= estimate(6, 1).high  # type: ignore[operator]


def test_two_runs_have_no_interval() -> None:
    assert clustered_area([vector(2)] * 2, [vector(1)] * 2) == Interval(value=1.0)


def test_rates_pool_checkpoints_and_draw_runs() -> None:
    hits = [np.array([True, True]), np.array([False, False]), np.array([True, False])]
    estimate = clustered_rate(hits)
    assert estimate is not None
    assert estimate.value == 0.5
    assert (estimate.low, estimate.high) == (0.0, 1.0)


def test_runs_that_all_agree_leave_room_for_one_that_would_not() -> None:
    """Clopper and Pearson: 5 of 5 runs are compatible with a rate of 0.025^(1/5), 0 of 4 with 1 − 0.025^(1/4)."""
    five, four = clustered_rate([np.array([True, True])] * 5), clustered_rate([np.array([False])] * 4)
    assert five == Interval(value=1.0, low=0.025**0.2, high=1.0)
    assert five.low == pytest.approx(0.4782, abs=1e-4)
    assert four == Interval(value=0.0, low=0.0, high=1 - 0.025**0.25)
    assert four.high == pytest.approx(0.6024, abs=1e-4)
    assert clustered_rate([np.array([True])] * 2) == Interval(value=1.0)
    assert clustered_area([vector(2)] * 5, [vector(1)] * 5) == Interval(value=1.0)


@given(scores=st.lists(st.floats(-10, 10), min_size=1, max_size=60), rate=st.sampled_from([0.0, 0.05, 0.2, 0.5]))
@settings(max_examples=60, deadline=None)
def test_a_threshold_flags_no_more_than_its_share(scores: list[float], rate: float) -> None:
    negative = np.array(scores)
    assert (negative >= threshold_at(negative, rate)).mean() <= rate
