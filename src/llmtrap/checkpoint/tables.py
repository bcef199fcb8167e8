"""Tables among the weight matrices: positions, learned tokens and decays, which map no space to another.

What the theory says of weights does not hold of them, so they are named and counted and not measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from llmtrap.checkpoint.matrices import WeightMatrix
from llmtrap.checkpoint.naming import table_of
from llmtrap.checkpoint.tensors import Skipped


def is_table(matrix: WeightMatrix) -> bool:
    """Whether it is a table."""
    return table_of(matrix.role) is not None


def left_out_tables(matrices: Iterable[WeightMatrix]) -> tuple[Skipped, ...]:
    """The tables among matrices as what is left out of an audit: one entry a stored tensor, of the class `table`."""
    left_out: dict[str, Skipped] = {}
    for matrix in matrices:
        what = table_of(matrix.role)
        if what is not None:
            reason = f"{what} ({matrix.role}): it maps no space to another"
            known = left_out.get(matrix.tensor, Skipped(matrix.tensor, reason, "table"))
            parameters, size = known.parameters + matrix.size, known.bytes + bytes_of(matrix)
            left_out[matrix.tensor] = replace(known, parameters=parameters, bytes=size)
    return tuple(left_out.values())


def bytes_of(matrix: WeightMatrix) -> int:
    """The stored bytes that are this matrix's."""
    return matrix.share_of(matrix.stored.stored_bytes)
