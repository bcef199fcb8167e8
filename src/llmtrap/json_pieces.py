"""A large JSON object taken apart as it is read: its members, and the items of chosen lists, as bytes.

Nothing is built of what is only passed over, so a document takes the memory of its largest piece and of what its reader
keeps. Whether a piece is sound JSON is for its reader to find out; here only strings and brackets are told apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

Path = tuple[str, ...]
"""The names that lead to a member: ("coverage", "skipped")."""

_READ = 1 << 20
_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRING = re.compile(_STRING_TEXT, re.DOTALL)
_STRUCTURE = re.compile(_STRING_TEXT + rb'|["\[\]{}]', re.DOTALL)
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]*+")
_KEY = re.compile(rb'"([ !#-\[\]-~]*)"')


def _nested(levels: int) -> bytes:
    """A pattern of a whole object or list with so many levels of brackets; possessive, so that it takes one pass."""
    inner = b"|" + _nested(levels - 1) if levels > 1 else b""
    return rb'[\[{](?:[^"\[\]{}]++|' + _STRING_TEXT + inner + rb")*+[\]}]"


# Three times as quick as bracket by bracket; documents of this project have fewer levels in a piece.
_SHALLOW = re.compile(_nested(8), re.DOTALL)


class PiecesError(ValueError):
    """The bytes are no JSON object."""


class CutShortError(PiecesError):
    """The object does not end; `size` bytes were there."""

    def __init__(self, size: int):
        super().__init__("cut short")
        self.size = size


class TooLargeError(PiecesError):
    """A member, or an item of a list, is larger than allowed."""

    def __init__(self, where: Path):
        super().__init__("too large")
        self.where = where


class RepeatedError(PiecesError):
    """A member is given twice."""

    def __init__(self, where: Path):
        super().__init__("given twice")
        self.where = where


def pieces(stream: BinaryIO, lists: frozenset[Path], largest: int) -> Iterator[tuple[Path, bool, bytes]]:
    """The members of the JSON object that a stream holds.

    Args:
        stream: read once, from where it stands to its end.
        lists: members that come item by item where they are lists; objects that lead to one come member by member.
        largest: bytes of one piece at most.

    Yields:
        The path of a member, whether the piece is an item of it, and its bytes. Of a list that comes by items, and of
        an object that comes by members, `[]` or `{}` comes first.

    Raises:
        PiecesError: this is no object, ends early, or has a piece that is too large or a member given twice.
    """
    reader = _Reader(stream, largest)
    opened = frozenset(path[:length] for path in lists for length in range(len(path)))
    if reader.peek() != b"{":
        raise PiecesError("no object")
    yield from _members(reader, (), opened, lists)
    if reader.peek(at_end=True):
        raise PiecesError("something follows the object")


def _members(
    reader: _Reader, path: Path, opened: frozenset[Path], lists: frozenset[Path]
) -> Iterator[tuple[Path, bool, bytes]]:
    reader.skip(b"{")
    seen: set[str] = set()
    if reader.peek() == b"}":
        reader.skip(b"}")
        return
    while True:
        key = reader.key()
        here = (*path, key)
        if key in seen:
            raise RepeatedError(here)
        seen.add(key)
        if len(seen) > 1000:
            raise TooLargeError(path)
        reader.skip(b":")
        first = reader.peek()
        if here in opened and first == b"{":
            yield here, False, b"{}"
            yield from _members(reader, here, opened, lists)
        elif here in lists and first == b"[":
            yield here, False, b"[]"
            yield from _items(reader, here)
        else:
            yield here, False, reader.value(here)
        if reader.one_of(b",", b"}") == b"}":
            return


def _items(reader: _Reader, path: Path) -> Iterator[tuple[Path, bool, bytes]]:
    reader.skip(b"[")
    if reader.peek() == b"]":
        reader.skip(b"]")
        return
    while True:
        yield path, True, reader.value(path)
        if reader.one_of(b",", b"]") == b"]":
            return


class _Reader:
    """Looks at a stream through a window that grows no larger than one piece and one read."""

    def __init__(self, stream: BinaryIO, largest: int):
        self._stream = stream
        self._largest = largest
        self._window = b""
        self._at = 0
        self._before = 0  # bytes that have left the window
        self._ended = False

    def peek(self, *, at_end: bool = False) -> bytes:
        """The next byte that is no space; none at the end of the stream, where that is looked for."""
        while True:
            found = _SPACE.match(self._window, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._window):
                return self._window[self._at : self._at + 1]
            if not self._more():
                if at_end:
                    return b""
                raise CutShortError(self._size)

    def skip(self, expected: bytes) -> None:
        """Pass one byte that must be this one."""
        if self.peek() != expected:
            raise PiecesError(f"no {expected.decode()}")
        self._at += 1

    def one_of(self, *expected: bytes) -> bytes:
        """Pass one byte that must be one of these."""
        found = self.peek()
        if found not in expected:
            raise PiecesError("neither the next nor the end")
        self._at += 1
        return found

    def key(self) -> str:
        """A member's name, in plain ASCII as all names of this project's documents are."""
        if self.peek() != b'"':
            raise PiecesError("no name of a member")
        text = self.value(())
        found = _KEY.fullmatch(text)
        return found[1].decode() if found else text.decode("ascii", "backslashreplace")

    def value(self, where: Path) -> bytes:
        """The bytes of the next value, whole."""
        first = self.peek()
        if first == b'"':
            return self._take(self._string_end(where), where)
        if first in b"[{":
            return self._take(self._bracket_end(where), where)
        return self._take(self._scalar_end(where), where)

    def _string_end(self, where: Path) -> int:
        while True:
            found = _STRING.match(self._window, self._at)
            if found:
                return found.end()
            self._need_more(where)

    def _scalar_end(self, where: Path) -> int:
        while True:
            found = _SCALAR.match(self._window, self._at)
            end = found.end() if found else self._at
            if end < len(self._window):
                if end == self._at:
                    raise PiecesError("no value")
                return end
            self._need_more(where)

    def _bracket_end(self, where: Path) -> int:
        if (whole := _SHALLOW.match(self._window, self._at)) is not None:
            return whole.end()
        depth, done = 0, self._at  # it goes on beyond the window, or has more levels
        while True:
            for found in _STRUCTURE.finditer(self._window, done):
                token = found[0]
                if token in (b"{", b"["):
                    depth += 1
                elif token in (b"}", b"]"):
                    depth -= 1
                    if depth == 0:
                        return found.end()
                elif len(token) == 1:  # a string that goes on beyond the window
                    break
                done = found.end()
            done -= self._at
            self._need_more(where)
            done += self._at

    def _take(self, end: int, where: Path) -> bytes:
        if end - self._at > self._largest:
            raise TooLargeError(where)
        taken, self._at = self._window[self._at : end], end
        return taken

    def _need_more(self, where: Path) -> None:
        if len(self._window) - self._at > self._largest:
            raise TooLargeError(where)
        if not self._more():
            raise CutShortError(self._size)

    def _more(self) -> bool:
        if self._ended:
            return False
        read = self._stream.read(_READ)
        self._ended = not read
        self._before += self._at
        self._window, self._at = self._window[self._at :] + read, 0
        return bool(read)

    @property
    def _size(self) -> int:
        return self._before + len(self._window)
