"""A run's folder that a stranger filled: links, FIFOs, and tensors that no run leaves cost one clear line."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from llmtrap.calibrate.data import TaskData
from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.rundir import RunFolder
from llmtrap.calibrate.settings import PlannedRun
from llmtrap.calibrate.training import train
from llmtrap.calibrate.workers import follow
from llmtrap.errors import CheckpointError

FIFO, LINK = "FIFO", "link"


@pytest.mark.parametrize("kind", [FIFO, LINK])
@pytest.mark.parametrize("name", ["recipe.json", "measures.jsonl", "state.safetensors", "steps/000000000.safetensors"])
def test_nothing_but_regular_files_is_read_of_a_run(
    tiny: Recipe, digits: TaskData, tmp_path: Path, folder: Path, name: str, kind: str
) -> None:
    RunFolder(folder).claim(tiny, 0, digits)
    (folder / name).unlink(missing_ok=True)
    if kind == FIFO:
        os.mkfifo(folder / name)
    else:
        (tmp_path / "elsewhere").write_text("{}")
        (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"regular file|not followed"):
        follow(PlannedRun(tiny, 0, folder, None, "cpu"), lambda _: None)


@pytest.mark.parametrize(
    "changed",
    [
        {"step": torch.tensor(-(2**40))},
        {"step": torch.tensor([1, 2])},
        {"seconds": torch.tensor(math.nan, dtype=torch.float64)},
        {"batches.order": torch.zeros(1000, dtype=torch.int64)},
        {"batches.position": torch.tensor(10**6)},
        {"batches.generator": torch.full((5056,), 255, dtype=torch.uint8)},
        {"weights/fc1.weight": torch.zeros(60, 63)},
        {"second/fc1.bias": None},
        {"extra/shrunk": torch.zeros(2, dtype=torch.float64)},
        {"more": torch.zeros(1)},
    ],
    ids=lambda it: next(iter(it)),
)
def test_a_state_that_no_run_leaves_is_refused(
    tiny: Recipe, digits: TaskData, folder: Path, changed: dict[str, torch.Tensor | None]
) -> None:
    run = RunFolder(folder)
    run.claim(tiny, 0, digits)
    next(iter(train(tiny, 0, digits, run)))
    state = run.load_state()
    assert state is not None
    run.save_state({name: tensor for name, tensor in (state | changed).items() if tensor is not None})
    with pytest.raises(CheckpointError, match=r"state\.safetensors.*Remove it and run again"):
        next(iter(train(tiny, 0, digits, run)))


def test_weights_of_another_network_are_not_measured(tiny: Recipe, digits: TaskData, folder: Path) -> None:
    run = RunFolder(folder)
    run.claim(tiny, 0, digits)
    run.save_weights(0, {"fc1.weight": torch.zeros(2, 2)}, 0.0)
    (folder / "steps" / "notes.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"000000000\.safetensors.*missing, or of another shape"):
        follow(PlannedRun(tiny, 0, folder, None, "cpu"), lambda _: None)
