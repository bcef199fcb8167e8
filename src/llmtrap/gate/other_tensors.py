"""Tensors that are no weight matrices (norms, biases, buffers): compared with the base's, all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrap.audit.other_tensors import FLOATS, values_of
from llmtrap.checkpoint import Checkpoint, Source, TensorEntry
from llmtrap.checkpoint.adapter_tensors import unwrapped
from llmtrap.errors import LlmtrapError
from llmtrap.gate.document import OutsideTensor
from llmtrap.gate.unchanged import equal_tensors
from llmtrap.report.formatting import printable


def outside_tensors(checkpoint: Checkpoint) -> dict[str, TensorEntry]:
    """The tensors of a checkpoint that no weight matrix is read from, by name without what wrappers put into it.

    A table goes by its canonical id, which does not depend on how the model's library names it.
    What an adapter brings along stands in place of the base's tensor of that name.
    """
    # What an adapter replaces has the adapter's tensor as its part, and the base's name.
    replaced = {matrix.tensor for matrix in checkpoint.matrices}
    tables = {matrix.tensor: matrix.id for matrix in checkpoint.tables}
    found: dict[str, TensorEntry] = {}
    for entry in checkpoint.beside:
        if entry.name in tables:
            found[tables[entry.name]] = entry
        elif entry.name not in replaced:
            plain = unwrapped(entry.name).removeprefix("base_model.model.")
            found[entry.name if plain in found and entry not in checkpoint.further else plain] = entry
    return found


def compare_outside(now: Checkpoint, was: Checkpoint | None) -> tuple[OutsideTensor, ...]:
    """Every tensor outside the matrices that is broken, or not the base's own byte for byte.

    Args:
        now: the target.
        was: the base; None looks for broken values alone.
    """
    mine = outside_tensors(now)
    theirs = {} if was is None else outside_tensors(was)
    found = []
    partners = _partners(mine, theirs)
    for name, entry in mine.items():
        other = partners.get(name)
        item = _compared(
            entry, now.source, None if other is None else theirs[other], None if was is None else was.source
        )
        if item is not None:
            found.append(item)
    taken = set(partners.values())
    found += [_described(entry, "missing") for name, entry in theirs.items() if name not in taken]
    return tuple(found)


def _partners(mine: Mapping[str, TensorEntry], theirs: Mapping[str, TensorEntry]) -> dict[str, str]:
    """The base's name of each tensor: the same, or the only one that one of the two names ends in."""
    partners = {name: name for name in mine if name in theirs}
    left = {name for name in theirs if name not in partners}
    by_end: dict[str, list[str]] = {}
    for name in left:
        for end in _ends(name):
            by_end.setdefault(end, []).append(name)
    for name in mine:
        if name in partners or not left:
            continue
        near = by_end.get(name) or [end for end in _ends(name) if end in left]
        if len(near) == 1:
            partners[name] = near[0]
    return partners


def _ends(name: str) -> Iterator[str]:
    """`b.c.d` and `c.d` of `a.b.c.d`: names without what a wrapper put before them."""
    parts = name.split(".")
    for start in range(1, len(parts) - 1):
        yield ".".join(parts[start:])


def _compared(
    entry: TensorEntry, source: Source, other: TensorEntry | None, base: Source | None
) -> OutsideTensor | None:
    """What there is to say of one tensor; None where it is the base's and holds numbers."""
    try:
        values = _sums(entry, source)
        alike = other is not None and (entry.dtype, entry.shape) == (other.dtype, other.shape)
        if other is None or base is None:
            broken = values is not None and values.broken
            return _described(entry, "added", values) if base is not None or broken else None
        if alike and not entry.chunks and not other.chunks and equal_tensors(entry, source, other, base):
            return _described(entry, "same", values) if values is not None and values.broken else None
        if entry.shape != other.shape:
            return _described(entry, "reshaped", values)
        if values is None or (was := _sums(other, base)) is None:
            return _described(entry, "changed")
        change = _change(entry, source, other, base)
        if change == 0 and not values.broken:
            return None  # another type of number, and the same values
        return _described(entry, "changed", values, was, change)
    except LlmtrapError as error:
        return _described(entry, "unreadable").model_copy(update={"error": printable(error.message, 300)})


@dataclass
class _Sums:
    nan: int = 0
    inf: int = 0
    squares: float = 0.0

    @property
    def broken(self) -> bool:
        return self.nan + self.inf > 0


def _sums(entry: TensorEntry, source: Source) -> _Sums | None:
    """NaN, infinite values and the sum of squares; None for what is no floating-point number."""
    if entry.dtype not in FLOATS or entry.dtype.startswith("C"):
        return None
    sums = _Sums()
    for piece in _pieces(entry, source):
        sums.nan += int(np.isnan(piece).sum())
        sums.inf += int(np.isinf(piece).sum())
        numbers = piece[np.isfinite(piece)]
        sums.squares += float(np.vdot(numbers, numbers))
    return sums


def _change(entry: TensorEntry, source: Source, other: TensorEntry, base: Source) -> float:
    """Sum of squares of the differences."""
    total = 0.0
    for now, was in zip(_pieces(entry, source), _pieces(other, base), strict=True):
        with np.errstate(invalid="ignore", over="ignore"):
            difference = now - was
        difference = difference[np.isfinite(difference)]
        total += float(np.vdot(difference, difference))
    return total


def _pieces(entry: TensorEntry, source: Source) -> Iterator[NDArray[np.float64]]:
    for values in values_of(entry, source):
        with np.errstate(invalid="ignore"):
            yield values.astype(np.float64)


def _described(
    entry: TensorEntry, change: str, values: _Sums | None = None, was: _Sums | None = None, moved: float | None = None
) -> OutsideTensor:
    scale = relative = None
    if values is not None and was is not None and moved is not None and was.squares > 0:
        scale, relative = math.sqrt(values.squares / was.squares), math.sqrt(moved / was.squares)
    return OutsideTensor(
        tensor=printable(entry.name), dtype=entry.dtype, shape=entry.shape, change=change,
        nan=0 if values is None else values.nan, inf=0 if values is None else values.inf, scale=scale,
        relative=relative,
    )  # fmt: skip
