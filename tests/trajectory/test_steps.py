"""Steps read from the names that trainers and published runs give."""

from __future__ import annotations

import random

import pytest

from llmtrap.trajectory.steps import Step, in_order, spread, step_of


@pytest.mark.parametrize(
    ("name", "stage", "step"),
    [
        ("out/checkpoint-500", (), 500),
        ("step0", (), 0),
        ("step143000", (), 143_000),
        ("stage1-step140000-tokens294B", (1,), 140_000),
        ("stage2-ingredient3-step1000-tokens3B", (2, 3), 1_000),
        ("step1000-tokens4B", (), 1_000),
        ("runs/a/epoch=2-step=750.ckpt", (), 750),
        ("global_step2000/", (), 2_000),
        ("iter_0005000", (), 5_000),
        ("step-00000100.safetensors", (), 100),
        ("tinyllama-intermediate-step-1431k-3T", (), 1_431_000),
        ("epoch_3", (), 3),
        ("1200", (), 1_200),
        ("ckpt_012", (), 12),
    ],
)
def test_the_step_of_a_name(name: str, stage: tuple[int, ...], step: int) -> None:
    assert step_of(name) == Step(stage, step)


@pytest.mark.parametrize(
    "name", ["main", "model", "last.ckpt", "best", "llama-3-8b", "v2", "", "footstep9x", "step", "step999999999999999m"]
)
def test_names_without_a_step(name: str) -> None:
    assert step_of(name) is None


def test_revisions_are_ordered_by_stage_and_step_and_not_by_letters() -> None:
    names = ["step0", "step1", "step512", "step1000", "step10000", "step143000"]
    olmo = ["stage1-step9000-tokens1B", "stage1-step140000-tokens9B", "stage2-ingredient1-step500-tokens1B"]
    olmo += ["stage2-ingredient2-step100-tokens1B"]
    for expected in (names, olmo):
        mixed = expected[:]
        random.Random(3).shuffle(mixed)
        assert in_order(mixed, mixed) == expected


def test_without_a_step_in_every_name_the_given_order_stands() -> None:
    given = ["step20", "base", "step10"]
    assert in_order(given, given) == given


def test_some_of_many_are_evenly_spread_with_both_ends() -> None:
    assert spread(range(154), 4) == [0, 51, 102, 153]
    assert spread(range(3), 5) == [0, 1, 2]
    assert spread(range(9), 1) == [8]
