"""GGUF files (llama.cpp): the header read by this project's own code, within limits, and believed after every check.

Magic, version, number of tensors, number of keys; the keys with typed values; for each tensor its name, its dimensions
(fastest first), its type and its offset; then the data, aligned. Nothing is allocated for a count before the bytes for
it are known to be there.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from llmtrap.checkpoint.containers.base import DAMAGED, MAX_TENSORS, Container, OpenFile
from llmtrap.checkpoint.containers.gguf.types import TYPES, UNREAD, BlockType
from llmtrap.checkpoint.containers.stream import ByteStream
from llmtrap.checkpoint.disguises import disguise
from llmtrap.checkpoint.names import MAX_NAME, printable
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.checkpoint.tensors import FileContents, TensorEntry
from llmtrap.errors import CheckpointError, UnsupportedError

MAGIC = b"GGUF"
MAX_HEADER = 100_000_000
MAX_KEYS = 100_000
MAX_DIMENSIONS = 4
MAX_NESTED = 4
_KEPT_TEXT = 4096  # longer text (a chat template) is passed over
_SIZES = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _ARRAY = 8, 9
_NO_MODELS = {
    "adapter": (
        "an adapter (LoRA), which says nothing without its base model",
        "Give the adapter as PEFT saved it, or merge it into its base (llama-export-lora) and give the result",
    ),
    "imatrix": ("statistics of activations (an importance matrix), no weights", "Give the model's own file"),
    "controlvector": ("a control vector, no weights", "Give the model's own file"),
}
_WRONG = "The file is not valid GGUF: convert the model again with llama.cpp"


class Gguf(Container):
    """Files of llama.cpp."""

    name = "GGUF"
    suffixes = (".gguf",)

    def recognises(self, head: bytes) -> bool:
        """Whether the file begins with GGUF."""
        return head.startswith(MAGIC)

    def read(self, file: OpenFile) -> FileContents:
        """Read keys and tensors; the values that are kept are numbers and short text."""
        if not self.recognises(file.head[:4].tobytes()):
            known = disguise(file.head, file.name)
            raise known or CheckpointError("this is no GGUF file", file=file.name, remedy=DAMAGED)
        with file.turn:
            return _Header(file).read()


class _Header:
    def __init__(self, file: OpenFile):
        self._file = file
        self._stream = ByteStream(file, 4, min(file.size, MAX_HEADER), "the header")

    def read(self) -> FileContents:
        version = self._number("<I")
        if version >> 16 and version & 0xFFFF == 0:
            raise UnsupportedError("a big-endian GGUF file", file=self._file.name, remedy="Convert it to little-endian")
        if version not in (2, 3):
            raise UnsupportedError(f"GGUF of version {version}", file=self._file.name, remedy=_WRONG)
        tensors, keys = self._number("<Q"), self._number("<Q")
        # 24 bytes are the least that a tensor takes, 13 a key.
        if tensors > MAX_TENSORS or keys > MAX_KEYS or 24 * tensors + 13 * keys > self._stream.left:
            raise self._wrong(f"the header claims {tensors} tensors and {keys} keys")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._name("a key")
            if key in metadata:
                raise self._wrong(f"the key {printable(key)} is there twice")
            metadata[key] = self._value(self._number("<I"))
        self._refuse_others(metadata)
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment % 8:
            raise self._wrong("general.alignment is no multiple of 8")
        entries = [self._tensor() for _ in range(tensors)]
        start = -(-self._stream.position // alignment) * alignment
        return FileContents(self._placed(entries, start, alignment), metadata)

    def _refuse_others(self, metadata: dict[str, Any]) -> None:
        """Say what a file is that holds no model."""
        kind = metadata.get("general.type")
        if metadata.get("general.architecture") == "controlvector":
            kind = "controlvector"
        if isinstance(kind, str) and kind in _NO_MODELS:
            what, remedy = _NO_MODELS[kind]
            raise UnsupportedError(f"this GGUF file holds {what}", file=self._file.name, remedy=remedy)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._stream.read(struct.calcsize(form)))[0]

    def _name(self, what: str) -> str:
        length = self._number("<Q")
        if length > MAX_NAME:
            raise self._wrong(f"{what} has a name of {length} bytes")
        try:
            return self._stream.read(length).decode()
        except UnicodeDecodeError as error:
            raise self._wrong(f"{what} has a name that is not valid UTF-8") from error

    def _value(self, kind: int, depth: int = 0) -> Any:
        """A number or short text; None for what is passed over: arrays, and text of any length."""
        if kind in _SIZES:
            return self._number(_SIZES[kind])
        if kind == _TEXT:
            length = self._number("<Q")
            if length <= _KEPT_TEXT:
                return self._stream.read(length).decode(errors="replace")
            self._stream.skip(length)
            return None
        if kind != _ARRAY or depth >= MAX_NESTED:
            raise self._wrong(f"a value of type {kind}" if kind != _ARRAY else "arrays nested too deep")
        kind, count = self._number("<I"), self._number("<Q")
        if kind in _SIZES:
            self._stream.skip(count * struct.calcsize(_SIZES[kind]))
        elif 8 * count > self._stream.left:
            raise self._wrong(f"an array of {count} values, and {self._stream.left} bytes are left")
        elif kind == _TEXT:
            self._stream.skip_counted(count)
        else:
            for _ in range(count):
                self._value(kind, depth + 1)
        return None

    def _tensor(self) -> tuple[str, tuple[int, ...], BlockType, int]:
        """Name, shape (fastest dimension last), type and offset."""
        name = self._name("a tensor")
        dimensions = self._number("<I")
        if dimensions > MAX_DIMENSIONS:
            raise self._wrong(f"{dimensions} dimensions", name)
        shape = tuple(reversed([self._number("<Q") for _ in range(dimensions)]))
        number, offset = self._number("<I"), self._number("<Q")
        if number not in TYPES:
            unread = UNREAD.get(number, f"number {number}")
            remedy = "Audit the checkpoint it was made from, or convert it to a type that llmtrap reads"
            raise UnsupportedError(
                f"the GGUF type {unread} is not read", file=self._file.name, tensor=printable(name), remedy=remedy
            )
        kind = TYPES[number]
        if math.prod(shape) >= 1 << 48 or (shape and shape[-1] % kind.entries):
            raise self._wrong(f"a shape {list(shape)} in blocks of {kind.entries}", name)
        if not shape and kind.entries > 1:
            raise self._wrong("a block type without dimensions", name)
        return name, shape, kind, offset

    def _placed(
        self, tensors: list[tuple[str, tuple[int, ...], BlockType, int]], start: int, alignment: int
    ) -> tuple[TensorEntry, ...]:
        """The entries, once each lies where the one before it ends, as llama.cpp demands."""
        entries: dict[str, TensorEntry] = {}
        end = 0
        for name, shape, kind, offset in sorted(tensors, key=lambda tensor: tensor[3]):
            size = math.prod(shape) // kind.entries * kind.size
            if name in entries:
                raise self._wrong("the name is there twice", name)
            if offset != end:
                raise self._wrong(f"its data start at {offset} of the data, expected {end}", name)
            if start + offset + size > self._file.size:
                problem = f"its data end at byte {start + offset + size}, and the file has {self._file.size}"
                raise CheckpointError(problem, file=self._file.name, tensor=printable(name), remedy=DAMAGED)
            span = ByteRange(self._file.name, start + offset, start + offset + size)
            entries[name] = TensorEntry(name, kind.name, shape, span)
            end = -(-(offset + size) // alignment) * alignment
        return tuple(entries.values())

    def _wrong(self, problem: str, tensor: str | None = None) -> CheckpointError:
        shown = None if tensor is None else printable(tensor)
        return CheckpointError(problem, file=self._file.name, tensor=shown, remedy=_WRONG)
