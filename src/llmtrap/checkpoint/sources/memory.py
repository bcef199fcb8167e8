"""Tensors in memory as a source: one file, `memory`, in which they lie one after the other.

No second copy of the weights is made: in this process a range is lent where it lies, and a worker process is sent the
ranges that it asks for, block by block, over the pipe by which it gets its work. Threads would read the same memory,
but SciPy's symmetric update holds the interpreter's lock, so that they would wait for one another, and a training loop
beside them too.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from llmtrap.checkpoint.memory.arrays import MemoryTensor
from llmtrap.checkpoint.sources.base import ByteRange, Bytes, FileEntry, SourceIdentity
from llmtrap.errors import CheckpointError, UnsupportedError
from llmtrap.processes.serving import ask, asks_a_parent

FILE = "memory"

_numbers = itertools.count()
_living: WeakValueDictionary[int, MemorySource] = WeakValueDictionary()


class MemorySource:
    """The bytes of tensors that are in memory, in the order given; tensors of one storage lie there once.

    A pickled copy, in a worker, asks this process for what it reads. The weights must not change while they are read.

    Args:
        tensors: the tensors.
        name: what they are called in reports.
    """

    def __init__(self, tensors: Sequence[MemoryTensor], name: str):
        self._identity = SourceIdentity(name, "memory")
        self._tensors: list[MemoryTensor] = []
        self._starts: list[int] = []
        self.spans: dict[str, ByteRange] = {}
        known: dict[object, ByteRange] = {}
        end = 0
        for tensor in tensors:
            span = None if tensor.storage is None else known.get(tensor.storage)
            if span is None:
                span = ByteRange(FILE, end, end + tensor.nbytes)
                if tensor.storage is not None:
                    known[tensor.storage] = span
                if tensor.nbytes:
                    self._tensors.append(tensor)
                    self._starts.append(end)
                    end += tensor.nbytes
            self.spans[tensor.name] = span
        self._size = end
        self._number = next(_numbers)
        _living[self._number] = self

    def __reduce__(self) -> tuple[Any, ...]:
        """What a worker gets: no weights, but where to ask for them."""
        return ParentsMemory, (self._number, self._identity, self._size)

    @property
    def identity(self) -> SourceIdentity:
        """The name given; kind `memory`."""
        return self._identity

    def files(self) -> tuple[FileEntry, ...]:
        """The one file."""
        return (FileEntry(FILE, self._size),)

    def read(self, span: ByteRange) -> Bytes:
        """A copy of these bytes."""
        out = np.empty(span.size, np.uint8)
        self.read_into(span, out)
        return out

    @contextmanager
    def open(self, span: ByteRange) -> Iterator[Bytes]:
        """Lend these bytes, where they lie if they lie in one piece."""
        pieces = list(self._pieces(span))
        data = pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.uint8), *pieces])
        view = data.view()
        view.flags.writeable = False
        yield view

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        """Put these bytes into the caller's array."""
        done = 0
        for piece in self._pieces(span):
            out[done : done + piece.size] = piece
            done += piece.size

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """They are here."""

    def close(self) -> None:
        """The tensors are their owner's."""

    def _pieces(self, span: ByteRange) -> Iterator[Bytes]:
        """The bytes of a range, one tensor after the other."""
        if span.file != FILE or not 0 <= span.start <= span.stop <= self._size:
            raise CheckpointError(f"there are no bytes {span.start} to {span.stop} of {span.file}", file=FILE)
        start = span.start
        k = bisect_right(self._starts, start) - 1
        while start < span.stop:
            tensor, begin = self._tensors[k], self._starts[k]
            stop = min(span.stop, begin + tensor.nbytes)
            yield _bytes(tensor, start - begin, stop - begin)
            start, k = stop, k + 1


class ParentsMemory:
    """The source of a worker whose parent has the tensors: every range is asked for.

    Args:
        number: of the parent's source.
        identity: its identity.
        size: its bytes.
    """

    def __init__(self, number: int, identity: SourceIdentity, size: int):
        self._number, self._identity, self._size = number, identity, size

    @property
    def identity(self) -> SourceIdentity:
        """That of the parent's source."""
        return self._identity

    def files(self) -> tuple[FileEntry, ...]:
        """The one file."""
        return (FileEntry(FILE, self._size),)

    def read(self, span: ByteRange) -> Bytes:
        """These bytes, of the parent's memory.

        Raises:
            UnsupportedError: this process was not started by the one that has them.
        """
        out = np.empty(span.size, np.uint8)
        self.read_into(span, out)
        return out

    @contextmanager
    def open(self, span: ByteRange) -> Iterator[Bytes]:
        """The same."""
        yield self.read(span)

    def read_into(self, span: ByteRange, out: Bytes) -> None:
        """Put these bytes into the caller's array."""
        if not asks_a_parent():
            raise UnsupportedError(
                "weights in memory are measured on the machine that holds them", file=FILE,
                remedy="Save the model and audit the files, or leave --engine out",
            )  # fmt: skip
        if span.size:
            ask((self._number, span), out)

    def prefetch(self, spans: Iterable[ByteRange]) -> None:
        """They come when they are asked for."""

    def close(self) -> None:
        """The parent's to close."""


def bytes_for_worker(request: tuple[int, ByteRange]) -> Bytes:
    """What a worker's `ParentsMemory` asks for.

    Raises:
        CheckpointError: the source is gone.
    """
    number, span = request
    source = _living.get(number)
    if source is None:
        raise CheckpointError("the weights are no longer in memory", file=FILE)
    with source.open(span) as data:
        return data


def _bytes(tensor: MemoryTensor, start: int, stop: int) -> Bytes:
    """Bytes [start, stop) of a tensor's elements in order; a copy only of what does not lie in that order."""
    shape = tensor.shape or (1,)
    inner = tensor.nbytes // shape[0]
    first, last = start // inner, -(-stop // inner)
    return _within(tensor.leading(first, last), start - first * inner, stop - first * inner)


def _within(array: NDArray[np.generic], start: int, stop: int) -> Bytes:
    if array.flags.c_contiguous:
        return array.reshape(-1).view(np.uint8)[start:stop]
    inner = array.nbytes // len(array)
    first, last = start // inner, -(-stop // inner)
    if last - first == 1 and array.ndim > 1:
        # Of a slice of a stack no more is gathered than is asked for.
        return _within(array[first], start - first * inner, stop - first * inner)
    gathered = np.ascontiguousarray(array[first:last]).reshape(-1).view(np.uint8)
    return gathered[start - first * inner : stop - first * inner]
