"""Phases from accuracies alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.support.measured import layer

from llmtrap.calibrate.data import task_data
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.measurement import Measurement
from llmtrap.calibrate.networks import matrix_names
from llmtrap.calibrate.phases import label
from llmtrap.calibrate.presets import preset
from llmtrap.calibrate.rundir import RunFolder
from llmtrap.calibrate.settings import PlannedRun
from llmtrap.calibrate.workers import follow, read_run


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


#             train, test
_FALLING = ((0.1, 0.1), (1.0, 0.3), (1.0, 1.0), (1.0, 0.95), *((1.0, 0.80),) * 10)


def _made(path: Path, points: int) -> PlannedRun:
    """A followed run whose measures are made up, as they are on disk after a kill."""
    recipe = replace(preset("modular-addition", "quick").arms[0], modulus=7, steps=5_000, checkpoint_every=100)
    run = PlannedRun(recipe, 0, path / "run", None, "cpu")
    folder = RunFolder(run.folder)
    folder.claim(recipe, 0, task_data(recipe, 0))
    layers = tuple(layer(name, 0, 0) for name in matrix_names(recipe))
    for number, (train, test) in enumerate(_FALLING[:points]):
        measured = Measurement(
            step=100 * number, seconds=0.0, train_accuracy=train, test_accuracy=test, train_loss=0.0, test_loss=0.0,
            l2=1.0, circuit_complexity=0.0, sparsity=(0.0,), dead=(0,), class_share=(0.1,), layers=layers,
        )  # fmt: skip
        folder.append_measure(measured)
    return run


def test_a_run_stops_after_ten_checkpoints_of_its_collapse(tmp_path: Path) -> None:
    collapsed = _made(tmp_path / "ten", 14)
    follow(collapsed, lambda _: None)
    assert RunFolder(collapsed.folder).saved_steps() == ()  # nothing was trained
    followed = read_run(collapsed)
    assert followed is not None
    assert followed.complete
    sooner = followed.model_dump(include={"recipe", "seed", "source", "scored", "checkpoints"})
    assert not Run.model_validate(sooner | {"checkpoints": sooner["checkpoints"][:-1]}).complete
