"""One run on disk: its recipe, its checkpoints, its measures, and the state that it carries on from after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtrap.calibrate.recipe import Recipe
from llmtrap.errors import CheckpointError, OutputError, UsageError
from llmtrap.report.write import make_folder, write_whole
from llmtrap.systems.files import open_file

if TYPE_CHECKING:
    from torch import Tensor

    from llmtrap.calibrate.data import TaskData

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


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
        self._state = path / "state.safetensors"

    def claim(self, recipe: Recipe, seed: int, data: TaskData) -> None:
        """Make the folder, or check that it belongs to this run.

        Raises:
            UsageError: it holds a run of another recipe, seed or data set.
            OutputError: it cannot be written.
        """
        key = {"digest": recipe.digest(), "seed": seed, "data": data.fingerprint}
        file = self.path / "recipe.json"
        if file.exists():
            held = self._read_json(file)
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
        """What `claim` wrote."""
        return self._read_json(self.path / "recipe.json")

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def save_weights(self, step: int, weights: Mapping[str, Tensor], seconds: float) -> None:
        """Write the weights after `step` steps, with the CPU seconds that they took."""
        _save(self.weights_file(step), weights, {"step": str(step), "seconds": f"{seconds:.3f}"})

    def seconds_at(self, step: int) -> float:
        """CPU seconds of training that the weights after `step` steps took."""
        from safetensors import safe_open

        with safe_open(self.weights_file(step), framework="pt") as stored:
            return float((stored.metadata() or {}).get("seconds", "0"))

    def weights_file(self, step: int) -> Path:
        """Where the weights after `step` steps are."""
        return self._steps / f"{step:09d}.safetensors"

    def load_weights(self, step: int) -> dict[str, Tensor]:
        """The weights after `step` steps, by name."""
        return _load(self.weights_file(step))

    def saved_steps(self) -> tuple[int, ...]:
        """Steps whose weights are here."""
        return tuple(sorted(int(file.stem) for file in self._steps.glob("*.safetensors")))

    # -- state ---------------------------------------------------------------------------------------------------

    def save_state(self, state: Mapping[str, Tensor]) -> None:
        """Write all that the run needs to carry on."""
        _save(self._state, state, {})

    def load_state(self) -> dict[str, Tensor] | None:
        """What `save_state` wrote last, or None at the start."""
        return _load(self._state) if self._state.exists() else None

    # -- measures ------------------------------------------------------------------------------------------------

    def append_measure(self, line: Mapping[str, Any]) -> None:
        """Add one measured checkpoint, flushed to disk before this returns."""
        try:
            with os.fdopen(open_file(self._measures, _APPEND, follow=False), "w", encoding="utf-8") as stream:
                stream.write(json.dumps(line, allow_nan=False) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise OutputError(f"cannot be written: {error}", file=str(self._measures)) from error

    def measures(self) -> tuple[dict[str, Any], ...]:
        """The measured checkpoints by step, each once.

        A last line without its end is what a kill leaves: it is cut off, so that the next one starts on its own line.

        Raises:
            CheckpointError: another line is damaged.
        """
        if not self._measures.exists():
            return ()
        text = self._measures.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            write_whole(self._measures, whole, within=self.path)
        lines: dict[int, dict[str, Any]] = {}
        for number, row in enumerate(whole.decode().splitlines(), start=1):
            try:
                line = json.loads(row)
                lines[int(line["step"])] = line
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(
                    f"line {number} is damaged: {error}", file=str(self._measures), remedy="Remove it and run again"
                ) from error
        return tuple(lines[step] for step in sorted(lines))

    def _read_json(self, file: Path) -> dict[str, Any]:
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot be read: {error}", file=str(file)) from error
        if not isinstance(document, dict):
            raise CheckpointError("is not an object", file=str(file))
        return document


def _save(file: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save

    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata or None)
    write_whole(file, content, within=file.parent)


def _load(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read: {error}", file=str(file), remedy="Remove it and run again") from error
