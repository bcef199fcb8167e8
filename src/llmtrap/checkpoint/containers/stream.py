"""A file read from front to back in growing pieces, for headers whose length only parsing them tells."""

from __future__ import annotations

import struct

from llmtrap.checkpoint.containers.base import DAMAGED, OpenFile
from llmtrap.errors import CheckpointError

_COUNT = struct.Struct("<Q")
_FIRST_PIECE = 1 << 16
_LARGEST_PIECE = 1 << 20


class ByteStream:
    """Bytes [start, stop) of a file; never holds more than one piece of them and what is asked for.

    Args:
        file: what is read.
        start: where to begin.
        stop: the first byte that is out of reach: a header's limit, or the end of the file.
        what: what is being read, for errors.
    """

    def __init__(self, file: OpenFile, start: int, stop: int, what: str):
        self._file = file
        self._what = what
        self._stop = min(stop, file.size)
        self._piece = b""
        self._at = 0
        self._next = start
        self._step = _FIRST_PIECE

    @property
    def position(self) -> int:
        """Of the next byte, from the file's start."""
        return self._next - len(self._piece) + self._at

    @property
    def left(self) -> int:
        """Bytes that may still be read."""
        return self._stop - self.position

    def read(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            CheckpointError: the file, or what may be read of it, ends before.
        """
        at = self._at
        if at + count <= len(self._piece):
            self._at = at + count
            return self._piece[at : at + count]
        self._require(count)
        held = self._piece[at:]
        stop = min(self._stop, max(self._next + self._step, self._next + count - len(held)))
        self._piece = held + self._file.read(self._next, stop).tobytes()
        self._next, self._at = stop, count
        self._step = min(2 * self._step, _LARGEST_PIECE)
        return self._piece[:count]

    def line(self, limit: int) -> bytes:
        """Bytes up to a line feed, which is taken and not returned; at most `limit`."""
        found = bytearray()
        while (byte := self.read(1)) != b"\n":
            found += byte
            if len(found) > limit:
                problem = f"{self._what}: a name of over {limit} bytes"
                raise CheckpointError(problem, file=self._file.name, remedy=DAMAGED)
        return bytes(found)

    def skip(self, count: int) -> None:
        """Pass over bytes without reading them."""
        self._require(count)
        if self._at + count <= len(self._piece):
            self._at += count
            return
        self._next = self.position + count
        self._piece, self._at = b"", 0

    def skip_counted(self, count: int) -> None:
        """Pass over so many runs of bytes, each after eight bytes that say how long it is."""
        while count:
            piece, at = self._piece, self._at
            last = len(piece) - 8
            while count and at <= last:
                (length,) = _COUNT.unpack_from(piece, at)
                if length > last - at:
                    break
                at += 8 + length
                count -= 1
            self._at = at
            if count:
                self.skip(_COUNT.unpack(self.read(8))[0])
                count -= 1

    def _require(self, count: int) -> None:
        if count < 0 or count > self.left:
            problem = f"{self._what} claims {count} bytes at byte {self.position}, and {self.left} are left"
            raise CheckpointError(problem, file=self._file.name, remedy=DAMAGED)
