"""A pickle read opcode by opcode, and never run: it can name functions, and nothing here ever calls one.

Python's own unpickler is no choice even with every name closed to it: eleven bytes make it take gigabytes, and shared
tuples as keys never end. This loop knows the opcodes that state dicts are written in (protocols 2 to 5), answers the
few calls among them itself (`calls.py`), and refuses all else by name.
"""

from __future__ import annotations

import pickle
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from typing import Any

from llmtrap.checkpoint.containers.pytorch.calls import StateDictCalls
from llmtrap.checkpoint.containers.pytorch.values import Name, Opaque
from llmtrap.checkpoint.containers.stream import ByteStream
from llmtrap.errors import CheckpointError, UnsupportedError

MAX_PICKLE = 64 << 20
MAX_OPCODES = 2_000_000
MAX_MEMO = 1_000_000
_LONG_TEXT = 4096  # no name of a tensor is as long: such text is passed over
_MARK = object()
_BROKEN = "The file is damaged or was not written by PyTorch: save it again with torch.save"

_OPCODES: dict[int, Callable[[PickleReader], None]] = {}
_NAMES = {
    value[0]: name
    for name, value in vars(pickle).items()
    if name.isupper() and isinstance(value, bytes) and len(value) == 1
}


def _opcode(*codes: bytes) -> Callable[[Callable[[PickleReader], None]], Callable[[PickleReader], None]]:
    def register(function: Callable[[PickleReader], None]) -> Callable[[PickleReader], None]:
        _OPCODES.update(dict.fromkeys((code[0] for code in codes), function))
        return function

    return register


class PickleReader:
    """Reads one pickle after another from a stream.

    Args:
        stream: the bytes.
        file: the file they are of, for errors.
        calls: what answers its calls; other formats made of pickles (a distributed checkpoint's) have their own.
    """

    def __init__(self, stream: ByteStream, file: str, calls: StateDictCalls | None = None):
        self._file = file
        self.calls = calls or StateDictCalls(file)
        self._opcodes = 0
        self.protocol = 2
        self.stream = stream
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The object of the next pickle.

        Raises:
            CheckpointError: it is broken or larger than any state dict.
            UnsafeFileError: it names a function or class that no state dict needs.
            UnsupportedError: an opcode or a kind of tensor that is not read.
        """
        self.stack, self.memo = [], {}
        read, opcodes = self.stream.read, _OPCODES
        try:
            while (code := read(1)[0]) != pickle.STOP[0]:
                self._opcodes += 1
                if self._opcodes > MAX_OPCODES:
                    raise self.error(f"over {MAX_OPCODES} opcodes, more than any state dict has")
                step = opcodes.get(code)
                if step is None:
                    self._refuse(code)
                else:
                    step(self)
            if len(self.stack) != 1 or self.stack[0] is _MARK:
                raise self.error("it does not end in one object")
            return self.stack[0]
        except (IndexError, struct.error, UnicodeDecodeError) as error:
            raise self.error("its opcodes make no sense") from error

    def error(self, problem: str) -> CheckpointError:
        """What is wrong with the pickle, and where."""
        return CheckpointError(f"the pickle at byte {self.stream.position}: {problem}", file=self._file, remedy=_BROKEN)

    def pop(self) -> Any:
        """The top of the stack."""
        value = self.stack.pop()
        if value is _MARK:
            raise self.error("a mark where a value should be")
        return value

    def top(self, kind: type[Any]) -> Any:
        """The top of the stack, which stays there, or an opaque one."""
        value = self.stack[-1]
        if not isinstance(value, kind | Opaque):
            raise self.error(f"{type(value).__name__} where {kind.__name__} should be")
        return value

    def marked(self) -> list[Any]:
        """What was pushed since the last mark, which is taken away."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                values = self.stack[place + 1 :]
                del self.stack[place:]
                return values
        raise self.error("no mark")

    def integer(self, size: int, *, signed: bool = False) -> int:
        """A little-endian number."""
        return int.from_bytes(self.stream.read(size), "little", signed=signed)

    def text(self, length: int) -> str | Opaque:
        """Text of this many bytes; where it is long, only that it is text."""
        if length > _LONG_TEXT:
            self.stream.skip(length)
            return Opaque("text")
        return self.stream.read(length).decode("utf-8", "surrogatepass")

    def store(self, index: int) -> None:
        """Remember the top of the stack."""
        if len(self.memo) >= MAX_MEMO and index not in self.memo:
            raise self.error(f"over {MAX_MEMO} remembered values")
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        """Push a remembered value."""
        if index not in self.memo:
            raise self.error(f"value {index} was never remembered")
        self.stack.append(self.memo[index])

    def put(self, items: dict[Any, Any] | Opaque, pairs: list[Any]) -> None:
        """Set items of a dictionary: keys that are plain values, since only those are hashed in bounded time."""
        if len(pairs) % 2:
            raise self.error("a key without its value")
        if isinstance(items, Opaque):
            return
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            items[self.calls.key(key, len(items))] = value

    def name(self, module: bytes | str | Opaque, attribute: bytes | str | Opaque) -> None:
        """Push a name."""
        parts = [part.decode() if isinstance(part, bytes) else part for part in (module, attribute)]
        if not all(isinstance(part, str) for part in parts):
            raise self.error("a class without a name")
        name = str(parts[0]), str(parts[1])
        if self.protocol < 3:
            name = NAME_MAPPING.get(name, (IMPORT_MAPPING.get(name[0], name[0]), name[1]))
        self.stack.append(Name(*name))

    def _refuse(self, code: int) -> None:
        name = _NAMES.get(code, f"{code:#04x}")
        problem = f"the pickle at byte {self.stream.position} has the opcode {name}, which no state dict needs"
        raise UnsupportedError(problem, file=self._file, remedy=_BROKEN)

    def call(self) -> None:
        """Answer a call: the few that state dicts make."""
        arguments, name = self.pop(), self.pop()
        self.stack.append(self.calls.call(name, arguments))

    def build(self) -> None:
        """Attributes of an object."""
        state = self.pop()
        self.stack[-1] = self.calls.build(self.stack[-1], state)

    def persistent(self) -> None:
        """What the pickle refers to outside itself: a storage."""
        self.stack.append(self.calls.persistent(self.pop()))


