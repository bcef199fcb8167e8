"""Tensors beside the weight matrices (norms, biases, what could not be measured): their values are looked through too.

One NaN in a norm breaks a network as surely as one in a matrix, and a norm of zeros switches its layer off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from llmtrap.audit.journal import BesideRecord
from llmtrap.checkpoint import Checkpoint, Skipped, Source
from llmtrap.checkpoint.encodings.plain import DTYPES
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.checkpoint.tensors import Chunk, TensorEntry
from llmtrap.errors import AccessError, LlmtrapError
from llmtrap.report.document import SkippedTensor, TensorFinding

_ENTRIES = 1 << 20  # looked at in one piece
FLOATS: Final[dict[str, np.dtype[np.generic]]] = {
    **DTYPES,
    "C64": np.dtype("<c8"),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
}
_SCALES_A_LAYER = re.compile(r"(.*[._])?(\w*norm\w*|ln_?\w*|norm\d*)\.(weight|gamma|scale)")


@dataclass
class _Values:
    """What is known of one tensor's values so far."""

    nan: int = 0
    inf: int = 0
    first: int | None = None
    all_zero: bool = True
    seen: int = 0

    def add(self, values: NDArray[np.generic]) -> None:
        """Look through the next values, in order."""
        numbers = values.view(np.float32) if values.dtype.kind == "c" else _as_numbers(values)
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(numbers)
            self.all_zero = self.all_zero and not np.any(numbers != 0)
        if not finite.all():
            bad = ~finite
            self.nan += int(np.isnan(numbers).sum())
            self.inf += int(np.isinf(numbers).sum())
            if self.first is None:
                self.first = self.seen + int(np.argmax(bad)) // (numbers.size // values.size)
        self.seen += values.size


def look_beside(checkpoint: Checkpoint, source: Source, skipped: Sequence[Skipped]) -> BesideRecord:
    """Look for NaN, infinities and layers of zeros in every floating-point tensor that is no part of a matrix.

    What was left out on request is not looked at. A tensor that cannot be read counts as unreadable from then on.

    Args:
        checkpoint: the checkpoint, opened.
        source: its bytes.
        skipped: what the plan leaves out.

    Raises:
        AccessError: the source cannot be reached.
    """
    entries = {printable(entry.name): entry for entry in checkpoint.beside}
    wanted = {
        item.tensor: entries[item.tensor]
        for item in skipped
        if item.kind not in ("on_request", "file_not_read")
        and item.tensor in entries
        and entries[item.tensor].dtype in FLOATS
        and entries[item.tensor].size
    }
    spans = [span for entry in wanted.values() for span in entry.spans]
    unread: dict[str, str] = {}
    findings: list[TensorFinding] = []
    if spans:
        try:
            source.prefetch(spans)
        except AccessError:
            raise
        except LlmtrapError:
            pass  # a file that changed fails the tensors that lie in it, when they are read
    for name, entry in wanted.items():
        try:
            values = _look_through(entry, source)
        except AccessError:
            raise
        except LlmtrapError as error:
            unread[name] = error.message
            continue
        if finding := _finding(name, entry, values):
            findings.append(finding)
    left = (
        replace(item, kind="unreadable", reason=f"could not be read: {unread[item.tensor]}")
        if item.tensor in unread
        else item
        for item in skipped
    )
    return BesideRecord(tuple(SkippedTensor(**asdict(item)) for item in left), tuple(findings))


def _look_through(entry: TensorEntry, source: Source) -> _Values:
    found = _Values()
    for values in values_of(entry, source):
        found.add(values)
    return found


def values_of(entry: TensorEntry, source: Source) -> Iterator[NDArray[np.generic]]:
    """The values in order, one-dimensional. Of a tensor in chunks those of one chunk after another."""
    dtype = FLOATS[entry.dtype]
    if entry.chunks:
        for chunk in entry.chunks:
            yield _gathered(chunk, dtype, source)
        return
    step = _ENTRIES * dtype.itemsize
    for start in range(entry.span.start, entry.span.stop, step):
        span = ByteRange(entry.span.file, start, min(start + step, entry.span.stop))
        yield source.read(span).view(dtype)


def _gathered(chunk: Chunk, dtype: np.dtype[np.generic], source: Source) -> NDArray[np.generic]:
    values = source.read(chunk.span).view(dtype)
    strides = tuple(step * dtype.itemsize for step in chunk.strides)
    view = np.lib.stride_tricks.as_strided(values, chunk.shape, strides, writeable=False)
    return np.ascontiguousarray(view).reshape(-1)


def _finding(name: str, entry: TensorEntry, values: _Values) -> TensorFinding | None:
    broken = values.nan + values.inf > 0
    zero = values.all_zero and (len(entry.shape) > 1 or _SCALES_A_LAYER.fullmatch(entry.name.lower()) is not None)
    if not broken and not zero:
        return None
    first = None
    if broken and values.first is not None and not entry.chunks:
        first = tuple(int(place) for place in np.unravel_index(values.first, entry.shape)) if entry.shape else ()
    return TensorFinding(
        tensor=name,
        shape=entry.shape,
        encoding=entry.dtype,
        nan=values.nan,
        inf=values.inf,
        first=first,
        all_zero=not broken,
    )


def _as_numbers(values: NDArray[np.generic]) -> NDArray[np.floating]:
    if values.dtype in (np.float32, np.float64):
        return values  # type: ignore[return-value]
    with np.errstate(invalid="ignore"):
        return values.astype(np.float32)
