"""Three checkpoints of one network, one a phase, that ship with the package; and the three as one to audit."""

from __future__ import annotations

import importlib.resources
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmtrap.errors import OutputError
from llmtrap.report.write import write_whole

DEMO_PHASES = ("pre-grok", "grok", "anti-grok")
DEMO_FILE = "model.safetensors"


def grokking_demo_checkpoints() -> tuple[Traversable, ...]:
    """The folders of the three checkpoints, in the order of the phases; each has a `model.safetensors`."""
    folder = importlib.resources.files("llmtrap.calibrate").joinpath("grokking")
    return tuple(folder.joinpath(phase) for phase in DEMO_PHASES)


def write_grokking_demo(folder: Path) -> str:
    """Write the three checkpoints as one, every tensor under the name of its phase, and say what they are.

    Args:
        folder: gets `model.safetensors`, 1.2 MB in F16: three matrices and three biases a phase.

    Returns:
        One line: the accuracies of each phase.

    Raises:
        OutputError: the folder cannot be written.
    """
    from safetensors import safe_open
    from safetensors.numpy import save

    tensors: dict[str, NDArray[np.float16]] = {}
    metadata: dict[str, str] = {}
    told: list[str] = []
    for phase, place in zip(DEMO_PHASES, grokking_demo_checkpoints(), strict=True):
        with (
            importlib.resources.as_file(place.joinpath(DEMO_FILE)) as file,
            safe_open(file, framework="np") as stored,
        ):
            words = stored.metadata() or {}
            tensors |= {f"{phase}.{name}": stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        metadata |= {f"{phase}.{key}": value for key, value in words.items() if key != "format"}
        train, test = float(words["train_accuracy"]), float(words["test_accuracy"])
        told.append(f"{phase} train {train:.2f} test {test:.2f}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be made: {error}", file=str(folder)) from error
    write_whole(folder / DEMO_FILE, save(tensors, metadata), within=folder)
    return ", ".join(told)
