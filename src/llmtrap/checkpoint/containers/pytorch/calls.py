"""What a state dict's calls stand for: a table of names that are answered, and of those that hold no weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Any

from llmtrap.checkpoint.containers.pytorch.values import DTYPES, STORAGES, Name, Opaque, Storage, Tensor
from llmtrap.checkpoint.names import printable
from llmtrap.errors import CheckpointError, UnsafeFileError, UnsupportedError

_BROKEN = "The file is damaged or was not written by PyTorch: save it again with torch.save"
_SAVE = "Where you trust the file, load it and save its state_dict() alone, best as safetensors"

_CONTAINERS = re.compile(
    r"collections\.(OrderedDict|defaultdict|Counter)|builtins\.(dict|list|tuple|set|frozenset)|torch\.Size"
)
_REBUILT = re.compile(r"torch\.(_utils|_tensor)\._rebuild_\w+")
_STORAGE = re.compile(r"torch(\.cuda|\.storage)?\.(\w*Storage)")

# Values that trainers keep beside the weights: settings, counters, paths. None is ever made.
_INERT = re.compile(
    r"numpy(\._core|\.core)?\.(multiarray\.(scalar|_reconstruct)|ndarray|dtype|dtypes\.\w+|\w*int\d+|float\d+|bool_?)"
    r"|numpy(\._core|\.core)?\.numeric\._frombuffer|numpy\.random\._pickle\.\w+|_codecs\.encode"
    r"|argparse\.Namespace|types\.SimpleNamespace|pathlib(\._local)?\.\w*Path|datetime\.\w+|decimal\.Decimal|uuid\.UUID"
    r"|builtins\.(int|float|str|bool|bytes|bytearray|complex|slice|range|object)|copyreg\._reconstructor"
    r"|torch\.(device|dtype|layout|Generator|strided|_C\._Generator|serialization\._get_layout)|torch\.\w*(int|float)\d+"
    r"|torch\.(optim|amp|cuda\.amp)\.[\w.]+|torch\.random\.\w+"
    r"|omegaconf\.[\w.]+|yacs\.config\.CfgNode|easydict\.EasyDict|addict\.\w+\.Dict|ml_collections\.[\w.]+"
    r"|(pytorch_)?lightning(_fabric)?\.[\w.]+|deepspeed\.[\w.]+|megatron\.[\w.]+|fairseq\.[\w.]+"
    r"|transformers\.(training_args|trainer_utils|trainer_callback|utils)[\w.]*|accelerate\.[\w.]+"
)
_SUBCLASSES = re.compile(r"torch(\.nn\.parameter)?\.(Tensor|Parameter|Buffer)")


class StateDictCalls:
    """Answers the calls of one file's pickles. Nothing is looked up, imported or called.

    `storages` are those that were referred to, by their keys.

    Args:
        file: for errors.
    """

    def __init__(self, file: str):
        self._file = file
        self.storages: dict[str, Storage] = {}

    def call(self, name: Any, arguments: Any) -> Any:
        """What `name(*arguments)` stands for.

        Raises:
            UnsafeFileError: a function or class that no state dict needs: loading the file would run it.
            UnsupportedError: a kind of tensor that is not read, or a whole model.
        """
        if isinstance(name, Opaque):
            return Opaque("an object")
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise self._broken("a call of what is no name")
        text = str(name)
        if _CONTAINERS.fullmatch(text):
            return self._container(name.attribute, arguments)
        if _REBUILT.fullmatch(text):
            return self._rebuilt(name.attribute, arguments)
        if _INERT.fullmatch(text):
            return Opaque(printable(text, 120))
        raise self._refused(text)

    def build(self, value: Any, state: Any) -> Any:
        """The object with these attributes; a dictionary's own say nothing of its weights, so none is kept."""
        del state
        return value if isinstance(value, dict | list | Tensor | Opaque) else Opaque("an object")

    def key(self, key: Any, count: int) -> Hashable:
        """A dictionary's key: a plain value, since only those are hashed in bounded time.

        Args:
            key: what the pickle has.
            count: of the keys that the dictionary has already.
        """
        if isinstance(key, str | int | float | Name | None):
            return key
        if isinstance(key, Opaque):
            return f"({key.what} {count})"
        problem = f"a dictionary with a {type(key).__name__} for a key, which no state dict has"
        raise UnsupportedError(problem, file=self._file, remedy=_SAVE)

    def persistent(self, value: Any) -> Storage:
        """The storage that a persistent id refers to: ('storage', class, key, device, count[, view])."""
        match value:
            case ("storage", Name(attribute=kind), str() as key, str(), int() as count, *view) if count >= 0:
                whole = Storage(key, self._storage_dtype(value[1], kind), count)
                if self.storages.setdefault(key, whole) != whole:
                    raise self._broken("two storages of one key")
                match view:
                    case [] | [None]:
                        return whole
                    case [(str(), int() as first, int() as length)] if 0 <= first <= first + length <= count:
                        return Storage(key, whole.dtype, length, first)
        raise self._broken("a persistent id that is no storage")

    def _storage_dtype(self, name: Name, kind: str) -> str | None:
        if kind == "UntypedStorage":
            return None
        if not _STORAGE.fullmatch(str(name)) or kind not in STORAGES:
            quantised = "tensors quantised by PyTorch, " if kind.startswith("Q") else ""
            raise self._kind(f"{quantised}numbers kept as {printable(str(name), 120)}")
        return STORAGES[kind]

    def _container(self, kind: str, arguments: tuple[Any, ...]) -> Any:
        match kind, arguments:
            case ("Size", (list() | tuple() as sizes,)):
                return tuple(sizes)
            case (("tuple" | "list" | "set" | "frozenset"), (list() | tuple() as values,)):
                return tuple(values) if kind == "tuple" else list(values)
            case (("OrderedDict" | "defaultdict" | "Counter" | "dict"), _):
                items: dict[Any, Any] = {}
                for argument in arguments:
                    self._fill(items, argument)
                return items
        return () if kind in ("Size", "tuple") else []

    def _fill(self, items: dict[Any, Any], argument: Any) -> None:
        if isinstance(argument, dict):
            items.update(argument)
        elif isinstance(argument, list):
            for pair in argument:
                if not isinstance(pair, list | tuple) or len(pair) != 2:
                    raise self._broken("a dictionary of what are no pairs")
                items[self.key(pair[0], len(items))] = pair[1]

    def _rebuilt(self, kind: str, arguments: tuple[Any, ...]) -> Any:
        match kind, arguments:
            case (("_rebuild_tensor" | "_rebuild_tensor_v2"), (Storage() as storage, offset, shape, strides, *_)):
                return self._tensor(storage, storage.dtype, offset, shape, strides)
            case ("_rebuild_tensor_v3", (Storage() as storage, offset, shape, strides, _, _, Name() as dtype, *_)):
                return self._tensor(storage, DTYPES.get(dtype.attribute), offset, shape, strides)
            case (("_rebuild_parameter" | "_rebuild_parameter_with_state"), (Tensor() | Opaque() as data, *_)):
                return data
            case ("_rebuild_from_type_v2", (Name() as function, Name() as of_class, tuple() as inner, *_)):
                if _SUBCLASSES.fullmatch(str(of_class)):
                    return self.call(function, inner)
                raise self._kind(f"tensors of the class {printable(str(of_class), 120)}")
            case ("_rebuild_meta_tensor_no_storage", _):
                return Opaque("a tensor without numbers")
            case (("_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" | "_rebuild_parameter"), _):
                raise self._broken("a tensor whose fields make no sense")
        names = {"_rebuild_qtensor": "tensors quantised by PyTorch", "_rebuild_sparse_tensor": "sparse tensors",
                 "_rebuild_nested_tensor": "nested tensors"}  # fmt: skip
        raise self._kind(names.get(kind, f"tensors rebuilt by {printable(kind, 60)}"))

    def _tensor(self, storage: Storage, dtype: str | None, offset: Any, shape: Any, strides: Any) -> Tensor:
        if dtype is None:
            raise self._kind("numbers of a dtype that llmtrap does not know")
        naturals: Callable[[Any], bool] = lambda value: (  # noqa: E731
            isinstance(value, tuple) and all(type(item) is int and 0 <= item < 1 << 62 for item in value)
        )
        if type(offset) is not int or not 0 <= offset < 1 << 62 or not naturals(shape) or not naturals(strides):
            raise self._broken("a tensor whose place, shape or strides are no counts")
        if len(shape) != len(strides) or len(shape) > 32:
            raise self._broken(f"a tensor of {len(shape)} dimensions with {len(strides)} strides")
        return Tensor(storage, dtype, offset, shape, strides)

    def _broken(self, problem: str) -> CheckpointError:
        return CheckpointError(f"the pickle holds {problem}", file=self._file, remedy=_BROKEN)

    def _kind(self, what: str) -> UnsupportedError:
        return UnsupportedError(f"{what}: not read from a pickle", file=self._file, remedy=_SAVE)

    def _refused(self, text: str) -> CheckpointError:
        shown = printable(text, 120)
        if re.match(r"torch\.(nn\.|jit|_C\.ScriptObject|distributed|ao|fx)|__main__\.|transformers\.models", text):
            problem = f"the pickle makes an object of {shown}: a whole model or a kind of tensor, and no state dict"
            return UnsupportedError(problem, file=self._file, remedy=_SAVE)
        problem = f"the pickle calls {shown}, which no state dict needs: loading this file could run code"
        return UnsafeFileError(problem, file=self._file, remedy="It was not run here. Do not load this file")
