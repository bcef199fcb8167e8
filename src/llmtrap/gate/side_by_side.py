"""Two versions of a matrix too large to keep, read once: each is measured, and the change, as the blocks pass by."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmtrap.audit.measure import BLOCK_ENTRIES
from llmtrap.checkpoint import Source, WeightMatrix
from llmtrap.errors import AccessError, LlmtrapError
from llmtrap.gate.update import UpdatePass
from llmtrap.spectra.single_pass import FirstPass


@dataclass(frozen=True)
class Passed:
    """What one reading of both sides gave. A side that the journal knows has no pass; `error` is the base's."""

    now: FirstPass | None = None
    base: FirstPass | None = None
    update: UpdatePass | None = None
    error: LlmtrapError | None = None


def read_side_by_side(
    matrix: WeightMatrix, base: WeightMatrix, source: Source, base_source: Source, passed: Passed
) -> Passed:
    """Hand the blocks of both to the passes, top to bottom.

    Args:
        matrix: the target's.
        base: the base's, of the same shape.
        source: of the target.
        base_source: of the base.
        passed: what takes the blocks.

    Returns:
        The same, or with what is wrong with the base: the target is read to its end then without it.

    Raises:
        LlmtrapError: the target's matrix cannot be read, or the base's source cannot be reached.
    """
    theirs = base.blocks(base_source, BLOCK_ENTRIES)
    error: LlmtrapError | None = None
    for now in matrix.blocks(source, BLOCK_ENTRIES):
        if passed.now is not None:
            passed.now.add(now)
        if error is not None:
            continue
        try:
            was = next(theirs)
            if passed.update is not None:
                passed.update.add(now, was)
            if passed.base is not None:
                passed.base.add(was)
        except AccessError:
            raise
        except LlmtrapError as wrong:
            error = wrong
    return passed if error is None else replace(passed, error=error)
