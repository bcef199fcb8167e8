"""The zip archive that torch.save writes: its directory, read from the end of the file and held against each entry.

Two readers of one archive must not see two models, so all is refused in which they could differ: two entries of one
name, entries that overlap, a name or a size that the directory and the entry itself state differently, compression.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

from llmtrap.checkpoint.containers.base import DAMAGED, LARGE, MAX_TENSORS, OpenFile
from llmtrap.checkpoint.names import MAX_NAME, printable
from llmtrap.errors import CheckpointError, UnsafeFileError, UnsupportedError

MAGIC = b"PK\x03\x04"
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
MAX_DIRECTORY = 64 << 20
_AGAIN = "Do not use this file: torch.save writes no such archive"
_READERS = 16
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Member:
    """One entry: where its header begins and its data lie, in bytes from the file's start.

    `size` is that of the data in the file; `stored` says that they are there as they are, uncompressed.
    """

    name: str
    header: int
    size: int
    stored: bool
    start: int = 0

    @property
    def stop(self) -> int:
        """One past its last byte."""
        return self.start + self.size


def read_members(file: OpenFile) -> dict[str, Member]:
    """Every entry of the archive by name, in the order of their places.

    Raises:
        CheckpointError: the archive is cut short or contradicts itself.
        UnsafeFileError: it can be read in two ways.
    """
    start, size, count = _directory_place(file)
    if size > MAX_DIRECTORY or count > MAX_TENSORS + 1000:
        problem = f"an archive of {count} entries, more than any checkpoint has"
        raise CheckpointError(problem, file=file.name, remedy=_AGAIN)
    with file.turn if size > LARGE else nullcontext():
        listed = _parse_directory(file, file.read(start, start + size).tobytes(), count)
    members = sorted(listed, key=lambda member: member.header)
    if len({member.name for member in members}) != len(members):
        raise UnsafeFileError("two entries of the archive have one name", file=file.name, remedy=_AGAIN)
    placed = at_once(lambda member: _placed(file, member), members, file)
    end = 0
    for member in placed:
        if member.header < end or member.stop > start:
            problem = f"the entry {printable(member.name)} overlaps another, or the directory"
            raise UnsafeFileError(problem, file=file.name, remedy=_AGAIN)
        end = member.stop
    return {member.name: member for member in placed}


def at_once(read: Callable[[T], R], items: Sequence[T], file: OpenFile) -> list[R]:
    """Do many small reads of a file, side by side where each takes a trip over the network."""
    if file.source.identity.kind in ("folder", "file"):
        return [read(item) for item in items]
    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(read, items))


def stored(member: Member, file: OpenFile) -> Member:
    """The entry, once it is known to lie in the file as it is."""
    if not member.stored:
        problem = f"the entry {printable(member.name)} is compressed, which torch.save never does"
        raise UnsupportedError(problem, file=file.name, remedy="Load it where you trust it, and save it again")
    return member


def _directory_place(file: OpenFile) -> tuple[int, int, int]:
    """Start, size and number of entries of the central directory, from the record at the file's very end."""
    tail_start = max(0, file.size - _END.size - _LOCATOR.size - _END64.size)
    tail = file.read(tail_start, file.size).tobytes()
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\x05\x06":
        raise CheckpointError("the archive has no directory at its end", file=file.name, remedy=DAMAGED)
    _, disk, of_directory, here, count, size, start, _ = _END.unpack(tail[-_END.size :])
    end = file.size - _END.size
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if len(locator) == _LOCATOR.size and locator[:4] == b"PK\x06\x07":
        _, _, place, _ = _LOCATOR.unpack(locator)
        end -= _LOCATOR.size
        if place + _END64.size > end:
            raise CheckpointError("the archive's directory is out of place", file=file.name, remedy=DAMAGED)
        record = _END64.unpack(file.read(place, place + _END64.size).tobytes())
        if record[0] != b"PK\x06\x06":
            raise CheckpointError("the archive's directory is out of place", file=file.name, remedy=DAMAGED)
        disk, of_directory, here, count, size, start = record[4:]
        end = place
    elif _FULL16 in (here, count) or _FULL32 in (size, start):
        raise CheckpointError("the archive has no directory at its end", file=file.name, remedy=DAMAGED)
    if disk or of_directory or here != count or start + size != end:
        raise CheckpointError("the archive's directory is out of place", file=file.name, remedy=DAMAGED)
    return start, size, count


def _parse_directory(file: OpenFile, data: bytes, count: int) -> list[Member]:
    members, at = [], 0
    for _ in range(count):
        if at + _CENTRAL.size > len(data):
            raise CheckpointError("the archive's directory is cut short", file=file.name, remedy=DAMAGED)
        fields = _CENTRAL.unpack_from(data, at)
        signature, _, _, flags, method, _, _, _, packed, size, name_size, extra_size, note_size = fields[:13]
        header = fields[16]
        at += _CENTRAL.size
        name, extra = data[at : at + name_size], data[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size + note_size
        if signature != b"PK\x01\x02" or at > len(data) or name_size > MAX_NAME:
            raise CheckpointError("the archive's directory is broken", file=file.name, remedy=DAMAGED)
        if flags & 0x41:
            raise UnsupportedError("the archive is encrypted", file=file.name, remedy="Decrypt it first")
        size, packed, header = _widened(extra, size, packed, header, file)
        members.append(Member(name.decode("utf-8", "replace"), header, packed, method == 0 and packed == size))
    return members


def _widened(extra: bytes, size: int, packed: int, header: int, file: OpenFile) -> tuple[int, int, int]:
    """Sizes and place, from the 64-bit field where the 32-bit ones say that they are there."""
    values = [size, packed, header]
    wanted = [k for k, value in enumerate(values) if value == _FULL32]
    at = 0
    while wanted and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            if len(field) < 8 * len(wanted):
                break
            for k, (value,) in zip(wanted, struct.iter_unpack("<Q", field[: 8 * len(wanted)]), strict=True):
                values[k] = value
            return values[0], values[1], values[2]
        at += 4 + length
    if wanted:
        raise CheckpointError("the archive's directory lacks a size", file=file.name, remedy=DAMAGED)
    return size, packed, header


def _placed(file: OpenFile, member: Member) -> Member:
    """The entry with the place of its data, as its own header gives it."""
    name = member.name.encode("utf-8", "replace")
    stop = member.header + _LOCAL.size + len(name)
    head = file.read(member.header, min(stop, file.size)).tobytes()
    if len(head) < _LOCAL.size or head[:4] != MAGIC:
        problem = f"the entry {printable(member.name)} is not where the directory places it"
        raise CheckpointError(problem, file=file.name, remedy=DAMAGED)
    *_, name_size, extra_size = _LOCAL.unpack(head[: _LOCAL.size])
    if name_size != len(name) or head[_LOCAL.size :] != name:
        problem = f"the entry {printable(member.name)} has another name in the directory"
        raise UnsafeFileError(problem, file=file.name, remedy=_AGAIN)
    return Member(member.name, member.header, member.size, member.stored, stop + extra_size)
