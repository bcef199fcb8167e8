"""Where a shuffle is repeated, and where a prediction is made: how far from the edge counts as near."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from llmtrap.spectra import AnalysisSettings, TrapAnalysis, analyse
from llmtrap.spectra.certificate import entry_limit
from llmtrap.spectra.tracy_widom import EdgeLaw
from llmtrap.spectra.traps import ShuffleCount, edge_z, leaves_doubt

SHAPE = (160, 120)


def with_entry(sigmas: float) -> NDArray[np.float32]:
    """Gaussian entries and one that stands so many of their standard deviations out."""
    matrix = np.random.default_rng(11).standard_normal(SHAPE).astype(np.float32)
    matrix -= matrix.mean()
    matrix /= matrix.std()
    matrix[17, 23] = sigmas
    return matrix


def traps_of(sigmas: float, settings: AnalysisSettings) -> TrapAnalysis:
    found = analyse(with_entry(sigmas), settings, matrix_id="doubt").traps
    assert found is not None
    return found


def counted(*centred_z: float) -> list[ShuffleCount]:
    """Shuffles with a trap where z is beyond 6."""
    return [ShuffleCount(int(z > 6), int(z > 6), z, z) for z in centred_z]


@pytest.mark.parametrize(
    ("counts", "doubt"),
    [
        (counted(2, 3, 4), False),
        (counted(2, 3, 7), True),
        (counted(7, 11, 12), True),  # all show it, one of them only just
        (counted(11, 11, 12), False),
        ([ShuffleCount(1, 0, 20.0, 1.0), ShuffleCount(1, 0, 20.0, 1.0)], False),  # a mean shift, and nothing else
        ([ShuffleCount(1, 0, 20.0, 1.0), ShuffleCount(2, 1, 20.0, 7.0)], True),
    ],
)
def test_shuffles_leave_doubt_where_the_next_might_say_otherwise(counts: list[ShuffleCount], doubt: bool) -> None:
    assert leaves_doubt(counts, 6.0) is doubt


def test_a_trap_that_only_just_shows_is_shuffled_25_times_unless_fewer_are_wanted() -> None:
    sigmas = 1.55 * float(entry_limit(*SHAPE))
    found = {
        name: traps_of(sigmas, AnalysisSettings(alpha=False, **settings))  # type: ignore[arg-type]
        for name, settings in {
            "default": {}, "few": {"shuffles": 4}, "many": {"shuffles": 30}, "paired": {"paired": True},
            "limited": {"most_shuffles": 7},
        }.items()
    }  # fmt: skip
    assert {name: traps.shuffles for name, traps in found.items()} == {
        "default": 25, "few": 4, "many": 30, "paired": 5, "limited": 7,
    }  # fmt: skip
    assert found["many"].counts[:25] == found["default"].counts
    assert found["default"].counts[:4] == found["few"].counts


def test_a_count_near_the_edge_is_taken_from_five_shuffles_and_one_far_from_it_from_one() -> None:
    """The bulk's own edge stands at z = 0, the rule's at 6.2: within four units of that the shuffle may decide."""
    edge = edge_z("tracy-widom", SHAPE)
    measure = AnalysisSettings(alpha=False, traps="measure")
    near: list[float] = []
    for sigmas in entry_limit(*SHAPE) * np.linspace(1.3, 1.65, 8):
        traps = traps_of(float(sigmas), measure)
        if traps.counts[0].count:
            continue
        distance = edge - traps.counts[0].top_z
        # Where some of the five show a trap, 25 are drawn to know how many do.
        mixed = max(count.count for count in traps.counts[:5]) > 0
        assert traps.shuffles == (25 if mixed else 5 if distance < 4.0 else 1), sigmas
        near.append(distance)
    # Both sides of the limit were seen.
    assert any(0.5 < distance < 4.0 for distance in near)
    assert any(4.0 < distance < 7.0 for distance in near)


@pytest.mark.parametrize(("share", "method"), [(0.9, "undecided"), (1.05, "predicted")])
def test_a_trap_is_predicted_only_where_six_deviations_leave_it_beyond_the_edge(share: float, method: str) -> None:
    """a² + N(1 − 6√(κ/N)) must reach the eigenvalue four units beyond the edge; with fewer deviations less would do."""
    n, law = max(SHAPE), EdgeLaw.of(*SHAPE)
    rest = np.delete(with_entry(0.0).ravel(), 17 * SHAPE[1] + 23)
    kurtosis = float(((rest - rest.mean()) ** 4).mean() / rest.var() ** 2)
    reach = law.eigenvalue(edge_z("tracy-widom", SHAPE) + 4.0)

    def least(deviations: float) -> float:
        return reach - n * (1 - deviations * math.sqrt(kurtosis / n))

    square = least(1.0) + share * (least(6.0) - least(1.0))
    assert square > least(5.0) * 0.99
    found = traps_of(math.sqrt(square), AnalysisSettings(alpha=False, traps="certify"))
    assert found.method == method
