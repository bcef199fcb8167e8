"""Read a trajectory that was written before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import ValidationError

from llmtrap.checkpoint.strict_json import memory_of
from llmtrap.documents import DocumentError, read_document
from llmtrap.errors import TargetError
from llmtrap.printable import printable
from llmtrap.trajectory.document import Trajectory

# A hundred points of 2,000 matrices that all change have some 250 MB.
LIMIT_BYTES = 512 << 20
MOST_MEMORY = 4 << 30
_REMEDY = "Give a file that `llmtrap trajectory --json` or `llmtrap watch` wrote"


def read_trajectory(path: Path, *, follow: bool = True) -> Trajectory:
    """Read a file that `llmtrap trajectory --json` or `llmtrap watch` wrote.

    Args:
        path: the file.
        follow: whether a link is followed: only where the user named the file.

    Raises:
        TargetError: there is no such file, or it is no trajectory.
    """
    try:
        content = read_document(path, LIMIT_BYTES, "trajectory", follow=follow)
    except DocumentError as error:
        raise TargetError(error.problem, file=str(path), remedy=error.remedy) from error
    if memory_of(np.frombuffer(content, np.uint8)) > MOST_MEMORY:
        raise TargetError("it would take more memory than any trajectory", file=str(path), remedy=_REMEDY)
    try:
        return Trajectory.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "its whole"
        problem = f"this is no trajectory of llmtrap: {printable(where, 200)}: {printable(first['msg'], 200)}"
        raise TargetError(problem, file=str(path), remedy=_REMEDY) from None
