"""Phases from accuracies alone."""

from __future__ import annotations

from llmtrap.calibrate.phases import label


def test_the_three_phases_of_a_run_that_collapses() -> None:
    train = [0.10, 0.60, 0.90, 1.00, 1.00, 1.00, 1.00, 1.00, 0.99, 0.97, 0.90]
    test = [0.10, 0.15, 0.20, 0.40, 0.70, 0.84, 0.86, 0.82, 0.78, 0.70, 0.50]
    found = label(train, test)
    expected = [
        "other",
        "other",
        "pre-grok",
        "pre-grok",
        "other",
        "grok",
        "grok",
        "grok",
        "other",
        "anti-grok",
        "other",
    ]
    assert list(found.phases) == expected
    assert found.peak == 6
    assert [found.representative(phase) for phase in ("pre-grok", "grok", "anti-grok")] == [3, 6, 9]


def test_a_run_that_never_generalises_has_no_grokking_and_no_collapse() -> None:
    found = label([0.1, 0.9, 1.0, 1.0, 1.0], [0.1, 0.12, 0.30, 0.15, 0.15])
    assert found.phases == ("other", "pre-grok", "other", "other", "other")
    assert found.representative("grok") is None


def test_a_decline_with_lost_training_data_is_no_anti_grokking() -> None:
    found = label([0.9, 1.0, 1.0, 0.5], [0.3, 0.9, 0.9, 0.4])
    assert found.phases == ("pre-grok", "grok", "grok", "other")


def test_a_run_that_starts_generalising_has_no_pre_grokking() -> None:
    assert label([0.5, 0.9, 1.0], [0.4, 0.8, 0.9]).members("pre-grok") == ()
