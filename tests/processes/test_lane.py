"""A lane's worker begins once, works on one task after another, tells on its way, and is replaced when it has died."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from llmtrap.processes.lane import Done, Lane, WorkerDeath, stop_lanes
from llmtrap.processes.serving import tell
from llmtrap.processes.worker import wait_for_answers


def nothing() -> None:
    """What a worker begins with here."""


def told_twice(word: str) -> None:
    tell(f"{word} 1")
    tell(f"{word} 2")


def die(code: int) -> None:
    os._exit(code)


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def lane(heard: list[str]) -> Iterator[Lane[str]]:
    made: Lane[str] = Lane(nothing, hear=heard.append)
    yield made
    stop_lanes([made])


def outcome(lane: Lane[str]) -> Done | WorkerDeath:
    while True:
        wait_for_answers([lane.worker])
        found = lane.take()
        if found is not None:
            return found


def test_a_result_of_none_is_a_result_and_what_is_told_is_none(lane: Lane[str], heard: list[str]) -> None:
    lane.start("first", told_twice, "a")
    assert outcome(lane) == Done(None)
    assert lane.running == "first"
    assert heard == ["a 1", "a 2"]
    pid = lane.worker.pid
    lane.start("second", os.getpid)
    assert outcome(lane) == Done(pid)


def test_a_death_is_told_with_its_code_and_the_next_task_has_a_new_worker(lane: Lane[str]) -> None:
    lane.start("first", os.getpid)
    found = outcome(lane)
    lane.start("second", die, 7)
    assert outcome(lane) == WorkerDeath(7)
    lane.start("third", os.getpid)
    assert isinstance(again := outcome(lane), Done)
    assert found != again


def test_a_worker_that_cannot_begin_says_so() -> None:
    made: Lane[str] = Lane(_ends_at_once)
    made.start("first", os.getpid)
    assert outcome(made) == WorkerDeath(9, begun=False)


def _ends_at_once() -> None:
    os._exit(9)


def test_what_the_work_raises_is_raised(lane: Lane[str]) -> None:
    lane.start("first", int, "no number")
    with pytest.raises(ValueError, match="no number"):
        outcome(lane)
