"""The safetensors header: read from its bytes by this project's own code, and believed only after every check.

The format (https://github.com/huggingface/safetensors) is 8 bytes of little-endian header length, a JSON header of at
most 100 MB, then the data. Each tensor has a dtype, a shape, and offsets relative to the data; together the tensors
cover the data exactly, without a hole or an overlap.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

from llmtrap.checkpoint.containers.base import DAMAGED, LARGE, Container, OpenFile
from llmtrap.checkpoint.disguises import disguised_weights
from llmtrap.checkpoint.names import MAX_NAME, encodable, printable
from llmtrap.checkpoint.sources.base import ByteRange, FileEntry
from llmtrap.checkpoint.strict_json import read_object
from llmtrap.checkpoint.tensors import FileContents, TensorEntry
from llmtrap.errors import CheckpointError

MAX_HEADER = 100_000_000
MAX_DIMENSIONS = 32

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Size of one element in bits, by the name a header gives the dtype."""

_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
_LARGEST = (1 << 63) - 1
_WRONG = "The file is not a valid safetensors file: save it again with the safetensors library"


class Safetensors(Container):
    """Files of the safetensors library."""

    name = "safetensors"
    suffixes = (".safetensors",)

    def recognises(self, head: bytes) -> bool:
        """Whether these are a length and the brace that opens a header."""
        return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER

    def read(self, file: OpenFile) -> FileContents:
        """Read the header: small ones are fetched side by side, a large one alone, and each is parsed alone."""
        length = _header_length(file)
        with file.turn if length > LARGE else nullcontext():
            header = file.read(8, 8 + length)
            with nullcontext() if length > LARGE else file.turn:
                fields = read_object(header, file=file.name, what="header")
                tensors = tuple(parse_header(fields, file.entry, data_start=8 + length))
        metadata = fields.get("__metadata__")
        return FileContents(tensors, metadata if isinstance(metadata, dict) else {})


def _header_length(file: OpenFile) -> int:
    """What the file's first bytes claim, once it is known to be possible."""
    head = file.head
    if file.size < 8:
        raise CheckpointError(f"{file.size} bytes are too few for a header", file=file.name, remedy=DAMAGED)
    length = int.from_bytes(head[:8].tobytes(), "little")
    impossible = 8 + length > min(file.size, MAX_HEADER) or head[8:9].tobytes() != b"{"
    if impossible and (error := disguised_weights(head, file.name)) is not None:
        raise error
    if length > MAX_HEADER:
        problem = f"the header claims {length} bytes, over the format's limit of {MAX_HEADER}"
        raise CheckpointError(problem, file=file.name, remedy=_WRONG)
    if 8 + length > file.size:
        problem = f"the header claims {length} bytes, and the file has {file.size} in all"
        raise CheckpointError(problem, file=file.name, remedy=DAMAGED)
    return length


def parse_header(header: dict[str, Any], file: FileEntry, data_start: int) -> list[TensorEntry]:
    """Check a parsed header against the file's size and turn it into entries, in the order of their bytes.

    Args:
        header: tensor name → dtype, shape and data offsets, and optionally `__metadata__`.
        file: the file it came from.
        data_start: where the data begin, in bytes from the file's start.
    """
    header = {name: fields for name, fields in header.items() if name != "__metadata__"}
    entries = [_entry(name, fields, file.name, data_start) for name, fields in header.items()]
    entries.sort(key=lambda entry: (entry.span.start, entry.span.stop))
    end = data_start
    for entry in entries:
        if entry.span.start != end:
            kind = "overlaps the one before it" if entry.span.start < end else "leaves a hole before it"
            problem = f"its data {kind} (starts at byte {entry.span.start}, expected {end})"
            raise CheckpointError(problem, file=file.name, tensor=printable(entry.name), remedy=_WRONG)
        end = entry.span.stop
    if end > file.size:
        cut = next(entry for entry in entries if entry.span.stop > file.size)
        problem = f"its data end at byte {cut.span.stop}, and the file has {file.size} (the last tensor ends at {end})"
        raise CheckpointError(problem, file=file.name, tensor=printable(cut.name), remedy=DAMAGED)
    if end < file.size:
        problem = f"{file.size - end} bytes after the last tensor belong to none"
        raise CheckpointError(problem, file=file.name, remedy=_WRONG)
    return entries


def _entry(name: str, fields: Any, file: str, data_start: int) -> TensorEntry:
    def wrong(problem: str) -> CheckpointError:
        return CheckpointError(problem, file=file, tensor=printable(name), remedy=_WRONG)

    if len(name) > MAX_NAME:
        raise wrong(f"its name is longer than the {MAX_NAME} characters that llmtrap reads")
    if not encodable(name):
        raise wrong("its name is not valid Unicode")
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        raise wrong("its header entry is not dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise wrong(f"its dtype {printable(str(dtype))} is not one that safetensors has")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
        raise wrong(f"its shape is not a list of at most {MAX_DIMENSIONS} sizes")
    if not _naturals(offsets) or len(offsets) != 2:
        raise wrong("its data_offsets are not two positions in the file")
    start, stop = offsets
    bits = math.prod(shape) * BITS[dtype]
    if bits != (stop - start) * 8:
        raise wrong(f"its shape {list(shape)} of {dtype} takes {-(-bits // 8)} bytes, and its offsets {stop - start}")
    return TensorEntry(name, dtype, tuple(shape), ByteRange(file, data_start + start, data_start + stop))


def _naturals(value: Any) -> bool:
    """Whether this is a list of integers that fit 63 bits: a JSON true is an int to Python, and is refused."""
    if type(value) is not list:
        return False
    for item in value:  # noqa: SIM110 - a generator takes three times as long, and a header has 10⁵ of these
        if type(item) is not int or not 0 <= item <= _LARGEST:
            return False
    return True
