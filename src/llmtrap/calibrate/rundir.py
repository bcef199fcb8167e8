"""One run on disk: its recipe, its checkpoints, its measures, and the state that it carries on from after a kill.

A folder given with `--out`, or found under `llmtrap-reports`, may hold what somebody else put there: regular files only
are read, no link is followed, each is bounded in size, and each must be of its own kind.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from llmtrap.calibrate.recipe import Recipe
from llmtrap.documents import DocumentError, read_document
from llmtrap.errors import CheckpointError, OutputError, UsageError
from llmtrap.printable import printable
from llmtrap.report.write import make_folder, write_whole
from llmtrap.systems.files import open_file

if TYPE_CHECKING:
    from torch import Tensor

    from llmtrap.calibrate.data import TaskData
    from llmtrap.calibrate.measurement import Measurement

AGAIN = "Remove it and run again"
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
_STEP = re.compile(r"\d{9,15}", re.ASCII)
_MOST_RECIPE = 1 << 20
_MOST_MEASURES = 64 << 20
# The largest network here has 1.2 million weights, and a state three times as many numbers.
_MOST_TENSORS = 1 << 30
_Document = TypeVar("_Document", bound=BaseModel)


class _Claim(BaseModel):
    """Whose folder it is; runs made otherwise, as in tests, say their data alone."""

    digest: str | None = None
    seed: int | None = None
    data: str | None = None
    source: str = "unknown"
    recipe: dict[str, Any] = {}


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
        self._claim, self._measures = path / "recipe.json", path / "measures.jsonl"
        self.state_file = path / "state.safetensors"

    def claim(self, recipe: Recipe, seed: int, data: TaskData) -> None:
        """Make the folder, or check that it belongs to this run.

        Raises:
            UsageError: it holds a run of another recipe, seed or data set.
            OutputError: it cannot be written.
        """
        key = (recipe.digest(), seed, data.fingerprint)
        if os.path.lexists(self._claim):
            held = self._held()
            if (held.digest, held.seed, held.data) != key:
                raise UsageError(
                    "holds a run of another recipe, seed or data set",
                    file=str(self.path),
                    remedy="Give another --out, or remove the folder",
                )
        make_folder(self._steps, within=self.path.parent.parent)
        claim = _Claim(digest=key[0], seed=seed, data=key[2], source=data.source, recipe=asdict(recipe))
        write_whole(self._claim, claim.model_dump_json(indent=1).encode(), within=self.path)

    def _held(self) -> _Claim:
        return _validated(_Claim, _content(self._claim, _MOST_RECIPE, "recipe"), self._claim, "cannot be read")

    @property
    def source(self) -> str:
        """The data, in words, as `claim` wrote them.

        Raises:
            CheckpointError: they are damaged.
        """
        return self._held().source

    # -- checkpoints and state -----------------------------------------------------------------------------------

    def save_weights(self, step: int, weights: Mapping[str, Tensor], seconds: float) -> None:
        """Write the weights after `step` steps, with the CPU seconds that they took."""
        _save(self.weights_file(step), weights, {"step": str(step), "seconds": f"{seconds:.3f}"})

    def seconds_at(self, step: int) -> float:
        """CPU seconds of training that the weights after `step` steps took; 0 where they do not say.

        Raises:
            CheckpointError: the file is damaged.
        """
        try:
            seconds = float(_tensors(self.weights_file(step))[1].get("seconds", "0"))
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
        return _tensors(self.weights_file(step))[0]

    def saved_steps(self) -> tuple[int, ...]:
        """Steps whose weights are here; other files are no steps."""
        names = (file.stem for file in self._steps.glob("*.safetensors"))
        return tuple(sorted(int(name) for name in names if _STEP.fullmatch(name)))

    def save_state(self, state: Mapping[str, Tensor]) -> None:
        """Write all that the run needs to carry on."""
        _save(self.state_file, state, {})

    def load_state(self) -> dict[str, Tensor] | None:
        """What `save_state` wrote last, or None at the start.

        Raises:
            CheckpointError: it is damaged.
        """
        return _tensors(self.state_file)[0] if os.path.lexists(self.state_file) else None

    # -- measures ------------------------------------------------------------------------------------------------

    def append_measure(self, measured: Measurement) -> None:
        """Add one measured checkpoint, flushed to disk before this returns."""
        try:
            with os.fdopen(open_file(self._measures, _APPEND, follow=False), "w", encoding="utf-8") as stream:
                stream.write(measured.model_dump_json() + "\n")
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
        from llmtrap.calibrate.measurement import Measurement

        if not os.path.lexists(self._measures):
            return ()
        content = _content(self._measures, _MOST_MEASURES, "list of measures")
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_whole(self._measures, whole, within=self.path)
        rows = [
            _validated(Measurement, row, self._measures, f"line {number} is damaged")
            for number, row in enumerate(whole.splitlines(), start=1)
        ]
        found = {measured.step: measured for measured in rows}
        return tuple(found[step] for step in sorted(found))


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    """Hold tensors against others of the same network.

    Raises:
        CheckpointError: one is missing, is more, or has another shape or type.
    """
    for name in expected.keys() | found.keys():
        mine, wanted = found.get(name), expected.get(name)
        if mine is None or wanted is None or mine.shape != wanted.shape or mine.dtype != wanted.dtype:
            problem = "not one of this run's network" if wanted is None else "missing, or of another shape or type"
            raise CheckpointError(problem, file=str(file), tensor=printable(name, 200), remedy=AGAIN)


def _save(file: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save

    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata or None)
    write_whole(file, content, within=file.parent)


def _tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and the texts of its header."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = _content(file, _MOST_TENSORS, "checkpoint")
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        problem = f"cannot be read: {printable(str(error), 200)}"
        raise CheckpointError(problem, file=str(file), remedy=AGAIN) from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return tensors, header.get("__metadata__") or {}


def _validated(kind: type[_Document], text: bytes, file: Path, damage: str) -> _Document:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        words = printable(f"{where}: {first['msg']}" if where else first["msg"], 200)
        raise CheckpointError(f"{damage}: {words}", file=str(file), remedy=AGAIN) from None


def _content(file: Path, limit: int, what: str) -> bytes:
    try:
        return read_document(file, limit, what, follow=False)
    except DocumentError as error:
        raise CheckpointError(error.problem, file=str(file), remedy=error.remedy or AGAIN) from error