_CONSTANTS: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (pickle.NONE, lambda: None), (pickle.NEWTRUE, lambda: True), (pickle.NEWFALSE, lambda: False),
    (pickle.EMPTY_DICT, dict), (pickle.EMPTY_LIST, list), (pickle.EMPTY_TUPLE, tuple), (pickle.EMPTY_SET, list),
    (pickle.MARK, lambda: _MARK),
)  # fmt: skip


def _constant(make: Callable[[], Any]) -> Callable[[PickleReader], None]:
    return lambda reader: reader.stack.append(make())


for _code, _make in _CONSTANTS:
    _opcode(_code)(_constant(_make))


@_opcode(pickle.PROTO)
def _proto(reader: PickleReader) -> None:
    reader.protocol = reader.integer(1)
    if not 2 <= reader.protocol <= 5:
        raise reader.error(f"protocol {reader.protocol}")


@_opcode(pickle.FRAME)
def _frame(reader: PickleReader) -> None:
    reader.stream.read(8)  # how much may be read at once, which does not matter here


@_opcode(pickle.BININT)
def _binint(reader: PickleReader) -> None:
    reader.stack.append(reader.integer(4, signed=True))


@_opcode(pickle.BININT1)
def _binint1(reader: PickleReader) -> None:
    reader.stack.append(reader.integer(1))


@_opcode(pickle.BININT2)
def _binint2(reader: PickleReader) -> None:
    reader.stack.append(reader.integer(2))


@_opcode(pickle.LONG1)
def _long1(reader: PickleReader) -> None:
    reader.stack.append(reader.integer(reader.integer(1), signed=True))


@_opcode(pickle.BINFLOAT)
def _binfloat(reader: PickleReader) -> None:
    reader.stack.append(struct.unpack(">d", reader.stream.read(8))[0])


@_opcode(pickle.SHORT_BINUNICODE)
def _short_unicode(reader: PickleReader) -> None:
    reader.stack.append(reader.text(reader.integer(1)))


@_opcode(pickle.BINUNICODE)
def _unicode(reader: PickleReader) -> None:
    reader.stack.append(reader.text(reader.integer(4)))


@_opcode(pickle.BINUNICODE8)
def _unicode8(reader: PickleReader) -> None:
    reader.stack.append(reader.text(reader.integer(8)))


