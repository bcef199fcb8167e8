"""One run on disk: its recipe, its checkpoints, its measures, and the state that it carries on from after a kill."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtrap.calibrate.recipe import Recipe
from llmtrap.calibrate.run_files import read_measure, read_object, read_tensors, read_whole_lines
from llmtrap.errors import OutputError, UsageError
from llmtrap.report.write import make_folder, write_whole
from llmtrap.systems.files import open_file

if TYPE_CHECKING:
    from torch import Tensor

    from llmtrap.calibrate.data import TaskData
    from llmtrap.calibrate.measurement import Measurement

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
_STEP = re.compile(r"\d{9,15}", re.ASCII)


class RunFolder:
    """The folder of one run.

        recipe.json              what is trained, and on which data; a folder of another recipe is refused
        steps/000000100.safetensors   weights after 100 steps
        measures.jsonl           one line a measured checkpoint
        state.safetensors        the latest optimiser and generator state

    Every file but the lines is written beside and renamed, so a kill leaves the old one or the new one.
    """

    def __init__(self, path: Path):
        self.path = path
        self._steps = path / "steps"
        self._measures = path / "measures.jsonl"
        self.state_file = path / "state.safetensors"

    def claim(self, recipe: Recipe, seed: int, data: TaskData) -> None:
        """Make the folder, or check that it belongs to this run.

        Raises:
            UsageError: it holds a run of another recipe, seed or data set.
            OutputError: it cannot be written.
        """
        key = {"digest": recipe.digest(), "seed": seed, "data": data.fingerprint}
        file = self.path / "recipe.json"
        if os.path.lexists(file):
            held = read_object(file)
            if {name: held.get(name) for name in key} != key:
                raise UsageError(
                    "holds a run of another recipe, seed or data set",
                    file=str(self.path),
                    remedy="Give another --out, or remove the folder",
                )
        make_folder(self._steps, within=self.path.parent.parent)
        words = json.dumps(key | {"source": data.source, "recipe": asdict(recipe)}, indent=1)
        write_whole(file, words.encode(), within=self.path)

    def recipe_words(self) -> dict[str, Any]:
        """What `claim` wrote.

        Raises:
            CheckpointError: it is damaged.
        """
        return read_object(self.path / "recipe.json")

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def save_weights(self, step: int, weights: Mapping[str, Tensor], seconds: float) -> None:
        """Write the weights after `step` steps, with the CPU seconds that they took."""
        _save(self.weights_file(step), weights, {"step": str(step), "seconds": f"{seconds:.3f}"})

    def seconds_at(self, step: int) -> float:
        """CPU seconds of training that the weights after `step` steps took; 0 where they do not say.

        Raises:
            CheckpointError: the file is damaged.
        """
        try:
            seconds = float(read_tensors(self.weights_file(step))[1].get("seconds", "0"))
        except ValueError:
            return 0.0
        return seconds if math.isfinite(seconds) else 0.0

    def weights_file(self, step: int) -> Path:
        """Where the weights after `step` steps are."""
        return self._steps / f"{step:09d}.safetensors"

    def load_weights(self, step: int) -> dict[str, Tensor]:
        """The weights after `step` steps, by name.

        Raises:
            CheckpointError: they are not there, or damaged.
        """
        return read_tensors(self.weights_file(step))[0]

    def saved_steps(self) -> tuple[int, ...]:
        """Steps whose weights are here; other files are no steps."""
        names = (file.stem for file in self._steps.glob("*.safetensors"))
        return tuple(sorted(int(name) for name in names if _STEP.fullmatch(name)))

    # -- state ---------------------------------------------------------------------------------------------------

    def save_state(self, state: Mapping[str, Tensor]) -> None:
        """Write all that the run needs to carry on."""
        _save(self.state_file, state, {})

    def load_state(self) -> dict[str, Tensor] | None:
        """What `save_state` wrote last, or None at the start.

        Raises:
            CheckpointError: it is damaged.
        """
        return read_tensors(self.state_file)[0] if os.path.lexists(self.state_file) else None

    # -- measures ------------------------------------------------------------------------------------------------

    def append_measure(self, measured: Measurement) -> None:
        """Add one measured checkpoint, flushed to disk before this returns."""
        try:
            with os.fdopen(open_file(self._measures, _APPEND, follow=False), "w", encoding="utf-8") as stream:
                stream.write(json.dumps(measured.model_dump(mode="json"), allow_nan=False) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise OutputError(f"cannot be written: {error}", file=str(self._measures)) from error

    def measures(self) -> tuple[Measurement, ...]:
        """The measured checkpoints by step, each once.

        A last line without its end is what a kill leaves: it is cut off, so that the next one starts on its own line.

        Raises:
            CheckpointError: another line is damaged.
        """
        if not os.path.lexists(self._measures):
            return ()
        whole, cut_short = read_whole_lines(self._measures)
        if cut_short:
            write_whole(self._measures, whole, within=self.path)
        rows = [read_measure(row, number, self._measures) for number, row in enumerate(whole.splitlines(), start=1)]
        found = {measured.step: measured for measured in rows}
        return tuple(found[step] for step in sorted(found))


def _save(file: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save

    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata or None)
    write_whole(file, content, within=file.parent)
