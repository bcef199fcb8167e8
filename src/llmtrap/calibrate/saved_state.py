"""What a run carries on from, as the tensors of one file: the optimiser's state, the batches', and where it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.run_files import check_tensors
from llmtrap.calibrate.steppers import OptimiserState
from llmtrap.errors import CheckpointError

_PARTS = ("weights", "first", "second")


def as_tensors(state: OptimiserState, step: int, seconds: float) -> dict[str, Tensor]:
    """A stepper's state after `step` updates and so many CPU seconds, to be saved."""
    flat = {f"{part}/{name}": it for part in (*_PARTS, "extra") for name, it in getattr(state, part).items()}
    return flat | {
        "updates": torch.tensor(state.updates),
        "step": torch.tensor(step),
        "seconds": torch.tensor(seconds, dtype=torch.float64),
    }


def optimiser_state(saved: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> OptimiserState:
    """The state as a stepper takes it; parameters in the order of `like`."""
    weights, first, second = ({name: saved[f"{part}/{name}"] for name in like} for part in _PARTS)
    extra = {name.removeprefix("extra/"): it for name, it in saved.items() if name.startswith("extra/")}
    return OptimiserState(weights, first, second, int(saved["updates"]), extra)


def check_saved(
    saved: Mapping[str, Tensor], recipe: Recipe, like: Mapping[str, Tensor], count: int, file: Path
) -> None:
    """Hold what was read against what this run would have saved.

    Args:
        saved: the tensors of the file.
        recipe: what is trained.
        like: the network's parameters at the start.
        count: training examples.
        file: where it was read.

    Raises:
        CheckpointError: a tensor is missing, is more, has another shape or type, or a value that no run comes to.
    """
    expected = {f"{part}/{name}": it for part in _PARTS for name, it in like.items()}
    expected |= {
        "updates": torch.tensor(0),
        "step": torch.tensor(0),
        "seconds": torch.tensor(0.0, dtype=torch.float64),
        "batches.generator": torch.Generator().get_state(),
        "batches.order": torch.arange(count),
        "batches.position": torch.tensor(0),
    }
    if "extra/live" in saved or "extra/shrunk" in saved:
        expected["extra/live"] = torch.zeros(recipe.widths[1] if recipe.widths else 0, dtype=torch.uint8)
        expected["extra/shrunk"] = torch.tensor(0.0, dtype=torch.float64)
    check_tensors(saved, expected, file)
    if not _is_possible(saved, count):
        raise CheckpointError("not a state of this run", file=str(file), remedy="Remove it and run again")


def _is_possible(saved: Mapping[str, Tensor], count: int) -> bool:
    """Whether a run of so many examples can have come to these values."""
    try:
        torch.Generator().set_state(saved["batches.generator"])
    except RuntimeError:
        return False
    counters = min(int(saved["step"]), int(saved["updates"])) >= 0 and 0 <= int(saved["batches.position"]) <= count
    order = bool((saved["batches.order"].sort().values == torch.arange(count)).all())
    return counters and order and math.isfinite(float(saved["seconds"]))