@_opcode(pickle.SHORT_BINSTRING)
def _short_string(reader: PickleReader) -> None:
    reader.stack.append(reader.stream.read(reader.integer(1)).decode("latin-1"))


@_opcode(pickle.SHORT_BINBYTES)
def _short_bytes(reader: PickleReader) -> None:
    _pass_over_bytes(reader, 1)


@_opcode(pickle.BINBYTES, pickle.BINSTRING)
def _bytes(reader: PickleReader) -> None:
    _pass_over_bytes(reader, 4)


@_opcode(pickle.BINBYTES8, pickle.BYTEARRAY8)
def _bytes8(reader: PickleReader) -> None:
    _pass_over_bytes(reader, 8)


def _pass_over_bytes(reader: PickleReader, size: int) -> None:
    reader.stream.skip(reader.integer(size))
    reader.stack.append(Opaque("bytes"))


@_opcode(pickle.TUPLE)
def _tuple(reader: PickleReader) -> None:
    values = reader.marked()
    reader.stack.append(tuple(values))


@_opcode(pickle.TUPLE1)
def _tuple1(reader: PickleReader) -> None:
    reader.stack.append((reader.pop(),))


@_opcode(pickle.TUPLE2)
def _tuple2(reader: PickleReader) -> None:
    second, first = reader.pop(), reader.pop()
    reader.stack.append((first, second))


@_opcode(pickle.TUPLE3)
def _tuple3(reader: PickleReader) -> None:
    third, second, first = reader.pop(), reader.pop(), reader.pop()
    reader.stack.append((first, second, third))


@_opcode(pickle.LIST, pickle.FROZENSET)
def _list(reader: PickleReader) -> None:
    values = reader.marked()
    reader.stack.append(values)


@_opcode(pickle.DICT)
def _dict(reader: PickleReader) -> None:
    pairs, items = reader.marked(), dict[Any, Any]()
    reader.put(items, pairs)
    reader.stack.append(items)


@_opcode(pickle.APPEND)
def _append(reader: PickleReader) -> None:
    value = reader.pop()
    if not isinstance(items := reader.top(list), Opaque):
        items.append(value)


@_opcode(pickle.APPENDS, pickle.ADDITEMS)
def _appends(reader: PickleReader) -> None:
    values = reader.marked()
    if not isinstance(items := reader.top(list), Opaque):
        items += values


@_opcode(pickle.SETITEM)
def _setitem(reader: PickleReader) -> None:
    value, key = reader.pop(), reader.pop()
    reader.put(reader.top(dict), [key, value])


@_opcode(pickle.SETITEMS)
def _setitems(reader: PickleReader) -> None:
    pairs = reader.marked()
    reader.put(reader.top(dict), pairs)


@_opcode(pickle.POP)
def _pop(reader: PickleReader) -> None:
    reader.stack.pop()


@_opcode(pickle.POP_MARK)
def _pop_mark(reader: PickleReader) -> None:
    reader.marked()


@_opcode(pickle.BINPUT)
def _binput(reader: PickleReader) -> None:
    reader.store(reader.integer(1))


@_opcode(pickle.LONG_BINPUT)
def _long_binput(reader: PickleReader) -> None:
    reader.store(reader.integer(4))


@_opcode(pickle.MEMOIZE)
def _memoize(reader: PickleReader) -> None:
    reader.store(len(reader.memo))


@_opcode(pickle.BINGET)
def _binget(reader: PickleReader) -> None:
    reader.recall(reader.integer(1))


@_opcode(pickle.LONG_BINGET)
def _long_binget(reader: PickleReader) -> None:
    reader.recall(reader.integer(4))


@_opcode(pickle.GLOBAL)
def _global(reader: PickleReader) -> None:
    module = reader.stream.line(256)
    reader.name(module, reader.stream.line(256))


@_opcode(pickle.STACK_GLOBAL)
def _stack_global(reader: PickleReader) -> None:
    attribute, module = reader.pop(), reader.pop()
    reader.name(module, attribute)


@_opcode(pickle.REDUCE, pickle.NEWOBJ)
def _reduce(reader: PickleReader) -> None:
    reader.call()


@_opcode(pickle.BUILD)
def _build(reader: PickleReader) -> None:
    reader.build()


@_opcode(pickle.BINPERSID)
def _persistent(reader: PickleReader) -> None:
    reader.persistent()
