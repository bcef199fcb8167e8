"""Cutting a plan into batches: every task once and in order, one size of Gram matrix each, in bounded memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.small_checkpoint import write_small

from llmtrap.audit import AuditSettings, RunOptions, make_plan
from llmtrap.audit.executors import choose
from llmtrap.audit.executors.batches import HELD_BYTES, MOST_TOGETHER, batches, fair_share, spans_of
from llmtrap.audit.executors.choose import choose_executor
from llmtrap.audit.executors.local import LocalExecutor
from llmtrap.audit.executors.serial import SerialExecutor
from llmtrap.audit.executors.worker import WorkerSpec
from llmtrap.audit.plan import Task
from llmtrap.checkpoint import open_checkpoint


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return make_plan(open_checkpoint(str(write_small(tmp_path_factory.mktemp("one") / "m", 1))), AuditSettings()).tasks[
        0
    ]


def shaped(task: Task, *shapes: tuple[int, int]) -> list[Task]:
    return [replace(task, key=f"{k}", matrix=replace(task.matrix, shape=shape)) for k, shape in enumerate(shapes)]


SIDES = st.sampled_from([32, 2880, 5760, 11520, 201_088])


@given(shapes=st.lists(st.tuples(SIDES, SIDES), max_size=40), most=st.integers(1, 20))
def test_every_task_once_in_order_and_within_the_limits(task: Task, shapes: list[tuple[int, int]], most: int) -> None:
    tasks = shaped(task, *shapes)
    cut = list(batches(tasks, most))

    assert [task for batch in cut for task in batch] == tasks
    for batch in cut:
        assert 1 <= len(batch) <= most
        assert len({min(task.matrix.shape) for task in batch}) == 1
        held = sum(4 * n * m + 8 * min(n, m) ** 2 for n, m in (task.matrix.shape for task in batch))
        assert held <= HELD_BYTES or len(batch) == 1


@pytest.mark.parametrize(
    ("shape", "together"),
    [((512, 2880), 16), ((5760, 2880), 8), ((7168, 2048), 11), ((4096, 4096), 5), ((201_088, 2880), 1)],
)
def test_how_many_of_a_shape_go_together(task: Task, shape: tuple[int, int], together: int) -> None:
    cut = list(batches(shaped(task, *[shape, shape[::-1]] * 16), MOST_TOGETHER))
    assert len(cut[0]) == together


def test_workers_end_together() -> None:
    assert fair_share(16, 1000, 1) == 16
    assert fair_share(16, 1658, 8) == 16
    assert fair_share(16, 40, 2) == 5
    assert fair_share(16, 1, 8) == 1
    assert fair_share(1, 1000, 2) == 1


def test_what_batches_read_is_named_in_order(small: Path) -> None:
    tasks = make_plan(open_checkpoint(str(small)), AuditSettings()).tasks
    assert spans_of(batches(tasks, 3)) == tuple(span for task in tasks for span in task.matrix.spans())


@pytest.mark.parametrize(
    ("devices", "settings", "together"),
    [
        (1, AuditSettings(device="cuda"), MOST_TOGETHER),
        (2, AuditSettings(), MOST_TOGETHER),
        (1, AuditSettings(device="cuda:0"), MOST_TOGETHER),
        (1, AuditSettings(alpha=False), 1),
        (1, AuditSettings(device="cpu"), 1),
        (1, AuditSettings(backend="numpy"), 1),
        (0, AuditSettings(), 1),
        (0, AuditSettings(backend="torch", device="cpu"), 1),
    ],
)
def test_only_devices_are_given_batches(
    small: Path, monkeypatch: pytest.MonkeyPatch, devices: int, settings: AuditSettings, together: int
) -> None:
    monkeypatch.setattr(choose, "cuda_device_count", lambda: devices)
    spec = WorkerSpec(open_checkpoint(str(small)).source, settings.analysis(), settings.backend, settings.device)
    for options in (RunOptions(workers=1), RunOptions(workers=1, isolated=True)):
        executor = choose_executor(spec, options)
        assert isinstance(executor, LocalExecutor | SerialExecutor)
        assert executor.most == together
