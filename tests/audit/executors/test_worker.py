"""What a worker measures together: each matrix gets its own result, error and time, as if it had been alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
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
from llmtrap.spectra.backends import Array, ArrayApiBackend

SHAPE = (150, 120)
DOUBLE = {"deficient", "f64"}


@pytest.fixture(autouse=True)
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let single precision begin at a side that a test can afford."""
    monkeypatch.setattr(esd, "DOUBLE_UP_TO", 100)


def write(folder: Path) -> Path:
    """Matrices of one size: whole, broken, out of range, and such that need double precision."""
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


def numbers(outcome: Outcome) -> Any:
    """Everything but the times: floats apart, since a stack may be solved in another order."""
    if outcome.matrix is None:
        return outcome.error
    document = outcome.matrix.model_dump()
    del document["seconds"]
    return document


def assert_alike(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_alike(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-9)
    else:
        assert found == expected


@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_each_has_what_it_has_alone(tmp_path: Path, backend: str) -> None:
    spec, tasks = opened(write(tmp_path / "m"), backend)
    worker = Worker(spec)
    beside = worker.measure(tasks)
    alone = [worker.measure([task])[0] for task in tasks]
    worker.close()

    assert [outcome.key for outcome in beside] == [task.key for task in tasks]
    for found, expected in zip(beside, alone, strict=True):
        assert_alike(numbers(found), numbers(expected))
    matrices = {task.matrix.id: outcome.matrix for task, outcome in zip(tasks, beside, strict=True)}
    assert {name for name, matrix in matrices.items() if matrix is None} == {"huge"}
    broken = matrices["broken"]
    assert broken is not None and broken.non_finite is not None  # noqa: PT018 - narrows both
    assert (broken.non_finite.nan, broken.non_finite.row, broken.non_finite.column) == (1, 77, 5)
    for name, matrix in matrices.items():
        if matrix is not None and matrix.spectrum is not None:
            assert matrix.spectrum.precision == ("float64" if name in DOUBLE else "float32")


def test_the_time_of_a_shared_call_is_divided_and_no_time_counts_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, tasks = opened(write(tmp_path / "m"))
    tasks = [task for task in tasks if task.matrix.id in ("plain", "trapped", "turned", "broken")]
    real, calls = ArrayApiBackend.eigenvalues_of, list[int]()

    def slow(self: ArrayApiBackend, grams: Sequence[Array]) -> list[NDArray[np.float64]]:
        calls.append(len(grams))
        time.sleep(0.6)
        return real(self, grams)

    worker = Worker(spec)
    worker.measure(tasks)  # what is made once a process
    monkeypatch.setattr(ArrayApiBackend, "eigenvalues_of", slow)
    start = time.perf_counter()
    outcomes = {task.matrix.id: o for task, o in zip(tasks, worker.measure(tasks), strict=True)}
    wall = time.perf_counter() - start
    worker.close()

    assert calls == [3]
    for name, outcome in outcomes.items():
        assert outcome.matrix is not None
        assert (outcome.stages.get("eigenvalues", 0.0) >= 0.2) == (name != "broken")
        assert sum(outcome.stages.values()) == pytest.approx(outcome.matrix.seconds, abs=1e-3)
    assert 0.6 < sum(o.matrix.seconds for o in outcomes.values() if o.matrix is not None) <= wall + 1e-3


def test_what_fails_beside_others_is_measured_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, tasks = opened(write(tmp_path / "m"))
    solved = [task for task in tasks if task.matrix.id in ("plain", "trapped")]
    real = ArrayApiBackend.eigenvalues_of

    def short_of_memory(self: ArrayApiBackend, grams: Sequence[Array]) -> list[NDArray[np.float64]]:
        if len(grams) > 1:
            raise MemoryError
        return real(self, grams)

    worker = Worker(spec)
    expected = worker.measure(tasks)
    monkeypatch.setattr(ArrayApiBackend, "eigenvalues_of", short_of_memory)
    found = worker.measure(tasks)
    monkeypatch.setattr(ArrayApiBackend, "eigenvalues_of", lambda *_: 1 / 0)
    none = worker.measure(solved)
    worker.close()

    for one, other in zip(found, expected, strict=True):
        assert_alike(numbers(one), numbers(other))
    assert [outcome.error for outcome in none] == ["ZeroDivisionError: division by zero"] * 2


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


def test_reading_ahead_reads_every_byte_of_a_batch_once(tmp_path: Path) -> None:
    folder = write_packed(tmp_path / "m")
    source = Recording(folder)
    spec, tasks = opened(folder, source=source)
    spec = replace(spec, analysis=AuditSettings(traps="certify").analysis())
    outcomes = list(SerialExecutor(spec, most=3).run(tasks))

    assert [outcome.error for outcome in outcomes] == [None] * len(tasks)
    assert Counter(source.seen) == Counter(span for task in tasks for span in task.matrix.spans())


def test_a_source_out_of_reach_ends_the_run(tmp_path: Path) -> None:
    folder = write_packed(tmp_path / "m")
    source = Recording(folder)
    spec, tasks = opened(folder, source=source)
    source.reachable = False
    outcomes: Iterator[Outcome] = SerialExecutor(spec, most=3).run(tasks)
    with pytest.raises(AccessError, match="gone"):
        list(outcomes)
