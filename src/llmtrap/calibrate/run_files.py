"""The files of a run's folder, read back: regular ones only, no link followed, bounded, and each of its own kind.

A folder given with `--out`, or found under `llmtrap-reports`, may hold what somebody else put there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from llmtrap.calibrate.measurement import Measurement
from llmtrap.documents import DocumentError, read_document
from llmtrap.errors import CheckpointError
from llmtrap.printable import printable

if TYPE_CHECKING:
    from torch import Tensor

_MOST_RECIPE = 1 << 20
_MOST_MEASURES = 64 << 20
# The largest network here has 1.2 million weights, and a state three times as many numbers.
_MOST_TENSORS = 1 << 30
_AGAIN = "Remove it and run again"


def read_object(file: Path) -> dict[str, Any]:
    """A small JSON object.

    Raises:
        CheckpointError: it is no regular file, too large, or no object.
    """
    try:
        document = json.loads(_content(file, _MOST_RECIPE, "recipe"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot be read: {_short(error)}", file=str(file), remedy=_AGAIN) from error
    if not isinstance(document, dict):
        raise CheckpointError("is not an object", file=str(file), remedy=_AGAIN)
    return document


def read_whole_lines(file: Path) -> tuple[bytes, bool]:
    """The lines of a file that have their end, and whether there was one without, which is what a kill leaves.

    Raises:
        CheckpointError: it is no regular file, or too large.
    """
    content = _content(file, _MOST_MEASURES, "list of measures")
    whole = content[: content.rfind(b"\n") + 1]
    return whole, whole != content


def read_measure(line: bytes, number: int, file: Path) -> Measurement:
    """One measured checkpoint.

    Raises:
        CheckpointError: the line holds something else.
    """
    try:
        return Measurement.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        words = printable(f"{where}: {first['msg']}" if where else first["msg"], 200)
        raise CheckpointError(f"line {number} is damaged: {words}", file=str(file), remedy=_AGAIN) from None


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and the texts of its header.

    Raises:
        CheckpointError: it is no regular file, too large, or no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = _content(file, _MOST_TENSORS, "checkpoint")
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot be read: {_short(error)}", file=str(file), remedy=_AGAIN) from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return tensors, header.get("__metadata__") or {}


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    """Hold tensors against others of the same network.

    Raises:
        CheckpointError: one is missing, is more, or has another shape or type.
    """
    for name in expected.keys() | found.keys():
        mine, wanted = found.get(name), expected.get(name)
        if mine is None or wanted is None or mine.shape != wanted.shape or mine.dtype != wanted.dtype:
            problem = "not one of this run's network" if wanted is None else "missing, or of another shape or type"
            raise CheckpointError(problem, file=str(file), tensor=printable(name, 200), remedy=_AGAIN)


def _content(file: Path, limit: int, what: str) -> bytes:
    try:
        return read_document(file, limit, what, follow=False)
    except DocumentError as error:
        raise CheckpointError(error.problem, file=str(file), remedy=error.remedy or _AGAIN) from error


def _short(error: Exception) -> str:
    return printable(str(error), 200)
