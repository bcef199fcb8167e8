"""What was planted where: the answer sheet of a made checkpoint, beside its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from llmtrap.documents import DocumentError, read_document
from llmtrap.errors import CheckpointError

Cause = Literal["entry", "mean_shift", "heavy_tail"]

MANIFEST_NAME = "planted_traps.json"


@dataclass(frozen=True)
class PlantedTrap:
    """One trap, in the numbers that are on disk after rounding.

    `row` and `column` are those of the stored matrix or expert slice, from 0, and only an `entry` has them. `value` is
    the entry itself, the mean of a `mean_shift`, or the size of the many equal entries of a `heavy_tail`; `sigmas` is
    that (for an entry less the mean) in standard deviations of the bulk.
    """

    matrix: str
    tensor: str
    expert: int | None
    cause: Cause
    row: int | None
    column: int | None
    value: float
    sigmas: float


@dataclass(frozen=True)
class DemoManifest:
    """All planted traps of a checkpoint, and the seed that made it."""

    seed: int
    traps: tuple[PlantedTrap, ...]

    def write(self, folder: Path) -> Path:
        """Write the manifest into the checkpoint's folder and return its path."""
        path = folder / MANIFEST_NAME
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: Path) -> DemoManifest:
        """Read the manifest of a checkpoint's folder.

        Raises:
            CheckpointError: it is no regular file, or no such manifest.
        """
        path = folder / MANIFEST_NAME
        try:
            return _MANIFEST.validate_json(read_document(path, _LIMIT_BYTES, "answer sheet", follow=False))
        except DocumentError as error:
            raise CheckpointError(error.problem, file=str(path), remedy=error.remedy) from error
        except ValidationError:
            problem = "this is no answer sheet of a demo"
            raise CheckpointError(problem, file=str(path), remedy="Remove the folder: it is made anew") from None


_MANIFEST = TypeAdapter(DemoManifest)
_LIMIT_BYTES = 1 << 20
