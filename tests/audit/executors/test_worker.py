"""What a worker gives of a task: its matrix or its error, its own time, and nothing read twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tests.support.packed_checkpoint import write_packed
from tests.support.planting import noise, with_entries

from llmtrap.audit import AuditSettings, make_plan
from llmtrap.audit.executors.base import Outcome
from llmtrap.audit.executors.serial import SerialExecutor
from llmtrap.audit.executors.worker import Worker, WorkerSpec
from llmtrap.audit.plan import Task
from llmtrap.checkpoint import LocalSource, open_checkpoint
from llmtrap.checkpoint.sources.base import ByteRange, Bytes
from llmtrap.errors import AccessError
from llmtrap.spectra import esd
from llmtrap.spectra.backends import ArrayApiBackend

SHAPE = (150, 120)
DOUBLE = {"deficient", "f64"}


@pytest.fixture(autouse=True)
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let single precision begin at a side that a test can afford."""
    monkeypatch.setattr(esd, "DOUBLE_UP_TO", 100)


def write(folder: Path) -> Path:
    """Matrices that are whole, broken, out of range, and such that need double precision."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    broken = noise(rng, SHAPE)
    broken[77, 5] = np.nan
    tensors: dict[str, NDArray[np.generic]] = {
        "plain.weight": noise(rng, SHAPE),
        "broken.weight": broken,
        "trapped.weight": with_entries(noise(rng, SHAPE), [(7, 8)], [3.0]),
        "huge.weight": noise(rng, SHAPE).astype(np.float64) * 1e160,
        "deficient.weight": noise(rng, (150, 30)) @ noise(rng, (30, 120)),
        "turned.weight": noise(rng, (SHAPE[1], 200)),
        "f64.weight": noise(rng, SHAPE).astype(np.float64),
    }
    save_file(tensors, folder / "model.safetensors")
    return folder


def opened(folder: Path, backend: str = "torch", source: Any = None) -> tuple[WorkerSpec, list[Task]]:
    checkpoint = open_checkpoint(str(folder))
    settings = AuditSettings(shuffles=2, backend=backend, device="cpu")
    spec = WorkerSpec(source or checkpoint.source, settings.analysis(), backend, "cpu")
    return spec, list(make_plan(checkpoint, settings).tasks)


@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_every_task_has_an_outcome(tmp_path: Path, backend: str) -> None:
    spec, tasks = opened(write(tmp_path / "m"), backend)
    worker = Worker(spec)
    outcomes = {task.matrix.id: worker.measure(task) for task in tasks}
    worker.close()

    assert [outcome.key for outcome in outcomes.values()] == [task.key for task in tasks]
    assert [name for name, outcome in outcomes.items() if outcome.matrix is None] == ["huge"]
    assert "leave the range of float64" in f"{outcomes['huge'].error}"
    broken = outcomes["broken"].matrix
    assert broken is not None and broken.non_finite is not None  # noqa: PT018 - narrows both
    assert (broken.non_finite.nan, broken.non_finite.row, broken.non_finite.column) == (1, 77, 5)
    for name, outcome in outcomes.items():
        if outcome.matrix is not None and outcome.matrix.spectrum is not None:
            assert outcome.matrix.spectrum.precision == ("float64" if name in DOUBLE else "float32")


def test_stages_add_up_to_the_seconds_of_a_matrix(tmp_path: Path) -> None:
    spec, tasks = opened(write(tmp_path / "m"))
    worker = Worker(spec)
    outcomes = [worker.measure(task) for task in tasks]
    worker.close()

    for outcome in outcomes:
        if outcome.matrix is not None:
            assert sum(outcome.stages.values()) == pytest.approx(outcome.matrix.seconds, abs=1e-3)
            assert ("eigenvalues" in outcome.stages) == (outcome.matrix.spectrum is not None)


@pytest.mark.parametrize(
    ("failure", "error"),
    [(MemoryError(), "out of memory"), (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero")],
)
def test_what_a_library_raises_is_the_error_of_that_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, error: str
) -> None:
    spec, tasks = opened(write(tmp_path / "m"))

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(ArrayApiBackend, "eigenvalues", fail)
    worker = Worker(spec)
    assert worker.measure(next(task for task in tasks if task.matrix.id == "plain")).error == error
    worker.close()


class Recording(LocalSource):
    """Keeps what was read; may be out of reach."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.seen: list[ByteRange] = []
        self.reachable = True

    def read(self, span: ByteRange) -> Bytes:
        if not self.reachable:
            raise AccessError("gone", remedy="Wait")
        self.seen.append(span)
        return super().read(span)


def test_reading_ahead_reads_every_byte_once(tmp_path: Path) -> None:
    folder = write_packed(tmp_path / "m")
    source = Recording(folder)
    spec, tasks = opened(folder, source=source)
    spec = replace(spec, analysis=AuditSettings(traps="certify").analysis())
    outcomes = list(SerialExecutor(spec).run(tasks))

    assert [outcome.error for outcome in outcomes] == [None] * len(tasks)
    assert Counter(source.seen) == Counter(span for task in tasks for span in task.matrix.spans())


def test_a_source_out_of_reach_ends_the_run(tmp_path: Path) -> None:
    folder = write_packed(tmp_path / "m")
    source = Recording(folder)
    spec, tasks = opened(folder, source=source)
    source.reachable = False
    outcomes: Iterator[Outcome] = SerialExecutor(spec).run(tasks)
    with pytest.raises(AccessError, match="gone"):
        list(outcomes)
